//! `rendergate serve`: everything put together, from the first log line to the exit.
//!
//! The end comes in phases, so that viewers lose as little as possible:
//!
//! | phase | begins | new jobs | running streams |
//! |---|---|---|---|
//! | running | at the start | taken | run |
//! | draining | SIGTERM or SIGINT | declined | run to their end |
//! | moving | none is left that the next gateway couldn't go on with, or as below | the socket is closed | are left to the next gateway, if it can go on with them |
//! | quitting | `shutdown.drain_seconds` after the signal | the same | write their last segment and end |
//! | aborting | `streams.quit_seconds` later, or at a second signal | the same | break off, if the next gateway couldn't go on with them |
//!
//! A stream moves only when the last one is ready to: until this gateway is gone, the next can't have
//! the socket, and the viewer would wait for as long.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use session::{GatewayToHook, HookToGateway, PROTOCOL};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::admission::Admission;
use crate::admission::file::StateFile;
use crate::cache::Cache;
use crate::config::{Config, duration};
use crate::confinement::Confinement;
use crate::connection::Connection;
use crate::first_message::{Declined, Job};
use crate::gpus::{Eyes, Gpus};
use crate::launch::{self, Launcher};
use crate::metrics::Metrics;
use crate::peer::{Allowed, Peer, group_id, supplementary_groups};
use crate::pool::{Pool, PoolSettings};
use crate::probe::{Limits, Prober};
use crate::schedule;
use crate::schedule::elsewhere::Elsewhere;
use crate::sharing::Sharing;
use crate::socket::{self, SessionSocket, SocketError};
use crate::stream;
use crate::streams::{Record, Streams, item_of};
use crate::taking::is_sent_on;
use crate::{confinement, http, logging};

/// Pause after a failed accept: it fails for want of descriptors or memory, and would fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a job waits for its predecessor in the same directory to be cleared away. Longer than
/// a worker's grace, shorter than a hook's patience; beyond it two writers are the lesser evil.
const CLEARING_LIMIT: Duration = Duration::from_millis(2500);
/// How long a hook that asks for the GPU's driver waits for the first look at it.
const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(10);
/// Beyond `streams.quit_seconds`, for clearing away.
const LAST_GRACE: Duration = Duration::from_secs(5);
/// Threads for what may wait on a disk, beside one for each connection: a copy of another viewer's
/// segment waits for room on a thread, and everybody else's jobs are still to be looked at. They end when
/// idle.
const BLOCKING_THREADS: usize = 16;

/// How far the gateway is in ending; see the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    Draining,
    Moving,
    Quitting,
    Aborting,
}

/// What every stream and every request can see.
#[derive(Debug)]
pub(crate) struct Context {
    pub config: Config,
    pub pool: Pool,
    pub gpus: Gpus,
    pub streams: Streams,
    pub elsewhere: Arc<Elsewhere>,
    pub sharing: Sharing,
    pub cache: Cache,
    pub admission: Arc<Admission>,
    pub metrics: Metrics,
    pub confinement: Confinement,
    pub phase: watch::Receiver<Phase>,
    /// When the gateway began.
    pub began: Instant,
    /// Of the gateway, and of workers at work.
    pub niceness: i32,
    allowed: Allowed,
}

impl Context {
    /// Whether a job that came now would be taken; if not, why.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        if *self.phase.borrow() > Phase::Running {
            return Err("shutting down".into());
        }
        self.pool.readiness()
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// What the encoder reports.
    pub(crate) fn render_metrics(&self) -> prometheus::Result<Vec<u8>> {
        self.admission.render(&self.streams, &self.gpus.working());
        self.metrics.render(&self.streams, self.pool.warm())
    }
}

