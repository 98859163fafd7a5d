//! A `-vf` chain, reduced to what becomes of the picture (contract 2.5).
//!
//! The chain is walked with one piece of state: the memory that the picture lies in. Each vendor's
//! detours (upload, map, download, format) move it and leave nothing in the plan; each filter that
//! changes the picture demands the memory it works on. A chain that Jellyfin doesn't write runs
//! into a demand that isn't met, or doesn't end where the encoder reads.
//!
//! Invariants:
//! - A filter is either reduced to a field of the plan, or known to leave the picture alone.
//! - Fields come about in the order in which whoever runs the plan applies them: deinterlace in
//!   front of scale, subtitles last. AMD's way over Vulkan alone deinterlaces at its end, because
//!   that can't be done on Vulkan; the plan has it where fields are whole still.

use crate::filters::Filter;
use crate::memory::{Device, Memory};
use crate::numbers::{frame_rate, whole};
use crate::subtitles::Timing;
use crate::tone::{self, Adjusted};
use crate::{
    ColourTags, Deinterlace, HdrTransfer, Passthrough, Scale, Subtitles, ToneMap, Turn, Verdict,
    expression, turning,
};

/// What a chain asks for, and where it leaves the picture.
#[derive(Debug)]
pub(crate) struct Chain {
    pub colour: Option<ColourTags>,
    pub deinterlace: Option<Deinterlace>,
    pub scale: Option<Scale>,
    pub frame_rate: Option<(u32, u32)>,
    /// The filter that turns the picture.
    pub turn: Option<Turn>,
    pub tone_map: Option<ToneMap>,
    /// `fps` in front of the deinterlacer.
    pub rate_before_deinterlace: bool,
    /// A format of 8 bits was asked for last.
    pub eight_bit: bool,
    pub memory: Memory,
    /// The device that a bare `hwupload` goes to: the encoder's.
    pub(crate) encoder: Option<Device>,
    /// HDR that is asserted, of which a tone mapping must make SDR.
    pub(crate) hdr: Option<HdrTransfer>,
    /// Said for the tone mapping that must come next.
    pub(crate) adjusted: Option<Adjusted>,
    pub(crate) sized: bool,
    /// A scaler was asked for a format alone.
    pub(crate) formatted: bool,
    /// Subtitles drawn or laid over.
    pub subtitles: Option<Subtitles>,
    pub timing: Timing,
    /// The device whose picture is mapped into main memory and not changed but by subtitles.
    pub(crate) lent: Option<Device>,
    /// `libplacebo` was at work.
    pub(crate) placed: bool,
}

/// A filter and its reduction.
type Stage = (&'static [&'static str], fn(&mut Chain, &Filter) -> Verdict<()>);

const STAGES: &[Stage] = &[
    (&["setparams"], Chain::colour_tags),
    (&["fps"], Chain::frame_rate),
    (&["yadif", "bwdif", "yadif_cuda", "bwdif_cuda"], Chain::weave),
    (&["deinterlace_vaapi", "deinterlace_qsv"], Chain::deinterlace_on_gpu),
    (&["scale"], Chain::scale_in_software),
    (&["scale_vaapi", "scale_qsv", "vpp_qsv", "scale_cuda"], Chain::scale_on_gpu),
    (&["format"], Chain::format),
    (&["hwupload", "hwupload_vaapi", "hwupload_cuda"], Chain::upload),
    (&["hwdownload"], Chain::download),
    (&["hwmap"], Chain::map),
    (&["transpose_vaapi", "transpose_cuda", "transpose_vulkan", "flip_vulkan"], Chain::transpose),
    (&["tonemap_opencl", "tonemap_cuda", "tonemapx"], Chain::map_tones),
    (&["procamp_vaapi"], Chain::adjust),
    (&["tonemap_vaapi"], Chain::map_tones_on_vaapi),
    (&["libplacebo"], Chain::place),
    (&["scale_vulkan"], Chain::copy_on_vulkan),
    (&["subtitles"], Chain::draw_text),
    (&["setpts"], Chain::shift),
];

