//! Real streams through the segmenter, measured against ffmpeg's own HLS muxer on the same packets.
//!
//! ffmpeg makes a source, takes it apart into packets, and copies it to HLS itself. The segmenter
//! gets the packets. MPEG-TS must come out byte for byte the same but for the service's name; of
//! fMP4 every time must be the same; and ffmpeg must decode everything without a word.

mod file;
mod source;

use std::fs;
use std::path::Path;

use ffmpeg_args::{Container, HlsOutput, PlaylistType};
use hls::{Segmenter, Track, TrackFormat};
use source::{Packets, Source, ffmpeg, ffprobe};

const PACKET: usize = 188;

fn output(container: Container) -> HlsOutput {
    HlsOutput {
        directory: "ours".into(),
        segment_suffix: if container == Container::MpegTs { ".ts" } else { ".mp4" }.into(),
        container,
        segment_seconds: 3.0,
        start_number: 0,
        segment_prefix: "x".into(),
        playlist: "x.m3u8".into(),
        playlist_type: PlaylistType::Vod,
        base_url: String::new(),
        max_delay_us: 5_000_000,
    }
}

fn fmp4(absolute: bool) -> Container {
    Container::Fmp4 { init: "x-1.mp4".into(), absolute, skip_sidx: false }
}

/// Writes the same packets with ffmpeg into `theirs` and with the segmenter into `ours`.
fn run(dir: &Path, source: &Source, start: &str, container: &Container) -> Packets {
    let packets = source.packets(dir, start);
    for name in ["ours", "theirs"] {
        let _ = fs::remove_dir_all(dir.join(name));
        fs::create_dir(dir.join(name)).unwrap();
    }
    source.hls(dir, start, container);

    let directory = fs::File::open(dir.join("ours")).unwrap().into();
    let tracks = source.tracks();
    let output = output(container.clone());
    let mut segmenter = Segmenter::new(directory, output, tracks, "test", |_| {}).unwrap();
    // Each track at its own pace, the sound far behind.
    let (video, audio): (Vec<_>, Vec<_>) =
        packets.samples.iter().cloned().partition(|sample| sample.track == 0);
    let mut audio = audio.into_iter();
    for (i, sample) in video.into_iter().enumerate() {
        segmenter.push(sample).unwrap();
        if i > 40 {
            audio.by_ref().take(4).for_each(|sample| segmenter.push(sample).unwrap());
        }
    }
    segmenter.end_track(0).unwrap();
    audio.for_each(|sample| segmenter.push(sample).unwrap());
    segmenter.finish().unwrap();
    packets
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A segment without its service description, where the two writers name themselves.
fn without_sdt(data: &[u8]) -> Vec<&[u8]> {
    data.chunks(PACKET).filter(|packet| packet[1] & 0x1f != 0 || packet[2] != 0x11).collect()
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_ts(source: &Source, start: &str) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir, source, start, &Container::MpegTs);
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    assert_eq!(names(&ours), names(&theirs));
    let text = |at: &Path| fs::read_to_string(at.join("x.m3u8")).unwrap();
    assert_eq!(text(&ours), text(&theirs));
    for name in names(&ours).iter().filter(|name| name.ends_with(".ts")) {
        let (a, b) = (fs::read(ours.join(name)).unwrap(), fs::read(theirs.join(name)).unwrap());
        let (a, b) = (without_sdt(&a), without_sdt(&b));
        let difference = a.iter().zip(&b).position(|(a, b)| a != b);
        if let Some(at) = difference {
            panic!("{name}, packet {at}:\n{}\n{}", hex(a[at]), hex(b[at]));
        }
        assert_eq!(a.len(), b.len(), "{name}");
    }
    decodes(&ours, ".ts");
}

/// Writes all segments in a row, behind their init file, as one file `whole`.
fn join(dir: &Path, suffix: &str) -> String {
    let mut whole = fs::read(dir.join("x-1.mp4")).unwrap_or_default();
    for number in 0.. {
        let Ok(data) = fs::read(dir.join(format!("x{number}{suffix}"))) else { break };
        whole.extend_from_slice(&data);
    }
    let name = format!("whole{suffix}");
    fs::write(dir.join(&name), &whole).unwrap();
    name
}

/// All segments in a row must decode without any message.
fn decodes(dir: &Path, suffix: &str) {
    let file = join(dir, suffix);
    let messages = ffmpeg(dir, &["-v", "warning", "-i", &file, "-f", "null", "-"]);
    assert_eq!(messages, "", "{}", dir.display());
}

/// Track, PTS, DTS, duration and flags of every packet, in the container's own ticks.
fn times(dir: &Path) -> Vec<String> {
    let file = dir.join("whole.mp4");
    let arguments =
        ["-show_entries", "packet=stream_index,pts,dts,duration,flags", "-of", "csv=p=0"];
    let text = ffprobe(dir, &[&arguments[..], &["-i", file.to_str().unwrap()]].concat());
    let mut lines: Vec<_> = text.lines().map(str::to_owned).filter(|l| !l.is_empty()).collect();
    lines.sort();
    lines
}

