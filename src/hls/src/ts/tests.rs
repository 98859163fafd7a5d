use super::*;
use bytes::Bytes;
use mpeg2ts_reader::pes::PesHeader;

const SECOND: i64 = 1_000_000_000;

fn tracks() -> Vec<Track> {
    vec![
        Track { format: TrackFormat::H264 { width: 320, height: 180, frame_rate: (24, 1) } },
        Track {
            format: TrackFormat::Aac {
                audio_specific_config: Bytes::from_static(&[0x11, 0x88]),
                sample_rate: 48_000,
                channels: 1,
            },
        },
    ]
}

fn idr(pts: i64, dts: i64) -> Sample {
    let data = Bytes::from_static(&[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 3]);
    Sample { track: 0, pts, dts, duration: 0, keyframe: true, data }
}

fn slice(pts: i64, dts: i64) -> Sample {
    let data = Bytes::from_static(&[0, 0, 0, 1, 0x41, 9]);
    Sample { track: 0, pts, dts, duration: 0, keyframe: false, data }
}

fn sound(pts: i64) -> Sample {
    Sample { track: 1, pts, dts: pts, duration: 0, keyframe: true, data: Bytes::from(vec![7; 100]) }
}

/// PTS, and DTS if it differs.
type Times = (u64, Option<u64>);

/// PID and, where a PES packet begins, its times; read by an independent parser.
fn parse(data: &[u8]) -> Vec<(u16, Option<Times>)> {
    use mpeg2ts_reader::{packet::Packet, pes::PesContents, pes::PtsDts};
    data.chunks(packet::PACKET)
        .map(|bytes| {
            let packet = Packet::try_new(bytes).unwrap();
            let pid: u16 = packet.pid().into();
            let start = packet.payload_unit_start_indicator() && (0x100..0x1000).contains(&pid);
            let times = start.then(|| {
                let header = PesHeader::from_bytes(packet.payload().unwrap()).unwrap();
                let PesContents::Parsed(Some(contents)) = header.contents() else { panic!("PES") };
                match contents.pts_dts().unwrap() {
                    PtsDts::PtsOnly(pts) => (pts.unwrap().value(), None),
                    PtsDts::Both { pts, dts } => (pts.unwrap().value(), Some(dts.unwrap().value())),
                    other => panic!("{other:?}"),
                }
            });
            (pid, times)
        })
        .collect()
}

#[test]
fn a_run_from_the_start_is_shifted_by_its_first_dts() {
    let mut writer = TsWriter::new(&tracks(), 5_000_000).unwrap();
    let mut out = Vec::new();
    writer.write(&idr(0, -83_333_333), &mut out).unwrap();
    writer.write(&sound(-21_333_333), &mut out).unwrap();
    writer.flush(&mut out);
    let times: Vec<_> = parse(&out).into_iter().filter_map(|(_, t)| t).collect();
    // As ffmpeg: contract, measured facts.
    assert_eq!(times, [(907_500, Some(900_000)), (905_580, None)]);
}

#[test]
fn after_a_seek_nothing_is_shifted() {
    let mut writer = TsWriter::new(&tracks(), 5_000_000).unwrap();
    let mut out = Vec::new();
    writer.write(&idr(6 * SECOND, 6 * SECOND - 83_333_333), &mut out).unwrap();
    let times: Vec<_> = parse(&out).into_iter().filter_map(|(_, t)| t).collect();
    assert_eq!(times, [(1_440_000, Some(1_432_500))]);
}

#[test]
fn tables_stand_at_the_start_and_before_keyframes() {
    let mut writer = TsWriter::new(&tracks(), 5_000_000).unwrap();
    let mut out = Vec::new();
    for sample in [idr(0, 0), slice(SECOND, SECOND), idr(2 * SECOND, 2 * SECOND)] {
        writer.write(&sample, &mut out).unwrap();
    }
    writer.begin_segment();
    writer.write(&idr(3 * SECOND, 3 * SECOND), &mut out).unwrap();
    let pids: Vec<_> = parse(&out).into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(pids, [0x11, 0, 0x1000, 0x100, 0x100, 0, 0x1000, 0x100, 0x11, 0, 0x1000, 0x100]);
}

#[test]
fn access_units_get_a_delimiter_and_keyframes_parameter_sets() {
    let mut known = ParameterSets::default();
    let unit = access_unit(Syntax::H264, &mut known, &idr(0, 0));
    assert_eq!(unit[..7], [0, 0, 0, 1, 9, 0xf0, 0]);
    assert!(known.is_complete(Syntax::H264));
    // Without sets of its own the keyframe gets the known ones, behind the delimiter.
    let bare =
        Sample { data: Bytes::from_static(&[0, 0, 1, 9, 0xf0, 0, 0, 1, 0x65, 4]), ..idr(0, 0) };
    let unit = access_unit(Syntax::H264, &mut known, &bare);
    let kinds: Vec<_> = nals(&unit).map(|nal| Syntax::H264.nal_type(nal)).collect();
    assert_eq!(kinds, [9, 7, 8, 5]);
    let unit = access_unit(Syntax::H264, &mut known, &slice(0, 0));
    assert_eq!(nals(&unit).count(), 2);
}

#[test]
fn flac_is_refused() {
    let format = TrackFormat::Flac { streaminfo: Bytes::new(), sample_rate: 48_000, channels: 2 };
    assert!(matches!(TsWriter::new(&[Track { format }], 0), Err(WriteError::Unsupported(_))));
}
