//! One ffmpeg process, started, spoken to and stopped as Jellyfin does (contract 0 and 3).

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use serde::Serialize;

use crate::job_logger::{Lines, Reading, read_line};
use crate::let_pass;

/// How long Jellyfin waits after `q` before it kills (contract 3, Stop).
pub const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How often an exit is looked for; .NET is told at once.
const LOOK: Duration = Duration::from_millis(2);
/// Lines of the log that are kept from its beginning and from its end.
const KEPT_LINES: usize = 40;

/// What the log of a process has said so far.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Log {
    /// The first lines that are no progress.
    pub head: Vec<String>,
    /// The last lines that are no progress.
    pub tail: Vec<String>,
    /// How many progress lines Jellyfin could read.
    pub readings: usize,
    /// The last of them.
    pub last: Option<Reading>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Exit {
    /// As `waitpid` says; 128 + N for a signal.
    pub code: i32,
    /// Seconds from the wish to stop until the exit; `None` if it ended by itself.
    pub stop_seconds: Option<f64>,
    /// Whether `q` was not enough.
    pub killed: bool,
}

/// A running process.
pub struct Job {
    child: Child,
    stdin: Option<ChildStdin>,
    log: Arc<Mutex<Log>>,
    stdout_bytes: Arc<Mutex<u64>>,
    readers: Vec<JoinHandle<()>>,
    paused: bool,
    exit: Option<Exit>,
    /// When it was started.
    pub started: Instant,
}

impl Job {
    /// Starts `program`, with pipes at stdin and stderr.
    ///
    /// # Errors
    /// If it can't be executed.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(String, OsString)],
        nice: bool,
    ) -> io::Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if nice {
            // Jellyfin ignores failure too.
            _ = setpriority_process(Some(Pid::from_child(&child)), 10);
        }
        let stdin = child.stdin.take();
        let log = Arc::new(Mutex::new(Log::default()));
        let stdout_bytes = Arc::new(Mutex::new(0));
        let readers = vec![
            read_log(child.stderr.take().expect("piped"), log.clone()),
            count(child.stdout.take().expect("piped"), stdout_bytes.clone()),
        ];
        Ok(Self { child, stdin, log, stdout_bytes, readers, paused: false, exit: None, started })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn exit(&mut self) -> Option<Exit> {
        if self.exit.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.exit = Some(Exit { code: code(status), stop_seconds: None, killed: false });
        }
        self.exit
    }

    /// The throttler's key.
    pub fn pause(&mut self) {
        self.key(b"p");
        self.paused = true;
    }

    /// Its counterpart, sent only to whoever is paused.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.key(b"u");
        }
    }

    fn key(&mut self, bytes: &[u8]) {
        if let Some(stdin) = &mut self.stdin {
            // A process that has ended reads nothing any more.
            _ = stdin.write_all(bytes).and_then(|()| stdin.flush());
        }
    }

    /// `q`, five seconds, SIGKILL to that process alone.
    pub fn stop(&mut self) -> Exit {
        if let Some(exit) = self.exit() {
            return exit;
        }
        self.resume();
        self.key(b"q\n");
        self.finish(STOP_PATIENCE)
    }

    /// A signal instead of `q`, with the same patience.
    pub fn signal(&mut self, signal: Signal) -> Exit {
        if let Some(exit) = self.exit() {
            return exit;
        }
        _ = kill_process(Pid::from_child(&self.child), signal);
        self.finish(STOP_PATIENCE)
    }

    fn finish(&mut self, patience: Duration) -> Exit {
        let asked = Instant::now();
        let mut killed = false;
        let status = loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                break status;
            }
            if !killed && asked.elapsed() >= patience {
                killed = true;
                _ = self.child.kill();
            }
            let_pass(LOOK);
        };
        let stop_seconds = Some(asked.elapsed().as_secs_f64());
        *self.exit.insert(Exit { code: code(status), stop_seconds, killed })
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.exit() {
                return exit;
            }
            let_pass(LOOK);
        }
    }

    /// What it has said; after its end all of it, unless a descendant keeps the pipe open.
    pub fn log(&mut self) -> Log {
        if self.exit().is_some() {
            let end = Instant::now() + Duration::from_secs(1);
            while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < end {
                let_pass(LOOK);
            }
        }
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody still holds its stdout or stderr though it has ended: a process left
    /// behind.
    pub fn left_something_behind(&mut self) -> bool {
        self.log();
        self.exit().is_some() && !self.readers.iter().all(JoinHandle::is_finished)
    }

    /// Bytes that came on stdout, which belongs to Jellyfin.
    pub fn stdout_bytes(&self) -> u64 {
        *self.stdout_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.exit().is_none() {
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn read_log(mut from: impl Read + Send + 'static, log: Arc<Mutex<Log>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = Lines::default();
        let mut bytes = [0; 4096];
        loop {
            let read = from.read(&mut bytes).unwrap_or(0);
            let mut new = lines.push(&bytes[..read]);
            if read == 0 {
                new.extend(lines.finish());
            }
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            for line in new {
                log.take(line);
            }
            if read == 0 {
                return;
            }
        }
    })
}

impl Log {
    fn take(&mut self, line: String) {
        if let Some(reading) = read_line(&line) {
            self.readings += 1;
            self.last = Some(reading);
        } else if self.head.len() < KEPT_LINES {
            self.head.push(line);
        } else {
            if self.tail.len() == KEPT_LINES {
                self.tail.remove(0);
            }
            self.tail.push(line);
        }
    }
}

fn count(mut from: impl Read + Send + 'static, bytes: Arc<Mutex<u64>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            *bytes.lock().unwrap_or_else(PoisonError::into_inner) += read as u64;
        }
    })
}
