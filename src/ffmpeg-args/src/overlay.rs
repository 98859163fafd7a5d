//! `-filter_complex`: subtitles as a plane that is laid over the picture (contract 2.5).
//!
//! Jellyfin writes one shape, with or without filters for the picture:
//!
//! ```text
//! [0:3]scale,scale=1920:1080:fast_bilinear,format=bgra,hwupload=...[sub];   pictures of a stream
//! alphasrc=...,format=bgra,subtitles=...,hwupload=...[sub];                 or text on a plane
//! [0:0]setparams=...,scale_vaapi=...[main];
//! [main][sub]overlay_vaapi=eof_action=pass:repeatlast=0:w=1920:h=1080
//! ```
//!
//! The graph's labels are resolved into a tree whose root is the overlay. The picture's branch is
//! reduced like any chain, the plane's by rules of its own, and what follows the overlay goes on
//! where the picture's branch ended.
//!
//! Invariants:
//! - Both branches end in the memory that the overlay works on.
//! - A plane that is stretched keeps its proportions.
//! - An overlay that shows a plane for longer than its stream does (`repeatlast=1`, ffmpeg's own
//!   default) is refused. `shortest` and `eof_action=endall` (10.8) end the picture with the
//!   subtitles' stream, which ends with the file.

use crate::chain::Chain;
use crate::filters::{Filter, Options, Segment};
use crate::memory::{Device, Memory};
use crate::numbers::whole;
use crate::plane::{LARGEST_SIDE, Plane};
use crate::{
    Passthrough, PictureSubtitles, Scale, StreamRef, StreamSelect, SubtitleFit, Subtitles, Verdict,
};

/// Overlays, the memory that they work on, and the format of planes there.
const OVERLAYS: &[(&str, Memory, &str)] = &[
    ("overlay", Memory::System, ""),
    ("overlay_vaapi", Memory::On(Device::Vaapi), "bgra"),
    ("overlay_qsv", Memory::On(Device::Qsv), "bgra"),
    ("overlay_cuda", Memory::On(Device::Cuda), "yuva420p"),
    ("overlay_vulkan", Memory::On(Device::Vulkan), "bgra"),
];

/// Overlays of platforms that no plan is made for.
const UNOFFERED: &[&str] = &["overlay_opencl", "overlay_videotoolbox", "overlay_rkrga"];

/// A graph whose labels are resolved.
#[derive(Debug)]
pub(crate) struct Graph<'a> {
    /// The stream that is the picture.
    pub picture: StreamRef,
    main: &'a [Filter],
    /// The stream of the plane; none if its filters make it.
    plane: Option<StreamRef>,
    sub: &'a [Filter],
    overlay: &'a Filter,
    behind: &'a [Filter],
}

/// Where a branch begins, and its filters.
type Branch<'a> = (Option<StreamRef>, &'a [Filter]);

impl<'a> Graph<'a> {
    /// Resolves the labels of a graph.
    pub(crate) fn resolve(segments: &'a [Segment]) -> Verdict<Self> {
        let refuse = |why: &str| Passthrough::unknown(format!("filter graph: {why}"));
        let [root] = &segments.iter().filter(|s| s.outputs.is_empty()).collect::<Vec<_>>()[..]
        else {
            return Err(refuse("not one unlabelled output"));
        };
        let [main, sub] = &root.inputs[..] else {
            return Err(refuse("its end takes not two pictures"));
        };
        if main == sub {
            return Err(refuse("a picture over itself"));
        }
        let (main, sub) = (branch(segments, main)?, branch(segments, sub)?);
        let labelled = segments.len() - 1;
        let used = usize::from(!main.1.is_empty()) + usize::from(!sub.1.is_empty());
        let Some((overlay, behind)) = root.filters.split_first().filter(|_| labelled == used)
        else {
            return Err(refuse("a branch that isn't used"));
        };
        let picture = main.0.ok_or_else(|| refuse("a picture without a source"))?;
        if sub.1.is_empty() {
            return Err(refuse("a plane without filters"));
        }
        Ok(Self { picture, main: main.1, plane: sub.0, sub: sub.1, overlay, behind })
    }

    /// The stream of the plane, if it is one.
    pub(crate) fn plane(&self) -> Option<StreamRef> {
        self.plane
    }

