//! Sources made by ffmpeg, and their packets.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use ffmpeg_args::Container;
use hls::{Sample, Track, TrackFormat};

/// Runs ffmpeg quietly and gives its messages.
pub fn ffmpeg(dir: &Path, arguments: &[&str]) -> String {
    tool("ffmpeg", dir, &[&["-hide_banner", "-nostdin", "-y"], arguments].concat()).1
}

/// Runs ffprobe and gives its answer.
pub fn ffprobe(dir: &Path, arguments: &[&str]) -> String {
    tool("ffprobe", dir, &[&["-v", "error"], arguments].concat()).0
}

fn tool(name: &str, dir: &Path, arguments: &[&str]) -> (String, String) {
    let result = Command::new(name).current_dir(dir).args(arguments).output();
    let output = result.unwrap_or_else(|error| {
        panic!("{name} can't be run ({error}): install the Debian package `ffmpeg`")
    });
    let text = |data: Vec<u8>| String::from_utf8_lossy(&data).into_owned();
    let (answer, messages) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}:\n{messages}");
    (answer, messages)
}

/// A file of a few seconds, with keyframes every 3 s and one between.
pub struct Source {
    dir: tempfile::TempDir,
    rate: (u32, u32),
    video: Option<&'static str>,
    audio: &'static str,
}

/// The packets of a source from a point on.
pub struct Packets {
    /// In the order in which ffmpeg delivers them.
    pub samples: Vec<Sample>,
}

impl Source {
    /// Two B-frames, 8 s, at a rate such as `24000/1001`.
    pub fn h264(rate: &str, audio: &'static str) -> Self {
        Self::make(Some("h264"), rate, audio)
    }

    /// At 25 fps.
    pub fn hevc(audio: &'static str) -> Self {
        Self::make(Some("hevc"), "25", audio)
    }

    /// AAC without picture.
    pub fn sound() -> Self {
        Self::sound_of("aac")
    }

    /// Sound without picture.
    pub fn sound_of(audio: &'static str) -> Self {
        Self::make(None, "25", audio)
    }

    fn make(video: Option<&'static str>, rate: &str, audio: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut parts = rate.split('/').map(|part| part.parse().unwrap());
        let rate_parts = (parts.next().unwrap(), parts.next().unwrap_or(1));
        // Whole packets of Opus: what ends within one carries a mark that samples don't have here.
        let tone =
            format!("sine=f=440:r=48000:d={}", if audio == "libopus" { 7.9935 } else { 8.0 });
        let picture = format!("testsrc2=s=128x72:r={rate}:d=8");
        let mut arguments = vec!["-v", "error"];
        if video.is_some() {
            arguments.extend(["-f", "lavfi", "-i", &picture]);
        }
        arguments.extend(["-f", "lavfi", "-i", &tone, "-ac", "2"]);
        match video {
            Some("h264") => arguments.extend([
                "-c:v",
                "libx264",
                "-preset",
                "veryfast",
                "-x264-params",
                "bframes=2:b-adapt=0",
            ]),
            Some(_) => arguments.extend([
                "-c:v",
                "libx265",
                "-preset",
                "ultrafast",
                "-tag:v",
                "hvc1",
                "-x265-params",
                "log-level=error:bframes=2:b-adapt=0:open-gop=0",
            ]),
            None => {}
        }
        if video.is_some() {
            arguments.extend(["-pix_fmt", "yuv420p", "-sc_threshold", "0", "-g", "500"]);
            arguments.extend(["-force_key_frames", "0,3,4,6"]);
        }
        arguments.extend(["-c:a", audio, "-b:a", "128k", "-strict", "-2", "source.mp4"]);
        ffmpeg(dir.path(), &arguments);
        Self { dir, rate: rate_parts, video, audio }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("source.mp4")
    }

    fn copy(&self, start: &str) -> Vec<String> {
        let mut arguments = self.copy_from(start);
        arguments.extend(["-copyts", "-avoid_negative_ts", "disabled"].map(str::to_owned));
        arguments
    }

    fn copy_from(&self, start: &str) -> Vec<String> {
        let mut arguments: Vec<String> = ["-v", "error"].map(str::to_owned).to_vec();
        if start != "0" {
            arguments.extend(["-ss".into(), start.into()]);
        }
        arguments.extend(["-i".into(), self.path().to_str().unwrap().into()]);
        arguments.extend(["-c", "copy", "-map_metadata", "-1"].map(str::to_owned));
        if let Some(video) = self.video {
            arguments.extend(["-bsf:v".into(), format!("{video}_mp4toannexb")]);
        }
        arguments
    }

    /// Takes the file apart.
    pub fn packets(&self, dir: &Path, start: &str) -> Packets {
        let run = |maps: &[&str], format: &str, file: &str| {
            let mut arguments = self.copy(start);
            for map in maps {
                arguments.extend(["-map".to_owned(), (*map).to_owned()]);
            }
            arguments.extend(["-f", format, file].map(str::to_owned));
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            ffmpeg(dir, &arguments);
        };
        let kinds: &[&str] = if self.video.is_some() { &["0:v", "0:a"] } else { &["0:a"] };
        run(kinds, "framecrc", "packets.txt");
        let mut bytes = Vec::new();
        for kind in kinds {
            run(&[kind], "data", "packets.bin");
            bytes.push(Bytes::from(fs::read(dir.join("packets.bin")).unwrap()));
        }
        Packets { samples: read(&fs::read_to_string(dir.join("packets.txt")).unwrap(), &mut bytes) }
    }

