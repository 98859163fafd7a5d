//! The container's own table of streams.
//!
//! `-map 0:2` counts every entry of the table. Demuxers show pads for those that they can carry
//! only, in an order of their own: a timecode track, a chapter track or an attachment would shift
//! all that follows. The table tells which stream is meant, by the number that the demuxer puts
//! into its pad's stream id.
//!
//! Invariant: nothing here trusts a length it has read; a damaged table is no table.

use crate::cadence::Rate;
use crate::mpegts;
use crate::reading::Reading;

/// Longest header that is read into memory.
const LONGEST: u64 = 64 << 20;
/// The same of a pipe, from its beginning: for what lies behind it would have to be waited.
const FURTHEST: u64 = 8 << 20;
/// Elements that are looked through for the one with the tracks.
const MOST: usize = 10_000;

/// An entry of the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Track {
    /// Track number, track id or PID.
    pub id: u64,
    /// Ticks per second of its timestamps, if stated.
    pub timescale: Option<u32>,
    /// Frame rate, if the table gives every frame the same length.
    pub rate: Option<Rate>,
    /// How much earlier than its timestamps a track is, ns: what an encoder of sound puts before it
    /// (Matroska's `CodecDelay`).
    pub delay_ns: i64,
    /// The container would have it taken if nobody chooses.
    pub is_default: bool,
    /// An edit list shows other parts of the track than all of it.
    pub edited: bool,
}

/// The streams of a file in ffmpeg's order; `None` if the container has no table that is known
/// here, or a broken one. `media` is the container's media type.
pub fn read(file: &Reading, media: &str) -> Option<Vec<Track>> {
    let tracks = match media {
        "video/x-matroska" | "audio/x-matroska" | "video/webm" | "audio/webm" => matroska(file)?,
        "video/quicktime" | "audio/x-m4a" | "application/x-3gp" => quicktime(file)?,
        "video/mpegts" => mpegts::elementary_streams(file)
            .into_iter()
            .map(|pid| Track { id: pid.into(), timescale: Some(90_000), ..Track::default() })
            .collect(),
        _ => return None,
    };
    (!tracks.is_empty()).then_some(tracks)
}

fn read_at(file: &Reading, offset: u64, length: u64) -> Option<Vec<u8>> {
    let length = length.min(LONGEST);
    if file.is_pipe() && offset.checked_add(length)? > FURTHEST {
        return None;
    }
    let mut data = vec![0; usize::try_from(length).ok()?];
    let read = file.read_at(offset, &mut data).ok()?;
    data.truncate(read);
    Some(data)
}

// --- ISO base media files -----------------------------------------------------------------------

/// A box's type, payload offset and payload length from its first bytes (ISO/IEC 14496-12, 4.2).
fn box_header(head: &[u8]) -> Option<([u8; 4], u64, u64)> {
    let kind = *head.get(4..)?.first_chunk::<4>()?;
    let short = u64::from(u32::from_be_bytes(*head.first_chunk()?));
    let (header, size) = match short {
        1 => (16, u64::from_be_bytes(*head.get(8..)?.first_chunk()?)),
        0 => (8, u64::MAX),
        size => (8, size),
    };
    Some((kind, header, size.checked_sub(header)?))
}

fn quicktime(file: &Reading) -> Option<Vec<Track>> {
    let mut offset = 0_u64;
    for _ in 0..MOST {
        let head = read_at(file, offset, 16)?;
        let (kind, header, length) = box_header(&head)?;
        if &kind == b"moov" {
            let moov = read_at(file, offset + header, length)?;
            return Some(boxes(&moov, *b"trak").filter_map(track_of).collect());
        }
        offset = offset.checked_add(header)?.checked_add(length)?;
    }
    None
}

/// Payloads of the boxes of one kind.
fn boxes(data: &[u8], wanted: [u8; 4]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        loop {
            let (kind, header, length) = box_header(rest)?;
            let body = rest.get(usize::try_from(header).ok()?..)?;
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(body.len());
            rest = &body[length..];
            if kind == wanted {
                return Some(&body[..length]);
            }
        }
    })
}

