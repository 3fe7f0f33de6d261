mod edges;
mod oracle;

use super::*;
use crate::rtmp::Framed;

fn reader() -> Reader {
    Reader::new(Limits::default())
}

/// Feeds `bytes` in parts of `step` and returns everything that came out.
fn read_in_steps(reader: &mut Reader, bytes: &[u8], step: usize) -> Result<Vec<Message>, Error> {
    let mut messages = Vec::new();
    for part in bytes.chunks(step) {
        reader.buffer().extend_from_slice(part);
        while let Some(message) = reader.next()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

fn read(bytes: &[u8]) -> Result<Vec<Message>, Error> {
    read_in_steps(&mut reader(), bytes, usize::MAX)
}

fn message(type_id: u8, stream_id: u32, timestamp: u32, payload: &[u8]) -> Message {
    Message {
        type_id,
        stream_id,
        timestamp,
        payload: Bytes::copy_from_slice(payload),
    }
}

/// A type 0 header on a one-byte chunk stream id.
fn head0(id: u8, timestamp: u32, length: usize, type_id: u8, stream_id: u32) -> Vec<u8> {
    let mut out = vec![id];
    out.extend_from_slice(&timestamp.min(0xff_ffff).to_be_bytes()[1..]);
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.push(type_id);
    out.extend_from_slice(&stream_id.to_le_bytes());
    if timestamp >= 0xff_ffff {
        out.extend_from_slice(&timestamp.to_be_bytes());
    }
    out
}

fn head1(id: u8, delta: u32, length: usize, type_id: u8) -> Vec<u8> {
    let mut out = head0(id | 0x40, delta, length, type_id, 0);
    out.drain(8..12);
    out
}

fn control_message(type_id: u8, value: u32) -> Vec<u8> {
    [head0(2, 0, 4, type_id, 0), value.to_be_bytes().to_vec()].concat()
}

fn body(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(31) ^ seed)
        .collect()
}

/// One conversation with everything in it: several chunk streams interleaved, deltas, repeats, extended timestamps.
fn rich_stream() -> (Vec<u8>, Vec<Message>) {
    let (a, b, c) = (body(300, 1), body(200, 2), body(10, 3));
    let bytes = [
        head0(4, 1000, 300, 8, 1),
        a[..128].to_vec(),
        head0(6, 2000, 200, 9, 1),
        b[..128].to_vec(),
        vec![0xc4],
        a[128..256].to_vec(),
        vec![0xc6],
        b[128..].to_vec(),
        vec![0xc4],
        a[256..].to_vec(),
        head1(4, 23, 10, 8),
        c.clone(),
        vec![0x84, 0, 0, 25],
        c.clone(),
        vec![0xc4],
        c.clone(),
        // Chunk stream 64 + 7 in two bytes, 64 + 1 + 256 * 2 in three.
        [
            vec![0x00, 7],
            head0(0, 5, 2, 18, 1)[1..].to_vec(),
            vec![9, 9],
        ]
        .concat(),
        [vec![0x01, 1, 2], head0(0, 6, 0, 18, 1)[1..].to_vec()].concat(),
        head0(5, 0xff_ffff, 200, 9, 7),
        b[..128].to_vec(),
        [vec![0xc5], 0xff_ffffu32.to_be_bytes().to_vec()].concat(),
        b[128..].to_vec(),
    ];
    let expected = vec![
        message(9, 1, 2000, &b),
        message(8, 1, 1000, &a),
        message(8, 1, 1023, &c),
        message(8, 1, 1048, &c),
        message(8, 1, 1073, &c),
        message(18, 1, 5, &[9, 9]),
        message(18, 1, 6, &[]),
        message(9, 7, 0xff_ffff, &b),
    ];
    (bytes.concat(), expected)
}

#[test]
fn messages_come_out_the_same_however_the_bytes_are_split() {
    let (bytes, expected) = rich_stream();
    for step in 1..=bytes.len() {
        let got = read_in_steps(&mut reader(), &bytes, step).unwrap();
        assert_eq!(got, expected, "step {step}");
    }
    for cut in 1..bytes.len() {
        let mut reader = reader();
        let mut got = read_in_steps(&mut reader, &bytes[..cut], usize::MAX).unwrap();
        got.extend(read_in_steps(&mut reader, &bytes[cut..], usize::MAX).unwrap());
        assert_eq!(got, expected, "cut at {cut}");
        assert_eq!(reader.received(), bytes.len() as u64);
        assert_eq!(reader.pending, 0);
    }
}

#[test]
fn extended_timestamps_are_read_with_and_without_repetition() {
    let payload = body(300, 9);
    for timestamp in [
        0xff_fffe,
        0xff_ffff,
        0x100_0000,
        0x100_0001,
        u32::MAX - 1,
        u32::MAX,
    ] {
        for repeated in [true, false] {
            let again = match repeated && timestamp >= 0xff_ffff {
                true => timestamp.to_be_bytes().to_vec(),
                false => Vec::new(),
            };
            let bytes = [
                head0(6, timestamp, 300, 9, 1),
                payload[..128].to_vec(),
                [&[0xc6], &again[..]].concat(),
                payload[128..256].to_vec(),
                [&[0xc6], &again[..]].concat(),
                payload[256..].to_vec(),
                head1(6, 40, 1, 9),
                vec![7],
            ]
            .concat();
            let expected = [
                message(9, 1, timestamp, &payload),
                message(9, 1, timestamp.wrapping_add(40), &[7]),
            ];
            for step in [1, 3, usize::MAX] {
                let got = read_in_steps(&mut reader(), &bytes, step).unwrap();
                assert_eq!(
                    got, expected,
                    "{timestamp:#x} repeated {repeated} step {step}"
                );
            }
        }
    }
}

#[test]
fn an_extended_delta_is_added_and_may_be_repeated_as_delta_or_as_time() {
    let payload = body(130, 9);
    let delta = 0x100_0000u32;
    for again in [delta, delta + 5] {
        let bytes = [
            head0(6, 5, 1, 9, 1),
            vec![1],
            head1(6, delta, 130, 9),
            payload[..128].to_vec(),
            [&[0xc6], &again.to_be_bytes()[..]].concat(),
            payload[128..].to_vec(),
        ]
        .concat();
        assert_eq!(read(&bytes).unwrap()[1], message(9, 1, delta + 5, &payload));
    }
}

#[test]
fn a_bare_header_after_a_full_one_repeats_its_time_as_delta() {
    let bytes = [head0(4, 23, 1, 8, 1), vec![1, 0xc4, 2, 0xc4, 3]].concat();
    let times: Vec<_> = read(&bytes).unwrap().iter().map(|m| m.timestamp).collect();
    assert_eq!(times, [23, 46, 69]);
}

#[test]
fn a_delta_header_opens_a_chunk_stream_but_a_shorter_one_does_not() {
    let bytes = [head1(2, 7, 1, 4), vec![1]].concat();
    assert_eq!(read(&bytes).unwrap(), [message(4, 0, 7, &[1])]);
    for format in [2u8, 3] {
        assert_eq!(
            read(&[format << 6 | 5, 0, 0, 0]),
            Err(Error::NoHeader {
                chunk_stream: 5,
                format
            })
        );
    }
}

#[test]
fn a_full_header_on_every_chunk_of_a_message_is_tolerated() {
    let payload = body(200, 4);
    let bytes = [
        head0(6, 9, 200, 9, 1),
        payload[..128].to_vec(),
        head0(6, 9, 200, 9, 1),
        payload[128..].to_vec(),
    ];
    assert_eq!(read(&bytes.concat()).unwrap(), [message(9, 1, 9, &payload)]);
}

#[test]
fn a_message_begun_inside_another_is_an_error() {
    let bytes = [head0(6, 9, 200, 9, 1), body(128, 0), head0(6, 9, 100, 8, 1)].concat();
    assert_eq!(
        read(&bytes),
        Err(Error::HeaderInsideMessage {
            chunk_stream: 6,
            bytes: 100,
            type_id: 8,
            unfinished: 200,
            unfinished_type: 9
        })
    );
}

#[test]
fn lengths_over_the_limits_are_refused_at_the_header() {
    for (type_id, length, limit) in [
        (9, (8 << 20) + 1, 8 << 20),
        (8, 0xff_ffff, 8 << 20),
        (22, 0xff_ffff, 8 << 20),
        (20, (64 << 10) + 1, 64 << 10),
        (17, 0xff_ffff, 64 << 10),
        (18, 0xff_ffff, 64 << 10),
        (1, 0xff_ffff, 64 << 10),
        (99, 0xff_ffff, 64 << 10),
    ] {
        let error = read(&head0(3, 0, length, type_id, 0)).unwrap_err();
        assert_eq!(
            error,
            Error::MessageTooLong {
                type_id,
                bytes: length,
                limit
            }
        );
        assert_eq!(error.reason(), Reason::TooLarge);
    }
}

#[test]
fn a_lying_length_reserves_no_more_than_twice_what_arrived() {
    let mut reader = reader();
    let mut sent = 0;
    for id in 3..63 {
        let bytes = [head0(id, 0, 8 << 20, 9, 1), body(128, 0)].concat();
        sent += 128;
        assert_eq!(read_in_steps(&mut reader, &bytes, usize::MAX), Ok(vec![]));
    }
    assert!(reader.pending <= 2 * sent, "{} for {sent}", reader.pending);
    assert!(reader.buffer.capacity() <= 2 * LARGEST_BLOCK);
}

#[test]
fn a_lying_length_in_one_chunk_keeps_the_buffer_near_what_arrived() {
    let mut reader = reader();
    let mut bytes = control_message(kind::SET_CHUNK_SIZE, 0x7fff_ffff);
    bytes.extend(head0(6, 0, 8 << 20, 9, 1));
    bytes.extend(body(100_000, 0));
    read_in_steps(&mut reader, &bytes, 1000).unwrap();
    assert!(reader.buffer.capacity() <= 3 * 100_000);
}

#[test]
fn unfinished_messages_are_bounded_in_total() {
    let limits = Limits {
        pending_bytes: 1 << 20,
        ..Limits::default()
    };
    let mut reader = Reader::new(limits);
    let mut result = Ok(vec![]);
    'all: for round in 0..10_000 {
        for id in 3..43 {
            let head = match round {
                0 => head0(id, 0, 8 << 20, 9, 1),
                _ => vec![0xc0 | id],
            };
            result = read_in_steps(&mut reader, &[head, body(128, 0)].concat(), usize::MAX);
            if result.is_err() {
                break 'all;
            }
        }
    }
    assert!(
        matches!(
            result,
            Err(Error::PendingTooLong {
                limit: 0x10_0000,
                ..
            })
        ),
        "{result:?}"
    );
}

