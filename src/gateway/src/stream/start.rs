//! How a stream begins: by another viewer's segments, or with a worker of its own.

use std::time::Duration;

use session::{Ending, Fault, GatewayToHook, PROTOCOL, Takeover};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Late, Stream};
use crate::config::duration;
use crate::connection::Connection;
use crate::ending::{LAST_MESSAGE, let_go, tell};
use crate::first_message::{Declined, Job};
use crate::follow::{Begun, begin};
use crate::gateway::{Context, Phase};
use crate::streams::{Entry, State};
use crate::survival::{Survival, Told};
use crate::taking::{Waited, decline, is_sent_on, take, wait_for_gpu, wait_for_look};

/// How long a stream that is begun already waits for a worker at most: this gateway may just have been started,
/// without a warm one, and many come at once. There is no real ffmpeg that would be faster. How long
/// is too long is its hook's to say, which hangs up then: fifteen seconds, unless it was told otherwise.
const COLD_START: Duration = Duration::from_secs(600);

/// Takes a worker for the job and hands it over; `None` if the stream ended before it began.
pub(crate) async fn start<'a>(
    context: &'a Context,
    entry: Entry,
    mut hook: Connection,
    mut job: Job,
    arrived: Instant,
) -> Option<Stream<'a>> {
    let Begun { offer, segments, accepted, .. } =
        begin(context, &entry, &mut hook, &mut job, arrived).await?;
    let mut survival = Survival::of(&job.transcode);
    let mut told = Told::default();
    if accepted {
        let first = survival.next();
        let count = segments.len() as u64;
        for (number, segment) in (first..).zip(segments.each()) {
            survival.complete(number, segment.into());
        }
        let progress = entry.with(|record| record.progress);
        told = Told::of_followed(
            count,
            (first + count).checked_sub(1).filter(|_| count > 0),
            progress,
        );
    }
    let takeover = job.takeover.take();
    if let Some(takeover) = takeover.as_deref() {
        told = Told::of_another(takeover);
        receive(&entry, &mut job, takeover).await;
        survival.takes_over(takeover.resumption.clone());
    }
    let accept = duration(context.config.streams.accept_seconds);
    let until = match accepted {
        _ if told.has_committed() => Instant::now() + accept.max(COLD_START),
        true => Instant::now() + accept,
        false => arrived + accept,
    };
    let waited = match told.has_committed() {
        true => wait_for_gpus(context, &entry, &mut hook, &job, &survival).await,
        false => Ok(()),
    };
    let taken = match waited {
        Ok(()) => take(context, &entry, &mut hook, &job, &survival, until).await,
        Err(waited) => Err(waited),
    };
    match taken {
        Ok((worker, allowance)) => {
            if takeover.is_some() {
                context.metrics.stream_resumed();
                info!(next = survival.next(), "goes on with what another gateway has begun");
            }
            let began = Instant::now();
            let running = began + duration(context.config.streams.running_seconds);
            let mut stream = Stream {
                context,
                limits: &context.config.streams,
                entry,
                hook,
                worker: Some(worker),
                job,
                allowance,
                arrived,
                began,
                deadline: Some((running, Late::Running)),
                decoded: 0,
                frames: 0,
                survival,
                told,
                offer,
                declined: None,
            };
            stream.tell_bars();
            Some(stream)
        }
        Err(Waited::Declined(_))
            if told.has_committed()
                && stops(context)
                && job.reconnects
                && survival.may_move()
                && accepted =>
        {
            info!("left to the next gateway");
            context.metrics.stream_ended("moved");
            entry.ended("moved", None);
            let_go(&mut hook).await;
            None
        }
        Err(waited) => {
            let standing = match (accepted, takeover) {
                (true, _) => Standing::Accepted,
                (false, Some(_)) => Standing::TakenOver,
                (false, None) => Standing::New,
            };
            turned_away(context, &entry, &mut hook, &job, waited, standing, told.segments()).await;
            None
        }
    }
}

/// Waits for the GPUs that a stream which has begun may need, as far as this gateway doesn't know them yet.
async fn wait_for_gpus(
    context: &Context,
    entry: &Entry,
    hook: &mut Connection,
    job: &Job,
    survival: &Survival,
) -> Result<(), Waited> {
    wait_for_look(context, entry, hook, job).await?;
    wait_for_gpu(context, entry, hook, job, survival).await
}

/// What a stream without a worker is to its hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It could still run the real ffmpeg.
    New,
    /// Begun by another gateway.
    TakenOver,
    /// Begun by this one.
    Accepted,
}

fn stops(context: &Context) -> bool {
    *context.phase.borrow() > Phase::Running
}

/// Makes a stream that another gateway has begun one of this gateway's.
async fn receive(entry: &Entry, job: &mut Job, takeover: &Takeover) {
    let Takeover { resumption, writer, progress } = takeover;
    entry.with(|record| record.takes_over(resumption.segments(), *progress));
    if let Some(last) = resumption.last() {
        job.output.segment_complete(last);
    }
    // The hook has seen its end.
    if let Some(writer) = writer {
        job.output.sweep(writer.tag()).await;
    }
}

/// Tells whoever is left that the stream gets no worker; `segments` of it are there.
async fn turned_away(
    context: &Context,
    entry: &Entry,
    hook: &mut Connection,
    job: &Job,
    waited: Waited,
    standing: Standing,
    segments: u64,
) {
    let accepted = standing == Standing::Accepted;
    match waited {
        Waited::Declined(Declined { label, reason }) if accepted => {
            entry.with(|record| record.state = State::Ending);
            // Without a segment its hook runs ffmpeg all the same.
            if segments == 0 {
                info!(reason, "declined");
                context.metrics.declined(label);
                entry.ended("declined", Some(reason.clone()));
            } else {
                warn!(reason, "no worker can go on");
                context.metrics.stream_ended("failed_gateway");
                entry.ended("failed_gateway", Some(reason.clone()));
            }
            job.output.remove_placeholder().await;
            tell(hook, Ending::Failed { reason, fault: Fault::Gateway }).await;
        }
        Waited::Declined(declined) => {
            let taken_over = standing == Standing::TakenOver;
            if is_sent_on(context, taken_over) {
                info!(how = "moved", "ended");
                context.metrics.stream_ended("moved");
                entry.ended("moved", None);
            } else {
                entry.ended("declined", Some(declined.reason.clone()));
            }
            decline(context, hook, declined, taken_over).await;
        }
        Waited::Quit => {
            // Nothing was written, and nothing is wanted.
            info!("quit before it started");
            end(context, entry, job, "quit").await;
            if !accepted {
                let message = GatewayToHook::Accepted { stream: entry.id(), protocol: PROTOCOL };
                let _ = hook.queue(&message, Vec::new());
            }
            let _ = hook.queue(&GatewayToHook::Ended(Ending::Quit), Vec::new());
            let _ = hook.flush(LAST_MESSAGE).await;
        }
        Waited::HookGone => {
            info!("the hook went away before a worker was free");
            end(context, entry, job, "hook_gone").await;
        }
        Waited::Aborted => {
            info!("the gateway stops before a worker was free");
            end(context, entry, job, "aborted").await;
            if accepted {
                let reason = "the gateway was told to stop at once".into();
                tell(hook, Ending::Failed { reason, fault: Fault::Gateway }).await;
            }
        }
    }
}

/// Of a stream that had no worker yet, or none any more.
async fn end(context: &Context, entry: &Entry, job: &Job, how: &'static str) {
    entry.with(|record| record.state = State::Ending);
    job.output.remove_placeholder().await;
    context.metrics.stream_ended(how);
    entry.ended(how, None);
}
