//! The whole stack as one thing to start and measure: gateway, hook, clips, sessions.
//!
//! The programs in `bin/` stand on it: `demo`, `main-job` and `load` (the benchmarks), `gateway-cost`,
//! `kills`, `seam`.
#![forbid(unsafe_code)]

pub mod clip;
pub mod figures;
pub mod job;
pub mod live;
pub mod load;
pub mod play;
pub mod processes;
pub mod random;
pub mod stack;
