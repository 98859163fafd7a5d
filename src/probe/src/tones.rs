//! Greys of HDR10, and the look at what a tone mapping, or another brightness, made of them.
//!
//! Every driver has a curve of its own, so no value is expected. What all have in common: greys stay
//! grey and in their order, and what is bright in HDR, in the middle of PQ's range, is at the upper end
//! of SDR's. A filter that does nothing leaves it where it was.

use gstreamer_video as gst_video;

use crate::Picture;
use crate::picture::{FIELD_NAMES, TOLERANCE};

/// What the frames' caps say: HDR10 on a display of 1000 cd/m2. Without a word on the light,
/// `vapostproc` maps nothing.
pub const CAPS: &str = "colorimetry=bt2100-pq,\
    mastering-display-info=(string)35400:14600:8500:39850:6550:2300:15635:16450:10000000:50,\
    content-light-level=(string)1000:400";

/// Luma of the fields as PQ, the upper 8 of 10 bits of limited range: 0.1, 17, 120 and 640 cd/m2.
const LUMA: [u8; 4] = [30, 90, 130, 170];
/// What the darkest field gains per frame.
const STEP: u8 = 5;
/// Least distance of two fields that follow each other.
const APART: i32 = 8;
/// Chroma of grey.
const GREY: i32 = 128;

fn value(frame: u32, field: usize) -> u8 {
    LUMA[field] + if field == 0 { STEP * u8::try_from(frame).unwrap_or(0) } else { 0 }
}

/// Frame number `frame` as bytes of P010 without padding.
pub fn p010(picture: Picture, frame: u32) -> Vec<u8> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let mut bytes = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let row = 2 * usize::from(y >= height / 2);
        for x in 0..width {
            bytes.extend([0, value(frame, row + usize::from(x >= width / 2))]);
        }
    }
    bytes.extend([0, GREY as u8].repeat(width * height / 2));
    bytes
}

/// The judge.
#[derive(Debug, Clone, Copy)]
pub struct Tones {
    /// Its size.
    pub picture: Picture,
    /// Luma of the darkest field in the first frame.
    darkest: i32,
}

impl Tones {
    /// For pictures of that size.
    pub fn new(picture: Picture) -> Self {
        Self { picture, darkest: 0 }
    }

    /// Looks at the picture with that number.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn check(
        &mut self,
        number: u32,
        frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
    ) -> Result<(), String> {
        self.picture.check_size(number, frame)?;
        let mean = |field, component| self.picture.mean(frame, field, component);
        let luma = [0, 1, 2, 3].map(|field| mean(field, 0));
        let wrong = |what: String| Err(format!("frame {number} {what}: its fields are {luma:?}"));
        for (field, name) in FIELD_NAMES.iter().enumerate() {
            let chroma = [mean(field, 1), mean(field, 2)];
            if chroma.iter().any(|value| (value - GREY).abs() > TOLERANCE) {
                return wrong(format!("isn't grey, {name} has {chroma:?}"));
            }
        }
        if luma.windows(2).any(|pair| pair[1] - pair[0] < APART) {
            return wrong("has its greys out of order".into());
        }
        let before = i32::from(value(number, 3));
        if luma[3] - before <= TOLERANCE {
            return wrong(format!("is what it was, {before} is no brighter"));
        }
        match number {
            0 => self.darkest = luma[0],
            // Slowly at first in every curve, so over all the frames.
            last if last + 1 == crate::FRAMES && luma[0] - self.darkest < i32::from(STEP) => {
                return wrong("stands still".into());
            }
            _ => {}
        }
        Ok(())
    }
}
