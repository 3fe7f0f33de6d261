//! Connections that the server ends: for what, when, and with which last words.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use linkmic::probe::process::poll;
use linkmic::rtmp::amf::Writer;
use linkmic::rtmp::session::client::Event;
use linkmic::rtmp::{Framed, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

use super::SOON;
use super::client::{Client, is_key_frame};
use super::clip::{clip, numbered};
use super::house::House;
use crate::abuse::binary::Binary;
use crate::abuse::raw;

/// Of two messages of 8 MB, on a chunk stream each, all but their ends.
fn two_unfinished() -> Vec<u8> {
    const CHUNK: usize = 65_536;
    const WHOLE: usize = 8 << 20;
    let body = vec![0x27; CHUNK];
    let mut bytes = raw::set_chunk_size(CHUNK as u32).to_vec();
    for (chunk_stream, type_id) in [(6, kind::VIDEO), (4, kind::AUDIO)] {
        let first = raw::first_chunk(chunk_stream, type_id, 1, WHOLE as u32, &body);
        bytes.extend_from_slice(&first);
        for _ in 2..WHOLE / CHUNK {
            bytes.extend_from_slice(&raw::next_chunk(chunk_stream as u8, &body));
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_memory_budget_publishers_of_large_messages_are_told_to_go() {
    const MIB: u64 = 1 << 20;
    let mut server = Binary::serve("[limits]\nmemory = \"32MiB\"").await;
    let mut greedy = Vec::new();
    for n in 0..10 {
        let url = server.urls.push(&format!("s{n}"));
        greedy.push(Client::publish(&url).await.expect("granted"));
    }
    let before = server.resident();
    let bytes = two_unfinished();
    let mut turned = Vec::new();
    for mut publisher in greedy {
        let bytes = bytes.clone();
        turned.push(tokio::spawn(async move {
            // Whoever is closed in the middle of it cannot say the rest.
            let told = publisher.send_while_listening(&bytes).await;
            (told, publisher)
        }));
    }
    let mut told = Vec::new();
    let mut kept = Vec::new();
    for sender in turned {
        match sender.await.expect("it sends") {
            (Some(no), _) => told.push(no),
            (None, publisher) => kept.push(publisher),
        }
    }
    // 160 MB wanted to be held. What is over 32 MiB is at most a message less than ordinary of each.
    server
        .assert_grown_at_most(32 * MIB + 16 * MIB, before, "unfinished messages")
        .await;
    assert!(told.len() >= 7, "{} of 10 are told to go", told.len());
    for no in &told {
        assert_eq!(no.code, "NetStream.Publish.Denied");
        assert!(no.description.contains("memory is full"), "{no:?}");
        assert!(no.description.contains("(18/601)"), "{no:?}");
    }
    // An end is counted once the client has had its time to hear of it.
    server.wait_for_connections(kept.len()).await;
    let ends = server.ends().await;
    let overloaded = ends.iter().find(|(reason, _)| reason == "overloaded");
    assert_eq!(overloaded.map(|(_, n)| *n), Some(told.len() as u64));
    drop(kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_is_not_idle_while_a_picture_grows_and_is_when_it_stops_growing() {
    let house = House::open_with("", "[apps.live]\npublish_idle = \"2s\"").await;
    let mut publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    // One key frame takes 6 s, a hundredth at a time.
    let picture = publisher.framed(kind::VIDEO, 0, numbered(1, true, 60_000).into());
    let mut pace = interval(Duration::from_millis(60));
    for piece in picture.chunks(picture.len().div_ceil(100)) {
        pace.tick().await;
        publisher.send_raw(piece).await;
    }
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    viewer.media_until(is_key_frame).await;
    // The next stays half.
    let picture = publisher.framed(kind::VIDEO, 40, numbered(2, true, 60_000).into());
    publisher.send_raw(&picture[..picture.len() / 2]).await;
    let event = publisher.event().await;
    let Some(Event::Closed { description, .. }) = event else {
        panic!("it was to be told to go, not {event:?}");
    };
    assert_eq!(description, "no media came for too long [idle] (8/0)");
}

/// What a server says to a client whose handshake is followed by `bytes`, and again by `more` four times a second, up
/// to the close; and how long that took.
async fn heard(address: SocketAddr, bytes: &[u8], more: &[u8]) -> (String, Duration) {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let mut opening = raw::c0_c1();
    opening.resize(2 * 1536 + 1, 0);
    opening.extend_from_slice(bytes);
    socket.write_all(&opening).await.expect("it takes them");
    let begin = Instant::now();
    let (mut from, mut to) = socket.split();
    let mut said = Vec::new();
    let mut pace = interval(Duration::from_millis(250));
    let repeat = async {
        // Until the server takes no more; what it says is read to its end all the same.
        while !more.is_empty() {
            pace.tick().await;
            if to.write_all(more).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        tokio::select! {
            read = from.read_to_end(&mut said) => read,
            () = repeat => unreachable!("it never ends"),
        }
    };
    // A reset behind the last words is an end, too.
    let _ = timeout(SOON, read).await.expect("it closes");
    (String::from_utf8_lossy(&said).into_owned(), begin.elapsed())
}

fn connect() -> BytesMut {
    let mut body = Writer::new();
    body.string("connect").number(1.0).object();
    body.key("app").string("live").end();
    let mut bytes = BytesMut::new();
    Framed::new(kind::COMMAND, 0, 0, body.finish()).write_to(&mut bytes);
    bytes
}

const CLOSED: &str = "NetConnection.Connect.Closed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_for_nothing_hears_so_at_one_deadline_whatever_else_it_says() {
    let house = House::open_with("", "[limits]\nhandshake = \"2s\"").await;
    let mut ping = BytesMut::new();
    let pong = Bytes::from_static(&[0, 7, 0, 0, 0, 0]);
    Framed::new(kind::USER_CONTROL, 0, 0, pong).write_to(&mut ping);
    let (said, took) = heard(house.urls.rtmp(), &connect(), &ping).await;
    assert!(said.contains(CLOSED), "{said}");
    let why = "neither publish nor play came within 2 s [timeout] (20/0)";
    assert!(said.contains(why), "{said}");
    // One deadline, which talk does not move.
    assert!(took > Duration::from_millis(1_500), "{took:?}");
    assert!(took < SOON, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_bytes_make_no_sense_hears_so() {
    let house = House::open().await;
    let mut publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    publisher
        .send(kind::VIDEO, 0, numbered(1, true, 1_000))
        .await;
    let mut plays = connect();
    plays.extend_from_slice(&raw::asking("play", "a")[connect().len()..]);
    let nonsense = raw::set_chunk_size(0);
    for before in [connect(), plays] {
        let bytes = [&before[..], &nonsense[..]].concat();
        let (said, _) = heard(house.urls.rtmp(), &bytes, b"").await;
        let why = "chunk size of 0 is outside 1 to 2147483647 [protocol] (6/0)";
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_connections_that_ask_for_nothing_are_counted_by_reason() {
    let more = "[limits]\nhandshake = \"3s\"\nconnections = 2";
    let house = House::open_with("", more).await;
    let address = house.server.http_addr();
    let dial = || async { TcpStream::connect(address).await.expect("it listens") };
    let counted = async |reason: &str| {
        let line = format!("linkmic_playback_http_turned_total{{reason=\"{reason}\"}} 1");
        let seen = poll(&line, SOON, || async {
            let metrics = house.control.get("/metrics").await.expect("metrics").body;
            metrics.lines().any(|l| l == line).then_some(())
        });
        seen.await.expect("it is counted");
    };
    // One that leaves, two that stay and say nothing, one too many beside them, and at last one with a head that does
    // not end.
    drop(dial().await);
    counted("disconnected").await;
    let silent = dial().await;
    let mut long = dial().await;
    let _third = dial().await;
    counted("limit_reached").await;
    let head = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 100_000]].concat();
    let _ = long.write_all(&head).await;
    counted("too_large").await;
    counted("timeout").await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_tells_of_refusals_but_not_of_all_in_a_flood() {
    const WRONG: &str = "txSecret=00000000000000000000000000000000&txTime=7FFFFFFF";
    let loud = ["env", "RUST_LOG=info"];
    let server = Binary::serve_under(&loud, "[limits]\nwait = \"1ms\"").await;
    for n in 0..30 {
        let refused = Client::publish(&server.urls.with("a", WRONG)).await;
        assert!(refused.is_err());
        let refused = Client::play(&server.urls.plain(&format!("absent-{n}"))).await;
        assert!(refused.is_err());
    }
    let _publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");
    let said = poll("the last line", SOON, || async {
        let said = server.said();
        said.contains("publisher connected").then_some(said)
    });
    let said = said.await.expect("it is logged");
    let told = |words: &str| said.lines().filter(|line| line.contains(words)).count();
    assert_eq!(told("publish refused"), 10, "{said}");
    // Anybody can ask for what is not there.
    assert_eq!(told("play refused"), 0, "{said}");
}
