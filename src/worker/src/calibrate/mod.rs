//! What tasks cost on this machine, each measured by itself: what `rendergate calibrate` asks for.
//!
//! Pictures of 1080p go round and round through one element for a moment; what comes out is counted,
//! and processor and engine time are taken before and after. The elements in software are those of
//! `pipelines/software.toml`, with the properties that streams give them. Software is measured by one
//! process, a GPU by one per operation, since a driver may take the process with it.
//!
//! Invariants:
//! - What is counted came out at the other end.
//! - The first pictures don't count: they pay for the opening.

mod clips;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gpu::{Action, Engine, EngineTime, Measured, Operation, Task};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::elements;
use crate::stages::{Facts, Node, Stages};
use clips::{CLIPS, Clip, Frames};

/// Of the pictures, in pixels.
const SIZE: (u32, u32) = (1920, 1080);
/// Where the output is smaller.
const HALF: (u32, u32) = (1280, 720);
const MEGAPIXELS: f64 = 1.920 * 1.080;
/// Pictures that come out before it is counted.
const FIRST: u64 = 3;
/// What is measured at least: wall time, and pictures.
const SPAN: Duration = Duration::from_millis(600);
const FEWEST: u64 = 6;
/// Time for one task. x265 looks at twenty pictures before it gives the first.
const LIMIT: Duration = Duration::from_secs(8);
/// Pictures that wait in front of the element.
const AHEAD: u64 = 3;
/// x264's and x265's presets: what Jellyfin asks for by default, and what is faster.
const PRESETS: [(&str, &str); 5] = [
    ("h264", "veryfast"),
    ("h264", "superfast"),
    ("h264", "ultrafast"),
    ("hevc", "veryfast"),
    ("hevc", "ultrafast"),
];

/// What to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Everything in software; leaves clips in the folder.
    Software,
    /// An operation of a GPU by an element; takes the clips that are in the folder.
    Gpu(Operation, String),
}

/// Measures, and writes a line of JSON for each task as it is done. What can't be measured is told on
/// standard error.
///
/// # Errors
/// Of GStreamer's start, or of writing.
pub fn calibrate(
    subject: &Subject,
    folder: &Path,
    proc_root: &Path,
    answer: &mut impl Write,
) -> anyhow::Result<()> {
    gst::init()?;
    elements::register()?;
    let fdinfo = proc_root.join(std::process::id().to_string()).join("fdinfo");
    let mut tell = |task: Task, measured: Result<Measured, String>| -> std::io::Result<()> {
        match measured {
            Ok(measured) => writeln!(answer, "{}", serde_json::to_string(&measured)?),
            Err(why) => writeln!(std::io::stderr(), "{task}: {why}"),
        }
    };
    match subject {
        Subject::Software => {
            let stages = Stages::shipped()?;
            for clip in &CLIPS {
                let task = Task::decode(clip.codec);
                let measured = clip.frames(folder).and_then(|frames| {
                    let decoder = software_decoder(&stages, &frames)?;
                    bench(&fdinfo, task.clone(), &frames, &decoder, frames.megapixels)
                });
                tell(task, measured)?;
            }
            for (task, frames, middle, megapixels) in software(&stages) {
                let measured = frames
                    .and_then(|frames| bench(&fdinfo, task.clone(), &frames, &middle, megapixels));
                tell(task, measured)?;
            }
        }
        Subject::Gpu(operation, element) => {
            for (task, frames, middle, megapixels) in on_gpu(*operation, element, folder) {
                let measured = frames.and_then(|frames| {
                    let megapixels = megapixels.unwrap_or(frames.megapixels);
                    bench(&fdinfo, task.clone(), &frames, &middle, megapixels)
                });
                tell(task, measured)?;
            }
        }
    }
    Ok(())
}

/// A task, its input, the elements that do it, and megapixels per picture that comes out.
type Bench<M> = (Task, Result<Frames, String>, String, M);

