//! A stream whose gateway is lost, and the next one: what the hook waits for, tells, and gives up.

mod common;

use std::fs;
use std::io::PipeWriter;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::{Connection, Gateway, Hook, House, let_pass, wait_for};
use rustix::process::Signal;
use session::Control::{Pause, Quit};
use session::{
    Complete, Ending, Fault, GatewayToHook, HookToGateway, PROTOCOL, Progress, Resumption,
    StreamId, Takeover, Writer,
};

const WRITER: Writer = Writer { stream: StreamId(3), pid: 77 };

fn state(number: u64) -> Complete {
    Complete { length: (270_000, 90_000), state: Some(number.into()), last: false }
}

fn segment(house: &House, connection: &Connection, number: u32) {
    house.segment(number);
    let number = u64::from(number);
    connection.say(&GatewayToHook::SegmentComplete { number, complete: state(number) });
}

/// A hook with this time to find another gateway, two segments into its stream. The worker lives for as
/// long as its lease.
fn under_way(house: &House, milliseconds: u64) -> (Hook, Gateway, Connection, PipeWriter) {
    let gateway = house.gateway();
    let mut command = house.command("ffmpeg", &house.job());
    command.env("RENDERGATE_RECONNECT_TIMEOUT_MS", milliseconds.to_string());
    let hook = Hook::start(command);
    let mut connection = gateway.connection();
    connection.job();
    let (lease, worker) = std::io::pipe().unwrap();
    connection.say_with(&GatewayToHook::Writer { writer: WRITER }, &[lease.as_fd()]);
    connection.accept();
    connection.say(&GatewayToHook::Committed);
    segment(house, &connection, 0);
    segment(house, &connection, 1);
    wait_for("placeholder", || house.output() == ["id0.ts", "id1.ts", "id2.ts"]);
    (hook, gateway, connection, worker)
}

/// What a hook brings along, with the files of a job.
#[track_caller]
fn takeover(connection: &mut Connection) -> Takeover {
    let (message, descriptors) = connection.message_with();
    let HookToGateway::Job { protocol: PROTOCOL, transcode, reconnects, takeover } = message else {
        panic!("expected a job, got {message:?}");
    };
    assert_eq!(descriptors.len(), transcode.needs().len());
    let link = |at: usize| {
        use std::os::fd::AsRawFd;
        fs::read_link(format!("/proc/self/fd/{}", descriptors[at].as_raw_fd())).unwrap()
    };
    assert!(link(0).ends_with("in.mkv") && link(1).ends_with("out"));
    assert!(reconnects);
    *takeover.expect("it goes on")
}

fn accept(connection: &Connection) {
    connection.say(&GatewayToHook::Accepted { stream: StreamId(8), protocol: PROTOCOL });
}

#[test]
fn a_stream_goes_on_with_the_next_gateway_once_its_worker_is_gone() {
    for let_go in [false, true] {
        let house = House::new();
        let (hook, gateway, connection, worker) = under_way(&house, 15_000);
        let progress = Progress { frames: 150, position_us: 6_000_000, ..Progress::default() };
        connection.say(&GatewayToHook::Progress(progress));
        if let_go {
            segment(&house, &connection, 2);
            connection.say(&GatewayToHook::LetGo);
        }
        let next = if let_go { 3 } else { 2 };
        drop((connection, gateway));
        let gateway = house.gateway_again();
        // Its worker could still write.
        let_pass(Duration::from_millis(300));
        assert!(gateway.is_quiet());
        assert!(house.output().contains(&format!("id{next}.ts")), "{:?}", house.output());
        drop(worker);
        let mut connection = gateway.connection();
        let takeover = takeover(&mut connection);
        assert_eq!((takeover.resumption.next, takeover.resumption.segments()), (next, next));
        assert_eq!(takeover.resumption.state, Some((next - 1).into()));
        assert_eq!((takeover.writer, takeover.progress), (Some(WRITER), progress));
        accept(&connection);
        segment(&house, &connection, u32::try_from(next).unwrap());
        let empty = format!("id{}.ts", next + 1);
        wait_for("placeholder", || house.output().contains(&empty));
        connection.say(&GatewayToHook::Ended(Ending::Complete));
        let left = hook.left();
        assert_eq!(left.status.code(), Some(0), "{}", left.stderr);
        let why =
            if let_go { "stops; waiting" } else { "connection; waiting for the next gateway" };
        assert!(left.stderr.contains(why), "{}", left.stderr);
        let on = format!("stream s8 goes on with the next gateway at segment {next}, after ");
        assert!(left.stderr.contains(&on), "{}", left.stderr);
        assert!(!house.output().contains(&empty));
        assert!(house.recorded_arguments().is_none());
    }
}

