//! Pixel formats and how a picture of each lies in memory.
//!
//! Every layout is linear, planes one after another, rows padded to 64 bytes: what a client sees
//! through a derived image or a DMABuf is what the engines write.

use crate::ffmpeg::sys;
use crate::va;

/// Rows start at multiples of this many bytes, for the vector code of libswscale.
const ROW_ALIGNMENT: usize = 64;

/// A pixel format that surfaces and images can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 8 bit 4:2:0, luma plane and interleaved chroma plane.
    Nv12,
    /// 10 bit 4:2:0 like NV12, samples in the upper bits of 16.
    P010,
    /// 8 bit 4:2:0 in three planes.
    I420,
    /// 8 bit 4:2:0 in three planes, V before U.
    Yv12,
    /// Bytes B, G, R, A.
    Bgra,
    /// Bytes B, G, R, unused.
    Bgrx,
    /// Bytes R, G, B, A.
    Rgba,
    /// Bytes R, G, B, unused.
    Rgbx,
}

/// All formats, the preferred ones first.
pub const ALL: [Format; 8] = [
    Format::Nv12,
    Format::P010,
    Format::I420,
    Format::Yv12,
    Format::Bgra,
    Format::Bgrx,
    Format::Rgba,
    Format::Rgbx,
];

/// One plane of a picture: where it starts and how long its rows are, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plane {
    /// From the start of the picture.
    pub offset: usize,
    /// From row to row.
    pub stride: usize,
    /// Bytes of a row that carry samples.
    pub row: usize,
    /// Rows.
    pub rows: usize,
}

/// Planes of a picture and its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The planes; the first [`Format::planes`] of them count.
    pub planes: [Plane; 3],
    /// Bytes in all.
    pub size: usize,
}

impl Format {
    /// The format of a libva fourcc.
    pub fn from_fourcc(fourcc: u32) -> Option<Self> {
        ALL.into_iter().find(|format| format.fourcc() == fourcc)
    }

    /// libva's name.
    pub fn fourcc(self) -> u32 {
        let code = match self {
            Self::Nv12 => b"NV12",
            Self::P010 => b"P010",
            Self::I420 => b"I420",
            Self::Yv12 => b"YV12",
            Self::Bgra => b"BGRA",
            Self::Bgrx => b"BGRX",
            Self::Rgba => b"RGBA",
            Self::Rgbx => b"RGBX",
        };
        u32::from_le_bytes(*code)
    }

    /// libswscale's name.
    pub fn pixel_format(self) -> sys::AVPixelFormat {
        match self {
            Self::Nv12 => sys::AV_PIX_FMT_NV12,
            Self::P010 => sys::AV_PIX_FMT_P010LE,
            // YV12 is I420 with its last two planes named the other way round.
            Self::I420 | Self::Yv12 => sys::AV_PIX_FMT_YUV420P,
            Self::Bgra => sys::AV_PIX_FMT_BGRA,
            Self::Bgrx => sys::AV_PIX_FMT_BGR0,
            Self::Rgba => sys::AV_PIX_FMT_RGBA,
            Self::Rgbx => sys::AV_PIX_FMT_RGB0,
        }
    }

    /// The kernel's name (drm_fourcc.h), which gives the order of colours in a little-endian
    /// word where libva gives that of bytes.
    pub fn drm_fourcc(self) -> u32 {
        let code = match self {
            Self::Nv12 => b"NV12",
            Self::P010 => b"P010",
            Self::I420 => b"YU12",
            Self::Yv12 => b"YV12",
            Self::Bgra => b"AR24",
            Self::Bgrx => b"XR24",
            Self::Rgba => b"AB24",
            Self::Rgbx => b"XB24",
        };
        u32::from_le_bytes(*code)
    }

    /// The kernel's name of one plane on its own.
    pub fn drm_plane_fourcc(self, plane: usize) -> u32 {
        let code = match (self, plane) {
            (Self::Nv12, 0) | (Self::I420 | Self::Yv12, _) => b"R8  ",
            (Self::Nv12, _) => b"GR88",
            (Self::P010, 0) => b"R16 ",
            (Self::P010, _) => b"GR32",
            _ => return self.drm_fourcc(),
        };
        u32::from_le_bytes(*code)
    }

