//! Live TV and other inputs that come once: what the worker writes of a pipe against what ffmpeg
//! writes of the same bytes with Jellyfin's live command (contract 2.8).

mod support;

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use ffmpeg_args::{
    AudioAction, Delivery, Location, Network, Output as PlanOutput, PlaylistType, Transcode,
    VideoAction,
};
use session::Ending;
use support::output::{Output, Segment};
use support::sources::source;
use support::{Run, clip, gpu, plan};

const BASE: &str = "hls/abc/";
/// In ticks: where ffmpeg counts decoding times anew, it rounds.
const ROUNDING: u64 = 1;
/// The same of lengths in the playlist, in seconds: the last picture's is guessed.
const LENGTHS: f64 = 0.0005;
/// Pictures after which ffmpeg knows how far they are out of order.
const LEARNING: usize = 6;

/// What becomes of the streams.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Copy,
    CopyWithAac,
    Encode,
}

const KINDS: [Kind; 3] = [Kind::Copy, Kind::CopyWithAac, Kind::Encode];

impl Kind {
    fn words(self) -> String {
        let video = match self {
            Self::Copy | Self::CopyWithAac => "copy -start_at_zero".to_owned(),
            Self::Encode => "libx264 -preset veryfast -crf 23 -maxrate 4000000 -bufsize 8000000 \
                 -profile:v:0 high -level 41 \
                 -x264opts:0 subme=0:me_range=16:rc_lookahead=10:me=hex:open_gop=0 \
                 -force_key_frames:0 expr:gte(t,n_forced*3) -sc_threshold:v:0 0 \
                 -vf setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709,\
                 scale=1280:720:force_original_aspect_ratio=decrease,format=yuv420p"
                .to_owned(),
        };
        let audio = match self {
            Self::Copy => "copy",
            Self::CopyWithAac | Self::Encode => "aac -ac 2 -ab 128000",
        };
        format!("-codec:v:0 {video} -flags -global_header -codec:a:0 {audio}")
    }

    /// Times of packets in ticks of 90 kHz: presentation, decoding, and the size, as far as they can be
    /// equal. The parser spells the start codes of a picture its own way, and the encoder may put
    /// B-frames elsewhere.
    fn packets(self, segment: &Segment, video: bool) -> Vec<(i64, i64, u64)> {
        let copied = if video { self != Self::Encode } else { self == Self::Copy };
        let tick = |seconds: f64| (seconds * 90_000.0).round() as i64;
        // With +igndts ffmpeg counts decoding times anew, and learns from the first pictures how far
        // they are out of order; ours are those of the stream.
        let learning = if video && segment.name == "abc0.ts" { LEARNING } else { 0 };
        let packets = segment.of(video).enumerate().map(|(number, packet)| {
            let dts = if copied && number >= learning { tick(packet.dts) } else { 0 };
            (tick(packet.pts), dts, if copied && !video { packet.bytes } else { 0 })
        });
        let mut packets: Vec<_> = packets.collect();
        if !copied {
            packets.sort_unstable();
        }
        packets
    }

    fn plan(self, delivery: Delivery, directory: &Path) -> Transcode {
        let mut plan = plan(Path::new("nowhere"), directory);
        let url = "http://127.0.0.1:8096/LiveTv/LiveStreamFiles/abc/stream.ts".to_owned();
        plan.inputs[0].location = Location::Network(Network { url, options: Vec::new(), delivery });
        plan.start_at_zero = self != Self::Encode;
        if self != Self::Encode {
            plan.video.as_mut().unwrap().action = VideoAction::Copy;
        }
        if self == Self::Copy {
            plan.audio.as_mut().unwrap().action = AudioAction::Copy;
        }
        let PlanOutput::Hls(output) = &mut plan.output else { panic!("{:?}", plan.output) };
        output.playlist_type = PlaylistType::Event;
        output.base_url = BASE.into();
        plan
    }
}

/// A pipe through which these bytes come.
fn feed(bytes: Vec<u8>) -> OwnedFd {
    let (reader, mut writer) = std::io::pipe().unwrap();
    thread::spawn(move || {
        // A worker that has had enough goes away.
        let _ = writer.write_all(&bytes);
    });
    reader.into()
}

/// What ffmpeg makes of it.
fn reference(kind: Kind, bytes: &[u8], directory: &Path) {
    let out = directory.display();
    // A GPU's encoders make no B-frames, which would move ffmpeg's decoding times.
    let on_gpu = kind == Kind::Encode && gpu::under_test().is_some_and(gpu::TestGpu::encodes);
    let no_b_frames = if on_gpu { "-bf 0" } else { "" };
    let line = format!(
        "-nostdin -v error -analyzeduration 3000000 -fflags +igndts+genpts -f mpegts -i pipe:0 \
         -map_metadata -1 -map_chapters -1 -threads 0 -sn {} {no_b_frames} -copyts \
         -avoid_negative_ts disabled \
         -max_muxing_queue_size 2048 -f hls -max_delay 5000000 -hls_time 3 \
         -hls_segment_type mpegts -start_number 0 -hls_base_url {BASE} \
         -hls_segment_filename {out}/abc%d.ts -hls_playlist_type event -hls_list_size 0 \
         -y {out}/abc.m3u8",
        kind.words()
    );
    let mut child =
        Command::new("ffmpeg").args(line.split_whitespace()).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let feeder = thread::spawn(move || stdin.write_all(&bytes));
    assert!(child.wait().unwrap().success(), "{line}");
    let _ = feeder.join().unwrap();
}

