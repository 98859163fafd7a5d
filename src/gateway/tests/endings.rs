//! Every way in which a stream can end, and what it leaves behind.

mod common;

use std::time::Duration;

use common::{Gateway, eventually, is_gone, kill, pause, until};
use rustix::process::Signal;
use session::{Control, Ending, Fault, GatewayToHook};

#[test]
fn complete_stream_is_told_whole_and_in_order() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("segments=3,every=1");
    let stream = hook.accepted();
    assert!(
        matches!(hook.next(), Some(GatewayToHook::Running { backend, .. }) if backend == "fake")
    );
    assert_eq!(hook.next(), Some(GatewayToHook::Committed));
    for number in 5..8 {
        hook.segment(number);
    }
    assert_eq!(hook.ended(), Ending::Complete);
    // The empty segment is gone before the hook is told, since its exit makes Jellyfin serve it.
    gateway.out_is_clean();
    assert!(!gateway.out().join("abc8.ts").exists());
    hook.dropped();
    gateway.idle();
    gateway.metric("rendergate_streams_ended_total{how=\"complete\"} 1");
    let line = gateway.logged("\"first segment\"");
    assert!(line.contains("\"ms\":") && line.contains(&format!("\"id\":\"{stream}\"")), "{line}");
    assert!(line.contains("in put"), "{line}");
    let line = gateway.logged("\"message\":\"ended\"");
    assert!(line.contains("\"frames\":216") && line.contains("\"how\":\"complete\""), "{line}");
    // Its own log lines belong to the stream too.
    assert!(gateway.logged("fake: runs").contains(&format!("\"id\":\"{stream}\"")));
}

#[test]
fn quit_pause_and_resume_reach_the_worker() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("");
    let stream = hook.accepted();
    hook.segment(6);
    hook.control(Control::Pause);
    until("it is paused", || gateway.json("/v1/streams")[0]["state"] == "paused");
    hook.control(Control::Resume);
    until("it runs", || gateway.json("/v1/streams")[0]["state"] == "running");
    hook.segment(8);
    let worker = gateway.worker_of(stream).unwrap();
    hook.control(Control::Quit);
    assert_eq!(hook.ended(), Ending::Quit);
    gateway.out_is_clean();
    until("the worker is gone", || is_gone(worker));
    gateway.metric("rendergate_streams_ended_total{how=\"quit\"} 1");
}

#[test]
fn failure_of_the_worker_is_passed_on() {
    let gateway = Gateway::ready("");
    let (fault, reason) = gateway.hook("fail").failed();
    assert_eq!((fault, reason.as_str()), (Fault::Input, "the file is damaged"));
    gateway.metric("rendergate_streams_ended_total{how=\"failed_input\"} 1");
    // Another worker would read the same file.
    gateway.logged("fake: runs");
    let log = gateway.log.lock().unwrap().clone();
    assert_eq!(log.iter().filter(|line| line.contains("fake: runs")).count(), 1);
}

#[test]
fn hook_dies() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("every=30");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    hook.segment(6);
    drop(hook);
    gateway.idle();
    assert!(is_gone(worker));
    gateway.out_is_clean();
    assert!(gateway.out().join("abc5.ts").exists(), "whole segments stay");
    gateway.metric("rendergate_streams_ended_total{how=\"hook_gone\"} 1");
}

#[test]
fn hook_dies_and_the_worker_does_not_listen() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("every=300,ignore-eof");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    hook.segment(5);
    until("the empty segment is there", || gateway.files().contains("abc6.ts"));
    drop(hook);
    // Its empty segment is not left for as long as the worker is waited for.
    until("the empty segment is gone", || !gateway.files().contains("abc6.ts"));
    gateway.idle();
    assert!(is_gone(worker));
    gateway.out_is_clean();
    gateway.metric("rendergate_worker_restarts_total{reason=\"didnt_exit\"} 1");
}

