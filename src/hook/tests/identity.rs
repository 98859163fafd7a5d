//! Jellyfin's calls that aren't streams, through the hook and by the real ffmpeg alone: the same on
//! stdout, the same exit code, the same files (contract 1 and 2).
//!
//! No gateway listens, so that a transcode is such a call too.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ffmpeg_args::split_command_line;

/// What a call leaves.
#[derive(Debug, PartialEq)]
struct Left {
    stdout: Vec<u8>,
    code: Option<i32>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A film with two subtitles and a font, sound by itself, and a place to write to.
struct Library {
    folder: tempfile::TempDir,
}

impl Library {
    fn new() -> Self {
        let library = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["ffmpeg", "ffprobe"] {
            let hook = library.path(&format!("hook/{name}"));
            fs::create_dir_all(hook.parent().unwrap()).unwrap();
            symlink(env!("CARGO_BIN_EXE_rendergate-ffmpeg"), hook).unwrap();
        }
        let line = "1\n00:00:00,500 --> 00:00:02,000\nline\n\n";
        fs::write(library.path("a.srt"), line).unwrap();
        let latin: Vec<u8> = line.replace("line", "gr#n").bytes().collect();
        let latin = latin.into_iter().map(|byte| if byte == b'#' { 0xfc } else { byte }).collect();
        fs::write::<_, Vec<u8>>(library.path("latin.srt"), latin).unwrap();
        fs::write(library.path("font.ttf"), b"a font").unwrap();
        library.make(
            "-f lavfi -i testsrc2=s=320x180:r=25:d=4 -f lavfi -i sine=d=4 -i a.srt -i a.srt -map 0 \
             -map 1 -map 2 -map 3 -c:v libx264 -preset ultrafast -g 25 -c:a aac -c:s:0 srt -c:s:1 ass \
             -attach font.ttf -metadata:s:t mimetype=font/ttf film.mkv",
        );
        library.make("-i film.mkv -map 0:v -map 0:a -c copy film.ts");
        library.make("-f lavfi -i sine=d=4 song.flac");
        library
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make(&self, command: &str) {
        let made = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error"])
            .args(command.split_whitespace())
            .current_dir(self.folder.path())
            .status()
            .unwrap();
        assert!(made.success(), "{command}");
    }

    /// Runs a command as Jellyfin logs it, in an empty directory `{out}` beside the films `{in}`.
    fn left(&self, program: &Path, command: &str, stdin: &str) -> Left {
        let out = self.path("out");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        let command = command
            .replace("{out}", &out.display().to_string())
            .replace("{in}", &self.folder.path().display().to_string());
        let mut child = Command::new(program)
            .args(split_command_line(&command))
            .env("RENDERGATE_ENDPOINT", format!("unix:{}/nobody", self.folder.path().display()))
            .current_dir(&out)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.path("stderr")).unwrap())
            .spawn()
            .unwrap();
        // One that doesn't read it may be over.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let result = child.wait_with_output().unwrap();
        let files = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        let files = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        Left { stdout: result.stdout, code: result.status.code(), files }
    }

    #[track_caller]
    fn check(&self, tool: &str, command: &str) -> Left {
        // Nothing but a transcode reads keys; the question mark is how Jellyfin asks for their list.
        let theirs = self.left(Path::new(tool), command, "?");
        let ours = self.left(&self.path(&format!("hook/{tool}")), command, "?");
        let said = fs::read_to_string(self.path("stderr")).unwrap_or_default();
        let names = |left: &Left| left.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "{tool} {command}\n{said}");
        assert!(ours == theirs, "{tool} {command}\n{said}");
        ours
    }
}

#[test]
fn startup_probes() {
    let library = Library::new();
    for probe in [
        "-version",
        "-decoders",
        "-encoders",
        "-filters",
        "-hwaccels",
        "-h filter=overlay_vaapi",
        "-h filter=scale_cuda",
        "-h bsf=hevc_metadata",
    ] {
        let left = library.check("ffmpeg", probe);
        assert!(!left.stdout.is_empty(), "{probe} says something");
    }
    library.check("ffmpeg", "-hide_banner -f lavfi -i nullsrc=s=1x1:d=100 -f null -");
    let said = fs::read_to_string(library.path("stderr")).unwrap();
    assert!(said.contains("press [q] to stop") || said.contains("quit"), "{said}");
    for probe in [
        "-loglevel quiet -hwaccel_flags +low_priority -hide_banner -f lavfi -i nullsrc=s=1x1:d=100 \
         -f null -",
        "-v verbose -hide_banner -init_hw_device vaapi=va:/dev/dri/renderD128",
        "-v verbose -hide_banner -init_hw_device drm=dr:/dev/dri/renderD128 -init_hw_device \
         vulkan=vk@dr",
    ] {
        library.check("ffmpeg", probe);
    }
    library.check("ffprobe", "-loglevel quiet -f lavfi -i nullsrc=s=1x1:d=1 -only_first_vframe");
}

