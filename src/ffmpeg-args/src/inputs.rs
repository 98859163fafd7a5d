//! The inputs of a command: how they are entered and read, how the picture is decoded (contract 2.1
//! inputModifier, 2.4). Where their bytes come from is `network`'s.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::arguments::File;
use crate::kinds::{FORMAT, VIDEO_CODEC};
use crate::memory::{Device, Memory};
use crate::network::{self, REMUXED_FORMATS};
use crate::numbers::{amount, decimal, time_us, whole};
use crate::turning::{self, Mark};
use crate::unread::{ANY, BARE, Effectless, Spellings, Unread, shown};
use crate::{Delivery, Input, Location, Passthrough, Verdict, plane};

/// Demuxers of files. Any of them may be named, or several joined by commas; the name is a hint.
const FILE_FORMATS: &[&str] = &[
    "matroska",
    "webm",
    "mov",
    "mp4",
    "m4a",
    "m4v",
    "3gp",
    "3g2",
    "mj2",
    "mpegts",
    "mpegtsraw",
    "mpeg",
    "mpegvideo",
    "avi",
    "asf",
    "wtv",
    "flv",
    "ogg",
    "nut",
    "rm",
    "mxf",
    "gxf",
    "dv",
    "wav",
    "w64",
    "aiff",
    "flac",
    "mp3",
    "aac",
    "ac3",
    "eac3",
    "dts",
    "dtshd",
    "truehd",
    "ape",
    "wv",
    "tta",
    "mpc",
    "mpc8",
    "caf",
    "amr",
    "au",
    "h264",
    "hevc",
    "m1v",
    "m2v",
    "vob",
    "ivf",
];

/// Decoders by codec, to which a vendor may be appended (`h264_qsv`).
const DECODED: &[&str] =
    &["h264", "hevc", "av1", "vp8", "vp9", "mpeg2", "mpeg2video", "mpeg4", "vc1", "mjpeg"];

const SEEK: Spellings = &[("ss", BARE)];
const CANVAS: Spellings = &[("canvas_size", ANY)];
const FFLAGS: Spellings = &[("fflags", BARE)];
const HWACCEL: Spellings = &[("hwaccel", ANY)];
const HWACCEL_OUTPUT: Spellings = &[("hwaccel_output_format", ANY)];

/// Options that steer a decoder or its device and leave nothing in a plan.
const EFFECTLESS: Effectless = &[
    (&[("analyzeduration", BARE)], |value| amount(value).is_some()),
    (&[("probesize", BARE)], |value| amount(value).is_some()),
    (&[("threads", ANY)], |value| whole::<u32>(value).is_some()),
    (&[("hwaccel_flags", ANY)], |value| {
        matches!(value, "+allow_profile_mismatch" | "+unsafe_output" | "+low_priority")
    }),
    (&[("hwaccel_device", ANY)], |value| !value.is_empty()),
    (&[("extra_hw_frames", ANY)], |value| whole::<u32>(value).is_some()),
    (VIDEO_CODEC, is_decoder),
];

/// An input, and what its options say of its pictures.
pub(crate) struct Source {
    pub input: Input,
    /// Memory that they are decoded into.
    pub memory: Memory,
    pub mark: Mark,
    /// `-canvas_size`.
    pub canvas: Option<(u32, u32)>,
}

/// The file behind an input's name.
pub(crate) fn local_path(url: &OsStr) -> Verdict<PathBuf> {
    // A plan travels as JSON, which holds text alone.
    let Some(text) = url.to_str() else {
        return Err(Passthrough::input(format!("{}: the name is not UTF-8", url.display())));
    };
    if let Some(path) = text.strip_prefix("file:") {
        if path.is_empty() {
            return Err(Passthrough::input("an empty file name"));
        }
        return Ok(path.into());
    }
    // As ffmpeg tells a protocol: plain characters up to a colon (or `subfile,`).
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let behind = text.trim_start_matches(plain);
    let protocol = behind.len() < text.len() && behind.starts_with([':', ',']);
    if protocol || text.contains("://") || text.is_empty() || text == "-" {
        let end = if protocol { text.len() - behind.len() } else { text.len().min(40) };
        let scheme = text.get(..end).unwrap_or(text);
        return Err(Passthrough::input(format!("{scheme} is not a local file")));
    }
    Ok(text.into())
}

