//! The layer that system calls are behind: seccomp.
//!
//! A list of what is denied, not of what is allowed. Drivers and GStreamer are other people's, their
//! needs differ from version to version, and a call that is missing from an allow-list shows as a
//! driver that fails on somebody's machine. What a list of denials can't know, the calls of kernels to
//! come, isn't there at all: beyond [`NEWEST`] there is `ENOSYS`, for which libraries have an answer.
//!
//! Denied calls fail with `EPERM` and don't kill, since libraries try things that they can do without.

use std::collections::BTreeMap;

use libc as sys;
use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads, sock_filter,
};

/// `file_setattr` of Linux 6.17, the last call that this list was made with. The numbers are the same
/// on all architectures from 424 on. (x86-64's second set of calls, x32, has numbers far above.)
const NEWEST: u32 = 469;

/// Numbers that the libc crate lacks on one architecture or both.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const OPEN_TREE_ATTR: i64 = 467;
const FILE_SETATTR: i64 = 469;

/// Never, whatever the arguments.
const NEVER: &[i64] = &[
    // Other programs.
    sys::SYS_execve,
    sys::SYS_execveat,
    // The network, and other processes by sockets. The control socket is connected already.
    sys::SYS_socket,
    sys::SYS_connect,
    sys::SYS_bind,
    sys::SYS_listen,
    sys::SYS_accept,
    sys::SYS_accept4,
    // Other processes.
    sys::SYS_ptrace,
    sys::SYS_process_vm_readv,
    sys::SYS_process_vm_writev,
    sys::SYS_process_madvise,
    sys::SYS_process_mrelease,
    sys::SYS_pidfd_open,
    sys::SYS_pidfd_getfd,
    sys::SYS_pidfd_send_signal,
    sys::SYS_tkill,
    sys::SYS_setpriority,
    sys::SYS_ioprio_set,
    sys::SYS_migrate_pages,
    // The gateway ends a worker by its process group.
    sys::SYS_setpgid,
    sys::SYS_setsid,
    // Queues that have no descriptor.
    sys::SYS_msgget,
    sys::SYS_msgsnd,
    sys::SYS_msgrcv,
    sys::SYS_msgctl,
    sys::SYS_mq_open,
    sys::SYS_mq_unlink,
    // What Landlock doesn't judge of files: whose they are and who may what with them, and watching
    // folders that may not be listed.
    sys::SYS_fchmod,
    sys::SYS_fchmodat,
    FCHMODAT2,
    sys::SYS_fchownat,
    sys::SYS_utimensat,
    sys::SYS_setxattr,
    sys::SYS_lsetxattr,
    sys::SYS_fsetxattr,
    SETXATTRAT,
    sys::SYS_removexattr,
    sys::SYS_lremovexattr,
    sys::SYS_fremovexattr,
    REMOVEXATTRAT,
    FILE_SETATTR,
    sys::SYS_truncate,
    sys::SYS_open_by_handle_at,
    sys::SYS_inotify_init1,
    sys::SYS_fanotify_init,
    sys::SYS_quotactl,
    sys::SYS_quotactl_fd,
    // File systems.
    sys::SYS_mount,
    sys::SYS_umount2,
    sys::SYS_move_mount,
    sys::SYS_open_tree,
    OPEN_TREE_ATTR,
    sys::SYS_fsopen,
    sys::SYS_fsconfig,
    sys::SYS_fsmount,
    sys::SYS_fspick,
    sys::SYS_mount_setattr,
    sys::SYS_pivot_root,
    sys::SYS_chroot,
    // Namespaces and identities.
    sys::SYS_unshare,
    sys::SYS_setns,
    sys::SYS_setuid,
    sys::SYS_setgid,
    sys::SYS_setreuid,
    sys::SYS_setregid,
    sys::SYS_setresuid,
    sys::SYS_setresgid,
    sys::SYS_setfsuid,
    sys::SYS_setfsgid,
    sys::SYS_setgroups,
    sys::SYS_capset,
    sys::SYS_personality,
    // Parts of the kernel that have let others in before, and go past this filter (io_uring).
    sys::SYS_io_uring_setup,
    sys::SYS_io_uring_enter,
    sys::SYS_io_uring_register,
    sys::SYS_bpf,
    sys::SYS_perf_event_open,
    sys::SYS_userfaultfd,
    sys::SYS_add_key,
    sys::SYS_request_key,
    sys::SYS_keyctl,
    // The machine.
    sys::SYS_kexec_load,
    sys::SYS_kexec_file_load,
    sys::SYS_init_module,
    sys::SYS_finit_module,
    sys::SYS_delete_module,
    sys::SYS_swapon,
    sys::SYS_swapoff,
    sys::SYS_reboot,
    sys::SYS_acct,
    sys::SYS_syslog,
    sys::SYS_vhangup,
    sys::SYS_sethostname,
    sys::SYS_setdomainname,
    sys::SYS_settimeofday,
    sys::SYS_clock_settime,
    sys::SYS_clock_adjtime,
    sys::SYS_adjtimex,
];

