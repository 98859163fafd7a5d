//! The gateway is lost, or stops, while somebody watches: the next one goes on with the stream.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use benches::processes::running;
use benches::stack::{pause, signal};
use jellyfin_sim::{CommandLine, Job};
use rustix::process::Signal;

use super::{
    BOTH, House, LONG, PATIENCE, broke_off, film, is_whole, piece, playlist, segments, wait_for,
    whole,
};

const FRAMES: u64 = LONG.seconds as u64 * 25;

/// Pictures in all segments.
fn frames(command: &CommandLine) -> u64 {
    let of = |number| {
        let probe = Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", "v", "-count_packets", "-of", "csv=p=0"])
            .args(["-show_entries", "stream=nb_read_packets"])
            .arg(piece(command, number))
            .output()
            .expect("ffprobe is needed: apt install ffmpeg");
        let text = String::from_utf8(probe.stdout).unwrap();
        let count = text.lines().next().unwrap_or_default().trim_end_matches(',');
        count.parse::<u64>().unwrap_or_else(|_| panic!("segment {number}: {text:?}"))
    };
    segments(command).into_iter().map(of).sum()
}

/// Jellyfin sees an ffmpeg that succeeds, and the viewer gets every picture.
#[track_caller]
fn went_on(job: &mut Job, command: &CommandLine) {
    let exit = job.wait();
    let log = job.log();
    assert_eq!(exit.code, 0, "{log:?}");
    let said = |line: &String| line.contains("goes on with the next gateway at segment");
    assert!(log.head.iter().chain(&log.tail).any(said), "{log:?}");
    whole(command);
    let (text, numbers) = (playlist(command), segments(command));
    assert_eq!(numbers, (0..i64::from(LONG.seconds.div_ceil(3))).collect::<Vec<_>>());
    assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
    assert_eq!(text.matches("#EXTINF").count(), numbers.len());
    assert_eq!(frames(command), FRAMES);
}

fn resumed(house: &House) -> bool {
    house.stack.get("/metrics").unwrap().contains("\nrendergate_streams_resumed_total 1\n")
}

#[test]
fn a_killed_gateway_s_streams_go_on_with_the_next() {
    let mut house = House::new();
    for container in BOTH {
        let (mut job, command) = house.under_way(container);
        let worker = house.worker();
        // `restart` kills it, as whoever is out of memory does.
        house.stack.restart().unwrap();
        went_on(&mut job, &command);
        assert!(resumed(&house));
        let program = house.stack.worker_program().unwrap();
        assert!(running(&program).iter().all(|process| process.pid != worker));
        fs::remove_dir_all(&command.directory).unwrap();
    }
}

/// As the end of a container or a control group is: the workers die with it, half-way through.
#[test]
fn a_gateway_killed_with_its_workers_again_and_again() {
    let mut house = House::new();
    for container in BOTH {
        let (mut job, command) = house.under_way(container);
        for next in [4, 8, 12] {
            let worker = house.worker();
            signal(house.stack.pid(), Signal::STOP);
            signal(worker, Signal::KILL);
            house.stack.restart().unwrap();
            wait_for("segments of the next gateway", PATIENCE, || {
                assert!(job.exit().is_none(), "{:?}", job.log());
                is_whole(&command.segment(next))
            });
        }
        went_on(&mut job, &command);
        fs::remove_dir_all(&command.directory).unwrap();
    }
}

#[test]
fn a_gateway_that_is_restarted_as_for_an_upgrade() {
    let mut house = House::new();
    for container in BOTH {
        let (mut job, command) = house.under_way(container);
        let begun = Instant::now();
        signal(house.stack.pid(), Signal::TERM);
        house.stack.wait_ended().unwrap();
        // It doesn't wait for the film's end.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(job.exit().is_none(), "{:?}", job.log());
        house.stack.restart().unwrap();
        went_on(&mut job, &command);
        fs::remove_dir_all(&command.directory).unwrap();
    }
    let log = fs::read_to_string(house.stack.log()).unwrap();
    assert_eq!(log.matches("how=\"moved\"").count(), 2, "{log}");
}

#[test]
fn quitting_while_no_gateway_is_there() {
    for container in BOTH {
        let house = House::new();
        let (mut job, command) = house.under_way(container);
        // Paused, it stays for long where it is.
        job.pause();
        let empty = |number: &i64| !is_whole(&command.segment(*number));
        wait_for("the empty segment", PATIENCE, || segments(&command).iter().any(empty));
        signal(house.stack.pid(), Signal::KILL);
        wait_for("the loss", PATIENCE, || {
            let log = job.log();
            let waits = |line: &String| line.contains("waiting for the next gateway");
            log.head.iter().chain(&log.tail).any(waits)
        });
        // The viewer waits: the empty segment is still there.
        pause(200);
        assert!(segments(&command).iter().any(empty), "{:?}", segments(&command));
        let exit = job.stop();
        assert!(exit.code == 0 && !exit.killed, "{exit:?} {:?}", job.log());
        assert!(exit.stop_seconds.is_some_and(|seconds| seconds < 1.0), "{exit:?}");
        assert!(segments(&command).len() >= 2);
        whole(&command);
    }
}

#[test]
fn no_gateway_comes() {
    for container in BOTH {
        let mut house = House::new();
        house.reconnect_ms = 700;
        let (mut job, command) = house.under_way(container);
        let worker = house.worker();
        signal(house.stack.pid(), Signal::KILL);
        let exit = job.wait();
        let program = house.stack.worker_program().unwrap();
        wait_for("the worker's end", Duration::from_secs(3), || {
            running(&program).iter().all(|process| process.pid != worker)
        });
        broke_off(&mut job, exit, &command, "no other gateway came within 0.7 s");
    }
}

/// All of it seen by a viewer who plays on.
#[test]
fn a_viewer_notices_nothing_of_it() {
    let mut house = House::new();
    for container in BOTH {
        let command = house.command(&film(LONG), container, "played");
        let environment = house.environment();
        let hook = house.stack.hook().unwrap();
        let viewer = {
            let command = command.clone();
            std::thread::spawn(move || {
                House::view_by(hook, environment, LONG, command, "play 30; finish")
            })
        };
        for number in [2, 9] {
            wait_for("a segment", PATIENCE, || is_whole(&command.segment(number)));
            house.stack.restart().unwrap();
        }
        let report = viewer.join().unwrap();
        assert!(report.faults.is_empty(), "{report}");
        assert_eq!(report.runs.len(), 1, "{report}");
        let served = report.segments.iter().map(|segment| segment.number);
        let played: Vec<i64> = served.filter(|number| *number >= 0).collect();
        assert_eq!(played, (0..30).collect::<Vec<_>>(), "{report}");
        whole(&command);
        fs::remove_dir_all(&command.directory).unwrap();
    }
}
