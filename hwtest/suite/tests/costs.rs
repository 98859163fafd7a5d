//! What streams cost on the software GPU, against what its driver says that they took.

mod gateway;

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use gateway::{CLIP, Node, film, machine};
use serde_json::Value;

const GPU: &str = "/dev/dri/renderD128";
/// Far above what calibration takes.
const LIMIT: Duration = Duration::from_secs(180);

fn device(capacity: &Value, name: &str) -> Value {
    let devices = capacity["devices"].as_array().unwrap();
    devices.iter().find(|device| device["device"] == name).unwrap_or(&Value::Null).clone()
}

/// Engine-seconds per second of media of the stream that is counted, on the class for codecs.
fn predicted(capacity: &Value) -> f64 {
    let gpu = device(capacity, GPU);
    let tasks = gpu["tasks"].as_array().unwrap();
    let counted = capacity["counted_stream"].as_str().unwrap();
    let part = |part: &str| {
        let words: Vec<&str> = part.split(' ').collect();
        let rate: f64 = words[words.len() - 2].parse().unwrap();
        let of = |task: &&Value| task["operation"] == words[0] && task["codec"] == words[1];
        let task = tasks.iter().find(of).unwrap_or_else(|| panic!("{part} isn't in {gpu}"));
        rate * task["seconds_per_megapixel"]["video"].as_f64().unwrap()
    };
    counted.split(", ").map(part).sum()
}

/// The same tasks with the same figures, but for the last digit, which JSON doesn't keep.
#[track_caller]
fn same(tasks: &Value, others: &Value) {
    let (tasks, others) = (tasks.as_array().unwrap(), others.as_array().unwrap());
    assert_eq!(tasks.len(), others.len(), "{tasks:?} and {others:?}");
    for (task, other) in tasks.iter().zip(others) {
        for key in ["operation", "codec", "preset", "samples"] {
            assert_eq!(task[key], other[key]);
        }
        let rate = |task: &Value| task["megapixels_per_second"].as_f64().unwrap();
        assert!((rate(task) / rate(other) - 1.0).abs() < 1e-9, "{task} and {other}");
    }
}

#[test]
fn costs_are_learnt_told_and_kept() {
    let machine = machine();
    let mut node = Node::start(&machine, "auto", "[admission]\nenabled = true\n");
    let idle = device(&node.json("/v1/capacity"), GPU);
    assert!(idle["streams_left"].is_null() && idle["tasks"] == serde_json::json!([]), "{idle}");
    let probed = node.codec_seconds();
    let said = node.plays(&film(), 0);
    assert!(said.contains("vah264enc"), "{said}");
    node.until("its cost is known", || {
        !device(&node.json("/v1/capacity"), GPU)["streams_left"].is_null()
    });
    let capacity = node.json("/v1/capacity");
    let account = (node.codec_seconds() - probed) / f64::from(CLIP.seconds);
    let learnt = predicted(&capacity);
    assert!((learnt / account - 1.0).abs() < 0.2, "{learnt} of {account} s/s: {capacity}");
    // The other engine's work isn't taken for the codecs'.
    let gpu = device(&capacity, GPU);
    let tasks = gpu["tasks"].as_array().unwrap();
    let scale = tasks.iter().find(|task| task["operation"] == "scale").unwrap();
    assert!(scale["seconds_per_megapixel"]["video-enhance"].as_f64().unwrap() > 0.0, "{scale}");
    assert_eq!(scale["seconds_per_megapixel"]["video"], 0.0, "{scale}");

    // One less with each stream, also while it is paused.
    let left = gpu["streams_left"].as_u64().unwrap();
    // By engine time, which a busy machine doesn't lengthen; but a very slow one has no room for more.
    assert!(left >= 2, "without room for two more it can't be seen that each counts: {capacity}");
    let mut viewers = Vec::new();
    for viewer in 1..=2_u64 {
        let mut child = node.play(&film(), viewer as usize);
        child.stdin.as_mut().unwrap().write_all(b"p").unwrap();
        viewers.push(child);
        let mut now = Value::Null;
        node.until("it is counted", || {
            now = device(&node.json("/v1/capacity"), GPU);
            now["streams"] == viewer
        });
        assert_eq!(now["streams_left"], left - viewer, "{now}");
        node.metric(&format!("rendergate_streams_left{{device=\"{GPU}\"}} {}", left - viewer));
    }
    for (child, viewer) in viewers.iter_mut().zip(1..) {
        child.stdin.as_mut().unwrap().write_all(b"u").unwrap();
        assert!(node.ended(child).success(), "{}\n{}", node.said(viewer), node.log());
    }

    // Another gateway knows it.
    let file = node.folder.path().join("state/costs.json");
    node.until("it is written down", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.contains("\"encode\"") && text.matches("\"samples\": 3").count() >= 3
    });
    let before = device(&node.json("/v1/capacity"), GPU)["tasks"].clone();
    node.restart(&machine);
    let after = device(&node.json("/v1/capacity"), GPU)["tasks"].clone();
    same(&after, &before);
}

