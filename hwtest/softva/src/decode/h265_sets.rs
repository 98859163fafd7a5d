//! HEVC parameter sets from VA-API's picture parameters (HEVC 7.3.2).

use crate::bits::BitWriter;
use crate::va::{VAIQMatrixBufferHEVC, VAPictureParameterBufferHEVC};

const VIDEO_SET: u32 = 32;
const SEQUENCE_SET: u32 = 33;
const PICTURE_SET: u32 = 34;

fn start(kind: u32) -> BitWriter {
    let mut writer = BitWriter::new();
    // Layer 0, temporal id 0.
    writer.bits(kind << 1, 8).bits(1, 8);
    writer
}

/// Main or Main10, highest level, progressive frames.
fn profile(writer: &mut BitWriter, ten: bool) {
    let profile = if ten { 2 } else { 1 };
    writer.bits(0, 3).bits(profile, 5).bits(1 << (31 - profile), 32);
    writer.bits(0b1001, 4).bits(0, 32).bits(0, 12).bits(186, 8);
}

/// One layer; pictures are put out at once, as the decoder's order of output isn't used.
fn ordering(writer: &mut BitWriter, parameters: &VAPictureParameterBufferHEVC) {
    writer.bits(1, 1).ue(parameters.sps_max_dec_pic_buffering_minus1.into()).ue(0).ue(0);
}

fn ten(parameters: &VAPictureParameterBufferHEVC) -> bool {
    parameters.bit_depth_luma_minus8 > 0 || parameters.bit_depth_chroma_minus8 > 0
}

/// Video parameter set 0.
pub fn video(parameters: &VAPictureParameterBufferHEVC) -> Vec<u8> {
    let mut writer = start(VIDEO_SET);
    writer.bits(0, 4).bits(0b11, 2).bits(0, 6).bits(0, 3).bits(1, 1).bits(0xffff, 16);
    profile(&mut writer, ten(parameters));
    ordering(&mut writer, parameters);
    writer.bits(0, 6).ue(0).bits(0, 1).bits(0, 1);
    writer.stop();
    writer.bytes()
}

/// Sequence parameter set 0: without reference picture sets, which slices carry themselves.
pub fn sequence(parameters: &VAPictureParameterBufferHEVC) -> Vec<u8> {
    // SAFETY: the unions' members are the same 32 bits.
    let (fields, parsing) =
        unsafe { (parameters.pic_fields.bits, parameters.slice_parsing_fields.bits) };
    let mut writer = start(SEQUENCE_SET);
    writer.bits(0, 4).bits(0, 3).bits(1, 1);
    profile(&mut writer, ten(parameters));
    writer.ue(0).ue(fields.chroma_format_idc());
    if fields.chroma_format_idc() == 3 {
        writer.bits(fields.separate_colour_plane_flag(), 1);
    }
    writer.ue(parameters.pic_width_in_luma_samples.into());
    writer.ue(parameters.pic_height_in_luma_samples.into());
    writer.bits(0, 1);
    writer.ue(parameters.bit_depth_luma_minus8.into());
    writer.ue(parameters.bit_depth_chroma_minus8.into());
    writer.ue(parameters.log2_max_pic_order_cnt_lsb_minus4.into());
    ordering(&mut writer, parameters);
    writer.ue(parameters.log2_min_luma_coding_block_size_minus3.into());
    writer.ue(parameters.log2_diff_max_min_luma_coding_block_size.into());
    writer.ue(parameters.log2_min_transform_block_size_minus2.into());
    writer.ue(parameters.log2_diff_max_min_transform_block_size.into());
    writer.ue(parameters.max_transform_hierarchy_depth_inter.into());
    writer.ue(parameters.max_transform_hierarchy_depth_intra.into());
    writer.bits(fields.scaling_list_enabled_flag(), 1);
    if fields.scaling_list_enabled_flag() == 1 {
        // The lists are in the picture's set.
        writer.bits(0, 1);
    }
    writer.bits(fields.amp_enabled_flag(), 1);
    writer.bits(parsing.sample_adaptive_offset_enabled_flag(), 1);
    writer.bits(fields.pcm_enabled_flag(), 1);
    if fields.pcm_enabled_flag() == 1 {
        writer.bits(parameters.pcm_sample_bit_depth_luma_minus1.into(), 4);
        writer.bits(parameters.pcm_sample_bit_depth_chroma_minus1.into(), 4);
        writer.ue(parameters.log2_min_pcm_luma_coding_block_size_minus3.into());
        writer.ue(parameters.log2_diff_max_min_pcm_luma_coding_block_size.into());
        writer.bits(fields.pcm_loop_filter_disabled_flag(), 1);
    }
    writer.ue(0);
    writer.bits(parsing.long_term_ref_pics_present_flag(), 1);
    if parsing.long_term_ref_pics_present_flag() == 1 {
        writer.ue(0);
    }
    writer.bits(parsing.sps_temporal_mvp_enabled_flag(), 1);
    writer.bits(fields.strong_intra_smoothing_enabled_flag(), 1);
    writer.bits(0, 1).bits(0, 1);
    writer.stop();
    writer.bytes()
}

