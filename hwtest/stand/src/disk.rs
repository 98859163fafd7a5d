//! Small file systems that can be filled: a full disk as the system has it, not an imitation.
//!
//! They are mounted in a mount namespace that ends with its process, so that nothing is left of them,
//! however a test ends. A test therefore runs itself once more in there ([`apart`]).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in the process in which a test runs apart.
const APART: &str = "STAND_APART";
/// Steps in which a disk is filled; pages of memory, of which the file system is made.
const PAGE: usize = 4096;

/// Runs the test of this name in a mount namespace of its own. `true` there, where the test is to go on;
/// `false` where it has passed.
///
/// # Panics
/// If the test fails, or there can be no such namespace: that takes root.
#[must_use]
pub fn apart(test: &str) -> bool {
    if std::env::var_os(APART).is_some() {
        return true;
    }
    let run = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().expect("a test has a path"))
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(APART, "1")
        .output()
        .expect("expected unshare(1) of util-linux");
    let said = String::from_utf8_lossy(&run.stdout);
    let complaint = String::from_utf8_lossy(&run.stderr);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{test}, in a mount namespace of its own (which takes root):\n{said}\n{complaint}"
    );
    false
}

/// A file system in memory, of a given size.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one over a folder, with room for so many bytes and so many files.
    ///
    /// # Panics
    /// Outside of [`apart`], or if it can't be mounted, which takes root.
    pub fn over(folder: &Path, bytes: usize, files: usize) -> Self {
        assert!(std::env::var_os(APART).is_some(), "it would stay mounted");
        let disk = Self { folder: folder.to_owned() };
        disk.mount(&format!("size={bytes},mode=777,{}", holding(files)));
        disk
    }

    /// From now on it holds so many files.
    ///
    /// # Panics
    /// If it holds more already.
    pub fn allow(&self, files: usize) {
        self.mount(&format!("remount,{}", holding(files)));
    }

    fn mount(&self, options: &str) {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(&self.folder)
            .output()
            .expect("expected mount(8)");
        let complaint = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "can't mount a tmpfs (that takes root): {complaint}");
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Fills it to the last byte, with a file that is another's.
    ///
    /// # Panics
    /// If it can't be written to for another reason.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        loop {
            match ballast.write(&[0; PAGE]) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Gives back so many bytes of what fills it, or all that is left.
    ///
    /// # Panics
    /// If there is nothing of it.
    pub fn give_back(&self, bytes: u64) {
        let ballast = File::options().write(true).open(self.ballast()).unwrap();
        let size = ballast.metadata().unwrap().len();
        ballast.set_len(size.saturating_sub(bytes)).unwrap();
    }

    /// Takes away what fills it.
    ///
    /// # Panics
    /// If there is nothing of it.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

/// The option for so many files. The root folder is one more.
fn holding(files: usize) -> String {
    format!("nr_inodes={}", files + 1)
}
