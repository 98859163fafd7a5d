//! The configuration: one TOML file, then `RENDERGATE_*` variables, then the command line.
//!
//! Everything has a default that works; each default is a constant that gives its reason. An
//! unknown key is an error, since a misspelt limit that is silently ignored is found on a bad day.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::admission::settings::{Admission, State};
pub use crate::cache::settings::Cache;
pub use crate::confinement::Sandboxing;

/// Where the file is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/rendergate/rendergate.toml";
/// The hook's default endpoint names it, so hook and gateway meet without configuration.
pub const DEFAULT_SOCKET: &str = "/run/rendergate/rendergate.sock";
/// Seconds for the first message. A hook sends it in the same breath as it connects.
pub const DEFAULT_FIRST_MESSAGE_SECONDS: f64 = 2.0;
/// Connections at once: far above what one node transcodes, far below what would hurt.
pub const DEFAULT_MAX_CONNECTIONS: usize = 256;
/// No limit by count: a machine is full by work, not by number; admission by cost decides that.
pub const DEFAULT_MAX_STREAMS: usize = 0;
/// Seconds a job waits for a worker. The hook itself gives up after three; below that its log says
/// why.
pub const DEFAULT_ACCEPT_SECONDS: f64 = 2.5;
/// Seconds for a worker to report its running graph. Reading the head of a file from a sleeping
/// disk can take ten.
pub const DEFAULT_RUNNING_SECONDS: f64 = 20.0;
/// Seconds in which nothing is decoded nor written, after which a worker counts as hung. Drivers reset
/// a GPU that hangs within ten; a sleeping disk or a share that comes back takes longer.
pub const DEFAULT_STALL_SECONDS: f64 = 60.0;
/// Seconds for a worker to end after `q`. Jellyfin itself kills its ffmpeg after five.
pub const DEFAULT_QUIT_SECONDS: f64 = 10.0;
/// Workers kept warm: one for the next viewer, one for the seek that follows at once.
pub const DEFAULT_WARM_WORKERS: usize = 2;
/// Seconds for a cold worker: building GStreamer's registry on a slow disk takes many.
pub const DEFAULT_READY_SECONDS: f64 = 30.0;
/// Seconds between taking a worker and starting its successor, so that the start doesn't compete
/// with the new viewer's first segment.
pub const DEFAULT_REFILL_SECONDS: f64 = 2.0;
/// Niceness of a worker until it is taken.
pub const DEFAULT_WARM_NICE: i32 = 10;
/// Loopback only: the list of streams names what people watch.
pub const DEFAULT_HTTP: &str = "127.0.0.1:9370";
/// One line per event of a stream, nothing per segment.
pub const DEFAULT_LOG_FILTER: &str = "info";
/// Seconds that running streams get at shutdown. Viewers' players hold about that much; systemd
/// and Kubernetes must be told to wait longer than this plus `streams.quit_seconds`.
pub const DEFAULT_DRAIN_SECONDS: f64 = 30.0;

/// Seconds of lead with which a stream yields to others. As much as Jellyfin's own throttling leaves a
/// stream at least: it outlasts any start beside it.
pub const DEFAULT_COMFORTABLE_LEAD_SECONDS: f64 = 60.0;
/// Seconds of lead below which no stream is held. What players hold before they ask for more.
pub const DEFAULT_NEEDED_LEAD_SECONDS: f64 = 12.0;

/// Seconds above which a setting is taken for a mistake.
const LONGEST_SECONDS: f64 = 86_400.0;

/// All settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The socket that hooks connect to.
    pub session: Session,
    /// Admission and time limits of streams.
    pub streams: Streams,
    /// Worker processes.
    pub worker: Worker,
    /// What streams run on.
    pub gpu: Gpu,
    /// Who may run ahead.
    pub schedule: Schedule,
    /// For how many streams there is room.
    pub admission: Admission,
    /// What outlives the gateway.
    pub state: State,
    /// Finished segments, for whoever comes next.
    pub cache: Cache,
    /// Health, metrics, list of streams.
    pub http: Http,
    /// Logs, on stderr.
    pub log: Log,
    /// The end.
    pub shutdown: Shutdown,
}

