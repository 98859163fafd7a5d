//! What may come of a command that differs from a planned one.
//!
//! A command is taken apart into facts: each option with its value and the file it belongs to, each
//! option of each filter likewise. Of the facts that two commands don't share, [`TRACES`] says in
//! which fields of a plan they show. The plan of a changed command may then differ nowhere else, and
//! must differ there: a fact that changes nothing was ignored, unless the table says that nothing is
//! what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use ffmpeg_args::arguments::Setting;
use ffmpeg_args::{Arguments, Plan, parse, plan};
use serde_json::Value;

/// A file and an option (`out`, `b:v`), or a filter and its option (`scale_vaapi`, `w`).
pub type Key = (String, String);

/// Nothing in a plan: said of how ffmpeg goes about it, or said again.
const NO_TRACE: &[&str] = &[];

/// Where options show in a plan, by file (`run`, `in`, `out`) and name without specifier; `*` is
/// the option without one, or any name. The first line that fits counts.
const TRACES: &[(&str, &[&str], &[&str])] = &[
    // How a file is probed and decoded is up to whoever runs the plan.
    (
        "in",
        &[
            "analyzeduration",
            "probesize",
            "threads",
            "fflags",
            "accurate_seek",
            "hwaccel",
            "hwaccel_flags",
        ],
        NO_TRACE,
    ),
    ("in", &["hwaccel_device", "extra_hw_frames", "c", "codec", "vcodec"], NO_TRACE),
    // Without it filters of a GPU's work on nothing; where there are none nothing is lost.
    ("in", &["hwaccel_output_format"], NO_TRACE),
    // Jellyfin writes it beside -noautorotate, which says more.
    ("in", &["display_rotation"], NO_TRACE),
    ("in", &["noautorotate"], &["/video/action/encode/turn"]),
    ("in", &["f"], &["/inputs"]),
    ("in", &["ss", "noaccurate_seek", "url"], &["/inputs"]),
    ("in", &["re", "readrate"], &["/inputs"]),
    // How one catches up is up to whoever reads.
    ("in", &["readrate_catchup", "readrate_initial_burst"], NO_TRACE),
    // Of the protocol: said again by whoever fetches.
    ("in", &["user_agent", "referer", "rtsp_transport", "rtsp_flags"], &["/inputs"]),
    ("in", &["stream_loop", "reconnect_at_eof", "reconnect_streamed"], &["/inputs"]),
    ("in", &["reconnect_delay_max"], &["/inputs"]),
    ("in", &["canvas_size"], &["/video/action/encode/subtitles"]),
    ("run", &["init_hw_device", "filter_hw_device", "vaapi_device", "qsv_device"], NO_TRACE),
    ("run", &["hide_banner", "vsync"], NO_TRACE),
    ("run", &["start_at_zero"], &["/start_at_zero"]),
    // A copied sound is not filtered.
    ("run", &["async"], NO_TRACE),
    ("out", &["url"], &["/output/hls/directory", "/output/hls/playlist", "/output/progressive"]),
    ("out", &["map"], &["/video", "/audio"]),
    ("out", &["vn", "an"], &["/video", "/audio"]),
    // Only what is mapped is there.
    ("out", &["sn", "dn", "map -"], NO_TRACE),
    ("out", &["threads", "max_muxing_queue_size", "strict", "flags", "fflags"], NO_TRACE),
    ("out", &["individual_header_trailer", "fps_mode", "noautoscale", "autoscale"], NO_TRACE),
    (
        "out",
        &["sc_threshold", "sei", "mbbrc", "rc_init_occupancy", "look_ahead", "async_depth"],
        NO_TRACE,
    ),
    // What the muxer does anyway, or an accurate seek.
    ("out", &["bsf"], NO_TRACE),
    // An average is what a bit rate is.
    ("out", &["abr"], NO_TRACE),
    // Encoders of a plan get 8 bits.
    ("out", &["pix_fmt"], NO_TRACE),
    ("out", &["codec:v"], &["/video/action"]),
    ("out", &["tag"], &["/video/tag"]),
    (
        "out",
        &["b:v", "maxrate", "bufsize", "rc_mode", "low_power", "compression_level", "crf"],
        &["/video/action/encode/rate"],
    ),
    ("out", &["preset"], &["/video/action/encode/preset"]),
    ("out", &["profile"], &["/video/action/encode/profile"]),
    ("out", &["level"], &["/video/action/encode/level"]),
    ("out", &["x264opts", "x265-params", "bf"], &["/video/action/encode/encoder_params"]),
    ("out", &["force_key_frames", "g", "keyint_min"], &["/video/action/encode/keyframes"]),
    ("out", &["r"], &["/video/action/encode/frame_rate"]),
    ("out", &["codec:a"], &["/audio/action"]),
    ("out", &["ac", "ab", "vbr", "qscale", "ar"], &["/audio/action/encode"]),
    ("out", &["hls_time"], &["/output/hls/segment_seconds"]),
    (
        "out",
        &["hls_segment_type", "hls_fmp4_init_filename", "hls_segment_options"],
        &["/output/hls/container"],
    ),
    ("out", &["start_number"], &["/output/hls/start_number"]),
    (
        "out",
        &["hls_segment_filename"],
        &["/output/hls/segment_prefix", "/output/hls/segment_suffix"],
    ),
    ("out", &["hls_playlist_type"], &["/output/hls/playlist_type"]),
    ("out", &["hls_base_url"], &["/output/hls/base_url"]),
    ("out", &["max_delay"], &["/output/hls/max_delay_us"]),
    // Filters. Where a picture lies between them, and in which format, is the runner's.
    ("format", &["*"], NO_TRACE),
    ("hwupload", &["*"], NO_TRACE),
    ("hwupload_vaapi", &["*"], NO_TRACE),
    ("hwdownload", &["*"], NO_TRACE),
    ("hwmap", &["*"], NO_TRACE),
    ("scale_vulkan", &["*"], NO_TRACE),
    ("setparams", &["*"], &["/video/action/encode/colour", "/video/action/encode/tone_map"]),
    ("fps", &["*"], &["/video/action/encode/frame_rate"]),
    // The source's own field order, and every frame of it.
    ("yadif", &["parity", "deint"], NO_TRACE),
    ("bwdif_cuda", &["parity", "deint"], NO_TRACE),
    ("deinterlace_qsv", &["mode"], NO_TRACE),
    ("yadif", &["*"], &["/video/action/encode/deinterlace"]),
    ("bwdif_cuda", &["*"], &["/video/action/encode/deinterlace"]),
    ("deinterlace_vaapi", &["*"], &["/video/action/encode/deinterlace"]),
    ("deinterlace_qsv", &["*"], &["/video/action/encode/deinterlace"]),
    ("scale_vaapi", &["w", "h"], &["/video/action/encode/scale"]),
    ("scale_cuda", &["w", "h"], &["/video/action/encode/scale"]),
    ("vpp_qsv", &["w", "h"], &["/video/action/encode/scale"]),
    ("vpp_qsv", &["transpose"], &["/video/action/encode/turn", "/video/action/encode/scale"]),
    ("vpp_qsv", &["tonemap"], &["/video/action/encode/tone_map"]),
    // A scaler without a size converts the format alone.
    ("scale_vaapi", &["*"], NO_TRACE),
    ("scale_cuda", &["*"], NO_TRACE),
    ("vpp_qsv", &["*"], NO_TRACE),
    ("scale", &["*"], &["/video/action/encode/scale"]),
    ("transpose_vaapi", &["*"], &["/video/action/encode/turn"]),
    ("transpose_cuda", &["*"], &["/video/action/encode/turn"]),
    ("transpose_vulkan", &["*"], &["/video/action/encode/turn"]),
    ("flip_vulkan", &["*"], &["/video/action/encode/turn"]),
    // Limited range is what the output has; 8 bits are 8 bits.
    ("tonemap_vaapi", &["extra_hw_frames", "format"], NO_TRACE),
    ("tonemap_opencl", &["range", "format"], NO_TRACE),
    ("tonemap_cuda", &["range", "format"], NO_TRACE),
    ("tonemapx", &["range", "format"], NO_TRACE),
    ("libplacebo", &["range"], NO_TRACE),
    // Alone it converts the format.
    ("libplacebo", &["upscaler", "downscaler", "format"], NO_TRACE),
    ("libplacebo", &["w", "h"], &["/video/action/encode/scale"]),
    ("tonemap_vaapi", &["*"], &["/video/action/encode/tone_map"]),
    ("tonemap_opencl", &["*"], &["/video/action/encode/tone_map"]),
    ("tonemap_cuda", &["*"], &["/video/action/encode/tone_map"]),
    ("tonemapx", &["*"], &["/video/action/encode/tone_map"]),
    ("libplacebo", &["*"], &["/video/action/encode/tone_map"]),
    ("procamp_vaapi", &["*"], &["/video/action/encode/tone_map"]),
    ("volume", &["*"], &["/audio/action/encode/volume"]),
    ("pan", &["*"], &["/audio/action/encode/mix"]),
    // Subtitles: what is drawn; where, how large and how often is the runner's.
    ("subtitles", &["*"], &["/video/action/encode/subtitles"]),
    ("setpts", &["*"], &["/video/action/encode/subtitles"]),
    ("sub subtitles", &["*"], &["/video/action/encode/subtitles"]),
    ("sub setpts", &["*"], &["/video/action/encode/subtitles"]),
    ("sub alphasrc", &["*"], NO_TRACE),
    ("sub format", &["*"], NO_TRACE),
    ("sub hwupload", &["*"], NO_TRACE),
    // Without a size it converts the format alone.
    ("sub scale", &["flags", ""], NO_TRACE),
    ("sub scale", &["*"], &["/video/action/encode/subtitles"]),
    ("sub crop", &["*"], &["/video/action/encode/subtitles"]),
    ("sub pad", &["*"], &["/video/action/encode/subtitles"]),
    // The size is the picture's own, which a plan knows only if it is scaled; then another is
    // refused. That there is one shows.
    ("overlay_vaapi", &["w", "h"], NO_TRACE),
    ("overlay_qsv", &["w", "h"], NO_TRACE),
    // A plane's stream ends with the file.
    ("overlay", &["eof_action", "shortest"], NO_TRACE),
    ("overlay_vaapi", &["eof_action", "shortest"], NO_TRACE),
    ("overlay_qsv", &["eof_action", "shortest"], NO_TRACE),
    ("overlay_cuda", &["eof_action", "shortest", "alpha_format"], NO_TRACE),
    ("overlay_vulkan", &["eof_action", "shortest"], NO_TRACE),
    // The graph's streams.
    ("graph", &["*"], &["/video/source", "/video/action/encode/subtitles"]),
];

