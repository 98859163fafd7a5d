//! From a plan and what is known of the source to the description of a graph. Pure.
//!
//! The description is text that can be read, compared and snapshot-tested; `pipeline` turns it
//! into elements. Nothing here needs GStreamer to be initialised.

use std::fmt;

use ffmpeg_args::{
    AudioAction, AudioCodec, AudioEncode, HdrTransfer, Keyframes, Scale, ToneCurve, ToneMap,
    Transcode, VideoAction, VideoCodec, VideoEncode,
};
use gpu::{Device, Reason};

use crate::mix::target;
use crate::stages::{Facts, Node, SourceStream, Stage, Stages};
use crate::vaapi::{Choice, choose};

/// The machine that a graph is for.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Processor cores.
    pub cores: usize,
    /// Its libavcodec asks so late for an HEVC picture's memory that frame threads lose pictures
    /// (`pipelines/software.toml` says how).
    pub hevc_in_slices: bool,
    /// The GPU that the stream may use.
    pub device: Option<&'a Device>,
}

/// What each track's chain does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrackGraph {
    /// From demuxer pad to encoded samples.
    pub nodes: Vec<Node>,
    /// Index in `nodes` before which raw frames wait in a queue of [`RAW_BUFFERS`], so that decoder
    /// and encoder run beside each other. Ascending.
    pub queues: Vec<usize>,
    /// Samples that the encoder puts before the first.
    pub priming: u32,
    /// Copied, not encoded.
    pub copied: bool,
    /// The decoder is on a GPU.
    pub decoded_on_gpu: bool,
    /// The encoder, the last of the nodes, is on a GPU.
    pub encoded_on_gpu: bool,
}

/// The whole graph behind the demuxers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The picture's chain.
    pub video: Option<TrackGraph>,
    /// The sound's chain.
    pub audio: Option<TrackGraph>,
    /// `vaapi`, `mixed` or `software`.
    pub backend: &'static str,
    /// Why the picture isn't all on a GPU that there is.
    pub reason: Option<Reason>,
}

/// What a backend lacks for a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{backend} has no {what}")]
pub struct Unsupported {
    /// The backend.
    pub backend: String,
    /// What is missing.
    pub what: String,
}

/// Raw frames that wait between two threads. One keeps both sides busy, and each is large.
pub const RAW_BUFFERS: u32 = 1;

/// Scaled pictures in use at once: those that wait, the one that the encoder takes, the one that is
/// drawn.
const CANVASES: u32 = RAW_BUFFERS + 2;

/// x264's own default distance of keyframes, which ffmpeg leaves in force.
const DEFAULT_KEY_INT: u32 = 250;

/// ffmpeg's rule for decoding frames side by side: one more than cores, and at most so many
/// (libavcodec's `MAX_AUTO_THREADS`).
const MOST_DECODER_THREADS: usize = 16;

/// Modes of a tone mapping that there are here. What the filters do by themselves (`auto`) depends on
/// their version; here it is `max`.
const TONE_MODES: [&str; 3] = ["auto", "max", "rgb"];

/// Describes the graph for a plan on a machine.
///
/// # Errors
/// [`Unsupported`] if a decoder, copy chain or encoder is missing.
pub fn describe(
    stages: &Stages,
    plan: &Transcode,
    host: Host<'_>,
    video: Option<&SourceStream>,
    audio: Option<&SourceStream>,
) -> Result<Graph, Unsupported> {
    let (mut backend, mut reason) = ("software", None);
    let video = match (&plan.video, video) {
        (Some(plan), Some(source)) => Some(match &plan.action {
            VideoAction::Copy => copy(stages, source)?,
            VideoAction::Encode(encode) => {
                let choice = match (&stages.gpu, host.device) {
                    (Some(gpu), Some(device)) => choose(gpu, device, encode, source),
                    _ => Choice::default(),
                };
                backend = choice.backend();
                reason = choice.reason.clone();
                encode_video(stages, encode, host, source, choice)?
            }
        }),
        _ => None,
    };
    let audio = match (&plan.audio, audio) {
        (Some(plan), Some(source)) => Some(match &plan.action {
            AudioAction::Copy => copy(stages, source)?,
            AudioAction::Encode(encode) => encode_audio(stages, encode, source)?,
        }),
        _ => None,
    };
    Ok(Graph { video, audio, backend, reason })
}

