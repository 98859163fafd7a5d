//! What a megapixel costs, by device, task and engine class: estimates that move slowly with what
//! running streams are seen to take. Pure.
//!
//! A stream's engine time comes as one number per class, and a class may have done several of its
//! tasks (i915's `video` decodes and encodes). It is shared out among them in proportion to the present
//! estimates, so that each stream scales the estimates of its tasks to what it took; streams that have
//! other proportions of decoding to encoding pull them apart, since each says most of the task that had
//! most of it (Kaczmarz' way of solving equations that come one by one).
//!
//! Invariants:
//! - Costs are finite and never negative.
//! - One odd stream moves an estimate that many have made by a sixteenth at most.

use std::collections::{BTreeMap, BTreeSet};

use gpu::{Action, Engine, Task, Work};
use serde::{Deserialize, Serialize};

/// The device that software runs on.
pub(crate) const PROCESSOR: &str = "processor";
/// Its engine class: seconds of processor time.
pub(crate) const CPU: &str = "cpu";
/// The class that stands for a GPU that doesn't say what its engines do: busy is whatever time a
/// stream needs that nothing holds.
pub(crate) const WHOLE: &str = "whole";

/// What a sample may differ from the estimate by, as a factor; beyond it counts as that.
const ODD: f64 = 2.0;
/// What a single measurement may well be too low by, as a share; that of several in a row falls with the root
/// of their number. Films differ, and on a busy machine they take more than a calibration on an idle one did:
/// a quarter, measured with two streams of 1080p on two cores.
const DOUBT: f64 = 0.5;
/// The least weight of a sample.
const LEAST_WEIGHT: f64 = 1.0 / 16.0;

/// What a stream says of a task's cost.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Engine-seconds per megapixel.
    seconds: f64,
    /// How much that says, 0 to 1: little of a task that had a small part in what the class did.
    says: f64,
}

/// A task's cost on a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// By engine class, engine-seconds per megapixel.
    pub seconds: BTreeMap<String, f64>,
    /// Measurements that it comes from.
    pub samples: u32,
}

/// All that is known of a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct DeviceCosts {
    /// Engines by class.
    pub engines: BTreeMap<String, u32>,
    /// By task.
    #[serde(with = "as_list")]
    pub tasks: BTreeMap<Task, Cost>,
}

/// All that is known. Devices have the names of [`key`](super::key), or [`PROCESSOR`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Costs {
    /// By device.
    pub devices: BTreeMap<String, DeviceCosts>,
}

/// Time of an engine class of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    /// The device.
    pub device: String,
    /// The engine class.
    pub class: String,
}

/// What a stream needs to play at normal speed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Demand {
    /// Engine-seconds per second.
    pub need: BTreeMap<Resource, f64>,
    /// The same as it may well be, with what is known from few measurements taken for higher ([`DOUBT`]).
    pub cautious: BTreeMap<Resource, f64>,
    /// Devices on which it has tasks of unknown cost.
    pub unknown: BTreeSet<String>,
}

/// A stream's work with the name of its GPU.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    /// What it asks for.
    pub work: Work,
    /// The GPU's name, if it has a part in it.
    pub gpu: Option<String>,
}

impl Placed {
    /// Tasks on one of its devices, with their megapixels per second.
    pub(crate) fn tasks_on<'a>(
        &'a self,
        device: &'a str,
    ) -> impl Iterator<Item = (&'a Task, f64)> + 'a {
        let here = move |on_gpu| self.device(on_gpu) == Some(device);
        let steps = self.work.steps.iter().filter(move |step| here(step.on_gpu));
        steps.map(|step| (&step.task, step.megapixels))
    }

    /// The device that does a step.
    fn device(&self, on_gpu: bool) -> Option<&str> {
        if on_gpu { self.gpu.as_deref() } else { Some(PROCESSOR) }
    }

    /// Its devices.
    pub(crate) fn devices(&self) -> BTreeSet<&str> {
        self.work.steps.iter().filter_map(|step| self.device(step.on_gpu)).collect()
    }
}

impl Costs {
    /// What a stream needs, as far as is known.
    pub(crate) fn demand(&self, placed: &Placed) -> Demand {
        let mut demand = Demand::default();
        for device in placed.devices() {
            let known = self.devices.get(device);
            for (task, megapixels) in placed.tasks_on(device) {
                let Some(cost) = known.and_then(|known| known.tasks.get(task)) else {
                    demand.unknown.insert(device.to_owned());
                    continue;
                };
                for (class, seconds) in &cost.seconds {
                    let resource = Resource { device: device.into(), class: class.clone() };
                    let need = seconds * megapixels;
                    *demand.cautious.entry(resource.clone()).or_default() += need * cost.doubt();
                    *demand.need.entry(resource).or_default() += need;
                }
            }
        }
        demand
    }

