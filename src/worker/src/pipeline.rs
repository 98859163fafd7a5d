//! From a graph's description to elements, and from their samples to the writer.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_audio as gst_audio;

use crate::cadence::{FrameGrid, Holes};
use crate::disposable::Packing;
use crate::elements::{Cadence, CadenceConfig, Subtitles, Trim, TrimConfig};
use crate::first_unit::with_own_headers;
use crate::gpu_encoder::{self, Times};
use crate::graph::{RAW_BUFFERS, TrackGraph};
use crate::key_sets::KeySets;
use crate::reorder::Reorder;
use crate::seam::{Notes, PictureStart, SoundStart};
use crate::source::{SourceError, make};
use crate::stages::Node;
use crate::subtitles::Burner;
use crate::timeline::{Gate, Timeline, signed_ns};
use crate::{light, warm_up};
use session::Fault;

/// Compressed buffers between demuxer and decoder. A container's interleaving isn't bridged here
/// but by the writer, which takes whatever comes; these only keep the decoder busy.
const COMPRESSED_BUFFERS: u32 = 16;
/// Encoded samples that may wait for the writer.
const ENCODED_BUFFERS: u32 = 32;
/// So long before the start every picture is decoded: decoders learn from them how far pictures
/// are out of order, and deinterlacers look back.
const DECODED_NS: i64 = 500_000_000;
/// Frames that a deinterlacer may hold back, and some.
const FRAMES_REMEMBERED: usize = 16;
/// What a probe says of a buffer that goes no further. `Drop` would do, but has GStreamer 1.22
/// complain in the log that there is nothing to drop any more.
pub(crate) const TAKEN: gst::PadProbeReturn = gst::PadProbeReturn::Handled;
const VIDEO_DECODER: gst::ElementFactoryType =
    gst::ElementFactoryType::DECODER.union(gst::ElementFactoryType::MEDIA_VIDEO);

/// What reaches the writer.
#[derive(Debug)]
pub enum Output {
    /// An encoded sample. `caps` come with the first and whenever they change.
    Sample {
        /// Which track.
        track: usize,
        /// Caps, if new.
        caps: Option<gst::Caps>,
        /// Presentation time, ns of source time.
        pts: i64,
        /// Decoding time, ns of source time.
        dts: i64,
        /// ns, 0 if unknown.
        duration: u64,
        /// Decoding can start here.
        keyframe: bool,
        /// The bytes.
        data: Bytes,
    },
    /// A track is complete.
    End {
        /// Which track.
        track: usize,
    },
    /// An element failed.
    Error {
        /// For people.
        message: String,
        /// Whose fault it looks like.
        fault: Fault,
    },
}

/// One track's settings beyond its description.
#[derive(Debug, Clone)]
pub struct TrackSettings {
    /// Number of the track, as the writer counts.
    pub track: usize,
    /// Source time.
    pub timeline: Timeline,
    /// Frame rate, if it isn't the decoder's.
    pub rate: Option<(u32, u32)>,
    /// The rate is a cap that the command sets.
    pub capped: bool,
    /// What becomes of holes in the source.
    pub holes: Holes,
    /// Fields become frames.
    pub fields: bool,
    /// How late a filter before the cadence stamps its frames, ns.
    pub late_ns: i64,
    /// Decoding times must be found from the presentation times.
    pub reorder: bool,
    /// Parameter sets for a copied picture's keyframes.
    pub key_sets: Option<KeySets>,
    /// Period of the keyframe grid.
    pub keyframes_every: Option<f64>,
    /// What the command says that colours are, in GStreamer's words.
    pub colorimetry: Option<String>,
    /// One picture of each two that a deinterlacer on a GPU makes is wanted.
    pub halve: bool,
    /// What is burnt into the picture.
    pub subtitles: Option<Burner>,
    /// Pause and early end.
    pub gate: Arc<Gate>,
    /// What another worker may have to know.
    pub notes: Option<Notes>,
    /// Where another worker has come to.
    pub begin: Begin,
}

