//! HEVC: VA-API's parameters as libx265's.
//!
//! VA-API's sequence parameters have no conformance window: what is to be seen of the coded size is
//! told by the sequence parameter set that the client packs itself, or by the surface's size.

use super::{Picture, Slice, rate::Rates};
use crate::bits::{BitReader, unescape};
use crate::buffer::Buffer;
use crate::ffmpeg::encoder::{Kind, Settings};
use crate::status::{Outcome, Refusal};
use crate::va::{
    VAEncPictureParameterBufferHEVC, VAEncSequenceParameterBufferHEVC,
    VAEncSliceParameterBufferHEVC,
};

/// NAL unit type (H.265 table 7-1).
const SEQUENCE_PARAMETER_SET: u8 = 33;
/// Slice type without references.
const INTRA: u8 = 2;

/// What a client has said about the stream.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    size: Option<(usize, usize)>,
    /// What the client's own sequence parameter set shows of it.
    visible: Option<(usize, usize)>,
}

impl Parameters {
    /// Takes the sequence parameters.
    pub fn sequence(&mut self, buffer: &Buffer, rates: &mut Rates) -> Outcome {
        let sequence: VAEncSequenceParameterBufferHEVC = buffer.read(0)?;
        self.size = Some((
            sequence.pic_width_in_luma_samples.into(),
            sequence.pic_height_in_luma_samples.into(),
        ));
        rates.suggest_bit_rate(sequence.bits_per_second);
        rates.suggest_frame_rate(sequence.vui_time_scale, sequence.vui_num_units_in_tick);
        Ok(())
    }

    /// Takes headers that the client has packed: of all of them, the conformance window.
    pub fn packed(&mut self, bytes: &[u8]) -> Outcome {
        for (at, _) in bytes.windows(3).enumerate().filter(|(_, code)| *code == [0, 0, 1]) {
            let nal = &bytes[at + 3..];
            if nal.first().is_some_and(|header| header >> 1 & 0x3f == SEQUENCE_PARAMETER_SET) {
                self.visible = Some(visible_size(&unescape(nal))?);
            }
        }
        Ok(())
    }

    /// Takes the picture parameters.
    pub fn picture(&mut self, buffer: &Buffer) -> Outcome<Picture> {
        let picture: VAEncPictureParameterBufferHEVC = buffer.read(0)?;
        // SAFETY: the union's members are the same 32 bits.
        let fields = unsafe { picture.pic_fields.bits };
        let kind = match fields.idr_pic_flag() {
            1 => Kind::Idr,
            // coding_type 1 is intra.
            _ if fields.coding_type() == 1 => Kind::Intra,
            _ => Kind::Predicted,
        };
        Ok(Picture { coded: picture.coded_buf, kind, quantiser: picture.pic_init_qp.into() })
    }

    /// Fills in what libx265 needs to know.
    pub fn configure(&self, settings: &mut Settings, rates: &Rates, quantisers: (i32, i32)) {
        settings.encoder = "libx265";
        for (width, height) in self.size.into_iter().chain(self.visible) {
            settings.width = settings.width.min(width);
            settings.height = settings.height.min(height);
        }
        // libx265 takes the number of slices from its own options; one it is.
        settings.slices = 1;
        let preset = match rates.quality() {
            1 => "fast",
            2 => "faster",
            3 | 4 => "veryfast",
            5 | 6 => "superfast",
            _ => "ultrafast",
        };
        let mut parameters = String::from(
            "log-level=error:pools=none:wpp=0:pmode=0:pme=0:frame-threads=1:keyint=-1:\
             scenecut=0:open-gop=0:bframes=0:rc-lookahead=0:lookahead-slices=0:repeat-headers=1:\
             info=0:ref=1",
        );
        if rates.constant_quantiser() {
            let (intra, predicted) = (quantisers.0.clamp(1, 51), quantisers.1.clamp(1, 51));
            let ratio = 2f64.powf(f64::from(predicted - intra) / 6.0);
            parameters.push_str(&format!(":ipratio={ratio:.4}"));
            settings.options.push(("qp", predicted.to_string()));
        }
        let (minimum, maximum) = rates.quantiser_limits();
        for (name, limit) in [("qpmin", minimum), ("qpmax", maximum)] {
            if let Some(limit) = limit {
                parameters.push_str(&format!(":{name}={}", limit.min(51)));
            }
        }
        settings.options.extend([
            ("preset", preset.to_owned()),
            ("tune", "zerolatency".to_owned()),
            ("x265-params", parameters),
        ]);
    }
}

/// Size without what the conformance window hides, from a sequence parameter set without emulation
/// prevention (H.265 7.3.2.2.1). One sub-layer, 4:2:0: nothing else is encoded here.
fn visible_size(nal: &[u8]) -> Outcome<(usize, usize)> {
    let mut reader = BitReader::new(nal);
    // NAL header; sps_video_parameter_set_id, sub-layers, nesting; profile_tier_level without
    // sub-layers.
    for bits in [16, 8, 32, 32, 32] {
        reader.bits(bits)?;
    }
    reader.ue()?; // sps_seq_parameter_set_id
    if reader.ue()? != 1 {
        return Err(Refusal::unimplemented("chroma other than 4:2:0 to encode"));
    }
    let (width, height) = (reader.ue()? as usize, reader.ue()? as usize);
    if !reader.flag()? {
        return Ok((width, height));
    }
    let mut hidden = [0; 4];
    for side in &mut hidden {
        // In pairs of pixels.
        *side = 2 * reader.ue()? as usize;
    }
    let [left, right, top, bottom] = hidden;
    Ok((width.saturating_sub(left + right), height.saturating_sub(top + bottom)))
}

/// Takes a slice's parameters.
pub fn slice(buffer: &Buffer, index: usize) -> Outcome<Slice> {
    let slice: VAEncSliceParameterBufferHEVC = buffer.read(index)?;
    Ok(Slice { intra: slice.slice_type == INTRA, quantiser_delta: slice.slice_qp_delta.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_what_is_to_be_seen() {
        // 320x180 by x265: coded 320x184.
        let set = [
            0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00,
            0x00, 0x03, 0x00, 0x3c, 0xa0, 0x0a, 0x08, 0x0c, 0x1f, 0x3e, 0x59, 0x59, 0x12, 0x93,
        ];
        let mut parameters = Parameters::default();
        parameters.packed(&[&[0, 0, 0, 1], &set[..]].concat()).unwrap();
        assert_eq!(parameters.visible, Some((320, 180)));
    }
}
