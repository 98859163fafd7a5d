//! A viewer of what another viewer's worker produces ([`crate::sharing`]), or of what is kept of one who has
//! left ([`crate::cache`]).
//!
//! Segments are copied as they become complete, under the viewer's own names; nothing is decoded or
//! encoded for them. When the producer breaks off, or is paused and this viewer would soon wait for
//! it, the stream goes on with a worker of its own behind the last segment that was copied.
//!
//! What is kept is there at once, but no use to a viewer who may soon leave: as far ahead of him as Jellyfin
//! lets an ffmpeg get, it is copied at the pace of an ffmpeg, and not at all while he has paused. Its disk may
//! hang at any moment: then the copy is abandoned, and the stream goes on with a worker.
//!
//! Invariant: whatever becomes of the producer, the hook hears no more of it than that the stream goes
//! on.

mod progress;

use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use hls::{Room, Share};
use progress::in_hand;
use session::{Control, Ending, GatewayToHook, HookToGateway, PROTOCOL, Progress, Writer};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{info, warn};

use crate::cache::{Kept, Opened};
use crate::config::duration;
use crate::connection::Connection;
use crate::ending::{let_go, tell};
use crate::first_message::Job;
use crate::gateway::{Context, Phase};
use crate::room;
use crate::sharing::{Joined, Lineage, Offer, Production, Segments, Stage};
use crate::streams::{Entry, State};
use crate::taking::{note, wait_for};

/// Least time between two reports while there is still more to be copied.
const REPORT: Duration = Duration::from_millis(500);
/// Time between two looks at whether the viewer has enough in hand.
const LOOK: Duration = Duration::from_secs(1);
/// How far ahead of its viewer what is kept is copied at once: as far as Jellyfin's throttling lets an ffmpeg
/// get.
const AHEAD: Duration = Duration::from_secs(180);
/// And how fast beyond that, in times of playing: where he is is a guess, and one who plays at double speed or has
/// leapt mustn't be left to wait. Jellyfin pauses what it knows to be too far ahead.
const PACE: f64 = 4.0;
/// How long one copy of what is kept may take, not counting what it waits for room. A segment is some megabytes,
/// and a viewer has mostly more in hand than this.
const COPY_LIMIT: Duration = Duration::from_secs(2);
/// Marks temporary files: no worker has this number.
const NO_WORKER: u32 = 0;

/// A stream that has begun by following.
#[derive(Debug)]
struct Follower<'a> {
    context: &'a Context,
    entry: &'a Entry,
    hook: &'a mut Connection,
    job: &'a mut Job,
    /// What he follows is kept.
    kept: Option<Kept>,
    /// It has turned out to be broken, and is kept no longer.
    broken: bool,
    arrived: Instant,
    /// What was copied so far.
    segments: &'a mut Segments,
    /// Their length, s.
    copied: f64,
    /// When the last of them was copied.
    latest: Instant,
    /// When the hook was last told how far the stream is.
    told: Option<Instant>,
    /// For the copies, and whether it is waited for.
    room: Arc<Room>,
    no_room: watch::Receiver<bool>,
}

/// Whether more of what is kept is copied now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    No,
    /// There is enough for the moment.
    Until(Instant),
    /// Jellyfin has paused the stream.
    Paused,
}

/// How following has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// So has the stream; the word for log and counter.
    Over(&'static str),
    /// The next gateway goes on with the stream.
    Moved,
    /// The producer is no more. Somebody else may be.
    Bereft,
    /// The stream is better off without the producer, who is still there.
    Alone,
}

