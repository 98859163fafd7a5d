//! What a worker in its sandbox can't do, and what it can. Every deed is also done outside, where it
//! has to succeed: else its failure within would prove nothing.
//!
//! Needs a kernel with Landlock (5.13) and `io_uring`, and fails without.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const MISDEED: &str = env!("CARGO_BIN_EXE_misdeed");

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("output")).unwrap();
        fs::create_dir(folder.path().join("other")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `None` if it was done, else the error's number.
    fn deed(&self, held: bool, deed: &str, what: &str) -> Option<i32> {
        let mut command = Command::new(MISDEED);
        command.arg(if held { "held" } else { "free" }).arg(self.path("output")).arg(deed);
        if !what.is_empty() {
            command.arg(what);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        // What becomes another program says nothing any more.
        match said.trim() {
            "done" => None,
            "" if deed == "exec" && output.status.success() => None,
            number => Some(number.parse().unwrap_or_else(|_| {
                panic!("{deed}: {said}{}", String::from_utf8_lossy(&output.stderr))
            })),
        }
    }

    #[track_caller]
    fn denied(&self, deed: &str, what: impl AsRef<Path>, error: i32) {
        let what = what.as_ref().to_str().unwrap();
        assert_eq!(self.deed(false, deed, what), None, "{deed} {what}, outside");
        assert_eq!(self.deed(true, deed, what), Some(error), "{deed} {what}, in the sandbox");
    }

    #[track_caller]
    fn allowed(&self, deed: &str, what: impl AsRef<Path>) {
        let what = what.as_ref().to_str().unwrap();
        for held in [false, true] {
            assert_eq!(self.deed(held, deed, what), None, "{deed} {what}, held: {held}");
        }
    }
}

/// Another process, which lets everything be done to it.
struct Victim(Child);

impl Victim {
    fn new() -> Self {
        let mut child = Command::new(MISDEED)
            .arg("victim")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The C library of this very process.
fn library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find_map(|line| line.split_whitespace().find(|w| w.contains("/libc.")));
    libc.expect("it is linked").into()
}

#[test]
fn files_of_others_can_t_be_read() {
    let scene = Scene::new();
    let secret = scene.path("other/secret");
    fs::write(&secret, "secret").unwrap();
    for path in [Path::new("/etc/passwd"), Path::new("/proc/1/cmdline"), &secret] {
        scene.denied("read", path, libc::EACCES);
    }
    for path in [Path::new("/"), Path::new("/proc"), &scene.path("other")] {
        scene.denied("list", path, libc::EACCES);
    }
    scene.allowed("read", library());
    scene.allowed("read", "/proc/self/status");
    scene.allowed("list", "/proc/self/fdinfo");
    scene.allowed("list", "/usr/lib");
}

#[test]
fn only_the_output_can_be_written() {
    let scene = Scene::new();
    let other = scene.path("other/file");
    fs::write(&other, "").unwrap();
    scene.denied("write", &other, libc::EACCES);
    scene.denied("make", scene.path("other/new"), libc::EACCES);
    scene.denied("write", "/proc/self/comm", libc::EACCES);
    scene.denied("chmod", &other, libc::EPERM);
    scene.denied("output-above", "../other/by-the-directory", libc::EACCES);
    scene.allowed("output", "");
    // Segments are files: no link that somebody else would follow. The one from outside goes first.
    let output = scene.path("output");
    assert_eq!(scene.deed(false, "output-link", output.to_str().unwrap()), None);
    fs::remove_file(output.join("link")).unwrap();
    assert_eq!(scene.deed(true, "output-link", output.to_str().unwrap()), Some(libc::EACCES));
    scene.allowed("write", "/dev/null");
}

#[test]
fn nobody_can_be_reached() {
    let scene = Scene::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    scene.denied("tcp", tcp.local_addr().unwrap().to_string(), libc::EPERM);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    scene.denied("udp", udp.local_addr().unwrap().to_string(), libc::EPERM);
    let path = scene.path("socket");
    let _unix = UnixListener::bind(&path).unwrap();
    scene.denied("unix", &path, libc::EPERM);
    let path = scene.path("datagrams");
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    scene.denied("datagram", &path, libc::EPERM);
    let name = format!("sandbox-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    scene.denied("abstract", &name, libc::EPERM);
    scene.allowed("pair", "");
}

#[test]
fn no_program_can_be_run() {
    let scene = Scene::new();
    for deed in ["exec", "spawn", "fork"] {
        scene.denied(deed, "", libc::EPERM);
    }
    scene.allowed("threads", "");
}

#[test]
fn other_processes_are_out_of_reach() {
    let scene = Scene::new();
    let victim = Victim::new();
    for deed in ["ptrace", "kill", "pidfd", "limit"] {
        scene.denied(deed, victim.pid(), libc::EPERM);
    }
    for file in ["mem", "environ", "cmdline"] {
        scene.denied("read-open", format!("/proc/{}/{file}", victim.pid()), libc::EACCES);
    }
    for deed in ["setsid", "parent-death", "shared-memory"] {
        scene.denied(deed, "", libc::EPERM);
    }
    scene.allowed("kill-self", "");
    scene.allowed("limit-self", "");
}

#[test]
fn the_kernel_s_further_corners_are_closed() {
    let scene = Scene::new();
    for deed in ["io_uring", "unshare", "watch"] {
        scene.denied(deed, "", libc::EPERM);
    }
    // Its flags lie in memory, where a filter doesn't see them: glibc has to take clone.
    assert_eq!(scene.deed(false, "clone3", ""), Some(libc::EINVAL));
    assert_eq!(scene.deed(true, "clone3", ""), Some(libc::ENOSYS));
}
