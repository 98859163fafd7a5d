//! How a stream gets a worker: its first, or another one where that was lost.
//!
//! While none has it, the hook is listened to here.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use gpu::Device;
use session::{
    Control, GatewayToHook, GatewayToWorker, HookToGateway, Received, Resumption, Writer,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::connection::{Connection, ConnectionError};
use crate::ending::{LAST_MESSAGE, let_go};
use crate::first_message::{Declined, Job};
use crate::gateway::{Context, Phase};
use crate::gpu_time::GpuTime;
use crate::gpus::Allowance;
use crate::streams::Entry;
use crate::survival::Survival;
use crate::worker::Worker;

/// How often it is seen whether the only GPU works again, and how long that may take: a second, longer
/// where others keep it busy.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const GPU_LIMIT: Duration = Duration::from_secs(20);
/// How long a stream that was begun elsewhere waits for the first look at the GPUs. Its hook waits
/// fifteen seconds in all.
pub(crate) const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(5);
/// Workers tried for a job, if they die as they are given it.
const START_TRIES: u32 = 3;

/// Takes a worker and hands it the job, from where the stream has come to. One that isn't there by
/// `until` comes too late.
pub(crate) async fn take(
    context: &Context,
    entry: &Entry,
    hook: &mut Connection,
    job: &Job,
    survival: &Survival,
    until: Instant,
) -> Result<(Worker, Allowance), Waited> {
    let encodes_video = job.transcode.encoded_video().is_some();
    let allowed = || {
        let all = context.gpus.allowance(encodes_video, |node| context.streams.on_node(node))?;
        survival.permitted(all)
    };
    let no_gpu = |reason: String| Waited::Declined(Declined::new("no_gpu", reason));
    allowed().map_err(no_gpu)?;
    let mut reason = String::new();
    for _ in 0..START_TRIES {
        let mut worker = wait_for_worker(context, entry, hook, until).await?;
        // What there is by now.
        let allowance = match allowed() {
            Ok(allowance) => allowance,
            Err(reason) => {
                worker.end(Duration::ZERO).await;
                return Err(no_gpu(reason));
            }
        };
        worker.assign(tracing::Span::current(), context.niceness);
        let resumption = survival.resumption();
        let proc_root = &context.config.gpu.proc_root;
        // Before the worker has it, so that a hook which loses this gateway knows of every writer.
        let writer = Writer { stream: entry.id(), pid: worker.pid() };
        if let Ok(lease) = worker.lease() {
            // A hook that is gone is noticed by whoever listens to it.
            let _ = hook.queue(&GatewayToHook::Writer { writer }, lease);
        }
        match hand_over(&mut worker, entry, job, &allowance, proc_root, resumption) {
            Ok(()) => {
                entry.with(|record| {
                    record.worker_pid = Some(worker.pid());
                    record.node = allowance.devices.first().map(|device| device.node.clone());
                    // Its counters begin at zero, and the media behind what is written.
                    record.account.another_worker(survival.position().as_secs_f64());
                    record.gpu_time = GpuTime::default();
                });
                return Ok((worker, allowance));
            }
            Err(error) => {
                reason = error.to_string();
                let death = worker.end(Duration::ZERO).await;
                warn!(%death, error = %reason, "the worker died as it was given the stream");
                context.metrics.worker_restarted("died_at_take");
            }
        }
    }
    Err(Waited::Declined(Declined::new("no_worker", reason)))
}

fn hand_over(
    worker: &mut Worker,
    entry: &Entry,
    job: &Job,
    allowance: &Allowance,
    proc_root: &Path,
    resumption: Option<&Resumption>,
) -> Result<(), ConnectionError> {
    let descriptors: Vec<OwnedFd> =
        job.descriptors.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>()?;
    let start = GatewayToWorker::Start {
        stream: entry.id(),
        transcode: job.transcode.clone(),
        devices: allowance.devices.iter().map(|device| Device::clone(device)).collect(),
        software: allowance.software,
        proc_root: proc_root.to_owned(),
        resumption: resumption.cloned().map(Box::new),
    };
    worker.connection.queue(&start, descriptors)
}

/// Tells a hook that there is no room; what is said next has it run its own ffmpeg.
pub(crate) fn step_aside(context: &Context, hook: &mut Connection) {
    context.elsewhere.left(Instant::now());
    let niceness = context.config.admission.ffmpeg_niceness;
    if niceness > 0 {
        // A hook that doesn't hear it won't hear what comes next either.
        let _ = hook.queue(&GatewayToHook::StepAside { niceness }, Vec::new());
    }
}

/// Whether a stream that isn't taken is one for the next gateway: another has begun it, and this one
/// stops.
pub(crate) fn is_sent_on(context: &Context, taken_over: bool) -> bool {
    taken_over && *context.phase.borrow() > Phase::Running
}

/// Tells a hook to run its own ffmpeg. One that can't any more, because another gateway has begun the
/// stream, is sent on to the next one if this one stops.
pub(crate) async fn decline(
    context: &Context,
    hook: &mut Connection,
    declined: Declined,
    taken_over: bool,
) {
    if is_sent_on(context, taken_over) {
        debug!(reason = declined.reason, "sent on to the next gateway");
        return let_go(hook).await;
    }
    info!(reason = declined.reason, "declined");
    context.metrics.declined(declined.label);
    if declined.label == Declined::MAX_STREAMS {
        step_aside(context, hook);
    }
    // A hook that doesn't hear it sees the connection close, which means the same.
    if hook.queue(&GatewayToHook::Declined { reason: declined.reason }, Vec::new()).is_ok() {
        let _ = hook.flush(LAST_MESSAGE).await;
    }
}

/// Why no worker was taken.
pub(crate) enum Waited {
    /// There is none, or none is allowed.
    Declined(Declined),
    /// `q`.
    Quit,
    /// The hook is gone.
    HookGone,
    /// The gateway ends at once.
    Aborted,
}

async fn wait_for_worker(
    context: &Context,
    entry: &Entry,
    hook: &mut Connection,
    until: Instant,
) -> Result<Worker, Waited> {
    let mut phase = context.phase.clone();
    let mut aborting = context.phase.clone();
    let take = context.pool.take();
    tokio::pin!(take);
    loop {
        tokio::select! {
            biased;
            taken = &mut take => {
                return taken.map_err(|reason| Waited::Declined(Declined::new("no_worker", reason)));
            }
            message = hook.receive::<HookToGateway>() => hear_waiting(entry, message)?,
            () = wait_for(&mut aborting, Phase::Aborting) => return Err(Waited::Aborted),
            () = wait_for(&mut phase, Phase::Draining) => {
                return Err(Waited::Declined(Declined::shutting_down()));
            }
            () = sleep_until(until) => {
                let reason = match context.pool.readiness() {
                    Err(reason) => reason,
                    Ok(()) => "every worker is still starting".into(),
                };
                return Err(Waited::Declined(Declined::new("no_worker", reason)));
            }
        }
    }
}

/// What a hook says while no worker has its stream.
fn hear_waiting(
    entry: &Entry,
    message: Result<Option<Received<HookToGateway>>, ConnectionError>,
) -> Result<(), Waited> {
    match message.ok().flatten().map(|received| received.message) {
        Some(HookToGateway::Control(Control::Quit)) => Err(Waited::Quit),
        // Nothing runs that could be paused; a worker that comes is told.
        Some(HookToGateway::Control(control)) => {
            note(entry, control);
            Ok(())
        }
        Some(HookToGateway::Job { .. } | HookToGateway::Driver { .. }) | None => {
            Err(Waited::HookGone)
        }
    }
}

/// Notes that Jellyfin pauses or goes on.
pub(crate) fn note(entry: &Entry, control: Control) {
    entry.with(|record| match control {
        Control::Pause => record.pause(),
        Control::Resume => record.resume(),
        Control::Quit => {}
    });
}

/// The only GPU is looked at again as soon as a stream has failed on it; where software isn't wanted,
/// that is waited for.
pub(crate) async fn wait_for_gpu(
    context: &Context,
    entry: &Entry,
    hook: &mut Connection,
    job: &Job,
    survival: &Survival,
) -> Result<(), Waited> {
    let encodes_video = job.transcode.encoded_video().is_some();
    let limit = Instant::now() + GPU_LIMIT;
    loop {
        let all = context.gpus.allowance(encodes_video, |node| context.streams.on_node(node));
        // What there isn't by then is said by whoever takes the next worker.
        if all.and_then(|all| survival.permitted(all)).is_ok() || Instant::now() >= limit {
            return Ok(());
        }
        if *context.phase.borrow() >= Phase::Draining {
            return Err(Waited::Declined(Declined::shutting_down()));
        }
        tokio::select! {
            message = hook.receive::<HookToGateway>() => hear_waiting(entry, message)?,
            () = sleep_until(Instant::now() + LOOK_EVERY) => {}
        }
    }
}

/// A gateway that has just begun doesn't know its GPUs yet. A stream that is begun already is worth the wait
/// for the first look.
pub(crate) async fn wait_for_look(
    context: &Context,
    entry: &Entry,
    hook: &mut Connection,
    job: &Job,
) -> Result<(), Waited> {
    if job.transcode.encoded_video().is_none() {
        return Ok(());
    }
    let look = context.gpus.looked(FIRST_LOOK_LIMIT);
    tokio::pin!(look);
    loop {
        tokio::select! {
            biased;
            () = &mut look => return Ok(()),
            message = hook.receive::<HookToGateway>() => hear_waiting(entry, message)?,
        }
    }
}

/// Waits until the gateway has come so far with its end.
pub(crate) async fn wait_for(phase: &mut watch::Receiver<Phase>, at_least: Phase) {
    if phase.wait_for(|now| *now >= at_least).await.is_err() {
        // The gateway is being torn down; whoever waits is too.
        std::future::pending::<()>().await;
    }
}
