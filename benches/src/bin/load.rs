//! The load benchmark: several viewers at once on the whole stack, and the same on plain ffmpeg.
//!
//! Nothing is asserted of time: the figures go to a table, `load.json` and `load.svg`. The exit code
//! is 1 if something broke, which slowness doesn't: a segment that was missing or empty, a stream that
//! failed.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use benches::load::figures::{Load, table};
use benches::load::run::{Side, alone, run};
use benches::load::{Parameters, chart};
use benches::stack::{Admission, Stack, calibrate, pause};
use benches::{clip, play};
use clap::{Parser, ValueEnum};

/// The gateway refills its warm workers; what is measured alone begins when that is over.
const SETTLE_MS: u64 = 3500;
/// The gateway sees what others take of the processor as a mean of ten seconds: an ffmpeg that was measured
/// alone is none of the load.
const FORGET_MS: u64 = 13_000;

/// Several viewers at once on Rendergate, and the same on plain ffmpeg: how long each waits for the
/// first segment, whether the picture ever stands still, and what it takes.
///
/// Viewers are those of jellyfin-sim: they ask as Jellyfin's clients do, watch at normal speed and keep
/// a few segments ahead. Residents come one after the other and stay, every second one seeks; then
/// newcomers come, one after the other, each beside all residents. Writes load.json and load.svg.
#[derive(Parser)]
#[command(
    name = "./dev bench load",
    override_usage = "./dev bench load [OPTIONS]",
    after_help = "Examples:
  ./dev bench load                            six viewers, as many as two cores can serve
  ./dev bench load --scenario too-many        more than two cores can serve: those that
                                              the gateway takes mustn't stall
  ./dev bench load --scenario too-many --max-streams 2
                                              the gateway takes two, the others get the hook's own ffmpeg
  ./dev bench load --sessions 11 --height 240 for a larger machine

A load fits a machine if \"speed, all streams\" of ffmpeg is well above the number of sessions: then
no stream has to stall. Choose --source and --height so that it is."
)]
struct Cli {
    /// Folder of the release binaries
    #[arg(hide = true)]
    binaries: PathBuf,
    /// Folder for clips and results
    #[arg(hide = true)]
    folder: PathBuf,
    /// What is played, before the options below change it
    #[arg(long, value_enum, default_value = "fitting")]
    scenario: Scenario,
    /// Viewers at once: one newcomer, the others residents [default: 6]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    sessions: Option<u64>,
    /// Newcomers, one after the other [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    newcomers: Option<u64>,
    /// Size of the source in pixels [default: 1280x720; too-many: 1920x1080]
    #[arg(long, value_name = "WxH", value_parser = size)]
    source: Option<(u32, u32)>,
    /// Height of the output in pixels [default: 360; too-many: 720]
    #[arg(long, value_name = "PIXELS")]
    height: Option<u32>,
    /// Media that a player keeps ahead, in seconds [default: 12]
    #[arg(long, value_name = "SECONDS")]
    buffer: Option<f64>,
    /// Let Jellyfin pause a transcode that is so far ahead; at least 60, as in Jellyfin [default: never]
    #[arg(long, value_name = "SECONDS")]
    throttle: Option<f64>,
    /// Streams that the gateway takes at most; 0 for no limit [default: 0]
    #[arg(long, value_name = "N")]
    max_streams: Option<usize>,
    /// Whether the gateway leaves streams for which there is no room to the hook's ffmpeg
    /// [default: off; too-many: on]
    #[arg(long, value_enum, value_name = "WHICH")]
    admission: Option<Switch>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// As much as two cores can serve
    Fitting,
    /// More than they can
    TooMany,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once('x').and_then(|(width, height)| {
        Some((width.parse().ok()?, height.parse().ok()?)).filter(|(w, h)| *w >= 64 && *h >= 64)
    });
    parsed.ok_or_else(|| format!("expected a size such as 1280x720, got {text:?}"))
}

impl Cli {
    fn parameters(&self) -> Parameters {
        let mut parameters = match self.scenario {
            Scenario::Fitting => Parameters::fitting(),
            Scenario::TooMany => Parameters::too_many(),
        };
        let small = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        parameters.sessions = self.sessions.map_or(parameters.sessions, small);
        parameters.newcomers = self.newcomers.map_or(parameters.newcomers, small);
        if let Some((width, height)) = self.source {
            (parameters.width, parameters.height) = (width, height);
        }
        parameters.output_height = self.height.unwrap_or(parameters.output_height);
        parameters.buffer = self.buffer.unwrap_or(parameters.buffer);
        parameters.throttle = self.throttle.or(parameters.throttle);
        parameters.max_streams = self.max_streams.unwrap_or(parameters.max_streams);
        parameters.admission =
            self.admission.map_or(parameters.admission, |switch| switch == Switch::On);
        parameters
    }
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let parameters = cli.parameters();
    fs::create_dir_all(&cli.folder)?;
    eprintln!("making a clip of {} s, once", parameters.length);
    let clip = clip::make_long(&cli.folder, parameters.clip(), parameters.length)?;
    let ffmpeg = play::real_ffmpeg()?;
    let load = measure(&cli, &parameters, &clip, &ffmpeg)?;
    let text = format!("{}\n{}", table(&load.rows()), load.sessions());
    println!("{text}");
    fs::write(cli.folder.join("load.json"), serde_json::to_string(&load.json())?)?;
    fs::write(cli.folder.join("load.md"), text)?;
    chart::draw(&cli.folder.join("load.svg"), &load.parameters, [&load.ours, &load.ffmpeg])?;
    eprintln!("{0}/load.json, load.md, load.svg", cli.folder.display());
    Ok(verdict(&load.ours))
}

fn verdict(ours: &Side) -> ExitCode {
    let broken = ours.broken();
    for fault in &broken {
        eprintln!("broken: {fault}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(cli: &Cli, parameters: &Parameters, clip: &Path, ffmpeg: &Path) -> Result<Load> {
    let transcodes = cli.folder.join("transcodes");
    let settings = format!("[streams]\nmax_streams = {}\n", parameters.max_streams);
    let admission = if parameters.admission { Admission::On } else { Admission::Off };
    if parameters.admission {
        eprintln!("measuring what streams cost here");
        calibrate(&cli.binaries, &cli.folder)?;
    }
    let stack = Stack::start_with(&cli.binaries, &cli.folder, &settings, admission)?;
    let mut idle = (Vec::new(), Vec::new());
    for round in 1..=parameters.idle_runs {
        eprintln!("first segment alone, {round} of {}", parameters.idle_runs);
        pause(SETTLE_MS);
        idle.0.push(alone(parameters, Some(&stack), ffmpeg, clip, &transcodes)?);
        pause(SETTLE_MS);
        idle.1.push(alone(parameters, None, ffmpeg, clip, &transcodes)?);
    }
    pause(FORGET_MS);
    let ours = run(parameters, Some(&stack), ffmpeg, clip, &transcodes)?;
    stack.stop()?;
    let theirs = run(parameters, None, ffmpeg, clip, &transcodes)?;
    fs::remove_dir_all(&transcodes)?;
    ensure!(!ours.sessions.is_empty(), "nobody came");
    Ok(Load { parameters: parameters.clone(), idle, ours, ffmpeg: theirs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_change_the_scenario() {
        let line =
            ["load", "b", "f", "--scenario", "too-many", "--sessions", "3", "--source", "640x360"];
        let parameters = Cli::parse_from(line).parameters();
        assert_eq!(
            (parameters.sessions, parameters.width, parameters.output_height),
            (3, 640, 720)
        );
        assert!(size("640").is_err() && size("1x2").is_err());
    }
}