/// Filters that are understood and not offered, by the head of their names.
const UNOFFERED: &[&str] = &[
    "overlay",
    "ass",
    "alphasrc",
    "tonemap",
    "flip_",
    "transpose",
    "zscale",
    "zoompan",
    "crop",
    "pad",
    "hflip",
    "vflip",
    "rotate",
    "setdar",
    "setsar",
    "thumbnail",
    "yadif_",
    "bwdif_",
    "scale_",
    "vpp_",
    "deinterlace_",
];

/// Reduces a chain that begins in `start` for an encoder that reads `encoder`'s memory (main
/// memory if `None`).
pub(crate) fn reduce(filters: &[Filter], start: Memory, encoder: Option<Device>) -> Verdict<Chain> {
    let mut chain = Chain::new(start, encoder);
    chain.check_offered(filters)?;
    chain.run(filters)?;
    chain.finish()
}

impl Chain {
    /// A picture that nothing has been done to.
    pub(crate) fn new(start: Memory, encoder: Option<Device>) -> Self {
        Self {
            colour: None,
            deinterlace: None,
            scale: None,
            frame_rate: None,
            rate_before_deinterlace: false,
            eight_bit: false,
            memory: start,
            turn: None,
            tone_map: None,
            encoder,
            hdr: None,
            adjusted: None,
            sized: false,
            formatted: false,
            subtitles: None,
            timing: Timing::default(),
            lent: None,
            placed: false,
        }
    }

    /// Refuses what is known and not offered. It is said first: it explains the command better than
    /// what surrounds it.
    pub(crate) fn check_offered(&self, filters: &[Filter]) -> Verdict<()> {
        for filter in filters {
            let known = STAGES.iter().any(|(names, _)| names.contains(&filter.name.as_str()));
            if !known && UNOFFERED.iter().any(|head| filter.name.starts_with(head)) {
                return Err(Passthrough::feature(format!("filter {}", filter.name)));
            }
        }
        let asserts = filters.iter().any(|filter| filter.name == "setparams");
        match filters.iter().find(|filter| tone::maps_tones(filter)) {
            Some(filter) if !asserts => Err(tone::unasserted(filter)),
            _ => Ok(()),
        }
    }

    /// Applies filters in order.
    pub(crate) fn run(&mut self, filters: &[Filter]) -> Verdict<()> {
        for filter in filters {
            let stage = STAGES.iter().find(|(names, _)| names.contains(&filter.name.as_str()));
            let (_, step) = stage.ok_or_else(|| filter.refuse("not a known filter"))?;
            if self.adjusted.is_some() && filter.name != "tonemap_vaapi" {
                return Err(filter.refuse("between procamp_vaapi and its tone mapping"));
            }
            if !matches!(filter.name.as_str(), "hwmap" | "format" | "subtitles" | "setpts") {
                self.lent = None;
            }
            step(self, filter)?;
        }
        Ok(())
    }

    /// The chain at its end.
    pub(crate) fn finish(self) -> Verdict<Self> {
        if self.hdr.is_some() && self.tone_map.is_none() {
            return Err(Passthrough::feature("HDR that no filter maps to SDR"));
        }
        Ok(self)
    }

    pub(crate) fn demand(&self, filter: &Filter, memory: Memory) -> Verdict<()> {
        if self.memory == memory {
            return Ok(());
        }
        Err(filter.refuse(&format!("works on {memory}, the picture is in {}", self.memory)))
    }

    fn colour_tags(&mut self, filter: &Filter) -> Verdict<()> {
        let mut options = filter.options(&[])?;
        let mut tag = |key| {
            options
                .take(key)
                .map(str::to_owned)
                .ok_or_else(|| filter.refuse(&format!("without {key}")))
        };
        let tags = ColourTags {
            primaries: tag("color_primaries")?,
            transfer: tag("color_trc")?,
            matrix: tag("colorspace")?,
        };
        options.finish()?;
        let hdr = tone::asserted(&tags).ok_or_else(|| {
            let ColourTags { primaries, transfer, matrix } = &tags;
            filter.refuse(&format!("{primaries}, {transfer}, {matrix}"))
        })?;
        // Behind Quick Sync's tone mapping SDR is asserted once more.
        if self.tone_map.is_some() && hdr.is_none() {
            return Ok(());
        }
        let touched = self.deinterlace.is_some() || self.turn.is_some() || self.sized;
        let touched = touched || self.subtitles.is_some();
        if touched || self.formatted || self.colour.is_some() || self.hdr.is_some() {
            return Err(filter.refuse("not at the head of the chain"));
        }
        self.hdr = hdr;
        self.colour = hdr.is_none().then_some(tags);
        Ok(())
    }

