//! Drawing upon pictures of 4:2:0 and eight bits. Pure.
//!
//! What is drawn has an opacity for each pixel of luma; chroma, which there is a quarter of, takes the
//! mean of the four. The arithmetic is that of ffmpeg's filters (`drawutils.c` for text,
//! `vf_overlay.c` for pictures), with one difference: a picture's chroma is the mean by opacity, so
//! that a transparent pixel beside a coloured one doesn't fade it.
//!
//! Invariant: nothing outside a picture is touched, wherever a thing to draw lies.

/// How colours become luma and chroma.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matrix {
    /// Share of red in luma.
    pub red: f64,
    /// Share of blue.
    pub blue: f64,
    /// Luma from 0 to 255 instead of 16 to 235.
    pub full_range: bool,
}

impl Matrix {
    /// Luma and both chroma of red, green and blue, 0 to 255 (ITU-R BT.709, 3 and 4).
    pub fn convert(self, rgb: [u8; 3]) -> [u8; 3] {
        let [red, green, blue] = rgb.map(|part| f64::from(part) / 255.0);
        let luma = self.red * red + self.blue * blue + (1.0 - self.red - self.blue) * green;
        let chroma = |part: f64, share: f64| (part - luma) / (2.0 * (1.0 - share));
        let (cb, cr) = (chroma(blue, self.blue), chroma(red, self.red));
        let (black, white, swing) =
            if self.full_range { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
        [black + white * luma, 128.0 + swing * cb, 128.0 + swing * cr]
            .map(|value| value.round().clamp(0.0, 255.0) as u8)
    }
}

/// A plane of bytes.
#[derive(Debug)]
pub struct Plane<'a> {
    /// Rows.
    pub data: &'a mut [u8],
    /// Bytes from row to row.
    pub stride: usize,
}

/// A picture to draw upon.
#[derive(Debug)]
pub struct Picture<'a> {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Luma; then both chroma, in two planes or one.
    pub planes: Vec<Plane<'a>>,
}

/// Luma and both chroma.
const COMPONENTS: usize = 3;

/// A component's values within its plane.
struct Component<'a> {
    data: &'a mut [u8],
    stride: usize,
    first: usize,
    step: usize,
    /// Pixels per value in either direction, as a shift.
    shift: usize,
}

impl Picture<'_> {
    fn component(&mut self, number: usize) -> Option<Component<'_>> {
        let (plane, first, step) = match number {
            0 => (0, 0, 1),
            _ if self.planes.len() == 2 => (1, number - 1, 2),
            _ => (number, 0, 1),
        };
        let Plane { data, stride } = self.planes.get_mut(plane)?;
        Some(Component { data, stride: *stride, first, step, shift: usize::from(number > 0) })
    }
}

impl Component<'_> {
    /// Values `from..to` of a row; none if the plane is smaller than its picture.
    fn row(&mut self, row: usize, from: usize, to: usize) -> impl Iterator<Item = &mut u8> {
        let start = row * self.stride + self.first + from * self.step;
        let end = row * self.stride + self.first + (to.max(1) - 1) * self.step + 1;
        let row = if to > from { self.data.get_mut(start..end) } else { None };
        row.unwrap_or_default().iter_mut().step_by(self.step)
    }
}

/// The part of `length` values from `start` on that lies within `0..limit`.
fn within(start: i64, length: usize, limit: usize) -> Option<(usize, usize)> {
    let end = start.saturating_add(i64::try_from(length).ok()?).min(i64::try_from(limit).ok()?);
    let (from, to) = (usize::try_from(start.max(0)).ok()?, usize::try_from(end).ok()?);
    (from < to).then_some((from, to))
}

// --- Text ---------------------------------------------------------------------------------------

/// A shape in one colour.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// Left edge in the picture, pixels.
    pub x: i64,
    /// Upper edge, pixels.
    pub y: i64,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// How much of each pixel it covers, row by row.
    pub coverage: &'a [u8],
    /// Bytes of coverage from row to row.
    pub stride: usize,
    /// Luma and both chroma.
    pub colour: [u8; COMPONENTS],
    /// 0 to 255.
    pub opacity: u8,
}