#[test]
fn the_number_of_chunk_streams_is_bounded() {
    let mut bytes = Vec::new();
    for id in 0..=u16::MAX {
        bytes.push(1);
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&head0(0, 0, 0, 9, 1)[1..]);
    }
    let mut reader = reader();
    assert_eq!(
        read_in_steps(&mut reader, &bytes, 4096),
        Err(Error::TooManyChunkStreams { limit: 64 })
    );
    assert_eq!(reader.streams.len(), 64);
}

#[test]
fn an_abort_gives_up_one_unfinished_message() {
    let bytes = [
        head0(4, 0, 200, 8, 1),
        body(128, 0),
        head0(6, 0, 200, 9, 1),
        body(128, 1),
        control_message(kind::ABORT, 4),
        control_message(kind::ABORT, 99),
        [vec![0xc6], body(72, 2)].concat(),
        head0(4, 7, 1, 8, 1),
        vec![5],
    ]
    .concat();
    let mut reader = reader();
    let got = read_in_steps(&mut reader, &bytes, usize::MAX).unwrap();
    let times: Vec<_> = got
        .iter()
        .map(|m| (m.type_id, m.timestamp, m.payload.len()))
        .collect();
    assert_eq!(times, [(9, 0, 200), (8, 7, 1)]);
    assert_eq!(reader.pending, 0);
}

