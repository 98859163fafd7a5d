//! What becomes of the picture.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::StreamRef;

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

impl ToneMap {
    /// One of which no more is said: the rest is left to the filter.
    pub fn new(from: HdrTransfer, curve: ToneCurve) -> Self {
        Self {
            from,
            curve,
            peak: None,
            desaturation: None,
            parameter: None,
            mode: None,
            brightness: None,
            contrast: None,
        }
    }
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