/// Draws a shape.
pub fn shape(picture: &mut Picture<'_>, shape: &Shape<'_>) {
    let (width, height) = (picture.width, picture.height);
    let Some((left, right)) = within(shape.x, shape.width, width) else { return };
    let Some((top, bottom)) = within(shape.y, shape.height, height) else { return };
    // Coverage times this, at most 255 times 0x10203 and some, is opacity in 1/0x1010101.
    let scale = (0x10307 * u32::from(shape.opacity) + 3) >> 8;
    if scale == 0 {
        return;
    }
    // The picture's column and row of the shape's first.
    let covered = |y: usize, from: usize, to: usize| {
        let row = (y as i64 - shape.y) as usize * shape.stride;
        let at = |x: usize| row + (x as i64 - shape.x) as usize;
        shape.coverage.get(at(from)..at(to)).unwrap_or_default()
    };
    for number in 0..COMPONENTS {
        let Some(mut component) = picture.component(number) else { continue };
        let (shift, value) = (component.shift, u32::from(shape.colour[number]));
        let last = |end: usize| ((end - 1) >> shift) + 1;
        for row in top >> shift..last(bottom) {
            let rows = (row << shift).max(top)..((row + 1) << shift).min(bottom);
            let columns = left >> shift..last(right);
            for (column, old) in columns.clone().zip(component.row(row, columns.start, columns.end))
            {
                let (from, to) = ((column << shift).max(left), ((column + 1) << shift).min(right));
                let parts = rows.clone().flat_map(|y| covered(y, from, to));
                let coverage = parts.map(|part| u32::from(*part)).sum::<u32>() >> (2 * shift);
                let opacity = coverage * scale;
                *old = (((0x101_0101 - opacity) * u32::from(*old) + opacity * value) >> 24) as u8;
            }
        }
    }
}

// --- Pictures -----------------------------------------------------------------------------------

/// Pixels to lay over a picture, each with its own colour and opacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Left edge in the picture, pixels; even.
    x: usize,
    /// Upper edge, pixels; even.
    y: usize,
    /// Pixels; even.
    width: usize,
    /// Pixels; even.
    height: usize,
    /// Luma and opacity.
    luma: Vec<[u8; 2]>,
    /// Both chroma and opacity.
    chroma: Vec<[u8; 3]>,
}

impl Layer {
    /// The part of a plane that can be seen at all. `pixels` are 0xAARRGGBB, row by row of `width`.
    pub fn new(pixels: &[u32], width: usize, matrix: Matrix) -> Option<Self> {
        let visible = |pixel: &u32| pixel >> 24 > 0;
        let rows = || pixels.chunks_exact(width.max(1));
        let top = rows().position(|row| row.iter().any(visible))?;
        let bottom = rows().rposition(|row| row.iter().any(visible))?;
        let left = rows().filter_map(|row| row.iter().position(visible)).min()?;
        let right = rows().filter_map(|row| row.iter().rposition(visible)).max()?;
        // Whole pixels of chroma.
        let (x, y) = (left & !1, top & !1);
        let (across, down) = ((right + 2 - x) & !1, (bottom + 2 - y) & !1);
        let mut layer = Self {
            x,
            y,
            width: across,
            height: down,
            luma: vec![[0; 2]; across * down],
            chroma: vec![[0; 3]; across * down / 4],
        };
        let mut sums = vec![[0_u32; 3]; across * down / 4];
        // Subtitles have few colours, mostly in a row.
        let mut last = (0, matrix.convert([0; 3]));
        for (row, line) in rows().enumerate().take(bottom + 1).skip(top) {
            for (column, pixel) in line.iter().enumerate().take(right + 1).skip(left) {
                let [opacity, red, green, blue] = pixel.to_be_bytes();
                if last.0 != pixel & 0xff_ffff {
                    last = (pixel & 0xff_ffff, matrix.convert([red, green, blue]));
                }
                let [luma, cb, cr] = last.1;
                layer.luma[(row - y) * across + column - x] = [luma, opacity];
                let sum = &mut sums[(row - y) / 2 * (across / 2) + (column - x) / 2];
                let weight = u32::from(opacity);
                *sum = [
                    sum[0] + u32::from(cb) * weight,
                    sum[1] + u32::from(cr) * weight,
                    sum[2] + weight,
                ];
            }
        }
        for (mean, [cb, cr, weight]) in layer.chroma.iter_mut().zip(sums) {
            let of = |sum: u32| (sum + weight / 2).checked_div(weight).unwrap_or(0) as u8;
            *mean = [of(cb), of(cr), (weight / 4) as u8];
        }
        Some(layer)
    }

