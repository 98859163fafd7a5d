//! The picture of a command (contract 2.1 videoArgs, 2.2, 2.3).

use crate::chain::{self, Chain};
use crate::filters::parse_chain;
use crate::kinds::VIDEO_CODEC;
use crate::memory::{Device, Memory};
use crate::numbers::{amount, decimal, frame_rate, whole};
use crate::overlay::Graph;
use crate::subtitles::Timing;
use crate::turning::{self, Mark};
use crate::unread::{ANY, BARE, Effectless, Spellings, Unread, VIDEO, VIDEO_OR_BARE, shown, value};
use crate::{
    Keyframes, Passthrough, RateControl, StreamRef, Verdict, Video, VideoAction, VideoCodec,
    VideoEncode,
};

/// Encoders that a plan can name: what they make, and the device whose memory they read.
const ENCODERS: &[(&str, VideoCodec, Option<Device>)] = &[
    ("libx264", VideoCodec::H264, None),
    ("libx265", VideoCodec::Hevc, None),
    ("h264_vaapi", VideoCodec::H264, Some(Device::Vaapi)),
    ("hevc_vaapi", VideoCodec::Hevc, Some(Device::Vaapi)),
    ("h264_qsv", VideoCodec::H264, Some(Device::Qsv)),
    ("hevc_qsv", VideoCodec::Hevc, Some(Device::Qsv)),
    ("h264_nvenc", VideoCodec::H264, Some(Device::Cuda)),
    ("hevc_nvenc", VideoCodec::Hevc, Some(Device::Cuda)),
];

/// Encoders that Jellyfin may choose and a plan doesn't offer, by the head of their names.
const UNOFFERED_ENCODERS: &[&str] = &[
    "av1",
    "libsvtav1",
    "libaom",
    "librav1e",
    "libvpx",
    "vp8",
    "vp9",
    "h264_",
    "hevc_",
    "mpeg",
    "msmpeg4",
    "wmv",
    "mjpeg",
    "libtheora",
];

const PRESETS_X26X: &[&str] = &[
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
];
const PRESETS_QSV: &[&str] = &[
    "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "1", "2", "3", "4", "5",
    "6", "7",
];
const PRESETS_NVENC: &[&str] =
    &["default", "slow", "medium", "fast", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];

const PROFILES_H264: &[&str] =
    &["baseline", "constrained_baseline", "main", "high", "constrained_high"];
const PROFILES_HEVC: &[&str] = &["main"];
/// Profiles of more than 8 bits or less than half the colour.
const PROFILES_UNOFFERED: &[&str] =
    &["high10", "high422", "high444", "main10", "main12", "rext", "main-intra", "mainstillpicture"];

/// Levels times ten of either codec.
const LEVELS: &[u32] =
    &[9, 10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52, 60, 61, 62];

const CRF: Spellings = &[("crf", VIDEO_OR_BARE)];
const BITRATE: Spellings = &[("b", VIDEO), ("vb", BARE)];
const MAX_BITRATE: Spellings = &[("maxrate", VIDEO_OR_BARE)];
const BUFFER: Spellings = &[("bufsize", VIDEO_OR_BARE)];
const RC_MODE: Spellings = &[("rc_mode", VIDEO_OR_BARE)];
const LOW_POWER: Spellings = &[("low_power", VIDEO_OR_BARE)];
const COMPRESSION: Spellings = &[("compression_level", VIDEO_OR_BARE)];
const PRESET: Spellings = &[("preset", VIDEO_OR_BARE)];
const PROFILE: Spellings = &[("profile", VIDEO)];
const LEVEL: Spellings = &[("level", VIDEO_OR_BARE)];
const X264_OPTIONS: Spellings = &[("x264opts", VIDEO_OR_BARE), ("x264-params", VIDEO_OR_BARE)];
const X265_OPTIONS: Spellings = &[("x265-params", VIDEO_OR_BARE)];
const B_FRAMES: Spellings = &[("bf", VIDEO_OR_BARE)];
const FORCE_KEY_FRAMES: Spellings = &[("force_key_frames", VIDEO_OR_BARE)];
const GROUP: Spellings = &[("g", VIDEO_OR_BARE)];
const LEAST_GROUP: Spellings = &[("keyint_min", VIDEO_OR_BARE)];
const FILTERS: Spellings = &[("vf", BARE), ("filter", VIDEO)];
const RATE: Spellings = &[("r", VIDEO_OR_BARE)];
const PIXEL_FORMAT: Spellings = &[("pix_fmt", VIDEO_OR_BARE)];
pub(crate) const TAG: Spellings = &[("tag", VIDEO), ("vtag", BARE)];
pub(crate) const BITSTREAM_FILTERS: Spellings = &[("bsf", VIDEO), ("vbsf", BARE)];

