//! Opening an input: which container it is, which streams it has, and when they begin.
//!
//! The demuxer runs alone first. Its pads drop what they carry while the first timestamps are
//! noted, then hold it back; the caller links its graph behind them, seeks (which puts back what
//! was dropped), and opens them.
//!
//! Invariant: after [`Source::open`] no data has left a pad, and none does until
//! [`Source::release`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ffmpeg_args::{StreamRef, StreamSelect};
use gstreamer as gst;
use gstreamer::prelude::*;
use session::Fault;

use crate::elements::FileSource;
use crate::pads::{self, LEAD_NS, Phase, Seen, Shared, lock};
use crate::stages::{Chain, Clock, Demuxer, SeekTo, SourceStream, Stages};
use crate::tracks::{self, Track};
use crate::{frame_rate, mpegts, parsed};

pub use crate::pads::Kind;

/// Longest wait for a file to show its streams.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that type finding looks at; MPEG-TS wants several packets.
const HEAD: usize = 64 * 1024;

/// Why an input can't be used: a sentence, and whose fault it is.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// For people.
    pub message: String,
    /// Whose fault.
    pub fault: Fault,
}

fn input_error(message: impl Into<String>) -> SourceError {
    SourceError { message: message.into(), fault: Fault::Input }
}

/// An opened input.
#[derive(Debug)]
pub struct Source {
    file: Arc<OwnedFd>,
    demux: gst::Element,
    clock: Clock,
    seek: SeekTo,
    tracks: Option<Vec<Track>>,
    seen: Shared,
}

impl Source {
    /// Adds source and demuxer of a file to `pipeline`, and runs them until the streams named by
    /// `wanted` have shown when they begin.
    ///
    /// # Errors
    /// A file that no demuxer takes, that is broken, or that lacks a wanted stream.
    pub fn open(
        pipeline: &gst::Pipeline,
        stages: &Stages,
        file: OwnedFd,
        wanted: &[(StreamRef, Kind)],
    ) -> Result<Self, SourceError> {
        let (demuxer, media) = find_demuxer(stages, &file)?;
        let tracks = tracks::read(file.as_fd(), &media);
        if tracks.iter().flatten().any(|track| track.edited) {
            // The demuxer begins such tracks between keyframes and ends their sound early.
            return Err(SourceError {
                message: "the file's edit list cuts into its tracks".into(),
                fault: Fault::Unsupported,
            });
        }
        let file = Arc::new(file);
        let reader: gst::Element = FileSource::new(Arc::clone(&file)).upcast();
        let demux = make(&demuxer.element)?;
        let seen = Shared::default();
        pads::watch(&demux, &seen, demuxer.clock != Clock::Container);
        pipeline
            .add_many([&reader, &demux])
            .and_then(|()| reader.link(&demux))
            .map_err(|error| worker_error(error.to_string()))?;
        let (clock, seek) = (demuxer.clock, demuxer.seek);
        let source = Self { file, demux, clock, seek, tracks, seen };
        // A demuxer asks while it starts whether it may pull; a source that isn't ready says no,
        // and a demuxer that is pushed to can't seek by itself.
        let states = [
            (&reader, gst::State::Ready),
            (&source.demux, gst::State::Paused),
            (&reader, gst::State::Paused),
        ];
        for (element, state) in states {
            element
                .set_state(state)
                .map_err(|_| input_error(format!("{} can't read the file", demuxer.element)))?;
        }
        source.wait(pipeline, wanted)?;
        Ok(source)
    }

