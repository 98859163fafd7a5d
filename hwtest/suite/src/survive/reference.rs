//! What a job writes if nobody disturbs it, once for each place where it begins and each backend.
//!
//! The same command goes to two gateways: the one under test, and one that is told to use no GPU. That
//! makes the same plan of it and runs it as the first does when no GPU is to be had.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use benches::job as call;
use benches::stack::{Admission, Stack};

use super::backend::{Backend, told};
use super::jobs::Job;
use super::judge::{Media, Part};
use super::{IN_SOFTWARE, command, fresh, works};

/// A job's name, the segment from which it runs, and where.
type Place = (&'static str, u64, Backend);

/// Undisturbed runs so far.
#[derive(Debug)]
pub(super) struct References {
    folder: PathBuf,
    binaries: PathBuf,
    /// The gateway under test has a GPU.
    has_gpu: bool,
    /// A gateway beside it that uses none, once one was needed.
    in_software: Option<Stack>,
    /// Folders with what was written.
    written: HashMap<Place, PathBuf>,
    /// As shown with an init file, whose bytes they are; empty if there is none.
    known: HashMap<(Place, Vec<u8>), Media>,
}

impl References {
    pub(super) fn new(folder: PathBuf, binaries: PathBuf, has_gpu: bool) -> Self {
        let (written, known) = (HashMap::new(), HashMap::new());
        Self { folder, binaries, has_gpu, in_software: None, written, known }
    }

    /// What there is to expect of the job from this segment on, by a viewer who holds this init file.
    ///
    /// # Errors
    /// If the run fails, or is faulty by itself.
    pub(super) fn of(
        &mut self,
        stack: &Stack,
        job: &Job,
        (start, backend): (u64, Backend),
        init: Option<&[u8]>,
    ) -> Result<&Media> {
        let folder = self.written(stack, job, (start, backend))?;
        let key = ((job.name, start, backend), init.unwrap_or_default().to_owned());
        if !self.known.contains_key(&key) {
            let shown = folder.join("shown");
            fresh(&shown)?;
            let command = command(job, &shown);
            for entry in fs::read_dir(&folder)? {
                let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
                if name.to_string_lossy().ends_with(&command.extension) {
                    fs::hard_link(path, shown.join(name))?;
                }
            }
            if let Some(init) = init {
                let path = command.segment(-1);
                // Another file under its name: the one that is linked there is the reference's own.
                fs::remove_file(&path)?;
                fs::write(path, init)?;
            }
            let media = Media::read(&command, &command.at(start, job.runtime), &shown)?;
            self.known.insert(key.clone(), media);
        }
        Ok(&self.known[&key])
    }

    /// The init file that the job writes, if it has one.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(super) fn init(
        &mut self,
        stack: &Stack,
        job: &Job,
        place: (u64, Backend),
    ) -> Result<Option<Vec<u8>>> {
        let folder = self.written(stack, job, place)?;
        let command = command(job, &folder);
        Ok(if command.has_init { Some(fs::read(command.segment(-1))?) } else { None })
    }

    fn written(
        &mut self,
        stack: &Stack,
        job: &Job,
        (start, backend): (u64, Backend),
    ) -> Result<PathBuf> {
        let place = (job.name, start, backend);
        if let Some(folder) = self.written.get(&place) {
            return Ok(folder.clone());
        }
        let what = format!("{} from segment {start}, undisturbed, on {backend}", job.name);
        let name = if backend == Backend::Gpu { "gpu" } else { "software" };
        let folder = self.folder.join(format!("{}-{start}-{name}", job.name));
        let stack = self.stack(stack, backend).with_context(|| what.clone())?;
        run(stack, job, (start, backend), &folder).with_context(|| what)?;
        self.written.insert(place, folder.clone());
        Ok(folder)
    }

    /// The gateway that runs a job there.
    fn stack<'a>(&'a mut self, main: &'a Stack, backend: Backend) -> Result<&'a Stack> {
        if backend == Backend::Gpu || !self.has_gpu {
            if self.has_gpu {
                works(main)?;
            }
            return Ok(main);
        }
        if self.in_software.is_none() {
            let folder = self.folder.join("gateway");
            let stack = Stack::start_with(&self.binaries, &folder, IN_SOFTWARE, Admission::Off)?;
            self.in_software = Some(stack);
        }
        self.in_software.as_ref().context("it was started")
    }
}

/// Runs a job, and looks at what it has written by itself.
fn run(stack: &Stack, job: &Job, (start, backend): (u64, Backend), folder: &Path) -> Result<()> {
    fresh(folder)?;
    let command = command(job, folder);
    let words = command.at(start, job.runtime);
    let mut hook = call::spawn(&stack.hook()?, &words, Some(stack))?;
    // Open until it has ended: Jellyfin's is.
    let stdin = hook.stdin.take();
    let output = hook.wait_with_output()?;
    drop(stdin);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}:\n{said}", output.status);
    ensure!(told(said.lines()) == Some(backend), "it ran elsewhere:\n{said}");
    let media = Media::read(&command, &words, folder)?;
    ensure!(media.said.is_empty(), "ffmpeg says: {}", media.said.join("; "));
    ensure!(media.sound_gaps.is_empty(), "gaps: {:?}", media.sound_gaps);
    let numbers: Vec<u64> = media.parts.iter().flat_map(Part::numbers).collect();
    let rising = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    ensure!(rising, "pictures aren't the film's: {numbers:?}");
    Ok(())
}
