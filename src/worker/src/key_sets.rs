//! Parameter sets for the keyframes of a copied picture. Pure.
//!
//! A segment may begin at any keyframe, and has to be decodable from there. The parsers put the
//! container's sets into the stream, but those of GStreamer 1.26 only before an IDR: an I picture that
//! opens a group, or that the copy begins with, has none.
//!
//! Invariant: a unit that has its sets, or isn't a keyframe, stays as it is.

use bytes::Bytes;
use gstreamer as gst;
use hls::annexb::{ParameterSets, Syntax, nals};

/// The sets in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySets {
    syntax: Syntax,
    /// As a byte stream; empty until some are known.
    known: Vec<u8>,
}

impl KeySets {
    /// Those that a container states with a stream; `None` if the codec has no such thing.
    pub fn of(caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps.structure(0)?;
        let syntax = match structure.name().as_str() {
            "video/x-h264" => Syntax::H264,
            "video/x-h265" => Syntax::Hevc,
            _ => return None,
        };
        let record = structure.get::<gst::Buffer>("codec_data").ok();
        let record = record.as_ref().and_then(|record| record.map_readable().ok());
        let known = record.and_then(|record| match syntax {
            Syntax::H264 => avcc(&record),
            Syntax::Hevc => hvcc(&record),
        });
        Some(Self { syntax, known: known.unwrap_or_default() })
    }

    /// A unit with parameter sets, if it is a keyframe; those that it brings replace the ones known.
    pub fn complete(&mut self, unit: Bytes, keyframe: bool) -> Bytes {
        if !keyframe {
            return unit;
        }
        let own = ParameterSets::collect(self.syntax, &unit);
        if own.is_complete(self.syntax) {
            self.known = own.to_annexb();
            return unit;
        }
        // Nothing may stand before a delimiter.
        let delimiter = nals(&unit).next().filter(|nal| self.syntax.is_aud(nal));
        let at = delimiter.map_or(0, |nal| nal.as_ptr().addr() - unit.as_ptr().addr() + nal.len());
        [&unit[..at], &self.known, &unit[at..]].concat().into()
    }
}

/// The sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1), as a byte stream.
fn avcc(record: &[u8]) -> Option<Vec<u8>> {
    let mut stream = Vec::new();
    let (sequence, rest) = record.get(5..)?.split_first()?;
    let rest = units(rest, usize::from(sequence & 0x1f), &mut stream)?;
    let (pictures, rest) = rest.split_first()?;
    units(rest, usize::from(*pictures), &mut stream)?;
    Some(stream)
}

/// As [`avcc`], of an HEVCDecoderConfigurationRecord (8.3.3.1): arrays by type.
fn hvcc(record: &[u8]) -> Option<Vec<u8>> {
    let mut stream = Vec::new();
    let (arrays, mut rest) = record.get(22..)?.split_first()?;
    for _ in 0..*arrays {
        let (head, units_of) = rest.split_at_checked(3)?;
        let count = usize::from(u16::from_be_bytes([head[1], head[2]]));
        // Others hold messages, which may be meant for the first picture alone.
        let mut found = Vec::new();
        rest = units(units_of, count, &mut found)?;
        if Syntax::Hevc.is_parameter_set(&[head[0] << 1]) {
            stream.append(&mut found);
        }
    }
    Some(stream)
}

/// Appends so many NAL units behind their lengths to a byte stream; returns what follows them.
fn units<'a>(mut data: &'a [u8], count: usize, stream: &mut Vec<u8>) -> Option<&'a [u8]> {
    for _ in 0..count {
        let (length, rest) = data.split_at_checked(2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (unit, rest) = rest.split_at_checked(length)?;
        stream.extend_from_slice(&[0, 0, 0, 1]);
        stream.extend_from_slice(unit);
        data = rest;
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETS: [u8; 14] = [0, 0, 0, 1, 0x67, 0x64, 0x1f, 0, 0, 0, 1, 0x68, 0xee, 0x3c];

    fn of(caps: &str) -> Option<KeySets> {
        gst::init().unwrap();
        KeySets::of(&caps.parse::<gst::Caps>().unwrap())
    }

    fn avc() -> KeySets {
        let record = "0164001fffe1000367641f01000368ee3c";
        of(&format!("video/x-h264, stream-format=avc, codec_data=(buffer){record}")).unwrap()
    }

    #[test]
    fn a_keyframe_without_sets_gets_the_containers() {
        let complete =
            |unit: &[u8], key| avc().complete(Bytes::copy_from_slice(unit), key).to_vec();
        let picture = [0, 0, 0, 1, 0x41, 0x9a];
        assert_eq!(complete(&picture, true), [&SETS[..], &picture].concat());
        assert_eq!(complete(&picture, false), picture);
        let delimiter = [0, 0, 0, 1, 0x09, 0x10];
        let delimited = [&delimiter[..], &picture].concat();
        assert_eq!(complete(&delimited, true), [&delimiter[..], &SETS, &picture].concat());
    }

    #[test]
    fn sets_in_the_stream_replace_them() {
        let mut sets = avc();
        let own = [0, 0, 0, 1, 0x67, 0x4d, 0x28, 0, 0, 0, 1, 0x68, 0xce, 0x31];
        let idr = Bytes::from([&own[..], &[0, 0, 0, 1, 0x65, 0x88]].concat());
        assert_eq!(sets.complete(idr.clone(), true), idr);
        let picture = Bytes::from_static(&[0, 0, 0, 1, 0x41, 0x9a]);
        assert_eq!(sets.complete(picture.clone(), true), [&own[..], &picture].concat());
    }

    #[test]
    fn records_of_hevc_and_broken_ones() {
        let array = |kind: u8, unit: &str| format!("{kind:02x}0001{:04x}{unit}", unit.len() / 2);
        let arrays = [array(32, "4001"), array(33, "4201"), array(34, "4401"), array(39, "4e01")];
        let record = format!("{}04{}", "00".repeat(22), arrays.concat());
        let hevc = |record: &str| {
            of(&format!("video/x-h265, stream-format=hvc1, codec_data=(buffer){record}")).unwrap()
        };
        let expected =
            [[0, 0, 0, 1, 0x40, 1], [0, 0, 0, 1, 0x42, 1], [0, 0, 0, 1, 0x44, 1]].concat();
        assert_eq!(hevc(&record).known, expected);
        for length in (2..record.len()).step_by(2) {
            assert!(hevc(&record[..length]).known.is_empty(), "{length}");
        }
        assert_eq!(of("video/x-vp9"), None);
        assert!(of("video/x-h264, stream-format=byte-stream").unwrap().known.is_empty());
    }
}
