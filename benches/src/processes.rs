//! Looking at processes through `/proc`.

use std::fs;
use std::path::{Path, PathBuf};

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// What it executes.
    pub executable: PathBuf,
}

/// All processes that execute `program`, zombies left out.
pub fn running(program: &Path) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let executable = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        (executable == program).then_some(())?;
        let parent = status(pid, "PPid:")? as u32;
        let alive =
            !fs::read_to_string(format!("/proc/{pid}/status")).ok()?.contains("\nState:\tZ");
        alive.then_some(Process { pid, parent, executable })
    })
    .collect()
}

/// All processes, zombies too, with this word among their arguments.
pub fn called_with(word: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    })
    .collect()
}

/// Children of a process, zombies too.
pub fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| status(*pid, "PPid:") == Some(parent.into())).collect()
}

/// Resident memory in KiB: now (`VmRSS:`) or at its highest (`VmHWM:`).
pub fn memory_kib(pid: u32, field: &str) -> Option<u64> {
    status(pid, field)
}

/// Open descriptors.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn status(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
