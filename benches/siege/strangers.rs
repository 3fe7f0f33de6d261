//! Strangers who do everything at once that they should not, at the rates that a server is to bear.
//!
//! The bytes are those of the tests in `tests/integration/abuse`. Whether each offender is closed, and why, is their
//! business; here nobody looks at answers longer than it takes to offend again.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use linkmic::probe::Error;
use linkmic::rtmp::{Framed, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{interval, sleep, timeout};

#[allow(dead_code, unreachable_pub)] // the tests use all of it
#[path = "../../tests/integration/abuse/raw.rs"]
mod raw;

use raw::Raw;

/// Requests for absent streams a second.
const ABSENT_RATE: u32 = 1_000;
/// Such requests at a time, at most: a server that does not answer is not to run us out of ports.
const ABSENT_AT_ONCE: u32 = 400;
/// Connections at a time that fall silent, at each stage.
const SILENT: usize = 20;
/// No offender stays longer than this; the server's own deadline is 10 s.
const LIMIT: Duration = Duration::from_secs(15);
/// What a flood sends a second, in writes of [`FLOOD_BYTES`].
const FLOODS: u32 = 200;
const FLOOD_BYTES: usize = 64 << 10;

/// Goes on until this process is killed, and says each second how often it did what.
///
/// # Errors
/// Never; offenders that fail begin anew.
pub async fn assail(rtmp: SocketAddr, http: SocketAddr) -> Result<(), Error> {
    LocalSet::new().run_until(all(rtmp, http)).await;
    Ok(())
}

async fn all(rtmp: SocketAddr, http: SocketAddr) {
    let mut counts = vec![("absent streams", ask_for_absent(rtmp))];
    let mut repeat = |what, count| counts.push((what, count));
    let pause = Duration::from_millis(20);
    for stage in 0..6 {
        for _ in 0..SILENT {
            again(Duration::ZERO, move || fall_silent(rtmp, stage));
        }
    }
    let deep = Rc::new(raw::message(kind::COMMAND, 0, raw::deep_connect(10_000)).freeze());
    repeat("AMF nested 10,000 deep", send(pause, rtmp, deep));
    let lie = raw::first_chunk(6, kind::VIDEO, 1, 0xff_ffff, &[0; 128]).freeze();
    repeat("lengths of 16 MB that lie", send(pause, rtmp, Rc::new(lie)));
    let pause = Duration::from_millis(200);
    let commands = Rc::new(raw::sixteen_megabytes().freeze());
    repeat("commands of 16 MB", send(pause, rtmp, commands));
    let streams = Rc::new(raw::every_chunk_stream().freeze());
    repeat("64k chunk streams", send(pause, rtmp, streams));
    repeat("garbage video", again(pause, move || publish_garbage(rtmp)));
    let acknowledgements: BytesMut = std::iter::repeat_with(|| raw::acknowledgement(7))
        .take(FLOOD_BYTES / 16)
        .flatten()
        .collect();
    let acknowledgements = acknowledgements.freeze();
    let asked = raw::asking("play", "bench").freeze();
    for (what, front) in [
        ("acknowledgements of a player", asked),
        ("acknowledgements of nobody", Bytes::new()),
    ] {
        let flood = acknowledgements.clone();
        let floods = again(pause, move || {
            let (front, flood) = (front.clone(), flood.clone());
            async move {
                let mut raw = Raw::shaken(rtmp).await;
                raw.send(&front).await;
                let _ = timeout(LIMIT, flood_gently(raw, flood)).await;
            }
        });
        repeat(what, floods);
    }
    repeat(
        "words of an HTTP player",
        again(pause, move || talk_over_http(http)),
    );

    let mut tick = interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let said: Vec<_> = counts
            .iter()
            .map(|(what, count)| format!("{} × {what}", count.get()))
            .collect();
        eprintln!("{}", said.join(", "));
    }
}

type Count = Rc<Cell<u64>>;

/// Does something again and again, with a pause between; how often it is done is in the count.
fn again<F: Future<Output = ()> + 'static>(
    pause: Duration,
    offence: impl Fn() -> F + 'static,
) -> Count {
    let count = Count::default();
    let counted = count.clone();
    spawn_local(async move {
        loop {
            offence().await;
            counted.set(counted.get() + 1);
            sleep(pause).await;
        }
    });
    count
}

