//! A plan for people: what becomes of picture, sound and output, or why ffmpeg gets the command.

use std::fmt::Write as _;

use crate::{
    AudioAction, AudioEncode, Container, Delivery, HlsOutput, Input, Keyframes, Location,
    MixedChannel, Output, Passthrough, PassthroughKind, PictureSubtitles, Plan, PlaylistType,
    RateControl, Scale, SourceChannel, StreamRef, StreamSelect, SubtitleFit, Subtitles,
    TextSubtitles, ToneCurve, ToneMap, Transcode, Turn, Video, VideoAction, VideoEncode,
};

impl Plan {
    /// The decision in a few lines of text, the last one ended.
    pub fn explain(&self) -> String {
        let mut lines = Lines::default();
        match self {
            Self::Transcode(transcode) => {
                lines.head("transcode: the gateway runs this command");
                transcode.explain(&mut lines);
            }
            Self::Passthrough(passthrough) => {
                lines.head("passthrough: the real ffmpeg gets this command, untouched");
                passthrough.explain(&mut lines);
            }
        }
        lines.text
    }
}

/// Lines of a label and a text, in columns.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn head(&mut self, text: &str) {
        self.text += text;
        self.text.push('\n');
    }

    fn line(&mut self, label: &str, text: impl AsRef<str>) {
        _ = writeln!(self.text, "  {label:<14}{}", text.as_ref());
    }
}

impl Passthrough {
    fn explain(&self, lines: &mut Lines) {
        lines.line("because of", &self.reason);
        lines.line(
            "that is",
            match self.kind {
                PassthroughKind::Probe => "a question about ffmpeg itself",
                PassthroughKind::NotATranscode => "another job than playing something",
                PassthroughKind::UnsupportedKind => {
                    "a way of playing that the gateway doesn't offer"
                }
                PassthroughKind::UnknownArgument => "nothing that is known to come from Jellyfin",
                PassthroughKind::UnsupportedInput => "an input that the gateway can't be handed",
                PassthroughKind::UnsupportedFeature => "understood, and not offered",
            },
        );
        lines.line("counted as", self.kind.as_str());
    }
}

impl Transcode {
    fn explain(&self, lines: &mut Lines) {
        for input in &self.inputs {
            lines.line("input", explain_input(input));
        }
        match &self.video {
            Some(video) => explain_video(video, lines),
            None => lines.line("picture", "none"),
        }
        match &self.audio {
            Some(audio) => {
                let what = match &audio.action {
                    AudioAction::Copy => "copied".to_owned(),
                    AudioAction::Encode(encode) => explain_audio(encode),
                };
                lines.line("sound", format!("{}: {what}", stream(audio.source)));
            }
            None => lines.line("sound", "none"),
        }
        match &self.output {
            Output::Hls(output) => explain_hls(output, lines),
            Output::Progressive(output) => {
                let path = self.output.path();
                lines.line("output", format!("{}, {}", output.format.name(), path.display()));
            }
        }
        if self.start_at_zero {
            lines.line("time", "from the file's first timestamp (-start_at_zero)");
        }
        if !self.source_times {
            lines.line("time", "from where the input begins (no -copyts)");
        }
    }
}

fn explain_hls(output: &HlsOutput, lines: &mut Lines) {
    let container = match &output.container {
        Container::MpegTs => "MPEG-TS".to_owned(),
        Container::Fmp4 { init, .. } => format!("fMP4 with {init}"),
    };
    lines.line(
        "output",
        format!(
            "{container}, {} in {}, {} s each",
            output.segment_name(output.start_number),
            output.directory.display(),
            output.segment_seconds
        ),
    );
    let when = match output.playlist_type {
        PlaylistType::Vod => "written at the end",
        PlaylistType::Event => "written with each segment",
    };
    let mut text = format!("{}, {when}", output.playlist);
    if !output.base_url.is_empty() {
        _ = write!(text, ", segments named {}...", output.base_url);
    }
    lines.line("playlist", text);
}

