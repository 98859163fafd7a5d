//! Between the gateway and a worker's first instruction: `rendergate launch-worker`.
//!
//! What has to be set in the child before the worker's program runs (niceness, the signal at its
//! parent's death) can be set in safe code only by a program of its own. So the gateway starts
//! itself with this hidden command, which prepares the process and becomes the worker: same
//! process id, nothing left in memory.
//!
//! A worker notices the gateway's death by the end of its control socket, and clears away what it
//! was writing. The signal at the parent's death (`PR_SET_PDEATHSIG`) is for one that hangs. It is
//! SIGTERM, not SIGKILL: the worker is then the only one left who holds the output directory, and
//! is expected to take the signal as a term for the clearing, not to die of it at once. It is kept
//! across `execve`, and tied to the *thread* that started the process, so the gateway starts
//! workers only from its main thread, which lives as long as the process.
//!
//! The worker finds its end of the control socket as standard input; standard output is
//! `/dev/null`, standard error is a pipe to the gateway's log.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Signal, getppid, nice, set_parent_process_death_signal};

/// Variables that a worker is given besides those with [`PASSED_PREFIXES`].
const PASSED: &[&str] = &[
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "RUST_BACKTRACE",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
    "TZ",
];
/// GStreamer, VA-API, Mesa, oneVPL and our own.
const PASSED_PREFIXES: &[&str] = &["GST_", "LIBVA_", "MESA_", "ONEVPL_", "RENDERGATE_"];

/// How workers are started.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    /// The worker's program.
    pub program: PathBuf,
    /// `GST_REGISTRY`.
    pub registry: Option<PathBuf>,
    /// Added to the gateway's own niceness.
    pub nice: i32,
    /// Filtered by [`worker_environment`].
    pub environment: Vec<(OsString, OsString)>,
}

impl Launcher {
    /// The command that becomes a worker, with `socket` as its standard input.
    pub(crate) fn command(&self, socket: OwnedFd) -> tokio::process::Command {
        // The link, not the path behind it: it also works after the file has been replaced.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("rendergate")
            .arg("launch-worker")
            .args(["--parent", &std::process::id().to_string()])
            .args(["--nice", &self.nice.to_string()])
            .arg(&self.program)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C at a terminal is for the gateway, which then ends its streams in order.
            .process_group(0);
        if let Some(registry) = &self.registry {
            command.env("GST_REGISTRY", registry);
        }
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        command
    }
}

/// What of the gateway's environment a worker sees.
pub(crate) fn worker_environment(
    all: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let passed = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|p| name.starts_with(p))
        })
    };
    all.into_iter().filter(|(name, _)| passed(name)).collect()
}

/// The body of the hidden command: becomes `program`, or says why not.
///
/// # Errors
/// That of `execve(2)`, or that the parent is gone already.
pub fn become_worker(parent: u32, niceness: i32, program: &Path) -> anyhow::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return anyhow::Error::new(error).context("can't tie the worker to the gateway");
    }
    // It may have died before the line above; then the signal never comes.
    let now = getppid().map(|pid| pid.as_raw_pid());
    if now != i32::try_from(parent).ok() {
        return anyhow::anyhow!("the gateway (pid {parent}) is gone");
    }
    if niceness > 0 {
        // Only a matter of speed.
        let _ = nice(niceness);
    }
    let error = Command::new(program).exec();
    anyhow::anyhow!("can't run {}: {error}", program.display())
}

/// Whether a process of ours that was made nicer can be brought back. Asked by trying: the rules
/// (capabilities, limits, user namespaces) are too many to foretell.
pub(crate) fn niceness_can_be_undone() -> bool {
    // On Linux niceness is per thread, so a thread can try without consequences.
    std::thread::spawn(|| {
        let before = rustix::process::getpriority_process(None)?;
        nice(1)?;
        rustix::process::setpriority_process(None, before)
    })
    .join()
    .is_ok_and(|result| result.is_ok())
}

/// Where GStreamer's registry goes, so that it is built once and not per worker: the first of the
/// usual places that can be written.
pub(crate) fn registry_path(
    configured: Option<&Path>,
    beside_socket: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<PathBuf> {
    if let Some(path) = configured {
        return Some(path.to_owned());
    }
    let name = format!("gstreamer-registry.{}.bin", std::env::consts::ARCH);
    cache_directory(beside_socket, variable).map(|directory| directory.join(name))
}

/// Where what can be made anew is kept: the first of the usual places that can be written, and `beside_socket`
/// last.
pub(crate) fn cache_directory(
    beside_socket: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<PathBuf> {
    let get = |name| variable(name).filter(|v| v.starts_with('/')).map(PathBuf::from);
    let places = [
        get("CACHE_DIRECTORY"),
        get("XDG_CACHE_HOME").map(|dir| dir.join("rendergate")),
        get("HOME").map(|dir| dir.join(".cache/rendergate")),
        beside_socket.map(Path::to_owned),
    ];
    let writable = |dir: &PathBuf| -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        Ok(rustix::fs::access(dir, rustix::fs::Access::WRITE_OK)?)
    };
    places.into_iter().flatten().find(|dir| writable(dir).is_ok())
}

/// The worker's program: as configured, or beside the gateway's own.
///
/// # Errors
/// That of finding out one's own path.
pub(crate) fn worker_program(configured: Option<&Path>) -> io::Result<PathBuf> {
    match configured {
        Some(program) => Ok(program.to_owned()),
        None => Ok(std::env::current_exe()?.with_file_name("rendergate-worker")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_the_small_set() {
        let all = ["PATH", "GST_DEBUG", "LIBVA_DRIVER_NAME", "AWS_SECRET", "LD_PRELOAD"]
            .map(|name| (OsString::from(name), OsString::from("x")));
        let names: Vec<_> = worker_environment(all).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "GST_DEBUG", "LIBVA_DRIVER_NAME"]);
    }

    #[test]
    fn registry_goes_to_the_first_writable_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let found = registry_path(None, Some(dir.path()), |name| match name {
            "CACHE_DIRECTORY" => Some(file.join("no").display().to_string()),
            "HOME" => Some(dir.path().join("home").display().to_string()),
            _ => None,
        });
        let found = found.unwrap();
        assert_eq!(found.parent().unwrap(), dir.path().join("home/.cache/rendergate"));
        assert!(found.parent().unwrap().is_dir());
        let configured = registry_path(Some(Path::new("/x/y")), None, |_| None);
        assert_eq!(configured.as_deref(), Some(Path::new("/x/y")));
    }
}
