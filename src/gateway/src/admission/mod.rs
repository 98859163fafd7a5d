//! Admission by measured cost: whether there is room for one more stream, and on what.
//!
//! ```text
//! running streams ── engine time, pixels ──▶ account ── samples ──▶ costs ◀──▶ file
//!                                                                    │
//! worker ── ways to run the stream, pixels of each ──▶ policy ◀── room, load
//!                                                        └──▶ this way, or not here
//! ```
//!
//! When a job comes only the plan is known. What it costs depends on the source, which the worker
//! opens; before it builds anything it offers the ways in which the picture can be encoded
//! (`session::WorkerToGateway::Options`), and is told which to go. Costs are measured, not configured:
//! by what streams are seen to take ([`costs`]), and by `rendergate calibrate`.
//!
//! A stream counts with what it needs to play at normal speed, whether it runs ahead, is held or is
//! paused just now: it may need that at any time.
//!
//! What others take of the processor ([`others`]) is taken: a scan of the library, a busy host.
//!
//! [`policy`] decides, [`account`] keeps one stream's figures, [`file`] the whole's, [`report`] tells.

pub(crate) mod account;
pub(crate) mod costs;
pub(crate) mod file;
mod others;
pub(crate) mod policy;
pub mod report;
pub mod settings;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use gpu::{Action, Device, Reason, ReasonKind, Step as WorkStep, Task, Work};
use prometheus::Registry;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use crate::streams::{Entry, Record, State, Streams};
pub(crate) use account::Account;
use costs::{CPU, Costs, PROCESSOR, Placed, Resource};
use file::{Kept, StateFile};
use others::{Cores, LOOK_EVERY, Look, Others, Taken};
use policy::{Candidate, Decision, Full, Room, decide};
use report::{Capacity, DeviceCapacity, Gauges, Use};
use settings::Admission as Settings;

/// Time between two writings of the state file.
const WRITE_PAUSE: std::time::Duration = std::time::Duration::from_secs(5);
/// Streams that count as recent.
const RECENT: usize = 50;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Admission {
    settings: Settings,
    gauges: Gauges,
    file: Option<StateFile>,
    known: Mutex<Known>,
    /// Processor time of all workers, µs.
    own_us: AtomicU64,
    /// There is something to be written.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    kept: Kept,
    /// What was offered of recent streams, the latest last.
    recent: VecDeque<Vec<Work>>,
    others: Others,
}

/// How a stream is to be run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// Which of the options.
    pub option: usize,
    /// Why it isn't the first.
    pub reason: Option<Reason>,
}

/// The name under which a GPU's costs are kept: a GPU in another slot, or with another driver, is
/// another device.
pub(crate) fn key(node: &Path, driver: &str) -> String {
    let place = gpu::pci_address(node).unwrap_or_else(|| node.display().to_string());
    format!("{place} {driver}").trim_end().to_owned()
}