    /// Lays it over a picture.
    pub fn draw(&self, picture: &mut Picture<'_>) {
        let (width, height) = (picture.width, picture.height);
        for number in 0..COMPONENTS {
            let Some(mut component) = picture.component(number) else { continue };
            let shift = component.shift;
            let values = |length: usize| (length + (1 << shift) - 1) >> shift;
            let (left, across) = (self.x >> shift, self.width >> shift);
            let right = (left + across).min(values(width));
            for row in 0..self.height >> shift {
                let y = (self.y >> shift) + row;
                if y >= values(height) {
                    break;
                }
                for (column, old) in component.row(y, left, right).enumerate() {
                    let at = row * across + column;
                    let (value, opacity) = match number {
                        0 => (self.luma[at][0], self.luma[at][1]),
                        _ => (self.chroma[at][number - 1], self.chroma[at][2]),
                    };
                    *old = mixed(*old, value, opacity);
                }
            }
        }
    }
}

fn mixed(old: u8, new: u8, opacity: u8) -> u8 {
    let opacity = u32::from(opacity);
    let sum = u32::from(old) * (255 - opacity) + u32::from(new) * opacity;
    // A division by 255, rounded.
    (((sum + 128) * 257) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BT709: Matrix = Matrix { red: 0.2126, blue: 0.0722, full_range: false };
    const GREY: u8 = 100;

    /// A picture's planes with a margin that must stay as it is.
    struct Canvas {
        width: usize,
        height: usize,
        planes: Vec<(Vec<u8>, usize, usize)>,
    }

    const MARGIN: u8 = 7;

    impl Canvas {
        fn new(width: usize, height: usize, together: bool) -> Self {
            let half = |length: usize| length.div_ceil(2);
            let chroma = if together { half(width) * 2 } else { half(width) };
            let mut sizes = vec![(width, height), (chroma, half(height))];
            if !together {
                sizes.push((chroma, half(height)));
            }
            let plane = |(across, down): (usize, usize)| {
                let stride = across + 3;
                let row = |_| {
                    let mut row = vec![GREY; across];
                    row.resize(stride, MARGIN);
                    row
                };
                ((0..down).flat_map(row).collect(), stride, across)
            };
            Self { width, height, planes: sizes.into_iter().map(plane).collect() }
        }

        fn picture(&mut self) -> Picture<'_> {
            let planes = self
                .planes
                .iter_mut()
                .map(|(data, stride, _)| Plane { data, stride: *stride })
                .collect();
            Picture { width: self.width, height: self.height, planes }
        }

        fn value(&self, component: usize, x: usize, y: usize) -> u8 {
            let (plane, first, step) = match component {
                0 => (0, 0, 1),
                _ if self.planes.len() == 2 => (1, component - 1, 2),
                _ => (component, 0, 1),
            };
            let (data, stride, _) = &self.planes[plane];
            data[y * stride + first + x * step]
        }

        fn margin_is_whole(&self) -> bool {
            self.planes.iter().all(|(data, stride, across)| {
                data.chunks(*stride).all(|row| row[*across..].iter().all(|byte| *byte == MARGIN))
            })
        }
    }

    #[test]
    fn colours_of_the_standards() {
        assert_eq!(BT709.convert([255; 3]), [235, 128, 128]);
        assert_eq!(BT709.convert([0; 3]), [16, 128, 128]);
        assert_eq!(BT709.convert([255, 0, 0]), [63, 102, 240]);
        let bt601 = Matrix { red: 0.299, blue: 0.114, full_range: false };
        assert_eq!(bt601.convert([255, 0, 0]), [81, 90, 240]);
        let full = Matrix { full_range: true, ..bt601 };
        assert_eq!(full.convert([255; 3]), [255, 128, 128]);
    }

    #[test]
    fn a_shape_covers_and_its_edges_do_so_in_part() {
        for together in [false, true] {
            let mut canvas = Canvas::new(8, 8, together);
            let coverage = [255; 9];
            let colour = [200, 50, 60];
            let three = Shape {
                x: 1,
                y: 1,
                width: 3,
                height: 3,
                coverage: &coverage,
                stride: 3,
                colour,
                opacity: 255,
            };
            shape(&mut canvas.picture(), &three);
            assert_eq!(canvas.value(0, 0, 0), GREY);
            assert_eq!(canvas.value(0, 1, 1), 200);
            assert_eq!(canvas.value(0, 3, 3), 200);
            assert_eq!(canvas.value(0, 4, 3), GREY);
            // One of four pixels, two of four, all four.
            assert_eq!(canvas.value(1, 0, 0), 87);
            assert_eq!(canvas.value(1, 1, 0), 75);
            assert_eq!(canvas.value(1, 1, 1), 50);
            assert_eq!(canvas.value(2, 1, 1), 60);
            assert_eq!(canvas.value(2, 2, 2), GREY);
            assert!(canvas.margin_is_whole());
        }
    }

    #[test]
    fn a_layer_is_the_part_that_is_seen() {
        let mut pixels = vec![0x00ff_ffff_u32; 6 * 6];
        pixels[3 * 6 + 3] = 0xff00_0000;
        pixels[3 * 6 + 4] = 0x80ff_ffff;
        let layer = Layer::new(&pixels, 6, BT709).unwrap();
        assert_eq!((layer.x, layer.y, layer.width, layer.height), (2, 2, 4, 2));
        let mut canvas = Canvas::new(6, 6, true);
        layer.draw(&mut canvas.picture());
        assert_eq!(canvas.value(0, 2, 2), GREY);
        assert_eq!(canvas.value(0, 3, 3), 16);
        assert_eq!(canvas.value(0, 4, 3), 168);
        // Grey of chroma on a chroma of 100, a quarter and an eighth.
        assert_eq!(canvas.value(1, 1, 1), 107);
        assert_eq!(canvas.value(1, 2, 1), 104);
        assert_eq!(Layer::new(&[0x00ff_ffff; 4], 2, BT709), None);
    }

    proptest! {
        #[test]
        fn nothing_outside_is_touched(
            (width, height) in (1_usize..20, 1_usize..20),
            (x, y) in (-30_i64..30, -30_i64..30),
            (across, down) in (1_usize..30, 1_usize..30),
            together: bool,
        ) {
            let mut canvas = Canvas::new(width, height, together);
            let coverage = vec![255; across * down];
            let drawn = Shape {
                x, y, width: across, height: down, coverage: &coverage, stride: across,
                colour: [200; 3], opacity: 255,
            };
            shape(&mut canvas.picture(), &drawn);
            prop_assert!(canvas.margin_is_whole());
            for row in 0..height {
                for column in 0..width {
                    let inside = (x..x + across as i64).contains(&(column as i64))
                        && (y..y + down as i64).contains(&(row as i64));
                    let expected = if inside { 200 } else { GREY };
                    prop_assert_eq!(canvas.value(0, column, row), expected);
                }
            }
        }

        #[test]
        fn a_layer_stays_within(
            (width, height) in (1_usize..20, 1_usize..20),
            (across, down) in (1_usize..30, 1_usize..30),
            seed: u32,
            together: bool,
        ) {
            let mut canvas = Canvas::new(width, height, together);
            let pixels: Vec<u32> =
                (0..across * down).map(|n| seed.rotate_left(n as u32 % 32)).collect();
            if let Some(layer) = Layer::new(&pixels, across, BT709) {
                layer.draw(&mut canvas.picture());
            }
            prop_assert!(canvas.margin_is_whole());
        }
    }
}