fn software(stages: &Stages) -> Vec<Bench<f64>> {
    let one = Facts::from([("canvases", "3".to_owned())]);
    let picture = |facts: &Facts, element: &str| {
        let nodes = stages.picture.iter().filter_map(|stage| stage.resolve(facts));
        nodes.filter(|node| node.element == element).map(|node| text(&node)).collect::<String>()
    };
    let with = |facts: &[(&'static str, &str)]| {
        let mut all = one.clone();
        all.extend(facts.iter().map(|(name, value)| (*name, (*value).to_owned())));
        all
    };
    let (width, height) = (HALF.0.to_string(), HALF.1.to_string());
    let scale = with(&[("width", &width), ("height", &height)]);
    let deinterlace = with(&[("deinterlace", "true"), ("deinterlace_fields", "top")]);
    let tones = [("tone_map", "true"), ("tone_curve", "bt2390"), ("tone_transfer", "pq")];
    let half = f64::from(HALF.0) * f64::from(HALF.1) / 1e6;
    let mut benches = vec![
        (
            Task::filter(Action::Scale),
            Frames::raw("I420", SIZE, ""),
            picture(&scale, "rgscale"),
            MEGAPIXELS,
        ),
        (
            Task::filter(Action::Deinterlace),
            Frames::raw("I420", SIZE, "interlace-mode=interleaved"),
            picture(&deinterlace, "deinterlace"),
            MEGAPIXELS,
        ),
        (
            Task::filter(Action::ToneMap),
            Frames::raw("I420_10LE", HALF, "colorimetry=bt2100-pq"),
            picture(&with(&tones), "rgtonemap"),
            half,
        ),
    ];
    for (codec, preset) in PRESETS {
        let facts =
            with(&[("preset", preset), ("crf", "23"), ("key_int_max", "250"), ("vbv_ms", "0")]);
        let encoder = stages.encoder(codec).map(|encoder| text(&encoder.resolve(&facts)));
        // x265 takes seconds for what it wants to see of 1080p before it gives the first picture.
        let (size, megapixels) = if codec == "hevc" { (HALF, half) } else { (SIZE, MEGAPIXELS) };
        let frames = Frames::raw("I420", size, "");
        let task = Task::encode(codec, preset);
        benches.push((task, frames, encoder.unwrap_or_default(), megapixels));
    }
    benches
}

/// The decoder that streams have for it.
fn software_decoder(stages: &Stages, frames: &Frames) -> Result<String, String> {
    let caps: gst::Caps =
        frames.caps.parse().map_err(|_| format!("{} are no caps", frames.caps))?;
    let takes =
        |text: &str| text.parse::<gst::Caps>().is_ok_and(|taken| taken.can_intersect(&caps));
    let chain = stages.decoders.iter().find(|chain| takes(&chain.caps));
    let chain = chain.ok_or_else(|| format!("nothing decodes {}", frames.caps))?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = if cores > 1 { cores + 1 } else { 1 };
    let mut facts = Facts::from([("decoder_threads", threads.to_string())]);
    if crate::swscale::is_ffmpeg_7_1() {
        facts.insert("hevc_threads", "slice".to_owned());
    }
    let nodes = chain.chain.iter().filter_map(|stage| stage.resolve(&facts));
    Ok(nodes.map(|node| text(&node)).collect::<Vec<_>>().join(" ! "))
}

fn on_gpu(operation: Operation, element: &str, folder: &Path) -> Vec<Bench<Option<f64>>> {
    let memory = "video/x-raw(memory:VAMemory)";
    let low_power =
        matches!(operation, Operation::EncodeH264LowPower | Operation::EncodeHevcLowPower);
    let encode = |codec: &str| {
        let codec = if low_power { format!("{codec}_low_power") } else { codec.to_owned() };
        // As it is of itself, and at its fastest.
        let ways = [("", element.to_owned()), ("7", format!("{element} target-usage=7"))];
        let bench = |(preset, middle): (&str, String)| {
            let frames = Frames::raw("NV12", SIZE, "");
            (Task::encode(&codec, preset), frames, middle, Some(MEGAPIXELS))
        };
        ways.map(bench).into()
    };
    let filter = |action, frames, middle: String, megapixels| {
        vec![(Task::filter(action), frames, middle, Some(megapixels))]
    };
    let (width, height) = HALF;
    match operation {
        Operation::EncodeH264 | Operation::EncodeH264LowPower => encode("h264"),
        Operation::EncodeHevc | Operation::EncodeHevcLowPower => encode("hevc"),
        Operation::Scale => {
            let middle = format!("{element} ! {memory},format=NV12,width={width},height={height}");
            filter(Action::Scale, Frames::raw("NV12", SIZE, ""), middle, MEGAPIXELS)
        }
        Operation::ToneMap => {
            let middle = format!(
                "{element} hdr-tone-mapping=true ! {memory},format=P010_10LE,width={width},\
                 height={height},colorimetry=bt2100-pq"
            );
            let half = f64::from(width) * f64::from(height) / 1e6;
            filter(Action::ToneMap, Frames::raw("P010_10LE", HALF, probe::HDR10), middle, half)
        }
        Operation::Deinterlace => {
            let frames = Frames::raw("NV12", SIZE, "interlace-mode=interleaved");
            // Two come out of each that goes in. In the system's memory, as the probe has it: into the
            // GPU's own it takes only what is there already.
            filter(Action::Deinterlace, frames, element.to_owned(), MEGAPIXELS / 2.0)
        }
        Operation::Turn | Operation::Balance | Operation::Transcode => Vec::new(),
        decode => {
            let clip = CLIPS.iter().find(|clip| clip.operation == decode);
            let bench = |clip: &Clip| {
                let middle = format!("{} ! {element} ! {memory}", clip.parser);
                (Task::decode(clip.codec), clip.frames(folder), middle, None)
            };
            clip.map(bench).into_iter().collect()
        }
    }
}

/// A node as `gst-launch` takes it.
fn text(node: &Node) -> String {
    let mut text = node.element.clone();
    for (name, value) in &node.properties {
        text.push_str(&format!(" {name}=\"{value}\""));
    }
    if let Some(caps) = &node.caps {
        text.push_str(&format!(" ! {caps}"));
    }
    text
}

/// A pipeline at work.
struct Running {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    /// Pictures that came out.
    out: Arc<AtomicU64>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// What had been taken at some moment.
struct Reading {
    at: Instant,
    out: u64,
    cpu: f64,
    engines: std::collections::BTreeMap<String, Engine>,
}

/// Puts frames through `middle` for a moment, each of which comes out as so many megapixels.
fn bench(
    fdinfo: &Path,
    task: Task,
    frames: &Frames,
    middle: &str,
    megapixels: f64,
) -> Result<Measured, String> {
    let running = start(frames, middle)?;
    let began = Instant::now();
    let mut engines = EngineTime::default();
    let mut read = |out| {
        // Without the directory there are no engines to tell of.
        let _ = engines.read(fdinfo, began.elapsed());
        let engines = engines.totals().clone();
        Reading { at: Instant::now(), out, cpu: cpu_seconds(), engines }
    };
    let mut first: Option<Reading> = None;
    let mut pushed = 0_u64;
    loop {
        if let Some(trouble) = running.trouble() {
            return Err(trouble);
        }
        let out = running.out.load(Ordering::Relaxed);
        match &first {
            None if out >= FIRST => first = Some(read(out)),
            Some(first) => {
                let enough = first.at.elapsed() >= SPAN && out - first.out >= FEWEST;
                if enough || began.elapsed() >= LIMIT && out > first.out {
                    let last = read(out);
                    return Ok(difference(task, first, &last, megapixels));
                }
            }
            None => {}
        }
        if began.elapsed() >= LIMIT {
            return Err(format!("{out} pictures came out in {} s", LIMIT.as_secs()));
        }
        if running.source.current_level_buffers() < AHEAD {
            let _ = running.source.push_buffer(frames.buffer(pushed));
            pushed += 1;
        } else {
            thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn difference(task: Task, first: &Reading, last: &Reading, megapixels: f64) -> Measured {
    let gained = |(class, engine): (&String, &Engine)| {
        let before = first.engines.get(class).map_or(0.0, |engine| engine.seconds);
        (class.clone(), Engine { seconds: engine.seconds - before, capacity: engine.capacity })
    };
    Measured {
        task,
        megapixels: (last.out - first.out) as f64 * megapixels,
        seconds: (last.at - first.at).as_secs_f64(),
        cpu_seconds: last.cpu - first.cpu,
        engines: last.engines.iter().map(gained).collect(),
    }
}

fn start(frames: &Frames, middle: &str) -> Result<Running, String> {
    let description = format!(
        "appsrc name=source format=time max-buffers=0 max-bytes=0 caps=\"{}\" ! {middle} ! \
         fakesink name=sink sync=false",
        frames.caps
    );
    let pipeline = gst::parse::launch(&description)
        .map_err(|error| format!("can't be built: {error}"))?
        .downcast::<gst::Pipeline>()
        .map_err(|_| "can't be built: expected a pipeline")?;
    let source = pipeline.by_name("source").and_downcast::<gst_app::AppSrc>();
    let pad = pipeline.by_name("sink").and_then(|sink| sink.static_pad("sink"));
    let (source, pad) = source.zip(pad).ok_or("can't be built: expected appsrc and fakesink")?;
    let out = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&out);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    let running = Running { pipeline, source, out };
    running
        .pipeline
        .set_state(gst::State::Playing)
        .map_err(|_| running.trouble().unwrap_or_else(|| "can't be started".into()))?;
    Ok(running)
}

impl Running {
    /// What an element complains of.
    fn trouble(&self) -> Option<String> {
        let message = self.pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
        let gst::MessageView::Error(error) = message.view() else { return None };
        let origin = error.src().map(|source| source.name().to_string()).unwrap_or_default();
        Some(format!("{origin}: {}", error.error()))
    }
}

/// Of this process, all threads.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything in software is measured, and GPUs find their clips.
    #[test]
    fn software_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let mut answer = Vec::new();
        let none = Path::new("/nowhere");
        calibrate(&Subject::Software, folder.path(), none, &mut answer).unwrap();
        let text = String::from_utf8(answer).unwrap();
        let measured: Vec<Measured> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for one in &measured {
            assert!(one.megapixels > 0.0 && one.cpu_seconds > 0.0, "{one:?}");
            assert!(one.engines.is_empty(), "{one:?}");
        }
        let has = |task: &Task| measured.iter().any(|one| one.task == *task);
        let wanted = [
            Task::decode("h264"),
            Task::decode("hevc10"),
            Task::decode("vp9"),
            Task::filter(Action::Scale),
            Task::filter(Action::Deinterlace),
            Task::filter(Action::ToneMap),
            Task::encode("h264", "veryfast"),
            Task::encode("h264", "ultrafast"),
            Task::encode("hevc", "veryfast"),
        ];
        for task in wanted {
            assert!(has(&task), "{task} is missing in\n{text}");
        }
        assert!(folder.path().join("h264.clip").exists());
    }

    #[test]
    fn what_does_nothing_has_no_figure() {
        gst::init().unwrap();
        let frames = Frames::raw("I420", HALF, "").unwrap();
        let none = Path::new("/nowhere");
        let check = |middle: &str, expect: &str| {
            let task = Task::filter(Action::Scale);
            let error = bench(none, task, &frames, middle, 1.0).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        check("nosuchelement", "no element");
        check("identity error-after=2", "identity");
    }
}
