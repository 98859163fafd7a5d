//! What `pipelines/` names has to be there.

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
