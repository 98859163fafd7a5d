//! Frames through one element, or through three without leaving the GPU's memory.

use std::time::Duration;

use gpu::{Operation, Outcome};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use crate::judge::Judge;
use crate::picture::Direction;
use crate::{Clip, FRAMES, Picture, clip, tones};

/// Time for the whole of it. A GPU needs milliseconds; one that is woken up, or busy with five
/// streams, a second.
const LIMIT: Duration = Duration::from_secs(10);
const FRAMES_PER_SECOND: u64 = 25;
/// The name of the element that has the input.
const SOURCE: &str = "source";

/// How elements are told what to do: those of a GPU, or in tests those of the software.
#[derive(Debug, Clone, Copy)]
struct Dialect {
    /// The caps feature of the GPU's own memory.
    memory: &'static str,
    /// What makes an element map tones.
    tone_map: &'static str,
    /// What makes it brighten bright greys.
    balance: &'static str,
}

const GPU: Dialect = Dialect {
    memory: "(memory:VAMemory)",
    tone_map: "hdr-tone-mapping=true",
    balance: "brightness=16 contrast=1.1",
};

/// Puts the frames of an operation through `element`; for [`Operation::Transcode`] that is a decoder,
/// a scaler and an encoder with commas between them.
pub fn try_operation(operation: Operation, element: &str) -> Outcome {
    try_in(GPU, operation, element)
}

/// As [`try_operation`].
fn try_in(dialect: Dialect, operation: Operation, element: &str) -> Outcome {
    let try_once = |judge: Judge| {
        let description = description(operation, element, judge.picture(), dialect)?;
        run(&pipeline(&description, input(operation, element))?, judge)
    };
    let outcome = match operation {
        // Streams are scaled in the same pass.
        Operation::Turn => Direction::ALL.into_iter().try_for_each(|direction| {
            let picture = Picture::HALF.turned(direction);
            try_once(Judge::of_frames(picture))
                .map_err(|reason| format!("turned by {}: {reason}", direction.nick()))
        }),
        Operation::ToneMap | Operation::Balance => try_once(Judge::of_tones(Picture::HALF)),
        Operation::Deinterlace => try_once(Judge::of_fields(Picture::FULL)),
        Operation::Scale => try_once(Judge::of_frames(Picture::HALF)),
        Operation::Transcode => try_once(Judge::of_frames(Picture::DOUBLE)),
        _ => try_once(Judge::of_frames(Picture::FULL)),
    };
    match outcome {
        Ok(()) => Outcome::Usable,
        Err(reason) => Outcome::Failed { reason },
    }
}

/// What goes in: a clip, or frames of their own.
#[derive(Debug, Clone, Copy)]
enum Input {
    Clip(Clip),
    Frames,
    /// Two fields each.
    Interlaced,
    /// In HDR10.
    Hdr,
}

fn input(operation: Operation, element: &str) -> Input {
    match operation {
        Operation::Deinterlace => Input::Interlaced,
        Operation::ToneMap | Operation::Balance => Input::Hdr,
        Operation::Transcode => Input::Clip(clip_for(element)),
        _ => clip(operation).map_or(Input::Frames, Input::Clip),
    }
}

/// The clip for the decoder that `elements` begins with.
fn clip_for(elements: &str) -> Clip {
    let decoder = elements.split(',').next().unwrap_or_default();
    let is_of = |operation: &Operation| {
        operation.decodes()
            && operation.element_suffix().is_some_and(|suffix| decoder.ends_with(suffix))
    };
    let operation = Operation::ALL.into_iter().find(is_of).unwrap_or(Operation::DecodeH264);
    clip(operation).expect("every decoder has a clip")
}

