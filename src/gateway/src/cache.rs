//! Finished segments, kept on disk beyond the end of the stream that made them, for whoever comes next.
//!
//! ```text
//! Production (crate::sharing) ── keeper ── copies ──▶ a title's folder ──▶ Kept ── crate::follow ──▶ next viewer
//!                                                        ▲ index, bound, disk's share, source changed
//! ```
//!
//! Copied, not linked: a later ffmpeg writes over what it finds in Jellyfin's folder, in place. File systems
//! that can share the blocks do.
//!
//! Invariants:
//! - No stream waits for the cache: what is kept is copied when the stream has written it, a segment at a time
//!   for all streams together, and nothing queues up; looking for what is kept has a limit of time, and so has
//!   each copy of it ([`crate::follow`]).
//! - What is kept gives way to what goes further, or if it is broken; never to a trouble that passes.
//! - Together titles are as large as configured, and the disk keeps its free share. The one that was used
//!   longest ago goes first, as a whole, unless somebody uses it.
//! - Segments of a title go back to one worker at the first ([`Lineage`]).
//! - One gateway uses a folder.

mod disk;
mod index;
mod keeper;
mod log;
mod metrics;
pub(crate) mod settings;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use disk::{Disk, Found};
use ffmpeg_args::HlsOutput;
use index::{Id, Index};
use keeper::Keeper;
use log::Log;
use metrics::Metrics;
use prometheus::Registry;
use rustix::fs::{AtFlags, statat};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{Instrument as _, Span, info, warn};

use crate::config::Config;
use crate::launch::cache_directory;
use crate::sharing::{Lineage, Production, Stage, Title};

/// Titles are 2 KiB in memory each, mostly their plan.
const MOST_TITLES: usize = 500;
/// How long a stream's beginning may be delayed by looking for what is kept. A disk that sleeps is woken by
/// it, and the stream goes on without.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// Looks at once; each may hang, with its thread, in a disk that does.
const LOOKS: usize = 4;
/// Between two tries for a folder that another gateway has, which is about to end.
const LOCK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at whether the disk has its free share: others write to it too.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// See the module's description. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cache {
    /// `None` if nothing is kept.
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    most: u64,
    free_share: f64,
    /// Once this gateway has it.
    disk: OnceLock<Arc<Disk>>,
    index: Mutex<Index>,
    /// Titles to which somebody adds.
    growing: Mutex<Vec<Title>>,
    /// There is something to tidy up.
    untidy: Notify,
    /// Somebody has stopped adding to a title.
    rested: Notify,
    /// Whoever copies into the cache.
    slot: Arc<Semaphore>,
    /// That nothing can be kept has been said.
    said: AtomicBool,
    looks: Arc<Semaphore>,
    metrics: Metrics,
}

/// What is kept of a title, for as long as somebody reads it.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// As one whose producer has left.
    pub production: Production,
    states: Arc<(Log, Reader)>,
}

impl Kept {
    /// A worker's state behind a segment. May wait for a disk.
    ///
    /// # Errors
    /// Those of reading it.
    pub(crate) fn state(&self, index: usize) -> io::Result<Option<Arc<Value>>> {
        self.states.0.state(index)
    }

    /// It couldn't be read. What is broken is kept no longer; whether it is.
    pub(crate) fn failed(&self, error: &io::Error) -> bool {
        let Reader { shared, id } = &self.states.1;
        let broken = is_broken(error);
        if broken {
            shared.give_up(*id, "broken");
        }
        broken
    }
}

/// What there is of a title, as far as can be said.
#[derive(Debug)]
pub(crate) enum Opened {
    Kept(Box<Kept>),
    /// Nothing that would be of use.
    Nothing,
    /// Something that can't be read now. It may be good: nothing is to take its place.
    Unknown,
}

/// Whether what is kept is wrong itself. Everything else passes: a disk that hangs or was lost, no more
/// descriptors.
fn is_broken(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | InvalidData | UnexpectedEof)
}

/// What there is too little of.
#[derive(Debug, Clone, Copy)]
enum Lack {
    /// Of what the cache may have.
    Room,
    /// Of the disk, by so many bytes.
    Disk(u64),
}

/// A title stays on the disk while there is one.
#[derive(Debug)]
struct Reader {
    shared: Arc<Shared>,
    id: Id,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().let_go(self.id);
        self.shared.untidy.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds what is kept of a title, and gives up what was kept of its files before they changed.
    fn hold(self: &Arc<Self>, title: &Title) -> Option<(Reader, Lineage)> {
        let mut index = self.lock();
        let stale = index.supersede(title);
        if stale > 0 {
            self.metrics.evicted("changed", stale);
            self.untidy.notify_one();
        }
        let id = index.find(title)?;
        let lineage = index.hold(id, SystemTime::now())?;
        Some((Reader { shared: Arc::clone(self), id }, lineage))
    }

