//! Encoded samples in, HLS segments or one growing file as Jellyfin expects them out (contract 2.1, 2.6,
//! 2.7 and 4).
//!
//! ```text
//! Sample ─▶ Interleaver ─▶ cut rule ─▶ MPEG-TS or fMP4 ─▶ {prefix}{n}{suffix}.{tag}.tmp ─▶ rename
//!                  └─────▶ MPEG-TS, fMP4, Matroska, Ogg, ... ─▶ {name}, appended to
//! ```
//!
//! [`Segmenter`] and [`Progressive`] take samples of all tracks, in any mix, with times on the source's timeline,
//! and writes into a directory that it was handed as a descriptor. Which encoder made the samples,
//! and by what framework they travelled, is unknown here.
//!
//! Invariants:
//! - A final name (`{prefix}{n}{suffix}`, the init file, the playlist) only ever appears by rename
//!   of a complete file; segments appear in order. A progressive file is there from its first byte on,
//!   and only appended to.
//! - A full disk is waited out for as long as a [`Patience`] ([`Room`]) says, in the middle of the write; what was
//!   fed before goes nowhere else meanwhile.
//! - Files are reached through the directory's descriptor alone, never by path.
//! - Two runs of the same job write the same codec headers: no clocks, no random numbers.

#![forbid(unsafe_code)]

pub mod annexb;
pub mod appearance;
mod cut;
pub mod directory;
mod error;
mod file;
mod fmp4;
mod interleave;
mod matroska;
mod patience;
mod playlist;
mod progressive;
mod room;
mod seam;
mod segmenter;
mod share;
mod sps;
mod time;
mod track;
mod ts;

pub use error::WriteError;
pub use interleave::Interleaver;
pub use patience::Patience;
pub use progressive::{Progressive, Timing};
pub use room::{Room, Waiting};
pub use seam::{Seam, TrackSeam};
pub use segmenter::{Counters, Event, Segmenter};
pub use share::Share;
pub use track::{Sample, Track, TrackFormat};
