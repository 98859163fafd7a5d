//! Jellyfin's side of a play session: jobs, the segment request algorithm, and what it would have
//! sent to the viewer (contract 4).

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::command::CommandLine;
use crate::job::{Exit, Job};
use crate::let_pass;
use crate::report::{Appeared, Fault, FaultKind, Report, Run, Served};
use crate::watch::{Change, Watch};

/// A gap of so many seconds to the newest segment makes Jellyfin start anew.
const GAP_SECONDS: u64 = 24;
/// Time between two looks of the throttler.
const THROTTLE_EVERY: f64 = 5.0;
/// The throttler never pauses a transcode that is less ahead.
const LEAST_THROTTLE: Duration = Duration::from_secs(60);
/// Jellyfin deletes a session's files so long after the stop.
const DELETE_DELAY: Duration = Duration::from_millis(1500);
/// A playlist counts a last segment for any remainder; one this short may have no frame in it.
const NEGLIGIBLE_MS: u64 = 500;

/// How a session is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The executable under test.
    pub ffmpeg: PathBuf,
    /// Jellyfin's poll while it waits.
    pub poll: Duration,
    /// How often is looked to note when a segment became servable. Decides nothing.
    pub look: Duration,
    /// When a request is given up. Jellyfin itself waits until the client leaves.
    pub patience: Duration,
    /// Start with nice +10.
    pub nice: bool,
    /// How far ahead of what was served a transcode is paused (contract 3, Throttling); a minute at
    /// least. Jellyfin has it off unless asked for, and then three minutes.
    pub throttle: Option<Duration>,
    /// Duration of the media in seconds.
    pub runtime: f64,
    /// Where a copy of everything that is served is kept, as it was then: under its place in
    /// [`Report::segments`]. The folder is there.
    pub keep: Option<PathBuf>,
    /// Variables set for the executable, beside those of this process.
    pub environment: Vec<(String, OsString)>,
}

impl Settings {
    /// Jellyfin's own numbers.
    pub fn new(ffmpeg: impl Into<PathBuf>, runtime: f64) -> Self {
        Self {
            ffmpeg: ffmpeg.into(),
            poll: Duration::from_millis(100),
            look: Duration::from_millis(2),
            patience: Duration::from_secs(120),
            nice: false,
            throttle: None,
            keep: None,
            runtime,
            environment: Vec::new(),
        }
    }
}

/// One play session.
pub struct Server {
    settings: Settings,
    command: CommandLine,
    watch: Watch,
    job: Option<Job>,
    report: Report,
    begun: Instant,
    /// When the throttler looks next.
    throttle_at: f64,
}

impl Server {
    /// Opens a session; nothing is started yet.
    ///
    /// # Errors
    /// If the directory can't be made or watched.
    pub fn new(settings: Settings, command: CommandLine) -> io::Result<Self> {
        fs::create_dir_all(&command.directory)?;
        let watch = Watch::start(&command.directory, &command.id)?;
        Ok(Self {
            settings,
            command,
            watch,
            job: None,
            report: Report::default(),
            begun: Instant::now(),
            throttle_at: THROTTLE_EVERY,
        })
    }

    /// The command of the session.
    pub fn command(&self) -> &CommandLine {
        &self.command
    }

    /// The process that runs, or ran last.
    pub fn job(&mut self) -> Option<&mut Job> {
        self.job.as_mut()
    }

    /// Segments in the playlist that Jellyfin would hand out.
    pub fn segments(&self) -> u64 {
        ((self.settings.runtime * 1000.0) as u64).div_ceil(self.command.segment_ms).max(1)
    }

    /// Seconds since the session began.
    pub fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Asks for a segment (−1 is the init file) and waits for it as Jellyfin does. `None` if it
    /// answers with an error, which is then a fault in the report.
    pub fn request(&mut self, number: i64) -> Option<&Served> {
        let requested = self.now();
        let path = self.command.segment(number);
        let mut wanted = number;
        let mut newest = None;
        let mut ready = None;
        if path.exists() {
            newest = self.current().ok()?;
        } else {
            let current = self.current().ok()?;
            if self.must_start(number, current) {
                wanted = number.max(0);
                self.restart(wanted.unsigned_abs(), current.is_some(), requested);
                if !self.wait_for_start(number, wanted, &mut ready) {
                    self.fault(
                        FaultKind::StartFailed,
                        number,
                        "HTTP 500: it ended without the file",
                    );
                    return None;
                }
            } else if let Some(job) = &mut self.job {
                job.resume();
            }
        }
        if newest.is_some_and(|newest| wanted < newest) {
            ready = Some(self.now());
        } else if !self.wait_until_ready(number, wanted, &mut ready) {
            return None;
        }
        let ready = ready.unwrap_or_else(|| self.now());
        self.serve(number, requested, ready)
    }

