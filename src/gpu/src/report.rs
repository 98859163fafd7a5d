//! What is known of a machine's GPUs, in a form that programs can keep.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::advice::Advice;
use crate::nodes::RenderNode;

/// All of a machine's GPUs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Whether anything at all has been seen working.
    pub usable: bool,
    /// In the order of the nodes' numbers.
    pub nodes: Vec<NodeReport>,
    /// What concerns no single node.
    pub advice: Vec<Advice>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node itself.
    pub node: RenderNode,
    /// Usable if any operation is; failed if all that were tried have; untested otherwise.
    pub state: Outcome,
    /// What the probe process found, if it lived to say it.
    pub probe: Option<NodeProbe>,
    /// What came of trying, operation by operation.
    pub trials: Vec<Trial>,
    /// What is missing and what to do.
    pub advice: Vec<Advice>,
}

/// What the probe process says of a node before anything is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeProbe {
    /// GStreamer's version, as `1.22.0`.
    pub gstreamer: String,
    /// Whether GStreamer has its `va` plugin.
    pub va_plugin: bool,
    /// Names of the elements that work on this node.
    pub elements: Vec<String>,
    /// What the VA-API driver reports.
    #[serde(with = "ReportedOrFailed")]
    pub vaapi: Result<Capabilities, VaapiFailure>,
}

/// The form of a `Result` in JSON: `{"reported": …}` or `{"failed": …}`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Result", rename_all = "snake_case")]
enum ReportedOrFailed<T, E> {
    #[serde(rename = "reported")]
    Ok(T),
    #[serde(rename = "failed")]
    Err(E),
}

/// Why there is no VA-API on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VaapiFailure {
    /// `libva.so.2` or `libva-drm.so.2` can't be loaded.
    NoLibrary {
        /// The loader's words.
        message: String,
    },
    /// None of the driver's files exist.
    NoDriver {
        /// Where they were looked for.
        tried: Vec<PathBuf>,
    },
    /// A driver was found, and refused.
    Refused {
        /// In libva's and the driver's words.
        message: String,
    },
}

impl fmt::Display for VaapiFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLibrary { message } => write!(f, "libva can't be loaded: {message}"),
            Self::NoDriver { tried } => {
                let tried: Vec<_> = tried.iter().map(|path| path.display().to_string()).collect();
                write!(f, "no VA-API driver is installed; looked for {}", tried.join(", "))
            }
            Self::Refused { message } => write!(f, "the VA-API driver gave up: {message}"),
        }
    }
}

/// What a VA-API driver reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The driver's own name and version.
    pub vendor: String,
    /// VA-API's version, as `1.17`.
    pub version: String,
    /// Profiles with their entrypoints, sorted by name.
    pub entries: Vec<Entry>,
    /// Scaling and filters, if the driver has any.
    pub processing: Option<Processing>,
}

/// One thing that a driver can do to one profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// VA-API's name without prefix: `H264High`, `HEVCMain10`, `VP9Profile0`.
    pub profile: String,
    /// What can be done.
    pub entrypoint: Entrypoint,
    /// Greatest picture in pixels, if the driver says.
    pub max_size: Option<(u32, u32)>,
    /// Forms of pictures: `YUV420`, `YUV420_10`.
    pub formats: Vec<String>,
    /// Of encoders: `CBR`, `VBR`, `CQP`, ...
    pub rate_control: Vec<String>,
}

/// What can be done to a profile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entrypoint {
    /// Decode (`VLD`).
    Decode,
    /// Encode on the execution units and the video engine (`EncSlice`).
    Encode,
    /// Encode on the video engine alone (`EncSliceLP`).
    EncodeLowPower,
    /// Encode single pictures (`EncPicture`).
    EncodePicture,
    /// Scale and filter (`VideoProc`).
    Process,
    /// Anything else, by VA-API's name or number.
    Other(String),
}

impl fmt::Display for Entrypoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode => "decode",
            Self::Encode => "encode",
            Self::EncodeLowPower => "encode (low power)",
            Self::EncodePicture => "encode pictures",
            Self::Process => "process",
            Self::Other(name) => name,
        })
    }
}

/// Scaling and filters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Processing {
    /// `deinterlacing`, `noise_reduction`, `sharpening`, ...
    pub filters: Vec<String>,
    /// `bob`, `weave`, `motion_adaptive`, `motion_compensated`.
    pub deinterlacing: Vec<String>,
    /// `hdr_to_sdr`, `hdr_to_hdr`, ... for HDR10.
    pub tone_mapping: Vec<String>,
    /// Degrees, clockwise, without 0.
    pub rotation: Vec<u16>,
    /// `global_alpha`, `premultiplied_alpha`, `luma_key`.
    pub blend: Vec<String>,
}

