//! An ffmpeg command line as Jellyfin issues it, read into a [`Plan`].
#![forbid(unsafe_code)]

mod plan;

pub use plan::*;
