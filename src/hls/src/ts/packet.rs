//! Transport packets (ISO/IEC 13818-1 2.4.3).

use serde::{Deserialize, Serialize};

/// Bytes in a packet.
pub const PACKET: usize = 188;

/// Continuity counter of a PID; runs on across segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counter(u8);

impl Counter {
    /// The value for the next packet with payload.
    pub fn next(&mut self) -> u8 {
        let value = self.0;
        self.0 = (value + 1) & 0xf;
        value
    }
}

/// The four bytes of a packet that carries payload.
pub fn header(pid: u16, unit_start: bool, counter: u8, adaptation: bool) -> [u8; 4] {
    let [high, low] = (pid & 0x1fff).to_be_bytes();
    let control = if adaptation { 0x30 } else { 0x10 };
    [0x47, high | if unit_start { 0x40 } else { 0 }, low, control | counter & 0xf]
}

/// What the first packet of a PES packet says in its adaptation field.
#[derive(Debug, Clone, Copy, Default)]
pub struct Adaptation {
    /// random_access_indicator.
    pub random_access: bool,
    /// Program clock reference in ticks of 90 kHz.
    pub pcr: Option<i64>,
}

impl Adaptation {
    /// Everything behind the length byte; empty if there is nothing to say.
    fn body(self) -> Vec<u8> {
        if !self.random_access && self.pcr.is_none() {
            return Vec::new();
        }
        let mut flags = if self.random_access { 0x40 } else { 0 };
        let mut body = vec![flags];
        if let Some(pcr) = self.pcr {
            flags |= 0x10;
            // 33 bits of base, 6 reserved, 9 of extension (always 0).
            let field = (pcr.cast_unsigned() & ((1 << 33) - 1)) << 15 | 0x7e00;
            body.extend_from_slice(&field.to_be_bytes()[2..]);
        }
        body[0] = flags;
        body
    }
}

/// Splits a PES packet, given in two pieces, over transport packets; the last is filled up by a
/// longer adaptation field.
pub fn packetise(
    pid: u16,
    counter: &mut Counter,
    adaptation: Adaptation,
    pes_header: &[u8],
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    let mut field = Some(adaptation.body()).filter(|body| !body.is_empty());
    let (mut head, mut rest) = (pes_header, payload);
    let mut unit_start = true;
    while !head.is_empty() || !rest.is_empty() {
        let taken = field.as_ref().map_or(0, |body| 1 + body.len());
        let room = PACKET - 4 - taken;
        let left = head.len() + rest.len();
        let stuffing = room.saturating_sub(left);
        out.extend_from_slice(&header(
            pid,
            unit_start,
            counter.next(),
            field.is_some() || stuffing > 0,
        ));
        write_field(field.take(), stuffing, out);
        let (now, later) = head.split_at(head.len().min(room));
        out.extend_from_slice(now);
        head = later;
        let (now, later) = rest.split_at(rest.len().min(room - now.len()));
        out.extend_from_slice(now);
        rest = later;
        unit_start = false;
    }
}

/// Writes an adaptation field made `stuffing` bytes longer.
fn write_field(field: Option<Vec<u8>>, stuffing: usize, out: &mut Vec<u8>) {
    let fill = match field {
        Some(body) => {
            out.push(u8::try_from(body.len() + stuffing).unwrap_or(0));
            out.extend_from_slice(&body);
            stuffing
        }
        None if stuffing > 0 => {
            // The length byte itself, then a byte of flags, then filling.
            out.push(u8::try_from(stuffing - 1).unwrap_or(0));
            if stuffing > 1 {
                out.push(0);
            }
            stuffing.saturating_sub(2)
        }
        None => 0,
    };
    out.resize(out.len() + fill, 0xff);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn random_access_with_clock() {
        let mut out = Vec::new();
        let field = Adaptation { random_access: true, pcr: Some(450_000) };
        packetise(0x100, &mut Counter::default(), field, &[1, 2, 3], &[0xaa; 200], &mut out);
        assert_eq!(out.len(), 2 * PACKET);
        // length 7, flags 0x50, base 450000 << 15 | reserved bits.
        assert_eq!(out[..12], [0x47, 0x41, 0, 0x30, 7, 0x50, 0, 3, 0x6e, 0xe8, 0x7e, 0]);
        assert_eq!(out[12..16], [1, 2, 3, 0xaa]);
        // The rest is 203 - 176 = 27 bytes, behind 157 of stuffing.
        assert_eq!(out[PACKET..PACKET + 6], [0x47, 0x01, 0, 0x31, 156, 0]);
        assert_eq!(out[2 * PACKET - 28..2 * PACKET - 26], [0xff, 0xaa]);
    }

    #[test]
    fn the_clock_wraps_at_33_bits() {
        let body = Adaptation { random_access: false, pcr: Some((1 << 33) + 1) }.body();
        assert_eq!(body, [0x10, 0, 0, 0, 0, 0xfe, 0]);
    }

    proptest! {
        #[test]
        fn payload_comes_back(
            header in prop::collection::vec(any::<u8>(), 9..20),
            payload in prop::collection::vec(any::<u8>(), 0..1000),
            random_access in any::<bool>(),
            pcr in prop::option::of(0i64..1 << 33),
        ) {
            let mut out = Vec::new();
            let mut counter = Counter(14);
            packetise(0x101, &mut counter, Adaptation { random_access, pcr }, &header, &payload, &mut out);
            let mut found = Vec::new();
            for (i, packet) in out.chunks(PACKET).enumerate() {
                prop_assert_eq!(packet.len(), PACKET);
                prop_assert_eq!(usize::from(packet[3] & 0xf), (14 + i) % 16);
                let skip = if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
                found.extend_from_slice(&packet[4 + skip..]);
            }
            prop_assert_eq!(found, [header, payload].concat());
        }
    }
}
