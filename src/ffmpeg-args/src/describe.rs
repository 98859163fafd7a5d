//! Names and one-liners of a plan, for whoever writes segments, logs and lists streams.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::{
    Audio, AudioAction, AudioCodec, AudioEncode, Container, FileFormat, HdrTransfer, HlsOutput,
    Input, Location, Network, Output, Plan, Scale, Subtitles, TextSubtitles, Transcode, Turn,
    Video, VideoAction, VideoCodec, VideoEncode,
};

impl HlsOutput {
    /// File name of segment `number` (contract 4: unpadded).
    pub fn segment_name(&self, number: u64) -> String {
        format!("{}{number}{}", self.segment_prefix, self.segment_suffix)
    }

    /// The number in a segment's file name, if it is one that [`Self::segment_name`] gives.
    pub fn segment_number(&self, name: &str) -> Option<u64> {
        let number =
            name.strip_prefix(&*self.segment_prefix)?.strip_suffix(&*self.segment_suffix)?;
        let number = number.parse().ok()?;
        (self.segment_name(number) == name).then_some(number)
    }

    /// File name of the init segment, if the container has one.
    pub fn init_name(&self) -> Option<&str> {
        match &self.container {
            Container::MpegTs => None,
            Container::Fmp4 { init, .. } => Some(init),
        }
    }

    /// Path of the playlist.
    pub fn playlist_path(&self) -> PathBuf {
        self.directory.join(&self.playlist)
    }
}

impl Output {
    /// The directory that is written to, as given.
    pub fn directory(&self) -> &Path {
        match self {
            Self::Hls(output) => &output.directory,
            Self::Progressive(output) => &output.directory,
        }
    }

    /// The file that Jellyfin was told of: the playlist, or the one file.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Hls(output) => output.playlist_path(),
            Self::Progressive(output) => output.directory.join(&output.name),
        }
    }

    /// The segments, if there are any.
    pub fn hls(&self) -> Option<&HlsOutput> {
        match self {
            Self::Hls(output) => Some(output),
            Self::Progressive(_) => None,
        }
    }

    /// Whether pictures end up in MP4.
    pub fn is_mp4(&self) -> bool {
        match self {
            Self::Hls(output) => matches!(output.container, Container::Fmp4 { .. }),
            Self::Progressive(output) => output.format == FileFormat::FragmentedMp4,
        }
    }

    fn summary(&self) -> String {
        match self {
            Self::Hls(output) => {
                let container = match output.container {
                    Container::MpegTs => "mpegts",
                    Container::Fmp4 { .. } => "fmp4",
                };
                let HlsOutput { segment_seconds, start_number, .. } = output;
                format!("{container} {segment_seconds} s from {start_number}")
            }
            Self::Progressive(output) => format!("{} file", output.format.name()),
        }
    }
}

impl FileFormat {
    /// The container's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::FragmentedMp4 => "fMP4",
            Self::MpegTs => "MPEG-TS",
            Self::Matroska => "Matroska",
            Self::WebM => "WebM",
            Self::Mp3 => "MP3",
            Self::Adts => "AAC",
            Self::Flac => "FLAC",
            Self::Ogg => "Ogg",
        }
    }
}

impl Location {
    /// The files that it consists of; none if it isn't made of files.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Self::File(path) => std::slice::from_ref(path),
            Self::Files(paths) => paths,
            Self::Network(_) => &[],
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Files(paths) => {
                let more = paths.len().saturating_sub(1);
                let first = paths.first().map(|path| path.display().to_string());
                write!(f, "{} and {more} more", first.unwrap_or_default())
            }
            Self::Network(network) => f.write_str(&network.url),
        }
    }
}

