//! Segments of one output taken over into another of the same content, under its own names.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ffmpeg_args::HlsOutput;
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};

use crate::Patience;
use crate::file::Folder;

/// Longest playlist that is read, bytes: a hundred hours of segments.
const LONGEST_PLAYLIST: u64 = 8 * 1024 * 1024;

/// Two outputs that differ in nothing but their folders and names.
#[derive(Debug)]
pub struct Share {
    from: Folder,
    theirs: HlsOutput,
    to: Folder,
    ours: HlsOutput,
    tag: String,
    abandoned: AtomicBool,
}

impl Share {
    /// From a folder with `theirs` into one with `ours`; `writer_tag` marks temporary files
    /// ([`crate::directory::sweep`]).
    pub fn new(
        (from, theirs): (OwnedFd, HlsOutput),
        (to, ours): (OwnedFd, HlsOutput),
        writer_tag: String,
    ) -> Self {
        let (from, to) = (Folder::new(from), Folder::new(to));
        Self { from, theirs, to, ours, tag: writer_tag, abandoned: AtomicBool::new(false) }
    }

    /// Waits for room as this says, instead of failing.
    pub fn be_patient(&mut self, patience: Arc<dyn Patience>) {
        self.to.be_patient(patience);
    }

    /// From now on nothing appears, not even what is being copied. Nobody need wait for a copy that hangs
    /// then; its temporary file is to be swept.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
    }

    /// Takes a complete segment; its size in bytes. It appears by rename, replacing what stands there.
    ///
    /// # Errors
    /// Those of reading and writing; `NotFound` if it isn't there, or is empty.
    pub fn segment(&self, number: u64) -> io::Result<u64> {
        let name = self.ours.segment_name(number);
        self.take(&self.theirs.segment_name(number), &name)
    }

    /// Looks whether a complete segment is still there; its size in bytes.
    ///
    /// # Errors
    /// Those of `fstatat(2)`; `NotFound` if it isn't there, or is empty.
    pub fn look_for(&self, number: u64) -> io::Result<u64> {
        let name = self.theirs.segment_name(number);
        match statat(self.from.directory(), &*name, AtFlags::SYMLINK_NOFOLLOW)?.st_size {
            0 => Err(io::ErrorKind::NotFound.into()),
            size => Ok(size.unsigned_abs()),
        }
    }

    /// Whether a segment stands as it stood at `then`: neither written to nor replaced since.
    ///
    /// # Errors
    /// Those of `fstatat(2)`.
    pub fn stands_since(&self, number: u64, then: SystemTime) -> io::Result<bool> {
        let name = self.theirs.segment_name(number);
        let stat = statat(self.from.directory(), &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        let then = then.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Of renaming and of the content; the content's own can be set back.
        let changed = (stat.st_ctime, u64::try_from(stat.st_ctime_nsec).unwrap_or(u64::MAX));
        let seconds = i64::try_from(then.as_secs()).unwrap_or(i64::MAX);
        Ok(changed <= (seconds, then.subsec_nanos().into()))
    }

    /// Takes the init file, if the container has one.
    ///
    /// # Errors
    /// As [`Self::segment`].
    pub fn init(&self) -> io::Result<()> {
        match (self.theirs.init_name(), self.ours.init_name()) {
            (Some(theirs), Some(ours)) => self.take(theirs, ours).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Takes the playlist, with the names changed.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn playlist(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.from.directory(), &*self.theirs.playlist, flags, Mode::empty())?;
        let mut text = String::new();
        File::from(file).take(LONGEST_PLAYLIST).read_to_string(&mut text)?;
        let text = self.renamed(&text);
        let name = &self.ours.playlist;
        if self.abandoned.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.to.put(name, self.temporary(name), text.as_bytes()).map_err(io::Error::other)
    }

    fn take(&self, theirs: &str, ours: &str) -> io::Result<u64> {
        self.to.copy(&self.from, theirs, ours, self.temporary(ours), &self.abandoned)
    }

    fn temporary(&self, name: &str) -> String {
        format!("{name}.{}.tmp", self.tag)
    }

    fn renamed(&self, playlist: &str) -> String {
        let map = |name: &str| format!("#EXT-X-MAP:URI=\"{name}\"");
        let maps = self.theirs.init_name().map(map).zip(self.ours.init_name().map(map));
        let line = |line: &str| {
            if let Some((theirs, ours)) = &maps
                && line == theirs
            {
                return format!("{ours}\n");
            }
            let name = line.strip_prefix(&*self.theirs.base_url);
            match name.and_then(|name| self.theirs.segment_number(name)) {
                Some(number) => {
                    format!("{}{}\n", self.ours.base_url, self.ours.segment_name(number))
                }
                None => format!("{line}\n"),
            }
        };
        playlist.lines().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ffmpeg_args::{Container, PlaylistType};

    use super::*;
    use crate::playlist::Playlist;

    fn output(id: &str) -> HlsOutput {
        HlsOutput {
            directory: "/t".into(),
            container: Container::Fmp4 {
                init: format!("{id}-1.mp4"),
                absolute: true,
                skip_sidx: false,
            },
            segment_seconds: 3.0,
            start_number: 4,
            segment_prefix: id.into(),
            segment_suffix: ".mp4".into(),
            playlist: format!("{id}.m3u8"),
            playlist_type: PlaylistType::Vod,
            base_url: String::new(),
            max_delay_us: 5_000_000,
        }
    }

    #[test]
    fn another_viewer_has_the_same_bytes_under_other_names() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let open = |at: usize| -> OwnedFd { File::open(folders[at].path()).unwrap().into() };
        let read = |at: usize, name: &str| fs::read(folders[at].path().join(name)).unwrap();
        let (theirs, ours) = (output("a"), output("b2"));
        let mut playlist = Playlist::default();
        for number in 4..6 {
            let name = theirs.segment_name(number);
            fs::write(folders[0].path().join(&name), format!("segment {number}")).unwrap();
            playlist.push(name, 3.0);
        }
        fs::write(folders[0].path().join("a-1.mp4"), "init").unwrap();
        fs::write(folders[0].path().join("a.m3u8"), playlist.text(&theirs, true)).unwrap();
        // What a hook announces with, and a link that leads elsewhere.
        fs::write(folders[1].path().join("b25.mp4"), "").unwrap();
        fs::write(folders[0].path().join("a6.mp4"), "").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folders[0].path().join("a7.mp4")).unwrap();

        let share = Share::new((open(0), theirs), (open(1), ours.clone()), "s2w0".into());
        share.init().unwrap();
        assert_eq!(share.segment(4).unwrap(), 9);
        share.segment(5).unwrap();
        share.playlist().unwrap();
        assert_eq!(share.segment(6).unwrap_err().kind(), io::ErrorKind::NotFound);
        share.segment(7).unwrap_err();
        share.segment(8).unwrap_err();
        assert_eq!(share.look_for(4).unwrap(), 9);
        assert!(share.look_for(6).is_err() && share.look_for(8).is_err());
        assert!(share.stands_since(4, SystemTime::now()).unwrap());
        assert!(!share.stands_since(4, UNIX_EPOCH).unwrap());

        assert_eq!(read(1, "b2-1.mp4"), b"init");
        assert_eq!(read(1, "b24.mp4"), b"segment 4");
        // Not the same file: what is written over one isn't seen in the other.
        fs::write(folders[0].path().join("a5.mp4"), "changed").unwrap();
        assert_eq!(read(1, "b25.mp4"), b"segment 5");
        let mut own = Playlist::default();
        (4..6).for_each(|number| own.push(ours.segment_name(number), 3.0));
        assert_eq!(read(1, "b2.m3u8"), own.text(&ours, true).into_bytes());
        assert_eq!(fs::read_dir(folders[1].path()).unwrap().count(), 4);
    }

    #[test]
    fn what_is_abandoned_does_not_appear() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let open = |at: usize| -> OwnedFd { File::open(folders[at].path()).unwrap().into() };
        for name in ["a4.mp4", "a-1.mp4", "a.m3u8"] {
            fs::write(folders[0].path().join(name), "x").unwrap();
        }
        let share = Share::new((open(0), output("a")), (open(1), output("b")), "s2w0".into());
        share.abandon();
        let each = [share.segment(4).map(drop), share.init(), share.playlist()];
        assert!(each.iter().all(|done| {
            done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
        }));
        assert_eq!(fs::read_dir(folders[1].path()).unwrap().count(), 0);
    }
}
