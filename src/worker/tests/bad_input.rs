//! What can go wrong around a worker: files that aren't what they should be, output that can't be
//! written, a gateway that leaves, pauses, or talks nonsense.
//!
//! Each case ends in one message that says what was wrong and whose fault it was, or in a clean
//! ending; what stands in the directory then is whole, and the process is gone.

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ffmpeg_args::{Container, StreamSelect, Transcode, VideoAction};
use rustix::net::{SendFlags, Shutdown};
use session::{Control, Ending, Fault};
use support::{Report, Run, clip, pause, plan};

/// A worker whose gateway is gone may take so long.
const ALONE: Duration = Duration::from_secs(2);
const VIDEO: &str = "-c:v libx264 -preset ultrafast -g 50 -pix_fmt yuv420p";
const AUDIO: &str = "-c:a aac -ac 2 -b:a 96k";

/// A clip of 12 seconds at 25 frames per second, so of four segments.
fn good(name: &str, rest: &str) -> PathBuf {
    clip(
        name,
        &format!(
            "-f lavfi -i testsrc2=s=320x180:r=25:d=12 -f lavfi -i sine=d=12 {VIDEO} {AUDIO} {rest}"
        ),
    )
}

/// One that keeps a worker busy for some seconds.
fn long() -> PathBuf {
    clip(
        "bad-minute.mkv",
        &format!("-f lavfi -i testsrc2=s=320x180:r=25:d=60 -f lavfi -i sine=d=60 {VIDEO} {AUDIO}"),
    )
}

/// Three seconds that compress to nothing, then noise.
fn growing() -> PathBuf {
    clip(
        "bad-growing.mkv",
        &format!(
            "-f lavfi -i color=s=320x180:r=25:d=3 -f lavfi -i nullsrc=s=320x180:r=25:d=9 \
             -f lavfi -i sine=d=12 -filter_complex \
             [1]geq=random(1)*255:128:128[n];[0][n]concat=n=2:v=1 -map 2:a {VIDEO} {AUDIO}"
        ),
    )
}

/// A folder for one case.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        Self { dir }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn plan(&self, input: &Path) -> Transcode {
        plan(input, &self.out())
    }

    /// A file made of bytes.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Names in the output directory, sorted.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.out())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    #[track_caller]
    fn nothing_written(&self) {
        assert!(self.names().is_empty(), "{:?}", self.names());
    }

    /// Every file has a final name and, if a segment, decodes without a complaint; returns the
    /// frames of picture in all of them.
    #[track_caller]
    fn whole(&self) -> usize {
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

    fn playlist(&self) -> String {
        fs::read_to_string(self.out().join("abc.m3u8")).unwrap_or_default()
    }
}

/// Fails with this fault, a reason that holds these words, nothing written, and a clean exit.
#[track_caller]
fn refused(case: &Case, plan: &Transcode, fault: Fault, words: &str) {
    let report = Run::start(plan).finish();
    failed(&report, fault, words);
    assert!(!report.committed);
    case.nothing_written();
}

#[track_caller]
fn failed(report: &Report, expected: Fault, words: &str) {
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
fn exited(report: &Report) {
    assert!(report.exit.unwrap().success(), "{:?}", report.exit);
}

/// Ends in this way, with a playlist that lists every segment.
#[track_caller]
fn ended(case: &Case, report: &Report, ending: &Ending) {
    assert_eq!(report.ending.as_ref(), Some(ending), "{:?}", report.lines);
    exited(report);
    let playlist = case.playlist();
    for (number, _) in &report.segments {
        assert!(playlist.contains(&format!("abc{number}.")), "{number} in {playlist}");
    }
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
}

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
        state.to_be_bytes()[0]
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

// --- Damage inside -------------------------------------------------------------------------------

#[test]
fn corrupt_bytes_are_played_over() {
    for name in ["bad-plain.mkv", "bad-plain.mp4", "bad-plain.ts"] {
        for copy in [false, true] {
            // One is enough for the copy's way.
            if copy && !name.ends_with(".ts") {
                continue;
            }
            let case = Case::new();
            let mut bytes = fs::read(good(name, "")).unwrap();
            let middle = bytes.len() / 2;
            for (at, byte) in bytes[middle..middle + 3000].iter_mut().enumerate() {
                *byte ^= (at * 31 + 7) as u8;
            }
            let mut plan = case.plan(&case.file(name, &bytes));
            if copy {
                plan.video.as_mut().unwrap().action = VideoAction::Copy;
            }
            let report = Run::start(&plan).finish();
            ended(&case, &report, &Ending::Complete);
            assert!(report.segments.len() >= 4, "{name}: {:?}", report.segments);
            assert!(report.progress.position_us > 11_500_000, "{name}: {:?}", report.progress);
            if !copy {
                let frames = case.whole();
                assert!((250..=301).contains(&frames), "{name}: {frames} of 300 frames");
            }
        }
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
    let report = Run::start(&case.plan(&case.file("in.ts", &both))).finish();
    ended(&case, &report, &Ending::Complete);
    let frames = case.whole();
    assert!((290..=301).contains(&frames), "{frames} of 300 frames");
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
            assert_eq!(size, "320,180", "{name}");
        }
    }
}

