//! Copied tracks obey as encoded ones do.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use ffmpeg_args::{AudioAction, VideoAction};
use session::{Control, Ending};
use support::{Run, clip, pause, plan};

/// Long enough that even a copy of it isn't over before it is paused.
fn long() -> PathBuf {
    let short = clip(
        "copies.mkv",
        "-f lavfi -i testsrc2=s=320x180:r=25:d=20 -f lavfi -i sine=d=20 \
         -c:v libx264 -preset ultrafast -g 25 -c:a aac",
    );
    clip("copies-long.mkv", &format!("-stream_loop 180 -i {} -c copy", short.display()))
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_paused_copy_writes_no_more_and_goes_on_when_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let mut plan = plan(&long(), directory.path());
    plan.video.as_mut().unwrap().action = VideoAction::Copy;
    plan.audio.as_mut().unwrap().action = AudioAction::Copy;
    let mut paused_at = None;
    let report = Run::start(&plan).finish_with(|run, number| {
        if number == 3 {
            run.control(Control::Pause);
            pause(500);
            let before = files(directory.path());
            pause(500);
            paused_at = Some((before, files(directory.path())));
            run.control(Control::Resume);
        }
    });
    let (before, after) = paused_at.expect("a fourth segment");
    assert_eq!(before, after, "it wrote on while paused");
    assert!(before < 1000, "it was over before it was paused: {before} files");
    assert_eq!(report.ending, Some(Ending::Complete));
    assert!(report.segments.len() > 1000, "{} segments", report.segments.len());
}

#[test]
fn copied_sound_ends_with_an_encoded_picture_on_quit() {
    let directory = tempfile::tempdir().unwrap();
    let mut plan = plan(&long(), directory.path());
    plan.audio.as_mut().unwrap().action = AudioAction::Copy;
    let report = Run::start(&plan).finish_with(|run, number| {
        if number == 1 {
            run.control(Control::Quit);
        }
    });
    assert_eq!(report.ending, Some(Ending::Quit));
    let (last, _) = report.segments.last().unwrap();
    let file = directory.path().join(format!("abc{last}.ts"));
    let (video, audio) = (end(&file, "v"), end(&file, "a"));
    assert!((audio - video).abs() < 5.0, "the picture ends at {video}, the sound at {audio}");
}

/// Last timestamp of a stream, in seconds.
fn end(file: &Path, stream: &str) -> f64 {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", stream, "-show_entries", "packet=pts_time"])
        .args(["-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let times = text.lines().filter_map(|line| line.trim_end_matches(',').parse().ok());
    times.fold(f64::MIN, f64::max)
}
