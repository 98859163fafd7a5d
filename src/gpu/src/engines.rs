//! Engine time: how long a GPU's engines have worked for this process, by its DRM descriptors.
//!
//! The kernel says it in `/proc/self/fdinfo/*` of every opened node (drm-usage-stats), which needs no
//! privilege for one's own process. A worker has one stream, so its time is the stream's.
//!
//! ```text
//! fdinfo of a node ─ parse ─▶ Client ─ several readings ─▶ EngineTime: seconds by engine
//! ```
//!
//! Invariants:
//! - Totals never fall: counters that step back count as standing still, and what a descriptor had
//!   when it was closed stays.
//! - A client is counted once, however many descriptors lead to it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// xe's names of engine classes, and those that i915 has for the same.
const XE_NAMES: [(&str, &str); 5] = [
    ("rcs", "render"),
    ("bcs", "copy"),
    ("vcs", "video"),
    ("vecs", "video-enhance"),
    ("ccs", "compute"),
];

/// One opened node, as its `fdinfo` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// `i915`, `xe`, `amdgpu`.
    pub driver: String,
    /// PCI address, if the GPU is a PCI device.
    pub pdev: Option<String>,
    /// Unique per GPU. Descriptors with the same one share their counters.
    pub id: u64,
    /// Counters by engine class, under i915's names (`render`, `video`, `video-enhance`) or amdgpu's
    /// (`gfx`, `dec`, `enc`). Empty where the driver gives none, as xe's does for a virtual function.
    pub engines: BTreeMap<String, Counter>,
}

/// What an engine class has done for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// The kernel's count.
    pub busy: Busy,
    /// Engines of this class.
    pub capacity: u32,
}

/// A count of busy time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// i915, amdgpu: ns.
    Nanoseconds(u64),
    /// xe: cycles for the client, and all that have passed.
    Cycles {
        /// The client's.
        busy: u64,
        /// The engine's.
        total: u64,
    },
}

/// Reads one descriptor's `fdinfo`. `None` if it isn't a DRM node's, or the kernel gives its client no
/// number.
pub fn parse(fdinfo: &str) -> Option<Client> {
    let (mut driver, mut pdev, mut id) = (None, None, None);
    let mut nanoseconds: BTreeMap<String, u64> = BTreeMap::new();
    let (mut cycles, mut totals) = (nanoseconds.clone(), nanoseconds.clone());
    let mut capacities: BTreeMap<String, u32> = BTreeMap::new();
    for line in fdinfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let number = || value.split_whitespace().next()?.parse::<u64>().ok();
        match key {
            "drm-driver" => driver = Some(value.to_owned()),
            "drm-pdev" => pdev = Some(value.to_owned()),
            "drm-client-id" => id = number(),
            _ => {}
        }
        // The longer key first: a capacity is no engine.
        if let Some(engine) = key.strip_prefix("drm-engine-capacity-") {
            capacities.extend(value.parse().ok().map(|count| (named(engine), count)));
        } else if let Some(engine) = key.strip_prefix("drm-engine-") {
            nanoseconds.extend(number().map(|ns| (named(engine), ns)));
        } else if let Some(engine) = key.strip_prefix("drm-total-cycles-") {
            totals.extend(number().map(|count| (named(engine), count)));
        } else if let Some(engine) = key.strip_prefix("drm-cycles-") {
            cycles.extend(number().map(|count| (named(engine), count)));
        }
    }
    let capacity = |engine: &String| capacities.get(engine).copied().unwrap_or(1).max(1);
    let mut engines = BTreeMap::new();
    for (engine, busy) in cycles {
        // Without a total there is nothing to hold it against.
        if let Some(total) = totals.get(&engine).copied() {
            let capacity = capacity(&engine);
            engines.insert(engine, Counter { busy: Busy::Cycles { busy, total }, capacity });
        }
    }
    for (engine, ns) in nanoseconds {
        let capacity = capacity(&engine);
        engines.insert(engine, Counter { busy: Busy::Nanoseconds(ns), capacity });
    }
    Some(Client { driver: driver?, pdev, id: id?, engines })
}

fn named(engine: &str) -> String {
    let known = XE_NAMES.iter().find(|(xe, _)| *xe == engine);
    known.map_or(engine, |(_, name)| name).to_owned()
}

