//! How far a viewer is who follows.

use std::time::Duration;

use session::Progress;

/// What of the producer's progress is in the viewer's hands, of whom so much was copied: neither what
/// isn't copied yet nor what is in the segment that is being written. Never less than he was told
/// `before`, which may have been another producer's.
pub(super) fn in_hand(theirs: Progress, copied: Duration, before: Progress) -> Progress {
    let copied = u64::try_from(copied.as_micros()).unwrap_or(u64::MAX);
    let position = theirs.position_us.min(copied);
    let share = |whole: u64| {
        let part = u128::from(whole) * u128::from(position) / u128::from(theirs.position_us.max(1));
        u64::try_from(part).unwrap_or(whole)
    };
    let rest = i64::try_from(theirs.position_us - position).unwrap_or(i64::MAX);
    let source = theirs.source_us.saturating_sub(rest);
    Progress {
        frames: share(theirs.frames).max(before.frames),
        position_us: position.max(before.position_us),
        source_us: if before.frames == 0 { source } else { source.max(before.source_us) },
        bytes: share(theirs.bytes).max(before.bytes),
        elapsed_us: theirs.elapsed_us,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(frames: u64, seconds: u64) -> Progress {
        let position_us = seconds * 1_000_000;
        let source_us = position_us as i64 + 60_000_000;
        Progress { frames, position_us, source_us, bytes: frames * 10, elapsed_us: 7 }
    }

    #[test]
    fn a_viewer_is_as_far_as_what_was_copied() {
        let none = Progress::default();
        let check = |theirs, copied, before, expect| {
            assert_eq!(in_hand(theirs, Duration::from_secs(copied), before), expect);
        };
        check(progress(500, 20), 6, none, progress(150, 6));
        check(progress(500, 20), 20, none, progress(500, 20));
        check(progress(500, 20), 21, none, progress(500, 20));
        // Another producer, who isn't there yet.
        check(progress(250, 10), 12, progress(300, 12), progress(300, 12));
        check(none, 0, none, none);
        assert_eq!(in_hand(progress(500, 20), Duration::MAX, none), progress(500, 20));
    }
}
