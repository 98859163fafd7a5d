//! A mix of channels (`pan=`) for one layout of the source. Pure.

use ffmpeg_args::{Mix, SourceChannel};

/// ffmpeg's names of channels, in the order of their bits in GStreamer's channel mask
/// (`GstAudioChannelPosition`), which is ffmpeg's up to `BC` and no further.
const NAMES: [&str; 21] = [
    "FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "LFE2", "SL", "SR", "TFL", "TFR",
    "TFC", "TC", "TBL", "TBR", "TSL", "TSR", "TBC",
];

/// Layouts that a mix may lead to: ffmpeg's name, channels, mask.
const LAYOUTS: [(&str, usize, u64); 5] =
    [("mono", 1, 0), ("stereo", 2, 0x3), ("3.0", 3, 0x7), ("5.1", 6, 0x3f), ("7.1", 8, 0xc3f)];

/// Channels and mask of the output of a mix. `None` if the layout isn't known, or the mix is for
/// another number of channels.
pub fn target(mix: &Mix) -> Option<(usize, u64)> {
    let (_, channels, mask) = LAYOUTS.into_iter().find(|(name, ..)| *name == mix.layout)?;
    (channels == mix.outputs.len()).then_some((channels, mask))
}

/// Gains of each output channel by channel of the source, for a source of these speakers (bits in
/// order; 0 where they aren't known). Channels that aren't there are silent.
pub fn gains(mix: &Mix, channels: usize, mask: u64) -> Vec<Vec<f32>> {
    let place = |channel: &SourceChannel| match channel {
        SourceChannel::Number(number) => usize::try_from(*number).ok(),
        SourceChannel::Name(name) if mask == 0 => match (name.as_str(), channels) {
            ("FC", 1) | ("FL", 2..) => Some(0),
            ("FR", 2..) => Some(1),
            _ => None,
        },
        SourceChannel::Name(name) => {
            let bit = NAMES.iter().position(|known| known == name)?;
            let set = mask >> bit & 1 == 1;
            set.then(|| (mask & ((1 << bit) - 1)).count_ones() as usize)
        }
    };
    let row = |output: &ffmpeg_args::MixedChannel| {
        let mut row = vec![0.0; channels];
        for (channel, gain) in &output.gains {
            if let Some(cell) = place(channel).and_then(|place| row.get_mut(place)) {
                *cell += *gain;
            }
        }
        // As ffmpeg has it: by the sum of what is there, if that is something.
        let sum: f64 = row.iter().map(|gain: &f64| gain.abs()).sum();
        let scale = if output.normalised && sum > 0.0 { 1.0 / sum } else { 1.0 };
        row.into_iter().map(|gain| (gain * scale) as f32).collect()
    };
    mix.outputs.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use ffmpeg_args::MixedChannel;

    use super::*;

    fn stereo(left: &[(SourceChannel, f64)], normalised: bool) -> Mix {
        let output = MixedChannel { gains: left.to_vec(), normalised };
        Mix { layout: "stereo".into(), outputs: vec![output.clone(), output] }
    }

    fn name(name: &str) -> SourceChannel {
        SourceChannel::Name(name.into())
    }

    #[test]
    fn channels_are_found_by_number_and_by_name() {
        let mix = stereo(&[(SourceChannel::Number(2), 0.5), (name("SL"), 0.25)], false);
        // 5.1 with speakers at the sides: FL FR FC LFE SL SR.
        assert_eq!(gains(&mix, 6, 0xc0f)[0], [0.0, 0.0, 0.5, 0.0, 0.25, 0.0]);
        // The same with speakers behind: there is no SL.
        assert_eq!(gains(&mix, 6, 0x3f)[0], [0.0, 0.0, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!(gains(&mix, 2, 0x3)[0], [0.0, 0.0]);
        let sides = stereo(&[(name("SL"), 1.0), (name("SR"), 0.5)], false);
        assert_eq!(gains(&sides, 8, 0xc3f)[0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.5]);
        assert_eq!(gains(&stereo(&[(name("FR"), 1.0)], false), 2, 0)[1], [0.0, 1.0]);
    }

    #[test]
    fn gains_are_normalised_by_what_is_there() {
        let left = [(name("FL"), 1.0), (name("FC"), 1.0), (name("SL"), 2.0)];
        assert_eq!(gains(&stereo(&left, true), 2, 0x3)[0], [1.0, 0.0]);
        assert_eq!(gains(&stereo(&left, true), 3, 0x7)[0], [0.5, 0.0, 0.5]);
        assert_eq!(gains(&stereo(&[(name("SL"), 2.0)], true), 2, 0x3)[0], [0.0, 0.0]);
    }

    #[test]
    fn the_layout_has_as_many_channels_as_the_mix() {
        assert_eq!(target(&stereo(&[], false)), Some((2, 3)));
        assert_eq!(target(&Mix { layout: "5.1".into(), ..stereo(&[], false) }), None);
        assert_eq!(target(&Mix { layout: "22.2".into(), ..stereo(&[], false) }), None);
    }
}
