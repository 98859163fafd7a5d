//! How a worker goes on behind a segment that another has written: what is noted on the way, and what
//! is made of it. Pure.
//!
//! `hls` knows what its writer needs. The rest is here: which frame of the source the picture goes on
//! with, and from where on the grid; at which sample the encoder of the sound begins.
//!
//! ```text
//! rgcadence ── a note for each frame of the output ──┐
//! rgtrim ───── a note for each piece of sound ───────┼─▶ at a segment's end: State ─▶ gateway
//! hls::Seam ── what was written ─────────────────────┘
//! ```
//!
//! Invariant: notes are kept until the segment they belong to is written, and not longer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hls::{Seam, TrackFormat, TrackSeam};
use serde::{Deserialize, Serialize};

/// How far the time of a frame or a piece of sound may differ between two runs, ns: a demuxer's
/// rounding.
pub const TOLERANCE_NS: i64 = 100_000;
/// Packets that an encoder of sound makes before the first that is written: until then it hears
/// silence before its beginning.
const WARM_UP: u64 = 8;
/// So long before its beginning sound is read: decoders need some of it, and files hold it up to about
/// so much before the picture that it belongs to.
const SOUND_AHEAD_NS: i64 = 1_000_000_000;
/// So long before a copied picture's seam it is read if its decoding times have to be found: 16 pictures
/// at the least rate that films have.
pub const REORDER_AHEAD_NS: i64 = 1_000_000_000;
/// Sound that is remembered behind what was written, ns: eight of the longest packets (FLAC's of 4608
/// samples at 16 kHz) and the second that two sampling rates may need to coincide.
const SOUND_KEPT_NS: i64 = 4_000_000_000;
/// So long before its first sample that counts a resampler is fed, ns: until then it hears some of the
/// silence before its beginning. Its filter has 64 samples of the lower rate.
const RESAMPLER_AHEAD_NS: i64 = 20_000_000;
/// GStreamer's encoders count samples on, as long as timestamps agree with that so far (the default of
/// `tolerance`).
const DRIFT_NS: i64 = 40_000_000;

/// How an output frame came about, and how it comes about again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureStart {
    /// Its place on the grid.
    pub index: i64,
    /// The first place that the frame of the source was given with which it was sent.
    pub first: i64,
    /// Source time of that frame, ns; `i64::MAX` if it was the source's end.
    pub time_ns: i64,
    /// Source time of the earliest frame that it takes, ns.
    pub needs_ns: i64,
    /// Place of the run's first frame, and how many keyframes were asked for before this one.
    pub keyframes: Option<(i64, u64)>,
}

/// Where the sound goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoundStart {
    /// Source time of a piece of sound, as it comes from the decoder, ns.
    pub time_ns: i64,
    /// Samples before it, counted from `base_ns`.
    pub samples: i64,
    /// When counting began, ns.
    pub base_ns: i64,
    /// The sample to begin with.
    pub begin: i64,
    /// So long after it the encoder begins, ns: what lies between only warms the resampler up.
    pub skipped_ns: i64,
    /// Time for the encoder of the first sample that it gets, ns.
    pub begin_ns: i64,
    /// The encoder follows the times of what it gets instead of counting on from its first (LAME's):
    /// then these stay as they are.
    pub follows: bool,
}

impl SoundStart {
    /// The count of samples at a piece of sound, the one that it names or the first behind it.
    pub fn count_at(&self, time_ns: i64, rate: i64) -> Count {
        let late = time_ns - self.time_ns;
        let missed = if late > TOLERANCE_NS { samples(late, rate) } else { 0 };
        Count { base_ns: self.base_ns, samples: self.samples + missed }
    }

    /// Whether a piece that is counted so is where the encoder begins, or before it.
    pub fn is_ahead_of(&self, count: &Count) -> bool {
        count.base_ns == self.base_ns && count.samples <= self.begin
    }
}

