//! Kills hook, worker and gateway at random moments, and looks for remains.
//!
//! Every third stream is live television, read by the real ffmpeg from a tuner. Other streams whose worker or
//! gateway is killed go on with the next one, and are then told to end. After each kill, within
//! three seconds: hook, worker and reader are gone, no worker has lost its gateway, and the transcode directory holds nothing that Jellyfin would trip over (an empty
//! segment, a temporary file, a name that isn't a number). At the end the gateway's memory and
//! descriptors are what they were at the beginning.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use benches::clip::{self, Clip};
use benches::processes::{called_with, descriptors, memory_kib, running};
use benches::random::Random;
use benches::stack::{Stack, pause, signal};
use benches::{live, play};
use jellyfin_sim::{Container, Tuner};
use rustix::process::Signal;

const CLIP: Clip = Clip { width: 320, height: 180, rate: "25", seconds: 60 };
/// Length of the tuner's program in seconds, and how much faster than it plays it is sent.
const PROGRAM_SECONDS: u32 = 30;
const FAST: f64 = 5.0;
/// Time for everyone to notice a death and clean up.
const SETTLE: Duration = Duration::from_secs(3);
/// Time for the gateway to have its workers again.
const WARM: Duration = Duration::from_secs(20);
/// Kills before memory counts as settled, and what it may still grow by.
const WARM_UP: u32 = 20;
const GROWTH_KIB: u64 = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Hook,
    Worker,
    Gateway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ts,
    Fmp4,
    Live,
}

/// What is played.
struct Sources {
    clip: PathBuf,
    tuner: Tuner,
    /// The ffmpeg that reads, and doesn't transcode.
    reader: PathBuf,
}

