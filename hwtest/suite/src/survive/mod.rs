//! Workers are killed under six viewers, and every segment that a viewer got is judged.
//!
//! ```text
//! jobs ─▶ round: six viewers, and a killer ─▶ judge ◀─ reference: the same job, undisturbed,
//!                                                      on the backend on which the run began
//! ```
//!
//! A round is six viewers of different jobs on one gateway, who come one after the other, leap and pause
//! while workers that run a stream are killed at random moments. It lasts until all have seen their film
//! to its end. What is judged is what was served, at the moment at which it was: each segment has the
//! pictures of the film that an undisturbed run of the same job has in it, at the same time, sound goes
//! on without a gap, and all that one run wrote decodes as one without a word from ffmpeg.
//!
//! Encoders of a GPU and in software put their pictures out of order by different depths, which shows in the
//! times of a whole run (`backend`). So there are two references of each job, and a run is held to that of the
//! backend on which it began, whatever its later workers ran on: exactly, with the init file that the viewer
//! holds, which has to be a reference's to the byte.
//!
//! A stream that is killed on a GPU has failed on it: nobody is given that GPU until it has been looked at, and
//! the stream no more after the second time. With one GPU most would soon be in software. Hence there
//! are [`GPUS`], between which streams move; and a new gateway for each round, since one that
//! remembers earlier failures pauses before it looks.
//!
//! Invariants:
//! - A stream is never killed three times without a segment in between: that is its end by design.
//! - Nothing is judged by the time that it took.

mod backend;
mod jobs;
mod judge;
mod killer;
mod reference;
mod round;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use benches::random::Random;
use benches::stack::{Admission, Stack, pause};
use jellyfin_sim::Kind;

use jobs::Job;
use reference::References;

/// Time for the gateway to have seen a GPU working.
const LOOK: Duration = Duration::from_secs(60);
/// Workers for six viewers, some of whom lose theirs at the same time; whoever waits for one isn't
/// turned away.
const CONFIGURATION: &str = "[worker]\nwarm = 3\n[streams]\naccept_seconds = 60\n";
/// One that leaves alone the GPU that this process sees.
const IN_SOFTWARE: &str =
    "[gpu]\nbackend = \"software\"\n[worker]\nwarm = 3\n[streams]\naccept_seconds = 60\n";
/// How many GPUs there have to be.
pub const GPUS: usize = 3;
/// Kills that count, in one round at most: many rounds of few are fairer than one of many.
const MOST_IN_A_ROUND: u32 = 20;
/// Faults of a viewer that are told; the others are likely to be the same.
const MOST_TOLD: usize = 6;
/// Rounds in a row that may pass without a kill, before the streams are taken for too short.
const MOST_IDLE: u32 = 3;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The programs under test.
    pub binaries: PathBuf,
    /// Where segments and logs are while they are needed; what a fault was found in stays.
    pub folder: PathBuf,
    /// How many workers.
    pub kills: u32,
    /// Of the moments and the victims.
    pub seed: u64,
    /// On the [`GPUS`] that this process sees, else in software.
    pub on_gpu: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Workers killed that ran a stream on a GPU, all of it or a part.
    pub kills_on_gpu: u32,
    /// Workers killed that ran a stream in software.
    pub kills_in_software: u32,
    /// Viewers who saw their film.
    pub viewers: usize,
    /// Hook processes: one more for each leap.
    pub runs: usize,
    /// Those of them that began on a GPU.
    pub runs_on_gpu: usize,
    /// Kills of each viewer's workers.
    pub by_viewer: BTreeMap<&'static str, u32>,
    /// Segments judged.
    pub segments: usize,
    /// Pictures looked at.
    pub frames: usize,
    /// Longest wait for a segment, seconds.
    pub longest_wait: f64,
    /// Longest time for which the picture stood still at normal speed, once it had begun, seconds.
    pub longest_standstill: f64,
    /// What is wrong, and where it lies.
    pub faults: Vec<String>,
}

impl Tally {
    /// Workers killed.
    pub fn kills(&self) -> u32 {
        self.kills_on_gpu + self.kills_in_software
    }

