//! A demuxer's pads while an input is opened: seen, held back, let through.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::frame_rate;
use crate::parsed;
use crate::timeline::signed_ns;

/// Decoders cut what lies before their segment, to the half of a frame. All segments are opened
/// by moving their stream time up by this much; the worker's own elements cut instead, whole
/// frames as ffmpeg does. Ten hours, in ns: more than a file's first timestamp or its edit list's.
pub const LEAD_NS: u64 = 36_000 * 1_000_000_000;

/// Buffers of sound that tell how many channels it has.
const HEAD_OF_SOUND: usize = 8;

/// How long a full stream waits to be looked at.
const EXAMINED_WITHIN: Duration = Duration::from_millis(100);

/// Picture, sound, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Picture.
    Video,
    /// Sound.
    Audio,
    /// Subtitles and the like.
    Other,
}

impl Kind {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Other => "other",
        }
    }
}

/// A demuxer's pad and what has been seen on it.
#[derive(Debug)]
pub struct Stream {
    /// The pad.
    pub pad: gst::Pad,
    /// What holds it back.
    pub probe: Option<gst::PadProbeId>,
    /// What it carries.
    pub kind: Kind,
    /// First presentation times within the segment, ns: timestamps if these are `raw`, else stream
    /// time.
    pub times_ns: Vec<i64>,
    /// The very first of them, within the segment or not.
    pub first_ns: Option<i64>,
    /// What they are ahead of stream time, ns.
    pub ahead_ns: i64,
    /// Buffers say when they are to be decoded.
    pub has_dts: bool,
    /// The first buffers of what the container doesn't state the size of.
    pub head: Vec<gst::Buffer>,
    /// It has come to its end.
    pub ended: bool,
}

/// What happens to data on the pads of wanted streams. That of others is always dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Noted and dropped.
    #[default]
    Looking,
    /// Held back.
    Holding,
    /// Let through.
    Open,
}

/// All pads of a demuxer.
#[derive(Debug, Default)]
pub struct Seen {
    /// In the order in which they appeared.
    pub streams: Vec<Stream>,
    /// No more will come.
    pub complete: bool,
    /// Indices of the streams that the plan maps.
    pub wanted: Vec<usize>,
    /// Where things stand.
    pub phase: Phase,
    /// What has been noted so far, counted.
    pub noted: u64,
    /// How much of it has been looked at by whoever opens the input.
    pub examined: u64,
}

/// Shared with the demuxer's threads, which notify of every change.
pub type Shared = Arc<(Mutex<Seen>, Condvar)>;

/// The pads, locked.
pub fn lock(shared: &Shared) -> MutexGuard<'_, Seen> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows a demuxer's pads, those that it has and those to come.
///
/// With `raw` the stream time downstream is the timestamp itself: such demuxers relate the two
/// differently after each seek.
pub fn watch(demux: &gst::Element, shared: &Shared, raw: bool) {
    // Parsers of elementary streams have their one pad from the start.
    if let Some(pad) = demux.static_pad("src") {
        add(shared, &pad, Kind::Audio, raw);
        lock(shared).complete = true;
        return;
    }
    let seen = Arc::clone(shared);
    demux.connect_pad_added(move |_, pad| {
        // Later ones are looked at by `succession`.
        if lock(&seen).phase == Phase::Open {
            open(pad, raw);
        } else {
            add(&seen, pad, kind_of(pad), raw);
        }
    });
    let seen = Arc::clone(shared);
    demux.connect_no_more_pads(move |_| {
        lock(&seen).complete = true;
        seen.1.notify_all();
    });
}

fn add(shared: &Shared, pad: &gst::Pad, kind: Kind, raw: bool) {
    let mut seen = lock(shared);
    let index = seen.streams.len();
    seen.streams.push(Stream {
        pad: pad.clone(),
        probe: None,
        kind,
        times_ns: Vec::new(),
        first_ns: None,
        ahead_ns: 0,
        has_dts: false,
        head: Vec::new(),
        ended: false,
    });
    drop(seen);
    let mask =
        gst::PadProbeType::BUFFER | gst::PadProbeType::BLOCK | gst::PadProbeType::EVENT_DOWNSTREAM;
    let own = Arc::clone(shared);
    let probe = pad.add_probe(mask, move |pad, info| observe(&own, index, pad, info, raw));
    lock(shared).streams[index].probe = probe;
    open(pad, raw);
}

/// Has a pad's segments cut nothing at their start.
fn open(pad: &gst::Pad, raw: bool) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::PadProbeData::Event(event)) = &info.data
            && let Some(open) = opened(event, raw)
        {
            info.data = Some(gst::PadProbeData::Event(open));
        }
        gst::PadProbeReturn::Ok
    });
}

