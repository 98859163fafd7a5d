//! A request as the command that Jellyfin writes for it (contract 2.1 to 2.3).

use std::ffi::OsString;

use ffmpeg_args::split_command_line;

use crate::recipe::{Backend, ID, Picture, Recipe, Sound, Version};

impl Recipe {
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

    fn seek(&self) -> String {
        let Some(start) = self.start else { return String::new() };
        let seconds = start * self.seconds();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let exact = if self.seeks_inexactly() { " -noaccurate_seek" } else { "" };
        format!("-ss {hours:02}:{minutes:02}:{:02}.250{exact}", seconds % 60)
    }

    fn modifier(&self) -> String {
        let size = match self.version {
            Version::V10_7 => "",
            Version::V10_8 => "-analyzeduration 200M",
            _ => "-analyzeduration 200M -probesize 1G",
        };
        let flags = if self.picture == Picture::Copy { " -fflags +genpts" } else { "" };
        format!("{size} {}{flags} -f matroska,webm", self.seek())
    }

    fn inputs(&self) -> String {
        let Picture::Encode(backend) = self.picture else { return self.files() };
        if self.version == Version::V10_7 {
            let device = "-vaapi_device /dev/dri/renderD128";
            return match backend {
                Backend::Software => self.files(),
                _ => {
                    format!("-hwaccel vaapi -hwaccel_output_format vaapi {device} {}", self.files())
                }
            };
        }
        let device = self.device(backend);
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
            "-codec:v:0 {}{tag}{}{}{rate}{}{}{}{} -vf \"{}\"{subtitles}{}",
            self.encoder(backend),
            if self.has_low_power() { " -low_power 1" } else { "" },
            self.rate_control(backend),
            self.profile(backend),
            self.params(backend),
            self.keyframe_rule(backend),
            self.time_base(),
            self.chain(backend),
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
}
