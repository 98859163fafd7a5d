//! What Jellyfin was asked for: one field per decision, and which of them go together.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub const ID: &str = "0f0d0a5bb0f1a5ac2f2f8a5f9a3b6c1d";

/// Whose dialect it is (contract 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 10.6 and 10.7: chains of their own, for software and VA-API.
    V10_7,
    V10_8,
    V10_9,
    V10_10,
    V10_11,
    V12,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Software,
    Vaapi,
    /// Software decoder, VA-API encoder.
    VaapiUpload,
    /// VA-API decoder, software encoder.
    VaapiDownload,
    /// VA-API on Intel's older driver.
    I965,
    /// VA-API on an AMD card without Vulkan.
    AmdLegacy,
    /// VA-API on an AMD card, with Vulkan between.
    AmdVulkan,
    /// VA-API without OpenCL: all but the codecs in software.
    VaapiLegacy,
    Qsv,
    QsvDecoder,
    /// Software decoder, Quick Sync encoder.
    QsvUpload,
    Nvenc,
    /// Software decoder, NVENC encoder.
    NvencUpload,
}

impl Backend {
    pub const ALL: [Self; 13] = [
        Self::Software,
        Self::Vaapi,
        Self::VaapiUpload,
        Self::VaapiDownload,
        Self::I965,
        Self::AmdLegacy,
        Self::AmdVulkan,
        Self::VaapiLegacy,
        Self::Qsv,
        Self::QsvDecoder,
        Self::QsvUpload,
        Self::Nvenc,
        Self::NvencUpload,
    ];

    /// Decoded pictures stay in the device's memory.
    pub fn decodes(self) -> bool {
        use Backend::{NvencUpload, QsvUpload, Software, VaapiLegacy, VaapiUpload};
        !matches!(self, Software | VaapiUpload | VaapiLegacy | QsvUpload | NvencUpload)
    }

    pub fn encodes_in_software(self) -> bool {
        matches!(self, Self::Software | Self::VaapiDownload)
    }

    pub fn is_quick_sync(self) -> bool {
        matches!(self, Self::Qsv | Self::QsvDecoder | Self::QsvUpload)
    }

    pub fn is_nvenc(self) -> bool {
        matches!(self, Self::Nvenc | Self::NvencUpload)
    }

    /// Encodes through VA-API.
    pub fn is_vaapi(self) -> bool {
        !self.encodes_in_software() && !self.is_quick_sync() && !self.is_nvenc()
    }

