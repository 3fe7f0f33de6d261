//! Bytes that make no sense, or too much of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use linkmic::rtmp::kind;

use super::binary::Binary;
use super::healthy::Healthy;
use super::raw::{self, Raw};
use crate::edge::SOON;
use crate::edge::client::{Client, is_frame, is_key_frame};
use crate::edge::clip::{clip, numbered};
use crate::edge::house::Urls;

/// Repeats that let allocators and tables grow to their working size.
const WARM_UP: u32 = 300;
const REPEATS: u32 = 1_000;
/// Rounds of so many that may leave something behind. How much the allocator keeps depends on how many strangers happen to
/// be inside at a time, and some of these do not wait to be closed: on a loaded machine that is more now and then, and was
/// 1.1 MB once in 120,000. A leak shows with every round.
const ROUNDS: u32 = 3;
/// Offenders at a time.
const AT_ONCE: usize = 8;
/// What "at once" is on a busy machine: well under the 10 s after which silence ends a connection.
pub(super) const AT_ONCE_LIMIT: Duration = Duration::from_secs(5);

/// What a stranger does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offence {
    /// An HTTP request.
    GarbageHandshake,
    /// Half of C1, and away.
    HalfHandshake,
    /// A command nested 10,000 deep.
    DeepCommand,
    /// A command of nulls, more than any command has.
    ManyValues,
    /// A string that says it is longer than the message.
    LyingString,
    /// A command of 16 MB, as far as it gets.
    HugeCommand,
    /// Unfinished messages on one chunk stream after the other.
    ManyChunkStreams,
    /// A message of 8 MB of which 100 bytes come, and away.
    LyingLength,
    /// An aggregate whose first tag is longer than the whole.
    LyingAggregate,
    /// A continuation of nothing.
    HeaderlessChunk,
    /// A chunk size of 0.
    ZeroChunkSize,
    /// Video before publish.
    EarlyMedia,
    /// Not an offence: a publisher of a new name that vanishes after its first frame.
    ComesAndGoes,
}

impl Offence {
    const ALL: [Offence; 13] = [
        Offence::GarbageHandshake,
        Offence::HalfHandshake,
        Offence::DeepCommand,
        Offence::ManyValues,
        Offence::LyingString,
        Offence::HugeCommand,
        Offence::ManyChunkStreams,
        Offence::LyingLength,
        Offence::LyingAggregate,
        Offence::HeaderlessChunk,
        Offence::ZeroChunkSize,
        Offence::EarlyMedia,
        Offence::ComesAndGoes,
    ];

    /// Does it once. `Some`: the server is to close this connection at once.
    pub(super) async fn commit(self, urls: &Urls, number: u32) -> Option<Raw> {
        let address = urls.rtmp();
        let (mut raw, bytes) = match self {
            Offence::GarbageHandshake => {
                let raw = Raw::connect(address).await;
                (raw, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice().into())
            }
            Offence::HalfHandshake => {
                let mut raw = Raw::connect(address).await;
                raw.send(&raw::c0_c1()[..700]).await;
                return None;
            }
            Offence::DeepCommand => {
                let body = raw::deep_connect(10_000);
                (shaken(address).await, raw::message(kind::COMMAND, 0, body))
            }
            Offence::ManyValues => {
                let body = vec![5; 60_000];
                (shaken(address).await, raw::message(kind::COMMAND, 0, body))
            }
            Offence::LyingString => {
                let body =
                    b"\x02\x00\x07connect\x00\x3f\xf0\0\0\0\0\0\0\x03\x00\x03app\x02\xff\xffx";
                let body = body.as_slice().to_vec();
                (shaken(address).await, raw::message(kind::COMMAND, 0, body))
            }
            Offence::HugeCommand => {
                let nulls = vec![5; 128];
                let bytes = raw::first_chunk(3, kind::COMMAND, 0, 0xff_ffff, &nulls);
                (shaken(address).await, bytes)
            }
            Offence::ManyChunkStreams => {
                let mut bytes = bytes::BytesMut::new();
                for id in 3..103 {
                    let body = [0; 128];
                    bytes.extend_from_slice(&raw::first_chunk(id, kind::VIDEO, 1, 1_000, &body));
                }
                (connected(address).await, bytes)
            }
            Offence::LyingLength => {
                let mut raw = connected(address).await;
                let body = [0; 100];
                raw.send(&raw::first_chunk(6, kind::VIDEO, 1, 8 << 20, &body))
                    .await;
                return None;
            }
            Offence::LyingAggregate => {
                let tag = [&[9, 0xff, 0xff, 0xff][..], &[0; 20]].concat();
                (
                    connected(address).await,
                    raw::message(kind::AGGREGATE, 1, tag),
                )
            }
            Offence::HeaderlessChunk => {
                (connected(address).await, raw::next_chunk(9, b"never begun"))
            }
            Offence::ZeroChunkSize => (connected(address).await, raw::set_chunk_size(0)),
            Offence::EarlyMedia => {
                let frame = numbered(0, true, 100);
                (
                    connected(address).await,
                    raw::message(kind::VIDEO, 1, frame),
                )
            }
            Offence::ComesAndGoes => {
                let url = urls.push(&format!("guest-{number}"));
                let mut guest = Client::publish(&url).await.expect("granted");
                guest.send(kind::VIDEO, 0, numbered(0, true, 1_000)).await;
                return None;
            }
        };
        raw.send(&bytes).await;
        Some(raw)
    }
}

async fn shaken(address: SocketAddr) -> Raw {
    Raw::shaken(address).await
}

async fn connected(address: SocketAddr) -> Raw {
    Raw::connected(address).await
}

