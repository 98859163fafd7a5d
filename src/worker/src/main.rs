//! `rendergate-worker`: one stream in one process, given to it over the socket on descriptor 0.
//!
//! With `--probe-node` it is a probe process instead: it looks at one GPU, and ends.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use gpu::Operation;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use worker::calibrate::Subject;

/// No answer of a probe process is waited for so long.
const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// No measuring process is waited for so long.
const LONGEST_CALIBRATION: Duration = Duration::from_secs(120);
/// Time to clear away after the gateway's death before the process ends in any case.
const CLEAR_AWAY: Duration = Duration::from_secs(2);

const HELP: &str = "\
rendergate-worker runs one stream for the gateway and ends with it.

It is started by `rendergate serve`, which hands it a socket as standard input; started by hand it
has nothing to do. See `rendergate --help`.

`rendergate explain` starts it with a plan as standard input, for the graphs that would be built:
  rendergate-worker --outline

`rendergate calibrate` starts it to measure, with a folder for clips, the processor or a GPU's element:
  rendergate-worker --calibrate FOLDER /proc
  rendergate-worker --calibrate FOLDER /proc --operation encode_h264 --element vah264enc

`rendergate probe` starts it to look at a GPU, and reads one line of JSON:
  rendergate-worker --probe-node /dev/dri/renderD128
  rendergate-worker --probe-node /dev/dri/renderD128 --operation encode_h264 --element vah264enc
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("--version") => {
            println!("rendergate-worker {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some("--outline") => return outline(),
        Some("--calibrate") => {
            if let Some((folder, proc_root, subject)) = calibrate_arguments(arguments) {
                return calibrate(&folder, &proc_root, &subject);
            }
            let _ = io::stderr().write_all(HELP.as_bytes());
            return ExitCode::from(2);
        }
        Some("--probe-node") => {
            if let Some((node, trial)) = probe_arguments(arguments) {
                return probe(&node, trial);
            }
            let _ = io::stderr().write_all(HELP.as_bytes());
            return ExitCode::from(2);
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
    if let Err(error) = outlive_sigxfsz() {
        eprintln!("rendergate-worker: can't handle signals: {error}");
        return ExitCode::FAILURE;
    }
    let outcome = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(anyhow::Error::from)
        .and_then(|socket| worker::run::run(socket, outlive_sigterm));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rendergate-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads a plan as JSON and prints its graphs.
fn outline() -> ExitCode {
    let graphs = io::read_to_string(io::stdin().lock())
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_str(&text)?))
        .and_then(|plan| worker::outline::outline(&plan));
    match graphs {
        Ok(graphs) => {
            print!("{graphs}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rendergate-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The node, and what to try on which element, if anything.
fn probe_arguments(
    arguments: impl Iterator<Item = String>,
) -> Option<(String, Option<(Operation, String)>)> {
    let arguments: Vec<String> = arguments.collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [node] => Some((node.into(), None)),
        [node, "--operation", operation, "--element", element] => {
            Some((node.into(), Some((Operation::from_name(operation)?, element.into()))))
        }
        _ => None,
    }
}

/// Where clips are, where engine time is, and what to measure.
fn calibrate_arguments(
    arguments: impl Iterator<Item = String>,
) -> Option<(PathBuf, PathBuf, Subject)> {
    let arguments: Vec<String> = arguments.collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (folder, proc_root, subject) = match arguments[..] {
        [folder, proc_root] => (folder, proc_root, Subject::Software),
        [folder, proc_root, "--operation", operation, "--element", element] => {
            let operation = Operation::from_name(operation)?;
            (folder, proc_root, Subject::Gpu(operation, element.into()))
        }
        _ => return None,
    };
    Some((folder.into(), proc_root.into(), subject))
}

/// As [`probe`]; standard output is a line for each task.
fn calibrate(folder: &Path, proc_root: &Path, subject: &Subject) -> ExitCode {
    match io::stdout().as_fd().try_clone_to_owned() {
        Ok(answer) => drop(thread::spawn(move || end_without_reader(&answer))),
        Err(error) => eprintln!("rendergate-worker: can't watch for its reader: {error}"),
    }
    thread::spawn(|| end_after(LONGEST_CALIBRATION));
    let measured = probe::keep_stdout().map_err(anyhow::Error::from).and_then(|mut answer| {
        worker::calibrate::calibrate(subject, folder, proc_root, &mut answer)
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rendergate-worker: can't measure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A driver may hang this process where nothing but its end helps, and whoever waited for it may be
/// gone by then.
fn probe(node: &str, trial: Option<(Operation, String)>) -> ExitCode {
    match io::stdout().as_fd().try_clone_to_owned() {
        Ok(answer) => drop(thread::spawn(move || end_without_reader(&answer))),
        Err(error) => eprintln!("rendergate-worker: can't watch for its reader: {error}"),
    }
    thread::spawn(|| end_after(LONGEST_PROBE));
    let trial = trial.as_ref().map(|(operation, element)| (*operation, element.as_str()));
    match probe::answer(Path::new(node), trial) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rendergate-worker: can't probe {node}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// SIGTERM comes from the kernel when the gateway has died (`PR_SET_PDEATHSIG`). The end of the
/// control socket says the same and leads to an orderly end, so the signal only sets a limit: a
/// worker that hangs in a driver must not outlive its gateway. Without a stream it may die of it.
fn outlive_sigterm() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            end_after(CLEAR_AWAY);
        }
    });
    Ok(())
}

/// A file beyond the process's limit is an error of `write`, as a full disk is, not a sudden death.
fn outlive_sigxfsz() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Ends the process once nobody reads its answer any more. Not a signal at the parent's death: the
/// parent may die before that is asked for.
fn end_without_reader(answer: &OwnedFd) {
    let mut watched = [PollFd::new(answer, PollFlags::empty())];
    if poll(&mut watched, None).is_ok() {
        end_now();
    }
}

#[expect(clippy::disallowed_methods, reason = "the last resort of a process that doesn't end")]
fn end_after(time: Duration) {
    thread::sleep(time);
    end_now();
}

/// Without exit handlers: a driver that hangs may have some.
fn end_now() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<(String, Option<(Operation, String)>)> {
        probe_arguments(line.split_whitespace().map(String::from))
    }

    #[test]
    fn probe_takes_a_node_and_perhaps_a_trial() {
        assert_eq!(parse("/x"), Some(("/x".into(), None)));
        let trial = (Operation::EncodeH264, "vah264enc".into());
        let line = "/x --operation encode_h264 --element vah264enc";
        assert_eq!(parse(line), Some(("/x".into(), Some(trial))));
    }

    #[test]
    fn probe_takes_nothing_else() {
        for line in ["", "/x --operation encode_h264", "/x --operation nothing --element x"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
