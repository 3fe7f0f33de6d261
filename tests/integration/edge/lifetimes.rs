//! How streams end, and how a vanished publisher comes back.

use linkmic::probe::flv::Tag;
use linkmic::probe::process::poll;
use linkmic::relay;
use linkmic::rtmp::session::client::Event;
use linkmic::rtmp::{Message, kind};

use super::SOON;
use super::client::{Client, is_frame, is_header, is_key_frame};
use super::clip::{clip, number_of, numbered};
use super::download::Download;
use super::house::House;
use super::programs::{Player, Publisher, decode, recorded};

async fn start(house: &House, name: &str, first: u32) -> Client {
    // A name is free once the server has seen its publisher vanish.
    let url = house.urls.push(name);
    let mut publisher = poll("the name to be free", SOON, || async {
        Client::publish(&url).await.ok()
    })
    .await
    .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    frames(&mut publisher, first, first + 4).await;
    publisher
}

/// Frames 40 ms apart by the publisher's own clock, which begins anew with each connection.
async fn frames(publisher: &mut Client, first: u32, upto: u32) {
    for n in first..=upto {
        let is_key = n % 100 == 0;
        let frame = numbered(n, is_key, 100);
        publisher.send(kind::VIDEO, n % 100 * 40, frame).await;
    }
}

