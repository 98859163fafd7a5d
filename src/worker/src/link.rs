//! From a plan and its opened files to a linked pipeline that begins at the right place.
//!
//! What the plan says of time and rate (start, frame rate, keyframes, deinterlacing) is settled
//! here, from what the sources have shown; what it says of codecs is `graph`'s.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use ffmpeg_args::{
    Audio, AudioAction, AudioCodec, Deinterlace, Delivery, FileFormat, Keyframes, Location,
    Network, Output as Planned, StreamRef, StreamSelect, Subtitles, Transcode, VideoAction,
};
use gpu::{Device, Reason};
use gstreamer as gst;
use gstreamer::prelude::*;
use session::{Ending, Fault, SourcePicture};

use crate::admission::Asker;
use crate::cadence::Holes;
use crate::graph::{Graph, Host, describe};
use crate::key_sets::KeySets;
use crate::options::ways;
use crate::pace;
use crate::pads::LEAD_NS;
use crate::pipeline::{Begin, Output, TrackSettings, build_track};
use crate::reading::Reading;
use crate::seam::{Notes, REORDER_AHEAD_NS, SoundEncoder, State};
use crate::source::{Kind, Source, SourceError};
use crate::stages::{SourceStream, Stages};
use crate::subtitles::{self, Opening};
use crate::timeline::{Gate, Timeline};
use crate::turn::{Rotation, rotation};
use crate::writer::failed;
use crate::{swscale, vaapi};

/// Behind a seam subtitles are looked for from so long before on, ns; beside what they are anyway.
const SUBTITLES_AHEAD_NS: i64 = 20_000_000_000;
/// What a deinterlacer may look back, ns.
const DEINTERLACER_AHEAD_NS: i64 = 500_000_000;

/// What a stream may run on.
#[derive(Debug, Clone, Copy)]
pub struct Gpu<'a> {
    /// The GPUs, of which it takes one.
    pub devices: &'a [Device],
    /// Whether it may do without.
    pub software: bool,
}

/// What [`link`] begins with.
#[derive(Debug)]
pub struct Inputs {
    /// One for each input that a stream comes from.
    pub sources: Vec<Option<Source>>,
    /// What is burnt into the picture.
    pub subtitles: Option<Opening>,
    /// Where another worker has come to.
    pub begin: Option<State>,
    /// What another worker may have to know.
    pub notes: Option<Notes>,
}

/// What [`link`] has built.
pub struct Linked {
    /// `vaapi`, `mixed` or `software`.
    pub backend: &'static str,
    /// The node of the GPU, if a part of it is there.
    pub node: Option<PathBuf>,
    /// Why the picture isn't all on a GPU that there is.
    pub reason: Option<Reason>,
    /// The picture that goes in.
    pub source: Option<SourcePicture>,
    /// One line for people.
    pub description: String,
    /// Tracks that pass unchanged.
    pub copied: BTreeSet<usize>,
    /// When the first of the tracks should end, ns of source time, if the headers say.
    pub announced_end_ns: Option<i64>,
    /// Likewise the last.
    pub last_end_ns: Option<i64>,
    /// The encoder of the sound.
    pub sound_encoder: Option<SoundEncoder>,
}

/// Opens every input that a stream of the plan comes from.
pub fn open_sources(
    pipeline: &gst::Pipeline,
    stages: &Stages,
    plan: &Transcode,
    readings: &[Arc<Reading>],
) -> Result<Vec<Option<Source>>, Ending> {
    let wanted: Vec<(StreamRef, Kind)> = plan
        .video
        .iter()
        .map(|video| (video.source, Kind::Video))
        .chain(plan.audio.iter().map(|audio| (audio.source, Kind::Audio)))
        .collect();
    let mut sources = Vec::new();
    for (index, reading) in readings.iter().enumerate() {
        if let Location::Network(Network { delivery: Delivery::Remuxed, .. }) =
            &plan.inputs[index].location
            && wanted.iter().any(|(source, _)| is_numbered(*source, index))
        {
            let reason = "streams of an input that is unpacked by ffmpeg have other numbers";
            return Err(failed(reason, Fault::Unsupported));
        }
        if reading.is_pipe() && plan.inputs[index].start_us.is_some_and(|start| start > 0) {
            // ffmpeg asks the server for the place.
            return Err(failed("a network input isn't begun in its middle", Fault::Unsupported));
        }
        let here: Vec<_> =
            wanted.iter().copied().filter(|(source, _)| source.input == index).collect();
        sources.push(if here.is_empty() {
            None
        } else {
            Some(Source::open(pipeline, stages, Arc::clone(reading), &here)?)
        });
    }
    Ok(sources)
}

