//! Play sessions on the stack or on plain ffmpeg, by `jellyfin-sim`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jellyfin_sim::{CommandLine, Container, Kind, Server, Settings, Template};

use crate::stack::Stack;

/// Length of a segment in seconds.
pub const SEGMENT_SECONDS: u32 = 3;

/// Jellyfin's command for a clip of [`clip`](crate::clip), software encoder.
pub fn command(clip: &Path, directory: &Path, container: Container, height: u32) -> CommandLine {
    template(clip, directory, container, height).command()
}

/// The same, to be changed.
pub fn template(clip: &Path, directory: &Path, container: Container, height: u32) -> Template {
    Template {
        kind: Kind::Software,
        container,
        input: clip.to_owned(),
        directory: directory.to_owned(),
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        segment_seconds: SEGMENT_SECONDS,
        encoder: None,
        video_bitrate: 4_000_000,
        height,
        keyframes_fps: None,
        video_stream: 0,
        audio_stream: Some(1),
        audio_encoder: "aac".to_owned(),
        format: None,
    }
}

/// How a session runs: on the stack's hook, or on the program given.
///
/// # Errors
/// If the hook's link can't be made.
pub fn settings(stack: Option<&Stack>, ffmpeg: &Path, runtime: u32) -> Result<Settings> {
    let Some(stack) = stack else {
        return Ok(Settings::new(ffmpeg, f64::from(runtime)));
    };
    let mut settings = Settings::new(stack.hook()?, f64::from(runtime));
    let (name, endpoint) = stack.endpoint();
    settings.environment.push((name.to_owned(), endpoint.into()));
    Ok(settings)
}

/// Seconds from the start of the process until its first segment could be served by Jellyfin's
/// rules; the session is left then.
///
/// # Errors
/// If it never could.
pub fn first_servable(settings: Settings, command: CommandLine, segment: u32) -> Result<f64> {
    let mut server = Server::new(settings, command)?;
    server.request(i64::from(segment));
    let report = server.finish();
    let run = report.runs.first().context("nothing was started")?;
    run.first_servable.with_context(|| format!("no segment came: {:?}", report.faults))
}

/// What the hook would run: the same search as its own.
///
/// # Errors
/// If there is none.
pub fn real_ffmpeg() -> Result<PathBuf> {
    let named = std::env::var_os("RENDERGATE_FFMPEG").map(PathBuf::from);
    let bundled = PathBuf::from("/usr/lib/jellyfin-ffmpeg/ffmpeg");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("ffmpeg"));
    named
        .into_iter()
        .chain([bundled])
        .chain(on_path)
        .find(|program| program.exists())
        .context("no ffmpeg to compare with: apt install ffmpeg")
}
