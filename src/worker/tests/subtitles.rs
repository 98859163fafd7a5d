//! Subtitles in the picture, against those that ffmpeg draws upon the same film.
//!
//! The box in which they stand is compared picture by picture, those in which they appear and
//! disappear among them, so one that comes a picture late is seen.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ffmpeg_args::*;
use session::{Ending, Fault};
use support::burnt::{
    Compared, DIFFERENT, HEIGHT, SIMILAR, WIDTH, film, film_with, first_pts, similar, written,
};
use support::case::{Case, refused};
use support::pgs::{self, Place, Shown};
use support::sources::source;
use support::{Run, clip, encode_of};

/// A family that no machine has, in a directory of its own.
const FAMILY: &str = "Gateway Abcd";

static FONTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let known = "/usr/share/fonts/truetype/dejavu/DejaVuSerif.ttf";
    let mut font = fs::read(known).expect("a font is needed: apt install fonts-dejavu-core");
    let wide = |name: &str| -> Vec<u8> { name.bytes().flat_map(|byte| [0, byte]).collect() };
    let old = "DejaVu Serif";
    for (from, to) in [(old.as_bytes().to_vec(), FAMILY.into()), (wide(old), wide(FAMILY))] {
        for at in 0..font.len() - from.len() {
            if font[at..].starts_with(&from) {
                font[at..at + to.len()].copy_from_slice(&to);
            }
        }
    }
    let directory = stand::kept().join("fonts");
    fs::create_dir_all(&directory).unwrap();
    let making = directory.join(format!(".{}", std::process::id()));
    fs::write(&making, font).unwrap();
    fs::rename(making, directory.join("font.ttf")).unwrap();
    directory
});

// --- Text ----------------------------------------------------------------------------------------

fn text(path: &Path) -> TextSubtitles {
    TextSubtitles {
        path: path.to_owned(),
        stream: None,
        charset: None,
        fonts: Some(FONTS.clone()),
        shift_seconds: 0.0,
    }
}

fn filter(text: &TextSubtitles) -> String {
    let mut filter = format!("[0:v:0]subtitles=f={}", text.path.display());
    filter += &text.stream.map(|number| format!(":si={number}")).unwrap_or_default();
    filter += &text.charset.iter().map(|name| format!(":charenc={name}")).collect::<String>();
    filter +=
        &text.fonts.iter().map(|path| format!(":fontsdir={}", path.display())).collect::<String>();
    filter
}

fn texts(film: &Path, text: &TextSubtitles) -> Compared {
    Compared::new(film, Subtitles::Text(text.clone()), &filter(text))
}

fn srt() -> PathBuf {
    let face = |text: &str| format!("<font face=\"{FAMILY}\">{text}</font>");
    let lines = [
        ("00:00:01,000", "00:00:03,500", face("A plain line\nand <i>another</i> <b>bold</b> one")),
        ("00:00:03,980", "00:00:06,020", face("{\\an8}<u>above</u> <s>struck</s>")),
        (
            "00:00:07,000",
            "00:00:10,000",
            face("<font color=\"#ff8040\" size=24>big</font> <font color=lime>green</font>"),
        ),
        ("00:00:09,000", "00:00:11,000", face("two at once \u{e9}\u{20ac} \u{3b1}\u{3b2}")),
    ];
    let text: String = lines
        .iter()
        .enumerate()
        .map(|(number, (from, to, text))| format!("{}\n{from} --> {to}\n{text}\n\n", number + 1))
        .collect();
    written("lines.subtitles.srt", text.as_bytes())
}

/// Where lines stand, and where those that are to stand above.
const LOWER: [u32; 4] = [188, 54, 226, HEIGHT - 56];
const UPPER: [u32; 4] = [120, 26, 260, 10];
const ALL: [u32; 4] = [WIDTH, HEIGHT, 0, 0];

#[test]
fn subrip() {
    texts(&film(), &text(&srt())).holds(&[(LOWER, &[25, 87, 175, 240, 274]), (UPPER, &[100, 150])]);
}

