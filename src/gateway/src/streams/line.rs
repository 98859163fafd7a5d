//! A running stream as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use session::StreamId;

use super::{Record, State, rfc3339};

/// One line of `/v1/streams`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamLine {
    /// `s1`.
    pub id: String,
    /// Name of the first input's file without its extension.
    #[serde(default)]
    pub item: String,
    /// Path of the first input.
    pub input: String,
    /// Path of the playlist.
    pub output: String,
    /// Codec of the source's picture, as ffmpeg names it; absent until the worker runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_in: Option<String>,
    /// Its size in pixels, `3840x2160`, if the container states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_in: Option<String>,
    /// Codec of the output's picture, `copy`, or empty without a picture.
    #[serde(default)]
    pub video_out: String,
    /// Its size as asked for: `1280x720`, `max 1280x720`, `source`, or empty.
    #[serde(default)]
    pub size_out: String,
    /// `software`, ...; `pending` until the worker runs.
    pub backend: String,
    /// The GPU's node, if it runs on one; before it runs, the one that it most likely will.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Why it isn't all on a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Decoder, filters, encoder; empty until the worker runs.
    pub description: String,
    /// The layers of the sandbox that hold its worker in: `landlock`, `seccomp`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sandbox: Option<Vec<String>>,
    /// Where it is in its life.
    pub state: State,
    /// It stands still for streams that need it more.
    #[serde(default)]
    pub held: bool,
    /// The disk of its output is full, and it waits for room.
    #[serde(default)]
    pub no_room: bool,
    /// Media time over wall time, of the last 20 seconds in which it was neither held nor paused.
    pub speed: f64,
    /// Media time written, in seconds from the first frame.
    pub position_s: f64,
    /// Media produced minus media that a viewer can have watched, in seconds.
    pub lead_s: f64,
    /// Where it waits for others, as media time in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub horizon_s: Option<f64>,
    /// From the job's arrival to the first complete segment, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_segment_s: Option<f64>,
    /// Engine time on the GPU since it began, by engine class, in seconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub gpu_seconds: BTreeMap<String, f64>,
    /// Share of the GPU's engines that it takes of late, by engine class, 0 to 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub gpu_utilization: BTreeMap<String, f64>,
    /// Bytes in segments.
    pub bytes: u64,
    /// Frames written.
    pub frames: u64,
    /// Complete segments.
    pub segments: u64,
    /// When the job came, RFC 3339 in UTC.
    pub since: String,
    /// Process of the worker.
    pub worker_pid: Option<u32>,
    /// Process of the hook, if it can be seen from here.
    pub hook_pid: Option<u32>,
}

impl StreamLine {
    pub(super) fn new(id: StreamId, record: &mut Record) -> Self {
        let size = |(width, height): (u32, u32)| format!("{width}x{height}");
        let engines = &record.gpu_time.engines;
        Self {
            id: id.to_string(),
            item: record.item.clone(),
            input: record.input.clone(),
            output: record.output.clone(),
            video_in: record.source.as_ref().map(|source| source.codec.clone()),
            size_in: record.source.as_ref().and_then(|source| source.size).map(size),
            video_out: record.video_out.to_owned(),
            size_out: record.size.clone(),
            backend: record.backend().to_owned(),
            device: record.node.as_ref().map(|node| node.display().to_string()),
            reason: record.reason.clone(),
            description: record.description.clone().unwrap_or_default(),
            sandbox: record.sandbox.clone(),
            state: record.state,
            held: record.is_held(),
            no_room: record.no_room,
            gpu_seconds: engines
                .iter()
                .map(|(name, e)| (name.clone(), rounded(e.seconds)))
                .collect(),
            gpu_utilization: shares(&record.gpu_time.utilization),
            speed: rounded(record.speed()),
            position_s: rounded(record.progress.position_us as f64 / 1e6),
            lead_s: rounded(record.lead().as_secs_f64()),
            horizon_s: record.horizon.borrow().map(|horizon| rounded(horizon.as_secs_f64())),
            first_segment_s: record.first_segment.map(|took| rounded(took.as_secs_f64())),
            bytes: record.progress.bytes,
            frames: record.progress.frames,
            segments: record.segments,
            since: rfc3339(record.since),
            worker_pid: record.worker_pid,
            hook_pid: record.hook_pid,
        }
    }
}

/// To thousandths.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The same for shares by engine class.
pub(crate) fn shares(exact: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    exact.iter().map(|(name, share)| (name.clone(), rounded(*share))).collect()
}
