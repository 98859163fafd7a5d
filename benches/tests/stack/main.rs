//! The whole stack from outside, as Jellyfin meets it: hook, gateway and worker as processes, a
//! viewer by `jellyfin-sim`, and everything that can break under way.
//!
//! The real ffmpeg is a script that records how it was called and exits with [`RECORDED`], so a
//! fall-back can't pass for a stream.

mod files;
mod gateways;
mod keeping;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use benches::clip::{self, Clip};
use benches::play::{command, settings};
use benches::processes::running;
use benches::stack::{Admission, Stack, pause, signal};
use jellyfin_sim::{CommandLine, Container, Exit, Job, Pace, Report, Server, play};
use rustix::process::Signal;

/// Runs to its end within a second or two: seven segments.
const SHORT: Clip = Clip { width: 320, height: 180, rate: "25", seconds: 20 };
/// Is still running when something happens to it: thirty segments.
const LONG: Clip = Clip { width: 320, height: 180, rate: "25", seconds: 90 };
const BOTH: [Container; 2] = [Container::Ts, Container::Fmp4];
/// Exit code of the recording ffmpeg.
const RECORDED: i32 = 42;
/// Longer than anything takes, on a machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

const REAL: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$RECORD\"\nexit 42\n";

/// Where `./dev test` has built the programs.
fn binaries() -> &'static Path {
    let folder = Path::new(env!("CARGO_BIN_EXE_demo")).parent().expect("a program is in a folder");
    for name in ["rendergate", "rendergate-worker", "rendergate-ffmpeg"] {
        let program = folder.join(name);
        assert!(program.exists(), "{} is missing: run ./dev test", program.display());
    }
    folder
}

fn film(clip: Clip) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    clip::make(Path::new(env!("CARGO_TARGET_TMPDIR")), clip).unwrap()
}

#[track_caller]
fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        pause(5);
    }
}

/// A folder with a gateway, a recording ffmpeg, and output directories.
struct House {
    stack: Stack,
    dir: tempfile::TempDir,
    /// How long its hooks wait for the next gateway.
    reconnect_ms: u32,
}

impl House {
    fn new() -> Self {
        Self::with(|_| String::new())
    }

