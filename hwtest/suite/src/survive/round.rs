//! Six viewers at once, workers that are killed meanwhile, and what came of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use benches::load::viewing::Viewing;
use benches::play::settings;
use benches::random::Random;
use benches::stack::{Stack, pause};
use jellyfin_sim::{Pace, Report, Server, play as watch};

use super::backend::{Backend, begun};
use super::jobs::Job;
use super::judge::{Media, Stretch, stretches};
use super::killer::{Kill, Wanted, kill};
use super::reference::References;
use super::{MOST_TOLD, Tally, command, fresh};

/// Between one viewer and the next, milliseconds.
const STAGGER: u64 = 300;

/// A round that was.
#[derive(Debug)]
pub(super) struct Round<'a> {
    place: &'a Path,
    viewers: Vec<(&'a Job, Report)>,
    kills: Vec<Kill>,
}

/// Plays the jobs to their ends.
pub(super) fn play<'a>(
    stack: &Stack,
    jobs: &'a [Job],
    place: &'a Path,
    wanted: Wanted,
    random: &mut Random,
) -> Result<Round<'a>> {
    let mut viewers: Vec<JoinHandle<Report>> = Vec::new();
    for job in jobs {
        let (directory, kept) = folders(place, job);
        fresh(&directory)?;
        fresh(&kept)?;
        // A hook that fell back would be a stream that nobody judges: the search ends at a program
        // that fails.
        let mut settings = settings(Some(stack), Path::new(""), 0)?;
        settings.runtime = job.runtime;
        settings.keep = Some(kept);
        settings.environment.push(("RENDERGATE_FFMPEG".into(), "/bin/false".into()));
        settings.environment.push(("RENDERGATE_ACCEPT_TIMEOUT_MS".into(), "60000".into()));
        let server = Server::new(settings, command(job, &directory))?;
        let script = job.script();
        viewers.push(std::thread::spawn(move || watch(server, &script, Pace::Fast)));
        pause(STAGGER);
    }
    let over = || viewers.iter().all(JoinHandle::is_finished);
    let kills = kill(stack, wanted, random, over);
    let reports = viewers
        .into_iter()
        .zip(jobs)
        .map(|(viewer, job)| Ok((job, viewer.join().ok().context("a viewer panicked")?)))
        .collect::<Result<_>>()?;
    let round = Round { place, viewers: reports, kills };
    round.write_down()?;
    Ok(round)
}

/// Where a job's transcodes go, and copies of what was served.
fn folders(place: &Path, job: &Job) -> (PathBuf, PathBuf) {
    let folder = place.join(job.name);
    (folder.join("transcodes"), folder.join("served"))
}

