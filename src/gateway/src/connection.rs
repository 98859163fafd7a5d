//! A connection to a hook or a worker: messages in, a bounded queue of messages out.
//!
//! Invariants:
//! - Receiving and sending never wait for each other: [`Connection::receive`] does both at once,
//!   so that a peer which stops reading can't keep us from hearing that it is gone.
//! - `receive` loses nothing when it is dropped half-way.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::Shutdown;
use serde::Serialize;
use serde::de::DeserializeOwned;
use session::{FrameError, Received, Receiver};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Most bytes waiting for a peer that doesn't read. Two hours of progress messages fit.
const MAX_QUEUED: usize = 1024 * 1024;

/// Why a connection has ended other than by being closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The socket broke.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// The peer sends what is no message.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The peer has stopped reading.
    #[error("the peer hasn't read {0} bytes of messages")]
    Stuck(usize),
}

impl ConnectionError {
    /// Stable word for counters.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::InvalidData => "descriptors",
            Self::Io(_) => "io",
            Self::Frame(FrameError::NotAFrame) => "not_a_frame",
            Self::Frame(FrameError::Oversized(_)) => "oversized",
            Self::Frame(FrameError::TooManyDescriptors | FrameError::MissingDescriptors { .. }) => {
                "descriptors"
            }
            Self::Frame(FrameError::Body(_)) => "body",
            Self::Stuck(_) => "stuck",
        }
    }
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    receiver: Receiver,
    outgoing: VecDeque<Outgoing>,
    queued: usize,
}

impl Connection {
    /// Around a connected socket.
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, receiver: Receiver::new(), outgoing: VecDeque::new(), queued: 0 }
    }

    /// Around one that tokio doesn't know yet; it becomes non-blocking.
    pub(crate) fn from_std(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::new(UnixStream::from_std(socket)?))
    }

    /// Sends a message as soon as the socket takes it, at once if it can.
    pub(crate) fn queue<M: Serialize>(
        &mut self,
        message: &M,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ConnectionError> {
        let bytes = session::encode(message, descriptors.len())?;
        if self.queued + bytes.len() > MAX_QUEUED {
            return Err(ConnectionError::Stuck(self.queued));
        }
        self.queued += bytes.len();
        self.outgoing.push_back(Outgoing { bytes, sent: 0, descriptors });
        // Not by way of what tokio knows of the socket, which is nothing yet on a new one.
        match write(self.socket.as_fd(), &mut self.outgoing, &mut self.queued) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Nothing waits to be sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// The next message; `None` when the peer has closed. Sends what is queued meanwhile.
    pub(crate) async fn receive<M: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Received<M>>, ConnectionError> {
        loop {
            if let Some(received) = self.receiver.next()? {
                return Ok(Some(received));
            }
            if self.progress(Interest::READABLE).await? == Some(0) {
                return Ok(None);
            }
        }
    }

    /// Waits until everything queued is with the kernel, at most so long.
    pub(crate) async fn flush(&mut self, limit: Duration) -> Result<(), ConnectionError> {
        let all = async {
            while !self.is_flushed() {
                self.progress(Interest::WRITABLE).await?;
            }
            Ok(())
        };
        match tokio::time::timeout(limit, all).await {
            Ok(result) => result,
            Err(_) => Err(ConnectionError::Stuck(self.queued)),
        }
    }

    /// The peer reads the end of the connection; what it still sends can be received.
    pub(crate) fn close_write(&self) {
        // Fails only if the peer is gone, which is as good.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }

    /// One step of input or output. `Some(n)` after a read of `n` bytes.
    async fn progress(&mut self, wanted: Interest) -> io::Result<Option<usize>> {
        let interest = if self.outgoing.is_empty() { wanted } else { wanted | Interest::WRITABLE };
        let ready = self.socket.ready(interest).await?;
        if ready.is_writable() && !self.outgoing.is_empty() {
            match self.write() {
                // The peer may have closed after its last words; those are still to be read.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    if !wanted.is_readable() {
                        return Err(error);
                    }
                    self.outgoing.clear();
                    self.queued = 0;
                }
                _ => {}
            }
        }
        if wanted.is_readable() && ready.is_readable() {
            let (socket, receiver) = (&self.socket, &mut self.receiver);
            match socket.try_io(Interest::READABLE, || receiver.fill(socket.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(Some),
            }
        }
        Ok(None)
    }

    /// Sends what the socket takes. `WouldBlock` if that is not all.
    fn write(&mut self) -> io::Result<()> {
        let (socket, outgoing, queued) = (&self.socket, &mut self.outgoing, &mut self.queued);
        socket.try_io(Interest::WRITABLE, || write(socket.as_fd(), outgoing, queued))
    }
}

fn write(
    socket: std::os::fd::BorrowedFd<'_>,
    outgoing: &mut VecDeque<Outgoing>,
    queued: &mut usize,
) -> io::Result<()> {
    while let Some(first) = outgoing.front_mut() {
        let sent = {
            let descriptors: Vec<_> = first.descriptors.iter().map(AsFd::as_fd).collect();
            session::send_part(socket, &first.bytes[first.sent..], &descriptors)?
        };
        // They are the peer's now.
        first.descriptors.clear();
        first.sent += sent;
        *queued -= sent;
        if first.sent == first.bytes.len() {
            outgoing.pop_front();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use session::{Control, HookToGateway};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::from_std(ours).unwrap(), theirs)
    }

    fn message() -> HookToGateway {
        HookToGateway::Control(Control::Pause)
    }

    #[tokio::test]
    async fn a_peer_that_never_reads_is_noticed_and_bounded() {
        let (mut connection, _peer) = pair();
        let mut sent = 0;
        let error = loop {
            match connection.queue(&message(), Vec::new()) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ConnectionError::Stuck(n) if n <= MAX_QUEUED), "{error}");
        assert!(sent > 1000);
    }

    #[tokio::test]
    async fn the_end_is_heard_while_sends_are_stuck() {
        let (mut connection, peer) = pair();
        while connection.is_flushed() {
            connection.queue(&message(), Vec::new()).unwrap();
        }
        session::send(peer.as_fd(), &message(), &[]).unwrap();
        drop(peer);
        let first = connection.receive::<HookToGateway>().await;
        // The kernel may report the reset before or after the last words, never hang.
        if let Ok(Some(received)) = first {
            assert_eq!(received.message, message());
            assert!(!matches!(connection.receive::<HookToGateway>().await, Ok(Some(_))));
        }
    }

    #[tokio::test]
    async fn messages_queue_in_order_through_a_full_socket() {
        let (mut connection, peer) = pair();
        let mut queued = 0;
        while connection.is_flushed() || queued < 3000 {
            connection.queue(&message(), Vec::new()).unwrap();
            queued += 1;
        }
        let reader = std::thread::spawn(move || {
            let mut channel = session::Channel::new(peer.into());
            let mut count = 0;
            while let Some(received) = channel.receive::<HookToGateway>().unwrap() {
                assert_eq!(received.message, message());
                count += 1;
            }
            count
        });
        connection.flush(Duration::from_secs(10)).await.unwrap();
        drop(connection);
        assert_eq!(reader.join().unwrap(), queued);
    }

    #[tokio::test]
    async fn descriptors_go_with_their_message() {
        let (mut connection, peer) = pair();
        let file = tempfile::tempfile().unwrap();
        connection.queue(&message(), vec![file.into()]).unwrap();
        let mut channel = session::Channel::new(peer.into());
        let received = channel.receive::<HookToGateway>().unwrap().unwrap();
        assert_eq!(received.descriptors.len(), 1);
    }
}
