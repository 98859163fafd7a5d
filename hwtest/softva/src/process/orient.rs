//! Rotation by quarter turns, then mirroring.

use crate::format::Format;
use crate::status::{Outcome, Refusal};
use crate::surface::{Frame, View};
use crate::va::{self, VAProcPipelineParameterBuffer};

/// How a picture is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Orientation {
    /// Quarter turns clockwise, first.
    turns: u32,
    /// Left becomes right, after the turns.
    horizontal: bool,
    /// Top becomes bottom, after the turns.
    vertical: bool,
}

impl Orientation {
    /// As the parameters say.
    pub fn read(parameters: &VAProcPipelineParameterBuffer) -> Outcome<Self> {
        let turns = parameters.rotation_state;
        if turns > va::VA_ROTATION_270 {
            return Err(Refusal::parameter(format!("rotation {turns}")));
        }
        let mirror = parameters.mirror_state;
        Ok(Self {
            turns,
            horizontal: mirror & va::VA_MIRROR_HORIZONTAL != 0,
            vertical: mirror & va::VA_MIRROR_VERTICAL != 0,
        })
    }

    /// The size before turning of a picture that is to have this size.
    pub fn size(self, width: usize, height: usize) -> (usize, usize) {
        if self.turns % 2 == 1 { (height, width) } else { (width, height) }
    }

    /// The turned picture.
    pub fn run(self, source: &View<'_>, width: usize, height: usize) -> Frame {
        let format = source.format();
        let mut frame = Frame::new(format, width, height);
        let target = frame.view();
        for plane in 0..format.planes() {
            match (format, plane) {
                (Format::Nv12, 1) => self.plane::<2>(source, &target, plane),
                (Format::P010, 0) => self.plane::<2>(source, &target, plane),
                (Format::P010, _) => self.plane::<4>(source, &target, plane),
                (Format::Nv12 | Format::I420 | Format::Yv12, _) => {
                    self.plane::<1>(source, &target, plane);
                }
                _ => self.plane::<4>(source, &target, plane),
            }
        }
        frame
    }

    /// A plane of pixels of `N` bytes.
    fn plane<const N: usize>(self, source: &View<'_>, target: &View<'_>, plane: usize) {
        let source_rows: Vec<&[[u8; N]]> =
            (0..source.rows(plane)).map(|row| source.row(plane, row).as_chunks().0).collect();
        let rows = target.rows(plane);
        for y in 0..rows {
            let line = target.row_mut(plane, y).as_chunks_mut::<N>().0;
            let columns = line.len();
            for (x, to) in line.iter_mut().enumerate() {
                let x = if self.horizontal { columns - 1 - x } else { x };
                let y = if self.vertical { rows - 1 - y } else { y };
                let (row, column) = match self.turns {
                    0 => (y, x),
                    1 => (columns - 1 - x, y),
                    2 => (rows - 1 - y, columns - 1 - x),
                    _ => (x, rows - 1 - y),
                };
                *to = source_rows[row][column];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 x 2 pixels, numbered from the top left.
    fn run(orientation: Orientation, width: usize, height: usize) -> Vec<u8> {
        let mut source = Frame::new(Format::I420, 4, 2);
        source.view().row_mut(0, 0).copy_from_slice(&[0, 1, 2, 3]);
        source.view().row_mut(0, 1).copy_from_slice(&[4, 5, 6, 7]);
        let mut turned = orientation.run(&source.view(), width, height);
        let view = turned.view();
        (0..height).flat_map(|row| view.row(0, row).to_vec()).collect()
    }

    #[test]
    fn turns_are_clockwise_and_come_first() {
        let turn = |turns| Orientation { turns, ..Orientation::default() };
        assert_eq!(run(turn(1), 2, 4), [4, 0, 5, 1, 6, 2, 7, 3]);
        assert_eq!(run(turn(2), 4, 2), [7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(run(turn(3), 2, 4), [3, 7, 2, 6, 1, 5, 0, 4]);
        let mirrored = Orientation { turns: 1, horizontal: true, vertical: false };
        assert_eq!(run(mirrored, 2, 4), [0, 4, 1, 5, 2, 6, 3, 7]);
        let upside_down = Orientation { turns: 0, horizontal: false, vertical: true };
        assert_eq!(run(upside_down, 4, 2), [4, 5, 6, 7, 0, 1, 2, 3]);
    }
}
