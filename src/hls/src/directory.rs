//! The output directory: placeholders, and what an ending has to clear away.
//!
//! Jellyfin serves segment N as soon as a file N+1 exists (contract 4). A placeholder is that file,
//! empty, created the moment N is complete and replaced by rename when N+1 is. One party alone
//! creates placeholders; whoever still holds the directory removes them at an ending.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, OFlags, openat, statat, unlinkat};
use rustix::io::{Errno, Result};

use crate::file::MODE;

/// Creates an empty file. `false` if the name exists already, whatever it is.
///
/// # Errors
/// Those of `openat(2)`.
pub fn create_placeholder(dir: impl AsFd, name: &str) -> Result<bool> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match openat(dir, name, flags, MODE) {
        Ok(_) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is something of this name. In doubt there is.
pub fn exists(dir: impl AsFd, name: &str) -> bool {
    !matches!(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
}

/// Unlinks a file if it is empty. `false` if it has bytes or doesn't exist.
///
/// # Errors
/// Those of `fstatat(2)` and `unlinkat(2)`.
pub fn remove_placeholder(dir: impl AsFd, name: &str) -> Result<bool> {
    let dir = dir.as_fd();
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if stat.st_size == 0 => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error),
    }
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the temporary files `{prefix}*.{writer_tag}.tmp` of a writer that is gone; says how
/// many there were.
///
/// # Errors
/// Those of reading the directory and `unlinkat(2)`; the rest is swept before one is returned.
pub fn sweep(dir: impl AsFd, prefix: &str, writer_tag: &str) -> Result<usize> {
    let dir = dir.as_fd();
    let suffix = format!(".{writer_tag}.tmp");
    let mut removed = 0;
    let mut failed = None;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let bytes = name.to_bytes();
        if !bytes.starts_with(prefix.as_bytes()) || !bytes.ends_with(suffix.as_bytes()) {
            continue;
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => removed += 1,
            Err(Errno::NOENT) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(removed), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    fn open(dir: &tempfile::TempDir) -> File {
        File::open(dir.path()).unwrap()
    }

    #[test]
    fn placeholder_is_made_once_and_removed_only_while_empty() {
        let dir = tempfile::tempdir().unwrap();
        let fd = open(&dir);
        assert!(create_placeholder(&fd, "a1.ts").unwrap());
        assert!(!create_placeholder(&fd, "a1.ts").unwrap());
        assert_eq!(fs::metadata(dir.path().join("a1.ts")).unwrap().len(), 0);
        assert!(remove_placeholder(&fd, "a1.ts").unwrap());
        assert!(!remove_placeholder(&fd, "a1.ts").unwrap());
        fs::write(dir.path().join("a1.ts"), b"x").unwrap();
        assert!(!create_placeholder(&fd, "a1.ts").unwrap());
        assert!(!remove_placeholder(&fd, "a1.ts").unwrap());
        assert!(dir.path().join("a1.ts").exists());
    }

    #[test]
    fn sweep_takes_only_its_own_writers_temporary_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a1.ts.w7.tmp", "a2.ts.w7.tmp", "a1.ts.w8.tmp", "b1.ts.w7.tmp", "a1.ts"] {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        assert_eq!(sweep(open(&dir), "a", "w7").unwrap(), 2);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["a1.ts", "a1.ts.w8.tmp", "b1.ts.w7.tmp"]);
    }
}
