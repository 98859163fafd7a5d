//! Properties that change while an encoder runs: setting the bit rate, be it to the same value,
//! starts a group of pictures. On GStreamer 1.22 that is the one way to an IDR at a given picture,
//! so the driver must take it as hardware does: in the context that it has.
//!
//! The shim must be preloaded, so the program runs twice: the outer one starts the inner one on the
//! GPU and judges what it wrote.

mod common;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{folder, frames, path, text, virtual_gpu};
use gstreamer as gst;
use gstreamer::prelude::*;

/// Tells the inner program where to write, and which encoder to run.
const OUTPUT: &str = "SOFTVA_TEST_OUTPUT";
const CODEC: &str = "SOFTVA_TEST_CODEC";
/// Pictures before which the bit rate is set, and pictures in all.
const TOUCHED: [usize; 2] = [30, 61];
const PICTURES: usize = 90;

fn main() -> ExitCode {
    if let (Some(output), Ok(codec)) = (std::env::var_os(OUTPUT), std::env::var(CODEC)) {
        inner(Path::new(&output), &codec);
        return ExitCode::SUCCESS;
    }
    for codec in ["264", "265"] {
        outer(codec);
        println!("test setting the bit rate of vah{codec}enc starts a group ... ok");
    }
    ExitCode::SUCCESS
}

fn outer(codec: &str) {
    let folder = folder();
    let coded = folder.path().join(format!("coded.h{codec}"));
    let trace = folder.path().join("trace");
    let own = std::env::current_exe().expect("a path");
    let mut command = virtual_gpu().command(&path(&own));
    command.env(OUTPUT, &coded).env(CODEC, codec).env("SOFTVA_TRACE", &trace);
    let output = virtual_gpu().output(&mut command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let keys = frames(&coded, "key_frame");
    assert_eq!(keys.len(), PICTURES);
    let keys: Vec<_> =
        keys.iter().enumerate().filter(|(_, key)| key.starts_with('1')).map(|(at, _)| at).collect();
    assert_eq!(keys, [&[0], &TOUCHED[..]].concat());
    let trace = std::fs::read_to_string(trace).expect("a trace");
    let contexts = trace
        .lines()
        .filter(|line| line.contains("context 0x") && line.contains(&format!(": h{codec}-encode")));
    assert_eq!(contexts.count(), 1, "{trace}");
}

fn inner(output: &Path, codec: &str) {
    gst::init().expect("GStreamer");
    let description = format!(
        "videotestsrc num-buffers={PICTURES} ! \
         video/x-raw,format=NV12,width=320,height=240,framerate=24/1 ! vah{codec}enc name=encoder \
         rate-control=cbr bitrate=400 key-int-max=1024 ! h{codec}parse ! filesink location={}",
        output.display()
    );
    let pipeline = gst::parse::launch(&description).expect("elements");
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a pipeline");
    let encoder = pipeline.by_name("encoder").expect("the encoder");
    let seen = AtomicUsize::new(0);
    let touched = encoder.clone();
    let pad = encoder.static_pad("sink").expect("a sink pad");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if TOUCHED.contains(&seen.fetch_add(1, Ordering::Relaxed)) {
            touched.set_property("bitrate", 400u32);
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).expect("a start");
    let bus = pipeline.bus().expect("a bus");
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &kinds);
    pipeline.set_state(gst::State::Null).expect("an end");
    let end = end.expect("an end within 30 seconds");
    assert!(end.type_() == gst::MessageType::Eos, "{end:?}");
}
