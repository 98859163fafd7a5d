//! A request as the command that Jellyfin writes for it (contract 2.1 to 2.3).

use std::ffi::OsString;

use ffmpeg_args::split_command_line;

use crate::recipe::{Backend, Burn, ID, Origin, Picture, Recipe, Sound, Version, Written};

pub const TUNER: &str = "http://192.0.2.3:8096/LiveTv/LiveStreamFiles/0f0d/stream.ts";
pub const CHANNEL: &str = "https://cdn.example.org/v1/channel/playlist.m3u8?token=1";
pub const CAMERA: &str = "rtsp://192.0.2.4/stream1";

impl Recipe {
    pub fn argv(&self) -> Vec<OsString> {
        split_command_line(&self.command()).into_iter().map(OsString::from).collect()
    }

    /// The string as Jellyfin writes it, gaps of empty pieces included.
    pub fn command(&self) -> String {
        match (self.written, self.picture) {
            (Written::Segments, _) => self.segments(),
            (Written::File(extension), Picture::None) => self.music(extension),
            (Written::File(extension), _) => self.film(extension),
        }
    }

    fn segments(&self) -> String {
        let extension = if self.fmp4 { "mp4" } else { "ts" };
        let container = if self.fmp4 {
            format!("fmp4 -hls_fmp4_init_filename \"{ID}-1.mp4\"")
        } else {
            "mpegts".to_owned()
        };
        let base = if self.event { format!(" -hls_base_url \"hls/{ID}/\"") } else { String::new() };
        let playlist = if self.event { "event" } else { "vod" };
        let options = match self.version {
            _ if !self.fmp4 || self.picture == Picture::None => "",
            Version::V12 => " -hls_segment_options movflags=+frag_discont+skip_sidx",
            Version::V10_11 => " -hls_segment_options movflags=+frag_discont",
            _ => "",
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

    fn film(&self, extension: &str) -> String {
        let format = match extension {
            "mp4" => " -f mp4 -movflags frag_keyframe+empty_moov+delay_moov",
            _ => "",
        };
        format!(
            "{} {} {} {} -map_metadata -1 -map_chapters -1 -threads 0 {}{format} \
             -y \"/cache/transcodes/{ID}.{extension}\"",
            self.modifier(),
            self.inputs(),
            self.maps(),
            self.film_video(extension),
            self.audio(),
        )
    }

    fn film_video(&self, extension: &str) -> String {
        let (cancelled, filters) = self.filters();
        let zero = if self.plane_input() { "" } else { " -start_at_zero" };
        let times = match self.copy_times {
            true => format!(" -copyts -avoid_negative_ts disabled{zero}"),
            false => String::new(),
        };
        let Picture::Encode(backend) = self.picture else {
            let codec = if self.hevc { "hevc" } else { "h264" };
            let framing = match extension {
                "ts" => format!(" -bsf:v {codec}_mp4toannexb"),
                _ => String::new(),
            };
            let flags = if self.copy_times { "" } else { " -fflags +genpts" };
            return format!("-codec:v:0 copy{framing}{times}{flags}");
        };
        let rate = self.rate.map(|(text, _)| format!(" -r {text}")).unwrap_or_default();
        format!(
            "{cancelled}-codec:v:0 {} -force_key_frames \"expr:gte(t,n_forced*5)\"{filters}{times}\
             {}{}{rate}{}{}",
            self.encoder(backend),
            if self.has_low_power() { " -low_power 1" } else { "" },
            self.rate_control(backend),
            self.profile(backend),
            self.params(backend),
        )
    }

    fn music(&self, extension: &str) -> String {
        let codec = self.audio_encoder();
        let rate = match self.sound {
            Sound::Copy => " -ab 256000",
            _ => self.audio_rate(),
        };
        let flags = if extension == "m4a" { " -movflags empty_moov+delay_moov" } else { "" };
        format!(
            "{} {} -threads 0 -vn{rate} -ac 2 -acodec {codec} -ar 48000{flags} -id3v2_version 3 \
             -write_id3v1 1 -y \"/cache/transcodes/{ID}.{extension}\"",
            self.modifier(),
            self.files(),
        )
    }

    fn seek(&self) -> String {
        let Some(time) = self.seek_time() else { return String::new() };
        let exact = if self.seeks_inexactly() { " -noaccurate_seek" } else { "" };
        format!("-ss {time}{exact}")
    }

    fn modifier(&self) -> String {
        let size = match self.version {
            Version::V10_7 => "",
            Version::V10_8 => "-analyzeduration 200M",
            _ => "-analyzeduration 200M -probesize 1G",
        };
        let agent = match self.origin {
            Origin::Playlist => " -user_agent \"Mozilla/5.0 (X11)\" -referer \"https://host/\"",
            Origin::Camera => " -rtsp_transport tcp+udp -rtsp_flags prefer_tcp",
            _ => "",
        };
        let catchup = |rate| match self.version {
            Version::V12 => format!(" -readrate_catchup {rate}"),
            _ => String::new(),
        };
        let pace = match (self.paced, self.origin) {
            (false, _) => String::new(),
            (true, Origin::Tuner) => format!(" -re{}", catchup(100)),
            (true, _) => format!(" -readrate 10{}", catchup(1000)),
        };
        let flags = match (self.picture, self.origin.is_network()) {
            (_, true) => " -fflags +igndts+genpts",
            (Picture::Copy, _) => " -fflags +genpts",
            _ => "",
        };
        let format = match self.origin {
            _ if self.picture == Picture::None && self.is_file() => "",
            Origin::File | Origin::Disc => " -f matroska,webm",
            Origin::Tuner => " -f mpegts",
            Origin::Playlist => " -f hls",
            Origin::Camera => "",
        };
        let again = match self.origin {
            Origin::Tuner => {
                " -stream_loop -1 -reconnect_at_eof 1 -reconnect_streamed 1 -reconnect_delay_max 2"
            }
            _ => "",
        };
        format!("{size}{agent} {}{pace}{flags}{format}{again}", self.seek())
    }

    fn inputs(&self) -> String {
        let Picture::Encode(backend) = self.picture else { return self.files() };
        if self.version == Version::V10_7 {
            // Text alone is drawn, which needs no canvas.
            let device = "-vaapi_device /dev/dri/renderD128";
            return match backend {
                Backend::Software => self.files(),
                _ => {
                    format!("-hwaccel vaapi -hwaccel_output_format vaapi {device} {}", self.files())
                }
            };
        }
        let device = format!("{}{}", self.device(backend), self.canvas());
        // Up to 10.9 whatever touches a GPU is never turned.
        let gpu = backend != Backend::Software;
        let rotate = match self.version {
            Version::V10_8 if gpu => " -autorotate 0",
            Version::V10_9 if gpu => " -noautorotate",
            Version::V10_8 | Version::V10_9 => "",
            _ if self.turn.is_some() => " -noautorotate -display_rotation 0",
            _ if backend.decodes() => " -noautorotate",
            _ => "",
        };
        let scaled = match self.version {
            _ if !backend.decodes() => "",
            Version::V10_8 => " -autoscale 0",
            _ => " -noautoscale",
        };
        format!("{device}{rotate} {}{scaled}", self.files())
    }

    fn device(&self, backend: Backend) -> String {
        let va = "-init_hw_device vaapi=va:/dev/dri/renderD128";
        let ocl = "-init_hw_device opencl=ocl@va -filter_hw_device ocl";
        let qs = "-init_hw_device qsv=qs@va -filter_hw_device qs";
        let surface = "-hwaccel vaapi -hwaccel_output_format vaapi";
        let cuda = "-init_hw_device cuda=cu:0 -filter_hw_device cu";
        match backend {
            Backend::Software => String::new(),
            Backend::Vaapi | Backend::VaapiDownload => format!("{va},driver=iHD {surface}"),
            Backend::VaapiUpload if self.tone.is_some() => format!("{va},driver=iHD {ocl}"),
            Backend::VaapiUpload => format!("{va},driver=iHD"),
            Backend::I965 => format!("{va},driver=i965 {ocl} {surface}"),
            Backend::AmdLegacy => format!(
                "{va} -filter_hw_device va -init_hw_device \
                 opencl=ocl:.0,device_vendor=\"Advanced Micro Devices\" -filter_hw_device ocl {surface}"
            ),
            Backend::AmdVulkan => format!(
                "-init_hw_device drm=dr:/dev/dri/renderD128 -init_hw_device vaapi=va@dr \
                 -init_hw_device vulkan=vk@dr -filter_hw_device vk {surface}"
            ),
            Backend::VaapiLegacy => format!("{va} -hwaccel vaapi"),
            Backend::Qsv => format!("{va},driver=iHD {qs} {surface}"),
            Backend::QsvDecoder => format!(
                "{va},driver=iHD {qs} -hwaccel qsv -hwaccel_output_format qsv -c:v h264_qsv"
            ),
            Backend::QsvUpload => format!("{va},driver=iHD {qs}"),
            Backend::Nvenc => format!(
                "{cuda} -hwaccel cuda -hwaccel_output_format cuda -hwaccel_flags +unsafe_output \
                 -threads 1"
            ),
            Backend::NvencUpload => cuda.to_owned(),
        }
    }

    fn canvas(&self) -> String {
        let (width, height) = self.canvas_size();
        match self.burn {
            Some(Burn::Pictures { canvas: true, .. }) => format!(" -canvas_size {width}x{height}"),
            _ => String::new(),
        }
    }

    fn files(&self) -> String {
        let title = &self.title;
        let film = match self.origin {
            Origin::File => format!("file:\"/media/{title}.mkv\""),
            Origin::Disc => format!("concat:\"/media/{title}1.vob|/media/{title}2.vob\""),
            Origin::Tuner => format!("\"{TUNER}\""),
            Origin::Playlist => format!("\"{CHANNEL}\""),
            Origin::Camera => format!("\"{CAMERA}\""),
        };
        let plane = match self.plane_input() {
            true => format!(
                " -analyzeduration 200M {}{} -i file:\"/media/{title}.sup\"",
                self.seek(),
                self.canvas()
            ),
            false => String::new(),
        };
        let sound = match self.sound {
            Sound::External => format!(" {} -i \"/media/{title}.de.ac3\"", self.seek()),
            _ => String::new(),
        };
        format!("-i {film}{plane}{sound}")
    }

    fn maps(&self) -> String {
        if self.picture == Picture::None {
            return String::new();
        }
        if !self.is_mapped() {
            return "-sn".to_owned();
        }
        let sound = match (self.sound, self.plane_input()) {
            (Sound::None, _) => "-map -0:a",
            (Sound::External, false) => "-map 1:0",
            (Sound::External, true) => "-map 2:0",
            _ => "-map 0:3",
        };
        let subtitles = match self.burn {
            None => " -map -0:s",
            Some(Burn::Pictures { external: true, .. }) => " -map 1:0 -sn",
            Some(_) => "",
        };
        format!("-map 0:0 {sound}{subtitles}")
    }

    /// Filters, and the map that a graph of them cancels.
    fn filters(&self) -> (&'static str, String) {
        let Picture::Encode(backend) = self.picture else { return ("", String::new()) };
        let chain = self.chain(backend);
        match self.plane(backend) {
            None => ("", format!(" -vf \"{chain}\"")),
            Some((plane, overlay)) => {
                let graph = format!("{plane}[sub];[0:0]{chain}[main];[main][sub]{overlay}");
                ("-map -0:0 ", format!(" -filter_complex \"{graph}\""))
            }
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
        let zero = self.subtitles && !self.plane_input();
        let (cancelled, filters) = self.filters();
        format!(
            "{cancelled}-codec:v:0 {}{tag}{}{}{rate}{}{}{}{}{filters}{}{}",
            self.encoder(backend),
            if self.has_low_power() { " -low_power 1" } else { "" },
            self.rate_control(backend),
            self.profile(backend),
            self.params(backend),
            self.keyframe_rule(backend),
            self.time_base(),
            if zero { " -start_at_zero" } else { "" },
            self.event_flags(),
        )
    }

    fn event_flags(&self) -> &'static str {
        if self.event && !self.fmp4 { " -flags -global_header" } else { "" }
    }

    fn time_base(&self) -> &'static str {
        if self.version == Version::V10_7 { " -vsync -1" } else { "" }
    }

    fn rate_control(&self, backend: Backend) -> &'static str {
        match backend {
            _ if backend.encodes_in_software() => {
                " -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000"
            }
            Backend::I965 => " -rc_mode CBR -b:v 4000000 -maxrate 4000000 -bufsize 8000000",
            _ if backend.is_vaapi() => {
                " -rc_mode VBR -b:v 4000000 -maxrate 4000000 -bufsize 8000000"
            }
            _ if backend.is_nvenc() => " -preset p1 -b:v 4000000 -maxrate 4000000 -bufsize 8000000",
            _ if self.version == Version::V10_8 => {
                " -preset 7 -look_ahead 0 -b:v 4000000 -maxrate 4000000 -bufsize 8000000"
            }
            _ if self.version < Version::V10_11 => {
                " -preset veryfast -b:v 4000000 -maxrate 4000000 -bufsize 8000000"
            }
            _ => {
                " -preset veryfast -mbbrc 1 -b:v 4000000 -maxrate 4000001 \
                 -rc_init_occupancy 8000000 -bufsize 16000000"
            }
        }
    }