impl Admission {
    /// With what the file knows.
    ///
    /// # Errors
    /// Of Prometheus.
    pub(crate) fn new(
        settings: Settings,
        file: Option<StateFile>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let read = |file: &StateFile| {
            file.read().inspect_err(|error| file.complain(error)).unwrap_or_default()
        };
        let kept = file.as_ref().map(read).unwrap_or_default();
        match &file {
            Some(file) => debug!(
                path = %file.path().display(), devices = kept.costs.devices.len(), "costs of streams"
            ),
            None => warn!(
                "what streams cost isn't kept beyond the gateway's end: none of the usual folders for \
                 state can be written; name one (state.directory)"
            ),
        }
        Ok(Self {
            settings,
            gauges: Gauges::new(registry)?,
            file,
            known: Mutex::new(Known { kept, ..Known::default() }),
            own_us: AtomicU64::new(0),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Decides how a stream is run that could be run in these ways on these GPUs, and counts it from
    /// now on. `must` is whether some of it is written, so that nobody else can run it.
    ///
    /// # Errors
    /// Why there is no room for it, for people.
    pub(crate) fn admit(
        &self,
        streams: &Streams,
        entry: &Entry,
        options: Vec<Work>,
        devices: &[Arc<Device>],
        must: bool,
    ) -> Result<Verdict, String> {
        let gpu_of = |work: &Work| {
            let node = work.node.as_ref()?;
            let device = devices.iter().find(|device| device.node == *node);
            Some(key(node, device.map_or("", |device| &device.driver)))
        };
        let placed: Vec<Placed> =
            options.iter().map(|work| Placed { work: work.clone(), gpu: gpu_of(work) }).collect();
        entry.with(|record| record.account.placed = None);
        let running = running(streams);
        let mut known = self.lock();
        let room = self.room(&known, &running);
        let candidate = |placed: &Placed| Candidate {
            gpu: placed.gpu.clone(),
            faster: placed.work.faster,
            demand: known.kept.costs.demand(placed),
        };
        let candidates: Vec<Candidate> = placed.iter().map(candidate).collect();
        let decision = if self.settings.enabled {
            decide(&room, &candidates, must)
        } else {
            Decision { option: Some(0), step: None, full: None }
        };
        known.recent.push_back(options);
        if known.recent.len() > RECENT {
            known.recent.pop_front();
        }
        drop(known);
        let Decision { option, step, full } = decision;
        if let Some(step) = step {
            let engine = full.as_ref().map_or("unknown", |full| full.resource.class.as_str());
            self.gauges.degraded(step, engine);
        }
        let why = full.map(|full| words(&full)).unwrap_or_default();
        let Some((option, placed)) = option.and_then(|at| Some((at, placed.get(at)?.clone())))
        else {
            return Err(format!("there is no room for the stream: {why}"));
        };
        entry.with(|record| record.account.begin(placed));
        let reason = step.map(|_| Reason::new(ReasonKind::Capacity, why));
        Ok(Verdict { option, reason })
    }

    /// A stream's worker has had so much processor time, µs.
    pub(crate) fn cpu(&self, entry: &Entry, cpu_us: u64) {
        let gained = entry.with(|record| record.account.cpu(cpu_us as f64 / 1e6));
        self.own_us.fetch_add((gained * 1e6) as u64, Ordering::Relaxed);
    }

    /// A stream's worker has come so far, in seconds of media.
    pub(crate) fn progress(&self, streams: &Streams, entry: &Entry, media: f64) {
        let node = entry.with(|record| record.node.clone());
        let sharing = node.map(|node| {
            let mut sharing = 0;
            streams.each(|_, record| {
                let here = record.node.as_ref() == Some(&node);
                sharing += usize::from(here && record.is_at_work());
            });
            sharing
        });
        entry.with(|record| {
            let sharing = sharing.filter(|_| record.is_at_work());
            record.account.progress(media, sharing, Instant::now());
            self.learn(record, false);
        });
    }

    /// A stream's worker is gone.
    pub(crate) fn ended(&self, entry: &Entry) {
        entry.with(|record| {
            self.learn(record, true);
            record.account.placed = None;
        });
    }

    fn learn(&self, record: &mut Record, over: bool) {
        record.account.engines(&record.gpu_time.engines);
        let samples = record.account.samples(over);
        let Some(placed) = record.account.placed.as_ref().filter(|_| !samples.is_empty()) else {
            return;
        };
        let mut known = self.lock();
        for sample in samples {
            known.kept.costs.learn(&sample.device, placed, sample.media, &sample.spent);
        }
        self.changed.notify_one();
    }

    fn room(&self, known: &Known, running: &[Running]) -> Room {
        let mut room = room(&known.kept.costs, running, self.settings.target_utilisation);
        if let Some(Cores { stolen, others }) = known.others.cores(processors()) {
            let target = self.settings.target_utilisation;
            let capacity = (processors() as f64 - stolen) * target;
            room.capacity.insert(processor(), capacity);
            room.others.insert(processor(), others);
        }
        room
    }

    /// What `/v1/capacity` tells; `gpus` are those that work.
    pub(crate) fn capacity(&self, streams: &Streams, gpus: &[Arc<Device>]) -> Capacity {
        let running = running(streams);
        let known = self.lock();
        let costs = &known.kept.costs;
        let room = self.room(&known, &running);
        let (counted, options) = most_common(&known.recent);
        let named = gpus.iter().map(|gpu| (Some(&gpu.node), key(&gpu.node, &gpu.driver)));
        let device = |(node, name): (Option<&std::path::PathBuf>, String)| {
            let usual = || usual_work(node.cloned());
            let own = |work: &&Work| work.node.as_ref() == node && !work.faster;
            let work = match &options {
                Some(options) => options.iter().find(own).cloned(),
                None => Some(usual()),
            };
            let placed = work.map(|work| Placed { work, gpu: node.map(|_| name.clone()) });
            let left = placed.and_then(|placed| room.left(&costs.demand(&placed)));
            let used = room.capacity.iter().filter(|(resource, _)| resource.device == name);
            let used = used.map(|(resource, capacity)| {
                let load = room.load.get(resource).copied().unwrap_or(0.0);
                let others = room.others.get(resource).copied();
                (resource.class.clone(), Use { load, others, capacity: *capacity })
            });
            DeviceCapacity {
                device: node.map_or(PROCESSOR.into(), |node| node.display().to_string()),
                streams_left: left,
                streams: running.iter().filter(|one| one.placed.devices().contains(&*name)).count(),
                engines: used.collect(),
                tasks: report::tasks(costs, &name, &room),
            }
        };
        Capacity {
            target_utilisation: self.settings.target_utilisation,
            counted_stream: counted,
            devices: named.chain([(None, PROCESSOR.to_owned())]).map(device).collect(),
        }
    }

    /// Brings the gauges up to date.
    pub(crate) fn render(&self, streams: &Streams, gpus: &[Arc<Device>]) {
        self.gauges.set(&self.capacity(streams, gpus));
    }

    /// Writes down what is known. May wait for a disk.
    pub(crate) fn save(&self) {
        let Some(file) = &self.file else { return };
        let on_disk = match file.read() {
            Ok(on_disk) => on_disk,
            Err(error) => return file.complain(&error),
        };
        let kept = {
            let mut known = self.lock();
            if on_disk.calibrated > known.kept.calibrated {
                known.kept.calibrated = on_disk.calibrated;
                known.kept.costs.devices.extend(on_disk.costs.devices);
            }
            known.kept.clone()
        };
        if let Err(error) = file.write(&kept) {
            file.complain(&error);
        }
    }

    /// Looks at what others take of the processor, for as long as there is a gateway. `niceness` is the
    /// workers': what they take counts as taken only if they aren't nice.
    pub(crate) async fn watch(self: Arc<Self>, proc_root: std::path::PathBuf, niceness: i32) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complained = false;
        loop {
            looks.tick().await;
            let root = proc_root.clone();
            // In a container it may be a file system in user space, which may hang.
            let read = tokio::task::spawn_blocking(move || Taken::read(&root)).await;
            match read.map_err(std::io::Error::other).flatten() {
                Ok(taken) => {
                    let own_us = self.own_us.load(Ordering::Relaxed);
                    let own = if niceness > 0 { 0.0 } else { own_us as f64 / 1e6 };
                    self.lock().others.look(Look { at: Instant::now(), taken, own });
                }
                Err(error) => {
                    self.lock().others = Others::default();
                    if !std::mem::replace(&mut complained, true) {
                        let path = proc_root.join("stat");
                        let path = path.display();
                        warn!(%error, %path, "what others take of the processor isn't known");
                    }
                }
            }
        }
    }

    /// Keeps the file up to date, for as long as there is a gateway.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            let admission = self.clone();
            let _ = tokio::task::spawn_blocking(move || admission.save()).await;
            sleep(WRITE_PAUSE).await;
        }
    }
}

