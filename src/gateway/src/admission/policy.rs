//! Whether there is room for one more stream, and in which of the ways that it could be run. Pure.
//!
//! The first way that fits is taken:
//!
//! 1. on the GPU that it would rather have, as the command says;
//! 2. on another GPU;
//! 3. on a GPU, encoded faster, if it is known what that costs;
//! 4. in software;
//! 5. in software, encoded faster, if it is known what that costs;
//! 6. not here: the hook's own ffmpeg runs it.
//!
//! What others than streams have of the processor leads to a cheaper way, not to a refusal: they would have
//! the same beside the hook's ffmpeg.
//!
//! Invariants:
//! - What doesn't fit by the table isn't taken while something else fits.
//! - On an idle machine every stream is taken. So is whatever costs nobody knows yet, as long as what
//!   it runs on isn't full: it is learnt from it what it costs.
//! - Less load never turns an admission into a refusal.

use std::collections::BTreeMap;

use super::costs::{Demand, Resource};

/// Rounding isn't a lack of room.
const SLACK: f64 = 1e-9;

/// A machine in use.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Room {
    /// Busy seconds per second that are to be given out. What isn't in it has never been seen busy,
    /// and room for everything.
    pub capacity: BTreeMap<Resource, f64>,
    /// What running streams need.
    pub load: BTreeMap<Resource, f64>,
    /// What others than streams have, of which streams may have some if they need it.
    pub others: BTreeMap<Resource, f64>,
    /// By what factor running streams take more than is known of such streams. What has its causes in
    /// the machine (others at work, caches that are shared) will be so for a newcomer too.
    pub dearer: BTreeMap<Resource, f64>,
}

/// A way to run the newcomer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Candidate {
    /// The GPU that has a part in it.
    pub gpu: Option<String>,
    /// Encoded faster than asked for.
    pub faster: bool,
    /// What it needs.
    pub demand: Demand,
}

/// How a stream is run other than it would be on an idle machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    OtherDevice,
    FasterPreset,
    Software,
    LocalFfmpeg,
}

impl Step {
    /// As in labels.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::OtherDevice => "other_device",
            Self::FasterPreset => "faster_preset",
            Self::Software => "software",
            Self::LocalFfmpeg => "local_ffmpeg",
        }
    }
}

/// What becomes of the newcomer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    /// Which way it goes; none: not here.
    pub option: Option<usize>,
    /// How that differs from the way that it would rather go.
    pub step: Option<Step>,
    /// What of that other way is full.
    pub full: Option<Full>,
}

/// What has no room.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Full {
    /// Engine class and device.
    pub resource: Resource,
    /// Busy seconds per second: taken, of it by others than streams, needed, and there.
    pub taken: f64,
    pub others: f64,
    pub need: f64,
    pub capacity: f64,
}

impl Room {
    /// Nothing that is known to cost anything runs.
    fn is_idle(&self) -> bool {
        self.load.values().all(|load| *load <= SLACK)
    }

    fn load(&self, resource: &Resource) -> f64 {
        self.load.get(resource).copied().unwrap_or(0.0)
    }

    fn others(&self, resource: &Resource) -> f64 {
        self.others.get(resource).copied().unwrap_or(0.0)
    }

    /// By whomever.
    fn taken(&self, resource: &Resource) -> f64 {
        self.load(resource) + self.others(resource)
    }

    /// What a newcomer is taken to need.
    pub(super) fn need(&self, demand: &Demand, resource: &Resource) -> Option<f64> {
        let need = demand.need.get(resource)? * self.dearer(resource);
        Some(demand.cautious.get(resource).map_or(need, |cautious| cautious.max(need)))
    }

    pub(super) fn dearer(&self, resource: &Resource) -> f64 {
        self.dearer.get(resource).copied().unwrap_or(1.0)
    }

