//! HEVC: VA-API's parameters as libx265's.
//!
//! VA-API's sequence parameters have no conformance window: the visible size is the surface's.

use super::{Picture, Slice, rate::Rates};
use crate::buffer::Buffer;
use crate::ffmpeg::encoder::{Kind, Settings};
use crate::status::Outcome;
use crate::va::{
    VAEncPictureParameterBufferHEVC, VAEncSequenceParameterBufferHEVC,
    VAEncSliceParameterBufferHEVC,
};

/// Slice type without references.
const INTRA: u8 = 2;

/// What a client has said about the stream.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    size: Option<(usize, usize)>,
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
        if let Some((width, height)) = self.size {
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

/// Takes a slice's parameters.
pub fn slice(buffer: &Buffer, index: usize) -> Outcome<Slice> {
    let slice: VAEncSliceParameterBufferHEVC = buffer.read(index)?;
    Ok(Slice { intra: slice.slice_type == INTRA, quantiser_delta: slice.slice_qp_delta.into() })
}
