//! The ways in which a picture can be encoded, and what each asks of GPU and processor. Pure.
//!
//! In the order in which they are to be had: on each GPU as the command says, on each GPU faster, in
//! software as the command says, in software faster.
//!
//! Invariant: the graph that is built for an option has its elements where the option's work says.

use ffmpeg_args::{Transcode, VideoAction, VideoCodec, VideoEncode};
use gpu::{Action, Device, Step, Task, Work};

use crate::graph::software_preset;
use crate::link::Gpu;
use crate::stages::{SourceStream, Stages};
use crate::vaapi::{Choice, choose, output_size};

/// Of a source that doesn't say.
const USUAL_SIZE: (u32, u32) = (1920, 1080);
/// Frames per second of a source that doesn't say.
const USUAL_RATE: f64 = 25.0;
/// VA-API's `target-usage` of the least quality, which is the fastest.
const FASTEST_USAGE: u32 = 7;
/// x264's and x265's presets that are faster than usual, the fastest first.
const FAST_PRESETS: [&str; 3] = ["ultrafast", "superfast", "veryfast"];

/// A way to run a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    /// What it asks for.
    pub work: Work,
    /// The GPUs that are left to it. More than one if none of them has a part in it: why not is found
    /// out as the graph is described.
    pub devices: Vec<Device>,
    faster: Option<Faster>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Faster {
    /// Of a software encoder.
    Preset(&'static str),
    /// Of a GPU's.
    Usage,
}

impl Way {
    /// The plan that leads there.
    pub fn plan(&self, plan: &Transcode) -> Transcode {
        let mut plan = plan.clone();
        if let Some(VideoAction::Encode(encode)) = plan.video.as_mut().map(|v| &mut v.action) {
            match &self.faster {
                Some(Faster::Preset(preset)) => encode.preset = Some((*preset).to_owned()),
                Some(Faster::Usage) => encode.rate.compression_level = Some(FASTEST_USAGE),
                None => {}
            }
        }
        plan
    }
}

/// All ways for a picture of `rate` frames per second. None if it can't be run as the gateway wants.
pub fn ways(
    stages: &Stages,
    plan: &VideoEncode,
    gpu: Gpu<'_>,
    source: &SourceStream,
    rate: Option<(u32, u32)>,
) -> Vec<Way> {
    let picture = Picture::new(plan, source, rate);
    let chosen = |device: &Device| {
        let stages = stages.gpu.as_ref()?;
        let choice = choose(stages, device, plan, source);
        (choice.backend() != "software").then(|| (device.clone(), Parts::of(&choice)))
    };
    let mut on_gpus: Vec<(Device, Parts)> = gpu.devices.iter().filter_map(chosen).collect();
    // Both halves before the encoder alone before the decoder alone; of equals the gateway's first.
    on_gpus.sort_by_key(|(_, parts)| std::cmp::Reverse((parts.encodes, parts.decodes)));
    let way = |device: &Option<(Device, Parts)>, faster: Option<Faster>| {
        let parts = device.as_ref().map_or_else(Parts::default, |(_, parts)| parts.clone());
        let steps = picture.steps(plan, source, &parts, faster.as_ref());
        let node = device.as_ref().map(|(device, _)| device.node.clone());
        let devices = device.iter().map(|(device, _)| device.clone()).collect();
        Way { work: Work { node, faster: faster.is_some(), steps }, devices, faster }
    };
    let quicker = |parts: &Parts| -> Vec<Faster> {
        if !parts.encodes {
            return faster_presets(software_preset(plan)).map(Faster::Preset).collect();
        }
        let slower = plan.rate.compression_level.is_none_or(|level| level < FASTEST_USAGE);
        slower.then_some(Faster::Usage).into_iter().collect()
    };
    let places: Vec<_> = on_gpus.iter().cloned().map(Some).collect();
    let mut ways: Vec<Way> = places.iter().map(|place| way(place, None)).collect();
    for place in &places {
        let parts = place.as_ref().map(|(_, parts)| parts.clone()).unwrap_or_default();
        ways.extend(quicker(&parts).into_iter().map(|faster| way(place, Some(faster))));
    }
    if gpu.software {
        let mut software = vec![way(&None, None)];
        let faster = quicker(&Parts::default());
        software.extend(faster.into_iter().map(|faster| way(&None, Some(faster))));
        if ways.is_empty() {
            let all = |way: Way| Way { devices: gpu.devices.to_vec(), ..way };
            software = software.into_iter().map(all).collect();
        }
        ways.extend(software);
    }
    ways
}

/// Faster ones than `preset`, the next first.
fn faster_presets(preset: &str) -> impl Iterator<Item = &'static str> {
    let own = FAST_PRESETS.iter().position(|known| *known == preset);
    FAST_PRESETS[..own.unwrap_or(FAST_PRESETS.len())].iter().rev().copied()
}

