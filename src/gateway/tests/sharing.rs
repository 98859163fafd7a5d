//! Several viewers of one title: who has a worker, and what becomes of those who haven't.

mod common;

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};

use common::{Gateway, Hook, Setup, kill, until};
use ffmpeg_args::{Output, Transcode};
use rustix::process::Signal;
use session::{Control, Ending, GatewayToHook, HookToGateway, PROTOCOL};

fn sharing() -> Gateway {
    let gateway = Gateway::start(&Setup { toml: "", variables: &[("RENDERGATE_SHARE", "on")] });
    until("the gateway is ready", || gateway.get("/readyz").starts_with("HTTP/1.1 200"));
    gateway
}

/// The same title in a folder and under a name of one's own.
fn viewer(gateway: &Gateway, script: &str, name: &str) -> Hook {
    let (transcode, descriptors) = job(gateway, script, name);
    gateway.hook_with(PROTOCOL, transcode, descriptors)
}

fn job(gateway: &Gateway, script: &str, name: &str) -> (Transcode, Vec<OwnedFd>) {
    let mut transcode = gateway.transcode(script);
    rename(&mut transcode, gateway, name);
    let folder = gateway.folder.path().join(name);
    fs::create_dir_all(&folder).unwrap();
    let descriptors =
        vec![File::open(gateway.input()).unwrap().into(), File::open(folder).unwrap().into()];
    (transcode, descriptors)
}

/// One who goes on with the next gateway.
fn moving_viewer(gateway: &Gateway, name: &str) -> Hook {
    let (transcode, descriptors) = job(gateway, "every=30", name);
    let hook = Hook::connect(&gateway.socket());
    let transcode = Box::new(transcode);
    let job =
        HookToGateway::Job { protocol: PROTOCOL, transcode, reconnects: true, takeover: None };
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    hook.channel.send(&job, &descriptors).unwrap();
    hook
}

fn rename(transcode: &mut Transcode, gateway: &Gateway, name: &str) {
    if let Output::Hls(output) = &mut transcode.output {
        output.directory = gateway.folder.path().join(name);
        output.segment_prefix = name.into();
        output.playlist = format!("{name}.m3u8");
    }
}

fn segments(gateway: &Gateway, name: &str) -> Vec<(u64, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(gateway.folder.path().join(name))
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let number = file.strip_prefix(name)?.strip_suffix(".ts")?.parse().ok()?;
            Some((number, fs::read(path).unwrap()))
        })
        .collect();
    found.sort();
    found
}

