//! GPUs that fail, come back, go away and appear, under a clock that the test holds.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::watch::{LISTING, Sight, watch};
use super::*;

/// A machine whose GPUs do as they are told.
#[derive(Debug, Clone, Default)]
struct Machine(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// What a look at each node comes to.
    nodes: BTreeMap<PathBuf, Result<(), String>>,
    looks: Vec<PathBuf>,
    looking: usize,
    changes: usize,
}

/// How long a look takes.
const LOOK: Duration = Duration::from_secs(1);

impl Sight for Machine {
    fn nodes(&self) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.lock().unwrap().nodes.keys().cloned().collect())
    }

    async fn look(&self, node: &Path) -> Result<Device, String> {
        {
            let mut told = self.0.lock().unwrap();
            told.looks.push(node.to_owned());
            told.looking += 1;
            assert_eq!(told.looking, 1, "two looks at once");
        }
        sleep(LOOK).await;
        let mut told = self.0.lock().unwrap();
        told.looking -= 1;
        told.nodes.get(node).cloned().unwrap_or(Err("no such node".into())).map(|()| device(node))
    }

    fn nodes_changed(&self) {
        self.0.lock().unwrap().changes += 1;
    }
}

impl Machine {
    fn set(&self, node: &str, outcome: Result<(), &str>) {
        let outcome = outcome.map_err(str::to_owned);
        self.0.lock().unwrap().nodes.insert(node.into(), outcome);
    }

    fn looks(&self) -> usize {
        self.0.lock().unwrap().looks.len()
    }

    fn watched(&self, backend: Backend) -> Gpus {
        let gpus = Gpus::blind(backend, Metrics::new().unwrap());
        tokio::spawn(watch(gpus.clone(), self.clone()));
        gpus
    }
}

fn device(node: &Path) -> Device {
    Device {
        node: node.to_owned(),
        driver: "a driver".into(),
        abilities: Default::default(),
        deinterlacer: None,
    }
}

const FIRST: &str = "/dev/dri/renderD128";
const SECOND: &str = "/dev/dri/renderD129";

/// The nodes for a stream that starts now, the best first.
fn given(gpus: &Gpus) -> Vec<String> {
    let allowance = gpus.allowance(true, |_| 0).unwrap();
    allowance.devices.iter().map(|device| device.node.display().to_string()).collect()
}

fn reason(gpus: &Gpus) -> Reason {
    gpus.allowance(true, |_| 0).unwrap().reason.expect("a reason against the GPU")
}

