//! What others take of the processor: whatever it does for anybody but the workers, and what a
//! hypervisor gives to other machines.
//!
//! Programs that were made nicer don't count, since they give way: the hook's own ffmpeg where there was no
//! room, and what Jellyfin runs in the background. (Where they are in another cgroup they don't, and still
//! aren't seen.)

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

/// Time between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Looks that are remembered. A mean of ten seconds: long beside the half second in which a worker tells
/// what it took, and a program that has ended is soon forgotten, since who is refused for it waits.
const LOOKS: usize = 6;
/// By how much the kernel's counts may be off, s: processors are counted one after the other, in ticks.
const TICKS: f64 = 0.1;

/// How much was taken until some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Look {
    /// When.
    pub at: Instant,
    /// Of all processors.
    pub taken: Taken,
    /// By workers, s.
    pub own: f64,
}

/// The line `cpu` of `/proc/stat`: proc_stat(5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Taken {
    /// By programs of normal priority or a higher one, and by the kernel, s.
    pub busy: f64,
    /// By other machines on the same host, s.
    pub stolen: f64,
    /// How many processors are there.
    pub processors: usize,
}

/// Processors' worth of time per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cores {
    /// That aren't there, whoever needs them.
    pub stolen: f64,
    /// That others have.
    pub others: f64,
}

/// See the module's description. Pure: time and readings are arguments.
#[derive(Debug, Default)]
pub(crate) struct Others {
    looks: VecDeque<Look>,
}

impl Taken {
    fn since(&self, before: &Self) -> (f64, f64) {
        (self.busy - before.busy, self.stolen - before.stolen)
    }

    /// Whether so much can have been taken in that time. Another set of processors is another count, in
    /// containers; so is another host.
    fn can_follow(&self, before: &Self, passed: f64) -> bool {
        let most = (passed + TICKS) * self.processors as f64;
        let (busy, stolen) = self.since(before);
        let possible = busy >= -TICKS && stolen >= -TICKS && busy + stolen <= most;
        possible && self.processors == before.processors
    }
}

impl Others {
    /// Notes a look.
    pub(crate) fn look(&mut self, look: Look) {
        if let Some(last) = self.looks.back() {
            let passed = (look.at - last.at).as_secs_f64();
            if !look.taken.can_follow(&last.taken, passed) {
                self.looks.clear();
            }
        }
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
    }

    /// What was taken of late out of the `allowed` processors that workers may have. What others have of a
    /// machine of which workers may only have a part is in their way when the rest is full. None as long as
    /// nobody has looked for long enough.
    pub(crate) fn cores(&self, allowed: usize) -> Option<Cores> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let passed = (last.at - first.at).as_secs_f64();
        if self.looks.len() < LOOKS || passed <= 0.0 {
            return None;
        }
        let (busy, stolen) = last.taken.since(&first.taken);
        let of_others = busy - (last.own - first.own);
        let elsewhere = last.taken.processors.saturating_sub(allowed) as f64;
        let cores = |taken: f64| (taken / passed - elsewhere).clamp(0.0, allowed as f64);
        let all = cores(of_others + stolen);
        let stolen = (stolen / passed).clamp(0.0, all);
        Some(Cores { stolen, others: all - stolen })
    }
}

