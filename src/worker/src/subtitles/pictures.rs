//! Subtitles that are pictures: PGS, VobSub, DVB. What ffmpeg makes a film of (`sub2video`) and lays
//! over the picture (`overlay=eof_action=pass:repeatlast=0`).
//!
//! Each stands from its time until its end, or until the next one appears. It is drawn on a canvas,
//! the canvas is brought to a plane as the command says, and the plane is kept for as long as it is
//! shown.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use ffmpeg_args::{PictureSubtitles, StreamSelect, SubtitleFit};

use super::draw::{Layer, Matrix, Picture};
use super::libav::{Bitmap, Error, Kind, Nature, Subtitle};
use super::stream::{Stream, Which};
use crate::swscale::{self, Filter, Scaler};

/// Times are in microseconds and may be rounded up.
const ROUNDING_NS: i64 = 1_000;
/// ffmpeg's canvas if neither subtitles nor a picture state a size.
const SMALLEST_CANVAS: (u32, u32) = (720, 576);

/// A stream of pictures, and what is shown of it.
#[derive(Debug)]
pub struct Pictures {
    stream: Stream,
    plan: PictureSubtitles,
    /// Known, and not shown yet.
    waiting: VecDeque<Subtitle>,
    shown: Option<Subtitle>,
    /// What is shown, ready to be drawn; `None` if that is yet to be made.
    layer: Option<Option<Layer>>,
    target: Target,
}

/// What is drawn upon.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Target {
    width: u32,
    height: u32,
    matrix: Matrix,
}

impl Pictures {
    /// Opens the stream in its input.
    ///
    /// # Errors
    /// If ffmpeg's libraries don't read the input, or the stream isn't one of pictures.
    pub fn open(plan: &PictureSubtitles, files: Vec<OwnedFd>, name: &str) -> Result<Self, Error> {
        let which = match plan.source.stream {
            StreamSelect::Index(index) => Which::Index(index as usize),
            StreamSelect::Best => Which::Best,
        };
        let stream = Stream::open(files, name, which, None)?;
        if stream.nature() == Nature::Text {
            return Err(Error("it has text where pictures are expected".into()));
        }
        let matrix = Matrix { red: 0.0, blue: 0.0, full_range: false };
        Ok(Self {
            stream,
            plan: plan.clone(),
            waiting: VecDeque::new(),
            shown: None,
            layer: None,
            target: Target { width: 0, height: 0, matrix },
        })
    }

    /// Output begins here, ns in the container's own time.
    pub fn begin(&mut self, start_ns: i64) {
        self.stream.begin(start_ns);
    }

    /// Draws what is to be seen at a time, ns in the container's own time, upon the picture of
    /// `size` that `open` gives; false if that is nothing, or there is no picture.
    pub fn draw<'p>(
        &mut self,
        time_ns: i64,
        size: (u32, u32),
        matrix: Matrix,
        open: impl FnOnce() -> Option<Picture<'p>>,
    ) -> bool {
        let target = Target { width: size.0, height: size.1, matrix };
        if self.target != target {
            self.target = target;
            self.layer = None;
        }
        let now = time_ns + ROUNDING_NS;
        let waiting = &mut self.waiting;
        self.stream.read_to(time_ns, |subtitle| queue(waiting, subtitle, now));
        let due = self.waiting.iter().take_while(|next| appears_ns(next) <= now).count();
        if let Some(latest) = self.waiting.drain(..due).next_back() {
            self.shown = Some(latest);
            self.layer = None;
        }
        if self.shown.as_ref().is_none_or(|shown| disappears_ns(shown) <= now) {
            return false;
        }
        if self.layer.is_none() {
            self.layer = Some(self.make());
        }
        let Some(layer) = self.layer.as_ref().and_then(Option::as_ref) else { return false };
        let Some(mut picture) = open() else { return false };
        layer.draw(&mut picture);
        true
    }

    fn make(&self) -> Option<Layer> {
        let shown = self.shown.as_ref().filter(|shown| !shown.bitmaps.is_empty())?;
        let canvas = painted(self.canvas(), &shown.bitmaps)?;
        let plane = match self.plan.fit {
            None => canvas,
            Some(SubtitleFit::Exact { width, height }) => canvas.scaled(width, height)?,
            Some(SubtitleFit::Height { width, height }) => {
                // Where ffmpeg has no GPU it does this in 4:2:0, whose chroma isn't split.
                let step = if self.plan.stretched { 1 } else { 2 };
                canvas.fitted(width, height, step)?
            }
        };
        let Target { width, height, matrix } = self.target;
        let plane = if self.plan.stretched { plane.scaled(width, height)? } else { plane };
        Layer::new(&plane.pixels, plane.width as usize, matrix)
    }

    /// The size that positions refer to: the subtitles' own, else what the command says, else that of
    /// the largest picture beside them.
    fn canvas(&self) -> (u32, u32) {
        let own = self.stream.decoder().canvas().or(self.plan.canvas);
        own.unwrap_or_else(|| {
            let media = self.stream.media();
            let pictures = (0..media.count()).filter(|stream| media.kind(*stream) == Kind::Video);
            let sizes = pictures.filter_map(|stream| media.size(stream));
            sizes.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1))).unwrap_or(SMALLEST_CANVAS)
        })
    }
}

