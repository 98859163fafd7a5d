//! A plan and the open files it needs, and handing both to a gateway.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ffmpeg_args::{Need, Subtitles, Transcode, VideoAction};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, accessat, fstat, open};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use session::{HookToGateway, MAX_DESCRIPTORS, PROTOCOL};

use crate::clock::timespec;
use crate::reader;

/// Where the gateway listens unless [`ENDPOINT_VARIABLE`] says otherwise.
pub const DEFAULT_ENDPOINT: &str = "unix:/run/rendergate/rendergate.sock";
/// Names the endpoint.
pub const ENDPOINT_VARIABLE: &str = "RENDERGATE_ENDPOINT";
/// A gateway with room in its backlog takes a connection at once; one that hangs shall not cost
/// the viewer more than this.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// Why a job stays here, for people. Each is a reason to run the real ffmpeg.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// An input that can't be opened.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// As in the command.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// An input that is something else than a file.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// An input without bytes.
    #[error("{0} is empty")]
    Empty(PathBuf),
    /// A network input that nobody can read.
    #[error("cannot read {url} by the real ffmpeg: {error}")]
    Network {
        /// As in the command.
        url: String,
        /// What the system says.
        error: io::Error,
    },
    /// More inputs than a job carries.
    #[error("{0} files, a job has at most {most}", most = MAX_DESCRIPTORS - 1)]
    TooManyInputs(usize),
    /// An output directory that takes no files.
    #[error("cannot write to the directory {path}: {error}")]
    Directory {
        /// As in the command.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Not an address.
    #[error("{ENDPOINT_VARIABLE} is \"{0}\", expected unix:/path/of/the/socket")]
    Endpoint(String),
    /// No gateway.
    #[error("no gateway at {endpoint}: {error}")]
    Absent {
        /// As configured.
        endpoint: String,
        /// What the system says.
        error: io::Error,
    },
}

/// The files of a job, open.
#[derive(Debug)]
pub struct Files {
    /// As in [`Transcode::needs`], without the last; network inputs are there once they are
    /// [fetched](Files::fetch).
    before: Vec<Option<OwnedFd>>,
    directory: OwnedFd,
}

/// Takes a directory of fonts out of a plan if it doesn't exist: Jellyfin names one always and makes
/// it only if the film brings fonts along.
pub fn forget_missing_fonts(transcode: &mut Transcode) {
    let video = transcode.video.as_mut().map(|video| &mut video.action);
    let Some(VideoAction::Encode(encode)) = video else { return };
    let Some(Subtitles::Text(text)) = &mut encode.subtitles else { return };
    text.fonts = text.fonts.take().filter(|path| path.exists());
}

impl Files {
    /// Opens files for reading and the output directory.
    ///
    /// # Errors
    /// If ffmpeg would have something to complain about: it shall do so in its own words.
    pub fn open(transcode: &Transcode) -> Result<Self, JobError> {
        let needs = transcode.needs();
        if needs.len() > MAX_DESCRIPTORS {
            return Err(JobError::TooManyInputs(needs.len() - 1));
        }
        let mut before = Vec::new();
        for need in needs {
            before.push(match need {
                Need::Input { path, .. } | Need::Subtitles(path) => Some(open_input(path)?),
                Need::Network { .. } => None,
                Need::Fonts(path) => Some(open_fonts(path)?),
                Need::Output(path) => {
                    let directory = open_directory(path).map_err(|error| JobError::Directory {
                        path: path.into(),
                        error: error.into(),
                    })?;
                    return Ok(Self { before, directory });
                }
            });
        }
        unreachable!("every plan has an output directory, and it comes last")
    }

    /// Starts the readers of network inputs.
    ///
    /// # Errors
    /// [`JobError::Network`].
    pub fn fetch(&mut self, transcode: &Transcode) -> Result<(), JobError> {
        for (need, place) in transcode.needs().iter().zip(&mut self.before) {
            if let Need::Network { network, .. } = need {
                let reading = reader::start(network)
                    .map_err(|error| JobError::Network { url: network.url.clone(), error })?;
                *place = Some(reading);
            }
        }
        Ok(())
    }

    /// The output directory.
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// In the order in which a job carries them.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.before.iter().flatten().chain([&self.directory]).map(AsFd::as_fd).collect()
    }
}

fn open_input(path: &Path) -> Result<OwnedFd, JobError> {
    let unreadable =
        |error: rustix::io::Errno| JobError::Unreadable { path: path.into(), error: error.into() };
    // NONBLOCK: opening a pipe would wait for its writer. Files don't know the flag.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = open(path, flags, Mode::empty()).map_err(unreadable)?;
    let stat = fstat(&file).map_err(unreadable)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(JobError::NotAFile(path.into()));
    }
    if stat.st_size == 0 {
        return Err(JobError::Empty(path.into()));
    }
    Ok(file)
}

fn open_fonts(path: &Path) -> Result<OwnedFd, JobError> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| JobError::Unreadable { path: path.into(), error: error.into() })
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty())?;
    accessat(&directory, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
    Ok(directory)
}

/// What to do about a gateway that doesn't take a connection at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Wait for [`CONNECT_PATIENCE`].
    Some,
    /// Nothing; its socket is read and written without waiting, too.
    None,
}

/// Connects to the gateway.
///
/// # Errors
/// [`JobError::Endpoint`] or [`JobError::Absent`].
pub fn connect_to(endpoint: &OsStr, patience: Patience) -> Result<OwnedFd, JobError> {
    let shown = || endpoint.to_string_lossy().into_owned();
    let absent =
        |error: rustix::io::Errno| JobError::Absent { endpoint: shown(), error: error.into() };
    let path = endpoint
        .as_bytes()
        .strip_prefix(b"unix:")
        .filter(|path| !path.is_empty())
        .ok_or_else(|| JobError::Endpoint(shown()))?;
    let address = SocketAddrUnix::new(path).map_err(|_| JobError::Endpoint(shown()))?;
    let flags = match patience {
        Patience::Some => SocketFlags::CLOEXEC,
        Patience::None => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
    };
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(absent)?;
    // On unix sockets the send time-out bounds how long a full backlog is waited for.
    set_socket_timeout(&socket, Timeout::Send, Some(CONNECT_PATIENCE)).map_err(absent)?;
    connect(&socket, &address).map_err(|error| match error {
        rustix::io::Errno::AGAIN => absent(rustix::io::Errno::TIMEDOUT),
        error => absent(error),
    })?;
    Ok(socket)
}

/// Hands the job over, waiting for a gateway that doesn't read no longer than until `deadline`.
///
/// # Errors
/// What the socket reports, `TimedOut`, or `InvalidInput` if the plan exceeds a frame.
pub fn submit(
    socket: BorrowedFd<'_>,
    transcode: Transcode,
    files: &Files,
    reconnects: bool,
    deadline: Instant,
) -> io::Result<()> {
    let transcode = Box::new(transcode);
    let job = HookToGateway::Job { protocol: PROTOCOL, transcode, reconnects, takeover: None };
    let descriptors = files.descriptors();
    let frame = session::encode(&job, descriptors.len())?;
    let mut sent = 0;
    while sent < frame.len() {
        let with = if sent == 0 { &descriptors[..] } else { &[] };
        match session::send_part(socket, &frame[sent..], with) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let wait = deadline.saturating_duration_since(Instant::now());
                let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
                if poll(&mut fds, Some(&timespec(wait)))? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
