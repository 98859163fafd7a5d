//! A `-vf`, `-af` or `-filter_complex` value, split into chains, filters and their options.
//!
//! libavfilter unescapes twice: once when it splits the chain at commas, once when it splits a
//! filter's arguments at colons. Each time a backslash makes the next character plain, single
//! quotes make everything up to the next quote plain, and blanks around a word vanish.
//!
//! Invariants:
//! - Where a chain is asked for, text that libavfilter would read as a graph (labels, `;`) is
//!   refused, not flattened.
//! - Labels stand at the ends of a chain, where Jellyfin writes them; elsewhere they are refused.

use crate::{Passthrough, Verdict};

/// One filter of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Its name (`scale_vaapi`).
    pub name: String,
    /// Options in order; without a key they count by position.
    options: Vec<(Option<String>, String)>,
}

impl Filter {
    /// A refusal that shows this filter.
    pub(crate) fn refuse(&self, why: &str) -> Passthrough {
        Passthrough::unknown(format!("filter {}: {why}", self.name))
    }

    /// The options by name, positional ones named in the order given.
    pub(crate) fn options(&self, positional: &[&'static str]) -> Verdict<Options<'_>> {
        let mut places = positional.iter();
        let mut named = Vec::new();
        for (key, value) in &self.options {
            let key = match key {
                // libavfilter takes no positional option behind a named one.
                Some(key) => {
                    places = [].iter();
                    key.as_str()
                }
                None => places.next().ok_or_else(|| self.refuse(value))?,
            };
            if named.iter().any(|(earlier, _)| *earlier == key) {
                return Err(self.refuse(&format!("{key} given twice")));
            }
            named.push((key, value.as_str()));
        }
        Ok(Options { filter: self, named })
    }
}

/// Options of a filter not yet read.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    filter: &'a Filter,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Options<'a> {
    /// Takes an option's text.
    pub(crate) fn take(&mut self, key: &str) -> Option<&'a str> {
        let at = self.named.iter().position(|(name, _)| *name == key)?;
        Some(self.named.remove(at).1)
    }

    /// Takes an option and reads it.
    pub(crate) fn read<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Verdict<Option<T>> {
        let Some(text) = self.take(key) else { return Ok(None) };
        match read(text) {
            Some(value) => Ok(Some(value)),
            None => Err(self.filter.refuse(&format!("{key}={text}"))),
        }
    }

    /// Takes an option that the filter can't be without.
    pub(crate) fn require<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Verdict<T> {
        match self.read(key, read)? {
            Some(value) => Ok(value),
            None => Err(self.filter.refuse(&format!("without {key}"))),
        }
    }

    /// Refuses the filter if an option is left that was not taken.
    pub(crate) fn finish(self) -> Verdict<()> {
        match self.named.first() {
            None => Ok(()),
            Some((key, value)) => Err(self.filter.refuse(&format!("{key}={value}"))),
        }
    }
}

/// A chain of a graph, between its labels (`[0:3]scale[sub]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// What it takes, in order: labels, or streams of an input.
    pub inputs: Vec<String>,
    pub filters: Vec<Filter>,
    /// What it gives; nothing is labelled that goes to the output.
    pub outputs: Vec<String>,
}

/// Splits a chain of filters.
pub(crate) fn parse_chain(text: &str) -> Verdict<Vec<Filter>> {
    let refuse = |why: &str| Passthrough::unknown(format!("filter chain {text}: {why}"));
    let mut segments = parse_segments(text, &|why| refuse(&why))?;
    match (segments.pop(), segments.as_slice()) {
        (Some(Segment { inputs, filters, outputs }), [])
            if inputs.is_empty() && outputs.is_empty() =>
        {
            Ok(filters)
        }
        _ => Err(refuse("labels or ; make it a graph")),
    }
}

/// Splits a graph into its chains.
pub(crate) fn parse_graph(text: &str) -> Verdict<Vec<Segment>> {
    parse_segments(text, &|why| {
        let start = text.char_indices().nth(80).map_or(text, |(end, _)| &text[..end]);
        Passthrough::unknown(format!("filter graph {start}: {why}"))
    })
}

