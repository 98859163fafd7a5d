//! A worker is lost behind a segment, and another goes on: what both have written together is what
//! one would have written, by numbers, names and timestamps, and it decodes without a complaint.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use ffmpeg_args::*;
use session::{Ending, Resumption};
use support::case::{Case, hls_of, to_fmp4};
use support::output::{self, Packet};
use support::sources::source;
use support::{Run, encode_of, gpu};

/// A worker that is killed once this segment is complete; where it had come to.
fn lost_behind(plan: &Transcode, segment: u64) -> Resumption {
    lost_on(Run::start(plan), segment)
}

fn lost_on(run: Run, segment: u64) -> Resumption {
    let mut at = None;
    run.finish_killed(|run, number| {
        if number == segment {
            at = run.resumption.clone();
        }
        number == segment
    });
    let at = at.unwrap_or_else(|| panic!("segment {segment} wasn't written"));
    assert_eq!(at.next, segment + 1);
    assert!(at.state.is_some(), "nobody can go on behind {segment}");
    at
}

fn resume(plan: &Transcode, at: Resumption) {
    let device = gpu::under_test().map(|gpu| &gpu.device);
    resume_on(plan, device, at);
}

fn resume_on(plan: &Transcode, device: Option<&::gpu::Device>, at: Resumption) {
    let next = at.next;
    let report = Run::warm().resuming(plan, device, at).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    assert!(!report.committed, "that was said before");
    assert_eq!(report.segments.first().map(|(number, _)| *number), Some(next));
}

/// Takes away what a later segment holds, and half-written files.
fn forget_from(case: &Case, plan: &Transcode, number: u64) {
    let output = plan.output.hls().unwrap();
    for name in case.names() {
        if output.segment_number(&name).is_none_or(|n| n >= number) && Some(&*name) != init(output)
        {
            fs::remove_file(case.out().join(name)).unwrap();
        }
    }
}

fn init(output: &HlsOutput) -> Option<&str> {
    output.init_name()
}

/// What a run wrote, and its playlist.
struct Written {
    playlist: String,
    output: output::Output,
}

impl Written {
    fn read(case: &Case, plan: &Transcode) -> Self {
        Self { playlist: case.playlist(), output: output::Output::read(&case.out(), plan) }
    }
}

/// Every packet of the two outputs has the same times, segment by segment, and the same playlist; the
/// second decodes.
#[track_caller]
fn same(whole: &Written, pieces: &Written, what: &str) {
    assert_eq!(whole.playlist, pieces.playlist, "{what}");
    let names = |written: &Written| -> Vec<String> {
        written.output.segments.iter().map(|segment| segment.name.clone()).collect()
    };
    assert_eq!(names(whole), names(pieces), "{what}");
    for (one, two) in whole.output.segments.iter().zip(&pieces.output.segments) {
        for video in [true, false] {
            let name = &one.name;
            assert_eq!(times(one, video), times(two, video), "{what}: {name}, picture: {video}");
        }
    }
    decodes(&pieces.output.whole, what);
}

/// Presentation times with keyframes, and decoding times, each in order: which pictures between two
/// others wait for a later one is the encoder's own choice, by what it saw before.
fn times(segment: &output::Segment, video: bool) -> (Vec<(f64, bool)>, Vec<f64>) {
    let packets: Vec<&Packet> = segment.of(video).collect();
    let mut shown: Vec<_> = packets.iter().map(|packet| (packet.pts, packet.key)).collect();
    shown.sort_by(|a, b| a.0.total_cmp(&b.0));
    (shown, packets.iter().map(|packet| packet.dts).collect())
}

/// Nothing is said of it.
#[track_caller]
fn decodes(whole: &Path, what: &str) {
    let ffmpeg = Command::new("ffmpeg")
        .args(["-v", "warning", "-nostdin", "-xerror", "-i"])
        .arg(whole)
        .args([
            "-map",
            "0",
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "1/90000",
            "-f",
            "null",
            "-",
        ])
        .output()
        .expect("ffmpeg is needed: apt install ffmpeg");
    let said = String::from_utf8_lossy(&ffmpeg.stderr);
    // What is decoded goes nowhere, and nowhere has no opinion on its times.
    let said: String = said.lines().filter(|line| !line.starts_with("[null @")).collect();
    assert!(said.is_empty() && ffmpeg.status.success(), "{what} doesn't decode: {said}");
}

