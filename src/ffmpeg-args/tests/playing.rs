//! Ways of playing beside the plain one: live, over the network, in one file, with subtitles; and
//! what looks like them and isn't Jellyfin's.

use std::ffi::OsString;

use ffmpeg_args::{
    Delivery, FileFormat, Keyframes, Location, Need, Output, PassthroughKind, Plan, StreamSelect,
    Subtitles, Transcode, plan, split_command_line,
};

const ID: &str = "be1e1b081f1d3b9c3a0d14f042d56a41";

const LIVE: &str = r#"-analyzeduration 3000000 -user_agent "VLC 3" -fflags +igndts+genpts -f mpegts -i "http://192.0.2.3/stream.ts" -map_metadata -1 -map_chapters -1 -threads 0 -sn -codec:v:0 copy -start_at_zero -flags -global_header -codec:a:0 copy -copyts -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time 3 -hls_segment_type mpegts -start_number 0 -hls_base_url "hls/ab/" -hls_segment_filename "/t/ab%d.ts" -hls_playlist_type event -hls_list_size 0 -y "/t/ab.m3u8""#;

const FILM: &str = r#"-analyzeduration 200M -ss 00:00:30.000 -i file:"/m/a.mkv" -map 0:0 -map 0:1 -map -0:s -codec:v:0 libx264 -force_key_frames "expr:gte(t,n_forced*5)" -vf "format=yuv420p" -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000 -profile:v:0 high -map_metadata -1 -map_chapters -1 -threads 0 -codec:a:0 aac -ac 2 -ab 256000 -f mp4 -movflags frag_keyframe+empty_moov+delay_moov -y "/t/be1e1b081f1d3b9c3a0d14f042d56a41.mp4""#;

const MUSIC: &str = r#"-ss 00:01:00.000 -i file:"/m/a.flac" -threads 0 -vn -ab 320000 -ac 2 -acodec libmp3lame -ar 44100 -id3v2_version 3 -write_id3v1 1 -y "/t/be1e1b081f1d3b9c3a0d14f042d56a41.mp3""#;

const DRAWN: &str = r#"-canvas_size 1920x1080 -i file:"/m/a.mkv" -canvas_size 1920x1080 -i file:"/m/a.sup" -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map 1:0 -sn -map -0:0 -codec:v:0 libx264 -preset veryfast -crf 23 -force_key_frames:0 "expr:gte(t,n_forced*3)" -filter_complex "[1:0]scale,scale=1280:720:fast_bilinear[sub];[0:0]format=yuv420p[main];[main][sub]overlay=eof_action=pass:repeatlast=0" -codec:a:0 copy -copyts -avoid_negative_ts disabled -f hls -max_delay 5000000 -hls_time 3 -hls_segment_type mpegts -start_number 0 -hls_segment_filename "/t/ab%d.ts" -hls_playlist_type vod -hls_list_size 0 -y "/t/ab.m3u8""#;

fn planned_or_not(command: &str) -> Plan {
    let argv: Vec<OsString> = split_command_line(command).into_iter().map(OsString::from).collect();
    plan(&argv)
}

#[track_caller]
fn changed(command: &str, changes: &[(&str, &str)]) -> Plan {
    let mut command = command.to_owned();
    for (from, to) in changes {
        assert!(command.contains(from), "{from} stands in {command}");
        command = command.replacen(from, to, 1);
    }
    planned_or_not(&command)
}

#[track_caller]
fn planned(command: &str, changes: &[(&str, &str)]) -> Transcode {
    match changed(command, changes) {
        Plan::Transcode(transcode) => *transcode,
        Plan::Passthrough(refusal) => panic!("{changes:?}: {refusal}"),
    }
}

#[track_caller]
fn refused(command: &str, changes: &[(&str, &str)], named: &str) -> PassthroughKind {
    match changed(command, changes) {
        Plan::Transcode(_) => panic!("{changes:?}: planned"),
        Plan::Passthrough(refusal) => {
            assert!(refusal.reason.contains(named), "{changes:?}: {refusal}");
            refusal.kind
        }
    }
}

