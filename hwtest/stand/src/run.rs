//! A gateway of a few lines: starts a worker, gives it a plan, listens to the end.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ffmpeg_args::{Need, Transcode};
use session::{
    Channel, Control, Ending, GatewayToWorker, Progress, Received, Resumption, Sandbox, StreamId,
    WorkerToGateway,
};

use crate::{built, gpu};

/// Longest wait for a worker that should exit.
const EXIT: Duration = Duration::from_secs(10);

/// Worker and socket of one run.
#[derive(Debug)]
pub struct Run {
    /// The worker.
    pub child: Child,
    /// The gateway's end of its socket.
    pub channel: Channel,
    /// Its lease.
    pub lease: OwnedFd,
    /// When it was given its plan.
    pub started: Instant,
    /// Where another worker could go on with it.
    pub resumption: Option<Resumption>,
}

/// What a run said until it ended.
#[derive(Debug, Default)]
pub struct Report {
    /// How it ended, if it said so.
    pub ending: Option<Ending>,
    /// Numbers of segments, and when after the start they were complete.
    pub segments: Vec<(u64, Duration)>,
    /// Something was written.
    pub committed: bool,
    /// That it waits for room on the disk, or does no longer, in order.
    pub rooms: Vec<bool>,
    /// What held it in, if it said so.
    pub sandbox: Option<Sandbox>,
    /// `vaapi`, `mixed` or `software`.
    pub backend: String,
    /// Why not all of it is on the GPU.
    pub reason: Option<String>,
    /// Decoder, filters, encoder.
    pub description: String,
    /// The last of it.
    pub progress: Progress,
    /// The worker's processor time.
    pub processor: Duration,
    /// What all engines of the GPU have worked for it, if the driver says so.
    pub gpu: Option<Duration>,
    /// For Jellyfin's log.
    pub lines: Vec<String>,
    /// From the plan to the last message.
    pub elapsed: Duration,
    /// How the process exited.
    pub exit: Option<ExitStatus>,
}

impl Drop for Run {
    /// A test that fails leaves no worker behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// A worker that has said that it is ready, where it finds the GPU under test.
    ///
    /// # Panics
    /// If it doesn't start.
    pub fn warm() -> Self {
        Self::warm_by(Command::new(built("rendergate-worker")))
    }

    /// The same of a command that becomes a worker.
    ///
    /// # Panics
    /// If it doesn't start.
    pub fn warm_by(mut command: Command) -> Self {
        if let Some(gpu) = gpu::under_test() {
            command.envs(&gpu.environment);
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut channel = Channel::new(ours.into());
        let mut ready = channel.receive::<WorkerToGateway>().unwrap().unwrap();
        assert!(matches!(ready.message, WorkerToGateway::Ready { .. }), "{:?}", ready.message);
        let lease = ready.descriptors.pop().expect("ready comes with a lease");
        Self { child, channel, lease, started: Instant::now(), resumption: None }
    }

    /// Starts a worker and gives it a plan and the GPU under test.
    ///
    /// # Panics
    /// If there is no such input or output directory.
    pub fn start(plan: &Transcode) -> Self {
        Self::warm().given(plan)
    }

    /// Gives a warm worker a plan and the GPU under test.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn given(self, plan: &Transcode) -> Self {
        self.given_on(plan, gpu::under_test().map(|gpu| &gpu.device))
    }

