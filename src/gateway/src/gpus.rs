//! The GPU that streams may use, as the gateway knows it.
//!
//! Nothing touches a driver in the gateway's own process: probe processes look at the GPUs once,
//! while the gateway already serves ([`crate::probe`]). Jobs that come before the answer run in
//! software, or on the hook's own ffmpeg where software isn't wanted.
//!
//! Invariant: what streams get has been seen working on this machine, in this environment.

use std::sync::Arc;

use gpu::{Device, Machine};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Backend;
use crate::metrics::Metrics;
use crate::probe::Prober;

/// What is known so far.
#[derive(Debug, Clone)]
enum Known {
    /// Not asked for.
    Unwanted,
    /// The probe processes are at it.
    Looking,
    /// Why there is none.
    Nothing(String),
    /// The one that works.
    Found(Arc<Device>),
}

/// See the module's description. Clones know the same.
#[derive(Debug, Clone)]
pub(crate) struct Gpus {
    backend: Backend,
    known: watch::Receiver<Known>,
}

/// What a stream may run on.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    /// The GPU.
    pub device: Option<Arc<Device>>,
    /// Whether it may do without.
    pub software: bool,
}

impl Gpus {
    /// Begins to look, if the configuration wants a GPU.
    pub(crate) fn look(backend: Backend, prober: Prober, metrics: Metrics) -> Self {
        let first = if backend == Backend::Software { Known::Unwanted } else { Known::Looking };
        let (tell, known) = watch::channel(first);
        if backend != Backend::Software {
            tokio::spawn(async move {
                let found = match prober.machine().await {
                    Ok(machine) => judge(&machine),
                    Err(error) => Known::Nothing(error.to_string()),
                };
                match &found {
                    Known::Found(device) => {
                        let node = device.node.display();
                        let works: Vec<_> =
                            device.abilities.keys().map(ToString::to_string).collect();
                        info!(%node, driver = device.driver, works = works.join(", "), "GPU");
                        metrics.gpu(&node.to_string(), &device.driver);
                    }
                    Known::Nothing(reason) if backend == Backend::Vaapi => {
                        warn!(reason, "no GPU for streams: jobs are left to the hook's ffmpeg");
                    }
                    Known::Nothing(reason) => info!(reason, "no GPU for streams"),
                    Known::Unwanted | Known::Looking => {}
                }
                tell.send_replace(found);
                // Whoever asks later still reads what was told last.
                tell.closed().await;
            });
        }
        Self { backend, known }
    }

    /// What a stream that starts now may run on.
    ///
    /// One that encodes no picture has no use for a GPU.
    ///
    /// # Errors
    /// Why it may not run here at all, for people.
    pub(crate) fn allowance(&self, encodes_video: bool) -> Result<Allowance, String> {
        let software = self.backend != Backend::Vaapi || !encodes_video;
        let device = match &*self.known.borrow() {
            Known::Found(device) => Some(device.clone()),
            Known::Unwanted => None,
            _ if software => None,
            Known::Looking => return Err("the GPU is still being looked at".into()),
            Known::Nothing(reason) => {
                return Err(format!("gpu.backend is vaapi, and there is no GPU: {reason}"));
            }
        };
        Ok(Allowance { device, software })
    }
}

fn judge(machine: &Machine) -> Known {
    if let Some(device) = machine.device() {
        return Known::Found(Arc::new(device));
    }
    let reason = match machine.nodes.first() {
        None => "no render node in /dev/dri (rendergate probe says more)".to_owned(),
        Some(report) => match &report.state {
            gpu::Outcome::Failed { reason } => {
                format!("{}: {reason} (rendergate probe says more)", report.node.path.display())
            }
            _ => format!("nothing works on {}", report.node.path.display()),
        },
    };
    Known::Nothing(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(backend: Backend, known: Known) -> Gpus {
        Gpus { backend, known: watch::channel(known).1 }
    }

    #[test]
    fn software_is_the_rest_unless_it_is_not_wanted() {
        let nothing = || Known::Nothing("no render node".into());
        for known in [Known::Looking, nothing()] {
            let allowed = gpus(Backend::Auto, known).allowance(true).unwrap();
            assert!(allowed.software && allowed.device.is_none());
        }
        let refused = gpus(Backend::Vaapi, nothing()).allowance(true).unwrap_err();
        assert_eq!(refused, "gpu.backend is vaapi, and there is no GPU: no render node");
        assert!(gpus(Backend::Vaapi, Known::Looking).allowance(true).is_err());
        // Copies and sound run anywhere.
        assert!(gpus(Backend::Vaapi, nothing()).allowance(false).unwrap().software);
        let device = Arc::new(Device {
            node: "/dev/dri/renderD128".into(),
            driver: "a driver".into(),
            abilities: Default::default(),
            deinterlacer: None,
        });
        let allowed = gpus(Backend::Vaapi, Known::Found(device)).allowance(true).unwrap();
        assert!(!allowed.software && allowed.device.is_some());
        let allowed = gpus(Backend::Software, Known::Unwanted).allowance(true).unwrap();
        assert!(allowed.software && allowed.device.is_none());
    }

    #[test]
    fn a_machine_without_a_node_says_so() {
        let machine = Machine { usable: false, nodes: Vec::new(), advice: Vec::new() };
        let Known::Nothing(reason) = judge(&machine) else { panic!("found something") };
        assert!(reason.contains("no render node"), "{reason}");
    }
}
