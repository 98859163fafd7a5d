//! A film with subtitles burnt in, and ffmpeg's of the same: compared picture by picture in a box.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ffmpeg_args::*;
use session::Ending;

use super::case::Case;
use super::{Run, clip, encode_of, gpu, output};

pub const WIDTH: u32 = 640;
pub const HEIGHT: u32 = 360;
/// Least similarity of a picture to ffmpeg's, in the subtitles' box.
pub const SIMILAR: f64 = 0.95;
/// What a picture without the subtitles has at most in the same box.
pub const DIFFERENT: f64 = 0.9;

/// 12 seconds of a film in which something moves.
pub fn film() -> PathBuf {
    film_with("subtitles-film.mkv", "25", "", "")
}

pub fn film_with(name: &str, rate: &str, inputs: &str, rest: &str) -> PathBuf {
    clip(
        name,
        &format!(
            "-f lavfi -i testsrc2=s={WIDTH}x{HEIGHT}:r={rate}:d=12 {inputs} -c:v libx264 -preset superfast \
             -crf 12 -g 50 -pix_fmt yuv420p {rest}"
        ),
    )
}

/// A file that is there whole, whichever test asks first.
pub fn written(name: &str, text: &[u8]) -> PathBuf {
    let directory = stand::kept().join("clips");
    fs::create_dir_all(&directory).unwrap();
    let making = tempfile::NamedTempFile::new_in(&directory).unwrap();
    fs::write(&making, text).unwrap();
    making.persist(directory.join(name)).unwrap();
    directory.join(name)
}

/// A run of ours and what ffmpeg makes of the same.
pub struct Compared {
    pub case: Case,
    pub plan: Transcode,
    /// ffmpeg's `-filter_complex`, from `[0:v:0]` to an output without a name.
    pub graph: String,
    /// What ffmpeg draws upon.
    pub film: PathBuf,
}

impl Compared {
    pub fn new(film: &Path, subtitles: Subtitles, graph: &str) -> Self {
        let case = Case::new();
        let mut plan = case.plan(film);
        plan.audio = None;
        let encode = encode_of(&mut plan);
        encode.rate = RateControl { crf: Some(12.0), ..RateControl::default() };
        if gpu::under_test().is_some() {
            encode.rate.max_bitrate = Some(12_000_000);
        }
        encode.scale = None;
        encode.colour = None;
        encode.subtitles = Some(subtitles);
        Self { case, plan, graph: graph.to_owned(), film: film.to_owned() }
    }

    /// Compared with what ffmpeg makes of another film.
    pub fn like_in(mut self, film: PathBuf) -> Self {
        self.film = film;
        self
    }

    /// From a time on, s.
    pub fn from(mut self, seconds: f64) -> Self {
        self.plan.inputs.iter_mut().for_each(|input| {
            input.start_us = Some((seconds * 1e6) as u64);
        });
        self
    }

    pub fn changed(mut self, change: impl FnOnce(&mut Transcode)) -> Self {
        change(&mut self.plan);
        self
    }

    /// With another input, of subtitles.
    pub fn beside(mut self, other: &Path) -> Self {
        let input =
            Input { location: Location::File(other.to_owned()), ..self.plan.inputs[0].clone() };
        self.plan.inputs.push(input);
        self
    }

