//! The sound of a command (contract 2.1 audioArgs, 2.7).

use crate::filters::parse_chain;
use crate::kinds::AUDIO_CODEC;
use crate::numbers::{amount, decimal, whole};
use crate::unread::{AUDIO, AUDIO_OR_BARE, BARE, Spellings, Unread, shown, value};
use crate::{
    Audio, AudioAction, AudioCodec, AudioEncode, Input, Mix, Passthrough, StreamRef, Verdict, mix,
    subtitles,
};

const ENCODERS: &[(&str, AudioCodec)] = &[
    ("aac", AudioCodec::Aac),
    ("libfdk_aac", AudioCodec::Aac),
    ("aac_at", AudioCodec::Aac),
    ("ac3", AudioCodec::Ac3),
    ("eac3", AudioCodec::Eac3),
    ("libmp3lame", AudioCodec::Mp3),
    ("libopus", AudioCodec::Opus),
    ("libvorbis", AudioCodec::Vorbis),
    ("flac", AudioCodec::Flac),
];

const UNOFFERED_ENCODERS: &[&str] =
    &["vorbis", "dca", "alac", "truehd", "mp2", "pcm_", "wma", "opus", "libtwolame"];

/// Filters that are understood and not offered.
const UNOFFERED_FILTERS: &[&str] =
    &["aresample", "adelay", "loudnorm", "dynaudnorm", "acompressor"];

const CHANNELS: Spellings = &[("ac", AUDIO_OR_BARE)];
const BITRATE: Spellings = &[("ab", BARE), ("b", AUDIO)];
const FDK_QUALITY: Spellings = &[("vbr", AUDIO)];
const QUALITY: Spellings = &[("qscale", AUDIO), ("q", AUDIO), ("aq", BARE)];
const AVERAGE: Spellings = &[("abr", AUDIO)];
const APPLE_MODE: Spellings = &[("aac_at_mode", AUDIO)];
const SAMPLE_RATE: Spellings = &[("ar", AUDIO_OR_BARE)];
const FILTERS: Spellings = &[("af", BARE), ("filter", AUDIO)];
const BITSTREAM_FILTERS: Spellings = &[("bsf", AUDIO), ("absf", BARE)];

/// How far the copied sound's first time may lie off the seek: it is printed with three digits.
const TRIM_TOLERANCE_US: u64 = 1_000;

/// What a command says of its sound.
#[derive(Debug)]
pub(crate) struct Sound {
    pub audio: Audio,
    /// `asetpts=PTS-N/TB`, s.
    pub shift_seconds: Option<f64>,
}

/// Reads the options of the sound. With sound alone in a file of its own (`alone`, contract 2.7)
/// Jellyfin says rate and channels of copied sound as well, which ffmpeg passes over.
pub(crate) fn read(
    unread: &mut Unread<'_>,
    source: StreamRef,
    input: &Input,
    alone: bool,
) -> Verdict<Sound> {
    let encoder = unread.require(AUDIO_CODEC, Some)?;
    let (action, shift_seconds) = if encoder == "copy" {
        if alone {
            unread.read(BITRATE, rate)?;
            unread.read(CHANNELS, channels)?;
            unread.read(SAMPLE_RATE, sample_rate)?;
        }
        (AudioAction::Copy, None)
    } else {
        let (encode, shift) = encode(unread, encoder)?;
        (AudioAction::Encode(encode), shift)
    };
    bitstream_filters(unread, input.start_us)?;
    Ok(Sound { audio: Audio { source, action }, shift_seconds })
}

