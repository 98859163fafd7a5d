//! Ends of the gateway itself, and two of them on one socket.

mod common;

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use common::{Gateway, Setup, children, is_gone, kill, rendergate, until};
use rustix::process::Signal;
use session::{Ending, Fault};

#[test]
fn running_streams_may_finish() {
    let mut gateway = Gateway::ready("");
    let mut hook = gateway.hook("segments=20,every=20");
    hook.segment(5);
    kill(gateway.pid(), Signal::TERM);
    gateway.logged("shutting down");
    let reason = gateway.hook("").declined();
    assert!(reason.contains("shutting down"), "{reason}");
    let answer = gateway.get("/readyz");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("shutting down"), "{answer}");
    assert_eq!(hook.ended(), Ending::Complete);
    assert!(gateway.exited().success());
    assert!(!gateway.socket().exists());
    gateway.out_is_clean();
}

#[test]
fn after_the_drain_streams_write_their_last_segment() {
    let mut gateway = Gateway::ready("[shutdown]\ndrain_seconds = 0.2\n");
    let mut hook = gateway.hook("every=30");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    hook.segment(5);
    kill(gateway.pid(), Signal::INT);
    assert_eq!(hook.ended(), Ending::Quit);
    assert!(gateway.exited().success());
    assert!(is_gone(worker));
    gateway.out_is_clean();
}

#[test]
fn second_signal_ends_at_once() {
    let mut gateway = Gateway::ready("[shutdown]\ndrain_seconds = 3600\n");
    let mut hook = gateway.hook("mute-quit,ignore-eof");
    let worker = gateway.worker_of(hook.accepted()).unwrap();
    hook.segment(6);
    kill(gateway.pid(), Signal::TERM);
    gateway.logged("shutting down");
    kill(gateway.pid(), Signal::TERM);
    assert_eq!(hook.failed().0, Fault::Gateway);
    assert!(gateway.exited().success());
    assert!(is_gone(worker));
    gateway.out_is_clean();
}

#[test]
fn kill_leaves_no_worker_behind() {
    for script in ["", "mute-quit,ignore-eof", "hang"] {
        let mut gateway = Gateway::ready("[worker]\nwarm = 3\nrefill_seconds = 0\n");
        let mut hook = gateway.hook(script);
        hook.accepted();
        until("the pool is full again", || children(gateway.pid()).len() == 4);
        let workers = children(gateway.pid());
        kill(gateway.pid(), Signal::KILL);
        assert!(!gateway.exited().success());
        until("every worker is gone", || workers.iter().all(|worker| is_gone(*worker)));
        // The hook hears of it by the end of the connection.
        while hook.next().is_some() {}
        // A new gateway takes over the socket that was left.
        assert!(gateway.socket().exists());
        let folder = std::mem::replace(&mut gateway.folder, tempfile::tempdir().unwrap());
        let again = Gateway::start_in(folder, &Setup::default());
        again.logged("replacing a stale socket");
        assert_eq!(again.hook("segments=1,every=1").ended(), Ending::Complete);
    }
}

#[test]
fn second_gateway_is_refused_and_the_first_goes_on() {
    let gateway = Gateway::ready("");
    let output = rendergate()
        .args(["serve", "--http", "off", "--socket"])
        .arg(gateway.socket())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("another gateway"), "{message}");
    assert!(message.contains(&format!("pid {}", gateway.pid())), "{message}");
    assert_eq!(gateway.hook("segments=1,every=1").ended(), Ending::Complete);
}

#[test]
fn a_socket_that_is_another_programs_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s.sock");
    let _other = UnixListener::bind(&socket).unwrap();
    let output =
        rendergate().args(["serve", "--http", "off", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    UnixStream::connect(&socket).unwrap();
}

#[test]
fn a_port_in_use_is_named() {
    let gateway = Gateway::ready("");
    let folder = tempfile::tempdir().unwrap();
    let output = rendergate()
        .args(["serve", "--http", &gateway.http().to_string(), "--socket"])
        .arg(folder.path().join("s.sock"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(&gateway.http().to_string()), "{message}");
    assert!(message.contains("http.listen"), "{message}");
    assert!(!folder.path().join("s.sock").exists());
}
