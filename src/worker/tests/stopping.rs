//! Output that can't be written; a gateway that leaves, talks nonsense, pauses or quits.
//!
//! Each case ends in one message that says what was wrong and whose fault it was, or in a clean
//! ending; what stands in the directory then is whole, and the process is gone.

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ffmpeg_args::VideoAction;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, Shutdown};
use session::{Control, Ending, Fault};
use support::case::{AUDIO, Case, VIDEO, ended, exited, failed, good, long, to_fmp4};
use support::{Run, clip, pause};

/// A worker whose gateway is gone may take so long.
const ALONE: Duration = Duration::from_secs(10);

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

/// Whether somebody holds it.
fn is_held(lease: &impl AsFd) -> bool {
    poll(&mut [PollFd::new(lease, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 0
}

/// Whoever isn't the worker's parent knows by its lease that it writes no more: not before, and from then
/// on for sure.
#[test]
fn the_lease_ends_with_the_process() {
    for killed in [false, true] {
        let case = Case::new();
        let mut names = Vec::new();
        let report = Run::start(&case.plan(&long())).finish_with(|run, number| {
            if number != 1 {
                return;
            }
            assert!(is_held(&run.lease));
            if killed {
                run.child.kill().unwrap();
            } else {
                rustix::net::shutdown(run.channel.socket(), Shutdown::Both).unwrap();
            }
            poll(&mut [PollFd::new(&run.lease, PollFlags::IN)], None).unwrap();
            assert_eq!(rustix::io::read(&run.lease, &mut [0_u8]).unwrap(), 0);
            names = case.names();
            let status = fs::read_to_string(format!("/proc/{}/status", run.child.id())).unwrap();
            // Its threads have let go of their files by then, and have nothing else to do.
            let state = status.lines().find(|line| line.starts_with("State:")).unwrap();
            assert!(!state.contains("sleeping"), "{state}");
        });
        drop(report);
        assert_eq!(case.names(), names, "killed: {killed}");
        assert!(names.iter().any(|name| name.ends_with(".tmp")) <= killed, "{names:?}");
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

/// While the file is being opened, while the first samples come, and after.
#[test]
fn quit_at_once() {
    for milliseconds in [0, 20, 40, 60, 80, 100, 150] {
        let case = Case::new();
        let run = Run::start(&case.plan(&long()));
        pause(milliseconds);
        run.control(Control::Quit);
        let report = run.finish();
        assert_eq!(report.ending, Some(Ending::Quit), "after {milliseconds} ms");
        exited(&report);
        case.whole();
        // Either all tracks or none.
        for name in case.names().iter().filter(|name| name.ends_with(".ts")) {
            let probe = Command::new("ffprobe")
                .args(["-v", "error", "-show_entries", "stream=codec_type", "-of", "csv=p=0"])
                .arg(case.out().join(name))
                .output()
                .unwrap();
            let kinds = String::from_utf8(probe.stdout).unwrap();
            assert!(kinds.contains("video") && kinds.contains("audio"), "{name}: {kinds}");
        }
    }
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

/// What is on its way when the horizon is reached comes through, and no more; Jellyfin's own pause
/// doesn't open what the gateway holds.
#[test]
fn held_at_its_horizon() {
    let case = Case::new();
    let horizon = Duration::from_secs(9);
    let report = Run::start(&case.plan(&long())).finish_with(|run, number| match number {
        0 => run.horizon(Some(horizon)),
        1 => {
            run.control(Control::Pause);
            run.control(Control::Resume);
            pause(1500);
            let segments = case.names().iter().filter(|name| name.ends_with(".ts")).count();
            assert!(segments <= 5, "{segments} segments of 3 s, held at {horizon:?}");
            run.horizon(None);
        }
        _ => {}
    });
    ended(&case, &report, &Ending::Complete);
    assert_eq!(report.segments.len(), 20);
}

#[test]
fn quit_while_held() {
    let case = Case::new();
    let report = Run::start(&case.plan(&long())).finish_with(|run, number| {
        if number == 0 {
            run.horizon(Some(Duration::ZERO));
            pause(300);
            run.control(Control::Quit);
        }
    });
    ended(&case, &report, &Ending::Quit);
    assert!(report.segments.len() < 20);
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
