use super::*;
use crate::Track;
use mp4_atom::{Atom, Decode, DecodeMaybe, Header, Moof, Moov, ReadFrom, Sidx, Trun};
use std::io::Cursor;

const SECOND: i64 = 1_000_000_000;

/// 320x180 High by x264 with 4:3 samples and BT.709.
const SPS: [u8; 28] = [
    0x67, 0x64, 0x00, 0x0c, 0xac, 0xd9, 0x41, 0x41, 0x9f, 0x9f, 0x0e, 0x6a, 0x02, 0x02, 0x02, 0x80,
    0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x18, 0x07, 0x8a, 0x14, 0xcb,
];
const PPS: [u8; 4] = [0x68, 0xeb, 0xe3, 0xcb];

fn video() -> Track {
    Track { format: TrackFormat::H264 { width: 320, height: 180, frame_rate: (24, 1) } }
}

fn aac() -> Track {
    Track {
        format: TrackFormat::Aac {
            audio_specific_config: Bytes::from_static(&[0x11, 0x88, 0x56, 0xe5, 0x00]),
            sample_rate: 48_000,
            channels: 1,
        },
    }
}

fn idr(pts: i64, dts: i64) -> Sample {
    let mut data = vec![0, 0, 0, 1, 9, 0xf0];
    for nal in [&SPS[..], &PPS, &[0x65, 1, 2, 3]] {
        data.extend_from_slice(&[0, 0, 0, 1]);
        data.extend_from_slice(nal);
    }
    Sample { track: 0, pts, dts, duration: 0, keyframe: true, data: data.into() }
}

fn slice(pts: i64, dts: i64) -> Sample {
    let data = Bytes::from_static(&[0, 0, 1, 0x41, 9]);
    Sample { track: 0, pts, dts, duration: 0, keyframe: false, data }
}

fn sound(frame: i64) -> Sample {
    let pts = (frame - 1) * 1024 * SECOND / 48_000;
    let data = Bytes::from(vec![7; 100]);
    Sample { track: 1, pts, dts: pts, duration: 21_333_333, keyframe: true, data }
}

/// Frames 0 to 3 of x264 with two B-frames in front of which `start` ns lie: IDR P B B.
fn pictures(start: i64) -> Vec<Sample> {
    let at = |frame: i64| start + frame * SECOND / 24;
    vec![idr(at(0), at(-2)), slice(at(3), at(-1)), slice(at(1), at(0)), slice(at(2), at(1))]
}

fn find<T: Atom + Decode>(mut data: &[u8]) -> Vec<T> {
    let mut found = Vec::new();
    while let Some(header) = Header::decode_maybe(&mut data).unwrap() {
        let size = header.size.unwrap();
        if header.kind == T::KIND {
            found.push(T::decode_body(&mut &data[..size]).unwrap());
        }
        data = &data[size..];
    }
    found
}

struct Parsed {
    moof: Moof,
    sidx: Vec<Sidx>,
    data: Vec<u8>,
}

fn take(writer: &mut Fmp4Writer, next: Option<&Sample>) -> Parsed {
    let fragment = writer.take(next).unwrap();
    let data = fragment.data.concat();
    let whole = [&fragment.head[..], &data].concat();
    let moof = find(&whole).remove(0);
    Parsed { moof, sidx: find(&whole), data }
}

fn tfdt(moof: &Moof) -> Vec<u64> {
    moof.traf.iter().map(|t| t.tfdt.as_ref().unwrap().base_media_decode_time).collect()
}

fn offsets(trun: &Trun) -> Vec<i64> {
    trun.samples.iter().map(|s| s.cts.unwrap_or(0)).collect()
}

fn run(start: i64, absolute: bool) -> (Vec<u8>, Parsed) {
    let mut writer = Fmp4Writer::new(&[video(), aac()], absolute, false).unwrap();
    for sample in pictures(start) {
        writer.write(&sample).unwrap();
    }
    for frame in 0..4 {
        let sound = sound(frame);
        writer.write(&Sample { pts: sound.pts + start, dts: sound.dts + start, ..sound }).unwrap();
    }
    let init = writer.init().unwrap();
    (init, take(&mut writer, None))
}