impl Capabilities {
    /// Whether the driver reports this for a profile whose name starts so.
    pub fn reports(&self, profile: &str, entrypoint: &Entrypoint) -> bool {
        self.entry(profile, entrypoint).is_some()
    }

    /// Whether the driver reports a way to deinterlace.
    pub fn deinterlaces(&self) -> bool {
        // `weave` only puts two fields side by side.
        let useful =
            |processing: &Processing| processing.deinterlacing.iter().any(|how| how != "weave");
        self.processing.as_ref().is_some_and(useful)
    }

    /// Whether the driver reports all that a picture is turned by.
    pub fn turns(&self) -> bool {
        let all = |processing: &Processing| {
            [90, 180, 270].iter().all(|degrees| processing.rotation.contains(degrees))
        };
        self.processing.as_ref().is_some_and(all)
    }

    /// Whether the driver reports that it changes colours; not which of them, the trial tells.
    pub fn balances(&self) -> bool {
        let has = |processing: &Processing| {
            processing.filters.iter().any(|filter| filter == "color_balance")
        };
        self.processing.as_ref().is_some_and(has)
    }

    /// Whether the driver reports a way from HDR10 to SDR.
    pub fn maps_tones(&self) -> bool {
        let to_sdr =
            |processing: &Processing| processing.tone_mapping.iter().any(|to| to == "hdr_to_sdr");
        self.processing.as_ref().is_some_and(to_sdr)
    }

    /// The first entry of a profile whose name starts so.
    pub fn entry(&self, profile: &str, entrypoint: &Entrypoint) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.profile.starts_with(profile) && entry.entrypoint == *entrypoint)
    }
}

/// What is tried on a node with real frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Decode H.264, 8 bit.
    DecodeH264,
    /// Decode HEVC, 8 bit.
    DecodeHevc,
    /// Decode HEVC, 10 bit.
    DecodeHevc10,
    /// Decode VP9, 8 bit.
    DecodeVp9,
    /// Decode VP8.
    DecodeVp8,
    /// Decode AV1, 8 bit.
    DecodeAv1,
    /// Decode MPEG-2.
    DecodeMpeg2,
    /// Encode H.264.
    EncodeH264,
    /// Encode H.264 on the video engine alone.
    EncodeH264LowPower,
    /// Encode HEVC.
    EncodeHevc,
    /// Encode HEVC on the video engine alone.
    EncodeHevcLowPower,
    /// Scale.
    Scale,
    /// Turn by quarters, either way and by half, and scale in the same pass.
    Turn,
    /// Map the tones of HDR10 to SDR, and scale in the same pass.
    ToneMap,
    /// Change brightness and contrast, and scale in the same pass.
    Balance,
    /// Make a frame of each field.
    Deinterlace,
    /// Decode, scale and encode without leaving the GPU's memory.
    Transcode,
}

impl Operation {
    /// All, in the order they are shown in.
    pub const ALL: [Self; 17] = [
        Self::DecodeH264,
        Self::DecodeHevc,
        Self::DecodeHevc10,
        Self::DecodeVp9,
        Self::DecodeVp8,
        Self::DecodeAv1,
        Self::DecodeMpeg2,
        Self::EncodeH264,
        Self::EncodeH264LowPower,
        Self::EncodeHevc,
        Self::EncodeHevcLowPower,
        Self::Scale,
        Self::Turn,
        Self::ToneMap,
        Self::Balance,
        Self::Deinterlace,
        Self::Transcode,
    ];

    /// Whether it is a decoder's.
    pub fn decodes(self) -> bool {
        self.name().starts_with("decode")
    }

    /// Whether it is an encoder's.
    pub fn encodes(self) -> bool {
        self.name().starts_with("encode")
    }

