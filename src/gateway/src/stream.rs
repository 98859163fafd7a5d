//! One stream: a hook on one side, a worker on the other, messages in between.
//!
//! ```text
//! job ─▶ worker taken ─▶ Start, Accepted ─▶ relay ─┬─ worker says Ended ──────▶ hook told
//!                                                 ├─ worker dies ────────────▶ hook told: failed
//!                                                 ├─ hook dies ──────────────▶ worker ended
//!                                                 └─ gateway shuts down ─────▶ both
//! ```
//!
//! At every ending the empty next segment goes first (see [`crate::output`]), before the hook can
//! exit: its exit is what makes Jellyfin serve whatever file exists.
//!
//! Invariants:
//! - The worker is ended and reaped, and its half-written files are gone, before a stream leaves
//!   the table.
//! - A hook that was told `Accepted` is told `Ended`, unless it or the gateway dies.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ffmpeg_args::VideoAction;
use gpu::{Device, Engine, Reason};
use session::{
    Control, Ending, GatewayToHook, GatewayToWorker, HookToGateway, PROTOCOL, WorkerToGateway,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::config::{Streams as Limits, duration};
use crate::connection::{Connection, ConnectionError};
use crate::ending::{LAST_MESSAGE, Outcome, conclude, tell};
use crate::first_message::{Declined, Job};
use crate::gateway::{Context, Phase};
use crate::gpus::Allowance;
use crate::streams::{Entry, State};
use crate::worker::Worker;

/// Grace for a worker whose stream is over: it closes its files and exits.
const END_GRACE: Duration = Duration::from_secs(2);
/// How long a worker that has closed its socket may take to be gone.
const LAST_MOMENT: Duration = Duration::from_millis(500);
/// Workers tried for a job, if they die as they are given it.
const START_TRIES: u32 = 3;

/// A stream with both its ends.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    context: &'a Context,
    limits: &'a Limits,
    entry: Entry,
    hook: Connection,
    worker: Worker,
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

/// Takes a worker for the job and hands it over; `None` if the stream ended before it began.
pub(crate) async fn start<'a>(
    context: &'a Context,
    entry: Entry,
    mut hook: Connection,
    job: Job,
    arrived: Instant,
) -> Option<Stream<'a>> {
    let limits = &context.config.streams;
    let video = job.transcode.video.as_ref().map(|video| &video.action);
    let encodes_video = matches!(video, Some(VideoAction::Encode(_)));
    let allowance =
        match context.gpus.allowance(encodes_video, |node| context.streams.on_node(node)) {
            Ok(allowance) => allowance,
            Err(reason) => {
                entry.ended("declined", Some(reason.clone()));
                decline(context, &mut hook, Declined::new("no_gpu", reason)).await;
                return None;
            }
        };
    let mut reason = String::new();
    for _ in 0..START_TRIES {
        let mut worker = match wait_for_worker(context, &mut hook, arrived).await {
            Ok(worker) => worker,
            Err(Waited::Declined(declined)) => {
                entry.ended("declined", Some(declined.reason.clone()));
                decline(context, &mut hook, declined).await;
                return None;
            }
            Err(Waited::Quit) => {
                // Nothing was written, and nothing is wanted.
                info!("quit before it started");
                context.metrics.stream_ended("quit");
                let accepted = GatewayToHook::Accepted { stream: entry.id(), protocol: PROTOCOL };
                let _ = hook.queue(&accepted, Vec::new());
                let _ = hook.queue(&GatewayToHook::Ended(Ending::Quit), Vec::new());
                let _ = hook.flush(LAST_MESSAGE).await;
                return None;
            }
            Err(Waited::HookGone) => {
                info!("the hook went away before a worker was free");
                context.metrics.stream_ended("hook_gone");
                return None;
            }
        };
        worker.assign(tracing::Span::current(), context.niceness);
        let proc_root = &context.config.gpu.proc_root;
        match hand_over(&mut worker, &entry, &job, &allowance, proc_root) {
            Ok(()) => {
                entry.with(|record| {
                    record.worker_pid = Some(worker.pid());
                    record.node = allowance.devices.first().map(|device| device.node.clone());
                });
                let began = Instant::now();
                let running = began + duration(limits.running_seconds);
                let deadline = Some((running, Late::Running));
                return Some(Stream {
                    context,
                    limits,
                    entry,
                    hook,
                    worker,
                    job,
                    allowance,
                    arrived,
                    began,
                    deadline,
                    decoded: 0,
                    frames: 0,
                });
            }
            Err(error) => {
                reason = error.to_string();
                let death = worker.end(Duration::ZERO).await;
                warn!(%death, error = %reason, "the worker died as it was given the stream");
                context.metrics.worker_restarted("died_at_take");
            }
        }
    }
    entry.ended("declined", Some(reason.clone()));
    decline(context, &mut hook, Declined::new("no_worker", reason)).await;
    None
}

