//! What is known of the segments of an output: lengths of all, and states of some.
//!
//! A worker's state behind a segment is kilobytes, and a film has thousands of segments. Somebody who
//! goes on needs the state behind the last segment that he has, which is mostly one of the latest. So
//! those are all kept, and of earlier ones fewer the longer the film is: who breaks off there goes on a
//! few segments further back, and writes these once more.
//!
//! Invariant: there are [`MOST_STATES`] states at most, however long the film is. Lengths are 12 bytes a
//! segment.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use session::Complete;

/// States that are kept.
const MOST_STATES: usize = 64;
/// The latest of which all are.
const LATEST: usize = 16;

/// See the module's description.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segments {
    /// Ticks, and how many of them are a second.
    lengths: Vec<(u64, u32)>,
    /// Behind the segment with this index.
    states: BTreeMap<usize, Arc<Value>>,
    /// Of earlier ones those behind each so many are kept.
    stride: usize,
    /// Nothing comes behind the latest.
    ended: bool,
}

impl Default for Segments {
    fn default() -> Self {
        Self { lengths: Vec::new(), states: BTreeMap::new(), stride: 1, ended: false }
    }
}

/// What is known of a segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    /// As in [`Complete`].
    pub length: (u64, u32),
    /// As in [`Complete`]; `None` also if it wasn't kept.
    pub state: Option<Arc<Value>>,
    /// As in [`Complete`].
    pub last: bool,
}

impl Known {
    /// In seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.length.0 as f64 / f64::from(self.length.1.max(1))
    }
}

impl From<Complete> for Known {
    fn from(complete: Complete) -> Self {
        let Complete { length, state, last } = complete;
        Self { length, state: state.map(Arc::new), last }
    }
}

impl From<Known> for Complete {
    fn from(known: Known) -> Self {
        let Known { length, state, last } = known;
        Self { length, state: state.map(Arc::unwrap_or_clone), last }
    }
}

impl Segments {
    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Whether the last of all is among them.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn get(&self, index: usize) -> Option<Known> {
        let length = *self.lengths.get(index)?;
        let last = self.ended && index + 1 == self.len();
        Some(Known { length, state: self.states.get(&index).cloned(), last })
    }

    pub(crate) fn latest(&self) -> Option<Known> {
        self.get(self.len().checked_sub(1)?)
    }

    pub(crate) fn push(&mut self, known: Known) {
        let index = self.lengths.len();
        self.lengths.push(known.length);
        self.ended = known.last;
        if let Some(state) = known.state {
            self.states.insert(index, state);
        }
        let latest = (index + 1).saturating_sub(LATEST);
        while self.states.len() > MOST_STATES {
            let (count, stride) = (self.states.len(), self.stride);
            self.states.retain(|index, _| *index >= latest || index % stride == 0);
            if self.states.len() == count {
                self.stride *= 2;
            }
        }
    }

    /// Forgets all but so many.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.ended &= count >= self.len();
        self.lengths.truncate(count);
        self.states.retain(|index, _| *index < count);
    }

    /// All of them, in order.
    pub(crate) fn each(&self) -> impl Iterator<Item = Known> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(index: usize) -> Known {
        Complete { length: (270_000, 90_000), state: Some(index.into()), last: false }.into()
    }

    #[test]
    fn states_are_few_however_long_the_film_is_and_the_latest_are_there() {
        let mut segments = Segments::default();
        for index in 0..100_000 {
            segments.push(known(index));
            assert!(segments.states.len() <= MOST_STATES);
            for latest in (index + 1).saturating_sub(LATEST)..=index {
                assert_eq!(segments.get(latest), Some(known(latest)));
            }
            // Never further back than a part of the film.
            let mut before = 0;
            for at in segments.states.keys() {
                assert!(at - before <= (index / 16).max(1), "{before} to {at} of {index}");
                before = *at;
            }
        }
        assert_eq!(segments.len(), 100_000);
    }

    #[test]
    fn what_is_written_anew_takes_the_place_of_what_was() {
        let mut segments = Segments::default();
        (0..10).for_each(|index| segments.push(known(index)));
        segments.truncate(4);
        segments.push(known(77));
        let states: Vec<_> = segments.each().map(|known| known.state.unwrap()).collect();
        let states: Vec<_> = states.iter().map(|state| state.as_u64().unwrap()).collect();
        assert_eq!(states, [0, 1, 2, 3, 77]);
        assert_eq!(segments.get(5), None);
        segments.push(Known { last: true, ..known(5) });
        assert!(
            segments.ended() && segments.get(5).unwrap().last && !segments.get(4).unwrap().last
        );
        segments.truncate(5);
        assert!(!segments.ended());
        assert_eq!(segments.get(4).unwrap().seconds(), 3.0);
    }
}
