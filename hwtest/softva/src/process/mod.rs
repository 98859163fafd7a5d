//! Video processing: pictures to pictures.
//!
//! A picture is made by one or more operations, one per `VAProcPipelineParameterBuffer`. Each takes
//! a part of a surface through these steps, of which most operations need one or two:
//!
//! 1. [`deinterlace`]: one field of the source becomes a whole picture;
//! 2. [`scale`]: size and pixel format of the target (for tone mapping: ten bits);
//! 3. [`balance`]: brightness and contrast, on the smaller of the two pictures;
//! 4. [`tonemap`]: HDR10 to SDR;
//! 5. [`orient`]: rotation, then mirroring;
//! 6. [`blend`]: into the target, where the picture is transparent.
//!
//! Transparency of single pixels counts where there is something beneath: in later operations of a
//! picture, or with a blend state. Converting a BGRA picture alone ignores its alpha.

pub mod balance;
pub mod blend;
pub mod deinterlace;
pub mod filter;
pub mod orient;
pub mod scale;
pub mod tonemap;

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::driver::{Driver, lock};
use crate::fault::Work;
use crate::ffmpeg::scaler::Colour;
use crate::ffmpeg::sys;
use crate::format::Format;
use crate::status::{Outcome, Refusal};
use crate::surface::{Area, Frame, Surface, View};
use crate::trace::Engine;
use crate::va::{self, VAProcPipelineParameterBuffer, VARectangle};
use blend::Opacity;
use filter::Filters;

/// One step from a source to the target.
#[derive(Debug)]
struct Operation {
    source: Arc<Surface>,
    from: Option<Area>,
    to: Option<Area>,
    background: u32,
    filters: Filters,
    /// A fault: nothing is done.
    spoilt: bool,
    orientation: orient::Orientation,
    opacity: Option<Opacity>,
    colours: (Option<Colour>, Option<Colour>),
}

/// Processing of one stream of pictures.
#[derive(Debug, Default)]
pub struct Session {
    operations: Vec<Operation>,
    scalers: scale::Cache,
}

impl Session {
    /// A new picture.
    pub fn begin(&mut self) {
        self.operations.clear();
    }

    /// Takes a buffer.
    pub fn render(&mut self, driver: &Driver, buffer: &Buffer) -> Outcome {
        match buffer.kind {
            va::VAProcPipelineParameterBufferType => {
                let operation = Operation::read(driver, &buffer.read(0)?)?;
                self.operations.push(operation);
                Ok(())
            }
            // Filters are named by the operation; handed over alone they mean nothing.
            va::VAProcFilterParameterBufferType => Ok(()),
            other => Err(Refusal::unimplemented(format!("buffer type {other} to process"))),
        }
    }

    /// Makes the picture. Returns a summary for the trace.
    pub fn end(&mut self, target: &Surface) -> Outcome<String> {
        let target = target.view();
        let operations = std::mem::take(&mut self.operations);
        if operations.is_empty() {
            return Err(Refusal::parameter("nothing to make a picture from"));
        }
        let mut summary =
            format!("to {:?} {}x{}", target.format(), target.width(), target.height());
        for (index, operation) in operations.iter().enumerate() {
            summary.push_str(&format!(", {}", operation.summary()));
            operation.run(&mut self.scalers, &target, index)?;
        }
        Ok(summary)
    }
}

/// A rectangle that a client points to.
///
/// # Safety
/// `rectangle` must be null or good.
unsafe fn area(rectangle: *const VARectangle) -> Option<Area> {
    // SAFETY: promised by the caller.
    let rectangle = unsafe { rectangle.as_ref() }?;
    let (x, y) = (usize::try_from(rectangle.x).ok()?, usize::try_from(rectangle.y).ok()?);
    Some(Area { x, y, width: rectangle.width.into(), height: rectangle.height.into() })
}

/// Matrix and range from a colour standard and, where that says "explicit" or nothing, from the
/// code points of ISO 23091-2 (H.264 table E-5).
fn colour(
    standard: va::VAProcColorStandardType,
    properties: &va::VAProcColorProperties,
) -> Option<Colour> {
    let full_range = u32::from(properties.color_range) == va::VA_SOURCE_RANGE_FULL;
    let matrix = match standard {
        va::VAProcColorStandardBT709 => sys::SWS_CS_ITU709,
        va::VAProcColorStandardBT601
        | va::VAProcColorStandardBT470BG
        | va::VAProcColorStandardSMPTE170M => sys::SWS_CS_ITU601,
        va::VAProcColorStandardBT2020 => sys::SWS_CS_BT2020,
        va::VAProcColorStandardSMPTE240M => sys::SWS_CS_SMPTE240M,
        _ => match properties.matrix_coefficients {
            1 => sys::SWS_CS_ITU709,
            5 | 6 => sys::SWS_CS_ITU601,
            7 => sys::SWS_CS_SMPTE240M,
            9 | 10 => sys::SWS_CS_BT2020,
            _ => return None,
        },
    };
    Some(Colour { matrix, full_range })
}

