//! Scaling and conversion, with the scalers kept for the next picture.

use crate::ffmpeg::scaler::{Colour, Job, Scaler};
use crate::status::Outcome;
use crate::surface::View;

/// Jobs that one stream of pictures has at a time; a compositor has a few per input.
const KEPT: usize = 16;

/// Scalers of a session, the latest last.
#[derive(Debug, Default)]
pub struct Cache {
    scalers: Vec<Scaler>,
}

impl Cache {
    /// Brings a picture to the size and format of another one.
    pub fn scale(
        &mut self,
        source: &View<'_>,
        target: &View<'_>,
        colours: (Colour, Colour),
    ) -> Outcome {
        let same = (source.width(), source.height()) == (target.width(), target.height());
        let ranges = colours.0.full_range == colours.1.full_range;
        if same && source.format() == target.format() && ranges {
            target.copy_from(source);
            return Ok(());
        }
        let job = Job {
            source: (source.format(), source.width(), source.height(), colours.0),
            target: (target.format(), target.width(), target.height(), colours.1),
        };
        let mut scaler = match self.scalers.iter().position(|scaler| scaler.job() == job) {
            Some(index) => self.scalers.remove(index),
            None => Scaler::new(job)?,
        };
        let done = scaler.scale(source, target);
        if self.scalers.len() >= KEPT {
            self.scalers.remove(0);
        }
        self.scalers.push(scaler);
        done
    }
}

/// For a picture that isn't one of many.
pub fn once(source: &View<'_>, target: &View<'_>) -> Outcome {
    let colour = Colour::assumed(source.height());
    Cache::default().scale(source, target, (colour, colour))
}
