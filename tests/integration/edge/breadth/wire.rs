//! Packets that no program at hand sends: written by hand, and compared byte for byte.

use linkmic::rtmp::Message;

use super::super::client::Client;
use super::super::house::{BURST, House};
use super::*;

/// What a publisher sends, and what a player gets who comes afterwards.
struct Case {
    name: &'static str,
    /// Type, time, payload.
    sent: Vec<(u8, u32, Vec<u8>)>,
    /// The first key frame.
    begins: usize,
    /// Indices into `sent`, in the order in which the late player gets them.
    joined: Vec<usize>,
}

const V: u8 = kind::VIDEO;
const A: u8 = kind::AUDIO;

fn case(name: &'static str, begins: usize, sent: &[(u8, u32, &[u8])], joined: &[usize]) -> Case {
    Case {
        name,
        begins,
        sent: sent.iter().map(|(k, t, p)| (*k, *t, p.to_vec())).collect(),
        joined: joined.to_vec(),
    }
}

fn cases() -> Vec<Case> {
    vec![
        case(
            "legacy HEVC under codec id 12, with B-frames shown before they are decoded",
            2,
            &[
                (V, 0, b"\x1c\x00\0\0\0hvcC"),
                (A, 0, b"\xaf\x00\x11\x90"),
                (V, 0, b"\x1c\x01\0\0\0one"),
                (V, 40, b"\x2c\x01\xff\xff\xd8two"),
                (V, 80, b"\x1c\x01\0\0\0three"),
                (V, 120, b"\x2c\x01\xff\xff\xd8four"),
                (A, 121, b"\xaf\x01sound"),
            ],
            &[1, 0, 4, 5, 6],
        ),
        case(
            "HDR metadata and an AV1 header in MPEG-2 TS form, nanosecond offsets",
            2,
            &[
                (V, 0, b"\x95av01\x80\x04desc"),
                (V, 0, b"\xd4av01\x02\x00\x09colorInfo"),
                (V, 0, b"\x97\x02\x00\x00\x07\x01av01one"),
                (V, 40, b"\xa7\x02\x01\x86\xa0\x01av01two"),
            ],
            &[0, 1, 2, 3],
        ),
        case(
            "AVC under its FourCC, CodedFramesX, an end of sequence and a new beginning",
            1,
            &[
                (V, 0, b"\x90avc1old"),
                (V, 0, b"\x93avc1one"),
                (V, 40, b"\x92avc1"),
                (V, 40, b"\x90avc1new"),
                (V, 80, b"\x93avc1two"),
                (V, 120, b"\xa3avc1three"),
            ],
            &[3, 4, 5],
        ),
        case(
            "several tracks in a message; track 1 gets a header of its own later",
            2,
            &[
                (V, 0, b"\x96\x10avc1\x00\0\0\x01a\x01\0\0\x01b"),
                (V, 0, b"\x96\x00avc1\x01B"),
                (V, 0, b"\x96\x11avc1\x00\0\0\x04\0\0\0p\x01\0\0\x04\0\0\0q"),
                (
                    V,
                    40,
                    b"\xa6\x11avc1\x00\0\0\x04\0\0\x28p\x01\0\0\x04\0\0\x28q",
                ),
            ],
            &[0, 1, 2, 3],
        ),
        case(
            "several codecs in a message; a key frame of track 1 alone is no beginning",
            3,
            &[
                (V, 0, b"\x96\x20hvc1\x00\0\0\x01aav01\x01\0\0\x01b"),
                (A, 0, b"\x95\x20Opus\x00\0\0\x01cfLaC\x01\0\0\x01d"),
                (A, 0, b"\x95\x24Opus\x00\0\0\x01efLaC\x01\0\0\x01f"),
                (V, 0, b"\x96\x21hvc1\x00\0\0\x04\0\0\0pav01\x01\0\0\x01q"),
                (V, 40, b"\x96\x01av01\x01r"),
                (A, 41, b"\x95\x21Opus\x00\0\0\x01sfLaC\x01\0\0\x01t"),
            ],
            &[1, 2, 0, 3, 4, 5],
        ),
        case(
            "a publisher without a track 0",
            1,
            &[
                (V, 0, b"\x96\x00avc1\x02a"),
                (V, 0, b"\x96\x01avc1\x02\0\0\0one"),
                (V, 40, b"\xa6\x01avc1\x02\0\0\0two"),
            ],
            &[0, 1, 2],
        ),
        case(
            "a seek's commands among frames are no headers",
            2,
            &[
                (V, 0, b"\x17\x00\0\0\0avcC"),
                (V, 0, b"\x57\x00"),
                (V, 0, b"\x17\x01\0\0\0one"),
                (V, 40, b"\x57\x01"),
                (V, 80, b"\x27\x01\0\0\0two"),
            ],
            &[0, 2, 3, 4],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_of_every_form_pass_untouched_and_late_players_get_what_they_need_first() {
    let house = House::open_with("", BURST).await;
    for (n, case) in cases().into_iter().enumerate() {
        let name = format!("wire{n}");
        let mut publisher = Client::publish(&house.urls.push(&name))
            .await
            .expect("granted");
        let mut first = Client::play(&house.urls.plain(&name))
            .await
            .expect("granted");
        house.wait_for_viewers(1).await;
        for (type_id, time, payload) in &case.sent {
            publisher.send(*type_id, *time, payload.clone()).await;
        }
        // Whoever was there sees all of it from the first key frame on as it was sent, and before it configurations.
        let last = &case.sent.last().expect("some").2;
        let got = first.media_until(|m| m.payload[..] == last[..]).await;
        let got: Vec<_> = got
            .iter()
            .map(|m| (m.type_id, m.timestamp, m.payload.to_vec()))
            .collect();
        let (before, after) = case.sent.split_at(case.begins);
        assert!(got.ends_with(after), "{}: {got:02x?}", case.name);
        for (type_id, _, header) in &got[..got.len() - after.len()] {
            let sent = before.iter().any(|(k, _, p)| (k, p) == (type_id, header));
            assert!(sent, "{}: {header:02x?}", case.name);
        }
        let mut late = Client::play(&house.urls.plain(&name))
            .await
            .expect("granted");
        for index in case.joined {
            let got = late.media().await;
            let expected = &case.sent[index].2[..];
            assert_eq!(&got.payload[..], expected, "{}: message {index}", case.name);
        }
        drop((first, late));
        publisher.unpublish().await;
        house.wait_for_viewers(0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_without_a_header_begins_anywhere() {
    let house = House::open().await;
    // MP3, G.711 A-law and µ-law, Speex, Nellymoser, PCM.
    for lead in [0x2f, 0x72, 0x82, 0xb2, 0x52, 0x3e] {
        let name = format!("audio{lead}");
        let mut publisher = Client::publish(&house.urls.push(&name))
            .await
            .expect("granted");
        for n in 0..5u8 {
            publisher.send(A, u32::from(n) * 20, vec![lead, n]).await;
        }
        let mut player = Client::play(&house.urls.plain(&name))
            .await
            .expect("granted");
        house.wait_for_viewers(1).await;
        for n in 5..10u8 {
            publisher.send(A, u32::from(n) * 20, vec![lead, n]).await;
        }
        let first = player.media().await.payload[1];
        for n in first + 1..10 {
            assert_eq!(player.media().await.payload[..], [lead, n]);
        }
        drop(player);
        publisher.unpublish().await;
        house.wait_for_viewers(0).await;
    }
}

/// A tag of an aggregate message, with the size behind it.
fn tag(type_id: u8, time: u32, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    let [high, t1, t2, t3] = time.to_be_bytes();
    let mut tag = vec![type_id, a, b, c, t1, t2, t3, high, 0, 0, 0];
    tag.extend(body);
    tag.extend((11 + body.len() as u32).to_be_bytes());
    tag
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_speaks_amf3_and_sends_aggregates_is_understood() {
    let house = House::open().await;
    let mut publisher = Wire::shaken(&house.urls.push("flash")).await;
    let connect = Writer::new().string("connect").number(1.0).finish();
    let connect = [&[0], &connect[..], &app_in_amf3()].concat();
    publisher.send(kind::COMMAND_AMF3, 0, 0, &connect).await;
    publisher.until("_result").await;
    publisher.begin("publish").await;
    let mut player = Client::play(&house.urls.plain("flash"))
        .await
        .expect("granted");
    house.wait_for_viewers(1).await;

    let metadata = Writer::new()
        .string("@setDataFrame")
        .string("onMetaData")
        .finish();
    let metadata = [&[0], &metadata[..], &app_in_amf3()].concat();
    publisher.send(kind::DATA_AMF3, 0, 1, &metadata).await;
    // Tags count from 70,000; the first lies at the message's own time.
    let aggregate = [
        tag(V, 70_000, b"\x17\x00\0\0\0avcC"),
        tag(V, 70_000, b"\x17\x01\0\0\0one"),
        tag(A, 70_010, b"\x2fmp3"),
        tag(V, 70_040, b"\x27\x01\0\0\0two"),
    ]
    .concat();
    publisher.send(kind::AGGREGATE, 5_000, 1, &aggregate).await;

    let about = player.media().await;
    assert_eq!(about.type_id, kind::DATA);
    let about = values(&about);
    assert_eq!(amf::text(&about[0]), Some("onMetaData"));
    let app = amf::property(&about[1], "app").and_then(amf::text);
    assert_eq!(app, Some("live"));
    let seen = |m: &Message| (m.type_id, m.timestamp, m.payload.to_vec());
    let mut rest = Vec::new();
    for _ in 0..4 {
        rest.push(seen(&player.media().await));
    }
    // The stream's zero is its first frame.
    let expected: [(u8, u32, &[u8]); 4] = [
        (V, 0, b"\x17\x00\0\0\0avcC"),
        (V, 0, b"\x17\x01\0\0\0one"),
        (A, 10, b"\x2fmp3"),
        (V, 40, b"\x27\x01\0\0\0two"),
    ];
    assert_eq!(rest, expected.map(|(k, t, p)| (k, t, p.to_vec())));
    drop(publisher);
}
