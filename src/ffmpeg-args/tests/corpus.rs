//! The plan of every command of the corpus, as a snapshot.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use ffmpeg_args::{PassthroughKind, Plan, parse, plan, split_command_line};

fn corpus() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 60, "the corpus is incomplete: {} files", files.len());
    let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// A `# key: value` line of a corpus file's head.
fn header<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(key));
    line.and_then(|rest| rest.strip_prefix(": ")).unwrap_or("")
}

fn argv(text: &str) -> Vec<OsString> {
    let line = text.lines().find(|line| !line.starts_with('#')).expect("a command");
    // The program's path may hold blanks (Windows); its name ends at the first option.
    let options = line.find(" -").expect("an option");
    split_command_line(&line[options..]).into_iter().map(OsString::from).collect()
}

#[test]
fn every_command_has_the_plan_of_its_snapshot() {
    for (name, text) in corpus() {
        let plan = plan(&argv(&text));
        let kind = header(&text, "kind");
        let mut shown = format!("{kind}, jellyfin {}\n", header(&text, "jellyfin"));
        writeln!(shown, "{}\n", plan.summary()).unwrap();
        if let Plan::Transcode(_) = plan {
            shown += &serde_json::to_string_pretty(&plan).unwrap();
        }
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, shown);
        });
    }
}

/// Kinds that are played, of which 10.8 and later are all planned.
const PLAYED: &[&str] = &[
    "hls-video-sw",
    "hls-video-vaapi",
    "hls-video-qsv",
    "hls-video-nvenc",
    "hls-copy",
    "hls-audio",
    "live-hls-copy",
    "progressive-video-vaapi",
    "progressive-audio",
];

/// What isn't planned of them, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("026", "video encoder av1_qsv"),
    ("035", "is no path of this system"),
    ("038", "no setparams says what it maps from"),
    ("039", "is no path of this system"),
    ("042", "is no path of this system"),
    ("065", "video encoder av1_vaapi"),
];

/// Minor version of Jellyfin 10 in a header (`10.8.x (Windows)`).
fn minor(text: &str) -> u32 {
    let version = header(text, "jellyfin").strip_prefix("10.").expect("a version");
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().expect("a number")
}

/// What becomes of a command follows from what it is, so that a snapshot can't bless nonsense.
#[test]
fn what_is_played_is_planned_and_nothing_else() {
    use PassthroughKind::{NotATranscode, Probe, UnknownArgument, UnsupportedKind};
    let mut excepted = 0;
    for (name, text) in corpus() {
        let kind = header(&text, "kind");
        let refusal = match plan(&argv(&text)) {
            Plan::Transcode(_) => None,
            Plan::Passthrough(refusal) => Some(refusal),
        };
        if let Some((_, reason)) = EXCEPTIONS.iter().find(|(file, _)| *file == name) {
            let refusal = refusal.unwrap_or_else(|| panic!("{name} is planned, and excepted"));
            assert!(refusal.reason.contains(reason), "{name}: {refusal}");
            excepted += 1;
            continue;
        }
        if PLAYED.contains(&kind) {
            // Of 10.6 and 10.7 only some need be; those of the corpus are.
            assert_eq!(refusal, None, "{name}, {kind} of 10.{}", minor(&text));
            continue;
        }
        let expect = match kind {
            "hls-video-vaapi-segment" | "hls-video-sw-segment" => UnsupportedKind,
            "startup-probe" => Probe,
            "trickplay" | "image" | "subtitle" | "attachment" | "lufs" | "live-recording" => {
                NotATranscode
            }
            // Never planned: the real ffprobe answers. Its options are none of ffmpeg's.
            "ffprobe" => UnknownArgument,
            other => panic!("{name}: a new kind {other}"),
        };
        assert_eq!(refusal.map(|refusal| refusal.kind), Some(expect), "{name}");
    }
    assert_eq!(excepted, EXCEPTIONS.len());
}

#[test]
fn arguments_give_back_the_command() {
    for (name, text) in corpus() {
        let argv = argv(&text);
        if let Ok(arguments) = parse(&argv) {
            assert_eq!(arguments.to_argv(), argv, "{name}");
        }
    }
}
