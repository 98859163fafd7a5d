//! Tone mapping: a PQ or HLG picture of BT.2020 to BT.709, eight bits. Pure.
//!
//! What Jellyfin's filters do, in their order (contract 2.5): the display's light is taken relative to
//! the reference white of ITU-R BT.2408, brought to BT.709's primaries (BT.2087), led to what a
//! display of that white can show, and coded for it (BT.1886). Each of these steps is a table. (One
//! table of all of them, by luma and chroma, would be faster; at the edges of BT.709's colours
//! results bend too sharply for it, and were off by 4 of 255 on average.)
//!
//! Invariant: [`Tones::map`] is the definition, exact in `f64`; [`Tables`] is what is fast.

/// cd/m2 of white in SDR (ITU-R BT.2408).
pub const WHITE: f64 = 203.0;
/// cd/m2 of PQ's greatest value (SMPTE ST 2084).
const PQ_MOST: f64 = 10_000.0;
/// cd/m2 of the display that HLG is graded for (ITU-R BT.2100).
const HLG_MOST: f64 = 1000.0;
/// cd/m2 that a stream is taken to reach if nothing says.
const USUAL_PEAK: f64 = 1000.0;
/// cd/m2 of one unit of the filters' `peak`.
const PEAK_UNIT: f64 = 10.0;
/// Least peak that is mapped at all, in whites.
const LEAST_PEAK: f64 = 1.1;
/// Offsets of BT.2390's knee that the filters take.
const KNEES: [f64; 2] = [0.5, 2.0];
/// Stands for nothing where something is divided by.
const LITTLE: f64 = 1e-6;

/// Linear BT.2020 to linear BT.709 (ITU-R BT.2087).
const TO_BT709: [[f64; 3]; 3] =
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]];
/// Luma of BT.709 (ITU-R BT.709, 3.2).
const LUMA: [f64; 3] = [0.2126, 0.7152, 0.0722];

/// How a source's light is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transfer {
    /// SMPTE ST 2084.
    #[default]
    Pq,
    /// ITU-R BT.2100 hybrid log-gamma.
    Hlg,
}

/// What leads the source's light to the display's; ffmpeg's names and parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Curve {
    /// ITU-R BT.2390-8, 5.4; the parameter sets where the knee is, 0.5 is the report's.
    #[default]
    Bt2390,
    /// Hable's, of Uncharted 2.
    Hable,
    /// `x / (x + p)`, p from the parameter as contrast.
    Reinhard,
    /// Linear up to the parameter, a Moebius transform from there.
    Mobius,
    /// A power of the parameter's inverse.
    Gamma,
    /// The parameter's share of the peak.
    Linear,
    /// Cut off.
    Clip,
    /// As it is.
    None,
}

/// What the curve is laid upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The greatest of red, green and blue; the others follow in proportion.
    #[default]
    Max,
    /// Each by itself.
    Rgb,
}

/// A tone mapping with all its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tones {
    /// Of the source.
    pub transfer: Transfer,
    /// The curve.
    pub curve: Curve,
    /// What it is laid upon.
    pub mode: Mode,
    /// The source's greatest light, in whites.
    pub peak: f64,
    /// The curve's own, if not its default.
    pub parameter: Option<f64>,
    /// How far bright colours fade, 0 for not.
    pub desaturation: f64,
    /// Added to luma before, in eight-bit steps.
    pub brightness: f64,
    /// Factor of luma before.
    pub contrast: f64,
}

impl Default for Tones {
    fn default() -> Self {
        Self {
            transfer: Transfer::Pq,
            curve: Curve::Bt2390,
            mode: Mode::Max,
            peak: USUAL_PEAK / WHITE,
            parameter: None,
            desaturation: 0.0,
            brightness: 0.0,
            contrast: 1.0,
        }
    }
}

/// The source's peak in whites: what the command says, in tens of cd/m2, else what the stream says of
/// itself, in cd/m2, else what is usual. A stated one below white is taken for the usual, as the
/// filters do.
pub fn peak(stated: Option<f64>, measured: Option<f64>) -> f64 {
    let stated = stated.filter(|peak| *peak > 0.0).map(|peak| peak * PEAK_UNIT);
    let stated = stated.map(|peak| if peak > WHITE { peak } else { USUAL_PEAK });
    let measured = measured.filter(|peak| *peak > 0.0);
    (stated.or(measured).unwrap_or(USUAL_PEAK) / WHITE).max(LEAST_PEAK)
}

