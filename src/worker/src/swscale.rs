//! libswscale: ffmpeg's own scaler, through the few functions that are needed.
//!
//! `videoconvertscale` takes 3.5 ms for a 1080p frame to 720p where this takes 1.4 ms, and its
//! filters differ from those a viewer of plain ffmpeg gets. The library is in memory anyway: the
//! decoders of gst-libav bring it along.
//!
//! Invariants: the only unsafe code of the worker is here, in `canvas`, and in `subtitles::libass` and
//! `subtitles::libav`; a [`Scaler`] never reads or writes beyond the planes it is given, because
//! their lengths are checked against the strides first.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_double, c_int, c_uint};
use std::ptr::{self, NonNull};

/// How pixels between pixels are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// `SWS_FAST_BILINEAR`.
    FastBilinear = 1,
    /// `SWS_BICUBIC`: what ffmpeg's scale filter uses unless told otherwise.
    Bicubic = 4,
}

const PLANES: usize = 4;

#[repr(C)]
struct SwsContext {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn av_get_pix_fmt(name: *const c_char) -> c_int;
    fn sws_getContext(
        source_width: c_int,
        source_height: c_int,
        source_format: c_int,
        width: c_int,
        height: c_int,
        format: c_int,
        flags: c_int,
        source_filter: *mut (),
        filter: *mut (),
        parameters: *const c_double,
    ) -> *mut SwsContext;
    fn sws_scale(
        context: *mut SwsContext,
        source: *const *const u8,
        source_stride: *const c_int,
        first_row: c_int,
        rows: c_int,
        destination: *const *mut u8,
        stride: *const c_int,
    ) -> c_int;
    fn sws_freeContext(context: *mut SwsContext);
    fn swscale_version() -> c_uint;
}

/// Whether this is of ffmpeg 7.1 (libswscale 8.3, libavcodec 61.19) or newer; libavcodec itself is
/// linked by gst-libav alone, and is of the same release.
pub fn is_ffmpeg_7_1() -> bool {
    const OF_7_1: c_uint = 8 << 16 | 3 << 8;
    // SAFETY: takes nothing and returns a constant.
    unsafe { swscale_version() >= OF_7_1 }
}

/// Size and format of a picture. `format` is ffmpeg's name of a pixel format (`yuv420p`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// ffmpeg's name.
    pub format: &'static CStr,
    /// Rows of chroma per row of luma, as a shift: 1 for 4:2:0.
    pub chroma_shift: u32,
}

/// A plane to read from: bytes and bytes per row.
pub type Plane<'a> = (&'a [u8], usize);
/// A plane to write to.
pub type PlaneMut<'a> = (&'a mut [u8], usize);

/// Converts pictures of one size and format to another.
#[derive(Debug)]
pub struct Scaler {
    context: NonNull<SwsContext>,
    source: Picture,
    target: Picture,
}

// SAFETY: the context has no tie to a thread; `&mut self` keeps use exclusive.
unsafe impl Send for Scaler {}

impl Scaler {
    /// A bicubic scaler; `None` if libswscale doesn't know a format or refuses the sizes.
    pub fn new(source: Picture, target: Picture) -> Option<Self> {
        Self::by(Filter::Bicubic, source, target)
    }

    /// A scaler with this filter; `None` as above.
    pub fn by(filter: Filter, source: Picture, target: Picture) -> Option<Self> {
        let int = |value: u32| c_int::try_from(value).ok();
        // SAFETY: the names are NUL-terminated.
        let (from, to) = unsafe {
            (av_get_pix_fmt(source.format.as_ptr()), av_get_pix_fmt(target.format.as_ptr()))
        };
        if from < 0 || to < 0 {
            return None;
        }
        // SAFETY: filters and parameters may be null; the rest are plain numbers.
        let context = unsafe {
            sws_getContext(
                int(source.width)?,
                int(source.height)?,
                from,
                int(target.width)?,
                int(target.height)?,
                to,
                filter as c_int,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null(),
            )
        };
        Some(Self { context: NonNull::new(context)?, source, target })
    }

    /// Scales one picture. False if a plane is smaller than its picture; nothing is written then.
    pub fn scale(&mut self, source: &[Plane<'_>], target: &mut [PlaneMut<'_>]) -> bool {
        let whole = source.len() <= PLANES
            && target.len() <= PLANES
            && source.iter().enumerate().all(|(i, (p, s))| fits(&self.source, i, p.len(), *s))
            && target.iter().enumerate().all(|(i, (p, s))| fits(&self.target, i, p.len(), *s));
        if !whole {
            return false;
        }
        let mut source_planes = [ptr::null(); PLANES];
        let mut source_strides = [0; PLANES];
        for (i, (plane, stride)) in source.iter().enumerate() {
            source_planes[i] = plane.as_ptr();
            source_strides[i] = c_int::try_from(*stride).unwrap_or(0);
        }
        let mut planes = [ptr::null_mut(); PLANES];
        let mut strides = [0; PLANES];
        for (i, (plane, stride)) in target.iter_mut().enumerate() {
            planes[i] = plane.as_mut_ptr();
            strides[i] = c_int::try_from(*stride).unwrap_or(0);
        }
        let rows = c_int::try_from(self.source.height).unwrap_or(0);
        // SAFETY: the context is valid until drop; each plane holds its rows (checked above), and
        // planes beyond those given are null with stride 0, as for formats with fewer planes.
        let written = unsafe {
            sws_scale(
                self.context.as_ptr(),
                source_planes.as_ptr(),
                source_strides.as_ptr(),
                0,
                rows,
                planes.as_ptr(),
                strides.as_ptr(),
            )
        };
        u32::try_from(written) == Ok(self.target.height)
    }
}

/// Whether a plane of `length` bytes holds all rows of plane `index`.
fn fits(picture: &Picture, index: usize, length: usize, stride: usize) -> bool {
    let shift = if index == 0 { 0 } else { picture.chroma_shift };
    let rows = (picture.height as usize + (1 << shift) - 1) >> shift;
    // The last row may end before its stride does, never before half of it for the formats used.
    rows > 0 && stride > 0 && length >= stride * (rows - 1) + stride.min(picture.width as usize / 2)
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // SAFETY: made by sws_getContext, freed once.
        unsafe { sws_freeContext(self.context.as_ptr()) }
    }
}
