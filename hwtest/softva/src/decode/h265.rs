//! HEVC: parameter sets, and slices with their reference picture sets spelt out.
//!
//! A slice either carries its short-term reference picture set or names one of the sequence
//! parameter set's. VA-API hands over neither the sequence's sets nor the slice's own, but it says
//! of every picture in the decoder's buffer how the current one uses it
//! (`VA_PICTURE_HEVC_RPS_*`). That is a complete reference picture set: the sequence parameter set
//! written here ([`super::h265_sets`]) has none, and every slice gets the one that those flags
//! amount to. The rest of the slice header is copied bit by bit, the slice data byte by byte; both
//! stay what they were, as no later field depends on how the set was coded.
//!
//! Long-term pictures are copied with the header, unless they are named by the sequence parameter
//! set's table; then they are spelt out too, nearest first. The table's own order is not known, so
//! a stream with two or more such pictures in one slice may be decoded wrongly.

use super::{Collected, Packet, Rewrite, h265_sets};
use crate::bits::{BitReader, BitWriter, push_nal, unescape, without_start_code};
use crate::status::{Outcome, Refusal};
use crate::va::{
    VA_PICTURE_HEVC_INVALID, VA_PICTURE_HEVC_LONG_TERM_REFERENCE, VA_PICTURE_HEVC_RPS_LT_CURR,
    VA_PICTURE_HEVC_RPS_ST_CURR_AFTER, VA_PICTURE_HEVC_RPS_ST_CURR_BEFORE, VAIQMatrixBufferHEVC,
    VAPictureHEVC, VAPictureParameterBufferHEVC, VASliceParameterBufferHEVC,
};

/// NAL unit types of pictures from which decoding can start.
const RANDOM_ACCESS: std::ops::RangeInclusive<u8> = 16..=23;
const IDR: std::ops::RangeInclusive<u8> = 19..=20;

/// Remembers the parameter sets that the decoder has.
#[derive(Debug, Default)]
pub struct Rewriter {
    sequence: Vec<u8>,
    pictures: std::collections::BTreeMap<u32, Vec<u8>>,
}

impl Rewrite for Rewriter {
    fn packet(&mut self, picture: &Collected) -> Outcome<Packet> {
        let parameters: VAPictureParameterBufferHEVC = picture.picture()?;
        let matrices: Option<VAIQMatrixBufferHEVC> = picture.matrices()?;
        let mut data = Vec::new();
        let sequence = h265_sets::sequence(&parameters);
        if sequence != self.sequence {
            push_nal(&mut data, &h265_sets::video(&parameters));
            push_nal(&mut data, &sequence);
            self.sequence = sequence;
            self.pictures.clear();
        }
        let mut slices = Vec::new();
        for slice in picture.slices::<VASliceParameterBufferHEVC>() {
            let (slice, nal) = slice?;
            let payload = unescape(without_start_code(nal));
            let start = slice.slice_data_byte_offset as usize;
            let (id, rewritten) = rewrite(&parameters, &payload, start)?;
            let set = h265_sets::picture(&parameters, matrices.as_ref(), id);
            if self.pictures.get(&id) != Some(&set) {
                push_nal(&mut data, &set);
                self.pictures.insert(id, set);
            }
            push_nal(&mut slices, &rewritten);
        }
        data.extend(slices);
        Ok(Packet { data, field: false })
    }
}

