//! What libavcodec makes of packets of subtitles.

use std::ffi::{CStr, CString, c_int};
use std::ptr::{self, NonNull};

use super::{Error, Functions, Media, NO_TIME, sys};

/// What subtitles are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Text.
    Text,
    /// Pictures.
    Pictures,
}

/// Something to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtitle {
    /// Its time, microseconds in the container's own time.
    pub time_us: i64,
    /// When it appears after that time, ms.
    pub appears_ms: u32,
    /// When it disappears after that time, ms; the greatest number if the next one ends it.
    pub disappears_ms: u32,
    /// Lines of ASS as Matroska has them.
    pub lines: Vec<Vec<u8>>,
    /// Pictures, later ones above earlier ones.
    pub bitmaps: Vec<Bitmap>,
}

/// A picture of subtitles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Left edge on the canvas, pixels.
    pub x: i32,
    /// Upper edge, pixels.
    pub y: i32,
    /// Pixels.
    pub width: usize,
    /// Row by row, each pixel as 0xAARRGGBB, colours not multiplied by opacity.
    pub pixels: Vec<u32>,
}

/// A decoder of subtitles.
#[derive(Debug)]
pub struct Decoder {
    functions: &'static Functions,
    codec: NonNull<sys::AVCodecContext>,
    nature: Nature,
    made_for_ass: bool,
}

// SAFETY: as `Media`.
unsafe impl Send for Decoder {}

impl Decoder {
    /// A decoder for a stream. `charset` is iconv's name of a text's encoding.
    ///
    /// # Errors
    /// If there is no decoder, or it doesn't know the encoding.
    pub fn open(media: &Media, stream: usize, charset: Option<&str>) -> Result<Self, Error> {
        let functions = media.functions;
        let parameters = media
            .parameters(stream)
            .ok_or_else(|| Error(format!("there is no stream {stream}")))?;
        let id = parameters.codec_id;
        // SAFETY: looked up by a plain number; descriptors are constants.
        let (decoder, properties) = unsafe {
            let descriptor = (functions.descriptor)(id.cast_signed()).as_ref();
            let properties = descriptor.map_or(0, |descriptor| descriptor.props.cast_unsigned());
            ((functions.find_decoder)(id.cast_signed()), properties)
        };
        let nature = if properties & sys::AV_CODEC_PROP_BITMAP_SUB != 0 {
            Nature::Pictures
        } else {
            Nature::Text
        };
        if decoder.is_null() {
            return Err(Error("ffmpeg has no decoder for these subtitles".into()));
        }
        // SAFETY: a context for this decoder, freed by `drop` from here on.
        let codec = unsafe { NonNull::new((functions.allocate_codec)(decoder)) };
        let codec = codec.ok_or_else(|| Error("out of memory".into()))?;
        let made_for_ass = id == sys::AV_CODEC_ID_ASS;
        let opened = Self { functions, codec, nature, made_for_ass };
        let charset = charset.and_then(|name| CString::new(name).ok());
        let base = media.time_base(stream);
        // SAFETY: the context is new, the parameters are a stream's; the dictionary is freed.
        let code = unsafe {
            let mut options = ptr::null_mut();
            if let Some(charset) = charset {
                let name = c"sub_charenc".as_ptr();
                (functions.set_entry)(&raw mut options, name, charset.as_ptr(), 0);
            }
            (functions.parameters)(codec.as_ptr(), parameters);
            (*codec.as_ptr()).pkt_timebase = base.unwrap_or(sys::AVRational { num: 1, den: 1000 });
            let code = (functions.open_codec)(codec.as_ptr(), decoder, &raw mut options);
            (functions.free_entries)(&raw mut options);
            code
        };
        functions.check(code, "the subtitles' decoder doesn't open")?;
        Ok(opened)
    }

    /// What it gives.
    pub fn nature(&self) -> Nature {
        self.nature
    }

    /// Whether the text was made for ASS, and not turned into it.
    pub fn made_for_ass(&self) -> bool {
        self.made_for_ass
    }

