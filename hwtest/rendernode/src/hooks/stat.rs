//! What files are: the placeholders and the memfds of nodes are shown as character devices.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::hooks::rewritten;
use crate::real::{fail, real};
use crate::shim::{descriptor_path, shim};

/// DRM's major number.
const DRM_MAJOR: u32 = 226;
/// A node's type and rights.
const NODE_MODE: u32 = libc::S_IFCHR | 0o660;

type Stat = unsafe extern "C" fn(*const c_char, *mut libc::stat) -> c_int;
type Fstat = unsafe extern "C" fn(c_int, *mut libc::stat) -> c_int;
type FstatAt = unsafe extern "C" fn(c_int, *const c_char, *mut libc::stat, c_int) -> c_int;
type Statx = unsafe extern "C" fn(c_int, *const c_char, c_int, c_uint, *mut libc::statx) -> c_int;

fn call_fstatat(directory: c_int, path: &CStr, flags: c_int) -> Option<libc::stat> {
    let real = real!(c"fstatat", FstatAt)?;
    // SAFETY: a stat structure consists of numbers, of which zeros are some.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string and the structure is ours.
    (unsafe { real(directory, path.as_ptr(), &raw mut found, flags) } == 0).then_some(found)
}

/// What a file really is.
pub(super) fn real_stat(path: &CStr) -> Option<libc::stat> {
    call_fstatat(libc::AT_FDCWD, path, 0)
}

/// What an open file really is.
pub(super) fn real_fstat(descriptor: c_int) -> Option<libc::stat> {
    call_fstatat(descriptor, c"", libc::AT_EMPTY_PATH)
}

/// Makes a node of what is the file of one.
unsafe fn disguise(result: c_int, found: *mut libc::stat) -> c_int {
    if result == 0 && !found.is_null() {
        // SAFETY: the real function has filled the structure.
        let found = unsafe { &mut *found };
        if let Some(shim) = shim()
            && let Some(node) = shim.node((found.st_dev, found.st_ino))
        {
            found.st_mode = NODE_MODE;
            found.st_rdev = libc::makedev(DRM_MAJOR, node.minor);
            (found.st_uid, found.st_gid) = (0, shim.group);
            (found.st_size, found.st_blocks) = (0, 0);
        }
    }
    result
}

macro_rules! stat_hooks {
    ($($name:ident $text:literal)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(path: *const c_char, found: *mut libc::stat) -> c_int {
                let Some(real) = real!($text, Stat) else { return fail(libc::ENOSYS) };
                // SAFETY: the caller gives a C string.
                let ours = unsafe { rewritten(libc::AT_FDCWD, path) };
                let path = ours.as_ref().map_or(path, |path| path.as_ptr());
                // SAFETY: the arguments are those of the real function.
                unsafe { disguise(real(path, found), found) }
            }
        )*
    };
}

// On both architectures the structures with and without 64 are one.
stat_hooks! { stat c"stat" stat64 c"stat64" lstat c"lstat" lstat64 c"lstat64" }

macro_rules! fstat_hooks {
    ($($name:ident $text:literal)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(descriptor: c_int, found: *mut libc::stat) -> c_int {
                let Some(real) = real!($text, Fstat) else { return fail(libc::ENOSYS) };
                // SAFETY: the arguments are those of the real function.
                unsafe { disguise(real(descriptor, found), found) }
            }
        )*
    };
}

fstat_hooks! { fstat c"fstat" fstat64 c"fstat64" }

macro_rules! fstatat_hooks {
    ($($name:ident $text:literal)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                directory: c_int,
                path: *const c_char,
                found: *mut libc::stat,
                flags: c_int,
            ) -> c_int {
                let Some(real) = real!($text, FstatAt) else { return fail(libc::ENOSYS) };
                // SAFETY: the caller gives a C string.
                let ours = unsafe { rewritten(directory, path) };
                let path = ours.as_ref().map_or(path, |path| path.as_ptr());
                // SAFETY: the arguments are those of the real function.
                unsafe { disguise(real(directory, path, found, flags), found) }
            }
        )*
    };
}

fstatat_hooks! { fstatat c"fstatat" fstatat64 c"fstatat64" }