/// What of a stream a GPU takes.
#[derive(Debug, Clone, Default)]
struct Parts {
    decodes: bool,
    encodes: bool,
    low_power: bool,
    maps_tones: bool,
}

impl Parts {
    fn of(choice: &Choice<'_>) -> Self {
        Self {
            decodes: choice.decoder.is_some(),
            encodes: choice.encoder.is_some(),
            low_power: choice.facts.get("encoder").is_some_and(|name| name.ends_with("lpenc")),
            maps_tones: choice.facts.contains_key("tone_mapper"),
        }
    }
}

/// Rates of pictures, in megapixels per second of media.
#[derive(Debug, Clone, Copy)]
struct Picture {
    decoded: f64,
    /// Behind a deinterlacer, which may make two of one.
    filtered: f64,
    /// As large as the output.
    scaled: f64,
    encoded: f64,
    resized: bool,
}

impl Picture {
    fn new(plan: &VideoEncode, source: &SourceStream, rate: Option<(u32, u32)>) -> Self {
        let size = source.size.unwrap_or(USUAL_SIZE);
        let output = output_size(plan, source.turn, size);
        let megapixels = |(width, height): (u32, u32)| f64::from(width) * f64::from(height) / 1e6;
        let per_second = |(frames, seconds): (u32, u32)| f64::from(frames) / f64::from(seconds);
        let frames = rate.map_or(USUAL_RATE, per_second);
        let fields = plan.deinterlace.is_some_and(|how| how.per_field);
        let filtered = if fields { 2.0 * frames } else { frames };
        // The cadence drops what is too much before it is scaled.
        let encoded = plan.frame_rate.map_or(filtered, |cap| per_second(cap).min(filtered));
        Self {
            decoded: megapixels(size) * frames,
            filtered: megapixels(size) * encoded,
            scaled: megapixels(output) * encoded,
            encoded: megapixels(output) * encoded,
            resized: output != size,
        }
    }

    fn steps(
        &self,
        plan: &VideoEncode,
        source: &SourceStream,
        parts: &Parts,
        faster: Option<&Faster>,
    ) -> Vec<Step> {
        let step = |task, on_gpu, megapixels| Step { task, on_gpu, megapixels };
        let mut steps =
            vec![step(Task::decode(&codec_of(&source.caps)), parts.decodes, self.decoded)];
        if plan.deinterlace.is_some() {
            steps.push(step(Task::filter(Action::Deinterlace), parts.decodes, self.decoded));
        }
        // On a GPU pictures go through the scaler in any case; it is what turns and converts them.
        if parts.decodes || self.resized {
            steps.push(step(Task::filter(Action::Scale), parts.decodes, self.filtered));
        }
        if plan.tone_map.is_some() {
            steps.push(step(Task::filter(Action::ToneMap), parts.maps_tones, self.scaled));
        }
        let codec = match plan.codec {
            VideoCodec::H264 => "h264",
            VideoCodec::Hevc => "hevc",
        };
        let task = match (parts.encodes, faster) {
            (false, Some(Faster::Preset(preset))) => Task::encode(codec, preset),
            (false, _) => Task::encode(codec, software_preset(plan)),
            (true, faster) => {
                let asked = plan.rate.compression_level.map(|level| level.clamp(1, FASTEST_USAGE));
                let usage = faster.map(|_| FASTEST_USAGE).or(asked);
                let preset = usage.map(|usage| usage.to_string()).unwrap_or_default();
                let codec =
                    if parts.low_power { format!("{codec}_low_power") } else { codec.into() };
                Task::encode(&codec, &preset)
            }
        };
        steps.push(step(task, parts.encodes, self.encoded));
        steps
    }
}

