//! One growing file through the whole stack, read as Jellyfin does while it is written.

use std::fs;
use std::process::Command;

use benches::stack::signal;
use jellyfin_sim::{Download, Job, Received, follow};
use rustix::process::Signal;

use super::{Clip, House, LONG, PATIENCE, RECORDED, SHORT, film, wait_for};

impl House {
    /// A file of this kind, by a name such as Jellyfin's.
    fn download(&self, clip: Clip, extension: &str) -> Download {
        let directory = self.path("files");
        fs::create_dir_all(&directory).unwrap();
        let output = directory.join(format!("0123456789abcdef0123456789abcdef.{extension}"));
        Download { input: film(clip), output, start: None, source_times: false, copy: false }
    }

    /// Starts a download and follows it; `at` is called whenever there is more.
    fn follow(&self, download: &Download, at: impl FnMut(&mut Job, usize)) -> (Job, Received) {
        let mut job = self.start(&download.arguments());
        let received = follow(&mut job, &download.output, PATIENCE, at);
        let received = received.unwrap_or_else(|fault| panic!("{fault:?} {:?}", job.log()));
        assert!(job.log().head.iter().any(|line| line.contains("rendergate: stream ")));
        // Nothing beside it: no temporary file, no placeholder.
        let names: Vec<_> = fs::read_dir(download.output.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(names, std::slice::from_ref(&download.output));
        fs::remove_file(&download.output).unwrap();
        assert!(!received.rewritten, "a client has read what doesn't stand there any more");
        (job, received)
    }

    /// Pictures in what a client got, if ffmpeg decodes all of it without a word.
    #[track_caller]
    fn pictures(&self, bytes: &[u8]) -> usize {
        let path = self.path("received");
        fs::write(&path, bytes).unwrap();
        let probe = Command::new("ffprobe")
            .args(["-v", "error", "-count_frames", "-select_streams", "v"])
            .args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
            .arg(&path)
            .output()
            .expect("ffprobe is needed: apt install ffmpeg");
        assert_eq!(String::from_utf8_lossy(&probe.stderr), "");
        let text = String::from_utf8_lossy(&probe.stdout);
        text.lines().find_map(|line| line.trim_end_matches(',').parse().ok()).unwrap_or(0)
    }
}

#[test]
fn a_client_gets_a_file_while_it_is_written() {
    let house = House::new();
    for name in ["mp4", "ts", "mkv"] {
        let mut times = 0;
        let (_, received) = house.follow(&house.download(SHORT, name), |_, _| times += 1);
        assert_eq!(received.exit.code, 0);
        assert!(times > 1, "all of {name} came at once");
        // MP4 shows its first picture from zero on, where it is a frame late.
        assert!((500..=501).contains(&house.pictures(&received.bytes)), "{name}");
    }
    wait_for("the streams' end", PATIENCE, || house.stack.streams().unwrap().is_empty());
}

#[test]
fn q_ends_a_growing_file_properly() {
    let house = House::new();
    for name in ["mp4", "mkv"] {
        let stop = |job: &mut Job, _| {
            job.stop();
        };
        let (_, received) = house.follow(&house.download(LONG, name), stop);
        assert!(received.exit.code == 0 && !received.exit.killed, "{:?}", received.exit);
        let pictures = house.pictures(&received.bytes);
        assert!((1..90 * 25).contains(&pictures), "{name}: {pictures}");
    }
}

/// What was written before a death stays, and the client gets it.
#[test]
fn a_growing_file_whose_writer_or_gateway_dies() {
    let mut house = House::new();
    for whole_gateway in [false, true] {
        let victim = || if whole_gateway { house.stack.pid() } else { house.worker() };
        let mut killed = false;
        let kill = |_: &mut Job, _| {
            if !std::mem::replace(&mut killed, true) {
                signal(victim(), Signal::KILL);
            }
        };
        let (_, received) = house.follow(&house.download(LONG, "ts"), kill);
        assert!(received.exit.code != 0 && received.exit.code != RECORDED, "{:?}", received.exit);
        assert!(received.bytes.len() > 188);
        if whole_gateway {
            house.stack.restart().unwrap();
        }
    }
}

/// What no gateway can be asked for is ffmpeg's, as long as the file isn't there.
#[test]
fn a_growing_file_falls_back_before_it_begins() {
    let house = House::new();
    let download = house.download(SHORT, "mp4");
    let film = fs::read(&download.input).unwrap();
    let input = house.path("header.mkv");
    fs::write(&input, &film[..200]).unwrap();
    let download = Download { input, ..download };
    let mut job = house.start(&download.arguments());
    house.fell_back(&mut job, &download.arguments(), "failed before output");
    assert!(!download.output.exists());
}
