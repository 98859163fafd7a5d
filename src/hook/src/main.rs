//! `rendergate-ffmpeg`, called `ffmpeg` or `ffprobe` by Jellyfin; see the library.
//!
//! The C entry point stands in place of the standard library's, which would ignore SIGPIPE and
//! install handlers of its own before the hook knows whether it merely stands in the way: what is
//! executed instead shall find the process as Jellyfin started it.
#![no_main]

use std::ffi::{c_char, c_int};

/// Called by libc with the argument vector.
///
/// # Safety
/// As C's `main`: `argv` holds `argc` strings.
// SAFETY (the name): no other symbol of the program is called `main`, and the signature is C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the caller is libc, which promises just that.
    let argv = unsafe { hook::process::arguments(argc, argv) };
    hook::run(&argv)
}