#[test]
fn the_peers_chunk_size_holds_from_the_next_chunk_on() {
    let payload = body(300, 1);
    let bytes = [
        head0(6, 0, 300, 9, 1),
        payload[..128].to_vec(),
        control_message(kind::SET_CHUNK_SIZE, 172),
        [vec![0xc6], payload[128..].to_vec()].concat(),
    ];
    assert_eq!(read(&bytes.concat()).unwrap(), [message(9, 1, 0, &payload)]);
    for size in [0, 0x8000_0000, u32::MAX] {
        let error = read(&control_message(kind::SET_CHUNK_SIZE, size));
        assert_eq!(error, Err(Error::ChunkSize(size)));
    }
    let short = [head0(2, 0, 2, 1, 0), vec![0, 0]].concat();
    assert_eq!(
        read(&short),
        Err(Error::ShortControl {
            type_id: 1,
            bytes: 2
        })
    );
}

#[test]
fn chunks_of_one_byte_still_make_a_message() {
    let mut bytes = control_message(kind::SET_CHUNK_SIZE, 1);
    bytes.extend(head0(6, 3, 500, 9, 1));
    let payload = body(500, 6);
    for (i, byte) in payload.iter().enumerate() {
        if i > 0 {
            bytes.push(0xc6);
        }
        bytes.push(*byte);
    }
    assert_eq!(read(&bytes).unwrap(), [message(9, 1, 3, &payload)]);
}

