//! What is kept, in memory: titles, how much of each, who uses it, and which goes next.
//!
//! Invariants:
//! - What somebody reads or adds to is not taken from the disk; it may be marked as gone, and goes when the
//!   last has let go of it.
//! - No clock, no I/O.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::sharing::{Lineage, Title};

/// A kept title's number, which names its folder.
pub(super) type Id = u32;

/// A kept title.
#[derive(Debug)]
struct Entry {
    title: Title,
    lineage: Lineage,
    /// On the disk.
    bytes: u64,
    used: SystemTime,
    readers: usize,
    /// Somebody adds to it.
    grows: bool,
    /// He takes something away from it at the moment.
    shrinks: bool,
    /// Nobody finds it any more.
    gone: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<Id, Entry>,
    last: Id,
}

impl Index {
    /// Takes in what was on the disk.
    pub(super) fn restore(&mut self, id: Id, title: Title, bytes: u64, used: SystemTime) {
        self.last = self.last.max(id);
        self.insert(id, title, Lineage::new(), bytes, used, false);
    }

    /// A new one, to which somebody adds. What there was of the title is gone.
    pub(super) fn begin(&mut self, title: &Title, lineage: Lineage, now: SystemTime) -> Id {
        if let Some(before) = self.find(title) {
            self.mark_gone(before);
        }
        self.last += 1;
        self.insert(self.last, title.clone(), lineage, 0, now, true);
        self.last
    }

    fn insert(
        &mut self,
        id: Id,
        title: Title,
        lineage: Lineage,
        bytes: u64,
        used: SystemTime,
        grows: bool,
    ) {
        let (readers, shrinks, gone) = (0, false, false);
        let entry = Entry { title, lineage, bytes, used, readers, grows, shrinks, gone };
        self.entries.insert(id, entry);
    }

    pub(super) fn find(&self, title: &Title) -> Option<Id> {
        let found = |(_, entry): &(&Id, &Entry)| !entry.gone && entry.title == *title;
        self.entries.iter().find(found).map(|(id, _)| *id)
    }

    pub(super) fn lineage(&self, id: Id) -> Option<Lineage> {
        self.entries.get(&id).map(|entry| entry.lineage)
    }

    /// Begins to add to what there is of a title, if it goes back to the same.
    pub(super) fn go_on(&mut self, title: &Title, lineage: Lineage) -> Option<Id> {
        let id = self.find(title)?;
        let entry = self.entries.get_mut(&id).filter(|entry| entry.lineage == lineage)?;
        entry.grows = true;
        Some(id)
    }

    /// Nobody adds to it any more.
    pub(super) fn rests(&mut self, id: Id) {
        self.change(id, |entry| entry.grows = false);
    }

    /// Somebody reads it from now on: what it goes back to. `None` if it can't be read now.
    pub(super) fn hold(&mut self, id: Id, now: SystemTime) -> Option<Lineage> {
        // Of one that has just been begun there isn't a segment, nor perhaps a folder.
        let is_new = |entry: &Entry| entry.grows && entry.bytes == 0;
        let can_be = |entry: &&mut Entry| !entry.shrinks && !is_new(entry);
        let entry = self.entries.get_mut(&id).filter(can_be)?;
        entry.readers += 1;
        entry.used = now;
        Some(entry.lineage)
    }

    /// He reads it no longer.
    pub(super) fn let_go(&mut self, id: Id) {
        self.change(id, |entry| entry.readers -= 1);
    }

