//! The real ffmpeg and ffprobe: where they are, becoming them, and having one read an input.
//!
//! Invariants:
//! - The hook never executes itself: a candidate with the device and inode of the running binary
//!   is passed over. A copy of the hook or a script that leads back to it is met a second time at
//!   most: the paths tried are handed on in [`TRIED`], which is passed over too, so that every
//!   round has fewer candidates than the one before.
//! - Arguments are handed on byte by byte, empty ones too.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Child;

use rustix::fs::Access;

use crate::console;
use crate::process;

/// Paths that hooks further up have executed in this process or above it, separated by colons.
pub const TRIED: &str = "RENDERGATE_TRIED";
/// Where the packages of Jellyfin's own ffmpeg put it.
const JELLYFIN_FFMPEG: &str = "/usr/lib/jellyfin-ffmpeg";
/// As a shell says "command not found".
pub const NOT_FOUND: i32 = 127;

/// What the hook is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Anything that isn't ffprobe.
    Ffmpeg,
    /// Called by a name that begins with `ffprobe` (contract 1.1: the name beside ffmpeg's).
    Ffprobe,
}

impl Tool {
    /// By the name that the process was called with.
    pub fn named(argv0: &OsStr) -> Self {
        let name = Path::new(argv0).file_name().unwrap_or(argv0);
        if name.as_bytes().starts_with(b"ffprobe") { Self::Ffprobe } else { Self::Ffmpeg }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ffmpeg => "ffmpeg",
            Self::Ffprobe => "ffprobe",
        }
    }

    /// The variable that names the real one.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Ffmpeg => "RENDERGATE_FFMPEG",
            Self::Ffprobe => "RENDERGATE_FFPROBE",
        }
    }
}

/// Where to look, in order: the variable, beside the real ffmpeg if that is named (ffprobe only),
/// Jellyfin's package, PATH.
pub fn candidates(
    tool: Tool,
    environment: impl Fn(&str) -> Option<OsString>,
) -> impl Iterator<Item = PathBuf> {
    let get = |name: &str| environment(name).filter(|value| !value.is_empty());
    let beside = match tool {
        Tool::Ffmpeg => None,
        Tool::Ffprobe => get(Tool::Ffmpeg.variable())
            .map(PathBuf::from)
            .and_then(|path| path.parent().map(|dir| dir.join(tool.name()))),
    };
    let search = get("PATH").unwrap_or_default();
    // An empty entry means the current directory to a shell; a server shall not run what lies there.
    let path: Vec<PathBuf> = std::env::split_paths(&search)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(tool.name()))
        .collect();
    get(tool.variable())
        .map(PathBuf::from)
        .into_iter()
        .chain(beside)
        .chain([Path::new(JELLYFIN_FFMPEG).join(tool.name())])
        .chain(path)
}

/// Whether an earlier hook of this process tree has executed what led here: its decision stands.
pub fn came_from_a_hook() -> bool {
    std::env::var_os(TRIED).is_some_and(|tried| !tried.is_empty())
}

/// Becomes the real program, saying why on stderr unless `reason` is `None`. Returns an exit code
/// if there is none that can be executed.
pub fn execute(tool: Tool, arguments: &[OsString], reason: Option<&str>) -> i32 {
    let own = fs::metadata("/proc/self/exe").ok().map(|meta| (meta.dev(), meta.ino()));
    let tried = std::env::var_os(TRIED).unwrap_or_default();
    let mut looked_for = Vec::new();
    for path in candidates(tool, |name| std::env::var_os(name)) {
        if let Err(problem) = usable(&path, own, &tried) {
            looked_for.push(format!("{} ({problem})", path.display()));
            continue;
        }
        if let Some(reason) = reason {
            console::say(&format!("rendergate: {reason}; running {}", path.display()));
        }
        let mut now_tried = tried.clone();
        if !now_tried.is_empty() {
            now_tried.push(":");
        }
        now_tried.push(&path);
        let error = process::execute(&path, arguments, (TRIED, &now_tried));
        looked_for.push(format!("{} ({error})", path.display()));
    }
    looked_for.dedup();
    console::say(&format!(
        "rendergate: no real {} found: looked for {}; set {} to its path",
        tool.name(),
        looked_for.join(", "),
        tool.variable(),
    ));
    NOT_FOUND
}

