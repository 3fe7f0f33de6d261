//! Paths that stand still for a while: how late readers are afterwards, judged where they read.
//!
//! A proxy that stops reading does it everywhere. Where we may (as root, with `ip`), a link between two network
//! namespaces goes down as well, and what is lost must be sent again. `netem` is not needed for either.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::house::House;
use super::live::{FRAME, GOP, GOP_TIME, Got, Live, Seen, Watcher};
use super::throttle::{Flow, Throttle};
use super::tunnel::{Pair, Tunnel};
use super::{SOON, network};
use crate::abuse::binary::Binary;
use linkmic::probe::process::poll;

const MBIT_2: usize = 2_000_000;
const KBIT_350: usize = 350_000;
/// Bytes that a path of these holds: two small socket buffers.
const HELD: usize = 20_000;
/// How long the link is down: within a viewer's 3 s, and beyond; a low-latency reader's 400 ms all.
const DOWN: [Duration; 3] = [
    Duration::from_millis(1_500),
    Duration::from_millis(2_500),
    Duration::from_millis(4_500),
];
/// How long the path is open in between: for two key frames, and a while without fault.
const OPEN: Duration = Duration::from_millis(3_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    LowLatency,
    Viewer,
}

impl Class {
    /// What config/linkmic.toml says.
    const fn budget(self) -> Duration {
        match self {
            Class::LowLatency => Duration::from_millis(400),
            Class::Viewer => Duration::from_secs(3),
        }
    }

    /// The bandwidth of the path. A viewer's is so little above the stream's that it does not catch up by it. What a
    /// path holds is acknowledged and out of the server's sight, and some 20 KB are a low-latency reader's whole budget
    /// at 350 kbit/s: its path must be able to get rid of them.
    const fn bandwidth(self, bitrate: usize) -> Flow {
        let bytes = bitrate / 8;
        Flow::Rate(match self {
            Class::LowLatency => 3 * bytes,
            Class::Viewer => bytes * 5 / 4,
        })
    }

    /// How late at most what the path holds of the stream makes a reader without being seen: it is acknowledged. A
    /// low-latency reader's path gets rid of it.
    fn out_of_sight(self, bitrate: usize) -> Duration {
        match self {
            Class::LowLatency => Duration::ZERO,
            Class::Viewer => Duration::from_secs_f64(HELD as f64 / (bitrate as f64 / 8.0 * 1.25)),
        }
    }

    /// How long the path stands still: within the budget, beyond it but not beyond what the ring keeps, and beyond
    /// that. The second is so long that a reader which leaves nothing out takes longer than a GOP to catch up: at
    /// three times the stream's bandwidth half of what it is late, at 5/4 of it four times as long.
    const fn stalls(self) -> [Duration; 3] {
        let ms = match self {
            Class::LowLatency => [200, 3_300, 4_500],
            Class::Viewer => [1_000, 3_900, 6_000],
        };
        [
            Duration::from_millis(ms[0]),
            Duration::from_millis(ms[1]),
            Duration::from_millis(ms[2]),
        ]
    }
}

/// From the stall's end, everything that came: what was left of before, and what came live again.
#[derive(Debug)]
struct Recovery {
    /// Media time of what came although it was sent before or in the stall, without a gap.
    leftover: Duration,
    /// From the first byte after the stall until no picture was over the budget any more.
    until_in_budget: Duration,
    /// Latest picture after one GOP.
    worst_later: Duration,
    /// Pictures missed.
    missed: u32,
}

