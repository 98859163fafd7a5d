//! What is known of a kept title's segments: a file with a line of JSON for each, in their order.
//!
//! In memory are the lengths; a state is read when it is asked for, since all of a film are megabytes.
//!
//! Invariants:
//! - A segment counts from the moment on that its line is whole; it stands complete by then.
//! - Whoever opens the log sees those segments that stand in full, up to the first that doesn't: a machine
//!   that loses its power loses the end of what was written.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use ffmpeg_args::HlsOutput;
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use session::Progress;

use crate::sharing::{Known, Segments};

const NAME: &str = "log";

/// A line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    brief: Brief,
    state: Option<&'a Value>,
}

/// What is read of all lines.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Brief {
    /// Size of the segment.
    bytes: u64,
    length: (u64, u32),
    last: bool,
    /// As the worker had told by then.
    progress: Progress,
}

#[derive(Debug, Deserialize)]
struct State {
    state: Option<Value>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// Where the lines end.
    ends: Vec<u64>,
    /// Of the segments.
    sizes: Vec<u64>,
    segments: Segments,
    progress: Progress,
}

impl Log {
    /// That of a title's folder; a new one if there is none.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(folder: impl AsFd, names: &HlsOutput) -> io::Result<Self> {
        Self::with(folder.as_fd(), names, OFlags::RDWR | OFlags::CREATE)
    }

    /// To read it only: closing it waits for no disk.
    ///
    /// # Errors
    /// Those of the file system; `NotFound` if there is none.
    pub(super) fn read(folder: impl AsFd, names: &HlsOutput) -> io::Result<Self> {
        Self::with(folder.as_fd(), names, OFlags::RDONLY)
    }

    fn with(folder: BorrowedFd<'_>, names: &HlsOutput, flags: OFlags) -> io::Result<Self> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(folder, NAME, flags, Mode::from_raw_mode(0o600))?);
        let mut log = Self {
            file,
            ends: Vec::new(),
            sizes: Vec::new(),
            segments: Segments::default(),
            progress: Progress::default(),
        };
        let mut reader = BufReader::new(log.file.try_clone()?);
        let mut line = Vec::new();
        let mut end = 0;
        while reader.read_until(b'\n', &mut line)? > 0 {
            let number = names.start_number + log.len() as u64;
            let (true, Ok(brief)) = (line.ends_with(b"\n"), serde_json::from_slice::<Brief>(&line))
            else {
                break;
            };
            let stat = statat(folder, names.segment_name(number), AtFlags::SYMLINK_NOFOLLOW);
            match stat {
                Ok(stat) if stat.st_size.unsigned_abs() == brief.bytes => {}
                Ok(_) | Err(Errno::NOENT) => break,
                // What can't be looked at now may stand all the same.
                Err(error) => return Err(error.into()),
            }
            end += line.len() as u64;
            log.note(brief, end);
            line.clear();
        }
        Ok(log)
    }

    fn note(&mut self, brief: Brief, end: u64) {
        let Brief { bytes, length, last, progress } = brief;
        self.ends.push(end);
        self.sizes.push(bytes);
        self.segments.push(Known { length, state: None, last });
        self.progress = progress;
    }

    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Of segments and log.
    pub(super) fn bytes(&self) -> u64 {
        self.sizes.iter().sum::<u64>() + self.end()
    }

    /// The lengths; no states.
    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// How far its worker would be that had written just these segments.
    pub(super) fn progress(&self) -> Progress {
        let told = self.progress;
        let seconds: f64 = self.segments.each().map(|segment| segment.seconds()).sum();
        let whole = (seconds * 1e6) as u64;
        if told.position_us == 0 || told.position_us >= whole {
            return Progress { position_us: told.position_us.max(whole), ..told };
        }
        let scaled = |part: u64| {
            let scaled = u128::from(part) * u128::from(whole) / u128::from(told.position_us);
            u64::try_from(scaled).unwrap_or(part)
        };
        let missing = i64::try_from(whole - told.position_us).unwrap_or(0);
        Progress {
            frames: scaled(told.frames),
            position_us: whole,
            source_us: told.source_us.saturating_add(missing),
            bytes: scaled(told.bytes),
            elapsed_us: told.elapsed_us,
        }
    }

    /// The worker's state behind a segment.
    ///
    /// # Errors
    /// Those of reading it.
    pub(super) fn state(&self, index: usize) -> io::Result<Option<Arc<Value>>> {
        let end = *self.ends.get(index).ok_or(io::ErrorKind::NotFound)?;
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let mut line = vec![0; usize::try_from(end - begin).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut line, begin)?;
        Ok(serde_json::from_slice::<State>(&line)?.state.map(Arc::new))
    }

    /// Forgets all but so many segments, and removes them.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn cut(
        &mut self,
        count: usize,
        folder: impl AsFd,
        names: &HlsOutput,
    ) -> io::Result<()> {
        let before = self.len();
        self.ends.truncate(count);
        self.sizes.truncate(count);
        self.segments.truncate(count);
        // First, so that no line tells of a segment that isn't there.
        self.file.set_len(self.end())?;
        for index in count..before {
            let name = names.segment_name(names.start_number + index as u64);
            unlinkat(&folder, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Notes a complete segment behind the last; `bytes` is its size.
    ///
    /// # Errors
    /// Those of writing. It doesn't count then.
    pub(super) fn push(&mut self, bytes: u64, known: &Known, progress: Progress) -> io::Result<()> {
        let brief = Brief { bytes, length: known.length, last: known.last, progress };
        let mut line = serde_json::to_vec(&Line { brief, state: known.state.as_deref() })?;
        line.push(b'\n');
        let begin = self.end();
        // What a gateway that died has left half-written, or what didn't stand any more.
        self.file.set_len(begin)?;
        self.file.write_all_at(&line, begin).inspect_err(|_| _ = self.file.set_len(begin))?;
        self.note(brief, begin + line.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ffmpeg_args::PlaylistType;

    use super::*;

    fn names() -> HlsOutput {
        HlsOutput {
            directory: "".into(),
            container: ffmpeg_args::Container::MpegTs,
            segment_seconds: 3.0,
            start_number: 5,
            segment_prefix: String::new(),
            segment_suffix: ".ts".into(),
            playlist: "playlist.m3u8".into(),
            playlist_type: PlaylistType::Vod,
            base_url: String::new(),
            max_delay_us: 5_000_000,
        }
    }

    fn known(index: u64) -> Known {
        let state = Some(Arc::new(serde_json::json!({ "behind": index })));
        Known { length: (270_000, 90_000), state, last: index == 9 }
    }

    fn progress(seconds: u64) -> Progress {
        let position_us = seconds * 1_000_000;
        Progress { frames: 25 * seconds, position_us, source_us: 7, bytes: seconds, elapsed_us: 1 }
    }

    /// Ten segments, of which the worker had told of one less each time.
    fn ten() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let folder = File::open(directory.path()).unwrap();
        let mut log = Log::open(&folder, &names()).unwrap();
        for index in 0..10 {
            fs::write(directory.path().join(format!("{}.ts", index + 5)), [0; 100]).unwrap();
            log.push(100, &known(index), progress(3 * index)).unwrap();
        }
        (directory, folder)
    }

    fn open(folder: &File) -> Log {
        Log::open(folder, &names()).unwrap()
    }

    #[test]
    fn what_is_written_reads_back_with_every_state() {
        let (directory, folder) = ten();
        let log = open(&folder);
        assert_eq!((log.len(), log.segments().ended()), (10, true));
        for index in 0..10 {
            let state = log.state(usize::try_from(index).unwrap()).unwrap();
            assert_eq!(state, known(index).state);
        }
        assert!(log.state(10).is_err());
        let size = fs::metadata(directory.path().join(NAME)).unwrap().len();
        assert_eq!(log.bytes(), 1000 + size);
        // As far as the segments that there are, not as what was told last.
        let expect = Progress { source_us: 3_000_007, ..progress(30) };
        assert_eq!(log.progress(), expect);
    }

    #[test]
    fn what_a_lost_machine_has_half_written_does_not_count() {
        let (directory, folder) = ten();
        let path = directory.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(open(&folder).len(), 9);
        // Its line came to the disk, and all of it didn't.
        fs::write(directory.path().join("11.ts"), [0; 60]).unwrap();
        let mut log = open(&folder);
        assert_eq!((log.len(), log.segments().ended()), (6, false));
        fs::write(directory.path().join("11.ts"), [0; 70]).unwrap();
        log.push(70, &known(77), progress(21)).unwrap();
        let log = open(&folder);
        assert_eq!((log.len(), log.state(6).unwrap()), (7, known(77).state));
        fs::remove_file(directory.path().join("5.ts")).unwrap();
        assert_eq!(open(&folder).len(), 0);
    }

    #[test]
    fn what_is_cut_is_gone_from_the_disk_too() {
        let (directory, folder) = ten();
        let mut log = open(&folder);
        log.cut(4, &folder, &names()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 5);
        assert!(!log.segments().ended());
        let bytes = log.bytes();
        let log = open(&folder);
        assert_eq!((log.len(), log.bytes()), (4, bytes));
    }
}
