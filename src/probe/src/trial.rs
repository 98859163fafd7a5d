//! Frames through one element.

use std::time::Duration;

use gpu::{Operation, Outcome};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use crate::{FRAMES, Picture, clip};

/// Time for the whole of it. A GPU needs milliseconds; one that is woken up, or busy with five
/// streams, a second.
const LIMIT: Duration = Duration::from_secs(10);
const FRAMES_PER_SECOND: u64 = 25;
/// The name of the element that has the input.
const SOURCE: &str = "source";

/// Puts the frames of an operation through `element`.
pub fn try_operation(operation: Operation, element: &str) -> Outcome {
    match pipeline(operation, element).and_then(|pipeline| run(&pipeline, picture(operation))) {
        Ok(()) => Outcome::Usable,
        Err(reason) => Outcome::Failed { reason },
    }
}

fn picture(operation: Operation) -> Picture {
    if operation == Operation::Scale { Picture::HALF } else { Picture::FULL }
}

/// The pipeline of an operation, in `gst-launch` form.
fn description(operation: Operation, element: &str) -> String {
    let Picture { width, height } = Picture::FULL;
    let raw = format!(
        "video/x-raw,format=NV12,width={width},height={height},framerate={FRAMES_PER_SECOND}/1"
    );
    let (caps, middle) = match operation {
        Operation::EncodeH264 | Operation::EncodeH264LowPower => {
            (raw, format!("{element} ! h264parse ! avdec_h264 ! videoconvert"))
        }
        Operation::EncodeHevc | Operation::EncodeHevcLowPower => {
            (raw, format!("{element} ! h265parse ! avdec_h265 ! videoconvert"))
        }
        Operation::Scale => {
            let Picture { width, height } = Picture::HALF;
            (raw, format!("{element} ! video/x-raw,format=NV12,width={width},height={height}"))
        }
        decode => {
            let clip = clip(decode).expect("every other operation decodes");
            let format = clip.format;
            let middle = format!("{} ! {element} ! video/x-raw,format={format}", clip.parser);
            (clip.caps.to_owned(), middle)
        }
    };
    format!(
        "appsrc name={SOURCE} format=time caps=\"{caps}\" ! {middle} ! \
         appsink name=sink sync=false caps=\"video/x-raw,format={{NV12,I420,P010_10LE}}\""
    )
}

