//! What ffmpeg makes of a command, and what it says of that: once per target folder, whichever suite
//! asks first.
//!
//! Invariant: what is kept follows from the command, from ffmpeg's version and from the bytes of every
//! file that it reads, and is whole as soon as it has its name. Nothing that a worker wrote is kept.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::output::capture;

/// Where all of it is.
static STORE: LazyLock<PathBuf> = LazyLock::new(|| crate::kept().join("references"));

/// The folder that `make` fills by running this command, or has filled before. `reads` are the files that
/// the command reads; where it writes must not be in it.
///
/// # Panics
/// If `make` does, or one of the files can't be read.
pub fn folder(command: &[String], reads: &[&Path], make: impl FnOnce(&Path)) -> PathBuf {
    static FFMPEG: LazyLock<Vec<u8>> = LazyLock::new(|| capture("ffmpeg", &["-version"]));
    let mut hasher = DefaultHasher::new();
    (&*FFMPEG, command).hash(&mut hasher);
    for file in reads {
        let content = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        content.hash(&mut hasher);
    }
    let kept = STORE.join(format!("{:016x}", hasher.finish()));

    // Two tests of a process may want the same.
    static MAKING: LazyLock<Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>> =
        LazyLock::new(Mutex::default);
    let turns = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let turn = { turns }.entry(kept.clone()).or_default().clone();
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    if !kept.exists() {
        std::fs::create_dir_all(&*STORE).expect("a folder for references");
        let making = tempfile::tempdir_in(&*STORE).expect("a folder for a reference");
        make(making.path());
        // Another process may have been faster.
        if std::fs::rename(making.path(), &kept).is_ok() {
            let _ = making.keep();
        }
    }
    kept
}

/// A program's standard output about a file; kept beside the file if that is a reference.
///
/// # Panics
/// If the program fails.
pub fn said(program: &str, arguments: &[&str], file: &Path) -> Vec<u8> {
    if !file.starts_with(&*STORE) {
        return capture(program, arguments);
    }
    let mut hasher = DefaultHasher::new();
    (program, arguments).hash(&mut hasher);
    let beside = file.with_extension(format!("{:016x}", hasher.finish()));
    std::fs::read(&beside).unwrap_or_else(|_| {
        let said = capture(program, arguments);
        let folder = file.parent().expect("a file is in a folder");
        let making = tempfile::NamedTempFile::new_in(folder).expect("a file beside a reference");
        std::fs::write(&making, &said).expect("room for what is said of a reference");
        making.persist(beside).expect("it gets its name");
        said
    })
}
