//! Says to a gateway what a worker says, as often, and does nothing else: for `gateway-cost`.
//!
//! Twice a second `Alive`, `Progress` and `GpuTime`, once a second a segment of three seconds: a stream
//! on a GPU at three times normal speed.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use session::{
    Channel, Complete, Control, Ending, GatewayToWorker, PROTOCOL, Progress,
    WorkerToGateway as Message,
};

/// As `rendergate-worker` does.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Media per second.
const SPEED: u64 = 3;
/// Reports from one segment to the next.
const REPORTS_A_SEGMENT: u64 = 2;

fn main() -> Result<()> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut channel = Channel::new(socket);
    let (lease, _held) = std::io::pipe()?;
    channel.send(&Message::Ready { protocol: PROTOCOL }, &[lease.as_fd()])?;
    drop(lease);
    let Some(start) = channel.receive::<GatewayToWorker>()? else { return Ok(()) };
    let GatewayToWorker::Start { transcode, .. } = start.message else {
        bail!("expected a stream to start");
    };
    let first = transcode.output.hls().map_or(0, |output| output.start_number);
    channel.send(
        &Message::Running {
            backend: "vaapi".into(),
            node: Some("/dev/dri/renderD128".into()),
            reason: None,
            source: None,
            description: "vah264dec ! rgcadence ! vapostproc ! vah264enc".into(),
        },
        &[],
    )?;
    channel.send(&Message::Committed, &[])?;
    let begun = Instant::now();
    for report in 1.. {
        match wait(&mut channel, begun + REPORT_EVERY * report)? {
            Wish::None => {}
            Wish::Quit => {
                channel.send(&Message::Ended(Ending::Quit), &[])?;
                return Ok(());
            }
            Wish::Gone => return Ok(()),
        }
        say(&channel, u64::from(report), first, begun.elapsed())?;
    }
    Ok(())
}

fn say(channel: &Channel, report: u64, first: u64, elapsed: Duration) -> Result<()> {
    let media_ms = report * 500 * SPEED;
    let elapsed_us = u64::try_from(elapsed.as_micros())?;
    channel.send(&Message::Alive { decoded: media_ms / 40, waiting: false }, &[])?;
    let seconds = elapsed.as_secs_f64();
    let engine = |share: f64| gpu::Engine { seconds: seconds * share, capacity: 1 };
    let engines: BTreeMap<_, _> =
        [("video", 0.1), ("render", 0.05), ("video-enhance", 0.04), ("copy", 0.0)]
            .map(|(name, share)| (name.to_owned(), engine(share)))
            .into();
    channel.send(&Message::GpuTime { engines, withheld: false }, &[])?;
    if report.is_multiple_of(REPORTS_A_SEGMENT) {
        let number = first + report / REPORTS_A_SEGMENT - 1;
        channel.send(&Message::SegmentComplete { number, complete: Complete::default() }, &[])?;
    }
    let progress = Progress {
        frames: media_ms / 40,
        position_us: media_ms * 1000,
        source_us: i64::try_from(media_ms * 1000)?,
        bytes: media_ms * 500,
        elapsed_us,
    };
    channel.send(&Message::Progress(progress), &[])?;
    Ok(())
}

/// What the gateway wants.
enum Wish {
    None,
    Quit,
    Gone,
}

/// Listens until a time; horizons and pauses are heard and change nothing.
fn wait(channel: &mut Channel, until: Instant) -> Result<Wish> {
    loop {
        while let Some(message) = channel.buffered::<GatewayToWorker>()? {
            if message.message == GatewayToWorker::Control(Control::Quit) {
                return Ok(Wish::Quit);
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Wish::None);
        }
        let socket: OwnedFd = channel.socket().try_clone()?;
        let mut polled = [PollFd::new(&socket, PollFlags::IN)];
        if poll(&mut polled, Some(&Timespec::try_from(left)?))? > 0 && channel.fill()? == 0 {
            return Ok(Wish::Gone);
        }
    }
}
