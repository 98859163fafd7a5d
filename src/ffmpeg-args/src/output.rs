//! The HLS output (contract 2.1, 4): names, container, playlist.
//!
//! Invariant: what the template always says must be said; a command without it is not Jellyfin's,
//! and ffmpeg's defaults (five segments in the playlist, timestamps moved) are not what is built.

use std::path::{Path, PathBuf};

use crate::arguments::File;
use crate::kinds::FORMAT;
use crate::numbers::{decimal, whole};
use crate::unread::{ANY, BARE, Effectless, Spellings, Unread, shown, value};
use crate::{
    Audio, AudioAction, AudioCodec, Container, HlsOutput, Passthrough, PlaylistType, Verdict,
};

const SEGMENT_OPTIONS: Spellings = &[("hls_segment_options", BARE), ("hls_ts_options", BARE)];

/// Options that say what is the case anyway, with the values for which that holds.
pub(crate) const EFFECTLESS: Effectless = &[
    (&[("threads", ANY)], |value| whole::<u32>(value).is_some()),
    (&[("max_muxing_queue_size", ANY)], |value| whole::<u32>(value).is_some()),
    (&[("strict", ANY)], |value| matches!(value, "-2" | "experimental" | "unofficial")),
    // Parameter sets in band: MPEG-TS has them so, and fMP4 may.
    (&[("flags", &["", "v", "v:0"])], |value| value == "-global_header"),
    (&[("fflags", BARE)], |value| value == "+genpts"),
];

/// The segment muxer's; the HLS muxer doesn't look at it.
const SEGMENTS: Effectless = &[(&[("individual_header_trailer", BARE)], |value| value == "0")];

/// Options that every HLS command has, with their only value.
const ALWAYS: &[(Spellings, &str)] = &[
    (&[("avoid_negative_ts", BARE)], "disabled"),
    (&[("map_metadata", BARE)], "-1"),
    (&[("map_chapters", BARE)], "-1"),
    (&[("hls_list_size", BARE)], "0"),
    (FORMAT, "hls"),
];

/// Reads the options of the muxer.
pub(crate) fn read(file: &File, unread: &mut Unread<'_>) -> Verdict<HlsOutput> {
    for (spellings, only) in ALWAYS {
        unread.require(spellings, |value| (value == *only).then_some(()))?;
    }
    unread.drop_effectless(EFFECTLESS)?;
    unread.drop_effectless(SEGMENTS)?;
    let (directory, playlist) = split_path(Path::new(&file.url))?;
    if !playlist.ends_with(".m3u8") {
        return Err(Passthrough::unknown(format!("playlist {playlist}")));
    }
    let pattern = unread.require(&[("hls_segment_filename", BARE)], Some)?;
    let (segment_directory, pattern) = split_path(Path::new(pattern))?;
    if segment_directory != directory {
        return Err(Passthrough::unknown(format!(
            "segments in {}, playlist in {}",
            segment_directory.display(),
            directory.display()
        )));
    }
    let (segment_prefix, segment_suffix) = split_pattern(&pattern)?;
    let positive = |text| decimal(text).filter(|seconds| *seconds > 0.0);
    Ok(HlsOutput {
        directory,
        container: container(unread)?,
        segment_seconds: unread.require(&[("hls_time", BARE)], positive)?,
        start_number: unread.require(&[("start_number", BARE)], whole)?,
        segment_prefix,
        segment_suffix,
        playlist,
        playlist_type: unread.require(&[("hls_playlist_type", BARE)], |text| match text {
            "vod" => Some(PlaylistType::Vod),
            "event" => Some(PlaylistType::Event),
            _ => None,
        })?,
        base_url: unread.read(&[("hls_base_url", BARE)], Some)?.unwrap_or_default().to_owned(),
        max_delay_us: unread.require(&[("max_delay", BARE)], whole)?,
    })
}

/// Refuses sound that segments don't hold.
pub(crate) fn check_streams(audio: Option<&Audio>) -> Verdict<()> {
    match audio.map(|audio| &audio.action) {
        Some(AudioAction::Encode(encode)) if encode.codec == AudioCodec::Vorbis => {
            Err(Passthrough::feature("Vorbis in segments"))
        }
        _ => Ok(()),
    }
}

/// Directory and file name. A `%` in the directory would be part of ffmpeg's pattern.
pub(crate) fn split_path(path: &Path) -> Verdict<(PathBuf, String)> {
    let refusal = || Passthrough::unknown(format!("output {}", path.display()));
    let text = path.to_str().ok_or_else(refusal)?;
    let (directory, name) = match text.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => (".", text),
    };
    let protocol = text.split('/').next().is_some_and(|head| head.contains(':'));
    if protocol || text.contains('\\') {
        return Err(Passthrough::feature(format!("{text} is no path of this system")));
    }
    if name.is_empty() || directory.contains('%') {
        return Err(refusal());
    }
    Ok((directory.into(), name.to_owned()))
}

/// What stands around the number in a segment's name.
fn split_pattern(pattern: &str) -> Verdict<(String, String)> {
    match pattern.split_once("%d") {
        Some((prefix, suffix)) if !prefix.contains('%') && !suffix.contains('%') => {
            Ok((prefix.to_owned(), suffix.to_owned()))
        }
        _ => Err(Passthrough::unknown(format!("segment name {pattern}"))),
    }
}

fn container(unread: &mut Unread<'_>) -> Verdict<Container> {
    match unread.require(&[("hls_segment_type", BARE)], Some)? {
        "mpegts" => Ok(Container::MpegTs),
        "fmp4" => {
            let bare = |name: &str| {
                let bare = !name.is_empty() && !name.contains(['/', '\\', '%']);
                bare.then(|| name.to_owned())
            };
            let init = unread.require(&[("hls_fmp4_init_filename", BARE)], bare)?;
            let (mut absolute, mut skip_sidx) = (false, false);
            if let Some(setting) = unread.take(SEGMENT_OPTIONS)? {
                let refusal = || Passthrough::unknown(shown(setting));
                let options = value(setting).unwrap_or_default();
                let flags = options.strip_prefix("movflags=+").ok_or_else(refusal)?;
                for flag in flags.split('+') {
                    match flag {
                        "frag_discont" => absolute = true,
                        "skip_sidx" => skip_sidx = true,
                        _ => return Err(refusal()),
                    }
                }
            }
            Ok(Container::Fmp4 { init, absolute, skip_sidx })
        }
        other => Err(Passthrough::unknown(format!("-hls_segment_type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_name_has_one_plain_number() {
        assert_eq!(split_pattern("ab%d.ts").unwrap(), ("ab".to_owned(), ".ts".to_owned()));
        for pattern in ["ab.ts", "ab%03d.ts", "a%d%d.ts", "a%%%d.ts", "%d%s"] {
            assert!(split_pattern(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn outputs_are_local_files() {
        let split = |path| split_path(Path::new(path)).ok();
        assert_eq!(split("/t/a.m3u8"), Some(("/t".into(), "a.m3u8".to_owned())));
        assert_eq!(split("/a.m3u8"), Some(("/".into(), "a.m3u8".to_owned())));
        assert_eq!(split("a.m3u8"), Some((".".into(), "a.m3u8".to_owned())));
        for path in ["http://host/a.m3u8", "/t/", "/t%d/a.m3u8", r"C:\t\a.m3u8", "pipe:1"] {
            assert_eq!(split(path), None, "{path}");
        }
    }
}
