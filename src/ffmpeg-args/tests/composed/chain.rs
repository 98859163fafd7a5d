//! A request's filters, in the spelling of each vendor and version (contract 2.5).

use crate::recipe::{Backend, Burn, Recipe, Tone, Version};

impl Recipe {
    pub fn chain(&self, backend: Backend) -> String {
        if self.version == Version::V10_7 {
            return self.old_chain(backend);
        }
        let mut filters = vec![match &self.tone {
            None => "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709".to_owned(),
            Some(tone) => {
                let transfer = if tone.hlg { "arib-std-b67" } else { "smpte2084" };
                format!("setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc")
            }
        }];
        let vulkan = backend == Backend::AmdVulkan && (self.tone.is_some() || self.burn.is_some());
        let mut late = None;
        if vulkan {
            filters.push(self.through_vulkan());
            if self.burn.is_none() {
                filters.push("hwmap=derive_device=vaapi,format=vaapi".to_owned());
                filters.push("scale_vaapi=format=nv12".to_owned());
                late = self.deinterlacer(backend);
            }
        } else {
            filters.extend(self.deinterlacer(backend));
            filters.extend(self.turner(backend));
            filters.extend(self.scaler(backend));
            filters.extend(self.tone.as_ref().map(|tone| self.mapper(backend, tone)));
        }
        filters.extend(late);
        if self.burn.is_some() && !backend.has_planes() {
            filters.extend(self.way_to_memory(backend).map(str::to_owned));
            if let Some(text) = self.drawn(backend) {
                filters.push(text);
                filters.extend(self.way_back(backend).map(str::to_owned));
            }
        } else {
            filters.extend(self.way_to_encoder(backend).map(str::to_owned));
        }
        if let Some((text, _)) = self.rate {
            let late = self.interlaced.is_some() && self.version == Version::V12;
            filters.insert(if late { filters.len() } else { 0 }, format!("fps={text}"));
        }
        filters.join(",")
    }

