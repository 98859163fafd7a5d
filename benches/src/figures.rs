//! Figures of alternating runs: medians, spread, and the ratio within each pair.

use serde::Serialize;

/// One quantity, measured for both sides in turn.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// `s`, `ms`, `MiB`, `x`.
    pub unit: &'static str,
    /// Rendergate.
    pub ours: Spread,
    /// ffmpeg; `None` for what it has no counterpart of.
    pub ffmpeg: Option<Spread>,
    /// Ours by ffmpeg's, pair by pair.
    pub ratio: Option<Spread>,
    /// ours − ffmpeg's, pair by pair.
    pub difference: Option<Spread>,
}

/// Median and extremes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    /// The middle value.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many.
    pub runs: usize,
}

impl Spread {
    /// Of some values; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, min, max, runs: sorted.len() })
    }
}

impl Figure {
    /// From pairs (ours, ffmpeg's).
    pub fn paired(name: &str, unit: &'static str, pairs: &[(f64, f64)]) -> Option<Self> {
        let ours: Vec<f64> = pairs.iter().map(|pair| pair.0).collect();
        let theirs: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
        let ratios: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
        let differences: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours - theirs).collect();
        Some(Self {
            name: name.to_owned(),
            unit,
            ours: Spread::of(&ours)?,
            ffmpeg: Spread::of(&theirs),
            ratio: Spread::of(&ratios),
            difference: Spread::of(&differences),
        })
    }

    /// Of our side alone.
    pub fn single(name: &str, unit: &'static str, values: &[f64]) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            unit,
            ours: Spread::of(values)?,
            ffmpeg: None,
            ratio: None,
            difference: None,
        })
    }
}

/// The figures as a Markdown table.
pub fn table(figures: &[Figure]) -> String {
    let mut text = String::from(
        "| | unit | Rendergate | ffmpeg | ratio (min–max) | runs |\n|---|---|---:|---:|---:|---:|\n",
    );
    for figure in figures {
        let value = |spread: Spread| format!("{:.3}", spread.median);
        let ffmpeg = figure.ffmpeg.map_or_else(|| "–".to_owned(), value);
        let ratio = figure.ratio.map_or_else(
            || "–".to_owned(),
            |ratio| format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max),
        );
        text.push_str(&format!(
            "| {} | {} | {} | {ffmpeg} | {ratio} | {} |\n",
            figure.name,
            figure.unit,
            value(figure.ours),
            figure.ours.runs
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let figure = Figure::paired("t", "s", &[(1.0, 2.0), (3.0, 4.0), (2.0, 2.0)]).unwrap();
        assert_eq!(figure.ours.median, 2.0);
        assert_eq!(figure.ratio.unwrap().median, 0.75);
        assert_eq!(figure.difference.unwrap().min, -1.0);
        assert!(table(&[figure]).contains("0.75 (0.50–1.00)"));
        assert!(Figure::paired("t", "s", &[]).is_none());
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
    }
}
