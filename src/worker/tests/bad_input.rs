//! Files that aren't what they should be.
//!
//! Each case ends in one message that says what was wrong and whose fault it was, or in a clean
//! ending; what stands in the directory then is whole, and the process is gone.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use ffmpeg_args::{Container, StreamSelect, Transcode, Turn, VideoAction};
use session::{Ending, Fault};
use support::case::{AUDIO, Case, VIDEO, ended, good, refused};
use support::gpu::under_test;
use support::{Report, Run, clip, encode_of};

// --- Files that are no media ---------------------------------------------------------------------

#[test]
fn zero_bytes() {
    let case = Case::new();
    let plan = case.plan(&case.file("in.mkv", b""));
    refused(&case, &plan, Fault::Input, "empty");
}

#[test]
fn text() {
    let case = Case::new();
    let plan = case.plan(&case.file("in.mkv", "no film, just words\n".repeat(500).as_bytes()));
    refused(&case, &plan, Fault::Unsupported, "text/plain");
}

#[test]
fn noise() {
    let case = Case::new();
    let mut state = 1_u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // No byte that could open a unit of AV1, which GStreamer 1.26 takes for enough.
        state.to_be_bytes()[0] | 0x80
    })
    .take(100_000)
    .collect();
    let plan = case.plan(&case.file("in.mkv", &bytes));
    refused(&case, &plan, Fault::Input, "container");
}

#[test]
fn directory() {
    let case = Case::new();
    let plan = case.plan(case.dir.path());
    refused(&case, &plan, Fault::Input, "directory");
}

// --- Truncated files -----------------------------------------------------------------------------

/// Not half a file: what was in it is written, and the log says that it isn't all.
#[track_caller]
fn cut_in_the_middle(source: &Path) {
    let case = Case::new();
    let bytes = fs::read(source).unwrap();
    let name = source.file_name().unwrap().to_str().unwrap();
    let input = case.file(name, &bytes[..bytes.len() * 2 / 5]);
    let report = Run::start(&case.plan(&input)).finish();
    ended(&case, &report, &Ending::Complete);
    let frames = case.whole();
    assert!((80..160).contains(&frames), "{frames} of 300 frames");
    assert!(
        report.lines.iter().any(|line| line.contains("breaks off")),
        "nothing said of it: {:?}",
        report.lines
    );
}

#[test]
fn matroska_cut_in_the_middle() {
    cut_in_the_middle(&good("bad-plain.mkv", ""));
}

#[test]
fn mp4_cut_in_the_middle() {
    cut_in_the_middle(&good("bad-front.mp4", "-movflags +faststart"));
}

/// A transport stream doesn't say how long it should be.
#[test]
fn mpegts_cut_in_the_middle() {
    let case = Case::new();
    let bytes = fs::read(good("bad-plain.ts", "")).unwrap();
    let input = case.file("in.ts", &bytes[..bytes.len() / 2]);
    let report = Run::start(&case.plan(&input)).finish();
    ended(&case, &report, &Ending::Complete);
    let frames = case.whole();
    assert!((100..200).contains(&frames), "{frames} of 300 frames");
}

#[test]
fn matroska_cut_in_the_header() {
    let case = Case::new();
    let bytes = fs::read(good("bad-plain.mkv", "")).unwrap();
    let plan = case.plan(&case.file("in.mkv", &bytes[..200]));
    refused(&case, &plan, Fault::Input, "");
}

#[test]
fn mp4_cut_in_the_header() {
    let case = Case::new();
    let bytes = fs::read(good("bad-front.mp4", "-movflags +faststart")).unwrap();
    let plan = case.plan(&case.file("in.mp4", &bytes[..400]));
    refused(&case, &plan, Fault::Input, "");
}

/// The table of an ordinary MP4 comes last: without it there is nothing to be had.
#[test]
fn mp4_cut_before_its_table() {
    let case = Case::new();
    let bytes = fs::read(good("bad-plain.mp4", "")).unwrap();
    let plan = case.plan(&case.file("in.mp4", &bytes[..bytes.len() / 2]));
    refused(&case, &plan, Fault::Input, "");
}

#[test]
fn mpegts_cut_in_the_header() {
    let case = Case::new();
    let bytes = fs::read(good("bad-plain.ts", "")).unwrap();
    let plan = case.plan(&case.file("in.ts", &bytes[..5 * 188 + 40]));
    refused(&case, &plan, Fault::Input, "");
}

// --- Streams that aren't there, or can't be decoded ----------------------------------------------

#[test]
fn no_video_stream() {
    let case = Case::new();
    let plan = case.plan(&clip("bad-sound.mka", &format!("-f lavfi -i sine=d=4 {AUDIO}")));
    refused(&case, &plan, Fault::Input, "no video stream");
}

#[test]
fn no_audio_stream() {
    let case = Case::new();
    let silent =
        clip("bad-silent.mkv", &format!("-f lavfi -i testsrc2=s=320x180:r=25:d=4 {VIDEO}"));
    refused(&case, &case.plan(&silent), Fault::Input, "no audio stream");
}

