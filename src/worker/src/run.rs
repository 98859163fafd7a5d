//! The life of a worker: warm up, take one stream, run it, end.
//!
//! ```text
//! control socket ─ reader thread ─┐
//! appsinks ─ streaming threads ───┼─▶ one channel ─▶ this thread: muxer, messages out
//! pipeline bus ─ sync handler ────┘
//! ```
//!
//! How a stream ends:
//! - **End of input**: every track ends, the last segment and the playlist, or the file's end, are
//!   written: `Complete`.
//! - **`Quit`**: the gate lets nothing more into the encoders, which empty themselves; then as
//!   above: `Quit`.
//! - **`Quit` while a network input is awaited**: the input is closed, which is its end for whoever
//!   reads it; then as above, or `Quit` at once if it wasn't even opened.
//! - **`Quit` while there is no room on the disk** ([`crate::room`]): at the last whole segment; what
//!   couldn't be written whole is removed: `Quit`.
//! - **Broken input**: as `Quit`, if anything was decoded: what there is gets written, as ffmpeg
//!   does at a truncated file. With nothing decoded: `Failed`.
//! - **Gateway gone, output unwritable, encoder failed**: temporary files are removed, `Failed`. Of one
//!   file stays what was written, as with ffmpeg.

use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ffmpeg_args::Transcode;
use gstreamer as gst;
use gstreamer::prelude::*;
use hls::{Room, Sample};
use sandbox::{Held, Work};
use session::{
    Channel, Control, Ending, Fault, GatewayToWorker, PROTOCOL, Progress, Received, Resumption,
    StreamId, WorkerToGateway,
};

use crate::admission::{Asker, tell_cpu_time};
use crate::confinement::Confinement;
use crate::elements;
use crate::link::{Gpu, Inputs, Linked, link, open_sources};
use crate::listen::listen;
use crate::meter::Meter;
use crate::opened::{Bytes, Opened};
use crate::pipeline::Output;
use crate::reading::Reading;
use crate::room;
use crate::seam::{Notes, State};
use crate::source::describe_error;
use crate::stages::Stages;
use crate::subtitles;
use crate::timeline::Gate;
use crate::writer::{Muxer, Writer, failed, write_failed};

/// Time between two progress messages; ffmpeg's own is half a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long encoders may take to empty themselves after `Quit`. Jellyfin kills after five seconds.
const DRAIN: Duration = Duration::from_secs(3);
/// An input that ends so much before its header says gets a line; streams never end all at once.
const CUT_SHORT_NS: i64 = 5_000_000_000;
/// Samples between streaming threads and writer.
const CHANNEL: usize = 64;

/// Whatever wakes the worker's main thread.
#[derive(Debug)]
pub(crate) enum Wake {
    Output(Output),
    Run(usize),
    Control(Control),
    Horizon(Option<Duration>),
    GatewayLost,
}

/// Runs a worker on its control socket: announces itself, takes one stream, returns at its end.
/// `before` is called when there is a stream: until then the process has one thread, which
/// [`Confinement::enter`] needs.
///
/// # Errors
/// If GStreamer or the control socket fail before there is a stream to report it with.
pub fn run(socket: OwnedFd, before: impl FnOnce() -> io::Result<()>) -> anyhow::Result<()> {
    gst::init()?;
    elements::register()?;
    let stages = Stages::shipped()?;
    warm_up();
    let confinement = Confinement::prepare(|name| std::env::var(name).ok());
    let mut channel = Channel::new(socket);
    let (lease, held) = io::pipe()?;
    channel.send(&WorkerToGateway::Ready { protocol: PROTOCOL }, &[lease.as_fd()])?;
    drop(lease);
    // Stays open for the life of the process. Programs that are started don't inherit it.
    _ = held.into_raw_fd();
    let Some(Received { message, descriptors }) = channel.receive::<GatewayToWorker>()? else {
        return Ok(());
    };
    let GatewayToWorker::Start { stream, transcode, devices, software, proc_root, resumption } =
        message
    else {
        anyhow::bail!("expected a stream to start, got {message:?}");
    };
    let socket = channel.socket().try_clone()?;
    let gpu = Gpu { devices: &devices, software };
    let order = Order {
        stages: &stages,
        id: stream,
        plan: &transcode,
        gpu,
        proc_root: &proc_root,
        resumption: resumption.as_deref(),
    };
    let ending = match prepare(order, confinement, &socket, descriptors) {
        Ok((opened, _held)) => {
            before()?;
            Stream::run(order, channel, opened)
        }
        Err(ending) => ending,
    };
    // Nobody may be left to hear it.
    let _ = session::send(socket.as_fd(), &WorkerToGateway::Ended(ending), &[]);
    Ok(())
}

