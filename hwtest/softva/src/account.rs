//! The account: how much CPU time the engines took, as a stand-in for a GPU's busy time.
//!
//! `SOFTVA_ACCOUNT=FILE` (`%p` is the process id) names a JSON file that is written whenever a
//! display is closed and when the process ends. Processes that did no work write nothing.
//!
//! `SOFTVA_PROC=DIR` has the same published as a kernel does: `DIR/<pid>/fdinfo/0`, in i915's words, of
//! which decoding and encoding are one engine class, and processing another. Whoever reads engine time
//! reads `DIR` in place of `/proc`.
//!
//! Invariant: seconds are thread CPU time, so they don't depend on how busy the machine is. All
//! codecs run in the caller's thread but x265, whose one worker thread is told apart by its name
//! and read through its own clock ([`Helpers`]).

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::trace::{self, Engine};

/// CPU time and pictures of one engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// CPU time.
    pub time: Duration,
    /// Pictures begun and ended (fields count one each).
    pub pictures: u64,
}

static WORK: Mutex<[Work; 3]> = Mutex::new([Work { time: Duration::ZERO, pictures: 0 }; 3]);

/// Adds a picture's work.
pub fn add(engine: Engine, time: Duration, pictures: u64) {
    let mut work = WORK.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = &mut work[engine as usize];
    entry.time += time;
    entry.pictures += pictures;
    publish(&work);
}

/// Puts the process's entry into the tree of processes. Under the lock of the account, so that an
/// older one never replaces a newer one.
fn publish(work: &[Work; 3]) {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let root = PathBuf::from(std::env::var_os("SOFTVA_PROC")?);
        let folder = root.join(std::process::id().to_string()).join("fdinfo");
        let made = std::fs::create_dir_all(&folder);
        if let Err(error) = &made {
            crate::trace!("{}: {error}", folder.display());
        }
        made.is_ok().then_some(folder)
    });
    let Some(folder) = folder else { return };
    let ns = |engines: &[Engine]| -> u128 {
        engines.iter().map(|engine| work[*engine as usize].time.as_nanos()).sum()
    };
    let text = format!(
        "drm-driver:\ti915\ndrm-pdev:\t0000:00:02.0\ndrm-client-id:\t1\n\
         drm-engine-render:\t0 ns\ndrm-engine-video:\t{} ns\ndrm-engine-video-enhance:\t{} ns\n",
        ns(&[Engine::Decode, Engine::Encode]),
        ns(&[Engine::Process]),
    );
    // Whoever reads sees the whole of it, as in a kernel's file.
    let (entry, making) = (folder.join("0"), folder.with_file_name("fdinfo.tmp"));
    let made = std::fs::write(&making, text).and_then(|()| std::fs::rename(&making, &entry));
    if let Err(error) = made {
        crate::trace!("{}: {error}", entry.display());
    }
}

/// CPU time of the calling thread.
pub fn thread_time() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

fn clock(id: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the struct it is given.
    let read = unsafe { libc::clock_gettime(id, &raw mut time) } == 0;
    let seconds = u64::try_from(time.tv_sec).ok()?;
    read.then(|| Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Threads that a codec started, and the CPU time they have used.
#[derive(Debug, Default)]
pub struct Helpers {
    threads: Vec<libc::pid_t>,
    seen: Duration,
}

impl Helpers {
    /// Runs `open` and finds the threads it starts: they inherit their creator's name, which is
    /// one of a kind for that moment.
    pub fn started_by<T>(open: impl FnOnce() -> T) -> (T, Self) {
        // SAFETY: a plain system call.
        let name = format!("sva-{}\0", unsafe { libc::gettid() });
        let mut former = [0u8; 16];
        // SAFETY: both buffers are 16 bytes or NUL-terminated, as prctl(2) asks.
        unsafe {
            libc::prctl(libc::PR_GET_NAME, former.as_mut_ptr());
            libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        }
        let opened = open();
        let threads = threads_named(name.trim_end_matches('\0'));
        // SAFETY: `former` was filled by the kernel and is NUL-terminated.
        unsafe { libc::prctl(libc::PR_SET_NAME, former.as_ptr()) };
        (opened, Self { threads, seen: Duration::ZERO })
    }

    /// CPU time since the last call.
    pub fn since_last(&mut self) -> Duration {
        // The kernel's clock of another thread of this process: clock_getcpuclockid(3) in
        // glibc's own words, ~tid << 3 | CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED.
        let total = self.threads.iter().filter_map(|thread| clock((!thread << 3) | 6)).sum();
        let since = Duration::saturating_sub(total, self.seen);
        self.seen = total;
        since
    }

    /// How many threads there are.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether all work is done in the caller's thread.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }
}

fn threads_named(name: &str) -> Vec<libc::pid_t> {
    // SAFETY: a plain system call.
    let own = unsafe { libc::gettid() };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .filter(|thread| *thread != own)
        .collect()
}

/// Writes the account, if one is asked for and there is anything to tell.
pub fn write() {
    let work = *WORK.lock().unwrap_or_else(PoisonError::into_inner);
    if work == [Work::default(); 3] {
        return;
    }
    let Some(name) = trace::file_name("SOFTVA_ACCOUNT") else { return };
    let entries: Vec<_> = Engine::ALL
        .into_iter()
        .map(|engine| {
            let Work { time, pictures } = work[engine as usize];
            let seconds = time.as_secs_f64();
            format!("  \"{engine}\": {{ \"seconds\": {seconds:.6}, \"pictures\": {pictures} }}")
        })
        .collect();
    let json = format!("{{\n  \"pid\": {},\n{}\n}}\n", std::process::id(), entries.join(",\n"));
    if let Err(error) = std::fs::write(&name, json) {
        crate::trace!("account {name}: {error}");
    }
}

/// Has the account written at the end of the process too, for clients that never close.
pub fn write_at_exit() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    extern "C" fn at_exit() {
        write();
    }
    // SAFETY: the library is never unloaded (linked with nodelete), so the function stays.
    ONCE.call_once(|| unsafe {
        libc::atexit(at_exit);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codecs_thread_is_found_and_read() {
        let (handle, mut helpers) = Helpers::started_by(|| {
            std::thread::Builder::new()
                .spawn(|| {
                    while thread_time() < Duration::from_millis(30) {}
                    // Alive until it has been read.
                    std::thread::park();
                })
                .expect("a thread")
        });
        assert_eq!(helpers.len(), 1);
        let mut seen = Duration::ZERO;
        while seen < Duration::from_millis(30) {
            seen += helpers.since_last();
        }
        handle.thread().unpark();
        handle.join().expect("ends");
        assert!(seen < Duration::from_secs(1));
    }
}
