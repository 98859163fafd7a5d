//! Inputs that aren't one whole file: what comes late, breaks, leaps or is torn; several files in a
//! row; inputs read no faster than they play; which streams are taken if nobody says.

mod support;

use std::fs;
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use ffmpeg_args::{AudioAction, Delivery, Location, Network, Transcode, VideoAction};
use session::{Control, Ending, Fault, WorkerToGateway};
use support::case::{Case, ended, failed};
use support::output::{self, Output};
use support::sources::source;
use support::{Report, Run, clip, pause};

fn network(plan: &mut Transcode, delivery: Delivery) {
    let url = "http://127.0.0.1:8096/stream".to_owned();
    plan.inputs[0].location = Location::Network(Network { url, options: Vec::new(), delivery });
}

fn copy(plan: &mut Transcode) {
    plan.video.as_mut().unwrap().action = VideoAction::Copy;
    plan.audio.as_mut().unwrap().action = AudioAction::Copy;
}

/// A plan whose one input comes through a pipe.
fn piped(case: &Case) -> Transcode {
    let mut plan = case.plan(Path::new("nowhere"));
    network(&mut plan, Delivery::Bytes);
    plan
}

fn start(plan: &Transcode) -> (Run, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Run::fed(plan, vec![reader.into()]), writer)
}

/// Runs with all of these bytes at once.
fn run(plan: &Transcode, bytes: Vec<u8>) -> Report {
    let (run, mut writer) = start(plan);
    let feeder = thread::spawn(move || {
        // A worker that has had enough goes away.
        let _ = writer.write_all(&bytes);
    });
    let report = run.finish();
    feeder.join().unwrap();
    report
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(source(name)).unwrap()
}

/// Listens until the worker says that it waits.
fn until_waiting(run: &mut Run) {
    loop {
        let received = run.channel.receive::<WorkerToGateway>().unwrap().expect("a message");
        match received.message {
            WorkerToGateway::Alive { waiting: true, .. } => return,
            WorkerToGateway::Ended(ending) => panic!("{ending:?}"),
            _ => {}
        }
    }
}

// --- Waiting -------------------------------------------------------------------------------------

#[test]
fn waiting_is_said_from_the_start_and_ends_with_the_wish_to() {
    let ts = bytes("pal.ts");
    // Before the first byte, within the first tables, after the first segments.
    for (length, begun) in [(0, false), (20_000, false), (ts.len() * 3 / 4, true)] {
        let case = Case::new();
        let plan = piped(&case);
        let (mut run, mut writer) = start(&plan);
        writer.write_all(&ts[..length]).unwrap();
        until_waiting(&mut run);
        until_waiting(&mut run);
        run.control(Control::Quit);
        let report = run.finish();
        assert_eq!(report.ending, Some(Ending::Quit), "after {length} bytes");
        if begun {
            case.whole();
            assert!(case.playlist().ends_with("#EXT-X-ENDLIST\n"));
        } else {
            case.nothing_written();
        }
    }
}

#[test]
fn what_stalls_goes_on_and_loses_nothing() {
    let case = Case::new();
    let plan = piped(&case);
    let (mut run, mut writer) = start(&plan);
    let ts = bytes("pal.ts");
    let mut at = 0;
    for part in [1, 70_000, 400_001, 700_000, ts.len()] {
        writer.write_all(&ts[at..part]).unwrap();
        at = part;
        if part < ts.len() {
            until_waiting(&mut run);
        }
    }
    drop(writer);
    let report = run.finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    assert_eq!(case.whole(), 13 * 25);
}

