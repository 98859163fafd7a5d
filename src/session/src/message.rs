//! What hook, gateway and worker say to each other.
//!
//! ```text
//! hook     ── HookToGateway ──▶ gateway ── GatewayToWorker ──▶ worker
//! hook     ◀── GatewayToHook ── gateway ◀── WorkerToGateway ── worker
//! ```
//!
//! Invariants:
//! - The first message of a hook is [`HookToGateway::Job`], with the descriptors of
//!   [`Transcode::needs`]. The answer is `Accepted` or `Declined`; until `Committed` the hook
//!   may still run the real ffmpeg instead.
//! - A lost connection is a message too: to the gateway it says that the hook is gone (the stream
//!   ends), to the hook that the gateway is gone (it looks for the next one, if the stream can be gone
//!   on with).
//! - Times are microseconds relative to the first output frame unless named otherwise.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ffmpeg_args::Transcode;
use gpu::{Device, Engine, Reason, Work};
use serde::{Deserialize, Serialize};

use crate::{Complete, Resumption, Takeover};

/// Version of this language. Both sides refuse another one: they are installed together.
pub const PROTOCOL: u32 = 8;

/// Number of a stream, unique within a gateway's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u64);

impl StreamId {
    /// What marks the temporary files of the worker process with this id that writes the stream
    /// (`hls::directory::sweep`). The process is named too: a gateway that comes back counts its
    /// streams from one again, while a worker of its predecessor may still be clearing away.
    pub fn writer_tag(self, worker_pid: u32) -> String {
        format!("{self}w{worker_pid}")
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// A process that writes a stream's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// As its gateway counts.
    pub stream: StreamId,
    /// Its process id; 0 for the gateway itself.
    pub pid: u32,
}

impl Writer {
    /// See [`StreamId::writer_tag`].
    pub fn tag(self) -> String {
        self.stream.writer_tag(self.pid)
    }
}

/// From the hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HookToGateway {
    /// A stream to run. Descriptors: one for each of [`Transcode::needs`], in order.
    Job {
        /// [`PROTOCOL`] of the hook.
        protocol: u32,
        /// What to do.
        transcode: Box<Transcode>,
        /// Whether the hook goes on with the next gateway when this one is lost or lets go of it.
        #[serde(default)]
        reconnects: bool,
        /// Where another gateway has come to with it, if it isn't begun.
        #[serde(default)]
        takeover: Option<Box<Takeover>>,
    },
    /// A key from Jellyfin, or a signal.
    Control(Control),
    /// In place of a job: which VA-API driver do streams run on? The answer is
    /// [`GatewayToHook::Driver`].
    Driver {
        /// [`PROTOCOL`] of the hook.
        protocol: u32,
    },
}

/// What the viewer's side asks of a running stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// `q` or SIGTERM: write what there is as the last segment, then end.
    Quit,
    /// `p`: take no more input for now.
    Pause,
    /// `u`: go on.
    Resume,
}

/// To the hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GatewayToHook {
    /// A worker has the stream.
    Accepted {
        /// Its number.
        stream: StreamId,
        /// [`PROTOCOL`] of the gateway.
        protocol: u32,
    },
    /// The stream can't be run; nothing has been written. The hook runs the real ffmpeg.
    Declined {
        /// Why, for people.
        reason: String,
    },
    /// There is no room for the stream, which is said next: the ffmpeg that runs it instead, on the
    /// same processor, is to leave that to the streams for which there is.
    StepAside {
        /// What to add to its niceness, up to 19.
        niceness: u8,
    },
    /// A process is about to write the stream's files; the one before is reaped. One descriptor, the
    /// worker's lease: see [`WorkerToGateway::Ready`]. None if the gateway itself writes, whose end the
    /// connection tells.
    Writer {
        /// Whose temporary files are whose.
        writer: Writer,
    },
    /// The worker's graph runs; a line for the log that says how.
    Running {
        /// Which backend, for example `software`.
        backend: String,
        /// One line: decoder, filters, encoder.
        description: String,
    },
    /// The first file is about to appear: from here on there is no falling back to ffmpeg.
    Committed,
    /// A segment stands complete under its final name.
    SegmentComplete {
        /// Its number.
        number: u64,
        /// For whoever goes on behind it.
        complete: Complete,
    },
    /// Where the stream is; at most twice a second.
    Progress(Progress),
    /// A line for Jellyfin's log.
    Log {
        /// Without line end.
        line: String,
    },
    /// The stream is over; the last message.
    Ended(Ending),
    /// The gateway stops and nobody writes any more: the stream goes on with the next one. Said only to
    /// a hook that reconnects; the last message.
    LetGo,
    /// The answer to [`HookToGateway::Driver`]; the last message.
    Driver {
        /// The driver's own name and version, of the GPU that the next stream would get.
        driver: Option<String>,
    },
}

