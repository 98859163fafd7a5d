//! Viewers of one title one after the other: what the first had made is kept for those who come later.

mod common;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Gateway, Hook, Setup, eventually, kill, until};
use ffmpeg_args::{Location, Output, Transcode};
use rustix::process::Signal;
use session::{Control, Ending, GatewayToHook, PROTOCOL, StreamId};
use stand::disk::{SmallDisk, apart};
use tempfile::TempDir;

/// A gateway that keeps segments in a folder of its own, and a film.
struct House {
    gateway: Gateway,
    folder: TempDir,
}

/// As little as can be configured.
const MEGABYTE: &str = "1";

fn start(folder: &Path, megabytes: &str) -> Gateway {
    let cache = folder.join("cache");
    let toml = format!("[cache]\ndirectory = {cache:?}\nfree_share = 0.0\n");
    let variables = [("RENDERGATE_SHARE", "on"), ("RENDERGATE_CACHE_MB", megabytes)];
    let gateway = Gateway::start(&Setup { toml: &toml, variables: &variables });
    until("the gateway is ready", || gateway.get("/readyz").starts_with("HTTP/1.1 200"));
    gateway
}

impl House {
    fn new(megabytes: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::over(folder, megabytes)
    }

    fn over(folder: TempDir, megabytes: &str) -> Self {
        fs::write(folder.path().join("film.mkv"), "media").unwrap();
        let gateway = start(folder.path(), megabytes);
        gateway.logged("finished segments are kept");
        Self { gateway, folder }
    }

    fn film(&self) -> PathBuf {
        self.folder.path().join("film.mkv")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A viewer of the film with a folder and a name of his own.
    fn viewer(&self, script: &str, name: &str) -> Hook {
        self.viewer_of(&self.gateway, script, name)
    }

    fn viewer_of(&self, gateway: &Gateway, script: &str, name: &str) -> Hook {
        let (transcode, descriptors) = self.job(gateway, script, name);
        gateway.hook_with(PROTOCOL, transcode, descriptors)
    }

    fn job(&self, gateway: &Gateway, script: &str, name: &str) -> (Transcode, Vec<OwnedFd>) {
        let mut transcode = gateway.transcode(script);
        transcode.inputs[0].location = Location::File(self.film());
        if let Output::Hls(output) = &mut transcode.output {
            output.directory = self.out(name);
            output.segment_prefix = name.into();
            output.playlist = format!("{name}.m3u8");
        }
        fs::create_dir_all(self.out(name)).unwrap();
        let descriptors =
            [self.film(), self.out(name)].map(|path| File::open(path).unwrap().into());
        (transcode, descriptors.into())
    }

    /// Somebody plays it to its end; his segments.
    fn plays(&self, script: &str, name: &str) -> Vec<(u64, Vec<u8>)> {
        let mut hook = self.viewer(script, name);
        assert_eq!(hook.ended(), Ending::Complete);
        whole(&self.out(name), name)
    }

    /// Jellyfin tidies up behind a viewer who has gone.
    fn tidies_up(&self, name: &str) {
        fs::remove_dir_all(self.out(name)).unwrap();
    }

    fn titles(&self) -> Vec<PathBuf> {
        titles(self.folder.path())
    }

    /// Waits until so many segments of the one title are kept.
    #[track_caller]
    fn keeps(&self, segments: usize) {
        until("it is kept", || match &self.titles()[..] {
            // A segment counts when its line is written.
            [title] => fs::read_to_string(title.join("log"))
                .is_ok_and(|log| log.matches('\n').count() == segments),
            _ => false,
        });
    }
}

fn titles(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("cache/rendergate-segments")).unwrap();
    let mut titles: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    titles.retain(|path| path.is_dir());
    titles.sort();
    titles
}

/// The segments that aren't empty.
fn whole(folder: &Path, name: &str) -> Vec<(u64, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let number = file.strip_prefix(name)?.strip_suffix(".ts")?.parse().ok()?;
            Some((number, fs::read(path).ok()?))
        })
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    found.sort();
    found
}

fn runs(hook: &mut Hook) -> (String, String) {
    let is_running = |message: &GatewayToHook| matches!(message, GatewayToHook::Running { .. });
    match hook.hear("it runs", is_running) {
        GatewayToHook::Running { backend, description } => (backend, description),
        other => panic!("{other:?}"),
    }
}

fn from_the_cache() -> (String, String) {
    ("shared".to_owned(), "kept segments".to_owned())
}

