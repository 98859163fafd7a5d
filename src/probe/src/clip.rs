//! The clips that decoders are tried with. `clips/make` makes them.

use gpu::Operation;

/// A coded stream of [`FRAMES`](crate::FRAMES) frames.
#[derive(Debug, Clone, Copy)]
pub struct Clip {
    /// What the source says of it.
    pub caps: &'static str,
    /// Element that cuts it up for decoders.
    pub parser: &'static str,
    /// Form of decoded pictures.
    pub format: &'static str,
    bytes: &'static [u8],
    ivf: bool,
}

/// The clip for a decoder; none for other operations.
pub fn clip(operation: Operation) -> Option<Clip> {
    let stream = |caps, parser, bytes| Clip { caps, parser, format: "NV12", bytes, ivf: false };
    let frames = |caps, parser, bytes| Clip { caps, parser, format: "NV12", bytes, ivf: true };
    const BYTE_STREAM_H264: &str = "video/x-h264,stream-format=byte-stream";
    const BYTE_STREAM_H265: &str = "video/x-h265,stream-format=byte-stream";
    Some(match operation {
        Operation::DecodeH264 => {
            stream(BYTE_STREAM_H264, "h264parse", include_bytes!("../clips/h264.bin"))
        }
        Operation::DecodeHevc => {
            stream(BYTE_STREAM_H265, "h265parse", include_bytes!("../clips/hevc.bin"))
        }
        Operation::DecodeHevc10 => Clip {
            format: "P010_10LE",
            ..stream(BYTE_STREAM_H265, "h265parse", include_bytes!("../clips/hevc10.bin"))
        },
        Operation::DecodeMpeg2 => stream(
            "video/mpeg,mpegversion=2,systemstream=false",
            "mpegvideoparse",
            include_bytes!("../clips/mpeg2.bin"),
        ),
        Operation::DecodeVp8 => frames(
            "video/x-vp8,width=320,height=192",
            "identity",
            include_bytes!("../clips/vp8.bin"),
        ),
        Operation::DecodeVp9 => frames(
            "video/x-vp9,alignment=frame,width=320,height=192",
            "vp9parse",
            include_bytes!("../clips/vp9.bin"),
        ),
        Operation::DecodeAv1 => frames(
            "video/x-av1,stream-format=obu-stream,alignment=tu",
            "av1parse",
            include_bytes!("../clips/av1.bin"),
        ),
        Operation::EncodeH264
        | Operation::EncodeH264LowPower
        | Operation::EncodeHevc
        | Operation::EncodeHevcLowPower
        | Operation::Scale
        | Operation::Turn
        | Operation::ToneMap
        | Operation::Balance
        | Operation::Deinterlace
        | Operation::Transcode => return None,
    })
}

impl Clip {
    /// The stream as buffers: frames if its container says where they are, else all in one.
    pub fn buffers(&self) -> Vec<&'static [u8]> {
        if self.ivf { ivf_frames(self.bytes) } else { vec![self.bytes] }
    }
}

/// The frames of an IVF file: a header that says how long it is, then each frame after its length
/// (four bytes) and its time (eight).
fn ivf_frames(file: &'static [u8]) -> Vec<&'static [u8]> {
    let header = usize::from(u16::from_le_bytes([file[6], file[7]]));
    let mut rest = &file[header..];
    let mut frames = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (frame, next) = after[8..].split_at(u32::from_le_bytes(*length) as usize);
        frames.push(frame);
        rest = next;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FRAMES;

    #[test]
    fn containers_hold_one_buffer_per_frame() {
        for operation in [Operation::DecodeVp8, Operation::DecodeVp9, Operation::DecodeAv1] {
            assert_eq!(clip(operation).unwrap().buffers().len(), FRAMES as usize, "{operation}");
        }
    }
}
