//! Settings: the sections `[admission]` and `[state]` of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Share of each engine that is given to streams. Pictures vary, a seek takes more for a moment, and on a
/// processor that is full everything takes longer. Livepeer's rule of thumb is a fifth to spare; with less,
/// streams that were taken have stood still where a virtual machine's host was busy.
pub const DEFAULT_TARGET_UTILISATION: f64 = 0.8;

/// The lowest priority: several such ffmpegs, of several threads each, together take a twentieth. At 10
/// they took a quarter, which is more than is spared ([`DEFAULT_TARGET_UTILISATION`]).
pub const DEFAULT_FFMPEG_NICENESS: u8 = 19;

/// `[admission]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    /// Whether streams for which GPU or processor have no time left are run otherwise: on another GPU,
    /// encoded faster, in software, or by the hook's own ffmpeg. What they cost is measured either way.
    pub enabled: bool,
    /// Share of each engine and of the processor that is given to streams, above 0 up to 1.
    pub target_utilisation: f64,
    /// What is added to the niceness of the hook's own ffmpeg where it runs a stream for which there is
    /// no room: 0 to 19. It has the same processor, and would have the streams stall that were taken.
    pub ffmpeg_niceness: u8,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            enabled: true,
            target_utilisation: DEFAULT_TARGET_UTILISATION,
            ffmpeg_niceness: DEFAULT_FFMPEG_NICENESS,
        }
    }
}

/// `[state]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Where the measured costs are kept. Unset: `$STATE_DIRECTORY` (systemd's), `/var/lib/rendergate`
    /// if it can be written, `$XDG_STATE_HOME/rendergate` or `~/.local/state/rendergate`.
    pub directory: Option<PathBuf>,
}
