//! A gateway of its own, in a folder of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a gateway may take to be ready: the first start builds GStreamer's registry.
const READY: Duration = Duration::from_secs(60);

/// A running gateway.
#[derive(Debug)]
pub struct Stack {
    binaries: PathBuf,
    folder: PathBuf,
    address: String,
    admission: Admission,
    gateway: Child,
}

/// Whether a stream for which there is no room is left to the hook's ffmpeg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// What a stream costs is in `costs.json` in the stack's folder.
    On,
    /// All are taken.
    Off,
}

impl Stack {
    /// Starts `rendergate serve` from `binaries`, with socket and log in `folder`.
    ///
    /// # Errors
    /// If it isn't ready within a minute; the message holds the end of its log.
    pub fn start(binaries: &Path, folder: &Path) -> Result<Self> {
        Self::start_with(binaries, folder, "", Admission::Off)
    }

    /// The same with a configuration, in TOML.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        binaries: &Path,
        folder: &Path,
        configuration: &str,
        admission: Admission,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("rendergate.toml"), configuration)?;
        // The hook's link must lead there from anywhere.
        let binaries = &binaries.canonicalize()?;
        // Whoever binds port 0 learns a free one; it may be taken again, which the start reports.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let gateway = spawn(binaries, folder, &address, admission)?;
        let (binaries, folder) = (binaries.to_owned(), folder.to_owned());
        let mut stack = Self { binaries, folder, address, admission, gateway };
        stack.wait_ready()?;
        Ok(stack)
    }

    /// Waits until the gateway has ended by itself.
    ///
    /// # Errors
    /// If it doesn't within a minute.
    pub fn wait_ended(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY;
        while self.gateway.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it goes on:\n{}", self.log_tail());
            pause(20);
        }
        Ok(())
    }

    /// Kills the gateway, if it still runs, and starts it again.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> Result<()> {
        let _ = self.gateway.kill();
        self.gateway.wait()?;
        self.gateway = spawn(&self.binaries, &self.folder, &self.address, self.admission)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Some(status) = self.gateway.try_wait()? {
                bail!("the gateway ended at start ({status}):\n{}", self.log_tail());
            }
            if self.get("/readyz").is_ok() {
                return Ok(());
            }
            pause(20);
        }
        bail!("the gateway isn't ready after {READY:?}:\n{}", self.log_tail())
    }

    /// The gateway's process.
    pub fn pid(&self) -> u32 {
        self.gateway.id()
    }

    /// The hook, under ffmpeg's name.
    ///
    /// # Errors
    /// If the link can't be made.
    pub fn hook(&self) -> Result<PathBuf> {
        // In a folder of its own: what a stack's user keeps beside it may be called ffmpeg, too.
        let folder = self.folder.join("hook");
        let link = folder.join("ffmpeg");
        if !link.exists() {
            std::fs::create_dir_all(&folder)?;
            std::os::unix::fs::symlink(self.binaries.join("rendergate-ffmpeg"), &link)?;
        }
        Ok(link)
    }

    /// The worker's program, as `/proc` shows it.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn worker_program(&self) -> Result<PathBuf> {
        Ok(self.binaries.join("rendergate-worker").canonicalize()?)
    }

    /// The gateway's program, as `/proc` shows it.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn gateway_program(&self) -> Result<PathBuf> {
        Ok(self.binaries.join("rendergate").canonicalize()?)
    }

    /// What the hook needs in its environment.
    pub fn endpoint(&self) -> (&'static str, String) {
        ("RENDERGATE_ENDPOINT", format!("unix:{}", self.socket().display()))
    }

    /// The socket that hooks connect to.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("rendergate.sock")
    }

    /// The gateway's log so far.
    pub fn log(&self) -> PathBuf {
        self.folder.join("gateway.log")
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// The streams that run now.
    ///
    /// # Errors
    /// If the gateway doesn't answer.
    pub fn streams(&self) -> Result<Vec<Value>> {
        let value: Value = serde_json::from_str(&self.get("/v1/streams")?)?;
        let list = value.get("streams").unwrap_or(&value);
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    /// The worker of the one stream that runs.
    pub fn stream_worker(&self) -> Option<u32> {
        let streams = self.streams().ok()?;
        u32::try_from(streams.first()?.get("worker_pid")?.as_u64()?).ok()
    }

    /// A page of the gateway.
    ///
    /// # Errors
    /// If it can't be had or the status isn't 200.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {}", head.lines().next().unwrap_or(""));
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            return Ok(unchunk(body));
        }
        Ok(body.to_owned())
    }

    /// Ends the gateway as a service manager would, and waits for it.
    ///
    /// # Errors
    /// If it doesn't end.
    pub fn stop(mut self) -> Result<()> {
        signal(self.gateway.id(), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(40);
        while Instant::now() < deadline {
            if self.gateway.try_wait()?.is_some() {
                return Ok(());
            }
            pause(20);
        }
        bail!("the gateway doesn't end after SIGTERM:\n{}", self.log_tail())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

/// Measures what streams cost here, for a stack with [`Admission::On`] in the same folder. Takes most of
/// a minute.
///
/// # Errors
/// If `rendergate calibrate` fails.
pub fn calibrate(binaries: &Path, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    // What an earlier stack has learnt is of another load.
    let _ = std::fs::remove_file(folder.join("costs.json"));
    let program = binaries.join("rendergate");
    let status = Command::new(&program)
        .arg("calibrate")
        .env("STATE_DIRECTORY", folder)
        .stdin(Stdio::null())
        .stdout(File::create(folder.join("calibration.txt"))?)
        .status()
        .with_context(|| format!("can't start {}: run ./dev build", program.display()))?;
    ensure!(status.success(), "rendergate calibrate: {status}");
    Ok(())
}

fn spawn(binaries: &Path, folder: &Path, address: &str, admission: Admission) -> Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("gateway.log"))?;
    let program = binaries.join("rendergate");
    let configuration = folder.join("rendergate.toml");
    let asked = std::fs::read_to_string(&configuration)?.contains("share = true");
    Command::new(&program)
        .args(["serve", "--config"])
        .arg(configuration)
        .env("RENDERGATE_SOCKET", folder.join("rendergate.sock"))
        .env("RENDERGATE_HTTP", address)
        .env("STATE_DIRECTORY", folder)
        .env("RENDERGATE_ADMISSION", if admission == Admission::On { "on" } else { "off" })
        // Of several viewers of one clip each is to be served, but where that is the question.
        .env("RENDERGATE_SHARE", if asked { "on" } else { "off" })
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("can't start {}: run ./dev build", program.display()))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(rest.get(..size).unwrap_or(rest));
        body = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

/// Sends a signal; a process that is gone already is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits between two looks at something that announces nothing.
#[expect(clippy::disallowed_methods, reason = "files and processes are polled, as Jellyfin does")]
pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
