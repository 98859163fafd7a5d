//! The Grafana dashboard and the alerts of `deploy`, in a real Prometheus that scrapes a gateway on the
//! software GPU: every query gives numbers.

#[path = "../gateway/mod.rs"]
mod gateway;
mod prometheus;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use benches::play::template;
use gateway::{Node, film};
use jellyfin_sim::{CommandLine, Container, Kind, Template};
use prometheus::{Prometheus, SCRAPE_SECONDS, program};
use serde_json::Value;

const NODE: &str = "/dev/dri/renderD128";
/// Streams that run while the queries are asked; the one after them is declined.
const STREAMS: usize = 4;

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file)
}

fn dashboard() -> Value {
    let text = std::fs::read_to_string(deploy("grafana/rendergate.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A panel's question.
struct Query {
    title: String,
    expression: String,
    /// Over the time shown, not for its end alone.
    range: bool,
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            queries.push(Query {
                title: text(&panel["title"]),
                expression: text(&target["expr"]),
                range: target["range"] == true,
            });
        }
    }
    queries
}

/// Variables as Grafana puts them in: the interval is four scrapes long at least, a choice of one is
/// quoted as a regular expression, "All" is what the variable says of itself.
fn substituted(expression: &str, instance: &str, device: &str) -> String {
    let replaced = expression
        .replace("$__rate_interval", &format!("{}s", 4 * SCRAPE_SECONDS))
        .replace("$__range", "3600s")
        .replace("$instance", instance)
        .replace("$device", device);
    assert!(!replaced.contains('$'), "a variable that isn't known: {replaced}");
    replaced
}

fn quoted(value: &str) -> String {
    value.replace('.', "\\\\.")
}

/// Metrics that an expression names.
fn metrics(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("rendergate_"))
        .map(str::to_owned)
        .collect()
}

/// The film, long enough to run while questions are asked; with another codec if one is named.
fn long_film(codec: &str) -> PathBuf {
    let film = film();
    let long = film.with_file_name(format!("long-{codec}.mkv"));
    let making = film.with_file_name(format!("making-{codec}-{}.mkv", std::process::id()));
    let ffmpeg = |arguments: &[&str], input: &Path, output: &Path| {
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-nostdin"])
            .args(arguments)
            .arg("-i")
            .arg(input)
            .args(if arguments.is_empty() { ["-c:v", codec] } else { ["-c:v", "copy"] })
            .args(["-c:a", "copy"])
            .arg(output)
            .status()
            .unwrap();
        assert!(made.success());
    };
    let mut source = film.clone();
    if codec != "copy" {
        source = film.with_file_name(format!("short-{codec}.mkv"));
        ffmpeg(&[], &film, &source);
    }
    ffmpeg(&["-stream_loop", "79"], &source, &making);
    std::fs::rename(&making, &long).unwrap();
    long
}

/// A hook that runs Jellyfin's command for the film.
fn hook(node: &Node, film: &Path, viewer: usize, encoder: &str) -> Child {
    let output = node.output(viewer);
    std::fs::create_dir_all(&output).unwrap();
    let template = Template {
        kind: Kind::Software,
        encoder: Some(encoder.into()),
        video_bitrate: 800_000,
        ..template(film, &output, Container::Fmp4, 180)
    };
    let mut line = template.line();
    if encoder == "libx265" {
        let (before, options) = line.split_once("-x264opts:0 ").unwrap();
        let (_, behind) = options.split_once(' ').unwrap();
        line = format!("{before}-x265-params:0 no-scenecut=1 {behind}");
        line = line.replace("-profile:v:0 high", "-profile:v:0 main");
    }
    node.hook()
        .args(CommandLine::from_log(&line).unwrap().at(0, 1200.0))
        .env("RENDERGATE_ACCEPT_TIMEOUT_MS", "30000")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(output.join("hook.log")).unwrap())
        .spawn()
        .unwrap()
}

/// Hooks that end with the test.
struct Viewers(Vec<Child>);

impl Drop for Viewers {
    fn drop(&mut self) {
        for viewer in &mut self.0 {
            let _ = viewer.kill();
            let _ = viewer.wait();
        }
    }
}

