//! `rendergate probe`: which GPUs there are, what they report, and what they have been seen doing.
//!
//! The gateway's own process touches no driver. It starts the worker's program as a probe process,
//! once per node to ask what there is, and once per operation to put frames through it. One that
//! crashes or hangs is an answer about that operation and about nothing else.
//!
//! For the command a probe process inherits the environment as it is: what somebody exports before
//! it is part of the question. The gateway's own look uses the workers' environment.

mod table;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use gpu::{
    Capabilities, Facts, Machine, NodeProbe, NodeReport, Operation, Outcome, RenderNode, Trial,
    advice,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub use table::render;

/// Longest answer of a probe process in bytes: a driver's report takes a hundredth of it.
const LONGEST_ANSWER: u64 = 1 << 20;
/// What is kept of a probe process's standard error, in bytes; a driver may be told to trace.
const LAST_WORDS: usize = 4096;

/// Time-outs of probe processes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To say what there is. GStreamer may have its registry to build first, on a slow disk.
    pub ask: Duration,
    /// To put frames through an element. More than the probe process's own limit, so that what it
    /// waits for is known if it isn't the driver that hangs.
    pub trial: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ask: Duration::from_secs(30), trial: Duration::from_secs(20) }
    }
}

/// How probe processes are started.
#[derive(Debug, Clone)]
pub struct Prober {
    /// The worker's program.
    pub program: PathBuf,
    /// `GST_REGISTRY`, shared with the workers.
    pub registry: Option<PathBuf>,
    /// All that they see of the environment; unset, they see this process's own.
    pub environment: Option<Vec<(OsString, OsString)>>,
    /// Their time.
    pub limits: Limits,
    /// Says on standard error what is being tried: on a GPU that hangs it takes minutes.
    pub progress: bool,
}

impl Prober {
    /// Looks at every node, one after another: two at once would share a GPU and its time.
    ///
    /// # Errors
    /// If the worker's program can't be started, or `/dev/dri` can't be listed.
    pub async fn machine(&self) -> anyhow::Result<Machine> {
        let nodes = gpu::render_nodes()?;
        let advice = advice::for_machine(&nodes, &Facts::read());
        let mut reports = Vec::new();
        for node in nodes {
            reports.push(self.node(node).await?);
        }
        let usable = reports.iter().any(|report| report.state.is_usable());
        Ok(Machine { usable, nodes: reports, advice })
    }

