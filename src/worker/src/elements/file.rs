//! `rgfile`: an input that is known by its descriptors only.
//!
//! `fdsrc` pushes and never lets a demuxer pull, and `filesrc` wants a path, which the worker has
//! no right to open. This one gives the bytes of a [`Reading`] at any offset, those of a pipe too.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::subclass::prelude::*;
use gstreamer_base::prelude::*;
use gstreamer_base::subclass::prelude::*;

use crate::reading::{ReadError, Reading};

#[derive(Default)]
pub struct FileSource {
    reading: Mutex<Option<Arc<Reading>>>,
}

impl FileSource {
    pub fn set_reading(&self, reading: Arc<Reading>) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
    }

    fn reading(&self) -> Option<Arc<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
                "An input by its descriptors",
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
        match self.reading() {
            Some(_) => Ok(()),
            None => Err(gst::error_msg!(gst::ResourceError::NotFound, ["no input set"])),
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Option<u64> {
        self.reading()?.length()
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryView::Duration(duration) = query.view()
            && duration.format() == gst::Format::Bytes
            && self.size().is_none()
        {
            // The base class says yes and -1, which demuxers take for a length.
            return false;
        }
        BaseSrcImplExt::parent_query(self, query)
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(reading) = self.reading() {
            reading.interrupt(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(reading) = self.reading() {
            reading.interrupt(false);
        }
        Ok(())
    }

    fn fill(
        &self,
        offset: u64,
        _length: u32,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let reading = self.reading().ok_or(gst::FlowError::Error)?;
        let read = {
            let mut map = buffer.map_writable().map_err(|_| gst::FlowError::Error)?;
            reading.read_at(offset, &mut map)
        };
        let filled = match read {
            Ok(0) => return Err(gst::FlowError::Eos),
            Ok(filled) => filled,
            Err(ReadError::Interrupted) => return Err(gst::FlowError::Flushing),
            Err(error) => {
                reading.failed(error);
                gst::element_imp_error!(self, gst::ResourceError::Read, ["{error}"]);
                return Err(gst::FlowError::Error);
            }
        };
        buffer.set_size(filled);
        buffer.set_offset(offset);
        buffer.set_offset_end(offset + filled as u64);
        Ok(gst::FlowSuccess::Ok)
    }
}
