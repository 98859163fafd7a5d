//! The init file, or a file's head: `ftyp` and `moov`.

use mp4_atom::{
    Any, Codec, Decode, Dinf, Dref, DrefEntry, Edts, Elst, ElstEntry, Encode, FourCC, Ftyp, Hdlr,
    Hev1, Hvc1, Mdhd, Mdia, Minf, Moov, Mvex, Mvhd, Smhd, Stbl, Stco, Stsd, Tkhd, Trak, Trex, Url,
    Vmhd,
};

use super::{Origin, TrackState, entry};
use crate::annexb::{ParameterSets, hevc};
use crate::{TrackFormat, WriteError};

/// Ticks per second of `moov` as a whole; ffmpeg 5.1's.
const MOVIE_TIMESCALE: u32 = 1000;

/// What a file says that it is; the brands are ffmpeg's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brand {
    /// The init file of segments.
    Segments,
    /// `-f mp4`.
    Mp4,
    /// `.m4a`.
    M4a,
}

impl Brand {
    fn ftyp(self, avc: bool) -> Ftyp {
        let (major, compatible): (_, &[&[u8; 4]]) = match self {
            Self::Segments => (b"iso5", &[b"iso5", b"iso6", b"mp41"]),
            Self::Mp4 if avc => (b"isom", &[b"isom", b"iso6", b"iso2", b"avc1", b"mp41"]),
            Self::Mp4 => (b"isom", &[b"isom", b"iso6", b"iso2", b"mp41"]),
            Self::M4a => (b"M4A ", &[b"M4A ", b"iso6", b"isom", b"iso2"]),
        };
        Ftyp {
            major_brand: FourCC::new(major),
            minor_version: 512,
            compatible_brands: compatible.iter().map(|brand| FourCC::new(brand)).collect(),
        }
    }
}

/// Encodes the file for tracks as they are after the first segment.
pub(super) fn build(
    tracks: &[TrackState],
    absolute: bool,
    brand: Brand,
) -> Result<Vec<u8>, WriteError> {
    let failed = |error: mp4_atom::Error| WriteError::Unsupported(format!("init file: {error}"));
    let mut out = Vec::new();
    let avc = tracks.iter().any(|track| matches!(track.format, TrackFormat::H264 { .. }));
    brand.ftyp(avc).encode(&mut out).map_err(failed)?;
    let moov = Moov {
        mvhd: Mvhd {
            timescale: MOVIE_TIMESCALE,
            rate: 1.into(),
            volume: 1.into(),
            next_track_id: u32::try_from(tracks.len()).unwrap_or(0) + 1,
            ..Mvhd::default()
        },
        mvex: Some(Mvex {
            mehd: None,
            trex: tracks
                .iter()
                .map(|track| Trex {
                    track_id: track.id,
                    default_sample_description_index: 1,
                    ..Trex::default()
                })
                .collect(),
        }),
        trak: tracks.iter().map(|track| trak(track, absolute)).collect::<Result<_, _>>()?,
        ..Moov::default()
    };
    moov.encode(&mut out).map_err(failed)?;
    Ok(out)
}

/// The parameter sets of the picture that an init file states.
pub(super) fn parameter_sets(mut data: &[u8]) -> Option<ParameterSets> {
    let moov = loop {
        if let Any::Moov(moov) = Any::decode(&mut data).ok()? {
            break moov;
        }
    };
    let codecs = moov.trak.iter().flat_map(|trak| &trak.mdia.minf.stbl.stsd.codecs);
    codecs.into_iter().find_map(|codec| match codec {
        Codec::Avc1(entry) => Some(ParameterSets {
            vps: Vec::new(),
            sps: entry.avcc.sequence_parameter_sets.clone(),
            pps: entry.avcc.picture_parameter_sets.clone(),
        }),
        Codec::Hvc1(Hvc1 { hvcc, .. }) | Codec::Hev1(Hev1 { hvcc, .. }) => {
            let units = |kind| {
                let arrays = hvcc.arrays.iter().filter(move |array| array.nal_unit_type == kind);
                arrays.flat_map(|array| array.nalus.clone()).collect()
            };
            let (vps, sps, pps) = (units(hevc::VPS), units(hevc::SPS), units(hevc::PPS));
            Some(ParameterSets { vps, sps, pps })
        }
        _ => None,
    })
}

