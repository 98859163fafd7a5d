//! One stream: a hook on one side, a worker on the other, messages in between.
//!
//! ```text
//! job ─▶ worker taken ─▶ Start, Accepted ─▶ relay ─┬─ worker says Ended ──────▶ hook told
//!            ▲                                    ├─ worker lost, hung ──────▶ another one, if it may help
//!            └────────────── `survival` ◀─────────┘                            else hook told: failed
//!                                                 ├─ hook dies ──────────────▶ worker ended
//!                                                 └─ gateway shuts down ─────▶ both; hook told to go on
//!                                                                              with the next, if it can
//! ```
//!
//! At every ending the empty next segment goes first (see [`crate::output`]), before the hook can
//! exit: its exit is what makes Jellyfin serve whatever file exists.
//!
//! Invariants:
//! - The worker is ended and reaped, and its half-written files are gone, before another one gets the
//!   stream or it leaves the table.
//! - A hook that was told `Accepted` is told `Ended` or `LetGo`, unless it or the gateway dies.

mod end;
mod start;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use gpu::{Engine, Reason, Work};
use session::{
    Control, Ending, Fault, GatewayToHook, GatewayToWorker, HookToGateway, PROTOCOL,
    WorkerToGateway,
};
pub(crate) use start::start;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::admission::Verdict;
use crate::config::{Streams as Limits, duration};
use crate::connection::{Connection, ConnectionError};
use crate::ending::{Outcome, tell};
use crate::first_message::{Declined, Job};
use crate::gateway::{Context, Phase};
use crate::gpus::Allowance;
use crate::room;
use crate::sharing::Offer;
use crate::streams::{Entry, State};
use crate::survival::{Survival, Told};
use crate::taking::{Waited, note, step_aside, take, wait_for, wait_for_gpu};
use crate::worker::Worker;

/// A stream with both its ends.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    context: &'a Context,
    limits: &'a Limits,
    entry: Entry,
    hook: Connection,
    /// `None` while another one is waited for.
    worker: Option<Worker>,
    job: Job,
    allowance: Allowance,
    arrived: Instant,
    /// When the worker got it.
    began: Instant,
    /// When it is too late, and for what.
    deadline: Option<(Instant, Late)>,
    /// What had been decoded and written when last heard of, to see whether it moves.
    decoded: u64,
    frames: u64,
    /// Where another worker could go on, and whether it may.
    survival: Survival,
    /// What the hook knows.
    told: Told,
    /// Others follow it by this.
    offer: Option<Offer>,
    /// There was no room for it: it is left to the hook's ffmpeg.
    declined: Option<Declined>,
}

/// What a worker is too late for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    Running,
    Moving,
    End,
}

impl Late {
    fn words(self) -> &'static str {
        match self {
            Self::Running => "didn't run its graph in time",
            Self::Moving => "stood still for too long",
            Self::End => "didn't end in time after quit",
        }
    }
}

fn hear_gpu_time(
    context: &Context,
    entry: &Entry,
    engines: BTreeMap<String, Engine>,
    withheld: bool,
) {
    let (gained, node) = entry.with(|record| {
        (record.gpu_time.update(engines, withheld, Instant::now()), record.node.clone())
    });
    if let Some(node) = node {
        context.metrics.engine_time(&node.display().to_string(), &gained);
    }
}

/// The worker's next message. One that isn't there says nothing any more.
async fn hear(worker: &mut Option<Worker>) -> Result<Option<WorkerToGateway>, ConnectionError> {
    match worker {
        Some(worker) => worker.receive().await,
        None => Ok(None),
    }
}

