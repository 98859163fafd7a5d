//! H.264: sequence and picture parameter sets from VA-API's picture parameters (H.264 7.3.2).
//!
//! Slices are passed on untouched, so reference marking, weights and everything else in their
//! headers is the original's. What VA-API leaves out and the slices need:
//!
//! - the default numbers of references of the picture parameter set: a slice that doesn't override
//!   them has them in its slice parameters, so the sets are written after a look at the slices;
//! - the offsets of picture order count type 1: such streams are refused;
//! - cropping and timing: they change nothing in the pictures.

use super::{Collected, Packet, Rewrite};
use crate::bits::{BitReader, BitWriter, push_nal, unescape, without_start_code};
use crate::status::{Outcome, Refusal};
use crate::va::{
    VA_PICTURE_H264_BOTTOM_FIELD, VA_PICTURE_H264_TOP_FIELD, VAIQMatrixBufferH264,
    VAPictureParameterBufferH264, VASliceParameterBufferH264,
};

const SEQUENCE: u8 = 0x67;
const PICTURE: u8 = 0x68;
/// Enough of a slice to hold its header up to the fields that are read.
const HEADER_BYTES: usize = 64;
const NAL_IDR: u8 = 5;

/// Frame zig-zag of 4x4 blocks (H.264 figure 6-12): raster positions.
const ZIGZAG_4: [u8; 16] = [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15];
/// Frame zig-zag of 8x8 blocks.
const ZIGZAG_8: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Remembers the parameter sets that the decoder has.
#[derive(Debug, Default)]
pub struct Rewriter {
    sequence: Vec<u8>,
    pictures: std::collections::BTreeMap<u32, Vec<u8>>,
    defaults: [u32; 2],
}

impl Rewrite for Rewriter {
    fn packet(&mut self, picture: &Collected) -> Outcome<Packet> {
        let parameters: VAPictureParameterBufferH264 = picture.picture()?;
        let matrices: Option<VAIQMatrixBufferH264> = picture.matrices()?;
        let mut data = Vec::new();
        let sequence = sequence(&parameters)?;
        if sequence != self.sequence {
            push_nal(&mut data, &sequence);
            self.sequence = sequence;
            // A decoder drops picture parameter sets of a sequence that is replaced.
            self.pictures.clear();
        }
        let mut headers = Vec::new();
        for slice in picture.slices::<VASliceParameterBufferH264>() {
            let (slice, nal) = slice?;
            let header = Header::read(&parameters, without_start_code(nal))?;
            if !header.overridden {
                let active =
                    [slice.num_ref_idx_l0_active_minus1, slice.num_ref_idx_l1_active_minus1];
                for (default, active) in self.defaults.iter_mut().zip(active).take(header.lists) {
                    *default = active.into();
                }
            }
            headers.push(header.picture_set);
        }
        headers.dedup();
        for id in headers {
            let set = picture_set(&parameters, matrices.as_ref(), id, self.defaults);
            if self.pictures.get(&id) != Some(&set) {
                push_nal(&mut data, &set);
                self.pictures.insert(id, set);
            }
        }
        for slice in picture.slices::<VASliceParameterBufferH264>() {
            data.extend([0, 0, 1]);
            data.extend_from_slice(without_start_code(slice?.1));
        }
        let fields = VA_PICTURE_H264_TOP_FIELD | VA_PICTURE_H264_BOTTOM_FIELD;
        Ok(Packet { data, field: parameters.CurrPic.flags & fields != 0 })
    }
}

/// What a slice header says that the parameter sets depend on.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    picture_set: u32,
    /// Reference lists of the slice: none for I, one for P, two for B.
    lists: usize,
    overridden: bool,
}