    /// Reduces the graph; the first two arguments are those of [`crate::chain::reduce`].
    /// `canvas` is what the plane's input says of its size.
    pub(crate) fn reduce(
        &self,
        start: Memory,
        encoder: Option<Device>,
        canvas: Option<(u32, u32)>,
    ) -> Verdict<Chain> {
        let mut chain = Chain::new(start, encoder);
        chain.check_offered(self.main)?;
        chain.check_offered(self.behind)?;
        chain.run(self.main)?;
        let filter = self.overlay;
        let (memory, format) = overlay(filter)?;
        chain.demand(filter, memory)?;
        let size = options(filter, &chain)?;
        let stretched = size.is_some();
        let mut plane = Plane::new(self.sub);
        let (subtitles, own) = match self.plane {
            Some(source) => {
                let fit = plane.fit()?;
                if let Memory::On(_) = memory {
                    plane.format(format)?;
                }
                let pictures = PictureSubtitles { source, canvas, fit, stretched };
                (Subtitles::Pictures(pictures), fit.map(SubtitleFit::size).or(canvas))
            }
            None => {
                let (text, timing, own) = plane.text(format)?;
                chain.timing = timing;
                (Subtitles::Text(text), Some(own))
            }
        };
        if !own.zip(size).is_none_or(|(own, size)| are_alike(own, size)) {
            return Err(filter.refuse("a plane of other proportions than the picture"));
        }
        plane.finish(memory)?;
        chain.subtitled(filter, subtitles)?;
        // The software overlay makes pictures of 8 bits.
        chain.eight_bit |= memory == Memory::System;
        chain.run(self.behind)?;
        chain.finish()
    }
}

/// What gives a label: the filters that end in it, or a stream itself.
fn branch<'a>(segments: &'a [Segment], label: &str) -> Verdict<Branch<'a>> {
    let refuse = |why: &str| Passthrough::unknown(format!("filter graph: [{label}] {why}"));
    let mut givers = segments.iter().filter(|s| s.outputs.iter().any(|output| output == label));
    let (giver, other) = (givers.next(), givers.next());
    let Some(giver) = giver else {
        return stream(label)
            .map(|stream| (Some(stream), &[][..]))
            .ok_or_else(|| refuse("is unknown"));
    };
    if other.is_some() || giver.outputs.len() != 1 {
        return Err(refuse("is given twice, or beside another"));
    }
    match &giver.inputs[..] {
        [] => Ok((None, &giver.filters)),
        [input] => match stream(input) {
            Some(stream) => Ok((Some(stream), &giver.filters)),
            None => Err(refuse("doesn't begin with a stream")),
        },
        _ => Err(refuse("takes more than one picture")),
    }
}

/// `0:3`, a stream of an input.
fn stream(label: &str) -> Option<StreamRef> {
    let (input, index) = label.split_once(':')?;
    Some(StreamRef { input: whole(input)?, stream: StreamSelect::Index(whole(index)?) })
}

fn overlay(filter: &Filter) -> Verdict<(Memory, &'static str)> {
    match OVERLAYS.iter().find(|(name, ..)| *name == filter.name) {
        Some((_, memory, format)) => Ok((*memory, format)),
        None if UNOFFERED.contains(&filter.name.as_str()) => {
            Err(Passthrough::feature(format!("filter {}", filter.name)))
        }
        None => Err(filter.refuse("not a known overlay")),
    }
}

/// Reads the options of an overlay: the size that the plane is stretched to, which is the picture's
/// own.
fn options(filter: &Filter, chain: &Chain) -> Verdict<Option<(u32, u32)>> {
    let mut options = filter.options(&[])?;
    options.require("repeatlast", |text| (text == "0").then_some(()))?;
    let end = options.require("eof_action", |action| match action {
        "pass" => Some(false),
        "endall" => Some(true),
        _ => None,
    })?;
    let shortest = options.read("shortest", |text| (text == "1").then_some(()))?;
    if end && shortest.is_none() {
        return Err(filter.refuse("eof_action=endall without shortest=1"));
    }
    if filter.name == "overlay_cuda" {
        options.read("alpha_format", |format| (format == "premultiplied").then_some(()))?;
    }
    let sized = matches!(filter.name.as_str(), "overlay_vaapi" | "overlay_qsv");
    let size = if sized { size(&mut options)? } else { None };
    options.finish()?;
    match (size, chain.scale) {
        (Some((w, h)), Some(Scale::Exact { width, height })) if (w, h) != (width, height) => {
            Err(filter.refuse(&format!("{w}x{h} over a picture of {width}x{height}")))
        }
        (size, _) => Ok(size),
    }
}

