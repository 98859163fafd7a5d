//! `rendergate-worker`: one stream in one process, given to it over the socket on descriptor 0.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// Time to clear away after the gateway's death before the process ends in any case.
const CLEAR_AWAY: Duration = Duration::from_secs(2);

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
    if let Err(error) = outlive_sigterm().and_then(|()| outlive_sigxfsz()) {
        eprintln!("rendergate-worker: can't handle signals: {error}");
        return ExitCode::FAILURE;
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

/// SIGTERM comes from the kernel when the gateway has died (`PR_SET_PDEATHSIG`). The end of the
/// control socket says the same and leads to an orderly end, so the signal only sets a limit: a
/// worker that hangs in a driver must not outlive its gateway.
fn outlive_sigterm() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            end_anyway();
        }
    });
    Ok(())
}

/// A file beyond the process's limit is an error of `write`, as a full disk is, not a sudden death.
fn outlive_sigxfsz() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

#[expect(clippy::disallowed_methods, reason = "the last resort of a process that doesn't end")]
fn end_anyway() {
    thread::sleep(CLEAR_AWAY);
    std::process::exit(1);
}
