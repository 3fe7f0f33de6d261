//! Players one by one: what the API tells of them, how one is dropped, and what they may ask for while they play.

use linkmic::probe::process::poll;
use linkmic::rtmp::session::client::Event;
use linkmic::rtmp::{Message, kind};
use serde_json::Value;

use super::SOON;
use super::client::{Client, is_frame, is_header, is_key_frame};
use super::clip::{clip, number_of, numbered};
use super::house::House;
use super::live::{FRAME, GOP};

/// Bytes of a picture: 350 kbit/s.
const PICTURE: usize = 1_750;
const SOUND: [u8; 3] = [0xaf, 1, 0x5a];

/// A publisher of numbered pictures, each with a sound 10 ms later.
struct Source {
    client: Client,
    next: u32,
}

impl Source {
    async fn start(house: &House) -> Self {
        let mut client = Client::publish(&house.urls.push("a"))
            .await
            .expect("granted");
        for header in clip().await.headers() {
            client.send_tag(header, 0).await;
        }
        Self { client, next: 0 }
    }

    /// Publishes up to and including picture `upto`.
    async fn publish(&mut self, upto: u32) {
        for n in self.next..=upto {
            let frame = numbered(n, n % GOP == 0, PICTURE);
            self.client.send(kind::VIDEO, n * FRAME, frame).await;
            self.client
                .send(kind::AUDIO, n * FRAME + 10, SOUND.to_vec())
                .await;
        }
        self.next = upto + 1;
    }
}

fn is(message: &Message, type_id: u8, timestamp: u32) -> bool {
    is_frame(message, type_id) && message.timestamp == timestamp
}

fn pictures(messages: &[Message]) -> Vec<u32> {
    let frames = messages.iter().filter(|m| is_frame(m, kind::VIDEO));
    frames.filter_map(|m| number_of(&m.payload)).collect()
}

async fn told(house: &House) -> Vec<Value> {
    let path = "/api/v1/streams/live/a/readers";
    let answer = house.control().get(path).await.expect("an answer").json();
    answer["readers"].as_array().expect("a list").clone()
}

