//! Headless Chromium, driven by `browser.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gateway::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};

/// The script itself gives up on anything after 20 s.
const LIMIT: Duration = Duration::from_secs(60);

/// What is to be seen on the page.
#[derive(Debug, Deserialize)]
pub struct Seen {
    pub state: String,
    pub title: String,
    pub text: String,
    pub streams: Vec<Vec<String>>,
    pub devices: Vec<Vec<String>>,
    pub ended: Vec<Vec<String>>,
    pub scroll_width: u32,
    pub client_width: u32,
    /// How full the bars of the streams' engines are, 0 to 1.
    pub bars: Vec<f64>,
    pub images: u32,
    pub scripts: u32,
    /// What a script that came by a film's name would have left.
    pub ran: String,
    /// Cells that a phone shows without a label.
    pub unlabelled: u32,
    /// What the console complained of, violations of the policy too.
    pub errors: Vec<String>,
    /// How often the status was fetched.
    pub asked: u32,
    /// Requests to anywhere but the gateway.
    pub elsewhere: Vec<String>,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

pub const DESKTOP: View = View { width: 1280, height: 800, dark: false };
pub const DARK: View = View { dark: true, ..DESKTOP };
pub const PHONE: View = View { width: 360, height: 740, dark: false };

pub struct Browser {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Browser {
    pub fn start() -> Self {
        let tools = std::env::var_os("RENDERGATE_BROWSER").expect("run by ./dev page");
        let mut child = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/browser.mjs"))
            .env("RENDERGATE_BROWSER", tools)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node runs");
        let orders = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).all(|line| sender.send(line).is_ok());
        });
        Self { child, orders, answers }
    }

    #[track_caller]
    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").unwrap();
        let answer = self.answers.recv_timeout(LIMIT).expect("the browser answers");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer.get("failed").is_none(), "{order}: {answer}");
        answer
    }

    /// Opens the gateway's page, and waits until it shows something.
    #[track_caller]
    pub fn open(&mut self, url: &str, view: View, status: Option<&Status>) {
        let View { width, height, dark } = view;
        self.order(&json!({
            "do": "open", "url": url, "width": width, "height": height, "dark": dark,
            "status": status,
        }));
        self.until("live");
    }

    #[track_caller]
    pub fn until(&mut self, state: &str) {
        self.order(&json!({ "do": "until", "state": state }));
    }

    #[track_caller]
    pub fn hide(&mut self, hidden: bool) {
        self.order(&json!({ "do": "hide", "hidden": hidden }));
    }

    #[track_caller]
    pub fn pass(&mut self, time: Duration) {
        self.order(&json!({ "do": "pass", "ms": time.as_millis() }));
    }

    /// What is to be seen; kept as a picture of that name, if there is where to.
    #[track_caller]
    pub fn see(&mut self, shot: Option<&str>) -> Seen {
        let folder = std::env::var_os("RENDERGATE_SHOTS").map(PathBuf::from);
        let shot = folder.zip(shot).map(|(folder, name)| folder.join(format!("{name}.png")));
        serde_json::from_value(self.order(&json!({ "do": "see", "shot": shot }))).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with the script, which ends with its orders.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
