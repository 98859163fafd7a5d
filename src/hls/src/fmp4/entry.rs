//! Sample entries: what `stsd` says of each codec.

use mp4_atom::esds::{DecoderConfig, DecoderSpecific, EsDescriptor, SLConfig};
use mp4_atom::{
    Ac3, Ac3SpecificBox, Audio, Avc1, Avcc, AvccExt, Codec, Colr, Dfla, Dops, Eac3,
    Ec3IndependentSubstream, Ec3SpecificBox, Esds, Flac, FlacMetadataBlock, Hev1, Hvc1, HvcCArray,
    Hvcc, Mp4a, Opus, OpusChannelMapping, Pasp, Visual,
};

use super::{Config, TrackState};
use crate::annexb::{ParameterSets, Syntax, hevc};
use crate::sps::{self, Appearance, Bits};
use crate::{TrackFormat, WriteError};

/// The sample entry of an H.265 track; ffmpeg writes `hev1` unless told otherwise.
pub(super) fn hevc_tag(tag: Option<[u8; 4]>) -> [u8; 4] {
    tag.unwrap_or(*b"hev1")
}

/// What can be refused before the first sample.
pub(super) fn check(format: &TrackFormat) -> Result<(), WriteError> {
    let refuse = |why: &str| Err(WriteError::Unsupported(why.to_owned()));
    match format {
        TrackFormat::Hevc { tag, .. } if !matches!(&hevc_tag(*tag), b"hvc1" | b"hev1") => {
            refuse("sample entry of H.265, expected hvc1 or hev1")
        }
        TrackFormat::Opus { opus_head, .. } if dops(opus_head).is_none() => {
            refuse("OpusHead, expected at least 19 bytes and a whole mapping table")
        }
        TrackFormat::Flac { streaminfo, .. } if dfla(streaminfo).is_none() => {
            refuse("STREAMINFO, expected 34 bytes")
        }
        TrackFormat::Vorbis { .. } => refuse("Vorbis in MP4"),
        _ => Ok(()),
    }
}

/// Sample aspect ratio as the stream states it.
pub(super) fn sample_aspect(track: &TrackState) -> Option<(u16, u16)> {
    appearance(track).sample_aspect
}

fn appearance(track: &TrackState) -> Appearance {
    let Config::Video(syntax, sets) = &track.config else { return Appearance::default() };
    sets.appearance(*syntax)
}

/// Makes the entry from the format and what the samples have told so far.
pub(super) fn sample_entry(track: &TrackState) -> Result<Codec, WriteError> {
    let bad = |reason: &str| WriteError::BadSample {
        track: usize::try_from(track.id).unwrap_or(1) - 1,
        reason: reason.to_owned(),
    };
    Ok(match (&track.format, &track.config) {
        (TrackFormat::H264 { width, height, .. }, Config::Video(_, sets)) => {
            let avcc = avcc(sets).ok_or_else(|| bad("no SPS and PPS at the first keyframe"))?;
            let (colr, pasp) = picture(track);
            Codec::Avc1(Avc1 {
                visual: visual(*width, *height),
                avcc,
                colr,
                pasp,
                ..Avc1::default()
            })
        }
        (TrackFormat::Hevc { width, height, tag, .. }, Config::Video(_, sets)) => {
            let closed = hevc_tag(*tag) == *b"hvc1";
            let hvcc = hvcc(sets, closed)
                .ok_or_else(|| bad("no VPS, SPS and PPS at the first keyframe"))?;
            let (visual, (colr, pasp)) = (visual(*width, *height), picture(track));
            if closed {
                Codec::Hvc1(Hvc1 { visual, hvcc, colr, pasp, ..Hvc1::default() })
            } else {
                Codec::Hev1(Hev1 { visual, hvcc, colr, pasp, ..Hev1::default() })
            }
        }
        (TrackFormat::Aac { audio_specific_config, sample_rate, channels }, _) => {
            let specific = DecoderSpecific {
                raw: audio_specific_config.to_vec(),
                ..DecoderSpecific::default()
            };
            mp4a(track.id, 0x40, *sample_rate, *channels, Some(specific))
        }
        (TrackFormat::Mp3 { sample_rate, channels }, _) => {
            // MPEG-2's low sampling rates have an object type of their own.
            let kind = if *sample_rate > 24_000 { 0x6b } else { 0x69 };
            mp4a(track.id, kind, *sample_rate, *channels, None)
        }
        (TrackFormat::Ac3 { sample_rate, channels }, config) => {
            let dac3 = first_frame(config)
                .and_then(dac3)
                .unwrap_or_else(|| plain_dac3(*sample_rate, *channels));
            Codec::Ac3(Ac3 { audio: audio(*sample_rate, *channels), dac3 })
        }
        (TrackFormat::Eac3 { sample_rate, channels }, config) => {
            let dec3 = first_frame(config)
                .and_then(dec3)
                .unwrap_or_else(|| plain_dec3(*sample_rate, *channels));
            Codec::Eac3(Eac3 { audio: audio(*sample_rate, *channels), dec3 })
        }
        (TrackFormat::Opus { opus_head, channels, .. }, _) => Codec::Opus(Opus {
            audio: audio(48_000, *channels),
            dops: dops(opus_head).ok_or_else(|| bad("OpusHead"))?,
            btrt: None,
        }),
        (TrackFormat::Flac { streaminfo, sample_rate, channels }, _) => Codec::Flac(Flac {
            audio: audio(*sample_rate, *channels),
            dfla: dfla(streaminfo).ok_or_else(|| bad("STREAMINFO"))?,
        }),
        (TrackFormat::H264 { .. } | TrackFormat::Hevc { .. }, _) => {
            return Err(bad("no keyframe"));
        }
        (TrackFormat::Vorbis { .. }, _) => return Err(bad("Vorbis has no sample entry")),
    })
}

