//! The bytes of an input, at any offset: of files laid end to end, or of a pipe.
//!
//! Demuxers pull: they read where they like, and once the graph is linked they begin again at byte 0
//! (see [`crate::source`]). A pipe gives its bytes once, so what has come of it is kept: all of it
//! while the input is opened, later the last megabytes, for demuxers that step back a little. Seen
//! from a demuxer a pipe is a file whose length isn't known, whose reads may last, and which can't be
//! left out of order by much. What timestamps mean to a demuxer is therefore the same in both.
//!
//! Invariants:
//! - Of a pipe no more is kept than [`MOST_KEPT`] bytes before [`Reading::go_on`], and [`BEHIND`] and
//!   a chunk afterwards.
//! - A read waits for data for as long as it takes. It ends at once when it is interrupted
//!   ([`Reading::interrupt`]) or the input is closed ([`Reading::close`]).
//! - Nothing shares a file position with whoever else holds the descriptors.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use crate::opened::Bytes;

/// Most bytes of a pipe that are kept while its streams are looked for: 25 seconds at 20 Mbit/s.
pub const MOST_KEPT: u64 = 64 << 20;
/// Bytes of a pipe that stay behind the furthest read, once streams have been found.
pub const BEHIND: u64 = 8 << 20;
/// Size of the pieces that they are kept in.
const CHUNK: usize = 64 << 10;

/// Why there are no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The system's reason.
    #[error("can't read the input: {0}")]
    System(Errno),
    /// Somebody wants the reader to stop waiting.
    #[error("reading was interrupted")]
    Interrupted,
    /// A pipe has given as much as is kept, and the reader still wants to go back to its beginning.
    #[error("the streams of a network input aren't found within {} MiB", MOST_KEPT >> 20)]
    TooLong,
    /// These bytes of a pipe have been forgotten.
    #[error("byte {0} of a network input is wanted when it has gone by")]
    GoneBy(u64),
}

/// See the module's description.
#[derive(Debug)]
pub struct Reading {
    store: Store,
    waiting: AtomicBool,
    /// The last read came to the end.
    at_end: AtomicBool,
    /// What stands in for the first bytes.
    opening: OnceLock<Opening>,
    /// Why a read failed, in better words than an element's.
    failure: Mutex<Option<ReadError>>,
}

/// Bytes in place of an input's first ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// What is read at the beginning.
    pub bytes: Vec<u8>,
    /// So many bytes of the input aren't read in return.
    pub skipped: u64,
}

#[derive(Debug)]
enum Store {
    Files(Vec<Part>),
    Pipe(Box<Pipe>),
}

/// A file among several.
#[derive(Debug)]
struct Part {
    file: OwnedFd,
    /// Where it begins in the whole.
    start: u64,
}

#[derive(Debug)]
struct Pipe {
    /// Held by the one who waits for more.
    end: Mutex<ReadingEnd>,
    kept: Mutex<Kept>,
    /// Readable while readers are to stop waiting.
    interrupted: OwnedFd,
    /// Readable once no more is wanted.
    closed: OwnedFd,
}

#[derive(Debug)]
struct ReadingEnd {
    pipe: OwnedFd,
    buffer: Vec<u8>,
}

/// What is there of a pipe.
#[derive(Debug, Default)]
struct Kept {
    /// Offset of the first byte, a multiple of [`CHUNK`].
    base: u64,
    /// All full but the last.
    chunks: VecDeque<Vec<u8>>,
    /// No more will come.
    ended: bool,
    /// The beginning may be forgotten.
    going_on: bool,
    /// Whoever reads takes what is there.
    in_pieces: bool,
}

impl Reading {
    /// # Errors
    /// If the system has no descriptor left or can't tell a file's length.
    pub fn new(bytes: Bytes) -> Result<Self, ReadError> {
        let store = match bytes {
            Bytes::Files(files) => {
                let mut parts = Vec::new();
                let mut start = 0;
                for file in files {
                    let length = length_of(&file)?;
                    parts.push(Part { file, start });
                    start += length;
                }
                Store::Files(parts)
            }
            Bytes::Pipe(pipe) => {
                let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
                let event = || eventfd(0, flags).map_err(ReadError::System);
                Store::Pipe(Box::new(Pipe {
                    end: Mutex::new(ReadingEnd { pipe, buffer: vec![0; CHUNK] }),
                    kept: Mutex::default(),
                    interrupted: event()?,
                    closed: event()?,
                }))
            }
        };
        Ok(Self {
            store,
            waiting: AtomicBool::new(false),
            at_end: AtomicBool::new(false),
            opening: OnceLock::new(),
            failure: Mutex::new(None),
        })
    }

