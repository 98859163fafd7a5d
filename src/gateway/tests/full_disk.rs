//! The disk of an output is full: who hears of it, and that nobody takes it for a worker that hangs.

mod common;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use common::{Gateway, Hook, Setup, kill, pause, until};
use ffmpeg_args::Output;
use rustix::process::Signal;
use session::{Control, Ending, GatewayToHook};
use stand::disk::{SmallDisk, apart};

fn no_room(gateway: &Gateway, stream: usize) -> bool {
    gateway.json("/v1/streams")[stream]["no_room"].as_bool().unwrap_or(false)
}

fn says(hook: &mut Hook, words: &str) {
    hook.hear(
        words,
        |message| matches!(message, GatewayToHook::Log { line } if line.contains(words)),
    );
}

#[test]
fn a_stream_that_waits_for_room_is_seen_and_not_taken_for_hung() {
    let gateway = Gateway::ready("[streams]\nstall_seconds = 1.5\n");
    let mut hook = gateway.hook("every=5,full=4000,segments=6");
    hook.accepted();
    hook.segment(5);
    says(&mut hook, "no space left in");
    gateway.metric("rendergate_stream_no_room{stream=\"s1\"} 1");
    assert!(no_room(&gateway, 0));
    assert!(gateway.logged("no space left").contains("WARN"));
    says(&mut hook, "there is room again in");
    assert_eq!(hook.ended(), Ending::Complete);
    gateway.logged("there is room again");
    gateway.idle();
    assert!(!gateway.get("/metrics").contains("rendergate_stream_no_room{"));
    gateway.metric("rendergate_worker_restarts_total{reason=\"hung\"} 0");
}

/// A worker that is lost takes along what it waited for.
#[test]
fn another_worker_finds_out_for_itself() {
    let gateway = Gateway::ready("");
    // Each says so behind the first segment of its own.
    let mut hook = gateway.hook("every=100,full=600,segments=9");
    hook.accepted();
    says(&mut hook, "no space left in");
    let worker = gateway.json("/v1/streams")[0]["worker_pid"].as_u64().unwrap();
    kill(u32::try_from(worker).unwrap(), Signal::KILL);
    says(&mut hook, "another worker goes on");
    assert!(!no_room(&gateway, 0));
    says(&mut hook, "no space left in");
    says(&mut hook, "there is room again in");
    assert_eq!(hook.ended(), Ending::Complete);
}

/// A viewer who goes on with the next gateway, with a folder of his own for segments that he shares.
fn viewer(gateway: &Gateway, script: &str, folder: &str) -> Hook {
    let mut transcode = gateway.transcode(script);
    let path = gateway.folder.path().join(folder);
    if let Output::Hls(output) = &mut transcode.output {
        output.directory.clone_from(&path);
        let name = folder.replace('/', "-");
        output.playlist = format!("{name}.m3u8");
        output.segment_prefix = name;
    }
    let open = |path: PathBuf| File::open(path).unwrap().into();
    gateway.moving_hook_with(transcode, vec![open(gateway.input()), open(path)], None)
}

fn sharing() -> Gateway {
    let setup = Setup { toml: "", variables: &[("RENDERGATE_SHARE", "on")] };
    let gateway = Gateway::start(&setup);
    until("the gateway is ready", || gateway.get("/readyz").starts_with("HTTP/1.1 200"));
    gateway
}

/// A gateway whose first viewer produces, and a second whose folder is a disk of its own.
struct Shared {
    gateway: Gateway,
    first: Hook,
    second: Hook,
    disk: SmallDisk,
}

fn shared(script: &str) -> Shared {
    let gateway = sharing();
    let folder = |name: &str| gateway.folder.path().join(name);
    ["aaa", "bbb"].iter().for_each(|name| fs::create_dir(folder(name)).unwrap());
    let disk = SmallDisk::over(&folder("bbb"), 1 << 20, 100);
    disk.fill();
    disk.give_back(3 * 4096);
    let mut first = viewer(&gateway, script, "aaa");
    first.accepted();
    first.segment(6);
    let second = viewer(&gateway, script, "bbb");
    Shared { gateway, first, second, disk }
}

