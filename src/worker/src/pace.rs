//! `-readrate`: an input is read at most so many times as fast as it plays.
//!
//! ffmpeg holds back a packet whose decoding time is further ahead of the stream's first one than the
//! time since the start allows, but for half a second at the beginning. The packet waits in the
//! demuxer's thread, so that nothing of that input passes it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::timeline::{Gate, Timeline};

/// Read at once, ns.
const BURST_NS: i64 = 500_000_000;
/// Times that leap further than this, either way, aren't waited for: counting begins anew there.
const LEAP_NS: i64 = 10_000_000_000;

/// How far one stream of an input may be. Times of packets are source time, `now` is the gate's clock,
/// all in ns.
#[derive(Debug)]
struct Pace {
    /// Times the speed of playing.
    rate: f64,
    /// Where output begins: what lies before it passes at once.
    start_ns: Option<i64>,
    /// A packet's time, and when it was due.
    zero: Option<(i64, i64)>,
    last_ns: i64,
}

impl Pace {
    /// When a packet of this time may pass.
    fn due_ns(&mut self, time_ns: i64, now_ns: i64) -> i64 {
        let leaps = self.zero.is_some() && (time_ns - self.last_ns).abs() > LEAP_NS;
        self.last_ns = time_ns;
        if leaps {
            self.zero = Some((time_ns, now_ns));
        }
        let first = time_ns.max(self.start_ns.unwrap_or(time_ns));
        let (zero_ns, at_ns) = *self.zero.get_or_insert((first, now_ns));
        let ahead = (time_ns - zero_ns - BURST_NS) as f64 / self.rate;
        at_ns.saturating_add(ahead as i64)
    }
}

/// Holds back what comes through `pad` to `rate` times the speed at which it plays.
pub fn attend(pad: &gst::Pad, timeline: Timeline, rate: f64, gate: &Arc<Gate>) {
    let gate = Arc::clone(gate);
    let pace = Mutex::new(Pace { rate, start_ns: timeline.start_ns, zero: None, last_ns: 0 });
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(time) = info.buffer().and_then(|buffer| source_ns(pad, buffer, timeline)) {
            let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
            let now = i64::try_from(gate.running().as_nanos()).unwrap_or(i64::MAX);
            let due = pace.due_ns(time, now);
            drop(pace);
            gate.wait_until(Duration::from_nanos(due.max(0).unsigned_abs()));
        }
        gst::PadProbeReturn::Ok
    });
}

fn source_ns(pad: &gst::Pad, buffer: &gst::BufferRef, timeline: Timeline) -> Option<i64> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    timeline.source_ns(segment, buffer.dts().or(buffer.pts())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn packets_are_due_when_they_play() {
        let mut pace = Pace { rate: 2.0, start_ns: None, zero: None, last_ns: 0 };
        assert!(pace.due_ns(100 * S, 7 * S) < 7 * S);
        assert_eq!(pace.due_ns(100 * S + BURST_NS, 7 * S), 7 * S);
        assert_eq!(pace.due_ns(104 * S + BURST_NS, 8 * S), 9 * S);
        // Whoever is late is held no longer.
        assert_eq!(pace.due_ns(106 * S + BURST_NS, 100 * S), 10 * S);
    }

    #[test]
    fn what_only_serves_decoding_passes_and_leaps_are_not_waited_for() {
        let mut pace = Pace { rate: 1.0, start_ns: Some(50 * S), zero: None, last_ns: 0 };
        assert!(pace.due_ns(45 * S, 0) < 0);
        assert_eq!(pace.due_ns(51 * S + BURST_NS, 0), S);
        assert!(pace.due_ns(5000 * S, 2 * S) <= 2 * S);
        assert_eq!(pace.due_ns(5001 * S + BURST_NS, 2 * S), 3 * S);
        assert!(pace.due_ns(S, 9 * S) <= 9 * S);
    }
}
