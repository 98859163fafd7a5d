//! Decoding: a picture's buffers are turned back into a stream, which libavcodec decodes.
//!
//! VA-API hands over parsed headers and raw slices. [`h264`], [`h265`], [`mpeg2`] and [`vp9`] write
//! the headers anew, so that the slices mean to libavcodec what they meant in the original stream;
//! the pictures are then those of libavcodec, bit for bit.
//!
//! Invariant: a picture is in its surface when `vaEndPicture` returns.

pub mod h264;
pub mod h265;
pub mod h265_sets;
pub mod mpeg2;
pub mod vp9;

use crate::buffer::{Buffer, read_at};
use crate::caps::Codec;
use crate::ffmpeg::decoder::{Decoded, Decoder};
use crate::ffmpeg::sys;
use crate::format::Format;
use crate::status::{Outcome, Refusal};
use crate::surface::{Surface, View};
use crate::va::{self, VASliceParameterBufferBase};

/// What a client handed over for a picture.
#[derive(Debug, Default)]
pub struct Collected {
    picture: Vec<u8>,
    matrices: Vec<u8>,
    slices: Vec<Slice>,
}

/// A slice: its parameters and its part of the stream.
#[derive(Debug)]
struct Slice {
    parameters: Vec<u8>,
    data: Vec<u8>,
}

impl Collected {
    /// The picture parameters as libva's struct for the codec.
    pub fn picture<T: Copy>(&self) -> Outcome<T> {
        read_at(&self.picture, 0)
    }

    /// The quantiser matrices, if there are any.
    pub fn matrices<T: Copy>(&self) -> Outcome<Option<T>> {
        if self.matrices.is_empty() { Ok(None) } else { read_at(&self.matrices, 0).map(Some) }
    }

    /// The slices: parameters as libva's struct, and data.
    pub fn slices<T: Copy>(&self) -> impl Iterator<Item = Outcome<(T, &[u8])>> {
        self.slices.iter().map(|slice| Ok((read_at(&slice.parameters, 0)?, &slice.data[..])))
    }
}

/// A picture or field as a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    /// The stream.
    pub data: Vec<u8>,
    /// One field of two: the next packet may go on with the same picture.
    pub field: bool,
}

/// Writes a codec's headers.
pub trait Rewrite: Send + std::fmt::Debug {
    /// The stream for a picture.
    fn packet(&mut self, picture: &Collected) -> Outcome<Packet>;
}

/// Decoding of one stream.
#[derive(Debug)]
pub struct Session {
    rewrite: Box<dyn Rewrite>,
    codec: Codec,
    decoder: Option<Decoder>,
    collected: Collected,
    parameters: Vec<Vec<u8>>,
    /// The surface whose first field was decoded last.
    half_done: Option<u32>,
}

impl Session {
    /// For a codec.
    pub fn new(codec: Codec) -> Outcome<Self> {
        let rewrite: Box<dyn Rewrite> = match codec {
            Codec::H264 => Box::new(h264::Rewriter::default()),
            Codec::H265 => Box::new(h265::Rewriter::default()),
            Codec::Mpeg2 => Box::new(mpeg2::Rewriter::default()),
            Codec::Vp9 => Box::new(vp9::Rewriter),
            Codec::None => return Err(Refusal::unimplemented("decoding nothing")),
        };
        Ok(Self {
            rewrite,
            codec,
            decoder: None,
            collected: Collected::default(),
            parameters: Vec::new(),
            half_done: None,
        })
    }

    /// A new picture.
    pub fn begin(&mut self) {
        self.collected = Collected::default();
        self.parameters.clear();
    }

