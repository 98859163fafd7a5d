//! Why nothing more can be written.

use std::io;

/// A failure of the writer. After one the segmenter takes no more samples; whole segments stay,
/// nothing partial does.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// ENOSPC or EDQUOT for longer than the writer's [`Patience`](crate::Patience), or EFBIG. Output's
    /// fault.
    #[error("no space left for {name} in the output directory")]
    NoSpace {
        /// The file that was being written.
        name: String,
    },
    /// ENOENT or ESTALE: the directory was deleted under the writer. Output's fault.
    #[error("the output directory is gone (writing {name})")]
    DirectoryGone {
        /// The file that was being written.
        name: String,
    },
    /// Any other error of the operating system. Output's fault.
    #[error("{name}: {source}")]
    Io {
        /// The file that was being written.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The container can't carry this track, or the output asks for something unknown. Known from
    /// [`Segmenter::new`](crate::Segmenter::new), before any file exists.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// A sample that makes no sense (unknown track, no parameter sets before the first keyframe,
    /// broken framing). The fault of the input or of whoever made the sample.
    #[error("track {track}: {reason}")]
    BadSample {
        /// Index of the track.
        track: usize,
        /// What was expected.
        reason: String,
    },
    /// The writer has already failed or was finished.
    #[error("the segment writer is closed")]
    Closed,
}

impl WriteError {
    /// True if the output directory is to blame, false if samples or plan are.
    pub fn is_output(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::DirectoryGone { .. } | Self::Io { .. })
    }

    pub(crate) fn from_os(name: &str, source: io::Error) -> Self {
        use rustix::io::Errno;
        let name = name.to_owned();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Self::NoSpace { name },
            Some(Errno::NOENT | Errno::STALE) => Self::DirectoryGone { name },
            _ => Self::Io { name, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_disk_are_told_apart() {
        let of = |e: rustix::io::Errno| WriteError::from_os("a1.ts", e.into());
        assert!(matches!(of(rustix::io::Errno::NOSPC), WriteError::NoSpace { .. }));
        assert!(matches!(of(rustix::io::Errno::NOENT), WriteError::DirectoryGone { .. }));
        assert!(matches!(of(rustix::io::Errno::IO), WriteError::Io { .. }));
        assert!(of(rustix::io::Errno::IO).is_output());
        assert!(!WriteError::Closed.is_output());
    }
}
