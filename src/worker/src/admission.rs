//! Asks the gateway how the stream is to be run, once the source is known and before anything is built.
//!
//! One message there and one back: all ways are offered at once ([`crate::options`]), so that the
//! gateway can take one without asking again.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender};

use session::{Control, Fault, WorkerToGateway};

use crate::link::Gpu;
use crate::options::Way;
use crate::run::Wake;
use crate::source::SourceError;

/// Asks, and waits for the answer on the worker's one channel.
pub struct Asker<'a> {
    /// What it may be run on at all.
    pub gpu: Gpu<'a>,
    /// To the gateway.
    pub socket: &'a OwnedFd,
    /// What the gateway says.
    pub(crate) wakes: &'a Receiver<Wake>,
    /// For what it says besides, which is heard later.
    pub(crate) wake: &'a SyncSender<Wake>,
    /// Nobody wants the stream any more.
    pub has_quit: bool,
}

impl Asker<'_> {
    /// Which of the ways to go.
    ///
    /// # Errors
    /// If the gateway is gone, or the stream isn't wanted any more.
    pub fn ask(&mut self, mut ways: Vec<Way>) -> Result<Way, SourceError> {
        tell_cpu_time(self.socket);
        let options = ways.iter().map(|way| way.work.clone()).collect();
        let _ = session::send(self.socket.as_fd(), &WorkerToGateway::Options { options }, &[]);
        let broken =
            |message: &str| SourceError { message: message.to_owned(), fault: Fault::Gateway };
        let mut later = Vec::new();
        let option = loop {
            match self.wakes.recv() {
                Ok(Wake::Run(option)) => break option,
                Ok(Wake::Control(Control::Quit)) => {
                    self.has_quit = true;
                    return Err(broken("not wanted any more"));
                }
                Ok(Wake::GatewayLost) | Err(_) => return Err(broken("the gateway is gone")),
                Ok(other) => later.push(other),
            }
        };
        for wake in later {
            // There is room: as many have just been taken out.
            let _ = self.wake.try_send(wake);
        }
        if option >= ways.len() {
            return Err(broken("the gateway takes a way that wasn't offered"));
        }
        Ok(ways.swap_remove(option))
    }
}

/// Tells the gateway what processor time this process has had.
pub fn tell_cpu_time(socket: &OwnedFd) {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_us = time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000;
    let _ = session::send(socket.as_fd(), &WorkerToGateway::CpuTime { cpu_us }, &[]);
}
