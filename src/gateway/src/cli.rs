//! The command line.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::admission::file::StateFile;
use crate::config::{Config, LogFormat};
use crate::explain::{self, ExplainArgs};
use crate::probe::{self, Limits, Prober};
use crate::{calibrate, gateway, launch, stdout, table};

/// Rendergate's gateway: transcodes for Jellyfin, one process per stream.
///
/// Jellyfin calls `rendergate-ffmpeg` in place of ffmpeg; that hands each stream it understands to
/// the gateway, and runs the real ffmpeg for everything else, also whenever no gateway answers.
#[derive(Debug, Parser)]
#[command(
    name = "rendergate",
    version,
    arg_required_else_help = true,
    after_help = "\
Start here:
  rendergate serve                    run a gateway; no configuration is needed
  rendergate streams                  see what it does
  rendergate probe                    see what this machine's GPUs can do
  rendergate calibrate                measure how much of it, so that it knows for how many streams
  rendergate explain --log-line FILE  see what becomes of a command in Jellyfin's log, and why
  curl http://127.0.0.1:9370/readyz   ask whether it would take a stream
"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM
    Serve(ServeArgs),
    /// List the streams of a running gateway
    Streams(StreamsArgs),
    /// Look at this machine's GPUs: what they report, and what works
    Probe(ProbeArgs),
    /// Measure what this machine's GPUs and processor can do, and for how many streams that is
    Calibrate(CalibrateArgs),
    /// Say what becomes of a command of Jellyfin's, and why
    Explain(ExplainArgs),
    /// Prepare a process and become a worker (used by the gateway itself)
    #[command(hide = true)]
    LaunchWorker(LaunchArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Settings come from the configuration file, then from variables, then from these options:
  RENDERGATE_SOCKET, RENDERGATE_GROUP, RENDERGATE_MAX_STREAMS, RENDERGATE_WORKER,
  RENDERGATE_WARM_WORKERS, RENDERGATE_BACKEND, RENDERGATE_ADMISSION, RENDERGATE_SHARE,
  RENDERGATE_CACHE_MB, RENDERGATE_HTTP, RENDERGATE_LOG, RENDERGATE_LOG_FORMAT,
  RENDERGATE_DRAIN_SECONDS, RENDERGATE_SANDBOX, RENDERGATE_SANDBOX_READ, RENDERGATE_SANDBOX_WRITE
`rendergate serve --check-config` shows every setting with its value.

Workers, which parse media, put themselves into a sandbox: no network, no other program, no file but
what they were handed, libraries and the GPU. worker.sandbox is best-effort (what the kernel offers,
and a warning for what it doesn't), required (streams are left to the real ffmpeg without it) or off;
worker.sandbox_read and worker.sandbox_write let them have further folders.

Ending: after SIGTERM or SIGINT new jobs are left to the real ffmpeg. Running streams go on for
shutdown.drain_seconds (30), are then asked for their last segment, and after another
streams.quit_seconds (10) are broken off. A second signal breaks them off at once.
")]
struct ServeArgs {
    /// Configuration file [default: /etc/rendergate/rendergate.toml if it exists]
    #[arg(long, value_name = "PATH", env = "RENDERGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Print the effective configuration and exit; fails if there is a mistake in it
    #[arg(long)]
    check_config: bool,
    /// Session socket (session.socket)
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Address and port for health, metrics and the list of streams, or `off` (http.listen)
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Log for people or for programs (log.format)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What to log: `info`, `debug`, `warn,gateway::stream=debug` (log.filter)
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Args)]
struct StreamsArgs {
    /// Where the gateway serves HTTP
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "RENDERGATE_HTTP",
        default_value = crate::config::DEFAULT_HTTP
    )]
    http: SocketAddr,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Columns:
  REPORTED   what the VA-API driver says it can do: greatest picture, an encoder's rate control
  ELEMENT    the GStreamer element that does it on this node; none: GStreamer has none for it
  USABLE     yes if eight frames went through and came out as the right picture; no with the reason

What a driver reports is no promise, so every operation of the table is tried, each in a process of
its own with a time-out: a driver that crashes or hangs takes only that process with it. The filters
below the table are reported, not tried. It takes a few seconds (minutes if the GPU hangs), needs no
running gateway, and uses the GPU beside running streams.

What is missing comes below each GPU with what to do about it: packages, groups, firmware, kernel.

Exit status: 0 if something is usable, 1 if nothing is (or the probe itself fails), 2 for a mistake
on the command line.

Variables that drivers and GStreamer read count here too, as in:
  LIBVA_DRIVERS_PATH=/usr/lib/jellyfin-ffmpeg/lib/dri rendergate probe
