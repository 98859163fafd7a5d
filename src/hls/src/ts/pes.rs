//! PES packet headers (ISO/IEC 13818-1 2.4.3.6).

/// Video stream 0.
pub const VIDEO: u8 = 0xe0;
/// MPEG audio stream 0 (AAC and MP3).
pub const AUDIO: u8 = 0xc0;
/// Private stream 1 (AC-3, E-AC-3, Opus).
pub const PRIVATE: u8 = 0xbd;

/// The header in front of `payload` bytes; times in ticks of 90 kHz. DTS is left out where it
/// equals PTS. Video states no length, which allows any size.
pub fn header(stream_id: u8, payload: usize, pts: i64, dts: i64) -> Vec<u8> {
    let with_dts = pts != dts;
    let fields: u8 = if with_dts { 10 } else { 5 };
    let length = u16::try_from(3 + usize::from(fields) + payload)
        .ok()
        .filter(|_| stream_id != VIDEO)
        .unwrap_or(0);
    let mut out = vec![0, 0, 1, stream_id];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0x80, if with_dts { 0xc0 } else { 0x80 }, fields]);
    out.extend_from_slice(&timestamp(if with_dts { 3 } else { 2 }, pts));
    if with_dts {
        out.extend_from_slice(&timestamp(1, dts));
    }
    out
}

/// 33 bits in five bytes, with marker bits.
fn timestamp(prefix: u8, ticks: i64) -> [u8; 5] {
    let ticks = ticks.cast_unsigned() & ((1 << 33) - 1);
    let bits = |shift: u32, mask: u64| u8::try_from(ticks >> shift & mask).unwrap_or(0);
    [
        prefix << 4 | bits(30, 7) << 1 | 1,
        bits(22, 0xff),
        bits(15, 0x7f) << 1 | 1,
        bits(7, 0xff),
        bits(0, 0x7f) << 1 | 1,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first PES packet of an ffmpeg run from 0 with two B-frames.
    #[test]
    fn video_has_both_times_and_no_length() {
        assert_eq!(
            header(VIDEO, 5000, 907_500, 900_000),
            [
                0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10, 0x31, 0x00, 0x37, 0xb1, 0xd9, 0x11, 0x00,
                0x37, 0x77, 0x41
            ]
        );
    }

    #[test]
    fn audio_has_one_time_and_its_length() {
        let out = header(AUDIO, 2730, 905_580, 905_580);
        assert_eq!(out[..9], [0, 0, 1, 0xc0, 0x0a, 0xb2, 0x80, 0x80, 5]);
        assert_eq!(out.len(), 14);
    }

    #[test]
    fn times_wrap_at_33_bits() {
        assert_eq!(timestamp(2, (1 << 33) + 90), timestamp(2, 90));
        assert_eq!(timestamp(2, -1), [0x2f, 0xff, 0xff, 0xff, 0xff]);
    }
}
