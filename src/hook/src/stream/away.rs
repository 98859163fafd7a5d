//! Between two gateways: the one is lost, the next isn't there yet.
//!
//! ```text
//! lost ─▶ Leaving ── the last writer is gone ─▶ Looking ── connected ─▶ Asked ──Accepted──▶ goes on
//!            ▲                                     ▲                      │
//!            └──── lost with a writer ─────────────┴──── lost, LetGo ─────┘
//! ```
//!
//! Jellyfin's keys and signals are heeded meanwhile; the empty next segment stays, so that whoever
//! waits for it goes on waiting. When the time is over the stream ends as failed.

use std::time::{Duration, Instant};

use super::{Outcome, Stream};
use crate::reconnect::Reconnect;

/// Time between two tries to connect.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// See the module's description.
pub struct Away {
    why: String,
    since: Instant,
    until: Instant,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The last writer may still be there.
    Leaving,
    /// Connects at that time.
    Looking(Instant),
    /// A gateway has the job and hasn't answered.
    Asked,
}

impl Away {
    /// When something has to be done.
    pub fn deadline(&self) -> Instant {
        match self.stage {
            Stage::Looking(at) => at.min(self.until),
            Stage::Leaving | Stage::Asked => self.until,
        }
    }
}

impl Stream<'_> {
    /// Whether a gateway has the stream, or at least the question.
    pub(super) fn is_connected(&self) -> bool {
        self.away.as_ref().is_none_or(|away| away.stage == Stage::Asked)
    }

    /// The gateway is gone. `None` if another one is looked for.
    pub(super) fn leave(&mut self, why: &str) -> Option<Outcome> {
        // What it was to be told is told to the next one, as far as it still matters.
        self.outbox.clear();
        if let Some(away) = &mut self.away {
            // It may have given the stream to a worker before it was lost.
            away.stage = match self.setup.reconnect.as_ref().and_then(Reconnect::lease) {
                Some(_) => Stage::Leaving,
                None => Stage::Looking(Instant::now() + TRY_EVERY),
            };
            return None;
        }
        let quits = self.quit.is_some();
        let next = self.setup.reconnect.as_ref().filter(|next| !quits && next.may_follow());
        let Some(reconnect) = next else {
            return Some(self.over(&format!("{} broke off: {why}", self.name())));
        };
        let now = Instant::now();
        let until = now + reconnect.timeout();
        let stage = match reconnect.lease() {
            Some(_) => Stage::Leaving,
            None => Stage::Looking(now),
        };
        self.away = Some(Away { why: why.to_owned(), since: now, until, stage });
        self.console.line(&format!("rendergate: {why}; waiting for the next gateway"));
        None
    }

    /// A gateway that stops says so to whoever asks it, for as long as other streams keep it; the next one
    /// can't come before.
    pub(super) fn wait_anew(&mut self) {
        if let (Some(away), Some(reconnect)) = (&mut self.away, &self.setup.reconnect) {
            away.until = Instant::now() + reconnect.timeout();
        }
    }

    /// The last writer's lease has ended.
    pub(super) fn on_lease(&mut self) {
        if let (Some(away), Some(reconnect)) = (&mut self.away, &mut self.setup.reconnect) {
            reconnect.writer_is_gone();
            away.stage = Stage::Looking(Instant::now());
        }
    }

    /// The next gateway has taken the stream.
    pub(super) fn arrive(&mut self) {
        let (Some(away), Some(reconnect)) = (self.away.take(), &self.setup.reconnect) else {
            return;
        };
        let after = (away.since.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let line = format!(
            "rendergate: {} goes on with the next gateway at segment {}, after {after} s",
            self.name(),
            reconnect.next()
        );
        self.console.line(&line);
    }

    /// What has to be done by now.
    pub(super) fn on_time_away(&mut self) -> Option<Outcome> {
        let away = self.away.as_ref()?;
        if let Some(quit) = &self.quit {
            // Whole segments stand, and nobody wants more.
            return Some(self.give_up(Outcome::Exit(quit.code)));
        }
        let now = Instant::now();
        if now >= away.until {
            let whose = match away.stage {
                Stage::Leaving => "its worker doesn't end",
                Stage::Looking(_) => "no other gateway came",
                Stage::Asked => "the next gateway gives no answer",
            };
            let waited = (away.until - away.since).as_secs_f64();
            let line =
                format!("{} broke off: {}; {whose} within {waited} s", self.name(), away.why);
            let outcome = self.over(&line);
            return Some(self.give_up(outcome));
        }
        if matches!(away.stage, Stage::Looking(at) if now >= at) {
            self.look();
        }
        None
    }

    /// No gateway goes on with it.
    pub(super) fn give_up(&self, outcome: Outcome) -> Outcome {
        self.setup.placeholders.close();
        if let (Some(_), Some(reconnect)) = (&self.away, &self.setup.reconnect) {
            reconnect.clear_away();
        }
        outcome
    }

    fn look(&mut self) {
        let (Some(away), Some(reconnect)) = (&mut self.away, &self.setup.reconnect) else { return };
        match reconnect.ask(self.progress) {
            Ok((channel, rest)) => {
                self.setup.channel = channel;
                self.outbox = rest;
                away.stage = Stage::Asked;
                if self.keyboard.paused() {
                    self.control(session::Control::Pause);
                }
            }
            Err(_) => away.stage = Stage::Looking(Instant::now() + TRY_EVERY),
        }
    }
}
