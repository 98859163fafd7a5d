//! Commands of the corpus with one thing wrong: an argument dropped, doubled, swapped or corrupted.
//! Each is refused, or planned to the same but for what the argument says ([`oracle`]).
//!
//! `RENDERGATE_MUTATIONS` sets how many are drawn at random; `./dev mutations` draws 100,000.

mod oracle;

use std::ffi::OsString;
use std::path::PathBuf;
use std::{env, fs};

use ffmpeg_args::{parse, split_command_line};
use oracle::{Oracle, split};

const DEFAULT_MUTATIONS: usize = 20_000;

/// The commands of the corpus that are planned.
fn planned() -> Vec<(String, Vec<OsString>, Oracle)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut commands = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let line = text.lines().find(|line| !line.starts_with('#')).expect("a command");
        let options = line.find(" -").expect("an option");
        let argv: Vec<OsString> =
            split_command_line(&line[options..]).into_iter().map(OsString::from).collect();
        if let Some(oracle) = Oracle::new(&argv) {
            commands.push((file.file_stem().unwrap().display().to_string(), argv, oracle));
        }
    }
    assert!(commands.len() >= 29, "only {} commands are planned", commands.len());
    commands
}

/// SplitMix64: the same numbers every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}

/// One thing wrong with a text: a character dropped, doubled, swapped with the next, replaced; cut.
fn corrupted(text: &str, dice: &mut Dice) -> String {
    const REPLACEMENTS: &[char] = &[
        '0', '1', '9', '-', '.', ':', ',', '=', ' ', 'x', '\\', '\'', '%', '/', '|', ';', '[', 'é',
    ];
    let mut chars: Vec<char> = text.chars().collect();
    if chars.is_empty() {
        return REPLACEMENTS[dice.roll(REPLACEMENTS.len())].to_string();
    }
    let at = dice.roll(chars.len());
    match dice.roll(6) {
        0 => _ = chars.remove(at),
        1 => chars.insert(at, chars[at]),
        2 => chars.swap(at, (at + 1) % text.chars().count()),
        3 => chars[at] = REPLACEMENTS[dice.roll(REPLACEMENTS.len())],
        4 => chars.insert(at, REPLACEMENTS[dice.roll(REPLACEMENTS.len())]),
        _ => chars.truncate(at),
    }
    chars.into_iter().collect()
}

/// One thing wrong with a list.
fn shuffled<T: Clone>(list: &mut Vec<T>, dice: &mut Dice) {
    let (a, b) = (dice.roll(list.len()), dice.roll(list.len()));
    match dice.roll(3) {
        0 => _ = list.remove(a),
        1 => list.insert(b, list[a].clone()),
        _ => list.swap(a, b),
    }
}

fn text(word: &OsString) -> String {
    word.to_str().expect("the corpus is text").to_owned()
}

/// One thing wrong with a command: a word, an option with its value, a filter, a filter's option.
fn mutated(argv: &[OsString], dice: &mut Dice) -> Vec<OsString> {
    let mut argv = argv.to_vec();
    match dice.roll(6) {
        0 => shuffled(&mut argv, dice),
        1 => {
            let at = dice.roll(argv.len());
            argv[at] = corrupted(&text(&argv[at]), dice).into();
        }
        // Whole options, with their values.
        2 => {
            let (place, length) = option(&argv, dice);
            let moved: Vec<OsString> = argv[place..place + length].to_vec();
            let copies = dice.roll(3);
            if copies < 2 {
                argv.drain(place..place + length);
            }
            if copies > 0 {
                let (to, _) = option(&argv, dice);
                argv.splice(to..to, moved);
            }
        }
        // Values, of one option or of two.
        3 => {
            let at = value(&argv, dice);
            argv[at] = corrupted(&text(&argv[at]), dice).into();
        }
        4 => {
            let (a, b) = (value(&argv, dice), value(&argv, dice));
            argv.swap(a, b);
        }
        _ => {
            let named =
                |word: &OsString| word == "-vf" || word == "-af" || word == "-filter_complex";
            let Some(at) = argv.iter().position(named) else { return argv };
            let mut filters = split(&text(&argv[at + 1]), ',');
            let which = dice.roll(filters.len());
            match dice.roll(3) {
                0 => shuffled(&mut filters, dice),
                1 => {
                    let (name, options) = match filters[which].split_once('=') {
                        Some((name, options)) => (name.to_owned(), options.to_owned()),
                        None => (filters[which].clone(), String::new()),
                    };
                    let mut options = split(&options, ':');
                    shuffled(&mut options, dice);
                    filters[which] = format!("{name}={}", options.join(":"));
                }
                _ => filters[which] = corrupted(&filters[which], dice),
            }
            argv[at + 1] = filters.join(",").into();
        }
    }
    argv
}

