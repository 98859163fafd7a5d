//! Rate control: libva's parameters and what they amount to.

use crate::buffer::read_at;
use crate::caps::QUALITY_LEVELS;
use crate::status::Outcome;
use crate::va;

/// Frames per second while a client hasn't said.
const DEFAULT_FRAME_RATE: (u32, u32) = (30, 1);

/// What a client has said about rates.
#[derive(Debug, Clone)]
pub struct Rates {
    mode: u32,
    bits_per_second: u32,
    target_percentage: u32,
    minimum_quantiser: u32,
    maximum_quantiser: u32,
    buffer_size: u32,
    frame_rate: Option<(u32, u32)>,
    quality: u32,
}

impl Rates {
    /// For one of `VA_RC_*`.
    pub fn new(mode: u32) -> Self {
        Self {
            mode,
            bits_per_second: 0,
            target_percentage: 100,
            minimum_quantiser: 0,
            maximum_quantiser: 0,
            buffer_size: 0,
            frame_rate: None,
            quality: QUALITY_LEVELS.div_ceil(2),
        }
    }

    /// Takes a miscellaneous parameter; those that don't concern rates are let pass.
    pub fn take(&mut self, kind: va::VAEncMiscParameterType, data: &[u8]) -> Outcome {
        match kind {
            va::VAEncMiscParameterTypeRateControl => {
                let control: va::VAEncMiscParameterRateControl = read_at(data, 0)?;
                self.bits_per_second = control.bits_per_second;
                if control.target_percentage > 0 {
                    self.target_percentage = control.target_percentage.min(100);
                }
                self.minimum_quantiser = control.min_qp;
                self.maximum_quantiser = control.max_qp;
            }
            va::VAEncMiscParameterTypeHRD => {
                let buffer: va::VAEncMiscParameterHRD = read_at(data, 0)?;
                self.buffer_size = buffer.buffer_size;
            }
            va::VAEncMiscParameterTypeFrameRate => {
                let rate: va::VAEncMiscParameterFrameRate = read_at(data, 0)?;
                // Numerator in the lower half, denominator in the upper one; 0 means 1.
                self.set_frame_rate(rate.framerate & 0xffff, (rate.framerate >> 16).max(1));
            }
            va::VAEncMiscParameterTypeQualityLevel => {
                let level: va::VAEncMiscParameterBufferQualityLevel = read_at(data, 0)?;
                if level.quality_level > 0 {
                    self.quality = level.quality_level.min(QUALITY_LEVELS);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// From the sequence parameters, where a client gives it there only.
    pub fn suggest_bit_rate(&mut self, bits_per_second: u32) {
        if self.bits_per_second == 0 {
            self.bits_per_second = bits_per_second;
        }
    }

    /// As above.
    pub fn suggest_frame_rate(&mut self, numerator: u32, denominator: u32) {
        if self.frame_rate.is_none() {
            self.set_frame_rate(numerator, denominator);
        }
    }

    fn set_frame_rate(&mut self, numerator: u32, denominator: u32) {
        if numerator > 0 && denominator > 0 {
            self.frame_rate = Some((numerator, denominator));
        }
    }

    /// Frames per second.
    pub fn frame_rate(&self) -> (u32, u32) {
        self.frame_rate.unwrap_or(DEFAULT_FRAME_RATE)
    }

    /// Whether the quantiser is given and the rate follows.
    pub fn constant_quantiser(&self) -> bool {
        self.mode & (va::VA_RC_CBR | va::VA_RC_VBR) == 0 || self.bits_per_second == 0
    }

    /// Bits per second on average: all of them for a constant rate, the target percentage for a
    /// variable one; 0 for a constant quantiser.
    pub fn average(&self) -> u64 {
        let rate = u64::from(self.bits_per_second);
        if self.constant_quantiser() {
            0
        } else if self.mode & va::VA_RC_VBR != 0 {
            rate * u64::from(self.target_percentage) / 100
        } else {
            rate
        }
    }

    /// Bits per second at most; 0 for a constant quantiser.
    pub fn maximum(&self) -> u64 {
        if self.constant_quantiser() { 0 } else { self.bits_per_second.into() }
    }

    /// Bits of the decoder's buffer; a second's worth if a client hasn't said.
    pub fn buffer_size(&self) -> u64 {
        if self.constant_quantiser() {
            0
        } else if self.buffer_size > 0 {
            self.buffer_size.into()
        } else {
            self.maximum()
        }
    }

    /// 1 (best) to 7 (fastest).
    pub fn quality(&self) -> u32 {
        self.quality
    }

    /// Limits of the quantiser, where a client sets any.
    pub fn quantiser_limits(&self) -> (Option<u32>, Option<u32>) {
        let set = |value: u32| (value > 0).then_some(value);
        (set(self.minimum_quantiser), set(self.maximum_quantiser))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(bits_per_second: u32, target_percentage: u32) -> Vec<u8> {
        // bits_per_second and target_percentage are the first fields.
        let mut data = vec![0; size_of::<va::VAEncMiscParameterRateControl>()];
        data[..4].copy_from_slice(&bits_per_second.to_ne_bytes());
        data[4..8].copy_from_slice(&target_percentage.to_ne_bytes());
        data
    }

    #[test]
    fn a_variable_rate_aims_below_its_maximum() {
        let mut rates = Rates::new(va::VA_RC_VBR);
        let data = control(4_000_000, 50);
        rates.take(va::VAEncMiscParameterTypeRateControl, &data).expect("a rate");
        assert_eq!((rates.average(), rates.maximum()), (2_000_000, 4_000_000));
        assert_eq!(rates.buffer_size(), 4_000_000);
        let mut constant = Rates::new(va::VA_RC_CBR);
        constant.take(va::VAEncMiscParameterTypeRateControl, &data).expect("a rate");
        assert_eq!((constant.average(), constant.maximum()), (4_000_000, 4_000_000));
    }

    #[test]
    fn a_constant_quantiser_has_no_rate() {
        let mut rates = Rates::new(va::VA_RC_CQP);
        rates.suggest_bit_rate(1_000_000);
        assert_eq!((rates.average(), rates.maximum(), rates.buffer_size()), (0, 0, 0));
    }

    #[test]
    fn a_frame_rate_is_a_fraction() {
        let mut rates = Rates::new(va::VA_RC_CBR);
        let mut data = vec![0; size_of::<va::VAEncMiscParameterFrameRate>()];
        data[..4].copy_from_slice(&(24_000u32 | 1001 << 16).to_ne_bytes());
        rates.take(va::VAEncMiscParameterTypeFrameRate, &data).expect("a rate");
        rates.suggest_frame_rate(30, 1);
        assert_eq!(rates.frame_rate(), (24_000, 1001));
    }
}
