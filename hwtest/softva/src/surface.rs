//! Surfaces: pictures in memory that can be passed to another process or mapped by a client.
//!
//! A surface's memory is a memfd; where the process may not have a file of that size (RLIMIT_FSIZE, by
//! which tests fill a disk), plain memory, which can't be exported: a GPU's memory knows no such
//! limit. Exporting it as DMABuf hands out that file descriptor: importers
//! that map it (GStreamer, this driver) work; a display or a kernel driver would refuse it, because
//! it has no GPU behind it.
//!
//! Invariant: as on a GPU, who may touch a surface when is the client's business, settled with
//! `vaSyncSurface`; the driver takes no lock for pixels.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Mutex;

use crate::format::{Format, Layout, Plane};
use crate::status::{Outcome, Refusal};
use crate::trace::Engine;

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// From the left.
    pub x: usize,
    /// From the top.
    pub y: usize,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
}

/// A picture somewhere in memory, to read from and write to.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    base: NonNull<u8>,
    format: Format,
    width: usize,
    height: usize,
    planes: [Plane; 3],
    memory: PhantomData<&'a [u8]>,
}

impl<'a> View<'a> {
    /// A picture at an address.
    ///
    /// # Safety
    /// The memory must reach to the end of the layout's last plane and live for `'a`.
    pub unsafe fn new(
        base: NonNull<u8>,
        format: Format,
        size: (usize, usize),
        planes: [Plane; 3],
    ) -> Self {
        Self { base, format, width: size.0, height: size.1, planes, memory: PhantomData }
    }

    /// Its pixel format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Pixels across.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Pixels down.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All of it.
    pub fn area(&self) -> Area {
        Area { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// Rows of a plane.
    pub fn rows(&self, plane: usize) -> usize {
        self.planes[plane].rows
    }

    /// The samples of a row.
    pub fn row(&self, plane: usize, row: usize) -> &'a [u8] {
        let start = self.start(plane, row);
        // SAFETY: `start` is inside the plane, which `new` was promised to be inside the memory.
        unsafe { std::slice::from_raw_parts(start, self.planes[plane].row) }
    }

    /// The samples of a row, to be written.
    #[allow(clippy::mut_from_ref)]
    pub fn row_mut(&self, plane: usize, row: usize) -> &'a mut [u8] {
        let start = self.start(plane, row);
        // SAFETY: as in `row`. The engines take rows of one picture one at a time, and whether
        // another thread or process writes the same surface is the client's business.
        unsafe { std::slice::from_raw_parts_mut(start, self.planes[plane].row) }
    }

    fn start(&self, plane: usize, row: usize) -> *mut u8 {
        let layout = &self.planes[plane];
        assert!(row < layout.rows, "row {row} of {}", layout.rows);
        // SAFETY: the row is inside the plane (asserted), the plane inside the memory (`new`).
        unsafe { self.base.as_ptr().add(layout.offset + row * layout.stride) }
    }

    /// Addresses and strides of the planes as libswscale and libavcodec take them: for YV12 with
    /// the planes in the order of I420.
    pub fn pointers(&self) -> ([*mut u8; 4], [i32; 4]) {
        let mut pointers = [ptr::null_mut(); 4];
        let mut strides = [0; 4];
        for plane in 0..self.format.planes() {
            let place = match (self.format, plane) {
                (Format::Yv12, 1) => 2,
                (Format::Yv12, 2) => 1,
                _ => plane,
            };
            pointers[place] = self.start(plane, 0);
            strides[place] = i32::try_from(self.planes[plane].stride).unwrap_or(i32::MAX);
        }
        (pointers, strides)
    }