fn segments_of(gateway: &Gateway, stream: StreamId) -> u64 {
    let streams = gateway.json("/v1/streams");
    let id = stream.to_string();
    let line = streams.as_array().unwrap().iter().find(|line| line["id"] == id.as_str());
    line.map_or(0, |line| line["segments"].as_u64().unwrap())
}

#[test]
fn who_comes_later_has_no_worker_and_every_segment() {
    let house = House::new(MEGABYTE);
    let script = "segments=30,every=5,size=100";
    let theirs = house.plays(script, "aaa");
    assert_eq!(theirs.len(), 30);
    house.keeps(30);
    house.tidies_up("aaa");
    house.gateway.metric("rendergate_cache_titles 1");
    let mut second = house.viewer(script, "bbb");
    let stream = second.accepted();
    assert_eq!(runs(&mut second), from_the_cache());
    assert_eq!(house.gateway.worker_of(stream), None);
    assert_eq!(second.ended(), Ending::Complete);
    assert_eq!(whole(&house.out("bbb"), "bbb"), theirs);
    house.gateway.metric("rendergate_cache_hits_total 1");
    house.gateway.metric("rendergate_cache_misses_total 1");
    // It was made once.
    let made =
        house.gateway.log.lock().unwrap().iter().filter(|l| l.contains("fake: runs")).count();
    assert_eq!(made, 1);
}

#[test]
fn whoever_goes_on_behind_what_is_kept_adds_to_it() {
    let house = House::new(MEGABYTE);
    let script = "segments=40,every=20,size=100";
    let mut first = house.viewer(script, "aaa");
    first.segment(9);
    first.control(Control::Quit);
    assert_eq!(first.ended(), Ending::Quit);
    house.gateway.idle();
    // The last one is cut short, for him alone.
    let mut theirs = whole(&house.out("aaa"), "aaa");
    theirs.pop();
    house.keeps(theirs.len());
    house.tidies_up("aaa");

    let ours = house.plays(script, "bbb");
    let numbers: Vec<u64> = ours.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (5..45).collect::<Vec<_>>());
    assert_eq!(ours[..theirs.len()], theirs);
    let by_another =
        |(_, bytes): &(u64, Vec<u8>)| String::from_utf8_lossy(bytes).contains("of worker 2");
    assert!(ours[theirs.len()..].iter().all(by_another));
    house.keeps(40);
    house.tidies_up("bbb");
    assert_eq!(house.plays(script, "ccc"), ours);
    house.gateway.metric("rendergate_cache_hits_total 2");
    house.gateway.metric("rendergate_cache_misses_total 1");
}

/// Jellyfin can be told to delete what has been watched (contract 4, segment cleaner).
#[test]
fn who_comes_when_the_first_segment_is_deleted_has_what_is_kept() {
    let house = House::new(MEGABYTE);
    let script = "every=40,size=100";
    let mut first = house.viewer(script, "aaa");
    first.segment(8);
    until("four are kept", || house.titles().first().is_some_and(|t| t.join("8.ts").exists()));
    fs::remove_file(house.out("aaa").join("aaa5.ts")).unwrap();
    let mut second = house.viewer(script, "bbb");
    assert_eq!(runs(&mut second), from_the_cache());
    // And then what is being made.
    second.segment(20);
    let line = &house.gateway.json("/v1/streams")[1];
    assert_eq!(line["description"], "the segments of s1", "{line}");
}

#[test]
fn what_a_film_was_before_it_changed_is_gone() {
    let house = House::new(MEGABYTE);
    house.plays("segments=5,every=5,size=100", "aaa");
    house.plays("segments=6,every=5,size=100", "aab");
    until("both are kept", || house.titles().len() == 2);
    fs::write(house.film(), "another").unwrap();
    let mut second = house.viewer("segments=5,every=5,size=100", "bbb");
    assert_eq!(runs(&mut second).0, "fake");
    assert_eq!(second.ended(), Ending::Complete);
    house.keeps(5);
    house.gateway.metric("rendergate_cache_evictions_total{reason=\"changed\"} 2");
}

/// Sixty segments are three minutes.
const LONG: &str = "segments=70,every=0,size=12000";

