//! What a viewer had on the screen, and how much more there was: from a session's report.
//!
//! The playhead moves at normal speed from the moment the first segment is served, and stands still
//! where the next hasn't come. A segment can be served once the file of the next is there (contract 4),
//! so what a transcode has made is known from when files appeared.

use jellyfin_sim::Report;
use serde::Serialize;

/// A span of time in which the picture stood still, in seconds of the report's clock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Standstill {
    /// From.
    pub from: f64,
    /// To.
    pub to: f64,
    /// Nothing had been shown yet, at the beginning or after a seek.
    pub beginning: bool,
}

/// A session in time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Viewing {
    /// When the picture stood still.
    pub standstills: Vec<Standstill>,
    /// Media that could be served beyond the playhead: time and lead in seconds, where it changes
    /// its course. A gap of the line is `None`: nothing is played.
    pub lead: Vec<(f64, Option<f64>)>,
}

/// One stretch of playing without a seek: when each of its segments was served.
#[derive(Debug)]
struct Stretch {
    requested: f64,
    first: i64,
    served: Vec<f64>,
    run: usize,
}

impl Viewing {
    /// Of a session whose viewer turned away at `end`, after its last segment was served.
    pub fn of(report: &Report, end: f64) -> Self {
        let stretches = stretches(report);
        let mut standstills = Vec::new();
        let mut lead = Vec::new();
        for (index, stretch) in stretches.iter().enumerate() {
            let until = stretches.get(index + 1).map_or(end, |next| next.requested);
            let begin = stretch.served[0];
            standstills.push(Standstill { from: stretch.requested, to: begin, beginning: true });
            let course = course(stretch, report.segment_seconds, until);
            standstills.extend(course.stalls.iter().map(|(from, to)| Standstill {
                from: *from,
                to: *to,
                beginning: false,
            }));
            lead.extend(leads(report, stretch, &course, until));
            lead.push((until, None));
        }
        Self { standstills, lead }
    }

    /// On a clock that is `seconds` ahead.
    pub fn shift(&mut self, seconds: f64) {
        for still in &mut self.standstills {
            still.from += seconds;
            still.to += seconds;
        }
        self.lead.iter_mut().for_each(|(time, _)| *time += seconds);
    }

    /// Count and total seconds of those in the midst of playing.
    pub fn stalls(&self) -> (usize, f64) {
        let stalls = self.standstills.iter().filter(|still| !still.beginning);
        let seconds = stalls.clone().map(|still| still.to - still.from).sum::<f64>() + 0.0;
        (stalls.count(), seconds)
    }
}

fn stretches(report: &Report) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for segment in report.segments.iter().filter(|segment| segment.number >= 0) {
        match stretches.last_mut() {
            Some(last) if last.first + last.served.len() as i64 == segment.number => {
                last.served.push(segment.served);
                last.run = segment.run;
            }
            _ => stretches.push(Stretch {
                requested: segment.requested,
                first: segment.number,
                served: vec![segment.served],
                run: segment.run,
            }),
        }
    }
    stretches
}

/// A playhead: points of time and media seconds, straight between them.
struct Course {
    points: Vec<(f64, f64)>,
    stalls: Vec<(f64, f64)>,
}

impl Course {
    fn at(&self, time: f64) -> f64 {
        let behind = self.points.partition_point(|(at, _)| *at <= time);
        let Some((t0, p0)) = self.points[..behind].last().copied() else {
            return self.points[0].1;
        };
        match self.points.get(behind) {
            Some((t1, p1)) if *t1 > t0 => p0 + (p1 - p0) * (time - t0) / (t1 - t0),
            _ => p0,
        }
    }
}

fn course(stretch: &Stretch, segment_seconds: f64, until: f64) -> Course {
    let mut playhead = stretch.first as f64 * segment_seconds;
    let mut have = playhead + segment_seconds;
    let mut course = Course { points: vec![(stretch.served[0], playhead)], stalls: Vec::new() };
    let later = stretch.served[1..].iter().copied();
    for time in later.chain([until]) {
        let now = course.points[course.points.len() - 1].0;
        let runs_dry = now + (have - playhead);
        if runs_dry < time {
            course.points.push((runs_dry, have));
            course.stalls.push((runs_dry, time));
            playhead = have;
        } else {
            playhead += (time - now).max(0.0);
        }
        course.points.push((time.max(now), playhead));
        have += segment_seconds;
    }
    course
}

