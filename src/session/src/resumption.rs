//! How another worker goes on with a stream whose worker was lost, or whose gateway.
//!
//! With each segment a worker says what one needs that begins behind it. Only workers understand that;
//! whoever watches them keeps the latest, and the lengths of all segments, for the playlist: the gateway
//! for the next worker, the hook for the next gateway.

use std::iter::repeat_n;

use ffmpeg_args::{Location, Output, Transcode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Progress, Writer};

/// Most lengths that are kept, each for as many segments as follow each other with the same: with more,
/// a message might exceed its limit. Encoded streams have a handful, copied ones one per segment; so
/// it is reached by a copy of ten hours and more.
const MOST_LENGTHS: usize = 8_000;
/// Most segments of a stream: of one second, as long as eleven days. What claims more isn't believed.
const MOST_SEGMENTS: u64 = 1_000_000;

/// What a worker says of a complete segment beside its number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Complete {
    /// Its length as the playlist has it: ticks, and how many of them are a second.
    pub length: (u64, u32),
    /// The worker's state behind it, in its own words. `None` if nobody can go on there: behind the last
    /// segment, or of an output that isn't segments of files.
    pub state: Option<Value>,
    /// Nothing comes behind it, and the playlist is written.
    pub last: bool,
}

/// Where a stream goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumption {
    /// Number of the next segment.
    pub next: u64,
    /// That of the worker which has written the one before; `None` before there is one, and if it can't
    /// be gone on with.
    pub state: Option<Value>,
    first: u64,
    /// Ticks, ticks per second, and how many segments in a row have them.
    lengths: Vec<(u64, u32, u64)>,
}

/// A stream as a hook brings it to the next gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Takeover {
    /// Behind which segment it goes on.
    pub resumption: Resumption,
    /// Who wrote last, and may have left something half-written.
    pub writer: Option<Writer>,
    /// What Jellyfin has been told of its progress.
    pub progress: Progress,
}

impl Resumption {
    /// The number of a stream's first segment, if it can be gone on with at all. A growing file can't:
    /// it is only appended to, and its reader knows how far it has read. Nor what comes through a pipe,
    /// which is gone.
    pub fn possible(transcode: &Transcode) -> Option<u64> {
        let comes_once = |location: &Location| matches!(location, Location::Network(_));
        match &transcode.output {
            Output::Hls(output)
                if !transcode.inputs.iter().any(|input| comes_once(&input.location)) =>
            {
                Some(output.start_number)
            }
            _ => None,
        }
    }

    /// Whether it leads anywhere: behind a segment with a state, or to the beginning.
    pub fn leads_on(&self) -> bool {
        self.state.is_some() || self.lengths.is_empty()
    }

    /// Whether a stream whose first segment has this number can have come so far. What is in the worker's
    /// state is for workers to judge.
    pub fn is_sound(&self, first: u64) -> bool {
        if *self == Self::beginning(first) {
            return true;
        }
        let counts = self.lengths.iter().try_fold(0_u64, |sum, (_, rate, count)| {
            (*rate > 0).then(|| sum.checked_add(*count)).flatten()
        });
        self.first == first
            && self.state.is_some()
            && self.next.checked_sub(first).is_some_and(|segments| {
                segments > 0
                    && counts.is_some_and(|counts| (segments..=MOST_SEGMENTS).contains(&counts))
            })
    }

    /// Complete segments before the next.
    pub fn segments(&self) -> u64 {
        self.next.saturating_sub(self.first)
    }

    /// The number of the last of them.
    pub fn last(&self) -> Option<u64> {
        (self.segments() > 0).then(|| self.next - 1)
    }

    /// Of a stream whose first segment has this number and isn't written.
    pub fn beginning(first: u64) -> Self {
        Self { next: first, state: None, first, lengths: Vec::new() }
    }

