//! Kills workers under six viewers, and judges every segment: `./dev survive`.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use hwtest_suite::VirtualMachine;
use hwtest_suite::survive::{Campaign, GPUS, run};

/// Kills workers at random moments while six viewers watch, and judges every segment they got.
///
/// Viewers are those of jellyfin-sim: MPEG-TS and fMP4, H.264 and HEVC, a copied picture, 25 and 23.976
/// frames per second; some leap, forwards and back, one pauses. Workers that run a stream are ended by
/// SIGKILL until so many were hit, round after round, and each round goes on until all six films are over.
///
/// Then each segment is compared with the one of an undisturbed run of the same job, on the backend on which
/// that run began: the same number of frames, the same time, the same pictures (they carry their numbers),
/// sound without a gap; and all that a run wrote decodes as one, without a word from ffmpeg.
///
/// Exit code 0: no faults. 1: faults, each with the folder in which its segments, reports and the list of
/// kills are kept. 2: it could not be tried.
#[derive(Parser)]
#[command(
    name = "./dev survive",
    override_usage = "./dev survive [N] [--seed S] [--only software|gpu]",
    after_help = "Examples:
  ./dev survive                          100 kills in software, then 100 on the GPU
  ./dev survive 12 --only software       about half a minute
  ./dev survive --seed 7                 other moments, other victims

GPUs are virtual ones, whose driver is software: three, since a stream isn't given one on which it has
failed twice, nor anybody one that hasn't been looked at since. Streams that find none go on in
software; kills that hit them there are told, but don't count towards N. The same seed chooses the same
victims at the same intervals; what they were doing at that moment depends on the machine."
)]
struct Cli {
    /// Folder of the binaries
    #[arg(hide = true)]
    binaries: PathBuf,
    /// Folder for segments, logs and faults
    #[arg(hide = true)]
    folder: PathBuf,
    /// Workers to kill, on each backend
    #[arg(value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Of the moments and victims
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// One backend alone
    #[arg(long, value_enum)]
    only: Option<Backend>,
    /// The virtual GPU is there already
    #[arg(long, hide = true)]
    inside: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    Software,
    Gpu,
}

impl Backend {
    fn word(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Gpu => "gpu",
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = if cli.inside { inside(&cli) } else { outside(&cli) };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("survive: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs this program again for each backend, where its GPU is, or where there is none.
fn outside(cli: &Cli) -> Result<bool> {
    let binaries = cli.binaries.canonicalize()?;
    fs::create_dir_all(&cli.folder)?;
    let folder = cli.folder.canonicalize()?;
    let mut clean = true;
    for backend in [Backend::Software, Backend::Gpu] {
        if cli.only.is_some_and(|only| only != backend) {
            continue;
        }
        let mut again = Command::new(std::env::current_exe()?);
        // Its folder has to outlast the run.
        let gpus = GPUS.to_string();
        let machine = (backend == Backend::Gpu)
            .then(|| VirtualMachine::softva(&[("RENDERNODE_COUNT", &gpus)]));
        // The gateways' configurations say on what they run.
        again.env_remove("RENDERGATE_BACKEND");
        match &machine {
            None => &mut again,
            Some(machine) => {
                // The gateway gives workers an environment of their own.
                let worker = folder.join("worker");
                let mut script = String::from("#!/bin/sh\n");
                for (name, value) in machine.environment() {
                    script.push_str(&format!("export {name}='{value}'\n"));
                }
                let program = binaries.join("rendergate-worker");
                script.push_str(&format!("exec '{}' \"$@\"\n", program.display()));
                fs::write(&worker, script)?;
                fs::set_permissions(&worker, fs::Permissions::from_mode(0o755))?;
                again.envs(machine.environment()).env("RENDERGATE_WORKER", worker)
            }
        };
        let status = again
            .args([&binaries, &folder])
            .arg(cli.kills.to_string())
            .args(["--seed", &cli.seed.to_string(), "--only", backend.word(), "--inside"])
            .status()?;
        match status.code() {
            Some(0) => {}
            Some(1) => clean = false,
            _ => anyhow::bail!("the run on {} ended with {status}", backend.word()),
        }
    }
    Ok(clean)
}

fn inside(cli: &Cli) -> Result<bool> {
    let backend = cli.only.unwrap_or(Backend::Software);
    let campaign = Campaign {
        binaries: cli.binaries.clone(),
        folder: cli.folder.join(backend.word()),
        kills: cli.kills,
        seed: cli.seed,
        on_gpu: backend == Backend::Gpu,
    };
    eprintln!("{}: {} kills, seed {}", backend.word(), cli.kills, cli.seed);
    let tally = run(&campaign)?;
    tally.faults.iter().for_each(|fault| println!("{}: {fault}", backend.word()));
    println!("{}: {tally}", backend.word());
    Ok(tally.faults.is_empty())
}