/// PQ to whites (ST 2084, 5.2).
fn pq_to_light(value: f64) -> f64 {
    let power = value.max(0.0).powf(1.0 / 78.843_75);
    let ratio = (power - 0.835_937_5).max(0.0) / (18.851_562_5 - 18.687_5 * power);
    PQ_MOST / WHITE * ratio.powf(1.0 / 0.159_301_757_812_5)
}

/// Whites to PQ (ST 2084, 5.3).
fn light_to_pq(light: f64) -> f64 {
    let power = (light * WHITE / PQ_MOST).max(0.0).powf(0.159_301_757_812_5);
    ((0.835_937_5 + 18.851_562_5 * power) / (1.0 + 18.687_5 * power)).powf(78.843_75)
}

/// HLG's inverse OETF (BT.2100, table 5).
fn hlg_to_scene(value: f64) -> f64 {
    let value = value.max(0.0);
    if value <= 0.5 {
        value * value / 3.0
    } else {
        (((value - 0.559_910_73) / 0.178_832_77).exp() + 0.284_668_92) / 12.0
    }
}

/// HLG's OOTF for a display of [`HLG_MOST`] (BT.2100, table 5): scene luminance to gain.
fn hlg_gain(luminance: f64) -> f64 {
    HLG_MOST / WHITE * luminance.max(LITTLE).powf(0.2)
}

/// Light for BT.1886's display.
fn display(light: f64) -> f64 {
    light.clamp(0.0, 1.0).powf(1.0 / 2.4)
}

fn hable(x: f64) -> f64 {
    (x * (0.15 * x + 0.05) + 0.004) / (x * (0.15 * x + 0.5) + 0.06) - 0.02 / 0.3
}

impl Tones {
    /// What becomes of an amount of light, in whites. More than the peak counts as the peak: a spline
    /// falls again behind its end.
    fn led(&self, light: f64) -> f64 {
        let light = if self.curve == Curve::None { light } else { light.min(self.peak) };
        self.bent(light).min(1.0)
    }

    fn bent(&self, light: f64) -> f64 {
        let peak = self.peak;
        let parameter = |usual| self.parameter.unwrap_or(usual);
        match self.curve {
            Curve::Bt2390 => self.bt2390(light),
            Curve::Hable => hable(light) / hable(peak),
            Curve::Reinhard => {
                let contrast = parameter(0.5).clamp(LITTLE, 1.0);
                let p = (1.0 - contrast) / contrast;
                light / (light + p) * (peak + p) / peak
            }
            Curve::Mobius => {
                let j = parameter(0.3);
                if light <= j {
                    return light;
                }
                let a = -j * j * (peak - 1.0) / (j * j - 2.0 * j + peak);
                let b = (j * j - 2.0 * j * peak + peak) / (peak - 1.0).max(LITTLE);
                (b * b + 2.0 * b * j + j * j) / (b - a) * (light + a) / (light + b)
            }
            Curve::Gamma => {
                let power = |x: f64| (x / peak).powf(1.0 / parameter(1.8));
                if light > 0.05 { power(light) } else { light * power(0.05) / 0.05 }
            }
            Curve::Linear => light * parameter(1.0) / peak,
            Curve::Clip => (light * parameter(1.0)).clamp(0.0, 1.0),
            Curve::None => light,
        }
    }

    /// BT.2390-8, 5.4.1: a Hermite spline above the knee, in PQ of the source's peak.
    fn bt2390(&self, light: f64) -> f64 {
        let most = light_to_pq(self.peak);
        let value = light_to_pq(light) / most;
        let limit = light_to_pq(1.0) / most;
        let offset = self.parameter.unwrap_or(1.0).clamp(KNEES[0], KNEES[1]);
        let knee = (1.0 + offset) * limit - offset;
        if value < knee {
            return light;
        }
        let t = (value - knee) / (1.0 - knee);
        let (t2, t3) = (t * t, t * t * t);
        let spline = (2.0 * t3 - 3.0 * t2 + 1.0) * knee
            + (t3 - 2.0 * t2 + t) * (1.0 - knee)
            + (3.0 * t2 - 2.0 * t3) * limit;
        pq_to_light(spline * most)
    }