    /// A part of it. The corner moves to even pixels, so that chroma stays with its luma; what
    /// lies beyond the picture is cut off.
    pub fn part(&self, area: Area) -> Self {
        let mut part = *self;
        let x = (area.x & !1).min(self.width.saturating_sub(1) & !1);
        let y = (area.y & !1).min(self.height.saturating_sub(1) & !1);
        part.width = area.width.min(self.width - x);
        part.height = area.height.min(self.height - y);
        let whole = self.format.layout(part.width.max(1), part.height.max(1));
        for (index, plane) in part.planes.iter_mut().enumerate().take(self.format.planes()) {
            let pixel = match (self.format, index) {
                (Format::I420 | Format::Yv12, 0) | (Format::Nv12, _) => 1,
                (Format::P010, _) => 2,
                (Format::I420 | Format::Yv12, _) => 0,
                _ => 4,
            };
            // The planar formats' chroma has half a byte per pixel.
            let x = if pixel == 0 { x / 2 } else { x * pixel };
            let y = if index > 0 { y / 2 } else { y };
            plane.offset += y * plane.stride + x;
            plane.row = whole.planes[index].row;
            plane.rows = whole.planes[index].rows;
        }
        part
    }

    /// Copies a picture of the same format; what doesn't fit stays out.
    pub fn copy_from(&self, source: &View<'_>) {
        for plane in 0..self.format.planes() {
            for row in 0..self.rows(plane).min(source.rows(plane)) {
                let (target, source) = (self.row_mut(plane, row), source.row(plane, row));
                let bytes = target.len().min(source.len());
                target[..bytes].copy_from_slice(&source[..bytes]);
            }
        }
    }
}

/// A picture of the driver's own, between two steps.
#[derive(Debug, Clone)]
pub struct Frame {
    format: Format,
    size: (usize, usize),
    layout: Layout,
    data: Vec<Line>,
}

/// 64 bytes at a multiple of 64, which suits any vector code.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(
    #[allow(dead_code)] // Read through the view only.
    [u8; 64],
);

impl Frame {
    /// A black or transparent picture (all bytes zero).
    pub fn new(format: Format, width: usize, height: usize) -> Self {
        let layout = format.layout(width, height);
        // One line more: vector code may read past the last sample.
        let data = vec![Line([0; 64]); layout.size.div_ceil(64) + 1];
        Self { format, size: (width, height), layout, data }
    }

    /// Its picture.
    pub fn view(&mut self) -> View<'_> {
        let base = NonNull::new(self.data.as_mut_ptr().cast()).unwrap_or(NonNull::dangling());
        // SAFETY: `data` was made as long as the layout and is borrowed for the view's life.
        unsafe { View::new(base, self.format, self.size, self.layout.planes) }
    }
}

/// A surface of libva.
#[derive(Debug)]
pub struct Surface {
    /// Pixel format.
    pub format: Format,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Where the planes are.
    pub layout: Layout,
    /// Which engine had it last; faults at `vaSyncSurface` can be limited to one.
    pub user: Mutex<Option<Engine>>,
    memory: Mapping,
}

impl Surface {
    /// A new surface of zeroes.
    pub fn new(format: Format, width: usize, height: usize) -> Outcome<Self> {
        let layout = format.layout(width, height);
        let memory = Mapping::new(layout.size)?;
        Ok(Self { format, width, height, layout, user: Mutex::new(None), memory })
    }

    /// A surface in memory that the client brought as a file descriptor.
    pub fn import(
        format: Format,
        width: usize,
        height: usize,
        planes: [Plane; 3],
        fd: BorrowedFd<'_>,
    ) -> Outcome<Self> {
        let own = format.layout(width, height);
        let mut layout = Layout { planes: own.planes, size: 0 };
        for (index, plane) in layout.planes.iter_mut().enumerate().take(format.planes()) {
            let Plane { offset, stride, .. } = planes[index];
            if stride < plane.row {
                return Err(Refusal::parameter(format!(
                    "rows of {stride} bytes for {width} pixels"
                )));
            }
            (plane.offset, plane.stride) = (offset, stride);
            let end = offset.saturating_add(stride.saturating_mul(plane.rows));
            layout.size = layout.size.max(end);
        }
        let fd = fd.try_clone_to_owned().map_err(|error| Refusal::memory(error.to_string()))?;
        let memory = Mapping::over(fd, layout.size)?;
        Ok(Self { format, width, height, layout, user: Mutex::new(None), memory })
    }

