//! What `pipelines/` names has to be there.

mod support;

use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer::prelude::*;
use worker::stages::{SOFTWARE, Stages};

#[test]
fn every_element_and_property_exists() {
    gst::init().unwrap();
    worker::elements::register().unwrap();
    let stages = Stages::parse(SOFTWARE).unwrap();
    let mut missing: Vec<&str> = Vec::new();
    for name in stages.elements() {
        if gst::ElementFactory::find(name).is_none() {
            missing.push(name);
        }
    }
    assert!(missing.is_empty(), "missing elements, ./dev setup brings their packages: {missing:?}");
    let encoders = stages.encoders.iter().flat_map(|encoder| {
        let sets = encoder.sets.iter().flat_map(|set| set.properties.keys());
        encoder.properties.keys().chain(sets).map(|property| (&encoder.element, property))
    });
    let chains = stages.decoders.iter().chain(&stages.copies).flat_map(|chain| &chain.chain);
    let stages = chains
        .chain(&stages.picture)
        .chain(&stages.sound)
        .flat_map(|stage| stage.properties.keys().map(|property| (&stage.element, property)));
    for (element, property) in encoders.chain(stages) {
        let made = gst::ElementFactory::make(element).build().unwrap();
        assert!(made.find_property(property).is_some(), "{element} has no property {property}");
    }
}

/// libswscale reads beyond the last row of a picture; a decoder has to leave it the room.
#[test]
fn decoded_pictures_have_room_behind_them() {
    gst::init().unwrap();
    worker::elements::register().unwrap();
    let film = support::clip(
        "room.mkv",
        "-f lavfi -i testsrc2=s=322x182:r=25:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
    );
    let launch = format!(
        "filesrc location={} ! matroskademux ! h264parse ! avdec_h264 direct-rendering=false ! \
         rgscale name=scale width=160 height=90 ! fakesink name=sink",
        film.display()
    );
    let pipeline = gst::parse::launch(&launch).unwrap().downcast::<gst::Pipeline>().unwrap();
    let rooms = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&rooms);
    let pad = pipeline.by_name("scale").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let memory = info.buffer().unwrap().peek_memory(0);
        seen.lock().unwrap().push(memory.maxsize() - memory.offset() - memory.size());
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(20), &ends);
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(matches!(end.unwrap().view(), gst::MessageView::Eos(_)));
    let rooms = rooms.lock().unwrap();
    assert_eq!(rooms.len(), 25);
    assert!(rooms.iter().all(|room| *room >= 64), "{rooms:?}");
}
