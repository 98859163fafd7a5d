//! Opening an input: which container it is, which streams it has, and when they begin.
//!
//! The demuxer runs alone first. Its pads drop what they carry while the first timestamps are
//! noted, then hold it back; the caller links its graph behind them, seeks (which puts back what
//! was dropped), and opens them. A network input has no place to seek to but its beginning, which
//! [`Reading`] keeps until then.
//!
//! Invariant: after [`Source::open`] no data has left a pad, and none does until
//! [`Source::release`].

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ffmpeg_args::{StreamRef, StreamSelect};
use gstreamer as gst;
use gstreamer::prelude::*;
use session::Fault;

use crate::best::{Candidate, best};
use crate::elements::FileSource;
use crate::pads::{self, LEAD_NS, Phase, Seen, Shared, lock};
use crate::reading::{ReadError, Reading};
use crate::stages::{Chain, Clock, Demuxer, SeekTo, SourceStream, Stages};
use crate::tracks::{self, Track};
use crate::{frame_rate, mpegts, parsed, succession};

pub use crate::pads::Kind;

/// Longest wait for a file to show its streams. A network input may come as late as it likes; how
/// much of it is looked at is bounded instead.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// What a keyframe's time may lose on its way to ns and back.
const SEEK_SLACK_NS: i64 = 1_000;
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
    reading: Arc<Reading>,
    demux: gst::Element,
    clock: Clock,
    seek: SeekTo,
    tracks: Option<Vec<Track>>,
    seen: Shared,
    /// Index of each wanted stream.
    chosen: Vec<((StreamRef, Kind), usize)>,
}

impl From<ReadError> for SourceError {
    fn from(error: ReadError) -> Self {
        let fault = match error {
            // ffmpeg can ask a server for any part of what it has.
            ReadError::TooLong | ReadError::GoneBy(_) => Fault::Unsupported,
            ReadError::System(_) | ReadError::Interrupted => Fault::Input,
        };
        Self { message: error.to_string(), fault }
    }
}

impl Source {
    /// Adds source and demuxer of an input to `pipeline`, and runs them until the streams named by
    /// `wanted` have shown when they begin.
    ///
    /// # Errors
    /// An input that no demuxer takes, that is broken, or that lacks a wanted stream.
    pub fn open(
        pipeline: &gst::Pipeline,
        stages: &Stages,
        reading: Arc<Reading>,
        wanted: &[(StreamRef, Kind)],
    ) -> Result<Self, SourceError> {
        let (demuxer, media) = find_demuxer(stages, &reading)?;
        if demuxer.clock == Clock::Mpegts
            && let Some(opening) = mpegts::opening(&reading)
        {
            reading.open_with(opening);
        }
        let tracks = tracks::read(&reading, &media);
        if tracks.iter().flatten().any(|track| track.edited) {
            // The demuxer begins such tracks between keyframes and ends their sound early.
            return Err(SourceError {
                message: "the file's edit list cuts into its tracks".into(),
                fault: Fault::Unsupported,
            });
        }
        let reader: gst::Element = FileSource::new(Arc::clone(&reading)).upcast();
        let demux = make(&demuxer.element)?;
        let seen = Shared::default();
        pads::watch(&demux, &seen, demuxer.clock != Clock::Container);
        pipeline
            .add_many([&reader, &demux])
            .and_then(|()| reader.link(&demux))
            .map_err(|error| worker_error(error.to_string()))?;
        let (clock, seek) = (demuxer.clock, demuxer.seek);
        let mut source = Self { reading, demux, clock, seek, tracks, seen, chosen: Vec::new() };
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
        let chosen = source.wait(pipeline, stages, wanted)?;
        source.chosen = wanted.iter().copied().zip(chosen).collect();
        Ok(source)
    }