/// A stream that counts.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// How it runs.
    pub placed: Placed,
    /// What it is seen to take ([`Account::takes`]).
    pub takes: Option<BTreeMap<Resource, f64>>,
}

/// What there is, and what running streams need of it: what they are seen to take, else what is known
/// of such streams. `target` is the share that is given to streams.
pub(crate) fn room(costs: &Costs, running: &[Running], target: f64) -> Room {
    let mut room = Room::default();
    for (device, known) in &costs.devices {
        for (class, engines) in &known.engines {
            let resource = Resource { device: device.clone(), class: class.clone() };
            room.capacity.insert(resource, f64::from(*engines) * target);
        }
    }
    room.capacity.insert(processor(), processors() as f64 * target);
    let mut known: BTreeMap<Resource, f64> = BTreeMap::new();
    let mut seen = known.clone();
    for takes in running.iter().filter_map(|one| Some((one, one.takes.as_ref()?))) {
        let (one, takes) = takes;
        for (resource, need) in costs.demand(&one.placed).need {
            *seen.entry(resource.clone()).or_default() += takes.get(&resource).unwrap_or(&need);
            *known.entry(resource).or_default() += need;
        }
    }
    let dearer = |(resource, known): (Resource, f64)| {
        let factor = seen.get(&resource).map_or(1.0, |seen| seen / known);
        (resource, if factor.is_finite() { factor.max(1.0) } else { 1.0 })
    };
    room.dearer = known.into_iter().map(dearer).collect();
    for one in running {
        let demand = costs.demand(&one.placed);
        for resource in demand.need.keys() {
            let takes = one.takes.as_ref().and_then(|takes| takes.get(resource).copied());
            let need = takes.or_else(|| room.need(&demand, resource)).unwrap_or(0.0);
            *room.load.entry(resource.clone()).or_default() += need;
        }
    }
    room
}

