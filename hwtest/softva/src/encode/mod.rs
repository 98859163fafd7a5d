//! Encoding: one picture in, one coded buffer out, with libx264 or libx265 doing the work.
//!
//! The client decides what each picture is: an IDR with parameter sets, or predicted from what
//! came before. The encoder adds neither key frames nor B-frames of its own and writes its own
//! parameter sets; packed headers aren't offered.
//!
//! Differences from hardware that clients can see:
//! - an intra picture that is no IDR is coded as a predicted one in H.264, because libavcodec
//!   can't ask libx264 for it. What matters of it stays: decoding can't start there;
//! - in constant quantiser mode the quantiser of predicted pictures is taken over at an IDR: the
//!   first group of pictures has that of its IDR throughout;
//! - HEVC takes new rates over at an IDR, H.264 at once.

pub mod h264;
pub mod h265;
pub mod rate;

use crate::account;
use crate::buffer::{Buffer, read_at};
use crate::caps::Codec;
use crate::driver::{Config, Driver, lock};
use crate::ffmpeg::encoder::{Encoder, Kind, Settings};
use crate::status::{Outcome, Refusal};
use crate::surface::{Area, Surface};
use crate::trace::{self, Engine};
use crate::va;
use rate::Rates;

/// What a client says about a picture, whatever the codec.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    /// The buffer for the coded picture.
    pub coded: u32,
    /// What it is to be.
    pub kind: Kind,
    /// Quantiser of the picture, without its slices' differences.
    pub quantiser: i32,
}

/// What a client says about a slice.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// Without reference lists.
    pub intra: bool,
    /// Added to the picture's quantiser.
    pub quantiser_delta: i32,
}

/// What the codecs have of their own.
#[derive(Debug, Clone)]
enum Syntax {
    H264(h264::Parameters),
    H265(h265::Parameters),
}

/// Encoding of one stream.
#[derive(Debug)]
pub struct Session {
    syntax: Syntax,
    size: (usize, usize),
    rates: Rates,
    encoder: Option<Encoder>,
    picture: Option<Picture>,
    slices: Vec<Slice>,
    /// Quantisers of intra and predicted pictures seen so far.
    quantisers: (Option<i32>, Option<i32>),
}

impl Session {
    /// For pictures of this size.
    pub fn new(config: &Config, width: usize, height: usize) -> Self {
        let syntax = match config.capability.codec {
            Codec::H265 => Syntax::H265(h265::Parameters::default()),
            _ => Syntax::H264(h264::Parameters::new(config.capability.profile)),
        };
        Self {
            syntax,
            size: (width, height),
            rates: Rates::new(config.rate_control),
            encoder: None,
            picture: None,
            slices: Vec::new(),
            quantisers: (None, None),
        }
    }

    /// A new picture.
    pub fn begin(&mut self) {
        self.picture = None;
        self.slices.clear();
    }

    /// Takes a buffer.
    pub fn render(&mut self, buffer: &Buffer) -> Outcome {
        match buffer.kind {
            va::VAEncSequenceParameterBufferType => match &mut self.syntax {
                Syntax::H264(parameters) => parameters.sequence(buffer, &mut self.rates),
                Syntax::H265(parameters) => parameters.sequence(buffer, &mut self.rates),
            },
            va::VAEncPictureParameterBufferType => {
                let picture = match &mut self.syntax {
                    Syntax::H264(parameters) => parameters.picture(buffer)?,
                    Syntax::H265(parameters) => parameters.picture(buffer)?,
                };
                self.picture = Some(picture);
                Ok(())
            }
            va::VAEncSliceParameterBufferType => {
                for index in 0..buffer.count {
                    self.slices.push(match &self.syntax {
                        Syntax::H264(_) => h264::slice(buffer, index)?,
                        Syntax::H265(_) => h265::slice(buffer, index)?,
                    });
                }
                Ok(())
            }
            va::VAEncMiscParameterBufferType => {
                let kind: va::VAEncMiscParameterType = read_at(buffer.bytes(), 0)?;
                self.rates.take(kind, &buffer.bytes()[size_of_val(&kind)..])
            }
            // The encoder writes its own headers, and takes over what nothing else tells.
            va::VAEncPackedHeaderDataBufferType => match &mut self.syntax {
                Syntax::H264(_) => Ok(()),
                Syntax::H265(parameters) => parameters.packed(buffer.bytes()),
            },
            va::VAEncPackedHeaderParameterBufferType => Ok(()),
            other => Err(Refusal::unimplemented(format!("buffer type {other} to encode"))),
        }
    }