impl Taken {
    /// Reads `stat` in the tree of `/proc`.
    ///
    /// # Errors
    /// Those of reading; `InvalidData` if it isn't what proc_stat(5) says.
    pub(crate) fn read(proc_root: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(proc_root.join("stat"))?;
        Self::parse(&text, rustix::param::clock_ticks_per_second() as f64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "has no line \"cpu\""))
    }

    fn parse(text: &str, ticks_per_second: f64) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("cpu"));
        let all: Vec<u64> =
            lines.next()?.split_whitespace().map_while(|field| field.parse().ok()).collect();
        // `guest` is in `user` already. Old kernels say less.
        let [user, _nice, system, _idle, _iowait, rest @ ..] = all.as_slice() else { return None };
        let [irq, softirq, steal] = [0, 1, 2].map(|at| rest.get(at).copied().unwrap_or(0));
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second;
        let busy = seconds(user + system + irq + softirq);
        Some(Self { busy, stolen: seconds(steal), processors: lines.count() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks of a machine of four processors in even seconds, in each of which this share of a processor
    /// was busy, stolen, and worked for workers.
    fn looks(others: &mut Others, of: &[(f64, f64, f64)]) {
        let start = Instant::now();
        let nothing = Taken { busy: 0.0, stolen: 0.0, processors: 4 };
        let mut last = others.looks.back().copied();
        for (busy, stolen, own) in of {
            let mut look = last.map_or(Look { at: start, taken: nothing, own: 0.0 }, |last| Look {
                at: last.at + LOOK_EVERY,
                ..last
            });
            look.taken.busy += 2.0 * busy;
            look.taken.stolen += 2.0 * stolen;
            look.own += 2.0 * own;
            others.look(look);
            last = Some(look);
        }
    }

    #[track_caller]
    fn check(others: &Others, allowed: usize, expect: (f64, f64)) {
        let Cores { stolen, others } = others.cores(allowed).unwrap();
        let near = (stolen - expect.0).abs() < 1e-9 && (others - expect.1).abs() < 1e-9;
        assert!(near, "{stolen} stolen, {others} by others, expected {expect:?}");
    }

    #[test]
    fn others_have_what_workers_havent() {
        let mut others = Others::default();
        looks(&mut others, &[(1.5, 0.25, 1.0); LOOKS - 1]);
        assert_eq!(others.cores(4), None);
        looks(&mut others, &[(1.5, 0.25, 1.0)]);
        check(&others, 4, (0.25, 0.5));
        // Reports of workers that were late.
        looks(&mut others, &[(1.0, 0.0, 1.5); LOOKS]);
        check(&others, 4, (0.0, 0.0));
    }

    #[test]
    fn what_is_in_nobodys_way_does_not_count() {
        let mut others = Others::default();
        looks(&mut others, &[(3.25, 0.0, 1.0); LOOKS]);
        for (allowed, expect) in [(4, 2.25), (3, 1.25), (2, 0.25), (1, 0.0)] {
            check(&others, allowed, (0.0, expect));
        }
        looks(&mut others, &[(3.25, 0.5, 0.25); LOOKS]);
        check(&others, 1, (0.5, 0.0));
        check(&others, 2, (0.5, 1.0));
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut others = Others::default();
        looks(&mut others, &[(3.0, 0.5, 0.0); LOOKS]);
        looks(&mut others, &[(0.5, 0.0, 0.0); LOOKS - 1]);
        check(&others, 4, (0.0, 0.5));
    }

    #[test]
    fn what_cannot_be_begins_the_count_anew() {
        let usual = Taken { busy: 10.0, stolen: 5.0, processors: 4 };
        let impossible = [
            Taken { busy: 9.0, ..usual },
            Taken { stolen: 4.0, ..usual },
            Taken { busy: 19.0, ..usual },
            Taken { stolen: 14.0, ..usual },
            Taken { processors: 3, ..usual },
        ];
        assert!(Taken { busy: 17.9, ..usual }.can_follow(&usual, 2.0));
        for taken in impossible {
            assert!(!taken.can_follow(&usual, 2.0), "{taken:?}");
            let mut others = Others::default();
            looks(&mut others, &[(1.0, 0.0, 0.0); LOOKS]);
            let last = *others.looks.back().unwrap();
            others.look(Look { at: last.at + LOOK_EVERY, taken: last.taken, ..last });
            assert!(others.cores(4).is_some());
            let busy = last.taken.busy - 10.0 + taken.busy;
            let stolen = last.taken.stolen - 5.0 + taken.stolen;
            let at = last.at + 2 * LOOK_EVERY;
            others.look(Look { at, taken: Taken { busy, stolen, ..taken }, ..last });
            assert_eq!(others.cores(4), None, "{taken:?}");
        }
    }

    #[test]
    fn the_kernels_line_is_read() {
        let text = "cpu  1000 200 300 5000 600 7 8 90 400 0\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 9\n";
        let taken = Taken { busy: 13.15, stolen: 0.9, processors: 2 };
        assert_eq!(Taken::parse(text, 100.0), Some(taken));
        let old = Taken { busy: 13.0, stolen: 0.0, processors: 1 };
        assert_eq!(Taken::parse("cpu 1000 200 300 5000 600\ncpu0 1\n", 100.0), Some(old));
        for wrong in ["", "intr 9\n", "cpu 1 2 x 4 5\n", "cpu\n"] {
            assert_eq!(Taken::parse(wrong, 100.0), None, "{wrong}");
        }
        let own = Taken::read(Path::new("/proc")).unwrap();
        assert!(own.busy > 0.0 && own.processors > 0, "{own:?}");
    }
}
