//! Keeps tracks of several inputs abreast: sound from a file of its own, above all.
//!
//! Each input is read by a thread of its own, as fast as it is taken. The writer waits for a track that says
//! nothing, but for ten seconds of media only (`hls::interleave`), and a copied picture comes so far before
//! sound has been decoded once. Whoever is far ahead therefore waits here for the others; ffmpeg reads
//! from the input that is furthest behind.

use std::sync::{Condvar, Mutex, PoisonError};

/// How far ahead of the others a track may be: less than the writer waits for, more than an encoder keeps.
const APART_NS: i64 = 5_000_000_000;

/// See the module's description.
#[derive(Debug, Default)]
pub struct Abreast {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    tracks: Vec<Track>,
    /// Nobody waits any more.
    over: bool,
}

#[derive(Debug)]
struct Track {
    number: usize,
    /// Tracks of one input come by one thread: they don't wait for each other.
    input: usize,
    /// Decoding time of the latest sample, ns.
    latest: Option<i64>,
    ended: bool,
}

impl State {
    /// Whether a track that is at this time has others behind it.
    fn is_ahead(&self, number: usize, dts: i64) -> bool {
        let Some(own) = self.tracks.iter().find(|track| track.number == number) else {
            return false;
        };
        let behind = |track: &Track| {
            let apart = track.latest.is_none_or(|latest| dts.saturating_sub(latest) > APART_NS);
            track.input != own.input && !track.ended && apart
        };
        !self.over && self.tracks.iter().any(behind)
    }

    fn note(&mut self, number: usize, dts: i64) {
        if let Some(track) = self.tracks.iter_mut().find(|track| track.number == number) {
            track.latest = track.latest.max(Some(dts));
        }
    }
}

impl Abreast {
    /// A track will come, from this input.
    pub fn join(&self, number: usize, input: usize) {
        let track = Track { number, input, latest: None, ended: false };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).tracks.push(track);
    }

    /// A track has a sample of this decoding time, ns: waits while it is far ahead of another input's, or
    /// such a one hasn't begun.
    pub fn step(&self, number: usize, dts: i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.note(number, dts);
        self.changed.notify_all();
        let ahead = |state: &mut State| state.is_ahead(number, dts);
        drop(self.changed.wait_while(state, ahead).unwrap_or_else(PoisonError::into_inner));
    }

    /// A track has no more samples.
    pub fn end(&self, number: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tracks.iter_mut().filter(|track| track.number == number).for_each(|track| {
            track.ended = true;
        });
        drop(state);
        self.changed.notify_all();
    }

    /// The stream is to end: nobody waits any more.
    pub fn over(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Duration;

    const SECOND: i64 = 1_000_000_000;
    const AT_ONCE: Duration = Duration::from_secs(10);
    const A_WHILE: Duration = Duration::from_millis(100);

    /// A track that takes a step each second of media, and tells of it.
    fn runs(abreast: &Arc<Abreast>, number: usize) -> Receiver<i64> {
        let (tell, told) = channel();
        let abreast = Arc::clone(abreast);
        thread::spawn(move || {
            for second in 0..60 {
                abreast.step(number, second * SECOND);
                if tell.send(second).is_err() {
                    return;
                }
            }
            abreast.end(number);
        });
        told
    }

    fn until(told: &Receiver<i64>, second: i64) {
        while told.recv_timeout(AT_ONCE).unwrap() < second {}
    }

    #[test]
    fn who_is_ahead_waits_for_the_other_input() {
        let abreast = Arc::new(Abreast::default());
        abreast.join(0, 0);
        abreast.join(1, 1);
        let picture = runs(&abreast, 0);
        assert!(picture.recv_timeout(A_WHILE).is_err(), "the sound hasn't begun");
        abreast.step(1, 0);
        until(&picture, 5);
        assert!(picture.recv_timeout(A_WHILE).is_err(), "six seconds are too far");
        abreast.step(1, 4 * SECOND);
        until(&picture, 9);
        abreast.end(1);
        until(&picture, 59);
        // Behind the end of the picture the sound goes on.
        abreast.step(1, 900 * SECOND);
    }

    #[test]
    fn both_come_to_their_end() {
        let abreast = Arc::new(Abreast::default());
        abreast.join(0, 0);
        abreast.join(1, 1);
        let (picture, sound) = (runs(&abreast, 0), runs(&abreast, 1));
        until(&picture, 59);
        until(&sound, 59);
    }

    #[test]
    fn tracks_of_one_input_and_streams_that_end_wait_for_nobody() {
        let abreast = Arc::new(Abreast::default());
        abreast.join(0, 0);
        abreast.join(1, 0);
        abreast.step(0, 600 * SECOND);
        abreast.join(2, 1);
        let picture = runs(&abreast, 0);
        assert!(picture.recv_timeout(A_WHILE).is_err());
        abreast.over();
        until(&picture, 59);
    }
}
