//! Scaling and conversion of pixel formats with libswscale.

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use super::sys;
use crate::format::Format;
use crate::status::{Outcome, Refusal};
use crate::surface::View;

/// Which matrix and range a picture's colours are in; matters between YUV and RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    /// ffmpeg's `SWS_CS_*`.
    pub matrix: u32,
    /// 0..255 instead of 16..235.
    pub full_range: bool,
}

impl Colour {
    /// What a picture of this height has unless told otherwise.
    pub fn assumed(height: usize) -> Self {
        let matrix = if height >= 720 { sys::SWS_CS_ITU709 } else { sys::SWS_CS_ITU601 };
        Self { matrix, full_range: false }
    }
}

/// What a scaler is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Format, width, height, colours.
    pub source: (Format, usize, usize, Colour),
    /// Format, width, height, colours.
    pub target: (Format, usize, usize, Colour),
}

/// A scaler: bicubic, with exact rounding.
#[derive(Debug)]
pub struct Scaler {
    job: Job,
    context: NonNull<sys::SwsContext>,
}

// SAFETY: the context has no tie to a thread; `&mut self` keeps use exclusive.
unsafe impl Send for Scaler {}

impl Scaler {
    /// A scaler for a job.
    pub fn new(job: Job) -> Outcome<Self> {
        super::quiet();
        let int = |value: usize| c_int::try_from(value).unwrap_or(0);
        let (source, target) = (job.source, job.target);
        let mut flags = sys::SWS_BICUBIC | sys::SWS_ACCURATE_RND;
        if source.0.is_yuv() != target.0.is_yuv() {
            flags |= sys::SWS_FULL_CHR_H_INT | sys::SWS_FULL_CHR_H_INP;
        }
        // SAFETY: plain numbers; filters and parameters may be null.
        let context = unsafe {
            sys::sws_getContext(
                int(source.1),
                int(source.2),
                source.0.pixel_format(),
                int(target.1),
                int(target.2),
                target.0.pixel_format(),
                flags as c_int,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null(),
            )
        };
        let context = NonNull::new(context)
            .ok_or_else(|| Refusal::unimplemented(format!("libswscale refuses {job:?}")))?;
        // Between two YUV formats libswscale knows no change of matrix, so both get the source's.
        let target_matrix =
            if source.0.is_yuv() && target.0.is_yuv() { source.3.matrix } else { target.3.matrix };
        // SAFETY: the tables are libswscale's own; a result below 0 (RGB to RGB) changes nothing.
        unsafe {
            sys::sws_setColorspaceDetails(
                context.as_ptr(),
                sys::sws_getCoefficients(source.3.matrix as c_int),
                c_int::from(source.3.full_range),
                sys::sws_getCoefficients(target_matrix as c_int),
                c_int::from(target.3.full_range),
                0,
                1 << 16,
                1 << 16,
            );
        }
        Ok(Self { job, context })
    }

    /// What it was made for.
    pub fn job(&self) -> Job {
        self.job
    }

    /// Scales a picture. Sizes and formats must be those of the job.
    pub fn scale(&mut self, source: &View<'_>, target: &View<'_>) -> Outcome {
        let (from, to) = (self.job.source, self.job.target);
        let fits = (source.format(), source.width(), source.height()) == (from.0, from.1, from.2)
            && (target.format(), target.width(), target.height()) == (to.0, to.1, to.2);
        if !fits {
            return Err(Refusal::parameter("pictures that a scaler wasn't made for"));
        }
        let (source_planes, source_strides) = source.pointers();
        let (target_planes, target_strides) = target.pointers();
        let rows = c_int::try_from(from.2).unwrap_or(0);
        // SAFETY: the views are of the sizes that the scaler was made for, so it stays in them.
        let done = unsafe {
            sys::sws_scale(
                self.context.as_ptr(),
                source_planes.as_ptr().cast(),
                source_strides.as_ptr(),
                0,
                rows,
                target_planes.as_ptr(),
                target_strides.as_ptr(),
            )
        };
        if done < 0 {
            return Err(Refusal::unimplemented(format!("sws_scale: {done}")));
        }
        Ok(())
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // SAFETY: made by sws_getContext and freed once.
        unsafe { sys::sws_freeContext(self.context.as_ptr()) };
    }
}