/// Judges the pictures from `stopped` on; nothing of what came before `opened` can be later than that.
fn recovery(
    got: &Got,
    stopped: Instant,
    opened: Instant,
    end: Instant,
    budget: Duration,
) -> Recovery {
    let before = got.pictures.iter().rfind(|p| p.at <= stopped);
    let before = before.expect("pictures before the stall").number;
    let after = || got.pictures.iter().filter(|p| p.at > opened && p.at <= end);
    let first = *got.all.iter().find(|at| **at > opened).expect("it goes on");
    // What the path and the kernel held comes in order, up to the first gap.
    let mut last = before;
    for picture in got
        .pictures
        .iter()
        .filter(|p| p.at > stopped && p.at <= end)
    {
        if picture.number != last + 1 {
            assert!(picture.is_key, "continues at {}", picture.number);
            break;
        }
        last = picture.number;
    }
    let late: Vec<&Seen> = after().filter(|p| p.late > budget).collect();
    let in_budget = late.last().map_or(first, |p| p.at);
    let worst_later = after()
        .filter(|p| p.at > first + GOP_TIME)
        .map(|p| p.late)
        .max();
    let newest = after()
        .next_back()
        .expect("pictures after the stall")
        .number;
    let came = got
        .pictures
        .iter()
        .filter(|p| p.number > before && p.at <= end);
    Recovery {
        leftover: Duration::from_millis(u64::from((last - before) * FRAME)),
        until_in_budget: in_budget - first,
        worst_later: worst_later.expect("pictures a GOP after the stall"),
        missed: newest - before - came.count() as u32,
    }
}

/// How late the healthy reader was at worst: the machine's own delays, which are nobody's lag.
fn noise(healthy: &Watcher) -> Duration {
    healthy.look(|got| {
        let late = got.pictures.iter().filter(|p| p.number >= GOP);
        late.map(|p| p.late).max().unwrap_or_default()
    })
}

fn assert_recovered(what: &str, recovery: &Recovery, budget: Duration, noise: Duration) {
    println!(
        "{what}: {} ms of before, {} missed; in budget after {} ms, then {} ms late at worst (machine: {} ms)",
        recovery.leftover.as_millis(),
        recovery.missed,
        recovery.until_in_budget.as_millis(),
        recovery.worst_later.as_millis(),
        noise.as_millis()
    );
    assert!(
        recovery.until_in_budget <= GOP_TIME + noise,
        "{what}: over budget for longer than a GOP"
    );
    assert!(
        recovery.worst_later <= budget + noise,
        "{what}: over budget again"
    );
}

/// How the stalled reader comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Rtmp,
    /// Through TLS: what stalls is ciphertext.
    Rtmps,
}

/// One reader on a path that stands still three times.
async fn stalled_reader_recovers(class: Class, bitrate: usize, door: Door) {
    let pair = Pair::new();
    let house = House::open_with("", &pair.section()).await;
    let rtmp = house.urls.rtmp();
    let server = match door {
        Door::Rtmp => rtmp,
        Door::Rtmps => house.server.rtmps_addr().expect("it listens"),
    };
    let path = Throttle::before(server, class.bandwidth(bitrate)).await;
    let tunnel = Tunnel::to(path.address(), pair.trusting()).await;
    let live = Live::start(&house.urls.push("a"), bitrate).await;
    let url = match class {
        Class::LowLatency => house.urls.peer("a"),
        Class::Viewer => house.urls.plain("a"),
    };
    let healthy = Watcher::start(&url, &live.sent).await;
    let far = match door {
        Door::Rtmp => path.through(&url, rtmp),
        Door::Rtmps => tunnel.through(&url, rtmp),
    };
    let stalled = Watcher::start(&far, &live.sent).await;
    poll("two GOPs", SOON, || async {
        stalled
            .look(|got| got.pictures.len() > 2 * GOP as usize)
            .then_some(())
    })
    .await
    .expect("it plays");
    let budget = class.budget() + class.out_of_sight(bitrate);
    for stall in class.stalls() {
        let stopped = Instant::now();
        path.set(Flow::Stopped);
        sleep(stall).await;
        let [told] = readers_behind(&house, "a", stall).await;
        path.set(class.bandwidth(bitrate));
        let opened = Instant::now();
        sleep(OPEN).await;
        let recovery = stalled.look(|got| recovery(got, stopped, opened, Instant::now(), budget));
        let what = format!("{class:?} over {door:?} at {bitrate} bit/s, {stall:?}");
        println!(
            "{what}: the API said {} ms, {} bytes unacknowledged, {}",
            told["lag_ms"], told["unacknowledged_bytes"], told["state"]
        );
        assert_recovered(&what, &recovery, budget, noise(&healthy));
        // Of a stall that is well within its budget a viewer misses nothing.
        let covered = class == Class::Viewer && stall < class.budget() / 2;
        assert!(!covered || recovery.missed == 0, "{what}: {recovery:?}");
    }
    let sent = live.sent.lock().expect("no panic").len() as u32;
    healthy.look(|got| {
        let first = got.pictures[0].number;
        let numbers = got.pictures.iter().map(|p| p.number);
        assert!(numbers.eq(first..first + got.pictures.len() as u32));
        assert!(first + got.pictures.len() as u32 + GOP > sent, "it lags");
    });
}

