//! What a job writes if nobody disturbs it, once for each place where it begins.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use benches::job as call;
use benches::stack::Stack;

use super::jobs::Job;
use super::judge::{Media, Part};
use super::{command, fresh};

/// Undisturbed runs so far.
#[derive(Debug)]
pub(super) struct References {
    folder: PathBuf,
    known: HashMap<(&'static str, u64), Media>,
}

impl References {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, known: HashMap::new() }
    }

    /// What there is to expect of the job from this segment on.
    ///
    /// # Errors
    /// If the run fails, or is faulty by itself.
    pub(super) fn of(&mut self, stack: &Stack, job: &Job, start: u64) -> Result<&Media> {
        let key = (job.name, start);
        if !self.known.contains_key(&key) {
            let what = format!("{} from segment {start}, undisturbed", job.name);
            let media = self.run(stack, job, start).with_context(|| what.clone())?;
            self.known.insert(key, media);
        }
        Ok(&self.known[&key])
    }

    fn run(&self, stack: &Stack, job: &Job, start: u64) -> Result<Media> {
        let folder = self.folder.join(format!("{}-{start}", job.name));
        fresh(&folder)?;
        let command = command(job, &folder);
        let words = command.at(start, job.runtime);
        call::run(&stack.hook()?, &words, Some(stack))?;
        let media = Media::read(&command, &words, &folder)?;
        ensure!(media.said.is_empty(), "ffmpeg says: {}", media.said.join("; "));
        ensure!(media.sound_gaps.is_empty(), "gaps: {:?}", media.sound_gaps);
        let numbers: Vec<u64> = media.parts.iter().flat_map(Part::numbers).collect();
        let rising = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
        ensure!(rising, "pictures aren't the film's: {numbers:?}");
        Ok(media)
    }
}
