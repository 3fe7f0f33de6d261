//! A play on the connection that publishes: each on a message stream of its own.

use linkmic::probe::process::poll;
use linkmic::rtmp::session::client::Event;
use linkmic::rtmp::{Message, kind};

use super::super::SOON;
use super::super::client::{Client, is_key_frame};
use super::super::clip::{number_of, numbered};
use super::super::house::House;
use super::VIDEO_HEADER;
use super::streams::{Many, START, goes_on, next_end};

pub(super) const PLAYS: &str = "NetStream.Play.Start";
/// Long enough for many chunks and writes.
pub(super) const LONG: usize = 70_000;

/// A publisher with a picture, whose frames are numbered.
pub(super) async fn source(house: &House, name: &str) -> Client {
    let mut source = Client::publish(&house.urls.push(name))
        .await
        .expect("granted");
    source.send(kind::VIDEO, 0, VIDEO_HEADER.to_vec()).await;
    source.send(kind::VIDEO, 0, numbered(0, true, LONG)).await;
    source
}

/// A connection that publishes "mine" on stream 1, with a viewer of that who has seen a picture.
pub(super) async fn publisher(house: &House) -> (Many, Client) {
    let mut many = Many::connect(house).await;
    let (id, code, _) = many.publish(&house.urls.push("mine")).await;
    assert_eq!((id, code.as_str()), (1, START));
    many.picture(1, 0).await;
    let viewer = Client::play(&house.urls.plain("mine")).await;
    let mut viewer = viewer.expect("granted");
    viewer.media_until(is_key_frame).await;
    (many, viewer)
}

/// Asks to play on that message stream, as a peer.
pub(super) async fn ask(many: &mut Many, house: &House, stream_id: u32, name: &str) {
    let url = house.urls.peer(name);
    let name = url.rsplit('/').next().expect("a name");
    many.say(stream_id, "play", |w| {
        w.string(name);
    })
    .await;
}

/// The next status of that message stream but for `Play.Reset`.
pub(super) async fn status(many: &mut Many, stream_id: u32) -> (String, String) {
    loop {
        let (id, code, why) = many.status().await;
        assert_eq!(id, stream_id, "{code}: {why}");
        if code != "NetStream.Play.Reset" {
            return (code, why);
        }
    }
}

