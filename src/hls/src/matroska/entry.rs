//! Track entries: what `Tracks` says of each codec (RFC 9559, Matroska codec specifications).

use mp4_atom::{Atom, Avcc, Encode, Hvcc};

use super::ebml::{binary, float, id, master, string, unsigned};
use crate::annexb::{ParameterSets, Syntax};
use crate::{TrackFormat, WriteError, fmp4};

/// How long before a place Opus has to be decoded to sound right there, ns (RFC 7845 4.6).
const OPUS_PRE_ROLL_NS: u64 = 80_000_000;

/// The entry of a track. `sets` are those of the picture's first keyframe.
pub(super) fn track(
    number: u64,
    format: &TrackFormat,
    sets: &ParameterSets,
    out: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let private = private(number, format, sets)?;
    master(id::TRACK_ENTRY, out, |out| {
        unsigned(id::TRACK_NUMBER, number, out);
        unsigned(id::TRACK_UID, number, out);
        unsigned(id::FLAG_LACING, 0, out);
        string(id::LANGUAGE, "und", out);
        string(id::CODEC_ID, codec(format), out);
        if let Some(delay) = codec_delay_ns(format) {
            unsigned(id::CODEC_DELAY, delay, out);
            unsigned(id::SEEK_PRE_ROLL, OPUS_PRE_ROLL_NS, out);
        }
        unsigned(id::TRACK_TYPE, if format.is_video() { 1 } else { 2 }, out);
        match syntax(format) {
            Some(syntax) => video(format, syntax, sets, out),
            None => audio(format, out),
        }
        if !private.is_empty() {
            binary(id::CODEC_PRIVATE, &private, out);
        }
    });
    Ok(())
}

/// The syntax of a picture.
pub(super) fn syntax(format: &TrackFormat) -> Option<Syntax> {
    match format {
        TrackFormat::H264 { .. } => Some(Syntax::H264),
        TrackFormat::Hevc { .. } => Some(Syntax::Hevc),
        _ => None,
    }
}

/// What a decoder puts before the sound, ns; blocks are timed as if it were to be heard.
pub(super) fn codec_delay_ns(format: &TrackFormat) -> Option<u64> {
    let TrackFormat::Opus { opus_head, .. } = format else { return None };
    let samples: [u8; 2] = opus_head.get(10..12)?.try_into().ok()?;
    Some(u64::from(u16::from_le_bytes(samples)) * 1_000_000_000 / 48_000)
}

fn codec(format: &TrackFormat) -> &'static str {
    match format {
        TrackFormat::H264 { .. } => "V_MPEG4/ISO/AVC",
        TrackFormat::Hevc { .. } => "V_MPEGH/ISO/HEVC",
        TrackFormat::Aac { .. } => "A_AAC",
        TrackFormat::Ac3 { .. } => "A_AC3",
        TrackFormat::Eac3 { .. } => "A_EAC3",
        TrackFormat::Mp3 { .. } => "A_MPEG/L3",
        TrackFormat::Opus { .. } => "A_OPUS",
        TrackFormat::Flac { .. } => "A_FLAC",
        TrackFormat::Vorbis { .. } => "A_VORBIS",
    }
}

fn private(number: u64, format: &TrackFormat, sets: &ParameterSets) -> Result<Vec<u8>, WriteError> {
    let bad = |reason: &str| WriteError::BadSample {
        track: usize::try_from(number).unwrap_or(1) - 1,
        reason: reason.to_owned(),
    };
    Ok(match format {
        TrackFormat::H264 { .. } => {
            let avcc: Avcc =
                fmp4::avcc(sets).ok_or_else(|| bad("no SPS and PPS at the first keyframe"))?;
            content(&avcc).ok_or_else(|| bad("SPS and PPS that no header holds"))?
        }
        TrackFormat::Hevc { .. } => {
            let hvcc: Hvcc = fmp4::hvcc(sets, true)
                .ok_or_else(|| bad("no VPS, SPS and PPS at the first keyframe"))?;
            content(&hvcc).ok_or_else(|| bad("parameter sets that no header holds"))?
        }
        TrackFormat::Aac { audio_specific_config, .. } => audio_specific_config.to_vec(),
        TrackFormat::Opus { opus_head, .. } => opus_head.to_vec(),
        TrackFormat::Flac { streaminfo, .. } => [b"fLaC\x80\x00\x00\x22", &streaminfo[..]].concat(),
        TrackFormat::Vorbis { headers, .. } => laced(headers),
        TrackFormat::Ac3 { .. } | TrackFormat::Eac3 { .. } | TrackFormat::Mp3 { .. } => Vec::new(),
    })
}

