//! One worker process, from its start to its reaping.
//!
//! Invariants:
//! - A worker that was started is waited for: by [`Worker::end`], after a while by a task that
//!   nobody waits for, or, if dropped, by the runtime after a SIGKILL.
//! - Its process group is killed, so nothing that it started survives it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, setpriority_pgrp};
use session::{PROTOCOL, WorkerToGateway};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::task::JoinHandle;
use tracing::Span;

use crate::connection::{Connection, ConnectionError};
use crate::launch::Launcher;

/// How long the log of a dead worker is waited for. A process it left behind could hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long a worker that was killed is waited for. One that sleeps in the kernel, in a driver or on a
/// dead share, dies only when that lets go of it; its viewer is to hear of it before.
const KILLED_LIMIT: Duration = Duration::from_secs(2);
/// Longest line of a worker's log in bytes; longer ones are cut into several.
const MAX_LINE: u64 = 4096;

/// Why there is no warm worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Not even a process.
    #[error("can't start a worker: {0}")]
    Spawn(#[from] io::Error),
    /// It ended before it was warm.
    #[error("the worker {0} before it was ready")]
    Died(String),
    /// It said nothing, or something else, in time.
    #[error("the worker was not ready after {0:?}")]
    Silent(Duration),
    /// It said something else.
    #[error("the worker can't be understood: {0}")]
    Garbage(String),
    /// It is another version.
    #[error(
        "the worker speaks protocol {0}, this gateway {PROTOCOL}: \
         rendergate and rendergate-worker are installed together"
    )]
    Protocol(u32),
}

impl StartError {
    /// Stable word for counters.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Spawn(_) => "spawn",
            Self::Died(_) => "died_at_start",
            Self::Silent(_) => "not_ready",
            Self::Garbage(_) | Self::Protocol(_) => "protocol",
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Messages.
    pub connection: Connection,
    child: Child,
    pid: u32,
    /// See [`WorkerToGateway::Ready`].
    lease: Option<OwnedFd>,
    log: WorkerLog,
    niced: bool,
    exited: bool,
}

impl Worker {
    /// Starts a process and waits until it is warm. Must run on the main thread; see
    /// [`crate::launch`].
    pub(crate) async fn start(launcher: &Launcher, limit: Duration) -> Result<Self, StartError> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = launcher.command(OwnedFd::from(theirs)).spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process has no id"))?;
        let stderr = child.stderr.take().ok_or_else(|| io::Error::other("no log pipe"))?;
        let mut worker = Self {
            connection: Connection::from_std(ours)?,
            child,
            pid,
            lease: None,
            log: WorkerLog::read(pid, stderr),
            niced: launcher.nice > 0,
            exited: false,
        };
        let first = tokio::time::timeout(limit, worker.connection.receive::<WorkerToGateway>());
        let failure = match first.await {
            Ok(Ok(Some(mut received))) => match received.message {
                WorkerToGateway::Ready { protocol: PROTOCOL } => {
                    worker.lease = received.descriptors.pop();
                    if worker.lease.is_some() {
                        return Ok(worker);
                    }
                    StartError::Garbage("expected its lease with ready".into())
                }
                WorkerToGateway::Ready { protocol } => StartError::Protocol(protocol),
                other => StartError::Garbage(format!("expected ready, got {other:?}")),
            },
            Ok(Ok(None) | Err(ConnectionError::Io(_))) => {
                return Err(StartError::Died(worker.end(Duration::from_secs(1)).await.to_string()));
            }
            Ok(Err(error)) => StartError::Garbage(error.to_string()),
            Err(_) => StartError::Silent(limit),
        };
        worker.end(Duration::ZERO).await;
        Err(failure)
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// A hold on its lease, for whoever has to know of its end without being its parent.
    pub(crate) fn lease(&self) -> io::Result<Vec<OwnedFd>> {
        self.lease.iter().map(OwnedFd::try_clone).collect()
    }

    /// From now on it works for a viewer: full speed, and its log lines belong to the stream.
    pub(crate) fn assign(&mut self, span: Span, niceness: i32) {
        self.log.assign(span);
        if self.niced {
            // The group, because that reaches every thread of the process.
            if let Err(error) = setpriority_pgrp(self.group(), niceness) {
                tracing::warn!(%error, "the worker stays at low priority");
            }
        }
    }

    /// Its next message; `None` once it has closed the connection or its process has ended and all
    /// that it said is heard.
    pub(crate) async fn receive(&mut self) -> Result<Option<WorkerToGateway>, ConnectionError> {
        let mut exited = self.exited;
        let received = loop {
            tokio::select! {
                biased;
                received = self.connection.receive::<WorkerToGateway>() => break received?,
                // Something that it started can hold the connection open.
                () = tokio::time::sleep(LAST_WORDS), if exited => break None,
                _ = self.child.wait(), if !exited => exited = true,
            }
        };
        self.exited = exited;
        Ok(received.map(|received| received.message))
    }

    /// Waits until it can't be given to a job any more: its process has ended, or it says
    /// something without having been asked.
    pub(crate) async fn broken(&mut self) {
        // Whatever it is: a worker without a stream has nothing to say.
        let _ = self.receive().await;
    }

