//! H.264 field pictures. No encoder at hand makes them, so the test writes a stream of its own:
//! raw macroblocks in the first frame, vectors between fields in the rest, B fields that are all
//! direct prediction. ffmpeg says what it means.

mod common;

use common::{folder, path, reference, text, virtual_gpu};
use softva::bits::{BitWriter, push_nal};

/// Macroblocks across, and down a field.
const SIZE: (u32, u32) = (8, 4);
const WIDTH: usize = 128;
const HEIGHT: usize = 128;

/// A sequence of numbers that looks random and is always the same (Knuth's MMIX constants).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % limit
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Raw,
    Predicted,
    Direct,
}

fn parameter_sets(stream: &mut Vec<u8>) {
    let mut sequence = BitWriter::new();
    // Main profile, level 3, set 0; frame_num of 4 bits, order count type 0 of 8 bits.
    sequence.bits(0x67, 8).bits(77, 8).bits(0, 8).bits(30, 8).ue(0).ue(0).ue(0).ue(4);
    // Two reference frames, no gaps, size, fields are possible.
    sequence.ue(2).bits(0, 1).ue(SIZE.0 - 1).ue(SIZE.1 - 1).bits(0, 2);
    // direct_8x8_inference, no cropping, no usability information.
    sequence.bits(1, 1).bits(0, 1).bits(0, 1).stop();
    push_nal(stream, &sequence.bytes());
    let mut picture = BitWriter::new();
    // Set 0 of sequence 0, CAVLC, one slice group, one reference each, no weights, quantisers 26.
    picture.bits(0x68, 8).ue(0).ue(0).bits(0, 2).ue(0).ue(0).ue(0).bits(0, 3);
    picture.se(0).se(0).se(0).bits(0, 3).stop();
    push_nal(stream, &picture.bytes());
}

/// One field as a slice.
fn field(
    numbers: &mut Numbers,
    kind: Kind,
    (bottom, first): (bool, bool),
    frame_num: u32,
    order: u32,
) -> Vec<u8> {
    let idr = kind == Kind::Raw && first;
    let reference = kind != Kind::Direct;
    let mut slice = BitWriter::new();
    let nal = u32::from(reference) << 5 | if idr { 5 } else { 1 };
    slice.bits(nal, 8).ue(0);
    // Slice types of a whole picture: 5 P, 6 B, 7 I.
    slice.ue(match kind {
        Kind::Raw => 7,
        Kind::Predicted => 5,
        Kind::Direct => 6,
    });
    slice.ue(0).bits(frame_num % 16, 4).flag(true).flag(bottom);
    if idr {
        slice.ue(0);
    }
    slice.bits(order % 256, 8);
    match kind {
        Kind::Raw => {}
        // Two references; the lists are not reordered.
        Kind::Predicted => {
            slice.flag(true).ue(1).flag(false);
        }
        // Spatial direct prediction, the parameter set's one reference each, no reordering.
        Kind::Direct => {
            slice.flag(true).flag(false).flag(false).flag(false);
        }
    }
    if reference {
        slice.bits(0, if idr { 2 } else { 1 });
    }
    slice.se(0);
    let count = SIZE.0 * SIZE.1;
    match kind {
        Kind::Raw => {
            for _ in 0..count {
                // I_PCM, from the next whole byte.
                slice.ue(25).align();
                let base = 40 + numbers.below(120);
                for _ in 0..384 {
                    slice.bits(base + numbers.below(40), 8);
                }
            }
        }
        Kind::Predicted => {
            for _ in 0..count {
                // Not skipped, P_L0_16x16, one of two references (te(v): inverted bit), vector
                // differences, no residual.
                slice.ue(0).ue(0).bits(numbers.below(2), 1);
                for _ in 0..2 {
                    slice.se(numbers.below(13) as i32 - 6);
                }
                slice.ue(0);
            }
        }
        Kind::Direct => {
            slice.ue(count);
        }
    }
    slice.stop();
    slice.bytes()
}

/// I P B P B ..., each of two fields.
fn stream(bottom_first: bool) -> (Vec<u8>, usize) {
    let mut numbers = Numbers(7);
    let mut stream = Vec::new();
    parameter_sets(&mut stream);
    let mut frames = vec![(Kind::Raw, 0, 0)];
    for group in 0..6 {
        frames.push((Kind::Predicted, group + 1, 2 * group + 2));
        frames.push((Kind::Direct, group + 2, 2 * group + 1));
    }
    for (kind, frame_num, shown) in &frames {
        for (place, first) in [(0, true), (1, false)] {
            let bottom = first == bottom_first;
            let order = 2 * shown + place;
            let nal = field(&mut numbers, *kind, (bottom, first), *frame_num, order);
            push_nal(&mut stream, &nal);
        }
    }
    (stream, frames.len())
}

#[test]
fn field_pictures_are_exact() {
    for bottom_first in [false, true] {
        let folder = folder();
        let clip = folder.path().join("fields.h264");
        let (stream, frames) = stream(bottom_first);
        std::fs::write(&clip, stream).expect("space for a clip");
        let expected = reference(&clip, "nv12");
        assert_eq!(expected.len(), frames * WIDTH * HEIGHT * 3 / 2, "ffmpeg's frames");
        let decoded = folder.path().join("decoded");
        let trace = folder.path().join("trace");
        let mut command = virtual_gpu().pipeline(&format!(
            "filesrc location={} ! h264parse ! vah264dec ! video/x-raw,format=NV12 ! filesink \
             location={}",
            path(&clip),
            path(&decoded)
        ));
        let output = virtual_gpu().output(command.env("SOFTVA_TRACE", &trace));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let decoded = std::fs::read(decoded).expect("the pictures");
        let trace = std::fs::read_to_string(trace).expect("a trace");
        assert_eq!(trace.matches("second field true").count(), frames);
        assert_eq!(trace.matches("second field false").count(), frames);
        assert_eq!(decoded.len(), expected.len());
        let frame = WIDTH * HEIGHT * 3 / 2;
        for (index, (got, want)) in decoded.chunks(frame).zip(expected.chunks(frame)).enumerate() {
            let different = got.iter().zip(want).filter(|(got, want)| got != want).count();
            assert_eq!(different, 0, "bytes that differ in frame {index}, {bottom_first}");
        }
    }
}
