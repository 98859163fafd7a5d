//! Several viewers of the same thing: which jobs are the same, and who produces for all of them.
//!
//! ```text
//! first job ──▶ Production ── worker ── segments ──▶ its own folder
//!                   └─ Stage ──▶ later job (crate::follow) ── copies ──▶ its own folder
//! ```
//!
//! Two jobs are the same if they read the same files, unchanged, by the same plan from the same
//! position; only folder and names of the output differ. Everybody has a folder of their own, because
//! Jellyfin deletes what it finds there when *its* viewer has gone.
//!
//! What such a job has made is kept beyond its end ([`crate::cache`]), and followed in the same way.
//!
//! Invariant: a title has at most one production, and it is there exactly as long as its [`Offer`].

mod segments;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use ffmpeg_args::{Container, HlsOutput, Location, Output, PlaylistType, Transcode};
use rustix::fs::fstat;
pub(crate) use segments::{Known, Segments};
use serde::{Deserialize, Serialize};
use session::{Complete, Progress, StreamId};
use tokio::sync::watch;

/// What is produced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Title {
    /// The inputs, subtitles and fonts.
    sources: Vec<Source>,
    /// The plan without the output's folder and names, as JSON.
    plan: String,
}

/// A file as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Source {
    device: u64,
    inode: u64,
    size: i64,
    changed: (i64, i64),
}

impl Title {
    /// Of a job with its descriptors, the output's folder last. `None` if what comes of it can't be
    /// shared: what isn't segments of files, written once (contract 2.6, 2.7).
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub(crate) fn of(transcode: &Transcode, descriptors: &[OwnedFd]) -> io::Result<Option<Self>> {
        let network = |location: &Location| matches!(location, Location::Network(_));
        if transcode.inputs.iter().any(|input| network(&input.location)) {
            return Ok(None);
        }
        let mut plan = transcode.clone();
        match &mut plan.output {
            Output::Hls(output) if output.playlist_type == PlaylistType::Vod => {
                output.directory.clear();
                output.segment_prefix.clear();
                output.playlist.clear();
                if let Container::Fmp4 { init, .. } = &mut output.container {
                    init.clear();
                }
            }
            _ => return Ok(None),
        }
        let Some((_output, sources)) = descriptors.split_last() else { return Ok(None) };
        let sources = sources.iter().map(Source::of).collect::<io::Result<_>>()?;
        Ok(serde_json::to_string(&plan).ok().map(|plan| Self { sources, plan }))
    }

    #[cfg(test)]
    pub(crate) fn for_tests(inode: u64, changed: i64, plan: &str) -> Self {
        let source = Source { device: 1, inode, size: 100, changed: (changed, 0) };
        Self { sources: vec![source], plan: plan.into() }
    }

    /// Whether it reads a file that the other one reads too, and that has changed since.
    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        self.sources.iter().any(|ours| {
            let same =
                |theirs: &&Source| (theirs.device, theirs.inode) == (ours.device, ours.inode);
            other.sources.iter().filter(same).any(|theirs| theirs != ours)
        })
    }
}

/// What goes back to one worker at the first segment, whoever has gone on with it: segments of one fit each
/// other, and its init file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lineage(u64);

impl Lineage {
    /// One of its own.
    pub(crate) fn new() -> Self {
        // Of a process no two are alike, which is all that is asked for.
        Self(RandomState::new().build_hasher().finish())
    }
}

impl Source {
    fn of(descriptor: &OwnedFd) -> io::Result<Self> {
        let stat = fstat(descriptor)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            // Not of the content alone: a writer can set that back.
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        })
    }
}

/// How far a production is.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Stage {
    /// The complete ones, from the output's first on.
    pub segments: Segments,
    /// Indices of those that were written anew, each of which others had followed.
    pub anew: Vec<usize>,
    /// As its own hook hears it.
    pub progress: Progress,
    /// Jellyfin has paused it.
    pub paused: bool,
    /// Nothing more comes: the film is over, and its playlist written.
    pub complete: bool,
    /// Nothing more comes, since then: others may write into its folder.
    pub over: Option<SystemTime>,
}

/// A production that can be followed.
#[derive(Debug, Clone)]
pub(crate) struct Production {
    /// Whose it is; of what is kept, nobody's.
    pub stream: Option<StreamId>,
    /// What it goes back to.
    pub lineage: Lineage,
    /// Where the segments are.
    pub folder: Arc<OwnedFd>,
    /// Under which names.
    pub names: HlsOutput,
    /// How far it is. Closed when nothing more comes.
    pub stage: watch::Receiver<Stage>,
}

/// All productions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sharing {
    productions: Arc<Mutex<HashMap<Title, Production>>>,
}

impl Sharing {
    fn lock(&self) -> MutexGuard<'_, HashMap<Title, Production>> {
        self.productions.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Joins a production, or begins one with the segments that there are already, and what they go back to.
    pub(crate) fn join(
        &self,
        title: &Title,
        stream: StreamId,
        folder: &Arc<OwnedFd>,
        names: &HlsOutput,
        (segments, lineage): (Segments, Option<Lineage>),
    ) -> Joined {
        let mut productions = self.lock();
        if let Some(production) = productions.get(title) {
            return Joined::Production(production.clone());
        }
        let first = names.start_number;
        let (sender, stage) = watch::channel(Stage { segments, ..Stage::default() });
        let (folder, names) = (Arc::clone(folder), names.clone());
        let lineage = lineage.unwrap_or_else(Lineage::new);
        let production = Production { stream: Some(stream), lineage, folder, names, stage };
        productions.insert(title.clone(), production.clone());
        let (title, sharing) = (title.clone(), self.clone());
        Joined::Offer(Offer { title, sharing, first, stage: sender }, production)
    }
}

