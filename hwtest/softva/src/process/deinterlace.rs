//! Deinterlacing: one field of a picture becomes a picture.
//!
//! The rows of the field stay; those between are made up:
//!
//! - bob: the mean of the rows above and below;
//! - adaptive: where nothing moves, the row of the other field, else an interpolation along the
//!   best of seven directions, and in between the interpolation kept as close to the other
//!   fields' rows as the movement since the picture before allows. Without a picture before it,
//!   bob.
//!
//! libva's "motion compensated" is the same as "adaptive" here: nothing searches for motion. No
//! method asks for a later picture, because GStreamer 1.26 shows one picture twice and hands over
//! none when a driver does.

use std::sync::Arc;

use crate::surface::{Surface, View};

/// How the missing rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// From this field alone.
    Bob,
    /// With the picture before.
    Adaptive,
}

/// Deinterlacing of one picture.
#[derive(Debug)]
pub struct Deinterlacing {
    /// How.
    pub method: Method,
    /// The field that stays: the odd rows instead of the even ones.
    pub bottom: bool,
    /// The field that stays is the earlier one of its picture.
    pub first: bool,
    /// The picture before.
    pub earlier: Option<Arc<Surface>>,
}

impl std::fmt::Display for Deinterlacing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = if self.bottom { "bottom" } else { "top" };
        let place = if self.first { "first" } else { "second" };
        write!(f, "{:?} {field} field, {place}", self.method)?;
        let known = if self.earlier.is_some() { ", picture before known" } else { "" };
        f.write_str(known)
    }
}

impl Deinterlacing {
    /// Makes the picture. Source and target are of one size and format.
    pub fn run(&self, source: &View<'_>, target: &View<'_>) {
        let usable = |surface: &&Arc<Surface>| {
            (surface.format, surface.width, surface.height)
                == (source.format(), source.width(), source.height())
        };
        let earlier = self.earlier.as_ref().filter(usable).map(|surface| surface.view());
        let before = earlier.filter(|_| self.method == Method::Adaptive);
        let format = source.format();
        for plane in 0..format.planes() {
            // Samples of one colour are this far apart: chroma is interleaved, RGB too.
            let step = match (format.is_yuv(), format.planes(), plane) {
                (true, 2, 1) => 2,
                (true, ..) => 1,
                _ => 4,
            };
            if format.sample_bytes() == 2 {
                self.plane::<[u8; 2]>(source, target, before, (plane, step));
            } else {
                self.plane::<[u8; 1]>(source, target, before, (plane, step));
            }
        }
    }

    fn plane<S: Sample>(
        &self,
        source: &View<'_>,
        target: &View<'_>,
        before: Option<View<'_>>,
        (plane, step): (usize, usize),
    ) {
        let rows = source.rows(plane);
        let kept = usize::from(self.bottom);
        for row in 0..rows {
            if row % 2 == kept {
                target.row_mut(plane, row).copy_from_slice(source.row(plane, row));
                continue;
            }
            // At the edges there is a row of the field on one side only.
            let above = if row == 0 { 1.min(rows - 1) } else { row - 1 };
            let below = if row + 1 < rows { row + 1 } else { above };
            let to = S::split_mut(target.row_mut(plane, row));
            let (up, down) =
                (S::split(source.row(plane, above)), S::split(source.row(plane, below)));
            let Some(before) = before else {
                for ((to, up), down) in to.iter_mut().zip(up).zip(down) {
                    *to = S::new((up.value() + down.value() + 1) / 2);
                }
                continue;
            };
            // The fields of the missing rows that are next in time, on either side.
            let previous = if self.first { before } else { *source };
            let lines = Lines {
                up,
                down,
                previous: rows_of::<S>(&previous, (plane, row)),
                next: rows_of::<S>(source, (plane, row)),
                before: (
                    rows_of::<S>(&before, (plane, above)),
                    rows_of::<S>(&before, (plane, below)),
                ),
            };
            for (x, to) in to.iter_mut().enumerate() {
                *to = S::new(lines.pixel(x, step));
            }
        }
    }
}

fn rows_of<'a, S: Sample>(view: &View<'a>, (plane, row): (usize, usize)) -> &'a [S] {
    S::split(view.row(plane, row))
}

/// A sample of 8 or 16 bits.
trait Sample: Copy + 'static {
    fn value(self) -> i32;
    fn new(value: i32) -> Self;
    fn split(row: &[u8]) -> &[Self];
    fn split_mut(row: &mut [u8]) -> &mut [Self];
}

impl Sample for [u8; 1] {
    fn value(self) -> i32 {
        self[0].into()
    }

    fn new(value: i32) -> Self {
        [value.clamp(0, 255) as u8]
    }

    fn split(row: &[u8]) -> &[Self] {
        row.as_chunks().0
    }

    fn split_mut(row: &mut [u8]) -> &mut [Self] {
        row.as_chunks_mut().0
    }
}

