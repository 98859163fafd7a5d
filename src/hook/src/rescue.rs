//! What becomes of a stream if the hook itself has a bug and panics.
//!
//! Before the first output the real ffmpeg can still do the job; after it the placeholder must go
//! and the exit code say that something is wrong. Runs as the panic handler, because the shipped
//! binary aborts instead of unwinding.

use std::ffi::OsString;
use std::sync::Mutex;

use crate::console;
use crate::placeholder::Placeholders;
use crate::process::Before;
use crate::reader;
use crate::real::{self, Tool};

/// How far things are.
#[expect(clippy::large_enum_variant, reason = "one of them, in a static")]
enum Stage {
    /// Nothing has been written.
    Before { arguments: Vec<OsString>, signals: Option<Before> },
    /// Files stand in the output directory.
    Committed(Placeholders),
}

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

/// From here on a panic ends in the real ffmpeg.
pub fn install(arguments: &[OsString]) {
    set(Stage::Before { arguments: arguments.to_vec(), signals: None });
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.to_string();
        reader::end_all();
        // Whoever panics while holding the lock, or a second time in here, just ends.
        let stage = STAGE.try_lock().ok().and_then(|mut stage| stage.take());
        let code = match stage {
            Some(Stage::Before { arguments, signals }) => {
                if let Some(signals) = signals {
                    signals.restore();
                }
                real::execute(Tool::Ffmpeg, &arguments, Some(&format!("hook failed: {what}")))
            }
            Some(Stage::Committed(placeholders)) => {
                placeholders.close_from_panic();
                console::say(&format!("rendergate: hook failed after output began: {what}"));
                1
            }
            None => 1,
        };
        #[expect(clippy::disallowed_methods, reason = "a panic handler has nowhere to return to")]
        std::process::exit(code);
    }));
}

/// The signals have been taken; they must be put back before another program runs.
pub fn signals_taken(before: Before) {
    if let Ok(mut stage) = STAGE.lock()
        && let Some(Stage::Before { signals, .. }) = &mut *stage
    {
        *signals = Some(before);
    }
}

/// From here on a panic ends in exit code 1, without a placeholder.
pub fn committed(placeholders: Placeholders) {
    set(Stage::Committed(placeholders));
}

fn set(to: Stage) {
    if let Ok(mut stage) = STAGE.lock() {
        *stage = Some(to);
    }
}

/// Panics where a test says so. Not in shipped binaries.
pub fn test_point(name: &str) {
    if cfg!(debug_assertions)
        && std::env::var_os("RENDERGATE_TEST_PANIC").is_some_and(|at| at == name)
    {
        panic!("test point {name}");
    }
}
