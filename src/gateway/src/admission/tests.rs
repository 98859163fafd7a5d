//! The policy as properties, estimates against streams whose cost is known, one stream's account.

use std::collections::BTreeMap;
use std::time::Duration;

use gpu::{Action, Engine, Step as WorkStep, Task, Work};
use proptest::prelude::*;
use tokio::time::Instant;

use super::account::Account;
use super::costs::{CPU, Cost, Costs, Demand, PROCESSOR, Placed, Resource, WHOLE};
use super::policy::{Candidate, Room, Step, decide};
use super::{Running, most_common, usual_work};

const GPUS: [&str; 2] = ["one", "two"];

fn resource(device: &str, class: &str) -> Resource {
    Resource { device: device.into(), class: class.into() }
}

// --- Policy --------------------------------------------------------------------------------------

/// The ways in which a worker offers a stream, in its order, with needs of a GPU's engine and of the
/// processor; no need is one that nobody knows.
fn candidates(needs: &[Option<f64>; 6]) -> Vec<Candidate> {
    let way = |gpu: Option<&str>, faster, need: Option<f64>| {
        let device = gpu.unwrap_or(PROCESSOR);
        let class = if gpu.is_some() { "video" } else { CPU };
        let mut demand = Demand::default();
        match need {
            Some(need) => _ = demand.need.insert(resource(device, class), need),
            None => _ = demand.unknown.insert(device.to_owned()),
        }
        Candidate { gpu: gpu.map(str::to_owned), faster, demand }
    };
    let [first, second, first_faster, second_faster, software, software_faster] = *needs;
    vec![
        way(Some(GPUS[0]), false, first),
        way(Some(GPUS[1]), false, second),
        way(Some(GPUS[0]), true, first_faster),
        way(Some(GPUS[1]), true, second_faster),
        way(None, false, software),
        way(None, true, software_faster),
    ]
}

fn room(loads: [f64; 3]) -> Room {
    let resources = [resource("one", "video"), resource("two", "video"), resource(PROCESSOR, CPU)];
    let capacity = resources.iter().cloned().map(|resource| (resource, 0.85)).collect();
    Room { capacity, load: resources.into_iter().zip(loads).collect(), ..Room::default() }
}

#[track_caller]
fn check(
    loads: [f64; 3],
    needs: [Option<f64>; 6],
    expect: (Option<usize>, Option<Step>, Option<&str>),
) {
    let decision = decide(&room(loads), &candidates(&needs), false);
    let full = decision.full.as_ref().map(|full| full.resource.device.as_str());
    assert_eq!((decision.option, decision.step, full), expect);
}

#[test]
fn steps_come_in_their_order() {
    let known = [0.3, 0.3, 0.1, 0.1, 0.3, 0.1].map(Some);
    let full = Some("one");
    check([0.0, 0.0, 0.0], known, (Some(0), None, None));
    check([0.55, 0.0, 0.0], known, (Some(0), None, None));
    check([0.56, 0.0, 0.0], known, (Some(1), Some(Step::OtherDevice), full));
    check([0.56, 0.56, 0.0], known, (Some(2), Some(Step::FasterPreset), full));
    check([0.8, 0.6, 0.0], known, (Some(3), Some(Step::FasterPreset), full));
    check([0.8, 0.8, 0.5], known, (Some(4), Some(Step::Software), full));
    check([0.8, 0.8, 0.6], known, (Some(5), Some(Step::Software), full));
    check([0.8, 0.8, 0.8], known, (None, Some(Step::LocalFfmpeg), full));
}

