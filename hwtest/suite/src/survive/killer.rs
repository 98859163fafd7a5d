//! Who is killed, and when.

use std::collections::HashMap;
use std::time::Instant;

use benches::random::Random;
use benches::stack::{Stack, pause, signal};
use rustix::process::Signal;
use serde::Serialize;

/// Of so many streams that have lost a worker, one may lose its next before there is a segment, and not a third:
/// that would be its end (`gateway::survival`). The others are left alone until they have got on.
const ONE_IN: u64 = 8;
/// Between two kills, milliseconds: at least, and how much more at random.
const PAUSE: (u64, u64) = (100, 900);
/// A viewer may have lost so many workers more than any other.
const AHEAD: u32 = 1;

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
    let mut spared: HashMap<String, Spared> = HashMap::new();
    let mut lost: HashMap<String, u32> = HashMap::new();
    let (mut hits, mut others) = (0, 0);
    while !over() {
        pause(PAUSE.0 + random.below(PAUSE.1));
        if hits >= wanted.kills {
            continue;
        }
        // A stream that finds no GPU that works goes on in software: not only there.
        let counts = |target: &Target| !wanted.on_gpu || target.backend != "software";
        let may_be = |target: &Target| {
            let spared = spared.get(&target.stream);
            spared.is_none_or(|spared| target.segments >= spared.until)
                && (counts(target) || others <= hits)
        };
        let mut targets: Vec<Target> = targets(stack).into_iter().filter(may_be).collect();
        let lost_by = |target: &Target| lost.get(&target.output).copied().unwrap_or(0);
        let fewest = targets.iter().map(lost_by).min().unwrap_or(0);
        targets.retain(|target| lost_by(target) <= fewest + AHEAD);
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
        let before = spared.get(&stream);
        // Since it was listed it may have completed a segment, which the next list adds to those before
        // this kill: two more are one for sure.
        let got_on = before.is_none_or(|before| segments >= before.at + 2);
        let again = got_on && random.below(ONE_IN) == 0;
        let until = if again { segments } else { segments + 1 };
        spared.insert(stream.clone(), Spared { at: segments, until });
        *lost.entry(output.clone()).or_default() += 1;
        let at = begun.elapsed().as_secs_f64();
        kills.push(Kill { at, stream, output, pid, backend, segments });
    }
    kills
}

/// A stream that has just lost a worker.
#[derive(Debug)]
struct Spared {
    /// The segments that it had.
    at: u64,
    /// Those that it is to have before it loses the next one.
    until: u64,
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