    /// Bytes and titles.
    fn size(&self) -> (u64, usize) {
        let index = self.lock();
        (index.bytes(), index.titles())
    }

    fn tell(&self) {
        let (bytes, titles) = self.size();
        self.metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.metrics.titles.set(i64::try_from(titles).unwrap_or(i64::MAX));
    }

    /// Removes what is gone. May wait for a disk.
    fn remove_gone(&self, disk: &Disk) {
        loop {
            // Not with the lock: whoever looks for a title isn't to wait for the disk.
            let Some(id) = self.lock().take_gone() else { break };
            if let Err(error) = disk.remove(id) {
                warn!(%error, "can't remove kept segments; the next gateway tries again");
            }
        }
        self.tell();
    }

    /// What is in the way of so many bytes more.
    fn lacks(&self, disk: &Disk, bytes: u64) -> io::Result<Option<Lack>> {
        let (kept, titles) = self.size();
        if kept.saturating_add(bytes) > self.most || titles > MOST_TITLES {
            return Ok(Some(Lack::Room));
        }
        let missing = disk.lacks(bytes, self.free_share)?;
        Ok((missing > 0).then_some(Lack::Disk(missing)))
    }

    /// Sees to it that there is room for so many bytes more; else why there is none. May wait for a disk.
    fn make_room(&self, disk: &Disk, bytes: u64) -> io::Result<Option<&'static str>> {
        let mut freed = 0;
        loop {
            self.remove_gone(disk);
            let reason = match self.lacks(disk, bytes)? {
                None => return Ok(None),
                Some(Lack::Room) => "room",
                // Some file systems count what was removed as free only a while later.
                Some(Lack::Disk(missing)) if freed >= missing => return Ok(Some("disk")),
                Some(Lack::Disk(_)) => "disk",
            };
            let Some(given_up) = self.lock().give_up_one() else { return Ok(Some(reason)) };
            freed += given_up;
            self.metrics.evicted(reason, 1);
        }
    }

    /// Nobody finds it any more.
    fn give_up(&self, id: Id, reason: &str) {
        if self.lock().mark_gone(id) {
            self.metrics.evicted(reason, 1);
            self.untidy.notify_one();
        }
    }
}

impl Cache {
    /// As configured, once no other gateway has the folder. The task tends it.
    ///
    /// # Errors
    /// A metric that Prometheus doesn't allow.
    pub(crate) fn start(
        config: &Config,
        registry: &Registry,
        variable: impl Fn(&str) -> Option<String>,
    ) -> prometheus::Result<(Self, Option<JoinHandle<()>>)> {
        let metrics = Metrics::new(registry)?;
        let settings = &config.cache;
        // Not beside the socket: what lies there is mostly in memory.
        let directory = settings.directory.clone().or_else(|| cache_directory(None, variable));
        if settings.megabytes == 0 || !config.streams.share {
            return Ok((Self::default(), directory.map(|at| tokio::spawn(clear(at)))));
        }
        let Some(directory) = directory else {
            info!("no segments are kept: no directory for them can be written (cache.directory)");
            return Ok((Self::default(), None));
        };
        let shared = Arc::new(Shared {
            most: settings.megabytes.saturating_mul(1_000_000),
            free_share: settings.free_share,
            disk: OnceLock::new(),
            index: Mutex::default(),
            growing: Mutex::default(),
            untidy: Notify::new(),
            rested: Notify::new(),
            slot: Arc::new(Semaphore::new(1)),
            said: AtomicBool::new(false),
            looks: Arc::new(Semaphore::new(LOOKS)),
            metrics,
        });
        let tending = tokio::spawn(tend(Arc::clone(&shared), directory));
        Ok((Self { shared: Some(shared) }, Some(tending)))
    }

    /// What is kept of a title beyond `have` segments, which go back to `begun`. What its files have been
    /// before they changed is gone.
    pub(crate) async fn open(
        &self,
        title: &Title,
        names: &HlsOutput,
        have: usize,
        begun: Option<Lineage>,
    ) -> Opened {
        let Some(shared) = &self.shared else { return Opened::Nothing };
        let Some(disk) = shared.disk.get().map(Arc::clone) else { return Opened::Nothing };
        let Some((reader, lineage)) = shared.hold(title) else { return Opened::Nothing };
        if have > 0 && begun != Some(lineage) {
            return Opened::Nothing;
        }
        let id = reader.id;
        let looks = Arc::clone(&shared.looks);
        let names = disk::names(names);
        let look = async {
            let turn = looks.acquire_owned().await.map_err(io::Error::other)?;
            let look = move || {
                let _turn = turn;
                read(&disk, reader, lineage, names, have)
            };
            spawn_blocking(look).await.map_err(io::Error::other).flatten()
        };
        match timeout(LOOK_LIMIT, look).await {
            Ok(Ok(Some(kept))) => Opened::Kept(Box::new(kept)),
            Ok(Ok(None)) => Opened::Nothing,
            Ok(Err(error)) if is_broken(&error) => {
                warn!(%error, "what is kept of it is broken");
                shared.give_up(id, "broken");
                Opened::Nothing
            }
            Ok(Err(error)) => {
                warn!(%error, "what is kept of it can't be read");
                Opened::Unknown
            }
            Err(_) => {
                warn!(limit = ?LOOK_LIMIT, "what is kept of it can't be read in time");
                Opened::Unknown
            }
        }
    }

