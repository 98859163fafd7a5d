//! Listing directories.

use std::ffi::{CStr, c_char, c_void};

use crate::hooks::rewritten;
use crate::hooks::stat::real_fstat;
use crate::real::{fail, real};
use crate::shim::shim;

#[unsafe(no_mangle)]
unsafe extern "C" fn opendir(path: *const c_char) -> *mut libc::DIR {
    let real = real!(c"opendir", unsafe extern "C" fn(*const c_char) -> *mut libc::DIR);
    let Some(real) = real else {
        fail(libc::ENOSYS);
        return std::ptr::null_mut();
    };
    // SAFETY: the caller gives a C string.
    let ours = unsafe { rewritten(libc::AT_FDCWD, path) };
    let path = ours.as_ref().map_or(path, |path| path.as_ptr());
    // SAFETY: the argument is that of the real function.
    unsafe { real(path) }
}

/// Whether an entry of that name in that directory is a node's placeholder.
fn is_node(directory: *mut libc::DIR, entry: &libc::dirent64) -> bool {
    // SAFETY: the real function ends the name with a zero.
    let name = unsafe { CStr::from_ptr(entry.d_name.as_ptr()) };
    if !name.to_bytes().starts_with(b"renderD") {
        return false;
    }
    // SAFETY: the caller gives an open directory.
    let found = real_fstat(unsafe { libc::dirfd(directory) });
    // A directory lies on the device of its files.
    found.and_then(|found| shim()?.placeholder((found.st_dev, entry.d_ino))).is_some()
}

macro_rules! readdir_hooks {
    ($($name:ident $text:literal)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(directory: *mut libc::DIR) -> *mut c_void {
                let real = real!($text, unsafe extern "C" fn(*mut libc::DIR) -> *mut libc::dirent64);
                let Some(real) = real else {
                    fail(libc::ENOSYS);
                    return std::ptr::null_mut();
                };
                // SAFETY: the argument is that of the real function.
                let entry = unsafe { real(directory) };
                // SAFETY: null or an entry, valid until the next call for this directory.
                if let Some(entry) = unsafe { entry.as_mut() }
                    && is_node(directory, entry)
                {
                    entry.d_type = libc::DT_CHR;
                }
                entry.cast()
            }
        )*
    };
}

// On both architectures the structures with and without 64 are one.
readdir_hooks! { readdir c"readdir" readdir64 c"readdir64" }
