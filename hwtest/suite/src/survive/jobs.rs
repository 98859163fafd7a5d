//! What the six viewers watch, and how.

use std::path::{Path, PathBuf};

use benches::play::template;
use jellyfin_sim::{CommandLine, Container, Kind, Script, Template};
use stand::clip;

use crate::rows::numbers;

/// Size of films and of what is made of them: kills are many, and pixels aren't what they test.
pub(super) const SIZE: (u32, u32) = (320, 180);
/// Length of a film in segments.
const SEGMENTS: u32 = 20;
/// Bits of picture per second.
const BITRATE: u64 = 600_000;

/// A viewer's job, and what they do with it.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// A name for people and folders.
    pub name: &'static str,
    /// Writing to nowhere yet.
    pub command: CommandLine,
    /// Length of the film in seconds.
    pub runtime: f64,
    /// What the viewer does, as [`Script`] reads it; always to the film's end.
    pub script: &'static str,
}

impl Job {
    pub(super) fn script(&self) -> Script {
        self.script.parse().expect("scripts of this file are ones")
    }
}

/// How frames follow one another.
#[derive(Debug, Clone, Copy)]
struct Rate {
    frames: u32,
    seconds: u32,
    /// Milliseconds from one segment to the next, where Jellyfin's playlist has it.
    segment_ms: u64,
}

const PAL: Rate = Rate { frames: 25, seconds: 1, segment_ms: 3_000 };
/// Jellyfin's grid of three times 1.001 seconds (contract 4).
const FILM: Rate = Rate { frames: 24_000, seconds: 1001, segment_ms: 3_003 };

/// What becomes of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Picture {
    H264,
    Hevc,
    Copy,
}

/// Six viewers. Where Jellyfin starts anew on the way back, segments of the run before lie ahead.
pub(super) fn six(kind: Kind) -> [Job; 6] {
    let job = |name, rate, container, picture, script| {
        let command = command(kind, rate, container, picture);
        let runtime = f64::from(SEGMENTS) * rate.segment_ms as f64 / 1000.0;
        Job { name, command, runtime, script }
    };
    [
        job("ts", PAL, Container::Ts, Picture::H264, "play all"),
        job(
            "fmp4-paused",
            PAL,
            Container::Fmp4,
            Picture::H264,
            "play 2; pause; wait 1.5; resume; play all",
        ),
        job("hevc-forwards", PAL, Container::Fmp4, Picture::Hevc, "play 2; seek 42; play all"),
        job("copy", PAL, Container::Ts, Picture::Copy, "play all"),
        job(
            "film-back",
            FILM,
            Container::Ts,
            Picture::H264,
            "seek 15.02; play 1; seek 3.01; play 4; finish; play all",
        ),
        job(
            "fmp4-back",
            PAL,
            Container::Fmp4,
            Picture::H264,
            "seek 45; play 2; seek 6; play 3; finish; play all",
        ),
    ]
}

/// A film whose pictures carry their numbers, with a keyframe at every segment's begin.
fn film(rate: Rate) -> PathBuf {
    let (width, height) = SIZE;
    let Rate { frames, seconds, segment_ms } = rate;
    let count = u64::from(SEGMENTS) * segment_ms * u64::from(frames) / u64::from(seconds) / 1000;
    let group = segment_ms * u64::from(frames) / u64::from(seconds) / 1000;
    let length = SEGMENTS as f64 * segment_ms as f64 / 1000.0;
    let arguments = format!(
        "-f rawvideo -pix_fmt yuv420p -s {width}x{height} -r {frames}/{seconds} -i pipe:0 \
         -f lavfi -i sine=f=440:r=48000:d={length} -c:v libx264 -preset ultrafast -g {group} \
         -keyint_min {group} -sc_threshold 0 -c:a aac -b:a 96k"
    );
    clip::make_from(&format!("survive-{frames}-{seconds}.mkv"), &arguments, |pipe| {
        for number in 0..count {
            let picture = numbers::draw(number, width as usize, height as usize);
            pipe.write_all(&picture).expect("ffmpeg reads its pictures");
        }
    })
}

fn command(kind: Kind, rate: Rate, container: Container, picture: Picture) -> CommandLine {
    let film = film(rate);
    // A copy has nothing for a GPU to do, and Jellyfin's command names none.
    let kind = if picture == Picture::Copy { Kind::Software } else { kind };
    let template = Template {
        kind,
        video_bitrate: BITRATE,
        ..template(&film, Path::new("/nowhere"), container, SIZE.1)
    };
    let line = match picture {
        Picture::H264 => template.line(),
        Picture::Hevc => to_hevc(&template),
        Picture::Copy => to_copy(&template.line()),
    };
    let mut command = CommandLine::from_log(&line).expect("a template is a command");
    command.segment_ms = rate.segment_ms;
    command
}

fn to_hevc(template: &Template) -> String {
    let encoder = match template.kind {
        Kind::Software => "libx265",
        Kind::Vaapi => "hevc_vaapi",
    };
    let line = Template { encoder: Some(encoder.into()), ..template.clone() }.line();
    let line = line
        .replace("-profile:v:0 high -level 51", "-profile:v:0 main -level 120")
        .replace(" -sc_threshold:v:0 0", "")
        .replace("-preset veryfast", "-preset ultrafast")
        .replace(&format!("-codec:v:0 {encoder}"), &format!("-codec:v:0 {encoder} -tag:v:0 hvc1"));
    // x264's own options have no meaning here.
    match line.split_once(" -x264opts:0 ") {
        Some((before, rest)) => {
            let (_, behind) = rest.split_once(' ').unwrap_or(("", rest));
            format!("{before} {behind}")
        }
        None => line,
    }
}

/// The picture is copied, ten times as fast as it plays (contract 2.1): as fast as it goes, it would be
/// over before anybody could be killed.
fn to_copy(line: &str) -> String {
    let (before, rest) = line.split_once("-codec:v:0").unwrap_or((line, ""));
    let (_, behind) = rest.split_once(" -codec:a:0").unwrap_or(("", rest));
    let before = before.replacen("-i file:", "-readrate 10 -i file:", 1);
    format!("{before}-codec:v:0 copy -codec:a:0{behind}")
}

#[cfg(test)]
mod tests {
    use ffmpeg_args::{Plan, VideoAction};

    use super::*;

    #[test]
    fn all_are_transcodes_that_rendergate_runs() {
        for kind in [Kind::Software, Kind::Vaapi] {
            for job in six(kind) {
                job.script();
                for start in [0, 5] {
                    let words = job.command.at(start, job.runtime);
                    let words: Vec<_> = words.iter().map(Into::into).collect();
                    let plan = match ffmpeg_args::plan(&words) {
                        Plan::Transcode(plan) => plan,
                        Plan::Passthrough(reason) => panic!("{}: {reason:?}", job.name),
                    };
                    let copies = plan.video.unwrap().action == VideoAction::Copy;
                    assert_eq!(copies, job.name == "copy");
                }
            }
        }
    }
}
