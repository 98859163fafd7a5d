//! Viewers on the software GPU whose transcode folder is full, through hook, gateway and worker.
//!
//! On a small file system that is really full, in a mount namespace of the test's own, which takes root.
//! Containers and growing files are the worker's own tests' (`full_disk`), which run on this GPU as well.

mod gateway;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateway::{Node, SEGMENTS, film, machine};
use hwtest_suite::VirtualMachine;
use stand::disk::{SmallDisk, apart};
use stand::output::capture;
use stand::pause;

const DISK: usize = 32 << 20;
const FILES: usize = 1000;
/// Jellyfin kills after five seconds.
const SOON: Duration = Duration::from_secs(3);

/// One at a time, in a namespace of its own: streams of four tests at once would take a busy machine's
/// workers so long that they are taken for hung.
fn alone(test: &str) -> bool {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    apart(test)
}

/// Puts a viewer's folder on a disk of its own. What the hook says isn't to wait for room.
fn on_a_small_disk(node: &Node, viewers: &[usize]) -> SmallDisk {
    let shared = node.folder.path().join("transcodes");
    fs::create_dir(&shared).unwrap();
    let disk = SmallDisk::over(&shared, DISK, FILES);
    for viewer in viewers {
        let output = shared.join(viewer.to_string());
        fs::create_dir(&output).unwrap();
        symlink(&output, node.output(*viewer)).unwrap();
        symlink(node.folder.path().join(format!("hook-{viewer}.log")), output.join("hook.log"))
            .unwrap();
    }
    disk
}

/// Names of segments, with sizes, in order.
fn segments(folder: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let size = |entry: &fs::DirEntry| entry.metadata().map_or(0, |metadata| metadata.len());
    let mut found: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), size(&entry)))
        .filter(|(name, _)| name.ends_with(".ts"))
        .collect();
    found.sort_by_key(|(name, _)| (name.len(), name.clone()));
    found
}

/// Times of all packets and which are keyframes, segment by segment.
fn packets(folder: &Path) -> Vec<(String, String)> {
    let entries = "packet=stream_index,pts,dts,flags";
    let read = |name: &str| {
        let path = folder.join(name);
        let path = path.to_str().unwrap();
        capture("ffprobe", &["-v", "error", "-show_entries", entries, "-of", "csv", path])
    };
    let text = |name: String| (name.clone(), String::from_utf8(read(&name)).unwrap());
    segments(folder).into_iter().map(|(name, _)| text(name)).collect()
}

fn half_written(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().ends_with(".tmp")).count()
}

fn waiting(node: &Node) -> usize {
    node.streams().iter().filter(|stream| stream["no_room"] == true).count()
}

/// A gateway with a viewer who has played all of it, number 0; what that takes.
fn node_and_bytes(machine: &VirtualMachine, streams: &str) -> (Node, u64) {
    let node = Node::start(machine, "vaapi", streams);
    node.plays(&film(), 0);
    let bytes = segments(&node.output(0)).iter().map(|(_, size)| size).sum();
    (node, bytes)
}

/// Viewers in a folder with room for a part of it, all of whom wait.
fn begun(node: &Node, disk: &SmallDisk, bytes: u64, viewers: &[usize]) -> Vec<Child> {
    disk.fill();
    disk.give_back(bytes / 2);
    let hooks = viewers.iter().map(|viewer| node.play(&film(), *viewer)).collect();
    node.until("they wait for room", || waiting(node) == viewers.len());
    hooks
}

/// Nobody complains, and all of it is there, in the same packets.
fn came_out_whole(node: &Node, viewer: usize) {
    let said = node.said(viewer);
    assert!(said.contains("vah264dec") && said.contains("vah264enc"), "not on the GPU: {said}");
    assert!(said.contains("no space left in") && said.contains("there is room again in"), "{said}");
    assert!(!said.contains("another worker"), "{said}\n{}", node.log());
    assert_eq!(node.whole_segments(viewer), SEGMENTS, "{said}");
    assert_eq!(packets(&node.output(0)), packets(&node.output(viewer)));
    assert_eq!(half_written(&node.output(viewer)), 0);
}

