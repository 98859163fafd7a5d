//! Fragmented MP4: one init file, one fragment per segment (ISO/IEC 14496-12), with ffmpeg's times; or
//! head and fragments in one file, which ends in an index of them.
//!
//! Times with `absolute` (`+frag_discont`): a track's fragments stand where its first *presentation*
//! time says, and the init file's edit list takes away what lies between the first DTS and PTS. So
//! `tfdt` = DTS + delay of B-frames, and `tfdt` + composition offset - edit = source time. The edit
//! is the same for every run of a job, wherever it starts. Without `absolute` each track's `tfdt`
//! counts from its own first sample, and the init file of each run says where that lies.
//!
//! What ffmpeg does and this does not: sound before zero (encoder priming, -1024 samples) gives
//! ffmpeg a `tfdt` just below 2^64, which players take for an invalid time. Such frames are left
//! out here; the second frame then stands at its right place.
//!
//! Parameter sets are in the init file, and keyframes go without for as long as a decoder can't have
//! others than those. It can once another encoder has gone on behind a seam, or if the run isn't the
//! first under its name: then the viewer may hold another run's init file. From there on every
//! keyframe carries its own, whoever encodes it.
//!
//! Invariants:
//! - A keyframe without parameter sets stands behind no others than those of the init file.
//! - Nothing in the init file depends on the clock or, with `absolute`, on where the run starts.

mod entry;
mod fragment;
mod init;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::annexb::{ParameterSets, Syntax, nals};
use crate::time::{duration_ticks, ticks};
use crate::{Sample, Track, TrackFormat, WriteError};

pub(crate) use entry::{avcc, hvcc};
pub use fragment::{Access, Fragment};
pub use init::Brand;

/// Gathers samples until a fragment is taken.
#[derive(Debug)]
pub struct Fmp4Writer {
    tracks: Vec<TrackState>,
    absolute: bool,
    shape: Shape,
    sequence: u32,
    init_made: bool,
    /// Keyframes keep their parameter sets: see the module.
    repeats: bool,
}

/// What stands around the fragments.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Each is a file, perhaps with its own index.
    Segments { sidx: bool },
    /// They follow one another in a file.
    File(Brand),
}

#[derive(Debug)]
struct TrackState {
    id: u32,
    format: TrackFormat,
    timescale: u32,
    /// A frame of video in ticks, 0 if unknown.
    frame: i64,
    origin: Option<Origin>,
    config: Config,
    entries: Vec<Entry>,
    data: Vec<Bytes>,
    /// Ticks of the last sample handed in, to keep DTS rising.
    last_dts: i64,
}

/// What of a run shows in the fragments behind one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fmp4State {
    sequence: u32,
    repeats: bool,
    /// Of each track, with the ticks of its last DTS.
    tracks: Vec<(Option<Origin>, i64)>,
}

/// Where a track begins, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    pts: i64,
    dts: i64,
    /// How much the first sample is presented after its decoding; in whole frames of video.
    delay: i64,
    /// What is added to a DTS to give decode time in fragments.
    offset: i64,
}

/// What the init file needs that only samples tell.
#[derive(Debug)]
enum Config {
    None,
    Video(Syntax, ParameterSets),
    /// First frame of AC-3 or E-AC-3.
    Frame(Bytes),
}

/// A sample of the current fragment, in ticks on the track's decode timeline.
#[derive(Debug, Clone, Copy)]
struct Entry {
    decode: i64,
    /// Presentation, before the edit list.
    present: i64,
    duration: i64,
    size: u32,
    keyframe: bool,
    /// Presentation on the output's timeline.
    pts: i64,
}

impl Fmp4Writer {
    /// For tracks in order; their ids count from 1.
    ///
    /// # Errors
    /// [`WriteError::Unsupported`] for a sample entry that can't be made.
    pub fn new(tracks: &[Track], absolute: bool, skip_sidx: bool) -> Result<Self, WriteError> {
        Self::shaped(tracks, absolute, Shape::Segments { sidx: !skip_sidx })
    }