/// Commits an offence `times` over, some of them side by side.
async fn repeat(urls: &Arc<Urls>, offence: Offence, begin: u32, times: u32) {
    let next = Arc::new(AtomicU32::new(begin));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (urls, next) = (urls.clone(), next.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= begin + times {
                    return;
                }
                if let Some(mut raw) = offence.commit(&urls, number).await {
                    let closed = raw.closed_within(AT_ONCE_LIMIT).await;
                    assert!(closed.is_some(), "{offence:?} is not closed at once");
                }
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.expect("the offence is committed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_repeats_of_each_offence_are_closed_and_leave_memory_flat() {
    let mut server = Binary::serve("").await;
    let urls = server.urls();
    let healthy = Healthy::start(&urls).await;
    for offence in Offence::ALL {
        let what = format!("{offence:?}");
        repeat(&urls, offence, 0, WARM_UP).await;
        server.wait_for_connections(2).await;
        let mut begin = WARM_UP;
        loop {
            let before = server.resident();
            repeat(&urls, offence, begin, REPEATS).await;
            server.wait_for_connections(2).await;
            begin += REPEATS;
            if server.is_flat(before, &what).await {
                break;
            }
            assert!(
                begin < WARM_UP + ROUNDS * REPEATS,
                "{what}: each of {ROUNDS} rounds of {REPEATS} left memory behind"
            );
        }
    }
    healthy.assert_nothing_missed().await;
    server.assert_alive();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_megabytes_of_amf_and_64k_chunk_streams_sent_to_the_end_are_refused() {
    let mut server = Binary::serve("").await;
    let address = server.urls.rtmp();
    let healthy = Healthy::start(&server.urls()).await;
    let before = server.resident();

    for (what, bytes) in [
        ("AMF", raw::sixteen_megabytes()),
        ("chunk streams", raw::every_chunk_stream()),
    ] {
        let mut raw = connected(address).await;
        raw.send(&bytes).await;
        let closed = raw.closed_within(AT_ONCE_LIMIT).await;
        assert!(closed.is_some(), "{what}: not closed at once");
    }
    server.assert_flat(before, "once").await;
    healthy.assert_nothing_missed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_and_video_interleaved_chunk_by_chunk_arrive_whole() {
    let server = Binary::serve("").await;
    let mut publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    let mut player = Client::play(&server.urls.plain("a"))
        .await
        .expect("granted");
    let video = numbered(0, true, 1_000);
    let mut audio = vec![0xaf, 1];
    audio.resize(700, 0x33);
    publisher.send_raw(&raw::set_chunk_size(128)).await;
    let mut chunks = [(6, video.chunks(128)), (4, audio.chunks(128))];
    let mut bytes = bytes::BytesMut::new();
    for round in 0..8 {
        for (chunk_stream, rest) in &mut chunks {
            let Some(body) = rest.next() else { continue };
            let is_video = *chunk_stream == 6;
            let (type_id, length) = match is_video {
                true => (kind::VIDEO, video.len()),
                false => (kind::AUDIO, audio.len()),
            };
            match round {
                0 => bytes.extend_from_slice(&raw::first_chunk(
                    u32::from(*chunk_stream),
                    type_id,
                    1,
                    length as u32,
                    body,
                )),
                _ => bytes.extend_from_slice(&raw::next_chunk(*chunk_stream, body)),
            }
        }
    }
    publisher.send_raw(&bytes).await;
    let mut got = Vec::new();
    while got.len() < 2 {
        let message = player.media().await;
        if is_frame(&message, kind::VIDEO) || is_frame(&message, kind::AUDIO) {
            got.push(message);
        }
    }
    got.sort_by_key(|m| m.type_id);
    // The shorter one ends first, so that is the order of arrival; sorted by type it is the same.
    assert_eq!((got[0].type_id, got[1].type_id), (kind::AUDIO, kind::VIDEO));
    assert_eq!(got[0].payload, audio);
    assert_eq!(got[1].payload, video);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_nested_ten_thousand_deep_is_left_out_and_the_publisher_stays() {
    let mut server = Binary::serve("").await;
    let mut publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");
    let mut player = Client::play(&server.urls.plain("a"))
        .await
        .expect("granted");
    publisher
        .send(kind::DATA, 0, raw::deep_metadata(10_000))
        .await;
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    publisher.send(kind::VIDEO, 0, numbered(0, true, 100)).await;
    let got = player.media_until(is_key_frame).await;
    assert!(
        got.iter().all(|m| m.type_id != kind::DATA),
        "it was passed on"
    );
    server.assert_alive();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn talking_without_a_pause_extends_no_deadline() {
    let more = "[limits]\nhandshake = \"1s\"\n[apps.live]\npublish_idle = \"2s\"";
    let server = Binary::serve(more).await;
    // Nothing of it is media, and there is always more of it to read.
    let words = raw::acknowledgement(7).repeat(4_096);
    let mut nobody = Raw::connected(server.urls.rtmp()).await;
    let closed = nobody.flood(&words, SOON).await;
    assert!(
        closed.is_some(),
        "before publish: still open after {SOON:?}"
    );

    let mut publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");
    publisher.send(kind::VIDEO, 0, numbered(0, true, 100)).await;
    let closed = publisher.flood(&words, SOON).await;
    assert!(closed.is_some(), "a publisher: still open after {SOON:?}");
    server.wait_for_connections(0).await;
    let ends = server.ends().await;
    let of = |reason: &str| {
        ends.iter()
            .any(|(code, count)| code == reason && *count == 1)
    };
    assert!(of("timeout") && of("idle"), "{ends:?}");
}
