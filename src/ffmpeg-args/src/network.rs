//! Where an input's bytes come from: files, several files in a row, or a protocol that the real
//! ffmpeg speaks (contract 0.1, input URL forms; 2.1 inputModifier).
//!
//! Invariants:
//! - Only protocols of Jellyfin's media sources are fetched. Devices, pipes and discs are not.
//! - What is said of the protocol stands in the plan word for word, in order; whoever fetches says
//!   it again.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::inputs::local_path;
use crate::unread::{BARE, Spellings, Unread, shown, value};
use crate::{Delivery, Location, Network, Passthrough, Verdict};

/// Protocols, and how what they bring is passed on.
const PROTOCOLS: &[(&str, Delivery)] = &[
    ("http", Delivery::Bytes),
    ("https", Delivery::Bytes),
    ("ftp", Delivery::Bytes),
    ("tcp", Delivery::Bytes),
    ("udp", Delivery::Bytes),
    ("rtp", Delivery::Remuxed),
    ("rtsp", Delivery::Remuxed),
    ("rtsps", Delivery::Remuxed),
    ("rtmp", Delivery::Remuxed),
    ("rtmps", Delivery::Remuxed),
];

/// Demuxers that fetch more than their own URL.
pub(crate) const REMUXED_FORMATS: &[&str] = &["hls", "applehttp", "rtsp", "sdp", "dash"];

type Known = fn(&str) -> bool;

/// Options of protocols, with the values that they may have.
const OPTIONS: &[(Spellings, Known)] = &[
    (&[("user_agent", BARE)], is_text),
    (&[("referer", BARE)], is_text),
    (&[("headers", BARE)], is_text),
    (&[("cookies", BARE)], is_text),
    (&[("rtsp_transport", BARE)], is_text),
    (&[("rtsp_flags", BARE)], is_text),
    (&[("timeout", BARE)], is_number),
    (&[("rw_timeout", BARE)], is_number),
    (&[("seekable", BARE)], is_number),
    (&[("multiple_requests", BARE)], is_number),
    (&[("reconnect", BARE)], is_number),
    (&[("reconnect_at_eof", BARE)], is_number),
    (&[("reconnect_streamed", BARE)], is_number),
    (&[("reconnect_on_network_error", BARE)], is_number),
    (&[("reconnect_on_http_error", BARE)], is_text),
    (&[("reconnect_delay_max", BARE)], is_number),
    // A stream that ends is begun anew.
    (&[("stream_loop", BARE)], |value| value == "-1"),
];

fn is_text(value: &str) -> bool {
    !value.is_empty()
}

fn is_number(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// What an input's URL names.
pub(crate) fn location(url: &OsStr) -> Verdict<Location> {
    if let Some(text) = url.to_str() {
        if let Some(list) = text.strip_prefix("concat:") {
            let paths = list.split('|').map(|part| local_path(OsStr::new(part)));
            return paths.collect::<Verdict<Vec<PathBuf>>>().map(Location::Files);
        }
        if let Some((scheme, rest)) = text.split_once("://")
            && let Some((_, delivery)) = PROTOCOLS.iter().find(|(name, _)| *name == scheme)
            && !rest.is_empty()
        {
            let delivery = if is_playlist(rest) { Delivery::Remuxed } else { *delivery };
            return Ok(Location::Network(Network {
                url: text.to_owned(),
                options: Vec::new(),
                delivery,
            }));
        }
    }
    local_path(url).map(Location::File)
}

/// Whether a URL's path ends like that of an HLS playlist, which names the streams' files only.
fn is_playlist(rest: &str) -> bool {
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    path.to_ascii_lowercase().ends_with(".m3u8")
}

/// Takes the options of the protocol.
pub(crate) fn read_options(unread: &mut Unread<'_>, network: &mut Network) -> Verdict<()> {
    let mut taken = Vec::new();
    for (spellings, known) in OPTIONS {
        if let Some(setting) = unread.take(spellings)? {
            let value = value(setting).filter(|value| known(value));
            let value = value.ok_or_else(|| Passthrough::unknown(shown(setting)))?;
            taken.push((setting.position, setting.name.as_str(), value));
        }
    }
    // A stream that is begun anew when it ends needs a protocol that says that it ended.
    let says = |name: &str| taken.iter().any(|(_, other, _)| *other == name);
    if says("stream_loop") && !says("reconnect_at_eof") {
        return Err(Passthrough::feature("-stream_loop -1 without -reconnect_at_eof"));
    }
    taken.sort_unstable();
    network.options = taken
        .into_iter()
        .flat_map(|(_, name, value)| [format!("-{name}"), value.to_owned()])
        .collect();
    Ok(())
}

/// Whether an option is one of a protocol's.
pub(crate) fn is_option(name: &str) -> bool {
    OPTIONS.iter().any(|(spellings, _)| crate::unread::is_spelled(name, spellings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_files_or_fetched() {
        let delivery = |url: &str| match location(OsStr::new(url)) {
            Ok(Location::Network(network)) => {
                assert_eq!(network.url, url);
                Some(network.delivery)
            }
            _ => None,
        };
        for (url, expect) in [
            ("http://192.0.2.3:8096/stream.ts", Some(Delivery::Bytes)),
            ("https://host/live?list=a.m3u8", Some(Delivery::Bytes)),
            ("https://host/live.M3U8?token=1", Some(Delivery::Remuxed)),
            ("udp://@239.0.0.1:1234", Some(Delivery::Bytes)),
            ("rtsp://camera/1", Some(Delivery::Remuxed)),
            ("http://", None),
            ("smb://host/a.mkv", None),
            ("pipe:0", None),
            ("bluray:/m/a.iso", None),
            ("HTTP://host/a.ts", None),
        ] {
            assert_eq!(delivery(url), expect, "{url}");
        }
        let location = |url: &str| location(OsStr::new(url)).ok();
        assert_eq!(location("file:http://a"), Some(Location::File("http://a".into())));
        assert_eq!(location("/m/a://b.mkv"), None);
    }

    #[test]
    fn files_in_a_row_are_a_list() {
        let files = |url: &str| match location(OsStr::new(url)) {
            Ok(Location::Files(paths)) => Some(paths),
            _ => None,
        };
        assert_eq!(
            files("concat:/m/1.vob|/m/2.vob"),
            Some(vec!["/m/1.vob".into(), "/m/2.vob".into()])
        );
        assert_eq!(files("concat:/m/1.vob"), Some(vec!["/m/1.vob".into()]));
        for url in ["concat:", "concat:/m/1.vob|", "concat:/m/1.vob|http://host/2.vob"] {
            assert_eq!(files(url), None, "{url}");
        }
    }
}
