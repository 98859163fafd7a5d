//! A browser plays across the seam between two runs of one play session.
//!
//! The first run begins at zero and is stopped with `q`; the second begins at segment four, as
//! after a seek. The playlist is the one Jellyfin would generate (contract 4). Headless Chromium
//! plays it with hls.js from the first run's last segment into the second's, for MPEG-TS and
//! fMP4, the latter with either run's init file (each restart writes it anew).
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use benches::clip::{self, Clip};
use benches::job;
use benches::line::{Line, SEGMENT_SECONDS};
use benches::stack::{Stack, pause};
use serde_json::Value;

const CLIP: Clip = Clip { width: 640, height: 360, rate: "24000/1001", seconds: 30 };
const ID: &str = "fedcba9876543210fedcba9876543210";
/// First segment of the second run.
const SEAM: u32 = 4;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [binaries, folder, player] = arguments.as_slice() else {
        bail!("usage: seam BINARIES FOLDER PLAYER_FOLDER (see ./dev seam)");
    };
    let folder = PathBuf::from(folder);
    let clip = clip::make(&folder, CLIP)?;
    let stack = Stack::start(Path::new(binaries), &folder)?;
    let mut passed = 0;
    for (name, fmp4, old_init) in
        [("MPEG-TS", false, false), ("fMP4", true, false), ("fMP4, first run's init", true, true)]
    {
        let directory = folder.join(name.replace([' ', ',', '\''], "_"));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        two_runs(&stack, &clip, &directory, fmp4, old_init)?;
        let report = play(Path::new(player), &directory)?;
        println!(
            "{name}: reached {} s over the seam at {} s, {} frames, {} dropped, longest stop {} ms, errors {}",
            report["reached"],
            SEAM * SEGMENT_SECONDS,
            report["frames"],
            report["dropped"],
            report["longestStillMs"],
            report["errors"]
        );
        ensure!(report["ok"] == true, "{name} doesn't play across the seam: {report}");
        passed += 1;
    }
    println!("{passed} passed, 0 failed");
    stack.stop()
}

/// Leaves the segments of both runs in `directory`, and a playlist of all.
fn two_runs(stack: &Stack, clip: &Path, directory: &Path, fmp4: bool, old_init: bool) -> Result<()> {
    let line = |first_segment| Line {
        input: clip,
        directory,
        id: ID,
        fmp4,
        first_segment,
        height: 360,
        preset: "veryfast",
    };
    let first = line(0);
    let hook = stack.hook()?;
    let mut child = job::spawn(&hook, &first, Some(stack))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !directory.join(first.segment(SEAM)).exists() {
        ensure!(Instant::now() < deadline, "no segment {SEAM} after a minute");
        ensure!(child.try_wait()?.is_none(), "the first run ended early");
        pause(2);
    }
    child.stdin.take().context("stdin is a pipe")?.write_all(b"q\n")?;
    ensure!(child.wait()?.success(), "the first run failed after q");
    let init = directory.join(format!("{ID}-1.mp4"));
    let kept = fs::read(&init).unwrap_or_default();
    for number in SEAM.. {
        if fs::remove_file(directory.join(first.segment(number))).is_err() {
            break;
        }
    }
    let second = line(SEAM);
    job::run(&hook, &second, Some(stack))?;
    if old_init {
        ensure!(!kept.is_empty(), "the first run wrote no init file");
        fs::write(&init, kept)?;
    }
    fs::write(directory.join("main.m3u8"), playlist(&second, fmp4))?;
    Ok(())
}

/// The playlist as Jellyfin generates it: from the runtime alone.
fn playlist(line: &Line<'_>, fmp4: bool) -> String {
    let version = if fmp4 { 7 } else { 3 };
    let mut text = format!(
        "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-VERSION:{version}\n\
         #EXT-X-TARGETDURATION:{SEGMENT_SECONDS}\n#EXT-X-MEDIA-SEQUENCE:0\n"
    );
    if fmp4 {
        let _ = writeln!(text, "#EXT-X-MAP:URI=\"{ID}-1.mp4\"");
    }
    for number in 0..CLIP.seconds / SEGMENT_SECONDS {
        let _ = writeln!(text, "#EXTINF:{SEGMENT_SECONDS}.000000,\n{}", line.segment(number));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

fn play(player: &Path, directory: &Path) -> Result<Value> {
    let seam = SEAM * SEGMENT_SECONDS;
    let output = Command::new("node")
        .arg(player.join("play.mjs"))
        .arg(directory)
        .args(["main.m3u8", &(seam - 3).to_string(), &(seam + 4).to_string()])
        .output()
        .context("node is needed: apt install nodejs npm")?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim())
        .with_context(|| format!("the player failed: {}", String::from_utf8_lossy(&output.stderr)))
}
