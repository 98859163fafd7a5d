//! An ffmpeg command line as Jellyfin issues it, read into a [`Plan`].
//!
//! Two steps, both pure. [`parse`] binds options to files and interprets nothing
//! ([`arguments::Arguments`]); [`plan`] turns that into intent. Between them the command is sorted
//! by kind (`kinds`), then read piece by piece: `inputs` (`network` where their bytes come from),
//! `select` (which streams), `video` with its filter `chain` (of which `tone` reads tone mappings,
//! `turning` turns, `detours` the ways between memories, `subtitles` text; `overlay` a graph of
//! two chains, of which `plane` is the second), `audio` with its `mix`, and what is written: `output` or `progressive`.
//!
//! Every dialect of Jellyfin 10.6 to 12 is read by the same rules; a version is never asked for.
//! The knowledge lies in tables: which option takes a value, which spelling means what, which
//! value changes nothing, which encoder reads which memory.
//!
//! Invariants:
//! - No disk, no network, no clock: equal arguments, equal plan.
//! - Recognised positively or not at all: an option, value or filter that no rule takes makes a
//!   [`Passthrough`] that names it.
//! - A plan is valid UTF-8 throughout, so it can always be serialised.
#![forbid(unsafe_code)]

pub mod arguments;
mod audio;
mod chain;
mod describe;
mod detours;
mod explain;
mod expression;
mod filters;
mod inputs;
mod kinds;
mod logged;
mod memory;
mod mix;
mod network;
mod numbers;
mod options;
mod output;
mod overlay;
mod plan;
mod plane;
mod progressive;
mod select;
mod split;
mod startup;
mod subtitles;
mod tone;
mod transcode;
mod turning;
mod unread;
mod verdict;
mod video;

pub use arguments::{Arguments, parse};
pub use describe::Need;
pub use logged::logged_command;
pub use plan::*;
pub use split::split_command_line;
pub use startup::asks_for_vaapi_driver;
pub use transcode::plan;
pub use verdict::Verdict;