#[test]
fn codecs_without_a_decoder() {
    for (name, codec, words) in
        [("bad-ffv1.mkv", "ffv1", "ffv"), ("bad-prores.mov", "prores", "prores")]
    {
        let case = Case::new();
        let film = clip(
            name,
            &format!(
                "-f lavfi -i testsrc2=s=320x180:r=25:d=2 -f lavfi -i sine=d=2 -c:v {codec} {AUDIO}"
            ),
        );
        refused(&case, &case.plan(&film), Fault::Unsupported, words);
    }
}

#[test]
fn mapped_streams_that_are_missing_or_of_another_kind() {
    for name in ["bad-plain.mkv", "bad-plain.mp4", "bad-plain.ts"] {
        let case = Case::new();
        let mut plan = case.plan(&good(name, ""));
        plan.video.as_mut().unwrap().source.stream = StreamSelect::Index(9);
        refused(&case, &plan, Fault::Input, "stream 0:9 is mapped");
        plan.video.as_mut().unwrap().source.stream = StreamSelect::Index(1);
        refused(&case, &plan, Fault::Input, "stream 0:1 is mapped as video, it is audio");
        plan.video.as_mut().unwrap().source.input = 3;
        refused(&case, &plan, Fault::Input, "input 3 is mapped");
    }
}

/// A telephone's film that isn't to be turned: MP4 would carry the mark on, and this one's doesn't.
#[test]
fn a_mark_that_should_be_carried_on() {
    let plain = good("bad-plain.mp4", "");
    let name = "bad-turned.mp4";
    let turned = clip(name, &format!("-i {} -c copy -metadata:s:v rotate=90", plain.display()));
    let case = Case::new();
    let mut plan = case.plan(&turned);
    encode_of(&mut plan).turn = Turn::Never;
    support::case::hls_of(&mut plan).container =
        Container::Fmp4 { init: "abc-1.mp4".into(), absolute: true, skip_sidx: false };
    refused(&case, &plan, Fault::Unsupported, "marked rotate-");
    // Copied pictures are turned by whoever shows them.
    plan.video.as_mut().unwrap().action = VideoAction::Copy;
    ended(&case, &Run::start(&plan).finish(), &Ending::Complete);
}

// --- Damage inside -------------------------------------------------------------------------------

/// With a GPU under test, the picture was all on it.
#[track_caller]
fn all_on_the_gpu(report: &Report) {
    if let Some(gpu) = under_test().filter(|gpu| gpu.decodes() && gpu.encodes()) {
        assert_eq!(report.backend, "vaapi", "on {}: {}", gpu.device.driver, report.description);
    }
}

/// As a scratch on a disc does it.
fn scratched(mut bytes: Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2;
    for (at, byte) in bytes[middle..middle + 3000].iter_mut().enumerate() {
        *byte ^= (at * 31 + 7) as u8;
    }
    bytes
}

/// Plays to the end.
#[track_caller]
fn played_over(case: &Case, plan: &Transcode) -> Report {
    let report = Run::start(plan).finish();
    ended(case, &report, &Ending::Complete);
    let (segments, progress) = (report.segments.len(), report.progress);
    let whole = segments >= 4 && progress.position_us > 11_500_000;
    let (input, said) = (&plan.inputs[0].location.paths()[0], &report.lines);
    assert!(whole, "{}: {segments} segments, {progress:?}, {said:?}", input.display());
    report
}

#[test]
fn corrupt_bytes_are_played_over() {
    for name in ["bad-plain.mkv", "bad-plain.mp4", "bad-plain.ts"] {
        let case = Case::new();
        let bytes = scratched(fs::read(good(name, "")).unwrap());
        let report = played_over(&case, &case.plan(&case.file(name, &bytes)));
        let frames = case.whole();
        assert!((250..=301).contains(&frames), "{name}: {frames} of 300 frames");
        // The table of a transport stream doesn't say what a GPU's decoder has to know.
        if !name.ends_with(".ts") {
            all_on_the_gpu(&report);
        }
    }
}

#[test]
fn corrupt_bytes_are_copied() {
    let case = Case::new();
    let bytes = scratched(fs::read(good("bad-plain.ts", "")).unwrap());
    let mut plan = case.plan(&case.file("in.ts", &bytes));
    plan.video.as_mut().unwrap().action = VideoAction::Copy;
    played_over(&case, &plan);
}

/// Damage in the frames of a film's middle third alone: the container is as it was.
fn with_corrupt_frames(film: &Path) -> Vec<u8> {
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-show_entries", "packet=pos,size"])
        .args(["-of", "csv=p=0"])
        .arg(film)
        .output()
        .unwrap();
    let text = String::from_utf8(probe.stdout).unwrap();
    let packets: Vec<(usize, usize)> = text
        .lines()
        .filter_map(|line| line.trim_end_matches(',').split_once(','))
        .map(|(size, position)| (position.parse().unwrap(), size.parse().unwrap()))
        .collect();
    assert_eq!(packets.len(), 300, "{}", film.display());
    let mut bytes = fs::read(film).unwrap();
    for (position, size) in packets[100..200].iter().step_by(7) {
        // Of the packet: well behind what the container says of it.
        for byte in &mut bytes[position + size / 2..position + size * 3 / 4] {
            *byte ^= 0x5a;
        }
    }
    bytes
}

