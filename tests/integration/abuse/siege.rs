//! Everything that strangers do, at once and for a minute, beside players who must not notice.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use linkmic::rtmp::kind;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::binary::{Binary, WorkingSize};
use super::healthy::Healthy;
use super::hostile::{AT_ONCE_LIMIT, Offence};
use super::raw::{self, Raw};
use super::silent::{LIMIT, Stage};
use crate::edge::client::Client;
use crate::edge::clip::clip;
use crate::edge::house::Urls;

/// How long the siege lasts after the warm-up.
const TIME: Duration = Duration::from_secs(60);
/// Part of the warm-up: a siege by [`CROWD`].
const WARM_UP: Duration = Duration::from_secs(8);
/// How many times as many strangers as the siege has take part in the warm-up, so that no coincidence of the siege asks
/// for more at a time than was there before.
const CROWD: usize = 2;
/// How long the players are looked at alone.
const CALM: Duration = Duration::from_secs(4);
/// Requests for absent streams a second.
const ABSENT_RATE: u32 = 1_000;
/// Such requests at a time, at most: a machine that cannot keep the rate does not run out of ports.
const ABSENT_AT_ONCE: usize = 150;
/// Players beside it all.
const PLAYERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_of_every_abuse_at_once_leaves_memory_tasks_and_players_alone() {
    let limits = "[limits]\nwait = \"100ms\"\nhandshake = \"5s\"";
    let mut server = Binary::serve(limits).await;
    let healthy = Healthy::start_with(&server.urls, PLAYERS).await;
    sleep(CALM).await;
    let calm = healthy.latencies(Instant::now() - CALM);

    let urls = server.urls();
    let before = warm_up(&mut server, &healthy).await;
    let tasks = server.settled_tasks().await;
    let series = server.series().await;

    let begin = Instant::now();
    let siege = Siege::begin(&urls, server.http, 1);
    let mut most = (0, 0.0_f64);
    let mut tick = interval(Duration::from_secs(1));
    while begin.elapsed() < TIME {
        tick.tick().await;
        let now = server.metrics().await;
        most = (
            most.0.max(server.resident()),
            most.1.max(now.value("linkmic_runtime_tasks")),
        );
    }
    let siege = siege.end_after(Duration::ZERO).await;
    let stormy = healthy.latencies(begin);
    println!("siege: {siege}");
    // Not asserted: attackers and players share threads here, and all share the processors with the server.
    for (when, all) in [("alone", &calm), ("under siege", &stormy)] {
        let [p50, p99] = [50, 99].map(|p| all.percentile(p).unwrap_or_default());
        println!(
            "players {when}: p50 {p50:.1?}, p99 {p99:.1?}, {} frames",
            all.len()
        );
    }
    println!(
        "under siege: at most {:+} KiB and {:+} tasks",
        (most.0 as i64 - before as i64) / 1024,
        most.1 - tasks
    );

    server.wait_for_connections(healthy.connections()).await;
    server.assert_flat(before, "after the siege").await;
    assert_eq!(server.settled_tasks().await, tasks, "tasks");
    assert_eq!(server.series().await, series, "metric series");
    healthy.assert_nothing_missed().await;

    server.wait_for_connections(0).await;
    let ends = server.ends().await;
    println!("{ends:?}");
    let accepted = server
        .metrics()
        .await
        .value("linkmic_ingest_connections_total");
    let ended: u64 = ends.iter().map(|(_, count)| count).sum();
    assert_eq!(
        ended as f64, accepted,
        "each connection ended with a reason"
    );
    assert!(
        ends.iter().all(|(reason, _)| reason != "internal"),
        "{ends:?}"
    );
    assert!(!server.said().contains("panicked"), "{}", server.said());
    server.assert_alive();
}

/// Sieges until they leave nothing more behind; how much is resident then, in bytes.
async fn warm_up(server: &mut Binary, healthy: &Healthy) -> u64 {
    let mut size = WorkingSize::of(server);
    loop {
        let siege = Siege::begin(&server.urls(), server.http, CROWD);
        println!("warm-up: {}", siege.end_after(WARM_UP).await);
        server.wait_for_connections(healthy.connections()).await;
        server.settled_tasks().await;
        if let Some(size) = size.after_a_round(server) {
            return size;
        }
    }
}