impl Operation {
    /// Reads the parameters and all that they point to, which clients may take away right after.
    fn read(driver: &Driver, parameters: &VAProcPipelineParameterBuffer) -> Outcome<Self> {
        // SAFETY: the client's promise for the duration of vaRenderPicture.
        let (from, to, opacity) = unsafe {
            (
                area(parameters.surface_region),
                area(parameters.output_region),
                parameters.blend_state.as_ref().map(Opacity::of),
            )
        };
        // SAFETY: as above.
        let filters = unsafe { Filters::read(driver, parameters)? };
        let source = driver.surfaces.get(parameters.surface)?;
        let decoded = *lock(&source.user) == Some(Engine::Decode);
        let orientation = orient::Orientation::read(parameters)?;
        let spoilt = [
            (filters.deinterlacing.is_some(), Work::Deinterlace),
            (orientation != orient::Orientation::default(), Work::Turn),
            (filters.tone_mapping.is_some(), Work::ToneMap),
            (decoded, Work::Decoded),
        ]
        .into_iter()
        .any(|(asked, work)| asked && driver.faults.spoils(work));
        let properties = (&parameters.input_color_properties, &parameters.output_color_properties);
        Ok(Self {
            source,
            spoilt,
            from,
            to,
            background: parameters.output_background_color,
            filters,
            orientation,
            opacity,
            colours: (
                colour(parameters.surface_color_standard, properties.0),
                colour(parameters.output_color_standard, properties.1),
            ),
        })
    }

    fn summary(&self) -> String {
        let source = &self.source;
        let mut text = format!("from {:?} {}x{}", source.format, source.width, source.height);
        if let Some(deinterlacing) = &self.filters.deinterlacing {
            text.push_str(&format!(" {deinterlacing}"));
        }
        if self.filters.balance.is_some() {
            text.push_str(" balance");
        }
        if self.filters.tone_mapping.is_some() {
            text.push_str(" tone mapping");
        }
        text
    }

    fn balance(&self, picture: &View<'_>) -> Outcome {
        self.filters.balance.map_or(Ok(()), |balance| balance.run(picture))
    }

    fn run(&self, scalers: &mut scale::Cache, target: &View<'_>, index: usize) -> Outcome {
        if self.spoilt {
            return Ok(());
        }
        let to = self.to.unwrap_or(target.area());
        let place = target.part(to);
        if index == 0 && (place.width(), place.height()) != (target.width(), target.height()) {
            blend::fill(target, self.background);
        }
        let source = self.source.view();
        let mut whole = None;
        let source = match &self.filters.deinterlacing {
            None => source,
            Some(deinterlacing) => {
                let frame = Frame::new(source.format(), source.width(), source.height());
                let frame = whole.insert(frame).view();
                deinterlacing.run(&source, &frame);
                frame
            }
        };
        let source = source.part(self.from.unwrap_or(source.area()));
        let colours = (
            self.colours.0.unwrap_or(Colour::assumed(source.height())),
            self.colours.1.unwrap_or(Colour::assumed(target.height())),
        );
        let alpha = source.format().has_alpha() && (index > 0 || self.opacity.is_some());
        let opacity = self.opacity.unwrap_or_default();
        let blends = alpha || opacity.global < 1.0;
        let direct = !blends
            && self.filters.balance.is_none()
            && self.filters.tone_mapping.is_none()
            && self.orientation == orient::Orientation::default();
        if direct {
            return scalers.scale(&source, &place, colours);
        }

        let turned = self.orientation.size(place.width(), place.height());
        // What carries transparency stays RGB until it is blended.
        let format = if alpha { Format::Bgra } else { place.format() };
        let mut frame = match &self.filters.tone_mapping {
            None => {
                let mut frame = Frame::new(format, turned.0, turned.1);
                scalers.scale(&source, &frame.view(), colours)?;
                self.balance(&frame.view())?;
                frame
            }
            Some(tone_mapping) => {
                let mut ten = Frame::new(Format::P010, turned.0, turned.1);
                scalers.scale(&source, &ten.view(), colours)?;
                self.balance(&ten.view())?;
                tone_mapping.run(&ten.view());
                if format == Format::P010 {
                    ten
                } else {
                    let mut frame = Frame::new(format, turned.0, turned.1);
                    let mapped = Colour { matrix: sys::SWS_CS_ITU709, full_range: false };
                    scalers.scale(&ten.view(), &frame.view(), (mapped, colours.1))?;
                    frame
                }
            }
        };
        if self.orientation != orient::Orientation::default() {
            frame = self.orientation.run(&frame.view(), place.width(), place.height());
        }
        if !blends {
            place.copy_from(&frame.view());
            return Ok(());
        }
        if !alpha {
            blend::uniform(&frame.view(), &place, opacity.global);
            return Ok(());
        }
        blend::prepare(&frame.view(), opacity);
        let mut colour = Frame::new(place.format(), place.width(), place.height());
        scalers.scale(&frame.view(), &colour.view(), colours)?;
        blend::layer(&colour.view(), &frame.view(), &place);
        Ok(())
    }
}
