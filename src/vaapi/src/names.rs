//! Names for the numbers of `va.h` and `va_vpp.h`.

use gpu::Entrypoint;

/// `VAProfile`, without prefix.
pub(crate) fn profile(number: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (-1, "None"),
        (0, "MPEG2Simple"),
        (1, "MPEG2Main"),
        (2, "MPEG4Simple"),
        (3, "MPEG4AdvancedSimple"),
        (4, "MPEG4Main"),
        (5, "H264Baseline"),
        (6, "H264Main"),
        (7, "H264High"),
        (8, "VC1Simple"),
        (9, "VC1Main"),
        (10, "VC1Advanced"),
        (11, "H263Baseline"),
        (12, "JPEGBaseline"),
        (13, "H264ConstrainedBaseline"),
        (14, "VP8Version0_3"),
        (15, "H264MultiviewHigh"),
        (16, "H264StereoHigh"),
        (17, "HEVCMain"),
        (18, "HEVCMain10"),
        (19, "VP9Profile0"),
        (20, "VP9Profile1"),
        (21, "VP9Profile2"),
        (22, "VP9Profile3"),
        (23, "HEVCMain12"),
        (24, "HEVCMain422_10"),
        (25, "HEVCMain422_12"),
        (26, "HEVCMain444"),
        (27, "HEVCMain444_10"),
        (28, "HEVCMain444_12"),
        (29, "HEVCSccMain"),
        (30, "HEVCSccMain10"),
        (31, "HEVCSccMain444"),
        (32, "AV1Profile0"),
        (33, "AV1Profile1"),
        (34, "HEVCSccMain444_10"),
        (35, "Protected"),
        (36, "H264High10"),
        (37, "VVCMain10"),
        (38, "VVCMultilayerMain10"),
    ];
    lookup(NAMES, number)
}

/// `VAEntrypoint`.
pub(crate) fn entrypoint(number: i32) -> Entrypoint {
    match number {
        1 => Entrypoint::Decode,
        6 => Entrypoint::Encode,
        7 => Entrypoint::EncodePicture,
        8 => Entrypoint::EncodeLowPower,
        10 => Entrypoint::Process,
        other => {
            const NAMES: &[(i32, &str)] = &[
                (2, "IZZ"),
                (3, "IDCT"),
                (4, "MoComp"),
                (5, "Deblocking"),
                (11, "FEI"),
                (12, "Stats"),
                (13, "ProtectedTEEComm"),
                (14, "ProtectedContent"),
            ];
            Entrypoint::Other(lookup(NAMES, other))
        }
    }
}

/// `VAProcFilterType`.
pub(crate) fn filter(number: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (1, "noise_reduction"),
        (2, "deinterlacing"),
        (3, "sharpening"),
        (4, "color_balance"),
        (5, "skin_tone_enhancement"),
        (6, "total_color_correction"),
        (7, "hvs_noise_reduction"),
        (8, "tone_mapping"),
        (9, "3d_lut"),
    ];
    lookup(NAMES, number)
}

/// `VAProcDeinterlacingType`.
pub(crate) fn deinterlacing(number: i32) -> String {
    const NAMES: &[(i32, &str)] =
        &[(1, "bob"), (2, "weave"), (3, "motion_adaptive"), (4, "motion_compensated")];
    lookup(NAMES, number)
}

/// `VA_RT_FORMAT_*`.
pub(crate) const FORMATS: &[(u32, &str)] = &[
    (0x1, "YUV420"),
    (0x2, "YUV422"),
    (0x4, "YUV444"),
    (0x8, "YUV411"),
    (0x10, "YUV400"),
    (0x100, "YUV420_10"),
    (0x200, "YUV422_10"),
    (0x400, "YUV444_10"),
    (0x1000, "YUV420_12"),
    (0x2000, "YUV422_12"),
    (0x4000, "YUV444_12"),
    (0x1_0000, "RGB16"),
    (0x2_0000, "RGB32"),
    (0x10_0000, "RGBP"),
    (0x20_0000, "RGB32_10"),
    (0x8000_0000, "PROTECTED"),
];

/// `VA_RC_*`.
pub(crate) const RATE_CONTROL: &[(u32, &str)] = &[
    (0x2, "CBR"),
    (0x4, "VBR"),
    (0x8, "VCM"),
    (0x10, "CQP"),
    (0x20, "VBR_CONSTRAINED"),
    (0x40, "ICQ"),
    (0x80, "MB"),
    (0x100, "CFS"),
    (0x200, "PARALLEL"),
    (0x400, "QVBR"),
    (0x800, "AVBR"),
    (0x1000, "TCBRC"),
];

/// `VA_TONE_MAPPING_*`.
pub(crate) const TONE_MAPPING: &[(u32, &str)] =
    &[(1, "hdr_to_hdr"), (2, "hdr_to_sdr"), (4, "hdr_to_edr"), (8, "sdr_to_hdr")];

/// `VA_BLEND_*`.
pub(crate) const BLEND: &[(u32, &str)] =
    &[(1, "global_alpha"), (2, "premultiplied_alpha"), (0x10, "luma_key")];

/// The names of the bits that are set.
pub(crate) fn flags(value: u32, names: &[(u32, &str)]) -> Vec<String> {
    names.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}

/// A number that is newer than this list is shown as it is.
fn lookup(names: &[(i32, &str)], number: i32) -> String {
    names
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| format!("#{number}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_numbers_are_shown() {
        assert_eq!(profile(18), "HEVCMain10");
        assert_eq!(profile(99), "#99");
        assert_eq!(entrypoint(99), Entrypoint::Other("#99".into()));
    }

    #[test]
    fn flags_are_named_in_order() {
        assert_eq!(flags(0x16, RATE_CONTROL), ["CBR", "VBR", "CQP"]);
        assert!(flags(0, FORMATS).is_empty());
    }
}