/// Estimates of a stream's first moments are of a machine that was idle.
#[test]
fn what_running_streams_take_is_expected_of_a_newcomer_too() {
    let mut costs = Costs::default();
    let decode = Task::decode("h264");
    let cost = Cost::measured(BTreeMap::from([(CPU.to_owned(), 0.01)]));
    costs.devices.entry(PROCESSOR.into()).or_default().tasks.insert(decode.clone(), cost);
    let stream = |takes: Option<f64>| Running {
        placed: Placed { gpu: None, ..placed(&[(decode.clone(), false, 10.0)]) },
        takes: takes.map(|takes| BTreeMap::from([(resource(PROCESSOR, CPU), takes)])),
    };
    let check = |running: &[Running], load: f64, newcomer: f64| {
        let room = super::room(&costs, running, 1.0);
        let cpu = resource(PROCESSOR, CPU);
        let need = room.need(&costs.demand(&stream(None).placed), &cpu).unwrap();
        assert!((room.load.get(&cpu).unwrap_or(&0.0) - load).abs() < 1e-9, "{room:?}");
        assert!((need - newcomer).abs() < 1e-9, "{need}: {room:?}");
    };
    // What is known from four measurements may well be a quarter too low.
    check(&[], 0.0, 0.125);
    check(&[stream(None)], 0.125, 0.125);
    check(&[stream(Some(0.15)), stream(None)], 0.3, 0.15);
    // A film that is easier says nothing of the next one.
    check(&[stream(Some(0.05)), stream(None)], 0.175, 0.125);
    check(&[stream(Some(0.1)), stream(Some(0.2))], 0.3, 0.15);
}

#[test]
fn others_take_room() {
    let known = [0.3, 0.3, 0.1, 0.1, 0.3, 0.1].map(Some);
    let decision = |loads, others| {
        let mut room = room(loads);
        room.others.insert(resource(PROCESSOR, CPU), others);
        let decision = decide(&room, &candidates(&known)[4..], false);
        (decision.option, decision.step, decision.full.map(|full| (full.taken, full.others)))
    };
    assert_eq!(decision([0.0; 3], 0.5), (Some(0), None, None));
    let faster = Some(Step::FasterPreset);
    assert_eq!(decision([0.0; 3], 0.7), (Some(1), faster, Some((0.7, 0.7))));
    assert_eq!(decision([0.0, 0.0, 0.25], 2.0), (Some(1), faster, Some((2.25, 2.0))));
    let refused = Some(Step::LocalFfmpeg);
    assert_eq!(decision([0.0, 0.0, 0.8], 0.5), (None, refused, Some((1.3, 0.5))));
}

#[test]
fn the_unknown_is_tried_if_it_is_no_way_to_cost_less() {
    let unknown = [None; 6];
    check([0.0, 0.0, 0.0], unknown, (Some(0), None, None));
    check([0.8, 0.0, 0.0], unknown, (Some(0), None, None));
    check([0.86, 0.0, 0.0], unknown, (Some(1), Some(Step::OtherDevice), Some("one")));
    check([0.86, 0.86, 0.0], unknown, (Some(4), Some(Step::Software), Some("one")));
    check([0.86, 0.86, 0.86], unknown, (None, Some(Step::LocalFfmpeg), Some("one")));
}

#[test]
fn what_has_begun_goes_on() {
    let room = room([0.9, 0.9, 0.85]);
    let candidates = candidates(&[0.3, 0.3, 0.2, 0.2, 0.3, 0.25].map(Some));
    assert_eq!(decide(&room, &candidates, false).option, None);
    let decision = decide(&room, &candidates, true);
    // Where it overloads least.
    assert_eq!((decision.option, decision.step), (Some(2), Some(Step::FasterPreset)));
}

fn need() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![3 => (0.001..2.0_f64).prop_map(Some), 1 => Just(None)]
}

fn needs() -> impl Strategy<Value = [Option<f64>; 6]> {
    [need(), need(), need(), need(), need(), need()]
}

