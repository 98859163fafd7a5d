//! A device shared by streams that come, play and go, at the word of the policy and without it.

use proptest::prelude::*;

use super::*;

const LEADS: Leads =
    Leads { comfortable: Duration::from_secs(60), needed: Duration::from_secs(12) };
const SEGMENT: Duration = Duration::from_secs(3);
/// Between two rounds of grants.
const TICK: Duration = Duration::from_millis(500);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn runner(id: u64, produced: f64, watched: f64) -> Runner {
    Runner {
        id: StreamId(id),
        device: Some(Device::Processor),
        produced: seconds(produced),
        watched: seconds(watched),
        segments: (produced / 3.0) as u64,
        segment: SEGMENT,
        paused: false,
        live: false,
    }
}

#[track_caller]
fn check(runners: &[Runner], expect: &[Option<f64>]) {
    let grants = grants(runners, LEADS, false);
    let got: Vec<Option<f64>> = grants.values().map(|to| to.map(|to| to.as_secs_f64())).collect();
    assert_eq!(got, expect);
}

#[test]
fn who_is_left_to_ffmpeg_begins_on_the_processor_too() {
    let gpu =
        Runner { device: Some(Device::Gpu("/dev/dri/renderD128".into())), ..runner(2, 20.0, 4.0) };
    let runners = [runner(1, 20.0, 4.0), gpu];
    assert!(grants(&runners, LEADS, false).values().all(Option::is_none));
    let grants = grants(&runners, LEADS, true);
    assert_eq!(grants[&StreamId(1)], Some(seconds(4.0 + 6.0)), "two segments");
    assert_eq!(grants[&StreamId(2)], None);

    let elsewhere = Elsewhere::default();
    let now = Instant::now();
    assert!(!elsewhere.begins(now));
    elsewhere.left(now);
    assert!(elsewhere.begins(now + seconds(9.9)) && !elsewhere.begins(now + seconds(10.0)));
}

#[test]
fn one_alone_runs_free() {
    check(&[runner(1, 9.0, 4.0)], &[None]);
    check(&[runner(1, 900.0, 4.0)], &[None]);
}

#[test]
fn all_run_free_if_all_are_comfortable() {
    check(&[runner(1, 100.0, 4.0), runner(2, 70.0, 10.0)], &[None, None]);
}

#[test]
fn a_newcomer_takes_precedence_over_all_that_can_bridge_its_beginning() {
    let early = runner(3, 4.0, 0.0);
    check(&[runner(1, 100.0, 4.0), runner(2, 20.0, 16.0), early], &[Some(10.0), Some(22.0), None]);
    let long = Runner { segment: seconds(10.0), ..runner(1, 100.0, 4.0) };
    check(&[long, runner(2, 0.0, 0.0)], &[Some(24.0), None]);
    // Others get what they need for longer as soon as it has begun.
    check(&[runner(1, 13.0, 4.0), runner(2, 6.0, 0.0)], &[Some(16.0), Some(12.0)]);
}

#[test]
fn the_shortest_lead_comes_first() {
    check(&[runner(1, 100.0, 4.0), runner(2, 30.0, 10.0)], &[Some(30.0), Some(36.0)]);
    // Nobody is held beyond the comfortable lead, nor below what is needed.
    check(&[runner(1, 100.0, 4.0), runner(2, 58.0, 0.0)], &[Some(64.0), Some(60.0)]);
    check(&[runner(1, 100.0, 4.0), runner(2, 9.0, 8.0)], &[Some(16.0), Some(20.0)]);
}

#[test]
fn only_those_on_the_same_device_compete() {
    let gpu = Device::Gpu("/dev/dri/renderD128".into());
    let elsewhere = Runner { device: Some(gpu), ..runner(2, 0.0, 0.0) };
    let copy = Runner { device: None, ..runner(3, 0.0, 0.0) };
    check(&[runner(1, 100.0, 4.0), elsewhere, copy], &[None, None, None]);
}

