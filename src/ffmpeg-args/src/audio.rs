//! The sound of an HLS command (contract 2.1 audioArgs).

use crate::filters::parse_chain;
use crate::kinds::AUDIO_CODEC;
use crate::numbers::{amount, decimal, whole};
use crate::unread::{AUDIO, AUDIO_OR_BARE, BARE, Spellings, Unread, shown, value};
use crate::{Audio, AudioAction, AudioCodec, AudioEncode, Input, Passthrough, StreamRef, Verdict};

const ENCODERS: &[(&str, AudioCodec)] = &[
    ("aac", AudioCodec::Aac),
    ("libfdk_aac", AudioCodec::Aac),
    ("aac_at", AudioCodec::Aac),
    ("ac3", AudioCodec::Ac3),
    ("eac3", AudioCodec::Eac3),
    ("libmp3lame", AudioCodec::Mp3),
    ("libopus", AudioCodec::Opus),
    ("flac", AudioCodec::Flac),
];

const UNOFFERED_ENCODERS: &[&str] =
    &["libvorbis", "vorbis", "dca", "alac", "truehd", "mp2", "pcm_", "wma", "opus", "libtwolame"];

/// Filters that are understood and not offered.
const UNOFFERED_FILTERS: &[&str] =
    &["pan", "asetpts", "aresample", "adelay", "loudnorm", "dynaudnorm", "acompressor"];

const CHANNELS: Spellings = &[("ac", AUDIO_OR_BARE)];
const BITRATE: Spellings = &[("ab", BARE), ("b", AUDIO)];
const QUALITY: Spellings = &[("vbr", AUDIO), ("qscale", AUDIO), ("q", AUDIO), ("aq", BARE)];
const AVERAGE: Spellings = &[("abr", AUDIO)];
const SAMPLE_RATE: Spellings = &[("ar", AUDIO_OR_BARE)];
const FILTERS: Spellings = &[("af", BARE), ("filter", AUDIO)];
const BITSTREAM_FILTERS: Spellings = &[("bsf", AUDIO), ("absf", BARE)];

/// How far the copied sound's first time may lie off the seek: it is printed with three digits.
const TRIM_TOLERANCE_US: u64 = 1_000;

/// Reads the options of the sound.
pub(crate) fn read(unread: &mut Unread<'_>, source: StreamRef, input: &Input) -> Verdict<Audio> {
    let encoder = unread.require(AUDIO_CODEC, Some)?;
    let action = if encoder == "copy" {
        AudioAction::Copy
    } else {
        AudioAction::Encode(encode(unread, encoder)?)
    };
    bitstream_filters(unread, input.start_us)?;
    Ok(Audio { source, action })
}

fn encode(unread: &mut Unread<'_>, encoder: &str) -> Verdict<AudioEncode> {
    let Some((_, codec)) = ENCODERS.iter().find(|(name, _)| *name == encoder) else {
        let named = format!("audio encoder {encoder}");
        let known = UNOFFERED_ENCODERS.iter().any(|head| encoder.starts_with(head));
        return Err(if known { Passthrough::feature(named) } else { Passthrough::unknown(named) });
    };
    // lame's average bit rate is a bit rate to the plan.
    unread.read(AVERAGE, |value| (value == "1").then_some(()))?;
    let encode = AudioEncode {
        codec: *codec,
        channels: unread.read(CHANNELS, |text| whole(text).filter(|n| (1..=64).contains(n)))?,
        bitrate: unread.read(BITRATE, |text| amount(text).filter(|rate| *rate > 0))?,
        quality: unread.read(QUALITY, decimal)?,
        sample_rate: unread.read(SAMPLE_RATE, |text| whole(text).filter(|rate| *rate > 0))?,
        volume: volume(unread)?,
        mix: None,
    };
    if encode.bitrate.is_some() && encode.quality.is_some() {
        return Err(Passthrough::unknown("both a bit rate and a quality for the sound"));
    }
    Ok(encode)
}

fn volume(unread: &mut Unread<'_>) -> Verdict<Option<f64>> {
    let Some(setting) = unread.take(FILTERS)? else { return Ok(None) };
    let text = value(setting).ok_or_else(|| Passthrough::unknown(shown(setting)))?;
    let filters = parse_chain(text)?;
    if let Some(filter) =
        filters.iter().find(|filter| UNOFFERED_FILTERS.contains(&filter.name.as_str()))
    {
        return Err(Passthrough::feature(format!("filter {}", filter.name)));
    }
    let [filter] = filters.as_slice() else {
        return Err(Passthrough::unknown(shown(setting)));
    };
    if filter.name != "volume" {
        return Err(filter.refuse("not a known filter"));
    }
    let mut options = filter.options(&["volume"])?;
    let factor = options.read("volume", decimal)?;
    options.finish()?;
    factor.map(Some).ok_or_else(|| filter.refuse("without a factor"))
}

/// Reads `-bsf:a`: framing that the muxer brings about, and 12.0's trim of copied sound, which
/// says what an accurate seek says.
fn bitstream_filters(unread: &mut Unread<'_>, start_us: Option<u64>) -> Verdict<()> {
    let Some(setting) = unread.take(BITSTREAM_FILTERS)? else { return Ok(()) };
    let refusal = || Passthrough::unknown(shown(setting));
    for mut filter in split_outside_quotes(value(setting).unwrap_or_default()) {
        if filter == "aac_adtstoasc" {
            continue;
        }
        filter = filter.strip_prefix("noise=drop=").ok_or_else(refusal)?;
        let bound = trim_bound_us(filter).ok_or_else(refusal)?;
        if start_us.is_none_or(|start| start.abs_diff(bound) > TRIM_TOLERANCE_US) {
            return Err(refusal());
        }
    }
    Ok(())
}

/// Splits at commas outside quotes.
fn split_outside_quotes(text: &str) -> Vec<&str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '\'';
        c == ',' && !quoted
    })
    .collect()
}

/// `'lt(pts*tb\,12.500)'`, in microseconds.
fn trim_bound_us(text: &str) -> Option<u64> {
    let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).unwrap_or(text);
    let seconds = inner.strip_prefix(r"lt(pts*tb\,").or(inner.strip_prefix("lt(pts*tb,"))?;
    let seconds = decimal(seconds.strip_suffix(')')?)?;
    Some((seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trim_of_copied_sound_is_a_time() {
        for (text, expect) in [
            (r"'lt(pts*tb\,12.500)'", Some(12_500_000)),
            (r"lt(pts*tb\,3)", Some(3_000_000)),
            (r"'gt(pts*tb\,3)'", None),
            (r"'lt(pts*tb\,x)'", None),
        ] {
            assert_eq!(trim_bound_us(text), expect, "{text}");
        }
        let split = split_outside_quotes(r"noise=drop='lt(pts*tb\,3)',aac_adtstoasc");
        assert_eq!(split, [r"noise=drop='lt(pts*tb\,3)'", "aac_adtstoasc"]);
    }
}
