//! Streams that have run for 4 h 40 min (24 bits of milliseconds) and for 49.7 days (32 bits).

use linkmic::probe::flv::Tag;
use linkmic::rtmp::kind;

use super::SOON;
use super::client::{Client, is_frame};
use super::clip::{clip, frames, run_of};
use super::house::House;
use super::programs::{Player, decode, recorded};

/// Where the extended timestamp begins.
const EDGE_24: u64 = 0xff_ffff;
/// Where the wire's clock begins anew.
const EDGE_32: u64 = 1 << 32;
/// The clip begins this long before the edge, in ms: in the middle of its second GOP comes the edge.
const BEFORE: u64 = 1_500;
/// The longest pause in the media that the server takes for one, in ms.
const STEP: u64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_pass_the_24_bit_edge() {
    players_pass(EDGE_24).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_pass_the_32_bit_edge() {
    players_pass(EDGE_32).await;
}

/// Six programs at once, on a machine that may be busy with other tests: what is looked at here is their clock, and
/// one that was late for a moment would have left frames out, rightly.
const PATIENT: &str =
    "[classes.low_latency]\nmax_lag = \"20s\"\n[classes.viewer]\nmax_lag = \"20s\"\n";

/// A stream whose own timeline crosses `edge` while real players record it.
async fn players_pass(edge: u64) {
    let house = House::open_with("", PATIENT).await;
    let clip = clip().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut publisher = Client::publish(&house.urls.push("old"))
        .await
        .expect("granted");
    let begin = edge - BEFORE;
    age(&mut publisher, begin).await;
    for header in clip.headers() {
        publisher.send_tag(header, begin as u32).await;
    }
    let mut watch = Client::play(&house.urls.plain("old"))
        .await
        .expect("granted");
    // The first GOP, so that all of them begin before the edge.
    let shift = begin as u32;
    let (before, after): (Vec<_>, Vec<_>) = clip
        .tags
        .iter()
        .filter(|t| t.is_media())
        .partition(|t| u64::from(t.time) < BEFORE - 500);
    for tag in &before {
        publisher.send_tag(tag, shift).await;
    }
    let newest = before
        .iter()
        .rfind(|t| t.kind == Tag::VIDEO)
        .expect("video");
    watch
        .media_until(|m| m.payload[..] == newest.body[..])
        .await;
    let mut players = Vec::new();
    for (feed, url) in [
        ("viewer", house.urls.plain("old")),
        ("peer", house.urls.peer("old")),
    ] {
        for player in Player::ALL {
            let file = folder.path().join(format!("{feed}-{player:?}.flv"));
            players.push((player.start(&url, &file), feed, player, file));
        }
    }
    house.wait_for_viewers(1 + Player::ALL.len()).await;
    house.wait_for_peers(Player::ALL.len()).await;
    publisher
        .send_in_real_time(after.iter().copied(), shift)
        .await;
    publisher.unpublish().await;

    // Seen without any program in between: the wire's own clock, without a gap.
    let rest = watch
        .media_until(|m| {
            Some(&m.payload[..])
                == after
                    .iter()
                    .rfind(|t| t.kind == Tag::VIDEO)
                    .map(|t| &t.body[..])
        })
        .await;
    let times: Vec<_> = rest
        .iter()
        .filter(|m| is_frame(m, kind::VIDEO))
        .map(|m| m.timestamp)
        .collect();
    for pair in times.windows(2) {
        let step = pair[1].wrapping_sub(pair[0]);
        assert!(step <= 41, "{} then {}", pair[0], pair[1]);
    }
    let to_edge = |time: Option<&u32>| time.expect("video").wrapping_sub(edge as u32) as i32;
    assert!(to_edge(times.first()) < 0, "it begins before the edge");
    assert!(to_edge(times.last()) > 0, "it ends behind the edge");

    for (process, feed, player, file) in &mut players {
        let name = format!("{feed} {player:?}");
        let ended = process.end(SOON).await;
        ended.unwrap_or_else(|e| panic!("{name}: it ends with the stream: {e}"));
        decode(file).await;
        let tags = recorded(file);
        // Of a squeezed burst the composition times are the server's own.
        let [sent, got] = [&clip.tags, &tags].map(|tags| {
            let frames = frames(tags, Tag::VIDEO).into_iter();
            frames.map(|body| &body[5..]).collect::<Vec<_>>()
        });
        let run = run_of(&got, &sent);
        assert!(
            run.is_some_and(|at| at + got.len() == sent.len()) && got.len() > sent.len() / 2,
            "{name}: {} of {} frames, {run:?}; it said\n{}",
            got.len(),
            sent.len(),
            process.said()
        );
        let times: Vec<_> = tags
            .iter()
            .filter(|t| t.kind == Tag::VIDEO && t.is_media())
            .map(|t| t.time)
            .collect();
        for pair in times.windows(2) {
            let step = pair[1].wrapping_sub(pair[0]);
            assert!(step <= 41, "{name}: {} then {}", pair[0], pair[1]);
        }
    }
}

/// Takes the stream's clock to `until`, in pauses as long as a stream may make them.
async fn age(publisher: &mut Client, until: u64) {
    let mut bytes = bytes::BytesMut::new();
    let mut now = 0;
    while now < until {
        let tick = bytes::Bytes::from_static(&[0xaf, 1, 0]);
        bytes.extend_from_slice(&publisher.framed(kind::AUDIO, now as u32, tick));
        now += STEP;
        if bytes.len() > 60_000 {
            publisher.send_raw(&bytes.split()).await;
        }
    }
    publisher.send_raw(&bytes).await;
}