    /// From now on the input begins otherwise. Once.
    pub fn open_with(&self, opening: Opening) {
        let _ = self.opening.set(opening);
    }

    /// Whether its bytes come once.
    pub fn is_pipe(&self) -> bool {
        matches!(self.store, Store::Pipe(_))
    }

    /// Whether somebody waits for bytes right now.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether the last read came to the end, or failed.
    pub fn is_at_end(&self) -> bool {
        self.at_end.load(Ordering::Relaxed)
    }

    /// Notes why a read failed.
    pub fn failed(&self, error: ReadError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Why a read failed first, if one did.
    pub fn failure(&self) -> Option<ReadError> {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its length in bytes, if it has one. Files that still grow are as long as they are now.
    pub fn length(&self) -> Option<u64> {
        let Store::Files(parts) = &self.store else { return None };
        let last = parts.last()?;
        let length = last.start + length_of(&last.file).ok()?;
        let added = |opening: &Opening| length + opening.bytes.len() as u64 - opening.skipped;
        Some(self.opening.get().map_or(length, added))
    }

    /// Fills `buffer` from `offset` on; less only at the end, and where that was asked for
    /// ([`go_on`](Self::go_on)).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        self.read_from(offset, buffer, false)
    }

    /// As [`read_at`](Self::read_at), but of a pipe no more than is there, and at least a byte.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_some_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        self.read_from(offset, buffer, true)
    }

    fn read_from(&self, offset: u64, buffer: &mut [u8], some: bool) -> Result<usize, ReadError> {
        let read = self.read_opened(offset, buffer, some);
        // Nobody reads beyond a file whose length is known.
        let at_end = match read {
            Ok(read @ 1..) => self.length().is_some_and(|length| offset + read as u64 >= length),
            Ok(0) | Err(_) => true,
        };
        self.at_end.store(at_end, Ordering::Relaxed);
        read
    }

    fn read_opened(&self, offset: u64, buffer: &mut [u8], some: bool) -> Result<usize, ReadError> {
        let Some(Opening { bytes, skipped }) = self.opening.get() else {
            return self.read_store(offset, buffer, some);
        };
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let opening = bytes.get(at..).unwrap_or_default();
        let length = opening.len().min(buffer.len());
        buffer[..length].copy_from_slice(&opening[..length]);
        let rest = (offset + length as u64).saturating_sub(bytes.len() as u64) + skipped;
        if length == buffer.len() {
            return Ok(length);
        }
        Ok(length + self.read_store(rest, &mut buffer[length..], some)?)
    }

    fn read_store(&self, offset: u64, buffer: &mut [u8], some: bool) -> Result<usize, ReadError> {
        match &self.store {
            Store::Files(parts) => {
                let mut filled = 0;
                while filled < buffer.len() {
                    match read_parts(parts, offset + filled as u64, &mut buffer[filled..])? {
                        0 => break,
                        read => filled += read,
                    }
                }
                Ok(filled)
            }
            Store::Pipe(pipe) => self.read_pipe(pipe, offset, buffer, some),
        }
    }