fn names(gateway: &Gateway) -> Vec<String> {
    let entries = fs::read_dir(gateway.folder.path().join("bbb")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

#[test]
fn copies_of_another_viewers_segments_wait_for_room() {
    if !apart("copies_of_another_viewers_segments_wait_for_room") {
        return;
    }
    let Shared { gateway, mut first, mut second, disk } = shared("segments=20,every=40");
    second.accepted();
    says(&mut second, "no space left in");
    until("it is seen", || no_room(&gateway, 1));
    assert!(!no_room(&gateway, 0));
    assert_eq!(first.ended(), Ending::Complete);
    // A key is heard, and nothing comes of it.
    second.control(Control::Pause);
    pause(Duration::from_millis(600));
    second.control(Control::Resume);
    disk.free();
    says(&mut second, "there is room again in");
    assert_eq!(second.ended(), Ending::Complete);
    let expected: Vec<String> = (5..25).map(|number| format!("bbb{number}.ts")).collect();
    let found = names(&gateway);
    assert_eq!(
        found.iter().filter(|name| name.ends_with(".ts")).cloned().collect::<Vec<_>>(),
        expected
    );
    for name in expected {
        let size = fs::metadata(gateway.folder.path().join("bbb").join(&name)).unwrap().len();
        assert_eq!(size, 4, "{name}");
    }
}

#[test]
fn whoever_quits_while_a_copy_waits_is_heard() {
    if !apart("whoever_quits_while_a_copy_waits_is_heard") {
        return;
    }
    let Shared { gateway, mut first, mut second, disk } = shared("segments=20,every=40");
    second.accepted();
    says(&mut second, "no space left in");
    pause(Duration::from_millis(300));
    second.control(Control::Quit);
    assert_eq!(second.ended(), Ending::Quit);
    // Three pages were left; half a copy is gone by the time that the end is heard of.
    assert_eq!(names(&gateway), ["ballast", "bbb5.ts", "bbb6.ts", "bbb7.ts"]);
    disk.free();
    assert_eq!(first.ended(), Ending::Complete);
    gateway.idle();
}

#[test]
fn a_copy_that_waits_does_not_keep_the_stream_from_the_next_gateway() {
    if !apart("a_copy_that_waits_does_not_keep_the_stream_from_the_next_gateway") {
        return;
    }
    let Shared { mut gateway, mut first, mut second, disk } = shared("every=40");
    second.accepted();
    says(&mut second, "no space left in");
    kill(gateway.pid(), Signal::TERM);
    first.hear("let go", |message| *message == GatewayToHook::LetGo);
    second.hear("let go", |message| *message == GatewayToHook::LetGo);
    // The empty segment would be the hook's.
    assert_eq!(names(&gateway), ["ballast", "bbb5.ts", "bbb6.ts", "bbb7.ts"]);
    assert!(gateway.exited().success());
    disk.free();
}

/// They wait on threads of which there must be some for everybody else.
#[test]
fn many_copies_that_wait_keep_nobody_waiting() {
    if !apart("many_copies_that_wait_keep_nobody_waiting") {
        return;
    }
    let gateway = sharing();
    let folder = |name: &str| gateway.folder.path().join(name);
    ["aaa", "bbb"].iter().for_each(|name| fs::create_dir(folder(name)).unwrap());
    let disk = SmallDisk::over(&folder("bbb"), 1 << 20, 100);
    let names: Vec<_> = (0..20).map(|number| format!("bbb/{number}")).collect();
    names.iter().for_each(|name| fs::create_dir(folder(name)).unwrap());
    disk.fill();
    let script = "every=40";
    let mut first = viewer(&gateway, script, "aaa");
    first.accepted();
    first.segment(6);
    let mut others: Vec<_> = names.iter().map(|name| viewer(&gateway, script, name)).collect();
    for other in &mut others {
        other.accepted();
        says(other, "no space left in");
    }
    let mut new = gateway.hook("segments=2,every=20");
    assert_eq!(new.ended(), Ending::Complete);
    first.control(Control::Quit);
    assert_eq!(first.ended(), Ending::Quit);
    disk.free();
}
