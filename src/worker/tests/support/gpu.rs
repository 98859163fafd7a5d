//! The GPU that these tests run on, if they are told one.
//!
//! `RENDERGATE_TEST_GPU` names a file that `./dev hwtest` writes: what the GPU can do, as the gateway
//! would tell a worker, and the environment in which a worker finds it (a virtual one needs a
//! library preloaded). Without the variable everything runs in software.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// What the file says.
#[derive(Debug, Clone, Deserialize)]
pub struct TestGpu {
    pub device: gpu::Device,
    pub environment: BTreeMap<String, String>,
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

/// The GPU under test.
pub fn under_test() -> Option<&'static TestGpu> {
    static GPU: LazyLock<Option<TestGpu>> = LazyLock::new(|| {
        let path = std::env::var_os("RENDERGATE_TEST_GPU")?;
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("RENDERGATE_TEST_GPU is {path:?}: {error}"));
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}")))
    });
    GPU.as_ref()
}
