//! Text that a chain draws (contract 2.5, text subtitle filter): `subtitles` and the `setpts` behind
//! it.
//!
//! It stands in main memory in front of the way to the encoder, or on a GPU's path upon a plane of
//! its own (`alphasrc`, read by `overlay`). Its spellings by version:
//!
//! ```text
//! subtitles='file:si=0'                                10.6, 10.7: a stream of the film itself
//! subtitles=filename='file':charenc=utf-8              10.6, 10.7: a file of its own
//! subtitles=f='file':si=0:fontsdir='dir'               10.8, 10.9
//! subtitles=f='file':charenc=utf-8:fontsdir='dir'      10.8 on; 10.10 on of all text
//! subtitles=f='file':alpha=1:sub2video=1:fontsdir='d'  upon a plane of its own
//! ```
//!
//! In a file without the film's times (no `-copyts`) `setpts` behind it is meant to put back what the
//! seek took away: text of the film's times upon a picture that counts from the seek. That is what
//! the plan says. ffmpeg 5.1 does worse with text upon the picture itself: it draws what belongs to
//! the film's beginning, and drops pictures until their times are above zero again (measured: of ten
//! seconds behind `-ss 10` one picture is left).
//!
//! Invariants:
//! - Text is drawn last: nothing behind it changes the picture's size, colours or direction.
//! - A file of text is a local one; who runs the plan is handed it opened.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::chain::Chain;
use crate::filters::Filter;
use crate::inputs::local_path;
use crate::memory::Memory;
use crate::numbers::{decimal, whole};
use crate::{Passthrough, Subtitles, TextSubtitles, Verdict};

/// How far the shift of times may lie off the seek that it undoes: it is rounded to seconds.
const SHIFT_TOLERANCE_US: u64 = 500_000;

/// How far a plane's first time may lie off the seek: both are printed with three digits.
const START_TOLERANCE_US: u64 = 1_000;

/// When a command draws text, as far as the command says it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Timing {
    /// `setpts=PTS -N/TB`, s.
    pub shift_seconds: Option<f64>,
    /// `alphasrc=start=`, µs, where the text has a plane of its own.
    pub plane_start_us: Option<u64>,
}

impl Timing {
    /// Refuses times that don't fit the seek: with the source's times (`-copyts`) nothing is
    /// shifted, without them by the seek; a plane begins where the picture does.
    pub(crate) fn check(&self, start_us: Option<u64>, source_times: bool) -> Verdict<()> {
        let start = start_us.unwrap_or(0);
        if let Some(plane) = self.plane_start_us
            && plane.abs_diff(start) > START_TOLERANCE_US
        {
            return Err(Passthrough::unknown("alphasrc doesn't start where the input does"));
        }
        let Some(shift) = self.shift_seconds else { return Ok(()) };
        let shift = (shift * 1e6) as u64;
        if source_times || shift.abs_diff(start) > SHIFT_TOLERANCE_US {
            return Err(Passthrough::unknown("setpts doesn't undo the seek"));
        }
        Ok(())
    }
}

impl Chain {
    /// `subtitles` upon the picture.
    pub(crate) fn draw_text(&mut self, filter: &Filter) -> Verdict<()> {
        self.demand(filter, Memory::System)?;
        let text = read(filter, false)?;
        self.subtitled(filter, Subtitles::Text(text))
    }

    /// `setpts` behind `subtitles`.
    pub(crate) fn shift(&mut self, filter: &Filter) -> Verdict<()> {
        let Some(Subtitles::Text(_)) = &self.subtitles else {
            return Err(Passthrough::feature("filter setpts"));
        };
        if self.timing.shift_seconds.is_some() {
            return Err(filter.refuse("twice"));
        }
        let seconds = shift(filter)?;
        self.timing.shift_seconds = Some(seconds);
        self.set_shift(seconds);
        Ok(())
    }

    pub(crate) fn set_shift(&mut self, seconds: f64) {
        if let Some(Subtitles::Text(text)) = &mut self.subtitles {
            text.shift_seconds = seconds;
        }
    }