#[test]
fn acknowledgements_are_cumulative_and_due_at_half_the_window() {
    let mut reader = reader();
    reader
        .buffer()
        .extend_from_slice(&control_message(kind::WINDOW_ACKNOWLEDGEMENT_SIZE, 2000));
    assert_eq!(reader.next(), Ok(None));
    assert_eq!(reader.acknowledgement(), None);
    let mut sent = 16;
    let mut counts = Vec::new();
    for _ in 0..8 {
        // 12 bytes of header and 288 of payload in chunks of up to 128: two type 3 headers.
        let payload = body(288, 0);
        let bytes = [
            head0(4, 0, 288, 8, 1),
            payload[..128].to_vec(),
            vec![0xc4],
            payload[128..256].to_vec(),
            vec![0xc4],
            payload[256..].to_vec(),
        ];
        read_in_steps(&mut reader, &bytes.concat(), usize::MAX).unwrap();
        sent += 302;
        if let Some(count) = reader.acknowledgement() {
            assert_eq!(count, sent);
            counts.push(count);
        }
    }
    // Due when 1000 more have come: 16 + 4 * 302 = 1224, then 1224 + 4 * 302 = 2432.
    assert_eq!(counts, [1224, 2432]);
    reader.consumed += u64::from(u32::MAX);
    assert_eq!(
        reader.acknowledgement(),
        Some(2431),
        "the count wraps at 2^32"
    );
}

fn tag(type_id: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let size = (payload.len() as u32).to_be_bytes();
    let time = timestamp.to_be_bytes();
    let back = (payload.len() as u32 + 11).to_be_bytes();
    [
        &[type_id][..],
        &size[1..],
        &time[1..],
        &time[..1],
        &[0, 0, 0],
        payload,
        &back,
    ]
    .concat()
}