    fn add(&mut self, other: Self) {
        self.kills_on_gpu += other.kills_on_gpu;
        self.kills_in_software += other.kills_in_software;
        self.viewers += other.viewers;
        self.runs += other.runs;
        self.runs_on_gpu += other.runs_on_gpu;
        for (viewer, kills) in other.by_viewer {
            *self.by_viewer.entry(viewer).or_default() += kills;
        }
        self.segments += other.segments;
        self.frames += other.frames;
        self.longest_wait = self.longest_wait.max(other.longest_wait);
        self.longest_standstill = self.longest_standstill.max(other.longest_standstill);
        self.faults.extend(other.faults);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by_viewer = || self.by_viewer.values().copied();
        write!(
            f,
            "{} kills ({} on the GPU, {} in software; {} to {} of each viewer), judged {} streams in {} \
             runs ({} begun on the GPU), {} segments, {} frames; longest wait {:.1} s, longest standstill \
             {:.1} s, faults {}",
            self.kills(),
            self.kills_on_gpu,
            self.kills_in_software,
            by_viewer().min().unwrap_or(0),
            by_viewer().max().unwrap_or(0),
            self.viewers,
            self.runs,
            self.runs_on_gpu,
            self.segments,
            self.frames,
            self.longest_wait,
            self.longest_standstill,
            self.faults.len()
        )
    }
}

/// Runs rounds until so many workers have been killed; tells of each on standard error.
///
/// # Errors
/// If it can't be tried: no gateway, no ffmpeg, a GPU that doesn't work.
pub fn run(campaign: &Campaign) -> Result<Tally> {
    let Campaign { binaries, folder, kills, seed, on_gpu } = campaign;
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let configuration = if *on_gpu { CONFIGURATION } else { IN_SOFTWARE };
    let mut stack =
        Stack::start_with(binaries, &folder.join("gateway"), configuration, Admission::Off)?;
    let kind = if *on_gpu { Kind::Vaapi } else { Kind::Software };
    let jobs = jobs::six(kind);
    let mut references = References::new(folder.join("undisturbed"), binaries.clone(), *on_gpu);
    let mut random = Random::new(*seed);
    let mut tally = Tally::default();
    let (mut number, mut idle) = (0, 0);
    // On a GPU those count that hit one: the others are the other backend's.
    let hits = |tally: &Tally| if *on_gpu { tally.kills_on_gpu } else { tally.kills() };
    while hits(&tally) < *kills {
        number += 1;
        let begun = Instant::now();
        let place = folder.join(format!("round-{number}"));
        let left = kills - hits(&tally);
        let wanted = killer::Wanted { kills: left.min(MOST_IN_A_ROUND), on_gpu: *on_gpu };
        if *on_gpu {
            works(&stack)?;
        }
        let round = round::play(&stack, &jobs, &place, wanted, &mut random)?;
        let played = begun.elapsed().as_secs_f64();
        if *on_gpu {
            stack.restart()?;
        }
        let found = round.judge(&stack, &mut references)?;
        eprintln!(
            "round {number}: {played:.0} s, judged in {:.0} s; {found}",
            begun.elapsed().as_secs_f64() - played
        );
        found.faults.iter().for_each(|fault| eprintln!("  {fault}"));
        if found.faults.is_empty() {
            fs::remove_dir_all(&place)?;
        }
        idle = if found.kills() > 0 { 0 } else { idle + 1 };
        tally.add(found);
        ensure!(idle < MOST_IDLE, "{MOST_IDLE} rounds without a worker that could be killed");
    }
    stack.stop()?;
    Ok(tally)
}

/// Waits until the gateway has seen all GPUs working.
fn works(stack: &Stack) -> Result<()> {
    let deadline = Instant::now() + LOOK;
    let yes = |line: &&str| line.starts_with("rendergate_gpu_works") && line.ends_with(" 1");
    while stack.get("/metrics")?.lines().filter(yes).count() < GPUS {
        ensure!(
            Instant::now() < deadline,
            "{GPUS} GPUs have to work, and don't: see {}",
            stack.log().display()
        );
        pause(50);
    }
    Ok(())
}

/// A folder that is new.
fn fresh(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    Ok(fs::create_dir_all(folder)?)
}

/// The job's command, writing into a folder.
fn command(job: &Job, folder: &Path) -> jellyfin_sim::CommandLine {
    job.command.clone().into_directory(folder)
}
