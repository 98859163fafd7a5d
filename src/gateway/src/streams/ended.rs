//! Streams that have ended, for those who come to look after something went wrong.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use session::StreamId;

use super::line::rounded;
use super::{Record, rfc3339};

/// So many are kept: an evening's worth, in some kilobytes.
pub(super) const KEPT: usize = 20;
/// Characters of a reason that are kept: what a worker says can be long.
const REASON_CHARS: usize = 300;

/// One line of `ended` in `/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedLine {
    /// `s1`; absent if it was declined before it had a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the first input's file without its extension.
    pub item: String,
    /// As in `rendergate_streams_ended_total{how}`; `declined` if it was left to the hook's ffmpeg.
    pub how: String,
    /// What went wrong, if something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// As in `/v1/streams`.
    pub backend: String,
    /// Media time over wall time in which it was neither held nor paused.
    pub speed: f64,
    /// Media time written, in seconds.
    pub position_s: f64,
    /// From the job's arrival to the first complete segment, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_segment_s: Option<f64>,
    /// When the job came, RFC 3339 in UTC.
    pub since: String,
    /// When it was over, RFC 3339 in UTC.
    pub ended: String,
}

fn shortened(why: &str) -> String {
    why.chars().take(REASON_CHARS).collect()
}

impl EndedLine {
    /// `None` if nothing was noted of its end: it had not begun.
    pub(super) fn new(id: StreamId, record: &Record) -> Option<Self> {
        let (how, why) = record.end.as_ref()?;
        Some(Self {
            id: Some(id.to_string()),
            item: record.item.clone(),
            how: (*how).to_owned(),
            why: why.as_deref().map(shortened),
            backend: record.backend().to_owned(),
            speed: rounded(record.overall_speed()),
            position_s: rounded(record.progress.position_us as f64 / 1e6),
            first_segment_s: record.first_segment.map(|took| rounded(took.as_secs_f64())),
            since: rfc3339(record.since),
            ended: rfc3339(SystemTime::now()),
        })
    }

    /// Of a job that never became a stream.
    pub(super) fn declined(item: String, why: &str) -> Self {
        let now = rfc3339(SystemTime::now());
        Self {
            id: None,
            item,
            how: "declined".into(),
            why: Some(shortened(why)),
            backend: "pending".into(),
            speed: 0.0,
            position_s: 0.0,
            first_segment_s: None,
            since: now.clone(),
            ended: now,
        }
    }
}
