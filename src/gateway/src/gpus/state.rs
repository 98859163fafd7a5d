//! What is known of one GPU, and how that changes. Pure: the time is an argument.
//!
//! ```text
//! New ── look ──▶ Works ── a stream fails ──▶ Suspect ── look ──▶ Works
//!  ▲      └─────▶ Broken ◀───────────────────────┴───────┘
//!  │                └── look, in growing intervals ──▶ Works
//! Gone ◀── no node ── any
//! ```

use std::sync::Arc;
use std::time::Duration;

use gpu::Device;
use tokio::time::Instant;

/// Pause before a GPU that fails again is looked at again; doubles with each failure.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_secs(15);
/// Longest pause before a GPU that works by itself and fails streams is tried again: it may be the
/// streams.
const LONGEST_SUSPICION: Duration = Duration::from_secs(60);
/// Longest pause between looks at a GPU that doesn't work. Somebody has to do something about it,
/// and wants to see that it helped; each look at a GPU that hangs costs a process for a while.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// A failure so long after the GPU was last found working counts as the first.
pub(crate) const FORGIVEN: Duration = Duration::from_secs(600);

/// Whether streams may use a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Not looked at yet.
    New,
    /// Seen working.
    Works(Arc<Device>),
    /// It worked, until a stream failed on it: why.
    Suspect(String),
    /// Seen not working: why.
    Broken(String),
    /// Its node isn't there any more.
    Gone,
}

/// What happens to a GPU.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its node is there, perhaps again, or beside others than before.
    Appeared,
    /// Its node isn't.
    Vanished,
    /// A stream failed on it that had begun then.
    FailedStream {
        /// When the stream was given to a worker.
        began: Instant,
        /// For people.
        why: String,
        /// The film: one that fails again and again is its own fault.
        film: String,
    },
    /// The probe processes have looked.
    Seen(Result<Device, String>),
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// Whether streams may use it.
    pub state: State,
    /// When it is to be looked at.
    pub look_at: Option<Instant>,
    /// Since when it is in that state.
    since: Instant,
    /// Failures in a row.
    failures: u32,
    /// The film of the last one.
    film: Option<String>,
}

impl Gpu {
    /// One that has just been noticed.
    pub(crate) fn new(now: Instant) -> Self {
        Self { state: State::New, look_at: Some(now), since: now, failures: 0, film: None }
    }

    /// What becomes of it.
    pub(crate) fn after(self, event: Event, now: Instant) -> Self {
        match (event, &self.state) {
            (Event::Appeared, _) => Self::new(now),
            (Event::Vanished, _) => Self { state: State::Gone, look_at: None, since: now, ..self },
            // One that began before the last look says nothing that the look doesn't know: six
            // streams on a GPU that hangs fail one after another.
            (Event::FailedStream { began, why, film }, State::Works(_)) if began >= self.since => {
                let forgiven = now - self.since >= FORGIVEN;
                let again = self.film.as_ref() == Some(&film);
                let failures = match self.failures {
                    _ if forgiven => 1,
                    // The GPU was found working after this film had failed on it.
                    failures if again => failures,
                    failures => failures + 1,
                };
                // Once can be chance, and a look at a GPU that works takes a second.
                let pause = if failures == 1 {
                    Duration::ZERO
                } else {
                    pause(failures - 1).min(LONGEST_SUSPICION)
                };
                let state = State::Suspect(why);
                let look_at = Some(now + pause);
                Self { state, look_at, since: now, failures, film: Some(film) }
            }
            (Event::Seen(Ok(device)), State::New | State::Suspect(_) | State::Broken(_)) => {
                Self { state: State::Works(Arc::new(device)), look_at: None, since: now, ..self }
            }
            (Event::Seen(Err(why)), State::New | State::Suspect(_) | State::Broken(_)) => {
                let failures = self.failures + 1;
                let look_at = Some(now + pause(failures));
                Self { state: State::Broken(why), look_at, since: now, failures, ..self }
            }
            // News of a GPU that has gone meanwhile, or of one that is to be looked at anyway.
            (Event::FailedStream { .. } | Event::Seen(_), _) => self,
        }
    }
}

/// Pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn device() -> Device {
        Device {
            node: "/dev/dri/renderD128".into(),
            driver: "a driver".into(),
            abilities: Default::default(),
            deinterlacer: None,
        }
    }

    fn failed(began: Instant) -> Event {
        film_failed(began, &format!("{began:?}"))
    }

    fn film_failed(began: Instant, film: &str) -> Event {
        Event::FailedStream { began, why: "it hung".into(), film: film.into() }
    }

    fn broken() -> Event {
        Event::Seen(Err("0 of 8 frames came out".into()))
    }

    #[test]
    fn the_first_failure_is_looked_into_at_once_later_ones_after_growing_pauses() {
        let mut now = Instant::now();
        let mut gpu = Gpu::new(now).after(Event::Seen(Ok(device())), now);
        for expect in [0, 15, 30, 60, 60] {
            now += SECOND;
            gpu = gpu.after(failed(now), now);
            assert_eq!(gpu.state, State::Suspect("it hung".into()));
            assert_eq!(gpu.look_at, Some(now + expect * SECOND));
            now += SECOND;
            gpu = gpu.after(Event::Seen(Ok(device())), now);
            assert_eq!((&gpu.state, gpu.look_at), (&State::Works(Arc::new(device())), None));
        }
        now += FORGIVEN;
        assert_eq!(gpu.after(failed(now), now).look_at, Some(now));
    }

    #[test]
    fn one_film_that_fails_again_and_again_costs_looks_and_nothing_else() {
        let mut now = Instant::now();
        let mut gpu = Gpu::new(now).after(Event::Seen(Ok(device())), now);
        for _ in 0..10 {
            now += SECOND;
            gpu = gpu.after(film_failed(now, "/m/broken.mkv"), now);
            assert_eq!(gpu.look_at, Some(now));
            now += SECOND;
            gpu = gpu.after(Event::Seen(Ok(device())), now);
        }
        // Another film that fails as well is another matter.
        now += SECOND;
        gpu = gpu.after(film_failed(now, "/m/other.mkv"), now);
        assert_eq!(gpu.look_at, Some(now + 15 * SECOND));
    }

    #[test]
    fn what_does_not_work_is_looked_at_in_growing_intervals() {
        let mut now = Instant::now();
        let mut gpu = Gpu::new(now);
        for expect in [15, 30, 60, 120, 240, 480, 600, 600] {
            gpu = gpu.after(broken(), now);
            assert_eq!(gpu.look_at, Some(now + expect * SECOND));
            now += SECOND;
        }
        let works = gpu.after(Event::Seen(Ok(device())), now);
        assert_eq!(works.state, State::Works(Arc::new(device())));
    }

    #[test]
    fn streams_from_before_the_last_look_say_nothing_new() {
        let start = Instant::now();
        let works = Gpu::new(start).after(Event::Seen(Ok(device())), start + SECOND);
        assert_eq!(works.clone().after(failed(start), start + 2 * SECOND), works);
        let suspect = works.after(failed(start + SECOND), start + 2 * SECOND);
        assert_eq!(suspect.clone().after(failed(start + SECOND), start + 3 * SECOND), suspect);
    }

    #[test]
    fn what_is_gone_stays_so_until_its_node_is_back() {
        let now = Instant::now();
        let gone = Gpu::new(now).after(Event::Vanished, now);
        assert_eq!((&gone.state, gone.look_at), (&State::Gone, None));
        // A look that was under way.
        assert_eq!(gone.clone().after(Event::Seen(Ok(device())), now), gone);
        assert_eq!(gone.after(Event::Appeared, now), Gpu::new(now));
    }
}
