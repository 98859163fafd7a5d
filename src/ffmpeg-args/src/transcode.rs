//! From [`Arguments`] to a [`Transcode`], or to the reason why not.
//!
//! Invariant: a plan comes about only if every option of the run and of every file was taken by a
//! rule.

use std::ffi::OsString;

use crate::arguments::{Arguments, File, Setting, parse};
use crate::filters::{Segment, parse_graph};
use crate::inputs::{self, Source};
use crate::kinds::{Playback, playback};
use crate::memory::Memory;
use crate::overlay::Graph;
use crate::progressive;
use crate::select::{self, Streams};
use crate::subtitles::Timing;
use crate::turning::Mark;
use crate::unread::{ANY, BARE, Spellings, Unread, is_spelled, shown, value};
use crate::video::{self, Picture};
use crate::{
    Audio, AudioAction, Delivery, Location, Output, Passthrough, Plan, StreamRef, StreamSelect,
    Transcode, Turn, Verdict, Video, VideoAction, audio, network, output,
};

/// Options that are understood and not offered, wherever they stand.
const UNOFFERED: Spellings = &[
    ("lavfi", BARE),
    ("copypriorss", ANY),
    ("svtav1-params", ANY),
    ("mpegts_m2ts_mode", ANY),
    // Subtitles that are carried along in the file.
    ("codec", &["s", "s:0"]),
    ("c", &["s", "s:0"]),
    ("scodec", BARE),
    ("disposition", &["s", "s:0"]),
];

const VIDEO_SYNC: Spellings = &[("vsync", ANY), ("fps_mode", ANY)];
const GRAPH: Spellings = &[("filter_complex", BARE)];
const AUDIO_SYNC: Spellings = &[("async", BARE)];

/// Devices that a command opens. Whoever runs a plan opens its own.
const DEVICES: &[&str] = &["vaapi", "qsv", "opencl", "drm", "vulkan", "cuda"];

/// Decides about argv (without the program's name).
pub fn plan(argv: &[OsString]) -> Plan {
    match parse(argv).and_then(|arguments| transcode(&arguments)) {
        Ok(transcode) => Plan::Transcode(Box::new(transcode)),
        Err(passthrough) => Plan::Passthrough(passthrough),
    }
}

fn transcode(arguments: &Arguments) -> Verdict<Transcode> {
    let (output, playback) = playback(arguments)?;
    if arguments.inputs.is_empty() {
        return Err(Passthrough::unknown("no input"));
    }
    // First the causes that explain a command best; odd options come last.
    for file in &arguments.inputs {
        network::location(&file.url)?;
    }
    refuse_unoffered(arguments, output)?;
    let sources = arguments.inputs.iter().map(inputs::read).collect::<Verdict<Vec<Source>>>()?;
    let mut unread = Unread::new(&output.settings);
    let (mut run, times) = read_run(&arguments.globals, playback)?;
    let segments = read_graph(&mut run)?;
    let graph = segments.as_deref().map(Graph::resolve).transpose()?;
    let streams = select::read(&mut unread, sources.len(), graph.as_ref())?;
    refuse_renumbered(&sources, &streams)?;
    let (video, timing) = read_video(&mut unread, &sources, &streams, graph)?;
    let audio = match streams.audio {
        Some(source) => {
            let alone = playback == Playback::Music;
            Some(audio::read(&mut unread, source, &sources[source.input].input, alone)?)
        }
        None => None,
    };
    let shift = audio.as_ref().and_then(|sound| sound.shift_seconds);
    let audio = audio.map(|sound| sound.audio);
    check_times(&sources, &times, &timing, audio.as_ref(), shift)?;
    read_audio_sync(&mut run, audio.as_ref())?;
    let output =
        read_output(output, playback, &mut unread, &times, (video.as_ref(), audio.as_ref()))?;
    check_marks(&sources, video.as_ref(), &output)?;
    read_video_sync(&mut unread)?;
    unread.finish()?;
    run.finish()?;
    if let Some(setting) = arguments.trailing.first() {
        return Err(Passthrough::unknown(format!("{} behind the output", shown(setting))));
    }
    let inputs = sources.into_iter().map(|source| source.input).collect();
    let Times { source_times, start_at_zero } = times;
    Ok(Transcode { inputs, video, audio, start_at_zero, source_times, output })
}