/// Older names of the same things, which only x86-64 has.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[i64] = &[
    sys::SYS_fork,
    sys::SYS_vfork,
    sys::SYS_chmod,
    sys::SYS_chown,
    sys::SYS_lchown,
    sys::SYS_utime,
    sys::SYS_utimes,
    sys::SYS_futimesat,
    sys::SYS_inotify_init,
    sys::SYS_iopl,
    sys::SYS_ioperm,
    sys::SYS_modify_ldt,
    sys::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[i64] = &[];

/// Memory and semaphores that have no descriptor. Not with a GPU: Intel's driver shares them among
/// processes where a GPU has two video engines, and doesn't start without
/// (`OsContextSpecific::CreateIPC`).
const NEVER_WITHOUT_GPU: &[i64] = &[
    sys::SYS_shmget,
    sys::SYS_shmat,
    sys::SYS_shmctl,
    sys::SYS_semget,
    sys::SYS_semop,
    sys::SYS_semtimedop,
    sys::SYS_semctl,
];

/// Namespaces, as `clone` makes them.
const NAMESPACES: &[i32] = &[
    sys::CLONE_NEWNS,
    sys::CLONE_NEWCGROUP,
    sys::CLONE_NEWUTS,
    sys::CLONE_NEWIPC,
    sys::CLONE_NEWUSER,
    sys::CLONE_NEWPID,
    sys::CLONE_NEWNET,
];

/// `ioctl`s on anything: input put into a terminal, somebody else as a descriptor's owner (who gets
/// its signals), a file's flags.
const IOCTLS: &[u64] = &[
    0x5412,      // TIOCSTI
    0x541c,      // TIOCLINUX
    0x8901,      // FIOSETOWN
    0x8902,      // SIOCSPGRP
    0x4008_6602, // FS_IOC_SETFLAGS
    0x401c_5820, // FS_IOC_FSSETXATTR
];

/// Takes the calls away from every thread of the process, and with them new privileges. Files may be
/// given to `owner` (user and group) alone.
pub(crate) fn forbid(owner: (u32, u32), gpu: bool) -> Result<(), String> {
    let own = u64::from(getpid().as_raw_pid().unsigned_abs());
    let program = program(own, owner, gpu).map_err(|error| error.to_string())?;
    apply_filter_all_threads(&program).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
            format!("seccomp: {error}")
        }
        error => error.to_string(),
    })
}

fn program(own: u64, owner: (u32, u32), gpu: bool) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let denied = SeccompAction::Errno(sys::EPERM as u32);
    let filter = SeccompFilter::new(rules(own, owner, gpu)?, SeccompAction::Allow, denied, arch)?;
    let mut program = edge();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// `ENOSYS` for what the list doesn't know, and for `clone3`, whose flags a filter can't see: glibc