/// Every segment is told once, in order, and nothing else is told twice.
fn told_once(hook: &mut common::Hook, segments: std::ops::Range<u64>) -> Ending {
    let (mut next, mut committed, mut running, mut progress) = (segments.start, 0, 0, 0);
    loop {
        match hook.next() {
            Some(GatewayToHook::SegmentComplete { number, .. }) => {
                assert_eq!(number, next);
                next += 1;
            }
            Some(GatewayToHook::Committed) => committed += 1,
            Some(GatewayToHook::Running { .. }) => running += 1,
            Some(GatewayToHook::Progress(report)) => {
                assert!(report.frames >= progress, "{} after {progress}", report.frames);
                progress = report.frames;
            }
            Some(GatewayToHook::Ended(ending)) => {
                assert_eq!((next, committed, running), (segments.end, 1, 1));
                return ending;
            }
            Some(GatewayToHook::Log { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn another_worker_goes_on_when_one_exits() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("every=5,exit=2,until=3,segments=9");
    hook.accepted();
    assert_eq!(told_once(&mut hook, 5..14), Ending::Complete);
    gateway.out_is_clean();
    assert_eq!(gateway.files().len(), 9);
    gateway.metric("rendergate_worker_restarts_total{reason=\"died\"} 3");
    gateway.metric("rendergate_streams_ended_total{how=\"complete\"} 1");
    let line = gateway.logged("another worker goes on");
    assert!(line.contains("\"next\":7") && line.contains("\"on\":\"software\""), "{line}");
    assert!(line.contains("exited with status 3") && line.contains("fake: as told"), "{line}");
}

#[test]
fn another_worker_goes_on_when_one_is_killed() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("");
    let stream = hook.accepted();
    let worker = gateway.worker_of(stream).unwrap();
    hook.segment(5);
    kill(worker, Signal::KILL);
    let other =
        eventually("another worker", || gateway.worker_of(stream).filter(|other| *other != worker));
    // It was reaped, and what it was about is gone, before the other began.
    assert!(is_gone(worker));
    let half = format!("w{worker}.tmp");
    assert!(gateway.files().iter().all(|name| !name.ends_with(&half)));
    hook.control(Control::Quit);
    assert_eq!(hook.ended(), Ending::Quit);
    until("the other is gone", || is_gone(other));
    gateway.out_is_clean();
    gateway.metric("rendergate_streams_ended_total{how=\"quit\"} 1");
}

/// It has written everything, and isn't followed by another that writes it again.
#[test]
fn a_worker_that_is_lost_behind_the_last_segment_has_completed_the_stream() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("every=5,segments=4,mute-end");
    hook.accepted();
    assert_eq!(told_once(&mut hook, 5..9), Ending::Complete);
    let mut hook = gateway.hook("mute-end");
    hook.accepted();
    hook.segment(6);
    hook.control(Control::Quit);
    assert_eq!(hook.ended(), Ending::Quit);
    gateway.metric("rendergate_streams_ended_total{how=\"complete\"} 1");
    gateway.metric("rendergate_streams_ended_total{how=\"quit\"} 1");
    gateway.metric("rendergate_worker_restarts_total{reason=\"died\"} 0");
    gateway.out_is_clean();
}

#[test]
fn another_worker_is_told_of_a_pause() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("every=5");
    let stream = hook.accepted();
    let worker = gateway.worker_of(stream).unwrap();
    hook.segment(6);
    hook.control(Control::Pause);
    until("it is paused", || gateway.json("/v1/streams")[0]["state"] == "paused");
    kill(worker, Signal::KILL);
    until("another worker", || gateway.worker_of(stream).is_some_and(|other| other != worker));
    pause(Duration::from_millis(200));
    let segments = gateway.json("/v1/streams")[0]["segments"].clone();
    pause(Duration::from_millis(200));
    assert_eq!(gateway.json("/v1/streams")[0]["segments"], segments);
    hook.control(Control::Resume);
    until("it goes on", || gateway.json("/v1/streams")[0]["segments"] != segments);
    hook.control(Control::Quit);
    assert_eq!(hook.ended(), Ending::Quit);
}

/// At the start, and in the middle.
#[test]
fn a_stream_that_gets_no_further_ends_with_its_third_worker() {
    for (script, files) in
        [("exit=0", vec![]), ("exit=2,later=0,every=5", vec!["abc5.ts", "abc6.ts"])]
    {
        let gateway = Gateway::ready("");
        let mut hook = gateway.hook(script);
        hook.accepted();
        let (fault, reason) = hook.failed();
        assert_eq!(fault, Fault::Worker);
        assert!(reason.contains("exited with status 3"), "{reason}");
        assert!(reason.contains("fake: as told"), "{reason}");
        gateway.out_is_clean();
        assert_eq!(gateway.files().into_iter().collect::<Vec<_>>(), files);
        gateway.metric("rendergate_worker_restarts_total{reason=\"died\"} 3");
        gateway.metric("rendergate_streams_ended_total{how=\"worker_died\"} 1");
    }
}

#[test]
fn a_failed_gpu_is_no_end() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("every=5,exit=1,until=1,device,segments=3");
    hook.accepted();
    assert_eq!(told_once(&mut hook, 5..8), Ending::Complete);
    gateway.metric("rendergate_worker_restarts_total{reason=\"device\"} 1");
    gateway.logged("the GPU is lost");
}

