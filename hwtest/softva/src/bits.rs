//! Bits of H.264, HEVC and MPEG-2 headers: reading, writing, and the emulation prevention that
//! keeps start codes out of NAL units (H.264 7.4.1, HEVC 7.4.2).

use crate::status::{Outcome, Refusal};

/// Reads bits, most significant first, from bytes without emulation prevention.
#[derive(Debug, Clone)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    /// At the start of the bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Bits read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next `count` bits, at most 32, as a number.
    pub fn bits(&mut self, count: usize) -> Outcome<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.position / 8).ok_or_else(Self::end)?;
            value = value << 1 | u32::from(byte >> (7 - self.position % 8) & 1);
            self.position += 1;
        }
        Ok(value)
    }

    /// The next bit.
    pub fn flag(&mut self) -> Outcome<bool> {
        Ok(self.bits(1)? == 1)
    }

    /// An Exp-Golomb code, ue(v).
    pub fn ue(&mut self) -> Outcome<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(Refusal::decoding("an Exp-Golomb code of more than 31 bits"));
            }
        }
        Ok((1 << zeros) - 1 + self.bits(zeros)?)
    }

    /// A signed Exp-Golomb code, se(v).
    pub fn se(&mut self) -> Outcome<i32> {
        let code = i64::from(self.ue()?);
        let value = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
        Ok(value as i32)
    }

    fn end() -> Refusal {
        Refusal::decoding("a header that ends too early")
    }
}

/// Writes bits, most significant first.
#[derive(Debug, Default, Clone)]
pub struct BitWriter {
    bytes: Vec<u8>,
    used: usize,
}

impl BitWriter {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// The lowest `count` bits of a number, at most 32.
    pub fn bits(&mut self, value: u32, count: usize) -> &mut Self {
        for shift in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (value >> shift & 1) as u8;
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.used % 8);
            }
            self.used += 1;
        }
        self
    }

    /// One bit.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.bits(u32::from(value), 1)
    }

    /// An Exp-Golomb code, ue(v).
    pub fn ue(&mut self, value: u32) -> &mut Self {
        let code = u64::from(value) + 1;
        let length = 64 - code.leading_zeros() as usize;
        self.bits(0, length - 1);
        self.bits((code >> 16) as u32, length.saturating_sub(16));
        self.bits(code as u32 & 0xffff, length.min(16))
    }

    /// A signed Exp-Golomb code, se(v).
    pub fn se(&mut self, value: i32) -> &mut Self {
        let magnitude = value.unsigned_abs();
        self.ue(if value > 0 { 2 * magnitude - 1 } else { 2 * magnitude })
    }

    /// Bits copied from a reader.
    pub fn copy(&mut self, reader: &mut BitReader<'_>, count: usize) -> Outcome {
        for _ in 0..count {
            let bit = reader.bits(1)?;
            self.bits(bit, 1);
        }
        Ok(())
    }

    /// A one and zeroes up to a whole byte: the end of a parameter set, or of an HEVC slice header.
    pub fn stop(&mut self) -> &mut Self {
        self.bits(1, 1);
        self.align()
    }

    /// Zeroes up to a whole byte.
    pub fn align(&mut self) -> &mut Self {
        self.used = self.bytes.len() * 8;
        self
    }

    /// What was written.
    pub fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Appends a NAL unit with start code and emulation prevention to a stream. `payload` begins with
/// the NAL unit's header.
pub fn push_nal(stream: &mut Vec<u8>, payload: &[u8]) {
    stream.extend([0, 0, 0, 1]);
    let mut zeros = 0;
    for &byte in payload {
        if zeros >= 2 && byte <= 3 {
            stream.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        stream.push(byte);
    }
}

/// A NAL unit without its emulation prevention.
pub fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        payload.push(byte);
    }
    payload
}

/// A NAL unit without the start code that some clients leave in front of it.
pub fn without_start_code(nal: &[u8]) -> &[u8] {
    match nal {
        [0, 0, 0, 1, rest @ ..] | [0, 0, 1, rest @ ..] => rest,
        _ => nal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        let mut writer = BitWriter::new();
        let numbers = [0, 1, 2, 3, 7, 8, 254, 65_534, 65_535, 70_000, u32::MAX - 1];
        for number in numbers {
            writer.ue(number);
        }
        let signed = [0, 1, -1, 2, -2, 26, -26, 32_767, -32_768];
        for number in signed {
            writer.se(number);
        }
        let bytes = writer.stop().clone().bytes();
        let mut reader = BitReader::new(&bytes);
        for number in numbers {
            assert_eq!(reader.ue().expect("a code"), number);
        }
        for number in signed {
            assert_eq!(reader.se().expect("a code"), number);
        }
        assert!(reader.flag().expect("the stop bit"));
    }

    #[test]
    fn known_codes() {
        // H.264 table 9-2: 0 is 1, 1 is 010, 2 is 011, 3 is 00100.
        let mut writer = BitWriter::new();
        writer.ue(0).ue(1).ue(2).ue(3);
        assert_eq!(writer.bytes(), [0b1010_0110, 0b0100_0000]);
    }

    #[test]
    fn escaping_round_trips() {
        let payload = [0x65, 0, 0, 0, 0, 1, 0, 0, 3, 0, 0, 4, 9];
        let mut stream = Vec::new();
        push_nal(&mut stream, &payload);
        assert_eq!(stream[4..], [0x65, 0, 0, 3, 0, 0, 3, 1, 0, 0, 3, 3, 0, 0, 4, 9]);
        assert_eq!(unescape(without_start_code(&stream)), payload);
    }
}
