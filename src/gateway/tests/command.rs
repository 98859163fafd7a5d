//! The command line, the configuration, and what a gateway tells over HTTP.

mod common;

use std::process::Command;

use common::{Gateway, rendergate, until};
use ffmpeg_args::Location;
use serde_json::json;
use session::{Ending, PROTOCOL};

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn help_and_version_teach() {
    let (code, out, _) = run(rendergate().arg("--version"));
    assert_eq!((code, out), (Some(0), format!("rendergate {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, out, _) = run(rendergate().arg("--help"));
    assert_eq!(code, Some(0));
    for text in ["rendergate serve", "rendergate streams", "rendergate-ffmpeg"] {
        assert!(out.contains(text), "{out}");
    }
    assert!(!out.contains("launch-worker"), "{out}");
    let (_, out, _) = run(rendergate().args(["serve", "--help"]));
    assert!(out.contains("RENDERGATE_SOCKET") && out.contains("SIGTERM"), "{out}");
    let (_, out, _) = run(rendergate().args(["probe", "--help"]));
    for text in ["REPORTED", "USABLE", "Exit status: 0 if something is usable", "--json"] {
        assert!(out.contains(text), "{out}");
    }
    let (_, out, _) = run(rendergate().args(["calibrate", "--help"]));
    for text in ["MPX/S", "target_utilisation", "costs.json", "less than a minute", "--json"] {
        assert!(out.contains(text), "{out}");
    }
}

const COPY: &str = r#"-ss 00:00:30.500 -fflags +genpts -i file:"/m/A B.mkv" -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s -codec:v:0 copy -codec:a:0 copy -copyts -avoid_negative_ts disabled -f hls -max_delay 5000000 -hls_time 6 -hls_segment_type mpegts -start_number 5 -hls_segment_filename "/t/ab%d.ts" -hls_playlist_type vod -hls_list_size 0 -y "/t/ab.m3u8""#;

#[test]
fn explain_says_what_becomes_of_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("FFmpeg.Remux.log");
    std::fs::write(&log, format!("{{}}\n\n/usr/lib/jellyfin-ffmpeg/ffmpeg {COPY}\n")).unwrap();
    let (code, out, err) = run(rendergate().args(["explain", "--log-line"]).arg(&log));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for text in ["transcode: ", "/m/A B.mkv, from 00:00:30.500", "0:0: copied", "ab5.ts in /t, 6 s"]
    {
        assert!(out.contains(text), "{out}");
    }
    let (_, out, _) = run(rendergate().args(["explain", "--json", "--log-line"]).arg(&log));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["plan"], "transcode");
    assert!(json["reason"].is_null() && json["output"]["hls"]["start_number"] == 5, "{out}");

    for program in [&["/opt/ffmpeg"] as &[&str], &[]] {
        let mut command = rendergate();
        command.args(["explain", "--json", "--"]).args(program).arg("-version");
        let (code, out, _) = run(&mut command);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, Some(0));
        assert_eq!((&json["plan"], &json["reason"]), (&"passthrough".into(), &"-version".into()));
    }
    let (_, out, _) = run(rendergate().args(["explain", "--", "-frobnicate"]));
    assert!(out.contains("-frobnicate") && out.contains("unknown_argument"), "{out}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = rendergate();
    let output = command.args(["explain", "--", "-version"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[test]
fn explain_without_a_command_says_what_it_wants() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("a.log");
    std::fs::write(&log, "ffmpeg version 7\n").unwrap();
    let (code, _, err) = run(rendergate().args(["explain", "--log-line"]).arg(&log));
    assert_eq!(code, Some(1));
    assert!(err.contains("a.log") && err.contains("jellyfin-ffmpeg/ffmpeg -analyze"), "{err}");
    let (code, _, err) = run(rendergate().args(["explain", "--log-line", "/no/such.log"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("/no/such.log"), "{err}");
    assert_eq!(run(rendergate().arg("explain")).0, Some(2));
    let (_, out, _) = run(rendergate().args(["explain", "--help"]));
    assert!(out.contains("--log-line") && out.contains("other rules than a shell"), "{out}");
}

#[test]
fn check_config_shows_what_applies() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.toml");
    std::fs::write(&file, "[streams]\nmax_streams = 3\n").unwrap();
    let check = || {
        let mut command = rendergate();
        command.args(["serve", "--check-config", "--config"]).arg(&file);
        command
    };
    let (code, out, err) = run(check().env("RENDERGATE_DRAIN_SECONDS", "7"));
    assert_eq!(code, Some(0), "{err}");
    for line in [
        "max_streams = 3",
        "drain_seconds = 7.0",
        "listen = \"127.0.0.1:9370\"",
        "target_utilisation = 0.8",
    ] {
        assert!(out.lines().any(|other| other == line), "{out}");
    }
    std::fs::write(&file, "[streams]\nmax_streams = 3\nmax_stream = 4\n").unwrap();
    let (code, out, err) = run(&mut check());
    assert_eq!((code, out.as_str()), (Some(1), ""));
    for text in ["r.toml", "line 3", "max_stream", "accept_seconds"] {
        assert!(err.contains(text), "{err}");
    }
    let (code, _, err) = run(rendergate().args(["serve", "--config", "/no/such/file"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("/no/such/file"), "{err}");
    std::fs::write(&file, "[log]\nfilter = 'gateway=loud'\n").unwrap();
    let (code, _, err) = run(rendergate().args(["serve", "--http", "off", "--config"]).arg(&file));
    assert_eq!(code, Some(1));
    assert!(err.contains("log.filter"), "{err}");
}

#[test]
fn streams_are_reported_while_they_run_and_no_longer() {
    let gateway = Gateway::ready("");
    let mut hook = gateway.hook("every=50");
    let stream = hook.accepted();
    hook.segment(6);
    until("progress", || gateway.json("/v1/streams")[0]["segments"].as_u64() >= Some(2));
    let line = gateway.json("/v1/streams")[0].clone();
    assert_eq!(line["id"], stream.to_string());
    assert_eq!(line["state"], "running");
    assert_eq!(line["backend"], "fake");
    assert_eq!(line["input"], gateway.input().to_string_lossy().as_ref());
    assert_eq!(line["output"], gateway.out().join("abc.m3u8").to_string_lossy().as_ref());
    assert_eq!(line["hook_pid"], std::process::id());
    assert!(line["speed"].as_f64().unwrap() > 1.0, "{line}");
    assert!(line["position_s"].as_f64().unwrap() >= 3.0, "{line}");
    assert!(line["lead_s"].as_f64().unwrap() > 2.0, "{line}");
    assert!(line["bytes"].as_u64().unwrap() >= 1000, "{line}");
    let since = line["since"].as_str().unwrap();
    assert!(since.len() == 20 && since.ends_with('Z'), "{since}");

    let metrics = gateway.get("/metrics");
    assert!(metrics.contains("content-type: text/plain"), "{metrics}");
    for text in [
        "rendergate_streams{backend=\"fake\",state=\"running\"} 1",
        "rendergate_first_segment_seconds_count 1",
        &format!("rendergate_stream_speed_ratio{{stream=\"{stream}\"}} "),
        &format!("rendergate_stream_lead_seconds{{stream=\"{stream}\"}} "),
        &format!(
            "rendergate_stream_info{{backend=\"fake\",item=\"in put\",size=\"\",\
             stream=\"{stream}\",video_in=\"\",video_out=\"\"}} 1"
        ),
    ] {
        assert!(metrics.contains(text), "{text} is not in\n{metrics}");
    }
    let http = gateway.http().to_string();
    let (code, out, _) = run(rendergate().args(["streams", "--http", &http]));
    assert_eq!(code, Some(0));
    assert!(out.contains(&stream.to_string()) && out.contains("in put.mkv"), "{out}");

    drop(hook);
    gateway.idle();
    let metrics = gateway.get("/metrics");
    assert!(!metrics.contains(&format!("\"{stream}\"")), "{metrics}");
    let (_, out, _) = run(rendergate().args(["streams", "--http", &http]));
    assert_eq!(out, "no streams\n");
}

#[test]
fn the_page_is_served_with_a_policy_of_its_own() {
    let gateway = Gateway::ready("");
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = gateway.get(path);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && body.len() > 100, "{path}: {head}");
        for text in [content_type, "default-src 'none'; script-src 'self'", "nosniff"] {
            assert!(head.contains(text), "{path}: {text} is not in {head}");
        }
        // Nothing in it stands in the way of the policy, nor comes from elsewhere.
        for text in ["innerHTML", "style=\"", "onclick", "https://", "eval("] {
            assert!(!body.contains(text), "{path} has {text}");
        }
    }
    assert_eq!(gateway.json("/v1/devices"), json!([]));
}

#[test]
fn of_ended_streams_the_last_twenty_are_kept() {
    let gateway = Gateway::ready("[worker]\nrefill_seconds = 0\n");
    for _ in 0..3 {
        gateway.hook("fail").failed();
    }
    for _ in 0..19 {
        assert_eq!(gateway.hook("segments=1,every=1").ended(), Ending::Complete);
    }
    gateway.idle();
    let status = gateway.json("/v1/status");
    let ended = status["ended"].as_array().unwrap();
    assert_eq!(ended.len(), 20);
    assert!(ended[..19].iter().all(|line| line["how"] == "complete" && line.get("why").is_none()));
    assert_eq!(ended[19]["how"], "failed_input");
    assert_eq!(ended[19]["why"], "the file is damaged");
    assert_eq!((&status["streams"], &status["devices"]), (&json!([]), &json!([])));
    gateway.metric("rendergate_streams_ended_total{how=\"complete\"} 19");
    gateway.metric("rendergate_streams_ended_total{how=\"worker_hung\"} 0");
}

#[test]
fn a_long_name_is_cut_in_labels() {
    let gateway = Gateway::ready("");
    let mut transcode = gateway.transcode("every=50");
    let name = "ü".repeat(400);
    transcode.inputs[0].location = Location::File(format!("/films/{name}.mkv").into());
    let mut hook = gateway.hook_with(PROTOCOL, transcode, gateway.descriptors());
    hook.segment(5);
    let label = format!("item=\"{}\",", "ü".repeat(120));
    assert!(gateway.get("/metrics").contains(&label));
    assert_eq!(gateway.json("/v1/streams")[0]["item"], name);
}

#[test]
fn wrong_requests_get_a_hint() {
    let gateway = Gateway::ready("");
    let answer = gateway.get("/metric");
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("/metrics"), "{answer}");
    let answer = gateway.request("DELETE", "/v1/streams");
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{answer}");
    assert!(gateway.request("HEAD", "/healthz").starts_with("HTTP/1.1 200"));
    let (code, _, err) = run(rendergate().args(["streams", "--http", "127.0.0.1:1"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("no gateway answers on 127.0.0.1:1"), "{err}");
}

#[test]
fn without_rights_to_run_the_socket_goes_to_the_users_directory() {
    // Root can write in /run; a variable decides here only if the default can't be used.
    if rustix::process::geteuid().is_root() {
        return check_default_as_root();
    }
    let runtime = tempfile::tempdir().unwrap();
    let mut child = rendergate()
        .args(["serve", "--http", "off"])
        .env("XDG_RUNTIME_DIR", runtime.path())
        .spawn()
        .unwrap();
    let socket = runtime.path().join("rendergate/rendergate.sock");
    until("the socket is there", || socket.exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The default path isn't touched by tests: it may be a real gateway's.
fn check_default_as_root() {
    let (code, out, _) = run(rendergate().args(["serve", "--check-config"]));
    assert_eq!(code, Some(0));
    assert!(!out.contains("socket ="), "{out}");
}
