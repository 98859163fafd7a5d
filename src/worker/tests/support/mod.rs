//! What the worker's tests need beside the test stand: plans and films.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

pub mod burnt;
pub mod case;
pub mod pgs;
pub mod sources;

use std::path::Path;

use ffmpeg_args::*;
pub use stand::clip::make as clip;
pub use stand::{Report, Run, gpu, line, output, pause, reference};

/// The plan of Jellyfin's plainest command for a file; adapt the rest.
pub fn plan(input: &Path, directory: &Path) -> Transcode {
    let first = |stream| StreamRef { input: 0, stream };
    Transcode {
        inputs: vec![Input {
            location: Location::File(input.to_owned()),
            read_rate: None,
            format: None,
            start_us: None,
            accurate: true,
        }],
        video: Some(Video {
            source: first(StreamSelect::Best),
            action: VideoAction::Encode(encode()),
            tag: None,
        }),
        audio: Some(Audio {
            source: first(StreamSelect::Best),
            action: AudioAction::Encode(AudioEncode {
                codec: AudioCodec::Aac,
                channels: Some(2),
                bitrate: Some(128_000),
                quality: None,
                sample_rate: None,
                volume: None,
                mix: None,
            }),
        }),
        start_at_zero: false,
        source_times: true,
        output: Output::Hls(HlsOutput {
            directory: directory.to_owned(),
            container: Container::MpegTs,
            segment_seconds: 3.0,
            start_number: 0,
            segment_prefix: "abc".into(),
            segment_suffix: ".ts".into(),
            playlist: "abc.m3u8".into(),
            playlist_type: PlaylistType::Vod,
            base_url: String::new(),
            max_delay_us: 5_000_000,
        }),
    }
}

fn encode() -> VideoEncode {
    VideoEncode {
        subtitles: None,
        codec: VideoCodec::H264,
        encoder: "libx264".into(),
        rate: RateControl {
            crf: Some(23.0),
            max_bitrate: Some(4_000_000),
            buffer_bits: Some(8_000_000),
            ..RateControl::default()
        },
        preset: Some("veryfast".into()),
        profile: Some("high".into()),
        level: Some(41),
        encoder_params: [
            ("subme", "0"),
            ("me_range", "16"),
            ("rc_lookahead", "10"),
            ("me", "hex"),
            ("open_gop", "0"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec(),
        keyframes: Keyframes::Every(3.0),
        deinterlace: None,
        scale: Some(Scale::Fit { max_width: 1280, max_height: 720 }),
        frame_rate: None,
        colour: Some(ColourTags {
            primaries: "bt709".into(),
            transfer: "bt709".into(),
            matrix: "bt709".into(),
        }),
        turn: Turn::AsMarked,
        tone_map: None,
    }
}

/// The plan's picture settings, to change.
pub fn encode_of(plan: &mut Transcode) -> &mut VideoEncode {
    match &mut plan.video.as_mut().unwrap().action {
        VideoAction::Encode(encode) => encode,
        VideoAction::Copy => panic!("the plan copies"),
    }
}
