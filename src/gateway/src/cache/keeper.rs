//! Keeps what one stream produces: a follower without a viewer.
//!
//! It looks at how far the production is and copies the next segment that isn't kept, so that what waits is in
//! the stream's own folder and nowhere else. A disk that is too slow makes it fall behind, not the stream.
//!
//! What is kept already is cut or replaced only when the production has got further, and all that takes its
//! place still stands in the stream's folder: a longer title never gives way to a shorter one, unless Jellyfin
//! deletes segments just while they are copied.
//!
//! When the stream is over, what is still missing is copied if it stands as it stood then: another run may
//! write into the same folder, under the same names.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ffmpeg_args::HlsOutput;
use hls::Share;
use session::Progress;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::disk::Disk;
use super::index::Id;
use super::log::Log;
use super::{Shared, disk, is_broken};
use crate::sharing::{Known, Production, Stage, Title};

/// How long it waits for its turn. A disk on which others are that slow may hang, and whoever waits holds a
/// descriptor of the stream's folder.
const TURN_LIMIT: Duration = Duration::from_secs(30);
/// Marks temporary files: nobody else writes there.
const TAG: &str = "k";

/// Why no more is kept of a title.
#[derive(Debug)]
enum Stop {
    /// There is no room, for this reason.
    Full(&'static str),
    /// The title is gone, or is to be, or somebody reads what would have to be replaced.
    Gone,
    /// What is to be copied isn't there any more, or is another run's.
    Missed,
    /// Its turn didn't come.
    Slow,
    /// No end: so many segments are kept that would have to go, and there aren't more of these.
    Shorter(usize),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Stop {
    /// What is wrong with the disk is said once, until it has been right again.
    fn say(&self, segments: usize, said: &AtomicBool) {
        let is_news = match self {
            Self::Full("room") => {
                return info!(segments, "no more of it is kept: there is no room for more");
            }
            Self::Gone | Self::Missed | Self::Shorter(_) => false,
            Self::Full(_) | Self::Slow | Self::Io(_) => !said.swap(true, Ordering::Relaxed),
        };
        match self {
            Self::Full(_) if is_news => {
                warn!(segments, "no more of it is kept: the disk is too full")
            }
            Self::Slow if is_news => warn!(segments, "no more of it is kept: the disk is too slow"),
            Self::Io(error) if is_news => warn!(segments, %error, "no more of it can be kept"),
            _ => debug!(segments, why = ?self, "no more of it is kept"),
        }
    }
}

/// See the module's description.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    disk: Arc<Disk>,
    title: Title,
    production: Production,
    /// Segments with which the production began.
    begun: usize,
    /// Of its news of segments that were written anew, those that were heard.
    heard: usize,
    /// It has to get beyond so many segments before anything is kept of it.
    beyond: usize,
}

/// Gives back what it works on, or drops it.
type Work = Box<dyn FnOnce() -> Result<Keeping, Stop> + Send>;

/// What is to be kept next.
#[derive(Debug)]
struct Next {
    index: usize,
    known: Known,
    progress: Progress,
}

/// Whoever adds to a title is the only one.
struct Turn {
    shared: Arc<Shared>,
    title: Title,
}

impl Turn {
    async fn take(shared: Arc<Shared>, title: Title) -> Self {
        loop {
            let rested = shared.rested.notified();
            tokio::pin!(rested);
            rested.as_mut().enable();
            {
                let mut growing = shared.growing.lock().unwrap_or_else(|e| e.into_inner());
                if !growing.contains(&title) {
                    growing.push(title.clone());
                    break;
                }
            }
            rested.await;
        }
        Self { shared, title }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut growing = self.shared.growing.lock().unwrap_or_else(|e| e.into_inner());
        growing.retain(|title| *title != self.title);
        drop(growing);
        self.shared.rested.notify_waiters();
    }
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: Arc<Disk>,
        title: Title,
        production: Production,
    ) -> Self {
        let begun = production.stage.borrow().segments.len();
        Self { shared, disk, title, production, begun, heard: 0, beyond: 0 }
    }