    /// For one file, as ffmpeg writes it with `empty_moov+delay_moov`: times count from each track's
    /// first sample, and an edit list says where that lies.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn file(tracks: &[Track], brand: Brand) -> Result<Self, WriteError> {
        Self::shaped(tracks, false, Shape::File(brand))
    }

    fn shaped(tracks: &[Track], absolute: bool, shape: Shape) -> Result<Self, WriteError> {
        let tracks = (1u32..)
            .zip(tracks)
            .map(|(id, track)| TrackState::new(id, &track.format))
            .collect::<Result<_, _>>()?;
        Ok(Self { tracks, absolute, shape, sequence: 0, init_made: false, repeats: false })
    }

    /// What goes on behind a fragment.
    pub fn state(&self) -> Fmp4State {
        let tracks = self.tracks.iter().map(|track| (track.origin, track.last_dts)).collect();
        Fmp4State { sequence: self.sequence, repeats: self.repeats, tracks }
    }

    /// From here on every keyframe keeps its parameter sets.
    pub fn repeat_parameter_sets(&mut self) {
        self.repeats = true;
    }

    /// Goes on where another writer of the same tracks has come to, with the init file that it wrote.
    ///
    /// Another encoder has other parameter sets than that file states. These then stay in its
    /// keyframes ([`length_prefixed`]) and in all that follow, where players take them for what they
    /// are, although the sample entry (`avc1`, `hvc1`) promises that there are none.
    pub fn go_on(&mut self, state: &Fmp4State, init: &[u8]) {
        self.sequence = state.sequence;
        self.repeats = state.repeats;
        self.init_made = true;
        let mut sets = init::parameter_sets(init);
        for (track, (origin, last_dts)) in self.tracks.iter_mut().zip(&state.tracks) {
            (track.origin, track.last_dts) = (*origin, *last_dts);
            if let Config::Video(_, own) = &mut track.config {
                *own = sets.take().unwrap_or_default();
            }
        }
    }

    /// Adds a sample to the fragment.
    ///
    /// # Errors
    /// [`WriteError::BadSample`].
    pub fn write(&mut self, sample: &Sample) -> Result<(), WriteError> {
        let late = self.init_made;
        let absolute = self.absolute;
        let track = &mut self.tracks[sample.track];
        if late && !self.repeats {
            self.repeats = track.brings_sets(sample);
        }
        track
            .add(sample, absolute, late, self.repeats)
            .map_err(|reason| WriteError::BadSample { track: sample.track, reason })
    }

    /// The init file, from what has been written so far.
    ///
    /// # Errors
    /// [`WriteError::BadSample`] if a video track has had no keyframe with parameter sets.
    pub fn init(&mut self) -> Result<Vec<u8>, WriteError> {
        self.init_made = true;
        let brand = match self.shape {
            Shape::Segments { .. } => Brand::Segments,
            Shape::File(brand) => brand,
        };
        init::build(&self.tracks, self.absolute, brand)
    }

    /// Takes what has been gathered. `next` is the sample behind it, which gives the last one of
    /// its track its length.
    ///
    /// # Errors
    /// [`WriteError::BadSample`] if a fragment exceeds what its boxes can count.
    pub fn take(&mut self, next: Option<&Sample>) -> Result<Fragment, WriteError> {
        self.sequence += 1;
        for (index, track) in self.tracks.iter_mut().enumerate() {
            track.close(next.filter(|sample| sample.track == index));
        }
        let fragment = fragment::build(&mut self.tracks, self.sequence, self.shape);
        fragment.map_err(|reason| WriteError::BadSample { track: 0, reason })
    }
}

impl TrackState {
    fn new(id: u32, format: &TrackFormat) -> Result<Self, WriteError> {
        let config = match format {
            TrackFormat::H264 { .. } => Config::Video(Syntax::H264, ParameterSets::default()),
            TrackFormat::Hevc { .. } => Config::Video(Syntax::Hevc, ParameterSets::default()),
            _ => Config::None,
        };
        let timescale = timescale(format);
        let frame = match *format {
            TrackFormat::H264 { frame_rate: (n, d), .. }
            | TrackFormat::Hevc { frame_rate: (n, d), .. }
                if n > 0 =>
            {
                i64::from(timescale) * i64::from(d) / i64::from(n)
            }
            _ => 0,
        };
        entry::check(format)?;
        Ok(Self {
            id,
            format: format.clone(),
            timescale,
            frame,
            origin: None,
            config,
            entries: Vec::new(),
            data: Vec::new(),
            last_dts: i64::MIN,
        })
    }

    /// Whether a decoder has other parameter sets than the init file's after this sample.
    fn brings_sets(&self, sample: &Sample) -> bool {
        let Config::Video(syntax, known) = &self.config else { return false };
        let other = |nal| syntax.is_parameter_set(nal) && !known.contains(nal);
        sample.keyframe && self.has_sets_in_init_only() && nals(&sample.data).any(other)
    }