#[test]
fn the_paused_and_the_live_hold_back_nobody() {
    let paused = Runner { paused: true, ..runner(2, 30.0, 10.0) };
    let live = Runner { live: true, ..runner(3, 7.0, 6.0) };
    check(&[runner(1, 100.0, 4.0), paused, live], &[None, None, None]);
    // A live one that begins is a newcomer all the same, and isn't held by others.
    let begins = Runner { live: true, ..runner(3, 2.0, 0.0) };
    check(&[runner(1, 100.0, 4.0), begins], &[Some(10.0), None]);
}

// --- Simulation ----------------------------------------------------------------------------------

/// A stream to come.
#[derive(Debug, Clone)]
struct Arrival {
    at: Duration,
    length: Duration,
}

/// A stream and its viewer.
#[derive(Debug, Clone)]
struct Playing {
    length: Duration,
    since: Duration,
    runner: Runner,
    /// When two segments stood.
    began: Option<Duration>,
    stalled: Duration,
}

impl Playing {
    fn is_done(&self) -> bool {
        self.runner.produced >= self.length
    }
}

/// Plays all arrivals to their end on a device that makes `capacity` seconds of media per second,
/// shared alike by whoever may run.
fn simulate(arrivals: &[Arrival], capacity: f64, policy: bool) -> Vec<Playing> {
    let mut now = Duration::ZERO;
    let mut waiting = arrivals.to_vec();
    waiting.sort_by_key(|arrival| std::cmp::Reverse(arrival.at));
    let (mut playing, mut over): (Vec<Playing>, Vec<Playing>) = Default::default();
    while !(waiting.is_empty() && playing.is_empty()) {
        while let Some(arrival) = waiting.pop_if(|arrival| arrival.at <= now) {
            let id = (over.len() + playing.len()) as u64 + 1;
            let runner = runner(id, 0.0, 0.0);
            let (length, since) = (arrival.length, now);
            playing.push(Playing { length, since, runner, began: None, stalled: Duration::ZERO });
        }
        let runners: Vec<Runner> = playing.iter().map(|one| one.runner.clone()).collect();
        let grants = if policy { grants(&runners, LEADS, false) } else { BTreeMap::new() };
        let horizon = |one: &Playing| {
            let granted = grants.get(&one.runner.id).copied().flatten();
            granted.unwrap_or(Duration::MAX).min(one.length)
        };
        // Whoever reaches its horizon leaves its share to the others.
        let mut left = TICK.as_secs_f64() * capacity;
        loop {
            let mut running: Vec<&mut Playing> =
                playing.iter_mut().filter(|one| one.runner.produced < horizon(one)).collect();
            if running.is_empty() || left < 1e-9 {
                break;
            }
            let room = |one: &Playing| (horizon(one) - one.runner.produced).as_secs_f64();
            let least = running.iter().map(|one| room(one)).fold(f64::MAX, f64::min);
            let share = (left / running.len() as f64).min(least.max(1e-9));
            left -= share * running.len() as f64;
            for one in &mut running {
                one.runner.produced += seconds(share);
            }
        }
        assert!(left < 1e-6 || playing.iter().all(|one| one.runner.produced >= horizon(one)));
        // Work conserving: time is left over only if nobody has anything to do, or everybody is
        // comfortable who is held.
        let idle = left > 1e-6;
        now += TICK;
        for one in &mut playing {
            let runner = &mut one.runner;
            runner.segments = (runner.produced.as_secs_f64() / 3.0) as u64;
            if one.began.is_none() && (runner.segments >= BEGINNING || one.length < 2 * SEGMENT) {
                one.began = Some(now);
            } else if one.began.is_some() && runner.watched < one.length {
                let next = runner.watched + TICK;
                if next > runner.produced && runner.produced < one.length {
                    one.stalled += next - runner.produced;
                }
                runner.watched = next.min(runner.produced);
            }
        }
        if idle && policy {
            let held = playing.iter().filter(|one| !one.is_done());
            let least = held.map(|one| one.runner.lead()).min();
            assert!(least.is_none_or(|lead| lead + TICK >= LEADS.needed), "idle at {least:?}");
        }
        let (done, on): (Vec<_>, Vec<_>) = playing.into_iter().partition(Playing::is_done);
        over.extend(done);
        playing = on;
        assert!(now < Duration::from_secs(100_000), "somebody starves");
    }
    over
}

