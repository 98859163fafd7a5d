//! libva's functions, grouped as its header groups them. They turn pointers into slices and
//! refusals into status codes; what they do is elsewhere.

pub mod config;
pub mod memory;
pub mod picture;
pub mod pixels;
pub mod stubs;
pub mod video;

use crate::driver::Driver;
use crate::status::{Outcome, Refusal};
use crate::trace;
use crate::va::{self, VADriverContextP, VAStatus};

/// Runs a call on the driver of a context and returns libva's code.
///
/// # Safety
/// The context must be one that `__vaDriverInit_1_0` has filled and that wasn't terminated.
unsafe fn call(
    context: VADriverContextP,
    name: &str,
    work: impl FnOnce(&Driver) -> Outcome,
) -> VAStatus {
    // SAFETY: promised by the caller.
    let driver = unsafe { (*context).pDriverData.cast::<Driver>().as_ref() };
    let done = driver.ok_or_else(|| Refusal::parameter("no driver")).and_then(work);
    match done {
        Ok(()) => va::VA_STATUS_SUCCESS as VAStatus,
        Err(refusal) => {
            trace!("{name}: {refusal}");
            refusal.status
        }
    }
}

/// A C array as a slice; null or a negative length is an empty one.
///
/// # Safety
/// `pointer` must be null or good for `length` values for the life that the caller picks.
unsafe fn array<'a, T>(pointer: *const T, length: impl TryInto<usize>) -> &'a [T] {
    let length = length.try_into().unwrap_or(0);
    if pointer.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(pointer, length) }
}

/// A C array to be written.
///
/// # Safety
/// As for [`array`], and nobody else may use it meanwhile.
unsafe fn array_mut<'a, T>(pointer: *mut T, length: impl TryInto<usize>) -> &'a mut [T] {
    let length = length.try_into().unwrap_or(0);
    if pointer.is_null() || length == 0 {
        return &mut [];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts_mut(pointer, length) }
}

/// Writes a result.
///
/// # Safety
/// `pointer` must be null or good for a value.
unsafe fn put<T>(pointer: *mut T, value: T) -> Outcome {
    if pointer.is_null() {
        return Err(Refusal::parameter("nowhere to write the result"));
    }
    // SAFETY: promised by the caller.
    unsafe { pointer.write(value) };
    Ok(())
}