/// One run against two, with the seam behind each of these segments.
#[track_caller]
fn check(input: &Path, behind: &[u64], change: impl Fn(&mut Transcode)) {
    check_by(input, behind, change, |_, _, _| {});
}

/// The same, and compares more of what the one run wrote and the two, given the segment before the seam.
#[track_caller]
fn check_by(
    input: &Path,
    behind: &[u64],
    change: impl Fn(&mut Transcode),
    more: impl Fn(&output::Output, &output::Output, usize),
) {
    let planned = |case: &Case| {
        let mut plan = case.plan(input);
        change(&mut plan);
        plan
    };
    let undisturbed = Case::new();
    let whole_plan = planned(&undisturbed);
    let report = Run::start(&whole_plan).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    let whole = Written::read(&undisturbed, &whole_plan);
    decodes(&whole.output.whole, "the whole run");
    let first = whole_plan.output.hls().unwrap().start_number;
    for segment in behind {
        let case = Case::new();
        let plan = planned(&case);
        let at = lost_behind(&plan, first + segment);
        forget_from(&case, &plan, at.next);
        resume(&plan, at);
        let pieces = Written::read(&case, &plan);
        same(&whole, &pieces, &format!("seam behind {segment}"));
        more(&whole.output, &pieces.output, *segment as usize);
    }
}

fn copy_video(plan: &mut Transcode) {
    plan.video.as_mut().unwrap().action = VideoAction::Copy;
}

fn copy_audio(plan: &mut Transcode) {
    plan.audio.as_mut().unwrap().action = AudioAction::Copy;
}

fn to_hevc(plan: &mut Transcode) {
    let encode = encode_of(plan);
    encode.codec = VideoCodec::Hevc;
    encode.encoder = "libx265".into();
    encode.encoder_params.clear();
    encode.preset = Some("ultrafast".into());
    plan.video.as_mut().unwrap().tag = Some("hvc1".into());
    to_fmp4(plan);
}

#[test]
fn film_and_television_in_both_containers() {
    for name in ["film.mkv", "pal.mp4", "film.ts"] {
        check(&source(name), &[0, 2], |_| {});
        check(&source(name), &[1], to_fmp4);
    }
}

#[test]
fn hevc() {
    check(&source("film.mkv"), &[0, 1], to_hevc);
}

#[test]
fn copied_picture_with_encoded_sound() {
    for name in ["film.mkv", "film.mp4", "film.ts", "opengop.mkv"] {
        check(&source(name), &[0, 1], copy_video);
        check(&source(name), &[1], |plan| {
            copy_video(plan);
            to_fmp4(plan);
        });
    }
}

#[test]
fn copied_sound() {
    for name in ["film.mkv", "pal.mp4"] {
        check(&source(name), &[1], copy_audio);
        check(&source(name), &[1], |plan| {
            copy_video(plan);
            copy_audio(plan);
        });
    }
}

#[test]
fn sound_only() {
    for name in ["song.flac", "song.m4a", "song.mp3", "song.ogg", "film.mkv"] {
        let alone = |plan: &mut Transcode| plan.video = None;
        check(&source(name), &[0, 2], alone);
        check(&source(name), &[1], |plan| {
            alone(plan);
            to_fmp4(plan);
        });
    }
}

#[test]
fn other_encoders_of_sound() {
    let codecs = [AudioCodec::Ac3, AudioCodec::Eac3, AudioCodec::Mp3, AudioCodec::Opus];
    for codec in codecs {
        check(&source("pal.mkv"), &[1], |plan| sound_of(plan).codec = codec);
    }
    check(&source("surround.mkv"), &[1], |_| {});
}

