//! The descriptors of a job, each in its place.

use std::os::fd::OwnedFd;

use ffmpeg_args::{Need, Transcode};
use session::{Ending, Fault};

use crate::writer::failed;

/// What a plan needs, open.
#[derive(Debug)]
pub struct Opened {
    /// One for each input.
    pub inputs: Vec<Bytes>,
    /// The file of text subtitles.
    pub subtitles: Option<OwnedFd>,
    /// Fonts for them.
    pub fonts: Option<OwnedFd>,
    /// The directory that is written to.
    pub output: OwnedFd,
}

/// Where an input's bytes come from.
#[derive(Debug)]
pub enum Bytes {
    /// Files, read as if they were one. At least one.
    Files(Vec<OwnedFd>),
    /// A pipe, read once.
    Pipe(OwnedFd),
}

impl Opened {
    /// Gives descriptors their meaning: they come in the order of [`Transcode::needs`].
    ///
    /// # Errors
    /// If there are more or fewer.
    pub fn sort(plan: &Transcode, descriptors: Vec<OwnedFd>) -> Result<Self, Ending> {
        let needs = plan.needs();
        let wrong = || {
            let reason = format!("expected {} descriptors for the plan", needs.len());
            failed(reason, Fault::Gateway)
        };
        if needs.len() != descriptors.len() {
            return Err(wrong());
        }
        let (mut inputs, mut subtitles, mut fonts, mut output) = (Vec::new(), None, None, None);
        for (need, descriptor) in needs.iter().zip(descriptors) {
            match need {
                Need::Input { input, .. } => match inputs.get_mut(*input) {
                    Some(Bytes::Files(files)) => files.push(descriptor),
                    _ => inputs.push(Bytes::Files(vec![descriptor])),
                },
                Need::Network { .. } => inputs.push(Bytes::Pipe(descriptor)),
                Need::Subtitles(_) => subtitles = Some(descriptor),
                Need::Fonts(_) => fonts = Some(descriptor),
                Need::Output(_) => output = Some(descriptor),
            }
        }
        let output = output.ok_or_else(wrong)?;
        Ok(Self { inputs, subtitles, fonts, output })
    }
}
