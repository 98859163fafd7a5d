//! Opening an input: which container it is, which streams it has, and when they begin.
//!
//! The demuxer runs alone first. Its pads drop what they carry while the first timestamps are
//! noted, then hold it back; the caller links its graph behind them, seeks (which puts back what
//! was dropped), and opens them.
//!
//! Invariant: after [`Source::open`] no data has left a pad, and none does until
//! [`Source::release`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ffmpeg_args::{StreamRef, StreamSelect};
use gstreamer as gst;
use gstreamer::prelude::*;
use session::Fault;

use crate::elements::FileSource;
use crate::frame_rate;
use crate::graph::SourceStream;
use crate::mpegts;
use crate::stages::{Chain, Clock, Demuxer, Stages};
use crate::timeline::signed_ns;

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

/// Picture, sound, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Picture.
    Video,
    /// Sound.
    Audio,
    /// Subtitles and the like.
    Other,
}

/// A demuxer's pad and what has been seen on it.
#[derive(Debug)]
struct Stream {
    pad: gst::Pad,
    probe: Option<gst::PadProbeId>,
    kind: Kind,
    times_ns: Vec<i64>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Seen {
    streams: Vec<Stream>,
    complete: bool,
    wanted: Vec<usize>,
    phase: Phase,
}

/// What happens to data on the pads of wanted streams. That of others is always dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// Noted and dropped.
    #[default]
    Looking,
    /// Held back.
    Holding,
    /// Let through.
    Open,
}

type Shared = Arc<(Mutex<Seen>, Condvar)>;

/// An opened input.
#[derive(Debug)]
pub struct Source {
    file: Arc<OwnedFd>,
    demux: gst::Element,
    clock: Clock,
    seen: Shared,
}

