//! Short clips of every shape that libraries hold, made by ffmpeg once.

use std::path::PathBuf;

use super::clip;

/// Length of a clip in seconds, more than four segments.
const SECONDS: &str = "13";
const X264: &str = "-c:v libx264 -preset superfast -bf 2 -g 50 -pix_fmt yuv420p";
const AAC: &str = "-c:a aac -ac 2 -b:a 128k";

/// Moving test picture at a rate.
fn picture(rate: &str) -> String {
    format!("-f lavfi -i testsrc2=s=426x240:r={rate}:d={SECONDS}")
}

/// Noise, in which a shift can be measured.
fn sound(seed: u32) -> String {
    format!("-f lavfi -i anoisesrc=c=pink:seed={seed}:r=48000:a=0.1:d={SECONDS}")
}

fn plain(name: &str, rate: &str, rest: &str) -> PathBuf {
    clip(name, &format!("{} {} {X264} {AAC} {rest}", picture(rate), sound(7)))
}

/// The clip of this name.
pub fn source(name: &str) -> PathBuf {
    let x265 = "-c:v libx265 -preset ultrafast -x265-params log-level=error:keyint=50";
    let passthrough = "-vsync passthrough -enc_time_base 1/90000";
    match name {
        "film.mkv" | "film.mp4" | "film.ts" => plain(name, "24000/1001", ""),
        "pal.mkv" | "pal.mp4" | "pal.ts" => plain(name, "25", ""),
        // Two sampling rates, without bands that the decoder fills with noise of its own.
        "disc44.mkv" | "disc44.mp4" | "disc44.ts" => plain(name, "25", "-aac_pns 0 -ar 44100"),
        "disc48.mkv" | "disc48.mp4" | "disc48.ts" => plain(name, "25", "-aac_pns 0"),
        "ntsc.mkv" | "ntsc.mp4" => plain(name, "30000/1001", ""),
        "fifty.mkv" | "fifty.ts" => plain(name, "50", ""),
        "sixty.mkv" | "sixty.mp4" => plain(name, "60", ""),
        "dropped.mkv" | "dropped.mp4" => {
            plain(name, "30", &format!("-vf select=mod(n\\,5)-2 {passthrough}"))
        }
        "jitter.mkv" | "jitter.mp4" => {
            plain(name, "30", &format!("-vf setpts=(N+0.4*sin(N))/30/TB {passthrough}"))
        }
        "hole.mkv" | "hole.mp4" => {
            plain(name, "25", &format!("-vf select=not(between(t\\,4.1\\,5.5)) {passthrough}"))
        }
        "switch.mkv" | "switch.mp4" => clip(
            name,
            &format!(
                "-f lavfi -i testsrc2=s=426x240:r=24:d=6 -f lavfi -i testsrc2=s=426x240:r=30:d=7 \
                 {} -filter_complex [0][1]concat=n=2:v=1 -map 2:a {X264} {AAC} {passthrough}",
                sound(7)
            ),
        ),
        "pq.mkv" => clip(
            name,
            &format!(
                "{} {} -c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -color_primaries bt2020 \
                 -color_trc smpte2084 -colorspace bt2020nc -x265-params log-level=error:keyint=50:\
                 repeat-headers=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:hdr-opt=1:\
                 max-cll=1000,400 {AAC}",
                picture("25"),
                sound(7)
            ),
        ),
        "turned90.mp4" | "turned180.mp4" | "turned270.mp4" => {
            let degrees = name.trim_start_matches("turned").trim_end_matches(".mp4");
            let film = source("film.mp4");
            clip(name, &format!("-i {} -c copy -metadata:s:v rotate={degrees}", film.display()))
        }
        "late.mkv" | "late.mp4" | "late.ts" => plain(name, "25", "-output_ts_offset 5"),
        "opengop.mkv" | "opengop.ts" | "opengop.mp4" => plain(
            name,
            "24000/1001",
            "-x264opts open_gop=1:bframes=3:keyint=48:min-keyint=48:scenecut=0",
        ),
        "edit.mp4" => {
            let whole = source("pal.mp4");
            clip(name, &format!("-ss 0.7 -i {} -c copy", whole.display()))
        }
        "interlaced.ts" | "interlaced.mkv" => plain(
            name,
            "50",
            "-vf tinterlace=interleave_top,fieldorder=tff -flags +ilme+ildct -x264opts tff=1",
        ),
        "wide.mkv" => plain(name, "25", "-vf scale=360:288,setsar=64/45"),
        "hevc.mkv" | "hevc.mp4" => {
            clip(name, &format!("{} {} {x265} {AAC}", picture("24000/1001"), sound(7)))
        }
        "hevc10.mkv" => {
            clip(name, &format!("{} {} {x265} -pix_fmt yuv420p10le {AAC}", picture("25"), sound(7)))
        }
        "vp9.webm" => clip(
            name,
            &format!(
                "{} {} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 1M -g 50 -c:a libopus",
                picture("30"),
                sound(7)
            ),
        ),
        "mpeg2.ts" | "mpeg2.mkv" => clip(
            name,
            &format!("{} {} -c:v mpeg2video -b:v 4M -bf 2 -g 12 -c:a mp2", picture("25"), sound(7)),
        ),
        "surround.mkv" | "surround.mp4" | "surround.ts" => {
            let pan = "-af pan=5.1|FL=c0|FR=0.5*c0|FC=0.3*c0|LFE=0.1*c0|BL=0.1*c0|BR=0.1*c0";
            clip(
                name,
                &format!("{} {} {X264} {pan} -c:a ac3 -b:a 384k", picture("24000/1001"), sound(7)),
            )
        }
        "primed.mkv" => primed(),
        "tracks.mkv" | "tracks.mp4" | "tracks.ts" => tracks(name),
        "silent.mkv" => clip(name, &format!("{} {X264}", picture("25"))),
        "voice.ac3" => clip(name, &format!("{} -ac 2 -c:a ac3 -b:a 192k", sound(9))),
        "voice.mka" => clip(name, &format!("{} -ac 2 -c:a ac3 -b:a 192k", sound(9))),
        "song.flac" => clip(name, &format!("{} -ac 2 -ar 44100", sound(7))),
        "song.mp3" => clip(name, &format!("{} -ac 2 -b:a 192k", sound(7))),
        "song.m4a" => clip(name, &format!("{} {AAC}", sound(7))),
        "song.ogg" => clip(name, &format!("{} -ac 2 -c:a libvorbis", sound(7))),
        "song.opus" => clip(name, &format!("{} -ac 2 -c:a libopus", sound(7))),
        "song.wav" => clip(name, &format!("{} -ac 2", sound(7))),
        _ => panic!("no recipe for {name}"),
    }
}

