//! Matroska and WebM in one file that is only appended to (RFC 9559): head, then clusters.
//!
//! The segment's length is unknown, and there is neither index nor seek head: both would have to be
//! filled in at the end. The duration, which ffmpeg writes last, is the one that the source's header
//! promises.
//!
//! Times are whole milliseconds. Without `source_times` all of them move up until none lies below zero,
//! presentation times that is, as by ffmpeg's `-avoid_negative_ts auto` for this muxer. With them a
//! block may lie before its cluster, and below zero. Opus' blocks stand later by the decoder's delay,
//! as CodecDelay has it (ffmpeg 5.1 leaves that out, newer ones don't).
//!
//! Invariants:
//! - A cluster is written whole, with its length, and begins with a keyframe where there is one.

mod ebml;
mod entry;

use crate::annexb::{ParameterSets, Syntax};
use crate::fmp4::length_prefixed;
use crate::progressive::{Container, Span, Timing};
use crate::time::ticks;
use crate::{Sample, Track, TrackFormat, WriteError};
use ebml::{binary, float, id, master, open_ended, string, unsigned};

/// Units per second.
pub(crate) const RATE: u32 = 1000;
const KEYFRAME: u8 = 0x80;

/// Writes one file.
#[derive(Debug)]
pub(crate) struct Matroska {
    tracks: Vec<Entry>,
    timing: Timing,
    webm: bool,
    span: Span,
    /// Of the cluster to be.
    samples: Vec<Sample>,
    /// Added to every time, ms. Known with the first cluster.
    shift: Option<i64>,
}

#[derive(Debug)]
struct Entry {
    format: TrackFormat,
    syntax: Option<Syntax>,
    /// Of the first keyframe; they stand in the head.
    sets: ParameterSets,
    /// What the decoder's delay adds to times, ms.
    delay: i64,
}

impl Matroska {
    /// # Errors
    /// [`WriteError::Unsupported`] for what WebM has no place for.
    pub fn new(tracks: &[Track], timing: Timing, webm: bool) -> Result<Self, WriteError> {
        let fits = |format: &TrackFormat| {
            matches!(format, TrackFormat::Opus { .. } | TrackFormat::Vorbis { .. })
        };
        if webm && !tracks.iter().all(|track| fits(&track.format)) {
            let why = "WebM, expected no picture, and Opus or Vorbis";
            return Err(WriteError::Unsupported(why.to_owned()));
        }
        let entry = |track: &Track| Entry {
            format: track.format.of_open_length(None),
            syntax: entry::syntax(&track.format),
            sets: ParameterSets::default(),
            delay: entry::codec_delay_ns(&track.format)
                .map_or(0, |ns| ticks(i64::try_from(ns).unwrap_or(0), RATE)),
        };
        Ok(Self {
            tracks: tracks.iter().map(entry).collect(),
            timing,
            webm,
            span: Span::new(tracks),
            samples: Vec::new(),
            shift: None,
        })
    }

    fn head(&self, shift: i64, out: &mut Vec<u8>) -> Result<(), WriteError> {
        master(id::EBML, out, |out| {
            unsigned(id::EBML_VERSION, 1, out);
            unsigned(id::EBML_READ_VERSION, 1, out);
            unsigned(id::EBML_MAX_ID_LENGTH, 4, out);
            unsigned(id::EBML_MAX_SIZE_LENGTH, 8, out);
            string(id::DOC_TYPE, if self.webm { "webm" } else { "matroska" }, out);
            unsigned(id::DOC_TYPE_VERSION, 4, out);
            unsigned(id::DOC_TYPE_READ_VERSION, 2, out);
        });
        open_ended(id::SEGMENT, out);
        master(id::INFO, out, |out| {
            unsigned(id::TIMESTAMP_SCALE, 1_000_000_000 / u64::from(RATE), out);
            string(id::MUXING_APP, "Rendergate", out);
            string(id::WRITING_APP, "Rendergate", out);
            let end = self.timing.expected_end_ns.map(|end| ticks(end, RATE) + shift);
            if let Some(end) = end.filter(|end| *end > 0) {
                float(id::DURATION, end as f64, out);
            }
        });
        let mut entries = Vec::new();
        for (number, track) in (1..).zip(&self.tracks) {
            entry::track(number, &track.format, &track.sets, &mut entries)?;
        }
        binary(id::TRACKS, &entries, out);
        Ok(())
    }

    /// When a sample is shown, ms, not shifted.
    fn time(&self, sample: &Sample) -> i64 {
        ticks(sample.pts, RATE) + self.tracks[sample.track].delay
    }

    /// What lifts these, the file's first, to zero, ms.
    fn lift(&self, samples: &[Sample]) -> i64 {
        let earliest = samples.iter().map(|sample| self.time(sample)).min().unwrap_or(0);
        if self.timing.source_times { 0 } else { (-earliest).max(0) }
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let samples = std::mem::take(&mut self.samples);
        let shift = match self.shift {
            Some(shift) => shift,
            None => {
                let shift = self.lift(&samples);
                self.head(shift, out)?;
                *self.shift.insert(shift)
            }
        };
        let mut cluster: Option<(i64, Vec<u8>)> = None;
        for sample in &samples {
            let time = self.time(sample) + shift;
            let relative = |base: i64| i16::try_from(time - base).ok();
            if cluster.as_ref().is_none_or(|(base, _)| relative(*base).is_none()) {
                close(cluster.take(), out);
                let mut content = Vec::new();
                let base = time.max(0);
                unsigned(id::TIMESTAMP, base.unsigned_abs(), &mut content);
                cluster = Some((base, content));
            }
            if let Some((base, content)) = &mut cluster {
                self.block(sample, relative(*base).unwrap_or(i16::MIN), content);
            }
        }
        close(cluster, out);
        Ok(())
    }

    fn block(&self, sample: &Sample, time: i16, out: &mut Vec<u8>) {
        let track = &self.tracks[sample.track];
        let data = match track.syntax {
            Some(syntax) => length_prefixed(syntax, Some(&track.sets), &sample.data),
            None => sample.data.clone(),
        };
        // Numbers of tracks are lengths in form; there are never more than fit into one byte.
        let number = 0x80 | u8::try_from(sample.track + 1).unwrap_or(1);
        let [high, low] = time.to_be_bytes();
        let key = sample.keyframe || track.syntax.is_none();
        let mut content = Vec::with_capacity(4 + data.len());
        content.extend_from_slice(&[number, high, low, if key { KEYFRAME } else { 0 }]);
        content.extend_from_slice(&data);
        binary(id::SIMPLE_BLOCK, &content, out);
    }
}

fn close(cluster: Option<(i64, Vec<u8>)>, out: &mut Vec<u8>) {
    if let Some((_, content)) = cluster {
        binary(id::CLUSTER, &content, out);
    }
}

impl Container for Matroska {
    fn write(&mut self, sample: &Sample, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if self.span.begins_with(sample) {
            self.flush(out)?;
        }
        let track = &mut self.tracks[sample.track];
        if let Some(syntax) = track.syntax
            && sample.keyframe
            && !track.sets.is_complete(syntax)
        {
            track.sets = ParameterSets::collect(syntax, &sample.data);
        }
        self.samples.push(sample.clone());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if self.samples.is_empty() { Ok(()) } else { self.flush(out) }
    }
}
