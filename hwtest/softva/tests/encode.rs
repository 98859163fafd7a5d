//! Encoded streams can be decoded by ffmpeg, look like their source, start where they are asked to
//! and keep to their rates.

mod common;

use std::path::Path;

use common::{ffmpeg, folder, frames, path, pattern, ssim, stream, text, virtual_gpu};

/// How a codec is encoded and stored.
struct Codec {
    encoder: &'static str,
    parser: &'static str,
    file: &'static str,
}

const H264: Codec = Codec { encoder: "vah264enc", parser: "h264parse", file: "coded.h264" };
const H265: Codec = Codec { encoder: "vah265enc", parser: "h265parse", file: "coded.h265" };

/// A raw clip of the pattern, and the pipeline's text that reads it.
fn source(folder: &Path, size: &str, rate: &str, seconds: &str, ten: bool) -> (String, String) {
    let clip = folder.join("source.y4m");
    let pixels = if ten { "yuv420p10le" } else { "yuv420p" };
    let input = pattern(size, rate, seconds);
    let strict = "-strict -1";
    ffmpeg(&format!("-v error {input} -pix_fmt {pixels} {strict} {}", path(&clip)));
    // Chroma of I420 would have padded rows in GStreamer's memory, that of NV12 has none here.
    let (width, height) = size.split_once('x').expect("a size");
    let (format, pixels) = if ten { ("i420-10le", pixels) } else { ("nv12", "nv12") };
    let raw = folder.join("source.yuv");
    ffmpeg(&format!("-v error -i {} -pix_fmt {pixels} -f rawvideo {}", path(&clip), path(&raw)));
    let parse = format!(
        "filesrc location={} ! rawvideoparse format={format} width={width} height={height} \
         framerate={rate}",
        path(&raw)
    );
    (path(&clip), parse)
}

/// Encodes a clip and returns the stream's path.
fn encode(codec: &Codec, folder: &Path, input: &str, format: &str, options: &str) -> String {
    let coded = folder.join(codec.file);
    virtual_gpu().run(&format!(
        "{input} ! videoconvert ! video/x-raw,format={format} ! {} {options} ! {} ! filesink \
         location={}",
        codec.encoder,
        codec.parser,
        path(&coded)
    ));
    path(&coded)
}

/// SSIM frame by frame: streams without a container have no times of their own.
fn likeness(source: &str, coded: &str, pixels: &str) -> f64 {
    let filter = format!("setpts=N/24/TB,format={pixels}");
    ssim((&format!("-r 24 -i {source}"), &filter), (&format!("-r 24 -i {coded}"), &filter))
}

/// Indices of key frames.
fn key_frames(coded: &str) -> Vec<usize> {
    let frames = frames(Path::new(coded), "key_frame");
    let keys = frames.iter().enumerate().filter(|(_, key)| key.starts_with('1'));
    keys.map(|(index, _)| index).collect()
}

#[test]
fn coded_pictures_look_like_their_source() {
    for codec in [&H264, &H265] {
        for size in ["176x144", "428x242", "1280x720"] {
            let folder = folder();
            let (clip, input) = source(folder.path(), size, "24/1", "1", false);
            let options = "rate-control=cqp qpi=20 qpp=20";
            let coded = encode(codec, folder.path(), &input, "NV12", options);
            let found = stream(Path::new(&coded), "width,height").replace(',', "x");
            assert_eq!(found, size, "{}", codec.encoder);
            assert_eq!(frames(Path::new(&coded), "pict_type").len(), 24);
            let likeness = likeness(&clip, &coded, "yuv420p");
            assert!(likeness > 0.98, "{} {size}: SSIM {likeness}", codec.encoder);
        }
    }
}

#[test]
fn the_visible_size_is_the_sources() {
    // 1080 lines are coded as 1088.
    for codec in [&H264, &H265] {
        let folder = folder();
        let (clip, input) = source(folder.path(), "1920x1080", "24/1", "0.5", false);
        let coded = encode(codec, folder.path(), &input, "NV12", "bitrate=6000");
        assert_eq!(stream(Path::new(&coded), "width,height"), "1920,1080");
        let likeness = likeness(&clip, &coded, "yuv420p");
        assert!(likeness > 0.9, "{}: SSIM {likeness}", codec.encoder);
    }
}

#[test]
fn ten_bits_stay_ten() {
    let folder = folder();
    let (clip, input) = source(folder.path(), "640x360", "24/1", "1", true);
    let options = "rate-control=cqp qpi=18 qpp=18";
    let coded = encode(&H265, folder.path(), &input, "P010_10LE", options);
    assert_eq!(stream(Path::new(&coded), "pix_fmt"), "yuv420p10le");
    assert_eq!(stream(Path::new(&coded), "profile"), "Main 10");
    let likeness = likeness(&clip, &coded, "yuv420p10le");
    assert!(likeness > 0.98, "SSIM {likeness}");
}

