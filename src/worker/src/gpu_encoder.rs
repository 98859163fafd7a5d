//! What the encoders of GStreamer's `va` plugin need besides properties.
//!
//! Those of GStreamer 1.22 make an ordinary I picture of a forced keyframe, without parameter sets,
//! and give pictures new times. A live property that is set, if only to its own value, has them
//! begin anew with an IDR picture; that holds for every version, and from 1.24.4 on the request
//! itself is honoured. Times are put back in the order in which pictures went in, which is also that
//! in which they come out: there are no B-frames.
//!
//! No access unit delimiters come out either, which every segment of MPEG-TS begins with; and 1.22
//! marks the keyframes of HEVC as anything but keyframes. Nor do parameter sets say what shape and
//! colours the pictures have.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use hls::annexb::h264::IDR;
use hls::annexb::{Syntax, nals};
use hls::appearance::{self, Appearance};

/// The first version whose encoders honour a forced keyframe.
const HONOURS_REQUESTS: (u32, u32, u32) = (1, 24, 4);
/// A live property of all of them.
const LIVE: &str = "bitrate";

/// H.264 7.3.2.4: any kind of slice may follow.
const H264_DELIMITER: &[u8] = &[0, 0, 0, 1, 0x09, 0xf0];
/// H.265 7.3.2.5, likewise.
const HEVC_DELIMITER: &[u8] = &[0, 0, 0, 1, 0x46, 0x01, 0x50];

/// The times of the pictures that are in an encoder.
#[derive(Debug, Clone, Default)]
pub struct Times(Arc<Mutex<VecDeque<i64>>>);

impl Times {
    /// Of the picture that comes out next, ns of source time.
    pub fn next(&self) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn enter(&self, pts: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(pts);
    }
}

/// Watches what goes into an encoder: notes times, and sees to keyframes.
pub fn attend(encoder: &gst::Element) -> Times {
    let times = Times::default();
    let Some(pad) = encoder.static_pad("sink") else { return times };
    let (major, minor, micro, _) = gst::version();
    let by_property = (major, minor, micro) < HONOURS_REQUESTS;
    let element = encoder.downgrade();
    let entering = times.clone();
    let wanted = Mutex::new(false);
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        let mut wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
        match &info.data {
            Some(gst::PadProbeData::Event(event))
                if by_property && gst_video::ForceKeyUnitEvent::is(event) =>
            {
                *wanted = true;
                return gst::PadProbeReturn::Handled;
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if let Some(encoder) = element.upgrade().filter(|_| std::mem::take(&mut *wanted)) {
                    begin_anew(&encoder);
                }
                if let Some(pts) = buffer.pts() {
                    entering.enter(pts.nseconds().cast_signed());
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    times
}

fn begin_anew(encoder: &gst::Element) {
    if encoder.find_property(LIVE).is_some() {
        encoder.set_property(LIVE, encoder.property::<u32>(LIVE));
    }
}

/// An access unit with the delimiter it may lack and, in its parameter sets, what its pictures look
/// like; and whether decoding can begin with it. `colorimetry` is what the command asserts, in
/// GStreamer's words; without it the caps tell.
pub fn finish(
    caps: Option<&gst::CapsRef>,
    colorimetry: Option<&str>,
    unit: &[u8],
) -> (Vec<u8>, bool) {
    let hevc = caps
        .and_then(|caps| caps.structure(0))
        .is_some_and(|structure| structure.name() == "video/x-h265");
    let syntax = if hevc { Syntax::Hevc } else { Syntax::H264 };
    let delimiter = if hevc { HEVC_DELIMITER } else { H264_DELIMITER };
    let has_one = nals(unit).next().is_some_and(|nal| syntax.is_aud(nal));
    let slice = nals(unit).find(|nal| syntax.is_slice(nal)).map(|nal| syntax.nal_type(nal));
    let idr = if hevc { matches!(slice, Some(19 | 20)) } else { slice == Some(IDR) };
    let unit = if idr { &appearance::state(syntax, unit, looks(caps, colorimetry)) } else { unit };
    (if has_one { unit.to_vec() } else { [delimiter, unit].concat() }, idr)
}

fn looks(caps: Option<&gst::CapsRef>, colorimetry: Option<&str>) -> Appearance {
    let structure = caps.and_then(|caps| caps.structure(0));
    let shape = structure.and_then(|s| s.get::<gst::Fraction>("pixel-aspect-ratio").ok());
    let sample_aspect = shape.filter(|shape| shape.numer() != shape.denom()).and_then(|shape| {
        Some((u16::try_from(shape.numer()).ok()?, u16::try_from(shape.denom()).ok()?))
    });
    let stated = structure.and_then(|s| s.get::<String>("colorimetry").ok());
    let colour = colorimetry.or(stated.as_deref()).and_then(|name| {
        let colours = name.parse::<gst_video::VideoColorimetry>().ok()?;
        let code = |iso: u32| u8::try_from(iso).ok();
        let full = colours.range() == gst_video::VideoColorRange::Range0_255;
        let (primaries, transfer) = (colours.primaries().to_iso(), colours.transfer().to_iso());
        Some((code(primaries)?, code(transfer)?, code(colours.matrix().to_iso())?, full))
    });
    Appearance { sample_aspect, colour }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_colours_are_the_caps() {
        gst::init().unwrap();
        let text = "video/x-h264, pixel-aspect-ratio=64/45, colorimetry=bt601";
        let caps = text.parse::<gst::Caps>().unwrap();
        let own = looks(Some(&caps), None);
        assert_eq!(own.sample_aspect, Some((64, 45)));
        // H.273: SMPTE 170M all three.
        assert_eq!(own.colour, Some((6, 6, 6, false)));
        assert_eq!(looks(Some(&caps), Some("bt709")).colour, Some((1, 1, 1, false)));
        let square = "video/x-h264, pixel-aspect-ratio=1/1".parse::<gst::Caps>().unwrap();
        assert_eq!(looks(Some(&square), None), Appearance::default());
    }

    #[test]
    fn a_delimiter_comes_first_and_once_and_keyframes_are_told() {
        gst::init().unwrap();
        let h264 = "video/x-h264".parse::<gst::Caps>().unwrap();
        let hevc = "video/x-h265".parse::<gst::Caps>().unwrap();
        for (caps, delimiter, slice, key) in [
            (&h264, H264_DELIMITER, [0, 0, 1, 0x65, 0x88, 0x84], true),
            (&h264, H264_DELIMITER, [0, 0, 1, 0x41, 0x9a, 0x21], false),
            (&hevc, HEVC_DELIMITER, [0, 0, 1, 0x28, 0x01, 0xaf], true),
            (&hevc, HEVC_DELIMITER, [0, 0, 1, 0x02, 0x01, 0xd0], false),
        ] {
            let (unit, is_key) = finish(Some(caps), None, &slice);
            // A unit that is written anew has long start codes.
            let zero: &[u8] = if key { &[0] } else { &[] };
            assert_eq!((&unit, is_key), (&[delimiter, zero, &slice].concat(), key));
            assert_eq!(finish(Some(caps), None, &unit), (unit, key));
        }
    }
}