#[test]
fn what_is_kept_is_copied_no_further_ahead_than_a_viewer_needs() {
    let house = House::new(MEGABYTE);
    house.plays(LONG, "aaa");
    house.keeps(70);
    let began = Instant::now();
    let mut second = house.viewer(LONG, "bbb");
    let stream = second.accepted();
    // Beyond that it goes on, a segment of three seconds each 0.75 s.
    second.segment(67);
    assert!(began.elapsed() > Duration::from_millis(1400), "{:?}", began.elapsed());
    second.control(Control::Pause);
    until("it is paused", || house.gateway.json("/v1/streams")[0]["state"] == "paused");
    let paused = segments_of(&house.gateway, stream);
    assert!((63..=66).contains(&paused), "{paused} segments");
    // It isn't held for a lead, either: a viewer who is paused needs none.
    second.control(Control::Quit);
    assert_eq!(second.ended(), Ending::Quit);
    assert_eq!(whole(&house.out("bbb"), "bbb").len() as u64, paused);
}

#[test]
fn what_somebody_reads_stays_and_what_was_used_longest_ago_goes() {
    let house = House::new(MEGABYTE);
    house.plays(LONG, "aaa");
    house.keeps(70);
    let first = house.titles();
    let mut reader = house.viewer(LONG, "bbb");
    reader.segment(64);
    reader.control(Control::Pause);
    // There is no room for all of it, and nothing that could go.
    let other = "segments=30,every=1,size=12000";
    assert_eq!(house.plays(other, "ccc").len(), 30);
    house.gateway.logged("there is no room for more");
    assert!(first[0].exists());
    assert_eq!(house.titles().len(), 2);
    house.gateway.metric("rendergate_cache_evictions_total{reason=\"room\"} 0");
    drop(reader);
    house.gateway.idle();
    assert_eq!(house.plays("segments=40,every=1,size=12000", "ddd").len(), 40);
    house.gateway.metric("rendergate_cache_evictions_total{reason=\"room\"} 1");
    // Its reader came before the other was made.
    until("the one is gone", || !first[0].exists());
    assert_eq!(house.titles().len(), 2);
}

#[test]
fn a_reader_outlives_what_he_reads() {
    let house = House::new(MEGABYTE);
    house.plays(LONG, "aaa");
    house.keeps(70);
    let mut second = house.viewer(LONG, "bbb");
    second.segment(64);
    fs::remove_dir_all(&house.titles()[0]).unwrap();
    assert_eq!(second.ended(), Ending::Complete);
    let ours = whole(&house.out("bbb"), "bbb");
    assert_eq!(ours.len(), 70);
    assert!(String::from_utf8_lossy(&ours[69].1).contains("of worker 2"));
}

/// A pipe that nobody writes to stands for a disk that hangs.
#[test]
fn a_disk_that_hangs_later_is_left_alone() {
    let house = House::new(MEGABYTE);
    house.plays(LONG, "aaa");
    house.keeps(70);
    let mut second = house.viewer(LONG, "bbb");
    second.segment(64);
    second.control(Control::Pause);
    until("it is paused", || house.gateway.json("/v1/streams")[0]["state"] == "paused");
    let title = house.titles().remove(0);
    for number in 65..75 {
        let path = title.join(format!("{number}.ts"));
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    }
    second.control(Control::Resume);
    house.gateway.logged("what is kept can't be copied in time");
    assert_eq!(second.ended(), Ending::Complete);
    let ours = whole(&house.out("bbb"), "bbb");
    assert_eq!(ours.len(), 70);
    assert!(String::from_utf8_lossy(&ours[69].1).contains("of worker 2"));
    // What may come back isn't replaced.
    house.gateway.idle();
    assert_eq!(house.titles(), [title]);
    house.keeps(70);
    house.gateway.metric("rendergate_cache_evictions_total{reason=\"broken\"} 0");
}

/// As long as the hook may still run the real ffmpeg.
#[test]
fn nothing_is_promised_before_the_first_segment_is_there() {
    let house = House::new(MEGABYTE);
    let script = "segments=5,every=5,size=100";
    house.plays(script, "aaa");
    house.keeps(5);
    let title = house.titles().remove(0);
    // Of the same size, and not to be followed.
    let first = title.join("5.ts");
    let size = usize::try_from(fs::metadata(&first).unwrap().len()).unwrap();
    fs::remove_file(&first).unwrap();
    std::os::unix::fs::symlink("x".repeat(size), &first).unwrap();
    let mut second = house.viewer(script, "bbb");
    let mut backends = Vec::new();
    loop {
        match second.next().expect("it is committed") {
            GatewayToHook::Running { backend, .. } => backends.push(backend),
            GatewayToHook::Committed => break,
            _ => {}
        }
    }
    assert_eq!(backends, ["shared", "fake"]);
    assert_eq!(second.ended(), Ending::Complete);
    assert_eq!(whole(&house.out("bbb"), "bbb").len(), 5);
    // He began with nothing of it.
    house.gateway.metric("rendergate_cache_hits_total 0");
    house.gateway.metric("rendergate_cache_misses_total 2");
    house.gateway.idle();
    assert_eq!(house.titles(), [title]);
}

