//! The frame decoder against bytes that no peer of ours sends.
//!
//! `corpus/` holds frames by name of what they are; the fuzz target starts from the same files.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use proptest::prelude::*;
use session::{
    Channel, Complete, Control, Ending, Fault, FrameError, GatewayToHook, HookToGateway, MAX_BODY,
    MAX_DESCRIPTORS, Progress, Receiver, StreamId, WorkerToGateway, Writer, encode, send,
};

fn frame(length: usize, descriptors: u16, magic: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(length).unwrap().to_le_bytes().to_vec();
    frame.extend(descriptors.to_le_bytes());
    frame.extend(magic.to_le_bytes());
    frame.extend(body);
    frame
}

const MAGIC: u16 = 0x5247;
const QUIT: &[u8] = br#"{"type":"control","quit":null}"#;

/// Everything that a receiver makes of these bytes when they come in pieces of this size.
fn decode(bytes: &[u8], piece: usize) -> (Vec<HookToGateway>, Option<String>) {
    let mut receiver = Receiver::new();
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        receiver.push(piece);
        loop {
            match receiver.next() {
                Ok(Some(received)) => messages.push(received.message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error.to_string())),
            }
        }
    }
    (messages, None)
}

fn error(bytes: &[u8]) -> FrameError {
    let mut receiver = Receiver::new();
    receiver.push(bytes);
    receiver.next::<HookToGateway>().unwrap_err()
}

#[test]
fn what_is_wrong_is_named() {
    assert!(matches!(error(b"GET / HTTP/1.1"), FrameError::NotAFrame));
    let oversized = frame(MAX_BODY + 1, 0, MAGIC, b"");
    assert!(matches!(error(&oversized), FrameError::Oversized(n) if n == MAX_BODY + 1));
    let many = u16::try_from(MAX_DESCRIPTORS + 1).unwrap();
    assert!(matches!(error(&frame(0, many, MAGIC, b"")), FrameError::TooManyDescriptors));
    let missing = FrameError::MissingDescriptors { announced: 2, arrived: 0 };
    assert_eq!(error(&frame(2, 2, MAGIC, b"{}")).to_string(), missing.to_string());
    for body in ["", "{}", "[]", "{\"type\":\"jobs\"}", "\u{0}", "{\"type\":\"control\"}"] {
        let error = error(&frame(body.len(), 0, MAGIC, body.as_bytes()));
        assert!(matches!(error, FrameError::Body(_)), "{body}: {error}");
    }
}

#[test]
fn the_largest_body_passes_and_nothing_larger_is_sent() {
    let line = |length| WorkerToGateway::Log { line: "x".repeat(length) };
    let around = encode(&line(0), 0).unwrap().len() - 8;
    let largest = encode(&line(MAX_BODY - around), 0).unwrap();
    let mut receiver = Receiver::new();
    receiver.push(&largest);
    assert!(receiver.next::<WorkerToGateway>().unwrap().is_some());
    assert!(encode(&line(MAX_BODY - around + 1), 0).is_err());
    assert!(encode(&line(0), MAX_DESCRIPTORS + 1).is_err());
}

/// A corpus file's name says what must come of it: `ok-N-...` gives N messages
/// and no error, `more-...` waits for more, `bad-...` is an error.
#[test]
fn corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs::read(&path).unwrap();
        for piece in [1, 7, bytes.len()] {
            let (messages, error) = decode(&bytes, piece);
            match name.split('-').collect::<Vec<_>>().as_slice() {
                ["ok", count, ..] => {
                    assert_eq!((messages.len(), error), (count.parse().unwrap(), None), "{name}");
                }
                ["more", ..] => assert_eq!((messages.len(), error), (0, None), "{name}"),
                ["bad", ..] => assert!(error.is_some(), "{name}: {messages:?}"),
                _ => panic!("{name}: expected ok-N-, more- or bad-"),
            }
        }
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} files: the corpus is part of the repository");
}

#[test]
fn descriptors_nobody_announced_are_bounded() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = fs::File::open(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut receiver = Receiver::new();
    // One byte of a body at a time, each with a descriptor that the header doesn't mention.
    (&ours).write_all(&frame(100, 0, MAGIC, b"")).unwrap();
    let mut filled = Ok(0);
    for _ in 0..=MAX_DESCRIPTORS {
        assert!(filled.is_ok());
        session::send_part(ours.as_fd(), b" ", &[file.as_fd()]).unwrap();
        filled = receiver.fill(theirs.as_fd());
    }
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn descriptors_come_with_their_own_frame() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let quit = HookToGateway::Control(Control::Quit);
    let file = fs::File::open("/dev/null").unwrap();
    send(ours.as_fd(), &quit, &[]).unwrap();
    send(ours.as_fd(), &quit, &[file.as_fd(), file.as_fd()]).unwrap();
    send(ours.as_fd(), &quit, &[file.as_fd()]).unwrap();
    send(ours.as_fd(), &quit, &[]).unwrap();
    drop(ours);
    let mut channel = Channel::new(theirs.into());
    let mut counts = Vec::new();
    while let Some(received) = channel.receive::<HookToGateway>().unwrap() {
        counts.push(received.descriptors.len());
        for descriptor in received.descriptors {
            let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }
    assert_eq!(counts, [0, 2, 1, 0]);
}

#[test]
fn a_frame_larger_than_the_sockets_buffer_goes_through() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let line = "x".repeat(MAX_BODY - 100);
    let sender = {
        let message = WorkerToGateway::Log { line: line.clone() };
        let file = fs::File::open("/dev/null").unwrap();
        std::thread::spawn(move || {
            ours.set_nonblocking(true).unwrap();
            for _ in 0..4 {
                send(ours.as_fd(), &message, &[file.as_fd()]).unwrap();
            }
        })
    };
    let mut channel = Channel::new(theirs.into());
    for _ in 0..4 {
        let received = channel.receive::<WorkerToGateway>().unwrap().unwrap();
        assert_eq!(received.message, WorkerToGateway::Log { line: line.clone() });
        assert_eq!(received.descriptors.len(), 1);
    }
    sender.join().unwrap();
    assert!(channel.receive::<WorkerToGateway>().unwrap().is_none());
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        Just(Ending::Complete),
        Just(Ending::Quit),
        ".*".prop_map(|reason| Ending::Failed { reason, fault: Fault::Device }),
    ]
}