fn encode(unread: &mut Unread<'_>, encoder: &str) -> Verdict<(AudioEncode, Option<f64>)> {
    let Some((_, codec)) = ENCODERS.iter().find(|(name, _)| *name == encoder) else {
        let named = format!("audio encoder {encoder}");
        let known = UNOFFERED_ENCODERS.iter().any(|head| encoder.starts_with(head));
        return Err(if known { Passthrough::feature(named) } else { Passthrough::unknown(named) });
    };
    let Filters { mix, volume, shift_seconds } = filters(unread)?;
    let encode = AudioEncode {
        codec: *codec,
        channels: unread.read(CHANNELS, channels)?,
        bitrate: unread.read(BITRATE, rate)?,
        quality: quality(unread, encoder)?,
        sample_rate: unread.read(SAMPLE_RATE, sample_rate)?,
        volume,
        mix,
    };
    if encode.bitrate.is_some() && encode.quality.is_some() {
        return Err(Passthrough::unknown("both a bit rate and a quality for the sound"));
    }
    if let (Some(mix), Some(channels)) = (&encode.mix, encode.channels)
        && mix.outputs.len() != channels as usize
    {
        let layout = &mix.layout;
        return Err(Passthrough::unknown(format!("-ac {channels} behind a mix to {layout}")));
    }
    Ok((encode, shift_seconds))
}

fn channels(text: &str) -> Option<u32> {
    whole(text).filter(|n| (1..=64).contains(n))
}

fn rate(text: &str) -> Option<u64> {
    amount(text).filter(|rate| *rate > 0)
}

fn sample_rate(text: &str) -> Option<u32> {
    whole(text).filter(|rate| *rate > 0)
}

/// Reads the quality of a variable bit rate, each encoder's in its own option. An average bit rate
/// is a bit rate to the plan, for lame (`-abr`) as for Apple's AAC (`-aac_at_mode 2`).
fn quality(unread: &mut Unread<'_>, encoder: &str) -> Verdict<Option<f64>> {
    match encoder {
        "libfdk_aac" => unread.read(FDK_QUALITY, |text| {
            whole(text).filter(|mode| (1u8..=5).contains(mode)).map(f64::from)
        }),
        "libmp3lame" => {
            unread.read(AVERAGE, |value| (value == "1").then_some(()))?;
            unread.read(QUALITY, |text| decimal(text).filter(|quality| *quality <= 10.0))
        }
        "libvorbis" => {
            unread.read(QUALITY, |text| decimal(text).filter(|quality| *quality <= 10.0))
        }
        "aac_at" => {
            unread.read(APPLE_MODE, |value| (value == "2").then_some(()))?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// What `-af` asks for.
#[derive(Default)]
struct Filters {
    mix: Option<Mix>,
    volume: Option<f64>,
    shift_seconds: Option<f64>,
}

/// Reads `-af`: mixes, then a volume, then a shift of times.
fn filters(unread: &mut Unread<'_>) -> Verdict<Filters> {
    let Some(setting) = unread.take(FILTERS)? else { return Ok(Filters::default()) };
    let text = value(setting).ok_or_else(|| Passthrough::unknown(shown(setting)))?;
    let mut asked = Filters::default();
    for filter in parse_chain(text)? {
        let late = asked.shift_seconds.is_some() || asked.volume.is_some();
        match filter.name.as_str() {
            "pan" if !late => {
                let next = mix::read(&filter)?;
                asked.mix = Some(match &asked.mix {
                    None => next,
                    Some(first) => mix::behind(first, &next)
                        .ok_or_else(|| filter.refuse("not of what the one before it gives"))?,
                });
            }
            "volume" if !late => {
                let mut options = filter.options(&["volume"])?;
                asked.volume = Some(options.require("volume", decimal)?);
                options.finish()?;
            }
            "asetpts" if asked.shift_seconds.is_none() => {
                asked.shift_seconds = Some(subtitles::shift(&filter)?);
            }
            "pan" | "volume" | "asetpts" => return Err(filter.refuse("out of order")),
            name if UNOFFERED_FILTERS.contains(&name) => {
                return Err(Passthrough::feature(format!("filter {name}")));
            }
            _ => return Err(filter.refuse("not a known filter")),
        }
    }
    Ok(asked)
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
