//! Warm workers: processes that have loaded everything and wait for a stream.
//!
//! A fixed number of slots each start a worker, wait with it until a job takes it or it dies, and
//! start over. A pool of size 0 has one slot, which starts workers only for jobs that wait.
//!
//! Starting is slow where it would hurt (after a take, a pause, and at low priority), and at once
//! while a job waits. After failures it backs off; jobs that come meanwhile are told so at once,
//! because the local ffmpeg serves their viewer sooner than our next try.
//!
//! Invariants:
//! - A warm worker that dies is replaced, and never given to a job knowingly.
//! - At most as many workers start at once as there are slots; the first of all starts alone, since
//!   it may have GStreamer's registry to build, which the others then find.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::launch::Launcher;
use crate::metrics::Metrics;
use crate::worker::Worker;

/// First pause after a failed start; doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// Longest pause between tries: a repaired installation is found within half a minute.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Failed starts in a row after which jobs are declined instead of waiting: one can be chance.
const PATIENCE: u32 = 2;
/// Grace for an unused worker: it has nothing to write.
const IDLE_GRACE: Duration = Duration::from_secs(2);

/// How long a worker that has closed its connection may take to exit.
const LAST_MOMENT: Duration = Duration::from_millis(500);

type Reply = oneshot::Sender<Result<Worker, String>>;

/// What the pool is told by the configuration.
#[derive(Debug, Clone)]
pub(crate) struct PoolSettings {
    /// How workers are started.
    pub launcher: Launcher,
    /// Workers kept warm.
    pub warm: usize,
    /// See [`crate::config::Worker::ready_seconds`].
    pub ready_limit: Duration,
    /// See [`crate::config::Worker::refill_seconds`].
    pub refill_pause: Duration,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: PoolSettings,
    metrics: Metrics,
    state: Mutex<State>,
    /// A job waits, or the pool has been closed.
    wake: Notify,
    /// The first worker has become warm or failed.
    first: Notify,
    /// The last slot has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Slots with a warm worker: whoever takes one sends where to.
    idle: VecDeque<oneshot::Sender<Reply>>,
    /// Jobs, in the order they came.
    waiting: VecDeque<Reply>,
    /// Failed starts in a row.
    failures: u32,
    /// Deaths of idle workers since one was taken.
    idle_deaths: u32,
    failure: Option<String>,
    /// A worker has become warm since the last failure.
    proven: bool,
    first_over: bool,
    closed: bool,
    slots: usize,
}

impl Pool {
    /// Starts the slots.
    pub(crate) fn start(settings: PoolSettings, metrics: Metrics) -> Self {
        let slots = settings.warm.max(1);
        let shared = Arc::new(Shared {
            settings,
            metrics,
            state: Mutex::new(State { slots, ..State::default() }),
            wake: Notify::new(),
            first: Notify::new(),
            ended: Notify::new(),
        });
        for number in 0..slots {
            let shared = shared.clone();
            tokio::spawn(async move {
                run_slot(&shared, number == 0).await;
                let mut state = shared.lock();
                state.slots -= 1;
                if state.slots == 0 {
                    shared.ended.notify_one();
                }
            });
        }
        Self { shared }
    }

    /// A warm worker, as soon as there is one.
    ///
    /// # Errors
    /// Why there will be none soon, for people.
    pub(crate) async fn take(&self) -> Result<Worker, String> {
        loop {
            let (reply, answer) = oneshot::channel();
            {
                let mut state = self.shared.lock();
                if state.closed {
                    return Err("shutting down".into());
                }
                if let Some(slot) = state.idle.pop_front() {
                    // A slot whose worker has just died drops the request; then we ask again.
                    let _ = slot.send(reply);
                } else if let Some(failure) = state.standing_failure() {
                    return Err(failure);
                } else {
                    state.waiting.retain(|other| !other.is_closed());
                    state.waiting.push_back(reply);
                    self.shared.wake.notify_waiters();
                }
            }
            if let Ok(result) = answer.await {
                return result;
            }
        }
    }

    /// Whether a job that came now would get a worker; if not, why.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        let state = self.shared.lock();
        if state.closed {
            Err("shutting down".into())
        } else if !state.idle.is_empty() {
            Ok(())
        } else if let Some(failure) = &state.failure {
            Err(failure.clone())
        } else if state.proven || self.shared.settings.warm == 0 {
            Ok(())
        } else {
            Err("the first worker is still warming up".into())
        }
    }

    /// Warm workers at this moment.
    pub(crate) fn warm(&self) -> usize {
        self.shared.lock().idle.len()
    }

    /// Ends every warm worker and starts others in their place: what they have loaded is out of date.
    pub(crate) fn renew(&self) {
        // A slot whose request is dropped ends its worker and starts over.
        self.shared.lock().idle.clear();
    }

    /// Ends every unused worker and waits until they are gone.
    pub(crate) async fn close(&self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
            state.idle.clear();
            state.waiting.clear();
        }
        self.shared.wake.notify_waiters();
        self.shared.first.notify_waiters();
        let all = async {
            while self.shared.lock().slots > 0 {
                self.shared.ended.notified().await;
            }
        };
        // Whatever is left then is killed with the runtime.
        let _ = tokio::time::timeout(IDLE_GRACE * 2, all).await;
    }
}

