//! Faults on demand, so that supervisors can be tested against a driver that misbehaves.
//!
//! `SOFTVA_FAULT` is a list, separated by commas:
//!
//! | entry | what happens |
//! |---|---|
//! | `fail-end-picture:N` | the N-th `vaEndPicture` and all after it fail |
//! | `hang-sync-surface:N` | the N-th `vaSyncSurface` never returns |
//! | `abort:N` | the process aborts in the N-th `vaEndPicture` |
//! | `no-memory:N` | the N-th `vaCreateBuffer` and all after it find no memory |
//! | `lie-caps:CODEC` | the codec is listed and every picture of it fails |
//! | `lie-caps-hang:CODEC` | the codec is listed and its first picture never ends |
//! | `garbage:WORK` | that work is taken and not done: the picture stays what it was |
//! | `hang:WORK` | that work never ends |
//!
//! `@decode`, `@encode` or `@vpp` after N counts that engine's calls only; CODEC is a codec and
//! an engine, like `h265-encode`, or `vpp`. WORK is `deinterlace`, `turn`, `tone-map`, or `decoded`:
//! processing of a surface that a decoder has just written. N starts at 1 and counts per process.
//!
//! Invariant: an entry that can't be read stops the driver from loading: a test that misspells
//! a fault must not pass for want of it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::status::{Outcome, Refusal};
use crate::trace::Engine;
use crate::va;

/// A call that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    FailEndPicture,
    HangSyncSurface,
    Abort,
    NoMemory,
}

#[derive(Debug)]
struct Counted {
    kind: Kind,
    engine: Option<Engine>,
    from: u64,
    calls: AtomicU64,
}

/// Work that can go wrong in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A frame from a field.
    Deinterlace,
    /// Turning and mirroring.
    Turn,
    /// From HDR to SDR.
    ToneMap,
    /// Processing of what a decoder left in the GPU's memory.
    Decoded,
}

#[derive(Debug)]
struct Spoilt {
    work: Work,
    hang: bool,
}

#[derive(Debug)]
struct Lie {
    codec: String,
    hang: bool,
}

/// The faults that were asked for.
#[derive(Debug, Default)]
pub struct Faults {
    counted: Vec<Counted>,
    lies: Vec<Lie>,
    spoilt: Vec<Spoilt>,
}

