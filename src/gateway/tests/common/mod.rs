//! A gateway of one's own, with fake workers, and a hook that does as it is told.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ffmpeg_args::{
    Container, FileFormat, HlsOutput, Input, Location, Output, PlaylistType, ProgressiveOutput,
    Transcode,
};
use rustix::process::{Pid, Signal, kill_process};
use session::{
    Channel, Control, Ending, GatewayToHook, HookToGateway, PROTOCOL, Received, StreamId, Takeover,
    Writer,
};

/// Anything that isn't there after this is missing.
const LIMIT: Duration = Duration::from_secs(20);

/// Fast and quiet: what most tests want.
const SETTINGS: &str = "\
[http]
listen = '127.0.0.1:0'
[log]
format = 'json'
filter = 'debug'
";

pub fn rendergate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rendergate"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("RENDERGATE_") {
            command.env_remove(name);
        }
    }
    // All streams of these tests are of one film; sharing has a test of its own.
    command.env("RENDERGATE_SHARE", "off");
    // So has keeping.
    command.env("RENDERGATE_CACHE_MB", "0");
    command
}

/// Looks until it sees what is waited for.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "processes and files don't announce themselves")]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}

#[expect(clippy::disallowed_methods, reason = "nothing is waited for: time is what passes")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Sends a signal; a process that is gone already is fine.
pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

/// Not even a zombie.
pub fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Processes whose parent this is, zombies too.
pub fn children(pid: u32) -> Vec<u32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(|child| child.parse().unwrap())
        .collect()
}

pub struct Gateway {
    pub child: Child,
    pub folder: tempfile::TempDir,
    pub log: Arc<Mutex<Vec<String>>>,
}

/// Sections of TOML, and variables.
#[derive(Default)]
pub struct Setup<'a> {
    pub toml: &'a str,
    pub variables: &'a [(&'a str, &'a str)],
}

impl Gateway {
    /// Started, with warm workers, at that address.
    pub fn ready_at(address: SocketAddr) -> Self {
        let address = address.to_string();
        let variables = [("RENDERGATE_HTTP", address.as_str())];
        let gateway = Self::start(&Setup { variables: &variables, ..Setup::default() });
        until("the gateway is ready", || gateway.get("/readyz").starts_with("HTTP/1.1 200"));
        gateway
    }

    /// Started, with warm workers.
    pub fn ready(toml: &str) -> Self {
        let gateway = Self::start(&Setup { toml, ..Setup::default() });
        until("the gateway is ready", || gateway.get("/readyz").starts_with("HTTP/1.1 200"));
        gateway
    }

    pub fn start(setup: &Setup<'_>) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), setup)
    }

