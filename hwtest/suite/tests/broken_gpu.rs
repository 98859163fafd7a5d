//! A GPU that breaks while the gateway runs, goes away, or appears.

mod gateway;

use std::fs;
use std::path::PathBuf;

use gateway::{Node, film};

const NODE: &str = "/dev/dri/renderD128";

fn works(value: u8) -> String {
    format!("rendergate_gpu_works{{device=\"{NODE}\"}} {value}")
}

/// As a driver breaks for one stream, which goes on without it; the hook has ended.
fn break_a_stream(node: &Node, viewer: usize) {
    node.fault("SOFTVA_FAULT", "abort:160@encode");
    let mut unlucky = node.play(&film(), viewer);
    assert_eq!(node.ended(&mut unlucky).code(), Some(0), "{}", node.log());
}

#[test]
fn a_gpu_that_breaks_is_nobody_s_until_it_works_again() {
    let machine = gateway::machine();
    let node = Node::start(&machine, "auto", "");
    node.metric(&works(1));
    node.probes("export SOFTVA_FAULT=fail-end-picture:1");
    break_a_stream(&node, 0);
    assert!(node.log().contains("a stream failed on it"), "{}", node.log());
    node.metric(&works(0));
    let said = node.plays(&film(), 1);
    assert!(said.contains("software (/dev/dri/renderD128"), "{said}");
    assert!(said.contains("avdec_h264") && said.contains("x264enc"), "{said}");
    // The unlucky one, which went on there, and this one.
    node.metric("rendergate_streams_started_total{backend=\"software\",reason=\"broken\"} 2");
    node.probes("");
    node.metric(&works(1));
    assert!(node.plays(&film(), 2).contains("vah264enc"), "{}", node.log());
}

#[test]
fn a_driver_that_fails_one_stream_and_works_is_back_after_a_look() {
    let machine = gateway::machine();
    let node = Node::start(&machine, "auto", "");
    break_a_stream(&node, 0);
    node.until("it works again", || node.log().matches("works=").count() == 2);
    assert!(node.plays(&film(), 1).contains("vah264enc"), "{}", node.log());
}

#[test]
fn gpus_come_and_go() {
    let mut machine = gateway::machine();
    // Whatever shows the nodes has its files here, and here alone.
    let shown = tempfile::tempdir().unwrap();
    machine.set("TMPDIR", shown.path().to_str().unwrap());
    let node = Node::start(&machine, "auto", "");
    let root: PathBuf = fs::read_dir(shown.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("dev/dri").exists())
        .unwrap();
    let files = ["dev/dri/renderD128", "sys/class/drm/renderD128", "run/udev/data/c226:128"];
    let aside = shown.path().join("aside");
    fs::create_dir(&aside).unwrap();
    let kept = |file: &str| aside.join(file.replace('/', "-"));
    for file in files {
        fs::rename(root.join(file), kept(file)).unwrap();
    }
    node.metric(&works(0));
    assert!(node.log().contains("its node has gone"), "{}", node.log());
    let said = node.plays(&film(), 0);
    assert!(said.contains("software (/dev/dri/renderD128 has gone)"), "{said}");
    for file in files.iter().rev() {
        fs::rename(kept(file), root.join(file)).unwrap();
    }
    node.metric(&works(1));
    assert!(node.plays(&film(), 1).contains("vah264enc"), "{}", node.log());
}
