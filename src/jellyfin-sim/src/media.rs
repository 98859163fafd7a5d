//! What Jellyfin knows of a file before it plays it, by ffprobe.

use std::io;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// A file to play.
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    /// Duration in seconds.
    pub runtime: f64,
    /// Container, by ffprobe's name.
    pub format: String,
    /// Index of the first video stream.
    pub video_stream: u32,
    /// Index of the first audio stream.
    pub audio_stream: Option<u32>,
}

/// Why a file can't be played.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// ffprobe can't be run.
    #[error("cannot run {program}: {error}")]
    Run {
        /// Which.
        program: String,
        /// What the system says.
        error: io::Error,
    },
    /// ffprobe doesn't understand the file.
    #[error("ffprobe says of {file}: {message}")]
    Unreadable {
        /// Which.
        file: String,
        /// ffprobe's own words.
        message: String,
    },
    /// No picture, or no duration.
    #[error("expected a video stream and a duration in {0}")]
    NotAVideo(String),
}

#[derive(Deserialize)]
struct Answer {
    format: Format,
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Format {
    format_name: String,
    duration: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    index: u32,
    codec_type: String,
}

impl Media {
    /// Asks `ffprobe` about a file.
    ///
    /// # Errors
    /// [`MediaError`].
    pub fn probe(ffprobe: &Path, file: &Path) -> Result<Self, MediaError> {
        let output = Command::new(ffprobe)
            .args(["-v", "error", "-print_format", "json", "-show_format", "-show_streams"])
            .arg(file)
            .output()
            .map_err(|error| MediaError::Run { program: ffprobe.display().to_string(), error })?;
        let name = || file.display().to_string();
        let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|_| {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            MediaError::Unreadable { file: name(), message }
        })?;
        let first = |kind: &str| {
            answer
                .streams
                .iter()
                .find(|stream| stream.codec_type == kind)
                .map(|stream| stream.index)
        };
        Ok(Self {
            runtime: answer
                .format
                .duration
                .and_then(|duration| duration.parse().ok())
                .ok_or_else(|| MediaError::NotAVideo(name()))?,
            video_stream: first("video").ok_or_else(|| MediaError::NotAVideo(name()))?,
            audio_stream: first("audio"),
            format: answer.format.format_name,
        })
    }
}
