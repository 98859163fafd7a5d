//! How a stream loses a worker, and how it ends.

use std::time::Duration;

use session::{Ending, WorkerToGateway};
use tracing::{info, warn};

use super::{Stream, hear_gpu_time};
use crate::ending::{Outcome, conclude, let_go, tell};
use crate::first_message::Declined;
use crate::streams::State;
use crate::taking::Waited;
use crate::worker::Death;

/// Grace for a worker whose stream is over: it closes its files and exits.
const END_GRACE: Duration = Duration::from_secs(2);
/// How long a worker that has closed its socket may take to be gone.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// What is left of a worker.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) pid: u32,
    pub(super) death: Death,
    /// What it still said as it was cleared away.
    pub(super) last: Option<Ending>,
}

impl Stream<'_> {
    /// Ends the worker, reaps it, and takes away what it has left half-written.
    pub(super) async fn clear_away(&mut self, outcome: &Outcome) -> Remains {
        let over = outcome.is_over();
        if over {
            self.entry.with(|record| record.state = State::Ending);
            if outcome.said(None) != Some(&Ending::Complete) {
                // Whoever follows needn't wait until all is cleared away.
                self.offer = None;
            }
            self.job.output.remove_placeholder().await;
        }
        // What the hook is to hear. It hears at once what the worker itself has said.
        let grace = match outcome {
            Outcome::Ended(ending) => {
                if over {
                    tell(&mut self.hook, ending.clone()).await;
                }
                END_GRACE
            }
            Outcome::HookGone(_) | Outcome::Moved => END_GRACE,
            // A dying worker has its moment: at EOF the process is about to be reapable.
            Outcome::WorkerLost(_) => LAST_MOMENT,
            Outcome::WorkerHung(_) | Outcome::Aborted => Duration::ZERO,
        };
        let worker = self.worker.take().expect("it has been listened to");
        let pid = worker.pid();
        let mut last = None;
        let mut said = Vec::new();
        let death = worker
            .end_hearing(grace, |message| match message {
                WorkerToGateway::SegmentComplete { number, complete } => {
                    said.push((number, complete));
                }
                WorkerToGateway::GpuTime { engines, withheld } => {
                    hear_gpu_time(self.context, &self.entry, engines, withheld);
                }
                WorkerToGateway::CpuTime { cpu_us } => {
                    self.context.admission.cpu(&self.entry, cpu_us);
                }
                WorkerToGateway::Ended(ending) => last = Some(ending),
                _ => {}
            })
            .await;
        self.context.admission.ended(&self.entry);
        for (number, complete) in said {
            if over {
                // The hook may have been told of the end.
                self.job.output.segment_complete(number);
            } else {
                // Whether the hook still hears it is seen elsewhere.
                let _ = self.hear_worker(WorkerToGateway::SegmentComplete { number, complete });
            }
        }
        let (node, film) = self.entry.with(|record| (record.node.clone(), record.input.clone()));
        if let Some(node) = node
            && outcome.may_be_the_gpu(last.as_ref())
        {
            self.survival.failed_on(&node);
            self.context.gpus.failed(&node, self.began, film, outcome.why(last.as_ref(), &death));
        }
        let complete = matches!(outcome, Outcome::Ended(Ending::Complete | Ending::Quit));
        if !complete || !death.is_clean() {
            for tag in [self.entry.id().writer_tag(pid), self.entry.id().to_string()] {
                self.job.output.sweep(tag).await;
            }
        }
        Remains { pid, death, last }
    }

    /// Leaves it to the next gateway.
    pub(super) async fn let_go(mut self) {
        info!(next = self.survival.next(), "left to the next gateway");
        self.entry.with(|record| record.state = State::Ending);
        let_go(&mut self.hook).await;
        self.log_end("moved", None);
    }

    /// Tells whoever is left.
    pub(super) async fn finish(mut self, outcome: Outcome, remains: Remains) {
        let Remains { pid, death, last } = remains;
        self.entry.with(|record| record.state = State::Ending);
        self.job.output.remove_placeholder().await;
        if let (false, Outcome::Ended(ending)) = (outcome.is_over(), &outcome) {
            tell(&mut self.hook, ending.clone()).await;
        }
        if let (Some(offer), Some(Ending::Complete)) = (&self.offer, outcome.said(last.as_ref())) {
            offer.complete();
        }
        let why = outcome.complaint(last.as_ref(), &death);
        let how = conclude(self.context, &mut self.hook, outcome, last, &death, pid).await;
        self.log_end(how, why);
    }

    /// No other worker could be given the stream that `outcome` took the last one from.
    pub(super) async fn end_without_worker(
        mut self,
        ended: Waited,
        outcome: Outcome,
        remains: Remains,
    ) {
        let outcome = match ended {
            Waited::Declined(declined) => {
                warn!(reason = declined.reason, "no other worker can go on");
                outcome
            }
            Waited::Quit => {
                // Nothing is half-written, and nobody wants the rest.
                self.job.output.remove_placeholder().await;
                tell(&mut self.hook, Ending::Quit).await;
                return self.log_end("quit", None);
            }
            Waited::HookGone => Outcome::HookGone("it closed the connection".into()),
            Waited::Aborted => Outcome::Aborted,
        };
        self.finish(outcome, remains).await;
    }

    fn log_end(&self, how: &'static str, why: Option<String>) {
        let (frames, segments, speed) = self.entry.with(|record| {
            (
                record.progress.frames,
                record.segments,
                (record.overall_speed() * 100.0).round() / 100.0,
            )
        });
        let seconds = self.arrived.elapsed().as_secs_f64();
        info!(how, frames, segments, speed, seconds, "ended");
        if let Some(Declined { label, reason }) = &self.declined {
            self.context.metrics.declined(label);
            return self.entry.ended("declined", Some(reason.clone()));
        }
        self.context.metrics.stream_ended(how);
        self.entry.ended(how, why);
    }
}
