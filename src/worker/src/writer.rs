//! Encoded tracks on their way into the writer of segments, or of one file.
//!
//! It wants all formats at once, and they are known only with each track's first sample; until then
//! samples wait here.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ffmpeg_args::{Output, Transcode};
use gstreamer as gst;
use hls::{Counters, Progressive, Room, Sample, Segmenter, Timing, Track, WriteError};
use session::{Complete, Ending, Fault, Resumption, WorkerToGateway};

use crate::format::track_format;
use crate::seam::{Notes, SoundEncoder, State};
use crate::source::SourceError;

/// Most bytes that wait for a track without a sample; at 4 Mbit/s two minutes. ffmpeg gives up at
/// about as much (`-max_muxing_queue_size`, `-muxing_queue_data_threshold`).
const MOST_WAITING: usize = 64 << 20;

/// Who writes the samples.
#[derive(Debug)]
pub enum Muxer {
    /// Segments and a playlist.
    Segments(Box<Segmenter>),
    /// One file, which is read while it grows.
    File(Box<Progressive>),
}

impl Muxer {
    fn push(&mut self, sample: Sample) -> Result<(), WriteError> {
        match self {
            Self::Segments(segmenter) => segmenter.push(sample),
            Self::File(file) => file.push(sample),
        }
    }

    fn end_track(&mut self, track: usize) -> Result<(), WriteError> {
        match self {
            Self::Segments(segmenter) => segmenter.end_track(track),
            Self::File(file) => file.end_track(track),
        }
    }

    /// Writes what there is, and the end.
    ///
    /// # Errors
    /// Any [`WriteError`].
    pub fn finish(&mut self) -> Result<Counters, WriteError> {
        match self {
            Self::Segments(segmenter) => segmenter.finish(),
            Self::File(file) => file.finish(),
        }
    }

    /// Ends with what is whole, as there is no room for more.
    pub fn settle(self) -> Counters {
        match self {
            Self::Segments(segmenter) => segmenter.settle(),
            Self::File(file) => file.settle(),
        }
    }

    /// Breaks off. Half a segment goes; of a file stays what was written, as with ffmpeg.
    pub fn abort(self) {
        if let Self::Segments(segmenter) = self {
            segmenter.abort();
        }
    }

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        match self {
            Self::Segments(segmenter) => segmenter.counters(),
            Self::File(file) => file.counters(),
        }
    }
}

/// Tracks on their way into a muxer, which can only be made once all formats are known.
pub struct Writer {
    formats: Vec<Option<hls::TrackFormat>>,
    ended: BTreeSet<usize>,
    copied: BTreeSet<usize>,
    waiting: Vec<Sample>,
    waiting_bytes: usize,
    /// Once there is one.
    pub muxer: Option<Muxer>,
    directory: Option<OwnedFd>,
    plan: Transcode,
    /// When the output should end, ns of its own time, if the inputs say.
    pub expected_end_ns: Option<i64>,
    tag: String,
    socket: Arc<OwnedFd>,
    room: Arc<Room>,
    /// What another worker may have to know; `None` of outputs that nobody goes on with.
    pub notes: Option<Notes>,
    /// The encoder of the sound.
    pub sound_encoder: Option<SoundEncoder>,
    /// Set by `Quit`: an output in which a track is missing isn't begun any more. Its headers
    /// would not be those of the same job begun elsewhere.
    pub all_or_nothing: bool,
}

/// A failure, in words and with its fault.
pub fn failed(reason: impl Into<String>, fault: Fault) -> Ending {
    Ending::Failed { reason: reason.into(), fault }
}

impl From<SourceError> for Ending {
    fn from(error: SourceError) -> Self {
        failed(error.message, error.fault)
    }
}

/// As [`failed`], for an error of the segment writer.
pub fn write_failed(error: &WriteError) -> Ending {
    let fault = match error {
        WriteError::Unsupported { .. } => Fault::Unsupported,
        WriteError::BadSample { .. } => Fault::Input,
        WriteError::Closed => Fault::Worker,
        _ => Fault::Output,
    };
    failed(error.to_string(), fault)
}