/// Something that has to be opened before a plan can be run. [`Transcode::needs`] gives them in the
/// order in which their descriptors travel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Need<'a> {
    /// A file of an input, for reading. Those of one input stand together.
    Input {
        /// Index of the input.
        input: usize,
        /// The file.
        path: &'a Path,
    },
    /// A network input: the reading end of a pipe.
    Network {
        /// Index of the input.
        input: usize,
        /// What to fetch.
        network: &'a Network,
    },
    /// The file of text subtitles, for reading.
    Subtitles(&'a Path),
    /// The directory of fonts. Whoever opens takes one that isn't there out of the plan first.
    Fonts(&'a Path),
    /// The directory that is written to; always the last.
    Output(&'a Path),
}

impl Transcode {
    /// What has to be opened, in order.
    pub fn needs(&self) -> Vec<Need<'_>> {
        let mut needs = Vec::new();
        for (input, Input { location, .. }) in self.inputs.iter().enumerate() {
            needs.extend(location.paths().iter().map(|path| Need::Input { input, path }));
            if let Location::Network(network) = location {
                needs.push(Need::Network { input, network });
            }
        }
        if let Some(text) = self.text_subtitles() {
            needs.push(Need::Subtitles(&text.path));
            needs.extend(text.fonts.as_deref().map(Need::Fonts));
        }
        needs.push(Need::Output(self.output.directory()));
        needs
    }

    /// The encoded picture.
    pub fn encoded_video(&self) -> Option<&VideoEncode> {
        match &self.video.as_ref()?.action {
            VideoAction::Encode(encode) => Some(encode),
            VideoAction::Copy => None,
        }
    }

    /// Text that is burnt in.
    pub fn text_subtitles(&self) -> Option<&TextSubtitles> {
        match self.encoded_video()?.subtitles.as_ref()? {
            Subtitles::Text(text) => Some(text),
            Subtitles::Pictures(_) => None,
        }
    }
}

impl Plan {
    /// The decision in one line.
    pub fn summary(&self) -> String {
        match self {
            Self::Transcode(transcode) => transcode.summary(),
            Self::Passthrough(passthrough) => passthrough.to_string(),
        }
    }
}

impl Transcode {
    /// What becomes of the stream, in one line:
    /// `H.264 1280x720 veryfast crf 23, AAC 2ch -> mpegts 3 s from 0`.
    pub fn summary(&self) -> String {
        let video = self.video.iter().map(Video::summary);
        let streams: Vec<String> = video.chain(self.audio.iter().map(Audio::summary)).collect();
        format!("{} -> {}", streams.join(", "), self.output.summary())
    }
}

impl Video {
    fn summary(&self) -> String {
        match &self.action {
            VideoAction::Copy => "video copy".to_owned(),
            VideoAction::Encode(encode) => encode.summary(),
        }
    }
}

impl VideoEncode {
    /// Codec, size, preset and rate in one line.
    pub fn summary(&self) -> String {
        let mut line = self.codec.name().to_owned();
        match self.scale {
            None => {}
            Some(Scale::Exact { width, height }) => _ = write!(line, " {width}x{height}"),
            Some(Scale::Fit { max_width, max_height }) => {
                _ = write!(line, " within {max_width}x{max_height}");
            }
        }
        if let Some((n, d)) = self.frame_rate {
            let rate = (f64::from(n) / f64::from(d) * 1000.0).round() / 1000.0;
            _ = write!(line, " {rate} fps");
        }
        if self.deinterlace.is_some() {
            line.push_str(" deinterlaced");
        }
        if let Some(map) = &self.tone_map {
            _ = write!(line, " from {}", map.from.name());
        }
        if self.subtitles.is_some() {
            line.push_str(" with subtitles");
        }
        line.push_str(match self.turn {
            Turn::AsMarked | Turn::Never => "",
            Turn::Clockwise => " turned clockwise",
            Turn::CounterClockwise => " turned counterclockwise",
            Turn::Half => " turned by half",
        });
        if let Some(preset) = &self.preset {
            // Quick Sync counts its presets.
            let counted = preset.starts_with(|c: char| c.is_ascii_digit());
            _ = write!(line, "{} {preset}", if counted { " preset" } else { "" });
        }
        if let Some(crf) = self.rate.crf {
            _ = write!(line, " crf {crf}");
        }
        if let Some(bitrate) = self.rate.bitrate {
            _ = write!(line, " {} kbit/s", bitrate / 1000);
        }
        line
    }
}

impl Audio {
    fn summary(&self) -> String {
        match &self.action {
            AudioAction::Copy => "audio copy".to_owned(),
            AudioAction::Encode(encode) => encode.summary(),
        }
    }
}

impl AudioEncode {
    /// Codec, channels and rate in one line.
    pub fn summary(&self) -> String {
        let mut line = self.codec.name().to_owned();
        if let Some(channels) = self.channels {
            _ = write!(line, " {channels}ch");
        }
        if let Some(bitrate) = self.bitrate {
            _ = write!(line, " {} kbit/s", bitrate / 1000);
        }
        if let Some(quality) = self.quality {
            _ = write!(line, " quality {quality}");
        }
        line
    }
}

impl VideoCodec {
    /// The codec's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::Hevc => "HEVC",
        }
    }
}

impl HdrTransfer {
    /// The transfer's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pq => "HDR10",
            Self::Hlg => "HLG",
        }
    }
}

impl AudioCodec {
    /// The codec's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aac => "AAC",
            Self::Ac3 => "AC-3",
            Self::Eac3 => "E-AC-3",
            Self::Mp3 => "MP3",
            Self::Opus => "Opus",
            Self::Flac => "FLAC",
            Self::Vorbis => "Vorbis",
        }
    }
}
