//! What the driver can do, in one table: every query of libva is answered from it.

use crate::format::Format;
use crate::status::{Outcome, Refusal};
use crate::trace::Engine;
use crate::va::{self, VAEntrypoint, VAProfile};

/// A compression format; `None` for picture to picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// H.264, AVC.
    H264,
    /// H.265, HEVC.
    H265,
    /// VP9.
    Vp9,
    /// MPEG-2 video.
    Mpeg2,
    /// Video processing.
    None,
}

/// A pair of profile and entrypoint that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// libva's profile.
    pub profile: VAProfile,
    /// libva's entrypoint.
    pub entrypoint: VAEntrypoint,
    /// The compression format.
    pub codec: Codec,
    /// The engine that does it.
    pub engine: Engine,
    /// Formats that its surfaces can have.
    pub formats: &'static [Format],
    /// Smallest width and height.
    pub minimum: i32,
}

/// Largest width and height of anything.
pub const MAXIMUM: i32 = 8192;
/// libva numbers quality from 1 (best) to this (fastest).
pub const QUALITY_LEVELS: u32 = 7;
/// Reference frames per picture that encoders accept; there are no B-frames.
const FORWARD_REFERENCES: u32 = 3;
const SLICES: u32 = 16;

const EIGHT: &[Format] = &[Format::Nv12];
const TEN: &[Format] = &[Format::P010];
const ANY: &[Format] = &crate::format::ALL;

const fn decode(profile: VAProfile, codec: Codec, formats: &'static [Format]) -> Capability {
    let entrypoint = va::VAEntrypointVLD;
    Capability { profile, entrypoint, codec, engine: Engine::Decode, formats, minimum: 16 }
}

const fn encode(profile: VAProfile, codec: Codec, formats: &'static [Format]) -> Capability {
    let entrypoint = va::VAEntrypointEncSlice;
    Capability { profile, entrypoint, codec, engine: Engine::Encode, formats, minimum: 32 }
}

/// Everything.
pub const TABLE: &[Capability] = &[
    decode(va::VAProfileMPEG2Simple, Codec::Mpeg2, EIGHT),
    decode(va::VAProfileMPEG2Main, Codec::Mpeg2, EIGHT),
    decode(va::VAProfileH264ConstrainedBaseline, Codec::H264, EIGHT),
    decode(va::VAProfileH264Main, Codec::H264, EIGHT),
    decode(va::VAProfileH264High, Codec::H264, EIGHT),
    encode(va::VAProfileH264ConstrainedBaseline, Codec::H264, EIGHT),
    encode(va::VAProfileH264Main, Codec::H264, EIGHT),
    encode(va::VAProfileH264High, Codec::H264, EIGHT),
    decode(va::VAProfileHEVCMain, Codec::H265, EIGHT),
    decode(va::VAProfileHEVCMain10, Codec::H265, TEN),
    encode(va::VAProfileHEVCMain, Codec::H265, EIGHT),
    encode(va::VAProfileHEVCMain10, Codec::H265, TEN),
    decode(va::VAProfileVP9Profile0, Codec::Vp9, EIGHT),
    decode(va::VAProfileVP9Profile2, Codec::Vp9, TEN),
    Capability {
        profile: va::VAProfileNone,
        entrypoint: va::VAEntrypointVideoProc,
        codec: Codec::None,
        engine: Engine::Process,
        formats: ANY,
        minimum: 2,
    },
];

impl Capability {
    /// The entry for a profile and entrypoint.
    pub fn find(profile: VAProfile, entrypoint: VAEntrypoint) -> Outcome<Self> {
        let mut same = TABLE.iter().filter(|entry| entry.profile == profile).peekable();
        if same.peek().is_none() {
            let reason = format!("profile {profile}");
            return Err(Refusal::new(va::VA_STATUS_ERROR_UNSUPPORTED_PROFILE, reason));
        }
        same.find(|entry| entry.entrypoint == entrypoint).copied().ok_or_else(|| {
            let reason = format!("profile {profile} has no entrypoint {entrypoint}");
            Refusal::new(va::VA_STATUS_ERROR_UNSUPPORTED_ENTRYPOINT, reason)
        })
    }

    /// Its name in traces and faults.
    pub fn name(&self) -> String {
        let codec = match self.codec {
            Codec::H264 => "h264",
            Codec::H265 => "h265",
            Codec::Vp9 => "vp9",
            Codec::Mpeg2 => "mpeg2",
            Codec::None => return self.engine.name().to_owned(),
        };
        format!("{codec}-{}", self.engine)
    }

