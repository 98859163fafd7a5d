//! The disk is full: a stream waits, and goes on as if nothing had been; or its viewer leaves.
//!
//! On a real file system that is really full, so these need root ([`stand::disk`]).

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ffmpeg_args::{FileFormat, Output, PlaylistType, ProgressiveOutput, Transcode};
use rustix::net::Shutdown;
use session::{Control, Ending};
use stand::disk::{SmallDisk, apart};
use support::case::{Case, ended, exited, film_of, hls_of, to_fmp4};
use support::output::{Output as Written, capture};
use support::{Report, Run, pause};

/// Far more than any of the films takes.
const DISK: usize = 32 << 20;
const MANY_FILES: usize = 1000;
/// More than a segment takes, and less than any of the films.
const ROOM: u64 = 384 << 10;
/// What is given back at once of a disk that empties slowly; a fraction of a segment.
const DRIP: u64 = 32 << 10;
/// How long a worker that waits may take over `q`. Jellyfin kills after five seconds.
const SOON: Duration = Duration::from_secs(2);

/// Of eight segments: more than the worker has in hand while it waits.
fn film() -> PathBuf {
    film_of(24)
}

fn file(plan: &mut Transcode, name: &str, format: FileFormat) {
    let directory = hls_of(plan).directory.clone();
    plan.output = Output::Progressive(ProgressiveOutput { directory, name: name.into(), format });
}