/// What most of Jellyfin's streams need. The rest loads when it is needed: a few milliseconds then,
/// instead of megabytes in every worker that waits.
const COMMON: [&str; 13] = [
    "matroskademux",
    "qtdemux",
    "h264parse",
    "avdec_h264",
    "aacparse",
    "avdec_aac",
    "queue",
    "capsfilter",
    "audioconvert",
    "audioresample",
    "avenc_aac",
    "x264enc",
    "appsink",
];

/// Loads the plugins that most streams need, so that their first segment needn't wait for it.
fn warm_up() {
    for name in COMMON {
        // Making one runs the class initialisers too.
        let _ = gst::ElementFactory::make(name).build();
    }
    // The type finders are a plugin of their own.
    let _ = gstreamer_base::type_find_helper_for_data(gst::Object::NONE, b"warm");
}

/// Gives descriptors their meaning and enters the sandbox, for as long as what is returned lives.
fn prepare(
    order: Order<'_>,
    confinement: Confinement,
    socket: &OwnedFd,
    descriptors: Vec<OwnedFd>,
) -> Result<(Opened, Option<Held>), Ending> {
    let opened = Opened::sort(order.plan, descriptors)?;
    let held = confinement.enter(
        Work {
            output: opened.output.as_fd(),
            goes_on: order.resumption.is_some(),
            fonts: opened.fonts.as_ref().map(AsFd::as_fd),
            gpu: !order.gpu.devices.is_empty(),
            proc_root: order.proc_root,
        },
        // If the gateway is gone, the reader thread says so.
        |sandbox| drop(session::send(socket.as_fd(), &WorkerToGateway::Sandboxed(sandbox), &[])),
    )?;
    Ok((opened, held))
}

/// What a worker is told to do.
#[derive(Clone, Copy)]
struct Order<'a> {
    stages: &'a Stages,
    id: StreamId,
    plan: &'a Transcode,
    gpu: Gpu<'a>,
    proc_root: &'a Path,
    resumption: Option<&'a Resumption>,
}

/// A running stream.
struct Stream {
    channel: OwnedFd,
    pipeline: gst::Pipeline,
    gate: Arc<Gate>,
    wakes: Receiver<Wake>,
    writer: Writer,
    /// Where it is written.
    room: Arc<Room>,
    /// If a GPU has a part in it.
    meter: Option<Meter>,
    readings: Vec<Arc<Reading>>,
    reported: Instant,
    quitting: Option<Instant>,
    /// Beyond this media time no more input is taken for now.
    horizon: Option<Duration>,
    broken_input: Option<String>,
    /// When the inputs should end, ns of source time, if their headers say.
    announced_end_ns: Option<i64>,
}

impl Stream {
    fn run(order: Order<'_>, channel: Channel, opened: Opened) -> Ending {
        let Ok(socket) = channel.socket().try_clone() else {
            return failed("out of file descriptors", Fault::Worker);
        };
        match Self::start(order, channel, opened) {
            Ok((mut stream, linked)) => {
                let message = WorkerToGateway::Running {
                    backend: linked.backend.to_owned(),
                    node: linked.node,
                    reason: linked.reason,
                    source: linked.source,
                    description: linked.description,
                };
                let _ = session::send(socket.as_fd(), &message, &[]);
                let ending = stream.drive();
                // Streaming threads may sit in a full channel; nobody reads it any more.
                stream.gate.stop();
                stream.meter.iter_mut().for_each(Meter::read);
                tell_cpu_time(&stream.channel);
                let Stream { pipeline, wakes, .. } = stream;
                drop(wakes);
                let _ = pipeline.set_state(gst::State::Null);
                ending
            }
            Err(ending) => ending,
        }
    }

