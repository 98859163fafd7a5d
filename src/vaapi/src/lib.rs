//! What a render node's VA-API driver reports: profiles, encoders' rate control, sizes, filters.
//!
//! libva is loaded when it is asked for, not linked: a worker that encodes in software runs where
//! there is no libva, and its absence is an answer like any other. The existing binding
//! (`cros-libva`) links it, and knows nothing of `va_vpp.h`, which half of the questions are about.
//!
//! A driver may crash or hang in any of these calls. So only a process that may be lost calls
//! [`capabilities`].
//!
//! Invariant: unsafe code is in `ffi` and `display` alone; `names` and this file are plain.

mod display;
mod ffi;
mod names;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use gpu::{Capabilities, Entry, Entrypoint, Processing, VaapiFailure};

use crate::display::{Display, Status};

/// Asks the driver of the node at `path`.
///
/// # Errors
/// What stands between here and a driver that answers.
pub fn capabilities(path: &Path) -> Result<Capabilities, VaapiFailure> {
    let library = ffi::Library::load()
        .map_err(|error| VaapiFailure::NoLibrary { message: with_causes(&error) })?;
    let refused = |message: String| VaapiFailure::Refused { message };
    let node = OpenOptions::new().read(true).write(true).open(path);
    let node =
        node.map_err(|error| refused(format!("{} can't be opened: {error}", path.display())))?;
    let display = Display::open(&library, &node).map_err(|failure| {
        let tried = drivers_tried(&failure.log);
        if !tried.is_empty() && tried.iter().all(|driver| !driver.exists()) {
            VaapiFailure::NoDriver { tried }
        } else {
            refused(failure.to_string())
        }
    })?;
    read(&display).map_err(|status| refused(format!("listing what it can do: {status}")))
}

fn read(display: &Display<'_>) -> Result<Capabilities, Status> {
    let mut entries = Vec::new();
    let mut processing = None;
    for profile in display.profiles()? {
        for number in display.entrypoints(profile)? {
            let entrypoint = names::entrypoint(number);
            if entrypoint == Entrypoint::Process {
                processing = Some(read_processing(display)?);
            }
            entries.push(read_entry(display, profile, number, entrypoint));
        }
    }
    entries.sort_by(|a, b| (&a.profile, &a.entrypoint).cmp(&(&b.profile, &b.entrypoint)));
    let (major, minor) = display.version();
    Ok(Capabilities {
        vendor: display.vendor(),
        version: format!("{major}.{minor}"),
        entries,
        processing,
    })
}

fn read_entry(display: &Display<'_>, profile: i32, number: i32, entrypoint: Entrypoint) -> Entry {
    let attribute = |kind| display.attribute(profile, number, kind);
    let encodes = matches!(entrypoint, Entrypoint::Encode | Entrypoint::EncodeLowPower);
    let rate_control = attribute(ffi::ATTRIBUTE_RATE_CONTROL).filter(|_| encodes);
    let max_size = attribute(ffi::ATTRIBUTE_MAX_WIDTH)
        .zip(attribute(ffi::ATTRIBUTE_MAX_HEIGHT))
        .or_else(|| display.max_surface(profile, number));
    Entry {
        profile: names::profile(profile),
        entrypoint,
        max_size,
        formats: names::flags(attribute(ffi::ATTRIBUTE_FORMATS).unwrap_or(0), names::FORMATS),
        rate_control: names::flags(rate_control.unwrap_or(0), names::RATE_CONTROL),
    }
}

fn read_processing(display: &Display<'_>) -> Result<Processing, Status> {
    let reported = display.processing()?;
    let has = |filter: i32| reported.filters.contains(&filter);
    Ok(Processing {
        filters: reported.filters.iter().map(|filter| names::filter(*filter)).collect(),
        deinterlacing: if has(ffi::FILTER_DEINTERLACING) {
            reported.deinterlacing.iter().map(|kind| names::deinterlacing(*kind)).collect()
        } else {
            Vec::new()
        },
        tone_mapping: names::flags(reported.tone_mapping, names::TONE_MAPPING),
        // Bit 0 is no rotation.
        rotation: (1..4)
            .filter(|bit| reported.rotation & 1 << bit != 0)
            .map(|bit| bit * 90)
            .collect(),
        blend: names::flags(reported.blend, names::BLEND),
    })
}

/// The files that libva says it tried.
fn drivers_tried(log: &[String]) -> Vec<PathBuf> {
    log.iter()
        .filter_map(|line| line.trim().strip_prefix("Trying to open "))
        .map(PathBuf::from)
        .collect()
}

/// An error's whole chain: the loader's words are in the cause.
fn with_causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_causes(cause)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_which_drivers_were_tried() {
        let log =
            ["VA-API version 1.17.0\n", "Trying to open /x/iHD_drv_video.so\n"].map(String::from);
        assert_eq!(drivers_tried(&log), [PathBuf::from("/x/iHD_drv_video.so")]);
    }
}
