//! Clips made on the spot with ffmpeg, once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Makes a clip with ffmpeg; the arguments, separated by spaces, end before the output.
///
/// # Panics
/// If ffmpeg is missing or fails.
pub fn make(name: &str, arguments: &str) -> PathBuf {
    make_from(name, arguments, |_| {})
}

/// The same of pictures that `feed` writes to ffmpeg's standard input.
///
/// # Panics
/// As [`make`].
pub fn make_from(name: &str, arguments: &str, feed: impl FnOnce(&mut dyn Write)) -> PathBuf {
    let directory = crate::kept().join("clips");
    std::fs::create_dir_all(&directory).expect("a folder for clips");
    let path = directory.join(name);
    // Two tests of a process may want the same clip.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        let making = directory.join(format!("{}.{name}", std::process::id()));
        run_ffmpeg(arguments, &making, feed);
        std::fs::rename(&making, &path).expect("a clip gets its name");
    }
    path
}

fn run_ffmpeg(arguments: &str, output: &Path, feed: impl FnOnce(&mut dyn Write)) {
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(arguments.split(' ').filter(|argument| !argument.is_empty()))
        .arg(output)
        .stdin(Stdio::piped())
        .spawn()
        .expect("ffmpeg is needed to make clips: apt install ffmpeg");
    let mut pipe = ffmpeg.stdin.take().expect("it was asked for");
    feed(&mut pipe);
    drop(pipe);
    let status = ffmpeg.wait().expect("ffmpeg ends");
    assert!(status.success(), "ffmpeg {arguments}");
}
