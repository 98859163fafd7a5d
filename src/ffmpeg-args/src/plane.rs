//! Subtitles on a plane of their own, to be laid over the picture (contract 2.5): the branch of a
//! graph that `overlay` takes second.
//!
//! Pictures of a stream are brought to a size in main memory, in one of these ways:
//!
//! | filters | fit |
//! |---|---|
//! | `scale=s=WxH:flags=fast_bilinear` (10.8), `scale,scale=W:H:fast_bilinear` | exact |
//! | `scale`, `scale=flags=fast_bilinear` (10.8 on a GPU) | none: the canvas has the size |
//! | `[scale,]scale=-1:H:fast_bilinear,[scale,]crop,pad=...,crop=W:H` | by height |
//!
//! Text is drawn on an empty plane that `alphasrc` makes, at a size and a pace of its own. Neither
//! shows in a plan: whoever runs it draws at the picture's size for every picture.
//!
//! Invariant: a plane ends in the memory that the overlay works on, in the format that it takes
//! there.

use crate::expression;
use crate::filters::Filter;
use crate::memory::{Device, Memory};
use crate::numbers::{decimal, time_us, whole};
use crate::{Passthrough, Scale, SubtitleFit, TextSubtitles, Verdict, subtitles};

/// Sides beyond this are no canvas.
pub(crate) const LARGEST_SIDE: u32 = 16384;

/// `WxH`.
pub(crate) fn canvas(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.split_once('x')?;
    let side = |text| whole::<u32>(text).filter(|side| (1..=LARGEST_SIDE).contains(side));
    Some((side(width)?, side(height)?))
}

/// A plane's branch: the filters not yet read.
pub(crate) struct Plane<'a> {
    filters: &'a [Filter],
}

impl<'a> Plane<'a> {
    pub(crate) fn new(filters: &'a [Filter]) -> Self {
        Self { filters }
    }

    /// Reads the `format` of the pictures that are laid over.
    pub(crate) fn format(&mut self, expect: &str) -> Verdict<()> {
        let mut options = self.expect("format")?.options(&["pix_fmts"])?;
        options.require("pix_fmts", |format| (format == expect).then_some(()))?;
        options.finish()
    }