/// Streams of every kind, one that loses its worker, one that fails, one that is declined, and a stranger at the door.
fn load(node: &Node) -> Viewers {
    let (plain, other) = (long_film("copy"), long_film("mpeg4"));
    let mut viewers = Viewers(Vec::new());
    // A worker that is lost, and another one that goes on.
    node.fault("SOFTVA_FAULT", "abort:160@encode");
    let unlucky = Viewers(vec![hook(node, &plain, 0, "libx264")]);
    node.until("another worker goes on", || node.log().contains("another worker goes on"));
    drop(unlucky);
    node.until("its viewer has gone", || node.streams().is_empty());
    node.until("the GPU is back", || node.log().matches("works=").count() == 2);
    // No film at all: ffmpeg, which the hook turns to, makes nothing of it either.
    let noise = plain.with_file_name("noise.mkv");
    std::fs::write(&noise, [0x55; 65_536]).unwrap();
    let mut damaged = hook(node, &noise, 0, "libx264");
    assert!(!node.ended(&mut damaged).success());
    // The driver's HEVC encoder is a lie, and its GPU decodes no MPEG-4.
    let kinds = [
        (&plain, "libx264", "vaapi"),
        (&other, "libx264", "mixed"),
        (&other, "libx265", "software"),
        (&plain, "libx264", "vaapi"),
    ];
    for (number, (film, encoder, backend)) in kinds.into_iter().enumerate() {
        viewers.0.push(hook(node, film, number + 1, encoder));
        let runs = || {
            let streams = node.streams();
            streams.len() == number + 1 && streams[number]["backend"] == backend
        };
        node.until(&format!("a stream runs as {backend}"), runs);
    }
    viewers.0.push(hook(node, &plain, STREAMS + 1, "libx264"));
    node.until("one too many is declined", || node.log().contains("streams.max_streams is 4"));
    let mut stranger = UnixStream::connect(node.folder.path().join("s.sock")).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    viewers
}

