//! Surfaces and buffers.

use std::os::fd::{BorrowedFd, IntoRawFd};

use super::{array, call, put};
use crate::buffer::Buffer;
use crate::driver::{Driver, lock};
use crate::format::{Format, Plane};
use crate::status::{Outcome, Refusal};
use crate::surface::Surface;
use crate::trace;
use crate::va::{
    self, VABufferID, VABufferType, VAContextID, VADRMPRIMESurfaceDescriptor, VADriverContextP,
    VAStatus, VASurfaceAttrib, VASurfaceAttribExternalBuffers, VASurfaceID,
};

/// `vaCreateSurfaces`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn create_surfaces(
    context: VADriverContextP,
    width: i32,
    height: i32,
    class: i32,
    count: i32,
    ids: *mut VASurfaceID,
) -> VAStatus {
    let (width, height) = (width.max(0) as u32, height.max(0) as u32);
    let count = count.max(0) as u32;
    // SAFETY: the arguments are passed on.
    unsafe {
        let none = std::ptr::null_mut();
        create_surfaces_2(context, class as u32, width, height, ids, count, none, 0)
    }
}

/// `vaCreateSurfaces` with attributes.
///
/// # Safety
/// For libva.
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn create_surfaces_2(
    context: VADriverContextP,
    class: u32,
    width: u32,
    height: u32,
    ids: *mut VASurfaceID,
    count: u32,
    list: *mut VASurfaceAttrib,
    attributes: u32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the lists have the lengths given.
    unsafe {
        call(context, "vaCreateSurfaces", |driver| {
            let wanted = Wanted::read(class, array(list, attributes))?;
            let maximum = crate::caps::MAXIMUM as u32;
            if width == 0 || height == 0 || width > maximum || height > maximum {
                return Err(Refusal::new(
                    va::VA_STATUS_ERROR_RESOLUTION_NOT_SUPPORTED,
                    format!("surfaces of {width} x {height}"),
                ));
            }
            let (width, height) = (width as usize, height as usize);
            for index in 0..count as usize {
                let surface = wanted.make(index, width, height)?;
                ids.add(index).write(driver.surfaces.add(surface));
            }
            let kind = wanted.memory;
            trace!("{count} surfaces {:?} {width}x{height} memory {kind:#x}", wanted.format);
            Ok(())
        })
    }
}

/// What a client wants its surfaces to be.
struct Wanted {
    format: Format,
    memory: u32,
    descriptor: *mut libc::c_void,
}

impl Wanted {
    fn read(class: u32, attributes: &[VASurfaceAttrib]) -> Outcome<Self> {
        let mut format = Format::from_rt_format(class);
        let mut wanted = (va::VA_SURFACE_ATTRIB_MEM_TYPE_VA, std::ptr::null_mut());
        for attribute in attributes {
            // SAFETY: the union is read as the type that goes with the attribute.
            unsafe {
                match attribute.type_ {
                    va::VASurfaceAttribPixelFormat => {
                        format = Format::from_fourcc(attribute.value.value.i as u32);
                    }
                    va::VASurfaceAttribMemoryType => wanted.0 = attribute.value.value.i as u32,
                    va::VASurfaceAttribExternalBufferDescriptor => {
                        wanted.1 = attribute.value.value.p;
                    }
                    _ => {}
                }
            }
        }
        let format = format.ok_or_else(|| {
            let reason = format!("no surface format for class {class:#x}");
            Refusal::new(va::VA_STATUS_ERROR_UNSUPPORTED_RT_FORMAT, reason)
        })?;
        Ok(Self { format, memory: wanted.0, descriptor: wanted.1 })
    }

