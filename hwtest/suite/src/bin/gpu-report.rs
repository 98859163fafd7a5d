//! Runs every row on the GPU under test (`RENDERGATE_TEST_GPU`) and writes `report.json` and
//! `report.md`: `gpu-report FOLDER [--sample | WORDS...]`. With words only rows that have one of them in
//! table or name are run, for work on one of them; `--sample` runs a fifth of them, in which everything
//! occurs once. The report says which rows were run, and of how many.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use hwtest_suite::report::{Report, Row};
use hwtest_suite::rows::{self, Task, counter, load, pictures, rates};
use stand::gpu::{self, TestGpu};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some((folder, words)), Some(gpu)) = (arguments.split_first(), gpu::under_test()) else {
        eprintln!("usage: RENDERGATE_TEST_GPU=FILE.json gpu-report FOLDER [--sample | WORDS...]");
        return ExitCode::from(2);
    };
    let report = run(gpu, words);
    let text = report.markdown();
    println!("{text}");
    let json = serde_json::to_string_pretty(&report).expect("names and numbers");
    for (name, content) in [("report.md", text), ("report.json", json)] {
        if let Err(error) = std::fs::write(Path::new(folder).join(name), content) {
            eprintln!("can't write {name} in {folder}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::from(u8::from(!report.passed))
}

fn run(gpu: &'static TestGpu, words: &[String]) -> Report {
    let wanted = |task: &Task| {
        words.is_empty()
            || task.sample && words == ["--sample"]
            || words.iter().any(|word| task.table.contains(word) || task.what.contains(word))
    };
    let only = |tasks: Vec<Task>| tasks.into_iter().filter(wanted).collect::<Vec<_>>();
    let together =
        [pictures::tasks(gpu), counter::tasks(gpu), rates::tasks(gpu)].into_iter().flatten();
    let (together, alone) = (together.collect::<Vec<_>>(), load::tasks(gpu));
    let all = together.len() + alone.len();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut rows = rows::run(&only(together), processors, said);
    // By themselves: they measure times.
    rows.extend(rows::run(&only(alone), 1, said));
    Report::new(gpu, all, rows)
}

/// One line per row as it ends, for who waits.
fn said(row: &Row) {
    let verdict = if row.passed() { "ok" } else { "FAILED" };
    eprintln!("{}: {} ... {verdict} ({})", row.table, row.what, row.ran);
}
