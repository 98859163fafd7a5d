//! A viewer of live television (contract 2.8 and 4, live.m3u8).
//!
//! Jellyfin starts its ffmpeg, waits for the playlist, then for so many segments in it, and gives out
//! ffmpeg's own playlist at every poll. The player fetches each segment that is named there once, and
//! stops with `q` when it has had enough.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::job::{Exit, Job};
use crate::{CommandLine, let_pass};

/// Segments that the playlist must name before Jellyfin gives it out.
const MIN_SEGMENTS: usize = 3;
/// Between two polls.
const POLL: Duration = Duration::from_millis(100);

/// What a viewer has seen.
#[derive(Debug, Default)]
pub struct Watched {
    /// The playlist as it was at each poll that found another text than the one before.
    pub playlists: Vec<String>,
    /// Names of the segments that were fetched, in order, without the base URL.
    pub fetched: Vec<String>,
    /// What went wrong on the way, one sentence each.
    pub faults: Vec<String>,
    /// How ffmpeg ended, if it has.
    pub exit: Option<Exit>,
}

/// Watches until `enough` segments have been fetched, the program is over, or `patience` is.
/// `base` is what stands before the names in the playlist.
pub fn watch(
    job: &mut Job,
    command: &CommandLine,
    base: &str,
    enough: usize,
    patience: Duration,
) -> Watched {
    let mut watched = Watched::default();
    let end = Instant::now() + patience;
    let playlist = command.directory.join(format!("{}.m3u8", command.id));
    while watched.fetched.len() < enough {
        watched.exit = job.exit();
        // After the exit whatever is there counts, once.
        watched.poll(&playlist, command, base);
        if watched.exit.is_some() {
            return watched;
        }
        if Instant::now() > end {
            watched.faults.push(format!("{} segments in {patience:?}", watched.fetched.len()));
            return watched;
        }
        let_pass(POLL);
    }
    watched
}

impl Watched {
    fn poll(&mut self, playlist: &PathBuf, command: &CommandLine, base: &str) {
        let Ok(text) = fs::read_to_string(playlist) else { return };
        if self.playlists.last() == Some(&text) {
            return;
        }
        self.check(&text);
        self.playlists.push(text.clone());
        if text.matches("#EXTINF:").count() < MIN_SEGMENTS && !text.contains("#EXT-X-ENDLIST") {
            return;
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(name) = line.strip_prefix(base) else {
                self.faults.push(format!("{line} doesn't begin with {base}"));
                continue;
            };
            if self.fetched.iter().any(|fetched| fetched == name) {
                continue;
            }
            match fs::read(command.directory.join(name)) {
                Ok(bytes) if !bytes.is_empty() => self.fetched.push(name.to_owned()),
                Ok(_) => self.faults.push(format!("{name} is empty")),
                Err(error) => self.faults.push(format!("{name}: {error}")),
            }
        }
    }

    /// A playlist is replaced at once, and only ever grows.
    fn check(&mut self, text: &str) {
        let lines = |text: &str| -> Vec<String> {
            let segments =
                text.lines().filter(|line| line.starts_with("#EXTINF") || !line.starts_with('#'));
            segments.map(str::to_owned).collect()
        };
        if !text.starts_with("#EXTM3U\n") || !text.ends_with('\n') {
            self.faults.push(format!("half a playlist: {text:?}"));
        }
        let before = self.playlists.last().map(|text| lines(text)).unwrap_or_default();
        if !lines(text).starts_with(&before) {
            self.faults.push(format!("the playlist lost something: {text}"));
        }
    }
}
