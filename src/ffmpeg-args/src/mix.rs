//! `pan`: a mix of channels by formula (contract 2.1 audioArgs).
//!
//! ```text
//! pan=stereo|c0=0.5*c2+0.707*c0+0.707*c4+0.5*c3|c1=0.5*c2+0.707*c1+0.707*c5+0.5*c3
//! ```
//!
//! Jellyfin mixes eight channels in two steps, to six and then to two. Both steps are sums, so they
//! are one sum, which is what the plan has.
//!
//! Invariant: a mix names as many channels as its layout has, and none of a step between.

use crate::filters::Filter;
use crate::numbers::{decimal, whole};
use crate::{Mix, MixedChannel, SourceChannel, Verdict};

/// Layouts and their channels, in order, by ffmpeg's names.
const LAYOUTS: &[(&str, &[&str])] = &[
    ("mono", &["FC"]),
    ("stereo", &["FL", "FR"]),
    ("2.1", &["FL", "FR", "LFE"]),
    ("3.0", &["FL", "FR", "FC"]),
    ("4.0", &["FL", "FR", "FC", "BC"]),
    ("quad", &["FL", "FR", "BL", "BR"]),
    ("5.0", &["FL", "FR", "FC", "BL", "BR"]),
    ("5.0(side)", &["FL", "FR", "FC", "SL", "SR"]),
    ("5.1", &["FL", "FR", "FC", "LFE", "BL", "BR"]),
    ("5.1(side)", &["FL", "FR", "FC", "LFE", "SL", "SR"]),
    ("6.1", &["FL", "FR", "FC", "LFE", "BC", "SL", "SR"]),
    ("7.0", &["FL", "FR", "FC", "BL", "BR", "SL", "SR"]),
    ("7.1", &["FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"]),
];

/// Channels that a formula may name, beyond those of the layouts above.
const OTHER_CHANNELS: &[&str] = &["FLC", "FRC", "TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR"];

/// Greatest number of a source's channel.
const LAST_CHANNEL: u32 = 63;

/// Channels of a layout, in order.
pub(crate) fn channels(layout: &str) -> Option<&'static [&'static str]> {
    LAYOUTS.iter().find(|(name, _)| *name == layout).map(|(_, channels)| *channels)
}

/// Reads one `pan`.
pub(crate) fn read(filter: &Filter) -> Verdict<Mix> {
    let mut options = filter.options(&["args"])?;
    let mix = options.require("args", parse)?;
    options.finish()?;
    Ok(mix)
}

/// What two mixes one behind the other make, `None` if that is no mix of the source's channels.
pub(crate) fn behind(first: &Mix, second: &Mix) -> Option<Mix> {
    let between = channels(&first.layout)?;
    let outputs = second.outputs.iter().map(|output| {
        let mut gains: Vec<(SourceChannel, f64)> = Vec::new();
        for (channel, outer) in &output.gains {
            let place = match channel {
                SourceChannel::Number(number) => *number as usize,
                SourceChannel::Name(name) => between.iter().position(|other| other == name)?,
            };
            for (source, inner) in &first.outputs.get(place)?.gains {
                add(&mut gains, source.clone(), outer * inner);
            }
        }
        Some(MixedChannel { gains, normalised: false })
    });
    let plain = first.outputs.iter().chain(&second.outputs).all(|output| !output.normalised);
    let outputs = outputs.collect::<Option<Vec<_>>>().filter(|_| plain)?;
    Some(Mix { layout: second.layout.clone(), outputs })
}

fn add(gains: &mut Vec<(SourceChannel, f64)>, channel: SourceChannel, gain: f64) {
    match gains.iter_mut().find(|(other, _)| *other == channel) {
        Some((_, sum)) => *sum += gain,
        None => gains.push((channel, gain)),
    }
}

fn parse(text: &str) -> Option<Mix> {
    let mut parts = text.split('|').map(str::trim);
    let layout = parts.next()?;
    let names = channels(layout)?;
    let mut outputs: Vec<Option<MixedChannel>> = vec![None; names.len()];
    for part in parts {
        let at = part.find(['=', '<'])?;
        let place = match source(part[..at].trim())? {
            SourceChannel::Number(number) => number as usize,
            SourceChannel::Name(name) => names.iter().position(|other| *other == name)?,
        };
        let output = outputs.get_mut(place).filter(|output| output.is_none())?;
        let normalised = part[at..].starts_with('<');
        *output = Some(MixedChannel { gains: sum(&part[at + 1..])?, normalised });
    }
    let outputs = outputs.into_iter().collect::<Option<Vec<_>>>()?;
    // ffmpeg takes numbers or names, not both.
    let mut sources = outputs.iter().flat_map(|output| &output.gains).map(|(channel, _)| channel);
    let numbered = matches!(sources.next()?, SourceChannel::Number(_));
    let alike = sources.all(|channel| matches!(channel, SourceChannel::Number(_)) == numbered);
    alike.then(|| Mix { layout: layout.to_owned(), outputs })
}

