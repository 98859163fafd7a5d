//! The stages of a backend, as `pipelines/*.toml` states them.
//!
//! A file names elements, properties and when they apply; this module reads it and answers "which
//! stages for this stream?" Substitution of facts happens here, in one place, so that the rest of
//! the worker sees finished property values.
//!
//! Invariants:
//! - Reading is strict: an unknown key is an error, a file without a needed stage is an error.
//! - Nothing here touches GStreamer: caps are text until the graph is built.

use std::collections::{BTreeMap, BTreeSet};

use gpu::Operation;
use serde::Deserialize;

use crate::turn::Rotation;

/// The stages that the worker carries with it.
pub const SOFTWARE: &str = include_str!("../../../pipelines/software.toml");
/// What of it a GPU can take over.
pub const VAAPI: &str = include_str!("../../../pipelines/vaapi.toml");

/// What is known about a stream when its graph is described; names are those of the `{...}` in
/// `pipelines/`.
pub type Facts = BTreeMap<&'static str, String>;

/// Why a pipelines file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("pipelines file: {0}")]
pub struct StagesError(#[from] toml::de::Error);

/// One backend's stages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stages {
    /// Name of the backend, as it appears in logs and metrics.
    pub backend: String,
    /// Containers.
    #[serde(rename = "demuxer")]
    pub demuxers: Vec<Demuxer>,
    /// Decoders by input caps; the first match counts.
    #[serde(rename = "decoder")]
    pub decoders: Vec<Chain>,
    /// Chains for stream copy by input caps.
    #[serde(rename = "copy")]
    pub copies: Vec<Chain>,
    /// Filters of the picture between decoder and encoder, in order.
    #[serde(rename = "picture")]
    pub picture: Vec<Stage>,
    /// Filters of the sound between decoder and encoder, in order.
    #[serde(rename = "sound")]
    pub sound: Vec<Stage>,
    /// Encoders by codec.
    #[serde(rename = "encoder")]
    pub encoders: Vec<Encoder>,
    /// What a GPU can take over.
    #[serde(skip)]
    pub gpu: Option<GpuStages>,
}

/// A stream of the source, as far as a graph depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStream {
    /// Caps as text.
    pub caps: String,
    /// Index of the chain in [`Stages::decoders`] that takes it.
    pub decoder: Option<usize>,
    /// Index of the chain in [`Stages::copies`] that takes it.
    pub copy: Option<usize>,
    /// Index of the decoder in [`GpuStages::decoders`] that takes it.
    pub gpu_decoder: Option<usize>,
    /// Pixels, if the container states them, before any turning.
    pub size: Option<(u32, u32)>,
    /// How the picture is turned.
    pub turn: Option<Rotation>,
}

/// A container format.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demuxer {
    /// What type finding reports for it, as caps.
    pub caps: Vec<String>,
    /// The element.
    pub element: String,
    /// How its timestamps relate to ffmpeg's.
    #[serde(default)]
    pub clock: Clock,
    /// How it finds the start of the output.
    #[serde(default)]
    pub seek: SeekTo,
}

/// What a demuxer is asked for when it seeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeekTo {
    /// The last keyframe at or before the time.
    #[default]
    Keyframe,
    /// The time itself, without trusting an index; data may begin earlier.
    Exact,
}

/// How a demuxer's timestamps relate to those of ffmpeg's demuxer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Stream time is the container's own time.
    #[default]
    Container,
    /// Buffers carry the container's own time; their stream time counts from the first.
    Timestamps,
    /// Counted from the first clock reference; the raw timestamps are read from the packets.
    Mpegts,
}

/// A chain of elements for streams of certain caps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Caps that the stream must be able to intersect with.
    pub caps: String,
    /// The elements, in order.
    pub chain: Vec<Stage>,
}

/// One element of a chain.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Factory name.
    pub element: String,
    /// Properties; values may hold `{fact}`.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Caps filter behind the element.
    pub caps: Option<String>,
    /// Facts that must be known.
    #[serde(default)]
    pub when: BTreeSet<String>,
    /// Facts that must not be known.
    #[serde(default)]
    pub unless: BTreeSet<String>,
}