    /// With a configuration, which may name the house's folder.
    fn with(configuration: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = configuration(dir.path());
        let stack = Stack::start_with(binaries(), dir.path(), &text, Admission::Off).unwrap();
        let real = dir.path().join("real-ffmpeg");
        // Written by another process: what a child of another test still has open can't be run.
        let source = dir.path().join("real-ffmpeg.source");
        fs::write(&source, REAL).unwrap();
        assert!(Command::new("install").args([&source, &real]).status().unwrap().success());
        Self { stack, dir, reconnect_ms: 30_000 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that writes into this directory of the house.
    fn command(&self, input: &Path, container: Container, out: &str) -> CommandLine {
        let directory = self.path(out);
        fs::create_dir_all(&directory).unwrap();
        command(input, &directory, container, SHORT.height)
    }

    fn environment(&self) -> Vec<(String, OsString)> {
        let (name, endpoint) = self.stack.endpoint();
        vec![
            (name.to_owned(), endpoint.into()),
            ("RENDERGATE_FFMPEG".to_owned(), self.path("real-ffmpeg").into()),
            ("RECORD".to_owned(), self.path("record").into()),
            ("RENDERGATE_RECONNECT_TIMEOUT_MS".to_owned(), self.reconnect_ms.to_string().into()),
        ]
    }

    fn start(&self, arguments: &[String]) -> Job {
        let hook = self.stack.hook().unwrap();
        Job::start(&hook, arguments, &self.environment(), false).unwrap()
    }

    /// Starts a long stream and waits for its second segment.
    fn under_way(&self, container: Container) -> (Job, CommandLine) {
        let command = self.command(&film(LONG), container, "out");
        let mut job = self.start(&command.at(0, f64::from(LONG.seconds)));
        wait_for("the second segment", PATIENCE, || {
            assert!(job.exit().is_none(), "{:?}", job.log());
            is_whole(&command.segment(1))
        });
        (job, command)
    }

    /// Waits until two streams could start at once.
    fn warm(&self) {
        wait_for("two warm workers", PATIENCE, || {
            self.stack.get("/metrics").unwrap().contains("\nrendergate_workers_warm 2\n")
        });
    }

    /// The worker of the stream that runs.
    fn worker(&self) -> u32 {
        let mut worker = None;
        wait_for("a stream's worker", PATIENCE, || {
            worker = self.stack.stream_worker();
            worker.is_some()
        });
        worker.unwrap()
    }

    fn view(&self, clip: Clip, command: CommandLine, script: &str) -> Report {
        Self::view_by(self.stack.hook().unwrap(), self.environment(), clip, command, script)
    }

    fn view_by(
        hook: PathBuf,
        environment: Vec<(String, OsString)>,
        clip: Clip,
        command: CommandLine,
        script: &str,
    ) -> Report {
        let mut settings = settings(None, &hook, clip.seconds).unwrap();
        settings.environment = environment;
        let server = Server::new(settings, command).unwrap();
        play(server, &script.parse().unwrap(), Pace::Fast)
    }

    /// The real ffmpeg was called with exactly these arguments, and one line said why.
    #[track_caller]
    fn fell_back(&self, job: &mut Job, arguments: &[String], why: &str) {
        let exit = job.wait();
        let log = job.log();
        assert_eq!(exit.code, RECORDED, "{log:?}");
        let record = fs::read_to_string(self.path("record")).expect("the real ffmpeg runs");
        assert_eq!(record.lines().collect::<Vec<_>>(), arguments);
        fs::remove_file(self.path("record")).unwrap();
        let said: Vec<_> = log.head.iter().filter(|line| line.contains("; running ")).collect();
        assert!(said.len() == 1 && said[0].contains(why), "expected \"{why}\" in {log:?}");
    }
}

fn is_whole(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() > 0)
}

fn names(command: &CommandLine) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(&command.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

/// What Jellyfin would trip over: temporary files, empty files, names without a number.
fn remains(command: &CommandLine) -> Vec<String> {
    let bad = |name: &String| {
        let number = name
            .strip_prefix(&command.id)
            .and_then(|rest| rest.strip_suffix(&command.extension))
            .map(str::parse::<i64>);
        // What has vanished since the listing is not there.
        let empty = fs::metadata(command.directory.join(name)).is_ok_and(|meta| meta.len() == 0);
        empty || name.ends_with(".tmp") || matches!(number, Some(Err(_)))
    };
    names(command).into_iter().filter(bad).collect()
}

/// Numbers of the segments that are there.
fn segments(command: &CommandLine) -> Vec<i64> {
    let mut numbers: Vec<i64> = names(command)
        .iter()
        .filter_map(|name| name.strip_prefix(&command.id)?.strip_suffix(&command.extension))
        .filter_map(|number| number.parse().ok())
        .filter(|number| *number >= 0)
        .collect();
    numbers.sort_unstable();
    numbers
}

/// A segment by itself, with its init file if it has one.
fn piece(command: &CommandLine, number: i64) -> PathBuf {
    let init = if command.has_init { fs::read(command.segment(-1)).unwrap() } else { Vec::new() };
    let bytes = fs::read(command.segment(number)).unwrap();
    let path = command.directory.with_extension("piece");
    fs::write(&path, [init, bytes].concat()).unwrap();
    path
}

/// Nothing but whole files: every segment decodes without a complaint.
#[track_caller]
fn whole(command: &CommandLine) {
    assert_eq!(remains(command), Vec::<String>::new());
    for number in segments(command) {
        let decode = Command::new("ffmpeg")
            .args(["-v", "error", "-xerror", "-nostdin", "-i"])
            .arg(piece(command, number))
            .args(["-f", "null", "-"])
            .output()
            .expect("ffmpeg is needed: apt install ffmpeg");
        let said = String::from_utf8_lossy(&decode.stderr);
        assert!(decode.status.success() && said.is_empty(), "segment {number}: {said}");
    }
}

fn playlist(command: &CommandLine) -> String {
    let path = command.directory.join(format!("{}.m3u8", command.id));
    fs::read_to_string(path).unwrap_or_default()
}

// --- A viewer ------------------------------------------------------------------------------------

#[test]
fn a_viewer_plays_seeks_and_leaves() {
    let house = House::new();
    for container in BOTH {
        let command = house.command(&film(LONG), container, "played");
        // Paused, a stream is sure not to have come near what is sought.
        let script = "play 3; pause; seek 81; play 2; seek 54; play 3; seek 0; play 1; stop";
        let report = house.view(LONG, command.clone(), script);
        assert!(report.faults.is_empty(), "{report}");
        let starts: Vec<u64> = report.runs.iter().map(|run| run.start_number).collect();
        assert_eq!(starts, [0, 27, 18], "{report}");
        let served = report.segments.iter().map(|segment| segment.number);
        let played: Vec<i64> = served.filter(|number| *number >= 0).collect();
        assert_eq!(played, [0, 1, 2, 27, 28, 18, 19, 20, 0]);
        for run in &report.runs {
            assert!(run.exit.is_some_and(|exit| exit.code == 0 && !exit.killed), "{report}");
            assert!(run.log.head.iter().any(|line| line.contains("rendergate: stream ")));
        }
        whole(&command);
        let report = house.view(LONG, command.clone(), "play 2; leave");
        assert!(report.faults.is_empty(), "{report}");
        assert_eq!(names(&command), Vec::<String>::new());
        fs::remove_dir(&command.directory).unwrap();
    }
    assert_eq!(house.stack.streams().unwrap().len(), 0);
    house.stack.stop().unwrap();
}

/// A player that seeks mixes segments of two runs; the decoder is set up once.
#[test]
fn codec_headers_are_the_same_after_a_seek() {
    let house = House::new();
    for container in BOTH {
        let runs = [0, 18].map(|number| {
            let command = house.command(&film(LONG), container, &format!("{container:?}{number}"));
            let mut job = house.start(&command.at(number, f64::from(LONG.seconds)));
            let path = command.segment(number.cast_signed());
            wait_for("a segment", PATIENCE, || is_whole(&path));
            assert_eq!(job.stop().code, 0, "{:?}", job.log());
            command
        });
        if container == Container::Fmp4 {
            let [first, second] = runs.map(|command| fs::read(command.segment(-1)).unwrap());
            assert_eq!(first, second);
            continue;
        }
        let headers = runs.each_ref().map(parameter_sets);
        assert_eq!(headers[0].len(), 2, "one SPS, one PPS: {headers:?}");
        assert_eq!(headers[0], headers[1]);
    }
}

/// SPS and PPS of all segments, each once, in order of their bytes.
fn parameter_sets(command: &CommandLine) -> Vec<Vec<u8>> {
    let mut sets = Vec::new();
    for number in segments(command) {
        let stream = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(piece(command, number))
            .args(["-map", "0:v", "-c", "copy", "-f", "h264", "pipe:1"])
            .output()
            .unwrap()
            .stdout;
        let starts: Vec<usize> =
            (3..stream.len()).filter(|at| stream[at - 3..*at] == [0, 0, 1]).collect();
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).map_or(stream.len(), |next| next - 3);
            if matches!(stream[*start] & 0x1f, 7 | 8) {
                let unit = &stream[*start..end];
                let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
                sets.push(unit[..unit.len() - zeros].to_vec());
            }
        }
    }
    sets.sort();
    sets.dedup();
    sets
}

