//! Readers far away: a round trip of 100 ms is counted as lag, and is no reason to leave anything out.

use std::time::Duration;

use linkmic::probe::process::poll;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::SOON;
use super::live::{GOP, Live, Seen, Watcher};
use super::network;
use crate::abuse::binary::Binary;

const MBIT_2: usize = 2_000_000;
const ONE_WAY: Duration = Duration::from_millis(50);
/// How long readers are looked at.
const WINDOW: Duration = Duration::from_secs(4);
/// A machine that is late by more than this by itself is looked at once more: with the distance it would be too much
/// for a reader that may be 400 ms behind.
const NOISE: Duration = Duration::from_millis(150);
const TRIES: usize = 5;

/// What a reader got within a window.
fn since(reader: &Watcher, begin: Instant) -> Vec<Seen> {
    reader.look(|got| {
        assert_eq!(got.ended, None);
        let pictures = got.pictures.iter().filter(|p| p.at > begin);
        pictures.copied().collect()
    })
}

fn latest(pictures: &[Seen]) -> Duration {
    pictures.iter().map(|p| p.late).max().unwrap_or_default()
}

/// What the API tells of each reader, in the order in which they came.
async fn told(server: &Binary) -> Vec<Value> {
    let path = "/api/v1/streams/live/a/readers";
    let answer = server.control.get(path).await.expect("an answer").json();
    let mut readers = answer["readers"].as_array().expect("a list").clone();
    readers.sort_by_key(|reader| reader["id"].as_u64());
    readers
}

fn median(mut lags: Vec<u64>) -> u64 {
    lags.sort_unstable();
    lags[lags.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_100_ms_away_miss_nothing_and_their_lag_is_told_with_the_distance() {
    let Some(network) = network::for_test("readers 100 ms away").await else {
        return;
    };
    let way = network.far_away(ONE_WAY).await;
    let server = Binary::serve_in(&network).await;
    let live = Live::start(&server.urls.push("a"), MBIT_2).await;
    let near = Watcher::start(&server.urls.plain("a"), &live.sent).await;
    let mut far = Vec::new();
    for url in [server.urls.plain("a"), server.urls.peer("a")] {
        far.push(Watcher::start(&way.through(&url), &live.sent).await);
    }
    for reader in [&near].into_iter().chain(&far) {
        poll("three GOPs", SOON, || async {
            reader.look(|got| (got.pictures.len() > 3 * GOP as usize).then_some(()))
        })
        .await
        .expect("it plays");
    }
    for tries in (1..=TRIES).rev() {
        let begin = Instant::now();
        let skipped = |readers: &[Value]| -> Vec<u64> {
            let skipped = readers.iter().map(|r| r["skipped"].as_u64());
            skipped.map(|count| count.expect("a number")).collect()
        };
        let before = skipped(&told(&server).await);
        let mut lags = [const { Vec::new() }; 3];
        while begin.elapsed() < WINDOW {
            for (lags, reader) in lags.iter_mut().zip(told(&server).await) {
                lags.push(reader["lag_ms"].as_u64().expect("it has been written"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        let machine = latest(&since(&near, begin));
        if machine > NOISE {
            println!("the machine itself was {machine:?} late; once more");
            continue;
        }
        // Late for a while is the machine, late each time is the server.
        let farthest = far.iter().map(|reader| latest(&since(reader, begin))).max();
        if farthest > Some(2 * ONE_WAY + NOISE) && tries > 1 {
            println!("the far ones were {farthest:?} late; once more");
            continue;
        }
        assert_eq!(skipped(&told(&server).await), before, "left out");
        let [near_lag, far_lags @ ..] = lags.map(median);
        println!("near: {near_lag} ms behind; far: {far_lags:?} ms; machine: {machine:?}");
        for (reader, lag) in far.iter().zip(far_lags) {
            let pictures = since(reader, begin);
            let soonest = pictures.iter().map(|p| p.late).min();
            assert!(soonest >= Some(ONE_WAY), "the way is shorter: {soonest:?}");
            assert!(
                latest(&pictures) <= 2 * ONE_WAY + NOISE,
                "{:?}",
                latest(&pictures)
            );
            for pair in pictures.windows(2) {
                assert_eq!(pair[1].number, pair[0].number + 1);
            }
            // From the last picture that is acknowledged to the newest: the way there and back, up to a picture's
            // interval, and what an acknowledgement may be held back.
            let distance = (2 * ONE_WAY).as_millis() as u64;
            assert!((distance - 20..=distance + 120).contains(&lag), "{lag} ms");
        }
        assert!(near_lag <= 60, "{near_lag} ms");
        return;
    }
    panic!("the machine was never quiet enough to tell");
}