#[test]
fn what_is_live_comes_by_network() {
    let live = planned(LIVE, &[]);
    let Location::Network(network) = &live.inputs[0].location else { panic!("{:?}", live.inputs) };
    assert_eq!(network.url, "http://192.0.2.3/stream.ts");
    assert_eq!(network.options, ["-user_agent", "VLC 3"]);
    assert_eq!(network.delivery, Delivery::Bytes);
    assert_eq!(live.inputs[0].format.as_deref(), Some("mpegts"));
    assert_eq!(live.video.as_ref().unwrap().source.stream, StreamSelect::Best);
    assert_eq!(live.output.hls().unwrap().base_url, "hls/ab/");
    assert!(matches!(live.needs()[0], Need::Network { input: 0, .. }));

    for (changes, delivery) in [
        (&[("-f mpegts", "-f hls")], Delivery::Remuxed),
        (&[("stream.ts", "stream.m3u8?x=1")], Delivery::Remuxed),
        (&[("http:", "rtsp:")], Delivery::Remuxed),
        (&[("http:", "udp:")], Delivery::Bytes),
    ] {
        match planned(LIVE, changes).inputs.remove(0).location {
            Location::Network(network) => assert_eq!(network.delivery, delivery, "{changes:?}"),
            other => panic!("{other:?}"),
        }
    }
    let again = "-f mpegts -stream_loop -1 -reconnect_at_eof 1 -reconnect_streamed 1 -reconnect_delay_max 2";
    match planned(LIVE, &[("-f mpegts", again)]).inputs.remove(0).location {
        Location::Network(network) => {
            let options = network.options.join(" ");
            assert!(options.ends_with(&again["-f mpegts ".len()..]), "{options}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_a_network_not_everything_is_asked() {
    use PassthroughKind::{UnknownArgument, UnsupportedFeature, UnsupportedInput};
    let url = "\"http://192.0.2.3/stream.ts\"";
    for (changes, named, kind) in [
        (&[("-f mpegts", "-ss 00:00:05.000 -f mpegts")], "from its beginning", UnsupportedInput),
        (&[("-f mpegts", "-f lavfi")], "lavfi", UnsupportedInput),
        (&[("-f mpegts", "-f mpegts -stream_loop -1")], "-reconnect_at_eof", UnsupportedFeature),
        (&[("-f mpegts", "-f mpegts -stream_loop 3")], "-stream_loop 3", UnknownArgument),
        (&[("-f mpegts", "-f mpegts -reconnect maybe")], "-reconnect maybe", UnknownArgument),
        (&[("http:", "gopher:")], "gopher", UnsupportedInput),
        // Options of a protocol are none of a file's.
        (&[(url, "\"/m/a.ts\"")], "-user_agent VLC 3 of a file", UnknownArgument),
    ] {
        assert_eq!(refused(LIVE, changes, named), kind, "{changes:?}");
    }
}

#[test]
fn an_input_may_be_held_back() {
    for (to, expect) in [
        ("-re -f mpegts", 1.0),
        ("-re -readrate_catchup 100 -f mpegts", 1.0),
        ("-readrate 10 -readrate_catchup 1000 -f mpegts", 10.0),
        ("-readrate 1.5 -readrate_initial_burst 2 -f mpegts", 1.5),
    ] {
        assert_eq!(planned(LIVE, &[("-f mpegts", to)]).inputs[0].read_rate, Some(expect), "{to}");
    }
    for to in ["-readrate 0", "-readrate fast", "-readrate_catchup 5", "-re -readrate 2"] {
        refused(LIVE, &[("-f mpegts", &format!("{to} -f mpegts"))], "-re");
    }
}

#[test]
fn copied_sound_is_in_sync_by_itself() {
    planned(LIVE, &[("-fflags", "-async 1 -fflags")]);
    let encoded = [("-fflags", "-async 1 -fflags"), ("-codec:a:0 copy", "-codec:a:0 aac -ab 1000")];
    assert_eq!(
        refused(LIVE, &encoded, "-async 1 of encoded sound"),
        PassthroughKind::UnsupportedFeature
    );
    refused(LIVE, &[("-fflags", "-async 5 -fflags")], "-async 5");
}

#[test]
fn a_film_is_one_file() {
    let film = planned(FILM, &[]);
    assert!(!film.source_times && !film.start_at_zero);
    let Output::Progressive(output) = &film.output else { panic!("{:?}", film.output) };
    assert_eq!(output.format, FileFormat::FragmentedMp4);
    assert_eq!(output.name, format!("{ID}.mp4"));
    assert_eq!(film.encoded_video().unwrap().keyframes, Keyframes::Every(5.0));
    let mp4 = " -f mp4 -movflags frag_keyframe+empty_moov+delay_moov";
    for (extension, format) in [("ts", FileFormat::MpegTs), ("mkv", FileFormat::Matroska)] {
        let changes = [(mp4, ""), (".mp4\"", &*format!(".{extension}\""))];
        match planned(FILM, &changes).output {
            Output::Progressive(output) => assert_eq!(output.format, format),
            other => panic!("{other:?}"),
        }
    }
    let times = "-preset veryfast -copyts -avoid_negative_ts disabled -start_at_zero";
    let film = planned(FILM, &[("-preset veryfast", times)]);
    assert!(film.source_times && film.start_at_zero);
}

#[test]
fn a_film_that_is_not_jellyfins_is_ffmpegs() {
    use PassthroughKind::{UnknownArgument, UnsupportedFeature, UnsupportedKind};
    let mp4 = " -f mp4 -movflags frag_keyframe+empty_moov+delay_moov";
    for (changes, named, kind) in [
        (&[(mp4, "")][..], "isn't fragmented", UnsupportedFeature),
        (&[("frag_keyframe+", "")], "-movflags", UnknownArgument),
        (&[(" -f mp4", "")], "isn't fragmented", UnsupportedFeature),
        (&[(mp4, ""), (".mp4\"", ".avi\"")], ".avi", UnsupportedKind),
        (&[(".mp4\"", ".mkv\"")], "-movflags", UnknownArgument),
        (&[(mp4, ""), (".mp4\"", ".webm\"")], "H.264 in WebM", UnknownArgument),
        (&[(ID, "Film")], "doesn't name so", UnsupportedKind),
        (&[(ID, "BE1E1B081F1D3B9C3A0D14F042D56A41")], "doesn't name so", UnsupportedKind),
        (&[("-map_chapters -1 ", "")], "output -f mp4", UnsupportedKind),
        (&[("-map_metadata -1 ", "")], "-map_metadata", UnknownArgument),
        (&[("-y ", "")], "no -y", UnknownArgument),
        (&[("-preset", "-copyts -preset")], "-avoid_negative_ts", UnknownArgument),
        (&[("-preset", "-avoid_negative_ts disabled -preset")], "-copyts", UnknownArgument),
        (&[("-preset", "-start_at_zero -preset")], "-start_at_zero", UnknownArgument),
        (&[("-f mp4", "-codec:s:0 copy -f mp4")], "-codec:s:0", UnsupportedFeature),
        (&[("-f mp4", "-disposition:s:0 default -f mp4")], "-disposition", UnsupportedFeature),
        (&[("-f mp4", "-t 5 -f mp4")], "-t 5", UnknownArgument),
        (&[("-codec:v:0", "-mpegts_m2ts_mode 1 -codec:v:0")], "m2ts", UnsupportedFeature),
        (
            &[(mp4, ""), (".mp4\"", ".mkv\""), ("-preset", "-tag:v:0 hvc1 -preset")],
            "-tag:v",
            UnknownArgument,
        ),
        (
            &[(mp4, ""), (".mp4\"", ".ts\""), ("0 aac -ac 2 -ab", "0 flac -ac 2 -ab")],
            "FLAC in MPEG-TS",
            UnknownArgument,
        ),
    ] {
        assert_eq!(refused(FILM, changes, named), kind, "{changes:?}");
    }
}

#[test]
fn recordings_are_ffmpegs() {
    let recording = r#"-async 1 -fflags +igndts -analyzeduration 5000000 -i "http://192.0.2.8/stream.ts" -codec:v:0 copy -fflags +genpts -map_metadata -1 -threads 0 -codec:a:0 copy -sn -y "/r/be1e1b081f1d3b9c3a0d14f042d56a41.ts""#;
    assert_eq!(refused(recording, &[], "recording"), PassthroughKind::NotATranscode);
    let encoded = [(
        "-codec:v:0 copy",
        "-codec:v:0 libx264 -force_key_frames \"expr:gte(t,n_forced*5)\" -vf \"yadif=0:-1:0\" -pix_fmt yuv420p -preset superfast -crf 23 -profile:v high -level 41",
    )];
    assert_eq!(refused(recording, &encoded, "output"), PassthroughKind::UnsupportedKind);
    // What is watched drops its chapters.
    planned(recording, &[("-map_metadata -1", "-map_metadata -1 -map_chapters -1")]);
}

#[test]
fn music_keeps_its_tags() {
    let music = planned(MUSIC, &[]);
    assert!(music.video.is_none() && !music.source_times);
    for (extension, codec, format) in [
        ("mp3", "libmp3lame", FileFormat::Mp3),
        ("aac", "libfdk_aac", FileFormat::Adts),
        ("flac", "flac", FileFormat::Flac),
        ("ogg", "libvorbis", FileFormat::Ogg),
        ("opus", "libopus", FileFormat::Ogg),
        ("m4a", "aac -movflags empty_moov+delay_moov", FileFormat::FragmentedMp4),
        ("webm", "libopus", FileFormat::WebM),
        ("mka", "libvorbis", FileFormat::Matroska),
        ("mp3", "copy", FileFormat::Mp3),
    ] {
        let changes = [("libmp3lame", codec), (".mp3\"", &*format!(".{extension}\""))];
        match planned(MUSIC, &changes).output {
            Output::Progressive(output) => assert_eq!(output.format, format, "{extension}"),
            other => panic!("{other:?}"),
        }
    }
    use PassthroughKind::{UnknownArgument, UnsupportedFeature, UnsupportedKind};
    for (changes, named, kind) in [
        (&[(".mp3\"", ".wav\"")][..], ".wav", UnsupportedKind),
        (&[(".mp3\"", ".m4a\"")], "isn't fragmented", UnsupportedFeature),
        (&[(".mp3\"", ".aac\"")], "MP3 in AAC", UnknownArgument),
        (&[("-vn ", "")], "output", UnsupportedKind),
        (&[("-write_id3v1 1", "")], "-write_id3v1", UnknownArgument),
        (&[("-id3v2_version 3", "-id3v2_version 4")], "-id3v2_version 4", UnknownArgument),
        (&[("-ar 44100", "-ar 44100 -f s16le")], "s16le", UnsupportedKind),
        (&[("-vn", "-vn -copyts")], "-copyts", UnknownArgument),
        (&[("-vn", "-vn -map 0:0 -map 0:1")], "-map", UnknownArgument),
        (&[("-vn", "-vn -metadata a=b")], "-metadata", UnknownArgument),
        (&[("libmp3lame -ar", "copy -ac 0 -ar")], "-ac 0", UnknownArgument),
    ] {
        assert_eq!(refused(MUSIC, changes, named), kind, "{changes:?}");
    }
}

#[test]
fn text_is_drawn_at_the_films_times() {
    let drawn = r#"format=yuv420p,subtitles=f='/m/a.ass':fontsdir='/f'"#;
    let text = |changes: &[(&str, &str)]| match planned(FILM, changes)
        .encoded_video()
        .and_then(|encode| encode.subtitles.clone())
    {
        Some(Subtitles::Text(text)) => text,
        other => panic!("{other:?}"),
    };
    let shifted = format!("{drawn},setpts=PTS -30/TB");
    let sound = ("-ab 256000", "-ab 256000 -af \"asetpts=PTS-30/TB\"");
    assert_eq!(text(&[("format=yuv420p", &shifted), sound]).shift_seconds, 30.0);
    let copied = ("aac -ac 2 -ab 256000", "copy");
    assert_eq!(text(&[("format=yuv420p", &shifted), copied]).shift_seconds, 30.0);
    // A live film's runtime isn't known, nor where it would have to be shifted.
    assert_eq!(text(&[("format=yuv420p", drawn)]).shift_seconds, 0.0);
    let needs = planned(FILM, &[("format=yuv420p", drawn)]);
    let needs = needs.needs();
    assert!(matches!(needs[1..], [Need::Subtitles(_), Need::Fonts(_), Need::Output(_)]));

    let elsewhere = shifted.replace("30", "90");
    let times = ("-preset", "-copyts -avoid_negative_ts disabled -preset");
    for changes in [
        &[("format=yuv420p", &*shifted)][..],
        &[("format=yuv420p", drawn), sound],
        &[("format=yuv420p", &elsewhere), copied],
        &[("format=yuv420p", &shifted), copied, times],
    ] {
        let kind = refused(FILM, changes, "setpts");
        assert_eq!(kind, PassthroughKind::UnknownArgument, "{changes:?}");
    }
}

#[test]
fn pictures_are_laid_over_from_a_file_of_their_own() {
    let drawn = planned(DRAWN, &[]);
    let Some(Subtitles::Pictures(pictures)) = &drawn.encoded_video().unwrap().subtitles else {
        panic!("{drawn:?}")
    };
    assert_eq!((pictures.source.input, pictures.canvas), (1, Some((1920, 1080))));
    assert_eq!(drawn.video.as_ref().unwrap().source.stream, StreamSelect::Index(0));
    assert_eq!(drawn.audio.as_ref().unwrap().source.stream, StreamSelect::Index(1));
    // 10.8 forgot to cancel what it had mapped.
    assert_eq!(planned(DRAWN, &[(" -map -0:0", "")]), drawn);

    for (changes, named) in [
        (&[("-sn ", "")][..], "-sn"),
        (&[("-map 1:0 ", "")], "-map"),
        (&[("-map -0:0", "-map -0:1")], "-map -0:1"),
        (&[("-map -0:0", "-map -0:0 -map 0:2")], "-map 0:2"),
        (&[("-map 0:0", "-map 0:4")], "-map"),
        (&[("[0:0]format", "[1:1]format")], "-map"),
        (&[("[1:0]scale", "[2:0]scale")], "-map"),
        (&[("[1:0]scale", "[0:1]scale")], ""),
        (&[("-canvas_size 1920x1080", "-canvas_size 720x576")], "-canvas_size"),
        (&[("-codec:v:0", "-vf yadif -codec:v:0")], "-filter_complex"),
        (&[("-y ", "-filter_complex \"[0:0]null\" -y ")], "-filter_complex twice"),
        (&[("-codec:v:0 libx264", "-codec:v:0 copy")], ""),
    ] {
        refused(DRAWN, changes, named);
    }
}

#[test]
fn what_is_planned_is_told() {
    for (command, changes, lines) in [
        (
            LIVE,
            &[][..],
            &[
                "byte for byte with -user_agent VLC 3",
                "written with each segment, segments named hls/ab/...",
            ][..],
        ),
        (
            FILM,
            &[("format=yuv420p", "format=yuv420p,subtitles=f='/m/a.mkv':si=2:fontsdir='/f'")],
            &[
                "text of /m/a.mkv, its subtitle stream 2, fonts in /f",
                "fMP4, /t/be1e1b081f1d3b9c3a0d14f042d56a41.mp4",
                "from where the input begins (no -copyts)",
            ],
        ),
        (DRAWN, &[], &["pictures of stream 1:0, on a canvas of 1920x1080, scaled to 1280x720"]),
        (
            FILM,
            &[("-ac 2 -ab 256000", "-ab 256000 -af \"pan=stereo|c0=c2+0.30*c0|c1=c2+0.30*c1\"")],
            &["mixed to stereo: 1 of 2 and 0.3 of 0 | 1 of 2 and 0.3 of 1"],
        ),
    ] {
        let text = changed(command, changes).explain();
        for line in lines {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }
}