fn check_fmp4(source: &Source, start: &str, absolute: bool) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir, source, start, &fmp4(absolute));
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    assert_eq!(names(&ours), names(&theirs));
    let text = |at: &Path| fs::read_to_string(at.join("x.m3u8")).unwrap();
    assert_eq!(text(&ours), text(&theirs));
    decodes(&ours, ".mp4");
    join(&theirs, ".mp4");
    let (mut ours, mut theirs) = (times(&ours), times(&theirs));
    if absolute && start == "0" {
        // Sound before zero can't be written (module fmp4): ours begins at zero.
        theirs.retain(|line| !line.starts_with("1,-") && !line.starts_with("1,0,"));
        ours.retain(|line| !line.starts_with("1,0,"));
    }
    for (a, b) in ours.iter().zip(&theirs) {
        assert_eq!(a, b, "start {start}, absolute {absolute}");
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn mpeg_ts_of_h264_and_aac_is_ffmpegs_byte_for_byte() {
    let source = Source::h264("24", "aac");
    check_ts(&source, "0");
    check_ts(&source, "5");
}

#[test]
fn mpeg_ts_at_23_976_fps_is_ffmpegs_byte_for_byte() {
    check_ts(&Source::h264("24000/1001", "aac"), "0");
}

#[test]
fn mpeg_ts_of_hevc_is_ffmpegs_byte_for_byte() {
    check_ts(&Source::hevc("ac3"), "0");
}

#[test]
fn mpeg_ts_of_other_sound_is_ffmpegs_byte_for_byte() {
    for codec in ["eac3", "libmp3lame", "libopus"] {
        check_ts(&Source::h264("25", codec), "0");
    }
}

#[test]
fn fmp4_of_h264_and_aac_has_ffmpegs_times() {
    for rate in ["24", "24000/1001"] {
        let source = Source::h264(rate, "aac");
        for start in ["0", "5"] {
            check_fmp4(&source, start, true);
            check_fmp4(&source, start, false);
        }
    }
}

#[test]
fn fmp4_of_hevc_has_ffmpegs_times() {
    check_fmp4(&Source::hevc("eac3"), "0", true);
}

#[test]
fn fmp4_of_other_sound_has_ffmpegs_times() {
    for codec in ["ac3", "libmp3lame", "flac"] {
        check_fmp4(&Source::h264("25", codec), "0", true);
    }
}

#[test]
fn sound_alone_is_cut_and_timed_as_ffmpegs() {
    check_ts(&Source::sound(), "0");
    check_fmp4(&Source::sound(), "0", false);
}

/// Sample entries of codecs that ffmpeg names: `codec_tag_string` and what the boxes say.
#[test]
fn sample_entries_are_read_as_the_codecs_they_are() {
    let cases = [
        (Source::h264("25", "ac3"), "h264,avc1,ac3,ac-3"),
        (Source::h264("25", "libopus"), "h264,avc1,opus,Opus"),
        (Source::h264("25", "flac"), "h264,avc1,flac,fLaC"),
        (Source::hevc("eac3"), "hevc,hvc1,eac3,ec-3"),
    ];
    for (source, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &source, "0", &fmp4(true));
        let ours = dir.path().join("ours");
        decodes(&ours, ".mp4");
        let entries = ["-show_entries", "stream=codec_name,codec_tag_string", "-of", "csv=p=0"];
        let text = ffprobe(&ours, &[&entries[..], &["whole.mp4"]].concat());
        let lines: Vec<_> = text.split_terminator([',', '\n']).filter(|f| !f.is_empty()).collect();
        assert_eq!(lines.join(","), expected);
    }
}

#[test]
fn two_runs_write_the_same_init_file() {
    let source = Source::h264("24000/1001", "aac");
    let init = |start: &str| {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &source, start, &fmp4(true));
        fs::read(dir.path().join("ours/x-1.mp4")).unwrap()
    };
    assert_eq!(init("0"), init("5"));
}

/// Guards the test itself: the source must have what the comparisons are about.
#[test]
fn the_source_has_reordering_and_priming() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::h264("24", "aac");
    let packets = source.packets(dir.path(), "0");
    assert!(matches!(source.tracks()[0], Track { format: TrackFormat::H264 { .. } }));
    let first = |track| packets.samples.iter().find(|s| s.track == track).unwrap();
    assert_eq!((first(0).pts, first(0).dts), (0, -83_333_333));
    assert_eq!(first(1).pts, -21_333_333);
    assert!(packets.samples.iter().filter(|s| s.track == 0 && s.keyframe).count() > 3);
    let packets = source.packets(dir.path(), "5");
    assert_eq!(packets.samples.iter().find(|s| s.track == 0).unwrap().pts, 4_000_000_000);
}
