//! `rgcadence`: decoded frames in, frames on the output's grid out.
//!
//! Frames before the start are dropped, the rest are placed by [`FrameGrid`], and a keyframe is
//! requested for every frame that [`KeyframeGrid`] names. Timestamps leave as source time in a
//! segment that begins at zero; a buffer's offset is the source time of the frame that it shows, ns,
//! which the grid may have moved.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_video as gst_video;

use crate::cadence::{Emission, FrameGrid, Holes, KeyframeGrid, Rate};
use crate::seam::{Notes, PictureStart, TOLERANCE_NS};
use crate::timeline::{Gate, Timeline};

/// What a cadence needs to know.
#[derive(Debug, Clone)]
pub struct CadenceConfig {
    /// Source time.
    pub timeline: Timeline,
    /// Output frame rate; `None` takes the decoder's.
    pub rate: Option<Rate>,
    /// The rate is a cap that the command sets.
    pub capped: bool,
    /// What becomes of holes.
    pub holes: Holes,
    /// Frames are made of fields; the last field stays in the deinterlacer.
    pub fields: bool,
    /// Period of the keyframe grid; `None` leaves keyframes to the encoder.
    pub keyframes_every: Option<f64>,
    /// Pause and early end.
    pub gate: Arc<Gate>,
    /// Where each frame is noted, if another worker may have to go on.
    pub notes: Option<Notes>,
    /// Where another worker has come to.
    pub begin: Option<PictureStart>,
}

/// For sources that state no frame rate at all; ffmpeg assumes the same.
const UNKNOWN_RATE: Rate = (25, 1);

#[derive(Default)]
struct State {
    config: Option<CadenceConfig>,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    grid: Option<FrameGrid>,
    keyframes: Option<KeyframeGrid>,
    previous: Option<gst::Buffer>,
    /// Source time of `previous`, ns.
    previous_ns: Option<i64>,
    /// Source time of the last frame that came, wanted or not, and its distance from the one before,
    /// ns.
    last: Option<(i64, Option<i64>)>,
    /// End of the last frame, ns of source time.
    end_ns: i64,
    segment_sent: bool,
    begun: bool,
    ended: bool,
}

/// A frame to send, with the keyframe request that goes before it.
type Frame = (Option<gst::Event>, gst::Buffer);

impl State {
    /// The frames of an emission: the one before, then `current`, of `time_ns`.
    fn send(
        &mut self,
        emission: Emission,
        current: Option<&gst::Buffer>,
        time_ns: i64,
    ) -> Vec<Frame> {
        let Some(grid) = &self.grid else { return Vec::new() };
        let rate = grid.rate();
        let mut frames = Vec::new();
        for n in 0..emission.previous + emission.current {
            let index = emission.first + i64::from(n);
            let begin = self.config.as_ref().and_then(|config| config.begin);
            if begin.is_some_and(|begin| index < begin.index) {
                continue;
            }
            let repeated = (n < emission.previous).then_some(self.previous.as_ref()).flatten();
            let Some(shown) = repeated.or(current) else { continue };
            let first_frame = !std::mem::replace(&mut self.begun, true);
            let mut frame = shown.copy();
            let (start, end) = (grid.time_ns(index), grid.time_ns(index + 1));
            let pts = gst::ClockTime::from_nseconds(start.unsigned_abs());
            {
                let frame = frame.make_mut();
                frame.set_pts(pts);
                frame.set_dts(gst::ClockTime::NONE);
                frame.set_duration(gst::ClockTime::from_nseconds((end - start).unsigned_abs()));
            }
            if let Some(notes) = self.config.as_ref().and_then(|config| config.notes.as_ref()) {
                let begun = PictureStart {
                    index,
                    first: emission.first,
                    time_ns,
                    needs_ns: if n < emission.previous || current.is_none() {
                        self.previous_ns.unwrap_or(time_ns)
                    } else {
                        time_ns
                    },
                    keyframes: self.keyframes.as_ref().and_then(KeyframeGrid::progress),
                };
                notes.picture(start, begun);
            }
            let key = self.keyframes.as_mut().is_some_and(|keys| keys.is_key(index, rate));
            // The first frame is a keyframe by itself. Asking for it makes GstVideoEncoder 1.22
            // note the request at the 1000 hours that encoders add to their first timestamp, and
            // refuse all later ones as too early.
            let event = (key && !first_frame).then(|| {
                gst_video::DownstreamForceKeyUnitEvent::builder()
                    .timestamp(pts)
                    .stream_time(pts)
                    .running_time(pts)
                    .all_headers(true)
                    .build()
            });
            frames.push((event, frame));
        }
        frames
    }
}

