//! `rendergate-ffmpeg` stands where Jellyfin expects ffmpeg and ffprobe.
//!
//! ```text
//! argv ─▶ plan ─┬─ Passthrough ───────────────────────────▶ exec the real one, same process
//!               └─ Transcode ─▶ open inputs ─▶ gateway ─▶ stream ─▶ exit as ffmpeg would
//!                                   └──────────┴───────────┴─ any doubt before the first output:
//!                                                             exec the real ffmpeg
//! ```
//!
//! It knows nothing of media: the plan comes from `ffmpeg-args`, frames and segments are the
//! worker's business. What it keeps is the contract of a process that Jellyfin watches: exit codes,
//! keys on stdin, lines on stderr, and the empty file that announces the next segment
//! ([`placeholder`]).
//!
//! Invariants:
//! - stdout is never written to.
//! - A call that isn't a stream costs its parsing and an `execve`: no socket, no file is touched. The
//!   one exception is the question for the VA-API driver ([`driver`]).
//! - No threads, and no processes but the readers of network inputs ([`reader`]), which end with this
//!   one: there is nothing to leave behind.
//! - Needs libc and nothing else at run time.
#![deny(unsafe_code)]

mod clock;
mod console;
mod driver;
mod job;
mod keys;
mod placeholder;
pub mod process;
mod progress;
mod reader;
mod real;
mod reconnect;
mod rescue;
mod stream;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use ffmpeg_args::{PassthroughKind, Plan, Transcode};
use rustix::fs::{Mode, OFlags};
use session::Channel;

use job::{DEFAULT_ENDPOINT, ENDPOINT_VARIABLE, Files, Patience};
use placeholder::Placeholders;
use process::Signals;
use real::Tool;
use reconnect::{DEFAULT_TIMEOUT, Reconnect, TIMEOUT_VARIABLE};
use stream::{Outcome, Setup};

const DISABLE_VARIABLE: &str = "RENDERGATE_DISABLE";
const ACCEPT_VARIABLE: &str = "RENDERGATE_ACCEPT_TIMEOUT_MS";
/// A gateway answers in milliseconds; one that takes longer costs the viewer more than ffmpeg.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(3);

/// The whole program: `argv` with the name in front in, the exit code out, unless the process has
/// become another program.
pub fn run(argv: &[OsString]) -> i32 {
    let (name, arguments) =
        argv.split_first().map_or((OsStr::new(""), argv), |(name, rest)| (name.as_os_str(), rest));
    if let [only] = arguments
        && only == "--rendergate-help"
    {
        help();
        return 0;
    }
    let tool = Tool::named(name);
    if tool == Tool::Ffprobe || real::came_from_a_hook() {
        return real::execute(tool, arguments, None);
    }
    if is_set(DISABLE_VARIABLE) {
        // The command isn't even parsed: this is for whoever mistrusts the parser.
        let reason = arguments
            .last()
            .filter(|last| last.as_bytes().ends_with(b".m3u8"))
            .map(|_| format!("{DISABLE_VARIABLE} is set"));
        return real::execute(tool, arguments, reason.as_deref());
    }
    if ffmpeg_args::asks_for_vaapi_driver(arguments)
        && let Some(code) = driver::answer(&endpoint())
    {
        return code;
    }
    rescue::install(arguments);
    rescue::test_point("plan");
    match ffmpeg_args::plan(arguments) {
        Plan::Transcode(transcode) => match transcode_by_gateway(*transcode) {
            Outcome::Exit(code) => code,
            Outcome::Fallback(reason) => real::execute(tool, arguments, Some(&reason)),
        },
        Plan::Passthrough(passthrough) => {
            let reason = (passthrough.kind != PassthroughKind::Probe).then_some(passthrough.reason);
            real::execute(tool, arguments, reason.as_deref())
        }
    }
}

fn transcode_by_gateway(mut transcode: Transcode) -> Outcome {
    job::forget_missing_fonts(&mut transcode);
    fill_standard_descriptors();
    let endpoint = endpoint();
    let patience = milliseconds(ACCEPT_VARIABLE, ACCEPT_PATIENCE);
    let connected = Files::open(&transcode).and_then(|mut files| {
        let socket = job::connect_to(&endpoint, Patience::Some)?;
        // Only now is there somebody to read for.
        files.fetch(&transcode)?;
        Ok((socket, files))
    });
    let outcome = match connected {
        Ok((socket, files)) => hand_over(socket, files, transcode, &endpoint, patience),
        Err(error) => Outcome::Fallback(error.to_string()),
    };
    // Whatever comes now, the end of the process or the real ffmpeg in it.
    reader::end_all();
    outcome
}

