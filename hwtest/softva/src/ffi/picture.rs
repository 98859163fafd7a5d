//! Contexts and the pictures that go through them.

use super::{array, call, put};
use crate::context::Context;
use crate::driver::{Driver, lock};
use crate::status::{Outcome, Refusal};
use crate::trace;
use crate::va::{
    self, VABufferID, VAConfigID, VAContextID, VADriverContextP, VAStatus, VASurfaceID,
    VASurfaceStatus,
};

/// `vaCreateContext`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn create_context(
    context: VADriverContextP,
    config: VAConfigID,
    width: i32,
    height: i32,
    _flag: i32,
    _targets: *mut VASurfaceID,
    _count: i32,
    id: *mut VAContextID,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the result has a place.
    unsafe {
        call(context, "vaCreateContext", |driver| {
            let config = driver.configs.get(config)?;
            let size = (usize::try_from(width).ok()).zip(usize::try_from(height).ok());
            let (width, height) = size.ok_or_else(|| Refusal::parameter("a negative size"))?;
            let new = Context::new(*config, width, height)?;
            let new = driver.contexts.add(new.into());
            trace!("context {new:#x}: {} {width}x{height}", config.capability.name());
            put(id, new)
        })
    }
}

/// `vaDestroyContext`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn destroy_context(context: VADriverContextP, id: VAContextID) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe {
        call(context, "vaDestroyContext", |driver| {
            trace!("context {id:#x} destroyed");
            driver.contexts.remove(id).map(drop)
        })
    }
}

/// `vaBeginPicture`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn begin_picture(
    context: VADriverContextP,
    id: VAContextID,
    surface: VASurfaceID,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe {
        call(context, "vaBeginPicture", |driver| {
            let target = driver.surfaces.get(surface)?;
            lock(&*driver.contexts.get(id)?).begin(surface, target);
            Ok(())
        })
    }
}

/// `vaRenderPicture`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn render_picture(
    context: VADriverContextP,
    id: VAContextID,
    buffers: *mut VABufferID,
    count: i32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list has `count` entries.
    unsafe {
        call(context, "vaRenderPicture", |driver| {
            let context = driver.contexts.get(id)?;
            let mut context = lock(&context);
            for buffer in array(buffers, count) {
                let buffer = driver.buffer(*buffer)?;
                let buffer = lock(&buffer);
                context.render(driver, &buffer)?;
            }
            Ok(())
        })
    }
}

/// `vaEndPicture`: the work is done here.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn end_picture(context: VADriverContextP, id: VAContextID) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe {
        call(context, "vaEndPicture", |driver| {
            let context = driver.contexts.get(id)?;
            lock(&context).end(driver)
        })
    }
}

fn sync(driver: &Driver, surface: VASurfaceID) -> Outcome {
    let surface = driver.surfaces.get(surface)?;
    let user = *lock(&surface.user);
    driver.faults.sync_surface(user);
    Ok(())
}

/// `vaSyncSurface`: `vaEndPicture` has finished the surface, so there is nothing to wait for.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn sync_surface(context: VADriverContextP, id: VASurfaceID) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { call(context, "vaSyncSurface", |driver| sync(driver, id)) }
}

/// `vaSyncSurface2`, with a time limit that is never reached.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn sync_surface_2(
    context: VADriverContextP,
    id: VASurfaceID,
    _timeout: u64,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { call(context, "vaSyncSurface2", |driver| sync(driver, id)) }
}

/// `vaSyncBuffer`: as for surfaces.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn sync_buffer(
    context: VADriverContextP,
    id: VABufferID,
    _timeout: u64,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe {
        call(context, "vaSyncBuffer", |driver| {
            driver.buffer(id)?;
            driver.faults.sync_surface(Some(trace::Engine::Encode));
            Ok(())
        })
    }
}

/// `vaQuerySurfaceStatus`: every surface is ready.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn query_surface_status(
    context: VADriverContextP,
    id: VASurfaceID,
    status: *mut VASurfaceStatus,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the result has a place.
    unsafe {
        call(context, "vaQuerySurfaceStatus", |driver| {
            driver.surfaces.get(id)?;
            put(status, va::VASurfaceReady)
        })
    }
}
