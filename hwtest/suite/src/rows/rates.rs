//! Rate control: what comes out is what was asked for, on average.

use stand::gpu::TestGpu;

use super::codec::{Source, Target};
use super::promise::promise;
use super::stream::{self, Wish};
use super::{Finding, Task};

const SIZE: (u32, u32) = (320, 180);
const RATE: u64 = 25;
/// Over which the average is taken, and that it has to be held in.
const SECONDS: u64 = 30;
/// Bits per second that are asked for: less than the film would take at any quality.
const ASKED: u64 = 600_000;
/// By which share of it the average may be off.
const TOLERANCE: f64 = 0.1;
/// Modes, and the highest rate as a multiple of the average in per cent. Jellyfin asks for both the
/// same.
const MODES: [(&str, u64); 3] = [("CBR", 100), ("VBR", 100), ("VBR", 150)];

/// Every mode of each encoder.
pub fn tasks(gpu: &'static TestGpu) -> Vec<Task> {
    let all = Target::ALL.into_iter().flat_map(|target| MODES.map(|mode| (target, mode)));
    all.map(|(target, (mode, highest))| {
        let what =
            format!("{} {mode}, {} kbit/s, at most {highest} %", target.name(), ASKED / 1000);
        let check = move || check(gpu, target, mode, ASKED * highest / 100);
        Task { table: "Rate control", what, sample: true, check: Box::new(check) }
    })
    .collect()
}

fn check(gpu: &'static TestGpu, target: Target, mode: &str, highest: u64) -> Finding {
    let mut finding = Finding::default();
    let promise = promise(&gpu.device, &gpu.report, (Source::H264, SIZE), (target, SIZE));
    let (width, height) = SIZE;
    // Grain, of which there is always more than bits.
    let film = stand::clip::make(
        "grain.mkv",
        &format!(
            "-f lavfi -i testsrc2=s={width}x{height}:r={RATE}:d={SECONDS},noise=alls=30:allf=t {}",
            Source::H264.encoder()
        ),
    );
    let edits = format!(
        "-rc_mode={mode} -b:v={ASKED} -maxrate={highest} -bufsize={} -vf=scale_vaapi=format=nv12",
        2 * highest
    );
    let wish = Wish {
        source: &film,
        target,
        rate: (RATE, 1),
        segment: 3,
        edits: &edits,
        device: Some(&gpu.device),
    };
    let stream = match stream::run(&wish) {
        Ok(stream) => stream,
        Err(left) => {
            left.tell(Some(&promise), &mut finding);
            return finding;
        }
    };
    stream.compare_place(Some(&promise), &mut finding);
    let packets = stream.output.segments.iter().flat_map(|segment| segment.of(true));
    let (frames, bytes) = packets.fold((0, 0), |(n, sum), packet| (n + 1, sum + packet.bytes));
    finding.expect(frames == RATE * SECONDS, || format!("{frames} frames"));
    let kbps = (bytes * 8) as f64 / SECONDS as f64 / 1000.0;
    let off = kbps * 1000.0 / ASKED as f64 - 1.0;
    finding.expect(off.abs() <= TOLERANCE, || {
        format!("{kbps:.0} kbit/s, {:+.1} % of what was asked for", off * 100.0)
    });
    finding.measured("kbit/s", kbps.round());
    finding.measured("off by %", (off * 1000.0).round() / 10.0);
    finding
}
