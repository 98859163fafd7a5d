//! Our segments against those that ffmpeg writes for the same command and file.
//!
//! Each case is a line: a clip, a command of the corpus, and what is changed about it. The
//! command runs through planner and worker, and, in its software spelling, through ffmpeg;
//! whatever a player or Jellyfin could notice must agree.

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ffmpeg_args::{AudioAction, AudioCodec, Transcode, VideoAction, VideoCodec};
use session::{Ending, Fault};
use support::line::Line;
use support::output::{self, Output};
use support::sources::source;
use support::{Run, gpu, reference};

/// Rounding of timestamps: two ticks of Matroska's milliseconds.
const ROUNDING: f64 = 0.0021;
/// Least similarity of a picture to ffmpeg's.
const SIMILAR: f64 = 0.98;
/// The same of an encoder that works otherwise.
const SIMILAR_ON_GPU: f64 = 0.97;
/// Longest frame of sound: 1536 samples of AC-3 at 48 kHz.
const SOUND_FRAME: f64 = 0.032;
/// FLAC's, 4608 samples.
const FLAC_FRAME: f64 = 0.1;

/// ffmpeg's output for a command that reads these files.
fn reference(
    line: &Line,
    reads: &[&Path],
    plan: impl Fn(&Path) -> Transcode,
) -> (Output, Option<String>) {
    let mut command = line.clone().in_software();
    // The GPU's encoders make no B-frames, which would move ffmpeg's decoding times.
    if gpu::under_test().is_some_and(gpu::TestGpu::encodes) && line.encodes_video() {
        command.set_before("-bf", "0", "-f");
    }
    let kept = reference::folder(&command.0, reads, |directory| {
        let command = command.clone().writing(directory);
        let words: Vec<&str> = command.0.iter().map(String::as_str).collect();
        output::capture("ffmpeg", &words);
        Output::read(directory, &plan(directory));
    });
    let output = Output::read(&kept, &plan(&kept));
    let h264 = line.value("-codec:v:0").is_some_and(|codec| codec.contains("264"));
    let pictures = if h264 { output.pictures(false) } else { Vec::new() };
    let settings = pictures.first().and_then(|units| output::encoder_settings(units));
    (output, settings)
}

struct Case {
    line: Line,
    ours: Output,
    theirs: Output,
    /// What ffmpeg's x264 said of itself.
    settings: Option<String>,
    plan: Transcode,
    /// Whether the picture was encoded by the software that ffmpeg has, too.
    same_encoder: bool,
    /// Whether a GPU had a part in the picture: its filters aren't ffmpeg's.
    on_gpu: bool,
    directory: tempfile::TempDir,
}

fn run(clip: &str, corpus: &str, edits: &str) -> Case {
    let mut reads = vec![source(clip)];
    let edits = edits.split_whitespace().map(|edit| match edit.strip_prefix("second=") {
        Some(name) => {
            reads.push(source(name));
            format!("second={}", source(name).display())
        }
        None => edit.to_owned(),
    });
    let edits: Vec<String> = edits.collect();
    let line = Line::corpus(corpus)
        .reading(&source(clip))
        .writing(Path::new("/out"))
        .edited(&edits.join(" "));
    let reads: Vec<&Path> = reads.iter().map(PathBuf::as_path).collect();
    let plan = |directory: &Path| line.clone().writing(directory).plan();
    let (theirs, settings) = reference(&line, &reads, plan);
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(directory.path());
    let report = Run::start(&plan).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    // One that only decodes does so for what the container tells enough of.
    if let Some(gpu) = gpu::under_test().filter(|gpu| gpu.encodes() && line.encodes_video()) {
        assert_ne!(report.backend, "software", "a GPU is there and does nothing");
        // MPEG-TS states a codec alone; profile and size are in the stream.
        let turns = gpu.device.abilities.contains_key(&::gpu::Operation::Turn);
        if (clip.ends_with(".ts") || clip.starts_with("turned") && turns) && gpu.decodes() {
            assert_eq!(report.backend, "vaapi", "{:?}", report.lines);
        }
    }
    let ours = Output::read(directory.path(), &plan);
    let on_gpu = |word: &str| word.starts_with("va") && word.ends_with("enc");
    let words = || report.description.split([' ', ',']);
    let same_encoder = !words().any(on_gpu);
    let on_gpu = words().any(|word| word.starts_with("va"));
    Case { line, ours, theirs, settings, plan, same_encoder, on_gpu, directory }
}

