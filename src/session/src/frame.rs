//! Messages as frames on a stream socket, with file descriptors beside them.
//!
//! A frame is eight bytes of header and a JSON body:
//!
//! ```text
//! offset 0  u32 LE  length of the body, at most MAX_BODY
//!        4  u16 LE  descriptors that belong to this frame, at most MAX_DESCRIPTORS
//!        6  u16 LE  MAGIC
//! ```
//!
//! Descriptors travel as `SCM_RIGHTS` with the first bytes of their frame. The kernel never
//! merges data that carries descriptors with data that follows, so descriptors arrive no later
//! than their frame's last byte and in order; a count in the header ties them to it.
//!
//! Invariants:
//! - A peer can make the receiver hold at most `MAX_BODY` bytes and `MAX_DESCRIPTORS` descriptors
//!   beyond what it has consumed; anything else is a [`FrameError`], after which the connection
//!   is useless and must be dropped.
//! - Every received descriptor is close-on-exec.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest body in bytes. A plan with long paths takes some kilobytes.
pub const MAX_BODY: usize = 256 * 1024;
/// Most descriptors of one frame: eight inputs are more than Jellyfin ever names, plus the
/// output directory.
pub const MAX_DESCRIPTORS: usize = 64;
const MAGIC: u16 = 0x5247;
const HEADER: usize = 8;

/// Why a connection can't be understood any further.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Header without the magic number.
    #[error("expected a frame header, got other bytes: the peer doesn't speak this protocol")]
    NotAFrame,
    /// Body above [`MAX_BODY`].
    #[error("frame of {0} bytes, at most {MAX_BODY} are allowed")]
    Oversized(usize),
    /// More descriptors than [`MAX_DESCRIPTORS`], or than the frames claim.
    #[error("more file descriptors than a frame may carry ({MAX_DESCRIPTORS})")]
    TooManyDescriptors,
    /// A frame claims descriptors that did not come.
    #[error("frame announces {announced} file descriptors, {arrived} arrived")]
    MissingDescriptors {
        /// In the header.
        announced: usize,
        /// Received so far.
        arrived: usize,
    },
    /// The body is no message of the expected kind.
    #[error("frame body is not a message: {0}")]
    Body(#[from] serde_json::Error),
}

/// Sends one message. On a non-blocking socket it waits until there is room.
///
/// # Errors
/// `InvalidInput` if the message exceeds the limits, else what the socket reports (`BrokenPipe`
/// when the peer is gone; no signal is raised).
pub fn send<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let frame = encode(message, descriptors.len())?;
    let mut sent = 0;
    while sent < frame.len() {
        let with = if sent == 0 { descriptors } else { &[] };
        match send_once(socket, &frame[sent..], with, SendFlags::NOSIGNAL) {
            Ok(n) => sent += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sends as much of an [`encode`]d frame as the socket takes without waiting; says how many bytes
/// that was. The descriptors belong to the frame's first part only.
///
/// # Errors
/// `WouldBlock` when the socket is full, else what it reports.
pub fn send_part(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    loop {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match send_once(socket, bytes, descriptors, flags) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

fn send_once(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::INVAL);
    }
    sendmsg(socket, &[io::IoSlice::new(bytes)], &mut ancillary, flags)
}

/// The bytes of one frame.
///
/// # Errors
/// `InvalidInput` if body or descriptor count exceed the limits.
pub fn encode<M: Serialize>(message: &M, descriptors: usize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let body = frame.len() - HEADER;
    if body > MAX_BODY || descriptors > MAX_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("message of {body} bytes and {descriptors} descriptors exceeds a frame"),
        ));
    }
    frame[0..4].copy_from_slice(&u32::try_from(body).expect("at most MAX_BODY").to_le_bytes());
    frame[4..6].copy_from_slice(
        &u16::try_from(descriptors).expect("at most MAX_DESCRIPTORS").to_le_bytes(),
    );
    frame[6..8].copy_from_slice(&MAGIC.to_le_bytes());
    Ok(frame)
}

/// The receiving end of a connection: what has arrived and not been consumed.
#[derive(Debug, Default)]
pub struct Receiver {
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

/// A message and its descriptors.
#[derive(Debug)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// In the order they were sent.
    pub descriptors: Vec<OwnedFd>,
}

impl Receiver {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one read's worth from the socket. `Ok(0)` is the end of the connection.
    ///
    /// # Errors
    /// `WouldBlock` on an empty non-blocking socket, `InvalidData` if the peer sent more
    /// descriptors than any frame may carry, else what the socket reports.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [io::IoSliceMut::new(&mut chunk)];
            match recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let truncated = received.flags.contains(rustix::net::ReturnFlags::CTRUNC);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if truncated || self.descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, FrameError::TooManyDescriptors));
        }
        self.bytes.extend_from_slice(&chunk[..received.bytes]);
        Ok(received.bytes)
    }

    /// Takes bytes that came by another way than a socket (tests, fuzzing).
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]; drop the connection then.
    #[expect(clippy::should_implement_trait, reason = "the kind of message differs per call")]
    pub fn next<M: DeserializeOwned>(&mut self) -> Result<Option<Received<M>>, FrameError> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, d0, d1, m0, m1] = *header;
        if u16::from_le_bytes([m0, m1]) != MAGIC {
            return Err(FrameError::NotAFrame);
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let announced = usize::from(u16::from_le_bytes([d0, d1]));
        if length > MAX_BODY {
            return Err(FrameError::Oversized(length));
        }
        if announced > MAX_DESCRIPTORS {
            return Err(FrameError::TooManyDescriptors);
        }
        let end = HEADER + length;
        if self.bytes.len() < end {
            return Ok(None);
        }
        if self.descriptors.len() < announced {
            return Err(FrameError::MissingDescriptors {
                announced,
                arrived: self.descriptors.len(),
            });
        }
        let message = serde_json::from_slice(&self.bytes[HEADER..end])?;
        self.bytes.drain(..end);
        let descriptors = self.descriptors.drain(..announced).collect();
        Ok(Some(Received { message, descriptors }))
    }
}

/// A blocking connection: one socket with its receiver.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    receiver: Receiver,
}

impl Channel {
    /// Around a connected stream socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, receiver: Receiver::new() }
    }

    /// The socket, to poll on or to send from another thread.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Sends one message; see [`send`].
    ///
    /// # Errors
    /// As [`send`].
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        use std::os::fd::AsFd;
        send(self.socket.as_fd(), message, descriptors)
    }

    /// The next message without waiting, if one has arrived whole already.
    ///
    /// # Errors
    /// `InvalidData` around a [`FrameError`].
    pub fn buffered<M: DeserializeOwned>(&mut self) -> io::Result<Option<Received<M>>> {
        self.receiver.next().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// One read from the socket; see [`Receiver::fill`].
    ///
    /// # Errors
    /// As [`Receiver::fill`].
    pub fn fill(&mut self) -> io::Result<usize> {
        use std::os::fd::AsFd;
        self.receiver.fill(self.socket.as_fd())
    }

    /// Waits for the next message; `None` when the peer has closed the connection.
    ///
    /// # Errors
    /// As [`Receiver::fill`], `InvalidData` around a [`FrameError`].
    pub fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<Received<M>>> {
        loop {
            if let Some(received) = self.buffered()? {
                return Ok(Some(received));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }
}