    fn peek(&self, name: &str) -> Option<&'a Filter> {
        self.filters.first().filter(|filter| filter.name == name)
    }

    fn next(&mut self, name: &str) -> Option<&'a Filter> {
        let filter = self.peek(name)?;
        self.filters = &self.filters[1..];
        Some(filter)
    }

    fn expect(&mut self, name: &str) -> Verdict<&'a Filter> {
        self.next(name).ok_or_else(|| match self.filters.first() {
            Some(filter) => filter.refuse(&format!("where a plane's {name} should be")),
            None => Passthrough::unknown(format!("a plane of subtitles without {name}")),
        })
    }

    /// Reads how pictures of subtitles are brought to a size.
    pub(crate) fn fit(&mut self) -> Verdict<Option<SubtitleFit>> {
        let mut fit = None;
        while let Some(filter) = self.next("scale") {
            let scale = scale(filter)?;
            if scale.is_some() && fit.is_some() {
                return Err(filter.refuse("a plane scaled twice"));
            }
            fit = fit.or(scale);
        }
        match fit {
            None => Ok(None),
            Some(PlaneScale::Exact(width, height)) => {
                Ok(Some(SubtitleFit::Exact { width, height }))
            }
            Some(PlaneScale::Height(height)) => self.filled(height).map(Some),
        }
    }

    /// Reads `crop,pad=max(W\,iw):max(H\,ih):(ow-iw)/2:(oh-ih)/2:black@0,crop=W:H`. A crop without
    /// a size cuts nothing.
    fn filled(&mut self, height: u32) -> Verdict<SubtitleFit> {
        self.expect("crop")?.options(&[])?.finish()?;
        let pad = self.expect("pad")?;
        let crop = self.expect("crop")?;
        let mut sides = crop.options(&["w", "h"])?;
        let size = (sides.take("w"), sides.take("h"));
        sides.finish()?;
        let Some(Scale::Exact { width, height: cut }) =
            size.0.zip(size.1).and_then(|(w, h)| expression::fixed(w, h))
        else {
            return Err(crop.refuse("without an even size"));
        };
        let mut options = pad.options(&["w", "h", "x", "y", "color"])?;
        for (key, expect) in [
            ("w", format!("max({width},iw)")),
            ("h", format!("max({height},ih)")),
            ("x", "(ow-iw)/2".to_owned()),
            ("y", "(oh-ih)/2".to_owned()),
            ("color", "black@0".to_owned()),
        ] {
            options.require(key, |text| (text.replace(' ', "") == expect).then_some(()))?;
        }
        options.finish()?;
        if cut != height {
            return Err(crop.refuse(&format!("height {cut} of a plane scaled to {height}")));
        }
        Ok(SubtitleFit::Height { width, height })
    }

    /// Reads text on a plane of its own; the last value is the plane's size.
    pub(crate) fn text(
        &mut self,
        format: &str,
    ) -> Verdict<(TextSubtitles, subtitles::Timing, (u32, u32))> {
        let filter = self.expect("alphasrc")?;
        let mut options = filter.options(&[])?;
        let size = options.require("s", canvas)?;
        options.require("r", |rate| decimal(rate).filter(|rate| *rate > 0.0))?;
        let plane_start_us = Some(options.require("start", time_us)?);
        options.finish()?;
        self.format(format)?;
        let mut text = subtitles::read(self.expect("subtitles")?, true)?;
        let shift_seconds = self.next("setpts").map(subtitles::shift).transpose()?;
        text.shift_seconds = shift_seconds.unwrap_or(0.0);
        Ok((text, subtitles::Timing { shift_seconds, plane_start_us }, size))
    }

    /// Reads the way to the overlay's memory, to the branch's end.
    pub(crate) fn finish(mut self, memory: Memory) -> Verdict<()> {
        if let Memory::On(device) = memory {
            let upload = self.expect("hwupload")?;
            let mut options = upload.options(&[])?;
            let derived = options.require("derive_device", Device::named)?;
            options.read("extra_hw_frames", whole::<u32>)?;
            options.finish()?;
            if derived != device {
                return Err(upload.refuse(&format!("for an overlay on {memory}")));
            }
            if device == Device::Vulkan {
                self.format("vulkan")?;
            }
        }
        match self.filters.first() {
            None => Ok(()),
            Some(filter) => Err(filter.refuse(&format!("in front of an overlay on {memory}"))),
        }
    }
}

impl SubtitleFit {
    /// Width and height of the plane.
    pub(crate) fn size(self) -> (u32, u32) {
        match self {
            Self::Exact { width, height } | Self::Height { width, height } => (width, height),
        }
    }
}

/// Size that a plane is scaled to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PlaneScale {
    Exact(u32, u32),
    /// The width in proportion.
    Height(u32),
}

/// Reads a plane's `scale`; without a size it converts the format alone.
fn scale(filter: &Filter) -> Verdict<Option<PlaneScale>> {
    let mut options = filter.options(&["w", "h", "flags"])?;
    let (width, height) = (options.take("w"), options.take("h"));
    let both = options.take("s").or(options.take("size"));
    let fast = options.read("flags", |flags| (flags == "fast_bilinear").then_some(()))?;
    options.finish()?;
    let refuse = || filter.refuse("not a known size of a plane, or not fast_bilinear");
    let sides = match (width, height, both) {
        (None, None, None) => return Ok(None),
        (Some(width), Some(height), None) => (width, height),
        (None, None, Some(size)) => size.split_once('x').ok_or_else(refuse)?,
        _ => return Err(refuse()),
    };
    fast.ok_or_else(refuse)?;
    let scale = match (sides, both) {
        (("-1", height), None) => match expression::fixed("2", height) {
            Some(Scale::Exact { height, .. }) => Some(PlaneScale::Height(height)),
            _ => None,
        },
        ((width, height), _) => match expression::fixed(width, height) {
            Some(Scale::Exact { width, height }) => Some(PlaneScale::Exact(width, height)),
            _ => None,
        },
    };
    scale.map(Some).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canvases_are_two_sides() {
        assert_eq!(canvas("1920x1080"), Some((1920, 1080)));
        assert_eq!(canvas("719x575"), Some((719, 575)));
        for text in ["1920", "0x5", "1920x1080x1", "99999x2", "-1x5"] {
            assert_eq!(canvas(text), None, "{text}");
        }
    }
}
