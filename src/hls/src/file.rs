//! Files that appear complete, written under a temporary name and renamed when whole; and files that
//! are read while they grow, and only ever appended to.
//!
//! They belong to the owner of the directory, if the system lets us give them away: that is who
//! runs Jellyfin, and with it the ffmpeg that a later run may fall back to. It writes over the
//! segments that stand there, in place, and ends if it may not.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, fchown, fstat, ftruncate, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::WriteError;
use crate::patience::{Impatient, Patience, Wait, is_no_room, with_room};

/// ffmpeg's; the umask takes away what the installation wants.
pub(crate) const MODE: Mode = Mode::from_raw_mode(0o666);

/// Slices handed to the system in one call; far below IOV_MAX.
const BATCH: usize = 256;

/// The directory in which files appear.
#[derive(Debug)]
pub struct Folder {
    directory: OwnedFd,
    patience: Arc<dyn Patience>,
}

/// A file under its temporary name.
#[derive(Debug)]
pub struct Temporary {
    fd: OwnedFd,
    temporary: String,
    name: String,
    bytes: u64,
    patience: Arc<dyn Patience>,
}

/// A file under its final name that somebody reads while it grows.
#[derive(Debug)]
pub struct Growing {
    fd: OwnedFd,
    name: String,
    bytes: u64,
    patience: Arc<dyn Patience>,
}

