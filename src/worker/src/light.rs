//! What is assumed of the light of HDR10 whose stream doesn't say it.
//!
//! `vapostproc` maps tones only if the caps tell of a mastering display or of the content's light; many
//! files have neither. An element for it isn't needed: the caps are completed on the way into it.

use gstreamer as gst;
use gstreamer::prelude::*;

/// A display of 1000 cd/m2 with the primaries of BT.2020, which most HDR10 is made on, and content as
/// bright: as GStreamer spells both in caps (units of 1/50000 and 1/10000 cd/m2; cd/m2).
const ASSUMED: [(&str, &str); 2] = [
    ("mastering-display-info", "35400:14600:8500:39850:6550:2300:15635:16450:10000000:50"),
    ("content-light-level", "1000:400"),
];

/// Completes the caps that reach an element which maps tones.
pub fn attend(element: &gst::Element) {
    let property = "hdr-tone-mapping";
    if element.find_property(property).is_none() || !element.property::<bool>(property) {
        return;
    }
    let Some(pad) = element.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        if let Some(gst::PadProbeData::Event(event)) = &info.data
            && let gst::EventView::Caps(caps) = event.view()
            && let Some(completed) = completed(caps.caps())
        {
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&completed)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// The caps with what is assumed, if they tell nothing.
fn completed(caps: &gst::CapsRef) -> Option<gst::Caps> {
    let structure = caps.structure(0)?;
    if ASSUMED.iter().any(|(field, _)| structure.has_field(*field)) {
        return None;
    }
    let mut caps = caps.to_owned();
    for (field, value) in ASSUMED {
        caps.make_mut().set(field, value);
    }
    Some(caps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_are_completed_that_tell_nothing() {
        gst::init().unwrap();
        let caps = |text: &str| text.parse::<gst::Caps>().unwrap();
        let bare = caps("video/x-raw(memory:VAMemory), format=P010_10LE, width=320");
        let full = completed(&bare).unwrap();
        let structure = full.structure(0).unwrap();
        assert_eq!(structure.get::<&str>("content-light-level"), Ok("1000:400"));
        assert_eq!(structure.get::<i32>("width"), Ok(320));
        assert!(full.features(0).unwrap().contains("memory:VAMemory"));
        assert_eq!(completed(&full), None);
        assert_eq!(completed(&caps("video/x-raw, content-light-level=(string)600:300")), None);
    }
}
