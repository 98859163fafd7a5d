//! HDR10 on the software GPU, mapped to SDR by its driver: the output against ITU-R BT.2390 computed
//! here, in double precision and without a table, from ffmpeg's decode of the same film.

use std::path::{Path, PathBuf};

use gpu::{Device, Operation};
use hwtest_suite::{VirtualMachine, built};
use session::Ending;
use stand::line::Line;
use stand::output::{Output, capture, looks};
use stand::{Report, Run, clip};

const WIDTH: usize = 320;
const HEIGHT: usize = 180;
const FRAMES: usize = 100;
/// Every so many frames one is compared.
const COMPARED: usize = 11;
/// Greatest mean error of luma, of 255: 8 bits instead of 10, the tables and the encoder.
const LUMA: f64 = 1.0;
/// The same of chroma, whose samples stand between those of luma.
const CHROMA: f64 = 1.5;

/// A film in HDR10 that goes up to 1000 cd/m2; `light` is what x265 is to say of it.
fn film(name: &str, light: &str) -> PathBuf {
    let colours = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc";
    clip::make(
        name,
        &format!(
            "-f lavfi -i testsrc2=s={WIDTH}x{HEIGHT}:r=25:d=4 -f lavfi -i sine=d=4 \
             -vf format=yuv420p10le,lutyuv=y=64+(val-64)*.75:u=512+(val-512)*.3:v=512+(val-512)*.3,\
             setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc \
             -c:v libx265 -preset ultrafast -crf 12 \
             -x265-params log-level=error:keyint=50:repeat-headers=1:{colours}{light} -c:a aac -ac 2"
        ),
    )
}

/// Jellyfin's command for a VA-API driver's tone mapping, of other size and filters.
fn line(film: &Path, filters: &str, directory: &Path) -> Line {
    let chain = format!(
        "-vf=setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc,\
         {filters}tonemap_vaapi=format=nv12:p=bt709:t=bt709:m=bt709:extra_hw_frames=32"
    );
    Line::corpus("055").reading(film).writing(directory).edited(&chain)
}

struct Mapped {
    report: Report,
    output: Output,
    _directory: tempfile::TempDir,
}

/// The virtual GPU, and what streams may use of it.
fn machine() -> (VirtualMachine, Device) {
    let machine = VirtualMachine::softva(&[]);
    let device = machine.probe().nodes[0].device().unwrap();
    (machine, device)
}

fn run(film: &Path, filters: &str, machine: &VirtualMachine, device: Option<&Device>) -> Mapped {
    let directory = tempfile::tempdir().unwrap();
    let plan = line(film, filters, directory.path()).plan();
    let worker = machine.command(built("rendergate-worker"));
    let report = Run::warm_by(worker).given_on(&plan, device).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    let backend = if device.is_some() { "vaapi" } else { "software" };
    assert_eq!(report.backend, backend, "{:?}", report.reason);
    let output = Output::read(directory.path(), &plan);
    assert_eq!(output.count(true), FRAMES);
    assert_eq!(looks(&output.whole).1, "bt709 bt709 bt709");
    Mapped { report, output, _directory: directory }
}

/// Every picture of a film as planar 4:2:0.
fn pictures(film: &Path, format: &str) -> Vec<u8> {
    let input = ["-v", "error", "-noautorotate", "-i", film.to_str().unwrap(), "-map", "0:v"];
    let output = ["-fps_mode", "passthrough", "-pix_fmt", format, "-f", "rawvideo", "-"];
    capture("ffmpeg", &[&input[..], &output].concat())
}

/// One of them, of 8 bits, as numbers.
fn eight_bits(picture: &[u8]) -> Vec<f64> {
    picture.iter().map(|value| f64::from(*value)).collect()
}

/// PQ to cd/m2 (SMPTE ST 2084).
fn light(value: f64) -> f64 {
    let (m1, m2) = (1305.0 / 8192.0, 2523.0 / 32.0);
    let (c1, c2, c3) = (107.0 / 128.0, 2413.0 / 128.0, 2392.0 / 128.0);
    let power = value.max(0.0).powf(1.0 / m2);
    10_000.0 * ((power - c1).max(0.0) / (c2 - c3 * power)).powf(1.0 / m1)
}

