//! One side's load, from the first resident to the last newcomer.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jellyfin_sim::{Amount, Container, Fault, FaultKind, Pace, Report, Server, Step, play};
use serde::Serialize;

use super::usage::{Memory, cpu_seconds, machine_cpu_seconds};
use super::viewing::Viewing;
use super::{Parameters, Session};
use crate::play::{first_servable, settings, template};
use crate::stack::{Stack, pause};

/// Between two lines that say how far it is.
const SAY_EVERY: Duration = Duration::from_secs(15);

/// What came of a load. Times are seconds from the load's begin.
#[derive(Debug, Serialize)]
pub struct Side {
    /// `Rendergate` or `ffmpeg`.
    pub name: &'static str,
    /// From the first start to the last end.
    pub seconds: f64,
    /// Of all processes of the side, from the first start to the last end, those of gateway and warm
    /// workers too.
    pub cpu_seconds: f64,
    /// Of everything else on the machine meanwhile, jellyfin-sim too: what disturbs the figures.
    pub others_cpu_seconds: f64,
    /// Highest memory of all processes together, MiB (PSS).
    pub peak_mib: f64,
    /// In the order of the plan.
    pub sessions: Vec<Played>,
}

/// A session that was.
#[derive(Debug, Serialize)]
pub struct Played {
    /// As planned.
    pub name: String,
    /// When it came.
    pub start: f64,
    /// When it was over.
    pub end: f64,
    /// Comes when all residents are there.
    pub newcomer: bool,
    /// Whether a gateway ran all of it, and not the hook's own ffmpeg.
    pub on_gateway: bool,
    /// Seconds from each request that started a transcode until its first segment could be served:
    /// the beginning, then seeks.
    pub first_servable: Vec<Option<f64>>,
    /// Media that was made, seconds.
    pub made: f64,
    /// What the viewer saw.
    pub viewing: Viewing,
    /// What Jellyfin or the viewer would have tripped over.
    pub faults: Vec<Fault>,
}

impl Side {
    /// Media that all sessions together made, seconds.
    pub fn made(&self) -> f64 {
        self.sessions.iter().map(|session| session.made).sum()
    }

    /// Count and total seconds.
    pub fn stalls(&self) -> (usize, f64) {
        self.sessions.iter().fold((0, 0.0), |(count, seconds), session| {
            let (c, s) = session.viewing.stalls();
            (count + c, seconds + s)
        })
    }

    /// Seconds that all viewers together looked at nothing or at a picture that stood still.
    pub fn stood(&self) -> f64 {
        let all = self.sessions.iter().flat_map(|session| &session.viewing.standstills);
        all.map(|still| still.to - still.from).sum::<f64>() + 0.0
    }

    /// First segments of newcomers, seconds.
    pub fn newcomers(&self) -> Vec<f64> {
        let newcomers = self.sessions.iter().filter(|session| session.newcomer);
        newcomers.filter_map(|session| *session.first_servable.first()?).collect()
    }

    /// What must not happen however slow a machine is, in words.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for session in &self.sessions {
            let faults = session.faults.iter().filter(|fault| !is_of_slowness(fault.kind));
            broken.extend(faults.map(|fault| format!("{}: {}", session.name, fault.text)));
            if session.first_servable.is_empty() {
                broken.push(format!("{}: nothing was started", session.name));
            }
        }
        broken
    }
}

/// Runs the plan on the stack, or on an ffmpeg.
///
/// # Errors
/// If a session can't be opened.
pub fn run(
    parameters: &Parameters,
    stack: Option<&Stack>,
    ffmpeg: &Path,
    clip: &Path,
    folder: &Path,
) -> Result<Side> {
    let name = if stack.is_some() { "Rendergate" } else { "ffmpeg" };
    let plan = parameters.plan();
    let _ = fs::remove_dir_all(folder);
    let (cpu_before, all_before) = (cpu_seconds(), machine_cpu_seconds());
    let memory = Memory::watch();
    let watching = Arc::new(AtomicUsize::new(0));
    let over: Arc<Mutex<Vec<String>>> = Arc::default();
    let begun = Instant::now();
    let mut threads = Vec::new();
    for (index, session) in plan.into_iter().enumerate() {
        wait_for(begun, session.start, name, parameters, &watching, &over);
        let directory = folder.join(index.to_string());
        let mut template = template(clip, &directory, Container::Ts, parameters.output_height);
        template.id = format!("{index:032x}");
        let mut settings = settings(stack, ffmpeg, parameters.length)?;
        settings.throttle = parameters.throttle.map(Duration::from_secs_f64);
        let server = Server::new(settings, template.command())?;
        let start = begun.elapsed().as_secs_f64();
        let pace = Pace::Watching { factor: 1.0, buffer_seconds: parameters.buffer };
        let (watching, over) = (watching.clone(), over.clone());
        let on_stack = stack.is_some();
        threads.push(std::thread::spawn(move || {
            watching.fetch_add(1, Ordering::Relaxed);
            let report = play(server, &session.script, pace);
            watching.fetch_sub(1, Ordering::Relaxed);
            let played = played(session, report, start, on_stack);
            over.lock().unwrap_or_else(PoisonError::into_inner).push(line(&played));
            played
        }));
    }
    wait_for(begun, parameters.end(), name, parameters, &watching, &over);
    let mut sessions = Vec::new();
    for thread in threads {
        sessions.push(thread.join().ok().context("a session's thread panicked")?);
    }
    say(name, begun, parameters, &watching, &over);
    let cpu_seconds = cpu_seconds() - cpu_before;
    Ok(Side {
        name,
        seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds,
        others_cpu_seconds: (machine_cpu_seconds() - all_before - cpu_seconds).max(0.0),
        peak_mib: memory.peak_kib() as f64 / 1024.0,
        sessions,
    })
}

