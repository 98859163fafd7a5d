//! What comes in by the session socket, and what is kept out.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use common::{Gateway, Hook, Setup, is_gone, kill, until};
use ffmpeg_args::Output;
use rustix::process::Signal;
use session::{Control, Ending, HookToGateway, MAX_BODY, PROTOCOL};

/// Sends bytes; the gateway drops the connection without an answer, counts it, and goes on.
fn check_bytes(gateway: &Gateway, bytes: &[u8], label: &str) {
    let mut socket = UnixStream::connect(gateway.socket()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset is an end too: what was sent lies there unread.
    let _ = socket.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    gateway.metric(&format!("rendergate_bad_connections_total{{reason=\"{label}\"}} 1"));
}

fn frame(length: u32, descriptors: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(descriptors.to_le_bytes());
    frame.extend(0x5247_u16.to_le_bytes());
    frame.extend(body);
    frame
}

#[test]
fn garbage_drops_that_connection_only() {
    let gateway = Gateway::ready("[session]\nfirst_message_seconds = 0.4\n");
    let mut watching = gateway.hook("");
    watching.segment(5);
    check_bytes(&gateway, b"GET / HTTP/1.1\r\n\r\n", "not_a_frame");
    let oversized = frame(u32::try_from(MAX_BODY).unwrap() + 1, 0, &[]);
    check_bytes(&gateway, &oversized, "oversized");
    check_bytes(&gateway, &frame(2, 0, b"{}"), "body");
    check_bytes(&gateway, &frame(2, 1, b"{}"), "descriptors");
    // Half a frame, and then nothing.
    check_bytes(&gateway, &frame(100, 0, b"{"), "timeout");
    watching.segment(9);
    watching.control(Control::Quit);
    assert_eq!(watching.ended(), Ending::Quit);
}

#[test]
fn a_connection_that_says_nothing_is_no_offence() {
    let gateway = Gateway::ready("");
    drop(UnixStream::connect(gateway.socket()).unwrap());
    let mut hook = gateway.hook("segments=1,every=1");
    assert_eq!(hook.ended(), Ending::Complete);
    assert!(!gateway.get("/metrics").contains("rendergate_bad_connections_total{"));
}

#[test]
fn first_message_must_be_a_job_of_this_protocol() {
    let gateway = Gateway::ready("");
    let mut hook = Hook::connect(&gateway.socket());
    hook.control(Control::Quit);
    assert!(hook.declined().contains("must be a job"));
    let mut hook = gateway.hook_with(PROTOCOL + 1, gateway.transcode(""), gateway.descriptors());
    let reason = hook.declined();
    assert!(
        reason.contains(&format!("protocol {}, this gateway {PROTOCOL}", PROTOCOL + 1)),
        "{reason}"
    );
    hook.dropped();
    gateway.metric("rendergate_declined_total{reason=\"protocol\"} 2");
}

#[test]
fn descriptors_must_be_what_the_job_needs() {
    let gateway = Gateway::ready("");
    let check = |descriptors: Vec<File>, expect: &str| {
        let descriptors = descriptors.into_iter().map(Into::into).collect();
        let mut hook = gateway.hook_with(PROTOCOL, gateway.transcode(""), descriptors);
        let reason = hook.declined();
        assert!(reason.contains(expect), "{reason}");
    };
    let input = || File::open(gateway.input()).unwrap();
    let out = || File::open(gateway.out()).unwrap();
    let writable = || OpenOptions::new().read(true).write(true).open(gateway.input()).unwrap();
    check(vec![], "expected 2 file descriptors");
    check(vec![input()], "expected 2 file descriptors");
    check(vec![input(), input(), out()], "expected 2 file descriptors");
    check(vec![input(), input()], "must be the output directory");
    check(vec![out(), out()], "must be a regular file");
    check(vec![File::open("/dev/null").unwrap(), out()], "must be a regular file");
    check(vec![writable(), out()], "reading only");
    gateway.metric("rendergate_declined_total{reason=\"descriptors\"} 7");
    gateway.idle();
}

#[test]
fn names_must_not_lead_out_of_the_directory() {
    let gateway = Gateway::ready("");
    for prefix in ["../abc", "/etc/", "a/b"] {
        let mut transcode = gateway.transcode("");
        let Output::Hls(output) = &mut transcode.output else { unreachable!("made as HLS") };
        output.segment_prefix = prefix.into();
        let mut hook = gateway.hook_with(PROTOCOL, transcode, gateway.descriptors());
        assert!(hook.declined().contains("no bare name"));
    }
    gateway.metric("rendergate_declined_total{reason=\"names\"} 3");
    let status = gateway.json("/v1/status");
    let ended = status["ended"].as_array().unwrap();
    assert_eq!(ended.len(), 3, "{status}");
    for line in ended {
        assert_eq!(
            (line["how"].as_str(), line["item"].as_str()),
            (Some("declined"), Some("in put"))
        );
        assert!(line["why"].as_str().unwrap().contains("no bare name"), "{line}");
    }
}

#[test]
fn a_question_in_another_protocol_is_no_job() {
    let gateway = Gateway::ready("");
    let mut hook = Hook::connect(&gateway.socket());
    hook.channel.send(&HookToGateway::Driver { protocol: PROTOCOL + 1 }, &[]).unwrap();
    assert!(hook.declined().contains("protocol"));
    gateway.metric("rendergate_bad_connections_total{reason=\"protocol\"} 1");
    gateway.metric("rendergate_declined_total{reason=\"protocol\"} 0");
}

#[test]
fn streams_are_limited_and_a_place_comes_free() {
    let gateway = Gateway::ready("[streams]\nmax_streams = 1\n[worker]\nrefill_seconds = 0\n");
    let mut first = gateway.hook("");
    first.accepted();
    let mut second = gateway.hook("");
    second.steps_aside(19);
    let reason = second.declined();
    assert!(reason.contains("streams.max_streams is 1"), "{reason}");
    first.control(Control::Quit);
    assert_eq!(first.ended(), Ending::Quit);
    let mut third = gateway.hook("segments=1");
    third.accepted();
    assert_eq!(third.ended(), Ending::Complete);
    gateway.metric("rendergate_declined_total{reason=\"max_streams\"} 1");
}

#[test]
fn connections_are_limited() {
    let gateway = Gateway::ready("[session]\nmax_connections = 1\nfirst_message_seconds = 60\n");
    let idle = UnixStream::connect(gateway.socket()).unwrap();
    let mut second = Hook::connect(&gateway.socket());
    assert!(second.declined().contains("session.max_connections is 1"));
    drop(idle);
    until("a connection is free again", || {
        let mut hook = gateway.hook("fail");
        matches!(hook.next(), Some(session::GatewayToHook::Accepted { .. }))
    });
}

#[test]
fn a_job_waits_for_a_worker_and_can_be_quit_meanwhile() {
    let gateway = Gateway::start(&Setup {
        toml: "[streams]\naccept_seconds = 0.5\n[worker]\nready_seconds = 60\n",
        variables: &[("RENDERGATE_FAKE_START", "never-ready")],
    });
    let mut quits = gateway.hook("");
    quits.channel.send(&HookToGateway::Control(Control::Quit), &[]).unwrap();
    quits.accepted();
    assert_eq!(quits.ended(), Ending::Quit);
    let reason = gateway.hook("").declined();
    assert!(reason.contains("first worker is still warming up"), "{reason}");
    gateway.metric("rendergate_declined_total{reason=\"no_worker\"} 1");
    drop(gateway.hook(""));
    gateway.idle();
}

#[test]
fn a_warm_worker_that_dies_is_replaced() {
    let gateway = Gateway::ready("[worker]\nwarm = 1\n");
    let worker = common::children(gateway.pid())[0];
    kill(worker, Signal::KILL);
    until("it is reaped", || is_gone(worker));
    gateway.metric("rendergate_worker_restarts_total{reason=\"died_idle\"} 1");
    gateway.logged(&format!("the idle worker (pid {worker}) was ended by signal 9"));
    let mut hook = gateway.hook("segments=1");
    hook.accepted();
    assert_eq!(hook.ended(), Ending::Complete);
}

#[test]
fn without_a_worker_the_gateway_says_why() {
    let check = |toml: &str, variables: &[(&str, &str)], expect: &str, label: &str| {
        let gateway = Gateway::start(&Setup { toml, variables });
        until("two tries have failed", || {
            gateway.get("/metrics").lines().any(|line| {
                line.strip_prefix(&format!(
                    "rendergate_worker_restarts_total{{reason=\"{label}\"}} "
                ))
                .is_some_and(|count| count.parse::<u32>().unwrap() >= 2)
            })
        });
        let answer = gateway.get("/readyz");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains(expect), "{answer}");
        assert!(gateway.get("/healthz").starts_with("HTTP/1.1 200"));
        let reason = gateway.hook("").declined();
        assert!(reason.contains(expect), "{reason}");
        until("none is left", || common::children(gateway.pid()).len() <= 1);
    };
    let fake = |how| [("RENDERGATE_FAKE_START", how)];
    check("", &fake("die"), "exited with status 4", "died_at_start");
    check("", &fake("die"), "fake: no such library", "died_at_start");
    check("", &fake("protocol"), "speaks protocol 999", "protocol");
    check("", &fake("garbage"), "can't be understood", "protocol");
    check("[worker]\nready_seconds = 0.1\n", &fake("never-ready"), "was not ready", "not_ready");
    check(
        "",
        &[("RENDERGATE_WORKER", "/no/such/worker")],
        "can't run /no/such/worker",
        "died_at_start",
    );
}