#[test]
fn an_aggregate_is_handed_out_as_its_messages_at_its_own_time() {
    let mut tags = [
        tag(8, 500, b"a"),
        tag(9, 0x100_0000, b"bc"),
        tag(18, 490, b""),
    ]
    .concat();
    for end in [tags.len(), tags.len() - BACK_POINTER] {
        tags.truncate(end);
        let bytes = [head0(4, 9000, tags.len(), 22, 3), tags.clone()].concat();
        let expected = [
            message(8, 3, 9000, b"a"),
            message(9, 3, 0x100_0000 + 8500, b"bc"),
            message(18, 3, 8990, b""),
        ];
        assert_eq!(read(&bytes).unwrap(), expected);
    }
}
const BACK_POINTER: usize = 4;

#[test]
fn broken_aggregates_are_refused() {
    let whole = tag(9, 0, b"abc");
    for (tags, expected) in [
        (
            whole[..5].to_vec(),
            Error::ShortAggregate {
                needed: 11,
                left: 5,
            },
        ),
        (
            whole[..12].to_vec(),
            Error::ShortAggregate { needed: 3, left: 1 },
        ),
        (tag(22, 0, &whole), Error::AggregateTag(22)),
        (tag(20, 0, b"x"), Error::AggregateTag(20)),
        (tag(1, 0, &[0, 0, 0, 1]), Error::AggregateTag(1)),
    ] {
        let bytes = [head0(4, 0, tags.len(), 22, 1), tags].concat();
        assert_eq!(read(&bytes), Err(expected));
    }
}

#[test]
fn a_message_that_arrived_whole_is_not_copied() {
    let mut reader = reader();
    let framed = Framed::new(9, 0, 1, body(100, 1).into());
    framed.write_to(reader.buffer());
    let place = reader.buffer.as_ptr_range();
    let message = reader.next().unwrap().unwrap();
    assert!(place.contains(&message.payload.as_ptr()));
}

#[test]
fn room_for_reading_grows_only_for_peers_that_fill_it() {
    let mut quiet = reader();
    for _ in 0..5000 {
        read_in_steps(&mut quiet, &control_message(3, 0), usize::MAX).unwrap();
    }
    assert_eq!(quiet.block, SMALLEST_BLOCK);
    let mut busy = reader();
    for _ in 0..100 {
        let room = busy.buffer().capacity() - busy.buffer.len();
        busy.buffer.extend_from_slice(&vec![0; room]);
        busy.buffer.clear();
        busy.consumed += room as u64;
    }
    assert_eq!(busy.block, LARGEST_BLOCK);
}

#[test]
fn an_unfinished_picture_grows_with_every_byte_of_it_and_with_no_other() {
    let payload = body(300, 1);
    let chunks = [
        head0(6, 0, 300, kind::VIDEO, 3),
        payload[..128].to_vec(),
        vec![0xc6],
        payload[128..256].to_vec(),
        vec![0xc6],
        payload[256..].to_vec(),
    ]
    .concat();
    let mut reader = reader();
    for (at, byte) in chunks.iter().enumerate() {
        // Of the bytes so far, 12 are the first header, and one at 140 and one at 269 are the others.
        let headers = 12 + usize::from(at > 140) + usize::from(at > 269);
        let arrived = at.saturating_sub(headers);
        assert_eq!(reader.unfinished_media(3), arrived, "after {at} bytes");
        assert_eq!(reader.unfinished_media(1), 0, "another message stream");
        reader.buffer().extend_from_slice(&[*byte]);
        let done = reader.next().unwrap().is_some();
        assert_eq!(done, at == chunks.len() - 1);
    }
    assert_eq!(reader.unfinished_media(3), 0);
    let command = [head0(3, 0, 100, kind::COMMAND, 3), vec![0; 50]].concat();
    reader.buffer().extend_from_slice(&command);
    assert_eq!(reader.next(), Ok(None));
    assert_eq!(reader.unfinished_media(3), 0, "a command is no media");
}
