//! The table of streams: what runs, for whom, how far it is.
//!
//! Invariant: a stream is in the table exactly as long as its `Entry` lives, so that the list
//! and the per-stream metrics can't outlive it.

mod date;
mod ended;
mod line;
mod pace;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use ffmpeg_args::{Location, Scale, Transcode, VideoAction, VideoCodec};
use gpu::ReasonKind;
use serde::{Deserialize, Serialize};
use session::{Progress, SourcePicture, StreamId};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::admission::Account;
use crate::first_message::Declined;
use crate::gpu_time::GpuTime;
use crate::output::OutputKey;
use crate::schedule::{Device, Runner};
use date::rfc3339;
pub use ended::EndedLine;
pub use line::StreamLine;
pub(crate) use line::shares;
use pace::Pace;

/// Where a stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for a worker, or for the worker to run.
    Starting,
    /// Runs.
    Running,
    /// Jellyfin has paused it.
    Paused,
    /// Is being cleared away.
    Ending,
}

impl State {
    /// As in JSON and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ending => "ending",
        }
    }
}

/// How far the viewer can be at most: they watch at normal speed from the first segment on, and
/// never what isn't there yet. A pause of the transcoder is none of the viewer; a pause of the
/// viewer is not known here.
#[derive(Debug, Clone, Copy, Default)]
struct Viewer {
    watched: Duration,
    as_of: Option<Instant>,
}

impl Viewer {
    fn advance(&mut self, produced: Duration, now: Instant) {
        let passed = self.as_of.map_or(Duration::ZERO, |then| now - then);
        self.watched = (self.watched + passed).min(produced);
        self.as_of = Some(now);
    }
}

/// What is known of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// The name of the first input's file without its extension.
    pub item: String,
    /// The first input.
    pub input: String,
    /// The playlist.
    pub output: String,
    /// The picture that goes in, once it is known.
    pub source: Option<SourcePicture>,
    /// Of the output: `h264`, `hevc`, `copy`, or empty without a picture.
    pub video_out: &'static str,
    /// Of the output, as asked for.
    pub size: String,
    /// Which backend runs it, once it is known.
    pub backend: Option<String>,
    /// The GPU's node, if it runs on one; before it runs, the one that it most likely will.
    pub node: Option<PathBuf>,
    /// What it has had of it.
    pub gpu_time: GpuTime,
    /// What it asks for, and what it has taken so far.
    pub account: Account,
    /// Why it isn't all on a GPU.
    pub reason: Option<String>,
    /// The same for counters.
    pub reason_kind: Option<ReasonKind>,
    /// One line of the worker: decoder, filters, encoder.
    pub description: Option<String>,
    /// The layers of the sandbox that hold its worker in, once it has said so.
    pub sandbox: Option<Vec<String>>,
    /// See [`State`].
    pub state: State,
    /// When the job came.
    pub since: SystemTime,
    /// Complete segments.
    pub segments: u64,
    /// From the job's arrival to the first complete segment.
    pub first_segment: Option<Duration>,
    /// The worker's last report.
    pub progress: Progress,
    /// The worker's process.
    pub worker_pid: Option<u32>,
    /// The hook's process.
    pub hook_pid: Option<u32>,
    key: OutputKey,
    pace: Pace,
    viewer: Viewer,
    /// Length of a segment; of one file, as much as a player wants at once.
    segment: Duration,
    /// Segments are written, not one file.
    segmented: bool,
    /// Comes from a network, as fast as it plays.
    live: bool,
    /// Its worker waits for input, or at its horizon.
    pub waits: bool,
    /// The disk of its output is full, and it waits for room.
    pub no_room: bool,
    /// It has no worker of its own: takes the segments of that stream, or kept ones.
    follows: Option<Option<StreamId>>,
    horizon: watch::Sender<Option<Duration>>,
    /// Since when it has been held without a break, and what it had produced by then.
    held: Option<(Instant, Duration)>,
    /// The next gateway could go on with it now.
    may_move: bool,
    /// How it has ended, once it has: the word of `rendergate_streams_ended_total`, and why.
    end: Option<(&'static str, Option<String>)>,
}