/// Options whose absence says the same: ffmpeg's default.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("yadif", "mode", "0"),
    ("bwdif_cuda", "mode", "1"),
    ("deinterlace_vaapi", "rate", "frame"),
    ("setpts", "setpts", "PTS -0/TB"),
    ("sub setpts", "sub setpts", "PTS -0/TB"),
];

/// Options that copied sound has in a file of its own, and that ffmpeg passes over.
const OF_ENCODED_SOUND: &[&str] = &["ac", "ab", "ar"];

/// Names that options without a key have by their place.
const PLACES: &[(&str, &[&str])] = &[
    ("yadif", &["mode", "parity", "deint"]),
    ("bwdif_cuda", &["mode", "parity", "deint"]),
    ("scale", &["w", "h"]),
    ("sub scale", &["w", "h", "flags"]),
    ("sub crop", &["w", "h"]),
    ("sub pad", &["w", "h", "x", "y", "color"]),
    ("subtitles", &["f"]),
];

/// The facts of a command: values by key, sorted, each as often as it stands there.
type Facts = BTreeMap<Key, Vec<String>>;

/// A planned command, and what is checked of its changes.
pub struct Oracle {
    facts: Facts,
    plan: Value,
}

impl Oracle {
    /// `None` if the command isn't planned.
    pub fn new(argv: &[OsString]) -> Option<Self> {
        let plan = plan(argv);
        let Plan::Transcode(_) = plan else { return None };
        let arguments = parse(argv).expect("what is planned is parsed");
        Some(Self { facts: facts(&arguments), plan: serde_json::to_value(&plan).unwrap() })
    }

