//! The plan that a request must become.

use ffmpeg_args::{
    Audio, AudioAction, AudioCodec, AudioEncode, ColourTags, Container, Deinterlace, Delivery,
    FileFormat, HdrTransfer, HlsOutput, Input, Keyframes, Location, Mix, MixedChannel, Network,
    Output, PlaylistType, ProgressiveOutput, RateControl, Scale, SourceChannel, StreamRef,
    StreamSelect, ToneCurve, ToneMap, Transcode, Turn, Video, VideoAction, VideoCodec, VideoEncode,
};

use crate::command::{CAMERA, CHANNEL, TUNER};
use crate::recipe::{Backend, ID, Origin, Picture, Recipe, Sound, Tone, Version, Written};

impl Recipe {
    /// The plan that this request must become.
    pub fn expected(&self) -> Transcode {
        let input = |location: Location, format: Option<&str>| Input {
            location,
            read_rate: None,
            format: format.map(str::to_owned),
            start_us: self.start.map(|start| start * self.seconds() * 1_000_000 + 250_000),
            accurate: !self.seeks_inexactly(),
        };
        let file =
            |extension: &str| Location::File(format!("/media/{}{extension}", self.title).into());
        let alone = self.picture == Picture::None && self.is_file();
        let named = |format: &'static str| (!alone).then_some(format);
        let film = match self.origin {
            Origin::File => input(file(".mkv"), named("matroska,webm")),
            Origin::Disc => {
                let part = |part: u8| format!("/media/{}{part}.vob", self.title).into();
                input(Location::Files(vec![part(1), part(2)]), named("matroska,webm"))
            }
            Origin::Tuner => input(
                network(
                    TUNER,
                    "-stream_loop -1 -reconnect_at_eof 1 -reconnect_streamed 1 \
                     -reconnect_delay_max 2",
                    Delivery::Bytes,
                ),
                Some("mpegts"),
            ),
            Origin::Playlist => input(
                network(
                    CHANNEL,
                    "-user_agent Mozilla/5.0_(X11) -referer https://host/",
                    Delivery::Remuxed,
                ),
                Some("hls"),
            ),
            Origin::Camera => input(
                network(
                    CAMERA,
                    "-rtsp_transport tcp+udp -rtsp_flags prefer_tcp",
                    Delivery::Remuxed,
                ),
                None,
            ),
        };
        let native = self.origin == Origin::Tuner;
        let pace = self.paced.then_some(if native { 1.0 } else { 10.0 });
        let mut inputs = vec![Input { read_rate: pace, ..film }];
        if self.plane_input() {
            inputs.push(input(file(".sup"), None));
        }
        if self.sound == Sound::External {
            inputs.push(input(file(".de.ac3"), None));
        }
        let copied = self.picture == Picture::Copy;
        let encoded = matches!(self.picture, Picture::Encode(_));
        Transcode {
            inputs,
            video: self.expected_video(),
            audio: self.expected_audio(),
            start_at_zero: match self.is_file() {
                true => self.copy_times && !self.plane_input(),
                false => copied || (encoded && self.subtitles && !self.plane_input()),
            },
            source_times: self.copy_times,
            output: match self.written {
                Written::Segments => Output::Hls(self.expected_output()),
                Written::File(extension) => Output::Progressive(ProgressiveOutput {
                    directory: "/cache/transcodes".into(),
                    name: format!("{ID}.{extension}"),
                    format: match extension {
                        "mp4" | "m4a" => FileFormat::FragmentedMp4,
                        "ts" => FileFormat::MpegTs,
                        "mkv" | "mka" => FileFormat::Matroska,
                        "webm" => FileFormat::WebM,
                        "mp3" => FileFormat::Mp3,
                        "aac" => FileFormat::Adts,
                        "flac" => FileFormat::Flac,
                        _ => FileFormat::Ogg,
                    },
                }),
            },
        }
    }

    fn expected_video(&self) -> Option<Video> {
        let action = match self.picture {
            Picture::None => return None,
            Picture::Copy => VideoAction::Copy,
            Picture::Encode(backend) => VideoAction::Encode(self.expected_encode(backend)),
        };
        let stream = if self.is_mapped() { StreamSelect::Index(0) } else { StreamSelect::Best };
        let tagged = self.hevc && !self.is_file();
        let source = StreamRef { input: 0, stream };
        Some(Video { source, action, tag: tagged.then(|| "hvc1".to_owned()) })
    }

