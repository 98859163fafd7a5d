//! Whether and where another worker goes on with a stream, and what the hook has been told already.
//!
//! A stream ends if [`MOST_LOSSES`] workers in a row are lost without a segment in between. One segment
//! takes the count back: whoever watches gets on, at the price of a second for every loss. What has to end
//! is a stream that can't get past a place, and that one makes none.
//!
//! A GPU on which the stream has failed [`MOST_ON_A_GPU`] times isn't offered to it again, however
//! many segments it made: the next one works as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ffmpeg_args::Transcode;
use gpu::{Reason, ReasonKind};
use session::{Complete, Ending, Progress, Resumption, Takeover};

use crate::gpus::Allowance;

/// Workers that may be lost in a row.
const MOST_LOSSES: u32 = 3;
/// Failures after which a GPU isn't offered any more.
const MOST_ON_A_GPU: u32 = 2;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Survival {
    resumption: Resumption,
    /// Segments of files, which can be begun anew.
    possible: bool,
    losses: u32,
    /// The last segment is written, and the playlist too.
    written: bool,
    /// Nobody wants more.
    quits: bool,
    on_gpus: BTreeMap<PathBuf, u32>,
}

impl Survival {
    pub(crate) fn of(transcode: &Transcode) -> Self {
        let first = Resumption::possible(transcode);
        Self {
            resumption: Resumption::beginning(first.unwrap_or(0)),
            possible: first.is_some(),
            losses: 0,
            written: false,
            quits: false,
            on_gpus: BTreeMap::new(),
        }
    }

    /// Goes on where another gateway has come to.
    pub(crate) fn takes_over(&mut self, resumption: Resumption) {
        self.resumption = resumption;
    }

    /// Whether another gateway could go on with it now, or begin it anew. Behind the last segment there is
    /// nothing to do.
    pub(crate) fn may_move(&self) -> bool {
        self.possible && !self.quits && !self.written && self.resumption.leads_on()
    }

    /// Notes a complete segment.
    pub(crate) fn complete(&mut self, number: u64, complete: Complete) {
        self.losses = 0;
        self.written = complete.last;
        self.resumption.note(number, complete);
    }

    /// How the stream ends if its worker is lost now, if all is written: as that one was about to say.
    pub(crate) fn ending(&self) -> Option<Ending> {
        let ending = if self.quits { Ending::Quit } else { Ending::Complete };
        self.written.then_some(ending)
    }

    /// It is to end.
    pub(crate) fn quits(&mut self) {
        self.quits = true;
    }

    /// The stream has failed on a GPU.
    pub(crate) fn failed_on(&mut self, node: &Path) {
        *self.on_gpus.entry(node.to_owned()).or_default() += 1;
    }

    /// Counts a loss; whether another worker may go on with a stream that has so many segments.
    pub(crate) fn may_go_on(&mut self, segments: u64) -> bool {
        self.losses += 1;
        let begun = self.resumption.state.is_some();
        self.possible && !self.quits && self.losses < MOST_LOSSES && (begun || segments == 0)
    }

    /// Number of the segment that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.resumption.next
    }

    /// Where a worker begins; `None` at the beginning.
    pub(crate) fn resumption(&self) -> Option<&Resumption> {
        self.resumption.state.as_ref().map(|_| &self.resumption)
    }

    /// Media time before it.
    pub(crate) fn position(&self) -> Duration {
        self.resumption().map_or(Duration::ZERO, |resumption| {
            let seconds = |(ticks, rate): (u64, u32)| ticks as f64 / f64::from(rate.max(1));
            let whole: f64 = resumption.lengths().map(seconds).sum();
            Duration::try_from_secs_f64(whole).unwrap_or_default()
        })
    }

    /// What of an allowance is left for this stream.
    ///
    /// # Errors
    /// Why nothing is, for people.
    pub(crate) fn permitted(&self, mut allowance: Allowance) -> Result<Allowance, String> {
        let before = allowance.devices.len();
        let spent =
            |node: &Path| self.on_gpus.get(node).is_some_and(|count| *count >= MOST_ON_A_GPU);
        allowance.devices.retain(|device| !spent(&device.node));
        if before > 0 && allowance.devices.is_empty() {
            let text = "the stream has failed on the GPU more than once".to_owned();
            if !allowance.software {
                return Err(text);
            }
            allowance.reason = Some(Reason { kind: ReasonKind::Broken, text });
        }
        Ok(allowance)
    }
}

