//! What `/dev/dri`, sysfs and udev say of the nodes, as a tree of ordinary files.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::config::Node;

/// A PCI domain that no machine has, so that real devices stay visible beside ours.
pub(crate) const PCI_ROOT: &str = "/sys/devices/pci0fff:00";

/// A file of the tree, by its path in the machine that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    /// With its content.
    File(String, String),
    /// With where it points.
    Link(String, String),
}

fn slot(node: &Node) -> String {
    format!("0fff:00:{:02x}.0", 2 + node.minor - crate::config::FIRST_MINOR)
}

/// The files of one node.
fn describe_node(node: &Node) -> Vec<Entry> {
    let (vendor, device) = node.face.pci();
    let driver = node.face.driver();
    let (slot, minor) = (slot(node), node.minor);
    let name = format!("renderD{minor}");
    let chip = format!("{PCI_ROOT}/{slot}");
    let drm = format!("{chip}/drm/{name}");
    let file = |path: String, content: String| Entry::File(path, content);
    let link = |path: String, to: String| Entry::Link(path, to);
    vec![
        // A placeholder; what it looks like is the business of the stat hooks.
        file(format!("/dev/dri/{name}"), String::new()),
        file(format!("{chip}/vendor"), format!("0x{vendor:04x}\n")),
        file(format!("{chip}/device"), format!("0x{device:04x}\n")),
        file(format!("{chip}/subsystem_vendor"), format!("0x{vendor:04x}\n")),
        file(format!("{chip}/subsystem_device"), "0x0000\n".into()),
        file(format!("{chip}/revision"), "0x00\n".into()),
        file(format!("{chip}/class"), "0x030000\n".into()),
        file(
            format!("{chip}/uevent"),
            format!(
                "DRIVER={driver}\nPCI_CLASS=30000\nPCI_ID={vendor:04X}:{device:04X}\n\
                 PCI_SUBSYS_ID={vendor:04X}:0000\nPCI_SLOT_NAME={slot}\n"
            ),
        ),
        link(format!("{chip}/subsystem"), "../../../bus/pci".into()),
        link(format!("{chip}/driver"), format!("../../../bus/pci/drivers/{driver}")),
        file(format!("{drm}/dev"), format!("226:{minor}\n")),
        file(
            format!("{drm}/uevent"),
            format!("MAJOR=226\nMINOR={minor}\nDEVNAME=dri/{name}\nDEVTYPE=drm_minor\n"),
        ),
        link(format!("{drm}/device"), format!("../../../{slot}")),
        link(format!("{drm}/subsystem"), "../../../../../class/drm".into()),
        link(format!("/sys/class/drm/{name}"), format!("../..{}", &drm["/sys".len()..])),
        link(format!("/sys/dev/char/226:{minor}"), format!("../..{}", &drm["/sys".len()..])),
        // udev lists a device with a node only once its own database knows it.
        file(format!("/run/udev/data/c226:{minor}"), "I:1\nG:seat\nQ:seat\nV:1\n".into()),
    ]
}

/// All files. Without nodes there are none: a kernel without DRM has not even the directories.
pub(crate) fn describe(nodes: &[Node]) -> Vec<Entry> {
    nodes.iter().flat_map(describe_node).collect()
}

/// Where the tree lies, after making sure that it does.
///
/// It is made once for all processes that show the same nodes, and left there: processes come and
/// go by the dozen in a test, and none knows whether it is the last.
///
/// # Errors
/// That of the file system.
pub(crate) fn make(nodes: &[Node], temporary: &Path, uid: u32) -> io::Result<PathBuf> {
    let mut entries = describe(nodes);
    if !nodes.is_empty() {
        // libudev finds subsystems by listing this directory.
        for class in fs::read_dir("/sys/class").into_iter().flatten() {
            let name = class?.file_name().to_string_lossy().into_owned();
            if name != "drm" {
                let path = format!("/sys/class/{name}");
                entries.push(Entry::Link(path.clone(), path));
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    entries.hash(&mut hasher);
    let root = temporary.join(format!("rendernode-{uid}-{:016x}", hasher.finish()));
    if let Ok(found) = fs::symlink_metadata(&root) {
        if found.is_dir() && found.uid() == uid {
            return Ok(root);
        }
        let path = root.display();
        return Err(io::Error::other(format!("{path} belongs to somebody else: remove it")));
    }
    let draft = root.with_extension(std::process::id().to_string());
    fs::create_dir_all(&draft)?;
    for entry in &entries {
        let (Entry::File(path, _) | Entry::Link(path, _)) = entry;
        let path = draft.join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap_or(&draft))?;
        match entry {
            Entry::File(_, content) => fs::write(path, content)?,
            Entry::Link(_, to) => symlink(to, path)?,
        }
    }
    match fs::rename(&draft, &root) {
        // Somebody else was faster, with the same tree.
        Err(_) if root.is_dir() => fs::remove_dir_all(&draft)?,
        done => done?,
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Face;

    #[test]
    fn links_lead_to_the_chip() {
        let temporary =
            std::env::temp_dir().join(format!("rendernode-test-{}", std::process::id()));
        fs::create_dir_all(&temporary).unwrap();
        let node = |minor, face| Node { minor, face, fault: None };
        let nodes = [node(128, Face::I915), node(129, Face::Softva)];
        let uid = fs::metadata(&temporary).unwrap().uid();
        let root = make(&nodes, &temporary, uid).unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path));
        assert_eq!(read("sys/class/drm/renderD128/device/device").unwrap(), "0x3e92\n");
        assert_eq!(read("sys/dev/char/226:129/device/vendor").unwrap(), "0xfffe\n");
        assert_eq!(read("dev/dri/renderD129").unwrap(), "");
        assert!(root.join("sys/class/drm/renderD128/subsystem/renderD129").exists());
        assert_eq!(make(&nodes, &temporary, uid).unwrap(), root);
        assert_ne!(make(&nodes[..1], &temporary, uid).unwrap(), root);
        assert!(!make(&[], &temporary, uid).unwrap().join("dev").exists());
        fs::remove_dir_all(&temporary).unwrap();
    }
}
