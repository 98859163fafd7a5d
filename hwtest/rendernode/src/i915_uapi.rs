//! Numbers and layouts of the kernel's `i915_drm.h`, as far as Intel's VA-API drivers use them.

/// Ioctl numbers, after DRM's 0x40.
pub(crate) mod number {
    pub(crate) const GETPARAM: u8 = 0x46;
    pub(crate) const GEM_BUSY: u8 = 0x57;
    pub(crate) const GEM_THROTTLE: u8 = 0x58;
    pub(crate) const GEM_CREATE: u8 = 0x5b;
    pub(crate) const GEM_PREAD: u8 = 0x5c;
    pub(crate) const GEM_PWRITE: u8 = 0x5d;
    pub(crate) const GEM_MMAP: u8 = 0x5e;
    pub(crate) const GEM_SET_DOMAIN: u8 = 0x5f;
    pub(crate) const GEM_SW_FINISH: u8 = 0x60;
    pub(crate) const GEM_SET_TILING: u8 = 0x61;
    pub(crate) const GEM_GET_TILING: u8 = 0x62;
    pub(crate) const GEM_GET_APERTURE: u8 = 0x63;
    pub(crate) const GEM_MMAP_OFFSET: u8 = 0x64;
    pub(crate) const GEM_MADVISE: u8 = 0x66;
    pub(crate) const GEM_EXECBUFFER2: u8 = 0x69;
    pub(crate) const GEM_WAIT: u8 = 0x6c;
    pub(crate) const CONTEXT_CREATE: u8 = 0x6d;
    pub(crate) const CONTEXT_DESTROY: u8 = 0x6e;
    pub(crate) const GEM_SET_CACHING: u8 = 0x6f;
    pub(crate) const GEM_GET_CACHING: u8 = 0x70;
    pub(crate) const REG_READ: u8 = 0x71;
    pub(crate) const GET_RESET_STATS: u8 = 0x72;
    pub(crate) const GEM_USERPTR: u8 = 0x73;
    pub(crate) const CONTEXT_GETPARAM: u8 = 0x74;
    pub(crate) const CONTEXT_SETPARAM: u8 = 0x75;
    pub(crate) const QUERY: u8 = 0x79;
    pub(crate) const VM_CREATE: u8 = 0x7a;
    pub(crate) const VM_DESTROY: u8 = 0x7b;
    pub(crate) const GEM_CREATE_EXT: u8 = 0x7c;
}

/// `I915_PARAM_*`.
pub(crate) mod param {
    pub(crate) const CHIPSET_ID: i32 = 4;
    pub(crate) const NUM_FENCES_AVAIL: i32 = 6;
    pub(crate) const HAS_ALIASING_PPGTT: i32 = 18;
    pub(crate) const CMD_PARSER_VERSION: i32 = 28;
    pub(crate) const MMAP_VERSION: i32 = 30;
    pub(crate) const REVISION: i32 = 32;
    pub(crate) const SUBSLICE_TOTAL: i32 = 33;
    pub(crate) const EU_TOTAL: i32 = 34;
    pub(crate) const HAS_POOLED_EU: i32 = 38;
    pub(crate) const MIN_EU_IN_POOL: i32 = 39;
    pub(crate) const MMAP_GTT_VERSION: i32 = 40;
    pub(crate) const HAS_SCHEDULER: i32 = 41;
    pub(crate) const SLICE_MASK: i32 = 46;
    pub(crate) const SUBSLICE_MASK: i32 = 47;
    pub(crate) const CS_TIMESTAMP_FREQUENCY: i32 = 51;
    pub(crate) const PERF_REVISION: i32 = 54;
    /// The last that is known here.
    pub(crate) const HAS_USERPTR_PROBE: i32 = 56;
}

/// `DRM_I915_QUERY_*`.
pub(crate) mod query {
    pub(crate) const TOPOLOGY_INFO: u64 = 1;
    pub(crate) const ENGINE_INFO: u64 = 2;
    pub(crate) const MEMORY_REGIONS: u64 = 4;
}

/// `I915_CONTEXT_PARAM_GTT_SIZE`.
pub(crate) const CONTEXT_GTT_SIZE: u64 = 3;
/// `I915_CONTEXT_PARAM_SSEU`.
pub(crate) const CONTEXT_SSEU: u64 = 7;
/// `I915_CONTEXT_PARAM_VM`.
pub(crate) const CONTEXT_VM: u64 = 9;
/// `I915_EXEC_FENCE_OUT`.
pub(crate) const EXEC_FENCE_OUT: u64 = 1 << 17;

macro_rules! layouts {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            #[derive(Debug, Clone, Copy)]
            #[repr(C)]
            pub(crate) struct $name { $(pub(crate) $field: $type),* }
        )*
    };
}

layouts! {
    GetParam { param: i32, value: *mut i32 }
    Busy { handle: u32, busy: u32 }
    Create { size: u64, handle: u32, pad: u32 }
    Transfer { handle: u32, pad: u32, offset: u64, size: u64, data: u64 }
    Mmap { handle: u32, pad: u32, offset: u64, size: u64, address: u64, flags: u64 }
    SetTiling { handle: u32, mode: u32, stride: u32, swizzle: u32 }
    GetTiling { handle: u32, mode: u32, swizzle: u32, physical_swizzle: u32 }
    Aperture { size: u64, available: u64 }
    MmapOffset { handle: u32, pad: u32, offset: u64, flags: u64, extensions: u64 }
    Advise { handle: u32, advice: u32, retained: u32 }
    Execute {
        buffers: u64, count: u32, batch_start: u32, batch_length: u32, dr1: u32, dr4: u32,
        cliprects_count: u32, cliprects: u64, flags: u64, context: u64, fence: u64,
    }
    Wait { handle: u32, flags: u32, timeout_ns: i64 }
    ContextCreate { context: u32, flags: u32, extensions: u64 }
    Caching { handle: u32, caching: u32 }
    RegRead { offset: u64, value: u64 }
    ResetStats { context: u32, flags: u32, resets: u32, active: u32, pending: u32, pad: u32 }
    Userptr { address: u64, size: u64, flags: u32, handle: u32 }
    ContextParam { context: u32, size: u32, param: u64, value: u64 }
    Sseu {
        engine: u32, flags: u32, slices: u64, subslices: u64, least_eus: u16, most_eus: u16,
        reserved: u32,
    }
    Query { count: u32, flags: u32, items: u64 }
    QueryItem { id: u64, length: i32, flags: u32, data: u64 }
    Vm { extensions: u64, flags: u32, id: u32 }
}