/// A piece of sound as it went by.
#[derive(Debug, Clone, Copy)]
pub struct SoundNote {
    /// Source time, ns.
    pub time_ns: i64,
    /// Samples before it, counted from `base_ns`.
    pub samples: i64,
    /// When counting began, ns.
    pub base_ns: i64,
    /// Samples per second.
    pub rate: i64,
}

/// What a worker tells of a segment's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// For the writer.
    pub seam: Seam,
    /// For the picture, if it is encoded.
    pub picture: Option<PictureStart>,
    /// For the sound, if it is encoded and has begun.
    pub sound: Option<SoundStart>,
    /// How deep a copied picture is out of order, if that had to be found.
    pub depth: Option<usize>,
}

impl State {
    /// From which source time on a track has to be read, ns; `None`: from where the output begins.
    pub fn read_from_ns(&self, video: bool, copied: bool) -> Option<i64> {
        match (video, copied) {
            (true, true) => Some(self.seam.start_ns),
            (true, false) => self.picture.map(|picture| picture.needs_ns),
            (false, true) => {
                let track = self.seam.tracks.last()?;
                Some(track.last.map_or(self.seam.start_ns, |(dts, _)| dts) - SOUND_AHEAD_NS)
            }
            (false, false) => {
                let begin = |sound: SoundStart| sound.begin_ns - sound.skipped_ns;
                Some(self.sound.map_or(self.seam.start_ns, begin) - SOUND_AHEAD_NS)
            }
        }
    }
}

/// What [`Notes`] and the graph know of the encoder of the sound.
#[derive(Debug, Clone, Copy)]
pub struct SoundEncoder {
    /// How much earlier than the first sample it begins, in samples of the output.
    pub priming: u32,
    /// LAME: its packets may refer to ones before (the reservoir of bits), so the first one written must
    /// be its first; and their times follow those of what it gets.
    pub is_lame: bool,
}

/// Notes of one stream; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// With the presentation time of each, ns.
    pictures: VecDeque<(i64, PictureStart)>,
    sounds: VecDeque<SoundNote>,
    depth: Option<usize>,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame of the output, presented at `pts_ns`.
    pub fn picture(&self, pts_ns: i64, start: PictureStart) {
        self.lock().pictures.push_back((pts_ns, start));
    }

    /// A piece of sound.
    pub fn sound(&self, note: SoundNote) {
        self.lock().sounds.push_back(note);
    }

    /// How deep a copied picture is out of order.
    pub fn depth(&self, depth: usize) {
        self.lock().depth = Some(depth);
    }

    /// The state at a seam; `None` if nobody can go on there. What lies before it is forgotten.
    pub fn state(
        &self,
        seam: Seam,
        encodes_picture: bool,
        sound: Option<SoundEncoder>,
    ) -> Option<State> {
        let mut kept = self.lock();
        let from = seam.start_ns - TOLERANCE_NS;
        while kept.pictures.front().is_some_and(|(pts, _)| *pts < from) {
            kept.pictures.pop_front();
        }
        let next = kept.pictures.front().filter(|(pts, _)| *pts <= seam.start_ns + TOLERANCE_NS);
        let picture = next.map(|(_, start)| *start);
        if encodes_picture && picture.is_none() {
            return None;
        }
        let track = seam.tracks.iter().find(|track| !track.format.is_video());
        let sound = sound.zip(track).and_then(|(encoder, track)| {
            let until = track.last?.0 - SOUND_KEPT_NS;
            while kept.sounds.len() > 1 && kept.sounds[1].time_ns < until {
                kept.sounds.pop_front();
            }
            sound_start(kept.sounds.iter().rev(), encoder, track)
        });
        Some(State { seam, picture, sound, depth: kept.depth })
    }
}

