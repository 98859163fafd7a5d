//! Nanoseconds to ticks.

const NS: i128 = 1_000_000_000;

/// Time in ticks of `rate` per second, to the nearest; halves go away from zero, as ffmpeg rounds.
///
/// Nanoseconds are mostly a truncated fraction (83 416 666.67 is 7507.5 ticks of 90 kHz exactly),
/// so one nanosecond is given back before rounding; it is a thousandth of the finest tick.
pub fn ticks(ns: i64, rate: u32) -> i64 {
    let rate = i128::from(rate);
    let magnitude = i128::from(ns.unsigned_abs());
    let biased = if magnitude == 0 { 0 } else { magnitude + 1 };
    let ticks = (biased * rate * 2 + NS) / (NS * 2);
    let ticks = i64::try_from(ticks).unwrap_or(i64::MAX);
    if ns < 0 { -ticks } else { ticks }
}

/// A length in ticks; see [`ticks`].
pub fn duration_ticks(ns: u64, rate: u32) -> i64 {
    ticks(i64::try_from(ns).unwrap_or(i64::MAX), rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_away_from_zero_whichever_way_the_ns_were_cut() {
        assert_eq!(ticks(83_416_666, 90_000), 7508);
        assert_eq!(ticks(83_416_667, 90_000), 7508);
        assert_eq!(ticks(-83_416_666, 90_000), -7508);
        assert_eq!(ticks(0, 90_000), 0);
    }

    #[test]
    fn frames_fall_on_their_own_timescale() {
        for frame in 0..100_000i64 {
            let ns = i64::try_from(i128::from(frame) * 1_001 * NS / 24_000).unwrap();
            assert_eq!(ticks(ns, 24_000), frame * 1001);
        }
        assert_eq!(ticks(-21_333_333, 48_000), -1024);
    }
}
