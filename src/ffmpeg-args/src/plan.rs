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

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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

/// The picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Video {
    /// Where it comes from.
    pub source: StreamRef,
    /// What becomes of it.
    pub action: VideoAction,
    /// `-tag:v` (`hvc1`), for MP4 sample entries.
    pub tag: Option<String>,
}

/// Copy or encode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one per stream, never in a collection")]
pub enum VideoAction {
    /// Packets pass unchanged (apart from Annex B / length-prefix framing).
    Copy,
    /// Decode, filter, encode.
    Encode(VideoEncode),
}

/// Everything asked of the picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoEncode {
    /// Output codec.
    pub codec: VideoCodec,
    /// The encoder as the command names it (`h264_vaapi`, `libx264`), for logs and defaults.
    pub encoder: String,
    /// Rate control.
    pub rate: RateControl,
    /// `-preset` as given.
    pub preset: Option<String>,
    /// `-profile:v` as given (`high`, `main`, `constrained_baseline`).
    pub profile: Option<String>,
    /// `-level` times ten: 41 for level 4.1, whatever the spelling was (`41`, `4.1`, HEVC 123).
    pub level: Option<u32>,
    /// `-x264opts` / `-x264-params` / `-x265-params`, split at `:` into key and value; a lone key
    /// has an empty value. In order.
    pub encoder_params: Vec<(String, String)>,
    /// Where keyframes must stand.
    pub keyframes: Keyframes,
    /// Deinterlacing.
    pub deinterlace: Option<Deinterlace>,
    /// Target size; `None` keeps the source's.
    pub scale: Option<Scale>,
    /// Upper bound on or fixed output frame rate (`fps=`, `-r`), as a fraction.
    pub frame_rate: Option<(u32, u32)>,
    /// Colour tags that the output carries: those asserted at the head of the chain
    /// (`setparams`), or with a tone mapping those that it maps to.
    pub colour: Option<ColourTags>,
    /// How the picture is turned, before anything looks at its sides.
    #[serde(default)]
    pub turn: Turn,
    /// From HDR to SDR.
    #[serde(default)]
    pub tone_map: Option<ToneMap>,
    /// Subtitles burnt into the picture when it has its final size and colours.
    #[serde(default)]
    pub subtitles: Option<Subtitles>,
}

/// Subtitles that become part of the picture (contract 2.5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subtitles {
    /// Drawn from a file of text: ASS, SSA, SubRip, WebVTT.
    Text(TextSubtitles),
    /// Pictures from a stream of an input: PGS, VobSub, DVB.
    Pictures(PictureSubtitles),
}

/// The `subtitles` filter, laid upon the picture itself or, on a GPU, upon a plane of its own
/// (`alphasrc`). Whoever runs the plan draws at the picture's size for every picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextSubtitles {
    /// The file (`f=`, `filename=`, or without a name). A media file if `stream` is given.
    pub path: PathBuf,
    /// `si=`: which of the file's subtitle streams, counted among these alone.
    pub stream: Option<u32>,
    /// `charenc=`: the text's encoding, as iconv(3) names it; UTF-8 without.
    pub charset: Option<String>,
    /// `fontsdir=`: fonts for this file alone. The directory may not exist.
    pub fonts: Option<PathBuf>,
    /// `setpts=PTS -N/TB` behind it: the picture's times are so much less than the text's, s.
    pub shift_seconds: f64,
}

/// Pictures of subtitles, brought to a plane of `width` by `height` and laid over the picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureSubtitles {
    /// The subtitle stream.
    pub source: StreamRef,
    /// `-canvas_size`: the size that the pictures' positions refer to, if they don't say
    /// themselves.
    pub canvas: Option<(u32, u32)>,
    /// How the canvas is brought to the plane; `None` leaves it as it is.
    pub fit: Option<SubtitleFit>,
    /// The plane is enlarged or reduced to the picture (`overlay_vaapi=w=:h=`) instead of laid on
    /// its upper left corner pixel by pixel (`overlay`).
    pub stretched: bool,
}

/// How a canvas of subtitles becomes a plane. Sizes in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubtitleFit {
    /// `scale=W:H`.
    Exact {
        /// `W`.
        width: u32,
        /// `H`.
        height: u32,
    },
    /// `scale=-1:H,crop,pad=max(W\,iw):max(H\,ih):(ow-iw)/2:(oh-ih)/2:black@0,crop=W:H`: to the
    /// height, then cut or filled up alike on both sides.
    Height {
        /// `W`.
        width: u32,
        /// `H`.
        height: u32,
    },
}

