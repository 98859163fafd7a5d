//! A command out of Jellyfin's logs.
//!
//! The log of a transcode (`FFmpeg.Transcode-*.log`) has the string as it was started, on a line of
//! its own. The server's log quotes program and arguments, with a backslash in front of each quote
//! that was there:
//!
//! ```text
//! /usr/lib/jellyfin-ffmpeg/ffmpeg -analyzeduration 200M -i file:"/m/A B.mkv" ...
//! [12:00:00] [INF] [21] ...TranscodeManager: "/usr/lib/jellyfin-ffmpeg/ffmpeg" "-analyzeduration 200M -i file:\"/m/A B.mkv\" ..."
//! ```

use crate::split_command_line;

/// The first command of ffmpeg's in a log: the number of its line, counted from 1, and its words
/// without the program. `None` if no line looks like one.
pub fn logged_command(log: &str) -> Option<(usize, Vec<String>)> {
    log.lines().enumerate().find_map(|(index, line)| Some((index + 1, command(line.trim())?)))
}

fn command(line: &str) -> Option<Vec<String>> {
    if let Some((program, arguments)) = line.split_once("\" \"-") {
        let arguments = arguments.strip_suffix('"')?;
        let words = || split_command_line(&format!("-{}", arguments.replace("\\\"", "\"")));
        return names_ffmpeg(program).then(words);
    }
    if line.starts_with('-') {
        return format!(" {line}").contains(" -i ").then(|| split_command_line(line));
    }
    // The program's path may hold blanks; its name ends at the first option.
    let (program, arguments) = line.split_once(" -")?;
    let program = program.trim_matches('"');
    names_ffmpeg(program).then(|| split_command_line(&format!("-{arguments}")))
}

/// Whether a path's last part is ffmpeg's name, or its hook's.
fn names_ffmpeg(program: &str) -> bool {
    let name = program.rsplit(['/', '\\']).next().unwrap_or(program);
    matches!(name, "ffmpeg" | "ffmpeg.exe" | "rendergate-ffmpeg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_logs_give_the_command() {
        let words = ["-i", "file:/m/A B.mkv", "-vf", r"scale=min(iw\,1280):-2", "/t/a.m3u8"];
        let plain = r#"-i file:"/m/A B.mkv" -vf "scale=min(iw\,1280):-2" "/t/a.m3u8""#;
        let quoted = plain.replace('"', "\\\"");
        for (line, log) in [
            (1, format!("/usr/lib/jellyfin-ffmpeg/ffmpeg {plain}")),
            (1, plain.to_owned()),
            (1, format!("C:\\Program Files\\Jellyfin\\ffmpeg.exe {plain}")),
            (
                3,
                format!(
                    "{{\"Protocol\":0,\"Path\":\"/m/A B.mkv\"}}\n\n/opt/ffmpeg {plain}\n\nffmpeg version 7"
                ),
            ),
            (
                2,
                format!(
                    "[INF] Main: up\n[INF] TranscodeManager: \"/usr/bin/ffmpeg\" \"{quoted}\"\n"
                ),
            ),
        ] {
            assert_eq!(
                logged_command(&log),
                Some((line, words.map(str::to_owned).to_vec())),
                "{log}"
            );
        }
    }

    #[test]
    fn other_lines_are_no_command() {
        for log in [
            "",
            "ffmpeg version 7.0.2-Jellyfin Copyright (c) 2000-2024 the FFmpeg developers",
            "[INF] Main: Arguments: [\"/jellyfin/jellyfin.dll\", \"--ffmpeg\"]",
            "- a list - of things",
            "/usr/lib/jellyfin-ffmpeg/ffprobe -i /m/a.mkv",
        ] {
            assert_eq!(logged_command(log), None, "{log}");
        }
    }
}
