//! Brightness and contrast of luma.

use crate::format::Format;
use crate::status::{Outcome, Refusal};
use crate::surface::View;
use crate::va::{self, VAProcColorBalanceType, VAProcFilterParameterBufferColorBalance};

/// What can be changed: kind, least, most and usual value.
pub const BALANCES: [(VAProcColorBalanceType, f32, f32, f32); 2] = [
    (va::VAProcColorBalanceBrightness, -100.0, 100.0, 0.0),
    (va::VAProcColorBalanceContrast, 0.0, 10.0, 1.0),
];

/// A change of luma.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Balance {
    /// Added, in steps of eight bits.
    brightness: f32,
    /// Factor, before that.
    contrast: f32,
}

impl Default for Balance {
    fn default() -> Self {
        Self { brightness: 0.0, contrast: 1.0 }
    }
}

impl Balance {
    /// With one more change.
    pub fn with(self, own: &VAProcFilterParameterBufferColorBalance) -> Outcome<Self> {
        match own.attrib {
            va::VAProcColorBalanceBrightness => Ok(Self { brightness: own.value, ..self }),
            va::VAProcColorBalanceContrast => Ok(Self { contrast: own.value, ..self }),
            other => {
                let reason = format!("colour balance {other}");
                Err(Refusal::new(va::VA_STATUS_ERROR_UNSUPPORTED_FILTER, reason))
            }
        }
    }

    /// Changes a picture of limited range.
    pub fn run(self, picture: &View<'_>) -> Outcome {
        let changed = |value: f32, unit: f32| {
            let luma = (value - 16.0 * unit) * self.contrast + (16.0 + self.brightness) * unit;
            (luma + 0.5).clamp(0.0, 256.0 * unit - 1.0)
        };
        for y in 0..picture.rows(0) {
            let row = picture.row_mut(0, y);
            match picture.format() {
                Format::P010 => {
                    for pair in row.chunks_exact_mut(2) {
                        let value = u16::from_le_bytes([pair[0], pair[1]]) >> 6;
                        let value = changed(f32::from(value), 4.0) as u16;
                        pair.copy_from_slice(&(value << 6).to_le_bytes());
                    }
                }
                Format::Nv12 | Format::I420 | Format::Yv12 => {
                    for value in row {
                        *value = changed(f32::from(*value), 1.0) as u8;
                    }
                }
                other => {
                    return Err(Refusal::unimplemented(format!("colour balance of {other:?}")));
                }
            }
        }
        Ok(())
    }
}
