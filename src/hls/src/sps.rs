//! Sequence parameter sets: the fields that MP4 sample entries repeat.
//!
//! Invariants:
//! - Hostile bytes make `None` or wrong values, never a panic or a long loop.

use crate::annexb::Syntax;

/// What the picture looks like beyond its size (VUI).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appearance {
    /// Sample aspect ratio, if stated and not 1:1 by default.
    pub sample_aspect: Option<(u16, u16)>,
    /// Primaries, transfer, matrix (ITU-T H.273), full range.
    pub colour: Option<(u8, u8, u8, bool)>,
}

/// Fields of a sequence parameter set that `avcC` and `hvcC` repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpsFields {
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Bits per luma sample.
    pub bit_depth_luma: u8,
    /// Bits per chroma sample.
    pub bit_depth_chroma: u8,
    /// From the VUI.
    pub appearance: Appearance,
}

/// Reads the fields of an H.264 SPS (7.3.2.1.1, E.1.1).
pub fn parse_h264_sps(nal: &[u8]) -> Option<SpsFields> {
    let rbsp = unescape(nal.get(1..)?);
    read_h264(&mut Bits::new(&rbsp))
}

fn read_h264(bits: &mut Bits<'_>) -> Option<SpsFields> {
    let profile = bits.u(8)?;
    bits.skip(16)?;
    bits.ue()?;
    let mut fields = SpsFields {
        chroma_format: 1,
        bit_depth_luma: 8,
        bit_depth_chroma: 8,
        ..SpsFields::default()
    };
    if has_chroma_fields(u8::try_from(profile).ok()?) {
        fields.chroma_format = u8::try_from(bits.ue()?).ok().filter(|&c| c < 4)?;
        if fields.chroma_format == 3 {
            bits.skip(1)?;
        }
        fields.bit_depth_luma = 8 + u8::try_from(bits.ue()?).ok().filter(|&d| d < 7)?;
        fields.bit_depth_chroma = 8 + u8::try_from(bits.ue()?).ok().filter(|&d| d < 7)?;
        bits.skip(1)?;
        if bits.flag()? {
            let lists = if fields.chroma_format == 3 { 12 } else { 8 };
            for list in 0..lists {
                if bits.flag()? {
                    skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    fields.appearance = h264_appearance(bits).unwrap_or_default();
    Some(fields)
}

/// Profiles whose SPS and `avcC` carry chroma format and bit depth.
pub fn has_chroma_fields(profile: u8) -> bool {
    matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

fn skip_scaling_list(bits: &mut Bits<'_>, size: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

fn h264_appearance(bits: &mut Bits<'_>) -> Option<Appearance> {
    bits.ue()?; // log2_max_frame_num
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.skip(1)?;
            bits.se()?;
            bits.se()?;
            for _ in 0..bits.ue()?.min(255) {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?; // max_num_ref_frames
    bits.skip(1)?;
    bits.ue()?; // width
    bits.ue()?; // height
    if !bits.flag()? {
        bits.skip(1)?; // mb_adaptive_frame_field
    }
    bits.skip(1)?; // direct_8x8_inference
    if bits.flag()? {
        for _ in 0..4 {
            bits.ue()?; // cropping
        }
    }
    vui(bits)
}

/// `profile_tier_level` of an H.265 SPS, as `hvcC` repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HevcGeneral {
    /// Profile space, tier and profile, one byte.
    pub profile: u8,
    /// Compatibility flags.
    pub compatibility: [u8; 4],
    /// Constraint flags.
    pub constraints: [u8; 6],
    /// Level times 30.
    pub level: u8,
    /// Temporal sub-layers, 1 or more.
    pub sub_layers: u8,
    /// Whether they nest.
    pub nested: bool,
}

/// Reads the fields of an H.265 SPS (7.3.2.2, 7.3.3, E.2.1).
pub fn parse_hevc_sps(nal: &[u8]) -> Option<(HevcGeneral, SpsFields)> {
    let rbsp = unescape(nal.get(2..)?);
    read_hevc(&mut Bits::new(&rbsp))
}

fn read_hevc(bits: &mut Bits<'_>) -> Option<(HevcGeneral, SpsFields)> {
    let head = bits.data.get(..13)?;
    let sub_layers = head[0] >> 1 & 7;
    let general = HevcGeneral {
        profile: head[1],
        compatibility: head[2..6].try_into().ok()?,
        constraints: head[6..12].try_into().ok()?,
        level: head[12],
        sub_layers: sub_layers + 1,
        nested: head[0] & 1 == 1,
    };
    bits.skip(13 * 8)?;
    skip_sub_layers(bits, usize::from(sub_layers))?;
    bits.ue()?; // sps id
    let small = |value: u64, limit: u8| u8::try_from(value).ok().filter(|&v| v < limit);
    let mut fields = SpsFields { chroma_format: small(bits.ue()?, 4)?, ..SpsFields::default() };
    if fields.chroma_format == 3 {
        bits.skip(1)?;
    }
    bits.ue()?; // width
    bits.ue()?; // height
    if bits.flag()? {
        skip_ue(bits, 4)?; // conformance window
    }
    fields.bit_depth_luma = 8 + small(bits.ue()?, 8)?;
    fields.bit_depth_chroma = 8 + small(bits.ue()?, 8)?;
    fields.appearance = hevc_appearance(bits, usize::from(sub_layers)).unwrap_or_default();
    Some((general, fields))
}

/// Where the VUI of an SPS stands, and what it says.
pub(crate) fn find_vui(syntax: Syntax, rbsp: &[u8]) -> Option<(VuiPlace, Appearance)> {
    let mut bits = Bits::new(rbsp);
    let fields = match syntax {
        Syntax::H264 => read_h264(&mut bits)?,
        Syntax::Hevc => read_hevc(&mut bits)?.1,
    };
    Some((bits.vui?, fields.appearance))
}

/// Bits of an RBSP: where the flag of the VUI is, and where its [`Appearance`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VuiPlace {
    pub flag: usize,
    pub end: usize,
}

fn skip_ue(bits: &mut Bits<'_>, count: usize) -> Option<()> {
    (0..count).try_for_each(|_| bits.ue().map(|_| ()))
}

fn skip_sub_layers(bits: &mut Bits<'_>, count: usize) -> Option<()> {
    let mut present = Vec::new();
    for _ in 0..count {
        present.push((bits.flag()?, bits.flag()?));
    }
    if count > 0 {
        bits.skip(2 * (8 - count))?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(())
}

fn hevc_appearance(bits: &mut Bits<'_>, sub_layers: usize) -> Option<Appearance> {
    let poc_bits = 4 + usize::try_from(bits.ue()?).ok().filter(|&b| b <= 12)?;
    let layers = if bits.flag()? { sub_layers + 1 } else { 1 };
    skip_ue(bits, 3 * layers)?;
    skip_ue(bits, 6)?; // coding and transform block sizes
    if bits.flag()? && bits.flag()? {
        skip_hevc_scaling_lists(bits)?;
    }
    bits.skip(2)?; // amp, sao
    if bits.flag()? {
        bits.skip(8)?; // pcm
        skip_ue(bits, 2)?;
        bits.skip(1)?;
    }
    let sets = bits.ue()?.min(64);
    let mut pictures = 0;
    for index in 0..sets {
        pictures = skip_short_term_set(bits, index > 0, pictures)?;
    }
    if bits.flag()? {
        for _ in 0..bits.ue()?.min(33) {
            bits.skip(poc_bits + 1)?;
        }
    }
    bits.skip(2)?; // temporal_mvp, strong_intra_smoothing
    vui(bits)
}

fn skip_hevc_scaling_lists(bits: &mut Bits<'_>) -> Option<()> {
    for size in 0..4 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.flag()? {
                bits.ue()?;
                continue;
            }
            let coefficients = 64.min(1 << (4 + (size << 1)));
            let count = coefficients + usize::from(size > 1);
            skip_ue(bits, count)?; // se(v) is as long as ue(v)
        }
    }
    Some(())
}

/// Passes over a `st_ref_pic_set` (7.3.7) and says how many pictures it has; `before` is that
/// number of the set before it.
fn skip_short_term_set(bits: &mut Bits<'_>, may_predict: bool, before: u64) -> Option<u64> {
    if may_predict && bits.flag()? {
        bits.skip(1)?;
        bits.ue()?;
        let mut pictures = 0;
        for _ in 0..=before {
            let used = bits.flag()?;
            if used || bits.flag()? {
                pictures += 1;
            }
        }
        return Some(pictures);
    }
    let pictures = bits.ue()?.min(16) + bits.ue()?.min(16);
    for _ in 0..pictures {
        bits.ue()?;
        bits.skip(1)?;
    }
    Some(pictures)
}

/// The VUI as far as it is read; notes where it stands.
fn vui(bits: &mut Bits<'_>) -> Option<Appearance> {
    let flag = bits.at;
    let appearance = if bits.flag()? { vui_head(bits)? } else { Appearance::default() };
    bits.vui = Some(VuiPlace { flag, end: bits.at });
    Some(appearance)
}

/// The part of the VUI that both codecs share (H.264 E.1.1, H.265 E.2.1).
fn vui_head(bits: &mut Bits<'_>) -> Option<Appearance> {
    let mut appearance = Appearance::default();
    if bits.flag()? {
        let ratio = match bits.u(8)? {
            255 => (u16::try_from(bits.u(16)?).ok()?, u16::try_from(bits.u(16)?).ok()?),
            index => *SAMPLE_ASPECTS.get(usize::try_from(index).ok()?).unwrap_or(&(0, 0)),
        };
        appearance.sample_aspect = Some(ratio).filter(|&(w, h)| w != 0 && h != 0);
    }
    if bits.flag()? {
        bits.skip(1)?; // overscan_appropriate
    }
    if bits.flag()? {
        bits.skip(3)?; // video_format
        let full = bits.flag()?;
        if bits.flag()? {
            let byte = |bits: &mut Bits<'_>| u8::try_from(bits.u(8)?).ok();
            appearance.colour = Some((byte(bits)?, byte(bits)?, byte(bits)?, full));
        }
    }
    Some(appearance)
}

/// Table E-1.
const SAMPLE_ASPECTS: [(u16, u16); 17] = [
    (0, 0),
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];

/// Removes emulation prevention (`00 00 03`).
pub fn unescape(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut zeros = 0;
    for &byte in data {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

/// Bits of an RBSP, most significant first.
#[derive(Debug)]
pub struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Once it has been passed.
    vui: Option<VuiPlace>,
}

impl<'a> Bits<'a> {
    /// From the first bit on.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, vui: None }
    }

    /// One bit.
    pub fn flag(&mut self) -> Option<bool> {
        let byte = *self.data.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// Up to 32 bits, unsigned.
    pub fn u(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| Some(value << 1 | u32::from(self.flag()?)))
    }

    /// Passes over bits.
    pub fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|&at| at <= self.data.len() * 8)?;
        Some(())
    }

    /// Exponential Golomb code, unsigned (H.264 9.1).
    pub fn ue(&mut self) -> Option<u64> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 32 {
                return None;
            }
        }
        let rest = (0..zeros).try_fold(0u64, |v, _| Some(v << 1 | u64::from(self.flag()?)))?;
        Some((1u64 << zeros) - 1 + rest)
    }

    /// Exponential Golomb code, signed.
    pub fn se(&mut self) -> Option<i64> {
        let code = i64::try_from(self.ue()?).ok()?;
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 320x180 High by x264 with 4:3 samples and BT.709.
    const SPS: [u8; 28] = [
        0x67, 0x64, 0x00, 0x0c, 0xac, 0xd9, 0x41, 0x41, 0x9f, 0x9f, 0x0e, 0x6a, 0x02, 0x02, 0x02,
        0x80, 0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x18, 0x07, 0x8a, 0x14, 0xcb,
    ];

    /// The same, Main by x265.
    const HEVC_SPS: [u8; 46] = [
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00,
        0x03, 0x00, 0x3c, 0xa0, 0x0a, 0x08, 0x0c, 0x1f, 0x3e, 0x59, 0x59, 0x12, 0x93, 0x0b, 0xc3,
        0x9a, 0x80, 0x80, 0x80, 0x82, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x30,
        0x10,
    ];

    #[test]
    fn reads_the_fields_of_an_sps() {
        let fields = parse_h264_sps(&SPS).unwrap();
        assert_eq!(fields.chroma_format, 1);
        assert_eq!((fields.bit_depth_luma, fields.bit_depth_chroma), (8, 8));
        assert_eq!(fields.appearance.sample_aspect, Some((4, 3)));
        assert_eq!(fields.appearance.colour, Some((1, 1, 1, false)));
    }

    #[test]
    fn reads_the_fields_of_an_hevc_sps() {
        let (general, fields) = parse_hevc_sps(&HEVC_SPS).unwrap();
        assert_eq!((general.profile, general.level), (1, 60));
        assert_eq!((general.sub_layers, general.nested), (1, true));
        assert_eq!((fields.chroma_format, fields.bit_depth_luma), (1, 8));
        assert_eq!(fields.appearance.sample_aspect, Some((4, 3)));
        assert_eq!(fields.appearance.colour, Some((1, 1, 1, false)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..300)) {
            parse_h264_sps(&data);
            parse_hevc_sps(&data);
        }
    }
}
