//! The GPU that these tests run on, if they are told one.
//!
//! `RENDERGATE_TEST_GPU` names a file that `./dev hwtest` writes: what the GPU can do, as the gateway
//! would tell a worker, and the environment in which a worker finds it (a virtual one needs a
//! library preloaded). Without the variable everything runs in software.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// What the file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestGpu {
    /// Whose it is.
    pub kind: Kind,
    /// All that the probe found out about it.
    pub report: gpu::NodeReport,
    /// What streams may use of it.
    pub device: gpu::Device,
    /// What a process needs in its environment to find it.
    pub environment: BTreeMap<String, String>,
}

/// Whose a GPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The machine's own.
    Real,
    /// The VA-API driver in software, on a node that isn't there.
    Virtual,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Real => "real",
            Self::Virtual => "virtual",
        })
    }
}

impl TestGpu {
    /// Whether it decodes at all.
    pub fn decodes(&self) -> bool {
        self.device.abilities.keys().any(|operation| operation.name().starts_with("decode"))
    }

    /// Whether it encodes at all.
    pub fn encodes(&self) -> bool {
        self.device.abilities.keys().any(|operation| operation.name().starts_with("encode"))
    }
}

/// What a worker must be able to read for a virtual GPU, as a list: the driver, and the files that stand
/// for those in `/dev` and `/sys`.
///
/// # Panics
/// If the driver isn't built.
pub fn virtual_places() -> String {
    format!("{}:{}", crate::built("libsoftva.so").display(), std::env::temp_dir().display())
}

/// The GPU under test.
///
/// # Panics
/// If the file that is named can't be read.
pub fn under_test() -> Option<&'static TestGpu> {
    static GPU: LazyLock<Option<TestGpu>> = LazyLock::new(|| {
        let path = std::env::var_os("RENDERGATE_TEST_GPU")?;
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("RENDERGATE_TEST_GPU is {path:?}: {error}"));
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}")))
    });
    GPU.as_ref()
}
