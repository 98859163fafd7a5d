//! The way from an element's timestamps to source time, and the gate that holds a stream.
//!
//! Source time is what ffmpeg calls it: the container's own timestamps (with `-copyts`), or those
//! counted from the container's first one (`-start_at_zero`). GStreamer's elements count in
//! running time of a segment; the elements of `elements` translate once, at the end of decoding,
//! and from there on timestamps are source time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;

use crate::abreast::Abreast;

/// Where output begins, and how stream time becomes source time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timeline {
    /// Added to the demuxer's stream time, ns.
    pub offset_ns: i64,
    /// Output begins here, ns of source time; earlier frames only serve to decode later ones.
    pub start_ns: Option<i64>,
}

impl Timeline {
    /// Source time of a buffer's timestamp in its segment, in ns.
    pub fn source_ns(
        &self,
        segment: &gst::FormattedSegment<gst::ClockTime>,
        timestamp: gst::ClockTime,
    ) -> Option<i64> {
        let stream = signed_ns(segment.to_stream_time_full(timestamp)?);
        Some(stream + self.offset_ns)
    }

    /// Whether a frame at this source time comes before the output.
    pub fn is_before_start(&self, source_ns: i64) -> bool {
        self.start_ns.is_some_and(|start| source_ns < start)
    }
}

/// A signed time as a plain number of ns.
pub fn signed_ns(time: gst::Signed<gst::ClockTime>) -> i64 {
    match time {
        gst::Signed::Positive(time) => time.nseconds() as i64,
        gst::Signed::Negative(time) => -(time.nseconds() as i64),
    }
}

/// Holds a stream between decoder and encoder (or before the writer, if it is copied), and lets it
/// end early. Keeps the stream's clock, which stands while it is closed.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    passed: AtomicU64,
    /// How many wait for a time.
    timing: AtomicU64,
    /// Behind the encoders.
    pub abreast: Abreast,
}

#[derive(Debug, Clone, Copy)]
struct GateState {
    stopped: bool,
    started: Instant,
    /// By Jellyfin.
    paused: bool,
    /// By the gateway: it is further ahead than it has to be.
    held: bool,
    /// Since when it is closed, by whomever.
    closed: Option<Instant>,
    /// Times of being closed that are over.
    stood: Duration,
}

impl GateState {
    fn running(&self) -> Duration {
        let now = self.closed.unwrap_or_else(Instant::now);
        now.duration_since(self.started).saturating_sub(self.stood)
    }

    /// What is left until a time of the stream's clock; `None` while that stands, however little is
    /// left.
    fn rest(&self, time: Duration) -> Option<Duration> {
        let rest = time.saturating_sub(self.running());
        (self.closed.is_none() || rest.is_zero()).then_some(rest)
    }
}

impl Default for Gate {
    fn default() -> Self {
        let state = GateState {
            stopped: false,
            started: Instant::now(),
            paused: false,
            held: false,
            closed: None,
            stood: Duration::ZERO,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            passed: AtomicU64::new(0),
            timing: AtomicU64::new(0),
            abreast: Abreast::default(),
        }
    }
}

impl Gate {
    /// Waits while closed; false once the stream is to end.
    pub fn pass(&self) -> bool {
        self.passed.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self
            .changed
            .wait_while(state, |state| state.closed.is_some() && !state.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        !state.stopped
    }

    /// How many pictures, sounds and copied packets have come this far, wanted or not: whether the
    /// stream is alive.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Time since the start without pauses.
    pub fn running(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).running()
    }

    /// Waits until so much time has passed since the start without pauses, or the stream is to end.
    pub fn wait_until(&self, time: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stopped || state.running() >= time {
            return;
        }
        self.timing.fetch_add(1, Ordering::Relaxed);
        while !state.stopped {
            state = match state.rest(time) {
                Some(Duration::ZERO) => break,
                Some(rest) => {
                    let waited = self.changed.wait_timeout(state, rest);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        self.timing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether somebody waits for a time right now.
    pub fn is_timing(&self) -> bool {
        self.timing.load(Ordering::Relaxed) > 0
    }

    /// Closes it for Jellyfin, or opens it as far as Jellyfin goes.
    pub fn pause(&self, paused: bool) {
        self.change(|state| state.paused = paused);
    }

    /// Closes it for the gateway, or opens it as far as the gateway goes.
    pub fn hold(&self, held: bool) {
        self.change(|state| state.held = held);
    }

    /// Whether the gateway holds it.
    pub fn is_held(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).held
    }

    /// Lets whoever waits go on, to find that it is over.
    pub fn stop(&self) {
        self.change(|state| state.stopped = true);
        self.abreast.over();
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        match (state.paused || state.held, state.closed) {
            (true, None) => state.closed = Some(Instant::now()),
            (false, Some(since)) => {
                state.stood += since.elapsed();
                state.closed = None;
            }
            _ => {}
        }
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_clock_stands_nobody_waits_for_a_time() {
        let gate = Gate::default();
        let rest = |time| gate.state.lock().unwrap().rest(time);
        let far = Duration::from_secs(3600);
        assert!(rest(far).is_some_and(|rest| !rest.is_zero()));
        gate.pause(true);
        gate.hold(true);
        // A nanosecond would be waited for again and again.
        let soon = gate.running() + Duration::from_nanos(1);
        assert_eq!(rest(soon), None);
        assert_eq!(rest(gate.running()), Some(Duration::ZERO));
        gate.pause(false);
        assert_eq!(rest(far), None);
        gate.hold(false);
        assert!(rest(far).is_some());
    }
}
