//! Which parts of a stream's picture a GPU takes, and by which elements. Pure.
//!
//! Decoder and encoder are chosen apart: a GPU that can only do one of them still does that one.
//! What can't be known before the first picture (a profile that the container doesn't state) counts
//! as not supported, since a driver would say so too late.
//!
//! Invariant: every choice against the GPU has a reason that a person can read.

use ffmpeg_args::{HdrTransfer, Keyframes, Scale, ToneCurve, ToneMap, VideoCodec, VideoEncode};
use gpu::{Ability, Device, Operation, Reason, ReasonKind};

use crate::size::{Target, target_size};
use crate::stages::{Chain, Encoder, Facts, GpuStages, SourceStream};
use crate::turn::Rotation;

/// Most frames between two keyframes that the elements can be told; the grid asks for them earlier.
const LONGEST_GOP: u32 = 1024;
/// What x264's constant quality comes to within its limit, for encoders that have none: GStreamer's
/// own ratio of average to highest rate, per cent.
const USUAL_SHARE: u64 = 66;
/// The least that the elements take for it, per cent.
const LEAST_SHARE: u64 = 50;

/// What runs where.
#[derive(Debug, Default)]
pub struct Choice<'a> {
    /// Stages of a decoder on the GPU.
    pub decoder: Option<&'a Chain>,
    /// Stage of an encoder on the GPU.
    pub encoder: Option<&'a Encoder>,
    /// What those stages need to know.
    pub facts: Facts,
    /// Why not all of it is on the GPU.
    pub reason: Option<Reason>,
}

impl Choice<'_> {
    /// `vaapi`, `mixed` or `software`.
    pub fn backend(&self) -> &'static str {
        match (self.decoder, self.encoder) {
            (Some(_), Some(_)) => "vaapi",
            (None, None) => "software",
            _ => "mixed",
        }
    }
}

/// The device that takes most of a stream's picture, both halves before the encoder alone before the
/// decoder alone; the first of equals.
pub fn best<'d>(
    stages: &GpuStages,
    devices: &'d [Device],
    plan: &VideoEncode,
    source: &SourceStream,
) -> Option<&'d Device> {
    let parts = |device: &Device| {
        let choice = choose(stages, device, plan, source);
        (choice.encoder.is_some(), choice.decoder.is_some())
    };
    // The last of equals is what max_by_key would give.
    devices.iter().rev().max_by_key(|device| parts(device))
}

/// Chooses for one stream.
pub fn choose<'a>(
    stages: &'a GpuStages,
    device: &Device,
    plan: &VideoEncode,
    source: &SourceStream,
) -> Choice<'a> {
    let size = source.size.map(|size| output_size(plan, source.turn, size));
    let mut choice = Choice::default();
    let mut reasons = Vec::new();
    match encoder(stages, device, plan, size) {
        Ok((encoder, ability)) => {
            choice.encoder = Some(encoder);
            choice.facts = encoder_facts(plan, ability);
            choice.facts.insert("encoder", ability.element.clone());
            choice.facts.insert("encoded_on_gpu", "true".to_owned());
            // What the software's scaler hands to it.
            choice.facts.insert("raw_format", "NV12".to_owned());
        }
        Err(reason) => reasons.push(reason),
    }
    match decoder(stages, device, plan, source) {
        Ok((chain, elements)) => {
            choice.decoder = Some(chain);
            choice.facts.extend(elements);
            if let Some((width, height)) = size {
                choice.facts.insert("width", width.to_string());
                choice.facts.insert("height", height.to_string());
                let (width, height) = swapped(source.turn, (width, height));
                choice.facts.insert("unturned_width", width.to_string());
                choice.facts.insert("unturned_height", height.to_string());
            }
        }
        Err(reason) => reasons.push(reason),
    }
    choice.reason = Reason::all(reasons);
    choice
}

/// Width and height on the other side of a turn.
fn swapped(turn: Option<Rotation>, (width, height): (u32, u32)) -> (u32, u32) {
    if turn.is_some_and(Rotation::swaps_sides) { (height, width) } else { (width, height) }
}

/// The size of the output. A picture is turned before anything looks at its sides.
pub fn output_size(plan: &VideoEncode, turn: Option<Rotation>, size: (u32, u32)) -> (u32, u32) {
    let (width, height) = swapped(turn, size);
    let target = match plan.scale {
        Some(Scale::Exact { width, height }) => Target { width, height, ..Target::default() },
        Some(Scale::Fit { max_width, max_height }) => {
            Target { max_width, max_height, ..Target::default() }
        }
        None => Target::default(),
    };
    target_size(target, width, height)
}

fn encoder<'a, 'd>(
    stages: &'a GpuStages,
    device: &'d Device,
    plan: &VideoEncode,
    size: Option<(u32, u32)>,
) -> Result<(&'a Encoder, &'d Ability), Reason> {
    let unsupported = |text| Reason::new(ReasonKind::EncoderUnsupported, text);
    let (codec, name) = match plan.codec {
        VideoCodec::H264 => ("h264", "H.264"),
        VideoCodec::Hevc => ("hevc", "HEVC"),
    };
    let stage = stages.encoders.iter().find(|stage| stage.encoder.codec == codec);
    let stage = stage.ok_or_else(|| unsupported(format!("no stage encodes {name} on a GPU")))?;
    let mut operations = stage.operations.clone();
    if plan.rate.low_power {
        operations.reverse();
    }
    let abilities: Vec<_> =
        operations.iter().filter_map(|operation| device.abilities.get(operation)).collect();
    let Some(largest) = abilities.first() else {
        return Err(unsupported(format!("the GPU doesn't encode {name}")));
    };
    let fits =
        |ability: &&&Ability| size.is_none_or(|(width, height)| ability.takes(width, height));
    match abilities.iter().find(fits) {
        Some(ability) => Ok((&stage.encoder, ability)),
        None => {
            let text = format!("the GPU encodes {name} {}", up_to(largest));
            Err(Reason::new(ReasonKind::Size, text))
        }
    }
}

