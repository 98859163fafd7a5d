//! Streams that a gateway runs: keys, signals, endings, the placeholder, progress.

mod common;

use std::fs;
use std::time::Duration;

use common::{FILE, Hook, House, let_pass, wait_for};
use ffmpeg_args::Location;
use rustix::process::Signal;
use session::Control::{Pause, Quit, Resume};
use session::{Ending, Fault, GatewayToHook, Progress};
use stand::disk::{SmallDisk, apart};

fn complete(connection: &common::Connection) {
    connection.say(&GatewayToHook::Ended(Ending::Complete));
}

#[test]
fn a_job_carries_the_plan_and_open_files() {
    use std::io::Read;
    let house = House::new();
    let gateway = house.gateway();
    let hook = house.start(&house.job());
    let mut connection = gateway.connection();
    let (transcode, mut files) = connection.job();
    assert_eq!(transcode.inputs[0].location, Location::File(house.path("in.mkv")));
    assert_eq!(files.len(), 2);
    let directory = files.pop().unwrap();
    let mut text = String::new();
    fs::File::from(files.pop().unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "some media");
    rustix::fs::openat(
        &directory,
        "made-by-the-worker",
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
        0o600.into(),
    )
    .unwrap();
    assert_eq!(house.output(), ["made-by-the-worker"]);
    connection.accept();
    connection.say(&GatewayToHook::Running {
        backend: "software".to_owned(),
        description: "x264".to_owned(),
    });
    connection.say(&GatewayToHook::Committed);
    connection.say(&GatewayToHook::Log { line: "a warning\nin two".to_owned() });
    complete(&connection);
    let left = hook.left();
    assert_eq!((left.status.code(), left.stdout.as_str()), (Some(0), ""));
    let lines: Vec<_> = left.stderr.lines().collect();
    assert!(lines[0].starts_with("rendergate: stream s3 on gateway unix:"), "{lines:?}");
    assert!(lines[0].contains("H.264"), "{lines:?}");
    assert_eq!(lines[1], "rendergate: software: x264");
    assert_eq!(lines[2], "a warning in two");
    assert!(house.recorded_arguments().is_none());
    assert!(connection.is_closed());
}

#[test]
fn keys_are_passed_on_and_the_end_of_input_is_none() {
    let house = House::new();
    let (mut hook, mut connection) = house.committed();
    hook.keys("p");
    assert_eq!(connection.control(), Pause);
    hook.keys("u");
    assert_eq!(connection.control(), Resume);
    hook.keys("c");
    assert_eq!(connection.control(), Pause);
    hook.keys("\n");
    assert_eq!(connection.control(), Resume);
    hook.keys("p");
    assert_eq!(connection.control(), Pause);
    hook.keys("x");
    assert_eq!(connection.control(), Resume);
    hook.keys("\n?");
    hook.close_stdin();
    let_pass(Duration::from_millis(50));
    assert!(hook.is_running());
    complete(&connection);
    let left = hook.left();
    assert_eq!(left.status.code(), Some(0));
    assert!(left.stderr.contains("\nTranscoding is paused. Press [u] to resume.\n"));
    assert!(connection.is_closed());
}

#[test]
fn keys_before_the_answer_wait_for_it() {
    let house = House::new();
    let gateway = house.gateway();
    let mut hook = house.start(&house.job());
    let mut connection = gateway.connection();
    hook.keys("p");
    connection.job();
    let_pass(Duration::from_millis(20));
    connection.accept();
    assert_eq!(connection.control(), Pause);
    hook.keys("q");
    assert_eq!(connection.control(), Quit);
    connection.say(&GatewayToHook::Ended(Ending::Quit));
    assert_eq!(hook.left().status.code(), Some(0));
}

#[test]
fn quitting_before_the_answer_just_ends() {
    let house = House::new();
    let gateway = house.gateway();
    let mut hook = house.start(&house.job());
    let mut connection = gateway.connection();
    connection.job();
    hook.keys("q\n");
    assert_eq!(hook.left().status.code(), Some(0));
    assert!(connection.is_closed());

    let hook = house.start(&house.job());
    let mut connection = gateway.connection();
    connection.job();
    hook.signal(Signal::TERM);
    assert_eq!(hook.left().status.code(), Some(255));
    assert!(connection.is_closed());
    assert!(house.recorded_arguments().is_none());
}

