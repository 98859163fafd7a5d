//! The picture that is sent through, and the look at what comes out.

use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

/// Frames of a trial.
pub const FRAMES: u32 = 8;
/// Multiples of 64, so that no codec has to crop.
const WIDTH: u32 = 320;
const HEIGHT: u32 = 192;
/// Distance from a field's edge within which nothing is looked at, as filters blur there.
const MARGIN: u32 = 16;
/// How far a field's mean may be off, of 255. Coarse quantisers stay within 3; nothing at all is
/// 40 off at least.
pub(crate) const TOLERANCE: i32 = 10;
/// What the brightest field gains per frame. Together more than twice the tolerance, so that a
/// picture that stands still is noticed.
const STEP: u8 = 10;

/// Luma and both chroma values of the fields: top left, top right, bottom left, bottom right.
const FIELDS: [[u8; 3]; 4] = [[50, 90, 200], [170, 60, 110], [100, 200, 120], [60, 170, 60]];
pub(crate) const FIELD_NAMES: [&str; 4] = ["top left", "top right", "bottom left", "bottom right"];

/// A turn of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// By a quarter, clockwise.
    Clockwise,
    /// By half.
    Half,
    /// By a quarter, counterclockwise.
    CounterClockwise,
}

impl Direction {
    /// All.
    pub const ALL: [Self; 3] = [Self::Clockwise, Self::Half, Self::CounterClockwise];

    /// The value of GStreamer's `video-direction`.
    pub fn nick(self) -> &'static str {
        match self {
            Self::Clockwise => "90r",
            Self::Half => "180",
            Self::CounterClockwise => "90l",
        }
    }

    /// For each place, in the order of [`FIELDS`], the field that is there afterwards.
    fn fields(self) -> [usize; 4] {
        match self {
            Self::Clockwise => [2, 0, 3, 1],
            Self::Half => [3, 2, 1, 0],
            Self::CounterClockwise => [1, 3, 0, 2],
        }
    }
}

/// The picture in some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Which way it is turned.
    pub direction: Option<Direction>,
}

impl Picture {
    /// As clips have it.
    pub const FULL: Self = Self::of_size(WIDTH, HEIGHT);
    /// Scaled up: hardware encoders have a least size too.
    pub const DOUBLE: Self = Self::of_size(WIDTH * 2, HEIGHT * 2);
    /// Scaled down.
    pub const HALF: Self = Self::of_size(WIDTH / 2, HEIGHT / 2);

    const fn of_size(width: u32, height: u32) -> Self {
        Self { width, height, direction: None }
    }

    /// The same, turned.
    pub fn turned(self, direction: Direction) -> Self {
        let (width, height) = match direction {
            Direction::Half => (self.width, self.height),
            _ => (self.height, self.width),
        };
        Self { width, height, direction: Some(direction) }
    }

    /// Caps of it in the system's memory.
    pub fn caps(self) -> String {
        format!("video/x-raw,format=NV12,width={},height={}", self.width, self.height)
    }

    /// The value of a plane (0 luma, 1 and 2 chroma) in a field of a frame.
    fn value(frame: u32, field: usize, plane: usize) -> u8 {
        let value = FIELDS[field][plane];
        if plane == 0 && field == 0 {
            value + STEP * u8::try_from(frame).unwrap_or(u8::MAX / STEP)
        } else {
            value
        }
    }

    /// Frame number `frame` as bytes of NV12 without padding.
    pub fn nv12(self, frame: u32) -> Vec<u8> {
        let (width, height) = (self.width as usize, self.height as usize);
        let field =
            |x: usize, y: usize| usize::from(x >= width / 2) + 2 * usize::from(y >= height / 2);
        let mut bytes = Vec::with_capacity(width * height * 3 / 2);
        for y in 0..height {
            bytes.extend((0..width).map(|x| Self::value(frame, field(x, y), 0)));
        }
        for y in (0..height).step_by(2) {
            // Pairs of chroma values.
            bytes.extend((0..width).map(|x| Self::value(frame, field(x, y), 1 + x % 2)));
        }
        bytes
    }

