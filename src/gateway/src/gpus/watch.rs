//! The one task that looks at GPUs.
//!
//! Invariants:
//! - One look at a time: two would share a GPU and its time.
//! - No stream waits for a look.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpu::Device;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::Gpus;
use super::state::Event;
use crate::pool::Pool;
use crate::probe::Prober;

/// How often the list of nodes is read, to find a GPU that appears or goes away.
pub(super) const LISTING: Duration = Duration::from_secs(5);

/// What can be seen of GPUs.
pub(super) trait Sight: Send + Sync + 'static {
    /// The nodes that there are. Cheap, and opens none.
    fn nodes(&self) -> io::Result<Vec<PathBuf>>;
    /// What a GPU can do, tried out; or why it can't be used.
    fn look(&self, node: &Path) -> impl Future<Output = Result<Device, String>> + Send;
    /// There are other nodes than before. Elements may have other names now, which workers that are
    /// warm already don't know.
    fn nodes_changed(&self);
}

/// The real one.
#[derive(Debug)]
pub(crate) struct Eyes {
    /// How probe processes are started.
    pub prober: Prober,
    /// The workers.
    pub pool: Pool,
}

impl Sight for Eyes {
    fn nodes(&self) -> io::Result<Vec<PathBuf>> {
        gpu::node_paths()
    }

    async fn look(&self, node: &Path) -> Result<Device, String> {
        let report = match self.prober.look(node).await {
            Ok(report) => report,
            Err(error) => return Err(error.to_string()),
        };
        report.device().filter(Device::codes).ok_or_else(|| match report.state {
            gpu::Outcome::Failed { reason } => reason,
            _ => "nothing that streams need works on it".to_owned(),
        })
    }

    fn nodes_changed(&self) {
        self.pool.renew();
    }
}

/// Looks for as long as there is a gateway.
pub(super) async fn watch(gpus: Gpus, sight: impl Sight) {
    let mut known: Option<Vec<PathBuf>> = None;
    let mut unlisted = false;
    loop {
        let nodes = sight.nodes().unwrap_or_else(|error| {
            if !std::mem::replace(&mut unlisted, true) {
                warn!(%error, "can't list render nodes");
            }
            known.clone().unwrap_or_default()
        });
        if known.as_ref() != Some(&nodes) {
            if known.is_some() {
                sight.nodes_changed();
            }
            gpus.list(&nodes);
            known = Some(nodes);
        }
        // Before the pause is known, so that a failure in between isn't slept over.
        let woken = gpus.shared.woken.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let now = Instant::now();
        match gpus.next_look() {
            Some((node, at)) if at <= now => {
                let seen = sight.look(&node).await;
                gpus.happened(&node, Event::Seen(seen));
            }
            next => {
                let at = next.map_or(now + LISTING, |(_, at)| at.min(now + LISTING));
                tokio::select! {
                    () = woken => {}
                    () = sleep_until(at) => {}
                }
            }
        }
    }
}
