//! Tables: SDT, PAT and PMT (ISO/IEC 13818-1 2.4.4, ETSI EN 300 468), laid out as ffmpeg does.

use super::packet::{Counter, PACKET, header};
use crate::TrackFormat;

/// Program map table's PID.
pub const PMT_PID: u16 = 0x1000;
/// PID of the first elementary stream; the others follow.
pub const FIRST_PID: u16 = 0x100;
const PAT_PID: u16 = 0;
const SDT_PID: u16 = 0x11;

/// The three tables of a program, ready but for their continuity counters.
#[derive(Debug)]
pub struct Tables {
    sdt: (Counter, Vec<u8>),
    pat: (Counter, Vec<u8>),
    pmt: (Counter, Vec<u8>),
}

impl Tables {
    /// For tracks in order, with the clock on `pcr_pid`.
    pub fn new(tracks: &[TrackFormat], pcr_pid: u16) -> Self {
        Self {
            sdt: (Counter::default(), sdt()),
            pat: (Counter::default(), pat()),
            pmt: (Counter::default(), pmt(tracks, pcr_pid)),
        }
    }

    /// The tables' counters.
    pub fn counters(&self) -> [Counter; 3] {
        [self.sdt.0, self.pat.0, self.pmt.0]
    }

    /// Counts on.
    pub fn count_on(&mut self, [sdt, pat, pmt]: [Counter; 3]) {
        (self.sdt.0, self.pat.0, self.pmt.0) = (sdt, pat, pmt);
    }

    /// SDT, and PAT with PMT, as far as wanted: all as a segment begins, the latter also before
    /// keyframes within it.
    pub fn write(&mut self, services: bool, program: bool, out: &mut Vec<u8>) {
        if services {
            write(SDT_PID, &mut self.sdt, out);
        }
        if program {
            write(PAT_PID, &mut self.pat, out);
            write(PMT_PID, &mut self.pmt, out);
        }
    }
}

/// One section in one packet: all of ours are short.
fn write(pid: u16, (counter, section): &mut (Counter, Vec<u8>), out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&header(pid, true, counter.next(), false));
    out.push(0); // pointer_field
    out.extend_from_slice(section);
    out.resize(begin + PACKET, 0xff);
}

/// Wraps a table's body in section header and checksum.
fn section(table_id: u8, syntax: u16, id: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(5 + body.len() + 4).unwrap_or(u16::MAX);
    let mut out = vec![table_id];
    out.extend_from_slice(&(syntax | length).to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    // Version 0, current; section 0 of 0.
    out.extend_from_slice(&[0xc1, 0, 0]);
    out.extend_from_slice(body);
    out.extend_from_slice(&crc32(&out).to_be_bytes());
    out
}

fn pat() -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend_from_slice(&(0xe000 | PMT_PID).to_be_bytes());
    section(0x00, 0xb000, 1, &body)
}

fn sdt() -> Vec<u8> {
    const PROVIDER: &[u8] = b"Rendergate";
    const SERVICE: &[u8] = b"Service01";
    let mut service = vec![0x01]; // digital television
    for name in [PROVIDER, SERVICE] {
        service.push(u8::try_from(name.len()).unwrap_or(0));
        service.extend_from_slice(name);
    }
    let descriptor = descriptor(0x48, &service);
    let mut body = vec![0xff, 0x01, 0xff]; // original network, reserved
    body.extend_from_slice(&[0, 1, 0xfc]); // service 1, no EIT
    body.extend_from_slice(&(0x8000 | u16::try_from(descriptor.len()).unwrap_or(0)).to_be_bytes());
    body.extend_from_slice(&descriptor);
    section(0x42, 0xf000, 1, &body)
}

fn pmt(tracks: &[TrackFormat], pcr_pid: u16) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&(0xe000 | pcr_pid).to_be_bytes());
    body.extend_from_slice(&[0xf0, 0]);
    for (pid, format) in (FIRST_PID..).zip(tracks) {
        let (stream_type, descriptors) = stream(format);
        body.push(stream_type);
        body.extend_from_slice(&(0xe000 | pid).to_be_bytes());
        body.extend_from_slice(
            &(0xf000 | u16::try_from(descriptors.len()).unwrap_or(0)).to_be_bytes(),
        );
        body.extend_from_slice(&descriptors);
    }
    section(0x02, 0xb000, 1, &body)
}