impl State {
    fn standing_failure(&self) -> Option<String> {
        if self.failures >= PATIENCE { self.failure.clone() } else { None }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn job_waits(&self) -> bool {
        self.lock().waiting.iter().any(|reply| !reply.is_closed())
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Sleeps until `deadline`, or shorter if a job waits and `hurried`, or the pool is closed.
    /// `None` sleeps until a job waits.
    async fn pause(&self, deadline: Option<Instant>, hurried: bool) {
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.is_closed() || (hurried && self.job_waits()) {
                return;
            }
            match deadline {
                None => woken.await,
                Some(deadline) => tokio::select! {
                    () = woken => {}
                    () = sleep_until(deadline) => return,
                },
            }
        }
    }

    /// Notes a failed start; says how long to wait before the next try.
    fn failed(&self, label: &'static str, reason: String) -> Duration {
        tracing::warn!(reason, "no warm worker");
        self.metrics.worker_restarted(label);
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        state.proven = false;
        state.failure = Some(reason.clone());
        if state.failures >= PATIENCE {
            for job in state.waiting.drain(..) {
                // A job that has gone needs no answer.
                let _ = job.send(Err(reason.clone()));
            }
        }
        backoff(state.failures)
    }

    /// Notes the death of a warm worker; says how long to wait before the next start. It tells
    /// nothing about whether workers can be started, so that jobs go on waiting for one.
    fn died_idle(&self, reason: String) -> Duration {
        tracing::warn!(reason, "warm worker lost");
        self.metrics.worker_restarted("died_idle");
        let mut state = self.lock();
        state.idle_deaths = state.idle_deaths.saturating_add(1);
        state.proven = false;
        state.failure = Some(reason);
        backoff(state.idle_deaths)
    }

    fn taken(&self) {
        self.lock().idle_deaths = 0;
    }

    fn proven(&self) {
        let mut state = self.lock();
        state.failures = 0;
        state.failure = None;
        state.proven = true;
    }

    /// Lets the next job try again, where only a job makes a slot try.
    fn forgive(&self) {
        let mut state = self.lock();
        state.failures = state.failures.min(PATIENCE - 1);
    }

    async fn closing(&self) {
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.is_closed() {
                return;
            }
            woken.await;
        }
    }

    fn end_of_first(&self) {
        self.lock().first_over = true;
        self.first.notify_waiters();
    }

    async fn wait_for_first(&self) {
        loop {
            let notified = self.first.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.lock();
                if state.first_over || state.closed {
                    return;
                }
            }
            notified.await;
        }
    }
}

/// Pause after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF)
}

async fn run_slot(shared: &Shared, first: bool) {
    if !first {
        shared.wait_for_first().await;
    }
    let on_demand = shared.settings.warm == 0;
    while !shared.is_closed() {
        if on_demand {
            shared.pause(None, true).await;
        }
        let started = tokio::select! {
            biased;
            () = shared.closing() => return,
            started = Worker::start(&shared.settings.launcher, shared.settings.ready_limit) => started,
        };
        if started.is_ok() {
            shared.proven();
        }
        if first {
            shared.end_of_first();
        }
        match started {
            Ok(worker) => {
                tracing::debug!(worker = worker.pid(), "worker warm");
                match offer(shared, worker).await {
                    Ok(()) => {
                        shared.taken();
                        let until = Instant::now() + shared.settings.refill_pause;
                        shared.pause(Some(until), true).await;
                    }
                    Err(reason) => {
                        let pause = shared.died_idle(reason);
                        shared.pause(Some(Instant::now() + pause), false).await;
                    }
                }
            }
            Err(error) => {
                let pause = shared.failed(error.label(), error.to_string());
                shared.pause(Some(Instant::now() + pause), false).await;
                if on_demand {
                    shared.forgive();
                }
            }
        }
    }
}

/// Keeps a worker until a job has taken it or the pool is closed.
///
/// # Errors
/// How it broke before that.
async fn offer(shared: &Shared, mut worker: Worker) -> Result<(), String> {
    loop {
        let (slot, request) = oneshot::channel();
        {
            let mut state = shared.lock();
            while let Some(job) = state.waiting.pop_front() {
                match job.send(Ok(worker)) {
                    Ok(()) => return Ok(()),
                    Err(Ok(back)) => worker = back,
                    Err(Err(_)) => unreachable!("a worker was sent"),
                }
            }
            if !state.closed {
                state.idle.push_back(slot);
            }
        }
        tokio::select! {
            reply = request => {
                let Ok(reply) = reply else {
                    worker.end(IDLE_GRACE).await;
                    return Ok(());
                };
                match reply.send(Ok(worker)) {
                    Ok(()) => return Ok(()),
                    // The job went away at that moment; the worker is as good as before.
                    Err(Ok(back)) => worker = back,
                    Err(Err(_)) => unreachable!("a worker was sent"),
                }
            }
            () = worker.broken() => {
                // The request's end is dropped by now: a job that asks at this moment asks again.
                shared.lock().idle.retain(|slot| !slot.is_closed());
                let pid = worker.pid();
                // At the end of its connection the process is about to be gone.
                let death = worker.end(LAST_MOMENT).await;
                return Err(format!("the idle worker (pid {pid}) {death}"));
            }
        }
    }
}