    pub fn start_in(folder: tempfile::TempDir, setup: &Setup<'_>) -> Self {
        let config = folder.path().join("rendergate.toml");
        std::fs::write(&config, format!("{SETTINGS}{}", setup.toml)).unwrap();
        std::fs::create_dir_all(folder.path().join("out")).unwrap();
        std::fs::write(folder.path().join("in put.mkv"), "media").unwrap();
        let mut command = rendergate();
        command
            .args(["serve", "--config"])
            .arg(&config)
            .env("RENDERGATE_SOCKET", folder.path().join("s.sock"))
            .env("RENDERGATE_WORKER", env!("CARGO_BIN_EXE_rendergate-fake-worker"))
            .env("CACHE_DIRECTORY", folder.path())
            .env("STATE_DIRECTORY", folder.path())
            .envs(setup.variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let gateway = Self { child, folder, log };
        gateway.logged("listening");
        gateway
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s.sock")
    }

    pub fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub fn input(&self) -> PathBuf {
        self.folder.path().join("in put.mkv")
    }

    /// The first line of the log with this text.
    #[track_caller]
    pub fn logged(&self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        eventually(text, || {
            let log = self.log.lock().unwrap();
            assert!(Instant::now() + Duration::from_secs(1) < deadline, "{}", log.join("\n"));
            log.iter().find(|line| line.contains(text)).cloned()
        })
    }

    pub fn http(&self) -> SocketAddr {
        let line = self.logged("listening");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        value["http"].as_str().unwrap().parse().unwrap()
    }

    pub fn request(&self, method: &str, path: &str) -> String {
        let mut socket = TcpStream::connect(self.http()).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        write!(socket, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn get(&self, path: &str) -> String {
        self.request("GET", path)
    }

    pub fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path);
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Waits until /metrics has this line.
    #[track_caller]
    pub fn metric(&self, line: &str) {
        let mut last = String::new();
        let deadline = Instant::now() + Duration::from_secs(15);
        until(line, || {
            last = self.get("/metrics");
            assert!(Instant::now() < deadline, "{line} is not in\n{last}");
            last.lines().any(|other| other == line)
        });
    }

    /// Waits until no stream is left.
    #[track_caller]
    pub fn idle(&self) {
        until("no stream is left", || self.json("/v1/streams").as_array().unwrap().is_empty());
    }

    /// So many seconds of the processor are known to be taken for a second of the fake worker's media,
    /// which is ten megapixels for each task; a segment more or less at a worker's end is allowed for.
    #[track_caller]
    pub fn has_learnt(&self, expect: f64) {
        let capacity = self.json("/v1/capacity");
        let tasks = capacity["devices"][0]["tasks"].as_array().unwrap();
        let cost = |task: &serde_json::Value| task["seconds_per_megapixel"]["cpu"].as_f64();
        let seconds: f64 = tasks.iter().filter_map(cost).sum::<f64>() * 10.0;
        assert!((seconds / expect - 1.0).abs() < 0.03, "{seconds}, expected {expect}: {capacity}");
    }

    pub fn worker_of(&self, stream: StreamId) -> Option<u32> {
        let id = stream.to_string();
        let streams = self.json("/v1/streams");
        let stream = streams.as_array().unwrap().iter().find(|line| line["id"] == id.as_str())?;
        stream["worker_pid"].as_u64().map(|pid| u32::try_from(pid).unwrap())
    }

    pub fn files(&self) -> BTreeSet<String> {
        std::fs::read_dir(self.out())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Nothing that Jellyfin would trip over.
    #[track_caller]
    pub fn out_is_clean(&self) {
        for name in self.files() {
            assert!(name.ends_with(".ts"), "{name}");
            assert!(self.out().join(&name).metadata().unwrap().len() > 0, "{name} is empty");
        }
    }

    pub fn terminate(&mut self) -> ExitStatus {
        kill(self.pid(), Signal::TERM);
        self.exited()
    }

    #[track_caller]
    pub fn exited(&mut self) -> ExitStatus {
        eventually("the gateway exits", || self.child.try_wait().unwrap())
    }

    pub fn transcode(&self, script: &str) -> Transcode {
        Transcode {
            inputs: vec![Input {
                location: Location::File(self.input()),
                read_rate: None,
                format: Some(script.into()),
                start_us: None,
                accurate: true,
            }],
            video: None,
            audio: None,
            start_at_zero: false,
            source_times: true,
            output: Output::Hls(HlsOutput {
                directory: self.out(),
                container: Container::MpegTs,
                segment_seconds: 3.0,
                start_number: 5,
                segment_prefix: "abc".into(),
                segment_suffix: ".ts".into(),
                playlist: "abc.m3u8".into(),
                playlist_type: PlaylistType::Vod,
                base_url: String::new(),
                max_delay_us: 5_000_000,
            }),
        }
    }

    pub fn descriptors(&self) -> Vec<OwnedFd> {
        vec![File::open(self.input()).unwrap().into(), File::open(self.out()).unwrap().into()]
    }

    /// A hook that has handed in a job by this script of the fake worker.
    pub fn hook(&self, script: &str) -> Hook {
        self.hook_with(PROTOCOL, self.transcode(script), self.descriptors())
    }

    /// The same for one file, `id.mp4`.
    pub fn hook_of_a_file(&self, script: &str) -> Hook {
        let mut transcode = self.transcode(script);
        transcode.source_times = false;
        transcode.output = Output::Progressive(ProgressiveOutput {
            directory: self.out(),
            name: "id.mp4".into(),
            format: FileFormat::FragmentedMp4,
        });
        self.hook_with(PROTOCOL, transcode, self.descriptors())
    }

    pub fn hook_with(
        &self,
        protocol: u32,
        transcode: Transcode,
        descriptors: Vec<OwnedFd>,
    ) -> Hook {
        let hook = Hook::connect(&self.socket());
        let transcode = Box::new(transcode);
        let job = HookToGateway::Job { protocol, transcode, reconnects: false, takeover: None };
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        hook.channel.send(&job, &descriptors).unwrap();
        hook
    }

    /// A hook that goes on with the next gateway, or comes from the one before.
    pub fn moving_hook(&self, script: &str, takeover: Option<Takeover>) -> Hook {
        self.moving_hook_with(self.transcode(script), self.descriptors(), takeover)
    }

    pub fn moving_hook_with(
        &self,
        transcode: Transcode,
        descriptors: Vec<OwnedFd>,
        takeover: Option<Takeover>,
    ) -> Hook {
        let hook = Hook::connect(&self.socket());
        let (transcode, takeover) = (Box::new(transcode), takeover.map(Box::new));
        let job = HookToGateway::Job { protocol: PROTOCOL, transcode, reconnects: true, takeover };
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        hook.channel.send(&job, &descriptors).unwrap();
        hook
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log.lock().unwrap().join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Hook {
    pub channel: Channel,
    /// Who has written, each with its lease if it has one.
    pub writers: Vec<(Writer, Option<OwnedFd>)>,
}

impl Hook {
    pub fn connect(socket: &Path) -> Self {
        let socket = UnixStream::connect(socket).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { channel: Channel::new(socket.into()), writers: Vec::new() }
    }

    pub fn control(&self, control: Control) {
        self.channel.send(&HookToGateway::Control(control), &[]).unwrap();
    }

    pub fn next(&mut self) -> Option<GatewayToHook> {
        loop {
            let received: Received<_> = self.channel.receive().unwrap()?;
            let Received { message, mut descriptors } = received;
            match message {
                GatewayToHook::Writer { writer } => self.writers.push((writer, descriptors.pop())),
                message => return Some(message),
            }
        }
    }

    /// The end of the connection, however the kernel words it.
    #[track_caller]
    pub fn dropped(&mut self) {
        match self.channel.receive::<GatewayToHook>() {
            Ok(None) => {}
            // Some worker was about to begin.
            Ok(Some(Received { message: GatewayToHook::Writer { .. }, .. })) => self.dropped(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("expected the end of the connection, got {other:?}"),
        }
    }

    #[track_caller]
    pub fn accepted(&mut self) -> StreamId {
        match self.next() {
            Some(GatewayToHook::Accepted { stream, protocol: PROTOCOL }) => stream,
            other => panic!("expected to be accepted, got {other:?}"),
        }
    }

    #[track_caller]
    pub fn steps_aside(&mut self, by: u8) {
        let heard = self.next();
        assert_eq!(heard, Some(GatewayToHook::StepAside { niceness: by }));
    }

    #[track_caller]
    pub fn declined(&mut self) -> String {
        match self.next() {
            Some(GatewayToHook::Declined { reason }) => reason,
            other => panic!("expected to be declined, got {other:?}"),
        }
    }

    /// Reads until a message that satisfies.
    #[track_caller]
    pub fn hear(&mut self, what: &str, wanted: impl Fn(&GatewayToHook) -> bool) -> GatewayToHook {
        loop {
            match self.next() {
                Some(message) if wanted(&message) => return message,
                Some(GatewayToHook::Ended(ending)) => panic!("{what}: ended as {ending:?}"),
                Some(_) => {}
                None => panic!("{what}: the gateway closed the connection"),
            }
        }
    }

    #[track_caller]
    pub fn segment(&mut self, wanted: u64) {
        self.hear("a segment", |message| {
            matches!(message, GatewayToHook::SegmentComplete { number, .. } if *number == wanted)
        });
    }

    #[track_caller]
    pub fn ended(&mut self) -> Ending {
        loop {
            match self.next() {
                Some(GatewayToHook::Ended(ending)) => return ending,
                Some(_) => {}
                None => panic!("the gateway closed the connection without a last message"),
            }
        }
    }

    /// As [`ended`](Self::ended), for failures.
    #[track_caller]
    pub fn failed(&mut self) -> (session::Fault, String) {
        match self.ended() {
            Ending::Failed { reason, fault } => (fault, reason),
            other => panic!("expected a failure, got {other:?}"),
        }
    }
}
