//! Every text, from inputs made up.

use super::*;
use crate::nodes::PciId;
use crate::report::{Entry, Processing};

fn node(driver: &str, vendor: u16) -> RenderNode {
    RenderNode {
        path: "/dev/dri/renderD128".into(),
        driver: Some(driver.into()),
        pci: Some(PciId { vendor, device: 0x3e92 }),
        problem: None,
    }
}

fn entry(profile: &str, entrypoint: Entrypoint, rate_control: &[&str]) -> Entry {
    Entry {
        profile: profile.into(),
        entrypoint,
        max_size: None,
        formats: Vec::new(),
        rate_control: rate_control.iter().map(|mode| (*mode).into()).collect(),
    }
}

/// Intel's full driver on a chip with both encoders.
fn probe() -> NodeProbe {
    NodeProbe {
        gstreamer: "1.22.0".into(),
        va_plugin: true,
        elements: vec!["vah264enc".into()],
        vaapi: Ok(Capabilities {
            vendor: "Intel iHD driver for Intel(R) Gen Graphics - 23.1.1 ()".into(),
            version: "1.17".into(),
            entries: vec![
                entry("H264High", Entrypoint::Encode, &["CBR", "VBR", "CQP"]),
                entry("H264High", Entrypoint::EncodeLowPower, &["CBR", "VBR", "CQP"]),
            ],
            processing: Some(Processing::default()),
        }),
    }
}

fn capabilities(probe: &mut NodeProbe) -> &mut Capabilities {
    probe.vaapi.as_mut().expect("the probe above has capabilities")
}

fn trial(operation: Operation, outcome: Outcome) -> Trial {
    Trial { operation, element: None, outcome }
}

fn failed() -> Outcome {
    Outcome::Failed { reason: "x".into() }
}

#[track_caller]
fn check(all: Vec<Advice>, code: Code, found: &str, remedy: &str) {
    let [one] = &all[..] else { panic!("one piece of advice, got {all:#?}") };
    assert_eq!(one.code, code);
    assert!(one.found.contains(found), "{one:#?}");
    assert!(one.remedy.contains(remedy), "{one:#?}");
}

#[test]
fn a_good_node_needs_no_advice() {
    let trials = [trial(Operation::EncodeH264, Outcome::Usable)];
    assert_eq!(for_node(&node("i915", INTEL), Some(&probe()), &trials), []);
    assert_eq!(for_machine(&[node("i915", INTEL)], &Facts::default()), []);
}

#[test]
fn no_gpu() {
    let facts = Facts { drm: true, ..Facts::default() };
    check(for_machine(&[], &facts), Code::NoGpu, "no display controller", "pass the GPU");
}

#[test]
fn cloud_kernel() {
    let mut facts = Facts {
        kernel: "6.1.0-25-cloud-amd64".into(),
        controllers: vec![PciId { vendor: INTEL, device: 0x3e92 }],
        ..Facts::default()
    };
    let code = Code::KernelWithoutDrm;
    check(for_machine(&[], &facts), code, "6.1.0-25-cloud-amd64 has no DRM", "linux-image-amd64");
    facts.kernel = "6.1.0-25-amd64".into();
    check(for_machine(&[], &facts), code, "8086:3e92", "modprobe i915");
    facts.drm = true;
    check(for_machine(&[], &facts), Code::NoKernelDriver, "8086:3e92", "lspci -k");
}

#[test]
fn nodes_outside_of_the_container() {
    let facts = Facts { kernel_nodes: 1, drm: true, ..Facts::default() };
    check(for_machine(&[], &facts), Code::NodesNotPassedIn, "1 render node", "--device /dev/dri");
}

#[test]
fn one_driver_for_two_makers() {
    let facts = Facts { forced_driver: Some("iHD".into()), ..Facts::default() };
    let nodes = [node("i915", INTEL), node("amdgpu", 0x1002)];
    check(for_machine(&nodes, &facts), Code::ForcedDriver, "amdgpu, i915", "unset it");
    assert_eq!(for_machine(&nodes[..1], &facts), []);
}

#[test]
fn permission() {
    let problem = Some(Problem::PermissionDenied { group: "render".into() });
    let node = RenderNode { problem, driver: None, ..node("i915", INTEL) };
    let code = Code::NoPermission;
    check(for_node(&node, None, &[]), code, "the group render", "usermod -aG render");
}

