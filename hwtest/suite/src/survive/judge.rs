//! What is in segments, and what is wrong with it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use ffmpeg_args::Plan;
use jellyfin_sim::{CommandLine, Report};
use stand::output::Output;

use crate::rows::numbers;

/// Size to which pictures are made before their numbers are read.
const LOOK: (usize, usize) = (160, 90);
/// Times that far apart are the same, seconds: a tick of 90 kHz and rounding.
const SAME: f64 = 0.000_5;
/// Length of a packet of sound: of AAC at 48 kHz, seconds; and how far it may be off, since a packet of
/// MPEG-TS holds several and says the time of the first.
const SOUND: (f64, f64) = (1024.0 / 48_000.0, 0.001_5);
/// A segment's first sound is within so many packets of where it was expected: another encoder delays its
/// pictures by another time, which moves the cut between packets of sound.
const SOUND_MOVES: f64 = 8.0;

/// Segments of one run, in a row.
#[derive(Debug)]
pub(super) struct Media {
    /// In order.
    pub parts: Vec<Part>,
    /// What ffmpeg complains of as it decodes all of it as one.
    pub said: Vec<String>,
    /// Where sound isn't followed by the next packet: when, and when it goes on.
    pub sound_gaps: Vec<(f64, f64)>,
}

/// A segment.
#[derive(Debug)]
pub(super) struct Part {
    pub number: u64,
    /// Earliest presentation of a picture, seconds.
    pub first: f64,
    /// Of the sound.
    first_sound: Option<f64>,
    /// It begins with a keyframe.
    key: bool,
    /// How many pictures it has.
    pub frames: usize,
    /// Numbers that its pictures carry, as shown; why, of one that can't be read.
    shown: Vec<Result<u64, String>>,
}

impl Part {
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.shown.iter().map(|shown| shown.as_ref().map_or(u64::MAX, |number| *number))
    }
}

impl Media {
    /// Reads the segments that lie in a folder, with the init file beside them.
    ///
    /// # Errors
    /// If ffprobe can't make anything of it.
    pub(super) fn read(command: &CommandLine, words: &[String], folder: &Path) -> Result<Self> {
        let words: Vec<_> = words.iter().map(Into::into).collect();
        let Plan::Transcode(plan) = ffmpeg_args::plan(&words) else { bail!("not a transcode") };
        // The stand's way to say that there is nothing to look at is a panic.
        let output = catch_unwind(AssertUnwindSafe(|| Output::read(folder, &plan)))
            .map_err(|_| anyhow::anyhow!("ffprobe can't read {}", folder.display()))?;
        let (said, shown) = decode(&output.whole)?;
        let mut shown = shown.into_iter();
        let mut sound: Vec<f64> = Vec::new();
        let mut parts = Vec::new();
        for segment in &output.segments {
            let name = segment.name.strip_prefix(&command.id);
            let number = name.and_then(|name| name.strip_suffix(&command.extension));
            let number = number.and_then(|n| n.parse().ok()).context("a segment has a number")?;
            let frames = segment.of(true).count();
            sound.extend(segment.of(false).map(|packet| packet.pts));
            parts.push(Part {
                number,
                first: segment.first_pts(true).unwrap_or(f64::NAN),
                first_sound: segment.first_pts(false),
                key: segment.of(true).next().is_some_and(|packet| packet.key),
                frames,
                shown: shown.by_ref().take(frames).collect(),
            });
        }
        let mut said = said;
        let left = shown.count();
        if left > 0 {
            said.push(format!("{left} pictures more than packets"));
        }
        let continues = |pair: &&[f64]| (pair[1] - pair[0] - SOUND.0).abs() > SOUND.1;
        let sound_gaps =
            sound.windows(2).filter(continues).map(|pair| (pair[0], pair[1])).collect();
        // It is as large as all segments, and made again where it is needed.
        let _ = fs::remove_file(&output.whole);
        Ok(Self { parts, said, sound_gaps })
    }

