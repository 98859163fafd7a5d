//! Subtitles that become part of the picture.
//!
//! ```text
//! text:     file ── libavformat, libavcodec ── events of ASS ── libass ──▶ shapes ──▶ the picture
//! pictures: input ─ libavformat, libavcodec ── bitmaps ── canvas ── plane ──▶ layer ──▶ the picture
//! ```
//!
//! They are opened on a thread of their own while the demuxers look at the inputs, since fonts take
//! their time. [`Burner`] is what `rgsubtitles` asks for each picture.
//!
//! Invariant: a stream without subtitles loads and opens nothing of this.

mod bytes;
mod draw;
mod libass;
mod libav;
mod pictures;
mod stream;
mod text;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use ffmpeg_args::{PictureSubtitles, Subtitles, Transcode};
use gstreamer_video as gst_video;
use gstreamer_video::VideoFrameExt;
use session::Fault;

use crate::opened::{Bytes, Opened};
use crate::source::SourceError;
use draw::{Matrix, Picture, Plane};
use pictures::Pictures;
use text::Text;

/// What draws subtitles, shared with the element that has the pictures.
#[derive(Debug, Clone)]
pub struct Burner(Arc<Mutex<Burning>>);

#[derive(Debug)]
struct Burning {
    what: What,
    /// What to add to a picture's time to get the subtitles', ns.
    offset_ns: i64,
}

#[derive(Debug)]
enum What {
    Text(Text),
    Pictures(Box<Pictures>),
}

/// Subtitles that are being opened.
#[derive(Debug)]
pub struct Opening(JoinHandle<Result<What, SourceError>>);

/// Begins to open what the plan burns in, if anything.
///
/// # Errors
/// If it can't be burnt in here.
pub fn open(plan: &Transcode, opened: &mut Opened) -> Result<Option<Opening>, SourceError> {
    let subtitles = plan.encoded_video().and_then(|encode| encode.subtitles.clone());
    let opening = match subtitles {
        None => return Ok(None),
        Some(Subtitles::Text(text)) => {
            let file = opened.subtitles.take().ok_or_else(|| SourceError {
                message: "the subtitles' file didn't come along".into(),
                fault: Fault::Gateway,
            })?;
            let fonts = opened.fonts.take();
            thread::spawn(move || Text::open(&text, file, fonts).map(What::Text).map_err(unusable))
        }
        Some(Subtitles::Pictures(pictures)) => {
            let (files, name) = input(plan, &pictures, opened)?;
            thread::spawn(move || {
                Pictures::open(&pictures, files, &name)
                    .map(Box::new)
                    .map(What::Pictures)
                    .map_err(unusable)
            })
        }
    };
    Ok(Some(Opening(opening)))
}

/// ffmpeg may know better, and has its own words for a file that is broken.
#[expect(clippy::needless_pass_by_value, reason = "as map_err has it")]
fn unusable(error: libav::Error) -> SourceError {
    SourceError { message: format!("the subtitles can't be read: {error}"), fault: Fault::Input }
}

/// The files that a stream of pictures is in, once more, and a name for what they hold.
fn input(
    plan: &Transcode,
    subtitles: &PictureSubtitles,
    opened: &Opened,
) -> Result<(Vec<OwnedFd>, String), SourceError> {
    let number = subtitles.source.input;
    let files = match opened.inputs.get(number) {
        Some(Bytes::Files(files)) => files,
        Some(Bytes::Pipe(_)) => {
            return Err(SourceError {
                message: "subtitles of a network input aren't burnt in here".into(),
                fault: Fault::Unsupported,
            });
        }
        None => {
            return Err(SourceError {
                message: format!("input {number} has the subtitles and isn't there"),
                fault: Fault::Input,
            });
        }
    };
    let again: Result<Vec<OwnedFd>, _> =
        files.iter().map(|file| file.as_fd().try_clone_to_owned()).collect();
    let again = again.map_err(|error| SourceError {
        message: format!("can't open the subtitles' input once more: {error}"),
        fault: Fault::Worker,
    })?;
    let path = plan.inputs.get(number).and_then(|input| input.location.paths().first());
    let name = path.and_then(|path| path.file_name()).unwrap_or_default();
    Ok((again, name.to_string_lossy().into_owned()))
}

/// How the subtitles' times relate to the pictures'.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// What to add to a picture's time to get that of a line of text, ns.
    pub to_text_ns: i64,
    /// What to add to a picture's time to get the container's own of its pictures of subtitles, ns.
    pub to_container_ns: i64,
    /// When the first picture comes, ns of pictures' time.
    pub start_ns: i64,
}

impl Opening {
    /// Waits until they are open, and goes to where the output begins.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn begin(self, times: &Times) -> Result<Burner, SourceError> {
        let mut what = self.0.join().unwrap_or_else(|_| {
            Err(SourceError {
                message: "opening the subtitles went wrong".into(),
                fault: Fault::Worker,
            })
        })?;
        let offset_ns = match &mut what {
            What::Text(text) => {
                text.begin(times.start_ns + times.to_text_ns);
                times.to_text_ns
            }
            What::Pictures(pictures) => {
                pictures.begin(times.start_ns + times.to_container_ns);
                times.to_container_ns
            }
        };
        Ok(Burner(Arc::new(Mutex::new(Burning { what, offset_ns }))))
    }
}

impl Burner {
    /// Pictures will have this size.
    pub fn size(&self, info: &gst_video::VideoInfo) {
        let mut burning = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let What::Text(text) = &mut burning.what {
            text.size(info.width(), info.height());
        }
    }

    /// Draws what is to be seen at a picture's time, ns, upon the one that `open` gives. It isn't
    /// called if that is nothing. False if nothing was drawn.
    pub fn draw<'p>(
        &self,
        time_ns: i64,
        info: &gst_video::VideoInfo,
        open: impl FnOnce() -> Option<Picture<'p>>,
    ) -> bool {
        let mut burning = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let time_ns = time_ns + burning.offset_ns;
        let matrix = matrix(info);
        match &mut burning.what {
            What::Text(text) => text.draw(time_ns, matrix, open),
            What::Pictures(pictures) => {
                pictures.draw(time_ns, (info.width(), info.height()), matrix, open)
            }
        }
    }
}

/// How a picture's luma is made. Where it doesn't say, as ffmpeg takes it: like standard definition.
fn matrix(info: &gst_video::VideoInfo) -> Matrix {
    use gst_video::{VideoColorMatrix, VideoColorRange};
    let colorimetry = info.colorimetry();
    let (red, blue) = match colorimetry.matrix() {
        VideoColorMatrix::Bt709 => (0.2126, 0.0722),
        VideoColorMatrix::Bt2020 => (0.2627, 0.0593),
        VideoColorMatrix::Smpte240m => (0.212, 0.087),
        VideoColorMatrix::Fcc => (0.3, 0.11),
        _ => (0.299, 0.114),
    };
    Matrix { red, blue, full_range: colorimetry.range() == VideoColorRange::Range0_255 }
}

/// A mapped picture's planes.
pub fn picture<'p>(
    frame: &'p mut gst_video::VideoFrameRef<&mut gstreamer::BufferRef>,
) -> Option<Picture<'p>> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let strides: Option<Vec<usize>> =
        frame.plane_stride().iter().map(|stride| usize::try_from(*stride).ok()).collect();
    let planes = frame.planes_data_mut().into_iter().zip(strides?);
    let planes = planes
        .filter(|(data, _)| !data.is_empty())
        .map(|(data, stride)| Plane { data, stride })
        .collect();
    Some(Picture { width, height, planes })
}