/// What stands in an MP4 box.
fn content<T: Atom + Encode>(atom: &T) -> Option<Vec<u8>> {
    const HEAD: usize = 8;
    let mut encoded = Vec::new();
    atom.encode(&mut encoded).ok()?;
    encoded.get(HEAD..).map(<[u8]>::to_vec)
}

/// Vorbis' three headers in Xiph's lacing: number of packets less one, lengths but the last.
fn laced(headers: &[bytes::Bytes; 3]) -> Vec<u8> {
    let mut out = vec![2];
    for header in &headers[..2] {
        out.extend(std::iter::repeat_n(255, header.len() / 255));
        out.push(u8::try_from(header.len() % 255).unwrap_or(0));
    }
    headers.iter().for_each(|header| out.extend_from_slice(header));
    out
}

fn video(format: &TrackFormat, syntax: Syntax, sets: &ParameterSets, out: &mut Vec<u8>) {
    let (TrackFormat::H264 { width, height, frame_rate }
    | TrackFormat::Hevc { width, height, frame_rate, .. }) = *format
    else {
        return;
    };
    let (frames, seconds) = frame_rate;
    if frames > 0 && seconds > 0 {
        let frame = u64::from(seconds) * 1_000_000_000 / u64::from(frames);
        unsigned(id::DEFAULT_DURATION, frame, out);
    }
    let appearance = sets.appearance(syntax);
    master(id::VIDEO, out, |out| {
        unsigned(id::PIXEL_WIDTH, width.into(), out);
        unsigned(id::PIXEL_HEIGHT, height.into(), out);
        unsigned(id::FLAG_INTERLACED, 2, out); // not interlaced
        if let Some((h, v)) = appearance.sample_aspect.filter(|(h, v)| h != v && *v > 0) {
            let wide = u64::from(width) * u64::from(h) / u64::from(v);
            unsigned(id::DISPLAY_WIDTH, wide, out);
            unsigned(id::DISPLAY_HEIGHT, height.into(), out);
        }
        if let Some((primaries, transfer, matrix, full)) = appearance.colour {
            master(id::COLOUR, out, |out| {
                unsigned(id::MATRIX_COEFFICIENTS, matrix.into(), out);
                unsigned(id::RANGE, if full { 2 } else { 1 }, out);
                unsigned(id::TRANSFER_CHARACTERISTICS, transfer.into(), out);
                unsigned(id::PRIMARIES, primaries.into(), out);
            });
        }
    });
}

fn audio(format: &TrackFormat, out: &mut Vec<u8>) {
    let (TrackFormat::Aac { channels, .. }
    | TrackFormat::Ac3 { channels, .. }
    | TrackFormat::Eac3 { channels, .. }
    | TrackFormat::Mp3 { channels, .. }
    | TrackFormat::Opus { channels, .. }
    | TrackFormat::Flac { channels, .. }
    | TrackFormat::Vorbis { channels, .. }) = *format
    else {
        return;
    };
    master(id::AUDIO, out, |out| {
        unsigned(id::CHANNELS, channels.into(), out);
        float(id::SAMPLING_FREQUENCY, f64::from(format.sample_rate().unwrap_or(48_000)), out);
        if let Some(depth) = flac_depth(format) {
            unsigned(id::BIT_DEPTH, depth, out);
        }
    });
}

/// Bits per sample, from STREAMINFO (RFC 9639, 8.2).
fn flac_depth(format: &TrackFormat) -> Option<u64> {
    let TrackFormat::Flac { streaminfo, .. } = format else { return None };
    let (high, low) = (streaminfo.get(12)?, streaminfo.get(13)?);
    Some(u64::from((high & 1) << 4 | low >> 4) + 1)
}