/// Runs a gateway until it is told to stop. Must be called on the main thread (see
/// [`crate::launch`]).
///
/// # Errors
/// What keeps it from starting, for people.
pub fn serve(config: Config, file: Option<&Path>) -> anyhow::Result<()> {
    config.validate()?;
    logging::start(&config.log)?;
    match file {
        Some(file) => info!(file = %file.display(), "configuration read"),
        None => debug!("no configuration file, all defaults"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS.saturating_add(config.session.max_connections))
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .context("can't start the runtime")?;
    let result = runtime.block_on(run(config));
    // A thread may hang in a dead share; it ends with the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

async fn run(config: Config) -> anyhow::Result<()> {
    // First, so that a signal during the start isn't lost.
    let mut signals = Signals::new().context("can't listen to signals")?;
    let (socket, listener, allowed) = bind_session(&config)?;
    let http = bind_http(config.http_address()?).await?;
    let metrics = Metrics::new()?;
    let settings = pool_settings(&config, &socket)?;
    let state = StateFile::find(&config, |name| std::env::var(name).ok());
    let admission = Admission::new(config.admission.clone(), state, metrics.registry())?;
    let admission = Arc::new(admission);
    let variable = |name: &str| std::env::var(name).ok();
    let (cache, tending) = Cache::start(&config, metrics.registry(), variable)?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %socket.path().display(),
        http = http.as_ref().and_then(|l| l.local_addr().ok()).map(tracing::field::display),
        worker = %settings.launcher.program.display(),
        "listening"
    );
    let (phase, seen) = watch::channel(Phase::Running);
    let prober = Prober {
        program: settings.launcher.program.clone(),
        registry: settings.launcher.registry.clone(),
        environment: Some(settings.launcher.environment.clone()),
        limits: Limits::default(),
        progress: false,
    };
    let pool = Pool::start(settings, metrics.clone());
    let eyes = Eyes { prober, pool: pool.clone() };
    let context = Arc::new(Context {
        gpus: Gpus::look(config.gpu.backend, eyes, metrics.clone()),
        pool,
        streams: Streams::default(),
        elsewhere: Arc::default(),
        sharing: Sharing::default(),
        cache,
        admission: admission.clone(),
        metrics,
        confinement: Confinement::default(),
        phase: seen,
        began: Instant::now(),
        niceness: rustix::process::getpriority_process(None).unwrap_or(0),
        allowed,
        config,
    });
    let accepting = tokio::spawn(accept(listener, context.clone()));
    let (streams, elsewhere) = (context.streams.clone(), context.elsewhere.clone());
    let scheduling =
        tokio::spawn(schedule::run(streams, elsewhere, context.config.schedule.clone()));
    let keeping = tokio::spawn(admission.clone().keep());
    let watching = tokio::spawn(
        admission.clone().watch(context.config.gpu.proc_root.clone(), context.niceness),
    );
    let answering = http.map(|http| tokio::spawn(http::serve(http, context.clone())));
    signals.next().await;
    shut_down(&context, &phase, &mut signals, accepting).await;
    scheduling.abort();
    keeping.abort();
    watching.abort();
    tending.iter().for_each(JoinHandle::abort);
    admission.save();
    if let Some(answering) = answering {
        answering.abort();
    }
    drop(socket);
    info!("stopped");
    Ok(())
}

fn bind_session(config: &Config) -> anyhow::Result<(SessionSocket, UnixListener, Allowed)> {
    let variable = |name: &str| std::env::var(name).ok();
    let path = match &config.session.socket {
        Some(path) => path.clone(),
        None => socket::default_path(variable),
    };
    let group = match &config.session.group {
        None => None,
        Some(name) => {
            let file = std::fs::read_to_string("/etc/group").unwrap_or_default();
            let group = group_id(name, &file);
            Some(group.ok_or_else(|| SocketError::NoSuchGroup(name.clone()))?)
        }
    };
    let (socket, listener) = SessionSocket::bind(&path, group)?;
    let listener = UnixListener::from_std(listener).context("can't watch the session socket")?;
    let mut gids = config.session.allow_gids.clone();
    gids.extend(group);
    let own_uid = rustix::process::geteuid().as_raw();
    Ok((socket, listener, Allowed { own_uid, uids: config.session.allow_uids.clone(), gids }))
}

async fn bind_http(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => ": another program, perhaps another gateway, has it",
                _ => "",
            };
            anyhow::bail!(
                "can't serve HTTP on {address}: {error}{hint} \
                 (set http.listen or RENDERGATE_HTTP to another address, or to off)"
            )
        }
    }
}

fn pool_settings(config: &Config, socket: &SessionSocket) -> anyhow::Result<PoolSettings> {
    let variable = |name: &str| std::env::var(name).ok();
    let program = launch::worker_program(config.worker.program.as_deref())
        .context("can't find out where rendergate lies")?;
    let registry =
        launch::registry_path(config.worker.registry.as_deref(), socket.path().parent(), variable);
    let nice = match config.worker.warm_nice {
        nice if nice > 0 && !launch::niceness_can_be_undone() => {
            debug!("workers warm up at normal priority: a lower one couldn't be undone");
            0
        }
        nice => nice,
    };
    let mut environment = launch::worker_environment(std::env::vars_os());
    environment.extend(confinement::environment(&config.worker));
    Ok(PoolSettings {
        launcher: Launcher { program, registry, nice, environment },
        warm: config.worker.warm,
        ready_limit: duration(config.worker.ready_seconds),
        refill_pause: duration(config.worker.refill_seconds),
    })
}

async fn accept(listener: UnixListener, context: Arc<Context>) {
    let room = Arc::new(Semaphore::new(context.config.session.max_connections));
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                error!(%error, "can't accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (context, room) = (context.clone(), room.clone());
        tokio::spawn(async move {
            let Ok(_room) = room.try_acquire() else {
                let limit = context.config.session.max_connections;
                let reason = format!("{limit} connections, session.max_connections is {limit}");
                refuse(&context, socket, "max_connections", reason).await;
                return;
            };
            if let Err(error) = welcome(&context, socket).await {
                debug!(%error, "connection dropped");
            }
        });
    }
}

async fn refuse(context: &Context, socket: UnixStream, label: &'static str, reason: String) {
    warn!(reason, "connection refused");
    context.metrics.bad_connection(label);
    let declined = Declined::new(label, reason);
    crate::taking::decline(context, &mut Connection::new(socket), declined, false).await;
}