/// Sends the same after each handshake, as long as the server takes it.
fn send(pause: Duration, rtmp: SocketAddr, bytes: Rc<Bytes>) -> Count {
    again(pause, move || {
        let bytes = bytes.clone();
        async move {
            let mut raw = Raw::shaken(rtmp).await;
            raw.send_and_read(&bytes).await;
            let _ = raw.closed_within(Duration::from_millis(500)).await;
        }
    })
}

/// Players for names that nobody publishes; each reads until the server closes.
fn ask_for_absent(rtmp: SocketAddr) -> Count {
    let (count, open) = (Count::default(), Rc::new(Cell::new(0_u32)));
    let counted = count.clone();
    spawn_local(async move {
        let mut tick = interval(Duration::from_secs(1) / ABSENT_RATE);
        for number in 0_u64.. {
            tick.tick().await;
            if open.get() >= ABSENT_AT_ONCE {
                continue;
            }
            open.set(open.get() + 1);
            let (counted, open) = (counted.clone(), open.clone());
            spawn_local(async move {
                let mut raw = Raw::shaken(rtmp).await;
                raw.send(&raw::asking("play", &format!("absent-{number}")))
                    .await;
                // Some of them are let wait for the stream, and would take places from those that come.
                if raw
                    .closed_within(Duration::from_millis(300))
                    .await
                    .is_some()
                {
                    counted.set(counted.get() + 1);
                }
                open.set(open.get() - 1);
            });
        }
    });
    count
}

/// Says nothing any more at one of the stages that a connection goes through.
async fn fall_silent(rtmp: SocketAddr, stage: u32) {
    let mut raw = match stage {
        0..=2 => Raw::connect(rtmp).await,
        3 => Raw::shaken(rtmp).await,
        _ => Raw::connected(rtmp).await,
    };
    match stage {
        1 => raw.send(&raw::c0_c1()[..1_000]).await,
        2 => raw.send(&raw::c0_c1()).await,
        5 => {
            let begun = raw::first_chunk(6, kind::VIDEO, 1, 8 << 20, &[0; 128]);
            raw.send(&begun).await;
        }
        _ => {}
    }
    let _ = raw.closed_within(LIMIT).await;
}

/// A publisher whose video is noise, at 1.2 Mbit/s for two seconds.
async fn publish_garbage(rtmp: SocketAddr) {
    let mut raw = Raw::shaken(rtmp).await;
    raw.send(&raw::asking("publish", "noise")).await;
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50 {
        let body: Vec<u8> = (0..3_000)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        let mut bytes = BytesMut::new();
        Framed::new(kind::VIDEO, noise as u32, 1, body.into()).write_to(&mut bytes);
        raw.send(&bytes).await;
        sleep(Duration::from_millis(40)).await;
    }
}

/// 13 MB/s, or as little of it as the server takes.
async fn flood_gently(mut raw: Raw, bytes: Bytes) {
    let mut tick = interval(Duration::from_secs(1) / FLOODS);
    while raw.send_on(&bytes).await {
        // What it answers is thrown away, or it would be the one that waits.
        if raw
            .closed_within(Duration::from_micros(100))
            .await
            .is_some()
        {
            return;
        }
        tick.tick().await;
    }
}

/// A player of HTTP-FLV that goes on talking after its request.
async fn talk_over_http(http: SocketAddr) {
    let Ok(mut socket) = TcpStream::connect(http).await else {
        return;
    };
    let request = b"GET /live/bench.flv HTTP/1.1\r\nHost: a\r\n\r\n";
    if socket.write_all(request).await.is_err() {
        return;
    }
    let (mut from, mut to) = socket.split();
    let mut sink = vec![0; FLOOD_BYTES];
    let reading = async { while matches!(from.read(&mut sink).await, Ok(n) if n > 0) {} };
    let talking = async {
        let mut tick = interval(Duration::from_secs(1) / FLOODS);
        while to.write_all(&[b'x'; FLOOD_BYTES]).await.is_ok() {
            tick.tick().await;
        }
    };
    let over = async {
        tokio::select! {
            () = reading => {}
            () = talking => {}
        }
    };
    let _ = timeout(LIMIT, over).await;
}
