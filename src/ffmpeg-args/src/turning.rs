//! Turned pictures (contract 2.4, 2.5): `-noautorotate` and the filters that turn instead.
//!
//! ffmpeg turns a picture as its container says, unless it is told not to; it can't where the
//! picture lies on a GPU. Jellyfin therefore switches that off wherever decoded pictures stay there
//! (`-autorotate 0` up to 10.8), and from 10.10 on turns by a filter of the GPU's. In main memory it
//! never writes a filter for it.
//!
//! Invariant: a filter that turns is understood only where ffmpeg doesn't turn as well.

use crate::chain::Chain;
use crate::filters::Filter;
use crate::memory::{Device, Memory};
use crate::unread::{ANY, BARE, Spellings, Unread, shown, value};
use crate::{Passthrough, Turn, Verdict};

const NO_AUTOROTATE: Spellings = &[("noautorotate", BARE)];
const AUTOROTATE: Spellings = &[("autorotate", ANY)];
const DISPLAY_ROTATION: Spellings = &[("display_rotation", ANY)];

/// What an input's options say of its display matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// ffmpeg turns the picture as it says.
    Followed,
    /// It turns nothing, but MP4 carries the matrix on to whoever plays it.
    Kept,
    /// It is taken away (`-display_rotation 0`), and turns nothing.
    Removed,
}

/// Reads what an input's options say of turning.
pub(crate) fn mark(unread: &mut Unread<'_>) -> Verdict<Mark> {
    let zero = |value: &str| (value == "0").then_some(());
    let flag = unread.flag(NO_AUTOROTATE);
    let ignored = unread.read(AUTOROTATE, zero)?.is_some() || flag;
    let setting = unread.take(DISPLAY_ROTATION)?;
    match (ignored, setting) {
        (false, None) => Ok(Mark::Followed),
        (true, None) => Ok(Mark::Kept),
        (true, Some(setting)) if value(setting) == Some("0") => Ok(Mark::Removed),
        // Jellyfin takes the mark away where nothing follows it.
        (_, Some(setting)) => Err(Passthrough::unknown(shown(setting))),
    }
}

/// What becomes of the picture, by its mark and by the filter that turns it.
pub(crate) fn settle(mark: Mark, filter: Option<Turn>) -> Verdict<Turn> {
    match (mark, filter) {
        (Mark::Followed, None) => Ok(Turn::AsMarked),
        (Mark::Kept | Mark::Removed, None) => Ok(Turn::Never),
        (Mark::Kept | Mark::Removed, Some(turn)) => Ok(turn),
        (Mark::Followed, Some(_)) => Err(Passthrough::unknown(
            "a filter turns the picture, and no -noautorotate stands by it",
        )),
    }
}

/// The way a filter's option names.
pub(crate) fn direction(name: &str) -> Option<Turn> {
    match name {
        "clock" => Some(Turn::Clockwise),
        "cclock" => Some(Turn::CounterClockwise),
        "reversal" => Some(Turn::Half),
        _ => None,
    }
}

impl Chain {
    /// `transpose_vaapi`, `transpose_cuda`, `transpose_vulkan`, and Vulkan's half turn.
    pub(crate) fn transpose(&mut self, filter: &Filter) -> Verdict<()> {
        let device = match filter.name.as_str() {
            "transpose_vaapi" => Device::Vaapi,
            "transpose_cuda" => Device::Cuda,
            _ => Device::Vulkan,
        };
        self.demand(filter, Memory::On(device))?;
        let mut options = filter.options(&["dir"])?;
        let turn = if filter.name == "flip_vulkan" {
            Some(Turn::Half)
        } else {
            options.read("dir", direction)?
        };
        options.finish()?;
        let turn = turn.ok_or_else(|| filter.refuse("without dir"))?;
        self.turned(filter, turn)
    }

