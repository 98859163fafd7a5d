//! What is missing and what to do about it, from what has been found.
//!
//! Package names are Debian's and Ubuntu's. Each piece of advice says what was seen, so that one
//! that doesn't fit can be told by its reader.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::nodes::{Problem, RenderNode};
use crate::report::{Capabilities, Entrypoint, NodeProbe, Operation, Outcome, Trial, VaapiFailure};

const INTEL: u16 = 0x8086;
const NVIDIA: u16 = 0x10de;

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// For programs.
    pub code: Code,
    /// What was seen.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

/// Kinds of advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No GPU on the bus.
    NoGpu,
    /// A GPU, but a kernel without DRM.
    KernelWithoutDrm,
    /// A GPU, but no driver has taken it.
    NoKernelDriver,
    /// The kernel has render nodes that this environment isn't shown.
    NodesNotPassedIn,
    /// A node's group is lacking.
    NoPermission,
    /// A node's file without a device.
    NoDevice,
    /// libva isn't installed.
    NoLibva,
    /// No VA-API driver is installed.
    NoVaDriver,
    /// A VA-API driver that gives up.
    VaDriverRefused,
    /// One driver's name is forced upon GPUs of different makers.
    ForcedDriver,
    /// Intel's driver without its closed kernels.
    FreeIntelDriver,
    /// Low-power encode without rate control.
    HucMissing,
    /// Low-power encode is all there is, and it failed.
    LowPowerFails,
    /// GStreamer's `va` plugin isn't installed.
    NoVaPlugin,
    /// The plugin offers nothing on this node.
    NoElements,
    /// The driver takes work, and no right picture comes out.
    NothingWorks,
    /// The probe process died or hung before it answered.
    ProbeFailed,
}

fn advice(code: Code, found: impl Into<String>, remedy: impl Into<String>) -> Advice {
    Advice { code, found: found.into(), remedy: remedy.into() }
}

/// Advice for the machine as a whole.
pub fn for_machine(nodes: &[RenderNode], facts: &Facts) -> Vec<Advice> {
    let mut all = Vec::new();
    if nodes.is_empty() {
        all.push(no_nodes(facts));
    }
    let mut drivers: Vec<_> = nodes.iter().filter_map(|node| node.driver.as_deref()).collect();
    drivers.sort_unstable();
    drivers.dedup();
    if let (Some(name), true) = (&facts.forced_driver, drivers.len() > 1) {
        all.push(advice(
            Code::ForcedDriver,
            format!(
                "LIBVA_DRIVER_NAME={name} holds for every GPU, and these are of different kinds: {}",
                drivers.join(", ")
            ),
            "unset it: libva finds the driver of each node by itself",
        ));
    }
    all
}

fn no_nodes(facts: &Facts) -> Advice {
    if facts.kernel_nodes > 0 {
        return advice(
            Code::NodesNotPassedIn,
            format!(
                "the kernel has {} render node(s), but there is none in /dev/dri here",
                facts.kernel_nodes
            ),
            "pass them in: `--device /dev/dri` for Docker and Podman, a device plugin for \
             Kubernetes, `dev0: /dev/dri/renderD128,gid=...` for Proxmox LXC; under systemd \
             remove PrivateDevices=yes",
        );
    }
    let Some(first) = facts.controllers.first() else {
        return advice(
            Code::NoGpu,
            "no render node in /dev/dri, and no display controller on the PCI bus",
            "if this is a virtual machine, pass the GPU (or a virtual function of it) through to \
             it; otherwise enable the GPU in the firmware. Streams run in software until then",
        );
    };
    if facts.drm {
        advice(
            Code::NoKernelDriver,
            format!("no render node in /dev/dri, although there is a GPU ({first})"),
            "no kernel driver has taken it: look for its name in `lspci -k` and `dmesg`; it may be \
             bound to vfio-pci, blacklisted, or newer than this kernel",
        )
    } else {
        let remedy = if facts.kernel.contains("cloud") {
            "this is a cloud kernel, which is built without GPU drivers: install the ordinary one \
             (Debian: `apt install linux-image-amd64`, and remove linux-image-cloud-amd64) and \
             reboot"
        } else {
            "load the GPU's module (`modprobe i915`, `xe` or `amdgpu`), or install a kernel that \
             has it (Ubuntu: linux-modules-extra)"
        };
        let kernel = &facts.kernel;
        let found = format!("there is a GPU ({first}), but the kernel {kernel} has no DRM loaded");
        advice(Code::KernelWithoutDrm, found, remedy)
    }
}

