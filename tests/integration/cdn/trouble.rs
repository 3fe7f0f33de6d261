//! Targets in trouble, all of them at once and one by one: what is said of them, how soon, and that nobody else notices.

use futures_util::future::join_all;
use linkmic::probe::process::poll;
use linkmic::rtmp::kind;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::narrow::{Narrow, WIDE};
use super::stage::{
    FRAME, Frame, GOP, Program, Recording, nothing_is_missing, of_kind, on_air, put, until,
};
use crate::abuse::binary::Binary;
use crate::edge::SOON;
use crate::edge::house::{BURST, House};
use crate::edge::network;
use crate::edge::throttle::Flow;

const MBIT: usize = 1_000_000;
/// In ms: the watchdog's 5 s, the time until it looks, and what a busy machine adds.
const SOON_ENOUGH: u64 = 6_000;

/// For how long the target had acknowledged nothing when its push was given up.
async fn time_to_notice(house: &House, id: &str) -> (u64, Value) {
    let path = format!("/api/v1/pushes/{id}");
    let push = poll("it is given up", SOON, || async {
        let push = house.control().get(&path).await.ok()?.json();
        (push["state"] == "backoff").then_some(push)
    });
    let push = push.await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(push["failures"], 1, "{push}");
    // Both as of the same answer: silence until now, and time since it was given up.
    let silence = push["last_progress_ms"].as_u64().expect("it had begun");
    let since = push["since"].as_str().expect("a time");
    let since = humantime::parse_rfc3339(since).expect("a time");
    let ago = since.elapsed().unwrap_or_default().as_millis() as u64;
    (silence.saturating_sub(ago), push)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_target_loses_nothing_beside_dead_slow_and_refusing_ones() {
    let house = House::open().await;
    let [good, hole, slow, no] = [
        House::open_with("", BURST).await,
        House::open().await,
        House::open_with("", BURST).await,
        House::open().await,
    ];
    let stops = Narrow::before(hole.urls.rtmp(), WIDE).await;
    // 100 kbit/s.
    let narrow = Narrow::before(slow.urls.rtmp(), Flow::Rate(12_500)).await;
    // Accepted by the kernel, and by nobody else.
    let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let deaf_url = format!("rtmp://{}/live/a", deaf.local_addr().expect("an address"));

    let program = Program::start(&house.urls.push("a"), MBIT).await;
    on_air(&house, "a").await;
    let through = |path: &Narrow, to: &House| path.through(&to.urls.push("a"), to.urls.rtmp());
    for (id, url) in [
        ("good", good.urls.push("a")),
        ("hole", through(&stops, &hole)),
        ("slow", through(&narrow, &slow)),
        ("deaf", deaf_url),
        ("refusing", no.urls.plain("a")),
    ] {
        put(&house, id, &url, json!({})).await;
    }
    on_air(&good, "a").await;
    let recording = Recording::of(&good.urls.plain("a")).await;
    on_air(&slow, "a").await;
    let late = Recording::of(&slow.urls.plain("a")).await;
    let live = until(house.control(), "hole", "it publishes", |p| {
        p["state"] == "live" && p["bytes"].as_u64() > Some(50_000)
    });
    live.await;
    stops.set(Flow::Stopped);

    // Before it ever took a byte, its silence counts from the beginning of the connection.
    let refused = until(house.control(), "deaf", "it is given up", |p| {
        p["state"] == "backoff"
    })
    .await;
    assert_eq!(refused["last_error"], "no permission to publish after 5s");
    let (silence, dead) = time_to_notice(&house, "hole").await;
    assert!(
        (4_950..=SOON_ENOUGH).contains(&silence),
        "{silence} ms: {dead}"
    );
    let error = "target acknowledged no byte for 5s while there was something to send";
    assert_eq!(dead["last_error"], error);
    let refused = until(house.control(), "refusing", "it was asked again", |p| {
        p["failures_in_a_row"].as_u64() >= Some(3)
    })
    .await;
    let words = refused["last_error"].as_str().expect("a reason");
    assert!(words.starts_with("target refused: "), "{words}");

    let behind = until(house.control(), "slow", "it skips", |p| {
        p["skips"].as_u64() >= Some(3)
    })
    .await;
    assert_eq!(
        (&behind["state"], &behind["failures"]),
        (&json!("live"), &json!(0))
    );
    assert!(
        behind["dropped"].as_u64() >= Some(u64::from(GOP)),
        "{behind}"
    );
    println!("slow: {behind}");
    let skipped = poll("two gaps", SOON, || async {
        (gaps_end_at_key_frames(&late.frames()) >= 2).then_some(())
    });
    skipped.await.unwrap_or_else(|e| panic!("{e}"));
    time_goes_with_the_numbers(&late.frames());

    let sent = program.finish().await;
    nothing_is_missing(&recording.whole().await, &sent);
    let healthy = until(house.control(), "good", "it has said goodbye", |p| {
        p["state"] == "waiting"
    })
    .await;
    let counts = ["failures", "dropped", "skips"].map(|count| healthy[count].as_u64());
    assert_eq!(counts, [Some(0); 3], "{healthy}");
    let metrics = house.ask("/metrics").await.body;
    let skips = metrics
        .lines()
        .find_map(|line| line.strip_prefix("linkmic_push_skips_total "));
    assert!(
        skips.is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n >= 3)),
        "{skips:?}"
    );
}

