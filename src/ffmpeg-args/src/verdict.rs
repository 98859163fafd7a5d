//! How the plan says no: a [`Passthrough`] per cause, and the labels of its kinds.

use std::fmt;

use crate::{Passthrough, PassthroughKind};

/// What reading a piece of the command gives: the piece, or the reason to leave the command to the
/// real ffmpeg. A refusal is an answer, not a failure.
pub type Verdict<T> = Result<T, Passthrough>;

impl Passthrough {
    fn new(kind: PassthroughKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    pub(crate) fn probe(reason: impl Into<String>) -> Self {
        Self::new(PassthroughKind::Probe, reason)
    }

    pub(crate) fn other_job(reason: impl Into<String>) -> Self {
        Self::new(PassthroughKind::NotATranscode, reason)
    }

    pub(crate) fn kind(reason: impl Into<String>) -> Self {
        Self::new(PassthroughKind::UnsupportedKind, reason)
    }

    pub(crate) fn unknown(reason: impl Into<String>) -> Self {
        Self::new(PassthroughKind::UnknownArgument, reason)
    }

    pub(crate) fn input(reason: impl Into<String>) -> Self {
        Self::new(PassthroughKind::UnsupportedInput, reason)
    }

    pub(crate) fn feature(reason: impl Into<String>) -> Self {
        Self::new(PassthroughKind::UnsupportedFeature, reason)
    }
}

impl PassthroughKind {
    /// Every kind, for counters that start at zero.
    pub const ALL: [Self; 6] = [
        Self::Probe,
        Self::NotATranscode,
        Self::UnsupportedKind,
        Self::UnknownArgument,
        Self::UnsupportedInput,
        Self::UnsupportedFeature,
    ];

    /// The label, the same as in JSON; stable across releases.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::NotATranscode => "not_a_transcode",
            Self::UnsupportedKind => "unsupported_kind",
            Self::UnknownArgument => "unknown_argument",
            Self::UnsupportedInput => "unsupported_input",
            Self::UnsupportedFeature => "unsupported_feature",
        }
    }
}

impl fmt::Display for PassthroughKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Passthrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_json() {
        for kind in PassthroughKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