fn number(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

fn track_of(trak: &[u8]) -> Option<Track> {
    let header = boxes(trak, *b"tkhd").next()?;
    // Version 1 has times of eight bytes.
    let wide = |data: &[u8]| data.first() == Some(&1);
    let id = number(header, if wide(header) { 20 } else { 12 })?;
    let media = boxes(trak, *b"mdia").next();
    let timescale = media
        .and_then(|media| boxes(media, *b"mdhd").next())
        .and_then(|header| number(header, if wide(header) { 20 } else { 12 }))
        .filter(|scale| *scale > 0);
    let lengths = media
        .and_then(|media| boxes(media, *b"minf").next())
        .and_then(|info| boxes(info, *b"stbl").next())
        .and_then(|table| boxes(table, *b"stts").next());
    let rate = lengths.zip(timescale).and_then(|(table, scale)| constant_rate(table, scale));
    let edits = boxes(trak, *b"edts").next().and_then(|edits| boxes(edits, *b"elst").next());
    let edited = edits.zip(timescale).is_some_and(|(list, scale)| is_edited(list, scale));
    // ISO/IEC 14496-12, 8.3.2: the lowest flag means that the track is enabled.
    let is_default = header.get(3)? & 1 != 0;
    Some(Track { id: id.into(), timescale, rate, is_default, edited, delay_ns: 0 })
}

/// The rate if all frames last equally long; the last one may differ.
fn constant_rate(table: &[u8], timescale: u32) -> Option<Rate> {
    let entries = number(table, 4)?;
    let length = number(table, 12).filter(|length| *length > 0)?;
    let constant = entries == 1 || entries == 2 && number(table, 16)? == 1;
    constant.then(|| reduced(timescale, length))
}

/// Whether an edit list does more than delay the start (an empty edit) and skip what encoders put
/// before it: reordered pictures or the lead-in of sound, a quarter of a second at most.
fn is_edited(list: &[u8], timescale: u32) -> bool {
    let wide = list.first() == Some(&1);
    let size = if wide { 20 } else { 12 };
    let starts = list.get(8..).unwrap_or_default().chunks_exact(size).filter_map(|entry| {
        let start = if wide {
            i64::from_be_bytes(*entry.get(8..)?.first_chunk()?)
        } else {
            i64::from(i32::from_be_bytes(*entry.get(4..)?.first_chunk()?))
        };
        (start >= 0).then_some(start)
    });
    let starts: Vec<i64> = starts.collect();
    starts.len() > 1 || starts.first().is_some_and(|start| *start > i64::from(timescale / 4))
}

/// A fraction in lowest terms.
pub fn reduced(numerator: u32, denominator: u32) -> Rate {
    let (mut a, mut b) = (numerator, denominator);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    (numerator / a.max(1), denominator / a.max(1))
}

// --- Matroska -----------------------------------------------------------------------------------

const SEGMENT: u64 = 0x1853_8067;
const TRACKS: u64 = 0x1654_AE6B;
const CLUSTER: u64 = 0x1F43_B675;
const TRACK_ENTRY: u64 = 0xAE;
const TRACK_NUMBER: u64 = 0xD7;
const CODEC_DELAY: u64 = 0x56AA;
const TRACK_TYPE: u64 = 0x83;
const FLAG_DEFAULT: u64 = 0x88;
/// Picture, sound, subtitles, metadata: the types that ffmpeg makes a stream of.
const COUNTED: [u64; 4] = [0x01, 0x02, 0x11, 0x21];

/// An element's id, header length and payload length (RFC 8794, 4 and 5). An unknown length is
/// `u64::MAX`.
fn element(head: &[u8]) -> Option<(u64, u64, u64)> {
    let id_length = head.first()?.leading_zeros() as usize + 1;
    let id = head.get(..id_length).filter(|_| id_length <= 4)?;
    let id = id.iter().fold(0, |id, byte| id << 8 | u64::from(*byte));
    let first = *head.get(id_length)?;
    let length = first.leading_zeros() as usize + 1;
    let bytes = head.get(id_length..id_length + length).filter(|_| length <= 8)?;
    let mask = u64::from(0xff_u8.checked_shr(length as u32).unwrap_or(0));
    let size = bytes[1..].iter().fold(u64::from(first) & mask, |n, byte| n << 8 | u64::from(*byte));
    let unknown = (1_u64 << (7 * length)) - 1;
    let size = if size == unknown { u64::MAX } else { size };
    Some((id, (id_length + length) as u64, size))
}

fn matroska(file: &Reading) -> Option<Vec<Track>> {
    let mut offset = 0_u64;
    for _ in 0..MOST {
        let head = read_at(file, offset, 12)?;
        let (id, header, length) = element(&head)?;
        offset = offset.checked_add(header)?;
        match id {
            // Its children follow.
            SEGMENT => continue,
            TRACKS => return Some(track_entries(&read_at(file, offset, length)?)),
            // Of unknown length: what lies behind can't be reached by skipping.
            CLUSTER if length == u64::MAX => return None,
            _ => offset = offset.checked_add(length)?,
        }
    }
    None
}

fn children(data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (id, header, length) = element(rest)?;
        let body = rest.get(usize::try_from(header).ok()?..)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(body.len());
        rest = &body[length..];
        Some((id, &body[..length]))
    })
}

