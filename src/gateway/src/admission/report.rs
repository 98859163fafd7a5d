//! What is told of capacity: `/v1/capacity`, and gauges for Prometheus.

use std::collections::BTreeMap;

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use serde::{Deserialize, Serialize};

use super::costs::{Costs, Resource};
use super::policy::{Room, Step};

/// The answer of `/v1/capacity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Share of each engine class that is given to streams.
    pub target_utilisation: f64,
    /// What `streams_left` counts: the most common of the recent streams, `h264 1920x1080...`.
    pub counted_stream: String,
    /// The GPUs that work, and the processor.
    pub devices: Vec<DeviceCapacity>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceCapacity {
    /// The GPU's node, or `processor`.
    pub device: String,
    /// How many more such streams fit; absent until it is known what they cost on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams_left: Option<u32>,
    /// Streams that have a part on it.
    pub streams: usize,
    /// By engine class.
    pub engines: BTreeMap<String, Use>,
    /// What it is known to do.
    pub tasks: Vec<TaskCapacity>,
}

/// An engine class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// What running streams need, in busy seconds per second.
    pub load: f64,
    /// What others than streams take, likewise; absent where it isn't known, as on GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<f64>,
    /// What is given to streams, likewise.
    pub capacity: f64,
}

/// A task on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskCapacity {
    /// `decode`, `deinterlace`, `scale`, `tone_map`, `encode`.
    pub operation: String,
    /// `h264`, `hevc10`; empty for filters.
    pub codec: String,
    /// An encoder's speed in its own words; empty for its default.
    pub preset: String,
    /// What the whole device does, if it does nothing else.
    pub megapixels_per_second: f64,
    /// Engine-seconds per megapixel, by engine class.
    pub seconds_per_megapixel: BTreeMap<String, f64>,
    /// Measurements that it comes from.
    pub samples: u32,
}

/// The tasks of a device, whose capacity is in `room`.
pub(crate) fn tasks(costs: &Costs, device: &str, room: &Room) -> Vec<TaskCapacity> {
    let Some(known) = costs.devices.get(device) else { return Vec::new() };
    let capacity = |class: &String| {
        let resource = Resource { device: device.to_owned(), class: class.clone() };
        room.capacity.get(&resource).copied()
    };
    let task = |(task, cost): (&gpu::Task, &super::costs::Cost)| {
        let rates = cost.seconds.iter().filter(|(_, seconds)| **seconds > 0.0);
        let rates = rates.filter_map(|(class, seconds)| Some(capacity(class)? / seconds));
        Some(TaskCapacity {
            operation: task.action.label().to_owned(),
            codec: task.codec.clone(),
            preset: task.preset.clone(),
            megapixels_per_second: rates.min_by(f64::total_cmp)?,
            seconds_per_megapixel: cost.seconds.clone(),
            samples: cost.samples,
        })
    };
    known.tasks.iter().filter_map(task).collect()
}

/// What Prometheus is told.
#[derive(Debug)]
pub(super) struct Gauges {
    left: IntGaugeVec,
    capacity: GaugeVec,
    load: GaugeVec,
    others: GaugeVec,
    degraded: IntCounterVec,
}

impl Gauges {
    /// # Errors
    /// A name or label that Prometheus doesn't allow.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let left = IntGaugeVec::new(
            Opts::new(
                "rendergate_streams_left",
                "How many more of the most common recent stream fit on the device",
            ),
            &["device"],
        )?;
        let capacity = GaugeVec::new(
            Opts::new(
                "rendergate_capacity_megapixels_per_second",
                "What the device does of one operation if it does nothing else",
            ),
            &["device", "operation", "codec", "preset"],
        )?;
        let load = GaugeVec::new(
            Opts::new(
                "rendergate_capacity_used_ratio",
                "What running streams need to play, as a share of what is given to streams",
            ),
            &["device", "engine"],
        )?;
        let others = GaugeVec::new(
            Opts::new(
                "rendergate_capacity_others_ratio",
                "What others than streams take of the processor, as a share of what is given to streams",
            ),
            &["device", "engine"],
        )?;
        let degraded = IntCounterVec::new(
            Opts::new(
                "rendergate_stream_degraded_total",
                "Streams run other than asked for because a device was full, by what was done and \
                 which engine was full",
            ),
            &["step", "reason"],
        )?;
        registry.register(Box::new(left.clone()))?;
        registry.register(Box::new(capacity.clone()))?;
        registry.register(Box::new(load.clone()))?;
        registry.register(Box::new(others.clone()))?;
        registry.register(Box::new(degraded.clone()))?;
        Ok(Self { left, capacity, load, others, degraded })
    }

    pub(super) fn degraded(&self, step: Step, engine: &str) {
        self.degraded.with_label_values(&[step.label(), engine]).inc();
    }

    pub(super) fn set(&self, capacity: &Capacity) {
        self.left.reset();
        self.capacity.reset();
        self.load.reset();
        self.others.reset();
        for device in &capacity.devices {
            let name = device.device.as_str();
            if let Some(left) = device.streams_left {
                self.left.with_label_values(&[name]).set(left.into());
            }
            for (engine, used) in &device.engines {
                self.load.with_label_values(&[name, engine]).set(used.load / used.capacity);
                if let Some(others) = used.others {
                    self.others.with_label_values(&[name, engine]).set(others / used.capacity);
                }
            }
            for task in &device.tasks {
                let labels = [name, &task.operation, &task.codec, &task.preset];
                self.capacity.with_label_values(&labels).set(task.megapixels_per_second);
            }
        }
    }
}
