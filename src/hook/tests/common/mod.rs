//! A gateway and a real ffmpeg that tests play themselves.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ffmpeg_args::Transcode;
use session::{Channel, Complete, Control, GatewayToHook, HookToGateway, PROTOCOL, StreamId};

/// Longer than anything takes, on a machine under load.
const PATIENCE: Duration = Duration::from_secs(20);

/// Name of a progressive file, as Jellyfin makes them.
pub const FILE: &str = "0123456789abcdef0123456789abcdef.mp4";

/// Records its arguments, stdin and the state of its process, then exits with 42. Signals are those
/// of the one who looks: the shell blocks its own for a moment as it starts it.
const REAL: &str = r#"#!/bin/sh
printf '%s\0' "$@" > "$RECORD/argv"
cat > "$RECORD/stdin"
grep -E '^Sig(Blk|Ign)' /proc/self/status > "$RECORD/signals"
grep flags /proc/$$/fdinfo/0 > "$RECORD/stdin-flags"
ls /proc/$$/fd > "$RECORD/descriptors"
nice > "$RECORD/niceness"
echo "the real one, called $0" >&2
exit 42
"#;

/// A folder with the hook under Jellyfin's names, a recording ffmpeg, an input and an output
/// directory.
pub struct House {
    dir: tempfile::TempDir,
}

impl House {
    pub fn new() -> Self {
        let house = Self { dir: tempfile::tempdir().unwrap() };
        for dir in ["hook", "real", "record", "out"] {
            fs::create_dir(house.path(dir)).unwrap();
        }
        for name in ["ffmpeg", "ffprobe"] {
            symlink(env!("CARGO_BIN_EXE_rendergate-ffmpeg"), house.path("hook").join(name))
                .unwrap();
            house.script(&format!("real/{name}"), REAL);
        }
        fs::write(house.path("in.mkv"), b"some media").unwrap();
        house
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program that can be run at once. It is another process that writes it: a descriptor of ours
    /// would for a moment be that of every child that another test forks meanwhile, and what
    /// somebody has open for writing can't be run ("text file busy").
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let (path, source) = (self.path(name), self.path(&format!("{name}.text")));
        fs::write(&source, text).unwrap();
        let installed = Command::new("install").args([&source, &path]).status().unwrap();
        assert!(installed.success(), "{installed}");
        path
    }

