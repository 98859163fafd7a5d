//! What the gateway itself takes: CPU time, memory and the time of a scrape, with many streams whose
//! workers only talk.
//!
//! Nothing is asserted of time: the figures go to a table and to `gateway.json`.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use benches::figures::Spread;
use benches::load::figures::{Row, machine};
use benches::load::usage::cpu_seconds_of;
use benches::play::command;
use benches::processes::{descriptors, memory_kib};
use benches::stack::{Admission, Stack, pause};
use clap::Parser;
use ffmpeg_args::{Plan, Transcode};
use jellyfin_sim::Container;
use rustix::net::{Shutdown, shutdown};
use serde_json::json;
use session::{Channel, GatewayToHook, HookToGateway, PROTOCOL};

/// Prometheus' own default is once a minute, most set 15 s.
const SCRAPE_EVERY: Duration = Duration::from_secs(15);
/// Anything that hasn't happened by then is missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the gateway takes of the processor and of memory while streams run on workers that only talk:
/// they report as often as real ones, on a GPU, at three times normal speed. Writes gateway.json.
#[derive(Parser)]
#[command(
    name = "./dev bench gateway",
    override_usage = "./dev bench gateway [OPTIONS]",
    after_help = "Examples:
  ./dev bench gateway                 50 streams for 30 s
  ./dev bench gateway --streams 200"
)]
struct Cli {
    /// Folder of the release binaries
    #[arg(hide = true)]
    binaries: PathBuf,
    /// Folder for results
    #[arg(hide = true)]
    folder: PathBuf,
    /// Streams at once
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    streams: u32,
    /// How long CPU time is measured
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    /// Scrapes that are timed afterwards
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    scrapes: u32,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let folder = cli.folder.join("gateway");
    fs::create_dir_all(&folder)?;
    let worker = cli.binaries.join("simulated-worker").canonicalize()?;
    // No GPU is looked at: that would be the worker's part.
    let settings = format!("[worker]\nprogram = {worker:?}\n[gpu]\nbackend = 'software'\n");
    let stack = Stack::start_with(&cli.binaries, &folder, &settings, Admission::Off)?;
    let idle = memory_kib(stack.pid(), "VmRSS:").context("the gateway's memory")?;
    eprintln!("{} streams", cli.streams);
    let hooks = begin(&stack, &folder, cli.streams)?;
    eprintln!("measuring for {} s", cli.seconds);
    let share = cpu_share(&stack, Duration::from_secs(cli.seconds))?;
    let rss = memory_kib(stack.pid(), "VmRSS:").context("the gateway's memory")?;
    eprintln!("{} scrapes", cli.scrapes);
    let (scrapes, bytes) = scrape(&stack, cli.scrapes)?;
    let running = stack.streams()?.len();
    ensure!(running == hooks.len(), "{running} of {} streams are left", hooks.len());
    let peak = memory_kib(stack.pid(), "VmHWM:").context("the gateway's memory")?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    let row =
        |name: &str, unit, value| Row { name: name.into(), unit, ours: Some(value), ffmpeg: None };
    let rows = [
        row("CPU time of one core", "%", share * 100.0),
        row("memory without streams (RSS)", "MiB", mib(idle)),
        row("memory (RSS)", "MiB", mib(rss)),
        row("memory, highest (RSS)", "MiB", mib(peak)),
        row("/metrics, median", "ms", scrapes.median),
        row("/metrics, longest", "ms", scrapes.max),
        row("/metrics, size", "KiB", bytes as f64 / 1024.0),
        row("open descriptors", "", descriptors(stack.pid()) as f64),
    ];
    println!("| {} streams | unit | gateway |\n|---|---|---:|", cli.streams);
    for row in &rows {
        println!("| {} | {} | {:.2} |", row.name, row.unit, row.ours.unwrap_or_default());
    }
    let report = json!({
        "machine": machine(),
        "streams": cli.streams,
        "seconds": cli.seconds,
        "scrapes": scrapes,
        "figures": rows,
    });
    fs::write(cli.folder.join("gateway.json"), serde_json::to_string_pretty(&report)?)?;
    for hook in hooks {
        // Closing isn't enough: whoever reads from it has it open too.
        shutdown(&hook, Shutdown::Both)?;
    }
    stack.stop()
}

/// Hooks of so many streams, all of which run.
fn begin(stack: &Stack, folder: &Path, count: u32) -> Result<Vec<OwnedFd>> {
    let input = folder.join("film.mkv");
    fs::write(&input, "media")?;
    let mut hooks = Vec::new();
    for number in 0..count {
        let directory = folder.join("transcodes").join(number.to_string());
        fs::create_dir_all(&directory)?;
        hooks.push(hook(stack, &input, &directory)?);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let streams = stack.streams()?;
        let running = streams.iter().filter(|stream| stream["state"] == "running").count();
        if running == hooks.len() {
            return Ok(hooks);
        }
        ensure!(Instant::now() < deadline, "only {running} of {count} streams run");
        pause(50);
    }
}

/// Hands a job in as a hook does, and reads whatever comes from then on.
fn hook(stack: &Stack, input: &Path, directory: &Path) -> Result<OwnedFd> {
    let socket = OwnedFd::from(UnixStream::connect(stack.socket())?);
    let kept = socket.try_clone()?;
    let mut channel = Channel::new(socket);
    let transcode = Box::new(plan(input, directory)?);
    let job =
        HookToGateway::Job { protocol: PROTOCOL, transcode, reconnects: false, takeover: None };
    let (input, directory) = (File::open(input)?, File::open(directory)?);
    channel.send(&job, &[input.as_fd(), directory.as_fd()])?;
    loop {
        match channel.receive::<GatewayToHook>()?.map(|received| received.message) {
            Some(GatewayToHook::Accepted { .. }) => break,
            Some(GatewayToHook::Writer { .. }) => {}
            other => bail!("the gateway doesn't take a stream: {other:?}"),
        }
    }
    std::thread::spawn(move || while let Ok(Some(_)) = channel.receive::<GatewayToHook>() {});
    Ok(kept)
}

fn plan(input: &Path, directory: &Path) -> Result<Transcode> {
    let arguments = command(input, directory, Container::Ts, 720).at(0, 3600.0);
    let arguments: Vec<_> = arguments.into_iter().map(Into::into).collect();
    match ffmpeg_args::plan(&arguments) {
        Plan::Transcode(transcode) => Ok(*transcode),
        Plan::Passthrough(_) => bail!("the command isn't one for a gateway"),
    }
}

/// CPU time by time, scraped now and then as Prometheus does.
fn cpu_share(stack: &Stack, span: Duration) -> Result<f64> {
    let taken = || cpu_seconds_of(stack.pid()).context("the gateway's CPU time");
    let (before, begun) = (taken()?, Instant::now());
    let mut scrape = begun;
    while begun.elapsed() < span {
        if Instant::now() >= scrape {
            scrape += SCRAPE_EVERY;
            stack.get("/metrics")?;
        }
        pause(100);
    }
    Ok((taken()? - before) / begun.elapsed().as_secs_f64())
}

/// Times of scrapes one after the other, in ms, and the size of the last answer.
fn scrape(stack: &Stack, count: u32) -> Result<(Spread, usize)> {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..count {
        let begun = Instant::now();
        bytes = stack.get("/metrics")?.len();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        pause(20);
    }
    Ok((Spread::of(&times).context("no scrape")?, bytes))
}
