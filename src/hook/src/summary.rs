//! A plan in one line, for Jellyfin's log.

use std::fmt::{self, Display, Formatter};

use ffmpeg_args::{
    Audio, AudioAction, Container, PlaylistType, RateControl, Scale, StreamRef, StreamSelect,
    Transcode, Video, VideoAction,
};

/// Shows a plan in one line.
pub struct Summary<'a>(pub &'a Transcode);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Transcode { inputs, video, audio, output, .. } = self.0;
        match video {
            Some(video) => show_video(f, video)?,
            None => f.write_str("no video")?,
        }
        f.write_str("; ")?;
        match audio {
            Some(audio) => show_audio(f, audio)?,
            None => f.write_str("no audio")?,
        }
        let container = match output.container {
            Container::MpegTs => "mpegts",
            Container::Fmp4 { .. } => "fmp4",
        };
        write!(
            f,
            "; {container} segments of {} s from {}",
            output.segment_seconds, output.start_number
        )?;
        if let Some(start) = inputs.first().and_then(|input| input.start_us) {
            write!(f, " at {}.{:03} s", start / 1_000_000, start / 1000 % 1000)?;
        }
        if output.playlist_type == PlaylistType::Event {
            f.write_str(", event playlist")?;
        }
        Ok(())
    }
}

fn show_video(f: &mut Formatter<'_>, video: &Video) -> fmt::Result {
    write!(f, "video {}", Source(video.source))?;
    let VideoAction::Encode(encode) = &video.action else {
        return f.write_str(" copied");
    };
    write!(f, " to {}", encode.encoder)?;
    match encode.scale {
        Some(Scale::Exact { width, height }) => write!(f, " {width}x{height}")?,
        Some(Scale::Fit { max_width, max_height }) => {
            write!(f, " within {max_width}x{max_height}")?;
        }
        None => {}
    }
    show_rate(f, &encode.rate)
}

fn show_rate(f: &mut Formatter<'_>, rate: &RateControl) -> fmt::Result {
    if let Some(crf) = rate.crf {
        write!(f, " crf {crf}")?;
    }
    match (rate.bitrate, rate.max_bitrate) {
        (Some(bitrate), _) => write!(f, " {} kbit/s", bitrate / 1000),
        (None, Some(most)) => write!(f, " at most {} kbit/s", most / 1000),
        (None, None) => Ok(()),
    }
}

fn show_audio(f: &mut Formatter<'_>, audio: &Audio) -> fmt::Result {
    write!(f, "audio {}", Source(audio.source))?;
    let AudioAction::Encode(encode) = &audio.action else {
        return f.write_str(" copied");
    };
    write!(f, " to {:?}", encode.codec)?;
    if let Some(channels) = encode.channels {
        write!(f, " {channels} ch")?;
    }
    encode.bitrate.map_or(Ok(()), |bitrate| write!(f, " {} kbit/s", bitrate / 1000))
}

struct Source(StreamRef);

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.stream {
            StreamSelect::Index(index) => write!(f, "{}:{index}", self.0.input),
            StreamSelect::Best => write!(f, "{}:best", self.0.input),
        }
    }
}