    /// What of it isn't as expected.
    pub(super) fn faults(&self, expected: &Self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.said.iter().map(|line| format!("ffmpeg says: {line}")).collect();
        for (from, to) in &self.sound_gaps {
            faults.push(format!("sound at {from:.4} s is followed by sound at {to:.4} s"));
        }
        for part in &self.parts {
            let number = part.number;
            let Some(other) = expected.parts.iter().find(|other| other.number == number) else {
                faults.push(format!("segment {number}: an undisturbed run has none"));
                continue;
            };
            faults.extend(
                part.faults(other).into_iter().map(|why| format!("segment {number}: {why}")),
            );
        }
        faults
    }

    /// Pictures in all segments.
    pub(super) fn frames(&self) -> usize {
        self.parts.iter().map(|part| part.frames).sum()
    }
}

impl Part {
    fn faults(&self, expected: &Self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.frames != expected.frames {
            faults.push(format!("{} frames, expected {}", self.frames, expected.frames));
        }
        if self.first.is_nan() || (self.first - expected.first).abs() > SAME {
            faults.push(format!("begins at {:.4} s, expected {:.4}", self.first, expected.first));
        }
        if !self.key {
            faults.push("doesn't begin with a keyframe".to_owned());
        }
        let near = |one: f64, other: f64| (one - other).abs() < SOUND_MOVES * SOUND.0;
        match (self.first_sound, expected.first_sound) {
            (Some(ours), Some(theirs)) if near(ours, theirs) => {}
            (None, None) => {}
            (ours, theirs) => faults.push(format!("sound begins at {ours:?}, expected {theirs:?}")),
        }
        for (place, shown) in self.shown.iter().enumerate() {
            let wanted = expected.shown.get(place).and_then(|shown| shown.as_ref().ok());
            match (shown, wanted) {
                (Ok(number), Some(wanted)) if number == wanted => {}
                // That it is there at all has been said.
                (Ok(_), None) => {}
                (Ok(number), Some(wanted)) => {
                    faults
                        .push(format!("picture {place} is the film's {number}, expected {wanted}"));
                    break;
                }
                (Err(why), _) => {
                    faults.push(format!("picture {place} can't be read: {why}"));
                    break;
                }
            }
        }
        if self.shown.len() < self.frames {
            faults.push(format!("{} of {} frames decode", self.shown.len(), self.frames));
        }
        faults
    }
}

/// Numbers of all pictures as shown, or why one can't be read.
type Shown = Vec<Result<u64, String>>;

/// Decodes picture and sound; what ffmpeg says about it, and the pictures' numbers.
fn decode(whole: &Path) -> Result<(Vec<String>, Shown)> {
    let (width, height) = LOOK;
    let size = format!("{width}x{height}");
    let decoded = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(whole)
        .args(["-map", "0:v", "-vsync", "passthrough", "-s", &size, "-sws_flags", "area"])
        .args(["-pix_fmt", "gray", "-f", "rawvideo", "pipe:1"])
        .args(["-map", "0:a", "-f", "null", "-"])
        .output()
        .context("ffmpeg is needed: apt install ffmpeg")?;
    let said = String::from_utf8_lossy(&decoded.stderr);
    let mut said: Vec<String> = said
        .lines()
        // What is decoded goes nowhere, and nowhere has no opinion on its times.
        .filter(|line| !line.starts_with("[null @"))
        .map(str::to_owned)
        .collect();
    if !decoded.status.success() {
        said.push(format!("{}", decoded.status));
    }
    let pictures = decoded.stdout.chunks_exact(width * height);
    Ok((said, pictures.map(|picture| numbers::read(picture, width, height)).collect()))
}

/// Segments that a viewer got one after the other, of one run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Index of the run that made them.
    pub run: usize,
    /// The number of each, and where its bytes are kept.
    pub segments: Vec<(i64, PathBuf)>,
}

