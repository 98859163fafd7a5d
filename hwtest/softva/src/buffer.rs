//! Buffers: parameters and slices on their way in, coded pictures and images on their way out.
//!
//! Invariant: the address that `vaMapBuffer` returned stays good until the buffer is destroyed.
//! Nothing resizes a buffer's memory.

use std::mem::size_of;
use std::ptr;
use std::sync::Arc;

use crate::status::{Outcome, Refusal};
use crate::surface::Surface;
use crate::va::{self, VABufferType, VACodedBufferSegment};

/// More than any picture of 16384 x 16384 needs; beyond it a size is a client's mistake.
const LIMIT: usize = 1 << 31;

/// A buffer of libva.
#[derive(Debug)]
pub struct Buffer {
    /// What it is for.
    pub kind: VABufferType,
    /// Bytes of an element.
    pub element: usize,
    /// Elements.
    pub count: usize,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Own(Bytes),
    Coded {
        bytes: Bytes,
        segment: Box<VACodedBufferSegment>,
    },
    /// The memory of a derived image.
    Surface(Arc<Surface>),
}

// SAFETY: the segment's pointers point into the buffer's own memory.
unsafe impl Send for Buffer {}

/// Bytes that start where any C struct may start.
#[derive(Debug)]
struct Bytes {
    words: Vec<u128>,
    length: usize,
}

impl Bytes {
    fn new(length: usize) -> Self {
        Self { words: vec![0; length.div_ceil(size_of::<u128>()).max(1)], length }
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: `words` holds at least `length` bytes, and every byte is a value.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.length) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.length) }
    }
}

impl Buffer {
    /// A buffer of `count` elements, filled from `data` if there is any.
    ///
    /// # Safety
    /// `data` must be null or readable for `element * count` bytes.
    pub unsafe fn new(
        kind: VABufferType,
        element: usize,
        count: usize,
        data: *const u8,
    ) -> Outcome<Self> {
        let size = element.checked_mul(count).filter(|size| *size <= LIMIT);
        let size = size.ok_or_else(|| Refusal::memory(format!("{count} elements of {element}")))?;
        let mut bytes = Bytes::new(size);
        if !data.is_null() {
            // SAFETY: the caller promises that many readable bytes; the target is new.
            unsafe { ptr::copy_nonoverlapping(data, bytes.words.as_mut_ptr().cast(), size) };
        }
        let storage = if kind == va::VAEncCodedBufferType {
            // SAFETY: a plain C struct of numbers and pointers, for which zeroes are a value.
            let mut segment: Box<VACodedBufferSegment> = Box::new(unsafe { std::mem::zeroed() });
            segment.buf = bytes.words.as_mut_ptr().cast();
            Storage::Coded { bytes, segment }
        } else {
            Storage::Own(bytes)
        };
        Ok(Self { kind, element, count, storage })
    }

    /// The buffer of an image that is a surface's memory.
    pub fn of_surface(surface: Arc<Surface>) -> Self {
        let element = surface.layout.size;
        let storage = Storage::Surface(surface);
        Self { kind: va::VAImageBufferType, element, count: 1, storage }
    }

    /// The buffer of an image of its own.
    pub fn of_image(size: usize) -> Self {
        let storage = Storage::Own(Bytes::new(size));
        Self { kind: va::VAImageBufferType, element: size, count: 1, storage }
    }

    /// What `vaMapBuffer` returns: the bytes, or a coded buffer's list of segments.
    pub fn map(&mut self) -> *mut libc::c_void {
        match &mut self.storage {
            Storage::Own(bytes) => bytes.words.as_mut_ptr().cast(),
            Storage::Coded { segment, .. } => ptr::from_mut(segment.as_mut()).cast(),
            Storage::Surface(surface) => surface.address().as_ptr().cast(),
        }
    }

    /// What the client put in.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Own(bytes) | Storage::Coded { bytes, .. } => bytes.as_slice(),
            Storage::Surface(_) => &[],
        }
    }

    /// A copy of an element as the struct that libva defines for this kind of buffer.
    pub fn read<T: Copy>(&self, index: usize) -> Outcome<T> {
        read_at(self.bytes(), index * self.element)
    }

    /// Puts a coded picture in.
    pub fn store_coded(&mut self, coded: &[u8]) -> Outcome {
        let Storage::Coded { bytes, segment } = &mut self.storage else {
            return Err(Refusal::new(va::VA_STATUS_ERROR_INVALID_BUFFER, "not a coded buffer"));
        };
        let room = bytes.as_mut_slice();
        let Some(room) = room.get_mut(..coded.len()) else {
            return Err(Refusal::new(
                va::VA_STATUS_ERROR_NOT_ENOUGH_BUFFER,
                format!("{} coded bytes, room for {}", coded.len(), room.len()),
            ));
        };
        room.copy_from_slice(coded);
        segment.size = u32::try_from(coded.len()).unwrap_or(0);
        segment.bit_offset = 0;
        segment.status = 0;
        segment.next = ptr::null_mut();
        Ok(())
    }
}

/// A copy of the C struct at an offset. Only for structs of plain numbers and pointers, for which
/// any bytes are a value; the structs of libva are.
pub fn read_at<T: Copy>(bytes: &[u8], offset: usize) -> Outcome<T> {
    let source = bytes.get(offset..).and_then(|rest| rest.get(..size_of::<T>()));
    let source = source.ok_or_else(|| {
        Refusal::parameter(format!(
            "{} bytes at {offset} of a buffer of {}",
            size_of::<T>(),
            bytes.len()
        ))
    })?;
    // SAFETY: the slice is as long as the struct, and the copy needs no alignment.
    Ok(unsafe { ptr::read_unaligned(source.as_ptr().cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coded_picture_too_big_for_its_buffer_is_refused() {
        // SAFETY: no data.
        let buffer = unsafe { Buffer::new(va::VAEncCodedBufferType, 4, 1, ptr::null()) };
        let mut buffer = buffer.expect("four bytes");
        let refusal = buffer.store_coded(&[1, 2, 3, 4, 5]).expect_err("five bytes in four");
        assert_eq!(refusal.status, va::VA_STATUS_ERROR_NOT_ENOUGH_BUFFER as i32);
        buffer.store_coded(&[1, 2, 3]).expect("three bytes in four");
        assert_eq!(&buffer.bytes()[..3], [1, 2, 3]);
    }

    #[test]
    fn elements_are_read_by_index() {
        let numbers = [1u32, 2, 3];
        let data = numbers.as_ptr().cast();
        // SAFETY: twelve bytes.
        let buffer = unsafe { Buffer::new(va::VASliceParameterBufferType, 4, 3, data) };
        let buffer = buffer.expect("twelve bytes");
        assert_eq!(buffer.read::<u32>(2).expect("third"), 3);
        assert!(buffer.read::<u32>(3).is_err());
    }
}