    /// Linear BT.709 in whites of a coded BT.2020 pixel, each 0 to 1.
    fn light(&self, coded: [f64; 3]) -> [f64; 3] {
        let wide = match self.transfer {
            Transfer::Pq => coded.map(pq_to_light),
            Transfer::Hlg => {
                let scene = coded.map(hlg_to_scene);
                let luminance = 0.2627 * scene[0] + 0.678 * scene[1] + 0.0593 * scene[2];
                let gain = hlg_gain(luminance);
                scene.map(|part| part * gain)
            }
        };
        TO_BT709.map(|row| row[0] * wide[0] + row[1] * wide[1] + row[2] * wide[2])
    }

    /// A pixel of ten-bit code values (luma, then both of chroma, narrow range, BT.2020) as eight-bit
    /// ones (narrow range, BT.709), unrounded.
    pub fn map(&self, pixel: [f64; 3]) -> [f64; 3] {
        let luma = (pixel[0] - 64.0) / 876.0 * self.contrast + self.brightness / 219.0;
        let [blue, red] = [pixel[1], pixel[2]].map(|chroma| (chroma - 512.0) / 896.0);
        // BT.2020, table 4.
        let coded =
            [luma + 1.4746 * red, luma - 0.164_553 * blue - 0.571_353 * red, luma + 1.8814 * blue];
        let light = self.light(coded.map(|part| part.clamp(0.0, 1.0))).map(|part| part.max(0.0));
        let luminance = LUMA[0] * light[0] + LUMA[1] * light[1] + LUMA[2] * light[2];
        let signal = light.into_iter().fold(LITTLE, f64::max);
        let light = self.faded(light, luminance, signal);
        let signal = light.into_iter().fold(LITTLE, f64::max);
        let mapped = match self.mode {
            Mode::Rgb => light.map(|part| self.led(part)),
            Mode::Max => light.map(|part| part * self.led(signal) / signal),
        };
        let [r, g, b] = mapped.map(display);
        let luma = LUMA[0] * r + LUMA[1] * g + LUMA[2] * b;
        // BT.709, 3.3.
        let (blue, red) = ((b - luma) / 1.8556, (r - luma) / 1.5748);
        [16.0 + 219.0 * luma, 128.0 + 224.0 * blue, 128.0 + 224.0 * red]
    }

    /// How far a light fades, 0 to 1.
    fn fade(&self, signal: f64) -> f64 {
        ((signal - 0.18).max(LITTLE) / signal).powf(10.0 / self.desaturation)
    }

    /// Bright colours on their way to white.
    fn faded(&self, light: [f64; 3], luminance: f64, signal: f64) -> [f64; 3] {
        if self.desaturation <= 0.0 {
            return light;
        }
        let share = self.fade(signal);
        light.map(|part| part + (luminance - part) * share)
    }
}

/// A function of light, 0 to [`Scale::MOST`], by the bits of the number itself: as many steps for each
/// octave, from one of which nothing is left in eight bits.
#[derive(Debug, Clone)]
struct Scale(Vec<f32>);

impl Scale {
    /// Steps of an octave, as a power of two.
    const FINENESS: u32 = 7;
    /// The least that is told from nothing.
    const LEAST: f32 = 1.0 / 67_108_864.0;
    /// More than PQ holds in whites, after [`TO_BT709`].
    const MOST: f32 = 128.0;

    #[expect(clippy::manual_clamp, reason = "clamp would leave what is no number as it is")]
    fn index(light: f32) -> usize {
        let bits = light.max(Self::LEAST).min(Self::MOST).to_bits() - Self::LEAST.to_bits();
        (bits >> (23 - Self::FINENESS)) as usize
    }

