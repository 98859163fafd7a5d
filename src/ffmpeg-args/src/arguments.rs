//! argv as it stands: options bound to the file they precede, nothing interpreted.
//!
//! ffmpeg binds an option to the next input or output; a few belong to the whole run wherever they
//! stand. [`parse`] records just that. What an option means, and whether it may stand where it
//! does, is for the plan.
//!
//! Invariants:
//! - Every word of argv is kept, with its place: [`Arguments::to_argv`] gives it back unchanged,
//!   bytes that are not UTF-8 included.
//! - Without knowing whether an option takes a value there is no reading on: the first unknown
//!   option ends parsing with a [`Passthrough`] that names it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::options::{Binds, Takes, lookup};
use crate::{Passthrough, Verdict};

/// An option and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Place of the option in argv, counted from 0.
    pub position: usize,
    /// Spelling without the dash, stream specifier included (`codec:v:0`).
    pub name: String,
    /// The word that follows it, if it takes one.
    pub value: Option<OsString>,
}

/// An input or output with the options in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Place of [`File::url`] in argv, counted from 0.
    pub position: usize,
    /// What stands behind `-i`, or the bare word of an output.
    pub url: OsString,
    /// Its options in order.
    pub settings: Vec<Setting>,
}

/// A command line, split into the run, its inputs and its outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Options of the whole run, in order.
    pub globals: Vec<Setting>,
    /// `-i`, in order.
    pub inputs: Vec<File>,
    /// Outputs, in order.
    pub outputs: Vec<File>,
    /// Options behind the last file, which bind to nothing.
    pub trailing: Vec<Setting>,
}

impl Arguments {
    /// Whether one of ffmpeg's questions is asked (`-version`, `-h filter=scale`): it answers the
    /// first and exits.
    pub fn question(&self) -> Option<&Setting> {
        self.globals
            .iter()
            .find(|setting| matches!(lookup(&setting.name), Some((Takes::Answer, _))))
    }

    /// The words that were parsed.
    pub fn to_argv(&self) -> Vec<OsString> {
        let mut words: Vec<(usize, OsString)> = Vec::new();
        let files = self.inputs.iter().map(|file| (file, true));
        for (file, input) in files.chain(self.outputs.iter().map(|file| (file, false))) {
            if input {
                words.push((file.position - 1, "-i".into()));
            }
            words.push((file.position, file.url.clone()));
        }
        let bound = self.inputs.iter().chain(&self.outputs).flat_map(|file| &file.settings);
        for setting in bound.chain(&self.globals).chain(&self.trailing) {
            words.push((setting.position, format!("-{}", setting.name).into()));
            if let Some(value) = &setting.value {
                words.push((setting.position + 1, value.clone()));
            }
        }
        words.sort_by_key(|(position, _)| *position);
        words.into_iter().map(|(_, word)| word).collect()
    }
}

/// Reads argv (without the program's name).
///
/// # Errors
/// A [`Passthrough`] when an option is not in the table or lacks its value: from there on nothing
/// can be said about the words that follow.
pub fn parse(argv: &[OsString]) -> Verdict<Arguments> {
    let mut arguments = Arguments::default();
    let mut pending = Vec::new();
    let mut words = argv.iter().enumerate();
    while let Some((position, word)) = words.next() {
        let Some(name) = option_name(word)? else {
            let settings = std::mem::take(&mut pending);
            arguments.outputs.push(File { position, url: word.clone(), settings });
            continue;
        };
        let mut value = || match words.next() {
            Some((_, value)) => Ok(value.clone()),
            None => Err(Passthrough::unknown(format!("-{name} has no value"))),
        };
        if name == "i" {
            let settings = std::mem::take(&mut pending);
            arguments.inputs.push(File { position: position + 1, url: value()?, settings });
            continue;
        }
        let (takes, binds) = lookup(name)
            .ok_or_else(|| Passthrough::unknown(format!("-{name} is not a known option")))?;
        let value = match takes {
            Takes::Nothing => None,
            Takes::Value => Some(value()?),
            Takes::Answer => value().ok(),
        };
        let setting = Setting { position, name: name.to_owned(), value };
        match binds {
            Binds::Run => arguments.globals.push(setting),
            Binds::File => pending.push(setting),
        }
    }
    arguments.trailing = pending;
    Ok(arguments)
}

/// The option's name, or `None` for the name of an output (ffmpeg takes a lone dash for one).
fn option_name(word: &OsStr) -> Verdict<Option<&str>> {
    match word.as_bytes() {
        [b'-', _, ..] => match word.to_str() {
            Some(text) => Ok(Some(&text[1..])),
            None => Err(Passthrough::unknown(format!("{} is not UTF-8", word.display()))),
        },
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn argv(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn names(settings: &[Setting]) -> Vec<&str> {
        settings.iter().map(|setting| setting.name.as_str()).collect()
    }

    #[test]
    fn options_bind_to_the_file_they_precede() {
        let words = argv(&[
            "-ss", "1", "-i", "a", "-copyts", "-ss", "2", "-i", "b", "-map", "0:0", "-y", "c",
        ]);
        let arguments = parse(&words).unwrap();
        assert_eq!(names(&arguments.globals), ["copyts", "y"]);
        assert_eq!(names(&arguments.inputs[0].settings), ["ss"]);
        assert_eq!(arguments.inputs[1].settings[0].value.as_deref(), Some(OsStr::new("2")));
        assert_eq!(arguments.outputs[0].url, "c");
        assert_eq!(names(&arguments.outputs[0].settings), ["map"]);
        assert_eq!(arguments.to_argv(), words);
    }

    #[test]
    fn a_value_may_look_like_an_option_or_be_empty() {
        let words = argv(&["-dump_attachment:t", "", "-i", "a", "-sei", "-a53_cc", "-"]);
        let arguments = parse(&words).unwrap();
        assert_eq!(arguments.inputs[0].settings[0].value.as_deref(), Some(OsStr::new("")));
        assert_eq!(arguments.outputs[0].settings[0].value.as_deref(), Some(OsStr::new("-a53_cc")));
        assert_eq!(arguments.outputs[0].url, "-");
        assert_eq!(arguments.to_argv(), words);
    }

    #[test]
    fn a_question_may_go_without_a_word() {
        assert_eq!(parse(&argv(&["-version"])).unwrap().question().unwrap().value, None);
        let help = parse(&argv(&["-h", "filter=scale"])).unwrap();
        assert_eq!(help.question().unwrap().value.as_deref(), Some(OsStr::new("filter=scale")));
    }

    #[test]
    fn options_behind_the_last_file_are_kept_apart() {
        let arguments = parse(&argv(&["-i", "a", "b", "-sn"])).unwrap();
        assert_eq!(names(&arguments.trailing), ["sn"]);
    }

    #[test]
    fn bytes_that_are_not_text_survive_in_file_names() {
        let words = vec!["-i".into(), OsString::from_vec(b"/m/\xff.mkv".to_vec()), "out".into()];
        let arguments = parse(&words).unwrap();
        assert_eq!(arguments.inputs[0].url, words[1]);
        assert_eq!(arguments.to_argv(), words);
    }

    #[test]
    fn the_first_unknown_option_is_named() {
        for (words, named) in [
            (vec!["-frobnicate", "1", "-i", "a", "b"], "-frobnicate"),
            (vec!["-i"], "-i has no value"),
            (vec!["-i", "a", "-crf"], "-crf has no value"),
            (vec!["--", "a"], "--"),
        ] {
            let refusal = parse(&argv(&words)).unwrap_err();
            assert!(refusal.reason.contains(named), "{words:?}: {}", refusal.reason);
        }
    }
}