/// Where a track begins if another worker has written some of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Begin {
    /// Encoded picture.
    pub picture: Option<PictureStart>,
    /// Encoded sound.
    pub sound: Option<SoundStart>,
    /// How deep a copied picture is out of order.
    pub depth: Option<usize>,
}

/// Builds a track's chain into the pipeline; returns the pad to link the demuxer to.
///
/// # Errors
/// A missing element, or a property or link that GStreamer refuses.
pub fn build_track(
    pipeline: &gst::Pipeline,
    graph: &TrackGraph,
    settings: &TrackSettings,
    output: &SyncSender<Output>,
) -> Result<gst::Pad, SourceError> {
    let mut times = None;
    let mut elements = vec![queue(COMPRESSED_BUFFERS)?];
    for (index, node) in graph.nodes.iter().enumerate() {
        if graph.queues.contains(&index) {
            elements.push(queue(RAW_BUFFERS)?);
        }
        let element = build_node(node)?;
        configure(&element, settings);
        light::attend(&element);
        if graph.encoded_on_gpu && index + 1 == graph.nodes.len() {
            times = Some(gpu_encoder::attend(&element));
        }
        if let (true, Some(begin)) = (index + 1 == graph.nodes.len(), settings.begin.sound) {
            warm_up::attend(&element, begin);
        }
        elements.push(element);
        if let Some(caps) = &node.caps {
            let filter = make("capsfilter")?;
            let caps = caps.parse::<gst::Caps>().map_err(|_| refused(node, "caps", caps))?;
            filter.set_property("caps", caps);
            elements.push(filter);
        }
    }
    elements.push(sink(graph, settings, times, output).upcast());
    let failed = |error: gst::glib::BoolError| SourceError {
        message: format!("can't link {}: {error}", graph.one_line()),
        fault: Fault::Worker,
    };
    pipeline.add_many(&elements).map_err(failed)?;
    gst::Element::link_many(&elements).map_err(failed)?;
    for element in elements.iter().rev() {
        element.sync_state_with_parent().map_err(failed)?;
    }
    elements[0].static_pad("sink").ok_or_else(|| SourceError {
        message: "queue without sink pad".into(),
        fault: Fault::Worker,
    })
}

fn configure(element: &gst::Element, settings: &TrackSettings) {
    if let Some(cadence) = element.downcast_ref::<Cadence>() {
        let offset_ns = settings.timeline.offset_ns - settings.late_ns;
        cadence.configure(CadenceConfig {
            timeline: Timeline { offset_ns, ..settings.timeline },
            rate: settings.rate,
            capped: settings.capped,
            holes: settings.holes,
            fields: settings.fields,
            keyframes_every: settings.keyframes_every,
            gate: Arc::clone(&settings.gate),
            notes: settings.notes.clone(),
            begin: settings.begin.picture,
        });
    } else if let Some(trim) = element.downcast_ref::<Trim>() {
        trim.configure(TrimConfig {
            timeline: settings.timeline,
            gate: Arc::clone(&settings.gate),
            notes: settings.notes.clone(),
            begin: settings.begin.sound,
        });
    } else if let Some(subtitles) = element.downcast_ref::<Subtitles>() {
        settings.subtitles.iter().for_each(|burner| subtitles.configure(burner.clone()));
    } else if element.factory().is_some_and(|factory| factory.name().ends_with("deinterlace")) {
        cut_before_start(element, settings.timeline);
        if settings.halve {
            keep_first_fields(element);
        }
    } else if element.factory().is_some_and(|factory| factory.has_type(VIDEO_DECODER)) {
        // Before a seam there is nothing to be shown either.
        let wanted = settings.begin.picture.map(|picture| picture.needs_ns);
        let start_ns = settings.timeline.start_ns.max(wanted);
        skip_disposable(element, Timeline { start_ns, ..settings.timeline });
    }
}

