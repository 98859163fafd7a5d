//! How fast a stream is made while nothing holds it. Pure: the time is an argument.
//!
//! A stream that is held for others, or paused, stands still because it is told to; that says nothing of
//! what it could do. So only the time between two reports counts in which neither was the case.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The time that counts: long enough for scenes to even out, short enough to show what is now.
const WINDOW: Duration = Duration::from_secs(20);
/// Reports that come faster are put together, so that a window has a bounded number of them.
const PIECE: Duration = Duration::from_millis(250);

/// Wall time, and the media that was made in it.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    wall: Duration,
    media: Duration,
}

impl Piece {
    fn add(&mut self, other: Self) {
        self.wall += other.wall;
        self.media += other.media;
    }

    /// Media time over wall time; `None` without any.
    fn speed(self) -> Option<f64> {
        (!self.wall.is_zero()).then(|| self.media.as_secs_f64() / self.wall.as_secs_f64())
    }
}

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    /// The last report, and how far the stream was then.
    last: Option<(Instant, Duration)>,
    /// It has been held since.
    held: bool,
    /// Of late, the latest at the back.
    pieces: VecDeque<Piece>,
    whole: Piece,
}

impl Pace {
    /// From now on, until a report says otherwise, it stands still because it is told to.
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// It has come so far. `held` is whether it is held or paused now.
    pub(super) fn report(&mut self, position: Duration, held: bool, now: Instant) {
        let last = self.last.replace((now, position));
        let was_held = std::mem::replace(&mut self.held, held) || held;
        let Some((then, before)) = last.filter(|_| !was_held) else { return };
        let piece = Piece { wall: now - then, media: position.saturating_sub(before) };
        self.whole.add(piece);
        match self.pieces.back_mut() {
            Some(back) if back.wall < PIECE => back.add(piece),
            _ => self.pieces.push_back(piece),
        }
        let mut wall: Duration = self.pieces.iter().map(|piece| piece.wall).sum();
        while let Some(oldest) = self.pieces.front().filter(|oldest| wall - oldest.wall >= WINDOW) {
            wall -= oldest.wall;
            self.pieces.pop_front();
        }
    }

    /// Of late; `None` if it isn't known yet.
    pub(super) fn speed(&self) -> Option<f64> {
        let mut sum = Piece::default();
        self.pieces.iter().for_each(|piece| sum.add(*piece));
        sum.speed()
    }

    /// Since it began.
    pub(super) fn overall(&self) -> Option<f64> {
        self.whole.speed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports every half second from `from` on, at this speed; where it is then.
    fn run(pace: &mut Pace, start: Instant, from: f64, seconds: f64, speed: f64, held: bool) {
        let position = pace.last.map_or(0.0, |(_, position)| position.as_secs_f64());
        for half in 0..=(seconds * 2.0) as u32 {
            let passed = f64::from(half) / 2.0;
            let at = start + Duration::from_secs_f64(from + passed);
            pace.report(Duration::from_secs_f64(position + passed * speed), held, at);
        }
    }

    fn about(speed: Option<f64>, expect: f64) {
        let speed = speed.unwrap();
        assert!((speed - expect).abs() < 0.02 * expect, "{speed}, expected {expect}");
    }

    #[test]
    fn a_stream_that_is_held_is_as_fast_as_before() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.speed(), None);
        run(&mut pace, start, 0.0, 60.0, 5.0, false);
        about(pace.speed(), 5.0);
        run(&mut pace, start, 60.0, 600.0, 0.0, true);
        about(pace.speed(), 5.0);
        about(pace.overall(), 5.0);
    }

    #[test]
    fn what_was_before_the_last_twenty_seconds_counts_no_more() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        run(&mut pace, start, 0.0, 600.0, 8.0, false);
        run(&mut pace, start, 600.0, 10.0, 2.0, false);
        about(pace.speed(), 5.0);
        run(&mut pace, start, 610.0, 10.5, 2.0, false);
        about(pace.speed(), 2.0);
        assert!(pace.overall().unwrap() > 7.0);
    }

    #[test]
    fn a_stream_that_does_not_move_though_nothing_holds_it_is_slow() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        run(&mut pace, start, 0.0, 30.0, 3.0, false);
        run(&mut pace, start, 30.0, 21.0, 0.0, false);
        assert_eq!(pace.speed(), Some(0.0));
    }

    #[test]
    fn a_moment_of_being_held_between_two_reports_counts_too() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        run(&mut pace, start, 0.0, 10.0, 3.0, false);
        pace.hold();
        pace.report(Duration::from_secs(30), false, start + Duration::from_secs(15));
        about(pace.speed(), 3.0);
    }

    #[test]
    fn many_reports_are_few_pieces() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for milli in 0..100_000 {
            let passed = Duration::from_millis(milli);
            pace.report(passed, false, start + passed);
        }
        assert!(pace.pieces.len() <= 81, "{}", pace.pieces.len());
    }
}
