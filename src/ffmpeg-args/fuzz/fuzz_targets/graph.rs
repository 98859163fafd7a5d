//! A chain of filters in an else plain command.
#![no_main]

mod command;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|chain: &str| {
    command::check(&command::command(chain, "expr:gte(t,n_forced*3)"));
});
