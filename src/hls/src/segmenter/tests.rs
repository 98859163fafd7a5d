use super::*;
use crate::TrackFormat;
use bytes::Bytes;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};

const SECOND: i64 = 1_000_000_000;

struct Room {
    dir: tempfile::TempDir,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Room {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), events: Arc::default() }
    }

    fn segmenter(&self, output: HlsOutput, tracks: Vec<Track>) -> Segmenter {
        let events = Arc::clone(&self.events);
        let dir = fs::File::open(self.dir.path()).unwrap().into();
        Segmenter::new(dir, output, tracks, "w1", move |event| events.lock().unwrap().push(event))
            .unwrap()
    }

    fn resumed(
        &self,
        output: HlsOutput,
        seam: &Seam,
        lengths: impl IntoIterator<Item = (u64, u32)>,
    ) -> Segmenter {
        let events = Arc::clone(&self.events);
        let dir = fs::File::open(self.dir.path()).unwrap().into();
        let observer = move |event| events.lock().unwrap().push(event);
        Segmenter::resume(dir, output, seam, lengths, "w2", observer).unwrap()
    }

    /// Takes away the segments from this one on.
    fn remove_from(&self, output: &HlsOutput, number: u64) {
        let is_later = |name: &String| output.segment_number(name).is_some_and(|n| n >= number);
        for name in self.names().iter().filter(|name| is_later(name)) {
            fs::remove_file(self.dir.path().join(name)).unwrap();
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn completed(&self) -> Vec<u64> {
        self.events
            .lock()
            .unwrap()
            .iter()
            .filter_map(|event| match event {
                Event::SegmentComplete { number, .. } => Some(*number),
                Event::Committing => None,
            })
            .collect()
    }
}

fn output(container: Container, playlist_type: PlaylistType) -> HlsOutput {
    HlsOutput {
        directory: "out".into(),
        segment_suffix: if container == Container::MpegTs { ".ts" } else { ".mp4" }.into(),
        container,
        segment_seconds: 3.0,
        start_number: 7,
        segment_prefix: "id".into(),
        playlist: "id.m3u8".into(),
        playlist_type,
        base_url: String::new(),
        max_delay_us: 5_000_000,
    }
}

fn fmp4() -> Container {
    Container::Fmp4 { init: "id-1.mp4".into(), absolute: true, skip_sidx: false }
}

fn tracks() -> Vec<Track> {
    vec![
        Track { format: TrackFormat::H264 { width: 16, height: 16, frame_rate: (1, 1) } },
        Track { format: TrackFormat::Ac3 { sample_rate: 48_000, channels: 2 } },
    ]
}

/// One frame a second, each a keyframe.
fn picture(second: i64) -> Sample {
    let data = Bytes::from_static(&[
        0, 0, 1, 0x67, 0x42, 0, 10, 0xf8, 0, 0, 1, 0x68, 0xce, 0, 0, 1, 0x65, 1, 2, 3,
    ]);
    let at = second * SECOND;
    Sample { track: 0, pts: at, dts: at, duration: 1_000_000_000, keyframe: true, data }
}

fn sound(second: i64) -> Sample {
    Sample { track: 1, data: Bytes::from(vec![0x0b; 64]), ..picture(second) }
}

fn feed(segmenter: &mut Segmenter, seconds: i64) {
    for second in 0..seconds {
        segmenter.push(picture(second)).unwrap();
        segmenter.push(sound(second)).unwrap();
    }
}

#[test]
fn mpeg_ts_run_leaves_segments_and_the_playlist() {
    let room = Room::new();
    let mut segmenter = room.segmenter(output(Container::MpegTs, PlaylistType::Vod), tracks());
    feed(&mut segmenter, 8);
    assert_eq!(room.names(), ["id7.ts", "id8.ts", "id9.ts.w1.tmp"]);
    let counters = segmenter.finish().unwrap();
    assert_eq!(room.names(), ["id.m3u8", "id7.ts", "id8.ts", "id9.ts"]);
    assert_eq!((counters.frames, counters.segments), (8, 3));
    assert_eq!((counters.first_pts_ns, counters.position_ns), (Some(0), Some(8 * SECOND)));
    let events = room.events.lock().unwrap();
    assert_eq!(events[0], Event::Committing);
    let size = fs::metadata(room.dir.path().join("id8.ts")).unwrap().len();
    match &events[2] {
        Event::SegmentComplete { number: 8, start_ns, length, bytes, seam: Some(seam) } => {
            assert_eq!((*start_ns, *length, *bytes), (3 * SECOND, (270_000, 90_000), size));
            assert_eq!((seam.number, seam.start_ns), (9, 6 * SECOND));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(events[3], Event::SegmentComplete { number: 9, seam: None, .. }));
    assert_eq!(events.len(), 4);
    let text = fs::read_to_string(room.dir.path().join("id.m3u8")).unwrap();
    assert!(text.ends_with("#EXTINF:2.000000,\nid9.ts\n#EXT-X-ENDLIST\n"), "{text}");
}

#[test]
fn fmp4_run_has_an_init_file_not_newer_than_its_segments() {
    let room = Room::new();
    let mut segmenter = room.segmenter(output(fmp4(), PlaylistType::Vod), tracks());
    feed(&mut segmenter, 3);
    assert_eq!(room.names(), [""; 0]);
    feed(&mut segmenter, 0);
    segmenter.push(picture(3)).unwrap();
    segmenter.push(sound(3)).unwrap();
    segmenter.push(picture(4)).unwrap();
    assert_eq!(room.names(), ["id-1.mp4", "id7.mp4"]);
    segmenter.finish().unwrap();
    assert_eq!(room.names(), ["id-1.mp4", "id.m3u8", "id7.mp4", "id8.mp4"]);
    let time = |name: &str| {
        let data = fs::metadata(room.dir.path().join(name)).unwrap();
        assert_eq!(data.mode() & 0o644, 0o644 & data.mode());
        (data.mtime(), data.mtime_nsec())
    };
    assert!(time("id-1.mp4") <= time("id7.mp4") && time("id7.mp4") <= time("id8.mp4"));
}

#[test]
fn event_playlist_grows_with_each_segment() {
    let room = Room::new();
    let mut segmenter = room.segmenter(output(Container::MpegTs, PlaylistType::Event), tracks());
    feed(&mut segmenter, 5);
    let text = fs::read_to_string(room.dir.path().join("id.m3u8")).unwrap();
    assert!(text.ends_with("id7.ts\n"), "{text}");
    segmenter.finish().unwrap();
    let text = fs::read_to_string(room.dir.path().join("id.m3u8")).unwrap();
    assert!(text.ends_with("id8.ts\n#EXT-X-ENDLIST\n"), "{text}");
    assert_eq!(room.names(), ["id.m3u8", "id7.ts", "id8.ts"]);
}

/// Two writers of one name, as at a seek, must not take each other's playlist away half-written.
#[test]
fn temporary_playlists_of_other_writers_are_left_alone() {
    let room = Room::new();
    for other in ["id.m3u8.tmp", "id.m3u8.w2.tmp"] {
        fs::write(room.dir.path().join(other), "half").unwrap();
    }
    let mut segmenter = room.segmenter(output(Container::MpegTs, PlaylistType::Event), tracks());
    feed(&mut segmenter, 8);
    segmenter.finish().unwrap();
    for other in ["id.m3u8.tmp", "id.m3u8.w2.tmp"] {
        assert_eq!(fs::read_to_string(room.dir.path().join(other)).unwrap(), "half");
    }
}

#[test]
fn a_placeholder_is_replaced_by_the_segment() {
    let room = Room::new();
    let mut segmenter = room.segmenter(output(Container::MpegTs, PlaylistType::Vod), tracks());
    fs::write(room.dir.path().join("id7.ts"), b"").unwrap();
    feed(&mut segmenter, 5);
    assert!(fs::metadata(room.dir.path().join("id7.ts")).unwrap().len() > 0);
}

#[test]
fn dropped_or_aborted_only_whole_segments_stay() {
    for container in [Container::MpegTs, fmp4()] {
        let room = Room::new();
        let mut segmenter = room.segmenter(output(container, PlaylistType::Vod), tracks());
        feed(&mut segmenter, 5);
        segmenter.abort();
        let names = room.names();
        assert_eq!(names.iter().filter(|name| name.contains('7')).count(), 1, "{names:?}");
        assert!(names.iter().all(|n| !n.ends_with(".tmp") && !n.contains('8')), "{names:?}");
    }
}

#[test]
fn nothing_in_nothing_out() {
    let room = Room::new();
    let mut segmenter = room.segmenter(output(fmp4(), PlaylistType::Event), tracks());
    assert_eq!(segmenter.finish().unwrap(), Counters::default());
    assert_eq!(room.names(), [""; 0]);
    assert_eq!(room.completed(), [0; 0]);
}

#[test]
fn pictures_before_the_first_keyframe_are_dropped() {
    let room = Room::new();
    let mut segmenter = room.segmenter(output(Container::MpegTs, PlaylistType::Vod), tracks());
    segmenter.push(Sample { keyframe: false, ..picture(0) }).unwrap();
    segmenter.push(picture(1)).unwrap();
    assert_eq!(segmenter.finish().unwrap().first_pts_ns, Some(SECOND));
}

#[test]
fn a_directory_that_is_gone_is_named_and_closes_the_writer() {
    for container in [Container::MpegTs, fmp4()] {
        let room = Room::new();
        let mut segmenter = room.segmenter(output(container, PlaylistType::Vod), tracks());
        fs::remove_dir(room.dir.path()).unwrap();
        let mut result = Ok(());
        for second in 0..5 {
            result = result.and(segmenter.push(picture(second)));
            result = result.and(segmenter.push(sound(second)));
        }
        assert!(matches!(result, Err(WriteError::DirectoryGone { .. })), "{result:?}");
        assert!(matches!(segmenter.push(picture(6)), Err(WriteError::Closed)));
        assert!(matches!(segmenter.finish(), Err(WriteError::Closed)));
    }
}

#[test]
fn what_cannot_be_carried_is_refused_before_any_file() {
    let dir = tempfile::tempdir().unwrap();
    let new = |tracks| {
        let fd = fs::File::open(dir.path()).unwrap().into();
        Segmenter::new(fd, output(Container::MpegTs, PlaylistType::Vod), tracks, "w", |_| {})
    };
    let flac = TrackFormat::Flac {
        streaminfo: Bytes::from(vec![0; 34]),
        sample_rate: 48_000,
        channels: 2,
    };
    assert!(matches!(new(vec![Track { format: flac }]), Err(WriteError::Unsupported(_))));
    assert!(matches!(new(vec![]), Err(WriteError::Unsupported(_))));
    let mut tracks = tracks();
    tracks.reverse();
    assert!(matches!(new(tracks), Err(WriteError::Unsupported(_))));
}

/// The disk is full in the middle of a segment: RLIMIT_FSIZE stands for it, in a child process
/// because it holds for all files of a process.
#[test]
fn a_full_disk_leaves_no_half_segment() {
    const CHILD: &str = "HLS_TEST_FULL_DISK";
    if let Ok(kind) = std::env::var(CHILD) {
        return fill_the_disk(if kind == "ts" { Container::MpegTs } else { fmp4() });
    }
    for kind in ["ts", "mp4"] {
        // EFBIG comes with a signal that would kill; ignored signals survive exec.
        let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\" --exact \
                      segmenter::tests::a_full_disk_leaves_no_half_segment --nocapture";
        let child = std::process::Command::new("/bin/sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, kind)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && text.contains("1 passed"), "{kind}: {child:?}");
    }
}

fn fill_the_disk(container: Container) {
    let room = Room::new();
    let mut segmenter = room.segmenter(output(container, PlaylistType::Vod), tracks());
    let large = |second| {
        let mut data = picture(second).data.to_vec();
        data.resize(if second < 3 { 1000 } else { 200_000 }, 0x55);
        Sample { data: data.into(), ..picture(second) }
    };
    let mut result = Ok(());
    for second in 0..8 {
        result = result.and(segmenter.push(large(second)));
        result = result.and(segmenter.push(sound(second)));
    }
    assert!(matches!(result, Err(WriteError::NoSpace { .. })), "{result:?}");
    let names = room.names();
    assert!(names.iter().any(|name| name.starts_with("id7")), "{names:?}");
    assert!(names.iter().all(|n| !n.ends_with(".tmp") && !n.starts_with("id8")), "{names:?}");
    // Nobody waits for the rest: what is whole has its playlist.
    let counters = segmenter.settle();
    assert_eq!((counters.segments, counters.frames), (1, 3));
    assert_eq!(counters.position_ns, Some(3 * SECOND));
    let playlist = fs::read_to_string(room.dir.path().join("id.m3u8")).unwrap();
    assert_eq!(playlist.matches("#EXTINF").count(), 1, "{playlist}");
    assert!(playlist.contains("id7.") && playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the order in which tracks deliver, the files are the same.
    #[test]
    fn the_mix_of_tracks_does_not_matter(mix in prop::collection::vec(any::<bool>(), 24), ts in any::<bool>()) {
        let container = || if ts { Container::MpegTs } else { fmp4() };
        let read = |room: &Room| -> Vec<(String, Vec<u8>)> {
            room.names().into_iter().map(|n| (n.clone(), fs::read(room.dir.path().join(n)).unwrap())).collect()
        };
        let even = Room::new();
        let mut segmenter = even.segmenter(output(container(), PlaylistType::Vod), tracks());
        feed(&mut segmenter, 8);
        segmenter.finish().unwrap();

        let mixed = Room::new();
        let mut segmenter = mixed.segmenter(output(container(), PlaylistType::Vod), tracks());
        let (mut video, mut audio) = (0..8, 0..8);
        for first in mix {
            match if first { video.next().map(picture) } else { audio.next().map(sound) } {
                Some(sample) => segmenter.push(sample).unwrap(),
                None => segmenter.end_track(usize::from(!first)).unwrap(),
            }
        }
        video.for_each(|s| segmenter.push(picture(s)).unwrap());
        audio.for_each(|s| segmenter.push(sound(s)).unwrap());
        segmenter.finish().unwrap();
        prop_assert_eq!(read(&even), read(&mixed));
    }
}

#[test]
fn numbers_that_could_run_out_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = output(Container::MpegTs, PlaylistType::Vod);
    let mut new = |start_number| {
        last.start_number = start_number;
        let folder = fs::File::open(dir.path()).unwrap().into();
        Segmenter::new(folder, last.clone(), tracks(), "w1", |_| {}).map(drop)
    };
    assert!(new(i64::MAX as u64).is_ok());
    assert!(matches!(new(1 << 63), Err(WriteError::Unsupported(_))));
}

/// Whatever the whole run writes, two writers write together, with any seam; the second is fed from
/// some seconds earlier on, and its samples come as another encoder would give them.
#[test]
fn a_second_writer_goes_on_as_if_it_were_the_first() {
    for container in [Container::MpegTs, fmp4()] {
        for kind in [PlaylistType::Vod, PlaylistType::Event] {
            let whole = Room::new();
            let output = output(container.clone(), kind);
            let mut segmenter = whole.segmenter(output.clone(), tracks());
            feed(&mut segmenter, 13);
            segmenter.finish().unwrap();
            for seam_at in 0..4 {
                let room = Room::new();
                let mut first = room.segmenter(output.clone(), tracks());
                feed(&mut first, 13);
                first.abort();
                let events = room.events.lock().unwrap().clone();
                let complete = events.into_iter().filter_map(|event| match event {
                    Event::SegmentComplete { length, seam, .. } => Some((length, seam)),
                    Event::Committing => None,
                });
                let (lengths, seams): (Vec<_>, Vec<_>) = complete.take(seam_at + 1).unzip();
                let seam = seams.into_iter().next_back().unwrap().unwrap();
                // It travels as text.
                let text = serde_json::to_string(&seam).unwrap();
                let seam: Seam = serde_json::from_str(&text).unwrap();
                room.remove_from(&output, seam.number);
                let mut second = room.resumed(output.clone(), &seam, lengths);
                let from = (seam.start_ns / SECOND - 4).max(0);
                for second_of_film in from..13 {
                    second.push(picture(second_of_film)).unwrap();
                    second.push(sound(second_of_film)).unwrap();
                }
                let counters = second.finish().unwrap();
                assert_eq!(counters.segments, 5);
                assert_eq!(room.names(), whole.names());
                for name in room.names() {
                    let read = |room: &Room| fs::read(room.dir.path().join(&name)).unwrap();
                    assert_eq!(read(&room), read(&whole), "{name}, seam at {seam_at}");
                }
                let committed = room.events.lock().unwrap();
                let committed = committed.iter().filter(|event| **event == Event::Committing);
                assert_eq!(committed.count(), 1);
            }
        }
    }
}

/// The playlist is whole by then: whoever hears of it may take the stream for complete.
#[test]
fn the_last_segment_is_told_of_behind_the_playlist() {
    for kind in [PlaylistType::Vod, PlaylistType::Event] {
        let room = Room::new();
        let path = room.dir.path().to_owned();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let dir = fs::File::open(room.dir.path()).unwrap().into();
        let output = output(Container::MpegTs, kind);
        let mut segmenter = Segmenter::new(dir, output, tracks(), "w1", move |event| {
            if let Event::SegmentComplete { number, seam, .. } = event {
                let playlist = fs::read_to_string(path.join("id.m3u8")).unwrap_or_default();
                let ended = playlist.ends_with("#EXT-X-ENDLIST\n");
                heard.lock().unwrap().push((number, seam.is_none(), ended));
            }
        })
        .unwrap();
        feed(&mut segmenter, 8);
        segmenter.finish().unwrap();
        let told = told.lock().unwrap();
        let (last, before) = told.split_last().unwrap();
        assert!(before.iter().all(|(_, last, ended)| !last && !ended), "{told:?}");
        assert!(last.1 && last.2, "{told:?}");
    }
}

/// Behind a leap the viewer still holds the init file of the run before, which may be another
/// encoder's.
#[test]
fn a_run_that_is_not_the_first_repeats_its_parameter_sets() {
    let room = Room::new();
    let sizes: Vec<u64> = (0..2)
        .map(|_| {
            let output = output(fmp4(), PlaylistType::Vod);
            let mut segmenter = room.segmenter(output, tracks());
            feed(&mut segmenter, 5);
            segmenter.finish().unwrap().bytes
        })
        .collect();
    assert!(sizes[1] > sizes[0], "{sizes:?}");
}
