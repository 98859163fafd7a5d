//! Capabilities and configurations.

use super::{array, array_mut, call, put};
use crate::caps::{self, Capability};
use crate::driver::Config;
use crate::format::Format;
use crate::status::Refusal;
use crate::trace;
use crate::trace::Engine;
use crate::va::{
    self, VAConfigAttrib, VAConfigID, VADriverContextP, VAEntrypoint, VAProfile, VAStatus,
    VASurfaceAttrib,
};

/// `vaQueryConfigProfiles`.
///
/// # Safety
/// For libva, which allocates `max_profiles` entries.
pub unsafe extern "C" fn query_config_profiles(
    context: VADriverContextP,
    list: *mut VAProfile,
    count: *mut i32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list is long enough.
    unsafe {
        call(context, "vaQueryConfigProfiles", |_| {
            let profiles = caps::profiles();
            array_mut(list, profiles.len()).copy_from_slice(&profiles);
            put(count, profiles.len() as i32)
        })
    }
}

/// `vaQueryConfigEntrypoints`.
///
/// # Safety
/// For libva, which allocates `max_entrypoints` entries.
pub unsafe extern "C" fn query_config_entrypoints(
    context: VADriverContextP,
    profile: VAProfile,
    list: *mut VAEntrypoint,
    count: *mut i32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list is long enough.
    unsafe {
        call(context, "vaQueryConfigEntrypoints", |_| {
            let entrypoints = caps::entrypoints(profile);
            if entrypoints.is_empty() {
                let reason = format!("profile {profile}");
                return Err(Refusal::new(va::VA_STATUS_ERROR_UNSUPPORTED_PROFILE, reason));
            }
            array_mut(list, entrypoints.len()).copy_from_slice(&entrypoints);
            put(count, entrypoints.len() as i32)
        })
    }
}

/// `vaGetConfigAttributes`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn get_config_attributes(
    context: VADriverContextP,
    profile: VAProfile,
    entrypoint: VAEntrypoint,
    list: *mut VAConfigAttrib,
    count: i32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list has `count` entries.
    unsafe {
        call(context, "vaGetConfigAttributes", |_| {
            let capability = Capability::find(profile, entrypoint)?;
            for attribute in array_mut(list, count) {
                attribute.value = capability.attribute(attribute.type_);
            }
            Ok(())
        })
    }
}

/// `vaCreateConfig`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn create_config(
    context: VADriverContextP,
    profile: VAProfile,
    entrypoint: VAEntrypoint,
    list: *mut VAConfigAttrib,
    count: i32,
    id: *mut VAConfigID,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list has `count` entries.
    unsafe {
        call(context, "vaCreateConfig", |driver| {
            let capability = Capability::find(profile, entrypoint)?;
            let mut config =
                Config { capability, rt_format: capability.rt_formats(), rate_control: 0 };
            if capability.engine == Engine::Encode {
                config.rate_control = va::VA_RC_CQP;
            }
            for attribute in array(list, count) {
                let able = capability.attribute(attribute.type_);
                match attribute.type_ {
                    va::VAConfigAttribRTFormat => {
                        config.rt_format = attribute.value & able;
                        if config.rt_format == 0 {
                            let reason = format!("surfaces of class {:#x}", attribute.value);
                            let status = va::VA_STATUS_ERROR_UNSUPPORTED_RT_FORMAT;
                            return Err(Refusal::new(status, reason));
                        }
                    }
                    va::VAConfigAttribRateControl => {
                        if attribute.value & able == 0 && attribute.value != va::VA_RC_NONE {
                            let reason = format!("rate control {:#x}", attribute.value);
                            let status = va::VA_STATUS_ERROR_ATTR_NOT_SUPPORTED;
                            return Err(Refusal::new(status, reason));
                        }
                        config.rate_control = attribute.value;
                    }
                    _ => {}
                }
            }
            let new = driver.configs.add(config);
            trace!(
                "config {new:#x}: {} rate control {:#x}",
                capability.name(),
                config.rate_control
            );
            put(id, new)
        })
    }
}

