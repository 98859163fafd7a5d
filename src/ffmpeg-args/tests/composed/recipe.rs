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
    Vorbis,
    External,
    None,
}

/// Where the film comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    File,
    /// A disc's files in a row.
    Disc,
    /// A tuner, over Jellyfin's own server.
    Tuner,
    /// A channel's playlist.
    Playlist,
    Camera,
}

impl Origin {
    pub fn is_network(self) -> bool {
        matches!(self, Self::Tuner | Self::Playlist | Self::Camera)
    }
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Segments,
    /// A file with this extension.
    File(&'static str),
}

/// Subtitles that become part of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Burn {
    /// From a file of its own, in this encoding if it has to be said, or out of the film.
    Text { external: bool, charset: Option<&'static str> },
    /// `padded`: of other proportions than the picture. `canvas`: of known size.
    Pictures { external: bool, padded: bool, canvas: bool },
}

/// A mix by formula, and what it is: layout and gains of numbered channels.
pub type Formula = (&'static str, &'static str, [&'static [(u32, f64)]; 2]);

pub const FORMULAS: &[Formula] = &[
    (
        "pan=stereo|c0=c2+0.30*c0+0.30*c4|c1=c2+0.30*c1+0.30*c5",
        "stereo",
        [&[(2, 1.0), (0, 0.3), (4, 0.3)], &[(2, 1.0), (1, 0.3), (5, 0.3)]],
    ),
    (
        "pan=stereo|c0=0.422650*c0+0.366025*c2+0.211325*c3|c1=0.422650*c1+0.366025*c3+0.211325*c2",
        "stereo",
        [
            &[(0, 0.42265), (2, 0.366025), (3, 0.211325)],
            &[(1, 0.42265), (3, 0.366025), (2, 0.211325)],
        ],
    ),
    (
        "pan=5.1(side)|c0=c0|c1=c1|c2=c2|c3=c3|c4=0.707*c4+0.707*c6|c5=0.707*c5+0.707*c7,\
         pan=stereo|c0=c0+0.707*c2+0.707*c4|c1=c1+0.707*c2+0.707*c5",
        "stereo",
        [
            &[(0, 1.0), (2, 0.707), (4, 0.707 * 0.707), (6, 0.707 * 0.707)],
            &[(1, 1.0), (2, 0.707), (5, 0.707 * 0.707), (7, 0.707 * 0.707)],
        ],
    ),
];

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
    pub burn: Option<Burn>,
    pub origin: Origin,
    pub written: Written,
    /// A file's times are the film's.
    pub copy_times: bool,
    /// Read no faster than it plays, or no faster than segments are deleted.
    pub paced: bool,
    pub formula: Option<&'static Formula>,
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
        Sound::Vorbis,
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
    let more = (
        option::of(burn()),
        prop_oneof![
            6 => Just(Origin::File),
            1 => Just(Origin::Disc),
            3 => select(vec![Origin::Tuner, Origin::Playlist, Origin::Camera]),
        ],
        prop_oneof![
            3 => Just(Written::Segments),
            2 => select(EXTENSIONS.to_vec()).prop_map(Written::File),
        ],
        any::<[bool; 2]>(),
        option::of(select(FORMULAS.iter().collect::<Vec<_>>())),
    );
    (what, how, more, option::of(1u64..5000), title).prop_map(|(what, how, more, start, title)| {
        let (version, picture, sound, flags) = what;
        let (size, interlaced, rate, tone, turn) = how;
        let (burn, origin, written, [copy_times, paced], formula) = more;
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
            burn,
            origin,
            written,
            copy_times,
            paced,
            formula,
            title,
        };
        recipe.settled()
    })
}

const EXTENSIONS: &[&str] =
    &["mp4", "ts", "mkv", "webm", "mp3", "aac", "m4a", "flac", "ogg", "oga", "opus", "mka"];

fn burn() -> impl Strategy<Value = Burn> {
    let charset = option::of(select(vec!["utf-8", "windows-1252"]));
    prop_oneof![
        (any::<bool>(), charset).prop_map(|(external, charset)| Burn::Text {
            external,
            charset: charset.filter(|_| external),
        }),
        any::<[bool; 3]>().prop_map(|[external, padded, canvas]| Burn::Pictures {
            external,
            padded,
            canvas
        }),
    ]
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
            burn: None,
            origin: Origin::File,
            written: Written::Segments,
            copy_times: false,
            paced: false,
            formula: None,
            title: "Film".to_owned(),
        }
    }

    /// Takes back what no request combines, or that version has no words for.
    pub fn settled(mut self) -> Self {
        self.settle_written();
        if self.picture == Picture::None && matches!(self.sound, Sound::None | Sound::External) {
            self.sound = Sound::Aac;
        }
        let network = self.origin.is_network();
        if network && matches!(self.sound, Sound::None | Sound::External) {
            self.sound = Sound::Aac;
        }
        if self.event || network {
            self.start = None;
        }
        let Picture::Encode(backend) = self.picture else {
            (self.tone, self.turn, self.burn) = (None, None, None);
            self.settle_sound();
            return self;
        };
        let since = match backend {
            Backend::Software | Backend::Vaapi => Version::V10_7,
            Backend::AmdVulkan => Version::V10_9,
            _ => Version::V10_8,
        };
        self.version = self.version.max(since);
        self.settle_burn(backend);
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
        if backend == Backend::AmdVulkan && self.tone.is_none() && self.burn.is_none() {
            // Vulkan turns, and is left for VA-API otherwise.
            self.turn = None;
        }
        self.settle_sound();
        self
    }

    /// What a file's container holds, and what only segments have.
    fn settle_written(&mut self) {
        let Written::File(extension) = self.written else {
            self.copy_times = true;
            return;
        };
        let film = ["mp4", "ts", "mkv", "webm"].contains(&extension);
        // Sound alone is music.
        if film == (self.picture == Picture::None) {
            let other = if self.picture == Picture::None { "mka" } else { "mkv" };
            self.written = Written::File(other);
        }
        if extension == "webm" && self.picture != Picture::Copy && film {
            self.written = Written::File("mkv");
        }
        (self.fmp4, self.event) = (false, false);
        if self.picture == Picture::None {
            (self.copy_times, self.origin) = (false, Origin::File);
        }
    }

    fn settle_burn(&mut self, backend: Backend) {
        // 10.6 and 10.7 are planned with text in software alone.
        let old = self.version == Version::V10_7;
        let pictures = matches!(self.burn, Some(Burn::Pictures { .. }));
        if (old && (pictures || backend != Backend::Software)) || self.origin.is_network() {
            self.burn = None;
        }
        let Some(burn) = &mut self.burn else { return };
        if let Burn::Pictures { padded, .. } = burn {
            match self.version {
                Version::V10_8 => *padded = false,
                Version::V10_9 => *padded = true,
                _ => {}
            }
        }
        // Text of the film itself is the film's until 10.10, and a disc is no film.
        if matches!(self.burn, Some(Burn::Text { external: false, .. })) {
            self.origin = Origin::File;
        }
        self.subtitles = true;
    }

    /// Containers of sound, mixes.
    fn settle_sound(&mut self) {
        let encoded = !matches!(self.sound, Sound::Copy | Sound::None);
        let since = self.version >= Version::V10_10 && self.picture != Picture::None;
        self.formula = self.formula.filter(|_| encoded && since && self.sound != Sound::External);
        // Volume and quality of sound: libvorbis is asked for in files alone.
        match self.written {
            Written::Segments if self.sound == Sound::Vorbis => self.sound = Sound::Opus,
            Written::Segments => {}
            Written::File(extension) => {
                let extension = match (self.picture, self.sound) {
                    (Picture::None, Sound::Copy) => extension,
                    (Picture::None, Sound::Aac | Sound::AacVbr) => match extension {
                        "m4a" | "mp4" if self.version >= Version::V10_9 => "m4a",
                        "mka" => "mka",
                        _ => "aac",
                    },
                    (Picture::None, Sound::Mp3Average) => "mp3",
                    (Picture::None, Sound::Opus | Sound::Vorbis) => match extension {
                        "opus" | "oga" | "mka" => extension,
                        _ => "ogg",
                    },
                    (_, Sound::Copy | Sound::Opus | Sound::None) => extension,
                    (_, Sound::Vorbis) if extension == "webm" => "webm",
                    (_, Sound::Vorbis) => "mkv",
                    _ if extension == "webm" => "mkv",
                    _ => extension,
                };
                let fragments = self.version >= Version::V10_9 || extension != "m4a";
                self.written = Written::File(if fragments { extension } else { "mka" });
            }
        }
        if self.picture != Picture::Copy || self.version < Version::V10_9 || self.is_file() {
            // Jellyfin reads at the film's own pace where the source says so.
            self.paced &= self.origin == Origin::Tuner;
        }
    }

    pub fn is_file(&self) -> bool {
        self.written != Written::Segments
    }

    /// The time of the seek as Jellyfin prints it.
    pub fn seek_time(&self) -> Option<String> {
        let seconds = self.start? * self.seconds();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        Some(format!("{hours:02}:{minutes:02}:{:02}.250", seconds % 60))
    }

    /// Subtitles that are an input of their own.
    pub fn plane_input(&self) -> bool {
        matches!(self.burn, Some(Burn::Pictures { external: true, .. }))
    }

    /// Streams are told by number; of what is live they aren't known.
    pub fn is_mapped(&self) -> bool {
        self.picture != Picture::None && !self.origin.is_network()
    }

    /// A file's text is drawn at the film's times, which are put back by whole seconds.
    pub fn shift(&self) -> Option<f64> {
        let text = matches!(self.burn, Some(Burn::Text { .. }));
        let shifted = text && self.is_file() && !self.copy_times;
        shifted.then(|| (self.start.unwrap_or(0) * self.seconds()) as f64)
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
            && !self.is_file()
            && (self.version == Version::V10_7 || (self.fmp4 && self.version < Version::V12))
    }

    /// The driver maps tones: VA-API's where Intel's newer driver is at work.
    pub fn maps_by_driver(&self, backend: Backend) -> Option<&Tone> {
        use Backend::{Qsv, QsvDecoder, Vaapi, VaapiDownload};
        let able = matches!(backend, Vaapi | VaapiDownload | Qsv | QsvDecoder);
        self.tone.as_ref().filter(|tone| able && tone.driver)
    }
}
