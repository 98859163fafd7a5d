//! Pads that take over from others while a stream runs.
//!
//! When the program map of a broadcast changes, `tsdemux` empties its pads, adds others, and only then
//! ends and removes the old ones, also for streams that go on. ffmpeg follows a PID and hears nothing
//! of it. Here the end of a pad is only believed at the end of the input; the queue behind it is given
//! to the new pad that carries the same, by PID if possible. A track that nobody carries on ends.
//!
//! Invariant: what stands behind a queue was built for one codec, and no other is ever led into it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::reading::Reading;

/// A way out of the demuxer.
#[derive(Debug)]
struct Line {
    /// The pad that feeds it.
    name: Name,
    /// What it was made for.
    caps: gst::Caps,
    /// Where it leads.
    sink: gst::Pad,
}

/// A pad's name (`video_1_0100`), taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    /// Counts the program maps.
    program: String,
    pid: String,
}

impl Name {
    fn of(pad: &gst::Pad) -> Self {
        let name = pad.name();
        let mut parts = name.rsplit('_').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let pid = next();
        Self { program: next(), pid }
    }
}

type Lines = Arc<Mutex<Vec<Line>>>;

fn lock(lines: &Lines) -> MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows a demuxer whose pads are linked, and about to be let through.
pub fn attend(demux: &gst::Element, pads: &[gst::Pad], reading: &Arc<Reading>) {
    let line = |pad: &gst::Pad| {
        believe_the_end_only(pad, reading);
        Some(Line { name: Name::of(pad), caps: pad.current_caps()?, sink: pad.peer()? })
    };
    let lines: Lines = Arc::new(Mutex::new(pads.iter().filter_map(line).collect()));
    let newest = Arc::new(Mutex::new(None));
    let (own, reading, latest) = (Arc::clone(&lines), Arc::clone(reading), Arc::clone(&newest));
    demux.connect_pad_added(move |_, pad| {
        let name = Name::of(pad);
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.program.clone());
        let mut lines = lock(&own);
        let free = |line: &Line| line.name.program != name.program && carries(pad, &line.caps);
        let same = lines.iter().position(|line| line.name.pid == name.pid && free(line));
        let Some(index) = same.or_else(|| lines.iter().position(free)) else { return };
        let line = &mut lines[index];
        if let Some(before) = line.sink.peer() {
            let _ = before.unlink(&line.sink);
        }
        believe_the_end_only(pad, &reading);
        if pad.link(&line.sink).is_ok() {
            line.name = name;
        }
    });
    demux.connect_no_more_pads(move |_| {
        let newest = newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(newest) = newest else { return };
        let (alive, left): (Vec<Line>, Vec<Line>) =
            lock(&lines).drain(..).partition(|line| line.name.program == newest);
        *lock(&lines) = alive;
        for line in left {
            line.sink.send_event(gst::event::Eos::new());
        }
    });
}

/// Keeps from a pad's followers an end that isn't the input's.
fn believe_the_end_only(pad: &gst::Pad, reading: &Arc<Reading>) {
    let reading = Arc::clone(reading);
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| match &info.data {
        Some(gst::PadProbeData::Event(event))
            if event.type_() == gst::EventType::Eos && !reading.is_at_end() =>
        {
            gst::PadProbeReturn::Handled
        }
        _ => gst::PadProbeReturn::Ok,
    });
}

fn carries(pad: &gst::Pad, caps: &gst::Caps) -> bool {
    let own = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    // Sizes and rates may change, and decoders follow.
    let codec = |caps: &gst::Caps| {
        let structure = caps.structure(0)?;
        let number = |field| structure.get::<i32>(field).ok();
        Some((structure.name().to_string(), number("mpegversion"), number("layer")))
    };
    codec(&own).is_some() && codec(&own) == codec(caps)
}