/// Its inverse.
fn signal(light: f64) -> f64 {
    let (m1, m2) = (1305.0 / 8192.0, 2523.0 / 32.0);
    let (c1, c2, c3) = (107.0 / 128.0, 2413.0 / 128.0, 2392.0 / 128.0);
    let power = (light / 10_000.0).powf(m1);
    ((c1 + c2 * power) / (1.0 + c3 * power)).powf(m2)
}

/// BT.2390's curve from a peak to another, cd/m2 (section 5.4.1 without a black level).
fn curve(value: f64, from: f64, to: f64) -> f64 {
    let peak = signal(from);
    let e1 = (signal(value) / peak).min(1.0);
    let most = signal(to) / peak;
    let knee = 1.5 * most - 0.5;
    if e1 < knee {
        return value;
    }
    let t = (e1 - knee) / (1.0 - knee);
    let (t2, t3) = (t.powi(2), t.powi(3));
    let e2 = (2.0 * t3 - 3.0 * t2 + 1.0) * knee
        + (t3 - 2.0 * t2 + t) * (1.0 - knee)
        + (-2.0 * t3 + 3.0 * t2) * most;
    light(e2 * peak)
}

/// A pixel's Y'CbCr of BT.2020 and PQ to that of BT.709, both around zero.
fn mapped(y: f64, cb: f64, cr: f64, peak: f64) -> [f64; 3] {
    /// Reference white of BT.2408.
    const WHITE: f64 = 203.0;
    let rgb = [
        y + 1.4746 * cr,
        y - 0.2627_f64.mul_add(1.4746 * cr, 0.0593 * 1.8814 * cb) / 0.678,
        y + 1.8814 * cb,
    ];
    let rgb = rgb.map(|value| light(value.clamp(0.0, 1.0)));
    let most = rgb.into_iter().fold(1e-6, f64::max);
    let factor = curve(most, peak, WHITE) / most / WHITE;
    let [r, g, b] = rgb.map(|value| value * factor);
    // BT.2087, then BT.1886.
    let bt709 = [
        1.6605 * r - 0.5876 * g - 0.0728 * b,
        -0.1246 * r + 1.1329 * g - 0.0083 * b,
        -0.0182 * r - 0.1006 * g + 1.1187 * b,
    ];
    let [r, g, b] = bt709.map(|value: f64| value.clamp(0.0, 1.0).powf(1.0 / 2.4));
    let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    [y, (b - y) / 1.8556, (r - y) / 1.5748]
}

/// A picture of 10 bits, mapped to 8.
fn reference(picture: &[u8], peak: f64, brightness: f64) -> Vec<f64> {
    let samples: Vec<f64> = picture
        .chunks_exact(2)
        .map(|pair| f64::from(u16::from_le_bytes([pair[0], pair[1]])))
        .collect();
    let (luma, chroma) = samples.split_at(WIDTH * HEIGHT);
    let (cb, cr) = chroma.split_at(WIDTH * HEIGHT / 4);
    let mut found = vec![0.0; WIDTH * HEIGHT * 3 / 2];
    for (at, value) in luma.iter().enumerate() {
        let block = at / WIDTH / 2 * (WIDTH / 2) + at % WIDTH / 2;
        let around = |value: f64| (value - 512.0) / 896.0;
        let [y, b, r] = mapped(
            (value - 64.0) / 876.0 + brightness / 219.0,
            around(cb[block]),
            around(cr[block]),
            peak,
        );
        found[at] = 16.0 + 219.0 * y;
        // A quarter of each of four.
        found[WIDTH * HEIGHT + block] += (128.0 + 224.0 * b) / 4.0;
        found[WIDTH * HEIGHT * 5 / 4 + block] += (128.0 + 224.0 * r) / 4.0;
    }
    found
}

/// Mean error of luma and chroma, of 255.
fn error(found: &[f64], expected: &[f64]) -> (f64, f64) {
    let mean = |range: std::ops::Range<usize>| {
        let sum: f64 = range.clone().map(|at| (found[at] - expected[at]).abs()).sum();
        sum / range.len() as f64
    };
    (mean(0..WIDTH * HEIGHT), mean(WIDTH * HEIGHT..WIDTH * HEIGHT * 3 / 2))
}