fn lacking(stages: &Stages, what: String) -> Unsupported {
    Unsupported { backend: stages.backend.clone(), what }
}

fn copy(stages: &Stages, source: &SourceStream) -> Result<TrackGraph, Unsupported> {
    let chain = source
        .copy
        .and_then(|index| stages.copies.get(index))
        .ok_or_else(|| lacking(stages, format!("way to copy {}", source.caps)))?;
    let facts = Facts::new();
    let nodes = resolve(&chain.chain, &facts);
    Ok(TrackGraph { nodes, copied: true, ..TrackGraph::default() })
}

fn decoder(
    stages: &Stages,
    source: &SourceStream,
    facts: &Facts,
) -> Result<Vec<Node>, Unsupported> {
    let chain = source
        .decoder
        .and_then(|index| stages.decoders.get(index))
        .ok_or_else(|| lacking(stages, format!("decoder for {}", source.caps)))?;
    Ok(resolve(&chain.chain, facts))
}

fn encode_video(
    stages: &Stages,
    plan: &VideoEncode,
    host: Host<'_>,
    source: &SourceStream,
    choice: Choice<'_>,
) -> Result<TrackGraph, Unsupported> {
    let mut facts = video_facts(plan);
    if let Some(turn) = source.turn {
        facts.insert("turn", turn.direction().to_owned());
        if turn.swaps_sides() {
            facts.insert("quarter_turn", "true".to_owned());
        }
    }
    if let Some(tone_map) = &plan.tone_map {
        if let Some(mode) = tone_map.mode.as_deref().filter(|mode| !TONE_MODES.contains(mode)) {
            return Err(lacking(stages, format!("tone mapping mode {mode}")));
        }
        facts.extend(tone_facts(tone_map));
    }
    let threads = if host.cores > 1 { (host.cores + 1).min(MOST_DECODER_THREADS) } else { 1 };
    facts.insert("decoder_threads", threads.to_string());
    if host.hevc_in_slices {
        facts.insert("hevc_threads", "slice".to_owned());
    }
    facts.extend(choice.facts);
    // A tone mapping takes ten bits, and gives what the encoder takes.
    let scaled = if facts.contains_key("tone_map") { Some("I420_10LE") } else { None };
    let scaled = scaled.map(str::to_owned).or_else(|| facts.get("raw_format").cloned());
    facts.extend(scaled.map(|format| ("scaled_format", format)));
    let codec = match plan.codec {
        VideoCodec::H264 => "h264",
        VideoCodec::Hevc => "hevc",
    };
    let encoder = choice.encoder.or_else(|| stages.encoder(codec));
    let encoder = encoder.ok_or_else(|| lacking(stages, format!("encoder for {codec}")))?;
    let (mut nodes, picture) = match (choice.decoder, &stages.gpu) {
        (Some(chain), Some(gpu)) => (resolve(&chain.chain, &facts), &gpu.picture),
        _ => (decoder(stages, source, &facts)?, &stages.picture),
    };
    nodes.extend(resolve(picture, &facts));
    let queues = vec![nodes.len()];
    nodes.push(encoder.resolve(&facts));
    Ok(TrackGraph {
        nodes,
        queues,
        decoded_on_gpu: choice.decoder.is_some(),
        encoded_on_gpu: choice.encoder.is_some(),
        ..TrackGraph::default()
    })
}

fn resolve(stages: &[Stage], facts: &Facts) -> Vec<Node> {
    stages.iter().filter_map(|stage| stage.resolve(facts)).collect()
}

