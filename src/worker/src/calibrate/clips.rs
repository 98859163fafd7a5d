//! What goes in: raw pictures, and clips that are made of them by software encoders.
//!
//! Where an encoder is missing, or too slow for this, the probe's own clip takes its place: small, so
//! that the figure is too low rather than too high.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use gpu::Operation;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use super::SIZE;

/// Raw pictures that go round.
const RAW: u32 = 6;
/// Coded ones.
const CODED: u32 = 12;
/// Time to make a clip.
const LIMIT: Duration = Duration::from_secs(4);
/// Between two pictures.
const TICK: gst::ClockTime = gst::ClockTime::from_mseconds(40);

/// What a decoder is measured with.
#[derive(Debug)]
pub(super) struct Clip {
    /// As in [`gpu::Task`].
    pub codec: &'static str,
    /// The GPU's operation that it is for.
    pub operation: Operation,
    /// What cuts it up for a GPU's decoder.
    pub parser: &'static str,
    raw: &'static str,
    encoder: &'static str,
}

/// One for each decoder that is measured.
pub(super) const CLIPS: [Clip; 7] = [
    Clip {
        codec: "h264",
        operation: Operation::DecodeH264,
        parser: "h264parse",
        raw: "I420",
        encoder: "x264enc speed-preset=veryfast bframes=0 key-int-max=12 ! \
                  h264parse config-interval=-1 ! \
                  video/x-h264,stream-format=byte-stream,alignment=au",
    },
    Clip {
        codec: "hevc",
        operation: Operation::DecodeHevc,
        parser: "h265parse",
        raw: "I420",
        encoder: "x265enc speed-preset=ultrafast key-int-max=12 option-string=bframes=0 ! \
                  h265parse config-interval=-1 ! \
                  video/x-h265,stream-format=byte-stream,alignment=au",
    },
    Clip {
        codec: "hevc10",
        operation: Operation::DecodeHevc10,
        parser: "h265parse",
        raw: "I420_10LE",
        encoder: "x265enc speed-preset=ultrafast key-int-max=12 option-string=bframes=0 ! \
                  h265parse config-interval=-1 ! \
                  video/x-h265,stream-format=byte-stream,alignment=au",
    },
    Clip {
        codec: "vp9",
        operation: Operation::DecodeVp9,
        parser: "vp9parse",
        raw: "I420",
        encoder: "vp9enc deadline=1 cpu-used=8 threads=4 keyframe-max-dist=12 ! vp9parse ! \
                  video/x-vp9,alignment=frame",
    },
    Clip {
        codec: "vp8",
        operation: Operation::DecodeVp8,
        parser: "identity",
        raw: "I420",
        encoder: "vp8enc deadline=1 cpu-used=8 threads=4 keyframe-max-dist=12",
    },
    Clip {
        codec: "av1",
        operation: Operation::DecodeAv1,
        parser: "av1parse",
        raw: "I420",
        encoder: "av1enc usage-profile=realtime cpu-used=9 threads=4 lag-in-frames=0 ! av1parse ! \
                  video/x-av1,stream-format=obu-stream,alignment=tu",
    },
    Clip {
        codec: "mpeg2",
        operation: Operation::DecodeMpeg2,
        parser: "mpegvideoparse",
        raw: "I420",
        encoder: "avenc_mpeg2video bitrate=8000000 max-bframes=0 ! mpegvideoparse",
    },
];

/// Buffers that go round and round.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    /// Of each.
    pub caps: String,
    /// In the picture of each.
    pub megapixels: f64,
    buffers: Vec<gst::Buffer>,
    interlaced: bool,
}

impl Frames {
    /// Raw pictures of that format and size, with `more` said of them in their caps.
    pub(super) fn raw(format: &str, size: (u32, u32), more: &str) -> Result<Self, String> {
        let (width, height) = size;
        let caps =
            format!("video/x-raw,format={format},width={width},height={height},framerate=25/1");
        // Rings that move: detail everywhere, and something to be found by motion search.
        let source = format!(
            "videotestsrc num-buffers={RAW} pattern=zone-plate kx2=12 ky2=12 kt=4 ! videoconvert ! {caps}"
        );
        let pulled = pull(&source, RAW)?;
        let caps = if more.is_empty() { caps } else { format!("{caps},{more}") };
        let interlaced = more.contains("interleaved");
        Ok(Self { caps, megapixels: megapixels(size), interlaced, buffers: pulled.buffers })
    }

    /// The one that is `number` in order, with its time.
    pub(super) fn buffer(&self, number: u64) -> gst::Buffer {
        let mut buffer = self.buffers[number as usize % self.buffers.len()].copy();
        let made = buffer.make_mut();
        made.set_pts(TICK * number);
        made.set_dts(TICK * number);
        made.set_duration(TICK);
        if self.interlaced {
            let flags = gst_video::VideoBufferFlags::INTERLACED | gst_video::VideoBufferFlags::TFF;
            made.set_video_flags(flags);
        }
        buffer
    }
}