fn decoder<'a>(
    stages: &'a GpuStages,
    device: &Device,
    plan: &VideoEncode,
    source: &SourceStream,
) -> Result<(&'a Chain, Facts), Reason> {
    let unsupported = |text| Reason::new(ReasonKind::DecoderUnsupported, text);
    let stage = source.gpu_decoder.and_then(|index| stages.decoders.get(index));
    let stage =
        stage.ok_or_else(|| unsupported(format!("no stage decodes {} on a GPU", source.caps)))?;
    let ability = device.abilities.get(&stage.operation);
    let ability =
        ability.ok_or_else(|| unsupported(format!("no {} on the GPU", stage.operation)))?;
    let (width, height) = source.size.ok_or_else(|| {
        let text = "the container doesn't state the picture's size";
        Reason::new(ReasonKind::SourceUnknown, text)
    })?;
    if !ability.takes(width, height) {
        let text = format!("{} on the GPU {}", stage.operation, up_to(ability));
        return Err(Reason::new(ReasonKind::Size, text));
    }
    let scaler = device.abilities.get(&Operation::Scale);
    let scaler = scaler.ok_or_else(|| Reason::new(ReasonKind::Scale, "the GPU doesn't scale"))?;
    let mut facts = Facts::new();
    if plan.deinterlace.is_some() {
        let deinterlacer = device
            .deinterlacer
            .clone()
            .ok_or_else(|| Reason::new(ReasonKind::Deinterlace, "the GPU doesn't deinterlace"))?;
        facts.insert("deinterlacer", deinterlacer);
    }
    if source.turn.is_some() && !device.abilities.contains_key(&Operation::Turn) {
        return Err(Reason::new(ReasonKind::Turn, "the GPU doesn't turn pictures"));
    }
    if let Some(tone_map) = &plan.tone_map {
        facts.extend(tone_facts(device, tone_map, stage.operation));
    }
    facts.insert("decoder", ability.element.clone());
    facts.insert("scaler", scaler.element.clone());
    Ok((&stage.chain, facts))
}

/// Who maps the tones of a picture that is decoded on the GPU: its driver where the command leaves the
/// curve to it, else the software between decoder and encoder, so that the picture is what the command
/// says. Decoding, scaling and encoding stay on the GPU either way.
fn tone_facts(device: &Device, plan: &ToneMap, decode: Operation) -> Facts {
    // From eight bits to the ten that are mapped would be a conversion, and those aren't mapped.
    let ten_bit = decode == Operation::DecodeHevc10;
    let by_driver = plan.curve == ToneCurve::Driver && plan.from == HdrTransfer::Pq && ten_bit;
    let mapper = device.abilities.get(&Operation::ToneMap).filter(|_| by_driver);
    let balancer = device.abilities.get(&Operation::Balance);
    if let Some(mapper) = mapper.filter(|_| !balances(plan) || balancer.is_some()) {
        let mut facts = Facts::from([("tone_mapper", mapper.element.clone())]);
        if let Some(balancer) = balancer.filter(|_| balances(plan)) {
            facts.insert("balancer", balancer.element.clone());
        }
        return facts;
    }
    let colorimetry = match plan.from {
        HdrTransfer::Pq => "bt2100-pq",
        HdrTransfer::Hlg => "bt2100-hlg",
    };
    Facts::from([("tones_off_gpu", colorimetry.to_owned())])
}

/// Whether brightness or contrast are to be changed.
fn balances(plan: &ToneMap) -> bool {
    plan.brightness.is_some_and(|by| by != 0.0) || plan.contrast.is_some_and(|by| by != 1.0)
}

fn up_to(ability: &Ability) -> String {
    match ability.max_size {
        Some((width, height)) => format!("only up to {width}x{height}"),
        None => "at no size".to_owned(),
    }
}

/// Rate control and keyframes in the elements' terms.
fn encoder_facts(plan: &VideoEncode, ability: &Ability) -> Facts {
    let mut facts = Facts::new();
    let rate = &plan.rate;
    let wanted = rate.mode.as_deref().unwrap_or("vbr").to_ascii_lowercase();
    let has = |mode: &str| ability.rate_control.iter().any(|known| known == mode);
    let mode = [wanted.as_str(), "vbr", "cbr"].into_iter().find(|mode| has(mode));
    let highest = rate.max_bitrate.or(rate.bitrate);
    let target = rate.bitrate.or_else(|| Some(highest? * USUAL_SHARE / 100));
    if let (Some(mode), Some(target), Some(highest)) = (mode, target, highest) {
        facts.insert("rate_control", mode.to_owned());
        facts.insert("target_kbps", (target / 1000).max(1).to_string());
        if mode == "vbr" {
            let share = (target * 100 / highest.max(1)).clamp(LEAST_SHARE, 100);
            facts.insert("target_percentage", share.to_string());
        }
        if let Some(buffer) = rate.buffer_bits {
            facts.insert("cpb_kbit", (buffer / 1000).max(1).to_string());
        }
    }
    if let Some(level) = rate.compression_level {
        facts.insert("target_usage", level.clamp(1, 7).to_string());
    }
    let distance = match plan.keyframes {
        Keyframes::Every(_) => LONGEST_GOP,
        Keyframes::EveryFrames(frames) => frames.min(LONGEST_GOP),
    };
    facts.insert("gpu_key_int_max", distance.to_string());
    facts
}
