//! The head of a request says the same however it is split, and whatever comes behind it; its query is never shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linkmic_fuzz::doors;

fuzz_target!(|data: &[u8]| {
    if let Some((&step, bytes)) = data.split_first() {
        doors::request(bytes, step.into());
    }
});