    /// Begins to take something away from it; `false` if somebody reads it.
    pub(super) fn shrinks(&mut self, id: Id) -> bool {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.readers == 0);
        entry.map(|entry| entry.shrinks = true).is_some()
    }

    /// It has grown, or shrunk.
    pub(super) fn weighs(&mut self, id: Id, bytes: u64, now: SystemTime) {
        self.change(id, |entry| {
            (entry.bytes, entry.used, entry.shrinks) = (bytes, now, false);
        });
    }

    fn change(&mut self, id: Id, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&id) {
            change(entry);
        }
    }

    /// Nobody finds it any more; whether that is news.
    pub(super) fn mark_gone(&mut self, id: Id) -> bool {
        let entry = self.entries.get_mut(&id);
        entry.is_some_and(|entry| !std::mem::replace(&mut entry.gone, true))
    }

    pub(super) fn is_gone(&self, id: Id) -> bool {
        self.entries.get(&id).is_none_or(|entry| entry.gone)
    }

    /// Marks what a title's files have been before they changed; how many there were.
    pub(super) fn supersede(&mut self, title: &Title) -> usize {
        let entries = self.entries.values_mut();
        let stale = entries.filter(|entry| !entry.gone && title.supersedes(&entry.title));
        stale.map(|entry| entry.gone = true).count()
    }

    /// Marks what was used longest ago of what nobody uses now; its size in bytes.
    pub(super) fn give_up_one(&mut self) -> Option<u64> {
        let entries = self.entries.values_mut();
        let idle = entries.filter(|entry| !entry.gone && entry.readers == 0 && !entry.grows);
        let oldest = idle.min_by_key(|entry| entry.used)?;
        oldest.gone = true;
        Some(oldest.bytes)
    }

    /// One that is gone and that nobody uses. Whoever asks takes it from the disk.
    pub(super) fn take_gone(&mut self) -> Option<Id> {
        let done = |(_, entry): &(&Id, &Entry)| entry.gone && entry.readers == 0 && !entry.grows;
        let id = *self.entries.iter().find(done)?.0;
        self.entries.remove(&id);
        Some(id)
    }

    /// Of all, those that are gone but still used too.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.bytes).sum()
    }

    /// Likewise.
    pub(super) fn titles(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn title(plan: &str) -> Title {
        Title::for_tests(7, 1, plan)
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn three() -> Index {
        let mut index = Index::default();
        for (id, used) in [(3, 30), (5, 10), (9, 20)] {
            index.restore(id, title(&id.to_string()), 100, at(used));
        }
        index
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut index = three();
        assert_eq!(index.take_gone(), None);
        index.hold(5, at(40));
        index.let_go(5);
        let gone = |index: &mut Index| {
            assert!(index.give_up_one().is_some());
            index.take_gone().unwrap()
        };
        assert_eq!([gone(&mut index), gone(&mut index), gone(&mut index)], [9, 3, 5]);
        assert_eq!(index.give_up_one(), None);
        assert_eq!((index.bytes(), index.titles()), (0, 0));
    }

    #[test]
    fn what_somebody_uses_stays_until_he_lets_go() {
        let mut index = three();
        index.hold(5, at(0)).unwrap();
        let lineage = index.entries[&9].lineage;
        assert_eq!(index.go_on(&title("9"), lineage), Some(9));
        assert_eq!(index.go_on(&title("3"), lineage), None);
        assert!(index.give_up_one().is_some());
        assert_eq!(index.take_gone(), Some(3));
        assert_eq!(index.give_up_one(), None);
        // Nobody finds it, and it stands.
        assert!(index.mark_gone(5) && !index.mark_gone(5));
        assert_eq!((index.find(&title("5")), index.take_gone(), index.bytes()), (None, None, 200));
        index.let_go(5);
        assert_eq!(index.take_gone(), Some(5));
        index.mark_gone(9);
        assert_eq!(index.take_gone(), None);
        index.rests(9);
        assert_eq!(index.take_gone(), Some(9));
    }

    #[test]
    fn a_title_is_kept_once_and_numbers_are_new() {
        let mut index = three();
        let id = index.begin(&title("5"), Lineage::new(), at(50));
        assert_eq!((id, index.find(&title("5"))), (10, Some(10)));
        assert_eq!(index.take_gone(), Some(5));
        assert!(index.hold(10, at(55)).is_none());
        index.weighs(10, 70, at(60));
        assert!(index.hold(10, at(65)).is_some());
        assert_eq!((index.bytes(), index.titles()), (270, 3));
    }

    #[test]
    fn what_a_file_was_before_it_changed_is_gone_at_once() {
        let mut index = three();
        index.restore(11, Title::for_tests(8, 1, "x"), 100, at(0));
        assert_eq!(index.supersede(&title("another plan")), 0);
        assert_eq!(index.supersede(&Title::for_tests(7, 2, "3")), 3);
        assert_eq!(index.supersede(&Title::for_tests(7, 2, "3")), 0);
        assert_eq!(index.find(&Title::for_tests(8, 1, "x")), Some(11));
    }

    #[test]
    fn nothing_is_cut_that_somebody_reads() {
        let mut index = three();
        index.hold(3, at(0)).unwrap();
        assert!(!index.shrinks(3));
        index.let_go(3);
        assert!(index.shrinks(3));
        assert!(index.hold(3, at(0)).is_none());
        index.weighs(3, 50, at(0));
        assert!(index.hold(3, at(0)).is_some());
    }
}
