//! From [`Arguments`] to a [`Transcode`], or to the reason why not.
//!
//! Invariant: a plan comes about only if every option of the run and of every file was taken by a
//! rule.

use std::ffi::OsString;

use crate::arguments::{Arguments, File, Setting, parse};
use crate::inputs::{self, Source};
use crate::kinds::{AUDIO_CODEC, VIDEO_CODEC, hls_output};
use crate::memory::Memory;
use crate::numbers::whole;
use crate::turning::Mark;
use crate::unread::{ANY, BARE, Spellings, Unread, is_spelled, shown, value};
use crate::video::{self, Picture};
use crate::{
    Output, Passthrough, Plan, StreamRef, StreamSelect, Transcode, Turn, Verdict, Video,
    VideoAction, audio, output,
};

/// Options that are understood and not offered, wherever they stand.
const UNOFFERED: Spellings = &[
    ("filter_complex", BARE),
    ("lavfi", BARE),
    ("canvas_size", ANY),
    ("re", BARE),
    ("readrate", BARE),
    ("readrate_catchup", BARE),
    ("readrate_initial_burst", BARE),
    ("stream_loop", BARE),
    ("async", BARE),
    ("copypriorss", ANY),
    ("svtav1-params", ANY),
];

const VIDEO_SYNC: Spellings = &[("vsync", ANY), ("fps_mode", ANY)];
const MAP: Spellings = &[("map", BARE)];

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
    let output = hls_output(arguments)?;
    if arguments.inputs.is_empty() {
        return Err(Passthrough::unknown("no input"));
    }
    // First the causes that explain a command best; odd options come last.
    for file in &arguments.inputs {
        inputs::local_path(&file.url)?;
    }
    refuse_unoffered(arguments, output)?;
    let sources = arguments.inputs.iter().map(inputs::read).collect::<Verdict<Vec<Source>>>()?;
    let mut unread = Unread::new(&output.settings);
    let streams = select(&mut unread, sources.len())?;
    let (run, start_at_zero) = read_run(&arguments.globals)?;
    let video = match streams.video {
        Some(source) => {
            let Source { memory, mark, .. } = sources[source.input];
            Some(video::read(&mut unread, &Picture { source, memory, mark })?)
        }
        None => None,
    };
    let audio = match streams.audio {
        Some(source) => Some(audio::read(&mut unread, source, &sources[source.input].input)?),
        None => None,
    };
    let output = output::read(output, &mut unread)?;
    let output = Output::Hls(output);
    check_marks(&sources, video.as_ref(), &output)?;
    read_video_sync(&mut unread)?;
    unread.finish()?;
    run.finish()?;
    if let Some(setting) = arguments.trailing.first() {
        return Err(Passthrough::unknown(format!("{} behind the output", shown(setting))));
    }
    let inputs = sources.into_iter().map(|source| source.input).collect();
    Ok(Transcode { inputs, video, audio, start_at_zero, source_times: true, output })
}

/// How pictures are decoded and turned is said of the encoded picture's input alone, and MP4 must
/// not carry a mark on when the picture has been turned by it.
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

