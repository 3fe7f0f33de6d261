//! The chunk reader gives the same messages however its bytes are split, keeps its limits, and what it read can be
//! framed and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linkmic::rtmp::chunk::Limits;
use linkmic_fuzz::drive;

fuzz_target!(|data: &[u8]| {
    let Some((&step, bytes)) = data.split_first() else {
        return;
    };
    let (whole, end) = drive::read(bytes, bytes.len(), Limits::default());
    let (parts, same) = drive::read(bytes, usize::from(step), Limits::default());
    assert_eq!(whole, parts, "messages, read {step} bytes at a time");
    assert_eq!(end, same, "the end, read {step} bytes at a time");
    for message in &whole {
        drive::assert_frames_again(message);
    }
    // Small enough for inputs of this size to meet them.
    let tight = Limits {
        message_bytes: 300,
        chunk_streams: 3,
        pending_bytes: 400,
        command_bytes: 100,
    };
    drive::read(bytes, usize::from(step), tight);
});