impl Header {
    fn read(parameters: &VAPictureParameterBufferH264, nal: &[u8]) -> Outcome<Self> {
        // SAFETY: the unions' members are the same 32 bits.
        let (sequence, picture) =
            unsafe { (parameters.seq_fields.bits, parameters.pic_fields.bits) };
        let payload = unescape(&nal[..nal.len().min(HEADER_BYTES)]);
        let idr = payload.first().is_some_and(|byte| byte & 31 == NAL_IDR);
        let mut reader = BitReader::new(payload.get(1..).unwrap_or_default());
        reader.ue()?;
        let kind = reader.ue()? % 5;
        let picture_set = reader.ue()?;
        let lists = match kind {
            0 | 3 => 1,
            1 => 2,
            _ => 0,
        };
        let mut header = Self { picture_set, lists, overridden: false };
        if lists == 0 {
            return Ok(header);
        }
        if sequence.residual_colour_transform_flag() == 1 {
            reader.bits(2)?;
        }
        reader.bits(sequence.log2_max_frame_num_minus4() as usize + 4)?;
        let mut field = false;
        if sequence.frame_mbs_only_flag() == 0 {
            field = reader.flag()?;
            if field {
                reader.flag()?;
            }
        }
        if idr {
            reader.ue()?;
        }
        let both = picture.pic_order_present_flag() == 1 && !field;
        if sequence.pic_order_cnt_type() == 0 {
            reader.bits(sequence.log2_max_pic_order_cnt_lsb_minus4() as usize + 4)?;
            if both {
                reader.se()?;
            }
        }
        if picture.redundant_pic_cnt_present_flag() == 1 {
            reader.ue()?;
        }
        if lists == 2 {
            reader.flag()?;
        }
        header.overridden = reader.flag()?;
        Ok(header)
    }
}

fn sequence(parameters: &VAPictureParameterBufferH264) -> Outcome<Vec<u8>> {
    // SAFETY: the union's members are the same 32 bits.
    let fields = unsafe { parameters.seq_fields.bits };
    let order = fields.pic_order_cnt_type();
    if order == 1 {
        return Err(Refusal::unimplemented(
            "picture order count type 1, whose offsets VA-API doesn't hand over",
        ));
    }
    let mut writer = BitWriter::new();
    // High profile (the others are parts of it), highest level, set 0.
    writer.bits(SEQUENCE.into(), 8).bits(100, 8).bits(0, 8).bits(62, 8).ue(0);
    writer.ue(fields.chroma_format_idc());
    if fields.chroma_format_idc() == 3 {
        writer.bits(fields.residual_colour_transform_flag(), 1);
    }
    writer.ue(parameters.bit_depth_luma_minus8.into());
    writer.ue(parameters.bit_depth_chroma_minus8.into());
    // No transform bypass; the matrices are in the picture's set.
    writer.bits(0, 1).bits(0, 1);
    writer.ue(fields.log2_max_frame_num_minus4()).ue(order);
    if order == 0 {
        writer.ue(fields.log2_max_pic_order_cnt_lsb_minus4());
    }
    writer.ue(parameters.num_ref_frames.into());
    writer.bits(fields.gaps_in_frame_num_value_allowed_flag(), 1);
    writer.ue(parameters.picture_width_in_mbs_minus1.into());
    let rows = u32::from(parameters.picture_height_in_mbs_minus1) + 1;
    let frames = fields.frame_mbs_only_flag();
    writer.ue(if frames == 1 { rows } else { rows / 2 } - 1);
    writer.bits(frames, 1);
    if frames == 0 {
        writer.bits(fields.mb_adaptive_frame_field_flag(), 1);
    }
    writer.bits(fields.direct_8x8_inference_flag(), 1);
    // No cropping, no usability information.
    writer.bits(0, 1).bits(0, 1);
    writer.stop();
    Ok(writer.bytes())
}