    /// A surface of its own or one in the client's memory.
    unsafe fn make(&self, index: usize, width: usize, height: usize) -> Outcome<Surface> {
        if self.memory == va::VA_SURFACE_ATTRIB_MEM_TYPE_VA || self.descriptor.is_null() {
            return Surface::new(self.format, width, height);
        }
        let mut planes = [Plane::default(); 3];
        let fd = match self.memory {
            va::VA_SURFACE_ATTRIB_MEM_TYPE_DRM_PRIME_2 => {
                // SAFETY: the descriptor of this type of memory is this struct.
                let prime = unsafe { &*self.descriptor.cast::<VADRMPRIMESurfaceDescriptor>() };
                let mut next = 0;
                for layer in &prime.layers[..prime.num_layers.min(4) as usize] {
                    for plane in 0..layer.num_planes.min(4) as usize {
                        if let Some(place) = planes.get_mut(next) {
                            place.offset = layer.offset[plane] as usize;
                            place.stride = layer.pitch[plane] as usize;
                        }
                        next += 1;
                    }
                }
                if prime.num_objects != 1 {
                    return Err(Refusal::unimplemented("a surface in several DMABufs"));
                }
                prime.objects[0].fd
            }
            va::VA_SURFACE_ATTRIB_MEM_TYPE_DRM_PRIME => {
                // SAFETY: the descriptor of this type of memory is this struct.
                let external =
                    unsafe { &*self.descriptor.cast::<VASurfaceAttribExternalBuffers>() };
                for (plane, place) in planes.iter_mut().enumerate() {
                    place.offset = external.offsets[plane] as usize;
                    place.stride = external.pitches[plane] as usize;
                }
                // SAFETY: the client gives as many handles as buffers.
                let handles = unsafe { array(external.buffers, external.num_buffers) };
                let handle = handles.get(index).or(handles.first());
                *handle.ok_or_else(|| Refusal::parameter("no DMABuf"))? as i32
            }
            other => return Err(Refusal::unimplemented(format!("memory of type {other:#x}"))),
        };
        if fd < 0 {
            return Err(Refusal::parameter("no DMABuf"));
        }
        // SAFETY: the client keeps its descriptor open during the call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        Surface::import(self.format, width, height, planes, fd)
    }
}

/// `vaDestroySurfaces`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn destroy_surfaces(
    context: VADriverContextP,
    ids: *mut VASurfaceID,
    count: i32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list has `count` entries.
    unsafe {
        call(context, "vaDestroySurfaces", |driver| {
            array(ids, count).iter().try_for_each(|id| driver.surfaces.remove(*id).map(drop))
        })
    }
}

/// `vaExportSurfaceHandle`: the surface as a DMABuf.
///
/// # Safety
/// For libva; `descriptor` is a `VADRMPRIMESurfaceDescriptor`.
pub unsafe extern "C" fn export_surface_handle(
    context: VADriverContextP,
    id: VASurfaceID,
    kind: u32,
    flags: u32,
    descriptor: *mut libc::c_void,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the descriptor is of the kind named.
    unsafe {
        call(context, "vaExportSurfaceHandle", |driver| {
            if kind != va::VA_SURFACE_ATTRIB_MEM_TYPE_DRM_PRIME_2 {
                let reason = format!("export as memory of type {kind:#x}");
                return Err(Refusal::new(va::VA_STATUS_ERROR_UNSUPPORTED_MEMORY_TYPE, reason));
            }
            let surface = driver.surfaces.get(id)?;
            let separate = flags & va::VA_EXPORT_SURFACE_SEPARATE_LAYERS != 0;
            trace!("surface {id:#x} exported as DMABuf");
            put(descriptor.cast(), describe(&surface, separate)?)
        })
    }
}

