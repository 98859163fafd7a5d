//! The frame rate of a source, as ffmpeg would take it. Pure.
//!
//! ffmpeg's HLS output has the frame rate that it guesses for the input: the container's if it
//! states one, else the coarsest common rate on which all timestamps lie. Both count and position
//! of the output's frames follow from it.

use crate::cadence::Rate;

/// Timestamps to look at before deciding. ffmpeg's own analysis is content with 20.
pub const ENOUGH: usize = 40;

/// Rates that material is made in, coarsest first.
const COMMON: [Rate; 15] = [
    (10, 1),
    (12, 1),
    (12_500, 1000),
    (15_000, 1001),
    (15, 1),
    (20, 1),
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
    (120, 1),
];

/// Timestamps may be off the grid of a rate by this much: half a tick of Matroska's milliseconds,
/// and a little.
const ROUNDING_NS: f64 = 600_000.0;

/// The output's frame rate for a source whose container or headers state `stated`, with the first
/// presentation times `times_ns` (any order).
pub fn guess(stated: Option<Rate>, times_ns: &[i64]) -> Option<Rate> {
    let mut times = times_ns.to_vec();
    times.sort_unstable();
    times.dedup();
    if let Some(rate) = stated.filter(|rate| plausible(*rate)) {
        return Some(rate);
    }
    if times.len() < 3 {
        return None;
    }
    let first = times[0];
    let on_grid = |rate: &Rate| {
        let frame = 1e9 * f64::from(rate.1) / f64::from(rate.0);
        times.iter().all(|time| {
            let position = (time - first) as f64 / frame;
            // Two timestamps may each be rounded.
            (position - position.round()).abs() * frame <= 2.0 * ROUNDING_NS
        })
    };
    let average = 1e9 * (times.len() - 1) as f64 / (times[times.len() - 1] - first) as f64;
    let reachable = |rate: &&Rate| f64::from(rate.0) / f64::from(rate.1) > average * 0.99;
    let exact = COMMON.iter().filter(reachable).find(|rate| on_grid(rate));
    // Nothing fits: the common rate nearest to the average.
    let nearest = || {
        COMMON.iter().min_by(|a, b| {
            let off = |rate: &Rate| (f64::from(rate.0) / f64::from(rate.1) / average).ln().abs();
            off(a).total_cmp(&off(b))
        })
    };
    exact.or_else(nearest).copied()
}

fn plausible((numerator, denominator): Rate) -> bool {
    let rate = f64::from(numerator) / f64::from(denominator.max(1));
    denominator > 0 && (5.0..=240.0).contains(&rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(rate: Rate, count: i32) -> Vec<i64> {
        let frame = 1000.0 * f64::from(rate.1) / f64::from(rate.0);
        (0..count).map(|n| (f64::from(n) * frame).round() as i64 * 1_000_000).collect()
    }

    #[test]
    fn what_is_stated_counts() {
        assert_eq!(guess(Some((25, 1)), &milliseconds((50, 1), 40)), Some((25, 1)));
    }

    #[test]
    fn common_rates_are_found_through_milliseconds() {
        for rate in COMMON.into_iter().filter(|rate| rate.0 / rate.1 >= 20) {
            assert_eq!(guess(None, &milliseconds(rate, 40)), Some(rate));
        }
    }

    #[test]
    fn holes_do_not_lower_the_rate() {
        let mut times = milliseconds((25, 1), 40);
        times.retain(|time| time % 3 != 1);
        times.remove(7);
        assert_eq!(guess(None, &times), Some((25, 1)));
        assert_eq!(guess(None, &[0]), None);
        // An absurd statement is none.
        assert_eq!(guess(Some((90_000, 1)), &times), Some((25, 1)));
    }
}
