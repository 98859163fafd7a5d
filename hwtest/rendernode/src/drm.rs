//! The ioctls that every DRM driver answers alike.
//!
//! Numbers and layouts are those of the kernel's `drm.h`.

use std::ffi::c_char;

use crate::device::{Answer, Device, Request};

const VERSION: u8 = 0x00;
const GET_UNIQUE: u8 = 0x01;
const GET_MAGIC: u8 = 0x02;
const SET_VERSION: u8 = 0x07;
const GEM_CLOSE: u8 = 0x09;
const GET_CAP: u8 = 0x0c;
const SET_CLIENT_CAP: u8 = 0x0d;
const PRIME_HANDLE_TO_FD: u8 = 0x2d;
const PRIME_FD_TO_HANDLE: u8 = 0x2e;

const CAP_PRIME: u64 = 0x05;
/// Import and export.
const PRIME_BOTH: u64 = 3;

#[derive(Clone, Copy)]
#[repr(C)]
struct Version {
    major: i32,
    minor: i32,
    patch: i32,
    name_length: usize,
    name: *mut c_char,
    date_length: usize,
    date: *mut c_char,
    description_length: usize,
    description: *mut c_char,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Unique {
    length: usize,
    text: *mut c_char,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Capability {
    name: u64,
    value: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct GemClose {
    handle: u32,
    pad: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Prime {
    handle: u32,
    flags: u32,
    descriptor: i32,
}

/// `None` if the driver has to answer.
pub(crate) fn ioctl(device: &Device, descriptor: i32, request: Request) -> Option<Answer> {
    Some(match request.number {
        VERSION => request.with(|version: &mut Version| {
            (version.major, version.minor, version.patch) = (1, 6, 0);
            give(device.node.face.driver(), version.name, &mut version.name_length);
            give("20230929", version.date, &mut version.date_length);
            give("virtual render node", version.description, &mut version.description_length);
            Ok(())
        }),
        // A render node has no name on a bus, and nobody to authenticate with.
        GET_UNIQUE => request.with(|unique: &mut Unique| {
            unique.length = 0;
            Ok(())
        }),
        GET_MAGIC => Err(libc::EACCES),
        SET_VERSION | SET_CLIENT_CAP => Err(libc::EACCES),
        GET_CAP => request.with(|capability: &mut Capability| {
            capability.value = if capability.name == CAP_PRIME { PRIME_BOTH } else { 0 };
            Ok(())
        }),
        GEM_CLOSE => request.with(|close: &mut GemClose| device.buffers().close(close.handle)),
        PRIME_HANDLE_TO_FD => request.with(|prime: &mut Prime| {
            prime.descriptor = device.buffers().export(prime.handle)?;
            Ok(())
        }),
        PRIME_FD_TO_HANDLE => request.with(|prime: &mut Prime| {
            prime.handle = device.buffers().import(descriptor, prime.descriptor)?;
            Ok(())
        }),
        _ => return None,
    })
}

/// Copies as much of `text` as the caller has room for, and says how long it is.
fn give(text: &str, to: *mut c_char, length: &mut usize) {
    let room = text.len().min(*length);
    if !to.is_null() {
        // SAFETY: the caller says that `length` bytes may be written there.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to, room) };
    }
    *length = text.len();
}
