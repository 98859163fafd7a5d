//! Live television from outside: a tuner on a port, the hook with the real ffmpeg as its reader,
//! gateway and worker, and a viewer who polls live.m3u8 as Jellyfin does.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::live::{self, BASE, TRANSCODED, command};
use benches::processes::{called_with, children, running};
use benches::stack::{Stack, pause, signal};
use jellyfin_sim::live::watch;
use jellyfin_sim::{CommandLine, Job, Tuner};
use rustix::process::Signal;

/// Longer than anything takes, on a machine under load.
const PATIENCE: Duration = Duration::from_secs(30);
/// The program's length in seconds: ten segments.
const SECONDS: u32 = 30;
/// How much faster than it plays it is sent.
const FAST: f64 = 5.0;

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        pause(5);
    }
}

/// A gateway, a tuner, and a directory for what is written.
struct House {
    stack: Stack,
    tuner: Tuner,
    program: u64,
    dir: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let binaries = Path::new(env!("CARGO_BIN_EXE_demo")).parent().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let stack = Stack::start(binaries, dir.path()).unwrap();
        let program = live::program(Path::new(env!("CARGO_TARGET_TMPDIR")), SECONDS).unwrap();
        let length = program.len() as u64;
        let rate = length as f64 / f64::from(SECONDS) * FAST;
        let tuner = Tuner::start(program, rate).unwrap();
        live::reader(dir.path()).unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        Self { stack, tuner, program: length, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, url: &str, encode: bool) -> (Job, CommandLine) {
        let command = command(url, &self.path("out"), encode);
        let (name, endpoint) = self.stack.endpoint();
        let environment: Vec<(String, OsString)> = vec![
            (name.to_owned(), endpoint.into()),
            ("RENDERGATE_FFMPEG".to_owned(), self.path("reading-ffmpeg").into()),
            ("RECORD".to_owned(), self.path("record").into()),
        ];
        let arguments = command.at(0, f64::from(SECONDS));
        let job = Job::start(&self.stack.hook().unwrap(), &arguments, &environment, false).unwrap();
        (job, command)
    }

    /// A stream of which segments have been seen and the rest is held back at the tuner.
    fn awaiting(&self) -> (Job, CommandLine) {
        self.tuner.allow(self.program / 2);
        let (mut job, command) = self.start(&self.tuner.url(), false);
        let watched = watch(&mut job, &command, BASE, 3, PATIENCE);
        assert!(watched.faults.is_empty() && watched.exit.is_none(), "{watched:?} {:?}", job.log());
        (job, command)
    }

    /// Nobody is left of a stream, and nothing that Jellyfin would trip over.
    #[track_caller]
    fn nothing_is_left(&self, command: &CommandLine) {
        let url = self.tuner.url();
        let worker = self.stack.worker_program().unwrap();
        wait_for("the end of readers", || called_with(&url).is_empty());
        wait_for("the end of streams", || self.stack.streams().unwrap().is_empty());
        let of_this_gateway = || -> usize {
            running(&worker).iter().filter(|worker| worker.parent == self.stack.pid()).count()
        };
        wait_for("warm workers alone", || of_this_gateway() <= 2);
        // It notices that somebody is gone when it has something for him.
        self.tuner.allow(u64::MAX);
        wait_for("the tuner's rest", || self.tuner.viewers() == 0);
        self.no_remains(command);
    }

    #[track_caller]
    fn no_remains(&self, command: &CommandLine) {
        for entry in fs::read_dir(&command.directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            assert!(!name.ends_with(".tmp"), "{name} is left");
            assert!(entry.metadata().unwrap().len() > 0, "{name} is empty");
        }
    }
}