/// All offenders, until [`Siege::end_after`].
struct Siege {
    stop: Arc<AtomicBool>,
    offenders: JoinSet<(String, u32)>,
}

impl Siege {
    /// By so many of each kind of offender.
    fn begin(urls: &Arc<Urls>, http: SocketAddr, crowd: usize) -> Self {
        let mut siege = Self {
            stop: Arc::default(),
            offenders: JoinSet::new(),
        };
        for _ in 0..crowd {
            siege.add_one_of_each(urls, http);
        }
        siege
    }

    fn add_one_of_each(&mut self, urls: &Arc<Urls>, http: SocketAddr) {
        let absent = ask_for_absent(urls.clone(), self.stop.clone());
        self.offenders
            .spawn(async move { ("absent streams".to_owned(), absent.await) });
        for stage in Stage::ALL {
            self.repeat(
                format!("silence, {stage:?}"),
                urls,
                move |urls| async move {
                    let Some(mut raw) = stage.reach(urls.rtmp()).await else {
                        return;
                    };
                    assert_closed(&mut raw, LIMIT, format!("{stage:?}")).await;
                },
            );
        }
        self.repeat("dripping".into(), urls, drip);
        for offence in [
            Offence::DeepCommand,
            Offence::HugeCommand,
            Offence::ManyChunkStreams,
            Offence::LyingLength,
            Offence::LyingAggregate,
        ] {
            self.repeat(format!("{offence:?}"), urls, move |urls| async move {
                if let Some(mut raw) = offence.commit(&urls, 0).await {
                    assert_closed(&mut raw, AT_ONCE_LIMIT, format!("{offence:?}")).await;
                }
                sleep(Duration::from_millis(20)).await;
            });
        }
        for (what, bytes) in [
            ("16 MB of AMF", raw::sixteen_megabytes()),
            ("64k chunk streams", raw::every_chunk_stream()),
        ] {
            let bytes = Arc::new(bytes);
            self.repeat(what.into(), urls, move |urls| {
                let bytes = bytes.clone();
                async move {
                    let mut raw = Raw::connected(urls.rtmp()).await;
                    raw.send(&bytes).await;
                    assert_closed(&mut raw, AT_ONCE_LIMIT, what.into()).await;
                    sleep(Duration::from_millis(200)).await;
                }
            });
        }
        self.repeat("garbage video".into(), urls, publish_garbage);
        self.repeat("acknowledgements of a player".into(), urls, flood_as_player);
        self.repeat("acknowledgements of nobody".into(), urls, flood_as_nobody);
        self.repeat("words of an HTTP player".into(), urls, move |_| {
            flood_over_http(http)
        });
    }

    /// Does something again and again.
    fn repeat<F>(
        &mut self,
        what: String,
        urls: &Arc<Urls>,
        offence: impl Fn(Arc<Urls>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (urls, stop) = (urls.clone(), self.stop.clone());
        self.offenders.spawn(async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                offence(urls.clone()).await;
                count += 1;
            }
            (what, count)
        });
    }

    /// How often each offence was committed. A panic of an offender is one here.
    async fn end_after(mut self, time: Duration) -> String {
        sleep(time).await;
        self.stop.store(true, Ordering::Relaxed);
        let mut counts = BTreeMap::<_, u32>::new();
        while let Some(done) = self.offenders.join_next().await {
            let (what, count) = done.expect("the offender was closed in time");
            assert!(count > 0, "{what}: never");
            *counts.entry(what).or_default() += count;
        }
        let counts = counts
            .iter()
            .map(|(what, count)| format!("{count} × {what}"));
        counts.collect::<Vec<_>>().join(", ")
    }
}

async fn assert_closed(raw: &mut Raw, limit: Duration, what: String) {
    let closed = raw.closed_within(limit).await;
    assert!(closed.is_some(), "{what}: still open after {limit:?}");
}

