//! Video tracks beside the main one: every reader gets each from its own key frame on. Written by hand, so that the
//! tracks' key frames stand where they must not help each other.

use linkmic::probe::process::poll;
use linkmic::rtmp::Message;
use serde_json::Value;

use super::super::client::Client;
use super::super::house::House;
use super::*;

const HEADER: &[u8] = b"\x17\0\0\0\0avcC";
const KEY: &[u8] = b"\x17\x01\0\0\0key";
const INTER: &[u8] = b"\x27\x01\0\0\0inter";
const HEADER_1: &[u8] = b"\x96\x00av01\x01av1C";
const KEY_1: &[u8] = b"\x96\x01av01\x01key";
const INTER_1: &[u8] = b"\xa6\x01av01\x01inter";
/// Tracks 1 and 2 in one message.
const KEYS: &[u8] = b"\x96\x11av01\x01\0\0\x03key\x02\0\0\x03key";
const INTERS: &[u8] = b"\xa6\x11av01\x01\0\0\x05inter\x02\0\0\x05inter";

/// A publisher of several tracks, whose every message says when it was sent.
struct Source {
    client: Client,
    now: u32,
}

impl Source {
    async fn start(house: &House, name: &str) -> Self {
        let client = Client::publish(&house.urls.push(name)).await;
        Self {
            client: client.expect("granted"),
            now: 0,
        }
    }

    async fn send(&mut self, payloads: &[&[u8]]) {
        for payload in payloads {
            let payload = payload.to_vec();
            self.client.send(kind::VIDEO, self.now, payload).await;
            self.now += 40;
        }
    }
}

/// What comes up to and including the message sent at `time`; the stream's zero is its first frame, which came second.
async fn until(client: &mut Client, time: u32) -> Vec<Vec<u8>> {
    let last = |m: &Message| m.timestamp + 40 == time && m.payload[..] != *HEADER;
    let got = client.media_until(last).await;
    got.iter().map(|m| m.payload.to_vec()).collect()
}

/// Waits until the server tells so of the readers of a name.
async fn wait_for(house: &House, name: &str, what: &str, is_so: impl Fn(&[Value]) -> bool) {
    let path = format!("/api/v1/streams/live/{name}/readers");
    let asked = || async {
        let answer = house.control().get(&path).await.expect("an answer").json();
        is_so(answer["readers"].as_array()?).then_some(())
    };
    poll(what, SOON, asked).await.expect("it comes to that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_in_the_middle_gets_each_track_from_its_own_key_frame_on() {
    let house = House::open().await;
    let mut source = Source::start(&house, "a").await;
    source
        .send(&[HEADER, KEY, HEADER_1, KEY_1, INTER, INTER_1])
        .await;
    // The first group of pictures runs, and the second track's header came after its key frame.
    let mut witness = Client::play(&house.urls.plain("a")).await.expect("granted");
    let got = until(&mut witness, 200).await;
    assert_eq!(got, [HEADER, KEY, HEADER_1, KEY_1, INTER, INTER_1]);

    source.send(&[KEY, INTER_1, INTER]).await;
    let got = until(&mut witness, 320).await;
    assert_eq!(got, [KEY, INTER_1, INTER], "it has the key frames of both");
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    let mut peer = Client::play(&house.urls.peer("a")).await.expect("granted");
    for client in [&mut viewer, &mut peer] {
        let got = until(client, 320).await;
        assert_eq!(got, [HEADER, HEADER_1, KEY, INTER]);
    }
    wait_for(&house, "a", "three readers", |all| all.len() == 3).await;
    source.send(&[INTER_1, INTER, KEY_1, INTER, INTER_1]).await;
    let all = [INTER_1, INTER, KEY_1, INTER, INTER_1];
    assert_eq!(until(&mut witness, 520).await, all);
    for client in [&mut viewer, &mut peer] {
        assert_eq!(until(client, 520).await, all[1..]);
    }
    // From here on they may be written what their loop writes.
    source.send(&all).await;
    for client in [&mut witness, &mut viewer, &mut peer] {
        assert_eq!(until(client, 720).await, all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_skips_gets_each_track_from_its_own_next_key_frame_on() {
    let house = House::open().await;
    let mut source = Source::start(&house, "b").await;
    source.send(&[HEADER, KEY, KEYS, INTERS, INTER]).await;
    let mut witness = Client::play(&house.urls.peer("b")).await.expect("granted");
    let mut player = Client::play(&house.urls.plain("b")).await.expect("granted");
    for client in [&mut witness, &mut player] {
        let got = until(client, 160).await;
        assert_eq!(got, [HEADER, KEY, KEYS, INTERS, INTER]);
    }
    player.command("receiveVideo", false).await;
    let skips = |all: &[Value]| all.iter().any(|r| r["state"] == "skipping");
    wait_for(&house, "b", "no pictures", skips).await;
    source.send(&[INTERS, KEYS, INTERS]).await;
    assert_eq!(until(&mut witness, 280).await, [INTERS, KEYS, INTERS]);
    player.command("receiveVideo", true).await;
    let rest = [INTER, KEY, INTERS, INTER, KEYS, INTERS, INTER];
    let wants = |all: &[Value]| all.len() == 2 && all.iter().all(|r| r["video"] == true);
    wait_for(&house, "b", "pictures wanted again", wants).await;
    source.send(&rest).await;
    assert_eq!(until(&mut witness, 560).await, rest);
    let got = until(&mut player, 560).await;
    assert_eq!(got, [HEADER, KEY, INTER, KEYS, INTERS, INTER]);
}
