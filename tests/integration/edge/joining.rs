//! Late joiners: where each class begins, and what real players record of it.

use linkmic::probe::flv::Tag;
use linkmic::probe::process::poll;
use linkmic::rtmp::{Message, kind};

use super::SOON;
use super::client::{Client, is_frame, is_header, is_key_frame};
use super::clip::{clip, number_of, numbered};
use super::house::{BURST, House};
use super::programs::{Player, Publisher, recorded};

/// Media time between two frames, ms.
const FRAME: u32 = 40;
/// Frames from key frame to key frame: 3 s.
const GOP: u32 = 75;
/// The late joiner comes when this frame is the newest: 40 frames into the second GOP.
const NEWEST: u32 = GOP + 40;
/// An AAC frame whose number is recognised like that of a picture.
fn sound(number: u32) -> Vec<u8> {
    let mut body = vec![0xaf, 1, 0, 0, 0];
    body.extend(number.to_be_bytes());
    body
}

/// Publishes frames `from..=upto`, each with its audio 10 ms behind it.
async fn publish(publisher: &mut Client, from: u32, upto: u32) {
    for n in from..=upto {
        let frame = numbered(n, n % GOP == 0, 200);
        publisher.send(kind::VIDEO, n * FRAME, frame).await;
        publisher.send(kind::AUDIO, n * FRAME + 10, sound(n)).await;
    }
}

/// A publisher that has sent everything up to [`NEWEST`], and the server has it.
async fn halfway(house: &House, name: &str) -> Client {
    let mut publisher = Client::publish(&house.urls.push(name))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    let mut early = Client::play(&house.urls.plain(name))
        .await
        .expect("granted");
    publish(&mut publisher, 0, NEWEST).await;
    early.media_until(|m| is(m, kind::AUDIO, NEWEST)).await;
    publisher
}

fn is(message: &Message, type_id: u8, number: u32) -> bool {
    is_frame(message, type_id) && number_of(&message.payload) == Some(number)
}

/// Numbers and times of the frames of one kind.
fn frames(messages: &[Message], type_id: u8) -> Vec<(u32, u32)> {
    let frames = messages.iter().filter(|m| is_frame(m, type_id));
    frames
        .map(|m| {
            (
                number_of(&m.payload).expect("a numbered frame"),
                m.timestamp,
            )
        })
        .collect()
}

