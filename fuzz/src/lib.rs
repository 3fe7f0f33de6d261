//! What the fuzz targets share: the driver of the mutational test, and how raw input is cut into calls.

#[path = "../../tests/integration/mutation/drive.rs"]
pub mod drive;

#[path = "../../tests/integration/mutation/doors.rs"]
pub mod doors;

use bytes::Bytes;
use linkmic::rtmp::Message;

/// Whole messages, cut out of raw input: type, message stream, two bytes of length, payload, and so on. Spares the
/// fuzzer the chunk stream where the commands are what is looked at.
pub fn messages(mut data: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((&[type_id, stream_id, high, low], rest)) = data.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        messages.push(Message {
            type_id,
            stream_id: stream_id.into(),
            timestamp: u32::from(high) << 24 | u32::from(low),
            payload: Bytes::copy_from_slice(payload),
        });
        data = rest;
    }
    messages
}