/// What can be asked for, as it is called and as it changes the plan of segments in MPEG-TS.
type Kind = (&'static str, fn(&mut Transcode));
const SEGMENTS: [Kind; 3] = [
    ("TS", |_| {}),
    ("fMP4", to_fmp4),
    ("event", |plan| hls_of(plan).playlist_type = PlaylistType::Event),
];
const FILES: [Kind; 3] = [
    ("a file of TS", |plan| file(plan, "abc.ts", FileFormat::MpegTs)),
    ("a file of MP4", |plan| file(plan, "abc.mp4", FileFormat::FragmentedMp4)),
    ("a file of Matroska", |plan| file(plan, "abc.mkv", FileFormat::Matroska)),
];

/// An output folder on a disk of its own, and what goes there.
struct Small {
    case: Case,
    disk: SmallDisk,
    plan: Transcode,
}

impl Small {
    /// With room for so many bytes.
    fn with_room(change: fn(&mut Transcode), bytes: u64) -> Self {
        let small = Self::with_files(change, MANY_FILES);
        small.disk.fill();
        small.disk.give_back(bytes);
        small
    }

    fn with_files(change: fn(&mut Transcode), files: usize) -> Self {
        let case = Case::new();
        let disk = SmallDisk::over(&case.out(), DISK, files);
        let mut plan = case.plan(&film());
        change(&mut plan);
        Self { case, disk, plan }
    }

    /// What is there, with sizes.
    fn files(&self) -> Vec<(String, u64)> {
        let size = |name: &String| fs::metadata(self.case.out().join(name)).map_or(0, |m| m.len());
        self.case.names().into_iter().map(|name| (name.clone(), size(&name))).collect()
    }
}

/// The same on a disk with room; the bytes that it takes.
fn undisturbed(change: fn(&mut Transcode)) -> (Case, Transcode, u64) {
    let case = Case::new();
    let mut plan = case.plan(&film());
    change(&mut plan);
    let report = Run::start(&plan).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    assert!(report.rooms.is_empty());
    (case, plan, report.progress.bytes)
}

/// Times of all packets, in order, and which are keyframes.
fn packets(directory: &Path, plan: &Transcode) -> Vec<(String, Vec<String>)> {
    let Output::Progressive(output) = &plan.output else {
        let written = Written::read(directory, plan);
        decodes(&written.whole);
        let lines = |segment: &support::output::Segment| {
            let line = |packet: &support::output::Packet| {
                format!("{} {} {} {}", packet.video, packet.pts, packet.dts, packet.key)
            };
            segment.packets.iter().map(line).collect()
        };
        return written.segments.iter().map(|s| (s.name.clone(), lines(s))).collect();
    };
    let path = directory.join(&output.name);
    decodes(&path);
    let entries = "packet=stream_index,pts_time,dts_time,flags";
    let path = path.to_str().unwrap();
    let text = capture("ffprobe", &["-v", "error", "-show_entries", entries, "-of", "csv", path]);
    let lines = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
    vec![(output.name.clone(), lines)]
}

/// Without a complaint.
fn decodes(path: &Path) {
    let path = path.to_str().unwrap();
    let arguments = ["-v", "error", "-nostdin", "-xerror", "-i", path, "-f", "null", "-"];
    capture("ffmpeg", &arguments);
}

/// A field of `/proc/{pid}/status` in kB.
fn memory(run: &Run, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", run.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// Ticks of processor time, 10 ms each.
fn processor(run: &Run) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", run.child.id())).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Waits until nothing more is decoded, and sees that nothing happens from then on.
fn stands(small: &Small, run: &Run, what: &str) {
    pause(1500);
    let before = (small.files(), processor(run), memory(run, "VmRSS:"));
    pause(1500);
    let after = (small.files(), processor(run), memory(run, "VmRSS:"));
    assert_eq!(before.0, after.0, "{what}");
    assert!(after.1 - before.1 < 30, "{what} is busy: {} ticks in 1.5 s", after.1 - before.1);
    assert!(after.2 < before.2 + 1024, "{what} grows from {} kB to {} kB", before.2, after.2);
}

fn waits_and_goes_on((what, change): Kind) {
    let (whole, whole_plan, bytes) = undisturbed(change);
    let small = Small::with_room(change, bytes / 3);
    let report = Run::start(&small.plan).finish_hearing(
        |_, _| {},
        |run, waiting| {
            if waiting && small.case.out().join("ballast").exists() {
                stands(&small, run, what);
                for _ in 0..3 {
                    small.disk.give_back(DRIP);
                    pause(400);
                }
                small.disk.free();
            }
        },
    );
    assert_eq!(report.ending, Some(Ending::Complete), "{what}: {:?}", report.lines);
    exited(&report);
    let pairs = report.rooms.chunks(2).all(|pair| pair == [true, false]);
    assert!(!report.rooms.is_empty() && pairs, "{what}: {:?}", report.rooms);
    assert_eq!(whole.names(), small.case.names(), "{what}");
    assert_eq!(whole.playlist(), small.case.playlist(), "{what}");
    let read = |case: &Case, plan: &Transcode| packets(&case.out(), plan);
    let (expected, found) = (read(&whole, &whole_plan), read(&small.case, &small.plan));
    assert!(expected.iter().all(|(_, packets)| packets.len() > 100), "{what}");
    for (one, two) in expected.iter().zip(&found) {
        assert_eq!(one, two, "{what}");
    }
    assert_eq!(expected.len(), found.len());
}

#[test]
fn segments_wait_for_room_and_go_on() {
    if apart("segments_wait_for_room_and_go_on") {
        SEGMENTS.into_iter().for_each(waits_and_goes_on);
    }
}

#[test]
fn a_growing_file_waits_for_room_and_goes_on() {
    if apart("a_growing_file_waits_for_room_and_goes_on") {
        FILES.into_iter().for_each(waits_and_goes_on);
    }
}

/// A run that is told to quit once it waits, and how long it took over that.
fn quit_while_waiting(small: &Small, what: &str) -> Report {
    let mut asked = None;
    let report = Run::start(&small.plan).finish_hearing(
        |_, _| {},
        |run, waiting| {
            if waiting && asked.is_none() {
                // By now everything before the writer is full, too.
                pause(1000);
                run.control(Control::Pause);
                run.control(Control::Quit);
                asked = Some(run.started.elapsed());
            }
        },
    );
    let took = report.elapsed - asked.unwrap_or_else(|| panic!("{what}: it doesn't wait"));
    assert!(took < SOON, "{what}: {took:?}");
    assert_eq!(report.ending, Some(Ending::Quit), "{what}: {:?}", report.lines);
    exited(&report);
    assert_eq!(report.rooms, [true], "{what}");
    report
}

#[test]
fn quit_while_segments_wait() {
    if !apart("quit_while_segments_wait") {
        return;
    }
    for (what, change) in SEGMENTS {
        let small = Small::with_room(change, ROOM);
        let report = quit_while_waiting(&small, what);
        small.disk.free();
        // Nothing half-written, and the playlist has all that is there.
        ended(&small.case, &report, &Ending::Quit);
        let segments = report.segments.len();
        assert!((2..7).contains(&segments), "{what}: {segments}");
        assert_eq!(small.case.whole(), segments * 75, "{what}");
        assert_eq!(report.progress.frames, segments as u64 * 75, "{what}");
        let playlist = small.case.playlist();
        assert_eq!(playlist.matches("#EXTINF").count(), segments, "{what}: {playlist}");
    }
}

#[test]
fn quit_while_a_growing_file_waits() {
    if !apart("quit_while_a_growing_file_waits") {
        return;
    }
    for (what, change) in FILES {
        let small = Small::with_room(change, ROOM);
        let report = quit_while_waiting(&small, what);
        small.disk.free();
        let files = small.files();
        assert_eq!(files.len(), 1, "{what}: {files:?}");
        assert_eq!(files[0].1, report.progress.bytes, "{what}");
        let found = packets(&small.case.out(), &small.plan);
        assert!(found[0].1.len() > 100, "{what}");
    }
}

/// Before the first byte: nothing was written, and nothing is.
#[test]
fn quit_before_there_is_room_for_anything() {
    if !apart("quit_before_there_is_room_for_anything") {
        return;
    }
    for (what, change) in SEGMENTS.into_iter().chain(FILES) {
        let small = Small::with_room(change, 0);
        let report = quit_while_waiting(&small, what);
        small.disk.free();
        let names = small.case.names();
        // A growing file is there before its first byte.
        let left = small.plan.output.hls().is_none();
        assert_eq!(names.len(), usize::from(left), "{what}: {names:?}");
        assert_eq!(report.progress.frames, 0);
    }
}

/// Bytes are there, but nothing may be called anything any more.
#[test]
fn a_disk_that_holds_no_more_files_is_waited_for() {
    if !apart("a_disk_that_holds_no_more_files_is_waited_for") {
        return;
    }
    let (whole, whole_plan, _) = undisturbed(|_| {});
    let small = Small::with_files(|_| {}, 5);
    let mut stood = Vec::new();
    let report = Run::start(&small.plan).finish_hearing(
        |_, _| {},
        |_, waiting| {
            if waiting {
                stood = small.case.names();
                small.disk.allow(MANY_FILES);
            }
        },
    );
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    assert_eq!(report.rooms, [true, false]);
    assert_eq!(stood.iter().filter(|name| name.ends_with(".ts")).count(), 5, "{stood:?}");
    assert_eq!(report.segments.len(), 8);
    let read = |case: &Case, plan: &Transcode| packets(&case.out(), plan);
    let (expected, found) = (read(&whole, &whole_plan), read(&small.case, &small.plan));
    assert_eq!(expected, found);
}

#[test]
fn a_gateway_that_goes_ends_the_waiting() {
    if !apart("a_gateway_that_goes_ends_the_waiting") {
        return;
    }
    for (what, change) in [SEGMENTS[0], SEGMENTS[1], FILES[0]] {
        let small = Small::with_room(change, ROOM);
        let report = Run::start(&small.plan).finish_hearing(
            |_, _| {},
            |run, _| {
                let since = Instant::now();
                rustix::net::shutdown(run.channel.socket(), Shutdown::Both).unwrap();
                run.exit();
                assert!(since.elapsed() < SOON, "{what}: {:?}", since.elapsed());
            },
        );
        exited(&report);
        small.disk.free();
        let names = small.case.names();
        assert!(!names.is_empty(), "{what}");
        let half = |name: &String| name.ends_with(".tmp") || name.ends_with(".m3u8");
        assert!(!names.iter().any(half), "{what}: {names:?}");
    }
}