impl Sample for [u8; 2] {
    fn value(self) -> i32 {
        u16::from_le_bytes(self).into()
    }

    fn new(value: i32) -> Self {
        (value.clamp(0, 65_535) as u16).to_le_bytes()
    }

    fn split(row: &[u8]) -> &[Self] {
        row.as_chunks().0
    }

    fn split_mut(row: &mut [u8]) -> &mut [Self] {
        row.as_chunks_mut().0
    }
}

/// The rows around a missing one.
struct Lines<'a, S> {
    up: &'a [S],
    down: &'a [S],
    previous: &'a [S],
    next: &'a [S],
    before: (&'a [S], &'a [S]),
}

impl<S: Sample> Lines<'_, S> {
    fn pixel(&self, x: usize, step: usize) -> i32 {
        let difference = |one: S, other: S| (one.value() - other.value()).abs();
        let still = (self.previous[x].value() + self.next[x].value()) / 2;
        let movement = (difference(self.previous[x], self.next[x]) / 2).max(i32::midpoint(
            difference(self.before.0[x], self.up[x]),
            difference(self.before.1[x], self.down[x]),
        ));
        self.along_edge(x, step).clamp(still - movement, still + movement)
    }

    /// The mean of the two samples in the direction in which the rows above and below agree most.
    fn along_edge(&self, x: usize, step: usize) -> i32 {
        const DIRECTIONS: [isize; 7] = [0, -1, 1, -2, 2, -3, 3];
        let at = |row: &[S], place: isize| {
            usize::try_from(place).ok().and_then(|place| row.get(place)).map(|s| s.value())
        };
        let (x, step) = (x as isize, step as isize);
        let mut best = (i32::MAX, 0);
        for direction in DIRECTIONS {
            let lean = direction * step;
            let mut score = 0;
            let mut inside = true;
            for near in [-step, 0, step] {
                match (at(self.up, x + near + lean), at(self.down, x + near - lean)) {
                    (Some(up), Some(down)) => score += (up - down).abs(),
                    _ => inside = false,
                }
            }
            let ends = (at(self.up, x + lean), at(self.down, x - lean));
            let (Some(up), Some(down)) = ends else { continue };
            // At the sides of the picture only the vertical can be judged.
            if (inside || direction == 0) && score < best.0 {
                best = (score, i32::midpoint(up, down));
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;

    fn surface(value: impl Fn(usize, usize) -> u8) -> Arc<Surface> {
        let surface = Surface::new(Format::Nv12, 64, 32).expect("memory");
        for row in 0..32 {
            let line = surface.view().row_mut(0, row);
            line.iter_mut().enumerate().for_each(|(x, to)| *to = value(x, row));
        }
        for row in 0..16 {
            surface.view().row_mut(1, row).fill(128);
        }
        Arc::new(surface)
    }

    fn run(deinterlacing: &Deinterlacing, source: &Surface) -> Arc<Surface> {
        let target = surface(|_, _| 0);
        deinterlacing.run(&source.view(), &target.view());
        target
    }

    #[test]
    fn a_still_picture_stays_as_it_is() {
        // Detail from row to row, which bob would lose.
        let still = surface(|x, y| if (x / 4 + y) % 2 == 0 { 40 } else { 200 });
        for (method, exact) in [(Method::Adaptive, true), (Method::Bob, false)] {
            for bottom in [false, true] {
                let earlier = Some(still.clone());
                let deinterlacing = Deinterlacing { method, bottom, first: true, earlier };
                let target = run(&deinterlacing, &still);
                let same = (0..32).all(|y| target.view().row(0, y) == still.view().row(0, y));
                assert_eq!(same, exact, "{method:?}");
            }
        }
    }

    #[test]
    fn a_moving_picture_has_no_comb() {
        // The fields of each picture are at different times: a bar moves 8 pixels per field.
        let bar = |time: usize| move |x: usize| if x / 8 == time { 235 } else { 16 };
        let picture = |frame: usize| surface(move |x, y| bar(2 * frame + y % 2)(x));
        let earlier = Some(picture(1));
        for method in [Method::Bob, Method::Adaptive] {
            let deinterlacing =
                Deinterlacing { method, bottom: false, first: true, earlier: earlier.clone() };
            let target = run(&deinterlacing, &picture(2));
            for y in 1..31 {
                let view = target.view();
                for (x, value) in view.row(0, y).iter().enumerate() {
                    assert_eq!(*value, bar(4)(x), "{method:?} {x},{y}");
                }
            }
        }
    }

    #[test]
    fn a_comb_becomes_one_field() {
        let comb = surface(|_, y| if y % 2 == 0 { 50 } else { 180 });
        for (bottom, value) in [(false, 50), (true, 180)] {
            let deinterlacing =
                Deinterlacing { method: Method::Adaptive, bottom, first: !bottom, earlier: None };
            let target = run(&deinterlacing, &comb);
            assert!((0..32).all(|y| target.view().row(0, y).iter().all(|v| *v == value)));
        }
    }
}
