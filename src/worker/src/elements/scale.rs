//! `rgscale`: size and pixel format through libswscale, 4:2:0 out.
//!
//! Invariant: what comes out has one size, shape and colorimetry, that of the first picture. A
//! source may change (broadcasts do); the headers of a stream are written once, and ffmpeg scales
//! to the first size too.

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
use crate::size::{Target, target_size};
use crate::swscale::{Picture, Scaler};

/// Formats that come out; the first unless told otherwise.
const TARGETS: [gst_video::VideoFormat; 3] =
    [gst_video::VideoFormat::I420, gst_video::VideoFormat::Nv12, gst_video::VideoFormat::I42010le];

/// Formats that libswscale reads: GStreamer's, ffmpeg's name, chroma rows as a shift.
const FORMATS: [(gst_video::VideoFormat, &std::ffi::CStr, u32); 12] = [
    (gst_video::VideoFormat::I420, c"yuv420p", 1),
    (gst_video::VideoFormat::Nv12, c"nv12", 1),
    (gst_video::VideoFormat::Y42b, c"yuv422p", 0),
    (gst_video::VideoFormat::Y444, c"yuv444p", 0),
    (gst_video::VideoFormat::Y41b, c"yuv411p", 0),
    (gst_video::VideoFormat::I42010le, c"yuv420p10le", 1),
    (gst_video::VideoFormat::I42210le, c"yuv422p10le", 0),
    (gst_video::VideoFormat::Y44410le, c"yuv444p10le", 0),
    (gst_video::VideoFormat::I42012le, c"yuv420p12le", 1),
    (gst_video::VideoFormat::P01010le, c"p010le", 1),
    (gst_video::VideoFormat::Gray8, c"gray", 0),
    (gst_video::VideoFormat::Yuy2, c"yuyv422", 0),
];

/// Bytes behind a picture that may be read, as much as ffmpeg keeps there itself
/// (`AV_INPUT_BUFFER_PADDING_SIZE`).
const PADDING: usize = 64;
/// Rows begin at multiples of 32 bytes, as a mask.
const ALIGN_MASK: usize = 31;

#[derive(Debug, Default)]
struct Settings {
    target: Target,
    colorimetry: Option<String>,
    canvases: usize,
    turned: bool,
    format: Option<gst_video::VideoFormat>,
}

/// What the first picture has settled.
#[derive(Debug, Clone)]
struct Settled {
    width: u32,
    height: u32,
    par: gst::Fraction,
    colorimetry: Option<String>,
}

#[derive(Default)]
pub struct Scale {
    settings: Mutex<Settings>,
    settled: Mutex<Option<Settled>>,
    scaler: Mutex<Option<Scaler>>,
    canvases: Mutex<Option<Canvases>>,
}

fn picture(info: &gst_video::VideoInfo) -> Option<Picture> {
    let (_, format, chroma_shift) = FORMATS.into_iter().find(|(f, ..)| *f == info.format())?;
    Some(Picture { width: info.width(), height: info.height(), format, chroma_shift })
}