    /// A stream began with what was kept; or nothing of it was kept, nor is anybody making it.
    pub(crate) fn met(&self, hit: bool) {
        if let Some(shared) = &self.shared {
            let counter = if hit { &shared.metrics.hits } else { &shared.metrics.misses };
            counter.inc();
        }
    }

    /// Keeps what is produced, beside the stream, for as long as that works; not before this gateway has the
    /// folder.
    pub(crate) fn keep(&self, title: &Title, production: Production) {
        let Some(shared) = &self.shared else { return };
        if let Some(disk) = shared.disk.get() {
            let (shared, disk) = (Arc::clone(shared), Arc::clone(disk));
            let keeper = Keeper::new(shared, disk, title.clone(), production);
            tokio::spawn(keeper.run().instrument(Span::current()));
        }
    }
}

/// What there is beyond `have` segments.
fn read(
    disk: &Disk,
    reader: Reader,
    lineage: Lineage,
    names: HlsOutput,
    have: usize,
) -> io::Result<Option<Kept>> {
    let folder = disk.folder(reader.id)?;
    let log = Log::read(&folder, &names)?;
    if log.len() <= have {
        return Ok(None);
    }
    // Without it no segment can be played.
    if let Some(init) = names.init_name()
        && statat(&folder, init, AtFlags::SYMLINK_NOFOLLOW)?.st_size == 0
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    disk.touch(reader.id)?;
    let segments = log.segments().clone();
    let stage = Stage { segments, progress: log.progress(), ..Stage::default() };
    let (_closed, stage) = watch::channel(stage);
    let production = Production { stream: None, lineage, folder: Arc::new(folder), names, stage };
    Ok(Some(Kept { production, states: Arc::new((log, reader)) }))
}

/// Removes what was kept while that was wanted.
async fn clear(directory: PathBuf) {
    let cleared = spawn_blocking(move || Disk::clear(&directory)).await;
    match cleared.map_err(io::Error::other).flatten() {
        Ok(0) => {}
        Ok(titles) => info!(titles, "nothing is to be kept: removed what was"),
        Err(error) => warn!(%error, "can't remove what was kept"),
    }
}

/// Takes the folder, and sees to what is in it until the gateway ends.
async fn tend(shared: Arc<Shared>, directory: PathBuf) {
    let disk = match take(&shared, &directory).await {
        Ok(disk) => Arc::new(disk),
        Err(error) => {
            let directory = directory.display();
            warn!(%directory, %error, "no segments are kept (cache.directory, cache.megabytes)");
            return;
        }
    };
    let _ = shared.disk.set(Arc::clone(&disk));
    let (bytes, titles) = shared.size();
    info!(
        directory = %disk.root().display(),
        titles,
        megabytes = bytes / 1_000_000,
        of = shared.most / 1_000_000,
        "finished segments are kept"
    );
    let mut ticks = interval(TIDY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.untidy.notified() => {}
        }
        let (shared, disk) = (Arc::clone(&shared), Arc::clone(&disk));
        // What can't be asked can't be known to be full.
        let _ = spawn_blocking(move || shared.make_room(&disk, 0)).await;
    }
}

async fn take(shared: &Arc<Shared>, directory: &Path) -> io::Result<Disk> {
    let mut waits = false;
    loop {
        let path = directory.to_owned();
        let taken = spawn_blocking(move || {
            let Some(disk) = Disk::take(&path)? else { return Ok(None) };
            disk.scan().map(|found| Some((disk, found)))
        });
        if let Some((disk, found)) = taken.await.map_err(io::Error::other).flatten()? {
            for Found { id, title, bytes, used } in found {
                shared.lock().restore(id, title, bytes, used);
            }
            shared.tell();
            return Ok(disk);
        }
        if !std::mem::replace(&mut waits, true) {
            let directory = directory.display();
            info!(%directory, "another gateway has the kept segments: waits until it has ended");
        }
        sleep(LOCK_EVERY).await;
    }
}