/// Where the encoder begins so that its packets lie where those of the one before would have. `notes`
/// come latest first.
fn sound_start<'n>(
    mut notes: impl Iterator<Item = &'n SoundNote> + Clone,
    encoder: SoundEncoder,
    track: &TrackSeam,
) -> Option<SoundStart> {
    const NS: i128 = 1_000_000_000;
    let (last_dts, duration) = track.last?;
    let rate = i128::from(track.format.sample_rate()?);
    let packet = (i128::from(duration) * rate + NS / 2) / NS;
    if packet == 0 {
        return None;
    }
    // Counted from where its encoder began.
    let before = notes.clone().find(|note| note.base_ns <= last_dts).or(notes.clone().last())?;
    let base = i128::from(before.base_ns);
    let since = (i128::from(last_dts) - base) * rate + i128::from(encoder.priming) * NS;
    let number = (since + packet * NS / 2).div_euclid(packet * NS) + 1;
    let warm_up = if encoder.is_lame { 0 } else { i128::from(WARM_UP) };
    let first = (number - warm_up).max(0) * packet;
    let (begin, skipped) = resampler_start(i64::try_from(first).ok()?, before.rate, rate as i64);
    // By the packet that lies there, not by the count: what a resampler has moved all of them by.
    let behind = (first - (number - 1) * packet + i128::from(encoder.priming)) * NS;
    let mut begin_ns =
        i64::try_from(i128::from(last_dts) + (behind + rate / 2).div_euclid(rate)).ok()?;
    if matches!(track.format, TrackFormat::Opus { .. }) {
        // Its encoder says its lead itself: times of packets are earlier by that than the count.
        begin_ns = i64::try_from(base + (first * NS + rate / 2).div_euclid(rate)).ok()?;
    }
    let near = |note: &&SoundNote| note.base_ns == before.base_ns && note.samples <= begin;
    let note = notes.find(near).or(Some(before))?;
    Some(SoundStart {
        time_ns: note.time_ns,
        samples: note.samples,
        base_ns: before.base_ns,
        begin,
        skipped_ns: ns(skipped, rate as i64),
        begin_ns,
        // Behind a resampler all times are counted.
        follows: encoder.is_lame && i128::from(before.rate) == rate,
    })
}

/// Distance of the samples of the source at which one of the output's lies as well, in samples of the
/// source. Rates are in Hz.
fn coincidence(source: i64, output: i64) -> i64 {
    let (mut a, mut b) = (source, output);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    source / a.max(1)
}

/// With which sample of the source a resampler begins so that its samples lie where those of one did
/// that began with sample 0, and how many of them come before the output's sample `first`.
fn resampler_start(first: i64, source: i64, output: i64) -> (i64, i64) {
    if source == output {
        return (first, 0);
    }
    let step = coincidence(source, output);
    let step_out = coincidence(output, source);
    let steps = (first - samples(RESAMPLER_AHEAD_NS, output)).max(0) / step_out;
    (steps * step, first - steps * step_out)
}

/// Counts samples as an encoder does that begins with the first.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// When counting began, ns.
    pub base_ns: i64,
    /// Samples since.
    pub samples: i64,
}

impl Count {
    /// Where a piece of sound at `time_ns` stands: behind the ones before, unless it comes too far from
    /// where it is expected.
    pub fn at(before: Option<Self>, time_ns: i64, rate: i64) -> Self {
        let anew = Self { base_ns: time_ns, samples: 0 };
        let Some(before) = before else { return anew };
        let expected = before.base_ns + ns(before.samples, rate);
        if (time_ns - expected).abs() > DRIFT_NS { anew } else { before }
    }
}

/// Time as samples.
fn samples(ns: i64, rate: i64) -> i64 {
    i64::try_from(i128::from(ns) * i128::from(rate) / 1_000_000_000).unwrap_or(0)
}