/// `[session]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// Path of the socket. Unset: `/run/rendergate/rendergate.sock`, or below `$XDG_RUNTIME_DIR`
    /// if that can't be used.
    pub socket: Option<PathBuf>,
    /// Group (name or number) that owns the socket and whose members may connect.
    pub group: Option<String>,
    /// Users, by number, who may connect besides root and the gateway's own.
    pub allow_uids: Vec<u32>,
    /// Groups, by number, whose members may connect.
    pub allow_gids: Vec<u32>,
    /// Connections at once.
    pub max_connections: usize,
    /// Time-out of a connection's first message, in seconds.
    pub first_message_seconds: f64,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            socket: None,
            group: None,
            allow_uids: Vec::new(),
            allow_gids: Vec::new(),
            max_connections: DEFAULT_MAX_CONNECTIONS,
            first_message_seconds: DEFAULT_FIRST_MESSAGE_SECONDS,
        }
    }
}

/// `[streams]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    /// Streams at once; 0 for no limit. Beyond it the hook runs the real ffmpeg.
    pub max_streams: usize,
    /// A viewer of what is being made for another, or was, takes its segments.
    pub share: bool,
    /// How long a job waits for a worker, in seconds.
    pub accept_seconds: f64,
    /// How long a worker may take to report that it runs, in seconds.
    pub running_seconds: f64,
    /// How long a stream that isn't paused may stand still, in seconds.
    pub stall_seconds: f64,
    /// How long a worker may take to end after `q`, in seconds.
    pub quit_seconds: f64,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            max_streams: DEFAULT_MAX_STREAMS,
            share: true,
            accept_seconds: DEFAULT_ACCEPT_SECONDS,
            running_seconds: DEFAULT_RUNNING_SECONDS,
            stall_seconds: DEFAULT_STALL_SECONDS,
            quit_seconds: DEFAULT_QUIT_SECONDS,
        }
    }
}

/// `[gpu]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gpu {
    /// `auto`, `vaapi` or `software`.
    pub backend: Backend,
    /// Where workers read what engines have done for them, and the gateway what others take of the
    /// processor. Another tree stands there in tests.
    pub proc_root: PathBuf,
}

impl Default for Gpu {
    fn default() -> Self {
        Self { backend: Backend::default(), proc_root: "/proc".into() }
    }
}

/// `[schedule]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Whether streams that are far ahead of their viewers wait for those that aren't.
    pub enabled: bool,
    /// Media written beyond what the viewer can have watched, in seconds, with which a stream waits
    /// while others have less.
    pub comfortable_lead_seconds: f64,
    /// The same below which no stream waits, in seconds; three segments if that is more.
    pub needed_lead_seconds: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            enabled: true,
            comfortable_lead_seconds: DEFAULT_COMFORTABLE_LEAD_SECONDS,
            needed_lead_seconds: DEFAULT_NEEDED_LEAD_SECONDS,
        }
    }
}

/// What streams run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// On the GPU what it has been seen doing, the rest in software.
    #[default]
    Auto,
    /// On the GPU, or not here: a stream whose picture a GPU neither decodes nor encodes is left to
    /// the hook's own ffmpeg.
    Vaapi,
    /// No GPU is even looked at.
    Software,
}

/// `[worker]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// The worker's program. Unset: `rendergate-worker` beside `rendergate`.
    pub program: Option<PathBuf>,
    /// Workers kept warm; 0 starts each when its job comes.
    pub warm: usize,
    /// Time-out for a worker to become warm, in seconds.
    pub ready_seconds: f64,
    /// Pause before a taken worker is replaced, in seconds. Doesn't apply while a job waits.
    pub refill_seconds: f64,
    /// Niceness while warming up; applies only where it can be undone (root, `CAP_SYS_NICE` or
    /// `RLIMIT_NICE`).
    pub warm_nice: i32,
    /// GStreamer's registry. Unset: in `$CACHE_DIRECTORY`, `$XDG_CACHE_HOME/rendergate`,
    /// `~/.cache/rendergate` or beside the socket, the first that can be written.
    pub registry: Option<PathBuf>,
    /// `best-effort`, `required` or `off`: whether workers keep to the files, and give up the system
    /// calls, that they need not.
    pub sandbox: Sandboxing,
    /// Files and folders that workers may read besides: libraries, plugins, drivers or fonts in unusual
    /// places. Absolute, without colons.
    pub sandbox_read: Vec<PathBuf>,
    /// The same that they may also write: where GStreamer's or libva's traces go.
    pub sandbox_write: Vec<PathBuf>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            program: None,
            warm: DEFAULT_WARM_WORKERS,
            ready_seconds: DEFAULT_READY_SECONDS,
            refill_seconds: DEFAULT_REFILL_SECONDS,
            warm_nice: DEFAULT_WARM_NICE,
            registry: None,
            sandbox: Sandboxing::default(),
            sandbox_read: Vec::new(),
            sandbox_write: Vec::new(),
        }
    }
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// `address:port`, or `off`.
    pub listen: String,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: DEFAULT_HTTP.into() }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Lines for people or for programs.
    pub format: LogFormat,
    /// What is logged: `info`, `debug`, or per part as in `info,gateway::stream=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: DEFAULT_LOG_FILTER.into() }
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long running streams may go on after SIGTERM, in seconds.
    pub drain_seconds: f64,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_seconds: DEFAULT_DRAIN_SECONDS }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a value of the wrong kind.
    #[error("in the configuration {path}: {source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// With line, key and the allowed ones.
        source: Box<toml::de::Error>,
    },
    /// A value outside of what makes sense.
    #[error("{key} is {value}, allowed is {allowed}")]
    Value {
        /// `section.key` or the variable's name.
        key: &'static str,
        /// As given.
        value: String,
        /// The range or choice.
        allowed: &'static str,
    },
}