#[test]
fn subrip_after_a_seek() {
    // In the middle of a line, between keyframes.
    texts(&film(), &text(&srt())).from(7.3).holds(&[(LOWER, &[0, 50])]);
}

#[test]
fn subrip_of_a_film_of_23_976_in_milliseconds() {
    let film = film_with("subtitles-23976.mkv", "24000/1001", "", "");
    texts(&film, &text(&srt())).from(2.2).holds(&[(LOWER, &[0, 20])]);
}

#[test]
fn subrip_on_the_container_s_own_clock_and_from_zero() {
    let late = film_with("subtitles-late.ts", "25", "", "-output_ts_offset 5");
    texts(&late, &text(&srt())).holds(&[(LOWER, &[60, 100])]);
    texts(&late, &text(&srt()))
        .changed(|plan| plan.start_at_zero = true)
        .from(2.0)
        .holds(&[(LOWER, &[0, 20])]);
}

#[test]
fn scaled_and_in_the_colours_of_high_definition() {
    let subtitles = text(&srt());
    let mut compared = texts(&film(), &subtitles).changed(|plan| {
        let encode = encode_of(plan);
        encode.scale = Some(Scale::Exact { width: 426, height: 240 });
        encode.colour = Some(ColourTags {
            primaries: "bt709".into(),
            transfer: "bt709".into(),
            matrix: "bt709".into(),
        });
    });
    let subtitles = filter(&subtitles).replace("[0:v:0]", "");
    compared.graph = format!("[0:v:0]scale=426:240,{subtitles}");
    let report = Run::start(&compared.plan).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    let ours = support::output::Output::read(&compared.case.out(), &compared.plan).whole;
    let theirs = compared.reference(&compared.graph);
    let found = similar(&ours, &[theirs], &[[426, 80, 0, 160]]);
    let worst = found[0][0].iter().copied().fold(1.0, f64::min);
    println!("worst {worst:.4}");
    assert!(worst > SIMILAR, "{worst}");
}

#[test]
fn another_encoding() {
    let mut line = b"1\n00:00:01,000 --> 00:00:11,000\n<font face=\"Gateway Abcd\">".to_vec();
    line.extend([0xc4, 0xd6, 0xdc, b' ', 0xdf, 0xe9, 0xe8, b'\n']);
    let subtitles =
        TextSubtitles { charset: Some("ISO-8859-1".into()), ..text(&written("latin1.srt", &line)) };
    texts(&film(), &subtitles).holds(&[(LOWER, &[50, 200])]);
}

#[test]
fn webvtt() {
    let lines = "WEBVTT\n\n00:01.000 --> 00:04.000\n<c.yellow><b>Web</b></c> <i>text</i> &amp; more\n\n\
                 00:05.000 --> 00:11.000 line:0\nsecond\n";
    let subtitles = text(&written("lines.vtt", lines.as_bytes()));
    texts(&film(), &subtitles).holds(&[(ALL, &[]), ([136, 30, 252, HEIGHT - 40], &[50])]);
}

fn ass() -> PathBuf {
    let text = format!(
        "[Script Info]\nScriptType: v4.00+\nPlayResX: 1280\nPlayResY: 720\nWrapStyle: 0\n\
         ScaledBorderAndShadow: yes\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize, \
         PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
         StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, \
         MarginL, MarginR, MarginV, Encoding\n\
         Style: Default,{FAMILY},60,&H00FFFFFF,&H000000FF,&H00000000,&H80000000,0,0,0,0,100,100,\
         0,0,1,3,2,2,20,20,30,1\n\
         Style: Sign,{FAMILY},40,&H0020C0FF,&H000000FF,&H00400000,&H00000000,-1,0,0,0,120,100,2,\
         10,3,4,0,7,20,20,30,1\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, \
         MarginR, MarginV, Effect, Text\n\
         Dialogue: 0,0:00:01.00,0:00:10.00,Default,,0,0,0,,An outline and {{\\c&H3030FF&}}red\n\
         Dialogue: 1,0:00:02.00,0:00:09.00,Sign,,0,0,0,,{{\\pos(120,100)}}A sign\n\
         Dialogue: 0,0:00:02.00,0:00:08.00,Sign,,0,0,0,,{{\\move(100,300,900,340)\\fad(500,500)}}moves\n\
         Dialogue: 0,0:00:03.00,0:00:06.00,Default,,0,0,0,,{{\\an9\\k50}}sing {{\\k80}}along\n\
         Dialogue: 0,0:00:08.00,0:00:11.00,Default,,0,0,0,,{{\\an5\\p1}}m 0 0 l 200 0 200 100 0 100{{\\p0}}\n"
    );
    written("styled.ass", text.as_bytes())
}