/// Samples as time.
fn ns(samples: i64, rate: i64) -> i64 {
    let ns = i128::from(samples) * 1_000_000_000 / i128::from(rate.max(1));
    i64::try_from(ns).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn aac(sample_rate: u32, last: (i64, u64)) -> TrackSeam {
        let audio_specific_config = Bytes::new();
        let format = TrackFormat::Aac { audio_specific_config, sample_rate, channels: 2 };
        TrackSeam { format, last: Some(last) }
    }

    /// Pieces of 1024 samples with the whole milliseconds of Matroska.
    fn notes(base_ns: i64, rate: i64, count: i64) -> Vec<SoundNote> {
        let time = |n: i64| (ns(n * 1024, rate) + base_ns) / 1_000_000 * 1_000_000;
        (0..count)
            .map(|n| SoundNote { time_ns: time(n), samples: n * 1024, base_ns, rate })
            .collect()
    }

    #[test]
    fn packets_stay_on_their_grid() {
        let encoder = SoundEncoder { priming: 1024, is_lame: false };
        let notes = notes(7_000_000, 48_000, 400);
        let packet = |n: i64| 7_000_000 + ns((n - 1) * 1024, 48_000);
        for last in [0, 5, 8, 100, 390] {
            let track = aac(48_000, (packet(last), 21_333_333));
            let start = sound_start(notes.iter().rev(), encoder, &track).unwrap();
            let first = (last + 1 - 8).max(0);
            assert_eq!(start.begin, first * 1024);
            assert!((start.begin_ns - packet(first + 1)).abs() <= 1, "{start:?}");
            assert_eq!(start.samples, start.begin, "the nearest piece");
        }
        let track = aac(48_000, (packet(100), 21_333_333));
        let encoder = SoundEncoder { is_lame: true, ..encoder };
        assert_eq!(sound_start(notes.iter().rev(), encoder, &track).unwrap().begin, 101 * 1024);
    }

    #[test]
    fn a_changed_rate_is_met_to_the_sample() {
        let encoder = SoundEncoder { priming: 1024, is_lame: true };
        for (source, output) in [(48_000, 44_100), (44_100, 48_000), (22_050, 48_000)] {
            let notes = notes(0, source, 400);
            let last = ns((100 - 1) * 1024, output);
            let duration = ns(1024, output).unsigned_abs();
            let track = aac(u32::try_from(output).unwrap(), (last, duration));
            for is_lame in [true, false] {
                let encoder = SoundEncoder { is_lame, ..encoder };
                let start = sound_start(notes.iter().rev(), encoder, &track).unwrap();
                let first = (100 + 1 - if is_lame { 0 } else { 8 }) * 1024;
                // In units of both rates, so without a rest.
                let skipped = (start.skipped_ns * output + 500_000_000) / 1_000_000_000;
                assert_eq!(start.begin * output, (first - skipped) * source, "{start:?}");
                let ahead = RESAMPLER_AHEAD_NS..RESAMPLER_AHEAD_NS + 10_000_000;
                assert!(ahead.contains(&start.skipped_ns), "{start:?}");
                assert!((start.begin_ns - ns(first, output)).abs() <= 1, "{start:?}");
                assert!(start.samples <= start.begin && start.begin - start.samples < 1024);
                assert!(!start.follows, "a resampler counts");
            }
        }
    }

    #[test]
    fn a_resampler_begins_where_both_rates_have_a_sample() {
        assert_eq!((coincidence(44_100, 48_000), coincidence(48_000, 44_100)), (147, 160));
        assert_eq!(coincidence(48_000, 24_000), 2);
        assert_eq!(coincidence(24_000, 48_000), 1);
        assert_eq!(resampler_start(5_000, 48_000, 48_000), (5_000, 0));
        assert_eq!(resampler_start(500, 44_100, 48_000), (0, 500), "nothing lies before the run");
        assert_eq!(resampler_start(48_000, 44_100, 48_000), (294 * 147, 960));
    }

    #[test]
    fn counting_begins_anew_behind_a_hole() {
        let rate = 48_000;
        let count = Count::at(None, 5, rate);
        assert_eq!((count.base_ns, count.samples), (5, 0));
        let later = Count { samples: 48_000, ..count };
        assert_eq!(Count::at(Some(later), 1_030_000_000, rate).base_ns, 5);
        assert_eq!(Count::at(Some(later), 1_050_000_000, rate).samples, 0);
    }
}
