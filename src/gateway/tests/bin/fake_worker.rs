//! A worker that transcodes nothing and misbehaves on demand, for the gateway's tests.
//!
//! How it starts is told by `RENDERGATE_FAKE_START`: `ok` (default), `slow`, `never-ready`, `die`,
//! `protocol`, `garbage`. How it runs is told by the words of the first input's `format`, separated
//! by commas: see [`Script`].
#![forbid(unsafe_code)]

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ffmpeg_args::{HlsOutput, Output, Transcode};
use gpu::{Step, Task, Work};
use rustix::fs::{Mode, OFlags, openat, renameat};
use session::{
    Channel, Complete, Control, Ending, Fault, GatewayToWorker, PROTOCOL, Progress, Received,
    Sandbox, StreamId, WorkerToGateway,
};

/// What a stream of this worker does.
#[derive(Default)]
struct Script {
    /// `segments=N`: ends complete after so many; without it runs until told to stop.
    segments: Option<u64>,
    /// `every=MS` between segments.
    every: Duration,
    /// `exit=N`: exits with status 3 after N segments of its own, half-way through the next.
    exit_after: Option<u64>,
    /// `later=N`: what `exit` is for workers that go on with the stream.
    later: Option<u64>,
    /// `until=N`: from the worker after the Nth on, `exit` and `stall` are nothing.
    until: Option<u64>,
    /// `device`: says that the GPU has failed, where `exit` would exit.
    device: bool,
    /// `hang`: takes the stream and says nothing.
    hang: bool,
    /// `mute-quit`: ignores `q`.
    ignore_quit: bool,
    /// `ignore-eof`: goes on when the gateway has closed.
    ignore_eof: bool,
    /// `linger`: doesn't exit after its last message.
    linger: bool,
    /// `fail`: reports damaged input before the first segment.
    fail: bool,
    /// `waits=N`: says for N ms that it waits for its input, before it runs and after the first segment.
    waits_ms: u64,
    /// `full=N`: says for N ms that it waits for room, behind its first segment.
    full_ms: u64,
    /// `stall=N`: makes no frame any more after N segments, and goes on saying so.
    stall_after: Option<u64>,
    /// `options`: asks how it is to be run, as one that could go on two GPUs or in software, and runs
    /// as backend `option-N`.
    options: bool,
    /// `mute-end`: exits with status 3 behind the last segment, where it should say that it is over.
    mute_end: bool,
    /// `cpu=MS`: asks how it is to be run, as one that can go in software alone, and takes so many
    /// milliseconds of the processor for each segment.
    cpu_ms: Option<u64>,
    /// `size=N`: of a segment, in bytes; which one it is and whose is in them.
    size: usize,
    /// `garbage`: sends bytes that are no frame.
    garbage: bool,
}

impl Script {
    fn parse(words: &str) -> Self {
        let mut script = Self { every: Duration::from_millis(20), ..Self::default() };
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let (key, value) = word.split_once('=').unwrap_or((word, "0"));
            let value: u64 = value.parse().expect("a number");
            match key {
                "segments" => script.segments = Some(value),
                "every" => script.every = Duration::from_millis(value),
                "exit" => script.exit_after = Some(value),
                "later" => script.later = Some(value),
                "until" => script.until = Some(value),
                "device" => script.device = true,
                "hang" => script.hang = true,
                "mute-quit" => script.ignore_quit = true,
                "ignore-eof" => script.ignore_eof = true,
                "linger" => script.linger = true,
                "fail" => script.fail = true,
                "waits" => script.waits_ms = value,
                "full" => script.full_ms = value,
                "stall" => script.stall_after = Some(value),
                "options" => script.options = true,
                "mute-end" => script.mute_end = true,
                "cpu" => script.cpu_ms = Some(value),
                "size" => script.size = usize::try_from(value).expect("fits"),
                "garbage" => script.garbage = true,
                other => panic!("unknown word {other}"),
            }
        }
        script
    }
}