/// As much of a file that grows as counts for a segment.
const PIECE: Duration = Duration::from_secs(3);
/// The longest that a stream stands still for others. Where its viewer is, is a guess: one who has
/// leapt ahead, past an intro, plays what has been produced last.
const STANDSTILL: Duration = Duration::from_secs(10);
/// Grants that differ by less aren't worth a message.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// The name of the first input's file without its extension.
pub(crate) fn item_of(transcode: &Transcode) -> String {
    let input = transcode.inputs.first().map(|input| input.location.to_string());
    let input = PathBuf::from(input.unwrap_or_default());
    input.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

impl Record {
    pub(crate) fn new(transcode: &Transcode, key: OutputKey, hook_pid: Option<u32>) -> Self {
        let input = transcode.inputs.first().map(|input| input.location.to_string());
        let input = PathBuf::from(input.unwrap_or_default());
        let output = transcode.output.path();
        let segments = transcode.output.hls();
        let action = transcode.video.as_ref().map(|video| &video.action);
        let (video_out, size) = match action {
            None => ("", String::new()),
            Some(VideoAction::Copy) => ("copy", "source".into()),
            Some(VideoAction::Encode(encode)) => {
                let codec = match encode.codec {
                    VideoCodec::H264 => "h264",
                    VideoCodec::Hevc => "hevc",
                };
                let size = match encode.scale {
                    None => "source".into(),
                    Some(Scale::Exact { width, height }) => format!("{width}x{height}"),
                    Some(Scale::Fit { max_width, max_height }) => {
                        format!("max {max_width}x{max_height}")
                    }
                };
                (codec, size)
            }
        };
        Self {
            item: item_of(transcode),
            input: input.to_string_lossy().into_owned(),
            output: output.to_string_lossy().into_owned(),
            source: None,
            video_out,
            size,
            backend: None,
            node: None,
            gpu_time: GpuTime::default(),
            account: Account::default(),
            reason: None,
            reason_kind: None,
            description: None,
            sandbox: None,
            state: State::Starting,
            since: SystemTime::now(),
            segments: 0,
            first_segment: None,
            progress: Progress::default(),
            worker_pid: None,
            hook_pid,
            key,
            pace: Pace::default(),
            viewer: Viewer::default(),
            segment: segments
                .map_or(PIECE, |output| Duration::from_secs_f64(output.segment_seconds)),
            segmented: segments.is_some(),
            live: transcode
                .inputs
                .iter()
                .any(|input| matches!(input.location, Location::Network(_))),
            waits: false,
            no_room: false,
            follows: None,
            horizon: watch::Sender::new(None),
            held: None,
            may_move: false,
            end: None,
        }
    }

    /// Another gateway has come so far with it. Where its viewer is was known there; here it counts as
    /// having watched all of it, so that nobody's lead is served before it.
    pub(crate) fn takes_over(&mut self, segments: u64, progress: Progress) {
        self.segments = segments;
        self.progress = progress;
        let watched = Duration::from_micros(progress.position_us);
        self.viewer = Viewer { watched, as_of: Some(Instant::now()) };
        self.may_move = true;
    }

    /// It stands still for others.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// How far the stream may go, as it changes.
    pub(crate) fn horizon(&self) -> watch::Receiver<Option<Duration>> {
        self.horizon.subscribe()
    }

    /// Lets it go so far, and in any case on at the pace of playing once it has been held for long
    /// ([`STANDSTILL`]).
    pub(crate) fn grant(&mut self, horizon: Option<Duration>) {
        let produced = Duration::from_micros(self.progress.position_us);
        let now = Instant::now();
        self.held = horizon
            .filter(|horizon| *horizon <= produced)
            .map(|_| *self.held.get_or_insert((now, produced)));
        if self.held.is_some() {
            self.pace.hold();
        }
        let least = self.held.and_then(|(since, then)| {
            (now - since).checked_sub(STANDSTILL).map(|passed| then + passed)
        });
        let horizon = horizon.map(|horizon| horizon.max(least.unwrap_or_default()));
        self.horizon.send_if_modified(|current| {
            let tell = match (*current, horizon) {
                (Some(old), Some(new)) => old.abs_diff(new) >= WORTH_TELLING,
                (old, new) => old != new,
            };
            if tell {
                *current = horizon;
            }
            tell
        });
    }

    /// Takes the segments of another from now on, or what is kept; `description` says which.
    pub(crate) fn follow(&mut self, producer: Option<StreamId>, description: String) {
        self.follows = Some(producer);
        self.backend = Some("shared".into());
        self.description = Some(description);
        self.node = None;
        self.reason = None;
        // One that is paused stays so, whoever it follows.
        if self.state == State::Starting {
            self.state = State::Running;
        }
    }

    /// Has, or will have, a worker of its own again.
    pub(crate) fn follow_no_more(&mut self) {
        self.follows = None;
        self.no_room = false;
        self.backend = None;
        self.description = None;
        if self.state == State::Running {
            self.state = State::Starting;
        }
    }

    /// Whose segments it takes, and the most that its viewer can have watched of them.
    pub(crate) fn followed(&mut self) -> Option<(StreamId, Duration)> {
        let produced = Duration::from_micros(self.progress.position_us);
        let lead = self.lead();
        self.follows?.map(|producer| (producer, produced.saturating_sub(lead)))
    }

    /// The stream as its scheduling sees it; `None` if it isn't there yet, or no longer, or has no
    /// worker.
    pub(crate) fn runner(&mut self, id: StreamId) -> Option<Runner> {
        if self.state == State::Ending || self.follows.is_some() {
            return None;
        }
        let lead = self.lead();
        let produced = Duration::from_micros(self.progress.position_us);
        let pieces = produced.as_micros() / self.segment.as_micros().max(1);
        Some(Runner {
            id,
            device: self.competes_for(),
            produced,
            watched: produced.saturating_sub(lead),
            segments: if self.segmented { self.segments } else { u64::try_from(pieces).ok()? },
            segment: self.segment,
            // A server that sends nothing may do so for ever, and a disk may stay full: nobody else has to
            // wait for it.
            paused: self.state == State::Paused || self.live && self.waits || self.no_room,
            live: self.live,
        })
    }

    /// Nothing holds it: it goes as fast as its device lets it.
    pub(crate) fn is_at_work(&self) -> bool {
        self.state == State::Running && !self.waits
    }

    /// What its encoder works on. Copies and sound take next to nothing of either.
    fn competes_for(&self) -> Option<Device> {
        if matches!(self.video_out, "" | "copy") {
            return None;
        }
        match (&self.backend, &self.node) {
            (Some(backend), _) if backend != "vaapi" => Some(Device::Processor),
            (_, Some(node)) => Some(Device::Gpu(node.clone())),
            (_, None) => Some(Device::Processor),
        }
    }

    /// Jellyfin pauses it.
    pub(crate) fn pause(&mut self) {
        self.state = State::Paused;
        self.pace.hold();
    }

    /// Jellyfin lets it go on; what didn't run yet doesn't now.
    pub(crate) fn resume(&mut self) {
        if self.state == State::Paused {
            self.state = if self.backend.is_some() { State::Running } else { State::Starting };
        }
    }

    /// Media time over wall time, of the last 20 seconds in which it was neither held nor paused.
    pub(crate) fn speed(&self) -> f64 {
        self.pace.speed().unwrap_or_else(|| self.average())
    }

    /// The same of all its life.
    pub(crate) fn overall_speed(&self) -> f64 {
        self.pace.overall().unwrap_or_else(|| self.average())
    }

    /// As the worker has it, for what is too short to be seen from here.
    fn average(&self) -> f64 {
        if self.progress.elapsed_us == 0 {
            return 0.0;
        }
        self.progress.position_us as f64 / self.progress.elapsed_us as f64
    }

    /// Notes a segment; true for the first.
    pub(crate) fn segment_complete(&mut self) -> bool {
        self.segments += 1;
        if self.segments == 1 {
            self.viewer.as_of = Some(Instant::now());
        }
        self.segments == 1
    }

    /// Notes how far the worker is.
    pub(crate) fn progress(&mut self, progress: Progress) {
        self.progress = progress;
        let held = self.is_held() || self.state == State::Paused;
        self.pace.report(Duration::from_micros(progress.position_us), held, Instant::now());
        if !self.segmented && progress.position_us > 0 {
            self.viewer.as_of.get_or_insert_with(Instant::now);
        }
        self.lead();
    }

    /// Media produced minus media that a viewer can have watched.
    pub(crate) fn lead(&mut self) -> Duration {
        let produced = Duration::from_micros(self.progress.position_us);
        if self.viewer.as_of.is_some() {
            self.viewer.advance(produced, Instant::now());
        }
        produced.saturating_sub(self.viewer.watched)
    }

    /// For labels and lists.
    pub(crate) fn backend(&self) -> &str {
        self.backend.as_deref().unwrap_or("pending")
    }
}

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// A stream has come.
    arrived: Notify,
    /// A stream has left, or can be left to the next gateway.
    left: Notify,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    records: BTreeMap<StreamId, Record>,
    /// The last to end, the latest at the back.
    ended: VecDeque<EndedLine>,
}

