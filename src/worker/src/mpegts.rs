//! The raw timestamp at which an elementary stream of an MPEG-TS file begins.
//!
//! `tsdemux` counts from the first clock reference; ffmpeg keeps the stream's own 33-bit times
//! (ISO/IEC 13818-1, 2.4.3.7). One packet of the stream tells the difference between the two.

use std::os::fd::BorrowedFd;

const PACKET: usize = 188;
const SYNC: u8 = 0x47;
/// As much of the file as is searched for a first timestamp.
const SEARCH: usize = 4 * 1024 * 1024;

/// First presentation time of the elementary stream `pid` in ns; `None` if none is found in the
/// first megabytes.
pub fn first_pts_ns(file: BorrowedFd<'_>, pid: u16) -> Option<i64> {
    let mut data = vec![0; SEARCH];
    let mut filled = 0;
    while filled < data.len() {
        match rustix::io::pread(file, &mut data[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        if let Some(pts) = find(&data[..filled], pid) {
            return Some(pts);
        }
    }
    None
}

fn find(data: &[u8], pid: u16) -> Option<i64> {
    // 192-byte packets (M2TS) carry four bytes in front of the sync byte.
    let (start, stride) = (0..192.min(data.len())).find_map(|start| {
        [PACKET, 192].into_iter().find_map(|stride| {
            let is_sync = |n: usize| data.get(start + n * stride).is_none_or(|byte| *byte == SYNC);
            (data.get(start) == Some(&SYNC) && (1..5).all(is_sync)).then_some((start, stride))
        })
    })?;
    data[start..].chunks(stride).find_map(|packet| pts_of(packet, pid))
}

fn pts_of(packet: &[u8], pid: u16) -> Option<i64> {
    let header = packet.first_chunk::<4>()?;
    let packet_pid = u16::from_be_bytes([header[1] & 0x1f, header[2]]);
    let starts = header[1] & 0x40 != 0;
    if header[0] != SYNC || packet_pid != pid || !starts {
        return None;
    }
    let adaptation = header[3] & 0x20 != 0;
    let skip = if adaptation { 1 + usize::from(*packet.get(4)?) } else { 0 };
    let pes = packet.get(4 + skip..PACKET.min(packet.len()))?;
    if pes.get(..3)? != [0, 0, 1] || pes.get(7)? & 0x80 == 0 {
        return None;
    }
    let b = pes.get(9..14)?.iter().map(|byte| i64::from(*byte)).collect::<Vec<_>>();
    let ticks = (b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1;
    Some(ticks * 100_000 / 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(pid: u16, payload: &[u8]) -> Vec<u8> {
        let [high, low] = pid.to_be_bytes();
        let mut packet = vec![SYNC, 0x40 | high, low, 0x10];
        packet.extend_from_slice(payload);
        packet.resize(PACKET, 0xff);
        packet
    }

    #[test]
    fn the_first_timestamp_of_the_right_stream() {
        // 1.4 s = 126000 ticks.
        let pes = [0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0x00, 0x07, 0xd8, 0x61];
        let mut data = packet(0, &[0]);
        data.extend(packet(257, &[0, 0, 1, 0xc0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1]));
        data.extend(packet(256, &pes));
        for _ in 0..4 {
            data.extend(packet(0x1fff, &[]));
        }
        assert_eq!(find(&data, 256), Some(1_400_000_000));
        assert_eq!(find(&data, 300), None);
        assert_eq!(find(&data[..7], 256), None);
        assert_eq!(find(&[], 256), None);
    }
}
