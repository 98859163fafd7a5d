//! The same packets in one file: written here, and copied there by ffmpeg itself.

use std::fs;
use std::path::Path;

use ffmpeg_args::{FileFormat, ProgressiveOutput};
use hls::{Event, Progressive, Sample, Timing};

use super::source::{Source, ffmpeg, ffprobe};
use super::{hex, without_sdt};

/// ffmpeg's muxer for a name.
fn format(name: &str) -> FileFormat {
    match name.rsplit('.').next() {
        Some("mp4" | "m4a") => FileFormat::FragmentedMp4,
        Some("ts") => FileFormat::MpegTs,
        Some("mkv") => FileFormat::Matroska,
        Some("webm") => FileFormat::WebM,
        Some("mp3") => FileFormat::Mp3,
        Some("aac") => FileFormat::Adts,
        Some("flac") => FileFormat::Flac,
        Some("ogg") => FileFormat::Ogg,
        other => panic!("{other:?}"),
    }
}

/// Writes `samples` to `ours.{ext}`; gives the file's sizes after each write.
fn write(dir: &Path, source: &Source, samples: Vec<Sample>, timing: Timing, ext: &str) -> Vec<u64> {
    let name = format!("ours.{ext}");
    let output =
        ProgressiveOutput { directory: dir.to_owned(), format: format(&name), name: name.clone() };
    let path = dir.join(&name);
    let _ = fs::remove_file(&path);
    let directory = fs::File::open(dir).unwrap().into();
    let tracks = source.tracks();
    let committing = path.clone();
    let observer = move |event| {
        assert_eq!(event, Event::Committing);
        assert!(!committing.exists(), "said after the file was there");
    };
    let mut file = Progressive::new(directory, &output, timing, &tracks, observer).unwrap();
    let mut sizes = vec![0];
    let mut look = |file: &Progressive| {
        let size = fs::metadata(&path).map_or(0, |meta| meta.len());
        assert_eq!(size, file.counters().bytes);
        if size != *sizes.last().unwrap() {
            assert!(size > *sizes.last().unwrap());
            sizes.push(size);
        }
    };
    // Each track at its own pace, the sound behind.
    let (first, rest): (Vec<_>, Vec<_>) = samples.into_iter().partition(|sample| sample.track == 0);
    let mut rest = rest.into_iter().peekable();
    for sample in first {
        let until = sample.dts - 400_000_000;
        while let Some(behind) = rest.next_if(|behind| behind.dts < until) {
            file.push(behind).unwrap();
        }
        file.push(sample).unwrap();
        look(&file);
    }
    file.end_track(0).unwrap();
    rest.for_each(|sample| file.push(sample).unwrap());
    let counters = file.finish().unwrap();
    let size = fs::metadata(&path).unwrap().len();
    assert_eq!(counters.bytes, size);
    sizes.push(size);
    sizes
}

/// Both files; sizes of ours while it grew.
fn run(dir: &Path, source: &Source, start: &str, copyts: bool, ext: &str) -> Vec<u64> {
    let mut samples = source.packets(dir, start).samples;
    if !copyts {
        let zero = start.parse::<i64>().unwrap() * 1_000_000_000;
        for sample in &mut samples {
            sample.pts -= zero;
            sample.dts -= zero;
        }
    }
    source.file(dir, start, copyts, &format!("theirs.{ext}"));
    let timing = Timing { source_times: copyts, expected_end_ns: None };
    write(dir, source, samples, timing, ext)
}

fn check_ts(source: &Source, start: &str, copyts: bool) {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), source, start, copyts, "ts");
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let (ours, theirs) = (read("ours.ts"), read("theirs.ts"));
    let (ours, theirs) = (without_sdt(&ours), without_sdt(&theirs));
    if let Some(at) = ours.iter().zip(&theirs).position(|(a, b)| a != b) {
        panic!("{start}, {copyts}, packet {at}:\n{}\n{}", hex(ours[at]), hex(theirs[at]));
    }
    assert_eq!(ours.len(), theirs.len());
    let services = |name: &str| read(name).len() / 188;
    assert_eq!(services("ours.ts"), services("theirs.ts"));
}

/// What ffprobe says of a file: packets sorted, then streams.
fn probed(dir: &Path, name: &str, fields: &str) -> Vec<String> {
    let of = |entries: &str| {
        let arguments = ["-show_entries", entries, "-show_data_hash", "md5", "-of", "csv=p=0"];
        let text = ffprobe(dir, &[&arguments[..], &[name]].concat());
        // Side data leaves a comma behind.
        let mut lines: Vec<_> =
            text.lines().map(|line| line.trim_end_matches(',').to_owned()).collect();
        lines.retain(|line| !line.is_empty());
        lines.sort();
        lines
    };
    let mut lines = of(&format!("packet=stream_index,{fields},flags"));
    lines.extend(of("stream=index,codec_name,profile,level,width,height,extradata_size,\
                     sample_rate,channels,channel_layout,sample_aspect_ratio,avg_frame_rate"));
    lines
}

