//! The segment writer: order, cuts, files, playlist.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ffmpeg_args::{Container, HlsOutput, PlaylistType};
use serde::{Deserialize, Serialize};

use crate::cut::{Candidate, CutRule, Extent};
use crate::directory::exists;
use crate::file::{Folder, Temporary};
use crate::fmp4::{self, Fmp4Writer};
use crate::playlist::Playlist;
use crate::seam::{ContainerSeam, Left, Seam, TrackSeam};
use crate::ts::{self, TsWriter};
use crate::{Interleaver, Patience, Sample, Track, WriteError};

/// MPEG-TS goes to the file in pieces of this size.
const TS_BUFFER: usize = 64 << 10;

/// What an observer is told, from within the call that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Once: the first final name is about to appear in the directory.
    Committing,
    /// A segment stands under its final name.
    SegmentComplete {
        /// Its number, counted from `-start_number`.
        number: u64,
        /// Presentation time of its first sample on the source's timeline, ns.
        start_ns: i64,
        /// Its length as the playlist states it: ticks, and how many of them are a second.
        length: (u64, u32),
        /// Size of the file.
        bytes: u64,
        /// Where another writer can go on; `None` behind the last segment. That one is told of when
        /// the playlist is written too.
        seam: Option<Box<Seam>>,
    },
}

/// How much went through, for progress reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Frames of the video track, or packets if there is sound only.
    pub frames: u64,
    /// Bytes of segments under final names, or of the file.
    pub bytes: u64,
    /// Segments under final names.
    pub segments: u64,
    /// Presentation time of the first frame (or packet, if there is sound only) on the source's
    /// timeline, ns.
    pub first_pts_ns: Option<i64>,
    /// End of the latest presentation so far, on the source's timeline, ns.
    pub position_ns: Option<i64>,
}

impl Counters {
    /// Notes a sample; `reference` is the track whose samples are frames.
    pub(crate) fn count(&mut self, sample: &Sample, reference: bool) {
        if reference {
            self.frames += 1;
            self.first_pts_ns.get_or_insert(sample.pts);
        }
        let length = i64::try_from(sample.duration).unwrap_or(0);
        let end = sample.pts.saturating_add(length);
        self.position_ns = self.position_ns.max(Some(end));
    }
}

/// Writes the segments of one stream.
///
/// Dropped without [`finish`](Self::finish) it does as [`abort`](Self::abort).
pub struct Segmenter {
    folder: Folder,
    output: HlsOutput,
    tag: String,
    /// The track that counts and cuts: the video, or the first if there is none.
    reference: usize,
    has_video: bool,
    tracks: Vec<TrackSeam>,
    /// What another writer has written before.
    left: Option<Left>,
    interleaver: Interleaver,
    cut: CutRule,
    muxer: Muxer,
    /// Video has begun with a keyframe.
    video_began: bool,
    number: u64,
    playlist: Playlist,
    counters: Counters,
    /// The same of whole segments alone.
    whole: Counters,
    observer: Box<dyn FnMut(Event) + Send>,
    closed: bool,
}

enum Muxer {
    /// Streams into the temporary file.
    Ts { writer: Box<TsWriter>, buffer: Vec<u8>, file: Option<Temporary> },
    /// Keeps a segment in memory: its boxes state sizes up front.
    Fmp4 { writer: Fmp4Writer, init: String, init_done: bool },
}

