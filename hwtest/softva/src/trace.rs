//! The trace log: what a client asked for, in order, to a file that tests read.
//!
//! `SOFTVA_TRACE=FILE` switches it on; `%p` in the name is the process id. A line per call that
//! matters: seconds since the driver was loaded, thread, what happened. Lines are written whole,
//! so several processes may share a file.

use std::fmt::{self, Arguments};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

/// The part of the GPU that does a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Streams to pictures.
    Decode,
    /// Pictures to streams.
    Encode,
    /// Pictures to pictures.
    Process,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Decode, Self::Encode, Self::Process];

    /// Its name in logs, accounts and faults.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Encode => "encode",
            Self::Process => "vpp",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A file name from the environment, with `%p` replaced by the process id.
pub fn file_name(variable: &str) -> Option<String> {
    let name = std::env::var(variable).ok().filter(|name| !name.is_empty())?;
    Some(name.replace("%p", &std::process::id().to_string()))
}

struct Log {
    file: File,
    start: Instant,
}

fn log() -> Option<&'static Log> {
    static LOG: OnceLock<Option<Log>> = OnceLock::new();
    LOG.get_or_init(|| {
        let name = file_name("SOFTVA_TRACE")?;
        let file = OpenOptions::new().create(true).append(true).open(name).ok()?;
        Some(Log { file, start: Instant::now() })
    })
    .as_ref()
}

/// Writes a line, if there is a log.
pub fn line(text: Arguments<'_>) {
    if let Some(log) = log() {
        // SAFETY: a plain system call.
        let thread = unsafe { libc::gettid() };
        let line = format!("{:10.4} {thread} {text}\n", log.start.elapsed().as_secs_f64());
        // A full disk must not stop the pictures.
        let _ = (&log.file).write_all(line.as_bytes());
    }
}

/// `trace!("..", ..)`: a line of the trace log.
#[macro_export]
macro_rules! trace {
    ($($text:tt)*) => { $crate::trace::line(format_args!($($text)*)) };
}