    fn add(
        &mut self,
        sample: &Sample,
        absolute: bool,
        late: bool,
        repeats: bool,
    ) -> Result<(), String> {
        let pts = ticks(sample.pts, self.timescale);
        let dts = ticks(sample.dts, self.timescale).max(self.last_dts.saturating_add(1));
        self.last_dts = dts;
        let frame = self.frame;
        let origin =
            *self.origin.get_or_insert_with(|| Origin::new(pts, dts, frame, absolute, late));
        let duration = duration_ticks(sample.duration, self.timescale);
        let decode = dts + origin.offset;
        let is_video = self.format.is_video();
        if !is_video && decode < 0 && decode + duration <= 0 {
            return Ok(());
        }
        let data = self.reframe(sample, repeats);
        let size = u32::try_from(data.len()).map_err(|_| "sample exceeds 4 GiB".to_owned())?;
        self.entries.push(Entry {
            // Decode time is unsigned; see the module.
            decode: decode.max(0),
            present: if is_video { pts + origin.offset } else { decode.max(0) },
            duration,
            size,
            keyframe: sample.keyframe || !is_video,
            pts,
        });
        self.data.push(data);
        Ok(())
    }

    /// The sample as MP4 stores it.
    fn reframe(&mut self, sample: &Sample, repeats: bool) -> Bytes {
        let bare = self.has_sets_in_init_only() && !repeats;
        match &mut self.config {
            Config::Video(syntax, sets) => {
                if sample.keyframe && !sets.is_complete(*syntax) {
                    *sets = ParameterSets::collect(*syntax, &sample.data);
                }
                length_prefixed(*syntax, bare.then_some(&*sets), &sample.data)
            }
            config => {
                if matches!(self.format, TrackFormat::Ac3 { .. } | TrackFormat::Eac3 { .. })
                    && matches!(config, Config::None)
                {
                    *config = Config::Frame(sample.data.clone());
                }
                sample.data.clone()
            }
        }
    }

    /// False for `hev1`, whose samples may carry everything.
    fn has_sets_in_init_only(&self) -> bool {
        match &self.format {
            TrackFormat::Hevc { tag, .. } => entry::hevc_tag(*tag) != *b"hev1",
            _ => true,
        }
    }

    /// Gives every entry its length: up to the next, as far as that is known.
    fn close(&mut self, next: Option<&Sample>) {
        let next = next.zip(self.origin).map(|(sample, origin)| {
            ticks(sample.dts, self.timescale).max(self.last_dts.saturating_add(1)) + origin.offset
        });
        for i in 0..self.entries.len() {
            let follower = self.entries.get(i + 1).map(|e| e.decode).or(next);
            let before = if i > 0 { self.entries[i - 1].duration } else { self.frame };
            let entry = &mut self.entries[i];
            match follower {
                Some(at) => entry.duration = at - entry.decode,
                None if entry.duration == 0 => entry.duration = before,
                None => {}
            }
            entry.duration = entry.duration.max(0);
        }
    }
}

impl Origin {
    fn new(pts: i64, dts: i64, frame: i64, absolute: bool, late: bool) -> Self {
        // Whole frames: the jitter of a source's clock must not reach an init file of all runs.
        let delay = pts - dts;
        let delay = if frame > 0 && absolute {
            (delay + frame / 2).div_euclid(frame) * frame
        } else {
            delay
        };
        let delay = delay.max(0);
        let offset = match (absolute, late) {
            (true, _) => delay,
            (false, false) => -dts,
            // The init file is written: nothing can say any more that this track begins late.
            (false, true) => 0,
        };
        Self { pts, dts, delay, offset }
    }
}

/// Ticks per second of a track, as ffmpeg's muxer chooses: of video the numerator of the frame
/// rate, doubled until it is at least 10 000.
pub fn timescale(format: &TrackFormat) -> u32 {
    match *format {
        TrackFormat::H264 { frame_rate: (n, d), .. }
        | TrackFormat::Hevc { frame_rate: (n, d), .. } => {
            if n == 0 || d == 0 {
                return crate::ts::RATE;
            }
            let mut scale = n / gcd(n, d);
            while scale < 10_000 {
                scale *= 2;
            }
            scale
        }
        _ => format.sample_rate().unwrap_or(crate::ts::RATE),
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Start codes become lengths of four bytes. Delimiters go; parameter sets go if the init file has
/// them all (`known`). If one differs, all stay: decoders drop what refers to a set that is replaced.
pub(crate) fn length_prefixed(syntax: Syntax, known: Option<&ParameterSets>, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 16);
    let mut sets = nals(data).filter(|nal| syntax.is_parameter_set(nal));
    let all_known = known.is_some_and(|known| sets.all(|nal| known.contains(nal)));
    for nal in nals(data) {
        let in_init = all_known && syntax.is_parameter_set(nal);
        if in_init || syntax.is_aud(nal) {
            continue;
        }
        out.put_u32(u32::try_from(nal.len()).unwrap_or(u32::MAX));
        out.put_slice(nal);
    }
    out.freeze()
}

#[cfg(test)]
mod tests;