/// Whether two sizes have the same proportions, but for what even sides take.
fn are_alike(one: (u32, u32), other: (u32, u32)) -> bool {
    let (a, b) = (f64::from(one.0) * f64::from(other.1), f64::from(other.0) * f64::from(one.1));
    (a - b).abs() <= 0.02 * a
}

fn size(options: &mut Options<'_>) -> Verdict<Option<(u32, u32)>> {
    let side = |text| whole::<u32>(text).filter(|side| (2..=LARGEST_SIDE).contains(side));
    match options.read("w", side)? {
        None => Ok(None),
        Some(width) => Ok(Some((width, options.require("h", side)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PassthroughKind;
    use crate::filters::parse_graph;

    const VAAPI: Memory = Memory::On(Device::Vaapi);
    const TAGS: &str = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709";
    const FILLED: &str = r"scale,scale=-1:720:fast_bilinear,crop,pad=max(1280\,iw):max(720\,ih):(ow-iw)/2:(oh-ih)/2:black@0,crop=1280:720";

    fn run(text: &str, start: Memory, encoder: Option<Device>) -> Verdict<Chain> {
        let segments = parse_graph(text)?;
        Graph::resolve(&segments)?.reduce(start, encoder, Some((1920, 1080)))
    }

    #[track_caller]
    fn drawn(text: &str, start: Memory, encoder: Option<Device>) -> Subtitles {
        match run(text, start, encoder) {
            Ok(chain) => {
                assert_eq!(chain.memory, encoder.map_or(Memory::System, Memory::On), "{text}");
                assert!(chain.eight_bit, "{text}");
                chain.subtitles.expect("subtitles")
            }
            Err(refusal) => panic!("{text}: {refusal}"),
        }
    }

    fn pictures(fit: Option<SubtitleFit>, stretched: bool) -> Subtitles {
        let source = StreamRef { input: 0, stream: StreamSelect::Index(3) };
        let canvas = Some((1920, 1080));
        Subtitles::Pictures(PictureSubtitles { source, canvas, fit, stretched })
    }

    const HEIGHT: Option<SubtitleFit> = Some(SubtitleFit::Height { width: 1280, height: 720 });
    const EXACT: Option<SubtitleFit> = Some(SubtitleFit::Exact { width: 1280, height: 720 });

    #[test]
    fn every_vendor_lays_pictures_over() {
        use Device::{Cuda, Qsv, Vaapi};
        let (on, system) = (Memory::On, Memory::System);
        let end = "eof_action=pass:repeatlast=0";
        let vulkan =
            "libplacebo=upscaler=none:downscaler=none:w=1280:h=720:format=bgra,format=vulkan";
        let home = "hwmap=derive_device=vaapi,format=vaapi,scale_vaapi=format=nv12";
        let scaled = "scale_vaapi=w=1280:h=720:format=nv12";
        let late = "deinterlace_vaapi=rate=field";
        for (sub, main, overlay, start, encoder, stretched) in [
            ("", "format=yuv420p".to_owned(), format!("overlay={end}"), system, None, false),
            (
                "",
                "format=nv12".to_owned(),
                format!("overlay={end},hwupload_vaapi"),
                system,
                Some(Vaapi),
                false,
            ),
            (
                "",
                format!("{scaled},hwdownload,format=nv12"),
                format!("overlay={end},hwupload_vaapi"),
                on(Vaapi),
                Some(Vaapi),
                false,
            ),
            (
                "",
                format!("{scaled},hwmap=mode=read,format=nv12"),
                format!("overlay={end}"),
                on(Vaapi),
                None,
                false,
            ),
            (
                ",format=bgra,hwupload=derive_device=vaapi",
                scaled.to_owned(),
                format!("overlay_vaapi={end}:w=1280:h=720"),
                on(Vaapi),
                Some(Vaapi),
                true,
            ),
            (
                ",format=bgra,hwupload=derive_device=qsv:extra_hw_frames=64",
                format!("{scaled},hwmap=derive_device=qsv,format=qsv"),
                format!("overlay_qsv={end}:w=1280:h=720"),
                on(Vaapi),
                Some(Qsv),
                true,
            ),
            (
                ",format=yuva420p,hwupload=derive_device=cuda",
                "scale_cuda=w=1280:h=720:format=yuv420p".to_owned(),
                format!("overlay_cuda={end}"),
                on(Cuda),
                Some(Cuda),
                false,
            ),
            (
                ",format=bgra,hwupload=derive_device=vulkan,format=vulkan",
                format!("hwmap=derive_device=drm,format=drm_prime,{vulkan}"),
                format!("overlay_vulkan={end},{home}"),
                on(Vaapi),
                Some(Vaapi),
                false,
            ),
            (
                ",format=bgra,hwupload=derive_device=vulkan,format=vulkan",
                format!("hwupload=derive_device=vulkan,format=vulkan,{vulkan}"),
                format!("overlay_vulkan={end},scale_vulkan=format=nv12,hwdownload,format=nv12"),
                system,
                None,
                false,
            ),
            (
                ",format=bgra,hwupload=derive_device=vulkan,format=vulkan",
                format!("hwmap=derive_device=drm,format=drm_prime,{vulkan}"),
                format!("overlay_vulkan={end},{home},{late}"),
                on(Vaapi),
                Some(Vaapi),
                false,
            ),
        ] {
            for (fit, expect) in [(FILLED, HEIGHT), ("scale,scale=1280:720:fast_bilinear", EXACT)] {
                let text =
                    format!("[0:3]{fit}{sub}[sub];[0:0]{TAGS},{main}[main];[main][sub]{overlay}");
                assert_eq!(drawn(&text, start, encoder), pictures(expect, stretched), "{text}");
            }
        }
    }

    #[test]
    fn spellings_of_other_versions_are_the_same() {
        let main = format!("[0:0]{TAGS},scale_vaapi=format=nv12[main]");
        let behind =
            "[main][sub]overlay_vaapi=eof_action=endall:shortest=1:repeatlast=0:w=1920:h=800";
        let up = "format=bgra,hwupload=derive_device=vaapi[sub]";
        let behind = behind.replace("h=800", "h=1080");
        let text = format!("[0:3]scale=flags=fast_bilinear,{up};{main};{behind}");
        assert_eq!(drawn(&text, VAAPI, Some(Device::Vaapi)), pictures(None, true));

        let plain = "[0:0]format=yuv420p[main];[main][sub]overlay=eof_action=pass:repeatlast=0";
        let text = format!("[0:3]scale=s=1280x720:flags=fast_bilinear[sub];{plain}");
        assert_eq!(drawn(&text, Memory::System, None), pictures(EXACT, false));
        let swapped = FILLED.replacen("scale,", "", 1).replacen(",crop,", ",scale,crop,", 1);
        let text = format!("[0:3]{swapped}[sub];{plain}");
        assert_eq!(drawn(&text, Memory::System, None), pictures(HEIGHT, false));
        // Nothing is to be done to the picture: the overlay makes it 8 bits.
        let text = format!("[0:3]{FILLED}[sub];[0:0][sub]overlay=eof_action=pass:repeatlast=0");
        assert_eq!(drawn(&text, Memory::System, None), pictures(HEIGHT, false));
    }

    #[test]
    fn text_has_a_plane_of_its_own() {
        use Device::{Cuda, Qsv, Vaapi};
        let text = |source: &str, format: &str, up: &str, rest: &str| {
            format!(
                r"{source}:start='00\:27\:30\.250',format={format},subtitles=f='/m/a.ass':alpha=1:sub2video=1:fontsdir='/c/f',{up}[sub];{rest}"
            )
        };
        let end = "eof_action=pass:repeatlast=0";
        for (graph, start, encoder) in [
            (
                text(
                    "alphasrc=s=1280x720:r=23.976025",
                    "bgra",
                    "hwupload=derive_device=vaapi",
                    &format!(
                        "[0:0]{TAGS},scale_vaapi=w=1280:h=720:format=nv12[main];[main][sub]overlay_vaapi={end}:w=1280:h=720"
                    ),
                ),
                VAAPI,
                Vaapi,
            ),
            (
                text(
                    "alphasrc=s=1280x720:r=10",
                    "bgra",
                    "hwupload=derive_device=qsv:extra_hw_frames=64",
                    &format!("[0:0]{TAGS},vpp_qsv=format=nv12[main];[main][sub]overlay_qsv={end}"),
                ),
                Memory::On(Qsv),
                Qsv,
            ),
            (
                text(
                    "alphasrc=s=1280x720:r=10",
                    "yuva420p",
                    "hwupload=derive_device=cuda",
                    &format!(
                        "[0:0]{TAGS},scale_cuda=format=yuv420p[main];[main][sub]overlay_cuda={end}:alpha_format=premultiplied"
                    ),
                ),
                Memory::On(Cuda),
                Cuda,
            ),
        ] {
            let Subtitles::Text(text) = drawn(&graph, start, Some(encoder)) else {
                panic!("{graph}")
            };
            assert_eq!(text.path, std::path::PathBuf::from("/m/a.ass"));
            let chain = run(&graph, start, Some(encoder)).unwrap();
            assert_eq!(chain.timing.plane_start_us, Some(1_650_250_000));
            let shifted = graph.replace(",hwupload", ",setpts=PTS -1650/TB,hwupload");
            let Subtitles::Text(text) = drawn(&shifted, start, Some(encoder)) else { panic!() };
            assert_eq!(text.shift_seconds, 1650.0);
        }
    }

    #[test]
    fn a_plane_keeps_its_proportions() {
        assert!(are_alike((1920, 804), (3840, 1606)));
        assert!(are_alike((426, 238), (426, 238)));
        assert!(!are_alike((1920, 1080), (1920, 800)));
        assert!(!are_alike((1920, 1080), (192, 1080)));
    }

    #[test]
    fn other_graphs_are_refused() {
        use PassthroughKind::{UnknownArgument, UnsupportedFeature};
        let good = format!(
            "[0:3]{FILLED},format=bgra,hwupload=derive_device=vaapi[sub];[0:0]scale_vaapi=w=1280:h=720:format=nv12[main];[main][sub]overlay_vaapi=eof_action=pass:repeatlast=0:w=1280:h=720"
        );
        drawn(&good, VAAPI, Some(Device::Vaapi));
        for (from, to, kind, named) in [
            ("repeatlast=0", "repeatlast=1", UnknownArgument, "repeatlast=1"),
            (":repeatlast=0", "", UnknownArgument, "repeatlast"),
            ("eof_action=pass", "eof_action=repeat", UnknownArgument, "eof_action=repeat"),
            ("eof_action=pass", "eof_action=endall", UnknownArgument, "shortest"),
            ("repeatlast=0:w=1280:h=720", "repeatlast=0:w=640:h=360", UnknownArgument, "640x360"),
            ("repeatlast=0:w=1280:h=720", "repeatlast=0:w=1280", UnknownArgument, "without h"),
            ("repeatlast=0:w=1280:h=720", "repeatlast=0:x=5", UnknownArgument, "x=5"),
            ("overlay_vaapi", "overlay_opencl", UnsupportedFeature, "overlay_opencl"),
            ("overlay_vaapi", "blend", UnknownArgument, "blend"),
            ("[main][sub]", "[sub][main]", UnsupportedFeature, "filter crop"),
            ("[main][sub]", "[main][main]", UnknownArgument, "itself"),
            ("[main][sub]", "[main][0:4]", UnknownArgument, "isn't used"),
            ("[main][sub]", "[main]", UnknownArgument, "two pictures"),
            ("[0:0]scale_vaapi", "[0:0][0:1]scale_vaapi", UnknownArgument, "more than one"),
            ("[0:0]scale_vaapi", "scale_vaapi", UnknownArgument, "without a source"),
            ("h=720:format=nv12[main]", "h=720:format=nv12[main][more]", UnknownArgument, "beside"),
            ("[0:3]", "[0:v]", UnknownArgument, "doesn't begin with a stream"),
            ("derive_device=vaapi", "derive_device=qsv", UnknownArgument, "overlay on vaapi"),
            ("hwupload=derive_device=vaapi", "null", UnknownArgument, "hwupload"),
            ("format=bgra", "format=yuva420p", UnknownArgument, "yuva420p"),
            ("format=bgra,", "", UnknownArgument, "format"),
            ("crop=1280:720", "crop=1280:718", UnknownArgument, "718"),
            ("black@0", "black@1", UnknownArgument, "black@1"),
            ("max(1280\\,iw)", "max(1000\\,iw)", UnknownArgument, "max(1000,iw)"),
            ("fast_bilinear", "bicubic", UnknownArgument, "bicubic"),
            ("scale=-1:720", "scale=-2:720", UnknownArgument, "scale"),
            ("crop,pad", "crop=4:4,pad", UnknownArgument, "crop"),
            (
                "[0:0]scale_vaapi=w=1280:h=720:format=nv12",
                "[0:0]hflip",
                UnsupportedFeature,
                "hflip",
            ),
        ] {
            assert!(good.contains(from), "{from}");
            let refusal = run(&good.replacen(from, to, 1), VAAPI, Some(Device::Vaapi)).unwrap_err();
            assert_eq!(refusal.kind, kind, "{from} -> {to}: {refusal}");
            assert!(refusal.reason.contains(named), "{from} -> {to}: {refusal}");
        }
    }
}
