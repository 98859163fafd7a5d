//! MPEG-2: sequence, picture and extension headers from VA-API's picture parameters (ISO 13818-2,
//! section 6.2). Slices are passed on as they are.

use super::{Collected, Packet, Rewrite};
use crate::bits::BitWriter;
use crate::status::Outcome;
use crate::va::{
    VAIQMatrixBufferMPEG2, VAPictureParameterBufferMPEG2, VASliceParameterBufferMPEG2,
};

const SEQUENCE_HEADER: u32 = 0xb3;
const EXTENSION: u32 = 0xb5;
const PICTURE: u32 = 0x00;
/// `picture_structure` of a frame; the others are fields.
const FRAME: u32 = 3;

/// Remembers the sequence it has announced.
#[derive(Debug, Default)]
pub struct Rewriter {
    announced: Option<(u16, u16)>,
}

impl Rewrite for Rewriter {
    fn packet(&mut self, picture: &Collected) -> Outcome<Packet> {
        let parameters: VAPictureParameterBufferMPEG2 = picture.picture()?;
        let slices: Vec<_> =
            picture.slices::<VASliceParameterBufferMPEG2>().collect::<Outcome<_>>()?;
        let size = (parameters.horizontal_size, parameters.vertical_size);
        let mut data = Vec::new();
        if self.announced != Some(size) {
            let rows = slices.iter().map(|(slice, _)| slice.slice_vertical_position + 1).max();
            sequence(&mut data, size, rows.unwrap_or(0));
            self.announced = Some(size);
        }
        // SAFETY: the union's members are the same 32 bits.
        let extension = unsafe { parameters.picture_coding_extension.bits };
        picture_header(&mut data, &parameters);
        picture_extension(&mut data, &parameters);
        if let Some(matrices) = picture.matrices()? {
            matrix_extension(&mut data, &matrices);
        }
        for (_, slice) in slices {
            data.extend_from_slice(slice);
        }
        Ok(Packet { data, field: extension.picture_structure() != FRAME })
    }
}

fn push(data: &mut Vec<u8>, code: u32, write: impl FnOnce(&mut BitWriter)) {
    let mut writer = BitWriter::new();
    writer.bits(1, 24).bits(code, 8);
    write(&mut writer);
    writer.align();
    data.extend(writer.bytes());
}

/// VA-API doesn't say whether the sequence is progressive, and nothing but the number of
/// macroblock rows depends on it: an interlaced sequence has an even number. So a picture with the
/// odd number that the height asks for tells.
fn progressive(height: u16, rows: u32) -> bool {
    let needed = u32::from(height).div_ceil(16);
    needed % 2 == 1 && rows == needed
}

fn sequence(data: &mut Vec<u8>, (width, height): (u16, u16), rows: u32) {
    let (wide, high) = (u32::from(width), u32::from(height));
    push(data, SEQUENCE_HEADER, |writer| {
        writer.bits(wide & 0xfff, 12).bits(high & 0xfff, 12);
        // Square samples, 25 frames per second, bit rate unknown.
        writer.bits(1, 4).bits(3, 4).bits(0x3ffff, 18).bits(1, 1);
        // Buffer size, unconstrained, default matrices.
        writer.bits(112, 10).bits(0, 1).bits(0, 1).bits(0, 1);
    });
    push(data, EXTENSION, |writer| {
        // Sequence extension, Main profile at High level.
        writer.bits(1, 4).bits(0x44, 8).flag(progressive(height, rows));
        // 4:2:0; upper bits of size, bit rate and buffer size; B-pictures are possible.
        writer.bits(1, 2).bits(wide >> 12, 2).bits(high >> 12, 2).bits(0, 12).bits(1, 1);
        writer.bits(0, 8).bits(0, 1).bits(0, 2).bits(0, 5);
    });
}

fn picture_header(data: &mut Vec<u8>, parameters: &VAPictureParameterBufferMPEG2) {
    let kind = parameters.picture_coding_type as u32;
    push(data, PICTURE, |writer| {
        // Temporal reference, type, buffer delay unknown.
        writer.bits(0, 10).bits(kind, 3).bits(0xffff, 16);
        // In MPEG-2 the vectors' ranges are in the extension; here stands 7.
        if kind >= 2 {
            writer.bits(7, 4);
        }
        if kind == 3 {
            writer.bits(7, 4);
        }
        writer.bits(0, 1);
    });
}

fn picture_extension(data: &mut Vec<u8>, parameters: &VAPictureParameterBufferMPEG2) {
    // SAFETY: the union's members are the same 32 bits.
    let fields = unsafe { parameters.picture_coding_extension.bits };
    push(data, EXTENSION, |writer| {
        writer.bits(8, 4).bits(parameters.f_code as u32, 16);
        writer.bits(fields.intra_dc_precision(), 2).bits(fields.picture_structure(), 2);
        writer.bits(fields.top_field_first(), 1).bits(fields.frame_pred_frame_dct(), 1);
        writer.bits(fields.concealment_motion_vectors(), 1).bits(fields.q_scale_type(), 1);
        writer.bits(fields.intra_vlc_format(), 1).bits(fields.alternate_scan(), 1);
        writer.bits(fields.repeat_first_field(), 1);
        // chroma_420_type repeats progressive_frame for 4:2:0; no composite display.
        writer.bits(fields.progressive_frame(), 1).bits(fields.progressive_frame(), 1);
        writer.bits(0, 1);
    });
}

fn matrix_extension(data: &mut Vec<u8>, matrices: &VAIQMatrixBufferMPEG2) {
    push(data, EXTENSION, |writer| {
        writer.bits(3, 4);
        // Zig-zag order here and there. The chroma matrices are those of 4:2:2.
        for (load, matrix) in [
            (matrices.load_intra_quantiser_matrix, &matrices.intra_quantiser_matrix),
            (matrices.load_non_intra_quantiser_matrix, &matrices.non_intra_quantiser_matrix),
        ] {
            writer.flag(load != 0);
            for value in matrix.iter().filter(|_| load != 0) {
                writer.bits(u32::from(*value), 8);
            }
        }
        writer.bits(0, 2);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_number_of_rows_is_progressive() {
        assert!(progressive(240, 15));
        assert!(!progressive(240, 16));
        // 1080 lines are 68 rows either way; field pictures have half of them.
        assert!(!progressive(1080, 68));
        assert!(!progressive(576, 18));
    }
}
