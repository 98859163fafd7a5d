//! Room for streams by what they cost, as it is told and as it is used.

mod common;

use std::fs;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use common::{Gateway, Hook, Setup, until};
use serde_json::{Value, json};
use session::{Fault, GatewayToHook};

/// On each GPU two streams fit, and two encoded faster; on the processor one, and one encoded faster.
///
/// A stream of the fake worker has 10 megapixels per second to decode, and as many to encode.
fn costs() -> Value {
    let task = |operation: &str, preset: &str, class: &str, seconds: f64| {
        json!({
            "action": operation, "codec": "h264", "preset": preset,
            "seconds": { class: seconds }, "samples": 1000,
        })
    };
    let device = |class: &str, presets: [&str; 2], of: f64| {
        let [usual, faster] = presets;
        let tasks = [
            task("decode", "", class, 0.009 * of),
            task("encode", usual, class, 0.02 * of),
            task("encode", faster, class, 0.001 * of),
        ];
        json!({ "engines": { class: 1 }, "tasks": tasks })
    };
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    json!({
        "version": 1,
        "devices": {
            "/dev/dri/renderD200": device("video", ["", "7"], 1.0),
            "/dev/dri/renderD201": device("video", ["", "7"], 1.0),
            "processor": device("cpu", ["veryfast", "ultrafast"], 1.9 * cores),
        },
    })
}

fn gateway(costs: &str, toml: &str) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("costs.json"), costs).unwrap();
    // Of this machine others may take much meanwhile.
    others_took(folder.path(), 0.0);
    let toml = format!("{toml}[gpu]\nproc_root = '{}'\n", folder.path().display());
    let toml = &toml;
    let gateway = Gateway::start_in(folder, &Setup { toml, ..Setup::default() });
    until("the gateway is ready", || gateway.get("/readyz").starts_with("HTTP/1.1 200"));
    gateway
}

/// The machine's processors have been busy for so long, in seconds each.
fn others_took(proc_root: &Path, seconds: f64) {
    let cores = std::thread::available_parallelism().unwrap().get();
    let ticks = rustix::param::clock_ticks_per_second() as f64 * seconds * cores as f64;
    let each = "cpu 0 0 0 0\n".repeat(cores);
    let written = proc_root.join("stat.new");
    fs::write(&written, format!("cpu {ticks:.0} 5 0 5 5 0 0 0\n{each}")).unwrap();
    fs::rename(written, proc_root.join("stat")).unwrap();
}

/// It makes nothing, so that nothing is learnt of it.
const WAITING: &str = "options,every=600000";

/// Which way a stream goes.
fn option(hook: &mut Hook) -> String {
    let running = |message: &GatewayToHook| matches!(message, GatewayToHook::Running { .. });
    match hook.hear("it runs", running) {
        GatewayToHook::Running { backend, .. } => backend,
        other => panic!("{other:?}"),
    }
}

fn degraded(step: &str) -> String {
    format!("rendergate_stream_degraded_total{{reason=\"video\",step=\"{step}\"}}")
}

#[test]
fn streams_give_way_in_order_until_there_is_no_room() {
    let gateway = gateway(&costs().to_string(), "");
    let mut hooks = Vec::new();
    for expect in [0, 0, 1, 1, 2, 2, 3, 3, 4, 5] {
        let mut hook = gateway.hook(WAITING);
        let said = option(&mut hook);
        let way = said.split(' ').next().unwrap();
        assert_eq!(way, format!("option-{expect}"), "{said}");
        assert_eq!(said.contains("video of /dev/dri/renderD200 is full"), expect != 0, "{said}");
        hooks.push(hook);
    }
    let mut refused = gateway.hook(WAITING);
    refused.accepted();
    refused.steps_aside(19);
    let (fault, reason) = refused.failed();
    assert_eq!(fault, Fault::Gateway);
    assert!(reason.contains("no room") && reason.contains("renderD200 is full"), "{reason}");
    // Once, as what it was: its hook runs ffmpeg.
    gateway.metric("rendergate_declined_total{reason=\"capacity\"} 1");
    gateway.metric("rendergate_streams_ended_total{how=\"failed_gateway\"} 0");
    let ended = &gateway.json("/v1/status")["ended"];
    assert_eq!(ended.as_array().unwrap().len(), 1, "{ended}");
    assert_eq!(ended[0]["how"], "declined");
    assert!(ended[0]["why"].as_str().unwrap().contains("no room"), "{ended}");
    for (step, times) in
        [("other_device", 2), ("faster_preset", 4), ("software", 2), ("local_ffmpeg", 1)]
    {
        gateway.metric(&format!("{} {times}", degraded(step)));
    }
    let capacity = gateway.json("/v1/capacity");
    let processor = &capacity["devices"].as_array().unwrap()[0];
    assert_eq!((&processor["device"], &processor["streams"]), (&json!("processor"), &json!(2)));
    assert_eq!(processor["streams_left"], 0, "{capacity}");
    // Whoever leaves makes room.
    drop(hooks.remove(0));
    until("there is room again", || {
        let mut hook = gateway.hook(WAITING);
        hook.accepted();
        let back = match hook.next() {
            Some(GatewayToHook::Running { backend, .. }) => backend == "option-0",
            _ => false,
        };
        if back {
            hooks.push(hook);
        }
        back
    });
}