    /// Whether the command became a plan again.
    ///
    /// # Errors
    /// What was ignored, or changed what it doesn't say.
    pub fn check(&self, changed: &[OsString]) -> Result<bool, String> {
        let plan = match plan(changed) {
            Plan::Passthrough(refusal) if refusal.reason.is_empty() => {
                return Err("refused without a reason".to_owned());
            }
            Plan::Passthrough(_) => return Ok(false),
            transcode @ Plan::Transcode(_) => serde_json::to_value(&transcode).unwrap(),
        };
        let arguments = parse(changed).expect("what is planned is parsed");
        let facts = facts(&arguments);
        let mut paths = BTreeSet::new();
        differences(&self.plan, &plan, String::new(), &mut paths);
        let mut allowed: Vec<&str> = Vec::new();
        for key in self.facts.keys().chain(facts.keys()).collect::<BTreeSet<_>>() {
            let (before, after) = (self.facts.get(key), facts.get(key));
            if before == after {
                continue;
            }
            let equal = same(key, before, after);
            let traces = match traces(key) {
                Some(traces) => traces,
                None if equal => NO_TRACE,
                None => return Err(format!("{key:?} has no line in TRACES")),
            };
            allowed.extend(traces);
            let shows = traces.iter().any(|trace| paths.iter().any(|path| path.starts_with(trace)));
            if !traces.is_empty() && !shows && !equal && !self.said(key, &facts) {
                return Err(format!("{key:?} from {before:?} to {after:?} was ignored"));
            }
        }
        match paths.iter().find(|path| !allowed.iter().any(|trace| path.starts_with(trace))) {
            Some(path) => Err(format!("{path} changed, which nothing that was changed says")),
            None => Ok(true),
        }
    }

