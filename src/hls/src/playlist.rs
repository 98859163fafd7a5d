//! The media playlist, letter by letter as ffmpeg writes it (contract, measured facts).

use std::fmt::Write as _;

use ffmpeg_args::{Container, HlsOutput, PlaylistType};

/// The segments so far.
#[derive(Debug, Default)]
pub struct Playlist {
    /// Name and length in seconds.
    segments: Vec<(String, f64)>,
}

impl Playlist {
    /// Adds a segment by its file name.
    pub fn push(&mut self, name: String, seconds: f64) {
        self.segments.push((name, seconds));
    }

    /// True without segments.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The text; `ended` adds the end mark.
    pub fn text(&self, output: &HlsOutput, ended: bool) -> String {
        let (version, map) = match &output.container {
            Container::MpegTs => (3, None),
            Container::Fmp4 { init, .. } => (7, Some(init)),
        };
        let kind = match output.playlist_type {
            PlaylistType::Vod => "VOD",
            PlaylistType::Event => "EVENT",
        };
        // Ties to even, as lrint(3) does.
        let target = self.segments.iter().map(|(_, s)| s.round_ties_even()).fold(0.0, f64::max);
        let mut text = format!(
            "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{target:.0}\n\
             #EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-PLAYLIST-TYPE:{kind}\n",
            output.start_number
        );
        if let Some(init) = map {
            // Bare, without the base URL: Jellyfin replaces this very text (contract 4).
            let _ = writeln!(text, "#EXT-X-MAP:URI=\"{init}\"");
        }
        for (name, seconds) in &self.segments {
            let _ = writeln!(text, "#EXTINF:{seconds:.6},\n{}{name}", output.base_url);
        }
        if ended {
            text.push_str("#EXT-X-ENDLIST\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(container: Container, playlist_type: PlaylistType, base_url: &str) -> HlsOutput {
        HlsOutput {
            directory: "out".into(),
            container,
            segment_seconds: 3.0,
            start_number: 2,
            segment_prefix: "x".into(),
            segment_suffix: ".ts".into(),
            playlist: "x.m3u8".into(),
            playlist_type,
            base_url: base_url.into(),
            max_delay_us: 5_000_000,
        }
    }

    #[test]
    fn vod_of_mpeg_ts() {
        let mut playlist = Playlist::default();
        playlist.push("x2.ts".into(), 3.0);
        playlist.push("x3.ts".into(), 2.5);
        assert_eq!(
            playlist.text(&output(Container::MpegTs, PlaylistType::Vod, ""), true),
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:2\n\
             #EXT-X-PLAYLIST-TYPE:VOD\n#EXTINF:3.000000,\nx2.ts\n#EXTINF:2.500000,\nx3.ts\n\
             #EXT-X-ENDLIST\n"
        );
    }

    #[test]
    fn event_of_fmp4_has_the_base_url_on_segments_only() {
        let container =
            Container::Fmp4 { init: "x-1.mp4".into(), absolute: true, skip_sidx: false };
        let mut playlist = Playlist::default();
        playlist.push("x0.mp4".into(), 3.003);
        assert_eq!(
            playlist.text(&output(container, PlaylistType::Event, "hls/x/"), false),
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:2\n\
             #EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MAP:URI=\"x-1.mp4\"\n#EXTINF:3.003000,\n\
             hls/x/x0.mp4\n"
        );
    }
}
