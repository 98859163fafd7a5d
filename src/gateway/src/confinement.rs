//! The workers' sandbox, as far as the gateway has to do with it: what they are told, and what becomes
//! of what they say. Each says with its stream what holds it in.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use session::Sandbox;
use tracing::{debug, warn};

use crate::config;
use crate::metrics::Metrics;
use crate::streams::Entry;

/// How much a worker's sandbox matters. Media is parsed in many thousand lines of C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sandboxing {
    /// What the kernel offers; what is missing is logged. Containers differ in what they let through.
    #[default]
    BestEffort,
    /// Without it streams are left to the hook's own ffmpeg.
    Required,
    /// None.
    Off,
}

impl Sandboxing {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Required => "required",
            Self::Off => "off",
        }
    }
}

/// What workers have said so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Confinement {
    /// What was missing the last time.
    warned: Arc<Mutex<Option<String>>>,
}

impl Confinement {
    /// Notes what holds the worker of a stream in. What is missing is the same for every stream, so it
    /// is said once.
    pub(crate) fn hear(&self, sandbox: &Sandbox, entry: &Entry, metrics: &Metrics) {
        metrics.sandboxed(sandbox);
        entry.with(|record| record.sandbox = Some(layers(sandbox)));
        debug!(landlock = sandbox.landlock, seccomp = sandbox.seccomp, "sandboxed");
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if *warned != sandbox.missing {
            if let Some(missing) = &sandbox.missing {
                warn!(missing, "workers aren't held in by all of their sandbox");
            }
            warned.clone_from(&sandbox.missing);
        }
    }
}

/// By name.
fn layers(sandbox: &Sandbox) -> Vec<String> {
    let layers = [("landlock", sandbox.landlock.is_some()), ("seccomp", sandbox.seccomp)];
    layers.iter().filter(|(_, held)| *held).map(|(name, _)| (*name).to_owned()).collect()
}

/// What workers find in their environment, where the worker's program reads it.
pub(crate) fn environment(settings: &config::Worker) -> Vec<(OsString, OsString)> {
    let list = |paths: &[PathBuf]| {
        let paths: Vec<OsString> = paths.iter().map(|path| path.clone().into()).collect();
        paths.join(std::ffi::OsStr::new(":"))
    };
    vec![
        ("RENDERGATE_SANDBOX".into(), settings.sandbox.as_str().into()),
        ("RENDERGATE_SANDBOX_READ".into(), list(&settings.sandbox_read)),
        ("RENDERGATE_SANDBOX_WRITE".into(), list(&settings.sandbox_write)),
    ]
}