/// The worst picture's errors against the reference for a peak.
fn worst(film: &Path, output: &Output, peak: f64, brightness: f64) -> (f64, f64) {
    let size = WIDTH * HEIGHT * 3 / 2;
    let (ours, source) = (pictures(&output.whole, "yuv420p"), pictures(film, "yuv420p10le"));
    assert_eq!((ours.len(), source.len()), (FRAMES * size, FRAMES * size * 2));
    let pairs = ours.chunks_exact(size).zip(source.chunks_exact(2 * size));
    let errors = pairs
        .step_by(COMPARED)
        .map(|(a, b)| error(&eight_bits(a), &reference(b, peak, brightness)));
    errors.fold((0.0, 0.0), |worst, error| (worst.0.max(error.0), worst.1.max(error.1)))
}

const DISPLAY: &str =
    ":master-display=G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(10000000,50)";

#[test]
fn the_driver_maps_by_what_the_stream_says_of_its_light() {
    let light = format!("{DISPLAY}:max-cll=600,300");
    let film = film("hdr10-light.mkv", &light);
    let (machine, device) = machine();
    let mapped = run(&film, "", &machine, Some(&device));
    assert_eq!(mapped.report.description.matches("vapostproc").count(), 2);
    let (luma, chroma) = worst(&film, &mapped.output, 600.0, 0.0);
    println!("mean error against BT.2390: luma {luma:.3}, chroma {chroma:.3} of 255");
    assert!(luma < LUMA && chroma < CHROMA, "luma {luma:.3}, chroma {chroma:.3}");
    // The figure tells one peak from another.
    let (other, _) = worst(&film, &mapped.output, 1000.0, 0.0);
    assert!(other > LUMA && other > 2.0 * luma, "{other:.3}");
}

#[test]
fn a_stream_that_says_nothing_is_mapped_as_of_1000_candela() {
    let film = film("hdr10-bare.mkv", "");
    let (machine, device) = machine();
    let mapped = run(&film, "", &machine, Some(&device));
    let (luma, chroma) = worst(&film, &mapped.output, 1000.0, 0.0);
    println!("mean error against BT.2390: luma {luma:.3}, chroma {chroma:.3} of 255");
    assert!(luma < LUMA && chroma < CHROMA, "luma {luma:.3}, chroma {chroma:.3}");
}

/// As Jellyfin's own setting has it.
#[test]
fn the_driver_makes_it_brighter_first() {
    let film = film("hdr10-bare.mkv", "");
    let (machine, device) = machine();
    let mapped = run(&film, "procamp_vaapi=b=16,", &machine, Some(&device));
    assert_eq!(mapped.report.description.matches("vapostproc").count(), 3);
    let (luma, chroma) = worst(&film, &mapped.output, 1000.0, 16.0);
    println!("mean error against BT.2390: luma {luma:.3}, chroma {chroma:.3} of 255");
    assert!(luma < LUMA && chroma < CHROMA, "luma {luma:.3}, chroma {chroma:.3}");
}

#[test]
fn without_a_driver_s_tone_mapping_the_software_s_stands_between_decoder_and_encoder() {
    let film = film("hdr10-light.mkv", &format!("{DISPLAY}:max-cll=600,300"));
    let (machine, mut device) = machine();
    device.abilities.remove(&Operation::ToneMap);
    let ours = run(&film, "", &machine, Some(&device));
    let description = &ours.report.description;
    for element in ["vah265dec", "vapostproc", "rgtonemap", "vah264enc"] {
        assert!(description.contains(element), "{description}");
    }
    let software = run(&film, "", &machine, None);
    let size = WIDTH * HEIGHT * 3 / 2;
    let of = |mapped: &Mapped| pictures(&mapped.output.whole, "yuv420p");
    let (ours, theirs) = (of(&ours), of(&software));
    for (ours, theirs) in ours.chunks_exact(size).zip(theirs.chunks_exact(size)).step_by(COMPARED) {
        let (luma, chroma) = error(&eight_bits(ours), &eight_bits(theirs));
        assert!(luma < LUMA && chroma < CHROMA, "luma {luma:.3}, chroma {chroma:.3}");
    }
}