/// then takes `clone`. In front of the list; jumps are relative.
fn edge() -> BpfProgram {
    let op = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let (load, jump) = (sys::BPF_LD | sys::BPF_W | sys::BPF_ABS, sys::BPF_JMP | sys::BPF_K);
    let enosys = sys::SECCOMP_RET_ERRNO | sys::ENOSYS as u32;
    vec![
        // The number of the call is the first field of `seccomp_data`.
        op(load, 0, 0, 0),
        op(jump | sys::BPF_JGT, 1, 0, NEWEST),
        op(jump | sys::BPF_JEQ, 0, 1, sys::SYS_clone3 as u32),
        op(sys::BPF_RET | sys::BPF_K, 0, 0, enosys),
    ]
}

/// What is denied: a call without rules always, else if one of its rules holds.
fn rules(
    own: u64,
    (user, group): (u32, u32),
    gpu: bool,
) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let without_gpu = if gpu { &[] } else { NEVER_WITHOUT_GPU };
    let never = NEVER.iter().chain(NEVER_HERE).chain(without_gpu);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        never.map(|call| (*call, Vec::new())).collect();
    let mut deny = |call: i64, conditions: &[(u8, SeccompCmpOp, u64)]| {
        let conditions = conditions.iter().map(|(argument, operator, value)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
        });
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        rules.entry(call).or_default().push(rule);
        Ok::<_, BackendError>(())
    };
    // Threads may be started, processes not.
    let thread = sys::CLONE_THREAD as u64;
    deny(sys::SYS_clone, &[(0, MaskedEq(thread), 0)])?;
    for flag in NAMESPACES.iter().map(|flag| *flag as u64) {
        deny(sys::SYS_clone, &[(0, MaskedEq(flag), flag)])?;
    }
    // Signals to itself, which abort(3) needs.
    for call in
        [sys::SYS_kill, sys::SYS_tgkill, sys::SYS_rt_sigqueueinfo, sys::SYS_rt_tgsigqueueinfo]
    {
        deny(call, &[(0, Ne, own)])?;
    }
    for call in [sys::SYS_prlimit64, sys::SYS_move_pages] {
        deny(call, &[(0, Ne, 0), (0, Ne, own)])?;
    }
    // Mesa asks whether two of its descriptors are the same file (KCMP_FILE).
    deny(sys::SYS_kcmp, &[(0, Ne, own)])?;
    deny(sys::SYS_kcmp, &[(1, Ne, own)])?;
    deny(sys::SYS_kcmp, &[(2, Ne, 0)])?;
    // Datagrams can be sent to any socket that has a name, though they come from a pair. (To
    // AF_UNIX, SOCK_RAW is the same.)
    for kind in [sys::SOCK_DGRAM, sys::SOCK_RAW] {
        deny(sys::SYS_socketpair, &[(1, MaskedEq(0xf), kind as u64)])?;
    }
    for command in IOCTLS {
        deny(sys::SYS_ioctl, &[(1, Eq, *command)])?;
    }
    // As FIOSETOWN. F_SETOWN_EX is 15.
    for command in [sys::F_SETOWN as u64, 15] {
        deny(sys::SYS_fcntl, &[(1, Eq, command)])?;
    }
    // The gateway's death has to be heard.
    deny(sys::SYS_prctl, &[(0, Eq, sys::PR_SET_PDEATHSIG as u64)])?;
    deny(sys::SYS_fchown, &[(1, Ne, user.into())])?;
    deny(sys::SYS_fchown, &[(2, Ne, group.into())])?;
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_made_and_short_enough() {
        let length = program(4711, (0, 0), false).unwrap().len();
        assert!((NEVER.len() * 2..4096).contains(&length), "{length}");
    }

    #[test]
    fn conditions_don_t_weaken_what_is_never_allowed() {
        let of = |gpu| rules(4711, (0, 0), gpu).unwrap();
        for call in NEVER.iter().chain(NEVER_HERE) {
            assert!(of(true)[call].is_empty() && of(false)[call].is_empty(), "{call}");
        }
        for call in NEVER_WITHOUT_GPU {
            assert!(of(false)[call].is_empty() && !of(true).contains_key(call), "{call}");
        }
    }
}