/// Starts the real ffmpeg beside this process, with `output` as its stdout.
///
/// # Errors
/// `NotFound` if there is none, else why it can't be started.
pub fn start(arguments: &[OsString], output: OwnedFd) -> io::Result<Child> {
    let own = fs::metadata("/proc/self/exe").ok().map(|meta| (meta.dev(), meta.ino()));
    let tried = std::env::var_os(TRIED).unwrap_or_default();
    let path = candidates(Tool::Ffmpeg, |name| std::env::var_os(name))
        .find(|path| usable(path, own, &tried).is_ok())
        .ok_or(io::ErrorKind::NotFound)?;
    // As for `execute`: a script that leads back to this hook shall find out.
    process::start(&path, arguments, (TRIED, path.as_os_str()), output)
}

fn usable(path: &Path, own: Option<(u64, u64)>, tried: &OsStr) -> Result<(), String> {
    let meta = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "not there".to_owned(),
        _ => error.to_string(),
    })?;
    if !meta.is_file() {
        return Err("not a file".to_owned());
    }
    if own == Some((meta.dev(), meta.ino())) {
        return Err("this hook itself".to_owned());
    }
    if std::env::split_paths(tried).any(|earlier| earlier == path) {
        return Err("leads back to this hook".to_owned());
    }
    rustix::fs::access(path, Access::EXEC_OK).map_err(|_| "not executable".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tool: Tool, environment: &[(&str, &str)], expect: &[&str]) {
        let found: Vec<_> = candidates(tool, |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
        .collect();
        assert_eq!(found, expect.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn variable_comes_first_then_package_then_path() {
        let jellyfin = "/usr/lib/jellyfin-ffmpeg/ffmpeg";
        check(Tool::Ffmpeg, &[], &[jellyfin]);
        check(Tool::Ffmpeg, &[("RENDERGATE_FFMPEG", "")], &[jellyfin]);
        check(
            Tool::Ffmpeg,
            &[("RENDERGATE_FFMPEG", "/x/f"), ("PATH", "/a:::.:b:/c")],
            &["/x/f", jellyfin, "/a/ffmpeg", "/c/ffmpeg"],
        );
    }

    #[test]
    fn ffprobe_is_also_looked_for_beside_a_named_ffmpeg() {
        let jellyfin = "/usr/lib/jellyfin-ffmpeg/ffprobe";
        check(Tool::Ffprobe, &[("RENDERGATE_FFMPEG", "/x/f")], &["/x/ffprobe", jellyfin]);
        check(
            Tool::Ffprobe,
            &[("RENDERGATE_FFMPEG", "/x/f"), ("RENDERGATE_FFPROBE", "/y/p")],
            &["/y/p", "/x/ffprobe", jellyfin],
        );
    }

    #[test]
    fn name_decides_the_tool() {
        for (name, tool) in [
            ("ffmpeg", Tool::Ffmpeg),
            ("/opt/ffprobe", Tool::Ffprobe),
            ("ffprobe.sh", Tool::Ffprobe),
            ("/opt/ffprobe/ffmpeg", Tool::Ffmpeg),
            ("rendergate-ffmpeg", Tool::Ffmpeg),
            ("", Tool::Ffmpeg),
        ] {
            assert_eq!(Tool::named(OsStr::new(name)), tool, "{name}");
        }
    }

    #[test]
    fn a_path_tried_before_and_the_hook_itself_are_passed_over() {
        let shell = Path::new("/bin/sh");
        assert_eq!(usable(shell, None, OsStr::new("")), Ok(()));
        let own = fs::metadata(shell).map(|meta| (meta.dev(), meta.ino())).unwrap();
        assert!(usable(shell, Some(own), OsStr::new("")).unwrap_err().contains("itself"));
        assert!(usable(shell, None, OsStr::new("/a:/bin/sh")).unwrap_err().contains("back"));
        assert!(usable(Path::new("/etc/passwd"), None, OsStr::new("")).is_err());
        assert!(usable(Path::new("/"), None, OsStr::new("")).is_err());
    }
}
