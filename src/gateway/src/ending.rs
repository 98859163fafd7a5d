//! How a stream ends: what the worker or the hook did, what the hook is told, and how it is counted.

use std::time::Duration;

use session::{Ending, Fault, GatewayToHook};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::connection::Connection;
use crate::gateway::Context;
use crate::worker::Death;

/// How long the last message may take to leave.
pub(crate) const LAST_MESSAGE: Duration = Duration::from_secs(2);

/// Why the relay is over.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The worker's last message.
    Ended(Ending),
    /// The worker process is dead or can't be understood.
    WorkerLost(String),
    /// The worker lives and does nothing.
    WorkerHung(String),
    /// Nobody watches any more.
    HookGone(String),
    /// The next gateway goes on with it.
    Moved,
    /// The gateway ends at once.
    Aborted,
}

impl Outcome {
    /// Whether it may be the doing of the GPU that the stream ran on: then that is to be looked at.
    /// `last` is what the worker still said as it was cleared away.
    pub(crate) fn may_be_the_gpu(&self, last: Option<&Ending>) -> bool {
        let of_the_device =
            |ending: &Ending| matches!(ending, Ending::Failed { fault: Fault::Device, .. });
        match self {
            Self::Ended(ending) => of_the_device(ending),
            Self::WorkerLost(_) => last.is_none_or(of_the_device),
            Self::WorkerHung(_) => true,
            Self::HookGone(_) | Self::Moved | Self::Aborted => false,
        }
    }

    /// Nobody is to go on: all is written, nobody wants it, or it would fail again.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::WorkerLost(_) | Self::WorkerHung(_) | Self::Moved => false,
            Self::Ended(ending) => !may_be_another_s(ending),
            Self::HookGone(_) | Self::Aborted => true,
        }
    }

    /// The worker's last words. `last` is what it still said as it was cleared away.
    pub(crate) fn said<'a>(&'a self, last: Option<&'a Ending>) -> Option<&'a Ending> {
        match self {
            Self::Ended(ending) => Some(ending),
            Self::WorkerLost(_) => last,
            Self::WorkerHung(_) | Self::HookGone(_) | Self::Moved | Self::Aborted => None,
        }
    }

    /// The word for counters, if a worker was lost where another one may come further. `last` is what it
    /// still said as it was cleared away.
    pub(crate) fn loss(&self, last: Option<&Ending>) -> Option<&'static str> {
        let by_its_word = |ending: &Ending| match ending {
            Ending::Failed { fault: Fault::Device, .. } => Some("device"),
            Ending::Failed { fault: Fault::Worker, .. } => Some("failed"),
            _ => None,
        };
        match self {
            Self::WorkerLost(_) => last.map_or(Some("died"), by_its_word),
            Self::WorkerHung(_) => last.map_or(Some("hung"), by_its_word),
            Self::Ended(ending) => by_its_word(ending),
            Self::HookGone(_) | Self::Moved | Self::Aborted => None,
        }
    }

    /// In a few words, for people.
    pub(crate) fn why(&self, last: Option<&Ending>, death: &Death) -> String {
        match (self, last) {
            (Self::Ended(Ending::Failed { reason, .. }), _)
            | (_, Some(Ending::Failed { reason, .. })) => reason.clone(),
            (Self::WorkerLost(why), _) if why.is_empty() => format!("the worker {death}"),
            (Self::WorkerLost(why) | Self::WorkerHung(why) | Self::HookGone(why), _) => {
                format!("the worker {why}")
            }
            (Self::Ended(_) | Self::Moved | Self::Aborted, _) => format!("the worker {death}"),
        }
    }

    /// What went wrong, for people; `None` if nothing did. `last` and `death` as in [`Self::why`].
    pub(crate) fn complaint(&self, last: Option<&Ending>, death: &Death) -> Option<String> {
        match (self, last) {
            (Self::Ended(Ending::Complete | Ending::Quit) | Self::Moved, _)
            | (Self::WorkerLost(_), Some(Ending::Complete | Ending::Quit)) => None,
            (Self::HookGone(why), _) => Some(format!("Jellyfin's side is gone: {why}")),
            (Self::Aborted, _) => Some("the gateway was told to stop at once".into()),
            _ => Some(self.why(last, death)),
        }
    }
}