/// What the hook has been told, which nothing takes back.
#[derive(Debug, Default)]
pub(crate) struct Told {
    accepted: bool,
    running: bool,
    committed: bool,
    /// Complete segments.
    segments: u64,
    last: Option<u64>,
    progress: Progress,
    /// What the workers before have taken.
    elapsed_before: Duration,
}

impl Told {
    /// Of a stream that began with another viewer's segments, up to this one.
    pub(crate) fn of_followed(segments: u64, last: Option<u64>, progress: Progress) -> Self {
        let begun = last.is_some();
        let mut told = Self {
            accepted: true,
            running: begun,
            committed: begun,
            segments,
            last,
            progress,
            elapsed_before: Duration::ZERO,
        };
        told.elapsed_stands();
        told
    }

    /// Of a stream that another gateway has begun: everything but by whom it is run is known.
    pub(crate) fn of_another(takeover: &Takeover) -> Self {
        let segments = takeover.resumption.segments();
        let last = takeover.resumption.last();
        let told = Self::of_followed(segments, last, takeover.progress);
        Self { accepted: false, running: false, committed: true, ..told }
    }

    /// Whether it is news that the stream is taken.
    pub(crate) fn accepts(&mut self) -> bool {
        !std::mem::replace(&mut self.accepted, true)
    }

    /// Whether it is news that the stream runs. That another worker runs it is said otherwise.
    pub(crate) fn runs(&mut self) -> bool {
        !std::mem::replace(&mut self.running, true)
    }

    /// Whether it is news that something is written.
    pub(crate) fn commits(&mut self) -> bool {
        !std::mem::replace(&mut self.committed, true)
    }

    /// Whether something is written, so that the hook can't run the real ffmpeg any more.
    pub(crate) fn has_committed(&self) -> bool {
        self.committed
    }

    /// Whether it is news that this segment is complete.
    pub(crate) fn completes(&mut self, number: u64) -> bool {
        let news = self.last.is_none_or(|last| number > last);
        if news {
            self.last = Some(number);
            self.segments += 1;
        }
        news
    }

    /// Complete segments.
    pub(crate) fn segments(&self) -> u64 {
        self.segments
    }

    /// A report, as it is to be passed on: a worker that goes on begins behind the last segment, and with
    /// a clock of its own.
    pub(crate) fn progress(&mut self, own: Progress) -> Progress {
        let before = u64::try_from(self.elapsed_before.as_micros()).unwrap_or(u64::MAX);
        let told = self.progress;
        self.progress = Progress {
            frames: own.frames.max(told.frames),
            position_us: own.position_us.max(told.position_us),
            source_us: if told.frames == 0 {
                own.source_us
            } else {
                own.source_us.max(told.source_us)
            },
            bytes: own.bytes.max(told.bytes),
            elapsed_us: own.elapsed_us.saturating_add(before).max(told.elapsed_us),
        };
        self.progress
    }

