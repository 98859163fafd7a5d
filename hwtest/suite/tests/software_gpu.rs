//! `rendergate probe` on nodes that work: the software VA-API driver decodes, encodes and scales for
//! real, so "usable" has to be said here, and of nothing else.

use gpu::{NodeReport, Operation, Outcome};
use hwtest_suite::VirtualMachine;

fn outcome(node: &NodeReport, operation: Operation) -> Option<&Outcome> {
    let trial = node.trials.iter().find(|trial| trial.operation == operation)?;
    Some(&trial.outcome)
}

#[test]
fn everything_it_reports_is_usable() {
    let machine = VirtualMachine::softva(&[]).probe();
    assert!(machine.usable);
    let [node] = &machine.nodes[..] else { panic!("{machine:?}") };
    assert_eq!(node.state, Outcome::Usable);
    for operation in [
        Operation::DecodeH264,
        Operation::DecodeHevc,
        Operation::DecodeVp9,
        Operation::EncodeH264,
        Operation::EncodeHevc,
        Operation::Scale,
        Operation::Turn,
        Operation::ToneMap,
        Operation::Balance,
        Operation::Deinterlace,
        Operation::Transcode,
    ] {
        assert_eq!(outcome(node, operation), Some(&Outcome::Usable), "{operation}");
    }
    assert_eq!(node.advice, []);
}

#[test]
fn one_node_that_may_not_be_opened_leaves_the_other_usable() {
    let machine = VirtualMachine::softva(&[
        ("RENDERNODE_COUNT", "2"),
        ("RENDERNODE_FAULT", "no-permission@128"),
    ]);
    let machine = machine.probe();
    let [first, second] = &machine.nodes[..] else { panic!("{machine:?}") };
    assert!(matches!(first.state, Outcome::Failed { .. }), "{first:?}");
    assert_eq!(second.state, Outcome::Usable);
    assert!(machine.usable);
}

#[test]
fn two_nodes_have_elements_of_their_own() {
    let machine = VirtualMachine::softva(&[("RENDERNODE_COUNT", "2")]).probe();
    let encoder = |node: &NodeReport| {
        let trial = node.trials.iter().find(|trial| trial.operation == Operation::EncodeH264);
        trial.and_then(|trial| trial.element.clone()).unwrap()
    };
    let mut encoders: Vec<_> = machine.nodes.iter().map(encoder).collect();
    encoders.sort();
    assert_eq!(encoders.len(), 2);
    assert_eq!(encoders[0], "vah264enc");
    assert!(encoders[1].starts_with("varenderD12"), "{encoders:?}");
}

#[test]
fn a_filter_that_hangs_or_paints_garbage_is_not_used() {
    for (fault, operation) in [
        ("garbage:deinterlace", Operation::Deinterlace),
        ("hang:deinterlace", Operation::Deinterlace),
        ("garbage:turn", Operation::Turn),
        ("hang:tone-map", Operation::ToneMap),
        ("garbage:tone-map", Operation::ToneMap),
    ] {
        let machine = VirtualMachine::softva(&[("SOFTVA_FAULT", fault)]).probe();
        let node = &machine.nodes[0];
        let failed = outcome(node, operation);
        assert!(matches!(failed, Some(Outcome::Failed { .. })), "{fault}: {failed:?}");
        assert_eq!(outcome(node, Operation::Transcode), Some(&Outcome::Usable), "{fault}");
        let device = node.device().unwrap();
        let deinterlaces = operation != Operation::Deinterlace;
        assert_eq!(device.deinterlacer.is_some(), deinterlaces, "{fault}");
        assert!(!device.abilities.contains_key(&operation), "{fault}");
        assert!(device.abilities.contains_key(&Operation::DecodeH264), "{fault}");
    }
}

#[test]
fn what_gets_lost_in_the_gpu_s_memory_is_decoded_in_software() {
    let machine = VirtualMachine::softva(&[("SOFTVA_FAULT", "garbage:decoded")]).probe();
    let node = &machine.nodes[0];
    // Each by itself is as it should be.
    for operation in [Operation::DecodeH264, Operation::Scale, Operation::EncodeH264] {
        assert_eq!(outcome(node, operation), Some(&Outcome::Usable), "{operation}");
    }
    let failed = outcome(node, Operation::Transcode);
    assert!(matches!(failed, Some(Outcome::Failed { .. })), "{failed:?}");
    let device = node.device().unwrap();
    assert!(!device.abilities.keys().any(|operation| operation.decodes()), "{device:?}");
    assert!(device.abilities.contains_key(&Operation::EncodeH264));
}
