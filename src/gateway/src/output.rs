//! The output directory of a running stream: the gateway's own hold on it, for the endings.
//!
//! Jellyfin serves segment N once a file N+1 exists, whatever it holds (contract 4). An empty N+1
//! may stand there while a stream runs; when the stream ends, whoever still holds the directory
//! takes it away before Jellyfin can see that the stream has ended. The hook may be dead, the
//! worker too, so the gateway does it at every ending.
//!
//! Invariant: nothing but empty segments and temporary files of this stream's writer is removed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ffmpeg_args::Output as Planned;
use rustix::fs::fstat;

/// One stream's output, as the same stream after a seek names it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OutputKey {
    pub device: u64,
    pub inode: u64,
    pub prefix: String,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    directory: Arc<OwnedFd>,
    key: OutputKey,
    suffix: String,
    /// The one after the last complete segment, once there is one.
    next: Option<u64>,
}

impl Output {
    pub(crate) fn new(directory: OwnedFd, output: &Planned) -> io::Result<Self> {
        let stat = fstat(&directory)?;
        let (prefix, suffix) = match output {
            Planned::Hls(output) => (&output.segment_prefix, &*output.segment_suffix),
            Planned::Progressive(output) => (&output.name, ""),
        };
        Ok(Self {
            directory: Arc::new(directory),
            key: OutputKey { device: stat.st_dev, inode: stat.st_ino, prefix: prefix.clone() },
            suffix: suffix.to_owned(),
            next: None,
        })
    }

    pub(crate) fn key(&self) -> &OutputKey {
        &self.key
    }

    pub(crate) fn folder(&self) -> &Arc<OwnedFd> {
        &self.directory
    }

    /// Notes a complete segment.
    pub(crate) fn segment_complete(&mut self, number: u64) {
        self.next = number.checked_add(1);
    }

    /// Takes away the empty file of the next segment, if there is one.
    pub(crate) async fn remove_placeholder(&self) {
        let Some(next) = self.next else { return };
        let name = format!("{}{next}{}", self.key.prefix, self.suffix);
        let directory = self.directory.clone();
        // On a thread of its own: the directory may be on a share that hangs.
        let removed = tokio::task::spawn_blocking(move || {
            hls::directory::remove_placeholder(&*directory, &name).map_err(|e| (name, e))
        });
        if let Ok(Err((name, error))) = removed.await {
            tracing::warn!(%error, name, "can't remove the empty next segment");
        }
    }

    /// Removes what a dead writer left half-written.
    pub(crate) async fn sweep(&self, writer_tag: String) {
        let (directory, prefix) = (self.directory.clone(), self.key.prefix.clone());
        let swept = tokio::task::spawn_blocking(move || {
            hls::directory::sweep(&*directory, &prefix, &writer_tag)
        });
        match swept.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(files)) => tracing::info!(files, "removed half-written files"),
            Ok(Err(error)) => tracing::warn!(%error, "can't remove half-written files"),
        }
    }
}