/// Encoder options that change nothing a plan carries, with the values for which that holds.
const EFFECTLESS: Effectless = &[
    // No keyframes but those asked for: the keyframe rule says the same.
    (&[("sc_threshold", VIDEO_OR_BARE)], |value| value == "0"),
    (&[("sei", VIDEO_OR_BARE)], |value| value == "-a53_cc"),
    (&[("mbbrc", VIDEO_OR_BARE)], |value| matches!(value, "0" | "1")),
    (&[("rc_init_occupancy", VIDEO_OR_BARE)], |value| whole::<u64>(value).is_some()),
    (&[("look_ahead", VIDEO_OR_BARE)], |value| value == "0"),
    (&[("async_depth", VIDEO_OR_BARE)], |value| whole::<u32>(value).is_some()),
    (&[("autoscale", ANY)], |value| value == "0"),
];

/// Where the picture comes from and how it arrives.
pub(crate) struct Picture<'a> {
    pub source: StreamRef,
    /// Memory that the decoder leaves it in.
    pub memory: Memory,
    /// What its input says of turning.
    pub mark: Mark,
    /// `-filter_complex`.
    pub graph: Option<Graph<'a>>,
    /// `-canvas_size` of the input that the graph's plane comes from.
    pub canvas: Option<(u32, u32)>,
}

/// Reads the options of the picture; the second value is when text is drawn on it.
pub(crate) fn read(unread: &mut Unread<'_>, picture: &Picture<'_>) -> Verdict<(Video, Timing)> {
    let encoder = unread.require(VIDEO_CODEC, Some)?;
    let tag = tag(unread)?;
    let (action, timing) = if encoder == "copy" {
        bitstream_filters(unread, &["h264_mp4toannexb", "hevc_mp4toannexb"])?;
        if picture.graph.is_some() {
            return Err(Passthrough::unknown("-filter_complex of a copied picture"));
        }
        (VideoAction::Copy, Timing::default())
    } else {
        bitstream_filters(unread, &["extract_extradata=remove=0"])?;
        let (encode, timing) = encode(unread, encoder, picture)?;
        (VideoAction::Encode(encode), timing)
    };
    Ok((Video { source: picture.source, action, tag }, timing))
}

fn encode(
    unread: &mut Unread<'_>,
    encoder: &str,
    picture: &Picture<'_>,
) -> Verdict<(VideoEncode, Timing)> {
    let Some((_, codec, device)) = ENCODERS.iter().find(|(name, ..)| *name == encoder) else {
        let named = format!("video encoder {encoder}");
        let known = UNOFFERED_ENCODERS.iter().any(|head| encoder.starts_with(head));
        return Err(if known { Passthrough::feature(named) } else { Passthrough::unknown(named) });
    };
    let (codec, device) = (*codec, *device);
    let chain = picture_chain(unread, picture, codec, device)?;
    let frame_rate = output_rate(unread, &chain)?;
    let encode = VideoEncode {
        codec,
        encoder: encoder.to_owned(),
        rate: rate_control(unread, device)?,
        preset: preset(unread, device)?,
        profile: profile(unread, codec)?,
        level: level(unread, codec, device)?,
        encoder_params: encoder_params(unread, encoder)?,
        keyframes: keyframes(unread)?,
        deinterlace: chain.deinterlace,
        scale: chain.scale,
        frame_rate,
        colour: chain.colour,
        turn: turning::settle(picture.mark, chain.turn)?,
        tone_map: chain.tone_map,
        subtitles: chain.subtitles,
    };
    unread.drop_effectless(EFFECTLESS)?;
    unread.flag(&[("noautoscale", BARE)]);
    Ok((encode, chain.timing))
}

