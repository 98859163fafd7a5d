//! What Jellyfin was asked for, written as a command (contract 2.1 to 2.5) and as a plan.

use std::ffi::OsString;

use ffmpeg_args::{
    Audio, AudioAction, AudioCodec, AudioEncode, ColourTags, Container, Deinterlace, HlsOutput,
    Input, Keyframes, PlaylistType, RateControl, Scale, StreamRef, StreamSelect, Transcode, Turn,
    Video, VideoAction, VideoCodec, VideoEncode, split_command_line,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

const ID: &str = "0f0d0a5bb0f1a5ac2f2f8a5f9a3b6c1d";

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Backend {
    Software,
    Vaapi,
    /// Software decoder, VA-API encoder.
    VaapiUpload,
    /// VA-API decoder, software encoder.
    VaapiDownload,
    Qsv,
    QsvDecoder,
    Nvenc,
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

/// A request, one field per decision of Jellyfin's.
#[derive(Debug, Clone)]
pub struct Recipe {
    picture: Picture,
    sound: Sound,
    hevc: bool,
    fmp4: bool,
    event: bool,
    legacy: bool,
    start: Option<u64>,
    size: Option<(u32, u32)>,
    interlaced: Option<bool>,
    rate: Option<(&'static str, (u32, u32))>,
    level: bool,
    low_power: bool,
    subtitles: bool,
    title: String,
}

pub fn recipe() -> impl Strategy<Value = Recipe> {
    use Backend::{Nvenc, Qsv, QsvDecoder, Software, Vaapi, VaapiDownload, VaapiUpload};
    let picture = prop_oneof![
        8 => select(vec![Software, Vaapi, VaapiUpload, VaapiDownload, Qsv, QsvDecoder, Nvenc])
            .prop_map(Picture::Encode),
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
    let flags = any::<[bool; 7]>();
    let size = (100u32..1900, 100u32..1000).prop_map(|(w, h)| (2 * w, 2 * h));
    let title = "[A-Za-z0-9 '.:()é示-]{0,20}";
    (
        picture,
        sound,
        flags,
        option::of(1u64..5000),
        option::of(size),
        option::of(any::<bool>()),
        option::of(rate),
        title,
    )
        .prop_map(|(picture, sound, flags, start, size, interlaced, rate, title)| {
            let [hevc, fmp4, event, legacy, level, low_power, subtitles] = flags;
            let recipe = Recipe {
                picture,
                sound,
                hevc,
                fmp4,
                event,
                legacy,
                start,
                size,
                interlaced,
                rate,
                level,
                low_power,
                subtitles,
                title,
            };
            recipe.settled()
        })
}

impl Recipe {
    /// A plain software transcode.
    pub fn plain() -> Self {
        Self {
            picture: Picture::Encode(Backend::Software),
            sound: Sound::Aac,
            hevc: false,
            fmp4: true,
            event: false,
            legacy: false,
            start: Some(5),
            size: Some((1280, 720)),
            interlaced: None,
            rate: None,
            level: true,
            low_power: false,
            subtitles: false,
            title: "Film".to_owned(),
        }
    }

    /// Takes back what no request combines.
    fn settled(mut self) -> Self {
        if self.picture == Picture::None && matches!(self.sound, Sound::None | Sound::External) {
            self.sound = Sound::Aac;
        }
        if self.event {
            self.start = None;
        }
        self
    }

    pub fn argv(&self) -> Vec<OsString> {
        split_command_line(&self.command()).into_iter().map(OsString::from).collect()
    }

    /// The string as Jellyfin writes it, gaps of empty pieces included.
    pub fn command(&self) -> String {
        let extension = if self.fmp4 { "mp4" } else { "ts" };
        let container = if self.fmp4 {
            format!("fmp4 -hls_fmp4_init_filename \"{ID}-1.mp4\"")
        } else {
            "mpegts".to_owned()
        };
        let base = if self.event { format!(" -hls_base_url \"hls/{ID}/\"") } else { String::new() };
        let playlist = if self.event { "event" } else { "vod" };
        let options = match (self.fmp4 && self.picture != Picture::None, self.legacy) {
            (false, _) | (true, true) => "",
            (true, false) => " -hls_segment_options movflags=+frag_discont+skip_sidx",
        };
        format!(
            "{} {} -map_metadata -1 -map_chapters -1 -threads 0 {} {} {} -copyts \
             -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls -max_delay 5000000 \
             -hls_time {} -hls_segment_type {container} -start_number {}{base} \
             -hls_segment_filename \"/cache/transcodes/{ID}%d.{extension}\" \
             -hls_playlist_type {playlist} -hls_list_size 0{options} \
             -y \"/cache/transcodes/{ID}.m3u8\"",
            self.modifier(),
            self.inputs(),
            self.maps(),
            self.video(),
            self.audio(),
            self.seconds(),
            self.start.unwrap_or(0),
        )
    }

    fn seconds(&self) -> u64 {
        if self.picture == Picture::Copy { 6 } else { 3 }
    }

    fn seek(&self) -> String {
        let Some(start) = self.start else { return String::new() };
        let seconds = start * self.seconds();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let exact = if self.legacy && self.fmp4 { " -noaccurate_seek" } else { "" };
        format!("-ss {hours:02}:{minutes:02}:{:02}.250{exact}", seconds % 60)
    }

    fn modifier(&self) -> String {
        let size = if self.legacy { "" } else { " -probesize 1G" };
        let flags = if self.picture == Picture::Copy { " -fflags +genpts" } else { "" };
        format!("-analyzeduration 200M{size} {}{flags} -f matroska,webm", self.seek())
    }

    fn inputs(&self) -> String {
        use Backend::{Nvenc, Qsv, QsvDecoder, Software, Vaapi, VaapiDownload, VaapiUpload};
        let rotate =
            if self.legacy { "-autorotate 0" } else { "-noautorotate -display_rotation 0" };
        let Picture::Encode(backend) = self.picture else { return self.files() };
        let va = "-init_hw_device vaapi=va:/dev/dri/renderD128,driver=iHD";
        let qs = "-init_hw_device qsv=qs@va -filter_hw_device qs";
        let surface = "-hwaccel vaapi -hwaccel_output_format vaapi";
        let scaled = if self.legacy { " -autoscale 0" } else { " -noautoscale" };
        let (device, scaled) = match backend {
            Software => (String::new(), ""),
            Vaapi | VaapiDownload => (format!("{va} {surface} {rotate}"), scaled),
            VaapiUpload => (va.to_owned(), ""),
            Qsv => (format!("{va} {qs} {surface} {rotate}"), scaled),
            QsvDecoder => (
                format!("{va} {qs} -hwaccel qsv -hwaccel_output_format qsv -c:v h264_qsv {rotate}"),
                scaled,
            ),
            Nvenc => (
                format!(
                    "-init_hw_device cuda=cu:0 -filter_hw_device cu -hwaccel cuda \
                     -hwaccel_output_format cuda {rotate} -hwaccel_flags +unsafe_output -threads 1"
                ),
                scaled,
            ),
        };
        format!("{device} {}{scaled}", self.files())
    }

    fn files(&self) -> String {
        let second = match self.sound {
            Sound::External => format!(" {} -i \"/media/{}.de.ac3\"", self.seek(), self.title),
            _ => String::new(),
        };
        format!("-i file:\"/media/{}.mkv\"{second}", self.title)
    }

    fn maps(&self) -> &'static str {
        match (self.picture, self.sound) {
            (Picture::None, _) => "",
            (_, Sound::None) => "-map 0:0 -map -0:a -map -0:s",
            (_, Sound::External) => "-map 0:0 -map 1:0 -map -0:s",
            _ => "-map 0:0 -map 0:3 -map -0:s",
        }
    }

    fn encoder(&self, backend: Backend) -> &'static str {
        use Backend::{Nvenc, Qsv, QsvDecoder, Software, Vaapi, VaapiDownload, VaapiUpload};
        match (backend, self.hevc) {
            (Software | VaapiDownload, false) => "libx264",
            (Software | VaapiDownload, true) => "libx265",
            (Vaapi | VaapiUpload, false) => "h264_vaapi",
            (Vaapi | VaapiUpload, true) => "hevc_vaapi",
            (Qsv | QsvDecoder, false) => "h264_qsv",
            (Qsv | QsvDecoder, true) => "hevc_qsv",
            (Nvenc, false) => "h264_nvenc",
            (Nvenc, true) => "hevc_nvenc",
        }
    }

    fn video(&self) -> String {
        let tag = if self.hevc { " -tag:v:0 hvc1" } else { "" };
        let backend = match self.picture {
            Picture::None => return String::new(),
            Picture::Copy => {
                let codec = if self.hevc { "hevc" } else { "h264" };
                let bsf = format!("-bsf:v {codec}_mp4toannexb");
                return format!("-codec:v:0 copy{tag} {bsf} -start_at_zero{}", self.event_flags());
            }
            Picture::Encode(backend) => backend,
        };
        let rate = self.rate.map(|(text, _)| format!(" -r {text}")).unwrap_or_default();
        let subtitles = if self.subtitles { " -start_at_zero" } else { "" };
        format!(
            "-codec:v:0 {}{tag}{}{}{rate}{}{}{} -vf \"{}\"{subtitles}{}",
            self.encoder(backend),
            if self.has_low_power() { " -low_power 1" } else { "" },
            self.rate_control(backend),
            self.profile(backend),
            self.params(backend),
            self.keyframe_rule(backend),
            self.chain(backend),
            self.event_flags(),
        )
    }

    fn event_flags(&self) -> &'static str {
        if self.event && !self.fmp4 { " -flags -global_header" } else { "" }
    }

    fn has_low_power(&self) -> bool {
        use Backend::{Qsv, QsvDecoder, Vaapi, VaapiUpload};
        let able = [Vaapi, VaapiUpload, Qsv, QsvDecoder].map(Picture::Encode);
        self.low_power && able.contains(&self.picture)
    }

    fn rate_control(&self, backend: Backend) -> &'static str {
        use Backend::{Nvenc, Qsv, QsvDecoder, Software, Vaapi, VaapiDownload, VaapiUpload};
        match backend {
            Software | VaapiDownload => {
                " -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000"
            }
            Vaapi | VaapiUpload => " -rc_mode VBR -b:v 4000000 -maxrate 4000000 -bufsize 8000000",
            Qsv | QsvDecoder if self.legacy => {
                " -preset 7 -look_ahead 0 -b:v 4000000 -maxrate 4000000 -bufsize 8000000"
            }
            Qsv | QsvDecoder => {
                " -preset veryfast -mbbrc 1 -b:v 4000000 -maxrate 4000001 \
                 -rc_init_occupancy 8000000 -bufsize 16000000"
            }
            Nvenc => " -preset p1 -b:v 4000000 -maxrate 4000000 -bufsize 8000000",
        }
    }

    /// Profile and level; encoders that take no level are given none.
    fn profile(&self, backend: Backend) -> String {
        use Backend::{Qsv, QsvDecoder, Vaapi, VaapiUpload};
        let profile = if self.hevc { "main" } else { "high" };
        let level = match (self.has_level(backend), self.hevc, backend) {
            (false, ..) => "",
            (true, true, Vaapi | VaapiUpload) => " -level 123",
            (true, true, Qsv | QsvDecoder) => " -level 41",
            (true, ..) => " -level 41",
        };
        format!(" -profile:v:0 {profile}{level}")
    }

    fn has_level(&self, backend: Backend) -> bool {
        self.level && backend != Backend::Nvenc && self.encoder(backend) != "libx265"
    }

    fn params(&self, backend: Backend) -> &'static str {
        match self.encoder(backend) {
            "libx264" => " -x264opts:0 subme=0:me_range=16:rc_lookahead=10:me=hex:open_gop=0",
            "libx265" => " -x265-params:0 no-scenecut=1:no-open-gop=1:no-info=1",
            "h264_vaapi" | "hevc_vaapi" if !self.legacy => " -sei -a53_cc",
            _ => "",
        }
    }

    fn keyframe_rule(&self, backend: Backend) -> String {
        use Backend::{Nvenc, Qsv, QsvDecoder};
        if matches!(backend, Qsv | QsvDecoder | Nvenc) {
            return " -g:v:0 72 -keyint_min:v:0 72".to_owned();
        }
        let from =
            if self.legacy { format!("{}+", self.start.unwrap_or(0) * 3) } else { String::new() };
        let scene = if self.encoder(backend) == "libx264" { " -sc_threshold:v:0 0" } else { "" };
        format!(" -force_key_frames:0 \"expr:gte(t,{from}n_forced*3)\"{scene}")
    }

    fn chain(&self, backend: Backend) -> String {
        use Backend::{Nvenc, Qsv, QsvDecoder, Software, Vaapi, VaapiDownload, VaapiUpload};
        let head = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709".to_owned();
        let mut filters = vec![head];
        let twice = self.interlaced == Some(true);
        if self.interlaced.is_some() {
            let field = if twice { "field" } else { "frame" };
            filters.push(match backend {
                Software | VaapiUpload => format!("yadif={}:-1:0", u8::from(twice)),
                Vaapi | VaapiDownload | Qsv => format!("deinterlace_vaapi=rate={field}"),
                QsvDecoder => "deinterlace_qsv=mode=2".to_owned(),
                Nvenc => format!("bwdif_cuda={}:-1:0", u8::from(twice)),
            });
        }
        let wh = self.size.map(|(w, h)| format!("w={w}:h={h}:")).unwrap_or_default();
        let fit = self.size.map(|(w, h)| {
            format!(
                r"scale=trunc(min(max(iw\,ih*a)\,min({w}\,{h}*a))/2)*2:trunc(min(max(iw/a\,ih)\,min({w}/a\,{h}))/2)*2"
            )
        });
        let vaapi = format!("scale_vaapi={wh}format=nv12:extra_hw_frames=24");
        match backend {
            Software => filters.extend(fit.into_iter().chain(["format=yuv420p".to_owned()])),
            VaapiUpload => {
                filters.extend(fit);
                filters.push("format=nv12,hwupload_vaapi".to_owned());
            }
            Vaapi => filters.push(vaapi),
            VaapiDownload => filters.push(vaapi + ",hwmap=mode=read,format=nv12"),
            Qsv => filters.push(vaapi + ",hwmap=derive_device=qsv,format=qsv"),
            QsvDecoder => filters.push(format!("vpp_qsv={wh}format=nv12")),
            Nvenc => filters.push(format!("scale_cuda={wh}format=yuv420p")),
        }
        if let Some((text, _)) = self.rate {
            let late = self.interlaced.is_some() && !self.legacy;
            filters.insert(if late { filters.len() } else { 0 }, format!("fps={text}"));
        }
        filters.join(",")
    }

    fn audio(&self) -> String {
        let codec = match self.sound {
            Sound::None => return String::new(),
            Sound::Copy => "copy",
            Sound::Aac | Sound::AacVbr => "libfdk_aac",
            Sound::Mp3Average => "libmp3lame",
            Sound::Opus => "libopus -strict -2",
            Sound::External => "aac",
        };
        let rate = match self.sound {
            Sound::Copy => return format!("{}{codec}", self.audio_head()),
            Sound::AacVbr => " -vbr:a 5",
            Sound::Mp3Average => " -abr:a 1 -b:a 256000",
            _ => " -ab 256000",
        };
        let filter = if self.picture == Picture::None { "" } else { " -af \"volume=2\"" };
        format!("{}{codec} -ac 2{rate} -ar 48000{filter}", self.audio_head())
    }

    fn audio_head(&self) -> &'static str {
        if self.picture == Picture::None { "-vn -acodec " } else { "-codec:a:0 " }
    }

    /// The plan that this request must become.
    pub fn expected(&self) -> Transcode {
        let input = |extension: &str, format: Option<&str>| Input {
            path: format!("/media/{}{extension}", self.title).into(),
            format: format.map(str::to_owned),
            start_us: self.start.map(|start| start * self.seconds() * 1_000_000 + 250_000),
            accurate: !(self.legacy && self.fmp4 && self.start.is_some()),
        };
        let mut inputs = vec![input(".mkv", Some("matroska,webm"))];
        if self.sound == Sound::External {
            inputs.push(input(".de.ac3", None));
        }
        let copied = self.picture == Picture::Copy;
        let encoded = matches!(self.picture, Picture::Encode(_));
        Transcode {
            inputs,
            video: self.expected_video(),
            audio: self.expected_audio(),
            start_at_zero: copied || (encoded && self.subtitles),
            output: self.expected_output(),
        }
    }

    fn expected_video(&self) -> Option<Video> {
        let action = match self.picture {
            Picture::None => return None,
            Picture::Copy => VideoAction::Copy,
            Picture::Encode(backend) => VideoAction::Encode(self.expected_encode(backend)),
        };
        let source = StreamRef { input: 0, stream: StreamSelect::Index(0) };
        Some(Video { source, action, tag: self.hevc.then(|| "hvc1".to_owned()) })
    }

    fn expected_encode(&self, backend: Backend) -> VideoEncode {
        use Backend::{Nvenc, Qsv, QsvDecoder, Software, VaapiDownload, VaapiUpload};
        let software = matches!(backend, Software | VaapiDownload);
        let quick_sync = matches!(backend, Qsv | QsvDecoder);
        let vaapi = !software && !quick_sync && backend != Nvenc;
        let wide = quick_sync && !self.legacy;
        let own = |text: &str| text.to_owned();
        VideoEncode {
            codec: if self.hevc { VideoCodec::Hevc } else { VideoCodec::H264 },
            encoder: own(self.encoder(backend)),
            rate: RateControl {
                crf: software.then_some(23.0),
                bitrate: (!software).then_some(4_000_000),
                max_bitrate: Some(if wide { 4_000_001 } else { 4_000_000 }),
                buffer_bits: Some(if wide { 16_000_000 } else { 8_000_000 }),
                mode: vaapi.then(|| own("VBR")),
                low_power: self.has_low_power(),
                compression_level: None,
            },
            preset: match backend {
                Software | VaapiDownload => Some(own("veryfast")),
                Qsv | QsvDecoder => Some(own(if self.legacy { "7" } else { "veryfast" })),
                Nvenc => Some(own("p1")),
                _ => None,
            },
            profile: Some(own(if self.hevc { "main" } else { "high" })),
            level: self.has_level(backend).then_some(41),
            encoder_params: match self.encoder(backend) {
                "libx264" => pairs(&[
                    ("subme", "0"),
                    ("me_range", "16"),
                    ("rc_lookahead", "10"),
                    ("me", "hex"),
                    ("open_gop", "0"),
                ]),
                "libx265" => pairs(&[("no-scenecut", "1"), ("no-open-gop", "1"), ("no-info", "1")]),
                _ => Vec::new(),
            },
            keyframes: if quick_sync || backend == Nvenc {
                Keyframes::EveryFrames(72)
            } else {
                Keyframes::Every(3.0)
            },
            deinterlace: self
                .interlaced
                .map(|twice| Deinterlace { per_field: twice || backend == QsvDecoder }),
            scale: self.size.map(|(width, height)| match backend {
                Software | VaapiUpload => Scale::Fit { max_width: width, max_height: height },
                _ => Scale::Exact { width, height },
            }),
            frame_rate: self.rate.map(|(_, fraction)| fraction),
            colour: Some(ColourTags {
                primaries: own("bt709"),
                transfer: own("bt709"),
                matrix: own("bt709"),
            }),
            turn: Turn::AsMarked,
            tone_map: None,
        }
    }

    fn expected_audio(&self) -> Option<Audio> {
        let (codec, bitrate, quality) = match self.sound {
            Sound::None => return None,
            Sound::Copy | Sound::Aac | Sound::External => (AudioCodec::Aac, Some(256_000), None),
            Sound::AacVbr => (AudioCodec::Aac, None, Some(5.0)),
            Sound::Mp3Average => (AudioCodec::Mp3, Some(256_000), None),
            Sound::Opus => (AudioCodec::Opus, Some(256_000), None),
        };
        let source = match (self.picture, self.sound) {
            (Picture::None, _) => StreamRef { input: 0, stream: StreamSelect::Best },
            (_, Sound::External) => StreamRef { input: 1, stream: StreamSelect::Index(0) },
            _ => StreamRef { input: 0, stream: StreamSelect::Index(3) },
        };
        let encode = AudioEncode {
            codec,
            channels: Some(2),
            bitrate,
            quality,
            sample_rate: Some(48000),
            volume: (self.picture != Picture::None).then_some(2.0),
        };
        let copied = self.sound == Sound::Copy;
        let action = if copied { AudioAction::Copy } else { AudioAction::Encode(encode) };
        Some(Audio { source, action })
    }

    fn expected_output(&self) -> HlsOutput {
        let modern = !self.legacy && self.picture != Picture::None;
        HlsOutput {
            directory: "/cache/transcodes".into(),
            container: if self.fmp4 {
                let init = format!("{ID}-1.mp4");
                Container::Fmp4 { init, absolute: modern, skip_sidx: modern }
            } else {
                Container::MpegTs
            },
            segment_seconds: self.seconds() as f64,
            start_number: self.start.unwrap_or(0),
            segment_prefix: ID.to_owned(),
            segment_suffix: if self.fmp4 { ".mp4" } else { ".ts" }.to_owned(),
            playlist: format!("{ID}.m3u8"),
            playlist_type: if self.event { PlaylistType::Event } else { PlaylistType::Vod },
            base_url: if self.event { format!("hls/{ID}/") } else { String::new() },
            max_delay_us: 5_000_000,
        }
    }
}

fn pairs(params: &[(&str, &str)]) -> Vec<(String, String)> {
    params.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
