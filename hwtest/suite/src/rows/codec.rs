//! What goes in and what comes out: codecs with their depths, and how ffmpeg makes clips of them.

use gpu::Operation;

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// H.264, 8 bit.
    H264,
    /// HEVC, 8 bit.
    Hevc,
    /// HEVC, 10 bit.
    Hevc10,
    /// VP9 of profile 0, 8 bit.
    Vp9,
    /// VP9 of profile 2, 10 bit.
    Vp9Ten,
    /// MPEG-2, 8 bit.
    Mpeg2,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::H264, Self::Hevc, Self::Hevc10, Self::Vp9, Self::Vp9Ten, Self::Mpeg2];

    /// Codec and depth, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264 8 bit",
            Self::Hevc => "HEVC 8 bit",
            Self::Hevc10 => "HEVC 10 bit",
            Self::Vp9 => "VP9 8 bit",
            Self::Vp9Ten => "VP9 10 bit",
            Self::Mpeg2 => "MPEG-2 8 bit",
        }
    }

    /// The same in names of files.
    pub fn word(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Hevc10 => "hevc10",
            Self::Vp9 => "vp9",
            Self::Vp9Ten => "vp9-10",
            Self::Mpeg2 => "mpeg2",
        }
    }

    /// What a GPU has to be able to do.
    pub fn operation(self) -> Operation {
        match self {
            Self::H264 => Operation::DecodeH264,
            Self::Hevc => Operation::DecodeHevc,
            Self::Hevc10 => Operation::DecodeHevc10,
            // One element for both, and the probe tries the first.
            Self::Vp9 | Self::Vp9Ten => Operation::DecodeVp9,
            Self::Mpeg2 => Operation::DecodeMpeg2,
        }
    }

    /// ffmpeg's arguments for it: pictures that refer to later ones wherever the codec has them, and
    /// so few bits lost that the stream isn't what is judged.
    pub fn encoder(self) -> String {
        let x265 = "-c:v libx265 -preset ultrafast -crf 18 -x265-params log-level=error:keyint=50";
        let vpx = "-c:v libvpx-vp9 -deadline good -cpu-used 8 -row-mt 1 -lag-in-frames 16 \
                   -auto-alt-ref 1 -b:v 0 -crf 24 -g 50";
        let (encoder, pixels) = match self {
            Self::H264 => ("-c:v libx264 -preset superfast -crf 18 -bf 2 -g 50", "yuv420p"),
            Self::Hevc => (x265, "yuv420p"),
            Self::Hevc10 => (x265, "yuv420p10le"),
            Self::Vp9 => (vpx, "yuv420p"),
            Self::Vp9Ten => (vpx, "yuv420p10le"),
            Self::Mpeg2 => ("-c:v mpeg2video -q:v 3 -bf 2 -g 12", "yuv420p"),
        };
        format!(
            "{encoder} -pix_fmt {pixels} -colorspace bt709 -color_primaries bt709 -color_trc bt709"
        )
    }
}

/// What comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// H.264 in MPEG-TS, as Jellyfin asks for it.
    H264,
    /// HEVC in fragmented MP4, as Jellyfin asks for it.
    Hevc,
}

impl Target {
    /// Both.
    pub const ALL: [Self; 2] = [Self::H264, Self::Hevc];

    /// The codec, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::Hevc => "HEVC",
        }
    }

    /// What a GPU has to be able to do one of.
    pub fn operations(self) -> [Operation; 2] {
        match self {
            Self::H264 => [Operation::EncodeH264, Operation::EncodeH264LowPower],
            Self::Hevc => [Operation::EncodeHevc, Operation::EncodeHevcLowPower],
        }
    }

    /// What it changes in the corpus' command 015, in the words of [`stand::line::Line::edited`].
    pub fn edits(self) -> &'static str {
        match self {
            Self::H264 => "",
            Self::Hevc => {
                "fmp4 -codec:v:0=hevc_vaapi -tag:v:0=hvc1 -profile:v:0=main -level=120 -sei="
            }
        }
    }

    /// Seconds by which its container's clock is ahead of the source's: in MPEG-TS twice the
    /// `-max_delay` of Jellyfin's command, as ffmpeg's muxer has it.
    pub fn clock_ahead(self) -> f64 {
        match self {
            Self::H264 => 10.0,
            Self::Hevc => 0.0,
        }
    }
}