/// Reads the options of the run; the second value is `-start_at_zero`.
fn read_run(globals: &[Setting]) -> Verdict<(Unread<'_>, bool)> {
    let mut run = Unread::new(globals);
    for name in [&[("y", BARE)] as Spellings, &[("copyts", BARE)]] {
        if !run.flag(name) {
            return Err(Passthrough::unknown(format!("no -{}", name[0].0)));
        }
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
    Ok((run, start_at_zero))
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

/// The streams of the output.
#[derive(Debug, PartialEq)]
struct Streams {
    video: Option<StreamRef>,
    audio: Option<StreamRef>,
}

/// Reads `-map`, `-vn`, `-an`, `-sn` (contract 2.1 mapArgs). A plan is made without opening the
/// files, so which mapped stream is the picture follows from order: Jellyfin maps it first.
fn select(unread: &mut Unread<'_>, inputs: usize) -> Verdict<Streams> {
    let no_video = unread.flag(&[("vn", BARE)]);
    let no_audio = unread.flag(&[("an", BARE)]);
    let no_subtitles = unread.flag(&[("sn", BARE)]);
    unread.flag(&[("dn", BARE)]);
    let has = |spellings| unread.settings().any(|setting| is_spelled(&setting.name, spellings));
    let (has_video, has_audio) = (has(VIDEO_CODEC), has(AUDIO_CODEC));
    let maps = unread.take_all(MAP);
    let streams = if maps.is_empty() {
        if inputs > 1 {
            return Err(Passthrough::unknown("several inputs and no -map"));
        }
        if !no_video && !no_subtitles {
            return Err(Passthrough::unknown("neither -map nor -sn"));
        }
        let best = StreamRef { input: 0, stream: StreamSelect::Best };
        Streams { video: (!no_video).then_some(best), audio: (!no_audio).then_some(best) }
    } else {
        let (mapped, audio_dropped) = read_maps(&maps, inputs)?;
        let no_audio = no_audio || audio_dropped;
        match (mapped.as_slice(), no_video, no_audio) {
            (&[video, audio], false, false) => Streams { video: Some(video), audio: Some(audio) },
            (&[video], false, true) => Streams { video: Some(video), audio: None },
            (&[audio], true, false) => Streams { video: None, audio: Some(audio) },
            (&[video], false, false) if has_video && !has_audio => {
                Streams { video: Some(video), audio: None }
            }
            (&[_, _, _, ..], ..) => {
                return Err(Passthrough::feature(format!("{} mapped streams", mapped.len())));
            }
            _ => return Err(Passthrough::unknown("-map leaves open what is mapped")),
        }
    };
    check_streams(&streams, inputs)?;
    Ok(streams)
}

fn check_streams(streams: &Streams, inputs: usize) -> Verdict<()> {
    if streams.video.is_none() && streams.audio.is_none() {
        return Err(Passthrough::unknown("neither picture nor sound"));
    }
    let numbered = |stream: &StreamRef| matches!(stream.stream, StreamSelect::Index(_));
    if streams.video == streams.audio && streams.video.as_ref().is_some_and(numbered) {
        return Err(Passthrough::unknown("one stream mapped as picture and as sound"));
    }
    if streams.video.is_some_and(|video| video.input != 0) {
        return Err(Passthrough::unknown("the picture of a second input"));
    }
    let used = |input| [streams.video, streams.audio].iter().flatten().any(|s| s.input == input);
    match (0..inputs).find(|input| !used(*input)) {
        None => Ok(()),
        Some(input) => Err(Passthrough::feature(format!("input {input} without a mapped stream"))),
    }
}

/// The mapped streams in order, and whether `-map -0:a` drops the sound.
fn read_maps(maps: &[&Setting], inputs: usize) -> Verdict<(Vec<StreamRef>, bool)> {
    let mut mapped = Vec::new();
    let (mut dropped, mut audio_dropped) = (false, false);
    for setting in maps {
        let refusal = || Passthrough::unknown(shown(setting));
        let text = value(setting).ok_or_else(refusal)?;
        let (drop, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (input, stream) = text.split_once(':').ok_or_else(refusal)?;
        let input = whole::<usize>(input).filter(|input| *input < inputs).ok_or_else(refusal)?;
        if drop {
            match stream {
                "s" => {}
                "a" if input == 0 => audio_dropped = true,
                _ => return Err(refusal()),
            }
        } else {
            // A drop takes away what was mapped before it, so its place matters.
            let index = whole(stream).filter(|_| !dropped).ok_or_else(refusal)?;
            mapped.push(StreamRef { input, stream: StreamSelect::Index(index) });
        }
        dropped |= drop;
    }
    Ok((mapped, audio_dropped))
}
