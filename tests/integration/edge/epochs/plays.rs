//! Several plays on one connection: each on a message stream of its own, whole messages of one after those of the other.

use std::collections::HashMap;
use std::time::Duration;

use linkmic::probe::process::poll;
use linkmic::rtmp::{Message, kind};
use tokio::time::{Instant, sleep};

use super::super::SOON;
use super::super::client::Client;
use super::super::clip::{number_of, numbered};
use super::super::house::House;
use super::super::throttle::{Flow, Throttle};
use super::beside::{LONG, PLAYS, ask, publisher, source, status};
use super::streams::{Many, goes_on};

/// Asks to play on that message stream, as a viewer.
async fn view(many: &mut Many, stream_id: u32, name: &str) {
    many.say(stream_id, "play", |w| {
        w.string(name);
    })
    .await;
}

/// The pictures that come until each of these streams has shown that number, by stream; all of them whole.
async fn pictures_until(many: &mut Many, last: &[(u32, u32)]) -> HashMap<u32, Vec<u32>> {
    let mut seen: HashMap<u32, Vec<u32>> = HashMap::new();
    let is_there = |seen: &HashMap<u32, Vec<u32>>, (id, number): &(u32, u32)| {
        seen.get(id).and_then(|all| all.last()) == Some(number)
    };
    while !last.iter().all(|last| is_there(&seen, last)) {
        let picture = |m: Message| {
            let number = number_of(&m.payload).filter(|_| m.type_id == kind::VIDEO)?;
            let bytes = &m.payload[9..];
            assert!(m.payload.len() == LONG && bytes.iter().all(|byte| *byte == 0x5a));
            Some((m.stream_id, number))
        };
        let (id, number) = many.next("a picture", picture).await;
        seen.entry(id).or_default().push(number);
    }
    seen
}

/// Readers of that name, as the API tells of them.
async fn readers(house: &House, name: &str) -> usize {
    let path = format!("/api/v1/streams/live/{name}/readers");
    let answer = house.control().get(&path).await.expect("an answer");
    answer.json()["readers"].as_array().map_or(0, Vec::len)
}

async fn wait_for_readers(house: &House, name: &str, count: usize) {
    let seen = poll("its readers", SOON, || async {
        (readers(house, name).await == count).then_some(())
    });
    seen.await.expect("they are counted");
}

/// One connection has ended for that reason.
async fn wait_for_end(house: &House, reason: &str) {
    let line = format!("linkmic_ingest_disconnects_total{{reason=\"{reason}\"}} 1");
    let seen = poll(&line, SOON, || async {
        let metrics = house.control().get("/metrics").await.expect("metrics");
        metrics.body.contains(&line).then_some(())
    });
    seen.await.expect("it is counted");
}

/// Both send these pictures at once, each message in many pieces.
async fn send_both(a: &mut Client, b: &mut Client, numbers: std::ops::RangeInclusive<u32>) {
    for n in numbers {
        let is_key = n % 20 == 0;
        let picture = || numbered(n, is_key, LONG);
        tokio::join!(
            a.send(kind::VIDEO, 40 * n, picture()),
            b.send(kind::VIDEO, 40 * n, picture())
        );
    }
}