#[test]
fn what_others_take_leads_to_a_cheaper_way_and_to_no_refusal() {
    let gateway = gateway(&costs().to_string(), "");
    let mut hooks: Vec<Hook> = (0..8).map(|_| gateway.hook(WAITING)).collect();
    hooks.iter_mut().for_each(|hook| _ = option(hook));
    let processor = || gateway.json("/v1/capacity")["devices"][0].clone();
    assert_eq!(processor()["engines"]["cpu"]["others"], Value::Null);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let root = gateway.folder.path().to_owned();
    // Half of the time that passes.
    let machine = std::thread::spawn(move || {
        let began = Instant::now();
        while stopped.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
            others_took(&root, began.elapsed().as_secs_f64() / 2.0);
        }
    });
    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    let share = || processor()["engines"]["cpu"]["others"].as_f64().map(|others| others / cores);
    until("others have half of it", || share().is_some_and(|share| share > 0.4));
    assert!(gateway.get("/metrics").contains("rendergate_capacity_others_ratio{device=\"proc"));
    let said = option(&mut gateway.hook(WAITING));
    assert_eq!(said.split(' ').next(), Some("option-5"), "{said}");
    drop(stop);
    machine.join().unwrap();
}

#[test]
fn copies_and_sound_are_always_taken() {
    let gateway = gateway(&costs().to_string(), "");
    let mut hooks: Vec<Hook> = (0..10).map(|_| gateway.hook("options")).collect();
    hooks.iter_mut().for_each(|hook| _ = option(hook));
    let mut copy = gateway.hook("");
    assert_eq!(option(&mut copy), "fake");
}

#[test]
fn unknown_costs_are_admitted() {
    for costs in ["", "{\"version\": 77}", "what is this?"] {
        let gateway = gateway(costs, "");
        let mut hooks = Vec::new();
        for _ in 0..5 {
            let mut hook = gateway.hook("options");
            assert_eq!(option(&mut hook), "option-0");
            hooks.push(hook);
        }
        gateway.logged("what streams cost is learnt anew");
        let aside = fs::read_to_string(gateway.folder.path().join("costs.json.aside")).unwrap();
        assert_eq!(aside, costs);
    }
}

#[test]
fn nothing_is_refused_without_admission() {
    let gateway = gateway(&costs().to_string(), "[admission]\nenabled = false\n");
    let mut hooks = Vec::new();
    for _ in 0..4 {
        let mut hook = gateway.hook("options");
        assert_eq!(option(&mut hook), "option-0");
        hooks.push(hook);
    }
}

#[test]
fn who_has_no_room_steps_aside_only_if_that_is_wanted() {
    let gateway = gateway(
        &costs().to_string(),
        "[streams]\nmax_streams = 1\n[admission]\nffmpeg_niceness = 0\n",
    );
    let mut first = gateway.hook("");
    first.accepted();
    gateway.hook("").declined();
}

