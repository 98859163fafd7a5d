//! Options not yet read, so that none is dropped in silence.
//!
//! Each rule takes the options it understands; what is left when all rules are through is what
//! nobody understood, and [`Unread::finish`] refuses the command naming it.
//!
//! Invariant: an option given twice with different values is refused, for which of them counts
//! depends on the option and on ffmpeg's version.

use std::ffi::OsStr;

use crate::Passthrough;
use crate::Verdict;
use crate::arguments::Setting;

/// Spellings of one option: base names, each with the stream specifiers it may carry (`""` for
/// none).
pub(crate) type Spellings = &'static [(&'static str, &'static [&'static str])];

/// Options that leave nothing in a plan, with the values for which that holds.
pub(crate) type Effectless = &'static [(Spellings, fn(&str) -> bool)];

/// No stream specifier.
pub(crate) const BARE: &[&str] = &[""];
/// The video stream, named.
pub(crate) const VIDEO: &[&str] = &["v:0", "v"];
/// The video stream, named, by its place in the output or not at all: for options that no audio
/// encoder has.
pub(crate) const VIDEO_OR_BARE: &[&str] = &["v:0", "v", "0", ""];
/// The audio stream, named.
pub(crate) const AUDIO: &[&str] = &["a:0", "a"];
/// The audio stream, named or not.
pub(crate) const AUDIO_OR_BARE: &[&str] = &["a:0", "a", ""];
/// Any stream or none.
pub(crate) const ANY: &[&str] = &["v:0", "v", "a:0", "a", "0", ""];

/// Options of the run or of one file, of which some have been read.
#[derive(Debug)]
pub(crate) struct Unread<'a> {
    settings: Vec<&'a Setting>,
}

impl<'a> Unread<'a> {
    pub(crate) fn new(settings: &'a [Setting]) -> Self {
        Self { settings: settings.iter().collect() }
    }

    /// The settings not yet taken.
    pub(crate) fn settings(&self) -> impl Iterator<Item = &'a Setting> {
        self.settings.iter().copied()
    }

    /// Takes every setting with one of these spellings, in order.
    pub(crate) fn take_all(&mut self, spellings: Spellings) -> Vec<&'a Setting> {
        let (taken, left) =
            self.settings.drain(..).partition(|setting| is_spelled(&setting.name, spellings));
        self.settings = left;
        taken
    }

    /// Takes an option that counts once. Repetition with the same value is no contradiction:
    /// Jellyfin writes `-strict -2` for video and again for audio.
    pub(crate) fn take(&mut self, spellings: Spellings) -> Verdict<Option<&'a Setting>> {
        let taken = self.take_all(spellings);
        match taken.split_first() {
            None => Ok(None),
            Some((first, others)) => match others.iter().find(|other| other.value != first.value) {
                None => Ok(Some(first)),
                Some(other) => Err(Passthrough::unknown(format!(
                    "{} after {}: given twice with different values",
                    shown(other),
                    shown(first)
                ))),
            },
        }
    }

    /// Takes an option without a value.
    pub(crate) fn flag(&mut self, name: Spellings) -> bool {
        !self.take_all(name).is_empty()
    }

    /// Takes an option and reads its value.
    pub(crate) fn read<T>(
        &mut self,
        spellings: Spellings,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Verdict<Option<T>> {
        let Some(setting) = self.take(spellings)? else { return Ok(None) };
        match value(setting).and_then(read) {
            Some(value) => Ok(Some(value)),
            None => Err(Passthrough::unknown(shown(setting))),
        }
    }

    /// Takes the options of a table that change nothing.
    pub(crate) fn drop_effectless(&mut self, table: Effectless) -> Verdict<()> {
        table.iter().try_for_each(|(spellings, harmless)| {
            self.read(spellings, |value| harmless(value).then_some(())).map(drop)
        })
    }

    /// Takes an option that the command can't be without.
    pub(crate) fn require<T>(
        &mut self,
        spellings: Spellings,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Verdict<T> {
        match self.read(spellings, read)? {
            Some(value) => Ok(value),
            None => Err(Passthrough::unknown(format!("no -{}", spellings[0].0))),
        }
    }

    /// Refuses the command if an option is left that nobody took.
    pub(crate) fn finish(self) -> Verdict<()> {
        match self.settings.first() {
            None => Ok(()),
            Some(setting) => Err(Passthrough::unknown(shown(setting))),
        }
    }
}

/// Whether an option's full name is one of these spellings.
pub(crate) fn is_spelled(name: &str, spellings: Spellings) -> bool {
    let (base, specifier) = name.split_once(':').unwrap_or((name, ""));
    spellings.iter().any(|(b, specifiers)| *b == base && specifiers.contains(&specifier))
}

/// The value of a setting as text.
pub(crate) fn value(setting: &Setting) -> Option<&str> {
    setting.value.as_deref().and_then(OsStr::to_str)
}

/// Characters of a value that a reason shows: enough to know it by, short of a whole filter graph.
const SHOWN: usize = 80;

/// A setting as it stands on the command line, for reasons.
pub(crate) fn shown(setting: &Setting) -> String {
    let Some(value) = &setting.value else { return format!("-{}", setting.name) };
    let text = value.to_string_lossy();
    match text.char_indices().nth(SHOWN) {
        None => format!("-{} {text}", setting.name),
        Some((end, _)) => format!("-{} {}...", setting.name, &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    const RATE: Spellings = &[("ab", BARE), ("b", AUDIO)];

    fn settings(words: &[(&str, &str)]) -> Vec<Setting> {
        let setting = |(position, (name, value)): (usize, &(&str, &str))| Setting {
            position: 2 * position,
            name: (*name).to_owned(),
            value: Some(OsString::from(value)),
        };
        words.iter().enumerate().map(setting).collect()
    }

    #[test]
    fn spellings_of_one_option_are_one_option() {
        for (words, expect) in [
            (vec![("ab", "1")], Ok(Some("1"))),
            (vec![("b:a:0", "1"), ("ab", "1")], Ok(Some("1"))),
            (vec![("b:v", "1")], Ok(None)),
            (vec![("b:a", "1"), ("ab", "2")], Err("-ab 2 after -b:a 1")),
        ] {
            let settings = settings(&words);
            match (Unread::new(&settings).take(RATE), expect) {
                (Ok(taken), Ok(expect)) => assert_eq!(taken.and_then(value), expect),
                (Err(refusal), Err(named)) => assert!(refusal.reason.contains(named), "{refusal}"),
                (taken, expect) => panic!("{words:?}: {taken:?}, not {expect:?}"),
            }
        }
    }

    #[test]
    fn what_nobody_took_is_refused_by_name() {
        let settings = settings(&[("ab", "1"), ("crf", "23")]);
        let mut unread = Unread::new(&settings);
        unread.take(RATE).unwrap();
        assert_eq!(unread.finish().unwrap_err().reason, "-crf 23");
    }
}