#[test]
fn ass_with_styles_and_positions() {
    let (place, sign) = (&[50, 200], [80, 36, 58, 36]);
    texts(&film(), &text(&ass())).holds(&[(ALL, &[]), (LOWER, place), (sign, &[60, 200])]);
    texts(&film(), &text(&ass())).from(4.1).holds(&[(ALL, &[])]);
}

#[test]
fn fonts_come_from_the_directory() {
    // Without it the picture is another: the family is nowhere else.
    let with = texts(&film(), &text(&ass()));
    let area = [246, 40, 196, HEIGHT - 50];
    let without = TextSubtitles { fonts: None, ..text(&ass()) };
    let theirs = with.reference(&filter(&without));
    let report = Run::start(&with.plan).finish();
    assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
    let ours = support::output::Output::read(&with.case.out(), &with.plan).whole;
    assert!(similar(&ours, &[theirs], &[area])[0][0][100] < DIFFERENT);
}

#[test]
fn text_of_a_film_with_its_fonts() {
    let (srt, ass) = (srt(), ass());
    let font = FONTS.join("font.ttf");
    let with_text = film_with(
        "subtitles-inside.mkv",
        "25",
        &format!("-i {} -i {}", srt.display(), ass.display()),
        &format!(
            "-map 0 -map 1 -map 2 -c:s copy -attach {} -metadata:s:t mimetype=font/ttf",
            font.display()
        ),
    );
    for (number, start, seen) in [(0, 0.0, 60), (1, 5.0, 20)] {
        let inside = TextSubtitles { stream: Some(number), fonts: None, ..text(&with_text) };
        texts(&with_text, &inside).from(start).holds(&[(LOWER, &[seen])]);
    }
}

#[test]
fn files_that_are_no_subtitles() {
    let film = film();
    let junk: Vec<u8> = (0..5000_u32).map(|n| (n * n % 251) as u8).collect();
    for (path, what) in [
        (written("junk.srt", &junk), "no demuxer"),
        (written("empty.srt", b""), "no demuxer"),
        (film.clone(), "it has no subtitles at all"),
    ] {
        let case = Case::new();
        let mut plan = case.plan(&film);
        plan.audio = None;
        encode_of(&mut plan).subtitles = Some(Subtitles::Text(text(&path)));
        refused(&case, &plan, Fault::Input, what);
    }
}

#[test]
fn damaged_lines_cost_no_more_than_themselves() {
    let mut lines = fs::read(srt()).unwrap();
    lines.extend(b"5\n00:00:99:1 -> nonsense\n\xff\xfe{\\bad<font\n\n");
    lines.extend(b"6\n00:00:11,500 --> 00:00:11,800\nlast\n\n");
    let subtitles = text(&written("damaged.srt", &lines));
    texts(&film(), &subtitles).holds(&[(LOWER, &[50, 175])]);
}

