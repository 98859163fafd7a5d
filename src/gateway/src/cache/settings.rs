//! Settings: the section `[cache]` of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Megabytes: two films of two hours at 4 Mbit/s, which is what an evening brings, on disks that hold films.
pub const DEFAULT_MEGABYTES: u64 = 8000;
/// Share of the disk: file systems become slow, and their owners nervous, when less is free.
pub const DEFAULT_FREE_SHARE: f64 = 0.1;

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Where finished segments are kept, in a folder `rendergate-segments`. Unset: in `$CACHE_DIRECTORY`,
    /// `$XDG_CACHE_HOME/rendergate` or `~/.cache/rendergate`, the first that can be written.
    pub directory: Option<PathBuf>,
    /// As many are kept, in millions of bytes; 0 keeps none.
    pub megabytes: u64,
    /// Share of that disk that is left free, 0 to below 1: with less there is nothing is kept, and what was
    /// kept goes.
    pub free_share: f64,
}

impl Default for Cache {
    fn default() -> Self {
        Self { directory: None, megabytes: DEFAULT_MEGABYTES, free_share: DEFAULT_FREE_SHARE }
    }
}
