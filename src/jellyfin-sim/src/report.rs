//! What a session was like, for people and for programs.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::job::{Exit, Log};
use crate::viewer::Stall;

/// A session. Times are seconds since its begin unless named otherwise.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// `-hls_time`.
    pub segment_seconds: f64,
    /// Every start of ffmpeg, in order.
    pub runs: Vec<Run>,
    /// What the viewer got, in order.
    pub segments: Vec<Served>,
    /// When segments took their names, in order; see [`Appeared`].
    pub appeared: Vec<Appeared>,
    /// Where playback at normal speed would have stood still.
    pub stalls: Vec<Stall>,
    /// What Jellyfin or the viewer would have tripped over.
    pub faults: Vec<Fault>,
    /// Every name beginning with the session's ID that was ever seen in the directory.
    pub names: Vec<String>,
}

/// One ffmpeg process.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Run {
    /// `-start_number`.
    pub start_number: u64,
    /// When the viewer asked for what made it start.
    pub requested: f64,
    /// When it was started.
    pub started: f64,
    /// Seconds from the start until the first segment asked for was servable, exactly.
    pub first_servable: Option<f64>,
    /// The same from the viewer's request, so with the stop of the run before.
    pub first_served: Option<f64>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// What it said.
    pub log: Log,
}

/// A segment that a viewer got.
#[derive(Debug, Clone, Serialize)]
pub struct Served {
    /// Its number; −1 is the init file.
    pub number: i64,
    /// The run during which it was served.
    pub run: usize,
    /// The run that wrote it, if that was seen.
    pub made_in: Option<usize>,
    /// When the viewer asked.
    pub requested: f64,
    /// When it became servable, or was asked for if it was already.
    pub ready: f64,
    /// When it was served, on Jellyfin's poll.
    pub served: f64,
    /// Size.
    pub bytes: u64,
    /// Of its bytes.
    pub hash: String,
}

/// A segment's file has appeared, whole or not: from then on the one before can be served.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Appeared {
    /// Its number.
    pub number: i64,
    /// The run that made it.
    pub run: usize,
    /// When its name was first seen in that run.
    pub at: f64,
}

/// Something that must not happen.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    /// Which.
    pub kind: FaultKind,
    /// When.
    pub at: f64,
    /// The segment in question.
    pub segment: Option<i64>,
    /// In words.
    pub text: String,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A segment of no bytes went to the viewer.
    EmptyServed,
    /// A segment of no bytes stood there after the exit.
    EmptyLeft,
    /// HTTP 404.
    Missing,
    /// HTTP 500: a segment's extension behind something that is no number.
    StrayName,
    /// A segment was touched after it had been served.
    Changed,
    /// HTTP 500: the process ended before the file was there, or could not be started.
    StartFailed,
    /// Nothing happened for longer than the patience.
    TimedOut,
    /// The process ended by itself with a code other than 0.
    Failed,
    /// `q` did not end it within five seconds.
    Killed,
    /// stdout is Jellyfin's own.
    StdoutUsed,
    /// A descendant outlived the process.
    ProcessLeft,
    /// No copy could be kept of what was served.
    NotKept,
    /// A temporary file outlived the process by more than a second.
    TemporaryLeft,
}

impl Report {
    /// Faults of one kind.
    pub fn count(&self, kind: FaultKind) -> usize {
        self.faults.iter().filter(|fault| fault.kind == kind).count()
    }

    /// Seconds that playback at normal speed would have stood still.
    pub fn stalled_seconds(&self) -> f64 {
        // The empty sum is minus zero.
        self.stalls.iter().map(|stall| stall.seconds).sum::<f64>() + 0.0
    }
}

/// A table for people.
impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "run  from  started  servable  seek    exit  stop    fps  position")?;
        for (at, run) in self.runs.iter().enumerate() {
            let exit = run.exit.map(|exit| exit.code.to_string());
            let stop = run.exit.and_then(|exit| exit.stop_seconds);
            let last = run.log.last.unwrap_or_default();
            writeln!(
                f,
                "{at:3}  {:4}  {:6.2}s  {:>8}  {:>6}  {:>4}  {:>5}  {:>4}  {:>8}",
                run.start_number,
                run.started,
                seconds(run.first_servable),
                seconds(run.first_served),
                exit.unwrap_or_else(|| "-".to_owned()),
                seconds(stop),
                last.fps.map_or_else(|| "-".to_owned(), |fps| format!("{fps:.0}")),
                seconds(last.position.map(|position| position.as_secs_f64())),
            )?;
        }
        let media = self.segments.iter().filter(|segment| segment.number >= 0);
        writeln!(
            f,
            "{} segments served, {} kB; {} stalls, {:.2} s in all; {} file names seen",
            media.clone().count(),
            media.map(|segment| segment.bytes).sum::<u64>() / 1000,
            self.stalls.len(),
            self.stalled_seconds(),
            self.names.len(),
        )?;
        for fault in &self.faults {
            let segment = fault.segment.map(|number| format!(" segment {number}"));
            writeln!(
                f,
                "fault at {:.2}s:{} {}",
                fault.at,
                segment.unwrap_or_default(),
                fault.text
            )?;
        }
        if self.faults.is_empty() {
            writeln!(f, "no faults")?;
        }
        Ok(())
    }
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}s"))
}