/// The picture of a stream's source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePicture {
    /// `h264`, `hevc`, as ffmpeg names codecs.
    pub codec: String,
    /// Width and height in pixels before any turning, if the container states them.
    pub size: Option<(u32, u32)>,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Frames (video) or packets (audio only) written.
    pub frames: u64,
    /// Media time written, relative to the first frame.
    pub position_us: u64,
    /// Same, on the source's clock.
    pub source_us: i64,
    /// Bytes in segments so far.
    pub bytes: u64,
    /// Wall time since the start without pauses.
    pub elapsed_us: u64,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Ending {
    /// Everything written, playlist too.
    Complete,
    /// As asked by [`Control::Quit`]; last partial segment and playlist written.
    Quit,
    /// It broke off. Whole segments stay, nothing partial does.
    Failed {
        /// For people.
        reason: String,
        /// Whose fault it was.
        fault: Fault,
    },
}

/// Whose fault a failure is; decides whether another try can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The file: damaged, or not what the command says.
    Input,
    /// The output directory: gone, full, read only.
    Output,
    /// The plan asks for what this installation lacks.
    Unsupported,
    /// GPU or driver.
    Device,
    /// The worker process died or hung.
    Worker,
    /// The gateway is shutting down or out of room.
    Gateway,
}

/// What holds a worker in from the first byte of media on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The ABI of Landlock that is in force, if it is.
    pub landlock: Option<u32>,
    /// Whether seccomp is.
    pub seccomp: bool,
    /// What isn't, and why, for people.
    pub missing: Option<String>,
}

/// To a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GatewayToWorker {
    /// The one stream of this process, with the descriptors of [`HookToGateway::Job`].
    Start {
        /// Its number, for logs.
        stream: StreamId,
        /// What to do.
        transcode: Box<Transcode>,
        /// The GPUs that it may use, at most one of them; of equals the first is preferred.
        devices: Vec<Device>,
        /// Whether it may do without.
        software: bool,
        /// Where the worker finds what the kernel says of its processes: `/proc`, or what stands for
        /// it in a test.
        proc_root: PathBuf,
        /// Where another worker has come to with it, if it isn't begun.
        resumption: Option<Box<Resumption>>,
    },
    /// The answer to [`WorkerToGateway::Options`]: how the stream is to be run. A gateway that has no
    /// room for it closes the connection instead.
    Run {
        /// Which of the options.
        option: usize,
    },
    /// As the hook's.
    Control(Control),
    /// How far ahead the stream may be for now.
    Horizon {
        /// Media time from the first frame on; beyond it no more input is taken. `None` without one.
        position_us: Option<u64>,
    },
}

/// From a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WorkerToGateway {
    /// Warm: libraries loaded, a stream may be given. One descriptor, the worker's lease: the reading end
    /// of a pipe whose other end nobody but the worker has, and that nobody writes to. Its end is the end
    /// of the process, whoever its parent was, with everything that it could still have written.
    Ready {
        /// [`PROTOCOL`] of the worker.
        protocol: u32,
    },
    /// The stream has been read, its media not yet. Isn't said if no sandbox is wanted.
    Sandboxed(Sandbox),
    /// The source is open, and nothing is built yet: the ways in which the picture can be encoded, and
    /// what each asks for. The best comes first. Told if there is a picture to encode; the answer is
    /// [`GatewayToWorker::Run`].
    Options {
        /// Not empty.
        options: Vec<Work>,
    },
    /// Processor time of the worker since it began, all threads; before [`Options`](Self::Options),
    /// twice a second, and at the end of the stream.
    CpuTime {
        /// Microseconds.
        cpu_us: u64,
    },
    /// The graph is built and runs.
    Running {
        /// `vaapi`, `mixed` (one of decoder and encoder on the GPU) or `software`.
        backend: String,
        /// The GPU's node, if it runs on one.
        node: Option<PathBuf>,
        /// Why it isn't all on the GPU.
        reason: Option<Reason>,
        /// The picture that goes in, if there is one.
        source: Option<SourcePicture>,
        /// One line for people.
        description: String,
    },
    /// The stream moves or waits, though nothing may come of it yet; twice a second, from the start.
    Alive {
        /// Pictures and sounds decoded (or packets copied) so far, those before the start too.
        decoded: u64,
        /// It waits for its input: for a network that sends nothing, or for the time at which
        /// `-readrate` lets the next packet pass; or it is held at its horizon, or waits for room on the
        /// disk. That may last, and isn't standing still.
        waiting: bool,
    },
    /// The output's disk is full, and the stream waits for room; or it has found some. While it waits it
    /// says that it is alive.
    Room {
        /// It waits.
        waiting: bool,
    },
    /// What the stream has had of the GPU's engines since it began; twice a second, and at its end.
    GpuTime {
        /// By class, under the names of [`gpu::Client::engines`].
        engines: BTreeMap<String, Engine>,
        /// The driver doesn't say.
        withheld: bool,
    },
    /// See [`GatewayToHook::Committed`].
    Committed,
    /// See [`GatewayToHook::SegmentComplete`].
    SegmentComplete {
        /// Its number.
        number: u64,
        /// For whoever goes on behind it.
        complete: Complete,
    },
    /// See [`GatewayToHook::Progress`].
    Progress(Progress),
    /// See [`GatewayToHook::Log`].
    Log {
        /// Without line end.
        line: String,
    },
    /// The stream is over; the worker exits.
    Ended(Ending),
}
