//! One call of an ffmpeg, the hook or the real one, watched from outside.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::processes::memory_kib;
use crate::stack::{Stack, pause};

/// What a whole call cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Start to exit.
    pub wall: Duration,
    /// Highest resident memory of all its processes together, KiB.
    pub peak_kib: u64,
    /// Highest resident memory of the called process alone, KiB.
    pub own_peak_kib: u64,
    /// Start to the first line on stderr that says a gateway has the stream.
    pub accepted: Option<Duration>,
}

/// Runs the call to its end. With a stack, `program` is the hook and its gateway's and worker's
/// memory count.
///
/// # Errors
/// If it doesn't start or fails.
pub fn run(program: &Path, arguments: &[String], stack: Option<&Stack>) -> Result<Cost> {
    let started = Instant::now();
    let mut child = spawn(program, arguments, stack)?;
    let stderr = child.stderr.take();
    let reader: JoinHandle<(Option<Duration>, String)> = std::thread::spawn(move || {
        let mut accepted = None;
        let mut text = String::new();
        for said in stderr.map(BufReader::new).into_iter().flat_map(BufRead::lines).flatten() {
            if said.contains("rendergate: stream ") {
                accepted.get_or_insert_with(|| started.elapsed());
            }
            text.push_str(&said);
            text.push('\n');
        }
        (accepted, text)
    });
    let (mut peak, mut own_peak) = (0, 0);
    let mut worker = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let own = memory_kib(child.id(), "VmRSS:").unwrap_or(0);
        own_peak = own_peak.max(memory_kib(child.id(), "VmHWM:").unwrap_or(0));
        let mut sum = own;
        if let Some(stack) = stack {
            worker = worker.or_else(|| stack.stream_worker());
            sum += memory_kib(stack.pid(), "VmRSS:").unwrap_or(0);
            sum += worker.and_then(|pid| memory_kib(pid, "VmRSS:")).unwrap_or(0);
        }
        peak = peak.max(sum);
        pause(10);
    };
    let wall = started.elapsed();
    let (accepted, text) = reader.join().unwrap_or_default();
    ensure!(status.success(), "{} failed ({status}):\n{text}", program.display());
    if stack.is_some() && accepted.is_none() {
        bail!("the hook didn't hand the stream to the gateway:\n{text}");
    }
    Ok(Cost { wall, peak_kib: peak, own_peak_kib: own_peak, accepted })
}

/// Starts the call as Jellyfin would.
///
/// # Errors
/// If the program can't be started.
pub fn spawn(program: &Path, arguments: &[String], stack: Option<&Stack>) -> Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(stack) = stack {
        let (name, endpoint) = stack.endpoint();
        command.env(name, endpoint);
    }
    Ok(command.spawn()?)
}
