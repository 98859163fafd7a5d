//! libass, through the few functions that ffmpeg's `subtitles` filter uses.
//!
//! Invariants: a [`Renderer`] owns library, renderer and track, and frees them in the order in which
//! they depend on each other; an [`Image`] can't outlive the next call to [`Renderer::render`].
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// `ASS_FONTPROVIDER_AUTODETECT`: fontconfig, on Linux.
const AUTODETECT: c_int = 1;
/// `ASS_FEATURE_WRAP_UNICODE`.
const WRAP_UNICODE: c_int = 3;

macro_rules! opaque {
    ($($name:ident),*) => { $(#[repr(C)] struct $name { _opaque: [u8; 0] })* };
}
opaque!(AssLibrary, AssRenderer, AssTrack);

/// `ASS_Image`, as far as every version has it.
#[repr(C)]
struct AssImage {
    width: c_int,
    height: c_int,
    stride: c_int,
    bitmap: *const u8,
    colour: u32,
    x: c_int,
    y: c_int,
    next: *const AssImage,
}

/// Of `ass_set_message_cb`. The third is a `va_list`, which is passed by its address and not read.
type MessageCallback = unsafe extern "C" fn(c_int, *const c_char, *mut c_void, *mut c_void);

unsafe extern "C" {
    fn ass_library_init() -> *mut AssLibrary;
    fn ass_library_done(library: *mut AssLibrary);
    fn ass_set_message_cb(library: *mut AssLibrary, callback: MessageCallback, data: *mut c_void);
    fn ass_set_extract_fonts(library: *mut AssLibrary, extract: c_int);
    fn ass_add_font(
        library: *mut AssLibrary,
        name: *const c_char,
        data: *const c_char,
        size: c_int,
    );
    fn ass_renderer_init(library: *mut AssLibrary) -> *mut AssRenderer;
    fn ass_renderer_done(renderer: *mut AssRenderer);
    fn ass_set_frame_size(renderer: *mut AssRenderer, width: c_int, height: c_int);
    fn ass_set_storage_size(renderer: *mut AssRenderer, width: c_int, height: c_int);
    fn ass_set_fonts(
        renderer: *mut AssRenderer,
        default_font: *const c_char,
        default_family: *const c_char,
        provider: c_int,
        configuration: *const c_char,
        update: c_int,
    );
    fn ass_new_track(library: *mut AssLibrary) -> *mut AssTrack;
    fn ass_free_track(track: *mut AssTrack);
    fn ass_track_set_feature(track: *mut AssTrack, feature: c_int, enable: c_int) -> c_int;
    fn ass_process_codec_private(track: *mut AssTrack, data: *const c_char, size: c_int);
    fn ass_process_chunk(
        track: *mut AssTrack,
        data: *const c_char,
        size: c_int,
        start: c_longlong,
        duration: c_longlong,
    );
    fn ass_render_frame(
        renderer: *mut AssRenderer,
        track: *mut AssTrack,
        now: c_longlong,
        changed: *mut c_int,
    ) -> *const AssImage;
}

/// Which font was taken for which is of no use to anybody here, and the worker's standard error is
/// the gateway's log.
unsafe extern "C" fn ignore(_: c_int, _: *const c_char, _: *mut c_void, _: *mut c_void) {}

/// Draws the events of one track.
#[derive(Debug)]
pub struct Renderer {
    library: NonNull<AssLibrary>,
    renderer: NonNull<AssRenderer>,
    track: NonNull<AssTrack>,
}

// SAFETY: libass has no tie to a thread; every call takes `&mut self`.
unsafe impl Send for Renderer {}

/// A piece of text in one colour.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Bytes from row to row.
    pub stride: usize,
    /// Coverage, a byte per pixel. The last row may end before its stride does.
    pub coverage: &'a [u8],
    /// Red, green, blue, opacity.
    pub colour: [u8; 4],
    /// Left edge in the picture, pixels.
    pub x: i32,
    /// Upper edge in the picture, pixels.
    pub y: i32,
}

/// The pieces of a picture, in the order in which they are drawn.
#[derive(Debug)]
pub struct Images<'a> {
    next: *const AssImage,
    _of: PhantomData<&'a mut Renderer>,
}

impl<'a> Iterator for Images<'a> {
    type Item = Image<'a>;