fn visual(width: u32, height: u32) -> Visual {
    Visual {
        data_reference_index: 1,
        width: u16::try_from(width).unwrap_or(u16::MAX),
        height: u16::try_from(height).unwrap_or(u16::MAX),
        ..Visual::default()
    }
}

fn picture(track: &TrackState) -> (Option<Colr>, Option<Pasp>) {
    let appearance = appearance(track);
    let colr = appearance.colour.map(|(primaries, transfer, matrix, full)| Colr::Nclx {
        colour_primaries: primaries.into(),
        transfer_characteristics: transfer.into(),
        matrix_coefficients: matrix.into(),
        full_range_flag: full,
    });
    let pasp =
        appearance.sample_aspect.map(|(h, v)| Pasp { h_spacing: h.into(), v_spacing: v.into() });
    (colr, pasp)
}

/// `avcC`; `None` without SPS and PPS that can be read.
pub(crate) fn avcc(sets: &ParameterSets) -> Option<Avcc> {
    let first = sets.sps.first()?;
    let mut avcc = Avcc::new(first, sets.pps.first()?).ok()?;
    avcc.sequence_parameter_sets.clone_from(&sets.sps);
    avcc.picture_parameter_sets.clone_from(&sets.pps);
    if sps::has_chroma_fields(avcc.avc_profile_indication) {
        let fields = sps::parse_h264_sps(first)?;
        avcc.ext = Some(AvccExt {
            chroma_format: fields.chroma_format,
            bit_depth_luma: fields.bit_depth_luma,
            bit_depth_chroma: fields.bit_depth_chroma,
            sequence_parameter_sets_ext: Vec::new(),
        });
    }
    Some(avcc)
}

/// `hvcC`. `closed`: samples carry no parameter sets (`hvc1`).
pub(crate) fn hvcc(sets: &ParameterSets, closed: bool) -> Option<Hvcc> {
    if !sets.is_complete(Syntax::Hevc) {
        return None;
    }
    let (general, fields) = sps::parse_hevc_sps(sets.sps.first()?)?;
    let array = |kind: u8, nalus: &[Vec<u8>]| HvcCArray {
        completeness: closed,
        nal_unit_type: kind,
        nalus: nalus.to_vec(),
    };
    Some(Hvcc {
        general_profile_space: general.profile >> 6,
        general_tier_flag: general.profile & 0x20 != 0,
        general_profile_idc: general.profile & 0x1f,
        general_profile_compatibility_flags: general.compatibility,
        general_constraint_indicator_flags: general.constraints,
        general_level_idc: general.level,
        chroma_format_idc: fields.chroma_format,
        bit_depth_luma_minus8: fields.bit_depth_luma - 8,
        bit_depth_chroma_minus8: fields.bit_depth_chroma - 8,
        num_temporal_layers: general.sub_layers,
        temporal_id_nested: general.nested,
        length_size_minus_one: 3,
        arrays: vec![
            array(hevc::VPS, &sets.vps),
            array(hevc::SPS, &sets.sps),
            array(hevc::PPS, &sets.pps),
        ],
        ..Hvcc::new()
    })
}

