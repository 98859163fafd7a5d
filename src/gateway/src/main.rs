//! `rendergate`: see `rendergate --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match gateway::cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rendergate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
