//! Processed pictures are what a viewer expects of scaling, conversion, deinterlacing, rotation,
//! blending and tone mapping.

mod common;

use std::path::{Path, PathBuf};

use common::{ffmpeg, folder, gstreamer_version, path, pattern, ssim, text, virtual_gpu};

/// A lossless clip of the pattern in raw NV12, and the pipeline's text that reads it.
fn raw(folder: &Path, size: &str, filter: &str) -> (PathBuf, String) {
    let clip = folder.join("source.nv12");
    let input = pattern(size, "24", "0.5");
    ffmpeg(&format!("-v error {input} -vf {filter} -pix_fmt nv12 -f rawvideo {}", path(&clip)));
    let (width, height) = size.split_once('x').expect("a size");
    let read = format!(
        "filesrc location={} ! rawvideoparse format=nv12 width={width} height={height} \
         framerate=24/1",
        path(&clip)
    );
    (clip, read)
}

/// ffmpeg's arguments for raw video.
fn as_input(file: &Path, pixels: &str, size: &str) -> String {
    format!("-f rawvideo -pix_fmt {pixels} -s {size} -r 24 -i {}", path(file))
}

#[test]
fn scaling_is_bicubic() {
    let folder = folder();
    let (clip, read) = raw(folder.path(), "1280x720", "null");
    for (width, height) in [(640, 360), (854, 480), (1920, 1080), (426, 240)] {
        let out = folder.path().join("scaled");
        let caps = format!("video/x-raw,format=NV12,width={width},height={height}");
        virtual_gpu().bytes(&format!("{read} ! vapostproc ! {caps}"), &out);
        // GStreamer's rows are multiples of four bytes.
        let stored = format!("{}x{height}", (width + 3) / 4 * 4);
        let size = format!("{width}x{height}");
        let likeness = ssim(
            (
                &as_input(&clip, "nv12", "1280x720"),
                &format!("scale={width}:{height}:flags=bicubic,format=yuv420p"),
            ),
            (
                &as_input(&out, "nv12", &stored),
                &format!("crop={width}:{height}:0:0,format=yuv420p"),
            ),
        );
        assert!(likeness > 0.995, "{size}: SSIM {likeness}");
    }
}

#[test]
fn pixel_formats_convert_both_ways() {
    let folder = folder();
    let (clip, read) = raw(folder.path(), "640x360", "null");
    // ffmpeg halves the resolution of chroma between YUV and RGB unless told not to.
    let exact = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp";
    for (format, pixels) in [
        ("BGRA", "bgra"),
        ("BGRx", "bgr0"),
        ("RGBA", "rgba"),
        ("RGBx", "rgb0"),
        ("P010_10LE", "p010le"),
        ("I420", "yuv420p"),
        ("YV12", "yuv420p"),
    ] {
        let out = folder.path().join(format);
        let there = format!("{read} ! vapostproc ! video/x-raw,format={format}");
        virtual_gpu().bytes(&there, &out);
        let original = as_input(&clip, "nv12", "640x360");
        if format != "YV12" {
            let likeness = ssim(
                (&original, &format!("scale=flags={exact},format={pixels},format=gbrp")),
                (&as_input(&out, pixels, "640x360"), "format=gbrp"),
            );
            assert!(likeness > 0.98, "{format}: SSIM {likeness}");
        }
        let back = folder.path().join("back");
        virtual_gpu().bytes(&format!("{there} ! vapostproc ! video/x-raw,format=NV12"), &back);
        let likeness = ssim(
            (&original, "format=yuv420p"),
            (&as_input(&back, "nv12", "640x360"), "format=yuv420p"),
        );
        assert!(likeness > 0.97, "{format} and back: SSIM {likeness}");
    }
}

#[test]
fn turns_and_mirrors_are_exact() {
    let folder = folder();
    let (clip, read) = raw(folder.path(), "640x360", "null");
    for (direction, filter, size) in [
        ("90r", "transpose=clock", "360x640"),
        ("180", "hflip,vflip", "640x360"),
        ("90l", "transpose=cclock", "360x640"),
        ("horiz", "hflip", "640x360"),
        ("vert", "vflip", "640x360"),
        ("ul-lr", "transpose=cclock_flip", "360x640"),
        ("ur-ll", "transpose=clock_flip", "360x640"),
    ] {
        let (width, height) = size.split_once('x').expect("a size");
        let caps = format!("video/x-raw,format=NV12,width={width},height={height}");
        let pipeline = format!("{read} ! vapostproc video-direction={direction} ! {caps}");
        let turned = virtual_gpu().bytes(&pipeline, &folder.path().join("turned"));
        let input = as_input(&clip, "nv12", "640x360");
        let expected =
            ffmpeg(&format!("-v error {input} -vf {filter} -pix_fmt nv12 -f rawvideo -")).stdout;
        assert!(turned == expected, "{direction}: {} and {}", turned.len(), expected.len());
    }
}

