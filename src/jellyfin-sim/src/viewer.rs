//! Somebody who watches: a script of playing, seeking and leaving.

use std::str::FromStr;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;

use crate::job::Job;
use crate::let_pass;
use crate::report::Report;
use crate::server::Server;

/// A step of a script.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Asks for segments in order.
    Play(Amount),
    /// Goes to a time in seconds; the next segment asked for is the one that holds it.
    Seek(f64),
    /// Does nothing for so many seconds.
    Wait(f64),
    /// The throttler's `p`.
    Pause,
    /// The throttler's `u`.
    Resume,
    /// Stops the transcode; the files stay.
    Stop,
    /// SIGTERM in place of `q`.
    Terminate,
    /// SIGKILL in place of `q`.
    Kill,
    /// Waits until the transcode has ended by itself.
    Finish,
    /// Stops the transcode and deletes its files.
    Leave,
}

/// How much to play.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// So many segments.
    Segments(u64),
    /// Until the end.
    All,
    /// Until so many seconds have passed.
    Seconds(f64),
}

/// What a viewer does, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Script(pub Vec<Step>);

/// Why a script isn't one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "expected a step such as \"play 4\", \"play all\", \"play 20s\", \"seek 30\", \"wait 1.5\", \"pause\", \
     \"resume\", \"finish\", \"stop\", \"term\", \"kill\" or \"leave\", got {0:?}"
)]
pub struct ScriptError(String);

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        text.split(';')
            .map(str::trim)
            .filter(|step| !step.is_empty())
            .map(step)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn step(text: &str) -> Result<Step, ScriptError> {
    let wrong = || ScriptError(text.to_owned());
    let seconds = |value: &str| {
        value
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite() && *value >= 0.0)
            .ok_or_else(wrong)
    };
    let words: Vec<_> = text.split_whitespace().collect();
    Ok(match words[..] {
        ["play", "all"] => Step::Play(Amount::All),
        ["play", time] if time.ends_with('s') => {
            Step::Play(Amount::Seconds(seconds(&time[..time.len() - 1])?))
        }
        ["play", count] => Step::Play(Amount::Segments(count.parse().map_err(|_| wrong())?)),
        ["seek", time] => Step::Seek(seconds(time)?),
        ["wait", time] => Step::Wait(seconds(time)?),
        ["pause"] => Step::Pause,
        ["resume"] => Step::Resume,
        ["stop"] => Step::Stop,
        ["term"] => Step::Terminate,
        ["kill"] => Step::Kill,
        ["finish"] => Step::Finish,
        ["leave"] => Step::Leave,
        _ => return Err(wrong()),
    })
}

/// How fast a viewer asks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// For the next segment as soon as one has come.
    Fast,
    /// As a player does: `factor` times wall speed, with a buffer of so many media seconds.
    Watching {
        /// 1.0 is normal speed.
        factor: f64,
        /// What is held ahead of the picture shown.
        buffer_seconds: f64,
    },
}

/// A pause in playback at normal speed, whatever the pace of asking.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stall {
    /// The segment that was not there in time.
    pub segment: i64,
    /// How long playback stood still.
    pub seconds: f64,
}

/// Playback since the last seek.
struct Stretch {
    /// When its first segment was served.
    since: f64,
    /// Segments served before the next one.
    segments: u64,
    /// Stalls so far, in seconds.
    stalled: f64,
}

/// Runs a script to its end.
pub fn play(mut server: Server, script: &Script, pace: Pace) -> Report {
    let mut viewer = Viewer {
        pace,
        next: 0,
        stretch: None,
        has_init: !server.command().has_init,
        stalls: Vec::new(),
    };
    for step in &script.0 {
        viewer.step(&mut server, *step);
    }
    let mut report = server.finish();
    report.stalls = viewer.stalls;
    report
}

struct Viewer {
    pace: Pace,
    next: u64,
    stretch: Option<Stretch>,
    has_init: bool,
    stalls: Vec<Stall>,
}