#[test]
fn the_placeholder_follows_the_newest_segment() {
    let house = House::new();
    let (hook, connection) = house.committed();
    assert_eq!(fs::metadata(house.path("out/id1.ts")).unwrap().len(), 0);
    house.segment(1);
    connection.complete(1);
    wait_for("placeholder", || house.output() == ["id0.ts", "id1.ts", "id2.ts"]);
    assert_ne!(fs::metadata(house.path("out/id1.ts")).unwrap().len(), 0);
    house.segment(2);
    connection.complete(2);
    complete(&connection);
    assert_eq!(hook.left().status.code(), Some(0));
    assert_eq!(house.output(), ["id0.ts", "id1.ts", "id2.ts"]);
}

/// The viewer has leapt back, and segments of the run before stand ahead: an empty one in front of
/// them would be served.
#[test]
fn no_placeholder_stands_before_a_segment_of_a_run_before() {
    let house = House::new();
    let (hook, connection) = house.committed();
    house.segment(3);
    house.segment(1);
    connection.complete(1);
    let_pass(Duration::from_millis(300));
    assert_eq!(house.output(), ["id0.ts", "id1.ts", "id3.ts"]);
    house.segment(2);
    house.segment(3);
    connection.complete(3);
    wait_for("placeholder", || house.output().contains(&"id4.ts".to_owned()));
    complete(&connection);
    assert_eq!(hook.left().status.code(), Some(0));
    assert_eq!(house.output(), ["id0.ts", "id1.ts", "id2.ts", "id3.ts"]);
}

/// The disk holds no more files, whatever their size. The hook goes on listening meanwhile.
#[test]
fn a_placeholder_without_room_comes_when_there_is_some() {
    if !apart("a_placeholder_without_room_comes_when_there_is_some") {
        return;
    }
    let house = House::new();
    let disk = SmallDisk::over(&house.path("out"), 1 << 20, 3);
    let (mut hook, mut connection) = house.committed();
    house.segment(1);
    disk.allow(2);
    connection.complete(1);
    hook.keys("p");
    assert_eq!(connection.control(), Pause);
    let_pass(Duration::from_millis(1200));
    hook.keys("u");
    assert_eq!(connection.control(), Resume);
    assert_eq!(house.output(), ["id0.ts", "id1.ts"]);
    disk.allow(3);
    wait_for("placeholder", || house.output() == ["id0.ts", "id1.ts", "id2.ts"]);
    // And again; this time nobody waits for it.
    disk.allow(4);
    house.segment(2);
    disk.allow(3);
    connection.complete(2);
    let_pass(Duration::from_millis(100));
    hook.keys("q");
    assert_eq!(connection.control(), Quit);
    disk.allow(9);
    let_pass(Duration::from_millis(700));
    assert_eq!(house.output(), ["id0.ts", "id1.ts", "id2.ts"]);
    connection.say(&GatewayToHook::Ended(Ending::Quit));
    assert_eq!(hook.left().status.code(), Some(0));
}

#[test]
fn q_removes_the_placeholder_before_it_is_passed_on_and_none_follows() {
    let house = House::new();
    let (mut hook, mut connection) = house.committed();
    hook.keys("q\n");
    assert_eq!(connection.control(), Quit);
    assert_eq!(house.output(), ["id0.ts"]);
    // The worker had one segment under way, then writes the partial one.
    house.segment(1);
    connection.complete(1);
    let_pass(Duration::from_millis(50));
    assert_eq!(house.output(), ["id0.ts", "id1.ts"]);
    house.segment(2);
    connection.complete(2);
    connection.say(&GatewayToHook::Ended(Ending::Quit));
    let left = hook.left();
    assert_eq!(left.status.code(), Some(0));
    assert!(left.stderr.contains("[q] command received. Exiting.\n"));
    assert_eq!(house.output(), ["id0.ts", "id1.ts", "id2.ts"]);
}

