//! What a stream on a GPU costs the processor beside its codecs: `overhead BINARIES FOLDER`.
//!
//! Two films of different length run through hook, gateway and worker on the virtual GPU. CPU time of
//! gateway and worker less what the software driver accounts for, and the difference between the
//! films divided by that of their lengths: what is left is the cost of a second of film, without
//! the cost of a start. Codecs of sound run in the worker on any machine, so a stream whose sound is
//! encoded is told apart from one whose sound is copied.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::clip::{self, Clip};
use benches::figures::{Figure, table};
use benches::stack::{Stack, pause};
use benches::{job, play};
use hwtest_suite::VirtualMachine;
use jellyfin_sim::{Container, Kind, Template};

/// Both lengths of film in seconds.
const LENGTHS: [u32; 2] = [20, 60];
const RUNS: usize = 3;
/// Clock ticks of `/proc/PID/stat` in a second, on every Linux that Rust runs on (`USER_HZ`).
const TICKS: f64 = 100.0;
/// The probe's time.
const LOOK: Duration = Duration::from_secs(60);
/// Says to the program that it is on the virtual machine already.
const INSIDE: &str = "--inside";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [binaries, folder] => outside(Path::new(binaries), Path::new(folder)),
        [INSIDE, binaries, folder] => inside(Path::new(binaries), Path::new(folder)),
        _ => {
            eprintln!("usage: overhead BINARIES FOLDER");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("overhead: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again where the virtual GPU is.
fn outside(binaries: &Path, folder: &Path) -> Result<ExitCode> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder.join("accounts"))?;
    let folder = folder.canonicalize()?;
    let binaries = binaries.canonicalize()?;
    let accounts = folder.join("accounts/%p.json");
    let written = accounts.with_file_name("");
    let machine = VirtualMachine::softva(&[
        ("SOFTVA_ACCOUNT", &accounts.to_string_lossy()),
        ("RENDERGATE_SANDBOX_WRITE", &written.to_string_lossy()),
    ]);
    // The gateway gives workers an environment of their own.
    let worker = folder.join("worker");
    let mut script = String::from("#!/bin/sh\n");
    for (name, value) in machine.environment() {
        script.push_str(&format!("export {name}='{value}'\n"));
    }
    script.push_str(&format!("exec '{}' \"$@\"\n", binaries.join("rendergate-worker").display()));
    fs::write(&worker, script)?;
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755))?;
    let status = Command::new(std::env::current_exe()?)
        .arg(INSIDE)
        .args([&binaries, &folder])
        .envs(machine.environment())
        .env("RENDERGATE_WORKER", worker)
        .env("RENDERGATE_BACKEND", "vaapi")
        .status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inside(binaries: &Path, folder: &Path) -> Result<ExitCode> {
    let stack = Stack::start(binaries, &folder.join("gateway"))?;
    let works = |text: &str| {
        let mut lines = text.lines();
        lines.any(|line| line.starts_with("rendergate_gpu_works") && line.ends_with(" 1"))
    };
    let deadline = Instant::now() + LOOK;
    while !works(&stack.get("/metrics")?) {
        ensure!(Instant::now() < deadline, "the virtual GPU doesn't work: see the gateway's log");
        pause(50);
    }
    let clips = LENGTHS.map(|seconds| {
        let clip = Clip { width: 1920, height: 1080, rate: "24", seconds };
        eprintln!("a film of {seconds} s");
        clip::make(folder.parent().unwrap_or(folder), clip)
    });
    let [short, long] = clips;
    let clips = [short?, long?];
    let mut figures = Vec::new();
    for sound in ["copy", "aac"] {
        let mut shares = Vec::new();
        for run in 1..=RUNS {
            let mut own = Vec::new();
            for clip in &clips {
                own.push(stream(&stack, clip, folder, sound)?);
            }
            let share = (own[1] - own[0]) / f64::from(LENGTHS[1] - LENGTHS[0]) * 100.0;
            eprintln!("sound {sound}, run {run}: {share:.2} % of a core at real time");
            shares.push(share);
        }
        let name = format!("CPU beside the GPU's codecs, 1080p24 to 1080p, sound: {sound}");
        figures.extend(Figure::single(&name, "% of a core", &shares));
    }
    stack.stop()?;
    print!("{}", table(&figures));
    fs::write(folder.join("overhead.json"), serde_json::to_string_pretty(&figures)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a film; CPU seconds of gateway and worker without the driver's.
fn stream(stack: &Stack, clip: &Path, folder: &Path, sound: &str) -> Result<f64> {
    let output = folder.join("segments");
    let _ = fs::remove_dir_all(&output);
    fs::create_dir_all(&output)?;
    let software = play::template(clip, &output, Container::Ts, 1080);
    let template = Template { kind: Kind::Vaapi, audio_encoder: sound.to_owned(), ..software };
    let seconds = f64::from(*LENGTHS.last().unwrap_or(&0));
    let line = template.command().at(0, seconds);
    let earlier = accounts(folder)?;
    let before = spent(stack.pid())?;
    job::run(&stack.hook()?, &line, Some(stack))?;
    // The worker's time counts as the gateway's once it has been waited for.
    let ours = loop {
        let new: Vec<PathBuf> = accounts(folder)?.difference(&earlier).cloned().collect();
        let ended = |account: &PathBuf| {
            account.file_stem().is_some_and(|pid| !Path::new("/proc").join(pid).exists())
        };
        if !new.is_empty() && new.iter().all(ended) {
            break new;
        }
        pause(20);
    };
    ensure!(ours.len() == 1, "expected one worker's account, found {ours:?}");
    let codecs = codecs(&ours[0])?;
    Ok(spent(stack.pid())? - before - codecs)
}

fn accounts(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(folder.join("accounts"))?;
    Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
}

/// CPU seconds of the driver's engines.
fn codecs(account: &Path) -> Result<f64> {
    let account: serde_json::Value = serde_json::from_slice(&fs::read(account)?)?;
    let engines = account.as_object().context("an account is an object")?;
    Ok(engines.values().filter_map(|engine| engine.get("seconds")?.as_f64()).sum())
}

/// CPU seconds of a process and of its children that it has waited for (proc(5): fields 14 to 17).
fn spent(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("a name in brackets")?;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 4, "expected four times in {text}");
    Ok(ticks.iter().sum::<f64>() / TICKS)
}
