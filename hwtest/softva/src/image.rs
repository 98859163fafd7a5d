//! Images: pictures that a client reads and writes, its own or a surface's memory.

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::driver::Driver;
use crate::format::{self, Format, Layout};
use crate::status::{Outcome, Refusal};
use crate::surface::{Area, Surface, View};
use crate::va::{self, VAImage, VAImageID};

/// An image and the buffer with its pixels.
#[derive(Debug)]
pub struct Image {
    /// Pixel format.
    pub format: Format,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Where the planes are.
    pub layout: Layout,
    /// Id of the buffer.
    pub buffer: u32,
}

impl Image {
    /// The pixels, in a buffer that the caller holds locked.
    fn view<'a>(&self, buffer: &'a mut Buffer) -> Outcome<View<'a>> {
        let size = buffer.element * buffer.count;
        let base = std::ptr::NonNull::new(buffer.map().cast());
        let base = base.filter(|_| size >= self.layout.size);
        let base = base.ok_or_else(|| Refusal::parameter("an image without its memory"))?;
        // SAFETY: the buffer is at least as long as the layout and borrowed for the view's life.
        Ok(unsafe { View::new(base, self.format, (self.width, self.height), self.layout.planes) })
    }
}

/// A new image with memory of its own.
pub fn create(driver: &Driver, fourcc: u32, width: usize, height: usize) -> Outcome<VAImage> {
    let format = Format::from_fourcc(fourcc).ok_or_else(|| {
        Refusal::new(va::VA_STATUS_ERROR_INVALID_IMAGE_FORMAT, format!("image format {fourcc:#x}"))
    })?;
    let layout = format.layout(width, height);
    let buffer = Buffer::of_image(layout.size);
    Ok(publish(driver, format, (width, height), layout, buffer))
}

/// An image that is a surface's memory.
pub fn derive(driver: &Driver, surface: Arc<Surface>) -> VAImage {
    let (format, layout) = (surface.format, surface.layout);
    let size = (surface.width, surface.height);
    publish(driver, format, size, layout, Buffer::of_surface(surface))
}

fn publish(
    driver: &Driver,
    format: Format,
    size: (usize, usize),
    layout: Layout,
    buffer: Buffer,
) -> VAImage {
    let buffer = driver.buffers.add(buffer.into());
    let id = driver.images.add(Image { format, width: size.0, height: size.1, layout, buffer });
    // SAFETY: a plain C struct of numbers, for which zeroes are a value.
    let mut image: VAImage = unsafe { std::mem::zeroed() };
    image.image_id = id;
    image.format = format.image_format();
    image.buf = buffer;
    // Sizes come from C's int and unsigned short and fit their fields again.
    (image.width, image.height) = (size.0 as u16, size.1 as u16);
    image.data_size = layout.size as u32;
    image.num_planes = format.planes() as u32;
    for plane in 0..format.planes() {
        image.pitches[plane] = layout.planes[plane].stride as u32;
        image.offsets[plane] = layout.planes[plane].offset as u32;
    }
    image
}

/// Forgets an image and its buffer.
pub fn destroy(driver: &Driver, id: VAImageID) -> Outcome {
    let image = driver.images.remove(id)?;
    driver.buffers.remove(image.buffer).map(drop)
}

/// Copies a part of a surface to the top left of an image, converting the format if they differ.
pub fn get(driver: &Driver, surface: &Surface, area: Area, image: VAImageID) -> Outcome {
    let image = driver.images.get(image)?;
    let buffer = driver.buffers.get(image.buffer)?;
    let mut buffer = crate::driver::lock(&buffer);
    let target = image.view(&mut buffer)?;
    let source = surface.view().part(area);
    convert(&source, &target)
}

/// Copies a part of an image to a place of a surface, scaling and converting if they differ.
pub fn put(driver: &Driver, image: VAImageID, from: Area, surface: &Surface, to: Area) -> Outcome {
    let image = driver.images.get(image)?;
    let buffer = driver.buffers.get(image.buffer)?;
    let mut buffer = crate::driver::lock(&buffer);
    let source = image.view(&mut buffer)?.part(from);
    let target = surface.view().part(to);
    if (from.width, from.height) == (to.width, to.height) {
        return convert(&source, &target);
    }
    crate::process::scale::once(&source, &target)
}

fn convert(source: &View<'_>, target: &View<'_>) -> Outcome {
    let size = (source.width().min(target.width()), source.height().min(target.height()));
    let area = Area { x: 0, y: 0, width: size.0, height: size.1 };
    let (source, target) = (source.part(area), target.part(area));
    if source.format() == target.format() {
        target.copy_from(&source);
        return Ok(());
    }
    crate::process::scale::once(&source, &target)
}

/// The formats that images can have.
pub fn formats() -> Vec<va::VAImageFormat> {
    format::ALL.into_iter().map(Format::image_format).collect()
}
