//! A client's bytes, or its messages, never bring a server's session down, and every answer makes sense.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linkmic_fuzz::{drive, messages};

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, rest)) => drive::server_messages(messages(rest)),
        Some((&step, rest)) => drive::server(rest, step.into()),
        None => return,
    };
});
