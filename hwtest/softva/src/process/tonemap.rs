//! Tone mapping: HDR10 (BT.2020 colours, PQ transfer) to SDR (BT.709 colours and transfer).
//!
//! The luminance curve is the EETF of ITU-R BT.2390: up to a knee nothing changes, above it a
//! Hermite spline leads the source's peak to the target's. It is applied to the largest of R, G
//! and B and the other two follow in proportion, which keeps hues. The target's peak is the
//! reference white of ITU-R BT.2408, 203 cd/m2, so that graphics white in HDR is white in SDR.
//! Colours outside BT.709 are clipped.
//!
//! Works in place on ten-bit pictures, so that what follows keeps its precision.

use std::sync::OnceLock;

use crate::surface::View;
use crate::va::VAHdrMetaDataHDR10;

/// cd/m2 of white in SDR: reference white of BT.2408.
const TARGET_PEAK: f64 = 203.0;
/// cd/m2 that a picture without a word on it is taken to reach.
const DEFAULT_PEAK: f64 = 1000.0;
/// cd/m2 of the largest PQ value.
const PQ_PEAK: f64 = 10_000.0;
/// libva gives the mastering display's luminance in these units (cd/m2).
const MASTERING_UNIT: f64 = 0.0001;
/// Entries of the tables: two bits more than the samples have.
const STEPS: usize = 4096;

/// Linear BT.2020 to linear BT.709 (ITU-R BT.2087).
const TO_BT709: [[f32; 3]; 3] =
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]];

/// PQ to cd/m2 (SMPTE ST 2084).
fn pq_to_light(value: f64) -> f64 {
    let power = value.max(0.0).powf(1.0 / 78.843_75);
    let ratio = (power - 0.835_937_5).max(0.0) / (18.851_562_5 - 18.687_5 * power);
    PQ_PEAK * ratio.powf(1.0 / 0.159_301_757_812_5)
}

/// cd/m2 to PQ.
fn light_to_pq(light: f64) -> f64 {
    let power = (light / PQ_PEAK).clamp(0.0, 1.0).powf(0.159_301_757_812_5);
    ((0.835_937_5 + 18.851_562_5 * power) / (1.0 + 18.687_5 * power)).powf(78.843_75)
}

/// The curve of BT.2390 for a source and a target peak, on cd/m2.
fn curve(light: f64, source: f64, target: f64) -> f64 {
    let peak = light_to_pq(source);
    let limit = light_to_pq(target) / peak;
    if limit >= 1.0 {
        return light;
    }
    let value = (light_to_pq(light) / peak).min(1.0);
    let knee = 1.5 * limit - 0.5;
    if value < knee {
        return light;
    }
    let t = (value - knee) / (1.0 - knee);
    let (t2, t3) = (t * t, t * t * t);
    let mapped = (2.0 * t3 - 3.0 * t2 + 1.0) * knee
        + (t3 - 2.0 * t2 + t) * (1.0 - knee)
        + (3.0 * t2 - 2.0 * t3) * limit;
    pq_to_light(mapped * peak)
}

/// A curve as tables.
#[derive(Debug, Clone)]
pub struct ToneMapping {
    /// PQ value to light, 1 at the target's peak.
    light: Vec<f32>,
    /// Largest PQ value of a pixel to the factor of all three.
    factor: Vec<f32>,
}

/// The square root of light to a BT.1886 display's value.
fn display() -> &'static [f32] {
    static TABLE: OnceLock<Vec<f32>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let value = |step: usize| (step as f32 / (STEPS - 1) as f32).powf(2.0 / 2.4);
        (0..STEPS).map(value).collect()
    })
}

/// A picture's peak: what its content reaches if known, else what its display could show.
fn peak(metadata: Option<&VAHdrMetaDataHDR10>) -> f64 {
    let content = metadata.map_or(0.0, |m| f64::from(m.max_content_light_level));
    let display =
        metadata.map_or(0.0, |m| f64::from(m.max_display_mastering_luminance) * MASTERING_UNIT);
    let known = if content > 0.0 { content } else { display };
    if known > 0.0 { known.clamp(TARGET_PEAK, PQ_PEAK) } else { DEFAULT_PEAK }
}

impl ToneMapping {
    /// The curve for a picture's metadata.
    pub fn new(metadata: Option<&VAHdrMetaDataHDR10>) -> Self {
        let source = peak(metadata);
        let pq = |step: usize| pq_to_light(step as f64 / (STEPS - 1) as f64);
        let light = (0..STEPS).map(|step| (pq(step) / TARGET_PEAK) as f32).collect();
        let factor = (0..STEPS)
            .map(|step| {
                let light = pq(step).max(1e-6);
                (curve(light, source, TARGET_PEAK) / light) as f32
            })
            .collect();
        Self { light, factor }
    }