impl Table {
    /// Keeps what is worth knowing of a stream that has ended.
    fn keep(&mut self, line: EndedLine) {
        if self.ended.len() == ended::KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(line);
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes a stream in, unless `limit` (0: none) streams run already. Those that are being
    /// cleared away don't count: a seek ends one stream and starts another in the same moment.
    pub(crate) fn enter(&self, record: Record, limit: usize) -> Result<Entry, Declined> {
        let mut table = self.lock();
        let running = table.records.values().filter(|r| r.state != State::Ending).count();
        if limit > 0 && running >= limit {
            let reason = format!("{running} streams run, streams.max_streams is {limit}");
            return Err(Declined::new(Declined::MAX_STREAMS, reason));
        }
        table.last += 1;
        let id = StreamId(table.last);
        table.records.insert(id, record);
        self.shared.arrived.notify_one();
        Ok(Entry { id, streams: self.clone() })
    }

    /// Waits until a stream has come since it was last waited for.
    pub(crate) async fn arrival(&self) {
        self.shared.arrived.notified().await;
    }

    /// Waits until no stream with this output is being cleared away.
    pub(crate) async fn wait_for_cleared(&self, key: &OutputKey) {
        self.wait(|table| {
            !table.records.values().any(|r| r.state == State::Ending && r.key == *key)
        })
        .await;
    }

    /// Waits until every stream that is left could go on with the next gateway.
    pub(crate) async fn wait_for_only_movable(&self) {
        self.wait(|table| table.records.values().all(|r| r.may_move || r.state == State::Ending))
            .await;
    }

    /// Waits until no stream is left.
    pub(crate) async fn wait_for_none(&self) {
        self.wait(|table| table.records.is_empty()).await;
    }

    async fn wait(&self, condition: impl Fn(&Table) -> bool) {
        loop {
            let left = self.shared.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if condition(&self.lock()) {
                return;
            }
            left.await;
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().records.len()
    }

    /// How many run, or are about to run, on the GPU behind a node.
    pub(crate) fn on_node(&self, node: &Path) -> usize {
        let here = |record: &&Record| {
            record.state != State::Ending && record.node.as_deref() == Some(node)
        };
        self.lock().records.values().filter(here).count()
    }

    pub(crate) fn lines(&self) -> Vec<StreamLine> {
        self.lock().records.iter_mut().map(|(id, record)| StreamLine::new(*id, record)).collect()
    }

    /// Notes a job that was left to the hook's ffmpeg before it was a stream.
    pub(crate) fn declined(&self, item: String, reason: &str) {
        self.lock().keep(EndedLine::declined(item, reason));
    }

    /// The streams that ended last, the latest first.
    pub(crate) fn ended(&self) -> Vec<EndedLine> {
        self.lock().ended.iter().rev().cloned().collect()
    }

    /// Calls `see` with each stream.
    pub(crate) fn each(&self, mut see: impl FnMut(StreamId, &mut Record)) {
        for (id, record) in &mut self.lock().records {
            see(*id, record);
        }
    }
}

/// A stream's place in the table.
#[derive(Debug)]
pub(crate) struct Entry {
    id: StreamId,
    streams: Streams,
}

impl Entry {
    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    /// Reads or changes the record.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut table = self.streams.lock();
        change(table.records.get_mut(&self.id).expect("an entry's record is in the table"))
    }

    /// Notes whether the next gateway could go on with it.
    pub(crate) fn may_move(&self, may: bool) {
        if self.with(|record| std::mem::replace(&mut record.may_move, may)) != may {
            self.streams.shared.left.notify_waiters();
        }
    }

    /// Notes how it has ended, which is kept when it leaves the table.
    pub(crate) fn ended(&self, how: &'static str, why: Option<String>) {
        self.with(|record| record.end = Some((how, why)));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut table = self.streams.lock();
        let record = table.records.remove(&self.id);
        if let Some(line) = record.and_then(|record| EndedLine::new(self.id, &record)) {
            table.keep(line);
        }
        drop(table);
        self.streams.shared.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_watches_at_normal_speed_and_not_ahead() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut viewer = Viewer { watched: Duration::ZERO, as_of: Some(start) };
        viewer.advance(Duration::from_secs(6), at(2));
        assert_eq!(viewer.watched, Duration::from_secs(2));
        viewer.advance(Duration::from_secs(6), at(20));
        assert_eq!(viewer.watched, Duration::from_secs(6));
        viewer.advance(Duration::from_secs(30), at(25));
        assert_eq!(viewer.watched, Duration::from_secs(11));
    }
}
