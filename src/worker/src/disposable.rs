//! Pictures that no other picture needs, and that nobody is to see.
//!
//! After a seek everything from the keyframe before it is decoded, although only the pictures from
//! the start on are shown. A picture that serves as no reference can be left out on the way there:
//! with the usual B-frames that is every second one, and half of a seek's decoding time.
//!
//! VP9 has such pictures too, but they may still leave probabilities behind for the next ones.
//!
//! Invariant: what is disposable by the standard alone is called so; in doubt a picture is needed.

use gstreamer as gst;

/// How the pictures of a stream are packed, from its caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    codec: Codec,
    /// Bytes of each NAL unit's length; `None` for start codes.
    length_bytes: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    H264,
    /// With the number of temporal sub-layers.
    Hevc(u8),
}

impl Packing {
    /// Of a parsed stream; `None` if its pictures can't be told apart.
    pub fn of(caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps.structure(0)?;
        let packed = structure.get::<String>("stream-format").ok()? != "byte-stream";
        let record = structure.get::<gst::Buffer>("codec_data").ok();
        let record = record.as_ref().and_then(|record| record.map_readable().ok());
        let byte = |at: usize| record.as_ref()?.get(at).copied();
        // ISO/IEC 14496-15, 5.3.3.1 (avcC) and 8.3.3.1 (hvcC): lengthSizeMinusOne.
        let (codec, length) = match structure.name().as_str() {
            "video/x-h264" => (Codec::H264, byte(4)),
            // Only the record tells of sub-layers: a picture that its own doesn't refer to may be
            // needed by those above.
            "video/x-h265" => (Codec::Hevc(byte(21)? >> 3 & 7), byte(21)),
            _ => return None,
        };
        let length_bytes = if packed { Some(usize::from(length? & 3) + 1) } else { None };
        Some(Self { codec, length_bytes })
    }

    /// Whether an access unit holds a picture that no other refers to, and nothing else that lasts.
    pub fn is_disposable(self, unit: &[u8]) -> bool {
        let mut pictures = 0;
        let whole = match self.length_bytes {
            Some(bytes) => lengths(unit, bytes, |nal| self.needed(nal, &mut pictures)),
            None => start_codes(unit, |nal| self.needed(nal, &mut pictures)),
        };
        whole && pictures > 0
    }

    /// Whether a NAL unit outlasts its picture.
    fn needed(self, nal: &[u8], pictures: &mut usize) -> bool {
        match (self.codec, nal) {
            (Codec::H264, [header, ..]) => match header & 0x1f {
                // Slices, and partitions of slices (H.264 7.4.1): nal_ref_idc.
                1..=5 => {
                    *pictures += 1;
                    header >> 5 & 3 != 0
                }
                // SEI, delimiter, end of sequence is not: it resets the decoder. Filler.
                6 | 9 | 12 => false,
                _ => true,
            },
            (Codec::Hevc(layers), [header, layer, ..]) => match header >> 1 & 0x3f {
                // TRAIL_N to RSV_VCL_N14 (H.265 7.4.2.2): no reference within its own sub-layer.
                kind @ 0..=14 if kind % 2 == 0 => {
                    *pictures += 1;
                    // nuh_temporal_id_plus1 of the highest sub-layer.
                    layers == 0 || layer & 7 != layers
                }
                // Delimiter, filler, SEI.
                35 | 38 | 39 | 40 => false,
                _ => true,
            },
            _ => true,
        }
    }
}

/// Whether the unit is made of NAL units behind their lengths, none of them needed.
fn lengths(unit: &[u8], bytes: usize, mut needed: impl FnMut(&[u8]) -> bool) -> bool {
    let mut rest = unit;
    while !rest.is_empty() {
        let Some((length, behind)) = rest.split_at_checked(bytes) else { return false };
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let Some((nal, behind)) = behind.split_at_checked(length) else { return false };
        if needed(nal) {
            return false;
        }
        rest = behind;
    }
    true
}