    /// The render target class of libva.
    pub fn rt_format(self) -> u32 {
        match self {
            Self::Nv12 | Self::I420 | Self::Yv12 => va::VA_RT_FORMAT_YUV420,
            Self::P010 => va::VA_RT_FORMAT_YUV420_10,
            Self::Bgra | Self::Bgrx | Self::Rgba | Self::Rgbx => va::VA_RT_FORMAT_RGB32,
        }
    }

    /// The format of a surface for which a client named only the class.
    pub fn from_rt_format(class: u32) -> Option<Self> {
        ALL.into_iter().find(|format| format.rt_format() & class != 0)
    }

    /// How many planes.
    pub fn planes(self) -> usize {
        match self {
            Self::Nv12 | Self::P010 => 2,
            Self::I420 | Self::Yv12 => 3,
            _ => 1,
        }
    }

    /// 4:2:0 with a luma plane.
    pub fn is_yuv(self) -> bool {
        self.rt_format() != va::VA_RT_FORMAT_RGB32
    }

    /// Its fourth byte is opacity.
    pub fn has_alpha(self) -> bool {
        matches!(self, Self::Bgra | Self::Rgba)
    }

    /// Bytes per sample of a YUV plane.
    pub fn sample_bytes(self) -> usize {
        if self == Self::P010 { 2 } else { 1 }
    }

    /// libva's description.
    pub fn image_format(self) -> va::VAImageFormat {
        // SAFETY: a plain C struct of numbers, for which zeroes are a value.
        let mut format: va::VAImageFormat = unsafe { std::mem::zeroed() };
        format.fourcc = self.fourcc();
        format.byte_order = va::VA_LSB_FIRST;
        format.bits_per_pixel = match self {
            Self::Nv12 | Self::I420 | Self::Yv12 => 12,
            Self::P010 => 24,
            _ => 32,
        };
        if !self.is_yuv() {
            format.depth = if self.has_alpha() { 32 } else { 24 };
            let red_first = matches!(self, Self::Rgba | Self::Rgbx);
            let (first, third) = (0x0000_00ff, 0x00ff_0000);
            format.red_mask = if red_first { first } else { third };
            format.green_mask = 0x0000_ff00;
            format.blue_mask = if red_first { third } else { first };
            format.alpha_mask = if self.has_alpha() { 0xff00_0000 } else { 0 };
        }
        format
    }

    /// Where everything lies for a picture of this size. Odd sizes round chroma up.
    pub fn layout(self, width: usize, height: usize) -> Layout {
        let half = (width.div_ceil(2), height.div_ceil(2));
        let rows: [(usize, usize); 3] = match self {
            Self::Nv12 | Self::P010 => {
                let bytes = self.sample_bytes();
                [(width * bytes, height), (2 * half.0 * bytes, half.1), (0, 0)]
            }
            Self::I420 | Self::Yv12 => [(width, height), half, half],
            _ => [(width * 4, height), (0, 0), (0, 0)],
        };
        let mut planes = [Plane::default(); 3];
        let mut size = 0;
        for (plane, (row, rows)) in planes.iter_mut().zip(rows) {
            let stride = row.next_multiple_of(ROW_ALIGNMENT);
            *plane = Plane { offset: size, stride, row, rows };
            size += stride * rows;
        }
        Layout { planes, size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_follow_each_other() {
        for format in ALL {
            let layout = format.layout(1919, 1079);
            let mut end = 0;
            for plane in &layout.planes[..format.planes()] {
                assert_eq!(plane.offset, end);
                assert!(plane.row <= plane.stride && plane.rows > 0);
                end += plane.stride * plane.rows;
            }
            assert_eq!(layout.size, end);
        }
    }

    #[test]
    fn fourcc_round_trip() {
        for format in ALL {
            assert_eq!(Format::from_fourcc(format.fourcc()), Some(format));
        }
        assert_eq!(Format::from_rt_format(va::VA_RT_FORMAT_YUV420), Some(Format::Nv12));
        assert_eq!(Format::from_rt_format(va::VA_RT_FORMAT_YUV444), None);
    }
}