    /// Learns from what `placed` took of a device while it made `media` seconds.
    pub(crate) fn learn(
        &mut self,
        device: &str,
        placed: &Placed,
        media: f64,
        spent: &BTreeMap<String, Engine>,
    ) {
        let done: Vec<(Task, f64)> = placed
            .tasks_on(device)
            .map(|(task, rate)| (task.clone(), rate * media))
            .filter(|(_, megapixels)| *megapixels > 0.0)
            .collect();
        if done.is_empty() || spent.values().all(|engine| engine.seconds <= 0.0) {
            return;
        }
        let known = self.devices.entry(device.to_owned()).or_default();
        let mut samples: Vec<BTreeMap<String, Sample>> = vec![BTreeMap::new(); done.len()];
        for (class, engine) in spent {
            known.engines.insert(class.clone(), engine.capacity.max(1));
            let shares = known.shares(class, &done);
            let whole: f64 = shares.iter().sum();
            let most = shares.iter().copied().fold(0.0, f64::max);
            for ((share, (_, megapixels)), sample) in shares.iter().zip(&done).zip(&mut samples) {
                let seconds = engine.seconds.max(0.0) * share / whole / megapixels;
                sample.insert(class.clone(), Sample { seconds, says: share / most });
            }
        }
        for ((task, _), sample) in done.into_iter().zip(samples) {
            known.tasks.entry(task).or_default().take(sample);
        }
    }
}

impl DeviceCosts {
    /// In what proportion a class's time goes to tasks of so many megapixels; their sum isn't 0.
    fn shares(&self, class: &str, done: &[(Task, f64)]) -> Vec<f64> {
        let estimate = |task: &Task| {
            let cost = self.tasks.get(task).filter(|cost| cost.samples > 0)?;
            Some(cost.seconds.get(class).copied().unwrap_or(0.0))
        };
        // An unknown task costs as much of what is usual as the known ones do.
        let known = done.iter().filter_map(|(task, _)| Some((estimate(task)?, usual(class, task))));
        let (cost, usually) = known.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let scale = if cost > 0.0 && usually > 0.0 { cost / usually } else { 1.0 };
        let share = |(task, megapixels): &(Task, f64)| {
            estimate(task).unwrap_or_else(|| usual(class, task) * scale) * megapixels
        };
        let shares: Vec<f64> = done.iter().map(share).collect();
        if shares.iter().sum::<f64>() > 0.0 {
            return shares;
        }
        let usually: Vec<f64> = done.iter().map(|(task, m)| usual(class, task) * m).collect();
        if usually.iter().sum::<f64>() > 0.0 {
            return usually;
        }
        done.iter().map(|(_, megapixels)| *megapixels).collect()
    }
}

impl Cost {
    /// Moves towards a sample.
    fn take(&mut self, sample: BTreeMap<String, Sample>) {
        for (class, Sample { seconds, says }) in sample {
            let weight = (1.0 / (f64::from(self.samples) + 1.0)).max(LEAST_WEIGHT) * says;
            if !seconds.is_finite() {
                continue;
            }
            let estimate = self.seconds.entry(class).or_insert(seconds);
            let bounded = match *estimate {
                nothing if nothing <= 0.0 => seconds,
                estimate => seconds.clamp(estimate / ODD, estimate * ODD),
            };
            *estimate += (bounded - *estimate) * weight;
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// By what factor it may well be too low.
    fn doubt(&self) -> f64 {
        1.0 + DOUBT / f64::from(self.samples.max(1)).sqrt()
    }

    /// Of a measurement that stands for several: its film is one of many, and nothing else ran.
    pub(crate) fn measured(seconds: BTreeMap<String, f64>) -> Self {
        Self { seconds, samples: 4 }
    }
}

/// How the time of a class is shared out among tasks before any is known: cost per megapixel, of which
/// only the proportions matter. Classes are those of `gpu::Client::engines`.
fn usual(class: &str, task: &Task) -> f64 {
    let filters = !matches!(task.action, Action::Decode | Action::Encode);
    match (class, task.action) {
        // i915 and xe have a fixed-function engine for filters beside the one for codecs.
        ("video-enhance", _) => f64::from(u8::from(filters)),
        ("video" | "dec", Action::Decode) | ("enc" | "enc_1", Action::Encode) => 1.0,
        ("video", Action::Encode) => 2.0,
        ("video" | "dec" | "enc" | "enc_1", _) => 0.0,
        // x264's `veryfast` takes twice as long as decoding, tone mapping four times.
        (CPU, Action::Encode) => 2.0,
        (CPU, Action::ToneMap) => 4.0,
        (CPU, Action::Scale) => 0.5,
        _ => 1.0,
    }
}

/// JSON has no maps with structures for keys.
mod as_list {
    use std::collections::BTreeMap;

    use gpu::Task;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Cost;

    #[derive(Serialize, Deserialize)]
    struct Entry {
        #[serde(flatten)]
        task: Task,
        #[serde(flatten)]
        cost: Cost,
    }

    pub(super) fn serialize<S: Serializer>(
        tasks: &BTreeMap<Task, Cost>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let entry = |(task, cost): (&Task, &Cost)| Entry { task: task.clone(), cost: cost.clone() };
        serializer.collect_seq(tasks.iter().map(entry))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Task, Cost>, D::Error> {
        let entries = Vec::<Entry>::deserialize(deserializer)?;
        Ok(entries.into_iter().map(|entry| (entry.task, entry.cost)).collect())
    }
}
