//! Streams that outlive their gateway: what one passes on, and what the next makes of it.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::{Gateway, Hook, Setup, is_gone, kill, pause, until};
use rustix::process::Signal;
use session::{
    Complete, Control, Ending, GatewayToHook, Progress, Resumption, StreamId, Takeover, Writer,
};

/// What a hook keeps of a stream: the fake worker's first segment is the fifth.
struct Kept {
    resumption: Resumption,
    progress: Progress,
}

impl Kept {
    fn new() -> Self {
        Self { resumption: Resumption::beginning(5), progress: Progress::default() }
    }

    fn note(&mut self, message: &GatewayToHook) {
        match message {
            GatewayToHook::SegmentComplete { number, complete } => {
                self.resumption.note(*number, complete.clone());
            }
            GatewayToHook::Progress(progress) => self.progress = *progress,
            _ => {}
        }
    }

    /// Hears of so many segments.
    #[track_caller]
    fn segments(&mut self, hook: &mut Hook, count: u64) {
        while self.resumption.segments() < count {
            let message = hook.next().expect("a segment");
            self.note(&message);
        }
    }

    fn takeover(&self, hook: &Hook) -> Takeover {
        Takeover {
            resumption: self.resumption.clone(),
            writer: hook.writers.last().map(|(writer, _)| *writer),
            progress: self.progress,
        }
    }
}

/// Waits for the end of a worker by its lease alone.
fn wait_for_end(lease: OwnedFd) {
    assert_eq!(File::from(lease).read(&mut [0]).unwrap(), 0);
}

/// Another gateway in the place of one that is gone.
fn next(gateway: &mut Gateway, toml: &str) -> Gateway {
    let folder = std::mem::replace(&mut gateway.folder, tempfile::tempdir().unwrap());
    Gateway::start_in(folder, &Setup { toml, ..Setup::default() })
}

#[test]
fn a_killed_gateway_s_stream_goes_on_with_the_next() {
    let mut gateway = Gateway::ready("");
    let mut hook = gateway.moving_hook("segments=12,every=20", None);
    let stream = hook.accepted();
    let worker = gateway.worker_of(stream).unwrap();
    let mut kept = Kept::new();
    kept.segments(&mut hook, 3);
    kill(gateway.pid(), Signal::KILL);
    gateway.exited();
    // Its last words are still to be heard.
    while let Ok(Some(received)) = hook.channel.receive::<GatewayToHook>() {
        kept.note(&received.message);
    }
    let (writer, lease) = hook.writers.pop().expect("a worker has written");
    assert_eq!(writer, Writer { stream, pid: worker });
    wait_for_end(lease.expect("with its lease"));
    until("the worker is gone", || is_gone(worker));
    // As a worker that was killed leaves it; the other one isn't this stream's.
    let half = gateway.out().join(format!("abc9.ts.{}.tmp", writer.tag()));
    let other = gateway.out().join("abc9.ts.s7w7.tmp");
    for path in [&half, &other] {
        std::fs::write(path, "half").unwrap();
    }

    let again = next(&mut gateway, "");
    let half = again.out().join(half.file_name().unwrap());
    let other = again.out().join(other.file_name().unwrap());
    let takeover = Takeover { writer: Some(writer), ..kept.takeover(&hook) };
    let before = kept.resumption.next;
    let mut hook = again.moving_hook("segments=12,every=20", Some(takeover));
    hook.accepted();
    assert!(!half.exists() && other.exists());
    std::fs::remove_file(other).unwrap();
    let line = again.logged("goes on with what another gateway has begun");
    assert!(line.contains(&format!("\"next\":{before}")), "{line}");
    let (mut told, mut progress) = (before, kept.progress);
    let ending = loop {
        match hook.next().expect("a last message") {
            GatewayToHook::SegmentComplete { number, .. } => {
                assert_eq!(number, told);
                told += 1;
            }
            GatewayToHook::Progress(now) => {
                assert!(now.frames >= progress.frames && now.elapsed_us >= progress.elapsed_us);
                progress = now;
            }
            // The hook knows.
            GatewayToHook::Committed => panic!("committed twice"),
            GatewayToHook::Ended(ending) => break ending,
            _ => {}
        }
    };
    assert_eq!((ending, told), (Ending::Complete, 17));
    again.out_is_clean();
    assert_eq!(again.files().len(), 12);
    again.metric("rendergate_streams_resumed_total 1");
    again.metric("rendergate_streams_ended_total{how=\"complete\"} 1");
    until("the first segment isn't one", || {
        again.get("/metrics").contains("rendergate_first_segment_seconds_count 0")
    });
}