fn arrivals(most: usize) -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0.0..600.0_f64, 30.0..1800.0_f64)
        .prop_map(|(at, length)| Arrival { at: seconds(at), length: seconds(length) });
    prop::collection::vec(arrival, 1..=most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..Default::default() })]

    /// Forty streams at most, fifty rounds of them: a thousand arrivals.
    #[test]
    fn everybody_comes_to_the_end(arrivals in arrivals(40), capacity in 0.5..20.0_f64) {
        let played = simulate(&arrivals, capacity, true);
        prop_assert_eq!(played.len(), arrivals.len());
        prop_assert!(played.iter().all(|one| one.began.is_some()));
    }

    #[test]
    fn nobody_stalls_while_there_is_enough_for_all(arrivals in arrivals(12), spare in 1.2..3.0_f64) {
        let capacity = arrivals.len() as f64 * spare;
        for one in simulate(&arrivals, capacity, true) {
            prop_assert!(one.stalled.is_zero(), "{one:?} of capacity {capacity}");
        }
    }

    /// A newcomer beside others that have what they need has the device to itself.
    #[test]
    fn a_newcomer_doesn_t_wait_for_those_ahead(
        others in 1..8_usize,
        spare in 1.2..4.0_f64,
        late in 100.0..300.0_f64,
    ) {
        let capacity = others as f64 * spare + spare;
        let length = Duration::from_secs(3600);
        let mut arrivals = vec![Arrival { at: Duration::ZERO, length }; others];
        arrivals.push(Arrival { at: seconds(late), length });
        let wait = |policy| {
            let newest = |played: Vec<Playing>| {
                let one = played.into_iter().max_by_key(|one| one.since).expect("there is one");
                one.began.expect("it begins") - one.since
            };
            newest(simulate(&arrivals, capacity, policy))
        };
        let alone = seconds(6.0 / capacity);
        prop_assert!(wait(true) <= alone + 2 * TICK, "{:?}, alone {alone:?}", wait(true));
        // What it would be without: everybody takes the same part.
        let shared = seconds(6.0 / capacity * (others + 1) as f64);
        prop_assert!(wait(false) + TICK >= shared);
    }
}

/// Others that have begun themselves a moment ago, and have two segments but not what they need, take
/// no more than they play.
#[test]
fn a_newcomer_doesn_t_wait_for_those_that_came_just_before() {
    let length = Duration::from_secs(600);
    let (others, late) = (5, seconds(13.0));
    for spare in [1.3, 1.5, 2.0] {
        let capacity = (others + 1) as f64 * spare;
        let mut arrivals = vec![Arrival { at: Duration::ZERO, length }; others];
        arrivals.push(Arrival { at: late, length });
        let played = simulate(&arrivals, capacity, true);
        let newest = played.iter().max_by_key(|one| one.since).expect("there is one");
        let waited = newest.began.expect("it begins") - newest.since;
        let share = seconds(6.0 / (capacity - others as f64));
        assert!(waited <= share + TICK, "{waited:?} of {share:?} at {spare}");
        assert!(played.iter().all(|one| one.stalled.is_zero()), "{played:?}");
    }
}

// --- Rounds --------------------------------------------------------------------------------------