    /// Looks at one node.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub(crate) async fn look(&self, node: &Path) -> anyhow::Result<NodeReport> {
        self.node(gpu::render_node(node)).await
    }

    async fn node(&self, node: RenderNode) -> anyhow::Result<NodeReport> {
        if let Some(problem) = &node.problem {
            let state = Outcome::Failed { reason: problem.to_string() };
            let advice = advice::for_node(&node, None, &[]);
            return Ok(NodeReport { node, state, probe: None, trials: Vec::new(), advice });
        }
        let answer: Result<NodeProbe, String> = self.run(&node.path, &[], self.limits.ask).await?;
        let probe = match answer {
            Ok(probe) => probe,
            Err(reason) => {
                let advice = vec![advice::for_dead_probe(&reason)];
                let state = Outcome::Failed { reason };
                return Ok(NodeReport { node, state, probe: None, trials: Vec::new(), advice });
            }
        };
        let mut trials = Vec::new();
        if let Ok(capabilities) = &probe.vaapi {
            for operation in reported(capabilities) {
                let element = operation.element(&probe.elements).map(str::to_owned);
                trials.push(self.trial(&node.path, operation, element).await?);
            }
            if let Some(elements) = Trial::elements_of_transcode(&trials) {
                let all = self.trial(&node.path, Operation::Transcode, Some(elements)).await?;
                trials.push(all);
            }
        }
        let advice = advice::for_node(&node, Some(&probe), &trials);
        let state = match &probe.vaapi {
            Ok(_) => Outcome::of_node(&trials),
            Err(failure) => Outcome::Failed { reason: failure.to_string() },
        };
        Ok(NodeReport { node, state, probe: Some(probe), trials, advice })
    }

    async fn trial(
        &self,
        node: &Path,
        operation: Operation,
        element: Option<String>,
    ) -> anyhow::Result<Trial> {
        let Some(element) = element else {
            return Ok(Trial { operation, element: None, outcome: Outcome::Untested });
        };
        if self.progress {
            eprintln!("trying {operation} on {}", node.display());
        }
        let arguments = ["--operation", operation.name(), "--element", &element];
        let answer = self.run(node, &arguments, self.limits.trial).await?;
        let outcome = answer.unwrap_or_else(|reason| Outcome::Failed { reason });
        Ok(Trial { operation, element: Some(element), outcome })
    }

    /// Starts a probe process and reads its answer; the inner error is why there is none.
    async fn run<T: DeserializeOwned>(
        &self,
        node: &Path,
        arguments: &[&str],
        limit: Duration,
    ) -> anyhow::Result<Result<T, String>> {
        let mut command = self.command();
        command.arg("--probe-node").arg(node).args(arguments);
        let mut child = self.start(command)?;
        // At the time-out the child is dropped, and so killed. It isn't waited for: a process that
        // hangs in the kernel dies only when the GPU's reset lets go of it.
        Ok(match timeout(limit, listen(&mut child)).await {
            Err(_) => Err(format!("no answer within {} s: it hangs", limit.as_secs_f64())),
            Ok(Err(error)) => Err(format!("its answer can't be read: {error}")),
            Ok(Ok(said)) => answer(&said),
        })
    }

    /// The worker's program, in the environment that it is to see.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(environment) = &self.environment {
            command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        }
        if let Some(registry) = &self.registry {
            command.env("GST_REGISTRY", registry);
        }
        command
    }

    /// Starts such a command.
    ///
    /// # Errors
    /// If there is no such program, for people.
    pub(crate) fn start(&self, mut command: Command) -> anyhow::Result<Child> {
        command.spawn().map_err(|error| {
            anyhow::anyhow!(
                "can't run {}: {error}; expected the worker's program there (worker.program in \
                 the configuration, or RENDERGATE_WORKER)",
                self.program.display()
            )
        })
    }
}

/// What a probe process has said, and how it ended.
#[derive(Debug)]
struct Said {
    status: ExitStatus,
    answer: Vec<u8>,
    /// The end of its standard error.
    errors: Vec<u8>,
}

/// Waits for a probe process. Its answer isn't read beyond [`LONGEST_ANSWER`].
async fn listen(child: &mut Child) -> io::Result<Said> {
    let answer = head(child.stdout.take());
    let errors = tail(child.stderr.take());
    let (answer, errors) = tokio::try_join!(answer, errors)?;
    Ok(Said { status: child.wait().await?, answer, errors })
}

async fn head(output: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(output) = output else { return Ok(bytes) };
    output.take(LONGEST_ANSWER + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > LONGEST_ANSWER {
        let text = format!("it is longer than {LONGEST_ANSWER} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

/// Reads to the end, so that nobody waits for room in a pipe, and keeps what comes last.
async fn tail(output: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut output) = output else { return Ok(kept) };
    while output.read_buf(&mut kept).await? > 0 {
        if kept.len() > 2 * LAST_WORDS {
            kept.drain(..kept.len() - LAST_WORDS);
        }
    }
    Ok(kept)
}

/// The operations that a driver reports.
fn reported(capabilities: &Capabilities) -> impl Iterator<Item = Operation> {
    Operation::ALL.into_iter().filter(|operation| operation.is_reported(capabilities))
}

/// What a probe process that has ended says.
fn answer<T: DeserializeOwned>(said: &Said) -> Result<T, String> {
    use std::os::unix::process::ExitStatusExt;
    let last_words = String::from_utf8_lossy(&said.errors);
    let last_words = last_words.lines().rfind(|line| !line.trim().is_empty());
    let with_last_words = |what: String| match last_words {
        Some(line) => format!("{what}; its last words: {}", line.trim()),
        None => what,
    };
    if let Some(signal) = said.status.signal() {
        return Err(with_last_words(format!("the driver crashed the process (signal {signal})")));
    }
    if !said.status.success() {
        return Err(with_last_words(format!("the process failed ({})", said.status)));
    }
    serde_json::from_slice(&said.answer).map_err(|error| {
        with_last_words(format!("expected one line of JSON from the probe process, got {error}"))
    })
}

#[cfg(test)]
mod tests;
