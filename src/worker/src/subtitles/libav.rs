//! libavformat and libavcodec: containers and subtitles as ffmpeg itself reads them.
//!
//! They are loaded, not linked: they bring a hundred libraries along, which costs every process that
//! only looks at a GPU 27 ms, while one that runs streams has them by gst-libav anyway.
//! The layouts of structures come from the headers at build time (`build.rs`), of the same major
//! version as the library that is loaded.
//!
//! Invariants:
//! - Nothing is opened by name: bytes come from descriptors, and a demuxer that asks for another file
//!   gets none.
//! - What leaves this file is copied out of ffmpeg's structures.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use libloading::os::unix::{Library as Dynamic, RTLD_LOCAL, RTLD_NOW};

pub use decoder::{Bitmap, Decoder, Nature, Subtitle};

use super::bytes::Joined;

mod decoder;

#[allow(
    missing_docs,
    dead_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unused_qualifications,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod sys {
    include!(concat!(env!("OUT_DIR"), "/libav.rs"));
}

/// `AVERROR_EOF`.
const END: c_int = -0x2046_4f45;
/// `AVERROR(EACCES)`, `AVERROR(EIO)`.
const REFUSED: c_int = -13;
const BROKEN: c_int = -5;
/// Of the buffer between descriptor and demuxer, bytes; ffmpeg's own is as large.
const BUFFER: usize = 32 * 1024;
/// `AV_NOPTS_VALUE`.
const NO_TIME: i64 = i64::MIN;

/// `avio_alloc_context`'s callbacks.
type Read = unsafe extern "C" fn(*mut c_void, *mut u8, c_int) -> c_int;
type Seek = unsafe extern "C" fn(*mut c_void, i64, c_int) -> i64;

macro_rules! functions {
    ($($field:ident $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The libraries, loaded.
        #[derive(Debug)]
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            // Kept loaded for as long as the functions above are.
            _format: Dynamic,
        }

        impl Functions {
            fn load() -> Result<Self, libloading::Error> {
                let name = format!("libavformat.so.{}", sys::LIBAVFORMAT_VERSION_MAJOR);
                // SAFETY: ffmpeg's libraries have no initialisation to speak of.
                let format = unsafe { Dynamic::open(Some(name), RTLD_NOW | RTLD_LOCAL)? };
                // libavformat depends on the others: a look-up in it finds the functions of all.
                Ok(Self {
                    $(
                        // SAFETY: the type is the one that the header declares.
                        $field: unsafe { *format.get($symbol)? },
                    )*
                    _format: format,
                })
            }
        }
    };
}

functions! {
    allocate_io b"avio_alloc_context\0":
        fn(*mut u8, c_int, c_int, *mut c_void, Option<Read>, *const c_void, Option<Seek>)
            -> *mut sys::AVIOContext;
    free_io b"avio_context_free\0": fn(*mut *mut sys::AVIOContext);
    allocate b"av_malloc\0": fn(usize) -> *mut c_void;
    free b"av_free\0": fn(*mut c_void);
    allocate_format b"avformat_alloc_context\0": fn() -> *mut sys::AVFormatContext;
    open_input b"avformat_open_input\0":
        fn(*mut *mut sys::AVFormatContext, *const c_char, *const c_void, *mut *mut c_void) -> c_int;
    close_input b"avformat_close_input\0": fn(*mut *mut sys::AVFormatContext);
    best_stream b"av_find_best_stream\0":
        fn(*mut sys::AVFormatContext, c_int, c_int, c_int, *mut c_void, c_int) -> c_int;
    seek_file b"avformat_seek_file\0":
        fn(*mut sys::AVFormatContext, c_int, i64, i64, i64, c_int) -> c_int;
    read_frame b"av_read_frame\0": fn(*mut sys::AVFormatContext, *mut sys::AVPacket) -> c_int;
    allocate_packet b"av_packet_alloc\0": fn() -> *mut sys::AVPacket;
    unref_packet b"av_packet_unref\0": fn(*mut sys::AVPacket);
    free_packet b"av_packet_free\0": fn(*mut *mut sys::AVPacket);
    find_decoder b"avcodec_find_decoder\0": fn(c_int) -> *const c_void;
    descriptor b"avcodec_descriptor_get\0": fn(c_int) -> *const sys::AVCodecDescriptor;
    allocate_codec b"avcodec_alloc_context3\0": fn(*const c_void) -> *mut sys::AVCodecContext;
    free_codec b"avcodec_free_context\0": fn(*mut *mut sys::AVCodecContext);
    parameters b"avcodec_parameters_to_context\0":
        fn(*mut sys::AVCodecContext, *const sys::AVCodecParameters) -> c_int;
    open_codec b"avcodec_open2\0":
        fn(*mut sys::AVCodecContext, *const c_void, *mut *mut c_void) -> c_int;
    decode b"avcodec_decode_subtitle2\0":
        fn(*mut sys::AVCodecContext, *mut sys::AVSubtitle, *mut c_int, *const sys::AVPacket)
            -> c_int;
    free_subtitle b"avsubtitle_free\0": fn(*mut sys::AVSubtitle);
    get_entry b"av_dict_get\0":
        fn(*const c_void, *const c_char, *const sys::AVDictionaryEntry, c_int)
            -> *const sys::AVDictionaryEntry;
    set_entry b"av_dict_set\0": fn(*mut *mut c_void, *const c_char, *const c_char, c_int) -> c_int;
    free_entries b"av_dict_free\0": fn(*mut *mut c_void);
    error_text b"av_strerror\0": fn(c_int, *mut c_char, usize) -> c_int;
}