    /// Maps a P010 picture of limited range.
    pub fn run(&self, picture: &View<'_>) {
        let read =
            |row: &[u8], x: usize| f32::from(u16::from_le_bytes([row[2 * x], row[2 * x + 1]]) >> 6);
        let write = |row: &mut [u8], x: usize, value: f32| {
            let value = (value + 0.5).clamp(0.0, 1023.0) as u16;
            row[2 * x..2 * x + 2].copy_from_slice(&(value << 6).to_le_bytes());
        };
        let display = display();
        let (width, height) = (picture.width(), picture.height());
        for block_row in 0..picture.rows(1) {
            let chroma = picture.row_mut(1, block_row);
            for block in 0..width.div_ceil(2) {
                let cb = (read(chroma, 2 * block) - 512.0) / 896.0;
                let cr = (read(chroma, 2 * block + 1) - 512.0) / 896.0;
                let (mut sum_b, mut sum_r, mut count) = (0.0, 0.0, 0.0);
                for y in 2 * block_row..(2 * block_row + 2).min(height) {
                    let luma = picture.row_mut(0, y);
                    for x in 2 * block..(2 * block + 2).min(width) {
                        let mapped = self.pixel((read(luma, x) - 64.0) / 876.0, cb, cr, display);
                        write(luma, x, 64.0 + 876.0 * mapped.0);
                        sum_b += mapped.1;
                        sum_r += mapped.2;
                        count += 1.0;
                    }
                }
                write(chroma, 2 * block, 512.0 + 896.0 * sum_b / count);
                write(chroma, 2 * block + 1, 512.0 + 896.0 * sum_r / count);
            }
        }
    }

    /// Y'CbCr of BT.2020 and PQ to Y'CbCr of BT.709.
    #[inline]
    fn pixel(&self, y: f32, cb: f32, cr: f32, display: &[f32]) -> (f32, f32, f32) {
        let scaled = |value: f32| (value.clamp(0.0, 1.0) * (STEPS - 1) as f32 + 0.5) as usize;
        // BT.2020, table 4.
        let red = scaled(y + 1.4746 * cr);
        let green = scaled(y - 0.164_55 * cb - 0.571_35 * cr);
        let blue = scaled(y + 1.8814 * cb);
        let factor = self.factor[red.max(green).max(blue)];
        let light =
            [self.light[red] * factor, self.light[green] * factor, self.light[blue] * factor];
        let [red, green, blue] = TO_BT709.map(|row| {
            let value = row[0] * light[0] + row[1] * light[1] + row[2] * light[2];
            display[scaled(value.clamp(0.0, 1.0).sqrt())]
        });
        // BT.709, section 3.
        let luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        (luma, (blue - luma) / 1.8556, (red - luma) / 1.5748)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pq_is_its_own_inverse() {
        for light in [0.01, 1.0, 100.0, 203.0, 1000.0, 10_000.0] {
            let back = pq_to_light(light_to_pq(light));
            assert!((back - light).abs() < light * 1e-6, "{light} {back}");
        }
        // ST 2084: 100 cd/m2 is about half the range.
        assert!((light_to_pq(100.0) - 0.508).abs() < 0.001);
    }

    #[test]
    fn the_curve_rises_and_ends_at_the_target() {
        let mut last = 0.0;
        for light in 1..=1000 {
            let mapped = curve(f64::from(light), 1000.0, 203.0);
            assert!(mapped >= last && mapped <= f64::from(light) + 1e-6);
            last = mapped;
        }
        assert!((last - 203.0).abs() < 0.5, "{last}");
        assert!((curve(5.0, 1000.0, 203.0) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn grey_stays_grey_and_white_becomes_white() {
        let mapping = ToneMapping::new(None);
        let (luma, cb, cr) = mapping.pixel(light_to_pq(1000.0) as f32, 0.0, 0.0, display());
        assert!((luma - 1.0).abs() < 0.01, "{luma}");
        assert!(cb.abs() < 0.002 && cr.abs() < 0.002);
        let (luma, ..) = mapping.pixel(0.0, 0.0, 0.0, display());
        assert!(luma < 0.01, "{luma}");
    }

    #[test]
    fn the_content_counts_before_the_display() {
        // SAFETY: a plain C struct of numbers, for which zeroes are a value.
        let mut metadata: VAHdrMetaDataHDR10 = unsafe { std::mem::zeroed() };
        assert_eq!(peak(Some(&metadata)), DEFAULT_PEAK);
        metadata.max_display_mastering_luminance = 40_000_000;
        assert_eq!(peak(Some(&metadata)), 4000.0);
        metadata.max_content_light_level = 600;
        assert_eq!(peak(Some(&metadata)), 600.0);
    }
}
