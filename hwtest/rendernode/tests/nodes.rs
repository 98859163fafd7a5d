//! `gpu::render_nodes` and programs of the system see the nodes that the library shows.
//!
//! The library works from a process's start, so this program runs itself again with it preloaded:
//! `child` prints what `gpu` finds.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("child") {
        let nodes = gpu::render_nodes().expect("/dev/dri can be listed");
        println!("{}", serde_json::to_string(&nodes).expect("nodes have a JSON form"));
        return ExitCode::SUCCESS;
    }
    one_software_node_by_default();
    makers_side_by_side();
    no_permission();
    gone();
    no_node_at_all();
    programs_of_the_system_see_a_device();
    a_wrong_setting_ends_the_program();
    println!("7 checks passed");
    ExitCode::SUCCESS
}

/// Cargo puts the library beside this program or one folder up.
fn library() -> PathBuf {
    let program = std::env::current_exe().expect("a program has a path");
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("librendernode.so"))
        .find(|path| path.exists())
        .expect("librendernode.so beside the test: run `cargo build -p rendernode`")
}

fn run(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(program)
        .args(arguments)
        .env("LD_PRELOAD", library())
        .envs(variables.iter().copied())
        .output()
        .unwrap_or_else(|error| panic!("{} can't be run: {error}", program.display()))
}

/// What the child finds, as JSON.
fn nodes(variables: &[(&str, &str)]) -> serde_json::Value {
    let program = std::env::current_exe().expect("a program has a path");
    let output = run(&program, &["child"], variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the child prints JSON")
}

fn one_software_node_by_default() {
    let nodes = nodes(&[]);
    assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes}");
    assert_eq!(nodes[0]["path"], "/dev/dri/renderD128");
    assert_eq!(nodes[0]["driver"], "softva");
    assert_eq!(nodes[0]["pci"]["vendor"], 0xfffe);
    assert!(nodes[0]["problem"].is_null(), "{nodes}");
}

fn makers_side_by_side() {
    let nodes = nodes(&[("RENDERNODE_FACES", "i915,softva")]);
    assert_eq!(nodes[0]["driver"], "i915");
    assert_eq!(nodes[0]["pci"]["device"], 0x3e92);
    assert_eq!(nodes[1]["path"], "/dev/dri/renderD129");
    assert_eq!(nodes[1]["driver"], "softva");
}

fn no_permission() {
    let nodes = nodes(&[("RENDERNODE_COUNT", "2"), ("RENDERNODE_FAULT", "no-permission@129")]);
    assert_eq!(nodes[0]["driver"], "softva");
    assert!(nodes[1]["driver"].is_null(), "{nodes}");
    assert_eq!(nodes[1]["problem"]["kind"], "permission_denied", "{nodes}");
}

fn gone() {
    let nodes = nodes(&[("RENDERNODE_FAULT", "gone")]);
    assert!(nodes[0]["driver"].is_null(), "{nodes}");
}

fn no_node_at_all() {
    assert_eq!(nodes(&[("RENDERNODE_COUNT", "0")]), serde_json::json!([]));
}

fn programs_of_the_system_see_a_device() {
    let output = run(Path::new("stat"), &["-c", "%F %t:%T", "/dev/dri/renderD128"], &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "character special file e2:80\n");
    let output = run(Path::new("ls"), &["/dev/dri"], &[("RENDERNODE_COUNT", "2")]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "renderD128\nrenderD129\n");
    let output = run(Path::new("realpath"), &["/sys/dev/char/226:128/device"], &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/sys/devices/pci0fff:00/0fff:00:02.0\n");
}

fn a_wrong_setting_ends_the_program() {
    let output = run(Path::new("true"), &[], &[("RENDERNODE_FACE", "nvidia")]);
    assert_eq!(output.status.code(), Some(127));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("'nvidia', expected softva or i915"), "{message}");
}