    pub(crate) fn subtitled(&mut self, filter: &Filter, subtitles: Subtitles) -> Verdict<()> {
        let unmapped = self.hdr.is_some() && self.tone_map.is_none();
        if self.subtitles.is_some() || unmapped {
            return Err(filter.refuse("behind other subtitles, or in front of a tone mapping"));
        }
        self.subtitles = Some(subtitles);
        Ok(())
    }
}

/// Reads `subtitles`; on a plane of its own it keeps the plane's transparency and its pace.
pub(crate) fn read(filter: &Filter, on_plane: bool) -> Verdict<TextSubtitles> {
    let mut options = filter.options(&["f"])?;
    let mut names = [options.take("f"), options.take("filename")].into_iter().flatten();
    let path = names.next().filter(|path| !path.is_empty() && names.next().is_none());
    let path = path.ok_or_else(|| filter.refuse("no file, or two"))?;
    let text = TextSubtitles {
        path: local_path(OsStr::new(path))?,
        stream: options.read("si", whole)?,
        charset: options.read("charenc", |name| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:+()/".contains(c);
            (!name.is_empty() && name.chars().all(plain)).then(|| name.to_owned())
        })?,
        fonts: options.read("fontsdir", |path| (!path.is_empty()).then(|| PathBuf::from(path)))?,
        shift_seconds: 0.0,
    };
    for key in ["alpha", "sub2video"] {
        if on_plane {
            options.require(key, |text| (text == "1").then_some(()))?;
        }
    }
    options.finish()?;
    Ok(text)
}

/// Reads `setpts=PTS -N/TB`: N in seconds.
pub(crate) fn shift(filter: &Filter) -> Verdict<f64> {
    let mut options = filter.options(&["expr"])?;
    let seconds = options.require("expr", shift_seconds)?;
    options.finish()?;
    Ok(seconds)
}

