//! Progress lines as ffmpeg prints them and Jellyfin parses them (contract 3, stderr parsing).
//!
//! Jellyfin splits at single spaces and wants `fps=` and `time=`; the throttler works on `time=`,
//! which counts from the first frame of the run.

use std::fmt::Write as _;

use session::Progress;

/// One line without its end. `last` is the summary at the end of a stream.
pub fn line(progress: &Progress, has_video: bool, last: bool) -> String {
    let mut line = String::with_capacity(100);
    let seconds = progress.elapsed_us as f64 / 1e6;
    if has_video {
        let fps = if seconds > 0.0 { progress.frames as f64 / seconds } else { 0.0 };
        let decimals = usize::from(fps < 9.95);
        _ = write!(line, "frame={:5} fps={fps:3.decimals$} q=-1.0 ", progress.frames);
    }
    _ = write!(line, "{}size=N/A time={} bitrate=N/A", mark(last), clock(progress.position_us));
    if seconds > 0.0 {
        let speed = progress.position_us as f64 / progress.elapsed_us as f64;
        _ = write!(line, " speed={:>4}x    ", three_digits(speed));
    } else {
        line.push_str(" speed=N/A");
    }
    line
}

fn mark(last: bool) -> &'static str {
    if last { "L" } else { "" }
}

/// `HH:MM:SS.cc`, cut off, not rounded.
fn clock(us: u64) -> String {
    let hundredths = us / 10_000;
    let (seconds, hundredths) = (hundredths / 100, hundredths % 100);
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    format!("{:02}:{:02}:{seconds:02}.{hundredths:02}", minutes / 60, minutes % 60)
}

/// C's `%.3g`.
fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:.2e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("LowerExp has an e");
    let exponent: i32 = exponent.parse().expect("LowerExp has a number behind the e");
    if (-4..3).contains(&exponent) {
        let decimals = usize::try_from(2 - exponent).expect("exponent is below three");
        trim(&format!("{value:.decimals$}")).to_owned()
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
    }
}

fn trim(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(frames: u64, position_us: u64, elapsed_us: u64) -> Progress {
        Progress { frames, position_us, elapsed_us, ..Progress::default() }
    }

    #[test]
    fn lines_are_ffmpegs() {
        assert_eq!(
            line(&at(120, 4_958_333, 2_480_000), true, false),
            "frame=  120 fps= 48 q=-1.0 size=N/A time=00:00:04.95 bitrate=N/A speed=   2x    "
        );
        assert_eq!(
            line(&at(3, 125_000, 500_000), true, true),
            "frame=    3 fps=6.0 q=-1.0 Lsize=N/A time=00:00:00.12 bitrate=N/A speed=0.25x    "
        );
        assert_eq!(
            line(&at(99, 3_725_500_000, 1_000_000), false, false),
            "size=N/A time=01:02:05.50 bitrate=N/A speed=3.73e+03x    "
        );
        assert_eq!(
            line(&at(0, 0, 0), true, false),
            "frame=    0 fps=0.0 q=-1.0 size=N/A time=00:00:00.00 bitrate=N/A speed=N/A"
        );
    }

    #[test]
    fn three_digits_as_printf() {
        for (value, expect) in [
            (0.0, "0"),
            (1.0, "1"),
            (1.256, "1.26"),
            (12.34, "12.3"),
            (99.96, "100"),
            (123.4, "123"),
            (999.6, "1e+03"),
            (0.012_34, "0.0123"),
            (0.000_012_3, "1.23e-05"),
        ] {
            assert_eq!(three_digits(value), expect, "{value}");
        }
    }
}