/// A slice with its reference picture set spelt out, and the picture parameter set it names.
/// `data_start` is where the slice's data begins in the payload.
fn rewrite(
    parameters: &VAPictureParameterBufferHEVC,
    payload: &[u8],
    data_start: usize,
) -> Outcome<(u32, Vec<u8>)> {
    // SAFETY: the unions' members are the same 32 bits.
    let (fields, parsing) =
        unsafe { (parameters.pic_fields.bits, parameters.slice_parsing_fields.bits) };
    let header = payload.get(..data_start).filter(|header| header.len() > 2);
    let header = header.ok_or_else(|| Refusal::decoding("a slice shorter than its header"))?;
    let kind = payload[0] >> 1 & 63;
    let mut reader = BitReader::new(header);
    let mut writer = BitWriter::new();
    writer.copy(&mut reader, 16)?;
    let first = reader.flag()?;
    writer.flag(first);
    if RANDOM_ACCESS.contains(&kind) {
        writer.copy(&mut reader, 1)?;
    }
    let set = reader.ue()?;
    writer.ue(set);
    let mut dependent = false;
    if !first {
        if parsing.dependent_slice_segments_enabled_flag() == 1 {
            dependent = reader.flag()?;
            writer.flag(dependent);
        }
        writer.copy(&mut reader, address_bits(parameters))?;
    }
    if !dependent && !IDR.contains(&kind) {
        writer.copy(&mut reader, parameters.num_extra_slice_header_bits.into())?;
        let slice_type = reader.ue()?;
        writer.ue(slice_type);
        if parsing.output_flag_present_flag() == 1 {
            writer.copy(&mut reader, 1)?;
        }
        if fields.separate_colour_plane_flag() == 1 {
            writer.copy(&mut reader, 2)?;
        }
        writer.copy(&mut reader, order_bits(parameters))?;
        references(parameters, &mut reader, &mut writer)?;
    }
    // The header ends with a one and zeroes up to a whole byte.
    let end = last_one(header)?;
    let rest = end.checked_sub(reader.position());
    let rest = rest.ok_or_else(|| Refusal::decoding("a slice header that ends too early"))?;
    writer.copy(&mut reader, rest)?;
    writer.stop();
    let mut rewritten = writer.bytes();
    rewritten.extend_from_slice(&payload[data_start..]);
    Ok((set, rewritten))
}

fn last_one(header: &[u8]) -> Outcome<usize> {
    let byte = header.iter().rposition(|byte| *byte != 0);
    let byte = byte.ok_or_else(|| Refusal::decoding("a slice header of zeroes"))?;
    Ok(byte * 8 + 7 - header[byte].trailing_zeros() as usize)
}

fn order_bits(parameters: &VAPictureParameterBufferHEVC) -> usize {
    usize::from(parameters.log2_max_pic_order_cnt_lsb_minus4) + 4
}

/// Bits of `slice_segment_address`: enough for the number of coding tree blocks.
fn address_bits(parameters: &VAPictureParameterBufferHEVC) -> usize {
    let shift = 3
        + parameters.log2_min_luma_coding_block_size_minus3
        + parameters.log2_diff_max_min_luma_coding_block_size;
    let across = u32::from(parameters.pic_width_in_luma_samples).div_ceil(1 << shift);
    let down = u32::from(parameters.pic_height_in_luma_samples).div_ceil(1 << shift);
    bits_for(across * down)
}

/// Ceil(Log2(count)).
fn bits_for(count: u32) -> usize {
    (u32::BITS - count.saturating_sub(1).leading_zeros()) as usize
}

/// Replaces the reference picture sets of a slice.
fn references(
    parameters: &VAPictureParameterBufferHEVC,
    reader: &mut BitReader<'_>,
    writer: &mut BitWriter,
) -> Outcome {
    // SAFETY: the union's members are the same 32 bits.
    let parsing = unsafe { parameters.slice_parsing_fields.bits };
    let named = reader.flag()?;
    if named {
        reader.bits(bits_for(parameters.num_short_term_ref_pic_sets.into()))?;
    } else {
        for _ in 0..parameters.st_rps_bits {
            reader.bits(1)?;
        }
    }
    let current = parameters.CurrPic.pic_order_cnt;
    let known = parameters.ReferenceFrames.iter();
    let known = known.filter(|picture| picture.flags & VA_PICTURE_HEVC_INVALID == 0);
    let (long, short): (Vec<_>, Vec<_>) =
        known.partition(|picture| picture.flags & VA_PICTURE_HEVC_LONG_TERM_REFERENCE != 0);
    writer.flag(false);
    short_term(writer, current, &short);
    if parsing.long_term_ref_pics_present_flag() == 1 && parameters.num_long_term_ref_pic_sps > 0 {
        skip_long_term(parameters, reader)?;
        long_term(writer, parameters, &long);
    }
    Ok(())
}

