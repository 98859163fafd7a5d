//! What a run wrote, as ffprobe and ffmpeg see it.

use std::path::{Path, PathBuf};
use std::process::Command;

use ffmpeg_args::{Container, Transcode};

use crate::reference::said;

/// A packet of a segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// Picture, not sound.
    pub video: bool,
    /// Presentation time in seconds.
    pub pts: f64,
    /// Decoding time in seconds.
    pub dts: f64,
    /// Size in bytes.
    pub bytes: u64,
    /// A keyframe.
    pub key: bool,
}

/// A segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Of the file.
    pub name: String,
    /// In the order in which they lie there.
    pub packets: Vec<Packet>,
}

impl Segment {
    /// Packets of picture or sound.
    pub fn of(&self, video: bool) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(move |packet| packet.video == video)
    }

    /// Earliest presentation time of picture or sound.
    pub fn first_pts(&self, video: bool) -> Option<f64> {
        self.of(video).map(|packet| packet.pts).min_by(f64::total_cmp)
    }
}

/// All segments of a run.
#[derive(Debug)]
pub struct Output {
    /// In order.
    pub segments: Vec<Segment>,
    /// All of it in one file.
    pub whole: PathBuf,
    /// Of fragmented MP4.
    pub init: Option<Vec<u8>>,
    /// The shape of pixels and the colours, as [`looks`] has them.
    pub looks: (f64, String),
}

impl Output {
    /// Reads a directory that the plan's output went to.
    ///
    /// # Panics
    /// If it can't be read, or ffprobe fails.
    pub fn read(directory: &Path, plan: &Transcode) -> Self {
        let output = &plan.output;
        let output = output.hls().expect("segments");
        let init = match &output.container {
            Container::Fmp4 { init, .. } => Some(std::fs::read(directory.join(init)).unwrap()),
            Container::MpegTs => None,
        };
        let mut names: Vec<(u64, String)> = std::fs::read_dir(directory)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter_map(|name| Some((output.segment_number(&name)?, name)))
            .collect();
        names.sort();
        let whole = directory.join("whole.bin");
        let mut bytes = init.clone().unwrap_or_default();
        let mut ends = Vec::new();
        for (_, name) in &names {
            bytes.extend(std::fs::read(directory.join(name)).unwrap());
            ends.push(bytes.len() as u64);
        }
        // Another test may be reading it: ffmpeg's is kept.
        if std::fs::read(&whole).ok().as_ref() != Some(&bytes) {
            std::fs::write(&whole, bytes).unwrap();
        }
        let mut segments: Vec<Segment> =
            names.into_iter().map(|(_, name)| Segment { packets: Vec::new(), name }).collect();
        let (packets, looks) = packets(&whole);
        for (packet, position) in packets {
            let number = ends.partition_point(|end| *end <= position);
            segments[number.min(ends.len() - 1)].packets.push(packet);
        }
        Self { segments, whole, init, looks }
    }

    /// How many packets of picture or sound there are.
    pub fn count(&self, video: bool) -> usize {
        self.segments.iter().map(|segment| segment.of(video).count()).sum()
    }

    /// Earliest presentation time of picture or sound.
    pub fn first_pts(&self, video: bool) -> Option<f64> {
        self.segments.iter().find_map(|segment| segment.first_pts(video))
    }