/// Engine time of a process, over several readings.
#[derive(Debug, Default)]
pub struct EngineTime {
    clients: BTreeMap<(Option<String>, u64), Client>,
    read_at: Option<Duration>,
    totals: BTreeMap<String, Engine>,
    without: bool,
}

/// An engine class's share in a process.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Engine {
    /// Time that engines of the class have worked, all together, s.
    pub seconds: f64,
    /// How many there are.
    pub capacity: u32,
}

impl EngineTime {
    /// Takes a reading of all descriptors below `fdinfo` (`/proc/self/fdinfo`) at a time of a
    /// monotonic clock.
    ///
    /// # Errors
    /// If the directory can't be read. Descriptors that are closed meanwhile are passed over.
    pub fn read(&mut self, fdinfo: &Path, now: Duration) -> io::Result<()> {
        let mut texts = Vec::new();
        for entry in fs::read_dir(fdinfo)? {
            texts.extend(fs::read_to_string(entry?.path()));
        }
        self.take(texts.iter().filter_map(|text| parse(text)), now);
        Ok(())
    }

    /// As [`read`](Self::read), of clients that have been read already.
    pub fn take(&mut self, clients: impl IntoIterator<Item = Client>, now: Duration) {
        let passed = self
            .read_at
            .replace(now)
            .map_or(0.0, |before| now.saturating_sub(before).as_secs_f64());
        for client in clients {
            let key = (client.pdev.clone(), client.id);
            self.without |= client.engines.is_empty();
            let known = self
                .clients
                .entry(key)
                .or_insert_with(|| Client { engines: BTreeMap::new(), ..client.clone() });
            for (name, counter) in client.engines {
                let total = self.totals.entry(name.clone()).or_default();
                total.capacity = total.capacity.max(counter.capacity);
                let before = known.engines.get(&name).map(|counter| counter.busy);
                total.seconds += gained(before, counter.busy, passed);
                known
                    .engines
                    .insert(name, Counter { busy: later(before, counter.busy), ..counter });
            }
        }
    }

    /// Time by engine class since the process began.
    pub fn totals(&self) -> &BTreeMap<String, Engine> {
        &self.totals
    }

    /// A GPU is open whose driver doesn't say what its engines do.
    pub fn is_withheld(&self) -> bool {
        self.without && self.totals.is_empty()
    }
}

/// Seconds of work between two readings that lie `passed` seconds apart.
fn gained(before: Option<Busy>, now: Busy, passed: f64) -> f64 {
    match (before, now) {
        (None, Busy::Nanoseconds(ns)) => ns as f64 / 1e9,
        (Some(Busy::Nanoseconds(before)), Busy::Nanoseconds(ns)) => {
            ns.saturating_sub(before) as f64 / 1e9
        }
        // A share of the time that has passed.
        (Some(Busy::Cycles { busy: before, total: since }), Busy::Cycles { busy, total }) => {
            let (busy, total) = (busy.saturating_sub(before), total.saturating_sub(since));
            if total == 0 { 0.0 } else { busy as f64 / total as f64 * passed }
        }
        // Cycles are counted since the engine was made, not since the client was.
        (_, Busy::Cycles { .. }) | (Some(Busy::Cycles { .. }), _) => 0.0,
    }
}

