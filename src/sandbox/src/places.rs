//! Which files a worker's libraries need.
//!
//! Links are followed where they lead before a rule is made, and reading a link needs no rule: what
//! counts is where files really are.

use std::fs;
use std::path::{Path, PathBuf};

/// Libraries and their data, what the loader, fontconfig, Mesa, libva and Intel's driver are set up by,
/// and what the system says of processors, memory and devices.
const SYSTEM: &[&str] = &[
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/fonts",
    "/etc/drirc",
    "/etc/libva.conf",
    "/etc/igfx_user_feature.txt",
    "/etc/igfx_user_feature_next.txt",
    "/etc/localtime",
    "/var/cache/fontconfig",
    "/dev/random",
    "/dev/urandom",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/vm/overcommit_memory",
    "/run/udev/data",
    "/sys/bus",
    "/sys/class/drm",
    "/sys/dev/char",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
];

/// Folders whose names may be listed, though not what is in them read.
pub(crate) const LISTED: &[&str] = &["/dev/dri", "/sys/class", "/sys/devices/system"];

/// Devices that are read and written.
pub(crate) const WRITTEN: &[&str] = &["/dev/null"];

/// Variables that hold a list of folders (or one file), where libraries and plugins lie.
const SEARCHED: &[&str] = &[
    "LD_LIBRARY_PATH",
    "GST_PLUGIN_PATH",
    "GST_PLUGIN_PATH_1_0",
    "GST_PLUGIN_SYSTEM_PATH",
    "GST_PLUGIN_SYSTEM_PATH_1_0",
    "GST_PRESET_PATH",
    "GST_REGISTRY",
    "GST_REGISTRY_1_0",
    "LIBVA_DRIVERS_PATH",
    "ONEVPL_SEARCH_PATH",
];

/// Where a user keeps fonts, what fontconfig knows of them, and plugins; below `HOME`.
const AT_HOME: &[&str] = &[
    ".fonts",
    ".fonts.conf",
    ".config/fontconfig",
    ".local/share/fonts",
    ".local/share/gstreamer-1.0",
    ".cache/fontconfig",
    ".fontconfig",
];

/// All that any worker may read.
pub(crate) fn read(variable: &impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    for name in SEARCHED {
        let list = variable(name).unwrap_or_default();
        places.extend(list.split(':').filter(|path| path.starts_with('/')).map(PathBuf::from));
    }
    if let Some(home) = variable("HOME").filter(|home| home.starts_with('/')) {
        places.extend(AT_HOME.iter().map(|name| Path::new(&home).join(name)));
    }
    if let Some(cache) = variable("XDG_CACHE_HOME").filter(|cache| cache.starts_with('/')) {
        places.push(Path::new(&cache).join("fontconfig"));
    }
    places.extend(cpu_limits(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default()));
    // For a backtrace's names.
    places.extend(std::env::current_exe().ok());
    places
}

/// Where control groups (by `/proc/self/cgroup`) limit the processors that a process may use at once,
/// itself and above.
fn cpu_limits(groups: &str) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for group in groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        for group in Path::new(group).ancestors() {
            let below =
                |folder: &str| Path::new(folder).join(group.strip_prefix("/").unwrap_or(group));
            places.push(below("/sys/fs/cgroup").join("cpu.max"));
            let files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"];
            places.extend(files.map(|file| below("/sys/fs/cgroup/cpu").join(file)));
        }
    }
    places
}

/// Every render node there is.
pub(crate) fn render_nodes() -> Vec<PathBuf> {
    beginning_with("/dev/dri", "renderD")
}

/// What the kernel says of the devices behind the nodes.
pub(crate) fn gpus() -> Vec<PathBuf> {
    let devices = beginning_with("/sys/class/drm", "renderD");
    devices.iter().filter_map(|node| fs::canonicalize(node.join("device")).ok()).collect()
}

fn beginning_with(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_group_and_above() {
        let places = cpu_limits("0::/a/b\n");
        for path in
            ["/sys/fs/cgroup/a/b/cpu.max", "/sys/fs/cgroup/a/cpu.max", "/sys/fs/cgroup/cpu.max"]
        {
            assert!(places.contains(&path.into()), "{path}: {places:?}");
        }
        let places = cpu_limits("3:cpu,cpuacct:/docker/x\n");
        assert!(places.contains(&"/sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us".into()));
    }

    #[test]
    fn the_environment_adds_places() {
        let places = read(&|name| match name {
            "HOME" => Some("/home/x".into()),
            "LIBVA_DRIVERS_PATH" => Some("/a:relative:/b".into()),
            _ => None,
        });
        for path in ["/usr", "/a", "/b", "/home/x/.fonts"] {
            assert!(places.contains(&path.into()), "{path}");
        }
        assert!(!places.iter().any(|path| path.is_relative() || path == Path::new("/home/x")));
    }
}
