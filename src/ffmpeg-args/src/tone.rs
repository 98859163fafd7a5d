//! Tone mapping (contract 2.5): HDR that the head of a chain asserts, to SDR of BT.709 in 8 bits.
//!
//! Every vendor has a filter of its own for it, with nearly the same options:
//!
//! | filter | on | curve |
//! |---|---|---|
//! | `tonemap_opencl`, `tonemap_cuda` | the device of its name | `tonemap=` |
//! | `tonemapx` | main memory | `tonemap=` |
//! | `libplacebo` | Vulkan, DRM | `tonemapping=`; scales as well |
//! | `tonemap_vaapi`, `vpp_qsv=tonemap=1` | VA-API, Quick Sync | the driver's |
//!
//! Options and their meaning are those of jellyfin-ffmpeg (patches 0004, 0007, 0016, 0060). What
//! must be bt709 must be said to be: upstream's filters default to the source's.
//!
//! Invariants:
//! - Without a transfer asserted nothing is mapped: whether the stream is PQ or HLG isn't in the
//!   command then (10.7).
//! - Full range output (`range=pc`) isn't offered.

use crate::chain::Chain;
use crate::filters::{Filter, Options};
use crate::memory::{Device, Memory};
use crate::numbers::{decimal, whole};
use crate::{ColourTags, HdrTransfer, Passthrough, ToneCurve, ToneMap, Verdict};

/// The tags of SDR.
const SDR: &str = "bt709";

/// Reads `setparams` at the head of a chain: SDR tags, or the HDR that is mapped further down.
pub(crate) fn asserted(tags: &ColourTags) -> Option<Option<HdrTransfer>> {
    match (tags.primaries.as_str(), tags.transfer.as_str(), tags.matrix.as_str()) {
        (SDR, SDR, SDR) => Some(None),
        ("bt2020", "smpte2084", "bt2020nc") => Some(Some(HdrTransfer::Pq)),
        ("bt2020", "arib-std-b67", "bt2020nc") => Some(Some(HdrTransfer::Hlg)),
        _ => None,
    }
}

/// Whether a filter is one that maps tones, by its name alone.
pub(crate) fn maps_tones(filter: &Filter) -> bool {
    matches!(filter.name.as_str(), "tonemap_opencl" | "tonemap_cuda" | "tonemap_vaapi" | "tonemapx")
}

/// `procamp_vaapi` in front of `tonemap_vaapi`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Adjusted {
    brightness: Option<f64>,
    contrast: Option<f64>,
}

impl Chain {
    /// `tonemap_opencl`, `tonemap_cuda` and `tonemapx`.
    pub(crate) fn map_tones(&mut self, filter: &Filter) -> Verdict<()> {
        self.demand(
            filter,
            match filter.name.as_str() {
                "tonemap_opencl" => Memory::On(Device::Opencl),
                "tonemap_cuda" => Memory::On(Device::Cuda),
                _ => Memory::System,
            },
        )?;
        let mut options = filter.options(&[])?;
        to_sdr(filter, &mut options)?;
        let curve = options.read("tonemap", curve)?.ok_or_else(|| filter.refuse("no tonemap"))?;
        let map = ToneMap {
            curve,
            peak: options.read("peak", decimal)?,
            desaturation: options.read("desat", decimal)?,
            parameter: options.read("param", decimal)?,
            mode: match filter.name.as_str() {
                "tonemapx" => None,
                _ => options.read("tonemap_mode", mode)?,
            },
            ..self.tone_map_by_driver(filter)?
        };
        options.finish()?;
        self.tone_mapped(map);
        Ok(())
    }

