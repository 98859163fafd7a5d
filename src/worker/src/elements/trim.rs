//! `rgtrim`: decoded sound from the start of the output on, at source time.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_audio as gst_audio;

use crate::seam::{Count, Notes, SoundNote, SoundStart, TOLERANCE_NS};
use crate::timeline::{Gate, Timeline};

/// What a trim needs to know.
#[derive(Debug, Clone)]
pub struct TrimConfig {
    /// Source time.
    pub timeline: Timeline,
    /// Pause and early end.
    pub gate: Arc<Gate>,
    /// Where each piece is noted, if another worker may have to go on.
    pub notes: Option<Notes>,
    /// Where another worker has come to.
    pub begin: Option<SoundStart>,
}

#[derive(Default)]
struct State {
    config: Option<TrimConfig>,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    info: Option<gst_audio::AudioInfo>,
    count: Option<Count>,
    segment_sent: bool,
    ended: bool,
}

pub struct Trim {
    sink: gst::Pad,
    src: gst::Pad,
    state: Mutex<State>,
}

impl Trim {
    pub fn configure(&self, config: TrimConfig) {
        self.state().config = Some(config);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let gate = self.state().config.as_ref().map(|config| Arc::clone(&config.gate));
        if gate.is_some_and(|gate| !gate.pass()) {
            return self.end();
        }
        match self.cut(buffer)? {
            Some(buffer) => self.src.push(buffer),
            None => Ok(gst::FlowSuccess::Ok),
        }
    }

    /// The part of the buffer that belongs to the output, restamped.
    fn cut(&self, mut buffer: gst::Buffer) -> Result<Option<gst::Buffer>, gst::FlowError> {
        let mut state = self.state();
        let State { config, segment, info, count, .. } = &mut *state;
        let (Some(config), Some(segment), Some(info)) = (config, segment, info) else {
            return Err(gst::FlowError::NotNegotiated);
        };
        let Some(time) = buffer.pts().and_then(|pts| config.timeline.source_ns(segment, pts))
        else {
            return Ok(None);
        };
        let start = config.timeline.start_ns.unwrap_or(0).max(0);
        let frames = (buffer.size() / info.bpf() as usize) as i64;
        let rate = i64::from(info.rate());
        // Whole samples before the start, rounded so that the rest begins at or after it.
        let mut early = ((start - time).max(0) * rate + 999_999_999) / 1_000_000_000;
        if early >= frames {
            return Ok(None);
        }
        let mut pts = time + early * 1_000_000_000 / rate;
        if let (Some(begin), None) = (config.begin, &count) {
            // Counted on from the piece that the worker before has named.
            if time < begin.time_ns - TOLERANCE_NS {
                return Ok(None);
            }
            *count = Some(begin.count_at(time, rate));
        }
        let mut counted = Count::at(*count, pts, rate);
        if let Some(notes) = &config.notes {
            let samples = counted.samples - early;
            notes.sound(SoundNote { time_ns: time, samples, base_ns: counted.base_ns, rate });
        }
        let begin = config.begin.filter(|begin| begin.is_ahead_of(&counted));
        let skipped = begin.map_or(0, |begin| begin.begin - counted.samples);
        counted.samples += frames - early;
        *count = Some(counted);
        early += skipped;
        if early >= frames {
            return Ok(None);
        }
        if let Some(begin) = begin {
            let own = time + early * 1_000_000_000 / rate;
            pts = if begin.follows { own } else { (begin.begin_ns - begin.skipped_ns).max(0) };
        }
        let left = frames - early;
        if early > 0 {
            let offset = early as usize * info.bpf() as usize;
            buffer = buffer
                .copy_region(gst::BufferCopyFlags::MEMORY, offset..)
                .map_err(|_| gst::FlowError::Error)?;
        }
        let buffer_mut = buffer.make_mut();
        buffer_mut.set_pts(gst::ClockTime::from_nseconds(pts.unsigned_abs()));
        buffer_mut.set_dts(gst::ClockTime::NONE);
        let duration = left * 1_000_000_000 / rate;
        buffer_mut.set_duration(gst::ClockTime::from_nseconds(duration.unsigned_abs()));
        Ok(Some(buffer))
    }

    fn end(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let first = !std::mem::replace(&mut self.state().ended, true);
        if first {
            self.src.push_event(gst::event::Eos::new());
        }
        Err(gst::FlowError::Eos)
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Caps(caps) => {
                self.state().info = gst_audio::AudioInfo::from_caps(caps.caps()).ok();
                self.src.push_event(event)
            }
            gst::EventView::Segment(segment) => self.segment(segment.segment()),
            gst::EventView::FlushStop(_) => {
                self.state().segment_sent = false;
                self.src.push_event(event)
            }
            gst::EventView::Eos(_) => self.end().is_err(),
            gst::EventView::Gap(_) => true,
            _ => gst::Pad::event_default(&self.sink, Some(&*self.obj()), event),
        }
    }

    fn segment(&self, segment: &gst::Segment) -> bool {
        let Some(segment) = segment.downcast_ref::<gst::ClockTime>() else { return false };
        let mut state = self.state();
        state.segment = Some(segment.clone());
        if std::mem::replace(&mut state.segment_sent, true) {
            return true;
        }
        drop(state);
        let mut own = gst::FormattedSegment::<gst::ClockTime>::new();
        own.set_start(gst::ClockTime::ZERO);
        self.src.push_event(gst::event::Segment::new(&own))
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Trim {
    const NAME: &'static str = "RendergateTrim";
    type Type = super::Trim;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let sink = gst::Pad::builder_from_template(&class.pad_template("sink").expect("declared"))
            .chain_function(|_, parent, buffer| {
                Trim::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.chain(buffer),
                )
            })
            .event_function(|_, parent, event| {
                Trim::catch_panic_pad_function(parent, || false, |this| this.event(event))
            })
            .flags(gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION)
            .build();
        let src = gst::Pad::builder_from_template(&class.pad_template("src").expect("declared"))
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        Self { sink, src, state: Mutex::default() }
    }
}

impl ObjectImpl for Trim {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().add_pad(&self.sink).expect("a new element has no pads");
        self.obj().add_pad(&self.src).expect("a new element has no pads");
    }
}

impl GstObjectImpl for Trim {}

impl ElementImpl for Trim {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Rendergate trim",
                "Filter/Audio",
                "Sound from the start of the output on",
                "Rendergate",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let interleaved =
                gst::Caps::builder("audio/x-raw").field("layout", "interleaved").build();
            super::pad_templates(&interleaved)
        });
        &TEMPLATES
    }
}
