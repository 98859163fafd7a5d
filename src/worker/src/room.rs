//! What a worker does while the disk that it writes to is full: it waits ([`hls::Room`]).
//!
//! The thread that writes stands still, with all that feeds it. The thread that listens to the gateway reads
//! on, so whoever quits is heard at once, past all the samples that wait. The gateway hears when it begins
//! and when it is over, and in between that the worker is alive.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use hls::{Room, Waiting};
use session::WorkerToGateway;

/// The room of the stream whose gateway is behind this socket, on which nobody but the thread that writes
/// sends.
pub fn of_stream(socket: Arc<OwnedFd>) -> Arc<Room> {
    Arc::new(Room::new(move |news| {
        let message = match news {
            Waiting::Begins => WorkerToGateway::Room { waiting: true },
            Waiting::Lasts => WorkerToGateway::Alive { decoded: 0, waiting: true },
            Waiting::Ends => WorkerToGateway::Room { waiting: false },
        };
        // If the gateway is gone, the reader thread says so.
        let _ = session::send(socket.as_fd(), &message, &[]);
    }))
}
