//! ffmpeg's own VA-API code as a second client: it fills the parameters in its own way, so what
//! works for it and for GStreamer isn't one client's habit.

mod common;

use std::path::Path;

use common::{ffmpeg, folder, path, pattern, reference, ssim, text, virtual_gpu};

/// Runs ffmpeg on the GPU.
fn on_gpu(trace: &Path, arguments: &str) -> Vec<u8> {
    let gpu = virtual_gpu();
    let mut command = gpu.command("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-y"]);
    command.args(["-vaapi_device", "/dev/dri/renderD128"]);
    command.args(arguments.split_whitespace()).env("SOFTVA_TRACE", trace);
    let output = gpu.output(&mut command);
    assert!(output.status.success(), "{arguments}\n{}", text(&output.stderr));
    output.stdout
}

fn pictures(trace: &Path, name: &str) -> usize {
    let trace = std::fs::read_to_string(trace).expect("a trace");
    trace.lines().filter(|line| line.contains(&format!("{name} picture"))).count()
}

#[test]
fn decoding_is_exact() {
    for (codec, name, encoder, planar, packed) in [
        ("mp4", "h264-decode", "libx264 -preset veryfast -bf 3", "yuv420p", "nv12"),
        (
            "mp4",
            "h264-decode",
            "libx264 -preset veryfast -flags +ilme+ildct -x264-params tff=1:cqm=jvt",
            "yuv420p",
            "nv12",
        ),
        (
            "mp4",
            "h265-decode",
            "libx265 -preset veryfast -x265-params log-level=error:scaling-list=default:keyint=9",
            "yuv420p",
            "nv12",
        ),
        (
            "mp4",
            "h265-decode",
            "libx265 -preset veryfast -x265-params log-level=error:slices=4",
            "yuv420p10le",
            "p010le",
        ),
        ("webm", "vp9-decode", "libvpx-vp9 -deadline realtime -cpu-used 8", "yuv420p", "nv12"),
        ("m2v", "mpeg2-decode", "mpeg2video -qscale:v 5 -bf 2", "yuv420p", "nv12"),
    ] {
        let folder = folder();
        let clip = folder.path().join(format!("clip.{codec}"));
        let source = pattern("640x360", "24", "1");
        ffmpeg(&format!("-v error {source} -pix_fmt {planar} -c:v {encoder} {}", path(&clip)));
        let trace = folder.path().join("trace");
        let decoded = on_gpu(
            &trace,
            &format!(
                "-hwaccel vaapi -hwaccel_output_format vaapi -i {} -fps_mode passthrough -vf \
                 hwdownload,format={packed} -f rawvideo -",
                path(&clip)
            ),
        );
        assert!(decoded == reference(&clip, packed), "{encoder}: {} bytes", decoded.len());
        // It wasn't decoded in software on the quiet.
        assert_eq!(pictures(&trace, name), 24, "{encoder}");
    }
}

#[test]
fn transcoding_scales_and_encodes() {
    for (encoder, name) in [("h264_vaapi", "h264-encode"), ("hevc_vaapi", "h265-encode")] {
        let folder = folder();
        let (clip, coded) = (folder.path().join("clip.mp4"), folder.path().join("coded.mp4"));
        let source = pattern("640x360", "24", "2");
        ffmpeg(&format!(
            "-v error {source} -pix_fmt yuv420p -c:v libx264 -preset veryfast -qp 10 {}",
            path(&clip)
        ));
        let trace = folder.path().join("trace");
        on_gpu(
            &trace,
            &format!(
                "-hwaccel vaapi -hwaccel_output_format vaapi -i {} -vf scale_vaapi=w=320:h=180 \
                 -c:v {encoder} -b:v 600k -maxrate 600k -g 24 {}",
                path(&clip),
                path(&coded)
            ),
        );
        for engine in ["h264-decode", "vpp", name] {
            assert_eq!(pictures(&trace, engine), 48, "{engine}");
        }
        let likeness = ssim(
            (&format!("-i {}", path(&clip)), "scale=320:180"),
            (&format!("-i {}", path(&coded)), "null"),
        );
        assert!(likeness > 0.95, "{encoder}: SSIM {likeness}");
        let rate = std::fs::metadata(&coded).expect("the stream").len() as f64 * 8.0 / 2000.0;
        assert!((420.0..720.0).contains(&rate), "{encoder}: {rate:.0} kbit/s");
    }
}