fn record(name: &str) -> crate::streams::Record {
    let command = format!(
        "-i file:/a.mkv -map_metadata -1 -map_chapters -1 -threads 0 -map 0:0 -map 0:1 -map -0:s \
         -codec:v:0 libx264 -crf 23 -force_key_frames:0 expr:gte(t,n_forced*3) -vf format=yuv420p \
         -codec:a:0 copy -copyts -avoid_negative_ts disabled -max_muxing_queue_size 2048 -f hls \
         -max_delay 5000000 -hls_time 3 -hls_segment_type mpegts -start_number 0 \
         -hls_segment_filename /t/{name}%d.ts -hls_playlist_type vod -hls_list_size 0 -y /t/{name}.m3u8"
    );
    let arguments: Vec<_> = command.split_whitespace().map(Into::into).collect();
    let ffmpeg_args::Plan::Transcode(plan) = ffmpeg_args::plan(&arguments) else {
        panic!("not planned");
    };
    let key = crate::output::OutputKey { device: 1, inode: 1, prefix: name.into() };
    crate::streams::Record::new(&plan, key, None)
}

#[tokio::test(start_paused = true)]
async fn whoever_is_ahead_waits_until_the_newcomer_has_begun() {
    let streams = Streams::default();
    let ahead = streams.enter(record("a"), 0).unwrap();
    let horizon = ahead.with(|record| {
        record.segment_complete();
        record.horizon()
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let progress = |position_us| session::Progress { position_us, ..Default::default() };
    ahead.with(|record| {
        (1..30).for_each(|_| _ = record.segment_complete());
        record.progress(progress(90_000_000));
    });
    tokio::spawn(run(streams.clone(), Arc::default(), Schedule::default()));
    tokio::time::sleep(ROUND * 3 / 2).await;
    assert_eq!(*horizon.borrow(), None);
    let newcomer = streams.enter(record("b"), 0).unwrap();
    // No round goes by before: the time is paused, and only a sleep would move it.
    tokio::task::yield_now().await;
    // Ten seconds may have been watched, and six bridge a beginning.
    let held = horizon.borrow().expect("it is held");
    assert!(held.abs_diff(Duration::from_secs(16)) < Duration::from_secs(2), "{held:?}");
    newcomer.with(|record| {
        (0..30).for_each(|_| _ = record.segment_complete());
        record.progress(progress(90_000_000));
    });
    tokio::time::sleep(2 * ROUND).await;
    assert_eq!(*horizon.borrow(), None, "all are comfortable");
    drop(newcomer);
    let paused = streams.enter(record("c"), 0).unwrap();
    paused.with(|record| record.state = crate::streams::State::Paused);
    tokio::time::sleep(2 * ROUND).await;
    assert_eq!(*horizon.borrow(), None, "whoever is paused holds back nobody");
}

/// Jellyfin serves what is there without asking: a viewer who leaps to the end of it waits for more.
#[tokio::test(start_paused = true)]
async fn whoever_is_far_ahead_goes_on_as_fast_as_it_plays() {
    let streams = Streams::default();
    let at =
        |seconds: u64| session::Progress { position_us: seconds * 1_000_000, ..Default::default() };
    let begin = |name, seconds| {
        let entry = streams.enter(record(name), 0).unwrap();
        entry.with(|record| {
            (0..seconds / 3).for_each(|_| _ = record.segment_complete());
            record.progress(at(seconds));
        });
        entry
    };
    let (ahead, slow) = (begin("a", 300), begin("b", 30));
    let horizon = ahead.with(|record| record.horizon());
    tokio::spawn(run(streams.clone(), Arc::default(), Schedule::default()));
    let mut produced = 300;
    for second in 1..=60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        slow.with(|record| record.progress(at(30 + second)));
        let to = horizon.borrow().expect("one with less competes");
        assert!(second > 9 || to < Duration::from_secs(300), "{to:?} after {second} s");
        produced = to.as_secs().max(produced);
        ahead.with(|record| record.progress(at(produced)));
    }
    assert!((348..=351).contains(&produced), "{produced}");
}
