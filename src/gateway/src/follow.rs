//! A viewer of what another viewer's worker produces ([`crate::sharing`]), or of what is kept of one who has
//! left ([`crate::cache`]).
//!
//! Segments are copied as they become complete, under the viewer's own names; nothing is decoded or
//! encoded for them. When the producer breaks off, or is paused and this viewer would soon wait for
//! it, the stream goes on with a worker of its own behind the last segment that was copied.
//!
//! What is kept is there at once, but no use to a viewer who may soon leave: it is copied no further ahead of
//! him than Jellyfin lets an ffmpeg get, and not while he has paused.
//!
//! Invariant: whatever becomes of the producer, the hook hears no more of it than that the stream goes
//! on.

use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use hls::{Room, Share};
use session::{Control, Ending, GatewayToHook, HookToGateway, PROTOCOL, Progress, Writer};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::cache::Kept;
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
/// How far ahead of its viewer what is kept is copied: as far as Jellyfin's throttling lets an ffmpeg get.
const AHEAD: Duration = Duration::from_secs(180);
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
    arrived: Instant,
    /// What was copied so far.
    segments: &'a mut Segments,
    /// Their length, s.
    copied: f64,
    /// When the hook was last told how far the stream is.
    told: Option<Instant>,
    /// For the copies, and whether it is waited for.
    room: Arc<Room>,
    no_room: watch::Receiver<bool>,
}