impl Round<'_> {
    /// For whoever looks for a fault's cause.
    fn write_down(&self) -> Result<()> {
        fs::write(self.place.join("kills.json"), serde_json::to_string_pretty(&self.kills)?)?;
        for (job, report) in &self.viewers {
            let path = self.place.join(job.name).join("report.json");
            fs::write(path, serde_json::to_string_pretty(report)?)?;
        }
        Ok(())
    }

    /// Judges what every viewer got.
    ///
    /// # Errors
    /// If there is nothing to compare with.
    pub(super) fn judge(&self, stack: &Stack, references: &mut References) -> Result<Tally> {
        let on_gpu = self.kills.iter().filter(|kill| kill.backend != "software").count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut tally = Tally {
            kills_on_gpu: count(on_gpu),
            kills_in_software: count(self.kills.len() - on_gpu),
            ..Tally::default()
        };
        for (job, report) in &self.viewers {
            let (directory, _) = folders(self.place, job);
            let of_job = |kill: &&Kill| Path::new(&kill.output).starts_with(&directory);
            tally.by_viewer.insert(job.name, count(self.kills.iter().filter(of_job).count()));
            let found = self.judge_viewer(stack, references, (job, report))?;
            tally.add(found);
        }
        Ok(tally)
    }

    fn judge_viewer(
        &self,
        stack: &Stack,
        references: &mut References,
        (job, report): (&Job, &Report),
    ) -> Result<Tally> {
        let (_, kept) = folders(self.place, job);
        let mut faults: Vec<String> =
            report.faults.iter().map(|fault| format!("{:?}: {}", fault.kind, fault.text)).collect();
        let end = report.segments.last().map_or(0.0, |served| served.served);
        let stalls = Viewing::of(report, end).standstills;
        let longest = |all: &mut dyn Iterator<Item = f64>| all.fold(0.0, f64::max);
        let mut backends: Vec<Vec<Backend>> =
            report.runs.iter().map(|run| begun(run, &self.kills)).collect();
        let mut tally = Tally {
            viewers: 1,
            runs: report.runs.len(),
            runs_on_gpu: backends
                .iter()
                .filter(|begun| begun.first() == Some(&Backend::Gpu))
                .count(),
            longest_wait: longest(&mut report.segments.iter().map(|s| s.served - s.requested)),
            longest_standstill: longest(
                &mut stalls
                    .iter()
                    .filter(|still| !still.beginning)
                    .map(|still| still.to - still.from),
            ),
            ..Tally::default()
        };
        let (stretches, init) = stretches(report, &kept);
        let last = (job.runtime * 1000.0) as u64 / job.command.segment_ms - 1;
        let seen = stretches.last().and_then(|stretch| Some(stretch.segments.last()?.0));
        if seen != i64::try_from(last).ok() {
            faults.push(format!("the film was seen up to segment {seen:?}, it has {last}"));
        }
        let init = match init {
            None => None,
            Some((run, path)) => {
                let bytes = fs::read(path)?;
                let start = report.runs.get(run).map_or(0, |run| run.start_number);
                let backends = backends.get(run).map_or(&[][..], Vec::as_slice);
                if !is_init(&bytes, stack, references, job, (start, backends))? {
                    faults.push(format!(
                        "its init file isn't that of an undisturbed run from {start}"
                    ));
                }
                Some(bytes)
            }
        };
        for (index, stretch) in stretches.iter().enumerate() {
            let folder = self.place.join(job.name).join(format!("stretch-{index}"));
            let start = report.runs.get(stretch.run).map_or(0, |run| run.start_number);
            match read(job, stretch, init.as_deref(), &folder, start) {
                Ok(media) => {
                    tally.segments += media.parts.len();
                    tally.frames += media.frames();
                    let Some(backends) = backends.get_mut(stretch.run) else { continue };
                    let told = differs(
                        &media,
                        stack,
                        references,
                        job,
                        (start, backends),
                        init.as_deref(),
                    )?;
                    faults.extend(told.into_iter().map(|why| format!("run from {start}, {why}")));
                }
                Err(error) => faults.push(format!("run from {start}: {error:#}")),
            }
        }
        let place = self.place.join(job.name);
        let more = faults.len().saturating_sub(MOST_TOLD);
        faults.truncate(MOST_TOLD);
        if more > 0 {
            faults.push(format!("and {more} more"));
        }
        let named = |why| format!("{}: {why} [{}]", job.name, place.display());
        tally.faults = faults.into_iter().map(named).collect();
        Ok(tally)
    }
}

/// Whether an init file is, to the byte, what an undisturbed run on one of these backends writes.
fn is_init(
    bytes: &[u8],
    stack: &Stack,
    references: &mut References,
    job: &Job,
    (start, backends): (u64, &[Backend]),
) -> Result<bool> {
    for backend in backends {
        if references.init(stack, job, (start, *backend))?.as_deref() == Some(bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is wrong with a run's segments, on whichever of these backends it began. If one matches, it is the
/// only one that is left: what else the run has written has to match the same.
fn differs(
    media: &Media,
    stack: &Stack,
    references: &mut References,
    job: &Job,
    (start, backends): (u64, &mut Vec<Backend>),
    init: Option<&[u8]>,
) -> Result<Vec<String>> {
    if backends.is_empty() {
        return Ok(vec!["of which nobody says on which backend it began".to_owned()]);
    }
    let mut told = Vec::new();
    for backend in backends.clone() {
        let faults = media.faults(references.of(stack, job, (start, backend), init)?);
        if faults.is_empty() {
            *backends = vec![backend];
            return Ok(Vec::new());
        }
        told.extend(faults.into_iter().map(|why| format!("begun on {backend}: {why}")));
    }
    Ok(told)
}

/// The segments of a stretch under their names, behind the init file that the viewer has.
fn read(
    job: &Job,
    stretch: &Stretch,
    init: Option<&[u8]>,
    folder: &Path,
    start: u64,
) -> Result<Media> {
    fresh(folder)?;
    let command = command(job, folder);
    if command.has_init {
        fs::write(command.segment(-1), init.context("no init file was served")?)?;
    }
    for (number, path) in &stretch.segments {
        fs::copy(path, command.segment(*number))?;
    }
    Media::read(&command, &command.at(start, job.runtime), folder)
}