/// Until so many seconds have passed, with a line now and then.
fn wait_for(
    begun: Instant,
    seconds: f64,
    name: &str,
    parameters: &Parameters,
    watching: &AtomicUsize,
    over: &Mutex<Vec<String>>,
) {
    let grain = Duration::from_millis(50);
    while begun.elapsed().as_secs_f64() < seconds {
        let before = begun.elapsed().as_secs() / SAY_EVERY.as_secs();
        let left = Duration::from_secs_f64((seconds - begun.elapsed().as_secs_f64()).max(0.0));
        pause(u64::try_from(left.min(grain).as_millis()).unwrap_or(1).max(1));
        if begun.elapsed().as_secs() / SAY_EVERY.as_secs() > before {
            say(name, begun, parameters, watching, over);
        }
    }
}

fn say(
    name: &str,
    begun: Instant,
    parameters: &Parameters,
    watching: &AtomicUsize,
    over: &Mutex<Vec<String>>,
) {
    for line in over.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        eprintln!("{name}: {line}");
    }
    let (now, end) = (begun.elapsed().as_secs(), parameters.end());
    eprintln!("{name}: {now} s of {end:.0}, {} watch", watching.load(Ordering::Relaxed));
}

fn line(played: &Played) -> String {
    let (count, seconds) = played.viewing.stalls();
    let waits: Vec<String> = played
        .first_servable
        .iter()
        .map(|wait| wait.map_or_else(|| "never".into(), |wait| format!("{wait:.2} s")))
        .collect();
    format!(
        "{}: first segment after {}; {count} stalls, {seconds:.1} s",
        played.name,
        waits.join(", ")
    )
}

/// What the report says, on the load's clock.
fn played(session: Session, report: Report, start: f64, on_stack: bool) -> Played {
    let planned: f64 = session
        .script
        .0
        .iter()
        .map(|step| match step {
            Step::Play(Amount::Seconds(seconds)) => *seconds,
            _ => 0.0,
        })
        .sum();
    let last = report.segments.last().map_or(0.0, |segment| segment.served);
    let end = planned.max(last);
    let mut viewing = Viewing::of(&report, end);
    viewing.shift(start);
    // Whether there is room is known once the source is open, after the stream was accepted.
    let taken = |log: &jellyfin_sim::Log| {
        let lines = || log.head.iter().chain(&log.tail);
        lines().any(|line| line.starts_with("rendergate: stream "))
            && !lines().any(|line| line.starts_with("rendergate: ") && line.contains("; running "))
    };
    let position = |log: &jellyfin_sim::Log| Some(log.last?.position?.as_secs_f64());
    Played {
        name: session.name,
        start,
        end: start + end,
        newcomer: session.newcomer,
        on_gateway: on_stack && report.runs.iter().all(|run| taken(&run.log)),
        first_servable: report.runs.iter().map(|run| run.first_served).collect(),
        made: report.runs.iter().filter_map(|run| position(&run.log)).sum(),
        viewing,
        faults: report.faults,
    }
}

/// Seconds until a first segment could be served, alone; the session is left then.
///
/// # Errors
/// If it never could.
pub fn alone(
    parameters: &Parameters,
    stack: Option<&Stack>,
    ffmpeg: &Path,
    clip: &Path,
    folder: &Path,
) -> Result<f64> {
    let _ = fs::remove_dir_all(folder);
    let command = template(clip, folder, Container::Ts, parameters.output_height).command();
    first_servable(settings(stack, ffmpeg, parameters.length)?, command, 0)
}

/// Whether a fault is one of those that a machine's being too slow brings about by itself: a stop
/// that took longer than Jellyfin waits, a request that nobody would have waited for any longer.
fn is_of_slowness(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::Killed | FaultKind::TimedOut)
}
