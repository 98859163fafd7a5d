//! Behaves towards its ffmpeg as Jellyfin does (contract sections 2 to 4).
#![forbid(unsafe_code)]

pub mod job_logger;
