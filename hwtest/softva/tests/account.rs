//! The account of CPU time: complete, and no more than what the process used.

mod common;

use std::mem::MaybeUninit;
use std::path::Path;

use common::{folder, virtual_gpu};

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

// One test, because other children of this process would disturb the measurement.
#[test]
fn seconds_add_up() {
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

#[test]
fn no_work_no_account() {
    let folder = folder();
    let account = folder.path().join("account.json");
    let gpu = virtual_gpu();
    let mut command = gpu.command("vainfo");
    command.args(["--display", "drm", "--device", "/dev/dri/renderD128"]);
    command.env("SOFTVA_ACCOUNT", &account);
    assert!(gpu.output(&mut command).status.success());
    assert!(!account.exists());
}
