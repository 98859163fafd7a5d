//! What the system says about GPUs that have no render node.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::nodes::PciId;

/// See the module's description.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The kernel's release, as `uname -r` gives it.
    pub kernel: String,
    /// Whether the kernel has DRM at all (`/sys/class/drm`).
    pub drm: bool,
    /// Render nodes that the kernel knows (`/sys/class/drm/renderD*`), whether or not they are in
    /// `/dev/dri`.
    pub kernel_nodes: usize,
    /// Display controllers on the PCI bus.
    pub controllers: Vec<PciId>,
    /// `LIBVA_DRIVER_NAME`, which holds for every node.
    pub forced_driver: Option<String>,
}

impl Facts {
    /// Of this machine. What can't be read counts as not there.
    pub fn read() -> Self {
        let forced_driver = std::env::var("LIBVA_DRIVER_NAME").ok();
        Self { forced_driver, ..Self::read_in(Path::new("/sys"), Path::new("/proc")) }
    }

    fn read_in(sys: &Path, proc: &Path) -> Self {
        let kernel = fs::read_to_string(proc.join("sys/kernel/osrelease")).unwrap_or_default();
        let classes = sys.join("class/drm");
        let names = fs::read_dir(&classes).into_iter().flatten().flatten();
        let kernel_nodes =
            names.filter(|entry| entry.file_name().to_string_lossy().starts_with("renderD"));
        let devices = fs::read_dir(sys.join("bus/pci/devices")).into_iter().flatten().flatten();
        let mut controllers: Vec<_> =
            devices.filter_map(|device| controller(&device.path())).collect();
        controllers.sort();
        Self {
            kernel: kernel.trim().to_owned(),
            drm: classes.exists(),
            kernel_nodes: kernel_nodes.count(),
            controllers,
            forced_driver: None,
        }
    }
}

/// The id of a PCI device, if it is a display controller (class 03).
fn controller(device: &Path) -> Option<PciId> {
    let class = fs::read_to_string(device.join("class")).ok()?;
    if !class.starts_with("0x03") {
        return None;
    }
    crate::nodes::read_pci_id(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_a_gpu_and_no_driver_for_it() {
        let root = tempfile::tempdir().unwrap();
        let (sys, proc) = (root.path().join("sys"), root.path().join("proc"));
        let write = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(&proc.join("sys/kernel/osrelease"), "6.1.0-25-cloud-amd64\n");
        let bus = sys.join("bus/pci/devices");
        for (slot, class, device) in
            [("02.0", "0x030000", "0x3e92"), ("1f.0", "0x060100", "0xa304")]
        {
            write(&bus.join(slot).join("class"), class);
            write(&bus.join(slot).join("vendor"), "0x8086\n");
            write(&bus.join(slot).join("device"), device);
        }
        let expect = Facts {
            kernel: "6.1.0-25-cloud-amd64".into(),
            controllers: vec![PciId { vendor: 0x8086, device: 0x3e92 }],
            ..Facts::default()
        };
        assert_eq!(Facts::read_in(&sys, &proc), expect);
        fs::create_dir_all(sys.join("class/drm/renderD128")).unwrap();
        assert_eq!(Facts::read_in(&sys, &proc), Facts { drm: true, kernel_nodes: 1, ..expect });
    }
}
