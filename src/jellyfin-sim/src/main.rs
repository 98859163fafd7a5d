//! `jellyfin-sim`: plays a file through any ffmpeg as Jellyfin would, and tells what happened.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use jellyfin_sim::{
    CommandLine, Container, Kind, Media, Pace, Report, Script, Server, Settings, Template, play,
};

/// Plays a file through an ffmpeg exactly as Jellyfin would: same command lines, same keys on
/// stdin, same rules for when a segment may be served. Tells how long the viewer waited and
/// whatever Jellyfin would have tripped over.
///
/// Exit code 0: no faults. 1: faults, listed. 2: it could not be tried.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  jellyfin-sim play --ffmpeg /usr/bin/ffmpeg --input film.mkv --script \"play 4; seek 30; play 3; leave\"
  jellyfin-sim play --ffmpeg ./ffmpeg --input film.mkv --container fmp4 --script \"play all; stop\" --out /tmp/t
  jellyfin-sim run-line --ffmpeg ./ffmpeg --command-file 001.txt --input film.mkv --out /tmp/t

Steps of a script, separated by semicolons:
  play N       ask for N segments in order        pause, resume  the throttler's p and u
  play Ns      the same for N seconds             finish         wait until ffmpeg has ended
  play all     ask for all until the end
  seek T       go to T seconds                    stop           q, 5 s, SIGKILL; files stay
  wait T       do nothing for T seconds           leave          the same, then delete the files
  term, kill   SIGTERM, SIGKILL instead of q

Columns: servable = from the start of ffmpeg until the first segment asked for could be served;
seek = the same from the viewer's request, with the stop of the run before."
)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Play with a built-in command line
    Play(PlayArguments),
    /// Play with a command line out of Jellyfin's log
    RunLine(LineArguments),
    /// Print the built-in command line, as Jellyfin would log it
    Print(PlayArguments),
}

#[derive(Args)]
struct Common {
    /// The executable to treat as ffmpeg
    #[arg(long, default_value = "ffmpeg")]
    ffmpeg: PathBuf,
    /// The ffprobe that tells duration and streams [default: the one in PATH]
    #[arg(long, default_value = "ffprobe")]
    ffprobe: PathBuf,
    /// What the viewer does
    #[arg(long, default_value = "play all; leave")]
    script: Script,
    /// How fast the viewer asks: "fast", or a factor of normal speed
    #[arg(long, default_value = "fast", value_parser = speed)]
    pace: Speed,
    /// Seconds of media that a viewer holds ahead, at a pace other than fast
    #[arg(long, default_value_t = 30.0)]
    buffer: f64,
    /// Jellyfin's poll, in milliseconds
    #[arg(long, default_value_t = 100)]
    poll_ms: u64,
    /// Give a request up after so many seconds
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// Start with nice +10
    #[arg(long)]
    nice: bool,
    /// Print the whole report as JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct PlayArguments {
    #[command(flatten)]
    common: Common,
    /// The media file
    #[arg(long)]
    input: PathBuf,
    /// Transcode directory [default: one that is made and removed]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Which command line
    #[arg(long, value_enum, default_value = "hls-video-sw")]
    kind: KindName,
    /// What segments are made of
    #[arg(long, value_enum, default_value = "ts")]
    container: ContainerName,
    /// What file names begin with
    #[arg(long, default_value = "0123456789abcdef0123456789abcdef")]
    id: String,
    /// Segment length in seconds
    #[arg(long, default_value_t = 3)]
    segment_length: u32,
    /// Bits per second
    #[arg(long, default_value_t = 4_000_000)]
    video_bitrate: u64,
    /// Height of the box that the picture is fitted in
    #[arg(long, default_value_t = 720)]
    height: u32,
    /// Video encoder instead of the kind's own (libx264, h264_vaapi)
    #[arg(long)]
    encoder: Option<String>,
    /// Keyframes by -g for this frame rate instead of by expression
    #[arg(long)]
    fps_keyframes: Option<f64>,
    /// Audio encoder, or "copy"
    #[arg(long, default_value = "aac")]
    audio_encoder: String,
    /// Leave the sound out
    #[arg(long)]
    no_audio: bool,
}