    fn new(function: impl Fn(f64) -> f64) -> Self {
        let middle = |index: usize| {
            let bits = ((index as u32) << (23 - Self::FINENESS)) + (1 << (22 - Self::FINENESS));
            f64::from(f32::from_bits(Self::LEAST.to_bits() + bits))
        };
        // A curve may have a pole where its parameter puts it.
        let finite =
            |value: f64| if value.is_finite() { value.clamp(0.0, 1e6) as f32 } else { 0.0 };
        Self((0..=Self::index(Self::MOST)).map(|index| finite(function(middle(index)))).collect())
    }

    fn at(&self, light: f32) -> f32 {
        self.0[Self::index(light)]
    }
}

/// A tone mapping as tables of each step of it.
#[derive(Debug, Clone)]
pub struct Tables {
    tones: Tones,
    /// Coded value, 0 to 1 in so many steps, to light (HLG: of the scene).
    linear: Vec<f32>,
    /// HLG: from the scene's luminance to the gain of all three.
    gain: Option<Scale>,
    /// Light to the factor that the curve changes it by.
    factor: Scale,
    /// Light to how far it fades.
    fade: Option<Scale>,
    /// Light to BT.1886.
    display: Scale,
}

/// Steps of a coded value: finer than the source's, as matrices lead between them.
const CODED_STEPS: usize = 8192;

/// BT.2020 to red, green and blue (table 4): what blue and red differences add to each.
const FROM_BLUE: [f32; 3] = [0.0, -0.164_553, 1.8814];
const FROM_RED: [f32; 3] = [1.4746, -0.571_353, 0.0];

impl Tables {
    /// Of a tone mapping. Takes some milliseconds.
    pub fn new(tones: &Tones) -> Self {
        let tones = *tones;
        let to_light = match tones.transfer {
            Transfer::Pq => pq_to_light,
            Transfer::Hlg => hlg_to_scene,
        };
        let step = |index: usize| to_light(index as f64 / (CODED_STEPS - 1) as f64) as f32;
        let fades = tones.desaturation > 0.0;
        Self {
            linear: (0..CODED_STEPS).map(step).collect(),
            gain: (tones.transfer == Transfer::Hlg).then(|| Scale::new(hlg_gain)),
            factor: Scale::new(|light| tones.led(light) / light),
            fade: fades.then(|| Scale::new(|signal| tones.fade(signal))),
            display: Scale::new(display),
            tones,
        }
    }

    /// What a pair of differences (ten-bit code values) adds to red, green and blue.
    pub fn chroma(blue: u16, red: u16) -> [f32; 3] {
        let [blue, red] = [blue, red].map(|value| (f32::from(value) - 512.0) / 896.0);
        [0, 1, 2].map(|part| FROM_BLUE[part] * blue + FROM_RED[part] * red)
    }

    /// Coded red, green and blue of BT.709, 0 to 1, of a ten-bit luma and its [`chroma`](Self::chroma).
    pub fn display(&self, luma: u16, chroma: [f32; 3]) -> [f32; 3] {
        let (contrast, brightness) = (self.tones.contrast as f32, self.tones.brightness as f32);
        let luma = (f32::from(luma) - 64.0) / 876.0 * contrast + brightness / 219.0;
        let coded = |part: f32| {
            let steps = (CODED_STEPS - 1) as f32;
            self.linear[((luma + part).clamp(0.0, 1.0) * steps + 0.5) as usize]
        };
        let mut wide = chroma.map(coded);
        if let Some(gain) = &self.gain {
            let gain = gain.at(0.2627 * wide[0] + 0.678 * wide[1] + 0.0593 * wide[2]);
            wide = wide.map(|part| part * gain);
        }
        let light = TO_BT709.map(|row| {
            let row = row.map(|factor| factor as f32);
            (row[0] * wide[0] + row[1] * wide[1] + row[2] * wide[2]).max(0.0)
        });
        self.mapped(light).map(|part| self.display.at(part))
    }

    fn mapped(&self, mut light: [f32; 3]) -> [f32; 3] {
        let most = |light: [f32; 3]| light[0].max(light[1]).max(light[2]);
        let weigh = LUMA.map(|factor| factor as f32);
        let luminance = weigh[0] * light[0] + weigh[1] * light[1] + weigh[2] * light[2];
        if let Some(fade) = &self.fade {
            let share = fade.at(most(light));
            light = light.map(|part| part + (luminance - part) * share);
        }
        let factor = match self.tones.mode {
            Mode::Rgb => return light.map(|part| part * self.factor.at(part)),
            Mode::Max => self.factor.at(most(light)),
        };
        light.map(|part| part * factor)
    }
}

