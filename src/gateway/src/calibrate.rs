//! `rendergate calibrate`: what each operation costs on each GPU and in software, measured one by one.
//!
//! As for `rendergate probe` the worker's program does it, in processes of its own: one for all of the
//! software, which also makes the clips that decoders are measured with, and one for each operation on
//! a GPU that the probe has found usable.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gpu::{Device, Measured, NodeReport, Operation};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, timeout_at};

use crate::admission::costs::{CPU, Cost, Costs, PROCESSOR, Placed, WHOLE};
use crate::admission::file::StateFile;
use crate::admission::report::{Capacity, DeviceCapacity, tasks};
use crate::admission::{USUAL_STREAM, key, room, usual_work};
use crate::config::{Backend, Config};
use crate::probe::Prober;

/// For all of the software: a small machine takes a third of it.
const SOFTWARE_LIMIT: Duration = Duration::from_secs(100);
/// For an operation on a GPU; more than its process allows itself.
const GPU_LIMIT: Duration = Duration::from_secs(20);
/// Megapixels per second of 1080p at 24 frames per second.
const ONE_1080P: f64 = 1.920 * 1.080 * 24.0;

/// What has been measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Calibration {
    costs: Costs,
    /// Nodes, and the names of their GPUs.
    gpus: Vec<(PathBuf, String)>,
}

/// A folder that goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let name = format!("rendergate-calibrate-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Measures all there is. Says on standard error what it is at.
///
/// # Errors
/// If the worker's program can't be started, or there is no place for clips.
pub(crate) async fn measure(prober: &Prober, config: &Config) -> anyhow::Result<Calibration> {
    let folder = Folder::new()?;
    let mut calibration = Calibration::default();
    let processor = PROCESSOR.to_owned();
    let none: [&str; 0] = [];
    run(prober, config, &folder.0, &none, SOFTWARE_LIMIT, |measured| {
        calibration.note(&processor, &measured, false);
    })
    .await?;
    if config.gpu.backend == Backend::Software {
        return Ok(calibration);
    }
    for report in prober.machine().await?.nodes {
        let Some(device) = report.device().filter(Device::codes) else { continue };
        let name = key(&device.node, &device.driver);
        calibration.gpus.push((device.node.clone(), name.clone()));
        for (operation, element) in usable(&report, &device) {
            let arguments = ["--operation", operation.name(), "--element", element];
            let node = device.node.display();
            eprintln!("{operation} on {node}");
            run(prober, config, &folder.0, &arguments, GPU_LIMIT, |measured| {
                calibration.note(&name, &measured, true);
            })
            .await?;
        }
    }
    Ok(calibration)
}

/// Operations that are measured, with their elements.
fn usable<'a>(
    report: &'a NodeReport,
    device: &'a Device,
) -> impl Iterator<Item = (Operation, &'a str)> {
    let counts = |operation: Operation| {
        !matches!(operation, Operation::Turn | Operation::Balance | Operation::Transcode)
    };
    let abilities = device.abilities.iter();
    let abilities = abilities.map(|(operation, ability)| (*operation, ability.element.as_str()));
    let deinterlacer = report.trials.iter().filter_map(|trial| {
        let is = trial.operation == Operation::Deinterlace && trial.outcome.is_usable();
        Some((trial.operation, trial.element.as_deref()?)).filter(|_| is)
    });
    abilities.chain(deinterlacer).filter(move |(operation, _)| counts(*operation))
}

/// Starts a process and hears what it has measured, line by line.
async fn run(
    prober: &Prober,
    config: &Config,
    folder: &Path,
    arguments: &[&str],
    limit: Duration,
    mut hear: impl FnMut(Measured),
) -> anyhow::Result<()> {
    let mut command = prober.command();
    command.arg("--calibrate").arg(folder).arg(&config.gpu.proc_root).args(arguments);
    // What it can't measure it says, and so do drivers.
    command.stderr(std::process::Stdio::inherit());
    let mut child = prober.start(command)?;
    let Some(answer) = child.stdout.take() else { return Ok(()) };
    let mut lines = BufReader::new(answer).lines();
    let deadline = Instant::now() + limit;
    loop {
        match timeout_at(deadline, lines.next_line()).await {
            Ok(Ok(Some(line))) => match serde_json::from_str::<Measured>(&line) {
                Ok(measured) => {
                    if arguments.is_empty() {
                        eprintln!("{} in software", measured.task);
                    }
                    hear(measured);
                }
                Err(error) => eprintln!("an answer that can't be understood: {error}"),
            },
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => {
                eprintln!("its answer can't be read: {error}");
                return Ok(());
            }
            Err(_) => {
                eprintln!("no answer within {} s: it hangs", limit.as_secs());
                return Ok(());
            }
        }
    }
}

impl Calibration {
    /// Takes a measurement.
    fn note(&mut self, device: &str, measured: &Measured, on_gpu: bool) {
        if measured.megapixels <= 0.0 {
            return;
        }
        let busy = |seconds: f64| seconds > 0.0;
        let known = self.costs.devices.entry(device.to_owned()).or_default();
        let mut taken: BTreeMap<String, f64> = BTreeMap::new();
        if on_gpu {
            for (class, engine) in measured.engines.iter().filter(|(_, e)| busy(e.seconds)) {
                known.engines.insert(class.clone(), engine.capacity.max(1));
                taken.insert(class.clone(), engine.seconds);
            }
            if taken.is_empty() {
                known.engines.insert(WHOLE.into(), 1);
                taken.insert(WHOLE.into(), measured.seconds);
            }
        } else {
            known.engines.insert(CPU.into(), 1);
            taken.insert(CPU.into(), measured.cpu_seconds);
        }
        let each = taken.into_iter().map(|(class, s)| (class, s / measured.megapixels)).collect();
        known.tasks.insert(measured.task.clone(), Cost::measured(each));
    }