    /// Builds and starts the graph; returns it with what was built.
    fn start(order: Order<'_>, channel: Channel, opened: Opened) -> Result<(Self, Linked), Ending> {
        let pipeline = gst::Pipeline::new();
        let started = Self::start_in(&pipeline, order, channel, opened);
        if started.is_err() {
            let _ = pipeline.set_state(gst::State::Null);
        }
        started
    }

    fn start_in(
        pipeline: &gst::Pipeline,
        order: Order<'_>,
        channel: Channel,
        mut opened: Opened,
    ) -> Result<(Self, Linked), Ending> {
        let Order { stages, id, plan, gpu, proc_root, resumption } = order;
        let begin = resumption.map(state_of).transpose()?;
        let worker = |error: io::Error| failed(error.to_string(), Fault::Worker);
        // Elements that join it take on its state, so that data finds all of them awake.
        pipeline
            .set_state(gst::State::Paused)
            .map_err(|_| failed("the pipeline doesn't start", Fault::Worker))?;
        let (wake, wakes) = sync_channel(CHANNEL);
        let socket = Arc::new(channel.socket().try_clone().map_err(worker)?);
        let subtitles = subtitles::open(plan, &mut opened)?;
        let readings = read_all(opened.inputs)?;
        // A network input may take its time, in which the viewer may go away.
        let room = room::of_stream(Arc::clone(&socket));
        listen(channel, wake.clone(), readings.clone(), Arc::clone(&room));
        let opening = Opening::report(Arc::clone(&socket), readings.clone());
        let sources = open_sources(pipeline, stages, plan, &readings);
        opening.over();
        // One that was closed because nobody wants it any more hasn't failed.
        let sources =
            sources.map_err(|ending| if room.has_quit() { Ending::Quit } else { ending })?;
        let notes = Resumption::possible(plan).map(|_| Notes::default());
        let inputs = Inputs { sources, subtitles, begin: begin.clone(), notes: notes.clone() };
        let gate = Arc::new(Gate::default());
        let (send, outputs) = sync_channel(CHANNEL);
        forward(outputs.into_iter().map(Wake::Output), wake.clone());
        let mut asker = Asker { gpu, socket: &socket, wakes: &wakes, wake: &wake, has_quit: false };
        let linked = link(pipeline, stages, plan, &mut asker, inputs, &gate, &send);
        let linked = linked.map_err(|error| match asker.has_quit {
            true => Ending::Quit,
            false => error.into(),
        })?;
        watch_bus(pipeline, wake.clone());
        let tag = id.writer_tag(std::process::id());
        let copied = linked.copied.clone();
        let mut writer =
            Writer::new(plan, copied, opened.output, tag, Arc::clone(&socket), Arc::clone(&room));
        writer.expected_end_ns = linked.last_end_ns;
        (writer.notes, writer.sound_encoder) = (notes, linked.sound_encoder);
        if let Some((state, resumption)) = begin.as_ref().zip(resumption) {
            writer.resume(state, resumption)?;
        }
        let stream = Self {
            channel: socket.try_clone().map_err(worker)?,
            pipeline: pipeline.clone(),
            gate,
            wakes,
            writer,
            room,
            meter: linked.node.is_some().then(|| Meter::new(proc_root, Arc::clone(&socket))),
            readings,
            reported: Instant::now(),
            quitting: None,
            horizon: None,
            broken_input: None,
            announced_end_ns: linked.announced_end_ns,
        };
        pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| failed("the pipeline doesn't start", Fault::Worker))?;
        Ok((stream, linked))
    }

    /// Takes samples and commands until the end.
    fn drive(&mut self) -> Ending {
        loop {
            let wait = self.quitting.map_or(PROGRESS_EVERY, |until| {
                until.saturating_duration_since(Instant::now()).min(PROGRESS_EVERY)
            });
            let step = match self.wakes.recv_timeout(wait) {
                Ok(Wake::Output(output)) => self.output(output),
                Ok(Wake::Control(control)) => self.control(control),
                Ok(Wake::Horizon(horizon)) => {
                    self.horizon = horizon;
                    Ok(())
                }
                Ok(Wake::GatewayLost) | Err(RecvTimeoutError::Disconnected) => {
                    Err(failed("the gateway is gone", Fault::Gateway))
                }
                // It runs already.
                Ok(Wake::Run(_)) => Ok(()),
                Err(RecvTimeoutError::Timeout) => Ok(()),
            };
            if let Err(ending) = step {
                return self.abort_or_settle(ending);
            }
            let overdue = self.quitting.is_some_and(|until| Instant::now() >= until);
            if overdue || self.writer.is_complete(self.quitting.is_some()) {
                return self.finish();
            }
            self.hold();
            self.report();
        }
    }

    fn output(&mut self, output: Output) -> Result<(), Ending> {
        match output {
            Output::Sample { track, caps, pts, dts, duration, keyframe, data } => {
                if let Some(caps) = caps {
                    self.writer.format(track, &caps)?;
                }
                self.writer.push(Sample { track, pts, dts, duration, keyframe, data })
            }
            Output::End { track } => self.writer.end(track),
            // Elements that are cut off may complain of it; what they gave before is written.
            Output::Error { .. } if self.quitting.is_some() => Ok(()),
            Output::Error { message, fault: Fault::Input } if self.writer.has_begun() => {
                self.broken_input.get_or_insert(message);
                self.quit();
                Ok(())
            }
            Output::Error { message, fault } => Err(failed(message, fault)),
        }
    }

    fn control(&mut self, control: Control) -> Result<(), Ending> {
        self.writer.all_or_nothing |= control == Control::Quit;
        match control {
            Control::Quit => self.quit(),
            Control::Pause | Control::Resume => {
                let paused = control == Control::Pause;
                self.gate.pause(paused);
            }
        }
        Ok(())
    }

    /// Takes no more input beyond the horizon. What is on its way between input and writer comes
    /// through all the same.
    fn hold(&self) {
        let Some(counters) = self.writer.muxer.as_ref().map(Muxer::counters) else {
            return;
        };
        let held = self.horizon.is_some_and(|horizon| position(&counters) >= horizon);
        if held != self.gate.is_held() {
            self.gate.hold(held);
        }
    }

    fn quit(&mut self) {
        self.gate.stop();
        // Whoever waits for bytes sees the gate only when there are some.
        self.readings.iter().for_each(|reading| reading.close());
        self.quitting.get_or_insert_with(|| Instant::now() + DRAIN);
    }

    fn finish(&mut self) -> Ending {
        let counters = match self.writer.muxer.as_mut().map(Muxer::finish) {
            Some(Ok(counters)) => counters,
            Some(Err(error)) => return self.abort_or_settle(write_failed(&error)),
            None if self.quitting.is_some() && self.broken_input.is_none() => return Ending::Quit,
            None => return failed("the input holds nothing to write", Fault::Input),
        };
        self.send_progress(&counters);
        if let Some(message) = self.broken_input.take() {
            self.log(format!("the input breaks off: {message}"));
            return Ending::Complete;
        }
        if self.quitting.is_some() {
            return Ending::Quit;
        }
        // Demuxers take a file's end for the end, wherever it is.
        if let Some((end, announced)) = counters.position_ns.zip(self.announced_end_ns)
            && announced - end > CUT_SHORT_NS
        {
            let [end, announced] = [end, announced].map(|ns| ns as f64 / 1e9);
            self.log(format!("the input breaks off at {end:.1} s of {announced:.1} s"));
        }
        Ending::Complete
    }

    fn log(&self, line: String) {
        let _ = session::send(self.channel.as_fd(), &WorkerToGateway::Log { line }, &[]);
    }

    /// After a failure; it is none that the viewer has quit while there was no room for the rest.
    fn abort_or_settle(&mut self, ending: Ending) -> Ending {
        let muxer = self.writer.muxer.take();
        if self.room.is_given_up() {
            if let Some(muxer) = muxer {
                self.send_progress(&muxer.settle());
            }
            return Ending::Quit;
        }
        muxer.into_iter().for_each(Muxer::abort);
        ending
    }

    fn report(&mut self) {
        if self.reported.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.reported = Instant::now();
        let waiting = self.readings.iter().any(|reading| reading.is_waiting());
        let alive = WorkerToGateway::Alive {
            decoded: self.gate.passed(),
            waiting: waiting || self.gate.is_timing() || self.gate.is_held(),
        };
        let _ = session::send(self.channel.as_fd(), &alive, &[]);
        self.meter.iter_mut().for_each(Meter::read);
        tell_cpu_time(&self.channel);
        if let Some(counters) = self.writer.muxer.as_ref().map(Muxer::counters) {
            self.send_progress(&counters);
        }
    }

    fn send_progress(&self, counters: &hls::Counters) {
        let source = counters.position_ns.or(counters.first_pts_ns).unwrap_or(0);
        let progress = Progress {
            frames: counters.frames,
            position_us: u64::try_from(position(counters).as_micros()).unwrap_or(u64::MAX),
            source_us: source / 1000,
            bytes: counters.bytes,
            elapsed_us: u64::try_from(self.gate.running().as_micros()).unwrap_or(u64::MAX),
        };
        // If the gateway is gone, the reader thread says so.
        let _ = session::send(self.channel.as_fd(), &WorkerToGateway::Progress(progress), &[]);
    }
}