/// Takes pictures up to that number; all on one message stream, whole, in order.
async fn pictures(many: &mut Many, stream_id: u32, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        let picture = |m: Message| {
            let number = number_of(&m.payload).filter(|_| m.type_id == kind::VIDEO)?;
            Some((m.stream_id, number, m.payload.len()))
        };
        let got = many.next("a picture", picture).await;
        assert_eq!(got, (stream_id, number, LONG));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_publishes_plays_another_name_on_a_stream_of_its_own() {
    let house = House::open().await;
    let mut other = source(&house, "other").await;
    let (mut many, mut viewer) = publisher(&house).await;
    assert_eq!(many.create().await, 2);
    ask(&mut many, &house, 2, "other").await;
    assert_eq!(status(&mut many, 2).await.0, PLAYS);
    pictures(&mut many, 2, 0..=0).await;
    for n in 1..=20 {
        other
            .send(kind::VIDEO, 40 * n, numbered(n, false, LONG))
            .await;
        many.picture(1, 40 * n).await;
        viewer.media_until(is_key_frame).await;
    }
    // Answers go between the messages of what plays.
    assert_eq!(many.create().await, 3);
    pictures_or_less(&mut other, &mut many).await;

    // A stream does one thing at a time; it is told there, and all goes on.
    ask(&mut many, &house, 2, "other").await;
    let (code, why) = status(&mut many, 2).await;
    assert_eq!(code, "NetStream.Play.Failed");
    assert!(
        why.contains("stream 2 plays already") && why.contains("[limit_reached]"),
        "{why}"
    );
    goes_on(&mut many, 1, &mut viewer).await;

    // The play ends by itself, and another may begin at once.
    many.say(0, "deleteStream", |w| {
        w.number(2.0);
    })
    .await;
    ask(&mut many, &house, 3, "other").await;
    other
        .send(kind::VIDEO, 2_000, numbered(50, true, LONG))
        .await;
    assert_eq!(status(&mut many, 3).await.0, PLAYS);
    other
        .send(kind::VIDEO, 2_040, numbered(51, true, LONG))
        .await;
    let last = |m: Message| (number_of(&m.payload) == Some(51)).then_some(m.stream_id);
    assert_eq!(many.next("the last picture", last).await, 3);
    goes_on(&mut many, 1, &mut viewer).await;

    // And it ends with what it plays.
    other.unpublish().await;
    assert_eq!(
        status(&mut many, 3).await.0,
        "NetStream.Play.UnpublishNotify"
    );
    assert_eq!(status(&mut many, 3).await.0, "NetStream.Play.Stop");
    goes_on(&mut many, 1, &mut viewer).await;
    house.wait_for_peers(0).await;
}

/// The pictures that came while an answer was looked for are gone; the next ones are whole.
async fn pictures_or_less(other: &mut Client, many: &mut Many) {
    other
        .send(kind::VIDEO, 1_000, numbered(30, true, LONG))
        .await;
    let whole = |m: Message| {
        let number = number_of(&m.payload)?;
        assert_eq!(m.payload.len(), LONG, "picture {number}");
        (number == 30).then_some(())
    };
    many.next("picture 30", whole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_play_that_cannot_be_or_must_end_leaves_the_publisher_alone() {
    let house = House::open_with("", "[limits]\nwait = \"500ms\"").await;
    let _other = source(&house, "other").await;
    let (mut many, mut viewer) = publisher(&house).await;
    assert_eq!(many.create().await, 2);
    // An absent stream is waited for, in which nothing else waits.
    ask(&mut many, &house, 2, "absent").await;
    goes_on(&mut many, 1, &mut viewer).await;
    let (code, why) = status(&mut many, 2).await;
    assert_eq!(code, "NetStream.Play.StreamNotFound");
    assert!(why.contains("[not_found]"), "{why}");
    // A signature that fits nothing.
    many.say(2, "play", |w| {
        w.string("other?txSecret=00000000000000000000000000000000&txTime=7FFFFFFF");
    })
    .await;
    let (code, why) = status(&mut many, 2).await;
    assert_eq!(code, "NetStream.Play.Failed", "{why}");
    goes_on(&mut many, 1, &mut viewer).await;
    // An operator drops the player.
    ask(&mut many, &house, 2, "other").await;
    assert_eq!(status(&mut many, 2).await.0, PLAYS);
    let path = "/api/v1/streams/live/other/readers";
    let readers = house.control().get(path).await.expect("an answer").json();
    let id = readers["readers"][0]["id"].to_string();
    let gone = house.control().delete(&format!("{path}/{id}")).await;
    assert_eq!(gone.expect("an answer").status, 202);
    let (code, why) = status(&mut many, 2).await;
    assert_eq!(code, "NetStream.Play.Failed");
    assert!(why.contains("dropped by the operator"), "{why}");
    goes_on(&mut many, 1, &mut viewer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_publishing_goes_on_playing_and_both_end_with_the_connection() {
    let house = House::open().await;
    let mut events = house.events();
    let mut other = source(&house, "other").await;
    let (mut many, mut viewer) = publisher(&house).await;
    assert_eq!(many.create().await, 2);
    ask(&mut many, &house, 2, "other").await;
    assert_eq!(status(&mut many, 2).await.0, PLAYS);
    pictures(&mut many, 2, 0..=0).await;
    many.say(1, "closeStream", |_| {}).await;
    assert_eq!(status(&mut many, 1).await.0, "NetStream.Unpublish.Success");
    assert_eq!(next_end(&mut events).await.0, "mine");
    assert!(matches!(viewer.event().await, Some(Event::Closed { .. })));
    other.send(kind::VIDEO, 40, numbered(1, false, LONG)).await;
    pictures(&mut many, 2, 1..=1).await;
    let (id, code, _) = many.publish(&house.urls.push("again")).await;
    assert_eq!((id, code.as_str()), (3, START));
    other.send(kind::VIDEO, 80, numbered(2, false, LONG)).await;
    pictures(&mut many, 2, 2..=2).await;
    drop(many);
    assert_eq!(next_end(&mut events).await.0, "again");
    house.wait_for_peers(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_began_by_playing_may_publish_besides() {
    let house = House::open().await;
    let mut other = source(&house, "other").await;
    let mut many = Many::connect(&house).await;
    assert_eq!(many.create().await, 1);
    ask(&mut many, &house, 1, "other").await;
    assert_eq!(status(&mut many, 1).await.0, PLAYS);
    pictures(&mut many, 1, 0..=0).await;
    // Who may not publish plays on.
    let (id, code, why) = many.publish(&house.urls.plain("mine")).await;
    assert_eq!(
        (id, code.as_str()),
        (2, "NetStream.Publish.Denied"),
        "{why}"
    );
    other.send(kind::VIDEO, 40, numbered(1, false, LONG)).await;
    pictures(&mut many, 1, 1..=1).await;
    let (id, code, _) = many.publish(&house.urls.push("mine")).await;
    assert_eq!((id, code.as_str()), (3, START));
    let mut viewer = Client::play(&house.urls.plain("mine"))
        .await
        .expect("granted");
    for n in 2..10 {
        other
            .send(kind::VIDEO, 40 * n, numbered(n, false, LONG))
            .await;
        pictures(&mut many, 1, n..=n).await;
        goes_on(&mut many, 3, &mut viewer).await;
    }
    other.unpublish().await;
    assert_eq!(
        status(&mut many, 1).await.0,
        "NetStream.Play.UnpublishNotify"
    );
    assert_eq!(status(&mut many, 1).await.0, "NetStream.Play.Stop");
    goes_on(&mut many, 3, &mut viewer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_stream_may_publish_meanwhile() {
    let house = House::open().await;
    let mut many = Many::connect(&house).await;
    assert_eq!(many.create().await, 1);
    ask(&mut many, &house, 1, "other").await;
    house.wait_for_peers(1).await;
    let (id, code, _) = many.publish(&house.urls.push("mine")).await;
    assert_eq!((id, code.as_str()), (2, START));
    let mut viewer = Client::play(&house.urls.plain("mine"))
        .await
        .expect("granted");
    goes_on(&mut many, 2, &mut viewer).await;
    let mut other = source(&house, "other").await;
    assert_eq!(status(&mut many, 1).await.0, PLAYS);
    other.send(kind::VIDEO, 40, numbered(1, true, LONG)).await;
    let picture = |m: Message| (number_of(&m.payload) == Some(1)).then_some(m.stream_id);
    assert_eq!(many.next("its picture", picture).await, 1);
    goes_on(&mut many, 2, &mut viewer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_play_that_is_dropped_while_its_client_does_not_read_ends_at_the_end_of_a_message() {
    let house = House::open().await;
    let mut other = source(&house, "other").await;
    let (mut many, mut viewer) = publisher(&house).await;
    assert_eq!(many.create().await, 2);
    ask(&mut many, &house, 2, "other").await;
    assert_eq!(status(&mut many, 2).await.0, PLAYS);
    // It reads nothing for a while: what it plays stands where its socket is full.
    for n in 1..200 {
        other
            .send(kind::VIDEO, n, numbered(n, n % 20 == 0, LONG))
            .await;
    }
    let path = "/api/v1/streams/live/other/readers";
    let told = || async {
        let answer = house.control().get(path).await.expect("an answer").json();
        let reader = answer["readers"].get(0)?;
        (reader["unacknowledged_bytes"].as_u64()? > 0).then(|| reader["id"].to_string())
    };
    let id = poll("a stuck player", SOON, told).await.expect("it stands");
    let gone = house.control().delete(&format!("{path}/{id}")).await;
    assert_eq!(gone.expect("an answer").status, 202);
    // It reads on: what had begun, then why there is no more, and then what belongs to its own stream.
    let (code, why) = status(&mut many, 2).await;
    assert_eq!(code, "NetStream.Play.Failed");
    assert!(why.contains("dropped by the operator"), "{why}");
    goes_on(&mut many, 1, &mut viewer).await;
    assert_eq!(many.create().await, 3);
}