#[test]
fn dmabufs_pass_between_elements() {
    let folder = folder();
    let (clip, read) = raw(folder.path(), "640x360", "null");
    let out = folder.path().join("passed");
    let format = if gstreamer_version() < (1, 24) {
        "format=P010_10LE"
    } else {
        "format=DMA_DRM,drm-format=P010"
    };
    let trace = folder.path().join("trace");
    let mut command = virtual_gpu().pipeline(&format!(
        "{read} ! vapostproc ! video/x-raw(memory:DMABuf),{format} ! vapostproc ! \
         video/x-raw(memory:VAMemory),format=NV12 ! vapostproc ! video/x-raw,format=NV12 ! \
         filesink location={}",
        path(&out)
    ));
    let output = virtual_gpu().output(command.env("SOFTVA_TRACE", &trace));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let trace = std::fs::read_to_string(trace).expect("a trace");
    assert!(trace.contains("exported as DMABuf"), "{trace}");
    let likeness = ssim(
        (&as_input(&clip, "nv12", "640x360"), "format=yuv420p"),
        (&as_input(&out, "nv12", "640x360"), "format=yuv420p"),
    );
    assert!(likeness > 0.99, "SSIM {likeness}");
}

#[test]
fn deinterlacing_restores_the_frames_of_both_fields() {
    let folder = folder();
    // 48 progressive frames a second, woven into 24 interlaced ones.
    let interlaced = folder.path().join("interlaced.mp4");
    let source = pattern("640x360", "48", "1");
    ffmpeg(&format!(
        "-v error {source} -vf tinterlace=interleave_top -pix_fmt yuv420p -c:v libx264 -qp 4 \
         -preset veryfast -flags +ilme+ildct -x264-params tff=1 {}",
        path(&interlaced)
    ));
    // GStreamer 1.22 drops the pictures that a method's references delay at the start.
    for (method, lost) in [("bob", 0), ("adaptive", 2), ("compensated", 2)] {
        let out = folder.path().join(method);
        let bytes = virtual_gpu().bytes(
            &format!(
                "filesrc location={} ! qtdemux ! h264parse ! vah264dec ! vadeinterlace \
                 method={method} ! video/x-raw,format=NV12",
                path(&interlaced)
            ),
            &out,
        );
        let frames = bytes.len() / (640 * 360 * 3 / 2);
        assert!((48 - lost..=48).contains(&frames), "{method}: {frames} frames");
        // Which of the first frames were dropped is found by looking for the best match.
        let (likeness, skipped) = (0..=lost)
            .map(|skip| {
                let start = format!("trim=start_frame={skip},setpts=N/48/TB,format=yuv420p");
                let deinterlaced = as_input(&out, "nv12", "640x360").replace("-r 24", "-r 48");
                (ssim((&source, &start), (&deinterlaced, "format=yuv420p")), skip)
            })
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .expect("a candidate");
        assert!(likeness > 0.95, "{method}: SSIM {likeness} after {skipped}");
    }
}

#[test]
fn deinterlacing_keeps_still_pictures_sharp() {
    let folder = folder();
    // Rows of alternating brightness that never move: bob can't keep them, the others must.
    let interlaced = folder.path().join("still.mp4");
    ffmpeg(&format!(
        "-v error -f lavfi -i color=gray:s=320x240:r=24:d=1 -vf \
         geq=lum='60+120*mod(Y\\,2)':cb=128:cr=128 -pix_fmt yuv420p -c:v libx264 -qp 1 -preset \
         veryfast -flags +ilme+ildct -x264-params tff=1 {}",
        path(&interlaced)
    ));
    for (method, sharp) in [("bob", false), ("adaptive", true), ("compensated", true)] {
        let bytes = virtual_gpu().bytes(
            &format!(
                "filesrc location={} ! qtdemux ! h264parse ! vah264dec ! vadeinterlace \
                 method={method} ! video/x-raw,format=NV12",
                path(&interlaced)
            ),
            &folder.path().join(method),
        );
        // In the middle of a frame in the middle of the clip.
        let frame = &bytes[20 * 320 * 360..];
        let contrast = frame[120 * 320 + 160].abs_diff(frame[121 * 320 + 160]);
        assert_eq!(contrast > 100, sharp, "{method}: contrast {contrast}");
    }
}

/// Luma of the pixel at a place of the first NV12 frame.
fn luma(frame: &[u8], width: usize, (x, y): (usize, usize)) -> u8 {
    frame[y * width + x]
}

