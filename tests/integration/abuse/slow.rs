//! Players that stop reading, beside one that does not.

use std::time::Duration;

use linkmic::rtmp::{Message, kind};
use tokio::time::Instant;

use super::binary::Binary;
use crate::edge::SOON;
use crate::edge::client::{Client, is_frame, is_header, is_key_frame};
use crate::edge::clip::{clip, number_of, numbered};

/// Media time of a frame, ms.
const FRAME: u32 = 40;
/// Frames from key frame to key frame: 1 s.
const GOP: u32 = 25;
/// Bytes of a frame: 2 Mbit/s.
const BYTES: usize = 10_000;
/// What a viewer may be behind (3 s), in frames.
const BUDGET: u32 = 75;

fn number(message: &Message) -> Option<u32> {
    is_frame(message, kind::VIDEO).then(|| number_of(&message.payload))?
}

/// Publishes frame after frame, each when the healthy player has the one before it.
async fn publish(publisher: &mut Client, healthy: &mut Client, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let frame = numbered(n, n % GOP == 0, BYTES);
        publisher.send(kind::VIDEO, n * FRAME, frame).await;
        let got = healthy.media_until(|m| is_frame(m, kind::VIDEO)).await;
        let last = got.last().and_then(number);
        assert_eq!(last, Some(n), "the healthy player misses frames");
    }
}

/// Where a player that had stopped reading was taken on again at last. The kernel may take a little more in between
/// (so there may be several skips), but each skip ends at a key frame behind its configuration.
fn resumed(got: &[Message]) -> u32 {
    let mut last = None;
    let mut resumed = None;
    for (at, message) in got.iter().enumerate() {
        let Some(here) = number(message) else {
            continue;
        };
        if last.is_some_and(|last| here != last + 1) {
            assert!(is_key_frame(message), "it resumes with frame {here}");
            assert!(
                got[at - 2..at].iter().any(|m| is_header(m, kind::VIDEO)),
                "the configuration goes before key frame {here}"
            );
            resumed = Some(here);
        }
        last = Some(here);
    }
    resumed.expect("it skips")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_that_stop_reading_cost_no_memory_and_nobody_else_and_resume_at_a_key_frame() {
    let mut server = Binary::serve("").await;
    let mut publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    let frame = numbered(0, true, BYTES);
    publisher.send(kind::VIDEO, 0, frame).await;
    let mut healthy = Client::play(&server.urls.plain("a"))
        .await
        .expect("granted");
    healthy.media_until(is_key_frame).await;
    // With small buffers of their own, and not read from after their first frame.
    let mut slow = Vec::new();
    for url in [server.urls.plain("a"), server.urls.peer("a")] {
        let player = Client::play_narrow(&url, 16 << 10).await;
        let mut player = player.expect("granted");
        let begin = player.media_until(is_key_frame).await;
        slow.push((player, begin));
    }
    let [mut viewer, mut peer] = <[_; 2]>::try_from(slow).ok().expect("two");

    // The ring and the kernel's buffers fill up: 12 s of media, 3 MB.
    publish(&mut publisher, &mut healthy, 1..300).await;
    let before = server.resident();
    // 40 s and 10 MB more.
    let end = 1_300;
    publish(&mut publisher, &mut healthy, 300..end).await;
    server.assert_flat(before, "players that do not read").await;

    // They read again. First comes what the kernel kept; then the viewer continues no more than its budget behind.
    let rest = viewer.0.media_until(|m| number(m) == Some(end - 1)).await;
    viewer.1.extend(rest);
    let at = resumed(&viewer.1);
    assert!(at + BUDGET + GOP >= end, "resumes at {at} of {end}");

    // So does the peer, by the clock: all this was published many times faster than its own time says. What 400 ms
    // are worth is judged in real time, in `edge::stalls`.
    let reading = tokio::spawn(async move {
        let rest = peer.0.media_until(|m| number(m) == Some(end + 9)).await;
        peer.1.extend(rest);
        peer.1
    });
    let mut tick = tokio::time::interval(Duration::from_millis(FRAME.into()));
    for n in end..end + 10 {
        tick.tick().await;
        publish(&mut publisher, &mut healthy, n..n + 1).await;
    }
    let got = reading.await.expect("it reads");
    let at = resumed(&got);
    assert!(at + BUDGET + GOP >= end, "resumes at {at} of {end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_players_that_stop_reading_are_dropped_for_it_and_cost_no_memory_and_nobody_else()
{
    const PLAYERS: u64 = 100;
    let mut server = Binary::serve("[classes.viewer]\nstuck = \"5s\"").await;
    let publisher = Client::publish(&server.urls.push("a")).await;
    let mut publisher = publisher.expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    let frame = numbered(0, true, BYTES);
    publisher.send(kind::VIDEO, 0, frame).await;
    // A peer, so that all viewers are those who do not read.
    let healthy = Client::play(&server.urls.peer("a")).await;
    let mut healthy = healthy.expect("granted");
    healthy.media_until(is_key_frame).await;
    let mut slow = Vec::new();
    for _ in 0..PLAYERS {
        let player = Client::play_narrow(&server.urls.plain("a"), 16 << 10).await;
        let mut player = player.expect("granted");
        player.media_until(is_key_frame).await;
        slow.push(player);
    }
    // The ring is as full as it will be.
    publish(&mut publisher, &mut healthy, 1..300).await;
    let before = server.resident();
    let give_up = Instant::now() + SOON;
    let mut next = 300;
    while server.ends().await != [("too_slow".to_owned(), PLAYERS)] {
        assert!(Instant::now() < give_up, "{:?}", server.ends().await);
        publish(&mut publisher, &mut healthy, next..next + GOP).await;
        next += GOP;
    }
    server
        .assert_flat(before, "a hundred that do not read")
        .await;
    drop(slow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_without_key_frames_is_kept_no_further_than_the_limit_says() {
    const MIB: u64 = 1 << 20;
    let mut server = Binary::serve("[limits]\ngop_bytes = \"2MiB\"").await;
    let mut publisher = Client::publish(&server.urls.push("a"))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    let frame = numbered(0, true, BYTES);
    publisher.send(kind::VIDEO, 0, frame).await;
    let mut player = Client::play(&server.urls.plain("a"))
        .await
        .expect("granted");
    player.media_until(is_key_frame).await;
    let before = server.resident();
    // 20 MB within 2 s of media time: only the limit on bytes can be what holds.
    for n in 1..2_000 {
        publisher
            .send(kind::VIDEO, n, numbered(n, false, BYTES))
            .await;
        player.media_until(|m| number(m) == Some(n)).await;
    }
    server
        .assert_grown_at_most(2 * MIB + 4 * MIB, before, "a GOP without end")
        .await;
}