#[test]
fn hook_dies_between_two_workers() {
    // No worker is warm for the second try.
    let gateway = Gateway::ready("[worker]\nwarm = 1\nrefill_seconds = 3\n");
    let mut hook = gateway.hook("every=5,ignore-eof");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    hook.segment(5);
    kill(worker, Signal::KILL);
    drop(hook);
    gateway.idle();
    gateway.out_is_clean();
    assert!(is_gone(worker));
}

#[test]
fn quit_between_two_workers() {
    let gateway = Gateway::ready("[worker]\nwarm = 1\nrefill_seconds = 3\n");
    let mut hook = gateway.hook("every=5");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    hook.segment(5);
    kill(worker, Signal::KILL);
    until("it is reaped", || is_gone(worker));
    hook.control(Control::Quit);
    assert_eq!(hook.ended(), Ending::Quit);
    gateway.idle();
    gateway.out_is_clean();
}

#[test]
fn worker_says_what_is_no_message() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("garbage");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    let (fault, reason) = hook.failed();
    assert_eq!(fault, Fault::Worker);
    assert!(reason.contains("protocol"), "{reason}");
    until("the worker is gone", || is_gone(worker));
}

/// Neither before it runs nor later: a network may be silent for as long as it likes.
#[test]
fn waiting_for_the_input_is_no_hang() {
    let gateway = Gateway::ready("[streams]\nstall_seconds = 0.4\nrunning_seconds = 0.4\n");
    let mut hook = gateway.hook("waits=1500,segments=2,every=1");
    hook.accepted();
    hook.segment(6);
    assert_eq!(hook.ended(), Ending::Complete);
    gateway.metric("rendergate_streams_ended_total{how=\"complete\"} 1");
}

#[test]
fn worker_hangs_at_the_start() {
    let gateway = Gateway::ready("[streams]\nrunning_seconds = 0.3\n");
    let mut hook = gateway.hook("hang");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    let (fault, reason) = hook.failed();
    assert_eq!(fault, Fault::Worker);
    assert!(reason.contains("didn't run its graph in time"), "{reason}");
    until("the worker is gone", || is_gone(worker));
    gateway.metric("rendergate_worker_restarts_total{reason=\"hung\"} 3");
}

#[test]
fn worker_stands_still() {
    let gateway = Gateway::ready("[streams]\nstall_seconds = 0.4\n");
    let mut hook = gateway.hook("every=5,stall=3,until=1,segments=6");
    let worker = gateway.worker_of(hook.accepted());
    assert_eq!(told_once(&mut hook, 5..11), Ending::Complete);
    until("the worker is gone", || worker.is_none_or(is_gone));
    gateway.out_is_clean();
    gateway.logged("stood still for too long");
    gateway.metric("rendergate_worker_restarts_total{reason=\"hung\"} 1");
}