fn picture_set(
    parameters: &VAPictureParameterBufferH264,
    matrices: Option<&VAIQMatrixBufferH264>,
    id: u32,
    defaults: [u32; 2],
) -> Vec<u8> {
    // SAFETY: the union's members are the same 32 bits.
    let fields = unsafe { parameters.pic_fields.bits };
    let mut writer = BitWriter::new();
    writer.bits(PICTURE.into(), 8).ue(id).ue(0);
    writer.bits(fields.entropy_coding_mode_flag(), 1).bits(fields.pic_order_present_flag(), 1);
    // One slice group.
    writer.ue(0).ue(defaults[0]).ue(defaults[1]);
    writer.bits(fields.weighted_pred_flag(), 1).bits(fields.weighted_bipred_idc(), 2);
    writer.se(parameters.pic_init_qp_minus26.into()).se(parameters.pic_init_qs_minus26.into());
    writer.se(parameters.chroma_qp_index_offset.into());
    writer.bits(fields.deblocking_filter_control_present_flag(), 1);
    writer.bits(fields.constrained_intra_pred_flag(), 1);
    writer.bits(fields.redundant_pic_cnt_present_flag(), 1);
    let large = fields.transform_8x8_mode_flag();
    writer.bits(large, 1);
    let uneven = matrices.filter(|matrices| {
        let small = matrices.ScalingList4x4.iter().flatten();
        small.chain(matrices.ScalingList8x8.iter().flatten()).any(|value| *value != 16)
    });
    writer.flag(uneven.is_some());
    if let Some(matrices) = uneven {
        for list in &matrices.ScalingList4x4 {
            scaling_list(&mut writer, list, &ZIGZAG_4);
        }
        for list in matrices.ScalingList8x8.iter().filter(|_| large == 1) {
            scaling_list(&mut writer, list, &ZIGZAG_8);
        }
    }
    writer.se(parameters.second_chroma_qp_index_offset.into());
    writer.stop();
    writer.bytes()
}

/// A list is present and coded as differences, in the order of the scan.
fn scaling_list(writer: &mut BitWriter, list: &[u8], scan: &[u8]) {
    writer.bits(1, 1);
    let mut last = 8;
    for place in scan {
        let value = list[usize::from(*place)];
        writer.se(i32::from(value.wrapping_sub(last) as i8));
        last = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> VAPictureParameterBufferH264 {
        // SAFETY: a plain C struct of numbers, for which zeroes are a value.
        let mut parameters: VAPictureParameterBufferH264 = unsafe { std::mem::zeroed() };
        // SAFETY: the union's members are the same 32 bits.
        unsafe {
            parameters.seq_fields.bits.set_chroma_format_idc(1);
            parameters.seq_fields.bits.set_frame_mbs_only_flag(1);
        }
        parameters
    }

    #[test]
    fn a_header_tells_whether_it_overrides_the_defaults() {
        let parameters = parameters();
        for overridden in [false, true] {
            let mut writer = BitWriter::new();
            // A P slice of set 3: frame_num 5, order count 9.
            writer.bits(0x41, 8).ue(0).ue(5).ue(3).bits(5, 4).bits(9, 4).flag(overridden).stop();
            let header = Header::read(&parameters, &writer.bytes()).expect("a header");
            assert_eq!(header, Header { picture_set: 3, lists: 1, overridden });
        }
    }

    #[test]
    fn the_scans_visit_every_place_once() {
        let mut seen = [false; 64];
        ZIGZAG_8.iter().for_each(|place| seen[usize::from(*place)] = true);
        assert!(seen.iter().all(|seen| *seen));
        let mut small = ZIGZAG_4;
        small.sort_unstable();
        assert!(small.iter().enumerate().all(|(index, place)| index == usize::from(*place)));
    }

    #[test]
    fn order_count_type_1_is_refused() {
        let mut parameters = parameters();
        // SAFETY: the union's members are the same 32 bits.
        unsafe { parameters.seq_fields.bits.set_pic_order_cnt_type(1) };
        assert!(sequence(&parameters).is_err());
    }
}
