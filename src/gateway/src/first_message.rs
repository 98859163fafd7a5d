//! The first message of a hook: a job with its descriptors, or a reason to decline it.

use std::os::fd::OwnedFd;

use ffmpeg_args::{Need, Transcode};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use session::{HookToGateway, PROTOCOL, Received, Resumption, Takeover};

use crate::output::Output;
use crate::sharing::Title;

/// A job that can be given to a worker.
#[derive(Debug)]
pub(crate) struct Job {
    /// What to do.
    pub transcode: Box<Transcode>,
    /// The inputs, then the output directory.
    pub descriptors: Vec<OwnedFd>,
    /// Our own hold on the output directory.
    pub output: Output,
    /// What it is, if others may share it.
    pub title: Option<Title>,
    /// Whether the hook would go on with the next gateway.
    pub reconnects: bool,
    /// Where another gateway has come to with it.
    pub takeover: Option<Box<Takeover>>,
}

/// A job that the hook must run itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declined {
    /// Stable word for counters.
    pub label: &'static str,
    /// For people.
    pub reason: String,
}

impl Declined {
    /// There are as many streams as there may be.
    pub(crate) const MAX_STREAMS: &str = "max_streams";

    pub(crate) fn new(label: &'static str, reason: impl Into<String>) -> Self {
        Self { label, reason: reason.into() }
    }

    pub(crate) fn shutting_down() -> Self {
        Self::new("shutting_down", "the gateway is shutting down")
    }
}

impl Job {
    /// Checks everything that can be checked without reading the media. Asks the file systems of
    /// the descriptors, which may take long.
    pub(crate) fn check(first: Received<HookToGateway>) -> Result<Self, Declined> {
        let HookToGateway::Job { protocol, transcode, reconnects, takeover } = first.message else {
            return Err(Declined::new("protocol", "the first message must be a job"));
        };
        if protocol != PROTOCOL {
            return Err(Declined::new(
                "protocol",
                format!("the hook speaks protocol {protocol}, this gateway {PROTOCOL}"),
            ));
        }
        check_names(&transcode.output)?;
        let descriptors = first.descriptors;
        let needs = transcode.needs();
        let expected = needs.len();
        if transcode.inputs.is_empty() || descriptors.len() != expected {
            return Err(Declined::new(
                "descriptors",
                format!(
                    "expected {expected} file descriptors (inputs, at least one, and the output \
                     directory), got {}",
                    descriptors.len()
                ),
            ));
        }
        for (need, descriptor) in needs.iter().zip(&descriptors) {
            check_need(need, descriptor)?;
        }
        let may_be = |takeover: &Takeover| {
            Resumption::possible(&transcode)
                .is_some_and(|first| takeover.resumption.is_sound(first))
        };
        if takeover.as_deref().is_some_and(|takeover| !may_be(takeover)) {
            return Err(Declined::new("takeover", "it can't have come to where it is to go on"));
        }
        let directory = descriptors.last().expect("the output directory is always needed");
        let output = hold(directory, &transcode.output).map_err(|what| {
            Declined::new(
                "descriptors",
                format!("{}: {what}", transcode.output.directory().display()),
            )
        })?;
        // What can't be looked at can't be known to be the same. Of one that was begun elsewhere only the
        // latest state is known, and others might have to go on behind an earlier segment.
        let title = match takeover {
            Some(_) => None,
            None => Title::of(&transcode, &descriptors).ok().flatten(),
        };
        Ok(Self { transcode, descriptors, output, title, reconnects, takeover })
    }
}

fn check_need(need: &Need<'_>, descriptor: &OwnedFd) -> Result<(), Declined> {
    let (name, checked) = match need {
        Need::Input { path, .. } | Need::Subtitles(path) => {
            (path.display().to_string(), check_input(descriptor, FileType::RegularFile))
        }
        Need::Network { network, .. } => {
            (network.url.clone(), check_input(descriptor, FileType::Fifo))
        }
        Need::Fonts(path) => {
            (path.display().to_string(), check_input(descriptor, FileType::Directory))
        }
        // Held and checked apart.
        Need::Output(_) => return Ok(()),
    };
    checked.map_err(|what| Declined::new("descriptors", format!("{name}: {what}")))
}

fn hold(directory: &OwnedFd, output: &ffmpeg_args::Output) -> Result<Output, String> {
    let stat = fstat(directory).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err("the last descriptor must be the output directory".into());
    }
    let own = directory.try_clone().map_err(|error| error.to_string())?;
    Output::new(own, output).map_err(|error| error.to_string())
}

fn check_input(descriptor: &OwnedFd, kind: FileType) -> Result<(), String> {
    let stat = fstat(descriptor).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return Err(match kind {
            FileType::Fifo => "a network input must be a pipe",
            FileType::Directory => "fonts must be a directory",
            _ => "an input must be a regular file",
        }
        .into());
    }
    let flags = fcntl_getfl(descriptor).map_err(|error| error.to_string())?;
    if flags.contains(OFlags::PATH) || flags & OFlags::RWMODE != OFlags::RDONLY {
        return Err("an input must be open for reading only".into());
    }
    Ok(())
}

/// The names are used relative to the directory's descriptor, and must not lead out of it.
fn check_names(output: &ffmpeg_args::Output) -> Result<(), Declined> {
    let names = match output {
        ffmpeg_args::Output::Hls(output) => [output.segment_name(0), output.playlist.clone()]
            .into_iter()
            .chain(output.init_name().map(str::to_owned))
            .collect(),
        ffmpeg_args::Output::Progressive(output) => vec![output.name.clone()],
    };
    for name in names {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(Declined::new(
                "names",
                format!("{name:?} is no bare name for a file in the output directory"),
            ));
        }
    }
    Ok(())
}
