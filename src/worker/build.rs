//! Links libswscale and libavutil, whose few functions `src/swscale.rs` declares.

use std::process::ExitCode;

fn main() -> ExitCode {
    for library in ["libswscale", "libavutil"] {
        if let Err(error) = pkg_config::Config::new().probe(library) {
            eprintln!(
                "expected {library} with its pkg-config file; `./dev setup` installs it \
                 (Debian, Ubuntu: {library}-dev)\n{error}"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
