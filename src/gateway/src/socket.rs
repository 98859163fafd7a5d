//! The session socket: bound once, by one gateway, and left alone when it is another's.
//!
//! Two gateways on one path would take turns at losing jobs. A lock file beside the socket says who
//! owns the path; the kernel frees it however its holder dies, so a stale one doesn't exist. The
//! socket file itself can be stale, and a gateway could hold it without the lock (the directory
//! shared from elsewhere), so that whoever has the lock also asks whether somebody answers.
//!
//! Invariants:
//! - The path always names a socket that somebody answers, or one that nobody ever will: a new
//!   socket is bound under another name, given mode and group, and then renamed into place.
//! - At the end the path is removed only if it still is the socket bound here.
//! - The lock file stays: to remove it would let two processes hold locks on two files of one name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::config::DEFAULT_SOCKET;

/// Owner and group may connect; see [`crate::config::Session::group`].
const MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Another gateway owns the path.
    #[error(
        "another gateway{who} serves {path}: stop it, or give this one its own socket \
         (session.socket, RENDERGATE_SOCKET)"
    )]
    Live {
        /// The socket.
        path: PathBuf,
        /// ` (pid 7)`, or empty.
        who: String,
    },
    /// Something else is there.
    #[error("{0} exists and is no socket; it is left alone: remove it or set session.socket")]
    NotASocket(PathBuf),
    /// `session.group` is unknown.
    #[error("there is no group {0:?} (session.group)")]
    NoSuchGroup(String),
    /// The system says no.
    #[error("can't {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

/// A bound socket, removed when dropped.
#[derive(Debug)]
pub(crate) struct SessionSocket {
    path: PathBuf,
    identity: (u64, u64),
    _lock: File,
}

/// The path to use without configuration: the default, or below the user's runtime directory where
/// `/run` isn't ours to write in.
pub(crate) fn default_path(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let default = Path::new(DEFAULT_SOCKET);
    let usable = default.parent().is_some_and(|dir| {
        let writable = |dir: &Path| {
            rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
                .is_ok()
        };
        if dir.is_dir() { writable(dir) } else { dir.parent().is_some_and(writable) }
    });
    match variable("XDG_RUNTIME_DIR").filter(|dir| dir.starts_with('/')) {
        Some(runtime) if !usable => Path::new(&runtime).join("rendergate/rendergate.sock"),
        _ => default.to_owned(),
    }
}

impl SessionSocket {
    /// Binds `path`, in a directory that is made if it is missing.
    pub(crate) fn bind(
        path: &Path,
        group: Option<u32>,
    ) -> Result<(Self, UnixListener), SocketError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { what, path, source }
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
        }
        let lock = lock(path)?;
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(SocketError::Live { path: path.to_owned(), who: String::new() });
            }
            Ok(_) => tracing::info!(socket = %path.display(), "replacing a stale socket"),
            Err(_) => {}
        }
        let new = with_suffix(path, ".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &new)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(failed("bind", &new))?;
        let ready = || -> io::Result<_> {
            fs::set_permissions(&new, fs::Permissions::from_mode(MODE))?;
            if let Some(group) = group {
                chown(&new, None, Some(group))?;
            }
            listener.set_nonblocking(true)?;
            let identity = identity(&new)?;
            fs::rename(&new, path)?;
            Ok(identity)
        };
        match ready() {
            Ok(identity) => Ok((Self { path: path.to_owned(), identity, _lock: lock }, listener)),
            Err(source) => {
                // Best effort: the next start removes it too.
                let _ = fs::remove_file(&new);
                Err(failed("set up", path)(source))
            }
        }
    }
}

impl SessionSocket {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SessionSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Nothing depends on it: a stale socket is replaced by the next gateway.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn lock(path: &Path) -> Result<File, SocketError> {
    let name = with_suffix(path, ".lock");
    let failed = |source| SocketError::Io { what: "lock", path: name.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // For the message only.
            let _ = file.read_to_string(&mut pid);
            let who = pid.trim().parse::<u32>().map(|pid| format!(" (pid {pid})"));
            let who = who.unwrap_or_default();
            return Err(SocketError::Live { path: path.to_owned(), who });
        }
        Err(error) => return Err(failed(error.into())),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/rendergate.sock");
        (dir, path)
    }

    #[test]
    fn socket_has_its_mode_and_goes_with_its_owner() {
        let (_dir, path) = place();
        let (socket, _listener) = SessionSocket::bind(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn second_gateway_is_refused_and_the_first_goes_on() {
        let (_dir, path) = place();
        let (_socket, listener) = SessionSocket::bind(&path, None).unwrap();
        let message = SessionSocket::bind(&path, None).unwrap_err().to_string();
        assert!(message.contains("another gateway"), "{message}");
        assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
        UnixStream::connect(&path).unwrap();
        drop(listener);
    }

    #[test]
    fn a_socket_that_answers_without_the_lock_is_live_too() {
        let (_dir, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        let error = SessionSocket::bind(&path, None).unwrap_err();
        assert!(matches!(error, SocketError::Live { .. }), "{error}");
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let (_dir, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let (_socket, _listener) = SessionSocket::bind(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_in_its_place_is_left_alone() {
        let (_dir, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "notes").unwrap();
        let error = SessionSocket::bind(&path, None).unwrap_err();
        assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "notes");
    }

    #[test]
    fn another_socket_at_the_path_survives_our_end() {
        let (_dir, path) = place();
        let (socket, _listener) = SessionSocket::bind(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(socket);
        UnixStream::connect(&path).unwrap();
    }
}