/// The short name of what caps say, with the depth of its samples if that isn't eight bits.
fn codec_of(caps: &str) -> String {
    let media = caps.split([',', ' ']).next().unwrap_or_default();
    let name = match media {
        "video/x-h265" => "hevc",
        "video/mpeg" if caps.contains("mpegversion=(int)4") => "mpeg4",
        "video/mpeg" => "mpeg2",
        other => other.trim_start_matches("video/").trim_start_matches("x-"),
    };
    let ten = ["main-10", "high-10", "bit-depth-luma=(uint)10", "bit-depth-luma=10"];
    let ten = ten.iter().any(|mark| caps.contains(mark))
        || media == "video/x-vp9" && caps.contains("profile=(string)2");
    if ten { format!("{name}10") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ffmpeg_args::Plan;
    use gpu::{Ability, Operation};

    use super::*;

    fn plan(filter: &str) -> VideoEncode {
        let command = format!(
            "-i file:/a.mkv -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s \
             -codec:v:0 libx264 -preset veryfast -crf 23 -force_key_frames:0 expr:gte(t,n_forced*3) \
             -vf {filter} -codec:a:0 copy -copyts -avoid_negative_ts disabled \
             -max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time 3 \
             -hls_segment_type mpegts -start_number 0 -hls_segment_filename /t/id%d.ts \
             -hls_playlist_type vod -hls_list_size 0 -y /t/id.m3u8"
        );
        let arguments: Vec<_> = command.split_whitespace().map(Into::into).collect();
        match ffmpeg_args::plan(&arguments) {
            Plan::Transcode(plan) => plan.encoded_video().unwrap().clone(),
            Plan::Passthrough(why) => panic!("{why:?}"),
        }
    }

    fn device(node: &str, operations: &[Operation]) -> Device {
        let ability = |operation: &Operation| {
            let element = format!("va{}", operation.element_suffix().unwrap());
            (*operation, Ability { element, max_size: None, rate_control: vec!["vbr".into()] })
        };
        let abilities: BTreeMap<_, _> = operations.iter().map(ability).collect();
        Device { node: node.into(), driver: String::new(), abilities, deinterlacer: None }
    }

    /// 1080p of H.264.
    fn film(stages: &Stages) -> SourceStream {
        let decoders = &stages.gpu.as_ref().unwrap().decoders;
        let on_gpu = decoders.iter().position(|one| one.operation == Operation::DecodeH264);
        SourceStream {
            caps: "video/x-h264, profile=(string)high".into(),
            decoder: None,
            copy: None,
            gpu_decoder: on_gpu,
            size: Some((1920, 1080)),
            turn: None,
        }
    }

    /// Node, whether faster, and the steps of each way.
    #[track_caller]
    fn check(filter: &str, devices: &[Device], software: bool, expect: &[&str]) {
        let stages = Stages::shipped().unwrap();
        let gpu = Gpu { devices, software };
        let ways = ways(&stages, &plan(filter), gpu, &film(&stages), Some((24, 1)));
        let said: Vec<String> = ways
            .iter()
            .map(|way| {
                let node = way.work.node.as_ref().map_or("-".into(), |n| n.display().to_string());
                let step = |step: &Step| {
                    let place = if step.on_gpu { "gpu" } else { "cpu" };
                    format!("{} {place} {:.1}", step.task, step.megapixels)
                };
                let steps: Vec<String> = way.work.steps.iter().map(step).collect();
                format!("{node} {} {}", way.work.faster, steps.join(", "))
            })
            .collect();
        assert_eq!(said, expect);
    }

    #[test]
    fn ways_come_in_their_order_with_what_they_ask_for() {
        use Operation::{DecodeH264, EncodeH264, Scale};
        let both = device("a", &[DecodeH264, EncodeH264, Scale]);
        let encodes = device("b", &[EncodeH264]);
        check(
            "scale=1280:720,format=yuv420p",
            &[encodes, both.clone()],
            true,
            &[
                "a false decode h264 gpu 49.8, scale gpu 49.8, encode h264 gpu 22.1",
                "b false decode h264 cpu 49.8, scale cpu 49.8, encode h264 gpu 22.1",
                "a true decode h264 gpu 49.8, scale gpu 49.8, encode h264 7 gpu 22.1",
                "b true decode h264 cpu 49.8, scale cpu 49.8, encode h264 7 gpu 22.1",
                "- false decode h264 cpu 49.8, scale cpu 49.8, encode h264 veryfast cpu 22.1",
                "- true decode h264 cpu 49.8, scale cpu 49.8, encode h264 superfast cpu 22.1",
                "- true decode h264 cpu 49.8, scale cpu 49.8, encode h264 ultrafast cpu 22.1",
            ],
        );
        // Not without a GPU; and none that only scales.
        let ways = [
            "a false decode h264 gpu 49.8, scale gpu 49.8, encode h264 gpu 49.8",
            "a true decode h264 gpu 49.8, scale gpu 49.8, encode h264 7 gpu 49.8",
        ];
        check("format=yuv420p", &[device("c", &[Scale]), both], false, &ways);
        check("format=yuv420p", &[device("c", &[Scale])], false, &[]);
        check(
            "yadif=1:-1:0,format=yuv420p",
            &[],
            true,
            &[
                "- false decode h264 cpu 49.8, deinterlace cpu 49.8, encode h264 veryfast cpu 99.5",
                "- true decode h264 cpu 49.8, deinterlace cpu 49.8, encode h264 superfast cpu 99.5",
                "- true decode h264 cpu 49.8, deinterlace cpu 49.8, encode h264 ultrafast cpu 99.5",
            ],
        );
    }

    /// Why a GPU has no part in it is said by the graph's description, which needs to see it.
    #[test]
    fn what_is_no_use_stays_to_be_explained() {
        let stages = Stages::shipped().unwrap();
        let useless = [device("c", &[Operation::Scale])];
        let gpu = Gpu { devices: &useless, software: true };
        let ways = ways(&stages, &plan("format=yuv420p"), gpu, &film(&stages), None);
        assert!(ways.iter().all(|way| way.devices == useless && way.work.node.is_none()));
        let both = [device("a", &[Operation::EncodeH264])];
        let ways = super::ways(
            &stages,
            &plan("format=yuv420p"),
            Gpu { devices: &both, software: true },
            &film(&stages),
            None,
        );
        assert_eq!(ways.iter().filter(|way| way.devices.is_empty()).count(), 3, "in software");
    }

    #[test]
    fn codecs_have_short_names() {
        let check = |caps: &str, expect: &str| assert_eq!(codec_of(caps), expect);
        check("video/x-h264, profile=(string)high", "h264");
        check("video/x-h264, profile=(string)high-10", "h26410");
        check("video/x-h265, profile=(string)main-10, width=(int)8", "hevc10");
        check("video/x-vp9, profile=(string)2", "vp910");
        check("video/mpeg, mpegversion=(int)2", "mpeg2");
        check("video/mpeg, mpegversion=(int)4", "mpeg4");
        check("video/x-av1", "av1");
    }

    #[test]
    fn presets_get_faster() {
        let check = |preset: &str, expect: &[&str]| {
            assert_eq!(faster_presets(preset).collect::<Vec<_>>(), expect);
        };
        check("medium", &["veryfast", "superfast", "ultrafast"]);
        check("veryfast", &["superfast", "ultrafast"]);
        check("ultrafast", &[]);
    }
}
