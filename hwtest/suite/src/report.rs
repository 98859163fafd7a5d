//! What came of the rows: `report.json` for programs, `report.md` for people.
//!
//! Invariant: every row that was to be run is in it, with where it ran, and how many rows there are; there
//! is no way to say that one was left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use stand::gpu::{Kind, TestGpu};

/// Number of the form of `report.json`; a reader that knows another can't read it.
pub const SCHEMA: u32 = 2;

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Where.
    pub machine: Machine,
    /// On what.
    pub gpu: Gpu,
    /// Whether every row has passed.
    pub passed: bool,
    /// How many rows there are. Fewer were run if only some were asked for.
    pub all: usize,
    /// Those that were run, in the order of the tables.
    pub rows: Vec<Row>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// `PRETTY_NAME` of os-release.
    pub system: String,
    /// The kernel's release.
    pub kernel: String,
    /// The processor's own name.
    pub processor: String,
    /// Processors that may be used.
    pub processors: usize,
    /// Version of Rendergate.
    pub rendergate: String,
}

/// The GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// The machine's own, or the virtual one.
    pub kind: Kind,
    /// `/dev/dri/renderD128`.
    pub node: String,
    /// Maker and model as PCI numbers, `8086:3e92`.
    pub device: Option<String>,
    /// The kernel's driver.
    pub kernel_driver: Option<String>,
    /// The VA-API driver's own name and version.
    pub driver: String,
    /// VA-API's version.
    pub vaapi: Option<String>,
    /// GStreamer's version.
    pub gstreamer: Option<String>,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The table that it is in.
    pub table: String,
    /// What was done.
    pub what: String,
    /// Where it ran: `vaapi`, `mixed` or `software`, or `ffmpeg` if the worker left it to that.
    pub ran: String,
    /// Why not all of it ran on the GPU, or was not asked to.
    pub why: Option<String>,
    /// What was measured, by name and unit.
    pub figures: BTreeMap<String, f64>,
    /// What should have been otherwise; empty if the row has passed.
    pub faults: Vec<String>,
}

impl Row {
    /// Whether all was as it should be.
    pub fn passed(&self) -> bool {
        self.faults.is_empty()
    }
}

impl Report {
    /// Of these rows out of so many, on the GPU under test.
    pub fn new(gpu: &TestGpu, all: usize, rows: Vec<Row>) -> Self {
        let node = &gpu.report.node;
        let probe = gpu.report.probe.as_ref();
        let pci = node.pci.as_ref();
        Self {
            schema: SCHEMA,
            machine: Machine::this(),
            gpu: Gpu {
                kind: gpu.kind,
                node: node.path.display().to_string(),
                device: pci.map(|pci| format!("{:04x}:{:04x}", pci.vendor, pci.device)),
                kernel_driver: node.driver.clone(),
                driver: gpu.device.driver.clone(),
                vaapi: probe.and_then(|probe| Some(probe.vaapi.as_ref().ok()?.version.clone())),
                gstreamer: probe.map(|probe| probe.gstreamer.clone()),
            },
            passed: rows.iter().all(Row::passed),
            all,
            rows,
        }
    }

