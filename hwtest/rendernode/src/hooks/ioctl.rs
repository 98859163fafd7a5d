//! Ioctls.

use std::ffi::{c_int, c_ulong, c_void};

use crate::device::Request;
use crate::hooks::stat::real_fstat;
use crate::real::{fail, real};
use crate::shim::shim;

#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(descriptor: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if let (Some(shim), Some(request)) = (shim(), Request::parse(request, argument)) {
        let device =
            real_fstat(descriptor).and_then(|file| shim.device((file.st_dev, file.st_ino)));
        if let Some(device) = device {
            return match device.ioctl(descriptor, request, shim.log) {
                Ok(()) => 0,
                Err(code) => fail(code),
            };
        }
    }
    let real = real!(c"ioctl", unsafe extern "C" fn(c_int, c_ulong, ...) -> c_int);
    let Some(real) = real else { return fail(libc::ENOSYS) };
    // SAFETY: the arguments are those of the real function.
    unsafe { real(descriptor, request, argument) }
}