#[test]
fn workers_start_on_demand_if_none_is_kept_warm() {
    let gateway = Gateway::ready("[worker]\nwarm = 0\n");
    assert!(common::children(gateway.pid()).is_empty());
    for _ in 0..3 {
        let mut hook = gateway.hook("segments=1");
        hook.accepted();
        assert_eq!(hook.ended(), Ending::Complete);
    }
    gateway.idle();
    assert!(common::children(gateway.pid()).is_empty());
}

#[test]
fn a_worker_is_prepared() {
    let gateway = Gateway::ready("[worker]\nwarm = 1\nrefill_seconds = 60\n");
    let worker = common::children(gateway.pid())[0];
    let read = |what: &str| fs::read(format!("/proc/{worker}/{what}")).unwrap();
    let environment = String::from_utf8(read("environ")).unwrap();
    let registry = format!("GST_REGISTRY={}", gateway.folder.path().display());
    assert!(environment.split('\0').any(|v| v.starts_with(&registry)), "{environment}");
    assert!(!environment.contains("CARGO_"), "{environment}");
    let link = |fd| fs::read_link(format!("/proc/{worker}/fd/{fd}")).unwrap();
    assert!(link(0).to_string_lossy().starts_with("socket:"));
    assert_eq!(link(1).to_string_lossy(), "/dev/null");
    // Nothing of the gateway's but that; what this test was started with may come through.
    let links = |pid: &str| -> BTreeSet<_> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect()
    };
    let ours = links("self");
    let passed: Vec<_> =
        links(&worker.to_string()).into_iter().filter(|l| !ours.contains(l)).collect();
    let expected = [link(0), link(1), link(2)];
    // The fourth is its own: the lease, of which the gateway has the other end.
    let others: Vec<_> = passed.iter().filter(|link| !expected.contains(link)).collect();
    let gateways = links(&gateway.pid().to_string());
    let is_lease =
        |link: &PathBuf| link.to_string_lossy().starts_with("pipe:") && gateways.contains(link);
    assert!(matches!(others[..], [only] if is_lease(only)), "{passed:?}");
    // Priority is the 19th field, the 17th behind the name in parentheses.
    let niceness = || {
        let stat = String::from_utf8(read("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse::<i32>().unwrap()
    };
    let warm = niceness();
    let mut hook = gateway.hook("");
    hook.segment(5);
    let own = rustix::process::getpriority_process(None).unwrap();
    assert_eq!(niceness(), own, "at work");
    assert!(warm == own || warm == (own + 10).min(19), "{warm} while warm");
}
