//! How a stream begins: by another viewer's segments, or with a worker of its own.

use session::{Ending, Fault, GatewayToHook, PROTOCOL};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Late, Stream};
use crate::config::duration;
use crate::connection::Connection;
use crate::ending::{LAST_MESSAGE, tell};
use crate::first_message::{Declined, Job};
use crate::follow::{Begun, begin};
use crate::gateway::Context;
use crate::streams::{Entry, State};
use crate::survival::{Survival, Told};
use crate::taking::{Waited, decline, take};

/// Takes a worker for the job and hands it over; `None` if the stream ended before it began.
pub(crate) async fn start<'a>(
    context: &'a Context,
    entry: Entry,
    mut hook: Connection,
    mut job: Job,
    arrived: Instant,
) -> Option<Stream<'a>> {
    let Begun { offer, segments, accepted } =
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
    let since = if accepted { Instant::now() } else { arrived };
    let taken = take(context, &entry, &mut hook, &job, &survival, since).await;
    match taken {
        Ok((worker, allowance)) => {
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
        Err(Waited::Declined(Declined { label, reason })) if accepted => {
            entry.with(|record| record.state = State::Ending);
            // Without a segment its hook runs ffmpeg all the same.
            if told.segments() == 0 {
                info!(reason, "declined");
                context.metrics.declined(label);
                entry.ended("declined", Some(reason.clone()));
            } else {
                warn!(reason, "no worker can go on");
                context.metrics.stream_ended("failed_gateway");
                entry.ended("failed_gateway", Some(reason.clone()));
            }
            job.output.remove_placeholder().await;
            tell(&mut hook, Ending::Failed { reason, fault: Fault::Gateway }).await;
            None
        }
        Err(Waited::Declined(declined)) => {
            entry.ended("declined", Some(declined.reason.clone()));
            decline(context, &mut hook, declined).await;
            None
        }
        Err(Waited::Quit) => {
            // Nothing was written, and nothing is wanted.
            info!("quit before it started");
            end(context, &entry, &job, "quit").await;
            let accepted_now = !accepted;
            let accepted = GatewayToHook::Accepted { stream: entry.id(), protocol: PROTOCOL };
            if accepted_now {
                let _ = hook.queue(&accepted, Vec::new());
            }
            let _ = hook.queue(&GatewayToHook::Ended(Ending::Quit), Vec::new());
            let _ = hook.flush(LAST_MESSAGE).await;
            None
        }
        Err(Waited::HookGone) => {
            info!("the hook went away before a worker was free");
            end(context, &entry, &job, "hook_gone").await;
            None
        }
        Err(Waited::Aborted) => {
            info!("the gateway stops before a worker was free");
            end(context, &entry, &job, "aborted").await;
            if accepted {
                let reason = "the gateway was told to stop at once".into();
                tell(&mut hook, Ending::Failed { reason, fault: Fault::Gateway }).await;
            }
            None
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
