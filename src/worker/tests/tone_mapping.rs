//! HDR films as SDR: the picture against a reference that is computed from the standards alone.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use ffmpeg_args::*;
use session::Ending;
use support::output::{self, Output};
use support::{Run, clip, encode_of, plan};

const WIDTH: usize = 426;
const HEIGHT: usize = 240;
const FRAMES: usize = 75;
/// cd/m2, as the clips say of themselves.
const PEAK: f64 = 1000.0;
/// cd/m2 of white in SDR (ITU-R BT.2408).
const WHITE: f64 = 203.0;

/// Three seconds of HEVC Main 10, with what HDR10 says of its grading or without.
fn hdr(name: &str, transfer: &str, graded: bool) -> PathBuf {
    let tags = format!("colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc");
    let grading = "hdr-opt=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)\
                   WP(15635,16450)L(10000000,1):max-cll=1000,400";
    let grading = if graded { format!(":{grading}") } else { String::new() };
    // Colours that BT.709 has nearly all of, darker and brighter than white.
    clip(
        name,
        &format!(
            "-f lavfi -i testsrc2=s={WIDTH}x{HEIGHT}:r=25:d=3 -vf \
             format=yuv420p10le,lutyuv=y=64+(val-64)*0.8:u=512+(val-512)*0.25:v=512+(val-512)*0.25 \
             -c:v libx265 -preset ultrafast -crf 4 -pix_fmt yuv420p10le \
             -color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc \
             -x265-params log-level=error:keyint=50:repeat-headers=1:{tags}{grading}"
        ),
    )
}

