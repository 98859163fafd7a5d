//! `rgfile`: a file that is known by its descriptor only.
//!
//! `fdsrc` pushes and never lets a demuxer pull, and `filesrc` wants a path, which the worker has
//! no right to open. This one reads at any offset with `pread`, so it shares no file position
//! with whoever else holds the descriptor.

use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::subclass::prelude::*;
use gstreamer_base::prelude::*;
use gstreamer_base::subclass::prelude::*;

#[derive(Default)]
pub struct FileSource {
    file: Mutex<Option<Arc<OwnedFd>>>,
}

impl FileSource {
    pub fn set_file(&self, file: Arc<OwnedFd>) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    fn file(&self) -> Option<Arc<OwnedFd>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for FileSource {
    const NAME: &'static str = "RendergateFileSource";
    type Type = super::FileSource;
    type ParentType = gstreamer_base::BaseSrc;
}

impl ObjectImpl for FileSource {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_format(gst::Format::Bytes);
    }
}

impl GstObjectImpl for FileSource {}

impl ElementImpl for FileSource {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Rendergate file source",
                "Source/File",
                "A file by its descriptor",
                "Rendergate",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            vec![
                gst::PadTemplate::new(
                    "src",
                    gst::PadDirection::Src,
                    gst::PadPresence::Always,
                    &gst::Caps::new_any(),
                )
                .expect("valid template"),
            ]
        });
        &TEMPLATES
    }
}

impl BaseSrcImpl for FileSource {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        match self.file() {
            Some(_) => Ok(()),
            None => Err(gst::error_msg!(gst::ResourceError::NotFound, ["no file set"])),
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Option<u64> {
        let status = rustix::fs::fstat(self.file()?).ok()?;
        u64::try_from(status.st_size).ok()
    }

    fn fill(
        &self,
        offset: u64,
        _length: u32,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let file = self.file().ok_or(gst::FlowError::Error)?;
        let mut filled = 0;
        {
            let mut map = buffer.map_writable().map_err(|_| gst::FlowError::Error)?;
            while filled < map.len() {
                match rustix::io::pread(&*file, &mut map[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        gst::element_imp_error!(
                            self,
                            gst::ResourceError::Read,
                            ["can't read the file: {error}"]
                        );
                        return Err(gst::FlowError::Error);
                    }
                }
            }
        }
        if filled == 0 {
            return Err(gst::FlowError::Eos);
        }
        buffer.set_size(filled);
        buffer.set_offset(offset);
        buffer.set_offset_end(offset + filled as u64);
        Ok(gst::FlowSuccess::Ok)
    }
}