/// How a picture is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// As the container's display matrix says, which ffmpeg does of itself.
    #[default]
    AsMarked,
    /// Not at all, whatever the container says (`-noautorotate`). Up to 10.9 that stands by every
    /// command with a GPU in it, and ffmpeg then carries the matrix on into MP4, where a player
    /// turns the picture; from 10.10 on Jellyfin takes it away. The plan doesn't tell the two apart.
    Never,
    /// A quarter clockwise (`transpose_vaapi=dir=clock`), `-noautorotate` beside it.
    Clockwise,
    /// A quarter counterclockwise (`dir=cclock`), likewise.
    CounterClockwise,
    /// By half (`dir=reversal`), likewise.
    Half,
}

/// From HDR to SDR of BT.709 and 8 bits (contract 2.5). Whoever runs the plan may map by the GPU's
/// own means where `curve` leaves that open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToneMap {
    /// The source's transfer, as the command asserts it (`setparams=color_trc=`).
    pub from: HdrTransfer,
    /// What leads the source's light to the display's.
    pub curve: ToneCurve,
    /// `peak=` as given: the source's peak in tens of cd/m2, so that Jellyfin's 100 is 1000 (in
    /// jellyfin-ffmpeg 7; earlier ones took it for tenths of their reference white). 0 or none is
    /// what the stream's own metadata says.
    pub peak: Option<f64>,
    /// `desat=`: how far bright colours fade to white; 0 is not at all.
    pub desaturation: Option<f64>,
    /// `param=` of the curve; none is the filter's default for it (BT.2390's knee: 1).
    pub parameter: Option<f64>,
    /// `tonemap_mode=` as given (`max`, `rgb`, `lum`, `itp`): what the curve is laid upon. None is
    /// the filter's choice.
    pub mode: Option<String>,
    /// `procamp_vaapi=b=`: added to the picture's brightness before it is mapped, -100 to 100.
    pub brightness: Option<f64>,
    /// `procamp_vaapi=c=`: factor of its contrast, 0 to 10.
    pub contrast: Option<f64>,
}

/// Transfer of an HDR source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HdrTransfer {
    /// `smpte2084`: PQ of HDR10 and of Dolby Vision with an HDR10 base.
    Pq,
    /// `arib-std-b67`: HLG.
    Hlg,
}

/// Curve of a tone mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToneCurve {
    /// Whatever the driver has (`tonemap_vaapi`).
    Driver,
    /// ITU-R BT.2390, Jellyfin's default.
    Bt2390,
    /// Named by the filters alike.
    Hable,
    /// `x / (x + 1)`.
    Reinhard,
    /// Linear up to a knee.
    Mobius,
    /// A power.
    Gamma,
    /// Stretched.
    Linear,
    /// Cut off.
    Clip,
    /// None: out of range values are desaturated alone.
    None,
}

/// Codec of an encoded picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    /// H.264 / AVC.
    H264,
    /// H.265 / HEVC, 8 bit Main.
    Hevc,
}

/// How bits are spent. Rates in bit/s, buffer in bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct RateControl {
    /// `-crf`.
    pub crf: Option<f64>,
    /// `-b:v`.
    pub bitrate: Option<u64>,
    /// `-maxrate`.
    pub max_bitrate: Option<u64>,
    /// `-bufsize`.
    pub buffer_bits: Option<u64>,
    /// `-rc_mode` as given (`VBR`, `CBR`).
    pub mode: Option<String>,
    /// `-low_power 1`.
    pub low_power: bool,
    /// `-compression_level`.
    pub compression_level: Option<u32>,
}

/// The keyframe rule of a command (contract 2.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keyframes {
    /// A keyframe at the first frame at or after every multiple of this many seconds, counted
    /// from the first frame of the run (`expr:gte(t,n_forced*3)` in all its spellings).
    Every(f64),
    /// A keyframe every so many frames (`-g N -keyint_min N`).
    EveryFrames(u32),
}

/// Deinterlacing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deinterlace {
    /// One output frame per field (doubles the rate) instead of one per frame.
    pub per_field: bool,
}

/// Target picture size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Exactly this many pixels.
    Exact {
        /// Width in pixels, even.
        width: u32,
        /// Height in pixels, even.
        height: u32,
    },
    /// Jellyfin's software expression
    /// `trunc(min(max(iw\,ih*a)\,min(MW\,MH*a))/2)*2:trunc(min(max(iw/a\,ih)\,min(MW/a\,MH))/2)*2`
    /// (contract 2.5): fit within the box, keep the display aspect, never enlarge, even sizes.
    Fit {
        /// `MW`.
        max_width: u32,
        /// `MH`.
        max_height: u32,
    },
}

/// Colour description, ffmpeg's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColourTags {
    /// `color_primaries` (`bt709`).
    pub primaries: String,
    /// `color_trc` (`bt709`).
    pub transfer: String,
    /// `colorspace` (`bt709`).
    pub matrix: String,
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
