//! Times for poll(2).

use std::time::Duration;

use rustix::event::Timespec;

/// A wait as poll wants it.
pub fn timespec(wait: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}