/// From the start and from the middle, in both containers.
#[test]
fn playlist_and_names_are_those_of_ffmpeg() {
    let house = House::new();
    let runtime = f64::from(SHORT.seconds);
    for container in BOTH {
        for number in [0, 3] {
            let name = format!("{container:?}{number}");
            let ours = house.command(&film(SHORT), container, &name);
            let theirs = ours.clone().into_directory(&house.path(&format!("ffmpeg{name}")));
            fs::create_dir_all(&theirs.directory).unwrap();
            let mut job = house.start(&ours.at(number, runtime));
            assert_eq!(job.wait().code, 0, "{:?}", job.log());
            let ffmpeg = Command::new("ffmpeg")
                .args(theirs.at(number, runtime))
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert!(ffmpeg.status.success(), "{}", String::from_utf8_lossy(&ffmpeg.stderr));
            assert_eq!(names(&ours), names(&theirs));
            assert_eq!(playlist(&ours), playlist(&theirs));
            assert!(playlist(&ours).contains("#EXTINF"));
        }
    }
}

// --- Deaths --------------------------------------------------------------------------------------

/// Ended with a failure, and nothing is left that a viewer could be served by mistake.
#[track_caller]
fn broke_off(job: &mut Job, exit: Exit, command: &CommandLine, why: &str) {
    let log = job.log();
    assert!(exit.code != 0 && exit.code != RECORDED, "{exit:?} {log:?}");
    let said = log.head.iter().chain(&log.tail).any(|line| line.contains(why));
    assert!(said, "expected \"{why}\" in {log:?}");
    assert!(segments(command).len() >= 2);
    assert_eq!(playlist(command), "");
    whole(command);
}

