//! The step from plan to graph, as text.

mod support;

use std::path::Path;

use ffmpeg_args::*;
use support::{encode_of, plan};
use worker::graph::{Host, describe};
use worker::stages::{GpuDecoder, SOFTWARE, SourceStream, Stages};
use worker::turn::Rotation;

fn stream(stages: &Stages, caps: &str) -> SourceStream {
    let media = caps.split(',').next().unwrap();
    let find = |chains: &[worker::stages::Chain]| {
        chains.iter().position(|chain| chain.caps.split(',').next() == Some(media))
    };
    SourceStream {
        caps: caps.to_owned(),
        decoder: find(&stages.decoders),
        copy: find(&stages.copies),
        gpu_decoder: None,
        size: Some((1920, 1080)),
        turn: None,
    }
}

const HOST: Host<'static> = Host { cores: 4, hevc_in_slices: false, device: None };

fn graph(change: impl FnOnce(&mut Transcode)) -> String {
    let stages = Stages::parse(SOFTWARE).unwrap();
    let mut plan = plan(Path::new("in.mkv"), Path::new("out"));
    change(&mut plan);
    let video = stream(&stages, "video/x-h264");
    let audio = stream(&stages, "audio/x-ac3");
    match describe(&stages, &plan, HOST, Some(&video), Some(&audio)) {
        Ok(graph) => graph.to_string(),
        Err(error) => error.to_string(),
    }
}

fn audio_of(plan: &mut Transcode) -> &mut AudioEncode {
    match &mut plan.audio.as_mut().unwrap().action {
        AudioAction::Encode(encode) => encode,
        AudioAction::Copy => panic!("the plan copies"),
    }
}

#[test]
fn software_crf() {
    insta::assert_snapshot!(graph(|_| {}));
}

#[test]
fn bitrate_of_a_hardware_command() {
    insta::assert_snapshot!(graph(|plan| {
        let encode = encode_of(plan);
        encode.rate = RateControl {
            bitrate: Some(5_868_000),
            max_bitrate: Some(5_868_000),
            buffer_bits: Some(11_736_000),
            mode: Some("VBR".into()),
            ..RateControl::default()
        };
        encode.encoder = "h264_vaapi".into();
        encode.preset = None;
        encode.encoder_params.clear();
        encode.scale = Some(Scale::Exact { width: 426, height: 238 });
        encode.deinterlace = Some(Deinterlace { per_field: true });
    }));
}

#[test]
fn fixed_distance_of_keyframes() {
    insta::assert_snapshot!(graph(|plan| {
        encode_of(plan).keyframes = Keyframes::EveryFrames(72);
    }));
}

#[test]
fn hevc() {
    insta::assert_snapshot!(graph(|plan| {
        let encode = encode_of(plan);
        encode.codec = VideoCodec::Hevc;
        encode.encoder_params.clear();
        encode.rate.crf = Some(28.0);
    }));
}

#[test]
fn sound_encoders() {
    let codecs =
        [AudioCodec::Ac3, AudioCodec::Eac3, AudioCodec::Mp3, AudioCodec::Opus, AudioCodec::Flac];
    let graphs: Vec<String> = codecs
        .into_iter()
        .map(|codec| {
            graph(|plan| {
                plan.video = None;
                let audio = audio_of(plan);
                audio.codec = codec;
                audio.channels = None;
                audio.volume = Some(2.0);
            })
        })
        .collect();
    insta::assert_snapshot!(graphs.join("\n"));
}

#[test]
fn copies() {
    insta::assert_snapshot!(graph(|plan| {
        plan.video.as_mut().unwrap().action = VideoAction::Copy;
        plan.audio.as_mut().unwrap().action = AudioAction::Copy;
    }));
}

#[test]
fn a_codec_without_decoder_is_named() {
    let stages = Stages::parse(SOFTWARE).unwrap();
    let plan = plan(Path::new("in.mkv"), Path::new("out"));
    let video = stream(&stages, "video/x-unheard-of");
    let error = describe(&stages, &plan, HOST, Some(&video), None).unwrap_err();
    assert_eq!(error.to_string(), "software has no decoder for video/x-unheard-of");
}

// --- On a GPU ------------------------------------------------------------------------------------

