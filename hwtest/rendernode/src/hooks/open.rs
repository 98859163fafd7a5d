//! Opening files.

use std::ffi::{CStr, CString, c_char, c_int};

use crate::config::{Fault, Node};
use crate::device::Device;
use crate::hooks::rewritten;
use crate::hooks::stat::{real_fstat, real_stat};
use crate::real::{fail, real};
use crate::shim::shim;

type Open = unsafe extern "C" fn(*const c_char, c_int, ...) -> c_int;
type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, ...) -> c_int;

/// The node that is at a rewritten path.
fn node_at(path: &CStr) -> Option<Node> {
    let found = real_stat(path)?;
    shim()?.placeholder((found.st_dev, found.st_ino))
}

/// Opens a node: a memfd that is remembered.
fn open_node(node: Node, flags: c_int) -> c_int {
    let Some(shim) = shim() else { return fail(libc::ENOENT) };
    if node.fault == Some(Fault::NoPermission) {
        return fail(libc::EACCES);
    }
    if flags & libc::O_DIRECTORY != 0 {
        return fail(libc::ENOTDIR);
    }
    let close = if flags & libc::O_CLOEXEC != 0 { libc::MFD_CLOEXEC } else { 0 };
    // The name is for people, and tests, who look into /proc/PID/fd.
    let Ok(name) = CString::new(format!("renderD{}", node.minor)) else {
        return fail(libc::EINVAL);
    };
    // SAFETY: the name is a C string.
    let file = unsafe { libc::memfd_create(name.as_ptr(), close) };
    let Some(found) = real_fstat(file) else { return fail(libc::EMFILE) };
    shim.opened((found.st_dev, found.st_ino), Device::new(node));
    file
}

/// What opening `path` gives if it is ours: a node, or a file of the tree by its real path.
unsafe fn ours(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    real: impl FnOnce(*const c_char) -> c_int,
) -> Option<c_int> {
    // SAFETY: the caller of `open` gives a C string.
    let path = unsafe { rewritten(directory, path) }?;
    // With O_PATH nothing is opened; the placeholder has all that can be asked of the descriptor.
    let node = if flags & libc::O_PATH == 0 { node_at(&path) } else { None };
    Some(node.map_or_else(|| real(path.as_ptr()), |node| open_node(node, flags)))
}

macro_rules! open_hooks {
    ($($name:ident $text:literal)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
                let Some(real) = real!($text, Open) else { return fail(libc::ENOSYS) };
                // SAFETY: the arguments are those of the real function.
                let real = |path| unsafe { real(path, flags, mode) };
                // SAFETY: the caller gives a C string.
                unsafe { ours(libc::AT_FDCWD, path, flags, real) }.unwrap_or_else(|| real(path))
            }
        )*
    };
}

// The ones with `_2` are what C compilers make of calls without a mode.
open_hooks! { open c"open" open64 c"open64" __open_2 c"__open_2" __open64_2 c"__open64_2" }

macro_rules! openat_hooks {
    ($($name:ident $text:literal)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                directory: c_int,
                path: *const c_char,
                flags: c_int,
                mode: libc::mode_t,
            ) -> c_int {
                let Some(real) = real!($text, OpenAt) else { return fail(libc::ENOSYS) };
                // SAFETY: the arguments are those of the real function.
                let real = |path| unsafe { real(directory, path, flags, mode) };
                // SAFETY: the caller gives a C string.
                unsafe { ours(directory, path, flags, real) }.unwrap_or_else(|| real(path))
            }
        )*
    };
}

openat_hooks! {
    openat c"openat" openat64 c"openat64" __openat_2 c"__openat_2" __openat64_2 c"__openat64_2"
}

type Fopen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut libc::FILE;

macro_rules! fopen_hooks {
    ($($name:ident $text:literal)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(path: *const c_char, mode: *const c_char) -> *mut libc::FILE {
                let Some(real) = real!($text, Fopen) else {
                    fail(libc::ENOSYS);
                    return std::ptr::null_mut();
                };
                // SAFETY: the caller gives a C string.
                let ours = unsafe { rewritten(libc::AT_FDCWD, path) };
                let path = ours.as_ref().map_or(path, |path| path.as_ptr());
                // SAFETY: the arguments are those of the real function.
                unsafe { real(path, mode) }
            }
        )*
    };
}

// Text files of sysfs; nobody opens a device this way.
fopen_hooks! { fopen c"fopen" fopen64 c"fopen64" }