/// The viewer gets every segment, and Jellyfin sees an ffmpeg that succeeds.
#[test]
fn a_worker_killed_midway() {
    let house = House::new();
    for container in BOTH {
        let (mut job, command) = house.under_way(container);
        signal(house.worker(), Signal::KILL);
        let exit = job.wait();
        let log = job.log();
        assert_eq!(exit.code, 0, "{log:?}");
        let said = |line: &String| line.contains("another worker goes on");
        assert!(log.head.iter().chain(&log.tail).any(said), "{log:?}");
        whole(&command);
        let (text, numbers) = (playlist(&command), segments(&command));
        assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
        assert_eq!(text.matches("#EXTINF").count(), numbers.len());
        assert_eq!(numbers, (0..numbers.len() as i64).collect::<Vec<_>>());
        assert_eq!(numbers.len(), LONG.seconds.div_ceil(3) as usize);
        fs::remove_dir_all(&command.directory).unwrap();
    }
    wait_for("the stream's end", PATIENCE, || house.stack.streams().unwrap().is_empty());
}

/// A stream that gets no further than being accepted, because the workers (these pids) are
/// stopped.
fn accepted(house: &House) -> (Job, CommandLine, Vec<String>, Vec<u32>) {
    let program = house.stack.worker_program().unwrap();
    house.warm();
    let own = running(&program).into_iter().filter(|w| w.parent == house.stack.pid());
    let workers: Vec<u32> = own.map(|worker| worker.pid).collect();
    for worker in &workers {
        signal(*worker, Signal::STOP);
    }
    let command = house.command(&film(SHORT), Container::Ts, "out");
    let arguments = command.at(0, f64::from(SHORT.seconds));
    let mut job = house.start(&arguments);
    wait_for("acceptance", PATIENCE, || {
        job.log().head.iter().any(|line| line.contains("rendergate: stream "))
    });
    (job, command, arguments, workers)
}

#[test]
fn a_gateway_killed_before_the_first_file() {
    let house = House::new();
    let (mut job, command, arguments, workers) = accepted(&house);
    signal(house.stack.pid(), Signal::KILL);
    house.fell_back(&mut job, &arguments, "lost the gateway");
    for worker in &workers {
        signal(*worker, Signal::CONT);
    }
    let program = house.stack.worker_program().unwrap();
    wait_for("the workers' end", Duration::from_secs(3), || {
        running(&program).iter().all(|process| !workers.contains(&process.pid))
    });
    assert_eq!(names(&command), Vec::<String>::new());
}

#[test]
fn a_worker_killed_before_the_first_file() {
    let house = House::new();
    let (mut job, command, arguments, workers) = accepted(&house);
    let own = house.worker();
    signal(own, Signal::KILL);
    for worker in workers.iter().filter(|worker| **worker != own) {
        signal(*worker, Signal::CONT);
    }
    let exit = job.wait();
    assert_eq!(exit.code, 0, "{arguments:?}: {:?}", job.log());
    whole(&command);
    assert_eq!(segments(&command).len(), SHORT.seconds.div_ceil(3) as usize);
}

#[test]
fn a_hook_killed_midway() {
    let house = House::new();
    for container in BOTH {
        let (mut job, command) = house.under_way(container);
        let worker = house.worker();
        job.signal(Signal::KILL);
        let program = house.stack.worker_program().unwrap();
        wait_for("the end of stream, worker and remains", Duration::from_secs(1), || {
            remains(&command).is_empty()
                && house.stack.streams().unwrap().is_empty()
                && running(&program).iter().all(|process| process.pid != worker)
        });
        whole(&command);
        fs::remove_dir_all(&command.directory).unwrap();
    }
}

#[test]
fn sigterm_writes_the_last_segment() {
    let house = House::new();
    for container in BOTH {
        let (mut job, command) = house.under_way(container);
        let exit = job.signal(Signal::TERM);
        assert!(exit.code == 255 && !exit.killed, "{exit:?} {:?}", job.log());
        whole(&command);
        let (text, numbers) = (playlist(&command), segments(&command));
        assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
        assert_eq!(text.matches("#EXTINF").count(), numbers.len());
        assert_eq!(numbers, (0..numbers.len() as i64).collect::<Vec<_>>());
        assert!(numbers.len() < 30, "it ended before it was told to");
        fs::remove_dir_all(&command.directory).unwrap();
    }
}