impl Case {
    fn codec(&self) -> Option<VideoCodec> {
        match &self.plan.video.as_ref()?.action {
            VideoAction::Encode(encode) => Some(encode.codec),
            VideoAction::Copy => None,
        }
    }

    /// Everything in which the two differ, one sentence each.
    fn differences(&self) -> String {
        let mut found = String::new();
        self.compare_segments(&mut found);
        if self.plan.video.is_some() {
            self.compare_picture(&mut found);
        }
        if self.plan.audio.is_some() {
            self.compare_sound(&mut found);
        }
        found
    }

    fn compare_segments(&self, found: &mut String) {
        let names = |output: &Output| -> Vec<String> {
            output.segments.iter().map(|segment| segment.name.clone()).collect()
        };
        if names(&self.ours) != names(&self.theirs) {
            let _ =
                writeln!(found, "names: {:?}, ffmpeg {:?}", names(&self.ours), names(&self.theirs));
        }
        let frame = self.frame();
        // Sound that begins with the picture may be a picture ahead.
        // ffmpeg guesses other decoding times for Matroska, by which it interleaves.
        let with_picture = self.sound_start(false) > f64::MIN || self.codec().is_none();
        let flac = matches!(&self.plan.audio, Some(a) if is_flac(&a.action));
        let sound_frame = if flac { FLAC_FRAME } else { SOUND_FRAME };
        let sound_tolerance = sound_frame + if with_picture { frame } else { 0.0 };
        for (ours, theirs) in self.ours.segments.iter().zip(&self.theirs.segments) {
            for (video, tolerance) in [(true, frame / 2.0), (false, sound_tolerance)] {
                let a = ours.first_pts(video).map(|a| a.max(self.sound_start(video)));
                let b = theirs.first_pts(video).map(|b| b.max(self.sound_start(video)));
                let near = match (a, b) {
                    (Some(a), Some(b)) => (a - b).abs() < tolerance + ROUNDING,
                    (a, b) => a.is_some() == b.is_some(),
                };
                if !near {
                    let kind = if video { "picture" } else { "sound" };
                    let _ =
                        writeln!(found, "{} begins with {kind} {a:?}, ffmpeg's {b:?}", ours.name);
                }
            }
            let (a, b) = (ours.of(true).count(), theirs.of(true).count());
            if a != b {
                let _ = writeln!(found, "{} has {a} pictures, ffmpeg's {b}", ours.name);
            }
        }
    }

    /// ffmpeg copies sound from the keyframe on that it seeks to, up to several seconds ahead of
    /// the picture (12.0 of Jellyfin drops it again, contract 2.1); ours begins with the picture.
    fn sound_start(&self, video: bool) -> f64 {
        let copied = matches!(&self.plan.audio, Some(a) if a.action == AudioAction::Copy);
        let seeks = self.plan.inputs[0].start_us.is_some();
        let early = copied || !self.plan.inputs[0].accurate;
        if video || !early || !seeks || self.codec().is_none() {
            return f64::MIN;
        }
        self.theirs.first_pts(true).unwrap_or(f64::MIN)
    }

    /// Usual distance of ffmpeg's pictures.
    fn frame(&self) -> f64 {
        let mut times: Vec<f64> =
            self.theirs.segments.iter().flat_map(|s| s.of(true)).map(|p| p.pts).collect();
        times.sort_by(f64::total_cmp);
        let mut distances: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        distances.sort_by(f64::total_cmp);
        distances.get(distances.len() / 2).copied().unwrap_or(0.0)
    }

