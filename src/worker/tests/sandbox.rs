//! The worker in its sandbox, seen from outside. What a sandbox is worth is tested where it is made
//! (`src/sandbox/tests`); here, that the program that ships is in one before it reads media.

mod support;

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use session::{Ending, Fault};
use stand::{Report, Run, built};
use support::case::{Case, good};

fn worker(setting: &str) -> Command {
    let mut command = Command::new(built("rendergate-worker"));
    command.env("RENDERGATE_SANDBOX", setting);
    command
}

/// Runs a stream; a line of `/proc/PID/status` of each of the worker's threads in the middle of it.
fn lines(setting: &str, name: &str) -> (Report, Vec<String>) {
    let case = Case::new();
    let plan = case.plan(&good("bad-plain.mkv", ""));
    let seen = OnceLock::new();
    let report = Run::warm_by(worker(setting)).given(&plan).finish_with(|run, _| {
        seen.get_or_init(|| {
            let threads = fs::read_dir(format!("/proc/{}/task", run.child.id())).unwrap();
            let statuses = threads.filter_map(|thread| {
                // A thread may end while it is looked at.
                fs::read_to_string(thread.ok()?.path().join("status")).ok()
            });
            let line = |status: String| {
                status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
            };
            statuses.filter_map(line).collect::<Vec<_>>()
        });
    });
    assert_eq!(report.ending, Some(Ending::Complete), "{report:?}");
    (report, seen.into_inner().expect("there was a segment"))
}

#[test]
fn every_thread_is_held_while_a_stream_runs() {
    for (name, value) in [("Seccomp:", "2"), ("NoNewPrivs:", "1")] {
        let (report, lines) = lines("required", name);
        assert!(lines.len() > 1 && lines.iter().all(|line| line == value), "{name} {lines:?}");
        let sandbox = report.sandbox.expect("it says so");
        assert!(sandbox.landlock.is_some_and(|abi| abi > 0) && sandbox.seccomp, "{sandbox:?}");
        assert_eq!(sandbox.missing, None);
    }
}

#[test]
fn off_is_off() {
    let (report, lines) = lines("off", "Seccomp:");
    assert!(!lines.is_empty() && lines.iter().all(|line| line == "0"), "{lines:?}");
    assert_eq!(report.sandbox, None);
}

/// A worker on a kernel that has no Landlock, or in a container that keeps it away: the calls aren't
/// there. The filter is the calling thread's, and that of whom it starts.
fn without_landlock(setting: &'static str) -> Report {
    std::thread::spawn(move || {
        let absent_calls = [calls::CREATE_RULESET, calls::RESTRICT_SELF];
        let rules = absent_calls.map(|call| (call, Vec::new())).into();
        let absent = SeccompAction::Errno(rustix::io::Errno::NOSYS.raw_os_error().unsigned_abs());
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, absent, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        let case = Case::new();
        let plan = case.plan(&good("bad-plain.mkv", ""));
        Run::warm_by(worker(setting)).given(&plan).finish()
    })
    .join()
    .unwrap()
}

/// The same on all architectures.
mod calls {
    pub const CREATE_RULESET: i64 = 444;
    pub const RESTRICT_SELF: i64 = 446;
}

#[test]
fn without_landlock_the_rest_holds_and_is_said() {
    let report = without_landlock("best-effort");
    assert_eq!(report.ending, Some(Ending::Complete), "{report:?}");
    let sandbox = report.sandbox.expect("it says so");
    assert_eq!((sandbox.landlock, sandbox.seccomp), (None, true));
    assert!(sandbox.missing.is_some_and(|missing| missing.contains("no Landlock")));
}

#[test]
fn what_is_required_and_missing_ends_the_stream_before_it_begins() {
    let report = without_landlock("required");
    let Some(Ending::Failed { reason, fault: Fault::Unsupported }) = &report.ending else {
        panic!("{report:?}");
    };
    assert!(
        reason.contains("worker.sandbox is required") && reason.contains("Landlock"),
        "{reason}"
    );
    assert!(!report.committed && report.description.is_empty());
}