/// A GPU as the probe finds a UHD 630: no low-power encoders, HEVC up to 1080p.
fn device() -> gpu::Device {
    use gpu::{Ability, Operation};
    let ability = |element: &str, width, height, modes: &[&str]| Ability {
        element: element.to_owned(),
        max_size: Some((width, height)),
        rate_control: modes.iter().map(|mode| (*mode).to_owned()).collect(),
    };
    gpu::Device {
        node: "/dev/dri/renderD129".into(),
        driver: "a driver".into(),
        abilities: [
            (Operation::DecodeH264, ability("varenderD129h264dec", 4096, 4096, &[])),
            (Operation::DecodeHevc10, ability("varenderD129h265dec", 8192, 8192, &[])),
            (Operation::EncodeH264, ability("varenderD129h264enc", 4096, 4096, &["cbr", "vbr"])),
            (Operation::EncodeHevc, ability("varenderD129h265enc", 1920, 1088, &["cqp", "cbr"])),
            (Operation::Scale, ability("varenderD129postproc", 16384, 16384, &[])),
        ]
        .into(),
        deinterlacer: None,
    }
}

#[test]
fn hevc_is_decoded_in_slices_where_frame_threads_lose_pictures() {
    let stages = Stages::parse(SOFTWARE).unwrap();
    let mut plan = plan(Path::new("in.mkv"), Path::new("out"));
    plan.audio = None;
    let threads = |caps, hevc_in_slices| {
        let video = stream(&stages, caps);
        let host = Host { hevc_in_slices, ..HOST };
        let graph = describe(&stages, &plan, host, Some(&video), None).unwrap();
        let nodes = graph.video.unwrap().nodes;
        let set = nodes.iter().flat_map(|node| &node.properties);
        let mut types = set.filter(|(name, _)| *name == "thread-type").map(|(_, v)| v.clone());
        types.next()
    };
    assert_eq!(threads("video/x-h265", true).as_deref(), Some("slice"));
    assert_eq!(threads("video/x-h265", false), None);
    assert_eq!(threads("video/x-h264", true), None);
}

/// As [`graph`], on this GPU; with the backend and its reason in front.
fn graph_on(
    device: &gpu::Device,
    source: (&str, Option<(u32, u32)>),
    change: impl FnOnce(&mut Transcode),
) -> String {
    graph_turned(device, source, None, change)
}

/// As [`graph_on`], of a picture that is turned.
fn graph_turned(
    device: &gpu::Device,
    source: (&str, Option<(u32, u32)>),
    turn: Option<Rotation>,
    change: impl FnOnce(&mut Transcode),
) -> String {
    let stages = Stages::shipped().unwrap();
    let mut plan = plan(Path::new("in.mkv"), Path::new("out"));
    plan.audio = None;
    change(&mut plan);
    let mut video = stream(&stages, source.0);
    video.size = source.1;
    video.turn = turn;
    let gpu = stages.gpu.as_ref().unwrap();
    let profile = source.0.split("profile=").nth(1);
    video.gpu_decoder = gpu.decoders.iter().position(|decoder| {
        let caps = &decoder.chain.caps;
        caps.starts_with(source.0.split(',').next().unwrap())
            && profile.is_some_and(|profile| caps.split([' ', ',', ')', ';']).any(|w| w == profile))
    });
    let host = Host { device: Some(device), ..HOST };
    let graph = describe(&stages, &plan, host, Some(&video), None).unwrap();
    let reason = graph.reason.as_ref().map_or("all on the GPU", |reason| &reason.text);
    format!("{}: {reason}\n{graph}", graph.backend)
}

const HD: Option<(u32, u32)> = Some((1920, 1080));
const H264: &str = "video/x-h264, profile=high";

#[test]
fn all_on_the_gpu() {
    insta::assert_snapshot!(graph_on(&device(), (H264, HD), |plan| {
        let encode = encode_of(plan);
        encode.encoder_params.clear();
        encode.rate = RateControl {
            bitrate: Some(5_868_000),
            max_bitrate: Some(5_868_000),
            buffer_bits: Some(11_736_000),
            mode: Some("VBR".into()),
            compression_level: Some(6),
            ..RateControl::default()
        };
    }));
}

#[test]
fn decoded_in_software_for_a_gpu() {
    // Constant quality has no equal: the limit stays, the average is a share of it.
    insta::assert_snapshot!(graph_on(&device(), ("video/x-h264", HD), |_| {}));
}

