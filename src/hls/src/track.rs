//! What comes in: tracks and their samples.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One elementary stream of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Codec and whatever its headers need.
    pub format: TrackFormat,
}

/// Codec of a track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackFormat {
    /// H.264. Samples are Annex B access units, SPS and PPS in band at every IDR.
    H264 {
        /// Coded picture width in pixels (after cropping).
        width: u32,
        /// Height in pixels (after cropping).
        height: u32,
        /// Nominal frame rate as a fraction, (24000, 1001) for 23.976. Gives the MP4 timescale.
        frame_rate: (u32, u32),
    },
    /// H.265. Samples are Annex B access units, VPS, SPS and PPS in band at every IRAP.
    Hevc {
        /// Picture width in pixels (after cropping).
        width: u32,
        /// Height in pixels (after cropping).
        height: u32,
        /// Nominal frame rate as a fraction.
        frame_rate: (u32, u32),
        /// Sample entry for MP4 (`hvc1`, `hev1`); `None` is `hev1`, as ffmpeg without `-tag:v`.
        tag: Option<[u8; 4]>,
    },
    /// AAC. Samples are raw frames, without ADTS header.
    Aac {
        /// AudioSpecificConfig, ISO/IEC 14496-3.
        #[serde(with = "plain")]
        audio_specific_config: Bytes,
        /// Hz.
        sample_rate: u32,
        /// Number of channels.
        channels: u32,
    },
    /// AC-3. Samples are sync frames.
    Ac3 {
        /// Hz.
        sample_rate: u32,
        /// Number of channels.
        channels: u32,
    },
    /// E-AC-3. Samples are sync frames (or groups that belong to one time).
    Eac3 {
        /// Hz.
        sample_rate: u32,
        /// Number of channels.
        channels: u32,
    },
    /// MPEG-1 layer III. Samples are frames.
    Mp3 {
        /// Hz.
        sample_rate: u32,
        /// Number of channels.
        channels: u32,
    },
    /// Opus. Samples are packets.
    Opus {
        /// The identification header of Ogg (`OpusHead...`, RFC 7845 5.1).
        #[serde(with = "plain")]
        opus_head: Bytes,
        /// Hz of the source; Opus itself counts in 48 kHz.
        sample_rate: u32,
        /// Number of channels.
        channels: u32,
    },
    /// FLAC. Samples are frames. Not in MPEG-TS.
    Flac {
        /// The 34 bytes of the STREAMINFO block, without block header.
        #[serde(with = "plain")]
        streaminfo: Bytes,
        /// Hz.
        sample_rate: u32,
        /// Number of channels.
        channels: u32,
    },
    /// Vorbis. Samples are packets. Ogg and Matroska only, of which there are no segments.
    #[serde(skip)]
    Vorbis {
        /// Identification, comment and setup header, as packets (Vorbis I, 4.2).
        headers: [Bytes; 3],
        /// Hz.
        sample_rate: u32,
        /// Number of channels.
        channels: u32,
    },
}

/// Bytes as a list of numbers.
mod plain {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(bytes.iter())
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Bytes::from)
    }
}

impl TrackFormat {
    /// The same, of which nobody knows how long it lasts: FLAC's header says that of what an encoder
    /// was promised, and a checksum of all. With `samples` that is how long it is said to last.
    pub(crate) fn of_open_length(&self, samples: Option<u64>) -> Self {
        let mut format = self.clone();
        if let Self::Flac { streaminfo, .. } = &mut format
            && streaminfo.len() == 34
        {
            // 36 bits of length behind rate, channels and depth; MD5 (RFC 9639, 8.2).
            let mut open = streaminfo.to_vec();
            let length = samples.filter(|samples| *samples < 1 << 36).unwrap_or(0).to_be_bytes();
            open[13] = open[13] & 0xf0 | length[3];
            open[14..18].copy_from_slice(&length[4..]);
            open[18..].fill(0);
            *streaminfo = open.into();
        }
        format
    }

    /// Hz of sound, as its samples are counted.
    pub fn sample_rate(&self) -> Option<u32> {
        match *self {
            Self::Aac { sample_rate, .. }
            | Self::Ac3 { sample_rate, .. }
            | Self::Eac3 { sample_rate, .. }
            | Self::Mp3 { sample_rate, .. }
            | Self::Flac { sample_rate, .. }
            | Self::Vorbis { sample_rate, .. } => Some(sample_rate.max(1)),
            Self::Opus { .. } => Some(48_000),
            Self::H264 { .. } | Self::Hevc { .. } => None,
        }
    }

    /// True for H.264 and H.265.
    pub fn is_video(&self) -> bool {
        matches!(self, Self::H264 { .. } | Self::Hevc { .. })
    }
}

/// One access unit or audio frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Index into the tracks given to the segmenter.
    pub track: usize,
    /// Presentation time in ns on the source's timeline; may be negative (encoder priming).
    pub pts: i64,
    /// Decoding time in ns on the source's timeline, never decreasing within a track.
    pub dts: i64,
    /// Length in ns; 0 if unknown.
    pub duration: u64,
    /// Decoding can begin here. True for every audio sample.
    pub keyframe: bool,
    /// The bytes, framed as [`TrackFormat`] says.
    pub data: Bytes,
}
