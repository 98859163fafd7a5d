//! `rendergate probe` on nodes that are there and no good.

use gpu::advice::Code;
use gpu::{Outcome, Problem, VaapiFailure};
use hwtest_suite::{VirtualMachine, built, text};

#[test]
fn no_node() {
    let machine = VirtualMachine::new(&[("RENDERNODE_COUNT", "0")]).probe();
    assert!(!machine.usable);
    assert!(machine.nodes.is_empty());
    // Which one depends on the machine that runs the test.
    assert_eq!(machine.advice.len(), 1, "{:?}", machine.advice);
}

#[test]
fn no_permission() {
    let machine = VirtualMachine::new(&[("RENDERNODE_FAULT", "no-permission")]).probe();
    let [node] = &machine.nodes[..] else { panic!("{machine:?}") };
    let Some(Problem::PermissionDenied { group }) = &node.node.problem else { panic!("{node:?}") };
    assert_eq!(node.advice[0].code, Code::NoPermission);
    assert!(node.advice[0].remedy.contains(&format!("usermod -aG {group}")), "{node:?}");
    assert!(!machine.usable);
}

#[test]
fn a_device_that_is_gone() {
    let machine = VirtualMachine::new(&[("RENDERNODE_FAULT", "gone")]).probe();
    assert_eq!(machine.nodes[0].node.problem, Some(Problem::NoDevice));
    assert_eq!(machine.nodes[0].advice[0].code, Code::NoDevice);
}

#[test]
fn no_driver_of_either_maker() {
    let machine = VirtualMachine::new(&[("RENDERNODE_FACES", "i915,softva")]).probe();
    let drivers = ["iHD_drv_video.so", "softva_drv_video.so"];
    let packages = ["intel-media-va-driver-non-free", "softva_drv_video.so"];
    assert_eq!(machine.nodes.len(), 2);
    for (node, (driver, package)) in machine.nodes.iter().zip(drivers.iter().zip(packages)) {
        let probe = node.probe.as_ref().unwrap();
        let Err(VaapiFailure::NoDriver { tried }) = &probe.vaapi else { panic!("{probe:?}") };
        assert!(tried.iter().any(|path| path.ends_with(driver)), "{tried:?}");
        let advice = node.advice.iter().find(|advice| advice.code == Code::NoVaDriver);
        assert!(advice.unwrap().remedy.contains(package), "{advice:?}");
        assert!(matches!(node.state, Outcome::Failed { .. }));
    }
}

#[test]
fn one_driver_forced_upon_two_makers() {
    let variables = [("RENDERNODE_FACES", "i915,softva"), ("LIBVA_DRIVER_NAME", "iHD")];
    let machine = VirtualMachine::new(&variables).probe();
    assert_eq!(machine.advice[0].code, Code::ForcedDriver);
}

#[test]
fn the_table_ends_in_a_verdict() {
    let machine = VirtualMachine::new(&[("RENDERNODE_FACE", "i915")]);
    let output = machine.run(built("rendergate"), &["probe"]);
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8_lossy(&output.stdout);
    let first = "/dev/dri/renderD128: Intel 8086:3e92, kernel driver i915: not usable";
    assert_eq!(table.lines().next(), Some(first));
    assert!(table.contains("! no VA-API driver is installed; looked for "), "{table}");
    assert!(table.lines().last().unwrap().starts_with("Not usable: "), "{table}");
}

#[test]
fn only_the_answer_is_on_the_probe_process_s_standard_output() {
    let mut machine = VirtualMachine::new(&[]);
    // Stands for a driver that prints: GStreamer's log, to what it takes for standard output.
    machine.set("GST_DEBUG", "GST_INIT:4");
    machine.set("GST_DEBUG_FILE", "/dev/stdout");
    machine.set("GST_DEBUG_NO_COLOR", "1");
    let worker = built("rendergate-worker");
    let output = machine.run(worker, &["--probe-node", "/dev/dri/renderD128"]);
    let answer = text(&output);
    assert_eq!(answer.lines().count(), 1, "{answer}");
    assert!(serde_json::from_str::<gpu::NodeProbe>(&answer).is_ok(), "{answer}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("GST_INIT"), "{errors}");
}