fn explain_input(input: &Input) -> String {
    let mut text = input.location.to_string();
    if let Location::Network(network) = &input.location {
        text.push_str(match network.delivery {
            Delivery::Bytes => ", fetched by the real ffmpeg byte for byte",
            Delivery::Remuxed => ", fetched by the real ffmpeg and put into MPEG-TS",
        });
        if !network.options.is_empty() {
            _ = write!(text, " with {}", network.options.join(" "));
        }
    }
    if let Some(start) = input.start_us {
        let seconds = start / 1_000_000;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let millis = start % 1_000_000 / 1000;
        _ = write!(text, ", from {hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60);
        if !input.accurate {
            text.push_str(" or the keyframe before it");
        }
    }
    if let Some(rate) = input.read_rate {
        _ = write!(text, ", at most {rate} times as fast as it plays");
    }
    text
}

fn stream(source: StreamRef) -> String {
    match source.stream {
        StreamSelect::Index(index) => format!("stream {}:{index}", source.input),
        StreamSelect::Best => format!("the best stream of input {}", source.input),
    }
}

fn explain_video(video: &Video, lines: &mut Lines) {
    let tag = video.tag.as_ref().map(|tag| format!(", tagged {tag}")).unwrap_or_default();
    let source = stream(video.source);
    match &video.action {
        VideoAction::Copy => lines.line("picture", format!("{source}: copied{tag}")),
        VideoAction::Encode(encode) => {
            let VideoEncode { codec, encoder, .. } = encode;
            let text = format!("{source}: encoded as {} ({encoder}){tag}", codec.name());
            lines.line("picture", text);
            explain_encode(encode, lines);
        }
    }
}

fn explain_encode(encode: &VideoEncode, lines: &mut Lines) {
    if let Some(deinterlace) = encode.deinterlace {
        let per = if deinterlace.per_field { "field" } else { "frame" };
        lines.line("deinterlaced", format!("to one picture per {per}"));
    }
    match encode.turn {
        Turn::AsMarked => {}
        Turn::Never => lines.line("turned", "not even if the file says so (-noautorotate)"),
        Turn::Clockwise => lines.line("turned", "a quarter clockwise"),
        Turn::CounterClockwise => lines.line("turned", "a quarter counterclockwise"),
        Turn::Half => lines.line("turned", "by half"),
    }
    match encode.scale {
        None => {}
        Some(Scale::Exact { width, height }) => lines.line("size", format!("{width}x{height}")),
        Some(Scale::Fit { max_width, max_height }) => {
            lines.line("size", format!("within {max_width}x{max_height}, never enlarged"));
        }
    }
    if let Some(map) = &encode.tone_map {
        lines.line("tone mapping", explain_tone_map(map));
    }
    match &encode.subtitles {
        None => {}
        Some(Subtitles::Text(text)) => lines.line("subtitles", explain_text(text)),
        Some(Subtitles::Pictures(pictures)) => {
            lines.line("subtitles", explain_pictures(pictures));
        }
    }
    if let Some((n, d)) = encode.frame_rate {
        lines.line("frame rate", format!("{n}/{d}"));
    }
    if let Some(colour) = &encode.colour {
        lines.line(
            "colour",
            format!("{}, {}, {}", colour.primaries, colour.transfer, colour.matrix),
        );
    }
    lines.line("rate", explain_rate(&encode.rate));
    let words = [
        encode.preset.as_ref().map(|preset| format!("preset {preset}")),
        encode.profile.as_ref().map(|profile| format!("profile {profile}")),
        encode.level.map(|level| format!("level {}.{}", level / 10, level % 10)),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if !words.is_empty() {
        lines.line("encoder", words.join(", "));
    }
    if !encode.encoder_params.is_empty() {
        let params: Vec<String> = encode
            .encoder_params
            .iter()
            .map(
                |(key, value)| {
                    if value.is_empty() { key.clone() } else { format!("{key}={value}") }
                },
            )
            .collect();
        lines.line("parameters", params.join(":"));
    }
    lines.line(
        "keyframes",
        match encode.keyframes {
            Keyframes::Every(seconds) => format!("every {seconds} s from the first frame"),
            Keyframes::EveryFrames(frames) => format!("every {frames} frames"),
        },
    );
}

fn explain_text(subtitles: &TextSubtitles) -> String {
    let TextSubtitles { path, stream, charset, fonts, shift_seconds } = subtitles;
    let mut text = format!("text of {}", path.display());
    if let Some(stream) = stream {
        _ = write!(text, ", its subtitle stream {stream}");
    }
    if let Some(charset) = charset {
        _ = write!(text, ", encoded in {charset}");
    }
    if let Some(fonts) = fonts {
        _ = write!(text, ", fonts in {}", fonts.display());
    }
    if *shift_seconds != 0.0 {
        _ = write!(text, ", {shift_seconds} s ahead of the picture's times");
    }
    text
}

fn explain_pictures(subtitles: &PictureSubtitles) -> String {
    let PictureSubtitles { source, canvas, fit, stretched } = subtitles;
    let mut text = format!("pictures of {}", stream(*source));
    if let Some((width, height)) = canvas {
        _ = write!(text, ", on a canvas of {width}x{height}");
    }
    match fit {
        None => {}
        Some(SubtitleFit::Exact { width, height }) => {
            _ = write!(text, ", scaled to {width}x{height}");
        }
        Some(SubtitleFit::Height { width, height }) => {
            _ = write!(text, ", scaled to a height of {height}, cut or filled up to {width}");
        }
    }
    if *stretched {
        text.push_str(", stretched over the picture");
    }
    text
}

fn explain_tone_map(map: &ToneMap) -> String {
    let ToneMap { from, curve, peak, desaturation, parameter, mode, brightness, contrast } = map;
    let curve = match curve {
        ToneCurve::Driver => "by the driver",
        ToneCurve::Bt2390 => "BT.2390",
        ToneCurve::Hable => "hable",
        ToneCurve::Reinhard => "reinhard",
        ToneCurve::Mobius => "mobius",
        ToneCurve::Gamma => "gamma",
        ToneCurve::Linear => "linear",
        ToneCurve::Clip => "clip",
        ToneCurve::None => "no curve",
    };
    let mut text = format!("{} to SDR, {curve}", from.name());
    let numbers = [
        ("peak", peak),
        ("desat", desaturation),
        ("param", parameter),
        ("brightness", brightness),
        ("contrast", contrast),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            _ = write!(text, ", {name} {value}");
        }
    }
    if let Some(mode) = mode {
        _ = write!(text, ", mode {mode}");
    }
    text
}

fn explain_rate(rate: &RateControl) -> String {
    let kbps = |rate: u64| format!("{} kbit/s", rate / 1000);
    let words = [
        rate.crf.map(|crf| format!("crf {crf}")),
        rate.bitrate.map(kbps),
        rate.max_bitrate.map(|rate| format!("at most {}", kbps(rate))),
        rate.buffer_bits.map(|bits| format!("buffer {} kbit", bits / 1000)),
        rate.mode.clone(),
        rate.low_power.then(|| "low power".to_owned()),
        rate.compression_level.map(|level| format!("compression level {level}")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn explain_audio(encode: &AudioEncode) -> String {
    let mut text = format!("encoded as {}", encode.summary());
    if let Some(rate) = encode.sample_rate {
        _ = write!(text, ", {rate} Hz");
    }
    if let Some(mix) = &encode.mix {
        let outputs: Vec<String> = mix.outputs.iter().map(explain_mixed).collect();
        _ = write!(text, ", mixed to {}: {}", mix.layout, outputs.join(" | "));
    }
    if let Some(volume) = encode.volume {
        _ = write!(text, ", volume times {volume}");
    }
    text
}

/// `0.707 of 4 and 0.5 of FC`.
fn explain_mixed(output: &MixedChannel) -> String {
    let gains = output.gains.iter().map(|(channel, gain)| {
        let gain = (gain * 1000.0).round() / 1000.0;
        match channel {
            SourceChannel::Number(number) => format!("{gain} of {number}"),
            SourceChannel::Name(name) => format!("{gain} of {name}"),
        }
    });
    let sum = gains.collect::<Vec<_>>().join(" and ");
    if output.normalised { format!("{sum}, together 1") } else { sum }
}
