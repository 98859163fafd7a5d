//! What to do with a command line: run it as a stream, or hand it to the real ffmpeg.
//!
//! A [`Plan`] is intent, freed from ffmpeg's spelling: `h264_vaapi`, `h264_qsv` and `libx264` all
//! become "encode H.264", and the chain that a vendor needs around a scaler becomes a
//! [`Scale`]. Whoever carries out the plan chooses its own means; what must come out is
//! fixed here.
//!
//! Invariants:
//! - A plan is pure data: made without touching disk or network, equal for equal arguments.
//! - Nothing of the command line is dropped in silence: an option that is not understood makes a
//!   [`Plan::Passthrough`] which names it.

mod picture;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use picture::*;

/// The decision about one command line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "plan", rename_all = "snake_case")]
pub enum Plan {
    /// A stream that the gateway runs.
    Transcode(Box<Transcode>),
    /// A call for the real ffmpeg, untouched.
    Passthrough(Passthrough),
}

/// Why a command goes to the real ffmpeg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passthrough {
    /// The kind of call or the doubt, as a stable label for counters.
    pub kind: PassthroughKind,
    /// For people: what was met, with the option or filter in question.
    pub reason: String,
}

/// Label of a passthrough, stable across releases (used as a metric label).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassthroughKind {
    /// A question about ffmpeg itself (`-version`, `-encoders`, ... contract 1.2-1.3). The hook
    /// prints nothing for these.
    Probe,
    /// A job other than an HLS transcode: images, trickplay, subtitles, attachments, loudness.
    NotATranscode,
    /// An HLS or progressive transcode of a kind that is not run by the gateway.
    UnsupportedKind,
    /// An option, value or filter that is not understood.
    UnknownArgument,
    /// An input that the gateway can't be handed (network, device, disc).
    UnsupportedInput,
    /// A codec, filter or feature that is understood and not offered.
    UnsupportedFeature,
}

/// A stream: inputs, what becomes of picture and sound, and what to write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transcode {
    /// Inputs in the order of the command line. At least one.
    pub inputs: Vec<Input>,
    /// The picture, if the output has one.
    pub video: Option<Video>,
    /// The sound, if the output has one.
    pub audio: Option<Audio>,
    /// `-start_at_zero`: source time counts from the container's first timestamp instead of from
    /// the container's own zero (contract 2.1.1).
    pub start_at_zero: bool,
    /// `-copyts`: output times are the source's. Without it (progressive output alone) they count
    /// from where the input begins: from `-ss`, or from the container's first timestamp.
    pub source_times: bool,
    /// What is written.
    pub output: Output,
}

/// One `-i`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Where its bytes come from.
    pub location: Location,
    /// `-f` in front of the input, as given (`matroska`, `mov,mp4,...`). A hint only.
    pub format: Option<String>,
    /// `-ss` in microseconds; `None` without one.
    pub start_us: Option<u64>,
    /// False with `-noaccurate_seek`: output may begin at the keyframe before `start_us`.
    pub accurate: bool,
    /// `-readrate N` (`-re` is 1): how much faster than it plays the input is read at most.
    pub read_rate: Option<f64>,
}

/// Where an input's bytes come from (contract 0.1, input URL forms).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// A local file (`file:` removed).
    File(PathBuf),
    /// `concat:a|b`: local files read as if they were one.
    Files(Vec<PathBuf>),
    /// Anything with a protocol that has to be spoken. It comes as a stream: once, from the
    /// beginning, and it may last.
    Network(Network),
}

/// An input that the real ffmpeg fetches and passes on unchanged, since it speaks every protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// As given.
    pub url: String,
    /// Options of the protocol with their values, as they stood before `-i` (`-user_agent`, ...).
    pub options: Vec<String>,
    /// What arrives.
    pub delivery: Delivery,
}

/// How a network input is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Byte for byte (http, udp): the worker sees the container itself.
    Bytes,
    /// Unpacked and put into MPEG-TS, since the protocol has no bytes of one container (HLS, RTSP).
    Remuxed,
}

/// A stream of an input, in ffmpeg's numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRef {
    /// Index into [`Transcode::inputs`].
    pub input: usize,
    /// Which stream of that input.
    pub stream: StreamSelect,
}

/// How a stream is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamSelect {
    /// Index within the file, all kinds counted together (`0:2`).
    Index(u32),
    /// No `-map`: the first (best) of its kind.
    Best,
}

/// The sound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audio {
    /// Where it comes from.
    pub source: StreamRef,
    /// What becomes of it.
    pub action: AudioAction,
}

