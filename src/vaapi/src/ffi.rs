//! The part of libva's interface that is needed, as declared by `va.h`, `va_drm.h`, `va_vpp.h`.

use std::ffi::{c_char, c_int, c_uint, c_void};

use libloading::os::unix::{Library as Dynamic, RTLD_GLOBAL, RTLD_NOW};

/// `VADisplay`.
pub(crate) type Handle = *mut c_void;
/// `VAConfigID`, `VAContextID`.
pub(crate) type Id = c_uint;
/// `VAMessageCallback`.
pub(crate) type MessageCallback = Option<unsafe extern "C" fn(*mut c_void, *const c_char)>;

/// `VA_INVALID_ID`.
pub(crate) const INVALID_ID: Id = u32::MAX;
/// `VA_ATTRIB_NOT_SUPPORTED`.
pub(crate) const NOT_SUPPORTED: u32 = 0x8000_0000;
/// `VAProfileNone`.
pub(crate) const PROFILE_NONE: c_int = -1;
/// `VAEntrypointVideoProc`.
pub(crate) const ENTRYPOINT_PROCESS: c_int = 10;
/// `VAConfigAttribRTFormat`.
pub(crate) const ATTRIBUTE_FORMATS: c_int = 0;
/// `VAConfigAttribRateControl`.
pub(crate) const ATTRIBUTE_RATE_CONTROL: c_int = 5;
/// `VAConfigAttribMaxPictureWidth`.
pub(crate) const ATTRIBUTE_MAX_WIDTH: c_int = 18;
/// `VAConfigAttribMaxPictureHeight`.
pub(crate) const ATTRIBUTE_MAX_HEIGHT: c_int = 19;
/// `VASurfaceAttribMaxWidth`.
pub(crate) const SURFACE_MAX_WIDTH: c_int = 3;
/// `VASurfaceAttribMaxHeight`.
pub(crate) const SURFACE_MAX_HEIGHT: c_int = 5;
/// `VAProcFilterDeinterlacing`.
pub(crate) const FILTER_DEINTERLACING: c_int = 2;
/// `VAProcFilterHighDynamicRangeToneMapping`.
pub(crate) const FILTER_TONE_MAPPING: c_int = 8;
/// `VAProcHighDynamicRangeMetadataHDR10`.
pub(crate) const METADATA_HDR10: c_int = 1;

/// `VAConfigAttrib`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Attribute {
    pub(crate) kind: c_int,
    pub(crate) value: u32,
}

/// `VASurfaceAttrib`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(8))]
pub(crate) struct SurfaceAttribute {
    pub(crate) kind: c_int,
    pub(crate) flags: u32,
    pub(crate) value_kind: c_int,
    /// A union of an integer, a float and pointers. As two numbers, the first is the integer; the
    /// whole is aligned as its pointers are.
    padding: u32,
    pub(crate) value: c_int,
    value_rest: u32,
}

/// `VAProcFilterCapDeinterlacing`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct DeinterlacingCap {
    pub(crate) kind: c_int,
    reserved: [u32; 4],
}

/// `VAProcFilterCapHighDynamicRange`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct ToneMappingCap {
    pub(crate) metadata: c_int,
    pub(crate) flags: u16,
    reserved: [u16; 16],
}

/// `VAProcPipelineCaps`, with room for what newer versions may append.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct PipelineCaps {
    flags: [u32; 2],
    references: [u32; 2],
    input_standards: *mut c_int,
    input_standards_count: u32,
    output_standards: *mut c_int,
    output_standards_count: u32,
    pub(crate) rotation: u32,
    pub(crate) blend: u32,
    rest: [u32; 64],
}

impl Default for PipelineCaps {
    fn default() -> Self {
        Self {
            flags: [0; 2],
            references: [0; 2],
            input_standards: std::ptr::null_mut(),
            input_standards_count: 0,
            output_standards: std::ptr::null_mut(),
            output_standards_count: 0,
            rotation: 0,
            blend: 0,
            rest: [0; 64],
        }
    }
}

