//! Which job a command is (contract 1.2, 1.3 and 2), before anything in it is read closely.
//!
//! Everything but one output for a player ends here. The order matters: what a command asks is clear
//! from a few options, so it is settled before an unusual word elsewhere can cloud the answer.

use crate::arguments::{Arguments, File, Setting};
use crate::unread::{ANY, AUDIO, BARE, Spellings, VIDEO, is_spelled, shown, value};
use crate::{Passthrough, Verdict};

/// The muxer or demuxer of a file.
pub(crate) const FORMAT: Spellings = &[("f", BARE)];
/// The video encoder.
pub(crate) const VIDEO_CODEC: Spellings = &[("codec", VIDEO), ("c", VIDEO), ("vcodec", BARE)];

/// The audio encoder, spelled for either stream.
pub(crate) const AUDIO_CODEC: Spellings = &[("codec", AUDIO), ("c", AUDIO), ("acodec", BARE)];

const SUBTITLE_CODEC: Spellings =
    &[("codec", &["s", "s:0"]), ("c", &["s", "s:0"]), ("scodec", BARE)];
const FRAMES: Spellings = &[("frames", &["v", "v:0"]), ("vframes", BARE)];
const OUTPUT_FFLAGS: Spellings = &[("fflags", BARE)];
const MAP: Spellings = &[("map", BARE)];
const MAP_CHAPTERS: Spellings = &[("map_chapters", BARE)];
const NO_VIDEO: Spellings = &[("vn", BARE)];
const ID3: Spellings = &[("id3v2_version", BARE)];

/// Options that settle the job wherever they stand.
const TELLING: &[(Spellings, &str)] = &[
    (&[("dump_attachment", &["", "t"])], "attachment extraction"),
    (&[("sub_charenc", ANY)], "subtitle conversion"),
    (FRAMES, "image extraction"),
];

/// Output formats of jobs that are no playback.
const OTHER_JOBS: &[(&str, &str)] = &[
    ("image2", "images"),
    ("null", "measurement without output"),
    ("webvtt", "subtitles"),
    ("srt", "subtitles"),
    ("ass", "subtitles"),
];

/// A way of playing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Playback {
    /// Segments and a playlist (contract 2.1).
    Hls,
    /// A picture, mostly with sound, in one file (2.6).
    Film,
    /// Sound in one file (2.7).
    Music,
}

/// Refuses every command that isn't one output for a player.
pub(crate) fn playback(arguments: &Arguments) -> Verdict<(&File, Playback)> {
    if let Some(question) = arguments.question() {
        return Err(Passthrough::probe(shown(question)));
    }
    let Arguments { inputs, outputs, .. } = arguments;
    if inputs.is_empty() && outputs.is_empty() {
        return Err(Passthrough::probe("neither input nor output"));
    }
    if inputs.iter().any(is_null_source) && outputs.iter().all(|file| format(file) == Some("null"))
    {
        return Err(Passthrough::probe("a generated picture into nothing"));
    }
    other_job(arguments)?;
    match outputs.as_slice() {
        [] => Err(Passthrough::other_job("no output")),
        [output] => {
            let says = |spellings| setting(output, spellings).is_some();
            // A film's chapters are dropped; music keeps its tags. Nobody else says either so.
            match format(output) {
                Some("hls") => Ok((output, Playback::Hls)),
                None | Some("mp4") if says(MAP_CHAPTERS) && says(VIDEO_CODEC) => {
                    Ok((output, Playback::Film))
                }
                None if says(NO_VIDEO) && says(ID3) => Ok((output, Playback::Music)),
                Some(muxer) => Err(Passthrough::kind(format!("output -f {muxer}"))),
                None => Err(Passthrough::kind(format!("output {}", output.url.display()))),
            }
        }
        _ => Err(Passthrough::kind(format!("{} outputs", outputs.len()))),
    }
}

fn other_job(arguments: &Arguments) -> Verdict<()> {
    let Arguments { inputs, outputs, .. } = arguments;
    for setting in inputs.iter().chain(outputs).flat_map(|file| &file.settings) {
        for (spellings, job) in TELLING {
            if is_spelled(&setting.name, spellings) {
                return Err(Passthrough::other_job(format!("{job}: -{}", setting.name)));
            }
        }
    }
    for output in outputs {
        let muxer = format(output);
        if let Some((name, job)) = OTHER_JOBS.iter().find(|(name, _)| muxer == Some(name)) {
            return Err(Passthrough::other_job(format!("{job}: -f {name}")));
        }
        let video = setting(output, VIDEO_CODEC);
        if video.is_none()
            && let Some(codec) = setting(output, SUBTITLE_CODEC)
        {
            return Err(Passthrough::other_job(format!("subtitles: {}", shown(codec))));
        }
        // A recording copies whatever is there into a file; a remux for playback maps its streams,
        // or drops the chapters.
        let copies = video.and_then(value) == Some("copy");
        let recording = copies && setting(output, OUTPUT_FFLAGS).is_some();
        let mapped = setting(output, MAP).or(setting(output, MAP_CHAPTERS)).is_some();
        if muxer.is_none() && recording && !mapped {
            return Err(Passthrough::other_job("recording"));
        }
    }
    Ok(())
}

/// The test source of Jellyfin's startup checks (contract 1.3, rows 9 and 10).
fn is_null_source(input: &File) -> bool {
    format(input) == Some("lavfi")
        && input.url.to_str().is_some_and(|url| url.starts_with("nullsrc"))
}

fn format(file: &File) -> Option<&str> {
    setting(file, FORMAT).and_then(value)
}

fn setting(file: &File, spellings: Spellings) -> Option<&Setting> {
    file.settings.iter().find(|setting| is_spelled(&setting.name, spellings))
}
