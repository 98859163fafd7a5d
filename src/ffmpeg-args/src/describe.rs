//! Names and one-liners of a plan, for whoever writes segments, logs and lists streams.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::{
    Audio, AudioAction, AudioCodec, AudioEncode, Container, HdrTransfer, HlsOutput, Plan, Scale,
    Transcode, Turn, Video, VideoAction, VideoCodec, VideoEncode,
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
        let container = match self.output.container {
            Container::MpegTs => "mpegts",
            Container::Fmp4 { .. } => "fmp4",
        };
        let HlsOutput { segment_seconds, start_number, .. } = self.output;
        format!("{} -> {container} {segment_seconds} s from {start_number}", streams.join(", "))
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
        }
    }
}