    /// Whether a fact is said in other words as well, before and after.
    fn said(&self, key: &Key, after: &Facts) -> bool {
        let both = |file: &str, name: &str| {
            let key = (file.to_owned(), name.to_owned());
            self.facts.contains_key(&key) && after.contains_key(&key)
        };
        let copies = |facts: &Facts| {
            let codec = facts.get(&("out".to_owned(), "codec:a".to_owned()));
            codec.is_some_and(|codec| codec.iter().all(|codec| codec == "copy"))
        };
        match (key.0.as_str(), key.1.as_str()) {
            ("out", name) if OF_ENCODED_SOUND.contains(&name) => {
                copies(&self.facts) && copies(after)
            }
            // The film has it beside its subtitles' own file.
            ("in", "canvas_size") => both("in", "canvas_size"),
            // The bound on the rate stands among the filters and once more for the encoder.
            ("out", "r") => both("fps", "fps"),
            ("fps", _) => both("out", "r"),
            // Forced keyframes decide where both are given.
            ("out", "g") => both("out", "force_key_frames"),
            // The least length is the greatest; or nothing is said of it.
            ("out", "keyint_min") => both("out", "g"),
            // Without a stream specifier in maps, -sn stands for them.
            ("out", "vn" | "an") => both("out", "map"),
            // A filter's name goes with its options, which show by themselves.
            (_, "") => self.facts.keys().any(|other| other.0 == key.0 && !other.1.is_empty()),
            _ => false,
        }
    }
}

/// An option's name in one spelling: `codec:v:0`, `c:v` and `vcodec` are `codec:v`.
fn spelled(name: &str) -> String {
    let name = name.strip_suffix(":0").unwrap_or(name);
    let name = match name {
        "c:v" | "vcodec" => "codec:v",
        "c:a" | "acodec" => "codec:a",
        "b:a" => "ab",
        "autorotate" => "noautorotate",
        name => name,
    };
    match name.split_once(':') {
        // Only these are the picture's and the sound's alike.
        Some((base, _)) if !["b", "codec", "bsf", "profile", "filter", "map"].contains(&base) => {
            base.to_owned()
        }
        _ => name.to_owned(),
    }
}