fn audio(sample_rate: u32, channels: u32) -> Audio {
    Audio {
        data_reference_index: 1,
        channel_count: u16::try_from(channels).unwrap_or(2),
        sample_size: 16,
        // Rates beyond 16 bits are stated elsewhere; ffmpeg writes 0 then.
        sample_rate: u16::try_from(sample_rate).unwrap_or(0).into(),
    }
}

fn mp4a(
    id: u32,
    object_type_indication: u8,
    sample_rate: u32,
    channels: u32,
    dec_specific: Option<DecoderSpecific>,
) -> Codec {
    Codec::Mp4a(Mp4a {
        audio: audio(sample_rate, channels),
        esds: Esds {
            es_desc: EsDescriptor {
                es_id: u16::try_from(id).unwrap_or(0),
                dec_config: DecoderConfig {
                    object_type_indication,
                    stream_type: 5,
                    dec_specific,
                    ..DecoderConfig::default()
                },
                sl_config: SLConfig::default(),
                ..EsDescriptor::default()
            },
        },
        btrt: None,
        taic: None,
    })
}

fn first_frame(config: &Config) -> Option<&[u8]> {
    match config {
        Config::Frame(frame) => Some(frame),
        _ => None,
    }
}

/// Sampling rate code of AC-3 (ETSI TS 102 366 table 4.1).
fn ac3_rate_code(sample_rate: u32) -> u8 {
    match sample_rate {
        44_100 => 1,
        32_000 => 2,
        _ => 0,
    }
}

/// Audio coding mode and LFE of a usual layout.
fn ac3_layout(channels: u32) -> (u8, bool) {
    match channels {
        1 => (1, false),
        3 => (3, false),
        4 => (6, false),
        5 => (7, false),
        6.. => (7, true),
        _ => (2, false),
    }
}

/// Used if the track has not begun by the time the init file is written.
fn plain_dac3(sample_rate: u32, channels: u32) -> Ac3SpecificBox {
    let (acmod, lfeon) = ac3_layout(channels);
    Ac3SpecificBox {
        fscod: ac3_rate_code(sample_rate),
        bsid: 8,
        bsmod: 0,
        acmod,
        lfeon,
        bit_rate_code: if channels > 2 { 15 } else { 10 },
    }
}

fn plain_dec3(sample_rate: u32, channels: u32) -> Ec3SpecificBox {
    let (acmod, lfeon) = ac3_layout(channels);
    Ec3SpecificBox {
        data_rate: 640,
        substreams: vec![substream(ac3_rate_code(sample_rate), acmod, lfeon)],
    }
}

fn substream(fscod: u8, acmod: u8, lfeon: bool) -> Ec3IndependentSubstream {
    Ec3IndependentSubstream {
        fscod,
        bsid: 16,
        asvc: false,
        bsmod: 0,
        acmod,
        lfeon,
        num_dep_sub: 0,
        chan_loc: None,
    }
}

/// From a sync frame (ETSI TS 102 366 4.3, F.4).
fn dac3(frame: &[u8]) -> Option<Ac3SpecificBox> {
    let mut bits = Bits::new(frame);
    if bits.u(16)? != 0x0b77 {
        return None;
    }
    bits.skip(16)?;
    let field = |bits: &mut Bits<'_>, n| u8::try_from(bits.u(n)?).ok();
    let fscod = field(&mut bits, 2)?;
    let size_code = field(&mut bits, 6)?;
    let bsid = field(&mut bits, 5)?;
    let bsmod = field(&mut bits, 3)?;
    let acmod = field(&mut bits, 3)?;
    let centre = acmod & 1 != 0 && acmod != 1;
    let surround = acmod & 4 != 0;
    let skip = 2 * (usize::from(centre) + usize::from(surround) + usize::from(acmod == 2));
    bits.skip(skip)?;
    let lfeon = bits.flag()?;
    Some(Ac3SpecificBox { fscod, bsid, bsmod, acmod, lfeon, bit_rate_code: size_code >> 1 })
}