#[test]
fn a_stream_waits_for_room_and_goes_on() {
    if !alone("a_stream_waits_for_room_and_goes_on") {
        return;
    }
    let machine = machine();
    let (node, bytes) = node_and_bytes(&machine, "stall_seconds = 3\n");
    let disk = on_a_small_disk(&node, &[1]);
    let mut hooks = begun(&node, &disk, bytes, &[1]);
    node.metric("rendergate_stream_no_room{stream=\"s2\"} 1");
    // Far longer than a worker may stand still, and nothing works meanwhile.
    pause(1000);
    let before = (node.codec_seconds(), segments(&node.output(1)));
    pause(4000);
    assert_eq!(before, (node.codec_seconds(), segments(&node.output(1))));
    disk.free();
    assert!(node.ended(&mut hooks[0]).success(), "{}", node.said(1));
    came_out_whole(&node, 1);
    assert_eq!(node.log().matches("no space left: the stream waits").count(), 1, "{}", node.log());
    assert_eq!(node.log().matches("there is room again").count(), 1, "{}", node.log());
}

#[test]
fn all_streams_on_the_disk_wait_and_go_on() {
    if !alone("all_streams_on_the_disk_wait_and_go_on") {
        return;
    }
    let machine = machine();
    let (node, bytes) = node_and_bytes(&machine, "");
    let disk = on_a_small_disk(&node, &[1, 2, 3]);
    let mut hooks = begun(&node, &disk, bytes, &[1, 2, 3]);
    // Somebody deletes a little at a time.
    for _ in 0..5 {
        disk.give_back(64 << 10);
        pause(300);
    }
    disk.free();
    for (viewer, hook) in (1..).zip(&mut hooks) {
        assert!(node.ended(hook).success(), "{}", node.said(viewer));
        came_out_whole(&node, viewer);
    }
    assert_eq!(waiting(&node), 0);
}

#[test]
fn a_viewer_who_leaves_doesnt_wait() {
    if !alone("a_viewer_who_leaves_doesnt_wait") {
        return;
    }
    let machine = machine();
    let (node, bytes) = node_and_bytes(&machine, "");
    let disk = on_a_small_disk(&node, &[1]);
    let mut hooks = begun(&node, &disk, bytes, &[1]);
    pause(1000);
    let since = Instant::now();
    hooks[0].stdin.as_mut().unwrap().write_all(b"q").unwrap();
    assert!(node.ended(&mut hooks[0]).success(), "{}", node.said(1));
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    disk.free();
    // What was whole stays whole, with its playlist, and is what it would have been.
    let whole = node.whole_segments(1);
    assert!((1..SEGMENTS).contains(&whole), "{whole}: {}", node.said(1));
    let expected = packets(&node.output(0));
    assert_eq!(expected[..whole], packets(&node.output(1)));
    assert_eq!(half_written(&node.output(1)), 0);
    let playlists = fs::read_dir(node.output(1)).unwrap().map(|entry| entry.unwrap().path());
    let mut playlists = playlists.filter(|path| path.extension().is_some_and(|e| e == "m3u8"));
    let playlist = fs::read_to_string(playlists.next().unwrap()).unwrap();
    assert_eq!(playlist.matches("#EXTINF").count(), whole, "{playlist}");
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
    node.metric("rendergate_streams_ended_total{how=\"quit\"} 1");
}

/// Jellyfin is killed: nobody says `q`.
#[test]
fn a_hook_that_is_killed_takes_its_worker_along() {
    if !alone("a_hook_that_is_killed_takes_its_worker_along") {
        return;
    }
    let machine = machine();
    let (node, bytes) = node_and_bytes(&machine, "");
    let disk = on_a_small_disk(&node, &[1]);
    let mut hooks = begun(&node, &disk, bytes, &[1]);
    let worker = node.streams()[0]["worker_pid"].as_u64().unwrap();
    let since = Instant::now();
    hooks[0].kill().unwrap();
    hooks[0].wait().unwrap();
    node.until("the stream is cleared away", || node.streams().is_empty());
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert!(!Path::new(&format!("/proc/{worker}")).exists());
    assert_eq!(half_written(&node.output(1)), 0);
    disk.free();
    assert!(segments(&node.output(1)).iter().all(|(_, size)| *size > 0));
    assert!((1..SEGMENTS).contains(&node.whole_segments(1)));
}