impl Segmenter {
    /// A writer into `directory` (any descriptor of it that `openat` takes). At most one video
    /// track, which comes first; `writer_tag` tells the temporary files of this writer from those
    /// of others in the same directory. Creates nothing yet.
    ///
    /// # Errors
    /// [`WriteError::Unsupported`] if the container can't carry the tracks, or numbers could run out.
    pub fn new(
        directory: OwnedFd,
        output: HlsOutput,
        tracks: Vec<Track>,
        writer_tag: &str,
        observer: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, WriteError> {
        let unsupported = |why: &str| Err(WriteError::Unsupported(why.to_owned()));
        let Some(first) = tracks.first() else { return unsupported("an output without tracks") };
        // ffmpeg's own limit; room to count on from there is left.
        if i64::try_from(output.start_number).is_err() {
            return unsupported("a start number beyond 63 bits");
        }
        if tracks.iter().skip(1).any(|track| track.format.is_video()) {
            return unsupported("a video track behind the first track");
        }
        let has_video = first.format.is_video();
        let rate_of = |track: &Track| match output.container {
            Container::MpegTs => ts::RATE,
            Container::Fmp4 { .. } => fmp4::timescale(&track.format),
        };
        let interleaver = Interleaver::new(tracks.iter().map(rate_of));
        let folder = Folder::new(directory);
        let rate = rate_of(first);
        let muxer = match &output.container {
            Container::MpegTs => {
                let writer = Box::new(TsWriter::new(&tracks, output.max_delay_us)?);
                Muxer::Ts { writer, buffer: Vec::new(), file: None }
            }
            Container::Fmp4 { init, absolute, skip_sidx } => {
                let mut writer = Fmp4Writer::new(&tracks, *absolute, *skip_sidx)?;
                let init = init.clone();
                // The viewer may have that of a run before, and doesn't ask again behind a leap.
                if exists(folder.directory(), &init) {
                    writer.repeat_parameter_sets();
                }
                Muxer::Fmp4 { writer, init, init_done: false }
            }
        };
        Ok(Self {
            folder,
            cut: CutRule::new(output.segment_seconds, rate, has_video),
            number: output.start_number,
            output,
            tag: writer_tag.to_owned(),
            reference: 0,
            has_video,
            tracks: tracks
                .into_iter()
                .map(|track| TrackSeam { format: track.format, last: None })
                .collect(),
            left: None,
            interleaver,
            muxer,
            video_began: false,
            playlist: Playlist::default(),
            counters: Counters::default(),
            whole: Counters::default(),
            observer: Box::new(observer),
            closed: false,
        })
    }

    /// Goes on at a seam that another writer has left behind in the same directory. `lengths` are those
    /// of the run's whole segments, in ticks and ticks per second.
    ///
    /// # Errors
    /// As [`new`](Self::new), or if the init file isn't there any more.
    pub fn resume(
        directory: OwnedFd,
        output: HlsOutput,
        seam: &Seam,
        lengths: impl IntoIterator<Item = (u64, u32)>,
        writer_tag: &str,
        observer: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, WriteError> {
        let format = |track: &TrackSeam| Track { format: track.format.clone() };
        let tracks = seam.tracks.iter().map(format).collect();
        let mut own = Self::new(directory, output, tracks, writer_tag, observer)?;
        match (&mut own.muxer, &seam.container) {
            (Muxer::Ts { writer, .. }, ContainerSeam::Ts(state)) => writer.go_on(state),
            (Muxer::Fmp4 { writer, init, init_done }, ContainerSeam::Fmp4(state)) => {
                writer.go_on(state, &own.folder.read(init)?);
                *init_done = true;
            }
            _ => return Err(WriteError::Unsupported("a seam of another container".into())),
        }
        for (number, (ticks, rate)) in (own.number..).zip(lengths) {
            own.number = number;
            own.playlist.push(own.segment_name(), ticks as f64 / f64::from(rate));
        }
        own.cut.go_on(seam.run_start_ns, seam.whole);
        own.number = seam.number;
        (own.counters, own.whole) = (seam.counters, seam.counters);
        own.left = Some(Left::by(seam));
        own.tracks.clone_from(&seam.tracks);
        Ok(own)
    }

    /// Waits for room as this says, instead of failing.
    pub fn be_patient(&mut self, patience: Arc<dyn Patience>) {
        self.folder.be_patient(patience);
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
            let reason = format!("unknown track, expected less than {}", self.tracks.len());
            return Err(WriteError::BadSample { track: sample.track, reason });
        }
        if self.left.as_mut().is_some_and(|left| left.is_written(&sample)) {
            return Ok(());
        }
        self.interleaver.push(sample);
        self.drain()
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
        self.drain()
    }

    /// End of the stream, or `q`: the samples so far become the last segment under its final name,
    /// and the playlist is written with its end mark. Without any sample no file appears.
    ///
    /// # Errors
    /// Any [`WriteError`].
    pub fn finish(&mut self) -> Result<Counters, WriteError> {
        for track in 0..self.tracks.len() {
            self.end_track(track)?;
        }
        let last = self.finish_files();
        self.guard(last)?;
        self.closed = true;
        Ok(self.counters)
    }

    /// Ends behind the last whole segment, if there is no room for more and nobody waits for it: half a
    /// segment is removed, and the playlist ends there, if that has room at least.
    pub fn settle(mut self) -> Counters {
        self.clear();
        if !self.playlist.is_empty() {
            // Jellyfin makes its own; this one is for people.
            let _ = self.write_playlist(true);
        }
        self.whole
    }

    /// Breaks off: temporary files are removed, whole segments stay.
    pub fn abort(self) {}

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn drain(&mut self) -> Result<(), WriteError> {
        while let Some(sample) = self.interleaver.pop() {
            let result = self.write(&sample);
            self.guard(result)?;
        }
        Ok(())
    }

    /// After an error nothing partial stays and nothing more is taken.
    fn guard(&mut self, result: Result<(), WriteError>) -> Result<(), WriteError> {
        if result.is_err() {
            self.clear();
        }
        result
    }

    fn clear(&mut self) {
        self.closed = true;
        self.interleaver = Interleaver::new([]);
        if let Muxer::Ts { file, buffer, .. } = &mut self.muxer {
            *buffer = Vec::new();
            if let Some(file) = file.take() {
                self.folder.discard(file);
            }
        }
    }

    fn write(&mut self, sample: &Sample) -> Result<(), WriteError> {
        let reference = sample.track == self.reference;
        let video = reference && self.has_video;
        if video && !self.video_began {
            // As ffmpeg does with a copied stream: nothing can be shown before a keyframe.
            if !sample.keyframe {
                return Ok(());
            }
            self.video_began = true;
        }
        let (pts, duration) = (sample.pts, sample.duration);
        let packet = Candidate { pts, duration, video, keyframe: sample.keyframe };
        if let Some(extent) = self.cut.next(packet) {
            self.close_segment(extent, sample)?;
        }
        let name = self.segment_name();
        match &mut self.muxer {
            Muxer::Ts { writer, buffer, file } => {
                let file = match file {
                    Some(file) => file,
                    None => {
                        writer.begin_segment();
                        let temporary = format!("{name}.{}.tmp", self.tag);
                        file.insert(self.folder.create(&name, temporary)?)
                    }
                };
                writer.write(sample, buffer)?;
                if buffer.len() >= TS_BUFFER {
                    file.write(buffer)?;
                    buffer.clear();
                }
            }
            Muxer::Fmp4 { writer, .. } => writer.write(sample)?,
        }
        self.counters.count(sample, reference);
        self.tracks[sample.track].last = Some((sample.dts, sample.duration));
        Ok(())
    }

    fn segment_name(&self) -> String {
        format!("{}{}{}", self.output.segment_prefix, self.number, self.output.segment_suffix)
    }

    fn finish_files(&mut self) -> Result<(), WriteError> {
        let last = match self.cut.finish() {
            Some(extent) => Some(self.complete_segment(extent, None)?),
            None => None,
        };
        if !self.playlist.is_empty() {
            self.write_playlist(true)?;
        }
        // Whoever hears of the last segment needs nobody any more.
        if let Some(last) = last {
            (self.observer)(last);
        }
        Ok(())
    }

    /// Completes the current segment, as `next` begins the one after it.
    fn close_segment(&mut self, extent: Extent, next: &Sample) -> Result<(), WriteError> {
        let complete = self.complete_segment(extent, Some(next))?;
        (self.observer)(complete);
        if self.output.playlist_type == PlaylistType::Event {
            self.write_playlist(false)?;
        }
        Ok(())
    }

    /// Gives the current segment its name; what there is to tell of it.
    fn complete_segment(
        &mut self,
        extent: Extent,
        next: Option<&Sample>,
    ) -> Result<Event, WriteError> {
        let name = self.segment_name();
        let bytes = match &mut self.muxer {
            Muxer::Ts { .. } => self.close_ts()?,
            Muxer::Fmp4 { .. } => self.close_fmp4(&name, next)?,
        };
        self.counters.bytes += bytes;
        self.counters.segments += 1;
        self.whole = self.counters;
        let number = self.number;
        self.number += 1;
        let seam = next.map(|next| Box::new(self.seam(next)));
        self.playlist.push(name, extent.seconds());
        Ok(Event::SegmentComplete {
            number,
            start_ns: extent.start_ns,
            length: (u64::try_from(extent.ticks).unwrap_or(0), extent.rate),
            bytes,
            seam,
        })
    }

    /// The state in which the sample `next` begins a segment.
    fn seam(&self, next: &Sample) -> Seam {
        let (run_start_ns, whole) = self.cut.progress();
        Seam {
            number: self.number,
            start_ns: next.pts,
            run_start_ns,
            whole,
            counters: self.counters,
            tracks: self.tracks.clone(),
            container: match &self.muxer {
                Muxer::Ts { writer, .. } => ContainerSeam::Ts(writer.state()),
                Muxer::Fmp4 { writer, .. } => ContainerSeam::Fmp4(writer.state()),
            },
        }
    }

    fn close_ts(&mut self) -> Result<u64, WriteError> {
        let Muxer::Ts { writer, buffer, file } = &mut self.muxer else { return Ok(0) };
        let Some(open) = file else { return Ok(0) };
        writer.flush(buffer);
        open.write(buffer)?;
        buffer.clear();
        buffer.shrink_to(TS_BUFFER);
        if self.counters.segments == 0 {
            (self.observer)(Event::Committing);
        }
        // On failure `commit` removes the file itself.
        file.take().map_or(Ok(0), |file| self.folder.commit(file))
    }

    fn close_fmp4(&mut self, name: &str, next: Option<&Sample>) -> Result<u64, WriteError> {
        let Muxer::Fmp4 { writer, init, init_done } = &mut self.muxer else { return Ok(0) };
        let temporary = |name: &str| format!("{name}.{}.tmp", self.tag);
        // The init file is written first and renamed just before the first segment: so it is
        // never newer than a segment, and never there without one coming.
        let head = if std::mem::replace(init_done, true) {
            None
        } else {
            let data = writer.init()?;
            Some(self.folder.prepare(init, temporary(init), &data)?)
        };
        let written = writer.take(next).and_then(|fragment| {
            let mut file = self.folder.prepare(name, temporary(name), &fragment.head)?;
            match file.write_all(&fragment.data) {
                Ok(()) => Ok(file),
                Err(error) => {
                    self.folder.discard(file);
                    Err(error)
                }
            }
        });
        let file = match written {
            Ok(file) => file,
            Err(error) => {
                if let Some(head) = head {
                    self.folder.discard(head);
                }
                return Err(error);
            }
        };
        if self.counters.segments == 0 {
            (self.observer)(Event::Committing);
        }
        if let Some(head) = head
            && let Err(error) = self.folder.commit(head)
        {
            self.folder.discard(file);
            return Err(error);
        }
        self.folder.commit(file)
    }

    fn write_playlist(&self, ended: bool) -> Result<(), WriteError> {
        let name = &self.output.playlist;
        let text = self.playlist.text(&self.output, ended);
        self.folder.put(name, format!("{name}.{}.tmp", self.tag), text.as_bytes())
    }
}

impl Drop for Segmenter {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Segmenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segmenter")
            .field("output", &self.output)
            .field("tag", &self.tag)
            .field("number", &self.number)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