fn hand_over(
    worker: &mut Worker,
    entry: &Entry,
    job: &Job,
    allowance: &Allowance,
    proc_root: &Path,
) -> Result<(), ConnectionError> {
    let descriptors: Vec<OwnedFd> =
        job.descriptors.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>()?;
    let start = GatewayToWorker::Start {
        stream: entry.id(),
        transcode: job.transcode.clone(),
        devices: allowance.devices.iter().map(|device| Device::clone(device)).collect(),
        software: allowance.software,
        proc_root: proc_root.to_owned(),
    };
    worker.connection.queue(&start, descriptors)
}

/// Tells a hook to run its own ffmpeg.
pub(crate) async fn decline(context: &Context, hook: &mut Connection, declined: Declined) {
    info!(reason = declined.reason, "declined");
    context.metrics.declined(declined.label);
    // A hook that doesn't hear it sees the connection close, which means the same.
    if hook.queue(&GatewayToHook::Declined { reason: declined.reason }, Vec::new()).is_ok() {
        let _ = hook.flush(LAST_MESSAGE).await;
    }
}

enum Waited {
    Declined(Declined),
    Quit,
    HookGone,
}

async fn wait_for_worker(
    context: &Context,
    hook: &mut Connection,
    arrived: Instant,
) -> Result<Worker, Waited> {
    let limit = arrived + duration(context.config.streams.accept_seconds);
    let mut phase = context.phase.clone();
    let take = context.pool.take();
    tokio::pin!(take);
    loop {
        tokio::select! {
            biased;
            taken = &mut take => {
                return taken.map_err(|reason| Waited::Declined(Declined::new("no_worker", reason)));
            }
            message = hook.receive::<HookToGateway>() => match message {
                Ok(Some(received)) => match received.message {
                    HookToGateway::Control(Control::Quit) => return Err(Waited::Quit),
                    // Nothing runs that could be paused.
                    HookToGateway::Control(_) => {}
                    HookToGateway::Job { .. } | HookToGateway::Driver { .. } => return Err(Waited::HookGone),
                },
                _ => return Err(Waited::HookGone),
            },
            () = wait_for(&mut phase, Phase::Draining) => {
                return Err(Waited::Declined(Declined::shutting_down()));
            }
            () = sleep_until(limit) => {
                let reason = match context.pool.readiness() {
                    Err(reason) => reason,
                    Ok(()) => "every worker is still starting".into(),
                };
                return Err(Waited::Declined(Declined::new("no_worker", reason)));
            }
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

async fn wait_for(phase: &mut watch::Receiver<Phase>, at_least: Phase) {
    if phase.wait_for(|now| *now >= at_least).await.is_err() {
        // The gateway is being torn down; whoever waits is too.
        std::future::pending::<()>().await;
    }
}

impl Stream<'_> {
    /// Runs the stream to its end.
    pub(crate) async fn run(mut self) {
        let accepted = GatewayToHook::Accepted { stream: self.entry.id(), protocol: PROTOCOL };
        let wait_ms = self.arrived.elapsed().as_millis();
        info!(worker = self.worker.pid(), wait_ms, "accepted");
        let outcome = match self.hook.queue(&accepted, Vec::new()) {
            Ok(()) => self.relay().await,
            Err(error) => Outcome::HookGone(error.to_string()),
        };
        self.finish(outcome).await;
    }

    async fn relay(&mut self) -> Outcome {
        let mut quitting = self.context.phase.clone();
        let mut aborting = quitting.clone();
        let mut quit_passed_on = false;
        let mut horizon = self.entry.with(|record| record.horizon());
        loop {
            let late = self.deadline.map(|(at, _)| at);
            let step = tokio::select! {
                biased;
                message = self.worker.receive() => match message {
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
                let at = Instant::now() + duration(self.limits.quit_seconds);
                self.deadline = Some((at, Late::End));
            }
            Control::Pause => {
                self.entry.with(|record| record.state = State::Paused);
                self.deadline = self.deadline.filter(|(_, late)| *late != Late::Moving);
            }
            Control::Resume => {
                self.entry.with(|record| record.state = State::Running);
                if self.deadline.is_none() {
                    self.expect_movement();
                }
            }
        }
        self.tell_worker(&GatewayToWorker::Control(control))
    }

    fn tell_horizon(&mut self, position: Option<Duration>) -> Result<(), Outcome> {
        let micros = |position: Duration| u64::try_from(position.as_micros()).unwrap_or(u64::MAX);
        let message = GatewayToWorker::Horizon { position_us: position.map(micros) };
        self.tell_worker(&message)
    }

    fn tell_worker(&mut self, message: &GatewayToWorker) -> Result<(), Outcome> {
        self.worker
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
                self.hear_running(backend, node, reason, description)
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
            WorkerToGateway::GpuTime { engines, withheld } => {
                hear_gpu_time(self.context, &self.entry, engines, withheld);
                return Ok(());
            }
            WorkerToGateway::Committed => GatewayToHook::Committed,
            WorkerToGateway::SegmentComplete { number } => {
                self.job.output.segment_complete(number);
                self.it_moves();
                if self.entry.with(|record| record.segment_complete()) {
                    let took = self.arrived.elapsed();
                    self.entry.with(|record| record.first_segment = Some(took));
                    self.context.metrics.first_segment(took.as_secs_f64());
                    info!(number, ms = took.as_millis(), "first segment");
                }
                GatewayToHook::SegmentComplete { number }
            }
            WorkerToGateway::Progress(progress) => {
                self.entry.with(|record| record.progress(progress));
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

    /// Clears away and tells whoever is left.
    async fn finish(self, outcome: Outcome) {
        let Self { context, entry, mut hook, worker, job, arrived, began, .. } = self;
        let mut output = job.output;
        entry.with(|record| record.state = State::Ending);
        output.remove_placeholder().await;
        let pid = worker.pid();
        let tags = [entry.id().writer_tag(pid), entry.id().to_string()];
        // What the hook is to hear. It hears at once what the worker itself has said.
        let (grace, known) = match &outcome {
            Outcome::Ended(ending) => (END_GRACE, Some(ending.clone())),
            Outcome::HookGone(_) => (END_GRACE, None),
            Outcome::WorkerLost(_) | Outcome::WorkerHung(_) | Outcome::Aborted => {
                (Duration::ZERO, None)
            }
        };
        if let Some(ending) = known {
            tell(&mut hook, ending).await;
        }
        // A dying worker has its moment: at EOF the process is about to be reapable.
        let grace = if matches!(outcome, Outcome::WorkerLost(_)) { LAST_MOMENT } else { grace };
        let mut last = None;
        let death = worker
            .end_hearing(grace, |message| match message {
                WorkerToGateway::SegmentComplete { number } => output.segment_complete(number),
                WorkerToGateway::GpuTime { engines, withheld } => {
                    hear_gpu_time(context, &entry, engines, withheld);
                }
                WorkerToGateway::Ended(ending) => last = Some(ending),
                _ => {}
            })
            .await;
        let (node, film) = entry.with(|record| (record.node.clone(), record.input.clone()));
        if let Some(node) = node
            && outcome.may_be_the_gpu(last.as_ref())
        {
            context.gpus.failed(&node, began, film, outcome.why(last.as_ref(), &death));
        }
        let over = !matches!(outcome, Outcome::Ended(Ending::Complete | Ending::Quit));
        if over || !death.is_clean() {
            for tag in tags {
                output.sweep(tag).await;
            }
        }
        output.remove_placeholder().await;
        let why = outcome.complaint(last.as_ref(), &death);
        let how = conclude(context, &mut hook, outcome, last, &death, pid).await;
        let (frames, segments, speed) = entry.with(|record| {
            (record.progress.frames, record.segments, (record.speed() * 100.0).round() / 100.0)
        });
        let seconds = arrived.elapsed().as_secs_f64();
        info!(how, frames, segments, speed, seconds, "ended");
        context.metrics.stream_ended(how);
        entry.ended(how, why);
    }
}