/// Where another worker has come to.
fn state_of(resumption: &Resumption) -> Result<State, Ending> {
    let state = resumption.state.clone().unwrap_or_default();
    serde_json::from_value(state)
        .map_err(|error| failed(format!("can't go on with the stream: {error}"), Fault::Worker))
}

/// Media time written, from the first frame on.
fn position(counters: &hls::Counters) -> Duration {
    let written = counters.position_ns.zip(counters.first_pts_ns).map(|(end, first)| end - first);
    Duration::from_nanos(written.unwrap_or(0).max(0).unsigned_abs())
}

/// Samples and errors of the graph, and what the gateway says, join the worker's one channel.
pub(crate) fn forward(
    from: impl IntoIterator<Item = Wake, IntoIter: Send> + Send + 'static,
    wake: SyncSender<Wake>,
) {
    thread::spawn(move || {
        for each in from {
            if wake.send(each).is_err() {
                return;
            }
        }
    });
}

/// Errors of elements, at once and from whichever thread they come.
fn watch_bus(pipeline: &gst::Pipeline, wake: SyncSender<Wake>) {
    let Some(bus) = pipeline.bus() else { return };
    // A full channel must not stop the thread that posts. And the first complaint stays the first: when
    // an encoder fails, the demuxer complains next that nobody takes its packets.
    let (complain, complaints) = channel();
    forward(complaints.into_iter().map(Wake::Output), wake);
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::Error(_) = message.view() {
            let output = Output::Error { message: describe_error(message), fault: blame(message) };
            let _ = complain.send(output);
        }
        gst::BusSyncReply::Drop
    });
}

