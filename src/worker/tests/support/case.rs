//! One worker, one clip, one way of going wrong: what has to hold afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ffmpeg_args::{Container, HlsOutput, Output, Transcode};
use session::{Ending, Fault};

use super::{Report, Run, clip, plan};

pub const VIDEO: &str = "-c:v libx264 -preset ultrafast -g 50 -pix_fmt yuv420p";
pub const AUDIO: &str = "-c:a aac -ac 2 -b:a 96k";

/// A clip of 12 seconds at 25 frames per second, so of four segments.
pub fn good(name: &str, rest: &str) -> PathBuf {
    clip(
        name,
        &format!(
            "-f lavfi -i testsrc2=s=320x180:r=25:d=12 -f lavfi -i sine=d=12 {VIDEO} {AUDIO} {rest}"
        ),
    )
}

/// One that keeps a worker busy for some seconds.
pub fn long() -> PathBuf {
    film_of(60)
}

/// Of so many seconds.
pub fn film_of(seconds: u32) -> PathBuf {
    let picture = format!("testsrc2=s=320x180:r=25:d={seconds}");
    clip(
        &format!("bad-{seconds}.mkv"),
        &format!("-f lavfi -i {picture} -f lavfi -i sine=d={seconds} {VIDEO} {AUDIO}"),
    )
}

/// Turns a plan's output into fMP4.
pub fn to_fmp4(plan: &mut Transcode) {
    let output = hls_of(plan);
    output.container =
        Container::Fmp4 { init: "abc-1.mp4".into(), absolute: true, skip_sidx: false };
    output.segment_suffix = ".mp4".into();
}

/// The segments of a plan.
pub fn hls_of(plan: &mut Transcode) -> &mut HlsOutput {
    match &mut plan.output {
        Output::Hls(output) => output,
        Output::Progressive(output) => panic!("{output:?}"),
    }
}

/// A folder for one case.
pub struct Case {
    pub dir: tempfile::TempDir,
}

impl Case {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        Self { dir }
    }

    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    pub fn plan(&self, input: &Path) -> Transcode {
        plan(input, &self.out())
    }

    /// A file made of bytes.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Names in the output directory, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.out())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    #[track_caller]
    pub fn nothing_written(&self) {
        assert!(self.names().is_empty(), "{:?}", self.names());
    }

    /// Every file has a final name and, if a segment, decodes without a complaint; returns the
    /// frames of picture in all of them.
    #[track_caller]
    pub fn whole(&self) -> usize {
        let init = fs::read(self.out().join("abc-1.mp4")).unwrap_or_default();
        let mut frames = 0;
        for name in self.names() {
            assert!(!name.ends_with(".tmp"), "a temporary file is left: {name}");
            let bytes = fs::read(self.out().join(&name)).unwrap();
            assert!(!bytes.is_empty(), "an empty file is left: {name}");
            if name.ends_with(".m3u8") || name == "abc-1.mp4" {
                continue;
            }
            let piece = self.file("piece", &[init.clone(), bytes].concat());
            let probe = Command::new("ffprobe")
                .args(["-v", "error", "-count_frames", "-select_streams", "v"])
                .args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
                .arg(piece)
                .output()
                .expect("ffprobe is needed: apt install ffmpeg");
            let said = String::from_utf8_lossy(&probe.stderr);
            assert!(said.is_empty(), "{name} doesn't decode: {said}");
            let count = String::from_utf8_lossy(&probe.stdout);
            let count = count.lines().find_map(|line| line.trim_end_matches(',').parse().ok());
            frames += count.unwrap_or(0);
        }
        frames
    }

    pub fn playlist(&self) -> String {
        fs::read_to_string(self.out().join("abc.m3u8")).unwrap_or_default()
    }
}

/// Fails with this fault, a reason that holds these words, nothing written, and a clean exit.
#[track_caller]
pub fn refused(case: &Case, plan: &Transcode, fault: Fault, words: &str) {
    let report = Run::start(plan).finish();
    failed(&report, fault, words);
    assert!(!report.committed);
    case.nothing_written();
}

#[track_caller]
pub fn failed(report: &Report, expected: Fault, words: &str) {
    match &report.ending {
        Some(Ending::Failed { reason, fault }) => {
            assert_eq!(*fault, expected, "{reason}");
            assert!(reason.contains(words), "expected \"{words}\" in \"{reason}\"");
        }
        other => panic!("expected a failure, got {other:?}"),
    }
    exited(report);
}

#[track_caller]
pub fn exited(report: &Report) {
    assert!(report.exit.unwrap().success(), "{:?}", report.exit);
}

/// Ends in this way, with a playlist that lists every segment.
#[track_caller]
pub fn ended(case: &Case, report: &Report, ending: &Ending) {
    assert_eq!(report.ending.as_ref(), Some(ending), "{:?}", report.lines);
    exited(report);
    let playlist = case.playlist();
    for (number, _) in &report.segments {
        assert!(playlist.contains(&format!("abc{number}.")), "{number} in {playlist}");
    }
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
}
