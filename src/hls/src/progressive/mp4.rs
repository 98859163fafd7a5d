//! Fragmented MP4 in one file, as ffmpeg writes it with `frag_keyframe+empty_moov+delay_moov`: head,
//! fragments, and at the end an index of them (`mfra`, ISO/IEC 14496-12 8.8.9).

use super::Container;
use super::span::Span;
use crate::fmp4::{Access, Brand, Fmp4Writer};
use crate::{Sample, Track, WriteError};

#[derive(Debug)]
pub(super) struct Mp4 {
    writer: Fmp4Writer,
    span: Span,
    tracks: u32,
    head_done: bool,
    /// Size of the file so far.
    position: u64,
    /// Places for the index, and where their fragments begin.
    index: Vec<(u64, Access)>,
}

impl Mp4 {
    pub(super) fn new(tracks: &[Track], brand: Brand) -> Result<Self, WriteError> {
        Ok(Self {
            writer: Fmp4Writer::file(tracks, brand)?,
            span: Span::new(tracks),
            tracks: u32::try_from(tracks.len()).unwrap_or(0),
            head_done: false,
            position: 0,
            index: Vec::new(),
        })
    }

    fn fragment(&mut self, next: Option<&Sample>, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let begin = out.len();
        if !std::mem::replace(&mut self.head_done, true) {
            out.extend(self.writer.init()?);
        }
        let at = self.position + (out.len() - begin) as u64;
        let fragment = self.writer.take(next)?;
        out.extend(fragment.head);
        fragment.data.iter().for_each(|data| out.extend_from_slice(data));
        self.index.extend(fragment.access.into_iter().map(|access| (at, access)));
        self.position += (out.len() - begin) as u64;
        Ok(())
    }
}

impl Container for Mp4 {
    fn write(&mut self, sample: &Sample, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if self.span.begins_with(sample) {
            self.fragment(Some(sample), out)?;
        }
        self.writer.write(sample)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.fragment(None, out)?;
        mfra(self.tracks, &self.index, out);
        Ok(())
    }
}

/// The index of all tracks, and its own size at the very end.
fn mfra(tracks: u32, index: &[(u64, Access)], out: &mut Vec<u8>) {
    let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut body = Vec::new();
    for track in 1..=tracks {
        let places: Vec<_> = index.iter().filter(|(_, access)| access.track == track).collect();
        // Version 1: times and offsets of 64 bits; numbers of one byte.
        let mut tfra = vec![1, 0, 0, 0];
        tfra.extend_from_slice(&track.to_be_bytes());
        tfra.extend_from_slice(&[0; 4]);
        tfra.extend_from_slice(&size(places.len()));
        for (offset, access) in places {
            tfra.extend_from_slice(&access.time.to_be_bytes());
            tfra.extend_from_slice(&offset.to_be_bytes());
            // First run, first sample.
            tfra.extend_from_slice(&[access.traf, 1, 1]);
        }
        body.extend_from_slice(&size(8 + tfra.len()));
        body.extend_from_slice(b"tfra");
        body.extend_from_slice(&tfra);
    }
    let whole = size(8 + body.len() + 16);
    out.extend_from_slice(&whole);
    out.extend_from_slice(b"mfra");
    out.extend_from_slice(&body);
    out.extend_from_slice(&[0, 0, 0, 16]);
    out.extend_from_slice(b"mfro");
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&whole);
}