fn runs(hook: &mut Hook) -> String {
    let is_running = |message: &GatewayToHook| matches!(message, GatewayToHook::Running { .. });
    match hook.hear("it runs", is_running) {
        GatewayToHook::Running { backend, .. } => backend,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_viewer_has_no_worker_and_every_segment() {
    let gateway = sharing();
    let script = "segments=30,every=40";
    let mut first = viewer(&gateway, script, "aaa");
    first.accepted();
    first.segment(9);
    // Who comes later gets what there is at once.
    let mut second = viewer(&gateway, script, "bbb");
    let stream = second.accepted();
    assert_eq!(runs(&mut second), "shared");
    second.segment(9);
    assert_eq!(gateway.worker_of(stream), None);
    assert_eq!(first.ended(), Ending::Complete);
    assert_eq!(second.ended(), Ending::Complete);
    gateway.idle();
    let [theirs, ours] = ["aaa", "bbb"].map(|name| segments(&gateway, name));
    assert_eq!(theirs.len(), 30);
    assert_eq!(theirs, ours);
    assert!(ours.iter().all(|(_, bytes)| !bytes.is_empty()));
    gateway.metric("rendergate_streams_ended_total{how=\"complete\"} 2");
}

/// Jellyfin can be told to delete what has been watched (contract 4, segment cleaner). Whoever comes later
/// may still be left to the real ffmpeg.
#[test]
fn who_comes_when_the_first_segment_is_deleted_is_promised_nothing() {
    let gateway = sharing();
    let mut first = viewer(&gateway, "every=40", "aaa");
    first.accepted();
    first.segment(8);
    fs::remove_file(gateway.folder.path().join("aaa/aaa5.ts")).unwrap();
    let mut second = viewer(&gateway, "every=40", "bbb");
    second.accepted();
    match second.next() {
        Some(GatewayToHook::Running { backend, .. }) => assert_eq!(backend, "fake"),
        other => panic!("{other:?}"),
    }
    second.segment(6);
    for mut viewer in [first, second] {
        viewer.control(Control::Quit);
        assert_eq!(viewer.ended(), Ending::Quit);
    }
}

#[test]
fn whoever_is_left_goes_on_with_a_worker_behind_the_last_segment() {
    for how in [Some(Control::Quit), None] {
        let gateway = sharing();
        let script = "segments=40,every=40";
        let mut first = viewer(&gateway, script, "aaa");
        first.accepted();
        first.segment(7);
        let mut second = viewer(&gateway, script, "bbb");
        let mut third = viewer(&gateway, script, "ccc");
        second.accepted();
        third.accepted();
        second.segment(9);
        third.segment(9);
        match how {
            Some(control) => first.control(control),
            None => drop(first),
        }
        // One of them produces for the other from now on.
        assert_eq!([second.ended(), third.ended()], [Ending::Complete, Ending::Complete]);
        gateway.idle();
        let [one, other] = ["bbb", "ccc"].map(|name| segments(&gateway, name));
        let numbers: Vec<u64> = one.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (5..45).collect::<Vec<u64>>());
        assert_eq!(one, other);
    }
}

#[test]
fn who_would_wait_for_a_paused_viewer_gets_a_worker() {
    let gateway = sharing();
    let script = "segments=30,every=40";
    let mut first = viewer(&gateway, script, "aaa");
    first.accepted();
    first.segment(6);
    first.control(Control::Pause);
    let mut second = viewer(&gateway, script, "bbb");
    second.accepted();
    assert_eq!(second.ended(), Ending::Complete);
    assert_eq!(segments(&gateway, "bbb").len(), 30);
}

#[test]
fn another_film_or_another_plan_is_another_stream() {
    let gateway = sharing();
    let mut first = viewer(&gateway, "every=40", "aaa");
    first.accepted();
    first.segment(6);
    let mut other = viewer(&gateway, "every=41", "bbb");
    let stream = other.accepted();
    assert_ne!(runs(&mut other), "shared");
    assert!(gateway.worker_of(stream).is_some());
    // Written to since.
    fs::write(gateway.input(), "another film").unwrap();
    let mut again = viewer(&gateway, "every=40", "ccc");
    again.accepted();
    assert_ne!(runs(&mut again), "shared");
}

#[test]
fn what_another_viewer_had_made_is_not_what_a_worker_makes() {
    let gateway = sharing();
    let script = "cpu=300,every=5,segments=200";
    let mut first = viewer(&gateway, script, "aaa");
    first.accepted();
    let mut second = viewer(&gateway, script, "bbb");
    second.accepted();
    second.segment(105);
    drop(first);
    assert_eq!(second.ended(), Ending::Complete);
    gateway.idle();
    gateway.has_learnt(0.1);
}

#[test]
fn who_waits_for_the_first_segment_of_a_paused_viewer_gets_a_worker() {
    let gateway = sharing();
    let script = "every=600000";
    let mut first = viewer(&gateway, script, "aaa");
    first.accepted();
    assert_eq!(runs(&mut first), "fake");
    first.control(Control::Pause);
    let mut second = viewer(&gateway, script, "bbb");
    let stream = second.accepted();
    assert_eq!(runs(&mut second), "fake");
    assert!(gateway.worker_of(stream).is_some());
}

#[test]
fn a_late_viewer_is_heard_between_two_segments() {
    let gateway = sharing();
    let script = "every=0,segments=600";
    let mut first = viewer(&gateway, &format!("{script},linger"), "aaa");
    first.accepted();
    first.segment(500);
    let mut second = viewer(&gateway, &format!("{script},linger"), "bbb");
    second.control(Control::Quit);
    assert_eq!(second.ended(), Ending::Quit);
    let copied = segments(&gateway, "bbb").len();
    assert!(copied < 100, "{copied} segments were copied for somebody who has gone");
}

#[test]
fn whoever_follows_a_stream_that_fails_is_told_of_his_own_end_once() {
    let gateway = sharing();
    let script = "every=200,exit=2,later=0,device";
    let mut first = viewer(&gateway, script, "aaa");
    first.accepted();
    first.segment(5);
    let mut second = viewer(&gateway, script, "bbb");
    second.accepted();
    second.segment(6);
    for hook in [&mut first, &mut second] {
        assert_eq!(hook.failed().0, session::Fault::Device);
        assert_eq!(hook.next(), None);
    }
    gateway.idle();
    gateway.metric("rendergate_streams_ended_total{how=\"failed_device\"} 2");
    assert_eq!(gateway.json("/v1/status")["ended"].as_array().unwrap().len(), 2);
}

#[test]
fn a_paused_viewer_stays_paused_whoever_is_followed() {
    let gateway = sharing();
    let script = "every=15";
    let mut first = viewer(&gateway, script, "aaa");
    first.accepted();
    first.segment(6);
    let mut others = ["bbb", "ccc"].map(|name| viewer(&gateway, script, name));
    let ids = others.each_mut().map(|hook| hook.accepted().to_string());
    others.iter_mut().for_each(|hook| hook.segment(6));
    others.iter().for_each(|hook| hook.control(Control::Pause));
    let lines = || ids.each_ref().map(|id| line(&gateway, id));
    until("they are paused", || lines().iter().all(|line| line["state"] == "paused"));
    drop(first);
    // One of them has a worker, and the other follows that one.
    until("the other is followed", || {
        let lines = lines();
        let description = |at: usize| lines[at]["description"].as_str().unwrap_or_default();
        (0..2).any(|at| description(1 - at) == format!("the segments of {}", ids[at]))
    });
    assert!(lines().iter().all(|line| line["state"] == "paused"), "{:?}", lines());
    others.iter().for_each(|hook| hook.control(Control::Resume));
    others.iter_mut().for_each(|hook| hook.segment(60));
}

fn line(gateway: &Gateway, id: &str) -> serde_json::Value {
    let streams = gateway.json("/v1/streams");
    let mut lines = streams.as_array().unwrap().iter();
    lines.find(|line| line["id"] == id).cloned().unwrap_or_default()
}

#[test]
fn who_quits_as_he_takes_over_is_told_so_once() {
    for _ in 0..5 {
        let gateway = sharing();
        let script = "every=20";
        let mut first = viewer(&gateway, script, "aaa");
        first.accepted();
        first.segment(6);
        let mut second = viewer(&gateway, script, "bbb");
        second.accepted();
        second.segment(6);
        drop(first);
        second.control(Control::Quit);
        assert_eq!(second.ended(), Ending::Quit);
        assert_eq!(second.next(), None);
        gateway.idle();
        gateway.metric("rendergate_streams_ended_total{how=\"quit\"} 1");
        assert!(segments(&gateway, "bbb").iter().all(|(_, bytes)| !bytes.is_empty()));
    }
}

#[test]
fn a_late_viewer_is_told_of_what_he_has() {
    let gateway = sharing();
    let script = "every=2,segments=400";
    let mut first = viewer(&gateway, script, "aaa");
    first.accepted();
    first.segment(200);
    let mut second = viewer(&gateway, script, "bbb");
    second.accepted();
    let (mut complete, mut position) = (0, 0);
    let ending = loop {
        match second.next().unwrap() {
            GatewayToHook::SegmentComplete { .. } => complete += 1,
            GatewayToHook::Progress(progress) => {
                assert!(progress.position_us >= position, "{progress:?} after {position}");
                position = progress.position_us;
                assert!(position <= complete * 3_000_000, "{progress:?} of {complete} segments");
            }
            GatewayToHook::Ended(ending) => break ending,
            _ => {}
        }
    };
    assert_eq!((ending, complete, position), (Ending::Complete, 400, 1_200_000_000));
}

/// Who produces and who follows are let go together, each with all that the next gateway needs.
#[test]
fn viewers_of_one_title_outlive_their_gateway() {
    let mut gateway = sharing();
    let mut first = moving_viewer(&gateway, "one");
    first.segment(6);
    let mut second = moving_viewer(&gateway, "two");
    assert_eq!(runs(&mut second), "shared");
    second.segment(6);
    kill(gateway.pid(), Signal::TERM);
    for (hook, name, copies) in [(&mut first, "one", false), (&mut second, "two", true)] {
        let mut last = 6;
        loop {
            match hook.next().expect("a last message") {
                GatewayToHook::SegmentComplete { number, complete } => {
                    assert!(complete.state.is_some());
                    last = number;
                }
                GatewayToHook::LetGo => break,
                GatewayToHook::Ended(ending) => panic!("{name}: {ending:?}"),
                _ => {}
            }
        }
        let (writer, lease) = hook.writers.last().expect("somebody has written");
        assert_eq!((writer.pid == 0, lease.is_none()), (copies, copies), "{name}");
        let whole: Vec<u64> = segments(&gateway, name)
            .into_iter()
            .filter_map(|(number, bytes)| (!bytes.is_empty()).then_some(number))
            .collect();
        assert_eq!(whole, (5..=last).collect::<Vec<_>>(), "{name}");
    }
    assert!(gateway.exited().success());
}