// --- Output that can't be written ----------------------------------------------------------------

#[test]
fn output_directory_deleted_midway() {
    for fmp4 in [false, true] {
        let case = Case::new();
        let mut plan = case.plan(&long());
        if fmp4 {
            to_fmp4(&mut plan);
        }
        let report = Run::start(&plan).finish_with(|_, number| {
            if number == 0 {
                // The worker may put another file in while it is being emptied.
                while case.out().exists() {
                    let _ = fs::remove_dir_all(case.out());
                }
            }
        });
        failed(&report, Fault::Output, "directory is gone");
        assert!(!case.out().exists());
    }
}

fn to_fmp4(plan: &mut Transcode) {
    plan.output.container =
        Container::Fmp4 { init: "abc-1.mp4".into(), absolute: true, skip_sidx: false };
    plan.output.segment_suffix = ".mp4".into();
}

/// A worker that may write no file of more than so many bytes, as if the disk were full.
fn limited(bytes: u32) -> Run {
    let mut command = Command::new("sh");
    let script = format!("ulimit -f {}; exec \"$0\"", bytes / 512);
    command.args(["-c", &script, env!("CARGO_BIN_EXE_rendergate-worker")]).stderr(Stdio::null());
    Run::warm_by(command)
}

#[test]
fn full_disk_at_once() {
    for fmp4 in [false, true] {
        let case = Case::new();
        let mut plan = case.plan(&good("bad-plain.mkv", ""));
        if fmp4 {
            to_fmp4(&mut plan);
        }
        let report = limited(4096).given(&plan).finish();
        failed(&report, Fault::Output, "no space left");
        assert!(!report.committed);
        case.nothing_written();
    }
}

#[test]
fn full_disk_midway() {
    for fmp4 in [false, true] {
        let case = Case::new();
        let mut plan = case.plan(&growing());
        if fmp4 {
            to_fmp4(&mut plan);
        }
        let report = limited(256 * 1024).given(&plan).finish();
        failed(&report, Fault::Output, "no space left");
        assert!(report.committed);
        let expected: &[&str] = if fmp4 { &["abc0.mp4", "abc-1.mp4"] } else { &["abc0.ts"] };
        assert_eq!(case.names(), expected);
        assert!(case.whole() >= 75);
    }
}

// --- The gateway ---------------------------------------------------------------------------------

/// Shuts the socket as the kernel does when a gateway dies, and waits for the worker.
#[track_caller]
fn abandon(run: &mut Run) {
    rustix::net::shutdown(run.channel.socket(), Shutdown::Both).unwrap();
    let since = Instant::now();
    run.exit();
    assert!(since.elapsed() < ALONE, "took {:?}", since.elapsed());
}

#[test]
fn gateway_gone_midway() {
    for fmp4 in [false, true] {
        let case = Case::new();
        let mut plan = case.plan(&long());
        if fmp4 {
            to_fmp4(&mut plan);
        }
        let report = Run::start(&plan).finish_with(|run, number| {
            if number == 1 {
                abandon(run);
            }
        });
        exited(&report);
        assert!(case.names().len() >= 2);
        assert!(!case.out().join("abc.m3u8").exists());
        case.whole();
    }
}

