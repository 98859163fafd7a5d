//! A film with subtitles burnt in, and ffmpeg's of the same: compared picture by picture in a box.

use std::fs;
use std::path::{Path, PathBuf};

use ffmpeg_args::*;
use session::Ending;

use super::case::Case;
use super::{Run, clip, encode_of, gpu, output, reference};

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
    /// The files that it draws from, if they aren't in the film.
    drawn: Vec<PathBuf>,
}

impl Compared {
    pub fn new(film: &Path, subtitles: Subtitles, graph: &str) -> Self {
        let case = Case::new();
        let drawn = match &subtitles {
            Subtitles::Text(text) => {
                let fonts = text.fonts.iter().map(|folder| folder.join("font.ttf"));
                fonts.chain([text.path.clone()]).collect()
            }
            Subtitles::Pictures(_) => Vec::new(),
        };
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
        Self { case, plan, graph: graph.to_owned(), film: film.to_owned(), drawn }
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

    /// What ffmpeg writes with this graph.
    pub fn reference(&self, graph: &str) -> PathBuf {
        let start = self.plan.inputs[0].start_us.map(|start| (start as f64 / 1e6).to_string());
        let mut words = vec!["-v", "error", "-nostdin"];
        words.extend(start.iter().flat_map(|start| ["-ss", start]));
        words.extend(["-i", self.film.to_str().unwrap()]);
        words.extend(["-filter_complex", graph, "-an", "-sn", "-copyts"]);
        words.extend(self.plan.start_at_zero.then_some("-start_at_zero"));
        words.extend("-c:v libx264 -preset ultrafast -crf 12".split(' '));
        // Jellyfin's muxer, which sets the frame rate's rule; all in one segment.
        words.extend("-avoid_negative_ts disabled -f hls -hls_time 1000 -y".split(' '));
        let run = |folder: &Path| {
            let playlist = folder.join("ffmpeg.m3u8");
            output::capture("ffmpeg", &[&words[..], &[playlist.to_str().unwrap()]].concat());
        };
        let folder = if self.film.starts_with(stand::kept()) {
            let command: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            let files = [std::slice::from_ref(&self.film), &self.drawn].concat();
            let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
            reference::folder(&command, &files, run)
        } else {
            // What a worker has written is another each time.
            run(self.case.dir.path());
            self.case.dir.path().to_owned()
        };
        folder.join("ffmpeg0.ts")
    }

    /// Runs the worker, and compares its pictures in boxes (width, height, left, top) with ffmpeg's; beside
    /// each box the numbers of some pictures in which subtitles stand there.
    #[track_caller]
    pub fn holds(self, boxes: &[([u32; 4], &[usize])]) {
        let report = Run::start(&self.plan).finish();
        assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
        assert!(report.description.contains("rgsubtitles"), "{}", report.description);
        if let Some(gpu) = gpu::under_test().filter(|gpu| gpu.encodes()) {
            let expected = if gpu.decodes() { "vaapi" } else { "mixed" };
            assert_eq!(report.backend, expected, "{:?}", report.reason);
        }
        let ours = output::Output::read(&self.case.out(), &self.plan).whole;
        let theirs = [self.reference(&self.graph), self.reference("[0:v:0]null")];
        let areas: Vec<[u32; 4]> = boxes.iter().map(|(area, _)| *area).collect();
        let [with, without] = &similar(&ours, &theirs, &areas)[..] else { unreachable!() };
        for (number, (area, shown)) in boxes.iter().enumerate() {
            let (with, without) = (&with[number], &without[number]);
            assert_eq!(with.len(), without.len());
            let worst = with.iter().copied().fold(1.0, f64::min);
            let mean = with.iter().sum::<f64>() / with.len() as f64;
            println!("{area:?}: {} pictures, worst {worst:.4}, mean {mean:.4}", with.len());
            let late: Vec<_> =
                with.iter().enumerate().filter(|(_, value)| **value < SIMILAR).collect();
            assert!(
                late.is_empty(),
                "{area:?}: {} like {:?}",
                late.len(),
                &late[..late.len().min(5)]
            );
            for number in *shown {
                let plain = without[*number];
                assert!(plain < DIFFERENT, "{area:?}: {number} shows nothing: {plain}");
            }
        }
    }
}

/// Structural similarity of each picture to those of other films, in boxes: by film, box and picture.
pub fn similar(ours: &Path, theirs: &[PathBuf], areas: &[[u32; 4]]) -> Vec<Vec<Vec<f64>>> {
    use std::fmt::Write as _;
    let stats = |film: usize, area: usize| ours.with_extension(format!("{film}-{area}.ssim"));
    // One run for all of them: most of what is compared costs is decoding.
    let split = |input: usize, name: &str, count: usize| {
        let outputs: String = (0..count).map(|number| format!("[{name}{number}]")).collect();
        format!("[{input}:v:0]settb=1/1000,setpts=N*40,split={count}{outputs};")
    };
    let mut graph = split(0, "ours", theirs.len() * areas.len());
    for film in 0..theirs.len() {
        graph += &split(film + 1, &format!("film{film}-"), areas.len());
        for (area, [width, height, left, top]) in areas.iter().enumerate() {
            let crop = format!("crop={width}:{height}:{left}:{top}");
            let (number, file) = (film * areas.len() + area, stats(film, area));
            let _ = write!(
                graph,
                "[ours{number}]{crop}[a{number}];[film{film}-{area}]{crop}[b{number}];\
                 [a{number}][b{number}]ssim=stats_file={}:shortest=1;",
                file.display()
            );
        }
    }
    let mut arguments = vec!["-v", "fatal", "-nostdin"];
    for film in [ours].into_iter().chain(theirs.iter().map(PathBuf::as_path)) {
        arguments.extend(["-fflags", "+igndts", "-i", film.to_str().unwrap()]);
    }
    arguments.extend(["-lavfi", graph.trim_end_matches(';'), "-an", "-f", "null", "-"]);
    output::capture("ffmpeg", &arguments);
    let own = count(ours);
    let value = |line: &str| line.split("All:").nth(1)?.split(' ').next()?.parse().ok();
    let read = |film: usize, area: usize| -> Vec<f64> {
        let text = fs::read_to_string(stats(film, area)).unwrap();
        let values: Vec<f64> = text.lines().filter_map(value).collect();
        let counts = [own, count(&theirs[film])];
        assert_eq!(counts, [values.len(); 2], "one has more pictures than the other");
        values
    };
    (0..theirs.len()).map(|film| (0..areas.len()).map(|area| read(film, area)).collect()).collect()
}

/// When a film's pictures begin, s.
pub fn first_pts(path: &Path) -> f64 {
    let arguments = ["-v", "fatal", "-select_streams", "v", "-show_entries", "packet=pts_time"];
    let rest = ["-of", "csv=p=0", path.to_str().unwrap()];
    let text = reference::said("ffprobe", &[&arguments[..], &rest].concat(), path);
    let text = String::from_utf8(text).unwrap();
    let times = text.lines().filter_map(|line| line.trim_end_matches(',').parse().ok());
    times.fold(f64::MAX, f64::min)
}

pub fn count(path: &Path) -> usize {
    let arguments = ["-v", "fatal", "-count_packets", "-select_streams", "v", "-show_entries"];
    let rest = ["stream=nb_read_packets", "-of", "csv=p=0", path.to_str().unwrap()];
    let text = reference::said("ffprobe", &[&arguments[..], &rest].concat(), path);
    let text = String::from_utf8(text).unwrap();
    text.lines().find_map(|line| line.trim_end_matches(',').parse().ok()).unwrap()
}
