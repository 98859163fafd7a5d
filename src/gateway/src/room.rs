//! Streams that wait for room on the disk of their output: who hears of it.
//!
//! A worker says so itself ([`session::WorkerToGateway::Room`]); a viewer of another's segments copies them
//! here, in the gateway ([`crate::follow`]).

use std::path::Path;
use std::sync::Arc;

use hls::{Room, Waiting};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::streams::Entry;

/// Notes that a stream waits for room, or does no longer. A line for Jellyfin's log, if that is news.
pub(crate) fn note(entry: &Entry, waiting: bool) -> Option<String> {
    let output = entry.with(|record| {
        let news = std::mem::replace(&mut record.no_room, waiting) != waiting;
        news.then(|| record.output.clone())
    })?;
    let folder = Path::new(&output).parent().unwrap_or(Path::new("/")).display();
    Some(if waiting {
        warn!(%folder, "no space left: the stream waits for room");
        format!("rendergate: no space left in {folder}: the stream waits for room")
    } else {
        info!(%folder, "there is room again: the stream goes on");
        format!("rendergate: there is room again in {folder}: the stream goes on")
    })
}

/// Room for files that the gateway itself writes, and whether it is waited for.
pub(crate) fn for_copies() -> (Arc<Room>, watch::Receiver<bool>) {
    let (tell, told) = watch::channel(false);
    let room = Room::new(move |news| match news {
        Waiting::Begins => drop(tell.send_replace(true)),
        Waiting::Lasts => {}
        Waiting::Ends => drop(tell.send_replace(false)),
    });
    (Arc::new(room), told)
}
