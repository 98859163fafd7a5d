//! What a stream has to run on, by what the probe has seen working. Pure, and apart from the worker's
//! own choice on purpose: a row compares the two.

use gpu::{Device, Entrypoint, NodeReport, Operation};

use super::codec::{Source, Target};

/// Where a stream has to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Promise {
    /// `vaapi`, `mixed` or `software`.
    pub backend: &'static str,
    /// Elements that have to be in the graph.
    pub elements: Vec<String>,
    /// The worker may find that the driver doesn't take the profile, which no probe has tried, and
    /// leave the stream to ffmpeg before anything is written.
    pub may_leave: bool,
}

/// For a source and a target of these sizes in pixels.
pub fn promise(
    device: &Device,
    report: &NodeReport,
    (source, source_size): (Source, (u32, u32)),
    (target, target_size): (Target, (u32, u32)),
) -> Promise {
    let able = |operation: Operation, (width, height): (u32, u32)| {
        device.abilities.get(&operation).filter(|ability| ability.takes(width, height))
    };
    let scaler = device.abilities.get(&Operation::Scale);
    let decoder = scaler.and_then(|_| able(source.operation(), source_size));
    let encoder = target.operations().into_iter().find_map(|one| able(one, target_size));
    let backend = match (decoder, encoder) {
        (Some(_), Some(_)) => "vaapi",
        (None, None) => "software",
        _ => "mixed",
    };
    let elements = [decoder, encoder].into_iter().flatten().map(|one| one.element.clone());
    let capabilities = report.probe.as_ref().and_then(|probe| probe.vaapi.as_ref().ok());
    let reported = capabilities.is_some_and(|all| all.reports("VP9Profile2", &Entrypoint::Decode));
    let may_leave = source == Source::Vp9Ten && decoder.is_some() && !reported;
    Promise { backend, elements: elements.collect(), may_leave }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gpu::{Ability, Outcome, RenderNode};

    use super::*;

    fn device(operations: &[Operation]) -> Device {
        let ability = |operation: &Operation| Ability {
            element: format!("va{}", operation.element_suffix().unwrap_or_default()),
            max_size: Some((1920, 1088)),
            rate_control: Vec::new(),
        };
        let abilities: BTreeMap<_, _> = operations.iter().map(|one| (*one, ability(one))).collect();
        let node = "/dev/dri/renderD128".into();
        Device { node, driver: "a driver".into(), abilities, deinterlacer: None }
    }

    fn report() -> NodeReport {
        let path = "/dev/dri/renderD128".into();
        NodeReport {
            node: RenderNode { path, driver: None, pci: None, problem: None },
            state: Outcome::Usable,
            probe: None,
            trials: Vec::new(),
            advice: Vec::new(),
        }
    }

    fn backend(operations: &[Operation], source: (Source, (u32, u32))) -> Promise {
        promise(&device(operations), &report(), source, (Target::H264, (640, 360)))
    }

    #[test]
    fn each_side_is_promised_by_itself() {
        use Operation::{DecodeH264, EncodeH264LowPower, Scale};
        let film = (Source::H264, (1920, 1080));
        let all = backend(&[DecodeH264, Scale, EncodeH264LowPower], film);
        assert_eq!(all.backend, "vaapi");
        assert_eq!(all.elements, ["vah264dec", "vah264lpenc"]);
        assert_eq!(backend(&[DecodeH264, EncodeH264LowPower], film).backend, "mixed");
        assert_eq!(backend(&[DecodeH264, Scale], film).elements, ["vah264dec"]);
        let large = (Source::H264, (3840, 2160));
        assert_eq!(backend(&[DecodeH264, Scale], large).backend, "software");
    }

    #[test]
    fn only_a_profile_that_no_driver_reports_may_be_left() {
        use Operation::{DecodeVp9, Scale};
        assert!(backend(&[DecodeVp9, Scale], (Source::Vp9Ten, (640, 360))).may_leave);
        assert!(!backend(&[DecodeVp9, Scale], (Source::Vp9, (640, 360))).may_leave);
    }
}