impl Writer {
    /// Before the first sample. `copied` names the tracks that aren't encoded.
    pub fn new(
        plan: &Transcode,
        copied: BTreeSet<usize>,
        directory: OwnedFd,
        tag: String,
        socket: Arc<OwnedFd>,
        room: Arc<Room>,
    ) -> Self {
        let tracks = usize::from(plan.video.is_some()) + usize::from(plan.audio.is_some());
        Self {
            formats: vec![None; tracks],
            ended: BTreeSet::new(),
            copied,
            waiting: Vec::new(),
            waiting_bytes: 0,
            muxer: None,
            expected_end_ns: None,
            directory: Some(directory),
            plan: plan.clone(),
            tag,
            socket,
            room,
            notes: None,
            sound_encoder: None,
            all_or_nothing: false,
        }
    }

    /// Goes on where another worker has come to.
    ///
    /// # Errors
    /// What the segment writer reports.
    pub fn resume(&mut self, state: &State, resumption: &Resumption) -> Result<(), Ending> {
        let (Output::Hls(output), Some(directory)) = (&self.plan.output, self.directory.take())
        else {
            return Err(failed("only segments can be gone on with", Fault::Worker));
        };
        let (output, observer) = (output.clone(), self.observer());
        let lengths = resumption.lengths();
        let mut segmenter =
            Segmenter::resume(directory, output, &state.seam, lengths, &self.tag, observer)
                .map_err(|error| write_failed(&error))?;
        segmenter.be_patient(self.room.clone());
        self.muxer = Some(Muxer::Segments(Box::new(segmenter)));
        Ok(())
    }

    /// Whether any sample has come.
    pub fn has_begun(&self) -> bool {
        self.muxer.is_some() || !self.waiting.is_empty()
    }

    /// Whether every track has ended. A copied track is stopped without an end, so on `Quit` it
    /// counts as ended.
    pub fn is_complete(&self, quitting: bool) -> bool {
        (0..self.formats.len())
            .all(|track| self.ended.contains(&track) || quitting && self.copied.contains(&track))
    }

    /// Notes a track's format, from the caps of its first sample.
    ///
    /// # Errors
    /// A codec that has no place in a segment.
    pub fn format(&mut self, track: usize, caps: &gst::Caps) -> Result<(), Ending> {
        let video = self.plan.video.as_ref().filter(|_| track == 0);
        let tag = video.and_then(|video| video.tag.as_deref());
        let format = track_format(caps, tag).map_err(|error| failed(error, Fault::Unsupported))?;
        // Later changes travel in band; the headers of a job are written once.
        self.formats[track].get_or_insert(format);
        Ok(())
    }

    /// Takes a sample.
    ///
    /// # Errors
    /// What the segment writer reports, or that a track has none while the others fill the memory.
    pub fn push(&mut self, sample: Sample) -> Result<(), Ending> {
        if self.muxer.is_none() {
            self.waiting_bytes += sample.data.len();
            self.waiting.push(sample);
            if self.waiting_bytes > MOST_WAITING {
                let reason = "a track begins too long after the others";
                return Err(failed(reason, Fault::Unsupported));
            }
            return self.open();
        }
        match &mut self.muxer {
            Some(muxer) => muxer.push(sample).map_err(|error| write_failed(&error)),
            None => Ok(()),
        }
    }

