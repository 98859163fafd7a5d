//! The raw timestamp at which an elementary stream of an MPEG-TS file begins.
//!
//! `tsdemux` counts from the first clock reference; ffmpeg keeps the stream's own 33-bit times
//! (ISO/IEC 13818-1, 2.4.3.7). One packet of the stream tells the difference between the two.

use crate::reading::{Opening, Reading};

const PACKET: usize = 188;
const SYNC: u8 = 0x47;
/// As much of the input as is searched.
const SEARCH: usize = 4 * 1024 * 1024;
/// The same of a pipe for program maps: a tuner leaves those of other programs out, and the bytes
/// take as long to come as they play.
const SEARCH_PIPE: usize = 256 * 1024;
/// Too little to see where packets begin.
const FEWEST: usize = 2048;
/// How much earlier a clock reference is put in front of the first one: 10 ms in 90 kHz.
const CLOCK_LEAD: u64 = 900;
/// Read at once at least.
const PIECE: usize = 64 * 1024;

/// First presentation time of the elementary stream `pid` in ns; `None` if none is found in the
/// first megabytes.
pub fn first_pts_ns(input: &Reading, pid: u16) -> Option<i64> {
    search(input, SEARCH, |data, _| find(data, pid))
}

/// The elementary streams in the order in which the program maps name them, which is the order in
/// which ffmpeg counts them. Empty if no map is found in the first megabytes.
pub fn elementary_streams(input: &Reading) -> Vec<u16> {
    let most = if input.is_pipe() { SEARCH_PIPE } else { SEARCH };
    let found = search(input, most, |data, is_last| {
        let (streams, complete) = streams_of(data);
        (complete || is_last).then_some(streams)
    });
    found.unwrap_or_default()
}

/// The maps in front of an input that begins in the middle of a stream. `tsdemux` drops what comes
/// before the first map, and when it seeks to the beginning what comes before the first clock
/// reference; ffmpeg looks for the map, goes back, and takes all of it. `None` if nothing would be
/// lost.
pub fn opening(input: &Reading) -> Option<Opening> {
    let most = if input.is_pipe() { SEARCH_PIPE } else { SEARCH };
    search(input, most, |data, _| {
        let (start, stride) = grid(data).filter(|(_, stride)| *stride == PACKET)?;
        let mut maps = Maps::default();
        let mut streams = Vec::new();
        // PIDs of which something has begun.
        let mut begun = Vec::new();
        for packet in data[start..].chunks_exact(stride) {
            streams.extend(maps.add(packet));
            // Its packet may begin a picture, too, which isn't lost.
            let clock = maps.clock.filter(|pid| clock_of(packet, *pid).is_some());
            if let Some(clock) = clock {
                if !streams.iter().any(|pid| begun.contains(pid)) {
                    return Some(None);
                }
                let mut all = data[start..].chunks_exact(stride);
                let first = all.find_map(|packet| clock_of(packet, clock))?;
                let bytes = [&clock_packet(clock, first)[..], &maps.packets].concat();
                return Some(Some(Opening { bytes, skipped: start as u64 }));
            }
            begun.extend(payload_of(packet).filter(|(_, starts, _)| *starts).map(|(pid, ..)| pid));
        }
        None
    })?
}

/// The clock reference in a packet of this PID, in units of 90 kHz.
fn clock_of(packet: &[u8], pid: u16) -> Option<u64> {
    let header = packet.first_chunk::<4>()?;
    let own = u16::from_be_bytes([header[1] & 0x1f, header[2]]) == pid;
    let stated = header[3] & 0x20 != 0 && *packet.get(4)? >= 7 && packet.get(5)? & 0x10 != 0;
    let value = packet.get(6..11).filter(|_| own && stated)?;
    Some(value.iter().fold(0, |clock, byte| clock << 8 | u64::from(*byte)) >> 7)
}