    fn next(&mut self) -> Option<Image<'a>> {
        loop {
            // SAFETY: null at the end, else an image that libass keeps until the next frame is
            // rendered, which takes the renderer that `'a` borrows.
            let image = unsafe { self.next.as_ref()? };
            self.next = image.next;
            let size = [image.width, image.height, image.stride].map(usize::try_from);
            let [Ok(width @ 1..), Ok(height @ 1..), Ok(stride)] = size else { continue };
            if image.bitmap.is_null() || stride < width {
                continue;
            }
            let length = stride * (height - 1) + width;
            // SAFETY: a bitmap has `height` rows at this stride, the last of `width` bytes.
            let coverage = unsafe { std::slice::from_raw_parts(image.bitmap, length) };
            let [red, green, blue, transparency] = image.colour.to_be_bytes();
            let colour = [red, green, blue, 255 - transparency];
            return Some(Image { width, height, stride, coverage, colour, x: image.x, y: image.y });
        }
    }
}

impl Renderer {
    /// A renderer with an empty track, which knows no font yet. `None` if libass has no memory.
    pub fn new() -> Option<Self> {
        // SAFETY: each is made from the one before, and given back if the next can't be made.
        unsafe {
            let library = NonNull::new(ass_library_init())?;
            ass_set_message_cb(library.as_ptr(), ignore, ptr::null_mut());
            ass_set_extract_fonts(library.as_ptr(), 1);
            let Some(renderer) = NonNull::new(ass_renderer_init(library.as_ptr())) else {
                ass_library_done(library.as_ptr());
                return None;
            };
            let Some(track) = NonNull::new(ass_new_track(library.as_ptr())) else {
                ass_renderer_done(renderer.as_ptr());
                ass_library_done(library.as_ptr());
                return None;
            };
            Some(Self { library, renderer, track })
        }
    }

    /// Adds a font by its file's content. Before [`use_fonts`](Self::use_fonts).
    pub fn add_font(&mut self, name: &CStr, content: &[u8]) {
        let Ok(size) = c_int::try_from(content.len()) else { return };
        // SAFETY: libass copies name and content.
        unsafe {
            ass_add_font(self.library.as_ptr(), name.as_ptr(), content.as_ptr().cast(), size);
        }
    }

    /// Looks for fonts among those that were added, then among the system's.
    pub fn use_fonts(&mut self) {
        let none = ptr::null();
        // SAFETY: no default font, family or configuration is a choice that libass knows.
        unsafe { ass_set_fonts(self.renderer.as_ptr(), none, none, AUTODETECT, none, 1) };
    }

    /// Breaks lines as Unicode does, which is for text that wasn't made for ASS; a libass that can't
    /// breaks them at spaces.
    pub fn wrap_as_unicode(&mut self) {
        // SAFETY: a feature that isn't known is refused.
        unsafe { ass_track_set_feature(self.track.as_ptr(), WRAP_UNICODE, 1) };
    }

    /// The track's header: styles and what events look like.
    pub fn header(&mut self, header: &[u8]) {
        let Ok(size) = c_int::try_from(header.len()) else { return };
        // SAFETY: libass copies what it reads of the header.
        unsafe {
            ass_process_codec_private(self.track.as_ptr(), header.as_ptr().cast(), size);
        }
    }

    /// An event as Matroska stores it, with its time and length in ms.
    pub fn event(&mut self, line: &[u8], start_ms: i64, duration_ms: i64) {
        let Ok(size) = c_int::try_from(line.len()) else { return };
        // SAFETY: libass copies what it reads of the line.
        unsafe {
            ass_process_chunk(
                self.track.as_ptr(),
                line.as_ptr().cast(),
                size,
                start_ms,
                duration_ms,
            );
        }
    }

    /// The size of the pictures that are drawn upon.
    pub fn size(&mut self, width: u32, height: u32) {
        let [Ok(width), Ok(height)] = [width, height].map(c_int::try_from) else { return };
        // SAFETY: plain numbers.
        unsafe {
            ass_set_frame_size(self.renderer.as_ptr(), width, height);
            ass_set_storage_size(self.renderer.as_ptr(), width, height);
        }
    }

    /// What is to be seen at a time, ms.
    pub fn render(&mut self, now_ms: i64) -> Images<'_> {
        // SAFETY: nobody asks whether anything has changed.
        let next = unsafe {
            ass_render_frame(self.renderer.as_ptr(), self.track.as_ptr(), now_ms, ptr::null_mut())
        };
        Images { next, _of: PhantomData }
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        // SAFETY: made in this order, and freed once.
        unsafe {
            ass_free_track(self.track.as_ptr());
            ass_renderer_done(self.renderer.as_ptr());
            ass_library_done(self.library.as_ptr());
        }
    }
}