/// He waits where there is a state, of which few are in memory.
#[test]
fn a_reader_outlives_his_gateway_wherever_he_is() {
    let mut house = House::new(MEGABYTE);
    let script = "segments=400,every=0,size=100";
    house.plays(script, "aaa");
    house.keeps(400);
    let (transcode, descriptors) = house.job(&house.gateway, script, "bbb");
    let mut reader = house.gateway.moving_hook_with(transcode, descriptors, None);
    reader.segment(62);
    kill(house.gateway.pid(), Signal::TERM);
    let mut last = None;
    loop {
        match reader.next().expect("a last message") {
            GatewayToHook::SegmentComplete { number, complete } => last = Some((number, complete)),
            GatewayToHook::LetGo => break,
            GatewayToHook::Ended(ending) => panic!("{ending:?}"),
            _ => {}
        }
    }
    assert!(house.gateway.exited().success());
    // Often the one that was heard of before.
    if let Some((number, complete)) = last {
        assert!(number < 100, "{number} is too far ahead");
        assert!(complete.state.is_some(), "{number}");
    }
}

#[test]
fn what_is_kept_outlives_the_gateway_and_one_has_it_at_a_time() {
    let mut house = House::new(MEGABYTE);
    let script = "segments=10,every=5,size=100";
    let theirs = house.plays(script, "aaa");
    house.keeps(10);
    let next = start(house.folder.path(), MEGABYTE);
    next.logged("another gateway has the kept segments");
    // It gets on without.
    let mut second = house.viewer_of(&next, script, "bbb");
    assert_eq!(runs(&mut second).0, "fake");
    assert_eq!(second.ended(), Ending::Complete);
    assert!(house.gateway.terminate().success());
    let line = next.logged("finished segments are kept");
    assert!(line.contains("\"titles\":1"), "{line}");
    let mut third = house.viewer_of(&next, script, "ccc");
    assert_eq!(runs(&mut third), from_the_cache());
    assert_eq!(third.ended(), Ending::Complete);
    assert_eq!(whole(&house.out("ccc"), "ccc"), theirs);
    next.metric("rendergate_cache_titles 1");
}

/// A house whose cache is on a disk of its own.
fn on_a_small_disk(bytes: usize, files: usize) -> (House, SmallDisk) {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let disk = SmallDisk::over(&cache, bytes, files);
    (House::over(folder, "100"), disk)
}

#[test]
fn a_full_disk_keeps_nothing_and_harms_no_stream() {
    if !apart("a_full_disk_keeps_nothing_and_harms_no_stream") {
        return;
    }
    let warnings = |house: &House| {
        let log = house.gateway.log.lock().unwrap();
        log.iter().filter(|line| line.contains("WARN") && line.contains("no more of it")).count()
    };
    // Room for some files: the folder, the lock, the title's, and three segments.
    let (house, _disk) = on_a_small_disk(1 << 20, 8);
    assert_eq!(house.plays("segments=20,every=5,size=100", "aaa").len(), 20);
    house.gateway.logged("no more of it can be kept");
    assert_eq!(warnings(&house), 1);
    // What is kept is of use.
    let mut second = house.viewer("segments=20,every=5,size=100", "bbb");
    assert_eq!(runs(&mut second), from_the_cache());
    assert_eq!(second.ended(), Ending::Complete);
}

#[test]
fn what_is_kept_gives_way_when_the_disk_fills() {
    if !apart("what_is_kept_gives_way_when_the_disk_fills") {
        return;
    }
    let (house, disk) = on_a_small_disk(1 << 20, 100);
    house.plays("segments=20,every=5,size=20000", "aaa");
    house.keeps(20);
    disk.fill();
    disk.give_back(3 * 4096);
    // Who comes now needs room, which the title has that nobody uses.
    assert_eq!(house.plays("segments=21,every=5,size=20000", "bbb").len(), 21);
    house.gateway.metric("rendergate_cache_evictions_total{reason=\"disk\"} 1");
    let kept = eventually("the other is kept", || match &house.titles()[..] {
        [title] => Some(title.clone()),
        _ => None,
    });
    assert!(kept.ends_with("00000002"));
}
