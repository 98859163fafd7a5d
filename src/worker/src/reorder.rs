//! Decoding times for a copied picture whose container keeps none (Matroska). Pure.
//!
//! Frames come in order of decoding; their presentation times, sorted, are the decoding times once
//! they are moved ahead far enough that no frame is decoded after it is shown.
//!
//! Invariants: decoding times rise, and none lies behind its frame's presentation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Frames from which the depth of reordering is read; H.264 and HEVC allow 16.
const WINDOW: usize = 20;

/// Gives frames their decoding times, a few frames late.
#[derive(Debug)]
pub struct Reorder<T> {
    waiting: Vec<(i64, T)>,
    depth: Option<usize>,
    /// The depth, if it needn't be found.
    known: Option<usize>,
    times: BinaryHeap<Reverse<i64>>,
    last: Option<i64>,
}

impl<T> Default for Reorder<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), depth: None, known: None, times: BinaryHeap::new(), last: None }
    }
}

impl<T> Reorder<T> {
    /// Goes on where another has found this depth; the first frames' times are a guess.
    pub fn of_depth(depth: Option<usize>) -> Self {
        Self { known: depth, ..Self::default() }
    }

    /// The depth of reordering, once it is found.
    pub fn depth(&self) -> Option<usize> {
        self.depth
    }

    /// Takes a frame shown at `pts`; returns frames with their decoding times.
    pub fn push(&mut self, pts: i64, frame: T) -> Vec<(i64, T)> {
        self.waiting.push((pts, frame));
        if self.depth.is_none() && self.waiting.len() < WINDOW {
            return Vec::new();
        }
        self.flush()
    }

    /// The frames that still wait; afterwards there are none.
    pub fn flush(&mut self) -> Vec<(i64, T)> {
        if self.depth.is_none() {
            self.begin();
        }
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .map(|(pts, frame)| {
                self.times.push(Reverse(pts));
                let sorted = self.times.pop().map_or(pts, |Reverse(time)| time);
                // Deeper reordering than the start showed.
                let rising = self.last.map_or(sorted, |last| sorted.max(last + 1));
                let dts = rising.min(pts);
                self.last = Some(dts);
                (dts, frame)
            })
            .collect()
    }

    /// Reads the depth from the frames that wait and moves the times ahead by it.
    fn begin(&mut self) {
        let mut sorted: Vec<i64> = self.waiting.iter().map(|(pts, _)| *pts).collect();
        sorted.sort_unstable();
        let late = |(at, (pts, _)): (usize, &(i64, T))| {
            at.saturating_sub(sorted.partition_point(|time| time < pts))
        };
        let found = self.waiting.iter().enumerate().map(late).max().unwrap_or(0);
        let depth = self.known.unwrap_or(found);
        let frame = match (sorted.first(), sorted.last()) {
            (Some(first), Some(last)) if sorted.len() > 1 => {
                (last - first) / (sorted.len() as i64 - 1)
            }
            _ => 0,
        };
        let first = sorted.first().copied().unwrap_or(0);
        self.times.extend((1..=depth as i64).map(|n| Reverse(first - n * frame)));
        self.depth = Some(depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times(order: &[i64]) -> Vec<i64> {
        let mut reorder = Reorder::default();
        let mut all: Vec<(i64, ())> = Vec::new();
        for pts in order {
            all.extend(reorder.push(*pts, ()));
        }
        all.extend(reorder.flush());
        all.into_iter().map(|(dts, ())| dts).collect()
    }

    #[test]
    fn without_reordering_nothing_changes() {
        assert_eq!(times(&[0, 40, 80, 120]), [0, 40, 80, 120]);
        assert_eq!(times(&[7]), [7]);
        assert_eq!(times(&[]), Vec::<i64>::new());
    }

    #[test]
    fn pyramids_are_moved_ahead_by_two() {
        // I P B b b as x264 sends them.
        let order = [0, 160, 80, 40, 120, 320, 240, 200, 280];
        assert_eq!(times(&order), [-80, -40, 0, 40, 80, 120, 160, 200, 240]);
    }

    proptest! {
        #[test]
        fn times_rise_and_never_lie_behind(depth in 0_usize..5, groups in 1_usize..40) {
            let mut order = Vec::new();
            for group in 0..groups {
                let base = (group * (depth + 1)) as i64;
                order.push((base + depth as i64) * 40);
                order.extend((0..depth as i64).map(|n| (base + n) * 40));
            }
            let times = times(&order);
            prop_assert_eq!(times.len(), order.len());
            prop_assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(times.iter().zip(&order).all(|(dts, pts)| dts <= pts));
        }
    }
}
