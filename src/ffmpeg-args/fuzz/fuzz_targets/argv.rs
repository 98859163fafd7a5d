//! Words divided by zero bytes, and the same bytes as a line of a log.
#![no_main]

mod command;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use ffmpeg_args::logged_command;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let words = input.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    command::check(&words.collect::<Vec<_>>());
    let text = String::from_utf8_lossy(input);
    if let Some((_, words)) = logged_command(&text) {
        command::check(&words.into_iter().map(OsString::from).collect::<Vec<_>>());
    }
    // Most of what is planned is a line that was.
    let plain = command::command("scale_vaapi=format=nv12", "expr:gte(t,n_forced*3)");
    let joined = plain.into_iter().chain(text.split_whitespace().map(OsString::from));
    command::check(&joined.collect::<Vec<_>>());
});
