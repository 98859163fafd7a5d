//! One change to a known command at a time: what it becomes in the plan, or why it is refused.

use std::ffi::OsString;

use ffmpeg_args::{
    AudioAction, AudioCodec, AudioEncode, Keyframes, PassthroughKind, Plan, StreamSelect,
    Transcode, Turn, VideoAction, VideoEncode, plan, split_command_line,
};

const SOFTWARE: &str = r#"-analyzeduration 200M -ss 00:00:30.000 -i file:"/m/a.mkv" -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s -codec:v:0 libx264 -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000 -profile:v:0 high -level 41 -x264opts:0 subme=0 -force_key_frames:0 "expr:gte(t,n_forced*3)" -sc_threshold:v:0 0 -vf "format=yuv420p" -codec:a:0 aac -ac 2 -ab 256000 -copyts -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time 3 -hls_segment_type mpegts -start_number 10 -hls_segment_filename "/t/ab%d.ts" -hls_playlist_type vod -hls_list_size 0 -y "/t/ab.m3u8""#;

const VAAPI: &str = r#"-init_hw_device vaapi=va:/dev/dri/renderD128,driver=iHD -hwaccel vaapi -hwaccel_output_format vaapi -noautorotate -i file:"/m/a.mkv" -noautoscale -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s -codec:v:0 hevc_vaapi -tag:v:0 hvc1 -rc_mode VBR -b:v 4000000 -maxrate 4000000 -bufsize 8000000 -profile:v:0 main -level 123 -sei -a53_cc -force_key_frames:0 "expr:gte(t,n_forced*3)" -vf "scale_vaapi=w=1280:h=720:format=nv12:extra_hw_frames=24" -codec:a:0 copy -copyts -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time 3 -hls_segment_type fmp4 -hls_fmp4_init_filename "ab-1.mp4" -start_number 0 -hls_segment_filename "/t/ab%d.mp4" -hls_playlist_type vod -hls_list_size 0 -hls_segment_options movflags=+frag_discont -y "/t/ab.m3u8""#;

const COPY: &str = r#"-fflags +genpts -i file:"/m/a.mkv" -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s -codec:v:0 copy -bsf:v h264_mp4toannexb -start_at_zero -codec:a:0 copy -copyts -avoid_negative_ts disabled -f hls -max_delay 5000000 -hls_time 6 -hls_segment_type mpegts -start_number 0 -hls_segment_filename "/t/ab%d.ts" -hls_playlist_type vod -hls_list_size 0 -y "/t/ab.m3u8""#;

/// Plans `command` with the one place where `from` stands changed to `to`.
fn changed(command: &str, from: &str, to: &str) -> Plan {
    assert_eq!(command.matches(from).count(), 1, "{from} stands once");
    let argv: Vec<OsString> =
        split_command_line(&command.replace(from, to)).into_iter().map(OsString::from).collect();
    plan(&argv)
}

#[track_caller]
fn planned(command: &str, from: &str, to: &str) -> Transcode {
    match changed(command, from, to) {
        Plan::Transcode(transcode) => *transcode,
        Plan::Passthrough(refusal) => panic!("{from} -> {to}: {refusal}"),
    }
}

#[track_caller]
fn video(command: &str, from: &str, to: &str) -> VideoEncode {
    match planned(command, from, to).video.expect("a picture").action {
        VideoAction::Encode(encode) => encode,
        VideoAction::Copy => panic!("copied"),
    }
}

#[track_caller]
fn audio(from: &str, to: &str) -> AudioEncode {
    match planned(SOFTWARE, from, to).audio.expect("sound").action {
        AudioAction::Encode(encode) => encode,
        AudioAction::Copy => panic!("copied"),
    }
}

#[track_caller]
fn refused(command: &str, from: &str, to: &str, kind: PassthroughKind, named: &str) {
    match changed(command, from, to) {
        Plan::Transcode(_) => panic!("{from} -> {to}: planned"),
        Plan::Passthrough(refusal) => {
            assert_eq!(refusal.kind, kind, "{from} -> {to}: {refusal}");
            assert!(refusal.reason.contains(named), "{from} -> {to}: {refusal}");
        }
    }
}