    /// A track is complete.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn end(&mut self, track: usize) -> Result<(), Ending> {
        self.ended.insert(track);
        match &mut self.muxer {
            Some(muxer) => muxer.end_track(track).map_err(|error| write_failed(&error)),
            None => self.open(),
        }
    }

    /// Makes the muxer once every track has a format or has ended without a sample.
    fn open(&mut self) -> Result<(), Ending> {
        let known = |(track, format): (usize, &Option<hls::TrackFormat>)| {
            format.is_some() || self.ended.contains(&track)
        };
        if self.waiting.is_empty() || !self.formats.iter().enumerate().all(known) {
            return Ok(());
        }
        if self.all_or_nothing && self.formats.iter().any(Option::is_none) {
            return Ok(());
        }
        // A track without samples isn't written; the others move up.
        let mut numbers = vec![None; self.formats.len()];
        let mut tracks = Vec::new();
        for (track, format) in self.formats.iter().enumerate() {
            if let Some(format) = format {
                numbers[track] = Some(tracks.len());
                tracks.push(Track { format: format.clone() });
            }
        }
        if tracks.len() < self.formats.len() && numbers[0].is_none() {
            return Err(failed("the picture has no frames", Fault::Input));
        }
        let mut muxer = match self.muxer(tracks).map_err(|error| write_failed(&error))? {
            Some(muxer) => muxer,
            None => return Ok(()),
        };
        for sample in self.waiting.drain(..) {
            muxer.push(sample).map_err(|error| write_failed(&error))?;
        }
        for track in &self.ended {
            if let Some(number) = numbers[*track] {
                muxer.end_track(number).map_err(|error| write_failed(&error))?;
            }
        }
        self.muxer = Some(muxer);
        Ok(())
    }

    /// Tells the gateway what has become of the output.
    fn observer(&self) -> impl FnMut(hls::Event) + Send + 'static {
        let socket = Arc::clone(&self.socket);
        let (notes, sound) = (self.notes.clone(), self.sound_encoder);
        let encodes_picture = self.plan.encoded_video().is_some();
        move |event| {
            let message = match event {
                hls::Event::Committing => WorkerToGateway::Committed,
                hls::Event::SegmentComplete { number, length, seam, .. } => {
                    let last = seam.is_none();
                    let state = notes.as_ref().zip(seam).and_then(|(notes, seam)| {
                        let state = notes.state(*seam, encodes_picture, sound)?;
                        serde_json::to_value(state).ok()
                    });
                    let complete = Complete { length, state, last };
                    WorkerToGateway::SegmentComplete { number, complete }
                }
            };
            let _ = session::send(socket.as_fd(), &message, &[]);
        }
    }

    /// The muxer of the plan's output; `None` if there was one before.
    fn muxer(&mut self, tracks: Vec<Track>) -> Result<Option<Muxer>, WriteError> {
        let Some(directory) = self.directory.take() else { return Ok(None) };
        let observer = self.observer();
        Ok(Some(match &self.plan.output {
            Output::Hls(output) => {
                let output = output.clone();
                let mut segmenter = Segmenter::new(directory, output, tracks, &self.tag, observer)?;
                segmenter.be_patient(self.room.clone());
                Muxer::Segments(Box::new(segmenter))
            }
            Output::Progressive(output) => {
                let timing = Timing {
                    source_times: self.plan.source_times,
                    expected_end_ns: self.expected_end_ns,
                };
                let mut file = Progressive::new(directory, output, timing, &tracks, observer)?;
                file.be_patient(self.room.clone());
                Muxer::File(Box::new(file))
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;
    use ffmpeg_args::Plan;

    #[test]
    fn a_track_that_never_begins_does_not_fill_the_memory() {
        let command = "-i file:/a.mkv -map_metadata -1 -map_chapters -1 -threads 0 \
                       -map 0:0 -map 0:1 -map -0:s -codec:v:0 copy -codec:a:0 copy -copyts \
                       -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls \
                       -max_delay 5000000 -hls_time 6 -hls_segment_type mpegts -start_number 0 \
                       -hls_segment_filename /t/id%d.ts -hls_playlist_type vod -hls_list_size 0 \
                       -y /t/id.m3u8";
        let arguments: Vec<_> = command.split_whitespace().map(Into::into).collect();
        let plan = match ffmpeg_args::plan(&arguments) {
            Plan::Transcode(plan) => plan,
            other => panic!("{other:?}"),
        };
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let directory = tempfile::tempfile().unwrap();
        let socket = Arc::new(socket.into());
        let room = Arc::new(Room::new(|_| {}));
        let mut writer =
            Writer::new(&plan, BTreeSet::new(), directory.into(), "w".into(), socket, room);
        let data = Bytes::from(vec![0; 1 << 20]);
        let mut push = || {
            let data = data.clone();
            writer.push(Sample { track: 0, pts: 0, dts: 0, duration: 0, keyframe: true, data })
        };
        for _ in 0..MOST_WAITING >> 20 {
            assert_eq!(push(), Ok(()));
        }
        let expected = "a track begins too long after the others";
        assert_eq!(push(), Err(failed(expected, Fault::Unsupported)));
    }
}
