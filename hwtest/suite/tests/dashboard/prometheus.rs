//! A Prometheus of one's own, without anything to keep.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Seconds between scrapes.
pub const SCRAPE_SECONDS: u32 = 1;

/// A program of Prometheus'.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("RENDERGATE_PROMETHEUS").expect("run by ./dev dashboard");
    Path::new(&folder).join(name)
}

pub struct Prometheus {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes the gateway at that address, and evaluates these rules.
    pub fn start(gateway: &str, rules: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{ scrape_interval: {SCRAPE_SECONDS}s, evaluation_interval: 1s }}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n  - job_name: rendergate\n    static_configs: [{{ targets: ['{gateway}'] }}]\n",
            rules.canonicalize().unwrap().display()
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        // Free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus runs");
        Self { child, port, folder }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What it answers; `None` while it doesn't.
    fn get(&self, path: &str) -> Option<Value> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(socket, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// The values of an instant query; `None` while it doesn't answer.
    ///
    /// # Panics
    /// If Prometheus refuses the query.
    #[track_caller]
    pub fn query(&self, query: &str) -> Option<Vec<f64>> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(query)))?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let value = |series: &Value| series["value"][1].as_str()?.parse().ok();
        Some(answer["data"]["result"].as_array()?.iter().filter_map(value).collect())
    }

    /// The values of a query over the last ten minutes, second by second, as a panel asks it; `None` while
    /// it doesn't answer.
    ///
    /// # Panics
    /// If Prometheus refuses the query.
    #[track_caller]
    pub fn query_range(&self, query: &str) -> Option<Vec<f64>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let (query, start) = (encoded(query), now - 600);
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={now}&step=1");
        let answer = self.get(&path)?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let values = |series: &Value| -> Option<Vec<f64>> {
            let values = series["values"].as_array()?.iter();
            Some(values.filter_map(|value| value[1].as_str()?.parse().ok()).collect())
        };
        Some(answer["data"]["result"].as_array()?.iter().filter_map(values).flatten().collect())
    }

    /// The alerts' rules, with their health and state.
    pub fn rules(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/rules").unwrap_or_default();
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().filter_map(|group| group["rules"].as_array().cloned()).flatten().collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn encoded(query: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    query.bytes().map(byte).collect()
}
