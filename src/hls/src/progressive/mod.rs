//! One file, written from its first to its last byte while Jellyfin reads it (contract 2.6, 2.7, 4).
//!
//! ```text
//! Sample ─▶ Interleaver ─▶ container ─▶ {name}, appended to
//! ```
//!
//! Jellyfin opens the file as soon as it exists and sends on whatever it finds, so nothing may be
//! gone back to: what ffmpeg fills in at the end (a length, a number of frames) is left out, or stated
//! beforehand as far as the source's own header says it. In return parts are short. ffmpeg ends a
//! fragment or cluster at a keyframe, every five seconds then, and with sound alone writes MP4 at the
//! very end; here a viewer gets each second of media when it is encoded.
//!
//! Invariants:
//! - The file is only ever appended to, and each write ends with a whole part (fragment, cluster, page,
//!   frame): a reader who stops anywhere between two writes can decode all that there is.
//! - Whatever was written stays, however the stream ends; but for half a part whose other half there is
//!   no room for.
//! - The file appears with its first bytes, never empty before.

mod mp4;
mod ogg;
mod sound;
mod span;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ffmpeg_args::{FileFormat, ProgressiveOutput};

use crate::file::{Folder, Growing};
use crate::fmp4::{self, Brand};
use crate::matroska::{self, Matroska};
use crate::segmenter::{Counters, Event};
use crate::ts::{self, TsWriter};
use crate::{Interleaver, Patience, Sample, Track, WriteError};

pub(crate) use span::Span;

/// Turns samples, in the order in which they lie in the file, into the file's bytes.
pub(crate) trait Container: fmt::Debug + Send {
    /// Takes a sample; appends what is complete by it.
    fn write(&mut self, sample: &Sample, out: &mut Vec<u8>) -> Result<(), WriteError>;
    /// Appends what is left, and what ends the file.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError>;
}

/// How a file's times lie.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// `-copyts -avoid_negative_ts disabled`: times stay what they are. Without it a container
    /// that has none below zero moves all of them up.
    pub source_times: bool,
    /// When the output should end, ns on its own timeline, if the source's header says.
    pub expected_end_ns: Option<i64>,
}

/// Writes one progressive file.
pub struct Progressive {
    folder: Folder,
    name: String,
    file: Option<Growing>,
    has_video: bool,
    video_began: bool,
    tracks: usize,
    interleaver: Interleaver,
    container: Box<dyn Container>,
    out: Vec<u8>,
    counters: Counters,
    /// The same of what is in the file.
    whole: Counters,
    observer: Box<dyn FnMut(Event) + Send>,
    closed: bool,
}

impl Progressive {
    /// A writer of `output.name` in `directory` (any descriptor of it that `openat` takes). At most
    /// one video track, which comes first. Creates nothing yet.
    ///
    /// # Errors
    /// [`WriteError::Unsupported`] if the container can't carry the tracks.
    pub fn new(
        directory: OwnedFd,
        output: &ProgressiveOutput,
        timing: Timing,
        tracks: &[Track],
        observer: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, WriteError> {
        let unsupported = |why: &str| Err(WriteError::Unsupported(why.to_owned()));
        let Some(first) = tracks.first() else { return unsupported("an output without tracks") };
        if tracks.iter().skip(1).any(|track| track.format.is_video()) {
            return unsupported("a video track behind the first track");
        }
        Ok(Self {
            folder: Folder::new(directory),
            name: output.name.clone(),
            file: None,
            has_video: first.format.is_video(),
            video_began: false,
            tracks: tracks.len(),
            interleaver: Interleaver::new(tracks.iter().map(|track| rate(output.format, track))),
            container: container(output, timing, tracks)?,
            out: Vec::new(),
            counters: Counters::default(),
            whole: Counters::default(),
            observer: Box::new(observer),
            closed: false,
        })
    }

    /// Waits for room as this says, instead of failing.
    pub fn be_patient(&mut self, patience: Arc<dyn Patience>) {
        self.folder.be_patient(patience);
    }

    /// Takes a sample; writes whatever is complete by it.
    ///
    /// # Errors
    /// Any [`WriteError`]; then the writer is closed, and what was written stays.
    pub fn push(&mut self, sample: Sample) -> Result<(), WriteError> {
        if self.closed {
            return Err(WriteError::Closed);
        }
        if sample.track >= self.tracks {
            let reason = format!("unknown track, expected less than {}", self.tracks);
            return Err(WriteError::BadSample { track: sample.track, reason });
        }
        self.interleaver.push(sample);
        let drained = self.drain();
        self.guard(drained)
    }

    /// The track has ended; it holds back the others no longer.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn end_track(&mut self, track: usize) -> Result<(), WriteError> {
        if self.closed {
            return Err(WriteError::Closed);
        }
        self.interleaver.end_track(track);
        let drained = self.drain();
        self.guard(drained)
    }