#[test]
fn absolute_times_are_ffmpegs_after_a_seek() {
    let (_, parsed) = run(6 * SECOND, true);
    // Video at its first PTS, sound at its own (ffmpeg 5.1 and 9.0, `+frag_discont`).
    assert_eq!(tfdt(&parsed.moof), [6 * 12_288, 6 * 48_000 - 1024]);
    assert_eq!(offsets(&parsed.moof.traf[0].trun[0]), [1024, 2048, 512, 512]);
    let times: Vec<_> = parsed.sidx.iter().map(|s| s.earliest_presentation_time).collect();
    assert_eq!(times, [6 * 12_288, 6 * 48_000 - 1024]);
    let lengths: Vec<_> = parsed.sidx.iter().map(|s| s.references[0].subsegment_duration).collect();
    assert_eq!(lengths, [4 * 512, 4 * 1024]);
}

#[test]
fn priming_before_zero_is_left_out() {
    let (_, parsed) = run(0, true);
    assert_eq!(tfdt(&parsed.moof), [0, 0]);
    assert_eq!(parsed.moof.traf[1].trun[0].samples.len(), 3);
}

#[test]
fn relative_times_count_from_each_tracks_first_sample() {
    let (init, parsed) = run(6 * SECOND, false);
    assert_eq!(tfdt(&parsed.moof), [0, 0]);
    assert_eq!(offsets(&parsed.moof.traf[0].trun[0]), [1024, 2048, 512, 512]);
    let moov: Moov = find(&init).remove(0);
    let edits = |i: usize| moov.trak[i].edts.clone().unwrap().elst.unwrap().entries;
    assert_eq!((edits(0)[0].segment_duration, edits(0)[0].media_time), (6000, None));
    assert_eq!(edits(0)[1].media_time, Some(1024));
    assert_eq!(edits(1)[0].segment_duration, 5978);
}

#[test]
fn the_init_file_is_the_same_wherever_a_run_starts() {
    let (first, _) = run(0, true);
    let (second, _) = run(3600 * SECOND + 41_666_666, true);
    assert_eq!(first, second);
    // A source whose clock counts milliseconds: the jitter stays out.
    let mut writer = Fmp4Writer::new(&[video(), aac()], true, false).unwrap();
    writer.write(&idr(42_000_000, -41_000_000)).unwrap();
    writer.write(&sound(1)).unwrap();
    assert_eq!(writer.init().unwrap(), first);
}

#[test]
fn the_init_file_parses_and_describes_the_tracks() {
    let (init, _) = run(0, true);
    let ftyp = mp4_atom::Ftyp::read_from(&mut Cursor::new(&init)).unwrap();
    assert_eq!(ftyp.major_brand, mp4_atom::FourCC::new(b"iso5"));
    let moov: Moov = find(&init).remove(0);
    let ids: Vec<_> = moov.trak.iter().map(|t| t.tkhd.track_id).collect();
    assert_eq!(ids, [1, 2]);
    let scales: Vec<_> = moov.trak.iter().map(|t| t.mdia.mdhd.timescale).collect();
    assert_eq!(scales, [12_288, 48_000]);
    assert_eq!(moov.mvhd.creation_time, 0);
    let mp4_atom::Codec::Avc1(avc1) = &moov.trak[0].mdia.minf.stbl.stsd.codecs[0] else {
        panic!("avc1")
    };
    assert_eq!(avc1.avcc.sequence_parameter_sets, [SPS.to_vec()]);
    assert_eq!(avc1.avcc.picture_parameter_sets, [PPS.to_vec()]);
    assert_eq!(avc1.avcc.ext.as_ref().unwrap().chroma_format, 1);
    assert_eq!(avc1.pasp.as_ref().map(|p| (p.h_spacing, p.v_spacing)), Some((4, 3)));
    assert_eq!(avc1.colr, mp4_atom::Colr::new(1, 1, 1, false).ok());
    // Displayed at 4:3 samples.
    assert_eq!(moov.trak[0].tkhd.width.integer(), 426);
}