#[test]
fn leftover_file() {
    let node = RenderNode { problem: Some(Problem::NoDevice), driver: None, ..node("", 0) };
    check(for_node(&node, None, &[]), Code::NoDevice, "no DRM driver", "remove it");
}

#[test]
fn libva_is_missing() {
    let failure = VaapiFailure::NoLibrary { message: "libva.so.2: cannot open".into() };
    let probe = NodeProbe { vaapi: Err(failure), ..probe() };
    let all = for_node(&node("i915", INTEL), Some(&probe), &[]);
    check(all, Code::NoLibva, "libva.so.2: cannot open", "libva-drm2");
}

#[test]
fn the_va_driver_is_missing() {
    let failure = VaapiFailure::NoDriver { tried: vec!["/x/iHD_drv_video.so".into()] };
    let probe = NodeProbe { vaapi: Err(failure), ..probe() };
    let check = |driver: &str, vendor: u16, package: &str| {
        let all = for_node(&node(driver, vendor), Some(&probe), &[]);
        check(all, Code::NoVaDriver, "/x/iHD_drv_video.so", package);
    };
    check("i915", INTEL, "intel-media-va-driver-non-free");
    check("xe", INTEL, "intel-media-va-driver-non-free");
    check("amdgpu", 0x1002, "mesa-va-drivers");
    check("nvidia-drm", NVIDIA, "NVIDIA's own driver");
    check("softva", 0xfffe, "softva_drv_video.so");
}

#[test]
fn the_va_driver_refuses() {
    let failure = VaapiFailure::Refused { message: "resource allocation failed".into() };
    let probe = NodeProbe { vaapi: Err(failure), ..probe() };
    let all = for_node(&node("i915", INTEL), Some(&probe), &[]);
    check(all, Code::VaDriverRefused, "resource allocation failed", "right one for this GPU");
}

#[test]
fn free_driver_without_processing() {
    let mut probe = probe();
    capabilities(&mut probe).processing = None;
    let all = for_node(&node("i915", INTEL), Some(&probe), &[]);
    check(all, Code::FreeIntelDriver, "no scaling", "intel-media-va-driver-non-free");
    // Another maker's driver may just have none.
    assert_eq!(for_node(&node("amdgpu", 0x1002), Some(&probe), &[]), []);
}

#[test]
fn low_power_without_huc() {
    let mut probe = probe();
    let low_power = entry("H264High", Entrypoint::EncodeLowPower, &["CQP"]);
    capabilities(&mut probe).entries = vec![low_power];
    let all = for_node(&node("i915", INTEL), Some(&probe), &[]);
    check(all, Code::HucMissing, "neither CBR nor VBR", "i915.enable_guc=2");
}

#[test]
fn low_power_is_all_there_is_and_fails() {
    let mut probe = probe();
    capabilities(&mut probe).entries.remove(0);
    let decode = trial(Operation::DecodeH264, Outcome::Usable);
    let trials = [decode.clone(), trial(Operation::EncodeH264LowPower, failed())];
    let all = for_node(&node("i915", INTEL), Some(&probe), &trials);
    check(all, Code::LowPowerFails, "the only H.264 encode", "i915.enable_guc=2");
    let trials = [decode, trial(Operation::EncodeH264LowPower, Outcome::Usable)];
    assert_eq!(for_node(&node("i915", INTEL), Some(&probe), &trials), []);
}

#[test]
fn the_va_plugin_is_missing() {
    let probe = NodeProbe { va_plugin: false, elements: Vec::new(), ..probe() };
    let all = for_node(&node("i915", INTEL), Some(&probe), &[]);
    check(all, Code::NoVaPlugin, "1.22.0 has no `va` plugin", "gstreamer1.0-plugins-bad");
}

#[test]
fn gstreamer_does_not_know_the_driver() {
    let probe = NodeProbe { elements: Vec::new(), ..probe() };
    let all = for_node(&node("i915", INTEL), Some(&probe), &[]);
    check(all, Code::NoElements, "Intel iHD driver", "GST_VA_ALL_DRIVERS=1");
}

#[test]
fn nothing_works() {
    let trials = [trial(Operation::EncodeH264, failed())];
    let all = for_node(&node("i915", INTEL), Some(&probe()), &trials);
    check(all, Code::NothingWorks, "nothing that was tried", "dmesg");
}

#[test]
fn the_probe_process_died() {
    let all = vec![for_dead_probe("signal 11")];
    check(all, Code::ProbeFailed, "signal 11", "vainfo");
}