/// A packet that carries nothing but a clock reference a little before this one.
fn clock_packet(pid: u16, before: u64) -> [u8; PACKET] {
    let clock = before.wrapping_sub(CLOCK_LEAD) & ((1 << 33) - 1);
    let [high, low] = pid.to_be_bytes();
    let mut packet = [0xff; PACKET];
    packet[..6].copy_from_slice(&[SYNC, high, low, 0x20, (PACKET - 5) as u8, 0x10]);
    // 33 bits, six reserved ones, nine of the extension.
    let value = clock << 15 | 0x3f << 9;
    packet[6..12].copy_from_slice(&value.to_be_bytes()[2..]);
    packet
}

/// Reads more and more of an input's beginning until `look` has found something; it is told when
/// there is no more.
fn search<T>(
    input: &Reading,
    most: usize,
    mut look: impl FnMut(&[u8], bool) -> Option<T>,
) -> Option<T> {
    let mut data = Vec::new();
    loop {
        let filled = data.len();
        // As much again, so that looking anew costs no more than reading.
        data.resize((filled * 2).clamp(PIECE, most), 0);
        let read = input.read_some_at(filled as u64, &mut data[filled..]).ok()?;
        data.truncate(filled + read);
        let is_last = read == 0 || data.len() == most;
        if data.len() < FEWEST && !is_last {
            continue;
        }
        let found = look(&data, is_last);
        if found.is_some() || is_last {
            return found;
        }
    }
}

/// The streams of all maps, and whether every program had one.
fn streams_of(data: &[u8]) -> (Vec<u16>, bool) {
    let mut maps = Maps::default();
    let mut streams = Vec::new();
    for packet in packets(data).into_iter().flatten() {
        streams.extend(maps.add(packet));
        if maps.complete() {
            return (streams, true);
        }
    }
    (streams, false)
}

/// Program maps as they come along.
#[derive(Debug, Default)]
struct Maps {
    /// PIDs of those that the table of programs names.
    named: Vec<u16>,
    /// Those that have come.
    seen: Vec<u16>,
    /// The section that is being put together, and of which PID.
    sections: Vec<(u16, Vec<u8>)>,
    /// All packets that they came in.
    packets: Vec<u8>,
    /// PID of the clock of the last one.
    clock: Option<u16>,
}

impl Maps {
    /// Takes a packet; gives the streams of the map that it completes.
    fn add(&mut self, packet: &[u8]) -> Vec<u16> {
        let Some((pid, starts, payload)) = payload_of(packet) else { return Vec::new() };
        if pid != 0 && !self.named.contains(&pid) {
            return Vec::new();
        }
        let sections = &mut self.sections;
        if starts {
            let skip = 1 + payload.first().map_or(0, |pointer| usize::from(*pointer));
            sections.retain(|(other, _)| *other != pid);
            sections.push((pid, payload.get(skip..).unwrap_or_default().to_vec()));
        } else if let Some((_, section)) = sections.iter_mut().find(|(other, _)| *other == pid) {
            section.extend_from_slice(payload);
        }
        let section = sections.iter().find(|(other, _)| *other == pid);
        self.packets.extend(section.iter().flat_map(|_| packet));
        let Some(body) = section.and_then(|(_, section)| section_body(section)) else {
            return Vec::new();
        };
        if pid == 0 {
            let programs = body.chunks_exact(4).filter(|program| program[..2] != [0, 0]);
            self.named = programs.map(|program| pid_at(&program[2..])).collect();
        } else if !self.seen.contains(&pid) {
            self.seen.push(pid);
            self.clock = body.get(..2).map(pid_at);
            return map_entries(body);
        }
        Vec::new()
    }

    fn complete(&self) -> bool {
        !self.named.is_empty() && self.seen.len() == self.named.len()
    }
}

/// What lies between a section's header and its check sum, once it is complete.
fn section_body(section: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([section.get(1)? & 0x0f, *section.get(2)?]));
    section.get(8..(3 + length).checked_sub(4)?).filter(|_| section.len() >= 3 + length)
}

fn pid_at(data: &[u8]) -> u16 {
    u16::from_be_bytes([data[0] & 0x1f, data[1]])
}