    /// End of the stream, or `q`: what there is gets written and the file its end. Without any sample
    /// no file appears.
    ///
    /// # Errors
    /// Any [`WriteError`].
    pub fn finish(&mut self) -> Result<Counters, WriteError> {
        for track in 0..self.tracks {
            self.end_track(track)?;
        }
        if self.counters.position_ns.is_some() {
            self.container.finish(&mut self.out)?;
            self.flush()?;
        }
        Ok(self.counters)
    }

    /// Ends with what is in the file, if there is no room for more and nobody waits for it.
    pub fn settle(self) -> Counters {
        self.whole
    }

    /// What went through so far; `bytes` is the file's size.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn drain(&mut self) -> Result<(), WriteError> {
        while let Some(sample) = self.interleaver.pop() {
            let reference = sample.track == 0;
            if reference && self.has_video && !self.video_began {
                // As ffmpeg does with a copied stream: nothing can be shown before a keyframe.
                if !sample.keyframe {
                    continue;
                }
                self.video_began = true;
            }
            self.container.write(&sample, &mut self.out)?;
            self.counters.count(&sample, reference);
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                (self.observer)(Event::Committing);
                self.file.insert(self.folder.grow(&self.name)?)
            }
        };
        file.write(&self.out)?;
        self.counters.bytes = file.bytes();
        self.whole = self.counters;
        self.out.clear();
        Ok(())
    }

    fn guard(&mut self, result: Result<(), WriteError>) -> Result<(), WriteError> {
        if result.is_err() {
            self.closed = true;
            self.interleaver = Interleaver::new([]);
        }
        result
    }
}

/// Ticks per second of a track's times in the container.
fn rate(format: FileFormat, track: &Track) -> u32 {
    match format {
        FileFormat::MpegTs => ts::RATE,
        FileFormat::Matroska | FileFormat::WebM => matroska::RATE,
        // Of the others all but MP4 have one track, which is compared with none.
        _ => fmp4::timescale(&track.format),
    }
}

impl fmt::Debug for Progressive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progressive")
            .field("name", &self.name)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The writer of a container, if it can carry the tracks.
fn container(
    output: &ProgressiveOutput,
    timing: Timing,
    tracks: &[Track],
) -> Result<Box<dyn Container>, WriteError> {
    let only = || match tracks {
        [track] => Ok(&track.format),
        _ => Err(WriteError::Unsupported(format!("several tracks in {}", output.format.name()))),
    };
    Ok(match output.format {
        FileFormat::FragmentedMp4 => {
            let brand = if output.name.ends_with(".m4a") { Brand::M4a } else { Brand::Mp4 };
            Box::new(mp4::Mp4::new(tracks, brand)?)
        }
        FileFormat::MpegTs => Box::new(TsWriter::file(tracks, timing.source_times)?),
        FileFormat::Matroska => Box::new(Matroska::new(tracks, timing, false)?),
        FileFormat::WebM => Box::new(Matroska::new(tracks, timing, true)?),
        FileFormat::Mp3 => Box::new(sound::Mp3::new(only()?, timing)?),
        FileFormat::Adts => Box::new(sound::Adts::new(only()?)?),
        FileFormat::Flac => Box::new(sound::Flac::new(only()?, timing)?),
        FileFormat::Ogg => Box::new(ogg::Ogg::new(only()?)?),
    })
}

impl Container for TsWriter {
    fn write(&mut self, sample: &Sample, out: &mut Vec<u8>) -> Result<(), WriteError> {
        Self::write(self, sample, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.flush(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