impl Stream<'_> {
    /// Runs the stream to its end, by as many workers as it takes.
    pub(crate) async fn run(mut self) {
        let accepted = GatewayToHook::Accepted { stream: self.entry.id(), protocol: PROTOCOL };
        let wait_ms = self.arrived.elapsed().as_millis();
        info!(worker = self.worker.as_ref().map(Worker::pid), wait_ms, "accepted");
        let queued = match self.told.accepts() {
            true => self.hook.queue(&accepted, Vec::new()),
            false => Ok(()),
        };
        let mut outcome = match queued {
            Ok(()) => self.relay().await,
            Err(error) => Outcome::HookGone(error.to_string()),
        };
        loop {
            let remains = self.clear_away(&outcome).await;
            let reason = outcome.why(remains.last.as_ref(), &remains.death);
            let loss = outcome.loss(remains.last.as_ref());
            if loss.is_some()
                && let Some(ending) = self.survival.ending()
            {
                warn!(lost = reason, "all is written");
                tell(&mut self.hook, ending.clone()).await;
                return self.finish(Outcome::Ended(ending), remains).await;
            }
            loss.iter().for_each(|loss| self.context.metrics.worker_restarted(loss));
            // One that can't be killed may still write.
            let reaped = remains.death.is_reaped();
            let stops = *self.context.phase.borrow() > Phase::Running;
            if matches!(outcome, Outcome::Moved) || loss.is_some() && stops && self.may_move() {
                return self.let_go().await;
            }
            if loss.is_none() || !reaped || !self.survival.may_go_on(self.told.segments()) {
                return self.finish(outcome, remains).await;
            }
            if let Err(ended) = self.go_on(&reason).await {
                let stops = *self.context.phase.borrow() > Phase::Running;
                if matches!(ended, Waited::Declined(_)) && stops && self.may_move() {
                    return self.let_go().await;
                }
                return self.end_without_worker(ended, outcome, remains).await;
            }
            outcome = self.relay().await;
        }
    }

    /// Gives the stream to another worker.
    async fn go_on(&mut self, lost: &str) -> Result<(), Waited> {
        self.told.elapsed_stands();
        (self.decoded, self.frames) = (0, 0);
        let Self { context, entry, hook, job, survival, .. } = self;
        wait_for_gpu(context, entry, hook, job, survival).await?;
        let until = Instant::now() + duration(context.config.streams.accept_seconds);
        let (worker, allowance) = take(context, entry, hook, job, survival, until).await?;
        let next = self.survival.next();
        let on = match allowance.devices.first() {
            Some(device) => device.node.display().to_string(),
            None => "software".into(),
        };
        warn!(lost, next, on, worker = worker.pid(), "another worker goes on");
        let line = format!("rendergate: {lost}; another worker goes on at segment {next} ({on})");
        // A hook that is gone is noticed by whoever listens to it.
        let _ = self.hook.queue(&GatewayToHook::Log { line }, Vec::new());
        self.worker = Some(worker);
        self.allowance = allowance;
        self.began = Instant::now();
        let running = self.began + duration(self.limits.running_seconds);
        self.deadline = Some((running, Late::Running));
        // It hasn't met a full disk yet.
        self.entry.with(|record| record.no_room = false);
        self.tell_bars();
        Ok(())
    }

    /// A worker that begins doesn't know what holds the stream.
    fn tell_bars(&mut self) {
        let (paused, horizon) =
            self.entry.with(|record| (record.state == State::Paused, record.horizon()));
        let horizon = *horizon.borrow();
        // Whoever follows may have missed it while there was no worker to be paused.
        if let Some(offer) = &self.offer {
            offer.paused(paused);
        }
        // A worker that doesn't take it has ended, which is noticed next.
        if paused {
            let _ = self.tell_worker(&GatewayToWorker::Control(Control::Pause));
        }
        if horizon.is_some() {
            let _ = self.tell_horizon(horizon);
        }
    }

    async fn relay(&mut self) -> Outcome {
        let mut quitting = self.context.phase.clone();
        let mut aborting = quitting.clone();
        let mut moving = quitting.clone();
        let mut quit_passed_on = false;
        let mut horizon = self.entry.with(|record| record.horizon());
        loop {
            let late = self.deadline.map(|(at, _)| at);
            let step = tokio::select! {
                biased;
                message = hear(&mut self.worker) => match message {
                    Ok(Some(message)) => self.hear_worker(message),
                    Ok(None) => Err(Outcome::WorkerLost(String::new())),
                    Err(ConnectionError::Io(_)) => Err(Outcome::WorkerLost(String::new())),
                    Err(error) => Err(Outcome::WorkerLost(error.to_string())),
                },
                message = self.hook.receive::<HookToGateway>() => match message {
                    Ok(Some(received)) => self.hear_hook(received.message),
                    Ok(None) => Err(Outcome::HookGone("it closed the connection".into())),
                    Err(error) => {
                        if !matches!(error, ConnectionError::Io(_)) {
                            self.context.metrics.bad_connection(error.label());
                        }
                        Err(Outcome::HookGone(error.to_string()))
                    }
                },
                // The sender is in the table as long as the entry is.
                Ok(()) = horizon.changed() => {
                    let position = *horizon.borrow_and_update();
                    self.tell_horizon(position)
                }
                // Also of a gateway that is to end at once: there is nothing quicker.
                () = wait_for(&mut moving, Phase::Moving), if self.may_move() => Err(Outcome::Moved),
                () = wait_for(&mut aborting, Phase::Aborting) => Err(Outcome::Aborted),
                () = wait_for(&mut quitting, Phase::Quitting), if !quit_passed_on => {
                    quit_passed_on = true;
                    info!("the gateway shuts down: asking for the last segment");
                    self.hear_hook(HookToGateway::Control(Control::Quit))
                }
                () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {
                    let what = self.deadline.take().map_or("", |(_, late)| late.words());
                    Err(Outcome::WorkerHung(what.into()))
                }
            };
            if let Err(outcome) = step {
                return outcome;
            }
        }
    }

    /// Whether the next gateway could go on with it now. Before anything is written the hook runs the real
    /// ffmpeg.
    fn may_move(&self) -> bool {
        self.job.reconnects && self.told.has_committed() && self.survival.may_move()
    }

    /// From now on the worker has so long.
    fn expect_movement(&mut self) {
        let at = Instant::now() + duration(self.limits.stall_seconds);
        self.deadline = Some((at, Late::Moving));
    }

    fn it_moves(&mut self) {
        if self.deadline.is_some_and(|(_, late)| late == Late::Moving) {
            self.expect_movement();
        }
    }

    /// For its input, which can't be too late.
    fn it_waits(&mut self) {
        match self.deadline {
            Some((_, Late::Running)) => {
                let at = Instant::now() + duration(self.limits.running_seconds);
                self.deadline = Some((at, Late::Running));
            }
            _ => self.it_moves(),
        }
    }

    fn hear_hook(&mut self, message: HookToGateway) -> Result<(), Outcome> {
        let HookToGateway::Control(control) = message else {
            self.context.metrics.bad_connection("second_job");
            return Err(Outcome::HookGone("it sent a second job".into()));
        };
        match control {
            Control::Quit => {
                // Nobody wants what another worker would write.
                self.survival.quits();
                self.entry.may_move(false);
                // The last segment is cut short, for this viewer alone.
                self.offer = None;
                let at = Instant::now() + duration(self.limits.quit_seconds);
                self.deadline = Some((at, Late::End));
            }
            Control::Pause => {
                note(&self.entry, control);
                self.deadline = self.deadline.filter(|(_, late)| *late != Late::Moving);
            }
            Control::Resume => {
                note(&self.entry, control);
                if self.deadline.is_none() {
                    self.expect_movement();
                }
            }
        }
        if let Some(offer) = &self.offer {
            offer.paused(control == Control::Pause);
        }
        self.tell_worker(&GatewayToWorker::Control(control))
    }

    fn tell_horizon(&mut self, position: Option<Duration>) -> Result<(), Outcome> {
        let micros = |position: Duration| u64::try_from(position.as_micros()).unwrap_or(u64::MAX);
        let message = GatewayToWorker::Horizon { position_us: position.map(micros) };
        self.tell_worker(&message)
    }

    fn tell_worker(&mut self, message: &GatewayToWorker) -> Result<(), Outcome> {
        let Some(worker) = &mut self.worker else { return Ok(()) };
        worker
            .connection
            .queue(message, Vec::new())
            // It may have said its last words: they are read next, or its end is.
            .or_else(|error| match error {
                ConnectionError::Stuck(_) => Err(Outcome::WorkerHung(error.to_string())),
                _ => Ok(()),
            })
    }

    fn hear_worker(&mut self, message: WorkerToGateway) -> Result<(), Outcome> {
        let pass_on = match message {
            WorkerToGateway::Ready { .. } => {
                return Err(Outcome::WorkerLost("said ready twice".into()));
            }
            WorkerToGateway::Sandboxed(sandbox) => {
                self.context.confinement.hear(&sandbox, &self.entry, &self.context.metrics);
                return Ok(());
            }
            WorkerToGateway::Running { backend, node, reason, source, description } => {
                self.entry.with(|record| record.source = source);
                let message = self.hear_running(backend, node, reason, description);
                if !self.told.runs() {
                    return Ok(());
                }
                message
            }
            WorkerToGateway::Alive { decoded, waiting } => {
                self.entry.with(|record| record.waits = waiting);
                if waiting {
                    self.it_waits();
                } else if std::mem::replace(&mut self.decoded, decoded) != decoded {
                    self.it_moves();
                }
                return Ok(());
            }
            WorkerToGateway::Room { waiting } => match room::note(&self.entry, waiting) {
                Some(line) => GatewayToHook::Log { line },
                None => return Ok(()),
            },
            WorkerToGateway::GpuTime { engines, withheld } => {
                hear_gpu_time(self.context, &self.entry, engines, withheld);
                return Ok(());
            }
            WorkerToGateway::CpuTime { cpu_us } => {
                self.context.admission.cpu(&self.entry, cpu_us);
                return Ok(());
            }
            WorkerToGateway::Options { options } => return self.admit(options),
            WorkerToGateway::Committed => {
                if !self.told.commits() {
                    return Ok(());
                }
                self.entry.may_move(self.may_move());
                GatewayToHook::Committed
            }
            WorkerToGateway::SegmentComplete { number, complete } => {
                self.it_moves();
                self.survival.complete(number, complete.clone());
                self.entry.may_move(self.may_move());
                if let Some(offer) = &self.offer {
                    offer.segment_complete(number, complete.clone());
                }
                if !self.told.completes(number) {
                    // Written once more: the worker before was lost with the news of the one behind it.
                    return Ok(());
                }
                self.job.output.segment_complete(number);
                if self.entry.with(|record| record.segment_complete()) {
                    let took = self.arrived.elapsed();
                    self.entry.with(|record| record.first_segment = Some(took));
                    self.context.metrics.first_segment(took.as_secs_f64());
                    info!(number, ms = took.as_millis(), "first segment");
                }
                GatewayToHook::SegmentComplete { number, complete }
            }
            WorkerToGateway::Progress(progress) => {
                let media = progress.position_us as f64 / 1e6;
                let progress = self.told.progress(progress);
                if let Some(offer) = &self.offer {
                    offer.progress(progress);
                }
                self.entry.with(|record| record.progress(progress));
                self.context.admission.progress(&self.context.streams, &self.entry, media);
                if std::mem::replace(&mut self.frames, progress.frames) != progress.frames {
                    self.it_moves();
                }
                if !self.hook.is_flushed() {
                    // A hook that is behind needs the latest, not all.
                    return Ok(());
                }
                GatewayToHook::Progress(progress)
            }
            WorkerToGateway::Log { line } => GatewayToHook::Log { line },
            WorkerToGateway::Ended(ending) => return Err(Outcome::Ended(ending)),
        };
        self.hook.queue(&pass_on, Vec::new()).map_err(|error| Outcome::HookGone(error.to_string()))
    }

    /// The source is known: whether there is room for the stream, and on what.
    fn admit(&mut self, options: Vec<Work>) -> Result<(), Outcome> {
        let Context { admission, streams, .. } = self.context;
        match admission.admit(
            streams,
            &self.entry,
            options,
            &self.allowance.devices,
            self.told.has_committed(),
        ) {
            Ok(Verdict { option, reason }) => {
                self.allowance.reason = reason.or(self.allowance.reason.take());
                self.tell_worker(&GatewayToWorker::Run { option })
            }
            Err(reason) => {
                // Counted at the end, as that and nothing else.
                self.declined = Some(Declined::new("capacity", reason.clone()));
                step_aside(self.context, &mut self.hook);
                Err(Outcome::Ended(Ending::Failed { reason, fault: Fault::Gateway }))
            }
        }
    }

    fn hear_running(
        &mut self,
        backend: String,
        node: Option<PathBuf>,
        reason: Option<Reason>,
        description: String,
    ) -> GatewayToHook {
        // A worker that was given no GPU can't say why.
        let reason = reason.or_else(|| self.allowance.reason.clone());
        let device = node.as_ref().map(|node| tracing::field::display(node.display()));
        let text = reason.as_ref().map(|reason| reason.text.as_str());
        info!(backend, device, reason = text, description, "running");
        self.context.metrics.stream_running(&backend, reason.as_ref().map(|reason| reason.kind));
        let paused = self.entry.with(|record| record.state == State::Paused);
        if self.deadline.is_some_and(|(_, late)| late == Late::Running) {
            self.deadline = None;
            if !paused {
                self.expect_movement();
            }
        }
        self.entry.with(|record| {
            record.backend = Some(backend.clone());
            record.node = node.clone();
            record.reason = text.map(str::to_owned);
            record.reason_kind = reason.as_ref().map(|reason| reason.kind);
            record.description = Some(description.clone());
            if record.state == State::Starting {
                record.state = State::Running;
            }
        });
        let backend = match text {
            Some(text) => format!("{backend} ({text})"),
            None => backend,
        };
        GatewayToHook::Running { backend, description }
    }
}