    /// The picture.
    pub fn view(&self) -> View<'_> {
        // SAFETY: the mapping is as long as the layout says and lives as long as the surface.
        unsafe {
            View::new(
                self.memory.address,
                self.format,
                (self.width, self.height),
                self.layout.planes,
            )
        }
    }

    /// Where the memory is, for clients that map a derived image.
    pub fn address(&self) -> NonNull<u8> {
        self.memory.address
    }

    /// The memory's file, for export; `None` of memory without one.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.memory.fd.as_ref().map(AsFd::as_fd)
    }

    /// Remembers who had it.
    pub fn used_by(&self, engine: Engine) {
        *self.user.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(engine);
    }
}

#[derive(Debug)]
struct Mapping {
    fd: Option<OwnedFd>,
    address: NonNull<u8>,
    length: usize,
}

// SAFETY: an address of shared memory is good in every thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; the mapping itself never changes.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(size: usize) -> Outcome<Self> {
        // SAFETY: the name is NUL-terminated; the result is checked.
        let fd = unsafe { libc::memfd_create(c"softva".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(Refusal::memory("memfd_create failed"));
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let length = size as libc::off_t;
        // SAFETY: a plain system call on a descriptor that is open.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), length) } == 0 {
            return Self::over(fd, size);
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EFBIG) => Self::without_file(size),
            _ => Err(Refusal::memory(format!("no {size} bytes for a surface"))),
        }
    }

    fn without_file(size: usize) -> Outcome<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory at no particular place; checked in `at`.
        let address = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        Self::at(address, size, None)
    }

    fn over(fd: OwnedFd, needed: usize) -> Outcome<Self> {
        // SAFETY: a plain system call on a descriptor that is open.
        let length = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_END) };
        let length = usize::try_from(length).unwrap_or(0);
        if length < needed || length == 0 {
            return Err(Refusal::parameter(format!("{length} bytes where {needed} are needed")));
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping of a file that is at least this long; checked below.
        let address = unsafe {
            libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        Self::at(address, length, Some(fd))
    }

    /// What mmap has given.
    fn at(address: *mut libc::c_void, length: usize, fd: Option<OwnedFd>) -> Outcome<Self> {
        if address == libc::MAP_FAILED {
            return Err(Refusal::memory("mmap failed"));
        }
        let address =
            NonNull::new(address.cast()).ok_or_else(|| Refusal::memory("mmap gave null"))?;
        Ok(Self { fd, address, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody holds a view of it: views borrow the surface.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_sees_what_the_exporter_wrote() {
        let surface = Surface::new(Format::Nv12, 64, 32).expect("memory");
        let file = surface.file().expect("no limit on files");
        let import =
            Surface::import(Format::Nv12, 64, 32, surface.layout.planes, file).expect("import");
        surface.view().row_mut(1, 15).fill(77);
        assert_eq!(import.view().row(1, 15), [77; 64]);
    }

    #[test]
    fn a_short_file_is_refused() {
        let surface = Surface::new(Format::Nv12, 64, 32).expect("memory");
        let layout = Format::Nv12.layout(64, 64);
        let file = surface.file().expect("no limit on files");
        let refused = Surface::import(Format::Nv12, 64, 64, layout.planes, file);
        assert!(refused.is_err());
    }

    #[test]
    fn memory_without_a_file_is_written_and_read() {
        let mut surface = Surface::new(Format::Nv12, 64, 32).expect("memory");
        surface.memory = Mapping::without_file(surface.layout.size).expect("memory");
        surface.view().row_mut(1, 15).fill(77);
        assert_eq!(surface.view().row(1, 15), [77; 64]);
        assert!(surface.file().is_none());
    }

    #[test]
    fn a_part_keeps_chroma_with_its_luma() {
        for format in [Format::Nv12, Format::P010, Format::I420] {
            let mut frame = Frame::new(format, 64, 32);
            let view = frame.view();
            let bytes = format.sample_bytes();
            view.row_mut(0, 10)[20 * bytes] = 9;
            let chroma = if format == Format::I420 { 10 } else { 20 * bytes };
            view.row_mut(1, 5)[chroma] = 8;
            let part = view.part(Area { x: 20, y: 10, width: 100, height: 4 });
            assert_eq!((part.width(), part.height()), (44, 4));
            assert_eq!((part.row(0, 0)[0], part.row(1, 0)[0]), (9, 8));
        }
    }
}