#[test]
fn compositing_blends_and_places() {
    let folder = folder();
    let caps = |width: u32, height: u32, format: &str| {
        format!("video/x-raw,format={format},width={width},height={height},framerate=24/1")
    };
    let frame = virtual_gpu().bytes(
        &format!(
            "vacompositor name=c sink_1::xpos=100 sink_1::ypos=50 sink_1::width=160 \
             sink_1::height=90 sink_1::alpha=0.5 sink_2::xpos=300 sink_2::ypos=200 ! {} ! \
             identity eos-after=3 ! filesink location={} \
             videotestsrc num-buffers=4 pattern=black ! {} ! c.sink_0 \
             videotestsrc num-buffers=4 pattern=white ! {} ! c.sink_1 \
             videotestsrc num-buffers=4 pattern=solid-color foreground-color=0x40ffffff ! {} ! \
             c.sink_2 videotestsrc num-buffers=1 ! fakesink videotestsrc num-buffers=1",
            caps(640, 360, "NV12"),
            path(&folder.path().join("blended")),
            caps(640, 360, "NV12"),
            caps(320, 180, "NV12"),
            caps(64, 64, "BGRA"),
        ),
        &folder.path().join("unused"),
    );
    assert!(!frame.is_empty());
    let frame = std::fs::read(folder.path().join("blended")).expect("the pictures");
    let at = |x, y| luma(&frame, 640, (x, y));
    assert_eq!(at(20, 20), 16, "beside all");
    // Half of white, 235, and half of black.
    assert!(at(180, 95).abs_diff(126) <= 2, "half white: {}", at(180, 95));
    assert_eq!(at(98, 95), 16, "left of the white picture");
    assert_eq!(at(262, 95), 16, "right of the white picture");
    // A quarter of white: alpha 0x40 of each pixel.
    assert!(at(330, 230).abs_diff(71) <= 2, "a quarter white: {}", at(330, 230));
}

/// PQ of SMPTE ST 2084, written down here again so that the test doesn't share the driver's.
fn pq(light: f64) -> f64 {
    let power = (light / 10_000.0).powf(2610.0 / 16_384.0);
    let above = 3424.0 / 4096.0 + 2413.0 / 128.0 * power;
    (above / (1.0 + 2392.0 / 128.0 * power)).powf(2523.0 / 32.0)
}

#[test]
fn tone_mapping_takes_hdr10_to_sdr() {
    // Columns of grey of these luminances in cd/m2; the source's peak is 1000, the target's 203.
    let patches = [0.0, 5.0, 20.0, 50.0, 100.0, 203.0, 500.0, 1000.0];
    let (width, height) = (640usize, 360usize);
    let folder = folder();
    let mut picture = Vec::new();
    for _ in 0..height {
        for x in 0..width {
            let value = 64.0 + 876.0 * pq(patches[x * patches.len() / width]);
            picture.extend((value.round() as u16).to_le_bytes());
        }
    }
    for _ in 0..width * height / 2 {
        picture.extend(512u16.to_le_bytes());
    }
    let raw = folder.path().join("hdr.yuv");
    std::fs::write(&raw, picture.repeat(5)).expect("space for a clip");
    let clip = folder.path().join("hdr.mp4");
    let colours = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:hdr10=1";
    let display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)\
                   L(10000000,50):max-cll=1000,400";
    ffmpeg(&format!(
        "-v error -f rawvideo -pix_fmt yuv420p10le -s {width}x{height} -r 24 -i {} -c:v libx265 \
         -x265-params log-level=error:qp=4:{colours}:{display} {}",
        path(&raw),
        path(&clip)
    ));
    // GStreamer refuses tone mapping together with a change of colorimetry, and without a word on
    // it picks another one: the output has to be called what the input is.
    let mapped = virtual_gpu().bytes(
        &format!(
            "filesrc location={} ! qtdemux ! h265parse ! vah265dec ! \
             video/x-raw(memory:VAMemory) ! vapostproc hdr-tone-mapping=true ! \
             video/x-raw,format=P010_10LE,colorimetry=bt2100-pq",
            path(&clip)
        ),
        &folder.path().join("sdr"),
    );
    let grey = |patch: usize, plane: usize| {
        let x = (2 * patch + 1) * width / patches.len() / 2;
        let offset = 2 * (plane + (height / 2) * width + x);
        f64::from(u16::from_le_bytes([mapped[offset], mapped[offset + 1]]) >> 6)
    };
    let light = |patch: usize| ((grey(patch, 0) - 64.0) / 876.0).max(0.0).powf(2.4) * 203.0;
    let measured: Vec<_> = (0..patches.len()).map(light).collect();
    // Below the knee (about 36 cd/m2 here) light stays; the peak becomes white.
    for (patch, expected) in [(1, 5.0), (2, 20.0), (7, 203.0)] {
        let relative = (measured[patch] - expected).abs() / expected;
        assert!(relative < 0.06, "{} cd/m2 became {measured:?}", patches[patch]);
    }
    assert!(measured[0] < 0.1, "black became {measured:?}");
    assert!(measured.is_sorted(), "{measured:?}");
    // Between knee and peak highlights are compressed, not clipped.
    assert!(measured[5] < 160.0 && measured[6] < 200.0, "{measured:?}");
    // Grey stays grey: chroma of the plane that follows luma's.
    let chroma = &mapped[2 * width * height..3 * width * height];
    for sample in chroma.chunks_exact(2) {
        let value = u16::from_le_bytes([sample[0], sample[1]]) >> 6;
        assert!(value.abs_diff(512) <= 6, "chroma {value}");
    }
}
