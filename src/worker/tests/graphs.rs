//! The step from plan to graph, as text.

mod support;

use std::path::Path;

use ffmpeg_args::*;
use support::{encode_of, plan};
use worker::graph::{Host, describe};
use worker::stages::{SOFTWARE, SourceStream, Stages};

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
    }
}

const HOST: Host<'static> = Host { cores: 4, device: None };

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