fn encode_audio(
    stages: &Stages,
    plan: &AudioEncode,
    source: &SourceStream,
) -> Result<TrackGraph, Unsupported> {
    let codec = match plan.codec {
        AudioCodec::Aac => "aac",
        AudioCodec::Ac3 => "ac3",
        AudioCodec::Eac3 => "eac3",
        AudioCodec::Mp3 => "mp3",
        AudioCodec::Opus => "opus",
        AudioCodec::Flac => "flac",
        AudioCodec::Vorbis => "vorbis",
    };
    let encoder =
        stages.encoder(codec).ok_or_else(|| lacking(stages, format!("encoder for {codec}")))?;
    let mut facts = Facts::new();
    // What the plan leaves open is negotiated from what the decoder finds: containers are known to
    // state twice the rate for AAC.
    if let Some(rate) = plan.sample_rate {
        facts.insert("sample_rate", encoder.rate_for(rate).to_string());
    }
    if let Some(channels) = plan.channels {
        facts.insert("channels", channels.to_string());
        if let Some(mask) = speakers(channels) {
            facts.insert("channel_mask", format!("(bitmask){mask:#x}"));
        }
    }
    // ffmpeg's native encoders fall back to 128 kbit/s; the elements' own defaults differ.
    let channels = u64::from(plan.channels.unwrap_or(2));
    let by_quality = fdk_rate(plan.codec, plan.quality).map(|rate| rate * channels);
    let bitrate = plan.bitrate.or(by_quality).unwrap_or(128_000);
    facts.insert("bitrate", bitrate.to_string());
    facts.insert("audio_kbps", mp3_kbps(bitrate).to_string());
    if let Some(mix) = &plan.mix {
        target(mix).ok_or_else(|| lacking(stages, format!("mix to {}", mix.layout)))?;
        facts.insert("mix", serde_json::to_string(mix).expect("text and numbers"));
    }
    facts.extend(quality_facts(plan));
    if let Some(volume) = plan.volume {
        facts.insert("volume", volume.to_string());
    }
    let mut nodes = decoder(stages, source, &facts)?;
    nodes.extend(stages.sound.iter().filter_map(|stage| stage.resolve(&facts)));
    nodes.push(encoder.resolve(&facts));
    Ok(TrackGraph { nodes, priming: encoder.priming, ..TrackGraph::default() })
}

/// ffmpeg's default layout for a number of channels, in GStreamer's bits: surround speakers stand
/// behind, as in AAC's own layouts, and not at the sides, for which AAC has no number.
fn speakers(channels: u32) -> Option<u32> {
    match channels {
        2 => Some(0x3),
        3 => Some(0x103),
        4 => Some(0x107),
        5 => Some(0x37),
        6 => Some(0x3f),
        8 => Some(0xc3f),
        _ => None,
    }
}

/// What a variable bit rate of Fraunhofer's AAC encoder (`-vbr:a 1` to 5) comes to, bit/s per channel:
/// the upper end of what its documentation says. ffmpeg's own encoder is better at a rate than at a
/// quality.
fn fdk_rate(codec: AudioCodec, quality: Option<f64>) -> Option<u64> {
    const RATES: [u64; 5] = [32_000, 40_000, 56_000, 72_000, 112_000];
    let step = quality.filter(|_| codec == AudioCodec::Aac)?.clamp(1.0, 5.0) as usize;
    RATES.get(step - 1).copied()
}

/// Variable bit rates of encoders that have a scale of their own.
fn quality_facts(plan: &AudioEncode) -> Facts {
    let quality = |name, value: f64| Facts::from([(name, value.to_string())]);
    match (plan.codec, plan.quality) {
        // lame: 0 is best, 10 is beyond its end.
        (AudioCodec::Mp3, Some(step)) => quality("mp3_quality", step.clamp(0.0, 9.999)),
        // Xiph's scale is a tenth of ffmpeg's.
        (AudioCodec::Vorbis, Some(step)) => {
            quality("vorbis_quality", (step / 10.0).clamp(-0.1, 1.0))
        }
        _ => Facts::new(),
    }
}

