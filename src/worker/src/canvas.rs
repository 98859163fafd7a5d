//! Pictures' memory, drawn on in turn.
//!
//! `x264enc` and `x265enc` copy a picture into their own frames as they take it, and yet keep the
//! buffer until the picture leaves them: twenty buffers or more, 28 MB at 720p, that nobody reads
//! again. Buffers on canvases share the memory of a few, so keeping them costs nothing.
//!
//! Invariants:
//! - Whoever gets a buffer has read it when the canvas' turn comes again. `graph` sees to it: the
//!   pictures that can wait between scaler and encoder, the one that the encoder takes and the one
//!   that is drawn are as many as there are canvases.
//! - The memory lives as long as any buffer on it.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::sync::Arc;

use gstreamer as gst;

/// What SIMD code likes rows to begin at, bytes.
const ALIGNMENT: usize = 64;

/// Memory for a few pictures of one size.
#[derive(Debug)]
pub struct Canvases {
    canvases: Vec<Canvas>,
    next: usize,
}

#[derive(Debug, Clone)]
struct Canvas {
    bytes: Arc<Bytes>,
    size: usize,
}

#[derive(Debug)]
struct Bytes(UnsafeCell<Box<[u8]>>);

// SAFETY: the cell is reached through GStreamer's maps of buffers alone, and by the invariants no
// map of an earlier buffer is read once a later one is written.
unsafe impl Sync for Bytes {}

impl Canvases {
    /// Memory for `count` pictures of `size` bytes, at least one.
    pub fn new(count: usize, size: usize) -> Self {
        let canvas = || {
            let bytes = vec![0; size + ALIGNMENT].into_boxed_slice();
            Canvas { bytes: Arc::new(Bytes(UnsafeCell::new(bytes))), size }
        };
        Self { canvases: (0..count.max(1)).map(|_| canvas()).collect(), next: 0 }
    }

    /// A buffer on the next canvas. What an earlier buffer on it showed is gone once this one is
    /// written.
    pub fn buffer(&mut self) -> gst::Buffer {
        let canvas = self.canvases[self.next].clone();
        self.next = (self.next + 1) % self.canvases.len();
        gst::Buffer::from_mut_slice(canvas)
    }
}

impl AsMut<[u8]> for Canvas {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the box is never replaced, so the pointer stays good as long as `self`, which
        // the GStreamer memory owns. Earlier buffers on the canvas aren't read any more.
        let bytes = unsafe { &mut *self.bytes.0.get() };
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        &mut bytes[start..start + self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut gst::Buffer, value: u8) {
        buffer.make_mut().map_writable().unwrap().fill(value);
    }

    fn shows(buffer: &gst::Buffer) -> u8 {
        let map = buffer.map_readable().unwrap();
        assert_eq!(map.len(), 1000);
        assert_eq!(map.as_ptr() as usize % ALIGNMENT, 0);
        assert!(map.iter().all(|byte| *byte == map[0]));
        map[0]
    }

    #[test]
    fn buffers_take_turns_and_keep_the_memory() {
        gst::init().unwrap();
        let mut canvases = Canvases::new(2, 1000);
        let [mut first, mut second, mut third] = [(); 3].map(|()| canvases.buffer());
        drop(canvases);
        fill(&mut first, 1);
        fill(&mut second, 2);
        assert_eq!([&first, &second].map(shows), [1, 2]);
        fill(&mut third, 3);
        assert_eq!([&second, &third].map(shows), [2, 3]);
        assert_eq!(shows(&first), 3, "the third is on the first's canvas");
    }
}