/// As [`lengths`], behind start codes (annex B).
fn start_codes(unit: &[u8], mut needed: impl FnMut(&[u8]) -> bool) -> bool {
    let mut found = false;
    let mut at = 0;
    while let Some(offset) = unit[at..].windows(3).position(|bytes| bytes == [0, 0, 1]) {
        at += offset + 3;
        // The first two bytes tell; where the NAL unit ends doesn't matter.
        if needed(&unit[at..]) {
            return false;
        }
        found = true;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const H264: Packing = Packing { codec: Codec::H264, length_bytes: None };
    const PACKED: Packing = Packing { codec: Codec::H264, length_bytes: Some(4) };

    #[test]
    fn h264_goes_by_nal_ref_idc() {
        let delimited = |slice: u8| [0, 0, 0, 1, 0x09, 0xf0, 0, 0, 1, slice, 0x9a];
        assert!(H264.is_disposable(&delimited(0x01)));
        assert!(!H264.is_disposable(&delimited(0x41)));
        assert!(!H264.is_disposable(&delimited(0x65)));
        let with_parameters = [0, 0, 1, 0x68, 0xee, 0, 0, 1, 0x01, 0x9a];
        assert!(!H264.is_disposable(&with_parameters));
        assert!(!H264.is_disposable(&[0, 0, 1, 0x09, 0xf0]), "no picture at all");
        assert!(!H264.is_disposable(&[]));
    }

    #[test]
    fn lengths_are_followed_to_the_end() {
        assert!(PACKED.is_disposable(&[0, 0, 0, 2, 0x01, 0x9a]));
        assert!(!PACKED.is_disposable(&[0, 0, 0, 2, 0x01, 0x9a, 0, 0, 0, 2, 0x41, 0x9a]));
        assert!(!PACKED.is_disposable(&[0, 0, 0, 9, 0x01, 0x9a]), "cut off");
        assert!(!PACKED.is_disposable(&[0, 0, 1]), "cut off in the length");
    }

    #[test]
    fn hevc_goes_by_type_and_sub_layer() {
        let unit = |kind: u8, temporal_id_plus1: u8| [0, 0, 1, kind << 1, temporal_id_plus1, 0x80];
        let one = Packing { codec: Codec::Hevc(1), length_bytes: None };
        assert!(one.is_disposable(&unit(0, 1)));
        assert!(one.is_disposable(&unit(8, 1)));
        assert!(!one.is_disposable(&unit(1, 1)));
        assert!(!one.is_disposable(&unit(19, 1)));
        assert!(!one.is_disposable(&unit(34, 1)));
        let two = Packing { codec: Codec::Hevc(2), length_bytes: None };
        assert!(!two.is_disposable(&unit(0, 1)), "the upper sub-layer may refer to it");
        assert!(two.is_disposable(&unit(0, 2)));
        let unknown = Packing { codec: Codec::Hevc(0), length_bytes: None };
        assert!(!unknown.is_disposable(&unit(0, 1)));
    }

    #[test]
    fn packing_is_read_from_caps() {
        gst::init().unwrap();
        let caps = |text: &str| text.parse::<gst::Caps>().unwrap();
        let of = |text: &str| Packing::of(&caps(text));
        assert_eq!(of("video/x-h264, stream-format=byte-stream"), Some(H264));
        let avc = "video/x-h264, stream-format=avc, codec_data=(buffer)01640028ffe1";
        assert_eq!(of(avc), Some(PACKED));
        assert_eq!(of("video/x-h264, stream-format=avc"), None);
        assert_eq!(of("video/x-h265, stream-format=byte-stream"), None);
        assert_eq!(of("video/x-vp9, stream-format=byte-stream"), None);
        let record = format!("{}0f00", "00".repeat(21));
        let hevc = format!("video/x-h265, stream-format=hvc1, codec_data=(buffer){record}");
        let expected = Packing { codec: Codec::Hevc(1), length_bytes: Some(4) };
        assert_eq!(of(&hevc), Some(expected));
    }
}
