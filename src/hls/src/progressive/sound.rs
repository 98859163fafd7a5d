//! Sound that needs no container: MP3, AAC in ADTS, FLAC.

use super::{Container, Timing, ogg};
use crate::time::ticks;
use crate::ts::{adts, adts_header};
use crate::{Sample, TrackFormat, WriteError};

/// Samples by which MPEG-1 layer III's decoders are late, and one; players add them by themselves.
const MP3_DECODER_DELAY: i64 = 529;

/// ADTS: a header in front of each frame.
#[derive(Debug)]
pub(super) struct Adts {
    fixed: [u8; 7],
}

impl Adts {
    pub(super) fn new(format: &TrackFormat) -> Result<Self, WriteError> {
        match format {
            TrackFormat::Aac { audio_specific_config, .. } => {
                Ok(Self { fixed: adts(audio_specific_config)? })
            }
            _ => Err(WriteError::Unsupported("ADTS, expected AAC".to_owned())),
        }
    }
}

impl Container for Adts {
    fn write(&mut self, sample: &Sample, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let header = adts_header(&self.fixed, sample.data.len())
            .map_err(|reason| WriteError::BadSample { track: sample.track, reason })?;
        out.extend_from_slice(&header);
        out.extend_from_slice(&sample.data);
        Ok(())
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), WriteError> {
        Ok(())
    }
}

/// FLAC: its stream header, whose length is the one that the source's promises and which leaves the
/// checksum open, then frames.
#[derive(Debug)]
pub(super) struct Flac {
    head: Option<Vec<u8>>,
}

impl Flac {
    pub(super) fn new(format: &TrackFormat, timing: Timing) -> Result<Self, WriteError> {
        let end = timing.expected_end_ns.zip(format.sample_rate());
        let samples = end.and_then(|(end, rate)| u64::try_from(ticks(end, rate)).ok());
        match &format.of_open_length(samples) {
            TrackFormat::Flac { streaminfo, .. } if streaminfo.len() == 34 => {
                let comments = ogg::comments();
                let length = u32::try_from(comments.len()).unwrap_or(0).to_be_bytes();
                // STREAMINFO is block 0, comments are the last, 4.
                let parts: [&[u8]; 5] =
                    [b"fLaC\x00\x00\x00\x22", streaminfo, &[0x84], &length[1..], &comments];
                Ok(Self { head: Some(parts.concat()) })
            }
            _ => Err(WriteError::Unsupported("FLAC, expected a STREAMINFO of 34 bytes".to_owned())),
        }
    }
}

impl Container for Flac {
    fn write(&mut self, sample: &Sample, out: &mut Vec<u8>) -> Result<(), WriteError> {
        out.extend(self.head.take().unwrap_or_default());
        out.extend_from_slice(&sample.data);
        Ok(())
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), WriteError> {
        Ok(())
    }
}

/// MP3: a tag that names the writer (ID3v2.3), a frame that says how many follow and what of them
/// isn't to be heard, then frames.
///
/// ffmpeg completes that frame at the end; here the number of frames is what the source's length
/// promises. There is no ID3v1 at the end: as with ffmpeg for a source without tags.
#[derive(Debug)]
pub(super) struct Mp3 {
    sample_rate: u32,
    timing: Timing,
    begun: bool,
}

impl Mp3 {
    pub(super) fn new(format: &TrackFormat, timing: Timing) -> Result<Self, WriteError> {
        match *format {
            TrackFormat::Mp3 { sample_rate, .. } => Ok(Self { sample_rate, timing, begun: false }),
            _ => Err(WriteError::Unsupported("an MP3 file, expected MP3".to_owned())),
        }
    }
}

impl Container for Mp3 {
    fn write(&mut self, sample: &Sample, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend(id3v2());
            let delay = -ticks(sample.pts, self.sample_rate);
            // One that doesn't know the number isn't skipped by all.
            let end = self.timing.expected_end_ns.map(|end| ticks(end, self.sample_rate));
            let info = end.and_then(|end| info_frame(&sample.data, delay, end));
            out.extend(info.unwrap_or_default());
        }
        out.extend_from_slice(&sample.data);
        Ok(())
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), WriteError> {
        Ok(())
    }
}

