//! `rgmix`: channels mixed by a formula (ffmpeg's `pan`), whatever layout the source turns out to have.
//!
//! `audioconvert` takes a matrix for one number of channels, which a container is known to state
//! wrongly; here the matrix follows from what the decoder gives.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ffmpeg_args::Mix as Formula;
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_audio as gst_audio;
use gstreamer_base as gst_base;
use gstreamer_base::subclass::prelude::*;

use super::pad_templates;
use crate::mix::{gains, target};

/// Interleaved floats of the machine.
const SAMPLE: usize = size_of::<f32>();

#[derive(Default)]
pub struct Mix {
    formula: Mutex<Option<Formula>>,
    matrix: Mutex<Vec<Vec<f32>>>,
}

impl Mix {
    fn formula(&self) -> MutexGuard<'_, Option<Formula>> {
        self.formula.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn matrix(&self) -> MutexGuard<'_, Vec<Vec<f32>>> {
        self.matrix.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Mix {
    const NAME: &'static str = "RendergateMix";
    type Type = super::Mix;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for Mix {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let blurb = "The plan's mix as JSON; one that can't be read stops the stream";
            vec![glib::ParamSpecString::builder("mix").nick("Mix").blurb(blurb).build()]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, _spec: &glib::ParamSpec) {
        let text = value.get::<Option<String>>().ok().flatten();
        *self.formula() = text.and_then(|text| serde_json::from_str(&text).ok());
    }

    fn property(&self, _id: usize, _spec: &glib::ParamSpec) -> glib::Value {
        let formula = self.formula();
        formula.as_ref().and_then(|mix| serde_json::to_string(mix).ok()).to_value()
    }
}

impl GstObjectImpl for Mix {}

impl ElementImpl for Mix {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Rendergate mix",
                "Filter/Converter/Audio",
                "Channels by a formula",
                "Rendergate",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst_audio::AudioCapsBuilder::new_interleaved()
                .format(gst_audio::AUDIO_FORMAT_F32)
                .build();
            pad_templates(&caps)
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for Mix {
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
        let (channels, mask) = target(self.formula().as_ref()?)?;
        let mut others = caps.clone();
        for structure in others.make_mut().iter_mut() {
            structure.remove_field("channel-mask");
            if direction == gst::PadDirection::Sink {
                structure.set("channels", i32::try_from(channels).ok()?);
                if mask != 0 {
                    structure.set("channel-mask", gst::Bitmask::new(mask));
                }
            } else {
                structure.remove_field("channels");
            }
        }
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&others, gst::CapsIntersectMode::First),
            None => others,
        })
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let refusal = || gst::loggable_error!(gst::CAT_RUST, "no mix for {incaps}");
        let info = gst_audio::AudioInfo::from_caps(incaps).map_err(|_| refusal())?;
        let formula = self.formula();
        let formula = formula.as_ref().ok_or_else(refusal)?;
        let mask =
            incaps.structure(0).and_then(|caps| caps.get::<gst::Bitmask>("channel-mask").ok());
        let mask = mask.map_or(0, |mask| mask.0);
        *self.matrix() = gains(formula, info.channels() as usize, mask);
        Ok(())
    }

    fn unit_size(&self, caps: &gst::Caps) -> Option<usize> {
        Some(gst_audio::AudioInfo::from_caps(caps).ok()?.bpf() as usize)
    }

    fn transform(
        &self,
        inbuf: &gst::Buffer,
        outbuf: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let matrix = self.matrix();
        let sources = matrix.first().map_or(0, Vec::len);
        let (from, mut to) = match (inbuf.map_readable(), outbuf.map_writable()) {
            (Ok(from), Ok(to)) if sources > 0 => (from, to),
            _ => return Err(gst::FlowError::Error),
        };
        let frames = from.chunks_exact(sources * SAMPLE);
        let mut source = vec![0.0; sources];
        for (frame, mixed) in frames.zip(to.chunks_exact_mut(matrix.len() * SAMPLE)) {
            for (value, bytes) in source.iter_mut().zip(frame.chunks_exact(SAMPLE)) {
                *value = f32::from_ne_bytes(bytes.try_into().expect("four bytes"));
            }
            for (row, bytes) in matrix.iter().zip(mixed.chunks_exact_mut(SAMPLE)) {
                let sum: f32 = row.iter().zip(&source).map(|(gain, value)| gain * value).sum();
                bytes.copy_from_slice(&sum.to_ne_bytes());
            }
        }
        Ok(gst::FlowSuccess::Ok)
    }
}