fn loads() -> impl Strategy<Value = [f64; 3]> {
    let load = || prop_oneof![1 => Just(0.0), 4 => 0.0..1.2_f64];
    [load(), load(), load()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_doesnt_fit_isnt_taken_while_something_does(loads in loads(), needs in needs()) {
        let (room, candidates) = (room(loads), candidates(&needs));
        let decision = decide(&room, &candidates, false);
        let takes = |candidate: &Candidate| {
            // Computed anew: what it needs is below what is left, of what it needs.
            let (load, need) = match &candidate.gpu {
                Some(gpu) if gpu == GPUS[0] => (loads[0], candidate),
                Some(_) => (loads[1], candidate),
                None => (loads[2], candidate),
            };
            match need.demand.need.values().next() {
                Some(need) => load + need <= 0.85,
                None => load < 0.85 && !candidate.faster,
            }
        };
        let any = candidates.iter().any(takes);
        match decision.option {
            Some(option) if any => prop_assert!(takes(&candidates[option])),
            Some(_) => prop_assert_eq!(loads, [0.0; 3]),
            None => prop_assert!(!any),
        }
        // The first of those that fit, but for faster ones, which come after the other GPU.
        if let Some(first) = candidates.iter().position(takes) {
            prop_assert_eq!(decision.option, Some(first));
        }
        prop_assert_eq!(decision.step.is_none(), decision.option == Some(0));
    }

    #[test]
    fn an_idle_machine_refuses_nobody(needs in needs(), only in 0..6_usize) {
        let candidates = candidates(&needs);
        prop_assert!(decide(&room([0.0; 3]), &candidates, false).option.is_some());
        let one = Candidate { faster: false, ..candidates[only].clone() };
        prop_assert_eq!(decide(&room([0.0; 3]), &[one], false).option, Some(0));
    }

    #[test]
    fn less_load_never_refuses(loads in loads(), part in [0.0..=1.0_f64, 0.0..=1.0, 0.0..=1.0], needs in needs()) {
        let candidates = candidates(&needs);
        let less = [0, 1, 2].map(|at| loads[at] * part[at]);
        if decide(&room(loads), &candidates, false).option.is_some() {
            prop_assert!(decide(&room(less), &candidates, false).option.is_some());
        }
    }

    #[test]
    fn others_never_refuse(loads in loads(), others in 0.0..4.0_f64, needs in needs()) {
        let (without, candidates) = (room(loads), candidates(&needs));
        let mut with = without.clone();
        with.others.insert(resource(PROCESSOR, CPU), others);
        let [with, without] = [with, without].map(|room| decide(&room, &candidates, false).option);
        prop_assert_eq!(with.is_some(), without.is_some());
    }

    /// As many more as are said to be left fit, and not one more.
    #[test]
    fn what_is_left_is_what_fits(load in 0.0..0.8_f64, need in 0.01..0.5_f64) {
        let mut room = room([load, 0.0, 0.0]);
        let candidates = candidates(&[Some(need), None, None, None, None, None]);
        let left = room.left(&candidates[0].demand).unwrap();
        for _ in 0..left {
            prop_assert!(room.fits(&candidates[0].demand));
            *room.load.get_mut(&resource("one", "video")).unwrap() += need;
        }
        prop_assert!(!room.fits(&candidates[0].demand));
        prop_assert_eq!(room.left(&candidates[1].demand), None);
    }
}

// --- Costs ---------------------------------------------------------------------------------------

fn placed(steps: &[(Task, bool, f64)]) -> Placed {
    let step = |(task, on_gpu, megapixels): &(Task, bool, f64)| WorkStep {
        task: task.clone(),
        on_gpu: *on_gpu,
        megapixels: *megapixels,
    };
    let steps = steps.iter().map(step).collect();
    Placed { work: Work { steps, ..Work::default() }, gpu: Some("one".into()) }
}

fn video(seconds: f64) -> BTreeMap<String, Engine> {
    BTreeMap::from([("video".to_owned(), Engine { seconds, capacity: 2 })])
}

fn of(costs: &Costs, device: &str, task: &Task, class: &str) -> f64 {
    costs.devices[device].tasks[task].seconds[class]
}

/// What streams of other proportions take tells decoding from encoding.
#[test]
fn a_class_s_time_is_told_apart() {
    let (decode, encode) = (Task::decode("h264"), Task::encode("h264", ""));
    let (true_decode, true_encode) = (0.001, 0.004);
    let mut costs = Costs::default();
    for round in 0..400 {
        let (source, output) = [(50.0, 22.0), (50.0, 50.0), (200.0, 5.0)][round % 3];
        let stream = placed(&[(decode.clone(), true, source), (encode.clone(), true, output)]);
        let seconds = (source * true_decode + output * true_encode) * 10.0;
        costs.learn("one", &stream, 10.0, &video(seconds));
        // Each is what such a stream takes, whatever the shares.
        if round == 0 {
            let need = costs.demand(&stream).need[&resource("one", "video")];
            assert!((need * 10.0 / seconds - 1.0).abs() < 1e-9, "{need}");
        }
    }
    for (task, expect) in [(&decode, true_decode), (&encode, true_encode)] {
        let cost = of(&costs, "one", task, "video");
        assert!((cost / expect - 1.0).abs() < 0.2, "{task}: {cost}, expected {expect}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever streams and drivers say.
    #[test]
    fn costs_stay_costs(
        streams in prop::collection::vec((0.0..500.0_f64, 0.0..500.0_f64, 0.0..1e4_f64, 0.0..1e4_f64), 1..40),
    ) {
        let (decode, encode) = (Task::decode("h264"), Task::encode("h264", ""));
        let mut costs = Costs::default();
        for (source, output, seconds, media) in streams {
            let stream = placed(&[(decode.clone(), true, source), (encode.clone(), true, output)]);
            costs.learn("one", &stream, media, &video(seconds));
            for cost in costs.devices.values().flat_map(|known| known.tasks.values()) {
                prop_assert!(cost.seconds["video"].is_finite() && cost.seconds["video"] >= 0.0);
            }
        }
    }
}

#[test]
fn one_odd_stream_moves_little() {
    let decode = Task::decode("h264");
    let stream = placed(&[(decode.clone(), true, 50.0)]);
    let mut costs = Costs::default();
    for _ in 0..30 {
        costs.learn("one", &stream, 10.0, &video(0.5));
    }
    let usual = of(&costs, "one", &decode, "video");
    assert!((usual - 0.001).abs() < 1e-9);
    for odd in [500.0, 0.0001] {
        costs.learn("one", &stream, 10.0, &video(odd));
        let cost = of(&costs, "one", &decode, "video");
        assert!((cost / usual - 1.0).abs() < 0.08, "{cost} after {usual}");
    }
    // Nothing was measured, so nothing is learnt.
    let before = costs.clone();
    costs.learn("one", &stream, 10.0, &video(0.0));
    costs.learn("one", &placed(&[]), 10.0, &video(1.0));
    assert_eq!(costs, before);
}

#[test]
fn filters_cost_their_own_engine_and_what_isnt_known_is_unknown() {
    let (decode, scale) = (Task::decode("h264"), Task::filter(Action::Scale));
    let stream = placed(&[(decode.clone(), true, 10.0), (scale.clone(), true, 10.0)]);
    let mut spent = video(1.0);
    spent.insert("video-enhance".into(), Engine { seconds: 0.5, capacity: 1 });
    let mut costs = Costs::default();
    assert!(costs.demand(&stream).unknown.contains("one"));
    costs.learn("one", &stream, 10.0, &spent);
    assert!((of(&costs, "one", &decode, "video") - 0.01).abs() < 1e-9);
    assert_eq!(of(&costs, "one", &decode, "video-enhance"), 0.0);
    assert!((of(&costs, "one", &scale, "video-enhance") - 0.005).abs() < 1e-9);
    assert!(costs.demand(&stream).unknown.is_empty());
    let other = placed(&[(Task::decode("vp9"), true, 10.0)]);
    assert!(costs.demand(&other).unknown.contains("one"));
    // A task that is new costs what is usual beside those that are known.
    let both = placed(&[(decode.clone(), true, 10.0), (Task::encode("h264", ""), true, 10.0)]);
    costs.learn("one", &both, 10.0, &video(3.0));
    let encode = of(&costs, "one", &Task::encode("h264", ""), "video");
    assert!((encode - 0.02).abs() < 1e-9, "{encode}");
}

#[test]
fn a_measurement_stands_for_several_streams() {
    let mut costs = Costs::default();
    let decode = Task::decode("h264");
    let cost = Cost::measured(BTreeMap::from([("video".to_owned(), 0.001)]));
    costs.devices.entry("one".into()).or_default().tasks.insert(decode.clone(), cost);
    costs.learn("one", &placed(&[(decode.clone(), true, 50.0)]), 10.0, &video(0.75));
    let cost = of(&costs, "one", &decode, "video");
    assert!((cost - 0.0011).abs() < 1e-9, "a fifth of the way to 0.0015: {cost}");
}

// --- One stream ----------------------------------------------------------------------------------

#[test]
fn samples_are_of_what_was_made_since_the_last() {
    let start = Instant::now();
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let mut account = Account::default();
    account.cpu(1.0);
    account.begin(placed(&[
        (Task::decode("h264"), false, 1.0),
        (Task::encode("h264", ""), true, 1.0),
    ]));
    account.progress(19.0, Some(1), at(0.0));
    assert!(account.samples(false).is_empty());
    assert!(Account::default().takes().is_none());
    account.cpu(3.0);
    account.engines(&video(4.0));
    account.progress(20.0, Some(1), at(1.0));
    let samples = account.samples(false);
    let spent = |device: &str, class: &str| {
        samples.iter().find(|sample| sample.device == device).unwrap().spent[class].seconds
    };
    assert_eq!((spent("one", "video"), spent(PROCESSOR, CPU)), (4.0, 2.0), "from its beginning on");
    let cpu = |account: &Account| account.takes().unwrap()[&resource(PROCESSOR, CPU)];
    assert_eq!(cpu(&account), 0.1, "2 s for 20 s");
    account.cpu(4.8);
    account.progress(29.0, Some(1), at(1.5));
    assert_eq!(cpu(&account), 0.1, "9 s don't tell yet");
    account.progress(59.0, Some(1), at(2.0));
    assert!((cpu(&account) - 1.8 / 39.0).abs() < 1e-9);
    assert!(account.samples(false).is_empty(), "the next is twice as long");
    account.engines(&video(5.0));
    let last = account.samples(true);
    assert_eq!((last[0].media, last[0].spent["video"].seconds), (39.0, 1.0));
    account.progress(63.0, Some(1), at(3.0));
    assert!(account.samples(true).is_empty(), "too little to tell");
}

/// What another worker has made, or another gateway, is no bargain of this one's.
#[test]
fn what_was_there_before_a_stream_began_is_no_sample() {
    let mut account = Account::default();
    account.another_worker(300.0);
    account.begin(placed(&[(Task::decode("h264"), false, 1.0)]));
    account.progress(299.0, None, Instant::now());
    assert!(account.samples(true).is_empty());
    account.cpu(3.0);
    account.progress(310.0, None, Instant::now());
    let samples = account.samples(true);
    assert_eq!((samples[0].media, samples[0].spent[CPU].seconds), (10.0, 3.0));
}

/// A GPU that says nothing of its engines is busy while nothing holds a stream; two share it.
#[test]
fn without_engine_time_wall_time_counts() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut account = Account::default();
    account.begin(placed(&[(Task::decode("h264"), true, 1.0)]));
    account.progress(0.0, Some(1), at(0));
    account.progress(10.0, Some(1), at(2));
    // Held.
    account.progress(10.0, None, at(50));
    account.progress(20.0, Some(2), at(54));
    let samples = account.samples(false);
    assert_eq!(samples[0].spent[WHOLE].seconds, 4.0);
}

#[test]
fn the_most_common_stream_is_counted() {
    let (small, large) = (usual_work(None), usual_work(Some("/dev/dri/renderD128".into())));
    let large = Work {
        steps: large.steps.into_iter().map(|s| WorkStep { megapixels: 200.0, ..s }).collect(),
        ..large
    };
    let (words, none) = most_common(&[].into());
    assert!(words.contains("1920x1080") && none.is_none());
    let recent = [vec![small.clone()], vec![large.clone()], vec![small.clone()]];
    assert_eq!(most_common(&recent.into()).1, Some(vec![small.clone()]));
    let recent = [vec![small], vec![large.clone()]];
    let (words, latest) = most_common(&recent.into());
    assert_eq!(latest, Some(vec![large]));
    assert_eq!(words, "decode h264 200 Mpx/s, encode h264 200 Mpx/s");
}