/// Adds one that was read. After a seek in a file of subtitles alone all before it are read too: those
/// that another has replaced by now are let go of at once, as each may be megabytes.
fn queue(waiting: &mut VecDeque<Subtitle>, next: Subtitle, now: i64) {
    waiting.push_back(next);
    while waiting.iter().take(2).filter(|subtitle| appears_ns(subtitle) <= now).count() == 2 {
        waiting.pop_front();
    }
}

fn appears_ns(subtitle: &Subtitle) -> i64 {
    subtitle.time_us.saturating_mul(1000) + i64::from(subtitle.appears_ms) * 1_000_000
}

fn disappears_ns(subtitle: &Subtitle) -> i64 {
    match subtitle.disappears_ms {
        u32::MAX => i64::MAX,
        after => subtitle.time_us.saturating_mul(1000) + i64::from(after) * 1_000_000,
    }
}

/// Pixels as 0xAARRGGBB.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plane {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
}

/// Largest area of a canvas or a plane, pixels: that of 8K. A damaged stream may claim any size, and
/// memory for it would be taken.
const LARGEST: usize = 7680 * 4320;

impl Plane {
    fn empty(width: u32, height: u32) -> Option<Self> {
        let size = (width as usize).checked_mul(height as usize)?;
        (1..=LARGEST).contains(&size).then(|| Self { width, height, pixels: vec![0; size] })
    }

    fn at(&self, x: i64, y: i64) -> u32 {
        let within = (0..i64::from(self.width)).contains(&x);
        let index = y * i64::from(self.width) + x;
        let pixel = usize::try_from(index).ok().filter(|_| within);
        pixel.and_then(|index| self.pixels.get(index)).copied().unwrap_or(0)
    }

    /// Enlarged or reduced, by libswscale's fast bilinear filter as the commands have it.
    fn scaled(self, width: u32, height: u32) -> Option<Self> {
        if (width, height) == (self.width, self.height) {
            return Some(self);
        }
        let mut target = Self::empty(width, height)?;
        let picture =
            |width, height| swscale::Picture { width, height, format: c"bgra", chroma_shift: 0 };
        let source = picture(self.width, self.height);
        let mut scaler = Scaler::by(Filter::FastBilinear, source, picture(width, height))?;
        // libswscale reads and writes whole vectors.
        let (from, to) = (stride(self.width), stride(width));
        let mut bytes = vec![0; from * self.height as usize + PADDING];
        for (row, line) in bytes.chunks_exact_mut(from).zip(self.rows()) {
            for (pixel, value) in row.chunks_exact_mut(4).zip(line) {
                pixel.copy_from_slice(&value.to_le_bytes());
            }
        }
        let mut scaled = vec![0; to * height as usize + PADDING];
        if !scaler.scale(&[(&bytes, from)], &mut [(&mut scaled, to)]) {
            return None;
        }
        let rows = target.pixels.chunks_exact_mut(width as usize);
        for (line, row) in rows.zip(scaled.chunks_exact(to)) {
            for (value, pixel) in line.iter_mut().zip(row.as_chunks::<4>().0) {
                *value = u32::from_le_bytes(*pixel);
            }
        }
        Some(target)
    }

    fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.pixels.chunks_exact(self.width as usize)
    }

    /// Brought to a height, then cut or filled up alike on both sides, by multiples of `step`.
    fn fitted(self, width: u32, height: u32, step: i64) -> Option<Self> {
        let (from, to) = (u64::from(self.height), u64::from(height));
        let natural = (u64::from(self.width) * to + from / 2) / from;
        let scaled = self.scaled(u32::try_from(natural.max(1)).ok()?, height)?;
        let mut target = Self::empty(width, height)?;
        let half = i64::from(width.abs_diff(scaled.width) / 2) / step * step;
        let shift = if width > scaled.width { -half } else { half };
        let lines = target.pixels.chunks_exact_mut(width as usize);
        for (y, line) in lines.enumerate() {
            for (x, value) in line.iter_mut().enumerate() {
                *value = scaled.at(x as i64 + shift, y as i64);
            }
        }
        Some(target)
    }
}

