//! `rgsubtitles`: draws subtitles upon pictures that have their final size and colours.
//!
//! A picture's time is that of the source's frame that it shows, which `rgcadence` leaves in the
//! buffer's offset, so that a subtitle appears with the same frame as in ffmpeg, whose filter stands
//! before frames are put on a grid.
//!
//! Invariant: a picture on which nothing is to be seen passes as it came.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_video as gst_video;

use crate::subtitles::{Burner, picture};

/// Formats that can be drawn upon.
const FORMATS: [gst_video::VideoFormat; 2] =
    [gst_video::VideoFormat::I420, gst_video::VideoFormat::Nv12];

#[derive(Default)]
struct State {
    burner: Option<Burner>,
    info: Option<gst_video::VideoInfo>,
}

pub struct Subtitles {
    sink: gst::Pad,
    src: gst::Pad,
    state: Mutex<State>,
}

/// When a frame of the source is shown, ns of source time.
fn time_ns(buffer: &gst::BufferRef) -> Option<i64> {
    let shown = buffer.offset();
    let time = if shown == super::NO_OFFSET { buffer.pts()?.nseconds() } else { shown };
    i64::try_from(time).ok()
}

impl Subtitles {
    pub fn configure(&self, burner: Burner) {
        self.state().burner = Some(burner);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(&self, mut buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (burner, info) = {
            let state = self.state();
            let Some(info) = &state.info else { return Err(gst::FlowError::NotNegotiated) };
            (state.burner.clone(), info.clone())
        };
        if let Some(burner) = burner {
            // What should stand there would else be missing in silence.
            let Some(time) = time_ns(&buffer) else {
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Format,
                    ["a picture without a time"]
                );
                return Err(gst::FlowError::Error);
            };
            let mut mapped = None;
            burner.draw(time, &info, || {
                let writable = buffer.make_mut();
                let frame = gst_video::VideoFrameRef::from_buffer_ref_writable(writable, &info);
                picture(mapped.insert(frame).as_mut().ok()?)
            });
            if mapped.is_some_and(|frame| frame.is_err()) {
                let text = "there is no writing upon the picture";
                gst::element_imp_error!(self, gst::ResourceError::Write, ["{text}"]);
                return Err(gst::FlowError::Error);
            }
        }
        self.src.push(buffer)
    }

    /// Rows may lie wherever they do: `vapostproc` would else copy each picture, and lose its time
    /// while it is at it.
    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Allocation(allocation) = query.view_mut() {
            allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
            return true;
        }
        gst::Pad::query_default(&self.sink, Some(&*self.obj()), query)
    }

    fn event(&self, event: gst::Event) -> bool {
        if let gst::EventView::Caps(caps) = event.view() {
            let Ok(info) = gst_video::VideoInfo::from_caps(caps.caps()) else { return false };
            let mut state = self.state();
            if let Some(burner) = &state.burner {
                burner.size(&info);
            }
            state.info = Some(info);
        }
        gst::Pad::event_default(&self.sink, Some(&*self.obj()), event)
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Subtitles {
    const NAME: &'static str = "RendergateSubtitles";
    type Type = super::Subtitles;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let sink = gst::Pad::builder_from_template(&class.pad_template("sink").expect("declared"))
            .chain_function(|_, parent, buffer| {
                Subtitles::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.chain(buffer),
                )
            })
            .event_function(|_, parent, event| {
                Subtitles::catch_panic_pad_function(parent, || false, |this| this.event(event))
            })
            .query_function(|_, parent, query| {
                Subtitles::catch_panic_pad_function(parent, || false, |this| this.query(query))
            })
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        let src = gst::Pad::builder_from_template(&class.pad_template("src").expect("declared"))
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        Self { sink, src, state: Mutex::default() }
    }
}

impl ObjectImpl for Subtitles {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().add_pad(&self.sink).expect("a new element has no pads");
        self.obj().add_pad(&self.src).expect("a new element has no pads");
    }
}

impl GstObjectImpl for Subtitles {}

impl ElementImpl for Subtitles {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Rendergate subtitles",
                "Filter/Editor/Video",
                "Subtitles into the picture",
                "Rendergate",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            super::pad_templates(&gst_video::VideoCapsBuilder::new().format_list(FORMATS).build())
        });
        &TEMPLATES
    }
}