    fn read_pipe(
        &self,
        pipe: &Pipe,
        offset: u64,
        buffer: &mut [u8],
        some: bool,
    ) -> Result<usize, ReadError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let mut kept = lock(&pipe.kept);
            let wanted = if some || kept.in_pieces { 1 } else { buffer.len() as u64 };
            if offset < kept.base {
                return Err(ReadError::GoneBy(offset));
            }
            if kept.ended || offset + wanted <= kept.end() {
                let read = kept.copy(offset, buffer);
                kept.forget(offset + read as u64);
                return Ok(read);
            }
            if !kept.going_on && kept.end() >= MOST_KEPT {
                return Err(ReadError::TooLong);
            }
            let had = kept.end();
            // A leap far ahead: what lies between is never read.
            kept.forget(offset.min(had));
            drop(kept);
            let mut end = pipe.end.lock().unwrap_or_else(PoisonError::into_inner);
            // Another reader may have been faster.
            if lock(&pipe.kept).end() > had {
                continue;
            }
            self.waiting.store(true, Ordering::Relaxed);
            let more = pipe.more(&mut end);
            self.waiting.store(false, Ordering::Relaxed);
            let more = more?;
            let mut kept = lock(&pipe.kept);
            match more {
                0 => kept.ended = true,
                read => kept.append(&end.buffer[..read]),
            }
        }
    }

    /// The streams of a pipe have been found: its beginning may be forgotten as soon as it has been
    /// read again. With `in_pieces` reads give what has come instead of waiting for all that they
    /// want.
    pub fn go_on(&self, in_pieces: bool) {
        if let Store::Pipe(pipe) = &self.store {
            let mut kept = lock(&pipe.kept);
            kept.going_on = true;
            kept.in_pieces = in_pieces;
        }
    }

    /// While `on`, no read waits.
    pub fn interrupt(&self, on: bool) {
        let Store::Pipe(pipe) = &self.store else { return };
        // The counter can't overflow: a second write adds one to one.
        let _ = if on {
            rustix::io::write(&pipe.interrupted, &1_u64.to_ne_bytes())
        } else {
            rustix::io::read(&pipe.interrupted, &mut [0; 8])
        };
    }

    /// The end of a pipe for whoever reads it: what has come by now is all.
    pub fn close(&self) {
        if let Store::Pipe(pipe) = &self.store {
            let _ = rustix::io::write(&pipe.closed, &1_u64.to_ne_bytes());
        }
    }
}

