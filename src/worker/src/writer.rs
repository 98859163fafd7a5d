//! Encoded tracks on their way into the segment writer.
//!
//! The segmenter wants all formats at once, and they are known only with each track's first
//! sample; until then samples wait here.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ffmpeg_args::Transcode;
use gstreamer as gst;
use hls::{Sample, Segmenter, Track, WriteError};
use session::{Ending, Fault, WorkerToGateway};

use crate::format::track_format;
use crate::source::SourceError;

/// Most bytes that wait for a track without a sample; at 4 Mbit/s two minutes. ffmpeg gives up at
/// about as much (`-max_muxing_queue_size`, `-muxing_queue_data_threshold`).
const MOST_WAITING: usize = 64 << 20;

/// Tracks on their way into the segmenter, which can only be made once all formats are known.
pub struct Writer {
    formats: Vec<Option<hls::TrackFormat>>,
    ended: BTreeSet<usize>,
    copied: BTreeSet<usize>,
    waiting: Vec<Sample>,
    waiting_bytes: usize,
    /// Once there is one.
    pub segmenter: Option<Segmenter>,
    directory: Option<OwnedFd>,
    plan: Transcode,
    tag: String,
    socket: Arc<OwnedFd>,
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
    ) -> Self {
        let tracks = usize::from(plan.video.is_some()) + usize::from(plan.audio.is_some());
        Self {
            formats: vec![None; tracks],
            ended: BTreeSet::new(),
            copied,
            waiting: Vec::new(),
            waiting_bytes: 0,
            segmenter: None,
            directory: Some(directory),
            plan: plan.clone(),
            tag,
            socket,
            all_or_nothing: false,
        }
    }

    /// Whether any sample has come.
    pub fn has_begun(&self) -> bool {
        self.segmenter.is_some() || !self.waiting.is_empty()
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
        if self.segmenter.is_none() {
            self.waiting_bytes += sample.data.len();
            self.waiting.push(sample);
            if self.waiting_bytes > MOST_WAITING {
                let reason = "a track begins too long after the others";
                return Err(failed(reason, Fault::Unsupported));
            }
            return self.open();
        }
        match &mut self.segmenter {
            Some(segmenter) => segmenter.push(sample).map_err(|error| write_failed(&error)),
            None => Ok(()),
        }
    }

    /// A track is complete.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn end(&mut self, track: usize) -> Result<(), Ending> {
        self.ended.insert(track);
        match &mut self.segmenter {
            Some(segmenter) => segmenter.end_track(track).map_err(|error| write_failed(&error)),
            None => self.open(),
        }
    }

    /// Makes the segmenter once every track has a format or has ended without a sample.
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
        let Some(output) = self.plan.output.hls().cloned() else {
            return Err(failed("progressive output isn't written here", Fault::Unsupported));
        };
        let Some(directory) = self.directory.take() else { return Ok(()) };
        let socket = Arc::clone(&self.socket);
        let observer = move |event| {
            let message = match event {
                hls::Event::Committing => WorkerToGateway::Committed,
                hls::Event::SegmentComplete { number, .. } => {
                    WorkerToGateway::SegmentComplete { number }
                }
            };
            let _ = session::send(socket.as_fd(), &message, &[]);
        };
        let mut segmenter = Segmenter::new(directory, output, tracks, &self.tag, observer)
            .map_err(|error| write_failed(&error))?;
        for sample in self.waiting.drain(..) {
            segmenter.push(sample).map_err(|error| write_failed(&error))?;
        }
        for track in &self.ended {
            if let Some(number) = numbers[*track] {
                segmenter.end_track(number).map_err(|error| write_failed(&error))?;
            }
        }
        self.segmenter = Some(segmenter);
        Ok(())
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
        let mut writer = Writer::new(
            &plan,
            BTreeSet::new(),
            directory.into(),
            "w".into(),
            Arc::new(socket.into()),
        );
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