#[test]
fn questions_about_a_film() {
    let library = Library::new();
    let probe = "-analyzeduration 200M -probesize 1G -i file:\"{in}/film.mkv\" -threads 0 -v warning \
                 -print_format json -show_streams -show_chapters -show_format";
    let left = library.check("ffprobe", probe);
    assert!(String::from_utf8_lossy(&left.stdout).contains("codec_name"));
    let keyframes = "-fflags +genpts -v error -skip_frame nokey -show_entries format=duration \
                     -show_entries stream=duration -show_entries packet=pts_time,flags \
                     -select_streams v -of csv \"{in}/film.mkv\"";
    let left = library.check("ffprobe", keyframes);
    assert!(String::from_utf8_lossy(&left.stdout).contains("packet,"));
    library
        .check("ffprobe", "-i file:\"{in}/absent.mkv\" -v warning -print_format json -show_format");
    library.check(
        "ffmpeg",
        "-hide_banner -i \"{in}/song.flac\" -af ebur128=framelog=verbose -f null -",
    );
}

#[test]
fn what_is_taken_out_of_a_film() {
    let library = Library::new();
    for (command, expect) in [
        ("-dump_attachment:t \"\" -y  -i file:\"{in}/film.mkv\" -t 0 -f null null", 1),
        (
            "-i file:\"{in}/film.mkv\" -copyts -map 0:2 -an -vn -c:s copy \"{out}/2.srt\" -map 0:3 \
             -an -vn -c:s copy \"{out}/3.ass\"",
            2,
        ),
        ("-y -i file:\"{in}/film.mkv\" -copyts -map 0:2 -an -vn -c:s srt \"{out}/2.srt\"", 1),
        ("-y  -sub_charenc windows-1252 -i \"{in}/latin.srt\" -c:s srt \"{out}/4.srt\"", 1),
        (
            "-ss 00:00:01.000 -i file:\"{in}/film.mkv\" -threads 0 -v quiet -vframes 1 -vf \
             scale=round(iw*sar/2)*2:round(ih/2)*2,thumbnail=n=24 -fps_mode auto -f image2 \
             \"{out}/a.jpg\"",
            1,
        ),
        (
            "-loglevel error -skip_frame nokey -threads 1 -i file:\"{in}/film.mkv\" -an -sn -vf \
             \"fps=0.5,scale=w=320:h=180\" -threads 1 -c:v mjpeg -qscale:v 4 -fps_mode passthrough -f \
             image2 \"{out}/%08d.jpg\"",
            2,
        ),
        (
            "-async 1 -fflags +igndts -analyzeduration 5000000 -i \"{in}/film.ts\" -codec:v:0 copy \
             -fflags +genpts -map_metadata -1 -threads 0 -codec:a:0 copy -sn -y \"{out}/a.ts\"",
            1,
        ),
    ] {
        assert_eq!(library.check("ffmpeg", command).files.len(), expect, "{command}");
    }
    let failing =
        library.check("ffmpeg", "-y -i file:\"{in}/absent.mkv\" -c:s srt \"{out}/2.srt\"");
    assert_ne!(failing.code, Some(0));
}

#[test]
fn transcodes_that_no_gateway_runs() {
    let library = Library::new();
    let common = "-map_metadata -1 -map_chapters -1 -threads 1 -map 0:0 -map 0:1 -codec:v:0 libx264 \
                  -preset veryfast -crf 23 -force_key_frames:0 \"expr:gte(t,n_forced*3)\" \
                  -sc_threshold:v:0 0 -vf \"format=yuv420p\"";
    let hls = format!(
        "-i file:\"{{in}}/film.mkv\" {common} -map -0:s -codec:a:0 copy -copyts -avoid_negative_ts \
         disabled -max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time 3 \
         -hls_segment_type mpegts -start_number 0 -hls_segment_filename \"{{out}}/id%d.ts\" \
         -hls_playlist_type vod -hls_list_size 0 -y \"{{out}}/id.m3u8\""
    );
    let left = library.check("ffmpeg", &hls);
    assert_eq!((left.code, left.files.len()), (Some(0), 3));
    // Before 10.6.
    let segment = format!(
        "-i file:\"{{in}}/film.mkv\" {common} -copyts -codec:a:0 copy -f segment -max_delay 5000000 \
         -avoid_negative_ts disabled -start_at_zero -segment_time 3 -individual_header_trailer 0 \
         -segment_format mpegts -segment_list_type m3u8 -segment_start_number 0 -segment_list \
         \"{{out}}/id.m3u8\" -y \"{{out}}/id%d.ts\""
    );
    let left = library.check("ffmpeg", &segment);
    assert_eq!((left.code, left.files.len()), (Some(0), 3));
}
