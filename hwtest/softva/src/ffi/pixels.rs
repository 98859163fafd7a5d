//! Images, and copies between surfaces.

use super::{array_mut, call, put};
use crate::image;
use crate::status::{Outcome, Refusal};
use crate::surface::Area;
use crate::va::{
    self, VACopyObject, VACopyOption, VADriverContextP, VAImage, VAImageFormat, VAImageID,
    VAStatus, VASurfaceID,
};

/// `vaQueryImageFormats`.
///
/// # Safety
/// For libva, which allocates `max_image_formats` entries.
pub unsafe extern "C" fn query_image_formats(
    context: VADriverContextP,
    list: *mut VAImageFormat,
    count: *mut i32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list is long enough.
    unsafe {
        call(context, "vaQueryImageFormats", |_| {
            let formats = image::formats();
            array_mut(list, formats.len()).copy_from_slice(&formats);
            put(count, formats.len() as i32)
        })
    }
}

/// `vaCreateImage`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn create_image(
    context: VADriverContextP,
    format: *mut VAImageFormat,
    width: i32,
    height: i32,
    result: *mut VAImage,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the pointers are good.
    unsafe {
        call(context, "vaCreateImage", |driver| {
            let format = format.as_ref().ok_or_else(|| Refusal::parameter("no format"))?;
            let size = dimension(width).ok().zip(dimension(height).ok());
            let (width, height) = size.ok_or_else(|| Refusal::parameter("no size"))?;
            put(result, image::create(driver, format.fourcc, width, height)?)
        })
    }
}

fn dimension(value: i32) -> Outcome<usize> {
    let limit = crate::caps::MAXIMUM;
    let good = usize::try_from(value).ok().filter(|_| (1..=limit).contains(&value));
    good.ok_or_else(|| Refusal::parameter(format!("{value} pixels")))
}

/// `vaDeriveImage`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn derive_image(
    context: VADriverContextP,
    surface: VASurfaceID,
    result: *mut VAImage,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the result has a place.
    unsafe {
        call(context, "vaDeriveImage", |driver| {
            let surface = driver.surfaces.get(surface)?;
            put(result, image::derive(driver, surface))
        })
    }
}

/// `vaDestroyImage`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn destroy_image(context: VADriverContextP, id: VAImageID) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { call(context, "vaDestroyImage", |driver| image::destroy(driver, id)) }
}

fn area(x: i32, y: i32, width: u32, height: u32) -> Outcome<Area> {
    let corner = usize::try_from(x).ok().zip(usize::try_from(y).ok());
    let (x, y) = corner.ok_or_else(|| Refusal::parameter("a corner outside the picture"))?;
    Ok(Area { x, y, width: width as usize, height: height as usize })
}

/// `vaGetImage`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn get_image(
    context: VADriverContextP,
    surface: VASurfaceID,
    x: i32,
    y: i32,
    width: u32,
    height: u32,
    id: VAImageID,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe {
        call(context, "vaGetImage", |driver| {
            let surface = driver.surfaces.get(surface)?;
            image::get(driver, &surface, area(x, y, width, height)?, id)
        })
    }
}

/// `vaPutImage`.
///
/// # Safety
/// For libva.
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn put_image(
    context: VADriverContextP,
    surface: VASurfaceID,
    id: VAImageID,
    x: i32,
    y: i32,
    width: u32,
    height: u32,
    to_x: i32,
    to_y: i32,
    to_width: u32,
    to_height: u32,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe {
        call(context, "vaPutImage", |driver| {
            let surface = driver.surfaces.get(surface)?;
            let from = area(x, y, width, height)?;
            let to = area(to_x, to_y, to_width, to_height)?;
            image::put(driver, id, from, &surface, to)
        })
    }
}

/// `vaCopy`, between surfaces of one format.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn copy(
    context: VADriverContextP,
    target: *mut VACopyObject,
    source: *mut VACopyObject,
    _option: VACopyOption,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the objects are good and of the type named.
    unsafe {
        call(context, "vaCopy", |driver| {
            let surface = |object: *mut VACopyObject| {
                let object = object.as_ref().ok_or_else(|| Refusal::parameter("no object"))?;
                if object.obj_type != va::VACopyObjectSurface {
                    return Err(Refusal::unimplemented("vaCopy of buffers"));
                }
                driver.surfaces.get(object.object.surface_id)
            };
            let (target, source) = (surface(target)?, surface(source)?);
            if target.format != source.format {
                return Err(Refusal::parameter("vaCopy between two formats"));
            }
            target.view().copy_from(&source.view());
            Ok(())
        })
    }
}
