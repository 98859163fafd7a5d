//! One file, as Jellyfin asks for it outside of HLS, against the one that ffmpeg writes for the same
//! command (contract 2.6, 2.7).
//!
//! Each case is a line: a clip, a file name, what becomes of picture and sound, where it begins, and
//! whether times are the source's. Whatever a player could notice must agree.

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ffmpeg_args::*;
use session::{Control, Ending, Fault};
use support::output::{self, capture};
use support::reference::{self, said};
use support::sources::source;
use support::{Run, encode_of, gpu, plan as hls_plan};

/// Rounding of timestamps: two ticks of Matroska's milliseconds.
const ROUNDING: f64 = 0.0021;
/// Least similarity of a picture to ffmpeg's; of an encoder that works otherwise.
const SIMILAR: f64 = 0.98;
const SIMILAR_ON_GPU: f64 = 0.97;
/// What begins first decides where a container's clock does: with copied sound one of its frames, else
/// the delay of an encoder or of pictures out of order, which is guessed.
const CLOCK: f64 = 0.045;
/// A frame of sound, of the longest there are: FLAC's, 4608 samples of 44.1 kHz.
const SOUND_FRAME: f64 = 0.105;

/// What is asked for.
#[derive(Clone, Copy)]
struct Case {
    clip: &'static str,
    /// `mp4`, `ts`, ...
    ext: &'static str,
    copy_video: bool,
    /// ffmpeg's encoder, or `copy`.
    audio: &'static str,
    /// `-ss`, in seconds.
    start: Option<&'static str>,
    copyts: bool,
}

fn format(ext: &str) -> FileFormat {
    match ext {
        "mp4" | "m4a" => FileFormat::FragmentedMp4,
        "ts" => FileFormat::MpegTs,
        "mkv" => FileFormat::Matroska,
        "webm" => FileFormat::WebM,
        "mp3" => FileFormat::Mp3,
        "aac" => FileFormat::Adts,
        "flac" => FileFormat::Flac,
        "ogg" => FileFormat::Ogg,
        other => panic!("{other}"),
    }
}

impl Case {
    fn is_sound_alone(self) -> bool {
        !["mp4", "ts", "mkv"].contains(&self.ext)
    }

    fn plan(self, directory: &Path) -> Transcode {
        let mut plan = hls_plan(&source(self.clip), directory);
        plan.output = Output::Progressive(ProgressiveOutput {
            directory: directory.to_owned(),
            name: format!("id.{}", self.ext),
            format: format(self.ext),
        });
        plan.source_times = self.copyts;
        plan.inputs[0].start_us = self.start.map(|s| (s.parse::<f64>().unwrap() * 1e6) as u64);
        encode_of(&mut plan).keyframes = Keyframes::Every(5.0);
        let codec = match self.audio {
            "copy" => None,
            "aac" => Some(AudioCodec::Aac),
            "ac3" => Some(AudioCodec::Ac3),
            "libmp3lame" => Some(AudioCodec::Mp3),
            "libopus" => Some(AudioCodec::Opus),
            "libvorbis" => Some(AudioCodec::Vorbis),
            "flac" => Some(AudioCodec::Flac),
            other => panic!("{other}"),
        };
        match (&mut plan.audio.as_mut().unwrap().action, codec) {
            (AudioAction::Encode(encode), Some(codec)) => {
                encode.codec = codec;
                encode.bitrate = (codec != AudioCodec::Flac).then_some(128_000);
            }
            (action, _) => *action = AudioAction::Copy,
        }
        if self.is_sound_alone() {
            plan.video = None;
        } else if self.copy_video {
            plan.video.as_mut().unwrap().action = VideoAction::Copy;
        }
        plan
    }