#[test]
fn a_stopping_gateway_lets_go_of_what_can_go_on() {
    let mut gateway = Gateway::ready("[shutdown]\ndrain_seconds = 3600\n");
    let mut hook = gateway.moving_hook("every=20", None);
    let stream = hook.accepted();
    let worker = gateway.worker_of(stream).unwrap();
    let mut kept = Kept::new();
    kept.segments(&mut hook, 2);
    kill(gateway.pid(), Signal::TERM);
    loop {
        match hook.next().expect("a last message") {
            GatewayToHook::LetGo => break,
            message => kept.note(&message),
        }
    }
    // Nobody writes any more, and the viewer waits for the segment that comes.
    assert!(is_gone(worker));
    let empty = format!("abc{}.ts", kept.resumption.next);
    assert_eq!(std::fs::metadata(gateway.out().join(&empty)).unwrap().len(), 0);
    assert!(gateway.files().iter().all(|name| !name.ends_with(".tmp")));
    assert!(gateway.exited().success());
    gateway.logged("\"how\":\"moved\"");
    let mut again = next(&mut gateway, "[shutdown]\ndrain_seconds = 0.2\n");
    let mut hook = again.moving_hook("every=20", Some(kept.takeover(&hook)));
    hook.accepted();
    kept.segments(&mut hook, 5);
    // At once and again: it has not written its own first segment for this.
    kill(again.pid(), Signal::TERM);
    hook.hear("let go", |message| *message == GatewayToHook::LetGo);
    assert!(again.exited().success());
}

/// A segment may take long, on a full disk for ever.
#[test]
fn a_stopping_gateway_lets_go_of_what_has_no_segment_yet() {
    let mut gateway = Gateway::ready("[shutdown]\ndrain_seconds = 3600\n");
    let mut hook = gateway.moving_hook("every=600000", None);
    hook.hear("something is written", |message| *message == GatewayToHook::Committed);
    kill(gateway.pid(), Signal::TERM);
    hook.hear("let go", |message| *message == GatewayToHook::LetGo);
    assert!(gateway.exited().success());
    let again = next(&mut gateway, "");
    let mut hook = again.moving_hook("segments=3,every=1", Some(Kept::new().takeover(&hook)));
    hook.accepted();
    assert_eq!(hook.ended(), Ending::Complete);
}

#[test]
fn what_can_t_go_on_is_drained_and_nobody_is_let_go_before() {
    let mut gateway = Gateway::ready("[shutdown]\ndrain_seconds = 3600\n");
    let mut moving = gateway.moving_hook("every=20", None);
    moving.segment(6);
    let mut file = gateway.hook_of_a_file("every=20,segments=40");
    file.hear("a part", |message| matches!(message, GatewayToHook::Progress(_)));
    kill(gateway.pid(), Signal::TERM);
    gateway.logged("shutting down");
    // It goes on meanwhile: the next gateway can't begin before this one has ended.
    moving.segment(9);
    // Somebody whose own gateway was lost is sent on; everybody else is declined.
    let mut kept = Kept::new();
    let state = Some("1".parse().unwrap());
    kept.resumption.note(5, Complete { length: (3, 1), state, last: false });
    let mut lost = gateway.moving_hook("", Some(kept.takeover(&moving)));
    assert_eq!(lost.next(), Some(GatewayToHook::LetGo));
    assert!(gateway.moving_hook("", None).declined().contains("shutting down"));
    assert_eq!(file.ended(), Ending::Complete);
    moving.hear("let go", |message| *message == GatewayToHook::LetGo);
    assert!(gateway.exited().success());
}

#[test]
fn one_that_was_told_to_quit_isn_t_let_go() {
    let mut gateway = Gateway::ready("[shutdown]\ndrain_seconds = 3600\n");
    let mut hook = gateway.moving_hook("every=300", None);
    hook.segment(5);
    hook.control(Control::Quit);
    kill(gateway.pid(), Signal::TERM);
    assert_eq!(hook.ended(), Ending::Quit);
    assert!(gateway.exited().success());
    gateway.out_is_clean();
}

#[test]
fn nonsense_isn_t_gone_on_with() {
    let gateway = Gateway::ready("");
    let takeover = |text: &str| Takeover {
        resumption: serde_json::from_str(text).unwrap(),
        writer: Some(Writer { stream: StreamId(1), pid: 1 }),
        progress: Progress::default(),
    };
    for text in [
        r#"{"next":9,"state":null,"first":5,"lengths":[[3,1,4]]}"#,
        r#"{"next":3,"state":1,"first":5,"lengths":[[3,1,4]]}"#,
        r#"{"next":9,"state":1,"first":4,"lengths":[[3,1,5]]}"#,
        r#"{"next":18446744073709551615,"state":1,"first":5,"lengths":[[3,1,18446744073709551610]]}"#,
    ] {
        let mut hook = gateway.moving_hook("", Some(takeover(text)));
        assert!(hook.declined().contains("can't have come"), "{text}");
    }
    let good = r#"{"next":9,"state":1,"first":5,"lengths":[[3,1,4]]}"#;
    gateway.moving_hook("segments=6", Some(takeover(good))).accepted();
}