fn is_numbered(source: StreamRef, input: usize) -> bool {
    source.input == input && matches!(source.stream, StreamSelect::Index(_))
}

/// Builds the chains, links them, seeks, and opens the sources. How the picture is encoded is asked
/// before.
pub fn link(
    pipeline: &gst::Pipeline,
    stages: &Stages,
    plan: &Transcode,
    asker: &mut Asker<'_>,
    inputs: Inputs,
    gate: &Arc<Gate>,
    output: &SyncSender<Output>,
) -> Result<Linked, SourceError> {
    let gpu = asker.gpu;
    let sources = &inputs.sources[..];
    let find = |reference: StreamRef, kind| {
        let source = sources.get(reference.input).and_then(Option::as_ref);
        let source = source.ok_or_else(|| SourceError {
            message: format!("input {} is mapped and isn't there", reference.input),
            fault: Fault::Input,
        })?;
        Ok::<_, SourceError>((source, source.select(reference, kind)?))
    };
    let video = plan.video.as_ref().map(|video| find(video.source, Kind::Video)).transpose()?;
    let audio = plan.audio.as_ref().map(|audio| find(audio.source, Kind::Audio)).transpose()?;
    let stream = |found: &Option<(&Source, usize)>| {
        found.map(|(source, index)| source.stream(index, stages))
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut video_stream = stream(&video);
    if let (Some((source, index)), Some(stream)) = (&video, &mut video_stream) {
        stream.turn = turned(plan, source, *index)?;
    }
    let way = match (&video, &video_stream, plan.encoded_video()) {
        (Some((source, index)), Some(stream), Some(encode)) => {
            let ways = ways(stages, encode, gpu, stream, source.frame_rate(*index));
            if ways.is_empty() { None } else { Some(asker.ask(ways)?) }
        }
        _ => None,
    };
    let changed = way.as_ref().map(|way| way.plan(plan));
    let plan = changed.as_ref().unwrap_or(plan);
    let devices = way.as_ref().map_or(gpu.devices, |way| &way.devices);
    let device = device(stages, plan, devices, video_stream.as_ref());
    let host = Host { cores, hevc_in_slices: swscale::is_ffmpeg_7_1(), device };
    let graph = describe(stages, plan, host, video_stream.as_ref(), stream(&audio).as_ref())
        .map_err(|error| SourceError { message: error.to_string(), fault: Fault::Unsupported })?;
    if !gpu.software && graph.backend == "software" && encodes_video(plan) {
        let why = graph.reason.as_ref().map_or("there is no GPU", |reason| &reason.text);
        return Err(SourceError {
            message: format!("{why}, and the gateway wants no software"),
            fault: Fault::Unsupported,
        });
    }
    let mut burner = None;
    if let (Some(opening), Some((source, _))) = (inputs.subtitles, video) {
        let mut times = subtitle_times(plan, sources, source);
        if let Some(picture) = inputs.begin.as_ref().and_then(|state| state.picture) {
            times.start_ns = times.start_ns.max(picture.needs_ns - SUBTITLES_AHEAD_NS);
        }
        burner = Some(opening.begin(&times)?);
    }
    let mut copied = BTreeSet::new();
    let mut ends_ns: Vec<i64> = Vec::new();
    let mut sound_encoder = None;
    // Where each input has to be begun with, in its demuxer's time, ns.
    let mut targets: Vec<Option<i64>> = vec![None; sources.len()];
    let chains = [
        (&graph.video, video, plan.video.as_ref().map(|v| v.source.input)),
        (&graph.audio, audio, plan.audio.as_ref().map(|a| a.source.input)),
    ];
    let present = chains
        .into_iter()
        .filter_map(|(graph, found, input)| Some((graph.as_ref()?, found?, input?)));
    for (track, (chain, (source, index), input)) in present.enumerate() {
        let is_video = track == 0 && plan.video.is_some();
        let mut timeline = timeline(plan, input, source, index);
        if chain.copied && !encodes_video(plan) && plan.video.is_some() {
            // A copied picture begins before the start, at a keyframe; copied sound with it.
            timeline.start_ns = None;
        }
        gate.abreast.join(track, input);
        let settings = TrackSettings {
            track,
            timeline,
            rate: if is_video { video_rate(plan, source, index) } else { None },
            capped: is_video && cap(plan).is_some(),
            // It is the software deinterlacer that keeps the last field.
            holes: holes(plan),
            fields: is_video
                && !chain.decoded_on_gpu
                && deinterlacing(plan).is_some_and(|how| how.per_field),
            late_ns: if is_video && !chain.decoded_on_gpu {
                deinterlacer_ns(plan, source, index)
            } else {
                0
            },
            reorder: is_video && chain.copied && !source.has_dts(index),
            key_sets: if chain.copied { KeySets::of(&source.caps(index)) } else { None },
            keyframes_every: keyframes(plan),
            colorimetry: bt709(plan).then(|| "bt709".to_owned()),
            halve: is_video
                && chain.decoded_on_gpu
                && deinterlacing(plan).is_some_and(|how| !how.per_field),
            subtitles: burner.clone().filter(|_| is_video),
            gate: Arc::clone(gate),
            notes: inputs.notes.clone(),
            begin: begin(inputs.begin.as_ref(), is_video),
        };
        if chain.copied {
            copied.insert(track);
        } else if !is_video {
            let is_lame = plan.audio.as_ref().is_some_and(encodes_mp3);
            sound_encoder = Some(SoundEncoder { priming: chain.priming, is_lame });
        }
        let read_from = inputs.begin.as_ref().and_then(|state| {
            let from = state.read_from_ns(is_video, chain.copied)?;
            let ahead = if settings.reorder {
                REORDER_AHEAD_NS
            } else if is_video && deinterlacing(plan).is_some() {
                DEINTERLACER_AHEAD_NS
            } else {
                0
            };
            Some(from - ahead)
        });
        if let Some(from) = read_from {
            let target = source.seek_target_at_ns(from, settings.timeline.offset_ns);
            targets[input] = targets[input].into_iter().chain([target]).min();
        }
        ends_ns.extend(announced_end(source, index, &settings.timeline));
        let sink = build_track(pipeline, chain, &settings, output)?;
        if let Some(rate) = plan.inputs[input].read_rate.filter(|rate| *rate > 0.0) {
            let start_ns = settings.timeline.start_ns.max(read_from);
            pace::attend(&sink, Timeline { start_ns, ..settings.timeline }, rate, gate);
        }
        source.pad(index).link(&sink).map_err(|error| SourceError {
            message: format!("can't link {}: {error}", chain.one_line()),
            fault: Fault::Worker,
        })?;
    }
    for (number, source) in sources.iter().enumerate() {
        let Some(source) = source else { continue };
        let here: Vec<usize> = [&video, &audio]
            .into_iter()
            .flatten()
            .filter(|(of, _)| std::ptr::eq(*of, source))
            .map(|(_, index)| *index)
            .collect();
        let first = here.first().copied().unwrap_or(0);
        let start = source.seek_target_ns(plan.inputs[number].start_us);
        source.seek(first, targets[number].map_or(start, |target| target.max(start)))?;
        source.release(&here);
    }
    Ok(Linked {
        backend: graph.backend,
        description: one_line(&graph),
        node: device.filter(|_| graph.backend != "software").map(|device| device.node.clone()),
        reason: graph.reason,
        source: video_stream.as_ref().map(source_picture),
        copied,
        announced_end_ns: ends_ns.iter().min().copied(),
        last_end_ns: ends_ns.iter().max().copied(),
        sound_encoder,
    })
}

/// What is told of the source's picture.
fn source_picture(stream: &SourceStream) -> SourcePicture {
    let (kind, fields) = stream.caps.split_once(',').unwrap_or((&stream.caps, ""));
    let codec = match kind {
        "video/x-h264" => "h264",
        "video/x-h265" => "hevc",
        "video/x-vp8" => "vp8",
        "video/x-vp9" => "vp9",
        "video/x-av1" => "av1",
        "video/mpeg" if fields.contains("mpegversion=(int)4") => "mpeg4",
        "video/mpeg" if fields.contains("mpegversion=(int)1") => "mpeg1video",
        "video/mpeg" => "mpeg2video",
        "video/x-wmv" => "vc1",
        other => other.trim_start_matches("video/").trim_start_matches("x-"),
    };
    SourcePicture { codec: codec.to_owned(), size: stream.size }
}

/// Where a track begins behind a seam.
fn begin(state: Option<&State>, is_video: bool) -> Begin {
    let Some(state) = state else { return Begin::default() };
    let (picture, sound) = if is_video { (state.picture, None) } else { (None, state.sound) };
    Begin { picture, sound, depth: state.depth }
}

fn encodes_mp3(audio: &Audio) -> bool {
    matches!(&audio.action, AudioAction::Encode(encode) if encode.codec == AudioCodec::Mp3)
}

/// The GPU for the picture, if it is encoded.
fn device<'d>(
    stages: &Stages,
    plan: &Transcode,
    devices: &'d [Device],
    video: Option<&SourceStream>,
) -> Option<&'d Device> {
    let VideoAction::Encode(encode) = &plan.video.as_ref()?.action else { return None };
    vaapi::best(stages.gpu.as_ref()?, devices, encode, video?)
}

