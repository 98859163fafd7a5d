//! Where one writer of segments stops and another goes on: behind a whole segment.
//!
//! A writer that is given a seam has the state that the one before had there: numbers, cuts, clocks
//! and counters. It leaves out what that one has written already, so that whoever feeds it may begin
//! somewhat earlier.

use serde::{Deserialize, Serialize};

use crate::fmp4::Fmp4State;
use crate::ts::TsState;
use crate::{Counters, Sample, TrackFormat};

/// What a writer needs to begin with the next segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seam {
    /// Number of the next segment.
    pub number: u64,
    /// Presentation time of the sample that begins it, ns on the source's timeline.
    pub start_ns: i64,
    /// When the run began, ns.
    pub(crate) run_start_ns: i64,
    /// How many of its segments are whole.
    pub(crate) whole: u64,
    /// What went through.
    pub counters: Counters,
    /// In the order in which the tracks are written.
    pub tracks: Vec<TrackSeam>,
    pub(crate) container: ContainerSeam,
}

/// A track at a seam.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackSeam {
    /// As the headers state it.
    pub format: TrackFormat,
    /// DTS and duration of the last sample written, ns.
    pub last: Option<(i64, u64)>,
}

/// What the container goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ContainerSeam {
    /// MPEG-TS.
    Ts(TsState),
    /// Fragmented MP4.
    Fmp4(Fmp4State),
}

/// How far the times of a sample may differ between two runs, ns: a demuxer's rounding.
const TOLERANCE_NS: i64 = 100_000;

/// Leaves out what was written before a seam.
#[derive(Debug)]
pub(crate) struct Left {
    start_ns: i64,
    has_video: bool,
    /// Of each track, what was last written of it; `None` once something new has come.
    tracks: Vec<Option<Option<(i64, u64)>>>,
}

impl Left {
    pub(crate) fn by(seam: &Seam) -> Self {
        Self {
            start_ns: seam.start_ns,
            has_video: seam.tracks.first().is_some_and(|track| track.format.is_video()),
            tracks: seam.tracks.iter().map(|track| Some(track.last)).collect(),
        }
    }

    /// Whether a sample lies before the seam. Picture begins with the keyframe that began the segment,
    /// sound behind the last of it.
    pub(crate) fn is_written(&mut self, sample: &Sample) -> bool {
        let Some(Some(last)) = self.tracks.get(sample.track) else { return false };
        let written = if self.has_video && sample.track == 0 {
            !sample.keyframe || sample.pts < self.start_ns - TOLERANCE_NS
        } else {
            last.is_some_and(|(dts, duration)| {
                let half = i64::try_from(duration / 2).unwrap_or(0);
                sample.dts <= dts.saturating_add(half.max(TOLERANCE_NS))
            })
        };
        if !written {
            self.tracks[sample.track] = None;
        }
        written
    }
}
