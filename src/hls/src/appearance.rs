//! Sequence parameter sets that say what a picture looks like, where the encoder didn't say it.
//!
//! The encoders of GStreamer's `va` plugin state neither the shape of pixels nor colours; a player
//! then shows a film for television in the wrong shape, and takes the colours of what has been made
//! smaller for those of old television.
//!
//! Invariant: nothing of a parameter set changes but the VUI's first fields.

use crate::annexb::{Syntax, nals};
use crate::sps::{find_vui, unescape};

pub use crate::sps::Appearance;

/// `video_format`: unspecified (H.264 table E-2).
const UNSPECIFIED: u32 = 5;
/// `aspect_ratio_idc`: stated in full (table E-1).
const EXTENDED_SAR: u32 = 255;

/// The access unit with this appearance in all its sequence parameter sets; what is `None` stays as
/// the encoder has it. Units that can't be read stay as they are.
pub fn state(syntax: Syntax, unit: &[u8], wanted: Appearance) -> Vec<u8> {
    let mut stated = Vec::with_capacity(unit.len() + 16);
    for nal in nals(unit) {
        stated.extend([0, 0, 0, 1]);
        match in_sps(syntax, nal, wanted) {
            Some(sps) => stated.extend(sps),
            None => stated.extend(nal),
        }
    }
    stated
}

fn in_sps(syntax: Syntax, nal: &[u8], wanted: Appearance) -> Option<Vec<u8>> {
    let (kind, header) = match syntax {
        Syntax::H264 => (crate::annexb::h264::SPS, 1),
        Syntax::Hevc => (crate::annexb::hevc::SPS, 2),
    };
    if syntax.nal_type(nal) != kind {
        return None;
    }
    let rbsp = unescape(nal.get(header..)?);
    let (place, present) = find_vui(syntax, &rbsp)?;
    let mut bits: Vec<bool> =
        rbsp.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    // Up to and with the stop bit.
    bits.truncate(bits.iter().rposition(|bit| *bit)? + 1);
    let rest = bits.split_off(place.end.min(bits.len()));
    let had_vui = bits.get(place.flag).copied()?;
    bits.truncate(place.flag);
    bits.push(true);
    let mut put = |value: u32, count: u32| {
        bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    };
    match wanted.sample_aspect.or(present.sample_aspect) {
        Some((width, height)) => {
            put(1, 1);
            put(EXTENDED_SAR, 8);
            put(width.into(), 16);
            put(height.into(), 16);
        }
        None => put(0, 1),
    }
    put(0, 1); // overscan_info_present_flag
    match wanted.colour.or(present.colour) {
        Some((primaries, transfer, matrix, full)) => {
            put(1, 1);
            put(UNSPECIFIED, 3);
            put(full.into(), 1);
            put(1, 1);
            for code in [primaries, transfer, matrix] {
                put(code.into(), 8);
            }
        }
        None => put(0, 1),
    }
    if !had_vui {
        // Chroma location, timing, HRD, pictures' structure, restrictions: not stated (H.264 E.1.1,
        // H.265 E.2.1).
        put(0, if syntax == Syntax::H264 { 6 } else { 7 });
    }
    bits.extend(rest);
    bits.resize(bits.len().next_multiple_of(8), false);
    let bytes =
        bits.chunks(8).map(|byte| byte.iter().fold(0_u8, |value, bit| value << 1 | u8::from(*bit)));
    let mut stated = nal[..header].to_vec();
    escape(bytes, &mut stated);
    Some(stated)
}

/// Puts in emulation prevention (`00 00 03`, H.264 7.4.1).
fn escape(bytes: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    let mut zeros = 0;
    for byte in bytes {
        if zeros >= 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sps::{parse_h264_sps, parse_hevc_sps};
    use proptest::prelude::*;

    /// 320x180 High by x264 with 4:3 samples and BT.709.
    const H264: [u8; 28] = [
        0x67, 0x64, 0x00, 0x0c, 0xac, 0xd9, 0x41, 0x41, 0x9f, 0x9f, 0x0e, 0x6a, 0x02, 0x02, 0x02,
        0x80, 0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x18, 0x07, 0x8a, 0x14, 0xcb,
    ];
    /// The same, Main by x265.
    const HEVC: [u8; 46] = [
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00,
        0x03, 0x00, 0x3c, 0xa0, 0x0a, 0x08, 0x0c, 0x1f, 0x3e, 0x59, 0x59, 0x12, 0x93, 0x0b, 0xc3,
        0x9a, 0x80, 0x80, 0x80, 0x82, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x30,
        0x10,
    ];

    fn unit(sps: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 1], sps].concat()
    }

    #[test]
    fn what_is_wanted_is_read_again() {
        let wanted = Appearance { sample_aspect: Some((64, 45)), colour: Some((9, 16, 9, true)) };
        let stated = state(Syntax::H264, &unit(&H264), wanted);
        let mut fields = parse_h264_sps(&H264).unwrap();
        fields.appearance = wanted;
        assert_eq!(parse_h264_sps(&stated[4..]), Some(fields));
        let stated = state(Syntax::Hevc, &unit(&HEVC), wanted);
        let (general, mut fields) = parse_hevc_sps(&HEVC).unwrap();
        fields.appearance = wanted;
        assert_eq!(parse_hevc_sps(&stated[4..]), Some((general, fields)));
    }

    #[test]
    fn the_rest_of_the_vui_stays() {
        // x264 writes the samples' shape by its number, so only nothing at all changes nothing:
        // the rest is compared behind it.
        let wanted = Appearance { sample_aspect: Some((4, 3)), colour: None };
        let once = state(Syntax::H264, &unit(&H264), wanted);
        assert_eq!(state(Syntax::H264, &once, Appearance::default()), once);
        let tail = |sps: &[u8]| {
            let rbsp = unescape(&sps[1..]);
            let (place, _) = find_vui(Syntax::H264, &rbsp).unwrap();
            let bits = rbsp.iter().flat_map(|b| (0..8).rev().map(move |bit| b >> bit & 1));
            let mut bits: Vec<u8> = bits.skip(place.end).collect();
            bits.truncate(bits.iter().rposition(|bit| *bit == 1).unwrap());
            bits
        };
        assert_eq!(tail(&once[4..]), tail(&H264));
    }

    #[test]
    fn other_units_stay() {
        let slice = [0, 0, 0, 1, 0x65, 0x88, 0x84, 0, 0, 3, 1];
        assert_eq!(state(Syntax::H264, &slice, Appearance::default()), slice);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..200)) {
            for header in [[0x67, 0x64], [0x42, 0x01]] {
                let unit = unit(&[&header[..], &data].concat());
                state(Syntax::H264, &unit, Appearance::default());
                state(Syntax::Hevc, &unit, Appearance::default());
            }
        }
    }
}
