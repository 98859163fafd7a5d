//! Where one segment ends and the next begins (contract 4; the rule of ffmpeg's HLS muxer).
//!
//! A segment ends before the first video keyframe whose presentation time is `hls_time` times the
//! number of segments so far after the start of the run: cumulative, so that a keyframe that comes
//! late doesn't shift all later cuts. Without video any packet may begin a segment.
//!
//! Invariants:
//! - Arithmetic is exact, in the ticks of the container, as ffmpeg compares.

use crate::time::{duration_ticks, ticks};

/// State of the rule over a run.
#[derive(Debug)]
pub struct CutRule {
    /// `hls_time` in microseconds, ffmpeg's own unit for the option.
    target_us: u64,
    /// Ticks per second of the track that decides.
    rate: u32,
    has_video: bool,
    /// Start of the run in ns, and whether it is only a sound's time so far.
    start: Option<(i64, bool)>,
    /// Start of the current segment in ns: first reference packet in it.
    segment_start: Option<i64>,
    /// Sum of the durations of reference packets in the current segment.
    segment_ticks: i64,
    /// Segments begun, the current one included.
    begun: u64,
    packets: u64,
}

/// The packet in question.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Presentation time, ns.
    pub pts: i64,
    /// Length, ns.
    pub duration: u64,
    /// Of the video track.
    pub video: bool,
    /// Decoding can begin here.
    pub keyframe: bool,
}

/// Start and length of a closed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Presentation time of its first reference packet, ns.
    pub start_ns: i64,
    /// Length in ticks.
    pub ticks: i64,
    /// Ticks per second.
    pub rate: u32,
}

impl Extent {
    /// Length in seconds, as the playlist has it.
    pub fn seconds(&self) -> f64 {
        self.ticks as f64 / f64::from(self.rate)
    }
}

impl CutRule {
    /// `rate` is the timescale of the reference track in the container: 90 000 for MPEG-TS.
    pub fn new(segment_seconds: f64, rate: u32, has_video: bool) -> Self {
        let target_us = (segment_seconds * 1e6).round().clamp(1.0, 1e15) as u64;
        Self {
            target_us,
            rate,
            has_video,
            start: None,
            segment_start: None,
            segment_ticks: 0,
            begun: 1,
            packets: 0,
        }
    }

    /// Goes on behind a segment: of a run that began at `start_ns`, of which so many segments are
    /// whole.
    pub fn go_on(&mut self, start_ns: i64, whole: u64) {
        (self.start, self.begun) = (Some((start_ns, false)), whole + 1);
    }

    /// Start of the run, ns, and how many segments are whole, right behind one.
    pub fn progress(&self) -> (i64, u64) {
        (self.start.map_or(0, |(start, _)| start), self.begun - 1)
    }

    /// Asks for the next packet in order of writing; `Some` if the segment ends before it.
    pub fn next(&mut self, packet: Candidate) -> Option<Extent> {
        let reference = packet.video || !self.has_video;
        // The run starts with its first packet, but sound that comes first doesn't put the start
        // behind the first picture.
        let start = match self.start {
            None => (packet.pts, self.has_video && !packet.video),
            Some((start, true)) if packet.video => (start.min(packet.pts), false),
            Some(start) => start,
        };
        self.start = Some(start);
        let mut closed = None;
        if reference {
            let begin = *self.segment_start.get_or_insert(packet.pts);
            let extent = self.extent(begin, packet.pts);
            if self.packets > 0
                && (packet.keyframe || !self.has_video)
                && extent.ticks > 0
                && self.reached(start.0, packet.pts)
            {
                closed = Some(extent);
                self.begun += 1;
                self.packets = 0;
                self.segment_start = Some(packet.pts);
                self.segment_ticks = 0;
            }
            self.segment_ticks += duration_ticks(packet.duration, self.rate);
        }
        self.packets += 1;
        closed
    }

    /// The rest, at the end of the run; `None` if nothing is in it.
    pub fn finish(&mut self) -> Option<Extent> {
        (self.packets > 0).then(|| {
            let start = self.segment_start.or(self.start.map(|(start, _)| start)).unwrap_or(0);
            Extent { start_ns: start, ticks: self.segment_ticks, rate: self.rate }
        })
    }