    fn compare_picture(&self, found: &mut String) {
        let (a, b) = (self.ours.count(true), self.theirs.count(true));
        if a != b {
            let _ = writeln!(found, "{a} pictures, ffmpeg {b}");
        }
        let hevc = self.codec() == Some(VideoCodec::Hevc);
        if self.codec().is_some() {
            let pictures = self.ours.pictures(hevc);
            let mut at = 0;
            for segment in &self.ours.segments {
                let first = segment.of(true).next();
                if !first.is_some_and(|packet| packet.key) {
                    let _ = writeln!(found, "{} doesn't begin with a keyframe", segment.name);
                }
                check_units(&segment.name, pictures.get(at), hevc, self.ours.init.is_some(), found);
                at += segment.of(true).count();
            }
            let ours = pictures.first().and_then(|units| output::encoder_settings(units));
            if self.same_encoder && !hevc && ours != self.settings {
                let _ = writeln!(found, "x264: {}", settings_differ(&ours, &self.settings));
            }
        }
        if self.codec().is_some() {
            let (a, b) = (&self.ours.looks, &self.theirs.looks);
            // Even sizes bend the shape a little, and not all say so.
            if (a.0 / b.0 - 1.0).abs() > 0.01 || b.1.contains("bt709") && a.1 != b.1 {
                let _ = writeln!(found, "shape and colours {a:?}, ffmpeg {b:?}");
            }
        }
        let (worst, average, frames) =
            output::ssim(&self.ours.whole, &self.theirs.whole, self.directory.path());
        let similar = if self.on_gpu { SIMILAR_ON_GPU } else { SIMILAR };
        if average < similar || worst < similar - 0.08 {
            let _ = writeln!(found, "SSIM {average:.4}, worst {worst:.4} of {frames}");
        }
        if frames + 2 < self.theirs.count(true) {
            let _ = writeln!(found, "only {frames} pictures can be decoded");
        }
    }

    fn compare_sound(&self, found: &mut String) {
        let (Some(a), Some(b)) = (self.ours.first_pts(false), self.theirs.first_pts(false)) else {
            let _ = writeln!(found, "no sound");
            return;
        };
        let from = self.sound_start(false) - SOUND_FRAME;
        let since = |output: &Output| {
            let packets = output.segments.iter().flat_map(|segment| segment.of(false));
            packets.filter(|packet| packet.pts >= from).count()
        };
        let (count, theirs) = (since(&self.ours), since(&self.theirs));
        // Where sound is counted from lies a frame off, too.
        if count.abs_diff(theirs) > 3 {
            let _ = writeln!(found, "{count} packets of sound, ffmpeg {theirs}");
        }
        // Without a picture nothing can be out of step; MP3 without its container keeps the
        // encoder's lead-in.
        // Opus' lead-in of 6.5 ms lies before zero in ffmpeg's fragments, where no time can be.
        let allowed = if self.plan.video.is_some() { 0.007 } else { 0.03 };
        // From the same time on.
        let from = a.max(b);
        let cut = |output: &Output, first: f64| {
            let samples = output::pcm(&output.whole);
            let skip = ((from - first) * output::PCM_RATE).round() as usize;
            samples.get(skip..).map(<[f32]>::to_vec).unwrap_or_default()
        };
        match output::lag(&cut(&self.ours, a), &cut(&self.theirs, b)) {
            Some(lag) if lag.abs() < allowed => {}
            Some(lag) => {
                let _ = writeln!(found, "sound is {:.1} ms late", lag * 1000.0);
            }
            None => {
                let _ = writeln!(found, "sound of other content");
            }
        }
    }
}

fn is_flac(action: &AudioAction) -> bool {
    matches!(action, AudioAction::Encode(encode) if encode.codec == AudioCodec::Flac)
}

