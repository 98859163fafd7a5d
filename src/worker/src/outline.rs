//! The graph of a plan before there is a file: what the worker would build for the usual one.
//!
//! Which decoder it takes, and whether the GPU has one, follows from the file; here it is taken to
//! hold 1080p of H.264 (of HEVC of ten bits, if tones are mapped) and AAC.

use std::fmt::Write as _;

use ffmpeg_args::Transcode;
use gpu::{Ability, Device, Operation};

use crate::graph::{Host, describe};
use crate::stages::{SourceStream, Stages};

/// What a GPU is taken to do: everything but low-power encoding, under the names of the first one.
fn capable() -> Device {
    let modes = || ["cbr", "vbr", "cqp"].map(str::to_owned).to_vec();
    let low_power = [Operation::EncodeH264LowPower, Operation::EncodeHevcLowPower];
    let abilities = Operation::ALL.into_iter().filter(|one| !low_power.contains(one)).map(|one| {
        let suffix = one.element_suffix().unwrap_or_default();
        let rate_control = if one.encodes() { modes() } else { Vec::new() };
        (one, Ability { element: format!("va{suffix}"), max_size: None, rate_control })
    });
    Device {
        node: "/dev/dri/renderD128".into(),
        driver: String::new(),
        abilities: abilities.collect(),
        deinterlacer: Some("vadeinterlace".to_owned()),
    }
}

/// The stages' place for a media type.
fn stream(stages: &Stages, media: &str, decodes: Option<Operation>) -> SourceStream {
    let of = |caps: &str| caps.split(',').next() == Some(media);
    SourceStream {
        caps: media.to_owned(),
        decoder: stages.decoders.iter().position(|chain| of(&chain.caps)),
        copy: stages.copies.iter().position(|chain| of(&chain.caps)),
        gpu_decoder: stages.gpu.as_ref().and_then(|gpu| {
            gpu.decoders.iter().position(|decoder| Some(decoder.operation) == decodes)
        }),
        size: decodes.map(|_| (1920, 1080)),
        turn: None,
    }
}

/// The graph of each track, in software and on a GPU, one line each.
///
/// # Errors
/// What there is no element for.
pub fn outline(plan: &Transcode) -> anyhow::Result<String> {
    let stages = Stages::shipped()?;
    let (media, operation) = match plan.encoded_video().and_then(|encode| encode.tone_map.as_ref())
    {
        Some(_) => ("video/x-h265", Operation::DecodeHevc10),
        None => ("video/x-h264", Operation::DecodeH264),
    };
    let video = stream(&stages, media, Some(operation));
    let audio = stream(&stages, "audio/mpeg", None);
    let capable = capable();
    let mut text = String::new();
    for (place, device) in [("in software", None), ("on a GPU", Some(&capable))] {
        if device.is_some() && plan.encoded_video().is_none() {
            break;
        }
        let host = Host { cores: 1, hevc_in_slices: false, device };
        let graph = describe(&stages, plan, host, Some(&video), Some(&audio))?;
        let tracks = [("picture", &graph.video), ("sound", &graph.audio)];
        for (name, track) in tracks {
            // Sound is the same everywhere.
            let Some(track) = track.as_ref().filter(|_| device.is_none() || name == "picture")
            else {
                continue;
            };
            let place = if name == "sound" || track.copied { "" } else { place };
            let label = format!("{name} {place}");
            writeln!(text, "{:<22}{}", label.trim_end(), track.one_line())?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_backends_are_shown() {
        let command = "-i file:/a.mkv -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 \
                       -map -0:s -codec:v:0 libx264 -crf 23 -force_key_frames:0 \
                       expr:gte(t,n_forced*3) -vf format=yuv420p -codec:a:0 aac -copyts \
                       -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls \
                       -max_delay 5000000 -hls_time 6 -hls_segment_type mpegts -start_number 0 \
                       -hls_segment_filename /t/id%d.ts -hls_playlist_type vod -hls_list_size 0 \
                       -y /t/id.m3u8";
        let arguments: Vec<_> = command.split_whitespace().map(Into::into).collect();
        let ffmpeg_args::Plan::Transcode(plan) = ffmpeg_args::plan(&arguments) else {
            panic!("not planned");
        };
        let text = outline(&plan).unwrap();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let has = |line: &[&str], words: [&str; 3]| words.iter().all(|word| line.contains(word));
        assert!(has(&lines[0], ["software", "avdec_h264", "x264enc"]), "{text}");
        assert!(has(&lines[1], ["sound", "avdec_aac", "avenc_aac"]), "{text}");
        assert!(has(&lines[2], ["GPU", "vah264dec", "vah264enc"]), "{text}");
        assert_eq!(lines.len(), 3);
    }
}
