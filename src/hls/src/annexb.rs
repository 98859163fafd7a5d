//! Annex B byte streams: NAL units and the few header fields that containers repeat
//! (ITU-T H.264 7.3.1-7.3.2, H.265 7.3.1-7.3.2).
//!
//! Invariants:
//! - Hostile bytes make wrong values or `None`, never a panic or an endless loop.

/// NAL unit types of H.264.
pub mod h264 {
    /// Coded slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const AUD: u8 = 9;
}

/// NAL unit types of H.265.
pub mod hevc {
    /// Video parameter set.
    pub const VPS: u8 = 32;
    /// Sequence parameter set.
    pub const SPS: u8 = 33;
    /// Picture parameter set.
    pub const PPS: u8 = 34;
    /// Access unit delimiter.
    pub const AUD: u8 = 35;
}

/// Which of the two syntaxes a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// H.264.
    H264,
    /// H.265.
    Hevc,
}

impl Syntax {
    /// The type of a NAL unit; 0 for an empty one.
    pub fn nal_type(self, nal: &[u8]) -> u8 {
        let first = nal.first().copied().unwrap_or(0);
        match self {
            Self::H264 => first & 0x1f,
            Self::Hevc => first >> 1 & 0x3f,
        }
    }

    /// True for the access unit delimiter.
    pub fn is_aud(self, nal: &[u8]) -> bool {
        self.nal_type(nal)
            == match self {
                Self::H264 => h264::AUD,
                Self::Hevc => hevc::AUD,
            }
    }

    /// True for SPS, PPS and VPS.
    pub fn is_parameter_set(self, nal: &[u8]) -> bool {
        let kind = self.nal_type(nal);
        match self {
            Self::H264 => kind == h264::SPS || kind == h264::PPS,
            Self::Hevc => (hevc::VPS..=hevc::PPS).contains(&kind),
        }
    }

    /// True for slices: where parameter sets can't follow any more.
    pub fn is_slice(self, nal: &[u8]) -> bool {
        let kind = self.nal_type(nal);
        match self {
            Self::H264 => (1..=h264::IDR).contains(&kind),
            Self::Hevc => kind < 32,
        }
    }
}

/// The NAL units of an access unit, without start codes and trailing zeros.
pub fn nals(data: &[u8]) -> Nals<'_> {
    Nals { data, at: find_start_code(data, 0).map(|at| at + 3) }
}

/// See [`nals`].
#[derive(Debug, Clone)]
pub struct Nals<'a> {
    data: &'a [u8],
    at: Option<usize>,
}

impl<'a> Iterator for Nals<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let start = self.at?;
            let next = find_start_code(self.data, start);
            self.at = next.map(|at| at + 3);
            let mut nal = &self.data[start..next.unwrap_or(self.data.len())];
            while let [rest @ .., 0] = nal {
                nal = rest;
            }
            if !nal.is_empty() {
                return Some(nal);
            }
        }
    }
}

/// Position of the next `00 00 01`.
fn find_start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut i = from;
    while i + 2 < data.len() {
        // The third byte decides how far the search may jump.
        match data[i + 2] {
            0 => i += 1,
            1 if data[i] == 0 && data[i + 1] == 0 => return Some(i),
            _ => i += 3,
        }
    }
    None
}

/// The parameter sets of a keyframe, in order of appearance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParameterSets {
    /// Video parameter sets (H.265).
    pub vps: Vec<Vec<u8>>,
    /// Sequence parameter sets.
    pub sps: Vec<Vec<u8>>,
    /// Picture parameter sets.
    pub pps: Vec<Vec<u8>>,
}

impl ParameterSets {
    /// Those of one access unit, repetitions left out.
    pub fn collect(syntax: Syntax, data: &[u8]) -> Self {
        let mut sets = Self::default();
        for nal in nals(data).take_while(|nal| !syntax.is_slice(nal)) {
            let list = match (syntax, syntax.nal_type(nal)) {
                (Syntax::H264, h264::SPS) | (Syntax::Hevc, hevc::SPS) => &mut sets.sps,
                (Syntax::H264, h264::PPS) | (Syntax::Hevc, hevc::PPS) => &mut sets.pps,
                (Syntax::Hevc, hevc::VPS) => &mut sets.vps,
                _ => continue,
            };
            if !list.iter().any(|known| known == nal) {
                list.push(nal.to_vec());
            }
        }
        sets
    }

    /// True if a decoder could start with these.
    pub fn is_complete(&self, syntax: Syntax) -> bool {
        !self.sps.is_empty()
            && !self.pps.is_empty()
            && (syntax == Syntax::H264 || !self.vps.is_empty())
    }

    /// True if this very NAL unit is among them.
    pub fn contains(&self, nal: &[u8]) -> bool {
        [&self.vps, &self.sps, &self.pps].iter().any(|list| list.iter().any(|known| known == nal))
    }

    /// What the first SPS says of the picture's looks.
    pub(crate) fn appearance(&self, syntax: Syntax) -> crate::sps::Appearance {
        let fields = self.sps.first().and_then(|nal| match syntax {
            Syntax::H264 => crate::sps::parse_h264_sps(nal),
            Syntax::Hevc => crate::sps::parse_hevc_sps(nal).map(|(_, fields)| fields),
        });
        fields.map(|fields| fields.appearance).unwrap_or_default()
    }

    /// All of them with four-byte start codes.
    pub fn to_annexb(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for nal in self.vps.iter().chain(&self.sps).chain(&self.pps) {
            out.extend_from_slice(&[0, 0, 0, 1]);
            out.extend_from_slice(nal);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn walks_three_and_four_byte_start_codes() {
        let data = [0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 0, 1, 0x65, 7, 0, 0];
        let found: Vec<_> = nals(&data).collect();
        assert_eq!(found, [&[9, 0xf0][..], &[0x67, 1, 2], &[0x65, 7]]);
    }

    #[test]
    fn collects_parameter_sets_once() {
        let data = [
            0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 3, 0, 0, 1, 0x68,
            9,
        ];
        let sets = ParameterSets::collect(Syntax::H264, &data);
        assert_eq!(sets.sps, [vec![0x67, 1]]);
        assert_eq!(sets.pps, [vec![0x68, 2]]);
        assert!(sets.is_complete(Syntax::H264));
        assert!(sets.contains(&[0x68, 2]) && !sets.contains(&[0x68, 9]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let total: usize = nals(&data).map(<[u8]>::len).sum();
            prop_assert!(total <= data.len());
            ParameterSets::collect(Syntax::Hevc, &data);
        }

        #[test]
        fn framing_comes_back(units in prop::collection::vec(prop::collection::vec(2u8..=255, 1..20), 1..8)) {
            let mut data = Vec::new();
            for (i, unit) in units.iter().enumerate() {
                data.extend_from_slice(if i % 2 == 0 { &[0, 0, 0, 1][..] } else { &[0, 0, 1][..] });
                data.extend_from_slice(unit);
            }
            let found: Vec<_> = nals(&data).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(found, units);
        }
    }
}
