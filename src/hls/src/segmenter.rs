//! The segment writer.

use std::fmt;
use std::os::fd::OwnedFd;

use ffmpeg_args::HlsOutput;

use crate::{Interleaver, Sample, Track, WriteError};

/// What an observer is told, from within the call that caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Once: the first final name is about to appear in the directory.
    Committing,
    /// A segment stands under its final name.
    SegmentComplete {
        /// Its number, counted from `-start_number`.
        number: u64,
        /// Presentation time of its first sample on the source's timeline, ns.
        start_ns: i64,
        /// Its length as the playlist states it, ns.
        duration_ns: u64,
        /// Size of the file.
        bytes: u64,
    },
}

/// How much went through, for progress reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames of the video track, or packets if there is sound only.
    pub frames: u64,
    /// Bytes in files under final names.
    pub bytes: u64,
    /// Smallest presentation time taken so far, on the source's timeline, ns.
    pub first_pts_ns: Option<i64>,
    /// End of the latest presentation so far, on the source's timeline, ns.
    pub position_ns: Option<i64>,
}

/// Writes the segments of one stream.
///
/// Dropped without [`finish`](Self::finish) it does as [`abort`](Self::abort).
pub struct Segmenter {
    interleaver: Interleaver,
    counters: Counters,
    observer: Box<dyn FnMut(Event) + Send>,
    directory: OwnedFd,
    output: HlsOutput,
    tracks: Vec<Track>,
    writer_tag: String,
    closed: bool,
}

impl Segmenter {
    /// A writer into `directory` (any descriptor of it that `openat` takes). At most one video
    /// track, which should come first; `writer_tag` tells the temporary files of this writer from
    /// those of others in the same directory. Creates nothing yet.
    ///
    /// # Errors
    /// [`WriteError::Unsupported`] if the container can't carry the tracks.
    pub fn new(
        directory: OwnedFd,
        output: HlsOutput,
        tracks: Vec<Track>,
        writer_tag: &str,
        observer: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, WriteError> {
        Ok(Self {
            interleaver: Interleaver::new(tracks.len()),
            counters: Counters::default(),
            observer: Box::new(observer),
            directory,
            output,
            tracks,
            writer_tag: writer_tag.to_owned(),
            closed: false,
        })
    }

    /// Takes a sample; writes whatever has become writable by it.
    ///
    /// # Errors
    /// Any [`WriteError`]; then the temporary file is gone and the writer closed.
    pub fn push(&mut self, sample: Sample) -> Result<(), WriteError> {
        if self.closed {
            return Err(WriteError::Closed);
        }
        if sample.track >= self.tracks.len() {
            return Err(WriteError::BadSample {
                track: sample.track,
                reason: "unknown track".into(),
            });
        }
        self.interleaver.push(sample);
        Ok(())
    }

    /// The track has ended; it holds back the others no longer.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn end_track(&mut self, track: usize) -> Result<(), WriteError> {
        self.interleaver.end_track(track);
        Ok(())
    }

    /// End of the stream, or `q`: the samples so far become the last segment under its final name,
    /// and the playlist is written with its end mark.
    ///
    /// # Errors
    /// Any [`WriteError`].
    pub fn finish(mut self) -> Result<Counters, WriteError> {
        self.closed = true;
        Ok(self.counters)
    }

    /// Breaks off: temporary files are removed, whole segments stay.
    pub fn abort(self) {}

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

impl fmt::Debug for Segmenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segmenter")
            .field("output", &self.output)
            .field("tracks", &self.tracks)
            .field("writer_tag", &self.writer_tag)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}