fn processor() -> Resource {
    Resource { device: PROCESSOR.into(), class: CPU.into() }
}

/// How many processors workers may have.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How the streams run that count.
fn running(streams: &Streams) -> Vec<Running> {
    let mut running = Vec::new();
    streams.each(|_, record| {
        let account = &record.account;
        if record.state != State::Ending
            && let Some(placed) = account.placed.clone()
        {
            running.push(Running { placed, takes: account.takes() });
        }
    });
    running
}

fn words(full: &Full) -> String {
    let Full { resource: Resource { device, class }, taken, others, need, capacity } = full;
    let per_cent = |share: f64| (share * 100.0).round();
    let by_others = match per_cent(*others) {
        share if share >= 1.0 => format!(" ({share} % by others)"),
        _ => String::new(),
    };
    format!(
        "{class} of {device} is full: {} % are taken{by_others} and {} % needed of {} %",
        per_cent(*taken),
        per_cent(*need),
        per_cent(*capacity)
    )
}

/// What two streams have in common that need the same.
fn shape(options: &[Work]) -> Vec<(Task, u64)> {
    let ends = |step: &&WorkStep| matches!(step.task.action, Action::Decode | Action::Encode);
    let steps = options.first().map_or(&[][..], |work| &work.steps);
    let rounded = |step: &WorkStep| (step.task.clone(), (step.megapixels * 10.0).round() as u64);
    steps.iter().filter(ends).map(rounded).collect()
}

/// The most common of recent streams, in words and with its options; of equals the latest. Without
/// any, a usual one and no options.
fn most_common(recent: &VecDeque<Vec<Work>>) -> (String, Option<Vec<Work>>) {
    let mut counts: BTreeMap<Vec<(Task, u64)>, usize> = BTreeMap::new();
    for options in recent {
        *counts.entry(shape(options)).or_default() += 1;
    }
    let most = recent.iter().enumerate().max_by_key(|(at, options)| (counts[&shape(options)], *at));
    match most {
        Some((_, options)) => {
            let step =
                |(task, tenths): &(Task, u64)| format!("{task} {} Mpx/s", *tenths as f64 / 10.0);
            let words: Vec<String> = shape(options).iter().map(step).collect();
            (words.join(", "), Some(options.clone()))
        }
        None => (USUAL_STREAM.to_owned(), None),
    }
}

/// In words, what [`usual_work`] is.
pub(crate) const USUAL_STREAM: &str = "h264 1920x1080 to h264 1280x720 at 24/s";

/// What is counted as long as no stream has come.
pub(crate) fn usual_work(node: Option<std::path::PathBuf>) -> Work {
    let on_gpu = node.is_some();
    let (source, output) = (1.920 * 1.080 * 24.0, 1.280 * 0.720 * 24.0);
    let preset = if on_gpu { "" } else { "veryfast" };
    let steps = [
        (Task::decode("h264"), source),
        (Task::filter(Action::Scale), source),
        (Task::encode("h264", preset), output),
    ];
    let step = |(task, megapixels)| WorkStep { task, on_gpu, megapixels };
    Work { node, faster: false, steps: steps.into_iter().map(step).collect() }
}

#[cfg(test)]
mod tests;
