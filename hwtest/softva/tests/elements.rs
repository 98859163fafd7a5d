//! libva and GStreamer take the driver, and see in it what it can do.

mod common;

use common::{text, virtual_gpu};

#[test]
fn gstreamer_registers_every_element() {
    let gpu = virtual_gpu();
    let output = gpu.output(gpu.command("gst-inspect-1.0").arg("va"));
    let listed = text(&output.stdout);
    for element in [
        "vah264dec",
        "vah264enc",
        "vah265dec",
        "vah265enc",
        "vavp9dec",
        "vampeg2dec",
        "vapostproc",
        "vadeinterlace",
        "vacompositor",
    ] {
        assert!(listed.contains(element), "{element} in\n{listed}");
    }
}

#[test]
fn encoders_offer_three_rate_controls() {
    let gpu = virtual_gpu();
    for encoder in ["vah264enc", "vah265enc"] {
        let output = gpu.output(gpu.command("gst-inspect-1.0").arg(encoder));
        let properties = text(&output.stdout);
        for mode in ["cbr", "vbr", "cqp"] {
            assert!(properties.contains(&format!(": {mode} ")), "{encoder} {mode}\n{properties}");
        }
    }
}

#[test]
fn the_postprocessor_has_its_filters() {
    let gpu = virtual_gpu();
    let output = gpu.output(gpu.command("gst-inspect-1.0").arg("vapostproc"));
    let properties = text(&output.stdout);
    assert!(properties.contains("hdr-tone-mapping") && properties.contains("video-direction"));
    let output = gpu.output(gpu.command("gst-inspect-1.0").arg("vadeinterlace"));
    let properties = text(&output.stdout);
    for method in ["bob", "adaptive", "compensated"] {
        assert!(properties.contains(&format!(": {method} ")), "{method}\n{properties}");
    }
}

#[test]
fn vainfo_lists_the_profiles() {
    let gpu = virtual_gpu();
    let mut command = gpu.command("vainfo");
    command.args(["--display", "drm", "--device", "/dev/dri/renderD128"]);
    let output = gpu.output(&mut command);
    let listed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (profile, entrypoint) in [
        ("VAProfileH264High", "VAEntrypointVLD"),
        ("VAProfileH264High", "VAEntrypointEncSlice"),
        ("VAProfileHEVCMain10", "VAEntrypointVLD"),
        ("VAProfileHEVCMain10", "VAEntrypointEncSlice"),
        ("VAProfileVP9Profile2", "VAEntrypointVLD"),
        ("VAProfileMPEG2Main", "VAEntrypointVLD"),
        ("VAProfileNone", "VAEntrypointVideoProc"),
    ] {
        let found =
            listed.lines().any(|line| line.contains(profile) && line.trim().ends_with(entrypoint));
        assert!(found, "{profile} {entrypoint} in\n{listed}");
    }
}