/// From an access unit of E-AC-3: one independent frame, and dependent ones behind it
/// (ETSI TS 102 366 E.1, F.6).
fn dec3(unit: &[u8]) -> Option<Ec3SpecificBox> {
    let mut found: Option<Ec3SpecificBox> = None;
    let mut rest = unit;
    while let Some(frame) = Eac3Frame::parse(rest) {
        match &mut found {
            None => {
                found = Some(Ec3SpecificBox {
                    data_rate: frame.kbps,
                    substreams: vec![substream(frame.fscod, frame.acmod, frame.lfeon)],
                });
            }
            Some(dec3) if frame.dependent => {
                dec3.data_rate = dec3.data_rate.saturating_add(frame.kbps);
                let main = &mut dec3.substreams[0];
                main.num_dep_sub += 1;
                // Custom channel map to channel locations, F.6.2.13.
                let map = frame.channel_map;
                let locations = map >> 5 & 0x1f | (map & 0x6) << 4;
                main.chan_loc = Some(main.chan_loc.unwrap_or(0) | locations);
            }
            Some(_) => break,
        }
        let Some(after) = rest.get(frame.size..) else { break };
        rest = after;
    }
    found
}

struct Eac3Frame {
    dependent: bool,
    size: usize,
    fscod: u8,
    acmod: u8,
    lfeon: bool,
    kbps: u16,
    channel_map: u16,
}

impl Eac3Frame {
    fn parse(data: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(data);
        if bits.u(16)? != 0x0b77 {
            return None;
        }
        let dependent = bits.u(2)? == 1;
        bits.skip(3)?;
        let size = 2 * (usize::try_from(bits.u(11)?).ok()? + 1);
        let fscod = u8::try_from(bits.u(2)?).ok()?;
        let code = usize::try_from(bits.u(2)?).ok()?;
        let (rate, blocks) = match fscod {
            3 => (*[24_000u64, 22_050, 16_000].get(code)?, 6u64),
            _ => ([48_000u64, 44_100, 32_000][usize::from(fscod)], [1u64, 2, 3, 6][code]),
        };
        let acmod = u8::try_from(bits.u(3)?).ok()?;
        let lfeon = bits.flag()?;
        bits.skip(5)?; // bsid
        for _ in 0..if acmod == 0 { 2 } else { 1 } {
            bits.skip(5)?; // dialogue level
            if bits.flag()? {
                bits.skip(8)?;
            }
        }
        let channel_map =
            if dependent && bits.flag()? { u16::try_from(bits.u(16)?).ok()? } else { 0 };
        let kbps = u64::try_from(size).ok()? * 8 * rate / (blocks * 256 * 1000);
        let kbps = u16::try_from(kbps).unwrap_or(u16::MAX).min(0x1fff);
        Some(Self { dependent, size, fscod, acmod, lfeon, kbps, channel_map })
    }
}

/// From the identification header (RFC 7845 5.1): little-endian there, big-endian in MP4.
fn dops(head: &[u8]) -> Option<Dops> {
    let head = head.strip_prefix(b"OpusHead")?;
    let fixed: &[u8; 11] = head.get(..11)?.try_into().ok()?;
    let channels = fixed[1];
    let channel_mapping = match fixed[10] {
        0 => None,
        family => Some(OpusChannelMapping {
            family,
            stream_count: *head.get(11)?,
            coupled_count: *head.get(12)?,
            channel_mapping: head.get(13..13 + usize::from(channels))?.to_vec(),
        }),
    };
    Some(Dops {
        output_channel_count: channels,
        pre_skip: u16::from_le_bytes([fixed[2], fixed[3]]),
        input_sample_rate: u32::from_le_bytes(fixed[4..8].try_into().ok()?),
        output_gain: i16::from_le_bytes([fixed[8], fixed[9]]),
        channel_mapping,
    })
}

/// From the block's bytes (RFC 9639 8.2).
fn dfla(info: &[u8]) -> Option<Dfla> {
    let info: &[u8; 34] = info.try_into().ok()?;
    let short = |at: usize| u16::from_be_bytes([info[at], info[at + 1]]);
    let packed = u64::from_be_bytes(info[10..18].try_into().ok()?);
    let bits = |shift: u32, mask: u64| u8::try_from(packed >> shift & mask).ok();
    Some(Dfla {
        blocks: vec![FlacMetadataBlock::StreamInfo {
            minimum_block_size: short(0),
            maximum_block_size: short(2),
            minimum_frame_size: <[u8; 3]>::try_from(&info[4..7]).ok()?.into(),
            maximum_frame_size: <[u8; 3]>::try_from(&info[7..10]).ok()?.into(),
            sample_rate: u32::try_from(packed >> 44).ok()?,
            num_channels_minus_one: bits(41, 7)?,
            bits_per_sample_minus_one: bits(36, 31)?,
            number_of_interchannel_samples: packed & 0xf_ffff_ffff,
            md5_checksum: info[18..].to_vec(),
        }],
    })
}