#[test]
fn every_spelling_of_the_keyframe_rule_is_a_period() {
    let rule = r#"-force_key_frames:0 "expr:gte(t,n_forced*3)" -sc_threshold:v:0 0"#;
    for (to, expect) in [
        (r#"-force_key_frames "expr:gte(t,n_forced*3)""#, Keyframes::Every(3.0)),
        (r#"-force_key_frames:v:0 "expr:gte(t,6576+n_forced*6)""#, Keyframes::Every(6.0)),
        (
            r#"-force_key_frames:0 "expr:gte(t,0+n_forced*3)" -g 72 -keyint_min 72 -sc_threshold 0"#,
            Keyframes::Every(3.0),
        ),
        ("-g:v:0 75 -keyint_min:v:0 75 -sc_threshold:v:0 0", Keyframes::EveryFrames(75)),
        ("-g 72 -keyint_min 72 -sc_threshold 0", Keyframes::EveryFrames(72)),
    ] {
        assert_eq!(video(SOFTWARE, rule, to).keyframes, expect, "{to}");
    }
    for to in [
        "",
        "-g 0",
        "-g 72 -keyint_min 24",
        "-keyint_min 72",
        "-force_key_frames 00:00:03",
        "-force_key_frames expr:gte(t,n_forced*0)",
        "-force_key_frames expr:gte(t,x+n_forced*3)",
        "-force_key_frames expr:gte(n,n_forced*3)",
    ] {
        refused(SOFTWARE, rule, to, PassthroughKind::UnknownArgument, "");
    }
}

#[test]
fn levels_are_tenfold_whatever_the_encoder_counts_in() {
    for (command, from, to, expect) in [
        (SOFTWARE, "-level 41", "-level 4.1", 41),
        (SOFTWARE, "-level 41", "-level 51", 51),
        (SOFTWARE, "-level 41", "-level 4", 40),
        (VAAPI, "-level 123", "-level 150", 50),
        (VAAPI, "-level 123", "-level 60", 20),
    ] {
        assert_eq!(video(command, from, to).level, Some(expect), "{to}");
    }
    for (command, from, to) in [
        (SOFTWARE, "-level 41", "-level 99"),
        (SOFTWARE, "-level 41", "-level 4.11"),
        (VAAPI, "-level 123", "-level 124"),
    ] {
        refused(command, from, to, PassthroughKind::UnknownArgument, to);
    }
}

#[test]
fn sound_options_are_read_in_every_spelling() {
    assert_eq!(audio("-ab 256000", "-b:a 256k").bitrate, Some(256_000));
    let encoder = "aac -ac 2 -ab 256000";
    let fdk = audio(encoder, "libfdk_aac -ac 2 -vbr:a 4");
    assert_eq!((fdk.codec, fdk.quality), (AudioCodec::Aac, Some(4.0)));
    let lame = audio(encoder, "libmp3lame -qscale:a 2");
    assert_eq!((lame.codec, lame.quality), (AudioCodec::Mp3, Some(2.0)));
    assert_eq!(audio(encoder, "libmp3lame -abr:a 1 -b:a 320000").bitrate, Some(320_000));
    assert_eq!(audio(encoder, "aac_at -aac_at_mode:a 2 -b:a 256000").bitrate, Some(256_000));
    let mixed = audio(encoder, r#"aac -ab 256000 -af "pan=stereo|c0=c2+0.30*c0|c1=c2,volume=2""#);
    assert_eq!((mixed.mix.unwrap().layout.as_str(), mixed.volume), ("stereo", Some(2.0)));
    let steps = r#"aac -ac 2 -ab 256000 -af "pan=5.1(side)|c0=c0|c1=c1|c2=c2|c3=c3|c4=0.707*c4+0.707*c6|c5=0.707*c5+0.707*c7,pan=stereo|c0=c0+0.707*c4|c1=c1+0.707*c5""#;
    let mix = audio(encoder, steps).mix.unwrap();
    assert_eq!(mix.outputs.iter().map(|output| output.gains.len()).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(audio("-ab 256000", r#"-af "volume=1.5""#).volume, Some(1.5));
    assert_eq!(audio("-ab 256000", "-ar 48000").sample_rate, Some(48_000));
    let alone = planned(
        SOFTWARE,
        r#"-map 0:0 -map 0:1 -map -0:s -codec:v:0 libx264 -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000 -profile:v:0 high -level 41 -x264opts:0 subme=0 -force_key_frames:0 "expr:gte(t,n_forced*3)" -sc_threshold:v:0 0 -vf "format=yuv420p" -codec:a:0 aac -ac 2 -ab 256000"#,
        "-acodec libmp3lame -ab 128000 -ac 2 -vn",
    );
    assert!(alone.video.is_none());
    assert_eq!(alone.audio.unwrap().source.stream, StreamSelect::Best);

    use PassthroughKind::{UnknownArgument, UnsupportedFeature};
    for (to, kind, named) in [
        (r#"-af "pan=stereo|FL=FC""#, UnknownArgument, "pan"),
        (r#"-af "volume=2,pan=stereo|FL=FC|FR=FC""#, UnknownArgument, "out of order"),
        (r#"-ac 6 -af "pan=stereo|FL=FC|FR=FC""#, UnknownArgument, "-ac"),
        (r#"-af "asetpts=PTS-30/TB""#, UnknownArgument, "asetpts"),
        ("-vbr:a 4", UnknownArgument, "-vbr:a 4"),
        ("-qscale:a 2", UnknownArgument, "-qscale:a 2"),
        (r#"-af "volume=2,volume=2""#, UnknownArgument, "volume"),
        (r#"-af "volume=2dB""#, UnknownArgument, "2dB"),
        (r#"-af "equalizer=f=1""#, UnknownArgument, "equalizer"),
        ("-ab 1 -b:a 2", UnknownArgument, "twice"),
        ("-ab loud", UnknownArgument, "-ab loud"),
        ("-ar 0", UnknownArgument, "-ar 0"),
    ] {
        refused(SOFTWARE, "-ab 256000", to, kind, named);
    }
    let both = "libfdk_aac -ab 1 -vbr:a 5";
    refused(SOFTWARE, encoder, both, UnknownArgument, "quality");
    refused(SOFTWARE, encoder, "libfdk_aac -vbr:a 6", UnknownArgument, "-vbr:a 6");
    refused(SOFTWARE, "-codec:a:0 aac", "-codec:a:0 libvorbis", UnsupportedFeature, "Vorbis");
    refused(SOFTWARE, "-codec:a:0 aac", "-codec:a:0 alac", UnsupportedFeature, "alac");
    refused(SOFTWARE, "-codec:a:0 aac", "-codec:a:0 loud", UnknownArgument, "loud");
    refused(SOFTWARE, "-codec:a:0 aac", "", UnknownArgument, "codec");
}

#[test]
fn copied_sound_is_trimmed_where_the_seek_goes() {
    let copy = "-codec:a:0 aac -ac 2 -ab 256000";
    let trim = r#"-codec:a:0 copy -bsf:a noise=drop='lt(pts*tb\,30.000)',aac_adtstoasc"#;
    assert_eq!(planned(SOFTWARE, copy, trim).audio.unwrap().action, AudioAction::Copy);
    let elsewhere = trim.replace("30.000", "31.000");
    refused(SOFTWARE, copy, &elsewhere, PassthroughKind::UnknownArgument, "-bsf:a");
}

#[test]
fn maps_say_which_streams() {
    let maps = "-map 0:0 -map 0:1 -map -0:s";
    let copied = planned(COPY, maps, "-map 0:2 -map 0:5 -sn");
    assert_eq!(copied.video.unwrap().source.stream, StreamSelect::Index(2));
    assert_eq!(copied.audio.unwrap().source.stream, StreamSelect::Index(5));
    let best = planned(COPY, maps, "-sn");
    assert_eq!(best.video.unwrap().source.stream, StreamSelect::Best);

    use PassthroughKind::{UnknownArgument, UnsupportedFeature};
    for (to, kind, named) in [
        ("", UnknownArgument, "-sn"),
        ("-map 0:0", UnknownArgument, "-map"),
        ("-map 0:0 -map 0:0 -map -0:s", UnknownArgument, "one stream"),
        ("-map 0:0 -map 0:1 -map 0:2", UnsupportedFeature, "3 mapped"),
        ("-map 0:0 -map 1:0", UnknownArgument, "-map 1:0"),
        ("-map 0:0 -map 0:1 -map -0:0", UnknownArgument, "-map -0:0"),
        ("-map 0:0 -map -0:a -map 0:1", UnknownArgument, "-map 0:1"),
        ("-map 0:v -map 0:a", UnknownArgument, "-map 0:v"),
        ("-map 0 -sn", UnknownArgument, "-map 0"),
        ("-vn -an", UnknownArgument, "neither"),
        ("-map 0:0 -map -0:a -map -0:s", UnknownArgument, "-codec:a:0"),
    ] {
        refused(COPY, maps, to, kind, named);
    }
    let file = r#"-i file:"/m/a.mkv""#;
    let second = r#"-i file:"/m/a.mkv" -i file:"/m/b.ac3""#;
    refused(COPY, file, second, UnsupportedFeature, "input 1");
}

#[test]
fn only_the_time_base_that_ffmpeg_chooses_is_offered() {
    for to in ["-copyts -vsync -1", "-copyts -vsync auto", "-fps_mode auto -copyts"] {
        planned(SOFTWARE, "-copyts", to);
    }
    for (to, kind) in [
        ("-copyts -vsync 0", PassthroughKind::UnsupportedFeature),
        ("-copyts -fps_mode passthrough", PassthroughKind::UnsupportedFeature),
        ("-copyts -fps_mode vfr", PassthroughKind::UnsupportedFeature),
        ("-copyts -vsync sometimes", PassthroughKind::UnknownArgument),
    ] {
        refused(SOFTWARE, "-copyts", to, kind, "");
    }
}

#[test]
fn who_turns_the_picture_is_read_from_its_input() {
    let clock = r#"transpose_vaapi=dir=clock,scale_vaapi=w=1280"#;
    let turning = VAAPI.replace("scale_vaapi=w=1280", clock);
    for (command, to, expect) in [
        (VAAPI, "", Turn::AsMarked),
        (VAAPI, "-noautorotate", Turn::Never),
        (VAAPI, "-autorotate 0", Turn::Never),
        (VAAPI, "-noautorotate -display_rotation 0", Turn::Never),
        (&turning, "-noautorotate -display_rotation 0", Turn::Clockwise),
    ] {
        assert_eq!(video(command, "-noautorotate", to).turn, expect, "{to}");
    }
    for (command, from, to, named) in [
        (VAAPI, "-noautorotate", "-display_rotation 0", "-display_rotation 0"),
        (VAAPI, "-noautorotate", "-noautorotate -display_rotation 90", "-display_rotation 90"),
        (VAAPI, "-noautorotate", "-autorotate 1", "-autorotate 1"),
        (&turning, "-noautorotate", "", "no -noautorotate"),
        // Players would turn it once more.
        (&turning, "hvc1", "hvc1", "without -display_rotation"),
        (COPY, "-fflags +genpts", "-noautorotate", "not decoded"),
        (COPY, "-fflags +genpts", "-hwaccel vaapi -hwaccel_output_format vaapi", "not decoded"),
    ] {
        refused(command, from, to, PassthroughKind::UnknownArgument, named);
    }
}

#[test]
fn known_features_are_refused_as_such() {
    for (command, from, to, named) in [
        (COPY, "h264_mp4toannexb", "hevc_mp4toannexb,dovi_rpu=strip=1", "dovi_rpu"),
        (COPY, "h264_mp4toannexb", "hevc_metadata=remove_hdr10plus=1", "hdr10plus"),
        (COPY, "-codec:a:0 copy", "-codec:s:0 copy -codec:a:0 copy", "-codec:s:0 copy"),
        (COPY, "+genpts", "+genpts+discardcorrupt", "discardcorrupt"),
        (VAAPI, "hvc1", "dvh1", "dvh1"),
        (VAAPI, "hevc_vaapi", "av1_vaapi", "av1_vaapi"),
        (VAAPI, "-profile:v:0 main", "-profile:v:0 main10", "main10"),
        (SOFTWARE, "libx264", "libsvtav1", "libsvtav1"),
        (SOFTWARE, "libx264", "libvpx-vp9", "libvpx-vp9"),
        (SOFTWARE, "-profile:v:0 high", "-profile:v:0 high10", "high10"),
        (SOFTWARE, "format=yuv420p", "tonemapx=tonemap=bt2390", "tonemapx"),
        (SOFTWARE, "format=yuv420p", "crop=iw/2:ih:0:0,format=yuv420p", "crop"),
    ] {
        refused(command, from, to, PassthroughKind::UnsupportedFeature, named);
    }
}

#[test]
fn what_is_not_understood_is_named() {
    for (command, from, to, named) in [
        (SOFTWARE, "-crf 23", "-crf good", "-crf good"),
        (SOFTWARE, "-crf 23", "", "-crf"),
        (SOFTWARE, "-crf 23", "-crf 23 -crf 24", "-crf 24"),
        (SOFTWARE, "-preset veryfast", "-preset p4", "-preset p4"),
        (SOFTWARE, "-profile:v:0 high", "-profile:v 578", "578"),
        (SOFTWARE, "-sc_threshold:v:0 0", "-sc_threshold:v:0 40", "40"),
        (SOFTWARE, "libx264", "libfrobnicate", "libfrobnicate"),
        (SOFTWARE, r#"-vf "format=yuv420p""#, "", "pixel format"),
        (SOFTWARE, "format=yuv420p", "format=nv12,hwupload_vaapi", "vaapi memory"),
        (SOFTWARE, "format=yuv420p", "fps=25,yadif=1,format=yuv420p", "doubles"),
        (SOFTWARE, "format=yuv420p\"", "fps=25,format=yuv420p\" -r 30", "fps"),
        (SOFTWARE, "-ss 00:00:30.000", "-ss -30", "-ss -30"),
        (SOFTWARE, "-copyts ", "", "-copyts"),
        (SOFTWARE, "-y ", "", "no -y"),
        (SOFTWARE, "-avoid_negative_ts disabled ", "", "-avoid_negative_ts"),
        (SOFTWARE, "-hls_list_size 0", "-hls_list_size 5", "-hls_list_size 5"),
        (SOFTWARE, "-hls_time 3", "-hls_time 0", "-hls_time 0"),
        (SOFTWARE, "-hls_segment_type mpegts", "-hls_segment_type mp4", "mp4"),
        (SOFTWARE, "/t/ab%d.ts", "/other/ab%d.ts", "/other"),
        (SOFTWARE, "/t/ab%d.ts", "/t/ab%03d.ts", "%03d"),
        (SOFTWARE, "/t/ab.m3u8", "/t/ab.mp4", "ab.mp4"),
        (SOFTWARE, "\"/t/ab.m3u8\"", "\"/t/ab.m3u8\" -sn", "behind the output"),
        (VAAPI, "-rc_mode VBR", "-rc_mode QVBR", "QVBR"),
        (VAAPI, "-hwaccel vaapi", "-hwaccel cuda", "-hwaccel"),
        (VAAPI, "-hwaccel_output_format vaapi", "", "scale_vaapi"),
        (VAAPI, "ab-1.mp4", "/t/ab-1.mp4", "/t/ab-1.mp4"),
        (VAAPI, "+frag_discont", "+frag_discont+faststart", "faststart"),
        (VAAPI, "vaapi=va:", "frobnicate=va:", "frobnicate"),
        (COPY, "-codec:v:0 copy", "-codec:v:0 copy -vf yadif", "-vf yadif"),
        (COPY, "-codec:v:0 copy", "-codec:v:0 copy -crf 20", "-crf 20"),
        (COPY, "h264_mp4toannexb", "dump_extra", "dump_extra"),
        (COPY, "+genpts", "+frobnicate", "frobnicate"),
    ] {
        refused(command, from, to, PassthroughKind::UnknownArgument, named);
    }
}

#[test]
fn inputs_that_are_no_files_are_refused() {
    let file = r#"file:"/m/a.mkv""#;
    for to in ["smb://host/a.ts", r#"bluray:"/m/a.iso""#, "pipe:0"] {
        refused(COPY, file, to, PassthroughKind::UnsupportedInput, to.split(':').next().unwrap());
    }
    // There once was a panic for want of any.
    let all = "-fflags +genpts -i file:\"/m/a.mkv\" -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s";
    let none = "-map_metadata -1 -map_chapters -1 -sn";
    refused(COPY, all, none, PassthroughKind::UnknownArgument, "no input");
    let from = "-fflags +genpts";
    for format in ["concat", "lavfi", "hls", "v4l2"] {
        let to = format!("{from} -f {format}");
        refused(COPY, from, &to, PassthroughKind::UnsupportedInput, format);
    }
}

#[test]
fn x265_gets_its_frame_count_among_its_parameters() {
    let to = r#"libx265 -bf 0 -x265-params:0 no-open-gop=1:no-sao -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000 -profile:v:0 main -force_key_frames:0"#;
    let from = r#"libx264 -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000 -profile:v:0 high -level 41 -x264opts:0 subme=0 -force_key_frames:0"#;
    let params = video(SOFTWARE, from, to).encoder_params;
    let expect = [("no-open-gop", "1"), ("no-sao", ""), ("bframes", "0")];
    assert!(params.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expect), "{params:?}");
}

#[test]
fn summaries_fit_a_line() {
    let summary = |command, from, to| planned(command, from, to).summary();
    assert_eq!(
        summary(SOFTWARE, "-threads 0", "-threads 2"),
        "H.264 veryfast crf 23, AAC 2ch 256 kbit/s -> mpegts 3 s from 10"
    );
    assert_eq!(
        summary(VAAPI, "-threads 0", "-threads 2"),
        "HEVC 1280x720 4000 kbit/s, audio copy -> fmp4 3 s from 0"
    );
    assert_eq!(
        summary(COPY, "-threads 0", "-threads 2"),
        "video copy, audio copy -> mpegts 6 s from 0"
    );
}

#[test]
fn questions_and_other_jobs_are_told_apart() {
    use PassthroughKind::{NotATranscode, Probe, UnknownArgument, UnsupportedKind};
    for (line, kind) in [
        ("", Probe),
        ("-version", Probe),
        ("-hide_banner -encoders", Probe),
        ("-h", Probe),
        (
            "-loglevel quiet -hwaccel_flags +low_priority -hide_banner -f lavfi -i nullsrc=s=1x1:d=100 -f null -",
            Probe,
        ),
        ("-v verbose -hide_banner -init_hw_device vaapi=va:/dev/dri/renderD128", Probe),
        ("-i /m/a.mkv", NotATranscode),
        (
            "-nostdin -y -i /m/a.mkv -map 0:2 -an -vn -c:s srt -flush_packets 1 /d/2.srt",
            NotATranscode,
        ),
        ("-i /m/a.mkv -c copy /m/b.mkv", UnsupportedKind),
        ("-i /m/a.mkv -f mpegts pipe:1", UnsupportedKind),
        ("-i /m/a.mkv /m/b.mkv /m/c.mkv", UnsupportedKind),
        ("-frobnicate 1", UnknownArgument),
    ] {
        let argv: Vec<OsString> =
            split_command_line(line).into_iter().map(OsString::from).collect();
        match plan(&argv) {
            Plan::Passthrough(refusal) => assert_eq!(refusal.kind, kind, "{line}: {refusal}"),
            Plan::Transcode(_) => panic!("{line}: planned"),
        }
    }
}
