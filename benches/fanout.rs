//! The cost of handing one message to many players over loopback TCP: ring, writer loops, sockets.
//!
//! Each iteration publishes one video message and waits until every player has read its last byte. The players
//! read on the same machine, so half of what is measured is theirs; compare runs, not absolute numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use linkmic::auth::{self, Access, Policy};
use linkmic::ingest::{self, Ingest};
use linkmic::media::{Kind, MediaTime, Message, StreamKey};
use linkmic::metrics::Metrics;
use linkmic::playback::{self, Playback};
use linkmic::relay::{self, Origin, Query, Relay};
use linkmic::rtmp::session::client::{Event, Session};
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Framed, MEDIA_STREAM_ID, chunk, handshake, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One frame of a 2.4 Mbit/s stream at 30 frames a second.
const FRAME_BYTES: usize = 10_000;

/// A frame without a start code or NAL units: nothing here decodes it.
fn frame(dts: i64, first: u8) -> Message {
    let mut payload = vec![0; FRAME_BYTES];
    payload[..2].copy_from_slice(&[first, 1]);
    Message::new(Kind::Video, MediaTime(dts), Bytes::from(payload))
}

/// A player that counts the bytes that it reads after its first frame.
async fn play(url: String, joined: Arc<AtomicU64>, read: Arc<AtomicU64>) {
    let target = Target::parse(&url).unwrap();
    let mut socket = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .unwrap();
    let (mut shake, hello) = handshake::Client::new();
    socket.write_all(&hello).await.unwrap();
    let mut reader = chunk::Reader::new(chunk::Limits::default());
    let mut bytes = BytesMut::with_capacity(4096);
    loop {
        socket.read_buf(&mut bytes).await.unwrap();
        let progress = shake.receive(&bytes.split()).unwrap();
        socket.write_all(&progress.reply).await.unwrap();
        if let Some(rest) = progress.done {
            reader.buffer().extend_from_slice(&rest);
            break;
        }
    }
    let mut session = Session::play(&target);
    'join: loop {
        socket.write_all(&session.output()).await.unwrap();
        socket.read_buf(reader.buffer()).await.unwrap();
        while let Some(message) = reader.next().unwrap() {
            let video = message.type_id == kind::VIDEO;
            let event = session.handle(message).unwrap();
            if video && matches!(event, Some(Event::Media(_))) {
                break 'join;
            }
        }
    }
    joined.fetch_add(1, Ordering::Release);
    let mut sink = vec![0; 64 << 10];
    while let Ok(n @ 1..) = socket.read(&mut sink).await {
        read.fetch_add(n as u64, Ordering::Release);
    }
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    group
        .measurement_time(Duration::from_secs(5))
        .sample_size(30);
    for players in [1_u64, 10, 100, 500] {
        let runtime = Runtime::new().unwrap();
        let _inside = runtime.enter();
        let relay = Relay::new(relay::Config::default());
        let metrics = Metrics::new();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let playback = Playback::new(
            relay.clone(),
            playback::Config::default(),
            metrics.clone(),
            tasks.clone(),
            shutdown.clone(),
        );
        let open = auth::Config {
            push: Access::Open,
            ..auth::Config::default()
        };
        let ingest = Ingest::new(
            ingest::Config::default(),
            relay.clone(),
            Arc::new(Policy::new(open)),
            Arc::new(playback),
            metrics,
            tasks,
            shutdown.clone(),
        );
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(ingest.serve(listener, Default::default()));

        let key = StreamKey::new("live", "bench").unwrap();
        let origin = Origin::Anchor {
            address,
            key_id: None,
            query: Query::default(),
        };
        let publisher = relay.publish(&key, origin).unwrap();
        publisher.publish(frame(0, 0x17), Instant::now());
        let (joined, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        for _ in 0..players {
            let url = format!("rtmp://{address}/live/bench");
            runtime.spawn(play(url, joined.clone(), read.clone()));
        }
        while joined.load(Ordering::Acquire) < players {
            std::thread::yield_now();
        }

        let wire = Framed::new(kind::VIDEO, 0, MEDIA_STREAM_ID, frame(0, 0x27).payload).len();
        group.throughput(Throughput::Bytes(players * wire as u64));
        let mut dts = 0;
        group.bench_function(BenchmarkId::new("one frame to players", players), |b| {
            b.iter(|| {
                dts += 1;
                let upto = read.load(Ordering::Acquire) + players * wire as u64;
                publisher.publish(frame(dts, 0x27), Instant::now());
                while read.load(Ordering::Acquire) < upto {
                    std::thread::yield_now();
                }
            });
        });
        shutdown.cancel();
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