    fn frame_rate(&mut self, filter: &Filter) -> Verdict<()> {
        let mut options = filter.options(&["fps"])?;
        let rate = options.read("fps", frame_rate)?;
        options.finish()?;
        if self.frame_rate.is_some() || rate.is_none() || matches!(self.memory, Memory::Mapped(_)) {
            return Err(filter.refuse("not where or how a rate is bounded"));
        }
        self.frame_rate = rate;
        self.rate_before_deinterlace = self.deinterlace.is_none();
        Ok(())
    }

    /// yadif and bwdif, alike but for the rate they have by default.
    fn weave(&mut self, filter: &Filter) -> Verdict<()> {
        let on_cuda = filter.name.ends_with("_cuda");
        self.demand(filter, if on_cuda { Memory::On(Device::Cuda) } else { Memory::System })?;
        let mut options = filter.options(&["mode", "parity", "deint"])?;
        let per_field = options.read("mode", |mode| match mode {
            "0" | "send_frame" => Some(false),
            "1" | "send_field" => Some(true),
            _ => None,
        })?;
        options.read("parity", |parity| matches!(parity, "-1" | "auto").then_some(()))?;
        options.read("deint", |deint| matches!(deint, "0" | "all").then_some(()))?;
        options.finish()?;
        self.deinterlaced(filter, per_field.unwrap_or(filter.name.starts_with("bwdif")))
    }

    fn deinterlace_on_gpu(&mut self, filter: &Filter) -> Verdict<()> {
        let mut options = filter.options(&["mode", "rate"])?;
        let per_field = if filter.name == "deinterlace_vaapi" {
            self.demand(filter, Memory::On(Device::Vaapi))?;
            options.read("mode", |mode| (mode == "default").then_some(()))?;
            let rate = options.read("rate", |rate| match rate {
                "frame" => Some(false),
                "field" => Some(true),
                _ => None,
            })?;
            rate.unwrap_or(false)
        } else {
            self.demand(filter, Memory::On(Device::Qsv))?;
            options.read("mode", |mode| matches!(mode, "2" | "advanced").then_some(()))?;
            // This filter has no rate to choose: it always gives one picture per field.
            true
        };
        options.finish()?;
        self.deinterlaced(filter, per_field)
    }

    fn deinterlaced(&mut self, filter: &Filter, per_field: bool) -> Verdict<()> {
        let late = self.turn.is_some() || self.sized || self.formatted || self.tone_map.is_some();
        let late = late || self.subtitles.is_some();
        if self.deinterlace.is_some() || (late && !self.placed) {
            return Err(filter.refuse("behind another deinterlacer, a turn or a scaler"));
        }
        self.deinterlace = Some(Deinterlace { per_field });
        Ok(())
    }

    fn scale_in_software(&mut self, filter: &Filter) -> Verdict<()> {
        self.demand(filter, Memory::System)?;
        let mut options = filter.options(&["w", "h"])?;
        let size = (options.take("w"), options.take("h"));
        options.finish()?;
        let (Some(width), Some(height)) = size else {
            return Err(filter.refuse("without width and height"));
        };
        let scale = expression::scale(width, height).ok_or_else(|| {
            // Jellyfin's other sizes (by one side alone, or by display aspect before 10.8) are
            // known, but their rounding is not that of a fit.
            let one_sided = width.contains("oh*") || height.contains("ow/");
            let other = one_sided || width.contains("dar") || height.contains("/a/2)*2");
            let text = format!("filter scale: {width}:{height}");
            if other { Passthrough::feature(text) } else { Passthrough::unknown(text) }
        })?;
        self.scaled(filter, scale)
    }

