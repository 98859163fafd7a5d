//! The account of CPU time: complete, and no more than what the process used.

mod common;

use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{folder, virtual_gpu};

/// Only one test at a time counts children.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds of CPU that all ended children of this process have used.
fn children() -> f64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: fills the struct it is given; every field is a number.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn entry(account: &Path, engine: &str) -> (f64, u64) {
    let text = std::fs::read_to_string(account).expect("an account");
    let account: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let entry = &account[engine];
    let seconds = entry["seconds"].as_f64().expect("seconds");
    (seconds, entry["pictures"].as_u64().expect("pictures"))
}

// In turn with whatever else starts children: they would disturb the measurement.
#[test]
fn seconds_add_up() {
    let _turn = turn();
    let gpu = virtual_gpu();
    for (codec, frames) in [("264", 200), ("265", 60)] {
        let folder = folder();
        let account = folder.path().join("account.json");
        let mut command = gpu.pipeline(&format!(
            "videotestsrc num-buffers={frames} ! video/x-raw,format=NV12,width=1280,height=720 ! \
             vapostproc ! video/x-raw(memory:VAMemory),width=640,height=360 ! vah{codec}enc \
             bitrate=800 ! h{codec}parse ! vah{codec}dec ! fakesink"
        ));
        command.env("SOFTVA_ACCOUNT", &account);
        let before = children();
        assert!(gpu.output(&mut command).status.success());
        let process = children() - before;
        let mut sum = 0.0;
        for engine in ["decode", "encode", "vpp"] {
            let (seconds, pictures) = entry(&account, engine);
            assert_eq!(pictures, frames, "{engine}");
            assert!(seconds > 0.01, "{engine}: {seconds} s");
            sum += seconds;
        }
        assert!(sum <= process, "{sum} s of {process} s");
        // What is left over: GStreamer, the test's pattern, start-up. libx265 works in a thread
        // of its own; were that forgotten, most of its time would be missing.
        assert!(sum > 0.5 * process, "H.{codec}: only {sum} s of {process} s");
    }
}

/// The tree of processes says of the engines what the account says.
#[test]
fn a_tree_of_processes_is_published() {
    let _turn = turn();
    let gpu = virtual_gpu();
    let folder = folder();
    let (account, proc) = (folder.path().join("account.json"), folder.path().join("proc"));
    let mut command = gpu.pipeline(
        "videotestsrc num-buffers=50 ! video/x-raw,format=NV12,width=640,height=360 ! vapostproc ! \
         video/x-raw(memory:VAMemory),width=320,height=180 ! vah264enc ! h264parse ! vah264dec ! \
         fakesink",
    );
    command.env("SOFTVA_ACCOUNT", &account).env("SOFTVA_PROC", &proc);
    assert!(gpu.output(&mut command).status.success());
    let text = std::fs::read_to_string(&account).expect("an account");
    let pid = serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["pid"].clone();
    let fdinfo = std::fs::read_to_string(proc.join(pid.to_string()).join("fdinfo/0")).unwrap();
    let seconds = |key: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(key)).expect("the engine");
        line.trim_end_matches(" ns").trim().parse::<f64>().expect("nanoseconds") / 1e9
    };
    let (decode, encode, vpp) =
        (entry(&account, "decode").0, entry(&account, "encode").0, entry(&account, "vpp").0);
    assert!((seconds("drm-engine-video:") - decode - encode).abs() < 1e-5, "{fdinfo}");
    assert!((seconds("drm-engine-video-enhance:") - vpp).abs() < 1e-5, "{fdinfo}");
    assert!(vpp > 0.0 && decode > 0.0);
}

#[test]
fn no_work_no_account() {
    let _turn = turn();
    let folder = folder();
    let account = folder.path().join("account.json");
    let gpu = virtual_gpu();
    let mut command = gpu.command("vainfo");
    command.args(["--display", "drm", "--device", "/dev/dri/renderD128"]);
    command.env("SOFTVA_ACCOUNT", &account);
    assert!(gpu.output(&mut command).status.success());
    assert!(!account.exists());
}