/// What of the producer's progress is in the viewer's hands, of whom so much was copied: neither what
/// isn't copied yet nor what is in the segment that is being written. Never less than he was told
/// `before`, which may have been another producer's.
fn in_hand(theirs: Progress, copied: Duration, before: Progress) -> Progress {
    let copied = u64::try_from(copied.as_micros()).unwrap_or(u64::MAX);
    let position = theirs.position_us.min(copied);
    let share = |whole: u64| {
        let part = u128::from(whole) * u128::from(position) / u128::from(theirs.position_us.max(1));
        u64::try_from(part).unwrap_or(whole)
    };
    let rest = i64::try_from(theirs.position_us - position).unwrap_or(i64::MAX);
    let source = theirs.source_us.saturating_sub(rest);
    Progress {
        frames: share(theirs.frames).max(before.frames),
        position_us: position.max(before.position_us),
        source_us: if before.frames == 0 { source } else { source.max(before.source_us) },
        bytes: share(theirs.bytes).max(before.bytes),
        elapsed_us: theirs.elapsed_us,
    }
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
            let waits = self.is_far_ahead();
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
                _ = looks.tick() => self.look(production),
            };
            if let Break(left) = step {
                return left;
            }
        }
    }

    /// Whether more of what is kept would be too much. He waits where the next gateway could go on.
    fn is_far_ahead(&self) -> bool {
        let far =
            || self.entry.with(|record| record.state == State::Paused || record.lead() >= AHEAD);
        let has_state = |segments: &Segments| segments.latest()?.state;
        self.kept.is_some() && has_state(self.segments).is_some() && far()
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
                // Jellyfin deletes what its viewer has watched. As long as nothing is committed, the hook
                // may still run the real ffmpeg, should there be no room for a worker.
                let share = Arc::clone(share);
                if let Err(error) = self.copy(move || share.look_for(number)).await? {
                    info!(%error, number, "the first segment is gone");
                    return Break(Left::Alone);
                }
                let backend = "shared".to_owned();
                let description = description.to_owned();
                self.tell(&GatewayToHook::Running { backend, description })?;
                self.tell(&GatewayToHook::Committed)?;
            }
            let index = self.segments.len();
            let (share, kept) = (Arc::clone(share), self.kept.clone());
            let copy = move || {
                if index == 0 {
                    share.init()?;
                }
                let state = kept.map(|kept| kept.state(index)).transpose()?;
                share.segment(number).map(|_| state)
            };
            match self.copy(copy).await? {
                Ok(Some(state)) => segment.state = state,
                Ok(None) => {}
                Err(error) => {
                    // Its viewer has gone, most likely, and Jellyfin tidies up.
                    warn!(%error, number, "can't take over a segment");
                    return Break(Left::Alone);
                }
            }
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
        let share = Arc::clone(share);
        if let Err(error) = self.copy(move || share.playlist()).await? {
            // Jellyfin makes its own; this one is for people.
            warn!(%error, "can't take over the playlist");
        }
        Break(self.end(Ending::Complete, "complete").await)
    }

    /// Copies on a thread of its own, which may have to wait for room. Whoever quits meanwhile is heard; what
    /// isn't whole by then is removed.
    async fn copy<T: Send + 'static>(
        &mut self,
        copy: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> ControlFlow<Left, io::Result<T>> {
        let mut copying = tokio::task::spawn_blocking(copy);
        let mut quitting = self.context.phase.clone();
        let mut moving = quitting.clone();
        loop {
            let message = tokio::select! {
                biased;
                done = &mut copying => {
                    self.note_room()?;
                    return Continue(done.map_err(io::Error::other).flatten());
                }
                // The sender is in the room, as long as that is here.
                Ok(()) = self.no_room.changed() => {
                    self.note_room()?;
                    continue;
                }
                message = self.hook.receive::<HookToGateway>() => {
                    message.ok().flatten().map(|received| received.message)
                }
                () = wait_for(&mut moving, Phase::Moving), if self.may_move() => {
                    self.room.leave(true);
                    let _ = copying.await;
                    return Break(self.let_go().await);
                }
                () = wait_for(&mut quitting, Phase::Quitting) => {
                    Some(HookToGateway::Control(Control::Quit))
                }
            };
            let stays = [Control::Pause, Control::Resume].map(HookToGateway::Control);
            if !message.as_ref().is_some_and(|message| stays.contains(message)) {
                self.room.leave(true);
                // Half a copy is gone before anybody hears of the end.
                let _ = copying.await;
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
    loop {
        let kept = match distrusts {
            true => None,
            false => context.cache.open(&title, &names, begun.segments.len(), begun.lineage).await,
        };
        let is_kept = kept.is_some();
        let is_new = begun.segments.is_empty();
        let production = match &kept {
            Some(kept) => {
                if is_new {
                    context.cache.met(true);
                }
                kept.production.clone()
            }
            None => {
                let segments = (begun.segments.clone(), begun.lineage);
                match context.sharing.join(&title, entry.id(), &folder, &names, segments) {
                    Joined::Offer(offer, production) => {
                        if is_new {
                            context.cache.met(false);
                        }
                        context.cache.keep(&title, production);
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
            arrived,
            segments,
            copied,
            told: None,
            room,
            no_room,
        };
        match follower.follow(production).await {
            Left::Over(_) | Left::Moved => return None,
            Left::Alone if is_kept => distrusts = true,
            Left::Alone => return Some(begun),
            Left::Bereft => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(frames: u64, seconds: u64) -> Progress {
        let position_us = seconds * 1_000_000;
        let source_us = position_us as i64 + 60_000_000;
        Progress { frames, position_us, source_us, bytes: frames * 10, elapsed_us: 7 }
    }

    #[test]
    fn a_viewer_is_as_far_as_what_was_copied() {
        let none = Progress::default();
        let check = |theirs, copied, before, expect| {
            assert_eq!(in_hand(theirs, Duration::from_secs(copied), before), expect);
        };
        check(progress(500, 20), 6, none, progress(150, 6));
        check(progress(500, 20), 20, none, progress(500, 20));
        check(progress(500, 20), 21, none, progress(500, 20));
        // Another producer, who isn't there yet.
        check(progress(250, 10), 12, progress(300, 12), progress(300, 12));
        check(none, 0, none, none);
        assert_eq!(in_hand(progress(500, 20), Duration::MAX, none), progress(500, 20));
    }
}
