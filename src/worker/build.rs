//! Links libswscale, libavutil and libass, whose few functions `src/swscale.rs` and
//! `src/subtitles/libass.rs` declare, and describes the structures of libavformat and libavcodec,
//! which `src/subtitles/libav` loads when they are needed: their layouts differ between ffmpeg's
//! releases, so they are taken from the headers that are installed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HEADERS: &str = "
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
";

/// What is read or written of them. The rest stays opaque behind pointers.
const TYPES: &str = "AVFormatContext|AVStream|AVCodecParameters|AVCodecContext|AVPacket|\
                     AVSubtitle|AVSubtitleRect|AVDictionaryEntry|AVCodecDescriptor|AVIOContext";
const CONSTANTS: &str = "LIBAVFORMAT_VERSION_MAJOR|AVMEDIA_TYPE_.*|AVDISCARD_.*|SUBTITLE_.*|\
                         AV_CODEC_PROP_.*|AV_DISPOSITION_.*|AVFMT_FLAG_CUSTOM_IO|AVSEEK_SIZE|AV_CODEC_ID_ASS";

fn describe(includes: &[PathBuf], target: &Path) -> bool {
    let generated = bindgen::Builder::default()
        .header_contents("libav.h", HEADERS)
        .clang_args(includes.iter().map(|path| format!("-I{}", path.display())))
        .allowlist_type(TYPES)
        .allowlist_var(CONSTANTS)
        .allowlist_function("none")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(false)
        .generate();
    match generated {
        Ok(bindings) => bindings.write_to_file(target).is_ok(),
        Err(error) => {
            eprintln!("bindgen on libavformat's headers: {error}");
            false
        }
    }
}

/// Where a library's headers are; it is linked if `linked`.
fn probe(library: &str, linked: bool) -> Option<Vec<PathBuf>> {
    match pkg_config::Config::new().cargo_metadata(linked).probe(library) {
        Ok(found) => Some(found.include_paths),
        Err(error) => {
            eprintln!(
                "expected {library} with its pkg-config file; `./dev setup` installs it \
                 (Debian, Ubuntu: {library}-dev)\n{error}"
            );
            None
        }
    }
}

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    let libraries = [
        ("libswscale", true),
        ("libavutil", true),
        ("libass", true),
        ("libavformat", false),
        ("libavcodec", false),
    ];
    let mut includes = Vec::new();
    for (library, linked) in libraries {
        match probe(library, linked) {
            Some(found) => includes.extend(found),
            None => return ExitCode::FAILURE,
        }
    }
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    if describe(&includes, &folder.join("libav.rs")) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