impl Growing {
    /// Appends. What there is no room for to the end is taken back as a whole.
    pub fn write(&mut self, data: &[u8]) -> Result<(), WriteError> {
        let before = self.bytes;
        let mut wait = Wait::new(&*self.patience);
        match wait.write(data, &mut self.bytes, |data| rustix::io::write(&self.fd, data)) {
            Ok(()) => {
                wait.done();
                Ok(())
            }
            Err(error) => {
                if is_no_room(error) && ftruncate(&self.fd, before).is_ok() {
                    self.bytes = before;
                }
                Err(WriteError::from_os(&self.name, error.into()))
            }
        }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Temporary {
    /// Appends.
    pub fn write(&mut self, data: &[u8]) -> Result<(), WriteError> {
        let mut wait = Wait::new(&*self.patience);
        match wait.write(data, &mut self.bytes, |data| rustix::io::write(&self.fd, data)) {
            Ok(()) => {
                wait.done();
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Appends pieces without joining them in memory first.
    pub fn write_all(&mut self, pieces: &[Bytes]) -> Result<(), WriteError> {
        let mut wait = Wait::new(&*self.patience);
        for batch in pieces.chunks(BATCH) {
            let slices: Vec<_> = batch.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut written = loop {
                match rustix::io::writev(&self.fd, &slices) {
                    Ok(count) => break count,
                    Err(Errno::INTR) => {}
                    // Waited for below, as after a short write.
                    Err(error) if is_no_room(error) => break 0,
                    Err(error) => return Err(self.failed(error)),
                }
            };
            self.bytes += written as u64;
            // A short write is finished piece by piece; its cause shows then.
            for piece in batch {
                let done = written.min(piece.len());
                written -= done;
                wait.write(&piece[done..], &mut self.bytes, |data| {
                    rustix::io::write(&self.fd, data)
                })
                .map_err(|error| self.failed(error))?;
            }
        }
        wait.done();
        Ok(())
    }

    fn failed(&self, error: Errno) -> WriteError {
        WriteError::from_os(&self.name, error.into())
    }
}

impl Folder {
    /// On a descriptor of the directory. A full disk is an error at once.
    pub fn new(directory: OwnedFd) -> Self {
        Self { directory, patience: Arc::new(Impatient) }
    }

    /// From now on it is waited for room as this says.
    pub fn be_patient(&mut self, patience: Arc<dyn Patience>) {
        self.patience = patience;
    }

    /// The descriptor.
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Creates `temporary`, to become `name`. What a dead writer left under the temporary name is
    /// replaced, and so is a link: what it leads to isn't touched.
    pub fn create(&self, name: &str, temporary: String) -> Result<Temporary, WriteError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let create = || openat(&self.directory, &temporary, flags, MODE);
        let fd = with_room(&*self.patience, || match create() {
            Err(Errno::EXIST) => {
                unlinkat(&self.directory, &temporary, AtFlags::empty()).and_then(|()| create())
            }
            result => result,
        })
        .map_err(|error| WriteError::from_os(name, error.into()))?;
        self.give_away(&fd);
        let patience = Arc::clone(&self.patience);
        Ok(Temporary { fd, temporary, name: name.to_owned(), bytes: 0, patience })
    }

    /// Opens `name` anew, to be read while it grows: what stands there is emptied, as by ffmpeg's
    /// `-y`. A link isn't followed.
    pub fn grow(&self, name: &str) -> Result<Growing, WriteError> {
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::TRUNC
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let fd = with_room(&*self.patience, || openat(&self.directory, name, flags, MODE))
            .map_err(|error| WriteError::from_os(name, error.into()))?;
        self.give_away(&fd);
        let patience = Arc::clone(&self.patience);
        Ok(Growing { fd, name: name.to_owned(), bytes: 0, patience })
    }

    /// What a file holds; a link isn't followed.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, WriteError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.directory, name, flags, Mode::empty())
            .map_err(|error| WriteError::from_os(name, error.into()))?;
        let mut data = Vec::new();
        File::from(fd).read_to_end(&mut data).map_err(|error| WriteError::from_os(name, error))?;
        Ok(data)
    }

    /// Makes the directory's owner the file's. Only root may; for others the file stays theirs.
    fn give_away(&self, file: &OwnedFd) {
        if let (Ok(ours), Ok(theirs)) = (fstat(file), fstat(&self.directory))
            && ours.st_uid != theirs.st_uid
        {
            let (user, group) = (Uid::from_raw(theirs.st_uid), Gid::from_raw(theirs.st_gid));
            let _ = fchown(file, Some(user), Some(group));
        }
    }

    /// Gives the file its final name, replacing what stands there; its size. If that fails the
    /// temporary file is removed.
    pub fn commit(&self, file: Temporary) -> Result<u64, WriteError> {
        let directory = self.directory.as_fd();
        let rename = || renameat(directory, &file.temporary, directory, &file.name);
        match with_room(&*self.patience, rename) {
            Ok(()) => Ok(file.bytes),
            Err(error) => {
                let error = WriteError::from_os(&file.name, error.into());
                self.discard(file);
                Err(error)
            }
        }
    }

    /// Removes the temporary file. It may be gone already.
    pub fn discard(&self, file: Temporary) {
        let _ = unlinkat(&self.directory, &file.temporary, AtFlags::empty());
    }

    /// A whole small file at once.
    pub fn put(&self, name: &str, temporary: String, data: &[u8]) -> Result<(), WriteError> {
        let file = self.prepare(name, temporary, data)?;
        self.commit(file).map(|_| ())
    }

    /// Copies a whole file of another folder; its size in bytes. Not a link: a later ffmpeg writes over
    /// the segments that it finds, in place. File systems that can share the blocks do.
    ///
    /// Once it is `abandoned` nothing appears any more, however late a read returns; between that look and
    /// the rename is no other call that could hang. The temporary file stays: another one may have taken
    /// its name, so that whoever abandons it sweeps.
    ///
    /// # Errors
    /// Those of reading and writing; `NotFound` if there is no such file, or an empty one; `Interrupted` if
    /// it was abandoned.
    pub fn copy(
        &self,
        from: &Self,
        from_name: &str,
        name: &str,
        temporary: String,
        abandoned: &AtomicBool,
    ) -> io::Result<u64> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source = File::from(openat(&from.directory, from_name, flags, Mode::empty())?);
        if source.metadata()?.len() == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let is_wanted = || match abandoned.load(Ordering::SeqCst) {
            true => Err(io::Error::from(io::ErrorKind::Interrupted)),
            false => Ok(()),
        };
        is_wanted()?;
        let mut file = self.create(name, temporary).map_err(io::Error::other)?;
        let copied = file.fd.try_clone().and_then(|target| self.fill(&mut source, target));
        is_wanted()?;
        match copied {
            Ok(bytes) => {
                file.bytes = bytes;
                self.commit(file).map_err(io::Error::other)
            }
            Err(error) => {
                self.discard(file);
                Err(error)
            }
        }
    }

    /// Copies all of `source` into an empty file; its size in bytes.
    fn fill(&self, source: &mut File, target: OwnedFd) -> io::Result<u64> {
        let mut target = File::from(target);
        let mut wait = Wait::new(&*self.patience);
        loop {
            match io::copy(source, &mut target) {
                Ok(_) => break,
                Err(error) => {
                    let number = error.raw_os_error().map(Errno::from_raw_os_error);
                    wait.again(number.ok_or(error)?)?;
                    // More may have been read than found room.
                    source.seek(SeekFrom::Start(target.stream_position()?))?;
                }
            }
        }
        wait.done();
        target.stream_position()
    }

    /// Writes a whole file and leaves it under its temporary name.
    pub fn prepare(
        &self,
        name: &str,
        temporary: String,
        data: &[u8],
    ) -> Result<Temporary, WriteError> {
        let mut file = self.create(name, temporary)?;
        match file.write(data) {
            Ok(()) => Ok(file),
            Err(error) => {
                self.discard(file);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::tests::Counting;
    use std::fs;
    use std::sync::atomic::Ordering::SeqCst;

    fn folder(dir: &tempfile::TempDir) -> Folder {
        Folder::new(File::open(dir.path()).unwrap().into())
    }

    #[test]
    fn many_pieces_arrive_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(&dir);
        let pieces: Vec<_> =
            (0..1000u32).map(|i| Bytes::from(vec![i.to_le_bytes()[0]; i as usize % 7])).collect();
        let mut file = folder.create("a", "a.t.tmp".into()).unwrap();
        file.write(b"head").unwrap();
        file.write_all(&pieces).unwrap();
        let size = folder.commit(file).unwrap();
        let whole = [&b"head"[..], &pieces.concat()].concat();
        assert_eq!(size, whole.len() as u64);
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), whole);
        assert!(!dir.path().join("a.t.tmp").exists());
    }

    #[test]
    fn a_link_under_the_temporary_name_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("victim"), b"whole").unwrap();
        std::os::unix::fs::symlink("victim", dir.path().join("a.t.tmp")).unwrap();
        fs::hard_link(dir.path().join("victim"), dir.path().join("b.t.tmp")).unwrap();
        for name in ["a", "b"] {
            folder(&dir).put(name, format!("{name}.t.tmp"), b"new").unwrap();
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"new");
        }
        assert!(!dir.path().join("a").is_symlink());
        assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"whole");
    }

    #[test]
    fn a_growing_file_replaces_what_stood_there_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"of a run before").unwrap();
        let mut file = folder(&dir).grow("a").unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"");
        for (data, so_far) in [("one", "one"), ("two", "onetwo")] {
            file.write(data.as_bytes()).unwrap();
            assert_eq!(fs::read(dir.path().join("a")).unwrap(), so_far.as_bytes());
        }
        assert_eq!(file.bytes(), 6);
        fs::write(dir.path().join("victim"), b"whole").unwrap();
        std::os::unix::fs::symlink("victim", dir.path().join("b")).unwrap();
        assert!(folder(&dir).grow("b").is_err());
        assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"whole");
    }

    #[test]
    fn a_file_without_room_is_waited_for() {
        // Of all files this one is always on a full disk.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let patience = Arc::new(Counting { most: 3, ..Counting::default() });
        let mut file = Temporary {
            fd: full.try_clone().unwrap().into(),
            temporary: "a.t.tmp".into(),
            name: "a".into(),
            bytes: 0,
            patience: patience.clone(),
        };
        let pieces = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        assert!(matches!(file.write_all(&pieces), Err(WriteError::NoSpace { .. })));
        assert_eq!(patience.waits.load(SeqCst), 4);
        assert!(matches!(file.write(b"one"), Err(WriteError::NoSpace { .. })));
        assert_eq!((file.bytes, patience.overs.load(SeqCst)), (0, 0));
    }

    #[test]
    fn files_belong_to_the_directorys_owner() {
        use std::os::unix::fs::{MetadataExt, chown};
        let dir = tempfile::tempdir().unwrap();
        // Only root can try the other half of it.
        let other = chown(dir.path(), Some(65_534), Some(65_534)).is_ok();
        folder(&dir).put("a", "a.t.tmp".into(), b"new").unwrap();
        let (file, folder) =
            (fs::metadata(dir.path().join("a")).unwrap(), fs::metadata(dir.path()).unwrap());
        assert_eq!(file.uid(), folder.uid());
        assert!(!other || (file.uid(), file.gid()) == (65_534, 65_534));
    }
}