/// Players for names that nobody publishes.
async fn ask_for_absent(urls: Arc<Urls>, stop: Arc<AtomicBool>) -> u32 {
    let places = Arc::new(Semaphore::new(ABSENT_AT_ONCE));
    let refused = Arc::new(AtomicU32::new(0));
    let mut tick = interval(Duration::from_secs(1) / ABSENT_RATE);
    let mut asking = JoinSet::new();
    let mut number = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let place = places.clone().acquire_owned().await.expect("never closed");
        let (urls, refused) = (urls.clone(), refused.clone());
        number += 1;
        asking.spawn(async move {
            let no = Client::play(&urls.plain(&format!("absent-{number}"))).await;
            assert!(no.is_err(), "a stream that nobody publishes was granted");
            refused.fetch_add(1, Ordering::Relaxed);
            drop(place);
        });
        while let Some(done) = asking.try_join_next() {
            done.expect("refused");
        }
    }
    while let Some(done) = asking.join_next().await {
        done.expect("refused");
    }
    refused.load(Ordering::Relaxed)
}

/// A handshake, and after it a command, one byte at a time.
async fn drip(urls: Arc<Urls>) {
    let begin = Instant::now();
    let mut raw = Raw::connect(urls.rtmp()).await;
    for byte in raw::c0_c1() {
        raw.send(&[byte]).await;
        let closed = raw.closed_within(Duration::from_millis(100)).await;
        if closed.is_some() {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "still open after {LIMIT:?}");
    }
}

/// A publisher with a valid signature whose video is noise, and a player of it. Neither is an offence to RTMP: they
/// may stay, and must cost nobody anything.
async fn publish_garbage(urls: Arc<Urls>) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("noise-{}", NUMBER.fetch_add(1, Ordering::Relaxed) % 4);
    let mut publisher = Client::publish(&urls.push(&name)).await.expect("granted");
    let mut player = Client::play(&urls.plain(&name)).await.expect("granted");
    let reading = tokio::spawn(async move { while player.event().await.is_some() {} });
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    for _ in 0..50 {
        let length = 1 + next() as usize % 3_000;
        let body: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        let kind = if next() % 3 == 0 {
            kind::AUDIO
        } else {
            kind::VIDEO
        };
        publisher.send(kind, next() as u32, body).await;
        sleep(Duration::from_millis(20)).await;
    }
    publisher.unpublish().await;
    reading.await.expect("it ends with the stream");
}

/// 64 KiB of acknowledgements.
fn acknowledgements() -> BytesMut {
    let mut bytes = BytesMut::new();
    while bytes.len() < 64 << 10 {
        bytes.extend_from_slice(&raw::acknowledgement(7));
    }
    bytes
}

async fn flood_as_player(urls: Arc<Urls>) {
    let player = Client::play(&urls.plain("healthy")).await.expect("granted");
    let closed = player.flood(&acknowledgements(), AT_ONCE_LIMIT).await;
    assert!(closed.is_some(), "a player may flood for {AT_ONCE_LIMIT:?}");
    sleep(Duration::from_millis(200)).await;
}

/// A player of HTTP-FLV that goes on talking after its request.
async fn flood_over_http(http: SocketAddr) {
    let mut socket = TcpStream::connect(http).await.expect("it listens");
    let request = b"GET /live/healthy.flv HTTP/1.1\r\nHost: a\r\n\r\n";
    socket.write_all(request).await.expect("it reads");
    let closed = raw::flood(&mut socket, &[b'x'; 64 << 10], AT_ONCE_LIMIT).await;
    assert!(closed.is_some(), "a player may flood for {AT_ONCE_LIMIT:?}");
    sleep(Duration::from_millis(200)).await;
}

/// Before it asks for anything.
async fn flood_as_nobody(urls: Arc<Urls>) {
    let mut raw = Raw::connected(urls.rtmp()).await;
    let begin = Instant::now();
    let bytes = acknowledgements();
    while raw.send_on(&bytes).await {
        assert!(begin.elapsed() < LIMIT, "it may flood for {LIMIT:?}");
        // As fast as it can would take the processor from the players' own side of this test.
        sleep(Duration::from_millis(5)).await;
    }
}
