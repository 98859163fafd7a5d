//! What a stream costs and how many there can be at once. Nothing is asserted of times but that the
//! streams come to their end: these are figures of the machine, and on a virtual GPU of nothing.

use std::path::Path;
use std::time::Duration;

use session::Ending;
use stand::gpu::{Kind, TestGpu};
use stand::line::Line;
use stand::{Report, Run};

use super::codec::{Source, Target};
use super::promise::promise;
use super::{Finding, Task};

/// Share of its frame rate that a stream has to hold.
const HOLDS: f64 = 0.98;
const RATE: u64 = 25;

/// What is streamed.
struct Load {
    source: (u32, u32),
    target: (u32, u32),
    seconds: u64,
    bitrate: u64,
    /// No more streams than this at once.
    most: usize,
}

/// On a real GPU a film long enough that the start doesn't count.
const REAL: Load =
    Load { source: (1920, 1080), target: (1280, 720), seconds: 60, bitrate: 4_000_000, most: 64 };
/// On the virtual one just enough to go through the same code.
const VIRTUAL: Load =
    Load { source: (640, 360), target: (320, 180), seconds: 10, bitrate: 1_000_000, most: 2 };

/// One stream by itself, and as many as can be.
pub fn tasks(gpu: &'static TestGpu) -> Vec<Task> {
    let load = match gpu.kind {
        Kind::Real => &REAL,
        Kind::Virtual => &VIRTUAL,
    };
    let what = |which: &str| {
        let ((width, height), (to_width, to_height)) = (load.source, load.target);
        format!("{which}, H.264 {width}x{height} to H.264 {to_width}x{to_height} at {RATE}")
    };
    let task = |which, check: Box<dyn Fn() -> Finding + Send + Sync>| Task {
        table: "Load",
        what: what(which),
        sample: true,
        check,
    };
    vec![
        task("one stream", Box::new(move || one(gpu, load))),
        task("streams at once", Box::new(move || density(gpu, load))),
    ]
}

fn play(gpu: &TestGpu, load: &Load, film: &Path) -> Report {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Load { target: (width, height), bitrate, .. } = load;
    let edits = format!(
        "-b:v={bitrate} -maxrate={bitrate} -bufsize={} -vf=scale_vaapi=w={width}:h={height}:format=nv12 \
         -map=0:0 -codec:a:0= -ac= -ab= -af=",
        2 * bitrate
    );
    let line = Line::corpus("015").reading(film).writing(directory.path());
    Run::warm().given_on(&line.edited(&edits).plan(), Some(&gpu.device)).finish()
}

fn film(load: &Load) -> std::path::PathBuf {
    let ((width, height), seconds) = (load.source, load.seconds);
    stand::clip::make(
        &format!("load-{width}x{height}-{seconds}.mkv"),
        &format!(
            "-f lavfi -i mandelbrot=s={width}x{height}:r={RATE}:maxiter=100:end_scale=0.05 \
             -t {seconds} {}",
            Source::H264.encoder()
        ),
    )
}

/// Notes where it ran and that it came to its end.
fn ended(gpu: &TestGpu, load: &Load, report: &Report, finding: &mut Finding) {
    let source = (Source::H264, load.source);
    let promise = promise(&gpu.device, &gpu.report, source, (Target::H264, load.target));
    finding.ran = report.backend.clone();
    finding.why = report.reason.clone();
    let promised = promise.backend;
    finding.expect(report.backend == promised, || format!("promised {promised}"));
    finding.expect(report.ending == Some(Ending::Complete), || format!("{:?}", report.ending));
    let frames = report.progress.frames;
    finding.expect(frames == load.seconds * RATE, || format!("{frames} frames"));
}

fn one(gpu: &TestGpu, load: &Load) -> Finding {
    let mut finding = Finding::default();
    let report = play(gpu, load, &film(load));
    ended(gpu, load, &report, &mut finding);
    let seconds = load.seconds as f64;
    let of_real_time = |time: Duration| (time.as_secs_f64() / seconds * 1000.0).round() / 10.0;
    if let Some((_, first)) = report.segments.first() {
        finding.measured("ms to the first segment", first.as_millis() as f64);
    }
    let times_real = seconds / report.elapsed.as_secs_f64();
    finding.measured("times real time", (times_real * 10.0).round() / 10.0);
    finding.expect(!report.processor.is_zero(), || "no processor time of the worker".to_owned());
    finding.measured("% of a processor", of_real_time(report.processor));
    // Not every kernel's driver accounts it, and the virtual one does only where it is told to.
    if let Some(time) = report.gpu {
        finding.measured("% of the GPU", of_real_time(time));
    }
    finding
}

fn density(gpu: &TestGpu, load: &Load) -> Finding {
    let mut finding = Finding::default();
    let film = film(load);
    let mut hold = |streams: usize| {
        let reports: Vec<Report> = std::thread::scope(|scope| {
            let running: Vec<_> =
                (0..streams).map(|_| scope.spawn(|| play(gpu, load, &film))).collect();
            running.into_iter().map(|one| one.join().expect("a stream's thread")).collect()
        });
        // More than it can take may well fail; a single one may not.
        let mut tried = Finding::default();
        for report in &reports {
            let found = if streams == 1 { &mut finding } else { &mut tried };
            ended(gpu, load, report, found);
        }
        let seconds = load.seconds as f64;
        let whole = |report: &Report| report.ending == Some(Ending::Complete);
        let in_time = |report: &Report| seconds / report.elapsed.as_secs_f64() >= HOLDS;
        reports.iter().all(|report| whole(report) && in_time(report))
    };
    let streams = largest(load.most, &mut hold);
    finding.measured("streams", streams as f64);
    finding.measured("tried at most", load.most as f64);
    finding
}

/// The largest number up to `most` for which something holds: doubled until it doesn't, then halved
/// in between.
fn largest(most: usize, hold: &mut impl FnMut(usize) -> bool) -> usize {
    let (mut holds, mut next) = (0, 1);
    let mut fails = most + 1;
    while holds + 1 < fails {
        if hold(next) {
            holds = next;
        } else {
            fails = next;
        }
        let doubled = (holds * 2).max(1);
        next = if doubled < fails && fails == most + 1 && doubled <= most {
            doubled
        } else {
            (holds + fails) / 2
        };
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_holds_is_found() {
        for most in [1, 2, 3, 64] {
            for limit in 0..=most {
                let mut tries = 0;
                let found = largest(most, &mut |streams| {
                    tries += 1;
                    assert!((1..=most).contains(&streams), "{streams}");
                    streams <= limit
                });
                assert_eq!(found, limit, "of {most}");
                assert!(tries <= 14, "{tries} tries for {limit} of {most}");
            }
        }
    }
}