/// Copy or encode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioAction {
    /// Packets pass unchanged (apart from ADTS / raw AAC framing).
    Copy,
    /// Decode, mix, encode.
    Encode(AudioEncode),
}

/// Everything asked of the sound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AudioEncode {
    /// Output codec.
    pub codec: AudioCodec,
    /// `-ac`.
    pub channels: Option<u32>,
    /// `-ab` in bit/s.
    pub bitrate: Option<u64>,
    /// Variable bit rate quality as given (`-vbr:a 5`, `-qscale:a 2`), in the encoder's own scale.
    pub quality: Option<f64>,
    /// `-ar` in Hz.
    pub sample_rate: Option<u32>,
    /// `volume=` as a linear factor, behind the mix.
    pub volume: Option<f64>,
    /// `pan=`: how the source's channels are mixed, in place of a mix by `channels` alone.
    #[serde(default)]
    pub mix: Option<Mix>,
}

/// A mix of channels (`pan=stereo|c0=0.5*c2+0.7*c0|...`). Channels of the source that a gain names and
/// that aren't there are silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Channel layout of the output by ffmpeg's name (`stereo`, `mono`).
    pub layout: String,
    /// One entry for each output channel, in the layout's order.
    pub outputs: Vec<MixedChannel>,
}

/// What one output channel is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixedChannel {
    /// Source channel and linear factor.
    pub gains: Vec<(SourceChannel, f64)>,
    /// `<` in place of `=`: the gains are divided by their sum.
    pub normalised: bool,
}

/// A channel of a source's layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceChannel {
    /// By place (`c0`).
    Number(u32),
    /// By ffmpeg's name (`FL`, `LFE`).
    Name(String),
}

/// Codec of encoded sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    /// AAC-LC.
    Aac,
    /// AC-3.
    Ac3,
    /// E-AC-3.
    Eac3,
    /// MPEG-1 layer III.
    Mp3,
    /// Opus.
    Opus,
    /// FLAC.
    Flac,
    /// Vorbis.
    Vorbis,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Segments and a playlist.
    Hls(HlsOutput),
    /// One file, read while it grows.
    Progressive(ProgressiveOutput),
}

/// One file, written in place from its first to its last byte (contract 2.6, 2.7, 4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressiveOutput {
    /// Directory of the file, as given.
    pub directory: PathBuf,
    /// Its name.
    pub name: String,
    /// Its container.
    pub format: FileFormat,
}

/// Container of a progressive output: by `-f`, else by the name's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// `-f mp4 -movflags frag_keyframe+empty_moov+delay_moov`; with sound alone
    /// `empty_moov+delay_moov` (`m4a`, `mp4`).
    FragmentedMp4,
    /// `.ts`.
    MpegTs,
    /// `.mkv`.
    Matroska,
    /// `.webm`.
    WebM,
    /// `.mp3`, between an ID3v2.3 head and an ID3v1 tail.
    Mp3,
    /// `.aac`: ADTS.
    Adts,
    /// `.flac`.
    Flac,
    /// `.ogg`, `.oga`, `.opus`.
    Ogg,
}

/// Where and how segments are written (contract 2.1, 4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HlsOutput {
    /// Directory of playlist and segments, as given.
    pub directory: PathBuf,
    /// Container of the segments.
    pub container: Container,
    /// `-hls_time` in seconds.
    pub segment_seconds: f64,
    /// `-start_number`.
    pub start_number: u64,
    /// What stands before the number in a segment's name (`{ID}`).
    pub segment_prefix: String,
    /// What stands behind it (`.ts`).
    pub segment_suffix: String,
    /// File name of the playlist (`{ID}.m3u8`).
    pub playlist: String,
    /// When the playlist is written.
    pub playlist_type: PlaylistType,
    /// `-hls_base_url`, put before each name in the playlist.
    pub base_url: String,
    /// `-max_delay` in microseconds; MPEG-TS timestamps start at twice this (contract 4).
    pub max_delay_us: u64,
}

/// Container of the segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// MPEG-TS.
    MpegTs,
    /// Fragmented MP4 with one init file.
    Fmp4 {
        /// `-hls_fmp4_init_filename`, a bare name in the output directory.
        init: String,
        /// `+frag_discont`: `tfdt` carries source time. Without it ffmpeg writes edit lists
        /// relative to each run's init file.
        absolute: bool,
        /// `+skip_sidx`.
        skip_sidx: bool,
    },
}

/// `-hls_playlist_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaylistType {
    /// Written once, at the end.
    Vod,
    /// Rewritten with each segment.
    Event,
}
