//! What one stream has taken and made, cut into samples. Pure: the time is an argument.
//!
//! Samples grow with the stream: of the first 20 seconds of media, of the next 40, and so on, and of
//! what is left at its end. So a long film doesn't outvote many short ones.

use std::collections::BTreeMap;

use gpu::Engine;
use tokio::time::Instant;

use super::costs::{CPU, PROCESSOR, Placed, Resource, WHOLE};

/// Media time of the first sample, in seconds: start-up counts little beside it.
const FIRST_SAMPLE: f64 = 20.0;
/// Media time below which the end of a stream is no sample, in seconds.
const LEAST_SAMPLE: f64 = 5.0;
/// Media time from which on a stream says what it takes now: what is between input and writer was
/// paid for and isn't counted yet.
const TELLING: f64 = 10.0;

/// What a stream has had so far, and where its last sample ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    /// How it runs; none before it was admitted, or for copies.
    pub placed: Option<Placed>,
    now: Totals,
    sampled: Totals,
    samples: u32,
    /// What it took by second of media in its last sample.
    took: Option<BTreeMap<Resource, f64>>,
    heard: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
struct Totals {
    /// Media written, s.
    media: f64,
    /// Processor time, s.
    cpu: f64,
    /// Wall time in which nothing held it, divided by how many shared the GPU, s.
    free: f64,
    engines: BTreeMap<String, Engine>,
}

/// What a stream took of a device while it made so much media.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// The device.
    pub device: String,
    /// In seconds.
    pub media: f64,
    /// By engine class.
    pub spent: BTreeMap<String, Engine>,
}

impl Account {
    /// The stream begins to run so.
    pub(crate) fn begin(&mut self, placed: Placed) {
        // What went before was the opening of its source.
        self.sampled = self.now.clone();
        self.took = None;
        self.placed = Some(placed);
    }

    /// Another worker has the stream, so many seconds of media into it. Its counters begin at zero: what
    /// the one before has taken is none of its, nor is the media that is there already.
    pub(crate) fn another_worker(&mut self, media: f64) {
        self.now = Totals { media, ..Totals::default() };
        self.sampled = self.now.clone();
        (self.placed, self.heard) = (None, None);
    }

    /// The worker's processor time; by how much it has grown.
    pub(crate) fn cpu(&mut self, seconds: f64) -> f64 {
        let before = self.now.cpu;
        self.now.cpu = before.max(seconds);
        self.now.cpu - before
    }

    /// How far the worker is, in seconds of media. `sharing` is how many streams its GPU works for, if it is at work for this one,
    /// and not held.
    pub(crate) fn progress(&mut self, media: f64, sharing: Option<usize>, now: Instant) {
        let before = self.heard.replace(now);
        if let (Some(before), Some(sharing)) = (before, sharing) {
            self.now.free += (now - before).as_secs_f64() / sharing.max(1) as f64;
        }
        self.now.media = self.now.media.max(media);
    }

    /// What its GPU's engines have done for it.
    pub(crate) fn engines(&mut self, engines: &BTreeMap<String, Engine>) {
        self.now.engines = engines.clone();
    }

    /// The samples that are due, one per device. `over` is at the end of the stream.
    pub(crate) fn samples(&mut self, over: bool) -> Vec<Sample> {
        let Some(placed) = &self.placed else { return Vec::new() };
        let media = self.now.media - self.sampled.media;
        let due = FIRST_SAMPLE * f64::from(1 << self.samples.min(16));
        if media < if over { LEAST_SAMPLE } else { due } {
            return Vec::new();
        }
        if media >= TELLING {
            self.took = self.taken();
        }
        let sampled = std::mem::replace(&mut self.sampled, self.now.clone());
        self.samples += 1;
        let sample = |device: &str| {
            let spent = self.spent(device, &sampled);
            Sample { device: device.to_owned(), media, spent }
        };
        placed.devices().into_iter().map(sample).collect()
    }

    /// What the stream is seen to take to play at normal speed, busy seconds per second: since its last
    /// sample, or in that. None before it has made enough to tell.
    pub(crate) fn takes(&self) -> Option<BTreeMap<Resource, f64>> {
        if self.now.media - self.sampled.media >= TELLING {
            self.taken()
        } else {
            self.took.clone()
        }
    }

    fn taken(&self) -> Option<BTreeMap<Resource, f64>> {
        let placed = self.placed.as_ref()?;
        let media = self.now.media - self.sampled.media;
        let mut taken = BTreeMap::new();
        for device in placed.devices() {
            for (class, engine) in self.spent(device, &self.sampled) {
                let resource = Resource { device: device.to_owned(), class };
                taken.insert(resource, engine.seconds.max(0.0) / media);
            }
        }
        Some(taken)
    }

    fn spent(&self, device: &str, sampled: &Totals) -> BTreeMap<String, Engine> {
        let one = |class: &str, seconds: f64| {
            BTreeMap::from([(class.to_owned(), Engine { seconds, capacity: 1 })])
        };
        if device == PROCESSOR {
            return one(CPU, self.now.cpu - sampled.cpu);
        }
        let gained = |(class, engine): (&String, &Engine)| {
            let before = sampled.engines.get(class).map_or(0.0, |engine| engine.seconds);
            let seconds = (engine.seconds - before).max(0.0);
            (class.clone(), Engine { seconds, capacity: engine.capacity })
        };
        let engines: BTreeMap<String, Engine> = self.now.engines.iter().map(gained).collect();
        if engines.values().all(|engine| engine.seconds <= 0.0) {
            return one(WHOLE, self.now.free - sampled.free);
        }
        engines
    }
}