#[test]
fn an_input_without_bytes_or_sense_is_left_to_ffmpeg() {
    for (bytes, words) in [
        (Vec::new(), "is empty"),
        (b"no film, just words\n".repeat(20_000), "text/plain"),
        (vec![0; 1 << 20], "no known container"),
    ] {
        let case = Case::new();
        match run(&piped(&case), bytes).ending {
            Some(Ending::Failed { reason, .. }) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
        case.nothing_written();
    }
}

#[test]
fn streams_that_are_not_found_have_a_bound() {
    // Tables and stuffing for ever.
    let head = bytes("pal.ts")[..188 * 3].to_vec();
    let mut stuffing = [0xff; 188];
    stuffing[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    let case = Case::new();
    let (run, mut writer) = start(&piped(&case));
    let feeder = thread::spawn(move || {
        let block = stuffing.repeat(10_000);
        let _ = writer.write_all(&head);
        while writer.write_all(&block).is_ok() {}
    });
    failed(&run.finish(), Fault::Unsupported, "aren't found within 64 MiB");
    feeder.join().unwrap();
    case.nothing_written();
}

#[test]
fn a_network_input_is_not_begun_in_its_middle() {
    let case = Case::new();
    let mut plan = piped(&case);
    plan.inputs[0].start_us = Some(3_000_000);
    failed(&run(&plan, bytes("pal.ts")), Fault::Unsupported, "in its middle");
}

/// Other containers come through a pipe as well, if they are made for it.
#[test]
fn containers_that_can_be_read_forwards() {
    let fragmented = clip(
        "fragmented.mp4",
        &format!("-i {} -c copy -movflags frag_keyframe+empty_moov", source("pal.mkv").display()),
    );
    for path in [source("pal.mkv"), fragmented] {
        let case = Case::new();
        let report = run(&piped(&case), fs::read(&path).unwrap());
        assert_eq!(report.ending, Some(Ending::Complete), "{}: {:?}", path.display(), report.lines);
        assert_eq!(case.whole(), 13 * 25, "{}", path.display());
    }
}

// --- What networks do to a stream ----------------------------------------------------------------

/// Ends well, whatever came; gives the number of pictures that can be decoded.
#[track_caller]
fn survives(what: &str, bytes: &[u8]) -> [usize; 2] {
    [true, false].map(|copies| {
        let case = Case::new();
        let mut plan = piped(&case);
        if copies {
            copy(&mut plan);
        }
        let report = run(&plan, bytes.to_vec());
        assert_eq!(report.ending, Some(Ending::Complete), "{what}: {:?}", report.lines);
        assert!(case.playlist().ends_with("#EXT-X-ENDLIST\n"), "{what}");
        assert!(!case.names().iter().any(|name| name.ends_with(".tmp")), "{what}");
        Output::read(&case.out(), &plan).count(true)
    })
}

#[test]
fn packets_are_lost() {
    let mut ts = bytes("pal.ts");
    let mut seed = 7_u32;
    let kept = ts.chunks(188).filter(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 24 > 2
    });
    ts = kept.flatten().copied().collect();
    let [copied, encoded] = survives("one packet of a hundred", &ts);
    assert!(copied > 250 && encoded > 200, "{copied} {encoded}");
}

#[test]
fn bytes_are_lost_and_broken() {
    let mut ts = bytes("pal.ts");
    ts.drain(400_000..400_777);
    ts[600_000..600_400].fill(0x55);
    let [copied, encoded] = survives("a hole", &ts);
    assert!(copied > 300 && encoded > 250, "{copied} {encoded}");
}

#[test]
fn time_leaps() {
    let (early, late) = (bytes("pal.ts"), bytes("late.ts"));
    // Forwards by some seconds and backwards.
    for (first, second) in [(&early, &late), (&late, &early), (&early, &early)] {
        let [copied, encoded] = survives("a leap", &[&first[..], &second[..]].concat());
        assert!(copied > 600, "{copied}");
        assert!(encoded > 300, "{encoded}");
    }
}

#[test]
fn the_program_map_changes() {
    // AAC becomes AC-3, and another PID carries the second sound.
    let torn = [bytes("film.ts"), bytes("surround.ts")].concat();
    let [copied, encoded] = survives("another sound", &torn);
    assert!(copied > 600 && encoded > 600, "{copied} {encoded}");
}

// --- Unpacked by ffmpeg --------------------------------------------------------------------------

/// What ffmpeg passes on of a playlist's segments is what it would have transcoded itself.
#[test]
fn remuxed_by_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let playlist = folder.path().join("in.m3u8");
    let pal = source("pal.ts");
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i", pal.to_str().unwrap(), "-c", "copy", "-f", "hls"])
        .args(["-hls_list_size", "0", playlist.to_str().unwrap()])
        .status()
        .unwrap();
    assert!(status.success());
    let case = Case::new();
    let mut plan = case.plan(&playlist);
    network(&mut plan, Delivery::Remuxed);
    copy(&mut plan);
    let words = "-c copy -copyts -avoid_negative_ts disabled -muxdelay 0 -muxpreload 0 -f mpegts";
    let mut reader = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i", playlist.to_str().unwrap(), "-sn", "-dn"])
        .args(words.split(' '))
        .arg("pipe:1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = reader.stdout.take().unwrap();
    let report = Run::fed(&plan, vec![pipe.into()]).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    assert!(reader.wait().unwrap().success());
    let theirs = ffmpeg(&["-i".into(), playlist.into()], &folder, "-c copy");
    same(&Output::read(&case.out(), &plan), &Output::read(&theirs, &plan), 1);
}

#[test]
fn numbers_of_streams_mean_nothing_once_they_are_unpacked() {
    let case = Case::new();
    let mut plan = piped(&case);
    network(&mut plan, Delivery::Remuxed);
    plan.audio.as_mut().unwrap().source.stream = ffmpeg_args::StreamSelect::Index(1);
    failed(&run(&plan, bytes("pal.ts")), Fault::Unsupported, "other numbers");
}

/// ffmpeg's segments of an input, in a folder of their own.
fn ffmpeg(input: &[std::ffi::OsString], folder: &tempfile::TempDir, codecs: &str) -> PathBuf {
    let out = folder.path().join("theirs");
    fs::create_dir_all(&out).unwrap();
    let line = format!(
        "{codecs} -sn -copyts -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls \
         -max_delay 5000000 -hls_time 3 -hls_segment_type mpegts -start_number 0 \
         -hls_segment_filename {0}/abc%d.ts -hls_playlist_type vod -hls_list_size 0 -y {0}/abc.m3u8",
        out.display()
    );
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error"])
        .args(input)
        .args(line.split_whitespace())
        .status()
        .unwrap();
    assert!(status.success(), "{line}");
    out
}

/// Equal segments: names, packets, presentation times to so many ticks.
#[track_caller]
fn same(ours: &Output, theirs: &Output, ticks: u64) {
    let tick = |seconds: f64| (seconds * 90_000.0).round() as i64;
    assert_eq!(ours.segments.len(), theirs.segments.len());
    for (a, b) in ours.segments.iter().zip(&theirs.segments) {
        assert_eq!(a.name, b.name);
        for video in [true, false] {
            let times = |segment: &output::Segment| -> Vec<i64> {
                segment.of(video).map(|packet| tick(packet.pts)).collect()
            };
            let (x, y) = (times(a), times(b));
            assert_eq!(x.len(), y.len(), "{} {video}", a.name);
            let off = x.iter().zip(&y).find(|(x, y)| x.abs_diff(**y) > ticks);
            assert_eq!(off, None, "{} {video}", a.name);
        }
    }
}

// --- Several files -------------------------------------------------------------------------------

#[test]
fn files_in_a_row_are_read_as_one() {
    // One stream cut in three, not between packets.
    let whole = bytes("film.ts");
    let case = Case::new();
    let cuts = [0, 300_001, 700_002, whole.len()];
    let parts: Vec<PathBuf> = cuts
        .windows(2)
        .enumerate()
        .map(|(number, cut)| case.file(&format!("part{number}.ts"), &whole[cut[0]..cut[1]]))
        .collect();
    let names: Vec<_> = parts.iter().map(|part| part.display().to_string()).collect();
    for seek in [None, Some(6_000_000)] {
        let case = Case::new();
        let mut plan = case.plan(&parts[0]);
        copy(&mut plan);
        plan.inputs[0].location = Location::Files(parts.clone());
        plan.inputs[0].start_us = seek;
        let report = Run::start(&plan).finish();
        ended(&case, &report, &Ending::Complete);
        let ours = Output::read(&case.out(), &plan);
        match seek {
            None => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("concat:{}", names.join("|"));
                let theirs = ffmpeg(&["-i".into(), url.into()], &folder, "-c copy");
                same(&ours, &Output::read(&theirs, &plan), 1);
            }
            // ffmpeg lands elsewhere in MPEG-TS: the whole file is the measure.
            Some(start) => {
                let whole = Case::new();
                let mut plan = whole.plan(&source("film.ts"));
                copy(&mut plan);
                plan.inputs[0].start_us = Some(start);
                ended(&whole, &Run::start(&plan).finish(), &Ending::Complete);
                same(&ours, &Output::read(&whole.out(), &plan), 0);
            }
        }
    }
}

