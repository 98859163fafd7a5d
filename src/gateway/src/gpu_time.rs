//! A stream's engine time between two of its worker's readings.

use std::collections::BTreeMap;
use std::time::Duration;

use gpu::Engine;
use tokio::time::Instant;

/// Utilization is taken over so long at least: over less it jumps with each picture.
const WINDOW: Duration = Duration::from_millis(400);

/// What a stream has had of its GPU.
#[derive(Debug, Clone, Default)]
pub(crate) struct GpuTime {
    /// Since it began, by engine class.
    pub engines: BTreeMap<String, Engine>,
    /// Share of the class's engines of late, 0 to 1.
    pub utilization: BTreeMap<String, f64>,
    /// The driver doesn't say.
    pub withheld: bool,
    /// What utilization is counted from.
    since: Option<(Instant, BTreeMap<String, Engine>)>,
}

impl GpuTime {
    /// Takes a reading; gives the seconds that each class has worked since the one before.
    pub(crate) fn update(
        &mut self,
        engines: BTreeMap<String, Engine>,
        withheld: bool,
        now: Instant,
    ) -> BTreeMap<String, f64> {
        let gained = |before: &BTreeMap<String, Engine>| {
            let gain = |(name, engine): (&String, &Engine)| {
                let before = before.get(name).map_or(0.0, |engine| engine.seconds);
                (name.clone(), (engine.seconds - before).max(0.0))
            };
            engines.iter().map(gain).collect::<BTreeMap<_, _>>()
        };
        let gain = gained(&self.engines);
        match &self.since {
            None => self.since = Some((now, engines.clone())),
            Some((at, before)) if now - *at >= WINDOW => {
                let passed = (now - *at).as_secs_f64();
                let share = |(name, seconds): (String, f64)| {
                    let engines_there = engines.get(&name).map_or(1, |e| e.capacity.max(1));
                    (name, seconds / passed / f64::from(engines_there))
                };
                self.utilization = gained(before).into_iter().map(share).collect();
                self.since = Some((now, engines.clone()));
            }
            Some(_) => {}
        }
        self.engines = engines;
        self.withheld = withheld;
        gain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(seconds: f64) -> BTreeMap<String, Engine> {
        BTreeMap::from([("video".to_owned(), Engine { seconds, capacity: 2 })])
    }

    #[test]
    fn readings_become_gains_and_shares() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut time = GpuTime::default();
        assert_eq!(time.update(video(0.5), false, at(0))["video"], 0.5);
        assert!(time.utilization.is_empty());
        // Too soon for a share; what it had counts with the next.
        assert!((time.update(video(0.6), false, at(100))["video"] - 0.1).abs() < 1e-9);
        assert!(time.utilization.is_empty());
        time.update(video(1.5), false, at(1000));
        assert!((time.utilization["video"] - 0.5).abs() < 1e-9, "half of two engines");
        time.update(video(1.5), false, at(2000));
        assert_eq!(time.utilization["video"], 0.0);
    }
}
