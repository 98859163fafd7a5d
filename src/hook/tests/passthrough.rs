//! Calls that end in the real ffmpeg: what it is given, and what is said about it.

mod common;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use common::{Hook, House, Left, file_url, replaced, wait_for, words};
use rustix::process::Signal;
use session::{Ending, Fault, GatewayToHook};

/// The recording ffmpeg ran with exactly these arguments, after one line for each of `reasons`.
#[track_caller]
fn check_real(house: &House, left: &Left, arguments: &[OsString], reason: Option<&str>) {
    assert_eq!(house.recorded_arguments().as_deref(), Some(arguments), "{}", left.stderr);
    assert_eq!(left.status.code(), Some(42));
    assert_eq!(left.stdout, "");
    let lines: Vec<_> =
        left.stderr.lines().filter(|line| line.starts_with("rendergate: ")).collect();
    let real = house.path("real");
    match reason {
        None => assert!(lines.is_empty(), "{lines:?}"),
        Some(reason) => {
            let last = lines.last().expect("a reason");
            assert!(last.contains(reason), "{last:?} says {reason:?}");
            assert!(last.contains(&format!("; running {}", real.display())), "{last}");
            let talk = lines.iter().filter(|line| line.contains("running")).count();
            assert_eq!(talk, 1, "{lines:?}");
        }
    }
}

#[track_caller]
fn check_call(arguments: &[&str], reason: Option<&str>) {
    let house = House::new();
    let arguments = words(arguments);
    let left = house.start(&arguments).left_after_input();
    check_real(&house, &left, &arguments, reason);
}

#[test]
fn probes_pass_without_a_word() {
    check_call(&["-version"], None);
    check_call(&["-h", "filter=scale_cuda"], None);
    check_call(&["-hwaccels"], None);
}

#[test]
fn other_jobs_pass_with_a_line() {
    check_call(&["-i", "file:/x.mkv", "-vframes", "1", "-f", "image2", "/y.jpg"], Some(""));
}

#[test]
fn arguments_are_handed_on_byte_by_byte() {
    use std::os::unix::ffi::OsStringExt;
    let house = House::new();
    let mut arguments = words(&["-dump_attachment:t", "", "-y", "", "a b\n\"c\\", ""]);
    arguments.push(OsString::from_vec(vec![0xff, 0x80, b'x']));
    let left = house.start(&arguments).left_after_input();
    assert_eq!(house.recorded_arguments().unwrap(), arguments);
    assert_eq!(left.status.code(), Some(42));
}

#[test]
fn stdin_signals_and_descriptors_are_handed_on() {
    let plain = House::new();
    let direct = |house: &House, arguments: &[OsString]| {
        let mut command = house.command("ffmpeg", arguments);
        let mut bare = std::process::Command::new(house.path("real/ffmpeg"));
        bare.args(arguments).env("RECORD", house.path("record"));
        bare.stdin(std::process::Stdio::piped());
        bare.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        std::mem::swap(&mut command, &mut bare);
        Hook::start(command)
    };
    let mut hook = direct(&plain, &plain.job());
    hook.keys("?uq\n");
    hook.left_after_input();

    // By way of a job that a gateway declines: everything has been changed by then.
    let house = House::new();
    let gateway = house.gateway();
    let mut hook = house.start(&house.job());
    let mut connection = gateway.connection();
    connection.job();
    connection.say(&GatewayToHook::Declined { reason: "full".to_owned() });
    wait_for("the real one", || house.recorded_arguments().is_some());
    hook.keys("?uq\n");
    let left = hook.left_after_input();
    check_real(&house, &left, &house.job(), Some("gateway declined: full"));
    for record in ["stdin", "signals", "stdin-flags", "descriptors"] {
        assert!(!plain.record(record).unwrap().is_empty(), "{record}");
        assert_eq!(
            String::from_utf8(house.record(record).unwrap()),
            String::from_utf8(plain.record(record).unwrap()),
            "{record}"
        );
    }
}

#[test]
fn for_want_of_room_the_real_one_steps_aside() {
    let own = rustix::process::getpriority_process(None).unwrap();
    for (niceness, expect) in [(None, own), (Some(7), (own + 7).min(19)), (Some(255), 19)] {
        let house = House::new();
        let gateway = house.gateway();
        let hook = house.start(&house.job());
        let mut connection = gateway.connection();
        connection.job();
        if let Some(niceness) = niceness {
            connection.say(&GatewayToHook::StepAside { niceness });
        }
        connection.say(&GatewayToHook::Declined { reason: "full".to_owned() });
        hook.left_after_input();
        assert_eq!(
            String::from_utf8(house.record("niceness").unwrap()).unwrap(),
            format!("{expect}\n")
        );
    }
}