/// The playlist is written before the last segment is told of.
#[test]
fn who_is_lost_behind_the_last_segment_leaves_nothing_to_be_done() {
    for (keys, let_go) in [("", false), ("q", false), ("", true)] {
        let house = House::new();
        let (mut hook, gateway, connection, worker) = under_way(&house, 15_000);
        hook.keys(keys);
        house.segment(2);
        let complete = Complete { state: None, last: true, ..state(2) };
        connection.say(&GatewayToHook::SegmentComplete { number: 2, complete });
        if let_go {
            connection.say(&GatewayToHook::LetGo);
        }
        drop((connection, gateway, worker));
        let left = hook.left();
        assert_eq!(left.status.code(), Some(0), "{}", left.stderr);
        assert_eq!(house.output(), ["id0.ts", "id1.ts", "id2.ts"]);
    }
}

#[test]
fn one_gateway_after_the_other_may_be_lost_if_segments_come_of_it() {
    let house = House::new();
    let (hook, mut gateway, mut connection, worker) = under_way(&house, 15_000);
    drop(worker);
    for number in 2..6 {
        drop((connection, gateway));
        gateway = house.gateway_again();
        connection = gateway.connection();
        assert_eq!(takeover(&mut connection).resumption.next, u64::from(number));
        // Lost with the question: that is none of the stream's.
        drop(connection);
        connection = gateway.connection();
        assert_eq!(takeover(&mut connection).resumption.next, u64::from(number));
        accept(&connection);
        segment(&house, &connection, number);
        wait_for("placeholder", || house.output().contains(&format!("id{}.ts", number + 1)));
    }
    // From here on none: the stream itself may be what ends them.
    for _ in 0..2 {
        drop(connection);
        connection = gateway.connection();
        assert_eq!(takeover(&mut connection).resumption.next, 6);
        accept(&connection);
    }
    drop(connection);
    let left = hook.left();
    assert_eq!(left.status.code(), Some(1), "{}", left.stderr);
    assert!(left.stderr.contains("stream s8 broke off: lost the gateway"), "{}", left.stderr);
    assert_eq!(house.output().last().map(String::as_str), Some("id5.ts"));
}

/// It may have given the stream to a worker before it was lost, and not come to say so.
#[test]
fn the_worker_of_a_gateway_that_has_not_answered_is_waited_for_too() {
    let house = House::new();
    let (hook, gateway, connection, worker) = under_way(&house, 15_000);
    drop((connection, gateway, worker));
    let gateway = house.gateway_again();
    let mut connection = gateway.connection();
    assert_eq!(takeover(&mut connection).writer, Some(WRITER));
    let (lease, worker) = std::io::pipe().unwrap();
    let writer = Writer { stream: StreamId(1), pid: 78 };
    connection.say_with(&GatewayToHook::Writer { writer }, &[lease.as_fd()]);
    drop((connection, gateway, lease));
    let gateway = house.gateway_again();
    let_pass(Duration::from_millis(400));
    assert!(gateway.is_quiet());
    drop(worker);
    let mut connection = gateway.connection();
    assert_eq!(takeover(&mut connection).writer, Some(writer));
    accept(&connection);
    connection.say(&GatewayToHook::Ended(Ending::Complete));
    assert_eq!(hook.left().status.code(), Some(0));
}

#[test]
fn keys_are_heeded_between_two_gateways() {
    let house = House::new();
    let (mut hook, gateway, connection, worker) = under_way(&house, 15_000);
    drop((connection, gateway, worker));
    hook.keys("p");
    let_pass(Duration::from_millis(100));
    let gateway = house.gateway_again();
    let mut connection = gateway.connection();
    takeover(&mut connection);
    assert_eq!(connection.control(), Pause);
    accept(&connection);
    hook.keys("q");
    assert_eq!(connection.control(), Quit);
    connection.say(&GatewayToHook::Ended(Ending::Quit));
    assert_eq!(hook.left().status.code(), Some(0));
}

#[test]
fn quitting_between_two_gateways_leaves_whole_segments_and_nothing_else() {
    for (asked, code) in [("q", 0), ("TERM", 255)] {
        let house = House::new();
        let (mut hook, gateway, connection, worker) = under_way(&house, 15_000);
        // As a worker that was killed with its gateway leaves it.
        let half = format!("out/id2.ts.{}.tmp", WRITER.tag());
        fs::write(house.path(&half), b"half").unwrap();
        drop((connection, gateway, worker));
        let_pass(Duration::from_millis(50));
        let start = Instant::now();
        match asked {
            "q" => hook.keys("q\n"),
            _ => hook.signal(Signal::TERM),
        }
        let left = hook.left();
        assert_eq!(left.status.code(), Some(code), "{}", left.stderr);
        assert!(start.elapsed() < Duration::from_secs(4));
        assert_eq!(house.output(), ["id0.ts", "id1.ts"]);
    }
}