    /// The header of a track of ASS.
    pub fn header(&self) -> Vec<u8> {
        // SAFETY: an opened context has so many bytes of header, or none.
        unsafe {
            let codec = self.codec.as_ref();
            match (NonNull::new(codec.subtitle_header), usize::try_from(codec.subtitle_header_size))
            {
                (Some(header), Ok(size)) => {
                    std::slice::from_raw_parts(header.as_ptr(), size).to_vec()
                }
                _ => Vec::new(),
            }
        }
    }

    /// The canvas that positions refer to, as far as the subtitles have said.
    pub fn canvas(&self) -> Option<(u32, u32)> {
        // SAFETY: an opened context.
        let codec = unsafe { self.codec.as_ref() };
        let pixels = |value: c_int| u32::try_from(value).ok().filter(|value| *value > 0);
        pixels(codec.width).zip(pixels(codec.height))
    }

    /// Decodes the packet that [`Media::read`] has just read. `None` if it shows nothing yet, or is
    /// damaged.
    pub fn decode(&mut self, media: &mut Media) -> Option<Subtitle> {
        let mut shown = 0;
        // SAFETY: a subtitle is plain numbers and pointers, for which zero is good.
        let mut subtitle: sys::AVSubtitle = unsafe { std::mem::zeroed() };
        // SAFETY: an opened decoder and a packet of its stream.
        let code = unsafe {
            (self.functions.decode)(
                self.codec.as_ptr(),
                &raw mut subtitle,
                &raw mut shown,
                media.packet.as_ptr(),
            )
        };
        let decoded = (code >= 0 && shown != 0 && subtitle.pts != NO_TIME)
            // SAFETY: the decoder has filled it in.
            .then(|| unsafe { copied(&subtitle) });
        // SAFETY: frees what the decoder has allocated, if anything.
        unsafe { (self.functions.free_subtitle)(&raw mut subtitle) };
        decoded
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let mut codec = self.codec.as_ptr();
        // SAFETY: made in `open`, freed once.
        unsafe { (self.functions.free_codec)(&raw mut codec) }
    }
}

/// # Safety
/// The subtitle is one that a decoder has filled in.
unsafe fn copied(subtitle: &sys::AVSubtitle) -> Subtitle {
    let (mut lines, mut bitmaps) = (Vec::new(), Vec::new());
    for number in 0..subtitle.num_rects as usize {
        // SAFETY: there are so many rectangles, each with its text or pixels.
        unsafe {
            let Some(rect) = (*subtitle.rects.add(number)).as_ref() else { continue };
            if rect.type_ == sys::SUBTITLE_BITMAP {
                bitmaps.extend(bitmap(rect));
            } else if !rect.ass.is_null() {
                lines.push(CStr::from_ptr(rect.ass).to_bytes().to_vec());
            }
        }
    }
    Subtitle {
        time_us: subtitle.pts,
        appears_ms: subtitle.start_display_time,
        disappears_ms: subtitle.end_display_time,
        lines,
        bitmaps,
    }
}

/// # Safety
/// The rectangle is one of pixels that a decoder has filled in.
unsafe fn bitmap(rect: &sys::AVSubtitleRect) -> Option<Bitmap> {
    /// Entries of a palette, which is always whole (`AVPALETTE_SIZE`).
    const COLOURS: usize = 256;
    let size = [rect.w, rect.h, rect.linesize[0]].map(usize::try_from);
    let [Ok(width @ 1..), Ok(height @ 1..), Ok(stride)] = size else { return None };
    let (indices, palette) = (NonNull::new(rect.data[0])?, NonNull::new(rect.data[1])?);
    if stride < width {
        return None;
    }
    // SAFETY: the decoder has allocated `height` rows at this stride, the last at least `width`
    // bytes, and a palette of native words.
    let (indices, palette) = unsafe {
        let length = stride * (height - 1) + width;
        (
            std::slice::from_raw_parts(indices.as_ptr(), length),
            std::slice::from_raw_parts(palette.as_ptr().cast::<[u8; 4]>(), COLOURS),
        )
    };
    let rows = indices.chunks(stride).take(height);
    let pixels = rows
        .flat_map(|row| &row[..width])
        .map(|index| u32::from_ne_bytes(palette[usize::from(*index)]))
        .collect();
    Some(Bitmap { x: rect.x, y: rect.y, width, pixels })
}
