//! Sessions with the plain ffmpeg of PATH: what every other ffmpeg is measured against.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use jellyfin_sim::{
    Container, Download, FaultKind, Job, Kind, Media, Pace, Received, Report, Server, Settings,
    Template, follow, play,
};

/// 20 s of picture and sound, made once.
fn clip() -> PathBuf {
    static CLIP: OnceLock<PathBuf> = OnceLock::new();
    CLIP.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jellyfin-sim-clip.mkv");
        let status = Command::new("ffmpeg")
            .args("-v error -f lavfi -i testsrc2=s=160x90:r=24:d=20 -f lavfi".split(' '))
            .args("-i sine=d=19.9 -c:v libx264 -preset ultrafast -g 48 -c:a aac -y".split(' '))
            .arg(&path)
            .status()
            .expect("ffmpeg is installed (./dev setup)");
        assert!(status.success());
        path
    })
    .clone()
}

fn template(input: &Path, directory: &Path, container: Container) -> Template {
    let media = Media::probe(Path::new("ffprobe"), input).unwrap();
    assert!((19.9..20.1).contains(&media.runtime), "{media:?}");
    Template {
        kind: Kind::Software,
        container,
        input: input.into(),
        directory: directory.into(),
        id: "feed".to_owned(),
        segment_seconds: 3,
        encoder: None,
        video_bitrate: 1_000_000,
        height: 90,
        keyframes_fps: None,
        video_stream: media.video_stream,
        audio_stream: media.audio_stream,
        audio_encoder: "aac".to_owned(),
        format: None,
    }
}

fn session(container: Container, script: &str, pace: Pace) -> (Report, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("transcodes");
    let command = template(&clip(), &out, container).command();
    let server = Server::new(Settings::new("ffmpeg", 20.0), command).unwrap();
    let report = play(server, &script.parse().unwrap(), pace);
    let mut left: Vec<_> = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    (report, left)
}

#[track_caller]
fn check_clean(report: &Report) {
    assert!(report.faults.is_empty(), "{report}");
    assert!(report.segments.iter().all(|segment| segment.bytes > 0), "{report}");
    for run in &report.runs {
        assert_eq!(run.exit.map(|exit| exit.code), Some(0), "{report}");
        assert!(run.first_servable.is_some(), "{report}");
        assert!(run.log.head.iter().any(|line| line.starts_with("ffmpeg version")), "{run:?}");
    }
}

#[test]
fn a_viewer_plays_through() {
    let (report, left) = session(Container::Ts, "play all; finish", Pace::Fast);
    check_clean(&report);
    let numbers: Vec<_> = report.segments.iter().map(|segment| segment.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(report.runs.len(), 1);
    assert_eq!(left.len(), 8, "{left:?}");
    assert!(report.runs[0].log.readings > 0);
    let position = report.runs[0].log.last.and_then(|reading| reading.position).unwrap();
    assert!((19.0..21.0).contains(&position.as_secs_f64()), "{position:?}");
}

#[test]
fn a_viewer_seeks_forth_and_back_and_leaves() {
    let (report, left) = session(
        Container::Ts,
        "seek 12; play 1; seek 3; play 2; seek 12; play 1; leave",
        Pace::Fast,
    );
    check_clean(&report);
    let starts: Vec<_> = report.runs.iter().map(|run| run.start_number).collect();
    // Segment 4 stands from the first run, or was the newest and went when the second began.
    assert!(starts.starts_with(&[4, 1]), "{report}");
    let numbers: Vec<_> = report.segments.iter().map(|segment| segment.number).collect();
    assert_eq!(numbers, [4, 1, 2, 4]);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn fmp4_begins_with_the_init_file() {
    let (report, left) = session(Container::Fmp4, "play 3; stop", Pace::Fast);
    check_clean(&report);
    let numbers: Vec<_> = report.segments.iter().map(|segment| segment.number).collect();
    assert_eq!(numbers, [-1, 0, 1, 2]);
    assert!(left.contains(&"feed-1.mp4".to_owned()), "{left:?}");
}

#[test]
fn a_player_asks_no_faster_than_it_watches() {
    let pace = Pace::Watching { factor: 10.0, buffer_seconds: 3.0 };
    let (report, _) = session(Container::Ts, "play 6; stop", pace);
    check_clean(&report);
    let (first, last) = (&report.segments[0], report.segments.last().unwrap());
    // Five segments of 3 s, the buffer ahead, ten times as fast.
    assert!(last.requested - first.served >= 1.1, "{report}");
    assert_eq!(report.count(FaultKind::Missing), 0);
}

#[test]
fn a_logged_line_is_run_by_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let input = clip();
    let line = template(&input, Path::new("/cache/transcodes"), Container::Ts).line();
    let file = dir.path().join("line.txt");
    fs::write(&file, format!("# kind: hls-video-sw\n/usr/lib/jellyfin-ffmpeg/ffmpeg {line}\n"))
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_jellyfin-sim"))
        .args(["run-line", "--ffmpeg", "ffmpeg", "--script", "play 2; leave", "--json"])
        .arg("--command-file")
        .arg(&file)
        .arg("--out")
        .arg(dir.path().join("out"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["segments"].as_array().unwrap().len(), 2);
    assert_eq!(report["runs"][0]["exit"]["code"], 0);
    assert!(report["runs"][0]["first_servable"].is_f64());
}

/// One file; `stop` once there are so many bytes.
fn download(name: &str, stop: Option<usize>) -> Received {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join(name);
    let input = clip();
    let download =
        Download { input, output: output.clone(), start: None, source_times: false, copy: false };
    let mut job = Job::start(Path::new("ffmpeg"), &download.arguments(), &[], false).unwrap();
    let received = follow(&mut job, &output, Duration::from_secs(60), |job, bytes| {
        if stop.is_some_and(|stop| bytes >= stop) {
            job.stop();
        }
    });
    received.unwrap_or_else(|fault| panic!("{fault:?} {:?}", job.log()))
}

#[test]
fn a_growing_file_is_followed_to_its_end() {
    let received = download("id.mp4", None);
    assert_eq!(received.exit.code, 0);
    assert!(!received.rewritten);
    assert_eq!(&received.bytes[4..8], b"ftyp");
    // Matroska's length is filled in at the end, when a client has long read over it.
    assert!(download("id.mkv", None).rewritten);
}

#[test]
fn a_growing_file_is_stopped_by_q() {
    let received = download("id.ts", Some(20_000));
    assert!(received.bytes.len() >= 20_000);
    assert_eq!(received.bytes.len() % 188, 0);
    assert!(received.exit.code == 0 && !received.exit.killed, "{:?}", received.exit);
}

#[test]
fn a_file_that_never_comes_is_a_fault() {
    let mut job = Job::start(Path::new("false"), &[], &[], false).unwrap();
    let fault = follow(&mut job, Path::new("/nowhere/id.mp4"), Duration::from_secs(5), |_, _| {});
    assert_eq!(fault.unwrap_err().kind, FaultKind::StartFailed);
}
