//! Which output frames a decoded frame becomes, and where keyframes stand. Pure.
//!
//! ffmpeg's HLS output has a constant frame rate: frames lie on a grid of 1/rate counted from
//! source time zero, and a frame that comes early or late is dropped or shown twice ("vscfr",
//! the mode that `-copyts` brings with it). So has MP4 in one file, and without `-copyts` it also
//! begins at zero, whenever the first frame comes ("cfr"). Containers that don't mind let holes be
//! ("vfr"). Jellyfin's segment boundaries follow from the grid, so
//! it is reproduced here decision by decision, and not left to an element with rounding of its own.
//!
//! A command may cap the rate (`fps=`): then each grid line shows the last frame that rounds to it or
//! before it, which takes knowing the next one.
//!
//! Invariants:
//! - Output indices rise by one from the first frame on: no gap, no repetition.
//! - Equal inputs give equal outputs; nothing depends on wall time.

/// How often and in what order a frame is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Emission {
    /// Index of the first frame to send, in units of the grid.
    pub first: i64,
    /// How many of these show the previous frame again.
    pub previous: u32,
    /// How many show this frame.
    pub current: u32,
}

/// A frame rate as a fraction.
pub type Rate = (u32, u32);

/// What becomes of holes in the source: ffmpeg's `-fps_mode auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Holes {
    /// They are filled, but for one before the first frame.
    #[default]
    Filled,
    /// They are filled from zero on.
    FilledFromZero,
    /// They stay.
    Kept,
}

/// Puts frames on the grid.
#[derive(Debug, Clone)]
pub struct FrameGrid {
    rate: Rate,
    next: i64,
    started: bool,
    capped: bool,
    holes: Holes,
}

/// A frame may be this much of a frame early or late before the grid gives way.
const TOLERANCE: f64 = 1.1;
/// The same where holes stay.
const TOLERANCE_WITH_HOLES: f64 = 0.6;
/// How far places are moved away from zero, in frames.
const MIDPOINT: f64 = 1.0 / 131_072.0;
/// Most copies of a frame to fill a hole: beyond this a timestamp is taken for broken, and the
/// grid starts again there.
const MAX_FILL: f64 = 3600.0 * 10.0;

impl FrameGrid {
    /// A grid of so many frames per second. The rate must not be zero.
    pub fn new(rate: Rate) -> Self {
        Self { rate, next: 0, started: false, capped: false, holes: Holes::Filled }
    }

    /// The same grid with another rule for holes.
    pub fn with(self, holes: Holes) -> Self {
        Self { holes, ..self }
    }

    /// A grid as ffmpeg's `fps` filter makes it.
    pub fn capped(rate: Rate) -> Self {
        Self { capped: true, ..Self::new(rate) }
    }

    /// Goes on: the next frame stands at `next`.
    pub fn go_on(&mut self, next: i64) {
        (self.next, self.started) = (next, true);
    }

    fn position(&self, time_ns: i64) -> f64 {
        time_ns as f64 * f64::from(self.rate.0) / (f64::from(self.rate.1) * 1e9)
    }

    /// The frame before this one, for the lines up to this one's.
    fn place_capped(&mut self, time_ns: i64) -> Emission {
        let line = self.position(time_ns).round() as i64;
        if !std::mem::replace(&mut self.started, true) {
            self.next = line;
        }
        let previous = u32::try_from(line - self.next).unwrap_or(0);
        let emission = Emission { first: self.next, previous, current: 0 };
        self.next += i64::from(previous);
        emission
    }

    /// What is still to be sent of the last frame, which ends at `end_ns` of source time.
    pub fn finish(&mut self, end_ns: i64) -> Emission {
        if self.capped && self.started {
            self.place_capped(end_ns)
        } else {
            Emission { first: self.next, ..Emission::default() }
        }
    }

