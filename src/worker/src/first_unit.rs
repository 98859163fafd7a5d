//! The first unit of `x265enc`. Pure.
//!
//! In front of its first picture GStreamer 1.22's element puts headers that it asks x265 for once more,
//! and copies them from a list whose sizes aren't theirs: behind the last one follow some dozens of bytes
//! of whatever lies in memory there, now and then the beginning of an older set. Decoders complain of it,
//! and no two runs write the same. The picture has headers of its own.
//!
//! Invariant: a unit that has its headers once stays as it is.

use bytes::Bytes;
use hls::annexb::{Syntax, hevc, nals};

/// A unit of HEVC that begins with the last of its headers, if there are several.
pub fn with_own_headers(unit: Bytes) -> Bytes {
    let syntax = Syntax::Hevc;
    let mut last = None;
    let mut before: Option<&[u8]> = None;
    for nal in nals(&unit).take_while(|nal| !syntax.is_slice(nal)) {
        if syntax.nal_type(nal) == hevc::VPS {
            // A delimiter belongs to the headers behind it.
            let begin = before.filter(|nal| syntax.is_aud(nal)).unwrap_or(nal);
            last = Some(begin.as_ptr().addr() - unit.as_ptr().addr());
        }
        before = Some(nal);
    }
    // The start code has three bytes, or four.
    let Some(at) = last.and_then(|at| at.checked_sub(3)) else { return unit };
    let at = if at > 0 && unit[at - 1] == 0 { at - 1 } else { at };
    if at == 0 { unit } else { unit.slice(at..) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUD: &[u8] = &[0, 0, 0, 1, 0x46, 1, 0x50];
    const VPS: &[u8] = &[0, 0, 0, 1, 0x40, 1, 7];
    const SETS: &[u8] = &[0, 0, 0, 1, 0x42, 1, 8, 0, 0, 1, 0x44, 1, 9];
    const SEI: &[u8] = &[0, 0, 1, 0x4e, 1, 5, 0x80];
    const PICTURE: &[u8] = &[0, 0, 1, 0x28, 1, 3];

    fn unit(pieces: &[&[u8]]) -> Bytes {
        pieces.concat().into()
    }

    #[test]
    fn headers_before_the_picture_s_own_go_with_what_hangs_on_them() {
        let own = unit(&[VPS, SETS, SEI, PICTURE]);
        assert_eq!(with_own_headers(own.clone()), own);
        let stale: &[u8] = &[0x20, 0x14, 0, 0, 1, 0x42, 1];
        let first = unit(&[VPS, SETS, SEI, SEI, stale, VPS, SETS, SEI, PICTURE]);
        assert_eq!(with_own_headers(first), own);
        let delimited = unit(&[AUD, VPS, SETS, PICTURE]);
        let first = unit(&[VPS, SETS, SEI, &delimited]);
        assert_eq!(with_own_headers(first), delimited);
        let bare = unit(&[SEI, PICTURE]);
        assert_eq!(with_own_headers(bare.clone()), bare);
    }

    #[test]
    fn a_short_start_code_is_one() {
        let short: &[u8] = &[0, 0, 1, 0x40, 1, 7];
        let first = unit(&[VPS, SETS, SEI, &[0x54, 0x14], short, SETS, PICTURE]);
        assert_eq!(with_own_headers(first), unit(&[short, SETS, PICTURE]));
    }
}