fn hand_over(
    socket: OwnedFd,
    files: Files,
    transcode: Transcode,
    endpoint: &OsStr,
    patience: Duration,
) -> Outcome {
    let signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return Outcome::Fallback(format!("signalfd: {error}")),
    };
    rescue::signals_taken(signals.before());
    let accept_by = Instant::now() + patience;
    let output = transcode.output.clone();
    let summary = transcode.summary();
    let has_video = transcode.video.is_some();
    let timeout = milliseconds(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT);
    let reconnects = Reconnect::first(&transcode, timeout).is_some();
    let submitted = job::submit(socket.as_fd(), transcode.clone(), &files, reconnects, accept_by)
        .and_then(|()| files.directory().try_clone());
    // Files are kept for another gateway. Other inputs are the worker's now: a reader shall meet the end
    // of the pipe when the worker is gone.
    let reconnect = Reconnect::new(transcode, files, endpoint.to_owned(), timeout);
    let endpoint = endpoint.to_string_lossy().into_owned();
    let outcome = match submitted {
        Ok(directory) => stream::run(
            Setup {
                channel: Channel::new(socket),
                placeholders: Placeholders::new(directory, &output),
                endpoint,
                summary,
                has_video,
                accept_by,
                reconnect,
            },
            &signals,
        ),
        Err(error) => Outcome::Fallback(format!("cannot hand the job to {endpoint}: {error}")),
    };
    if matches!(outcome, Outcome::Fallback(_)) {
        signals.before().restore();
    }
    outcome
}

/// Where the gateway listens.
fn endpoint() -> OsString {
    std::env::var_os(ENDPOINT_VARIABLE)
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| DEFAULT_ENDPOINT.into())
}

/// A process may be started without stdin, stdout or stderr. The files opened next must not take
/// their numbers.
fn fill_standard_descriptors() {
    while let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
        use std::os::fd::{AsRawFd, IntoRawFd};
        if null.as_raw_fd() > 2 {
            return;
        }
        // Stays open for the life of the process, as the descriptor that was missing.
        _ = null.into_raw_fd();
    }
}

fn milliseconds(variable: &str, default: Duration) -> Duration {
    let value = std::env::var(variable).ok().and_then(|value| value.parse().ok());
    value.map_or(default, Duration::from_millis)
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty() && value != "0")
}

fn help() {
    console::say_text(&format!(
        "rendergate-ffmpeg {version}: stands where Jellyfin expects ffmpeg.

Install it as `ffmpeg`, with a symbolic link `ffprobe` beside it, and point Jellyfin at it:
JELLYFIN_FFMPEG=/path/to/ffmpeg (or --ffmpeg, or Dashboard > Playback > FFmpeg path).

What happens to a call:
  something to play that it knows   is run by the gateway; the files appear where Jellyfin looks
  Jellyfin's question at its start  is answered for the gateway's GPU, if one works
  for the VA-API driver
  everything else, ffprobe too      is run by the real ffmpeg in the same process
  the gateway is absent, full or    the real ffmpeg runs, as long as nothing has been written;
  fails                             a line \"rendergate: ...\" in Jellyfin's FFmpeg log says why

Environment (all optional):
  RENDERGATE_ENDPOINT            where the gateway listens [{DEFAULT_ENDPOINT}]
  RENDERGATE_FFMPEG              the real ffmpeg [/usr/lib/jellyfin-ffmpeg/ffmpeg, then PATH]
  RENDERGATE_FFPROBE             the real ffprobe [beside RENDERGATE_FFMPEG, then as above]
  RENDERGATE_ACCEPT_TIMEOUT_MS   how long the gateway may take to answer [{accept}]
  {TIMEOUT_VARIABLE}
                                 how long a stream that has lost its gateway waits for the next
                                 one [{reconnect}], 0 to end at once
  RENDERGATE_DISABLE=1           always run the real ffmpeg

Try it:
  ffmpeg -version                the real ffmpeg's version: it has been found
  rendergate serve               starts a gateway
",
        version = env!("CARGO_PKG_VERSION"),
        accept = ACCEPT_PATIENCE.as_millis(),
        reconnect = DEFAULT_TIMEOUT.as_millis(),
    ));
}
