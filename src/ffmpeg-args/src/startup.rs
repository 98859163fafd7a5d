//! Questions that Jellyfin asks when it starts, of which one is about the GPU (contract 1.3).

use std::ffi::OsString;

use crate::arguments::parse;
use crate::unread::{BARE, Spellings, is_spelled, value};

/// What stands beside the device in that question: how much is said of it.
const BESIDE: Spellings = &[("v", BARE), ("loglevel", BARE), ("hide_banner", BARE)];

/// Whether argv (without the program's name) asks for nothing but the name of a VA-API driver:
/// `-v verbose -hide_banner -init_hw_device vaapi=va:/dev/dri/renderD128` (contract 1.3, rows 12 to
/// 14). The answer decides which filters Jellyfin will write.
pub fn asks_for_vaapi_driver(argv: &[OsString]) -> bool {
    let Ok(arguments) = parse(argv) else { return false };
    if !arguments.inputs.is_empty() || !arguments.outputs.is_empty() {
        return false;
    }
    let mut devices = Vec::new();
    for setting in arguments.globals.iter().chain(&arguments.trailing) {
        match value(setting) {
            Some(device) if is_spelled(&setting.name, &[("init_hw_device", BARE)]) => {
                devices.push(device);
            }
            _ if is_spelled(&setting.name, BESIDE) => {}
            _ => return false,
        }
    }
    matches!(devices[..], [device] if device == "vaapi" || device.starts_with("vaapi="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_of_vaapi_and_nothing_else() {
        for (command, expect) in [
            ("-v verbose -hide_banner -init_hw_device vaapi=va:/dev/dri/renderD128", true),
            ("-hide_banner -init_hw_device vaapi", true),
            ("-v verbose -hide_banner -init_hw_device drm=dr:/dev/dri/renderD128", false),
            ("-v verbose -init_hw_device vaapi=va -init_hw_device vulkan=vk@va", false),
            ("-v verbose -hide_banner", false),
            ("-v verbose -init_hw_device vaapi=va -i a.mkv", false),
            ("-init_hw_device vaapi=va -version", false),
            ("", false),
        ] {
            let argv: Vec<OsString> = command.split_whitespace().map(Into::into).collect();
            assert_eq!(asks_for_vaapi_driver(&argv), expect, "{command}");
        }
    }
}