/// The last gateway was lost when something was written, but no whole segment.
#[test]
fn a_stream_without_a_segment_begins_anew() {
    let gateway = Gateway::ready("");
    let resumption = Resumption::beginning(5);
    let takeover = Takeover { resumption, writer: None, progress: Progress::default() };
    let mut hook = gateway.moving_hook("segments=3,every=1", Some(takeover));
    hook.accepted();
    let mut kept = Kept::new();
    kept.segments(&mut hook, 2);
    assert_eq!(kept.resumption.next, 7);
}

/// The next gateway has just been started; for whoever is new the real ffmpeg would be faster.
#[test]
fn a_stream_waits_for_the_first_worker() {
    let gateway = Gateway::start(&Setup {
        toml: "[streams]\naccept_seconds = 0.1\n",
        variables: &[("RENDERGATE_FAKE_START", "slow")],
    });
    let resumption = r#"{"next":9,"state":1,"first":5,"lengths":[[3,1,4]]}"#;
    let resumption = serde_json::from_str(resumption).unwrap();
    let takeover = Takeover { resumption, writer: None, progress: Progress::default() };
    let mut hook = gateway.moving_hook("segments=6,every=1", Some(takeover));
    assert!(gateway.hook("").declined().contains("still warming up"));
    hook.accepted();
    assert_eq!(hook.ended(), Ending::Complete);
}

/// Its viewer may be about to wait, whoever has watched how much of it elsewhere.
#[test]
fn a_stream_goes_on_without_a_lead() {
    let gateway = Gateway::ready("");
    let resumption = r#"{"next":105,"state":1,"first":5,"lengths":[[3,1,100]]}"#;
    let progress = Progress { position_us: 300_000_000, frames: 7200, ..Progress::default() };
    let resumption = serde_json::from_str(resumption).unwrap();
    let takeover = Takeover { resumption, writer: None, progress };
    let mut hook = gateway.moving_hook("every=3000", Some(takeover));
    hook.accepted();
    let line = gateway.json("/v1/streams")[0].clone();
    assert_eq!((&line["segments"], &line["lead_s"]), (&100.into(), &0.0.into()), "{line}");
    hook.control(Control::Pause);
    until("it is paused", || gateway.json("/v1/streams")[0]["state"] == "paused");
    pause(Duration::from_millis(20));
    hook.control(Control::Quit);
    assert_eq!(hook.ended(), Ending::Quit);
}

/// A stream of whose segments four are there.
fn begun() -> Takeover {
    let resumption = r#"{"next":9,"state":1,"first":5,"lengths":[[3,1,4]]}"#;
    let resumption = serde_json::from_str(resumption).unwrap();
    Takeover { resumption, writer: None, progress: Progress::default() }
}

/// The pool of workers is closed first, which has words of its own for it.
#[test]
fn one_that_waits_for_a_worker_is_sent_on_by_a_gateway_that_stops() {
    let variables = [("RENDERGATE_FAKE_START", "never-ready")];
    let mut gateway = Gateway::start(&Setup { toml: "", variables: &variables });
    let mut hook = gateway.moving_hook("", Some(begun()));
    until("it waits", || gateway.json("/v1/streams").as_array().unwrap().len() == 1);
    kill(gateway.pid(), Signal::TERM);
    assert_eq!(hook.next(), Some(GatewayToHook::LetGo));
    assert!(gateway.exited().success());
    gateway.logged("\"how\":\"moved\"");
}

/// The real ffmpeg can't run it any more; whoever is new can be left to that.
#[test]
fn a_begun_stream_is_not_one_too_many() {
    let gateway = Gateway::ready("[streams]\nmax_streams = 1\n");
    let mut first = gateway.moving_hook("every=3000", None);
    first.accepted();
    let mut begun = gateway.moving_hook("every=3000", Some(begun()));
    begun.accepted();
    let mut new = gateway.moving_hook("", None);
    new.steps_aside(19);
    assert!(new.declined().contains("2 streams run"));
}

#[test]
fn a_second_signal_breaks_off_only_what_can_t_go_on() {
    let mut gateway = Gateway::ready("[shutdown]\ndrain_seconds = 3600\n");
    let mut moving = gateway.moving_hook("every=20", None);
    moving.segment(6);
    let mut file = gateway.hook_of_a_file("every=20");
    file.hear("a part", |message| matches!(message, GatewayToHook::Progress(_)));
    kill(gateway.pid(), Signal::TERM);
    gateway.logged("shutting down");
    kill(gateway.pid(), Signal::TERM);
    moving.hear("let go", |message| *message == GatewayToHook::LetGo);
    assert!(file.failed().1.contains("told to stop at once"));
    assert!(gateway.exited().success());
}
