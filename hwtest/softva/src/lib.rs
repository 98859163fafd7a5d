//! A VA-API driver in software: what a GPU's media engine does, done by libavcodec and libswscale.
//!
//! libva loads `softva_drv_video.so` like any other driver, so everything above it (libva,
//! GStreamer's `va` plugin, the worker's hardware pipelines) runs unmodified on a machine without
//! a GPU and produces real pictures and real streams. The pieces:
//!
//! - [`entry`] and [`ffi`] are the C side: the driver's table of functions, one file per group.
//! - [`driver`] holds the objects behind the ids that libva hands out ([`store`]).
//! - [`surface`], [`format`], [`buffer`] and [`image`] are memory and its layouts.
//! - [`context`] collects a picture's buffers and passes them to one of three engines:
//!   [`decode`], [`encode`], [`process`].
//! - [`ffmpeg`] is the thin layer over libavcodec and libswscale.
//! - [`account`], [`trace`] and [`fault`] make the driver observable and make it misbehave.
//!
//! By hand, with the virtual render node of `hwtest/rendernode` (or any shim that shows one):
//!
//! ```sh
//! cargo build -p softva -p rendernode
//! mkdir -p target/drivers
//! ln -sf ../debug/libsoftva.so target/drivers/softva_drv_video.so
//! export LIBVA_DRIVERS_PATH=$PWD/target/drivers LIBVA_DRIVER_NAME=softva
//! export GST_VA_ALL_DRIVERS=1 GST_REGISTRY=$PWD/target/softva-registry.bin
//! export RENDERNODE_FACE=softva RENDERNODE_COUNT=1
//! LD_PRELOAD=$PWD/target/debug/librendernode.so gst-inspect-1.0 va
//! ```
//!
//! | variable | what it does |
//! |---|---|
//! | `SOFTVA_TRACE=FILE` | a line per call that matters ([`trace`]) |
//! | `SOFTVA_ACCOUNT=FILE` | CPU seconds and pictures per engine as JSON ([`account`]) |
//! | `SOFTVA_FAULT=LIST` | misbehaviour ([`fault`]) |
//!
//! Invariants: work is done in `vaEndPicture`, in the caller's thread, so a synchronised surface
//! is always finished; codecs run one thread each, so thread CPU time is the account; a profile
//! that isn't decoded or encoded correctly isn't listed. What is left out of a profile is said
//! where it is missing: picture order count type 1 in [`decode::h264`], tables of long-term pictures in
//! [`decode::h265`], intra pictures between IDRs in [`encode`]. A panic in an entry point aborts the
//! process, as a crash of a real driver would.

pub mod account;
pub mod bits;
pub mod buffer;
pub mod caps;
pub mod context;
pub mod decode;
pub mod driver;
pub mod encode;
pub mod entry;
pub mod fault;
pub mod ffi;
pub mod ffmpeg;
pub mod format;
pub mod image;
pub mod process;
pub mod status;
pub mod store;
pub mod surface;
pub mod trace;

/// libva's declarations, generated from its headers.
#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unused_qualifications,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
pub mod va {
    include!(concat!(env!("OUT_DIR"), "/va.rs"));
}
