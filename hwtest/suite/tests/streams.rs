//! Six viewers on the software GPU, and a driver that misbehaves for one of them.
//!
//! Hook, gateway and workers are those that ship, under Jellyfin's VA-API command line. The fault
//! is in the environment of one worker alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use benches::clip::{self, Clip};
use benches::play::template;
use benches::processes::{Process, running};
use hwtest_suite::{VirtualMachine, built};
use jellyfin_sim::{CommandLine, Container, Kind, Template};

const CLIP: Clip = Clip { width: 640, height: 360, rate: "25", seconds: 15 };
const SEGMENTS: usize = 5;
const VIEWERS: usize = 6;
/// The viewer whose driver misbehaves, and when: in its third segment.
const UNLUCKY: usize = 2;
const PICTURE: u32 = 160;
/// Far above what they take, far below what would hide a hang.
const LIMIT: Duration = Duration::from_secs(60);

/// A gateway on virtual GPUs.
struct Node {
    gateway: Child,
    folder: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

impl Node {
    /// Ready, with the GPU looked at.
    fn start(machine: &VirtualMachine, streams: &str) -> Self {
        let node = Self::spawn(machine, streams);
        node.until("the GPU is known", || node.log().contains("works="));
        node
    }

    fn spawn(machine: &VirtualMachine, streams: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("rendergate.toml");
        // No warm workers: each starts with its stream, so that one can be told another environment;
        // on a busy machine that takes longer than a viewer should wait.
        let text = format!(
            "[worker]\nwarm = 0\n[http]\nlisten = 'off'\n[gpu]\nbackend = 'vaapi'\n\
             [streams]\naccept_seconds = 25\n{streams}"
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.path().join("gateway.log")).unwrap();
        let gateway = machine
            .command(built("rendergate"))
            .args(["serve", "--config"])
            .arg(&config)
            .env("RENDERGATE_SOCKET", folder.path().join("s.sock"))
            .env("RENDERGATE_WORKER", worker(folder.path(), machine))
            .env("CACHE_DIRECTORY", folder.path())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { gateway, folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("gateway.log")).unwrap_or_default()
    }

    #[expect(clippy::disallowed_methods, reason = "processes and files don't announce themselves")]
    fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !condition() {
            assert!(Instant::now() < deadline, "never happened: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn output(&self, viewer: usize) -> PathBuf {
        self.folder.path().join(format!("viewer-{viewer}"))
    }

    /// Starts a viewer's stream, and waits until its worker has it.
    fn play(&self, clip: &Path, viewer: usize) -> Child {
        let output = self.output(viewer);
        fs::create_dir_all(&output).unwrap();
        let hook = self.folder.path().join("ffmpeg");
        if !hook.exists() {
            symlink(built("rendergate-ffmpeg"), &hook).unwrap();
        }
        let line = vaapi(clip, &output).at(0, f64::from(CLIP.seconds));
        let endpoint = format!("unix:{}", self.folder.path().join("s.sock").display());
        let child = Command::new(hook)
            .args(&line)
            .env("RENDERGATE_ENDPOINT", endpoint)
            .env("RENDERGATE_ACCEPT_TIMEOUT_MS", "30000")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(output.join("hook.log")).unwrap())
            .spawn()
            .unwrap();
        let running = || self.log().matches("running backend=").count() > viewer;
        self.until("the stream runs", running);
        child
    }

    fn said(&self, viewer: usize) -> String {
        fs::read_to_string(self.output(viewer).join("hook.log")).unwrap_or_default()
    }

    /// Every segment there is decodes without a complaint; says how many there are.
    fn whole_segments(&self, viewer: usize) -> usize {
        let segments: Vec<PathBuf> = fs::read_dir(self.output(viewer))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "ts"))
            .collect();
        for segment in &segments {
            let decoded = Command::new("ffmpeg")
                .args(["-v", "error", "-i"])
                .arg(segment)
                .args(["-f", "null", "-"])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&decoded.stderr);
            assert!(decoded.status.success() && said.is_empty(), "{}: {said}", segment.display());
        }
        segments.len()
    }
}