/// Frames as ffmpeg decodes them, in planes one after another.
fn decoded(path: &Path, format: &str) -> Vec<u8> {
    let output = Command::new("/usr/bin/ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-map", "0:v", "-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", format, "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

// --- The reference -------------------------------------------------------------------------------

fn pq_eotf(code: f64) -> f64 {
    let (m1, m2) = (2610.0 / 16384.0, 2523.0 / 4096.0 * 128.0);
    let (c1, c2, c3) = (3424.0 / 4096.0, 2413.0 / 4096.0 * 32.0, 2392.0 / 4096.0 * 32.0);
    let power = code.max(0.0).powf(1.0 / m2);
    10_000.0 * ((power - c1).max(0.0) / (c2 - c3 * power)).powf(1.0 / m1)
}

fn pq_inverse(light: f64) -> f64 {
    let (m1, m2) = (2610.0 / 16384.0, 2523.0 / 4096.0 * 128.0);
    let (c1, c2, c3) = (3424.0 / 4096.0, 2413.0 / 4096.0 * 32.0, 2392.0 / 4096.0 * 32.0);
    let power = (light / 10_000.0).max(0.0).powf(m1);
    ((c1 + c2 * power) / (1.0 + c3 * power)).powf(m2)
}

/// ITU-R BT.2390-8, 5.4.1, with the knee's offset as Jellyfin's filters have it.
fn eetf(light: f64, peak: f64) -> f64 {
    let most = pq_inverse(peak);
    let (e1, limit) = ((pq_inverse(light) / most).min(1.0), pq_inverse(WHITE) / most);
    let knee = 2.0 * limit - 1.0;
    if e1 < knee {
        return light;
    }
    let t = (e1 - knee) / (1.0 - knee);
    let p = (2.0 * t.powi(3) - 3.0 * t.powi(2) + 1.0) * knee
        + (t.powi(3) - 2.0 * t.powi(2) + t) * (1.0 - knee)
        + (-2.0 * t.powi(3) + 3.0 * t.powi(2)) * limit;
    pq_eotf(p * most)
}

fn hlg_light(rgb: [f64; 3]) -> [f64; 3] {
    let scene = rgb.map(|e| {
        if e <= 0.5 {
            e * e / 3.0
        } else {
            (((e - 0.55991073) / 0.17883277).exp() + 0.28466892) / 12.0
        }
    });
    let luminance = 0.2627 * scene[0] + 0.678 * scene[1] + 0.0593 * scene[2];
    scene.map(|part| 1000.0 * part * luminance.max(1e-9).powf(0.2))
}

/// Eight-bit luma of a ten-bit pixel.
fn reference(pixel: [f64; 3], hlg: bool, peak: f64) -> f64 {
    let (y, cb, cr) =
        ((pixel[0] - 64.0) / 876.0, (pixel[1] - 512.0) / 896.0, (pixel[2] - 512.0) / 896.0);
    let (r, b) = (y + 1.4746 * cr, y + 1.8814 * cb);
    let g = (y - 0.2627 * r - 0.0593 * b) / 0.678;
    let coded = [r, g, b].map(|part: f64| part.clamp(0.0, 1.0));
    let wide = if hlg { hlg_light(coded) } else { coded.map(pq_eotf) };
    let narrow = [
        1.6605 * wide[0] - 0.5876 * wide[1] - 0.0728 * wide[2],
        -0.1246 * wide[0] + 1.1329 * wide[1] - 0.0083 * wide[2],
        -0.0182 * wide[0] - 0.1006 * wide[1] + 1.1187 * wide[2],
    ]
    .map(|part: f64| part.max(0.0));
    let most = narrow.into_iter().fold(1e-4, f64::max);
    let shown =
        narrow.map(|part| (part * eetf(most, peak) / most / WHITE).min(1.0).powf(1.0 / 2.4));
    16.0 + 219.0 * (0.2126 * shown[0] + 0.7152 * shown[1] + 0.0722 * shown[2])
}

/// Mean difference of luma from the reference, of 255, over some frames.
fn error(source: &Path, ours: &Path, hlg: bool, peak: f64) -> f64 {
    let (ten, eight) = (decoded(source, "yuv420p10le"), decoded(ours, "yuv420p"));
    let size = WIDTH * HEIGHT * 3 / 2;
    assert_eq!((ten.len() / size / 2, eight.len() / size), (FRAMES, FRAMES));
    let (mut sum, mut count) = (0.0, 0);
    for frame in (0..FRAMES).step_by(25) {
        let ten: Vec<f64> = ten[2 * frame * size..2 * (frame + 1) * size]
            .chunks_exact(2)
            .map(|bytes| f64::from(u16::from_le_bytes([bytes[0], bytes[1]])))
            .collect();
        for at in (0..WIDTH * HEIGHT).step_by(3) {
            let (x, y) = (at % WIDTH, at / WIDTH);
            let chroma = WIDTH * HEIGHT + y / 2 * (WIDTH / 2) + x / 2;
            let pixel = [ten[at], ten[chroma], ten[chroma + WIDTH * HEIGHT / 4]];
            let found = f64::from(eight[frame * size + at]);
            sum += (found - reference(pixel, hlg, peak)).abs();
            count += 1;
        }
    }
    sum / f64::from(count)
}

fn tone_map(from: HdrTransfer, peak: Option<f64>) -> ToneMap {
    ToneMap {
        from,
        curve: ToneCurve::Bt2390,
        peak,
        desaturation: Some(0.0),
        parameter: None,
        mode: None,
        brightness: None,
        contrast: None,
    }
}

/// Runs a film; says how far its luma is from the reference with that peak.
fn run(source: &Path, tones: ToneMap, peak: f64) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let mut plan = plan(source, directory.path());
    plan.audio = None;
    let hlg = tones.from == HdrTransfer::Hlg;
    let encode = encode_of(&mut plan);
    encode.tone_map = Some(tones);
    encode.rate = RateControl { crf: Some(4.0), ..RateControl::default() };
    let report = Run::start(&plan).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    assert!(report.description.contains("rgtonemap"), "{}", report.description);
    let output = Output::read(directory.path(), &plan);
    let (_, colours) = output::looks(&output.whole);
    assert!(colours.contains("bt709"), "{colours}");
    error(source, &output.whole, hlg, peak)
}

/// x264 at its best is 0.3 away from what it is given; rounding is 0.25.
const NEAR: f64 = 1.0;

#[test]
fn hdr10_by_its_own_grading() {
    let film = hdr("hdr10.mkv", "smpte2084", true);
    let error = run(&film, tone_map(HdrTransfer::Pq, None), PEAK);
    println!("mean error of luma {error:.3} of 255");
    assert!(error < NEAR, "{error:.3}");
}

#[test]
fn hdr10_by_the_command_s_peak() {
    let film = hdr("hdr10-plain.mkv", "smpte2084", false);
    // In tens of cd/m2.
    let error = run(&film, tone_map(HdrTransfer::Pq, Some(200.0)), 2000.0);
    println!("mean error of luma {error:.3} of 255");
    assert!(error < NEAR, "{error:.3}");
    // The reference tells one peak from another.
    let other = run(&film, tone_map(HdrTransfer::Pq, Some(40.0)), 2000.0);
    assert!(other > 2.0 * NEAR, "{other:.3}");
}

#[test]
fn hlg() {
    let film = hdr("hlg.mkv", "arib-std-b67", false);
    let error = run(&film, tone_map(HdrTransfer::Hlg, None), PEAK);
    println!("mean error of luma {error:.3} of 255");
    assert!(error < NEAR, "{error:.3}");
}
