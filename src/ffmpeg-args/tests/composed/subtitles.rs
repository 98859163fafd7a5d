//! A request's subtitles, in the spelling of each vendor and version (contract 2.5).

use ffmpeg_args::{
    PictureSubtitles, StreamRef, StreamSelect, SubtitleFit, Subtitles, TextSubtitles,
};

use crate::recipe::{Backend, Burn, Recipe, Version};

const FONTS: &str = "/config/attachments/0f0d";

impl Backend {
    /// Subtitles are laid over on the device, text as well.
    pub fn has_planes(self) -> bool {
        use Backend::{AmdVulkan, Nvenc, Qsv, QsvDecoder, Vaapi};
        matches!(self, Vaapi | Qsv | QsvDecoder | Nvenc | AmdVulkan)
    }
}

impl Recipe {
    /// The size of planes. They are brought to the picture's, in software to the bound of it.
    fn plane_size(&self) -> (u32, u32) {
        self.size.unwrap_or((1920, 800))
    }

    /// The canvas's size: the subtitles' own, in 10.8 the picture's.
    pub fn canvas_size(&self) -> (u32, u32) {
        if self.version == Version::V10_8 { self.plane_size() } else { (1920, 1080) }
    }

    /// Text upon the picture itself.
    pub fn drawn(&self, backend: Backend) -> Option<String> {
        let Some(Burn::Text { .. }) = self.burn else { return None };
        (!backend.has_planes()).then(|| self.text(""))
    }

    fn text(&self, plane: &str) -> String {
        let shift =
            self.shift().map(|seconds| format!(",setpts=PTS -{seconds}/TB")).unwrap_or_default();
        // As Jellyfin escapes paths for filters.
        let escaped = |path: &str| path.replace(':', r"\:").replace('\'', r"'\\\''");
        let (path, stream, charset) = self.text_file();
        let path = escaped(&path);
        let charset = charset.map(|name| format!(":charenc={name}")).unwrap_or_default();
        let fonts = format!(":fontsdir='{}'", escaped(FONTS));
        match (self.version, stream) {
            (Version::V10_7, Some(stream)) => format!("subtitles='{path}:si={stream}'{shift}"),
            (Version::V10_7, None) => format!("subtitles=filename='{path}'{charset}{shift}"),
            (_, Some(stream)) => {
                format!("subtitles=f='{path}':si={stream}{plane}{fonts}{shift}")
            }
            (_, None) => format!("subtitles=f='{path}'{charset}{plane}{fonts}{shift}"),
        }
    }

    /// The file of the text, which of its streams it is, and its encoding.
    fn text_file(&self) -> (String, Option<u32>, Option<&'static str>) {
        match self.burn {
            Some(Burn::Text { external: true, charset }) => {
                (format!("/media/{}.de.srt", self.title), None, charset)
            }
            _ if self.version < Version::V10_10 => {
                (format!("/media/{}.mkv", self.title), Some(2), None)
            }
            _ => ("/config/data/subtitles/cd/0f0d/2.ass".to_owned(), None, None),
        }
    }

    /// The branch of a plane, and the overlay with what follows it.
    pub fn plane(&self, backend: Backend) -> Option<(String, String)> {
        let device = match backend {
            Backend::Vaapi => "vaapi",
            Backend::Qsv | Backend::QsvDecoder => "qsv",
            Backend::Nvenc => "cuda",
            Backend::AmdVulkan => "vulkan",
            _ => "",
        };
        let format = if device == "cuda" { "yuva420p" } else { "bgra" };
        let up = match device {
            "" => String::new(),
            "qsv" => ",hwupload=derive_device=qsv:extra_hw_frames=64".to_owned(),
            "vulkan" => ",hwupload=derive_device=vulkan,format=vulkan".to_owned(),
            device => format!(",hwupload=derive_device={device}"),
        };
        let plane = match self.burn? {
            Burn::Pictures { external, padded, .. } => {
                let stream = if external { "[1:0]" } else { "[0:5]" };
                let format =
                    if device.is_empty() { String::new() } else { format!(",format={format}") };
                format!("{stream}{}{format}{up}", self.fitted(backend, padded))
            }
            Burn::Text { .. } if device.is_empty() => return None,
            Burn::Text { .. } => {
                let (w, h) = self.plane_size();
                let start = match self.seek_time() {
                    None => "0".to_owned(),
                    Some(time) => time.replace(':', r"\:").replace('.', r"\."),
                };
                let text = self.text(":alpha=1:sub2video=1");
                format!("alphasrc=s={w}x{h}:r=23.976025:start='{start}',format={format},{text}{up}")
            }
        };
        Some((plane, self.overlay(backend, device)))
    }