/// With a hundredth of the machine to give away nothing fits whose cost is known. Software's isn't, at
/// first; then both are, and whoever is alone is taken all the same.
#[test]
fn a_full_gpu_gives_way_to_software() {
    let machine = machine();
    let node = Node::start(&machine, "auto", "[admission]\ntarget_utilisation = 0.01\n");
    let said = node.plays(&film(), 0);
    assert!(said.contains("vah264enc"), "{said}");
    node.until("its cost is known", || {
        device(&node.json("/v1/capacity"), GPU)["streams_left"] == 0
    });
    let said = node.plays(&film(), 1);
    assert!(said.contains("x264enc") && said.contains("is full"), "{said}");
    node.metric("rendergate_streams_started_total{backend=\"software\",reason=\"capacity\"} 1");
    let metrics = node.page("/metrics");
    let counted = |line: &str| {
        line.starts_with("rendergate_stream_degraded_total{") && line.ends_with("\"software\"} 1")
    };
    assert!(metrics.lines().any(counted), "{metrics}");
    node.until("software's cost is known", || {
        device(&node.json("/v1/capacity"), "processor")["streams_left"] == 0
    });
    node.plays(&film(), 2);
}

/// Every operation that the probe calls usable has a figure, by the driver's own account, and a gateway
/// that starts knows for how many streams that is.
#[test]
fn calibration_measures_whatever_is_usable() {
    let machine = machine();
    let mut node = Node::start(&machine, "auto", "[admission]\nenabled = true\n");
    let answer = |command: &str| -> Value {
        let (out, err) = (node.folder.path().join("out"), node.folder.path().join("err"));
        let mut child = node
            .command(&machine, command)
            .arg("--json")
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > LIMIT {
                let _ = child.kill();
                panic!("{command} hangs: {}", fs::read_to_string(&err).unwrap());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        };
        let said = fs::read_to_string(&err).unwrap();
        assert!(status.success(), "{said}");
        println!("{command}: {:.1} s\n{said}", began.elapsed().as_secs_f64());
        serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap()
    };
    let (probed, measured) = (answer("probe"), answer("calibrate"));
    let has = |name: &str, operation: &str, codec: &str, class: &str| {
        let device = device(&measured, name);
        let is = |task: &&Value| task["operation"] == operation && task["codec"] == codec;
        let task = device["tasks"].as_array().unwrap().iter().find(is).cloned();
        let task = task.unwrap_or_else(|| panic!("{operation} {codec} isn't in {device}"));
        assert!(task["megapixels_per_second"].as_f64().unwrap() > 0.0, "{task}");
        assert!(task["seconds_per_megapixel"][class].as_f64().unwrap() > 0.0, "{task}");
    };
    let mut usable = 0;
    for trial in probed["nodes"][0]["trials"].as_array().unwrap() {
        if trial["outcome"]["state"] != "usable" {
            continue;
        }
        usable += 1;
        match trial["operation"].as_str().unwrap() {
            "turn" | "balance" | "transcode" => {}
            "scale" => has(GPU, "scale", "", "video-enhance"),
            "tone_map" => has(GPU, "tone_map", "", "video-enhance"),
            "deinterlace" => has(GPU, "deinterlace", "", "video-enhance"),
            codec => {
                let (operation, codec) = codec.split_once('_').unwrap();
                has(GPU, operation, codec, "video");
            }
        }
    }
    assert!(usable > 5, "{probed}");
    for (operation, codec) in [("decode", "h264"), ("encode", "h264"), ("scale", "")] {
        has("processor", operation, codec, "cpu");
    }
    node.restart(&machine);
    let capacity = node.json("/v1/capacity");
    for name in [GPU, "processor"] {
        let (known, told) = (device(&capacity, name), device(&measured, name));
        same(&known["tasks"], &told["tasks"]);
        assert_eq!(known["streams_left"], told["streams_left"]);
        assert!(known["streams_left"].is_u64(), "{known}");
    }
}
