//! Live television on the whole stack: a tuner's program, Jellyfin's command for it, and the real
//! ffmpeg that reads but must not transcode.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use jellyfin_sim::CommandLine;

/// What stands before the names in the playlist.
pub const BASE: &str = "hls/abc/";
/// Exit code of the ffmpeg that is asked to transcode.
pub const TRANSCODED: i32 = 42;

/// Reads inputs as the real ffmpeg; a transcode is recorded instead of being run.
const READER: &str = "#!/bin/sh
for word; do
  if [ \"$word\" = -hls_time ]; then
    printf '%s\\n' \"$@\" > \"$RECORD\"
    exit 42
  fi
done
exec /usr/bin/env ffmpeg \"$@\"
";

/// Puts the ffmpeg that only reads into a folder.
///
/// # Errors
/// If it can't be written.
pub fn reader(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("reading-ffmpeg");
    fs::write(&path, READER)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// A program of MPEG-TS of so many seconds, 25 pictures a second, a keyframe in each; made once.
///
/// # Errors
/// If ffmpeg fails.
pub fn program(folder: &Path, seconds: u32) -> Result<Vec<u8>> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = folder.join(format!("program-{seconds}.ts"));
    if !path.exists() {
        let making = folder.join(format!("program-{seconds}.{}.ts", std::process::id()));
        let line = format!(
            "-nostdin -v error -y -f lavfi -i testsrc2=s=320x180:r=25:d={seconds} \
             -f lavfi -i sine=d={seconds} -c:v libx264 -preset ultrafast -g 25 -pix_fmt yuv420p \
             -c:a aac -ac 2 -f mpegts"
        );
        let status = Command::new("ffmpeg").args(line.split_whitespace()).arg(&making).status()?;
        ensure!(status.success(), "ffmpeg makes no program");
        fs::rename(making, &path)?;
    }
    Ok(fs::read(path)?)
}

/// Jellyfin's command for a live stream: the picture copied or encoded, sound encoded.
///
/// # Panics
/// Never: the line has all that a command needs.
pub fn command(url: &str, directory: &Path, encode: bool) -> CommandLine {
    let out = directory.display();
    let video = if encode {
        "libx264 -preset veryfast -crf 23 -maxrate 2000000 -bufsize 4000000 -profile:v:0 high \
         -level 41 -x264opts:0 subme=0:me_range=16:rc_lookahead=10:me=hex:open_gop=0 \
         -force_key_frames:0 \"expr:gte(t,n_forced*3)\" -sc_threshold:v:0 0 \
         -vf \"setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,format=yuv420p\""
    } else {
        "copy -start_at_zero"
    };
    let line = format!(
        "ffmpeg -analyzeduration 3000000 -probesize 1G -fflags +igndts+genpts -f mpegts \
         -i \"{url}\" -map_metadata -1 -map_chapters -1 -threads 0 -sn -codec:v:0 {video} \
         -flags -global_header -codec:a:0 aac -ac 2 -ab 128000 -copyts -avoid_negative_ts disabled \
         -max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time 3 \
         -hls_segment_type mpegts -start_number 0 -hls_base_url \"{BASE}\" \
         -hls_segment_filename \"{out}/abc%d.ts\" -hls_playlist_type event -hls_list_size 0 \
         -y \"{out}/abc.m3u8\""
    );
    CommandLine::from_log(&line).expect("a template has all that a command needs")
}