#[test]
fn unread_input_is_left_to_the_real_one() {
    let house = House::new();
    let arguments = words(&["-hide_banner", "-f", "lavfi", "-i", "nullsrc", "-f", "null", "-"]);
    let mut hook = house.start(&arguments);
    hook.keys("?");
    let left = hook.left_after_input();
    assert_eq!(house.record("stdin").unwrap(), b"?");
    assert_eq!(left.status.code(), Some(42));
}

#[test]
fn ffprobe_is_always_the_real_one() {
    let house = House::new();
    let arguments = words(&["-show_streams", "", "file:/x.mkv"]);
    let left = Hook::start(house.command("ffprobe", &arguments)).left_after_input();
    check_real(&house, &left, &arguments, None);
    assert!(left.stderr.contains("real/ffprobe"), "{}", left.stderr);
}

#[test]
fn a_switch_turns_the_hook_off() {
    let house = House::new();
    let _gateway = house.gateway();
    let mut command = house.command("ffmpeg", &house.job());
    command.env("RENDERGATE_DISABLE", "1");
    let left = Hook::start(command).left_after_input();
    check_real(&house, &left, &house.job(), Some("RENDERGATE_DISABLE"));

    let house = House::new();
    let mut command = house.command("ffmpeg", &words(&["-version"]));
    command.env("RENDERGATE_DISABLE", "1");
    let left = Hook::start(command).left_after_input();
    check_real(&house, &left, &words(&["-version"]), None);
}

#[track_caller]
fn check_job(change: impl Fn(&House, &mut Vec<OsString>), reason: &str) {
    let house = House::new();
    let _gateway = house.gateway();
    let mut arguments = house.job();
    change(&house, &mut arguments);
    let left = house.start(&arguments).left_after_input();
    check_real(&house, &left, &arguments, Some(reason));
}

#[test]
fn an_unknown_option_is_named() {
    check_job(
        |_, arguments| drop(arguments.splice(0..0, words(&["-frobnicate", "7"]))),
        "-frobnicate",
    );
}

#[test]
fn inputs_that_cannot_be_read_are_left_to_the_real_one() {
    let url = |house: &House| file_url(&house.path("in.mkv"));
    check_job(|house, _| fs::remove_file(house.path("in.mkv")).unwrap(), "cannot read ");
    check_job(|house, _| fs::write(house.path("in.mkv"), "").unwrap(), "is empty");
    check_job(
        |house, arguments| {
            *arguments = replaced(arguments, url(house), file_url(&house.path("out")))
        },
        "not a regular file",
    );
    check_job(
        |house, arguments| {
            let pipe = house.path("pipe");
            rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
            *arguments = replaced(arguments, url(house), file_url(&pipe));
        },
        "not a regular file",
    );
}

#[test]
fn an_output_directory_that_takes_nothing_is_left_to_the_real_one() {
    check_job(
        |house, _| fs::remove_dir(house.path("out")).unwrap(),
        "cannot write to the directory",
    );
    check_job(
        |house, _| {
            fs::remove_dir(house.path("out")).unwrap();
            fs::write(house.path("out"), "a file").unwrap();
        },
        "cannot write to the directory",
    );
}

#[test]
fn an_absent_gateway_is_named() {
    let house = House::new();
    let left = house.start(&house.job()).left_after_input();
    check_real(&house, &left, &house.job(), Some("no gateway at unix:"));

    let house = House::new();
    drop(UnixListener::bind(house.path("socket")).unwrap());
    let left = house.start(&house.job()).left_after_input();
    check_real(&house, &left, &house.job(), Some("no gateway at unix:"));

    let house = House::new();
    let mut command = house.command("ffmpeg", &house.job());
    command.env("RENDERGATE_ENDPOINT", "tcp://gpu:1");
    let left = Hook::start(command).left_after_input();
    check_real(&house, &left, &house.job(), Some("RENDERGATE_ENDPOINT"));
}

#[test]
fn a_gateway_that_does_not_answer_is_given_up() {
    let house = House::new();
    let _gateway = house.gateway();
    let mut command = house.command("ffmpeg", &house.job());
    command.env("RENDERGATE_ACCEPT_TIMEOUT_MS", "200");
    let left = Hook::start(command).left_after_input();
    check_real(&house, &left, &house.job(), Some("no answer"));
}

/// The gateway accepts, then something happens before the first output.
#[track_caller]
fn check_before_output(happens: impl FnOnce(common::Connection), reason: &str) {
    let house = House::new();
    let (hook, connection) = house.accepted();
    happens(connection);
    let left = hook.left_after_input();
    check_real(&house, &left, &house.job(), Some(reason));
    assert!(house.output().is_empty());
}

#[test]
fn failures_before_output_fall_back() {
    check_before_output(
        |connection| {
            connection.say(&GatewayToHook::Running {
                backend: "software".to_owned(),
                description: "a graph".to_owned(),
            });
            let reason = "no such stream".to_owned();
            connection.say(&GatewayToHook::Ended(Ending::Failed { reason, fault: Fault::Input }));
        },
        "failed before output: no such stream",
    );
    check_before_output(drop, "lost the gateway");
    check_before_output(
        |connection| {
            connection.say(&GatewayToHook::Accepted { stream: session::StreamId(4), protocol: 99 });
        },
        "protocol 99",
    );
}