    /// `procamp_vaapi`: for Jellyfin a part of the tone mapping that follows it.
    pub(crate) fn adjust(&mut self, filter: &Filter) -> Verdict<()> {
        self.demand(filter, Memory::On(Device::Vaapi))?;
        let mut options = filter.options(&[])?;
        let adjusted = Adjusted {
            brightness: options.read("b", |text| signed(text).filter(|b| b.abs() <= 100.0))?,
            contrast: options.read("c", |text| decimal(text).filter(|c| *c <= 10.0))?,
        };
        options.finish()?;
        let idle = self.hdr.is_none() || self.tone_map.is_some();
        if idle || self.adjusted.is_some() || adjusted == Adjusted::default() {
            return Err(filter.refuse("not in front of a tone mapping, or without a value"));
        }
        self.adjusted = Some(adjusted);
        Ok(())
    }

    /// `tonemap_vaapi`.
    pub(crate) fn map_tones_on_vaapi(&mut self, filter: &Filter) -> Verdict<()> {
        self.demand(filter, Memory::On(Device::Vaapi))?;
        let mut options = filter.options(&[])?;
        to_sdr(filter, &mut options)?;
        options.read("extra_hw_frames", whole::<u32>)?;
        options.finish()?;
        let Adjusted { brightness, contrast } = self.adjusted.take().unwrap_or_default();
        let map = ToneMap { brightness, contrast, ..self.tone_map_by_driver(filter)? };
        self.tone_mapped(map);
        Ok(())
    }

    /// `libplacebo`: scales, and maps tones if it is told a curve.
    pub(crate) fn place(&mut self, filter: &Filter) -> Verdict<()> {
        // Pictures of DRM it imports by itself.
        if self.memory != Memory::On(Device::Drm) {
            self.demand(filter, Memory::On(Device::Vulkan))?;
        }
        let mut options = filter.options(&[])?;
        for scaler in ["upscaler", "downscaler"] {
            options.require(scaler, |text| (text == "none").then_some(()))?;
        }
        let size = (options.take("w"), options.take("h"));
        options.require("format", |format| (format == "bgra").then_some(()))?;
        let curve = options.read("tonemapping", |name| match name {
            "bt.2390" => Some(ToneCurve::Bt2390),
            "bt2390" | "none" => None,
            name => curve(name),
        })?;
        let map = match curve {
            None => None,
            Some(curve) => {
                options.require("peak_detect", |text| (text == "0").then_some(()))?;
                for tag in ["color_primaries", "color_trc", "colorspace"] {
                    options.require(tag, |text| (text == SDR).then_some(()))?;
                }
                limited_range(filter, options.take("range"))?;
                Some(ToneMap { curve, ..self.tone_map_by_driver(filter)? })
            }
        };
        options.finish()?;
        self.memory = Memory::On(Device::Vulkan);
        self.placed = true;
        if size != (None, None) {
            self.sized_exactly(filter, size)?;
        }
        self.eight_bit = true;
        if let Some(map) = map {
            self.tone_mapped(map);
        }
        Ok(())
    }

    /// A tone mapping of which nothing is said but where it starts.
    pub(crate) fn tone_map_by_driver(&self, filter: &Filter) -> Verdict<ToneMap> {
        let from = self.hdr.ok_or_else(|| unasserted(filter))?;
        let late = self.tone_map.is_some() || self.subtitles.is_some();
        if late || self.eight_bit || self.adjusted.is_some() {
            return Err(filter.refuse("behind another tone mapping, 8 bits or procamp_vaapi"));
        }
        Ok(ToneMap::new(from, ToneCurve::Driver))
    }

    pub(crate) fn tone_mapped(&mut self, map: ToneMap) {
        let own = || SDR.to_owned();
        self.tone_map = Some(map);
        self.colour = Some(ColourTags { primaries: own(), transfer: own(), matrix: own() });
        self.eight_bit = true;
    }
}

/// The refusal of a tone mapping whose source is described by the stream alone.
pub(crate) fn unasserted(filter: &Filter) -> Passthrough {
    Passthrough::feature(format!("filter {}: no setparams says what it maps from", filter.name))
}

