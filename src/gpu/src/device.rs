//! A GPU as far as streams may use it: what has been seen working, by which element, up to which
//! size.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::report::{Capabilities, Machine, NodeReport, Operation, Trial};

/// A GPU for streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// `/dev/dri/renderD128`.
    pub node: PathBuf,
    /// The driver's own name and version.
    pub driver: String,
    /// What works.
    pub abilities: BTreeMap<Operation, Ability>,
    /// The element that deinterlaces, if one was seen doing it.
    pub deinterlacer: Option<String>,
}

/// An operation that works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// The GStreamer element.
    pub element: String,
    /// Greatest picture in pixels, if the driver says.
    pub max_size: Option<(u32, u32)>,
    /// Of encoders, as GStreamer names them: `cbr`, `vbr`, `cqp`.
    pub rate_control: Vec<String>,
}

impl Device {
    /// Whether it decodes or encodes anything: one that only processes is of no use to a stream.
    pub fn codes(&self) -> bool {
        self.abilities.keys().any(|one| one.decodes() || one.encodes())
    }
}

impl Ability {
    /// Whether a picture isn't too large.
    pub fn takes(&self, width: u32, height: u32) -> bool {
        self.max_size.is_none_or(|(most_wide, most_high)| width <= most_wide && height <= most_high)
    }
}

impl NodeReport {
    /// The node for streams; `None` if nothing was seen working on it.
    pub fn device(&self) -> Option<Device> {
        let probe = self.probe.as_ref()?;
        let capabilities = probe.vaapi.as_ref().ok()?;
        let usable = |trial: &&Trial| trial.outcome.is_usable();
        let of = |operation| self.trials.iter().find(move |trial| trial.operation == operation);
        // Pictures that a decoder leaves in the GPU's memory don't get out of it right.
        let lost = of(Operation::Transcode).is_some_and(|trial| !usable(&trial));
        let is_ability = |operation: Operation| match operation {
            Operation::Deinterlace | Operation::Transcode => false,
            operation => !(lost && operation.decodes()),
        };
        let abilities: BTreeMap<_, _> = self
            .trials
            .iter()
            .filter(usable)
            .filter(|trial| is_ability(trial.operation))
            .filter_map(|trial| {
                let element = trial.element.clone()?;
                Some((trial.operation, ability(trial.operation, element, capabilities)))
            })
            .collect();
        let deinterlacer = of(Operation::Deinterlace).filter(usable);
        let deinterlacer = deinterlacer.and_then(|trial| trial.element.clone());
        (!abilities.is_empty()).then(|| Device {
            node: self.node.path.clone(),
            driver: capabilities.vendor.clone(),
            abilities,
            deinterlacer,
        })
    }
}

impl Machine {
    /// The GPU that streams may use: of those that encode or decode anything the one that can do
    /// most, the first of equals.
    pub fn device(&self) -> Option<Device> {
        let devices = self.nodes.iter().filter_map(NodeReport::device);
        // The last of equals is what max_by_key would give.
        devices.filter(Device::codes).rev().max_by_key(|device| device.abilities.len())
    }
}

fn ability(operation: Operation, element: String, capabilities: &Capabilities) -> Ability {
    let (profile, entrypoint) = operation.needs();
    let entry = capabilities.entry(profile, &entrypoint);
    let rate_control = entry.map(|entry| entry.rate_control.as_slice()).unwrap_or_default();
    Ability {
        element,
        max_size: entry.and_then(|entry| entry.max_size),
        rate_control: rate_control.iter().map(|mode| mode.to_ascii_lowercase()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::RenderNode;
    use crate::report::{Entry, Entrypoint, NodeProbe, Outcome, Processing};

    fn report(outcome: Outcome) -> NodeReport {
        let entry = Entry {
            profile: "H264High".into(),
            entrypoint: Entrypoint::Encode,
            max_size: Some((1920, 1088)),
            formats: Vec::new(),
            rate_control: vec!["CBR".into(), "VBR".into()],
        };
        let processing = Processing { deinterlacing: vec!["bob".into()], ..Processing::default() };
        let node = RenderNode {
            path: "/dev/dri/renderD129".into(),
            driver: None,
            pci: None,
            problem: None,
        };
        let elements = ["varenderD129deinterlace", "varenderD129h264enc"];
        let probe = NodeProbe {
            gstreamer: "1.22.0".into(),
            va_plugin: true,
            elements: elements.map(String::from).to_vec(),
            vaapi: Ok(Capabilities {
                vendor: "a driver".into(),
                version: "1.17".into(),
                entries: vec![entry],
                processing: Some(processing),
            }),
        };
        let trial = |operation, element: &str, outcome: &Outcome| Trial {
            operation,
            element: Some(element.into()),
            outcome: outcome.clone(),
        };
        NodeReport {
            node,
            state: outcome.clone(),
            probe: Some(probe),
            trials: vec![
                trial(Operation::EncodeH264, "varenderD129h264enc", &outcome),
                trial(Operation::DecodeH264, "varenderD129h264dec", &outcome),
                trial(Operation::Deinterlace, "varenderD129deinterlace", &outcome),
            ],
            advice: Vec::new(),
        }
    }

    #[test]
    fn what_works_is_for_streams() {
        let device = report(Outcome::Usable).device().unwrap();
        let encode = &device.abilities[&Operation::EncodeH264];
        assert_eq!(encode.element, "varenderD129h264enc");
        assert_eq!(encode.rate_control, ["cbr", "vbr"]);
        assert!(encode.takes(1920, 1080) && !encode.takes(3840, 1080));
        assert_eq!(device.deinterlacer.as_deref(), Some("varenderD129deinterlace"));
        let json = serde_json::to_string(&device).unwrap();
        assert_eq!(serde_json::from_str::<Device>(&json).unwrap(), device);
    }

    #[test]
    fn what_failed_is_not() {
        assert_eq!(report(Outcome::Failed { reason: "x".into() }).device(), None);
        assert_eq!(report(Outcome::Untested).device(), None);
    }

    #[test]
    fn one_that_only_processes_is_of_no_use() {
        let mut report = report(Outcome::Usable);
        for operation in [Operation::Scale, Operation::Turn] {
            let element = Some("varenderD129postproc".into());
            report.trials.push(Trial { operation, element, outcome: Outcome::Usable });
        }
        let device = report.device().unwrap();
        assert!(device.codes() && device.abilities.contains_key(&Operation::Turn));
        report.trials.retain(|trial| !trial.operation.decodes() && !trial.operation.encodes());
        assert!(!report.device().unwrap().codes());
    }

    #[test]
    fn a_deinterlacer_that_failed_is_none() {
        let mut report = report(Outcome::Usable);
        report.trials[2].outcome = Outcome::Failed { reason: "it hangs".into() };
        let device = report.device().unwrap();
        assert_eq!((device.deinterlacer, device.abilities.len()), (None, 2));
    }

    #[test]
    fn what_gets_lost_in_the_gpu_s_memory_is_decoded_in_software() {
        let mut report = report(Outcome::Usable);
        let mut of_all = |outcome| {
            let element = Some("a,b,c".into());
            report.trials.push(Trial { operation: Operation::Transcode, element, outcome });
            let device = report.device().unwrap();
            report.trials.pop();
            device.abilities.into_keys().collect::<Vec<_>>()
        };
        let both = [Operation::DecodeH264, Operation::EncodeH264];
        assert_eq!(of_all(Outcome::Usable), both);
        let failed = Outcome::Failed { reason: "wrong picture".into() };
        assert_eq!(of_all(failed), [Operation::EncodeH264]);
    }
}
