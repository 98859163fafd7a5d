//! The language between hook, gateway and worker: messages, framing, file-descriptor passing.
//!
//! On one node the three talk over unix stream sockets. The hook opens the inputs and the output
//! directory itself and passes the descriptors along, so that the worker needs no media mount and
//! no write access of its own.
#![forbid(unsafe_code)]

mod frame;
mod message;
mod resumption;

pub use frame::{
    Channel, FrameError, MAX_BODY, MAX_DESCRIPTORS, Received, Receiver, encode, send, send_part,
};
pub use message::*;
pub use resumption::{Complete, Resumption, Takeover};
