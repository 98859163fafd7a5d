//! Filters of video processing, as libva describes them.

use super::balance::Balance;
use super::deinterlace::{Deinterlacing, Method};
use super::tonemap::ToneMapping;
use crate::driver::{Driver, lock};
use crate::status::{Outcome, Refusal};
use crate::va::{
    self, VAHdrMetaDataHDR10, VAProcDeinterlacingType, VAProcFilterParameterBufferBase,
    VAProcFilterParameterBufferDeinterlacing, VAProcFilterParameterBufferHDRToneMapping,
    VAProcFilterType, VAProcPipelineParameterBuffer,
};

/// The filters that there are.
pub const FILTERS: [VAProcFilterType; 3] = [
    va::VAProcFilterDeinterlacing,
    va::VAProcFilterColorBalance,
    va::VAProcFilterHighDynamicRangeToneMapping,
];

/// The kinds of deinterlacing.
pub const DEINTERLACERS: [VAProcDeinterlacingType; 3] = [
    va::VAProcDeinterlacingBob,
    va::VAProcDeinterlacingMotionAdaptive,
    va::VAProcDeinterlacingMotionCompensated,
];

/// Earlier and later pictures that a kind of deinterlacing looks at.
pub fn references(method: VAProcDeinterlacingType) -> (u32, u32) {
    match method {
        va::VAProcDeinterlacingMotionAdaptive | va::VAProcDeinterlacingMotionCompensated => (1, 0),
        _ => (0, 0),
    }
}

/// The filters of an operation.
#[derive(Debug, Default)]
pub struct Filters {
    /// One field to a picture.
    pub deinterlacing: Option<Deinterlacing>,
    /// Brightness and contrast.
    pub balance: Option<Balance>,
    /// HDR10 to SDR.
    pub tone_mapping: Option<ToneMapping>,
}

impl Filters {
    /// Reads the filters that the parameters name.
    ///
    /// # Safety
    /// The parameters' pointers must be null or good.
    pub unsafe fn read(
        driver: &Driver,
        parameters: &VAProcPipelineParameterBuffer,
    ) -> Outcome<Self> {
        let mut filters = Self::default();
        // SAFETY: promised by the caller.
        let ids = unsafe { list(parameters.filters, parameters.num_filters) };
        for id in ids {
            let buffer = driver.buffer(*id)?;
            let buffer = lock(&buffer);
            let base: VAProcFilterParameterBufferBase = buffer.read(0)?;
            match base.type_ {
                va::VAProcFilterDeinterlacing => {
                    let own = buffer.read(0)?;
                    // SAFETY: promised by the caller.
                    filters.deinterlacing = unsafe { deinterlacing(driver, parameters, &own)? };
                }
                va::VAProcFilterColorBalance => {
                    // One buffer has them all.
                    let mut balance = filters.balance.unwrap_or_default();
                    for index in 0..buffer.count {
                        balance = balance.with(&buffer.read(index)?)?;
                    }
                    filters.balance = Some(balance);
                }
                va::VAProcFilterHighDynamicRangeToneMapping => {
                    let own: VAProcFilterParameterBufferHDRToneMapping = buffer.read(0)?;
                    let metadata = own.data.metadata.cast::<VAHdrMetaDataHDR10>();
                    let size = own.data.metadata_size as usize;
                    let enough = size >= size_of::<VAHdrMetaDataHDR10>();
                    // SAFETY: the client's promise: so many bytes of the type named.
                    let metadata = unsafe { metadata.as_ref() }.filter(|_| enough);
                    filters.tone_mapping = Some(ToneMapping::new(metadata));
                }
                other => {
                    let reason = format!("filter {other}");
                    return Err(Refusal::new(va::VA_STATUS_ERROR_UNSUPPORTED_FILTER, reason));
                }
            }
        }
        Ok(filters)
    }
}

/// # Safety
/// `first` must be null or good for `count` values.
unsafe fn list<'a, T>(first: *const T, count: u32) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(first, count as usize) }
}

/// # Safety
/// The parameters' pointers must be null or good.
unsafe fn deinterlacing(
    driver: &Driver,
    parameters: &VAProcPipelineParameterBuffer,
    own: &VAProcFilterParameterBufferDeinterlacing,
) -> Outcome<Option<Deinterlacing>> {
    let method = match own.algorithm {
        va::VAProcDeinterlacingNone => return Ok(None),
        va::VAProcDeinterlacingBob => Method::Bob,
        va::VAProcDeinterlacingMotionAdaptive | va::VAProcDeinterlacingMotionCompensated => {
            Method::Adaptive
        }
        other => {
            let reason = format!("deinterlacing {other}");
            return Err(Refusal::new(va::VA_STATUS_ERROR_UNSUPPORTED_FILTER, reason));
        }
    };
    // The field is named by the surface's flags (GStreamer) or by the filter's (ffmpeg).
    let (surface, filter) = (parameters.input_surface_flag, own.flags);
    let named = surface & (va::VA_TOP_FIELD | va::VA_BOTTOM_FIELD) != 0;
    let bottom = if named {
        surface & va::VA_BOTTOM_FIELD != 0
    } else {
        filter & va::VA_DEINTERLACING_BOTTOM_FIELD != 0
    };
    let bottom_first = surface & va::VA_BOTTOM_FIELD_FIRST != 0
        || filter & va::VA_DEINTERLACING_BOTTOM_FIELD_FIRST != 0;
    // SAFETY: promised by the caller.
    let earlier = unsafe { list(parameters.forward_references, parameters.num_forward_references) };
    // At a stream's start there is no such picture, and clients name none or a wrong one.
    let earlier = earlier.first().and_then(|id| driver.surfaces.get(*id).ok());
    Ok(Some(Deinterlacing { method, bottom, first: bottom == bottom_first, earlier }))
}