/// ID3v2.3 with one frame, TSSE.
fn id3v2() -> Vec<u8> {
    let text = [b"\x00", ogg::VENDOR, b"\x00"].concat();
    let length = u8::try_from(text.len()).unwrap_or(0);
    let frame = [b"TSSE\x00\x00\x00", &[length][..], &[0, 0], &text].concat();
    // The size has seven bits to a byte; this one is less than 128.
    [b"ID3\x03\x00\x00\x00\x00\x00", &[u8::try_from(frame.len()).unwrap_or(0)][..], &frame].concat()
}

/// An `Info` frame in the shape of the stream's own (LAME's tag, "Mp3 Info Tag revision 1"): an empty
/// frame that decoders skip. `delay` samples lie before zero, `end` follow. `None` if `first` isn't the
/// beginning of a frame in which it has room.
fn info_frame(first: &[u8], delay: i64, end: i64) -> Option<Vec<u8>> {
    const TAG: usize = 4 + 4 + 4 + 36;
    let head: [u8; 4] = first.get(..4)?.try_into().ok()?;
    if end <= 0 || head[0] != 0xff || head[1] & 0xe6 != 0xe2 {
        return None;
    }
    let mpeg1 = head[1] & 0x18 == 0x18;
    let mono = head[3] >> 6 == 3;
    let side = match (mpeg1, mono) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    // The smallest bit rate in which it has room.
    let (index, size) = (1..15)
        .map(|i| (i, frame_bytes(head, i)))
        .find(|(_, size)| size.is_some_and(|size| size >= 4 + side + TAG))?;
    let mut frame = vec![0; size?];
    // No checksum, no padding, no private bit.
    frame[..4].copy_from_slice(&[0xff, head[1] | 1, index << 4 | head[2] & 0x0c, head[3]]);
    let tag = &mut frame[4 + side..];
    tag[..4].copy_from_slice(b"Info");
    let samples = if mpeg1 { 1152 } else { 576 };
    tag[7] = 1; // the number of frames is given
    let frames = (end + delay.max(0) + samples - 1) / samples;
    tag[8..12].copy_from_slice(&u32::try_from(frames).ok()?.to_be_bytes());
    let tag = &mut tag[12..];
    // Players heed the rest of it only from writers that they know.
    tag[..9].copy_from_slice(b"LAME     ");
    let late = u32::try_from(delay - MP3_DECODER_DELAY).unwrap_or(0).min(0xfff);
    // Twelve bits of delay, twelve of padding.
    tag[21..24].copy_from_slice(&(late << 12).to_be_bytes()[1..]);
    Some(frame)
}

/// Size of a frame with this head at another index of bit rates (ISO/IEC 11172-3 2.4.2.3, 13818-3).
fn frame_bytes(head: [u8; 4], index: u8) -> Option<usize> {
    const MPEG1: [usize; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    const MPEG2: [usize; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    let (rates, samples, divisor) = match head[1] >> 3 & 3 {
        3 => (MPEG1, 1152, 1),
        2 => (MPEG2, 576, 2),
        0 => (MPEG2, 576, 4),
        _ => return None,
    };
    let rate = *[44_100, 48_000, 32_000].get(usize::from(head[2] >> 2 & 3))? / divisor;
    Some(samples / 8 * rates.get(usize::from(index) - 1)? * 1000 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_info_frame_has_a_frame_s_size_and_says_what_is_known() {
        // MPEG-1 layer III, 128 kbit/s, 44.1 kHz, joint stereo, padded.
        let first = [0xff, 0xfb, 0x92, 0x64];
        let frame = info_frame(&first, 1105, 13 * 44_100).unwrap();
        // 32 kbit/s have room enough.
        assert_eq!(frame.len(), 104);
        assert_eq!(frame[..4], [0xff, 0xfb, 0x10, 0x64]);
        assert_eq!(&frame[36..44], b"Info\x00\x00\x00\x01");
        assert_eq!(frame[44..48], 499_u32.to_be_bytes());
        assert_eq!(frame[48 + 21..48 + 24], [0x24, 0x00, 0x00]);
        assert_eq!(info_frame(&first, 0, -1), None);
        assert_eq!(info_frame(b"no mp3", 0, 44_100), None);
    }

    #[test]
    fn sizes_are_those_of_the_standard() {
        let sizes = |head| frame_bytes(head, 9);
        assert_eq!(sizes([0xff, 0xfb, 0x90, 0x64]), Some(417));
        assert_eq!(sizes([0xff, 0xfb, 0x94, 0x64]), Some(384));
        assert_eq!(sizes([0xff, 0xf3, 0x90, 0x64]), Some(261));
    }
}