    /// Lets ffmpeg write the segments, as Jellyfin asks for them.
    pub fn hls(&self, dir: &Path, start: &str, container: &Container) {
        let mut arguments = self.copy(start);
        let map = if self.video.is_some() { "-map 0:v -map 0:a" } else { "-map 0:a" };
        let mut rest = format!("{map} -f hls -max_delay 5000000 -hls_time 3 -start_number 0");
        rest.push_str(" -hls_playlist_type vod -hls_list_size 0");
        match container {
            Container::MpegTs => {
                rest.push_str(" -hls_segment_type mpegts -hls_segment_filename theirs/x%d.ts");
            }
            Container::Fmp4 { init, absolute, .. } => {
                let _ = write!(rest, " -hls_segment_type fmp4 -hls_fmp4_init_filename {init}");
                rest.push_str(" -hls_segment_filename theirs/x%d.mp4 -strict -2");
                if *absolute {
                    rest.push_str(" -hls_segment_options movflags=+frag_discont");
                }
            }
        }
        rest.push_str(" theirs/x.m3u8");
        arguments.extend(rest.split(' ').map(str::to_owned));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        ffmpeg(dir, &arguments);
    }

    /// Lets ffmpeg write one file, as Jellyfin asks for it.
    pub fn file(&self, dir: &Path, start: &str, copyts: bool, name: &str) {
        let mut arguments = if copyts { self.copy(start) } else { self.copy_from(start) };
        let maps: &[&str] = if self.video.is_some() { &["0:v", "0:a"] } else { &["0:a"] };
        for map in maps {
            arguments.extend(["-map".to_owned(), (*map).to_owned()]);
        }
        let flags = if self.video.is_some() { "frag_keyframe+" } else { "" };
        if name.ends_with(".mp4") || name.ends_with(".m4a") {
            let movflags = format!("{flags}empty_moov+delay_moov");
            arguments.extend(["-movflags", &movflags].map(str::to_owned));
        }
        arguments.extend(["-strict", "-2", name].map(str::to_owned));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        ffmpeg(dir, &arguments);
    }

    /// What the segmenter is told.
    pub fn tracks(&self) -> Vec<Track> {
        let (sample_rate, channels) = (48_000, 2);
        let (width, height, frame_rate) = (128, 72, self.rate);
        let audio = match self.audio {
            "aac" => TrackFormat::Aac {
                audio_specific_config: Bytes::from_static(&[0x11, 0x90, 0x56, 0xe5, 0x00]),
                sample_rate,
                channels,
            },
            "ac3" => TrackFormat::Ac3 { sample_rate, channels },
            "eac3" => TrackFormat::Eac3 { sample_rate, channels },
            "libmp3lame" => TrackFormat::Mp3 { sample_rate, channels },
            "libopus" => TrackFormat::Opus {
                opus_head: Bytes::from_static(b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0"),
                sample_rate,
                channels,
            },
            "flac" => {
                let path = self.path();
                let to =
                    ["-v", "error", "-i", path.to_str().unwrap(), "-vn", "-c", "copy", "s.flac"];
                ffmpeg(self.dir.path(), &to);
                let file = fs::read(self.dir.path().join("s.flac")).unwrap();
                let streaminfo = Bytes::copy_from_slice(&file[8..42]);
                TrackFormat::Flac { streaminfo, sample_rate, channels }
            }
            other => panic!("{other}"),
        };
        let video = match self.video {
            Some("h264") => Some(TrackFormat::H264 { width, height, frame_rate }),
            Some(_) => Some(TrackFormat::Hevc { width, height, frame_rate, tag: Some(*b"hvc1") }),
            None => None,
        };
        video.into_iter().chain([audio]).map(|format| Track { format }).collect()
    }
}

/// Reads `framecrc` lines (`stream, dts, pts, duration, size, crc[, F=flags]`) and cuts the bytes of
/// each stream accordingly. A keyframe has no flags column, or an odd value in it.
fn read(text: &str, bytes: &mut [Bytes]) -> Vec<Sample> {
    let mut bases: Vec<(i128, i128)> = Vec::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(base) = line.strip_prefix("#tb ") {
            let (_, ratio) = base.split_once(": ").unwrap();
            let (n, d) = ratio.split_once('/').unwrap();
            bases.push((n.parse().unwrap(), d.parse().unwrap()));
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        let number = |i: usize| fields[i].parse::<i128>().unwrap();
        let track = usize::try_from(number(0)).unwrap();
        let (n, d) = bases[track];
        // Cut off like the clocks of media frameworks, not rounded.
        let ns = |ticks: i128| i64::try_from(ticks * n * 1_000_000_000 / d).unwrap();
        samples.push(Sample {
            track,
            dts: ns(number(1)),
            pts: ns(number(2)),
            duration: u64::try_from(ns(number(3))).unwrap(),
            keyframe: fields
                .iter()
                .find_map(|field| field.strip_prefix("F=0x"))
                .is_none_or(|flags| u32::from_str_radix(flags, 16).unwrap() & 1 == 1),
            data: bytes[track].split_to(usize::try_from(number(4)).unwrap()),
        });
    }
    assert!(bytes.iter().all(Bytes::is_empty), "packets and bytes don't agree");
    samples
}