    /// Places a frame that is to be shown at `time_ns` of source time.
    pub fn place(&mut self, time_ns: i64) -> Emission {
        if self.capped {
            return self.place_capped(time_ns);
        }
        let position = self.position(time_ns);
        // As ffmpeg does, lest a place between two lines fall to either by chance.
        let position = position + MIDPOINT.copysign(position);
        let mut early = position - self.next as f64;
        let mut late = early + 1.0;
        if early < 0.0 && late > 0.0 {
            late = 1.0 + early;
            early = 0.0;
        }
        if self.holes == Holes::Kept {
            return self.place_with_holes(position, late);
        }
        let late_start = !self.started && early >= 0.5 && self.holes == Holes::Filled;
        if late_start || early.abs() > MAX_FILL {
            // The hole before the first frame isn't filled.
            self.next = position.round_ties_even() as i64;
            (early, late) = (0.0, 1.0);
        }
        self.started = true;
        let (previous, total) = if late < -TOLERANCE {
            (0, 0)
        } else if late > TOLERANCE {
            let total = late.round_ties_even() as u32;
            let previous =
                if early > TOLERANCE { (early - 0.6).round_ties_even() as u32 } else { 0 };
            (previous.min(total), total)
        } else {
            (0, 1)
        };
        let first = self.next;
        self.next += i64::from(total);
        Emission { first, previous, current: total - previous }
    }

    /// A frame at its own place, or at the next that is free; one that comes too late is dropped.
    /// `late` is how far its end lies behind the next free place.
    fn place_with_holes(&mut self, position: f64, late: f64) -> Emission {
        self.started = true;
        if late <= -TOLERANCE_WITH_HOLES {
            return Emission { first: self.next, ..Emission::default() };
        }
        let first = self.next.max(position.round_ties_even() as i64);
        self.next = first + 1;
        Emission { first, previous: 0, current: 1 }
    }

    /// Source time of a grid index in ns, rounded to nearest.
    pub fn time_ns(&self, index: i64) -> i64 {
        let numerator = i128::from(index) * i128::from(self.rate.1) * 1_000_000_000;
        let rate = i128::from(self.rate.0);
        ((numerator + rate / 2).div_euclid(rate)) as i64
    }

    /// Source time of the grid index that is nearest to a time, ns.
    pub fn nearest_ns(&self, time_ns: i64) -> i64 {
        self.time_ns(self.position(time_ns).round() as i64)
    }

    /// The rate.
    pub fn rate(&self) -> Rate {
        self.rate
    }
}

/// Keyframes every so many seconds from the first frame on (contract 2.2: `t` of
/// `gte(t,n_forced*3)` counts from the first frame encoded).
#[derive(Debug, Clone)]
pub struct KeyframeGrid {
    every_seconds: f64,
    first: Option<i64>,
    forced: u64,
}

impl KeyframeGrid {
    /// A grid with this period.
    pub fn new(every_seconds: f64) -> Self {
        Self { every_seconds, first: None, forced: 0 }
    }

    /// Index of the first frame, and how many keyframes there have been; `None` before any frame.
    pub fn progress(&self) -> Option<(i64, u64)> {
        Some((self.first?, self.forced))
    }

    /// Goes on where [`progress`](Self::progress) was so.
    pub fn go_on(&mut self, (first, forced): (i64, u64)) {
        (self.first, self.forced) = (Some(first), forced);
    }