impl Viewer {
    fn step(&mut self, server: &mut Server, step: Step) {
        match step {
            Step::Play(amount) => self.play(server, amount),
            Step::Seek(time) => {
                self.next = (time * 1000.0) as u64 / server.command().segment_ms;
                self.stretch = None;
            }
            Step::Wait(time) => let_pass(Duration::from_secs_f64(time)),
            Step::Pause => drop(server.job().map(Job::pause)),
            Step::Resume => drop(server.job().map(Job::resume)),
            Step::Stop => drop(server.stop()),
            Step::Terminate => drop(server.signal(Signal::TERM)),
            Step::Kill => drop(server.signal(Signal::KILL)),
            Step::Finish => drop(server.wait()),
            Step::Leave => server.leave(),
        }
    }

    fn play(&mut self, server: &mut Server, amount: Amount) {
        let left = server.segments().saturating_sub(self.next);
        let (count, end) = match amount {
            Amount::Segments(count) => (count.min(left), f64::INFINITY),
            Amount::All => (left, f64::INFINITY),
            Amount::Seconds(seconds) => (left, server.now() + seconds),
        };
        if !self.has_init && server.request(-1).is_some() {
            self.has_init = true;
        }
        for _ in 0..count {
            self.wait_for_room(server, end);
            if server.now() >= end {
                return;
            }
            let number = self.next.cast_signed();
            let Some(served) = server.request(number).map(|segment| segment.served) else {
                // A player gives up after an error of the server.
                return;
            };
            self.next += 1;
            self.note(number, served, server.command().segment_ms as f64 / 1000.0);
        }
        // Whoever has all of it goes on watching.
        while end.is_finite() && server.now() < end {
            wait_until(server, end);
        }
    }

    /// Until there is room in the player's buffer, or `end`.
    fn wait_for_room(&self, server: &mut Server, end: f64) {
        let (Pace::Watching { factor, buffer_seconds }, Some(stretch)) = (self.pace, &self.stretch)
        else {
            return;
        };
        let ahead = stretch.segments as f64 * server.command().segment_ms as f64 / 1000.0;
        let wanted_at = stretch.since + stretch.stalled + (ahead - buffer_seconds) / factor;
        wait_until(server, wanted_at.min(end));
    }

    fn note(&mut self, segment: i64, served: f64, segment_seconds: f64) {
        let Some(stretch) = &mut self.stretch else {
            self.stretch = Some(Stretch { since: served, segments: 1, stalled: 0.0 });
            return;
        };
        let due = stretch.since + stretch.segments as f64 * segment_seconds + stretch.stalled;
        stretch.segments += 1;
        if served > due {
            stretch.stalled += served - due;
            self.stalls.push(Stall { segment, seconds: served - due });
        }
    }
}

/// Lets time pass, and the throttler look meanwhile.
fn wait_until(server: &mut Server, time: f64) {
    loop {
        server.throttle();
        let wait = time - server.now();
        if wait <= 0.0 {
            return;
        }
        let_pass(Duration::from_secs_f64(wait.min(1.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read() {
        assert_eq!(
            "play 4; play 2.5s; seek 30.5;play all ; leave;".parse(),
            Ok(Script(vec![
                Step::Play(Amount::Segments(4)),
                Step::Play(Amount::Seconds(2.5)),
                Step::Seek(30.5),
                Step::Play(Amount::All),
                Step::Leave,
            ]))
        );
        assert_eq!("".parse(), Ok(Script(vec![])));
        for wrong in ["play", "play x", "play s", "play -1s", "seek -1", "dance", "leave now"] {
            assert!(wrong.parse::<Script>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn stalls_are_those_of_normal_speed() {
        let mut viewer =
            Viewer { pace: Pace::Fast, next: 0, stretch: None, has_init: true, stalls: Vec::new() };
        // Segments of 3 s: the second in time, the third a second late, which shifts all that
        // follows.
        for (segment, served) in [(0, 10.0), (1, 12.9), (2, 17.0), (3, 20.0), (4, 23.5)] {
            viewer.note(segment, served, 3.0);
        }
        let stalls: Vec<_> = viewer.stalls.iter().map(|s| (s.segment, s.seconds)).collect();
        assert_eq!(stalls, [(2, 1.0), (4, 0.5)]);
    }
}