#[track_caller]
fn check_signal(signal: Signal) {
    let house = House::new();
    let (hook, mut connection) = house.committed();
    hook.signal(signal);
    assert_eq!(connection.control(), Quit);
    assert_eq!(house.output(), ["id0.ts"]);
    connection.say(&GatewayToHook::Ended(Ending::Quit));
    let left = hook.left();
    assert_eq!(left.status.code(), Some(255));
    assert!(left.stderr.contains(&format!("received signal {}", signal.as_raw())));
}

#[test]
fn signals_end_the_stream_as_they_end_ffmpeg() {
    check_signal(Signal::TERM);
    check_signal(Signal::INT);
    check_signal(Signal::HUP);
}

#[test]
fn many_signals_end_at_once() {
    let house = House::new();
    let (mut hook, mut connection) = house.committed();
    for _ in 0..3 {
        hook.signal(Signal::TERM);
        // One at a time: the kernel merges those that are not taken yet.
        let_pass(Duration::from_millis(50));
    }
    assert!(hook.is_running());
    hook.signal(Signal::TERM);
    assert_eq!(connection.control(), Quit);
    assert_eq!(hook.left().status.code(), Some(123));
    assert_eq!(house.output(), ["id0.ts"]);
}

#[test]
fn a_gateway_that_never_ends_is_left_before_jellyfin_kills() {
    let house = House::new();
    let (mut hook, mut connection) = house.committed();
    hook.keys("q");
    assert_eq!(connection.control(), Quit);
    // By itself, and in whose time is asserted where its patience is defined: here a busy machine's
    // would be measured.
    let left = hook.left();
    assert_eq!(left.status.code(), Some(1));
    assert!(connection.is_closed());
}

#[track_caller]
fn check_failure(happens: impl FnOnce(common::Connection), says: &str) {
    let house = House::new();
    let (hook, connection) = house.committed();
    happens(connection);
    let left = hook.left();
    assert_eq!(left.status.code(), Some(1));
    assert_eq!(house.output(), ["id0.ts"]);
    assert!(left.stderr.contains(says), "{}", left.stderr);
    assert!(house.recorded_arguments().is_none());
}

