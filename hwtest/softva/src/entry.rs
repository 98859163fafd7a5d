//! The door: libva finds one symbol here and gets the table of functions from it.

use crate::driver::Driver;
use crate::ffi::{config, memory, picture, pixels, stubs, video};
use crate::va::{self, VADriverContextP, VAStatus};
use crate::{account, caps, format, trace};

/// GStreamer takes a driver by the beginning of this string: it isn't one of those for which it
/// knows special cases, so none of them apply, and from 1.24 on `GST_VA_ALL_DRIVERS=1` is needed.
const VENDOR: &std::ffi::CStr = c"Rendergate softva - VA-API in software";

/// What libva 1.0 and all later ones look for: they ask for their own version first and count
/// down.
///
/// # Safety
/// For libva: the context and its tables are valid until `vaTerminate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vaDriverInit_1_0(context: VADriverContextP) -> VAStatus {
    let driver = match Driver::new() {
        Ok(driver) => driver,
        Err(refusal) => {
            trace!("not loaded: {refusal}");
            return refusal.status;
        }
    };
    account::write_at_exit();
    // SAFETY: libva hands over a context of its own with both tables allocated.
    let (context, table, processing) = unsafe {
        let context = &mut *context;
        (context as *mut va::VADriverContext, &mut *context.vtable, &mut *context.vtable_vpp)
    };
    // SAFETY: as above.
    let context = unsafe { &mut *context };
    context.version_major = 1;
    context.version_minor = 0;
    context.str_vendor = VENDOR.as_ptr();
    context.max_profiles = caps::profiles().len() as i32;
    context.max_entrypoints = 4;
    context.max_attributes = 64;
    context.max_image_formats = format::ALL.len() as i32;
    context.max_subpic_formats = 1;
    context.max_display_attributes = 1;
    context.pDriverData = Box::into_raw(Box::new(driver)).cast();

    table.vaTerminate = Some(terminate);
    table.vaQueryConfigProfiles = Some(config::query_config_profiles);
    table.vaQueryConfigEntrypoints = Some(config::query_config_entrypoints);
    table.vaGetConfigAttributes = Some(config::get_config_attributes);
    table.vaCreateConfig = Some(config::create_config);
    table.vaDestroyConfig = Some(config::destroy_config);
    table.vaQueryConfigAttributes = Some(config::query_config_attributes);
    table.vaQuerySurfaceAttributes = Some(config::query_surface_attributes);

    table.vaCreateSurfaces = Some(memory::create_surfaces);
    table.vaCreateSurfaces2 = Some(memory::create_surfaces_2);
    table.vaDestroySurfaces = Some(memory::destroy_surfaces);
    table.vaExportSurfaceHandle = Some(memory::export_surface_handle);
    table.vaCreateBuffer = Some(memory::create_buffer);
    table.vaBufferSetNumElements = Some(memory::buffer_set_num_elements);
    table.vaMapBuffer = Some(memory::map_buffer);
    table.vaUnmapBuffer = Some(memory::unmap_buffer);
    table.vaDestroyBuffer = Some(memory::destroy_buffer);
    table.vaBufferInfo = Some(memory::buffer_info);

    table.vaCreateContext = Some(picture::create_context);
    table.vaDestroyContext = Some(picture::destroy_context);
    table.vaBeginPicture = Some(picture::begin_picture);
    table.vaRenderPicture = Some(picture::render_picture);
    table.vaEndPicture = Some(picture::end_picture);
    table.vaSyncSurface = Some(picture::sync_surface);
    table.vaSyncSurface2 = Some(picture::sync_surface_2);
    table.vaSyncBuffer = Some(picture::sync_buffer);
    table.vaQuerySurfaceStatus = Some(picture::query_surface_status);

    table.vaQueryImageFormats = Some(pixels::query_image_formats);
    table.vaCreateImage = Some(pixels::create_image);
    table.vaDeriveImage = Some(pixels::derive_image);
    table.vaDestroyImage = Some(pixels::destroy_image);
    table.vaGetImage = Some(pixels::get_image);
    table.vaPutImage = Some(pixels::put_image);
    table.vaCopy = Some(pixels::copy);

    stubs::fill(table);
    processing.vaQueryVideoProcFilters = Some(video::query_filters);
    processing.vaQueryVideoProcFilterCaps = Some(video::query_filter_caps);
    processing.vaQueryVideoProcPipelineCaps = Some(video::query_pipeline_caps);
    trace!("loaded in process {}", std::process::id());
    va::VA_STATUS_SUCCESS as VAStatus
}

unsafe extern "C" fn terminate(context: VADriverContextP) -> VAStatus {
    // SAFETY: the driver was boxed in `__vaDriverInit_1_0`, and libva terminates once.
    unsafe {
        let data = &mut (*context).pDriverData;
        if !data.is_null() {
            drop(Box::from_raw(data.cast::<Driver>()));
            *data = std::ptr::null_mut();
        }
    }
    account::write();
    trace!("terminated");
    va::VA_STATUS_SUCCESS as VAStatus
}
