//! Probe processes that misbehave, and the table.

use gpu::{Entry, Entrypoint, PciId, Processing};

use super::*;

/// A program in the worker's place that runs `script`, and the folder it lives in.
fn prober(script: &str) -> (Prober, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("worker");
    // Written by another process: what a child of another test still has open can't be run.
    let source = folder.path().join("source");
    std::fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
    let installed = std::process::Command::new("install").args([&source, &program]).status();
    assert!(installed.unwrap().success());
    let limits = Limits { ask: Duration::from_secs(20), trial: Duration::from_secs(2) };
    (Prober { program, registry: None, environment: None, limits, progress: false }, folder)
}

fn node() -> RenderNode {
    RenderNode {
        path: "/dev/dri/renderD128".into(),
        driver: Some("i915".into()),
        pci: Some(PciId { vendor: 0x8086, device: 0x3e92 }),
        problem: None,
    }
}

fn entry(profile: &str, entrypoint: Entrypoint, rate_control: &[&str]) -> Entry {
    Entry {
        profile: profile.into(),
        entrypoint,
        max_size: Some((4096, 4096)),
        formats: vec!["YUV420".into()],
        rate_control: rate_control.iter().map(|mode| (*mode).into()).collect(),
    }
}

fn probe() -> NodeProbe {
    NodeProbe {
        gstreamer: "1.26.2".into(),
        va_plugin: true,
        elements: ["vah264dec", "vah264enc", "vapostproc"].map(String::from).to_vec(),
        vaapi: Ok(Capabilities {
            vendor: "Intel iHD driver - 25.2.3 ()".into(),
            version: "1.22".into(),
            entries: vec![
                entry("H264High", Entrypoint::Decode, &[]),
                entry("H264High", Entrypoint::Encode, &["CBR", "VBR"]),
                entry("HEVCMain", Entrypoint::Decode, &[]),
                entry("None", Entrypoint::Process, &[]),
            ],
            processing: Some(Processing {
                filters: vec!["deinterlacing".into(), "tone_mapping".into()],
                deinterlacing: vec!["bob".into()],
                tone_mapping: vec!["hdr_to_sdr".into()],
                rotation: vec![90, 180],
                blend: Vec::new(),
            }),
        }),
    }
}

/// A worker that answers the first question, and does `trials` when it has to try something.
fn worker(trials: &str) -> String {
    let answer = serde_json::to_string(&probe()).unwrap();
    format!("[ $# -eq 2 ] && {{ echo '{answer}'; exit; }}\ncase $4 in\n{trials}\nesac")
}

#[tokio::test]
async fn each_operation_has_a_process_of_its_own() {
    let script = worker(
        "decode_h264) echo '{\"state\":\"usable\"}';;\n\
         encode_h264) echo 'gpu hang' >&2; kill -SEGV $$;;\n\
         scale) exec sleep 60;;",
    );
    let (prober, _folder) = prober(&script);
    let report = prober.node(node()).await.unwrap();
    let outcome = |operation: Operation| {
        let trial = report.trials.iter().find(|trial| trial.operation == operation);
        trial.map(|trial| trial.outcome.clone())
    };
    let failed = |reason: &str| Some(Outcome::Failed { reason: reason.into() });
    assert_eq!(outcome(Operation::DecodeH264), Some(Outcome::Usable));
    assert_eq!(
        outcome(Operation::EncodeH264),
        failed("the driver crashed the process (signal 11); its last words: gpu hang")
    );
    assert_eq!(outcome(Operation::Scale), failed("no answer within 2 s: it hangs"));
    // Reported, but GStreamer has no element for it.
    assert_eq!(outcome(Operation::DecodeHevc), Some(Outcome::Untested));
    assert_eq!(outcome(Operation::EncodeHevc), None);
    assert_eq!(report.state, Outcome::Usable);
}

#[tokio::test]
async fn a_probe_that_dies_is_the_node_s_failure() {
    let (prober, _folder) = prober("kill -ABRT $$");
    let report = prober.node(node()).await.unwrap();
    let reason = "the driver crashed the process (signal 6)".to_owned();
    assert_eq!(report.state, Outcome::Failed { reason });
    assert_eq!(report.advice[0].code, advice::Code::ProbeFailed);
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_as_such() {
    let (prober, _folder) = prober("echo hello");
    let report = prober.node(node()).await.unwrap();
    let Outcome::Failed { reason } = &report.state else { panic!("{:?}", report.state) };
    assert!(reason.starts_with("expected one line of JSON"), "{reason}");
}

#[tokio::test]
async fn an_answer_without_end_is_not_waited_for() {
    let (prober, _folder) = prober("exec yes");
    let report = prober.node(node()).await.unwrap();
    let reason = "its answer can't be read: it is longer than 1048576 bytes".to_owned();
    assert_eq!(report.state, Outcome::Failed { reason });
}

#[tokio::test]
async fn of_many_words_the_last_are_kept() {
    let script = "seq 100000 >&2; echo 'gpu hang' >&2; exit 3";
    let (prober, _folder) = prober(script);
    let report = prober.node(node()).await.unwrap();
    let reason = "the process failed (exit status: 3); its last words: gpu hang".to_owned();
    assert_eq!(report.state, Outcome::Failed { reason });
}

#[tokio::test]
async fn a_missing_worker_is_an_error() {
    let (mut prober, _folder) = prober("");
    prober.program = "/no/such/worker".into();
    let message = prober.node(node()).await.unwrap_err().to_string();
    assert!(message.contains("/no/such/worker") && message.contains("RENDERGATE_WORKER"));
}

#[tokio::test]
async fn the_table_says_reported_and_usable() {
    let script = worker(
        "decode_h264) echo '{\"state\":\"usable\"}';;\n\
         *) echo '{\"state\":\"failed\",\"reason\":\"0 of 8 frames came out\"}';;",
    );
    let (prober, _folder) = prober(&script);
    let report = prober.node(node()).await.unwrap();
    let machine = Machine { usable: true, nodes: vec![report], advice: Vec::new() };
    insta::assert_snapshot!(render(&machine));
}

#[test]
fn the_table_of_a_machine_without_a_gpu() {
    let advice = advice::for_machine(&[], &Facts::default());
    let machine = Machine { usable: false, nodes: Vec::new(), advice };
    insta::assert_snapshot!(render(&machine));
}
