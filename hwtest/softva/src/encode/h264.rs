//! H.264: VA-API's parameters as libx264's.

use super::{Picture, Slice, rate::Rates};
use crate::buffer::Buffer;
use crate::ffmpeg::encoder::{Kind, Settings};
use crate::status::Outcome;
use crate::va::{
    self, VAEncPictureParameterBufferH264, VAEncSequenceParameterBufferH264,
    VAEncSliceParameterBufferH264, VAProfile,
};

/// Slice types without references, modulo 5: I and SI.
const INTRA: [u8; 2] = [2, 4];

/// What a client has said about the stream.
#[derive(Debug, Clone)]
pub struct Parameters {
    profile: VAProfile,
    visible: Option<(usize, usize)>,
    references: u32,
    cabac: bool,
    large_transform: bool,
}

impl Parameters {
    /// For a profile.
    pub fn new(profile: VAProfile) -> Self {
        Self { profile, visible: None, references: 1, cabac: false, large_transform: false }
    }

    /// Takes the sequence parameters.
    pub fn sequence(&mut self, buffer: &Buffer, rates: &mut Rates) -> Outcome {
        let sequence: VAEncSequenceParameterBufferH264 = buffer.read(0)?;
        let coded = |macroblocks: u16| usize::from(macroblocks) * 16;
        let (mut width, mut height) =
            (coded(sequence.picture_width_in_mbs), coded(sequence.picture_height_in_mbs));
        if sequence.frame_cropping_flag != 0 {
            // In units of two pixels: 4:2:0 frames.
            let crop = |one: u32, other: u32| 2 * (one as usize + other as usize);
            let (left, right) = (sequence.frame_crop_left_offset, sequence.frame_crop_right_offset);
            let (top, bottom) = (sequence.frame_crop_top_offset, sequence.frame_crop_bottom_offset);
            width = width.saturating_sub(crop(left, right));
            height = height.saturating_sub(crop(top, bottom));
        }
        self.visible = Some((width, height)).filter(|(width, height)| *width > 0 && *height > 0);
        self.references = sequence.max_num_ref_frames.clamp(1, 16);
        rates.suggest_bit_rate(sequence.bits_per_second);
        // A frame has two ticks (H.264 E.2.1).
        let ticks = sequence.num_units_in_tick.saturating_mul(2);
        rates.suggest_frame_rate(sequence.time_scale, ticks);
        Ok(())
    }

    /// Takes the picture parameters.
    pub fn picture(&mut self, buffer: &Buffer) -> Outcome<Picture> {
        let picture: VAEncPictureParameterBufferH264 = buffer.read(0)?;
        // SAFETY: the union's members are the same 32 bits.
        let fields = unsafe { picture.pic_fields.bits };
        self.cabac = fields.entropy_coding_mode_flag() == 1;
        self.large_transform = fields.transform_8x8_mode_flag() == 1;
        let kind = if fields.idr_pic_flag() == 1 { Kind::Idr } else { Kind::Predicted };
        Ok(Picture { coded: picture.coded_buf, kind, quantiser: picture.pic_init_qp.into() })
    }

    /// Size without cropping.
    pub fn visible(&self) -> Option<(usize, usize)> {
        self.visible
    }

    /// Fills in what libx264 needs to know.
    pub fn configure(&self, settings: &mut Settings, rates: &Rates, quantisers: (i32, i32)) {
        settings.encoder = "libx264";
        settings.references = self.references;
        let preset = match rates.quality() {
            1 => "fast",
            2 => "faster",
            3 | 4 => "veryfast",
            5 | 6 => "superfast",
            _ => "ultrafast",
        };
        let profile = match self.profile {
            va::VAProfileH264ConstrainedBaseline => "baseline",
            va::VAProfileH264Main => "main",
            _ => "high",
        };
        let baseline = profile == "baseline";
        let switch = |on: bool| u8::from(on);
        let (cabac, large) =
            (switch(self.cabac && !baseline), switch(self.large_transform && profile == "high"));
        let mut parameters = format!(
            "scenecut=0:sliced-threads=0:cabac={cabac}:8x8dct={large}:force-cfr=1:stitchable=0"
        );
        if rates.constant_quantiser() {
            // libx264 derives the quantiser of intra pictures: 6 steps for each factor of two.
            let (intra, predicted) = (quantisers.0.clamp(1, 51), quantisers.1.clamp(1, 51));
            let ratio = 2f64.powf(f64::from(predicted - intra) / 6.0);
            parameters.push_str(&format!(":ipratio={ratio:.4}"));
            settings.options.push(("qp", predicted.to_string()));
        }
        let (minimum, maximum) = rates.quantiser_limits();
        let limits = [("qmin", minimum), ("qmax", maximum)];
        for (name, limit) in limits.into_iter().filter_map(|(n, limit)| Some((n, limit?))) {
            settings.options.push((name, limit.min(51).to_string()));
        }
        settings.options.extend([
            ("preset", preset.to_owned()),
            ("tune", "zerolatency".to_owned()),
            ("profile", profile.to_owned()),
            ("x264-params", parameters),
        ]);
    }
}

/// Takes a slice's parameters.
pub fn slice(buffer: &Buffer, index: usize) -> Outcome<Slice> {
    let slice: VAEncSliceParameterBufferH264 = buffer.read(index)?;
    Ok(Slice {
        intra: INTRA.contains(&(slice.slice_type % 5)),
        quantiser_delta: slice.slice_qp_delta.into(),
    })
}