/// Why a file or a stream of it can't be used, a sentence.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

fn library() -> Result<&'static Functions, Error> {
    static LOADED: OnceLock<Result<Functions, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| Functions::load().map_err(|error| error.to_string()));
    loaded.as_ref().map_err(|error| Error(format!("can't load libavformat: {error}")))
}

impl Functions {
    fn check(&self, code: c_int, what: &str) -> Result<c_int, Error> {
        if code >= 0 {
            return Ok(code);
        }
        let mut text = [0_u8; 128];
        // SAFETY: writes at most so much, with a NUL at its end.
        unsafe { (self.error_text)(code, text.as_mut_ptr().cast(), text.len()) };
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy();
        Err(Error(format!("{what}: {text}")))
    }
}

/// Picture, sound, subtitles, or none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Picture.
    Video,
    /// Sound.
    Audio,
    /// Subtitles.
    Subtitles,
    /// Anything else: attachments, and pictures that are no film (a cover).
    Other,
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Index of its stream.
    pub stream: usize,
    /// When it is decoded, else shown, ns in the container's own time.
    pub time_ns: Option<i64>,
}

/// An opened container.
#[derive(Debug)]
pub struct Media {
    functions: &'static Functions,
    format: *mut sys::AVFormatContext,
    io: *mut sys::AVIOContext,
    packet: NonNull<sys::AVPacket>,
    // Its address is the opaque pointer of `io`'s callbacks.
    bytes: NonNull<Joined>,
}

// SAFETY: nothing of it has a tie to a thread; every call takes `&mut self`, or reads what only
// such calls write.
unsafe impl Send for Media {}

unsafe extern "C" fn read(bytes: *mut c_void, buffer: *mut u8, size: c_int) -> c_int {
    // SAFETY: `Media` gave its own bytes, which nobody else has, and a buffer of this size.
    let (bytes, buffer) = unsafe {
        let size = usize::try_from(size).unwrap_or(0);
        (&mut *bytes.cast::<Joined>(), std::slice::from_raw_parts_mut(buffer, size))
    };
    match bytes.read(buffer) {
        Ok(0) => END,
        Ok(read) => c_int::try_from(read).unwrap_or(BROKEN),
        Err(_) => BROKEN,
    }
}

unsafe extern "C" fn seek(bytes: *mut c_void, offset: i64, whence: c_int) -> i64 {
    // SAFETY: as in `read`.
    let bytes = unsafe { &mut *bytes.cast::<Joined>() };
    let size = i64::try_from(bytes.size()).unwrap_or(i64::MAX);
    let target = match whence {
        0 => Some(offset),
        1 => bytes.position().checked_add_signed(offset).and_then(|at| i64::try_from(at).ok()),
        2 => size.checked_add(offset),
        whence if whence & sys::AVSEEK_SIZE.cast_signed() != 0 => return size,
        _ => None,
    };
    match target.and_then(|target| u64::try_from(target).ok()) {
        Some(target) => {
            bytes.go_to(target);
            target.cast_signed()
        }
        None => i64::from(BROKEN),
    }
}

unsafe extern "C" fn refuse(
    _: *mut sys::AVFormatContext,
    _: *mut *mut sys::AVIOContext,
    _: *const c_char,
    _: c_int,
    _: *mut *mut sys::AVDictionary,
) -> c_int {
    REFUSED
}

