//! Rights, links and canonical names.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::config::Fault;
use crate::hooks::rewritten;
use crate::hooks::stat::real_stat;
use crate::real::{fail, real};
use crate::route;
use crate::shim::shim;

/// Whether the real function has to be asked, with which path; an error number if a fault forbids.
fn allowed(path: &CStr, mode: c_int) -> Result<(), c_int> {
    let node = real_stat(path).and_then(|found| shim()?.placeholder((found.st_dev, found.st_ino)));
    match node {
        Some(node) if node.fault == Some(Fault::NoPermission) && mode != libc::F_OK => {
            Err(libc::EACCES)
        }
        _ => Ok(()),
    }
}

macro_rules! access_hooks {
    ($($name:ident $text:literal)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(path: *const c_char, mode: c_int) -> c_int {
                let real = real!($text, unsafe extern "C" fn(*const c_char, c_int) -> c_int);
                let Some(real) = real else { return fail(libc::ENOSYS) };
                // SAFETY: the caller gives a C string.
                let ours = unsafe { rewritten(libc::AT_FDCWD, path) };
                if let Some(Err(code)) = ours.as_deref().map(|path| allowed(path, mode)) {
                    return fail(code);
                }
                let path = ours.as_ref().map_or(path, |path| path.as_ptr());
                // SAFETY: the arguments are those of the real function.
                unsafe { real(path, mode) }
            }
        )*
    };
}

access_hooks! { access c"access" euidaccess c"euidaccess" eaccess c"eaccess" }

#[unsafe(no_mangle)]
unsafe extern "C" fn faccessat(
    directory: c_int,
    path: *const c_char,
    mode: c_int,
    flags: c_int,
) -> c_int {
    let real =
        real!(c"faccessat", unsafe extern "C" fn(c_int, *const c_char, c_int, c_int) -> c_int);
    let Some(real) = real else { return fail(libc::ENOSYS) };
    // SAFETY: the caller gives a C string.
    let ours = unsafe { rewritten(directory, path) };
    if let Some(Err(code)) = ours.as_deref().map(|path| allowed(path, mode)) {
        return fail(code);
    }
    let path = ours.as_ref().map_or(path, |path| path.as_ptr());
    // SAFETY: the arguments are those of the real function.
    unsafe { real(directory, path, mode, flags) }
}

/// Puts the name that is shown in the place of a real one that was read into `buffer`.
unsafe fn show(buffer: *mut c_char, length: isize) -> isize {
    let (Some(shim), Ok(count)) = (shim(), usize::try_from(length)) else { return length };
    // SAFETY: the real function has written so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), count) };
    let shown = route::shown(&shim.root, bytes).to_vec();
    bytes[..shown.len()].copy_from_slice(&shown);
    shown.len().cast_signed()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn readlink(path: *const c_char, buffer: *mut c_char, size: usize) -> isize {
    // SAFETY: the arguments are those of the more general function.
    unsafe { readlinkat(libc::AT_FDCWD, path, buffer, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn readlinkat(
    directory: c_int,
    path: *const c_char,
    buffer: *mut c_char,
    size: usize,
) -> isize {
    let real = real!(
        c"readlinkat",
        unsafe extern "C" fn(c_int, *const c_char, *mut c_char, usize) -> isize
    );
    let Some(real) = real else { return fail(libc::ENOSYS) as isize };
    // SAFETY: the caller gives a C string.
    let ours = unsafe { rewritten(directory, path) };
    let path = ours.as_ref().map_or(path, |path| path.as_ptr());
    // SAFETY: the arguments are those of the real function.
    unsafe { show(buffer, real(directory, path, buffer, size)) }
}

type RealPath = unsafe extern "C" fn(*const c_char, *mut c_char) -> *mut c_char;

#[unsafe(no_mangle)]
unsafe extern "C" fn realpath(path: *const c_char, resolved: *mut c_char) -> *mut c_char {
    let Some(real) = real!(c"realpath", RealPath) else {
        fail(libc::ENOSYS);
        return std::ptr::null_mut();
    };
    // SAFETY: the caller gives a C string.
    let ours = unsafe { rewritten(libc::AT_FDCWD, path) };
    let path = ours.as_ref().map_or(path, |path| path.as_ptr());
    // SAFETY: the arguments are those of the real function.
    let found = unsafe { real(path, resolved) };
    if !found.is_null() {
        // SAFETY: the real function has given a C string, in a buffer that may be written.
        unsafe {
            let length = libc::strlen(found);
            let shown = show(found, length.cast_signed());
            *found.offset(shown) = 0;
        }
    }
    found
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __realpath_chk(
    path: *const c_char,
    resolved: *mut c_char,
    _size: usize,
) -> *mut c_char {
    // SAFETY: the size is a check of the C compiler's; the buffer has PATH_MAX bytes.
    unsafe { realpath(path, resolved) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn canonicalize_file_name(path: *const c_char) -> *mut c_char {
    // SAFETY: by definition the same.
    unsafe { realpath(path, std::ptr::null_mut()) }
}

type GetXattr = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void, usize) -> isize;

macro_rules! xattr_hooks {
    ($($name:ident $text:literal)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                path: *const c_char,
                attribute: *const c_char,
                value: *mut c_void,
                size: usize,
            ) -> isize {
                let Some(real) = real!($text, GetXattr) else { return fail(libc::ENOSYS) as isize };
                // SAFETY: the caller gives a C string.
                let ours = unsafe { rewritten(libc::AT_FDCWD, path) };
                let path = ours.as_ref().map_or(path, |path| path.as_ptr());
                // SAFETY: the arguments are those of the real function.
                unsafe { real(path, attribute, value, size) }
            }
        )*
    };
}

// `ls -l` asks for access lists.
xattr_hooks! { getxattr c"getxattr" lgetxattr c"lgetxattr" }
