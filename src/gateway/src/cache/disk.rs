//! The cache's folder: one folder for each title, and the lock of the gateway that has it.
//!
//! ```text
//! rendergate-segments/lock
//! rendergate-segments/0000002a/title.json   what it is; written first, and removed first
//!                  /log          a line for each segment (super::log)
//!                  /5.ts 6.ts …  and init.mp4, playlist.m3u8
//! ```
//!
//! Invariants:
//! - Nobody but the gateway's user looks into it: these are other people's films.
//! - Nothing is removed that isn't named as a title's folder is.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ffmpeg_args::{Container, HlsOutput};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statvfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use session::PROTOCOL;
use tracing::warn;

use super::index::Id;
use crate::sharing::Title;

/// Of the form of all files. What has another one goes.
const VERSION: u32 = 1;
const RELEASE: &str = env!("CARGO_PKG_VERSION");
const TITLE: &str = "title.json";
const FOLDER: &str = "rendergate-segments";
/// For its owner alone.
const PRIVATE: u32 = 0o700;

/// `title.json`
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    version: u32,
    /// Of the workers whose states are in the log: those of others can't be gone on with.
    protocol: u32,
    /// Of the program: another one may have mended what its pictures look like.
    release: String,
    title: Title,
}

/// The folder, while this gateway has it.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    _lock: File,
}

/// A title's folder as a gateway before has left it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: Id,
    pub(super) title: Title,
    pub(super) bytes: u64,
    pub(super) used: SystemTime,
}

/// Names in a title's folder.
pub(super) fn names(title: &HlsOutput) -> HlsOutput {
    let mut names = title.clone();
    names.directory.clear();
    names.segment_prefix.clear();
    names.playlist = "playlist.m3u8".into();
    if let Container::Fmp4 { init, .. } = &mut names.container {
        *init = "init.mp4".into();
    }
    names
}

/// Whether it is for a title that a gateway has half written or removed, or that is another one's; not one that
/// can't be read just now.
fn are_remains(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof, Unsupported};
    matches!(error.kind(), NotFound | InvalidData | UnexpectedEof | Unsupported)
}

fn id_of(name: &str) -> Option<Id> {
    let id = Id::from_str_radix(name, 16).ok()?;
    (name == format!("{id:08x}")).then_some(id)
}

impl Disk {
    /// The folder below that directory, which is made if it isn't there. `None` as long as another gateway
    /// has it.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn take(directory: &Path) -> io::Result<Option<Self>> {
        let root = directory.join(FOLDER);
        fs::create_dir_all(directory)?;
        DirBuilder::new().recursive(true).mode(PRIVATE).create(&root)?;
        fs::set_permissions(&root, Permissions::from_mode(PRIVATE))?;
        let lock = File::options().create(true).append(true).open(root.join("lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { root, _lock: lock })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, id: Id) -> PathBuf {
        self.root.join(format!("{id:08x}"))
    }

    /// Removes all titles below that directory, if no other gateway has them; how many there were.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn clear(directory: &Path) -> io::Result<usize> {
        if !directory.join(FOLDER).is_dir() {
            return Ok(0);
        }
        let Some(disk) = Self::take(directory)? else { return Ok(0) };
        let mut count = 0;
        for entry in fs::read_dir(&disk.root)? {
            if let Some(id) = entry?.file_name().to_str().and_then(id_of) {
                disk.remove(id)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// What a gateway before has left that this one can use; the rest is removed.
    ///
    /// # Errors
    /// Those of reading the folder itself.
    pub(super) fn scan(&self) -> io::Result<Vec<Found>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(id_of) else { continue };
            match self.look(id) {
                Ok(found) => all.push(found),
                Err(error) if are_remains(&error) => {
                    if let Err(error) = self.remove(id) {
                        warn!(%error, id, "can't remove kept segments that are of no use");
                    }
                }
                Err(error) => warn!(%error, id, "kept segments can't be read; left alone"),
            }
        }
        Ok(all)
    }

    fn look(&self, id: Id) -> io::Result<Found> {
        let path = self.path(id);
        let label: Label = serde_json::from_slice(&fs::read(path.join(TITLE))?)?;
        if (label.version, label.protocol, &*label.release) != (VERSION, PROTOCOL, RELEASE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (mut bytes, mut used) = (0, SystemTime::UNIX_EPOCH);
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if entry.path().extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(entry.path())?;
                continue;
            }
            bytes += meta.len();
            used = used.max(meta.modified()?);
        }
        Ok(Found { id, title: label.title, bytes, used })
    }