    /// To where subtitles are drawn or laid over.
    fn way_to_memory(&self, backend: Backend) -> Option<&'static str> {
        let pictures = matches!(self.burn, Some(Burn::Pictures { .. }));
        match (backend, &self.tone) {
            (Backend::I965 | Backend::AmdLegacy, None) | (Backend::I965, Some(_)) => {
                Some(if pictures { "hwdownload,format=nv12" } else { "hwmap,format=nv12" })
            }
            (Backend::VaapiUpload | Backend::AmdLegacy | Backend::QsvUpload, Some(_)) => {
                Some("hwdownload,format=nv12")
            }
            (Backend::VaapiDownload, _) => Some("hwmap=mode=read,format=nv12"),
            (Backend::NvencUpload, Some(_)) => Some("hwdownload,format=yuv420p"),
            _ => None,
        }
    }

    /// From there to the encoder, behind text.
    fn way_back(&self, backend: Backend) -> Option<&'static str> {
        match (backend, &self.tone) {
            (Backend::I965, _) | (Backend::AmdLegacy, None) => Some("hwmap,format=vaapi"),
            (Backend::VaapiUpload | Backend::AmdLegacy, _) => Some("hwupload_vaapi"),
            (Backend::VaapiLegacy, _) => Some("hwupload=derive_device=vaapi"),
            _ => None,
        }
    }

    fn old_chain(&self, backend: Backend) -> String {
        let mut filters = Vec::new();
        if let Some((text, _)) = self.rate {
            filters.push(format!("fps={text}"));
        }
        if backend == Backend::Software {
            filters.extend(self.interlaced.map(|twice| format!("yadif={}:-1:0", u8::from(twice))));
            filters.extend(self.size.map(|(w, h)| format!("scale={w}:{h}")));
            filters.push("format=yuv420p".to_owned());
            filters.extend(self.drawn(backend));
        } else {
            filters.push("format=nv12|vaapi,hwupload".to_owned());
            filters.extend(self.deinterlacer(backend));
            filters.push(match self.size {
                Some((w, h)) => format!("scale_vaapi=w={w}:h={h}:format=nv12"),
                None => "scale_vaapi=format=nv12".to_owned(),
            });
        }
        filters.join(",")
    }

    fn deinterlacer(&self, backend: Backend) -> Option<String> {
        let twice = self.interlaced?;
        let (field, number) = if twice { ("field", 1) } else { ("frame", 0) };
        Some(match backend {
            Backend::QsvDecoder => "deinterlace_qsv=mode=2".to_owned(),
            Backend::Nvenc => format!("bwdif_cuda={number}:-1:0"),
            _ if backend.decodes() => format!("deinterlace_vaapi=rate={field}"),
            _ => format!("yadif={number}:-1:0"),
        })
    }

    fn turner(&self, backend: Backend) -> Option<String> {
        let direction = self.turn?;
        match backend {
            Backend::QsvDecoder => None,
            Backend::Nvenc => Some(format!("transpose_cuda=dir={direction}")),
            _ => Some(format!("transpose_vaapi=dir={direction}")),
        }
    }

    /// In main memory with the format that follows it; on a GPU there is none without a need.
    fn scaler(&self, backend: Backend) -> Option<String> {
        if !backend.decodes() {
            let fit = self.size.map(|(w, h)| {
                format!(
                    r"scale=trunc(min(max(iw\,ih*a)\,min({w}\,{h}*a))/2)*2:trunc(min(max(iw/a\,ih)\,min({w}/a\,{h}))/2)*2"
                )
            });
            let format = match (backend, &self.tone) {
                (Backend::Software | Backend::VaapiLegacy, Some(_)) => None,
                (Backend::NvencUpload, Some(_)) => Some("format=p010le"),
                (_, Some(_)) => Some("format=yuv420p10le"),
                (Backend::Software | Backend::NvencUpload, None) => Some("format=yuv420p"),
                (_, None) => Some("format=nv12"),
            };
            let filters: Vec<String> = fit.into_iter().chain(format.map(str::to_owned)).collect();
            return (!filters.is_empty()).then(|| filters.join(","));
        }
        let name = match backend {
            Backend::QsvDecoder => "vpp_qsv",
            Backend::Nvenc => "scale_cuda",
            _ => "scale_vaapi",
        };
        // Quick Sync's own filter turns as well, and takes the sides from before.
        let turn = self.turn.filter(|_| backend == Backend::QsvDecoder);
        let format = match (&self.tone, backend) {
            (None, Backend::Nvenc) => Some("format=yuv420p"),
            (None, _) => Some("format=nv12"),
            (Some(_), _) if turn.is_some() => Some("format=p010"),
            (Some(_), _) => None,
        };
        let size = self.size.map(|(w, h)| match turn {
            Some("clock" | "cclock") => format!("w={h}:h={w}"),
            _ => format!("w={w}:h={h}"),
        });
        let mut options: Vec<String> = size.into_iter().chain(format.map(str::to_owned)).collect();
        if options.is_empty() {
            return None;
        }
        options.extend(turn.map(|direction| format!("transpose={direction}")));
        if name == "scale_vaapi" && self.version > Version::V10_8 && backend != Backend::AmdVulkan {
            options.push("extra_hw_frames=24".to_owned());
        }
        Some(format!("{name}={}", options.join(":")))
    }

    /// The tone mapping, with the way there and back.
    fn mapper(&self, backend: Backend, tone: &Tone) -> String {
        if self.maps_by_driver(backend).is_some() {
            let adjusted = match (self.version, tone.brightness, tone.contrast) {
                (Version::V10_8 | Version::V10_9, b, c) => {
                    format!("procamp_vaapi=b={b}:c={},", c.unwrap_or("1"))
                }
                (_, "0", None) => String::new(),
                (_, "0", Some(c)) => format!("procamp_vaapi=c={c},"),
                (_, b, None) => format!("procamp_vaapi=b={b},"),
                (_, b, Some(c)) => format!("procamp_vaapi=b={b}:c={c},"),
            };
            let map = "tonemap_vaapi=format=nv12:p=bt709:t=bt709:m=bt709:extra_hw_frames=32";
            return match backend {
                Backend::QsvDecoder => {
                    let there = "hwmap=derive_device=vaapi,format=vaapi";
                    format!("{there},{adjusted}{map},hwmap=derive_device=qsv,format=qsv")
                }
                _ => format!("{adjusted}{map}"),
            };
        }
        let Tone { curve, .. } = tone;
        let mut more = tone.parameter.map(|param| format!(":param={param}")).unwrap_or_default();
        if tone.limited {
            more += ":range=tv";
        }
        if matches!(backend, Backend::Software | Backend::VaapiLegacy) {
            let format = if backend == Backend::Software { "yuv420p" } else { "nv12" };
            return format!(
                "tonemapx=tonemap={curve}:desat=0:peak=100:t=bt709:m=bt709:p=bt709:format={format}{more}"
            );
        }
        let mode = tone.mode.map(|mode| format!(":tonemap_mode={mode}")).unwrap_or_default();
        let options =
            format!("p=bt709:t=bt709:m=bt709:tonemap={curve}:peak=100:desat=0{mode}{more}");
        if backend.is_nvenc() {
            let up = if backend == Backend::Nvenc { "" } else { "hwupload=derive_device=cuda," };
            return format!("{up}tonemap_cuda=format=yuv420p:{options}");
        }
        let modeless = backend == Backend::I965 || self.version == Version::V10_8;
        let (read, write) = if modeless { ("", "") } else { (":mode=read", ":mode=write") };
        let (there, back) = match backend {
            Backend::VaapiUpload | Backend::QsvUpload => {
                ("hwupload=derive_device=opencl".to_owned(), String::new())
            }
            Backend::AmdLegacy => {
                ("hwdownload,format=p010le,hwupload=derive_device=opencl".to_owned(), String::new())
            }
            _ => {
                let there = format!("hwmap=derive_device=opencl{read}");
                let back = match backend {
                    Backend::Qsv | Backend::QsvDecoder => format!(
                        ",hwmap=derive_device=qsv{write}:reverse=1:extra_hw_frames=16,format=qsv"
                    ),
                    Backend::VaapiDownload => String::new(),
                    _ => format!(",hwmap=derive_device=vaapi{write}:reverse=1,format=vaapi"),
                };
                (there, back)
            }
        };
        format!("{there},tonemap_opencl=format=nv12:{options}{back}")
    }

    /// AMD's way: turns, scales and maps tones on Vulkan.
    fn through_vulkan(&self) -> String {
        let mut filters = vec!["hwmap=derive_device=drm,format=drm_prime".to_owned()];
        if self.version == Version::V10_9 {
            filters = vec!["hwmap=derive_device=vulkan,format=vulkan".to_owned()];
        } else if let Some(direction) = self.turn {
            filters.push("hwmap=derive_device=vulkan,format=vulkan".to_owned());
            filters.push(match direction {
                "reversal" => "flip_vulkan".to_owned(),
                other => format!("transpose_vulkan=dir={other}"),
            });
        }
        let size = self.size.map(|(w, h)| format!(":w={w}:h={h}")).unwrap_or_default();
        let mapped = self.tone.as_ref().map(|tone| {
            let curve = match tone.curve {
                "bt2390" => "bt.2390",
                "none" => "clip",
                other => other,
            };
            let range = if tone.limited { ":range=tv" } else { "" };
            format!(
                ":tonemapping={curve}:peak_detect=0:color_primaries=bt709:color_trc=bt709:\
                 colorspace=bt709{range}"
            )
        });
        let mapped = mapped.unwrap_or_default();
        filters.push(format!("libplacebo=upscaler=none:downscaler=none{size}:format=bgra{mapped}"));
        if self.version > Version::V10_9 || self.burn.is_none() {
            filters.push("format=vulkan".to_owned());
        }
        filters.join(",")
    }

    fn way_to_encoder(&self, backend: Backend) -> Option<&'static str> {
        match (backend, &self.tone) {
            (Backend::VaapiUpload, None) => Some("hwupload_vaapi"),
            (Backend::VaapiUpload | Backend::AmdLegacy, Some(_)) => {
                Some("hwdownload,format=nv12,hwupload_vaapi")
            }
            (Backend::VaapiLegacy, _) => Some("hwupload=derive_device=vaapi"),
            (Backend::VaapiDownload, _) => Some("hwmap=mode=read,format=nv12"),
            (Backend::QsvUpload, Some(_)) => Some("hwdownload,format=nv12"),
            (Backend::Qsv, None) => Some("hwmap=derive_device=qsv,format=qsv"),
            (Backend::Qsv, Some(_)) if self.maps_by_driver(backend).is_some() => {
                Some("hwmap=derive_device=qsv,format=qsv")
            }
            _ => None,
        }
    }
}
