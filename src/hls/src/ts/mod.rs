//! MPEG-TS, packet for packet as ffmpeg's muxer writes it behind its HLS muxer, or by itself into one
//! file.
//!
//! Times: source time + 2 x `max_delay`, which is the base that Jellyfin's subtitles are timed
//! against (contract 4). A run whose first DTS is negative is shifted as a whole until that DTS is
//! zero, as ffmpeg does: from the start of a file with B-frames everything comes later by their
//! delay; after a seek nothing is shifted. The clock (PCR) is `max_delay` behind the DTS.
//!
//! By itself it has 0.7 s for `max_delay`, shifts nothing under `-avoid_negative_ts disabled`, repeats
//! its tables by the clock, and states the clock every tenth of a second at least, as far as frames
//! allow.
//!
//! Invariants:
//! - A segment begins with SDT, PAT, PMT; continuity counters run on across segments.
//! - Nothing is kept back at the end of a segment.

mod audio;
mod packet;
mod pes;
mod psi;

use crate::annexb::{ParameterSets, Syntax, nals};
use serde::{Deserialize, Serialize};

use crate::time::ticks;
use crate::{Sample, Track, TrackFormat, WriteError};
use packet::{Adaptation, Counter, packetise};
use psi::{FIRST_PID, Tables};

pub(crate) use audio::{adts, adts_header, opus_samples};

/// Ticks per second of PTS, DTS and PCR base.
pub const RATE: u32 = 90_000;

/// Sound is gathered up to this many bytes per PES packet: fills 16 transport packets with their
/// headers (ffmpeg's default of `-pes_payload_size`).
const PES_PAYLOAD: usize = 2930;

/// Opus is gathered up to 120 ms (in samples of 48 kHz), its longest packet.
const OPUS_GATHER: u32 = 5760;

/// ffmpeg's default of `-muxdelay`, in microseconds.
const FILE_DELAY_US: u64 = 700_000;
/// How often a file repeats PAT and PMT, and SDT, in ticks (`-pat_period`, `-sdt_period`).
const PAT_PERIOD: i64 = 9_000;
const SDT_PERIOD: i64 = 45_000;

/// When a file's tables and clock were last written. In 27 MHz, in which ffmpeg compares.
#[derive(Debug)]
struct Repetition {
    sdt: Option<i64>,
    pat: Option<i64>,
    clock: i64,
    clock_period: i64,
}

/// Writes one run's packets.
#[derive(Debug)]
pub struct TsWriter {
    tables: Tables,
    streams: Vec<Stream>,
    pcr_stream: usize,
    /// `max_delay` in ticks.
    delay: i64,
    /// What makes the first DTS zero if it is negative.
    shift: Option<i64>,
    /// The next packet begins a segment.
    begins: bool,
    /// Of a file, in place of segments.
    repetition: Option<Repetition>,
}

/// What of a run's packets shows in those behind a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TsState {
    /// Ticks by which all times are later.
    shift: Option<i64>,
    tables: [Counter; 3],
    /// Of each track, with the ticks of its last DTS, all shifts applied.
    streams: Vec<(Counter, i64)>,
}

#[derive(Debug)]
struct Stream {
    pid: u16,
    counter: Counter,
    kind: Kind,
    last_dts: i64,
}

#[derive(Debug)]
enum Kind {
    Video { syntax: Syntax, sets: ParameterSets, after_keyframe: bool },
    Audio(audio::Gather),
}

impl TsWriter {
    /// For tracks in order.
    ///
    /// # Errors
    /// [`WriteError::Unsupported`] for FLAC and for AAC that ADTS can't express.
    pub fn new(tracks: &[Track], max_delay_us: u64) -> Result<Self, WriteError> {
        let mut streams = Vec::new();
        for (pid, track) in (FIRST_PID..).zip(tracks) {
            let kind = match &track.format {
                TrackFormat::H264 { .. } => video(Syntax::H264),
                TrackFormat::Hevc { .. } => video(Syntax::Hevc),
                format => Kind::Audio(audio::Gather::new(format)?),
            };
            streams.push(Stream { pid, counter: Counter::default(), kind, last_dts: i64::MIN });
        }
        let formats: Vec<_> = tracks.iter().map(|t| t.format.clone()).collect();
        let pcr_stream = formats.iter().position(TrackFormat::is_video).unwrap_or(0);
        let pcr_pid = streams.get(pcr_stream).map_or(FIRST_PID, |s| s.pid);
        Ok(Self {
            tables: Tables::new(&formats, pcr_pid),
            streams,
            pcr_stream,
            delay: ticks(i64::try_from(max_delay_us * 1000).unwrap_or(0), RATE),
            shift: None,
            begins: true,
            repetition: None,
        })
    }

