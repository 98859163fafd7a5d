//! Render nodes: which GPUs this machine shows, and whether they may be used.
//!
//! Invariants:
//! - A node that can't be opened is listed with the reason, never left out.
//! - Looking needs no privilege: sysfs is world readable, and opening a node is all that is tried.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use drm::Device as _;
use serde::{Deserialize, Serialize};

/// A GPU's node for rendering and media, without display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderNode {
    /// `/dev/dri/renderD128`.
    pub path: PathBuf,
    /// Kernel driver (`i915`, `xe`, `amdgpu`), as the node itself says.
    pub driver: Option<String>,
    /// PCI vendor and device id, as sysfs says.
    pub pci: Option<PciId>,
    /// Why the node can't be opened.
    pub problem: Option<Problem>,
}

/// Why a node can't be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Problem {
    /// It belongs to a group that this process isn't in.
    PermissionDenied {
        /// The owning group, by name if it has one.
        group: String,
    },
    /// The file is there, but no DRM driver answers behind it.
    NoDevice,
    /// Anything else that `open(2)` says.
    Unopened {
        /// In the system's words.
        message: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PermissionDenied { group } => {
                write!(f, "permission denied: it belongs to the group {group}")
            }
            Self::NoDevice => f.write_str("no DRM driver answers behind it"),
            Self::Unopened { message } => write!(f, "can't be opened: {message}"),
        }
    }
}

/// PCI vendor and device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PciId {
    /// 0x8086 is Intel, 0x1002 AMD.
    pub vendor: u16,
    /// The maker's number for the chip.
    pub device: u16,
}

impl PciId {
    /// Whose chip it is, as far as makers of GPUs are concerned; else `PCI`.
    pub fn maker(self) -> &'static str {
        match self.vendor {
            0x8086 => "Intel",
            0x1002 => "AMD",
            0x10de => "NVIDIA",
            _ => "PCI",
        }
    }
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

const DEVICES: &str = "/dev/dri";
const CLASSES: &str = "/sys/class/drm";

struct Node(File);

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Node {}

/// The render nodes of this machine, in the order of their numbers.
///
/// # Errors
/// If `/dev/dri` exists and can't be read. Without that directory there are none.
pub fn render_nodes() -> io::Result<Vec<RenderNode>> {
    render_nodes_in(Path::new(DEVICES), Path::new(CLASSES))
}

/// The render nodes' paths, in the order of their numbers. Opens none: asked often, it must not wake
/// a GPU that sleeps.
///
/// # Errors
/// As [`render_nodes`].
pub fn node_paths() -> io::Result<Vec<PathBuf>> {
    paths_in(Path::new(DEVICES))
}

/// The node at that path.
pub fn render_node(path: &Path) -> RenderNode {
    look(path, &Path::new(CLASSES).join(path.file_name().unwrap_or_default()))
}

/// Where the GPU behind a node is on the PCI bus (`0000:00:02.0`), if it is there: unlike the node's
/// number it stays the same when another GPU is put in.
pub fn pci_address(node: &Path) -> Option<String> {
    let device = fs::read_link(Path::new(CLASSES).join(node.file_name()?).join("device")).ok()?;
    let name = device.file_name()?.to_str()?.to_owned();
    // Domain, bus and slot. Others (`gpu.0` of a platform's bus) name no place.
    (name.matches(':').count() == 2).then_some(name)
}

fn paths_in(devices: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(devices) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with("renderD") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.iter().map(|name| devices.join(name)).collect())
}

fn render_nodes_in(devices: &Path, sysfs: &Path) -> io::Result<Vec<RenderNode>> {
    let class = |path: &Path| sysfs.join(path.file_name().unwrap_or_default());
    Ok(paths_in(devices)?.iter().map(|path| look(path, &class(path))).collect())
}

fn look(path: &Path, sysfs: &Path) -> RenderNode {
    let opened = OpenOptions::new().read(true).write(true).open(path).map(Node);
    let driver = opened
        .as_ref()
        .ok()
        .and_then(|node| Some(node.get_driver().ok()?.name().to_string_lossy().into_owned()));
    let problem = match &opened {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Some(Problem::PermissionDenied { group: owning_group(path) })
        }
        Err(error) => Some(Problem::Unopened { message: error.to_string() }),
        Ok(_) if driver.is_none() => Some(Problem::NoDevice),
        Ok(_) => None,
    };
    RenderNode { path: path.to_owned(), driver, pci: pci_id(sysfs), problem }
}

/// The name of the group that a file belongs to, or its number.
fn owning_group(path: &Path) -> String {
    let Ok(found) = fs::metadata(path) else { return "unknown".into() };
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    group_name(&groups, found.gid()).unwrap_or_else(|| found.gid().to_string())
}

/// The group's name in a file of the form of `/etc/group`.
fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

/// The id of the chip behind the node at that path, as sysfs says. Doesn't open the node.
pub fn node_pci_id(path: &Path) -> Option<PciId> {
    pci_id(&Path::new(CLASSES).join(path.file_name()?))
}

fn pci_id(sysfs: &Path) -> Option<PciId> {
    read_pci_id(&sysfs.join("device"))
}

/// The id of a device by its folder in sysfs.
pub(crate) fn read_pci_id(device: &Path) -> Option<PciId> {
    let read = |name: &str| {
        let text = fs::read_to_string(device.join(name)).ok()?;
        u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
    };
    Some(PciId { vendor: read("vendor")?, device: read("device")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_directory_no_nodes() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(render_nodes_in(&root.path().join("dri"), root.path()).unwrap(), []);
    }

    #[test]
    fn what_is_no_device_is_listed_with_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let (devices, sysfs) = (root.path().join("dri"), root.path().join("sys"));
        fs::create_dir(&devices).unwrap();
        for name in ["renderD129", "renderD128", "card0"] {
            fs::write(devices.join(name), "").unwrap();
        }
        let chip = sysfs.join("renderD128/device");
        fs::create_dir_all(&chip).unwrap();
        fs::write(chip.join("vendor"), "0x8086\n").unwrap();
        fs::write(chip.join("device"), "0x3e92\n").unwrap();
        let nodes = render_nodes_in(&devices, &sysfs).unwrap();
        let paths: Vec<_> = nodes.iter().map(|node| node.path.clone()).collect();
        assert_eq!(paths, [devices.join("renderD128"), devices.join("renderD129")]);
        assert_eq!(nodes[0].pci.unwrap().to_string(), "8086:3e92");
        assert_eq!(nodes[1].pci, None);
        assert_eq!(nodes[0].problem, Some(Problem::NoDevice));
    }

    #[test]
    fn groups_are_found_by_number() {
        let groups = "root:x:0:\nvideo:x:44:\nrender:x:105:jellyfin\n";
        assert_eq!(group_name(groups, 105).as_deref(), Some("render"));
        assert_eq!(group_name(groups, 4), None);
    }
}
