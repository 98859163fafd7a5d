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
