//! A viewer of what another viewer's worker produces ([`crate::sharing`]).
//!
//! Segments are copied as they become complete, under the viewer's own names; nothing is decoded or
//! encoded for them. When the producer breaks off, or is paused and this viewer would soon wait for
//! it, the stream goes on with a worker of its own behind the last segment that was copied.
//!
//! Invariant: whatever becomes of the producer, the hook hears no more of it than that the stream goes
//! on.

use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use hls::Share;
use session::{
    Complete, Control, Ending, GatewayToHook, HookToGateway, PROTOCOL, Progress, Writer,
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::config::duration;
use crate::connection::Connection;
use crate::ending::{let_go, tell};
use crate::first_message::Job;
use crate::gateway::{Context, Phase};
use crate::sharing::{Joined, Offer, Production, Stage};
use crate::streams::{Entry, State};
use crate::taking::wait_for;

/// Time between two looks at whether the viewer has enough in hand.
const LOOK: Duration = Duration::from_secs(1);
/// Marks temporary files: no worker has this number.
const NO_WORKER: u32 = 0;

/// A stream that has begun by following.
#[derive(Debug)]
struct Follower<'a> {
    context: &'a Context,
    entry: &'a Entry,
    hook: &'a mut Connection,
    job: &'a mut Job,
    arrived: Instant,
    /// What was copied so far.
    segments: &'a mut Vec<Complete>,
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
        info!(producer = %production.stream, "takes another viewer's segments");
        self.entry.with(|record| record.follow(production.stream));
        // Whose end is that of the connection, which the hook sees.
        let writer = Writer { stream: self.entry.id(), pid: NO_WORKER };
        let _ = self.hook.queue(&GatewayToHook::Writer { writer }, Vec::new());
        let left = self.run(&share, &mut production).await;
        self.entry.with(|record| record.follow_no_more());
        match left {
            Left::Over(how) => {
                self.job.output.remove_placeholder().await;
                self.log_end(how);
            }
            Left::Moved => self.log_end("moved"),
            Left::Bereft => info!("the other viewer's stream is over: goes on by itself"),
            Left::Alone => info!("the other viewer's stream doesn't move: goes on by itself"),
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
        self.job.reconnects && self.segments.last().is_some_and(|last| last.state.is_some())
    }

    fn share(&self, production: &Production) -> io::Result<Share> {
        let names = self.job.transcode.output.hls().ok_or(io::ErrorKind::Unsupported)?;
        let theirs = (production.folder.try_clone()?, production.names.clone());
        let ours = (self.job.output.folder().try_clone()?, names.clone());
        Ok(Share::new(theirs, ours, self.entry.id().writer_tag(NO_WORKER)))
    }

    async fn run(&mut self, share: &Arc<Share>, production: &mut Production) -> Left {
        let mut quitting = self.context.phase.clone();
        let mut moving = quitting.clone();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut over = false;
        loop {
            if let Break(left) = self.take(share, production).await {
                return left;
            }
            if over {
                return Left::Bereft;
            }
            let step = tokio::select! {
                biased;
                message = self.hook.receive::<HookToGateway>() => match message {
                    Ok(Some(received)) => self.hear(received.message).await,
                    Ok(None) | Err(_) => Break(Left::Over("hook_gone")),
                },
                () = wait_for(&mut moving, Phase::Moving), if self.may_move() => {
                    self.entry.with(|record| record.state = State::Ending);
                    let_go(self.hook).await;
                    Break(Left::Moved)
                }
                () = wait_for(&mut quitting, Phase::Quitting) => self.quit().await,
                changed = production.stage.changed() => {
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

    /// Takes over what is new.
    async fn take(&mut self, share: &Arc<Share>, production: &mut Production) -> ControlFlow<Left> {
        let (new, progress, complete) = {
            let stage: &Stage = &production.stage.borrow_and_update();
            let new = stage.segments.get(self.segments.len()..).unwrap_or_default().to_vec();
            (new, stage.progress, stage.complete)
        };
        for segment in new {
            let number = production.names.start_number + self.segments.len() as u64;
            if self.segments.is_empty() {
                let backend = "shared".to_owned();
                let description = format!("the segments of {}", production.stream);
                self.tell(&GatewayToHook::Running { backend, description })?;
                self.tell(&GatewayToHook::Committed)?;
            }
            let first = self.segments.is_empty();
            let share = Arc::clone(share);
            let copied = tokio::task::spawn_blocking(move || {
                if first {
                    share.init()?;
                }
                share.segment(number)
            });
            if let Err(error) = copied.await.map_err(io::Error::other).flatten() {
                // Its viewer has gone, most likely, and Jellyfin tidies up.
                warn!(%error, number, "can't take over a segment");
                return Break(Left::Alone);
            }
            self.segments.push(segment.clone());
            self.entry.may_move(self.may_move());
            self.job.output.segment_complete(number);
            if self.entry.with(|record| record.segment_complete()) {
                let took = self.arrived.elapsed();
                self.context.metrics.first_segment(took.as_secs_f64());
                info!(number, ms = took.as_millis(), "first segment");
            }
            self.tell(&GatewayToHook::SegmentComplete { number, complete: segment })?;
        }
        if !self.segments.is_empty() && self.hook.is_flushed() {
            let elapsed_us = u64::try_from(self.arrived.elapsed().as_micros()).unwrap_or(u64::MAX);
            let progress = Progress { elapsed_us, ..progress };
            self.entry.with(|record| record.progress(progress));
            self.tell(&GatewayToHook::Progress(progress))?;
        }
        if !complete {
            return Continue(());
        }
        let share = Arc::clone(share);
        let written = tokio::task::spawn_blocking(move || share.playlist()).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            // Jellyfin makes its own; this one is for people.
            warn!(%error, "can't take over the playlist");
        }
        self.end(Ending::Complete, "complete").await
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
            Control::Quit => return self.quit().await,
            // Nothing of its own runs; the viewer's lead is what counts.
            Control::Pause => self.entry.with(|record| record.state = State::Paused),
            Control::Resume => self.entry.with(|record| record.state = State::Running),
        }
        Continue(())
    }

    /// What there is is whole already.
    async fn quit(&mut self) -> ControlFlow<Left> {
        self.end(Ending::Quit, "quit").await
    }

    async fn end(&mut self, ending: Ending, how: &'static str) -> ControlFlow<Left> {
        self.entry.with(|record| record.state = State::Ending);
        self.job.output.remove_placeholder().await;
        tell(self.hook, ending).await;
        Break(Left::Over(how))
    }

    /// A producer whose viewer has paused it is of no use to one who would wait for it.
    fn look(&mut self, production: &Production) -> ControlFlow<Left> {
        let needed = duration(self.context.config.schedule.needed_lead_seconds);
        let lead = self.entry.with(|record| record.lead());
        if production.stage.borrow().paused && lead < needed && !self.segments.is_empty() {
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
    pub segments: Vec<Complete>,
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
    loop {
        let segments = begun.segments.clone();
        match context.sharing.join(&title, entry.id(), &folder, &names, segments) {
            Joined::Offer(offer) => {
                begun.offer = Some(offer);
                return Some(begun);
            }
            Joined::Production(production) => {
                if !std::mem::replace(&mut begun.accepted, true) {
                    let accepted =
                        GatewayToHook::Accepted { stream: entry.id(), protocol: PROTOCOL };
                    // Whoever listens to the hook next notices if it is gone.
                    let _ = hook.queue(&accepted, Vec::new());
                }
                let segments = &mut begun.segments;
                let mut follower = Follower { context, entry, hook, job, arrived, segments };
                match follower.follow(production).await {
                    Left::Over(_) | Left::Moved => return None,
                    Left::Alone => return Some(begun),
                    Left::Bereft => {}
                }
            }
        }
    }
}
