//! Deaths by the hundred leave nothing: no process, no descriptor, no memory, no file.

mod common;

use std::time::Duration;

use common::{Gateway, Hook, children, eventually, kill, pause, until};
use rustix::process::Signal;
use session::{GatewayToHook, StreamId};

/// Half of them before anything is measured, so that allocators have settled.
const ROUNDS: u64 = 200;
const ALLOWED_GROWTH_KIB: u64 = 1024;

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A running stream, its number and its worker. Two starts in a row may just have been killed; jobs are
/// declined then, and a hook runs the real ffmpeg.
fn accepted(gateway: &Gateway) -> (Hook, StreamId, Option<u32>) {
    eventually("a job is accepted", || {
        let mut hook = gateway.hook("every=2");
        match hook.next() {
            Some(GatewayToHook::Accepted { stream, .. }) => {
                Some((hook, stream, gateway.worker_of(stream)))
            }
            Some(GatewayToHook::Declined { reason }) if reason.contains("signal 9") => None,
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn two_hundred_random_kills_leave_nothing() {
    let gateway = Gateway::ready("[worker]\nwarm = 2\nrefill_seconds = 0\n");
    let settled = || {
        gateway.idle();
        until("two warm workers and nothing else", || {
            gateway.json("/readyz")["warm_workers"] == 2 && children(gateway.pid()).len() == 2
        });
        // Descriptors of connections go as their tasks end.
        pause(Duration::from_millis(50));
        (descriptors(gateway.pid()), resident_kib(gateway.pid()))
    };
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let (fds_at_start, _) = settled();
    let mut half = None;
    for round in 0..ROUNDS {
        let (hook, stream, worker) = accepted(&gateway);
        pause(Duration::from_micros(below(20_000)));
        match (below(3), worker) {
            (0, Some(worker)) => {
                kill(worker, Signal::KILL);
                until("another one goes on", || gateway.worker_of(stream) != Some(worker));
                drop(hook);
            }
            // While it is warm: the next job gets another.
            (1, _) => {
                if let Some(idle) = children(gateway.pid()).into_iter().find(|w| Some(*w) != worker)
                {
                    kill(idle, Signal::KILL);
                }
                drop(hook);
            }
            _ => drop(hook),
        }
        gateway.idle();
        gateway.out_is_clean();
        if round == ROUNDS / 2 {
            half = Some(settled());
        }
    }
    let (fds, kib) = settled();
    let (fds_at_half, kib_at_half) = half.unwrap();
    assert_eq!((fds_at_start, fds_at_half), (fds, fds), "descriptors: start, half, end");
    assert!(kib <= kib_at_half + ALLOWED_GROWTH_KIB, "grew from {kib_at_half} to {kib} KiB");
}
