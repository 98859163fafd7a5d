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
use benches::play::{SEGMENT_SECONDS, command};
use benches::stack::{Stack, pause};
use jellyfin_sim::{CommandLine, Container};
use serde_json::Value;

const CLIP: Clip = Clip { width: 640, height: 360, rate: "24000/1001", seconds: 30 };
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
fn two_runs(
    stack: &Stack,
    clip: &Path,
    directory: &Path,
    fmp4: bool,
    old_init: bool,
) -> Result<()> {
    let container = if fmp4 { Container::Fmp4 } else { Container::Ts };
    let session = command(clip, directory, container, CLIP.height);
    let runtime = f64::from(CLIP.seconds);
    let hook = stack.hook()?;
    let mut child = job::spawn(&hook, &session.at(0, runtime), Some(stack))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !session.segment(SEAM.into()).exists() {
        ensure!(Instant::now() < deadline, "no segment {SEAM} after a minute");
        ensure!(child.try_wait()?.is_none(), "the first run ended early");
        pause(2);
    }
    child.stdin.take().context("stdin is a pipe")?.write_all(b"q\n")?;
    ensure!(child.wait()?.success(), "the first run failed after q");
    let init = session.segment(-1);
    let kept = fs::read(&init).unwrap_or_default();
    for number in SEAM.. {
        if fs::remove_file(session.segment(number.into())).is_err() {
            break;
        }
    }
    job::run(&hook, &session.at(SEAM.into(), runtime), Some(stack))?;
    if old_init {
        ensure!(!kept.is_empty(), "the first run wrote no init file");
        fs::write(&init, kept)?;
    }
    fs::write(directory.join("main.m3u8"), playlist(&session, fmp4))?;
    Ok(())
}

/// The playlist as Jellyfin generates it: from the runtime alone.
fn playlist(session: &CommandLine, fmp4: bool) -> String {
    let version = if fmp4 { 7 } else { 3 };
    let mut text = format!(
        "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-VERSION:{version}\n\
         #EXT-X-TARGETDURATION:{SEGMENT_SECONDS}\n#EXT-X-MEDIA-SEQUENCE:0\n"
    );
    if fmp4 {
        let _ = writeln!(text, "#EXT-X-MAP:URI=\"{}-1.mp4\"", session.id);
    }
    for number in 0..CLIP.seconds / SEGMENT_SECONDS {
        let name = format!("{}{number}{}", session.id, session.extension);
        let _ = writeln!(text, "#EXTINF:{SEGMENT_SECONDS}.000000,\n{name}");
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
