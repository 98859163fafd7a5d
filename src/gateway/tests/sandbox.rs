//! What the gateway makes of the workers' sandbox. The fake worker says that it is half held in.

mod common;

use std::fs;

use common::{Gateway, Setup, until};
use serde_json::json;
use session::{Control, Ending};

#[test]
fn what_is_missing_is_warned_of_once_and_counted() {
    let gateway = Gateway::ready("");
    for _ in 0..2 {
        let mut hook = gateway.hook("");
        hook.segment(5);
        assert_eq!(gateway.json("/v1/streams")[0]["sandbox"], json!(["seccomp"]));
        hook.control(Control::Quit);
        assert_eq!(hook.ended(), Ending::Quit);
        gateway.idle();
    }
    gateway.metric("rendergate_worker_sandboxed{layer=\"landlock\"} 0");
    gateway.metric("rendergate_worker_sandboxed{layer=\"seccomp\"} 1");
    let line = gateway.logged("aren't held in by all of their sandbox");
    assert!(line.contains("a fake has none"), "{line}");
    let log = gateway.log.lock().unwrap();
    assert_eq!(log.iter().filter(|line| line.contains("a fake has none")).count(), 1);
}

#[test]
fn workers_are_told_the_settings() {
    let variables = [
        ("RENDERGATE_SANDBOX", "required"),
        ("RENDERGATE_SANDBOX_READ", "/opt/fonts:/opt/drivers"),
        ("RENDERGATE_SANDBOX_WRITE", ""),
    ];
    let gateway = Gateway::start(&Setup { variables: &variables, ..Setup::default() });
    until("the gateway is ready", || gateway.get("/readyz").starts_with("HTTP/1.1 200"));
    let mut hook = gateway.hook("");
    let stream = hook.accepted();
    let worker = gateway.worker_of(stream).expect("it has a worker");
    let environment = fs::read(format!("/proc/{worker}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    for variable in [
        "RENDERGATE_SANDBOX=required",
        "RENDERGATE_SANDBOX_READ=/opt/fonts:/opt/drivers",
        "RENDERGATE_SANDBOX_WRITE=",
    ] {
        let told = environment.split('\0').any(|line| line == variable);
        assert!(told, "{variable} is not in {environment}");
    }
}
