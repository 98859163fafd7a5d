//! What a stream asks of a GPU or of the processor: pixels, by what is done to them.
//!
//! Rates are megapixels of picture per second of media, so they say what a stream needs to play, not
//! what it does while it runs ahead. The rate of pixels that a device reaches depends on codec and
//! operation, and hardly on the size of the picture; so a device is described by one cost per
//! [`Task`], and a stream by how many pixels of each task it has.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engines::Engine;

/// What is done to a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Counted in pixels of the source.
    Decode,
    /// Counted in pixels that go in.
    Deinterlace,
    /// Scaling and conversion of format; counted in pixels that go in.
    Scale,
    /// From HDR to SDR; counted in pixels of the output.
    ToneMap,
    /// Counted in pixels of the output.
    Encode,
}

impl Action {
    /// Stable word, as in JSON and in labels of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Deinterlace => "deinterlace",
            Self::Scale => "scale",
            Self::ToneMap => "tone_map",
            Self::Encode => "encode",
        }
    }
}

/// Work of one kind: what costs the same per pixel on a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Task {
    /// What is done.
    pub action: Action,
    /// `h264`, `hevc`, `hevc10` (ten bits), `vp9`, `h264_low_power`; empty if it is no codec's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub codec: String,
    /// An encoder's speed in its own words: x264's preset, a GPU's `target-usage`. Empty: its default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preset: String,
}

impl Task {
    /// Of a decoder.
    pub fn decode(codec: &str) -> Self {
        Self { action: Action::Decode, codec: codec.into(), preset: String::new() }
    }

    /// Of an encoder.
    pub fn encode(codec: &str, preset: &str) -> Self {
        Self { action: Action::Encode, codec: codec.into(), preset: preset.into() }
    }

    /// Of a filter.
    pub fn filter(action: Action) -> Self {
        Self { action, codec: String::new(), preset: String::new() }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.label())?;
        for part in [&self.codec, &self.preset].into_iter().filter(|part| !part.is_empty()) {
            write!(f, " {part}")?;
        }
        Ok(())
    }
}

/// A part of a stream's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub task: Task,
    /// Done by the GPU of [`Work::node`]; else by the processor.
    pub on_gpu: bool,
    /// Megapixels per second of media.
    pub megapixels: f64,
}

/// A way in which a stream can be run, and what it asks for.
///
/// Copies and sound aren't in it: they cost next to nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Work {
    /// The GPU that has a part in it.
    pub node: Option<PathBuf>,
    /// Encoded faster, and so worse, than the command asks for.
    pub faster: bool,
    /// From source to output.
    pub steps: Vec<Step>,
}

/// What came of measuring a task by itself: a line of a calibrating process's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured.
    pub task: Task,
    /// Megapixels that went through, counted as [`Action`] says.
    pub megapixels: f64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Processor time in seconds, of all threads.
    pub cpu_seconds: f64,
    /// What a GPU's engines took, by class. Empty if the driver doesn't say, or there is none.
    pub engines: BTreeMap<String, Engine>,
}