fn track_entries(data: &[u8]) -> Vec<Track> {
    let entries = children(data).filter(|(id, _)| *id == TRACK_ENTRY);
    entries
        .filter_map(|(_, entry)| {
            let value = |wanted| {
                let (_, body) = children(entry).find(|(id, _)| *id == wanted)?;
                Some(body.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte)))
            };
            let counted = COUNTED.contains(&value(TRACK_TYPE)?);
            let delay = value(CODEC_DELAY).unwrap_or(0);
            let track = Track {
                id: value(TRACK_NUMBER)?,
                // Nearly every file has the default scale, a millisecond.
                timescale: Some(1000),
                is_default: value(FLAG_DEFAULT).is_none_or(|flag| flag != 0),
                delay_ns: i64::try_from(delay).unwrap_or(0),
                ..Track::default()
            };
            counted.then_some(track)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use crate::opened::Bytes;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut data = (body.len() as u32 + 8).to_be_bytes().to_vec();
        data.extend_from_slice(kind);
        data.extend_from_slice(body);
        data
    }

    fn tables(data: &[u8], media: &str) -> Option<Vec<Track>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(data).unwrap();
        let reading = Reading::new(Bytes::Files(vec![file.into()])).unwrap();
        read(&reading, media)
    }

    fn words(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    #[test]
    fn quicktime_tracks_with_their_rates() {
        let trak = |id, scale, lengths: &[u32]| {
            let table = boxed(b"stbl", &boxed(b"stts", &words(lengths)));
            let media =
                [boxed(b"mdhd", &words(&[0, 0, 0, scale])), boxed(b"minf", &table)].concat();
            let header = boxed(b"tkhd", &words(&[7, 0, 0, id]));
            boxed(b"trak", &[header, boxed(b"mdia", &media)].concat())
        };
        let constant = trak(3, 24_000, &[0, 2, 99, 1001, 1, 900]);
        let variable = trak(1, 90_000, &[0, 2, 5, 3000, 5, 6000]);
        let file = [
            boxed(b"ftyp", b"isom"),
            boxed(b"mdat", &[0; 40]),
            boxed(b"moov", &[boxed(b"mvhd", &[0; 8]), constant, variable].concat()),
        ]
        .concat();
        let tracks = tables(&file, "video/quicktime").unwrap();
        let track = |id, scale, rate| Track {
            id,
            timescale: Some(scale),
            rate,
            is_default: true,
            ..Track::default()
        };
        assert_eq!(tracks[0], track(3, 24_000, Some((24_000, 1001))));
        assert_eq!(tracks[1], track(1, 90_000, None));
        for length in 0..file.len() {
            // Never more than the whole file has, whatever is cut off.
            assert!(tables(&file[..length], "video/quicktime").is_none_or(|t| t.len() <= 2));
        }
    }

    #[test]
    fn edit_lists_that_cut() {
        let list = |entries: &[[i32; 3]]| {
            let mut data = words(&[0, entries.len() as u32]);
            data.extend(entries.iter().flatten().flat_map(|value| value.to_be_bytes()));
            data
        };
        let normal = 0x1_0000;
        assert!(!is_edited(&list(&[[12_300, 1024, normal]]), 12_800));
        assert!(!is_edited(&list(&[[5000, -1, normal], [12_300, 1024, normal]]), 12_800));
        assert!(is_edited(&list(&[[12_300, 9984, normal]]), 12_800));
        assert!(is_edited(&list(&[[100, 0, normal], [100, 500, normal]]), 12_800));
        assert!(!is_edited(&list(&[]), 12_800));
        assert!(!is_edited(&[0], 12_800));
    }

    #[test]
    fn matroska_tracks_that_count() {
        let entry = |number: u8, kind: u8| vec![0xAE, 0x86, 0xD7, 0x81, number, 0x83, 0x81, kind];
        let tracks = [entry(1, 1), entry(2, 0x12), entry(7, 2)].concat();
        let mut file = vec![0x1A, 0x45, 0xDF, 0xA3, 0x80, 0x18, 0x53, 0x80, 0x67];
        file.extend([0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        file.extend([0xEC, 0x82, 0, 0, 0x16, 0x54, 0xAE, 0x6B, 0x80 | tracks.len() as u8]);
        file.extend(tracks);
        let ids = |data: &[u8]| {
            let tracks = tables(data, "video/webm")?;
            Some(tracks.iter().map(|track| track.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&file), Some(vec![1, 7]));
        for length in 0..file.len() {
            assert!(ids(&file[..length]).is_none_or(|ids| ids.len() <= 2));
        }
    }
}
