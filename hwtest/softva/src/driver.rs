//! The driver behind a `VADisplay`: its objects and its faults.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::buffer::Buffer;
use crate::caps::Capability;
use crate::context::Context;
use crate::fault::Faults;
use crate::image::Image;
use crate::status::Outcome;
use crate::store::Store;
use crate::surface::Surface;
use crate::va;

/// A configuration: a capability with a client's choices.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// What it is a configuration of.
    pub capability: Capability,
    /// The class of surfaces it works on.
    pub rt_format: u32,
    /// One of `VA_RC_*` for encoders.
    pub rate_control: u32,
}

/// All objects of a display.
#[derive(Debug)]
pub struct Driver {
    /// Configurations.
    pub configs: Store<Config>,
    /// Surfaces.
    pub surfaces: Store<Surface>,
    /// Contexts.
    pub contexts: Store<Mutex<Context>>,
    /// Buffers.
    pub buffers: Store<Mutex<Buffer>>,
    /// Images.
    pub images: Store<Image>,
    /// Faults of the process.
    pub faults: &'static Faults,
}

impl Driver {
    /// A driver without objects; refused if the faults in the environment make no sense.
    pub fn new() -> Outcome<Self> {
        Ok(Self {
            configs: Store::new("config", 0x0100_0001, va::VA_STATUS_ERROR_INVALID_CONFIG),
            surfaces: Store::new("surface", 0x0200_0001, va::VA_STATUS_ERROR_INVALID_SURFACE),
            contexts: Store::new("context", 0x0300_0001, va::VA_STATUS_ERROR_INVALID_CONTEXT),
            buffers: Store::new("buffer", 0x0400_0001, va::VA_STATUS_ERROR_INVALID_BUFFER),
            images: Store::new("image", 0x0500_0001, va::VA_STATUS_ERROR_INVALID_IMAGE),
            faults: faults()?,
        })
    }

    /// A buffer, locked by the caller while in use.
    pub fn buffer(&self, id: u32) -> Outcome<Arc<Mutex<Buffer>>> {
        self.buffers.get(id)
    }
}

/// The lock of an object. A thread that panicked took the process with it, so a poisoned lock
/// isn't met; if it were, its object would be as good as before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One set of counters per process: a process opens a display several times.
fn faults() -> Outcome<&'static Faults> {
    static FAULTS: OnceLock<Outcome<Faults>> = OnceLock::new();
    FAULTS
        .get_or_init(|| Faults::parse(&std::env::var("SOFTVA_FAULT").unwrap_or_default()))
        .as_ref()
        .map_err(Clone::clone)
}