/// Reads what leads to BT.709 in 8 bits, in the short spelling or in 10.7's.
fn to_sdr(filter: &Filter, options: &mut Options<'_>) -> Verdict<()> {
    for (short, long) in [("p", "primaries"), ("t", "transfer"), ("m", "matrix")] {
        let tag = match (options.take(short), options.take(long)) {
            (Some(tag), None) | (None, Some(tag)) => tag,
            (None, None) => return Err(filter.refuse(&format!("without {short}"))),
            (Some(_), Some(_)) => return Err(filter.refuse(&format!("{short} and {long}"))),
        };
        if tag != SDR {
            return Err(filter.refuse(&format!("{short}={tag}")));
        }
    }
    options.require("format", |format| matches!(format, "nv12" | "yuv420p").then_some(()))?;
    limited_range(filter, options.take("range"))
}

fn limited_range(filter: &Filter, range: Option<&str>) -> Verdict<()> {
    match range {
        None | Some("tv" | "limited") => Ok(()),
        Some("pc" | "full") => {
            Err(Passthrough::feature(format!("filter {}: full range", filter.name)))
        }
        Some(other) => Err(filter.refuse(&format!("range={other}"))),
    }
}

fn curve(name: &str) -> Option<ToneCurve> {
    match name {
        "bt2390" => Some(ToneCurve::Bt2390),
        "hable" => Some(ToneCurve::Hable),
        "reinhard" => Some(ToneCurve::Reinhard),
        "mobius" => Some(ToneCurve::Mobius),
        "gamma" => Some(ToneCurve::Gamma),
        "linear" => Some(ToneCurve::Linear),
        "clip" => Some(ToneCurve::Clip),
        "none" => Some(ToneCurve::None),
        _ => None,
    }
}

fn mode(name: &str) -> Option<String> {
    matches!(name, "max" | "rgb" | "lum" | "itp").then(|| name.to_owned())
}

