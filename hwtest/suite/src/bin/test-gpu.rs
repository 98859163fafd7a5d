//! Writes down the GPU that tests are to run on: `test-gpu FILE.json [virtual]`; and, beside it, the
//! same GPU as if it could only encode (`FILE.encodes.json`) or only decode (`FILE.decodes.json`).
//!
//! The machine's own if `rendergate probe` finds one that works, else (or if told so) the virtual
//! one: the software VA-API driver behind a virtual render node. Says which on standard output.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode};

use gpu::{Device, Machine, NodeReport, Operation};
use hwtest_suite::built;
use stand::gpu::{Kind, TestGpu};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (file, only_virtual) = match &arguments[..] {
        [file] => (file, false),
        [file, kind] if kind == "virtual" => (file, true),
        _ => {
            eprintln!("usage: test-gpu FILE.json [virtual]");
            return ExitCode::from(2);
        }
    };
    // The tests that read what is in it run in folders of their own.
    let Ok(file) = std::path::absolute(file) else {
        eprintln!("expected a file's name, got '{file}'");
        return ExitCode::from(2);
    };
    let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
    let own = if only_virtual { None } else { probe(&BTreeMap::new()) };
    let (kind, environment, found) = match own {
        Some(found) => (Kind::Real, BTreeMap::new(), Some(found)),
        None => {
            let environment = virtual_environment(&folder);
            let found = probe(&environment);
            (Kind::Virtual, environment, found)
        }
    };
    let Some((device, report)) = found else {
        eprintln!("nothing works on the virtual GPU: run `rendergate probe` on it");
        return ExitCode::FAILURE;
    };
    println!("on a {kind} GPU: {} ({})", device.driver, device.node.display());
    // The same GPU as if it could do one half only.
    let half = |keep: fn(&Operation) -> bool| {
        let abilities = device.abilities.clone().into_iter().filter(|(one, _)| keep(one)).collect();
        Device { abilities, ..device.clone() }
    };
    let files = [
        (file.clone(), device.clone()),
        (file.with_extension("encodes.json"), half(encodes)),
        (file.with_extension("decodes.json"), half(|operation| !encodes(operation))),
    ];
    for (file, device) in files {
        let environment = environment.clone();
        let gpu = TestGpu { kind, report: report.clone(), device, environment };
        let json = serde_json::to_string(&gpu).expect("names and numbers");
        if let Err(error) = std::fs::write(&file, json) {
            eprintln!("can't write {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn encodes(operation: &Operation) -> bool {
    operation.name().starts_with("encode")
}

/// What a worker needs in its environment to find the virtual GPU. The driver's name is that of its
/// file, so a link has to have it.
fn virtual_environment(folder: &Path) -> BTreeMap<String, String> {
    let drivers = folder.join("virtual-gpu");
    let _ = std::fs::create_dir_all(&drivers);
    let link = drivers.join("softva_drv_video.so");
    let _ = std::fs::remove_file(&link);
    if let Err(error) = symlink(built("libsoftva.so"), &link) {
        eprintln!("can't link {}: {error}", link.display());
    }
    let text = |path: &Path| path.display().to_string();
    [
        ("LD_PRELOAD", text(&built("librendernode.so"))),
        ("LIBVA_DRIVERS_PATH", text(&drivers)),
        ("GST_REGISTRY", text(&drivers.join("registry.bin"))),
        // GStreamer from 1.24 on takes drivers it doesn't know by name only if told so.
        ("GST_VA_ALL_DRIVERS", "1".to_owned()),
        ("RENDERGATE_SANDBOX_READ", stand::gpu::virtual_places()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The GPU that can do most, and all that is known of it.
fn probe(environment: &BTreeMap<String, String>) -> Option<(Device, NodeReport)> {
    let output = Command::new(built("rendergate"))
        .args(["probe", "--json"])
        .envs(environment)
        .env("RENDERGATE_WORKER", built("rendergate-worker"))
        .output()
        .ok()?;
    let machine: Machine = serde_json::from_slice(&output.stdout).ok()?;
    let device = machine.device()?;
    let report = machine.nodes.into_iter().find(|report| report.node.path == device.node)?;
    Some((device, report))
}
