//! `rendergate streams`: what a running gateway does, as a table.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::streams::StreamLine;

/// A gateway answers from memory; whoever takes longer hangs.
const LIMIT: Duration = Duration::from_secs(5);
/// Far more than a list of streams takes.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// Asks the gateway at this address.
///
/// # Errors
/// What the connection reports; `InvalidData` for an answer that no gateway gives.
pub fn fetch(address: SocketAddr) -> io::Result<Vec<StreamLine>> {
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    // Version 1.0: the answer ends with the connection.
    write!(socket, "GET /v1/streams HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    socket.take(MAX_ANSWER).read_to_string(&mut answer)?;
    let no_gateway = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| no_gateway("the answer is no HTTP"))?;
    if !head.lines().next().is_some_and(|status| status.contains(" 200 ")) {
        return Err(no_gateway("the answer is not that of a gateway"));
    }
    serde_json::from_str(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// One line per stream below a line of headings; a sentence if there is none.
pub fn render(streams: &[StreamLine]) -> String {
    if streams.is_empty() {
        return "no streams\n".into();
    }
    let head = ["ID", "STATE", "BACKEND", "SPEED", "POSITION", "LEAD", "SEGMENTS", "MB", "INPUT"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(streams.iter().map(|stream| {
        [
            stream.id.clone(),
            stream.state.as_str().to_owned(),
            stream.backend.clone(),
            format!("{:.2}x", stream.speed),
            clock(stream.position_s),
            format!("{:.0}s", stream.lead_s),
            stream.segments.to_string(),
            format!("{:.1}", stream.bytes as f64 / 1e6),
            stream.input.clone(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let line: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    format!("{:02}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::State;

    #[test]
    fn columns_stand_below_their_headings() {
        assert_eq!(render(&[]), "no streams\n");
        let line = StreamLine {
            id: "s12".into(),
            item: "A B".into(),
            video_in: None,
            size_in: None,
            video_out: "h264".into(),
            size_out: "source".into(),
            held: false,
            no_room: false,
            first_segment_s: None,
            gpu_utilization: Default::default(),
            input: "/m/A B.mkv".into(),
            output: "/t/x.m3u8".into(),
            backend: "software".into(),
            device: None,
            reason: None,
            description: String::new(),
            sandbox: None,
            state: State::Running,
            speed: 3.456,
            position_s: 3725.9,
            lead_s: 61.4,
            horizon_s: None,
            gpu_seconds: Default::default(),
            bytes: 12_345_678,
            frames: 1,
            segments: 1242,
            since: "2026-01-01T00:00:00Z".into(),
            worker_pid: Some(1),
            hook_pid: None,
        };
        let expect = "\
ID   STATE    BACKEND   SPEED  POSITION  LEAD  SEGMENTS  MB    INPUT
s12  running  software  3.46x  01:02:05  61s   1242      12.3  /m/A B.mkv
";
        assert_eq!(render(&[line]), expect);
    }
}