impl Faults {
    /// Reads the list.
    pub fn parse(list: &str) -> Outcome<Self> {
        let mut faults = Self::default();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let wrong = || Refusal::parameter(format!("SOFTVA_FAULT: `{entry}` is not a fault"));
            let (name, argument) = entry.split_once(':').ok_or_else(wrong)?;
            let kind = match name {
                "fail-end-picture" => Kind::FailEndPicture,
                "hang-sync-surface" => Kind::HangSyncSurface,
                "abort" => Kind::Abort,
                "no-memory" => Kind::NoMemory,
                "lie-caps" | "lie-caps-hang" => {
                    let known = crate::caps::codec_names();
                    if !known.contains(&argument.to_owned()) {
                        return Err(wrong());
                    }
                    let hang = name == "lie-caps-hang";
                    faults.lies.push(Lie { codec: argument.to_owned(), hang });
                    continue;
                }
                "garbage" | "hang" => {
                    let work = match argument {
                        "deinterlace" => Work::Deinterlace,
                        "turn" => Work::Turn,
                        "tone-map" => Work::ToneMap,
                        "decoded" => Work::Decoded,
                        _ => return Err(wrong()),
                    };
                    faults.spoilt.push(Spoilt { work, hang: name == "hang" });
                    continue;
                }
                _ => return Err(wrong()),
            };
            let (number, engine) = match argument.split_once('@') {
                None => (argument, None),
                Some((number, engine)) => {
                    let engine = Engine::ALL.into_iter().find(|known| known.name() == engine);
                    (number, Some(engine.ok_or_else(wrong)?))
                }
            };
            let from = number.parse().ok().filter(|from| *from > 0).ok_or_else(wrong)?;
            faults.counted.push(Counted { kind, engine, from, calls: AtomicU64::new(0) });
        }
        Ok(faults)
    }

    /// Counts a call and tells which number it has, for each fault of that kind.
    fn due(&self, kind: Kind, engine: Option<Engine>) -> Option<u64> {
        let mut due = None;
        for fault in self.counted.iter().filter(|fault| fault.kind == kind) {
            if fault.engine.is_some() && fault.engine != engine {
                continue;
            }
            let call = fault.calls.fetch_add(1, Ordering::Relaxed) + 1;
            if call >= fault.from {
                due = Some(call);
            }
        }
        due
    }

    /// Before a picture is worked on. `codec` is its name as in `lie-caps`.
    pub fn end_picture(&self, engine: Engine, codec: &str) -> Outcome {
        if let Some(call) = self.due(Kind::Abort, Some(engine)) {
            crate::trace!("fault: abort in vaEndPicture {call} ({engine})");
            std::process::abort();
        }
        if let Some(call) = self.due(Kind::FailEndPicture, Some(engine)) {
            return Err(Refusal::new(
                va::VA_STATUS_ERROR_OPERATION_FAILED,
                format!("fault: vaEndPicture {call} ({engine}) fails"),
            ));
        }
        match self.lies.iter().find(|lie| lie.codec == codec) {
            None => Ok(()),
            Some(lie) if lie.hang => hang("vaEndPicture of a codec that was a lie"),
            Some(_) => Err(Refusal::new(
                va::VA_STATUS_ERROR_OPERATION_FAILED,
                format!("fault: {codec} was a lie"),
            )),
        }
    }

    /// Whether a work isn't to be done.
    pub fn spoils(&self, work: Work) -> bool {
        let spoilt = self.spoilt.iter().find(|spoilt| spoilt.work == work);
        match spoilt {
            Some(spoilt) if spoilt.hang => hang("work on a picture"),
            spoilt => spoilt.is_some(),
        }
    }

    /// Before a surface counts as finished.
    pub fn sync_surface(&self, user: Option<Engine>) {
        if self.due(Kind::HangSyncSurface, user).is_some() {
            hang("vaSyncSurface");
        }
    }

    /// Before a buffer is made.
    pub fn create_buffer(&self, engine: Option<Engine>) -> Outcome {
        match self.due(Kind::NoMemory, engine) {
            None => Ok(()),
            Some(call) => Err(Refusal::memory(format!("fault: no memory for buffer {call}"))),
        }
    }
}

/// Waits for ever, like a GPU that lost its job.
fn hang(place: &str) -> ! {
    crate::trace!("fault: hanging in {place}");
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_calls_of_its_engine() {
        let faults = Faults::parse("fail-end-picture:2@encode").expect("a fault");
        let codec = "h264-encode";
        assert!(faults.end_picture(Engine::Decode, codec).is_ok());
        assert!(faults.end_picture(Engine::Decode, codec).is_ok());
        assert!(faults.end_picture(Engine::Encode, codec).is_ok());
        assert!(faults.end_picture(Engine::Encode, codec).is_err());
        assert!(faults.end_picture(Engine::Decode, codec).is_ok());
    }

    #[test]
    fn a_lie_touches_its_codec_only() {
        let faults = Faults::parse("lie-caps:h265-encode, no-memory:1@vpp").expect("two faults");
        assert!(faults.end_picture(Engine::Encode, "h264-encode").is_ok());
        assert!(faults.end_picture(Engine::Encode, "h265-encode").is_err());
        assert!(faults.create_buffer(Some(Engine::Decode)).is_ok());
        assert!(faults.create_buffer(Some(Engine::Process)).is_err());
    }

    #[test]
    fn a_misspelt_fault_is_refused() {
        for wrong in
            ["abort", "abort:0", "abort:x", "aborts:1", "abort:1@gpu", "lie-caps:h266", "garbage:x"]
        {
            assert!(Faults::parse(wrong).is_err(), "{wrong}");
        }
    }
}