    /// The worker is gone; the next one's clock begins at zero.
    pub(crate) fn elapsed_stands(&mut self) {
        self.elapsed_before = Duration::from_micros(self.progress.elapsed_us);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn plan(output: &str) -> Transcode {
        let command = format!(
            "-i file:/a.mkv -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s \
             -codec:v:0 copy -codec:a:0 copy -copyts -avoid_negative_ts disabled \
             -max_muxing_queue_size 2048 {output}"
        );
        let arguments: Vec<_> = command.split_whitespace().map(Into::into).collect();
        match ffmpeg_args::plan(&arguments) {
            ffmpeg_args::Plan::Transcode(plan) => *plan,
            other => panic!("{other:?}"),
        }
    }

    fn segments() -> Transcode {
        plan(
            "-f hls -max_delay 5000000 -hls_time 6 -hls_segment_type mpegts -start_number 4 \
             -hls_segment_filename /t/id%d.ts -hls_playlist_type vod -hls_list_size 0 -y /t/id.m3u8",
        )
    }

    fn complete() -> Complete {
        Complete { length: (6, 1), state: Some("state".into()), last: false }
    }

    #[test]
    fn three_losses_in_a_row_are_the_end_and_a_segment_is_progress() {
        let mut survival = Survival::of(&segments());
        assert!(survival.may_go_on(0));
        assert_eq!((survival.next(), survival.resumption()), (4, None));
        assert!(survival.may_go_on(0));
        assert!(!survival.may_go_on(0));
        let mut survival = Survival::of(&segments());
        for number in 4..20 {
            assert!(survival.may_go_on(number - 4) && survival.may_go_on(number - 4));
            survival.complete(number, complete());
            assert_eq!(survival.resumption().map(|at| at.next), Some(number + 1));
        }
        survival.quits();
        assert!(!survival.may_go_on(16));
    }

    #[test]
    fn a_worker_that_says_nothing_of_its_state_has_no_successor() {
        let mut survival = Survival::of(&segments());
        survival.complete(4, Complete::default());
        assert!(!survival.may_go_on(1));
    }

    #[test]
    fn behind_the_last_segment_there_is_nothing_to_do() {
        let mut survival = Survival::of(&segments());
        survival.complete(4, complete());
        assert_eq!(survival.ending(), None);
        assert!(survival.may_move());
        survival.complete(5, Complete { state: None, last: true, ..complete() });
        assert_eq!(survival.ending(), Some(Ending::Complete));
        assert!(!survival.may_move());
        survival.quits();
        assert_eq!(survival.ending(), Some(Ending::Quit));
    }

    #[test]
    fn what_another_gateway_has_told_stays_told() {
        let mut resumption = Resumption::beginning(4);
        (4..7).for_each(|number| resumption.note(number, complete()));
        let progress = Progress { frames: 300, elapsed_us: 9, ..Progress::default() };
        let takeover = Takeover { resumption, writer: None, progress };
        let mut told = Told::of_another(&takeover);
        assert!(told.accepts() && told.runs() && !told.commits());
        assert!(!told.completes(6) && told.completes(7));
        assert_eq!(told.segments(), 4);
        let own = Progress { frames: 290, elapsed_us: 2, ..Progress::default() };
        assert_eq!(told.progress(own), Progress { elapsed_us: 11, ..progress });
        let mut survival = Survival::of(&segments());
        assert!(survival.may_move());
        survival.complete(4, Complete::default());
        assert!(!survival.may_move());
        survival.takes_over(takeover.resumption);
        assert!(survival.may_move() && survival.may_go_on(4));
        assert_eq!(survival.next(), 7);
        survival.quits();
        assert!(!survival.may_move());
    }

    #[test]
    fn a_gpu_gets_two_tries() {
        let device = |node: &str| {
            Arc::new(gpu::Device {
                node: node.into(),
                driver: String::new(),
                abilities: BTreeMap::new(),
                deinterlacer: None,
            })
        };
        let devices = vec![device("/a"), device("/b")];
        let all = |software| Allowance { devices: devices.clone(), software, reason: None };
        let mut survival = Survival::of(&segments());
        let nodes = |survival: &Survival, software| {
            let allowance = survival.permitted(all(software))?;
            let nodes = allowance.devices.iter().map(|device| device.node.display().to_string());
            Ok::<_, String>((nodes.collect::<Vec<_>>(), allowance.reason.is_some()))
        };
        survival.failed_on(Path::new("/a"));
        assert_eq!(nodes(&survival, true).unwrap().0, ["/a", "/b"]);
        survival.failed_on(Path::new("/a"));
        survival.complete(4, complete());
        assert_eq!(nodes(&survival, true).unwrap(), (vec!["/b".into()], false));
        survival.failed_on(Path::new("/b"));
        survival.failed_on(Path::new("/b"));
        assert_eq!(nodes(&survival, true).unwrap(), (vec![], true));
        assert!(nodes(&survival, false).is_err());
    }

    #[test]
    fn nothing_that_was_told_is_taken_back() {
        let mut told = Told::default();
        assert!(told.commits() && !told.commits());
        assert!(told.completes(4) && told.completes(5) && !told.completes(5) && told.completes(6));
        assert_eq!(told.segments(), 3);
        let report = |frames, elapsed_us| Progress { frames, elapsed_us, ..Progress::default() };
        assert_eq!(told.progress(report(300, 9)), report(300, 9));
        told.elapsed_stands();
        assert_eq!(told.progress(report(288, 2)), report(300, 11));
        assert_eq!(told.progress(report(310, 3)), report(310, 12));
        told.elapsed_stands();
        assert_eq!(told.progress(report(305, 1)), report(310, 13));
    }
}