/// A segment's first picture can be decoded by itself. Fragmented MP4 has the parameter sets in its
/// init file.
fn check_units(
    name: &str,
    units: Option<&Vec<(u8, Vec<u8>)>>,
    hevc: bool,
    init: bool,
    found: &mut String,
) {
    let kinds: Vec<u8> = units.into_iter().flatten().map(|unit| unit.0).collect();
    let needed: &[u8] = match (init, hevc) {
        (true, _) => &[],
        (false, true) => &[32, 33, 34],
        (false, false) => &[7, 8],
    };
    let idr = if hevc { kinds.iter().any(|k| matches!(k, 19 | 20)) } else { kinds.contains(&5) };
    if !idr || !needed.iter().all(|kind| kinds.contains(kind)) {
        let _ = writeln!(found, "{name} begins with units {kinds:?}");
    }
}

/// The settings in which two accounts differ.
fn settings_differ(ours: &Option<String>, theirs: &Option<String>) -> String {
    let words = |text: &Option<String>| -> Vec<String> {
        text.iter().flat_map(|text| text.split(' ')).map(str::to_owned).collect()
    };
    let (a, b) = (words(ours), words(theirs));
    let only = |a: &[String], b: &[String]| -> String {
        a.iter().filter(|word| !b.contains(word)).cloned().collect::<Vec<_>>().join(" ")
    };
    format!("{} | ffmpeg {}", only(&a, &b), only(&b, &a))
}

fn check(clip: &str, corpus: &str, edits: &str) {
    let case = run(clip, corpus, edits);
    let differences = case.differences();
    assert!(
        differences.is_empty(),
        "{clip}, corpus {corpus}, {edits}\n{differences}\nffmpeg {}",
        case.line.in_software().0.join(" ")
    );
}

