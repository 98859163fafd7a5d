//! EBML elements: id, length, content (RFC 8794).

/// Ids of Matroska's elements, as they stand in a file (RFC 9559).
pub(super) mod id {
    pub const EBML: u32 = 0x1a45_dfa3;
    pub const EBML_VERSION: u32 = 0x4286;
    pub const EBML_READ_VERSION: u32 = 0x42f7;
    pub const EBML_MAX_ID_LENGTH: u32 = 0x42f2;
    pub const EBML_MAX_SIZE_LENGTH: u32 = 0x42f3;
    pub const DOC_TYPE: u32 = 0x4282;
    pub const DOC_TYPE_VERSION: u32 = 0x4287;
    pub const DOC_TYPE_READ_VERSION: u32 = 0x4285;
    pub const SEGMENT: u32 = 0x1853_8067;
    pub const INFO: u32 = 0x1549_a966;
    pub const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
    pub const DURATION: u32 = 0x4489;
    pub const MUXING_APP: u32 = 0x4d80;
    pub const WRITING_APP: u32 = 0x5741;
    pub const TRACKS: u32 = 0x1654_ae6b;
    pub const TRACK_ENTRY: u32 = 0xae;
    pub const TRACK_NUMBER: u32 = 0xd7;
    pub const TRACK_UID: u32 = 0x73c5;
    pub const TRACK_TYPE: u32 = 0x83;
    pub const FLAG_LACING: u32 = 0x9c;
    pub const LANGUAGE: u32 = 0x22_b59c;
    pub const CODEC_ID: u32 = 0x86;
    pub const CODEC_PRIVATE: u32 = 0x63a2;
    pub const CODEC_DELAY: u32 = 0x56aa;
    pub const SEEK_PRE_ROLL: u32 = 0x56bb;
    pub const DEFAULT_DURATION: u32 = 0x23_e383;
    pub const VIDEO: u32 = 0xe0;
    pub const FLAG_INTERLACED: u32 = 0x9a;
    pub const PIXEL_WIDTH: u32 = 0xb0;
    pub const PIXEL_HEIGHT: u32 = 0xba;
    pub const DISPLAY_WIDTH: u32 = 0x54b0;
    pub const DISPLAY_HEIGHT: u32 = 0x54ba;
    pub const COLOUR: u32 = 0x55b0;
    pub const MATRIX_COEFFICIENTS: u32 = 0x55b1;
    pub const RANGE: u32 = 0x55b9;
    pub const TRANSFER_CHARACTERISTICS: u32 = 0x55ba;
    pub const PRIMARIES: u32 = 0x55bb;
    pub const AUDIO: u32 = 0xe1;
    pub const SAMPLING_FREQUENCY: u32 = 0xb5;
    pub const CHANNELS: u32 = 0x9f;
    pub const BIT_DEPTH: u32 = 0x6264;
    pub const CLUSTER: u32 = 0x1f43_b675;
    pub const TIMESTAMP: u32 = 0xe7;
    pub const SIMPLE_BLOCK: u32 = 0xa3;
}

/// Length of an element that lasts as long as the file.
const UNKNOWN_LENGTH: [u8; 8] = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

fn put_id(id: u32, out: &mut Vec<u8>) {
    let bytes = id.to_be_bytes();
    let skip = bytes.iter().take_while(|byte| **byte == 0).count();
    out.extend_from_slice(&bytes[skip..]);
}

/// A length in as few bytes as hold it; all ones mean an unknown one.
fn put_length(length: usize, out: &mut Vec<u8>) {
    let length = length as u64;
    let bytes = (1..8_u32).find(|bytes| length < (1 << (7 * bytes)) - 1).unwrap_or(8);
    let marked = length | 1 << (7 * bytes);
    out.extend_from_slice(&marked.to_be_bytes()[8 - bytes as usize..]);
}

/// Head of an element whose content follows in the file.
pub(super) fn open_ended(id: u32, out: &mut Vec<u8>) {
    put_id(id, out);
    out.extend_from_slice(&UNKNOWN_LENGTH);
}

/// An element of bytes.
pub(super) fn binary(id: u32, content: &[u8], out: &mut Vec<u8>) {
    put_id(id, out);
    put_length(content.len(), out);
    out.extend_from_slice(content);
}

/// An element of other elements.
pub(super) fn master(id: u32, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    fill(&mut content);
    binary(id, &content, out);
}

/// A number in as few bytes as hold it, one at least.
pub(super) fn unsigned(id: u32, value: u64, out: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    let skip = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    binary(id, &bytes[skip..], out);
}

/// A floating number of 64 bits.
pub(super) fn float(id: u32, value: f64, out: &mut Vec<u8>) {
    binary(id, &value.to_be_bytes(), out);
}

/// Text.
pub(super) fn string(id: u32, value: &str, out: &mut Vec<u8>) {
    binary(id, value.as_bytes(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn lengths_take_as_few_bytes_as_hold_them() {
        let length = |length| written(|out| put_length(length, out));
        assert_eq!(length(0), [0x80]);
        assert_eq!(length(126), [0xfe]);
        // 0xff would mean that it is unknown.
        assert_eq!(length(127), [0x40, 0x7f]);
        assert_eq!(length(16_382), [0x7f, 0xfe]);
        assert_eq!(length(16_383), [0x20, 0x3f, 0xff]);
    }

    #[test]
    fn elements_are_ffmpegs() {
        assert_eq!(written(|out| unsigned(id::FLAG_LACING, 0, out)), [0x9c, 0x81, 0x00]);
        let scale = written(|out| unsigned(id::TIMESTAMP_SCALE, 1_000_000, out));
        assert_eq!(scale, [0x2a, 0xd7, 0xb1, 0x83, 0x0f, 0x42, 0x40]);
        let rate = written(|out| float(id::SAMPLING_FREQUENCY, 48_000.0, out));
        assert_eq!(rate, [0xb5, 0x88, 0x40, 0xe7, 0x70, 0, 0, 0, 0, 0]);
    }
}
