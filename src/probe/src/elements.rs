//! Which GStreamer elements work on which node.
//!
//! The first device that udev lists has the short names (`vah264enc`), every other its node's
//! (`varenderD129h264enc`). Which is the first can't be told from the numbers, so an element is
//! asked: `device-path`. Up to 1.22 that is empty until the element is READY.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;

/// What a name with a node in it contains: `varenderD129h264enc`, `vavp8renderD129alphadecodebin`.
const NODE: &str = "renderD";

/// GStreamer's `va` plugin, if it is installed.
pub(crate) fn plugin() -> Option<gst::Plugin> {
    gst::Registry::get().find_plugin("va")
}

/// Names of the elements on the node at `path`, sorted.
pub(crate) fn of_node(path: &Path) -> Vec<String> {
    let node = path.file_name().unwrap_or_default().to_string_lossy();
    let features = gst::Registry::get().features_by_plugin("va");
    let asked = features
        .iter()
        .map(|feature| feature.name().to_string())
        .filter(|name| may_be_of(name, &node))
        .map(|name| (device_path(&name).as_deref().map(|device| Path::new(device) == path), name))
        .collect();
    settle(asked)
}

/// The elements of the node, from whether each says that it works on it.
///
/// Some never say (the compositor of 1.22). One with a long name has the node in it; one with a
/// short name works where the other short names do.
fn settle(asked: Vec<(Option<bool>, String)>) -> Vec<String> {
    let is_short = |name: &str| !name.contains(NODE);
    let short_here = asked.iter().any(|(here, name)| *here == Some(true) && is_short(name));
    let mut names: Vec<String> = asked
        .into_iter()
        .filter(|(here, name)| here.unwrap_or(!is_short(name) || short_here))
        .map(|(_, name)| name)
        .collect();
    names.sort();
    names
}

/// Whether the name allows for that node. Elements that name another node aren't touched: this
/// process is here to be lost to one driver, not to two.
fn may_be_of(name: &str, node: &str) -> bool {
    !name.contains(NODE) || name.contains(node)
}

/// The node that an element works on, as it says itself.
fn device_path(name: &str) -> Option<String> {
    let element = gst::ElementFactory::make(name).build().ok()?;
    element.find_property("device-path")?;
    element.set_state(gst::State::Ready).ok()?;
    let device = element.property::<Option<String>>("device-path");
    // An element that can't go back is dropped as it is.
    let _ = element.set_state(gst::State::Null);
    device
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_may_be_of_any_node() {
        assert!(may_be_of("vah264enc", "renderD129"));
        assert!(may_be_of("varenderD129h264enc", "renderD129"));
        assert!(!may_be_of("varenderD129h264enc", "renderD128"));
        assert!(!may_be_of("vavp8renderD129alphadecodebin", "renderD128"));
    }

    #[test]
    fn who_does_not_say_goes_with_the_others() {
        let asked = |short: bool| {
            vec![(Some(short), "vah264enc".into()), (None, "vacompositor".to_owned())]
        };
        assert_eq!(settle(asked(true)), ["vacompositor", "vah264enc"]);
        assert!(settle(asked(false)).is_empty());
        let long = vec![(None, "varenderD129compositor".to_owned())];
        assert_eq!(settle(long), ["varenderD129compositor"]);
    }
}
