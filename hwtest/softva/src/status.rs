//! Why a call was refused: libva's status code and a sentence for the trace log.

use std::borrow::Cow;

use crate::va::{self, VAStatus};

/// A refused call. The status goes to the client, the reason to the trace.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason} (VAStatus {status:#x})")]
pub struct Refusal {
    /// What libva's client is told.
    pub status: VAStatus,
    /// What the trace log says.
    pub reason: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with the status and reason given.
    pub fn new(status: u32, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status: status as VAStatus, reason: reason.into() }
    }

    /// A parameter is out of range or contradicts another one.
    pub fn parameter(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(va::VA_STATUS_ERROR_INVALID_PARAMETER, reason)
    }

    /// The stream can't be decoded.
    pub fn decoding(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(va::VA_STATUS_ERROR_DECODING_ERROR, reason)
    }

    /// The picture can't be encoded.
    pub fn encoding(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(va::VA_STATUS_ERROR_ENCODING_ERROR, reason)
    }

    /// The driver doesn't do this.
    pub fn unimplemented(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(va::VA_STATUS_ERROR_UNIMPLEMENTED, reason)
    }

    /// No memory, or a fault that says so.
    pub fn memory(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(va::VA_STATUS_ERROR_ALLOCATION_FAILED, reason)
    }
}

/// Outcome of a driver call.
pub type Outcome<T = ()> = Result<T, Refusal>;
