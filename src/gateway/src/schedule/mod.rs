//! Who may run ahead, and how far: states of streams in, grants out.
//!
//! A stream's *lead* is the media it has produced beyond what its viewer can have watched. Streams on
//! one device share its time however they like it if nobody says otherwise, and one that is ten
//! minutes ahead takes as much of it as one whose viewer is about to wait. So each gets a *horizon*,
//! a media time beyond which its worker takes no more input for now:
//!
//! 1. A newcomer, that is one without its first two segments (contract 4: the first becomes servable
//!    with the second), runs free; the others go no further than two segments, which bridge its
//!    beginning. What they need for longer they get as soon as it has begun.
//!    One that was left to the hook's ffmpeg just now ([`Elsewhere`]) is a newcomer on the processor.
//! 2. Else the shortest leads come first: all may go as far ahead of their viewers as the shortest
//!    lead and a step more, and beyond the comfortable lead nobody goes.
//! 3. If every lead is comfortable nobody is held.
//!
//! Invariants:
//! - Nobody is held below the lead that they need, nor below two segments while somebody begins.
//! - On each device somebody runs who has work to do: the one with the shortest lead is never held
//!   while it competes.
//! - A stream that Jellyfin has paused holds back nobody.
//! - Nobody stands still for long: a stream that has been held for ten seconds goes on as fast as it
//!   plays ([`Record::grant`](crate::streams::Record::grant)), since its viewer may be further on than
//!   is assumed.

pub(crate) mod elsewhere;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use session::StreamId;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::{Schedule, duration};
use crate::streams::Streams;
use elsewhere::Elsewhere;

/// Time between two rounds of grants.
const ROUND: Duration = Duration::from_millis(250);

/// What streams compete for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Device {
    /// The processor.
    Processor,
    /// The GPU behind a node.
    Gpu(PathBuf),
}

/// A stream as far as scheduling goes. Times are media time from the first frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Runner {
    /// Which.
    pub id: StreamId,
    /// What it runs on. `None` if it takes next to nothing (copies): such a stream is free and
    /// competes with nobody.
    pub device: Option<Device>,
    /// Media written.
    pub produced: Duration,
    /// The most that its viewer can have watched.
    pub watched: Duration,
    /// Complete segments.
    pub segments: u64,
    /// Length of a segment.
    pub segment: Duration,
    /// Jellyfin has paused it.
    pub paused: bool,
    /// Its input comes no faster than it plays: it can get no lead, and needs none.
    pub live: bool,
}

/// Leads that are aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leads {
    /// Enough to play through whatever happens to others. A stream with more yields.
    pub comfortable: Duration,
    /// Below this nobody is held, unless somebody begins; at least [`SEGMENTS_NEEDED`] segments.
    pub needed: Duration,
}

/// How far everybody may go beyond the shortest lead. Small, so that leads grow alike; more than
/// happens between two rounds of grants, so that nobody stops for want of one.
pub(crate) const STEP: Duration = Duration::from_secs(6);
/// Segments that a player asks for ahead of the one it plays, and one that is being written.
const SEGMENTS_NEEDED: u32 = 3;
/// Segments that a stream is ahead while somebody begins: of these at least one is whole, and a
/// beginning is over before it has been played. A stream that isn't held goes on at the pace of
/// playing, so this is no less than it can live on.
const SEGMENTS_TO_BRIDGE: u32 = 2;
/// Segments that make a viewer's beginning.
const BEGINNING: u64 = 2;

impl Runner {
    /// Media produced beyond what can have been watched.
    pub(crate) fn lead(&self) -> Duration {
        self.produced.saturating_sub(self.watched)
    }

    fn begins(&self) -> bool {
        self.segments < BEGINNING
    }

    /// The lead that it isn't held below.
    fn needs(&self, leads: Leads) -> Duration {
        leads.needed.max(self.segment * SEGMENTS_NEEDED)
    }

    /// The lead that it isn't held below while somebody begins.
    fn bridges(&self, leads: Leads) -> Duration {
        (self.segment * SEGMENTS_TO_BRIDGE).min(self.needs(leads))
    }

    /// Wants more of its device's time than it has had.
    fn competes(&self, leads: Leads) -> bool {
        !self.paused && (self.begins() || !self.live && self.lead() < leads.comfortable)
    }
}

/// How far each stream may go; `None` is as far as it likes. A stream may be beyond its horizon
/// already, and then waits. `elsewhere` is whether somebody begins on the processor who isn't among them.
pub(crate) fn grants(
    runners: &[Runner],
    leads: Leads,
    elsewhere: bool,
) -> BTreeMap<StreamId, Option<Duration>> {
    let mut devices: BTreeMap<&Device, Vec<&Runner>> = BTreeMap::new();
    let mut grants = BTreeMap::new();
    for runner in runners {
        grants.insert(runner.id, None);
        if let Some(device) = &runner.device {
            devices.entry(device).or_default().push(runner);
        }
    }
    for (device, runners) in devices {
        let elsewhere = elsewhere && *device == Device::Processor;
        let competing = || runners.iter().filter(|runner| runner.competes(leads));
        let beginning = elsewhere || competing().any(|runner| runner.begins());
        let shortest = competing().map(|runner| runner.lead()).min().unwrap_or_default();
        // Nobody competes, or has anybody to compete with.
        if !elsewhere && (competing().next().is_none() || runners.len() == 1) {
            continue;
        }
        for runner in runners.iter().filter(|runner| !runner.begins() && !runner.live) {
            let lead = if beginning {
                runner.bridges(leads)
            } else {
                (shortest + STEP).min(leads.comfortable).max(runner.needs(leads))
            };
            grants.insert(runner.id, Some(runner.watched + lead));
        }
    }
    grants
}

/// Grants in rounds, for as long as there is a gateway.
pub(crate) async fn run(streams: Streams, elsewhere: Arc<Elsewhere>, schedule: Schedule) {
    if !schedule.enabled {
        return;
    }
    let leads = Leads {
        comfortable: duration(schedule.comfortable_lead_seconds),
        needed: duration(schedule.needed_lead_seconds),
    };
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Until others are held, a newcomer shares with all of them: it doesn't wait for its turn.
        tokio::select! {
            _ = rounds.tick() => {}
            () = streams.arrival() => {}
        }
        round(&streams, leads, elsewhere.begins(Instant::now()));
    }
}

/// One round.
fn round(streams: &Streams, leads: Leads, elsewhere: bool) {
    let mut runners = Vec::new();
    let mut followers = Vec::new();
    streams.each(|id, record| {
        runners.extend(record.runner(id));
        followers.extend(record.followed());
    });
    for (producer, watched) in followers {
        // Of all who watch what is produced, the one who is furthest would wait first.
        if let Some(runner) = runners.iter_mut().find(|runner: &&mut Runner| runner.id == producer)
        {
            runner.watched = runner.watched.max(watched);
        }
    }
    let grants = grants(&runners, leads, elsewhere);
    streams.each(|id, record| record.grant(grants.get(&id).copied().flatten()));
}

#[cfg(test)]
mod tests;