")]
struct ProbeArgs {
    /// Print everything as one JSON object, for programs
    #[arg(long)]
    json: bool,
    /// Configuration file, for the worker's program and GStreamer's registry
    /// [default: /etc/rendergate/rendergate.toml if it exists]
    #[arg(long, value_name = "PATH", env = "RENDERGATE_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each operation runs by itself for a moment, on pictures of 1080p: first all in software, then on each
GPU what `rendergate probe` finds usable. It takes less than a minute. Run it while nothing else does:
streams beside it take a GPU's time where its driver doesn't say whose time it is.

Columns:
  OPERATION  what is done, with the codec, and with an encoder's speed where it isn't its default
             (x264's and x265's preset; a GPU's target-usage, of which 7 is the fastest)
  MPX/S      megapixels per second that the device does of this if it does nothing else, up to
             admission.target_utilisation (0.8) of its time. It hardly depends on the size of the
             picture
  1080P      streams of 1080p at 24 frames per second that this would be

The figures are where the gateway begins to learn: from then on it measures its streams. They are
written to costs.json in state.directory, where it reads them as it starts. A gateway that runs takes
them over when it next writes that file, at the latest as it ends.

Exit status: 0 if there are figures, 1 if there are none or they can't be kept, 2 for a mistake on the
command line.
")]
struct CalibrateArgs {
    /// Print the figures as JSON, for programs: the form of `/v1/capacity`
    #[arg(long)]
    json: bool,
    /// Configuration file, for the worker's program and the directory of the state
    /// [default: /etc/rendergate/rendergate.toml if it exists]
    #[arg(long, value_name = "PATH", env = "RENDERGATE_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct LaunchArgs {
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    nice: i32,
    program: PathBuf,
}

impl Cli {
    /// Does what the command line asks for.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve(args).map(|()| ExitCode::SUCCESS),
            Command::Probe(args) => probe(&args),
            Command::Calibrate(args) => calibrate(&args),
            Command::Explain(args) => explain::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Streams(args) => {
                let streams = table::fetch(args.http).with_context(|| {
                    format!(
                        "no gateway answers on {} (--http ADDRESS if it serves elsewhere)",
                        args.http
                    )
                })?;
                stdout::print(&table::render(&streams))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::LaunchWorker(args) => {
                Err(launch::become_worker(args.parent, args.nice, &args.program))
            }
        }
    }
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let (mut config, file) = Config::load(args.config.as_deref(), variable)?;
    if let Some(socket) = args.socket {
        config.session.socket = Some(socket);
    }
    if let Some(http) = args.http {
        config.http.listen = http;
    }
    if let Some(format) = args.log_format {
        config.log.format = format;
    }
    if let Some(filter) = args.log {
        config.log.filter = filter;
    }
    config.validate()?;
    if args.check_config {
        let from = match &file {
            Some(file) => format!("# from {}\n", file.display()),
            None => "# defaults: no configuration file\n".into(),
        };
        stdout::print(&(from + &config.to_toml()))?;
        return Ok(());
    }
    gateway::serve(config, file.as_deref())
}

/// Probe processes that see this process's environment.
fn prober(config: &Config) -> anyhow::Result<Prober> {
    let variable = |name: &str| std::env::var(name).ok();
    Ok(Prober {
        program: launch::worker_program(config.worker.program.as_deref())?,
        registry: launch::registry_path(config.worker.registry.as_deref(), None, variable),
        environment: None,
        limits: Limits::default(),
        progress: std::io::stderr().is_terminal(),
    })
}

fn calibrate(args: &CalibrateArgs) -> anyhow::Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).ok();
    let (config, _) = Config::load(args.config.as_deref(), variable)?;
    config.validate()?;
    let file = StateFile::find(&config, variable);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let calibration = runtime.block_on(calibrate::measure(&prober(&config)?, &config))?;
    let capacity = calibration.capacity(&config);
    let text = if args.json {
        serde_json::to_string_pretty(&capacity)? + "\n"
    } else {
        calibrate::render(&capacity)
    };
    stdout::print(&text)?;
    let file = file.context("no directory for state can be written (state.directory)")?;
    let kept = calibration.keep(&file);
    kept.with_context(|| format!("can't write {}", file.path().display()))?;
    eprintln!("written to {}", file.path().display());
    let any = capacity.devices.iter().any(|device| !device.tasks.is_empty());
    Ok(if any { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn probe(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).ok();
    let (config, _) = Config::load(args.config.as_deref(), variable)?;
    let prober = prober(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let machine = runtime.block_on(prober.machine())?;
    let text = if args.json {
        serde_json::to_string_pretty(&machine)? + "\n"
    } else {
        probe::render(&machine)
    };
    stdout::print(&text)?;
    Ok(if machine.usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
