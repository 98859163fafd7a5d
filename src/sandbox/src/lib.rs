//! Takes from a process what it doesn't need, before it reads what may be hostile.
//!
//! Two layers of the kernel, neither of which needs privileges, and neither of which can be taken off:
//!
//! | layer | what it holds | module |
//! |---|---|---|
//! | Landlock | which files may be opened, made, removed; TCP; signals and abstract sockets of others | `files` |
//! | seccomp | which system calls there are at all | `calls` |
//!
//! Landlock judges the path that a file has, also when it is named relative to a descriptor that was
//! handed in; hence the rule for the output directory. Descriptors that are open already it lets be.
//!
//! Landlock binds the thread that asks for it and those which it starts later. A process must
//! therefore enter before it has a second thread; [`Prepared::enter`] makes sure.
//!
//! Invariants:
//! - What [`Held`] says is in force is in force for every thread of the process.
//! - Nothing that may be opened for writing may be opened for running; nothing can be run at all.
#![forbid(unsafe_code)]

mod calls;
mod files;
mod places;

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::fstat;

/// Folders and files beyond those that every worker needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extra {
    /// May be read, with all below them.
    pub read: Vec<PathBuf>,
    /// May be read, written, made and removed, with all below them.
    pub write: Vec<PathBuf>,
}

/// What the one stream of a process needs.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// The directory that is written to.
    pub output: BorrowedFd<'a>,
    /// What is there already is read, to go on with it.
    pub goes_on: bool,
    /// A folder of fonts, whose files are opened one by one.
    pub fonts: Option<BorrowedFd<'a>>,
    /// It may use a GPU: all render nodes, as the names of GStreamer's elements depend on all.
    pub gpu: bool,
    /// Where engine time is read: `/proc`, or what stands for it in a test.
    pub proc_root: &'a Path,
}

/// A sandbox with everything in it that is known before the work is.
#[derive(Debug)]
pub struct Prepared {
    files: Result<files::Rules, String>,
}

/// What is in force from now on.
#[derive(Debug)]
pub struct Held {
    /// Landlock's ABI, or why it isn't in force.
    pub landlock: Result<u32, String>,
    /// Or why it isn't in force.
    pub seccomp: Result<(), String>,
    /// Keeps what rules hang on.
    _pins: Option<files::Pins>,
}

impl Prepared {
    /// Makes the rules that don't depend on the work. `variable` gives the environment.
    pub fn new(extra: &Extra, variable: impl Fn(&str) -> Option<String>) -> Self {
        let rules = files::Rules::new().map(|mut rules| {
            for path in places::read(&variable).iter().chain(&extra.read) {
                rules.read(path);
            }
            for path in places::LISTED {
                rules.list(path);
            }
            for path in places::WRITTEN {
                rules.device(path);
            }
            for path in &extra.write {
                rules.write(path);
            }
            rules
        });
        Self { files: rules }
    }

    /// Enters, for good. What can't be had is left out and said.
    pub fn enter(self, work: Work<'_>) -> Held {
        let entered = match threads() {
            1 => self.files.and_then(|mut rules| {
                if work.gpu {
                    places::render_nodes().iter().for_each(|node| rules.device(node));
                    places::gpus().iter().for_each(|folder| rules.read(folder));
                }
                if work.proc_root != Path::new("/proc") {
                    rules.read(work.proc_root);
                }
                rules.output(work.output, work.goes_on)?;
                work.fonts.map_or(Ok(()), |folder| rules.folder(folder))?;
                rules.enforce()
            }),
            count => Err(format!("expected one thread, there are {count}")),
        };
        let (landlock, pins) = match entered {
            Ok((abi, pins)) => (Ok(abi), Some(pins)),
            Err(reason) => (Err(reason), None),
        };
        let seccomp = fstat(work.output)
            .map_err(|error| format!("the output directory can't be looked at: {error}"))
            .and_then(|owner| calls::forbid((owner.st_uid, owner.st_gid), work.gpu));
        Held { landlock, seccomp, _pins: pins }
    }
}

/// How many threads this process has; 0 if that can't be told.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