    /// Notes a complete segment. One that was there may be written anew: then a worker was lost before
    /// it said so.
    pub fn note(&mut self, number: u64, complete: Complete) {
        let Some(before) = number.checked_sub(self.first) else { return };
        self.keep(before);
        let (ticks, rate) = complete.length;
        match self.lengths.last_mut() {
            Some((t, r, count)) if (*t, *r) == (ticks, rate) => *count += 1,
            _ => self.lengths.push((ticks, rate, 1)),
        }
        if self.lengths.len() > MOST_LENGTHS {
            self.state = None;
        } else if complete.state.is_some() {
            self.state = complete.state;
            self.next = number + 1;
        }
    }

    /// Forgets all lengths but those of so many segments.
    fn keep(&mut self, mut segments: u64) {
        self.lengths.retain_mut(|(_, _, count)| {
            *count = segments.min(*count);
            segments -= *count;
            *count > 0
        });
    }

    /// Of the segments before the next, in ticks and ticks per second.
    pub fn lengths(&self) -> impl Iterator<Item = (u64, u32)> {
        let runs = self.lengths.iter();
        let each = runs.flat_map(|(ticks, rate, count)| {
            repeat_n((*ticks, *rate), usize::try_from(*count).unwrap_or(0))
        });
        each.take(usize::try_from(self.segments()).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(ticks: u64, state: Option<&str>) -> Complete {
        Complete { length: (ticks, 90_000), state: state.map(Value::from), last: false }
    }

    #[test]
    fn lengths_are_those_of_the_segments_before_the_next() {
        let mut resumption = Resumption::beginning(7);
        let lengths = |resumption: &Resumption| -> Vec<u64> {
            resumption.lengths().map(|(ticks, _)| ticks).collect()
        };
        for (number, ticks) in [(7, 3), (8, 3), (9, 4)] {
            resumption.note(number, complete(ticks, Some("s")));
        }
        assert_eq!((resumption.next, lengths(&resumption)), (10, vec![3, 3, 4]));
        // The last one, of which nobody goes on; its worker is lost before the playlist.
        resumption.note(10, complete(1, None));
        assert_eq!((resumption.next, lengths(&resumption)), (10, vec![3, 3, 4]));
        resumption.note(10, complete(1, None));
        resumption.note(8, complete(5, Some("t")));
        assert_eq!((resumption.next, lengths(&resumption)), (9, vec![3, 5]));
        let text = serde_json::to_string(&resumption).unwrap();
        assert_eq!(serde_json::from_str::<Resumption>(&text).unwrap(), resumption);
    }

    #[test]
    fn what_a_hook_brings_is_believed_only_as_far_as_it_can_be() {
        let mut resumption = Resumption::beginning(7);
        assert!(resumption.is_sound(7) && !resumption.is_sound(6), "nothing is written");
        resumption.note(7, complete(3, Some("s")));
        resumption.note(8, complete(3, None));
        assert!(resumption.is_sound(7) && !resumption.is_sound(6));
        assert_eq!(resumption.segments(), 1);
        let broken = |change: &dyn Fn(&mut Resumption)| {
            let mut broken = resumption.clone();
            change(&mut broken);
            assert!(!broken.is_sound(7), "{broken:?}");
            assert!(broken.lengths().take(9).count() <= 9);
        };
        broken(&|it| it.state = None);
        broken(&|it| it.next = 7);
        broken(&|it| it.next = 3);
        broken(&|it| it.next = u64::MAX);
        broken(&|it| it.lengths.clear());
        broken(&|it| it.lengths = vec![(3, 0, 1)]);
        broken(&|it| it.lengths = vec![(3, 1, u64::MAX), (3, 1, u64::MAX)]);
        broken(&|it| it.lengths = vec![(3, 1, MOST_SEGMENTS + 1)]);
    }

    #[test]
    fn a_message_never_exceeds_its_limit() {
        let mut resumption = Resumption::beginning(0);
        let long = "x".repeat(4096);
        let mut most = 0;
        for number in 0..10_000 {
            resumption.note(number, complete(u64::from(u32::MAX) + number, Some(&long)));
            if number % 100 == 0 && resumption.state.is_some() {
                most = most.max(serde_json::to_string(&resumption).unwrap().len());
            }
        }
        assert_eq!(resumption.state, None);
        // Beside it there is the plan.
        assert!(most > 64 * 1024 && most < crate::MAX_BODY - 32 * 1024, "{most} bytes");
    }
}
