//! VP9: the slice data is the whole frame with its headers, so there is nothing to write anew.

use super::{Collected, Packet, Rewrite};
use crate::status::{Outcome, Refusal};
use crate::va::VASliceParameterBufferVP9;

/// Passes frames on.
#[derive(Debug, Default)]
pub struct Rewriter;

impl Rewrite for Rewriter {
    fn packet(&mut self, picture: &Collected) -> Outcome<Packet> {
        let mut data = Vec::new();
        for slice in picture.slices::<VASliceParameterBufferVP9>() {
            data.extend_from_slice(slice?.1);
        }
        if data.is_empty() {
            return Err(Refusal::decoding("a VP9 frame without data"));
        }
        Ok(Packet { data, field: false })
    }
}