#[test]
fn decoded_on_a_gpu_for_software() {
    insta::assert_snapshot!(graph_on(
        &device(),
        ("video/x-h265, profile=main-10", Some((3840, 2160))),
        |plan| {
            let encode = encode_of(plan);
            encode.codec = VideoCodec::Hevc;
            encode.scale = None;
            encode.encoder_params.clear();
        }
    ));
}

/// The same with all that processes pictures.
fn processing_device() -> gpu::Device {
    let mut device = device();
    let scale = device.abilities[&gpu::Operation::Scale].clone();
    for operation in [gpu::Operation::Turn, gpu::Operation::ToneMap, gpu::Operation::Balance] {
        device.abilities.insert(operation, scale.clone());
    }
    device
}

/// One graph after another, each below what it is of.
fn under_titles(graphs: Vec<(&str, String)>) -> String {
    let titled = graphs.into_iter().map(|(title, graph)| format!("# {title}\n{graph}"));
    titled.collect::<Vec<_>>().join("\n")
}

#[test]
fn turned_on_a_gpu() {
    let turned = |turn, codec| {
        graph_turned(&processing_device(), (H264, HD), Some(turn), |plan| {
            let encode = encode_of(plan);
            encode.encoder_params.clear();
            encode.codec = codec;
        })
    };
    insta::assert_snapshot!(under_titles(vec![
        ("a quarter, encoded on the GPU", turned(Rotation::Quarter, VideoCodec::H264)),
        ("half, encoded on the GPU", turned(Rotation::Half, VideoCodec::Hevc)),
        (
            "three quarters, encoded in software",
            graph_turned(
                &{
                    let mut device = processing_device();
                    device.abilities.remove(&gpu::Operation::EncodeH264);
                    device
                },
                (H264, HD),
                Some(Rotation::ThreeQuarters),
                |_| {}
            )
        ),
    ]));
}

const HEVC10: (&str, Option<(u32, u32)>) = ("video/x-h265, profile=main-10", Some((3840, 2160)));

#[test]
fn tones_mapped_by_the_driver() {
    let graph = |device: &gpu::Device, turn, brightness| {
        graph_turned(device, HEVC10, turn, |plan| {
            let encode = encode_of(plan);
            encode.encoder_params.clear();
            let map = ToneMap::new(HdrTransfer::Pq, ToneCurve::Driver);
            encode.tone_map = Some(ToneMap { brightness, ..map });
        })
    };
    let mapped = |device: &gpu::Device, turn| graph(device, turn, None);
    let mut without_balance = processing_device();
    without_balance.abilities.remove(&gpu::Operation::Balance);
    let mut decodes = processing_device();
    decodes.abilities.remove(&gpu::Operation::EncodeH264);
    insta::assert_snapshot!(under_titles(vec![
        ("encoded on the GPU", mapped(&processing_device(), None)),
        ("turned", mapped(&processing_device(), Some(Rotation::Quarter))),
        ("brighter", graph(&processing_device(), None, Some(16.0))),
        ("brighter, by a driver that can't", graph(&without_balance, None, Some(16.0))),
        ("encoded in software", mapped(&decodes, None)),
    ]));
}

#[test]
fn tones_mapped_between_two_halves_of_a_gpu() {
    let mapped = |device: &gpu::Device, map: ToneMap| {
        graph_on(device, HEVC10, |plan| {
            let encode = encode_of(plan);
            encode.encoder_params.clear();
            encode.tone_map = Some(map);
        })
    };
    let mut decodes = processing_device();
    decodes.abilities.remove(&gpu::Operation::EncodeH264);
    let by_driver = ToneMap::new(HdrTransfer::Pq, ToneCurve::Driver);
    let with_settings = ToneMap {
        peak: Some(100.0),
        desaturation: Some(0.0),
        mode: Some("rgb".into()),
        ..ToneMap::new(HdrTransfer::Pq, ToneCurve::Bt2390)
    };
    insta::assert_snapshot!(under_titles(vec![
        ("a driver without", mapped(&device(), by_driver.clone())),
        ("another curve", mapped(&processing_device(), with_settings)),
        ("HLG", mapped(&processing_device(), ToneMap::new(HdrTransfer::Hlg, ToneCurve::Driver))),
        ("encoded in software", mapped(&decodes, ToneMap::new(HdrTransfer::Pq, ToneCurve::Hable))),
    ]));
}