    /// Runs ffmpeg with this graph.
    pub fn reference(&self, name: &str, graph: &str) -> PathBuf {
        let path = self.case.dir.path().join(name);
        let start = self.plan.inputs[0].start_us.map(|start| (start as f64 / 1e6).to_string());
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin"]);
        command.args(start.iter().flat_map(|start| ["-ss", start]));
        command.arg("-i").arg(&self.film);
        command.args(["-filter_complex", graph, "-an", "-sn", "-copyts"]);
        command.args(self.plan.start_at_zero.then_some("-start_at_zero"));
        command
            .args("-c:v libx264 -preset ultrafast -crf 12 -avoid_negative_ts disabled".split(' '));
        // Jellyfin's muxer, which sets the frame rate's rule; all in one segment.
        command.args("-f hls -hls_time 1000 -y".split(' '));
        let result = command.arg(path.with_extension("m3u8")).output().unwrap();
        let said = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success(), "ffmpeg {graph}: {said}");
        path.with_file_name(format!("{name}0.ts"))
    }

    /// Compares the pictures in a box (width, height, left, top); `shown` are the numbers of some
    /// in which subtitles stand there.
    #[track_caller]
    pub fn holds(self, area: [u32; 4], shown: &[usize]) {
        let report = Run::start(&self.plan).finish();
        assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
        assert!(report.description.contains("rgsubtitles"), "{}", report.description);
        if let Some(gpu) = gpu::under_test().filter(|gpu| gpu.encodes()) {
            let expected = if gpu.decodes() { "vaapi" } else { "mixed" };
            assert_eq!(report.backend, expected, "{:?}", report.reason);
        }
        let ours = output::Output::read(&self.case.out(), &self.plan).whole;

        let with = similar(&ours, &self.reference("with", &self.graph), area);
        let plain = self.reference("plain", "[0:v:0]null");
        let without = similar(&ours, &plain, area);
        assert_eq!(with.len(), without.len());
        let worst = with.iter().copied().fold(1.0, f64::min);
        let mean = with.iter().sum::<f64>() / with.len() as f64;
        println!("{} pictures, worst {worst:.4}, mean {mean:.4}", with.len());
        let late: Vec<_> = with.iter().enumerate().filter(|(_, value)| **value < SIMILAR).collect();
        assert!(late.is_empty(), "{} like {:?}", late.len(), &late[..late.len().min(5)]);
        for number in shown {
            assert!(without[*number] < DIFFERENT, "{number} shows nothing: {}", without[*number]);
        }
    }
}

/// Structural similarity of each picture to another film's, in a box.
pub fn similar(ours: &Path, theirs: &Path, [width, height, left, top]: [u32; 4]) -> Vec<f64> {
    let stats = ours.with_extension("ssim");
    let crop = format!("crop={width}:{height}:{left}:{top},settb=1/1000,setpts=N*40");
    let graph = format!(
        "[0:v:0]{crop}[a];[1:v:0]{crop}[b];[a][b]ssim=stats_file={}:shortest=1",
        stats.display()
    );
    let files = [ours, theirs].map(|path| path.to_str().unwrap());
    let inputs = ["-v", "fatal", "-nostdin", "-fflags", "+igndts", "-i", files[0], "-i", files[1]];
    let output = ["-lavfi", &graph, "-an", "-f", "null", "-"];
    output::capture("ffmpeg", &[&inputs[..], &output].concat());
    let text = fs::read_to_string(stats).unwrap();
    let value = |line: &str| line.split("All:").nth(1)?.split(' ').next()?.parse().ok();
    let values: Vec<f64> = text.lines().filter_map(value).collect();
    let counts = [ours, theirs].map(count);
    assert_eq!(counts, [values.len(); 2], "one has more pictures than the other");
    values
}

/// When a film's pictures begin, s.
pub fn first_pts(path: &Path) -> f64 {
    let arguments = ["-v", "fatal", "-select_streams", "v", "-show_entries", "packet=pts_time"];
    let rest = ["-of", "csv=p=0", path.to_str().unwrap()];
    let text = output::capture("ffprobe", &[&arguments[..], &rest].concat());
    let text = String::from_utf8(text).unwrap();
    let times = text.lines().filter_map(|line| line.trim_end_matches(',').parse().ok());
    times.fold(f64::MAX, f64::min)
}

pub fn count(path: &Path) -> usize {
    let arguments = ["-v", "fatal", "-count_packets", "-select_streams", "v", "-show_entries"];
    let rest = ["stream=nb_read_packets", "-of", "csv=p=0", path.to_str().unwrap()];
    let text = output::capture("ffprobe", &[&arguments[..], &rest].concat());
    let text = String::from_utf8(text).unwrap();
    text.lines().find_map(|line| line.trim_end_matches(',').parse().ok()).unwrap()
}