/// When a frame without a time is shown: decoders give none if two frames of a container share one.
/// It comes as long after the last one as that one after its own, but a frame's length at most: a
/// hole before the last one says nothing of what comes after it.
fn follow(last: Option<(i64, Option<i64>)>, length: i64) -> Option<i64> {
    last.map(|(time, distance)| time + distance.unwrap_or(length).min(length))
}

pub struct Cadence {
    sink: gst::Pad,
    src: gst::Pad,
    state: Mutex<State>,
}

impl Cadence {
    pub fn configure(&self, config: CadenceConfig) {
        let mut state = self.state();
        state.keyframes = config.keyframes_every.map(KeyframeGrid::new);
        let progress = config.begin.and_then(|begin| begin.keyframes);
        if let (Some(grid), Some(progress)) = (&mut state.keyframes, progress) {
            grid.go_on(progress);
        }
        state.config = Some(config);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let gate = self.state().config.as_ref().map(|config| Arc::clone(&config.gate));
        if gate.is_some_and(|gate| !gate.pass()) {
            return self.end();
        }
        // Decide under the lock, push without it.
        let frames = self.place(buffer)?;
        self.push(frames)
    }

    /// The frames that `buffer` becomes, each with the keyframe request that goes before it.
    fn place(&self, mut buffer: gst::Buffer) -> Result<Vec<Frame>, gst::FlowError> {
        let mut state = self.state();
        let state = &mut *state;
        let (Some(config), Some(segment), Some(grid)) =
            (&state.config, &state.segment, &mut state.grid)
        else {
            return Err(gst::FlowError::NotNegotiated);
        };
        let stated = buffer.pts().and_then(|pts| config.timeline.source_ns(segment, pts));
        let length = grid.time_ns(1);
        let Some(time) = stated.or_else(|| follow(state.last, length)) else {
            // The first frame without a time has no place on the grid.
            return Ok(Vec::new());
        };
        let distance = state.last.map(|(last, _)| time - last).filter(|distance| *distance > 0);
        state.last = Some((time, distance));
        if time < 0 || config.timeline.is_before_start(time) {
            return Ok(Vec::new());
        }
        state.end_ns = time + buffer.duration().map_or(0, |length| length.nseconds() as i64);
        // A cap moves frames as a filter does, before anything else looks at them.
        let shown = if config.capped { super::NO_OFFSET } else { time.unsigned_abs() };
        buffer.make_mut().set_offset(shown);
        let written = config.begin.is_some_and(|begin| time < begin.time_ns - TOLERANCE_NS);
        let frames = if written {
            Vec::new()
        } else {
            let emission = grid.place(time);
            state.send(emission, Some(&buffer), time)
        };
        state.previous = Some(buffer);
        state.previous_ns = Some(time);
        Ok(frames)
    }

    fn end(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut state = self.state();
        if std::mem::replace(&mut state.ended, true) {
            return Err(gst::FlowError::Eos);
        }
        let end = state.end_ns;
        let mut emission = state.grid.as_mut().map(|grid| grid.finish(end)).unwrap_or_default();
        if state.previous.is_some() && state.config.as_ref().is_some_and(|config| config.fields) {
            emission.previous += 1;
        }
        let frames = state.send(emission, None, i64::MAX);
        drop(state);
        // What comes of the last ones makes no difference any more.
        let _ = self.push(frames);
        self.src.push_event(gst::event::Eos::new());
        Err(gst::FlowError::Eos)
    }

