//! The cost of handing messages to many players over loopback TCP: ring, writer loops, sockets.
//!
//! Each iteration publishes pictures and waits until every player has read the last byte. The players read on the same
//! machine, so half of what is measured is theirs; compare runs, not absolute numbers.
//!
//! | case | what it is about |
//! |---|---|
//! | followers | viewers over RTMP, all at the loop's cursor: one plain write for each |
//! | followers, HTTP-FLV | the same in chunks of HTTP |
//! | followers, ten at once | a batch of ten pictures, which is what a merge window makes of them |
//! | stragglers | peers: every message is weighed for each of them, and each has a queue of its own |

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use linkmic::auth::{self, Access, Policy};
use linkmic::ingest::{self, Ingest};
use linkmic::media::{Class, Kind, MediaTime, Message, StreamKey};
use linkmic::metrics::Metrics;
use linkmic::playback::{self, Playback};
use linkmic::relay::{self, Framing, Item, Origin, Query, Relay};
use linkmic::rtmp::session::client::{Event, Session};
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{chunk, handshake, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
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

/// Who plays, and how many pictures come at once.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    door: Door,
    class: Class,
    players: u64,
    pictures: i64,
}

#[derive(Clone, Copy, PartialEq)]
enum Door {
    Rtmp,
    Http,
}

const FOLLOWERS: Case = Case {
    name: "followers",
    door: Door::Rtmp,
    class: Class::Viewer,
    players: 100,
    pictures: 1,
};

const CASES: [Case; 6] = [
    Case {
        players: 1,
        ..FOLLOWERS
    },
    FOLLOWERS,
    Case {
        players: 500,
        ..FOLLOWERS
    },
    Case {
        name: "followers, HTTP-FLV",
        door: Door::Http,
        ..FOLLOWERS
    },
    Case {
        name: "followers, ten at once",
        pictures: 10,
        ..FOLLOWERS
    },
    Case {
        name: "stragglers",
        class: Class::LowLatency,
        ..FOLLOWERS
    },
];

/// A player that counts the bytes that it reads once it has all that was published before it came.
async fn play(address: SocketAddr, case: Case, joined: Arc<AtomicU64>, read: Arc<AtomicU64>) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    match case.door {
        Door::Rtmp => join_rtmp(&mut socket, case.class).await,
        Door::Http => join_http(&mut socket).await,
    }
    joined.fetch_add(1, Ordering::Release);
    let mut sink = vec![0; 64 << 10];
    while let Ok(n @ 1..) = socket.read(&mut sink).await {
        read.fetch_add(n as u64, Ordering::Release);
    }
}

async fn join_rtmp(socket: &mut TcpStream, class: Class) {
    let feed = match class {
        Class::Viewer => "",
        Class::LowLatency => "?feed=source",
    };
    let target = Target::parse(&format!("rtmp://bench/live/bench{feed}")).unwrap();
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
    loop {
        socket.write_all(&session.output()).await.unwrap();
        socket.read_buf(reader.buffer()).await.unwrap();
        while let Some(message) = reader.next().unwrap() {
            let video = message.type_id == kind::VIDEO;
            let event = session.handle(message).unwrap();
            if video && matches!(event, Some(Event::Media(_))) {
                return;
            }
        }
    }
}

async fn join_http(socket: &mut TcpStream) {
    let request = b"GET /live/bench.flv HTTP/1.1\r\nHost: bench\r\n\r\n";
    socket.write_all(request).await.unwrap();
    // The only picture there is ends what is sent: with all of its zeros, its size, and the chunk's end.
    let mut got = BytesMut::new();
    let end = [&(11 + FRAME_BYTES as u32).to_be_bytes()[..], b"\r\n"].concat();
    while !got.ends_with(&end) {
        socket.read_buf(&mut got).await.unwrap();
    }
}

/// A server's doors and its relay.
struct Place {
    relay: Relay,
    rtmp: SocketAddr,
    http: SocketAddr,
    shutdown: CancellationToken,
}

impl Place {
    fn open(runtime: &Runtime) -> Self {
        let _inside = runtime.enter();
        let relay = Relay::new(relay::Config::default());
        let metrics = Metrics::new();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let mut config = playback::Config::default();
        config.low_latency.readers_per_name = 0;
        let playback = Playback::new(
            relay.clone(),
            config,
            metrics.clone(),
            tasks.clone(),
            shutdown.clone(),
        );
        let policy = Arc::new(Policy::new(auth::Config {
            push: Access::Open,
            peer: Access::Open,
            ..auth::Config::default()
        }));
        let (elsewhere, _) = mpsc::channel(1);
        let http = playback::Http::new(
            playback.clone(),
            playback::HttpConfig::default(),
            policy.clone(),
            metrics.clone(),
            tasks.clone(),
            shutdown.clone(),
            elsewhere,
        );
        let ingest = Ingest::new(
            ingest::Config::default(),
            relay.clone(),
            policy,
            Arc::new(playback),
            metrics,
            tasks,
            shutdown.clone(),
        );
        let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (rtmp, web) = (bind(), bind());
        let place = Self {
            relay,
            rtmp: rtmp.local_addr().unwrap(),
            http: web.local_addr().unwrap(),
            shutdown,
        };
        runtime.spawn(ingest.serve(rtmp, Default::default()));
        runtime.spawn(http.serve(web, Default::default()));
        place
    }
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    group
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30);
    for case in CASES {
        let runtime = Runtime::new().unwrap();
        let place = Place::open(&runtime);
        let key = StreamKey::new("live", "bench").unwrap();
        let origin = Origin::Anchor {
            connection: linkmic::logging::ConnectionId::next(),
            address: place.rtmp,
            key_id: None,
            query: Query::default(),
        };
        let publisher = place.relay.publish(&key, origin).unwrap();
        publisher.publish(frame(0, 0x17), Instant::now());
        let (joined, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let address = match case.door {
            Door::Rtmp => place.rtmp,
            Door::Http => place.http,
        };
        for _ in 0..case.players {
            runtime.spawn(play(address, case, joined.clone(), read.clone()));
        }
        while joined.load(Ordering::Acquire) < case.players {
            std::thread::yield_now();
        }

        let framing = match case.door {
            Door::Rtmp => Framing::RTMP,
            Door::Http => Framing::Flv,
        };
        let wire = Item::new(Arc::new(frame(0, 0x27)), None).len_in(framing) as u64;
        let bytes = case.players * wire * case.pictures as u64;
        group.throughput(Throughput::Bytes(bytes));
        let mut dts = 0;
        group.bench_function(BenchmarkId::new(case.name, case.players), |b| {
            b.iter(|| {
                let upto = read.load(Ordering::Acquire) + bytes;
                for _ in 0..case.pictures {
                    dts += 1;
                    publisher.publish(frame(dts, 0x27), Instant::now());
                }
                while read.load(Ordering::Acquire) < upto {
                    std::thread::yield_now();
                }
            });
        });
        place.shutdown.cancel();
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
