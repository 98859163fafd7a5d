//! One stream, one process: a GStreamer graph built from `pipelines/` between a file and the
//! segments that Jellyfin waits for.
//!
//! ```text
//! rgfile ! demuxer ─┬─ queue ! decoder ! rgcadence ! rgscale ! queue ! encoder ! appsink ─┐
//!                   └─ queue ! decoder ! … ! rgtrim ! … ! encoder ! appsink ──────────────┴─▶ hls::Segmenter
//! ```
//!
//! Invariants:
//! - Nothing is autoplugged: every element is named in `pipelines/`.
//! - The process lives for one stream and no longer than its gateway.
#![deny(unsafe_code)]

pub mod abreast;
pub mod admission;
pub mod best;
pub mod cadence;
pub mod calibrate;
pub mod canvas;
pub mod confinement;
pub mod disposable;
pub mod elements;
pub mod first_unit;
pub mod format;
pub mod frame_rate;
pub mod gpu_encoder;
pub mod graph;
pub mod key_sets;
mod light;
pub mod link;
mod listen;
mod meter;
pub mod mix;
pub mod mpegts;
pub mod opened;
pub mod options;
pub mod outline;
mod pace;
mod pads;
pub mod parsed;
pub mod pipeline;
pub mod reading;
pub mod reorder;
pub mod room;
pub mod run;
pub mod seam;
pub mod size;
pub mod source;
pub mod stages;
pub mod subtitles;
mod succession;
pub mod swscale;
pub mod timeline;
pub mod tone;
pub mod tracks;
pub mod turn;
pub mod vaapi;
mod warm_up;
pub mod writer;
