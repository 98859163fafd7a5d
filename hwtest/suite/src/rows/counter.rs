//! Films whose frames carry their number: that none is lost, doubled or moved, from the start and
//! after seeks; and that IDRs are on the grid.

use std::path::PathBuf;

use stand::gpu::TestGpu;
use stand::output::capture;

use super::codec::{Source, Target};
use super::promise::promise;
use super::stream::{self, Rate, Wish};
use super::{Finding, Task, numbers};

const SIZE: (u32, u32) = (640, 360);
const SCALED: (u32, u32) = (320, 180);
/// Length of a film in seconds: several segments and several groups of pictures.
const SECONDS: u64 = 7;
/// Film, PAL, and NTSC's fields as frames.
const RATES: [(Rate, &str); 3] =
    [((24_000, 1001), "23.976"), ((25, 1), "25"), ((60_000, 1001), "59.94")];
/// Where streams begin, in milliseconds: on a keyframe of the films, on Jellyfin's grid of three
/// times 1.001 seconds, and on no frame at all.
const STARTS: [u64; 4] = [0, 2_000, 3_003, 4_321];
const BITRATE: &str = "-b:v=1000000 -maxrate=1000000 -bufsize=2000000";

/// Every source at every rate from every start, on the GPU and in software. Which codec it becomes
/// changes from row to row, so that each meets every start. In the sample each source meets every rate,
/// each time from another start, on the GPU alone.
pub fn tasks(gpu: &'static TestGpu) -> Vec<Task> {
    let mut tasks = Vec::new();
    for on_gpu in [true, false] {
        for (index, source) in Source::ALL.into_iter().enumerate() {
            for (step, (rate, rate_name)) in RATES.into_iter().enumerate() {
                for (place, start) in STARTS.into_iter().enumerate() {
                    let target = Target::ALL[(index + step + place) % Target::ALL.len()];
                    let seconds = start as f64 / 1000.0;
                    let what = format!(
                        "{} at {rate_name}, from {seconds} s, to {}",
                        source.name(),
                        target.name()
                    );
                    let gpu = on_gpu.then_some(gpu);
                    let check = move || check(gpu, source, rate, start, target);
                    let table = if on_gpu { "Frame counter" } else { "Frame counter, software" };
                    let sample = on_gpu && place == (index + step) % STARTS.len();
                    tasks.push(Task { table, what, sample, check: Box::new(check) });
                }
            }
        }
    }
    tasks
}

fn frames(rate: Rate) -> u64 {
    SECONDS * rate.0 / rate.1
}

/// The first frame that isn't before the start in milliseconds, as ffmpeg begins, by the times that
/// Matroska keeps: whole milliseconds.
fn first_from(start: u64, (frames, seconds): Rate) -> u64 {
    let kept = |number: u64| (2000 * number * seconds + frames) / (2 * frames);
    (0..).find(|number| kept(*number) >= start).expect("numbers have no end")
}

fn film(source: Source, rate: Rate) -> PathBuf {
    let (width, height) = SIZE;
    let (frames_per, seconds) = rate;
    // Matroska, as it can't say a rate and rounds times to milliseconds: the hardest of them.
    let name = format!("counter-{}-{frames_per}-{seconds}.mkv", source.word());
    let arguments = format!(
        "-f rawvideo -pix_fmt yuv420p -s {width}x{height} -r {frames_per}/{seconds} -i pipe:0 {}",
        source.encoder()
    );
    stand::clip::make_from(&name, &arguments, |pipe| {
        for number in 0..frames(rate) {
            let picture = numbers::draw(number, width as usize, height as usize);
            pipe.write_all(&picture).expect("ffmpeg reads its pictures");
        }
    })
}

fn check(
    gpu: Option<&'static TestGpu>,
    source: Source,
    rate: Rate,
    start: u64,
    target: Target,
) -> Finding {
    let mut finding = Finding::default();
    let promise =
        gpu.map(|gpu| promise(&gpu.device, &gpu.report, (source, SIZE), (target, SCALED)));
    let seek = if start == 0 { String::new() } else { format!("ss={}", start as f64 / 1000.0) };
    let edits =
        format!("{BITRATE} -vf=scale_vaapi=w={}:h={}:format=nv12 {seek}", SCALED.0, SCALED.1);
    let wish = Wish {
        source: &film(source, rate),
        target,
        rate,
        segment: 1,
        edits: &edits,
        device: gpu.map(|gpu| &gpu.device),
    };
    let stream = match stream::run(&wish) {
        Ok(stream) => stream,
        Err(left) => {
            left.tell(promise.as_ref(), &mut finding);
            return finding;
        }
    };
    stream.compare_place(promise.as_ref(), &mut finding);
    let first = first_from(start, rate);
    let expected: Vec<u64> = (first..frames(rate)).collect();
    let times = stream.numbers(&mut finding);
    finding
        .expect(times == expected, || format!("times are of frames {}", differ(&times, &expected)));
    let shown = read(&stream.output.whole, &mut finding);
    finding.expect(shown == expected, || format!("shown are frames {}", differ(&shown, &expected)));
    stream.compare_keyframes(first, frames(rate) - 1, &mut finding);
    finding.measured("frames", shown.len() as f64);
    finding.measured("first", first as f64);
    finding
}

/// The numbers of the frames in the order in which they are shown.
fn read(whole: &std::path::Path, finding: &mut Finding) -> Vec<u64> {
    let whole = whole.to_str().expect("a temporary path is text");
    let input = ["-v", "error", "-nostdin", "-i", whole, "-map", "0:v"];
    let output = ["-vsync", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "pipe:1"];
    let pictures = capture("ffmpeg", &[&input[..], &output].concat());
    let (width, height) = (SCALED.0 as usize, SCALED.1 as usize);
    let read = pictures.chunks_exact(width * height).map(|one| numbers::read(one, width, height));
    let mut shown = Vec::new();
    for (place, number) in read.enumerate() {
        match number {
            Ok(number) => shown.push(number),
            Err(why) => finding.faults.push(format!("picture {place} can't be read: {why}")),
        }
    }
    shown
}

/// Where two lists first differ.
fn differ(ours: &[u64], expected: &[u64]) -> String {
    let at = ours.iter().zip(expected).take_while(|(a, b)| a == b).count();
    format!(
        "{:?}.. ({} in all) where {:?}.. ({}) were expected, from place {at} on",
        &ours[at..ours.len().min(at + 4)],
        ours.len(),
        &expected[at..expected.len().min(at + 4)],
        expected.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_matroska_say_which_frame_is_first() {
        assert_eq!(first_from(0, (25, 1)), 0);
        assert_eq!(first_from(3_003, (25, 1)), 76);
        assert_eq!(first_from(3_003, (24_000, 1001)), 72);
        // 4.32098 s, of which 4.321 is kept.
        assert_eq!(first_from(4_321, (60_000, 1001)), 259);
    }
}