/// The program that the gateway starts as a worker: the real one, where the virtual GPU is. A file
/// `fault` is taken as that worker's own.
fn worker(folder: &Path, machine: &VirtualMachine) -> PathBuf {
    let program = folder.join("worker");
    let mut text = String::from("#!/bin/sh\n");
    for (name, value) in machine.environment() {
        text.push_str(&format!("export {name}='{value}'\n"));
    }
    let fault = folder.join("fault");
    text.push_str(&format!(
        "if mv '{0}' '{0}.taken' 2>/dev/null; then SOFTVA_FAULT=$(cat '{0}.taken'); export SOFTVA_FAULT; fi\n",
        fault.display()
    ));
    text.push_str(&format!("exec '{}' \"$@\"\n", built("rendergate-worker").display()));
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Jellyfin's command for a VA-API transcode of the clip.
fn vaapi(clip: &Path, output: &Path) -> CommandLine {
    let software = template(clip, output, Container::Ts, 180);
    Template { kind: Kind::Vaapi, video_bitrate: 800_000, ..software }.command()
}

/// Six streams, one of them with this fault; the gateway's log.
fn six_viewers(fault: &str, streams: &str) -> String {
    // One at a time: eighteen streams at once would time out where six don't.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let clip = clip::make(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips"), CLIP).unwrap();
    let machine = VirtualMachine::softva(&[]);
    let node = Node::start(&machine, streams);
    let mut viewers = Vec::new();
    for viewer in 0..VIEWERS {
        if viewer == UNLUCKY {
            fs::write(node.folder.path().join("fault"), fault).unwrap();
        }
        viewers.push(node.play(&clip, viewer));
    }
    for (viewer, child) in viewers.iter_mut().enumerate() {
        let mut status = None;
        node.until("a viewer's hook ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let said = node.said(viewer);
        assert!(said.contains("vah264dec") && said.contains("vah264enc"), "not on the GPU: {said}");
        let segments = node.whole_segments(viewer);
        if viewer == UNLUCKY {
            assert_eq!(status.unwrap().code(), Some(1), "{said}\n{}", node.log());
            assert!(said.contains("failed after output began"), "{said}");
            assert!((1..SEGMENTS).contains(&segments), "{segments} segments");
        } else {
            assert!(status.unwrap().success(), "{said}\n{}", node.log());
            assert_eq!(segments, SEGMENTS, "viewer {viewer}: {said}");
        }
    }
    node.log()
}

#[test]
fn a_probe_that_hangs_ends_with_its_gateway() {
    let mut machine = VirtualMachine::softva(&[]);
    machine.set("SOFTVA_FAULT", "hang-sync-surface:1");
    let mut node = Node::spawn(&machine, "");
    let worker = built("rendergate-worker").canonicalize().unwrap();
    let gateway = node.gateway.id();
    let trial = |process: &Process| {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", process.pid));
        process.parent == gateway && line.unwrap_or_default().contains("--operation")
    };
    let mut hung = None;
    node.until("a trial runs", || {
        hung = running(&worker).into_iter().find(trial);
        hung.is_some()
    });
    node.gateway.kill().unwrap();
    node.gateway.wait().unwrap();
    let pid = hung.unwrap().pid;
    node.until("the probe process is gone", || {
        running(&worker).iter().all(|process| process.pid != pid)
    });
}

#[test]
fn a_driver_that_aborts_costs_one_stream() {
    let log = six_viewers(&format!("abort:{PICTURE}@encode"), "");
    assert!(log.contains("worker lost") && log.contains("signal 6"), "{log}");
}

#[test]
fn a_driver_that_hangs_costs_one_stream() {
    let fault = format!("hang-sync-surface:{PICTURE}@encode");
    let log = six_viewers(&fault, "stall_seconds = 8\n");
    assert!(log.contains("stood still for too long"), "{log}");
}

#[test]
fn an_encoder_that_fails_costs_one_stream() {
    let log = six_viewers(&format!("fail-end-picture:{PICTURE}@encode"), "");
    assert!(log.contains("failed reason=\"vah264enc"), "{log}");
    assert!(log.contains("how=\"failed_device\""), "{log}");
}
