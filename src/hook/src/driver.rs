//! Jellyfin's question for the VA-API driver, answered for the gateway's GPU (contract 1.3).
//!
//! Jellyfin asks its ffmpeg to open the render node and looks for the driver's name in what that
//! says. Where Jellyfin runs there may be no render node: the one that matters is the gateway's.

use std::ffi::OsStr;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use session::{Channel, GatewayToHook, HookToGateway, PROTOCOL};

use crate::console;
use crate::job::{Patience, connect_to};

/// A gateway that has just started is still looking at its GPU, and says so after ten seconds.
const PATIENCE: Duration = Duration::from_secs(12);
/// ffmpeg's exit code when it is given nothing to write.
const EXIT_NO_OUTPUT: i32 = 1;

/// Says on stderr what ffmpeg would if it opened the gateway's GPU, and gives ffmpeg's exit code.
/// `None` without a gateway, or if no GPU works there.
pub fn answer(endpoint: &OsStr) -> Option<i32> {
    let driver = ask(endpoint)?;
    console::say(&format!("[AVHWDeviceContext] VAAPI driver: {driver}."));
    console::say("rendergate: that is the driver of the gateway's GPU, on which streams run");
    Some(EXIT_NO_OUTPUT)
}

fn ask(endpoint: &OsStr) -> Option<String> {
    let socket = connect_to(endpoint, Patience::Some).ok()?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).ok()?;
    let mut channel = Channel::new(socket);
    channel.send(&HookToGateway::Driver { protocol: PROTOCOL }, &[]).ok()?;
    match channel.receive::<GatewayToHook>().ok()??.message {
        GatewayToHook::Driver { driver } => driver,
        // Declined: another protocol, or somebody who may not ask.
        _ => None,
    }
}
