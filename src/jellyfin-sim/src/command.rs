//! The command lines that Jellyfin issues for one play session (contract 2.1).
//!
//! All restarts of a session share everything but `-ss` and `-start_number`. The built-in kinds
//! follow Jellyfin 10.11; a line out of a log can stand in their place.

use std::path::{Path, PathBuf};

use ffmpeg_args::split_command_line;

/// Jellyfin never seeks closer to the end than this (contract 2.1.1, 10.11).
const SEEK_MARGIN_SECONDS: f64 = 5.0;

/// Which template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Software decode and encode.
    Software,
    /// VA-API decode and encode, Intel iHD.
    Vaapi,
}

/// What segments are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// `.ts`
    Ts,
    /// `.mp4` and an init file
    Fmp4,
}

impl Container {
    /// Extension of the segments, with the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Ts => ".ts",
            Self::Fmp4 => ".mp4",
        }
    }
}

/// What a built-in command is made from.
#[derive(Debug, Clone)]
pub struct Template {
    /// Which.
    pub kind: Kind,
    /// Segments.
    pub container: Container,
    /// The media file.
    pub input: PathBuf,
    /// The transcode directory.
    pub directory: PathBuf,
    /// What file names begin with; 32 hex digits in Jellyfin.
    pub id: String,
    /// `-hls_time`.
    pub segment_seconds: u32,
    /// Video encoder instead of the kind's own.
    pub encoder: Option<String>,
    /// Bits per second.
    pub video_bitrate: u64,
    /// Height of the box that the picture must fit in, 16:9.
    pub height: u32,
    /// Keyframes by `-g` for this frame rate, as for encoders that know no expression.
    pub keyframes_fps: Option<f64>,
    /// Index of the video stream in the file.
    pub video_stream: u32,
    /// Index of the audio stream in the file, if sound is wanted.
    pub audio_stream: Option<u32>,
    /// Audio encoder; `copy` copies.
    pub audio_encoder: String,
    /// The container's name by ffprobe, passed as `-f` with hardware.
    pub format: Option<String>,
}

/// A session's command, ready but for where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<String>,
    /// The transcode directory.
    pub directory: PathBuf,
    /// What file names begin with.
    pub id: String,
    /// Extension of the segments, with the dot.
    pub extension: String,
    /// `-hls_time` in milliseconds.
    pub segment_ms: u64,
    /// Whether there is an init file.
    pub has_init: bool,
    /// The first `-i`, without `file:`.
    pub input: PathBuf,
}

/// Why a line is not a session's command.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// An option that every HLS command has.
    #[error("expected {0} in the command")]
    Missing(&'static str),
    /// A value that can't be understood.
    #[error("expected {expected} behind {option}, got {value:?}")]
    Value {
        /// The option.
        option: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// What stood there.
        value: String,
    },
}

