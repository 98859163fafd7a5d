//! The main job, shown: a clip with sound, a gateway, a viewer who plays and seeks, and what came
//! of it, beside plain ffmpeg on the same machine.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use benches::clip::{self, Clip};
use benches::play::{command, settings};
use benches::stack::Stack;
use jellyfin_sim::{CommandLine, Container, Pace, Report, Server, play};

const CLIP: Clip = Clip { width: 1280, height: 720, rate: "24000/1001", seconds: 60 };
const HEIGHT: u32 = 480;
/// Four segments from the start, a seek beyond what is transcoded, three segments from there.
const SCRIPT: &str = "play 4; seek 45; play 3";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [binaries, folder] = arguments.as_slice() else {
        bail!("usage: demo BINARIES FOLDER (see ./dev demo)");
    };
    let (binaries, folder) = (Path::new(binaries), PathBuf::from(folder));
    println!("A clip of {} s, {}x{}, H.264 and AAC", CLIP.seconds, CLIP.width, CLIP.height);
    let clip = clip::make(&folder, CLIP)?;
    println!("  {}\n", clip.display());
    let stack = Stack::start(binaries, &folder)?;
    println!("A gateway (log: {})\n", stack.log().display());
    let mut reports = Vec::new();
    for (name, container) in [("MPEG-TS", Container::Ts), ("fMP4", Container::Fmp4)] {
        let directory = folder.join(name);
        let report = watch(Some(&stack), &clip, &directory, container)?;
        let checked = check(&command(&clip, &directory, container, HEIGHT))
            .with_context(|| format!("{:?}\n{:?}", report.faults, report.runs))?;
        reports.push((format!("Rendergate, {name}"), report));
        println!("{name}: {checked}");
    }
    let plain = watch(None, &clip, &folder.join("ffmpeg"), Container::Ts)?;
    reports.push(("ffmpeg alone, MPEG-TS".to_owned(), plain));
    println!("\nA viewer who plays, seeks to 0:45 and goes on:\n");
    println!("{}", table(&reports));
    let lines = reports[0].1.runs.first().map(|run| run.log.head.clone()).unwrap_or_default();
    println!("What Jellyfin's log of the first run says:\n");
    for line in lines.iter().take(4) {
        println!("  {}", line.trim_end());
    }
    for (name, report) in &reports[..2] {
        ensure!(report.faults.is_empty(), "{name}: {:?}", report.faults);
    }
    by_hand(&stack, &clip, &folder, binaries)?;
    stack.stop()
}

fn watch(
    stack: Option<&Stack>,
    clip: &Path,
    directory: &Path,
    container: Container,
) -> Result<Report> {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory)?;
    let settings = settings(stack, Path::new("ffmpeg"), CLIP.seconds)?;
    let server = Server::new(settings, command(clip, directory, container, HEIGHT))?;
    Ok(play(server, &SCRIPT.parse()?, Pace::Fast))
}

/// One line per session; times in seconds.
fn table(reports: &[(String, Report)]) -> String {
    let mut text = format!(
        "  {:24} {:>14} {:>12} {:>8} {:>9} {:>8} {:>7}\n",
        "", "first segment", "after seek", "speed", "segments", "starts", "faults"
    );
    for (name, report) in reports {
        let first = |run: usize| {
            let time = report.runs.get(run).and_then(|run| run.first_servable);
            time.map_or_else(|| "–".to_owned(), |time| format!("{time:.2} s"))
        };
        // Media time by wall time of the first stretch, which runs from the start.
        let played: Vec<_> =
            report.segments.iter().filter(|s| s.run == 0 && s.number >= 0).collect();
        let speed = played.last().zip(report.runs.first()).map_or(0.0, |(last, run)| {
            played.len() as f64 * report.segment_seconds / (last.ready - run.started)
        });
        let segments = report.segments.iter().filter(|segment| segment.number >= 0).count();
        text.push_str(&format!(
            "  {name:24} {:>14} {:>12} {:>7.1}x {segments:>9} {:>8} {:>7}\n",
            first(0),
            first(1),
            speed,
            report.runs.len(),
            report.faults.len()
        ));
    }
    text
}

/// Decodes what the viewer got and says what it is.
fn check(session: &CommandLine) -> Result<String> {
    let mut names: Vec<(i64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&session.directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name
            .strip_prefix(&session.id)
            .and_then(|rest| rest.strip_suffix(&session.extension))
            .and_then(|number| number.parse().ok());
        names.extend(number.filter(|number| *number >= 0).map(|number| (number, path)));
    }
    names.sort();
    ensure!(!names.is_empty(), "no segments in {}", session.directory.display());
    // One by one: counters of two runs needn't fit together, players start anew at each seek.
    let mut kinds = String::new();
    for (number, path) in &names {
        let piece = session.directory.join("piece.tmp");
        let init = if session.has_init { fs::read(session.segment(-1))? } else { Vec::new() };
        fs::write(&piece, [init, fs::read(path)?].concat())?;
        let probe = Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "stream=codec_name,width,height,channels"])
            .args(["-of", "csv=p=0"])
            .arg(&piece)
            .output()
            .context("ffprobe is needed: apt install ffmpeg")?;
        let decode = Command::new("ffmpeg")
            .args(["-v", "error", "-xerror", "-i"])
            .arg(&piece)
            .args(["-f", "null", "-"])
            .stdin(Stdio::null())
            .output()?;
        fs::remove_file(&piece)?;
        let said = String::from_utf8_lossy(&decode.stderr);
        ensure!(decode.status.success(), "segment {number} doesn't decode: {said}");
        kinds = String::from_utf8(probe.stdout)?;
    }
    let mut streams: Vec<&str> = kinds
        .lines()
        .map(|line| line.trim_end_matches(','))
        .filter(|line| !line.is_empty())
        .collect();
    streams.sort_unstable();
    streams.dedup();
    Ok(format!("{} segments decode without error ({})", names.len(), streams.join("; ")))
}

/// A command line to try, with the gateway that it needs.
fn by_hand(stack: &Stack, clip: &Path, folder: &Path, binaries: &Path) -> Result<()> {
    let directory = folder.join("by-hand");
    fs::create_dir_all(&directory)?;
    let script = folder.join("try");
    let (name, endpoint) = stack.endpoint();
    let quoted: Vec<String> = command(clip, &directory, Container::Ts, HEIGHT)
        .at(0, f64::from(CLIP.seconds))
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
        .collect();
    let socket = endpoint.trim_start_matches("unix:");
    let text = format!(
        "#!/bin/sh\n# Starts a gateway, runs one of Jellyfin's commands through the hook (q stops \
         it), ends the gateway.\nRENDERGATE_SOCKET='{socket}' RENDERGATE_HTTP=127.0.0.1:9370 \
         '{}' serve &\nwhile ! [ -S '{socket}' ]; do sleep 0.1; done\n{name}='{endpoint}' '{}' \
         {}\nkill %1 2>/dev/null || kill $!\nls -l '{}'\n",
        binaries.join("rendergate").display(),
        stack.hook()?.display(),
        quoted.join(" "),
        directory.display()
    );
    fs::write(&script, text)?;
    let mut mode = fs::metadata(&script)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(&script, mode)?;
    println!(
        "\nTo try by hand (the script holds the whole command line):\n\n  {}",
        script.display()
    );
    Ok(())
}