// What programs built against glibc before 2.33 call; the version is always the one of this libc.
macro_rules! versioned_hooks {
    ($($name:ident => $newer:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                _version: c_int,
                path: *const c_char,
                found: *mut libc::stat,
            ) -> c_int {
                // SAFETY: the arguments are those of the newer function.
                unsafe { $newer(path, found) }
            }
        )*
    };
}

versioned_hooks! { __xstat => stat __xstat64 => stat __lxstat => lstat __lxstat64 => lstat }

#[unsafe(no_mangle)]
unsafe extern "C" fn __fxstat(_version: c_int, descriptor: c_int, found: *mut libc::stat) -> c_int {
    // SAFETY: the arguments are those of the newer function.
    unsafe { fstat(descriptor, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __fxstat64(
    version: c_int,
    descriptor: c_int,
    found: *mut libc::stat,
) -> c_int {
    // SAFETY: the same function.
    unsafe { __fxstat(version, descriptor, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __fxstatat(
    _version: c_int,
    directory: c_int,
    path: *const c_char,
    found: *mut libc::stat,
    flags: c_int,
) -> c_int {
    // SAFETY: the arguments are those of the newer function.
    unsafe { fstatat(directory, path, found, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn statx(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    found: *mut libc::statx,
) -> c_int {
    let Some(real) = real!(c"statx", Statx) else { return fail(libc::ENOSYS) };
    // SAFETY: the caller gives a C string.
    let ours = unsafe { rewritten(directory, path) };
    let path = ours.as_ref().map_or(path, |path| path.as_ptr());
    // SAFETY: the arguments are those of the real function.
    let result = unsafe { real(directory, path, flags, mask | libc::STATX_INO, found) };
    if result == 0 && !found.is_null() {
        // SAFETY: the real function has filled the structure.
        let found = unsafe { &mut *found };
        let device = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
        if let Some(shim) = shim()
            && let Some(node) = shim.node((device, found.stx_ino))
        {
            found.stx_mode = NODE_MODE as u16;
            (found.stx_rdev_major, found.stx_rdev_minor) = (DRM_MAJOR, node.minor);
            (found.stx_uid, found.stx_gid) = (0, shim.group);
            (found.stx_size, found.stx_blocks) = (0, 0);
        }
    }
    result
}

// libudev takes for a device only what lies in a file system of type sysfs.

#[unsafe(no_mangle)]
unsafe extern "C" fn statfs(path: *const c_char, found: *mut libc::statfs) -> c_int {
    let real = real!(c"statfs", unsafe extern "C" fn(*const c_char, *mut libc::statfs) -> c_int);
    let Some(real) = real else { return fail(libc::ENOSYS) };
    // SAFETY: the caller gives a C string.
    let ours = unsafe { rewritten(libc::AT_FDCWD, path) };
    let real_path = ours.as_ref().map_or(path, |path| path.as_ptr());
    // SAFETY: the arguments are those of the real function.
    let result = unsafe { real(real_path, found) };
    if let Some(ours) = ours {
        disguise_file_system(result, ours.to_bytes(), found);
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fstatfs(descriptor: c_int, found: *mut libc::statfs) -> c_int {
    let real = real!(c"fstatfs", unsafe extern "C" fn(c_int, *mut libc::statfs) -> c_int);
    let Some(real) = real else { return fail(libc::ENOSYS) };
    // SAFETY: the arguments are those of the real function.
    let result = unsafe { real(descriptor, found) };
    disguise_file_system(result, &descriptor_path(descriptor).unwrap_or_default(), found);
    result
}

fn disguise_file_system(result: c_int, path: &[u8], found: *mut libc::statfs) {
    let sysfs = shim()
        .and_then(|shim| path.strip_prefix(&shim.root[..]))
        .is_some_and(|shown| shown.starts_with(b"/sys"));
    if result == 0 && sysfs && !found.is_null() {
        // SAFETY: the real function has filled the structure.
        unsafe { (*found).f_type = 0x6265_6572 };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn statfs64(path: *const c_char, found: *mut c_void) -> c_int {
    // SAFETY: on both architectures the structures are one.
    unsafe { statfs(path, found.cast()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fstatfs64(descriptor: c_int, found: *mut c_void) -> c_int {
    // SAFETY: on both architectures the structures are one.
    unsafe { fstatfs(descriptor, found.cast()) }
}
