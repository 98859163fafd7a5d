//! A gateway on virtual GPUs, and viewers who play what it gives them.
//!
//! Hook, gateway and workers are those that ship, under Jellyfin's VA-API command line.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use benches::clip::{self, Clip};
use benches::play::template;
use hwtest_suite::{VirtualMachine, built};
use jellyfin_sim::{CommandLine, Container, Kind, Template};

pub const CLIP: Clip = Clip { width: 640, height: 360, rate: "25", seconds: 15 };
pub const SEGMENTS: usize = 5;
/// Far above what they take, far below what would hide a hang.
const LIMIT: Duration = Duration::from_secs(60);

/// The film that everybody plays.
pub fn film() -> PathBuf {
    static FILM: LazyLock<PathBuf> = LazyLock::new(|| {
        clip::make(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips"), CLIP).unwrap()
    });
    FILM.clone()
}

/// A gateway on virtual GPUs.
pub struct Node {
    pub gateway: Child,
    pub folder: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

impl Node {
    /// Ready, with the GPU looked at.
    pub fn start(machine: &VirtualMachine, backend: &str, streams: &str) -> Self {
        let node = Self::spawn(machine, backend, streams);
        node.until("the GPU is known", || node.log().contains("works="));
        node
    }

    pub fn spawn(machine: &VirtualMachine, backend: &str, streams: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("rendergate.toml");
        // No warm workers: each starts with its stream, so that one can be told another environment;
        // on a busy machine that takes longer than a viewer should wait.
        // Nor is anybody turned away for what a small machine can't do, but where that is the question.
        // And six viewers of one clip are six streams, but where that is the question.
        let share = if streams.contains("share") { "" } else { "share = false\n" };
        let asked = streams.contains("[admission]");
        let admission = if asked { "" } else { "[admission]\nenabled = false\n" };
        let text = format!(
            "[worker]\nwarm = 0\nsandbox_write = ['{folder}']\n\
             [http]\nlisten = '127.0.0.1:0'\n[gpu]\nbackend = '{backend}'\n\
             proc_root = '{folder}/proc'\n[streams]\naccept_seconds = 25\n{share}{streams}{admission}",
            folder = folder.path().display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.path().join("gateway.log")).unwrap();
        let gateway = rendergate(folder.path(), machine, "serve").stderr(log).spawn().unwrap();
        Self { gateway, folder }
    }

    /// Another gateway in the place of this one, which has no time to say good-bye.
    pub fn restart(&mut self, machine: &VirtualMachine) {
        self.gateway.kill().unwrap();
        self.gateway.wait().unwrap();
        let log = fs::File::create(self.folder.path().join("gateway.log")).unwrap();
        let mut command = rendergate(self.folder.path(), machine, "serve");
        self.gateway = command.stderr(log).spawn().unwrap();
        self.until("the GPU is known", || self.log().contains("works="));
    }

    /// Another command of the same program, with the configuration of this gateway.
    pub fn command(&self, machine: &VirtualMachine, command: &str) -> Command {
        rendergate(self.folder.path(), machine, command)
    }

    /// A page of the gateway that is JSON.
    pub fn json(&self, path: &str) -> serde_json::Value {
        let page = self.page(path);
        let (_, body) = page.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("gateway.log")).unwrap_or_default()
    }

    #[expect(clippy::disallowed_methods, reason = "processes and files don't announce themselves")]
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !condition() {
            assert!(Instant::now() < deadline, "never happened: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn output(&self, viewer: usize) -> PathBuf {
        self.folder.path().join(format!("viewer-{viewer}"))
    }

    /// The hook under the name of ffmpeg, with this gateway.
    pub fn hook(&self) -> Command {
        let hook = self.folder.path().join("ffmpeg");
        if !hook.exists() {
            symlink(built("rendergate-ffmpeg"), &hook).unwrap();
        }
        let mut command = Command::new(hook);
        let endpoint = format!("unix:{}", self.folder.path().join("s.sock").display());
        command.env("RENDERGATE_ENDPOINT", endpoint);
        command
    }

    /// Starts a viewer's stream, and waits until its worker has it.
    pub fn play(&self, clip: &Path, viewer: usize) -> Child {
        let child = self.begin(clip, viewer);
        let running = || self.log().matches("running backend=").count() > viewer;
        self.until("the stream runs", running);
        child
    }

    /// Starts a viewer's stream.
    pub fn begin(&self, clip: &Path, viewer: usize) -> Child {
        let output = self.output(viewer);
        fs::create_dir_all(&output).unwrap();
        let line = vaapi(clip, &output).at(0, f64::from(CLIP.seconds));
        self.hook()
            .args(&line)
            .env("RENDERGATE_ACCEPT_TIMEOUT_MS", "30000")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(output.join("hook.log")).unwrap())
            .spawn()
            .unwrap()
    }

    pub fn said(&self, viewer: usize) -> String {
        fs::read_to_string(self.output(viewer).join("hook.log")).unwrap_or_default()
    }

    /// Waits until a viewer's hook has ended.
    pub fn ended(&self, viewer: &mut Child) -> ExitStatus {
        let mut status = None;
        self.until("a viewer's hook ends", || {
            status = viewer.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// A viewer plays all of it, and it comes out whole; what the hook said of it.
    pub fn plays(&self, clip: &Path, viewer: usize) -> String {
        let mut child = self.play(clip, viewer);
        assert!(self.ended(&mut child).success(), "{}\n{}", self.said(viewer), self.log());
        assert_eq!(self.whole_segments(viewer), SEGMENTS, "{}", self.said(viewer));
        self.said(viewer)
    }

    /// What the next worker has in its environment.
    pub fn fault(&self, variable: &str, value: &str) {
        fs::write(self.folder.path().join("fault"), format!("export {variable}={value}\n"))
            .unwrap();
    }

    /// A line of shell for all probe processes from now on.
    pub fn probes(&self, line: &str) {
        fs::write(self.folder.path().join("probes"), format!("{line}\n")).unwrap();
    }

    /// A page of the gateway.
    pub fn page(&self, path: &str) -> String {
        let log = self.log();
        let address = log.split("http=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let mut socket = TcpStream::connect(address.expect("it serves HTTP")).unwrap();
        write!(socket, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        page
    }

    /// `/v1/streams`.
    pub fn streams(&self) -> Vec<serde_json::Value> {
        let page = self.page("/v1/streams");
        let (_, body) = page.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// Value of a series in `/metrics`.
    pub fn value(&self, series: &str) -> Option<f64> {
        let page = self.page("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Seconds that the drivers of all workers so far say their codecs took.
    pub fn codec_seconds(&self) -> f64 {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let accounts = names.filter(|path| path.extension().is_some_and(|e| e == "json"));
        let seconds = |path: PathBuf| {
            let text = fs::read_to_string(path).unwrap();
            let account: serde_json::Value = serde_json::from_str(&text).unwrap();
            let of = |engine: &str| account[engine]["seconds"].as_f64().unwrap();
            of("decode") + of("encode")
        };
        accounts.map(seconds).sum()
    }

    /// Waits for a line of `/metrics`.
    pub fn metric(&self, line: &str) {
        self.until(line, || self.page("/metrics").lines().any(|other| other == line));
    }

    /// Every segment there is decodes without a complaint; says how many there are.
    pub fn whole_segments(&self, viewer: usize) -> usize {
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

fn rendergate(folder: &Path, machine: &VirtualMachine, command: &str) -> Command {
    let mut rendergate = machine.command(built("rendergate"));
    rendergate
        .args([command, "--config"])
        .arg(folder.join("rendergate.toml"))
        .env("RENDERGATE_SOCKET", folder.join("s.sock"))
        .env("RENDERGATE_WORKER", worker(folder, machine))
        .env("CACHE_DIRECTORY", folder)
        .env("STATE_DIRECTORY", folder.join("state"))
        .stdin(Stdio::null());
    rendergate
}

/// The program that the gateway starts as a worker: the real one, where the virtual GPU is.
///
/// Two files beside it are read by the shell, if they are there: `fault` by the next worker alone, and
/// `probes` by every probe process, which has its node in `$2`.
fn worker(folder: &Path, machine: &VirtualMachine) -> PathBuf {
    let program = folder.join("worker");
    let mut text = String::from("#!/bin/sh\n");
    for (name, value) in machine.environment() {
        text.push_str(&format!("export {name}='{value}'\n"));
    }
    for (name, file) in [("SOFTVA_PROC", "proc"), ("SOFTVA_ACCOUNT", "account-%p.json")] {
        text.push_str(&format!("export {name}='{}'\n", folder.join(file).display()));
    }
    let (fault, probes) = (folder.join("fault"), folder.join("probes"));
    text.push_str(&format!(
        "if [ $# -gt 0 ]; then [ ! -e '{probes}' ] || . '{probes}'\n\
         elif mv '{fault}' '{fault}.taken' 2>/dev/null; then . '{fault}.taken'; fi\n\
         exec '{worker}' \"$@\"\n",
        probes = probes.display(),
        fault = fault.display(),
        worker = built("rendergate-worker").display(),
    ));
    // Written by another process: what a child of another test still has open can't be run.
    let source = program.with_extension("source");
    fs::write(&source, text).unwrap();
    assert!(Command::new("install").args([&source, &program]).status().unwrap().success());
    program
}

/// Jellyfin's command for a VA-API transcode of the clip.
fn vaapi(clip: &Path, output: &Path) -> CommandLine {
    let software = template(clip, output, Container::Ts, 180);
    Template { kind: Kind::Vaapi, video_bitrate: 800_000, ..software }.command()
}

/// With the software driver for nodes of its own face. GStreamer from 1.24 on takes drivers it doesn't
/// know by name only if told so.
pub fn machine() -> VirtualMachine {
    VirtualMachine::softva(&[])
}
