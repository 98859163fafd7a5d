//! What a worker does while the disk that it writes to is full: it waits.
//!
//! The thread that writes stands in the middle of a write ([`hls::Patience`]). It takes no samples meanwhile,
//! so the channels before it fill up, then the queues of the graph, and then nothing is decoded any more:
//! memory is bounded by what bounds it anyway. The thread that listens to the gateway reads on, and whoever
//! quits is heard at once, past all the samples that wait ([`Room::leave`]).
//!
//! The gateway hears when it begins and when it is over, and in between that the worker is alive.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hls::Patience;
use session::WorkerToGateway;

/// Time between two tries. A viewer has some segments in hand; what is freed is used soon enough.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest that a stream waits. Nobody who watches sits before a picture that stands for longer, and a
/// stream whose viewer has gone is ended by Jellyfin much sooner.
const LONGEST: Duration = Duration::from_secs(600);

/// Room on the disk of the output, as a stream waits for it.
#[derive(Debug)]
pub struct Room {
    socket: Arc<OwnedFd>,
    longest: Duration,
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
    /// Tells the gateway on this socket, of which the writing thread is the only sender.
    pub fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, longest: LONGEST, state: Mutex::default(), changed: Condvar::new() }
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

    fn tell(&self, message: &WorkerToGateway) {
        // If the gateway is gone, the reader thread says so.
        let _ = session::send(self.socket.as_fd(), message, &[]);
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
        // Not with the lock: the gateway may be slow to read, and whoever leaves isn't to wait for it.
        drop(state);
        if began {
            self.tell(&WorkerToGateway::Room { waiting: true });
        }
        self.tell(&WorkerToGateway::Alive { decoded: 0, waiting: true });
        let waited = self.changed.wait_timeout_while(self.lock(), LOOK_EVERY, |state| !state.left);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.given_up = state.has_quit;
        !state.left
    }

    fn over(&self) {
        if self.lock().since.take().is_some() {
            self.tell(&WorkerToGateway::Room { waiting: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use session::Channel;

    use super::*;

    fn room() -> (Arc<Room>, Channel) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(Room::new(Arc::new(ours.into()))), Channel::new(theirs.into()))
    }

    /// What was said until now.
    fn said(channel: &mut Channel, count: usize) -> Vec<WorkerToGateway> {
        (0..count).map(|_| channel.receive().unwrap().unwrap().message).collect()
    }

    #[test]
    fn the_beginning_and_the_end_are_told_once() {
        let (room, mut channel) = room();
        for _ in 0..2 {
            assert!(room.wait());
            assert!(room.wait());
            room.over();
            let alive = WorkerToGateway::Alive { decoded: 0, waiting: true };
            let [begun, over] = [true, false].map(|waiting| WorkerToGateway::Room { waiting });
            assert_eq!(said(&mut channel, 4), [begun, alive.clone(), alive, over]);
        }
        assert!(!room.is_given_up());
    }

    #[test]
    fn whoever_leaves_is_heard_at_once_and_for_good() {
        let (room, _channel) = room();
        let other = Arc::clone(&room);
        let waiting = thread::spawn(move || {
            let mut tries = 0;
            while other.wait() {
                tries += 1;
            }
            tries
        });
        while room.lock().since.is_none() {
            thread::yield_now();
        }
        room.leave(false);
        assert!(waiting.join().unwrap() <= 1);
        assert!(!room.wait() && !room.is_given_up(), "nobody has quit");
        room.leave(true);
        assert!(!room.wait() && room.is_given_up());
    }

    #[test]
    fn a_disk_that_stays_full_is_an_error_in_the_end() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let socket = Arc::new(ours.into());
        let room = Room { longest: Duration::from_millis(1), ..Room::new(socket) };
        assert!(room.wait());
        assert!(!room.wait());
        // That is a failure, not what somebody wanted.
        assert!(!room.is_given_up());
    }
}
