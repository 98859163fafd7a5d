//! What video processing can do.

use super::{array, array_mut, call};
use crate::driver::{Driver, lock};
use crate::process::balance::BALANCES;
use crate::process::filter::{DEINTERLACERS, FILTERS, references};
use crate::status::{Outcome, Refusal};
use crate::va::{
    self, VABufferID, VAContextID, VADriverContextP, VAProcColorStandardType,
    VAProcDeinterlacingType, VAProcFilterCapColorBalance, VAProcFilterCapDeinterlacing,
    VAProcFilterCapHighDynamicRange, VAProcFilterParameterBufferBase,
    VAProcFilterParameterBufferDeinterlacing, VAProcFilterType, VAProcPipelineCaps, VAStatus,
};

/// Where libva's clients find the list: it must outlive the call.
struct Standards([VAProcColorStandardType; 3]);

static STANDARDS: Standards = Standards([
    va::VAProcColorStandardBT709,
    va::VAProcColorStandardBT601,
    va::VAProcColorStandardBT2020,
]);

/// Fills a list whose length the client gives and gets back.
unsafe fn list_out<T: Copy>(found: &[T], list: *mut T, count: *mut u32) -> Outcome {
    // SAFETY: the client's promise: a count and as many entries.
    unsafe {
        let count = count.as_mut().ok_or_else(|| Refusal::parameter("no count"))?;
        let room = *count as usize;
        *count = found.len() as u32;
        if room < found.len() {
            let reason = format!("room for {room} of {}", found.len());
            return Err(Refusal::new(va::VA_STATUS_ERROR_MAX_NUM_EXCEEDED, reason));
        }
        array_mut(list, found.len()).copy_from_slice(found);
        Ok(())
    }
}

/// `vaQueryVideoProcFilters`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn query_filters(
    context: VADriverContextP,
    _id: VAContextID,
    list: *mut VAProcFilterType,
    count: *mut u32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list has `*count` entries.
    unsafe { call(context, "vaQueryVideoProcFilters", |_| list_out(&FILTERS, list, count)) }
}

/// `vaQueryVideoProcFilterCaps`.
///
/// # Safety
/// For libva; the list is of the filter's own type.
pub unsafe extern "C" fn query_filter_caps(
    context: VADriverContextP,
    _id: VAContextID,
    filter: VAProcFilterType,
    list: *mut libc::c_void,
    count: *mut u32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list is of the filter's type.
    unsafe {
        call(context, "vaQueryVideoProcFilterCaps", |_| match filter {
            va::VAProcFilterDeinterlacing => {
                let found = DEINTERLACERS.map(|type_| {
                    let mut cap: VAProcFilterCapDeinterlacing = std::mem::zeroed();
                    cap.type_ = type_;
                    cap
                });
                list_out(&found, list.cast(), count)
            }
            va::VAProcFilterColorBalance => {
                let found = BALANCES.map(|(type_, least, most, usual)| {
                    let mut cap: VAProcFilterCapColorBalance = std::mem::zeroed();
                    cap.type_ = type_;
                    cap.range.min_value = least;
                    cap.range.max_value = most;
                    cap.range.default_value = usual;
                    cap.range.step = 0.1;
                    cap
                });
                list_out(&found, list.cast(), count)
            }
            va::VAProcFilterHighDynamicRangeToneMapping => {
                let mut cap: VAProcFilterCapHighDynamicRange = std::mem::zeroed();
                cap.metadata_type = va::VAProcHighDynamicRangeMetadataHDR10;
                cap.caps_flag = va::VA_TONE_MAPPING_HDR_TO_SDR as u16;
                list_out(&[cap], list.cast(), count)
            }
            other => {
                let reason = format!("filter {other}");
                Err(Refusal::new(va::VA_STATUS_ERROR_UNSUPPORTED_FILTER, reason))
            }
        })
    }
}

/// Which deinterlacing a list of filter buffers asks for.
fn deinterlacing(driver: &Driver, filters: &[VABufferID]) -> Outcome<VAProcDeinterlacingType> {
    let mut found = va::VAProcDeinterlacingNone;
    for id in filters {
        let buffer = driver.buffer(*id)?;
        let buffer = lock(&buffer);
        let base: VAProcFilterParameterBufferBase = buffer.read(0)?;
        if base.type_ == va::VAProcFilterDeinterlacing {
            let parameters: VAProcFilterParameterBufferDeinterlacing = buffer.read(0)?;
            found = parameters.algorithm;
        }
    }
    Ok(found)
}

/// `vaQueryVideoProcPipelineCaps`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn query_pipeline_caps(
    context: VADriverContextP,
    _id: VAContextID,
    filters: *mut VABufferID,
    count: u32,
    caps: *mut VAProcPipelineCaps,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the pointers are good. The list of colour
    // standards is a static that nobody writes, whatever the type of the pointer says.
    unsafe {
        call(context, "vaQueryVideoProcPipelineCaps", |driver| {
            let method = deinterlacing(driver, array(filters, count))?;
            let caps = caps.as_mut().ok_or_else(|| Refusal::parameter("no caps"))?;
            let standards = STANDARDS.0.as_ptr().cast_mut();
            (caps.input_color_standards, caps.output_color_standards) = (standards, standards);
            let standards = STANDARDS.0.len() as u32;
            caps.num_input_color_standards = standards;
            caps.num_output_color_standards = standards;
            (caps.num_forward_references, caps.num_backward_references) = references(method);
            caps.rotation_flags = 1 << va::VA_ROTATION_NONE
                | 1 << va::VA_ROTATION_90
                | 1 << va::VA_ROTATION_180
                | 1 << va::VA_ROTATION_270;
            caps.mirror_flags = va::VA_MIRROR_HORIZONTAL | va::VA_MIRROR_VERTICAL;
            caps.blend_flags = va::VA_BLEND_GLOBAL_ALPHA | va::VA_BLEND_PREMULTIPLIED_ALPHA;
            let maximum = crate::caps::MAXIMUM as u32;
            (caps.max_input_width, caps.max_input_height) = (maximum, maximum);
            (caps.max_output_width, caps.max_output_height) = (maximum, maximum);
            (caps.min_input_width, caps.min_input_height) = (2, 2);
            (caps.min_output_width, caps.min_output_height) = (2, 2);
            Ok(())
        })
    }
}