/// An encoder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoder {
    /// Codec in the plan's spelling (`h264`, `aac`).
    pub codec: String,
    /// Factory name.
    pub element: String,
    /// Properties that always apply.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Caps filter behind the encoder.
    pub caps: Option<String>,
    /// Properties that apply under conditions.
    #[serde(default, rename = "set")]
    pub sets: Vec<PropertySet>,
    /// Samples that the encoder puts before the first one it was given.
    #[serde(default)]
    pub priming: u32,
    /// Sample rates that it takes, best first, in Hz. Empty: any.
    #[serde(default)]
    pub rates: Vec<u32>,
}

/// Properties under a condition.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PropertySet {
    /// Facts that must be known.
    #[serde(default)]
    pub when: BTreeSet<String>,
    /// Facts that must not be known.
    #[serde(default)]
    pub unless: BTreeSet<String>,
    /// The properties.
    pub properties: BTreeMap<String, String>,
}

/// Stages on a GPU, as `pipelines/vaapi.toml` states them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuStages {
    /// Name of the backend, as it appears in logs and metrics.
    pub backend: String,
    /// Decoders; the first whose caps hold all of a stream's counts.
    #[serde(rename = "decoder")]
    pub decoders: Vec<GpuDecoder>,
    /// Filters of pictures that are decoded on the GPU, in order.
    pub picture: Vec<Stage>,
    /// Encoders by codec.
    #[serde(rename = "encoder")]
    pub encoders: Vec<GpuEncoder>,
}

/// A decoder.
#[derive(Debug, Clone, Deserialize)]
pub struct GpuDecoder {
    /// What the GPU must be able to do.
    pub operation: Operation,
    /// The elements.
    #[serde(flatten)]
    pub chain: Chain,
}

/// An encoder.
#[derive(Debug, Clone, Deserialize)]
pub struct GpuEncoder {
    /// What the GPU must be able to do one of, best first.
    pub operations: Vec<Operation>,
    /// The element.
    #[serde(flatten)]
    pub encoder: Encoder,
}

impl GpuStages {
    /// Reads a pipelines file.
    ///
    /// # Errors
    /// [`StagesError`] with line and column.
    pub fn parse(text: &str) -> Result<Self, StagesError> {
        Ok(toml::from_str(text)?)
    }
}

/// An element of a graph, values final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Factory name.
    pub element: String,
    /// Properties as text, as `gst-launch` takes them.
    pub properties: BTreeMap<String, String>,
    /// Caps filter behind it.
    pub caps: Option<String>,
}

impl Stages {
    /// Reads a pipelines file.
    ///
    /// # Errors
    /// [`StagesError`] with line and column.
    pub fn parse(text: &str) -> Result<Self, StagesError> {
        Ok(toml::from_str(text)?)
    }

    /// What the worker carries with it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); the tests of this room see to it that there are none.
    pub fn shipped() -> Result<Self, StagesError> {
        let gpu = Some(GpuStages::parse(VAAPI)?);
        Ok(Self { gpu, ..Self::parse(SOFTWARE)? })
    }

    /// The encoder for a codec of the plan.
    pub fn encoder(&self, codec: &str) -> Option<&Encoder> {
        self.encoders.iter().find(|encoder| encoder.codec == codec)
    }

    /// Every element the file names, for checking and warming up.
    pub fn elements(&self) -> BTreeSet<&str> {
        let chains = self.decoders.iter().chain(&self.copies).flat_map(|chain| &chain.chain);
        chains
            .chain(&self.picture)
            .chain(&self.sound)
            .map(|stage| stage.element.as_str())
            .chain(self.encoders.iter().map(|encoder| encoder.element.as_str()))
            .chain(self.demuxers.iter().map(|demuxer| demuxer.element.as_str()))
            .collect()
    }
}

impl Stage {
    /// The element with its values, or `None` if it doesn't apply.
    pub fn resolve(&self, facts: &Facts) -> Option<Node> {
        applies(&self.when, &self.unless, facts).then(|| Node {
            element: element(&self.element, facts),
            properties: resolve_all(&self.properties, facts),
            caps: self.caps.as_deref().map(|caps| resolve_caps(caps, facts)),
        })
    }
}