    /// Name in commands and JSON: `decode_h264`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DecodeH264 => "decode_h264",
            Self::DecodeHevc => "decode_hevc",
            Self::DecodeHevc10 => "decode_hevc10",
            Self::DecodeVp9 => "decode_vp9",
            Self::DecodeVp8 => "decode_vp8",
            Self::DecodeAv1 => "decode_av1",
            Self::DecodeMpeg2 => "decode_mpeg2",
            Self::EncodeH264 => "encode_h264",
            Self::EncodeH264LowPower => "encode_h264_low_power",
            Self::EncodeHevc => "encode_hevc",
            Self::EncodeHevcLowPower => "encode_hevc_low_power",
            Self::Scale => "scale",
            Self::Turn => "turn",
            Self::ToneMap => "tone_map",
            Self::Balance => "balance",
            Self::Deinterlace => "deinterlace",
            Self::Transcode => "transcode",
        }
    }

    /// The operation of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }

    /// VA-API's profile (the start of its name) and entrypoint that it needs.
    pub fn needs(self) -> (&'static str, Entrypoint) {
        match self {
            Self::DecodeH264 => ("H264", Entrypoint::Decode),
            Self::DecodeHevc => ("HEVCMain", Entrypoint::Decode),
            Self::DecodeHevc10 => ("HEVCMain10", Entrypoint::Decode),
            Self::DecodeVp9 => ("VP9Profile0", Entrypoint::Decode),
            Self::DecodeVp8 => ("VP8", Entrypoint::Decode),
            Self::DecodeAv1 => ("AV1Profile0", Entrypoint::Decode),
            Self::DecodeMpeg2 => ("MPEG2Main", Entrypoint::Decode),
            Self::EncodeH264 => ("H264", Entrypoint::Encode),
            Self::EncodeH264LowPower => ("H264", Entrypoint::EncodeLowPower),
            Self::EncodeHevc => ("HEVCMain", Entrypoint::Encode),
            Self::EncodeHevcLowPower => ("HEVCMain", Entrypoint::EncodeLowPower),
            Self::Scale
            | Self::Turn
            | Self::ToneMap
            | Self::Balance
            | Self::Deinterlace
            | Self::Transcode => ("None", Entrypoint::Process),
        }
    }

    /// Whether a driver reports it. A transcode is nothing that is reported: it follows from what has
    /// been seen working.
    pub fn is_reported(self, capabilities: &Capabilities) -> bool {
        let (profile, entrypoint) = self.needs();
        match self {
            Self::Transcode => false,
            Self::Turn => capabilities.turns(),
            Self::ToneMap => capabilities.maps_tones(),
            Self::Balance => capabilities.balances(),
            Self::Deinterlace => capabilities.deinterlaces(),
            _ => capabilities.reports(profile, &entrypoint),
        }
    }

    /// How the name of the GStreamer element ends: `h264dec` of `vah264dec`, `varenderD129h264dec`.
    /// `None` for what takes several.
    pub fn element_suffix(self) -> Option<&'static str> {
        Some(match self {
            Self::DecodeH264 => "h264dec",
            Self::DecodeHevc | Self::DecodeHevc10 => "h265dec",
            Self::DecodeVp9 => "vp9dec",
            Self::DecodeVp8 => "vp8dec",
            Self::DecodeAv1 => "av1dec",
            Self::DecodeMpeg2 => "mpeg2dec",
            Self::EncodeH264 => "h264enc",
            Self::EncodeH264LowPower => "h264lpenc",
            Self::EncodeHevc => "h265enc",
            Self::EncodeHevcLowPower => "h265lpenc",
            Self::Scale | Self::Turn | Self::ToneMap | Self::Balance => "postproc",
            Self::Deinterlace => "deinterlace",
            Self::Transcode => return None,
        })
    }

    /// The element among a node's [`elements`](NodeProbe::elements).
    pub fn element(self, elements: &[String]) -> Option<&str> {
        let suffix = self.element_suffix()?;
        elements.iter().map(String::as_str).find(|name| name.ends_with(suffix))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DecodeH264 => "H.264 decode",
            Self::DecodeHevc => "HEVC decode",
            Self::DecodeHevc10 => "HEVC 10-bit decode",
            Self::DecodeVp9 => "VP9 decode",
            Self::DecodeVp8 => "VP8 decode",
            Self::DecodeAv1 => "AV1 decode",
            Self::DecodeMpeg2 => "MPEG-2 decode",
            Self::EncodeH264 => "H.264 encode",
            Self::EncodeH264LowPower => "H.264 encode, low power",
            Self::EncodeHevc => "HEVC encode",
            Self::EncodeHevcLowPower => "HEVC encode, low power",
            Self::Scale => "scale",
            Self::Turn => "turn",
            Self::ToneMap => "HDR10 to SDR",
            Self::Balance => "brightness, contrast",
            Self::Deinterlace => "deinterlace",
            Self::Transcode => "all in the GPU's memory",
        })
    }
}

/// An operation that the driver reports, and what came of trying it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What was tried.
    pub operation: Operation,
    /// With which GStreamer element; none if GStreamer has none for it. Of a transcode all three,
    /// separated by commas.
    pub element: Option<String>,
    /// How it went.
    pub outcome: Outcome,
}

/// What came of trying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// Not tried.
    Untested,
    /// Frames went through, and came out as the right picture.
    Usable,
    /// They didn't.
    Failed {
        /// For people.
        reason: String,
    },
}

impl Trial {
    /// The elements for [`Operation::Transcode`]: the first decoder, scaler and encoder that were seen
    /// working, each by itself. `None` if one of them is missing.
    pub fn elements_of_transcode(trials: &[Self]) -> Option<String> {
        let first = |wanted: fn(Operation) -> bool| {
            let usable = |trial: &&Self| wanted(trial.operation) && trial.outcome.is_usable();
            trials.iter().find(usable)?.element.as_deref()
        };
        // The judge's clip is of 8 bit.
        let decoder =
            first(|operation| operation.decodes() && operation != Operation::DecodeHevc10)?;
        let scaler = first(|operation| operation == Operation::Scale)?;
        let encoder = first(Operation::encodes)?;
        Some([decoder, scaler, encoder].join(","))
    }
}

