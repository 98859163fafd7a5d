//! Where a part of a file ends that is written at once: a fragment of MP4, a cluster of Matroska.

use crate::{Sample, Track};

/// A part ends with the first picture after this much media,
const MOST_NS: i64 = 1_000_000_000;
/// or, if no picture comes, with whatever comes after this much.
const MOST_WITHOUT_PICTURE_NS: i64 = 2_000_000_000;

/// The current part.
#[derive(Debug)]
pub(crate) struct Span {
    has_video: bool,
    /// Decoding time of its first sample, ns.
    start: Option<i64>,
    /// Pictures have begun, in this part or before. The head can't be written without one.
    pictured: bool,
}

impl Span {
    /// For tracks of which the first may be video.
    pub fn new(tracks: &[Track]) -> Self {
        let has_video = tracks.first().is_some_and(|track| track.format.is_video());
        Self { has_video, start: None, pictured: !has_video }
    }

    /// Takes note of the next sample; whether a new part begins with it. Parts begin with keyframes,
    /// as ffmpeg's do, and at places between.
    pub fn begins_with(&mut self, sample: &Sample) -> bool {
        let is_picture = self.has_video && sample.track == 0;
        let length = self.start.map_or(0, |start| sample.dts - start);
        let due = length >= MOST_NS && (is_picture || !self.has_video)
            || length >= MOST_WITHOUT_PICTURE_NS
            || is_picture && sample.keyframe;
        let begins = self.start.is_some() && self.pictured && due;
        if begins || self.start.is_none() {
            self.start = Some(sample.dts);
        }
        self.pictured |= is_picture;
        begins
    }
}