/// How the picture is turned.
fn turned(
    plan: &Transcode,
    source: &Source,
    index: usize,
) -> Result<Option<Rotation>, SourceError> {
    let Some(VideoAction::Encode(encode)) = plan.video.as_ref().map(|video| &video.action) else {
        return Ok(None);
    };
    let mp4 = plan.output.is_mp4();
    rotation(encode.turn, source.orientation(index).as_deref(), mp4).map_err(|mark| SourceError {
        message: format!("the picture is marked {mark}, which isn't applied here"),
        fault: Fault::Unsupported,
    })
}

/// When a stream should end by its file's header, ns of source time.
fn announced_end(source: &Source, index: usize, timeline: &Timeline) -> Option<i64> {
    if source.is_network() {
        // What has come so far says nothing of the end.
        return None;
    }
    let length = source.pad(index).query_duration::<gst::ClockTime>()?;
    Some(length.nseconds().cast_signed() + LEAD_NS.cast_signed() + timeline.offset_ns)
}

fn one_line(graph: &Graph) -> String {
    let tracks = [&graph.video, &graph.audio];
    let lines: Vec<String> = tracks
        .into_iter()
        .flatten()
        .map(|track| if track.copied { "copy".to_owned() } else { track.one_line() })
        .collect();
    lines.join(", ")
}