impl Clip {
    /// The clip: what is in the folder, or what is made and left there.
    pub(super) fn frames(&self, folder: &Path) -> Result<Frames, String> {
        let (bytes, caps) = (self.file(folder, "clip"), self.file(folder, "caps"));
        if let (Ok(bytes), Ok(caps)) = (fs::read(&bytes), fs::read_to_string(&caps)) {
            return Ok(Frames { caps, ..self.of(cut(&bytes), SIZE) });
        }
        let made = self.make();
        let Ok(made) = made else { return self.small() };
        let mut joined = Vec::new();
        for buffer in &made.buffers {
            let map = buffer.map_readable().map_err(|error| error.to_string())?;
            joined.extend((map.len() as u64).to_le_bytes());
            joined.extend_from_slice(&map);
        }
        let kept = fs::write(&bytes, joined).and_then(|()| fs::write(&caps, &made.caps));
        kept.map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(made)
    }

    fn file(&self, folder: &Path, extension: &str) -> std::path::PathBuf {
        folder.join(format!("{}.{extension}", self.codec))
    }

    fn of(&self, buffers: Vec<gst::Buffer>, size: (u32, u32)) -> Frames {
        Frames { caps: String::new(), megapixels: megapixels(size), buffers, interlaced: false }
    }

    fn make(&self) -> Result<Frames, String> {
        let (width, height) = SIZE;
        let source = format!(
            "videotestsrc num-buffers={CODED} pattern=zone-plate kx2=12 ky2=12 kt=4 ! videoconvert ! \
             video/x-raw,format={},width={width},height={height},framerate=25/1 ! {}",
            self.raw, self.encoder
        );
        pull(&source, CODED)
    }

    /// The probe's.
    fn small(&self) -> Result<Frames, String> {
        let clip = probe::clip(self.operation).ok_or("there is no clip")?;
        let buffers = clip.buffers().into_iter().map(gst::Buffer::from_slice).collect();
        let picture = probe::Picture::FULL;
        let frames = self.of(buffers, (picture.width, picture.height));
        Ok(Frames { caps: clip.caps.to_owned(), ..frames })
    }
}

fn megapixels((width, height): (u32, u32)) -> f64 {
    f64::from(width) * f64::from(height) / 1e6
}

/// Buffers of a file: each after its length.
fn cut(mut bytes: &[u8]) -> Vec<gst::Buffer> {
    let mut buffers = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let Some((one, rest)) = rest.split_at_checked(u64::from_le_bytes(*length) as usize) else {
            break;
        };
        buffers.push(gst::Buffer::from_slice(one.to_vec()));
        bytes = rest;
    }
    buffers
}

/// What a description gives, all of `expected`.
fn pull(description: &str, expected: u32) -> Result<Frames, String> {
    let pipeline = gst::parse::launch(&format!("{description} ! appsink name=out sync=false"))
        .map_err(|error| format!("can't be built: {error}"))?
        .downcast::<gst::Pipeline>()
        .map_err(|_| "can't be built: expected a pipeline")?;
    let sink = pipeline.by_name("out").and_downcast::<gst_app::AppSink>();
    let sink = sink.ok_or("can't be built: expected appsink")?;
    let result = pull_from(&pipeline, &sink, expected);
    let _ = pipeline.set_state(gst::State::Null);
    result
}

fn pull_from(
    pipeline: &gst::Pipeline,
    sink: &gst_app::AppSink,
    expected: u32,
) -> Result<Frames, String> {
    pipeline.set_state(gst::State::Playing).map_err(|_| "can't be started")?;
    let until = Instant::now() + LIMIT;
    let mut frames = Frames {
        caps: String::new(),
        megapixels: megapixels(SIZE),
        buffers: Vec::new(),
        interlaced: false,
    };
    while frames.buffers.len() < expected as usize {
        let left = until.saturating_duration_since(Instant::now());
        let sample = sink.try_pull_sample(gst::ClockTime::try_from(left).ok());
        let Some(sample) = sample else {
            return Err(format!("{} of {expected} pictures were made", frames.buffers.len()));
        };
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps()) else { continue };
        if frames.caps.is_empty() {
            frames.caps = caps_text(caps);
        }
        frames.buffers.push(buffer);
    }
    Ok(frames)
}

/// Without what quotation marks would have to stand around.
fn caps_text(caps: &gst::CapsRef) -> String {
    let mut short = caps
        .structure(0)
        .map(|structure| structure.to_owned())
        .unwrap_or_else(|| gst::Structure::new_empty("video/x-raw"));
    for field in ["codec_data", "streamheader", "tier", "level"] {
        short.remove_field(field);
    }
    short.to_string().trim_end_matches(';').to_owned()
}