    /// Takes a buffer.
    pub fn render(&mut self, buffer: &Buffer) -> Outcome {
        match buffer.kind {
            va::VAPictureParameterBufferType => self.collected.picture = buffer.bytes().to_vec(),
            va::VAIQMatrixBufferType => self.collected.matrices = buffer.bytes().to_vec(),
            va::VASliceParameterBufferType => {
                let elements = buffer.bytes().chunks_exact(buffer.element.max(1));
                self.parameters.extend(elements.take(buffer.count).map(<[u8]>::to_vec));
            }
            va::VASliceDataBufferType => {
                for parameters in self.parameters.drain(..) {
                    let base: VASliceParameterBufferBase = read_at(&parameters, 0)?;
                    let start = base.slice_data_offset as usize;
                    let end = start.saturating_add(base.slice_data_size as usize);
                    let data = buffer.bytes().get(start..end);
                    let data = data.ok_or_else(|| Refusal::parameter("a slice beyond its data"))?;
                    self.collected.slices.push(Slice { parameters, data: data.to_vec() });
                }
            }
            other => return Err(Refusal::unimplemented(format!("buffer type {other} to decode"))),
        }
        Ok(())
    }

    /// Decodes the picture into the surface. Returns a summary for the trace.
    pub fn end(&mut self, id: u32, surface: &Surface) -> Outcome<String> {
        let packet = self.rewrite.packet(&self.collected)?;
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            None => self.decoder.insert(Decoder::new(self.codec)?),
        };
        let second = packet.field && self.half_done == Some(id);
        self.half_done = (packet.field && !second).then_some(id);
        let decoded = decoder.decode(&packet.data, second)?;
        store(&decoded, &surface.view())?;
        let slices = self.collected.slices.len();
        Ok(format!("{} bytes, {slices} slices, second field {second}", packet.data.len()))
    }
}

/// Copies a decoded picture into a surface, which may be smaller (the visible part only).
fn store(decoded: &Decoded<'_>, target: &View<'_>) -> Outcome {
    let shift = match (decoded.pixel_format(), target.format()) {
        (sys::AV_PIX_FMT_YUV420P | sys::AV_PIX_FMT_YUVJ420P, Format::Nv12) => None,
        (sys::AV_PIX_FMT_YUV420P10LE, Format::P010) => Some(6),
        (sys::AV_PIX_FMT_YUV420P12LE, Format::P010) => Some(4),
        (pixels, format) => {
            let reason = format!("a picture of pixel format {pixels} for a surface of {format:?}");
            return Err(Refusal::decoding(reason));
        }
    };
    let (width, height) = decoded.size();
    let (width, height) = (width.min(target.width()), height.min(target.height()));
    for row in 0..height {
        let to = target.row_mut(0, row);
        match shift {
            None => to[..width].copy_from_slice(decoded.row(0, row, width)),
            Some(shift) => shift_up(decoded.row(0, row, 2 * width), to, shift),
        }
    }
    let half = width.div_ceil(2);
    for row in 0..height.div_ceil(2) {
        let to = target.row_mut(1, row);
        match shift {
            None => {
                let (u, v) = (decoded.row(1, row, half), decoded.row(2, row, half));
                for ((pair, u), v) in to.chunks_exact_mut(2).zip(u).zip(v) {
                    pair.copy_from_slice(&[*u, *v]);
                }
            }
            Some(shift) => {
                let (u, v) = (decoded.row(1, row, 2 * half), decoded.row(2, row, 2 * half));
                for ((pair, u), v) in
                    to.chunks_exact_mut(4).zip(u.chunks_exact(2)).zip(v.chunks_exact(2))
                {
                    shift_up(u, &mut pair[..2], shift);
                    shift_up(v, &mut pair[2..], shift);
                }
            }
        }
    }
    Ok(())
}

/// Planar formats keep their bits at the bottom of sixteen, P010 at the top.
fn shift_up(from: &[u8], to: &mut [u8], shift: u32) {
    for (from, to) in from.chunks_exact(2).zip(to.chunks_exact_mut(2)) {
        let value = u16::from_le_bytes([from[0], from[1]]) << shift;
        to.copy_from_slice(&value.to_le_bytes());
    }
}
