//! An opened node: what its ioctls do.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::buffers::Buffers;
use crate::config::{Face, Fault, Node};
use crate::{drm, i915};

/// What an ioctl gives: nothing, or an error number.
pub(crate) type Answer = Result<(), i32>;

/// An ioctl, taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// The number within DRM.
    pub(crate) number: u8,
    /// Bytes of the argument.
    pub(crate) size: usize,
    /// The caller's argument.
    argument: *mut c_void,
}

impl Request {
    /// Takes `request` apart, if it is one of DRM's (type `d`).
    pub(crate) fn parse(request: libc::c_ulong, argument: *mut c_void) -> Option<Self> {
        let [number, kind, low, high] = (request as u32).to_le_bytes();
        // The two highest bits are the direction.
        let size = usize::from(u16::from_le_bytes([low, high & 0x3f]));
        (kind == b'd').then_some(Self { number, size, argument })
    }

    /// Lets `answer` read and change the argument.
    ///
    /// A caller built for an older kernel has a shorter structure: the rest reads as zero, and
    /// isn't given back. The kernel does the same.
    pub(crate) fn with<T: Copy>(self, answer: impl FnOnce(&mut T) -> Answer) -> Answer {
        if self.argument.is_null() {
            return Err(libc::EFAULT);
        }
        let length = self.size.min(size_of::<T>());
        // SAFETY: the structures of DRM's interface are integers only, of which zeros are some.
        let mut value: T = unsafe { std::mem::zeroed() };
        // SAFETY: by the request's number the caller's argument has `size` bytes, `T` has as many
        // or more, and the two don't overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.argument.cast::<u8>(),
                (&raw mut value).cast::<u8>(),
                length,
            );
        }
        answer(&mut value)?;
        // SAFETY: as above.
        unsafe {
            std::ptr::copy_nonoverlapping(
                (&raw const value).cast::<u8>(),
                self.argument.cast::<u8>(),
                length,
            );
        }
        Ok(())
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) node: Node,
    calls: AtomicU64,
    buffers: Mutex<Buffers>,
}

impl Device {
    /// A node that has just been opened.
    pub(crate) fn new(node: Node) -> Self {
        Self { node, calls: AtomicU64::new(0), buffers: Mutex::default() }
    }

    /// The GPU's buffers.
    pub(crate) fn buffers(&self) -> MutexGuard<'_, Buffers> {
        self.buffers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Answers. `descriptor` is the one the caller used.
    pub(crate) fn ioctl(&self, descriptor: i32, request: Request, log: bool) -> Answer {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if matches!(self.node.fault, Some(Fault::Gone(after)) if calls >= after) {
            return Err(libc::ENODEV);
        }
        let answer = match (drm::ioctl(self, descriptor, request), self.node.face) {
            (Some(answer), _) => Some(answer),
            (None, Face::I915) => i915::ioctl(self, descriptor, request),
            (None, Face::Softva) => None,
        };
        answer.unwrap_or_else(|| {
            if log {
                let Node { minor, face, .. } = self.node;
                let (number, size) = (request.number, request.size);
                eprintln!(
                    "rendernode: {face:?} on renderD{minor}: no answer to ioctl {number:#04x} \
                     ({size} bytes)"
                );
            }
            Err(libc::EINVAL)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_apart() {
        // _IOWR('d', 0x00, 64 bytes): DRM_IOCTL_VERSION.
        let request = Request::parse(0xc040_6400, std::ptr::null_mut()).unwrap();
        assert_eq!((request.number, request.size), (0, 64));
        // TCGETS.
        assert!(Request::parse(0x5401, std::ptr::null_mut()).is_none());
    }

    #[test]
    fn a_short_argument_is_read_and_written_no_further() {
        let mut bytes = [1_u8, 0, 0, 0, 7];
        let request = Request { number: 0, size: 4, argument: bytes.as_mut_ptr().cast() };
        let answer = request.with::<[u32; 2]>(|value| {
            assert_eq!(*value, [1, 0]);
            *value = [2, 3];
            Ok(())
        });
        assert_eq!(answer, Ok(()));
        assert_eq!(bytes, [2, 0, 0, 0, 7]);
    }

    #[test]
    fn a_node_goes_after_so_many_calls() {
        let node = Node { minor: 128, face: Face::Softva, fault: Some(Fault::Gone(1)) };
        let device = Device::new(node);
        let mut capability = [5_u64, 0];
        let request = Request::parse(0xc010_640c, capability.as_mut_ptr().cast()).unwrap();
        assert_eq!(device.ioctl(-1, request, false), Ok(()));
        assert_eq!(device.ioctl(-1, request, false), Err(libc::ENODEV));
    }
}
