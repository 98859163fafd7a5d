//! On which backend a run began, which settles its times for good.
//!
//! An encoder in software puts pictures out of order, one on a GPU doesn't; ffmpeg's muxers move a whole run by
//! what that takes, and so does Rendergate. Workers that follow keep the time of the one that wrote the
//! first segment, whatever they run on.

use std::fmt;

use jellyfin_sim::Run;

use super::killer::Kill;

/// Where a picture is encoded, or copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Backend {
    Gpu,
    Software,
}

impl Backend {
    /// By the gateway's word for it. One that does a part of a picture on the GPU is neither.
    pub(super) fn of(word: &str) -> Option<Self> {
        match word {
            "vaapi" => Some(Self::Gpu),
            "software" => Some(Self::Software),
            _ => None,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Gpu => Self::Software,
            Self::Software => Self::Gpu,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpu => "the GPU",
            Self::Software => "software",
        })
    }
}

/// What the hook says of the first worker that has run its graph: `rendergate: vaapi: …`, or `rendergate:
/// software (no GPU): …`.
pub(super) fn told<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Backend> {
    lines.find_map(|line| {
        let (word, _) = line.strip_prefix("rendergate: ")?.split_once([' ', ':'])?;
        Backend::of(word)
    })
}

/// On which backends a run may have begun, the likely one first: one, unless a worker of it was killed before
/// it had a segment. Nobody says where the next one ran, which began anew.
pub(super) fn begun(run: &Run, kills: &[Kill]) -> Vec<Backend> {
    let lines = || run.log.head.iter().map(String::as_str);
    let Some(first) = told(lines()) else { return Vec::new() };
    let stream = lines().find_map(|line| {
        let rest = line.strip_prefix("rendergate: stream ")?;
        rest.split(' ').next()
    });
    let anew = kills.iter().any(|kill| Some(kill.stream.as_str()) == stream && kill.segments == 0);
    if anew { vec![first, first.other()] } else { vec![first] }
}

#[cfg(test)]
mod tests {
    use jellyfin_sim::Log;

    use super::*;

    #[test]
    fn a_run_begins_where_the_hook_says_unless_its_first_worker_wrote_nothing() {
        let kill = |stream: &str, segments| Kill {
            at: 0.0,
            stream: stream.to_owned(),
            output: String::new(),
            pid: 1,
            backend: "vaapi".to_owned(),
            segments,
        };
        let run = |lines: &[&str]| Run {
            log: Log { head: lines.iter().map(|&line| line.into()).collect(), ..Log::default() },
            ..Run::default()
        };
        let stream = "rendergate: stream s7 on gateway unix:/s: a film";
        let on_gpu = run(&[stream, "rendergate: vaapi: vah264dec ! vah264enc"]);
        let elsewhere = [kill("s70", 0), kill("s7", 1)];
        assert_eq!(begun(&on_gpu, &elsewhere), [Backend::Gpu]);
        assert_eq!(begun(&on_gpu, &[kill("s7", 0)]), [Backend::Gpu, Backend::Software]);
        let in_software = run(&[stream, "rendergate: software (no GPU): avdec_h264 ! x264enc"]);
        assert_eq!(begun(&in_software, &elsewhere), [Backend::Software]);
        assert_eq!(begun(&run(&[stream, "rendergate: mixed: vah264dec ! x264enc"]), &[]), []);
    }
}
