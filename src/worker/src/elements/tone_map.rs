//! `rgtonemap`: ten-bit HDR to eight-bit SDR, by the tables of [`crate::tone`].
//!
//! Invariant: size and shape stay; what comes out is BT.709, whatever the input's caps say.

use std::str::FromStr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_base as gst_base;
use gstreamer_base::subclass::base_transform::{InputBuffer, PrepareOutputBufferSuccess};
use gstreamer_base::subclass::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::subclass::prelude::*;

use crate::canvas::Canvases;
use crate::tone::{Curve, Mode, Tables, Tones, Transfer, narrow, peak};

/// Formats that go in.
const SOURCES: [gst_video::VideoFormat; 2] =
    [gst_video::VideoFormat::I42010le, gst_video::VideoFormat::P01010le];
/// Formats that come out; the first unless told otherwise.
const TARGETS: [gst_video::VideoFormat; 2] =
    [gst_video::VideoFormat::I420, gst_video::VideoFormat::Nv12];
/// Fields of caps that say how HDR is graded, which SDR has none of.
const GRADING: [&str; 2] = ["mastering-display-info", "content-light-level"];
/// `mastering-display-info` gives luminance in these parts of cd/m2.
const MASTERING_UNIT: f64 = 0.0001;

#[derive(Debug, Default)]
struct Settings {
    tones: Tones,
    peak: Option<f64>,
    format: Option<gst_video::VideoFormat>,
    canvases: usize,
}

#[derive(Default)]
pub struct ToneMap {
    settings: Mutex<Settings>,
    tables: Mutex<Option<Tables>>,
    canvases: Mutex<Option<Canvases>>,
}

impl ToneMap {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromStr for Transfer {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "pq" => Ok(Self::Pq),
            "hlg" => Ok(Self::Hlg),
            _ => Err(()),
        }
    }
}

impl FromStr for Curve {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        Ok(match name {
            "bt2390" => Self::Bt2390,
            "hable" => Self::Hable,
            "reinhard" => Self::Reinhard,
            "mobius" => Self::Mobius,
            "gamma" => Self::Gamma,
            "linear" => Self::Linear,
            "clip" => Self::Clip,
            "none" => Self::None,
            _ => return Err(()),
        })
    }
}

impl FromStr for Mode {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "max" => Ok(Self::Max),
            "rgb" => Ok(Self::Rgb),
            _ => Err(()),
        }
    }
}

/// What a stream says of its greatest light, cd/m2: that of its content, else of the display that it
/// was graded on (CTA-861, SMPTE ST 2086).
fn measured(caps: &gst::CapsRef) -> Option<f64> {
    let structure = caps.structure(0)?;
    let numbers = |field| -> Option<Vec<f64>> {
        let text = structure.get::<String>(field).ok()?;
        text.split(':').map(|part| part.parse().ok()).collect()
    };
    let content = numbers("content-light-level").and_then(|levels| levels.first().copied());
    let display = || {
        let info = numbers("mastering-display-info")?;
        // Three primaries and white by two, then greatest and least.
        info.get(8).map(|most| most * MASTERING_UNIT)
    };
    content.filter(|level| *level > 0.0).or_else(display)
}

#[glib::object_subclass]
impl ObjectSubclass for ToneMap {
    const NAME: &'static str = "RendergateToneMap";
    type Type = super::ToneMap;
    type ParentType = gst_video::VideoFilter;
}