fn signed(text: &str) -> Option<f64> {
    match text.strip_prefix('-') {
        Some(text) => decimal(text).map(|number| -number),
        None => decimal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::reduce;
    use crate::filters::parse_chain;
    use crate::{PassthroughKind, Scale};

    const PQ: &str = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc";
    const HLG: &str = "setparams=color_primaries=bt2020:color_trc=arib-std-b67:colorspace=bt2020nc";
    /// From VA-API to OpenCL and back.
    const THERE: &str = "hwmap=derive_device=opencl:mode=read";
    const BACK: &str = "hwmap=derive_device=vaapi:mode=write:reverse=1,format=vaapi";
    const TO_SDR: &str = "format=nv12:p=bt709:t=bt709:m=bt709";

    fn run(text: &str, start: Memory, encoder: Option<Device>) -> Verdict<Chain> {
        reduce(&parse_chain(text)?, start, encoder)
    }

    #[track_caller]
    fn mapped(text: &str, start: Memory, encoder: Option<Device>) -> ToneMap {
        match run(text, start, encoder) {
            Ok(chain) => {
                assert!(chain.eight_bit, "{text}");
                assert_eq!(chain.memory, encoder.map_or(Memory::System, Memory::On), "{text}");
                assert_eq!(chain.colour.unwrap().transfer, "bt709");
                chain.tone_map.expect("a tone mapping")
            }
            Err(refusal) => panic!("{text}: {refusal}"),
        }
    }

    #[test]
    fn every_vendors_chain_maps() {
        use Device::{Cuda, Qsv, Vaapi};
        let jellyfins = "p=bt709:t=bt709:m=bt709:tonemap=bt2390:peak=100:desat=0";
        let opencl = format!("tonemap_opencl=format=nv12:{jellyfins}");
        let vaapi = format!("tonemap_vaapi={TO_SDR}:extra_hw_frames=32");
        let (on, system) = (Memory::On, Memory::System);
        let scale = "scale_vaapi=w=1280:h=720:extra_hw_frames=24";
        let placebo = "libplacebo=upscaler=none:downscaler=none:w=1280:h=720:format=bgra:tonemapping=bt.2390:peak_detect=0:color_primaries=bt709:color_trc=bt709:colorspace=bt709";
        let home = "format=vulkan,hwmap=derive_device=vaapi,format=vaapi,scale_vaapi=format=nv12";
        let drm = "hwmap=derive_device=drm,format=drm_prime";
        for (text, start, encoder) in [
            (format!("{scale},procamp_vaapi=b=16,{vaapi}"), on(Vaapi), Some(Vaapi)),
            (format!("scale_vaapi=format=p010:extra_hw_frames=24,{vaapi}"), on(Vaapi), Some(Vaapi)),
            (format!("{vaapi},hwmap=mode=read,format=nv12"), on(Vaapi), None),
            (format!("{vaapi},hwmap=derive_device=qsv,format=qsv"), on(Vaapi), Some(Qsv)),
            (
                format!("vpp_qsv=w=1280:h=720,hwmap=derive_device=vaapi,format=vaapi,{vaapi},hwmap=derive_device=qsv,format=qsv"),
                on(Qsv),
                Some(Qsv),
            ),
            (format!("{scale},{THERE},{opencl},{BACK}"), on(Vaapi), Some(Vaapi)),
            (format!("{THERE},{opencl},hwmap=mode=read,format=nv12"), on(Vaapi), None),
            // 10.8 and i965 map without a mode.
            (
                format!("hwmap=derive_device=opencl,{opencl},hwmap=derive_device=vaapi:reverse=1,format=vaapi"),
                on(Vaapi),
                Some(Vaapi),
            ),
            (
                format!("{THERE},{opencl},hwmap=derive_device=qsv:mode=write:reverse=1:extra_hw_frames=16,format=qsv"),
                on(Qsv),
                Some(Qsv),
            ),
            (
                format!("hwdownload,format=p010le,hwupload=derive_device=opencl,{opencl},hwdownload,format=nv12,hwupload_vaapi"),
                on(Vaapi),
                Some(Vaapi),
            ),
            (
                format!("format=yuv420p10le,hwupload=derive_device=opencl,{opencl},hwdownload,format=nv12,hwupload_vaapi"),
                system,
                Some(Vaapi),
            ),
            (format!("tonemap_cuda=format=yuv420p:{jellyfins}"), on(Cuda), Some(Cuda)),
            (
                format!("scale_cuda=w=1280:h=720:format=p010,tonemap_cuda=format=yuv420p:{jellyfins},hwdownload,format=yuv420p"),
                on(Cuda),
                None,
            ),
            (
                format!("format=p010le,hwupload=derive_device=cuda,tonemap_cuda=format=yuv420p:{jellyfins}"),
                system,
                Some(Cuda),
            ),
            (format!("{drm},{placebo},{home}"), on(Vaapi), Some(Vaapi)),
            (
                format!("{drm},hwmap=derive_device=vulkan,format=vulkan,scale_vulkan,{placebo},{home}"),
                on(Vaapi),
                Some(Vaapi),
            ),
            (
                format!("hwmap=derive_device=vulkan,format=vulkan,{placebo},{home},hwdownload,format=nv12"),
                on(Vaapi),
                None,
            ),
            (
                format!("yadif=0:-1:0,hwupload=derive_device=vulkan,format=vulkan,{placebo},{home}"),
                system,
                Some(Vaapi),
            ),
            (format!("vpp_qsv=w=1280:h=720:format=nv12:tonemap=1,{}", PQ.replace("bt2020nc", "bt709").replace("bt2020", "bt709").replace("smpte2084", "bt709")), on(Qsv), Some(Qsv)),
            (
                "scale=1280:720,tonemapx=tonemap=bt2390:desat=0:peak=100:t=bt709:m=bt709:p=bt709:format=yuv420p".to_owned(),
                system,
                None,
            ),
        ] {
            let from_pq = mapped(&format!("{PQ},{text}"), start, encoder);
            assert_eq!(from_pq.from, HdrTransfer::Pq);
            assert_eq!(mapped(&format!("{HLG},{text}"), start, encoder).from, HdrTransfer::Hlg);
        }
    }

    #[test]
    fn every_option_is_a_field() {
        let opencl = |options: &str| {
            let text = format!("{PQ},{THERE},tonemap_opencl={TO_SDR}:{options},{BACK}");
            mapped(&text, Memory::On(Device::Vaapi), Some(Device::Vaapi))
        };
        let plain = opencl("tonemap=bt2390");
        assert_eq!(plain.curve, ToneCurve::Bt2390);
        assert_eq!((plain.peak, plain.desaturation, plain.parameter), (None, None, None));
        let full = opencl("tonemap=mobius:peak=100:desat=0.5:param=0.3:tonemap_mode=itp:range=tv");
        assert_eq!(full.curve, ToneCurve::Mobius);
        assert_eq!((full.peak, full.desaturation), (Some(100.0), Some(0.5)));
        assert_eq!((full.parameter, full.mode.as_deref()), (Some(0.3), Some("itp")));
        for (name, expect) in [
            ("hable", ToneCurve::Hable),
            ("reinhard", ToneCurve::Reinhard),
            ("gamma", ToneCurve::Gamma),
            ("linear", ToneCurve::Linear),
            ("clip", ToneCurve::Clip),
            ("none", ToneCurve::None),
        ] {
            assert_eq!(opencl(&format!("tonemap={name}")).curve, expect);
        }
        let vaapi = |procamp: &str| {
            let text = format!("{PQ},{procamp}tonemap_vaapi={TO_SDR}");
            mapped(&text, Memory::On(Device::Vaapi), Some(Device::Vaapi))
        };
        assert_eq!(vaapi("").curve, ToneCurve::Driver);
        assert_eq!(vaapi("procamp_vaapi=b=-16.5:c=1.2,").brightness, Some(-16.5));
        assert_eq!(vaapi("procamp_vaapi=c=1.2,").contrast, Some(1.2));
    }

    #[test]
    fn tones_are_mapped_as_jellyfin_does_or_not_at_all() {
        use PassthroughKind::{UnknownArgument, UnsupportedFeature};
        let va = Memory::On(Device::Vaapi);
        for (text, kind, named) in [
            ("PQ,tonemap_vaapi=format=nv12:p=bt709:t=bt709", UnknownArgument, "without m"),
            ("PQ,tonemap_vaapi=SDR:t=bt2020", UnknownArgument, "t given twice"),
            ("PQ,tonemap_vaapi=SDR:transfer=bt709", UnknownArgument, "t and transfer"),
            ("PQ,tonemap_vaapi=format=p010:p=bt709:t=bt709:m=bt709", UnknownArgument, "p010"),
            ("PQ,tonemap_vaapi=SDR:display=1", UnknownArgument, "display"),
            ("PQ,procamp_vaapi=b=101,tonemap_vaapi=SDR", UnknownArgument, "b=101"),
            ("PQ,procamp_vaapi=b=16:h=3,tonemap_vaapi=SDR", UnknownArgument, "h=3"),
            ("PQ,procamp_vaapi,tonemap_vaapi=SDR", UnknownArgument, "without a value"),
            ("PQ,procamp_vaapi=b=1", UnsupportedFeature, "HDR"),
            (
                "PQ,procamp_vaapi=b=1,scale_vaapi=format=p010,tonemap_vaapi=SDR",
                UnknownArgument,
                "between",
            ),
            ("procamp_vaapi=b=16", UnknownArgument, "procamp_vaapi"),
            ("PQ,tonemap_vaapi=SDR,procamp_vaapi=b=16", UnknownArgument, "not in front"),
            ("PQ,scale_vaapi=format=nv12,tonemap_vaapi=SDR", UnknownArgument, "8 bits"),
            ("PQ,tonemap_vaapi=SDR,tonemap_vaapi=SDR", UnknownArgument, "another tone mapping"),
            ("PQ,tonemap_vaapi=SDR,scale_vaapi=w=640:h=360", UnknownArgument, "a tone mapping"),
            ("PQ,tonemap_vaapi=SDR,PQ", UnknownArgument, "head"),
            ("PQ,THERE,tonemap_opencl=SDR", UnknownArgument, "no tonemap"),
            ("PQ,THERE,tonemap_opencl=SDR:tonemap=bt2446", UnknownArgument, "bt2446"),
            ("PQ,THERE,tonemap_opencl=SDR:tonemap=clip:range=pc", UnsupportedFeature, "full range"),
            ("PQ,THERE,tonemap_opencl=SDR:tonemap=clip:range=x", UnknownArgument, "range=x"),
            (
                "PQ,THERE,tonemap_opencl=SDR:tonemap=clip:threshold=0.8",
                UnknownArgument,
                "threshold",
            ),
            (
                "PQ,THERE,tonemap_opencl=SDR:tonemap=clip:apply_dovi=0",
                UnknownArgument,
                "apply_dovi",
            ),
            ("PQ,THERE,tonemap_opencl=SDR:tonemap=clip:peak=-1", UnknownArgument, "peak=-1"),
            ("PQ,tonemap_opencl=SDR:tonemap=clip", UnknownArgument, "opencl"),
            ("PQ,scale_vaapi=w=640:h=360:format=p010", UnsupportedFeature, "HDR"),
            ("PQ,scale_vaapi=format=nv12", UnsupportedFeature, "HDR"),
            // 10.7 asserts nothing.
            (
                "hwmap,tonemap_opencl=format=nv12:primaries=bt709:transfer=bt709:matrix=bt709:tonemap=hable:desat=0:threshold=0.8:peak=0",
                UnsupportedFeature,
                "no setparams",
            ),
            (
                "tonemap_vaapi=format=nv12:transfer=bt709:matrix=bt709:primaries=bt709",
                UnsupportedFeature,
                "no setparams",
            ),
        ] {
            let text = text.replace("PQ", PQ).replace("SDR", TO_SDR).replace("THERE", THERE);
            let refusal = run(&text, va, Some(Device::Vaapi)).unwrap_err();
            assert_eq!(refusal.kind, kind, "{text}: {refusal}");
            assert!(refusal.reason.contains(named), "{text}: {refusal}");
        }
        let x = "tonemapx=tonemap=clip:t=bt709:m=bt709:p=bt709:format=yuv420p";
        for options in [":tonemap_mode=max", ":range=pc", ":range=full", ":threshold=1"] {
            assert!(run(&format!("{PQ},{x}{options}"), Memory::System, None).is_err(), "{options}");
        }
    }

    #[test]
    fn libplacebo_may_scale_alone() {
        let placebo = "libplacebo=upscaler=none:downscaler=none:w=1280:h=720:format=bgra";
        let run = |placebo: &str| {
            let text = format!(
                "hwmap=derive_device=vulkan,format=vulkan,{placebo},format=vulkan,hwmap=derive_device=vaapi,format=vaapi,scale_vaapi=format=nv12"
            );
            run(&text, Memory::On(Device::Vaapi), Some(Device::Vaapi))
        };
        let chain = run(placebo).unwrap();
        assert_eq!(chain.scale, Some(Scale::Exact { width: 1280, height: 720 }));
        assert_eq!(chain.tone_map, None);
        for options in [
            ":tonemapping=bt.2390",
            ":peak_detect=0",
            ":tonemapping=auto:peak_detect=0",
            ":deband=1",
            ":upscaler=spline36",
        ] {
            assert!(run(&format!("{placebo}{options}")).is_err(), "{options}");
        }
    }
}
