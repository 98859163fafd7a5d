//! `rendergate-worker`: one stream in one process, given to it over the socket on descriptor 0.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

const HELP: &str = "\
rendergate-worker runs one stream for the gateway and ends with it.

It is started by `rendergate serve`, which hands it a socket as standard input; started by hand it
has nothing to do. See `rendergate --help`.
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("--version") => {
            println!("rendergate-worker {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            let _ = io::stderr().write_all(HELP.as_bytes());
            return ExitCode::from(2);
        }
        None if io::stdin().is_terminal() => {
            let _ = io::stderr().write_all(HELP.as_bytes());
            return ExitCode::from(2);
        }
        None => {}
    }
    let outcome = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(anyhow::Error::from)
        .and_then(worker::run::run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rendergate-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