/// Leaves out, far enough before the start, pictures that no other needs.
fn skip_disposable(decoder: &gst::Element, timeline: Timeline) {
    let (Some(pad), Some(start)) = (decoder.static_pad("sink"), timeline.start_ns) else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let skipped = info.buffer().is_some_and(|buffer| {
            let far = pts_ns(pad, buffer, timeline).is_some_and(|pts| pts < start - DECODED_NS);
            let packing = pad.current_caps().filter(|_| far).and_then(|caps| Packing::of(&caps));
            packing.zip(buffer.map_readable().ok()).is_some_and(|(p, unit)| p.is_disposable(&unit))
        });
        if skipped { TAKEN } else { gst::PadProbeReturn::Ok }
    });
}

/// Source time of a buffer on a pad, ns.
fn pts_ns(pad: &gst::Pad, buffer: &gst::Buffer, timeline: Timeline) -> Option<i64> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    timeline.source_ns(segment, buffer.pts()?)
}

/// Only whole frames are cut: a deinterlacer makes two of one.
fn cut_before_start(element: &gst::Element, timeline: Timeline) {
    let Some(pad) = element.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let time = info.buffer().and_then(|buffer| pts_ns(pad, buffer, timeline));
        if time.is_some_and(|time| timeline.is_before_start(time)) {
            TAKEN
        } else {
            gst::PadProbeReturn::Ok
        }
    });
}

/// Lets pass only what a deinterlacer makes of first fields: `vadeinterlace` makes a picture of every
/// field, and stamps that of a frame's first with the frame's time.
fn keep_first_fields(element: &gst::Element) {
    let (Some(sink), Some(src)) = (element.static_pad("sink"), element.static_pad("src")) else {
        return;
    };
    let frames = Arc::new(Mutex::new(VecDeque::new()));
    let entering = Arc::clone(&frames);
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let mut frames = entering.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() >= FRAMES_REMEMBERED {
            frames.pop_front();
        }
        frames.extend(info.buffer().and_then(|buffer| buffer.pts()));
        gst::PadProbeReturn::Ok
    });
    src.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let frames = frames.lock().unwrap_or_else(PoisonError::into_inner);
        let pts = info.buffer().and_then(|buffer| buffer.pts());
        if pts.is_some_and(|pts| frames.contains(&pts)) { gst::PadProbeReturn::Ok } else { TAKEN }
    });
}

fn queue(buffers: u32) -> Result<gst::Element, SourceError> {
    let queue = make("queue")?;
    queue.set_property("max-size-buffers", buffers);
    queue.set_property("max-size-bytes", 0_u32);
    queue.set_property("max-size-time", 0_u64);
    Ok(queue)
}

fn refused(node: &Node, name: &str, value: &str) -> SourceError {
    SourceError {
        message: format!("{}: expected a valid {name}, got `{value}`", node.element),
        fault: Fault::Worker,
    }
}

/// Whether a number is one that a property takes.
fn in_range(pspec: &gst::glib::ParamSpec, value: &gst::glib::Value) -> bool {
    use gst::glib::{ParamSpecDouble, ParamSpecFloat, ParamSpecInt, ParamSpecUInt};
    macro_rules! holds {
        ($($spec:ty: $number:ty),*) => {
            $(if let (Some(spec), Ok(value)) = (pspec.downcast_ref::<$spec>(), value.get::<$number>()) {
                return (spec.minimum()..=spec.maximum()).contains(&value);
            })*
        };
    }
    holds!(ParamSpecInt: i32, ParamSpecUInt: u32, ParamSpecFloat: f32, ParamSpecDouble: f64);
    true
}

fn build_node(node: &Node) -> Result<gst::Element, SourceError> {
    let element = make(&node.element)?;
    for (name, value) in &node.properties {
        let Some(pspec) = element.find_property(name) else {
            return Err(refused(node, "property", name));
        };
        let value = gst::glib::Value::deserialize_with_pspec(value, &pspec)
            .map_err(|_| refused(node, name, value))?;
        // Setting one out of the property's range would be the end of the process.
        if !in_range(&pspec, &value) {
            return Err(refused(node, name, &format!("{value:?}")));
        }
        element.set_property_from_value(name, &value);
    }
    Ok(element)
}