fn sound_of(plan: &mut Transcode) -> &mut AudioEncode {
    match &mut plan.audio.as_mut().unwrap().action {
        AudioAction::Encode(encode) => encode,
        AudioAction::Copy => panic!("the plan copies"),
    }
}

/// Another sampling rate than the source's: samples lie where one run would have put them.
#[test]
fn sound_of_another_rate() {
    for container in ["mkv", "mp4", "ts"] {
        check_resampled(&format!("disc44.{container}"), AudioCodec::Flac, 48_000);
        check_resampled(&format!("disc48.{container}"), AudioCodec::Aac, 44_100);
    }
    check_resampled("disc44.mkv", AudioCodec::Aac, 48_000);
    check_resampled("disc48.mkv", AudioCodec::Flac, 44_100);
}

/// Encoders that the ones above have nothing in common with.
#[test]
fn sound_of_another_rate_by_other_encoders() {
    for codec in [AudioCodec::Ac3, AudioCodec::Mp3] {
        check_resampled("disc44.mkv", codec, 48_000);
        check_resampled("disc48.mkv", codec, 44_100);
    }
    check_resampled("disc44.mkv", AudioCodec::Opus, 48_000);
    check_resampled("disc48.mkv", AudioCodec::Aac, 22_050);
}

#[track_caller]
fn check_resampled(name: &str, codec: AudioCodec, rate: u32) {
    let change = |plan: &mut Transcode| {
        copy_video(plan);
        let sound = sound_of(plan);
        (sound.codec, sound.sample_rate) = (codec, Some(rate));
        // In MPEG-TS several small packets share a time, as many as there is room for.
        if matches!(codec, AudioCodec::Flac | AudioCodec::Opus) || rate < 32_000 {
            to_fmp4(plan);
        }
    };
    // By how much the sound is louder than its difference, dB: without loss nothing differs but the
    // last bit, and encoders that know little of what came before do nearly the same.
    let least = match codec {
        AudioCodec::Flac => 60.0,
        AudioCodec::Ac3 => 28.0,
        _ => 0.0,
    };
    check_by(&source(name), &[0, 1], change, |whole, pieces, segment| {
        let what = format!("{name} to {codec:?} at {rate} Hz, seam behind {segment}");
        let (one, two) = (output::samples(&whole.whole), output::samples(&pieces.whole));
        assert_eq!(one.len(), two.len(), "{what}");
        let seconds = whole.segments[segment + 1].first_pts(false).unwrap();
        let since = seconds - whole.first_pts(false).unwrap();
        // The first packets of LAME's fade in.
        let from = ((since + 0.1) * f64::from(rate)) as usize;
        let (late, alike) = sound_behind(&one, &two, from);
        assert!(late == 0 && alike > least, "{what}: {late} samples late, {alike:.1} dB");
    });
}

/// By how many samples sound comes later in `pieces`, and by how much it is then louder than what the
/// two differ by, dB. Measured in a tenth of a second and more.
fn sound_behind(whole: &[f32], pieces: &[f32], from: usize) -> (i64, f64) {
    const SPAN: usize = 1_500;
    const WINDOW: usize = 5_000;
    let energy = |samples: &mut dyn Iterator<Item = f32>| samples.map(|v| v * v).sum::<f32>();
    let reference = &whole[from..from + WINDOW];
    let difference = |shift: usize| {
        let found = &pieces[from + shift - SPAN..][..WINDOW];
        energy(&mut reference.iter().zip(found).map(|(a, b)| a - b))
    };
    let (least, shift) = (0..=2 * SPAN)
        .map(|shift| (difference(shift), shift))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap();
    let alike = energy(&mut reference.iter().copied()) / least.max(1.0);
    (shift as i64 - SPAN as i64, 10.0 * f64::from(alike).log10())
}

/// As Jellyfin begins behind a viewer's leap.
#[test]
fn begun_in_the_middle() {
    let seek = |plan: &mut Transcode| {
        plan.inputs[0].start_us = Some(4_171_000);
        hls_of(plan).start_number = 17;
    };
    for name in ["film.mkv", "pal.mp4"] {
        check(&source(name), &[0, 1], seek);
        check(&source(name), &[0], |plan| {
            seek(plan);
            to_fmp4(plan);
        });
    }
    check(&source("film.mkv"), &[0], |plan| {
        seek(plan);
        copy_video(plan);
        plan.inputs[0].accurate = false;
    });
}