    /// Keeps it until it is over, or can't be kept.
    pub(super) async fn run(mut self) {
        let mut count = 0;
        let turn = Turn::take(Arc::clone(&self.shared), self.title.clone());
        if let Ok(turn) = timeout(TURN_LIMIT, turn).await {
            if let Err(stop) = self.keep(&mut count).await {
                stop.say(count, &self.shared.said);
            }
            drop(turn);
        }
    }

    async fn keep(&mut self, count: &mut usize) -> Result<(), Stop> {
        let mut keeping: Option<Keeping> = None;
        let mut over = false;
        let end = loop {
            if let Some(next) = self.next(count) {
                let slot = timeout(TURN_LIMIT, Arc::clone(&self.shared.slot).acquire_owned());
                let Ok(Ok(slot)) = slot.await else { break Err(Stop::Slow) };
                let work = self.work(keeping.take(), next);
                let work = move || {
                    let _slot = slot;
                    work()
                };
                let done = spawn_blocking(work).await.map_err(io::Error::other);
                match done.map_err(Stop::from).flatten() {
                    Ok(it) => {
                        (*count, self.beyond) = (it.count, it.beyond);
                        keeping = Some(it);
                    }
                    Err(Stop::Shorter(kept)) => self.beyond = kept,
                    Err(stop) => break Err(stop),
                }
            } else if over {
                debug!(segments = *count, "kept");
                break Ok(());
            } else {
                // What was said last is still to be heard.
                over = self.production.stage.changed().await.is_err();
            }
        };
        // Closing what was written may wait for a disk.
        let _ = spawn_blocking(move || drop(keeping)).await;
        end
    }

    /// The next piece of it, for a thread that may wait for a disk.
    fn work(&mut self, keeping: Option<Keeping>, next: Next) -> Work {
        if let Some(mut keeping) = keeping {
            return Box::new(move || {
                keeping.keep(next)?;
                Ok(keeping)
            });
        }
        // What was written anew before there was anything to be cut.
        self.heard = 0;
        let (shared, disk) = (Arc::clone(&self.shared), Arc::clone(&self.disk));
        let (title, production) = (self.title.clone(), self.production.clone());
        let begun = self.begun;
        Box::new(move || Keeping::begin(shared, disk, &title, &production, begun))
    }

    /// What is to be kept behind `count` segments, of which those are taken off that were written anew.
    fn next(&mut self, count: &mut usize) -> Option<Next> {
        let stage = self.production.stage.borrow_and_update();
        let anew = stage.anew.get(self.heard..).unwrap_or_default();
        *count = anew.iter().fold(*count, |count, index| count.min(*index));
        self.heard = stage.anew.len();
        if stage.segments.len() <= self.beyond {
            return None;
        }
        let known = stage.segments.get(*count)?;
        Some(Next { index: *count, known, progress: stage.progress })
    }
}

/// Of looking into the stream's folder.
fn missed(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::NotFound => Stop::Missed,
        _ => Stop::Io(error),
    }
}

/// Whether a production has more segments than the `kept` ones, and from an index on all of them stand.
///
/// # Errors
/// `Shorter`, `Missed`, and those of looking.
fn is_further(
    kept: usize,
    from: usize,
    stage: &watch::Receiver<Stage>,
    share: &Share,
    names: &HlsOutput,
) -> Result<(), Stop> {
    let (count, over) = {
        let stage = stage.borrow();
        (stage.segments.len(), stage.over)
    };
    if count <= kept {
        return Err(Stop::Shorter(kept));
    }
    for index in from..count {
        let number = names.start_number + index as u64;
        share.look_for(number).map_err(missed)?;
        if let Some(over) = over
            && !share.stands_since(number, over).map_err(missed)?
        {
            return Err(Stop::Missed);
        }
    }
    Ok(())
}

/// A title's folder, to which is added.
struct Keeping {
    shared: Arc<Shared>,
    disk: Arc<Disk>,
    id: Id,
    folder: OwnedFd,
    names: HlsOutput,
    share: Share,
    stage: watch::Receiver<Stage>,
    log: Log,
    /// Segments that are kept of this production.
    count: usize,
    /// See [`Keeper::beyond`].
    beyond: usize,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        let mut index = self.shared.lock();
        index.rests(self.id);
        if self.log.len() == 0 {
            index.mark_gone(self.id);
        }
        drop(index);
        self.shared.untidy.notify_one();
    }
}