fn works_metric(gpus: &Gpus, node: &str) -> String {
    let streams = crate::streams::Streams::default();
    let text = String::from_utf8(gpus.shared.metrics.render(&streams, 0).unwrap()).unwrap();
    let start = format!("rendergate_gpu_works{{device=\"{node}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or("nothing").to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_gpu_that_fails_is_nobody_s_until_it_is_seen_working() {
    let machine = Machine::default();
    machine.set(FIRST, Ok(()));
    let gpus = machine.watched(Backend::Auto);
    assert_eq!(reason(&gpus).kind, ReasonKind::Looking);
    sleep(2 * LOOK).await;
    assert_eq!((given(&gpus), works_metric(&gpus, FIRST)), (vec![FIRST.into()], "1".into()));
    machine.set(FIRST, Err("it hangs"));
    gpus.failed(
        Path::new(FIRST),
        Instant::now(),
        "/m/a.mkv".into(),
        "the worker stood still".into(),
    );
    assert!(given(&gpus).is_empty());
    let suspect = reason(&gpus);
    assert_eq!(suspect.kind, ReasonKind::Broken);
    assert!(suspect.text.contains("the worker stood still"), "{}", suspect.text);
    sleep(2 * LOOK).await;
    assert_eq!(machine.looks(), 2);
    assert!(reason(&gpus).text.contains("it hangs"), "{}", reason(&gpus).text);
    assert_eq!(works_metric(&gpus, FIRST), "0");
    // Repaired; nobody looks before it is time.
    machine.set(FIRST, Ok(()));
    sleep(state::FIRST_PAUSE - LOOK).await;
    assert_eq!((machine.looks(), given(&gpus).len()), (2, 0));
    sleep(state::FIRST_PAUSE + 3 * LOOK).await;
    assert_eq!((given(&gpus), works_metric(&gpus, FIRST)), (vec![FIRST.into()], "1".into()));
}

#[tokio::test(start_paused = true)]
async fn six_streams_of_one_hang_are_one_failure() {
    let machine = Machine::default();
    machine.set(FIRST, Ok(()));
    let gpus = machine.watched(Backend::Auto);
    sleep(2 * LOOK).await;
    let began = Instant::now();
    for _ in 0..6 {
        gpus.failed(Path::new(FIRST), began, "/m/a.mkv".into(), "the worker stood still".into());
        sleep(LOOK / 2).await;
    }
    sleep(2 * LOOK).await;
    assert_eq!((machine.looks(), given(&gpus).len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn streams_go_to_the_other_gpu() {
    let machine = Machine::default();
    machine.set(FIRST, Ok(()));
    machine.set(SECOND, Ok(()));
    let gpus = machine.watched(Backend::Vaapi);
    sleep(3 * LOOK).await;
    assert_eq!(given(&gpus), [FIRST, SECOND]);
    let busy = |node: &Path| usize::from(node == Path::new(FIRST));
    let allowance = gpus.allowance(true, busy).unwrap();
    assert_eq!(allowance.devices[0].node, Path::new(SECOND));
    gpus.failed(Path::new(FIRST), Instant::now(), "/m/a.mkv".into(), "x".into());
    assert_eq!(given(&gpus), [SECOND]);
}

#[tokio::test(start_paused = true)]
async fn gpus_come_and_go() {
    let machine = Machine::default();
    let gpus = machine.watched(Backend::Auto);
    sleep(LOOK).await;
    assert_eq!(reason(&gpus).kind, ReasonKind::NoGpu);
    machine.set(FIRST, Ok(()));
    sleep(LISTING + 2 * LOOK).await;
    assert_eq!(given(&gpus), [FIRST]);
    assert_eq!(machine.0.lock().unwrap().changes, 1);
    machine.0.lock().unwrap().nodes.clear();
    sleep(2 * LISTING).await;
    let gone = reason(&gpus);
    assert_eq!((gone.kind, gone.text), (ReasonKind::Broken, format!("{FIRST} has gone")));
    assert_eq!(works_metric(&gpus, FIRST), "0");
    assert_eq!(machine.looks(), 1);
    machine.set(FIRST, Ok(()));
    sleep(LISTING + 2 * LOOK).await;
    assert_eq!((given(&gpus), machine.looks()), (vec![FIRST.to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_the_driver_waits_for_the_first_look() {
    const LONG: Duration = Duration::from_secs(60);
    let machine = Machine::default();
    let gpus = machine.watched(Backend::Auto);
    let begun = Instant::now();
    assert_eq!((gpus.driver(LONG).await, begun.elapsed()), (None, Duration::ZERO));
    let machine = Machine::default();
    machine.set(FIRST, Err("it hangs"));
    machine.set(SECOND, Ok(()));
    let gpus = machine.watched(Backend::Auto);
    let begun = Instant::now();
    assert_eq!((gpus.driver(LOOK / 2).await, begun.elapsed()), (None, LOOK / 2));
    assert_eq!(gpus.driver(LONG).await.as_deref(), Some("a driver"));
    assert_eq!(begun.elapsed(), 2 * LOOK);
    let software = Gpus::blind(Backend::Software, Metrics::new().unwrap());
    let begun = Instant::now();
    assert_eq!((software.driver(LONG).await, begun.elapsed()), (None, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn software_is_the_rest_unless_it_is_not_wanted() {
    let machine = Machine::default();
    let vaapi = machine.watched(Backend::Vaapi);
    let refused = vaapi.allowance(true, |_| 0).unwrap_err();
    assert!(refused.ends_with("the GPU is still being looked at"), "{refused}");
    sleep(LOOK).await;
    let refused = vaapi.allowance(true, |_| 0).unwrap_err();
    assert!(refused.contains("there is no GPU: no render node in /dev/dri"), "{refused}");
    // Copies and sound run anywhere.
    assert!(vaapi.allowance(false, |_| 0).unwrap().software);
    let software = Gpus::blind(Backend::Software, Metrics::new().unwrap());
    let allowance = software.allowance(true, |_| 0).unwrap();
    assert!(allowance.software && allowance.devices.is_empty());
    assert_eq!(reason(&software).kind, ReasonKind::Disabled);
}