fn shift_seconds(text: &str) -> Option<f64> {
    let text = text.replace(' ', "");
    decimal(text.strip_prefix("PTS-")?.strip_suffix("/TB")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::reduce;
    use crate::filters::parse_chain;
    use crate::memory::Device;

    const VAAPI: Memory = Memory::On(Device::Vaapi);

    fn run(text: &str, start: Memory, encoder: Option<Device>) -> Verdict<Chain> {
        reduce(&parse_chain(text)?, start, encoder)
    }

    #[track_caller]
    fn text(chain: &str) -> TextSubtitles {
        match run(chain, Memory::System, None).map(|chain| chain.subtitles) {
            Ok(Some(Subtitles::Text(text))) => text,
            other => panic!("{chain}: {other:?}"),
        }
    }

    #[test]
    fn every_spelling_names_the_file() {
        let plain = TextSubtitles {
            path: "/m/It's: a.srt".into(),
            stream: None,
            charset: None,
            fonts: None,
            shift_seconds: 0.0,
        };
        let path = r"/m/It'\\\''s\: a.srt";
        assert_eq!(text(&format!("subtitles=f='{path}'")), plain);
        assert_eq!(text(&format!("subtitles=filename='{path}'")), plain);
        let stream = TextSubtitles { stream: Some(2), ..plain.clone() };
        assert_eq!(text(&format!("subtitles='{path}:si=2'")), stream);
        assert_eq!(text(&format!("subtitles=f='{path}':si=2")), stream);
        let full = TextSubtitles {
            charset: Some("windows-1252".into()),
            fonts: Some("/c/fonts".into()),
            shift_seconds: 90.0,
            ..plain
        };
        let chain = format!(
            "subtitles=f='{path}':charenc=windows-1252:fontsdir='/c/fonts',setpts=PTS -90/TB"
        );
        assert_eq!(text(&chain), full);
        assert_eq!(text("subtitles=f='/m/[a];b, c.ass'").path, PathBuf::from("/m/[a];b, c.ass"));
    }

    #[test]
    fn the_picture_is_drawn_on_last_and_in_main_memory() {
        use Memory::System;
        let (va, draw) = (Some(Device::Vaapi), "subtitles=f='/a.ass'");
        for (chain, start, encoder) in [
            (format!("scale=640:360,format=yuv420p,{draw}"), System, None),
            (format!("format=nv12,{draw},hwupload_vaapi"), System, va),
            (format!("hwmap=mode=read,format=nv12,{draw}"), VAAPI, None),
            (format!("hwmap,format=nv12,{draw},hwmap,format=vaapi"), VAAPI, va),
            (format!("hwdownload,format=nv12,{draw},hwupload_vaapi"), VAAPI, va),
            (format!("yadif,format=nv12,{draw},fps=30"), System, None),
        ] {
            match run(&chain, start, encoder) {
                Ok(done) => {
                    assert!(done.subtitles.is_some(), "{chain}");
                    assert_eq!(done.memory, encoder.map_or(System, Memory::On), "{chain}");
                }
                Err(refusal) => panic!("{chain}: {refusal}"),
            }
        }
        let hdr = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc";
        for (chain, start) in [
            (draw.to_owned(), VAAPI),
            (format!("{draw},{draw}"), System),
            (format!("{draw},scale=640:360"), System),
            (format!("{draw},yadif"), System),
            (
                format!(
                    "{hdr},{draw},tonemapx=tonemap=clip:t=bt709:m=bt709:p=bt709:format=yuv420p"
                ),
                System,
            ),
            // Only what was mapped is mapped back, and unchanged.
            (format!("hwdownload,format=nv12,{draw},hwmap,format=vaapi"), VAAPI),
            (format!("hwmap,format=nv12,scale=640:360,{draw},hwmap,format=vaapi"), VAAPI),
            (format!("format=nv12,{draw},hwmap,format=vaapi"), System),
            (format!("hwmap,format=nv12,{draw},hwmap=mode=write,format=vaapi"), VAAPI),
        ] {
            assert!(run(&chain, start, Some(Device::Vaapi)).is_err(), "{chain}");
        }
    }

    #[test]
    fn what_jellyfin_does_not_write_is_refused() {
        for chain in [
            "subtitles",
            "subtitles=f=''",
            "subtitles=f='/a.ass':filename='/b.ass'",
            "subtitles='/a.ass':f='/b.ass'",
            "subtitles=f='/a.ass':alpha=1",
            "subtitles=f='/a.ass':sub2video=1",
            "subtitles=f='/a.ass':force_style='FontSize=9'",
            "subtitles=f='/a.ass':original_size=640x360",
            "subtitles=f='/a.ass':si=-1",
            "subtitles=f='/a.ass':charenc=",
            r"subtitles=f='http\://host/a.ass'",
            "subtitles=f='/a.ass',setpts=PTS+5/TB",
            "subtitles=f='/a.ass',setpts=N/25/TB",
            "subtitles=f='/a.ass',setpts=PTS -5/TB,setpts=PTS -5/TB",
            "setpts=PTS -5/TB,subtitles=f='/a.ass'",
            "ass=f='/a.ass'",
        ] {
            assert!(run(chain, Memory::System, None).is_err(), "{chain}");
        }
    }

    #[test]
    fn times_fit_the_seek() {
        let timing = |shift_seconds, plane_start_us| Timing { shift_seconds, plane_start_us };
        for (timing, start_us, source_times, fits) in [
            (timing(None, None), Some(5_000_000), true, true),
            (timing(None, None), None, false, true),
            (timing(Some(5.0), None), Some(5_300_000), false, true),
            (timing(Some(5.0), None), Some(5_300_000), true, false),
            (timing(Some(0.0), None), None, false, true),
            (timing(Some(6.0), None), Some(5_300_000), false, false),
            (timing(None, Some(5_300_000)), Some(5_300_000), true, true),
            (timing(None, Some(0)), None, true, true),
            (timing(None, Some(0)), Some(5_300_000), true, false),
        ] {
            let verdict = timing.check(start_us, source_times);
            assert_eq!(verdict.is_ok(), fits, "{timing:?} {start_us:?} {source_times}");
        }
    }
}