/// The chains of `-filter_complex`. ffmpeg makes a graph of each, even of one that is repeated.
fn read_graph(run: &mut Unread<'_>) -> Verdict<Option<Vec<Segment>>> {
    match run.take_all(GRAPH)[..] {
        [] => Ok(None),
        [setting] => {
            let text = value(setting).ok_or_else(|| Passthrough::unknown(shown(setting)))?;
            parse_graph(text).map(Some)
        }
        _ => Err(Passthrough::unknown("-filter_complex twice")),
    }
}

fn read_video(
    unread: &mut Unread<'_>,
    sources: &[Source],
    streams: &Streams,
    graph: Option<Graph<'_>>,
) -> Verdict<(Option<Video>, Timing)> {
    let plane = graph.as_ref().and_then(Graph::plane);
    let canvas = plane.and_then(|plane| sources[plane.input].canvas);
    // Jellyfin gives the film the canvas of its subtitles, wherever they come from.
    let astray = |source: &Source| source.canvas.is_some() && source.canvas != canvas;
    if sources.iter().any(astray) {
        return Err(Passthrough::unknown("-canvas_size without subtitles to draw"));
    }
    let Some(source) = streams.video else { return Ok((None, Timing::default())) };
    let Source { memory, mark, .. } = sources[source.input];
    let picture = Picture { source, memory, mark, graph, canvas };
    video::read(unread, &picture).map(|(video, timing)| (Some(video), timing))
}

fn read_output(
    file: &File,
    playback: Playback,
    unread: &mut Unread<'_>,
    times: &Times,
    (video, audio): (Option<&Video>, Option<&Audio>),
) -> Verdict<Output> {
    let output = match playback {
        Playback::Hls => {
            let output = output::read(file, unread)?;
            output::check_streams(audio)?;
            return Ok(Output::Hls(output));
        }
        Playback::Film => progressive::film(file, unread, times.source_times)?,
        Playback::Music => progressive::music(file, unread, times.source_times)?,
    };
    progressive::check_streams(output.format, video, audio)?;
    Ok(Output::Progressive(output))
}

/// Text and what is drawn of it, picture and sound have one time.
fn check_times(
    sources: &[Source],
    times: &Times,
    timing: &Timing,
    audio: Option<&Audio>,
    audio_shift: Option<f64>,
) -> Verdict<()> {
    let start = sources[0].input.start_us;
    timing.check(start, times.source_times)?;
    let encoded = audio.is_some_and(|audio| matches!(audio.action, AudioAction::Encode(_)));
    if encoded && audio_shift != timing.shift_seconds {
        return Err(Passthrough::unknown("asetpts and setpts don't shift alike"));
    }
    // Without the source's times each input's count from where it is entered.
    if !times.source_times && sources.iter().any(|source| source.input.start_us != start) {
        return Err(Passthrough::unknown("inputs entered at different times without -copyts"));
    }
    Ok(())
}

/// How pictures are decoded and turned is said of the encoded picture's input alone, and MP4 must
/// not carry a mark on when the picture has been turned by it.
/// Whoever unpacks a network input numbers its streams anew.
fn refuse_renumbered(sources: &[Source], streams: &Streams) -> Verdict<()> {
    let renumbered = |stream: &StreamRef| {
        let network = match &sources[stream.input].input.location {
            Location::Network(network) => network,
            _ => return false,
        };
        network.delivery == Delivery::Remuxed && stream.stream != StreamSelect::Best
    };
    match [streams.video, streams.audio].iter().flatten().find(|stream| renumbered(stream)) {
        Some(stream) => {
            let reason = format!("numbered streams of the network input {}", stream.input);
            Err(Passthrough::feature(reason))
        }
        None => Ok(()),
    }
}