/// The pipeline of an operation, in `gst-launch` form.
fn description(
    operation: Operation,
    element: &str,
    picture: Picture,
    dialect: Dialect,
) -> Result<String, String> {
    let Picture { width, height, .. } = Picture::FULL;
    let raw = format!(
        "video/x-raw,format=NV12,width={width},height={height},framerate={FRAMES_PER_SECOND}/1"
    );
    let (caps, middle) = match operation {
        Operation::EncodeH264 | Operation::EncodeH264LowPower => {
            (raw, format!("{element} ! {}", judge("h264")))
        }
        Operation::EncodeHevc | Operation::EncodeHevcLowPower => {
            (raw, format!("{element} ! {}", judge("h265")))
        }
        Operation::Deinterlace => {
            (format!("{raw},interlace-mode=interleaved"), format!("{element} ! videoconvert"))
        }
        Operation::Transcode => transcode(element, dialect.memory)?,
        Operation::Scale => (raw, format!("{element} ! {}", picture.caps())),
        Operation::Turn => {
            let direction = picture.direction.map_or("identity", Direction::nick);
            let caps = picture.caps();
            (raw, format!("{element} video-direction={direction} ! {caps}"))
        }
        Operation::ToneMap => of_hdr(element, dialect.tone_map, picture, dialect),
        Operation::Balance => of_hdr(element, dialect.balance, picture, dialect),
        decode => {
            let clip = clip(decode).expect("every other operation decodes");
            let format = clip.format;
            let middle = format!("{} ! {element} ! video/x-raw,format={format}", clip.parser);
            (clip.caps.to_owned(), middle)
        }
    };
    Ok(format!(
        "appsrc name={SOURCE} format=time caps=\"{caps}\" ! {middle} ! \
         appsink name=sink sync=false caps=\"video/x-raw,format={{NV12,I420,P010_10LE}}\""
    ))
}

/// What goes into something that is `done` to HDR10, and what happens to it: the pipeline of `pipelines/vaapi.toml`.
///
/// Mapping and conversion are a pass each: `vapostproc` maps nothing in a pass that changes format or
/// colorimetry. What comes out of the first still says that it is HDR.
fn of_hdr(element: &str, done: &str, picture: Picture, dialect: Dialect) -> (String, String) {
    let memory = dialect.memory;
    let Picture { width, height, .. } = Picture::FULL;
    let caps = format!(
        "video/x-raw,format=P010_10LE,width={width},height={height},\
         framerate={FRAMES_PER_SECOND}/1,{}",
        tones::CAPS
    );
    let Picture { width, height, .. } = picture;
    let middle = format!(
        "{element} {done} ! \
         video/x-raw{memory},format=P010_10LE,width={width},height={height},colorimetry=bt2100-pq ! \
         capssetter caps=video/x-raw,colorimetry=bt709 ! {element} ! {}",
        picture.caps()
    );
    (caps, middle)
}

/// What goes into a transcode, and what happens to it.
fn transcode(elements: &str, memory: &str) -> Result<(String, String), String> {
    let parts: Vec<&str> = elements.split(',').collect();
    let [decoder, scaler, encoder] = parts[..] else {
        return Err(format!("expected decoder,scaler,encoder, got {elements}"));
    };
    let Clip { caps, parser, .. } = clip_for(elements);
    let Picture { width, height, .. } = Picture::DOUBLE;
    let judge = judge(if encoder.contains("265") { "h265" } else { "h264" });
    let middle = format!(
        "{parser} ! {decoder} ! video/x-raw{memory} ! {scaler} ! \
         video/x-raw{memory},format=NV12,width={width},height={height} ! {encoder} ! {judge}"
    );
    Ok((caps.to_owned(), middle))
}

