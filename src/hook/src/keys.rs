//! Keys on stdin, byte by byte, as ffmpeg reads them (contract 3, Throttling and Stop).
//!
//! ffmpeg of Jellyfin's make pauses on `p` and goes on at `u` or any other byte; older versions
//! stop at the prompt of `c` until a line ends. Nothing follows a `q`, and the end of input is
//! none: a process started with /dev/null as its stdin runs like any other.

use session::Control;

/// What has been asked so far.
#[derive(Debug, Default)]
pub struct Keyboard {
    paused: bool,
    quit: bool,
}

impl Keyboard {
    /// What a byte asks for, if anything.
    pub fn byte(&mut self, byte: u8) -> Option<Control> {
        match byte {
            _ if self.quit => None,
            b'q' => {
                self.quit = true;
                Some(Control::Quit)
            }
            b'p' | b'c' => {
                let was = std::mem::replace(&mut self.paused, true);
                (!was).then_some(Control::Pause)
            }
            _ => self.resume(),
        }
    }

    /// What the end of input asks for: ffmpeg reads it as a byte like any other, so a paused
    /// stream goes on and doesn't wait for ever.
    pub fn end(&mut self) -> Option<Control> {
        if self.quit { None } else { self.resume() }
    }

    /// Whether the stream is paused right now.
    pub fn paused(&self) -> bool {
        self.paused
    }

    fn resume(&mut self) -> Option<Control> {
        std::mem::take(&mut self.paused).then_some(Control::Resume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use session::Control::{Pause, Quit, Resume};

    #[track_caller]
    fn check(bytes: &[u8], expect: &[Control]) {
        let mut keyboard = Keyboard::default();
        let got: Vec<_> = bytes.iter().filter_map(|byte| keyboard.byte(*byte)).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn keys_mean_what_they_mean_to_ffmpeg() {
        check(b"q\n", &[Quit]);
        check(b"uq\n", &[Quit]);
        check(b"pu", &[Pause, Resume]);
        check(b"ppu", &[Pause, Resume]);
        check(b"c\n", &[Pause, Resume]);
        check(b"px", &[Pause, Resume]);
        check(b"pq\n", &[Pause, Quit]);
        check(b"\nxyz?", &[]);
        check(b"qpu", &[Quit]);
    }

    #[test]
    fn end_of_input_resumes_and_never_stops() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.end(), None);
        keyboard.byte(b'p');
        assert!(keyboard.paused());
        assert_eq!(keyboard.end(), Some(Resume));
        assert!(!keyboard.paused());
    }
}