fn lock(shared: &Shared) -> MutexGuard<'_, Seen> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let demuxer = find_demuxer(stages, &file)?;
        let file = Arc::new(file);
        let reader: gst::Element = FileSource::new(Arc::clone(&file)).upcast();
        let demux = make(&demuxer.element)?;
        let seen = Shared::default();
        watch(&demux, &seen);
        pipeline
            .add_many([&reader, &demux])
            .and_then(|()| reader.link(&demux))
            .map_err(|error| worker_error(error.to_string()))?;
        let source = Self { file, demux, clock: demuxer.clock, seen };
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
                    let index = select(&seen.streams, *reference, *kind)?;
                    seen.wanted.push(index);
                }
            }
            let ready =
                seen.complete && seen.wanted.iter().all(|index| enough(&seen.streams[*index]));
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
        select(&lock(&self.seen).streams, reference, kind)
    }

    /// The pad of a stream.
    pub fn pad(&self, index: usize) -> gst::Pad {
        lock(&self.seen).streams[index].pad.clone()
    }

    /// A stream as the graph's description needs it.
    pub fn stream(&self, index: usize, stages: &Stages) -> SourceStream {
        let caps = self.caps(index);
        let structure = caps.structure(0);
        let find = |chains: &[Chain]| {
            chains.iter().position(|chain| {
                chain.caps.parse::<gst::Caps>().is_ok_and(|taken| taken.can_intersect(&caps))
            })
        };
        SourceStream {
            caps: structure.map_or_else(String::new, short_caps),
            decoder: find(&stages.decoders),
            copy: find(&stages.copies),
        }
    }

    fn caps(&self, index: usize) -> gst::Caps {
        let pad = self.pad(index);
        pad.current_caps().unwrap_or_else(|| pad.query_caps(None))
    }

    /// The frame rate that ffmpeg would take for a picture stream.
    pub fn frame_rate(&self, index: usize) -> Option<(u32, u32)> {
        let caps = self.caps(index);
        let stated = caps
            .structure(0)
            .and_then(|structure| structure.get::<gst::Fraction>("framerate").ok())
            .and_then(|rate| {
                Some((u32::try_from(rate.numer()).ok()?, u32::try_from(rate.denom()).ok()?))
            })
            .filter(|(numerator, denominator)| *numerator > 0 && *denominator > 0);
        let seen = lock(&self.seen);
        frame_rate::guess(stated, &seen.streams[index].times_ns)
    }

    /// What to add to the demuxer's stream time to get the container's own time, ns.
    pub fn clock_offset_ns(&self) -> i64 {
        if self.clock == Clock::Container {
            return 0;
        }
        let seen = lock(&self.seen);
        let raw = seen.streams.iter().find_map(|stream| {
            let first = stream.times_ns.first()?;
            let name = stream.pad.name();
            let pid = u16::from_str_radix(name.rsplit('_').next()?, 16).ok()?;
            Some(mpegts::first_pts_ns(self.file.as_fd(), pid)? - first)
        });
        raw.unwrap_or(0)
    }

    /// When the first picture or sound begins, in the demuxer's stream time, ns.
    pub fn start_ns(&self) -> i64 {
        let seen = lock(&self.seen);
        let streams = seen.streams.iter().filter(|stream| stream.kind != Kind::Other);
        streams.filter_map(|stream| stream.times_ns.iter().min().copied()).min().unwrap_or(0)
    }

    /// Goes to the last keyframe at or before a stream time and puts back what was dropped.
    ///
    /// # Errors
    /// If the demuxer refuses.
    pub fn seek(&self, index: usize, stream_ns: i64) -> Result<(), SourceError> {
        let target = gst::ClockTime::from_nseconds(stream_ns.max(0).unsigned_abs());
        let event = gst::event::Seek::new(
            1.0,
            gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_BEFORE,
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

/// Follows a demuxer's pads.
fn watch(demux: &gst::Element, shared: &Shared) {
    let seen = Arc::clone(shared);
    demux.connect_pad_added(move |_, pad| {
        let index = lock(&seen).streams.len();
        let shared = Arc::clone(&seen);
        let mask = gst::PadProbeType::BUFFER
            | gst::PadProbeType::BLOCK
            | gst::PadProbeType::EVENT_DOWNSTREAM;
        let kind = kind_of(pad);
        lock(&seen).streams.push(Stream {
            pad: pad.clone(),
            probe: None,
            kind,
            times_ns: Vec::new(),
            ended: false,
        });
        let probe = pad.add_probe(mask, move |pad, info| observe(&shared, index, pad, info));
        lock(&seen).streams[index].probe = probe;
    });
    let seen = Arc::clone(shared);
    demux.connect_no_more_pads(move |_| {
        lock(&seen).complete = true;
        seen.1.notify_all();
    });
}

/// One buffer or event on a watched pad: noted and dropped, or held back.
fn observe(
    shared: &Shared,
    index: usize,
    pad: &gst::Pad,
    info: &mut gst::PadProbeInfo<'_>,
) -> gst::PadProbeReturn {
    let mut seen = lock(shared);
    let phase = if seen.wanted.contains(&index) { seen.phase } else { Phase::Looking };
    let data = match &info.data {
        Some(gst::PadProbeData::Buffer(_)) => true,
        Some(gst::PadProbeData::Event(event)) => event.type_() == gst::EventType::Eos,
        _ => return gst::PadProbeReturn::Pass,
    };
    match &info.data {
        _ if !data || phase == Phase::Open => return gst::PadProbeReturn::Pass,
        _ if phase == Phase::Holding => return gst::PadProbeReturn::Ok,
        Some(gst::PadProbeData::Buffer(buffer)) => {
            let stream = &mut seen.streams[index];
            if stream.times_ns.len() < frame_rate::ENOUGH
                && let Some(time) = stream_time(pad, buffer)
            {
                stream.times_ns.push(time);
            }
        }
        _ => seen.streams[index].ended = true,
    }
    shared.1.notify_all();
    gst::PadProbeReturn::Drop
}

fn stream_time(pad: &gst::Pad, buffer: &gst::Buffer) -> Option<i64> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    Some(signed_ns(segment.to_stream_time_full(buffer.pts()?)?))
}

fn enough(stream: &Stream) -> bool {
    let needed = if stream.kind == Kind::Video { frame_rate::ENOUGH } else { 1 };
    stream.ended || stream.times_ns.len() >= needed
}

fn kind_of(pad: &gst::Pad) -> Kind {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    match caps.structure(0).map(|structure| structure.name().as_str()) {
        Some(name) if name.starts_with("video/") || name.starts_with("image/") => Kind::Video,
        Some(name) if name.starts_with("audio/") => Kind::Audio,
        _ => Kind::Other,
    }
}

/// ffmpeg counts all streams of a file together, in the order of the container's own table, which
/// is the order in which the demuxers show them.
fn select(streams: &[Stream], reference: StreamRef, kind: Kind) -> Result<usize, SourceError> {
    let name = match kind {
        Kind::Video => "video",
        Kind::Audio => "audio",
        Kind::Other => "subtitle",
    };
    match reference.stream {
        StreamSelect::Best => streams
            .iter()
            .position(|stream| stream.kind == kind)
            .ok_or_else(|| input_error(format!("the file has no {name} stream"))),
        StreamSelect::Index(index) => match streams.get(index as usize) {
            None => Err(input_error(format!(
                "stream {}:{index} is mapped, the file has {} streams",
                reference.input,
                streams.len()
            ))),
            Some(stream) if stream.kind != kind => Err(input_error(format!(
                "stream {}:{index} is mapped as {name}, it is {:?}",
                reference.input, stream.kind
            ))),
            Some(_) => Ok(index as usize),
        },
    }
}

fn find_demuxer<'a>(stages: &'a Stages, file: &OwnedFd) -> Result<&'a Demuxer, SourceError> {
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
    stages.demuxers.iter().find(|demuxer| demuxer.caps.contains(&media)).ok_or_else(|| {
        SourceError { message: format!("no demuxer for {media}"), fault: Fault::Unsupported }
    })
}

/// An element, or the sentence that says which is missing.
pub fn make(name: &str) -> Result<gst::Element, SourceError> {
    gst::ElementFactory::make(name).build().map_err(|_| SourceError {
        message: format!("GStreamer element {name} is missing; `./dev setup` installs its package"),
        fault: Fault::Unsupported,
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