    /// The picture's NAL units with their types, one list per picture, in decoding order.
    ///
    /// # Panics
    /// If ffmpeg fails.
    pub fn pictures(&self, hevc: bool) -> Vec<Vec<(u8, Vec<u8>)>> {
        let format = if hevc { "hevc" } else { "h264" };
        let whole = self.whole.to_str().unwrap();
        let arguments = [
            "-v", "fatal", "-nostdin", "-i", whole, "-map", "0:v", "-c", "copy", "-f", format,
            "pipe:1",
        ];
        let data = said("ffmpeg", &arguments, &self.whole);
        let mut pictures: Vec<Vec<(u8, Vec<u8>)>> = Vec::new();
        let mut sliced = true;
        for unit in split_units(&data) {
            let kind = if hevc { unit[0] >> 1 & 0x3f } else { unit[0] & 0x1f };
            let slice = if hevc { kind < 32 } else { matches!(kind, 1..=5) };
            // The first bit of a slice says that it is its picture's first.
            let opens = !slice || unit.get(if hevc { 2 } else { 1 }).is_some_and(|b| b & 0x80 > 0);
            let trailing =
                if hevc { matches!(kind, 40 | 36 | 37) } else { matches!(kind, 10..=12) };
            if sliced && opens && !trailing {
                pictures.push(Vec::new());
                sliced = false;
            }
            sliced |= slice;
            if let Some(picture) = pictures.last_mut() {
                picture.push((kind, unit.to_vec()));
            }
        }
        pictures
    }
}

