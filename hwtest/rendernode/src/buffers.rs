//! A GPU's buffers, as ranges of the file that stands for the opened node.
//!
//! So the offset that a driver is told for mapping a buffer is an offset of that file, and mmap of
//! the descriptor does what it has to without our help.

use std::collections::BTreeMap;

use crate::device::Answer;

const PAGE: u64 = 4096;
/// Offset 0 means "none" to some callers.
const FIRST_OFFSET: u64 = 1 << 20;

/// One buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    /// In the file.
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// As the caller set it.
    pub(crate) tiling: u32,
    pub(crate) stride: u32,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    all: BTreeMap<u32, Buffer>,
    handles: u32,
    end: u64,
    contexts: u32,
}

impl Buffers {
    /// A new buffer in the file `descriptor`; gives its handle and its size in whole pages.
    pub(crate) fn create(&mut self, descriptor: i32, size: u64) -> Result<(u32, u64), i32> {
        if size == 0 {
            return Err(libc::EINVAL);
        }
        let size = size.checked_next_multiple_of(PAGE).ok_or(libc::E2BIG)?;
        let offset = self.end.max(FIRST_OFFSET);
        let end = offset.checked_add(size).ok_or(libc::E2BIG)?;
        let length = libc::off_t::try_from(end).map_err(|_| libc::E2BIG)?;
        // SAFETY: changes the length of the caller's descriptor, which is one of our files.
        if unsafe { libc::ftruncate(descriptor, length) } != 0 {
            return Err(libc::ENOMEM);
        }
        self.end = end;
        self.handles += 1;
        self.all.insert(self.handles, Buffer { offset, size, tiling: 0, stride: 0 });
        Ok((self.handles, size))
    }

    /// The buffer of a handle.
    pub(crate) fn get(&mut self, handle: u32) -> Result<&mut Buffer, i32> {
        self.all.get_mut(&handle).ok_or(libc::ENOENT)
    }

    /// Forgets a buffer. Its range isn't used again: mappings of it may live on.
    pub(crate) fn close(&mut self, handle: u32) -> Answer {
        self.all.remove(&handle).map(drop).ok_or(libc::EINVAL)
    }

    /// A descriptor of the buffer's size for other devices. The content isn't shared: nothing that
    /// would be seen in it is ever drawn.
    pub(crate) fn export(&mut self, handle: u32) -> Result<i32, i32> {
        let size = libc::off_t::try_from(self.get(handle)?.size).map_err(|_| libc::E2BIG)?;
        // SAFETY: the name is a C string literal.
        let file = unsafe { libc::memfd_create(c"rendernode-buffer".as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return Err(libc::EMFILE);
        }
        // SAFETY: the descriptor is the one just made.
        if unsafe { libc::ftruncate(file, size) } != 0 {
            return Err(libc::ENOMEM);
        }
        Ok(file)
    }

    /// A handle for a buffer of the size of `other`.
    pub(crate) fn import(&mut self, descriptor: i32, other: i32) -> Result<u32, i32> {
        // SAFETY: only asks for the end of a descriptor that the caller gave.
        let size = unsafe { libc::lseek(other, 0, libc::SEEK_END) };
        let size = u64::try_from(size).map_err(|_| libc::EBADF)?;
        self.create(descriptor, size).map(|(handle, _)| handle)
    }

    /// A number for a new context or address space.
    pub(crate) fn next_context(&mut self) -> u32 {
        self.contexts += 1;
        self.contexts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_apart_in_the_file() {
        // SAFETY: the name is a C string literal.
        let file = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
        let mut buffers = Buffers::default();
        assert_eq!(buffers.create(file, 0), Err(libc::EINVAL));
        assert_eq!(buffers.create(file, 1), Ok((1, 4096)));
        assert_eq!(buffers.create(file, 4097), Ok((2, 8192)));
        let (first, second) = (*buffers.get(1).unwrap(), *buffers.get(2).unwrap());
        assert_eq!(first.offset + first.size, second.offset);
        // SAFETY: asks for the end of the file made above.
        let end = unsafe { libc::lseek(file, 0, libc::SEEK_END) };
        assert_eq!(end as u64, second.offset + second.size);
        assert_eq!(buffers.close(1), Ok(()));
        assert_eq!(buffers.close(1), Err(libc::EINVAL));
        assert!(buffers.get(1).is_err());
        let copy = buffers.export(2).unwrap();
        assert_eq!(buffers.import(file, copy), Ok(3));
        assert_eq!(buffers.get(3).unwrap().size, 8192);
    }
}