    /// An empty folder for a title.
    ///
    /// # Errors
    /// Those of the file system; nothing is left then.
    pub(super) fn create(&self, id: Id, title: &Title) -> io::Result<()> {
        let path = self.path(id);
        DirBuilder::new().mode(PRIVATE).create(&path)?;
        let (title, release) = (title.clone(), RELEASE.to_owned());
        let label = Label { version: VERSION, protocol: PROTOCOL, release, title };
        let temporary = path.join("title.json.tmp");
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(&serde_json::to_vec(&label)?))
            .and_then(|()| fs::rename(&temporary, path.join(TITLE)));
        written.inspect_err(|_| _ = fs::remove_dir_all(&path))
    }

    /// Notes that a title was used now, for gateways to come.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn touch(&self, id: Id) -> io::Result<()> {
        File::open(self.path(id).join(TITLE))?.set_modified(SystemTime::now())
    }

    /// A title's folder.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub(super) fn folder(&self, id: Id) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(open(self.path(id), flags, Mode::empty())?)
    }

    /// Takes a title away. What is left of one by a gateway that dies meanwhile is nobody's title.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn remove(&self, id: Id) -> io::Result<()> {
        let path = self.path(id);
        match fs::remove_file(path.join(TITLE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// How many bytes there are too few for this share of the disk to be free when so many more are taken.
    ///
    /// # Errors
    /// That of `statvfs(3)`.
    pub(super) fn lacks(&self, bytes: u64, share: f64) -> io::Result<u64> {
        let stat = statvfs(&self.root)?;
        let [size, free] =
            [stat.f_blocks, stat.f_bavail].map(|blocks| blocks as f64 * stat.f_frsize as f64);
        Ok((size * share + bytes as f64 - free).max(0.0).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gateway_has_it_and_nobody_else_looks_into_it() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(FOLDER)).unwrap();
        let disk = Disk::take(directory.path()).unwrap().unwrap();
        let mode = fs::metadata(disk.root()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        assert!(Disk::take(directory.path()).unwrap().is_none());
        drop(disk);
        assert!(Disk::take(directory.path()).unwrap().is_some());
    }

    #[test]
    fn titles_outlive_the_gateway_and_remains_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::take(directory.path()).unwrap().unwrap();
        let title = Title::for_tests(7, 1, "plan");
        for id in 1..=6 {
            disk.create(id, &title).unwrap();
            fs::write(disk.path(id).join("5.ts"), [0; 1000]).unwrap();
        }
        fs::write(disk.path(1).join("6.ts.k.tmp"), [0; 1000]).unwrap();
        fs::remove_file(disk.path(2).join(TITLE)).unwrap();
        let label = fs::read_to_string(disk.path(3).join(TITLE)).unwrap();
        let older = label.replace(&format!("\"protocol\":{PROTOCOL}"), "\"protocol\":7");
        assert_ne!(label, older);
        fs::write(disk.path(3).join(TITLE), older).unwrap();
        disk.remove(4).unwrap();
        let release = format!("\"release\":\"{RELEASE}\"");
        let older = label.replace(&release, "\"release\":\"0.0.9\"");
        assert_ne!(label, older);
        fs::write(disk.path(5).join(TITLE), older).unwrap();
        // This one can't be read, which may pass.
        fs::remove_file(disk.path(6).join(TITLE)).unwrap();
        fs::create_dir(disk.path(6).join(TITLE)).unwrap();
        // Somebody else's.
        for name in ["2a", "film.mkv", "0000002A"] {
            fs::create_dir(disk.root().join(name)).unwrap();
        }
        let found = disk.scan().unwrap();
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found.id, &found.title, found.bytes), (1, &title, 1000 + label.len() as u64));
        let mut left: Vec<_> = fs::read_dir(disk.root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["00000001", "00000006", "0000002A", "2a", "film.mkv", "lock"]);
        assert_eq!(Disk::clear(directory.path()).unwrap(), 0, "a gateway has them");
        fs::remove_dir(disk.path(6).join(TITLE)).unwrap();
        let root = disk.root().to_owned();
        drop(disk);
        assert_eq!(Disk::clear(directory.path()).unwrap(), 2);
        assert_eq!(fs::read_dir(root).unwrap().count(), 4);
        assert_eq!(Disk::clear(&directory.path().join("nowhere")).unwrap(), 0);
    }

    #[test]
    fn a_share_of_the_disk_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::take(directory.path()).unwrap().unwrap();
        assert_eq!(disk.lacks(0, 0.0).unwrap(), 0);
        let all_but_little = disk.lacks(0, 0.999_999).unwrap();
        assert!(all_but_little > 0);
        // Others write to it meanwhile, but not as much.
        let more = disk.lacks(1 << 40, 0.999_999).unwrap();
        assert!(more.abs_diff(all_but_little + (1 << 40)) < 1 << 39);
    }
}