    fn scale_on_gpu(&mut self, filter: &Filter) -> Verdict<()> {
        let device = match filter.name.as_str() {
            "scale_vaapi" => Device::Vaapi,
            "scale_cuda" => Device::Cuda,
            _ => Device::Qsv,
        };
        self.demand(filter, Memory::On(device))?;
        let mut options = filter.options(&["w", "h"])?;
        let mut size = (options.take("w"), options.take("h"));
        let format = options.take("format");
        options.read("extra_hw_frames", whole::<u32>)?;
        let (mut turn, mut maps) = (None, false);
        if filter.name == "vpp_qsv" {
            turn = options.read("transpose", turning::direction)?;
            maps = options.read("tonemap", |text| (text == "1").then_some(()))?.is_some();
            options.read("async_depth", whole::<u32>)?;
            options.read("passthrough", |text| (text == "0").then_some(()))?;
        }
        options.finish()?;
        if let Some(turn) = turn {
            self.turned(filter, turn)?;
            // The filter takes the sides of the picture before it is turned.
            if turn != Turn::Half {
                size = (size.1, size.0);
            }
        }
        if maps {
            self.tone_mapped(self.tone_map_by_driver(filter)?);
        }
        match format {
            None => {}
            Some("nv12" | "yuv420p") => self.eight_bit = true,
            Some("p010" | "p010le") if !maps => self.eight_bit = false,
            Some(other) => return Err(filter.refuse(&format!("format={other}"))),
        }
        match size {
            // Jellyfin has the scaler convert the format of a picture that keeps its size.
            (None, None) if format.is_some() && !self.formatted => {
                self.formatted = true;
                Ok(())
            }
            size => self.sized_exactly(filter, size),
        }
    }

    /// Width and height as a filter of a GPU's takes them, numbers both.
    pub(crate) fn sized_exactly(
        &mut self,
        filter: &Filter,
        size: (Option<&str>, Option<&str>),
    ) -> Verdict<()> {
        let (Some(width), Some(height)) = size else {
            return Err(filter.refuse("without width and height"));
        };
        let scale = expression::fixed(width, height)
            .ok_or_else(|| filter.refuse(&format!("{width}x{height}")))?;
        self.scaled(filter, scale)
    }

    /// `scale_vulkan` without a size: a copy that some drivers of AMD's need, or a conversion for
    /// an encoder in main memory.
    fn copy_on_vulkan(&mut self, filter: &Filter) -> Verdict<()> {
        let mut options = filter.options(&[])?;
        let format = options.read("format", |format| (format == "nv12").then_some(()))?;
        options.finish()?;
        self.eight_bit |= format.is_some();
        self.demand(filter, Memory::On(Device::Vulkan))
    }