/// The readers of `name` that the API says are behind by most of `stall`, once their number is right: what the path
/// holds is acknowledged, so that much less.
async fn readers_behind<const N: usize>(house: &House, name: &str, stall: Duration) -> [Value; N] {
    let least = (stall / 2).as_millis() as u64;
    let path = format!("/api/v1/streams/live/{name}/readers");
    let what = format!("{N} readers behind by {least} ms");
    poll(&what, SOON, || async {
        let told = house.control().get(&path).await.expect("an answer").json();
        let readers = told["readers"].as_array().expect("a list").iter();
        let behind = readers.filter(|r| r["lag_ms"].as_u64().is_some_and(|lag| lag >= least));
        let behind: Vec<Value> = behind.cloned().collect();
        behind.try_into().ok()
    })
    .await
    .expect("they are")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_low_latency_reader_is_back_in_budget_within_a_gop_at_2_mbit() {
    stalled_reader_recovers(Class::LowLatency, MBIT_2, Door::Rtmp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_low_latency_reader_is_back_in_budget_within_a_gop_at_350_kbit() {
    stalled_reader_recovers(Class::LowLatency, KBIT_350, Door::Rtmp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_viewer_is_back_in_budget_within_a_gop_at_2_mbit() {
    stalled_reader_recovers(Class::Viewer, MBIT_2, Door::Rtmp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_viewer_is_back_in_budget_within_a_gop_at_350_kbit() {
    stalled_reader_recovers(Class::Viewer, KBIT_350, Door::Rtmp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_inside_tls_are_back_in_budget_within_a_gop() {
    tokio::join!(
        stalled_reader_recovers(Class::LowLatency, MBIT_2, Door::Rtmps),
        stalled_reader_recovers(Class::LowLatency, KBIT_350, Door::Rtmps),
        stalled_reader_recovers(Class::Viewer, KBIT_350, Door::Rtmps),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_whose_link_goes_down_are_back_in_budget_within_a_gop() {
    let Some(network) = network::for_test("readers whose link goes down").await else {
        return;
    };
    let server = Binary::serve_in(&network).await;
    let live = Live::start(&server.urls.push("a"), MBIT_2).await;
    let mut readers = Vec::new();
    for (class, url) in [
        (Class::LowLatency, server.urls.peer("a")),
        (Class::Viewer, server.urls.plain("a")),
    ] {
        let far = network.by_the_other_link(&url);
        readers.push((class, Watcher::start(&far, &live.sent).await));
    }
    let healthy = Watcher::start(&server.urls.plain("a"), &live.sent).await;
    for (_, reader) in &readers {
        poll("two GOPs", SOON, || async {
            reader
                .look(|got| got.pictures.len() > 2 * GOP as usize)
                .then_some(())
        })
        .await
        .expect("it plays");
    }
    // TCP tries again ever more rarely, so after the longest stall it may come to it as late again.
    for stall in DOWN {
        let stopped = Instant::now();
        network.set_link(false).await;
        sleep(stall).await;
        network.set_link(true).await;
        let opened = Instant::now();
        sleep(stall + OPEN).await;
        for (class, reader) in &readers {
            let end = Instant::now();
            let recovery = reader.look(|got| recovery(got, stopped, opened, end, class.budget()));
            let what = format!("{class:?}, link down for {stall:?}");
            assert_recovered(&what, &recovery, class.budget(), noise(&healthy));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_readers_stalled_for_70_s_cost_no_memory_and_ten_healthy_ones_nothing() {
    const STALL: Duration = Duration::from_secs(70);
    // They are to stay for all of it.
    let patient = "[classes.low_latency]\nstuck = \"5m\"\n[classes.viewer]\nstuck = \"5m\"\n";
    let mut server = Binary::serve(patient).await;
    let rtmp = server.urls.rtmp();
    let live = Live::start(&server.urls.push("a"), MBIT_2).await;
    let path = Throttle::before(rtmp, Flow::Rate(10 * MBIT_2)).await;
    let mut healthy = Vec::new();
    let mut stalled = Vec::new();
    for n in 0..10 {
        // Five of each class, of both sorts.
        let url = match n % 2 {
            0 => server.urls.plain("a"),
            _ => server.urls.peer("a"),
        };
        healthy.push(Watcher::start(&url, &live.sent).await);
        stalled.push(Watcher::start(&path.through(&url, rtmp), &live.sent).await);
    }
    // The ring is as full as it gets once it has its history and a GOP: 4 s and 1 s.
    for reader in healthy.iter().chain(&stalled) {
        poll("six GOPs", SOON, || async {
            reader
                .look(|got| got.pictures.len() > 6 * GOP as usize)
                .then_some(())
        })
        .await
        .expect("it plays");
    }
    let before = server.resident();
    path.set(Flow::Stopped);
    let end = Instant::now() + STALL;
    while Instant::now() < end {
        sleep(Duration::from_secs(5)).await;
        server.assert_flat(before, "ten stalled readers").await;
    }
    let sent = live.sent.lock().expect("no panic").len();
    for reader in &healthy {
        reader.look(|got| {
            let first = got.pictures[0].number;
            let numbers = got.pictures.iter().map(|p| p.number);
            assert!(numbers.eq(first..first + got.pictures.len() as u32));
            assert!(first as usize + got.pictures.len() + 2 * GOP as usize > sent);
            assert_eq!(got.ended, None);
        });
    }
    // And they come back.
    path.set(Flow::Rate(10 * MBIT_2));
    let opened = Instant::now();
    for reader in &stalled {
        poll("a picture in time", SOON, || async {
            let in_time = |p: &Seen| p.at > opened && p.late < Class::Viewer.budget();
            reader
                .look(|got| got.pictures.iter().any(in_time))
                .then_some(())
        })
        .await
        .expect("it goes on");
        println!("back after {} ms", opened.elapsed().as_millis());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_for_too_long_is_closed_and_told_why() {
    let house = House::open_with("", "[classes.viewer]\nstuck = \"2s\"\n").await;
    let path = Throttle::before(house.urls.rtmp(), Flow::Rate(MBIT_2)).await;
    let live = Live::start(&house.urls.push("a"), MBIT_2).await;
    let url = path.through(&house.urls.plain("a"), house.urls.rtmp());
    let reader = Watcher::start(&url, &live.sent).await;
    poll("a GOP", SOON, || async {
        reader
            .look(|got| got.pictures.len() > GOP as usize)
            .then_some(())
    })
    .await
    .expect("it plays");
    path.set(Flow::Stopped);
    poll("that it has to go", SOON, || async {
        let told = house.control().get("/api/v1/streams/live/a/readers").await;
        let told = told.expect("an answer").json();
        (told["readers"][0]["state"] == "leaving").then_some(())
    })
    .await
    .expect("its time is up");
    // It reads again while the last words wait.
    path.set(Flow::Rate(MBIT_2));
    let words = poll("the close", SOON, || async {
        reader.look(|got| got.ended.clone())
    })
    .await
    .expect("it is closed");
    assert_eq!(
        words,
        "too slow: nothing was taken for 2 s [too_slow] (12/0)"
    );
    let metrics = house.control().get("/metrics").await.expect("metrics").body;
    let line = "linkmic_ingest_disconnects_total{reason=\"too_slow\"} 1";
    assert!(metrics.lines().any(|l| l == line), "{metrics}");
}
