//! Leaving out disposable pictures on the way to the start changes nothing of what is shown.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use support::clip;
use worker::disposable::Packing;

/// Where the picture is to begin and from where on everything is decoded, ns after the first picture:
/// a transport stream's clock begins where its first clock reference was found.
const START: u64 = 4_000_000_000;
const DECODED: u64 = START - 500_000_000;

/// Pictures from the start on by their time, and how many were left out before.
fn decode(file: &Path, chain: &str, skip: bool) -> (BTreeMap<u64, Vec<u8>>, usize) {
    gst::init().unwrap();
    let launch = format!(
        "filesrc location={} ! {chain} name=decoder output-corrupt=false ! appsink name=sink sync=false",
        file.display()
    );
    let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
    let skipped = Arc::new(Mutex::new(0));
    let count = skipped.clone();
    let first = Arc::new(OnceLock::new());
    let base = Arc::clone(&first);
    let pad = pipeline.by_name("decoder").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let buffer = info.buffer().unwrap();
        let packing = Packing::of(&pad.current_caps().unwrap()).unwrap();
        let pts = buffer.pts().unwrap().nseconds();
        let early = pts < *base.get_or_init(|| pts) + DECODED;
        if skip && early && packing.is_disposable(&buffer.map_readable().unwrap()) {
            *count.lock().unwrap() += 1;
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
    let mut pictures = BTreeMap::new();
    while let Ok(sample) = sink.pull_sample() {
        let buffer = sample.buffer().unwrap();
        let pts = buffer.pts().unwrap().nseconds() - first.get().unwrap();
        if pts >= START {
            pictures.insert(pts, buffer.map_readable().unwrap().to_vec());
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    let skipped = *skipped.lock().unwrap();
    (pictures, skipped)
}

#[track_caller]
fn same_pictures(name: &str, encoder: &str, chain: &str) {
    let film = clip(name, &format!("-f lavfi -i testsrc2=s=320x180:r=25:d=6 {encoder}"));
    let (expected, none) = decode(&film, chain, false);
    let (pictures, skipped) = decode(&film, chain, true);
    assert_eq!(none, 0);
    assert!(skipped >= 30, "{skipped} of 87 pictures were left out");
    assert!((50..=51).contains(&expected.len()), "{} pictures", expected.len());
    assert!(pictures == expected, "{name}: other pictures than without");
}

const X264: &str = "-c:v libx264 -preset veryfast -bf 3 -g 250 -pix_fmt yuv420p";

#[test]
fn h264_with_a_pyramid() {
    let chain = "matroskademux ! h264parse ! avdec_h264";
    same_pictures("disposable.mkv", X264, chain);
}

#[test]
fn h264_with_start_codes() {
    same_pictures("disposable.ts", X264, "tsdemux ! h264parse ! avdec_h264");
}

#[test]
fn hevc() {
    let encoder = "-c:v libx265 -preset superfast -x265-params \
                   log-level=error:bframes=4:keyint=250:open-gop=0 -pix_fmt yuv420p";
    same_pictures("disposable-hevc.mkv", encoder, "matroskademux ! h265parse ! avdec_h265");
}