/// `0.5*c2+0.707*c0-c1`.
fn sum(text: &str) -> Option<Vec<(SourceChannel, f64)>> {
    let text = text.replace(' ', "");
    let mut gains = Vec::new();
    let mut rest = text.as_str();
    let mut sign = 1.0;
    loop {
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let (gain, name) = match rest[..end].split_once('*') {
            Some((gain, name)) => (decimal(gain)?, name),
            None => (1.0, &rest[..end]),
        };
        let channel = source(name)?;
        if gains.iter().any(|(other, _)| *other == channel) {
            return None;
        }
        gains.push((channel, sign * gain));
        match rest[end..].chars().next() {
            None => return Some(gains),
            Some(next) => sign = if next == '-' { -1.0 } else { 1.0 },
        }
        rest = &rest[end + 1..];
    }
}

fn source(name: &str) -> Option<SourceChannel> {
    if let Some(number) = name.strip_prefix('c') {
        let number = whole(number).filter(|number| *number <= LAST_CHANNEL)?;
        return Some(SourceChannel::Number(number));
    }
    let mut names = LAYOUTS.iter().flat_map(|(_, names)| *names).chain(OTHER_CHANNELS);
    names.any(|other| *other == name).then(|| SourceChannel::Name(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::parse_chain;

    fn mix(text: &str) -> Option<Mix> {
        read(&parse_chain(text).ok()?[0]).ok()
    }

    fn numbered(output: &MixedChannel) -> Vec<(u32, f64)> {
        let number = |(channel, gain): &(SourceChannel, f64)| match channel {
            SourceChannel::Number(number) => (*number, *gain),
            SourceChannel::Name(name) => panic!("{name} isn't numbered"),
        };
        output.gains.iter().map(number).collect()
    }

    #[test]
    fn formulas_are_gains() {
        let night = mix("pan=stereo|c0=c2+0.30*c0+0.30*c4|c1=c2+0.30*c1+0.30*c5").unwrap();
        assert_eq!(night.layout, "stereo");
        assert_eq!(numbered(&night.outputs[0]), [(2, 1.0), (0, 0.3), (4, 0.3)]);
        assert_eq!(numbered(&night.outputs[1]), [(2, 1.0), (1, 0.3), (5, 0.3)]);
        let named = mix("pan=stereo| FR < FC - 0.5*FR | FL < FC").unwrap();
        assert!(named.outputs.iter().all(|output| output.normalised));
        let name = |name: &str| SourceChannel::Name(name.to_owned());
        assert_eq!(named.outputs[0].gains, [(name("FC"), 1.0)]);
        assert_eq!(named.outputs[1].gains, [(name("FC"), 1.0), (name("FR"), -0.5)]);
    }

    #[test]
    fn two_steps_are_one_sum() {
        let first =
            mix("pan=5.1(side)|c0=c0|c1=c1|c2=c2|c3=c3|c4=0.5*c4+0.25*c6|c5=0.5*c5+0.25*c7");
        let second = mix("pan=stereo|c0=c0+0.5*c4+0.5*c2|c1=c1+2*c5");
        let (first, second) = (first.unwrap(), second.unwrap());
        let both = behind(&first, &second).unwrap();
        assert_eq!(both.layout, "stereo");
        assert_eq!(numbered(&both.outputs[0]), [(0, 1.0), (4, 0.25), (6, 0.125), (2, 0.5)]);
        assert_eq!(numbered(&both.outputs[1]), [(1, 1.0), (5, 1.0), (7, 0.5)]);
        let names = mix("pan=stereo|FL=FL+SL|FR=FR").unwrap();
        let both = behind(&first, &names).unwrap();
        assert_eq!(numbered(&both.outputs[0]), [(0, 1.0), (4, 0.5), (6, 0.25)]);
        let gone = mix("pan=stereo|c0=c0+c6|c1=c1").unwrap();
        assert_eq!(behind(&first, &gone), None);
        let normalised = mix("pan=stereo|c0<c0+c5|c1<c1").unwrap();
        assert_eq!(behind(&first, &normalised), None);
    }

    #[test]
    fn other_formulas_are_refused() {
        for text in [
            "pan",
            "pan=stereo",
            "pan=stereo|c0=c0",
            "pan=stereo|c0=c0|c0=c1",
            "pan=stereo|c0=c0|c2=c1",
            "pan=stereo|c0=c0|c1=FR",
            "pan=stereo|c0=c0+c0|c1=c1",
            "pan=stereo|c0=2*|c1=c1",
            "pan=stereo|c0=c99|c1=c1",
            "pan=stereo|c0=x*c0|c1=c1",
            "pan=3c|c0=c0|c1=c1|c2=c2",
            "pan=stereo|FL=XX|FR=FR",
            "pan=stereo|c0=c0|c1=c1:x=1",
        ] {
            assert_eq!(mix(text), None, "{text}");
        }
    }
}