/// The software decoder that encoders are judged by.
fn judge(codec: &str) -> String {
    format!("{codec}parse ! avdec_{codec} ! videoconvert")
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
fn pipeline(description: &str, input: Input) -> Result<Pipeline, String> {
    let parsed = gst::parse::launch(description);
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
    match input {
        Input::Clip(clip) => {
            for (number, bytes) in (0..).zip(clip.buffers()) {
                let _ = push(number, gst::Buffer::from_slice(bytes));
            }
        }
        Input::Frames | Input::Interlaced | Input::Hdr => {
            for number in 0..FRAMES {
                let mut buffer = gst::Buffer::from_mut_slice(match input {
                    Input::Hdr => tones::p010(Picture::FULL, number),
                    _ => Picture::FULL.nv12(number),
                });
                if matches!(input, Input::Interlaced) {
                    let flags =
                        gst_video::VideoBufferFlags::INTERLACED | gst_video::VideoBufferFlags::TFF;
                    buffer.make_mut().set_video_flags(flags);
                }
                let _ = push(number.into(), buffer);
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
fn run(pipeline: &Pipeline, mut judge: Judge) -> Result<(), String> {
    let limit = gst::ClockTime::try_from(LIMIT).ok();
    let mut number = 0;
    while let Some(sample) = pipeline.sink.try_pull_sample(limit) {
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else {
            return Err(format!("frame {number} has no picture"));
        };
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|error| error.to_string())?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)
            .map_err(|_| format!("frame {number} can't be read back from the GPU"))?;
        judge.check(number, &frame)?;
        number += 1;
    }
    if judge.is_complete(number) && pipeline.sink.is_eos() {
        return Ok(());
    }
    let seen = format!("{number} of {} frames came out", judge.expected());
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
            Operation::Turn => "videoscale ! videoflip",
            Operation::ToneMap | Operation::Balance => "videoconvert ! videoscale ! videoconvert",
            Operation::Deinterlace => "deinterlace",
            Operation::Transcode => "avdec_h264 ! videoconvert,videoscale,videoconvert ! x264enc",
        }
    }

    /// What is bright becomes brighter, as in a tone mapping.
    const SOFTWARE: Dialect = Dialect {
        memory: "",
        tone_map: "! video/x-raw,format=I420 ! videobalance contrast=1.25 ! videoconvert",
        balance: "! video/x-raw,format=I420 ! videobalance brightness=.1 ! videoconvert",
    };

    #[test]
    fn software_passes_every_trial() {
        gst::init().unwrap();
        for operation in Operation::ALL {
            let outcome = try_in(SOFTWARE, operation, software(operation));
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

    #[test]
    fn a_deinterlacer_is_judged_by_its_pictures() {
        gst::init().unwrap();
        let check = |element: &str, expect: &str| {
            let outcome = try_operation(Operation::Deinterlace, element);
            let Outcome::Failed { reason } = outcome else { panic!("{element}: {outcome:?}") };
            assert!(reason.contains(expect), "{element}: {reason}");
        };
        check(
            "fakesink videotestsrc pattern=black num-buffers=16 ! video/x-raw,width=320,height=192",
            "wrong picture: top left is [16, 128, 128], expected [50, 90, 200]",
        );
        // A filter that does nothing.
        check("identity", "8 of 16");
        check("deinterlace ! identity drop-probability=1", "0 of 16");
    }

    #[test]
    fn a_transcode_is_judged_by_its_pictures() {
        gst::init().unwrap();
        let check = |elements: &str, expect: &str| {
            let outcome = try_in(SOFTWARE, Operation::Transcode, elements);
            let Outcome::Failed { reason } = outcome else { panic!("{elements}: {outcome:?}") };
            assert!(reason.contains(expect), "{elements}: {reason}");
        };
        check("avdec_h264,videoscale", "expected decoder,scaler,encoder");
        let black = "videoconvert ! videobalance brightness=-1 ! videoconvert ! x264enc";
        check(&format!("avdec_h264 ! videoconvert,videoscale,{black}"), "wrong picture");
    }

    #[test]
    fn a_turn_is_judged_by_its_pictures() {
        gst::init().unwrap();
        let check = |element: &str, expect: &str| {
            let outcome = try_in(SOFTWARE, Operation::Turn, element);
            let Outcome::Failed { reason } = outcome else { panic!("{element}: {outcome:?}") };
            assert!(reason.contains(expect), "{element}: {reason}");
        };
        // The wrong way; only by half; not at all.
        check(
            "videoscale ! videoflip video-direction=180 ! videoflip",
            "by 90r: frame 0 has the wrong",
        );
        check("videoscale ! videoflip video-direction=180 ! identity name=x", "video-direction");
        check("videoscale", "no property \"video-direction\"");
    }

    #[test]
    fn a_tone_mapping_is_judged_by_its_greys() {
        gst::init().unwrap();
        let element = software(Operation::ToneMap);
        let check = |tone_map: &'static str, expect: &str| {
            let dialect = Dialect { tone_map, ..SOFTWARE };
            let outcome = try_in(dialect, Operation::ToneMap, element);
            let Outcome::Failed { reason } = outcome else { panic!("{tone_map}: {outcome:?}") };
            assert!(reason.contains(expect), "{tone_map}: {reason}");
        };
        check("hdr-tone-mapping=true", "no property \"hdr-tone-mapping\"");
        check("", "frame 0 is what it was, 170 is no brighter");
        let balance = |how: &str| {
            let text = format!("! video/x-raw,format=I420 ! videobalance {how} ! videoconvert");
            &*text.leak()
        };
        check(balance("brightness=-1"), "greys out of order");
        check(balance("brightness=1"), "greys out of order");
        // Greys far apart are not enough.
        check("! coloreffects preset=heat ! videoconvert", "isn't grey");
        check("! identity drop-probability=1", "0 of 8");
    }
}