#[test]
fn samples_carry_lengths_and_no_known_parameter_sets() {
    let mut writer = Fmp4Writer::new(&[video()], true, true).unwrap();
    writer.write(&idr(0, 0)).unwrap();
    let other: Vec<u8> = [&[0, 0, 1][..], &PPS[..3], &[0x77, 0, 0, 1, 0x65, 5]].concat();
    writer.write(&Sample { data: other.into(), ..idr(SECOND, SECOND) }).unwrap();
    let parsed = take(&mut writer, None);
    assert_eq!(parsed.sidx, []);
    assert_eq!(parsed.data[..8], [0, 0, 0, 4, 0x65, 1, 2, 3]);
    // A set that the init file doesn't have stays in.
    assert_eq!(parsed.data[8..], [0, 0, 0, 4, 0x68, 0xeb, 0xe3, 0x77, 0, 0, 0, 2, 0x65, 5]);
}

/// A decoder that has been given another encoder's sets behind one seam gets the first one's back
/// behind the next.
#[test]
fn whoever_goes_on_behind_another_encoder_repeats_its_sets() {
    let with = |pps: &[u8], at: i64| {
        let data = [&[0, 0, 1][..], &SPS, &[0, 0, 1], pps, &[0, 0, 1, 0x65, 5]].concat();
        Sample { data: data.into(), ..idr(at, at) }
    };
    let other = [0x68, 0xeb, 0xe3, 0x77];
    let mut writer = Fmp4Writer::new(&[video()], true, true).unwrap();
    writer.write(&with(&PPS, 0)).unwrap();
    let init = writer.init().unwrap();
    assert_eq!(take(&mut writer, None).data, [0, 0, 0, 2, 0x65, 5]);
    for (second, pps) in [(1, PPS), (2, other), (3, PPS), (4, PPS)] {
        // It travels as text.
        let state = serde_json::to_string(&writer.state()).unwrap();
        writer = Fmp4Writer::new(&[video()], true, true).unwrap();
        writer.go_on(&serde_json::from_str(&state).unwrap(), &init);
        writer.write(&with(&pps, second * SECOND)).unwrap();
        let data = take(&mut writer, None).data;
        let carries = data.windows(4).any(|bytes| bytes == pps);
        assert_eq!(carries, second > 1, "second {second}: {data:x?}");
    }
}

#[test]
fn the_last_frame_lasts_until_the_next_segment() {
    let mut writer = Fmp4Writer::new(&[video()], true, true).unwrap();
    let next = idr(SECOND / 2, SECOND / 2);
    for sample in [idr(0, 0), slice(SECOND / 4, SECOND / 4)] {
        writer.write(&sample).unwrap();
    }
    let parsed = take(&mut writer, Some(&next));
    assert_eq!(parsed.moof.traf[0].tfhd.default_sample_duration, Some(3072));
    assert_eq!(parsed.moof.mfhd.sequence_number, 1);
    writer.write(&next).unwrap();
    let parsed = take(&mut writer, None);
    assert_eq!(tfdt(&parsed.moof), [6144]);
    // Nobody knows its length: one frame.
    assert_eq!(parsed.moof.traf[0].tfhd.default_sample_duration, Some(512));
}

#[test]
fn data_offsets_point_at_the_samples() {
    let (_, parsed) = run(0, true);
    let offsets: Vec<_> = parsed.moof.traf.iter().map(|t| t.trun[0].data_offset.unwrap()).collect();
    let video: u32 = parsed.moof.traf[0].trun[0].samples.iter().map(|s| s.size.unwrap()).sum();
    assert_eq!(offsets[1] - offsets[0], i32::try_from(video).unwrap());
}

#[test]
fn a_run_without_keyframe_has_no_init_file() {
    let mut writer = Fmp4Writer::new(&[video(), aac()], true, false).unwrap();
    writer.write(&sound(1)).unwrap();
    assert!(matches!(writer.init(), Err(WriteError::BadSample { track: 0, .. })));
}

#[test]
fn timescales_are_ffmpegs() {
    let of = |n, d| timescale(&TrackFormat::H264 { width: 0, height: 0, frame_rate: (n, d) });
    assert_eq!(
        [of(24_000, 1001), of(24, 1), of(25, 1), of(30_000, 1001), of(50, 1), of(60, 1), of(0, 1)],
        [24_000, 12_288, 12_800, 30_000, 12_800, 15_360, 90_000]
    );
}
