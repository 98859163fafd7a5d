//! What the gateway says, on its way to the thread that writes.
//!
//! That thread may stand in a write for which there is no room ([`crate::room`]), with the worker's one
//! channel full of samples. So the socket is read by a thread that waits for nothing else, and what it hears
//! queues up behind it. Those are a viewer's keys, and horizons, which hardly change while a stream stands.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, channel};
use std::thread;
use std::time::Duration;

use hls::Room;
use session::{Channel, Control, GatewayToWorker};

use crate::reading::Reading;
use crate::run::{Wake, forward};

/// Reads the control socket on a thread of its own. Who waits for a network input is told by its
/// end that no more is wanted of it; who waits for room on the disk, by the room.
pub(crate) fn listen(
    mut channel_in: Channel,
    wake: SyncSender<Wake>,
    readings: Vec<Arc<Reading>>,
    room: Arc<Room>,
) {
    let (hear, heard) = channel();
    forward(heard, wake);
    thread::spawn(move || {
        loop {
            let message = channel_in.receive::<GatewayToWorker>().ok().flatten();
            let next = match message.map(|received| received.message) {
                Some(GatewayToWorker::Control(control)) => Wake::Control(control),
                Some(GatewayToWorker::Horizon { position_us }) => {
                    Wake::Horizon(position_us.map(Duration::from_micros))
                }
                Some(GatewayToWorker::Run { option }) => Wake::Run(option),
                Some(GatewayToWorker::Start { .. }) | None => Wake::GatewayLost,
            };
            let lost = matches!(next, Wake::GatewayLost);
            let over = lost || matches!(next, Wake::Control(Control::Quit));
            let is_heard = hear.send(next).is_ok();
            if over {
                room.leave(!lost);
                readings.iter().for_each(|reading| reading.close());
            }
            if !is_heard || lost {
                return;
            }
        }
    });
}