fn main() -> ExitCode {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("stdin is the socket");
    let protocol = match std::env::var("RENDERGATE_FAKE_START").as_deref() {
        Ok("never-ready") => forever(),
        Ok("die") => {
            eprintln!("fake: no such library");
            return ExitCode::from(4);
        }
        Ok("garbage") => {
            rustix::io::write(&socket, b"hello, gateway").expect("the socket takes it");
            forever()
        }
        Ok("protocol") => 999,
        Ok("slow") => {
            let deadline = Instant::now() + Duration::from_secs(1);
            while Instant::now() < deadline {
                std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            }
            PROTOCOL
        }
        _ => PROTOCOL,
    };
    let mut channel = Channel::new(socket);
    let (lease, _held) = std::io::pipe().expect("descriptors are free");
    // A gateway that is gone is noticed where the worker listens.
    let _ = channel.send(&WorkerToGateway::Ready { protocol }, &[lease.as_fd()]);
    drop(lease);
    let Ok(Some(start)) = channel.receive::<GatewayToWorker>() else {
        return ExitCode::SUCCESS;
    };
    let GatewayToWorker::Start { stream, transcode, resumption, .. } = start.message else {
        eprintln!("fake: expected a start");
        return ExitCode::from(2);
    };
    assert_eq!(start.descriptors.len(), transcode.inputs.len() + 1);
    let mut script = Script::parse(transcode.inputs[0].format.as_deref().unwrap_or_default());
    let next = resumption.as_ref().map(|resumption| resumption.next);
    let before = resumption.and_then(|resumption| resumption.state?.as_u64()).unwrap_or(0);
    if before > 0 {
        script.exit_after = script.later.or(script.exit_after);
    }
    if script.until.is_some_and(|until| before >= until) {
        (script.exit_after, script.stall_after) = (None, None);
    }
    eprintln!("fake: runs {stream}");
    let directory = start.descriptors.into_iter().next_back().expect("just counted");
    let own = before + 1;
    let mut run = Run { channel, directory, transcode: *transcode, stream, script, next, own };
    match run.run() {
        Some(ending) => {
            tell(&run.channel, &WorkerToGateway::Ended(ending));
            if run.script.linger {
                forever();
            }
            ExitCode::SUCCESS
        }
        None => ExitCode::from(3),
    }
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

fn tell(channel: &Channel, message: &WorkerToGateway) {
    // A gateway that is gone is noticed where the worker listens.
    let _ = channel.send(message, &[]);
}

struct Run {
    channel: Channel,
    directory: OwnedFd,
    transcode: Transcode,
    stream: StreamId,
    script: Script,
    /// The segment to go on with.
    next: Option<u64>,
    /// How many workers the stream has had, this one included; its state at every segment.
    own: u64,
}

/// After so many segments.
fn progress_of(count: u64, started: Instant) -> Progress {
    Progress {
        frames: count * 72,
        position_us: count * 3_000_000,
        source_us: 0,
        bytes: count * 1000,
        elapsed_us: started.elapsed().as_micros() as u64,
    }
}

/// What the gateway wants.
enum Wish {
    Nothing,
    Quit,
    Gone,
}

impl Run {
    fn hls(&self) -> &HlsOutput {
        self.transcode.output.hls().expect("jobs of these tests have segments")
    }

    fn run(&mut self) -> Option<Ending> {
        if self.script.hang {
            forever();
        }
        if self.script.fail {
            let reason = "the file is damaged".into();
            return Some(Ending::Failed { reason, fault: Fault::Input });
        }
        let missing = Some("no Landlock: a fake has none".into());
        let sandbox = Sandbox { landlock: None, seccomp: true, missing };
        tell(&self.channel, &WorkerToGateway::Sandboxed(sandbox));
        self.say_waiting(self.script.waits_ms);
        self.tell_cpu_time(0);
        let backend = match self.script.options || self.script.cpu_ms.is_some() {
            true => format!("option-{}", self.ask()?),
            false => "fake".to_owned(),
        };
        let running = WorkerToGateway::Running {
            backend,
            node: None,
            reason: None,
            source: None,
            description: "nothing".into(),
        };
        tell(&self.channel, &running);
        if self.script.garbage {
            let text = b"what is this, then?";
            rustix::io::write(self.channel.socket(), text).expect("the socket takes it");
            forever();
        }
        tell(&self.channel, &WorkerToGateway::Committed);
        if let Output::Progressive(output) = &self.transcode.output {
            let file = self.create(&output.name);
            return self.grow(file.into());
        }
        let started = Instant::now();
        let first = self.hls().start_number;
        let before = self.next.map_or(0, |next| next - first);
        for count in before.. {
            if self.script.segments == Some(count) {
                let ending = self.end(first + count, Ending::Complete);
                return (!self.script.mute_end).then_some(ending);
            }
            let number = first + count;
            let temporary = self.begin(number);
            match self.wait(self.script.every) {
                Wish::Nothing => {}
                Wish::Quit => {
                    self.complete(&temporary, number);
                    let ending = self.end(number + 1, Ending::Quit);
                    return (!self.script.mute_end).then_some(ending);
                }
                Wish::Gone => return None,
            }
            if self.script.stall_after == Some(count - before) {
                self.stall(progress_of(count, started));
            }
            if self.script.exit_after == Some(count - before) {
                if self.script.device {
                    let reason = "the GPU is lost".into();
                    return Some(Ending::Failed { reason, fault: Fault::Device });
                }
                eprintln!("fake: as told");
                return None;
            }
            self.complete(&temporary, number);
            // In a hook's order: it creates the file when it has heard of the segment, from a
            // gateway that has heard of it before.
            self.tell_complete(number, self.script.segments == Some(count + 1));
            self.tell_cpu_time(count + 1 - before);
            self.placeholder(number + 1);
            let progress = progress_of(count + 1, started);
            tell(&self.channel, &WorkerToGateway::Progress(progress));
            if count == 0 {
                self.say_waiting(self.script.waits_ms);
            }
            if count == before && self.script.full_ms > 0 {
                tell(&self.channel, &WorkerToGateway::Room { waiting: true });
                self.say_waiting(self.script.full_ms);
                tell(&self.channel, &WorkerToGateway::Room { waiting: false });
            }
        }
        None
    }

    /// Which way the gateway wants it to go; none if it wants none.
    fn ask(&mut self) -> Option<usize> {
        let way = |node: Option<&str>, preset: &str, faster| {
            let on_gpu = node.is_some();
            let tasks = [Task::decode("h264"), Task::encode("h264", preset)];
            let step = |task| Step { task, on_gpu, megapixels: 10.0 };
            Work { node: node.map(Into::into), faster, steps: tasks.map(step).into() }
        };
        let [one, two] = ["/dev/dri/renderD200", "/dev/dri/renderD201"].map(Some);
        let all = vec![
            way(one, "", false),
            way(two, "", false),
            way(one, "7", true),
            way(two, "7", true),
            way(None, "veryfast", false),
            way(None, "ultrafast", true),
        ];
        let software = vec![way(None, "veryfast", false)];
        let options = if self.script.cpu_ms.is_some() { software } else { all };
        tell(&self.channel, &WorkerToGateway::Options { options });
        loop {
            match self.channel.receive::<GatewayToWorker>() {
                Ok(Some(Received { message: GatewayToWorker::Run { option }, .. })) => {
                    return Some(option);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Writes one file in place, a part where others write a segment.
    fn grow(&mut self, mut file: std::fs::File) -> Option<Ending> {
        let started = Instant::now();
        for count in 0.. {
            if self.script.segments == Some(count) {
                return Some(Ending::Complete);
            }
            file.write_all(b"a part").expect("writes");
            tell(&self.channel, &WorkerToGateway::Progress(progress_of(count + 1, started)));
            match self.wait(self.script.every) {
                Wish::Nothing => {}
                Wish::Quit => {
                    file.write_all(b"the end").expect("writes");
                    return Some(Ending::Quit);
                }
                Wish::Gone => return None,
            }
        }
        None
    }

    fn say_waiting(&self, milliseconds: u64) {
        for _ in 0..milliseconds / 50 {
            tell(&self.channel, &WorkerToGateway::Alive { decoded: 0, waiting: true });
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Says twice a second that nothing happens.
    fn stall(&self, progress: Progress) -> ! {
        loop {
            tell(&self.channel, &WorkerToGateway::Progress(progress));
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn name(&self, number: u64) -> String {
        let output = self.hls();
        format!("{}{number}{}", output.segment_prefix, output.segment_suffix)
    }

    fn create(&self, name: &str) -> OwnedFd {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(&self.directory, name, flags, Mode::from_raw_mode(0o644)).expect("creates a file")
    }

    fn begin(&self, number: u64) -> String {
        let tag = self.stream.writer_tag(std::process::id());
        let temporary = format!("{}.{tag}.tmp", self.name(number));
        let mut file = std::fs::File::from(self.create(&temporary));
        let mut content = b"half".to_vec();
        if self.script.size > 0 {
            content.extend(format!(" {number} of worker {}", self.own).bytes());
            content.resize(self.script.size.max(content.len()), b'.');
        }
        file.write_all(&content).expect("writes");
        temporary
    }

    fn complete(&self, temporary: &str, number: u64) {
        renameat(&self.directory, temporary, &self.directory, self.name(number)).expect("renames");
    }

    fn tell_complete(&self, number: u64, last: bool) {
        let state = (!last).then(|| self.own.into());
        let complete = Complete { length: (270_000, 90_000), state, last };
        tell(&self.channel, &WorkerToGateway::SegmentComplete { number, complete });
    }

    /// After so many segments of its own.
    fn tell_cpu_time(&self, segments: u64) {
        if let Some(millis) = self.script.cpu_ms {
            let cpu_us = millis * 1000 * segments;
            tell(&self.channel, &WorkerToGateway::CpuTime { cpu_us });
        }
    }

    fn placeholder(&self, number: u64) {
        drop(self.create(&self.name(number)));
    }

    /// Leaves its placeholder, to see whether the gateway takes it away.
    fn end(&self, next: u64, ending: Ending) -> Ending {
        if ending == Ending::Quit {
            self.tell_complete(next - 1, true);
        }
        ending
    }

    fn wait(&mut self, duration: Duration) -> Wish {
        let deadline = Instant::now() + duration;
        let mut paused = false;
        loop {
            while let Some(message) = self.channel.buffered().expect("frames") {
                match message.message {
                    GatewayToWorker::Control(Control::Quit) if !self.script.ignore_quit => {
                        return Wish::Quit;
                    }
                    GatewayToWorker::Control(Control::Pause) => paused = true,
                    GatewayToWorker::Control(Control::Resume) => paused = false,
                    _ => {}
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && !paused {
                return Wish::Nothing;
            }
            let left = if paused { Duration::from_secs(3600) } else { left };
            let socket = self.channel.socket().try_clone().expect("a descriptor is free");
            let mut polled = [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec::try_from(left).expect("short");
            match rustix::event::poll(&mut polled, Some(&limit)) {
                Ok(0) | Err(_) => continue,
                Ok(_) => {}
            }
            if !matches!(self.channel.fill(), Ok(n) if n > 0) {
                if self.script.ignore_eof {
                    forever();
                }
                return Wish::Gone;
            }
        }
    }
}