fn stream(format: &TrackFormat) -> (u8, Vec<u8>) {
    const REGISTRATION: u8 = 0x05;
    match format {
        TrackFormat::H264 { .. } => (0x1b, Vec::new()),
        TrackFormat::Hevc { .. } => (0x24, descriptor(REGISTRATION, b"HEVC")),
        TrackFormat::Aac { .. } => (0x0f, Vec::new()),
        TrackFormat::Ac3 { .. } => (0x81, descriptor(REGISTRATION, b"AC-3")),
        TrackFormat::Eac3 { .. } => (0x87, descriptor(REGISTRATION, b"EAC3")),
        // MPEG-2's low sampling rates have a type of their own.
        TrackFormat::Mp3 { sample_rate, .. } => {
            (if *sample_rate < 32_000 { 0x04 } else { 0x03 }, Vec::new())
        }
        TrackFormat::Opus { channels, .. } => {
            // Extension descriptor 0x80 with the channel configuration code (ETSI TS 101 154).
            let code = u8::try_from(*channels).ok().filter(|c| (1..=8).contains(c)).unwrap_or(0xff);
            let mut out = descriptor(REGISTRATION, b"Opus");
            out.extend_from_slice(&descriptor(0x7f, &[0x80, code]));
            (0x06, out)
        }
        TrackFormat::Flac { .. } | TrackFormat::Vorbis { .. } => (0x06, Vec::new()),
    }
}

fn descriptor(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag, u8::try_from(body.len()).unwrap_or(u8::MAX)];
    out.extend_from_slice(body);
    out
}

/// CRC-32/MPEG-2 (ISO/IEC 13818-1 annex A).
fn crc32(data: &[u8]) -> u32 {
    data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            if crc & 0x8000_0000 == 0 { crc << 1 } else { crc << 1 ^ 0x04c1_1db7 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn hex(data: &[u8]) -> String {
        data.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn h264() -> TrackFormat {
        TrackFormat::H264 { width: 320, height: 180, frame_rate: (24, 1) }
    }

    /// The same tables in ffmpeg 5.1's and 9.0's segments.
    #[test]
    fn tables_are_ffmpegs() {
        assert_eq!(hex(&pat()), "00b00d0001c100000001f0002ab104b2");
        let aac = TrackFormat::Aac {
            audio_specific_config: Bytes::from_static(&[0x11, 0x88]),
            sample_rate: 48_000,
            channels: 1,
        };
        assert_eq!(
            hex(&pmt(&[h264(), aac.clone()], 0x100)),
            "02b0170001c10000e100f0001be100f0000fe101f0002f44b99b"
        );
        assert_eq!(hex(&pmt(&[aac], 0x100)), "02b0120001c10000e100f0000fe100f000b69bc0d9");
        let of = |audio| hex(&pmt(&[h264(), audio], 0x100));
        assert_eq!(
            of(TrackFormat::Ac3 { sample_rate: 48_000, channels: 2 }),
            "02b01d0001c10000e100f0001be100f00081e101f006050441432d33ce50fcbc"
        );
        assert_eq!(
            of(TrackFormat::Eac3 { sample_rate: 48_000, channels: 2 }),
            "02b01d0001c10000e100f0001be100f00087e101f006050445414333a3066423"
        );
        assert_eq!(
            of(TrackFormat::Mp3 { sample_rate: 48_000, channels: 2 }),
            "02b0170001c10000e100f0001be100f00003e101f0004e593d1e"
        );
        let opus = TrackFormat::Opus { opus_head: Bytes::new(), sample_rate: 48_000, channels: 1 };
        assert_eq!(
            of(opus),
            "02b0210001c10000e100f0001be100f00006e101f00a05044f7075737f028001a3ea4534"
        );
    }

    #[test]
    fn every_table_is_one_packet_and_counts_on() {
        let mut tables = Tables::new(&[h264()], 0x100);
        let mut out = Vec::new();
        tables.write(true, true, &mut out);
        tables.write(false, true, &mut out);
        let heads: Vec<_> = out.chunks(PACKET).map(|p| hex(&p[..4])).collect();
        assert_eq!(heads, ["47401110", "47400010", "47500010", "47400011", "47500011"]);
    }
}