/// Source time of an input's streams, and where output begins.
fn timeline(plan: &Transcode, input: usize, source: &Source, index: usize) -> Timeline {
    let first = source.start_ns();
    // `-ss` counts from the container's first timestamp (contract 2.1.1).
    let start = plan.inputs[input].start_us.map(|start| start as i64 * 1000 + first);
    let zero = match (plan.source_times, plan.start_at_zero) {
        (true, true) => first,
        (true, false) => 0,
        (false, _) => start.unwrap_or(first),
    };
    let start = start.map(|start| start - zero);
    Timeline {
        offset_ns: source.buffer_offset_ns(index) - zero,
        start_ns: start.filter(|_| plan.inputs[input].accurate),
    }
}

/// ffmpeg's `-fps_mode auto`, by what the muxer can do and by `-copyts`.
fn holes(plan: &Transcode) -> Holes {
    match &plan.output {
        Planned::Progressive(output) if output.format != FileFormat::FragmentedMp4 => Holes::Kept,
        _ if plan.source_times => Holes::Filled,
        _ => Holes::FilledFromZero,
    }
}

/// How the times of subtitles relate to those of the picture, which comes from `source`.
fn subtitle_times(
    plan: &Transcode,
    sources: &[Option<Source>],
    source: &Source,
) -> subtitles::Times {
    let input = plan.video.as_ref().map_or(0, |video| video.source.input);
    let first_of = |source: Option<&Source>| source.map_or(0, Source::start_ns);
    let start_of = |input: usize| plan.inputs[input].start_us.unwrap_or(0).cast_signed() * 1000;
    let encode = plan.encoded_video().and_then(|encode| encode.subtitles.as_ref());
    let (shift_ns, other) = match encode {
        // The filter behind is said to undo what the times of text and picture differ by.
        Some(Subtitles::Text(text)) => ((text.shift_seconds * 1e9) as i64, input),
        Some(Subtitles::Pictures(pictures)) => (0, pictures.source.input),
        None => (0, input),
    };
    let first_other = first_of(sources.get(other).and_then(Option::as_ref));
    if plan.source_times {
        let zero_of = |first: i64| if plan.start_at_zero { first } else { 0 };
        let first = source.start_ns();
        let start_ns = start_of(input) + first - zero_of(first);
        subtitles::Times { to_text_ns: 0, to_container_ns: zero_of(first_other), start_ns }
    } else {
        // Each input's times count from where it begins to be read.
        let to_container_ns = first_other + start_of(other);
        subtitles::Times { to_text_ns: shift_ns, to_container_ns, start_ns: 0 }
    }
}

