//! Blending of a picture into another one, and the colour behind it.

use crate::format::Format;
use crate::surface::View;
use crate::va::{self, VABlendState};

/// How opaque a picture is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Opacity {
    /// Of all of it, 0 to 1.
    pub global: f32,
    /// Its colours are multiplied by its alpha already.
    pub premultiplied: bool,
}

impl Default for Opacity {
    fn default() -> Self {
        Self { global: 1.0, premultiplied: false }
    }
}

impl Opacity {
    /// As a blend state says.
    pub fn of(state: &VABlendState) -> Self {
        let global = if state.flags & va::VA_BLEND_GLOBAL_ALPHA != 0 {
            state.global_alpha.clamp(0.0, 1.0)
        } else {
            1.0
        };
        Self { global, premultiplied: state.flags & va::VA_BLEND_PREMULTIPLIED_ALPHA != 0 }
    }
}

/// Fills a picture with a colour, given as 0xAARRGGBB. BT.601, limited range, for YUV: what
/// clients ask for is black.
pub fn fill(target: &View<'_>, colour: u32) {
    let [alpha, red, green, blue] = colour.to_be_bytes();
    let (r, g, b) = (f32::from(red), f32::from(green), f32::from(blue));
    let luma = 16.0 + 0.257 * r + 0.504 * g + 0.098 * b;
    let cb = 128.0 - 0.148 * r - 0.291 * g + 0.439 * b;
    let cr = 128.0 + 0.439 * r - 0.368 * g - 0.071 * b;
    let [luma, cb, cr] = [luma, cb, cr].map(|value| (value + 0.5) as u8);
    for plane in 0..target.format().planes() {
        let pixel: &[u8] = match (target.format(), plane) {
            (Format::Nv12 | Format::I420 | Format::Yv12, 0) => &[luma],
            (Format::Nv12, _) => &[cb, cr],
            (Format::P010, 0) => &[0, luma],
            (Format::P010, _) => &[0, cb, 0, cr],
            (Format::I420, 1) | (Format::Yv12, 2) => &[cb],
            (Format::I420 | Format::Yv12, _) => &[cr],
            (Format::Bgra | Format::Bgrx, _) => &[blue, green, red, alpha],
            (Format::Rgba | Format::Rgbx, _) => &[red, green, blue, alpha],
        };
        for row in 0..target.rows(plane) {
            for to in target.row_mut(plane, row).chunks_exact_mut(pixel.len()) {
                to.copy_from_slice(pixel);
            }
        }
    }
}

/// One value over another; `alpha` 0 to 255.
fn over(top: u32, bottom: u32, alpha: u32) -> u32 {
    (top * alpha + bottom * (255 - alpha) + 127) / 255
}

fn blend_bytes(format: Format, from: &[u8], to: &mut [u8], mut alpha: impl FnMut(usize) -> u32) {
    if format == Format::P010 {
        let (from, to) = (from.as_chunks::<2>().0, to.as_chunks_mut::<2>().0);
        for (x, (from, to)) in from.iter().zip(to).enumerate() {
            let value = |bytes: [u8; 2]| u32::from(u16::from_le_bytes(bytes) >> 6);
            let mixed = over(value(*from), value(*to), alpha(x)) as u16;
            *to = (mixed << 6).to_le_bytes();
        }
        return;
    }
    for (x, (from, to)) in from.iter().zip(to).enumerate() {
        *to = over((*from).into(), (*to).into(), alpha(x)) as u8;
    }
}

/// Blends a picture of the target's size and format with one opacity.
pub fn uniform(source: &View<'_>, target: &View<'_>, opacity: f32) {
    let alpha = (opacity * 255.0 + 0.5) as u32;
    for plane in 0..target.format().planes() {
        for row in 0..target.rows(plane) {
            let to = target.row_mut(plane, row);
            blend_bytes(target.format(), source.row(plane, row), to, |_| alpha);
        }
    }
}