fn traces(key: &Key) -> Option<&'static [&'static str]> {
    let (file, name) = (key.0.as_str(), key.1.as_str());
    let base = name.split(':').next().unwrap_or(name);
    let fits = |names: &[&str]| names.iter().any(|n| *n == name || *n == base || *n == "*");
    TRACES.iter().find(|(f, names, _)| *f == file && fits(names)).map(|(.., traces)| *traces)
}

/// Whether two values of a key mean the same.
fn same(key: &Key, before: Option<&Vec<String>>, after: Option<&Vec<String>>) -> bool {
    let default = |values: Option<&Vec<String>>| match values {
        Some(values) => values.clone(),
        None => DEFAULTS
            .iter()
            .filter(|(file, name, _)| *file == key.0 && *name == key.1)
            .map(|(.., value)| (*value).to_owned())
            .collect(),
    };
    let (before, after) = (default(before), default(after));
    // An option that is repeated with the same value is no other option.
    let before: BTreeSet<String> = before.iter().map(|value| canonical(key, value)).collect();
    let after: BTreeSet<String> = after.iter().map(|value| canonical(key, value)).collect();
    before == after
}

/// A value with its numbers in one spelling.
fn canonical(key: &Key, value: &str) -> String {
    // Rates are printed with six digits of what was meant.
    if matches!((key.0.as_str(), key.1.as_str()), ("out", "r") | ("fps", _)) {
        return match value.parse::<f64>() {
            Ok(rate) => format!("{:.2}", (rate * 1001.0 / 1000.0 * 10.0).round() / 10.0),
            Err(_) => value.to_owned(),
        };
    }
    match key.1.as_str() {
        // Names are nothing but themselves; the first two are paths.
        "url" | "hls_segment_filename" => return value.replace("//", "/"),
        "hls_fmp4_init_filename"
        | "hls_base_url"
        | "x264opts"
        | "x265-params"
        | "f"
        | "filename"
        | "fontsdir"
        | "charenc"
        | "user_agent"
        | "referer" => {
            return value.to_owned();
        }
        // Encoders of one codec.
        "codec:a" if value.ends_with("aac") || value.ends_with("aac_at") => {
            return "aac".to_owned();
        }
        "level" => {
            let tenfold = value.replace('.', "");
            return tenfold.trim_start_matches('0').to_owned();
        }
        _ => {}
    }
    // Expressions may have blanks.
    let expressions = ["scale", "sub scale", "sub pad", "setpts", "sub setpts", "asetpts", "pan"];
    let value = if expressions.contains(&key.0.as_str()) { &value.replace(' ', "") } else { value };
    // Whatever the start of the rule was, it counts from the first frame.
    let value = match value.split_once("gte(t,").and_then(|(_, rule)| rule.split_once('+')) {
        Some((_, rule)) => rule,
        None => value,
    };
    let mut text = String::new();
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        match rest[..end].parse::<f64>() {
            Ok(number) => {
                let suffix = rest[end..].chars().next();
                let factor = match suffix {
                    Some('k' | 'K') => 1e3,
                    Some('M') => 1e6,
                    Some('G') => 1e9,
                    _ => 1.0,
                };
                text += &(number * factor).to_string();
                rest = &rest[end + usize::from(factor > 1.0)..];
            }
            Err(_) => {
                text.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    text
}

fn facts(arguments: &Arguments) -> Facts {
    let mut facts = Facts::new();
    let mut add = |file: &str, name: &str, value: &str| {
        facts.entry((file.to_owned(), name.to_owned())).or_default().push(value.to_owned());
    };
    for setting in &arguments.globals {
        let value = setting.value.as_ref().map(|v| v.to_string_lossy().into_owned());
        let value = value.unwrap_or_default();
        match setting.name.as_str() {
            "filter_complex" => graph(&value, &mut add),
            name => add("run", name, &value),
        }
    }
    let inputs = arguments.inputs.iter().enumerate().map(|(index, file)| (Some(index), file));
    for (index, file) in inputs.chain(arguments.outputs.iter().map(|file| (None, file))) {
        let role = if index.is_some() { "in" } else { "out" };
        let of = index.map(|index| format!("{index} ")).unwrap_or_default();
        add(role, "url", &format!("{of}{}", file.url.to_string_lossy()));
        for (place, setting) in file.settings.iter().enumerate() {
            let value = setting.value.as_ref().map(|v| v.to_string_lossy().into_owned());
            let value = value.unwrap_or_default();
            match setting.name.as_str() {
                "vf" | "af" => filters(&value, "", &mut add),
                "map" if value.starts_with('-') => add(role, "map -", &value),
                // Which is the picture and which the sound is a matter of order.
                "map" => {
                    let drops = |value: &OsString| value.to_string_lossy().starts_with('-');
                    let maps = |other: &&Setting| {
                        other.name == "map" && !other.value.as_ref().is_some_and(drops)
                    };
                    let nth = file.settings[..place].iter().filter(maps).count();
                    add(role, "map", &format!("{nth} {value}"));
                }
                name => add(role, &spelled(name), &format!("{of}{value}")),
            }
        }
    }
    for values in facts.values_mut() {
        values.sort();
    }
    facts
}

/// A graph: the filters of a plane (`[sub]`) are told from the picture's.
fn graph(text: &str, add: &mut impl FnMut(&str, &str, &str)) {
    for chain in split(text, ';') {
        let mut begin = 0;
        while chain[begin..].starts_with('[') {
            begin += chain[begin..].find(']').map_or(chain.len() - begin, |at| at + 1);
        }
        let (inputs, rest) = chain.split_at(begin);
        let end = rest.rfind('[').filter(|_| rest.trim_end().ends_with(']'));
        let (filtered, output) = rest.split_at(end.unwrap_or(rest.len()));
        add("graph", "labels", &format!("{inputs} {output}"));
        let of = if output.trim() == "[sub]" { "sub " } else { "" };
        filters(filtered, of, add);
    }
}

fn filters(chain: &str, of: &str, add: &mut impl FnMut(&str, &str, &str)) {
    for filter in split(chain, ',') {
        let (name, options) = filter.split_once('=').unwrap_or((&filter, ""));
        let name = &format!("{of}{}", unescaped(name));
        add(name, "", "");
        let places = PLACES.iter().find(|(filter, _)| *filter == name);
        for (place, option) in split(&unescaped(options), ':').into_iter().enumerate() {
            if option.is_empty() {
                continue;
            }
            let named = option.split_once('=').filter(|(key, _)| {
                let key = key.trim();
                !key.is_empty()
                    && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_/.".contains(c))
            });
            match named {
                Some((key, value)) => add(name, key.trim(), &unescaped(value)),
                None => {
                    let key = places.and_then(|(_, names)| names.get(place).copied());
                    add(name, key.unwrap_or(name), &unescaped(&option));
                }
            }
        }
    }
}

/// A text with the quotes and backslashes of one level taken away, and the blanks around it that
/// were not quoted.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut kept = 0;
    let mut quoted = false;
    let mut chars = text.trim_start().chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                quoted = !quoted;
                kept = plain.len();
            }
            '\\' if !quoted => {
                plain.extend(chars.next());
                kept = plain.len();
            }
            c => {
                plain.push(c);
                kept = if quoted { plain.len() } else { kept };
            }
        }
    }
    let end = kept + plain[kept..].trim_end().len();
    plain.truncate(end);
    plain
}

/// Splits where a sign stands unescaped and unquoted.
pub fn split(text: &str, sign: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let part = parts.last_mut().expect("there is always one");
        match c {
            '\\' if !quoted => {
                part.push(c);
                part.extend(chars.next());
            }
            '\'' => {
                quoted = !quoted;
                part.push(c);
            }
            c if c == sign && !quoted => parts.push(String::new()),
            c => part.push(c),
        }
    }
    parts
}

/// The paths at which two values differ.
fn differences(a: &Value, b: &Value, path: String, paths: &mut BTreeSet<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()) {
                let null = Value::Null;
                let (a, b) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
                differences(a, b, format!("{path}/{key}"), paths);
            }
        }
        (a, b) if a != b => _ = paths.insert(path),
        _ => {}
    }
}