fn describe(surface: &Surface, separate: bool) -> Outcome<VADRMPRIMESurfaceDescriptor> {
    let file = surface.file().ok_or_else(|| Refusal::memory("a surface without a file"))?;
    let fd = file.try_clone_to_owned().map_err(|error| Refusal::memory(error.to_string()))?;
    // SAFETY: a plain C struct of numbers, for which zeroes are a value.
    let mut prime: VADRMPRIMESurfaceDescriptor = unsafe { std::mem::zeroed() };
    prime.fourcc = surface.format.fourcc();
    (prime.width, prime.height) = (surface.width as u32, surface.height as u32);
    prime.num_objects = 1;
    // The client closes it. The modifier stays 0: linear.
    prime.objects[0].fd = fd.into_raw_fd();
    prime.objects[0].size = surface.layout.size as u32;
    let planes = surface.format.planes();
    prime.num_layers = if separate { planes as u32 } else { 1 };
    prime.layers[0].drm_format = surface.format.drm_fourcc();
    for (index, plane) in surface.layout.planes[..planes].iter().enumerate() {
        let (layer, place) = if separate { (index, 0) } else { (0, index) };
        let layer = &mut prime.layers[layer];
        if separate {
            layer.drm_format = surface.format.drm_plane_fourcc(index);
        }
        layer.num_planes = place as u32 + 1;
        layer.offset[place] = plane.offset as u32;
        layer.pitch[place] = plane.stride as u32;
    }
    Ok(prime)
}

/// `vaCreateBuffer`.
///
/// # Safety
/// For libva; `data` is null or has `size * count` bytes.
pub unsafe extern "C" fn create_buffer(
    context: VADriverContextP,
    user: VAContextID,
    kind: VABufferType,
    size: u32,
    count: u32,
    data: *mut libc::c_void,
    id: *mut VABufferID,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the data is as long as stated.
    unsafe {
        call(context, "vaCreateBuffer", |driver| {
            let engine = driver.contexts.get(user).ok().map(|context| lock(&context).engine());
            driver.faults.create_buffer(engine)?;
            let buffer = Buffer::new(kind, size as usize, count as usize, data.cast())?;
            put(id, driver.buffers.add(buffer.into()))
        })
    }
}

fn with_buffer(
    driver: &Driver,
    id: VABufferID,
    work: impl FnOnce(&mut Buffer) -> Outcome,
) -> Outcome {
    let buffer = driver.buffer(id)?;
    work(&mut lock(&buffer))
}

/// `vaBufferSetNumElements`: fewer elements than there is memory for.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn buffer_set_num_elements(
    context: VADriverContextP,
    id: VABufferID,
    count: u32,
) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe {
        call(context, "vaBufferSetNumElements", |driver| {
            with_buffer(driver, id, |buffer| {
                let count = count as usize;
                if count > buffer.count {
                    let reason = format!("{count} elements of {}", buffer.count);
                    return Err(Refusal::new(va::VA_STATUS_ERROR_INVALID_PARAMETER, reason));
                }
                buffer.count = count;
                Ok(())
            })
        })
    }
}

/// `vaMapBuffer`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn map_buffer(
    context: VADriverContextP,
    id: VABufferID,
    address: *mut *mut libc::c_void,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the result has a place.
    unsafe {
        call(context, "vaMapBuffer", |driver| {
            with_buffer(driver, id, |buffer| put(address, buffer.map()))
        })
    }
}

/// `vaUnmapBuffer`: nothing to do, as the memory is always mapped.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn unmap_buffer(context: VADriverContextP, id: VABufferID) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { call(context, "vaUnmapBuffer", |driver| driver.buffer(id).map(drop)) }
}

/// `vaDestroyBuffer`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn destroy_buffer(context: VADriverContextP, id: VABufferID) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { call(context, "vaDestroyBuffer", |driver| driver.buffers.remove(id).map(drop)) }
}

/// `vaBufferInfo`, which only libva's own tracing asks for.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn buffer_info(
    context: VADriverContextP,
    id: VABufferID,
    kind: *mut VABufferType,
    size: *mut u32,
    count: *mut u32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the results have places.
    unsafe {
        call(context, "vaBufferInfo", |driver| {
            with_buffer(driver, id, |buffer| {
                put(kind, buffer.kind)?;
                put(size, buffer.element as u32)?;
                put(count, buffer.count as u32)
            })
        })
    }
}