/// The hook ends as failed and says why; whole segments stay.
#[track_caller]
fn check_end(milliseconds: u64, says: &str, then: impl FnOnce(&House, Connection, PipeWriter)) {
    let house = House::new();
    let (hook, gateway, connection, worker) = under_way(&house, milliseconds);
    drop(gateway);
    then(&house, connection, worker);
    let left = hook.left();
    assert_eq!(left.status.code(), Some(1), "{}", left.stderr);
    assert!(left.stderr.contains(says), "expected \"{says}\" in {}", left.stderr);
    assert_eq!(house.output(), ["id0.ts", "id1.ts"]);
    assert!(house.recorded_arguments().is_none());
}

#[test]
fn what_can_t_go_on_ends_as_failed() {
    check_end(300, "no other gateway came within 0.3 s", |_, _, _| {});
    let mut kept = None;
    check_end(300, "its worker doesn't end within 0.3 s", |_, _, worker| kept = Some(worker));
    check_end(0, "stream s3 broke off: lost the gateway", |_, _, _| {});
    check_end(
        15_000,
        "broke off: the next gateway declined: no room",
        |house, connection, worker| {
            drop((connection, worker));
            let gateway = house.gateway_again();
            let mut connection = gateway.connection();
            takeover(&mut connection);
            connection.say(&GatewayToHook::Declined { reason: "no room".to_owned() });
        },
    );
    check_end(15_000, "gateway speaks protocol 999", |house, connection, worker| {
        drop((connection, worker));
        let gateway = house.gateway_again();
        let mut connection = gateway.connection();
        takeover(&mut connection);
        connection.say(&GatewayToHook::Accepted { stream: StreamId(8), protocol: 999 });
    });
    let mut silent = None;
    check_end(600, "the next gateway gives no answer within 0.6 s", |house, connection, worker| {
        drop((connection, worker));
        let gateway = house.gateway_again();
        let mut connection = gateway.connection();
        takeover(&mut connection);
        silent = Some(connection);
    });
    // Whoever says so knows better.
    check_end(15_000, "failed after output began: disk full", |_, connection, _| {
        let reason = "disk full".to_owned();
        connection.say(&GatewayToHook::Ended(Ending::Failed { reason, fault: Fault::Output }));
    });
}

/// A gateway that stops is another matter than one that is full.
#[test]
fn a_gateway_that_stops_sends_the_hook_on() {
    let house = House::new();
    let (hook, gateway, connection, worker) = under_way(&house, 1500);
    drop((connection, gateway, worker));
    let gateway = house.gateway_again();
    // Longer than it waits where nobody is.
    for _ in 0..4 {
        let mut connection = gateway.connection();
        takeover(&mut connection);
        let_pass(Duration::from_millis(600));
        connection.say(&GatewayToHook::LetGo);
    }
    let mut connection = gateway.connection();
    takeover(&mut connection);
    accept(&connection);
    connection.say(&GatewayToHook::Ended(Ending::Complete));
    assert_eq!(hook.left().status.code(), Some(0));
}

/// Restarted for as many reasons while nothing comes of the stream: Jellyfin may have paused it.
#[test]
fn gateways_that_stop_are_not_lost() {
    let house = House::new();
    let (hook, mut gateway, mut connection, worker) = under_way(&house, 15_000);
    drop(worker);
    for _ in 0..4 {
        connection.say(&GatewayToHook::LetGo);
        drop((connection, gateway));
        gateway = house.gateway_again();
        connection = gateway.connection();
        takeover(&mut connection);
        accept(&connection);
    }
    connection.say(&GatewayToHook::Ended(Ending::Complete));
    let left = hook.left();
    assert_eq!(left.status.code(), Some(0), "{}", left.stderr);
}

#[test]
fn without_a_whole_segment_the_next_gateway_begins_anew() {
    let house = House::new();
    let (hook, connection) = house.accepted();
    connection.say(&GatewayToHook::Committed);
    drop(connection);
    let gateway = house.gateway_again();
    let mut connection = gateway.connection();
    let takeover = takeover(&mut connection);
    assert_eq!(takeover.resumption, Resumption::beginning(0));
    accept(&connection);
    segment(&house, &connection, 0);
    wait_for("placeholder", || house.output() == ["id0.ts", "id1.ts"]);
    connection.say(&GatewayToHook::Ended(Ending::Complete));
    let left = hook.left();
    assert_eq!(left.status.code(), Some(0), "{}", left.stderr);
    assert!(house.recorded_arguments().is_none());
}