impl Encoder {
    /// The encoder with its values.
    pub fn resolve(&self, facts: &Facts) -> Node {
        let mut properties = resolve_all(&self.properties, facts);
        for set in &self.sets {
            if applies(&set.when, &set.unless, facts) {
                properties.extend(resolve_all(&set.properties, facts));
            }
        }
        Node {
            element: element(&self.element, facts),
            properties,
            caps: self.caps.as_deref().map(|caps| resolve_caps(caps, facts)),
        }
    }

    /// The sample rate to encode at for a source of `source` Hz: the same if possible, else the
    /// next higher one, else the highest.
    pub fn rate_for(&self, source: u32) -> u32 {
        if self.rates.is_empty() || self.rates.contains(&source) {
            return source;
        }
        let higher = self.rates.iter().copied().filter(|rate| *rate > source).min();
        higher.or_else(|| self.rates.iter().copied().max()).unwrap_or(source)
    }
}

/// The factory's name, which may be a fact: those of a GPU's elements depend on the machine. A
/// missing one stays as it is written, and is missed by name when the graph is built.
fn element(name: &str, facts: &Facts) -> String {
    resolve(name, facts).unwrap_or_else(|| name.to_owned())
}

fn applies(when: &BTreeSet<String>, unless: &BTreeSet<String>, facts: &Facts) -> bool {
    when.iter().all(|fact| facts.contains_key(fact.as_str()))
        && !unless.iter().any(|fact| facts.contains_key(fact.as_str()))
}

fn resolve_all(properties: &BTreeMap<String, String>, facts: &Facts) -> BTreeMap<String, String> {
    properties
        .iter()
        .filter_map(|(name, value)| {
            let value =
                if name == "caps" { resolve_caps(value, facts) } else { resolve(value, facts)? };
            Some((name.clone(), value))
        })
        .collect()
}

/// Puts facts into a value; `None` if one is missing.
fn resolve(value: &str, facts: &Facts) -> Option<String> {
    let mut resolved = String::with_capacity(value.len());
    let mut rest = value;
    // `{ int, int }` lists of caps hold no bare name and stay as they are.
    while let Some(open) = rest.find('{') {
        let Some(length) = rest[open..].find('}') else { break };
        let name = &rest[open + 1..open + length];
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit());
        resolved.push_str(&rest[..open]);
        if is_name {
            resolved.push_str(facts.get(name)?);
        } else {
            resolved.push_str(&rest[open..=open + length]);
        }
        rest = &rest[open + length + 1..];
    }
    resolved.push_str(rest);
    Some(resolved)
}

/// As [`resolve`], but a caps field whose fact is missing is left out.
fn resolve_caps(caps: &str, facts: &Facts) -> String {
    let fields: Vec<String> = caps.split(", ").filter_map(|field| resolve(field, facts)).collect();
    fields.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_ships_is_valid() {
        let stages = Stages::parse(SOFTWARE).unwrap();
        assert_eq!(stages.backend, "software");
        for codec in ["h264", "hevc", "aac", "ac3", "eac3", "mp3", "opus", "flac"] {
            assert!(stages.encoder(codec).is_some(), "{codec}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = SOFTWARE.replacen("element =", "elemnt =", 1);
        assert!(Stages::parse(&text).unwrap_err().to_string().contains("elemnt"));
    }

    #[test]
    fn missing_facts_leave_the_default() {
        let facts = Facts::from([("crf", "23".to_owned())]);
        assert_eq!(resolve("{crf}", &facts).as_deref(), Some("23"));
        assert_eq!(resolve("a{crf}b", &facts).as_deref(), Some("a23b"));
        assert_eq!(resolve("{max_kbps}", &facts), None);
        assert_eq!(resolve("(int){ 1, 2 }", &facts).as_deref(), Some("(int){ 1, 2 }"));
        assert_eq!(resolve_caps("video/x-h264, profile={h264_profile}", &facts), "video/x-h264");
    }

    #[test]
    fn sample_rates() {
        let stages = Stages::parse(SOFTWARE).unwrap();
        let ac3 = stages.encoder("ac3").unwrap();
        assert_eq!(ac3.rate_for(44100), 44100);
        assert_eq!(ac3.rate_for(22050), 32000);
        assert_eq!(ac3.rate_for(96000), 48000);
        assert_eq!(stages.encoder("opus").unwrap().rate_for(44100), 48000);
    }
}
