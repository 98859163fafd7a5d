//! `rendergate explain`: what becomes of one command, and why.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};
use ffmpeg_args::{Plan, Transcode, logged_command, plan};
use serde_json::{Value, json};

use crate::launch::worker_program;
use crate::stdout;

/// What is to be explained, and how.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("command").required(true).args(["log_line", "argv"]))]
#[command(after_help = "\
Either form takes a command as Jellyfin starts it:
  rendergate explain --log-line FFmpeg.Transcode-2025-01-01_20-15-00.log
  grep ffmpeg jellyfin.log | rendergate explain --log-line -
  rendergate explain -- -i file:/m/Film.mkv -codec:v:0 h264_vaapi ... /cache/transcodes/ab.m3u8

A log says the command as one string, which Jellyfin's runtime splits by other rules than a shell:
hand over the log, and don't paste the line behind `--`. The first command in it is explained.

Answers:
  transcode     the gateway runs it; what becomes of picture, sound and output follows, and the
                pipelines that a worker would build for the usual file
  passthrough   the real ffmpeg gets it untouched; the argument that decided this follows
No file is opened and no gateway asked: a file that can't be read, a GPU that is missing or a gateway
that is full may still send a stream to ffmpeg. Jellyfin's log of the transcode says so then.

Exit status: 0 with either answer, 1 if there is no command to explain, 2 for a mistake on the
command line.
")]
pub(crate) struct ExplainArgs {
    /// Print one JSON object: `plan`, `reason`, `summary`, and the plan's own fields
    #[arg(long)]
    json: bool,
    /// A log of Jellyfin's with the command in it, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    log_line: Option<PathBuf>,
    /// The command's arguments, with or without the program in front
    #[arg(last = true, value_name = "ARGUMENT")]
    argv: Vec<OsString>,
}

/// Prints the answer.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let argv = match &args.log_line {
        Some(file) => logged(file)?,
        None => without_program(&args.argv).to_vec(),
    };
    let plan = plan(&argv);
    if args.json {
        stdout::print(&(serde_json::to_string_pretty(&as_json(&plan)?)? + "\n"))?;
        return Ok(());
    }
    let mut text = plan.explain();
    if let Plan::Transcode(transcode) = &plan {
        let file = "1080p of H.264 (HEVC of ten bits for HDR) and AAC";
        text += &match graphs(transcode) {
            Ok(graphs) => format!("\npipelines, for {file}\n{graphs}"),
            Err(error) => format!("\nno pipelines can be shown: {error:#}\n"),
        };
    }
    stdout::print(&text)?;
    Ok(())
}

/// The pipelines that a worker would build, in its own words: the gateway knows no elements.
fn graphs(transcode: &Transcode) -> anyhow::Result<String> {
    let configured = std::env::var_os("RENDERGATE_WORKER").map(PathBuf::from);
    let program = worker_program(configured.as_deref())?;
    let mut worker = Command::new(&program)
        .arg("--outline")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {}", program.display()))?;
    let mut stdin = worker.stdin.take().context("no standard input")?;
    // One that ends without reading says why.
    let _ = stdin.write_all(&serde_json::to_vec(transcode)?);
    drop(stdin);
    let said = worker.wait_with_output()?;
    if !said.status.success() {
        bail!("{}", String::from_utf8_lossy(&said.stderr).trim());
    }
    let lines = String::from_utf8(said.stdout)?;
    Ok(lines.lines().map(|line| format!("  {line}\n")).collect())
}

fn logged(file: &Path) -> anyhow::Result<Vec<OsString>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).context("can't read standard input")?;
    } else {
        bytes = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    }
    // Names in other encodings come out changed, and such a file isn't planned for anyway.
    match logged_command(&String::from_utf8_lossy(&bytes)) {
        Some((_, words)) => Ok(words.into_iter().map(OsString::from).collect()),
        None => bail!(
            "no line of {} is a command of Jellyfin's; expected one such as\n  \
             /usr/lib/jellyfin-ffmpeg/ffmpeg -analyzeduration 200M ... -y \"/cache/transcodes/....m3u8\"",
            if file == Path::new("-") {
                "standard input".to_owned()
            } else {
                file.display().to_string()
            }
        ),
    }
}

/// Leaves out the program's name if it stands there.
fn without_program(argv: &[OsString]) -> &[OsString] {
    let named = |word: &OsStr| {
        let name = Path::new(word).file_name().unwrap_or_default();
        name == "ffmpeg" || name == "rendergate-ffmpeg"
    };
    match argv {
        [first, rest @ ..] if named(first) => rest,
        argv => argv,
    }
}

fn as_json(plan: &Plan) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(plan)?;
    if let Value::Object(fields) = &mut value {
        fields.entry("reason").or_insert(Value::Null);
        fields.insert("summary".to_owned(), json!(plan.summary()));
    }
    Ok(value)
}