    /// Notes the moment from which on a segment could be served.
    fn look(&mut self, number: i64, wanted: i64, ready: &mut Option<f64>) {
        if ready.is_none()
            && self.command.segment(number).exists()
            && (self.command.segment(wanted + 1).exists() || self.exited())
        {
            *ready = Some(self.now());
        }
    }

    /// Step 3: whether this request needs another ffmpeg.
    fn must_start(&self, number: i64, current: Option<i64>) -> bool {
        let gap = i64::try_from(GAP_SECONDS * 1000 / self.command.segment_ms).unwrap_or(i64::MAX);
        number == -1 || current.is_none_or(|current| number < current || number - current > gap)
    }

    /// Step 2: the number of the newest file, if the job is alive. An error is an answer 500.
    fn current(&mut self) -> Result<Option<i64>, ()> {
        if self.exited() {
            return Ok(None);
        }
        let Some((_, name)) = self.newest_file() else { return Ok(None) };
        match self.number_of(&name) {
            Some(number) => Ok(Some(number)),
            None => {
                self.fault(FaultKind::StrayName, -2, &format!("HTTP 500: int.Parse of {name}"));
                Err(())
            }
        }
    }

    fn newest_file(&self) -> Option<(SystemTime, String)> {
        self.segment_files().into_iter().max()
    }