// --- Read rate -----------------------------------------------------------------------------------

/// No clock but the worker's own: a film of 13 s at six times its speed takes two seconds, of which a
/// pause is no part.
#[test]
fn an_input_is_read_no_faster_than_asked() {
    let case = Case::new();
    let mut plan = case.plan(&source("pal.mkv"));
    copy(&mut plan);
    plan.inputs[0].read_rate = Some(6.0);
    let mut run = Run::start(&plan);
    until_waiting(&mut run);
    run.control(Control::Pause);
    pause(1000);
    run.control(Control::Resume);
    let report = run.finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    let least = Duration::from_secs_f64((13.0 - 0.5 - 0.1) / 6.0);
    // The last packets have been written when as much time has passed as they take.
    assert!(Duration::from_micros(report.progress.elapsed_us) >= least, "{:?}", report.progress);
    assert!(report.elapsed >= least + Duration::from_secs(1), "{:?}", report.elapsed);
    assert_eq!(case.whole(), 13 * 25);
}

#[test]
fn whoever_waits_for_its_time_ends_at_once() {
    let case = Case::new();
    let mut plan = case.plan(&source("pal.mkv"));
    plan.inputs[0].read_rate = Some(0.001);
    let mut run = Run::start(&plan);
    until_waiting(&mut run);
    run.control(Control::Quit);
    let report = run.finish();
    assert_eq!(report.ending, Some(Ending::Quit), "{:?}", report.lines);
}

