//! A process that does one thing, in the sandbox or outside, and says what came of it.
//!
//! `misdeed held|free OUTPUT DEED [WHAT]` prints `done` or the number of the error. OUTPUT is a
//! worker's output directory, opened before. `misdeed victim` waits to be ill-treated.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::process::{Pid, Signal};
use sandbox::{Extra, Prepared, Work};

/// Any thread at all, of the most ordinary kind.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (held, output, deed, what) = match arguments[..] {
        ["victim"] => return victim(),
        ["held", output, deed] => (true, output, deed, ""),
        ["held", output, deed, what] => (true, output, deed, what),
        ["free", output, deed] => (false, output, deed, ""),
        ["free", output, deed, what] => (false, output, deed, what),
        _ => return ExitCode::from(2),
    };
    let output = File::open(output).expect("an output directory");
    let held = held.then(|| {
        let prepared = Prepared::new(&Extra::default(), |name| std::env::var(name).ok());
        let proc_root = Path::new("/proc");
        let held = prepared.enter(Work {
            output: output.as_fd(),
            goes_on: false,
            fonts: None,
            gpu: false,
            proc_root,
        });
        assert!(held.landlock.is_ok() && held.seccomp.is_ok(), "{held:?}");
        held
    });
    match deed_done(deed, what, &output) {
        Ok(()) => println!("done"),
        Err(error) => println!("{}", error.raw_os_error().expect("an error of the system")),
    }
    drop(held);
    ExitCode::SUCCESS
}

/// Lets anybody trace it, where the system asks for that (Yama), and waits.
fn victim() -> ExitCode {
    // SAFETY: prctl(2) with plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    println!("ready");
    let _ = io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

fn deed_done(deed: &str, what: &str, output: &File) -> io::Result<()> {
    let number = || what.parse::<i32>().expect("a number");
    let victim = || Pid::from_raw(number()).expect("a process");
    match deed {
        "read" => File::open(what)?.read(&mut [0]).map(drop),
        "read-open" => File::open(what).map(drop),
        "list" => fs::read_dir(what).map(drop),
        "write" => File::options().write(true).open(what).map(drop),
        "make" => File::create(what).map(drop),
        "chmod" => fs::set_permissions(what, fs::Permissions::from_mode(0o600)),
        "output" => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
            File::from(openat(output, "a", flags, Mode::RUSR)?).write_all(b"x")?;
            renameat(output, "a", output, "b")?;
            Ok(unlinkat(output, "b", AtFlags::empty())?)
        }
        "output-link" => symlink("/etc/passwd", Path::new(what).join("link")),
        "output-above" => {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            Ok(openat(output, what, flags, Mode::RUSR).map(drop)?)
        }
        "tcp" => TcpStream::connect(what).map(drop),
        "udp" => UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", what).map(drop),
        "unix" => UnixStream::connect(what).map(drop),
        "abstract" => UnixStream::connect_addr(&SocketAddr::from_abstract_name(what)?).map(drop),
        // Without socket(2) and connect(2): one of a pair sends to whom it likes.
        "datagram" => UnixDatagram::pair()?.0.send_to(b"x", what).map(drop),
        "pair" => UnixStream::pair().map(drop),
        "exec" => Err(Command::new("/bin/true").exec()),
        "spawn" => Command::new("/bin/true").status().map(drop),
        "fork" => fork(),
        "threads" => {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| std::thread::Builder::new().spawn(|| ()))
                .collect::<io::Result<_>>()?;
            threads.into_iter().for_each(|thread| thread.join().expect("does nothing"));
            Ok(())
        }
        "kill" => Ok(rustix::process::kill_process(victim(), Signal::URG)?),
        "kill-self" => Ok(rustix::process::kill_process(rustix::process::getpid(), Signal::URG)?),
        "setsid" => Ok(rustix::process::setsid().map(drop)?),
        // Of what takes only numbers.
        "ptrace" => call(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), number().into(), 0, 0]),
        "pidfd" => call(libc::SYS_pidfd_open, [number().into(), 0, 0, 0]),
        "limit" => call(libc::SYS_prlimit64, [number().into(), 0, 0, 0]),
        "limit-self" => call(libc::SYS_prlimit64, [0, 0, 0, 0]),
        "parent-death" => call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0]),
        "io_uring" => io_uring(),
        "unshare" => call(libc::SYS_unshare, [libc::CLONE_FS.into(), 0, 0, 0]),
        "shared-memory" => call(libc::SYS_shmget, [libc::IPC_PRIVATE.into(), 4096, 0o600, 0]),
        "watch" => call(libc::SYS_inotify_init1, [0, 0, 0, 0]),
        "clone3" => call(libc::SYS_clone3, [0, 0, 0, 0]),
        _ => panic!("no such deed: {deed}"),
    }
}

fn call(number: i64, arguments: [i64; 4]) -> io::Result<()> {
    let [a, b, c, d] = arguments;
    // SAFETY: none of the calls above is given an address other than 0.
    match unsafe { libc::syscall(number, a, b, c, d) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn fork() -> io::Result<()> {
    // SAFETY: the child does nothing but end.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child at once.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

fn io_uring() -> io::Result<()> {
    // `struct io_uring_params`: 120 bytes, zero for the defaults.
    let mut parameters = [0_u64; 15];
    // SAFETY: the kernel reads and writes the 120 bytes it is given.
    match unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
