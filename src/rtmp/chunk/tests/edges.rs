//! Counts that wrap, and chunk stream ids at the ends of each form.

use super::*;

#[test]
fn acknowledgements_wrap_at_32_bits() {
    let mut reader = reader();
    reader
        .buffer()
        .extend_from_slice(&control_message(kind::WINDOW_ACKNOWLEDGEMENT_SIZE, 200));
    assert_eq!(reader.next(), Ok(None));
    // As if 4 GiB less 100 bytes had gone before.
    reader.consumed = (1 << 32) - 100;
    assert_eq!(reader.acknowledgement(), Some(u32::MAX - 99));
    // 12 + 87 bytes: one short of half the window.
    let bytes = [head0(4, 0, 87, 8, 1), body(87, 0)].concat();
    read_in_steps(&mut reader, &bytes, usize::MAX).unwrap();
    assert_eq!(reader.acknowledgement(), None);
    read_in_steps(&mut reader, &bytes, usize::MAX).unwrap();
    assert_eq!(reader.acknowledgement(), Some(98));
    assert_eq!(reader.received(), (1 << 32) + 98);
}

#[test]
fn chunk_stream_ids_of_every_width_are_told_apart() {
    let ids: [(u32, Vec<u8>); 7] = [
        (3, vec![3]),
        (63, vec![63]),
        (64, vec![0, 0]),
        (319, vec![0, 255]),
        // The middle one can be written in either form.
        (64 + 7, vec![1, 7, 0]),
        (320, vec![1, 0, 1]),
        (65_599, vec![1, 255, 255]),
    ];
    let mut bytes = Vec::new();
    // All messages are begun before any is finished.
    for (n, (_, basic)) in ids.iter().enumerate() {
        bytes.extend(basic);
        bytes.extend(&head0(0, n as u32, 130, 8, 1)[1..]);
        bytes.extend(body(128, n as u8));
    }
    for (n, (_, basic)) in ids.iter().enumerate() {
        bytes.push(basic[0] | 0xc0);
        bytes.extend(&basic[1..]);
        bytes.extend([n as u8; 2]);
    }
    for step in [1, 5, 4096] {
        let mut reader = reader();
        let got = read_in_steps(&mut reader, &bytes, step).unwrap();
        for (n, message) in got.iter().enumerate() {
            assert_eq!(message.timestamp, n as u32);
            assert_eq!(message.payload[..128], body(128, n as u8));
            assert_eq!(message.payload[128..], [n as u8; 2]);
        }
        let seen: Vec<_> = reader.streams.iter().map(|stream| stream.id).collect();
        assert_eq!(seen, ids.each_ref().map(|(id, _)| *id));
    }
    // Stream 71 in its two-byte form is the same stream.
    let mut reader = reader();
    read_in_steps(&mut reader, &bytes, 4096).unwrap();
    let again = [vec![0xc0, 7], body(128, 4), vec![0xc1, 7, 0], vec![4; 2]].concat();
    assert_eq!(read_in_steps(&mut reader, &again, 4096).unwrap().len(), 1);
}