impl Keeping {
    /// Goes on with what is kept of the same, or begins anew.
    fn begin(
        shared: Arc<Shared>,
        disk: Arc<Disk>,
        title: &Title,
        production: &Production,
        begun: usize,
    ) -> Result<Self, Stop> {
        let names = disk::names(&production.names);
        let now = SystemTime::now();
        let before = {
            let index = shared.lock();
            index.find(title).filter(|id| index.lineage(*id) != Some(production.lineage))
        };
        if let Some(before) = before {
            let kept = match disk.folder(before).and_then(|folder| Log::read(folder, &names)) {
                Ok(log) => log.len(),
                Err(error) if is_broken(&error) => 0,
                Err(error) => return Err(error.into()),
            };
            let theirs = (production.folder.try_clone()?, production.names.clone());
            // Only looked at.
            let ours = (production.folder.try_clone()?, names.clone());
            let share = Share::new(theirs, ours, TAG.to_owned());
            is_further(kept, 0, &production.stage, &share, &names)?;
        }
        let mut index = shared.lock();
        let known = index.go_on(title, production.lineage);
        let id = match known {
            Some(id) => id,
            None => {
                if index.find(title).is_some() {
                    shared.metrics.evicted("replaced", 1);
                }
                index.begin(title, production.lineage, now)
            }
        };
        drop(index);
        let open = || {
            if known.is_none() {
                disk.create(id, title)?;
            }
            let folder = disk.folder(id)?;
            let log = Log::open(&folder, &names)?;
            let theirs = (production.folder.try_clone()?, production.names.clone());
            let share = Share::new(theirs, (folder.try_clone()?, names.clone()), TAG.to_owned());
            Ok::<_, io::Error>((folder, log, share))
        };
        match open() {
            Ok((folder, log, share)) => {
                let count = log.len().min(begun);
                let stage = production.stage.clone();
                Ok(Self { shared, disk, id, folder, names, share, stage, log, count, beyond: 0 })
            }
            Err(error) => {
                shared.lock().rests(id);
                if known.is_none() || is_broken(&error) {
                    shared.give_up(id, "broken");
                }
                Err(error.into())
            }
        }
    }

    fn weigh(&self) {
        self.shared.lock().weighs(self.id, self.log.bytes(), SystemTime::now());
        self.shared.tell();
    }

    fn keep(&mut self, next: Next) -> Result<(), Stop> {
        let Next { index, known, progress } = next;
        if index < self.log.len() {
            match is_further(self.log.len(), index, &self.stage, &self.share, &self.names) {
                Err(Stop::Shorter(kept)) => {
                    (self.count, self.beyond) = (index, kept);
                    return Ok(());
                }
                other => other?,
            }
            if !self.shared.lock().shrinks(self.id) {
                return Err(Stop::Gone);
            }
            self.log.cut(index, &self.folder, &self.names)?;
            self.weigh();
        }
        let number = self.names.start_number + index as u64;
        let size = self.share.look_for(number).map_err(missed)?;
        if self.shared.lock().is_gone(self.id) {
            return Err(Stop::Gone);
        }
        if let Some(reason) = self.shared.make_room(&self.disk, size)? {
            return Err(Stop::Full(reason));
        }
        if index == 0 {
            self.share.init().map_err(missed)?;
        }
        if known.last {
            // It is for people, and there needn't be one.
            match self.share.playlist() {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let bytes = self.share.segment(number).map_err(missed)?;
        // Asked when it is copied: as long as the stream runs nobody else writes there.
        let over = self.stage.borrow().over;
        if let Some(over) = over
            && !self.share.stands_since(number, over).map_err(missed)?
        {
            return Err(Stop::Missed);
        }
        self.log.push(bytes, &known, progress)?;
        self.shared.said.store(false, Ordering::Relaxed);
        (self.count, self.beyond) = (index + 1, 0);
        self.weigh();
        Ok(())
    }
}