    /// Turns pictures by a filter, from 10.10 on.
    fn turns(self) -> bool {
        use Backend::{AmdVulkan, Nvenc, Qsv, QsvDecoder, Vaapi, VaapiDownload};
        matches!(self, Vaapi | VaapiDownload | AmdVulkan | Qsv | QsvDecoder | Nvenc)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Picture {
    Copy,
    Encode(Backend),
    None,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sound {
    Copy,
    Aac,
    AacVbr,
    Mp3Average,
    Opus,
    External,
    None,
}

/// Jellyfin's settings of tone mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Tone {
    pub hlg: bool,
    /// By the driver where there is one that can.
    pub driver: bool,
    pub curve: &'static str,
    pub parameter: Option<&'static str>,
    pub mode: Option<&'static str>,
    pub limited: bool,
    pub brightness: &'static str,
    pub contrast: Option<&'static str>,
}

/// A request, one field per decision of Jellyfin's.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub version: Version,
    pub picture: Picture,
    pub sound: Sound,
    pub hevc: bool,
    pub fmp4: bool,
    pub event: bool,
    pub start: Option<u64>,
    pub size: Option<(u32, u32)>,
    pub interlaced: Option<bool>,
    pub rate: Option<(&'static str, (u32, u32))>,
    pub level: bool,
    pub low_power: bool,
    pub subtitles: bool,
    pub tone: Option<Tone>,
    /// `clock`, `cclock` or `reversal`.
    pub turn: Option<&'static str>,
    pub title: String,
}

fn tone() -> impl Strategy<Value = Tone> {
    let curves = ["none", "clip", "linear", "gamma", "reinhard", "hable", "mobius", "bt2390"];
    (
        any::<[bool; 3]>(),
        select(curves.to_vec()),
        option::of(select(vec!["0.3", "2"])),
        option::of(select(vec!["max", "rgb", "lum", "itp"])),
        select(vec!["16", "0", "-7.5"]),
        option::of(select(vec!["1.2", "2"])),
    )
        .prop_map(|([hlg, driver, limited], curve, parameter, mode, brightness, contrast)| {
            Tone { hlg, driver, curve, parameter, mode, limited, brightness, contrast }
        })
}

pub fn recipe() -> impl Strategy<Value = Recipe> {
    use Version::{V10_7, V10_8, V10_9, V10_10, V10_11, V12};
    let version = select(vec![V10_7, V10_8, V10_9, V10_10, V10_11, V12]);
    let picture = prop_oneof![
        8 => select(Backend::ALL.to_vec()).prop_map(Picture::Encode),
        1 => Just(Picture::Copy),
        1 => Just(Picture::None),
    ];
    let sound = select(vec![
        Sound::Copy,
        Sound::Aac,
        Sound::AacVbr,
        Sound::Mp3Average,
        Sound::Opus,
        Sound::External,
        Sound::None,
    ]);
    let rate =
        select(vec![("23.976025", (24000, 1001)), ("30", (30, 1)), ("59.94006", (60000, 1001))]);
    let size = (100u32..1900, 100u32..1000).prop_map(|(w, h)| (2 * w, 2 * h));
    let what = (version, picture, sound, any::<[bool; 6]>());
    let turn = option::of(select(vec!["clock", "cclock", "reversal"]));
    let how =
        (option::of(size), option::of(any::<bool>()), option::of(rate), option::of(tone()), turn);
    let title = "[A-Za-z0-9 '.:()é示-]{0,20}";
    (what, how, option::of(1u64..5000), title).prop_map(|(what, how, start, title)| {
        let (version, picture, sound, flags) = what;
        let (size, interlaced, rate, tone, turn) = how;
        let [hevc, fmp4, event, level, low_power, subtitles] = flags;
        let recipe = Recipe {
            version,
            picture,
            sound,
            hevc,
            fmp4,
            event,
            start,
            size,
            interlaced,
            rate,
            level,
            low_power,
            subtitles,
            tone,
            turn,
            title,
        };
        recipe.settled()
    })
}

impl Recipe {
    /// A plain software transcode.
    pub fn plain() -> Self {
        Self {
            version: Version::V12,
            picture: Picture::Encode(Backend::Software),
            sound: Sound::Aac,
            hevc: false,
            fmp4: true,
            event: false,
            start: Some(5),
            size: Some((1280, 720)),
            interlaced: None,
            rate: None,
            level: true,
            low_power: false,
            subtitles: false,
            tone: None,
            turn: None,
            title: "Film".to_owned(),
        }
    }

    /// Takes back what no request combines, or that version has no words for.
    pub fn settled(mut self) -> Self {
        if self.picture == Picture::None && matches!(self.sound, Sound::None | Sound::External) {
            self.sound = Sound::Aac;
        }
        if self.event {
            self.start = None;
        }
        let Picture::Encode(backend) = self.picture else {
            (self.tone, self.turn) = (None, None);
            return self;
        };
        let since = match backend {
            Backend::Software | Backend::Vaapi => Version::V10_7,
            Backend::AmdVulkan => Version::V10_9,
            _ => Version::V10_8,
        };
        self.version = self.version.max(since);
        let maps_since = match backend {
            Backend::Software | Backend::VaapiLegacy => Version::V10_10,
            _ => Version::V10_8,
        };
        if self.version < maps_since {
            self.tone = None;
        }
        if self.version < Version::V10_10 || !backend.turns() {
            self.turn = None;
        }
        if backend == Backend::AmdVulkan {
            // Vulkan deinterlaces last, and is left for VA-API only to map tones.
            self.interlaced = self.interlaced.filter(|_| self.tone.is_none());
            self.turn = self.turn.filter(|_| self.tone.is_some());
        }
        self
    }

    pub fn seconds(&self) -> u64 {
        if self.picture == Picture::Copy { 6 } else { 3 }
    }

    pub fn has_low_power(&self) -> bool {
        let able = |backend: Backend| backend.is_vaapi() || backend.is_quick_sync();
        self.low_power && matches!(self.picture, Picture::Encode(backend) if able(backend))
    }

    pub fn has_level(&self, backend: Backend) -> bool {
        self.level && !backend.is_nvenc() && self.encoder(backend) != "libx265"
    }

    pub fn encoder(&self, backend: Backend) -> &'static str {
        let (h264, hevc) = match backend {
            _ if backend.encodes_in_software() => ("libx264", "libx265"),
            _ if backend.is_quick_sync() => ("h264_qsv", "hevc_qsv"),
            _ if backend.is_nvenc() => ("h264_nvenc", "hevc_nvenc"),
            _ => ("h264_vaapi", "hevc_vaapi"),
        };
        if self.hevc { hevc } else { h264 }
    }

    /// Inexact seeks: 10.7 all of them, up to 10.11 those of fMP4.
    pub fn seeks_inexactly(&self) -> bool {
        self.start.is_some()
            && (self.version == Version::V10_7 || (self.fmp4 && self.version < Version::V12))
    }

    /// The driver maps tones: VA-API's where Intel's newer driver is at work.
    pub fn maps_by_driver(&self, backend: Backend) -> Option<&Tone> {
        use Backend::{Qsv, QsvDecoder, Vaapi, VaapiDownload};
        let able = matches!(backend, Vaapi | VaapiDownload | Qsv | QsvDecoder);
        self.tone.as_ref().filter(|tone| able && tone.driver)
    }
}