    /// Every resource that a way needs, and those of devices on which it needs nobody knows what.
    fn concerned<'a>(
        &'a self,
        demand: &'a Demand,
    ) -> impl Iterator<Item = (&'a Resource, f64, f64)> + 'a {
        self.capacity.iter().filter_map(move |(resource, capacity)| {
            let need = self.need(demand, resource);
            let need = need.or(demand.unknown.contains(&resource.device).then_some(0.0))?;
            Some((resource, need, *capacity))
        })
    }

    /// Whether there is room beside streams and others.
    pub(crate) fn fits(&self, demand: &Demand) -> bool {
        self.fits_beside(demand, |resource| self.taken(resource))
    }

    /// Whether there is room beside streams.
    fn fits_streams(&self, demand: &Demand) -> bool {
        self.fits_beside(demand, |resource| self.load(resource))
    }

    fn fits_beside(&self, demand: &Demand, taken: impl Fn(&Resource) -> f64) -> bool {
        self.concerned(demand).all(|(resource, need, capacity)| {
            let load = taken(resource);
            let unknown = demand.unknown.contains(&resource.device);
            load + need <= capacity + SLACK && (!unknown || load < capacity)
        })
    }

    /// How full the fullest of what a way needs would be; 1 is just full.
    fn fullest(&self, demand: &Demand) -> Option<(f64, Full)> {
        let full = |(resource, need, capacity): (&Resource, f64, f64)| {
            let (taken, others) = (self.taken(resource), self.others(resource));
            let share = (taken + need) / capacity.max(SLACK);
            (share, Full { resource: resource.clone(), taken, others, need, capacity })
        };
        self.concerned(demand).map(full).max_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// How many more such streams fit. None if it isn't known, or nothing would ever be full.
    pub(crate) fn left(&self, demand: &Demand) -> Option<u32> {
        if !demand.unknown.is_empty() {
            return None;
        }
        let left = demand.need.keys().filter_map(|resource| {
            let capacity = self.capacity.get(resource)?;
            let need = self.need(demand, resource).filter(|need| *need > 0.0)?;
            Some(((capacity - self.load(resource)).max(0.0) / need + SLACK).floor())
        });
        // Far below what would not fit.
        left.min_by(f64::total_cmp).map(|left| left.min(1e6) as u32)
    }
}

/// Decides. The candidates are in the order in which they are to be had; `must` is for a stream that
/// can't be left to anybody else, since some of it is written.
pub(crate) fn decide(room: &Room, candidates: &[Candidate], must: bool) -> Decision {
    let Some(preferred) = candidates.first() else {
        return Decision { option: None, step: Some(Step::LocalFfmpeg), full: None };
    };
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|index| {
        let candidate = &candidates[*index];
        (candidate.gpu.is_none(), candidate.faster)
    });
    // Of one that is there only to cost less it has to be known.
    order
        .retain(|index| !candidates[*index].faster || candidates[*index].demand.unknown.is_empty());
    let fitting = order.iter().copied().find(|index| room.fits(&candidates[*index].demand));
    let share = |index: &usize| room.fullest(&candidates[*index].demand).map_or(0.0, |(s, _)| s);
    let least_full = |of: &mut dyn Iterator<Item = usize>| {
        of.min_by(|one, other| share(one).total_cmp(&share(other)))
    };
    let beside_streams = |index: &usize| room.fits_streams(&candidates[*index].demand);
    let option = fitting
        .or_else(|| least_full(&mut order.iter().copied().filter(beside_streams)))
        .or_else(|| least_full(&mut order.iter().copied()).filter(|_| must || room.is_idle()));
    let step = match option.map(|index| &candidates[index]) {
        None => Some(Step::LocalFfmpeg),
        Some(chosen) if chosen.gpu.is_none() && preferred.gpu.is_some() => Some(Step::Software),
        Some(chosen) if chosen.faster => Some(Step::FasterPreset),
        Some(chosen) if chosen.gpu != preferred.gpu => Some(Step::OtherDevice),
        Some(_) => None,
    };
    let full = step.and_then(|_| room.fullest(&preferred.demand)).map(|(_, full)| full);
    Decision { option, step, full }
}
