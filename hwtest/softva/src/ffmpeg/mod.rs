//! libavcodec and libswscale, as far as the engines need them.
//!
//! Invariant: one thread per codec (x265 insists on one of its own), no frame threading: what goes
//! in comes out in the same call.

pub mod decoder;
pub mod encoder;
pub mod scaler;

/// ffmpeg's declarations, generated from the headers of this machine.
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
pub mod sys {
    include!(concat!(env!("OUT_DIR"), "/ffmpeg.rs"));
}

/// Has ffmpeg's libraries say errors only. Streams of tests are damaged on purpose at times, and
/// a log full of concealment hides what matters.
fn quiet() {
    // SAFETY: sets a number.
    unsafe { sys::av_log_set_level(sys::AV_LOG_ERROR as i32) };
}