impl Sources {
    fn make(folder: &Path) -> Result<Self> {
        let clip = clip::make(folder, CLIP)?;
        let program = live::program(folder, PROGRAM_SECONDS)?;
        let rate = program.len() as f64 / f64::from(PROGRAM_SECONDS) * FAST;
        let tuner = Tuner::start(program, rate)?;
        Ok(Self { clip, tuner, reader: live::reader(folder)? })
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [binaries, folder, rest @ ..] = arguments.as_slice() else {
        bail!("usage: kills BINARIES FOLDER [COUNT] [SEED]");
    };
    let count: u32 = rest.first().map_or(Ok(200), |count| count.parse())?;
    let seed: u64 = rest.get(1).map_or(Ok(1), |seed| seed.parse())?;
    let folder = PathBuf::from(folder);
    let sources = Sources::make(&folder)?;
    let mut stack = Stack::start(Path::new(binaries), &folder)?;
    let mut random = Random::new(seed);
    let mut counts = [0_u32; 3];
    let (mut moved, mut baseline) = (0, None);
    for round in 1..=count {
        let victim = match random.below(10) {
            0..=4 => Victim::Hook,
            5..=8 => Victim::Worker,
            _ => Victim::Gateway,
        };
        counts[victim as usize] += 1;
        let kind = match random.below(3) {
            0 => Kind::Live,
            1 => Kind::Fmp4,
            _ => Kind::Ts,
        };
        let delay = random.below(1500);
        let goes_on =
            kill_once(&mut stack, &sources, &folder, victim, kind, delay).with_context(|| {
                format!("round {round}: {victim:?} of {kind:?} killed after {delay} ms")
            })?;
        if victim == Victim::Gateway {
            moved += u32::from(goes_on);
            baseline = None;
        }
        if baseline.is_none() {
            baseline = Some((round, memory(&stack)?, descriptors(stack.pid())));
        } else if let Some((since, _, _)) = baseline
            && round - since == WARM_UP
        {
            // Allocators settle during the first streams.
            baseline = Some((0, memory(&stack)?, descriptors(stack.pid())));
        }
        if round % 20 == 0 {
            println!("{round} kills, gateway {} KiB", memory(&stack)?);
        }
    }
    flat(&mut stack, baseline, &sources, &folder)?;
    println!(
        "{count} kills ({} hooks, {} workers, {} gateways, after which {moved} streams went on): \
         no orphan, no remains",
        counts[0], counts[1], counts[2]
    );
    println!("{count} passed, 0 failed");
    stack.stop()
}

/// A gateway that has lost many streams holds no more than one that has lost a few.
fn flat(
    stack: &mut Stack,
    baseline: Option<(u32, u64, usize)>,
    sources: &Sources,
    folder: &Path,
) -> Result<()> {
    let (mut before, mut fds) =
        baseline.map_or((memory(stack)?, descriptors(stack.pid())), |b| (b.1, b.2));
    for round in 0..3 * WARM_UP {
        kill_once(stack, sources, folder, Victim::Hook, Kind::Ts, 50)?;
        if round == WARM_UP {
            warm(stack)?;
            (before, fds) = (memory(stack)?, descriptors(stack.pid()));
        }
    }
    warm(stack)?;
    let (after, fds_after) = (memory(stack)?, descriptors(stack.pid()));
    println!(
        "gateway: {before} KiB, {fds} descriptors; {} streams later {after} KiB, {fds_after} descriptors",
        2 * WARM_UP
    );
    ensure!(after <= before + GROWTH_KIB, "the gateway grew from {before} to {after} KiB");
    ensure!(fds_after <= fds + 2, "descriptors leak: {fds} before, {fds_after} after");
    Ok(())
}

/// Waits until the workers that are kept warm are there: each holds descriptors of the gateway's.
fn warm(stack: &Stack) -> Result<()> {
    let deadline = Instant::now() + WARM;
    while !stack.get("/metrics").is_ok_and(|page| page.contains("\nrendergate_workers_warm 2\n")) {
        ensure!(Instant::now() < deadline, "no two warm workers within {WARM:?}");
        pause(20);
    }
    Ok(())
}

fn memory(stack: &Stack) -> Result<u64> {
    memory_kib(stack.pid(), "VmRSS:").context("the gateway is gone")
}

/// Says whether the stream went on.
fn kill_once(
    stack: &mut Stack,
    sources: &Sources,
    folder: &Path,
    victim: Victim,
    kind: Kind,
    delay_ms: u64,
) -> Result<bool> {
    let directory = folder.join("transcodes");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    let film = |container| play::command(&sources.clip, &directory, container, CLIP.height);
    let (command, real) = match kind {
        // Were the hook to fall back, that must show, not pass for a clean end.
        Kind::Ts => (film(Container::Ts), Path::new("/bin/false")),
        Kind::Fmp4 => (film(Container::Fmp4), Path::new("/bin/false")),
        Kind::Live => {
            (live::command(&sources.tuner.url(), &directory, false), sources.reader.as_path())
        }
    };
    let (name, endpoint) = stack.endpoint();
    let mut hook = Command::new(stack.hook()?)
        .args(command.at(0, f64::from(CLIP.seconds)))
        .env(name, endpoint)
        .env("RENDERGATE_FFMPEG", real)
        .env("RECORD", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    pause(delay_ms);
    let worker = stack.stream_worker();
    let target = match victim {
        Victim::Hook => Some(hook.id()),
        Victim::Worker => worker,
        Victim::Gateway => Some(stack.pid()),
    };
    if let Some(target) = target {
        signal(target, Signal::KILL);
    }
    let mut goes_on = false;
    if victim == Victim::Gateway {
        stack.restart()?;
    }
    if victim != Victim::Hook {
        if kind != Kind::Live && target.is_some() {
            goes_on = succeeded(stack, &mut hook, worker)?;
        }
        // What goes on, or was over already, ends in order.
        signal(hook.id(), Signal::TERM);
    }
    settle(stack, &mut hook, worker, &sources.tuner.url())?;
    inspect(&directory, &command.id, &command.extension)?;
    Ok(goes_on)
}

/// Waits until another worker has the stream of one that was killed, or the stream is over; says which.
fn succeeded(stack: &Stack, hook: &mut Child, worker: Option<u32>) -> Result<bool> {
    let deadline = Instant::now() + WARM;
    while hook.try_wait()?.is_none() {
        if stack.stream_worker().is_some_and(|other| Some(other) != worker) {
            return Ok(true);
        }
        ensure!(Instant::now() < deadline, "no other worker goes on within {WARM:?}");
        pause(5);
    }
    Ok(false)
}

/// Waits until hook, worker and reader are gone and every other worker has a living gateway.
fn settle(stack: &Stack, hook: &mut Child, worker: Option<u32>, url: &str) -> Result<()> {
    let program = stack.worker_program()?;
    let deadline = Instant::now() + SETTLE;
    loop {
        let hook_gone = hook.try_wait()?.is_some();
        let workers = running(&program);
        let worker_gone = worker.is_none_or(|pid| workers.iter().all(|w| w.pid != pid));
        // Another gateway of the same binaries may run beside this one.
        let gateways = running(&stack.gateway_program()?);
        let orphans: Vec<_> = workers
            .iter()
            .filter(|worker| gateways.iter().all(|gateway| gateway.pid != worker.parent))
            .collect();
        let readers = called_with(url);
        if hook_gone && worker_gone && orphans.is_empty() && readers.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "hook gone: {hook_gone}, worker gone: {worker_gone}, orphans: {orphans:?}, \
                 readers: {readers:?}"
            );
        }
        pause(5);
    }
}

/// Nothing in the directory that Jellyfin would trip over.
fn inspect(directory: &Path, id: &str, extension: &str) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        ensure!(!name.ends_with(".tmp"), "a temporary file is left: {name}");
        if let Some(stem) = name.strip_suffix(extension) {
            let number = stem.strip_prefix(id).context("a foreign file")?;
            ensure!(number.parse::<i64>().is_ok(), "no segment number in {name}");
            ensure!(entry.metadata()?.len() > 0, "an empty segment is left: {name}");
        }
    }
    Ok(())
}
