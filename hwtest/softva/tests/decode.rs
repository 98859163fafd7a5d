//! Decoded pictures are those of ffmpeg's own decoders, bit for bit.

mod common;

use common::{ffmpeg, folder, path, pattern, reference, virtual_gpu};

/// A codec: how ffmpeg encodes it, and how GStreamer finds and decodes it.
struct Codec {
    file: &'static str,
    encoder: &'static str,
    parser: &'static str,
    decoder: &'static str,
}

const H264: Codec = Codec {
    file: "clip.mp4",
    encoder: "-c:v libx264 -preset veryfast -crf 30",
    parser: "qtdemux ! h264parse",
    decoder: "vah264dec",
};
const H265: Codec = Codec {
    file: "clip.mp4",
    encoder: "-c:v libx265 -preset veryfast -crf 32",
    parser: "qtdemux ! h265parse",
    decoder: "vah265dec",
};
const VP9: Codec = Codec {
    file: "clip.webm",
    encoder: "-c:v libvpx-vp9 -b:v 400k -cpu-used 8",
    parser: "matroskademux ! vp9parse",
    decoder: "vavp9dec",
};
const MPEG2: Codec = Codec {
    file: "clip.m2v",
    encoder: "-c:v mpeg2video -qscale:v 6",
    parser: "mpegvideoparse",
    decoder: "vampeg2dec",
};

/// Encodes a second of the pattern and compares what both decoders make of it.
fn check(codec: &Codec, size: &str, ten: bool, options: &str) {
    check_filtered(codec, size, ten, "null", options);
}

fn check_filtered(codec: &Codec, size: &str, ten: bool, filter: &str, options: &str) {
    let folder = folder();
    let clip = folder.path().join(codec.file);
    let (planar, packed, format) =
        if ten { ("yuv420p10le", "p010le", "P010_10LE") } else { ("yuv420p", "nv12", "NV12") };
    let source = pattern(size, "24", "1");
    let encoder = codec.encoder;
    let file = path(&clip);
    ffmpeg(&format!("-v error {source} -vf {filter} -pix_fmt {planar} {encoder} {options} {file}"));
    let expected = reference(&clip, packed);
    let pipeline = format!(
        "filesrc location={file} ! {} ! {} ! video/x-raw,format={format}",
        codec.parser, codec.decoder
    );
    let decoded = virtual_gpu().bytes(&pipeline, &folder.path().join("decoded"));
    same(&decoded, &expected, size, ten);
}

/// Compares frame by frame, so that a failure names the frame.
fn same(decoded: &[u8], expected: &[u8], size: &str, ten: bool) {
    let (width, height) = size.split_once('x').expect("a size");
    let pixels: usize =
        width.parse::<usize>().expect("a width") * height.parse::<usize>().expect("a height");
    let frame = pixels * 3 / 2 * if ten { 2 } else { 1 };
    assert!(expected.len() >= 20 * frame, "{} bytes are few frames", expected.len());
    assert_eq!(decoded.len() / frame, expected.len() / frame, "frames of {size}");
    for (index, (got, want)) in decoded.chunks(frame).zip(expected.chunks(frame)).enumerate() {
        let different = got.iter().zip(want).filter(|(got, want)| got != want).count();
        assert_eq!(different, 0, "bytes that differ in frame {index} of {size}");
    }
}

#[test]
fn h264_sizes() {
    for size in ["176x144", "428x242", "1280x720", "1920x1080"] {
        check(&H264, size, false, "");
    }
}

#[test]
fn h264_baseline() {
    check(&H264, "640x360", false, "-profile:v baseline -refs 3");
}

#[test]
fn h264_b_frames_weights_and_large_transforms() {
    let tools = "-preset medium -bf 4 -x264-params b-pyramid=normal:ref=5:weightp=2:8x8dct=1";
    check_filtered(&H264, "640x360", false, "fade=in:0:20", tools);
}

#[test]
fn h264_direct_modes_and_explicit_references() {
    for direct in ["spatial", "temporal"] {
        let tools = format!("-preset medium -bf 3 -x264-params direct={direct}:ref=4:cabac=0");
        check(&H264, "640x360", false, &tools);
    }
}

#[test]
fn h264_scaling_matrices() {
    check(&H264, "640x360", false, "-x264-params cqm=jvt:8x8dct=1");
    let lists = "cqm4iy=6,13,20,28,13,20,28,32,20,28,32,37,28,32,37,42";
    check(&H264, "640x360", false, &format!("-x264-params {lists}:8x8dct=1"));
}