    fn push(&self, frames: Vec<Frame>) -> Result<gst::FlowSuccess, gst::FlowError> {
        for (event, frame) in frames {
            if let Some(event) = event {
                self.src.push_event(event);
            }
            self.src.push(frame)?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Caps(caps) => self.caps(caps.caps()),
            gst::EventView::Segment(segment) => self.segment(segment.segment()),
            gst::EventView::FlushStop(_) => {
                let mut state = self.state();
                state.previous = None;
                state.previous_ns = None;
                state.last = None;
                state.segment_sent = false;
                drop(state);
                self.src.push_event(event)
            }
            gst::EventView::Eos(_) => self.end().is_err(),
            // A gap is filled when the next frame comes.
            gst::EventView::Gap(_) => true,
            _ => gst::Pad::event_default(&self.sink, Some(&*self.obj()), event),
        }
    }

    fn caps(&self, caps: &gst::CapsRef) -> bool {
        let Some(structure) = caps.structure(0) else { return false };
        let decoded = structure.get::<gst::Fraction>("framerate").ok().and_then(|rate| {
            let (n, d) = (u32::try_from(rate.numer()), u32::try_from(rate.denom()));
            n.ok().zip(d.ok()).filter(|(n, d)| *n > 0 && *d > 0)
        });
        let mut state = self.state();
        let configured = state.config.as_ref().and_then(|config| config.rate);
        let rate = match &state.grid {
            // A stream whose caps change midway keeps the rate it began with.
            Some(grid) => grid.rate(),
            None => configured.or(decoded).unwrap_or(UNKNOWN_RATE),
        };
        let capped = state.config.as_ref().is_some_and(|config| config.capped);
        let holes = state.config.as_ref().map(|config| config.holes).unwrap_or_default();
        let mut grid =
            if capped { FrameGrid::capped(rate) } else { FrameGrid::new(rate).with(holes) };
        if let Some(begin) = state.config.as_ref().and_then(|config| config.begin) {
            grid.go_on(begin.first);
        }
        state.grid.get_or_insert(grid);
        drop(state);
        let mut caps = caps.to_owned();
        let fraction = gst::Fraction::new(rate.0 as i32, rate.1 as i32);
        caps.make_mut().set("framerate", fraction);
        self.src.push_event(gst::event::Caps::new(&caps))
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
impl ObjectSubclass for Cadence {
    const NAME: &'static str = "RendergateCadence";
    type Type = super::Cadence;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let sink = gst::Pad::builder_from_template(&class.pad_template("sink").expect("declared"))
            .chain_function(|pad, parent, buffer| {
                Cadence::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| {
                        let _ = pad;
                        this.chain(buffer)
                    },
                )
            })
            .event_function(|_, parent, event| {
                Cadence::catch_panic_pad_function(parent, || false, |this| this.event(event))
            })
            .flags(gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION)
            .build();
        let src = gst::Pad::builder_from_template(&class.pad_template("src").expect("declared"))
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        Self { sink, src, state: Mutex::default() }
    }
}

impl ObjectImpl for Cadence {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().add_pad(&self.sink).expect("a new element has no pads");
        self.obj().add_pad(&self.src).expect("a new element has no pads");
    }
}

impl GstObjectImpl for Cadence {}

impl ElementImpl for Cadence {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Rendergate cadence",
                "Filter/Video",
                "Frames onto the output's grid",
                "Rendergate",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let any = gst::Caps::builder("video/x-raw").any_features().build();
            super::pad_templates(&any)
        });
        &TEMPLATES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_a_time_follows_the_one_before() {
        assert_eq!(follow(None, 40), None);
        assert_eq!(follow(Some((1000, None)), 40), Some(1040));
        assert_eq!(follow(Some((1000, Some(20))), 40), Some(1020));
        assert_eq!(follow(Some((1000, Some(900))), 40), Some(1040), "behind a hole");
    }
}
