//! One file, read while it is written (contract 2.6, 2.7, 4).
//!
//! Jellyfin names no container but fragmented MP4; ffmpeg takes it from the name's extension. A name
//! is an MD5 in hexadecimal digits, whatever the version and the kind.
//!
//! Invariants:
//! - What the templates always say must be said, and the name must be Jellyfin's: recordings,
//!   conversions and whatever plugins make of a film go to ffmpeg.
//! - A codec that the container doesn't hold makes no plan.

use std::path::Path;

use crate::arguments::File;
use crate::kinds::FORMAT;
use crate::output::{EFFECTLESS, split_path};
use crate::unread::{BARE, Spellings, Unread};
use crate::{
    Audio, AudioAction, AudioCodec, FileFormat, Passthrough, ProgressiveOutput, Verdict, Video,
    VideoAction,
};

const MOVFLAGS: Spellings = &[("movflags", BARE)];
const AVOID_NEGATIVE_TS: Spellings = &[("avoid_negative_ts", BARE)];

/// What every film is said to be without.
const FILM_ALWAYS: &[(Spellings, &str)] =
    &[(&[("map_metadata", BARE)], "-1"), (&[("map_chapters", BARE)], "-1")];

/// Tags that every file of sound may have; those that aren't MP3 don't look at it.
const MUSIC_ALWAYS: &[(Spellings, &str)] =
    &[(&[("id3v2_version", BARE)], "3"), (&[("write_id3v1", BARE)], "1")];

/// Containers by extension: of films, and of sound alone.
const EXTENSIONS: &[(&str, FileFormat)] = &[
    ("mp4", FileFormat::FragmentedMp4),
    ("ts", FileFormat::MpegTs),
    ("mkv", FileFormat::Matroska),
    ("webm", FileFormat::WebM),
];
const MUSIC_EXTENSIONS: &[(&str, FileFormat)] = &[
    ("m4a", FileFormat::FragmentedMp4),
    ("m4b", FileFormat::FragmentedMp4),
    ("mka", FileFormat::Matroska),
    ("mp3", FileFormat::Mp3),
    ("aac", FileFormat::Adts),
    ("flac", FileFormat::Flac),
    ("ogg", FileFormat::Ogg),
    ("oga", FileFormat::Ogg),
    ("opus", FileFormat::Ogg),
];

/// Digits of the name.
const NAME_DIGITS: usize = 32;

/// Reads the options of a film's muxer.
pub(crate) fn film(
    file: &File,
    unread: &mut Unread<'_>,
    source_times: bool,
) -> Verdict<ProgressiveOutput> {
    always(unread, FILM_ALWAYS)?;
    let output = output(file, EXTENSIONS)?;
    let mp4 = unread.read(FORMAT, |format| (format == "mp4").then_some(()))?.is_some();
    fragmented(unread, &output, "frag_keyframe+empty_moov+delay_moov", mp4)?;
    let kept = unread.read(AVOID_NEGATIVE_TS, |text| (text == "disabled").then_some(()))?.is_some();
    if kept != source_times {
        return Err(Passthrough::unknown("one of -copyts and -avoid_negative_ts disabled"));
    }
    unread.drop_effectless(EFFECTLESS)?;
    Ok(output)
}

/// Reads the options of a muxer for sound alone.
pub(crate) fn music(
    file: &File,
    unread: &mut Unread<'_>,
    source_times: bool,
) -> Verdict<ProgressiveOutput> {
    always(unread, MUSIC_ALWAYS)?;
    let extensions = [MUSIC_EXTENSIONS, EXTENSIONS].concat();
    let output = output(file, &extensions)?;
    fragmented(unread, &output, "empty_moov+delay_moov", true)?;
    if source_times {
        return Err(Passthrough::unknown("-copyts of a file of sound"));
    }
    unread.drop_effectless(EFFECTLESS)?;
    Ok(output)
}

fn always(unread: &mut Unread<'_>, options: &[(Spellings, &str)]) -> Verdict<()> {
    options.iter().try_for_each(|(spellings, only)| {
        unread.require(spellings, |value| (value == *only).then_some(()))
    })
}

/// Reads `-movflags`: MP4 that isn't fragmented can't be read while it grows.
fn fragmented(
    unread: &mut Unread<'_>,
    output: &ProgressiveOutput,
    flags: &str,
    named: bool,
) -> Verdict<()> {
    let said = unread.read(MOVFLAGS, |text| (text == flags).then_some(()))?.is_some();
    let mp4 = output.format == FileFormat::FragmentedMp4;
    if mp4 && !(said && named) {
        return Err(Passthrough::feature("MP4 that isn't fragmented"));
    }
    if said && !mp4 {
        let format = output.format.name();
        return Err(Passthrough::unknown(format!("-movflags {flags} for {format}")));
    }
    Ok(())
}

fn output(file: &File, extensions: &[(&str, FileFormat)]) -> Verdict<ProgressiveOutput> {
    let (directory, name) = split_path(Path::new(&file.url))?;
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if stem.len() != NAME_DIGITS || !stem.chars().all(hex) {
        return Err(Passthrough::kind(format!("a file that Jellyfin doesn't name so: {name}")));
    }
    let Some((_, format)) = extensions.iter().find(|(known, _)| *known == extension) else {
        return Err(Passthrough::kind(format!("a progressive file .{extension}")));
    };
    Ok(ProgressiveOutput { directory, name, format: *format })
}

/// Refuses streams that a container doesn't hold. What is copied is known once it is opened.
pub(crate) fn check_streams(
    format: FileFormat,
    video: Option<&Video>,
    audio: Option<&Audio>,
) -> Verdict<()> {
    let container = format.name();
    if let Some(VideoAction::Encode(encode)) = video.map(|video| &video.action)
        && format == FileFormat::WebM
    {
        let codec = encode.codec.name();
        return Err(Passthrough::unknown(format!("{codec} in {container}")));
    }
    let tagged = video.is_some_and(|video| video.tag.is_some());
    if tagged && format != FileFormat::FragmentedMp4 {
        return Err(Passthrough::unknown(format!("-tag:v in {container}")));
    }
    let Some(AudioAction::Encode(encode)) = audio.map(|audio| &audio.action) else {
        return Ok(());
    };
    if holds(format, encode.codec) {
        return Ok(());
    }
    let codec = encode.codec.name();
    Err(Passthrough::unknown(format!("{codec} in {container}")))
}

fn holds(format: FileFormat, codec: AudioCodec) -> bool {
    use AudioCodec::{Aac, Ac3, Eac3, Flac, Mp3, Opus, Vorbis};
    match format {
        FileFormat::FragmentedMp4 => codec != Vorbis,
        FileFormat::MpegTs => matches!(codec, Aac | Ac3 | Eac3 | Mp3 | Opus),
        FileFormat::Matroska => true,
        FileFormat::WebM => matches!(codec, Opus | Vorbis),
        FileFormat::Mp3 => codec == Mp3,
        FileFormat::Adts => codec == Aac,
        FileFormat::Flac => codec == Flac,
        FileFormat::Ogg => matches!(codec, Opus | Vorbis | Flac),
    }
}
