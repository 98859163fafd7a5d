//! Jellyfin's command lines: from the corpus, turned to a test's files, and in ffmpeg's software
//! spelling.

use std::ffi::OsString;
use std::path::Path;

use ffmpeg_args::{Plan, Transcode, split_command_line};

/// A command without its program.
#[derive(Debug, Clone)]
pub struct Line(pub Vec<String>);

impl Line {
    /// The corpus' file of this number.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn corpus(number: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../../src/ffmpeg-args/tests/corpus/{number}.txt"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let line = text.lines().find(|line| !line.starts_with('#') && !line.is_empty()).unwrap();
        let mut words = split_command_line(line);
        words.remove(0);
        Self(words)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|word| word == name)
    }

    /// The value of an option.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(self.position(name)? + 1).map(String::as_str)
    }

    /// Whether the picture is encoded.
    pub fn encodes_video(&self) -> bool {
        self.value("-codec:v:0").is_some_and(|codec| codec != "copy")
    }

    /// Sets an option, or adds it in front of `before`.
    ///
    /// # Panics
    /// If it isn't there and `before` isn't either.
    pub fn set_before(&mut self, name: &str, value: &str, before: &str) {
        match self.position(name) {
            Some(at) => self.0[at + 1] = value.to_owned(),
            None => {
                let at = self.position(before).unwrap();
                self.0.splice(at..at, [name.to_owned(), value.to_owned()]);
            }
        }
    }

    /// Removes an option with its value, wherever it stands.
    pub fn remove(&mut self, name: &str) {
        while let Some(at) = self.position(name) {
            self.0.drain(at..at + 2);
        }
    }

    fn remove_flag(&mut self, name: &str) {
        self.0.retain(|word| word != name);
    }

    /// The same command for another file, from the file's start on.
    ///
    /// # Panics
    /// If the command reads nothing.
    pub fn reading(mut self, input: &Path) -> Self {
        let at = self.position("-i").unwrap();
        self.0[at + 1] = format!("file:{}", input.display());
        // A hint about the corpus' own file.
        if let Some(hint) = self.0[..at].iter().position(|word| word == "-f") {
            self.0.drain(hint..hint + 2);
        }
        self.remove("-ss");
        self.remove_flag("-noaccurate_seek");
        // ffmpeg would sleep.
        self.remove("-readrate");
        self.set_before("-start_number", "0", "-f");
        self
    }

    /// The same command with its output in another directory.
    ///
    /// # Panics
    /// If the command writes no HLS.
    pub fn writing(mut self, directory: &Path) -> Self {
        for option in ["-hls_segment_filename", "-y"] {
            let at = self.position(option).unwrap() + 1;
            let name = self.0[at].rsplit(['/', '\\']).next().unwrap().to_owned();
            self.0[at] = directory.join(name).to_str().unwrap().to_owned();
        }
        if let Some(at) = self.position("-hls_fmp4_init_filename") {
            let name = self.0[at + 1].rsplit(['/', '\\']).next().unwrap().to_owned();
            self.0[at + 1] = name;
        }
        self
    }

    /// Applies a list of changes, separated by spaces:
    /// - `ss=6.006`: seek, and number segments as Jellyfin would;
    /// - `fmp4`: fragmented MP4 with source time (contract 2.1, since 10.11);
    /// - `-map=0:0,0:2`, `-vf=...`, `-ac=6`: set an option; an empty value removes it;
    /// - `-start_at_zero`: any other word is a flag of the output, `-noaccurate_seek` one of the
    ///   input; `second=PATH` a second input.
    ///
    /// # Panics
    /// If a number can't be read.
    pub fn edited(mut self, edits: &str) -> Self {
        for edit in edits.split_whitespace() {
            match edit.split_once('=') {
                Some(("ss", seconds)) => self.seek(seconds),
                Some(("second", path)) => self.add_input(path),
                Some(("-map", streams)) => self.map(streams),
                Some((name, "")) => self.remove(name),
                Some((name, value)) => self.set_before(name, value, "-copyts"),
                None if edit == "fmp4" => self.fragment(),
                None if edit == "-noaccurate_seek" => self.insert(edit, "-i"),
                None => self.insert(edit, "-codec:a:0"),
            }
        }
        self
    }

    fn insert(&mut self, flag: &str, before: &str) {
        let at = self.position(before).unwrap();
        self.0.insert(at, flag.to_owned());
    }

    fn seek(&mut self, seconds: &str) {
        let length: f64 = self.value("-hls_time").unwrap().parse().unwrap();
        let number = (seconds.parse::<f64>().unwrap() / length) as u64;
        self.set_before("-ss", seconds, "-i");
        self.set_before("-start_number", &number.to_string(), "-f");
    }

    fn add_input(&mut self, path: &str) {
        let at = self.position("-i").unwrap() + 2;
        let mut words = vec!["-i".to_owned(), path.to_owned()];
        if let Some(seconds) = self.value("-ss") {
            words.splice(0..0, ["-ss".to_owned(), seconds.to_owned()]);
        }
        self.0.splice(at..at, words);
    }

    fn map(&mut self, streams: &str) {
        self.remove("-map");
        let at = self.position("-threads").unwrap() + 2;
        let words = streams.split(',').flat_map(|s| ["-map".to_owned(), s.to_owned()]);
        self.0.splice(at..at, words.collect::<Vec<_>>());
    }

    fn fragment(&mut self) {
        let segments = self.value("-hls_segment_filename").unwrap().replace("%d.ts", "%d.mp4");
        let name = segments.rsplit('/').next().unwrap();
        let init = name.replace("%d.mp4", "-1.mp4");
        self.set_before("-hls_segment_type", "fmp4", "-y");
        self.set_before("-hls_fmp4_init_filename", &init, "-start_number");
        self.set_before("-hls_segment_filename", &segments, "-y");
        self.set_before("-hls_segment_options", "movflags=+frag_discont", "-y");
    }

    /// What the gateway makes of it.
    ///
    /// # Panics
    /// If it goes to ffmpeg.
    pub fn plan(&self) -> Transcode {
        let argv: Vec<OsString> = self.0.iter().map(OsString::from).collect();
        match ffmpeg_args::plan(&argv) {
            Plan::Transcode(plan) => *plan,
            Plan::Passthrough(why) => panic!("{why:?}\n{}", self.0.join(" ")),
        }
    }

    /// The same for an ffmpeg without a GPU: libx264 or libx265 with the same rates, and the
    /// software filters of the same meaning.
    pub fn in_software(mut self) -> Self {
        for flag in ["-noautorotate", "-noautoscale", "-nostdin"] {
            self.remove_flag(flag);
        }
        let hardware = "-init_hw_device -filter_hw_device -vaapi_device -hwaccel \
            -hwaccel_output_format -hwaccel_flags -autorotate -autoscale -canvas_size -c:v \
            -rc_mode -low_power -compression_level -look_ahead -async_depth -mbbrc \
            -rc_init_occupancy -sei -vbr:a -vsync -individual_header_trailer -analyzeduration \
            -probesize";
        for option in hardware.split_whitespace() {
            self.remove(option);
        }
        let codec = self.value("-codec:v:0").unwrap_or("none").to_owned();
        if codec.ends_with("_vaapi") || codec.ends_with("_qsv") {
            let library = if codec.starts_with("hevc") { "libx265" } else { "libx264" };
            self.set_before("-codec:v:0", library, "-f");
            // QSV counts its presets.
            if self.value("-preset").is_none_or(|preset| preset.parse::<u32>().is_ok()) {
                self.set_before("-preset", "veryfast", "-copyts");
            }
            // Hardware encoders put keyframes where they are told, and nowhere else.
            if library == "libx264" {
                self.set_before("-sc_threshold:v:0", "0", "-copyts");
            }
            if self.value("-level").is_some() && library == "libx265" {
                self.remove("-level");
            }
        }
        for audio in ["-codec:a:0", "-acodec"] {
            if self.value(audio) == Some("libfdk_aac") {
                self.set_before(audio, "aac", "-f");
            }
        }
        if self.value("-profile:v:0") == Some("constrained_baseline") {
            self.set_before("-profile:v:0", "baseline", "-f");
        }
        if let Some(at) = self.position("-vf") {
            self.0[at + 1] = software_filters(&self.0[at + 1]);
        }
        self.0.splice(0..0, ["-nostdin", "-v", "error"].map(str::to_owned));
        self
    }
}

fn software_filters(chain: &str) -> String {
    let mut filters: Vec<String> = Vec::new();
    // Commas within expressions are escaped.
    for filter in chain.replace("\\,", "\u{1}").split(',') {
        let (name, options) = filter.split_once('=').unwrap_or((filter, ""));
        match name {
            "hwmap" | "hwupload" | "hwupload_vaapi" | "hwdownload" | "format" => {}
            "deinterlace_vaapi" => {
                let mode = u32::from(options.contains("field"));
                filters.push(format!("yadif={mode}:-1:0"));
            }
            "scale_vaapi" => {
                let size: Vec<&str> = options
                    .split(':')
                    .filter(|option| option.starts_with("w=") || option.starts_with("h="))
                    .collect();
                if !size.is_empty() {
                    filters.push(format!("scale={}", size.join(":")));
                }
            }
            _ => filters.push(filter.replace('\u{1}', "\\,")),
        }
    }
    filters.push("format=yuv420p".to_owned());
    filters.join(",")
}