#[test]
fn a_paused_stream_may_take_its_time() {
    let gateway = Gateway::ready("[streams]\nstall_seconds = 0.4\n");
    let mut hook = gateway.hook("every=20");
    hook.accepted();
    hook.segment(5);
    hook.control(Control::Pause);
    pause(Duration::from_millis(900));
    hook.control(Control::Resume);
    hook.segment(9);
    hook.control(Control::Quit);
    assert_eq!(hook.ended(), Ending::Quit);
}

#[test]
fn worker_ignores_quit() {
    let gateway = Gateway::ready("[streams]\nquit_seconds = 0.3\n");
    let mut hook = gateway.hook("mute-quit");
    hook.segment(5);
    hook.control(Control::Quit);
    let (fault, reason) = hook.failed();
    assert_eq!(fault, Fault::Worker);
    assert!(reason.contains("after quit"), "{reason}");
    gateway.out_is_clean();
}

#[test]
fn worker_lingers_after_the_end() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("segments=1,every=1,linger");
    let stream = hook.accepted();
    let worker = eventually("the worker", || gateway.worker_of(stream));
    // The hook isn't kept waiting for it.
    assert_eq!(hook.ended(), Ending::Complete);
    gateway.idle();
    assert!(is_gone(worker));
    gateway.metric("rendergate_worker_restarts_total{reason=\"didnt_exit\"} 1");
}

#[test]
fn a_hook_that_says_something_else_ends_its_stream() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("");
    hook.accepted();
    let second = session::HookToGateway::Job {
        protocol: session::PROTOCOL,
        transcode: Box::new(gateway.transcode("")),
        reconnects: false,
        takeover: None,
    };
    hook.channel.send(&second, &[]).unwrap();
    gateway.idle();
    gateway.metric("rendergate_bad_connections_total{reason=\"second_job\"} 1");
}

#[test]
fn the_next_stream_of_a_directory_waits_for_the_last_to_be_cleared_away() {
    let gateway = Gateway::ready("[worker]\nrefill_seconds = 0.0\n");
    let mut hook = gateway.hook("ignore-eof");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    hook.segment(5);
    drop(hook);
    let mut next = gateway.hook("segments=1,every=1");
    next.accepted();
    assert!(is_gone(worker));
    assert_eq!(next.ended(), Ending::Complete);
}

/// One file: complete, quit, its writer killed, its hook gone. It is left as it is each time.
#[test]
fn a_growing_file_under_every_ending() {
    let gateway = Gateway::ready("");
    let file = || std::fs::read_to_string(gateway.out().join("id.mp4")).unwrap_or_default();
    let only = || assert_eq!(gateway.files().into_iter().collect::<Vec<_>>(), ["id.mp4"]);

    let mut hook = gateway.hook_of_a_file("segments=3,every=1");
    assert_eq!(hook.ended(), Ending::Complete);
    assert_eq!(file(), "a part".repeat(3));
    only();
    std::fs::remove_file(gateway.out().join("id.mp4")).unwrap();

    let mut hook = gateway.hook_of_a_file("every=5");
    hook.accepted();
    until("it grows", || !file().is_empty());
    hook.control(Control::Quit);
    assert_eq!(hook.ended(), Ending::Quit);
    assert!(file().ends_with("a partthe end"), "{}", file());
    only();
    std::fs::remove_file(gateway.out().join("id.mp4")).unwrap();

    let mut hook = gateway.hook_of_a_file("every=5");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    until("it grows", || file().len() > 6);
    kill(worker, Signal::KILL);
    assert_eq!(hook.failed().0, Fault::Worker);
    assert!(file().starts_with("a parta part"), "{}", file());
    only();
    std::fs::remove_file(gateway.out().join("id.mp4")).unwrap();

    let mut hook = gateway.hook_of_a_file("every=5");
    hook.accepted();
    until("it grows", || file().len() > 6);
    drop(hook);
    gateway.idle();
    assert!(file().starts_with("a parta part"), "{}", file());
    only();
}