/// `st_ref_pic_set` without prediction: pictures before the current one, nearest first, then
/// those after it (HEVC 7.3.7).
fn short_term(writer: &mut BitWriter, current: i32, pictures: &[&VAPictureHEVC]) {
    let side = |before: bool| {
        let mut side: Vec<_> =
            pictures.iter().filter(|p| (p.pic_order_cnt < current) == before).collect();
        side.sort_by_key(|p| p.pic_order_cnt.abs_diff(current));
        side
    };
    let (before, after) = (side(true), side(false));
    writer.ue(before.len() as u32).ue(after.len() as u32);
    for (side, used) in
        [(before, VA_PICTURE_HEVC_RPS_ST_CURR_BEFORE), (after, VA_PICTURE_HEVC_RPS_ST_CURR_AFTER)]
    {
        let mut last = current;
        for picture in side {
            let distance = picture.pic_order_cnt.abs_diff(last);
            writer.ue(distance.saturating_sub(1)).flag(picture.flags & used != 0);
            last = picture.pic_order_cnt;
        }
    }
}

fn skip_long_term(
    parameters: &VAPictureParameterBufferHEVC,
    reader: &mut BitReader<'_>,
) -> Outcome {
    let table = u32::from(parameters.num_long_term_ref_pic_sps);
    let from_table = reader.ue()?;
    let spelt = reader.ue()?;
    for index in 0..from_table.saturating_add(spelt) {
        if index < from_table {
            reader.bits(bits_for(table))?;
        } else {
            reader.bits(order_bits(parameters))?;
            reader.flag()?;
        }
        if reader.flag()? {
            reader.ue()?;
        }
    }
    Ok(())
}

fn long_term(
    writer: &mut BitWriter,
    parameters: &VAPictureParameterBufferHEVC,
    pictures: &[&VAPictureHEVC],
) {
    let bits = order_bits(parameters);
    let cycle = |order: i32| order >> bits;
    let current = cycle(parameters.CurrPic.pic_order_cnt);
    let mut pictures = pictures.to_vec();
    pictures.sort_by_key(|picture| -picture.pic_order_cnt);
    writer.ue(pictures.len() as u32);
    let mut last = 0;
    for picture in pictures {
        let distance = current - cycle(picture.pic_order_cnt);
        writer.bits(picture.pic_order_cnt as u32, bits);
        writer.flag(picture.flags & VA_PICTURE_HEVC_RPS_LT_CURR != 0);
        writer.flag(true).ue(u32::try_from(distance - last).unwrap_or(0));
        last = distance;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(order: i32, flags: u32) -> VAPictureHEVC {
        // SAFETY: a plain C struct of numbers, for which zeroes are a value.
        let mut picture: VAPictureHEVC = unsafe { std::mem::zeroed() };
        (picture.pic_order_cnt, picture.flags) = (order, flags);
        picture
    }

    #[test]
    fn a_set_is_nearest_first() {
        let (before, after) =
            (VA_PICTURE_HEVC_RPS_ST_CURR_BEFORE, VA_PICTURE_HEVC_RPS_ST_CURR_AFTER);
        let pictures = [picture(2, 0), picture(12, after), picture(6, before), picture(16, after)];
        let mut writer = BitWriter::new();
        short_term(&mut writer, 8, &pictures.iter().collect::<Vec<_>>());
        let bytes = writer.stop().clone().bytes();
        let mut reader = BitReader::new(&bytes);
        let mut next = || reader.ue().expect("a code");
        assert_eq!((next(), next()), (2, 2));
        // Before: 8 - 2 = 6, used; 6 - 4 = 2, kept for later. After: 8 + 4, 12 + 4, both used.
        for (distance, used) in [(1, true), (3, false), (3, true), (3, true)] {
            assert_eq!(reader.ue().expect("a code"), distance);
            assert_eq!(reader.flag().expect("a flag"), used);
        }
    }

    #[test]
    fn bits_of_an_address() {
        assert_eq!([1, 2, 3, 4, 5, 510, 512, 513].map(bits_for), [0, 1, 2, 2, 3, 9, 9, 10]);
    }

    #[test]
    fn the_end_of_a_header() {
        assert_eq!(last_one(&[0xff, 0b1010_0000]).expect("a one"), 10);
        assert_eq!(last_one(&[0xff, 0x80, 0]).expect("a one"), 8);
        assert!(last_one(&[0, 0]).is_err());
    }
}
