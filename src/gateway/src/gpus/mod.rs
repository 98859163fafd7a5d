//! The GPUs that streams may use, as the gateway knows them.
//!
//! Nothing touches a driver in the gateway's own process: probe processes look at the GPUs
//! ([`crate::probe`]) while the gateway already serves. A GPU on which a stream fails is looked at
//! again, and until it has been seen working no stream is given it: streams that come meanwhile run
//! on another one, in software, or on the hook's own ffmpeg where software isn't wanted. The list of
//! nodes is read every few seconds, so that a GPU may come and go.
//!
//! [`state`] says what becomes of a GPU, [`watch`] looks.
//!
//! Invariant: what streams get has been seen working on this machine, in this environment, since a
//! stream last failed on it.

mod state;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gpu::{Device, PciId, Reason, ReasonKind};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Backend;
use crate::metrics::Metrics;
use state::{Event, Gpu, State};
pub(crate) use watch::Eyes;

/// See the module's description. Clones know the same.
#[derive(Debug, Clone)]
pub(crate) struct Gpus {
    backend: Backend,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metrics: Metrics,
    table: Mutex<Table>,
    /// There may be something to look at.
    woken: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// The nodes have been listed.
    listed: bool,
    gpus: BTreeMap<PathBuf, Gpu>,
    /// What sysfs says of them.
    chips: BTreeMap<PathBuf, PciId>,
}

/// What is known of a GPU, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// `/dev/dri/renderD128`.
    pub node: PathBuf,
    /// PCI id of the chip.
    pub chip: Option<PciId>,
    /// Name and version of the VA-API driver, while the GPU works.
    pub driver: Option<String>,
    /// `looking`, `works`, `suspect`, `broken` or `gone`.
    pub state: &'static str,
    /// Why it doesn't work.
    pub reason: Option<String>,
}

/// What a stream may run on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Allowance {
    /// GPUs, the one with the fewest streams first.
    pub devices: Vec<Arc<Device>>,
    /// Whether it may do without.
    pub software: bool,
    /// Why there is no GPU, if it would have use for one.
    pub reason: Option<Reason>,
}

impl Gpus {
    /// Begins to look, if the configuration wants a GPU.
    pub(crate) fn look(backend: Backend, eyes: Eyes, metrics: Metrics) -> Self {
        let gpus = Self::blind(backend, metrics);
        if backend != Backend::Software {
            tokio::spawn(watch::watch(gpus.clone(), eyes));
        }
        gpus
    }