    /// What it comes to, in the form of `/v1/capacity`.
    pub(crate) fn capacity(&self, config: &Config) -> Capacity {
        let target = config.admission.target_utilisation;
        let room = room(&self.costs, &[], target);
        let gpus = self.gpus.iter().map(|(node, name)| (Some(node.clone()), name.as_str()));
        let device = |(node, name): (Option<PathBuf>, &str)| {
            let gpu = node.as_ref().map(|_| name.to_owned());
            let placed = Placed { work: usual_work(node.clone()), gpu };
            DeviceCapacity {
                device: node.map_or(PROCESSOR.into(), |node| node.display().to_string()),
                streams_left: room.left(&self.costs.demand(&placed)),
                streams: 0,
                engines: BTreeMap::new(),
                tasks: tasks(&self.costs, name, &room),
            }
        };
        Capacity {
            target_utilisation: target,
            counted_stream: USUAL_STREAM.to_owned(),
            devices: gpus.chain([(None, PROCESSOR)]).map(device).collect(),
        }
    }

    /// Puts it where the gateway finds it. What is known of other devices stays, and of tasks that
    /// weren't measured.
    ///
    /// # Errors
    /// That of the file system.
    pub(crate) fn keep(&self, file: &StateFile) -> io::Result<()> {
        let mut kept = file.read()?;
        for (name, measured) in &self.costs.devices {
            let known = kept.costs.devices.entry(name.clone()).or_default();
            known.engines.extend(measured.engines.clone());
            known.tasks.extend(measured.tasks.clone());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        kept.calibrated = now.as_secs();
        file.write(&kept)
    }
}

/// For people.
pub(crate) fn render(capacity: &Capacity) -> String {
    let mut text = String::new();
    for device in &capacity.devices {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{}", device.device);
        let _ = writeln!(text, "  {:<28}{:>9}{:>8}", "OPERATION", "MPX/S", "1080P");
        for task in &device.tasks {
            let name = [&*task.operation, &task.codec, &task.preset].join(" ");
            let (rate, name) = (task.megapixels_per_second, name.trim_end().to_owned());
            let _ = writeln!(text, "  {name:<28}{rate:>9.1}{:>8.1}", rate / ONE_1080P);
        }
        let left = device.streams_left.map_or("?".into(), |left| left.to_string());
        let _ = writeln!(text, "  {left} streams of {}\n", capacity.counted_stream);
    }
    text
}

#[cfg(test)]
mod tests {
    use gpu::{Action, Engine, Task};

    use super::*;

    fn measured(task: Task, seconds: f64) -> Measured {
        let engine = |seconds| Engine { seconds, capacity: 2 };
        let engines = [("video".to_owned(), engine(seconds)), ("render".to_owned(), engine(0.0))];
        Measured {
            task,
            megapixels: 100.0,
            seconds: 1.0,
            cpu_seconds: 0.5,
            engines: engines.into(),
        }
    }

    fn calibration() -> Calibration {
        let gpus = vec![("/dev/dri/renderD128".into(), "a GPU".to_owned())];
        let mut calibration = Calibration { gpus, ..Calibration::default() };
        calibration.note("a GPU", &measured(Task::decode("h264"), 0.2), true);
        calibration.note("a GPU", &measured(Task::encode("h264", ""), 0.4), true);
        let silent =
            Measured { engines: BTreeMap::new(), ..measured(Task::filter(Action::Scale), 0.0) };
        calibration.note("a GPU", &silent, true);
        calibration.note(PROCESSOR, &measured(Task::decode("h264"), 0.0), false);
        calibration
    }

    #[test]
    fn the_table_says_what_a_device_does() {
        let text = render(&calibration().capacity(&Config::default()));
        // Two engines at 0.8, of which a megapixel takes 2 ms.
        let line = text.lines().find(|line| line.contains("decode h264")).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["decode", "h264", "800.0", "16.1"]
        );
        let whole = text.lines().find(|line| line.contains("scale")).unwrap();
        assert!(whole.contains("80.0"), "{text}");
        // Scaling is what there is least time for.
        assert!(text.contains("1 streams of h264 1920x1080"), "{text}");
        assert!(text.contains("? streams of"), "{text}");
    }

    #[test]
    fn it_is_kept_beside_what_was_known() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(folder.path());
        let mut before = Calibration::default();
        before.note("another GPU", &measured(Task::decode("vp9"), 0.3), true);
        before.note("a GPU", &measured(Task::decode("vp9"), 0.3), true);
        before.keep(&file).unwrap();
        calibration().keep(&file).unwrap();
        let kept = file.read().unwrap();
        assert!(kept.calibrated > 0);
        assert!(kept.costs.devices.contains_key("another GPU"));
        let known = &kept.costs.devices["a GPU"];
        assert_eq!((known.tasks.len(), known.engines["video"]), (4, 2));
    }
}
