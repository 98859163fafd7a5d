//! Any bytes, in pieces of any size, as each side of the protocol reads them.
//!
//! `cargo +nightly fuzz run frames fuzz/corpus/frames tests/corpus` in `src/session`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use session::{GatewayToHook, GatewayToWorker, HookToGateway, Receiver, WorkerToGateway};

fn read<M: DeserializeOwned>(bytes: &[u8], piece: usize) {
    let mut receiver = Receiver::new();
    for piece in bytes.chunks(piece) {
        receiver.push(piece);
        loop {
            match receiver.next::<M>() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    // Files of the corpus begin with their frame; `piece` is then a part of it.
    for bytes in [bytes, input] {
        read::<HookToGateway>(bytes, piece);
        read::<GatewayToHook>(bytes, piece);
        read::<GatewayToWorker>(bytes, piece);
        read::<WorkerToGateway>(bytes, piece);
    }
});
