//! Intel's own VA-API drivers on a virtual UHD 630.
//!
//! What they report is real: tables, negotiation and configurations are the drivers' own. Nothing is
//! executed, so no frame ever comes out, which is what `usable` has to notice.

use std::path::{Path, PathBuf};

use gpu::advice::Code;
use gpu::{Capabilities, Entrypoint, NodeReport, Operation, Outcome};
use hwtest_suite::{VirtualMachine, built, text};

/// A folder of what `./dev hwtest` has fetched.
fn fetched(folder: &str) -> PathBuf {
    let root = std::env::var_os("RENDERGATE_VA_DRIVERS")
        .expect("expected RENDERGATE_VA_DRIVERS, where Intel's drivers are: run ./dev hwtest");
    let path = Path::new(&root).join(folder);
    assert!(path.exists(), "expected {}: run ./dev hwtest", path.display());
    path
}

/// UHD 630s with the drivers of one package.
fn intel(package: &str, nodes: &str) -> VirtualMachine {
    let mut machine = VirtualMachine::new(&[("RENDERNODE_FACE", "i915")]);
    machine.set("RENDERNODE_COUNT", nodes);
    machine.set("LIBVA_DRIVERS_PATH", &fetched(package).display().to_string());
    machine.set("LD_LIBRARY_PATH", &fetched("lib").display().to_string());
    machine
}

fn capabilities(node: &NodeReport) -> &Capabilities {
    let probe = node.probe.as_ref().expect("the probe process has answered");
    probe.vaapi.as_ref().unwrap_or_else(|failure| panic!("{failure:?}"))
}

fn codes(node: &NodeReport) -> Vec<Code> {
    node.advice.iter().map(|advice| advice.code).collect()
}

#[test]
fn programs_of_the_system_see_the_driver() {
    let machine = intel("iHD-full", "1");
    let arguments = ["--display", "drm", "--device", "/dev/dri/renderD128"];
    let list = text(&machine.run("vainfo", &arguments));
    let has = |profile: &str, entrypoint: &str| {
        list.lines().any(|line| {
            line.trim()
                .split_once(':')
                .is_some_and(|(left, right)| (left.trim(), right.trim()) == (profile, entrypoint))
        })
    };
    assert!(has("VAProfileVP9Profile0", "VAEntrypointVLD"), "{list}");
    assert!(!has("VAProfileVP9Profile0", "VAEntrypointEncSlice"), "{list}");
    assert!(has("VAProfileHEVCMain10", "VAEntrypointEncSlice"), "{list}");

    let list = text(&machine.run("gst-inspect-1.0", &["va"]));
    for element in ["vah264enc", "vah264lpenc", "vah265enc", "vavp9dec", "vapostproc"] {
        assert!(list.contains(&format!("  {element}: ")), "{list}");
    }
}

#[test]
fn the_full_driver_reports_a_uhd_630() {
    let machine = intel("iHD-full", "1").probe();
    let found = capabilities(&machine.nodes[0]);
    assert!(found.reports("VP9Profile0", &Entrypoint::Decode));
    assert!(!found.reports("VP9", &Entrypoint::Encode));
    assert!(!found.reports("VP9", &Entrypoint::EncodeLowPower));
    assert!(!found.reports("AV1", &Entrypoint::Decode));
    assert!(found.reports("HEVCMain10", &Entrypoint::Encode));
    // Each version of the driver has its tables; a new one asks for a look at the difference.
    let version = found.vendor.rsplit(" - ").next().unwrap_or_default();
    let version = version.split(' ').next().unwrap_or_default().to_owned();
    insta::with_settings!({ snapshot_suffix => version, omit_expression => true }, {
        insta::assert_snapshot!(table(found));
    });
}

/// One line per entry, so that a difference is one line too.
fn table(found: &Capabilities) -> String {
    let mut lines: Vec<String> = vec![found.vendor.clone()];
    for entry in &found.entries {
        let size = entry.max_size.map_or("?".into(), |(width, height)| format!("{width}x{height}"));
        let mut line =
            format!("{} {}: {size} {}", entry.profile, entry.entrypoint, entry.formats.join(" "));
        if !entry.rate_control.is_empty() {
            line = format!("{line}; {}", entry.rate_control.join(" "));
        }
        lines.push(line);
    }
    let processing = found.processing.as_ref().expect("the full driver has processing");
    lines.push(format!("filters: {}", processing.filters.join(" ")));
    lines.push(format!("deinterlacing: {}", processing.deinterlacing.join(" ")));
    lines.push(format!("tone mapping: {}", processing.tone_mapping.join(" ")));
    lines.push(format!("rotation: {:?}", processing.rotation));
    lines.push(format!("blend: {}", processing.blend.join(" ")));
    lines.join("\n")
}

