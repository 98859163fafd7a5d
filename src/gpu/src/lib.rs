//! GPUs: which there are, what they say they can do, and what they have been seen doing.
//!
//! [`render_nodes`] lists them. What a driver reports and what came of trying it is asked by a
//! process apart (`rendergate-worker --probe-node`), since drivers crash and hang; this crate has
//! the words in which that process answers ([`NodeProbe`], [`Outcome`]), the whole of a machine
//! ([`Machine`]), and [`advice`] on what is missing.
//!
//! Invariants:
//! - "Usable" is said only of what has moved frames; a driver's word is "reported".
//! - Needs no privilege and links nothing but libc: the gateway uses it.
#![forbid(unsafe_code)]

pub mod advice;
mod device;
mod engines;
mod facts;
mod nodes;
mod reason;
mod report;
mod work;

pub use device::{Ability, Device};
pub use engines::{Busy, Client, Counter, Engine, EngineTime, parse as parse_fdinfo};
pub use facts::Facts;
pub use nodes::{
    PciId, Problem, RenderNode, node_paths, node_pci_id, pci_address, render_node, render_nodes,
};
pub use reason::{Reason, ReasonKind};
pub use report::{
    Capabilities, Entry, Entrypoint, Machine, NodeProbe, NodeReport, Operation, Outcome,
    Processing, Trial, VaapiFailure,
};
pub use work::{Action, Measured, Step, Task, Work};
