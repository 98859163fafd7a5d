//! What a hook keeps so that its stream can go on with another gateway: the plan, the open files, and
//! where the stream has come to.
//!
//! Invariant: nobody else is given the stream before the last one who wrote it is gone. A worker dies
//! with its gateway, but the kernel doesn't say in which order: its lease does, a pipe that ends with
//! its process.

use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use ffmpeg_args::Transcode;
use hls::directory::sweep;
use session::{Channel, Complete, HookToGateway, PROTOCOL, Progress, Resumption, Takeover, Writer};

use crate::job::{Files, Patience, connect_to};

/// How long the next gateway is waited for unless [`TIMEOUT_VARIABLE`] says otherwise. A service manager
/// has started it again by then, and players have so much in hand.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Milliseconds to wait for the next gateway; 0 to end with the first.
pub const TIMEOUT_VARIABLE: &str = "RENDERGATE_RECONNECT_TIMEOUT_MS";
/// Gateways that may be lost in a row without a segment in between: it may be the stream that ends them.
const MOST_LOSSES: u32 = 3;

/// See the module's description.
pub struct Reconnect {
    transcode: Box<Transcode>,
    files: Files,
    endpoint: OsString,
    timeout: Duration,
    resumption: Resumption,
    writer: Option<Writer>,
    lease: Option<OwnedFd>,
    losses: u32,
    /// The last segment stands, and the playlist.
    written: bool,
}

impl Reconnect {
    /// For a stream that can be gone on with; `None` of others, or if nobody wants it.
    pub fn new(
        transcode: Transcode,
        files: Files,
        endpoint: OsString,
        timeout: Duration,
    ) -> Option<Self> {
        let first = Self::first(&transcode, timeout)?;
        Some(Self {
            transcode: Box::new(transcode),
            files,
            endpoint,
            timeout,
            resumption: Resumption::beginning(first),
            writer: None,
            lease: None,
            losses: 0,
            written: false,
        })
    }

    /// Number of the first segment, if there is going to be something to keep.
    pub fn first(transcode: &Transcode, timeout: Duration) -> Option<u64> {
        Resumption::possible(transcode).filter(|_| !timeout.is_zero())
    }

    /// How long the next gateway is waited for.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Number of the segment that comes next.
    pub fn next(&self) -> u64 {
        self.resumption.next
    }

    /// Another process writes from now on; the one before is reaped.
    pub fn written_by(&mut self, writer: Writer, lease: Option<OwnedFd>) {
        self.writer = Some(writer);
        self.lease = lease;
    }

    /// Notes a complete segment.
    pub fn complete(&mut self, number: u64, complete: Complete) {
        self.losses = 0;
        self.written = complete.last;
        self.resumption.note(number, complete);
    }

    /// Nothing is left to be done, whoever says so.
    pub fn is_written(&self) -> bool {
        self.written
    }

    /// The gateway that had the stream is lost. One that stops and lets go of it isn't: that has other
    /// reasons.
    pub fn is_lost(&mut self) {
        self.losses += 1;
    }

    /// Whether another gateway may be looked for.
    pub fn may_follow(&self) -> bool {
        self.resumption.leads_on() && self.losses < MOST_LOSSES
    }

    /// To poll for the end of the last writer, if it isn't known to be gone.
    pub fn lease(&self) -> Option<&OwnedFd> {
        self.lease.as_ref()
    }

    /// Something has come of the lease: nobody writes to it, so it is its end.
    pub fn writer_is_gone(&mut self) {
        self.lease = None;
    }

    /// Removes what the last writer has left half-written, if it is gone.
    pub fn clear_away(&self) {
        if let (Some(writer), None) = (self.writer, &self.lease)
            && let Some(output) = self.transcode.output.hls()
        {
            // Jellyfin tidies up what can't be removed now.
            _ = sweep(self.files.directory(), &output.segment_prefix, &writer.tag());
        }
    }

    /// Asks whoever listens to go on with the stream. Gives the connection, and what of the question its
    /// socket hasn't taken yet.
    ///
    /// # Errors
    /// If nobody listens, in whose words ever.
    pub fn ask(&self, progress: Option<Progress>) -> io::Result<(Channel, Vec<u8>)> {
        let socket = connect_to(&self.endpoint, Patience::None).map_err(io::Error::other)?;
        let takeover = Takeover {
            resumption: self.resumption.clone(),
            writer: self.writer,
            progress: progress.unwrap_or_default(),
        };
        let job = HookToGateway::Job {
            protocol: PROTOCOL,
            transcode: self.transcode.clone(),
            reconnects: true,
            takeover: Some(Box::new(takeover)),
        };
        let descriptors: Vec<BorrowedFd<'_>> = self.files.descriptors();
        let mut frame = session::encode(&job, descriptors.len())?;
        let channel = Channel::new(socket);
        let sent = {
            use std::os::fd::AsFd;
            session::send_part(channel.socket().as_fd(), &frame, &descriptors)?
        };
        frame.drain(..sent);
        Ok((channel, frame))
    }
}