fn parse_segments(text: &str, refuse: &dyn Fn(String) -> Passthrough) -> Verdict<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut rest = text;
    loop {
        let (inputs, behind) = labels(rest).ok_or_else(|| refuse("a label is open".to_owned()))?;
        let (filters, behind) = parse_filters(behind, refuse)?;
        let (outputs, behind) =
            labels(behind).ok_or_else(|| refuse("a label is open".to_owned()))?;
        segments.push(Segment { inputs, filters, outputs });
        match behind.chars().next() {
            None => return Ok(segments),
            Some(';') => rest = &behind[1..],
            Some(c) => return Err(refuse(format!("{c} behind a label"))),
        }
    }
}

/// The labels at the head of a text, and what stands behind them.
fn labels(text: &str) -> Option<(Vec<String>, &str)> {
    let mut labels = Vec::new();
    let mut rest = text.trim_start_matches(BLANKS);
    while let Some(behind) = rest.strip_prefix('[') {
        let (label, behind) = behind.split_once(']')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
        if label.is_empty() || !label.chars().all(plain) {
            return None;
        }
        labels.push(label.to_owned());
        rest = behind.trim_start_matches(BLANKS);
    }
    Some((labels, rest))
}

/// The filters up to a label, a semicolon or the end, and the text from there on.
fn parse_filters<'a>(
    text: &'a str,
    refuse: &dyn Fn(String) -> Passthrough,
) -> Verdict<(Vec<Filter>, &'a str)> {
    let mut filters = Vec::new();
    let mut rest = text;
    loop {
        let open = || refuse("a quote is open at its end".to_owned());
        let (name, behind) = token(rest, "=,;[]").ok_or_else(open)?;
        rest = behind;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(refuse(format!("no filter has the name {name:?}")));
        }
        let mut options = Vec::new();
        if let Some(behind) = rest.strip_prefix('=') {
            let (arguments, behind) = token(behind, "[],;").ok_or_else(open)?;
            rest = behind;
            options = parse_options(&arguments).ok_or_else(open)?;
        }
        filters.push(Filter { name, options });
        match rest.chars().next() {
            Some(',') => rest = &rest[1..],
            None | Some(';' | '[') => return Ok((filters, rest)),
            Some(c) => return Err(refuse(format!("{c} without its other half"))),
        }
    }
}

/// Splits a filter's arguments at colons.
fn parse_options(arguments: &str) -> Option<Vec<(Option<String>, String)>> {
    let mut options = Vec::new();
    let mut rest = arguments;
    while !rest.is_empty() {
        let key = option_key(rest);
        if let Some((_, behind)) = key {
            rest = behind;
        }
        let (value, behind) = token(rest, ":")?;
        rest = behind.strip_prefix(':').unwrap_or(behind);
        options.push((key.map(|(key, _)| key.to_owned()), value));
    }
    Some(options)
}

/// `key=` at the head of a text: the key, and what stands behind the equals sign.
fn option_key(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim_matches(BLANKS);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_/.".contains(c);
    (!key.is_empty() && key.chars().all(plain)).then_some((key, value))
}

const BLANKS: &[char] = &[' ', '\n', '\t', '\r'];