/// The bit rate of MPEG-1 layer III nearest to and not above the one asked for (ISO/IEC 11172-3
/// table of bit rates), in kbit/s.
fn mp3_kbps(bitrate: u64) -> u64 {
    const RATES: [u64; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    RATES.into_iter().rev().find(|rate| rate * 1000 <= bitrate).unwrap_or(RATES[0])
}

/// The facts about a picture to encode; names are documented in `docs/architecture.md`.
fn video_facts(plan: &VideoEncode) -> Facts {
    let mut facts = Facts::new();
    facts.insert("canvases", CANVASES.to_string());
    // The grid's keyframes are forced one by one; a fixed distance is left to the encoder.
    facts.insert(
        "key_int_max",
        match plan.keyframes {
            Keyframes::Every(_) => DEFAULT_KEY_INT,
            Keyframes::EveryFrames(frames) => frames,
        }
        .to_string(),
    );
    facts.insert("preset", software_preset(plan).to_owned());
    if let Some(profile) = plan.profile.as_deref() {
        facts.insert("h264_profile", profile.replace('_', "-"));
    }
    if let Some(deinterlace) = &plan.deinterlace {
        facts.insert("deinterlace", "true".to_owned());
        let fields = if deinterlace.per_field { "all" } else { "top" };
        facts.insert("deinterlace_fields", fields.to_owned());
    }
    match plan.scale {
        Some(Scale::Exact { width, height }) => {
            facts.insert("width", width.to_string());
            facts.insert("height", height.to_string());
        }
        Some(Scale::Fit { max_width, max_height }) => {
            facts.insert("max_width", max_width.to_string());
            facts.insert("max_height", max_height.to_string());
        }
        None => {}
    }
    if plan.colour.as_ref().is_some_and(|tags| tags.matrix == "bt709") {
        facts.insert("colorimetry", "bt709".to_owned());
    }
    if plan.subtitles.is_some() {
        facts.insert("subtitles", "true".to_owned());
    }
    rate_facts(plan, &mut facts);
    let params = encoder_params(plan);
    if !params.is_empty() {
        facts.insert("encoder_params", params);
    }
    facts
}

/// The facts of a tone mapping in software.
fn tone_facts(plan: &ToneMap) -> Facts {
    let curve = match plan.curve {
        // Where the driver has none of its own, Jellyfin's default.
        ToneCurve::Driver | ToneCurve::Bt2390 => "bt2390",
        ToneCurve::Hable => "hable",
        ToneCurve::Reinhard => "reinhard",
        ToneCurve::Mobius => "mobius",
        ToneCurve::Gamma => "gamma",
        ToneCurve::Linear => "linear",
        ToneCurve::Clip => "clip",
        ToneCurve::None => "none",
    };
    let transfer = match plan.from {
        HdrTransfer::Pq => "pq",
        HdrTransfer::Hlg => "hlg",
    };
    let mut facts = Facts::from([
        ("tone_map", "true".to_owned()),
        ("tone_curve", curve.to_owned()),
        ("tone_transfer", transfer.to_owned()),
    ]);
    let numbers = [
        ("tone_peak", plan.peak.filter(|peak| *peak > 0.0)),
        ("tone_desaturation", plan.desaturation),
        ("tone_parameter", plan.parameter),
        ("tone_brightness", plan.brightness),
        ("tone_contrast", plan.contrast),
    ];
    for (name, value) in numbers {
        facts.extend(value.map(|value| (name, value.to_string())));
    }
    let mode = plan.mode.clone().filter(|mode| mode != "auto");
    facts.extend(mode.map(|mode| ("tone_mode", mode)));
    facts
}

fn rate_facts(plan: &VideoEncode, facts: &mut Facts) {
    let rate = &plan.rate;
    let kbps = |bits: u64| (bits / 1000).max(1);
    if let Some(crf) = rate.crf {
        facts.insert("crf", format!("{crf:.0}"));
    }
    if let Some(bitrate) = rate.bitrate {
        facts.insert("kbps", kbps(bitrate).to_string());
    }
    let max = rate.max_bitrate.or(rate.bitrate);
    if let Some(max) = max {
        facts.insert("max_kbps", kbps(max).to_string());
    }
    // The elements take the buffer as the time that it lasts at the maximum rate.
    let buffer_ms = match (rate.buffer_bits, rate.max_bitrate.or(rate.bitrate)) {
        (Some(buffer), Some(max)) if max > 0 => (buffer * 1000 / max).min(10_000),
        _ => 0,
    };
    facts.insert("vbv_ms", buffer_ms.to_string());
}

/// The encoder's own options in its own words, `key=value:...`.
fn encoder_params(plan: &VideoEncode) -> String {
    let mut params: Vec<String> = plan
        .encoder_params
        .iter()
        .map(|(key, value)| if value.is_empty() { key.clone() } else { format!("{key}={value}") })
        .collect();
    if matches!(plan.keyframes, Keyframes::Every(_)) && plan.codec == VideoCodec::H264 {
        // Jellyfin says -sc_threshold 0 beside its forced keyframes; hardware lines, which
        // can't say it, mean the same: keyframes stand on the grid and nowhere else.
        params.push("scenecut=0".to_owned());
    }
    if let Keyframes::EveryFrames(frames) = plan.keyframes {
        params.push(format!("keyint={frames}:min-keyint={frames}:scenecut=0"));
    }
    if plan.codec == VideoCodec::H264 {
        if let Some(level) = plan.level {
            params.push(format!("level={}.{}", level / 10, level % 10));
        }
    } else {
        let rate = &plan.rate;
        // The element has no property for it; it stays in force as long as no bit rate is set.
        if let Some(crf) = rate.crf {
            params.push(format!("crf={crf}"));
        }
        if let (Some(max), Some(buffer)) = (rate.max_bitrate, rate.buffer_bits) {
            params.push(format!("vbv-maxrate={}:vbv-bufsize={}", max / 1000, buffer / 1000));
        }
        // One open GOP would let a segment lean on the one before it.
        params.push("open-gop=0:repeat-headers=1:scenecut=0".to_owned());
    }
    params.join(":")
}

/// The preset of an encoder in software. Hardware encoders' are no names of x264's, or mean another
/// thing.
pub fn software_preset(plan: &VideoEncode) -> &str {
    let preset = plan.preset.as_deref().unwrap_or_default();
    if is_x264_preset(preset) { preset } else { "veryfast" }
}

fn is_x264_preset(name: &str) -> bool {
    matches!(
        name,
        "ultrafast"
            | "superfast"
            | "veryfast"
            | "faster"
            | "fast"
            | "medium"
            | "slow"
            | "slower"
            | "veryslow"
            | "placebo"
    )
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, track) in [("video", &self.video), ("audio", &self.audio)] {
            if let Some(track) = track {
                writeln!(f, "{name}:")?;
                write!(f, "{track}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for TrackGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            if self.queues.contains(&index) {
                writeln!(f, "  queue")?;
            }
            write!(f, "  {}", node.element)?;
            for (name, value) in &node.properties {
                write!(f, " {name}={value}")?;
            }
            writeln!(f)?;
            if let Some(caps) = &node.caps {
                writeln!(f, "  [{caps}]")?;
            }
        }
        if self.priming > 0 {
            writeln!(f, "  (priming {} samples)", self.priming)?;
        }
        Ok(())
    }
}

impl TrackGraph {
    /// `avdec_h264 ! rgscale ! x264enc`: the elements that matter, for one line of a log.
    pub fn one_line(&self) -> String {
        let names = self.nodes.iter().map(|node| node.element.as_str());
        let telling = names.filter(|name| !matches!(*name, "capsfilter" | "audioconvert"));
        telling.collect::<Vec<_>>().join(" ! ")
    }
}