macro_rules! functions {
    ($($field:ident $symbol:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// libva, loaded.
        #[derive(Debug)]
        pub(crate) struct Library {
            $(pub(crate) $field: unsafe extern "C" fn($($argument),*) -> $result,)*
            // Kept loaded for as long as the functions above are.
            _va: Dynamic,
            _drm: Dynamic,
        }

        impl Library {
            /// Loads libva and its part for DRM.
            ///
            /// # Errors
            /// The loader's.
            pub(crate) fn load() -> Result<Self, libloading::Error> {
                // Drivers call back into libva, which has to be visible to them.
                let flags = RTLD_NOW | RTLD_GLOBAL;
                // SAFETY: libva's initialisation has no conditions.
                let (va, drm) = unsafe {
                    (Dynamic::open(Some("libva.so.2"), flags)?,
                     Dynamic::open(Some("libva-drm.so.2"), flags)?)
                };
                // libva-drm depends on libva: a look-up in the one finds the functions of both.
                Ok(Self {
                    $(
                        // SAFETY: the type is the one that the header declares.
                        $field: unsafe { *drm.get($symbol)? },
                    )*
                    _va: va,
                    _drm: drm,
                })
            }
        }
    };
}

functions! {
    get_display b"vaGetDisplayDRM\0": fn(c_int) -> Handle;
    set_error_callback b"vaSetErrorCallback\0":
        fn(Handle, MessageCallback, *mut c_void) -> MessageCallback;
    set_info_callback b"vaSetInfoCallback\0":
        fn(Handle, MessageCallback, *mut c_void) -> MessageCallback;
    initialize b"vaInitialize\0": fn(Handle, *mut c_int, *mut c_int) -> c_int;
    terminate b"vaTerminate\0": fn(Handle) -> c_int;
    error_text b"vaErrorStr\0": fn(c_int) -> *const c_char;
    vendor b"vaQueryVendorString\0": fn(Handle) -> *const c_char;
    max_profiles b"vaMaxNumProfiles\0": fn(Handle) -> c_int;
    profiles b"vaQueryConfigProfiles\0": fn(Handle, *mut c_int, *mut c_int) -> c_int;
    max_entrypoints b"vaMaxNumEntrypoints\0": fn(Handle) -> c_int;
    entrypoints b"vaQueryConfigEntrypoints\0":
        fn(Handle, c_int, *mut c_int, *mut c_int) -> c_int;
    attributes b"vaGetConfigAttributes\0":
        fn(Handle, c_int, c_int, *mut Attribute, c_int) -> c_int;
    create_config b"vaCreateConfig\0":
        fn(Handle, c_int, c_int, *mut Attribute, c_int, *mut Id) -> c_int;
    destroy_config b"vaDestroyConfig\0": fn(Handle, Id) -> c_int;
    surface_attributes b"vaQuerySurfaceAttributes\0":
        fn(Handle, Id, *mut SurfaceAttribute, *mut c_uint) -> c_int;
    create_context b"vaCreateContext\0":
        fn(Handle, Id, c_int, c_int, c_int, *mut c_uint, c_int, *mut Id) -> c_int;
    destroy_context b"vaDestroyContext\0": fn(Handle, Id) -> c_int;
    filters b"vaQueryVideoProcFilters\0": fn(Handle, Id, *mut c_int, *mut c_uint) -> c_int;
    filter_caps b"vaQueryVideoProcFilterCaps\0":
        fn(Handle, Id, c_int, *mut c_void, *mut c_uint) -> c_int;
    pipeline_caps b"vaQueryVideoProcPipelineCaps\0":
        fn(Handle, Id, *mut c_uint, c_uint, *mut PipelineCaps) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_headers() {
        assert_eq!(size_of::<Attribute>(), 8);
        assert_eq!(size_of::<SurfaceAttribute>(), 24);
        assert_eq!(size_of::<DeinterlacingCap>(), 20);
        assert_eq!(size_of::<ToneMappingCap>(), 40);
        assert_eq!(std::mem::offset_of!(SurfaceAttribute, value), 16);
        assert_eq!(std::mem::offset_of!(PipelineCaps, rotation), 44);
    }
}