#[test]
fn whoever_has_asked_to_quit_gets_no_second_ffmpeg() {
    let house = House::new();
    let (mut hook, mut connection) = house.accepted();
    hook.keys("q\n");
    assert_eq!(connection.control(), session::Control::Quit);
    let reason = "broken".to_owned();
    connection.say(&GatewayToHook::Ended(Ending::Failed { reason, fault: Fault::Worker }));
    assert_eq!(hook.left().status.code(), Some(0));
    assert!(house.recorded_arguments().is_none());

    let house = House::new();
    let (hook, mut connection) = house.accepted();
    hook.signal(Signal::TERM);
    assert_eq!(connection.control(), session::Control::Quit);
    drop(connection);
    assert_eq!(hook.left().status.code(), Some(255));
    assert!(house.recorded_arguments().is_none());
}

#[test]
fn the_hook_never_runs_itself() {
    let itself = |house: &House| house.path("hook/ffmpeg");
    // Named as the real one, and the first in PATH; the real one behind it is found.
    let house = House::new();
    symlink(itself(&house), house.path("link")).unwrap();
    let mut command = house.command("ffmpeg", &words(&["-version"]));
    command.env("RENDERGATE_FFMPEG", house.path("link")).env(
        "PATH",
        std::env::join_paths([
            house.path("hook"),
            house.path("real"),
            "/usr/bin".into(),
            "/bin".into(),
        ])
        .unwrap(),
    );
    let left = Hook::start(command).left_after_input();
    if !fs::exists("/usr/lib/jellyfin-ffmpeg/ffmpeg").unwrap() {
        check_real(&house, &left, &words(&["-version"]), None);
    }

    // By a script that leads back.
    let house = House::new();
    let back =
        house.script("back", &format!("#!/bin/sh\nexec {} \"$@\"\n", itself(&house).display()));
    let mut command = house.command("ffmpeg", &words(&["-version"]));
    command.env("RENDERGATE_FFMPEG", &back).env("PATH", house.path("hook"));
    check_none_found(command, "leads back to this hook");

    // By a copy, which has another inode.
    let house = House::new();
    fs::copy(itself(&house), house.path("copy")).unwrap();
    let mut command = house.command("ffmpeg", &words(&["-version"]));
    command.env("RENDERGATE_FFMPEG", house.path("copy")).env("PATH", "");
    check_none_found(command, "this hook itself");
}

#[test]
fn without_a_real_one_the_variable_is_named() {
    let house = House::new();
    let mut command = house.command("ffmpeg", &words(&["-version"]));
    command.env("RENDERGATE_FFMPEG", house.path("nothing")).env("PATH", "");
    check_none_found(command, "set RENDERGATE_FFMPEG");
    let mut command = house.command("ffprobe", &words(&["-version"]));
    command
        .env("RENDERGATE_FFPROBE", house.path("in.mkv"))
        .env("RENDERGATE_FFMPEG", "")
        .env("PATH", "");
    check_none_found(command, "set RENDERGATE_FFPROBE");
}

#[track_caller]
fn check_none_found(command: std::process::Command, says: &str) {
    if fs::exists("/usr/lib/jellyfin-ffmpeg/ffmpeg").unwrap() {
        return;
    }
    let left = Hook::start(command).left_after_input();
    assert_eq!(left.status.code(), Some(127), "{}", left.stderr);
    assert_eq!(left.stdout, "");
    assert_eq!(left.stderr.lines().count(), 1, "{}", left.stderr);
    assert!(left.stderr.contains(says), "{}", left.stderr);
}

#[test]
fn a_closed_stderr_is_no_obstacle() {
    let house = House::new();
    let mut command = house.command("ffmpeg", &words(&["-i", "file:/x.mkv", "/y.jpg"]));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(house.recorded_arguments().is_some());
}

#[test]
fn help_teaches_on_stderr() {
    let house = House::new();
    let left = house.start(&words(&["--rendergate-help"])).left();
    assert_eq!(left.status.code(), Some(0));
    assert_eq!(left.stdout, "");
    for word in ["RENDERGATE_ENDPOINT", "RENDERGATE_FFMPEG", "RENDERGATE_DISABLE", "ffprobe"] {
        assert!(left.stderr.contains(word), "{word}");
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_before_output_ends_in_the_real_one() {
    let house = House::new();
    let mut command = house.command("ffmpeg", &house.job());
    command.env("RENDERGATE_TEST_PANIC", "plan");
    let left = Hook::start(command).left_after_input();
    check_real(&house, &left, &house.job(), Some("hook failed"));
}

#[test]
fn an_empty_argv_is_survived() {
    let house = House::new();
    let left = house.start(&[]).left_after_input();
    assert_eq!(left.status.code(), Some(42));
}