    /// Profile and level; encoders that take no level are given none.
    fn profile(&self, backend: Backend) -> String {
        let profile = if self.hevc { "main" } else { "high" };
        let level = match self.has_level(backend) {
            false => "",
            true if self.hevc && backend.is_vaapi() => " -level 123",
            true => " -level 41",
        };
        format!(" -profile:v:0 {profile}{level}")
    }

    fn params(&self, backend: Backend) -> &'static str {
        match self.encoder(backend) {
            "libx264" => " -x264opts:0 subme=0:me_range=16:rc_lookahead=10:me=hex:open_gop=0",
            "libx265" => " -x265-params:0 no-scenecut=1:no-open-gop=1:no-info=1",
            "h264_vaapi" | "hevc_vaapi" if self.version >= Version::V10_9 => " -sei -a53_cc",
            _ => "",
        }
    }

    fn keyframe_rule(&self, backend: Backend) -> String {
        if backend.is_quick_sync() || backend.is_nvenc() {
            return " -g:v:0 72 -keyint_min:v:0 72".to_owned();
        }
        let from = match self.version {
            Version::V10_7 | Version::V10_8 => format!("{}+", self.start.unwrap_or(0) * 3),
            _ => String::new(),
        };
        let more = match self.version {
            Version::V10_7 => " -g:v:0 72 -keyint_min:v:0 72 -sc_threshold:v:0 0",
            _ if self.encoder(backend) == "libx264" => " -sc_threshold:v:0 0",
            _ => "",
        };
        format!(" -force_key_frames:0 \"expr:gte(t,{from}n_forced*3)\"{more}")
    }

    fn audio(&self) -> String {
        let codec = match self.sound {
            Sound::None => return String::new(),
            _ => self.audio_encoder(),
        };
        let head = if self.picture == Picture::None { "-vn -acodec " } else { "-codec:a:0 " };
        if self.sound == Sound::Copy {
            return format!("{head}{codec}");
        }
        // A formula says how many channels there are.
        let channels = if self.formula.is_some() { "" } else { " -ac 2" };
        let formula = self.formula.map(|(text, ..)| format!("{text},")).unwrap_or_default();
        let shift =
            self.shift().map(|seconds| format!(",asetpts=PTS-{seconds}/TB")).unwrap_or_default();
        let filter = match self.picture {
            Picture::None => String::new(),
            _ => format!(" -af \"{formula}volume=2{shift}\""),
        };
        format!("{head}{codec}{channels}{} -ar 48000{filter}", self.audio_rate())
    }

    fn audio_encoder(&self) -> &'static str {
        match self.sound {
            Sound::None | Sound::Copy => "copy",
            Sound::Aac | Sound::AacVbr => "libfdk_aac",
            Sound::Mp3Average => "libmp3lame",
            Sound::Opus => "libopus -strict -2",
            Sound::Vorbis => "libvorbis",
            Sound::External => "aac",
        }
    }

    fn audio_rate(&self) -> &'static str {
        match self.sound {
            Sound::AacVbr => " -vbr:a 5",
            Sound::Mp3Average => " -abr:a 1 -b:a 256000",
            Sound::Vorbis => " -qscale:a 6",
            _ => " -ab 256000",
        }
    }
}
