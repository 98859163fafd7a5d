//! The process itself: arguments, signals, and becoming another program. All of the crate's
//! unsafe code is here.
//!
//! Invariants:
//! - Nothing is changed about the process until [`Signals::take`]; [`Before::restore`] takes all
//!   of it back. A program executed in between finds dispositions, mask, descriptors and stdin as
//!   they were when the hook started.
//! - One thread only, so the mask of the thread is the mask of the process.
//! - What [`start`] has started dies with this process, however that ends.
#![expect(
    unsafe_code,
    reason = "argv, signal masks, signalfd, execve and prctl have no safe interface"
)]

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr;

/// Signals that end a stream the way ffmpeg is ended by them. ffmpeg dies of SIGHUP at once;
/// here it is a request like SIGTERM, so that the last segment is written.
const ENDING: [c_int; 5] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGXCPU, libc::SIGHUP];

/// The argument vector as owned strings, name first.
///
/// # Safety
/// `argv` holds `argc` valid C strings, as `main` gets them.
pub unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    (0..usize::try_from(argc).unwrap_or(0))
        .map(|i| {
            // SAFETY: the caller promises `argc` valid strings.
            let argument = unsafe { CStr::from_ptr(*argv.add(i)) };
            OsString::from_vec(argument.to_bytes().to_vec())
        })
        .collect()
}

/// Becomes `program` with these arguments (without a name; that is the program's path) and one
/// variable set beside the environment as it is. Comes back only if that failed.
pub fn execute(program: &Path, arguments: &[OsString], variable: (&str, &OsStr)) -> io::Error {
    let words = std::iter::once(program.as_os_str())
        .chain(arguments.iter().map(OsString::as_os_str))
        .map(|word| CString::new(word.as_bytes()))
        .collect::<Result<Vec<_>, _>>();
    let (name, value) = (OsString::from(variable.0), variable.1.to_owned());
    let environment = std::env::vars_os()
        .filter(|(other, _)| *other != name)
        .chain([(name.clone(), value)])
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<Vec<_>, _>>();
    let (words, environment) = match (words, environment) {
        (Ok(words), Ok(environment)) => (words, environment),
        (Err(error), _) | (_, Err(error)) => return error.into(),
    };
    let (words_at, environment_at) = (pointers(&words), pointers(&environment));
    // SAFETY: null-terminated arrays of C strings that outlive the call.
    unsafe { libc::execve(words_at[0], words_at.as_ptr(), environment_at.as_ptr()) };
    io::Error::last_os_error()
}

/// Starts `program` beside this process: nothing on stdin, `output` as stdout, this process's
/// stderr, signals as they are by default, one variable set as for [`execute`]. The kernel kills it
/// when this process is gone.
///
/// # Errors
/// Those of fork and execve.
pub fn start(
    program: &Path,
    arguments: &[OsString],
    variable: (&str, &OsStr),
    output: OwnedFd,
) -> io::Result<Child> {
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(variable.0, variable.1)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::inherit());
    let bind_to_parent = move || {
        // SAFETY: plain system calls, which are all that is allowed between fork and execve.
        let orphan = unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the kernel was told of the wish.
            libc::getppid() != parent
        };
        if orphan { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
    };
    // SAFETY: the closure makes system calls only, allocates nothing and takes no lock.
    unsafe { command.pre_exec(bind_to_parent) };
    command.spawn()
}

/// Leaves the processor to others, for good: whatever this process becomes keeps it.
pub fn step_aside(niceness: u8) {
    // SAFETY: a plain call. What it returns can't be told from an error, and a niceness that is the
    // highest already is none.
    unsafe { libc::nice(c_int::from(niceness.min(19))) };
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// SIGPIPE ignored, and its disposition as it was before.
#[derive(Clone, Copy)]
pub struct PipeIgnored(libc::sigaction);

impl PipeIgnored {
    /// From now on a write to a pipe without a reader is an error and no end.
    pub fn take() -> Self {
        let mut before = MaybeUninit::uninit();
        // SAFETY: zero is a valid sigaction; the call can't fail for SIGPIPE, so `before` is set.
        unsafe {
            let mut ignore: libc::sigaction = std::mem::zeroed();
            ignore.sa_sigaction = libc::SIG_IGN;
            libc::sigaction(libc::SIGPIPE, &raw const ignore, before.as_mut_ptr());
            Self(before.assume_init())
        }
    }

    /// Puts the disposition back.
    pub fn restore(self) {
        // SAFETY: the value that the kernel gave for exactly this.
        unsafe { libc::sigaction(libc::SIGPIPE, &raw const self.0, ptr::null_mut()) };
    }
}

/// What [`Signals::take`] found and changed.
#[derive(Clone, Copy)]
pub struct Before {
    mask: libc::sigset_t,
    pipe: PipeIgnored,
}

impl Before {
    /// Puts mask and dispositions back. A signal that is still pending acts now, as it would have
    /// on a process without a hook.
    pub fn restore(self) {
        self.pipe.restore();
        // SAFETY: the value that the kernel gave for exactly this.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut()) };
    }
}

/// The ending signals, as a descriptor to poll instead of handlers; SIGPIPE ignored.
pub struct Signals {
    descriptor: OwnedFd,
    before: Before,
}

impl Signals {
    /// Blocks the signals and opens a descriptor that reports them.
    ///
    /// SIGHUP stays as it is where it is ignored (`nohup`); the others are taken even then, as
    /// ffmpeg does.
    ///
    /// # Errors
    /// Those of `signalfd(2)`; nothing is changed then.
    pub fn take() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set, sigaddset and signalfd use it after that.
        let (set, descriptor) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in ENDING {
                if signal != libc::SIGHUP || !ignored(signal) {
                    libc::sigaddset(&raw mut set, signal);
                }
            }
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            (set, libc::signalfd(-1, &raw const set, flags))
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut mask = MaybeUninit::uninit();
        // SAFETY: valid pointers; the call can't fail with this constant, so `mask` is set. The
        // descriptor is new and owned by nobody else.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, mask.as_mut_ptr());
            let before = Before { mask: mask.assume_init(), pipe: PipeIgnored::take() };
            Ok(Self { descriptor: OwnedFd::from_raw_fd(descriptor), before })
        }
    }

    /// The next signal that has arrived, by number; never waits.
    pub fn next(&self) -> Option<i32> {
        // The number is the first field of the record (signalfd(2)).
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.descriptor, &mut record) {
            Ok(n) if n == record.len() => {
                Some(i32::from_ne_bytes([record[0], record[1], record[2], record[3]]))
            }
            _ => None,
        }
    }

    /// How things were, to put them back.
    pub fn before(&self) -> Before {
        self.before
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::uninit();
    // SAFETY: a query; the result is initialised when the call succeeds.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