// --- Which stream --------------------------------------------------------------------------------

/// Two pictures and three sounds; the larger ones come second.
fn choices(name: &str, marks: &str) -> PathBuf {
    clip(
        name,
        &format!(
            "-f lavfi -i testsrc2=s=160x90:r=25:d=4 -f lavfi -i testsrc2=s=320x180:r=25:d=4 \
             -f lavfi -i sine=f=300:d=4 -f lavfi -i sine=f=500:d=4 \
             -map 0 -map 1 -map 2 -map 3 -map 2 -c:v libx264 -preset ultrafast -pix_fmt yuv420p \
             -c:a ac3 -ac:a:0 1 -ac:a:1 6 -ac:a:2 2 {marks}"
        ),
    )
}

#[test]
fn the_best_stream_is_ffmpegs() {
    let films = [
        choices("choices.ts", ""),
        choices("choices.mkv", "-disposition:v 0 -disposition:a 0"),
        choices(
            "choices-default.mkv",
            "-disposition:v:0 default -disposition:a 0 -disposition:a:2 default",
        ),
        choices("choices.mp4", "-disposition:v 0 -disposition:a 0"),
    ];
    for film in films {
        let case = Case::new();
        let mut plan = case.plan(&film);
        copy(&mut plan);
        let report = Run::start(&plan).finish();
        assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
        let ours = Output::read(&case.out(), &plan);
        let folder = tempfile::tempdir().unwrap();
        let theirs = ffmpeg(&["-i".into(), film.clone().into()], &folder, "-c copy");
        let theirs = Output::read(&theirs, &plan);
        let look = |output: &Output| {
            let entries = "stream=codec_type,width,height,channels";
            let whole = output.whole.to_str().unwrap();
            let words = ["-v", "fatal", "-show_entries", entries, "-of", "csv=p=0", whole];
            String::from_utf8(output::capture("ffprobe", &words)).unwrap()
        };
        assert_eq!(look(&ours), look(&theirs), "{}", film.display());
    }
}