#[test]
fn failures_after_output_end_with_one_and_without_placeholder() {
    check_failure(drop, "lost the gateway");
    check_failure(
        |connection| {
            let reason = "disk full".to_owned();
            connection.say(&GatewayToHook::Ended(Ending::Failed { reason, fault: Fault::Output }));
        },
        "stream s3 failed after output began: disk full",
    );
    check_failure(
        |connection| connection.say(&GatewayToHook::Ended(Ending::Quit)),
        "ended by the gateway",
    );
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_after_output_ends_with_one_and_without_placeholder() {
    let house = House::new();
    let gateway = house.gateway();
    let mut command = house.command("ffmpeg", &house.job());
    command.env("RENDERGATE_TEST_PANIC", "segment");
    let hook = Hook::start(command);
    let mut connection = gateway.connection();
    connection.job();
    connection.accept();
    house.segment(0);
    connection.complete(0);
    let left = hook.left();
    assert_eq!(left.status.code(), Some(1), "{}", left.stderr);
    assert_eq!(house.output(), ["id0.ts"]);
    assert!(left.stderr.contains("hook failed after output began"), "{}", left.stderr);
    assert!(house.recorded_arguments().is_none());
}

#[test]
fn progress_is_what_jellyfin_reads() {
    use jellyfin_sim::job_logger::{Lines, read_line};
    let house = House::new();
    let (hook, connection) = house.committed();
    for second in 1..=3 {
        connection.say(&GatewayToHook::Progress(Progress {
            frames: second * 48,
            position_us: second * 2_000_000,
            source_us: 30_000_000,
            bytes: second * 1000,
            elapsed_us: second * 1_000_000,
        }));
    }
    // The last of what came too fast is printed when its time has come.
    let_pass(Duration::from_millis(700));
    complete(&connection);
    let left = hook.left();
    let readings: Vec<_> = Lines::default()
        .push(left.stderr.as_bytes())
        .iter()
        .filter_map(|line| read_line(line))
        .map(|reading| (reading.fps, reading.position.map(|at| at.as_millis())))
        .collect();
    let at = |seconds: u128| (Some(48.0), Some(seconds * 2000));
    // Which one comes first depends on how far the hook has read; the last one is never lost, and
    // the closing line repeats it.
    let firsts = [vec![], vec![at(1)], vec![at(2)]];
    let allowed = firsts.map(|first| [first, vec![at(3), at(3)]].concat());
    assert!(allowed.contains(&readings), "{readings:?}\n{}", left.stderr);
    assert!(left.stderr.ends_with(" speed=   2x    \n"), "{:?}", left.stderr);
    assert!(left.stderr.contains(" Lsize=N/A time=00:00:06.00 "), "{}", left.stderr);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let house = House::new();
    let gateway = house.gateway();
    let mut command = house.command("ffmpeg", &house.job());
    let (reader, writer) = std::io::pipe().unwrap();
    command.stderr(writer).stdout(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut connection = gateway.connection();
    connection.job();
    connection.accept();
    for _ in 0..300 {
        connection.say(&GatewayToHook::Log { line: "x".repeat(1000) });
    }
    drop(reader);
    for _ in 0..300 {
        connection.say(&GatewayToHook::Log { line: "y".repeat(1000) });
    }
    house.segment(0);
    connection.complete(0);
    complete(&connection);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(house.output(), ["id0.ts"]);
}

/// A hook of one growing file, accepted.
fn file(house: &House) -> (Hook, common::Connection) {
    let gateway = house.gateway();
    let hook = house.start(&house.file_job());
    let mut connection = gateway.connection();
    let (transcode, files) = connection.job();
    assert_eq!(transcode.output.path(), house.path("out").join(FILE));
    assert_eq!(files.len(), 2);
    connection.accept();
    (hook, connection)
}

#[test]
fn a_growing_file_has_no_placeholder_and_stays_however_it_ends() {
    for end in ["complete", "q", "failure", "lost"] {
        let house = House::new();
        let (mut hook, mut connection) = file(&house);
        connection.say(&GatewayToHook::Committed);
        fs::write(house.path("out").join(FILE), b"a part").unwrap();
        let progress =
            Progress { frames: 50, position_us: 2_000_000, bytes: 6, ..Progress::default() };
        connection.say(&GatewayToHook::Progress(progress));
        // Nobody says so of a file; if somebody did, nothing would appear.
        connection.complete(0);
        let code = match end {
            "complete" => {
                complete(&connection);
                0
            }
            "q" => {
                hook.keys("q\n");
                assert_eq!(connection.control(), Quit);
                connection.say(&GatewayToHook::Ended(Ending::Quit));
                0
            }
            "failure" => {
                let reason = "disk full".to_owned();
                let fault = Fault::Output;
                connection.say(&GatewayToHook::Ended(Ending::Failed { reason, fault }));
                1
            }
            _ => 1,
        };
        drop(connection);
        let left = hook.left();
        assert_eq!((left.status.code(), left.stdout.as_str()), (Some(code), ""), "{end}");
        assert!(left.stderr.contains("time=00:00:02.00"), "{end}: {}", left.stderr);
        assert_eq!(house.output(), [FILE], "{end}");
        assert!(house.recorded_arguments().is_none(), "{end}");
    }
}

#[test]
fn a_growing_file_that_has_not_begun_is_left_to_the_real_ffmpeg() {
    for lost in [true, false] {
        let house = House::new();
        let (hook, connection) = file(&house);
        if !lost {
            let reason = "no place for it".to_owned();
            let fault = Fault::Unsupported;
            connection.say(&GatewayToHook::Ended(Ending::Failed { reason, fault }));
        }
        drop(connection);
        assert_eq!(hook.left_after_input().status.code(), Some(42));
        assert_eq!(house.recorded_arguments(), Some(house.file_job()));
    }
}
