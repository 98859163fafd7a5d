//! ffmpeg's stderr as Jellyfin reads it (contract 3, stderr parsing).
//!
//! A line ends at CR, LF or CRLF. It is split at single spaces, and tokens count only in the
//! spellings that Jellyfin knows: `size=   256kB` is none of them.

use std::time::Duration;

use serde::Serialize;

/// What Jellyfin takes from a line.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Reading {
    /// `fps=`.
    pub fps: Option<f64>,
    /// `time=`, relative to the start of the run.
    pub position: Option<Duration>,
    /// `size=` in bytes.
    pub bytes: Option<u64>,
    /// `bitrate=` in bit/s.
    pub bitrate: Option<u64>,
}

/// Reads a line without its end. `None` if Jellyfin would report nothing: neither `fps=` nor
/// `time=` in it.
pub fn read_line(line: &str) -> Option<Reading> {
    let mut reading = Reading::default();
    let tokens: Vec<&str> = line.split(' ').collect();
    for (i, token) in tokens.iter().enumerate() {
        if let Some(value) = token.strip_prefix("fps=") {
            let value = if value.is_empty() { tokens.get(i + 1).copied() } else { Some(value) };
            reading.fps = value.and_then(|value| value.parse().ok()).or(reading.fps);
        } else if let Some(value) = token.strip_prefix("time=") {
            reading.position = time_span(value).or(reading.position);
        } else if let Some(value) = token.strip_prefix("size=") {
            reading.bytes = kilobytes(value).or(reading.bytes);
        } else if let Some(value) = token.strip_prefix("bitrate=") {
            reading.bitrate = kilobits(value).or(reading.bitrate);
        }
    }
    (reading.fps.is_some() || reading.position.is_some()).then_some(reading)
}

/// .NET's `TimeSpan.TryParse` for what ffmpeg writes: `hh:mm:ss[.fraction]`, hours below 24.
fn time_span(value: &str) -> Option<Duration> {
    let mut parts = value.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let number = |text: &str, below: u64| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten().filter(|value| *value < below)
    };
    let whole = number(hours, 24)? * 3600 + number(minutes, 60)? * 60 + number(seconds, 60)?;
    if fraction.len() > 7 {
        return None;
    }
    number(fraction, u64::MAX)?;
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    Some(Duration::from_secs(whole) + Duration::from_secs_f64(fraction))
}

fn kilobytes(value: &str) -> Option<u64> {
    let lower = value.to_ascii_lowercase();
    let number: u64 = lower.strip_suffix("kb")?.parse().ok()?;
    Some(number * 1024)
}

fn kilobits(value: &str) -> Option<u64> {
    let number: f64 = value.to_ascii_lowercase().strip_suffix("kbits/s")?.parse().ok()?;
    Some((number * 1024.0).ceil() as u64)
}

/// Cuts a byte stream into lines as .NET's `ReadLine` does.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
    after_cr: bool,
}

impl Lines {
    /// The lines that these bytes complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.after_cr) => {}
                b'\r' | b'\n' => {
                    self.after_cr = *byte == b'\r';
                    lines.push(self.take());
                }
                byte => {
                    self.after_cr = false;
                    self.pending.push(*byte);
                }
            }
        }
        lines
    }

    /// What stands without an end, when there is nothing more.
    pub fn finish(&mut self) -> Option<String> {
        (!self.pending.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, fps: Option<f64>, position_ms: Option<u64>) {
        let reading = read_line(line).unwrap_or_default();
        assert_eq!(
            (reading.fps, reading.position),
            (fps, position_ms.map(Duration::from_millis)),
            "{line}"
        );
    }

    #[test]
    fn ffmpegs_lines_are_read() {
        check(
            "frame=  120 fps= 48 q=28.0 size=N/A time=00:00:04.95 bitrate=N/A speed=   2x    ",
            Some(48.0),
            Some(4950),
        );
        check(
            "frame=    3 fps=0.0 q=-1.0 Lsize=N/A time=00:01:02.34 bitrate=N/A",
            Some(0.0),
            Some(62_340),
        );
        check("size=N/A time=01:00:00.00 bitrate=N/A speed=1x", None, Some(3_600_000));
    }

    #[test]
    fn what_jellyfin_cannot_read_counts_as_nothing() {
        check("frame=1 fps=N/A time=N/A", None, None);
        check("time=24:00:00.00", None, None);
        check("time=-577014:32:22.77", None, None);
        check("time=00:61:00.00", None, None);
        check("time= 00:00:01.00", None, None);
        check("press [q] to stop, [?] for help", None, None);
    }

    #[test]
    fn sizes_count_only_without_spaces() {
        let reading = read_line("fps=1 size=256kB bitrate=100.5kbits/s").unwrap();
        assert_eq!((reading.bytes, reading.bitrate), (Some(262_144), Some(102_912)));
        let reading = read_line("fps=1 size=     256kB bitrate= 100.5kbits/s").unwrap();
        assert_eq!((reading.bytes, reading.bitrate), (None, None));
        assert_eq!(read_line("fps=1 size=256KiB").unwrap().bytes, None);
    }

    #[test]
    fn lines_end_at_cr_lf_and_both() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\rb\nc\r"), ["a", "b", "c"]);
        assert_eq!(lines.push(b"\nd\n\ne"), ["d", ""]);
        assert_eq!(lines.finish().as_deref(), Some("e"));
        assert_eq!(lines.finish(), None);
    }
}
