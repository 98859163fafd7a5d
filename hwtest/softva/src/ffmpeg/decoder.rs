//! A software decoder that hands over each picture when it is decoded, not when it is shown.
//!
//! A VA-API client reorders pictures itself and names the surface of each in decoding order;
//! libavcodec delays and reorders them. So the decoder's output is thrown away, and pictures are
//! caught where they are made: libavcodec asks for memory through `get_buffer2` when a picture
//! begins, and with one thread the picture in that memory is complete when the call that decoded
//! its data returns. The memory is held by reference; the decoder goes on using it as its own
//! reference picture.

use std::ffi::c_int;
use std::ptr;

use super::sys;
use crate::caps::Codec;
use crate::status::{Outcome, Refusal};

/// Which of the pictures that a packet makes the decoder begin is the packet's own: decoders fill
/// in for missing reference pictures too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// H.264 invents pictures for gaps in `frame_num` before it begins its own.
    Last,
    /// The others begin their own, then look for its references.
    First,
}

#[derive(Debug)]
struct Catch {
    own: Own,
    begun: usize,
    frame: *mut sys::AVFrame,
}

/// A decoder.
#[derive(Debug)]
pub struct Decoder {
    context: *mut sys::AVCodecContext,
    packet: *mut sys::AVPacket,
    shown: *mut sys::AVFrame,
    catch: Box<Catch>,
}

// SAFETY: the context has no tie to a thread; `&mut self` keeps use exclusive.
unsafe impl Send for Decoder {}

/// libavcodec's call for the memory of a picture.
unsafe extern "C" fn catch_picture(
    context: *mut sys::AVCodecContext,
    frame: *mut sys::AVFrame,
    flags: c_int,
) -> c_int {
    // SAFETY: libavcodec's promises; `opaque` was set to the decoder's `Catch`, which outlives
    // the context, and no reference to it exists during the call into libavcodec.
    unsafe {
        let result = sys::avcodec_default_get_buffer2(context, frame, flags);
        let catch = (*context).opaque.cast::<Catch>();
        if result >= 0 {
            (*catch).begun += 1;
            if (*catch).own == Own::Last || (*catch).begun == 1 {
                sys::av_frame_unref((*catch).frame);
                sys::av_frame_ref((*catch).frame, frame);
            }
        }
        result
    }
}

/// A decoded picture's planes.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations)]
pub struct Decoded<'a> {
    frame: &'a sys::AVFrame,
}

impl Decoded<'_> {
    /// libavutil's pixel format.
    pub fn pixel_format(&self) -> sys::AVPixelFormat {
        self.frame.format
    }

    /// Pixels across and down, before cropping.
    pub fn size(&self) -> (usize, usize) {
        let size = |value: c_int| usize::try_from(value).unwrap_or(0);
        (size(self.frame.width), size(self.frame.height))
    }

    /// Bytes of a row of a plane, `length` of them.
    pub fn row(&self, plane: usize, row: usize, length: usize) -> &[u8] {
        let stride = self.frame.linesize[plane] as isize;
        // SAFETY: libavcodec allocates whole rows for the coded size; callers stay within it.
        unsafe {
            let start = self.frame.data[plane].offset(stride * row as isize);
            std::slice::from_raw_parts(start, length)
        }
    }
}

impl Decoder {
    /// A decoder for a compression format.
    pub fn new(codec: Codec) -> Outcome<Self> {
        super::quiet();
        let (id, own) = match codec {
            Codec::H264 => (sys::AV_CODEC_ID_H264, Own::Last),
            Codec::H265 => (sys::AV_CODEC_ID_HEVC, Own::First),
            Codec::Vp9 => (sys::AV_CODEC_ID_VP9, Own::First),
            Codec::Mpeg2 => (sys::AV_CODEC_ID_MPEG2VIDEO, Own::First),
            Codec::None => return Err(Refusal::unimplemented("decoding nothing")),
        };
        // SAFETY: all pointers are checked before use, and `drop` frees what there is.
        unsafe {
            let found = sys::avcodec_find_decoder(id);
            let mut decoder = Self {
                context: sys::avcodec_alloc_context3(found),
                packet: sys::av_packet_alloc(),
                shown: sys::av_frame_alloc(),
                catch: Box::new(Catch { own, begun: 0, frame: sys::av_frame_alloc() }),
            };
            if found.is_null()
                || decoder.context.is_null()
                || decoder.packet.is_null()
                || decoder.shown.is_null()
                || decoder.catch.frame.is_null()
            {
                return Err(Refusal::memory(format!("libavcodec has no decoder for {codec:?}")));
            }
            let context = &mut *decoder.context;
            context.thread_count = 1;
            context.opaque = ptr::from_mut(decoder.catch.as_mut()).cast();
            context.get_buffer2 = Some(catch_picture);
            if sys::avcodec_open2(context, found, ptr::null_mut()) < 0 {
                return Err(Refusal::decoding(format!("libavcodec's {codec:?} doesn't open")));
            }
            Ok(decoder)
        }
    }

    /// Decodes the data of one picture or field. `goes_on`: it may belong to the picture before
    /// (a second field), of which there is one then.
    pub fn decode(&mut self, data: &[u8], goes_on: bool) -> Outcome<Decoded<'_>> {
        let length = c_int::try_from(data.len()).unwrap_or(0);
        self.catch.begun = 0;
        // SAFETY: packet, frame and context are good until `drop`; the packet is allocated with
        // the padding that libavcodec asks for and filled with `length` bytes.
        let sent = unsafe {
            if sys::av_new_packet(self.packet, length) < 0 {
                return Err(Refusal::memory(format!("no packet of {length} bytes")));
            }
            ptr::copy_nonoverlapping(data.as_ptr(), (*self.packet).data, data.len());
            let sent = sys::avcodec_send_packet(self.context, self.packet);
            sys::av_packet_unref(self.packet);
            while sys::avcodec_receive_frame(self.context, self.shown) >= 0 {
                sys::av_frame_unref(self.shown);
            }
            sent
        };
        // SAFETY: allocated in `new`.
        let frame = unsafe { &*self.catch.frame };
        if frame.data[0].is_null() || (self.catch.begun == 0 && !goes_on) {
            return Err(Refusal::decoding(format!("no picture in {length} bytes (error {sent})")));
        }
        Ok(Decoded { frame })
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: each was allocated by its own function or is null, which all of these take.
        unsafe {
            sys::avcodec_free_context(&raw mut self.context);
            sys::av_packet_free(&raw mut self.packet);
            sys::av_frame_free(&raw mut self.shown);
            sys::av_frame_free(&raw mut self.catch.frame);
        }
    }
}