/// Both configurations come before the first frame of anything, `times` over.
fn assert_headers_first(messages: &[Message], times: std::ops::RangeInclusive<usize>) {
    let first = messages
        .iter()
        .position(|m| is_frame(m, kind::VIDEO) || is_frame(m, kind::AUDIO))
        .expect("frames");
    for kind in [kind::VIDEO, kind::AUDIO] {
        let headers = messages[..first].iter().filter(|m| is_header(m, kind));
        let headers = headers.count();
        assert!(
            times.contains(&headers),
            "{headers} configurations of kind {kind} in front"
        );
    }
    let first_video = messages.iter().find(|m| is_frame(m, kind::VIDEO));
    assert!(is_key_frame(first_video.expect("video")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_viewer_gets_the_headers_and_the_whole_gop_as_recorded_where_the_class_joins_by_burst()
 {
    let house = House::open_with("", BURST).await;
    let mut publisher = halfway(&house, "late").await;
    let mut viewer = Client::play(&house.urls.plain("late"))
        .await
        .expect("granted");
    publish(&mut publisher, NEWEST + 1, NEWEST + 5).await;
    let got = viewer.media_until(|m| is(m, kind::AUDIO, NEWEST + 5)).await;
    assert_headers_first(&got, 1..=1);
    let expected = |offset| (GOP..=NEWEST + 5).map(move |n| (n, n * FRAME + offset));
    assert_eq!(
        frames(&got, kind::VIDEO),
        expected(0).collect::<Vec<_>>(),
        "video"
    );
    assert_eq!(
        frames(&got, kind::AUDIO),
        expected(10).collect::<Vec<_>>(),
        "audio"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_peer_gets_the_gop_squeezed_to_the_live_edge_and_no_old_audio() {
    let house = House::open().await;
    let url = house.urls.peer("late");
    gets_the_gop_squeezed(&house, &url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_viewer_gets_the_same() {
    let house = House::open().await;
    let url = house.urls.plain("late");
    gets_the_gop_squeezed(&house, &url).await;
}

async fn gets_the_gop_squeezed(house: &House, url: &str) {
    let mut publisher = halfway(house, "late").await;
    let mut peer = Client::play(url).await.expect("granted");
    // The whole burst is there before anything new is published.
    let mut got = peer.media_until(|m| is(m, kind::VIDEO, NEWEST)).await;
    assert_headers_first(&got, 1..=1);
    let squeezed = frames(&got, kind::VIDEO);
    let edge = NEWEST * FRAME;
    // 41 frames, 1 ms apart, of which the last keeps its own time.
    let expected: Vec<_> = (GOP..=NEWEST).map(|n| (n, edge - (NEWEST - n))).collect();
    assert_eq!(squeezed, expected);
    assert_eq!(frames(&got, kind::AUDIO), [], "old audio");

    publish(&mut publisher, NEWEST + 1, NEWEST + 5).await;
    got.extend(peer.media_until(|m| is(m, kind::AUDIO, NEWEST + 5)).await);
    let live: Vec<_> = (NEWEST + 1..=NEWEST + 5).collect();
    assert_eq!(
        frames(&got, kind::VIDEO)[squeezed.len()..],
        live.iter().map(|&n| (n, n * FRAME)).collect::<Vec<_>>()
    );
    assert_eq!(
        frames(&got, kind::AUDIO),
        live.iter()
            .map(|&n| (n, n * FRAME + 10))
            .collect::<Vec<_>>()
    );
    let mut last = 0;
    for message in got.iter().filter(|m| is_frame(m, kind::VIDEO)) {
        assert!(message.timestamp >= last, "time goes back");
        last = message.timestamp;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_players_that_come_late_record_from_a_key_frame_on() {
    let house = House::open().await;
    let folder = tempfile::tempdir().expect("a folder");
    let clip = clip().await;
    let mut publisher = Publisher::Ffmpeg.start(clip.path(), &house.urls.push("late"));
    // One player of our own says when the stream is in the middle of its second GOP.
    let mut watch = Client::play(&house.urls.plain("late"))
        .await
        .expect("granted");
    watch
        .media_until(|m| is_frame(m, kind::VIDEO) && m.timestamp > 1_400)
        .await;
    let mut players = Vec::new();
    for (feed, url) in [
        ("viewer", house.urls.plain("late")),
        ("peer", house.urls.peer("late")),
    ] {
        for player in Player::ALL {
            let file = folder.path().join(format!("{feed}-{player:?}.flv"));
            players.push((player.start(&url, &file), file));
        }
    }
    publisher.success(SOON).await.expect("published");
    for (process, file) in &mut players {
        process.end(SOON).await.expect("it ends with the stream");
        let tags = recorded(file);
        let name = file.display();
        let video = tags.iter().find(|t| t.kind == Tag::VIDEO && t.is_media());
        assert!(
            video.is_some_and(Tag::is_key_frame),
            "{name}: first frame; it said\n{}",
            process.said()
        );
        let [video, audio] = clip.headers();
        for header in [video, audio] {
            let first = tags.iter().find(|t| t.kind == header.kind);
            assert_eq!(
                first.map(|t| &t.body),
                Some(&header.body),
                "{name}: the first tag of kind {} is its configuration",
                header.kind
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_may_come_before_its_publisher() {
    let house = House::open().await;
    let url = house.urls.plain("early");
    let early = tokio::spawn(async move {
        let mut player = Client::play(&url).await.expect("granted");
        player.media_until(|m| is(m, kind::VIDEO, 3)).await
    });
    // Only that it waits can be seen from outside: the play is not answered yet.
    let waits = poll(
        "an answer",
        std::time::Duration::from_millis(300),
        || async { early.is_finished().then_some(()) },
    );
    waits.await.expect_err("no answer before there is a stream");
    let mut publisher = Client::publish(&house.urls.push("early"))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    publish(&mut publisher, 0, 3).await;
    let got = early.await.expect("it plays");
    // As they were published, and again with the key frame it begins at.
    assert_headers_first(&got, 1..=2);
    assert_eq!(
        frames(&got, kind::VIDEO),
        [(0, 0), (1, 40), (2, 80), (3, 120)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_too_long_for_a_late_joiner_is_taken_back() {
    // As large as pictures of 2 Mbit/s, so that the burst does not fit into what sockets hold.
    const PICTURE: usize = 10_000;
    let house = House::open().await;
    let mut publisher = Client::publish(&house.urls.push("late"))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    let mut early = Client::play(&house.urls.peer("late"))
        .await
        .expect("granted");
    let picture = |n: u32| numbered(n, n.is_multiple_of(GOP), PICTURE);
    for n in 0..GOP {
        publisher.send(kind::VIDEO, n * FRAME, picture(n)).await;
        early.media_until(|m| is(m, kind::VIDEO, n)).await;
    }
    // Its burst is these 75 pictures, 750 KB of its own, of which it reads nothing for now.
    let mut joiner = Client::play_narrow(&house.urls.peer("late"), 4 << 10)
        .await
        .expect("granted");
    // Ten budgets of its class pass, in media time and by the clock that rules it.
    let last = GOP + 10 * 400 / FRAME;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(u64::from(FRAME)));
    for n in GOP..=last {
        tick.tick().await;
        publisher.send(kind::VIDEO, n * FRAME, picture(n)).await;
        early.media_until(|m| is(m, kind::VIDEO, n)).await;
    }
    let next_key = 3 * GOP;
    let more = async {
        for n in last + 1..=next_key {
            tick.tick().await;
            publisher.send(kind::VIDEO, n * FRAME, picture(n)).await;
            early.media_until(|m| is(m, kind::VIDEO, n)).await;
        }
    };
    let read = joiner.media_until(|m| is(m, kind::VIDEO, next_key));
    let ((), got) = tokio::join!(more, read);
    let numbers: Vec<_> = frames(&got, kind::VIDEO).iter().map(|f| f.0).collect();
    let old = numbers.iter().filter(|&&n| n < GOP).count();
    println!("{old} of {GOP} old pictures, then {:?}", &numbers[old..]);
    // What the two sockets held of the burst, in order; not one picture that they did not.
    assert!(numbers[..old].iter().copied().eq(0..old as u32));
    assert!(old < GOP as usize / 2, "{old} pictures of before");
    assert!(
        numbers.get(old).is_some_and(|n| n % GOP == 0),
        "continues at {:?}",
        numbers.get(old)
    );
}