/// The reading that the next one is held against: of counters that stepped back, the larger.
fn later(before: Option<Busy>, now: Busy) -> Busy {
    match (before, now) {
        (Some(Busy::Nanoseconds(before)), Busy::Nanoseconds(ns)) => {
            Busy::Nanoseconds(ns.max(before))
        }
        (Some(Busy::Cycles { busy: before, total: since }), Busy::Cycles { busy, total }) => {
            Busy::Cycles { busy: busy.max(before), total: total.max(since) }
        }
        (_, now) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const I915: &str = "pos:\t0\nflags:\t02100002\nmnt_id:\t24\nino:\t123\ndrm-driver:\ti915\n\
        drm-client-id:\t7\ndrm-pdev:\t0000:00:02.0\ndrm-total-system0:\t4 MiB\n\
        drm-engine-render:\t1000000000 ns\ndrm-engine-copy:\t0 ns\ndrm-engine-video:\t2500000000 ns\n\
        drm-engine-capacity-video:\t2\ndrm-engine-video-enhance:\t500000000 ns\n";
    const XE: &str = "drm-driver:\txe\ndrm-client-id:\t9\ndrm-pdev:\t0000:03:00.0\n\
        drm-cycles-vcs:\t1000\ndrm-total-cycles-vcs:\t50000\ndrm-engine-capacity-vcs:\t2\n\
        drm-cycles-rcs:\t0\ndrm-total-cycles-rcs:\t50000\n";
    const AMDGPU: &str = "drm-driver:\tamdgpu\ndrm-client-id:\t3\ndrm-pdev:\t0000:0b:00.0\npasid:\t32771\n\
        drm-memory-vram:\t2048 KiB\ndrm-engine-dec:\t300000000 ns\ndrm-engine-enc:\t100000000 ns\n";

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seconds(time: &EngineTime, engine: &str) -> f64 {
        time.totals().get(engine).map_or(f64::NAN, |engine| engine.seconds)
    }

    #[test]
    fn three_drivers_are_read() {
        let i915 = parse(I915).unwrap();
        assert_eq!((i915.driver.as_str(), i915.id), ("i915", 7));
        assert_eq!(i915.engines.len(), 4);
        let video = Counter { busy: Busy::Nanoseconds(2_500_000_000), capacity: 2 };
        assert_eq!(i915.engines["video"], video);
        let xe = parse(XE).unwrap();
        let busy = Busy::Cycles { busy: 1000, total: 50_000 };
        assert_eq!(xe.engines["video"], Counter { busy, capacity: 2 });
        assert_eq!(parse(AMDGPU).unwrap().engines["dec"].busy, Busy::Nanoseconds(300_000_000));
    }

    #[test]
    fn other_descriptors_are_none() {
        assert_eq!(parse("pos:\t0\nflags:\t02\n"), None);
        assert_eq!(parse("drm-driver:\ti915\ndrm-engine-video: 5 ns\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn nanoseconds_add_up_and_never_step_back() {
        let mut time = EngineTime::default();
        time.take(parse(I915), at(1));
        assert_eq!(seconds(&time, "video"), 2.5);
        for (ns, expect) in [("3000000000", 3.0), ("2900000000", 3.0), ("3100000000", 3.1)] {
            time.take(parse(&I915.replace("2500000000", ns)), at(2));
            assert!((seconds(&time, "video") - expect).abs() < 1e-9, "{ns}");
        }
        // Closed, and another opened: what was had stays.
        time.take(None, at(3));
        time.take(parse(&I915.replace("client-id:\t7", "client-id:\t8")), at(4));
        assert!((seconds(&time, "video") - 5.6).abs() < 1e-9);
        assert_eq!(time.totals()["video"].capacity, 2);
    }

    #[test]
    fn one_client_is_counted_once() {
        let mut time = EngineTime::default();
        time.take([parse(I915).unwrap(), parse(I915).unwrap()], at(1));
        assert_eq!(seconds(&time, "render"), 1.0);
        // The same number on another GPU is another client.
        time.take(parse(&I915.replace("00:02.0", "00:03.0")), at(1));
        assert_eq!(seconds(&time, "render"), 2.0);
    }

    #[test]
    fn cycles_are_a_share_of_the_time_that_passed() {
        let mut time = EngineTime::default();
        time.take(parse(XE), at(10));
        assert_eq!(seconds(&time, "video"), 0.0);
        let later = XE.replace("vcs:\t1000", "vcs:\t26000").replace("vcs:\t50000", "vcs:\t150000");
        time.take(parse(&later), at(14));
        assert_eq!((seconds(&time, "video"), seconds(&time, "render")), (1.0, 0.0));
    }

    #[test]
    fn a_virtual_function_says_nothing_of_its_engines() {
        let mut time = EngineTime::default();
        time.take(parse("drm-driver:\txe\ndrm-client-id:\t9\ndrm-pdev:\t0000:00:02.1\n"), at(1));
        assert!(time.is_withheld());
        time.take(parse(I915), at(2));
        assert!(!time.is_withheld());
    }

    #[test]
    fn a_directory_of_descriptors_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("0", "pos:\t0\n"), ("5", I915), ("6", I915), ("7", AMDGPU)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut time = EngineTime::default();
        time.read(folder.path(), at(1)).unwrap();
        assert_eq!((seconds(&time, "video"), seconds(&time, "enc")), (2.5, 0.1));
        assert!(time.read(&folder.path().join("absent"), at(2)).is_err());
    }
}
