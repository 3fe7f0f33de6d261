//! The cost of reading chunks and of encoding once, in bytes of payload per second.
//!
//! The streams are what anchors send: 40 video messages of 20 KB and 43 audio messages of 300 bytes, in the chunk
//! sizes of librtmp (128), OBS (4096), and of ffmpeg when it mirrors ours (65536), read in parts of 16 KiB.

use std::hint::black_box;
use std::io::IoSlice;

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use linkmic::rtmp::{Framed, MEDIA_STREAM_ID, chunk, kind};

const READ_BYTES: usize = 16 * 1024;

/// About one second of a stream: type and payload of each message.
fn second() -> Vec<(u8, Bytes)> {
    let mut messages = Vec::new();
    for index in 0..43 {
        messages.push((kind::AUDIO, Bytes::from(vec![index as u8; 300])));
        if index < 40 {
            messages.push((kind::VIDEO, Bytes::from(vec![index as u8; 20_000])));
        }
    }
    messages
}

/// The second in chunks of `size`, each message with a full header.
fn wire(messages: &[(u8, Bytes)], size: usize) -> BytesMut {
    let mut out = BytesMut::new();
    for (type_id, payload) in messages {
        let chunk_stream = if *type_id == kind::AUDIO { 4 } else { 6 };
        out.put_u8(chunk_stream);
        out.put_uint(40, 3);
        out.put_uint(payload.len() as u64, 3);
        out.put_u8(*type_id);
        out.put_u32_le(MEDIA_STREAM_ID);
        for (index, part) in payload.chunks(size).enumerate() {
            if index > 0 {
                out.put_u8(0xc0 | chunk_stream);
            }
            out.put_slice(part);
        }
    }
    out
}

fn reading(criterion: &mut Criterion) {
    let messages = second();
    let payload: usize = messages.iter().map(|(_, payload)| payload.len()).sum();
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(payload as u64));
    for size in [128, 4096, 65536] {
        let wire = wire(&messages, size);
        let mut reader = chunk::Reader::new(chunk::Limits::default());
        let announce = [2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
        reader.buffer().put_slice(&announce);
        reader.buffer().put_u32(size as u32);
        assert_eq!(reader.next(), Ok(None));
        group.bench_function(format!("chunks of {size}"), |bencher| {
            bencher.iter(|| {
                let mut count = 0;
                for part in wire.chunks(READ_BYTES) {
                    reader.buffer().put_slice(part);
                    while let Some(message) = reader.next().expect("well-formed input") {
                        black_box(&message);
                        count += 1;
                    }
                }
                assert_eq!(count, messages.len());
            });
        });
    }
    group.finish();
}

/// What it costs that a ring's payloads are copied out of the read blocks, as ingest does: two seconds of messages are
/// kept, as in a ring, first as slices of the blocks that they came in, then each in memory of its own.
fn keeping(criterion: &mut Criterion) {
    let messages = second();
    let wire = wire(&messages, 65536);
    let mut group = criterion.benchmark_group("keep");
    group.throughput(Throughput::Elements(messages.len() as u64));
    for (name, copies) in [("slices", false), ("copies", true)] {
        let mut reader = chunk::Reader::new(chunk::Limits::default());
        reader
            .buffer()
            .put_slice(&[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]);
        reader.buffer().put_u32(65536);
        assert_eq!(reader.next(), Ok(None));
        let mut ring = std::collections::VecDeque::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for part in wire.chunks(READ_BYTES) {
                    reader.buffer().put_slice(part);
                    while let Some(message) = reader.next().expect("well-formed input") {
                        let kept = match copies && !message.payload.is_unique() {
                            true => Bytes::copy_from_slice(&message.payload),
                            false => message.payload,
                        };
                        ring.push_back(kept);
                        if ring.len() > 2 * messages.len() {
                            ring.pop_front();
                        }
                    }
                }
            });
        });
    }
    group.finish();
}

fn framing(criterion: &mut Criterion) {
    let messages = second();
    let payload: usize = messages.iter().map(|(_, payload)| payload.len()).sum();
    let mut group = criterion.benchmark_group("write");
    group.throughput(Throughput::Elements(messages.len() as u64));
    group.bench_function("frame a message", |bencher| {
        bencher.iter(|| {
            for (type_id, payload) in &messages {
                black_box(Framed::new(*type_id, 40, MEDIA_STREAM_ID, payload.clone()));
            }
        });
    });
    let framed: Vec<Framed> = messages
        .iter()
        .map(|(type_id, payload)| Framed::new(*type_id, 40, MEDIA_STREAM_ID, payload.clone()))
        .collect();
    group.bench_function("slices of a message", |bencher| {
        bencher.iter(|| {
            let mut slices: Vec<IoSlice> = Vec::with_capacity(2 * framed.len());
            for message in &framed {
                message.append_slices(0, &mut slices);
            }
            black_box(slices.len())
        });
    });
    group.throughput(Throughput::Bytes(payload as u64));
    group.bench_function("copy into one buffer", |bencher| {
        let mut out = BytesMut::with_capacity(2 * payload);
        bencher.iter(|| {
            out.clear();
            for message in &framed {
                message.write_to(&mut out);
            }
            black_box(out.len())
        });
    });
    group.finish();
}

criterion_group!(benches, reading, keeping, framing);
criterion_main!(benches);
