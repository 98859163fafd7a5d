//! What the gateway says of itself and its GPUs as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::gateway::Context;
use crate::streams::{EndedLine, State, StreamLine, Streams, shares};

/// `/v1/status`: all that the page for people shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the gateway.
    pub version: String,
    /// Of the language between hook, gateway and worker.
    pub protocol: u32,
    /// How long it has run, in seconds.
    pub uptime_s: u64,
    /// Why a job that came now would not be taken; absent if it would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Why no stream gets a GPU now; absent if one works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_gpu: Option<String>,
    /// Workers that wait for a stream.
    pub warm_workers: usize,
    /// Streams at once, as configured; absent without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<usize>,
    /// Jobs left to the hook's own ffmpeg since the start, by reason.
    pub declined: BTreeMap<String, u64>,
    /// As in `/v1/streams`.
    pub streams: Vec<StreamLine>,
    /// As in `/v1/devices`.
    pub devices: Vec<DeviceLine>,
    /// The last twenty streams that ended or were declined, the latest first.
    pub ended: Vec<EndedLine>,
}

/// One line of `/v1/devices`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceLine {
    /// `/dev/dri/renderD128`.
    pub node: String,
    /// Maker and PCI id of the chip, `Intel 8086:3e92`, if sysfs says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chip: Option<String>,
    /// Name and version of the VA-API driver, while the GPU works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// `looking` (not looked at yet), `works`, `suspect` (a stream failed on it), `broken` or `gone`.
    pub state: String,
    /// Why it doesn't work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Streams that run on it, or are about to.
    pub streams: usize,
    /// Share of its engines that all streams take, by engine class, 0 to 1.
    pub gpu_utilization: BTreeMap<String, f64>,
}

pub(crate) fn status(context: &Context) -> Status {
    let limit = context.config.streams.max_streams;
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: session::PROTOCOL,
        uptime_s: context.began.elapsed().as_secs(),
        not_ready: context.readiness().err(),
        no_gpu: context.gpus.why_none(),
        warm_workers: context.pool.warm(),
        max_streams: (limit > 0).then_some(limit),
        declined: context.metrics.declined_so_far(),
        streams: context.streams.lines(),
        devices: devices(context),
        ended: context.streams.ended(),
    }
}

pub(crate) fn devices(context: &Context) -> Vec<DeviceLine> {
    let known = context.gpus.known().into_iter();
    known
        .map(|gpu| DeviceLine {
            streams: context.streams.on_node(&gpu.node),
            gpu_utilization: utilization(&context.streams, &gpu.node),
            node: gpu.node.display().to_string(),
            chip: gpu.chip.map(|chip| format!("{} {chip}", chip.maker())),
            driver: gpu.driver,
            state: gpu.state.into(),
            reason: gpu.reason,
        })
        .collect()
}

fn utilization(streams: &Streams, node: &Path) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    streams.each(|_, record| {
        if record.node.as_deref() == Some(node) && record.state != State::Ending {
            for (engine, share) in &record.gpu_time.utilization {
                *all.entry(engine.clone()).or_insert(0.0) += share;
            }
        }
    });
    shares(&all)
}
