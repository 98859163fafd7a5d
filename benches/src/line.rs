//! The command line of Jellyfin's plainest transcode (contract 2.1, software encoder), as argv.

use std::ffi::OsString;
use std::path::Path;

/// What varies between two calls of a play session.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The media file.
    pub input: &'a Path,
    /// The transcode directory.
    pub directory: &'a Path,
    /// The play session's ID.
    pub id: &'a str,
    /// fMP4 instead of MPEG-TS.
    pub fmp4: bool,
    /// First segment; `-ss` follows from it.
    pub first_segment: u32,
    /// Height of the output; the width follows.
    pub height: u32,
    /// x264 preset.
    pub preset: &'a str,
}

/// Length of a segment in seconds.
pub const SEGMENT_SECONDS: u32 = 3;

impl Line<'_> {
    /// The arguments behind the program's name.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = Vec::new();
        let mut say = |text: &str| line.extend(text.split(' ').map(OsString::from));
        say("-analyzeduration 200M -probesize 1G");
        if self.first_segment > 0 {
            let start = self.first_segment * SEGMENT_SECONDS;
            let (hours, minutes, seconds) = (start / 3600, start / 60 % 60, start % 60);
            say(&format!("-ss {hours:02}:{minutes:02}:{seconds:02}.000"));
        }
        say("-i");
        let mut input = OsString::from("file:");
        input.push(self.input);
        line.push(input);
        let mut say = |text: &str| line.extend(text.split(' ').map(OsString::from));
        say("-map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s");
        say(&format!("-codec:v:0 libx264 -preset {}", self.preset));
        say("-crf 23 -maxrate 4000000 -bufsize 8000000 -profile:v:0 high -level 41");
        say("-x264opts:0 subme=0:me_range=16:rc_lookahead=10:me=hex:open_gop=0");
        say("-force_key_frames:0 expr:gte(t,n_forced*3) -sc_threshold:v:0 0 -vf");
        let (h, w) = (self.height, self.height * 16 / 9);
        say(&format!(
            "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,\
             scale=trunc(min(max(iw\\,ih*a)\\,min({w}\\,{h}*a))/2)*2:\
             trunc(min(max(iw/a\\,ih)\\,min({w}/a\\,{h}))/2)*2,format=yuv420p"
        ));
        say("-codec:a:0 aac -ac 2 -ab 128000 -copyts -avoid_negative_ts disabled");
        say("-max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time 3");
        if self.fmp4 {
            say(&format!(
                "-hls_segment_type fmp4 -hls_fmp4_init_filename {}-1.mp4",
                self.id
            ));
        } else {
            say("-hls_segment_type mpegts");
        }
        say(&format!("-start_number {} -hls_segment_filename", self.first_segment));
        line.push(self.directory.join(format!("{}%d.{}", self.id, self.extension())).into());
        let mut say = |text: &str| line.extend(text.split(' ').map(OsString::from));
        say("-hls_playlist_type vod -hls_list_size 0");
        if self.fmp4 {
            say("-hls_segment_options movflags=+frag_discont");
        }
        say("-y");
        line.push(self.directory.join(format!("{}.m3u8", self.id)).into());
        line
    }

    /// `ts` or `mp4`.
    pub fn extension(&self) -> &'static str {
        if self.fmp4 { "mp4" } else { "ts" }
    }

    /// File name of a segment.
    pub fn segment(&self, number: u32) -> String {
        format!("{}{number}.{}", self.id, self.extension())
    }
}
