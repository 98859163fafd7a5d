//! The benchmark of the main job: Rendergate against the real ffmpeg, in turns, in one run.
//!
//! Every figure is taken from pairs of runs that follow each other, so that a machine that slows
//! down slows both; the ratio is formed within the pair. Nothing is asserted: the figures go to
//! a table and to `main-job.json`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};
use benches::clip::{self, Clip};
use benches::figures::{Figure, table};
use benches::job::{self, Cost};
use benches::play::{command, first_servable, real_ffmpeg, settings};
use benches::stack::{Stack, pause};
use jellyfin_sim::{CommandLine, Container};
use serde_json::json;

const CLIP: Clip = Clip { width: 1920, height: 1080, rate: "24000/1001", seconds: 40 };
/// Where the seek goes: not a keyframe of the clip, so that both have to decode up to it.
const SEEK_SEGMENT: u32 = 8;
const PROBES: usize = 30;
const STARTS: usize = 7;
const WHOLE: usize = 5;
/// Rendergate's gateway refills its warm workers; a pair begins when that is over.
const SETTLE_MS: u64 = 3500;

struct Bench {
    stack: Stack,
    clip: PathBuf,
    directory: PathBuf,
    ffmpeg: PathBuf,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [binaries, folder, rest @ ..] = arguments.as_slice() else {
        bail!("usage: main-job BINARIES FOLDER [RUNS]");
    };
    let runs: Option<usize> = rest.first().map(|runs| runs.parse()).transpose()?;
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder)?;
    eprintln!("making a clip of {} s, once", CLIP.seconds);
    let bench = Bench {
        clip: clip::make(&folder, CLIP)?,
        stack: Stack::start(Path::new(binaries), &folder)?,
        directory: folder.join("transcodes"),
        ffmpeg: real_ffmpeg()?,
    };
    let mut figures = Vec::new();
    eprintln!("{PROBES} x -version");
    figures.extend(bench.passthrough(PROBES)?);
    for (name, segment) in [("start", 0), ("seek", SEEK_SEGMENT)] {
        eprintln!("first segment after a {name}");
        figures.extend(bench.first_segment(name, segment, runs.unwrap_or(STARTS))?);
    }
    eprintln!("whole file");
    figures.extend(bench.whole_file(runs.unwrap_or(WHOLE))?);
    let text = table(&figures);
    println!("{text}");
    let version = Command::new(&bench.ffmpeg).arg("-version").output()?;
    let first_line = String::from_utf8_lossy(&version.stdout);
    let report = json!({
        "ffmpeg": first_line.lines().next(),
        "cores": std::thread::available_parallelism()?.get(),
        "source": "1920x1080 23.976 fps H.264 + AAC",
        "target": "1280x720 libx264 veryfast crf 23 + AAC, MPEG-TS, 3 s",
        "figures": figures,
    });
    fs::write(folder.join("main-job.json"), serde_json::to_string_pretty(&report)?)?;
    fs::write(folder.join("main-job.md"), text)?;
    bench.stack.stop()
}

impl Bench {
    fn command(&self) -> CommandLine {
        command(&self.clip, &self.directory, Container::Ts, 720)
    }

    fn fresh(&self) -> Result<()> {
        let _ = fs::remove_dir_all(&self.directory);
        Ok(fs::create_dir_all(&self.directory)?)
    }

    fn passthrough(&self, runs: usize) -> Result<Option<Figure>> {
        let hook = self.stack.hook()?;
        let version = |program: &Path| -> Result<f64> {
            let started = Instant::now();
            let status = Command::new(program).arg("-version").stdout(Stdio::null()).status()?;
            anyhow::ensure!(status.success(), "{} -version failed", program.display());
            Ok(started.elapsed().as_secs_f64() * 1e3)
        };
        let mut pairs = Vec::new();
        for run in 0..=runs {
            let pair = in_turn(run, || version(&hook), || version(&self.ffmpeg))?;
            // The first pair loads the files.
            if run > 0 {
                pairs.push(pair);
            }
        }
        let cost: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours - theirs).collect();
        println!("passthrough adds {:.2} ms (median)", median(&cost));
        Ok(Figure::paired("ffmpeg -version", "ms", &pairs))
    }

    fn first_segment(&self, name: &str, segment: u32, runs: usize) -> Result<Option<Figure>> {
        let mut pairs = Vec::new();
        for run in 0..runs {
            let measure = |stack: Option<&Stack>| {
                self.fresh()?;
                pause(SETTLE_MS);
                let settings = settings(stack, &self.ffmpeg, CLIP.seconds)?;
                first_servable(settings, self.command(), segment)
            };
            pairs.push(in_turn(run, || measure(Some(&self.stack)), || measure(None))?);
        }
        Ok(Figure::paired(&format!("first servable segment, {name}"), "s", &pairs))
    }

    fn whole_file(&self, runs: usize) -> Result<Vec<Figure>> {
        let hook = self.stack.hook()?;
        let call = self.command().at(0, f64::from(CLIP.seconds));
        let mut costs: Vec<(Cost, Cost)> = Vec::new();
        for run in 0..runs {
            let ours = || {
                self.fresh()?;
                pause(SETTLE_MS);
                job::run(&hook, &call, Some(&self.stack))
            };
            let theirs = || {
                self.fresh()?;
                pause(SETTLE_MS);
                job::run(&self.ffmpeg, &call, None)
            };
            costs.push(in_turn(run, ours, theirs)?);
        }
        let pairs = |value: fn(&Cost) -> f64| -> Vec<(f64, f64)> {
            costs.iter().map(|(ours, theirs)| (value(ours), value(theirs))).collect()
        };
        let speed = |cost: &Cost| f64::from(CLIP.seconds) / cost.wall.as_secs_f64();
        let mib = |kib: u64| kib as f64 / 1024.0;
        let accepted: Vec<f64> =
            costs.iter().filter_map(|(ours, _)| Some(ours.accepted?.as_secs_f64() * 1e3)).collect();
        let hooks: Vec<f64> = costs.iter().map(|(ours, _)| mib(ours.own_peak_kib)).collect();
        Ok([
            Figure::paired("whole file, speed", "x", &pairs(speed)),
            Figure::paired(
                "peak memory, all processes of the stream",
                "MiB",
                &pairs(|cost| cost.peak_kib as f64 / 1024.0),
            ),
            Figure::single("hook start to stream accepted", "ms", &accepted),
            Figure::single("hook, peak memory", "MiB", &hooks),
        ]
        .into_iter()
        .flatten()
        .collect())
    }
}

/// Both sides one after the other; who begins alternates.
fn in_turn<T>(
    run: usize,
    ours: impl Fn() -> Result<T>,
    theirs: impl Fn() -> Result<T>,
) -> Result<(T, T)> {
    if run.is_multiple_of(2) {
        let first = ours()?;
        Ok((first, theirs()?))
    } else {
        let first = theirs()?;
        Ok((ours()?, first))
    }
}

fn median(values: &[f64]) -> f64 {
    benches::figures::Spread::of(values).map_or(f64::NAN, |spread| spread.median)
}