#[test]
fn gateway_gone_while_paused() {
    let case = Case::new();
    let report = Run::start(&case.plan(&long())).finish_with(|run, number| {
        if number == 0 {
            run.control(Control::Pause);
            pause(300);
            abandon(run);
        }
    });
    exited(&report);
    case.whole();
}

#[test]
fn gateway_gone_at_once() {
    let case = Case::new();
    let mut run = Run::start(&case.plan(&long()));
    abandon(&mut run);
    case.whole();
    let mut unused = Run::warm();
    abandon(&mut unused);
}

#[test]
fn garbage_on_the_control_socket() {
    let garbage = [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 0, 0, 0, 0x47, 0x52]];
    for bytes in garbage {
        let case = Case::new();
        let send = |run: &Run| {
            rustix::net::send(run.channel.socket().as_fd(), bytes, SendFlags::NOSIGNAL).unwrap();
        };
        let report = Run::start(&case.plan(&long())).finish_with(|run, number| {
            if number == 0 {
                send(run);
            }
        });
        failed(&report, Fault::Gateway, "gateway");
        case.whole();
        // Before there is a stream there is nothing to fail but the process.
        let mut unused = Run::warm();
        send(&unused);
        assert!(!unused.exit().success());
    }
}

// --- Quit, pause, resume -------------------------------------------------------------------------

#[test]
fn quit_at_once() {
    let case = Case::new();
    let run = Run::start(&case.plan(&long()));
    run.control(Control::Quit);
    let report = run.finish();
    assert_eq!(report.ending, Some(Ending::Quit));
    exited(&report);
    assert!(case.names().len() <= 3, "{:?}", case.names());
    case.whole();
}

#[test]
fn quit_midway() {
    for fmp4 in [false, true] {
        let case = Case::new();
        let mut plan = case.plan(&long());
        if fmp4 {
            to_fmp4(&mut plan);
        }
        let mut asked = None;
        let report = Run::start(&plan).finish_with(|run, number| {
            if number == 1 {
                run.control(Control::Quit);
                asked = Some(run.started.elapsed());
            }
        });
        let took = report.elapsed - asked.unwrap();
        assert!(took < Duration::from_secs(2), "{took:?}");
        ended(&case, &report, &Ending::Quit);
        assert!((3..17).contains(&report.segments.len()), "{:?}", report.segments);
        let frames = case.whole();
        assert_eq!(frames as u64, report.progress.frames);
    }
}

#[test]
fn quit_while_paused() {
    let case = Case::new();
    let report = Run::start(&case.plan(&long())).finish_with(|run, number| {
        if number == 0 {
            run.control(Control::Pause);
            pause(300);
            run.control(Control::Quit);
        }
    });
    ended(&case, &report, &Ending::Quit);
    assert!(report.segments.len() < 17, "{:?}", report.segments);
    case.whole();
}

#[test]
fn quit_of_a_copied_stream() {
    let case = Case::new();
    let mut plan = case.plan(&long());
    plan.video.as_mut().unwrap().action = VideoAction::Copy;
    let report = Run::start(&plan).finish_with(|run, number| {
        if number == 0 {
            run.control(Control::Quit);
        }
    });
    assert!(matches!(report.ending, Some(Ending::Quit | Ending::Complete)), "{:?}", report.ending);
    exited(&report);
    case.whole();
}

#[test]
fn pause_holds_and_resume_goes_on() {
    let case = Case::new();
    let mut held = None;
    let report = Run::start(&case.plan(&long())).finish_with(|run, number| {
        if number == 0 {
            run.control(Control::Pause);
            // What is in the encoders still comes out.
            pause(500);
            let before = case.names();
            pause(1000);
            held = Some((before, case.names()));
            run.control(Control::Resume);
        }
    });
    let (before, after) = held.unwrap();
    assert_eq!(before, after);
    assert!(before.len() < 17, "paused too late to tell: {before:?}");
    ended(&case, &report, &Ending::Complete);
    assert_eq!(report.segments.len(), 20);
    assert_eq!(report.progress.frames, 60 * 25);
    // The clock of the progress stands still too.
    let unpaused = Duration::from_micros(report.progress.elapsed_us);
    assert!(report.elapsed - unpaused >= Duration::from_millis(1400), "{unpaused:?}");
}
