//! A server of live television: one program, sent as it plays, to whoever asks for it.
//!
//! It stands where Jellyfin's own server gives out a tuner's stream
//! (`http://127.0.0.1:8096/LiveTv/LiveStreamFiles/.../stream.ts`, contract 2.8): HTTP/1.1 without a
//! length, from now on, until the client goes or [`Tuner::end`] is called.
//!
//! Invariant: no thread outlives the tuner by more than a piece.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes sent at once: seven packets of MPEG-TS, as tuners have them.
const PIECE: usize = 7 * 188;

/// A running server.
#[derive(Debug)]
pub struct Tuner {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    program: Vec<u8>,
    /// Bytes per second.
    rate: f64,
    ended: AtomicBool,
    /// Bytes that may be sent to a client; more later.
    allowed: Mutex<u64>,
    changed: Condvar,
    viewers: AtomicU64,
}

impl Tuner {
    /// Sends `program` at `rate` bytes per second. A request for a path that ends in `.ts` gets it,
    /// any other a 404.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start(program: Vec<u8>, rate: f64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            program,
            rate,
            ended: AtomicBool::new(false),
            allowed: Mutex::new(u64::MAX),
            changed: Condvar::new(),
            viewers: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if own.ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let own = Arc::clone(&own);
                thread::spawn(move || {
                    // A client that goes away is what ends most of them.
                    let _ = own.serve(client);
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// URL of the program.
    pub fn url(&self) -> String {
        format!("http://{}/LiveTv/LiveStreamFiles/tuner/stream.ts", self.address)
    }

    /// URL of nothing.
    pub fn missing_url(&self) -> String {
        format!("http://{}/LiveTv/LiveStreamFiles/tuner/gone", self.address)
    }

    /// Sends to each client no more than so many bytes from its beginning, until more are allowed.
    pub fn allow(&self, bytes: u64) {
        *self.shared.allowed.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        self.shared.changed.notify_all();
    }

    /// How many are being served.
    pub fn viewers(&self) -> u64 {
        self.shared.viewers.load(Ordering::Relaxed)
    }

    /// The program is over: connections are closed.
    pub fn end(&self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}

impl Drop for Tuner {
    fn drop(&mut self) {
        self.end();
        // Wakes whoever listens.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(client.try_clone()?).lines();
        let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        if !request.split(' ').nth(1).is_some_and(|path| path.ends_with(".ts")) {
            return client.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
        self.viewers.fetch_add(1, Ordering::Relaxed);
        let sent = self.send(&mut client);
        self.viewers.fetch_sub(1, Ordering::Relaxed);
        sent
    }

    fn send(&self, client: &mut TcpStream) -> io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: video/mp2t\r\ntransfer-encoding: chunked\r\n\
                    connection: close\r\n\r\n";
        client.write_all(head.as_bytes())?;
        let pause = Duration::from_secs_f64(PIECE as f64 / self.rate);
        let mut sent = 0;
        for piece in self.program.chunks(PIECE) {
            let allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
            let end = sent + piece.len() as u64;
            let waits = |allowed: &mut u64| *allowed < end && !self.ended.load(Ordering::Relaxed);
            // A short wait: the end is announced without the lock.
            let mut allowed = allowed;
            while waits(&mut allowed) {
                let waited = self.changed.wait_timeout(allowed, Duration::from_millis(50));
                allowed = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(allowed);
            if self.ended.load(Ordering::Relaxed) {
                break;
            }
            write!(client, "{:x}\r\n", piece.len())?;
            client.write_all(piece)?;
            client.write_all(b"\r\n")?;
            sent = end;
            crate::let_pass(pause);
        }
        client.write_all(b"0\r\n\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn get(url: &str) -> String {
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').expect("a path");
        let mut client = TcpStream::connect(address).unwrap();
        write!(client, "GET /{path} HTTP/1.1\r\nhost: tuner\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_program_is_sent_whole_and_nothing_else() {
        let tuner = Tuner::start(b"x".repeat(3000), 1e9).unwrap();
        let answer = get(&tuner.url());
        assert_eq!(answer.matches('x').count(), 3000);
        assert!(get(&tuner.missing_url()).starts_with("HTTP/1.1 404"));
        assert_eq!(tuner.viewers(), 0);
    }
}
