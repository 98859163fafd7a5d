//! Streams that are left to the hook's own ffmpeg, as far as the processor is theirs too.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// As long as an ffmpeg may take for its first two segments of what the gateway's streams leave while
/// they only go on as fast as they play. How far it is can't be seen from here, nor when it ends.
pub(crate) const BEGINNING: Duration = Duration::from_secs(10);

/// Whether somebody begins whom no worker serves.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere(Mutex<Option<Instant>>);

impl Elsewhere {
    /// One is left to the hook's ffmpeg for want of room.
    pub(crate) fn left(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + BEGINNING);
    }

    /// Whether that was a moment ago.
    pub(crate) fn begins(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }
}
