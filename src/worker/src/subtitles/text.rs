//! Text subtitles: what ffmpeg's `subtitles` filter does (`vf_subtitles.c`), with its own decoders and
//! libass.
//!
//! SubRip, WebVTT and the like become ASS by libavcodec's rules; ASS and SSA stay what they are.
//! Fonts are looked for in the command's directory and among a container's attachments, then among
//! those of the system.
//!
//! Invariant: fonts are read by the directory's descriptor. What fontconfig opens for the system's is
//! its own affair, as a library's files are.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use ffmpeg_args::TextSubtitles;
use rustix::fs::{Dir, FileType, Mode, OFlags};

use super::draw::{Matrix, Picture, Shape, shape};
use super::libass::Renderer;
use super::libav::{Error, Nature, Subtitle};
use super::stream::{Stream, Which};

/// How far before the start a film is read for lines that are still shown. ffmpeg reads the whole
/// film before its first picture, which takes minutes.
const LONGEST_NS: i64 = 300_000_000_000;
/// Larger files are no fonts.
const LARGEST_FONT: u64 = 256 << 20;

/// A track of text, and what draws it.
#[derive(Debug)]
pub struct Text {
    renderer: Renderer,
    /// A film's subtitles, which are read as they are needed.
    film: Option<Stream>,
}

impl Text {
    /// Reads a file of subtitles and its fonts.
    ///
    /// # Errors
    /// If the file holds no text that ffmpeg reads.
    pub fn open(
        plan: &TextSubtitles,
        file: OwnedFd,
        fonts: Option<OwnedFd>,
    ) -> Result<Self, Error> {
        let name = plan.path.file_name().unwrap_or_default().to_string_lossy();
        let which = plan.stream.map_or(Which::Best, |number| Which::Number(number as usize));
        let mut stream = Stream::open(vec![file], &name, which, plan.charset.as_deref())?;
        if stream.nature() == Nature::Pictures {
            return Err(Error("it has pictures where text is expected".into()));
        }
        let mut renderer = Renderer::new().ok_or_else(|| Error("libass doesn't start".into()))?;
        for (name, content) in stream.media().fonts() {
            renderer.add_font(&name, &content);
        }
        if let Some(directory) = fonts {
            // One that can't be read has no fonts.
            let _ = add_fonts(&mut renderer, directory.as_fd());
        }
        renderer.use_fonts();
        if !stream.decoder().made_for_ass() {
            renderer.wrap_as_unicode();
        }
        renderer.header(&stream.decoder().header());
        let film = stream.is_in_a_film();
        if !film {
            stream.read_to(i64::MAX, |subtitle| add(&mut renderer, &subtitle));
        }
        Ok(Self { renderer, film: film.then_some(stream) })
    }

    /// Output begins here, ns of the text's own time.
    pub fn begin(&mut self, start_ns: i64) {
        if let Some(film) = &mut self.film
            && start_ns > LONGEST_NS
        {
            film.begin(start_ns - LONGEST_NS);
        }
    }

    /// The size of the pictures, pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        self.renderer.size(width, height);
    }

    /// Draws what is to be seen at a time, ns, upon the picture that `open` gives; false if that is
    /// nothing, or there is no picture.
    pub fn draw<'p>(
        &mut self,
        time_ns: i64,
        matrix: Matrix,
        open: impl FnOnce() -> Option<Picture<'p>>,
    ) -> bool {
        let renderer = &mut self.renderer;
        if let Some(film) = &mut self.film {
            film.read_to(time_ns, |subtitle| add(renderer, &subtitle));
        }
        let mut images = renderer.render(time_ns.div_euclid(1_000_000)).peekable();
        if images.peek().is_none() {
            return false;
        }
        let Some(mut picture) = open() else { return false };
        for image in images {
            let [red, green, blue, opacity] = image.colour;
            let drawn = Shape {
                x: image.x.into(),
                y: image.y.into(),
                width: image.width,
                height: image.height,
                coverage: image.coverage,
                stride: image.stride,
                colour: matrix.convert([red, green, blue]),
                opacity,
            };
            shape(&mut picture, &drawn);
        }
        true
    }
}

fn add(renderer: &mut Renderer, subtitle: &Subtitle) {
    // Rounded to nearest, as ffmpeg does it.
    let start_ms = (subtitle.time_us + 500).div_euclid(1000);
    for line in &subtitle.lines {
        renderer.event(line, start_ms, subtitle.disappears_ms.into());
    }
}

/// Every file of a directory, in the order of their names, as libass adds them.
fn add_fonts(renderer: &mut Renderer, directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names: Vec<CString> = Dir::read_from(directory)?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_owned()))
        .filter(|name| !name.as_bytes().starts_with(b"."))
        .collect();
    names.sort();
    for name in names {
        if let Some(content) = font(directory, OsStr::from_bytes(name.as_bytes())) {
            renderer.add_font(&name, &content);
        }
    }
    Ok(())
}

fn font(directory: BorrowedFd<'_>, name: &OsStr) -> Option<Vec<u8>> {
    // Not one that blocks until somebody opens its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
    let mut content = Vec::new();
    let mut file = File::from(file).take(LARGEST_FONT);
    (kind == FileType::RegularFile && file.read_to_end(&mut content).is_ok()).then_some(content)
}