/// Eight-bit luma, blue and red difference (narrow range, BT.709), unrounded, of coded red, green and
/// blue.
pub fn narrow([r, g, b]: [f32; 3]) -> [f32; 3] {
    let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    // BT.709, 3.3.
    let (blue, red) = ((b - luma) / 1.8556, (r - luma) / 1.5748);
    [16.0 + 219.0 * luma, 128.0 + 224.0 * blue, 128.0 + 224.0 * red]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten-bit luma of grey at so many cd/m2.
    fn grey(light: f64) -> [f64; 3] {
        [64.0 + 876.0 * light_to_pq(light / WHITE), 512.0, 512.0]
    }

    #[test]
    fn pq_is_what_the_standard_says() {
        // ST 2084: 0.508 is 100 cd/m2, 0.752 is 1000.
        assert!((light_to_pq(100.0 / WHITE) - 0.5081).abs() < 1e-4);
        assert!((light_to_pq(1000.0 / WHITE) - 0.7518).abs() < 1e-4);
        assert!((pq_to_light(1.0) * WHITE - PQ_MOST).abs() < 1e-6);
        for light in [0.01, 0.5, 1.0, 4.0, 40.0] {
            assert!((pq_to_light(light_to_pq(light)) - light).abs() < 1e-9, "{light}");
        }
    }

    #[test]
    fn hlg_is_what_the_standard_says() {
        // BT.2408: reference white is 75 %.
        let tones = Tones { transfer: Transfer::Hlg, ..Tones::default() };
        let [r, g, b] = tones.light([0.75; 3]);
        assert!((r - 1.0).abs() < 0.01 && (g - 1.0).abs() < 0.01 && (b - 1.0).abs() < 0.01, "{r}");
    }

    #[test]
    fn the_peak_becomes_white_and_black_stays() {
        for curve in [Curve::Bt2390, Curve::Hable, Curve::Reinhard, Curve::Mobius, Curve::Linear] {
            let tones = Tones { curve, ..Tones::default() };
            let [luma, blue, red] = tones.map(grey(1000.0));
            assert!((luma - 235.0).abs() < 0.5, "{curve:?}: {luma}");
            assert!((blue - 128.0).abs() < 0.1 && (red - 128.0).abs() < 0.1, "{curve:?}");
            assert!((tones.map([64.0, 512.0, 512.0])[0] - 16.0).abs() < 0.5, "{curve:?}");
        }
    }

    #[test]
    fn below_the_knee_bt2390_changes_nothing() {
        let tones = Tones { parameter: Some(0.5), ..Tones::default() };
        // 50 cd/m2 of 203, displayed by a power of 2.4.
        let expect = 16.0 + 219.0 * (50.0_f64 / WHITE).powf(1.0 / 2.4);
        assert!((tones.map(grey(50.0))[0] - expect).abs() < 0.01);
        // Above it light is lost: 203 cd/m2 isn't white any more.
        let white = tones.map(grey(WHITE))[0];
        assert!((200.0..230.0).contains(&white), "{white}");
    }

    #[test]
    fn every_curve_rises() {
        use Curve::{Bt2390, Clip, Gamma, Hable, Linear, Mobius, None, Reinhard};
        for curve in [Bt2390, Hable, Reinhard, Mobius, Gamma, Linear, Clip, None] {
            for mode in [Mode::Max, Mode::Rgb] {
                let tones = Tones { curve, mode, ..Tones::default() };
                let lumas: Vec<f64> =
                    (1..=200).map(|n| tones.map(grey(50.0 * f64::from(n)))[0]).collect();
                assert!(
                    lumas.windows(2).all(|pair| pair[1] >= pair[0] - 1e-9),
                    "{curve:?} {lumas:?}"
                );
            }
        }
    }

    #[test]
    fn hues_stay_and_bright_ones_fade_if_asked() {
        // A saturated red of 500 cd/m2.
        let red = [420.0, 470.0, 700.0];
        let plain = Tones::default().map(red);
        let faded = Tones { desaturation: 2.0, ..Tones::default() }.map(red);
        assert!(plain[2] > 140.0 && faded[2] < plain[2], "{plain:?} {faded:?}");
    }

    #[test]
    fn what_is_said_of_the_peak_counts_before_what_was_measured() {
        assert!((peak(Some(100.0), Some(400.0)) - 1000.0 / WHITE).abs() < 1e-9);
        assert!((peak(Some(20.0), None) - USUAL_PEAK / WHITE).abs() < 1e-9);
        assert!((peak(Some(0.0), Some(406.0)) - 2.0).abs() < 1e-9);
        assert!((peak(None, Some(100.0)) - LEAST_PEAK).abs() < 1e-9);
        assert!((peak(None, None) - USUAL_PEAK / WHITE).abs() < 1e-9);
    }

    #[test]
    fn no_parameter_leads_out_of_the_tables() {
        use Curve::{Bt2390, Clip, Gamma, Hable, Linear, Mobius, None, Reinhard};
        for curve in [Bt2390, Hable, Reinhard, Mobius, Gamma, Linear, Clip, None] {
            for parameter in [-1.0, 0.0, 0.01, 1.0, 1e6] {
                for mode in [Mode::Max, Mode::Rgb] {
                    let parameter = Some(parameter);
                    let tones = Tones { curve, parameter, mode, peak: 10.0, ..Tones::default() };
                    let tables = Tables::new(&tones);
                    for luma in [0, 64, 500, 760, 1023] {
                        for chroma in [[512, 512], [0, 1023], [1023, 0]] {
                            let shown = tables.display(luma, Tables::chroma(chroma[0], chroma[1]));
                            let whole = shown.iter().all(|part| (0.0..=1.0).contains(part));
                            assert!(whole, "{tones:?}: {luma} {chroma:?} is {shown:?}");
                        }
                    }
                }
            }
        }
    }

    /// Ten-bit PQ pixels of colours that BT.709 has, from black to 1000 cd/m2.
    fn shown() -> Vec<[u16; 3]> {
        let lights = [0.0, 0.02, 0.1, 0.3, 0.7, 1.0, 2.0, 4.9];
        let mut pixels = Vec::new();
        for r in lights {
            for g in lights {
                for b in lights {
                    // ITU-R BT.2087, linear BT.709 to BT.2020.
                    let wide = [
                        0.6274 * r + 0.3293 * g + 0.0433 * b,
                        0.0691 * r + 0.9195 * g + 0.0114 * b,
                        0.0164 * r + 0.088 * g + 0.8956 * b,
                    ];
                    let [r, g, b] = wide.map(light_to_pq);
                    let luma = 0.2627 * r + 0.678 * g + 0.0593 * b;
                    let (blue, red) = ((b - luma) / 1.8814, (r - luma) / 1.4746);
                    let coded = [64.0 + 876.0 * luma, 512.0 + 896.0 * blue, 512.0 + 896.0 * red];
                    pixels.push(coded.map(|value| value.round() as u16));
                }
            }
        }
        pixels
    }

    #[test]
    fn the_tables_are_near_the_definition() {
        let plain = Tones::default();
        for tones in [
            plain,
            Tones { transfer: Transfer::Hlg, ..plain },
            Tones { mode: Mode::Rgb, brightness: 16.0, ..plain },
            Tones { curve: Curve::Hable, contrast: 1.2, ..plain },
            Tones { desaturation: 2.0, ..plain },
        ] {
            let tables = Tables::new(&tones);
            let (mut sum, mut worst, mut count) = (0.0, 0.0_f64, 0);
            for pixel in shown() {
                let exact = tones.map(pixel.map(f64::from));
                let found = narrow(tables.display(pixel[0], Tables::chroma(pixel[1], pixel[2])));
                for (component, exact) in exact.into_iter().enumerate() {
                    let found = f64::from(found[component]);
                    sum += (found - exact).abs();
                    worst = worst.max((found - exact).abs());
                    count += 1;
                }
            }
            let mean = sum / f64::from(count);
            assert!(mean < 0.1 && worst < 2.0, "{tones:?}: mean {mean:.3}, worst {worst:.2}");
        }
    }
}
