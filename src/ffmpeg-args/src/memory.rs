//! Where a picture lies between two filters, and the devices whose memory that is.

use std::fmt;

/// A device as `hwmap` and `hwupload` derive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Vaapi,
    Qsv,
    Cuda,
    /// Maps tones for VA-API and Quick Sync.
    Opencl,
    /// Maps tones and turns for AMD.
    Vulkan,
    /// A way station from VA-API to Vulkan.
    Drm,
}

impl Device {
    const ALL: [Self; 6] =
        [Self::Vaapi, Self::Qsv, Self::Cuda, Self::Opencl, Self::Vulkan, Self::Drm];

    /// As `derive_device=` names it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|device| device.name() == name)
    }

    /// As `-hwaccel` names it: one that decodes.
    pub(crate) fn decoder(name: &str) -> Option<Self> {
        Self::named(name).filter(|device| matches!(device, Self::Vaapi | Self::Qsv | Self::Cuda))
    }

    /// As `format=` names its pictures.
    pub(crate) fn of_format(format: &str) -> Option<Self> {
        match format {
            "drm_prime" => Some(Self::Drm),
            "drm" => None,
            name => Self::named(name),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Vaapi => "vaapi",
            Self::Qsv => "qsv",
            Self::Cuda => "cuda",
            Self::Opencl => "opencl",
            Self::Vulkan => "vulkan",
            Self::Drm => "drm",
        }
    }
}

/// Where a picture lies between two filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Main memory.
    System,
    /// A device's memory.
    On(Device),
    /// Behind `hwmap` or `hwdownload`: the `format` that must follow says in what. With a derived
    /// device it must be that one's.
    Mapped(Option<Device>),
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("main memory"),
            Self::On(device) => write!(f, "{} memory", device.name()),
            Self::Mapped(_) => f.write_str("mapped memory of no format yet"),
        }
    }
}
