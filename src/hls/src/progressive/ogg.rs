//! Ogg: Opus (RFC 7845), Vorbis (Vorbis I, annex A) and FLAC (RFC 9639, annex).
//!
//! A page holds about a second, as ffmpeg's do; its position is the number of samples up to its end.

use ::ogg::writing::{PacketWriteEndInfo, PacketWriter};
use bytes::Bytes;

use super::Container;
use crate::time::ticks;
use crate::ts::opus_samples;
use crate::{Sample, TrackFormat, WriteError};

/// Longest page in seconds.
const PAGE_SECONDS: i64 = 1;
/// The only logical stream; ffmpeg draws a number.
const SERIAL: u32 = 1;
pub(super) const VENDOR: &[u8] = b"Rendergate";

#[derive(Debug)]
struct Packet {
    data: Bytes,
    /// Samples from the stream's beginning to the packet's end.
    end: i64,
}

pub(super) struct Ogg {
    writer: PacketWriter<'static, Vec<u8>>,
    format: TrackFormat,
    rate: u32,
    /// Samples of Opus at the beginning that aren't played.
    pre_skip: i64,
    /// End of the packet before, in samples.
    end: Option<i64>,
    page_start: i64,
    /// The last one, which may yet turn out to end the stream.
    held: Option<Packet>,
}

impl std::fmt::Debug for Ogg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ogg").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Ogg {
    pub(super) fn new(format: &TrackFormat) -> Result<Self, WriteError> {
        let unsupported = |why: &str| Err(WriteError::Unsupported(why.to_owned()));
        let pre_skip = match format {
            TrackFormat::Opus { opus_head, .. } => match opus_head.get(10..12) {
                Some(&[low, high]) => u16::from_le_bytes([low, high]).into(),
                _ => return unsupported("OpusHead, expected at least 19 bytes"),
            },
            TrackFormat::Flac { streaminfo, .. } if streaminfo.len() != 34 => {
                return unsupported("STREAMINFO, expected 34 bytes");
            }
            TrackFormat::Vorbis { .. } | TrackFormat::Flac { .. } => 0,
            _ => return unsupported("Ogg, expected Opus, Vorbis or FLAC"),
        };
        let rate = format.sample_rate().unwrap_or(48_000);
        Ok(Self {
            writer: PacketWriter::new(Vec::new()),
            format: format.of_open_length(None),
            rate,
            pre_skip,
            end: None,
            page_start: 0,
            held: None,
        })
    }

    fn headers(&self) -> Vec<Vec<u8>> {
        match &self.format {
            TrackFormat::Opus { opus_head, .. } => {
                vec![opus_head.to_vec(), [b"OpusTags", &comments()[..]].concat()]
            }
            TrackFormat::Vorbis { headers, .. } => headers.iter().map(|h| h.to_vec()).collect(),
            TrackFormat::Flac { streaminfo, .. } => {
                let comments = comments();
                // Version 1.0; one header follows. STREAMINFO is block 0, comments are the last, 4.
                let head = [b"\x7fFLAC\x01\x00\x00\x01fLaC\x00\x00\x00\x22", &streaminfo[..]];
                let length = u32::try_from(comments.len()).unwrap_or(0).to_be_bytes();
                vec![head.concat(), [&[0x84], &length[1..], &comments].concat()]
            }
            _ => Vec::new(),
        }
    }

    fn write_headers(&mut self) -> Result<(), WriteError> {
        let headers = self.headers();
        let last = headers.len().saturating_sub(1);
        for (number, header) in headers.into_iter().enumerate() {
            // The first has a page of its own, and sound begins a new one.
            let ends = number == 0 || number == last;
            self.put(header.into(), 0, ends, false)?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        data: Bytes,
        end: i64,
        page_ends: bool,
        last: bool,
    ) -> Result<(), WriteError> {
        let info = match (last, page_ends) {
            (true, _) => PacketWriteEndInfo::EndStream,
            (false, true) => PacketWriteEndInfo::EndPage,
            (false, false) => PacketWriteEndInfo::NormalPacket,
        };
        let end = u64::try_from(end).unwrap_or(0);
        self.writer
            .write_packet(data.to_vec(), SERIAL, info, end)
            .map_err(|error| WriteError::BadSample { track: 0, reason: error.to_string() })
    }

    /// Writes the packet that was held back.
    fn release(&mut self, last: bool) -> Result<(), WriteError> {
        let Some(Packet { data, end }) = self.held.take() else { return Ok(()) };
        let page_ends = end - self.page_start >= PAGE_SECONDS * i64::from(self.rate);
        if page_ends {
            self.page_start = end;
        }
        self.put(data, end, page_ends, last)
    }

    /// Samples from the stream's beginning to the sample's end.
    fn end_of(&self, sample: &Sample) -> i64 {
        let length = i64::try_from(sample.duration).unwrap_or(0);
        let stated = ticks(sample.pts.saturating_add(length), self.rate) + self.pre_skip;
        let whole = match self.format {
            TrackFormat::Opus { .. } => i64::from(opus_samples(&sample.data)),
            _ => return stated.max(0),
        };
        // Opus' packets say how long they are; their times tell where a stream begins, or where a
        // hole is.
        let begin = ticks(sample.pts, self.rate) + self.pre_skip;
        match self.end {
            Some(end) if (begin - end).abs() <= i64::from(self.rate) / 100 => end + whole,
            _ => begin.max(0) + whole,
        }
    }
}

impl Container for Ogg {
    fn write(&mut self, sample: &Sample, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if self.end.is_none() {
            self.write_headers()?;
        }
        let end = self.end_of(sample).max(self.end.unwrap_or(0));
        self.release(false)?;
        self.end = Some(end);
        self.held = Some(Packet { data: sample.data.clone(), end });
        // What of the last packet is to be heard: less than it holds at the end of a stream.
        if let (TrackFormat::Opus { .. }, Some(held)) = (&self.format, &mut self.held) {
            let length = i64::try_from(sample.duration).unwrap_or(0);
            let heard = ticks(sample.pts.saturating_add(length), self.rate) + self.pre_skip;
            if sample.duration > 0 && heard > 0 && heard < held.end {
                held.end = heard;
            }
        }
        out.append(self.writer.inner_mut());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.release(true)?;
        out.append(self.writer.inner_mut());
        Ok(())
    }
}

/// A comment header that names the writer and nothing else (Vorbis I, 5.2.1, without the framing
/// bit).
pub(super) fn comments() -> Vec<u8> {
    let mut comments = u32::try_from(VENDOR.len()).unwrap_or(0).to_le_bytes().to_vec();
    comments.extend_from_slice(VENDOR);
    comments.extend_from_slice(&[0; 4]);
    comments
}
