//! Which stream ffmpeg takes if the command maps none. Pure.
//!
//! Of each kind the one with the most points, the first of equals: a hundred million if packets of it
//! have come, five million if the container calls it a default, and one for each pixel or channel.

/// A stream that could be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Candidate {
    /// Data of it has come.
    pub has_data: bool,
    /// The container's mark.
    pub is_default: bool,
    /// Pixels of a picture, channels of a sound; 0 if unknown.
    pub size: u64,
}

impl Candidate {
    fn points(self) -> u64 {
        let mark = |is: bool, points| if is { points } else { 0 };
        mark(self.has_data, 100_000_000) + mark(self.is_default, 5_000_000) + self.size
    }
}

/// Index of the best.
pub fn best(candidates: &[Candidate]) -> Option<usize> {
    let points = candidates.iter().map(|candidate| candidate.points()).enumerate();
    // `max_by_key` would give the last of equals.
    points.rev().max_by_key(|(_, points)| *points).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_then_the_mark_then_size_then_order() {
        let one = |has_data, is_default, size| Candidate { has_data, is_default, size };
        let check = |candidates: &[Candidate], expected| assert_eq!(best(candidates), expected);
        check(&[], None);
        check(&[one(true, false, 2), one(true, false, 6), one(true, false, 6)], Some(1));
        check(&[one(true, false, 6), one(true, true, 2)], Some(1));
        check(&[one(false, true, 6), one(true, false, 2)], Some(1));
        check(&[one(false, false, 0), one(false, false, 0)], Some(0));
        // A picture of 4K outweighs the mark of a small one, as in ffmpeg.
        check(&[one(true, true, 720 * 576), one(true, false, 3840 * 2160)], Some(1));
    }
}
