//! A progressive job: one file, sent to a client while it grows (contract 2.6, 2.7 and 4,
//! `ProgressiveFileStream`).
//!
//! Jellyfin waits for the file as for a segment, opens it, and sends on what it reads; at its end it
//! looks again after 50 ms, until the process has ended. What has been sent can't be taken back, so a
//! writer that goes back has written for nobody.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::job::{Exit, Job};
use crate::let_pass;
use crate::report::{Fault, FaultKind};

/// Jellyfin's poll for the file.
const POLL: Duration = Duration::from_millis(100);
/// Its poll at the end of what there is.
const AT_END: Duration = Duration::from_millis(50);

/// Jellyfin's command for a file: picture by x264, sound by AAC, or copies of both.
#[derive(Debug, Clone)]
pub struct Download {
    /// The media.
    pub input: PathBuf,
    /// The file to be. Its name decides about the container.
    pub output: PathBuf,
    /// `-ss` in seconds.
    pub start: Option<f64>,
    /// `-copyts -avoid_negative_ts disabled`.
    pub source_times: bool,
    /// Copy instead of encoding.
    pub copy: bool,
}

impl Download {
    /// The arguments, as Jellyfin's template has them.
    pub fn arguments(&self) -> Vec<String> {
        let mut line = String::from("-analyzeduration 200M -probesize 1G");
        if let Some(start) = self.start {
            let (whole, part) = (start as u64, start.fract());
            let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, (whole % 60) as f64);
            line += &format!(" -ss {hours:02}:{minutes:02}:{:06.3}", seconds + part);
        }
        if self.copy {
            line += " -fflags +genpts";
        }
        line += " -i INPUT -map 0:0 -map 0:1 -map -0:s -codec:v:0";
        let times = if self.source_times { " -copyts -avoid_negative_ts disabled" } else { "" };
        if self.copy {
            line += &format!(" copy{times}");
        } else {
            line += " libx264 -force_key_frames expr:gte(t,n_forced*5) -vf FILTER";
            line += &format!("{times} -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000");
            line += " -profile:v:0 high -level 41";
            line += " -x264opts:0 subme=0:me_range=16:rc_lookahead=10:me=hex:open_gop=0";
        }
        line += " -map_metadata -1 -map_chapters -1 -threads 0 -codec:a:0";
        line += if self.copy { " copy" } else { " aac -ac 2 -ab 128000" };
        if self.output.extension().is_some_and(|extension| extension == "mp4") {
            line += " -f mp4 -movflags frag_keyframe+empty_moov+delay_moov";
        }
        line += " -y OUTPUT";
        let filter = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,\
                      scale=trunc(min(max(iw\\,ih*a)\\,min(1280\\,720*a))/2)*2:\
                      trunc(min(max(iw/a\\,ih)\\,min(1280/a\\,720))/2)*2,format=yuv420p";
        let word = |word: &str| match word {
            "INPUT" => format!("file:{}", self.input.display()),
            "OUTPUT" => self.output.display().to_string(),
            "FILTER" => filter.to_owned(),
            word => word.to_owned(),
        };
        line.split_whitespace().map(word).collect()
    }
}

/// What a client got.
#[derive(Debug, Clone)]
pub struct Received {
    /// All of it.
    pub bytes: Vec<u8>,
    /// From the start of the process to the first byte, in seconds.
    pub first_byte: f64,
    /// How the process ended.
    pub exit: Exit,
    /// What the client got isn't what stands in the file: the writer went back.
    pub rewritten: bool,
}

/// Waits for the file and reads it until the process has ended. `on_bytes` is told how many there are
/// so far, whenever there are more, and may stop the job.
///
/// # Errors
/// What Jellyfin would answer with an error, or its client trip over.
pub fn follow(
    job: &mut Job,
    path: &Path,
    patience: Duration,
    mut on_bytes: impl FnMut(&mut Job, usize),
) -> Result<Received, Fault> {
    let begun = Instant::now();
    let fault = |kind, text: String| {
        Err(Fault { kind, at: begun.elapsed().as_secs_f64(), segment: None, text })
    };
    while !path.exists() {
        if let Some(exit) = job.exit() {
            return fault(FaultKind::StartFailed, format!("ended without the file: {exit:?}"));
        }
        if begun.elapsed() > patience {
            return fault(FaultKind::TimedOut, "no file".to_owned());
        }
        let_pass(POLL);
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.ino(), file)));
    let (inode, mut file) = match opened {
        Ok(opened) => opened,
        Err(error) => return fault(FaultKind::Missing, error.to_string()),
    };
    let (mut bytes, mut first_byte) = (Vec::new(), None);
    let mut news = Instant::now();
    let exit = loop {
        // Before the read: what it wrote last must not be missed.
        let exit = job.exit();
        match more(&mut file, &mut bytes) {
            Err(error) => return fault(FaultKind::Missing, error.to_string()),
            Ok(0) => {
                if let Some(exit) = exit {
                    break exit;
                }
                if news.elapsed() > patience {
                    return fault(FaultKind::TimedOut, format!("nothing after {}", bytes.len()));
                }
                let_pass(AT_END);
            }
            Ok(_) => {
                news = Instant::now();
                first_byte.get_or_insert_with(|| job.started.elapsed().as_secs_f64());
                on_bytes(job, bytes.len());
            }
        }
        let length = file.metadata().map_or(0, |meta| meta.len());
        if length < bytes.len() as u64 {
            return fault(FaultKind::Changed, format!("cut to {length} bytes"));
        }
    };
    if fs::metadata(path).map(|meta| meta.ino()).ok() != Some(inode) {
        return fault(FaultKind::Changed, "another file stands there".to_owned());
    }
    let rewritten = fs::read(path).ok().as_ref() != Some(&bytes);
    Ok(Received { bytes, first_byte: first_byte.unwrap_or(f64::INFINITY), exit, rewritten })
}

/// Reads what there is.
fn more(file: &mut File, bytes: &mut Vec<u8>) -> io::Result<usize> {
    file.read_to_end(bytes)
}