/// Bytes behind a picture, and what rows are a multiple of, for libswscale.
const PADDING: usize = 64;

fn stride(width: u32) -> usize {
    (width as usize * 4).next_multiple_of(PADDING)
}

/// The canvas with its pictures; those that don't fit on it are left out, as ffmpeg does.
fn painted((width, height): (u32, u32), bitmaps: &[Bitmap]) -> Option<Plane> {
    let mut canvas = Plane::empty(width, height)?;
    for bitmap in bitmaps {
        let rows = bitmap.pixels.len() / bitmap.width.max(1);
        let place = usize::try_from(bitmap.x).ok().zip(usize::try_from(bitmap.y).ok());
        let Some((x, y)) = place else { continue };
        if x + bitmap.width > width as usize || y + rows > height as usize {
            continue;
        }
        for (row, line) in bitmap.pixels.chunks_exact(bitmap.width).enumerate() {
            let start = (y + row) * width as usize + x;
            canvas.pixels[start..start + bitmap.width].copy_from_slice(line);
        }
    }
    Some(canvas)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: u32 = 0xffff_0000;

    fn square(x: i32, y: i32, side: usize) -> Bitmap {
        Bitmap { x, y, width: side, pixels: vec![RED; side * side] }
    }

    fn box_of(plane: &Plane) -> (usize, usize, usize, usize) {
        let seen: Vec<(usize, usize)> = plane
            .rows()
            .enumerate()
            .flat_map(|(y, row)| row.iter().enumerate().map(move |(x, pixel)| (x, y, pixel)))
            .filter(|(_, _, pixel)| **pixel >> 24 > 127)
            .map(|(x, y, _)| (x, y))
            .collect();
        let x = seen.iter().map(|(x, _)| *x);
        let y = seen.iter().map(|(_, y)| *y);
        (x.clone().min().unwrap(), y.clone().min().unwrap(), x.max().unwrap(), y.max().unwrap())
    }

    #[test]
    fn what_is_replaced_before_it_is_shown_is_not_kept() {
        let at = |seconds: i64| Subtitle {
            time_us: seconds * 1_000_000,
            appears_ms: 0,
            disappears_ms: u32::MAX,
            lines: Vec::new(),
            bitmaps: vec![square(0, 0, 4)],
        };
        let mut waiting = VecDeque::new();
        let mut most = 0;
        for second in 0..1000 {
            queue(&mut waiting, at(second), 997 * 1_000_000_000);
            most = most.max(waiting.len());
        }
        assert_eq!(waiting, [at(997), at(998), at(999)]);
        assert_eq!(most, 3);
    }

    #[test]
    fn pictures_beyond_the_canvas_are_left_out() {
        let canvas = painted((20, 20), &[square(15, 0, 6), square(-1, 0, 4), square(4, 6, 4)]);
        assert_eq!(box_of(&canvas.unwrap()), (4, 6, 7, 9));
        assert_eq!(painted((0, 20), &[]), None);
    }

    #[test]
    fn a_canvas_is_scaled() {
        let canvas = painted((40, 20), &[square(8, 4, 8)]).unwrap();
        let scaled = canvas.scaled(80, 40).unwrap();
        assert_eq!((scaled.width, scaled.height), (80, 40));
        let (left, top, right, bottom) = box_of(&scaled);
        assert!(left.abs_diff(16) < 2 && top.abs_diff(8) < 2, "{left} {top}");
        assert!(right.abs_diff(31) < 2 && bottom.abs_diff(23) < 2, "{right} {bottom}");
        // libswscale's colours are off by one.
        assert_eq!(scaled.at(24, 16) & 0xfff0_f0f0, 0xfff0_0000);
    }

    #[test]
    fn a_canvas_is_fitted_in_its_middle() {
        let canvas = |width| painted((width, 20), &[square(width as i32 / 2 - 4, 4, 8)]).unwrap();
        for width in [30, 40, 64] {
            let fitted = canvas(width).fitted(40, 20, 1).unwrap();
            assert_eq!((fitted.width, fitted.height), (40, 20));
            assert_eq!(box_of(&fitted), (16, 4, 23, 11), "{width}");
        }
        // Five pixels on each side, of which four are counted.
        assert_eq!(box_of(&canvas(30).fitted(40, 20, 2).unwrap()), (15, 4, 22, 11));
    }
}
