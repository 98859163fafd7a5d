//! One stream: Jellyfin's command, the worker, and what it wrote.

use std::path::Path;

use gpu::Device;
use session::Ending;
use stand::line::Line;
use stand::output::Output;
use stand::{Report, Run};

use super::Finding;
use super::codec::Target;
use super::promise::Promise;

/// Frames per second as a fraction.
pub type Rate = (u64, u64);

/// Greatest error of a time in seconds: Matroska's milliseconds, and what ffprobe rounds.
const ROUNDING: f64 = 0.0011;

/// What a stream is asked for.
pub struct Wish<'a> {
    /// The film.
    pub source: &'a Path,
    /// The codec.
    pub target: Target,
    /// Frames per second of the film.
    pub rate: Rate,
    /// Length of segments in whole seconds.
    pub segment: u64,
    /// What else is changed in the command, in the words of [`Line::edited`].
    pub edits: &'a str,
    /// The GPU, if the worker is to be given one.
    pub device: Option<&'a Device>,
}

/// A stream that has ended.
pub struct Stream {
    /// What the worker said.
    pub report: Report,
    /// What it wrote.
    pub output: Output,
    /// Where that lies.
    pub directory: tempfile::TempDir,
    target: Target,
    rate: Rate,
    segment: u64,
    clock_ahead: f64,
}

/// How a stream that didn't come to its end ended.
pub struct Left {
    /// What the worker said.
    pub report: Report,
}

/// Runs it to its end.
///
/// # Errors
/// The worker's report, if it didn't end as it should.
///
/// # Panics
/// If what was written can't be read.
pub fn run(wish: &Wish<'_>) -> Result<Stream, Box<Left>> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let edits = format!(
        "-hls_time={0} -force_key_frames:0=expr:gte(t,n_forced*{0}) \
         -map=0:0 -codec:a:0= -ac= -ab= -af= {1} {2}",
        wish.segment,
        wish.edits,
        wish.target.edits(),
    );
    let line = Line::corpus("015").reading(wish.source).writing(directory.path());
    let plan = line.edited(&edits).plan();
    let report = Run::warm().given_on(&plan, wish.device).finish();
    if report.ending != Some(Ending::Complete) {
        return Err(Box::new(Left { report }));
    }
    let output = Output::read(directory.path(), &plan);
    let Wish { target, rate, segment, .. } = *wish;
    let clock_ahead = target.clock_ahead() + before_zero(target, &output);
    Ok(Stream { report, output, directory, target, rate, segment, clock_ahead })
}

/// By how many seconds ffmpeg's MPEG-TS is later still: pictures of an encoder that reorders are
/// decoded before they are shown, and if that comes before zero, all is moved up to it.
fn before_zero(target: Target, output: &Output) -> f64 {
    let first = output.segments.iter().find_map(|segment| segment.of(true).next());
    match (target, first) {
        (Target::H264, Some(first)) if (first.dts - target.clock_ahead()).abs() < ROUNDING => {
            first.pts - first.dts
        }
        _ => 0.0,
    }
}

impl Left {
    /// Says so: the stream was to run, unless it was promised that it may go to ffmpeg.
    pub fn tell(self, promise: Option<&Promise>, finding: &mut Finding) {
        let Report { ending, committed, lines, .. } = self.report;
        let reason = match ending {
            Some(Ending::Failed { reason, .. }) => reason,
            other => format!("ended as {other:?}"),
        };
        finding.ran = "ffmpeg".into();
        finding.why = Some(reason.clone());
        let may = promise.is_some_and(|promise| promise.may_leave) && !committed;
        finding.expect(may, || format!("failed: {reason} ({})", lines.join("; ")));
    }
}

impl Stream {
    /// Where it ran; compares with the promise, or with software if there was no GPU to be had.
    pub fn compare_place(&self, promise: Option<&Promise>, finding: &mut Finding) {
        let Report { backend, reason, description, .. } = &self.report;
        finding.ran = backend.clone();
        finding.why = reason.clone().filter(|_| promise.is_some());
        let promised = promise.map_or("software", |promise| promise.backend);
        finding.expect(backend == promised, || format!("promised {promised}, ran on {backend}"));
        for element in promise.iter().flat_map(|promise| &promise.elements) {
            let there = description.split([' ', ',']).any(|word| word == element);
            finding.expect(there, || format!("no {element} in: {description}"));
        }
        let why = promised == "vaapi" || reason.is_some() || promise.is_none();
        finding.expect(why, || format!("{backend} without a reason"));
    }

    /// Number of the frame that is shown at a time of the source; `None` if it lies between two.
    fn number(&self, pts: f64) -> Option<u64> {
        let (frames, seconds) = (self.rate.0 as f64, self.rate.1 as f64);
        let at = pts - self.clock_ahead;
        let number = (at * frames / seconds).round();
        let near = (number * seconds / frames - at).abs() < ROUNDING && number >= 0.0;
        near.then_some(number as u64)
    }

    /// Numbers of the frames by their times, in the order in which they are shown.
    pub fn numbers(&self, finding: &mut Finding) -> Vec<u64> {
        let packets = self.output.segments.iter().flat_map(|segment| segment.of(true));
        let mut times: Vec<f64> = packets.map(|packet| packet.pts).collect();
        times.sort_by(f64::total_cmp);
        let numbers: Vec<u64> = times.iter().filter_map(|time| self.number(*time)).collect();
        finding.expect(numbers.len() == times.len(), || {
            let odd: Vec<_> = times.iter().filter(|time| self.number(**time).is_none()).collect();
            format!("{} times on no frame, first {:?}", odd.len(), odd.first())
        });
        numbers
    }

    /// IDRs are at `first` and at the first frame of each segment's time, and nowhere else; each
    /// begins a segment.
    pub fn compare_keyframes(&self, first: u64, last: u64, finding: &mut Finding) {
        let (frames, seconds) = self.rate;
        let grid = (0..).map(|n| first + (n * self.segment * frames).div_ceil(seconds));
        let expected: Vec<u64> = grid.take_while(|number| *number <= last).collect();
        let hevc = self.target == Target::Hevc;
        let pictures = self.output.pictures(hevc);
        let packets: Vec<_> = self.output.segments.iter().flat_map(|one| one.of(true)).collect();
        finding.expect(pictures.len() == packets.len(), || {
            format!("{} pictures in {} packets", pictures.len(), packets.len())
        });
        let is_idr = |kind: &u8| if hevc { matches!(kind, 19 | 20) } else { *kind == 5 };
        let with_idr = pictures.iter().zip(&packets);
        let idrs: Vec<Option<u64>> = with_idr
            .filter(|(units, _)| units.iter().any(|(kind, _)| is_idr(kind)))
            .map(|(_, packet)| self.number(packet.pts))
            .collect();
        let wanted: Vec<Option<u64>> = expected.iter().copied().map(Some).collect();
        finding.expect(idrs == wanted, || format!("IDRs at {idrs:?}, the grid is {expected:?}"));
        let starts: Vec<Option<u64>> = self
            .output
            .segments
            .iter()
            .map(|segment| self.number(segment.of(true).next()?.pts))
            .collect();
        finding.expect(starts == wanted, || format!("segments begin at {starts:?}"));
        finding.measured("IDRs", idrs.len() as f64);
    }
}