/// What stands before it has no equal in ffmpeg, so the lines are drawn by ffmpeg upon what the same
/// run gives without them.
#[test]
fn behind_a_turn_and_a_tone_mapping() {
    let tones = ToneMap::new(HdrTransfer::Pq, ToneCurve::Driver);
    let upright = [190, 54, 25, 426 - 56];
    let wide = [188, 50, 119, 240 - 50];
    // As short as may be: tones are mapped slowly by a build for debugging.
    let hdr = clip(
        "subtitles-pq.mkv",
        "-f lavfi -i testsrc2=s=426x240:r=25:d=4 -c:v libx265 -preset ultrafast -pix_fmt \
         yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc \
         -x265-params log-level=error:keyint=50:colorprim=bt2020:transfer=smpte2084:\
         colormatrix=bt2020nc:repeat-headers=1:hdr-opt=1:max-cll=1000,400",
    );
    let turned = source("turned90.mp4");
    for (film, tones, frame, area) in
        [(&turned, None, "1001/24000", upright), (&hdr, Some(tones), "1/25", wide)]
    {
        let subtitles = text(&srt());
        let drawn = texts(film, &subtitles).changed(|plan| {
            encode_of(plan).tone_map = tones.clone();
        });
        let bare = texts(film, &subtitles).changed(|plan| {
            encode_of(plan).tone_map = tones;
            encode_of(plan).subtitles = None;
        });
        let [ours, bare] = [&drawn, &bare].map(|run| {
            let report = Run::start(&run.plan).finish();
            assert_eq!(report.ending, Some(Ending::Complete), "{:?}", report.lines);
            support::output::Output::read(&run.case.out(), &run.plan).whole
        });
        // Sound that begins earlier moves the film in its container.
        let start = first_pts(film);
        let on_time = format!("[0:v:0]setpts=(N*{frame}+{start})/TB,");
        let graph = filter(&subtitles).replace("[0:v:0]", &on_time);
        let drawn = drawn.like_in(bare);
        let found = similar(&ours, &[drawn.reference(&graph), drawn.film.clone()], &[area]);
        let (with, without) = (&found[0][0], &found[1][0]);
        let worst = with.iter().copied().fold(1.0, f64::min);
        println!("worst {worst:.4}, without {:.4}", without[50]);
        assert!(worst > SIMILAR && without[50] < DIFFERENT, "{}", film.display());
    }
}

// --- Pictures ------------------------------------------------------------------------------------

const CANVAS: (u16, u16) = (1280, 720);

/// Three pictures: one that ends, two that follow each other at once.
fn shown() -> Vec<Shown> {
    let place = |x, y| Some(Place { x, y, width: 402, height: 84 });
    vec![
        Shown { at_ms: 1000, picture: place(430, 600) },
        Shown { at_ms: 3480, picture: None },
        Shown { at_ms: 4520, picture: place(100, 590) },
        Shown { at_ms: 7000, picture: place(800, 610) },
        Shown { at_ms: 10_200, picture: None },
    ]
}

fn sup() -> PathBuf {
    written("pictures.sup", &pgs::file(CANVAS, &shown()))
}

/// A film with them as a second stream.
fn with_pictures(name: &str, codec: &str, rest: &str) -> PathBuf {
    let inputs = format!("-i {}", sup().display());
    film_with(name, "25", &inputs, &format!("-map 0 -map 1 -copyts -c:s {codec} {rest}"))
}

/// The same without B-frames. With them ffmpeg itself shows and hides pictures up to three frames
/// late: its clock of subtitles goes by the packets that it has read, and some of those are ahead.
fn exact_film() -> PathBuf {
    with_pictures("pgs-exact.mkv", "copy", "-bf 0")
}

fn pictures(input: usize, stream: u32, fit: Option<SubtitleFit>) -> Subtitles {
    let source = StreamRef { input, stream: StreamSelect::Index(stream) };
    Subtitles::Pictures(PictureSubtitles { source, canvas: None, fit, stretched: false })
}

const EXACT: Option<SubtitleFit> = Some(SubtitleFit::Exact { width: WIDTH, height: HEIGHT });

fn overlay(input: usize, stream: u32, scale: &str) -> String {
    format!("[{input}:{stream}]scale,{scale}[s];[0:v:0][s]overlay=eof_action=pass:repeatlast=0")
}

