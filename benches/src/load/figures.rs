//! What two sides come to: a table and a file.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use serde::Serialize;
use serde_json::{Value, json};

use super::Parameters;
use super::run::Side;
use crate::figures::Spread;

/// A whole run of the benchmark.
#[derive(Debug, Serialize)]
pub struct Load {
    /// What it was made of.
    pub parameters: Parameters,
    /// First segments alone: Rendergate's and ffmpeg's, in seconds.
    pub idle: (Vec<f64>, Vec<f64>),
    /// Rendergate's.
    pub ours: Side,
    /// Plain ffmpeg's.
    pub ffmpeg: Side,
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// `s`, `MiB`, `x`; empty for a count.
    pub unit: &'static str,
    /// Rendergate's; `None` if there was nothing to measure.
    pub ours: Option<f64>,
    /// ffmpeg's.
    pub ffmpeg: Option<f64>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let (ours, ffmpeg) = (self.ours?, self.ffmpeg?);
        (ffmpeg > 0.0).then(|| ours / ffmpeg)
    }
}

fn median(values: &[f64]) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

fn worst(values: &[f64]) -> Option<f64> {
    Spread::of(values).map(|spread| spread.max)
}

/// First segments of residents at their beginning or after their seeks; seconds.
fn residents(side: &Side, seeks: bool) -> Vec<f64> {
    let residents = side.sessions.iter().filter(|session| !session.newcomer);
    let waits = residents.flat_map(|session| {
        let from = usize::from(seeks);
        let to = if seeks { session.first_servable.len() } else { 1 };
        session.first_servable.get(from..to).into_iter().flatten()
    });
    waits.copied().flatten().collect()
}

impl Load {
    /// The figures.
    pub fn rows(&self) -> Vec<Row> {
        let others = self.parameters.sessions.saturating_sub(1);
        let idle = [median(&self.idle.0), median(&self.idle.1)];
        let sides = [&self.ours, &self.ffmpeg];
        let row = |name: &str, unit, [ours, ffmpeg]: [Option<f64>; 2]| Row {
            name: name.to_owned(),
            unit,
            ours,
            ffmpeg,
        };
        let beside = sides.map(|side| median(&side.newcomers()));
        let by_idle = [0, 1].map(|at| Some(beside[at]? / idle[at]?));
        let newcomer = format!("first segment, newcomer beside {others} others");
        let mut rows = vec![
            row("first segment, alone", "s", idle),
            row(&newcomer, "s", beside),
            row("the same, the longest of all", "s", sides.map(|side| worst(&side.newcomers()))),
            row("newcomer by the same alone", "x", by_idle),
            row(
                "first segment, residents, longest",
                "s",
                sides.map(|side| worst(&residents(side, false))),
            ),
            row(
                "first segment after a seek, longest",
                "s",
                sides.map(|side| worst(&residents(side, true))),
            ),
            row("stalls", "", sides.map(|side| Some(side.stalls().0 as f64))),
            row("stalled, all streams", "s", sides.map(|side| Some(side.stalls().1))),
            row("stood still, first segments included", "s", sides.map(|side| Some(side.stood()))),
            row("speed, all streams", "x", sides.map(|side| Some(side.made() / side.seconds))),
            row("CPU time", "s", sides.map(|side| Some(side.cpu_seconds))),
            row(
                "CPU time of others meanwhile",
                "s",
                sides.map(|side| Some(side.others_cpu_seconds)),
            ),
            row(
                "CPU time by second of media",
                "s",
                sides.map(|side| (side.made() > 0.0).then(|| side.cpu_seconds / side.made())),
            ),
            row("peak memory, all processes", "MiB", sides.map(|side| Some(side.peak_mib))),
        ];
        let taken = || self.ours.sessions.iter().filter(|session| session.on_gateway);
        if taken().count() < self.ours.sessions.len() {
            let stalled = taken().map(|session| session.viewing.stalls().1).sum::<f64>() + 0.0;
            rows.push(row(
                "sessions that the gateway took",
                "",
                [Some(taken().count() as f64), None],
            ));
            rows.push(row("stalled, of these", "s", [Some(stalled), None]));
        }
        rows
    }

    /// For `load.json`.
    pub fn json(&self) -> Value {
        json!({
            "machine": machine(),
            "figures": self.rows(),
            "load": self,
        })
    }

    /// Everybody who came, and what they had to wait for.
    pub fn sessions(&self) -> String {
        let mut text = String::from(
            "| | came at | first segment, after seeks (Rendergate / ffmpeg) | stalled (Rendergate / ffmpeg) |\n\
             |---|---:|---:|---:|\n",
        );
        for (ours, ffmpeg) in self.ours.sessions.iter().zip(&self.ffmpeg.sessions) {
            let waits = |session: &super::run::Played| {
                let wait = |wait: &Option<f64>| {
                    wait.map_or_else(|| "never".to_owned(), |wait| format!("{wait:.2} s"))
                };
                session.first_servable.iter().map(wait).collect::<Vec<_>>().join(", ")
            };
            let by = if ours.on_gateway { "" } else { " (left to the hook's ffmpeg)" };
            let _ = writeln!(
                text,
                "| {}{by} | {:.0} s | {} / {} | {:.1} s / {:.1} s |",
                ours.name,
                ours.start,
                waits(ours),
                waits(ffmpeg),
                ours.viewing.stalls().1,
                ffmpeg.viewing.stalls().1,
            );
        }
        text
    }
}

