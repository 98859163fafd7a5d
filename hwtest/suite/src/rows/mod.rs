//! The rows of the report: what a stream is put through, and what has to hold of it.
//!
//! Every row runs the worker that ships on Jellyfin's command for VA-API, with the GPU under test.
//! What runs on that GPU follows from what the probe has seen working ([`promise`]); a row fails if
//! the worker takes another way, be it a better one.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::report::Row;

pub mod codec;
pub mod counter;
pub mod load;
pub mod numbers;
pub mod pictures;
pub mod promise;
pub mod rates;
pub mod stream;

/// A row to be run.
pub struct Task {
    /// The table that it is in.
    pub table: &'static str,
    /// What is done, in a few words.
    pub what: String,
    /// Whether it is in the sample that stands for all of them where time is short.
    pub sample: bool,
    /// Does it. A panic is a fault of the row.
    pub check: Box<dyn Fn() -> Finding + Send + Sync>,
}

/// What came of a row.
#[derive(Debug, Default)]
pub struct Finding {
    /// Where it ran, as in [`Row::ran`].
    pub ran: String,
    /// As in [`Row::why`].
    pub why: Option<String>,
    /// As in [`Row::figures`].
    pub figures: BTreeMap<String, f64>,
    /// As in [`Row::faults`].
    pub faults: Vec<String>,
}

impl Finding {
    /// Notes a figure.
    pub fn measured(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    /// Notes a fault unless `holds`.
    pub fn expect(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(fault());
        }
    }
}

/// Runs all of them, so many side by side, and says each as it ends.
pub fn run(tasks: &[Task], side_by_side: usize, said: impl Fn(&Row) + Sync) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Row>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..side_by_side.max(1) {
            scope.spawn(|| {
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = row(task);
                    said(&row);
                    let index = tasks.iter().position(|other| std::ptr::eq(other, task));
                    let slot = &done[index.expect("it is one of them")];
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(row);
                }
            });
        }
    });
    let rows = done.into_iter().map(|row| row.into_inner().unwrap_or_else(PoisonError::into_inner));
    rows.map(|row| row.expect("every task was run")).collect()
}

fn row(task: &Task) -> Row {
    let finding = catch_unwind(AssertUnwindSafe(|| (task.check)())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Finding { ran: "nowhere".into(), faults: vec![text.to_owned()], ..Finding::default() }
    });
    let Finding { ran, why, figures, faults } = finding;
    Row { table: task.table.to_owned(), what: task.what.clone(), ran, why, figures, faults }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(what: &str, check: fn() -> Finding) -> Task {
        Task { table: "T", what: what.into(), sample: false, check: Box::new(check) }
    }

    #[test]
    fn every_row_is_there_in_order_and_a_panic_is_a_fault() {
        let tasks = [
            task("a", || panic!("number {}", 7)),
            task("b", Finding::default),
            task("c", || {
                let mut finding = Finding::default();
                finding.expect(false, || "not so".into());
                finding
            }),
        ];
        let said = AtomicUsize::new(0);
        let rows = run(&tasks, 2, |_| {
            said.fetch_add(1, Ordering::Relaxed);
        });
        let names: Vec<&str> = rows.iter().map(|row| row.what.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(said.into_inner(), 3);
        assert_eq!(rows[0].faults, ["number 7"]);
        assert!(rows[1].passed());
        assert_eq!(rows[2].faults, ["not so"]);
    }
}