fn exact(input: usize, stream: u32) -> String {
    overlay(input, stream, &format!("scale={WIDTH}:{HEIGHT}:fast_bilinear"))
}

/// Where the pictures of `shown` stand, reduced by two, and all of them.
const FIRST: [u32; 4] = [201, 42, 215, 300];
const SECOND: [u32; 4] = [201, 42, 50, 295];
const THIRD: [u32; 4] = [201, 42, 400, 305];
const STRIP: [u32; 4] = [WIDTH, 64, 0, 290];

#[test]
fn presentation_graphics() {
    let film = with_pictures("pgs.mkv", "copy", "");
    let compared =
        || Compared::new(&film, pictures(0, 1, EXACT), &exact(0, 1)).like_in(exact_film());
    compared().holds(&[(FIRST, &[25, 86]), (SECOND, &[113, 174]), (THIRD, &[175, 254])]);
    // In the middle of a picture, and beyond the last.
    compared().from(7.5).holds(&[(THIRD, &[0, 60])]);
    compared().from(10.5).holds(&[(STRIP, &[])]);
    compared().from(1.5).holds(&[(FIRST, &[0, 40])]);
}

#[test]
fn presentation_graphics_of_mpeg_ts() {
    let film = with_pictures("pgs.m2ts", "copy", "-mpegts_m2ts_mode 1");
    Compared::new(&film, pictures(0, 1, EXACT), &exact(0, 1))
        .like_in(exact_film())
        .holds(&[(SECOND, &[113, 174])]);
    Compared::new(&film, pictures(0, 1, EXACT), &exact(0, 1))
        .like_in(exact_film())
        .changed(|plan| plan.start_at_zero = true)
        .from(6.2)
        .holds(&[(THIRD, &[20, 60])]);
    Compared::new(&film, pictures(0, 1, EXACT), &exact(0, 1))
        .like_in(exact_film())
        .changed(|plan| plan.start_at_zero = true)
        .from(1.5)
        .holds(&[(FIRST, &[0, 40])]);
}

#[test]
fn a_file_of_presentation_graphics_beside_the_film() {
    let compared = || {
        let subtitles = pictures(1, 0, EXACT);
        Compared::new(&film(), subtitles, &exact(0, 1)).like_in(exact_film()).beside(&sup())
    };
    compared().holds(&[(FIRST, &[25, 86])]);
    // ffmpeg looks for the start among the subtitles themselves, and misses those before it.
    compared().from(7.5).holds(&[(THIRD, &[0, 60])]);
}

/// The pictures of a file as VobSub beside a film, each ending after 2.48 s: ffmpeg takes over that
/// presentation graphics have no end, so the commands that end them are given a time.
fn vobsub(name: &str, sup: &Path, rest: &str) -> PathBuf {
    let inputs = format!("-i {}", sup.display());
    let rest = format!("-map 0 -map 1 -copyts -c:s dvdsub {rest}");
    let endless = film_with(&format!("endless-{name}"), "25", &inputs, &rest);
    let mut film = fs::read(endless).unwrap();
    let mut ends = 0;
    for at in 0..film.len() - 6 {
        if film[at..].starts_with(&[0xff, 0xff]) && film[at + 4..].starts_with(&[0x02, 0xff]) {
            // In 1024/90000 s.
            film[at..at + 2].copy_from_slice(&218_u16.to_be_bytes());
            ends += 1;
        }
    }
    assert_eq!(ends, 3, "one for each picture");
    written(name, &film)
}

#[test]
fn vobsub_that_ends_by_itself() {
    let film = vobsub("vobsub.mkv", &sup(), "");
    let plain = vobsub("vobsub-exact.mkv", &sup(), "-bf 0");
    let compared =
        || Compared::new(&film, pictures(0, 1, EXACT), &exact(0, 1)).like_in(plain.clone());
    compared().holds(&[(FIRST, &[25, 86]), (SECOND, &[113, 174]), (THIRD, &[175, 236])]);
    compared().from(7.5).holds(&[(THIRD, &[0, 48])]);
}