fn check_marks(sources: &[Source], video: Option<&Video>, output: &Output) -> Verdict<()> {
    let encode = video.and_then(|video| match &video.action {
        VideoAction::Encode(encode) => Some(encode),
        VideoAction::Copy => None,
    });
    let decoded = video.filter(|_| encode.is_some()).map(|video| video.source.input);
    for (index, source) in sources.iter().enumerate() {
        let plain = source.mark == Mark::Followed && source.memory == Memory::System;
        if decoded != Some(index) && !plain {
            let reason = format!("input {index} is set up for decoding on a GPU, and not decoded");
            return Err(Passthrough::unknown(reason));
        }
        let turned =
            encode.is_some_and(|encode| !matches!(encode.turn, Turn::AsMarked | Turn::Never));
        let kept = source.mark == Mark::Kept && output.is_mp4();
        if decoded == Some(index) && turned && kept {
            return Err(Passthrough::unknown(
                "a turned picture in MP4 without -display_rotation 0",
            ));
        }
    }
    Ok(())
}

fn refuse_unoffered(arguments: &Arguments, output: &File) -> Verdict<()> {
    let files = arguments.inputs.iter().chain([output]).flat_map(|file| &file.settings);
    for setting in arguments.globals.iter().chain(files) {
        if is_spelled(&setting.name, UNOFFERED) {
            return Err(Passthrough::feature(shown(setting)));
        }
    }
    Ok(())
}

/// What the output's times are.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// `-copyts`.
    source_times: bool,
    /// `-start_at_zero`.
    start_at_zero: bool,
}

/// Reads the options of the run. Segments always have the source's times, a file may.
fn read_run(globals: &[Setting], playback: Playback) -> Verdict<(Unread<'_>, Times)> {
    let mut run = Unread::new(globals);
    if !run.flag(&[("y", BARE)]) {
        return Err(Passthrough::unknown("no -y"));
    }
    let source_times = run.flag(&[("copyts", BARE)]);
    if playback == Playback::Hls && !source_times {
        return Err(Passthrough::unknown("no -copyts"));
    }
    run.flag(&[("hide_banner", BARE)]);
    for setting in run.take_all(&[("init_hw_device", BARE)]) {
        let device = value(setting).unwrap_or_default();
        let kind = device.split(['=', ':', '@', ',']).next().unwrap_or_default();
        if !DEVICES.contains(&kind) {
            return Err(Passthrough::unknown(shown(setting)));
        }
    }
    run.take_all(&[("filter_hw_device", BARE), ("vaapi_device", BARE), ("qsv_device", BARE)]);
    read_video_sync(&mut run)?;
    let start_at_zero = run.flag(&[("start_at_zero", BARE)]);
    if start_at_zero && !source_times {
        return Err(Passthrough::unknown("-start_at_zero without -copyts"));
    }
    Ok((run, Times { source_times, start_at_zero }))
}

/// `-async 1` fills the gap between zero and the first sound, and makes up for a start that drifts,
/// by a filter. Copied sound goes through none.
fn read_audio_sync(run: &mut Unread<'_>, audio: Option<&Audio>) -> Verdict<()> {
    let Some(setting) = run.take(AUDIO_SYNC)? else { return Ok(()) };
    let encoded = audio.is_some_and(|audio| matches!(audio.action, AudioAction::Encode(_)));
    match value(setting) {
        Some("1") if !encoded => Ok(()),
        Some("1") => Err(Passthrough::feature(format!("{} of encoded sound", shown(setting)))),
        _ => Err(Passthrough::unknown(shown(setting))),
    }
}

/// `-vsync` and `-fps_mode`: only what ffmpeg chooses by itself is offered.
fn read_video_sync(unread: &mut Unread<'_>) -> Verdict<()> {
    let Some(setting) = unread.take(VIDEO_SYNC)? else { return Ok(()) };
    match value(setting) {
        Some("-1" | "auto") => Ok(()),
        Some("0" | "1" | "2" | "passthrough" | "cfr" | "vfr" | "drop") => {
            Err(Passthrough::feature(shown(setting)))
        }
        _ => Err(Passthrough::unknown(shown(setting))),
    }
}