macro_rules! cases {
    ($($name:ident: $clip:literal, $corpus:literal, $edits:literal;)*) => {
        $(#[test] fn $name() { super::check($clip, $corpus, $edits); })*
    };
}

// 015, 016 and 060: VA-API; 022 and 023: QSV; 028 and 029: software; 064: VA-API decoder, x264;
// 040 and 042: copies; 069: sound only.

/// Pictures of every kind. The sound beside them is the same everywhere.
mod pictures {
    cases! {
        // Frame rates, containers, seeks.
        film:                     "film.mkv", "015", "";
        film_grid_of_3003:        "film.mkv", "015", "ss=3.003";
        film_second_segment:      "film.mkv", "015", "ss=6.006";
        film_between_keyframes:   "film.mkv", "028", "ss=4.321";
        film_ts:                  "film.ts", "028", "";
        film_mp4:                 "film.mp4", "028", "";
        film_mp4_seek:            "film.mp4", "028", "ss=6.006";
        film_last_segment:        "film.mkv", "015", "ss=12";
        pal:                      "pal.mkv", "028", "";
        pal_at_keyframe:          "pal.mp4", "028", "ss=6";
        ntsc:                     "ntsc.mkv", "028", "";
        ntsc_seek:                "ntsc.mp4", "028", "ss=6.006";
        fifty_seek:               "fifty.mkv", "028", "ss=3";
        fifty_ts:                 "fifty.ts", "028", "";
        sixty:                    "sixty.mp4", "028", "";
        sixty_seek:               "sixty.mkv", "028", "ss=3";
        // HDR that nobody maps, said to be BT.709: no value changes.
        pq_untouched:             "pq.mkv", "028", "";
        pq_untouched_seek:        "pq.mkv", "015", "ss=3";
        // Turned for display.
        turned_90:                "turned90.mp4", "028", "";
        turned_180:               "turned180.mp4", "028", "ss=6";
        turned_270:               "turned270.mp4", "028", "";
        turned_and_fitted:        "turned90.mp4", "028", "ss=3 -vf=scale=trunc(min(max(iw\\,ih*a)\\,min(160\\,320*a))/2)*2:trunc(min(max(iw/a\\,ih)\\,min(160/a\\,320))/2)*2,format=yuv420p";
        // Variable frame rates.
        dropped_mkv:              "dropped.mkv", "015", "";
        dropped_mp4:              "dropped.mp4", "015", "";
        dropped_seek:             "dropped.mkv", "015", "ss=6";
        jitter_mkv:               "jitter.mkv", "015", "";
        jitter_mp4:               "jitter.mp4", "015", "";
        hole_mkv:                 "hole.mkv", "015", "";
        hole_mp4:                 "hole.mp4", "015", "ss=3";
        switch_mkv:               "switch.mkv", "015", "";
        switch_mp4:               "switch.mp4", "015", "";
        // Time that doesn't begin at zero, edit lists.
        late_mkv:                 "late.mkv", "015", "";
        late_mkv_seek:            "late.mkv", "015", "ss=3";
        late_mkv_from_zero:       "late.mkv", "015", "ss=3 -start_at_zero";
        late_mp4:                 "late.mp4", "015", "";
        late_mp4_seek:            "late.mp4", "015", "ss=3";
        late_mp4_from_zero:       "late.mp4", "015", "-start_at_zero";
        late_ts:                  "late.ts", "015", "";
        late_ts_from_zero:        "late.ts", "015", "-start_at_zero";
        // Pictures that lean on what lies before a keyframe.
        open_gop:                 "opengop.mkv", "015", "";
        open_gop_at_keyframe:     "opengop.mkv", "015", "ss=6.006";
        open_gop_between:         "opengop.mkv", "015", "ss=7.1";
        open_gop_mp4:             "opengop.mp4", "015", "ss=6.006";
        // Fields.
        interlaced_frames:        "interlaced.ts", "029", "-vf=yadif=0:-1:0,format=yuv420p";
        interlaced_fields:        "interlaced.ts", "029", "";
        interlaced_hardware:      "interlaced.ts", "060", "";
        interlaced_mkv:           "interlaced.mkv", "060", "ss=6";
        anamorphic:               "wide.mkv", "015", "";
        anamorphic_to_hevc:       "wide.mkv", "015", "fmp4 -codec:v:0=hevc_vaapi -tag:v:0=hvc1 -profile:v:0=main -level=120";
        // Codecs of the source.
        hevc:                     "hevc.mkv", "015", "";
        hevc_mp4_seek:            "hevc.mp4", "015", "ss=6.006";
        hevc_ten_bits:            "hevc10.mkv", "028", "ss=3";
        vp9:                      "vp9.webm", "015", "";
        vp9_seek:                 "vp9.webm", "015", "ss=6";
        mpeg2_ts:                 "mpeg2.ts", "015", "";
        mpeg2_mkv_seek:           "mpeg2.mkv", "015", "ss=3";
        no_sound:                 "silent.mkv", "015", "-map=0:0 -codec:a:0= -ac= -ab= -af=";
        // Fragmented MP4.
        fmp4:                     "film.mkv", "015", "fmp4";
        fmp4_seek:                "film.mkv", "015", "fmp4 ss=6.006";
        fmp4_inaccurate:          "film.mkv", "015", "fmp4 -noaccurate_seek ss=6.006";
        fmp4_pal_inaccurate:      "pal.mp4", "028", "fmp4 -noaccurate_seek ss=5";
        fmp4_old:                 "film.mkv", "016", "";
        fmp4_late:                "late.mkv", "015", "fmp4 ss=3";
        // Rates, keyframes at a fixed distance, other encoders' words.
        qsv_frames:               "film.mkv", "022", "";
        qsv_frames_seek:          "film.mkv", "022", "ss=6.006";
        qsv_small:                "film.mkv", "023", "";
        hardware_decoder:         "film.mkv", "064", "-vf=scale_vaapi=w=320:h=180:format=nv12,hwmap=mode=read,format=nv12";
        i965:                     "pal.mkv", "007", "";
        baseline:                 "pal.mkv", "015", "-profile:v:0=constrained_baseline -level=31";
        capped:                   "fifty.mkv", "015", "-vf=fps=25,scale_vaapi=format=nv12 -r=25";
        to_hevc:                  "pal.mkv", "015", "fmp4 ss=9 -codec:v:0=hevc_vaapi -tag:v:0=hvc1 -profile:v:0=main -level=120";
        to_hevc_software:         "pal.mkv", "028", "fmp4 ss=3 -codec:v:0=libx265 -preset=ultrafast -x264opts:0= -sc_threshold:v:0= -tag:v:0=hvc1";
    }
}

/// Sound of every kind, without a picture or beside one of those above.
mod sound {
    cases! {
        // Not from the very beginning: ffmpeg 5.1 keeps the priming there, later ones and Rendergate don't.
        primed:                   "primed.mkv", "015", "ss=0.5";
        primed_seek:              "primed.mkv", "015", "ss=6";
        primed_from_zero:         "primed.mkv", "015", "ss=3 -start_at_zero";
        // Channels, codecs, rates.
        surround_to_stereo:       "surround.mkv", "015", "-af=";
        surround_to_stereo_seek:  "surround.mkv", "015", "ss=6.006";
        surround_kept:            "surround.mp4", "015", "-ac=6 -ab=384000";
        surround_copied:          "surround.ts", "015", "-codec:a:0=copy -ac= -ab= -af=";
        mixed_by_formula:         "surround.mkv", "015", "-af=pan=stereo|c0=0.5*c2+0.707*c0+0.707*c4+0.5*c3|c1=0.5*c2+0.707*c1+0.707*c5+0.5*c3,volume=2";
        mixed_by_formula_seek:    "surround.mkv", "015", "ss=6.006 -af=pan=stereo|FL=0.5*FC+0.707*FL|FR=0.5*FC+0.707*FR";
        to_mp3_by_quality:        "film.mkv", "015", "-codec:a:0=libmp3lame -ab= -qscale:a=2";
        to_ac3:                   "film.mkv", "015", "-codec:a:0=ac3";
        to_eac3:                  "film.mkv", "015", "-codec:a:0=eac3 ss=3";
        to_mp3:                   "film.mkv", "015", "-codec:a:0=libmp3lame";
        to_opus:                  "film.mkv", "015", "-codec:a:0=libopus fmp4 -ac=2";
        to_flac:                  "film.mkv", "015", "-codec:a:0=flac -ab= -strict=-2 fmp4";
        resampled:                "film.mkv", "015", "-ar=44100";
        sound_only_flac:          "song.flac", "069", "";
        sound_only_flac_seek:     "song.flac", "069", "ss=6";
        sound_only_mp3:           "song.mp3", "069", "";
        sound_only_m4a:           "song.m4a", "069", "ss=3";
        sound_only_ogg:           "song.ogg", "069", "";
        sound_only_opus:          "song.opus", "069", "";
        sound_only_wav:           "song.wav", "069", "";
        external_sound:           "silent.mkv", "015", "second=voice.ac3 -map=0:0,1:0";
        external_sound_seek:      "pal.mkv", "015", "ss=6 second=voice.mka -map=0:0,1:0";
        // Streams by number.
        second_sound_mkv:         "tracks.mkv", "015", "-map=0:0,0:3,-0:s";
        second_sound_mp4:         "tracks.mp4", "015", "-map=0:0,0:3,-0:s";
        second_sound_ts:          "tracks.ts", "015", "-map=0:0,0:2,-0:s";
        first_sound_mkv_seek:     "tracks.mkv", "015", "ss=6 -map=0:0,0:2,-0:s";
    }
}

/// Pictures that nobody decodes.
mod copies {
    cases! {
        // Not from the very beginning: ffmpeg 5.1 keeps the priming there, later ones and Rendergate don't.
        primed_copied:            "primed.mkv", "042", "-codec:a:0=copy -ac= -ab=";
        primed_copied_seek:       "primed.mkv", "042", "ss=6.5 -codec:a:0=copy -ac= -ab= -noaccurate_seek";
        // A copied picture is through before sound has been decoded once.
        external_sound_copy:      "silent.mkv", "042", "second=voice.ac3 -map=0:0,1:0";
        // Copies.
        copy:                     "film.mkv", "042", "";
        copy_both:                "film.mkv", "042", "-codec:a:0=copy -ac= -ab=";
        copy_seek:                "film.mkv", "042", "ss=6.5 -noaccurate_seek";
        copy_hevc:                "hevc.mkv", "040", "";
        copy_ts:                  "film.ts", "042", "";
        copy_mp4:                 "film.mp4", "042", "";
        copy_open_gop:            "opengop.mkv", "042", "ss=6.5 -noaccurate_seek";
    }
}

/// One picture of each frame, of Matroska. The software deinterlacer keeps the very last one.
#[test]
fn interlaced_mkv_frames() {
    for seek in ["", "ss=6"] {
        let edits = format!("{seek} -vf=deinterlace_vaapi=rate=frame,scale_vaapi=format=nv12");
        let case = run("interlaced.mkv", "060", &edits);
        let (ours, theirs) = (case.ours.count(true), case.theirs.count(true));
        let in_software = !gpu::under_test().is_some_and(gpu::TestGpu::decodes);
        if in_software && ours + 1 == theirs {
            assert_eq!(case.ours.first_pts(true), case.theirs.first_pts(true), "{seek}");
            continue;
        }
        assert_eq!(case.differences(), "", "{seek}");
    }
}

/// What GStreamer plays otherwise than ffmpeg isn't begun.
#[test]
fn an_edit_list_that_cuts_is_left_to_ffmpeg() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Line::corpus("028").reading(&source("edit.mp4")).writing(directory.path()).plan();
    match Run::start(&plan).finish().ending {
        Some(Ending::Failed { reason, fault: Fault::Unsupported }) => {
            assert!(reason.contains("edit list"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// ffmpeg itself lands behind the place in MPEG-TS, at whichever keyframe comes next.
#[test]
fn mpeg_ts_begins_where_asked() {
    for (clip, seconds, first) in [("pal.ts", "3", 4.48), ("film.ts", "6.006", 7.5)] {
        let directory = tempfile::tempdir().unwrap();
        let line = Line::corpus("028").reading(&source(clip)).writing(directory.path());
        let plan = line.edited(&format!("ss={seconds}")).plan();
        assert_eq!(Run::start(&plan).finish().ending, Some(Ending::Complete), "{clip}");
        let output = Output::read(directory.path(), &plan);
        for video in [true, false] {
            // Ten seconds of the container, and one frame.
            let begins = output.first_pts(video).unwrap() - 10.0;
            assert!((begins - first).abs() < 0.042, "{clip} begins at {begins}");
        }
    }
}

/// A player mixes segments of several runs, after one set of headers (contract 4).
#[test]
fn headers_are_the_same_after_a_seek() {
    for (clip, edits) in [
        ("film.mkv", ""),
        ("film.mkv", "fmp4"),
        ("surround.mkv", "fmp4 -ac=6"),
        ("pal.mp4", "fmp4 -codec:a:0=copy -ac= -ab= -af="),
        ("late.mkv", "fmp4"),
    ] {
        let headers = |seek: &str| {
            let directory = tempfile::tempdir().unwrap();
            let line = Line::corpus("015").reading(&source(clip)).writing(directory.path());
            let plan = line.edited(edits).edited(seek).plan();
            assert_eq!(Run::start(&plan).finish().ending, Some(Ending::Complete), "{clip} {edits}");
            let output = Output::read(directory.path(), &plan);
            let mut units = output.pictures(false).swap_remove(0);
            units.retain(|(kind, _)| matches!(kind, 7 | 8));
            (output.init, units)
        };
        assert_eq!(headers(""), headers("ss=6.006"), "{clip} {edits}");
    }
}
