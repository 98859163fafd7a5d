//! Two GPUs of different makers: which stream runs where.
//!
//! The one is a node of the software driver, the other Intel's by kernel driver and PCI id, behind
//! which the same software driver stands under the name of Intel's.

mod gateway;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Child;

use gateway::{Node, film};
use gpu::Operation;
use hwtest_suite::{VirtualMachine, built};

const FIRST: &str = "/dev/dri/renderD128";
const SECOND: &str = "/dev/dri/renderD129";

fn machine() -> VirtualMachine {
    let mut machine = gateway::machine();
    machine.set("RENDERNODE_FACES", "softva,i915");
    symlink(built("libsoftva.so"), machine.no_drivers().join("iHD_drv_video.so")).unwrap();
    machine
}

/// A gateway that has looked at both.
fn node(machine: &VirtualMachine, probes: &str) -> Node {
    let node = Node::spawn(machine, "auto", "");
    node.probes(probes);
    node.until("both GPUs are known", || node.log().matches("works=").count() == 2);
    node
}

/// The nodes that streams have run on, in the order of their start.
fn nodes(node: &Node) -> Vec<String> {
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains("running backend="));
    let device = |line: &str| {
        let rest = line.split("device=").nth(1).unwrap_or_default();
        rest.split_whitespace().next().unwrap_or_default().to_owned()
    };
    lines.map(device).collect()
}

/// The nodes that a process has open, each once.
fn opened_nodes(pid: u64) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    let name = |target: PathBuf| {
        let name = target.to_str()?.strip_prefix("/memfd:")?.strip_suffix(" (deleted)")?.to_owned();
        name.starts_with("renderD").then_some(name)
    };
    let mut names: Vec<_> = targets.filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

/// A key, as Jellyfin presses it.
fn press(hook: &mut Child, key: &[u8]) {
    hook.stdin.as_mut().unwrap().write_all(key).unwrap();
}

#[test]
fn streams_are_spread_and_run_on_the_node_they_say() {
    let machine = machine();
    let probed = machine.probe();
    let makers: Vec<_> = probed.nodes.iter().map(|node| node.node.driver.clone()).collect();
    assert_eq!(makers, [Some("softva".to_owned()), Some("i915".to_owned())]);
    let node = node(&machine, "");
    let film = film();
    // Paused, so that both are there to be looked at.
    let mut first = node.play(&film, 0);
    press(&mut first, b"p");
    let mut second = node.play(&film, 1);
    press(&mut second, b"p");
    let streams = node.streams();
    let on = |device: &str| streams.iter().find(|stream| stream["device"] == device);
    for (device, opened) in [(FIRST, "renderD128"), (SECOND, "renderD129")] {
        let stream = on(device).unwrap_or_else(|| panic!("{streams:?}"));
        assert_eq!(opened_nodes(stream["worker_pid"].as_u64().unwrap()), [opened], "{stream}");
    }
    for (viewer, child) in [&mut first, &mut second].into_iter().enumerate() {
        press(child, b"u");
        assert!(node.ended(child).success(), "{}\n{}", node.said(viewer), node.log());
        assert_eq!(node.whole_segments(viewer), gateway::SEGMENTS);
        let encoder = probed.nodes[viewer].device().unwrap().abilities[&Operation::EncodeH264]
            .element
            .clone();
        let said = node.said(viewer);
        assert!(said.contains(&format!(" {encoder},")), "not by {encoder}: {said}");
    }
    assert_eq!(nodes(&node), [FIRST, SECOND], "{}", node.log());
}

#[test]
fn the_gpu_that_can_do_all_of_it_before_the_one_that_is_free() {
    let machine = machine();
    let node = node(
        &machine,
        "[ \"$2\" = /dev/dri/renderD129 ] || export SOFTVA_FAULT=lie-caps:h264-encode",
    );
    let film = film();
    let mut viewers = [node.play(&film, 0), node.play(&film, 1)];
    assert_eq!(nodes(&node), [SECOND, SECOND], "{}", node.log());
    for child in &mut viewers {
        assert!(node.ended(child).success(), "{}", node.log());
    }
    node.metric("rendergate_streams_started_total{backend=\"vaapi\",reason=\"none\"} 2");
}

#[test]
fn without_permission_streams_run_in_software_and_say_which_group_to_join() {
    let mut machine = machine();
    machine.set("RENDERNODE_FAULT", "no-permission");
    let node = Node::spawn(&machine, "auto", "");
    let denied = "permission denied: it belongs to the group";
    node.until("both nodes are refused", || node.log().matches(denied).count() == 2);
    let said = node.plays(&film(), 0);
    assert!(said.contains("software (") && said.contains(denied), "{said}");
    node.metric("rendergate_streams_started_total{backend=\"software\",reason=\"broken\"} 1");
    node.metric("rendergate_gpu_works{device=\"/dev/dri/renderD128\"} 0");
}