/// A sum of all that ffmpeg makes of the picture.
fn picture_sum(film: &Path) -> Vec<u8> {
    let decoded = Command::new("ffmpeg")
        .args(["-v", "quiet", "-i"])
        .arg(film)
        .args(["-an", "-f", "md5", "-"])
        .output()
        .unwrap();
    assert!(!decoded.stdout.is_empty(), "{}", film.display());
    decoded.stdout
}

/// Each codec has its own way to miss a reference.
#[test]
fn corrupt_frames_of_every_codec_are_played_over() {
    for (name, codec) in [
        ("bad-hevc.mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=50"),
        ("bad-vp9.mkv", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 50 -b:v 500k"),
        ("bad-mpeg2.mkv", "-c:v mpeg2video -g 50 -b:v 1M"),
        ("bad-bframes.mkv", "-c:v libx264 -preset veryfast -g 50"),
    ] {
        let case = Case::new();
        let whole = good(name, codec);
        let film = case.file(name, &with_corrupt_frames(&whole));
        assert_ne!(picture_sum(&film), picture_sum(&whole), "{name} is as good as before");
        let report = played_over(&case, &case.plan(&film));
        let frames = case.whole();
        assert!((200..=301).contains(&frames), "{name}: {frames} of 300 frames");
        all_on_the_gpu(&report);
    }
}

/// Broadcasts change their picture's size; the output keeps the first one, as ffmpeg's does.
#[test]
fn size_change_midway() {
    let half = |name: &str, size: &str, from: u32| {
        fs::read(clip(
            name,
            &format!(
                "-f lavfi -i testsrc2=s={size}:r=25:d=6 -f lavfi -i sine=d=6 {VIDEO} {AUDIO} \
                 -output_ts_offset {from}"
            ),
        ))
        .unwrap()
    };
    let both = [half("bad-small.ts", "320x180", 0), half("bad-large.ts", "640x360", 6)].concat();
    let case = Case::new();
    keeps_its_size(&case, &case.plan(&case.file("in.ts", &both)), "320,180");
}

/// The same where the container says what a GPU's decoder has to know, and says it of the first size.
#[test]
fn size_change_midway_in_matroska() {
    for (name, codec, form) in [
        ("bad-sizes-h264", "-c:v libx264 -preset ultrafast -g 50 -pix_fmt yuv420p", "h264"),
        (
            "bad-sizes-h265",
            "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=50:bframes=0 -pix_fmt yuv420p",
            "hevc",
        ),
    ] {
        for (first, second) in [("320x180", "640x360"), ("640x360", "320x180")] {
            let half = |size: &str| {
                let source = format!("-f lavfi -i testsrc2=s={size}:r=25:d=6 {codec} -f {form}");
                fs::read(clip(&format!("{name}-{size}.{form}"), &source)).unwrap()
            };
            let case = Case::new();
            let both = case.file("both", &[half(first), half(second)].concat());
            let film = case.dir.path().join("in.mkv");
            let sound = "-f lavfi -i sine=d=12 -map 0:v -map 1:a -c:v copy -c:a aac";
            let made = Command::new("ffmpeg")
                .args(["-v", "error", "-r", "25", "-f", form, "-i"])
                .arg(&both)
                .args(sound.split_whitespace())
                .arg(&film)
                .status();
            assert!(made.unwrap().success(), "{name}");
            let mut plan = case.plan(&film);
            let VideoAction::Encode(encode) = &mut plan.video.as_mut().unwrap().action else {
                panic!("expected a plan that encodes");
            };
            encode.scale = None;
            let report = keeps_its_size(&case, &plan, &first.replace('x', ","));
            all_on_the_gpu(&report);
        }
    }
}

/// Plays to the end, every frame in this size (`width,height`).
#[track_caller]
fn keeps_its_size(case: &Case, plan: &Transcode, expect: &str) -> Report {
    let report = Run::start(plan).finish();
    ended(case, &report, &Ending::Complete);
    let frames = case.whole();
    assert!((290..=301).contains(&frames), "{frames} of 300 frames: {}", report.description);
    for name in case.names().iter().filter(|name| name.ends_with(".ts")) {
        let probe = Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", "v", "-show_entries", "frame=width,height"])
            .args(["-of", "csv=p=0"])
            .arg(case.out().join(name))
            .output()
            .unwrap();
        let text = String::from_utf8(probe.stdout).unwrap();
        let sizes = text.lines().map(|line| line.trim_end_matches(',')).filter(|l| !l.is_empty());
        for size in sizes {
            assert_eq!(size, expect, "{name}");
        }
    }
    report
}
