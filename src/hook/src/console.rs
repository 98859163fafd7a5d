//! Lines on stderr, which Jellyfin keeps as the log of the transcode.
//!
//! Invariants:
//! - No write waits: bytes go out when the pipe has room, the rest is kept up to a bound and
//!   dropped beyond it. A reader that has gone away stops nothing.
//! - The descriptor's flags stay as they are: it is shared with whoever started the process.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::stderr;

use crate::clock::timespec;
use crate::process::PipeIgnored;

/// What a pipe takes without waiting once it reports room (`PIPE_BUF`).
const ATOMIC: usize = 4096;
/// As much as a pipe holds; a reader that is further behind than two of them has other troubles.
const MOST_PENDING: usize = 64 * 1024;
/// How long the last lines of a process wait for their reader.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// One line at once, for a process that is about to become another or to end.
pub fn say(line: &str) {
    let clean: String = line.chars().map(printable).collect();
    say_text(&format!("{clean}\n"));
}

/// As [`say`], text as it is.
pub fn say_text(text: &str) {
    let ignored = PipeIgnored::take();
    let mut console = Console::new(stderr());
    console.text(text);
    console.drain(PATIENCE);
    ignored.restore();
}

fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// Where lines go, and those that have not gone yet.
pub struct Console<F> {
    out: F,
    pending: Vec<u8>,
    gone: bool,
}

impl<F: AsFd> Console<F> {
    /// On a descriptor. SIGPIPE must be ignored.
    pub fn new(out: F) -> Self {
        Self { out, pending: Vec::new(), gone: false }
    }

    /// A line, in words of whatever origin: line ends and control characters become spaces.
    pub fn line(&mut self, line: &str) {
        let clean: String = line.chars().map(printable).collect();
        self.text(&format!("{clean}\n"));
    }

    /// Text as it is.
    pub fn text(&mut self, text: &str) {
        if !self.gone && self.pending.len() + text.len() <= MOST_PENDING {
            self.pending.extend_from_slice(text.as_bytes());
        }
        self.flush();
    }

    /// Text that is worth something only now: dropped if the reader is behind.
    pub fn passing(&mut self, text: &str) {
        if self.pending.is_empty() {
            self.text(text);
        }
    }

    /// Whether something waits for room.
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes what goes without waiting.
    pub fn flush(&mut self) {
        while self.is_behind() && self.room(Duration::ZERO) {
            self.write_some();
        }
    }

    /// Writes all of it, waiting for the reader up to `patience`.
    pub fn drain(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        while self.is_behind() && self.room(end.saturating_duration_since(Instant::now())) {
            self.write_some();
        }
    }

    fn write_some(&mut self) {
        let chunk = self.pending.len().min(ATOMIC);
        match rustix::io::write(&self.out, &self.pending[..chunk]) {
            Ok(n) => drop(self.pending.drain(..n)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => {
                self.gone = true;
                self.pending.clear();
            }
        }
    }

    fn room(&self, wait: Duration) -> bool {
        let mut fds = [PollFd::new(&self.out, PollFlags::OUT)];
        // An error state counts as room: the write that follows finds it out.
        matches!(poll(&mut fds, Some(&timespec(wait))), Ok(n) if n > 0)
    }

    /// To poll for room.
    pub fn descriptor(&self) -> &F {
        &self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_full_pipe_blocks_nothing_and_loses_only_what_is_beyond_the_bound() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut console = Console::new(writer);
        let line = "x".repeat(1023);
        for _ in 0..400 {
            console.line(&line);
        }
        assert!(console.is_behind());
        console.passing("not now\r");
        let mut read = vec![0; 64 * 1024];
        let first = reader.read(&mut read).unwrap();
        read.truncate(first);
        console.drain(PATIENCE);
        let mut rest = vec![0; 64 * 1024];
        let second = reader.read(&mut rest).unwrap();
        console.drain(PATIENCE);
        assert!(!console.is_behind());
        drop(console);
        read.extend(&rest[..second]);
        reader.read_to_end(&mut read).unwrap();
        // What the pipe held (a little less than its size) and what was kept beside it.
        assert!((100..=128).contains(&(read.len() / 1024)), "{}", read.len());
        assert!(!String::from_utf8(read).unwrap().contains("not now"));
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut console = Console::new(writer);
        console.line("nobody reads this");
        assert!(!console.is_behind());
        console.line("nor this");
        assert!(!console.is_behind());
    }

    #[test]
    fn words_of_others_stay_on_their_line() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        Console::new(writer).line("a\nb\r\x1b[31mc");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a b  [31mc\n");
    }
}