fn keyframes(plan: &Transcode) -> Option<f64> {
    match &plan.video.as_ref()?.action {
        VideoAction::Encode(encode) => match encode.keyframes {
            Keyframes::Every(seconds) => Some(seconds),
            Keyframes::EveryFrames(_) => None,
        },
        VideoAction::Copy => None,
    }
}

fn encodes_video(plan: &Transcode) -> bool {
    plan.video.as_ref().is_some_and(|video| matches!(video.action, VideoAction::Encode(_)))
}

/// Whether the command says that the picture's colours are those of HD television.
fn bt709(plan: &Transcode) -> bool {
    match plan.video.as_ref().map(|video| &video.action) {
        Some(VideoAction::Encode(encode)) => {
            encode.colour.as_ref().is_some_and(|tags| tags.matrix == "bt709")
        }
        _ => false,
    }
}

/// The frame rate that the command sets.
fn cap(plan: &Transcode) -> Option<(u32, u32)> {
    match &plan.video.as_ref()?.action {
        VideoAction::Encode(encode) => encode.frame_rate,
        VideoAction::Copy => None,
    }
}

fn deinterlacing(plan: &Transcode) -> Option<Deinterlace> {
    match &plan.video.as_ref()?.action {
        VideoAction::Encode(encode) => encode.deinterlace,
        VideoAction::Copy => None,
    }
}

/// GStreamer's yadif stamps each picture with the time of the frame that comes after it.
fn deinterlacer_ns(plan: &Transcode, source: &Source, index: usize) -> i64 {
    let rate = source.frame_rate(index).filter(|_| deinterlacing(plan).is_some());
    rate.map_or(0, |(frames, seconds)| i64::from(seconds) * 1_000_000_000 / i64::from(frames))
}

/// The output's frame rate: the plan's, else the source's, doubled if fields become frames.
fn video_rate(plan: &Transcode, source: &Source, index: usize) -> Option<(u32, u32)> {
    if let Some(rate) = cap(plan) {
        return Some(rate);
    }
    let (numerator, denominator) = source.frame_rate(index)?;
    let doubled = deinterlacing(plan).is_some_and(|how| how.per_field);
    Some((if doubled { numerator * 2 } else { numerator }, denominator))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_have_the_names_of_ffmpeg() {
        let check = |caps: &str, expect: &str| {
            let stream = SourceStream {
                caps: caps.into(),
                decoder: None,
                copy: None,
                gpu_decoder: None,
                size: Some((1920, 800)),
                turn: None,
            };
            let picture = source_picture(&stream);
            assert_eq!((picture.codec.as_str(), picture.size), (expect, Some((1920, 800))));
        };
        check("video/x-h265, stream-format=(string)hvc1", "hevc");
        check("video/x-h264", "h264");
        check("video/mpeg, mpegversion=(int)2, systemstream=(boolean)false", "mpeg2video");
        check("video/mpeg, mpegversion=(int)4", "mpeg4");
        check("video/x-theora", "theora");
    }
}
