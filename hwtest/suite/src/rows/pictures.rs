//! Every decoder, encoder and size: that the stream runs where it was promised to, that no frame is
//! missing, that IDRs are on the grid, and that pictures are those of ffmpeg's decode of the same
//! film, scaled by ffmpeg.

use std::path::{Path, PathBuf};

use stand::gpu::TestGpu;
use stand::output::{capture, ssim_to};

use super::codec::{Source, Target};
use super::promise::promise;
use super::stream::{self, Rate, Wish};
use super::{Finding, Task};

/// Least average similarity of pictures.
const SIMILAR: f64 = 0.97;
/// By how much the worst may be below.
const WORST: f64 = 0.08;

/// A film's size and what becomes of it.
struct Size {
    source: (u32, u32),
    target: (u32, u32),
    rate: Rate,
    frames: u64,
    /// Bits per second: what Jellyfin's players ask for at this height.
    bitrate: u64,
    /// `-rc_mode`s that are asked for.
    modes: &'static [&'static str],
}

const SIZES: [Size; 5] = [
    Size {
        source: (640, 360),
        target: (640, 360),
        rate: (25, 1),
        frames: 60,
        bitrate: 1_500_000,
        modes: &["CBR", "VBR"],
    },
    Size {
        source: (1280, 720),
        target: (640, 360),
        rate: (24_000, 1001),
        frames: 60,
        bitrate: 1_500_000,
        modes: &["VBR"],
    },
    Size {
        source: (1920, 1080),
        target: (1280, 720),
        rate: (25, 1),
        frames: 36,
        bitrate: 4_000_000,
        modes: &["CBR"],
    },
    Size {
        source: (3840, 2160),
        target: (1920, 1080),
        rate: (24, 1),
        frames: 12,
        bitrate: 10_000_000,
        modes: &["VBR"],
    },
    // Upright, and of sides that are no whole number of blocks.
    Size {
        source: (406, 722),
        target: (270, 480),
        rate: (30_000, 1001),
        frames: 60,
        bitrate: 1_500_000,
        modes: &["VBR"],
    },
];

/// Every row. MPEG-2 has no level for 4K. In the sample are every source and target at the first size, and
/// one source at each of the others.
pub fn tasks(gpu: &'static TestGpu) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (place, size) in SIZES.iter().enumerate() {
        for (index, source) in Source::ALL.into_iter().enumerate() {
            if source == Source::Mpeg2 && size.source.1 > 1152 && size.source.0 > 1920 {
                continue;
            }
            for target in Target::ALL {
                for mode in size.modes {
                    let what = format!(
                        "{} {}x{} to {} {}x{}, {mode}",
                        source.name(),
                        size.source.0,
                        size.source.1,
                        target.name(),
                        size.target.0,
                        size.target.1
                    );
                    let check = move || check(gpu, size, source, target, mode);
                    let first = place == 0 && *mode == size.modes[0];
                    let sample = first || place > 0 && index == place - 1;
                    tasks.push(Task { table: "Pictures", what, sample, check: Box::new(check) });
                }
            }
        }
    }
    tasks
}

fn film(source: Source, size: &Size) -> PathBuf {
    let ((width, height), (frames, seconds)) = (size.source, size.rate);
    let name = format!("film-{}-{width}x{height}-{}.mkv", source.word(), size.frames);
    // Motion everywhere, and a little grain.
    let arguments = format!(
        "-f lavfi -i mandelbrot=s={width}x{height}:r={frames}/{seconds}:maxiter=100:end_scale=0.05,\
         noise=alls=2:allf=t -frames:v {} {}",
        size.frames,
        source.encoder()
    );
    stand::clip::make(&name, &arguments)
}

/// How many frames ffmpeg decodes of a film.
fn decoded(film: &Path) -> u64 {
    let film = film.to_str().expect("a clip's path is text");
    let count = ["-v", "error", "-count_frames", "-select_streams", "v:0"];
    let shown = ["-show_entries", "stream=nb_read_frames", "-of", "default=nw=1:nk=1", film];
    let text = String::from_utf8(capture("ffprobe", &[&count[..], &shown].concat()));
    text.expect("a number").trim().parse().expect("a number")
}

fn check(
    gpu: &'static TestGpu,
    size: &'static Size,
    source: Source,
    target: Target,
    mode: &str,
) -> Finding {
    let mut finding = Finding::default();
    let promise = promise(&gpu.device, &gpu.report, (source, size.source), (target, size.target));
    let film = film(source, size);
    let Size { target: (width, height), bitrate, .. } = size;
    let edits = format!(
        "-rc_mode={mode} -b:v={bitrate} -maxrate={bitrate} -bufsize={} \
         -vf=setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,\
         scale_vaapi=w={width}:h={height}:format=nv12:extra_hw_frames=24",
        2 * bitrate
    );
    let wish = Wish {
        source: &film,
        target,
        rate: size.rate,
        segment: 1,
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
    let theirs = decoded(&film);
    finding.expect(theirs == size.frames, || format!("ffmpeg decodes {theirs} frames of the clip"));
    let times = stream.numbers(&mut finding);
    let expected: Vec<u64> = (0..theirs).collect();
    finding.expect(times == expected, || format!("{} frames, ffmpeg {theirs}", times.len()));
    stream.compare_keyframes(0, theirs - 1, &mut finding);
    let scale = format!("scale={width}:{height}:flags=bicubic,format=yuv420p");
    let directory = stream.directory.path();
    let (worst, average, frames) = ssim_to(&stream.output.whole, &film, &scale, directory);
    finding
        .expect(frames as u64 == theirs, || format!("{frames} frames decode, ffmpeg's {theirs}"));
    finding.expect(average >= SIMILAR && worst >= SIMILAR - WORST, || {
        format!("SSIM {average:.4}, worst {worst:.4}")
    });
    finding.measured("frames", frames as f64);
    finding.measured("SSIM", average);
    finding.measured("SSIM, worst", worst);
    finding
}
