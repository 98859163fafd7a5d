//! What the stream has had of the GPU's engines, told to the gateway.
//!
//! A worker has one stream, so the engine time of its process is the stream's. It is read from the
//! process's own descriptors, which the kernel shows to anybody who owns them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use gpu::EngineTime;
use session::WorkerToGateway;

/// Reads and tells.
#[derive(Debug)]
pub struct Meter {
    fdinfo: PathBuf,
    began: Instant,
    time: EngineTime,
    socket: Arc<OwnedFd>,
}

impl Meter {
    /// Of this process, below `proc_root` (`/proc`).
    pub fn new(proc_root: &Path, socket: Arc<OwnedFd>) -> Self {
        let fdinfo = proc_root.join(std::process::id().to_string()).join("fdinfo");
        Self { fdinfo, began: Instant::now(), time: EngineTime::default(), socket }
    }

    /// Takes a reading. The last one has to be taken while the GPU is still open: its counters go with
    /// the descriptor.
    pub fn read(&mut self) {
        // Without the directory nothing can be told; the gateway shows no time then.
        if self.time.read(&self.fdinfo, self.began.elapsed()).is_err() {
            return;
        }
        let message = WorkerToGateway::GpuTime {
            engines: self.time.totals().clone(),
            withheld: self.time.is_withheld(),
        };
        let _ = session::send(self.socket.as_fd(), &message, &[]);
    }
}
