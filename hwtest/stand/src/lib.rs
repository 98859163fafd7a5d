//! The test stand of the worker: [`Run`] gives the shipped worker a plan and listens to the end as a
//! gateway would, [`output`] looks at what it wrote, [`reference`] keeps what ffmpeg makes of the same,
//! [`line`] has the command lines of the corpus and [`clip`] makes the films. The worker's own tests and the
//! suite on GPUs both stand on it.
//!
//! Invariant: what is judged is the program that ships, in a process of its own. Nothing of the
//! worker is linked.
#![forbid(unsafe_code)]

pub mod clip;
pub mod disk;
pub mod gpu;
pub mod line;
pub mod output;
pub mod reference;
mod run;

pub use run::{Report, Run, pause};

use std::path::{Path, PathBuf};

/// A program or library of the workspace, built before, as a test or another program finds it.
///
/// # Panics
/// If it isn't there.
pub fn built(name: &str) -> PathBuf {
    let path = folder_of_programs().join(name);
    assert!(
        path.exists(),
        "expected {}: build it first (`cargo build --workspace`, as ./dev test does)",
        path.display()
    );
    path
}

/// Where tests keep what takes long to make: `target/tmp`, cargo's own for tests.
pub fn kept() -> PathBuf {
    folder_of_programs().parent().expect("a profile lies in the target folder").join("tmp")
}

/// `target/debug`, from a program in it or from a test in its folder `deps`.
fn folder_of_programs() -> PathBuf {
    let program = std::env::current_exe().expect("a program has a path");
    let folder = program.parent().expect("a program lies in a folder");
    let folder = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    folder.map(Path::to_owned).expect("tests lie two folders deep")
}
