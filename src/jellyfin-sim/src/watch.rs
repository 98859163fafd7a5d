//! Everything that happens in the transcode directory, by inotify.
//!
//! The kernel queues an event before the call that caused it returns. [`Watch::sync`] empties the
//! queue, so whatever was done before it is known after it, whenever the thread gets to run.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new under this name.
    Created,
    /// A whole file took this name (rename).
    MovedIn,
    /// Bytes were written.
    Written,
    /// It is gone from this name.
    Gone,
}

/// A change and its circumstances.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// When it was noticed.
    pub at: Instant,
    /// The run that was going on.
    pub run: usize,
    /// What.
    pub change: Change,
}

#[derive(Debug, Default)]
struct Seen {
    run: usize,
    files: BTreeMap<String, Vec<Event>>,
}

/// A watched directory.
pub struct Watch {
    inotify: Arc<OwnedFd>,
    prefix: String,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the files of `directory` whose names begin with `prefix`.
    ///
    /// # Errors
    /// Those of inotify: a missing directory, or too many watches.
    pub fn start(directory: &Path, prefix: &str) -> std::io::Result<Self> {
        let inotify = Arc::new(init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let what = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE;
        add_watch(&inotify, directory, what)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (inotify, seen, stop) = (inotify.clone(), seen.clone(), stop.clone());
            let prefix = prefix.to_owned();
            std::thread::spawn(move || {
                let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                while !stop.load(Ordering::Relaxed) {
                    let mut fds = [PollFd::new(&*inotify, PollFlags::IN)];
                    if matches!(poll(&mut fds, Some(&wait)), Ok(n) if n > 0) {
                        take(&inotify, &prefix, &seen);
                    }
                }
            })
        };
        let prefix = prefix.to_owned();
        Ok(Self { inotify, prefix, seen, stop, thread: Some(thread) })
    }

    /// From here on events belong to this run.
    pub fn begin_run(&self, run: usize) {
        self.sync();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).run = run;
    }

    /// Takes in all that has happened so far.
    pub fn sync(&self) {
        take(&self.inotify, &self.prefix, &self.seen);
    }

    /// Names seen so far, with what happened to each.
    pub fn files(&self) -> BTreeMap<String, Vec<Event>> {
        self.sync();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).files.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It can't have panicked: it does nothing that could.
            _ = thread.join();
        }
    }
}

fn take(inotify: &OwnedFd, prefix: &str, seen: &Mutex<Seen>) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut reader = Reader::new(inotify, &mut buffer);
    while let Ok(event) = reader.next() {
        let Some(name) = event.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        if !name.starts_with(prefix) {
            continue;
        }
        let flags = event.events();
        let change = if flags.contains(ReadFlags::CREATE) {
            Change::Created
        } else if flags.contains(ReadFlags::MOVED_TO) {
            Change::MovedIn
        } else if flags.contains(ReadFlags::MODIFY) {
            Change::Written
        } else {
            Change::Gone
        };
        let run = seen.run;
        let events = seen.files.entry(name).or_default();
        // Writes come by the thousand; the newest of a row tells as much.
        if change == Change::Written
            && events.last().is_some_and(|last| last.change == change && last.run == run)
        {
            events.pop();
        }
        events.push(Event { at: Instant::now(), run, change });
    }
}
