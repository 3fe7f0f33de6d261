//! Any messages, against the crate's own serializer and deserializer; and any bytes at all.

use proptest::collection::vec;
use proptest::prelude::*;
use rml_rtmp::chunk_io::{ChunkDeserializer, ChunkSerializer};
use rml_rtmp::messages::MessagePayload;
use rml_rtmp::time::RtmpTimestamp;

use super::*;
use crate::rtmp::{CHUNK_BYTES, control};

/// Types whose limit is a whole message's, so that lengths may be anything; 22 would be taken apart.
fn any_message(longest: usize) -> impl Strategy<Value = Message> {
    let timestamp = prop_oneof![
        any::<u32>(),
        0u32..100_000,
        0xff_fff0u32..0x100_0010,
        Just(u32::MAX)
    ];
    (
        prop_oneof![Just(8u8), Just(9)],
        0u32..9,
        timestamp,
        1..longest,
        any::<u8>(),
    )
        .prop_map(|(type_id, stream_id, timestamp, length, seed)| Message {
            type_id,
            stream_id,
            timestamp,
            payload: body(length, seed).into(),
        })
}

fn payload_of(message: &Message) -> MessagePayload {
    MessagePayload {
        timestamp: RtmpTimestamp::new(message.timestamp),
        type_id: message.type_id,
        message_stream_id: message.stream_id,
        data: message.payload.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_we_frame_is_read_by_us_and_by_the_crate(messages in vec(any_message(150_000), 1..6), step in 1usize..100_000) {
        let mut bytes = BytesMut::new();
        control::chunk_size().write_to(&mut bytes);
        for m in &messages {
            Framed::new(m.type_id, m.timestamp, m.stream_id, m.payload.clone()).write_to(&mut bytes);
        }
        let ours = read_in_steps(&mut reader(), &bytes, step).unwrap();
        prop_assert_eq!(&ours, &messages);

        let mut theirs = ChunkDeserializer::new();
        theirs.set_max_chunk_size(CHUNK_BYTES).unwrap();
        let mut input = &bytes[16..]; // past our Set Chunk Size
        for m in &messages {
            let got = theirs.get_next_message(input).unwrap().unwrap();
            input = &[];
            prop_assert!(got == payload_of(m), "{:?} became {:?}", m, got);
        }
    }

    #[test]
    fn what_the_crate_serializes_is_read_by_us(
        messages in vec(any_message(2000), 1..12),
        chunk_size in prop_oneof![Just(0u32), 1u32..300, 4000u32..70_000],
        droppable in any::<bool>(),
        step in 1usize..5000,
    ) {
        let mut serializer = ChunkSerializer::new();
        let mut bytes = Vec::new();
        if chunk_size > 0 {
            bytes.extend(serializer.set_max_chunk_size(chunk_size, RtmpTimestamp::new(0)).unwrap().bytes);
        }
        // The crate's deltas do not wrap, so its input goes forward; the extended *deltas* it writes are wrong.
        let mut messages = messages;
        messages.sort_by_key(|m| m.timestamp);
        let mut kept: Vec<Message> = Vec::new();
        for m in messages {
            if kept.last().is_none_or(|last| m.timestamp - last.timestamp < 0xff_ffff) {
                kept.push(m);
            }
        }
        for m in &kept {
            bytes.extend(serializer.serialize(&payload_of(m), false, droppable).unwrap().bytes);
        }
        let got = read_in_steps(&mut reader(), &bytes, step).unwrap();
        prop_assert_eq!(got, kept);
    }

    #[test]
    fn any_bytes_are_read_or_refused_within_the_limits(bytes in vec(any::<u8>(), 0..3000), step in 1usize..500) {
        let mut reader = reader();
        let _ = read_in_steps(&mut reader, &bytes, step);
        prop_assert!(reader.pending <= reader.limits.pending_bytes);
        prop_assert!(reader.buffer.len() <= bytes.len());
    }
}
