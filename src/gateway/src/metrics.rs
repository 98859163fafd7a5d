//! What Prometheus is told.
//!
//! Counters and histograms are kept here; gauges per stream are filled in from the table of
//! streams at each scrape and emptied before the next, so that they end with their stream.

use std::collections::BTreeMap;

use gpu::ReasonKind;
use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{
    CounterVec, Encoder, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use session::Sandbox;

use crate::ending;
use crate::streams::{Record, State, Streams};

/// Seconds; a good start is below one, ffmpeg's own on a small machine above two.
const FIRST_SEGMENT_BUCKETS: &[f64] =
    &[0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0];

/// Characters of a film's name in a label: a name can be as long as a file system, or a server, has it.
const ITEM_CHARS: usize = 120;

/// See the module's description. Clones share their values.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    streams: IntGaugeVec,
    info: IntGaugeVec,
    speed: GaugeVec,
    lead: GaugeVec,
    held: IntGaugeVec,
    no_room: IntGaugeVec,
    off_gpu: IntGaugeVec,
    engine_seconds: GaugeVec,
    engine_share: GaugeVec,
    engine_withheld: IntGaugeVec,
    gpu_engine_seconds: CounterVec,
    gpu_engine_share: GaugeVec,
    warm: IntGauge,
    first_segment: Histogram,
    worker_restarts: IntCounterVec,
    gpu: IntGaugeVec,
    gpu_works: IntGaugeVec,
    sandboxed: IntGaugeVec,
    running: IntCounterVec,
    resumed: IntCounter,
    ended: IntCounterVec,
    declined: IntCounterVec,
    bad_connections: IntCounterVec,
}

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// A name or label that Prometheus doesn't allow.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        // Those that are known beforehand begin at zero: Prometheus sees no increase in a series that
        // appears with its first event.
        let counters = |name: &str, help: &str, label: &str, known: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            for value in known {
                counters.with_label_values(&[value]);
            }
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let floats = |name: &str, help: &str, labels: &[&str]| {
            let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let warm = IntGauge::new("rendergate_workers_warm", "Workers that wait for a stream")?;
        registry.register(Box::new(warm.clone()))?;
        let resumed = IntCounter::new(
            "rendergate_streams_resumed_total",
            "Streams that were begun by another gateway and went on with this one",
        )?;
        registry.register(Box::new(resumed.clone()))?;
        let first_segment = Histogram::with_opts(
            HistogramOpts::new(
                "rendergate_first_segment_seconds",
                "From the arrival of a job to its first complete segment",
            )
            .buckets(FIRST_SEGMENT_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(first_segment.clone()))?;
        let running = IntCounterVec::new(
            Opts::new(
                "rendergate_streams_started_total",
                "Streams that began to run, by backend (vaapi, mixed, software) and why not all of \
                 it is on a GPU",
            ),
            &["backend", "reason"],
        )?;
        registry.register(Box::new(running.clone()))?;
        // As for `counters`.
        for backend in ["vaapi", "software"] {
            running.with_label_values(&[backend, "none"]);
        }
        for reason in ReasonKind::ALL {
            running.with_label_values(&["mixed", reason.label()]);
            running.with_label_values(&["software", reason.label()]);
        }
        let gpu_engine_seconds = CounterVec::new(
            Opts::new(
                "rendergate_gpu_engine_seconds_total",
                "Time that the GPU's engines have worked for streams, ended ones too",
            ),
            &["device", "engine"],
        )?;
        registry.register(Box::new(gpu_engine_seconds.clone()))?;
        gauges("rendergate_build_info", "1, with the version as a label", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let stream_labels = &["stream", "backend", "video_in", "video_out", "size", "item"];
        Ok(Self {
            streams: gauges("rendergate_streams", "Streams", &["state", "backend"])?,
            info: gauges("rendergate_stream_info", "1 per stream, what it is", stream_labels)?,
            speed: floats(
                "rendergate_stream_speed_ratio",
                "Media time over wall time, of the last 20 s in which nothing held or paused the stream",
                &["stream"],
            )?,
            engine_seconds: floats(
                "rendergate_stream_gpu_engine_seconds_total",
                "Time that the GPU's engines have worked for the stream",
                &["stream", "engine"],
            )?,
            engine_share: floats(
                "rendergate_stream_gpu_utilization_ratio",
                "Share of the GPU's engines that the stream takes, 0 to 1",
                &["stream", "engine"],
            )?,
            engine_withheld: gauges(
                "rendergate_stream_gpu_time_withheld",
                "1 if the driver doesn't say what its engines do for the stream",
                &["stream"],
            )?,
            gpu_engine_seconds,
            gpu_engine_share: floats(
                "rendergate_gpu_engine_utilization_ratio",
                "Share of the GPU's engines that all streams take, 0 to 1",
                &["device", "engine"],
            )?,
            lead: floats(
                "rendergate_stream_lead_seconds",
                "Media produced minus media that a viewer can have watched",
                &["stream"],
            )?,
            held: gauges(
                "rendergate_stream_held",
                "1 if the stream stands still for others that need it more, else 0",
                &["stream"],
            )?,
            no_room: gauges(
                "rendergate_stream_no_room",
                "1 if the disk of the stream's output is full and it waits for room, else 0",
                &["stream"],
            )?,
            off_gpu: gauges(
                "rendergate_streams_off_gpu",
                "Streams that encode pictures now and aren't all on a GPU, by why",
                &["backend", "reason"],
            )?,
            worker_restarts: counters(
                "rendergate_worker_restarts_total",
                "Workers that ended other than by the end of their stream",
                "reason",
                &[
                    "died",
                    "died_at_take",
                    "died_at_start",
                    "died_idle",
                    "didnt_exit",
                    "hung",
                    "not_ready",
                    "protocol",
                ],
            )?,
            gpu: gauges("rendergate_gpu_info", "1 per GPU seen working", &["device", "driver"])?,
            gpu_works: gauges(
                "rendergate_gpu_works",
                "1 if streams may use the GPU, 0 if it doesn't work or has gone",
                &["device"],
            )?,
            sandboxed: gauges(
                "rendergate_worker_sandboxed",
                "1 if this layer of the sandbox holds in the worker that was given a stream last",
                &["layer"],
            )?,
            running,
            resumed,
            ended: counters(
                "rendergate_streams_ended_total",
                "Streams by their end",
                "how",
                &ending::HOWS,
            )?,
            declined: counters(
                "rendergate_declined_total",
                "Jobs left to the hook's own ffmpeg",
                "reason",
                &[
                    "capacity",
                    "check",
                    "descriptors",
                    "max_connections",
                    "max_streams",
                    "names",
                    "no_gpu",
                    "no_worker",
                    "peer",
                    "protocol",
                    "shutting_down",
                ],
            )?,
            bad_connections: counters(
                "rendergate_bad_connections_total",
                "Connections dropped for what they sent or who they were",
                "reason",
                &[],
            )?,
            warm,
            first_segment,
            registry,
        })
    }

    /// Where those of other modules belong.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A GPU has been seen working.
    pub(crate) fn gpu(&self, device: &str, driver: &str) {
        self.gpu.with_label_values(&[device, driver]).set(1);
    }

    /// Whether streams may use a GPU.
    pub(crate) fn gpu_works(&self, device: &str, works: bool) {
        self.gpu_works.with_label_values(&[device]).set(works.into());
    }

    /// What holds in the worker of a stream that begins.
    pub(crate) fn sandboxed(&self, sandbox: &Sandbox) {
        for (layer, held) in
            [("landlock", sandbox.landlock.is_some()), ("seccomp", sandbox.seccomp)]
        {
            self.sandboxed.with_label_values(&[layer]).set(held.into());
        }
    }

    /// The engines of a GPU have worked for a stream, so many seconds more than was known.
    pub(crate) fn engine_time(&self, device: &str, gained: &BTreeMap<String, f64>) {
        for (engine, seconds) in gained {
            self.gpu_engine_seconds.with_label_values(&[device, engine]).inc_by(*seconds);
        }
    }

    /// A stream's graph runs, on this backend, and for this reason not all of it on a GPU.
    pub(crate) fn stream_running(&self, backend: &str, reason: Option<ReasonKind>) {
        let reason = reason.map_or("none", ReasonKind::label);
        self.running.with_label_values(&[backend, reason]).inc();
    }

    pub(crate) fn worker_restarted(&self, reason: &str) {
        self.worker_restarts.with_label_values(&[reason]).inc();
    }

    /// A stream that another gateway has begun has a worker.
    pub(crate) fn stream_resumed(&self) {
        self.resumed.inc();
    }

    pub(crate) fn stream_ended(&self, how: &str) {
        self.ended.with_label_values(&[how]).inc();
    }

    pub(crate) fn declined(&self, reason: &str) {
        self.declined.with_label_values(&[reason]).inc();
    }

    pub(crate) fn bad_connection(&self, reason: &str) {
        self.bad_connections.with_label_values(&[reason]).inc();
    }

    pub(crate) fn first_segment(&self, seconds: f64) {
        self.first_segment.observe(seconds);
    }

    /// Jobs left to the hook's own ffmpeg so far, by reason, without those of which there was none.
    pub(crate) fn declined_so_far(&self) -> BTreeMap<String, u64> {
        let families = self.declined.collect();
        let series = families.iter().flat_map(|family| family.get_metric());
        let count = |series: &Metric| {
            let reason = series.get_label().first()?.value().to_owned();
            let count = series.get_counter().get_value() as u64;
            (count > 0).then_some((reason, count))
        };
        series.filter_map(count).collect()
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// What the encoder reports.
    pub(crate) fn render(&self, streams: &Streams, warm: usize) -> prometheus::Result<Vec<u8>> {
        self.streams.reset();
        self.info.reset();
        self.speed.reset();
        self.lead.reset();
        self.held.reset();
        self.no_room.reset();
        self.off_gpu.reset();
        self.engine_seconds.reset();
        self.engine_share.reset();
        self.engine_withheld.reset();
        self.gpu_engine_share.reset();
        self.warm.set(i64::try_from(warm).unwrap_or(i64::MAX));
        // Present also when nothing runs, so that "no stream" can be told from "no data".
        self.streams.with_label_values(&[State::Running.as_str(), "none"]).set(0);
        streams.each(|id, record| {
            let (id, backend) = (id.to_string(), record.backend().to_owned());
            let video_in = record.source.as_ref().map_or("", |source| source.codec.as_str());
            let item: String = record.item.chars().take(ITEM_CHARS).collect();
            self.streams.with_label_values(&[record.state.as_str(), backend.as_str()]).inc();
            self.info
                .with_label_values(&[
                    &id,
                    &backend,
                    video_in,
                    record.video_out,
                    &record.size,
                    &item,
                ])
                .set(1);
            self.speed.with_label_values(&[&id]).set(record.speed());
            self.lead.with_label_values(&[&id]).set(record.lead().as_secs_f64());
            self.held.with_label_values(&[&id]).set(record.is_held().into());
            self.no_room.with_label_values(&[&id]).set(record.no_room.into());
            if let Some(reason) = record.reason_kind {
                self.off_gpu.with_label_values(&[backend.as_str(), reason.label()]).inc();
            }
            self.render_engines(&id, record);
        });
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Metrics {
    fn render_engines(&self, id: &str, record: &Record) {
        let Some(node) = &record.node else { return };
        let (device, time) = (node.display().to_string(), &record.gpu_time);
        for (engine, used) in &time.engines {
            self.engine_seconds.with_label_values(&[id, engine]).set(used.seconds);
        }
        for (engine, share) in &time.utilization {
            self.engine_share.with_label_values(&[id, engine]).set(*share);
            self.gpu_engine_share.with_label_values(&[device.as_str(), engine]).add(*share);
        }
        if time.withheld {
            self.engine_withheld.with_label_values(&[id]).set(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_design() {
        let metrics = Metrics::new().unwrap();
        metrics.stream_ended("complete");
        metrics.first_segment(0.4);
        metrics.stream_running("software", Some(ReasonKind::NoGpu));
        metrics.stream_running("vaapi", None);
        metrics.sandboxed(&Sandbox { landlock: None, seccomp: true, missing: None });
        let text = String::from_utf8(metrics.render(&Streams::default(), 2).unwrap()).unwrap();
        for line in [
            "rendergate_streams_ended_total{how=\"complete\"} 1",
            "rendergate_streams_resumed_total 0",
            "rendergate_first_segment_seconds_bucket{le=\"0.5\"} 1",
            "rendergate_first_segment_seconds_bucket{le=\"0.3\"} 0",
            "rendergate_workers_warm 2",
            "rendergate_worker_sandboxed{layer=\"landlock\"} 0",
            "rendergate_worker_sandboxed{layer=\"seccomp\"} 1",
            "rendergate_streams_started_total{backend=\"software\",reason=\"no_gpu\"} 1",
            "rendergate_streams_started_total{backend=\"vaapi\",reason=\"none\"} 1",
            "rendergate_streams{backend=\"none\",state=\"running\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("rendergate_build_info{version="));
    }
}