#[test]
fn reported_is_not_usable() {
    let machine = intel("iHD-full", "1").probe();
    assert!(!machine.usable);
    let node = &machine.nodes[0];
    assert_eq!(codes(node), [Code::NothingWorks]);
    let operations: Vec<_> = node.trials.iter().map(|trial| trial.operation).collect();
    for operation in [
        Operation::DecodeH264,
        Operation::DecodeVp9,
        Operation::EncodeH264,
        Operation::EncodeHevc,
        Operation::Scale,
        Operation::Turn,
        Operation::ToneMap,
    ] {
        assert!(operations.contains(&operation), "{operation} is reported, but wasn't tried");
    }
    for trial in &node.trials {
        let Outcome::Failed { reason } = &trial.outcome else { panic!("{trial:?}") };
        let expected = match trial.operation {
            Operation::EncodeH264
            | Operation::EncodeH264LowPower
            | Operation::EncodeHevc
            | Operation::EncodeHevcLowPower => "0 of 8 frames came out",
            Operation::Turn => "turned by 90r: frame 0",
            _ => "frame 0",
        };
        assert!(reason.starts_with(expected), "{trial:?}");
        assert!(trial.element.is_some(), "{trial:?}");
    }
}

#[test]
fn elements_belong_to_the_node_they_work_on() {
    let machine = intel("iHD-full", "2").probe();
    let [first, second] = &machine.nodes[..] else { panic!("{machine:?}") };
    let elements = |node: &NodeReport| node.probe.as_ref().unwrap().elements.clone();
    let (first, second) = (elements(first), elements(second));
    // Which of the two has the short names is udev's choice.
    let mut both = [first, second];
    both.sort();
    let [short, long] = both;
    assert!(short.iter().any(|name| name == "vah264enc"), "{short:?}");
    assert!(short.iter().all(|name| !name.contains("renderD")), "{short:?}");
    assert!(long.iter().any(|name| name.ends_with("h264enc")), "{long:?}");
    assert!(long.iter().all(|name| name.contains("renderD")), "{long:?}");
    assert_eq!(short.len(), long.len());
}

#[test]
fn the_free_driver_is_told_by_what_it_lacks() {
    let machine = intel("iHD-free", "1").probe();
    let found = capabilities(&machine.nodes[0]);
    assert_eq!(found.processing, None);
    assert!(!found.reports("HEVC", &Entrypoint::Encode));
    assert!(!found.reports("H264", &Entrypoint::Encode));
    let all = codes(&machine.nodes[0]);
    assert!(all.contains(&Code::FreeIntelDriver), "{all:?}");
    assert!(all.contains(&Code::LowPowerFails), "{all:?}");
}

#[test]
fn the_older_driver_loads_too() {
    let mut machine = intel("i965", "1");
    machine.set("LIBVA_DRIVER_NAME", "i965");
    let output = machine.run(built("rendergate-worker"), &["--probe-node", "/dev/dri/renderD128"]);
    let probe: gpu::NodeProbe = serde_json::from_str(&text(&output)).unwrap();
    let found = probe.vaapi.unwrap_or_else(|failure| panic!("{failure:?}"));
    assert!(
        found.vendor.contains("Intel i965 driver for Intel(R) Coffee Lake"),
        "{}",
        found.vendor
    );
    assert!(found.reports("H264High", &Entrypoint::Encode));
}

#[test]
fn a_gpu_that_goes_while_its_driver_starts() {
    let mut machine = intel("iHD-full", "1");
    // Enough to be named, too few to start the driver.
    machine.set("RENDERNODE_FAULT", "gone:6");
    let machine = machine.probe();
    let node = &machine.nodes[0];
    assert_eq!(node.node.driver.as_deref(), Some("i915"));
    assert!(!machine.usable);
    let all = codes(node);
    assert!(all.contains(&Code::VaDriverRefused) || all.contains(&Code::ProbeFailed), "{node:?}");
}