/// How many gaps there are.
fn gaps_end_at_key_frames(frames: &[Frame]) -> usize {
    let pictures = of_kind(frames, kind::VIDEO);
    let mut gaps = 0;
    for pair in pictures.windows(2) {
        let (before, after) = (pair[0].number(), pair[1].number());
        let (before, after) = (before.expect("numbered"), after.expect("numbered"));
        assert!(after > before, "{after} after {before}");
        if after > before + 1 {
            assert!(pair[1].is_key(), "{after} after {before}");
            gaps += 1;
        }
    }
    gaps
}

fn time_goes_with_the_numbers(frames: &[Frame]) {
    for pair in of_kind(frames, kind::VIDEO).windows(2) {
        let [before, after] = [pair[0], pair[1]].map(|f| f.number().expect("numbered"));
        assert_eq!(pair[1].time - pair[0].time, (after - before) * FRAME);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_stops_is_noticed_as_soon_at_any_bitrate() {
    let mut running = Vec::new();
    for bitrate in [150_000, 700_000, 4 * MBIT] {
        let (house, target) = (House::open().await, House::open().await);
        let path = Narrow::before(target.urls.rtmp(), WIDE).await;
        let program = Program::start(&house.urls.push("a"), bitrate).await;
        let url = path.through(&target.urls.push("a"), target.urls.rtmp());
        put(&house, "cdn", &url, json!({})).await;
        until(house.control(), "cdn", "it publishes", |p| {
            p["state"] == "live" && p["bytes"].as_u64() > Some(10_000)
        })
        .await;
        running.push((bitrate, house, target, path, program));
    }
    for (.., path, _) in &running {
        path.set(Flow::Stopped);
    }
    let noticed = running
        .iter()
        .map(|(_, house, ..)| time_to_notice(house, "cdn"));
    let noticed = join_all(noticed).await;
    for ((bitrate, ..), (silence, push)) in running.iter().zip(noticed) {
        println!("{bitrate} bit/s: given up after {silence} ms of silence");
        assert!(
            (4_950..=SOON_ENOUGH).contains(&silence),
            "{silence} ms: {push}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_publishes_and_fails_again_and_again_is_failing_and_not_new_each_time() {
    let (house, target) = (House::open().await, House::open().await);
    let _program = Program::start(&house.urls.push("a"), MBIT).await;
    put(&house, "cdn", &target.urls.push("a"), json!({})).await;
    for failures in 1..=3 {
        until(house.control(), "cdn", "it publishes", |p| {
            p["state"] == "live"
        })
        .await;
        on_air(&target, "a").await;
        let path = "/api/v1/streams/live/a";
        let dropped = target.control().delete(path).await.expect("an answer");
        assert!(dropped.is_success(), "{}", dropped.body);
        let push = until(house.control(), "cdn", "it failed", |p| {
            p["failures"].as_u64() == Some(failures)
        })
        .await;
        assert_eq!(push["failures_in_a_row"].as_u64(), Some(failures), "{push}");
        assert!(push["last_error_at"].is_string(), "{push}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_behind_a_dead_link_is_noticed_and_resumed_when_the_link_is_back() {
    let Some(network) = network::for_test("a push over a link that goes down").await else {
        return;
    };
    let target = Binary::serve_in(&network).await;
    let house = House::open().await;
    let _program = Program::start(&house.urls.push("a"), MBIT).await;
    let url = network.by_the_other_link(&target.urls.push("a"));
    put(&house, "cdn", &url, json!({})).await;
    // By the link that stays up.
    let live = until(house.control(), "cdn", "it publishes", |p| {
        p["state"] == "live" && p["bytes"].as_u64() > Some(100_000)
    });
    live.await;
    let recording = Recording::of(&target.urls.plain("a")).await;
    let before = recording.upto(GOP).await;
    network.set_link(false).await;
    let (silence, push) = time_to_notice(&house, "cdn").await;
    assert!(
        (4_950..=SOON_ENOUGH).contains(&silence),
        "{silence} ms: {push}"
    );
    network.set_link(true).await;
    until(house.control(), "cdn", "it publishes again", |p| {
        p["state"] == "live" && p["connects"].as_u64() >= Some(2)
    })
    .await;
    let last = before.iter().filter_map(Frame::number).max();
    let got = recording.upto(last.expect("pictures") + 8 * GOP).await;
    // For the target it is a new publisher, whose time it takes from its own clock; the pictures are ours.
    assert_eq!(gaps_end_at_key_frames(&got), 1);
}
