//! Numbers as ffmpeg's options spell them.

/// A count or rate with an optional decimal suffix (`200M`, `128k`, `1G`).
pub(crate) fn amount(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1_000),
        b'M' => (&text[..text.len() - 1], 1_000_000),
        b'G' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    whole::<u64>(digits)?.checked_mul(unit)
}

/// Digits and nothing else.
pub(crate) fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A plain decimal number, not negative (`3`, `0.5`, `23.976025`).
pub(crate) fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = if plain { text.parse().ok()? } else { return None };
    number.is_finite().then_some(number)
}

/// `[[HH:]MM:]SS[.fraction]` in microseconds.
pub(crate) fn time_us(text: &str) -> Option<u64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: u64 = 0;
    let parts: Vec<&str> = clock.split(':').collect();
    if parts.len() > 3 {
        return None;
    }
    for (at, part) in parts.iter().enumerate() {
        let value: u64 = whole(part)?;
        // Minutes and seconds of a clock stay below sixty in two digits, as ffmpeg demands.
        let hours = at == 0 && parts.len() == 3;
        let digits = if hours { 4 } else { 2 };
        if parts.len() > 1 && (part.len() > digits || (!hours && value > 59)) {
            return None;
        }
        seconds = seconds.checked_mul(60)?.checked_add(value)?;
    }
    let micros = match fraction {
        "" if text.ends_with('.') => return None,
        "" => 0,
        digits => whole::<u64>(&format!("{:0<6}", digits.get(..6.min(digits.len()))?))?,
    };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

/// Rates that broadcasting divides by 1.001.
const NTSC_BASES: [u32; 7] = [15, 24, 30, 48, 60, 120, 240];

/// How far a printed rate may lie off the fraction that was meant: .NET prints `23.976025` for
/// 24000/1001, people write `23.98`.
const NTSC_TOLERANCE: f64 = 0.005;

/// A frame rate as a fraction: `N/D` as it stands, a decimal as the nearest sensible fraction.
pub(crate) fn frame_rate(text: &str) -> Option<(u32, u32)> {
    if let Some((n, d)) = text.split_once('/') {
        let (n, d): (u32, u32) = (whole(n)?, whole(d)?);
        return (n > 0 && d > 0).then(|| reduce(n, d));
    }
    let rate = decimal(text)?;
    if !(0.001..=1000.0).contains(&rate) {
        return None;
    }
    if (rate - rate.round()).abs() < 1e-4 {
        return Some((rate.round() as u32, 1));
    }
    for base in NTSC_BASES {
        if (rate - f64::from(base) * 1000.0 / 1001.0).abs() < NTSC_TOLERANCE {
            return Some((base * 1000, 1001));
        }
    }
    Some(reduce((rate * 1000.0).round() as u32, 1000))
}

fn reduce(n: u32, d: u32) -> (u32, u32) {
    let (mut a, mut b) = (n, d);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    (n / a, d / a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_take_a_suffix() {
        for (text, expect) in [
            ("200M", Some(200_000_000)),
            ("1G", Some(1_000_000_000)),
            ("128k", Some(128_000)),
            ("0", Some(0)),
            ("-1", None),
            ("+1", None),
            ("", None),
            ("k", None),
            ("99999999999G", None),
        ] {
            assert_eq!(amount(text), expect, "{text}");
        }
    }

    #[test]
    fn times_are_read_as_ffmpeg_reads_them() {
        for (text, expect) in [
            ("00:30:19.818", Some(1_819_818_000)),
            ("01:49:36.000", Some(6_576_000_000)),
            ("90", Some(90_000_000)),
            ("1:30", Some(90_000_000)),
            ("2.5", Some(2_500_000)),
            ("2.1234567", Some(2_123_456)),
            ("00:60:00", None),
            ("0030:19.818", None),
            ("90:00", None),
            ("1:2:3:4", None),
            ("-1", None),
            ("1.", None),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(time_us(text), expect, "{text}");
        }
    }

    #[test]
    fn printed_rates_become_the_fraction_that_was_meant() {
        for (text, expect) in [
            ("23.976025", Some((24000, 1001))),
            ("23.976", Some((24000, 1001))),
            ("29.97", Some((30000, 1001))),
            ("59.94006", Some((60000, 1001))),
            ("25", Some((25, 1))),
            ("24", Some((24, 1))),
            ("30.000000", Some((30, 1))),
            ("12.5", Some((25, 2))),
            ("30000/1001", Some((30000, 1001))),
            ("50/2", Some((25, 1))),
            ("0", None),
            ("30/0", None),
            ("nan", None),
            ("-25", None),
            ("1e3", None),
        ] {
            assert_eq!(frame_rate(text), expect, "{text}");
        }
    }
}