impl ObjectImpl for ToneMap {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let text = |name: &str, blurb: &str| {
                glib::ParamSpecString::builder(name).blurb(blurb).mutable_ready().build()
            };
            let number = |name: &str, blurb: &str, least: f64, most: f64, usual: f64| {
                glib::ParamSpecDouble::builder(name)
                    .blurb(blurb)
                    .minimum(least)
                    .maximum(most)
                    .default_value(usual)
                    .mutable_ready()
                    .build()
            };
            vec![
                text("transfer", "How the source's light is coded: pq or hlg"),
                text("curve", "bt2390, hable, reinhard, mobius, gamma, linear, clip or none"),
                text("mode", "What the curve is laid upon: max or rgb"),
                number("peak", "The source's peak in tens of cd/m2, 0 for its own", 0.0, 1e6, 0.0),
                number("parameter", "The curve's own number", -1e6, 1e6, 0.0),
                number("desaturation", "How far bright colours fade", 0.0, 1e6, 0.0),
                number("brightness", "Added to luma, eight-bit steps", -100.0, 100.0, 0.0),
                number("contrast", "Factor of luma", 0.0, 10.0, 1.0),
                text("format", "Pixel format of the output, I420 or NV12"),
                glib::ParamSpecUInt::builder("canvases")
                    .blurb("Pictures whose memory is drawn on in turn, 0 for one each")
                    .mutable_ready()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let text = || value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        let number = || value.get::<f64>().unwrap_or(0.0);
        let mut settings = self.settings();
        let tones = &mut settings.tones;
        match pspec.name() {
            // The graph's description knows the names; a wrong one keeps the default.
            "transfer" => tones.transfer = text().parse().unwrap_or_default(),
            "curve" => tones.curve = text().parse().unwrap_or_default(),
            "mode" => tones.mode = text().parse().unwrap_or_default(),
            "peak" => settings.peak = Some(number()),
            "parameter" => tones.parameter = Some(number()),
            "desaturation" => tones.desaturation = number(),
            "brightness" => tones.brightness = number(),
            "contrast" => tones.contrast = number(),
            "format" => settings.format = Some(gst_video::VideoFormat::from_string(&text())),
            "canvases" => settings.canvases = value.get::<u32>().unwrap_or(0) as usize,
            _ => {}
        }
    }
}

impl GstObjectImpl for ToneMap {}

impl ElementImpl for ToneMap {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Rendergate tone mapper",
                "Filter/Effect/Video",
                "HDR of BT.2020 to SDR of BT.709",
                "Rendergate",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, direction, formats: [gst_video::VideoFormat; 2]| {
                let caps = gst_video::VideoCapsBuilder::new().format_list(formats).build();
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps)
                    .expect("valid template")
            };
            vec![
                template("sink", gst::PadDirection::Sink, SOURCES),
                template("src", gst::PadDirection::Src, TARGETS),
            ]
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for ToneMap {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::NeverInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let formats = if direction == gst::PadDirection::Sink { TARGETS } else { SOURCES };
        let mut changed = caps.clone();
        for structure in changed.make_mut().iter_mut() {
            structure.set("format", gst::List::new(formats.map(|format| format.to_str())));
            structure.remove_fields(["colorimetry", "chroma-site"]);
            structure.remove_fields(GRADING);
        }
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&changed, gst::CapsIntersectMode::First),
            None => changed,
        })
    }

    fn fixate_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        mut other: gst::Caps,
    ) -> gst::Caps {
        if direction == gst::PadDirection::Sink {
            other.truncate();
            let fixed = other.make_mut();
            let format = self.settings().format.unwrap_or(TARGETS[0]);
            fixed.set("format", format.to_str());
            fixed.set("colorimetry", "bt709");
        }
        self.parent_fixate_caps(direction, caps, other)
    }

    fn prepare_output_buffer(
        &self,
        input: InputBuffer<'_>,
    ) -> Result<PrepareOutputBufferSuccess, gst::FlowError> {
        let mut canvases = self.canvases.lock().unwrap_or_else(PoisonError::into_inner);
        match canvases.as_mut() {
            Some(canvases) => super::drawn_on(canvases, &input),
            None => self.parent_prepare_output_buffer(input),
        }
    }
}

impl VideoFilterImpl for ToneMap {
    fn set_info(
        &self,
        in_caps: &gst::Caps,
        _source: &gst_video::VideoInfo,
        _out_caps: &gst::Caps,
        target: &gst_video::VideoInfo,
    ) -> Result<(), gst::LoggableError> {
        let settings = self.settings();
        let tones = Tones { peak: peak(settings.peak, measured(in_caps)), ..settings.tones };
        let canvases = settings.canvases;
        drop(settings);
        *self.tables.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tables::new(&tones));
        *self.canvases.lock().unwrap_or_else(PoisonError::into_inner) =
            (canvases > 0).then(|| Canvases::new(canvases, target.size()));
        Ok(())
    }

    fn transform_frame(
        &self,
        source: &gst_video::VideoFrameRef<&gst::BufferRef>,
        target: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = tables.as_ref().ok_or(gst::FlowError::NotNegotiated)?;
        map_frame(tables, source, target).map_err(|_| gst::FlowError::Error)?;
        Ok(gst::FlowSuccess::Ok)
    }
}