    /// Files with the session's ID in front and the segments' extension.
    fn segment_files(&self) -> Vec<(SystemTime, String)> {
        let Ok(entries) = fs::read_dir(&self.command.directory) else { return Vec::new() };
        entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let is_segment =
                    name.starts_with(&self.command.id) && name.ends_with(&self.command.extension);
                is_segment.then_some((entry.metadata().ok()?.modified().ok()?, name))
            })
            .collect()
    }

    /// `int.Parse` of what stands between ID and extension.
    fn number_of(&self, name: &str) -> Option<i64> {
        let rest = name.strip_prefix(&self.command.id)?.strip_suffix(&self.command.extension)?;
        rest.trim().parse::<i32>().ok().map(i64::from)
    }

    /// Whether there is no job, or it has ended.
    pub fn exited(&mut self) -> bool {
        let Some(exit) = self.job.as_mut().map(Job::exit) else { return true };
        if let Some(exit) = exit {
            self.note_exit(exit);
        }
        exit.is_some()
    }

    /// Books an exit once, with what it left.
    fn note_exit(&mut self, exit: Exit) {
        let Some(run) = self.report.runs.last_mut().filter(|run| run.exit.is_none()) else {
            return;
        };
        run.exit = Some(exit);
        self.watch.sync();
        for (_, name) in self.segment_files() {
            let path = self.command.directory.join(&name);
            if fs::metadata(path).is_ok_and(|meta| meta.len() == 0) {
                let number = self.number_of(&name).unwrap_or(-2);
                self.fault(
                    FaultKind::EmptyLeft,
                    number,
                    &format!("{name} is empty after the exit"),
                );
            }
        }
        if exit.killed {
            self.fault(FaultKind::Killed, -2, "q was not enough, SIGKILL after 5 s");
        } else if exit.stop_seconds.is_none() && exit.code != 0 {
            self.fault(FaultKind::Failed, -2, &format!("ended by itself with {}", exit.code));
        }
    }

    fn restart(&mut self, number: u64, delete_newest: bool, requested: f64) {
        self.stop();
        if delete_newest && let Some((_, name)) = self.newest_file() {
            _ = fs::remove_file(self.command.directory.join(name));
        }
        self.close_job();
        let run = self.report.runs.len();
        self.watch.begin_run(run);
        let arguments = self.command.at(number, self.settings.runtime);
        let started = self.now();
        self.report.runs.push(Run { start_number: number, requested, started, ..Run::default() });
        let Settings { ffmpeg, environment, nice, .. } = &self.settings;
        match Job::start(ffmpeg, &arguments, environment, *nice) {
            Ok(job) => self.job = Some(job),
            Err(error) => {
                let program = self.settings.ffmpeg.display().to_string();
                self.fault(FaultKind::StartFailed, -2, &format!("cannot run {program}: {error}"));
            }
        }
    }

    /// Keeps what a job has said before the next takes its place.
    fn close_job(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        if job.left_something_behind() {
            self.fault(FaultKind::ProcessLeft, -2, "somebody still holds stdout or stderr");
        }
        if job.stdout_bytes() > 0 {
            let text = format!("{} bytes on stdout", job.stdout_bytes());
            self.fault(FaultKind::StdoutUsed, -2, &text);
        }
        if let Some(run) = self.report.runs.last_mut() {
            run.log = job.log();
        }
    }

    /// TranscodeManager's wait: polls until the file is there or the process has ended.
    fn wait_for_start(&mut self, number: i64, wanted: i64, ready: &mut Option<f64>) -> bool {
        let path = self.command.segment(number);
        let end = Instant::now() + self.settings.patience;
        let mut poll = Instant::now();
        while Instant::now() < end {
            self.look(number, wanted, ready);
            if Instant::now() >= poll {
                poll += self.settings.poll;
                let exited = self.exited();
                if path.exists() {
                    return true;
                }
                if exited {
                    let exit = self.report.runs.last().and_then(|run| run.exit);
                    return exit.is_some_and(|exit| exit.code == 0);
                }
            }
            let_pass(self.settings.look);
        }
        true
    }

    /// Step 4: polls until the segment may be served. `ready` is when it became so.
    fn wait_until_ready(&mut self, number: i64, wanted: i64, ready: &mut Option<f64>) -> bool {
        let path = self.command.segment(number);
        let end = Instant::now() + self.settings.patience;
        let mut poll = Instant::now();
        loop {
            self.look(number, wanted, ready);
            if Instant::now() >= poll {
                poll += self.settings.poll;
                if self.exited() || ready.is_some() {
                    break;
                }
            }
            if Instant::now() >= end {
                self.fault(FaultKind::TimedOut, number, "no segment and no exit");
                return false;
            }
            let_pass(self.settings.look);
        }
        if !path.exists() {
            if !self.may_be_missing(number) {
                let text = "HTTP 404: transcoding quit before we got there";
                self.fault(FaultKind::Missing, number, text);
            }
            return false;
        }
        true
    }

    /// The last of the playlist, if hardly anything is left for it.
    fn may_be_missing(&self, number: i64) -> bool {
        let number = number.unsigned_abs();
        let rest = ((self.settings.runtime * 1000.0) as u64)
            .saturating_sub(number * self.command.segment_ms);
        number > 0 && number + 1 == self.segments() && rest < NEGLIGIBLE_MS
    }

    fn serve(&mut self, number: i64, requested: f64, ready: f64) -> Option<&Served> {
        self.watch.sync();
        let path = self.command.segment(number);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.fault(FaultKind::Missing, number, &format!("HTTP 404: {error}"));
                return None;
            }
        };
        if bytes.is_empty() {
            self.fault(FaultKind::EmptyServed, number, "an empty segment was served");
        }
        if let Some(folder) = &self.settings.keep {
            let place = folder.join(self.report.segments.len().to_string());
            if let Err(error) = fs::write(&place, &bytes) {
                self.fault(FaultKind::NotKept, number, &format!("{}: {error}", place.display()));
            }
        }
        let run = self.report.runs.len().checked_sub(1);
        let made_in = self.made_in(number);
        if let Some(run) = self.report.runs.last_mut()
            && run.first_servable.is_none()
            && number >= 0
        {
            run.first_servable = Some(ready - run.started);
            run.first_served = Some(ready - run.requested);
        }
        self.report.segments.push(Served {
            number,
            run: run.unwrap_or(0),
            made_in,
            requested,
            ready,
            served: self.now(),
            bytes: bytes.len() as u64,
            hash: format!("{:016x}", hash(&bytes)),
        });
        self.report.segments.last()
    }

    /// The run in which a file took its name.
    fn made_in(&self, number: i64) -> Option<usize> {
        let name = self.command.segment(number).file_name()?.to_string_lossy().into_owned();
        let files = self.watch.files();
        let made = |change| matches!(change, Change::Created | Change::MovedIn);
        files.get(&name)?.iter().rev().find(|event| made(event.change)).map(|event| event.run)
    }

    /// The throttler's look, if it is time for one: pauses a transcode that is far ahead of what was
    /// served, or lets it go on.
    pub fn throttle(&mut self) {
        let Some(delay) = self.settings.throttle.map(|delay| delay.max(LEAST_THROTTLE)) else {
            return;
        };
        if self.now() < self.throttle_at {
            return;
        }
        self.throttle_at = self.now() + THROTTLE_EVERY;
        let segment = Duration::from_millis(self.command.segment_ms);
        let served = self.report.segments.last().map_or(0, |served| served.number + 1);
        let served = segment * u32::try_from(served).unwrap_or(0);
        let start = self.report.runs.last().map_or(0, |run| run.start_number);
        let start = segment * u32::try_from(start).unwrap_or(0);
        let Some(job) = &mut self.job else { return };
        let position = job.log().last.and_then(|reading| reading.position);
        match position {
            Some(position) if start + position >= served + delay => job.pause(),
            _ => job.resume(),
        }
    }

    /// Stops the job as Jellyfin does. The files stay.
    pub fn stop(&mut self) -> Option<Exit> {
        let exit = self.job.as_mut()?.stop();
        self.note_exit(exit);
        Some(exit)
    }

    /// Ends the job by a signal, as a server that shuts down may.
    pub fn signal(&mut self, signal: Signal) -> Option<Exit> {
        let exit = self.job.as_mut()?.signal(signal);
        self.note_exit(exit);
        Some(exit)
    }

    /// Waits for the job to end by itself.
    pub fn wait(&mut self) -> Option<Exit> {
        let exit = self.job.as_mut()?.wait();
        self.note_exit(exit);
        Some(exit)
    }

    /// Stops, waits as Jellyfin does, and deletes every file with the session's ID in its name.
    pub fn leave(&mut self) {
        self.stop();
        let_pass(DELETE_DELAY);
        self.check_leftovers();
        let Ok(entries) = fs::read_dir(&self.command.directory) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().contains(&self.command.id) {
                _ = fs::remove_file(entry.path());
            }
        }
    }

    fn check_leftovers(&mut self) {
        let Ok(entries) = fs::read_dir(&self.command.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&self.command.id) && name.ends_with(".tmp") {
                self.fault(FaultKind::TemporaryLeft, -2, &name);
            }
        }
    }

    /// Ends the session: stops the job if it runs, looks at all that happened to the files.
    pub fn finish(mut self) -> Report {
        self.stop();
        self.close_job();
        self.find_strays();
        self.find_changes();
        self.report.segment_seconds = self.command.segment_ms as f64 / 1000.0;
        self.report.names = self.watch.files().into_keys().collect();
        self.report.appeared = self.appeared();
        std::mem::take(&mut self.report)
    }

    /// The first sight of each segment's name in each run.
    fn appeared(&self) -> Vec<Appeared> {
        let mut appeared: Vec<Appeared> = Vec::new();
        for (name, events) in self.watch.files() {
            let Some(number) = self.number_of(&name) else { continue };
            for event in events {
                let known =
                    appeared.last().is_some_and(|a| (a.number, a.run) == (number, event.run));
                if matches!(event.change, Change::Created | Change::MovedIn) && !known {
                    let at = event.at.saturating_duration_since(self.begun).as_secs_f64();
                    appeared.push(Appeared { number, run: event.run, at });
                }
            }
        }
        appeared.sort_by(|a, b| a.at.total_cmp(&b.at));
        appeared
    }

    /// Names that int.Parse would have tripped over, had Jellyfin looked at the right moment.
    fn find_strays(&mut self) {
        let told: HashSet<_> = self.report.faults.iter().map(|fault| fault.text.clone()).collect();
        for name in self.watch.files().into_keys() {
            if name.ends_with(&self.command.extension) && self.number_of(&name).is_none() {
                let text = format!("HTTP 500: int.Parse of {name}");
                if !told.contains(&text) {
                    self.fault(FaultKind::StrayName, -2, &text);
                }
            }
        }
    }

    /// Segments that were touched after the viewer had them, by the run that made them. A later run
    /// may write a number again: Jellyfin lets it.
    fn find_changes(&mut self) {
        let files = self.watch.files();
        let mut changed = Vec::new();
        for served in &self.report.segments {
            let path = self.command.segment(served.number);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let served_at = self.begun + Duration::from_secs_f64(served.served);
            let touched = files.get(&name).is_some_and(|events| {
                events.iter().any(|event| {
                    event.change != Change::Gone
                        && event.at > served_at
                        && Some(event.run) == served.made_in
                })
            });
            if touched {
                changed.push(served.number);
            }
        }
        for number in changed {
            self.fault(FaultKind::Changed, number, "changed after it was served");
        }
    }

    fn fault(&mut self, kind: FaultKind, number: i64, text: &str) {
        let segment = (number >= -1).then_some(number);
        self.report.faults.push(Fault { kind, at: self.now(), segment, text: text.to_owned() });
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
