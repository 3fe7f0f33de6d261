//! A server's bytes never bring a client's session down: CDN targets are strangers, too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linkmic_fuzz::drive;

fuzz_target!(|data: &[u8]| {
    if let Some((&step, rest)) = data.split_first() {
        drive::client(rest, step.into());
    }
});