fn picture_chain(
    unread: &mut Unread<'_>,
    picture: &Picture<'_>,
    codec: VideoCodec,
    device: Option<Device>,
) -> Verdict<Chain> {
    let mut chain = match (unread.take(FILTERS)?, &picture.graph) {
        (None, Some(graph)) => graph.reduce(picture.memory, device, picture.canvas)?,
        (Some(setting), None) => {
            let text = value(setting).ok_or_else(|| Passthrough::unknown(shown(setting)))?;
            chain::reduce(&parse_chain(text)?, picture.memory, device)?
        }
        (None, None) => chain::reduce(&[], picture.memory, device)?,
        (Some(setting), Some(_)) => {
            return Err(Passthrough::unknown(format!("{} beside -filter_complex", shown(setting))));
        }
    };
    let readable = match device {
        None => chain.memory == Memory::System,
        Some(Device::Vaapi) => chain.memory == Memory::On(Device::Vaapi),
        Some(device) => [Memory::On(device), Memory::System].contains(&chain.memory),
    };
    if !readable {
        let end = chain.memory;
        return Err(Passthrough::unknown(format!(
            "the picture ends in {end}, where its encoder doesn't read"
        )));
    }
    let converted = unread.read(PIXEL_FORMAT, |format| {
        (chain.memory == Memory::System && matches!(format, "yuv420p" | "nv12")).then_some(())
    })?;
    chain.eight_bit |= converted.is_some();
    // Hardware makes H.264 of 8 bits alone; every other encoder would keep a deeper source's bits.
    let only_eight_bit = codec == VideoCodec::H264 && device.is_some();
    if !chain.eight_bit && !only_eight_bit {
        return Err(Passthrough::unknown("the encoder's pixel format is left open"));
    }
    Ok(chain)
}

fn output_rate(unread: &mut Unread<'_>, chain: &Chain) -> Verdict<Option<(u32, u32)>> {
    let rate = unread.read(RATE, frame_rate)?;
    match (chain.frame_rate, rate) {
        (Some(filter), Some(output)) if filter != output => {
            Err(Passthrough::unknown(format!("fps {filter:?} and -r {output:?}")))
        }
        // A bound in front of a doubling deinterlacer bounds half of what comes out.
        (Some(_), None)
            if chain.rate_before_deinterlace && chain.deinterlace.is_some_and(|d| d.per_field) =>
        {
            Err(Passthrough::unknown("fps in front of a deinterlacer that doubles the rate"))
        }
        (filter, output) => Ok(filter.or(output)),
    }
}