/// Waits until the newest reader is told to be in that state.
async fn wait_for_state(house: &House, state: &str) {
    poll(state, SOON, || async {
        (told(house).await.last()?["state"] == state).then_some(())
    })
    .await
    .expect("it gets there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_tells_every_reader_with_its_lag_and_drops_the_one_it_is_asked_to() {
    let house = House::open().await;
    let mut source = Source::start(&house).await;
    source.publish(0).await;
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    let mut peer = Client::play(&house.urls.peer("a")).await.expect("granted");
    source.publish(5).await;
    for reader in [&mut viewer, &mut peer] {
        reader
            .media_until(|m| is(m, kind::AUDIO, 5 * FRAME + 10))
            .await;
    }
    // Both have read all there is; the acknowledgement of the last of it may take its time.
    let readers = poll("two readers, all acknowledged", SOON, || async {
        let readers = told(&house).await;
        let all = readers.iter().all(|r| r["unacknowledged_bytes"] == 0);
        (readers.len() == 2 && all).then_some(readers)
    })
    .await
    .expect("they are told");
    // What is documented is what is there.
    let example: Value =
        serde_json::from_str(include_str!("../../../docs/api/readers.json")).expect("an example");
    let keys = |reader: &Value| -> Vec<String> {
        let keys = reader.as_object().expect("an object").keys();
        keys.cloned().collect()
    };
    assert_eq!(keys(&readers[0]), keys(&example["readers"][0]));
    let words = |key: &str| -> Vec<&str> {
        let words = readers.iter().map(|r| r[key].as_str().expect("a word"));
        words.collect()
    };
    assert_eq!(words("class"), ["viewer", "low_latency"]);
    assert_eq!(words("feed"), ["program", "source"]);
    assert_eq!(words("door"), ["rtmp", "rtmp"]);
    assert_eq!(words("state"), ["live", "live"]);
    for reader in &readers {
        assert_eq!(reader["lag_ms"], 0, "{reader}");
        assert_eq!(reader["skipped"], 0, "{reader}");
        assert!(
            reader["bytes"].as_u64() > Some(6 * PICTURE as u64),
            "{reader}"
        );
        let address = reader["address"].as_str().expect("an address");
        assert!(address.starts_with("127.0.0.1:"), "{reader}");
    }

    let drop = |id: u64| {
        let path = format!("/api/v1/streams/live/a/readers/{id}");
        let control = house.control().clone();
        async move { control.delete(&path).await.expect("an answer").status }
    };
    let id = readers[0]["id"].as_u64().expect("a number");
    assert_eq!(drop(id + 1_000).await, 404);
    assert_eq!(drop(id).await, 202);
    loop {
        match viewer.event().await {
            Some(Event::Closed { description, .. }) => {
                assert_eq!(description, "dropped by the operator [dropped] (21/100)");
            }
            Some(_) => {}
            None => break,
        }
    }
    // The other one plays on.
    source.publish(6).await;
    peer.media_until(|m| is(m, kind::VIDEO, 6 * FRAME)).await;
    poll("one reader", SOON, || async {
        (told(&house).await.len() == 1).then_some(())
    })
    .await
    .expect("the other is gone");
    assert_eq!(drop(id).await, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_publisher_sends_in_one_burst_makes_no_reader_late() {
    let house = House::open().await;
    let mut source = Source::start(&house).await;
    source.publish(0).await;
    let mut peer = Client::play(&house.urls.peer("a")).await.expect("granted");
    source.publish(1).await;
    peer.media_until(|m| is(m, kind::AUDIO, FRAME + 10)).await;
    // Four seconds of media time, ten budgets of its class, between two of its key frames: not one picture too old.
    for second in 1..=4 {
        let last = second * GOP - 1;
        source.publish(last).await;
        let got = peer
            .media_until(|m| is(m, kind::AUDIO, last * FRAME + 10))
            .await;
        assert_eq!(pictures(&got).last(), Some(&last));
    }
    assert_eq!(told(&house).await[0]["skipped"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_player_gets_nothing_and_goes_on_at_a_key_frame_of_the_live_edge() {
    let house = House::open().await;
    let mut source = Source::start(&house).await;
    source.publish(0).await;
    // Says what has reached the server.
    let mut witness = Client::play(&house.urls.peer("a")).await.expect("granted");
    let mut player = Client::play(&house.urls.plain("a")).await.expect("granted");
    source.publish(5).await;
    player
        .media_until(|m| is(m, kind::AUDIO, 5 * FRAME + 10))
        .await;

    player.command("pause", true).await;
    wait_for_state(&house, "paused").await;
    source.publish(2 * GOP).await;
    witness
        .media_until(|m| is(m, kind::AUDIO, 2 * GOP * FRAME + 10))
        .await;
    player.command("pause", false).await;
    wait_for_state(&house, "waiting").await;
    // Not the key frame that was missed by a picture, but the next one.
    source.publish(3 * GOP + 1).await;
    let got = player
        .media_until(|m| is(m, kind::VIDEO, (3 * GOP + 1) * FRAME))
        .await;
    assert_eq!(pictures(&got), [3 * GOP, 3 * GOP + 1]);
    let first = got.iter().position(is_key_frame).expect("a key frame");
    for kind in [kind::VIDEO, kind::AUDIO] {
        assert!(got[..first].iter().any(|m| is_header(m, kind)));
        assert!(!got[..first].iter().any(|m| is_frame(m, kind)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_may_do_without_pictures_and_have_them_again_from_a_key_frame() {
    let house = House::open().await;
    let mut source = Source::start(&house).await;
    source.publish(0).await;
    let mut player = Client::play(&house.urls.plain("a")).await.expect("granted");
    source.publish(5).await;
    player
        .media_until(|m| is(m, kind::AUDIO, 5 * FRAME + 10))
        .await;

    player.command("receiveVideo", false).await;
    wait_for_state(&house, "skipping").await;
    source.publish(GOP + 5).await;
    let got = player
        .media_until(|m| is(m, kind::AUDIO, (GOP + 5) * FRAME + 10))
        .await;
    assert_eq!(pictures(&got), [0; 0]);
    assert_eq!(got.len() as u32, GOP, "every sound");
    player.command("receiveVideo", true).await;
    player.command("receiveAudio", false).await;
    poll("pictures and no sound", SOON, || async {
        let told = told(&house).await;
        (told[0]["video"] == true && told[0]["audio"] == false).then_some(())
    })
    .await
    .expect("it is told");
    source.publish(2 * GOP + 3).await;
    let got = player
        .media_until(|m| is(m, kind::VIDEO, (2 * GOP + 3) * FRAME))
        .await;
    assert_eq!(pictures(&got), (2 * GOP..=2 * GOP + 3).collect::<Vec<_>>());
    let key = got.iter().position(is_key_frame).expect("a key frame");
    assert!(is_header(&got[key - 1], kind::AUDIO) || is_header(&got[key - 1], kind::VIDEO));
    assert!(!got.iter().any(|m| is_frame(m, kind::AUDIO)));
    // None of it counts as missed.
    assert_eq!(told(&house).await[0]["skipped"], 0);
}
