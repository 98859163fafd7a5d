//! A plain command that is planned, with room for one value, and what holds of every plan.

use std::ffi::OsString;

use ffmpeg_args::{Plan, parse, plan};

/// The command, `filters` and `keyframes` in their places.
pub fn command(filters: &str, keyframes: &str) -> Vec<OsString> {
    let words = [
        "-hwaccel",
        "vaapi",
        "-hwaccel_output_format",
        "vaapi",
        "-noautorotate",
        "-i",
        "file:/m/a.mkv",
        "-map_metadata",
        "-1",
        "-map_chapters",
        "-1",
        "-map",
        "0:0",
        "-map",
        "-0:a",
        "-map",
        "-0:s",
        "-codec:v:0",
        "h264_vaapi",
        "-rc_mode",
        "VBR",
        "-b:v",
        "4000000",
        "-force_key_frames:0",
        keyframes,
        "-vf",
        filters,
        "-copyts",
        "-avoid_negative_ts",
        "disabled",
        "-f",
        "hls",
        "-max_delay",
        "5000000",
        "-hls_time",
        "3",
        "-hls_segment_type",
        "mpegts",
        "-start_number",
        "0",
        "-hls_segment_filename",
        "/t/ab%d.ts",
        "-hls_playlist_type",
        "vod",
        "-hls_list_size",
        "0",
        "-y",
        "/t/ab.m3u8",
    ];
    words.map(OsString::from).to_vec()
}

/// Plans a command and checks what holds of each: argv is kept, a plan can be sent and told.
pub fn check(argv: &[OsString]) {
    if let Ok(arguments) = parse(argv) {
        assert_eq!(arguments.to_argv(), argv);
    }
    let plan = plan(argv);
    assert!(!plan.explain().is_empty() && !plan.summary().is_empty());
    let json = serde_json::to_string(&plan).expect("every plan can be sent");
    assert_eq!(serde_json::from_str::<Plan>(&json).expect("and received"), plan);
}
