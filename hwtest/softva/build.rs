//! Generates the declarations of libva's driver interface and of ffmpeg's libraries from the
//! headers of this machine: struct layouts differ between the ffmpeg releases (5.1, 6.1, 7.1) that
//! the driver is built on, so they are never written down by hand.

use std::path::PathBuf;
use std::process::ExitCode;

const VA_HEADERS: &str = "
#include <va/va.h>
#include <va/va_backend.h>
#include <va/va_backend_vpp.h>
#include <va/va_drmcommon.h>
#include <va/va_vpp.h>
#include <va/va_enc_h264.h>
#include <va/va_enc_hevc.h>
#include <va/va_dec_hevc.h>
#include <va/va_dec_vp9.h>
";

const FFMPEG_HEADERS: &str = "
#include <libavcodec/avcodec.h>
#include <libavutil/frame.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
";

fn bindings(headers: &str, includes: &[PathBuf], name: &str, types: &str, functions: &str) -> bool {
    let target = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join(name);
    let generated = bindgen::Builder::default()
        .header_contents("headers.h", headers)
        .clang_args(includes.iter().map(|path| format!("-I{}", path.display())))
        .allowlist_type(types)
        .allowlist_var(format!("{types}|LIBAV.*"))
        .allowlist_function(functions)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(false)
        .generate();
    match generated {
        Ok(bindings) => bindings.write_to_file(target).is_ok(),
        Err(error) => {
            eprintln!("bindgen on {name}: {error}");
            false
        }
    }
}

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    // libva unloads a driver with its last display, but the account and the counters of faults
    // live as long as the process.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let mut includes = Vec::new();
    for library in ["libavcodec", "libavutil", "libswscale"] {
        match pkg_config::Config::new().probe(library) {
            Ok(found) => includes.extend(found.include_paths),
            Err(error) => {
                eprintln!(
                    "expected {library} with its pkg-config file (Debian, Ubuntu: \
                     {library}-dev)\n{error}"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    // Headers only: a driver is loaded by libva and calls nothing of it.
    match pkg_config::Config::new().cargo_metadata(false).probe("libva") {
        Ok(found) => includes.extend(found.include_paths),
        Err(error) => {
            eprintln!("expected libva's headers (Debian, Ubuntu: libva-dev)\n{error}");
            return ExitCode::FAILURE;
        }
    }
    let done = bindings(VA_HEADERS, &includes, "va.rs", "_?VA.*", "none")
        && bindings(
            FFMPEG_HEADERS,
            &includes,
            "ffmpeg.rs",
            "AV.*|Sws.*|SWS_.*|FF_.*",
            "av_(packet|frame|new_packet|opt|get_pix|buffer|log|dict|free|malloc).*|avcodec_.*|sws_.*",
        );
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