    /// The classes of surfaces it works on.
    pub fn rt_formats(&self) -> u32 {
        self.formats.iter().fold(0, |classes, format| classes | format.rt_format())
    }

    /// The value of a configuration attribute.
    pub fn attribute(&self, kind: va::VAConfigAttribType) -> u32 {
        let encode = self.engine == Engine::Encode;
        match kind {
            va::VAConfigAttribRTFormat => self.rt_formats(),
            va::VAConfigAttribMaxPictureWidth | va::VAConfigAttribMaxPictureHeight => {
                MAXIMUM as u32
            }
            va::VAConfigAttribDecSliceMode if self.engine == Engine::Decode => {
                va::VA_DEC_SLICE_MODE_NORMAL
            }
            va::VAConfigAttribRateControl if encode => {
                va::VA_RC_CQP | va::VA_RC_CBR | va::VA_RC_VBR
            }
            va::VAConfigAttribEncMaxRefFrames if encode => FORWARD_REFERENCES,
            va::VAConfigAttribEncMaxSlices if encode && self.codec == Codec::H264 => SLICES,
            va::VAConfigAttribEncMaxSlices if encode => 1,
            va::VAConfigAttribEncSliceStructure if encode => {
                va::VA_ENC_SLICE_STRUCTURE_ARBITRARY_MACROBLOCKS
            }
            va::VAConfigAttribEncQualityRange if encode => QUALITY_LEVELS,
            // Only they tell how much of HEVC's coded size is to be seen.
            va::VAConfigAttribEncPackedHeaders if encode && self.codec == Codec::H265 => {
                va::VA_ENC_PACKED_HEADER_SEQUENCE
            }
            va::VAConfigAttribEncPackedHeaders if encode => va::VA_ENC_PACKED_HEADER_NONE,
            va::VAConfigAttribEncHEVCFeatures if encode && self.codec == Codec::H265 => {
                hevc_features()
            }
            va::VAConfigAttribEncHEVCBlockSizes if encode && self.codec == Codec::H265 => {
                hevc_block_sizes()
            }
            _ => va::VA_ATTRIB_NOT_SUPPORTED,
        }
    }
}

/// The tools that the encoder may use whether the client asks or not.
fn hevc_features() -> u32 {
    // SAFETY: a union of a number and its bits, for which zero is a value.
    let mut features: va::VAConfigAttribValEncHEVCFeatures = unsafe { std::mem::zeroed() };
    // SAFETY: the union's members are the same 32 bits.
    unsafe {
        features.bits.set_sao(1);
        features.bits.set_amp(1);
        features.bits.set_temporal_mvp(1);
        features.bits.set_strong_intra_smoothing(1);
        features.bits.set_cu_qp_delta(1);
        features.value
    }
}

/// Coding blocks of 8 to 64, transform blocks of 4 to 32.
fn hevc_block_sizes() -> u32 {
    // SAFETY: a union of a number and its bits, for which zero is a value.
    let mut sizes: va::VAConfigAttribValEncHEVCBlockSizes = unsafe { std::mem::zeroed() };
    // SAFETY: the union's members are the same 32 bits.
    unsafe {
        sizes.bits.set_log2_max_coding_tree_block_size_minus3(3);
        sizes.bits.set_log2_min_coding_tree_block_size_minus3(1);
        sizes.bits.set_log2_min_luma_coding_block_size_minus3(0);
        sizes.bits.set_log2_max_luma_transform_block_size_minus2(3);
        sizes.bits.set_log2_min_luma_transform_block_size_minus2(0);
        sizes.bits.set_max_max_transform_hierarchy_depth_inter(2);
        sizes.bits.set_max_max_transform_hierarchy_depth_intra(2);
        sizes.value
    }
}

/// All profiles, each once.
pub fn profiles() -> Vec<VAProfile> {
    let mut profiles = Vec::new();
    for entry in TABLE {
        if !profiles.contains(&entry.profile) {
            profiles.push(entry.profile);
        }
    }
    profiles
}

/// The entrypoints of a profile.
pub fn entrypoints(profile: VAProfile) -> Vec<VAEntrypoint> {
    TABLE.iter().filter(|entry| entry.profile == profile).map(|entry| entry.entrypoint).collect()
}

/// The names that faults may use.
pub fn codec_names() -> Vec<String> {
    TABLE.iter().map(Capability::name).collect()
}
