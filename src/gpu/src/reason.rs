//! Why a stream's picture isn't, or not all, on a GPU.

use serde::{Deserialize, Serialize};

/// A reason, for people and for counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For counters.
    pub kind: ReasonKind,
    /// For people.
    pub text: String,
}

/// What is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// The configuration wants none.
    Disabled,
    /// The GPUs haven't been looked at yet.
    Looking,
    /// This machine has none.
    NoGpu,
    /// There is one, and it doesn't work: never, or since a stream failed on it.
    Broken,
    /// It doesn't encode that.
    EncoderUnsupported,
    /// It doesn't decode that.
    DecoderUnsupported,
    /// The picture is too large for it.
    Size,
    /// The container doesn't say what has to be known before the first picture.
    SourceUnknown,
    /// It doesn't scale.
    Scale,
    /// It doesn't deinterlace.
    Deinterlace,
    /// It doesn't turn pictures.
    Turn,
    /// It has no time left for one more stream.
    Capacity,
}

impl ReasonKind {
    /// All.
    pub const ALL: [Self; 12] = [
        Self::Disabled,
        Self::Looking,
        Self::NoGpu,
        Self::Broken,
        Self::EncoderUnsupported,
        Self::DecoderUnsupported,
        Self::Size,
        Self::SourceUnknown,
        Self::Scale,
        Self::Deinterlace,
        Self::Turn,
        Self::Capacity,
    ];

    /// Stable word, as in JSON and in labels of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Looking => "looking",
            Self::NoGpu => "no_gpu",
            Self::Broken => "broken",
            Self::EncoderUnsupported => "encoder_unsupported",
            Self::DecoderUnsupported => "decoder_unsupported",
            Self::Size => "size",
            Self::SourceUnknown => "source_unknown",
            Self::Scale => "scale",
            Self::Deinterlace => "deinterlace",
            Self::Turn => "turn",
            Self::Capacity => "capacity",
        }
    }
}

impl Reason {
    /// A reason of that kind.
    pub fn new(kind: ReasonKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// All of them in one: every text, and the kind of the first. `None` without any.
    pub fn all(reasons: Vec<Self>) -> Option<Self> {
        let kind = reasons.first()?.kind;
        let texts: Vec<_> = reasons.into_iter().map(|reason| reason.text).collect();
        Some(Self { kind, text: texts.join("; ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_json() {
        for kind in ReasonKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.label());
        }
    }

    #[test]
    fn several_are_counted_as_the_first() {
        let one = Reason::new(ReasonKind::Size, "too large");
        let other = Reason::new(ReasonKind::Scale, "no scaler");
        let both = Reason::all(vec![one, other]);
        assert_eq!(both, Some(Reason::new(ReasonKind::Size, "too large; no scaler")));
        assert_eq!(Reason::all(Vec::new()), None);
    }
}