/// The lead at each point of the playhead and each time that something was made.
fn leads(
    report: &Report,
    stretch: &Stretch,
    course: &Course,
    until: f64,
) -> Vec<(f64, Option<f64>)> {
    let begin = stretch.served[0];
    let mut made = stretch.first as f64 * report.segment_seconds;
    let mut times: Vec<(f64, f64)> = Vec::new();
    for appeared in report.appeared.iter().filter(|a| a.run == stretch.run && a.number >= 0) {
        // Its own file appears as it is begun: what lies before it is whole.
        let whole = appeared.number as f64 * report.segment_seconds;
        if whole <= made {
            continue;
        }
        if appeared.at > begin && appeared.at < until {
            times.push((appeared.at, made));
            times.push((appeared.at, whole));
        } else if appeared.at >= until {
            break;
        }
        made = whole;
    }
    let mut lead: Vec<(f64, Option<f64>)> = Vec::new();
    let mut made = times.first().map_or(made, |(_, before)| *before);
    let mut points = course.points.iter().map(|(time, _)| *time).peekable();
    for (time, after) in times.into_iter().chain([(f64::INFINITY, made)]) {
        while let Some(point) = points.next_if(|point| *point <= time) {
            lead.push((point, Some(made - course.at(point))));
        }
        if time.is_finite() {
            lead.push((time, Some(after - course.at(time))));
            made = after;
        }
    }
    // Of the last segment nothing says when it was whole; it was served, so it was.
    lead.into_iter().map(|(time, lead)| (time, lead.map(|lead| lead.max(0.0)))).collect()
}

#[cfg(test)]
mod tests {
    use jellyfin_sim::{Appeared, Served};

    use super::*;

    /// Segments of 3 s by number, request and serving; files by number, run and time.
    fn report(served: &[(i64, usize, f64, f64)], appeared: &[(i64, usize, f64)]) -> Report {
        Report {
            segment_seconds: 3.0,
            segments: served
                .iter()
                .map(|(number, run, requested, served)| Served {
                    number: *number,
                    run: *run,
                    made_in: Some(*run),
                    requested: *requested,
                    ready: *served,
                    served: *served,
                    bytes: 1,
                    hash: String::new(),
                })
                .collect(),
            appeared: appeared
                .iter()
                .map(|(number, run, at)| Appeared { number: *number, run: *run, at: *at })
                .collect(),
            ..Report::default()
        }
    }

    #[test]
    fn a_late_segment_is_a_stall_that_shifts_what_follows() {
        let served = [(0, 0, 0.0, 1.0), (1, 0, 1.0, 3.0), (2, 0, 3.0, 9.0), (3, 0, 9.0, 11.0)];
        let files = [(0, 0, 0.5), (1, 0, 1.0), (2, 0, 3.0), (3, 0, 9.0), (4, 0, 11.0)];
        let viewing = Viewing::of(&report(&served, &files), 15.0);
        // Six seconds of media from second 1 on; the third segment came at 9.
        assert_eq!(
            viewing.standstills,
            [
                Standstill { from: 0.0, to: 1.0, beginning: true },
                Standstill { from: 7.0, to: 9.0, beginning: false }
            ]
        );
        assert_eq!(viewing.stalls(), (1, 2.0));
    }

    #[test]
    fn the_lead_is_what_was_whole_minus_what_was_shown() {
        let served = [(0, 0, 0.0, 1.0), (1, 0, 1.0, 2.0)];
        // The fourth file appears at 3: nine seconds are whole.
        let files = [(0, 0, 0.5), (1, 0, 1.0), (2, 0, 2.0), (3, 0, 3.0)];
        let viewing = Viewing::of(&report(&served, &files), 5.0);
        let at = |time: f64| {
            let of = viewing.lead.iter().rev().find(|(at, lead)| *at <= time && lead.is_some());
            of.unwrap().1.unwrap()
        };
        assert_eq!((at(1.0), at(2.0), at(3.0)), (3.0, 5.0, 7.0));
        assert_eq!(at(5.0), 5.0);
        assert_eq!(viewing.lead.last(), Some(&(5.0, None)));
    }

    #[test]
    fn a_seek_begins_anew() {
        let served = [(0, 0, 0.0, 1.0), (40, 1, 2.0, 4.0), (41, 1, 4.0, 4.5)];
        let files = [(0, 0, 0.5), (1, 0, 1.0), (40, 1, 3.0), (41, 1, 4.0), (42, 1, 4.5)];
        let viewing = Viewing::of(&report(&served, &files), 6.0);
        let begins: Vec<_> =
            viewing.standstills.iter().map(|still| (still.from, still.to)).collect();
        assert_eq!(begins, [(0.0, 1.0), (2.0, 4.0)]);
        assert_eq!(viewing.stalls(), (0, 0.0));
        assert!(viewing.lead.iter().flat_map(|(_, lead)| lead).all(|lead| *lead < 6.1));
    }

    #[test]
    fn what_never_came_is_a_stall_until_the_viewer_turns_away() {
        let viewing = Viewing::of(&report(&[(0, 0, 0.0, 1.0)], &[(0, 0, 0.5), (1, 0, 1.0)]), 6.0);
        assert_eq!(viewing.stalls(), (1, 2.0));
    }

    #[test]
    fn nothing_served_is_nothing_viewed() {
        let viewing = Viewing::of(&report(&[], &[]), 6.0);
        assert_eq!((viewing.stalls(), viewing.lead.len()), ((0, 0.0), 0));
    }
}