fn message() -> impl Strategy<Value = GatewayToHook> {
    prop_oneof![
        (any::<u64>(), any::<u32>())
            .prop_map(|(id, protocol)| GatewayToHook::Accepted { stream: StreamId(id), protocol }),
        ".*".prop_map(|reason| GatewayToHook::Declined { reason }),
        any::<u8>().prop_map(|niceness| GatewayToHook::StepAside { niceness }),
        (".*", ".*")
            .prop_map(|(backend, description)| GatewayToHook::Running { backend, description }),
        Just(GatewayToHook::Committed),
        (any::<u64>(), any::<(u64, u32)>(), prop::option::of(".*")).prop_map(
            |(number, length, state)| GatewayToHook::SegmentComplete {
                number,
                complete: Complete { length, state: state.map(Into::into), last: false },
            }
        ),
        (any::<u64>(), any::<u32>()).prop_map(|(stream, pid)| GatewayToHook::Writer {
            writer: Writer { stream: StreamId(stream), pid },
        }),
        Just(GatewayToHook::LetGo),
        (any::<[u64; 4]>(), any::<i64>()).prop_map(|([a, b, c, d], source_us)| {
            GatewayToHook::Progress(Progress {
                frames: a,
                position_us: b,
                source_us,
                bytes: c,
                elapsed_us: d,
            })
        }),
        ".*".prop_map(|line| GatewayToHook::Log { line }),
        ending().prop_map(GatewayToHook::Ended),
    ]
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in(
        messages in prop::collection::vec(message(), 0..20),
        piece in 1_usize..100,
    ) {
        let bytes: Vec<u8> =
            messages.iter().flat_map(|message| encode(message, 0).unwrap()).collect();
        let mut receiver = Receiver::new();
        let mut came = Vec::new();
        for piece in bytes.chunks(piece) {
            receiver.push(piece);
            while let Some(received) = receiver.next::<GatewayToHook>().unwrap() {
                came.push(received.message);
            }
        }
        prop_assert_eq!(came, messages);
    }

    #[test]
    fn any_bytes_give_the_same_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        piece in 1_usize..50,
    ) {
        prop_assert_eq!(decode(&bytes, piece), decode(&bytes, bytes.len()));
    }

    #[test]
    fn damaged_frames_neither_panic_nor_invent_messages(
        at in 0_usize..(8 + QUIT.len()),
        value in any::<u8>(),
        piece in 1_usize..50,
    ) {
        let sound = frame(QUIT.len(), 0, MAGIC, QUIT);
        let mut damaged = sound.clone();
        damaged[at] = value;
        let (messages, error) = decode(&damaged, piece);
        if damaged == sound {
            prop_assert_eq!(messages, [HookToGateway::Control(Control::Quit)]);
        } else {
            // Nothing, or an error; a body that still is a message can only be another control.
            prop_assert!(messages.is_empty() || error.is_none());
            prop_assert!(messages.len() <= 1);
        }
    }

    #[test]
    fn headers_of_any_kind_are_judged_by_their_limits(
        length in any::<u32>(),
        descriptors in any::<u16>(),
        right in any::<bool>(),
        magic in any::<u16>(),
    ) {
        let magic = if right { MAGIC } else { magic };
        let mut receiver = Receiver::new();
        receiver.push(&frame(length as usize, descriptors, magic, b""));
        let allowed = magic == MAGIC
            && length as usize <= MAX_BODY
            && usize::from(descriptors) <= MAX_DESCRIPTORS
            && (length, descriptors) != (0, 0);
        match receiver.next::<HookToGateway>() {
            Ok(None) => prop_assert!(allowed),
            Ok(Some(_)) => prop_assert!(false, "there was no body"),
            Err(FrameError::Body(_)) => prop_assert_eq!(length, 0),
            Err(FrameError::MissingDescriptors { .. }) => prop_assert_eq!(length, 0),
            Err(_) => prop_assert!(!allowed),
        }
    }
}
