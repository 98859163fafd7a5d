//! What others take of the processor: whatever it does for anybody but the workers, and what a
//! hypervisor gives to other machines.
//!
//! Programs that were made nicer don't count, since they give way to the workers: the hook's own ffmpeg
//! where there was no room, indexing at night.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

/// Time between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Looks that are remembered. A mean of half a minute: a program's start passes, a scan of the library
/// doesn't.
const LOOKS: usize = 15;

/// How much was taken until some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Look {
    /// When.
    pub at: Instant,
    /// Of all processors, s.
    pub taken: Taken,
    /// By workers, s.
    pub own: f64,
}

/// The line `cpu` of `/proc/stat`: proc_stat(5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Taken {
    /// By programs of normal priority or a higher one, by the kernel, and by other machines (`steal`), s.
    pub seconds: f64,
    /// How many processors are there.
    pub processors: usize,
}

/// See the module's description. Pure: time and readings are arguments.
#[derive(Debug, Default)]
pub(crate) struct Others {
    looks: VecDeque<Look>,
}

impl Others {
    /// Notes a look.
    pub(crate) fn look(&mut self, look: Look) {
        // A processor that was taken out takes its time with it.
        if self.looks.back().is_some_and(|last| last.taken.processors != look.taken.processors) {
            self.looks.clear();
        }
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
    }

    /// Processors' worth of time that others have taken of late, out of the `allowed` ones that workers
    /// may have: what others take of a machine of which workers may only have a part is in their way when
    /// the rest is full. None before it is known.
    pub(crate) fn cores(&self, allowed: usize) -> Option<f64> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let passed = (last.at - first.at).as_secs_f64();
        if passed <= 0.0 {
            return None;
        }
        let taken = last.taken.seconds - first.taken.seconds - (last.own - first.own);
        let free = last.taken.processors.saturating_sub(allowed) as f64;
        Some((taken / passed - free).clamp(0.0, allowed as f64))
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
        let ticks = user + system + irq + softirq + steal;
        Some(Self { seconds: ticks as f64 / ticks_per_second, processors: lines.count() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(start: Instant, at: f64, taken: f64, own: f64) -> Look {
        let at = start + Duration::from_secs_f64(at);
        Look { at, taken: Taken { seconds: taken, processors: 4 }, own }
    }

    #[test]
    fn others_have_what_workers_havent() {
        let (mut others, start) = (Others::default(), Instant::now());
        assert_eq!(others.cores(4), None);
        others.look(look(start, 0.0, 1000.0, 50.0));
        assert_eq!(others.cores(4), None);
        others.look(look(start, 2.0, 1005.0, 54.0));
        assert_eq!(others.cores(4), Some(0.5));
        // A report of a worker's that was late.
        others.look(look(start, 4.0, 1006.0, 57.0));
        assert_eq!(others.cores(4), Some(0.0));
    }

    #[test]
    fn what_is_in_nobodys_way_does_not_count() {
        let (mut others, start) = (Others::default(), Instant::now());
        others.look(look(start, 0.0, 0.0, 0.0));
        others.look(look(start, 10.0, 35.0, 10.0));
        assert_eq!(
            [4, 3, 2, 1].map(|allowed| others.cores(allowed)),
            [2.5, 1.5, 0.5, 0.0].map(Some)
        );
        others.look(look(start, 20.0, 75.0, 10.0));
        assert_eq!(others.cores(1), Some(0.25));
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let (mut others, start) = (Others::default(), Instant::now());
        for at in 0..LOOKS * 2 {
            let busy = if at < LOOKS { 3.0 } else { 0.5 };
            let before = others.looks.back().map_or(0.0, |last| last.taken.seconds);
            others.look(look(start, at as f64, before + busy, 0.0));
        }
        assert_eq!(others.looks.len(), LOOKS);
        assert_eq!(others.cores(4), Some(0.5));
    }

    #[test]
    fn a_processor_that_is_gone_begins_the_count_anew() {
        let (mut others, start) = (Others::default(), Instant::now());
        others.look(look(start, 0.0, 1000.0, 0.0));
        let mut fewer = look(start, 2.0, 700.0, 0.0);
        fewer.taken.processors = 3;
        others.look(fewer);
        assert_eq!(others.cores(3), None);
        others.look(Look { at: fewer.at + Duration::from_secs(2), own: 1.0, ..fewer });
        assert_eq!(others.cores(3), Some(0.0));
    }

    #[test]
    fn the_kernels_line_is_read() {
        let text = "cpu  1000 200 300 5000 600 7 8 90 400 0\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 9\n";
        let taken = Taken { seconds: (1000 + 300 + 7 + 8 + 90) as f64 / 100.0, processors: 2 };
        assert_eq!(Taken::parse(text, 100.0), Some(taken));
        let old = Taken { seconds: 13.0, processors: 1 };
        assert_eq!(Taken::parse("cpu 1000 200 300 5000 600\ncpu0 1\n", 100.0), Some(old));
        for wrong in ["", "intr 9\n", "cpu 1 2 x 4 5\n", "cpu\n"] {
            assert_eq!(Taken::parse(wrong, 100.0), None, "{wrong}");
        }
        let own = Taken::read(Path::new("/proc")).unwrap();
        assert!(own.seconds > 0.0 && own.processors > 0, "{own:?}");
    }
}