    /// For one file. With `source_times` (`-copyts -avoid_negative_ts disabled`) times below zero
    /// stay there.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn file(tracks: &[Track], source_times: bool) -> Result<Self, WriteError> {
        let mut writer = Self::new(tracks, FILE_DELAY_US)?;
        writer.shift = source_times.then_some(0);
        let clock_period = tracks.get(writer.pcr_stream).map_or(1, |t| clock_period(&t.format));
        let clock = writer.delay * 300 - clock_period;
        writer.repetition = Some(Repetition { sdt: None, pat: None, clock, clock_period });
        Ok(writer)
    }

    /// What goes on behind a segment.
    pub fn state(&self) -> TsState {
        TsState {
            shift: self.shift,
            tables: self.tables.counters(),
            streams: self.streams.iter().map(|s| (s.counter, s.last_dts)).collect(),
        }
    }

    /// Goes on where another writer of the same tracks has come to.
    pub fn go_on(&mut self, state: &TsState) {
        self.shift = state.shift;
        self.tables.count_on(state.tables);
        for (stream, (counter, last_dts)) in self.streams.iter_mut().zip(&state.streams) {
            (stream.counter, stream.last_dts) = (*counter, *last_dts);
        }
    }

    /// The next sample begins a new segment.
    pub fn begin_segment(&mut self) {
        self.begins = true;
    }

    /// Appends the packets of a sample to `out`; sound may be gathered first.
    ///
    /// # Errors
    /// [`WriteError::BadSample`].
    pub fn write(&mut self, sample: &Sample, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let dts = ticks(sample.dts, RATE);
        let shift = *self.shift.get_or_insert((-dts).max(0)) + 2 * self.delay;
        let stream = &mut self.streams[sample.track];
        let pts = ticks(sample.pts, RATE) + shift;
        let dts = (dts + shift).max(stream.last_dts.saturating_add(1));
        stream.last_dts = dts;
        let pts = pts.max(dts);
        let unit = match &mut stream.kind {
            Kind::Video { syntax, sets, .. } => Pes {
                stream_id: pes::VIDEO,
                pts,
                dts,
                keyframe: sample.keyframe,
                payload: access_unit(*syntax, sets, sample),
            },
            Kind::Audio(gather) => {
                let late = self.delay / 2;
                let early = sample.pts.min(0).unsigned_abs();
                let full = gather
                    .add(&sample.data, pts, late, early)
                    .map_err(|reason| WriteError::BadSample { track: sample.track, reason })?;
                match full {
                    Some(unit) => unit,
                    None => return Ok(()),
                }
            }
        };
        self.write_pes(sample.track, &unit, out);
        // A frame too big to be gathered follows at once.
        if let Kind::Audio(gather) = &mut self.streams[sample.track].kind
            && gather.is_over_full()
            && let Some(unit) = gather.take()
        {
            self.write_pes(sample.track, &unit, out);
        }
        Ok(())
    }

    /// Appends whatever was gathered: the segment ends.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        for index in 0..self.streams.len() {
            if let Kind::Audio(gather) = &mut self.streams[index].kind
                && let Some(unit) = gather.take()
            {
                self.write_pes(index, &unit, out);
            }
        }
    }

    fn write_pes(&mut self, index: usize, unit: &Pes, out: &mut Vec<u8>) {
        let stream = &mut self.streams[index];
        let mut keyframe_run = false;
        if let Kind::Video { after_keyframe, .. } = &mut stream.kind {
            keyframe_run = unit.keyframe && !*after_keyframe;
            *after_keyframe = unit.keyframe;
        }
        let clock = unit.dts - self.delay;
        let is_clock = index == self.pcr_stream;
        let stated = match &mut self.repetition {
            Some(repetition) => {
                let (sdt, pat) = repetition.tables(clock * 300, keyframe_run);
                self.tables.write(sdt, pat, out);
                is_clock && (repetition.clock(clock * 300) || unit.keyframe)
            }
            None => {
                let begins = std::mem::take(&mut self.begins);
                self.tables.write(begins, begins || keyframe_run, out);
                is_clock
            }
        };
        let adaptation = Adaptation { random_access: unit.keyframe, pcr: stated.then_some(clock) };
        let header = pes::header(unit.stream_id, unit.payload.len(), unit.pts, unit.dts);
        packetise(stream.pid, &mut stream.counter, adaptation, &header, &unit.payload, out);
    }
}