struct Pipeline {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // The process ends next either way.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Builds the pipeline, with all its input waiting in the source.
fn pipeline(operation: Operation, element: &str) -> Result<Pipeline, String> {
    let parsed = gst::parse::launch(&description(operation, element));
    let pipeline = parsed
        .map_err(|error| format!("can't be built: {error}"))?
        .downcast::<gst::Pipeline>()
        .map_err(|_| "can't be built: expected a pipeline")?;
    let source = pipeline.by_name(SOURCE).and_downcast::<gst_app::AppSrc>();
    let sink = pipeline.by_name("sink").and_downcast::<gst_app::AppSink>();
    let (source, sink) = source.zip(sink).ok_or("can't be built: expected appsrc and appsink")?;
    // Queued before the start, which is refused once the pipeline has failed; the sink tells of that.
    source.set_property("max-bytes", 0_u64);
    let push = |number: u64, buffer: gst::Buffer| {
        let mut buffer = buffer;
        let made = buffer.make_mut();
        let tick = gst::ClockTime::SECOND / FRAMES_PER_SECOND;
        made.set_pts(tick * number);
        made.set_duration(tick);
        source.push_buffer(buffer)
    };
    let built = Pipeline { pipeline, sink };
    built.pipeline.set_state(gst::State::Playing).map_err(|_| built.trouble("can't be started"))?;
    match clip(operation) {
        Some(clip) => {
            for (number, bytes) in (0..).zip(clip.buffers()) {
                let _ = push(number, gst::Buffer::from_slice(bytes));
            }
        }
        None => {
            for number in 0..FRAMES {
                let bytes = Picture::FULL.nv12(number);
                let _ = push(number.into(), gst::Buffer::from_mut_slice(bytes));
            }
        }
    }
    let _ = source.end_of_stream();
    Ok(built)
}

impl Pipeline {
    /// What an element has complained of, or `otherwise`.
    ///
    /// A source complains that nobody takes its data after the one who doesn't has said why, if it
    /// says anything.
    fn trouble(&self, otherwise: &str) -> String {
        let bus = self.pipeline.bus();
        let next = || bus.as_ref()?.pop_filtered(&[gst::MessageType::Error]);
        let mut last = None;
        while let Some(message) = next() {
            let gst::MessageView::Error(error) = message.view() else { continue };
            let origin = error.src().map(|source| source.name().to_string()).unwrap_or_default();
            if origin != SOURCE {
                return format!("{origin}: {}", error.error());
            }
            last = Some("the element refused it without a word".to_owned());
        }
        last.unwrap_or_else(|| otherwise.into())
    }
}

/// Looks at what comes out.
fn run(pipeline: &Pipeline, picture: Picture) -> Result<(), String> {
    let limit = gst::ClockTime::try_from(LIMIT).ok();
    let mut number = 0;
    while let Some(sample) = pipeline.sink.try_pull_sample(limit) {
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else {
            return Err(format!("frame {number} has no picture"));
        };
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|error| error.to_string())?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)
            .map_err(|_| format!("frame {number} can't be read back from the GPU"))?;
        picture.check(number, &frame)?;
        number += 1;
    }
    if number == FRAMES && pipeline.sink.is_eos() {
        return Ok(());
    }
    let seen = format!("{number} of {FRAMES} frames came out");
    let waited =
        if pipeline.sink.is_eos() { seen } else { format!("{seen} within {} s", LIMIT.as_secs()) };
    match pipeline.trouble("") {
        trouble if trouble.is_empty() => Err(waited),
        trouble => Err(format!("{seen}: {trouble}", seen = waited)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element of the software that does the same, so that pipeline, clips and judgement are
    /// tested without a GPU.
    fn software(operation: Operation) -> &'static str {
        match operation {
            Operation::DecodeH264 => "avdec_h264 ! videoconvert",
            Operation::DecodeHevc | Operation::DecodeHevc10 => "avdec_h265 ! videoconvert",
            Operation::DecodeVp9 => "vp9dec ! videoconvert",
            Operation::DecodeVp8 => "vp8dec ! videoconvert",
            Operation::DecodeAv1 => "av1dec ! videoconvert",
            Operation::DecodeMpeg2 => "avdec_mpeg2video ! videoconvert",
            Operation::EncodeH264 | Operation::EncodeH264LowPower => {
                "videoconvert ! x264enc ! video/x-h264,profile=high"
            }
            Operation::EncodeHevc | Operation::EncodeHevcLowPower => "videoconvert ! x265enc",
            Operation::Scale => "videoscale",
        }
    }

    #[test]
    fn software_passes_every_trial() {
        gst::init().unwrap();
        for operation in Operation::ALL {
            let outcome = try_operation(operation, software(operation));
            assert_eq!(outcome, Outcome::Usable, "{operation}");
        }
    }

    #[test]
    fn a_decoder_that_gives_nothing_fails() {
        gst::init().unwrap();
        let check = |element: &str, expect: &str| {
            let outcome = try_operation(Operation::DecodeH264, element);
            let Outcome::Failed { reason } = outcome else { panic!("{element}: {outcome:?}") };
            assert!(reason.contains(expect), "{element}: {reason}");
        };
        check("nosuchelement", "no element \"nosuchelement\"");
        // As many frames as expected, all of one picture.
        check(
            "fakesink videotestsrc pattern=black num-buffers=8 ! video/x-raw,width=320,height=192 \
             ! videoconvert",
            "wrong picture: top left is [16, 128, 128], expected [50, 90, 200]",
        );
        check("avdec_h264 ! identity drop-probability=1 ! videoconvert", "0 of 8 frames");
        check("avdec_h264 ! identity error-after=3 ! videoconvert", "identity");
        check("avdec_h264 ! videoscale ! video/x-raw,width=64 ! videoconvert", "expected 320x192");
    }
}
