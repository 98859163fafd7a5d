//! Network inputs: the real ffmpeg fetches them, the worker reads a pipe.
//!
//! `http://127.0.0.1:8096/...` can only be reached where Jellyfin runs, and so here; and ffmpeg speaks
//! every protocol, with the options that the command names for it. A reader gives the input's bytes
//! as they are (`-f data`: raw, whatever is in it), or what it finds in a protocol without bytes of
//! one container, as MPEG-TS with the same times.
//!
//! A reader that fails at once (404) ends the pipe before its first byte. The worker has nothing to
//! read then, nothing is written, and the real ffmpeg says in its own words what is wrong. One that
//! fails later ends the stream, as the end of its input does; what it says stands in Jellyfin's log.
//!
//! Invariants:
//! - A reader ends with the hook, by the kernel's hand if need be ([`process::start`]); it is killed
//!   and reaped before the hook exits or becomes another program ([`end_all`]).
//! - It holds nothing of Jellyfin's but stderr: its stdin is empty, its stdout the pipe.
//!
//! [`process::start`]: crate::process::start

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Mutex;

use ffmpeg_args::{Delivery, Network};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::real;

/// What the pipe holds: a second at 8 Mbit/s, so that reader and worker needn't wait for each other.
const PIPE_BYTES: usize = 1 << 20;
/// Bytes that are passed on at once at most. By itself ffmpeg takes 1024 of an input of unknown kind.
const PACKET_BYTES: &str = "65536";

/// All that were started.
static READERS: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Starts a reader; gives the end of the pipe that its input comes out of.
///
/// # Errors
/// If there is no real ffmpeg, or no process or pipe can be made.
pub fn start(network: &Network) -> io::Result<OwnedFd> {
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
    // One of the usual size will do if the system grants no more.
    let _ = fcntl_setpipe_size(&reading, PIPE_BYTES);
    let reader = real::start(&arguments(network), writing)?;
    if let Ok(mut readers) = READERS.lock() {
        readers.push(reader);
    }
    Ok(reading)
}

/// Kills and reaps all readers.
pub fn end_all() {
    // Whoever panics while holding the lock has the kernel do it.
    let Ok(mut readers) = READERS.try_lock() else { return };
    for reader in readers.iter_mut() {
        let _ = reader.kill();
    }
    for mut reader in readers.drain(..) {
        let _ = reader.wait();
    }
}

fn arguments(network: &Network) -> Vec<OsString> {
    let before = ["-nostdin", "-hide_banner", "-loglevel", "error"];
    let (input, output): (&[&str], &[&str]) = match network.delivery {
        Delivery::Bytes => (
            &["-raw_packet_size", PACKET_BYTES, "-f", "data"],
            &["-map", "0", "-c", "copy", "-f", "data"],
        ),
        Delivery::Remuxed => (
            &[],
            &[
                "-sn",
                "-dn",
                "-c",
                "copy",
                "-copyts",
                "-avoid_negative_ts",
                "disabled",
                "-muxdelay",
                "0",
                "-muxpreload",
                "0",
                "-f",
                "mpegts",
            ],
        ),
    };
    let words = before
        .into_iter()
        .chain(network.options.iter().map(String::as_str))
        .chain(input.iter().copied())
        .chain(["-i", &network.url])
        .chain(output.iter().copied())
        .chain(["pipe:1"]);
    words.map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(delivery: Delivery, expected: &str) {
        let options = ["-user_agent", "A B"].map(str::to_owned).to_vec();
        let network = Network { url: "http://h/s".to_owned(), options, delivery };
        let words = arguments(&network);
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words.join("|"), expected);
    }

    #[test]
    fn what_readers_are_called_with() {
        check(
            Delivery::Bytes,
            "-nostdin|-hide_banner|-loglevel|error|-user_agent|A B|-raw_packet_size|65536|-f|data|-i|\
             http://h/s|-map|0|-c|copy|-f|data|pipe:1",
        );
        check(
            Delivery::Remuxed,
            "-nostdin|-hide_banner|-loglevel|error|-user_agent|A B|-i|http://h/s|-sn|-dn|-c|copy|\
             -copyts|-avoid_negative_ts|disabled|-muxdelay|0|-muxpreload|0|-f|mpegts|pipe:1",
        );
    }
}
