//! Commands composed at random from the templates of contract 2, and what becomes of them.

mod chain;
mod command;
mod expected;
#[path = "../mutations/oracle.rs"]
mod oracle;
mod recipe;
mod subtitles;
mod table;

use std::ffi::OsString;

use ffmpeg_args::{Plan, Subtitles, Transcode, parse, plan};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use oracle::Oracle;
use recipe::{Recipe, recipe};

fn config() -> ProptestConfig {
    ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() }
}

/// Options that are known and that no HLS command of Jellyfin carries, and one that is unknown.
const UNWANTED: &[&[&str]] = &[
    &["-shortest"],
    &["-bitexact"],
    &["-t", "5"],
    &["-metadata", "a=b"],
    &["-vframes", "1"],
    &["-s", "640x360"],
    &["-aspect", "16:9"],
    &["-loglevel", "quiet"],
    &["-hls_flags", "temp_file"],
    &["-tune", "film"],
    &["-itsoffset", "1"],
    &["-qp", "20"],
    &["-c:s", "copy"],
    &["-b:v:1", "5"],
    &["-frobnicate"],
    &["-frobnicate", "1"],
];

/// One random fault in a command.
#[derive(Debug, Clone)]
enum Fault {
    Drop(Index),
    Duplicate(Index),
    Swap(Index, Index),
    Replace(Index, String),
    Truncate(Index, Index),
}