    fn fitted(&self, backend: Backend, padded: bool) -> String {
        let (w, h) = self.plane_size();
        let filled =
            format!(r"crop,pad=max({w}\,iw):max({h}\,ih):(ow-iw)/2:(oh-ih)/2:black@0,crop={w}:{h}");
        match self.version {
            Version::V10_8 if backend.has_planes() && backend != Backend::Nvenc => {
                "scale=flags=fast_bilinear".to_owned()
            }
            Version::V10_8 => format!("scale=s={w}x{h}:flags=fast_bilinear"),
            Version::V10_9 => format!("scale=-1:{h}:fast_bilinear,scale,{filled}"),
            _ if padded => format!("scale,scale=-1:{h}:fast_bilinear,{filled}"),
            _ => format!("scale,scale={w}:{h}:fast_bilinear"),
        }
    }

    fn overlay(&self, backend: Backend, device: &str) -> String {
        let name =
            if device.is_empty() { "overlay".to_owned() } else { format!("overlay_{device}") };
        let end = match self.version {
            Version::V10_8 if device.is_empty() && backend.is_vaapi() => {
                "eof_action=pass:shortest=1:repeatlast=0"
            }
            Version::V10_8 => "eof_action=endall:shortest=1:repeatlast=0",
            _ => "eof_action=pass:repeatlast=0",
        };
        let (w, h) = self.plane_size();
        let more = match (device, self.burn) {
            ("vaapi" | "qsv", _) => format!(":w={w}:h={h}"),
            ("cuda", Some(Burn::Text { .. })) if self.version >= Version::V10_11 => {
                ":alpha_format=premultiplied".to_owned()
            }
            _ => String::new(),
        };
        let behind = match backend {
            Backend::VaapiUpload | Backend::I965 | Backend::AmdLegacy => {
                ",hwupload_vaapi".to_owned()
            }
            Backend::VaapiLegacy => ",hwupload=derive_device=vaapi".to_owned(),
            Backend::AmdVulkan => {
                let late = self.interlaced.map(|twice| {
                    let rate = if twice { "field" } else { "frame" };
                    format!(",deinterlace_vaapi=rate={rate}")
                });
                format!(
                    ",hwmap=derive_device=vaapi,format=vaapi,scale_vaapi=format=nv12{}",
                    late.unwrap_or_default()
                )
            }
            _ => String::new(),
        };
        format!("{name}={end}{more}{behind}")
    }

    pub fn expected_subtitles(&self, backend: Backend) -> Option<Subtitles> {
        let (width, height) = self.plane_size();
        Some(match self.burn? {
            Burn::Text { .. } => {
                let (path, stream, charset) = self.text_file();
                Subtitles::Text(TextSubtitles {
                    path: path.into(),
                    stream,
                    charset: charset.map(str::to_owned),
                    fonts: (self.version != Version::V10_7).then(|| FONTS.into()),
                    shift_seconds: self.shift().unwrap_or(0.0),
                })
            }
            Burn::Pictures { external, padded, canvas } => {
                let (input, index) = if external { (1, 0) } else { (0, 5) };
                let fit = match self.version {
                    Version::V10_8 if backend.has_planes() && backend != Backend::Nvenc => None,
                    _ if padded => Some(SubtitleFit::Height { width, height }),
                    _ => Some(SubtitleFit::Exact { width, height }),
                };
                let on_intel =
                    matches!(backend, Backend::Vaapi | Backend::Qsv | Backend::QsvDecoder);
                Subtitles::Pictures(PictureSubtitles {
                    source: StreamRef { input, stream: StreamSelect::Index(index) },
                    canvas: canvas.then(|| self.canvas_size()),
                    fit,
                    stretched: on_intel,
                })
            }
        })
    }
}
