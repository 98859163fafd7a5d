//! Functions that libva insists on and the driver has no use for: output to windows,
//! subpictures, display attributes. All of them refuse, or report that there are none.

use super::{call, put};
use crate::status::Refusal;
use crate::va::{
    VADisplayAttribute, VADriverContextP, VADriverVTable, VAImageFormat, VAImageID, VARectangle,
    VAStatus, VASubpictureID, VASurfaceID,
};

/// Puts them into the table.
pub fn fill(table: &mut VADriverVTable) {
    table.vaPutSurface = Some(put_surface);
    table.vaSetImagePalette = Some(set_image_palette);
    table.vaQuerySubpictureFormats = Some(query_subpicture_formats);
    table.vaCreateSubpicture = Some(create_subpicture);
    table.vaDestroySubpicture = Some(destroy_subpicture);
    table.vaSetSubpictureImage = Some(set_subpicture_image);
    table.vaSetSubpictureChromakey = Some(set_subpicture_chromakey);
    table.vaSetSubpictureGlobalAlpha = Some(set_subpicture_global_alpha);
    table.vaAssociateSubpicture = Some(associate_subpicture);
    table.vaDeassociateSubpicture = Some(deassociate_subpicture);
    table.vaQueryDisplayAttributes = Some(query_display_attributes);
    table.vaGetDisplayAttributes = Some(get_display_attributes);
    table.vaSetDisplayAttributes = Some(get_display_attributes);
}

/// # Safety
/// For libva: the context is ours.
unsafe fn refuse(context: VADriverContextP, name: &str) -> VAStatus {
    // SAFETY: promised by the caller.
    unsafe { call(context, name, |_| Err(Refusal::unimplemented("there is no such thing here"))) }
}

unsafe extern "C" fn put_surface(
    context: VADriverContextP,
    _surface: VASurfaceID,
    _window: *mut libc::c_void,
    _x: i16,
    _y: i16,
    _width: u16,
    _height: u16,
    _to_x: i16,
    _to_y: i16,
    _to_width: u16,
    _to_height: u16,
    _clips: *mut VARectangle,
    _clip_count: u32,
    _flags: u32,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { refuse(context, "vaPutSurface") }
}

unsafe extern "C" fn set_image_palette(
    context: VADriverContextP,
    _image: VAImageID,
    _palette: *mut u8,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { refuse(context, "vaSetImagePalette") }
}

unsafe extern "C" fn query_subpicture_formats(
    context: VADriverContextP,
    _formats: *mut VAImageFormat,
    _flags: *mut u32,
    count: *mut u32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the result has a place.
    unsafe { call(context, "vaQuerySubpictureFormats", |_| put(count, 0)) }
}

unsafe extern "C" fn create_subpicture(
    context: VADriverContextP,
    _image: VAImageID,
    _subpicture: *mut VASubpictureID,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { refuse(context, "vaCreateSubpicture") }
}

unsafe extern "C" fn destroy_subpicture(
    context: VADriverContextP,
    _subpicture: VASubpictureID,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { refuse(context, "vaDestroySubpicture") }
}

unsafe extern "C" fn set_subpicture_image(
    context: VADriverContextP,
    _subpicture: VASubpictureID,
    _image: VAImageID,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { refuse(context, "vaSetSubpictureImage") }
}

unsafe extern "C" fn set_subpicture_chromakey(
    context: VADriverContextP,
    _subpicture: VASubpictureID,
    _minimum: u32,
    _maximum: u32,
    _mask: u32,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { refuse(context, "vaSetSubpictureChromakey") }
}

unsafe extern "C" fn set_subpicture_global_alpha(
    context: VADriverContextP,
    _subpicture: VASubpictureID,
    _alpha: f32,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { refuse(context, "vaSetSubpictureGlobalAlpha") }
}

unsafe extern "C" fn associate_subpicture(
    context: VADriverContextP,
    _subpicture: VASubpictureID,
    _surfaces: *mut VASurfaceID,
    _count: i32,
    _x: i16,
    _y: i16,
    _width: u16,
    _height: u16,
    _to_x: i16,
    _to_y: i16,
    _to_width: u16,
    _to_height: u16,
    _flags: u32,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { refuse(context, "vaAssociateSubpicture") }
}

unsafe extern "C" fn deassociate_subpicture(
    context: VADriverContextP,
    _subpicture: VASubpictureID,
    _surfaces: *mut VASurfaceID,
    _count: i32,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { refuse(context, "vaDeassociateSubpicture") }
}

unsafe extern "C" fn query_display_attributes(
    context: VADriverContextP,
    _list: *mut VADisplayAttribute,
    count: *mut i32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the result has a place.
    unsafe { call(context, "vaQueryDisplayAttributes", |_| put(count, 0)) }
}

unsafe extern "C" fn get_display_attributes(
    context: VADriverContextP,
    list: *mut VADisplayAttribute,
    count: i32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list has `count` entries.
    unsafe {
        call(context, "vaGetDisplayAttributes", |_| {
            for attribute in super::array_mut(list, count) {
                attribute.flags = 0;
            }
            Ok(())
        })
    }
}