impl Media {
    /// Opens files, read as one. `name` is a hint at the format where the content leaves that open.
    ///
    /// # Errors
    /// If no demuxer takes it.
    pub fn open(files: Vec<OwnedFd>, name: &str) -> Result<Self, Error> {
        let functions = library()?;
        let memory = || Error("out of memory".into());
        let bytes = Joined::new(files).map_err(|error| Error(format!("can't read it: {error}")))?;
        // SAFETY: makes a packet or none.
        let packet = NonNull::new(unsafe { (functions.allocate_packet)() }).ok_or_else(memory)?;
        let bytes = NonNull::from(Box::leak(Box::new(bytes)));
        // From here on `drop` gives back whatever there is.
        let mut media =
            Self { functions, format: ptr::null_mut(), io: ptr::null_mut(), packet, bytes };
        // SAFETY: io owns the buffer; the bytes live as long as it does.
        unsafe {
            let buffer = (functions.allocate)(BUFFER).cast();
            let size = c_int::try_from(BUFFER).unwrap_or(c_int::MAX);
            let opaque = bytes.as_ptr().cast();
            let io = (functions.allocate_io)(
                buffer,
                size,
                0,
                opaque,
                Some(read),
                ptr::null(),
                Some(seek),
            );
            media.io = NonNull::new(io).ok_or_else(memory)?.as_ptr();
        }
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: a new context; if it can't be opened, libavformat frees it and sets it to null. The
        // dictionary is freed.
        let opened = unsafe {
            // Demuxers of several files (VobSub's index, ffconcat) open the others by themselves, and
            // hand this on: there is no protocol of the name.
            let mut options = ptr::null_mut();
            let (key, none) = (c"protocol_whitelist".as_ptr(), c"none".as_ptr());
            (functions.set_entry)(&raw mut options, key, none, 0);
            let format = NonNull::new((functions.allocate_format)()).ok_or_else(memory)?.as_ptr();
            (*format).pb = media.io;
            (*format).flags |= sys::AVFMT_FLAG_CUSTOM_IO.cast_signed();
            (*format).io_open = Some(refuse);
            media.format = format;
            let code = (functions.open_input)(
                &raw mut media.format,
                name.as_ptr(),
                ptr::null(),
                &raw mut options,
            );
            (functions.free_entries)(&raw mut options);
            code
        };
        functions.check(opened, "no demuxer of ffmpeg reads it")?;
        Ok(media)
    }

    fn streams(&self) -> &[*mut sys::AVStream] {
        // SAFETY: an opened context has so many streams; with none the pointer may be null.
        unsafe {
            match (*self.format).nb_streams as usize {
                0 => &[],
                count => std::slice::from_raw_parts((*self.format).streams, count),
            }
        }
    }

    fn parameters(&self, stream: usize) -> Option<&sys::AVCodecParameters> {
        // SAFETY: every stream has parameters, which live as long as the context.
        unsafe { (*self.streams().get(stream)?.cast_const()).codecpar.as_ref() }
    }

    /// How many streams there are.
    pub fn count(&self) -> usize {
        self.streams().len()
    }

    /// What a stream is.
    pub fn kind(&self, stream: usize) -> Kind {
        // SAFETY: a stream of an opened context.
        let cover = self.streams().get(stream).is_some_and(|stream| unsafe {
            (**stream).disposition.cast_unsigned() & sys::AV_DISPOSITION_ATTACHED_PIC != 0
        });
        match self.parameters(stream).map(|parameters| parameters.codec_type) {
            Some(sys::AVMEDIA_TYPE_VIDEO) if !cover => Kind::Video,
            Some(sys::AVMEDIA_TYPE_AUDIO) => Kind::Audio,
            Some(sys::AVMEDIA_TYPE_SUBTITLE) => Kind::Subtitles,
            _ => Kind::Other,
        }
    }

    /// Width and height that the container states.
    pub fn size(&self, stream: usize) -> Option<(u32, u32)> {
        let parameters = self.parameters(stream)?;
        let pixels = |value: c_int| u32::try_from(value).ok().filter(|value| *value > 0);
        pixels(parameters.width).zip(pixels(parameters.height))
    }

    /// The stream of subtitles that ffmpeg would choose.
    pub fn best_subtitles(&self) -> Option<usize> {
        let kind = sys::AVMEDIA_TYPE_SUBTITLE;
        // SAFETY: an opened context.
        let best =
            unsafe { (self.functions.best_stream)(self.format, kind, -1, -1, ptr::null_mut(), 0) };
        usize::try_from(best).ok()
    }

