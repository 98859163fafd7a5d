//! Writers that break the contract on purpose: each must be noticed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jellyfin_sim::{Container, FaultKind, Kind, Pace, Report, Server, Settings, Template, play};

/// A shell script in ffmpeg's place. `segment N` writes one as a good writer does, `until_q` waits
/// for the stop key; `$start` is the number to start at.
fn session(writer: &str, script: &str) -> Report {
    throttled(writer, script, None)
}

fn throttled(writer: &str, script: &str, throttle: Option<Duration>) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let program = dir.path().join("writer");
    let text = format!(
        r#"#!/bin/sh
name() {{ echo "{out}/feed$1.ts"; }}
segment() {{ echo "segment $1" > "$(name $1).tmp"; mv "$(name $1).tmp" "$(name $1)"; }}
placeholder() {{ : > "$(name $1)"; }}
until_q() {{ while read -r key; do case "$key" in *q*) return;; esac; done; }}
while [ "$1" != -start_number ]; do shift; done
start=$2
{writer}
"#,
        out = out.display()
    );
    // Written by another process: what a child of another test still has open can't be run.
    let source = program.with_extension("source");
    fs::write(&source, text).unwrap();
    let installed = std::process::Command::new("install").args([&source, &program]).status();
    assert!(installed.unwrap().success());
    let command = Template {
        kind: Kind::Software,
        container: Container::Ts,
        input: Path::new("/nothing.mkv").into(),
        directory: out,
        id: "feed".to_owned(),
        segment_seconds: 3,
        encoder: None,
        video_bitrate: 1_000_000,
        height: 90,
        keyframes_fps: None,
        video_stream: 0,
        audio_stream: None,
        audio_encoder: "aac".to_owned(),
        format: None,
    }
    .command();
    let mut settings = Settings::new(program, 60.0);
    settings.poll = Duration::from_millis(20);
    settings.patience = Duration::from_secs(10);
    settings.throttle = throttle;
    let server = Server::new(settings, command).unwrap();
    play(server, &script.parse().unwrap(), Pace::Fast)
}

#[track_caller]
fn check(writer: &str, script: &str, expect: &[FaultKind]) -> Report {
    let report = session(writer, script);
    let kinds: Vec<_> = report.faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, expect, "{report}");
    report
}

fn numbers(report: &Report) -> Vec<i64> {
    report.segments.iter().map(|segment| segment.number).collect()
}

#[test]
fn a_good_writer_has_no_faults() {
    let report = check("segment 0; segment 1; segment 2; until_q", "play 2; stop", &[]);
    assert_eq!(numbers(&report), [0, 1]);
    assert!(report.names.contains(&"feed0.ts.tmp".to_owned()), "{:?}", report.names);
}

#[test]
fn placeholders_that_are_cleared_away_are_no_fault_and_serve_sooner() {
    let writer =
        "segment 0; placeholder 1; sleep 0.4; segment 1; placeholder 2; until_q; rm $(name 2)";
    let report = check(writer, "play 2; stop", &[]);
    let [first, second] = &report.segments[..] else { panic!("{report}") };
    assert!(second.ready - first.ready > 0.2, "{report}");
    assert!(second.bytes > 0);
}

#[test]
fn an_empty_segment_is_noticed() {
    check(
        "segment 0; placeholder 1; sleep 0.3; exit 0",
        "play 1; finish; play 1",
        &[FaultKind::EmptyLeft, FaultKind::EmptyServed],
    );
    // One that stands there while the next is announced.
    check(
        "placeholder 0; segment 1; until_q; segment 0",
        "play 1; stop",
        &[FaultKind::EmptyServed, FaultKind::Changed],
    );
}

#[test]
fn a_stray_name_is_noticed() {
    // Jellyfin looks while it is there.
    let report = check(
        "segment 0; segment 1; sleep 0.02; echo x > $(name 2.part); until_q",
        "play 1; wait 0.2; play 1; play 1; stop",
        &[FaultKind::StrayName, FaultKind::StrayName],
    );
    assert!(report.faults[0].text.contains("int.Parse"), "{report}");
    // It was there only for a moment, when nobody looked.
    check(
        "echo x > $(name x); rm $(name x); segment 0; segment 1; until_q",
        "play 1; stop",
        &[FaultKind::StrayName],
    );
}

