//! The worker's own GStreamer elements.
//!
//! `rgcadence` and `rgtrim` stand between decoder and encoder and translate to source time;
//! `rgscale` is ffmpeg's scaler; these are registered within the process and named in `pipelines/`
//! like any other element. [`FileSource`] stands at the head of every graph.

mod cadence;
mod file;
mod scale;
mod trim;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

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
    /// A file by its descriptor.
    pub struct FileSource(ObjectSubclass<file::FileSource>)
        @extends gstreamer_base::BaseSrc, gst::Element, gst::Object;
}

glib::wrapper! {
    /// Size and pixel format through libswscale.
    pub struct Scale(ObjectSubclass<scale::Scale>)
        @extends gstreamer_video::VideoFilter, gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

impl Cadence {
    /// Must be called before the element gets data.
    pub fn configure(&self, config: CadenceConfig) {
        use glib::subclass::prelude::*;
        self.imp().configure(config);
    }
}

impl FileSource {
    /// A source of this file.
    pub fn new(file: Arc<OwnedFd>) -> Self {
        use glib::subclass::prelude::*;
        let source: Self = glib::Object::new();
        source.imp().set_file(file);
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

/// Makes the elements known to this process.
///
/// # Errors
/// If GStreamer isn't initialised or a name is taken.
pub fn register() -> Result<(), glib::BoolError> {
    gst::Element::register(None, "rgcadence", gst::Rank::NONE, Cadence::static_type())?;
    gst::Element::register(None, "rgtrim", gst::Rank::NONE, Trim::static_type())?;
    gst::Element::register(None, "rgscale", gst::Rank::NONE, Scale::static_type())
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