    fn scaled(&mut self, filter: &Filter, scale: Scale) -> Verdict<()> {
        let mapped = self.tone_map.is_some() && filter.name != "vpp_qsv";
        if self.sized || self.formatted || mapped || self.subtitles.is_some() {
            return Err(filter.refuse("behind another scaler, a tone mapping or subtitles"));
        }
        self.sized = true;
        self.scale = Some(scale);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PassthroughKind;
    use crate::filters::parse_chain;

    fn run(text: &str, start: Memory, encoder: Option<Device>) -> Verdict<Chain> {
        reduce(&parse_chain(text)?, start, encoder)
    }

    const VAAPI: Memory = Memory::On(Device::Vaapi);
    const QSV: Memory = Memory::On(Device::Qsv);
    const CUDA: Memory = Memory::On(Device::Cuda);

    const TAGS: &str = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709";

    #[test]
    fn deinterlacers_have_the_rate_of_their_spelling() {
        use Memory::System;
        for (text, start, expect) in [
            ("yadif", System, Some(false)),
            ("yadif=0:-1:0", System, Some(false)),
            ("yadif=1:-1:0", System, Some(true)),
            ("yadif=mode=send_field", System, Some(true)),
            ("bwdif", System, Some(true)),
            ("bwdif=0:-1:0", System, Some(false)),
            ("yadif_cuda=1:-1:0", CUDA, Some(true)),
            ("deinterlace_vaapi", VAAPI, Some(false)),
            ("deinterlace_vaapi=rate=frame", VAAPI, Some(false)),
            ("deinterlace_vaapi=rate=field", VAAPI, Some(true)),
            ("deinterlace_qsv=mode=2", QSV, Some(true)),
            ("yadif=1:-1:1", System, None),
            ("yadif=1:0:0", System, None),
            ("yadif=2", System, None),
            ("yadif", VAAPI, None),
            ("deinterlace_vaapi=auto=1", VAAPI, None),
            ("deinterlace_vaapi=rate=twice", VAAPI, None),
            ("yadif,yadif", System, None),
            ("scale=640:360,yadif", System, None),
        ] {
            let deinterlace = run(text, start, None).ok().and_then(|chain| chain.deinterlace);
            assert_eq!(deinterlace.map(|d| d.per_field), expect, "{text}");
        }
    }

    #[test]
    fn fields_are_what_the_filters_ask() {
        let fit = r"scale=trunc(min(max(iw\,ih*a)\,min(1280\,720*a))/2)*2:trunc(min(max(iw/a\,ih)\,min(1280/a\,720))/2)*2";
        let text = format!("fps=23.976025,{TAGS},yadif=0:-1:0,{fit},format=yuv420p");
        let chain = run(&text, Memory::System, None).unwrap();
        assert_eq!(chain.frame_rate, Some((24000, 1001)));
        assert_eq!(chain.colour.unwrap().matrix, "bt709");
        assert_eq!(chain.scale, Some(Scale::Fit { max_width: 1280, max_height: 720 }));
        assert!(chain.eight_bit && chain.rate_before_deinterlace);

        let late = run("yadif=1:-1:0,scale=640:360,fps=25", Memory::System, None).unwrap();
        assert!(!late.rate_before_deinterlace);
        assert_eq!(late.scale, Some(Scale::Exact { width: 640, height: 360 }));
    }

    #[test]
    fn refusals_name_the_filter() {
        use PassthroughKind::{UnknownArgument, UnsupportedFeature};
        for (text, start, kind, named) in [
            ("frobnicate=1", Memory::System, UnknownArgument, "frobnicate"),
            ("tonemapx=tonemap=bt2390", Memory::System, UnsupportedFeature, "setparams"),
            ("scale=640:360,ass=f='/a.ass'", Memory::System, UnsupportedFeature, "ass"),
            (
                "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc",
                Memory::System,
                UnsupportedFeature,
                "HDR",
            ),
            (
                "setparams=color_primaries=bt2020:color_trc=bt709:colorspace=bt2020nc",
                Memory::System,
                UnknownArgument,
                "bt2020, bt709",
            ),
            ("setparams=color_primaries=bt709", Memory::System, UnknownArgument, "setparams"),
            ("hwmap=derive_device=frobnicate", VAAPI, UnknownArgument, "frobnicate"),
            ("hwmap=derive_device=cuda", VAAPI, UnknownArgument, "hwmap"),
            ("hwmap=derive_device=opencl:mode=write", VAAPI, UnknownArgument, "hwmap"),
            ("hwmap=derive_device=qsv:reverse=1", VAAPI, UnknownArgument, "hwmap"),
            ("transpose=dir=clock", Memory::System, UnsupportedFeature, "transpose"),
            ("hflip", Memory::System, UnsupportedFeature, "hflip"),
            (r"scale=1280:trunc(ow/a/2)*2", Memory::System, UnsupportedFeature, "ow/a"),
            (r"scale=iw*2:ih*2", Memory::System, UnknownArgument, "iw*2"),
            ("scale=640:360:fast_bilinear", Memory::System, UnknownArgument, "scale"),
            ("scale_vaapi=w=640:h=361", VAAPI, UnknownArgument, "640x361"),
            ("scale_vaapi=format=nv12:mode=hq", VAAPI, UnknownArgument, "mode=hq"),
            ("scale_vaapi=format=nv12", Memory::System, UnknownArgument, "scale_vaapi"),
            ("hwmap,scale=640:360", VAAPI, UnknownArgument, "scale"),
            ("hwmap=derive_device=qsv,format=vaapi", VAAPI, UnknownArgument, "format"),
            ("hwupload", Memory::System, UnknownArgument, "hwupload"),
            ("hwdownload", Memory::System, UnknownArgument, "hwdownload"),
            ("format=yuv420p10le", Memory::System, UnknownArgument, "yuv420p10le"),
            ("fps=25,fps=25", Memory::System, UnknownArgument, "fps"),
            ("fps", Memory::System, UnknownArgument, "fps"),
        ] {
            let refusal = run(text, start, None).unwrap_err();
            assert_eq!(refusal.kind, kind, "{text}: {refusal}");
            assert!(refusal.reason.contains(named), "{text}: {refusal}");
        }
    }
}