/// Sends these pictures, each of both at once, and takes what comes of them on those streams, by stream.
async fn in_step(
    many: &mut Many,
    (a, b): (&mut Client, &mut Client),
    numbers: std::ops::RangeInclusive<u32>,
    ids: &[u32],
) -> HashMap<u32, Vec<u32>> {
    let mut all: HashMap<u32, Vec<u32>> = HashMap::new();
    for n in numbers {
        let last: Vec<_> = ids.iter().map(|id| (*id, n)).collect();
        let ((), seen) = tokio::join!(send_both(a, b, n..=n), pictures_until(many, &last));
        for (id, numbers) in seen {
            all.entry(id).or_default().extend(numbers);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_plays_two_names_whole_and_each_ends_by_itself() {
    let house = House::open().await;
    let (mut a, mut b) = (source(&house, "a").await, source(&house, "b").await);
    let mut many = Many::connect(&house).await;
    assert_eq!((many.create().await, many.create().await), (1, 2));
    view(&mut many, 1, "a").await;
    assert_eq!(status(&mut many, 1).await.0, PLAYS);
    // A peer's class beside a viewer's, which another loop serves.
    ask(&mut many, &house, 2, "b").await;
    assert_eq!(status(&mut many, 2).await.0, PLAYS);
    let seen = in_step(&mut many, (&mut a, &mut b), 1..=40, &[1, 2]).await;
    let all: Vec<u32> = (1..=40).collect();
    // The first ones came while an answer was looked for.
    assert!(seen[&1].ends_with(&all), "{seen:?}");
    assert!(seen[&2].ends_with(&all), "{seen:?}");
    wait_for_readers(&house, "a", 1).await;
    wait_for_readers(&house, "b", 1).await;

    // Answers and wishes keep to their stream.
    many.say(1, "pause", |w| {
        w.boolean(true);
    })
    .await;
    assert_eq!(status(&mut many, 1).await.0, "NetStream.Pause.Notify");
    assert_eq!(many.create().await, 3);
    let seen = in_step(&mut many, (&mut a, &mut b), 41..=45, &[2]).await;
    let only = HashMap::from([(2, (41..=45).collect())]);
    assert_eq!(seen, only);

    // The first ends; its stream plays something else, a third one plays the same, and the second goes on.
    many.say(1, "closeStream", |_| {}).await;
    view(&mut many, 1, "b").await;
    assert_eq!(status(&mut many, 1).await.0, PLAYS);
    view(&mut many, 3, "a").await;
    assert_eq!(status(&mut many, 3).await.0, PLAYS);
    wait_for_readers(&house, "b", 2).await;
    let seen = in_step(&mut many, (&mut a, &mut b), 46..=80, &[1, 2, 3]).await;
    let all: Vec<u32> = (46..=80).collect();
    for id in 1..=3 {
        assert!(seen[&id].ends_with(&all), "{id}: {seen:?}");
    }

    // What they play ends.
    b.unpublish().await;
    let mut told = Vec::new();
    while told.len() < 4 {
        let (id, code, _) = many.status().await;
        told.push((id, code));
    }
    for id in [1, 2] {
        for code in ["NetStream.Play.UnpublishNotify", "NetStream.Play.Stop"] {
            assert!(told.contains(&(id, code.to_owned())), "{told:?}");
        }
    }
    a.send(kind::VIDEO, 3_240, numbered(81, false, LONG)).await;
    let seen = pictures_until(&mut many, &[(3, 81)]).await;
    assert_eq!(seen[&3], [81]);
    drop(many);
    wait_for_readers(&house, "a", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_plays_two_names_besides_and_an_absent_one_is_waited_for_in_vain() {
    let house = House::open_with("", "[limits]\nwait = \"500ms\"").await;
    let (mut a, mut b) = (source(&house, "a").await, source(&house, "b").await);
    let (mut many, mut viewer) = publisher(&house).await;
    for id in 2..=4 {
        assert_eq!(many.create().await, id);
    }
    for (id, name) in [(2, "a"), (3, "absent"), (4, "b")] {
        ask(&mut many, &house, id, name).await;
    }
    // In whatever order they come.
    let mut told = HashMap::new();
    while told.len() < 3 {
        let (id, code, why) = many.status().await;
        if code != "NetStream.Play.Reset" {
            told.insert(id, (code, why));
        }
    }
    assert_eq!((told[&2].0.as_str(), told[&4].0.as_str()), (PLAYS, PLAYS));
    assert_eq!(told[&3].0, "NetStream.Play.StreamNotFound", "{told:?}");
    let seen = in_step(&mut many, (&mut a, &mut b), 20..=60, &[2, 4]).await;
    let all: Vec<u32> = (20..=60).collect();
    assert!(
        seen[&2].ends_with(&all) && seen[&4].ends_with(&all),
        "{seen:?}"
    );
    goes_on(&mut many, 1, &mut viewer).await;
    // It stops publishing, then its first play.
    many.say(1, "closeStream", |_| {}).await;
    many.say(2, "closeStream", |_| {}).await;
    wait_for_readers(&house, "a", 0).await;
    b.send(kind::VIDEO, 2_440, numbered(61, false, LONG)).await;
    let seen = pictures_until(&mut many, &[(4, 61)]).await;
    assert_eq!(seen[&4].last(), Some(&61));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_plays_behind_a_path_that_stands_still_are_both_bounded_and_both_go_on() {
    // Some 14 pictures each, and what the sockets and the ring's newest key frame hold.
    let house = House::open_with("", "[classes.viewer]\nmax_bytes = \"1MiB\"").await;
    let (mut a, mut b) = (source(&house, "a").await, source(&house, "b").await);
    let mut many = Many::connect(&house).await;
    assert_eq!((many.create().await, many.create().await), (1, 2));
    view(&mut many, 1, "a").await;
    assert_eq!(status(&mut many, 1).await.0, PLAYS);
    view(&mut many, 2, "b").await;
    assert_eq!(status(&mut many, 2).await.0, PLAYS);
    // It reads nothing meanwhile: 28 MB for it.
    send_both(&mut a, &mut b, 1..=200).await;
    let begun = Instant::now();
    let seen = pictures_until(&mut many, &[(1, 200), (2, 200)]).await;
    for id in [1, 2] {
        let numbers = &seen[&id];
        assert!(numbers.is_sorted(), "{id}: {numbers:?}");
        assert!(numbers.len() < 100, "{id}: {} of 200", numbers.len());
        // After each gap it goes on at a key frame.
        for pair in numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1) {
            assert_eq!(pair[1] % 20, 0, "{id}: {numbers:?}");
        }
    }
    assert!(begun.elapsed() < SOON);
    send_both(&mut a, &mut b, 201..=210).await;
    let seen = pictures_until(&mut many, &[(1, 210), (2, 210)]).await;
    let all: Vec<u32> = (201..=210).collect();
    assert_eq!((&seen[&1], &seen[&2]), (&all, &all));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_plays_of_a_client_that_never_reads_end_with_its_connection() {
    let house = House::open_with("", "[classes.viewer]\nstuck = \"1s\"").await;
    let (mut a, mut b) = (source(&house, "a").await, source(&house, "b").await);
    let mut many = Many::connect(&house).await;
    assert_eq!((many.create().await, many.create().await), (1, 2));
    for (id, name) in [(1, "a"), (2, "b")] {
        view(&mut many, id, name).await;
        assert_eq!(status(&mut many, id).await.0, PLAYS);
    }
    let end = Instant::now() + SOON;
    let mut n = 1;
    while readers(&house, "a").await + readers(&house, "b").await > 0 {
        assert!(Instant::now() < end, "they are still served");
        send_both(&mut a, &mut b, n..=n).await;
        n += 1;
        // At the pace of a stream.
        sleep(Duration::from_millis(20)).await;
    }
    many.closed().await;
    wait_for_end(&house, "too_slow").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_for_more_than_one_play_may_say_no_more_than_a_player() {
    let house = House::open().await;
    let _a = source(&house, "a").await;
    let mut many = Many::connect(&house).await;
    assert_eq!((many.create().await, many.create().await), (1, 2));
    view(&mut many, 1, "a").await;
    assert_eq!(status(&mut many, 1).await.0, PLAYS);
    view(&mut many, 2, "a").await;
    assert_eq!(status(&mut many, 2).await.0, PLAYS);
    assert!(many.flood("nonsense").await, "it is heard for ever");
    wait_for_end(&house, "limit_reached").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_play_asked_for_with_the_end_of_a_publish_and_another_play_begins_too() {
    let house = House::open().await;
    let (_a, _b) = (source(&house, "a").await, source(&house, "b").await);
    let (mut many, _viewer) = publisher(&house).await;
    assert_eq!((many.create().await, many.create().await), (2, 3));
    let all = [
        (2, "play", Some("a")),
        (1, "closeStream", None),
        (3, "play", Some("b")),
    ];
    many.say_at_once(&all).await;
    let mut begun = Vec::new();
    while begun.len() < 2 {
        let (id, code, _) = many.status().await;
        if code == PLAYS {
            begun.push(id);
        }
    }
    begun.sort_unstable();
    assert_eq!(begun, [2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_plays_is_stopped_on_a_slow_path_and_the_other_goes_on() {
    let house = House::open().await;
    let (mut a, mut b) = (source(&house, "a").await, source(&house, "b").await);
    let server = house.urls.rtmp();
    let path = Throttle::before(server, Flow::Rate(200 << 10)).await;
    let url = path.through(&house.urls.plain("x"), server);
    let mut many = Many::connect_to(&url).await;
    assert_eq!((many.create().await, many.create().await), (1, 2));
    view(&mut many, 1, "b").await;
    assert_eq!(status(&mut many, 1).await.0, PLAYS);
    let seen = pictures_until(&mut many, &[(1, 0)]).await;
    assert_eq!(seen[&1], [0]);
    // Of this one 3.5 MB are to be given at once, for which the path takes 17 s.
    for n in 1..50 {
        a.send(kind::VIDEO, 40 * n, numbered(n, false, LONG)).await;
    }
    view(&mut many, 2, "a").await;
    assert_eq!(status(&mut many, 2).await.0, PLAYS);
    many.say(2, "closeStream", |_| {}).await;
    wait_for_readers(&house, "a", 0).await;
    path.set(Flow::Rate(10 << 20));
    b.send(kind::VIDEO, 40, numbered(1, false, LONG)).await;
    let seen = pictures_until(&mut many, &[(1, 1)]).await;
    assert_eq!(seen[&1], [1]);
}