#[test]
fn what_is_known_is_told() {
    let gateway = gateway(&costs().to_string(), "[admission]\ntarget_utilisation = 0.5\n");
    let capacity = gateway.json("/v1/capacity");
    assert_eq!(capacity["target_utilisation"], 0.5);
    let processor = &capacity["devices"][0];
    let decode = &processor["tasks"][0];
    assert_eq!((&decode["operation"], &decode["codec"]), (&json!("decode"), &json!("h264")));
    // Half of every core, of which a megapixel takes 0.0171 seconds.
    let rate = decode["megapixels_per_second"].as_f64().unwrap();
    assert!((rate - 0.5 / 0.0171).abs() < 1e-6, "{rate}");
    gateway.metric(&format!(
        "rendergate_capacity_megapixels_per_second{{codec=\"h264\",device=\"processor\",\
         operation=\"decode\",preset=\"\"}} {rate}"
    ));
    // Nobody knows yet what scaling costs.
    assert!(processor["streams_left"].is_null());
    assert!(!gateway.get("/metrics").contains("rendergate_streams_left{"));
}

#[test]
fn a_newer_calibration_isnt_overwritten() {
    let mut gateway = gateway(&costs().to_string(), "");
    let file = gateway.folder.path().join("costs.json");
    let mut newer = costs();
    newer["calibrated"] = json!(1_700_000_000_u64);
    newer["devices"]["processor"]["tasks"][0]["seconds"]["cpu"] = json!(0.125);
    fs::write(&file, newer.to_string()).unwrap();
    gateway.terminate();
    let kept: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(kept["calibrated"], 1_700_000_000_u64);
    assert_eq!(kept["devices"]["processor"]["tasks"][0]["seconds"]["cpu"], 0.125);
}

#[test]
fn what_a_lost_worker_took_is_not_subtracted_from_the_next_ones() {
    let gateway = Gateway::ready("");
    // Three times as long as the first, so that it catches up with its counters.
    let mut hook = gateway.hook("cpu=300,every=3,exit=20,until=1,segments=80");
    hook.accepted();
    assert_eq!(hook.ended(), session::Ending::Complete);
    gateway.idle();
    gateway.has_learnt(0.1);
}

#[test]
fn a_gateway_that_cant_keep_what_it_learns_says_so_once_and_learns() {
    let newer = "{\"version\": 77}";
    for what in ["a folder in the file's place", "a file in the folder's place", "no way aside"] {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        match what {
            "a folder in the file's place" => fs::create_dir_all(state.join("costs.json")).unwrap(),
            "a file in the folder's place" => fs::write(&state, "").unwrap(),
            _ => {
                fs::create_dir_all(state.join("costs.json.aside")).unwrap();
                fs::write(state.join("costs.json"), newer).unwrap();
            }
        }
        let variables = [("STATE_DIRECTORY", state.to_str().unwrap())];
        let setup = Setup { variables: &variables, toml: "" };
        let mut gateway = Gateway::start_in(folder, &setup);
        // Each has it try to keep what it has learnt; so does its end.
        for _ in 0..2 {
            let mut hook = gateway.hook("cpu=300,every=1,segments=20");
            hook.accepted();
            assert_eq!(hook.ended(), session::Ending::Complete);
            gateway.idle();
        }
        gateway.has_learnt(0.1);
        assert!(gateway.terminate().success(), "{what}");
        let log = gateway.log.lock().unwrap().join("\n");
        let said = log.matches("learnt, but not kept").count();
        assert_eq!(said, 1, "{what}\n{log}");
        assert!(log.contains("costs.json") && log.contains("state.directory"), "{what}\n{log}");
        if what == "no way aside" {
            let kept = gateway.folder.path().join("state/costs.json");
            assert_eq!(fs::read_to_string(kept).unwrap(), newer);
        }
    }
}

#[test]
fn costs_that_are_at_their_end_are_still_learnt() {
    let mut most = costs();
    for task in most["devices"]["processor"]["tasks"].as_array_mut().unwrap() {
        task["samples"] = json!(u32::MAX);
    }
    let gateway = gateway(&most.to_string(), "[admission]\nenabled = false\n");
    let mut hook = gateway.hook("cpu=300,every=1,segments=20");
    hook.accepted();
    assert_eq!(hook.ended(), session::Ending::Complete);
    let samples = &gateway.json("/v1/capacity")["devices"][0]["tasks"][0]["samples"];
    assert_eq!(*samples, json!(u32::MAX));
}