#[test]
fn a_changed_segment_is_noticed() {
    let writer = "segment 0; segment 1; sleep 0.4; echo more >> $(name 0); until_q";
    check(writer, "play 1; wait 0.6; stop", &[FaultKind::Changed]);
    let writer = "segment 0; segment 1; sleep 0.4; segment 0; until_q";
    check(writer, "play 1; wait 0.6; stop", &[FaultKind::Changed]);
}

#[test]
fn a_later_run_may_write_a_number_again() {
    let writer = "for n in 0 1 2; do segment $((start + n)); done; until_q";
    // Segment 2, the newest, goes when the second run begins at 1 for want of it.
    let report = check(writer, "seek 6; play 1; seek 0; play 2; stop", &[]);
    assert_eq!(numbers(&report), [2, 0, 1]);
    assert_eq!(report.runs.len(), 2, "{report}");
}

#[test]
fn a_missing_segment_is_noticed() {
    // Gone before the second: Jellyfin starts again, and that run writes nothing.
    let report = check(
        "[ $start = 0 ] && segment 0; exit 0",
        "play 1; finish; play 1",
        &[FaultKind::Missing],
    );
    assert_eq!(report.runs.len(), 2, "{report}");
    assert_eq!(report.runs[1].start_number, 1);
}

#[test]
fn an_exit_before_the_file_is_noticed() {
    let report =
        check("echo broken >&2; exit 3", "play 1", &[FaultKind::Failed, FaultKind::StartFailed]);
    assert_eq!(report.runs[0].log.head, ["broken"]);
    assert_eq!(report.runs[0].exit.map(|exit| exit.code), Some(3));
}

#[test]
fn one_that_does_not_stop_is_killed() {
    let report = check("segment 0; segment 1; exec sleep 60", "play 1; stop", &[FaultKind::Killed]);
    let exit = report.runs[0].exit.unwrap();
    assert_eq!(exit.code, 137);
    assert!(exit.stop_seconds.unwrap() >= 5.0);
}

#[test]
fn what_is_left_behind_is_noticed() {
    check(
        "segment 0; segment 1; echo x > $(name 2).tmp; until_q",
        "play 1; leave",
        &[FaultKind::TemporaryLeft],
    );
    check("sleep 4 & segment 0; segment 1; until_q", "play 1; stop", &[FaultKind::ProcessLeft]);
    check("echo hello; segment 0; segment 1; until_q", "play 1; stop", &[FaultKind::StdoutUsed]);
}

#[test]
fn a_program_that_is_not_there_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let line = "ffmpeg -i file:/x.mkv -f hls -hls_time 3 -start_number 0 -hls_segment_filename /t/feed%d.ts /t/feed.m3u8";
    let command = jellyfin_sim::CommandLine::from_log(line).unwrap().into_directory(dir.path());
    let server = Server::new(Settings::new(dir.path().join("nothing"), 60.0), command).unwrap();
    let report = play(server, &"play 1".parse().unwrap(), Pace::Fast);
    assert!(report.faults.iter().all(|fault| fault.kind == FaultKind::StartFailed), "{report}");
    assert!(!report.faults.is_empty());
}

#[test]
fn keys_arrive_as_the_throttler_sends_them() {
    let report = check(
        r#"segment 0; segment 1; dd bs=1 count=4 2>/dev/null | od -An -c >&2; exit 0"#,
        "play 1; pause; wait 0.1; stop",
        &[],
    );
    // Resumed before the stop.
    assert_eq!(report.runs[0].log.head[0].split_whitespace().collect::<String>(), r"puq\n");
}

/// Names of files tell which keys have come.
#[track_caller]
fn keys(time: &str, throttle: Option<Duration>, expect: &str) {
    let writer = format!(
        "for n in $(seq 0 20); do segment $n; done; echo 'frame=9 fps=24 time={time} ' >&2; \
         read -r key; : > \"$(name).$key\""
    );
    let report = throttled(&writer, "play 7s; stop", throttle);
    assert_eq!(report.segments.len(), 20, "{report}");
    assert!(report.names.contains(&format!("feed.ts.{expect}")), "{:?}", report.names);
}

/// All sixty seconds have been served; a minute more is the least that pauses.
#[test]
fn a_transcode_that_is_far_ahead_is_paused_and_let_go_before_the_stop() {
    keys("00:02:01.00", Some(Duration::ZERO), "puq");
}

#[test]
fn a_transcode_that_is_less_ahead_goes_on() {
    keys("00:01:59.00", Some(Duration::ZERO), "q");
}

#[test]
fn nobody_is_paused_unless_asked_for() {
    keys("00:09:00.00", None, "q");
}