#[test]
fn key_frames_are_where_they_are_asked_for() {
    for codec in [&H264, &H265] {
        for distance in [7usize, 24] {
            let folder = folder();
            let (_, input) = source(folder.path(), "320x240", "24/1", "3", false);
            let options = format!("key-int-max={distance} bitrate=400");
            let coded = encode(codec, folder.path(), &input, "NV12", &options);
            let expected: Vec<_> = (0..72).step_by(distance).collect();
            assert_eq!(key_frames(&coded), expected, "{}", codec.encoder);
            let kinds = frames(Path::new(&coded), "pict_type");
            assert!(kinds.iter().all(|kind| !kind.starts_with('B')), "{kinds:?}");
        }
    }
}

#[test]
fn parameter_sets_come_with_every_key_frame() {
    let folder = folder();
    let (_, input) = source(folder.path(), "320x240", "24/1", "2", false);
    for (codec, set) in [(&H264, 0x67 & 31), (&H265, 33)] {
        let coded = encode(codec, folder.path(), &input, "NV12", "key-int-max=12");
        let stream = std::fs::read(&coded).expect("the stream");
        let kind = |nal: u8| if codec.encoder == "vah264enc" { nal & 31 } else { nal >> 1 & 63 };
        let sets = stream.windows(4).filter(|w| w[..3] == [0, 0, 1] && kind(w[3]) == set).count();
        assert_eq!(sets, 4, "{}", codec.encoder);
    }
}

#[test]
fn rates_are_kept() {
    for codec in [&H264, &H265] {
        for (mode, options, expected, maximum) in [
            ("cbr", "bitrate=600", 600.0, 660.0),
            // For a variable rate the bit rate is the target; 50 % means twice as much at most.
            ("vbr", "bitrate=300 target-percentage=50", 300.0, 600.0),
        ] {
            let folder = folder();
            let (_, input) = source(folder.path(), "640x360", "24/1", "6", false);
            let options = format!("rate-control={mode} {options} key-int-max=48");
            let coded = encode(codec, folder.path(), &input, "NV12", &options);
            let bytes = std::fs::metadata(&coded).expect("the stream").len();
            let rate = bytes as f64 * 8.0 / 6.0 / 1000.0;
            let name = codec.encoder;
            assert!(rate < maximum, "{name} {mode}: {rate:.0} kbit/s of at most {maximum}");
            assert!(
                (rate - expected).abs() < expected * 0.2,
                "{name} {mode}: {rate:.0} kbit/s where {expected} were asked for"
            );
        }
    }
}

#[test]
fn a_finer_quantiser_costs_more() {
    for codec in [&H264, &H265] {
        let folder = folder();
        let (_, input) = source(folder.path(), "320x240", "24/1", "1", false);
        let size = |quantiser: u32| {
            let options = format!("rate-control=cqp qpi={quantiser} qpp={quantiser}");
            let coded = encode(codec, folder.path(), &input, "NV12", &options);
            std::fs::metadata(coded).expect("the stream").len()
        };
        let (fine, coarse) = (size(20), size(38));
        assert!(fine > 2 * coarse, "{}: {fine} and {coarse} bytes", codec.encoder);
    }
}

#[test]
fn profiles_and_frame_rates_are_the_ones_negotiated() {
    for (caps, expected) in
        [("constrained-baseline", "Constrained Baseline"), ("main", "Main"), ("high", "High")]
    {
        let folder = folder();
        let (_, input) = source(folder.path(), "320x240", "24000/1001", "1", false);
        let coded = folder.path().join("coded.h264");
        virtual_gpu().run(&format!(
            "{input} ! videoconvert ! video/x-raw,format=NV12 ! vah264enc ! \
             video/x-h264,profile={caps} ! h264parse ! filesink location={}",
            path(&coded)
        ));
        assert_eq!(stream(&coded, "profile"), expected);
        // Two ticks a frame (H.264 E.2.1).
        let headers = ffmpeg(&format!(
            "-i {} -c copy -bsf:v trace_headers -frames:v 1 -f null -",
            path(&coded)
        ));
        let headers = text(&headers.stderr);
        let field = |name: &str| {
            let line = headers.lines().find(|line| line.contains(name)).expect(name);
            line.rsplit("= ").next().expect("a value").trim().to_owned()
        };
        assert_eq!((&*field("num_units_in_tick"), &*field("time_scale")), ("1001", "48000"));
    }
}

#[test]
fn slices_are_as_many_as_asked_for() {
    let folder = folder();
    let (_, input) = source(folder.path(), "640x360", "24/1", "0.5", false);
    let coded = encode(&H264, folder.path(), &input, "NV12", "num-slices=4 key-int-max=100");
    let stream = std::fs::read(coded).expect("the stream");
    let slices = stream.windows(4).filter(|w| w[..3] == [0, 0, 1] && matches!(w[3] & 31, 1 | 5));
    assert_eq!(slices.count(), 4 * 12);
}
