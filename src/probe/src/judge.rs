//! What comes out, against what should.

use gstreamer_video as gst_video;

use crate::tones::Tones;
use crate::{FRAMES, Picture};

type Frame<'a> = gst_video::VideoFrameRef<&'a gstreamer::BufferRef>;

/// Who says whether an operation was done.
#[derive(Debug, Clone, Copy)]
pub enum Judge {
    /// By the pictures' colours.
    Order(Order),
    /// By what became of the greys of HDR10.
    Tones(Tones),
}

impl Judge {
    /// Expects that picture of every frame.
    pub fn of_frames(picture: Picture) -> Self {
        Self::Order(Order { picture, by_field: false, last: 0 })
    }

    /// Expects that picture of every field.
    pub fn of_fields(picture: Picture) -> Self {
        Self::Order(Order { picture, by_field: true, last: 0 })
    }

    /// Expects the greys of [`tones`](crate::tones), mapped.
    pub fn of_tones(picture: Picture) -> Self {
        Self::Tones(Tones::new(picture))
    }

    /// What it looks for.
    pub fn picture(&self) -> Picture {
        match self {
            Self::Order(order) => order.picture,
            Self::Tones(tones) => tones.picture,
        }
    }

    /// Looks at the picture with that number.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn check(&mut self, number: u32, frame: &Frame<'_>) -> Result<(), String> {
        match self {
            Self::Order(order) => order.check(number, frame),
            Self::Tones(tones) => tones.check(number, frame),
        }
    }

    /// How many there should be.
    pub fn expected(&self) -> u32 {
        match self {
            Self::Order(order) if order.by_field => 2 * FRAMES,
            _ => FRAMES,
        }
    }

    /// Whether so many are all.
    pub fn is_complete(&self, count: u32) -> bool {
        match self {
            Self::Order(order) => order.is_complete(count, self.expected()),
            Self::Tones(_) => count == FRAMES,
        }
    }
}

/// Which frames come out.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    picture: Picture,
    /// Two of each. Some at either end may be missing: methods that look at the fields before and after
    /// have none there, and GStreamer before 1.26 drops some itself.
    by_field: bool,
    /// The last that was seen.
    last: u32,
}

/// Frames at either end whose pictures a deinterlacer may owe.
const OWED: u32 = 1;

impl Order {
    fn check(&mut self, number: u32, frame: &Frame<'_>) -> Result<(), String> {
        if !self.by_field {
            return self.picture.check(number, frame);
        }
        let mut candidates = self.last..FRAMES;
        match candidates.find(|candidate| self.picture.check(*candidate, frame).is_ok()) {
            Some(found) => self.last = found,
            None => self.picture.check((number / 2).min(FRAMES - 1), frame)?,
        }
        Ok(())
    }

    fn is_complete(&self, count: u32, expected: u32) -> bool {
        let owed = if self.by_field { 2 * 2 * OWED } else { 0 };
        // A picture also passes for the one before it, which differs by no more than the tolerance.
        let moved = !self.by_field || self.last + OWED + 1 >= FRAMES - 1;
        (expected - owed..=expected).contains(&count) && moved
    }
}