/// The figures as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| | unit | Rendergate | ffmpeg | ratio |\n|---|---|---:|---:|---:|\n");
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    for row in rows {
        let digits = if row.unit.is_empty() { 0 } else { 2 };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            row.name,
            row.unit,
            number(row.ours, digits),
            number(row.ffmpeg, digits),
            number(row.ratio(), 2),
        );
    }
    text
}

/// What figures hang on: processor, memory, versions.
pub fn machine() -> Value {
    let of_file = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "processor": of_file("/proc/cpuinfo", "model name"),
        "memory": of_file("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
        "rendergate": env!("CARGO_PKG_VERSION"),
        "ffmpeg": first_line("ffmpeg", "-version"),
        "gstreamer": first_line("gst-inspect-1.0", "--version"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::run::Played;
    use crate::load::viewing::{Standstill, Viewing};

    fn played(newcomer: bool, waits: &[f64], stalled: f64) -> Played {
        let still = Standstill { from: 10.0, to: 10.0 + stalled, beginning: false };
        let mut standstills = if stalled > 0.0 { vec![still] } else { Vec::new() };
        if newcomer {
            standstills.push(Standstill { from: 0.0, to: 0.5, beginning: true });
        }
        Played {
            name: "one".into(),
            start: 0.0,
            end: 20.0,
            newcomer,
            on_gateway: true,
            first_servable: waits.iter().map(|wait| Some(*wait)).collect(),
            made: 30.0,
            viewing: Viewing { standstills, lead: Vec::new() },
            faults: Vec::new(),
        }
    }

    fn load() -> Load {
        let side = |name, factor: f64| Side {
            name,
            seconds: 20.0,
            cpu_seconds: 12.0,
            others_cpu_seconds: 2.0,
            peak_mib: 100.0,
            sessions: vec![
                played(false, &[factor, 3.0 * factor], 0.0),
                played(true, &[2.0 * factor], factor - 1.0),
            ],
        };
        Load {
            parameters: Parameters { sessions: 2, ..Parameters::fitting() },
            idle: (vec![1.0, 1.0, 4.0], vec![2.0]),
            ours: side("Rendergate", 1.0),
            ffmpeg: side("ffmpeg", 4.0),
        }
    }

    #[track_caller]
    fn check(name: &str, ours: f64, ffmpeg: f64) {
        let rows = load().rows();
        let row = rows.iter().find(|row| row.name == name).expect(name);
        assert_eq!((row.ours, row.ffmpeg), (Some(ours), Some(ffmpeg)), "{name}");
    }

    #[test]
    fn figures_are_of_whom_they_name() {
        check("first segment, alone", 1.0, 2.0);
        check("first segment, newcomer beside 1 others", 2.0, 8.0);
        check("newcomer by the same alone", 2.0, 4.0);
        check("first segment, residents, longest", 1.0, 4.0);
        check("first segment after a seek, longest", 3.0, 12.0);
        check("stalls", 0.0, 1.0);
        check("stalled, all streams", 0.0, 3.0);
        check("stood still, first segments included", 0.5, 3.5);
        check("speed, all streams", 3.0, 3.0);
        check("CPU time by second of media", 0.2, 0.2);
    }

    #[test]
    fn streams_that_the_gateway_took_are_told_from_others() {
        let mut load = load();
        assert!(load.rows().iter().all(|row| row.name != "stalled, of these"));
        load.ours.sessions[0] = played(false, &[1.0], 2.0);
        load.ours.sessions[1] = Played { on_gateway: false, ..played(true, &[1.0], 5.0) };
        let rows = load.rows();
        let [.., taken, stalled] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((taken.ours, stalled.ours), (Some(1.0), Some(2.0)));
    }

    #[test]
    fn the_table_says_so_if_there_is_nothing_to_compare() {
        let text = table(&load().rows());
        assert!(
            text.contains("| first segment, newcomer beside 1 others | s | 2.00 | 8.00 | 0.25 |")
        );
        assert!(text.contains("| stalls |  | 0 | 1 | 0.00 |"));
        let none = Row { name: "x".into(), unit: "s", ours: None, ffmpeg: Some(0.0) };
        assert!(table(&[none]).ends_with("| x | s | – | 0.00 | – |\n"));
    }

    #[test]
    fn the_file_holds_parameters_machine_and_every_session() {
        let value = load().json();
        assert_eq!(value["load"]["parameters"]["sessions"], 2);
        assert!(value["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0));
        assert_eq!(value["load"]["ours"]["sessions"].as_array().unwrap().len(), 2);
        assert_eq!(value["figures"][0]["unit"], "s");
    }
}