/// What a viewer got; and the init file that they hold, the first that they were given, with the run that
/// made it.
pub(super) fn stretches(report: &Report, kept: &Path) -> (Vec<Stretch>, Option<(usize, PathBuf)>) {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut init = None;
    for (place, served) in report.segments.iter().enumerate() {
        let path = kept.join(place.to_string());
        let run = served.made_in.unwrap_or(served.run);
        if served.number < 0 {
            init.get_or_insert((run, path));
            continue;
        }
        match stretches.last_mut() {
            Some(last)
                if last.run == run
                    && last.segments.last().is_some_and(|(n, _)| n + 1 == served.number) =>
            {
                last.segments.push((served.number, path));
            }
            _ => stretches.push(Stretch { run, segments: vec![(served.number, path)] }),
        }
    }
    (stretches, init)
}

#[cfg(test)]
mod tests {
    use jellyfin_sim::Served;

    use super::*;

    fn part(number: u64, first: f64, shown: std::ops::Range<u64>) -> Part {
        let frames = (shown.end - shown.start) as usize;
        Part {
            number,
            first,
            first_sound: Some(first),
            key: true,
            frames,
            shown: shown.map(Ok).collect(),
        }
    }

    fn media(parts: Vec<Part>) -> Media {
        Media { parts, said: Vec::new(), sound_gaps: Vec::new() }
    }

    #[test]
    fn what_differs_is_named() {
        let expected = || media(vec![part(0, 10.0, 0..75), part(1, 13.0, 75..150)]);
        assert_eq!(expected().faults(&expected()), [""; 0]);
        let check = |change: &dyn Fn(&mut Media), says: &str| {
            let mut media = expected();
            change(&mut media);
            let faults = media.faults(&expected());
            assert!(faults.iter().any(|fault| fault.contains(says)), "{says}: {faults:?}");
        };
        check(&|media| media.parts[1].number = 2, "an undisturbed run has none");
        check(&|media| media.parts[1] = part(1, 13.0, 75..149), "74 frames, expected 75");
        check(&|media| media.parts[1] = part(1, 13.04, 75..150), "begins at 13.0400");
        check(&|media| media.parts[1] = part(1, 13.0, 76..151), "the film's 76, expected 75");
        check(&|media| media.parts[0].key = false, "keyframe");
        check(&|media| media.parts[0].shown[9] = Err("mixed".into()), "picture 9 can't be read");
        check(&|media| drop(media.parts[1].shown.pop()), "74 of 75 frames decode");
        check(&|media| media.parts[0].first_sound = None, "sound begins at None");
        check(&|media| media.said.push("no frame!".into()), "ffmpeg says: no frame!");
        check(&|media| media.sound_gaps.push((11.0, 11.1)), "is followed by sound at 11.1");
    }

    #[test]
    fn a_stretch_is_in_a_row_and_of_one_run() {
        let served = |number, made_in| Served {
            number,
            run: 0,
            made_in: Some(made_in),
            requested: 0.0,
            ready: 0.0,
            served: 0.0,
            bytes: 1,
            hash: String::new(),
        };
        let segments = [(-1, 0), (0, 0), (1, 0), (7, 1), (8, 1), (-1, 2), (9, 0)];
        let segments = segments.map(|(number, made_in)| served(number, made_in)).into();
        let report = Report { segments, ..Report::default() };
        let (stretches, init) = stretches(&report, Path::new("/k"));
        assert_eq!(init, Some((0, "/k/0".into())));
        let found: Vec<(usize, Vec<i64>)> = stretches
            .iter()
            .map(|stretch| (stretch.run, stretch.segments.iter().map(|s| s.0).collect()))
            .collect();
        assert_eq!(found, [(0, vec![0, 1]), (1, vec![7, 8]), (0, vec![9])]);
        assert_eq!(stretches[2].segments[0].1, Path::new("/k/6"));
    }
}
