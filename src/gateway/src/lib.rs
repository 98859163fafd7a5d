//! The gateway: it admits streams, gives each a worker process, watches over both ends, and
//! reports what goes on.
//!
//! ```text
//!  hook ──unix socket──▶ socket ─▶ job ─▶ stream ◀──stdin socket──▶ worker process
//!                                    │       │                           ▲
//!                                    ▼       ▼                           │
//!                                  pool   streams ──▶ http, metrics    launch
//! ```
//!
//! One thread runs it all. What a gateway does per stream is to pass on a few messages per second;
//! more threads would only cost memory. It is also the main thread, which lives as long as the
//! process: workers are tied to the thread that starts them (see [`launch`]). What may wait on a
//! disk (the output directory can be on a network share) happens on threads made for it.
//!
//! Invariants:
//! - A worker dies with its stream, a stream with its hook, and workers with the gateway.
//! - No message is waited for without a limit of time, and no peer that stops reading holds up
//!   another: sends are queued, queues are bounded.
//! - Not a byte of media passes through here; descriptors do.
//! - No global state: metrics and the table of streams are handed down.

#![forbid(unsafe_code)]

pub mod admission;
mod cache;
mod calibrate;
pub mod cli;
pub mod config;
mod confinement;
mod connection;
mod ending;
mod explain;
mod first_message;
mod follow;
pub mod gateway;
mod gpu_time;
mod gpus;
mod http;
pub mod launch;
pub mod logging;
mod metrics;
mod output;
mod page;
mod peer;
mod pool;
pub mod probe;
mod room;
mod schedule;
mod sharing;
mod socket;
pub mod status;
mod stdout;
mod stream;
pub mod streams;
mod survival;
pub mod table;
mod taking;
mod worker;