    fn wait(
        &self,
        pipeline: &gst::Pipeline,
        wanted: &[(StreamRef, Kind)],
    ) -> Result<(), SourceError> {
        let bus = pipeline.bus().ok_or_else(|| worker_error("pipeline without bus"))?;
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let mut seen = lock(&self.seen);
        loop {
            if seen.complete && seen.wanted.is_empty() {
                for (reference, kind) in wanted {
                    let index = self.find(&seen, *reference, *kind)?;
                    seen.wanted.push(index);
                }
            }
            let ready = seen.complete
                && seen.wanted.iter().all(|index| pads::enough(&seen.streams[*index]));
            if ready {
                seen.phase = Phase::Holding;
                return Ok(());
            }
            drop(seen);
            if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
                return Err(input_error(describe_error(&message)));
            }
            if Instant::now() > deadline {
                return Err(input_error(format!(
                    "no streams found within {} s",
                    OPEN_TIMEOUT.as_secs()
                )));
            }
            let guard = lock(&self.seen);
            // Errors come on the bus without a notification here, hence the short wait.
            (seen, _) = self
                .seen
                .1
                .wait_timeout(guard, Duration::from_millis(5))
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Index of a stream among the source's.
    ///
    /// # Errors
    /// If it isn't there or of another kind.
    pub fn select(&self, reference: StreamRef, kind: Kind) -> Result<usize, SourceError> {
        self.find(&lock(&self.seen), reference, kind)
    }

    /// ffmpeg counts all streams of a file together, in the order of the container's own table.
    fn find(&self, seen: &Seen, reference: StreamRef, kind: Kind) -> Result<usize, SourceError> {
        let name = kind.name();
        let StreamSelect::Index(number) = reference.stream else {
            return seen
                .streams
                .iter()
                .position(|stream| stream.kind == kind)
                .ok_or_else(|| input_error(format!("the file has no {name} stream")));
        };
        let wanted = format!("stream {}:{number} is mapped", reference.input);
        let index = match &self.tracks {
            Some(tracks) => {
                let track = tracks.get(number as usize).ok_or_else(|| {
                    input_error(format!("{wanted}, the file has {} streams", tracks.len()))
                })?;
                let own = |stream: &pads::Stream| self.id_of(&stream.pad) == Some(track.id);
                seen.streams.iter().position(own).ok_or_else(|| {
                    input_error(format!("{wanted} as {name}, it is of no known kind"))
                })?
            }
            None => number as usize,
        };
        match seen.streams.get(index) {
            None => {
                Err(input_error(format!("{wanted}, the file has {} streams", seen.streams.len())))
            }
            Some(stream) if stream.kind != kind => {
                Err(input_error(format!("{wanted} as {name}, it is {}", stream.kind.name())))
            }
            Some(_) => Ok(index),
        }
    }

    /// The pad of a stream.
    pub fn pad(&self, index: usize) -> gst::Pad {
        lock(&self.seen).streams[index].pad.clone()
    }

    /// A stream as the graph's description needs it.
    pub fn stream(&self, index: usize, stages: &Stages) -> SourceStream {
        let stated = self.caps(index);
        let find = |chains: &[Chain]| {
            chains.iter().position(|chain| {
                chain.caps.parse::<gst::Caps>().is_ok_and(|taken| taken.can_intersect(&stated))
            })
        };
        let decoder = find(&stages.decoders);
        let parser = decoder.and_then(|index| stages.decoders[index].chain.first());
        let head = std::mem::take(&mut lock(&self.seen).streams[index].head);
        let caps = parser
            .filter(|_| !head.is_empty())
            .and_then(|parser| parsed::caps(&parser.element, &stated, &head))
            .unwrap_or_else(|| stated.clone());
        let structure = caps.structure(0);
        // A decoder on a GPU is only for streams that say all it has to know.
        let certain = |chain: &Chain| {
            chain.caps.parse::<gst::Caps>().is_ok_and(|taken| caps.is_subset(&taken))
        };
        let gpu_decoder = stages
            .gpu
            .as_ref()
            .and_then(|gpu| gpu.decoders.iter().position(|decoder| certain(&decoder.chain)));
        let pixels = |field| u32::try_from(structure?.get::<i32>(field).ok()?).ok();
        SourceStream {
            caps: structure.map_or_else(String::new, short_caps),
            gpu_decoder,
            size: pixels("width").zip(pixels("height")),
            turn: None,
            decoder,
            copy: find(&stages.copies),
        }
    }

    /// What the demuxer says that a stream is.
    pub fn caps(&self, index: usize) -> gst::Caps {
        let pad = self.pad(index);
        pad.current_caps().unwrap_or_else(|| pad.query_caps(None))
    }

    /// The frame rate that ffmpeg would take for a picture stream, if its timestamps tell.
    pub fn frame_rate(&self, index: usize) -> Option<(u32, u32)> {
        let seen = lock(&self.seen);
        let stream = &seen.streams[index];
        let track = self.track_of(&stream.pad);
        let stated = match (self.clock, &track) {
            // MP4's demuxer states an average; the table knows whether all frames are alike.
            (Clock::Container, Some(track)) => track.rate,
            _ => stated_rate(&stream.pad),
        };
        let timescale = track.and_then(|track| track.timescale);
        frame_rate::guess(stated, &stream.times_ns, timescale)
    }

    /// Whether a stream's buffers say when they are to be decoded.
    pub fn has_dts(&self, index: usize) -> bool {
        lock(&self.seen).streams[index].has_dts
    }

    /// How a picture stream says that it is to be turned or mirrored for display, in the words of
    /// GStreamer's `image-orientation`.
    pub fn orientation(&self, index: usize) -> Option<String> {
        let pad = self.pad(index);
        let tags = (0..).map_while(|number| pad.sticky_event::<gst::event::Tag>(number));
        let mut orientations =
            tags.filter_map(|event| event.tag_owned().get::<gst::tags::ImageOrientation>());
        Some(orientations.next()?.get().to_owned())
    }

    fn track_of(&self, pad: &gst::Pad) -> Option<&Track> {
        let id = self.id_of(pad)?;
        self.tracks.as_ref()?.iter().find(|track| track.id == id)
    }

    /// A stream's number in the container, which demuxers put at the end of its stream id
    /// (Matroska's adds another behind a colon).
    fn id_of(&self, pad: &gst::Pad) -> Option<u64> {
        let name = pad.stream_id()?;
        let own = name.rsplit('/').next()?.split(':').next()?;
        u64::from_str_radix(own, if self.clock == Clock::Mpegts { 16 } else { 10 }).ok()
    }

    /// What to add to the stream time of a stream's buffers to get the container's own time, ns.
    pub fn buffer_offset_ns(&self, index: usize) -> i64 {
        // Opus' decoder leaves out by itself what the encoder put before the sound.
        let opus = self.caps(index).structure(0).is_some_and(|caps| caps.name() == "audio/x-opus");
        let delay = if opus { 0 } else { self.delay_ns(&self.pad(index)) };
        self.clock_offset_ns() - LEAD_NS as i64 - delay
    }

    fn delay_ns(&self, pad: &gst::Pad) -> i64 {
        self.track_of(pad).map_or(0, |track| track.delay_ns)
    }

    /// What the container's own time is ahead of the demuxer's, ns.
    fn clock_offset_ns(&self) -> i64 {
        if self.clock != Clock::Mpegts {
            return 0;
        }
        let seen = lock(&self.seen);
        let raw = seen.streams.iter().find_map(|stream| {
            let name = stream.pad.name();
            let pid = u16::from_str_radix(name.rsplit('_').next()?, 16).ok()?;
            Some(mpegts::first_pts_ns(self.file.as_fd(), pid)? - stream.first_ns?)
        });
        raw.unwrap_or(0)
    }

    /// When the first picture or sound begins, in the container's own time, ns.
    pub fn start_ns(&self) -> i64 {
        self.first_ns() + self.clock_offset_ns()
    }

    fn first_ns(&self) -> i64 {
        let seen = lock(&self.seen);
        let streams = seen.streams.iter().filter(|stream| stream.kind != Kind::Other);
        let first = streams
            .filter_map(|stream| Some(stream.times_ns.iter().min()? - self.delay_ns(&stream.pad)));
        first.min().unwrap_or(0)
    }

    /// Where the demuxer has to go for `-ss`, in its stream time, ns; the start of the file without
    /// one.
    pub fn seek_target_ns(&self, start_us: Option<u64>) -> i64 {
        let Some(start) = start_us.filter(|start| *start > 0) else { return 0 };
        let ahead = lock(&self.seen).streams.iter().map(|stream| stream.ahead_ns).min();
        start as i64 * 1000 + self.first_ns() - ahead.unwrap_or(0)
    }

    /// Goes to the last keyframe at or before a stream time and puts back what was dropped.
    ///
    /// # Errors
    /// If the demuxer refuses.
    pub fn seek(&self, index: usize, stream_ns: i64) -> Result<(), SourceError> {
        let target = gst::ClockTime::from_nseconds(stream_ns.max(0).unsigned_abs());
        let place = match self.seek {
            SeekTo::Keyframe => gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_BEFORE,
            SeekTo::Exact => gst::SeekFlags::ACCURATE,
        };
        let event = gst::event::Seek::new(
            1.0,
            gst::SeekFlags::FLUSH | place,
            gst::SeekType::Set,
            target,
            gst::SeekType::None,
            gst::ClockTime::NONE,
        );
        if self.pad(index).send_event(event) {
            Ok(())
        } else {
            Err(input_error(format!("can't seek to {target}")))
        }
    }

    /// Lets the data of the given streams pass; the other streams' goes nowhere.
    pub fn release(&self, indices: &[usize]) {
        let mut seen = lock(&self.seen);
        seen.phase = Phase::Open;
        seen.streams.iter_mut().for_each(|stream| stream.head.clear());
        let mut probes = Vec::new();
        for index in indices {
            let stream = &mut seen.streams[*index];
            probes.extend(stream.probe.take().map(|probe| (stream.pad.clone(), probe)));
        }
        drop(seen);
        // A probe's removal waits for its callback, which takes the lock.
        for (pad, probe) in probes {
            pad.remove_probe(probe);
        }
    }
}

/// The frame rate in a pad's caps.
fn stated_rate(pad: &gst::Pad) -> Option<(u32, u32)> {
    let caps = pad.current_caps()?;
    let rate = caps.structure(0)?.get::<gst::Fraction>("framerate").ok()?;
    let (numerator, denominator) = (rate.numer().try_into().ok()?, rate.denom().try_into().ok()?);
    (numerator > 0 && denominator > 0).then_some((numerator, denominator))
}

/// The demuxer for a file, and the media type that it was found by.
fn find_demuxer<'a>(
    stages: &'a Stages,
    file: &OwnedFd,
) -> Result<(&'a Demuxer, String), SourceError> {
    let mut head = vec![0; HEAD];
    let length = rustix::io::pread(file, &mut head, 0)
        .map_err(|error| input_error(format!("can't read the file: {error}")))?;
    if length == 0 {
        return Err(input_error("the file is empty"));
    }
    let (caps, _) = gstreamer_base::type_find_helper_for_data(gst::Object::NONE, &head[..length])
        .map_err(|_| input_error("the file is of no known container format"))?;
    let media =
        caps.structure(0).map_or_else(String::new, |structure| structure.name().to_string());
    let takes = |demuxer: &&Demuxer| {
        let mut known = demuxer.caps.iter();
        known.any(|known| known.parse::<gst::Caps>().is_ok_and(|known| known.can_intersect(&caps)))
    };
    let demuxer = stages.demuxers.iter().find(takes).ok_or_else(|| SourceError {
        message: format!("no demuxer for {media}"),
        fault: Fault::Unsupported,
    })?;
    Ok((demuxer, media))
}