fn sink(
    graph: &TrackGraph,
    settings: &TrackSettings,
    times: Option<Times>,
    output: &SyncSender<Output>,
) -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder()
        .sync(false)
        .async_(false)
        .enable_last_sample(false)
        .max_buffers(ENCODED_BUFFERS)
        .build();
    let samples = output.clone();
    let ends = output.clone();
    let track = settings.track;
    let timeline = settings.timeline;
    let colorimetry = settings.colorimetry.clone();
    let (priming, copied) = (graph.priming, graph.copied);
    // Nothing else in a copied track's way is held by the gate.
    let gate = graph.copied.then(|| Arc::clone(&settings.gate));
    let (steps, over) = (Arc::clone(&settings.gate), Arc::clone(&settings.gate));
    let reorder =
        settings.reorder.then(|| Arc::new(Mutex::new(Reorder::of_depth(settings.begin.depth))));
    let rest = reorder.clone();
    let notes = settings.notes.clone();
    // Behind a seam the first decoding times are the encoder's guess of what came before.
    let begins = settings.begin.picture.is_some();
    let mut key_sets = settings.key_sets.clone();
    let mut last_caps = None;
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                if gate.as_ref().is_some_and(|gate| !gate.pass()) {
                    return Err(gst::FlowError::Eos);
                }
                let caps = sample.caps_owned();
                let fresh = (caps != last_caps).then(|| caps.clone()).flatten();
                let shift = priming_ns(priming, caps.as_ref());
                let timeline = if copied { timeline } else { Timeline::default() };
                // Taken out with each buffer, whatever becomes of it.
                let entered = times.as_ref().and_then(Times::next);
                let Some(mut output) = encoded(&sample, track, fresh, &timeline, copied, shift)
                else {
                    return Ok(gst::FlowSuccess::Ok);
                };
                if let (true, Output::Sample { pts, dts, data, keyframe, .. }) =
                    (times.is_some(), &mut output)
                {
                    *pts = entered.unwrap_or(*pts);
                    *dts = *pts;
                    let (unit, key) =
                        gpu_encoder::finish(sample.caps(), colorimetry.as_deref(), data);
                    (*data, *keyframe) = (unit.into(), key);
                }
                let own_encoder = !copied && times.is_none() && is_hevc(&sample);
                if let (true, Output::Sample { data, keyframe: true, .. }) =
                    (own_encoder, &mut output)
                {
                    *data = with_own_headers(std::mem::take(data));
                }
                if let (true, Output::Sample { dts, .. }) = (begins, &mut output) {
                    *dts = on_grid(*dts, sample.caps());
                }
                if let (Some(sets), Output::Sample { data, keyframe, .. }) =
                    (&mut key_sets, &mut output)
                {
                    *data = sets.complete(std::mem::take(data), *keyframe);
                }
                // Only now do they travel; a sample before the start takes none along.
                last_caps = caps;
                let ready = match &reorder {
                    Some(reorder) => timed(reorder, Some(output), notes.as_ref()),
                    None => vec![output],
                };
                for output in ready {
                    if let Output::Sample { dts, .. } = &output {
                        steps.abreast.step(track, *dts);
                    }
                    samples.send(output).map_err(|_| gst::FlowError::Eos)?;
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                over.abreast.end(track);
                let last =
                    rest.as_ref().map(|reorder| timed(reorder, None, None)).unwrap_or_default();
                for output in last.into_iter().chain([Output::End { track }]) {
                    // The writer may be gone already.
                    let _ = ends.send(output);
                }
            })
            .build(),
    );
    sink
}

/// Passes a sample through the reordering, or, with none, gets the last ones out of it.
fn timed(
    reorder: &Mutex<Reorder<Output>>,
    output: Option<Output>,
    notes: Option<&Notes>,
) -> Vec<Output> {
    let mut reorder = reorder.lock().unwrap_or_else(PoisonError::into_inner);
    let ready = match output {
        Some(Output::Sample { pts, .. }) => output.map(|output| reorder.push(pts, output)),
        _ => Some(reorder.flush()),
    };
    if let (Some(notes), Some(depth)) = (notes, reorder.depth()) {
        notes.depth(depth);
    }
    let mut ready = ready.unwrap_or_default();
    for (time, output) in &mut ready {
        if let Output::Sample { dts, .. } = output {
            *dts = *time;
        }
    }
    ready.into_iter().map(|(_, output)| output).collect()
}