    /// Whether the frame with this index of `grid` must be a keyframe. Ask for each frame, in
    /// order, once.
    pub fn is_key(&mut self, index: i64, rate: Rate) -> bool {
        let first = *self.first.get_or_insert(index);
        let seconds = (index - first) as f64 * (f64::from(rate.1) / f64::from(rate.0));
        let key = seconds >= self.forced as f64 * self.every_seconds;
        if key {
            self.forced += 1;
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: f64 = 1e9;

    fn place_all(rate: Rate, times: impl IntoIterator<Item = f64>) -> Vec<(i64, u32, u32)> {
        let mut grid = FrameGrid::new(rate);
        times
            .into_iter()
            .map(|t| grid.place((t * SECOND) as i64))
            .map(|e| (e.first, e.previous, e.current))
            .collect()
    }

    #[test]
    fn constant_rate_is_one_to_one() {
        let frames = place_all((25, 1), (0..100).map(|n| f64::from(n) / 25.0));
        assert!(frames.iter().enumerate().all(|(n, f)| *f == (n as i64, 0, 1)));
    }

    #[test]
    fn milliseconds_of_matroska_do_no_harm() {
        let times = (0..2000).map(|n| (f64::from(n) * 1001.0 / 24.0).round() / 1000.0);
        let frames = place_all((24000, 1001), times);
        assert!(frames.iter().enumerate().all(|(n, f)| *f == (n as i64, 0, 1)));
    }

    #[test]
    fn the_start_is_not_filled() {
        assert_eq!(place_all((25, 1), [5.0, 5.04]), [(125, 0, 1), (126, 0, 1)]);
        // Less than half a frame late: the first frame stands on the grid's zero.
        assert_eq!(place_all((25, 1), [0.012, 0.052]), [(0, 0, 1), (1, 0, 1)]);
    }

    #[test]
    fn a_hole_shows_the_frame_before_it() {
        assert_eq!(
            place_all((25, 1), [0.0, 0.04, 0.16, 0.20]),
            [(0, 0, 1), (1, 0, 1), (2, 1, 2), (5, 0, 1)]
        );
    }

    #[test]
    fn a_hole_stays_where_the_container_lets_it() {
        let place = |holes, times: &[f64]| -> Vec<(i64, u32, u32)> {
            let mut grid = FrameGrid::new((25, 1)).with(holes);
            let places = times.iter().map(|t| grid.place((t * SECOND) as i64));
            places.map(|e| (e.first, e.previous, e.current)).collect()
        };
        let times = [0.0, 0.04, 0.16, 0.165, 0.17, 0.24];
        assert_eq!(
            place(Holes::Kept, &times),
            [(0, 0, 1), (1, 0, 1), (4, 0, 1), (5, 0, 1), (6, 0, 0), (6, 0, 1)]
        );
        // Half way between two lines it is the one farther from zero.
        assert_eq!(place(Holes::Kept, &[0.0, 1.22]), [(0, 0, 1), (31, 0, 1)]);
        assert_eq!(place(Holes::FilledFromZero, &[0.1]), [(0, 2, 2)]);
        assert_eq!(place(Holes::Filled, &[0.1]), [(3, 0, 1)]);
    }

    #[test]
    fn too_many_frames_are_dropped() {
        let frames = place_all((25, 1), (0..200).map(|n| f64::from(n) / 50.0));
        let sent: u32 = frames.iter().map(|f| f.1 + f.2).sum();
        // The grid may run ahead by two frames before it gives way.
        assert!((100..=102).contains(&sent), "{sent}");
    }

    #[test]
    fn a_cap_shows_the_last_frame_of_each_line() {
        let mut grid = FrameGrid::capped((25, 1));
        let time = |n: i64| n * 20_000_000;
        let mut emissions: Vec<Emission> = (0..6).map(|n| grid.place(time(n))).collect();
        emissions.push(grid.finish(time(6)));
        let sent: Vec<_> =
            emissions.into_iter().map(|e| (e.first, e.previous, e.current)).collect();
        // Half a line rounds up: the second frame stands on line 1 until the third replaces it.
        assert_eq!(
            sent,
            [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 1, 0), (3, 0, 0)]
        );
    }

    #[test]
    fn keyframes_of_23_976() {
        let mut grid = KeyframeGrid::new(3.0);
        let keys: Vec<i64> =
            (100..400).filter(|n| grid.is_key(*n, (24000, 1001))).map(|n| n - 100).collect();
        assert_eq!(keys, [0, 72, 144, 216, 288]);
    }

    proptest! {
        #[test]
        fn indices_never_leave_a_gap(
            steps in prop::collection::vec(0_i64..200_000_000, 1..200),
            rate in prop::sample::select(vec![(24000, 1001), (25, 1), (30, 1), (60000, 1001)]),
        ) {
            let mut grid = FrameGrid::new(rate);
            let mut time = 0;
            let mut next = None;
            for step in steps {
                time += step;
                let emission = grid.place(time);
                if let Some(next) = next {
                    prop_assert_eq!(emission.first, next);
                }
                next = Some(emission.first + i64::from(emission.previous + emission.current));
                // The grid never runs away from the source.
                let drift = grid.time_ns(next.unwrap()) - time;
                prop_assert!(drift.abs() < 200_000_000, "{drift}");
            }
        }
    }
}