fn check_packets(source: &Source, start: &str, copyts: bool, ext: &str, fields: &str) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let sizes = run(dir, source, start, copyts, ext);
    let mut ours = probed(dir, &format!("ours.{ext}"), fields);
    let mut theirs = probed(dir, &format!("theirs.{ext}"), fields);
    for line in ours.iter_mut().chain(&mut theirs) {
        // x265 has its own account among the headers, which needn't be there.
        if line.contains("hevc,") {
            *line = line.rsplit_once(',').unwrap().0.to_owned();
        }
    }
    for (a, b) in ours.iter().zip(&theirs) {
        assert_eq!(a, b, "{ext}, start {start}, copyts {copyts}");
    }
    assert_eq!(ours.len(), theirs.len());
    grows_decodable(dir, ext, &sizes);
}

/// Whatever a reader finds between two writes decodes without a word.
fn grows_decodable(dir: &Path, ext: &str, sizes: &[u64]) {
    let whole = fs::read(dir.join(format!("ours.{ext}"))).unwrap();
    let cut = format!("cut.{ext}");
    // All of a part at once, and there are several.
    assert!(sizes.len() > 4, "{sizes:?}");
    let step = (sizes.len() / 8).max(1);
    // Ogg's headers are a part that nothing follows yet.
    for size in sizes.iter().skip(step.max(2)).step_by(step).chain(sizes.last()) {
        fs::write(dir.join(&cut), &whole[..usize::try_from(*size).unwrap()]).unwrap();
        // Into a clock that holds the container's milliseconds.
        let to_nothing = ["-vsync", "passthrough", "-f", "framecrc", "-"];
        let messages = ffmpeg(dir, &[&["-v", "error", "-i", &cut], &to_nothing[..]].concat());
        assert_eq!(messages, "", "{ext}, the first {size} of {} bytes", whole.len());
    }
}

#[test]
fn mpeg_ts_is_ffmpegs_byte_for_byte() {
    let source = Source::h264("24000/1001", "aac");
    for start in ["0", "5"] {
        for copyts in [true, false] {
            check_ts(&source, start, copyts);
        }
    }
    check_ts(&Source::h264("25", "ac3"), "5", false);
    check_ts(&Source::h264("24", "libmp3lame"), "0", true);
    check_ts(&Source::hevc("eac3"), "0", false);
    check_ts(&Source::sound(), "0", false);
}

#[test]
fn mp4_has_ffmpegs_times_and_headers() {
    for rate in ["24", "24000/1001"] {
        let source = Source::h264(rate, "aac");
        for (start, copyts) in [("0", true), ("0", false), ("5", true), ("5", false)] {
            check_packets(&source, start, copyts, "mp4", "pts,dts,duration");
        }
    }
    check_packets(&Source::h264("25", "libopus"), "0", false, "mp4", "pts,dts,duration");
    check_packets(&Source::hevc("ac3"), "5", false, "mp4", "pts,dts,duration");
    check_packets(&Source::sound(), "0", false, "mp4", "pts,dts,duration");
}

#[test]
fn matroska_has_ffmpegs_times_and_headers() {
    for rate in ["24", "24000/1001"] {
        let source = Source::h264(rate, "aac");
        for (start, copyts) in [("0", true), ("0", false), ("5", true), ("5", false)] {
            check_packets(&source, start, copyts, "mkv", "pts");
        }
    }
    // Opus out of MP4 ffmpeg moves once more by the decoder's delay; encoded it is as ours (the
    // worker's tests have that).
    for codec in ["libmp3lame", "ac3", "flac"] {
        check_packets(&Source::h264("25", codec), "0", false, "mkv", "pts");
    }
    check_packets(&Source::hevc("eac3"), "5", true, "mkv", "pts");
    check_packets(&Source::sound_of("libopus"), "0", false, "webm", "pts");
}

#[test]
fn sound_alone_has_ffmpegs_times_and_headers() {
    for (codec, ext) in [
        ("libmp3lame", "mp3"),
        ("aac", "aac"),
        ("aac", "m4a"),
        ("flac", "flac"),
        ("flac", "ogg"),
        ("libopus", "ogg"),
    ] {
        let fields = if ext == "mp3" || ext == "aac" || ext == "flac" { "size" } else { "pts" };
        check_packets(&Source::sound_of(codec), "0", false, ext, fields);
    }
}