/// Two lines of luma and the chroma that they share, unpacked.
#[derive(Default)]
struct Lines {
    luma: [Vec<u16>; 2],
    blue: Vec<u16>,
    red: Vec<u16>,
    mapped: [Vec<u8>; 2],
    mapped_blue: Vec<u8>,
    mapped_red: Vec<u8>,
}

/// Ten-bit samples of a line: every `step`th of two bytes, from the `first` on.
fn unpack(line: &[u8], first: usize, step: usize, high: bool, into: &mut Vec<u16>) {
    let samples = line.chunks_exact(2).skip(first).step_by(step);
    let shift = if high { 6 } else { 0 };
    into.clear();
    into.extend(samples.map(|bytes| (u16::from_le_bytes([bytes[0], bytes[1]]) >> shift) & 0x3ff));
}

fn map_frame(
    tables: &Tables,
    source: &gst_video::VideoFrameRef<&gst::BufferRef>,
    target: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
) -> Result<(), glib::BoolError> {
    let (width, height) = (source.width() as usize, source.height() as usize);
    let packed = source.format() == gst_video::VideoFormat::P01010le;
    let strides: Vec<usize> = source.plane_stride().iter().map(|stride| *stride as usize).collect();
    let out_strides: Vec<usize> =
        target.plane_stride().iter().map(|stride| *stride as usize).collect();
    let interleaved = target.format() == gst_video::VideoFormat::Nv12;
    let luma = source.plane_data(0)?;
    let blue = source.plane_data(1)?;
    let red = if packed { blue } else { source.plane_data(2)? };
    let red_stride = if packed { strides[1] } else { strides[2] };
    let [out_luma, out_blue, out_red, ..] = target.planes_data_mut();
    let mut lines = Lines::default();
    for pair in 0..height / 2 {
        for (half, samples) in lines.luma.iter_mut().enumerate() {
            let at = (2 * pair + half) * strides[0];
            unpack(&luma[at..at + 2 * width], 0, 1, packed, samples);
        }
        let (first, step, bytes) = if packed { (1, 2, 2 * width) } else { (0, 1, width) };
        unpack(&blue[pair * strides[1]..][..bytes], 0, step, packed, &mut lines.blue);
        unpack(&red[pair * red_stride..][..bytes], first, step, packed, &mut lines.red);
        lines.map(tables);
        for (half, mapped) in lines.mapped.iter().enumerate() {
            let at = (2 * pair + half) * out_strides[0];
            out_luma[at..at + mapped.len()].copy_from_slice(mapped);
        }
        let chroma = &mut out_blue[pair * out_strides[1]..];
        if interleaved {
            let both = lines.mapped_blue.iter().zip(&lines.mapped_red);
            for (place, (blue, red)) in chroma.chunks_exact_mut(2).zip(both) {
                place.copy_from_slice(&[*blue, *red]);
            }
        } else {
            chroma[..width / 2].copy_from_slice(&lines.mapped_blue);
            out_red[pair * out_strides[2]..][..width / 2].copy_from_slice(&lines.mapped_red);
        }
    }
    Ok(())
}

impl Lines {
    /// Maps the pixels, four with the same chroma at a time.
    fn map(&mut self, tables: &Tables) {
        let rounded = |value: f32| (value + 0.5) as u8;
        self.mapped.iter_mut().for_each(Vec::clear);
        self.mapped_blue.clear();
        self.mapped_red.clear();
        for (at, (blue, red)) in self.blue.iter().zip(&self.red).enumerate() {
            let chroma = Tables::chroma(*blue, *red);
            let mut sum = [0.0; 3];
            for (samples, mapped) in self.luma.iter().zip(&mut self.mapped) {
                for luma in &samples[2 * at..2 * at + 2] {
                    let shown = tables.display(*luma, chroma);
                    mapped.push(rounded(narrow(shown)[0]));
                    sum = [0, 1, 2].map(|part| sum[part] + shown[part]);
                }
            }
            let [_, blue, red] = narrow(sum.map(|part| part / 4.0));
            self.mapped_blue.push(rounded(blue));
            self.mapped_red.push(rounded(red));
        }
    }
}