impl Template {
    /// The command string as Jellyfin would log it, without the executable, starting at zero.
    pub fn line(&self) -> String {
        let extension = self.container.extension();
        let Self { id, segment_seconds: seconds, .. } = self;
        let directory = self.directory.display();
        let hardware = match self.kind {
            Kind::Software => String::new(),
            Kind::Vaapi => format!(
                "{}-init_hw_device vaapi=va:/dev/dri/renderD128,driver=iHD -hwaccel vaapi \
                 -hwaccel_output_format vaapi -noautorotate",
                self.format.as_ref().map(|name| format!("-f {name} ")).unwrap_or_default(),
            ),
        };
        let behind_inputs = if self.kind == Kind::Vaapi { "-noautoscale " } else { "" };
        let sound_map = self.audio_stream.map(|index| format!(" -map 0:{index}"));
        let segments = match self.container {
            Container::Ts => "mpegts".to_owned(),
            Container::Fmp4 => format!(r#"fmp4 -hls_fmp4_init_filename "{id}-1.mp4""#),
        };
        let options = match self.container {
            Container::Ts => "",
            Container::Fmp4 => " -hls_segment_options movflags=+frag_discont",
        };
        format!(
            r#"-analyzeduration 200M -probesize 1G {hardware} -i file:"{input}" {behind_inputs}-map_metadata -1 -map_chapters -1 -threads 0 -map 0:{video}{sound_map} -map -0:s {video_arguments}{sound} -copyts -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time {seconds} -hls_segment_type {segments} -start_number 0 -hls_segment_filename "{directory}/{id}%d{extension}" -hls_playlist_type vod -hls_list_size 0{options} -y "{directory}/{id}.m3u8""#,
            input = self.input.display(),
            video = self.video_stream,
            sound_map = sound_map.unwrap_or_default(),
            video_arguments = self.video(),
            sound = self.sound(),
        )
    }

    fn video(&self) -> String {
        let encoder = self.encoder.as_deref().unwrap_or(match self.kind {
            Kind::Software => "libx264",
            Kind::Vaapi => "h264_vaapi",
        });
        let rate = self.video_bitrate;
        let twice = rate * 2;
        let quality = match self.kind {
            Kind::Software => format!(
                "-preset veryfast -crf 23 -maxrate {rate} -bufsize {twice} -profile:v:0 high \
                 -level 51 -x264opts:0 subme=0:me_range=16:rc_lookahead=10:me=hex:open_gop=0"
            ),
            Kind::Vaapi => format!(
                "-rc_mode VBR -b:v {rate} -maxrate {rate} -bufsize {twice} -profile:v:0 high \
                 -level 51 -sei -a53_cc"
            ),
        };
        let seconds = self.segment_seconds;
        let keyframes = match self.keyframes_fps {
            Some(fps) => {
                let frames = (f64::from(seconds) * fps).ceil();
                format!("-g:v:0 {frames} -keyint_min:v:0 {frames}")
            }
            None => {
                let forced = format!(r#"-force_key_frames:0 "expr:gte(t,n_forced*{seconds})""#);
                let scenes = if self.kind == Kind::Software { " -sc_threshold:v:0 0" } else { "" };
                forced + scenes
            }
        };
        let (height, width) = (self.height, self.height * 16 / 9 / 2 * 2);
        let scale = match self.kind {
            Kind::Software => format!(
                r"scale=trunc(min(max(iw\,ih*a)\,min({width}\,{height}*a))/2)*2:trunc(min(max(iw/a\,ih)\,min({width}/a\,{height}))/2)*2,format=yuv420p"
            ),
            Kind::Vaapi => {
                format!("scale_vaapi=w={width}:h={height}:format=nv12:extra_hw_frames=24")
            }
        };
        format!(
            r#"-codec:v:0 {encoder} {quality} {keyframes} -vf "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,{scale}""#
        )
    }

    fn sound(&self) -> String {
        match (self.audio_stream, self.audio_encoder.as_str()) {
            (None, _) => String::new(),
            (Some(_), "copy") => " -codec:a:0 copy".to_owned(),
            (Some(_), encoder) => format!(" -codec:a:0 {encoder} -ac 2 -ab 256000"),
        }
    }

    /// The command of this session.
    pub fn command(&self) -> CommandLine {
        let words = split_command_line(&self.line());
        CommandLine::from_words(words).expect("a template has all that a command needs")
    }
}

impl CommandLine {
    /// Reads a command as logged: comment lines begin with `#`; the first word is the executable.
    ///
    /// # Errors
    /// If it isn't an HLS command.
    pub fn from_log(text: &str) -> Result<Self, CommandError> {
        let line = text.lines().find(|line| !line.starts_with('#') && !line.trim().is_empty());
        let mut words = split_command_line(line.unwrap_or_default());
        if words.first().is_some_and(|word| !word.starts_with('-')) {
            words.remove(0);
        }
        Self::from_words(words)
    }

    fn from_words(words: Vec<String>) -> Result<Self, CommandError> {
        let value = |option: &'static str| {
            let at = words.iter().position(|word| word == option);
            at.and_then(|at| words.get(at + 1)).ok_or(CommandError::Missing(option))
        };
        value("-start_number")?;
        let pattern = value("-hls_segment_filename")?;
        let expected = "DIRECTORY/ID%d.EXTENSION";
        let not_a_pattern = || CommandError::Value {
            option: "-hls_segment_filename",
            expected,
            value: pattern.clone(),
        };
        let (path, extension) = pattern.split_once("%d").ok_or_else(not_a_pattern)?;
        let (directory, id) = path.rsplit_once('/').ok_or_else(not_a_pattern)?;
        let time = value("-hls_time")?;
        let seconds: f64 = time.parse().map_err(|_| CommandError::Value {
            option: "-hls_time",
            expected: "seconds",
            value: time.clone(),
        })?;
        let input = value("-i")?;
        Ok(Self {
            directory: directory.into(),
            id: id.to_owned(),
            extension: extension.to_owned(),
            segment_ms: (seconds * 1000.0).round() as u64,
            has_init: value("-hls_segment_type").is_ok_and(|kind| kind == "fmp4"),
            input: input.strip_prefix("file:").unwrap_or(input).into(),
            words,
        })
    }

    /// The same command writing into another directory.
    #[must_use]
    pub fn into_directory(mut self, directory: &Path) -> Self {
        let old = format!("{}/", self.directory.display());
        let new = format!("{}/", directory.display());
        for word in &mut self.words {
            if let Some(name) = word.strip_prefix(&old) {
                *word = format!("{new}{name}");
            }
        }
        self.directory = directory.into();
        self
    }

    /// The same command reading another file.
    #[must_use]
    pub fn from_input(mut self, input: &Path) -> Self {
        if let Some(at) = self.words.iter().position(|word| word == "-i") {
            self.words[at + 1] = format!("file:{}", input.display());
        }
        self.input = input.into();
        self
    }

    /// The same command on ffmpeg's own AAC encoder instead of `libfdk_aac`, which most builds
    /// lack.
    #[must_use]
    pub fn without_fdk(mut self) -> Self {
        for word in self.words.iter_mut().filter(|word| *word == "libfdk_aac") {
            "aac".clone_into(word);
        }
        self
    }

    /// Arguments that start at segment `number` of a file that lasts `runtime` seconds.
    pub fn at(&self, number: u64, runtime: f64) -> Vec<String> {
        let mut words = self.words.clone();
        if let Some(at) = words.iter().position(|word| word == "-start_number") {
            words[at + 1] = number.to_string();
        }
        let start = (number * self.segment_ms) as f64 / 1000.0;
        let start = start.min((runtime - SEEK_MARGIN_SECONDS).max(0.0));
        let first_input = words.iter().position(|word| word == "-i").unwrap_or(0);
        let old = words[..first_input].iter().position(|word| word == "-ss");
        if let Some(old) = old {
            words.drain(old..old + 2);
        }
        if number > 0 {
            // Behind -analyzeduration and -probesize, where Jellyfin has it.
            let mut at = 0;
            while matches!(
                words.get(at).map(String::as_str),
                Some("-analyzeduration" | "-probesize")
            ) {
                at += 2;
            }
            words.splice(at..at, ["-ss".to_owned(), clock(start)]);
        }
        words
    }

    /// Path of a segment; −1 is the init file.
    pub fn segment(&self, number: i64) -> PathBuf {
        self.directory.join(format!("{}{number}{}", self.id, self.extension))
    }
}

/// `hh:mm:ss.fff`
fn clock(seconds: f64) -> String {
    let ms = (seconds * 1000.0).round() as u64;
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use ffmpeg_args::Location;

    use super::*;

    fn template(kind: Kind, container: Container) -> Template {
        Template {
            kind,
            container,
            input: "/m/A B.mkv".into(),
            directory: "/t".into(),
            id: "abc".to_owned(),
            segment_seconds: 3,
            encoder: None,
            video_bitrate: 4_000_000,
            height: 720,
            keyframes_fps: None,
            video_stream: 0,
            audio_stream: Some(1),
            audio_encoder: "aac".to_owned(),
            format: Some("matroska,webm".to_owned()),
        }
    }

    fn transcode(words: &[String]) -> ffmpeg_args::Transcode {
        let words: Vec<_> = words.iter().map(std::ffi::OsString::from).collect();
        match ffmpeg_args::plan(&words) {
            ffmpeg_args::Plan::Transcode(transcode) => *transcode,
            ffmpeg_args::Plan::Passthrough(passthrough) => panic!("{passthrough:?}"),
        }
    }

    #[test]
    fn templates_are_transcodes() {
        for kind in [Kind::Software, Kind::Vaapi] {
            for container in [Container::Ts, Container::Fmp4] {
                let command = template(kind, container).command();
                let plan = transcode(&command.at(7, 600.0));
                let output = plan.output.hls().unwrap();
                assert_eq!(plan.inputs[0].location, Location::File("/m/A B.mkv".into()));
                assert_eq!(plan.inputs[0].start_us, Some(21_000_000));
                assert_eq!(output.start_number, 7);
                assert_eq!(output.directory, Path::new("/t"));
                assert_eq!(output.segment_prefix, "abc");
                assert_eq!(output.segment_suffix, container.extension());
                assert_eq!(transcode(&command.at(0, 600.0)).inputs[0].start_us, None);
            }
        }
    }

    #[test]
    fn a_seek_near_the_end_keeps_the_margin() {
        let command = template(Kind::Software, Container::Ts).command();
        let words = command.at(9, 28.0);
        assert_eq!(words[4..6], ["-ss", "00:00:23.000"]);
    }

    #[test]
    fn logged_lines_are_moved() {
        let logged = format!(
            "# a comment\n/usr/lib/ffmpeg -ss 00:01:00.000 {}\n",
            template(Kind::Software, Container::Fmp4).line()
        );
        let command = CommandLine::from_log(&logged)
            .unwrap()
            .into_directory(Path::new("/else"))
            .from_input(Path::new("/in.mkv"));
        let plan = transcode(&command.at(2, 600.0));
        assert_eq!(plan.inputs[0].location, Location::File("/in.mkv".into()));
        assert_eq!(plan.inputs[0].start_us, Some(6_000_000));
        assert_eq!(plan.output.directory(), Path::new("/else"));
        assert_eq!(command.segment(-1), Path::new("/else/abc-1.mp4"));
        assert!(command.has_init);
    }

    #[test]
    fn other_lines_are_none() {
        assert_eq!(
            CommandLine::from_log("ffmpeg -version"),
            Err(CommandError::Missing("-start_number"))
        );
    }
}