    /// The contract's template.
    fn ffmpeg(self, output: &Path) -> Vec<String> {
        let mut line = String::from("-v error -nostdin");
        if let Some(start) = self.start {
            let _ = write!(line, " -ss {start}");
        }
        let _ = write!(line, " -i {}", source(self.clip).display());
        let rate = if self.audio == "copy" || self.audio == "flac" { "" } else { "-ab 128000" };
        let channels = if self.audio == "copy" { "" } else { "-ac 2" };
        if self.is_sound_alone() {
            let _ = write!(line, " -threads 0 -vn {rate} {channels} -acodec {}", self.audio);
            if format(self.ext) == FileFormat::FragmentedMp4 {
                line.push_str(" -movflags empty_moov+delay_moov");
            }
            line.push_str(" -strict -2 -id3v2_version 3 -write_id3v1 1");
        } else {
            line.push_str(" -map 0:v -map 0:a -map -0:s -codec:v:0 ");
            let copyts = if self.copyts { " -copyts -avoid_negative_ts disabled" } else { "" };
            if self.copy_video {
                let _ = write!(line, "copy{copyts}");
            } else {
                let _ = write!(
                    line,
                    "libx264 -force_key_frames expr:gte(t,n_forced*5) -vf {PICTURE}{copyts} \
                     -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000 -profile:v:0 high \
                     -level 41 -x264opts:0 subme=0:me_range=16:rc_lookahead=10:me=hex:open_gop=0",
                );
                // The GPU's encoders make none, and those would move ffmpeg's times.
                if on_gpu() {
                    line.push_str(" -bf 0");
                }
            }
            line.push_str(" -map_metadata -1 -map_chapters -1 -threads 0 -codec:a:0 ");
            let _ = write!(line, "{} {rate} {channels} -strict -2", self.audio);
            if self.ext == "mp4" {
                line.push_str(" -f mp4 -movflags frag_keyframe+empty_moov+delay_moov");
            }
        }
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words.extend(["-y".to_owned(), output.display().to_string()]);
        words
    }
}

const PICTURE: &str = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,\
    scale=trunc(min(max(iw\\,ih*a)\\,min(1280\\,720*a))/2)*2:\
    trunc(min(max(iw/a\\,ih)\\,min(1280/a\\,720))/2)*2,format=yuv420p";

fn on_gpu() -> bool {
    gpu::under_test().is_some_and(gpu::TestGpu::encodes)
}

/// A file as ffprobe sees it.
struct Probed {
    /// Where its clock began, on its own timeline.
    zero: f64,
    /// Presentation time and whether it is a keyframe, in the order of the former.
    video: Vec<(f64, bool)>,
    audio: Vec<(f64, bool)>,
    /// Codec, profile, size, header, ... of each stream.
    streams: Vec<String>,
    /// Seconds, if it can be told.
    duration: Option<f64>,
}