    fn blind(backend: Backend, metrics: Metrics) -> Self {
        let shared = Shared { metrics, table: Mutex::default(), woken: Notify::new() };
        Self { backend, shared: Arc::new(shared) }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What a stream that starts now may run on. `streams` tells how many run on a node.
    ///
    /// One that encodes no picture has no use for a GPU.
    ///
    /// # Errors
    /// Why it may not run here at all, for people.
    pub(crate) fn allowance(
        &self,
        encodes_video: bool,
        streams: impl Fn(&Path) -> usize,
    ) -> Result<Allowance, String> {
        if !encodes_video {
            return Ok(Allowance { devices: Vec::new(), software: true, reason: None });
        }
        let table = self.lock();
        let mut devices: Vec<_> = table.gpus.values().filter_map(Gpu::works).cloned().collect();
        // Stable: of equals the first node.
        devices.sort_by_key(|device| streams(&device.node));
        let reason = devices.is_empty().then(|| self.obstacle(&table));
        let software = self.backend != Backend::Vaapi;
        match reason {
            Some(reason) if !software => {
                Err(format!("gpu.backend is vaapi, and there is no GPU: {}", reason.text))
            }
            reason => Ok(Allowance { devices, software, reason }),
        }
    }

    /// Waits for the first look at the GPUs, at most so long.
    pub(crate) async fn looked(&self, limit: Duration) {
        let looked = async {
            loop {
                let woken = self.shared.woken.notified();
                tokio::pin!(woken);
                woken.as_mut().enable();
                let is_new = |gpu: &Gpu| gpu.state == State::New;
                let unknown = |table: &Table| !table.listed || table.gpus.values().any(is_new);
                if self.backend == Backend::Software || !unknown(&self.lock()) {
                    return;
                }
                woken.await;
            }
        };
        // What is known by then has to do.
        let _ = tokio::time::timeout(limit, looked).await;
    }

    /// The driver of the GPU that the next stream would get, after the [first look](Self::looked).
    pub(crate) async fn driver(&self, limit: Duration) -> Option<String> {
        self.looked(limit).await;
        self.lock().gpus.values().find_map(Gpu::works).map(|device| device.driver.clone())
    }

    /// All that there are, or were.
    pub(crate) fn known(&self) -> Vec<Known> {
        let table = self.lock();
        let known = |(node, gpu): (&PathBuf, &Gpu)| {
            let (state, reason) = match &gpu.state {
                State::New => ("looking", None),
                State::Works(_) => ("works", None),
                State::Suspect(why) => ("suspect", Some(why.clone())),
                State::Broken(why) => ("broken", Some(why.clone())),
                State::Gone => ("gone", None),
            };
            Known {
                node: node.clone(),
                chip: table.chips.get(node).copied(),
                driver: gpu.works().map(|device| device.driver.clone()),
                state,
                reason,
            }
        };
        table.gpus.iter().map(known).collect()
    }

    /// Why no stream gets a GPU now; `None` if one works.
    pub(crate) fn why_none(&self) -> Option<String> {
        let table = self.lock();
        let works = table.gpus.values().any(|gpu| gpu.works().is_some());
        (!works).then(|| self.obstacle(&table).text)
    }

    /// Those that work.
    pub(crate) fn working(&self) -> Vec<Arc<Device>> {
        self.lock().gpus.values().filter_map(Gpu::works).cloned().collect()
    }

    /// Why none works.
    fn obstacle(&self, table: &Table) -> Reason {
        if self.backend == Backend::Software {
            return Reason::new(ReasonKind::Disabled, "gpu.backend is software");
        }
        let is_new = |gpu: &Gpu| gpu.state == State::New;
        if !table.listed || table.gpus.values().any(is_new) {
            return Reason::new(ReasonKind::Looking, "the GPU is still being looked at");
        }
        let told = |(node, gpu): (&PathBuf, &Gpu)| {
            let node = node.display();
            match &gpu.state {
                State::Suspect(why) => format!("{node} failed and is looked at again: {why}"),
                State::Broken(why) => format!("{node}: {why} (rendergate probe says more)"),
                State::Gone => format!("{node} has gone"),
                State::New | State::Works(_) => format!("{node} works"),
            }
        };
        let told: Vec<_> = table.gpus.iter().map(told).collect();
        if told.is_empty() {
            let text = "no render node in /dev/dri (rendergate probe says more)";
            return Reason::new(ReasonKind::NoGpu, text);
        }
        Reason::new(ReasonKind::Broken, told.join("; "))
    }

    /// A stream of that film that was given to a worker at `began` has failed on a GPU, for whatever
    /// reason.
    pub(crate) fn failed(&self, node: &Path, began: Instant, film: String, why: String) {
        self.happened(node, Event::FailedStream { began, why, film });
    }

    /// The nodes that there are now, where others were before.
    fn list(&self, nodes: &[PathBuf]) {
        let old: Vec<_> = self.lock().gpus.keys().cloned().collect();
        for node in old.iter().filter(|node| !nodes.contains(node)) {
            self.happened(node, Event::Vanished);
        }
        for node in nodes {
            // The others too: which of them has the short names of elements depends on all.
            self.happened(node, Event::Appeared);
        }
        let chips = nodes.iter().filter_map(|node| Some((node.clone(), gpu::node_pci_id(node)?)));
        {
            let mut table = self.lock();
            table.chips.extend(chips);
            table.listed = true;
        }
        self.shared.woken.notify_waiters();
        if nodes.is_empty() {
            let reason = "no render node in /dev/dri (rendergate probe says more)";
            self.tell_none(reason);
        }
    }

    /// Lets something happen to a GPU, and says what has become of it.
    fn happened(&self, node: &Path, event: Event) {
        let now = Instant::now();
        let (before, after) = {
            let mut table = self.lock();
            let before = table.gpus.remove(node);
            let gpu = before.clone().unwrap_or_else(|| Gpu::new(now));
            let after = gpu.after(event, now);
            table.gpus.insert(node.to_owned(), after.clone());
            (before.map(|gpu| gpu.state), after.state)
        };
        if before.as_ref() != Some(&after) {
            self.tell(node, &after);
            self.shared.woken.notify_waiters();
        }
    }

    fn tell(&self, node: &Path, state: &State) {
        let node = node.display().to_string();
        self.shared.metrics.gpu_works(&node, matches!(state, State::Works(_)));
        match state {
            State::New => info!(node, "GPU: being looked at"),
            State::Works(device) => {
                let works: Vec<_> = device.abilities.keys().map(ToString::to_string).collect();
                info!(node, driver = device.driver, works = works.join(", "), "GPU");
                self.shared.metrics.gpu(&node, &device.driver);
            }
            State::Suspect(why) => {
                warn!(
                    node,
                    why, "GPU: a stream failed on it, no other gets it until it is seen working"
                );
            }
            State::Broken(why) => self.tell_none(&format!("{node}: {why}")),
            State::Gone => warn!(node, "GPU: its node has gone"),
        }
    }

    fn tell_none(&self, reason: &str) {
        if self.backend == Backend::Vaapi {
            warn!(reason, "no GPU for streams: jobs are left to the hook's ffmpeg");
        } else {
            info!(reason, "no GPU for streams");
        }
    }

    /// The GPU that is to be looked at next, and when.
    fn next_look(&self) -> Option<(PathBuf, Instant)> {
        let table = self.lock();
        let due = table.gpus.iter().filter_map(|(node, gpu)| Some((node.clone(), gpu.look_at?)));
        due.min_by_key(|(_, at)| *at)
    }
}

impl Gpu {
    fn works(&self) -> Option<&Arc<Device>> {
        match &self.state {
            State::Works(device) => Some(device),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