fn map_entries(body: &[u8]) -> Vec<u16> {
    let length = |data: &[u8]| usize::from(u16::from_be_bytes([data[0] & 0x0f, data[1]]));
    let mut streams = Vec::new();
    let descriptors = body.get(2..4).map_or(0, length);
    let mut rest = body.get(4 + descriptors..).unwrap_or_default();
    while rest.len() >= 5 {
        streams.push(pid_at(&rest[1..]));
        rest = rest.get(5 + length(&rest[3..])..).unwrap_or_default();
    }
    streams
}

/// The packets from the first that is one.
fn packets(data: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let (start, stride) = grid(data)?;
    Some(data[start..].chunks(stride))
}

/// Where the first packet begins, and how far apart they are.
fn grid(data: &[u8]) -> Option<(usize, usize)> {
    // 192-byte packets (M2TS) carry four bytes in front of the sync byte.
    (0..192.min(data.len())).find_map(|start| {
        [PACKET, 192].into_iter().find_map(|stride| {
            let is_sync = |n: usize| data.get(start + n * stride).is_none_or(|byte| *byte == SYNC);
            (data.get(start) == Some(&SYNC) && (1..5).all(is_sync)).then_some((start, stride))
        })
    })
}

/// What comes before the map that names it is no part of the stream, to `tsdemux` and to ffmpeg.
fn find(data: &[u8], pid: u16) -> Option<i64> {
    let mut maps = Maps::default();
    let mut mapped = false;
    packets(data)?.find_map(|packet| {
        mapped = mapped || maps.add(packet).contains(&pid);
        pts_of(packet, pid).filter(|_| mapped)
    })
}

/// PID, whether something begins in it, and what it carries.
fn payload_of(packet: &[u8]) -> Option<(u16, bool, &[u8])> {
    let header = packet.first_chunk::<4>()?;
    if header[0] != SYNC || header[3] & 0x10 == 0 {
        return None;
    }
    let adaptation = header[3] & 0x20 != 0;
    let skip = if adaptation { 1 + usize::from(*packet.get(4)?) } else { 0 };
    let payload = packet.get(4 + skip..PACKET.min(packet.len()))?;
    Some((u16::from_be_bytes([header[1] & 0x1f, header[2]]), header[1] & 0x40 != 0, payload))
}

fn pts_of(packet: &[u8], pid: u16) -> Option<i64> {
    let (_, _, pes) = payload_of(packet).filter(|(own, starts, _)| *own == pid && *starts)?;
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

    #[test]
    fn a_clock_is_read_as_it_was_written() {
        for clock in [0, 900, 1 << 32, (1 << 33) - 1] {
            let packet = clock_packet(0x123, clock);
            let expected = clock.wrapping_sub(CLOCK_LEAD) & ((1 << 33) - 1);
            assert_eq!(clock_of(&packet, 0x123), Some(expected));
            assert_eq!(clock_of(&packet, 0x124), None);
            assert_eq!(pts_of(&packet, 0x123), None);
        }
    }

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
        let early = [0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0x00, 0x07, 0xd8, 0x31];
        let programs = [0, 0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe1, 0x0a, 9, 9, 9, 9];
        let map = [0, 2, 0xb0, 18, 0, 1, 0xc1, 0, 0, 0xe1, 1, 0xf0, 0];
        let entry = [0x1b, 0xe1, 0, 0xf0, 0, 9, 9, 9, 9];
        // What was sent before its map doesn't count.
        let mut data = packet(256, &early);
        data.extend(packet(0, &programs));
        data.extend(packet(266, &[&map[..], &entry].concat()));
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

    #[test]
    fn streams_in_the_order_of_the_map() {
        let programs = [0, 0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe1, 0x00, 9, 9, 9, 9];
        let map = [
            &[0, 2, 0xb0, 23, 0, 1, 0xc1, 0, 0, 0xe1, 1, 0xf0, 0][..],
            &[0x1b, 0xe1, 2, 0xf0, 0, 0x86, 0xe1, 0x10, 0xf0, 0, 9, 9, 9, 9],
        ]
        .concat();
        let mut data = packet(0, &programs);
        data.extend(packet(256, &map));
        for _ in 0..4 {
            data.extend(packet(0x1fff, &[]));
        }
        assert_eq!(streams_of(&data), (vec![258, 272], true));
        assert_eq!(streams_of(&data[..200]), (Vec::new(), false));
    }
}