#[test]
fn a_viewer_watches_until_the_program_ends() {
    for encode in [false, true] {
        let house = House::new();
        let (mut job, command) = house.start(&house.tuner.url(), encode);
        let watched = watch(&mut job, &command, BASE, 100, PATIENCE);
        assert!(watched.faults.is_empty(), "{watched:?}");
        let exit = watched.exit.expect("the program has ended");
        assert_eq!(exit.code, 0, "{:?}", job.log());
        assert!(job.log().head.iter().any(|line| line.contains("rendergate: stream ")));
        assert_eq!(job.stdout_bytes(), 0);
        let last = watched.playlists.last().unwrap();
        assert!(last.ends_with("#EXT-X-ENDLIST\n"), "{last}");
        let names: Vec<_> = (0..10).map(|number| format!("abc{number}.ts")).collect();
        assert_eq!(watched.fetched, names);
        // It grew while it was watched.
        assert!(watched.playlists.len() > 3, "{}", watched.playlists.len());
        assert!(!house.path("record").exists(), "ffmpeg was asked to transcode");
        house.nothing_is_left(&command);
    }
}

#[test]
fn a_viewer_leaves_while_nothing_comes() {
    let house = House::new();
    let (mut job, command) = house.awaiting();
    let exit = job.stop();
    assert!(exit.code == 0 && !exit.killed, "{exit:?} {:?}", job.log());
    let text = fs::read_to_string(command.directory.join("abc.m3u8")).unwrap();
    assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
    assert!(!job.left_something_behind());
    house.nothing_is_left(&command);
}

#[test]
fn a_viewer_leaves_before_anything_came() {
    let house = House::new();
    house.tuner.allow(0);
    let (mut job, command) = house.start(&house.tuner.url(), true);
    wait_for("a reader at the tuner", || house.tuner.viewers() == 1);
    let exit = job.stop();
    assert!(exit.code == 0 && !exit.killed, "{exit:?} {:?}", job.log());
    assert_eq!(fs::read_dir(&command.directory).unwrap().count(), 0);
    house.nothing_is_left(&command);
}

#[test]
fn what_stood_still_goes_on() {
    let house = House::new();
    let (mut job, command) = house.awaiting();
    house.tuner.allow(u64::MAX);
    let watched = watch(&mut job, &command, BASE, 100, PATIENCE);
    assert_eq!(watched.exit.map(|exit| exit.code), Some(0), "{:?}", job.log());
    assert_eq!(watched.fetched.len(), 10, "{watched:?}");
    house.nothing_is_left(&command);
}

#[test]
fn what_the_server_lacks_is_left_to_the_real_ffmpeg() {
    let house = House::new();
    let url = house.tuner.missing_url();
    let (mut job, command) = house.start(&url, false);
    let exit = job.wait();
    let log = job.log();
    assert_eq!(exit.code, TRANSCODED, "{log:?}");
    let record = fs::read_to_string(house.path("record")).unwrap();
    let arguments = command.at(0, f64::from(SECONDS));
    assert_eq!(record.lines().collect::<Vec<_>>(), arguments);
    assert!(log.head.iter().any(|line| line.contains("404")), "{log:?}");
    assert!(called_with(&url).is_empty(), "a reader is left");
    house.nothing_is_left(&command);
}

#[test]
fn whoever_is_killed_takes_the_reader_along() {
    for stalled in [true, false] {
        for victim in ["hook", "worker", "gateway"] {
            let mut house = House::new();
            let (mut job, command) = house.awaiting();
            if !stalled {
                house.tuner.allow(u64::MAX);
            }
            let readers = children(job.pid());
            assert_eq!(readers.len(), 1, "{readers:?}");
            let pid = match victim {
                "hook" => job.pid(),
                "worker" => house.stack.stream_worker().expect("a worker"),
                _ => house.stack.pid(),
            };
            signal(pid, Signal::KILL);
            let exit = job.wait();
            assert_ne!(exit.code, 0, "{victim}: {:?}", job.log());
            if victim == "gateway" {
                house.stack.restart().unwrap();
            }
            house.nothing_is_left(&command);
        }
    }
}
