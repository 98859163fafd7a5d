//! The empty file that makes a segment servable one segment sooner.
//!
//! Jellyfin serves segment N once a file N+1 exists, or once the process has exited (contract 4,
//! Segment request algorithm). The moment N stands complete the hook creates N+1 empty; the worker
//! later renames the real N+1 over it. An empty segment must never reach a viewer, and none can,
//! ending by ending:
//!
//! - **While the stream runs**, N+1 is served only when N+2 exists or N+1 is older than the newest
//!   file. N+2 is created after the worker has said that N+1 is complete, which it says after the
//!   rename; and the newest file is the placeholder itself.
//! - **After a leap back** whole segments of the run before may stand ahead: with N+2 among them Jellyfin
//!   would serve the empty N+1 at once, so none is created. N is then served when N+1 is complete, as
//!   with ffmpeg. An N+1 of the run before is whole, and left alone.
//! - **End of stream, failure, `Ended` of any kind:** the worker is done writing when it says so.
//!   The hook removes the placeholder and then exits; before the exit the rule above holds, after
//!   it the file is gone and Jellyfin answers 404 or starts anew, as with ffmpeg.
//! - **`q`, SIGTERM, SIGINT, SIGHUP:** removed when the wish is passed on, and none is created from
//!   then on. The worker may well write that number after all, as the last, partial segment; it
//!   does so by rename, which needs no placeholder. Should Jellyfin lose patience (SIGKILL after
//!   five seconds), there is nothing left to remove.
//! - **Gateway gone:** the connection ends. If another one may go on with the stream, the placeholder stays
//!   while that is waited for; else the hook removes it and exits with 1.
//! - **Panic of the hook:** the panic handler removes it before the process ends ([`crate::run`]).
//! - **SIGKILL of the hook, or a power cut:** the one ending the hook can't cover. The kernel
//!   closes a dying process's descriptors (`exit_files`) before it tells the parent (`exit_notify`,
//!   SIGCHLD), so gateway and worker, who hold the directory too, see the connection end before
//!   Jellyfin can know of the exit, and remove the file; Jellyfin looks again after 100 ms at the
//!   earliest if it waits. It is an order of events, not a lock. Jellyfin itself sends SIGKILL only
//!   after `q`, where no placeholder is left. While no gateway is there nobody covers it. After a power cut Jellyfin empties the transcode
//!   directory when it starts.
//!
//! Removing is two calls, "is it empty" and "unlink". If the worker's rename falls between them a
//! complete segment is removed at an ending: Jellyfin asks for it anew, nothing empty is served.
//!
//! Not for event playlists: there the viewer follows ffmpeg's own playlist, which names complete
//! segments, and a placeholder would gain nothing. Nor for the fMP4 init file, which the worker
//! writes before the first segment.
//!
//! A full disk may have no room even for a file without bytes. It is then tried again twice a second, by
//! whoever turns the loop, until there is room or the next one is to be made.
//!
//! Invariants:
//! - The hook is the only one that creates placeholders.
//! - At most one stands at any time, and none after [`Placeholders::close`].

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ffmpeg_args::{Output, PlaylistType};
use hls::directory::{create_placeholder, exists, remove_placeholder};
use rustix::io::Errno;

/// Time between two tries on a full disk.
const AGAIN: Duration = Duration::from_millis(500);

/// The placeholders of one stream. Clones are the same one.
#[derive(Clone)]
pub struct Placeholders(Arc<Mutex<State>>);

struct State {
    directory: OwnedFd,
    prefix: String,
    suffix: String,
    open: bool,
    current: Option<String>,
    /// The one that there was no room for, and when it is to be tried again.
    wanted: Option<(u64, Instant)>,
}

impl Placeholders {
    /// For the output in this directory.
    pub fn new(directory: OwnedFd, output: &Output) -> Self {
        let hls = output.hls();
        Self(Arc::new(Mutex::new(State {
            directory,
            prefix: hls.map(|output| output.segment_prefix.clone()).unwrap_or_default(),
            suffix: hls.map(|output| output.segment_suffix.clone()).unwrap_or_default(),
            open: hls.is_some_and(|output| output.playlist_type == PlaylistType::Vod),
            current: None,
            wanted: None,
        })))
    }

    /// Segment `number` stands complete: its follower may be announced. Failing to is no error:
    /// the segment is servable a little later then.
    pub fn follow(&self, number: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.open {
            return;
        }
        // What stood for `number` has been replaced. Should it still be there, segments were
        // skipped, and nobody will replace it.
        let Some(next) = number.checked_add(1) else { return };
        let name = state.name(next);
        if state.current.as_ref() != Some(&name) {
            state.remove();
        }
        state.create(next);
    }

