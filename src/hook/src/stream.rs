//! A stream that a gateway runs, seen from the process that Jellyfin started.
//!
//! One loop over poll(2): Jellyfin's keys on stdin, signals, the gateway's messages, room on
//! stderr.
//!
//! ```text
//! Asked ──Accepted──▶ Accepted ──Committed──▶ Committed ──Ended──▶ exit
//!   │                    │                        └─ gateway lost ─▶ the next one ([`away`]), or exit 1
//!   └──── Declined, Ended{Failed}, lost, no answer ─▶ real ffmpeg (exit, if asked to quit)
//! ```
//!
//! Invariants:
//! - The real ffmpeg is an outcome only while nothing has been written.
//! - Every way out of here has removed the placeholder ([`crate::placeholder`]).
//! - Nothing waits but poll, and poll never longer than the next deadline.

mod away;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin};
use session::{
    Channel, Control, Ending, GatewayToHook, HookToGateway, PROTOCOL, Progress, StreamId,
};

use self::away::{Away, Stage};
use crate::clock::timespec;
use crate::console::{Console, PATIENCE};
use crate::keys::Keyboard;
use crate::placeholder::Placeholders;
use crate::process::{Signals, step_aside};
use crate::reconnect::Reconnect;
use crate::{progress, rescue};

/// ffmpeg's exit code after a signal.
const EXIT_SIGNALLED: i32 = 255;
/// ffmpeg's exit code when it has had enough of signals.
const EXIT_HARD: i32 = 123;
/// So many signals are taken for one wish.
const SIGNALS_HEEDED: u32 = 3;
/// How long the gateway may take over the last segment.
const QUIT_PATIENCE: Duration = Duration::from_millis(4500);
/// Jellyfin kills so long after its `q` (contract 3, Stop); what is left is for clearing away.
const JELLYFIN_KILLS: Duration = Duration::from_secs(5);
const _: () = assert!(QUIT_PATIENCE.as_millis() + 400 <= JELLYFIN_KILLS.as_millis());
/// ffmpeg's interval between progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process ends with this code.
    Exit(i32),
    /// Nothing has been written: the real ffmpeg takes over, for this reason.
    Fallback(String),
}

/// What a stream is made of.
pub struct Setup {
    /// The gateway, with the job submitted.
    pub channel: Channel,
    /// The empty files.
    pub placeholders: Placeholders,
    /// For the log: the endpoint as configured.
    pub endpoint: String,
    /// For the log: the plan.
    pub summary: String,
    /// Whether progress counts frames.
    pub has_video: bool,
    /// When an answer to the job must have come.
    pub accept_by: Instant,
    /// If the stream can go on with another gateway.
    pub reconnect: Option<Reconnect>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Asked,
    Accepted,
    Committed,
}

struct Quit {
    code: i32,
    at: Instant,
}

struct Stream<'a> {
    setup: Setup,
    signals: &'a Signals,
    console: Console<BorrowedFd<'static>>,
    keyboard: Keyboard,
    phase: Phase,
    /// While no gateway has the stream, which has begun.
    away: Option<Away>,
    id: Option<StreamId>,
    stdin_open: bool,
    outbox: Vec<u8>,
    quit: Option<Quit>,
    signals_seen: u32,
    progress: Option<Progress>,
    /// Whether the last progress is still to be printed.
    unshown: bool,
    shown: Option<Instant>,
}

/// Runs the stream to its end.
pub fn run(setup: Setup, signals: &Signals) -> Outcome {
    let mut stream = Stream {
        setup,
        signals,
        console: Console::new(stderr()),
        keyboard: Keyboard::default(),
        phase: Phase::Asked,
        away: None,
        id: None,
        stdin_open: true,
        outbox: Vec::new(),
        quit: None,
        signals_seen: 0,
        progress: None,
        unshown: false,
        shown: None,
    };
    let outcome = loop {
        if let Some(outcome) = stream.turn() {
            break outcome;
        }
    };
    // First of all, whatever the outcome: from here on somebody may look at the exit.
    stream.setup.placeholders.close();
    if let (Outcome::Exit(_), Some(progress)) = (&outcome, stream.progress) {
        let line = progress::line(&progress, stream.setup.has_video, true);
        stream.console.text(&format!("{line}\n"));
    }
    stream.console.drain(PATIENCE);
    outcome
}

