//! Samples of several tracks in order of decoding time.
//!
//! A track that has nothing to say holds the others back, but at most [`MAX_HOLD_NS`] of media, as
//! ffmpeg's `max_interleave_delta` does: a file whose sound ends early must not gather in memory.
//!
//! Invariants:
//! - Within a track the order of pushing is kept.
//! - With all tracks pushing or ended, DTS never goes backwards at the outlet.
//! - Times are compared as the container will have them, in ticks: which of two is first must not
//!   hang on how a demuxer rounds to nanoseconds.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::Sample;
use crate::time::ticks;

/// How much media may wait for a silent track (ffmpeg's default of `-max_interleave_delta`).
pub const MAX_HOLD_NS: i64 = 10_000_000_000;

/// Merges tracks by DTS; equal times go in order of track number.
#[derive(Debug)]
pub struct Interleaver {
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Queue {
    samples: VecDeque<Sample>,
    ended: bool,
    /// Ticks per second.
    rate: u32,
}

impl Interleaver {
    /// For tracks with so many ticks per second.
    pub fn new(rates: impl IntoIterator<Item = u32>) -> Self {
        let queue = |rate| Queue { samples: VecDeque::new(), ended: false, rate };
        Self { queues: rates.into_iter().map(queue).collect() }
    }

    /// Adds a sample behind those of its track. Samples of an unknown track are dropped; the
    /// segmenter refuses them before.
    pub fn push(&mut self, sample: Sample) {
        if let Some(queue) = self.queues.get_mut(sample.track) {
            queue.samples.push_back(sample);
        }
    }

    /// The track has no more samples and holds nothing back.
    pub fn end_track(&mut self, track: usize) {
        if let Some(queue) = self.queues.get_mut(track) {
            queue.ended = true;
        }
    }

    /// The next sample that is safe to write, if there is one.
    pub fn pop(&mut self) -> Option<Sample> {
        let (first, _) = self.next()?;
        self.queues[first].samples.pop_front()
    }

    fn next(&self) -> Option<(usize, i64)> {
        let (first, dts) = self
            .queues
            .iter()
            .enumerate()
            .filter_map(|(i, q)| q.samples.front().map(|s| (i, s.dts)))
            .min_by(|a, b| self.compare(*a, *b).then(a.0.cmp(&b.0)))?;
        let silent = self.queues.iter().any(|q| q.samples.is_empty() && !q.ended);
        if !silent {
            return Some((first, dts));
        }
        let newest = self.queues.iter().filter_map(|q| q.samples.back()).map(|s| s.dts).max()?;
        (newest.saturating_sub(dts) > MAX_HOLD_NS).then_some((first, dts))
    }

    /// Which of two tracks' times is earlier.
    fn compare(&self, a: (usize, i64), b: (usize, i64)) -> Ordering {
        let (rate_a, rate_b) = (self.queues[a.0].rate, self.queues[b.0].rate);
        let time = |ns, own, other| i128::from(ticks(ns, own)) * i128::from(other);
        time(a.1, rate_a, rate_b).cmp(&time(b.1, rate_b, rate_a))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn sample(track: usize, dts: i64) -> Sample {
        Sample { track, pts: dts, dts, duration: 1, keyframe: true, data: Bytes::new() }
    }

    fn drain(interleaver: &mut Interleaver) -> Vec<(usize, i64)> {
        std::iter::from_fn(|| interleaver.pop()).map(|s| (s.track, s.dts)).collect()
    }

    #[test]
    fn a_silent_track_holds_back_ten_seconds_and_no_more() {
        let mut i = Interleaver::new([90_000; 2]);
        for k in 0..=10 {
            i.push(sample(0, k * 1_000_000_000));
        }
        assert_eq!(drain(&mut i), []);
        i.push(sample(0, 10_500_000_000));
        assert_eq!(drain(&mut i), [(0, 0)]);
        i.end_track(1);
        assert_eq!(drain(&mut i).len(), 11);
    }

    #[test]
    fn times_of_the_same_tick_are_equal() {
        let mut i = Interleaver::new([90_000; 2]);
        i.push(sample(1, 19_999_999_999));
        i.push(sample(0, 20_000_000_000));
        i.end_track(0);
        i.end_track(1);
        assert_eq!(drain(&mut i), [(0, 20_000_000_000), (1, 19_999_999_999)]);
    }

    proptest! {
        #[test]
        fn comes_out_in_order_of_dts_whatever_the_mix(
            mut a in prop::collection::vec(0i64..9_000_000_000, 0..40),
            mut b in prop::collection::vec(0i64..9_000_000_000, 0..40),
            picks in prop::collection::vec(any::<bool>(), 80),
        ) {
            a.sort_unstable();
            b.sort_unstable();
            let total = a.len() + b.len();
            let (mut a, mut b) = (VecDeque::from(a), VecDeque::from(b));
            let mut i = Interleaver::new([90_000; 2]);
            let mut out = Vec::new();
            for first in picks {
                let (track, next) = if first { (0, a.pop_front()) } else { (1, b.pop_front()) };
                match next {
                    Some(dts) => i.push(sample(track, dts)),
                    None => i.end_track(track),
                }
                out.extend(drain(&mut i));
            }
            for (track, rest) in [(0, a), (1, b)] {
                rest.into_iter().for_each(|dts| i.push(sample(track, dts)));
                i.end_track(track);
            }
            out.extend(drain(&mut i));
            prop_assert_eq!(out.len(), total);
            let in_ticks = |w: &[(usize, i64)]| ticks(w[0].1, 90_000) <= ticks(w[1].1, 90_000);
            prop_assert!(out.windows(2).all(in_ticks));
        }
    }
}
