//! The frame rate of a source, as ffmpeg would take it. Pure.
//!
//! ffmpeg's HLS output has the frame rate that it guesses for the input; count and position of the
//! output's frames follow from it. In this order:
//! 1. what the container states (Matroska's default duration, an MP4 track whose frames last
//!    equally long);
//! 2. the greatest common divisor of the distances, if it is no accident of a fine clock;
//! 3. the common rate on whose grid the timestamps lie best;
//! 4. what the codec's own headers say (not known here: the decoder's rate is taken).

use crate::cadence::Rate;
use crate::tracks::reduced;

/// Timestamps to look at. ffmpeg looks at 20 to 40; some more, because the last in order of
/// decoding aren't the last in order of presentation.
pub const ENOUGH: usize = 44;
/// Timestamps at the end that may have holes between them for that reason.
const UNSETTLED: usize = 4;
/// Distances at the start that may be irregular.
const IRREGULAR: usize = 3;
/// Fewest distances that a divisor is taken from.
const FEWEST: usize = 15;
/// Greatest variance of the position between two grid lines, in frames squared.
const VARIANCE: f64 = 0.01;

/// The output's frame rate for a source whose container states `stated`, with the first
/// presentation times `times_ns` (any order), written with `timescale` ticks per second.
pub fn guess(stated: Option<Rate>, times_ns: &[i64], timescale: Option<u32>) -> Option<Rate> {
    if let Some(rate) = stated.filter(|rate| plausible(*rate)) {
        return Some(rate);
    }
    let mut times = times_ns.to_vec();
    times.sort_unstable();
    times.dedup();
    if times.len() > FEWEST + UNSETTLED {
        times.truncate(times.len() - UNSETTLED);
    }
    if times.len() < 3 {
        return None;
    }
    let divisor = timescale.and_then(|scale| common_divisor(&times, scale));
    divisor.filter(|rate| plausible(*rate)).or_else(|| nearest_grid(&times))
}

fn common_divisor(times_ns: &[i64], timescale: u32) -> Option<Rate> {
    let tick = |ns: i64| (ns as f64 * f64::from(timescale) / 1e9).round() as i64;
    let distances: Vec<i64> = times_ns.windows(2).map(|t| tick(t[1]) - tick(t[0])).collect();
    if distances.len() <= FEWEST {
        return None;
    }
    let divisor = distances[IRREGULAR..].iter().fold(0, |a, b| greatest_divisor(a, *b));
    // Two milliseconds: no picture is that short, a clock is.
    let coarse = divisor > i64::from(timescale / 500).max(1);
    let divisor = u32::try_from(divisor).ok().filter(|_| coarse)?;
    Some(reduced(timescale, divisor))
}

fn greatest_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// All rates that are tried: twelfths up to 30, whole ones up to 60, some beyond, and those of
/// film and television.
fn candidates() -> impl Iterator<Item = Rate> {
    let twelfths = (12..=360).map(|n| reduced(n, 12));
    let whole = (31..=60).chain([80, 120, 240]).map(|n| (n, 1));
    let television = [24, 30, 60, 12, 15, 48].map(|n| reduced(n * 1000, 1001));
    twelfths.chain(whole).chain(television)
}

/// The rate on whose grid the times lie with the least variance, wherever the grid begins.
fn nearest_grid(times_ns: &[i64]) -> Option<Rate> {
    let span = (times_ns[times_ns.len() - 1] - times_ns[0]) as f64 / 1e9;
    let average = span / (times_ns.len() - 1) as f64;
    let mut best: Option<(f64, Rate)> = None;
    for rate in candidates() {
        let frames = f64::from(rate.0) / f64::from(rate.1);
        // A grid that has no room for all frames.
        if average * frames < 0.8 {
            continue;
        }
        for phase in [0.0, 0.5] {
            let variance = variance(times_ns, frames, phase);
            let better = best.is_none_or(|(least, _)| variance < least && least > 1e-9);
            if variance < VARIANCE && better {
                best = Some((variance, rate));
            }
        }
    }
    best.map(|(_, rate)| rate).filter(|rate| plausible(*rate))
}

/// Variance of the distance to the next grid line; `phase` keeps times between two lines from
/// falling now to one and now to the other.
fn variance(times_ns: &[i64], frames: f64, phase: f64) -> f64 {
    let distances = times_ns[1..].iter().map(|time| {
        let position = *time as f64 / 1e9 * frames;
        position - (position + phase).round_ties_even() + phase
    });
    let count = (times_ns.len() - 1) as f64;
    let (sum, squares) = distances.fold((0.0, 0.0), |(a, b), d| (a + d, b + d * d));
    squares / count - (sum / count).powi(2)
}

fn plausible((numerator, denominator): Rate) -> bool {
    let rate = f64::from(numerator) / f64::from(denominator.max(1));
    denominator > 0 && (1.0..=1000.0).contains(&rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: [Rate; 9] = [
        (12_000, 1001),
        (15, 1),
        (24_000, 1001),
        (24, 1),
        (25, 1),
        (30_000, 1001),
        (50, 1),
        (60_000, 1001),
        (60, 1),
    ];

    fn ticks(rate: Rate, count: i32, timescale: f64) -> Vec<i64> {
        let frame = f64::from(rate.1) / f64::from(rate.0);
        let tick = |n: i32| (f64::from(n) * frame * timescale).round() / timescale;
        (0..count).map(|n| (tick(n) * 1e9) as i64).collect()
    }

    #[test]
    fn what_is_stated_counts() {
        assert_eq!(guess(Some((25, 1)), &ticks((50, 1), 40, 1000.0), None), Some((25, 1)));
    }

    #[test]
    fn common_rates_are_found_through_milliseconds_and_ticks() {
        for rate in COMMON {
            for scale in [1000, 90_000] {
                let times = ticks(rate, 44, f64::from(scale));
                assert_eq!(guess(None, &times, Some(scale)), Some(rate), "{rate:?} {scale}");
            }
        }
    }

    #[test]
    fn holes_do_not_lower_the_rate() {
        let mut times = ticks((25, 1), 60, 1000.0);
        times.retain(|time| time % 3 != 1);
        times.remove(7);
        assert_eq!(guess(None, &times, Some(1000)), Some((25, 1)));
        assert_eq!(guess(None, &[0], Some(1000)), None);
        // An absurd statement is none.
        assert_eq!(guess(Some((90_000, 1)), &times, Some(1000)), Some((25, 1)));
    }

    #[test]
    fn no_rate_is_better_than_a_wrong_one() {
        let times: Vec<i64> =
            (0..40_i64).map(|n| n * 33_000_000 + n * n % 11 * 1_900_000).collect();
        assert_eq!(guess(None, &times, Some(90_000)), None);
    }
}
