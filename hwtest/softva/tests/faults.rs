//! Faults on demand: what a supervisor sees when the driver fails, hangs, dies or lies.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{folder, path, text, virtual_gpu};

/// Decoding is fed by an encoder, so that every engine is in the pipeline.
const PIPELINE: &str = "videotestsrc num-buffers=20 ! video/x-raw,format=NV12,width=320,height=240 \
     ! vapostproc ! video/x-raw(memory:VAMemory),width=160,height=120 ! vah264enc ! h264parse ! \
     vah264dec ! fakesink";

fn faulty(fault: &str, trace: &Path, pipeline: &str) -> Command {
    let mut command = virtual_gpu().pipeline(pipeline);
    command.env("SOFTVA_FAULT", fault).env("SOFTVA_TRACE", trace);
    command
}

fn lines(trace: &Path, part: &str) -> usize {
    let trace = std::fs::read_to_string(trace).unwrap_or_default();
    trace.lines().filter(|line| line.contains(part)).count()
}

#[test]
fn without_a_fault_all_goes_well() {
    let folder = folder();
    let trace = folder.path().join("trace");
    let output = virtual_gpu().output(&mut faulty("", &trace, PIPELINE));
    assert!(output.status.success(), "{}", text(&output.stderr));
    for engine in ["vpp picture", "h264-encode picture", "h264-decode picture"] {
        assert_eq!(lines(&trace, engine), 20, "{engine}");
    }
}

#[test]
fn a_failed_encoder_ends_the_pipeline() {
    let folder = folder();
    let trace = folder.path().join("trace");
    let output = virtual_gpu().output(&mut faulty("fail-end-picture:5@encode", &trace, PIPELINE));
    assert!(!output.status.success());
    assert_eq!(lines(&trace, "h264-encode picture"), 4);
    assert!(lines(&trace, "fault: vaEndPicture 5 (encode)") > 0);
}

#[test]
fn failed_decoders_and_postprocessors_go_unnoticed() {
    // GStreamer drops such pictures and goes on, so a supervisor hears nothing but silence. Should
    // that change, this test says so.
    for (fault, engine) in [
        ("fail-end-picture:5@decode", "h264-decode picture"),
        ("fail-end-picture:5@vpp", "vpp picture"),
    ] {
        let folder = folder();
        let trace = folder.path().join("trace");
        let output = virtual_gpu().output(&mut faulty(fault, &trace, PIPELINE));
        assert!(output.status.success(), "{fault} {}", text(&output.stderr));
        assert_eq!(lines(&trace, engine), 4, "{fault}");
        assert_eq!(lines(&trace, "fault: vaEndPicture"), 16, "{fault}");
    }
}

#[test]
fn a_lost_buffer_is_reported() {
    let folder = folder();
    let trace = folder.path().join("trace");
    let output = virtual_gpu().output(&mut faulty("no-memory:40@encode", &trace, PIPELINE));
    assert!(!output.status.success());
    assert!(lines(&trace, "fault: no memory for buffer 40") > 0);
}

#[test]
fn an_abort_ends_the_process() {
    let folder = folder();
    let trace = folder.path().join("trace");
    let output = virtual_gpu().output(&mut faulty("abort:3@decode", &trace, PIPELINE));
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{:?}", output.status);
    assert_eq!(lines(&trace, "fault: abort in vaEndPicture 3 (decode)"), 1);
}

#[test]
fn a_lie_is_found_out_at_the_first_picture() {
    let folder = folder();
    let trace = folder.path().join("trace");
    let h265 = PIPELINE.replace("264", "265");
    let output = virtual_gpu().output(&mut faulty("lie-caps:h265-encode", &trace, &h265));
    assert!(!output.status.success());
    assert_eq!(lines(&trace, "h265-encode picture"), 0);
    // The codec is listed and the other one works.
    assert!(lines(&trace, "h265-encode rate control") > 0);
    let output = virtual_gpu().output(&mut faulty("lie-caps:h265-encode", &trace, PIPELINE));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Waits for a line of the trace, then makes sure that the process stays where it is.
fn hangs(mut command: Command, trace: &Path, part: &str) {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Killed(command.spawn().expect("gst-launch-1.0"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while lines(trace, part) == 0 {
        assert!(Instant::now() < deadline, "no `{part}` in the trace");
        assert!(child.0.try_wait().expect("a child").is_none(), "ended without `{part}`");
        wait();
    }
    let pictures = lines(trace, "picture");
    let calm = Instant::now() + Duration::from_millis(700);
    while Instant::now() < calm {
        assert!(child.0.try_wait().expect("a child").is_none(), "ended instead of hanging");
        wait();
    }
    // What was in flight may end; then nothing moves.
    assert!(lines(trace, "picture") <= pictures + 3, "goes on instead of hanging");
}

#[allow(clippy::disallowed_methods)] // A poller of a process that gives no other sign.
fn wait() {
    std::thread::sleep(Duration::from_millis(20));
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_hang_lasts() {
    let folder = folder();
    let trace = folder.path().join("trace");
    let command = faulty("hang-sync-surface:4@encode", &trace, PIPELINE);
    hangs(command, &trace, "fault: hanging in vaSyncSurface");
}

#[test]
fn a_lie_can_hang() {
    let folder = folder();
    let trace = folder.path().join("trace");
    let command = faulty("lie-caps-hang:h264-encode", &trace, PIPELINE);
    hangs(command, &trace, "fault: hanging in vaEndPicture");
}

#[test]
fn a_misspelt_fault_keeps_the_driver_from_loading() {
    let folder = folder();
    let trace = folder.path().join("trace");
    let mut command = virtual_gpu().command("vainfo");
    command.args(["--display", "drm", "--device", "/dev/dri/renderD128"]);
    command.env("SOFTVA_FAULT", "abrt:1").env("SOFTVA_TRACE", path(&trace));
    let output = virtual_gpu().output(&mut command);
    assert!(!output.status.success());
    assert_eq!(lines(&trace, "`abrt:1` is not a fault"), 1);
}
