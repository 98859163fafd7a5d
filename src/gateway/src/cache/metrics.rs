//! What Prometheus is told of the cache.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Why a title goes: there is no room for all, too little of the disk is free, its source has changed, its
/// beginning was made anew, or it can't be read.
const REASONS: [&str; 5] = ["room", "disk", "changed", "replaced", "broken"];

/// See the module's description.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) bytes: IntGauge,
    pub(super) titles: IntGauge,
    pub(super) hits: IntCounter,
    pub(super) misses: IntCounter,
    evictions: IntCounterVec,
}

impl Metrics {
    /// # Errors
    /// A name or label that Prometheus doesn't allow.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            bytes: IntGauge::new("rendergate_cache_bytes", "Size of the segments that are kept")?,
            titles: IntGauge::new(
                "rendergate_cache_titles",
                "Titles of which segments are kept: the same files by the same plan",
            )?,
            hits: IntCounter::new(
                "rendergate_cache_hits_total",
                "Streams that began with segments that were kept",
            )?,
            misses: IntCounter::new(
                "rendergate_cache_misses_total",
                "Streams of which nothing was kept nor being made",
            )?,
            evictions: IntCounterVec::new(
                Opts::new("rendergate_cache_evictions_total", "Titles that are kept no longer"),
                &["reason"],
            )?,
        };
        // Prometheus sees no increase in a series that appears with its first event.
        for reason in REASONS {
            metrics.evictions.with_label_values(&[reason]);
        }
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.titles.clone()))?;
        registry.register(Box::new(metrics.hits.clone()))?;
        registry.register(Box::new(metrics.misses.clone()))?;
        registry.register(Box::new(metrics.evictions.clone()))?;
        Ok(metrics)
    }

    /// So many titles went for this reason.
    pub(super) fn evicted(&self, reason: &str, titles: usize) {
        self.evictions.with_label_values(&[reason]).inc_by(titles as u64);
    }

    #[cfg(test)]
    pub(super) fn evictions(&self, reason: &str) -> u64 {
        self.evictions.with_label_values(&[reason]).get()
    }
}