/// The time of the frame that is nearest to a decoding time, ns.
fn on_grid(dts: i64, caps: Option<&gst::CapsRef>) -> i64 {
    let rate = caps
        .and_then(|caps| caps.structure(0)?.get::<gst::Fraction>("framerate").ok())
        .and_then(|rate| Some((rate.numer().try_into().ok()?, rate.denom().try_into().ok()?)))
        .filter(|(numerator, denominator)| *numerator > 0 && *denominator > 0);
    rate.map_or(dts, |rate| FrameGrid::new(rate).nearest_ns(dts))
}

/// How much earlier than the first sample an encoder begins, in ns.
fn priming_ns(samples: u32, caps: Option<&gst::Caps>) -> i64 {
    let rate = caps
        .and_then(|caps| caps.structure(0))
        .and_then(|structure| structure.get::<i32>("rate").ok());
    rate.filter(|rate| *rate > 0)
        .map_or(0, |rate| i64::from(samples) * 1_000_000_000 / i64::from(rate))
}

/// A sample as the writer takes it; `None` for one before the start of the output.
fn encoded(
    sample: &gst::Sample,
    track: usize,
    caps: Option<gst::Caps>,
    timeline: &Timeline,
    copied: bool,
    priming: i64,
) -> Option<Output> {
    let buffer = sample.buffer()?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    // Encoders move segment and timestamps together, 1000 hours away if they like; running time
    // is what stays. A copied stream comes straight from the demuxer, whose stream time counts.
    let time = |timestamp: gst::ClockTime| {
        if copied {
            timeline.source_ns(segment, timestamp)
        } else {
            Some(signed_ns(segment.to_running_time_full(timestamp)?) - priming)
        }
    };
    let lead = lead_ns(buffer, sample.caps());
    let pts = buffer.pts().or(buffer.dts()).and_then(time)? - lead;
    let dts = buffer.dts().and_then(time).map_or(pts, |dts| dts - lead);
    let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
    if copied && timeline.is_before_start(pts) && !caps_are_video(sample) {
        return None;
    }
    let map = buffer.map_readable().ok()?;
    Some(Output::Sample {
        track,
        caps,
        pts,
        dts,
        duration: buffer.duration().map_or(0, gst::ClockTime::nseconds) + lead.unsigned_abs(),
        keyframe,
        data: Bytes::copy_from_slice(&map),
    })
}

fn is_hevc(sample: &gst::Sample) -> bool {
    let structure = sample.caps().and_then(|caps| caps.structure(0));
    structure.is_some_and(|structure| structure.name() == "video/x-h265")
}

/// What an encoder has put before the first sample and says so itself: it stamps the first buffer
/// with the time of what is to be heard of it, where ffmpeg has the time of all of it.
fn lead_ns(buffer: &gst::BufferRef, caps: Option<&gst::CapsRef>) -> i64 {
    let Some(meta) = buffer.meta::<gst_audio::AudioClippingMeta>() else { return 0 };
    let gst::GenericFormattedValue::Default(Some(samples)) = meta.start() else { return 0 };
    let rate = caps.and_then(|caps| caps.structure(0)?.get::<i32>("rate").ok());
    let samples = i64::try_from(*samples).unwrap_or(0);
    rate.filter(|rate| *rate > 0).map_or(0, |rate| samples * 1_000_000_000 / i64::from(rate))
}

/// A copied picture begins at the keyframe before the start, sound at the start.
fn caps_are_video(sample: &gst::Sample) -> bool {
    sample
        .caps()
        .and_then(|caps| caps.structure(0))
        .is_some_and(|structure| structure.name().starts_with("video/"))
}