impl Follower<'_> {
    /// Follows a production for as long as that is best.
    async fn follow(&mut self, mut production: Production) -> Left {
        let share = match self.share(&production) {
            Ok(share) => Arc::new(share),
            Err(error) => {
                warn!(%error, "can't follow");
                return Left::Alone;
            }
        };
        let description = match production.stream {
            Some(stream) => format!("the segments of {stream}"),
            None => "kept segments".to_owned(),
        };
        info!(description, "takes what is there");
        self.entry.with(|record| record.follow(production.stream, description.clone()));
        // Whose end is that of the connection, which the hook sees.
        let writer = Writer { stream: self.entry.id(), pid: NO_WORKER };
        let _ = self.hook.queue(&GatewayToHook::Writer { writer }, Vec::new());
        let left = self.run(&share, &mut production, &description).await;
        self.entry.with(|record| record.follow_no_more());
        match left {
            Left::Over(how) => {
                self.job.output.remove_placeholder().await;
                self.log_end(how);
            }
            Left::Moved => self.log_end("moved"),
            Left::Bereft => info!(description, "that is all there is of it"),
            Left::Alone => info!(description, "there is no getting on with that"),
        }
        left
    }

    fn log_end(&self, how: &'static str) {
        info!(how, segments = self.segments.len(), "ended");
        self.context.metrics.stream_ended(how);
        self.entry.ended(how, None);
    }

    /// Whether the next gateway could go on with it now.
    fn may_move(&self) -> bool {
        self.job.reconnects && self.segments.latest().is_some_and(|last| last.state.is_some())
    }

    fn share(&self, production: &Production) -> io::Result<Share> {
        let names = self.job.transcode.output.hls().ok_or(io::ErrorKind::Unsupported)?;
        let theirs = (production.folder.try_clone()?, production.names.clone());
        let ours = (self.job.output.folder().try_clone()?, names.clone());
        let mut share = Share::new(theirs, ours, self.entry.id().writer_tag(NO_WORKER));
        share.be_patient(self.room.clone());
        Ok(share)
    }

    async fn run(
        &mut self,
        share: &Arc<Share>,
        production: &mut Production,
        description: &str,
    ) -> Left {
        let mut quitting = self.context.phase.clone();
        let mut moving = quitting.clone();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut over = self.kept.is_some();
        loop {
            let rest = self.rest();
            let waits = rest != Rest::No;
            let behind = match waits {
                true => true,
                false => match self.take(share, production, description, over).await {
                    Break(left) => return left,
                    Continue(behind) => behind,
                },
            };
            if over && !behind {
                return Left::Bereft;
            }
            let step = tokio::select! {
                biased;
                message = self.hook.receive::<HookToGateway>() => match message {
                    Ok(Some(received)) => self.hear(received.message).await,
                    Ok(None) | Err(_) => Break(Left::Over("hook_gone")),
                },
                () = wait_for(&mut moving, Phase::Moving), if self.may_move() => {
                    Break(self.let_go().await)
                }
                () = wait_for(&mut quitting, Phase::Quitting) => Break(self.quit().await),
                // A late viewer has many to copy; between two of them he may have something to say.
                () = std::future::ready(()), if behind && !waits => Continue(()),
                changed = production.stage.changed(), if !over => {
                    // What was said last is still to be heard.
                    over = changed.is_err();
                    Continue(())
                }
                () = sleep_until(match rest {
                    Rest::Until(then) => then,
                    Rest::No | Rest::Paused => Instant::now(),
                }), if matches!(rest, Rest::Until(_)) => Continue(()),
                _ = looks.tick() => self.look(production),
            };
            if let Break(left) = step {
                return left;
            }
        }
    }

    /// Whether more of what is kept would be too much. He waits where the next gateway could go on.
    fn rest(&self) -> Rest {
        let latest = self.segments.latest().filter(|latest| latest.state.is_some());
        let (Some(_), Some(latest)) = (&self.kept, latest) else { return Rest::No };
        let (paused, far) =
            self.entry.with(|record| (record.state == State::Paused, record.lead() >= AHEAD));
        let pause = Duration::try_from_secs_f64(latest.seconds() / PACE).unwrap_or_default();
        let then = self.latest + pause;
        match paused {
            true => Rest::Paused,
            false if far && Instant::now() < then => Rest::Until(then),
            false => Rest::No,
        }
    }

    /// Takes over the next segment; whether there are more. `over`: nothing is produced any more.
    async fn take(
        &mut self,
        share: &Arc<Share>,
        production: &mut Production,
        description: &str,
        over: bool,
    ) -> ControlFlow<Left, bool> {
        let (new, progress, complete, count) = {
            let stage: &Stage = &production.stage.borrow_and_update();
            let new = stage.segments.get(self.segments.len());
            // Of a producer whose viewer left behind the last segment nothing is missing.
            let complete = stage.complete || over && stage.segments.ended();
            (new, stage.progress, complete, stage.segments.len())
        };
        if let Some(mut segment) = new {
            let number = production.names.start_number + self.segments.len() as u64;
            if self.segments.is_empty() {
                // Jellyfin deletes what its viewer has watched.
                if let Err(error) = self.copy(share, move |share| share.look_for(number)).await? {
                    info!(%error, number, "the first segment is gone");
                    self.failed(&error);
                    return Break(Left::Alone);
                }
                let backend = "shared".to_owned();
                let description = description.to_owned();
                self.tell(&GatewayToHook::Running { backend, description })?;
            }
            let index = self.segments.len();
            let kept = self.kept.clone();
            let copy = move |share: &Share| {
                if index == 0 {
                    share.init()?;
                }
                let state = kept.map(|kept| kept.state(index)).transpose()?;
                share.segment(number).map(|_| state)
            };
            match self.copy(share, copy).await? {
                Ok(Some(state)) => segment.state = state,
                Ok(None) => {}
                Err(error) => {
                    // Its viewer has gone, most likely, and Jellyfin tidies up.
                    warn!(%error, number, "can't take over a segment");
                    self.failed(&error);
                    return Break(Left::Alone);
                }
            }
            if self.segments.is_empty() {
                // Only now: as long as nothing is committed the hook may run the real ffmpeg, should the copy
                // have failed and there be no room for a worker. It may find an init file then, or a
                // segment if the gateway is lost at this very moment, and writes over them: nobody has
                // been served the first segment before there is a second, or its placeholder.
                self.tell(&GatewayToHook::Committed)?;
                if self.kept.is_some() {
                    self.context.cache.met(true);
                }
            }
            self.latest = Instant::now();
            self.copied += segment.seconds();
            self.segments.push(segment.clone());
            self.entry.may_move(self.may_move());
            self.job.output.segment_complete(number);
            if self.entry.with(|record| record.segment_complete()) {
                let took = self.arrived.elapsed();
                self.entry.with(|record| record.first_segment = Some(took));
                self.context.metrics.first_segment(took.as_secs_f64());
                info!(number, ms = took.as_millis(), "first segment");
            }
            self.tell(&GatewayToHook::SegmentComplete { number, complete: segment.into() })?;
        }
        let behind = self.segments.len() < count;
        if !self.segments.is_empty() {
            let elapsed_us = u64::try_from(self.arrived.elapsed().as_micros()).unwrap_or(u64::MAX);
            // Of the end there is more than segments.
            let copied = match complete && !behind {
                true => Duration::MAX,
                false => Duration::try_from_secs_f64(self.copied).unwrap_or_default(),
            };
            let theirs = Progress { elapsed_us, ..progress };
            let progress = self.entry.with(|record| {
                let progress = in_hand(theirs, copied, record.progress);
                record.progress(progress);
                progress
            });
            let due = !behind || self.told.is_none_or(|told| told.elapsed() >= REPORT);
            if due && self.hook.is_flushed() {
                self.told = Some(Instant::now());
                self.tell(&GatewayToHook::Progress(progress))?;
            }
        }
        if behind || !complete {
            return Continue(behind);
        }
        // Jellyfin makes its own; this one is for people.
        match self.copy(share, Share::playlist).await {
            Continue(Err(error)) => warn!(%error, "can't take over the playlist"),
            Continue(Ok(())) | Break(Left::Alone) => {}
            Break(left) => return Break(left),
        }
        Break(self.end(Ending::Complete, "complete").await)
    }

    /// It couldn't be copied.
    fn failed(&mut self, error: &io::Error) {
        self.broken = self.kept.as_ref().is_some_and(|kept| kept.failed(error));
    }

    /// Copies on a thread of its own, which may have to wait for room. Whoever quits meanwhile is heard; what
    /// isn't whole by then is removed.
    async fn copy<T: Send + 'static>(
        &mut self,
        share: &Arc<Share>,
        copy: impl FnOnce(&Share) -> io::Result<T> + Send + 'static,
    ) -> ControlFlow<Left, io::Result<T>> {
        let theirs = Arc::clone(share);
        let mut copying = spawn_blocking(move || copy(&theirs));
        let mut quitting = self.context.phase.clone();
        let mut moving = quitting.clone();
        let mut limit = Instant::now() + COPY_LIMIT;
        loop {
            let waits = *self.no_room.borrow();
            let message = tokio::select! {
                biased;
                done = &mut copying => {
                    self.note_room()?;
                    return Continue(done.map_err(io::Error::other).flatten());
                }
                // The sender is in the room, as long as that is here.
                Ok(()) = self.no_room.changed() => {
                    self.note_room()?;
                    limit = Instant::now() + COPY_LIMIT;
                    continue;
                }
                message = self.hook.receive::<HookToGateway>() => {
                    message.ok().flatten().map(|received| received.message)
                }
                () = wait_for(&mut moving, Phase::Moving), if self.may_move() => {
                    self.abandon(share, copying, COPY_LIMIT).await;
                    return Break(self.let_go().await);
                }
                () = wait_for(&mut quitting, Phase::Quitting) => {
                    Some(HookToGateway::Control(Control::Quit))
                }
                () = sleep_until(limit), if self.kept.is_some() && !waits => {
                    warn!(limit = ?COPY_LIMIT, "what is kept can't be copied in time");
                    self.abandon(share, copying, Duration::ZERO).await;
                    return Break(Left::Alone);
                }
            };
            let stays = [Control::Pause, Control::Resume].map(HookToGateway::Control);
            if !message.as_ref().is_some_and(|message| stays.contains(message)) {
                // Half a copy is gone before anybody hears of the end.
                self.abandon(share, copying, COPY_LIMIT).await;
                return match message {
                    Some(message) => self
                        .hear(message)
                        .await
                        .map_continue(|()| Err(io::ErrorKind::Interrupted.into())),
                    None => Break(Left::Over("hook_gone")),
                };
            }
            if let Some(message) = message {
                self.hear(message).await?;
            }
        }
    }

    /// Nothing of a copy appears any more. One of what is kept may hang, and is waited for so long at most.
    async fn abandon<T>(&self, share: &Share, copying: JoinHandle<T>, limit: Duration) {
        share.abandon();
        self.room.leave(true);
        match self.kept {
            Some(_) => drop(timeout(limit, copying).await),
            None => drop(copying.await),
        }
        self.job.output.sweep(self.entry.id().writer_tag(NO_WORKER)).await;
    }

    fn note_room(&mut self) -> ControlFlow<Left> {
        let waiting = *self.no_room.borrow_and_update();
        match room::note(self.entry, waiting) {
            Some(line) => self.tell(&GatewayToHook::Log { line }),
            None => Continue(()),
        }
    }

    fn tell(&mut self, message: &GatewayToHook) -> ControlFlow<Left> {
        match self.hook.queue(message, Vec::new()) {
            Ok(()) => Continue(()),
            Err(_) => Break(Left::Over("hook_gone")),
        }
    }

    async fn hear(&mut self, message: HookToGateway) -> ControlFlow<Left> {
        let HookToGateway::Control(control) = message else {
            self.context.metrics.bad_connection("second_job");
            return Break(Left::Over("hook_gone"));
        };
        match control {
            Control::Quit => return Break(self.quit().await),
            // Nothing of its own runs; the viewer's lead is what counts.
            Control::Pause | Control::Resume => note(self.entry, control),
        }
        Continue(())
    }

    /// Leaves the stream to the next gateway.
    async fn let_go(&mut self) -> Left {
        self.entry.with(|record| record.state = State::Ending);
        let_go(self.hook).await;
        Left::Moved
    }

    /// What there is is whole already.
    async fn quit(&mut self) -> Left {
        self.end(Ending::Quit, "quit").await
    }

    async fn end(&mut self, ending: Ending, how: &'static str) -> Left {
        self.entry.with(|record| record.state = State::Ending);
        self.job.output.remove_placeholder().await;
        tell(self.hook, ending).await;
        Left::Over(how)
    }

    /// A producer whose viewer has paused it is of no use to one who would wait for it, be it for the
    /// very first segment. One who is paused himself doesn't wait.
    fn look(&mut self, production: &Production) -> ControlFlow<Left> {
        let needed = duration(self.context.config.schedule.needed_lead_seconds);
        let (lead, waits) =
            self.entry.with(|record| (record.lead(), record.state != State::Paused));
        if production.stage.borrow().paused && lead < needed && waits {
            return Break(Left::Alone);
        }
        Continue(())
    }
}