/// Jellyfin 10.11.7 and later.
#[test]
fn segments_of_whole_frames() {
    check(&source("film.mkv"), &[0, 1, 2], |plan| {
        hls_of(plan).segment_seconds = 3.003;
        encode_of(plan).keyframes = Keyframes::Every(3.003);
    });
}

/// Rates that change, holes, fields: what the grid makes of them depends on what came before.
#[test]
fn sources_that_are_not_on_the_grid() {
    for name in ["jitter.mkv", "hole.mkv", "switch.mp4", "dropped.mp4", "late.mkv"] {
        check(&source(name), &[0, 1], |_| {});
    }
    check(&source("interlaced.ts"), &[0], |plan| {
        encode_of(plan).deinterlace = Some(Deinterlace { per_field: true });
    });
    check(&source("sixty.mkv"), &[0], |plan| encode_of(plan).frame_rate = Some((30, 1)));
    check(&source("fifty.mkv"), &[0], |plan| {
        let encode = encode_of(plan);
        encode.keyframes = Keyframes::EveryFrames(150);
    });
}

/// Jellyfin follows the playlist of a growing film.
#[test]
fn playlist_of_an_event() {
    check(&source("film.mkv"), &[1], |plan| hls_of(plan).playlist_type = PlaylistType::Event);
}

/// Three workers, and the last writes once more what the second did but couldn't say.
#[test]
fn lost_twice_and_before_it_could_be_said() {
    let whole = Case::new();
    let whole_plan = whole.plan(&source("film.mkv"));
    Run::start(&whole_plan).finish();
    let case = Case::new();
    let plan = case.plan(&source("film.mkv"));
    let at = lost_behind(&plan, 0);
    forget_from(&case, &plan, at.next);
    let device = gpu::under_test().map(|gpu| &gpu.device);
    let at = lost_on(Run::warm().resuming(&plan, device, at), 1);
    forget_from(&case, &plan, at.next + 1);
    resume(&plan, at);
    let whole = Written::read(&whole, &whole_plan);
    same(&whole, &Written::read(&case, &plan), "two seams");
}

/// A picture that the GPU began goes on in software: the parameter sets of the init file are others.
#[test]
fn another_encoder_in_fmp4() {
    for hevc in [false, true] {
        let case = Case::new();
        let mut plan = case.plan(&source("film.mkv"));
        if hevc {
            to_hevc(&mut plan);
        } else {
            to_fmp4(&mut plan);
        }
        let first = lost_behind(&plan, 1);
        forget_from(&case, &plan, first.next);
        // Without a GPU it is the same encoder with other settings.
        let encode = encode_of(&mut plan);
        encode.profile = Some("main".into());
        let other = if hevc { ("ctu", "16") } else { ("ref", "1") };
        encode.encoder_params = vec![(other.0.into(), other.1.into())];
        resume_on(&plan, None, first);
        let written = output::Output::read(&case.out(), &plan);
        decodes(&written.whole, "two encoders");
        // A decoder that was given the init file's alone would read other pictures, or none.
        let sets = |name: &str| {
            let bytes = fs::read(case.out().join(name)).unwrap();
            let kind: u8 = if hevc { 33 << 1 } else { 0x67 };
            let starts = bytes.windows(8).position(|window| window.starts_with(b"mdat"));
            let data = &bytes[starts.unwrap() + 4..];
            units(data).any(|unit| unit.first() == Some(&kind))
        };
        let found: Vec<bool> = written.segments.iter().map(|s| sets(&s.name)).collect();
        assert_eq!(found, [false, false, true, true, true], "hevc: {hevc}");
    }
}

/// NAL units behind their lengths, until something else comes.
fn units(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<4>()?;
        let (unit, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        data = rest;
        Some(unit)
    })
}
