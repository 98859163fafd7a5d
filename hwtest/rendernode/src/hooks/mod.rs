//! The functions of libc that the library stands in front of.
//!
//! `open`, `openat` and `ioctl` are variadic in C, and Rust can't define such functions yet. They
//! have fixed arguments here. On x86-64 and AArch64 Linux the arguments after the named ones travel
//! in the same registers either way; one that wasn't given is read as whatever is in its register,
//! and passed on to a function that won't look at it either.
//!
//! Each hook is safe to enter while the library isn't ready: [`shim`](crate::shim::shim) gives
//! `None`, and the real function is called.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the hooks rely on the calling conventions of x86_64 and aarch64 Linux");

mod directories;
mod ioctl;
mod open;
mod paths;
mod stat;

use std::ffi::{CStr, CString, c_char, c_int};

use crate::shim::shim;

/// Where a path really is, if it is ours.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn rewritten(directory: c_int, path: *const c_char) -> Option<CString> {
    if path.is_null() {
        return None;
    }
    // SAFETY: by this function's contract.
    shim()?.rewrite(directory, unsafe { CStr::from_ptr(path) })
}