    /// Attached fonts: name and content.
    pub fn fonts(&self) -> Vec<(CString, Vec<u8>)> {
        let fonts = (0..self.count()).filter_map(|stream| {
            let parameters = self.parameters(stream)?;
            let is_font = |kind: &CStr| {
                let kind = kind.to_string_lossy().to_ascii_lowercase();
                FONTS.contains(&kind.as_str())
            };
            let attached = parameters.codec_type == sys::AVMEDIA_TYPE_ATTACHMENT;
            if !attached || !self.tag(stream, c"mimetype").is_some_and(|kind| is_font(&kind)) {
                return None;
            }
            let size = usize::try_from(parameters.extradata_size).ok().filter(|size| *size > 0)?;
            let content = NonNull::new(parameters.extradata)?;
            // SAFETY: so many bytes are there.
            let content = unsafe { std::slice::from_raw_parts(content.as_ptr(), size) };
            Some((self.tag(stream, c"filename")?, content.to_vec()))
        });
        fonts.collect()
    }

    fn tag(&self, stream: usize, name: &CStr) -> Option<CString> {
        let stream = *self.streams().get(stream)?;
        /// `AV_DICT_MATCH_CASE`.
        const EXACT: c_int = 1;
        // SAFETY: a stream of an opened context; a found entry has a value until it is changed.
        unsafe {
            let tags = (*stream).metadata.cast_const().cast();
            let entry = (self.functions.get_entry)(tags, name.as_ptr(), ptr::null(), EXACT);
            Some(CStr::from_ptr(entry.as_ref()?.value).to_owned())
        }
    }

    /// Leaves out packets of all streams but these.
    pub fn keep_only(&mut self, kept: &[usize]) {
        for (number, stream) in self.streams().iter().enumerate() {
            if !kept.contains(&number) {
                // SAFETY: a stream of an opened context.
                unsafe { (**stream).discard = sys::AVDISCARD_ALL };
            }
        }
    }

    /// Goes to a time, ns in the container's own time, or to before it, as ffmpeg does for `-ss`.
    /// A container that can't stays where it is.
    pub fn seek(&mut self, time_ns: i64) {
        let time = time_ns.div_euclid(1000);
        // SAFETY: an opened context; the times are in its units, microseconds.
        unsafe { (self.functions.seek_file)(self.format, -1, i64::MIN, time, time, 0) };
    }

    /// Reads on; `None` at the end, which a damaged file has earlier.
    pub fn read(&mut self) -> Option<Packet> {
        let packet = self.packet.as_ptr();
        // SAFETY: an opened context and a packet that is empty after the call before it.
        let packet = unsafe {
            (self.functions.unref_packet)(packet);
            if (self.functions.read_frame)(self.format, packet) < 0 {
                return None;
            }
            &*packet
        };
        let stream = usize::try_from(packet.stream_index).ok()?;
        let time = [packet.dts, packet.pts].into_iter().find(|time| *time != NO_TIME);
        let base = self.time_base(stream)?;
        let nanoseconds = |time: i64| {
            let scaled = i128::from(time) * 1_000_000_000 * i128::from(base.num);
            i64::try_from(scaled / i128::from(base.den.max(1))).ok()
        };
        Some(Packet { stream, time_ns: time.and_then(nanoseconds) })
    }

    fn time_base(&self, stream: usize) -> Option<sys::AVRational> {
        // SAFETY: a stream of an opened context.
        Some(unsafe { (**self.streams().get(stream)?).time_base })
    }
}

/// Media types that ffmpeg takes for fonts.
const FONTS: [&str; 10] = [
    "font/ttf",
    "font/otf",
    "font/sfnt",
    "font/woff",
    "font/woff2",
    "application/font-sfnt",
    "application/font-woff",
    "application/x-truetype-font",
    "application/vnd.ms-opentype",
    "application/x-font-ttf",
];

impl Drop for Media {
    fn drop(&mut self) {
        let mut packet = self.packet.as_ptr();
        // SAFETY: what was made in `open` is given back once, the container before what it reads
        // from; libavformat may have replaced io's buffer by a larger one.
        unsafe {
            (self.functions.free_packet)(&raw mut packet);
            if !self.format.is_null() {
                (self.functions.close_input)(&raw mut self.format);
            }
            if !self.io.is_null() {
                (self.functions.free)((*self.io).buffer.cast());
                (self.functions.free_io)(&raw mut self.io);
            }
            drop(Box::from_raw(self.bytes.as_ptr()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    #[test]
    fn other_files_stay_closed() {
        let directory = tempfile::tempdir().unwrap();
        let inner = "1\n00:00:01,000 --> 00:00:02,000\nline\n";
        fs::write(directory.path().join("inner.srt"), inner).unwrap();
        let open = |name: &str, content: &str| {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            let file = fs::File::open(&path).unwrap();
            Media::open(vec![file.into()], path.to_str().unwrap())
        };
        assert_eq!(open("lines.srt", inner).unwrap().count(), 1);
        assert!(open("list.ffconcat", "ffconcat version 1.0\nfile inner.srt\n").is_err());
    }
}