    /// Looks at a frame that came out.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn check(
        self,
        number: u32,
        frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
    ) -> Result<(), String> {
        self.check_size(number, frame)?;
        let fields = self.direction.map_or([0, 1, 2, 3], Direction::fields);
        for (field, name) in FIELD_NAMES.iter().enumerate() {
            let found = [0, 1, 2].map(|plane| self.mean(frame, field, plane));
            let expected =
                [0, 1, 2].map(|plane| i32::from(Self::value(number, fields[field], plane)));
            let far = |(found, expected): (&i32, &i32)| (found - expected).abs() > TOLERANCE;
            if found.iter().zip(&expected).any(far) {
                return Err(format!(
                    "frame {number} has the wrong picture: {name} is {found:?}, expected {expected:?}"
                ));
            }
        }
        Ok(())
    }

    /// Looks at the size of a frame that came out.
    ///
    /// # Errors
    /// That it is another.
    pub(crate) fn check_size(
        self,
        number: u32,
        frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
    ) -> Result<(), String> {
        if (frame.width(), frame.height()) != (self.width, self.height) {
            return Err(format!(
                "frame {number} is {}x{}, expected {}x{}",
                frame.width(),
                frame.height(),
                self.width,
                self.height
            ));
        }
        Ok(())
    }

    /// Mean of a component in a field, of 255, whatever the depth.
    pub(crate) fn mean(
        self,
        frame: &gst_video::VideoFrameRef<&gstreamer::BufferRef>,
        field: usize,
        component: usize,
    ) -> i32 {
        let halved = u32::from(component > 0);
        let (width, height) = (self.width / 2, self.height / 2);
        let (left, top) = (width * (field as u32 % 2), height * (field as u32 / 2));
        let range = |start: u32, size: u32| {
            ((start + MARGIN) >> halved) as usize..((start + size - MARGIN) >> halved) as usize
        };
        let (columns, lines) = (range(left, width), range(top, height));
        let Some((plane, offset, step)) = layout(frame.format(), component) else { return 0 };
        let stride = frame.plane_stride()[plane] as usize;
        let data = frame.plane_data(plane as u32).unwrap_or_default();
        let (mut sum, mut count) = (0_i64, 0_i64);
        for y in lines {
            for x in columns.clone() {
                let at = y * stride + x * step + offset;
                sum += data.get(at).map_or(0, |byte| i64::from(*byte));
                count += 1;
            }
        }
        i32::try_from(sum / count.max(1)).unwrap_or(0)
    }
}

/// Where the upper eight bits of a component are: plane, first byte in it, distance of the next.
fn layout(format: gst_video::VideoFormat, component: usize) -> Option<(usize, usize, usize)> {
    let layouts = match format {
        gst_video::VideoFormat::Nv12 => [(0, 0, 1), (1, 0, 2), (1, 1, 2)],
        gst_video::VideoFormat::I420 => [(0, 0, 1), (1, 0, 1), (2, 0, 1)],
        gst_video::VideoFormat::P01010le => [(0, 1, 2), (1, 1, 4), (1, 3, 4)],
        _ => return None,
    };
    Some(layouts[component])
}

#[cfg(test)]
mod tests {
    use super::*;
    use gstreamer as gst;

    fn check(bytes: Vec<u8>, number: u32) -> Result<(), String> {
        gst::init().unwrap();
        let picture = Picture::FULL;
        let format = gst_video::VideoFormat::Nv12;
        let info =
            gst_video::VideoInfo::builder(format, picture.width, picture.height).build().unwrap();
        let buffer = gst::Buffer::from_slice(bytes);
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &info).unwrap();
        picture.check(number, &frame)
    }

    #[test]
    fn the_picture_is_known_by_its_frame() {
        for number in 0..FRAMES {
            assert_eq!(check(Picture::FULL.nv12(number), number), Ok(()));
        }
        let message = check(Picture::FULL.nv12(0), 2).unwrap_err();
        assert!(message.contains("top left is [50, 90, 200], expected [70, 90, 200]"), "{message}");
    }

    #[test]
    fn an_empty_picture_is_wrong() {
        let empty = vec![0; Picture::FULL.nv12(0).len()];
        let message = check(empty, 0).unwrap_err();
        assert!(message.contains("[0, 0, 0]"), "{message}");
    }

    #[test]
    fn every_field_is_looked_at() {
        // Each alone in the wrong colour.
        for (field, name) in FIELD_NAMES.iter().enumerate() {
            let mut bytes = Picture::FULL.nv12(0);
            for y in 0..96 {
                let line = (y + 96 * (field / 2)) * 320 + 160 * (field % 2);
                bytes[line..line + 160].fill(230);
            }
            let message = check(bytes, 0).unwrap_err();
            assert!(message.contains(name), "{message}");
        }
    }
}
