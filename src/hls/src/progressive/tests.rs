//! What holds of every container. What is in them is compared with ffmpeg's in `tests/ffmpeg`.

use std::fs;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::TrackFormat;

const MP3: [u8; 4] = [0xff, 0xfb, 0x90, 0x64];

fn mp3() -> Vec<Track> {
    vec![Track { format: TrackFormat::Mp3 { sample_rate: 48_000, channels: 2 } }]
}

fn output(name: &str, format: FileFormat) -> ProgressiveOutput {
    ProgressiveOutput { directory: "out".into(), name: name.into(), format }
}

fn frame(number: i64) -> Sample {
    let time = number * 24_000_000;
    let mut data = MP3.to_vec();
    data.resize(384, 0);
    Sample {
        track: 0,
        pts: time,
        dts: time,
        duration: 24_000_000,
        keyframe: true,
        data: data.into(),
    }
}

fn writer(dir: &tempfile::TempDir, output: &ProgressiveOutput) -> Progressive {
    let directory = fs::File::open(dir.path()).unwrap().into();
    Progressive::new(directory, output, Timing::default(), &mp3(), |_| {}).unwrap()
}

#[test]
fn commits_before_the_file_is_there_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("id.mp3");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (notes, looked) = (Arc::clone(&seen), path.clone());
    let directory = fs::File::open(dir.path()).unwrap().into();
    let observer = move |event| notes.lock().unwrap().push((event, looked.exists()));
    let output = output("id.mp3", FileFormat::Mp3);
    let mut file =
        Progressive::new(directory, &output, Timing::default(), &mp3(), observer).unwrap();
    assert!(!path.exists());
    for number in 0..10 {
        file.push(frame(number)).unwrap();
        assert_eq!(file.counters().bytes, fs::metadata(&path).unwrap().len());
    }
    let counters = file.finish().unwrap();
    assert_eq!((counters.frames, counters.position_ns), (10, Some(240_000_000)));
    assert_eq!(*seen.lock().unwrap(), [(Event::Committing, false)]);
}

#[test]
fn without_a_sample_no_file_appears() {
    for format in [FileFormat::Mp3, FileFormat::Matroska, FileFormat::FragmentedMp4] {
        let dir = tempfile::tempdir().unwrap();
        writer(&dir, &output("id", format)).finish().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{format:?}");
    }
}

#[test]
fn what_was_written_stays_after_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = writer(&dir, &output("id.mp3", FileFormat::Mp3));
    file.push(frame(0)).unwrap();
    let before = fs::read(dir.path().join("id.mp3")).unwrap();
    let stray = Sample { track: 7, ..frame(1) };
    assert!(matches!(file.push(stray), Err(WriteError::BadSample { track: 7, .. })));
    drop(file);
    assert_eq!(fs::read(dir.path().join("id.mp3")).unwrap(), before);
}

#[test]
fn a_directory_that_is_gone_is_the_output_s_fault() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = writer(&dir, &output("id.mp3", FileFormat::Mp3));
    fs::remove_dir(dir.path()).unwrap();
    assert!(file.push(frame(0)).unwrap_err().is_output());
    assert!(matches!(file.push(frame(1)), Err(WriteError::Closed)));
}

#[test]
fn what_has_no_place_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let video = Track { format: TrackFormat::H264 { width: 16, height: 16, frame_rate: (25, 1) } };
    let both = [vec![video.clone()], mp3()].concat();
    let refused = |format, tracks: &[Track]| {
        let directory = fs::File::open(dir.path()).unwrap().into();
        let output = output("id", format);
        let made = Progressive::new(directory, &output, Timing::default(), tracks, |_| {});
        assert!(matches!(made, Err(WriteError::Unsupported(_))), "{format:?} {tracks:?}");
    };
    refused(FileFormat::Mp3, &both);
    refused(FileFormat::WebM, &both);
    refused(FileFormat::Matroska, &[]);
    refused(FileFormat::Matroska, &[mp3(), vec![video]].concat());
    for format in [FileFormat::Adts, FileFormat::Flac, FileFormat::Ogg, FileFormat::WebM] {
        refused(format, &mp3());
    }
}

#[test]
fn parts_end_at_keyframes_and_after_a_second() {
    let picture = |seconds: f64, keyframe| Sample {
        track: 0,
        pts: 0,
        dts: (seconds * 1e9) as i64,
        duration: 0,
        keyframe,
        data: Bytes::new(),
    };
    let sound = |seconds: f64| Sample { track: 1, ..picture(seconds, true) };
    let video = TrackFormat::H264 { width: 16, height: 16, frame_rate: (25, 1) };
    let tracks = [vec![Track { format: video }], mp3()].concat();
    let mut span = Span::new(&tracks);
    let mut begins = |sample: Sample| span.begins_with(&sample);
    // Sound before the first picture stays with it: without one there is no head.
    assert!(!begins(sound(1.0)));
    assert!(!begins(sound(4.0)));
    assert!(!begins(sound(5.0)));
    assert!(!begins(picture(5.0, true)));
    assert!(begins(sound(5.1)));
    assert!(!begins(picture(6.0, false)));
    // A picture's turn.
    assert!(!begins(sound(6.15)));
    assert!(begins(picture(6.15, false)));
    assert!(begins(picture(6.2, true)));
    assert!(!begins(sound(7.3)));
    assert!(!begins(sound(8.1)));
    // No picture comes any more.
    assert!(begins(sound(8.3)));
    let mut span = Span::new(&mp3());
    let begins: Vec<bool> = (0..100).map(|number| span.begins_with(&frame(number))).collect();
    let places: Vec<usize> = (0..100).filter(|at| begins[*at]).collect();
    assert_eq!(places, [42, 84]);
}