impl Stream<'_> {
    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> Option<Outcome> {
        let ready = match self.wait() {
            Ok(ready) => ready,
            Err(error) => return Some(self.broken(&format!("poll: {error}"))),
        };
        self.console.flush();
        if ready.signal
            && let Some(outcome) = self.on_signals()
        {
            return Some(outcome);
        }
        if ready.stdin {
            self.on_stdin();
        }
        if ready.lease {
            self.on_lease();
        }
        if ready.gateway
            && let Some(outcome) = self.on_gateway()
        {
            return Some(outcome);
        }
        self.send();
        self.show_progress();
        self.on_time()
    }

    fn wait(&self) -> rustix::io::Result<Ready> {
        let input = stdin();
        let mut fds = vec![PollFd::new(self.signals, PollFlags::IN)];
        let mut watch = |descriptor| {
            fds.push(descriptor);
            fds.len() - 1
        };
        let gateway_at = self.is_connected().then(|| {
            let output = if self.may_send() { PollFlags::OUT } else { PollFlags::empty() };
            watch(PollFd::new(self.setup.channel.socket(), PollFlags::IN | output))
        });
        let leaving = self.away.as_ref().is_some_and(|away| away.stage == Stage::Leaving);
        let lease = self.setup.reconnect.as_ref().and_then(Reconnect::lease);
        let lease_at =
            lease.filter(|_| leaving).map(|lease| watch(PollFd::new(lease, PollFlags::IN)));
        let stdin_at = self.stdin_open.then(|| watch(PollFd::new(&input, PollFlags::IN)));
        if self.console.is_behind() {
            fds.push(PollFd::new(self.console.descriptor(), PollFlags::OUT));
        }
        let wait = self.deadline().map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error),
        }
        let is_ready = |at: usize| !fds[at].revents().is_empty();
        let answer = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        Ok(Ready {
            signal: is_ready(0),
            gateway: gateway_at.is_some_and(|at| fds[at].revents().intersects(answer)),
            lease: lease_at.is_some_and(is_ready),
            stdin: stdin_at.is_some_and(is_ready),
        })
    }

    fn deadline(&self) -> Option<Instant> {
        let answer = (self.phase == Phase::Asked).then_some(self.setup.accept_by);
        let quit = self.quit.as_ref().map(|quit| quit.at + QUIT_PATIENCE);
        let away = self.away.as_ref().map(Away::deadline);
        let placeholder = self.setup.placeholders.due();
        let due = [answer, quit, away, self.progress_due(), placeholder];
        due.into_iter().flatten().min()
    }

    fn on_time(&mut self) -> Option<Outcome> {
        self.setup.placeholders.try_again();
        let now = Instant::now();
        if self.phase == Phase::Asked && now >= self.setup.accept_by {
            return Some(
                self.not_run(format!("gateway at {} gives no answer", self.setup.endpoint)),
            );
        }
        if self.away.is_some() {
            return self.on_time_away();
        }
        let quit = self.quit.as_ref()?;
        if self.phase == Phase::Asked {
            // Nobody has begun: the end of the connection is all that the gateway needs to know.
            return Some(Outcome::Exit(quit.code));
        }
        if now < quit.at + QUIT_PATIENCE {
            return None;
        }
        let code = if quit.code == 0 { 1 } else { quit.code };
        self.console.line(&format!(
            "rendergate: the gateway did not end the stream within {} s of being asked to",
            QUIT_PATIENCE.as_secs_f32()
        ));
        Some(Outcome::Exit(code))
    }

    fn on_signals(&mut self) -> Option<Outcome> {
        while let Some(signal) = self.signals.next() {
            self.signals_seen += 1;
            if self.signals_seen > SIGNALS_HEEDED {
                self.console.line("Received > 3 system signals, hard exiting");
                return Some(Outcome::Exit(EXIT_HARD));
            }
            if let Some(quit) = &mut self.quit {
                quit.code = EXIT_SIGNALLED;
            } else {
                self.console.line(&format!("Exiting normally, received signal {signal}."));
                self.ask_to_quit(EXIT_SIGNALLED);
            }
        }
        None
    }

    fn on_stdin(&mut self) {
        let mut bytes = [0; 64];
        let read = match rustix::io::read(stdin(), &mut bytes) {
            Ok(read) => read,
            Err(Errno::INTR | Errno::AGAIN) => return,
            Err(_) => 0,
        };
        if read == 0 {
            self.stdin_open = false;
            let control = self.keyboard.end();
            self.on_key(control);
        }
        for byte in &bytes[..read] {
            let control = self.keyboard.byte(*byte);
            self.on_key(control);
        }
    }

    fn on_key(&mut self, control: Option<Control>) {
        match control {
            None => {}
            Some(_) if self.quit.is_some() => {}
            Some(Control::Quit) => {
                self.console.text("\n\n[q] command received. Exiting.\n\n");
                self.ask_to_quit(0);
            }
            Some(Control::Pause) => {
                self.console.text("\nTranscoding is paused. Press [u] to resume.\n");
                self.control(Control::Pause);
            }
            Some(Control::Resume) => self.control(Control::Resume),
        }
    }

    fn ask_to_quit(&mut self, code: i32) {
        self.quit = Some(Quit { code, at: Instant::now() });
        // Before the wish is passed on: the worker may write the placeholder's number as the last
        // segment from that moment, and no other number may be announced.
        self.setup.placeholders.close();
        self.control(Control::Quit);
    }

    fn control(&mut self, control: Control) {
        if !self.is_connected() {
            // The next gateway hears of what holds by then.
            return;
        }
        let frame = session::encode(&HookToGateway::Control(control), 0);
        self.outbox.extend(frame.expect("a control message is a few bytes"));
        self.send();
    }

    /// Nothing is said to a gateway that has not answered yet: it may still decline.
    fn may_send(&self) -> bool {
        self.phase != Phase::Asked && !self.outbox.is_empty()
    }

    fn send(&mut self) {
        use std::os::fd::AsFd;
        while self.may_send() {
            let socket = self.setup.channel.socket().as_fd();
            match session::send_part(socket, &self.outbox, &[]) {
                Ok(sent) => drop(self.outbox.drain(..sent)),
                // A gateway that is gone is met when reading, after its last words.
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    self.outbox.clear();
                }
                Err(_) => return,
            }
        }
    }

    fn on_gateway(&mut self) -> Option<Outcome> {
        match self.setup.channel.fill() {
            Ok(0) => return self.lost("it closed the connection"),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return self.lost(&error.to_string());
            }
            Err(error) => return Some(self.broken(&error.to_string())),
        }
        let (mut complete, mut let_go) = (None, false);
        loop {
            match self.setup.channel.buffered::<GatewayToHook>() {
                Ok(None) => break,
                Ok(Some(mut received)) => match received.message {
                    GatewayToHook::SegmentComplete { number, complete: state } => {
                        self.commit();
                        complete = Some(number);
                        if let Some(reconnect) = &mut self.setup.reconnect {
                            reconnect.complete(number, state);
                        }
                    }
                    GatewayToHook::Writer { writer } => {
                        if let Some(reconnect) = &mut self.setup.reconnect {
                            reconnect.written_by(writer, received.descriptors.pop());
                        }
                    }
                    // What came before it in the same moment is followed by its empty segment.
                    GatewayToHook::LetGo => {
                        let_go = true;
                        break;
                    }
                    message => {
                        if let Some(outcome) = self.on_message(message) {
                            return Some(outcome);
                        }
                    }
                },
                Err(error) => return Some(self.broken(&error.to_string())),
            }
        }
        // Only behind the newest of what came together, and not if the end came with it.
        if let Some(number) = complete {
            self.setup.placeholders.follow(number);
            rescue::test_point("segment");
        }
        if let_go { self.let_go() } else { None }
    }

    fn on_message(&mut self, message: GatewayToHook) -> Option<Outcome> {
        match message {
            GatewayToHook::Accepted { protocol, .. } if protocol != PROTOCOL => {
                return Some(self.refused(format!(
                    "gateway speaks protocol {protocol}, this hook {PROTOCOL}: install them together"
                )));
            }
            GatewayToHook::Accepted { stream, .. } if self.away.is_some() => {
                self.id = Some(stream);
                self.arrive();
            }
            GatewayToHook::Accepted { stream, .. } => {
                self.phase = self.max_phase(Phase::Accepted);
                self.id = Some(stream);
                let Setup { endpoint, summary, .. } = &self.setup;
                self.console
                    .line(&format!("rendergate: stream {stream} on gateway {endpoint}: {summary}"));
            }
            GatewayToHook::Declined { reason } => {
                return Some(self.refused(format!("gateway declined: {reason}")));
            }
            GatewayToHook::StepAside { niceness } => step_aside(niceness),
            GatewayToHook::Running { backend, description } => {
                self.console.line(&format!("rendergate: {backend}: {description}"));
            }
            GatewayToHook::Committed => self.commit(),
            GatewayToHook::SegmentComplete { .. }
            | GatewayToHook::Writer { .. }
            | GatewayToHook::LetGo => unreachable!("taken by the caller"),
            GatewayToHook::Progress(progress) => {
                self.progress = Some(progress);
                self.unshown = true;
            }
            GatewayToHook::Log { line } => self.console.line(&line),
            GatewayToHook::Ended(ending) => return Some(self.ended(ending)),
            GatewayToHook::Driver { .. } => {
                return Some(self.broken("it answers what wasn't asked"));
            }
        }
        None
    }

    fn max_phase(&self, phase: Phase) -> Phase {
        if phase > self.phase { phase } else { self.phase }
    }

    fn commit(&mut self) {
        if self.phase != Phase::Committed {
            self.phase = Phase::Committed;
            rescue::committed(self.setup.placeholders.clone());
        }
    }

    fn ended(&mut self, ending: Ending) -> Outcome {
        self.setup.placeholders.close();
        let asked = self.quit.as_ref().map(|quit| quit.code);
        match (ending, asked) {
            (Ending::Complete, asked) => Outcome::Exit(asked.unwrap_or(0)),
            (Ending::Quit, Some(code)) => Outcome::Exit(code),
            (Ending::Quit, None) => {
                self.over(&format!("{} was ended by the gateway, not by Jellyfin", self.name()))
            }
            (Ending::Failed { reason, .. }, _) => {
                if self.phase == Phase::Committed {
                    self.over(&format!("{} failed after output began: {reason}", self.name()))
                } else {
                    self.not_run(format!("{} failed before output: {reason}", self.name()))
                }
            }
        }
    }

    /// The connection has ended.
    fn lost(&mut self, why: &str) -> Option<Outcome> {
        if self.phase != Phase::Committed {
            return Some(self.broken(why));
        }
        if self.setup.reconnect.as_ref().is_some_and(Reconnect::is_written) {
            return Some(self.ended(Ending::Complete));
        }
        if let (None, Some(reconnect)) = (&self.away, &mut self.setup.reconnect) {
            reconnect.is_lost();
        }
        self.leave(&format!("lost the gateway at {}: {why}", self.setup.endpoint))
    }

    /// The gateway stops and has ended its worker.
    fn let_go(&mut self) -> Option<Outcome> {
        if self.phase != Phase::Committed {
            return Some(self.broken("it lets go of what hasn't begun"));
        }
        if self.setup.reconnect.as_ref().is_some_and(Reconnect::is_written) {
            return Some(self.ended(Ending::Complete));
        }
        self.wait_anew();
        self.leave(&format!("the gateway at {} stops", self.setup.endpoint))
    }

    /// The gateway can't be understood, or listened to.
    fn broken(&mut self, why: &str) -> Outcome {
        self.setup.placeholders.close();
        let endpoint = &self.setup.endpoint;
        let lost = format!("lost the gateway at {endpoint}: {why}");
        if self.phase == Phase::Committed {
            self.over(&format!("{} broke off: {lost}", self.name()))
        } else {
            self.not_run(lost)
        }
    }

    /// The gateway doesn't take the stream.
    fn refused(&mut self, reason: String) -> Outcome {
        if self.away.is_none() {
            return self.not_run(reason);
        }
        let line = format!("{} broke off: the next {reason}", self.name());
        let outcome = self.over(&line);
        self.give_up(outcome)
    }

    /// Nothing has been written. Whoever asked to quit doesn't want another ffmpeg.
    fn not_run(&mut self, reason: String) -> Outcome {
        match &self.quit {
            Some(quit) => Outcome::Exit(quit.code),
            None => Outcome::Fallback(reason),
        }
    }

    /// Something has been written, and no more will be.
    fn over(&mut self, line: &str) -> Outcome {
        self.console.line(&format!("rendergate: {line}"));
        let code = self.quit.as_ref().map_or(1, |quit| quit.code.max(1));
        Outcome::Exit(code)
    }

    fn name(&self) -> String {
        self.id.map_or_else(|| "the stream".to_owned(), |id| format!("stream {id}"))
    }

    /// When the last progress may be printed, if it is still to be.
    fn progress_due(&self) -> Option<Instant> {
        let wanted = self.unshown && self.quit.is_none() && !self.keyboard.paused();
        wanted.then(|| self.shown.map_or_else(Instant::now, |at| at + PROGRESS_INTERVAL))
    }

    fn show_progress(&mut self) {
        let (Some(due), Some(progress)) = (self.progress_due(), self.progress) else { return };
        let now = Instant::now();
        if now < due {
            return;
        }
        self.shown = Some(now);
        self.unshown = false;
        let line = progress::line(&progress, self.setup.has_video, false);
        self.console.passing(&format!("{line}\r"));
    }
}

#[derive(Default)]
struct Ready {
    signal: bool,
    gateway: bool,
    lease: bool,
    stdin: bool,
}