    pub fn record(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path("record").join(name)).ok()
    }

    /// What the recording ffmpeg was called with, or `None` if it wasn't.
    pub fn recorded_arguments(&self) -> Option<Vec<OsString>> {
        let mut bytes = self.record("argv")?;
        if bytes.pop().is_some_and(|last| last != 0) {
            panic!("argv ends in NUL");
        }
        Some(bytes.split(|b| *b == 0).map(|word| OsString::from_vec(word.to_vec())).collect())
    }

    /// Names in the output directory, sorted.
    pub fn output(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path("out"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Writes a segment as a worker does.
    pub fn segment(&self, number: u32) {
        let temporary = self.path(&format!("out/id{number}.ts.t.tmp"));
        fs::write(&temporary, b"a segment").unwrap();
        fs::rename(temporary, self.path(&format!("out/id{number}.ts"))).unwrap();
    }

    /// A command that is a transcode: software, MPEG-TS.
    pub fn job(&self) -> Vec<OsString> {
        let out = self.path("out").display().to_string();
        let line = format!(
            r#"-analyzeduration 200M -probesize 1G  -i file:"{input}" -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s -codec:v:0 libx264 -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000 -profile:v:0 high -level 41 -x264opts:0 subme=0:me_range=16:rc_lookahead=10:me=hex:open_gop=0 -force_key_frames:0 "expr:gte(t,n_forced*3)" -sc_threshold:v:0 0 -vf "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,scale=trunc(min(max(iw\,ih*a)\,min(1280\,720*a))/2)*2:trunc(min(max(iw/a\,ih)\,min(1280/a\,720))/2)*2,format=yuv420p" -codec:a:0 aac -ac 2 -ab 256000 -af "volume=2" -copyts -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time 3 -hls_segment_type mpegts -start_number 0 -hls_segment_filename "{out}/id%d.ts" -hls_playlist_type vod -hls_list_size 0 -y "{out}/id.m3u8""#,
            input = self.path("in.mkv").display(),
        );
        ffmpeg_args::split_command_line(&line).into_iter().map(OsString::from).collect()
    }

    /// A command for one file, `out/{FILE}`.
    pub fn file_job(&self) -> Vec<OsString> {
        let line = format!(
            r#"-analyzeduration 200M -probesize 1G -i file:"{input}" -map 0:0 -map 0:1 -map -0:s -codec:v:0 copy -map_metadata -1 -map_chapters -1 -threads 0 -codec:a:0 aac -ac 2 -ab 128000 -f mp4 -movflags frag_keyframe+empty_moov+delay_moov -y "{output}""#,
            input = self.path("in.mkv").display(),
            output = self.path("out").join(FILE).display(),
        );
        ffmpeg_args::split_command_line(&line).into_iter().map(OsString::from).collect()
    }

    /// The hook's command line under this name, with a clean environment.
    pub fn command(&self, name: &str, arguments: &[OsString]) -> Command {
        let mut command = Command::new(self.path("hook").join(name));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("RENDERGATE_") {
                command.env_remove(variable);
            }
        }
        command
            .args(arguments)
            .env("RENDERGATE_FFMPEG", self.path("real/ffmpeg"))
            .env("RENDERGATE_FFPROBE", self.path("real/ffprobe"))
            .env("RENDERGATE_ENDPOINT", format!("unix:{}", self.path("socket").display()))
            .env("RECORD", self.path("record"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn start(&self, arguments: &[OsString]) -> Hook {
        Hook::start(self.command("ffmpeg", arguments))
    }

    pub fn gateway(&self) -> Gateway {
        Gateway(UnixListener::bind(self.path("socket")).unwrap())
    }

    /// Another one in the place of one that is gone.
    pub fn gateway_again(&self) -> Gateway {
        fs::remove_file(self.path("socket")).unwrap();
        self.gateway()
    }

    /// A hook whose job a gateway has accepted as stream 3.
    pub fn accepted(&self) -> (Hook, Connection) {
        let gateway = self.gateway();
        let hook = self.start(&self.job());
        let mut connection = gateway.connection();
        connection.job();
        connection.accept();
        (hook, connection)
    }

    /// The same after the first segment, with the placeholder of the second.
    pub fn committed(&self) -> (Hook, Connection) {
        let (hook, connection) = self.accepted();
        connection.say(&GatewayToHook::Committed);
        self.segment(0);
        connection.complete(0);
        wait_for("placeholder", || self.output() == ["id0.ts", "id1.ts"]);
        (hook, connection)
    }
}

/// A running hook.
pub struct Hook {
    pub child: Child,
    stdin: Option<ChildStdin>,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

/// What a hook leaves.
pub struct Left {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Hook {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        fn reader(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                from.read_to_end(&mut bytes).unwrap();
                bytes
            })
        }
        let stdin = child.stdin.take();
        let stdout = reader(child.stdout.take().unwrap());
        let stderr = reader(child.stderr.take().unwrap());
        Self { child, stdin, stdout, stderr }
    }

    pub fn keys(&mut self, keys: &str) {
        self.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the exit. Keeps stdin open, as Jellyfin does.
    pub fn left(mut self) -> Left {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                self.child.kill().unwrap();
                panic!("the hook doesn't end");
            }
            let_pass(Duration::from_millis(2));
        };
        Left {
            status,
            stdout: String::from_utf8(self.stdout.join().unwrap()).unwrap(),
            stderr: String::from_utf8(self.stderr.join().unwrap()).unwrap(),
        }
    }

    /// Closes stdin, then waits: for commands that end in the recording ffmpeg, which reads it.
    pub fn left_after_input(mut self) -> Left {
        self.close_stdin();
        self.left()
    }
}

/// Listens where hooks connect.
pub struct Gateway(UnixListener);

impl Gateway {
    pub fn connection(&self) -> Connection {
        let (socket, _) = self.0.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(Channel::new(OwnedFd::from(socket)))
    }

    /// Whether no hook has connected.
    pub fn is_quiet(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let quiet = self.0.accept().is_err();
        self.0.set_nonblocking(false).unwrap();
        quiet
    }
}

/// One hook, seen from the gateway.
pub struct Connection(Channel);

impl Connection {
    pub fn job(&mut self) -> (Transcode, Vec<OwnedFd>) {
        let received = self.0.receive::<HookToGateway>().unwrap().expect("a job");
        match received.message {
            HookToGateway::Job { protocol: PROTOCOL, transcode, takeover: None, .. } => {
                (*transcode, received.descriptors)
            }
            other => panic!("expected a job, got {other:?}"),
        }
    }

    /// The next message, whatever it is.
    pub fn message(&mut self) -> HookToGateway {
        self.0.receive().unwrap().expect("a message").message
    }

    /// The same with its descriptors.
    pub fn message_with(&mut self) -> (HookToGateway, Vec<OwnedFd>) {
        let received = self.0.receive().unwrap().expect("a message");
        (received.message, received.descriptors)
    }

    pub fn say(&self, message: &GatewayToHook) {
        self.say_with(message, &[]);
    }

    pub fn say_with(&self, message: &GatewayToHook, descriptors: &[BorrowedFd<'_>]) {
        self.0.send(message, descriptors).unwrap();
    }

    /// Says that a segment is complete, of which nobody could go on.
    pub fn complete(&self, number: u64) {
        let complete = Complete::default();
        self.say(&GatewayToHook::SegmentComplete { number, complete });
    }

    pub fn accept(&self) {
        self.say(&GatewayToHook::Accepted { stream: StreamId(3), protocol: PROTOCOL });
    }

    pub fn control(&mut self) -> Control {
        let received = self.0.receive::<HookToGateway>().unwrap().expect("a control message");
        match received.message {
            HookToGateway::Control(control) => control,
            other => panic!("expected a control message, got {other:?}"),
        }
    }

    /// Whether the hook has closed the connection and said nothing more before.
    pub fn is_closed(&mut self) -> bool {
        self.0.receive::<HookToGateway>().unwrap().is_none()
    }
}

/// Lets time pass: between two looks, or because something must not happen meanwhile.
#[expect(clippy::disallowed_methods, reason = "nothing signals what is polled for or must not be")]
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "no {what}");
        let_pass(Duration::from_millis(1));
    }
}

pub fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Replaces one argument.
pub fn replaced(
    arguments: &[OsString],
    from: impl AsRef<OsStr>,
    to: impl AsRef<OsStr>,
) -> Vec<OsString> {
    let mut found = false;
    let replaced = arguments
        .iter()
        .map(|word| {
            if word == from.as_ref() {
                found = true;
                to.as_ref().to_owned()
            } else {
                word.clone()
            }
        })
        .collect();
    assert!(found, "{:?} is an argument", from.as_ref());
    replaced
}

pub fn file_url(path: &Path) -> String {
    format!("file:{}", path.display())
}
