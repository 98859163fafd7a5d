//! How a stream waits for room on a disk that is full, and is called away from it.
//!
//! Whoever writes stands in the middle of a write meanwhile and takes no samples, so what lies before it
//! fills up, and then nothing is decoded any more: memory is bounded by what bounds it anyway.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Patience;

/// Time between two tries. A viewer has some segments in hand; what is freed is used soon enough.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest that a stream waits. Nobody who watches sits before a picture that stands for longer, and a
/// stream whose viewer has gone is ended by Jellyfin much sooner.
const LONGEST: Duration = Duration::from_secs(600);

/// What is told of the waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The disk is full.
    Begins,
    /// It is so still; told with every try, of which there are four a second.
    Lasts,
    /// There was room for what was waited for.
    Ends,
}

/// Room on the disk of an output, as a stream waits for it.
pub struct Room {
    longest: Duration,
    tell: Box<dyn Fn(Waiting) + Send + Sync>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Since when it waits without a break.
    since: Option<Instant>,
    /// Nobody waits any longer.
    left: bool,
    /// The viewer has quit.
    has_quit: bool,
    /// Something stays unwritten for that.
    given_up: bool,
}

impl Room {
    /// `tell` is called by the thread that writes, in the middle of it.
    pub fn new(tell: impl Fn(Waiting) + Send + Sync + 'static) -> Self {
        Self {
            longest: LONGEST,
            tell: Box::new(tell),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// From now on nobody waits: the viewer has quit, or else the gateway is gone.
    pub fn leave(&self, has_quit: bool) {
        let mut state = self.lock();
        state.left = true;
        state.has_quit |= has_quit;
        drop(state);
        self.changed.notify_all();
    }

    /// Whether the viewer has quit.
    pub fn has_quit(&self) -> bool {
        self.lock().has_quit
    }

    /// Whether there was no room for something, and the viewer, who has quit, doesn't wait for any.
    pub fn is_given_up(&self) -> bool {
        self.lock().given_up
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Patience for Room {
    fn wait(&self) -> bool {
        let mut state = self.lock();
        if state.left {
            state.given_up = state.has_quit;
            return false;
        }
        let began = state.since.is_none();
        let since = *state.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.longest {
            return false;
        }
        // Not with the lock: whoever is told may be slow, and whoever leaves isn't to wait for it.
        drop(state);
        if began {
            (self.tell)(Waiting::Begins);
        }
        (self.tell)(Waiting::Lasts);
        let waited = self.changed.wait_timeout_while(self.lock(), LOOK_EVERY, |state| !state.left);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.given_up = state.has_quit;
        !state.left
    }

    fn over(&self) {
        if self.lock().since.take().is_some() {
            (self.tell)(Waiting::Ends);
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

    use super::*;

    fn room() -> (Room, Receiver<Waiting>) {
        let (tell, told) = channel();
        (Room::new(move |news| tell.send(news).unwrap()), told)
    }

    #[test]
    fn the_beginning_and_the_end_are_told_once() {
        let (room, told) = room();
        for _ in 0..2 {
            assert!(room.wait());
            assert!(room.wait());
            room.over();
            let expected = [Waiting::Begins, Waiting::Lasts, Waiting::Lasts, Waiting::Ends];
            assert_eq!(told.try_iter().collect::<Vec<_>>(), expected);
        }
        assert!(!room.is_given_up());
    }

    #[test]
    fn whoever_leaves_is_heard_at_once_and_for_good() {
        let (room, told) = room();
        let room = Arc::new(room);
        let other = Arc::clone(&room);
        let waiting = thread::spawn(move || {
            let mut tries = 0;
            while other.wait() {
                tries += 1;
            }
            tries
        });
        assert_eq!(told.recv(), Ok(Waiting::Begins));
        room.leave(false);
        assert!(waiting.join().unwrap() <= 1);
        assert!(!room.wait() && !room.is_given_up(), "nobody has quit");
        room.leave(true);
        assert!(!room.wait() && room.is_given_up());
    }

    #[test]
    fn a_disk_that_stays_full_is_an_error_in_the_end() {
        let silent = Room { longest: Duration::from_millis(1), ..Room::new(|_| {}) };
        assert!(silent.wait());
        assert!(!silent.wait());
        // That is a failure, not what somebody wanted.
        assert!(!silent.is_given_up());
    }
}