fn is_number(message: &Message, number: u32) -> bool {
    is_frame(message, kind::VIDEO) && number_of(&message.payload) == Some(number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_end_reaches_viewers_and_peers_at_once() {
    let house = House::open().await;
    let publisher = start(&house, "a", 0).await;
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    let mut peer = Client::play(&house.urls.peer("a")).await.expect("granted");
    for reader in [&mut viewer, &mut peer] {
        reader.media_until(|m| is_number(m, 4)).await;
    }
    publisher.unpublish().await;
    for reader in [&mut viewer, &mut peer] {
        // StreamEOF comes before UnpublishNotify; our session reports the first.
        let end = reader.event().await;
        assert!(matches!(end, Some(Event::Closed { .. })), "{end:?}");
        assert_eq!(reader.event().await, None, "then the close");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_players_end_by_themselves_with_the_stream() {
    let house = House::open().await;
    let folder = tempfile::tempdir().expect("a folder");
    let clip = clip().await;
    let mut publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    let mut players = Vec::new();
    for player in Player::ALL {
        let file = folder.path().join(format!("{player:?}.flv"));
        players.push((player.start(&house.urls.plain("a"), &file), player, file));
    }
    house.wait_for_viewers(players.len()).await;
    let tags: Vec<_> = clip.tags.iter().filter(|t| t.time < 1_500).collect();
    publisher.send_in_real_time(tags.iter().copied(), 0).await;
    publisher.unpublish().await;
    let last = tags.iter().rfind(|t| t.kind == Tag::VIDEO && t.is_media());
    let last = &last.expect("video").body;
    for (process, player, file) in &mut players {
        let status = process.end(SOON).await;
        let status = status.unwrap_or_else(|e| panic!("{player:?}: {e}"));
        // rtmpdump cannot know that a live stream is complete: 2 is its word for "ended by the server".
        let fine = status.success() || (*player == Player::Rtmpdump && status.code() == Some(2));
        assert!(fine, "{player:?}: {status}\n{}", process.said());
        let recorded = super::clip::frames(&recorded(file), Tag::VIDEO)
            .last()
            .map(|b| b.to_vec());
        assert_eq!(recorded.as_ref(), Some(last), "{player:?}: the last frame");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_vanished_and_returns_keeps_its_readers_on_a_clock_that_never_goes_back() {
    let house = House::open().await;
    let first = start(&house, "a", 0).await;
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    let mut peer = Client::play(&house.urls.peer("a")).await.expect("granted");
    let mut seen = [Vec::new(), Vec::new()];
    for (reader, seen) in [&mut viewer, &mut peer].into_iter().zip(&mut seen) {
        *seen = reader.media_until(|m| is_number(m, 4)).await;
    }
    first.abort();
    // The second connection begins its clock at 0 again.
    let mut second = start(&house, "a", 100).await;
    frames(&mut second, 105, 108).await;
    for (reader, seen) in [&mut viewer, &mut peer].into_iter().zip(&mut seen) {
        let after = reader.media_until(|m| is_number(m, 108)).await;
        let headers = after.iter().filter(|m| is_header(m, kind::VIDEO)).count();
        assert!(headers >= 1, "the new epoch's configuration");
        let first = after.iter().find(|m| is_frame(m, kind::VIDEO));
        assert!(
            first.is_some_and(is_key_frame),
            "it continues at a key frame"
        );
        let numbers: Vec<_> = after
            .iter()
            .filter(|m| is_frame(m, kind::VIDEO))
            .map(|m| number_of(&m.payload).expect("numbered"))
            .collect();
        assert_eq!(numbers, (100..=108).collect::<Vec<_>>());
        seen.extend(after);
        let times = seen.iter().map(|m| m.timestamp);
        assert!(times.is_sorted(), "time goes back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_players_stay_through_a_killed_ffmpeg_that_returns() {
    let house = House::open().await;
    let folder = tempfile::tempdir().expect("a folder");
    let clip = clip().await;
    let mut players = Vec::new();
    for player in Player::ALL {
        let file = folder.path().join(format!("{player:?}.flv"));
        players.push((player, player.start(&house.urls.plain("a"), &file), file));
    }
    let mut first = Publisher::Ffmpeg.start(clip.path(), &house.urls.push("a"));
    let mut watch = Client::play(&house.urls.plain("a")).await.expect("granted");
    watch
        .media_until(|m| is_frame(m, kind::VIDEO) && m.timestamp > 1_500)
        .await;
    first.kill().await;
    let mut second = Publisher::Ffmpeg.start(clip.path(), &house.urls.push("a"));
    second.success(SOON).await.expect("published");
    let last = clip.frames(Tag::VIDEO).last().copied();
    for (player, process, file) in &mut players {
        let ended = process.end(SOON).await;
        ended.unwrap_or_else(|e| panic!("{player:?}: it ends with the stream: {e}"));
        let tags = recorded(file);
        let video: Vec<_> = tags
            .iter()
            .filter(|t| t.kind == Tag::VIDEO && t.is_media())
            .collect();
        assert!(
            video.iter().map(|t| t.time).is_sorted(),
            "{player:?}: time goes back"
        );
        assert_eq!(
            video.last().map(|t| t.body.as_slice()),
            last,
            "{player:?}: the second connection's last frame; it said\n{}",
            process.said()
        );
        // About 1.5 s of the first connection and 4 s of the second.
        assert!(video.len() > 125, "{player:?}: {} frames", video.len());
        decode(file).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_publisher_that_does_not_return_are_told_after_the_grace() {
    let house = House::open_with("", "[apps.live]\nrepublish_grace = \"1s\"").await;
    let publisher = start(&house, "a", 0).await;
    let mut viewer = Client::play(&house.urls.plain("a")).await.expect("granted");
    viewer.media_until(|m| is_number(m, 4)).await;
    publisher.abort();
    let end = viewer.event().await;
    assert!(matches!(end, Some(Event::Closed { .. })), "{end:?}");
}

/// Grace is for those who play; who waits has a patience of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_that_come_during_the_grace_outlive_it_and_those_who_played_are_told_at_its_end() {
    let more = "[limits]\nwait = \"60s\"\n[apps.live]\nrepublish_grace = \"2s\"";
    let house = House::open_with("", more).await;
    let mut events = house.events();
    let (url, file) = (house.urls.plain("a"), "/live/a.flv");
    let server = house.server.http_addr();
    let publisher = start(&house, "a", 0).await;
    let mut viewer = Client::play(&url).await.expect("granted");
    viewer.media_until(|m| is_number(m, 4)).await;
    let mut download = Download::get(server, file).await;
    download.until(has(4)).await;
    publisher.abort();
    while !matches!(events.recv().await, Ok(relay::Event::Unpublished { .. })) {}

    let late = tokio::spawn(async move { Client::play(&url).await });
    let late_download = tokio::spawn(Download::get(server, file));
    house.wait_for_viewers(4).await;
    let end = viewer.event().await;
    assert!(matches!(end, Some(Event::Closed { .. })), "{end:?}");
    // Whole: with its last chunk.
    download.end().await;
    house.wait_for_viewers(2).await;
    assert!(!late.is_finished() && !late_download.is_finished());

    let _publisher = start(&house, "a", 100).await;
    let mut late = late.await.expect("it waited").expect("granted");
    late.media_until(|m| is_number(m, 104)).await;
    let mut late_download = late_download.await.expect("it waited");
    late_download.until(has(104)).await;
}

fn has(number: u32) -> impl Fn(&[Tag]) -> Option<()> {
    move |tags| {
        let mut numbers = tags.iter().filter_map(|tag| number_of(&tag.body));
        numbers.any(|n| n == number).then_some(())
    }
}