/// Picture, subtitle, two sounds, another subtitle: 0 to 4; and what a container may hold beside.
fn tracks(name: &str) -> PathBuf {
    let text = clip_text("lines.srt", "1\n00:00:01,000 --> 00:00:04,000\nline\n\n");
    let (subtitle, rest) = match name.rsplit('.').next() {
        Some("mkv") => {
            ("srt", format!("-attach {} -metadata:s:t mimetype=font/ttf", text.display()))
        }
        Some("mp4") => ("mov_text", "-timecode 01:00:00:00".to_owned()),
        _ => ("dvbsub", String::new()),
    };
    let inputs = format!("{} {} {}", picture("25"), sound(7), sound(9));
    if subtitle == "dvbsub" {
        // Text can't become pictures.
        return clip(name, &format!("{inputs} -map 0 -map 1 -map 2 {X264} -c:a aac -ac 2"));
    }
    clip(
        name,
        &format!(
            "{inputs} -i {} -map 0:v -map 3:s -map 1:a -map 2:a -map 3:s {X264} -c:a aac -ac 2 \
             -c:s {subtitle} {rest}",
            text.display()
        ),
    )
}

/// A film whose sound begins by an AAC frame that only primes the decoder, and says so (`CodecDelay`),
/// as ffmpeg writes it from 7 on. Older ones don't: the element takes the place of the language.
fn primed() -> PathBuf {
    const LANGUAGE: &[u8] = b"\x22\xb5\x9c\x83und";
    const DELAY: &[u8] = b"\x56\xaa\x84\x01\x45\x85\x55";
    let path = stand::kept().join("clips/primed.mkv");
    if !path.exists() {
        let mut bytes = std::fs::read(source("pal.mkv")).unwrap();
        let places = bytes.windows(LANGUAGE.len()).enumerate();
        let places: Vec<usize> =
            places.filter(|(_, bytes)| *bytes == LANGUAGE).map(|(at, _)| at).collect();
        let [_, sound] = places[..] else { panic!("languages at {places:?}") };
        bytes[sound..sound + DELAY.len()].copy_from_slice(DELAY);
        let making = path.with_extension(std::process::id().to_string());
        std::fs::write(&making, bytes).unwrap();
        std::fs::rename(making, &path).unwrap();
    }
    path
}

fn clip_text(name: &str, text: &str) -> PathBuf {
    let directory = stand::kept().join("clips");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    if !path.exists() {
        let making = directory.join(format!("{}.{name}", std::process::id()));
        std::fs::write(&making, text).unwrap();
        std::fs::rename(making, &path).unwrap();
    }
    path
}