    /// When the one that there was no room for is to be tried again, if there is such a one.
    pub fn due(&self) -> Option<Instant> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.wanted.as_ref().map(|(_, at)| *at)
    }

    /// Tries it again, if it is time.
    pub fn try_again(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, _)) = state.wanted.take_if(|(_, at)| *at <= Instant::now()) {
            state.create(number);
        }
    }

    /// Removes the placeholder that stands, if any, and creates none any more.
    pub fn close(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = false;
        state.wanted = None;
        state.remove();
    }

    /// As [`Placeholders::close`], from a panic that may have struck in here: doesn't wait.
    pub fn close_from_panic(&self) {
        if let Ok(mut state) = self.0.try_lock() {
            state.remove();
        }
    }
}

impl State {
    fn name(&self, number: u64) -> String {
        format!("{}{number}{}", self.prefix, self.suffix)
    }

    fn create(&mut self, number: u64) {
        self.wanted = None;
        let behind = number.checked_add(1).map(|number| self.name(number));
        if behind.is_none_or(|behind| exists(&self.directory, &behind)) {
            return;
        }
        let name = self.name(number);
        match create_placeholder(&self.directory, &name) {
            Ok(true) => self.current = Some(name),
            Err(Errno::NOSPC | Errno::DQUOT) => {
                self.wanted = Some((number, Instant::now() + AGAIN))
            }
            Ok(false) | Err(_) => {}
        }
    }

    fn remove(&mut self) {
        if let Some(name) = self.current.take() {
            // Nothing can be done about a directory that takes no changes any more.
            _ = remove_placeholder(&self.directory, &name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    use ffmpeg_args::{Container, HlsOutput};

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn placeholders(dir: &tempfile::TempDir, playlist_type: PlaylistType) -> Placeholders {
        let output = Output::Hls(HlsOutput {
            directory: PathBuf::from(dir.path()),
            container: Container::MpegTs,
            segment_seconds: 3.0,
            start_number: 0,
            segment_prefix: "id".to_owned(),
            segment_suffix: ".ts".to_owned(),
            playlist: "id.m3u8".to_owned(),
            playlist_type,
            base_url: String::new(),
            max_delay_us: 5_000_000,
        });
        Placeholders::new(fs::File::open(dir.path()).unwrap().into(), &output)
    }

    #[test]
    fn one_stands_at_a_time_and_none_after_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let placeholders = placeholders(&dir, PlaylistType::Vod);
        fs::write(dir.path().join("id7.ts"), b"x").unwrap();
        placeholders.follow(7);
        assert_eq!(names(&dir), ["id7.ts", "id8.ts"]);
        fs::write(dir.path().join("id8.ts"), b"x").unwrap();
        placeholders.follow(8);
        assert_eq!(names(&dir), ["id7.ts", "id8.ts", "id9.ts"]);
        placeholders.close();
        assert_eq!(names(&dir), ["id7.ts", "id8.ts"]);
        placeholders.follow(8);
        assert_eq!(names(&dir), ["id7.ts", "id8.ts"]);
    }

    #[test]
    fn a_follower_that_is_complete_already_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let placeholders = placeholders(&dir, PlaylistType::Vod);
        fs::write(dir.path().join("id1.ts"), b"x").unwrap();
        placeholders.follow(0);
        placeholders.close();
        assert_eq!(fs::read(dir.path().join("id1.ts")).unwrap(), b"x");
    }

    /// Jellyfin would serve it: to it a segment is complete once the next one exists.
    #[test]
    fn none_stands_before_a_segment_of_a_run_before() {
        let dir = tempfile::tempdir().unwrap();
        let placeholders = placeholders(&dir, PlaylistType::Vod);
        for number in [3, 4] {
            fs::write(dir.path().join(format!("id{number}.ts")), b"x").unwrap();
        }
        let mut made = Vec::new();
        for number in 0..6 {
            fs::write(dir.path().join(format!("id{number}.ts")), b"x").unwrap();
            placeholders.follow(number);
            let next = dir.path().join(format!("id{}.ts", number + 1));
            made.push(fs::metadata(next).is_ok_and(|file| file.len() == 0));
        }
        assert_eq!(made, [true, false, false, false, true, true]);
    }

    #[test]
    fn a_placeholder_that_was_skipped_goes() {
        let dir = tempfile::tempdir().unwrap();
        let placeholders = placeholders(&dir, PlaylistType::Vod);
        placeholders.follow(0);
        placeholders.follow(4);
        assert_eq!(names(&dir), ["id5.ts"]);
    }

    #[test]
    fn event_playlists_have_none() {
        let dir = tempfile::tempdir().unwrap();
        placeholders(&dir, PlaylistType::Event).follow(0);
        assert!(names(&dir).is_empty());
    }
}