#[derive(Args)]
struct LineArguments {
    #[command(flatten)]
    common: Common,
    /// File with the command line; lines that begin with # are skipped
    #[arg(long)]
    command_file: PathBuf,
    /// Another media file than the line's
    #[arg(long)]
    input: Option<PathBuf>,
    /// Another transcode directory than the line's
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum KindName {
    HlsVideoSw,
    HlsVideoVaapi,
}

#[derive(Clone, Copy, ValueEnum)]
enum ContainerName {
    Ts,
    Fmp4,
}

/// `None` is as fast as it goes.
#[derive(Clone, Copy)]
struct Speed(Option<f64>);

fn speed(text: &str) -> Result<Speed, String> {
    if text == "fast" {
        return Ok(Speed(None));
    }
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0);
    factor
        .map(|factor| Speed(Some(factor)))
        .ok_or_else(|| "expected \"fast\" or a factor above 0".to_owned())
}

fn main() -> ExitCode {
    match run(Cli::parse().what) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("jellyfin-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(what: What) -> Result<ExitCode> {
    match what {
        What::Print(arguments) => {
            let (template, _) = template(&arguments, Path::new("/cache/transcodes"))?;
            println!("{} {}", arguments.common.ffmpeg.display(), template.line());
            Ok(ExitCode::SUCCESS)
        }
        What::Play(arguments) => {
            let own = std::env::temp_dir().join(format!("jellyfin-sim-{}", std::process::id()));
            let directory = arguments.out.as_deref().unwrap_or(&own);
            let (template, media) = template(&arguments, directory)?;
            let code = session(&arguments.common, template.command(), media.runtime);
            if arguments.out.is_none() {
                // Made by the session; nobody else knows of it.
                _ = std::fs::remove_dir_all(&own);
            }
            code
        }
        What::RunLine(arguments) => {
            let text = std::fs::read_to_string(&arguments.command_file)
                .with_context(|| format!("cannot read {}", arguments.command_file.display()))?;
            let mut command = CommandLine::from_log(&text)?;
            if let Some(input) = &arguments.input {
                command = command.from_input(input);
            }
            if let Some(out) = &arguments.out {
                command = command.into_directory(out);
            }
            let media = Media::probe(&arguments.common.ffprobe, &command.input)?;
            session(&arguments.common, command, media.runtime)
        }
    }
}

fn template(arguments: &PlayArguments, directory: &Path) -> Result<(Template, Media)> {
    let media = Media::probe(&arguments.common.ffprobe, &arguments.input)?;
    let template = Template {
        kind: match arguments.kind {
            KindName::HlsVideoSw => Kind::Software,
            KindName::HlsVideoVaapi => Kind::Vaapi,
        },
        container: match arguments.container {
            ContainerName::Ts => Container::Ts,
            ContainerName::Fmp4 => Container::Fmp4,
        },
        // Jellyfin's paths are absolute.
        input: std::path::absolute(&arguments.input)?,
        directory: std::path::absolute(directory)?,
        id: arguments.id.clone(),
        segment_seconds: arguments.segment_length,
        encoder: arguments.encoder.clone(),
        video_bitrate: arguments.video_bitrate,
        height: arguments.height,
        keyframes_fps: arguments.fps_keyframes,
        video_stream: media.video_stream,
        audio_stream: media.audio_stream.filter(|_| !arguments.no_audio),
        audio_encoder: arguments.audio_encoder.clone(),
        format: Some(media.format.clone()),
    };
    Ok((template, media))
}

fn session(common: &Common, command: CommandLine, runtime: f64) -> Result<ExitCode> {
    let settings = Settings {
        poll: Duration::from_millis(common.poll_ms),
        patience: Duration::from_secs(common.patience),
        nice: common.nice,
        ..Settings::new(&common.ffmpeg, runtime)
    };
    let directory = command.directory.display().to_string();
    let server = Server::new(settings, command)
        .with_context(|| format!("cannot use {directory} as transcode directory"))?;
    let pace = match common.pace.0 {
        None => Pace::Fast,
        Some(factor) => Pace::Watching { factor, buffer_seconds: common.buffer },
    };
    let report: Report = play(server, &common.script, pace);
    if common.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
