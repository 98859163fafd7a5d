//! Who may hand in jobs.
//!
//! A job makes the gateway's workers decode a file and write into a directory, both by descriptors
//! that the peer had to be able to open itself: a peer gains no access to files, only work on the
//! GPU. The check keeps that to those it is meant for, also where the socket's mode is lost (a
//! socket shared into a container as a volume).

use std::fmt;

/// Who is at the other end, as the kernel says (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Process, if it is visible from here (not across pid namespaces).
    pub pid: Option<u32>,
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
}

impl Peer {
    pub(crate) fn of(socket: &tokio::net::UnixStream) -> std::io::Result<Self> {
        let credentials = socket.peer_cred()?;
        Ok(Self {
            pid: credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
            uid: credentials.uid(),
            gid: credentials.gid(),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} gid {}", self.uid, self.gid)?;
        match self.pid {
            Some(pid) => write!(f, " pid {pid}"),
            None => Ok(()),
        }
    }
}

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// The gateway's own user.
    pub own_uid: u32,
    /// Further users.
    pub uids: Vec<u32>,
    /// Groups whose members may connect.
    pub gids: Vec<u32>,
}

impl Allowed {
    /// `supplementary` gives the further groups of a process. It is asked last: the kernel hands
    /// over the primary group alone, the rest is looked up by process id.
    pub(crate) fn admits(&self, peer: Peer, supplementary: impl Fn(u32) -> Vec<u32>) -> bool {
        peer.uid == 0
            || peer.uid == self.own_uid
            || self.uids.contains(&peer.uid)
            || self.gids.contains(&peer.gid)
            || (!self.gids.is_empty()
                && peer
                    .pid
                    .is_some_and(|pid| supplementary(pid).iter().any(|g| self.gids.contains(g))))
    }
}

/// Further groups of a process, from `/proc`; none if it can't be read.
pub(crate) fn supplementary_groups(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    groups_of_status(&status)
}

fn groups_of_status(status: &str) -> Vec<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .map(|groups| groups.split_whitespace().filter_map(|g| g.parse().ok()).collect())
        .unwrap_or_default()
}

/// A group's number: `group` is one, or a name in the text of a group(5) file.
pub(crate) fn group_id(group: &str, group_file: &str) -> Option<u32> {
    group.parse().ok().or_else(|| {
        group_file.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_user_root_and_those_listed_are_admitted() {
        let allowed = Allowed { own_uid: 990, uids: vec![110], gids: vec![44] };
        let check = |uid, gid, further: &[u32], expect| {
            let peer = Peer { pid: Some(1), uid, gid };
            assert_eq!(allowed.admits(peer, |_| further.to_vec()), expect, "{peer} {further:?}");
        };
        check(990, 990, &[], true);
        check(0, 0, &[], true);
        check(110, 110, &[], true);
        check(111, 44, &[], true);
        check(111, 111, &[7, 44], true);
        check(111, 111, &[7], false);
        let no_pid = Peer { pid: None, uid: 111, gid: 111 };
        assert!(!allowed.admits(no_pid, |_| vec![44]));
    }

    #[test]
    fn groups_are_read_from_proc_and_group_files() {
        assert_eq!(groups_of_status("Name:\tx\nGroups:\t24 44 \nNgid:\t0\n"), [24, 44]);
        assert!(groups_of_status("").is_empty());
        let file = "root:x:0:\nrender:x:105:jellyfin\nrend:x:9:\n";
        assert_eq!(group_id("render", file), Some(105));
        assert_eq!(group_id("107", file), Some(107));
        assert_eq!(group_id("video", file), None);
    }
}
