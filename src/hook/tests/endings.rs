//! The placeholder under every ending, seen by Jellyfin's own rules: a simulated Jellyfin plays
//! through the hook, a thread is gateway and worker. No viewer ever gets an empty segment.

mod common;

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use common::{House, let_pass};
use jellyfin_sim::{CommandLine, FaultKind, Pace, Report, Server, Settings, play};
use session::{
    Channel, Complete, Control, Ending, Fault, GatewayToHook, HookToGateway, PROTOCOL, StreamId,
};

/// How the stream behaves.
#[derive(Clone, Copy, PartialEq)]
enum Worker {
    /// Writes until it is told to quit, then the partial segment.
    UntilQuit,
    /// As that, but never says that it is over.
    Hanging,
    /// Comes to its end after so many segments.
    Complete(u64),
    /// Fails after so many.
    Failing(u64),
    /// The gateway is gone after so many.
    Vanishing(u64),
}

/// Serves every connection until the test is over.
fn gateway(house: &House, worker: Worker) -> JoinHandle<()> {
    let listener = UnixListener::bind(house.path("socket")).unwrap();
    let out = house.path("out");
    std::thread::spawn(move || {
        loop {
            let (socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut channel = Channel::new(OwnedFd::from(socket));
            match next(&mut channel) {
                Next::Message(HookToGateway::Job { transcode, .. }) => {
                    let first = transcode.output.hls().unwrap().start_number;
                    Stream { channel, out: out.clone(), worker, first, next: first }.run();
                }
                // The test knocks to say that it is over.
                _ => return,
            }
        }
    })
}

enum Next {
    Message(HookToGateway),
    Nothing,
    Lost,
}

fn next(channel: &mut Channel) -> Next {
    loop {
        if let Some(received) = channel.buffered::<HookToGateway>().unwrap() {
            return Next::Message(received.message);
        }
        match channel.fill() {
            Ok(0) => return Next::Lost,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Next::Nothing,
            Err(_) => return Next::Lost,
        }
    }
}

struct Stream {
    channel: Channel,
    out: PathBuf,
    worker: Worker,
    first: u64,
    next: u64,
}

impl Stream {
    fn say(&self, message: &GatewayToHook) {
        // A hook that is gone is met when reading.
        _ = self.channel.send(message, &[]);
    }

    fn segment(&mut self) {
        let number = self.next;
        let temporary = self.out.join(format!("id{number}.ts.s1.tmp"));
        fs::write(&temporary, format!("segment {number} of a run from {}", self.first)).unwrap();
        fs::rename(temporary, self.out.join(format!("id{number}.ts"))).unwrap();
        let complete = Complete::default();
        self.say(&GatewayToHook::SegmentComplete { number, complete });
        self.next += 1;
    }

    fn run(mut self) {
        self.say(&GatewayToHook::Accepted { stream: StreamId(1), protocol: PROTOCOL });
        self.say(&GatewayToHook::Committed);
        loop {
            let written = self.next - self.first;
            match self.worker {
                Worker::Complete(count) if written == count => {
                    return self.say(&GatewayToHook::Ended(Ending::Complete));
                }
                Worker::Failing(count) if written == count => {
                    let reason = "disk full".to_owned();
                    let fault = Fault::Output;
                    return self.say(&GatewayToHook::Ended(Ending::Failed { reason, fault }));
                }
                Worker::Vanishing(count) if written == count => return,
                _ => self.segment(),
            }
            match next(&mut self.channel) {
                Next::Message(HookToGateway::Control(Control::Quit)) => {
                    self.segment();
                    if self.worker == Worker::Hanging {
                        while !matches!(next(&mut self.channel), Next::Lost) {}
                        return;
                    }
                    return self.say(&GatewayToHook::Ended(Ending::Quit));
                }
                Next::Lost => {
                    // What gateway and worker do for a hook that was killed.
                    let directory = fs::File::open(&self.out).unwrap();
                    let name = format!("id{}.ts", self.next);
                    hls::directory::remove_placeholder(directory, &name).unwrap();
                    return;
                }
                _ => {}
            }
        }
    }
}

fn session(worker: Worker, script: &str) -> Report {
    let house = House::new();
    let gateway = gateway(&house, worker);
    let line: Vec<String> =
        house.job().into_iter().map(|word| word.into_string().unwrap()).collect();
    let quoted: Vec<_> = line.iter().map(|word| format!("\"{word}\"")).collect();
    let command = CommandLine::from_log(&format!("ffmpeg {}", quoted.join(" "))).unwrap();
    let mut settings = Settings::new(house.path("hook/ffmpeg"), 600.0);
    settings.patience = Duration::from_secs(20);
    let endpoint = format!("unix:{}", house.path("socket").display());
    settings.environment = vec![
        ("RENDERGATE_ENDPOINT".to_owned(), OsString::from(endpoint)),
        ("RENDERGATE_FFMPEG".to_owned(), house.path("real/ffmpeg").into()),
        ("RECORD".to_owned(), house.path("record").into()),
    ];
    let server = Server::new(settings, command).unwrap();
    let report = play(server, &script.parse().unwrap(), Pace::Fast);
    drop(std::os::unix::net::UnixStream::connect(house.path("socket")).unwrap());
    gateway.join().unwrap();
    assert!(house.recorded_arguments().is_none(), "the real ffmpeg ran: {report}");
    let_pass(Duration::from_millis(20));
    for name in house.output() {
        let path = house.path("out").join(&name);
        assert_ne!(fs::metadata(path).unwrap().len(), 0, "{name} is empty\n{report}");
    }
    report
}

#[track_caller]
fn check(worker: Worker, script: &str, codes: &[i32], expect: &[FaultKind]) -> Report {
    let report = session(worker, script);
    let faults: Vec<_> = report.faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(faults, expect, "{report}");
    let exits: Vec<_> = report.runs.iter().filter_map(|run| run.exit).map(|e| e.code).collect();
    assert_eq!(exits, codes, "{report}");
    report
}

#[test]
fn seeking_to_and_fro() {
    let script = "play 3; seek 300; play 2; seek 3; play 1; seek 150; play 2; leave";
    let report = check(Worker::UntilQuit, script, &[0, 0, 0], &[]);
    assert!(report.names.iter().any(|name| name == "id0.ts"));
}

#[test]
fn leaving_by_q_and_coming_back_for_what_was_announced() {
    for _ in 0..5 {
        check(Worker::UntilQuit, "play 3; stop; play 40; stop", &[0, 0], &[]);
    }
}

#[test]
fn signals() {
    check(Worker::UntilQuit, "play 3; term; play 40; stop", &[255, 0], &[]);
}

#[test]
fn the_end_of_the_stream_and_what_lies_behind_it() {
    let report = check(Worker::Complete(3), "play 3; finish; play 1; finish", &[0, 0], &[]);
    assert_eq!(report.runs[1].start_number, 3);
}

#[test]
fn failures_and_lost_gateways() {
    for worker in [Worker::Failing(3), Worker::Vanishing(3)] {
        check(
            worker,
            "play 2; finish; play 3; finish",
            &[1, 1],
            &[FaultKind::Failed, FaultKind::Failed],
        );
    }
}

#[test]
fn a_gateway_that_hangs() {
    check(Worker::Hanging, "play 2; stop; play 1", &[1], &[]);
}

/// The one ending that others have to cover. Jellyfin polls ten times a second; so does this.
#[test]
fn a_hook_that_is_killed() {
    for _ in 0..5 {
        let report = session(Worker::UntilQuit, "play 2; kill; wait 0.1; play 40; stop");
        assert_eq!(report.count(FaultKind::EmptyServed), 0, "{report}");
        assert_eq!(report.count(FaultKind::Missing), 0, "{report}");
    }
}
