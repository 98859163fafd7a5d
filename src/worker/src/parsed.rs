//! What a parser finds out of a stream that its container says too little of.
//!
//! MPEG-TS states a codec and nothing else, while the choice of a decoder on a GPU depends on profile
//! and size. The first buffers go through a parser of their own, in the caller's thread.

use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

/// Caps behind `parser` for a stream of `caps` that begins with `head`; `None` if these buffers
/// don't tell the picture's size or the sound's channels.
pub fn caps(parser: &str, caps: &gst::Caps, head: &[gst::Buffer]) -> Option<gst::Caps> {
    // A pad that is gone has only what its template allows.
    if !caps.is_fixed() {
        return None;
    }
    let parser = gst::ElementFactory::make(parser).build().ok()?;
    let found = Arc::new(Mutex::new(None));
    let last = || found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let heard = Arc::clone(&found);
    let sink = gst::Pad::builder(gst::PadDirection::Sink)
        .event_function(move |_, _, event| {
            if let gst::EventView::Caps(event) = event.view() {
                let caps = event.caps_owned();
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(caps);
            }
            true
        })
        .chain_function(|_, _, _| Ok(gst::FlowSuccess::Ok))
        .build();
    let src = gst::Pad::new(gst::PadDirection::Src);
    src.link(&parser.static_pad("sink")?).ok()?;
    parser.static_pad("src")?.link(&sink).ok()?;
    src.set_active(true).ok()?;
    sink.set_active(true).ok()?;
    parser.set_state(gst::State::Paused).ok()?;
    src.push_event(gst::event::StreamStart::new("head"));
    src.push_event(gst::event::Caps::new(caps));
    src.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    for buffer in head {
        if src.push(buffer.clone()).is_err() || last().as_ref().is_some_and(sized) {
            break;
        }
    }
    // A parser says what it knows with the first whole picture, and that may be the last here.
    src.push_event(gst::event::Eos::new());
    let _ = parser.set_state(gst::State::Null);
    last().filter(sized)
}

/// Whether caps tell how large a picture or a sound is.
pub fn sized(caps: &gst::Caps) -> bool {
    caps.structure(0).is_some_and(|s| s.has_field("width") || s.has_field("channels"))
}