/// The word up to one of `ends`, unescaped once, and the text from there on. `None` if a quote or a
/// backslash at the end waits for more, which libavfilter lets pass.
fn token<'a>(text: &'a str, ends: &str) -> Option<(String, &'a str)> {
    let text = text.trim_start_matches(BLANKS);
    let mut word = String::new();
    // Blanks behind this length are trimmed; escaped ones are in front of it.
    let mut kept = 0;
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            c if ends.contains(c) => {
                end = at;
                break;
            }
            '\\' => {
                word.push(chars.next()?.1);
                kept = word.len();
            }
            '\'' => {
                loop {
                    match chars.next()?.1 {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
                kept = word.len();
            }
            c => word.push(c),
        }
    }
    let trimmed = word[kept..].trim_end_matches(BLANKS).len();
    word.truncate(kept + trimmed);
    Some((word, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[(&str, &[(&str, &str)])]) {
        let parsed = parse_chain(text).unwrap();
        let shown: Vec<(&str, Vec<(&str, &str)>)> = parsed
            .iter()
            .map(|filter| {
                let options = filter
                    .options
                    .iter()
                    .map(|(key, value)| (key.as_deref().unwrap_or(""), value.as_str()))
                    .collect();
                (filter.name.as_str(), options)
            })
            .collect();
        let expect: Vec<_> = expect.iter().map(|(name, o)| (*name, o.to_vec())).collect();
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn chains_are_split_at_commas_and_colons() {
        check("hwupload", &[("hwupload", &[])]);
        check(
            "setparams=color_trc=bt709,scale_vaapi=w=1280:h=720:format=nv12",
            &[
                ("setparams", &[("color_trc", "bt709")]),
                ("scale_vaapi", &[("w", "1280"), ("h", "720"), ("format", "nv12")]),
            ],
        );
        check("yadif=1:-1:0", &[("yadif", &[("", "1"), ("", "-1"), ("", "0")])]);
        check("format=nv12|vaapi", &[("format", &[("", "nv12|vaapi")])]);
        check("scale=min(iw\\,1280):-2", &[("scale", &[("", "min(iw,1280)"), ("", "-2")])]);
    }

    #[test]
    fn both_levels_are_unescaped() {
        // /m/It's: a.srt as contract 0.1 escapes it.
        check(
            r"subtitles=f='/m/It'\\\''s\: a.srt':si=0",
            &[("subtitles", &[("f", "/m/It's: a.srt"), ("si", "0")])],
        );
        // The blanks survive the first level and fall at the second.
        check(r"drawtext=text=' a ' ", &[("drawtext", &[("text", "a")])]);
        check(r"a=b\\:c", &[("a", &[("", "b:c")])]);
    }

    #[test]
    fn graphs_and_gaps_are_refused() {
        for text in [
            "", ",a", "a,,b", "[0:0]a", "a[out]", "a;b", "a=b;c", "sca le=1", "a,", "a=b'c",
            r"a=b\", r"a=b\'c",
        ] {
            assert!(parse_chain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn graphs_are_split_into_labelled_chains() {
        let text = r"[0:3]scale,crop=4:2[sub] ; [0:0]null [main];[main][sub]overlay=x=1,null";
        let graph = parse_graph(text).unwrap();
        let shown: Vec<_> = graph
            .iter()
            .map(|Segment { inputs, filters, outputs }| {
                let names: Vec<&str> = filters.iter().map(|filter| &*filter.name).collect();
                (inputs.join(" "), names.join(" "), outputs.join(" "))
            })
            .collect();
        let expect = [
            ("0:3", "scale crop", "sub"),
            ("0:0", "null", "main"),
            ("main sub", "overlay null", ""),
        ];
        let own = |(a, b, c): (&str, &str, &str)| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(shown, expect.map(own));
        // Quotes and escapes hide what would divide.
        let text = r"alphasrc=start='0\:1',subtitles=f='/m/[a];b, \:c.ass'[sub]";
        let [chain] = &parse_graph(text).unwrap()[..] else { panic!("one chain") };
        assert_eq!(chain.filters.len(), 2);
        let mut options = chain.filters[1].options(&[]).unwrap();
        assert_eq!(options.take("f"), Some("/m/[a];b, :c.ass"));
        for text in
            ["", "[a", "[a]", "[]null", "null;", ";null", "null[a],null", "[a b]null", "null]"]
        {
            assert!(parse_graph(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_count_by_position_until_one_is_named() {
        let names = &["mode", "parity"];
        let filter = |text| parse_chain(text).unwrap().remove(0);
        let named = filter("yadif=1:parity=-1");
        let mut options = named.options(names).unwrap();
        assert_eq!((options.take("mode"), options.take("parity")), (Some("1"), Some("-1")));
        assert!(options.finish().is_ok());
        assert!(filter("yadif=parity=1:0").options(names).is_err());
        assert!(filter("yadif=1:2:3").options(names).is_err());
        assert!(filter("yadif=1:mode=2").options(names).is_err());
        let unknown = filter("yadif=x=1");
        let refusal = unknown.options(names).unwrap().finish().unwrap_err();
        assert!(refusal.reason.contains("yadif: x=1"), "{refusal}");
    }
}