/// A picture parameter set.
pub fn picture(
    parameters: &VAPictureParameterBufferHEVC,
    matrices: Option<&VAIQMatrixBufferHEVC>,
    id: u32,
) -> Vec<u8> {
    // SAFETY: the unions' members are the same 32 bits.
    let (fields, parsing) =
        unsafe { (parameters.pic_fields.bits, parameters.slice_parsing_fields.bits) };
    let mut writer = start(PICTURE_SET);
    writer.ue(id).ue(0);
    writer.bits(parsing.dependent_slice_segments_enabled_flag(), 1);
    writer.bits(parsing.output_flag_present_flag(), 1);
    writer.bits(parameters.num_extra_slice_header_bits.into(), 3);
    writer.bits(fields.sign_data_hiding_enabled_flag(), 1);
    writer.bits(parsing.cabac_init_present_flag(), 1);
    writer.ue(parameters.num_ref_idx_l0_default_active_minus1.into());
    writer.ue(parameters.num_ref_idx_l1_default_active_minus1.into());
    writer.se(parameters.init_qp_minus26.into());
    writer.bits(fields.constrained_intra_pred_flag(), 1);
    writer.bits(fields.transform_skip_enabled_flag(), 1);
    writer.bits(fields.cu_qp_delta_enabled_flag(), 1);
    if fields.cu_qp_delta_enabled_flag() == 1 {
        writer.ue(parameters.diff_cu_qp_delta_depth.into());
    }
    writer.se(parameters.pps_cb_qp_offset.into()).se(parameters.pps_cr_qp_offset.into());
    writer.bits(parsing.pps_slice_chroma_qp_offsets_present_flag(), 1);
    writer.bits(fields.weighted_pred_flag(), 1).bits(fields.weighted_bipred_flag(), 1);
    writer.bits(fields.transquant_bypass_enabled_flag(), 1);
    writer.bits(fields.tiles_enabled_flag(), 1);
    writer.bits(fields.entropy_coding_sync_enabled_flag(), 1);
    if fields.tiles_enabled_flag() == 1 {
        tiles(&mut writer, parameters);
        writer.bits(fields.loop_filter_across_tiles_enabled_flag(), 1);
    }
    writer.bits(fields.pps_loop_filter_across_slices_enabled_flag(), 1);
    // Deblocking control is always spelt out.
    writer.bits(1, 1).bits(parsing.deblocking_filter_override_enabled_flag(), 1);
    writer.bits(parsing.pps_disable_deblocking_filter_flag(), 1);
    if parsing.pps_disable_deblocking_filter_flag() == 0 {
        writer.se(parameters.pps_beta_offset_div2.into()).se(parameters.pps_tc_offset_div2.into());
    }
    let matrices = matrices.filter(|_| fields.scaling_list_enabled_flag() == 1);
    writer.flag(matrices.is_some());
    if let Some(matrices) = matrices {
        scaling_lists(&mut writer, matrices);
    }
    writer.bits(parsing.lists_modification_present_flag(), 1);
    writer.ue(parameters.log2_parallel_merge_level_minus2.into());
    writer.bits(parsing.slice_segment_header_extension_present_flag(), 1);
    writer.bits(0, 1);
    writer.stop();
    writer.bytes()
}

/// Widths and heights one by one, which covers uniform spacing too.
fn tiles(writer: &mut BitWriter, parameters: &VAPictureParameterBufferHEVC) {
    let columns = usize::from(parameters.num_tile_columns_minus1);
    let rows = usize::from(parameters.num_tile_rows_minus1);
    writer.ue(columns as u32).ue(rows as u32).bits(0, 1);
    for width in parameters.column_width_minus1.iter().take(columns) {
        writer.ue((*width).into());
    }
    for height in parameters.row_height_minus1.iter().take(rows) {
        writer.ue((*height).into());
    }
}

/// Raster positions of the up-right diagonal scan (HEVC 6.5.3) of a square block.
fn diagonal(size: usize) -> Vec<usize> {
    let mut scan = Vec::with_capacity(size * size);
    for sum in 0..2 * size - 1 {
        let x = sum.saturating_sub(size - 1)..=sum.min(size - 1);
        scan.extend(x.map(|x| (sum - x) * size + x));
    }
    scan
}

fn scaling_lists(writer: &mut BitWriter, matrices: &VAIQMatrixBufferHEVC) {
    for list in &matrices.ScalingList4x4 {
        scaling_list(writer, list, None);
    }
    for list in &matrices.ScalingList8x8 {
        scaling_list(writer, list, None);
    }
    for (list, dc) in matrices.ScalingList16x16.iter().zip(matrices.ScalingListDC16x16) {
        scaling_list(writer, list, Some(dc));
    }
    for (list, dc) in matrices.ScalingList32x32.iter().zip(matrices.ScalingListDC32x32) {
        scaling_list(writer, list, Some(dc));
    }
}

fn scaling_list(writer: &mut BitWriter, list: &[u8], dc: Option<u8>) {
    writer.bits(1, 1);
    let mut last = 8;
    if let Some(dc) = dc {
        writer.se(i32::from(dc) - 8);
        last = dc;
    }
    for place in diagonal(if list.len() == 16 { 4 } else { 8 }) {
        writer.se(i32::from(list[place].wrapping_sub(last) as i8));
        last = list[place];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagonal_scan_goes_up_and_right() {
        assert_eq!(diagonal(4)[..6], [0, 4, 1, 8, 5, 2]);
        let mut places = diagonal(8);
        places.sort_unstable();
        assert!(places.iter().enumerate().all(|(index, place)| index == *place));
    }
}