impl Outcome {
    /// Whether it is [`Usable`](Self::Usable).
    pub fn is_usable(&self) -> bool {
        *self == Self::Usable
    }

    /// The state of a node: that of the best of its trials.
    pub fn of_node(trials: &[Trial]) -> Self {
        let outcomes = || trials.iter().map(|trial| &trial.outcome);
        if outcomes().any(Self::is_usable) {
            return Self::Usable;
        }
        outcomes().find(|outcome| **outcome != Self::Untested).cloned().unwrap_or(Self::Untested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(operation: Operation, outcome: Outcome) -> Trial {
        Trial { operation, element: None, outcome }
    }

    #[test]
    fn a_node_is_as_good_as_its_best_trial() {
        let failed = Outcome::Failed { reason: "x".into() };
        assert_eq!(Outcome::of_node(&[]), Outcome::Untested);
        let bad = trial(Operation::Scale, failed.clone());
        let none = trial(Operation::DecodeAv1, Outcome::Untested);
        assert_eq!(Outcome::of_node(&[none.clone(), bad.clone()]), failed);
        let good = trial(Operation::EncodeH264, Outcome::Usable);
        assert_eq!(Outcome::of_node(&[bad, none, good]), Outcome::Usable);
    }

    #[test]
    fn a_transcode_is_of_what_works_by_itself() {
        let by = |operation, element: &str, outcome| Trial {
            element: Some(element.into()),
            ..trial(operation, outcome)
        };
        let failed = || Outcome::Failed { reason: "x".into() };
        let mut trials = vec![
            by(Operation::DecodeH264, "vah264dec", failed()),
            by(Operation::DecodeHevc10, "vah265dec", Outcome::Usable),
            by(Operation::DecodeVp9, "vavp9dec", Outcome::Usable),
            by(Operation::EncodeH264, "vah264enc", Outcome::Usable),
        ];
        assert_eq!(Trial::elements_of_transcode(&trials), None);
        trials.push(by(Operation::Scale, "vapostproc", Outcome::Usable));
        let elements = Trial::elements_of_transcode(&trials);
        assert_eq!(elements.as_deref(), Some("vavp9dec,vapostproc,vah264enc"));
    }

    #[test]
    fn what_processing_lacks_is_not_reported() {
        let reports = |operation: Operation, processing| {
            operation.is_reported(&Capabilities {
                vendor: "a driver".into(),
                version: "1.17".into(),
                entries: Vec::new(),
                processing,
            })
        };
        let mut found = Processing {
            rotation: vec![90, 180],
            tone_mapping: vec!["hdr_to_hdr".into()],
            ..Processing::default()
        };
        for operation in [Operation::Turn, Operation::ToneMap, Operation::Balance] {
            assert!(!reports(operation, None), "{operation}");
            assert!(!reports(operation, Some(found.clone())), "{operation}");
        }
        found.rotation.push(270);
        found.tone_mapping.push("hdr_to_sdr".into());
        found.filters.push("color_balance".into());
        for operation in [Operation::Turn, Operation::ToneMap, Operation::Balance] {
            assert!(reports(operation, Some(found.clone())), "{operation}");
        }
    }

    #[test]
    fn names_are_those_of_json() {
        for operation in Operation::ALL {
            let json = serde_json::to_value(operation).unwrap();
            assert_eq!(json, operation.name());
            assert_eq!(Operation::from_name(operation.name()), Some(operation));
        }
    }

    #[test]
    fn json_tells_a_report_from_a_failure() {
        let failure = VaapiFailure::NoLibrary { message: "x".into() };
        let probe = NodeProbe {
            gstreamer: "1.22.0".into(),
            va_plugin: true,
            elements: Vec::new(),
            vaapi: Err(failure),
        };
        let json = serde_json::to_value(&probe).unwrap();
        let expect = serde_json::json!({ "failed": { "kind": "no_library", "message": "x" } });
        assert_eq!(json["vaapi"], expect);
        assert_eq!(serde_json::from_value::<NodeProbe>(json).unwrap(), probe);
    }

    #[test]
    fn elements_are_found_on_any_node() {
        let elements = ["varenderD129h264lpenc", "varenderD129h264enc"].map(String::from);
        assert_eq!(Operation::EncodeH264.element(&elements), Some("varenderD129h264enc"));
        assert_eq!(Operation::EncodeH264LowPower.element(&elements), Some("varenderD129h264lpenc"));
        assert_eq!(Operation::Scale.element(&elements), None);
    }
}