impl Repetition {
    /// Whether SDT, and PAT with PMT, are due.
    fn tables(&mut self, now: i64, keyframe: bool) -> (bool, bool) {
        let due = |last: &mut Option<i64>, period: i64, forced: bool| {
            let due = forced || last.is_none_or(|last| now - last >= period * 300);
            if due {
                *last = Some(last.map_or(now, |last| last.max(now)));
            }
            due
        };
        (due(&mut self.sdt, SDT_PERIOD, false), due(&mut self.pat, PAT_PERIOD, keyframe))
    }

    /// Whether the clock is due.
    fn clock(&mut self, now: i64) -> bool {
        let due = now - self.clock >= self.clock_period;
        if due {
            // Counted on from when it was due, not from when it came.
            self.clock = (self.clock + self.clock_period).max(now - self.clock_period);
        }
        due
    }
}

/// As many whole frames as fit into a tenth of a second, in 27 MHz; of longer ones each.
fn clock_period(format: &TrackFormat) -> i64 {
    const CLOCK: i64 = 27_000_000;
    const MOST: i64 = CLOCK / 10;
    let frame = |samples: i64, rate: u32| {
        (CLOCK * samples + i64::from(rate) - 1).div_euclid(i64::from(rate.max(1)))
    };
    let frame = match *format {
        TrackFormat::H264 { frame_rate: (n, d), .. }
        | TrackFormat::Hevc { frame_rate: (n, d), .. } => frame(d.into(), n),
        TrackFormat::Aac { sample_rate, .. } => frame(1024, sample_rate),
        TrackFormat::Ac3 { sample_rate, .. } | TrackFormat::Eac3 { sample_rate, .. } => {
            frame(1536, sample_rate)
        }
        TrackFormat::Mp3 { sample_rate, .. } => {
            frame(if sample_rate < 32_000 { 576 } else { 1152 }, sample_rate)
        }
        _ => frame(960, 48_000),
    };
    if frame > 0 && frame <= MOST { MOST / frame * frame } else { 1 }
}

/// A PES packet to be; times in ticks with all shifts applied.
#[derive(Debug)]
struct Pes {
    stream_id: u8,
    pts: i64,
    dts: i64,
    keyframe: bool,
    payload: Vec<u8>,
}

fn video(syntax: Syntax) -> Kind {
    Kind::Video { syntax, sets: ParameterSets::default(), after_keyframe: false }
}

/// The access unit with a delimiter in front, and at keyframes with parameter sets: a segment must
/// be decodable alone.
fn access_unit(syntax: Syntax, known: &mut ParameterSets, sample: &Sample) -> Vec<u8> {
    const H264_AUD: [u8; 6] = [0, 0, 0, 1, 0x09, 0xf0];
    const HEVC_AUD: [u8; 7] = [0, 0, 0, 1, 0x46, 0x01, 0x50];
    let mut out = Vec::with_capacity(sample.data.len() + 64);
    let delimited = nals(&sample.data).next().is_some_and(|nal| syntax.is_aud(nal));
    if !delimited {
        out.extend_from_slice(match syntax {
            Syntax::H264 => &H264_AUD[..],
            Syntax::Hevc => &HEVC_AUD[..],
        });
    }
    if sample.keyframe {
        let sets = ParameterSets::collect(syntax, &sample.data);
        if sets.is_complete(syntax) {
            *known = sets;
        } else if delimited {
            // The delimiter must stay first, so the unit is put together anew.
            for (i, nal) in nals(&sample.data).enumerate() {
                out.extend_from_slice(&[0, 0, 0, 1]);
                out.extend_from_slice(nal);
                if i == 0 {
                    out.extend_from_slice(&known.to_annexb());
                }
            }
            return out;
        } else {
            out.extend_from_slice(&known.to_annexb());
        }
    }
    out.extend_from_slice(&sample.data);
    out
}

#[cfg(test)]
mod tests;