    /// Waits until the wanted streams have shown enough; gives their indices.
    fn wait(
        &self,
        pipeline: &gst::Pipeline,
        stages: &Stages,
        wanted: &[(StreamRef, Kind)],
    ) -> Result<Vec<usize>, SourceError> {
        let bus = pipeline.bus().ok_or_else(|| worker_error("pipeline without bus"))?;
        let deadline = (!self.reading.is_pipe()).then(|| Instant::now() + OPEN_TIMEOUT);
        let mut seen = lock(&self.seen);
        loop {
            if seen.complete && seen.wanted.is_empty() {
                let found = wanted.iter().map(|(stream, kind)| self.find(&seen, *stream, *kind));
                let candidates = found.collect::<Result<Vec<_>, _>>()?;
                if candidates.iter().all(|candidates| comparable(&seen, candidates)) {
                    let chosen = candidates.iter().map(|few| self.best_of(&seen, few, stages));
                    seen.wanted = chosen.collect();
                }
            }
            let ready = seen.complete
                && seen.wanted.len() == wanted.len()
                && seen.wanted.iter().all(|index| pads::enough(&seen.streams[*index]));
            // What ends because it can't be read has not shown all that there is.
            if let Some(failure) = self.reading.failure() {
                return Err(failure.into());
            }
            if ready {
                seen.phase = Phase::Holding;
                self.seen.1.notify_all();
                return Ok(seen.wanted.clone());
            }
            seen.examined = seen.noted;
            drop(seen);
            self.seen.1.notify_all();
            if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
                return Err(self
                    .reading
                    .failure()
                    .map_or_else(|| input_error(describe_error(&message)), SourceError::from));
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
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

    /// Index of a wanted stream among the source's.
    ///
    /// # Errors
    /// If the source wasn't opened for it.
    pub fn select(&self, reference: StreamRef, kind: Kind) -> Result<usize, SourceError> {
        let own = self.chosen.iter().find(|(wanted, _)| *wanted == (reference, kind));
        own.map(|(_, index)| *index)
            .ok_or_else(|| worker_error(format!("{} wasn't looked for", kind.name())))
    }

    /// The stream that ffmpeg would take of several.
    fn best_of(&self, seen: &Seen, candidates: &[usize], stages: &Stages) -> usize {
        let candidate = |index: &usize| {
            let stream = &seen.streams[*index];
            Candidate {
                has_data: !stream.times_ns.is_empty(),
                is_default: self.track_of(&stream.pad).is_some_and(|track| track.is_default),
                size: size_of(stream, stages),
            }
        };
        let best = match candidates {
            [_] => Some(0),
            _ => best(&candidates.iter().map(candidate).collect::<Vec<_>>()),
        };
        candidates[best.unwrap_or(0)]
    }

    /// The streams that may be meant, at least one. ffmpeg counts all streams of a file together, in
    /// the order of the container's own table.
    fn find(
        &self,
        seen: &Seen,
        reference: StreamRef,
        kind: Kind,
    ) -> Result<Vec<usize>, SourceError> {
        let name = kind.name();
        let StreamSelect::Index(number) = reference.stream else {
            let all = seen.streams.iter().enumerate();
            let own: Vec<usize> =
                all.filter(|(_, stream)| stream.kind == kind).map(|(index, _)| index).collect();
            if own.is_empty() {
                return Err(input_error(format!("the file has no {name} stream")));
            }
            return Ok(own);
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
            Some(_) => Ok(vec![index]),
        }
    }

    /// Whether its bytes come once, and nobody knows how many.
    pub fn is_network(&self) -> bool {
        self.reading.is_pipe()
    }

    /// The pad of a stream.
    pub fn pad(&self, index: usize) -> gst::Pad {
        lock(&self.seen).streams[index].pad.clone()
    }

    /// A stream as the graph's description needs it.
    pub fn stream(&self, index: usize, stages: &Stages) -> SourceStream {
        let stated = self.caps(index);
        let decoder = chain_for(&stages.decoders, &stated);
        let caps = {
            let stream = &mut lock(&self.seen).streams[index];
            let caps = (stream.kind == Kind::Video).then(|| parsed_caps(stream, stages)).flatten();
            stream.head.clear();
            caps.unwrap_or_else(|| stated.clone())
        };
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
            copy: chain_for(&stages.copies, &stated),
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
            Some(mpegts::first_pts_ns(&self.reading, pid)? - stream.first_ns?)
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

    /// Where the demuxer has to go for a source time, ns, of a stream whose buffers are `offset_ns` away
    /// from that, in its stream time.
    pub fn seek_target_at_ns(&self, source_ns: i64, offset_ns: i64) -> i64 {
        let ahead = lock(&self.seen).streams.iter().map(|stream| stream.ahead_ns).min();
        // Demuxers round down what they have rounded down before.
        source_ns - offset_ns - LEAD_NS.cast_signed() - ahead.unwrap_or(0) + SEEK_SLACK_NS
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
        // What comes late is shown at once where the demuxer takes any amount.
        self.reading.go_on(self.clock == Clock::Mpegts);
        if self.clock == Clock::Mpegts {
            let pads: Vec<gst::Pad> = indices.iter().map(|index| self.pad(*index)).collect();
            succession::attend(&self.demux, &pads, &self.reading);
        }
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

/// Whether ffmpeg would have chosen among these by now: each has begun, or others have gone on without
/// it.
fn comparable(seen: &Seen, candidates: &[usize]) -> bool {
    candidates.len() == 1
        || candidates.iter().all(|index| pads::enough_to_compare(&seen.streams[*index]))
        || seen.streams.iter().any(pads::full)
}

/// Pixels of a picture or channels of a sound; 0 if nothing tells.
fn size_of(stream: &pads::Stream, stages: &Stages) -> u64 {
    let stated = stream.pad.current_caps().filter(parsed::sized);
    let Some(caps) = stated.or_else(|| parsed_caps(stream, stages)) else { return 0 };
    let field = |name| {
        let value = caps.structure(0)?.get::<i32>(name).ok()?;
        u64::try_from(value).ok()
    };
    field("width").zip(field("height")).map(|(w, h)| w * h).or(field("channels")).unwrap_or(0)
}

/// What the first buffers of a stream say of it.
fn parsed_caps(stream: &pads::Stream, stages: &Stages) -> Option<gst::Caps> {
    let stated = stream.pad.current_caps().unwrap_or_else(|| stream.pad.query_caps(None));
    let decoder = chain_for(&stages.decoders, &stated).filter(|_| !stream.head.is_empty())?;
    let parser = stages.decoders[decoder].chain.first()?;
    parsed::caps(&parser.element, &stated, &stream.head)
}

fn chain_for(chains: &[Chain], stated: &gst::Caps) -> Option<usize> {
    chains.iter().position(|chain| {
        chain.caps.parse::<gst::Caps>().is_ok_and(|taken| taken.can_intersect(stated))
    })
}

/// The demuxer for an input, and the media type that it was found by.
fn find_demuxer<'a>(
    stages: &'a Stages,
    reading: &Reading,
) -> Result<(&'a Demuxer, String), SourceError> {
    let mut head = vec![0; HEAD];
    let length = reading.read_at(0, &mut head)?;
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