impl Fault {
    fn apply(&self, argv: &mut Vec<OsString>) {
        if argv.is_empty() {
            return;
        }
        let count = argv.len();
        let place = |index: &Index| index.index(count);
        match self {
            Self::Drop(at) => _ = argv.remove(place(at)),
            Self::Duplicate(at) => argv.insert(place(at), argv[place(at)].clone()),
            Self::Swap(a, b) => argv.swap(place(a), place(b)),
            Self::Replace(at, word) => argv[place(at)] = word.into(),
            Self::Truncate(at, length) => {
                let word = &mut argv[place(at)];
                let text = word.to_str().expect("recipes are text");
                let chars = text.chars().take(length.index(text.chars().count() + 1));
                *word = chars.collect::<String>().into();
            }
        }
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    let word = prop_oneof![
        any::<String>(),
        "-[a-z_:0]{1,12}",
        "[-:,;=|'\\\\()\\[\\]%.0-9a-z]{0,24}",
        select(vec!["-", "--", "", "-i", "%", "hls", "-1", "99999999999999999999"])
            .prop_map(str::to_owned),
    ];
    prop_oneof![
        any::<Index>().prop_map(Fault::Drop),
        any::<Index>().prop_map(Fault::Duplicate),
        any::<(Index, Index)>().prop_map(|(a, b)| Fault::Swap(a, b)),
        (any::<Index>(), word).prop_map(|(at, word)| Fault::Replace(at, word)),
        any::<(Index, Index)>().prop_map(|(at, length)| Fault::Truncate(at, length)),
    ]
}

/// What holds for every plan, however it came about.
fn check_sound(transcode: &Transcode) -> Result<(), TestCaseError> {
    prop_assert!(!transcode.inputs.is_empty());
    prop_assert!(transcode.video.is_some() || transcode.audio.is_some());
    let video = transcode.video.as_ref().map(|video| video.source.input);
    let audio = transcode.audio.as_ref().map(|audio| audio.source.input);
    for input in video.into_iter().chain(audio) {
        prop_assert!(input < transcode.inputs.len());
    }
    if let Some(output) = transcode.output.hls() {
        prop_assert!(output.segment_seconds > 0.0);
        let name = output.segment_name(7);
        prop_assert_eq!(output.segment_number(&name), Some(7));
    }
    let subtitles = transcode.encoded_video().and_then(|encode| encode.subtitles.as_ref());
    if let Some(Subtitles::Pictures(pictures)) = subtitles {
        prop_assert!(pictures.source.input < transcode.inputs.len());
    }
    let explained = Plan::Transcode(Box::new(transcode.clone())).explain();
    prop_assert!(!explained.is_empty());
    let json = serde_json::to_string(transcode).expect("every plan can be sent");
    let back: Transcode = serde_json::from_str(&json).expect("every plan can be received");
    prop_assert_eq!(&back, transcode);
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_template_is_planned_to_the_letter(recipe in recipe()) {
        let argv = recipe.argv();
        match plan(&argv) {
            Plan::Transcode(transcode) => {
                prop_assert_eq!(&*transcode, &recipe.expected());
                check_sound(&transcode)?;
            }
            Plan::Passthrough(refusal) => prop_assert!(false, "{refusal}\n{}", recipe.command()),
        }
    }

    #[test]
    fn no_option_is_ignored(recipe in recipe(), unwanted in select(UNWANTED), at in any::<Index>()) {
        let argv = recipe.argv();
        let arguments = parse(&argv).expect("templates hold known options alone");
        let files = arguments.inputs.iter().chain(&arguments.outputs);
        let places: Vec<usize> = files
            .flat_map(|file| &file.settings)
            .chain(&arguments.globals)
            .map(|setting| setting.position)
            .collect();
        let place = *at.get(&places);
        let mut spoilt = argv.clone();
        spoilt.splice(place..place, unwanted.iter().map(OsString::from));
        let plan = plan(&spoilt);
        prop_assert!(matches!(plan, Plan::Passthrough(_)), "{unwanted:?} at {place}: {plan:?}");
    }

    #[test]
    fn faults_never_panic_and_plans_stay_sound(
        recipe in recipe(),
        faults in prop::collection::vec(fault(), 1..4),
    ) {
        let mut argv = recipe.argv();
        for fault in &faults {
            fault.apply(&mut argv);
        }
        if let Ok(arguments) = parse(&argv) {
            prop_assert_eq!(arguments.to_argv(), argv.clone());
        }
        match plan(&argv) {
            Plan::Transcode(transcode) => check_sound(&transcode)?,
            Plan::Passthrough(refusal) => prop_assert!(!refusal.reason.is_empty()),
        }
    }
}

proptest! {
    // Each case is some two hundred commands.
    #![proptest_config(ProptestConfig { cases: 80, ..config() })]

    #[test]
    fn no_option_of_a_template_goes_without_notice(recipe in recipe()) {
        let argv = recipe.argv();
        let oracle = Oracle::new(&argv).expect("templates are planned");
        let arguments = parse(&argv).expect("what is planned is parsed");
        let files = arguments.inputs.iter().chain(&arguments.outputs);
        for setting in files.flat_map(|file| &file.settings).chain(&arguments.globals) {
            let end = setting.position + 1 + usize::from(setting.value.is_some());
            let mut without = argv.clone();
            let words: Vec<OsString> = without.drain(setting.position..end).collect();
            let mut twice = argv.clone();
            twice.splice(end..end, words);
            for changed in [without, twice] {
                if let Err(why) = oracle.check(&changed) {
                    prop_assert!(false, "-{}: {why}\n{}", setting.name, recipe.command());
                }
            }
            let Some(value) = &setting.value else { continue };
            if setting.name != "vf" && setting.name != "filter_complex" {
                continue;
            }
            let filters = oracle::split(value.to_str().expect("templates are text"), ',');
            for place in 0..filters.len() {
                let mut fewer = filters.clone();
                fewer.remove(place);
                let mut changed = argv.clone();
                changed[setting.position + 1] = fewer.join(",").into();
                if let Err(why) = oracle.check(&changed) {
                    prop_assert!(false, "without {}: {why}\n{}", filters[place], recipe.command());
                }
            }
        }
    }
}

#[test]
fn a_value_that_is_not_text_is_no_plan() {
    use std::os::unix::ffi::OsStringExt;
    let argv = Recipe::plain().argv();
    assert!(matches!(plan(&argv), Plan::Transcode(_)));
    for at in 0..argv.len() {
        let mut spoilt = argv.clone();
        spoilt[at] = OsString::from_vec(b"\xff\xfe".to_vec());
        assert!(matches!(plan(&spoilt), Plan::Passthrough(_)), "{:?}", argv[at]);
    }
}