/// Advice for one node. `probe` is missing if the node couldn't be asked, or the probe process did
/// not answer.
pub fn for_node(node: &RenderNode, probe: Option<&NodeProbe>, trials: &[Trial]) -> Vec<Advice> {
    if let Some(problem) = &node.problem {
        return vec![for_problem(node, problem)];
    }
    let Some(probe) = probe else { return Vec::new() };
    let mut all = Vec::new();
    let capabilities = match &probe.vaapi {
        Ok(capabilities) => Some(capabilities),
        Err(failure) => {
            all.push(for_vaapi_failure(node, failure));
            None
        }
    };
    if !probe.va_plugin {
        all.push(advice(
            Code::NoVaPlugin,
            format!("GStreamer {} has no `va` plugin", probe.gstreamer),
            "`apt install gstreamer1.0-plugins-bad`; if it is installed, `gst-inspect-1.0 -b` says \
             whether it was taken out of use after a crash (delete the registry then)",
        ));
    }
    let Some(capabilities) = capabilities else { return all };
    all.extend(for_intel(node, capabilities, trials));
    if probe.va_plugin && probe.elements.is_empty() {
        all.push(advice(
            Code::NoElements,
            format!(
                "GStreamer {} offers no element for this node's driver ({})",
                probe.gstreamer, capabilities.vendor
            ),
            "from 1.24 on it takes only drivers it knows: GST_VA_ALL_DRIVERS=1 lifts that",
        ));
    }
    if matches!(Outcome::of_node(trials), Outcome::Failed { .. }) {
        all.push(advice(
            Code::NothingWorks,
            "the driver takes work, but nothing that was tried gave the right picture",
            "look into `dmesg` for hangs of the GPU; try another version of the VA-API driver or \
             the kernel. Streams run in software until then",
        ));
    }
    all
}

/// Advice for a node whose probe process gave no answer.
pub fn for_dead_probe(reason: &str) -> Advice {
    advice(
        Code::ProbeFailed,
        format!("the probe process gave no answer: {reason}"),
        "the driver is the usual cause: `vainfo --display drm --device NODE` shows whether it is, \
         and `dmesg` whether the GPU hangs",
    )
}

fn for_problem(node: &RenderNode, problem: &Problem) -> Advice {
    let path = node.path.display();
    match problem {
        Problem::PermissionDenied { group } => advice(
            Code::NoPermission,
            format!("{path} may not be opened: it belongs to the group {group}"),
            format!(
                "`usermod -aG {group} USER` for the user that runs rendergate, and start it anew; \
                 in containers `--group-add {group}` (supplementalGroups for Kubernetes), by \
                 number if the name isn't known there"
            ),
        ),
        Problem::NoDevice | Problem::Unopened { .. } => advice(
            Code::NoDevice,
            format!("{path}: {problem}"),
            "the file is a leftover or was copied in: remove it, and pass the device itself in",
        ),
    }
}

fn for_vaapi_failure(node: &RenderNode, failure: &VaapiFailure) -> Advice {
    let (code, remedy) = match failure {
        VaapiFailure::NoLibrary { .. } => (Code::NoLibva, "`apt install libva2 libva-drm2`".into()),
        VaapiFailure::NoDriver { .. } => (Code::NoVaDriver, package_for(node)),
        VaapiFailure::Refused { .. } => (
            Code::VaDriverRefused,
            format!("is it the right one for this GPU? {}", package_for(node)),
        ),
    };
    advice(code, failure.to_string(), remedy)
}

/// Which package has the VA-API driver for a kernel driver.
fn package_for(node: &RenderNode) -> String {
    match node.driver.as_deref() {
        Some("i915" | "xe") => "`apt install intel-media-va-driver-non-free` (Debian: component \
             non-free, Ubuntu: multiverse) for GPUs since Broadwell, i965-va-driver-shaders for \
             older ones"
            .into(),
        Some("amdgpu" | "radeon" | "nouveau" | "virtio_gpu") => {
            "`apt install mesa-va-drivers`".into()
        }
        _ if node.pci.is_some_and(|pci| pci.vendor == NVIDIA) => {
            "NVIDIA's own driver has no VA-API that encodes: streams run in software on it".into()
        }
        Some(driver) => format!(
            "there is no package known for the kernel driver {driver}; LIBVA_DRIVERS_PATH says \
             where else to look for {driver}_drv_video.so"
        ),
        None => "no package is known for it".into(),
    }
}

fn for_intel(node: &RenderNode, capabilities: &Capabilities, trials: &[Trial]) -> Vec<Advice> {
    let mut all = Vec::new();
    if node.pci.is_none_or(|pci| pci.vendor != INTEL) {
        return all;
    }
    // With its closed kernels the driver scales on every chip it knows.
    if capabilities.vendor.contains("iHD") && capabilities.processing.is_none() {
        all.push(advice(
            Code::FreeIntelDriver,
            "Intel's driver reports no scaling, deinterlacing or tone mapping: it is the build \
             without the closed kernels (package intel-media-va-driver), which also lacks encoders",
            "`apt install intel-media-va-driver-non-free` (Debian: component non-free, Ubuntu: \
             multiverse)",
        ));
    }
    let Some(low_power) = capabilities.entry("H264", &Entrypoint::EncodeLowPower) else {
        return all;
    };
    let only = !capabilities.reports("H264", &Entrypoint::Encode);
    let controls = |mode: &str| low_power.rate_control.iter().any(|known| known == mode);
    let failed = trials.iter().any(|trial| {
        trial.operation == Operation::EncodeH264LowPower
            && matches!(trial.outcome, Outcome::Failed { .. })
    });
    let huc = "it needs the HuC firmware on chips before Alder Lake: install firmware-misc-nonfree \
        (Ubuntu: linux-firmware), boot with `i915.enable_guc=2` on the kernel's command line, and \
        check `dmesg | grep -i huc`";
    if !controls("CBR") && !controls("VBR") {
        all.push(advice(
            Code::HucMissing,
            "low-power H.264 encode has no rate control (neither CBR nor VBR)",
            huc,
        ));
    } else if only && failed {
        all.push(advice(
            Code::LowPowerFails,
            "low-power encode is the only H.264 encode here, and it failed",
            huc,
        ));
    }
    all
}

#[cfg(test)]
mod tests;