/// Tells the hook, if it doesn't know yet; gives the word for log and counter.
pub(crate) async fn conclude(
    context: &Context,
    hook: &mut Connection,
    outcome: Outcome,
    last: Option<Ending>,
    death: &Death,
    pid: u32,
) -> &'static str {
    let failed = |fault, reason: String| Ending::Failed { reason, fault };
    match outcome {
        Outcome::Ended(ending) => {
            if death.was_killed() {
                warn!("the worker didn't exit after its stream");
                context.metrics.worker_restarted("didnt_exit");
            }
            if let Ending::Failed { reason, .. } = &ending {
                warn!(reason, "failed");
            }
            label(&ending)
        }
        // The process was reaped before its last message was read.
        Outcome::WorkerLost(_) if last.is_some() => {
            let ending = last.expect("just seen");
            tell(hook, ending.clone()).await;
            label(&ending)
        }
        Outcome::WorkerLost(why) => {
            let why = if why.is_empty() { death.to_string() } else { why };
            let reason = format!("the worker (pid {pid}) {why}");
            warn!(reason, "worker lost");
            tell(hook, failed(Fault::Worker, reason)).await;
            "worker_died"
        }
        Outcome::WorkerHung(why) => {
            let reason = format!("the worker (pid {pid}) {why}");
            warn!(reason, "worker killed");
            tell(hook, failed(Fault::Worker, reason)).await;
            "worker_hung"
        }
        Outcome::HookGone(why) => {
            info!(why, "the hook is gone");
            if death.was_killed() {
                context.metrics.worker_restarted("didnt_exit");
            }
            "hook_gone"
        }
        // Told where it is let go.
        Outcome::Moved => "moved",
        Outcome::Aborted => {
            tell(hook, failed(Fault::Gateway, "the gateway was told to stop at once".into())).await;
            "aborted"
        }
    }
}

/// Whether another worker, or another GPU, may come further.
fn may_be_another_s(ending: &Ending) -> bool {
    matches!(ending, Ending::Failed { fault: Fault::Device | Fault::Worker, .. })
}

pub(crate) async fn tell(hook: &mut Connection, ending: Ending) {
    // A hook that is gone needs no telling.
    if hook.queue(&GatewayToHook::Ended(ending), Vec::new()).is_ok() {
        let _ = timeout(LAST_MESSAGE, hook.flush(LAST_MESSAGE)).await;
    }
}

/// Leaves a stream to the next gateway. The empty next segment stays: the viewer waits for it.
pub(crate) async fn let_go(hook: &mut Connection) {
    // A hook that is gone needs no telling.
    if hook.queue(&GatewayToHook::LetGo, Vec::new()).is_ok() {
        let _ = hook.flush(LAST_MESSAGE).await;
    }
}

/// All words that [`conclude`] gives.
pub(crate) const HOWS: [&str; 13] = [
    "complete",
    "quit",
    "failed_input",
    "failed_output",
    "failed_unsupported",
    "failed_device",
    "failed_worker",
    "failed_gateway",
    "worker_died",
    "worker_hung",
    "hook_gone",
    "moved",
    "aborted",
];

fn label(ending: &Ending) -> &'static str {
    match ending {
        Ending::Complete => "complete",
        Ending::Quit => "quit",
        Ending::Failed { fault, .. } => match fault {
            Fault::Input => "failed_input",
            Fault::Output => "failed_output",
            Fault::Unsupported => "failed_unsupported",
            Fault::Device => "failed_device",
            Fault::Worker => "failed_worker",
            Fault::Gateway => "failed_gateway",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_film_s_fault_may_be_the_gpu_s() {
        let failed = |fault| Ending::Failed { reason: String::new(), fault };
        let check = |outcome: Outcome, last: Option<Ending>, expect: bool| {
            assert_eq!(outcome.may_be_the_gpu(last.as_ref()), expect, "{outcome:?}, {last:?}");
        };
        check(Outcome::WorkerHung(String::new()), None, true);
        check(Outcome::WorkerLost(String::new()), None, true);
        check(Outcome::WorkerLost(String::new()), Some(failed(Fault::Device)), true);
        check(Outcome::WorkerLost(String::new()), Some(failed(Fault::Input)), false);
        check(Outcome::WorkerLost(String::new()), Some(Ending::Complete), false);
        check(Outcome::Ended(failed(Fault::Device)), None, true);
        check(Outcome::Ended(failed(Fault::Output)), None, false);
        check(Outcome::Ended(Ending::Quit), None, false);
        check(Outcome::HookGone(String::new()), None, false);
        check(Outcome::Moved, None, false);
        check(Outcome::Aborted, None, false);
    }
}