impl Pipe {
    /// Waits for bytes and reads them; zero at the end.
    fn more(&self, end: &mut ReadingEnd) -> Result<usize, ReadError> {
        loop {
            let mut ready = [
                PollFd::new(&self.closed, PollFlags::IN),
                PollFd::new(&self.interrupted, PollFlags::IN),
                PollFd::new(&end.pipe, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(ReadError::System(error)),
            }
            let [closed, interrupted, pipe] = ready.map(|one| !one.revents().is_empty());
            if closed {
                return Ok(0);
            }
            if interrupted {
                return Err(ReadError::Interrupted);
            }
            if pipe {
                match rustix::io::read(&end.pipe, &mut end.buffer) {
                    Ok(read) => return Ok(read),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(error) => return Err(ReadError::System(error)),
                }
            }
        }
    }
}

impl Kept {
    fn end(&self) -> u64 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        self.base + (full + self.chunks.back().map_or(0, Vec::len)) as u64
    }

    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.chunks.back().is_none_or(|last| last.len() == CHUNK) {
                self.chunks.push_back(Vec::with_capacity(CHUNK));
            }
            let Some(last) = self.chunks.back_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - last.len()));
            last.extend_from_slice(now);
            bytes = later;
        }
    }

    fn copy(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut at = usize::try_from(offset - self.base).unwrap_or(usize::MAX);
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = self.chunks.get(at / CHUNK).and_then(|chunk| chunk.get(at % CHUNK..));
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { break };
            let length = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + length].copy_from_slice(&rest[..length]);
            (filled, at) = (filled + length, at + length);
        }
        filled
    }

    /// Lets go of what lies far enough before `offset`.
    fn forget(&mut self, offset: u64) {
        while self.going_on && self.chunks.len() > 1 && self.base + CHUNK as u64 + BEHIND <= offset
        {
            self.chunks.pop_front();
            self.base += CHUNK as u64;
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn length_of(file: &OwnedFd) -> Result<u64, ReadError> {
    let status = rustix::fs::fstat(file).map_err(ReadError::System)?;
    Ok(u64::try_from(status.st_size).unwrap_or(0))
}

/// Reads from the part that holds `offset`. The last one may have grown.
fn read_parts(parts: &[Part], offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
    let index = parts.partition_point(|part| part.start <= offset).saturating_sub(1);
    let Some(part) = parts.get(index) else { return Ok(0) };
    let room = parts.get(index + 1).map_or(u64::MAX, |next| next.start - offset);
    let length = usize::try_from(room).unwrap_or(usize::MAX).min(buffer.len());
    loop {
        match rustix::io::pread(&part.file, &mut buffer[..length], offset - part.start) {
            Ok(read) => return Ok(read),
            Err(Errno::INTR) => {}
            Err(error) => return Err(ReadError::System(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;
    use std::sync::Arc;

    fn pipe() -> (Arc<Reading>, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        (Arc::new(Reading::new(Bytes::Pipe(reader.into())).unwrap()), writer)
    }

    fn numbers(range: std::ops::Range<u32>) -> Vec<u8> {
        range.flat_map(u32::to_be_bytes).collect()
    }

    fn read(reading: &Reading, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut buffer = vec![0; length];
        let read = reading.read_at(offset, &mut buffer)?;
        buffer.truncate(read);
        Ok(buffer)
    }

    #[test]
    fn files_lie_end_to_end() {
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            OwnedFd::from(file)
        };
        let files = vec![file(b"abc"), file(b""), file(b"defg"), file(b"h")];
        let reading = Reading::new(Bytes::Files(files)).unwrap();
        assert_eq!(reading.length(), Some(8));
        for offset in 0..10 {
            for length in 0..10 {
                let whole = b"abcdefgh".get(offset..).unwrap_or_default();
                let expected = &whole[..length.min(whole.len())];
                assert_eq!(read(&reading, offset as u64, length).unwrap(), expected);
            }
        }
    }

    #[test]
    fn an_input_may_begin_otherwise() {
        let (reading, mut writer) = pipe();
        writer.write_all(b"xxabcdef").unwrap();
        drop(writer);
        reading.open_with(Opening { bytes: b"123".to_vec(), skipped: 2 });
        for offset in 0..11 {
            for length in 0..11 {
                let whole = b"123abcdef".get(offset..).unwrap_or_default();
                let expected = &whole[..length.min(whole.len())];
                assert_eq!(read(&reading, offset as u64, length).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_pipe_is_read_again_until_it_goes_on() {
        let (reading, mut writer) = pipe();
        let whole = numbers(0..6_000_000);
        let sent = whole.clone();
        let sender = std::thread::spawn(move || writer.write_all(&sent));
        assert!(read(&reading, 1000, 1 << 20).unwrap() == whole[1000..1000 + (1 << 20)]);
        assert!(read(&reading, 0, 100).unwrap() == whole[..100]);
        reading.go_on(false);
        let mut at = 0;
        while at < whole.len() {
            let piece = read(&reading, at as u64, 100_001).unwrap();
            assert!(piece == whole[at..(at + 100_001).min(whole.len())], "at {at}");
            at += piece.len();
            let Store::Pipe(pipe) = &reading.store else { unreachable!() };
            let held = lock(&pipe.kept).chunks.len() * CHUNK;
            assert!(held as u64 <= BEHIND + (2 << 20), "{held} bytes are kept");
        }
        assert_eq!(read(&reading, at as u64, 10), Ok(Vec::new()));
        assert_eq!(read(&reading, 0, 10), Err(ReadError::GoneBy(0)));
        let near = whole.len() - (BEHIND as usize >> 1);
        assert!(read(&reading, near as u64, 10).unwrap() == whole[near..near + 10]);
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn what_is_kept_has_an_end() {
        let (reading, mut writer) = pipe();
        let sender = std::thread::spawn(move || {
            let zeros = vec![0; 1 << 20];
            while writer.write_all(&zeros).is_ok() {}
        });
        assert_eq!(read(&reading, MOST_KEPT + 1, 1), Err(ReadError::TooLong));
        drop(reading);
        sender.join().unwrap();
    }

    #[test]
    fn whoever_waits_can_be_stopped() {
        let (reading, mut writer) = pipe();
        writer.write_all(b"ab").unwrap();
        let mut some = [0; 10];
        assert_eq!(reading.read_some_at(0, &mut some), Ok(2));
        let waiting = |reading: &Arc<Reading>| {
            let own = Arc::clone(reading);
            let waiter = std::thread::spawn(move || read(&own, 0, 10));
            while !reading.is_waiting() {
                std::thread::yield_now();
            }
            waiter
        };
        let waiter = waiting(&reading);
        reading.interrupt(true);
        assert_eq!(waiter.join().unwrap(), Err(ReadError::Interrupted));
        assert_eq!(read(&reading, 0, 10), Err(ReadError::Interrupted));
        reading.interrupt(false);
        let waiter = waiting(&reading);
        reading.close();
        assert_eq!(waiter.join().unwrap(), Ok(b"ab".to_vec()));
        assert!(!reading.is_waiting());
    }
}