    /// As Markdown: what it ran on, a table per kind of row, and what is wrong.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Rendergate on a GPU\n\n");
        let Machine { system, kernel, processor, processors, rendergate } = &self.machine;
        let Gpu { kind, node, device, kernel_driver, driver, vaapi, gstreamer } = &self.gpu;
        let known = |what: &Option<String>| what.clone().unwrap_or_else(|| "unknown".to_owned());
        let _ = writeln!(
            text,
            "| | |\n|---|---|\n| GPU | **{kind}**: {node}, {}, kernel driver {} |\n\
             | driver | {driver} (VA-API {}) |\n| GStreamer | {} |\n\
             | machine | {system}, Linux {kernel}, {processors} of {processor} |\n\
             | Rendergate | {rendergate} |\n",
            known(device),
            known(kernel_driver),
            known(vaapi),
            known(gstreamer),
        );
        if *kind == Kind::Virtual {
            text.push_str(
                "The GPU is a driver in software: what is right here says nothing of any maker's \
                 driver, and times say nothing at all.\n\n",
            );
        }
        let failed = self.rows.iter().filter(|row| !row.passed()).count();
        let run = match self.rows.len() {
            run if run == self.all => format!("{run}"),
            run => format!("{run} of {}", self.all),
        };
        let _ = writeln!(text, "**{run} rows, {failed} failed.**");
        let mut table = "";
        for row in &self.rows {
            if row.table != table {
                table = &row.table;
                let _ = writeln!(
                    text,
                    "\n## {table}\n\n| what | ran on | figures | |\n|---|---|---|---|"
                );
            }
            let figures: Vec<String> = row
                .figures
                .iter()
                .map(|(name, value)| format!("{name} {}", shown(*value)))
                .collect();
            let ran = match &row.why {
                Some(why) => format!("{}: {why}", row.ran),
                None => row.ran.clone(),
            };
            let verdict = if row.passed() { "pass" } else { "**FAIL**" };
            let cells = [&row.what, &ran, &figures.join(", ")].map(|cell| cell.replace('|', "\\|"));
            let _ = writeln!(text, "| {} | {verdict} |", cells.join(" | "));
        }
        for row in self.rows.iter().filter(|row| !row.passed()) {
            let _ = writeln!(text, "\n- {}, {}:", row.table, row.what);
            for fault in &row.faults {
                let _ = writeln!(text, "  - {}", fault.replace('\n', " "));
            }
        }
        text
    }
}

/// To four digits behind the point, without zeroes at the end.
fn shown(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Machine {
    fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str, between: char| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(between)?.1.trim().trim_matches('"').to_owned())
        };
        let unknown = || "unknown".to_owned();
        Self {
            system: field(&read("/etc/os-release"), "PRETTY_NAME", '=').unwrap_or_else(unknown),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: field(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_else(unknown),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            rendergate: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(faults: &[&str]) -> Report {
        let row = Row {
            table: "Pictures".into(),
            what: "H.264 | 8 bit".into(),
            ran: "mixed".into(),
            why: Some("no decode_h264 on the GPU".into()),
            figures: BTreeMap::from([("frames".into(), 50.0), ("SSIM".into(), 0.98765)]),
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        };
        Report {
            schema: SCHEMA,
            machine: Machine::this(),
            gpu: Gpu {
                kind: Kind::Virtual,
                node: "/dev/dri/renderD128".into(),
                device: None,
                kernel_driver: None,
                driver: "a driver".into(),
                vaapi: Some("1.17".into()),
                gstreamer: Some("1.22.0".into()),
            },
            passed: row.passed(),
            all: 1,
            rows: vec![row],
        }
    }

    #[test]
    fn a_row_says_what_ran_where_and_what_is_wrong() {
        let text = report(&["49 frames, ffmpeg 50"]).markdown();
        let row = "| H.264 \\| 8 bit | mixed: no decode_h264 on the GPU | SSIM 0.9877, frames 50 | **FAIL** |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("**1 rows, 1 failed.**"), "{text}");
        assert!(text.contains("  - 49 frames, ffmpeg 50"), "{text}");
        assert!(text.contains("**virtual**"), "{text}");
        let text = report(&[]).markdown();
        assert!(text.contains("| pass |") && !text.contains("FAIL"), "{text}");
        let text = Report { all: 222, ..report(&[]) }.markdown();
        assert!(text.contains("**1 of 222 rows, 0 failed.**"), "{text}");
    }

    #[test]
    fn figures_have_no_more_digits_than_needed() {
        assert_eq!([50.0, 7.6, 0.98765, 100.0].map(shown), ["50", "7.6", "0.9877", "100"]);
    }

    #[test]
    fn json_can_be_read_again() {
        let report = report(&["x"]);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
