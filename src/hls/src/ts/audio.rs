//! Sound in PES packets: framing where the codec needs one, and several frames per packet.

use super::{OPUS_GATHER, PES_PAYLOAD, Pes, pes};
use crate::sps::Bits;
use crate::time::duration_ticks;
use crate::{TrackFormat, WriteError};

/// Collects frames until a PES packet is full.
#[derive(Debug)]
pub struct Gather {
    framing: Framing,
    stream_id: u8,
    payload: Vec<u8>,
    /// Time of the first frame gathered.
    pts: i64,
    opus_samples: u32,
}

#[derive(Debug)]
enum Framing {
    /// Frames that begin with a sync word of their own.
    None,
    /// AAC: the fixed part of the ADTS header.
    Adts([u8; 7]),
    /// Opus: control header (ETSI TS 103 491 / Opus in MPEG-TS).
    Opus,
}

impl Gather {
    pub(super) fn new(format: &TrackFormat) -> Result<Self, WriteError> {
        let (framing, stream_id) = match format {
            TrackFormat::Aac { audio_specific_config, .. } => {
                (Framing::Adts(adts(audio_specific_config)?), pes::AUDIO)
            }
            TrackFormat::Mp3 { .. } => (Framing::None, pes::AUDIO),
            TrackFormat::Ac3 { .. } | TrackFormat::Eac3 { .. } => (Framing::None, pes::PRIVATE),
            TrackFormat::Opus { .. } => (Framing::Opus, pes::PRIVATE),
            TrackFormat::Flac { .. }
            | TrackFormat::Vorbis { .. }
            | TrackFormat::H264 { .. }
            | TrackFormat::Hevc { .. } => {
                return Err(WriteError::Unsupported("FLAC or Vorbis in MPEG-TS".into()));
            }
        };
        Ok(Self { framing, stream_id, payload: Vec::new(), pts: 0, opus_samples: 0 })
    }

    /// Adds a frame; gives the frames before it if they are to be written first: because there is
    /// no more room, or because the first has waited `late` ticks. `early` ns of the frame lie
    /// before the source's zero.
    pub(super) fn add(
        &mut self,
        data: &[u8],
        pts: i64,
        late: i64,
        early: u64,
    ) -> Result<Option<Pes>, String> {
        let (head, samples) = match &self.framing {
            Framing::None => (Vec::new(), 0),
            Framing::Adts(fixed) => (adts_header(fixed, data.len())?, 0),
            Framing::Opus => {
                let samples = opus_samples(data);
                let trim = duration_ticks(early, 48_000).clamp(0, samples.into());
                (opus_header(data.len(), u16::try_from(trim).unwrap_or(0)), samples)
            }
        };
        let full = self.payload.len() + head.len() + data.len() > PES_PAYLOAD
            || pts - self.pts >= late
            || self.opus_samples + samples >= OPUS_GATHER;
        let before = if full { self.take() } else { None };
        if self.payload.is_empty() {
            self.pts = pts;
        }
        self.payload.extend_from_slice(&head);
        self.payload.extend_from_slice(data);
        self.opus_samples += samples;
        Ok(before)
    }

    /// True if a single frame exceeds a packet.
    pub(super) fn is_over_full(&self) -> bool {
        self.payload.len() > PES_PAYLOAD
    }

    /// What has been gathered, if anything.
    pub(super) fn take(&mut self) -> Option<Pes> {
        self.opus_samples = 0;
        let payload = std::mem::take(&mut self.payload);
        (!payload.is_empty()).then_some(Pes {
            stream_id: self.stream_id,
            pts: self.pts,
            dts: self.pts,
            keyframe: true,
            payload,
        })
    }
}

/// ADTS header with length zero, from an AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1, 1.A.2).
pub(crate) fn adts(config: &[u8]) -> Result<[u8; 7], WriteError> {
    let unsupported = |why: &str| WriteError::Unsupported(format!("AAC in ADTS: {why}"));
    let (object_type, rate_index, channels) =
        parse_config(config).ok_or_else(|| unsupported("AudioSpecificConfig is cut short"))?;
    if !(1..=4).contains(&object_type) {
        return Err(unsupported(&format!("object type {object_type}, expected 1 to 4")));
    }
    if rate_index > 12 || !(1..=7).contains(&channels) {
        return Err(unsupported("sampling rate or channel layout without a number"));
    }
    let field = |value: u32| u8::try_from(value).unwrap_or(0);
    Ok([
        0xff,
        0xf1,
        field(object_type - 1) << 6 | field(rate_index) << 2 | field(channels) >> 2,
        (field(channels) & 3) << 6,
        0,
        0x1f, // buffer fullness: variable rate
        0xfc,
    ])
}

