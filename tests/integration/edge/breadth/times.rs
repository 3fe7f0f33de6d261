//! Clocks that jump, begin again and have zeros of their own: a player sees one clock that runs on.

use linkmic::rtmp::Message;

use super::super::client::Client;
use super::super::clip::numbered;
use super::*;

/// Frames before the clock does something, and again after it.
const HALF: u32 = 12;
const FRAME_MS: u32 = 40;
/// Sound lies that much behind the picture sent with it.
const SOUND_MS: u32 = 7;

/// Publishes `2 * HALF` pictures, each with a sound, with the two clocks given per frame; returns what a player got.
async fn seen_through(
    place: &Place,
    name: &str,
    clocks: impl Fn(u32) -> (u32, u32),
) -> Vec<Message> {
    let mut publisher = Client::publish(&place.urls.push(name))
        .await
        .expect("granted");
    let mut player = Client::play(&place.urls.plain(name))
        .await
        .expect("granted");
    for n in 0..2 * HALF {
        let (picture, sound) = clocks(n);
        publisher
            .send(kind::VIDEO, picture, numbered(n, n % HALF == 0, 50))
            .await;
        publisher
            .send(kind::AUDIO, sound, vec![0xaf, 1, n as u8])
            .await;
    }
    let last = 2 * HALF - 1;
    let all = player
        .media_until(|m| m.payload[..] == [0xaf, 1, last as u8])
        .await;
    // The connection holds: it ends in order.
    publisher.unpublish().await;
    all
}

fn times(all: &[Message], type_id: u8) -> Vec<u32> {
    let of_kind = all.iter().filter(|m| m.type_id == type_id);
    of_kind.map(|m| m.timestamp).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_or_begins_again_runs_on_and_keeps_sound_with_its_picture() {
    let place = Place::open().await;
    let cases: [(&str, u32, i64); 5] = [
        ("ahead", 0, 3_600_000),
        ("back", 50_000_000, -3_600_000),
        // All the way to 0 from where 24 bits end.
        ("reset", 0xff_ffff - HALF * FRAME_MS, -i64::from(0xff_ffff)),
        ("ahead", u32::MAX - HALF * FRAME_MS, 1_000_000),
        ("reset", 7_000, -7_400),
    ];
    for (n, (kind, begin, by)) in cases.into_iter().enumerate() {
        let before = place.anomalies(kind).await;
        let all = seen_through(&place, &format!("jump{n}"), |n| {
            let shift = if n < HALF { 0 } else { by };
            let at = i64::from(begin) + i64::from(n * FRAME_MS) + shift;
            (at as u32, (at + i64::from(SOUND_MS)) as u32)
        })
        .await;
        let (pictures, sounds) = (times(&all, kind::VIDEO), times(&all, kind::AUDIO));
        for (one, next) in pictures.iter().zip(&pictures[1..]) {
            assert_eq!(next.wrapping_sub(*one), FRAME_MS, "case {n}: {pictures:?}");
        }
        // The player may have joined at the second picture's sound.
        let ends = pictures.iter().rev().zip(sounds.iter().rev());
        for (picture, sound) in ends {
            assert_eq!(sound.wrapping_sub(*picture), SOUND_MS, "case {n}");
        }
        assert_eq!(
            place.anomalies(kind).await,
            before + 1,
            "case {n}: one {kind}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_that_counts_from_its_own_zero_moves_no_picture() {
    let place = Place::open().await;
    let all = seen_through(&place, "apart", |n| {
        (40_000_000 + n * FRAME_MS, n * FRAME_MS)
    })
    .await;
    for type_id in [kind::VIDEO, kind::AUDIO] {
        let times = times(&all, type_id);
        for pair in times.windows(2) {
            assert_eq!(pair[1] - pair[0], FRAME_MS, "{times:?}");
        }
    }
    let last = |type_id| *times(&all, type_id).last().expect("some");
    assert_eq!(last(kind::VIDEO), last(kind::AUDIO));
    assert_eq!(place.anomalies("apart").await, 1);
}