fn rate_control(unread: &mut Unread<'_>, device: Option<Device>) -> Verdict<RateControl> {
    let mut rate = RateControl {
        bitrate: unread.read(BITRATE, amount)?,
        max_bitrate: unread.read(MAX_BITRATE, amount)?,
        buffer_bits: unread.read(BUFFER, amount)?,
        ..RateControl::default()
    };
    match device {
        None => rate.crf = unread.read(CRF, decimal)?,
        Some(Device::Vaapi) => {
            rate.mode = unread
                .read(RC_MODE, |mode| matches!(mode, "VBR" | "CBR").then(|| mode.to_owned()))?;
            rate.compression_level = unread.read(COMPRESSION, whole)?;
        }
        Some(_) => {}
    }
    if matches!(device, Some(Device::Vaapi | Device::Qsv)) {
        rate.low_power = unread.read(LOW_POWER, flag)?.unwrap_or(false);
    }
    if rate.crf.is_none() && rate.bitrate.is_none() {
        return Err(Passthrough::unknown("neither -crf nor -b:v"));
    }
    Ok(rate)
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn preset(unread: &mut Unread<'_>, device: Option<Device>) -> Verdict<Option<String>> {
    let known = match device {
        None => PRESETS_X26X,
        Some(Device::Qsv) => PRESETS_QSV,
        Some(Device::Cuda) => PRESETS_NVENC,
        // VA-API's encoders have none.
        Some(_) => &[],
    };
    unread.read(PRESET, |preset| known.contains(&preset).then(|| preset.to_owned()))
}

fn profile(unread: &mut Unread<'_>, codec: VideoCodec) -> Verdict<Option<String>> {
    let Some(setting) = unread.take(PROFILE)? else { return Ok(None) };
    let profile = value(setting).unwrap_or_default().to_ascii_lowercase();
    let known = match codec {
        VideoCodec::H264 => PROFILES_H264,
        VideoCodec::Hevc => PROFILES_HEVC,
    };
    if known.contains(&profile.as_str()) {
        return Ok(Some(profile));
    }
    let refusal = shown(setting);
    let unoffered = PROFILES_UNOFFERED.contains(&profile.as_str());
    Err(if unoffered { Passthrough::feature(refusal) } else { Passthrough::unknown(refusal) })
}

/// The level times ten. HEVC's own numbering is thirty times the level (123 for 4.1): VA-API is
/// given that, Quick Sync the tenfold, and from 90 on there is no doubt anyway.
fn level(
    unread: &mut Unread<'_>,
    codec: VideoCodec,
    device: Option<Device>,
) -> Verdict<Option<u32>> {
    unread.read(LEVEL, |text| {
        let level = match text.split_once('.') {
            Some((whole_part, tenth)) if tenth.len() == 1 => {
                10 * whole::<u32>(whole_part).filter(|whole| *whole < 10)? + whole::<u32>(tenth)?
            }
            Some(_) => return None,
            None => {
                let number = whole::<u32>(text)?;
                let thirtyfold = number >= 90 || device == Some(Device::Vaapi);
                match codec {
                    VideoCodec::Hevc if thirtyfold && number % 3 == 0 => number / 3,
                    VideoCodec::Hevc if thirtyfold => return None,
                    // `-level 4` is level 4.0 for x264.
                    _ if number < 9 => number * 10,
                    _ => number,
                }
            }
        };
        LEVELS.contains(&level).then_some(level)
    })
}

fn encoder_params(unread: &mut Unread<'_>, encoder: &str) -> Verdict<Vec<(String, String)>> {
    let spellings = match encoder {
        "libx264" => X264_OPTIONS,
        "libx265" => X265_OPTIONS,
        _ => return Ok(Vec::new()),
    };
    let mut params = unread.read(spellings, split_params)?.unwrap_or_default();
    // Given to x265 where B-frames broke players.
    if encoder == "libx265"
        && let Some(count) = unread.read(B_FRAMES, whole::<u32>)?
    {
        params.push(("bframes".to_owned(), count.to_string()));
    }
    Ok(params)
}

fn split_params(text: &str) -> Option<Vec<(String, String)>> {
    text.split(':')
        .map(|param| {
            let (key, value) = param.split_once('=').unwrap_or((param, ""));
            (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The keyframe rule (contract 2.2). Before 10.8 a group length stands beside the forced
/// keyframes; those decide.
fn keyframes(unread: &mut Unread<'_>) -> Verdict<Keyframes> {
    let forced = unread.read(FORCE_KEY_FRAMES, keyframe_period)?;
    let positive = |text| whole::<u32>(text).filter(|frames| *frames > 0);
    let group = unread.read(GROUP, positive)?;
    let least = unread.read(LEAST_GROUP, positive)?;
    if least.is_some() && least != group {
        return Err(Passthrough::unknown(format!("-keyint_min {least:?} and -g {group:?}")));
    }
    match (forced, group) {
        (Some(seconds), _) => Ok(Keyframes::Every(seconds)),
        (None, Some(frames)) => Ok(Keyframes::EveryFrames(frames)),
        (None, None) => Err(Passthrough::unknown("no rule for keyframes")),
    }
}

/// The period of `expr:gte(t,n_forced*3)`. A start in front of it (`6576+`, up to 10.8) was meant
/// as a source time that `t` doesn't have; the period from the first frame is what works.
fn keyframe_period(text: &str) -> Option<f64> {
    let inner = text.strip_prefix("expr:gte(t,")?.strip_suffix(')')?;
    let rule = match inner.split_once('+') {
        Some((start, rule)) => decimal(start).map(|_| rule)?,
        None => inner,
    };
    decimal(rule.strip_prefix("n_forced*")?).filter(|seconds| *seconds > 0.0)
}

fn tag(unread: &mut Unread<'_>) -> Verdict<Option<String>> {
    let Some(setting) = unread.take(TAG)? else { return Ok(None) };
    match value(setting) {
        Some(tag @ ("hvc1" | "hev1" | "avc1")) => Ok(Some(tag.to_owned())),
        Some("dvh1" | "dvhe" | "dav1") => {
            Err(Passthrough::feature(format!("Dolby Vision: {}", shown(setting))))
        }
        _ => Err(Passthrough::unknown(shown(setting))),
    }
}

/// Reads `-bsf:v`; the filters in `implied` do what the muxer does anyway.
fn bitstream_filters(unread: &mut Unread<'_>, implied: &[&str]) -> Verdict<()> {
    let Some(setting) = unread.take(BITSTREAM_FILTERS)? else { return Ok(()) };
    for filter in value(setting).unwrap_or_default().split(',') {
        if implied.contains(&filter) {
            continue;
        }
        let strips = ["hevc_metadata=", "dovi_rpu=", "av1_metadata="];
        let known = strips.iter().any(|head| filter.starts_with(head));
        let refusal = format!("-{} {filter}", setting.name);
        return Err(if known {
            Passthrough::feature(refusal)
        } else {
            Passthrough::unknown(refusal)
        });
    }
    Ok(())
}