    pub(crate) fn turned(&mut self, filter: &Filter, turn: Turn) -> Verdict<()> {
        let late = self.sized || self.tone_map.is_some() || self.subtitles.is_some();
        if self.turn.is_some() || late {
            return Err(filter.refuse("turns behind a scaler, a tone mapping or another turn"));
        }
        self.turn = Some(turn);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;
    use crate::chain::reduce;
    use crate::filters::parse_chain;

    #[test]
    fn each_vendors_filter_turns() {
        use Turn::{Clockwise, CounterClockwise, Half};
        let vulkan =
            "hwmap=derive_device=drm,format=drm_prime,hwmap=derive_device=vulkan,format=vulkan";
        for (text, device, expect) in [
            ("transpose_vaapi=dir=clock", Device::Vaapi, Clockwise),
            ("transpose_vaapi=dir=cclock", Device::Vaapi, CounterClockwise),
            ("transpose_vaapi=dir=reversal", Device::Vaapi, Half),
            ("deinterlace_vaapi,transpose_vaapi=dir=clock", Device::Vaapi, Clockwise),
            ("transpose_cuda=dir=cclock", Device::Cuda, CounterClockwise),
            ("vpp_qsv=format=nv12:transpose=reversal", Device::Qsv, Half),
            (&format!("{vulkan},transpose_vulkan=dir=clock"), Device::Vaapi, Clockwise),
            (&format!("{vulkan},scale_vulkan,flip_vulkan"), Device::Vaapi, Half),
        ] {
            match reduce(&parse_chain(text).unwrap(), Memory::On(device), None) {
                Ok(chain) => assert_eq!(chain.turn, Some(expect), "{text}"),
                Err(refusal) => panic!("{text}: {refusal}"),
            }
        }
    }

    #[test]
    fn sides_are_those_of_the_turned_picture() {
        let exact = |width, height| Some(Scale::Exact { width, height });
        for (text, device, expect) in [
            (
                "transpose_vaapi=dir=clock,scale_vaapi=w=404:h=720:format=nv12",
                Device::Vaapi,
                (404, 720),
            ),
            ("vpp_qsv=w=720:h=404:format=nv12:transpose=clock", Device::Qsv, (404, 720)),
            ("vpp_qsv=w=720:h=404:format=nv12:transpose=reversal", Device::Qsv, (720, 404)),
        ] {
            let chain = reduce(&parse_chain(text).unwrap(), Memory::On(device), None).unwrap();
            assert_eq!(chain.scale, exact(expect.0, expect.1), "{text}");
        }
    }

    #[test]
    fn what_jellyfin_does_not_write_is_refused() {
        for text in [
            "transpose_vaapi",
            "transpose_vaapi=dir=clock_flip",
            "transpose_vaapi=dir=clock:passthrough=landscape",
            "transpose_vaapi=dir=clock,transpose_vaapi=dir=clock",
            "scale_vaapi=w=1280:h=720,transpose_vaapi=dir=clock",
            "transpose_vaapi=dir=clock,deinterlace_vaapi",
            "transpose_cuda=dir=clock",
            "flip_vulkan",
        ] {
            let chain = parse_chain(text).unwrap();
            assert!(reduce(&chain, Memory::On(Device::Vaapi), None).is_err(), "{text}");
        }
    }

    #[test]
    fn one_of_ffmpeg_and_the_filter_turns() {
        use Mark::{Followed, Kept, Removed};
        for (mark, filter, expect) in [
            (Followed, None, Some(Turn::AsMarked)),
            (Kept, None, Some(Turn::Never)),
            (Removed, None, Some(Turn::Never)),
            (Kept, Some(Turn::Half), Some(Turn::Half)),
            (Removed, Some(Turn::Clockwise), Some(Turn::Clockwise)),
            (Followed, Some(Turn::Clockwise), None),
        ] {
            assert_eq!(settle(mark, filter).ok(), expect, "{mark:?} {filter:?}");
        }
    }
}
