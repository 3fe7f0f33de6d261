//! Any bytes are a PROXY header or not; the address in one is the same however it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linkmic_fuzz::doors;

fuzz_target!(|data: &[u8]| {
    // Seeds have a byte in front, as those of the other targets.
    if let Some((_, header)) = data.split_first() {
        doors::proxy_header(header);
    }
});