/// Makes a BGRA picture's colours those without alpha, and its alpha that of the whole.
pub fn prepare(picture: &View<'_>, opacity: Opacity) {
    for row in 0..picture.rows(0) {
        for pixel in picture.row_mut(0, row).as_chunks_mut::<4>().0 {
            let alpha = u32::from(pixel[3]);
            if opacity.premultiplied && alpha > 0 {
                for colour in &mut pixel[..3] {
                    *colour = ((u32::from(*colour) * 255 + alpha / 2) / alpha).min(255) as u8;
                }
            }
            pixel[3] = (alpha as f32 * opacity.global + 0.5) as u8;
        }
    }
}

/// Blends a picture of the target's size and format with the alpha of a BGRA picture.
pub fn layer(colour: &View<'_>, alpha: &View<'_>, target: &View<'_>) {
    let format = target.format();
    let at = |x: usize, y: usize| u32::from(alpha.row(0, y)[4 * x + 3]);
    let (last_x, last_y) = (alpha.width() - 1, alpha.height() - 1);
    // Chroma covers four pixels.
    let mean = |x: usize, y: usize| {
        let (right, below) = ((2 * x + 1).min(last_x), (2 * y + 1).min(last_y));
        (at(2 * x, 2 * y) + at(right, 2 * y) + at(2 * x, below) + at(right, below) + 2) / 4
    };
    for plane in 0..format.planes() {
        for row in 0..target.rows(plane) {
            let (from, to) = (colour.row(plane, row), target.row_mut(plane, row));
            match (format.is_yuv(), plane) {
                (true, 0) => blend_bytes(format, from, to, |x| at(x, row)),
                (true, _) => {
                    let samples = if format.planes() == 2 { 2 } else { 1 };
                    blend_bytes(format, from, to, |x| mean(x / samples, row));
                }
                (false, _) => {
                    let (from, to) = (from.as_chunks::<4>().0, to.as_chunks_mut::<4>().0);
                    for (x, (from, to)) in from.iter().zip(to).enumerate() {
                        let alpha = at(x, row);
                        for (from, to) in from.iter().zip(&mut to[..3]) {
                            *to = over((*from).into(), (*to).into(), alpha) as u8;
                        }
                        to[3] = over(255, to[3].into(), alpha) as u8;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::Frame;

    #[test]
    fn black_is_16() {
        let mut frame = Frame::new(Format::P010, 4, 4);
        fill(&frame.view(), 0xff00_0000);
        assert_eq!(frame.view().row(0, 3)[..4], [0, 16, 0, 16]);
        assert_eq!(frame.view().row(1, 1)[..4], [0, 128, 0, 128]);
    }

    #[test]
    fn half_of_each() {
        let (mut top, mut bottom) =
            (Frame::new(Format::Nv12, 4, 4), Frame::new(Format::Nv12, 4, 4));
        top.view().row_mut(0, 0).fill(200);
        bottom.view().row_mut(0, 0).fill(100);
        uniform(&top.view(), &bottom.view(), 0.5);
        assert_eq!(bottom.view().row(0, 0)[0], 150);
        assert_eq!(bottom.view().row(0, 1)[0], 0);
    }

    #[test]
    fn transparent_pixels_show_what_is_beneath() {
        let (mut alpha, mut colour) =
            (Frame::new(Format::Bgra, 2, 2), Frame::new(Format::Nv12, 2, 2));
        let mut target = Frame::new(Format::Nv12, 2, 2);
        alpha.view().row_mut(0, 0).copy_from_slice(&[0, 0, 0, 255, 0, 0, 0, 0]);
        colour.view().row_mut(0, 0).fill(200);
        colour.view().row_mut(1, 0).fill(200);
        layer(&colour.view(), &alpha.view(), &target.view());
        assert_eq!(target.view().row(0, 0), [200, 0]);
        // A quarter of the four pixels.
        assert_eq!(target.view().row(1, 0), [50, 50]);
    }
}