    /// Closes the connection towards the worker, which then ends by itself; kills it after `grace`.
    /// Messages that it still sends are dropped.
    pub(crate) async fn end(self, grace: Duration) -> Death {
        self.end_hearing(grace, |_| {}).await
    }

    /// As [`end`](Self::end); `hear` gets the messages that still come.
    pub(crate) async fn end_hearing(
        mut self,
        grace: Duration,
        mut hear: impl FnMut(WorkerToGateway),
    ) -> Death {
        self.connection.close_write();
        let deadline = tokio::time::Instant::now() + grace;
        let mut status = None;
        let mut open = true;
        while status.is_none() {
            tokio::select! {
                biased;
                result = self.connection.receive::<WorkerToGateway>(), if open => match result {
                    Ok(Some(received)) => hear(received.message),
                    _ => open = false,
                },
                result = self.child.wait() => status = Some(result),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        let killed = status.is_none();
        // Also after an exit: what it may have started is in its group. The kernel hands out numbers
        // in a circle, so this one isn't another group's within the moment since the reaping.
        if let Some(group) = self.group() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = match status {
            Some(status) => status.ok(),
            None => {
                let mut child = self.child;
                wait_so_long(async move { child.wait().await.ok() }, KILLED_LIMIT).await.flatten()
            }
        };
        // Whatever it said before it died is in the socket still.
        while open {
            let rest = self.connection.receive::<WorkerToGateway>();
            match tokio::time::timeout(LAST_WORDS, rest).await {
                Ok(Ok(Some(received))) => hear(received.message),
                _ => open = false,
            }
        }
        Death { status, killed, last_line: self.log.finish().await }
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }
}

/// What comes of `work`, if it comes in time; later it is still waited for, by nobody.
async fn wait_so_long<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    limit: Duration,
) -> Option<T> {
    let task = tokio::spawn(work);
    tokio::time::timeout(limit, task).await.ok()?.ok()
}

/// How a worker process ended.
#[derive(Debug)]
pub(crate) struct Death {
    status: Option<ExitStatus>,
    killed: bool,
    last_line: Option<String>,
}

impl Death {
    /// By itself, with status 0.
    pub(crate) fn is_clean(&self) -> bool {
        !self.killed && self.status.is_some_and(|status| status.success())
    }

    /// Its process is no more.
    pub(crate) fn is_reaped(&self) -> bool {
        self.status.is_some()
    }

    /// It had to be killed.
    pub(crate) fn was_killed(&self) -> bool {
        self.killed
    }
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.killed, self.status) {
            (true, None) => write!(f, "hung and was killed, which takes its time")?,
            (true, Some(_)) => write!(f, "hung and was killed")?,
            (false, None) => write!(f, "is gone")?,
            (false, Some(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exited with status {code}")?,
                (None, Some(signal)) => write!(f, "was ended by signal {signal}")?,
                (None, None) => write!(f, "is gone")?,
            },
        }
        match &self.last_line {
            Some(line) => write!(f, " (its last words: {line})"),
            None => Ok(()),
        }
    }
}

/// The lines that a worker writes to standard error.
#[derive(Debug)]
struct WorkerLog {
    span: Arc<OnceLock<Span>>,
    last: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl WorkerLog {
    fn read(pid: u32, stderr: ChildStderr) -> Self {
        let span = Arc::new(OnceLock::<Span>::new());
        let last = Arc::new(Mutex::new(None));
        let task = {
            let (span, last) = (span.clone(), last.clone());
            tokio::spawn(async move {
                let mut stderr = BufReader::with_capacity(MAX_LINE as usize, stderr);
                let mut line = Vec::new();
                loop {
                    line.clear();
                    match (&mut stderr).take(MAX_LINE).read_until(b'\n', &mut line).await {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {}
                    }
                    let text = String::from_utf8_lossy(&line);
                    let text = text.trim_end();
                    if text.is_empty() {
                        continue;
                    }
                    let _entered = span.get().map(|span| span.enter());
                    tracing::info!(target: "worker", worker = pid, "{text}");
                    *last.lock().unwrap_or_else(|e| e.into_inner()) = Some(text.to_owned());
                }
            })
        };
        Self { span, last, task }
    }

    fn assign(&self, span: Span) {
        // A worker is assigned once.
        let _ = self.span.set(span);
    }

    async fn finish(mut self) -> Option<String> {
        if tokio::time::timeout(LAST_WORDS, &mut self.task).await.is_err() {
            self.task.abort();
        }
        self.last.lock().unwrap_or_else(|e| e.into_inner()).take()
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        // Reads to the end of a dropped worker's pipe would be for nobody.
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_can_t_be_killed_is_reaped_later() {
        let (die, dead) = oneshot::channel::<()>();
        let (reaped, told) = oneshot::channel();
        let wait = async move {
            let _ = dead.await;
            let _ = reaped.send("reaped");
        };
        let start = tokio::time::Instant::now();
        assert_eq!(wait_so_long(wait, KILLED_LIMIT).await, None);
        assert_eq!(start.elapsed(), KILLED_LIMIT);
        die.send(()).unwrap();
        assert_eq!(told.await, Ok("reaped"));
        assert_eq!(wait_so_long(async { 7 }, KILLED_LIMIT).await, Some(7));
    }
}