impl Config {
    /// Reads `file`, or [`DEFAULT_FILE`] if that exists, or nothing; then applies the variables
    /// that `variable` gives. Says which file was read.
    ///
    /// # Errors
    /// [`ConfigError`]; a missing file only if it was named.
    pub fn load(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Option<PathBuf>), ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let (mut config, read) = match std::fs::read_to_string(path) {
            Ok(text) => (Self::parse(&text, path)?, Some(path.to_owned())),
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                (Self::default(), None)
            }
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        config.apply_variables(variable)?;
        Ok((config, read))
    }

    /// The text of a file; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError::Parse`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// The one place where the environment changes a setting. An empty variable counts as unset.
    fn apply_variables(
        &mut self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let get = |name| variable(name).filter(|value| !value.is_empty());
        if let Some(value) = get("RENDERGATE_SOCKET") {
            self.session.socket = Some(value.into());
        }
        if let Some(value) = get("RENDERGATE_GROUP") {
            self.session.group = Some(value);
        }
        if let Some(value) = get("RENDERGATE_MAX_STREAMS") {
            self.streams.max_streams = number("RENDERGATE_MAX_STREAMS", value)?;
        }
        if let Some(value) = get("RENDERGATE_WORKER") {
            self.worker.program = Some(value.into());
        }
        if let Some(value) = get("RENDERGATE_WARM_WORKERS") {
            self.worker.warm = number("RENDERGATE_WARM_WORKERS", value)?;
        }
        if let Some(value) = get("RENDERGATE_BACKEND") {
            self.gpu.backend = match value.as_str() {
                "auto" => Backend::Auto,
                "vaapi" => Backend::Vaapi,
                "software" => Backend::Software,
                _ => {
                    let (key, allowed) = ("RENDERGATE_BACKEND", "auto, vaapi or software");
                    return Err(ConfigError::Value { key, value, allowed });
                }
            };
        }
        if let Some(value) = get("RENDERGATE_SANDBOX") {
            let all = [Sandboxing::BestEffort, Sandboxing::Required, Sandboxing::Off];
            let found = all.into_iter().find(|one| one.as_str() == value);
            let (key, allowed) = ("RENDERGATE_SANDBOX", "best-effort, required or off");
            self.worker.sandbox = found.ok_or(ConfigError::Value { key, value, allowed })?;
        }
        let folders = |list: String| list.split(':').map(PathBuf::from).collect();
        if let Some(list) = get("RENDERGATE_SANDBOX_READ") {
            self.worker.sandbox_read = folders(list);
        }
        if let Some(list) = get("RENDERGATE_SANDBOX_WRITE") {
            self.worker.sandbox_write = folders(list);
        }
        for (key, setting) in [
            ("RENDERGATE_ADMISSION", &mut self.admission.enabled),
            ("RENDERGATE_SHARE", &mut self.streams.share),
        ] {
            if let Some(value) = get(key) {
                *setting = match value.as_str() {
                    "on" => true,
                    "off" => false,
                    _ => return Err(ConfigError::Value { key, value, allowed: "on or off" }),
                };
            }
        }
        if let Some(value) = get("RENDERGATE_CACHE_MB") {
            self.cache.megabytes = number("RENDERGATE_CACHE_MB", value)?;
        }
        if let Some(value) = get("RENDERGATE_HTTP") {
            self.http.listen = value;
        }
        if let Some(value) = get("RENDERGATE_LOG") {
            self.log.filter = value;
        }
        if let Some(value) = get("RENDERGATE_LOG_FORMAT") {
            self.log.format = match value.as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => {
                    let allowed = "text or json";
                    return Err(ConfigError::Value {
                        key: "RENDERGATE_LOG_FORMAT",
                        value,
                        allowed,
                    });
                }
            };
        }
        if let Some(value) = get("RENDERGATE_DRAIN_SECONDS") {
            self.shutdown.drain_seconds = number("RENDERGATE_DRAIN_SECONDS", value)?;
        }
        Ok(())
    }

    /// Checks what the types don't.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let seconds = [
            ("session.first_message_seconds", self.session.first_message_seconds),
            ("streams.accept_seconds", self.streams.accept_seconds),
            ("streams.stall_seconds", self.streams.stall_seconds),
            ("streams.running_seconds", self.streams.running_seconds),
            ("streams.quit_seconds", self.streams.quit_seconds),
            ("worker.ready_seconds", self.worker.ready_seconds),
            ("worker.refill_seconds", self.worker.refill_seconds),
            ("shutdown.drain_seconds", self.shutdown.drain_seconds),
            ("schedule.comfortable_lead_seconds", self.schedule.comfortable_lead_seconds),
            ("schedule.needed_lead_seconds", self.schedule.needed_lead_seconds),
        ];
        for (key, value) in seconds {
            if !(0.0..=LONGEST_SECONDS).contains(&value) {
                let allowed = "0 to 86400 seconds";
                return Err(ConfigError::Value { key, value: value.to_string(), allowed });
            }
        }
        let counts = [
            ("session.max_connections", self.session.max_connections, 1..=10_000, "1 to 10000"),
            ("worker.warm", self.worker.warm, 0..=64, "0 to 64"),
        ];
        for (key, value, range, allowed) in counts {
            if !range.contains(&value) {
                return Err(ConfigError::Value { key, value: value.to_string(), allowed });
            }
        }
        if !(0..=19).contains(&self.worker.warm_nice) {
            let value = self.worker.warm_nice.to_string();
            return Err(ConfigError::Value { key: "worker.warm_nice", value, allowed: "0 to 19" });
        }
        for (key, paths) in [
            ("worker.sandbox_read", &self.worker.sandbox_read),
            ("worker.sandbox_write", &self.worker.sandbox_write),
        ] {
            let usable = |path: &&PathBuf| {
                path.is_absolute() && path.to_str().is_some_and(|text| !text.contains(':'))
            };
            if let Some(path) = paths.iter().find(|path| !usable(path)) {
                let value = path.display().to_string();
                return Err(ConfigError::Value {
                    key,
                    value,
                    allowed: "absolute, without a colon",
                });
            }
        }
        let target = self.admission.target_utilisation;
        if !(target > 0.0 && target <= 1.0) {
            let key = "admission.target_utilisation";
            let allowed = "above 0 up to 1";
            return Err(ConfigError::Value { key, value: target.to_string(), allowed });
        }
        let share = self.cache.free_share;
        if !(0.0..1.0).contains(&share) {
            let (key, allowed) = ("cache.free_share", "0 to below 1");
            return Err(ConfigError::Value { key, value: share.to_string(), allowed });
        }
        let niceness = self.admission.ffmpeg_niceness;
        if niceness > 19 {
            let key = "admission.ffmpeg_niceness";
            return Err(ConfigError::Value {
                key,
                value: niceness.to_string(),
                allowed: "0 to 19",
            });
        }
        self.http_address().map(drop)
    }

    /// Where to serve HTTP, if at all.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if it is no address.
    pub fn http_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.http.listen == "off" {
            return Ok(None);
        }
        self.http.listen.parse().map(Some).map_err(|_| ConfigError::Value {
            key: "http.listen",
            value: format!("{:?}", self.http.listen),
            allowed: "ADDRESS:PORT (127.0.0.1:9370, [::]:9370) or off",
        })
    }

    /// As a file that means the same.
    ///
    /// # Panics
    /// Never: each setting has a TOML form.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings are tables, numbers and strings")
    }
}

/// A setting in seconds as a duration. Only after [`Config::validate`].
pub fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs_f64(LONGEST_SECONDS))
}

fn number<T: std::str::FromStr>(key: &'static str, value: String) -> Result<T, ConfigError> {
    value.parse().map_err(|_| ConfigError::Value { key, value, allowed: "a number from 0" })
}

#[cfg(test)]
mod tests;