fn probe(file: &Path) -> Probed {
    let ask = |entries: &str, form: &str| {
        let path = file.to_str().unwrap();
        let arguments = ["-v", "error", "-show_entries", entries, "-of", form, path];
        String::from_utf8(said("ffprobe", &arguments, file)).unwrap()
    };
    let (mut video, mut audio) = (Vec::new(), Vec::new());
    for line in ask("packet=codec_type,pts_time,flags", "csv=p=0").lines() {
        let mut fields = line.split(',');
        let (Some(kind), Some(time), Some(flags)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let packets = if kind == "video" { &mut video } else { &mut audio };
        packets.push((time.parse().unwrap_or(f64::NAN), flags.starts_with('K')));
    }
    for packets in [&mut video, &mut audio] {
        packets.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let entries = "stream=codec_name,profile,width,height,pix_fmt,extradata_size,sample_rate,\
                   channels,channel_layout,color_space";
    let text = ask(entries, "default=nw=1").replace("codec_name=", "\ncodec_name=");
    // Whether there is a header, not how long it is: encoders sign in it.
    let fields = |stream: &str| {
        stream
            .lines()
            .map(|line| match line.split_once('=') {
                Some(("extradata_size", _)) => "header".to_owned(),
                _ => line.to_owned(),
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    // MPEG-TS names its streams once more for its program.
    let streams: Vec<String> = text.split("\n\n").map(fields).filter(|s| !s.is_empty()).collect();
    let duration = ask("format=duration", "csv=p=0").trim().parse().ok();
    Probed { zero: 0.0, video, audio, streams, duration }
}

impl Probed {
    /// Counts times from the first picture, in which sound must agree with it.
    fn count_from_first_picture(&mut self) {
        self.zero = self.video.first().map_or(0.0, |picture| picture.0);
        for packet in self.video.iter_mut().chain(&mut self.audio) {
            packet.0 -= self.zero;
        }
    }
}

struct Done {
    case: Case,
    directory: tempfile::TempDir,
    ours: PathBuf,
    theirs: PathBuf,
    on_gpu: bool,
}

fn run(case: Case) -> Done {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("theirs.{}", case.ext);
    let kept = reference::folder(&case.ffmpeg(Path::new(&name)), &[&source(case.clip)], |folder| {
        let arguments = case.ffmpeg(&folder.join(&name));
        capture("ffmpeg", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    });
    let theirs = kept.join(name);
    let out = directory.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let plan = case.plan(&out);
    let report = Run::start(&plan).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    assert!(report.committed);
    assert_eq!(report.segments, []);
    let names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    let ours = out.join(format!("id.{}", case.ext));
    assert_eq!(names, [ours.file_name().unwrap()]);
    assert_eq!(report.progress.bytes, std::fs::metadata(&ours).unwrap().len());
    let encodes = !case.copy_video && !case.is_sound_alone();
    if on_gpu() && encodes {
        assert_ne!(report.backend, "software", "a GPU is there and does nothing");
    }
    let on_gpu = report.description.split([' ', ',']).any(|word| word.starts_with("va"));
    Done { case, directory, ours, theirs, on_gpu }
}

impl Done {
    /// Everything in which the two differ, one sentence each.
    fn differences(&self) -> String {
        let mut found = String::new();
        let (mut ours, mut theirs) = (probe(&self.ours), probe(&self.theirs));
        if !self.case.copyts && !self.case.is_sound_alone() {
            ours.count_from_first_picture();
            theirs.count_from_first_picture();
            if (ours.zero - theirs.zero).abs() > CLOCK {
                let _ = writeln!(found, "begins at {}, ffmpeg at {}", ours.zero, theirs.zero);
            }
        }
        if ours.streams != theirs.streams {
            let _ = writeln!(found, "streams {:#?}, ffmpeg {:#?}", ours.streams, theirs.streams);
        }
        if !self.case.is_sound_alone() {
            self.compare_picture(&ours, &theirs, &mut found);
        }
        self.compare_sound(&ours, &theirs, &mut found);
        if self.case.is_sound_alone() {
            self.compare_amount(&mut found);
        }
        match (ours.duration, theirs.duration) {
            (Some(a), Some(b)) if (a - b).abs() < 0.15 => {}
            (a, b) => {
                let _ = writeln!(found, "lasts {a:?} s, ffmpeg {b:?}");
            }
        }
        found
    }

    fn compare_picture(&self, ours: &Probed, theirs: &Probed, found: &mut String) {
        let (a, b) = (ours.video.len(), theirs.video.len());
        if a != b {
            let _ = writeln!(found, "{a} pictures, ffmpeg {b}");
        }
        let apart = ours
            .video
            .iter()
            .zip(&theirs.video)
            .enumerate()
            .find(|(_, (a, b))| (a.0 - b.0).abs() > ROUNDING || a.1 != b.1);
        if let Some((number, (a, b))) = apart {
            let _ = writeln!(found, "picture {number} {a:?}, ffmpeg {b:?}");
        }
        if self.case.copy_video {
            return;
        }
        let (worst, average, frames) =
            output::ssim(&self.ours, &self.theirs, self.directory.path());
        let similar = if self.on_gpu { SIMILAR_ON_GPU } else { SIMILAR };
        if average < similar || worst < similar - 0.08 || frames + 1 < b {
            let _ = writeln!(found, "SSIM {average:.4}, worst {worst:.4} of {frames}");
        }
        let (a, b) = (output::looks(&self.ours), output::looks(&self.theirs));
        // Even sizes bend the shape a little, and not all say so.
        if (a.0 / b.0 - 1.0).abs() > 0.01 || a.1 != b.1 {
            let _ = writeln!(found, "shape and colours {a:?}, ffmpeg {b:?}");
        }
    }

    /// How many samples a player gets, and how many bytes they take.
    fn compare_amount(&self, found: &mut String) {
        let amount = |path: &Path| {
            let path_text = path.to_str().unwrap();
            let raw = ["-v", "error", "-i", path_text, "-f", "s16le", "-ac", "1", "pipe:1"];
            let samples = said("ffmpeg", &raw, path).len() / 2;
            (samples as f64, std::fs::metadata(path).unwrap().len() as f64)
        };
        let ((samples, bytes), (theirs, their_bytes)) = (amount(&self.ours), amount(&self.theirs));
        // What lossy encoders put behind the last sample is marked in few containers, and only
        // when all is known.
        let most = match self.case.audio {
            "flac" => 0.0,
            "libmp3lame" => 2.0 * 1152.0,
            _ => 2.0 * 1024.0,
        };
        // The first sample lies before or behind a place between two.
        let most = most + if self.case.start.is_some() { 60.0 } else { 0.0 };
        if (samples - theirs).abs() > most {
            let _ = writeln!(found, "{samples} samples, ffmpeg {theirs}");
        }
        if (bytes / their_bytes - 1.0).abs() > 0.12 {
            let _ = writeln!(found, "{bytes} bytes, ffmpeg {their_bytes}");
        }
    }

    fn compare_sound(&self, ours: &Probed, theirs: &Probed, found: &mut String) {
        let times = |probed: &Probed| probed.audio.iter().map(|packet| packet.0).next();
        let (Some(a), Some(b)) = (times(ours), times(theirs)) else {
            let _ = writeln!(found, "no sound");
            return;
        };
        // ffmpeg copies sound from where it seeks to, ahead of an encoded picture.
        let early = self.case.audio == "copy" && !self.case.copy_video && self.case.start.is_some();
        // Without a container there are no times.
        let timed = a.is_finite() && b.is_finite();
        if timed && !early && (a - b).abs() > SOUND_FRAME {
            let _ = writeln!(found, "sound begins at {a}, ffmpeg's at {b}");
        }
        if !early && ours.audio.len().abs_diff(theirs.audio.len()) > 3 {
            let (a, b) = (ours.audio.len(), theirs.audio.len());
            let _ = writeln!(found, "{a} packets of sound, ffmpeg {b}");
        }
        let from = if timed { a.max(b) } else { 0.0 };
        let cut = |path: &Path, first: f64| {
            let skip = if timed { ((from - first) * output::PCM_RATE).round() as usize } else { 0 };
            output::pcm(path).get(skip..).map(<[f32]>::to_vec).unwrap_or_default()
        };
        // A player's clock begins with the first packet of all.
        match output::lag(&cut(&self.ours, a), &cut(&self.theirs, b)) {
            // ffmpeg 5.1 has Opus in Matroska 7 ms early (module `matroska`).
            Some(lag) if lag.abs() < 0.0075 => {}
            Some(lag) => {
                let _ = writeln!(found, "sound is {:.1} ms late", lag * 1000.0);
            }
            None => {
                let _ = writeln!(found, "sound of other content");
            }
        }
    }
}

fn check(case: Case) {
    let done = run(case);
    let differences = done.differences();
    let command = case.ffmpeg(Path::new("theirs")).join(" ");
    assert!(differences.is_empty(), "{differences}\nffmpeg {command}");
}

macro_rules! cases {
    ($($name:ident: $clip:literal => $ext:literal, $video:ident, $audio:literal $(+ $start:literal)? $(, $copyts:ident)?;)*) => {
        $(#[test] fn $name() {
            check(Case {
                clip: $clip,
                ext: $ext,
                copy_video: stringify!($video) == "copy",
                audio: $audio,
                start: ([$($start)?] as [&str; _]).first().copied(),
                copyts: !([$(stringify!($copyts))?] as [&str; _]).is_empty(),
            });
        })*
    };
}

/// Pictures that are encoded. The sound beside them is the same everywhere.
mod pictures {
    use super::*;

    cases! {
        mp4:                   "film.mkv" => "mp4", encode, "aac";
        mp4_copyts:            "film.mkv" => "mp4", encode, "aac", copyts;
        mp4_seek:              "film.mkv" => "mp4", encode, "aac" + "4.321";
        mp4_seek_copyts:       "film.mkv" => "mp4", encode, "aac" + "4.321", copyts;
        ts:                    "film.mkv" => "ts",  encode, "aac";
        ts_copyts:             "film.mkv" => "ts",  encode, "aac", copyts;
        ts_seek:               "film.mkv" => "ts",  encode, "aac" + "4.321";
        ts_seek_copyts:        "film.mkv" => "ts",  encode, "aac" + "4.321", copyts;
        mkv:                   "film.mkv" => "mkv", encode, "aac";
        mkv_copyts:            "film.mkv" => "mkv", encode, "aac", copyts;
        mkv_seek:              "film.mkv" => "mkv", encode, "aac" + "4.321";
        mkv_seek_copyts:       "film.mkv" => "mkv", encode, "aac" + "4.321", copyts;
        // Times and rates of the source.
        mp4_from_mp4:          "pal.mp4"  => "mp4", encode, "aac" + "6";
        mkv_hole:              "hole.mkv" => "mkv", encode, "aac";
        mkv_hole_seek:         "hole.mkv" => "mkv", encode, "aac" + "4.321";
        ts_hole_copyts:        "hole.mp4" => "ts",  encode, "aac", copyts;
        mp4_hole:              "hole.mkv" => "mp4", encode, "aac";
        mp4_hole_seek:         "hole.mkv" => "mp4", encode, "aac" + "4.321";
        mp4_hole_seek_copyts:  "hole.mkv" => "mp4", encode, "aac" + "4.321", copyts;
        mkv_dropped:           "dropped.mkv" => "mkv", encode, "aac";
        mkv_jitter:            "jitter.mp4" => "mkv", encode, "aac";
        mp4_jitter:            "jitter.mkv" => "mp4", encode, "aac" + "3";
        mkv_late:              "late.mkv" => "mkv", encode, "aac";
        mkv_late_copyts:       "late.mkv" => "mkv", encode, "aac" + "3", copyts;
        mp4_late_seek:         "late.mp4" => "mp4", encode, "aac" + "3";
        mkv_anamorphic:        "wide.mkv" => "mkv", encode, "aac";
    }
}

/// Sound of other codecs, without a picture or beside one of those above.
mod sound {
    use super::*;

    cases! {
        // Sound of other codecs.
        mkv_copy_sound:        "surround.mkv" => "mkv", encode, "copy";
        mkv_opus:              "film.mkv" => "mkv", encode, "libopus";
        mkv_vorbis:            "film.mkv" => "mkv", encode, "libvorbis";
        mkv_flac:              "film.mkv" => "mkv", encode, "flac";
        mkv_mp3:               "film.mkv" => "mkv", encode, "libmp3lame" + "4.321";
        mkv_ac3:               "film.mkv" => "mkv", encode, "ac3";
        ts_mp3:                "film.mkv" => "ts",  encode, "libmp3lame";
        mp4_mp3:               "film.mkv" => "mp4", encode, "libmp3lame";
        // Sound alone.
        sound_mp3:             "song.flac" => "mp3",  none, "libmp3lame";
        sound_mp3_seek:        "song.flac" => "mp3",  none, "libmp3lame" + "4.321";
        sound_aac:             "song.ogg"  => "aac",  none, "aac";
        sound_m4a:             "song.flac" => "m4a",  none, "aac";
        sound_m4a_seek:        "song.m4a"  => "m4a",  none, "aac" + "4.321";
        sound_flac:            "song.wav"  => "flac", none, "flac";
        sound_flac_seek:       "song.flac" => "flac", none, "flac" + "4.321";
        sound_opus:            "song.flac" => "ogg",  none, "libopus";
        sound_opus_seek:       "song.ogg"  => "ogg",  none, "libopus" + "4.321";
        sound_vorbis:          "song.wav"  => "ogg",  none, "libvorbis";
        sound_vorbis_seek:     "song.flac" => "ogg",  none, "libvorbis" + "4.321";
        sound_flac_in_ogg:     "song.wav"  => "ogg",  none, "flac";
        sound_webm_opus:       "song.flac" => "webm", none, "libopus";
        sound_webm_vorbis:     "song.flac" => "webm", none, "libvorbis" + "4.321";
    }
}

/// Pictures that nobody decodes.
mod copies {
    use super::*;

    cases! {
        // Copies of both, and of the picture alone. (At a place up to 130 ms behind a keyframe ffmpeg
        // begins with the one before it.)
        mp4_copy:              "pal.mp4"  => "mp4", copy, "copy";
        mp4_copy_copyts:       "film.mkv" => "mp4", copy, "copy", copyts;
        mp4_copy_seek:         "film.mkv" => "mp4", copy, "copy" + "4.5";
        mp4_copy_seek_copyts:  "film.mkv" => "mp4", copy, "copy" + "4.5", copyts;
        ts_copy:               "pal.mp4"  => "ts",  copy, "copy";
        ts_copy_copyts:        "film.mkv" => "ts",  copy, "copy", copyts;
        ts_copy_seek:          "film.mkv" => "ts",  copy, "copy" + "4.5";
        ts_copy_seek_copyts:   "film.mkv" => "ts",  copy, "copy" + "4.5", copyts;
        mkv_copy:              "pal.mp4"  => "mkv", copy, "copy";
        mkv_copy_copyts:       "film.mkv" => "mkv", copy, "copy", copyts;
        mkv_copy_seek:         "film.mkv" => "mkv", copy, "copy" + "4.5";
        mkv_copy_seek_copyts:  "film.mkv" => "mkv", copy, "copy" + "4.5", copyts;
        mp4_copy_picture:      "film.mkv" => "mp4", copy, "aac" + "4.5";
        ts_copy_picture:       "film.mkv" => "ts",  copy, "aac" + "4.5";
        mkv_copy_picture:      "film.mkv" => "mkv", copy, "aac" + "4.5";
        mkv_copy_hevc:         "hevc.mkv" => "mkv", copy, "copy";
        mp4_copy_hevc:         "hevc.mp4" => "mp4", copy, "copy";
    }
}

/// `q` in the middle: what there is gets written, and the file its end.
#[test]
fn a_file_that_is_quit_ends_properly() {
    for ext in ["mp4", "ts", "mkv"] {
        let (directory, plan) = long(ext);
        let run = Run::start(&plan);
        let path = directory.path().join(format!("id.{ext}"));
        until_it_holds(&path, 1);
        run.control(Control::Quit);
        let report = run.finish();
        assert_eq!(report.ending, Some(Ending::Quit), "{:?}", report.lines);
        let probed = probe(&path);
        assert!(probed.video.len() as u64 >= report.progress.frames, "{ext}");
        assert!(!probed.audio.is_empty(), "{ext}");
        decodes(&path);
        if ext == "mp4" {
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(&bytes[bytes.len() - 12..bytes.len() - 8], b"mfro");
        }
    }
}

/// A worker that dies, or whose gateway does, leaves what it wrote, and nothing beside it.
#[test]
fn what_was_written_stays() {
    for (ext, killed) in [("mp4", false), ("mkv", false), ("ts", false), ("ts", true)] {
        let (directory, plan) = long(ext);
        let mut run = Run::start(&plan);
        let path = directory.path().join(format!("id.{ext}"));
        until_it_holds(&path, 1);
        if killed {
            run.child.kill().unwrap();
            run.child.wait().unwrap();
        } else {
            // The other end of the worker's socket.
            let (nobody, _) = std::os::unix::net::UnixStream::pair().unwrap();
            run.channel = session::Channel::new(nobody.into());
            run.exit();
        }
        let names: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [path.file_name().unwrap()]);
        // SIGKILL may cut a write in two.
        if !killed {
            decodes(&path);
        }
    }
}

/// What can't be carried isn't begun: ffmpeg gets it.
#[test]
fn what_a_container_has_no_place_for_is_left_to_ffmpeg() {
    let case = |ext, audio| Case {
        clip: "film.mkv",
        ext,
        copy_video: true,
        audio,
        start: None,
        copyts: false,
    };
    for (ext, audio, words) in
        [("ts", "flac", "MPEG-TS"), ("mp4", "libvorbis", "Vorbis"), ("webm", "aac", "WebM")]
    {
        let directory = tempfile::tempdir().unwrap();
        let report = Run::start(&case(ext, audio).plan(directory.path())).finish();
        match report.ending {
            Some(Ending::Failed { reason, fault: Fault::Unsupported }) => {
                assert!(reason.contains(words), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert!(!report.committed);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

/// A plan of a minute, and its directory.
fn long(ext: &'static str) -> (tempfile::TempDir, Transcode) {
    let directory = tempfile::tempdir().unwrap();
    let case =
        Case { clip: "film.mkv", ext, copy_video: false, audio: "aac", start: None, copyts: false };
    let mut plan = case.plan(directory.path());
    plan.inputs[0].location = Location::File(support::case::long());
    (directory, plan)
}

fn until_it_holds(path: &Path, bytes: u64) {
    while std::fs::metadata(path).map_or(0, |meta| meta.len()) < bytes {
        support::pause(5);
    }
}

/// ffmpeg decodes all of it without a word.
fn decodes(path: &Path) {
    let arguments = ["-v", "error", "-i", path.to_str().unwrap(), "-f", "framecrc", "-"];
    let result = Command::new("ffmpeg").args(arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&result.stderr), "", "{}", path.display());
}