/// Object type of the core codec, index of the sampling rate, channel configuration.
fn parse_config(config: &[u8]) -> Option<(u32, u32, u32)> {
    let mut bits = Bits::new(config);
    let object_type = |bits: &mut Bits<'_>| match bits.u(5)? {
        31 => Some(32 + bits.u(6)?),
        kind => Some(kind),
    };
    let rate = |bits: &mut Bits<'_>| {
        let index = bits.u(4)?;
        if index == 15 {
            bits.skip(24)?;
        }
        Some(index)
    };
    let kind = object_type(&mut bits)?;
    let index = rate(&mut bits)?;
    let channels = bits.u(4)?;
    if kind == 5 || kind == 29 {
        // Explicit SBR: ADTS names the core, the rest is found in the frames.
        rate(&mut bits)?;
        return Some((object_type(&mut bits)?, index, channels));
    }
    Some((kind, index, channels))
}

pub(crate) fn adts_header(fixed: &[u8; 7], frame: usize) -> Result<Vec<u8>, String> {
    let length = u16::try_from(frame + 7)
        .ok()
        .filter(|&l| l < 1 << 13)
        .ok_or_else(|| format!("AAC frame of {frame} bytes, expected at most 8184"))?;
    let mut out = fixed.to_vec();
    let [high, low] = (length << 3).to_be_bytes();
    out[3] |= high >> 6;
    out[4] |= high << 2 | low >> 6;
    out[5] |= (low & 0x38) << 2;
    Ok(out)
}

/// `trim` samples of 48 kHz are not to be heard: the encoder's priming, which ffmpeg marks too.
fn opus_header(packet: usize, trim: u16) -> Vec<u8> {
    let mut out = vec![0x7f, if trim > 0 { 0xf0 } else { 0xe0 }];
    let mut left = packet;
    while left >= 255 {
        out.push(255);
        left -= 255;
    }
    out.push(u8::try_from(left).unwrap_or(0));
    if trim > 0 {
        out.extend_from_slice(&(trim & 0x1fff).to_be_bytes());
    }
    out
}

/// Length of an Opus packet in samples of 48 kHz (RFC 6716 3.1).
pub(crate) fn opus_samples(packet: &[u8]) -> u32 {
    let Some(&toc) = packet.first() else { return 0 };
    let frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880][usize::from(config % 4)],
        config @ 12..=15 => [480, 960][usize::from(config % 2)],
        config => [120, 240, 480, 960][usize::from(config % 4)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).copied().unwrap_or(0) & 0x3f),
    };
    frame * frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adts_is_ffmpegs() {
        // First frame of a mono 48 kHz stream: 294 bytes of AAC.
        let fixed = adts(&[0x11, 0x88, 0x56, 0xe5, 0x00]).unwrap();
        assert_eq!(adts_header(&fixed, 294).unwrap(), [0xff, 0xf1, 0x4c, 0x40, 0x25, 0xbf, 0xfc]);
        assert!(adts_header(&fixed, 8185).is_err());
    }

    #[test]
    fn he_aac_names_its_core() {
        // AOT 5, 24 kHz, stereo, extension 48 kHz, AOT 2.
        assert_eq!(parse_config(&[0x2b, 0x11, 0x88, 0x00]), Some((2, 6, 2)));
        assert!(adts(&[0x11]).is_err());
        // Channel configuration 0 has its layout elsewhere.
        assert!(matches!(adts(&[0x11, 0x80]), Err(WriteError::Unsupported(_))));
    }

    #[test]
    fn opus_control_header_counts_in_255s() {
        assert_eq!(opus_header(534, 0), [0x7f, 0xe0, 0xff, 0xff, 0x18]);
        assert_eq!(opus_header(255, 0), [0x7f, 0xe0, 0xff, 0]);
        assert_eq!(opus_header(3, 312), [0x7f, 0xf0, 3, 0x01, 0x38]);
        assert_eq!(opus_samples(&[0xf8]), 960);
        assert_eq!(opus_samples(&[0x03, 3]), 1440);
    }

    #[test]
    fn frames_are_gathered_until_full_or_late() {
        let format = TrackFormat::Ac3 { sample_rate: 48_000, channels: 2 };
        let mut gather = Gather::new(&format).unwrap();
        for k in 0..3 {
            assert!(gather.add(&[0; 768], 1000 + k * 2880, 225_000, 0).unwrap().is_none());
        }
        let unit = gather.add(&[0; 768], 9640, 225_000, 0).unwrap().unwrap();
        assert_eq!((unit.payload.len(), unit.pts), (3 * 768, 1000));
        let unit = gather.add(&[0; 10], 9640 + 225_000, 225_000, 0).unwrap().unwrap();
        assert_eq!(unit.payload.len(), 768);
        assert_eq!(gather.take().unwrap().payload.len(), 10);
        assert!(gather.take().is_none());
    }
}