// --- The real ffmpeg -----------------------------------------------------------------------------

#[test]
fn without_a_gateway_the_real_ffmpeg_runs() {
    let house = House::new();
    let command = house.command(&film(SHORT), Container::Ts, "out");
    let arguments = command.at(0, f64::from(SHORT.seconds));
    // Once with a socket that nobody listens on, once with none.
    signal(house.stack.pid(), Signal::KILL);
    let socket = house.path("rendergate.sock");
    wait_for("the gateway's end", PATIENCE, || {
        std::os::unix::net::UnixStream::connect(&socket).is_err()
    });
    for _ in 0..2 {
        let mut job = house.start(&arguments);
        house.fell_back(&mut job, &arguments, "no gateway at");
        let log = job.log();
        let lines = log.head.iter().filter(|line| line.starts_with("rendergate:")).count();
        assert_eq!(lines, 1, "{log:?}");
        let _ = fs::remove_file(&socket);
    }
    assert_eq!(names(&command), Vec::<String>::new());
}

#[test]
fn what_is_no_film_goes_to_the_real_ffmpeg() {
    let house = House::new();
    let film = fs::read(film(SHORT)).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = house.path(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let words = "no film, just words\n".repeat(500);
    let cases = [
        (file("empty.mkv", b""), "is empty"),
        (house.path("missing.mkv"), "cannot read"),
        (house.path("."), "is not a regular file"),
        (file("text.mkv", words.as_bytes()), "text/plain"),
        (file("header.mkv", &film[..200]), "failed before output"),
    ];
    for (input, why) in cases {
        // Without one the gateway declines for another reason.
        wait_for("a warm worker", PATIENCE, || {
            house.stack.get("/readyz").is_ok_and(|page| !page.contains("\"warm_workers\":0"))
        });
        let command = house.command(&input, Container::Ts, "out");
        let arguments = command.at(0, f64::from(SHORT.seconds));
        let mut job = house.start(&arguments);
        house.fell_back(&mut job, &arguments, why);
        assert_eq!(names(&command), Vec::<String>::new());
    }
    wait_for("no stream", PATIENCE, || house.stack.streams().unwrap().is_empty());
}

// --- One ID, several times -----------------------------------------------------------------------

#[test]
fn the_same_id_twice_at_once() {
    let house = House::new();
    for container in BOTH {
        let command = house.command(&film(SHORT), container, "out");
        let arguments = command.at(0, f64::from(SHORT.seconds));
        house.warm();
        let mut jobs = [house.start(&arguments), house.start(&arguments)];
        for job in &mut jobs {
            assert_eq!(job.wait().code, 0, "{:?}", job.log());
        }
        whole(&command);
        assert_eq!(segments(&command), (0..7).collect::<Vec<_>>());
        fs::remove_dir_all(&command.directory).unwrap();
    }
}

#[test]
fn old_files_with_the_same_id() {
    let house = House::new();
    for container in BOTH {
        let command = house.command(&film(SHORT), container, "out");
        let in_directory = |name: String| command.directory.join(name);
        // Whole ones, empty ones, one beyond the end, an old playlist, a temporary file.
        for number in [0, 2, 3, 40] {
            fs::write(command.segment(number), b"old").unwrap();
        }
        for number in [1, 5] {
            fs::write(command.segment(number), b"").unwrap();
        }
        if command.has_init {
            fs::write(command.segment(-1), b"old").unwrap();
        }
        fs::write(in_directory(format!("{}.m3u8", command.id)), "old").unwrap();
        let stray = in_directory(format!("{}2{}.s1w1.tmp", command.id, command.extension));
        fs::write(&stray, b"old").unwrap();
        let mut job = house.start(&command.at(0, f64::from(SHORT.seconds)));
        assert_eq!(job.wait().code, 0, "{:?}", job.log());
        // What no writer of this stream has made isn't this stream's to remove.
        for path in [command.segment(40), stray] {
            assert_eq!(fs::read(&path).unwrap(), b"old");
            fs::remove_file(path).unwrap();
        }
        whole(&command);
        assert_eq!(segments(&command), (0..7).collect::<Vec<_>>());
        assert!(playlist(&command).ends_with("#EXT-X-ENDLIST\n"));
        fs::remove_dir_all(&command.directory).unwrap();
    }
}