/// A connection up to its job, and the stream of that job.
async fn welcome(context: &Arc<Context>, socket: UnixStream) -> io::Result<()> {
    let arrived = Instant::now();
    let peer = Peer::of(&socket)?;
    if !context.allowed.admits(peer, supplementary_groups) {
        let reason = format!(
            "{peer} may not hand in jobs (session.allow_uids, session.allow_gids, session.group)"
        );
        refuse(context, socket, "peer", reason).await;
        return Ok(());
    }
    let mut hook = Connection::new(socket);
    let limit = duration(context.config.session.first_message_seconds);
    let first = match timeout(limit, hook.receive::<HookToGateway>()).await {
        Ok(Ok(Some(first))) => first,
        // Somebody asked whether anybody answers.
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => {
            warn!(%peer, %error, "connection dropped");
            context.metrics.bad_connection(error.label());
            return Ok(());
        }
        Err(_) => {
            warn!(%peer, ?limit, "connection dropped: no job in time");
            context.metrics.bad_connection("timeout");
            return Ok(());
        }
    };
    if let HookToGateway::Driver { protocol } = first.message {
        if protocol != PROTOCOL {
            // No job is declined: none was handed in.
            context.metrics.bad_connection("protocol");
            let reason = format!("the hook speaks protocol {protocol}, this gateway {PROTOCOL}");
            let _ = hook.queue(&GatewayToHook::Declined { reason }, Vec::new());
            let _ = hook.flush(LAST_GRACE).await;
            return Ok(());
        }
        let driver = context.gpus.driver(FIRST_LOOK_LIMIT).await;
        // A hook that has gone wants to know nothing any more.
        let _ = hook.queue(&GatewayToHook::Driver { driver }, Vec::new());
        let _ = hook.flush(LAST_GRACE).await;
        return Ok(());
    }
    let item = match &first.message {
        HookToGateway::Job { transcode, .. } => item_of(transcode),
        _ => String::new(),
    };
    let checked = tokio::task::spawn_blocking(|| Job::check(first)).await;
    let taken_over = matches!(&checked, Ok(Ok(job)) if job.takeover.is_some());
    let admitted = match checked {
        Ok(Ok(job)) => admit(context, job, peer).await,
        Ok(Err(declined)) => Err(declined),
        Err(error) => Err(Declined::new("check", error.to_string())),
    };
    match admitted {
        Ok((entry, job)) => {
            let item = entry.with(|record| record.item.clone());
            let span = info_span!("stream", id = %entry.id(), item);
            async {
                if let Some(stream) = stream::start(context, entry, hook, job, arrived).await {
                    stream.run().await;
                }
            }
            .instrument(span)
            .await;
        }
        Err(declined) => {
            // It comes back ten times a second until this gateway is gone.
            if !is_sent_on(context, taken_over) {
                context.streams.declined(item, &declined.reason);
            }
            crate::taking::decline(context, &mut hook, declined, taken_over).await;
        }
    }
    Ok(())
}

async fn admit(
    context: &Context,
    job: Job,
    peer: Peer,
) -> Result<(crate::streams::Entry, Job), Declined> {
    if *context.phase.borrow() > Phase::Running {
        return Err(Declined::shutting_down());
    }
    let key = job.output.key();
    if timeout(CLEARING_LIMIT, context.streams.wait_for_cleared(key)).await.is_err() {
        warn!("the stream before in the same directory is still being cleared away");
    }
    let record = Record::new(&job.transcode, key.clone(), peer.pid);
    // Of a stream that another gateway has begun the real ffmpeg can't make the rest.
    let limit = match job.takeover {
        Some(_) => 0,
        None => context.config.streams.max_streams,
    };
    let entry = context.streams.enter(record, limit)?;
    Ok((entry, job))
}

async fn shut_down(
    context: &Context,
    phase: &watch::Sender<Phase>,
    signals: &mut Signals,
    accepting: JoinHandle<()>,
) {
    let streams = &context.streams;
    let drain = duration(context.config.shutdown.drain_seconds);
    info!(streams = streams.count(), drain_seconds = drain.as_secs_f64(), "shutting down");
    // Nobody can have dropped the receivers: the context holds one.
    let _ = phase.send(Phase::Draining);
    let graceful = async {
        // Warm workers are of no more use; their memory is.
        tokio::join!(context.pool.close(), async {
            let drained = timeout(drain, streams.wait_for_only_movable()).await.is_ok();
            // Whoever is let go must find the next gateway behind the socket, or nobody.
            accepting.abort();
            let _ = accepting.await;
            if drained {
                let _ = phase.send(Phase::Moving);
            } else {
                info!(streams = streams.count(), "drained; asking for the last segments");
                let _ = phase.send(Phase::Quitting);
            }
            let quit = duration(context.config.streams.quit_seconds) + LAST_GRACE;
            let _ = timeout(quit, streams.wait_for_none()).await;
        });
    };
    tokio::select! {
        () = graceful => {}
        () = signals.next() => info!("second signal: stopping at once"),
    }
    let _ = phase.send(Phase::Aborting);
    if timeout(LAST_GRACE, streams.wait_for_none()).await.is_err() {
        error!(streams = streams.count(), "streams can't be cleared away");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