    /// Encodes the surface into the coded buffer. Returns a summary for the trace.
    pub fn end(&mut self, driver: &Driver, surface: &Surface) -> Outcome<String> {
        let picture = self.picture.ok_or_else(|| Refusal::parameter("no picture parameters"))?;
        let kind = self.kind(picture);
        self.note_quantiser(picture, kind);
        let settings = self.settings(surface);
        self.open(&settings, kind)?;
        let encoder = self.encoder.as_mut().ok_or_else(|| Refusal::encoding("no encoder"))?;
        let visible = Area { x: 0, y: 0, width: settings.width, height: settings.height };
        let view = surface.view().part(visible);
        if view.format() != encoder.settings().format {
            return Err(Refusal::parameter(format!("a {:?} surface to encode", view.format())));
        }
        let coded = encoder.encode(&view, kind)?;
        let helpers = encoder.helpers.since_last();
        account::add(Engine::Encode, helpers, 0);
        lock(&*driver.buffer(picture.coded)?).store_coded(&coded)?;
        Ok(format!("{kind:?} {} bytes, {} slices", coded.len(), self.slices.len()))
    }

    /// What the picture is: slices know better than the picture whether there are references.
    fn kind(&self, picture: Picture) -> Kind {
        match picture.kind {
            Kind::Idr => Kind::Idr,
            _ if self.slices.is_empty() => picture.kind,
            _ if self.slices.iter().any(|slice| !slice.intra) => Kind::Predicted,
            _ if matches!(self.syntax, Syntax::H264(_)) => Kind::Predicted,
            _ => Kind::Intra,
        }
    }

    fn note_quantiser(&mut self, picture: Picture, kind: Kind) {
        let delta = self.slices.first().map_or(0, |slice| slice.quantiser_delta);
        let quantiser = Some(picture.quantiser + delta);
        match kind {
            Kind::Predicted => self.quantisers.1 = quantiser,
            _ => self.quantisers.0 = quantiser,
        }
    }

    fn settings(&self, surface: &Surface) -> Settings {
        let visible = match &self.syntax {
            Syntax::H264(parameters) => parameters.visible(),
            Syntax::H265(_) => None,
        };
        let (width, height) = visible.unwrap_or(self.size);
        let intra = self.quantisers.0.unwrap_or(26);
        let predicted = self.quantisers.1.unwrap_or(intra);
        let mut settings = Settings {
            encoder: "",
            format: surface.format,
            width: width.min(surface.width),
            height: height.min(surface.height),
            frame_rate: self.rates.frame_rate(),
            bit_rate: self.rates.average(),
            maximum_rate: self.rates.maximum(),
            buffer_size: self.rates.buffer_size(),
            references: 1,
            slices: u32::try_from(self.slices.len()).unwrap_or(1).max(1),
            options: Vec::new(),
        };
        match &self.syntax {
            Syntax::H264(own) => own.configure(&mut settings, &self.rates, (intra, predicted)),
            Syntax::H265(own) => own.configure(&mut settings, &self.rates, (intra, predicted)),
        }
        settings
    }

    /// Opens the encoder, or has it follow changed settings: at an IDR all of them, between two
    /// what can be changed at work.
    fn open(&mut self, settings: &Settings, kind: Kind) -> Outcome {
        if let Some(encoder) = &mut self.encoder {
            let current = encoder.settings();
            if current == settings {
                return Ok(());
            }
            let same = Settings {
                bit_rate: settings.bit_rate,
                maximum_rate: settings.maximum_rate,
                buffer_size: settings.buffer_size,
                ..current.clone()
            };
            let live = matches!(self.syntax, Syntax::H264(_));
            if live && (same == *settings || kind != Kind::Idr) {
                let Settings { bit_rate, maximum_rate, buffer_size, .. } = same;
                if (bit_rate > 0) == (current.bit_rate > 0) {
                    encoder.set_rates(bit_rate, maximum_rate, buffer_size);
                    return Ok(());
                }
            }
            if kind != Kind::Idr {
                return Ok(());
            }
        }
        // The old one's threads end before the new one's are counted.
        self.encoder = None;
        let encoder = Encoder::new(settings)?;
        trace::line(format_args!(
            "{} opened, {} threads of its own: {settings:?}",
            settings.encoder,
            encoder.helpers.len()
        ));
        self.encoder = Some(encoder);
        Ok(())
    }
}