impl Scale {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes out, if this is the first picture's size; later ones become like the first.
    fn settle(&self, caps: &gst::Caps, info: &gst_video::VideoInfo) -> Settled {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || {
            let settings = self.settings();
            let (width, height) = if settings.turned {
                let (height, width) = target_size(settings.target, info.height(), info.width());
                (width, height)
            } else {
                target_size(settings.target, info.width(), info.height())
            };
            // The picture keeps its shape on screen: what scaling changed, the pixels make up.
            let par = info.par()
                * gst::Fraction::new(info.width() as i32, width as i32)
                * gst::Fraction::new(height as i32, info.height() as i32);
            let colorimetry = settings
                .colorimetry
                .clone()
                .or_else(|| caps.structure(0)?.get::<String>("colorimetry").ok());
            Settled { width, height, par, colorimetry }
        };
        settled.get_or_insert_with(first).clone()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Scale {
    const NAME: &'static str = "RendergateScale";
    type Type = super::Scale;
    type ParentType = gst_video::VideoFilter;
}

impl ObjectImpl for Scale {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let size = |name: &str, blurb: &str| {
                glib::ParamSpecUInt::builder(name).blurb(blurb).mutable_ready().build()
            };
            vec![
                size("width", "Exact width in pixels, 0 to leave it open"),
                size("height", "Exact height in pixels, 0 to leave it open"),
                size("max-width", "Width of the box to fit into, 0 for none"),
                size("max-height", "Height of the box to fit into, 0 for none"),
                glib::ParamSpecString::builder("colorimetry")
                    .blurb("Colorimetry that the output is marked with")
                    .build(),
                glib::ParamSpecString::builder("format")
                    .blurb("Pixel format of the output: I420, NV12 or I420_10LE")
                    .build(),
                glib::ParamSpecBoolean::builder("turned")
                    .blurb("Sizes are those after a quarter turn that comes behind this element")
                    .mutable_ready()
                    .build(),
                size("canvases", "Pictures whose memory is drawn on in turn, 0 for one each"),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let number = || value.get::<u32>().unwrap_or(0);
        let mut settings = self.settings();
        match pspec.name() {
            "width" => settings.target.width = number(),
            "height" => settings.target.height = number(),
            "max-width" => settings.target.max_width = number(),
            "max-height" => settings.target.max_height = number(),
            "colorimetry" => settings.colorimetry = value.get().ok(),
            "format" => {
                let name = value.get::<Option<String>>().ok().flatten();
                settings.format = name.map(|name| gst_video::VideoFormat::from_string(&name));
            }
            "turned" => settings.turned = value.get().unwrap_or(false),
            "canvases" => settings.canvases = number() as usize,
            _ => {}
        }
    }
}

impl GstObjectImpl for Scale {}

impl ElementImpl for Scale {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Rendergate scaler",
                "Filter/Converter/Video/Scaler",
                "Size and pixel format through libswscale",
                "Rendergate",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, direction, caps: gst::Caps| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps)
                    .expect("valid template")
            };
            let sink = gst_video::VideoCapsBuilder::new()
                .format_list(FORMATS.map(|(format, ..)| format))
                .build();
            let src = gst_video::VideoCapsBuilder::new().format_list(TARGETS).build();
            vec![
                template("sink", gst::PadDirection::Sink, sink),
                template("src", gst::PadDirection::Src, src),
            ]
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for Scale {
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
        let other = match direction {
            gst::PadDirection::Sink => self.obj().src_pad_template_caps(),
            _ => self.obj().sink_pad_template_caps(),
        };
        let mut changed = gst::Caps::new_empty();
        for structure in caps.iter() {
            let mut open = structure.to_owned();
            for field in ["format", "width", "height", "pixel-aspect-ratio"] {
                open.remove_field(field);
            }
            for field in ["colorimetry", "chroma-site"] {
                open.remove_field(field);
            }
            changed.merge_structure(open);
        }
        let changed = changed.intersect_with_mode(&other, gst::CapsIntersectMode::First);
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
        if direction == gst::PadDirection::Sink
            && let Ok(info) = gst_video::VideoInfo::from_caps(caps)
        {
            let Settled { width, height, par, colorimetry } = self.settle(caps, &info);
            other.truncate();
            let fixed = other.make_mut();
            let format = self.settings().format.unwrap_or(TARGETS[0]);
            fixed.set("format", format.to_str());
            fixed.set("width", width as i32);
            fixed.set("height", height as i32);
            fixed.set("pixel-aspect-ratio", par);
            if let Some(colorimetry) = colorimetry {
                fixed.set("colorimetry", colorimetry);
            }
        }
        self.parent_fixate_caps(direction, caps, other)
    }

    /// libswscale's vector code reads beyond the last row: whoever allocates for this element is asked
    /// for as much.
    fn propose_allocation(
        &self,
        decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        let flags = gst::MemoryFlags::empty();
        let padded = gst::AllocationParams::new(flags, ALIGN_MASK, 0, PADDING);
        query.add_allocation_param(gst::Allocator::NONE, padded);
        self.parent_propose_allocation(decide_query, query)
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

impl VideoFilterImpl for Scale {
    fn set_info(
        &self,
        _in_caps: &gst::Caps,
        source: &gst_video::VideoInfo,
        _out_caps: &gst::Caps,
        target: &gst_video::VideoInfo,
    ) -> Result<(), gst::LoggableError> {
        let scaler = picture(source)
            .zip(picture(target))
            .and_then(|(source, target)| Scaler::new(source, target));
        let same = source.width() == target.width()
            && source.height() == target.height()
            && source.format() == target.format();
        // Even an unchanged picture is drawn anew: an encoder that kept the decoder's own would
        // make it allocate twenty more.
        let count = self.settings().canvases;
        self.obj().set_passthrough(same && count == 0);
        *self.canvases.lock().unwrap_or_else(PoisonError::into_inner) =
            (count > 0).then(|| Canvases::new(count, target.size()));
        *self.scaler.lock().unwrap_or_else(PoisonError::into_inner) = scaler;
        Ok(())
    }

    fn transform_frame(
        &self,
        source: &gst_video::VideoFrameRef<&gst::BufferRef>,
        target: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut scaler = self.scaler.lock().unwrap_or_else(PoisonError::into_inner);
        let scaler = scaler.as_mut().ok_or(gst::FlowError::NotNegotiated)?;
        let planes: Vec<_> = (0..source.n_planes())
            .filter_map(|plane| {
                let stride = usize::try_from(source.plane_stride()[plane as usize]).ok()?;
                Some((source.plane_data(plane).ok()?, stride))
            })
            .collect();
        let strides: Vec<usize> =
            target.plane_stride().iter().map(|stride| *stride as usize).collect();
        let mut targets: Vec<_> = target
            .planes_data_mut()
            .into_iter()
            .zip(strides)
            .filter(|(plane, _)| !plane.is_empty())
            .collect();
        if scaler.scale(&planes, &mut targets) {
            Ok(gst::FlowSuccess::Ok)
        } else {
            Err(gst::FlowError::Error)
        }
    }
}

trait TemplateCaps {
    fn src_pad_template_caps(&self) -> gst::Caps;
    fn sink_pad_template_caps(&self) -> gst::Caps;
}

impl TemplateCaps for super::Scale {
    fn src_pad_template_caps(&self) -> gst::Caps {
        Scale::pad_templates()[1].caps().clone()
    }
    fn sink_pad_template_caps(&self) -> gst::Caps {
        Scale::pad_templates()[0].caps().clone()
    }
}
