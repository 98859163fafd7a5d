//! What all processes of a side take: CPU time and memory, by `/proc`.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::stack::pause;

/// Ticks per second in `/proc/*/stat`: the kernel's `USER_HZ`, the same on every architecture that
/// Rust has a GNU/Linux target for.
const TICKS: f64 = 100.0;
/// Between two looks at memory: a look walks the pages of every process.
const EVERY: Duration = Duration::from_secs(1);
/// Grain of the wait between them.
const GRAIN_MS: u64 = 50;

/// Fields of `/proc/PID/stat` behind the name, which may hold anything.
struct Stat {
    parent: u32,
    /// User and system time, its own.
    own_ticks: u64,
    /// The same of children that have ended and were waited for, and of theirs.
    children_ticks: u64,
}

fn stat(pid: &str) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // proc_pid_stat(5) counts from 1; the state, its third, is the first here.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(field(4)?).ok()?,
        own_ticks: field(14)? + field(15)?,
        children_ticks: field(16)? + field(17)?,
    })
}

/// All processes that descend from this one.
fn descendants() -> Vec<(u32, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut all: HashMap<u32, Stat> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.parse().ok()?, stat(&name)?))
        })
        .collect();
    let mut found = Vec::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        let children: Vec<u32> =
            all.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid).collect();
        for pid in children {
            parents.push(pid);
            found.extend(all.remove_entry(&pid));
        }
    }
    found
}

/// CPU seconds that all descendants of this process have taken, ended ones too.
pub fn cpu_seconds() -> f64 {
    let ended = stat("self").map_or(0, |stat| stat.children_ticks);
    let alive = descendants();
    let alive = alive.iter().map(|(_, stat)| stat.own_ticks + stat.children_ticks).sum::<u64>();
    (ended + alive) as f64 / TICKS
}

/// CPU seconds that the whole machine has worked, or was kept from working by its host.
pub fn machine_cpu_seconds() -> f64 {
    busy_ticks(&fs::read_to_string("/proc/stat").unwrap_or_default()) as f64 / TICKS
}

/// Of the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, and then
/// guests, who are in user already (proc_stat(5)).
fn busy_ticks(text: &str) -> u64 {
    let line = text.lines().next().unwrap_or_default();
    let fields = line.split_ascii_whitespace().skip(1).take(8).enumerate();
    fields.filter(|(at, _)| !matches!(at, 3 | 4)).filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
}

/// CPU seconds of one process.
pub fn cpu_seconds_of(pid: u32) -> Option<f64> {
    stat(&pid.to_string()).map(|stat| stat.own_ticks as f64 / TICKS)
}

/// Memory of all descendants together in KiB, pages that several share counted once (PSS).
fn memory_kib() -> u64 {
    let pss = |pid: u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    descendants().iter().filter_map(|(pid, _)| pss(*pid)).sum()
}

/// Looks at memory from time to time, and keeps the highest.
#[derive(Debug)]
pub struct Memory {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Memory {
    /// Begins to look.
    pub fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if Instant::now() >= next {
                    peak = peak.max(memory_kib());
                    next = Instant::now() + EVERY;
                }
                pause(GRAIN_MS);
            }
            peak
        });
        Self { stop, thread }
    }

    /// The highest sum seen, KiB.
    pub fn peak_kib(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_may_hold_spaces_and_brackets() {
        let line = "7 (a) b) S 3 7 7 0 -1 0 1 2 3 4 11 22 33 44 20 0 1 0 5 6";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.own_ticks, stat.children_ticks), (3, 33, 77));
        assert!(parse_stat("7 (a) S 3").is_none());
    }

    #[test]
    fn whoever_waits_is_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 32 5 5\ncpu0 7 7 7"), 63);
        assert_eq!(busy_ticks(""), 0);
    }

    #[test]
    fn grandchildren_count() {
        let mut shell = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let sleeper = loop {
            let found = descendants();
            if let Some((pid, _)) = found.iter().find(|(_, stat)| stat.parent == shell.id()) {
                break *pid;
            }
            assert!(Instant::now() < deadline, "no grandchild is seen");
            pause(5);
        };
        assert!(memory_kib() > 0);
        for pid in [sleeper, shell.id()] {
            crate::stack::signal(pid, rustix::process::Signal::KILL);
        }
        shell.wait().unwrap();
    }
}