/// A segment event that cuts nothing at its start.
fn opened(event: &gst::Event, raw: bool) -> Option<gst::Event> {
    let gst::EventView::Segment(view) = event.view() else { return None };
    let segment = view.segment().downcast_ref::<gst::ClockTime>()?;
    let start = segment.start()?.nseconds();
    let time = segment.time().map_or(0, gst::ClockTime::nseconds);
    let time = if raw { LEAD_NS } else { (LEAD_NS + time).checked_sub(start)? };
    let mut open = segment.clone();
    open.set_start(gst::ClockTime::ZERO);
    open.set_position(gst::ClockTime::ZERO);
    open.set_time(gst::ClockTime::from_nseconds(time));
    Some(gst::event::Segment::builder(&open).seqnum(event.seqnum()).build())
}

/// One buffer or event on a watched pad: noted and dropped, held back, or let through.
fn observe(
    shared: &Shared,
    index: usize,
    pad: &gst::Pad,
    info: &mut gst::PadProbeInfo<'_>,
    raw: bool,
) -> gst::PadProbeReturn {
    let mut seen = lock(shared);
    let phase = if seen.wanted.contains(&index) { seen.phase } else { Phase::Looking };
    let is_data = match &info.data {
        Some(gst::PadProbeData::Buffer(_)) => true,
        Some(gst::PadProbeData::Event(event)) => event.type_() == gst::EventType::Eos,
        _ => false,
    };
    if !is_data || phase == Phase::Open {
        return gst::PadProbeReturn::Pass;
    }
    if phase == Phase::Holding {
        // The thread stays here until the probe is removed or a seek flushes it.
        return gst::PadProbeReturn::Ok;
    }
    // Streams that nobody wants are looked at for ever, and have nothing to keep.
    let looking = seen.phase == Phase::Looking;
    let stream = &mut seen.streams[index];
    let taken = match &info.data {
        Some(gst::PadProbeData::Buffer(buffer)) => {
            let most = match stream.kind {
                Kind::Video => frame_rate::ENOUGH,
                Kind::Audio => HEAD_OF_SOUND,
                Kind::Other => 0,
            };
            if stream.head.len() < most && looking && !sized(pad) {
                stream.head.push(buffer.clone());
            }
            note(stream, pad, buffer, raw);
            gst::PadProbeReturn::Drop
        }
        _ => {
            stream.ended = true;
            // GStreamer 1.22 complains in the log if a probe drops an event.
            gst::PadProbeReturn::Handled
        }
    };
    seen.noted += 1;
    let (mine, is_full) = (seen.noted, full(&seen.streams[index]));
    shared.1.notify_all();
    if is_full {
        // Enough may have been seen. A demuxer that ran on meanwhile could come to where the streams
        // are others; a short wait, since whoever opens may have given up.
        let unseen = |seen: &mut Seen| seen.phase == Phase::Looking && seen.examined < mine;
        let _ = shared.1.wait_timeout_while(seen, EXAMINED_WITHIN, unseen);
    }
    taken
}

fn note(stream: &mut Stream, pad: &gst::Pad, buffer: &gst::Buffer, raw: bool) {
    if stream.times_ns.len() >= frame_rate::ENOUGH {
        return;
    }
    let Some(event) = pad.sticky_event::<gst::event::Segment>(0) else { return };
    let Some(segment) = event.segment().downcast_ref::<gst::ClockTime>() else { return };
    let Some((pts, time)) =
        buffer.pts().and_then(|pts| Some((pts, segment.to_stream_time_full(pts)?)))
    else {
        return;
    };
    let (pts_ns, time) = (pts.nseconds() as i64, signed_ns(time));
    // Matroska's corrects itself once the other streams have begun.
    stream.ahead_ns = if raw { pts_ns - time } else { 0 };
    stream.has_dts |= buffer.dts().is_some();
    let own = if raw { pts_ns } else { time };
    stream.first_ns.get_or_insert(own);
    // What an edit list cuts off counts for nothing.
    if raw || segment.start().is_none_or(|start| pts >= start) {
        stream.times_ns.push(own);
    }
}

fn sized(pad: &gst::Pad) -> bool {
    pad.current_caps().as_ref().is_some_and(parsed::sized)
}

fn kind_of(pad: &gst::Pad) -> Kind {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    match caps.structure(0).map(|structure| structure.name().as_str()) {
        Some(name) if name.starts_with("video/") || name.starts_with("image/") => Kind::Video,
        Some(name) if name.starts_with("audio/") => Kind::Audio,
        _ => Kind::Other,
    }
}

/// Whether a stream has shown as much as is ever kept of one.
pub fn full(stream: &Stream) -> bool {
    stream.ended || stream.times_ns.len() >= frame_rate::ENOUGH
}

/// Whether a stream can be compared with others of its kind.
pub fn enough_to_compare(stream: &Stream) -> bool {
    stream.ended || !stream.times_ns.is_empty() && (sized(&stream.pad) || !stream.head.is_empty())
}

/// Whether a stream has shown what is needed of it.
pub fn enough(stream: &Stream) -> bool {
    let needed = if stream.kind == Kind::Video { frame_rate::ENOUGH } else { 1 };
    stream.ended || stream.times_ns.len() >= needed
}