    /// Gives a warm worker a plan, and a GPU or none.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn given_on(self, plan: &Transcode, device: Option<&::gpu::Device>) -> Self {
        self.given_all(plan, device, Vec::new())
    }

    /// Gives a warm worker what another has come to with a plan, and a GPU or none.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn resuming(
        mut self,
        plan: &Transcode,
        device: Option<&::gpu::Device>,
        resumption: Resumption,
    ) -> Self {
        self.resumption = Some(resumption);
        self.given_all(plan, device, Vec::new())
    }

    /// Starts a worker and gives it a plan whose network inputs are these pipes, and the GPU under
    /// test.
    ///
    /// # Panics
    /// As [`start`](Self::start), or if there are more or fewer network inputs.
    pub fn fed(plan: &Transcode, pipes: Vec<OwnedFd>) -> Self {
        Self::warm().given_all(plan, gpu::under_test().map(|gpu| &gpu.device), pipes)
    }

    fn given_all(
        mut self,
        plan: &Transcode,
        device: Option<&::gpu::Device>,
        pipes: Vec<OwnedFd>,
    ) -> Self {
        let mut pipes = pipes.into_iter();
        let opened = plan.needs().into_iter().map(|need| match need {
            Need::Network { network, .. } => {
                pipes.next().unwrap_or_else(|| panic!("{} needs a pipe", network.url))
            }
            Need::Input { path, .. }
            | Need::Subtitles(path)
            | Need::Fonts(path)
            | Need::Output(path) => open(path),
        });
        let opened: Vec<OwnedFd> = opened.collect();
        assert!(pipes.next().is_none(), "a pipe too many");
        let descriptors: Vec<BorrowedFd<'_>> = opened.iter().map(AsFd::as_fd).collect();
        let start = GatewayToWorker::Start {
            stream: StreamId(7),
            transcode: Box::new(plan.clone()),
            devices: device.into_iter().cloned().collect(),
            software: true,
            proc_root: std::env::var_os("SOFTVA_PROC").unwrap_or("/proc".into()).into(),
            resumption: self.resumption.clone().map(Box::new),
        };
        let first = plan.output.hls().map_or(0, |output| output.start_number);
        self.resumption.get_or_insert_with(|| Resumption::beginning(first));
        self.started = Instant::now();
        self.channel.send(&start, &descriptors).unwrap();
        // The best of the ways that it will offer. In advance, as nobody may be listening when it asks;
        // if it is gone by then, whoever listens hears why.
        let _ = self.channel.send(&GatewayToWorker::Run { option: 0 }, &[]);
        self
    }

    /// Tells it something.
    ///
    /// # Panics
    /// If it is gone.
    pub fn control(&self, control: Control) {
        self.channel.send(&GatewayToWorker::Control(control), &[]).unwrap();
    }

    /// Tells it how far it may go.
    ///
    /// # Panics
    /// If it is gone.
    pub fn horizon(&self, position: Option<Duration>) {
        let position_us = position.map(|position| position.as_micros().try_into().unwrap());
        self.channel.send(&GatewayToWorker::Horizon { position_us }, &[]).unwrap();
    }

    /// Listens to the end; `on_segment` may answer to each segment.
    ///
    /// # Panics
    /// If the worker doesn't exit.
    pub fn finish_with(self, on_segment: impl FnMut(&mut Self, u64)) -> Report {
        self.finish_hearing(on_segment, |_, _| {})
    }

    /// The same; `on_room` may answer when it begins and ends to wait for room.
    ///
    /// # Panics
    /// As [`finish_with`](Self::finish_with).
    pub fn finish_hearing(
        mut self,
        mut on_segment: impl FnMut(&mut Self, u64),
        mut on_room: impl FnMut(&mut Self, bool),
    ) -> Report {
        let mut report = Report::default();
        while let Some(Received { message, .. }) =
            self.channel.receive::<WorkerToGateway>().unwrap_or(None)
        {
            match message {
                WorkerToGateway::Ready { .. }
                | WorkerToGateway::Alive { .. }
                | WorkerToGateway::Options { .. } => {}
                WorkerToGateway::CpuTime { cpu_us } => {
                    report.processor = Duration::from_micros(cpu_us);
                }
                WorkerToGateway::GpuTime { engines, .. } => {
                    let seconds = engines.values().map(|engine| engine.seconds).sum();
                    report.gpu = (!engines.is_empty()).then(|| Duration::from_secs_f64(seconds));
                }
                WorkerToGateway::Sandboxed(sandbox) => report.sandbox = Some(sandbox),
                WorkerToGateway::Running { backend, reason, description, .. } => {
                    report.backend = backend;
                    report.reason = reason.map(|reason| reason.text);
                    report.description = description;
                }
                WorkerToGateway::Room { waiting } => {
                    report.rooms.push(waiting);
                    on_room(&mut self, waiting);
                }
                WorkerToGateway::Committed => report.committed = true,
                WorkerToGateway::SegmentComplete { number, complete } => {
                    self.resumption.iter_mut().for_each(|at| at.note(number, complete.clone()));
                    report.segments.push((number, self.started.elapsed()));
                    on_segment(&mut self, number);
                }
                WorkerToGateway::Progress(progress) => report.progress = progress,
                WorkerToGateway::Log { line } => report.lines.push(line),
                WorkerToGateway::Ended(ending) => report.ending = Some(ending),
            }
        }
        report.elapsed = self.started.elapsed();
        report.exit = Some(self.exit());
        report
    }

    /// Listens until `kill` says so of a segment, and kills the worker, whatever it is about.
    ///
    /// # Panics
    /// If it ends before.
    pub fn finish_killed(self, mut kill: impl FnMut(&mut Self, u64) -> bool) {
        let mut killed = false;
        let report = self.finish_with(|run, number| {
            if !killed && kill(run, number) {
                killed = true;
                run.child.kill().unwrap();
            }
        });
        assert!(killed, "it ended before: {:?}", report.ending);
    }

    /// How the worker exits by itself.
    ///
    /// # Panics
    /// If it doesn't.
    pub fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + EXIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the worker doesn't exit");
            pause(5);
        }
    }

    /// Listens to the end.
    ///
    /// # Panics
    /// As [`finish_with`](Self::finish_with).
    pub fn finish(self) -> Report {
        self.finish_with(|_, _| {})
    }
}

/// Waits between two looks at what announces nothing.
#[expect(clippy::disallowed_methods, reason = "processes and files are polled")]
pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Opens what a plan needs, as the hook does.
fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}