/// Runs a program for its standard output.
///
/// # Panics
/// If it fails.
pub fn capture(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Packets and where in the file they lie; and how its picture looks.
fn packets(whole: &Path) -> (Vec<(Packet, u64)>, (f64, String)) {
    let entries = format!("packet=codec_type,pts_time,dts_time,size,pos,flags:{LOOKS}");
    let path = whole.to_str().unwrap();
    let arguments = ["-v", "fatal", "-show_entries", &entries, "-of", "csv", path];
    let text = String::from_utf8(said("ffprobe", &arguments, whole)).unwrap();
    // Of several frames of sound in one packet of MPEG-TS only the first has a position.
    let mut last = [0, 0];
    let packets = text.lines().filter_map(|line| {
        let mut fields = line.strip_prefix("packet,")?.split(',');
        let kind = fields.next()?;
        let pts: f64 = fields.next()?.parse().ok()?;
        let dts = fields.next()?.parse().unwrap_or(pts);
        let bytes = fields.next()?.parse().ok()?;
        let last = &mut last[usize::from(kind == "video")];
        let position = fields.next()?.parse().unwrap_or(*last);
        *last = position;
        let key = fields.next()?.starts_with('K');
        Some((Packet { video: kind == "video", pts, dts, bytes, key }, position))
    });
    (packets.collect(), looks_in(&text))
}

fn split_units(data: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = (0..data.len().saturating_sub(3))
        .filter(|at| data[*at..].starts_with(&[0, 0, 1]))
        .map(|at| at + 3)
        .collect();
    let ends = starts.iter().skip(1).map(|start| start - 3).chain([data.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let unit = &data[*start..end];
            let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
            &unit[..unit.len() - zeros]
        })
        .filter(|unit| !unit.is_empty())
        .collect()
}

/// x264's own account of its settings, from the first picture's units.
pub fn encoder_settings(units: &[(u8, Vec<u8>)]) -> Option<String> {
    let unit = units.iter().find_map(|(_, unit)| {
        let at = unit.windows(9).position(|window| window == b"options: ")?;
        Some(unit[at + 9..].to_vec())
    })?;
    let end = unit.iter().position(|byte| *byte == 0 || *byte >= 0x80).unwrap_or(unit.len());
    Some(String::from_utf8_lossy(&unit[..end]).into_owned())
}

/// What ffprobe is asked of a stream's looks.
const LOOKS: &str =
    "stream=codec_type,sample_aspect_ratio,color_space,color_transfer,color_primaries";

/// The shape of pixels, width by height, and primaries, transfer and matrix as ffprobe names them.
///
/// # Panics
/// If ffprobe fails.
pub fn looks(whole: &Path) -> (f64, String) {
    let arguments = ["-v", "error", "-show_entries", LOOKS, "-of", "csv", whole.to_str().unwrap()];
    looks_in(&String::from_utf8(said("ffprobe", &arguments, whole)).unwrap())
}

/// The same from what ffprobe has said.
fn looks_in(text: &str) -> (f64, String) {
    let video = text.lines().find_map(|line| line.split_once("stream,video,"));
    let fields: Vec<&str> = video.iter().flat_map(|(_, fields)| fields.split(',')).collect();
    let field = |number: usize| fields.get(number).copied().unwrap_or("N/A");
    let shape = field(0)
        .split_once(':')
        .and_then(|(width, height)| Some(width.parse::<f64>().ok()? / height.parse::<f64>().ok()?));
    (shape.unwrap_or(1.0), [field(3), field(2), field(1)].join(" "))
}

/// Structural similarity of the worst and the average picture, frame by frame in order, and how many
/// there were.
///
/// # Panics
/// If ffmpeg fails.
pub fn ssim(ours: &Path, theirs: &Path, directory: &Path) -> (f64, f64, usize) {
    ssim_to(ours, theirs, "null", directory)
}

/// The same after a filter of ffmpeg's on `theirs`.
///
/// # Panics
/// If ffmpeg fails.
pub fn ssim_to(ours: &Path, theirs: &Path, filter: &str, directory: &Path) -> (f64, f64, usize) {
    let stats = directory.join("ssim.txt");
    let graph = format!(
        "[0:v:0]settb=1/1000,setpts=N*40[a];[1:v:0]{filter},settb=1/1000,setpts=N*40[b];\
         [a][b]ssim=stats_file={}:shortest=1",
        stats.display()
    );
    let (ours, theirs) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    let inputs = ["-v", "fatal", "-nostdin", "-fflags", "+igndts", "-i", ours, "-i", theirs];
    let output = ["-lavfi", &graph, "-an", "-f", "null", "-"];
    capture("ffmpeg", &[&inputs[..], &output].concat());
    let text = std::fs::read_to_string(stats).unwrap();
    let all: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split("All:").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    let worst = all.iter().copied().fold(1.0, f64::min);
    (worst, all.iter().sum::<f64>() / all.len().max(1) as f64, all.len())
}

/// Rate of the sound that is compared, Hz.
pub const PCM_RATE: f64 = 8_000.0;

/// All sound as mono samples, [`PCM_RATE`] of them a second.
///
/// # Panics
/// If ffmpeg fails.
pub fn pcm(path: &Path) -> Vec<f32> {
    decoded(path, &["-ar", &PCM_RATE.to_string()])
}

/// All sound as mono samples, as many a second as it has.
///
/// # Panics
/// If ffmpeg fails.
pub fn samples(path: &Path) -> Vec<f32> {
    decoded(path, &[])
}

fn decoded(path: &Path, rate: &[&str]) -> Vec<f32> {
    let input = ["-v", "fatal", "-nostdin", "-i", path.to_str().unwrap(), "-map", "0:a:0"];
    let output = ["-ac", "1", "-f", "s16le", "pipe:1"];
    let data = said("ffmpeg", &[&input[..], rate, &output].concat(), path);
    data.chunks_exact(2).map(|bytes| f32::from(i16::from_le_bytes([bytes[0], bytes[1]]))).collect()
}

/// By how many seconds the content of `ours` comes later than that of `theirs`, counted from the
/// first sample of each; `None` if they have nothing in common.
pub fn lag(ours: &[f32], theirs: &[f32]) -> Option<f64> {
    let span = (PCM_RATE * 0.1) as usize;
    let window = (PCM_RATE * 0.5) as usize;
    let needed = 2 * span + window;
    // Not the very beginning: decoders differ in what they do with an encoder's lead-in.
    let skip = needed.min(ours.len().min(theirs.len()).saturating_sub(needed));
    let (ours, theirs) = (ours.get(skip..skip + needed)?, theirs.get(skip..skip + needed)?);
    let reference = &theirs[span..span + window];
    let energy = |slice: &[f32]| slice.iter().map(|v| v * v).sum::<f32>();
    let own = energy(reference);
    let (best, shift) = (0..=2 * span)
        .map(|shift| {
            let slice = &ours[shift..shift + window];
            let mut product = 0.0;
            for n in 0..window {
                product += slice[n] * reference[n];
            }
            (product / (own * energy(slice)).sqrt().max(1.0), shift)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best > 0.5).then_some((shift as f64 - span as f64) / PCM_RATE)
}
