//! Behaves towards its ffmpeg as Jellyfin does: starts it, speaks to it, stops it, and serves its
//! segments to a viewer, or its growing file to a client, by Jellyfin's own rules (contract sections 0
//! to 4). Any ffmpeg will do.
//!
//! ```text
//! Script ─▶ viewer ── segment 7, please ──▶ Server ─┬─ Job: argv, q/p/u, stderr, exit code
//!                                                   └─ Watch: every file that ever appears
//!                      Report: times, stalls, segments, faults ◀─────────┘
//! ```
//!
//! The rules are Jellyfin's to the letter, its poll of 100 ms included; beside it the server looks
//! every two milliseconds, only to note when a segment became servable.
//!
//! Invariants:
//! - Nothing that Jellyfin would trip over passes unnoticed: each such thing is a [`Fault`].
//! - No process outlives its [`Job`].
#![forbid(unsafe_code)]

mod command;
mod job;
pub mod job_logger;
pub mod live;
mod media;
mod progressive;
mod report;
mod server;
mod tuner;
mod viewer;
mod watch;

pub use command::{CommandError, CommandLine, Container, Kind, Template};
pub use job::{Exit, Job, Log, STOP_PATIENCE};
pub use media::{Media, MediaError};
pub use progressive::{Download, Received, follow};
pub use report::{Appeared, Fault, FaultKind, Report, Run, Served};
pub use server::{Server, Settings};
pub use tuner::Tuner;
pub use viewer::{Amount, Pace, Script, ScriptError, Stall, Step, play};
pub use watch::{Change, Event, Watch};

/// Lets time pass between two looks.
#[expect(clippy::disallowed_methods, reason = "Jellyfin polls, and so does who stands in for it")]
pub(crate) fn let_pass(time: std::time::Duration) {
    std::thread::sleep(time);
}
