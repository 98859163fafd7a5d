//! Who is killed, and when.

use std::collections::HashMap;
use std::time::Instant;

use benches::random::Random;
use benches::stack::{Stack, pause, signal};
use rustix::process::Signal;
use serde::Serialize;

/// Kills of a stream without a segment in between: the next would be its end (`gateway::survival`).
const MOST_IN_A_ROW: u32 = 2;
/// Between two kills, milliseconds: at least, and how much more at random.
const PAUSE: (u64, u64) = (40, 360);

/// How many kills are still wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub kills: u32,
    /// Only those count that hit a stream on the GPU.
    pub on_gpu: bool,
}

/// A worker that was killed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Kill {
    /// Seconds since the round began.
    pub at: f64,
    /// The gateway's number of the stream.
    pub stream: String,
    /// Where its segments go.
    pub output: String,
    /// The worker's process.
    pub pid: u32,
    /// `software`, `vaapi` or `mixed`.
    pub backend: String,
    /// Segments that were complete.
    pub segments: u64,
}

/// A stream of the gateway's list that may lose its worker.
#[derive(Debug)]
struct Target {
    stream: String,
    output: String,
    pid: u32,
    backend: String,
    segments: u64,
}

/// Kills at random until enough were hit or `over` says that there is nobody left.
pub(super) fn kill(
    stack: &Stack,
    wanted: Wanted,
    random: &mut Random,
    mut over: impl FnMut() -> bool,
) -> Vec<Kill> {
    let begun = Instant::now();
    let mut kills: Vec<Kill> = Vec::new();
    // Of each stream, its segments at the last kill and how many kills there were at that number.
    let mut spent: HashMap<String, (u64, u32)> = HashMap::new();
    let (mut hits, mut others) = (0, 0);
    while !over() {
        pause(PAUSE.0 + random.below(PAUSE.1));
        if hits >= wanted.kills {
            continue;
        }
        let may_be = |target: &Target| {
            spent.get(&target.stream).is_none_or(|(segments, count)| {
                target.segments > *segments || *count < MOST_IN_A_ROW
            })
        };
        // A stream that has lost two workers on the GPU goes on in software: not only there.
        let counts = |target: &Target| !wanted.on_gpu || target.backend != "software";
        let may_be = |target: &Target| may_be(target) && (counts(target) || others <= hits);
        let mut targets: Vec<Target> = targets(stack).into_iter().filter(may_be).collect();
        if random.below(4) > 0 && targets.iter().any(counts) {
            targets.retain(counts);
        }
        if targets.is_empty() {
            continue;
        }
        let chosen = random.below(targets.len() as u64) as usize;
        let target = targets.swap_remove(chosen);
        if !is_running(target.pid) {
            continue;
        }
        signal(target.pid, Signal::KILL);
        let hit = counts(&target);
        (hits, others) = (hits + u32::from(hit), others + u32::from(!hit));
        let Target { stream, output, pid, backend, segments } = target;
        let count = match spent.get(&stream) {
            Some((before, count)) if *before == segments => count + 1,
            _ => 1,
        };
        spent.insert(stream.clone(), (segments, count));
        let at = begun.elapsed().as_secs_f64();
        kills.push(Kill { at, stream, output, pid, backend, segments });
    }
    kills
}

/// Streams whose worker runs its graph.
fn targets(stack: &Stack) -> Vec<Target> {
    let streams = stack.streams().unwrap_or_default();
    let target = |line: &serde_json::Value| {
        let text = |field: &str| Some(line.get(field)?.as_str()?.to_owned());
        let backend = text("backend")?;
        let runs = matches!(text("state")?.as_str(), "running" | "paused");
        let pid = u32::try_from(line.get("worker_pid")?.as_u64()?).ok()?;
        (runs && backend != "pending").then_some(())?;
        let segments = line.get("segments")?.as_u64()?;
        Some(Target { stream: text("id")?, output: text("output")?, pid, backend, segments })
    };
    streams.iter().filter_map(target).collect()
}

/// It lives, and isn't about to be reaped.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