#[test]
fn dvb_subtitles() {
    // Positions refer to the film's own size, as nothing states one.
    let place = |x, y| Some(Place { x, y, width: 202, height: 44 });
    let shown = [
        Shown { at_ms: 1000, picture: place(216, 300) },
        Shown { at_ms: 4520, picture: place(50, 296) },
        Shown { at_ms: 8000, picture: place(400, 306) },
    ];
    let sup = written("small.sup", &pgs::file((640, 360), &shown));
    let turned = |name: &str, rest: &str| {
        let from = vobsub(&format!("from-{name}.mkv"), &sup, rest);
        let arguments = format!("-copyts -i {} -map 0 -c copy -c:s dvbsub", from.display());
        clip(name, &arguments)
    };
    let plain = turned("dvb-exact.mkv", "-bf 0");
    for name in ["dvb.mkv", "dvb.ts"] {
        let film = turned(name, "");
        let graph = "[0:v:0][0:1]overlay=eof_action=pass:repeatlast=0";
        let compared = || {
            Compared::new(&film, pictures(0, 1, None), graph)
                .like_in(plain.clone())
                .changed(|plan| plan.start_at_zero = true)
        };
        compared().holds(&[(FIRST, &[25, 86]), (THIRD, &[200, 261])]);
        compared().from(5.5).holds(&[(SECOND, &[0, 36])]);
    }
}

#[test]
fn fitted_to_a_height_and_cut_or_filled() {
    // A canvas as wide as four thirds, and a film of sixteen ninths reduced.
    let place = Some(Place { x: 160, y: 480, width: 402, height: 84 });
    let shown = [Shown { at_ms: 1000, picture: place }];
    let sup = written("narrow.sup", &pgs::file((720, 576), &shown));
    let film = |rest: &str| {
        let inputs = format!("-i {}", sup.display());
        let rest = format!("-map 0 -map 1 -copyts -c:s copy {rest}");
        film_with(&format!("narrow{}.mkv", rest.len()), "25", &inputs, &rest)
    };
    let (width, height) = (426, 240);
    let graph = format!(
        "[0:1]scale,scale=-1:{height}:fast_bilinear,crop,pad=max({width}\\,iw):max({height}\\,ih):\
         (ow-iw)/2:(oh-ih)/2:black@0,crop={width}:{height}[s];[0:v:0]scale={width}:{height}[m];\
         [m][s]overlay=eof_action=pass:repeatlast=0"
    );
    let fit = Some(SubtitleFit::Height { width, height });
    Compared::new(&film(""), pictures(0, 1, fit), &graph)
        .like_in(film("-bf 0"))
        .changed(|plan| encode_of(plan).scale = Some(Scale::Exact { width, height }))
        .holds(&[([170, 36, 128, 200], &[25, 200])]);
}

#[test]
fn stretched_to_the_picture() {
    let fit = Some(SubtitleFit::Exact { width: 320, height: 180 });
    let mut subtitles = pictures(0, 1, fit);
    if let Subtitles::Pictures(pictures) = &mut subtitles {
        pictures.stretched = true;
    }
    let scale = format!("scale=320:180:fast_bilinear,scale={WIDTH}:{HEIGHT}:fast_bilinear");
    Compared::new(&exact_film(), subtitles, &overlay(0, 1, &scale)).holds(&[(SECOND, &[113, 174])]);
}

#[test]
fn subtitles_of_the_other_kind() {
    let film = exact_film();
    let case = Case::new();
    let mut plan = case.plan(&film);
    plan.audio = None;
    let inside = TextSubtitles { stream: Some(0), ..text(&film) };
    encode_of(&mut plan).subtitles = Some(Subtitles::Text(inside));
    refused(&case, &plan, Fault::Input, "pictures where text is expected");
    encode_of(&mut plan).subtitles = Some(pictures(0, 0, None));
    refused(&case, &plan, Fault::Input, "no subtitles as stream 0");
}
