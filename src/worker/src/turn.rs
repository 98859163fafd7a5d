//! Which way a picture is turned. Pure.

use ffmpeg_args::Turn;

/// A turn by quarters, clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// By one.
    Quarter,
    /// By two.
    Half,
    /// By three.
    ThreeQuarters,
}

impl Rotation {
    /// The value of GStreamer's `video-direction`.
    pub fn direction(self) -> &'static str {
        match self {
            Self::Quarter => "90r",
            Self::Half => "180",
            Self::ThreeQuarters => "90l",
        }
    }

    /// Whether width becomes height.
    pub fn swaps_sides(self) -> bool {
        self != Self::Half
    }
}

/// What becomes of a picture whose container says `marked` (GStreamer's `image-orientation`) under a
/// command that says `turn`.
///
/// # Errors
/// The mark, if ffmpeg would mirror the picture or leave it to the player.
pub fn rotation(turn: Turn, marked: Option<&str>, mp4: bool) -> Result<Option<Rotation>, String> {
    let marked = marked.filter(|mark| *mark != "rotate-0");
    Ok(match (turn, marked) {
        (Turn::Clockwise, _) => Some(Rotation::Quarter),
        (Turn::CounterClockwise, _) => Some(Rotation::ThreeQuarters),
        (Turn::Half, _) => Some(Rotation::Half),
        (_, None) => None,
        // MPEG-TS has no place for the mark, MP4's header would carry it on.
        (Turn::Never, Some(_)) if !mp4 => None,
        (Turn::AsMarked, Some("rotate-90")) => Some(Rotation::Quarter),
        (Turn::AsMarked, Some("rotate-180")) => Some(Rotation::Half),
        (Turn::AsMarked, Some("rotate-270")) => Some(Rotation::ThreeQuarters),
        (_, Some(mark)) => return Err(mark.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_comes_before_the_mark() {
        use Rotation::{Half, Quarter, ThreeQuarters};
        for (turn, marked, mp4, expect) in [
            (Turn::AsMarked, None, true, Ok(None)),
            (Turn::AsMarked, Some("rotate-0"), true, Ok(None)),
            (Turn::AsMarked, Some("rotate-90"), false, Ok(Some(Quarter))),
            (Turn::AsMarked, Some("rotate-180"), false, Ok(Some(Half))),
            (Turn::AsMarked, Some("rotate-270"), true, Ok(Some(ThreeQuarters))),
            (Turn::AsMarked, Some("flip-rotate-90"), false, Err("flip-rotate-90".to_owned())),
            (Turn::Never, Some("rotate-90"), false, Ok(None)),
            (Turn::Never, Some("rotate-90"), true, Err("rotate-90".to_owned())),
            (Turn::Clockwise, Some("rotate-90"), true, Ok(Some(Quarter))),
            (Turn::CounterClockwise, None, true, Ok(Some(ThreeQuarters))),
            (Turn::Half, Some("rotate-270"), false, Ok(Some(Half))),
        ] {
            assert_eq!(rotation(turn, marked, mp4), expect, "{turn:?} {marked:?} {mp4}");
        }
    }
}