/// `vaDestroyConfig`.
///
/// # Safety
/// For libva.
pub unsafe extern "C" fn destroy_config(context: VADriverContextP, id: VAConfigID) -> VAStatus {
    // SAFETY: libva's promise: the context is ours.
    unsafe { call(context, "vaDestroyConfig", |driver| driver.configs.remove(id).map(drop)) }
}

/// `vaQueryConfigAttributes`.
///
/// # Safety
/// For libva, which allocates `max_attributes` entries.
pub unsafe extern "C" fn query_config_attributes(
    context: VADriverContextP,
    id: VAConfigID,
    profile: *mut VAProfile,
    entrypoint: *mut VAEntrypoint,
    list: *mut VAConfigAttrib,
    count: *mut i32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list is long enough.
    unsafe {
        call(context, "vaQueryConfigAttributes", |driver| {
            let config = driver.configs.get(id)?;
            put(profile, config.capability.profile)?;
            put(entrypoint, config.capability.entrypoint)?;
            let mut found =
                vec![VAConfigAttrib { type_: va::VAConfigAttribRTFormat, value: config.rt_format }];
            if config.capability.engine == Engine::Encode {
                let value = config.rate_control;
                found.push(VAConfigAttrib { type_: va::VAConfigAttribRateControl, value });
            }
            array_mut(list, found.len()).copy_from_slice(&found);
            put(count, found.len() as i32)
        })
    }
}

fn attribute(kind: va::VASurfaceAttribType, settable: bool, value: i32) -> VASurfaceAttrib {
    let mut flags = va::VA_SURFACE_ATTRIB_GETTABLE;
    if settable {
        flags |= va::VA_SURFACE_ATTRIB_SETTABLE;
    }
    // SAFETY: a plain C struct of numbers, for which zeroes are a value.
    let mut attribute: VASurfaceAttrib = unsafe { std::mem::zeroed() };
    attribute.type_ = kind;
    attribute.flags = flags;
    attribute.value.type_ = va::VAGenericValueTypeInteger;
    attribute.value.value.i = value;
    attribute
}

/// `vaQuerySurfaceAttributes`.
///
/// # Safety
/// For libva; `list` is null or has `*count` entries.
pub unsafe extern "C" fn query_surface_attributes(
    context: VADriverContextP,
    id: VAConfigID,
    list: *mut VASurfaceAttrib,
    count: *mut u32,
) -> VAStatus {
    // SAFETY: libva's promises: the context is ours, the list has `*count` entries.
    unsafe {
        call(context, "vaQuerySurfaceAttributes", |driver| {
            let config = driver.configs.get(id)?;
            let capability = config.capability;
            let usable = |format: &&Format| format.rt_format() & config.rt_format != 0;
            let mut found: Vec<_> = capability
                .formats
                .iter()
                .filter(usable)
                .map(|format| {
                    attribute(va::VASurfaceAttribPixelFormat, true, format.fourcc() as i32)
                })
                .collect();
            let memory = va::VA_SURFACE_ATTRIB_MEM_TYPE_VA
                | va::VA_SURFACE_ATTRIB_MEM_TYPE_DRM_PRIME
                | va::VA_SURFACE_ATTRIB_MEM_TYPE_DRM_PRIME_2;
            found.extend([
                attribute(va::VASurfaceAttribMinWidth, false, capability.minimum),
                attribute(va::VASurfaceAttribMaxWidth, false, caps::MAXIMUM),
                attribute(va::VASurfaceAttribMinHeight, false, capability.minimum),
                attribute(va::VASurfaceAttribMaxHeight, false, caps::MAXIMUM),
                attribute(va::VASurfaceAttribMemoryType, true, memory as i32),
            ]);
            if count.is_null() {
                return Err(Refusal::parameter("nowhere to write the count"));
            }
            let room = *count as usize;
            *count = found.len() as u32;
            if list.is_null() {
                return Ok(());
            }
            if room < found.len() {
                let reason = format!("room for {room} attributes of {}", found.len());
                return Err(Refusal::new(va::VA_STATUS_ERROR_MAX_NUM_EXCEEDED, reason));
            }
            array_mut(list, found.len()).copy_from_slice(&found);
            Ok(())
        })
    }
}
