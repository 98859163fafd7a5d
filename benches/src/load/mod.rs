//! Several viewers at once, on the stack and on plain ffmpeg, one side after the other.
//!
//! ```text
//! Parameters ─▶ plan: who comes when ─▶ run: a side ─┬─ sessions (jellyfin-sim, a thread each)
//!                                                   └─ usage: CPU time and memory of all processes
//!              Side ─▶ figures: table, load.json ◀──── viewing: playhead, lead, stalls
//!                  └─▶ chart: load.svg
//! ```
//!
//! *Residents* come one after the other and stay; some of them seek. *Newcomers* come when all
//! residents are there, one after the other, watch for a moment and leave: each begins beside as many
//! others.

pub mod chart;
pub mod figures;
pub mod run;
pub mod usage;
pub mod viewing;

use jellyfin_sim::{Amount, Script, Step};
use serde::Serialize;

use crate::clip::Clip;

/// What a load is made of. Times in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Parameters {
    /// Viewers at once: one newcomer, the others residents.
    pub sessions: usize,
    /// Between the starts of two residents.
    pub stagger: f64,
    /// From the last resident's start to the first newcomer's.
    pub settle: f64,
    /// Newcomers, one after the other.
    pub newcomers: usize,
    /// From one newcomer to the next.
    pub every: f64,
    /// How long a newcomer stays.
    pub stay: f64,
    /// Media that a player keeps ahead of what it shows.
    pub buffer: f64,
    /// How far ahead Jellyfin pauses a transcode; it doesn't by default.
    pub throttle: Option<f64>,
    /// Width of the source in pixels.
    pub width: u32,
    /// Height of the source in pixels.
    pub height: u32,
    /// Its length.
    pub length: u32,
    /// Height of the output in pixels.
    pub output_height: u32,
    /// `streams.max_streams` of the gateway; 0 for no limit.
    pub max_streams: usize,
    /// `admission.enabled` of the gateway, after a calibration.
    pub admission: bool,
    /// First segments that each side makes alone, to compare with.
    pub idle_runs: usize,
}

/// Length of the part that a clip repeats, in seconds.
const LOOP: u32 = 30;
/// A resident has watched so long when it seeks.
const BEFORE_SEEK: f64 = 14.0;

impl Parameters {
    /// Streams that two cores sustain.
    pub fn fitting() -> Self {
        Self {
            sessions: 6,
            stagger: 4.0,
            settle: 24.0,
            newcomers: 3,
            every: 16.0,
            stay: 11.0,
            buffer: 12.0,
            throttle: None,
            width: 1280,
            height: 720,
            length: 300,
            output_height: 360,
            max_streams: 0,
            admission: false,
            idle_runs: 3,
        }
    }

    /// More than they do.
    pub fn too_many() -> Self {
        Self { width: 1920, height: 1080, output_height: 720, admission: true, ..Self::fitting() }
    }

    /// The clip that all watch.
    pub fn clip(&self) -> Clip {
        let Self { width, height, .. } = *self;
        Clip { width, height, rate: "24000/1001", seconds: LOOP }
    }

    /// When the last session ends.
    pub fn end(&self) -> f64 {
        let residents = self.sessions.saturating_sub(1) as f64;
        let begin = (residents - 1.0).max(0.0) * self.stagger + self.settle;
        begin + self.newcomers.saturating_sub(1) as f64 * self.every + self.stay
    }

    /// Who comes when.
    pub fn plan(&self) -> Vec<Session> {
        let residents = self.sessions.saturating_sub(1);
        let end = self.end();
        let mut sessions: Vec<Session> = (0..residents)
            .map(|index| {
                let start = index as f64 * self.stagger;
                Session {
                    name: format!("resident {}", index + 1),
                    start,
                    newcomer: false,
                    script: resident(index, end - start, self.length),
                }
            })
            .collect();
        let first = sessions.last().map_or(0.0, |last| last.start) + self.settle;
        sessions.extend((0..self.newcomers).map(|index| Session {
            name: format!("newcomer {}", index + 1),
            start: first + index as f64 * self.every,
            newcomer: true,
            script: Script(vec![Step::Play(Amount::Seconds(self.stay)), Step::Leave]),
        }));
        sessions
    }
}

/// Every second one seeks, far enough ahead that Jellyfin starts anew.
fn resident(index: usize, stay: f64, length: u32) -> Script {
    let watch = |seconds| Step::Play(Amount::Seconds(seconds));
    let steps = if index % 2 == 1 && stay > BEFORE_SEEK {
        let to = f64::from(length) * 0.6;
        vec![watch(BEFORE_SEEK), Step::Seek(to), watch(stay - BEFORE_SEEK), Step::Leave]
    } else {
        vec![watch(stay), Step::Leave]
    };
    Script(steps)
}

/// A viewer to come.
#[derive(Debug, Clone)]
pub struct Session {
    /// For people.
    pub name: String,
    /// When it comes, in seconds.
    pub start: f64,
    /// Comes when all residents are there.
    pub newcomer: bool,
    /// What it does.
    pub script: Script,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_come_one_by_one_beside_all_residents() {
        let parameters = Parameters::fitting();
        let plan = parameters.plan();
        let (residents, newcomers) = plan.split_at(5);
        assert!(residents.iter().all(|session| !session.newcomer));
        assert_eq!(newcomers.len(), 3);
        let last = residents.last().unwrap().start;
        assert!(newcomers[0].start >= last + parameters.settle);
        for pair in newcomers.windows(2) {
            assert!(pair[0].start + parameters.stay < pair[1].start);
        }
        assert_eq!(newcomers[2].start + parameters.stay, parameters.end());
        let seeks =
            residents.iter().filter(|s| s.script.0.iter().any(|s| matches!(s, Step::Seek(_))));
        assert_eq!(seeks.count(), 2);
    }

    #[test]
    fn one_session_is_a_newcomer_alone() {
        let parameters = Parameters { sessions: 1, newcomers: 1, ..Parameters::fitting() };
        assert_eq!(parameters.plan().len(), 1);
        assert!(parameters.plan()[0].newcomer);
    }
}