/// Demuxers, parsers and decoders fail because of what they read; on a GPU they may as well have
/// failed by themselves, and a film that is whole must not pass for one that breaks off.
fn blame(message: &gst::Message) -> Fault {
    let element = message.src().and_then(|src| src.downcast_ref::<gst::Element>());
    let factory = element.and_then(gst::Element::factory);
    if factory.as_ref().and_then(|factory| factory.plugin_name()).as_deref() == Some("va") {
        return Fault::Device;
    }
    let class = factory
        .and_then(|factory| factory.metadata("klass").map(str::to_owned))
        .unwrap_or_default();
    let reads = ["Demux", "Parser", "Decoder", "Source"].iter().any(|part| class.contains(part));
    if reads { Fault::Input } else { Fault::Worker }
}

/// The bytes of all inputs.
fn read_all(inputs: Vec<Bytes>) -> Result<Vec<Arc<Reading>>, Ending> {
    let readings = inputs.into_iter().map(|bytes| Reading::new(bytes).map(Arc::new));
    readings.collect::<Result<_, _>>().map_err(|error| failed(error.to_string(), Fault::Input))
}

/// While inputs are opened the main thread waits for them; another tells the gateway that it does.
struct Opening {
    over: Sender<()>,
    reporter: thread::JoinHandle<()>,
}

impl Opening {
    fn report(socket: Arc<OwnedFd>, readings: Vec<Arc<Reading>>) -> Self {
        let (over, is_over) = channel::<()>();
        let reporter = thread::spawn(move || {
            while is_over.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Timeout) {
                let waiting = readings.iter().any(|reading| reading.is_waiting());
                let alive = WorkerToGateway::Alive { decoded: 0, waiting };
                let _ = session::send(socket.as_fd(), &alive, &[]);
            }
        });
        Self { over, reporter }
    }

    /// From here on the socket is the caller's.
    fn over(self) {
        drop(self.over);
        let _ = self.reporter.join();
    }
}