    fn expected_encode(&self, backend: Backend) -> VideoEncode {
        let software = backend.encodes_in_software();
        let quick_sync = backend.is_quick_sync();
        let wide = quick_sync && self.version >= Version::V10_11;
        let own = |text: &str| text.to_owned();
        VideoEncode {
            subtitles: self.expected_subtitles(backend),
            codec: if self.hevc { VideoCodec::Hevc } else { VideoCodec::H264 },
            encoder: own(self.encoder(backend)),
            rate: RateControl {
                crf: software.then_some(23.0),
                bitrate: (!software).then_some(4_000_000),
                max_bitrate: Some(if wide { 4_000_001 } else { 4_000_000 }),
                buffer_bits: Some(if wide { 16_000_000 } else { 8_000_000 }),
                mode: match backend {
                    Backend::I965 => Some(own("CBR")),
                    _ => backend.is_vaapi().then(|| own("VBR")),
                },
                low_power: self.has_low_power(),
                compression_level: None,
            },
            preset: match backend {
                _ if software => Some(own("veryfast")),
                _ if quick_sync && self.version == Version::V10_8 => Some(own("7")),
                _ if quick_sync => Some(own("veryfast")),
                _ => backend.is_nvenc().then(|| own("p1")),
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
            keyframes: if self.is_file() {
                Keyframes::Every(5.0)
            } else if quick_sync || backend.is_nvenc() {
                Keyframes::EveryFrames(72)
            } else {
                Keyframes::Every(3.0)
            },
            deinterlace: self
                .interlaced
                .map(|twice| Deinterlace { per_field: twice || backend == Backend::QsvDecoder }),
            scale: self.size.map(|(width, height)| {
                if backend.decodes() || self.version == Version::V10_7 {
                    Scale::Exact { width, height }
                } else {
                    Scale::Fit { max_width: width, max_height: height }
                }
            }),
            frame_rate: self.rate.map(|(_, fraction)| fraction),
            colour: (self.version != Version::V10_7).then(|| ColourTags {
                primaries: own("bt709"),
                transfer: own("bt709"),
                matrix: own("bt709"),
            }),
            turn: self.expected_turn(backend),
            tone_map: self.tone.as_ref().map(|tone| self.expected_tone_map(backend, tone)),
        }
    }

    fn expected_turn(&self, backend: Backend) -> Turn {
        let old = matches!(self.version, Version::V10_8 | Version::V10_9);
        match self.turn {
            Some("clock") => Turn::Clockwise,
            Some("cclock") => Turn::CounterClockwise,
            Some(_) => Turn::Half,
            None if self.version == Version::V10_7 => Turn::AsMarked,
            None if backend.decodes() || (old && backend != Backend::Software) => Turn::Never,
            None => Turn::AsMarked,
        }
    }

    fn expected_tone_map(&self, backend: Backend, tone: &Tone) -> ToneMap {
        let number = |text: &str| text.parse::<f64>().expect("a number");
        let from = if tone.hlg { HdrTransfer::Hlg } else { HdrTransfer::Pq };
        let mut map = ToneMap::new(from, ToneCurve::Driver);
        if self.maps_by_driver(backend).is_some() {
            let always = matches!(self.version, Version::V10_8 | Version::V10_9);
            map.brightness =
                Some(number(tone.brightness)).filter(|brightness| always || *brightness != 0.0);
            map.contrast = tone.contrast.map(number).or(always.then_some(1.0));
            return map;
        }
        map.curve = match tone.curve {
            "none" if backend == Backend::AmdVulkan => ToneCurve::Clip,
            "none" => ToneCurve::None,
            "clip" => ToneCurve::Clip,
            "linear" => ToneCurve::Linear,
            "gamma" => ToneCurve::Gamma,
            "reinhard" => ToneCurve::Reinhard,
            "hable" => ToneCurve::Hable,
            "mobius" => ToneCurve::Mobius,
            _ => ToneCurve::Bt2390,
        };
        if backend != Backend::AmdVulkan {
            (map.peak, map.desaturation) = (Some(100.0), Some(0.0));
            map.parameter = tone.parameter.map(number);
            let software = matches!(backend, Backend::Software | Backend::VaapiLegacy);
            map.mode = tone.mode.filter(|_| !software).map(str::to_owned);
        }
        map
    }

    fn expected_audio(&self) -> Option<Audio> {
        let (codec, bitrate, quality) = match self.sound {
            Sound::None => return None,
            Sound::Copy | Sound::Aac | Sound::External => (AudioCodec::Aac, Some(256_000), None),
            Sound::AacVbr => (AudioCodec::Aac, None, Some(5.0)),
            Sound::Mp3Average => (AudioCodec::Mp3, Some(256_000), None),
            Sound::Opus => (AudioCodec::Opus, Some(256_000), None),
            Sound::Vorbis => (AudioCodec::Vorbis, None, Some(6.0)),
        };
        let source = match (self.is_mapped(), self.sound) {
            (false, _) => StreamRef { input: 0, stream: StreamSelect::Best },
            (_, Sound::External) => StreamRef {
                input: if self.plane_input() { 2 } else { 1 },
                stream: StreamSelect::Index(0),
            },
            _ => StreamRef { input: 0, stream: StreamSelect::Index(3) },
        };
        let encode = AudioEncode {
            codec,
            channels: self.formula.is_none().then_some(2),
            bitrate,
            quality,
            sample_rate: Some(48000),
            mix: self.formula.map(|(_, layout, outputs)| Mix {
                layout: (*layout).to_owned(),
                outputs: outputs.iter().map(|gains| mixed(gains)).collect(),
            }),
            volume: (self.picture != Picture::None).then_some(2.0),
        };
        let copied = self.sound == Sound::Copy;
        let action = if copied { AudioAction::Copy } else { AudioAction::Encode(encode) };
        Some(Audio { source, action })
    }

    fn expected_output(&self) -> HlsOutput {
        let since = |version| self.picture != Picture::None && self.version >= version;
        HlsOutput {
            directory: "/cache/transcodes".into(),
            container: if self.fmp4 {
                let init = format!("{ID}-1.mp4");
                Container::Fmp4 {
                    init,
                    absolute: since(Version::V10_11),
                    skip_sidx: since(Version::V12),
                }
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

fn mixed(gains: &[(u32, f64)]) -> MixedChannel {
    let gains = gains.iter().map(|(channel, gain)| (SourceChannel::Number(*channel), *gain));
    MixedChannel { gains: gains.collect(), normalised: false }
}

/// Underscores stand for blanks within a value.
fn network(url: &str, options: &str, delivery: Delivery) -> Location {
    let words = options.split(' ').filter(|word| !word.is_empty());
    let word = |word: &str| match word.starts_with('-') {
        true => word.to_owned(),
        false if word.contains('(') => word.replace('_', " "),
        false => word.to_owned(),
    };
    Location::Network(Network { url: url.to_owned(), options: words.map(word).collect(), delivery })
}

fn pairs(params: &[(&str, &str)]) -> Vec<(String, String)> {
    params.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