fn address(node: &Node) -> String {
    let log = node.log();
    log.split("http=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
fn every_query_and_every_alert_finds_its_numbers() {
    let mut machine = gateway::machine();
    machine.set("SOFTVA_FAULT", "lie-caps:h265-encode");
    let node = Node::start(&machine, "auto", &format!("max_streams = {STREAMS}\n"));
    // What others take of the processor, beside what the virtual GPU says.
    let proc = node.folder.path().join("proc");
    std::fs::create_dir_all(&proc).unwrap();
    std::os::unix::fs::symlink("/proc/stat", proc.join("stat")).unwrap();
    let instance = address(&node);
    let prometheus = Prometheus::start(&instance, &deploy("prometheus/rendergate.rules.yml"));
    let up = || prometheus.query("up{job=\"rendergate\"}") == Some(vec![1.0]);
    node.until("Prometheus has scraped the gateway", up);
    let _viewers = load(&node);

    let dashboard = dashboard();
    let mut named: BTreeSet<String> = BTreeSet::new();
    for Query { title, expression, range } in queries(&dashboard) {
        named.extend(metrics(&expression));
        for (instance, device) in
            [(quoted(&instance), quoted(NODE)), (".*".to_owned(), ".*".to_owned())]
        {
            let query = substituted(&expression, &instance, &device);
            node.until(&format!("{title}: {query}\n{}", prometheus.log()), || {
                let values =
                    if range { prometheus.query_range(&query) } else { prometheus.query(&query) };
                values.is_some_and(|values| values.iter().any(|value| value.is_finite()))
            });
        }
    }
    // Of what is stacked and compared, numbers that say something.
    for query in [
        "sum(rate(rendergate_stream_gpu_engine_seconds_total[4s])) > 0",
        "max(rendergate_gpu_engine_utilization_ratio) > 0",
        "min(rendergate_stream_speed_ratio) > 0",
        "rendergate_stream_info{video_in=\"mpeg4\", video_out=\"hevc\", backend=\"software\"}",
        "rendergate_stream_info{video_in=\"h264\", video_out=\"h264\", backend=\"vaapi\"}",
        "rendergate_streams_off_gpu{backend=\"software\", reason=\"encoder_unsupported\"} == 1",
        "increase(rendergate_declined_total{reason=\"max_streams\"}[1h]) > 0",
        "increase(rendergate_streams_ended_total{how=~\"failed_.*\"}[1h]) > 0",
    ] {
        node.until(query, || prometheus.query(query).is_some_and(|values| !values.is_empty()));
    }
    the_alerts(&node, &prometheus, &mut named);
    for metric in named {
        let metric =
            metric.strip_suffix("_bucket").map_or(metric.clone(), |m| format!("{m}_count"));
        let there = prometheus.query(&format!("count({metric})"));
        assert!(there.is_some_and(|values| !values.is_empty()), "there is no {metric}");
    }
    the_page_s_numbers(&node);
}

/// Each is evaluated without complaint, and those are about to fire that have a cause.
fn the_alerts(node: &Node, prometheus: &Prometheus, named: &mut BTreeSet<String>) {
    node.until("the alerts are evaluated", || {
        let rules = prometheus.rules();
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")
    });
    let rules = prometheus.rules();
    for rule in &rules {
        let expression = rule["query"].as_str().unwrap();
        assert!(prometheus.query(expression).is_some(), "{expression}");
        named.extend(metrics(expression));
    }
    let state = |name: &str| {
        let rules = prometheus.rules();
        let rule = rules.iter().find(|rule| rule["name"] == name).unwrap();
        rule["state"].as_str().unwrap().to_owned()
    };
    for (name, expected) in [
        ("RendergateStreamsFail", "firing"),
        ("RendergateDeclines", "firing"),
        // For five minutes it is only pending.
        ("RendergateSoftwareDespiteGpu", "pending"),
    ] {
        node.until(&format!("{name} is {expected}"), || state(name) == expected);
    }
    for quiet in ["RendergateDown", "RendergateNotScraped", "RendergateGpuBroken"] {
        assert_eq!(state(quiet), "inactive", "{quiet}");
    }
}

/// What the page for people is made from.
fn the_page_s_numbers(node: &Node) {
    let json = |path: &str| -> Value {
        let page = node.page(path);
        serde_json::from_str(page.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    // A stream that is held for the moment takes nothing.
    node.until("the GPU is seen at work", || {
        json("/v1/devices")[0]["gpu_utilization"]["video"].as_f64().is_some_and(|used| used > 0.0)
    });
    node.until("the first stream's first segment is told", || {
        node.streams()[0]["first_segment_s"].as_f64().is_some_and(|took| took > 0.0)
    });
    let status = json("/v1/status");
    let device = &status["devices"][0];
    assert_eq!((device["node"].as_str(), device["state"].as_str()), (Some(NODE), Some("works")));
    assert!(device["driver"].as_str().unwrap().contains("softva"), "{device}");
    assert_eq!(device["streams"], 3);
    assert_eq!(status["max_streams"], STREAMS);
    assert_eq!(status["declined"]["max_streams"], 1);
    let ended = status["ended"].as_array().unwrap();
    let how: Vec<_> = ended.iter().map(|line| line["how"].as_str().unwrap()).collect();
    let [declined, failed, left] = how[..] else { panic!("{how:?}") };
    assert_eq!((declined, left), ("declined", "hook_gone"));
    assert!(failed.starts_with("failed_"), "{failed}");
    let first = &status["streams"][0];
    assert_eq!(
        (first["video_in"].as_str(), first["size_in"].as_str()),
        (Some("h264"), Some("640x360"))
    );
}

#[test]
fn the_dashboard_can_be_read_by_whoever_opens_it() {
    let dashboard = dashboard();
    assert!(dashboard.get("uid").is_none(), "the instance gives it one");
    let names: Vec<_> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "instance", "device"]);
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title}");
        for source in std::iter::once(panel).chain(panel["targets"].as_array().unwrap()) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn the_alerts_fire_when_they_should() {
    let promtool = |arguments: [&str; 2], file: &str| {
        let output = Command::new(program("promtool"))
            .args(arguments)
            .arg(deploy(file))
            .output()
            .expect("promtool runs");
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{}", said.join("\n"));
        said[0].clone()
    };
    let checked = promtool(["check", "rules"], "prometheus/rendergate.rules.yml");
    assert!(checked.contains("8 rules found"), "{checked}");
    promtool(["test", "rules"], "prometheus/rendergate.test.yml");
}
