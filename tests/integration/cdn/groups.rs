//! Targets that stand in for each other, and the time that goes on at a target that crashed.

use linkmic::probe::nginx::Nginx;
use linkmic::rtmp::kind;
use serde_json::json;

use super::narrow::{Narrow, WIDE};
use super::stage::{FRAME, Frame, GOP, Program, Recording, of_kind, on_air, put, until};
use crate::edge::house::{BURST, House};
use crate::edge::throttle::Flow;

const MBIT: usize = 1_000_000;

fn pictures(frames: &[Frame]) -> Vec<u32> {
    let pictures = of_kind(frames, kind::VIDEO);
    pictures.iter().filter_map(|frame| frame.number()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_takes_over_from_a_dead_primary_and_hands_back_before_a_key_frame() {
    let house = House::open_with("", "[push]\nfailover = \"1s\"\nsteady = \"2s\"").await;
    // The backup's readers outlive its silence.
    let [primary, backup] = [
        House::open_with("", BURST).await,
        House::open_with("", BURST).await,
    ];
    let path = Narrow::before(primary.urls.rtmp(), WIDE).await;
    let program = Program::start(&house.urls.push("a"), MBIT).await;
    on_air(&house, "a").await;
    let member = |role: &str| json!({"group": "main", "role": role});
    let first = path.through(&primary.urls.push("a"), primary.urls.rtmp());
    put(&house, "p", &first, member("primary")).await;
    until(house.control(), "p", "it publishes", |p| {
        p["state"] == "live"
    })
    .await;
    put(&house, "b", &backup.urls.push("a"), member("backup")).await;
    let standby = until(house.control(), "b", "it stands by", |p| {
        p["state"] == "standby"
    })
    .await;
    assert_eq!(
        (&standby["group"], &standby["role"]),
        (&json!("main"), &json!("backup"))
    );
    assert_eq!(standby["connects"], 0);
    let metrics = house.ask("/metrics").await.body;
    assert!(
        metrics.contains("linkmic_push_targets{state=\"standby\"} 1"),
        "{metrics}"
    );

    path.set(Flow::Stopped);
    on_air(&backup, "a").await;
    let recording = Recording::of(&backup.urls.plain("a")).await;
    let live = until(house.control(), "b", "it publishes", |p| {
        p["state"] == "live"
    })
    .await;
    assert_eq!(live["takeovers"], 1, "{live}");
    path.set(WIDE);
    let back = until(house.control(), "b", "it stands by again", |p| {
        p["state"] == "standby"
    })
    .await;
    assert_eq!(
        (&back["connects"], &back["failures"]),
        (&json!(1), &json!(0)),
        "{back}"
    );
    let seen = pictures(&recording.whole().await);
    assert_eq!(seen[0] % GOP, 0, "it begins at a key frame");
    let last = seen[seen.len() - 1];
    assert_eq!(last % GOP, GOP - 1, "it ends before one");
    assert_eq!(
        seen.len() as u32,
        last - seen[0] + 1,
        "with nothing missing"
    );

    // By then the primary had published for a while.
    on_air(&primary, "a").await;
    let recording = Recording::of(&primary.urls.plain("a")).await;
    let seen = pictures(&recording.upto(last + GOP).await);
    assert!(
        seen.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{seen:?}"
    );
    let publishes = until(house.control(), "p", "it publishes", |p| {
        p["state"] == "live"
    })
    .await;
    assert!(publishes["failures"].as_u64() >= Some(1), "{publishes}");
    program.finish().await;
    // Neither is left hanging when the program is over.
    for id in ["p", "b"] {
        until(house.control(), id, "it waits", |p| p["state"] == "waiting").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_one_group_push_each_stream_to_one_of_their_targets() {
    let target = House::open_with("push = \"open\"", "").await;
    // Nobody listens at port 1 of this machine.
    let rules = format!(
        "[push]\nfailover = \"1s\"\n\
         [[push.rules]]\napp = \"live\"\nmatch = \"*\"\nurl = \"rtmp://127.0.0.1:1/live/{{stream}}\"\ngroup = \"cdn\"\n\
         [[push.rules]]\napp = \"live\"\nmatch = \"*\"\nurl = \"rtmp://{}/live/{{stream}}\"\ngroup = \"cdn\"\nrole = \"backup\"",
        target.urls.rtmp()
    );
    let house = House::open_with("", &rules).await;
    let program = Program::start(&house.urls.push("a"), MBIT).await;
    on_air(&target, "a").await;
    let backup = until(house.control(), "rule:1:live:a", "it publishes", |p| {
        p["state"] == "live"
    });
    assert_eq!(backup.await["takeovers"], 1);
    let primary = until(house.control(), "rule:0:live:a", "it failed", |p| {
        p["failures"] != 0
    });
    assert_eq!(primary.await["role"], "primary");
    program.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_at_a_target_goes_on_with_the_pictures_across_its_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut nginx = Nginx::start(folder.path()).await.expect("nginx");
    let house = House::open().await;
    let _program = Program::start(&house.urls.push("a"), MBIT).await;
    put(&house, "cdn", &nginx.url("a"), json!({})).await;
    let mut all = Vec::new();
    for round in 0..3u64 {
        until(house.control(), "cdn", "it publishes", |p| {
            p["state"] == "live" && p["connects"].as_u64() > Some(round)
        })
        .await;
        let recording = Recording::of(&nginx.url("a")).await;
        let newest = all.last().map_or(0, |&(number, _)| number);
        let got = recording.upto(newest + 2 * GOP).await;
        let got = of_kind(&got, kind::VIDEO);
        all.extend(got.iter().map(|f| (f.number().expect("numbered"), f.time)));
        nginx.kill().await;
        until(house.control(), "cdn", "the crash noticed", |p| {
            p["failures"].as_u64() > Some(round)
        })
        .await;
        nginx.restart().await.expect("nginx again");
    }
    let (first, begin) = all[0];
    for pair in all.windows(2) {
        assert!(pair[1].0 > pair[0].0 && pair[1].1 > pair[0].1, "{pair:?}");
    }
    for (number, time) in all {
        assert_eq!(time - begin, (number - first) * FRAME, "picture {number}");
    }
}
