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

/// What a kind of the corpus may become at all, so that a snapshot can't bless nonsense.
#[test]
fn every_kind_is_recognised_as_what_it_is() {
    use PassthroughKind::{
        NotATranscode, Probe, UnknownArgument, UnsupportedFeature, UnsupportedInput,
        UnsupportedKind,
    };
    for (name, text) in corpus() {
        let allowed: &[Option<PassthroughKind>] = match header(&text, "kind") {
            "hls-video-sw" | "hls-video-vaapi" | "hls-video-qsv" | "hls-video-nvenc" => {
                &[None, Some(UnsupportedFeature)]
            }
            "hls-copy" => &[None, Some(UnsupportedFeature)],
            "hls-audio" => &[None],
            "live-hls-copy" => &[Some(UnsupportedInput)],
            "hls-video-vaapi-segment" | "hls-video-sw-segment" => &[Some(UnsupportedKind)],
            "progressive-video-vaapi" | "progressive-audio" => &[Some(UnsupportedKind)],
            "startup-probe" => &[Some(Probe)],
            "trickplay" | "image" | "subtitle" | "attachment" | "lufs" | "live-recording" => {
                &[Some(NotATranscode)]
            }
            // Never planned: the real ffprobe answers. Its options are none of ffmpeg's.
            "ffprobe" => &[Some(UnknownArgument)],
            other => panic!("{name}: a new kind {other}"),
        };
        let got = match plan(&argv(&text)) {
            Plan::Transcode(_) => None,
            Plan::Passthrough(passthrough) => Some(passthrough.kind),
        };
        assert!(allowed.contains(&got), "{name}: {got:?}");
    }
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