    fn extent(&self, begin: i64, end: i64) -> Extent {
        let length = ticks(end, self.rate) - ticks(begin, self.rate);
        Extent { start_ns: begin, ticks: length, rate: self.rate }
    }

    fn reached(&self, start: i64, pts: i64) -> bool {
        let target_us = i128::from(self.target_us) * i128::from(self.begun);
        let length = i128::from(ticks(pts, self.rate) - ticks(start, self.rate));
        length * 1_000_000 >= target_us * i128::from(self.rate)
            // A length that is reached to the nanosecond counts even where rounding to ticks
            // took half a tick from it.
            || (i128::from(pts) - i128::from(start)) >= target_us * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000_000;

    fn frame(pts: i64, keyframe: bool) -> Candidate {
        Candidate { pts, duration: 40_000_000, video: true, keyframe }
    }

    #[test]
    fn a_late_keyframe_does_not_shift_later_cuts() {
        let mut rule = CutRule::new(3.0, 90_000, true);
        assert_eq!(rule.next(frame(0, true)), None);
        assert_eq!(rule.next(frame(2 * SECOND, true)), None);
        let first = rule.next(frame(4 * SECOND, true)).unwrap();
        assert_eq!((first.start_ns, first.ticks), (0, 360_000));
        // 6 s are reached two seconds later: cumulative.
        let second = rule.next(frame(6 * SECOND, true)).unwrap();
        assert_eq!((second.start_ns, second.ticks), (4 * SECOND, 180_000));
        assert_eq!(rule.next(frame(7 * SECOND, false)), None);
    }

    #[test]
    fn sound_alone_is_cut_at_any_packet() {
        let mut rule = CutRule::new(3.0, 48_000, false);
        let mut cuts = Vec::new();
        for k in 0..300i64 {
            let pts = (k - 1) * 1024 * SECOND / 48_000;
            let packet = Candidate { pts, duration: 21_333_333, video: false, keyframe: true };
            cuts.extend(rule.next(packet).map(|e| format!("{:.6}", e.seconds())));
        }
        // As ffmpeg writes them.
        assert_eq!(cuts, ["3.008000", "3.008000"]);
    }

    #[test]
    fn sound_before_the_picture_does_not_delay_the_start() {
        let mut rule = CutRule::new(3.0, 90_000, true);
        let sound = Candidate { pts: SECOND, duration: 0, video: false, keyframe: true };
        assert_eq!(rule.next(sound), None);
        assert_eq!(rule.next(frame(0, true)), None);
        assert!(rule.next(frame(3 * SECOND, true)).is_some());
    }

    #[test]
    fn the_rest_is_the_sum_of_its_frames() {
        let mut rule = CutRule::new(3.0, 90_000, true);
        assert_eq!(rule.finish(), None);
        for k in 0..48i64 {
            let pts = k * SECOND * 1001 / 24_000;
            rule.next(Candidate { pts, duration: 41_708_333, video: true, keyframe: k == 0 });
        }
        // 48 times 3754 ticks, as ffmpeg.
        assert_eq!(format!("{:.6}", rule.finish().unwrap().seconds()), "2.002133");
    }

    proptest! {
        /// Keyframes on the grid from any start and at any rate cut once per period.
        #[test]
        fn keyframes_on_the_grid_cut_every_time(
            start in -10 * SECOND..7200 * SECOND,
            rate in prop::sample::select(vec![(24_000i64, 1001i64), (24, 1), (25, 1), (30_000, 1001), (50, 1), (60_000, 1001)]),
            timescale in prop::sample::select(vec![90_000u32, 24_000, 12_288, 12_800, 30_000]),
        ) {
            let mut rule = CutRule::new(3.0, timescale, true);
            let mut cuts = 0;
            let mut forced = 0;
            for n in 0..2_000i64 {
                let t = i64::try_from(i128::from(n) * i128::from(SECOND) * i128::from(rate.1) / i128::from(rate.0)).unwrap();
                let keyframe = t >= forced * 3 * SECOND;
                forced += i64::from(keyframe);
                cuts += i64::from(rule.next(frame(start + t, keyframe)).is_some());
            }
            prop_assert_eq!(cuts, forced - 1);
        }
    }
}