/// Which side of a production a job is on.
#[derive(Debug)]
pub(crate) enum Joined {
    /// Somebody produces it.
    Production(Production),
    /// Nobody did: he does from now on.
    Offer(Offer, Production),
}

/// The producer's side.
#[derive(Debug)]
pub(crate) struct Offer {
    title: Title,
    sharing: Sharing,
    first: u64,
    stage: watch::Sender<Stage>,
}

impl Offer {
    /// A segment stands complete under its name. One that was there may be written anew, by another
    /// worker.
    pub(crate) fn segment_complete(&self, number: u64, complete: Complete) {
        let before = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.stage.send_modify(|stage| {
            if before < stage.segments.len() {
                stage.anew.push(before);
                stage.segments.truncate(before);
            }
            stage.segments.push(complete.into());
        });
    }

    pub(crate) fn progress(&self, progress: Progress) {
        self.stage.send_modify(|stage| stage.progress = progress);
    }

    pub(crate) fn paused(&self, paused: bool) {
        self.stage.send_modify(|stage| stage.paused = paused);
    }

    /// Nothing more comes: see [`Stage::complete`].
    pub(crate) fn complete(&self) {
        self.stage.send_modify(|stage| stage.complete = true);
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.stage.send_modify(|stage| stage.over = Some(SystemTime::now()));
        self.sharing.lock().remove(&self.title);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use ffmpeg_args::{Plan, plan};

    use super::*;

    fn transcode(id: &str, start: &str) -> Transcode {
        let command = format!(
            "-ss {start} -i file:/m/film.mkv -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 \
             -map 0:1 -map -0:s -codec:v:0 copy -codec:a:0 copy -copyts -avoid_negative_ts disabled \
             -f hls -max_delay 5000000 -hls_time 6 -hls_segment_type mpegts -start_number 2 \
             -hls_segment_filename /t/{id}%d.ts -hls_playlist_type vod -hls_list_size 0 -y \
             /t/{id}.m3u8"
        );
        let argv: Vec<_> = command.split_whitespace().map(Into::into).collect();
        match plan(&argv) {
            Plan::Transcode(transcode) => *transcode,
            Plan::Passthrough(reason) => panic!("{reason:?}"),
        }
    }

    #[test]
    fn the_same_is_the_same_file_unchanged_by_the_same_plan() {
        let folder = tempfile::tempdir().unwrap();
        let film = folder.path().join("film.mkv");
        std::fs::write(&film, "film").unwrap();
        let title = |transcode: &Transcode| {
            let output = File::open(folder.path()).unwrap().into();
            let descriptors = [File::open(&film).unwrap().into(), output];
            Title::of(transcode, &descriptors).unwrap()
        };
        let first = title(&transcode("a", "00:00:06"));
        assert!(first.is_some());
        assert_eq!(first, title(&transcode("b", "00:00:06")));
        assert_ne!(first, title(&transcode("a", "00:00:09")));
        let mut louder = transcode("a", "00:00:06");
        louder.audio = None;
        assert_ne!(first, title(&louder));
        std::fs::write(&film, "mlif").unwrap();
        let second = title(&transcode("a", "00:00:06"));
        assert_ne!(first, second);
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(second.supersedes(&first) && !second.supersedes(&second));

        let mut event = transcode("a", "00:00:06");
        if let Output::Hls(output) = &mut event.output {
            output.playlist_type = PlaylistType::Event;
        }
        assert_eq!(title(&event), None);
    }

    #[test]
    fn a_title_has_one_production_for_as_long_as_it_is_offered() {
        let title = Title { sources: Vec::new(), plan: "p".into() };
        let names = transcode("a", "00:00:06").output.hls().unwrap().clone();
        let sharing = Sharing::default();
        let folder = Arc::new(File::open("/").unwrap().into());
        let join = |stream| sharing.join(&title, StreamId(stream), &folder, &names, <_>::default());
        let Joined::Offer(first, _) = join(1) else { panic!("nobody produced it") };
        let Joined::Production(production) = join(2) else { panic!("it is produced") };
        assert_eq!(production.stream, Some(StreamId(1)));
        let complete =
            |ticks| Complete { length: (ticks, 90_000), state: Some("s".into()), last: false };
        for (number, ticks) in [(2, 5), (3, 6), (4, 7), (3, 8)] {
            first.segment_complete(number, complete(ticks));
        }
        let segments = production.stage.borrow().segments.clone();
        let segments: Vec<Complete> = segments.each().map(Into::into).collect();
        assert_eq!(segments, [complete(5), complete(8)]);
        assert_eq!(production.stage.borrow().anew, [1]);
        drop(first);
        assert!(production.stage.has_changed().is_err());
        assert!(matches!(join(2), Joined::Offer(..)));
    }
}