/// Reads the options of an input.
pub(crate) fn read(file: &File) -> Verdict<Source> {
    let mut location = network::location(&file.url)?;
    let mut unread = Unread::new(&file.settings);
    let format = unread.read(FORMAT, Some)?;
    if let Some(format) = format
        && !is_offered(format, &mut location)
    {
        return Err(Passthrough::input(format!("input -f {format}")));
    }
    let seek = unread.take(SEEK)?;
    let start_us = match seek.map(|seek| (seek, crate::unread::value(seek).and_then(time_us))) {
        None => None,
        Some((seek, None)) => return Err(Passthrough::unknown(shown(seek))),
        Some((seek, _)) if matches!(location, Location::Network(_)) => {
            let refusal = format!("{}: a network input comes from its beginning", shown(seek));
            return Err(Passthrough::input(refusal));
        }
        Some((_, start)) => start,
    };
    if let Location::Network(network) = &mut location {
        network::read_options(&mut unread, network)?;
    } else if let Some(setting) = unread.settings().find(|s| network::is_option(&s.name)) {
        return Err(Passthrough::unknown(format!("{} of a file", shown(setting))));
    }
    let read_rate = read_rate(&mut unread)?;
    unread.flag(&[("accurate_seek", BARE)]);
    let accurate = !unread.flag(&[("noaccurate_seek", BARE)]);
    let mark = turning::mark(&mut unread)?;
    for setting in unread.take_all(FFLAGS) {
        let flags = crate::unread::value(setting).unwrap_or_default();
        read_fflags(flags).map_err(|offered| {
            let refusal = shown(setting);
            if offered { Passthrough::feature(refusal) } else { Passthrough::unknown(refusal) }
        })?;
    }
    let memory = decoded_memory(&mut unread)?;
    let canvas = unread.read(CANVAS, plane::canvas)?;
    unread.drop_effectless(EFFECTLESS)?;
    unread.finish()?;
    let format = format.map(str::to_owned);
    let input = Input { location, format, start_us, accurate, read_rate };
    Ok(Source { input, memory, mark, canvas })
}

/// Whether an input's `-f` is one that is offered. Some make of a URL more than its own bytes.
fn is_offered(format: &str, location: &mut Location) -> bool {
    if format.split(',').all(|name| FILE_FORMATS.contains(&name)) {
        return true;
    }
    match location {
        Location::Network(network) if REMUXED_FORMATS.contains(&format) => {
            network.delivery = Delivery::Remuxed;
            true
        }
        _ => false,
    }
}

/// Reads `-re` and `-readrate`. How an input catches up after it stood still, and how much of it is
/// read at once at first, is up to whoever reads it.
fn read_rate(unread: &mut Unread<'_>) -> Verdict<Option<f64>> {
    let native = unread.flag(&[("re", BARE)]);
    let positive = |text| decimal(text).filter(|number| *number > 0.0);
    let rate = unread.read(&[("readrate", BARE)], positive)?;
    let catchup = unread.read(&[("readrate_catchup", BARE)], positive)?;
    let burst = unread.read(&[("readrate_initial_burst", BARE)], decimal)?;
    match (native, rate) {
        (false, None) if catchup.is_none() && burst.is_none() => Ok(None),
        (true, None) => Ok(Some(1.0)),
        (false, Some(rate)) => Ok(Some(rate)),
        (false, None) => Err(Passthrough::unknown("-readrate_catchup without -readrate")),
        (true, Some(rate)) => Err(Passthrough::unknown(format!("-re and -readrate {rate}"))),
    }
}

/// Accepts the flags that repair what a demuxer lacks, which every reader must do anyway. The
/// error says whether the flags are at least known.
fn read_fflags(flags: &str) -> Result<(), bool> {
    let Some(flags) = flags.strip_prefix('+') else { return Err(false) };
    flags.split('+').try_for_each(|flag| match flag {
        "igndts" | "ignidx" | "genpts" => Ok(()),
        "discardcorrupt" | "fastseek" => Err(true),
        _ => Err(false),
    })
}

fn decoded_memory(unread: &mut Unread<'_>) -> Verdict<Memory> {
    let accelerator = unread.read(HWACCEL, Device::decoder)?;
    let output = unread.read(HWACCEL_OUTPUT, Device::decoder)?;
    match (accelerator, output) {
        (accelerator, Some(output)) if accelerator != Some(output) => Err(Passthrough::unknown(
            format!("-hwaccel_output_format {output:?} of -hwaccel {accelerator:?}"),
        )),
        (_, output) => Ok(output.map_or(Memory::System, Memory::On)),
    }
}

fn is_decoder(name: &str) -> bool {
    let base = ["_qsv", "_cuvid", "_vaapi"].iter().find_map(|vendor| name.strip_suffix(vendor));
    DECODED.contains(&base.unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PassthroughKind;

    #[test]
    fn local_files_are_told_from_protocols() {
        for (url, expect) in [
            ("file:/m/A B.mkv", Ok("/m/A B.mkv")),
            ("file:Part 4: Finale.mkv", Ok("Part 4: Finale.mkv")),
            ("/m/a:b.mkv", Ok("/m/a:b.mkv")),
            ("relative/a.mkv", Ok("relative/a.mkv")),
            ("My Film: Part 2.mkv", Ok("My Film: Part 2.mkv")),
            ("http://192.0.2.3/stream.ts", Err("http ")),
            ("rtsp://camera/1", Err("rtsp ")),
            ("concat:a.vob|b.vob", Err("concat ")),
            ("bluray:/m/disc.iso", Err("bluray ")),
            ("pipe:0", Err("pipe ")),
            ("C:\\film.mkv", Err("C ")),
            ("subfile,,start,0,end,9,,:a", Err("subfile ")),
            ("-", Err("- ")),
            ("", Err("")),
            ("file:", Err("empty")),
        ] {
            match (local_path(OsStr::new(url)), expect) {
                (Ok(path), Ok(expect)) => assert_eq!(path, PathBuf::from(expect)),
                (Err(refusal), Err(named)) => {
                    assert_eq!(refusal.kind, PassthroughKind::UnsupportedInput);
                    assert!(refusal.reason.contains(named), "{url}: {refusal}");
                }
                (path, expect) => panic!("{url}: {path:?}, not {expect:?}"),
            }
        }
    }
}