#[test]
fn h264_slices() {
    check(&H264, "640x360", false, "-x264-params slices=7:bframes=2");
    check(&H264, "640x360", false, "-x264-params slice-max-size=400");
}

#[test]
fn h264_open_groups_of_pictures() {
    check(&H264, "640x360", false, "-bf 3 -g 8 -x264-params open-gop=1");
}

#[test]
fn h264_macroblock_adaptive_interlacing() {
    for (order, size) in [("tff", "640x360"), ("bff", "720x576")] {
        let tools = format!("-flags +ilme+ildct -bf 2 -x264-params {order}=1:ref=3");
        check_filtered(&H264, size, false, "noise=alls=12:allf=t", &tools);
    }
}

#[test]
fn h265_sizes() {
    for size in ["176x144", "428x242", "1280x720", "1920x1080"] {
        check(&H265, size, false, "-x265-params log-level=error");
    }
}

#[test]
fn h265_ten_bits() {
    for size in ["428x242", "1920x1080"] {
        check(&H265, size, true, "-x265-params log-level=error");
    }
}

#[test]
fn h265_reference_pictures_and_pyramids() {
    let tools = "log-level=error:ref=5:bframes=6:b-pyramid=1:weightb=1:keyint=12:open-gop=1";
    check_filtered(&H265, "640x360", false, "fade=in:0:20", &format!("-x265-params {tools}"));
    // Without references to be kept, and with low-delay P only.
    check(&H265, "640x360", false, "-x265-params log-level=error:ref=1:bframes=0");
}

#[test]
fn h265_reference_sets_of_temporal_layers() {
    let tools = "log-level=error:temporal-layers=1:bframes=4";
    check(&H265, "640x360", false, &format!("-x265-params {tools}"));
}

#[test]
fn h265_slices_tools_and_lists() {
    for tools in [
        "slices=4",
        "wpp=1:amp=1:rect=1:tskip=1",
        "scaling-list=default",
        "constrained-intra=1:no-sao=1:no-deblock=1",
        "ctu=16:min-cu-size=8:max-tu-size=4:tu-intra-depth=1",
        "cu-lossless=1:signhide=0:strong-intra-smoothing=0:no-temporal-mvp=1",
    ] {
        check(&H265, "640x360", false, &format!("-x265-params log-level=error:{tools}"));
    }
}

#[test]
fn vp9_sizes() {
    for size in ["176x144", "428x242", "1280x720"] {
        check(&VP9, size, false, "-deadline realtime");
    }
}

#[test]
fn vp9_hidden_frames() {
    check(&VP9, "428x242", false, "-auto-alt-ref 1 -lag-in-frames 16");
}

#[test]
fn vp9_ten_bits() {
    check(&VP9, "428x242", true, "-deadline realtime -profile:v 2");
}

#[test]
fn mpeg2_sizes() {
    // 272 lines are 17 rows of macroblocks, which only a progressive sequence can have.
    for size in ["176x144", "428x272", "720x576", "1280x720"] {
        check(&MPEG2, size, false, "-bf 2 -g 12");
    }
}

#[test]
fn mpeg2_interlaced_tools_and_matrices() {
    let tools = "-flags +ilme+ildct -alternate_scan 1 -intra_vlc 1 -non_linear_quant 1 -qmax 28 -bf 2 -top 1";
    check_filtered(&MPEG2, "720x576", false, "noise=alls=12:allf=t", tools);
    let matrix: Vec<_> = (0..64).map(|place| (8 + place / 2).to_string()).collect();
    let tools = format!("-intra_matrix {} -dc 10", matrix.join(","));
    check(&MPEG2, "640x360", false, &tools);
}

#[test]
fn the_size_may_change_within_a_stream() {
    let folder = folder();
    let mut stream = Vec::new();
    let mut expected = Vec::new();
    for size in ["320x240", "640x360"] {
        let clip = folder.path().join(format!("{size}.h264"));
        let source = pattern(size, "24", "1");
        ffmpeg(&format!("-v error {source} -pix_fmt yuv420p {} {}", H264.encoder, path(&clip)));
        stream.extend(std::fs::read(&clip).expect("the clip"));
        expected.extend(reference(&clip, "nv12"));
    }
    let both = folder.path().join("both.h264");
    std::fs::write(&both, stream).expect("space for a clip");
    let pipeline = format!(
        "filesrc location={} ! h264parse ! vah264dec ! video/x-raw,format=NV12",
        path(&both)
    );
    let decoded = virtual_gpu().bytes(&pipeline, &folder.path().join("decoded"));
    assert!(decoded == expected, "{} bytes, expected {}", decoded.len(), expected.len());
}
