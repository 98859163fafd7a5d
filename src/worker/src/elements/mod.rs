//! The worker's own GStreamer elements.
//!
//! `rgcadence` and `rgtrim` stand between decoder and encoder and translate to source time;
//! `rgscale` is ffmpeg's scaler, `rgtonemap` leads HDR to SDR, `rgsubtitles` draws upon the picture,
//! `rgmix` mixes channels; these are registered within the process and named in `pipelines/` like any
//! other element. [`FileSource`] stands at the head of every graph.

mod cadence;
mod file;
mod mix;
mod scale;
mod subtitles;
mod tone_map;
mod trim;

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_base::subclass::base_transform::{InputBuffer, PrepareOutputBufferSuccess};

use crate::canvas::Canvases;
use crate::reading::Reading;
use crate::subtitles::Burner;

/// `GST_BUFFER_OFFSET_NONE`.
const NO_OFFSET: u64 = u64::MAX;

pub use cadence::CadenceConfig;
pub use trim::TrimConfig;

glib::wrapper! {
    /// Frames onto the output's grid, keyframes requested, source time.
    pub struct Cadence(ObjectSubclass<cadence::Cadence>) @extends gst::Element, gst::Object;
}

glib::wrapper! {
    /// Sound from the start of the output on, source time.
    pub struct Trim(ObjectSubclass<trim::Trim>) @extends gst::Element, gst::Object;
}

glib::wrapper! {
    /// An input by its descriptors.
    pub struct FileSource(ObjectSubclass<file::FileSource>)
        @extends gstreamer_base::BaseSrc, gst::Element, gst::Object;
}

glib::wrapper! {
    /// Size and pixel format through libswscale.
    pub struct Scale(ObjectSubclass<scale::Scale>)
        @extends gstreamer_video::VideoFilter, gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

glib::wrapper! {
    /// HDR to SDR.
    pub struct ToneMap(ObjectSubclass<tone_map::ToneMap>)
        @extends gstreamer_video::VideoFilter, gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

glib::wrapper! {
    /// Channels by a formula.
    pub struct Mix(ObjectSubclass<mix::Mix>)
        @extends gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

glib::wrapper! {
    /// Subtitles into the picture.
    pub struct Subtitles(ObjectSubclass<subtitles::Subtitles>) @extends gst::Element, gst::Object;
}

impl Cadence {
    /// Must be called before the element gets data.
    pub fn configure(&self, config: CadenceConfig) {
        use glib::subclass::prelude::*;
        self.imp().configure(config);
    }
}

impl FileSource {
    /// A source of this input.
    pub fn new(reading: Arc<Reading>) -> Self {
        use glib::subclass::prelude::*;
        let source: Self = glib::Object::new();
        source.imp().set_reading(reading);
        source
    }
}

impl Trim {
    /// Must be called before the element gets data.
    pub fn configure(&self, config: TrimConfig) {
        use glib::subclass::prelude::*;
        self.imp().configure(config);
    }
}

impl Subtitles {
    /// Must be called before the element gets data.
    pub fn configure(&self, burner: Burner) {
        use glib::subclass::prelude::*;
        self.imp().configure(burner);
    }
}

/// Makes the elements known to this process.
///
/// # Errors
/// If GStreamer isn't initialised or a name is taken.
pub fn register() -> Result<(), glib::BoolError> {
    gst::Element::register(None, "rgcadence", gst::Rank::NONE, Cadence::static_type())?;
    gst::Element::register(None, "rgtrim", gst::Rank::NONE, Trim::static_type())?;
    gst::Element::register(None, "rgscale", gst::Rank::NONE, Scale::static_type())?;
    gst::Element::register(None, "rgmix", gst::Rank::NONE, Mix::static_type())?;
    gst::Element::register(None, "rgtonemap", gst::Rank::NONE, ToneMap::static_type())?;
    gst::Element::register(None, "rgsubtitles", gst::Rank::NONE, Subtitles::static_type())
}

/// A filter's output buffer on the next canvas, with the times and flags of its input.
fn drawn_on(
    canvases: &mut Canvases,
    input: &InputBuffer<'_>,
) -> Result<PrepareOutputBufferSuccess, gst::FlowError> {
    let source: &gst::BufferRef = match input {
        InputBuffer::Writable(buffer) => buffer,
        InputBuffer::Readable(buffer) => buffer,
    };
    let mut buffer = canvases.buffer();
    // No more than these: a copy from a pool holds on to its original by a meta, which would stay in
    // the encoder with the canvas' buffer.
    let kept = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS;
    source.copy_into(buffer.make_mut(), kept, ..).map_err(|_| gst::FlowError::Error)?;
    Ok(PrepareOutputBufferSuccess::Buffer(buffer))
}

/// An always-present sink and source pad with the same caps.
fn pad_templates(caps: &gst::Caps) -> Vec<gst::PadTemplate> {
    [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
        .into_iter()
        .map(|(name, direction)| {
            gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps)
                .expect("valid template")
        })
        .collect()
}