/// How a stream begins that has, or will have, a worker of its own.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    /// Others may follow it.
    pub offer: Option<Offer>,
    /// What is known of the segments that are there already, from the output's first on.
    pub segments: Segments,
    /// What they go back to.
    lineage: Option<Lineage>,
    /// The hook has been told that the stream is taken.
    pub accepted: bool,
}

/// Follows whoever produces the same, for as long as that is best. `None` if the stream is over then.
pub(crate) async fn begin(
    context: &Context,
    entry: &Entry,
    hook: &mut Connection,
    job: &mut Job,
    arrived: Instant,
) -> Option<Begun> {
    let mut begun = Begun::default();
    let names = job.transcode.output.hls().cloned();
    let (true, Some(title), Some(names)) = (context.config.streams.share, job.title.take(), names)
    else {
        return Some(begun);
    };
    let folder = Arc::clone(job.output.folder());
    // What is kept couldn't be read: it is made anew.
    let mut distrusts = false;
    // But what may be good all the same isn't to be replaced by it.
    let mut keeps = true;
    loop {
        let kept = match distrusts {
            true => None,
            false => {
                let have = begun.segments.len();
                match context.cache.open(&title, &names, have, begun.lineage).await {
                    Opened::Kept(kept) => Some(*kept),
                    Opened::Nothing => None,
                    Opened::Unknown => {
                        keeps = false;
                        None
                    }
                }
            }
        };
        let is_kept = kept.is_some();
        let is_new = begun.segments.is_empty();
        let production = match &kept {
            Some(kept) => kept.production.clone(),
            None => {
                let segments = (begun.segments.clone(), begun.lineage);
                match context.sharing.join(&title, entry.id(), &folder, &names, segments) {
                    Joined::Offer(offer, production) => {
                        if is_new {
                            context.cache.met(false);
                        }
                        if keeps {
                            context.cache.keep(&title, production);
                        }
                        begun.offer = Some(offer);
                        return Some(begun);
                    }
                    Joined::Production(production) => production,
                }
            }
        };
        if !std::mem::replace(&mut begun.accepted, true) {
            let accepted = GatewayToHook::Accepted { stream: entry.id(), protocol: PROTOCOL };
            // Whoever listens to the hook next notices if it is gone.
            let _ = hook.queue(&accepted, Vec::new());
        }
        if !is_new && begun.lineage != Some(production.lineage) {
            // Begun anew by somebody else, and it wouldn't fit.
            return Some(begun);
        }
        begun.lineage = Some(production.lineage);
        let segments = &mut begun.segments;
        let copied = segments.each().map(|segment| segment.seconds()).sum();
        let (room, no_room) = room::for_copies();
        let mut follower = Follower {
            context,
            entry,
            hook,
            job,
            kept,
            broken: false,
            arrived,
            segments,
            copied,
            latest: Instant::now(),
            told: None,
            room,
            no_room,
        };
        let left = follower.follow(production).await;
        let broken = follower.broken;
        if let Some(kept) = follower.kept.take() {
            // Closing files of a disk that hangs may, too.
            spawn_blocking(move || drop(kept));
        }
        if begun.segments.is_empty() {
            // Whoever begins goes back to nobody.
            begun.lineage = None;
        }
        match left {
            Left::Over(_) | Left::Moved => return None,
            Left::Alone if is_kept => {
                distrusts = true;
                keeps &= broken;
            }
            Left::Alone => return Some(begun),
            Left::Bereft => {}
        }
    }
}
