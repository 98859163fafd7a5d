//! What a resampler makes before the encoder begins, behind a seam.
//!
//! It has to begin where a sample of the source and one of the output coincide ([`seam`](crate::seam)),
//! and somewhat early; the encoder begins with a packet. What lies between is dropped here.

use std::sync::{Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_audio as gst_audio;

use crate::pipeline::TAKEN;
use crate::seam::SoundStart;

/// Keeps from an encoder what lies before its first sample, and stamps that one.
pub fn attend(encoder: &gst::Element, begin: SoundStart) {
    if begin.skipped_ns == 0 {
        return;
    }
    let Some(pad) = encoder.static_pad("sink") else { return };
    // Frames that are still to be dropped, once their rate is known.
    let left: Mutex<Option<usize>> = Mutex::new(None);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data else {
            return gst::PadProbeReturn::Ok;
        };
        let caps = pad.current_caps();
        let Some(format) = caps.and_then(|caps| gst_audio::AudioInfo::from_caps(&caps).ok()) else {
            return gst::PadProbeReturn::Ok;
        };
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let frames = buffer.size() / format.bpf() as usize;
        if left.is_none() && !begins_there(buffer, &begin) {
            // The piece that was named isn't there any more: sound begins later.
            return gst::PadProbeReturn::Remove;
        }
        let skipped = left.unwrap_or_else(|| frames_in(begin.skipped_ns, format.rate()));
        if skipped >= frames {
            *left = Some(skipped - frames);
            return TAKEN;
        }
        let offset = skipped * format.bpf() as usize;
        let Ok(mut rest) = buffer.copy_region(gst::BufferCopyFlags::MEMORY, offset..) else {
            return TAKEN;
        };
        let stamped = rest.make_mut();
        stamped.set_pts(gst::ClockTime::from_nseconds(begin.begin_ns.max(0).unsigned_abs()));
        let duration = gst::ClockTime::SECOND
            .mul_div_round((frames - skipped) as u64, u64::from(format.rate().max(1)));
        stamped.set_duration(duration);
        *buffer = rest;
        gst::PadProbeReturn::Remove
    });
}

/// Whether `rgtrim` has begun where it was told to.
fn begins_there(buffer: &gst::Buffer, begin: &SoundStart) -> bool {
    let expected = (begin.begin_ns - begin.skipped_ns).max(0).unsigned_abs();
    buffer.pts().is_some_and(|pts| pts.nseconds().abs_diff(expected) <= 1)
}

/// Time as samples of each channel, to the nearest.
fn frames_in(ns: i64, rate: u32) -> usize {
    let frames = (i128::from(ns) * i128::from(rate) + 500_000_000) / 1_000_000_000;
    usize::try_from(frames).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_cut_to_nanoseconds_is_the_count_it_came_from() {
        for rate in [8_000, 44_100, 48_000, 96_000] {
            for frames in [1, 7, 882, 1_023, 95_999] {
                let ns = frames as i64 * 1_000_000_000 / i64::from(rate);
                assert_eq!(frames_in(ns, rate), frames);
            }
        }
    }
}