fn trak(track: &TrackState, absolute: bool) -> Result<Trak, WriteError> {
    let entry = entry::sample_entry(track)?;
    let video = track.format.is_video();
    let size = match track.format {
        TrackFormat::H264 { width, height, .. } | TrackFormat::Hevc { width, height, .. } => {
            let aspect = entry::sample_aspect(track).unwrap_or((1, 1));
            Some((u64::from(width) * u64::from(aspect.0) / u64::from(aspect.1).max(1), height))
        }
        _ => None,
    };
    let fixed = |value: u64| u16::try_from(value).unwrap_or(u16::MAX).into();
    Ok(Trak {
        tkhd: Tkhd {
            track_id: track.id,
            enabled: true,
            in_movie: true,
            alternate_group: u16::from(!video),
            volume: u8::from(!video).into(),
            width: fixed(size.map_or(0, |(w, _)| w)),
            height: fixed(size.map_or(0, |(_, h)| u64::from(h))),
            ..Tkhd::default()
        },
        edts: Some(Edts { elst: Some(edit_list(track.origin, track.timescale, absolute)) }),
        mdia: Mdia {
            mdhd: Mdhd { timescale: track.timescale, language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr {
                handler: FourCC::new(if video { b"vide" } else { b"soun" }),
                name: if video { "VideoHandler" } else { "SoundHandler" }.into(),
            },
            minf: Minf {
                vmhd: video.then(Vmhd::default),
                smhd: (!video).then(Smhd::default),
                dinf: Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } },
                stbl: Stbl {
                    stsd: Stsd { codecs: vec![entry] },
                    stco: Some(Stco::default()),
                    ..Stbl::default()
                },
                ..Minf::default()
            },
        },
        ..Trak::default()
    })
}

/// What to present of the track. Lengths of zero leave them open.
fn edit_list(origin: Option<Origin>, timescale: u32, absolute: bool) -> Elst {
    let edit = |duration, media_time| ElstEntry {
        segment_duration: duration,
        media_time,
        media_rate: 1.into(),
    };
    let media = |origin: Origin| Some(u64::try_from(origin.delay).unwrap_or(0));
    let entries = match origin {
        Some(origin) if absolute => vec![edit(0, media(origin))],
        Some(origin) => {
            let wait = i128::from(origin.pts) * i128::from(MOVIE_TIMESCALE);
            match u64::try_from(wait.div_euclid(i128::from(timescale.max(1)))) {
                Ok(wait) if wait > 0 => vec![edit(wait, None), edit(0, media(origin))],
                _ => vec![edit(0, Some(u64::try_from(-origin.dts).unwrap_or(0)))],
            }
        }
        None => vec![edit(0, Some(0))],
    };
    Elst { entries }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(origin: Origin, timescale: u32, absolute: bool) -> Vec<(u64, Option<u64>)> {
        edit_list(Some(origin), timescale, absolute)
            .entries
            .iter()
            .map(|e| (e.segment_duration, e.media_time))
            .collect()
    }

    /// ffmpeg 5.1's lists for 24 fps with two B-frames and AAC, from 0 and after `-ss 6`.
    #[test]
    fn edit_lists_are_ffmpegs() {
        let origin = |pts, dts| Origin { pts, dts, delay: pts - dts, offset: 0 };
        assert_eq!(list(origin(0, -1024), 12_288, true), [(0, Some(1024))]);
        assert_eq!(list(origin(73_728, 72_704), 12_288, true), [(0, Some(1024))]);
        assert_eq!(list(origin(-1024, -1024), 48_000, true), [(0, Some(0))]);
        assert_eq!(list(origin(0, -1024), 12_288, false), [(0, Some(1024))]);
        assert_eq!(list(origin(-1024, -1024), 48_000, false), [(0, Some(1024))]);
        let late = [(6000, None), (0, Some(1024))];
        assert_eq!(list(origin(73_728, 72_704), 12_288, false), late);
        let late = [(6026, None), (0, Some(0))];
        assert_eq!(list(origin(289_280, 289_280), 48_000, false), late);
    }
}