#[test]
fn subtitles_last_before_the_encoder() {
    let burnt = |encode: &mut VideoEncode| {
        encode.encoder_params.clear();
        encode.subtitles = Some(Subtitles::Text(TextSubtitles {
            path: "lines.srt".into(),
            stream: None,
            charset: None,
            fonts: None,
            shift_seconds: 0.0,
        }));
    };
    let on = |device: &gpu::Device, source, tones: Option<ToneMap>| {
        graph_on(device, source, |plan| {
            burnt(encode_of(plan));
            encode_of(plan).tone_map = tones;
        })
    };
    let mut decodes = device();
    decodes.abilities.remove(&gpu::Operation::EncodeH264);
    let driver = ToneMap::new(HdrTransfer::Pq, ToneCurve::Driver);
    let software = graph(|plan| {
        plan.audio = None;
        burnt(encode_of(plan));
    });
    insta::assert_snapshot!(under_titles(vec![
        ("in software", software),
        ("all on the GPU", on(&device(), (H264, HD), None)),
        ("encoded in software", on(&decodes, (H264, HD), None)),
        ("decoded in software", on(&device(), ("video/x-h264", HD), None)),
        ("HDR by the driver", on(&processing_device(), HEVC10, Some(driver.clone()))),
        ("HDR by software", on(&device(), HEVC10, Some(driver))),
    ]));
}

#[test]
fn reasons_against_the_gpu() {
    let first_line = |text: String| text.lines().next().unwrap().to_owned();
    let h264 = |size, change: &dyn Fn(&mut Transcode)| {
        first_line(graph_on(&device(), (H264, size), |plan| change(plan)))
    };
    let interlaced = |plan: &mut Transcode| {
        encode_of(plan).deinterlace = Some(Deinterlace { per_field: false });
    };
    let mut without_scaler = device();
    without_scaler.abilities.remove(&gpu::Operation::Scale);
    let mut empty = device();
    empty.abilities.clear();
    let lines = [
        h264(HD, &interlaced),
        h264(None, &|_| {}),
        h264(Some((7680, 4320)), &|_| {}),
        first_line(graph_on(&without_scaler, (H264, HD), |_| {})),
        first_line(graph_on(&empty, (H264, HD), |_| {})),
        first_line(graph_turned(&device(), (H264, HD), Some(Rotation::Half), |_| {})),
        first_line(graph_on(&device(), ("video/x-h265, profile=main", HD), |_| {})),
        first_line(graph_on(&device(), ("video/x-vp8", HD), |_| {})),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn of_two_gpus_the_one_that_takes_more_of_the_stream() {
    use gpu::Operation::{DecodeH264, EncodeH264};
    let without = |node: &str, missing: &[gpu::Operation]| {
        let mut device = gpu::Device { node: node.into(), ..device() };
        device.abilities.retain(|operation, _| !missing.contains(operation));
        device
    };
    let decodes = without("decodes", &[EncodeH264]);
    let encodes = without("encodes", &[DecodeH264]);
    let neither = without("neither", &[EncodeH264, DecodeH264]);
    let (first, second) = (without("first", &[]), without("second", &[]));
    let stages = Stages::shipped().unwrap();
    let plan = plan(Path::new("in.mkv"), Path::new("out"));
    let VideoAction::Encode(encode) = &plan.video.as_ref().unwrap().action else { panic!() };
    let mut video = stream(&stages, "video/x-h264");
    video.size = HD;
    let is_h264 = |decoder: &GpuDecoder| decoder.operation == DecodeH264;
    video.gpu_decoder = stages.gpu.as_ref().unwrap().decoders.iter().position(is_h264);
    let check = |devices: &[&gpu::Device], expect: &str| {
        let devices: Vec<_> = devices.iter().map(|device| (*device).clone()).collect();
        let gpu = stages.gpu.as_ref().unwrap();
        let best = worker::vaapi::best(gpu, &devices, encode, &video).unwrap();
        assert_eq!(best.node, Path::new(expect));
    };
    check(&[&neither, &decodes, &encodes, &first], "first");
    check(&[&neither, &decodes, &encodes], "encodes");
    check(&[&neither, &decodes], "decodes");
    check(&[&second, &first], "second");
}
