//! A segment: `styp`, `sidx` per track, `moof`, `mdat`; laid out as ffmpeg does. In one file with
//! others a fragment is `moof` and `mdat` alone.

use bytes::Bytes;
use mp4_atom::{
    Encode, FourCC, Mfhd, Moof, SegmentReference, Sidx, Styp, Tfdt, Tfhd, Traf, Trun, TrunEntry,
};

use super::{Entry, Shape, TrackState};

const SYNC: u32 = 0x0200_0000;
const NON_SYNC: u32 = 0x0101_0000;

/// A segment in memory: boxes, then samples in the order of their tracks.
#[derive(Debug)]
pub struct Fragment {
    /// Everything in front of the samples.
    pub head: Vec<u8>,
    /// The samples.
    pub data: Vec<Bytes>,
    /// Where decoding can begin in it: at its first sample of these tracks.
    pub access: Vec<Access>,
}

/// A place for an index (`tfra`, ISO/IEC 14496-12 8.8.10).
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Id of the track.
    pub track: u32,
    /// Presentation time in the track's ticks.
    pub time: u64,
    /// Number of its `traf` in the `moof`, from 1.
    pub traf: u8,
}

/// Takes entries and data out of the tracks.
pub(super) fn build(
    tracks: &mut [TrackState],
    sequence: u32,
    shape: Shape,
) -> Result<Fragment, String> {
    let failed = |error: mp4_atom::Error| format!("fragment: {error}");
    let sizes: Vec<u64> = tracks.iter().map(|t| data_size(&t.entries)).collect();
    let mdat = 8 + sizes.iter().sum::<u64>();
    let mdat = u32::try_from(mdat).map_err(|_| "segment exceeds 4 GiB".to_owned())?;

    let mut moof = moof(tracks, sequence)?;
    let mut boxes = Vec::new();
    moof.encode(&mut boxes).map_err(failed)?;
    let moof_size = boxes.len();
    // Its size is known now, and with it where each track's samples begin.
    let mut offset = u64::try_from(moof_size).unwrap_or(0) + 8;
    let present = tracks.iter().zip(&sizes).filter(|(t, _)| !t.entries.is_empty());
    for (traf, (_, size)) in moof.traf.iter_mut().zip(present) {
        traf.trun[0].data_offset =
            Some(i32::try_from(offset).map_err(|_| "segment exceeds 2 GiB".to_owned())?);
        offset += size;
    }
    boxes.clear();
    moof.encode(&mut boxes).map_err(failed)?;
    boxes.extend_from_slice(&mdat.to_be_bytes());
    boxes.extend_from_slice(b"mdat");

    let mut head = Vec::with_capacity(boxes.len() + 256);
    if let Shape::Segments { sidx } = shape {
        let brands = vec![FourCC::new(b"msdh"), FourCC::new(b"msix")];
        Styp { major_brand: FourCC::new(b"msdh"), minor_version: 0, compatible_brands: brands }
            .encode(&mut head)
            .map_err(failed)?;
        if sidx {
            let size = u32::try_from(moof_size).unwrap_or(0).saturating_add(mdat);
            write_indexes(tracks, size, &mut head).map_err(failed)?;
        }
    }
    head.extend_from_slice(&boxes);
    let access = access(tracks);
    let mut data = Vec::new();
    for track in tracks {
        track.entries = Vec::new();
        data.append(&mut std::mem::take(&mut track.data));
    }
    Ok(Fragment { head, data, access })
}

fn access(tracks: &[TrackState]) -> Vec<Access> {
    let firsts = tracks.iter().filter_map(|track| Some((track.id, track.entries.first()?)));
    (1..=u8::MAX)
        .zip(firsts)
        .filter(|(_, (_, first))| first.keyframe)
        .map(|(traf, (track, first))| Access {
            track,
            time: u64::try_from(first.pts).unwrap_or(0),
            traf,
        })
        .collect()
}

fn data_size(entries: &[Entry]) -> u64 {
    entries.iter().map(|e| u64::from(e.size)).sum()
}

fn moof(tracks: &[TrackState], sequence: u32) -> Result<Moof, String> {
    let traf =
        tracks.iter().filter(|t| !t.entries.is_empty()).map(traf).collect::<Result<_, _>>()?;
    Ok(Moof { mfhd: Mfhd { sequence_number: sequence }, traf })
}

/// What all samples share stands once in `tfhd`; ffmpeg's defaults are the first sample's values.
fn traf(track: &TrackState) -> Result<Traf, String> {
    let entries = &track.entries;
    let length = |e: &Entry| u32::try_from(e.duration).map_err(|_| "sample too long".to_owned());
    let first = entries[0];
    let default_duration = length(&first)?;
    let default_flags = if track.format.is_video() { NON_SYNC } else { SYNC };
    let flags = |e: &Entry| if e.keyframe { SYNC } else { NON_SYNC };
    let same_duration = entries.iter().all(|e| e.duration == first.duration);
    let same_size = entries.iter().all(|e| e.size == first.size);
    let same_flags = entries.iter().skip(1).all(|e| flags(e) == default_flags);
    let reordered = entries.iter().any(|e| e.present != e.decode);
    let mut samples = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let own_flags = !same_flags || (i == 0 && flags(entry) != default_flags);
        samples.push(TrunEntry {
            duration: if same_duration { None } else { Some(length(entry)?) },
            size: (!same_size).then_some(entry.size),
            flags: own_flags.then_some(flags(entry)),
            cts: reordered.then_some(entry.present - entry.decode),
        });
    }
    Ok(Traf {
        tfhd: Tfhd {
            track_id: track.id,
            default_sample_duration: Some(default_duration),
            default_sample_size: Some(first.size),
            default_sample_flags: Some(default_flags),
            default_base_is_moof: true,
            ..Tfhd::default()
        },
        tfdt: Some(Tfdt { base_media_decode_time: u64::try_from(first.decode).unwrap_or(0) }),
        trun: vec![Trun { data_offset: Some(0), samples: samples.into() }],
        ..Traf::default()
    })
}

/// One `sidx` per track, each with one reference: the fragment.
fn write_indexes(
    tracks: &[TrackState],
    referenced_size: u32,
    out: &mut Vec<u8>,
) -> mp4_atom::Result<()> {
    let mut tail: Vec<u8> = Vec::new();
    // From the last to the first: each states how many bytes of indexes follow it.
    for track in tracks.iter().rev() {
        let Some(first) = track.entries.first() else { continue };
        // What the edit list takes away is not presented.
        let edit = track.origin.map_or(0, |o| o.delay);
        let time = |present: i64| u64::try_from(present - edit).unwrap_or(0);
        let end = track.entries.iter().map(|e| e.present + e.duration).max().unwrap_or(0);
        let begin = time(first.present);
        let sidx = Sidx {
            reference_id: track.id,
            timescale: track.timescale,
            earliest_presentation_time: begin,
            first_offset: u64::try_from(tail.len()).unwrap_or(0),
            references: vec![SegmentReference {
                reference_type: false,
                referenced_size,
                subsegment_duration: u32::try_from(time(end).saturating_sub(begin)).unwrap_or(0),
                starts_with_sap: first.keyframe,
                sap_type: 0,
                sap_delta_time: 0,
            }],
        };
        let mut bytes = Vec::new();
        sidx.encode(&mut bytes)?;
        bytes.append(&mut tail);
        tail = bytes;
    }
    out.append(&mut tail);
    Ok(())
}
