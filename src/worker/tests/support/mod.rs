//! A gateway of a few lines: starts a worker, gives it a plan, listens to the end.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod case;
pub mod gpu;
pub mod line;
pub mod output;
pub mod sources;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ffmpeg_args::*;
use session::{
    Channel, Control, Ending, GatewayToWorker, Progress, Received, StreamId, WorkerToGateway,
};

/// Longest wait for a worker that should exit.
const EXIT: Duration = Duration::from_secs(10);

/// Output directory, worker and socket of one run.
pub struct Run {
    pub child: Child,
    pub channel: Channel,
    pub started: Instant,
}

/// What a run said until it ended.
#[derive(Debug, Default)]
pub struct Report {
    pub ending: Option<Ending>,
    pub segments: Vec<(u64, Duration)>,
    pub committed: bool,
    pub backend: String,
    pub description: String,
    pub progress: Progress,
    pub lines: Vec<String>,
    pub elapsed: Duration,
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
    /// A worker that has said that it is ready.
    pub fn warm() -> Self {
        Self::warm_by(Command::new(env!("CARGO_BIN_EXE_rendergate-worker")))
    }

    /// The same of a command that becomes a worker.
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
        let ready = channel.receive::<WorkerToGateway>().unwrap().unwrap();
        assert!(matches!(ready.message, WorkerToGateway::Ready { .. }), "{:?}", ready.message);
        Self { child, channel, started: Instant::now() }
    }

    /// Gives it a plan.
    pub fn start(plan: &Transcode) -> Self {
        Self::warm().given(plan)
    }

    /// Gives a warm worker a plan.
    pub fn given(mut self, plan: &Transcode) -> Self {
        let mut files: Vec<File> =
            plan.inputs.iter().map(|input| File::open(&input.path).unwrap()).collect();
        files.push(File::open(&plan.output.directory).unwrap());
        let descriptors: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let start = GatewayToWorker::Start {
            stream: StreamId(7),
            transcode: Box::new(plan.clone()),
            devices: gpu::under_test().map(|gpu| gpu.device.clone()).into_iter().collect(),
            software: true,
        };
        self.started = Instant::now();
        self.channel.send(&start, &descriptors).unwrap();
        self
    }

    pub fn control(&self, control: Control) {
        self.channel.send(&GatewayToWorker::Control(control), &[]).unwrap();
    }

    /// Listens to the end; `on_segment` may answer to each segment.
    pub fn finish_with(mut self, mut on_segment: impl FnMut(&mut Self, u64)) -> Report {
        let mut report = Report::default();
        while let Some(Received { message, .. }) =
            self.channel.receive::<WorkerToGateway>().unwrap_or(None)
        {
            match message {
                WorkerToGateway::Ready { .. } => {}
                WorkerToGateway::Running { backend, description, .. } => {
                    (report.backend, report.description) = (backend, description);
                }
                WorkerToGateway::Alive { .. } => {}
                WorkerToGateway::Committed => report.committed = true,
                WorkerToGateway::SegmentComplete { number } => {
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

    /// How the worker exits by itself.
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

    pub fn finish(self) -> Report {
        self.finish_with(|_, _| {})
    }
}

/// Waits between two looks at what announces nothing.
#[expect(clippy::disallowed_methods, reason = "processes and files are polled")]
pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// The plan of Jellyfin's plainest command for a file; adapt the rest.
pub fn plan(input: &Path, directory: &Path) -> Transcode {
    let first = |stream| StreamRef { input: 0, stream };
    Transcode {
        inputs: vec![Input {
            path: input.to_owned(),
            format: None,
            start_us: None,
            accurate: true,
        }],
        video: Some(Video {
            source: first(StreamSelect::Best),
            action: VideoAction::Encode(encode()),
            tag: None,
        }),
        audio: Some(Audio {
            source: first(StreamSelect::Best),
            action: AudioAction::Encode(AudioEncode {
                codec: AudioCodec::Aac,
                channels: Some(2),
                bitrate: Some(128_000),
                quality: None,
                sample_rate: None,
                volume: None,
            }),
        }),
        start_at_zero: false,
        output: HlsOutput {
            directory: directory.to_owned(),
            container: Container::MpegTs,
            segment_seconds: 3.0,
            start_number: 0,
            segment_prefix: "abc".into(),
            segment_suffix: ".ts".into(),
            playlist: "abc.m3u8".into(),
            playlist_type: PlaylistType::Vod,
            base_url: String::new(),
            max_delay_us: 5_000_000,
        },
    }
}

fn encode() -> VideoEncode {
    VideoEncode {
        codec: VideoCodec::H264,
        encoder: "libx264".into(),
        rate: RateControl {
            crf: Some(23.0),
            max_bitrate: Some(4_000_000),
            buffer_bits: Some(8_000_000),
            ..RateControl::default()
        },
        preset: Some("veryfast".into()),
        profile: Some("high".into()),
        level: Some(41),
        encoder_params: [
            ("subme", "0"),
            ("me_range", "16"),
            ("rc_lookahead", "10"),
            ("me", "hex"),
            ("open_gop", "0"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec(),
        keyframes: Keyframes::Every(3.0),
        deinterlace: None,
        scale: Some(Scale::Fit { max_width: 1280, max_height: 720 }),
        frame_rate: None,
        colour: Some(ColourTags {
            primaries: "bt709".into(),
            transfer: "bt709".into(),
            matrix: "bt709".into(),
        }),
        turn: Turn::AsMarked,
        tone_map: None,
    }
}

/// The plan's picture settings, to change.
pub fn encode_of(plan: &mut Transcode) -> &mut VideoEncode {
    match &mut plan.video.as_mut().unwrap().action {
        VideoAction::Encode(encode) => encode,
        VideoAction::Copy => panic!("the plan copies"),
    }
}

/// Makes a clip with ffmpeg; the arguments end before the output.
pub fn clip(name: &str, arguments: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    // Two tests of a process may want the same clip.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        let making = directory.join(format!("{}.{name}", std::process::id()));
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-nostdin"])
            .args(arguments.split(' ').filter(|argument| !argument.is_empty()))
            .arg(&making)
            .status()
            .expect("ffmpeg is needed to make clips: apt install ffmpeg");
        assert!(status.success(), "ffmpeg {arguments}");
        std::fs::rename(&making, &path).unwrap();
    }
    path
}