/// Place and length of a random option.
fn option(argv: &[OsString], dice: &mut Dice) -> (usize, usize) {
    let arguments = parse(argv).expect("the corpus is parsed");
    let files = arguments.inputs.iter().chain(&arguments.outputs).flat_map(|file| &file.settings);
    let settings: Vec<_> = files.chain(&arguments.globals).collect();
    let setting = settings[dice.roll(settings.len())];
    (setting.position, 1 + usize::from(setting.value.is_some()))
}

/// Place of a random option's value.
fn value(argv: &[OsString], dice: &mut Dice) -> usize {
    loop {
        if let (place, 2) = option(argv, dice) {
            return place + 1;
        }
    }
}

#[test]
fn no_random_fault_is_overlooked() {
    let count = match env::var("RENDERGATE_MUTATIONS") {
        Ok(count) => count.parse().expect("RENDERGATE_MUTATIONS is a number"),
        Err(_) => DEFAULT_MUTATIONS,
    };
    let commands = planned();
    let mut dice = Dice(0);
    let mut failures = Vec::new();
    let mut again = 0;
    for round in 0..count {
        let (name, argv, oracle) = &commands[round % commands.len()];
        let changed = mutated(argv, &mut dice);
        match oracle.check(&changed) {
            Ok(planned) => again += usize::from(planned),
            Err(why) => failures.push(format!("{name}: {why}\n    {}", difference(argv, &changed))),
        }
    }
    assert!(
        failures.is_empty(),
        "{} faults:\n{}",
        failures.len(),
        failures[..failures.len().min(40)].join("\n")
    );
    // Were nearly all of them refused, nothing would have been compared.
    assert!(again > count / 10, "only {again} of {count} were planned again");
    println!("{count} commands with a fault: {again} planned again, the others refused");
}

/// Every single option is missed when it is gone.
#[test]
fn no_option_goes_without_notice() {
    for (name, argv, oracle) in planned() {
        let arguments = parse(&argv).unwrap();
        let files = arguments.inputs.iter().chain(&arguments.outputs);
        for setting in files.flat_map(|file| &file.settings).chain(&arguments.globals) {
            let mut changed = argv.clone();
            let end = setting.position + 1 + usize::from(setting.value.is_some());
            changed.drain(setting.position..end);
            if let Err(why) = oracle.check(&changed) {
                panic!("{name} without -{}: {why}", setting.name);
            }
        }
        for at in 0..argv.len() {
            let mut changed = argv.clone();
            let word = changed.remove(at);
            if let Err(why) = oracle.check(&changed) {
                panic!("{name} without the word {word:?}: {why}");
            }
        }
    }
}

/// The words in which two commands differ.
fn difference(before: &[OsString], after: &[OsString]) -> String {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let rest = (&before[head..], &after[head..]);
    let tail = rest.0.iter().rev().zip(rest.1.iter().rev()).take_while(|(a, b)| a == b).count();
    let shown = |words: &[OsString]| {
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    let (before, after) = (&rest.0[..rest.0.len() - tail], &rest.1[..rest.1.len() - tail]);
    format!("{}\n -> {}", shown(before), shown(after))
}
