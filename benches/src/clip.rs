//! Clips made on the spot with ffmpeg.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// What a clip looks like.
#[derive(Debug, Clone, Copy)]
pub struct Clip {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// ffmpeg's spelling: `24000/1001`.
    pub rate: &'static str,
    /// Length in seconds.
    pub seconds: u32,
}

/// Makes the clip in `directory` unless it is there already.
///
/// # Errors
/// If ffmpeg is missing or fails.
pub fn make(directory: &Path, clip: Clip) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    let Clip { width, height, rate, seconds } = clip;
    let name = format!("clip-{width}x{height}-{}-{seconds}s.mkv", rate.replace('/', "_"));
    let path = directory.join(name);
    if path.exists() {
        return Ok(path);
    }
    // A moving zoom has motion everywhere, unlike the test patterns, which encoders find trivial;
    // two tones make the channels tell apart.
    let picture = format!("mandelbrot=s={width}x{height}:r={rate}:maxiter=100:end_scale=0.05");
    let sound = "sine=f=440:r=48000[l];sine=f=660:r=48000[r];[l][r]amerge=inputs=2";
    let making = path.with_extension("making.mkv");
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-nostdin", "-f", "lavfi", "-i", &picture])
        .args(["-f", "lavfi", "-i", sound, "-t", &seconds.to_string()])
        .args(["-c:v", "libx264", "-preset", "superfast", "-crf", "23", "-pix_fmt", "yuv420p"])
        .args(["-g", "120", "-c:a", "aac", "-b:a", "160k"])
        .arg(&making)
        .stdin(Stdio::null())
        .status()
        .context("ffmpeg is needed to make a clip: apt install ffmpeg")?;
    ensure!(status.success(), "ffmpeg could not make a clip ({status})");
    std::fs::rename(&making, &path)?;
    Ok(path)
}

/// Makes a clip of `seconds` that repeats `part` without decoding it again.
///
/// # Errors
/// If ffmpeg is missing or fails.
pub fn make_long(directory: &Path, part: Clip, seconds: u32) -> Result<PathBuf> {
    let once = make(directory, part)?;
    let path = once.with_extension(format!("{seconds}s.mkv"));
    if path.exists() {
        return Ok(path);
    }
    let making = path.with_extension("making.mkv");
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-nostdin", "-stream_loop", "-1", "-i"])
        .arg(&once)
        .args(["-t", &seconds.to_string(), "-map", "0", "-c", "copy"])
        .arg(&making)
        .stdin(Stdio::null())
        .status()
        .context("ffmpeg is needed to make a clip: apt install ffmpeg")?;
    ensure!(status.success(), "ffmpeg could not lengthen a clip ({status})");
    std::fs::rename(&making, &path)?;
    Ok(path)
}