/// An element, or the sentence that says which is missing.
pub fn make(name: &str) -> Result<gst::Element, SourceError> {
    gst::ElementFactory::make(name).build().map_err(|_| {
        if name.starts_with("va") {
            // It was there when the gateway looked at the GPU.
            let message = format!("{name} is gone, and with it the GPU or its driver");
            return SourceError { message, fault: Fault::Device };
        }
        let message =
            format!("GStreamer element {name} is missing; `./dev setup` installs its package");
        SourceError { message, fault: Fault::Unsupported }
    })
}

fn worker_error(message: impl Into<String>) -> SourceError {
    SourceError { message: message.into(), fault: Fault::Worker }
}

/// The text of an error message, with the element it came from.
pub fn describe_error(message: &gst::Message) -> String {
    match message.view() {
        gst::MessageView::Error(error) => {
            let from = message.src().map_or_else(String::new, |src| format!("{}: ", src.name()));
            let debug = error.debug().map_or_else(String::new, |debug| {
                debug.lines().last().map_or_else(String::new, |line| format!(" ({line})"))
            });
            format!("{from}{}{debug}", error.error())
        }
        other => format!("{other:?}"),
    }
}

fn short_caps(structure: &gst::StructureRef) -> String {
    let mut short = structure.to_owned();
    for field in ["codec_data", "streamheader"] {
        short.remove_field(field);
    }
    short.to_string().trim_end_matches(';').to_owned()
}