/// Everything in which a directory of ours differs from ffmpeg's.
fn differences(kind: Kind, plan: &Transcode, ours: &Path, theirs: &Path) -> String {
    let (a, b) = (Output::read(ours, plan), Output::read(theirs, plan));
    let mut found = String::new();
    let mut differ = |what: String| found.push_str(&(what + "\n"));
    let names =
        |output: &Output| output.segments.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    if names(&a) != names(&b) {
        differ(format!("segments {:?}, ffmpeg {:?}", names(&a), names(&b)));
    }
    for (x, y) in a.segments.iter().zip(&b.segments) {
        for video in [true, false] {
            let (p, q) = (kind.packets(x, video), kind.packets(y, video));
            let what = if video { "pictures" } else { "sounds" };
            if p.len() != q.len() {
                differ(format!("{}: {} {what}, ffmpeg {}", x.name, p.len(), q.len()));
            }
            let apart = |p: &(i64, i64, u64), q: &(i64, i64, u64)| {
                p.0.abs_diff(q.0) > ROUNDING || p.1.abs_diff(q.1) > ROUNDING || p.2 != q.2
            };
            let off: Vec<_> =
                p.iter().zip(&q).enumerate().filter(|(_, (p, q))| apart(p, q)).collect();
            if let Some(first) = off.first() {
                differ(format!("{}: {} {what}, first {first:?}", x.name, off.len()));
            }
        }
    }
    let text = |directory: &Path| fs::read_to_string(directory.join("abc.m3u8")).unwrap();
    let (own, other) = (text(ours), text(theirs));
    if !alike(&own, &other) {
        differ(format!("{own}\nffmpeg\n{other}"));
    }
    if kind != Kind::Encode && pictures(&a.whole) != pictures(&b.whole) {
        differ("the pictures are others".into());
    }
    found
}

/// Whether two playlists are the same, but for the rounding of lengths.
fn alike(ours: &str, theirs: &str) -> bool {
    let length = |line: &str| line.strip_prefix("#EXTINF:")?.strip_suffix(',')?.parse::<f64>().ok();
    ours.lines().count() == theirs.lines().count()
        && ours.ends_with('\n')
        && ours.lines().zip(theirs.lines()).all(|(a, b)| match (length(a), length(b)) {
            (Some(a), Some(b)) => (a - b).abs() < LENGTHS,
            _ => a == b,
        })
}

/// Sums of all decoded pictures.
fn pictures(whole: &Path) -> String {
    let words = ["-nostdin", "-v", "fatal", "-i", whole.to_str().unwrap(), "-map", "0:v"];
    let sums = support::output::capture("ffmpeg", &[&words[..], &["-f", "framemd5", "-"]].concat());
    String::from_utf8(sums).unwrap()
}

/// Both write the same of these bytes.
#[track_caller]
fn check(kind: Kind, bytes: &[u8]) {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plan = kind.plan(Delivery::Bytes, ours.path());
    let report = Run::fed(&plan, vec![feed(bytes.to_vec())]).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    reference(kind, bytes, theirs.path());
    let differences = differences(kind, &plan, ours.path(), theirs.path());
    assert!(differences.is_empty(), "{kind:?}\n{differences}");
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(source(name)).unwrap()
}

/// Ten seconds of the clip whose timestamps run over 33 bits after six.
fn wrapping() -> Vec<u8> {
    let pal = source("pal.mkv");
    let words = format!("-i {} -c copy -copyts -muxdelay 0 -output_ts_offset 95437", pal.display());
    fs::read(clip("wrapping.ts", &words)).unwrap()
}

#[test]
fn from_the_beginning() {
    KINDS.iter().for_each(|kind| check(*kind, &bytes("pal.ts")));
}

/// Whoever switches on comes in the middle of a packet, of a picture and of a group of pictures.
#[test]
fn from_anywhere() {
    let whole = bytes("pal.ts");
    for kind in KINDS {
        for from in [500_000, 731_234] {
            check(kind, &whole[from..]);
        }
    }
}

#[test]
fn other_sources() {
    check(Kind::CopyWithAac, &bytes("film.ts"));
    check(Kind::CopyWithAac, &bytes("surround.ts"));
    check(Kind::Copy, &bytes("late.ts"));
    check(Kind::Copy, &bytes("opengop.ts")[300_000..]);
}

/// ffmpeg lets encoded pictures begin at the leap, since all before have negative times.
#[test]
fn timestamps_run_over() {
    check(Kind::Copy, &wrapping());
    check(Kind::CopyWithAac, &wrapping());
    let lengths = |bytes: Vec<u8>| {
        let directory = tempfile::tempdir().unwrap();
        let plan = Kind::Encode.plan(Delivery::Bytes, directory.path());
        let report = Run::fed(&plan, vec![feed(bytes)]).finish();
        assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
        fs::read_to_string(directory.path().join("abc.m3u8")).unwrap()
    };
    let (over, plain) = (lengths(wrapping()), lengths(bytes("pal.ts")));
    assert!(alike(&over, &plain), "{over}\n{plain}");
}
