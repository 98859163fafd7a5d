//! The probe process: asks one GPU's driver what it can do, or puts frames through one element.
//!
//! Drivers crash and hang, so this never runs in a process that matters: `rendergate probe` starts
//! `rendergate-worker --probe-node` once per node to ask, and once more per operation to try, with
//! a time-out each. A crash costs one answer.
//!
//! What is tried is judged by the picture. Each frame has four fields of known colours, one of them
//! brighter from frame to frame, and every one has to come out right: a driver that takes
//! everything and does nothing passes for a working one until somebody looks.
//!
//! Invariants:
//! - The one line on standard output is the answer; whatever a driver prints goes to standard error.
//! - Clips and frames are part of the program. Judges of encoders are software decoders.
#![forbid(unsafe_code)]

mod clip;
mod elements;
mod judge;
mod picture;
mod tones;
mod trial;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use gpu::{NodeProbe, Operation};
use gstreamer as gst;

pub use clip::{Clip, clip};
pub use picture::{FRAMES, Picture};
pub use tones::CAPS as HDR10;
pub use trial::try_operation;

/// Answers for the node at `path`: what it can do, or with `trial` what comes of an operation on an
/// element.
///
/// # Errors
/// Of GStreamer's start or of writing the answer. That a GPU doesn't work is an answer.
pub fn answer(path: &Path, trial: Option<(Operation, &str)>) -> io::Result<()> {
    let mut answer = keep_stdout()?;
    gst::init().map_err(io::Error::other)?;
    let json = match trial {
        Some((operation, element)) => serde_json::to_string(&try_operation(operation, element)),
        None => serde_json::to_string(&ask(path)),
    };
    writeln!(answer, "{}", json?)
}

/// What the node's driver and GStreamer say.
fn ask(path: &Path) -> NodeProbe {
    let (major, minor, micro, _) = gst::version();
    NodeProbe {
        gstreamer: format!("{major}.{minor}.{micro}"),
        va_plugin: elements::plugin().is_some(),
        elements: elements::of_node(path),
        vaapi: vaapi::capabilities(path),
    }
}

/// Standard output for the answer alone: what others write to it goes to standard error.
///
/// # Errors
/// Of the system.
pub fn keep_stdout() -> io::Result<File> {
    let answer = File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?);
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok(answer)
}
