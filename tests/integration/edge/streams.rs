//! Message streams: a client may create several on its connection and play on a later one.

use bytes::{BufMut, BytesMut};
use linkmic::rtmp::session::client::{Event, Session};
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Framed, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::SOON;
use super::client::{Client, is_frame, shake_hands};
use super::clip::{clip, number_of, numbered};
use super::house::House;

/// Frames of the test.
const FRAMES: u32 = 5;

/// `createStream` with a transaction of our own, which the session knows nothing of.
fn create_stream() -> BytesMut {
    let mut body = BytesMut::new();
    body.put_slice(b"\x02\x00\x0ccreateStream\x00");
    body.put_f64(77.0);
    body.put_u8(5);
    let mut bytes = BytesMut::new();
    Framed::new(kind::COMMAND, 0, 0, body.freeze()).write_to(&mut bytes);
    bytes
}

/// Plays on the second message stream of its connection until the last frame: numbers of frames, ids of all media.
async fn play_on_the_second(url: &str) -> Vec<(Option<u32>, u32)> {
    let target = Target::parse(url).expect("a URL");
    let (mut socket, mut reader) = shake_hands(&target, None).await;
    let mut session = Session::play(&target);
    let mut opening = BytesMut::from(&session.output()[..]);
    opening.extend(create_stream());
    socket.write_all(&opening).await.expect("the server reads");
    let mut got = Vec::new();
    loop {
        while let Some(message) = reader.next().expect("bytes that make sense") {
            let id = message.stream_id;
            let event = session.handle(message);
            match event.expect("commands that make sense") {
                Some(Event::Media(message)) => {
                    let number =
                        number_of(&message.payload).filter(|_| is_frame(&message, kind::VIDEO));
                    got.push((number, id));
                    if number == Some(FRAMES - 1) {
                        assert_eq!(session.stream_id(), Some(2), "the second one");
                        return got;
                    }
                }
                Some(Event::Refused { description, .. }) => panic!("refused: {description}"),
                _ => {}
            }
        }
        socket
            .write_all(&session.output())
            .await
            .expect("the server reads");
        let read = socket.read_buf(reader.buffer()).await;
        assert_ne!(read.expect("the connection holds"), 0, "the server closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_on_a_later_message_stream_gets_its_media_there() {
    let house = House::open().await;
    let mut publisher = Client::publish(&house.urls.push("second"))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        publisher.send_tag(header, 0).await;
    }
    publisher.send(kind::VIDEO, 0, numbered(0, true, 100)).await;
    let url = house.urls.plain("second");
    let second = tokio::spawn(async move { play_on_the_second(&url).await });
    // One beside it on the first message stream: each has its own.
    let mut first = Client::play(&house.urls.plain("second"))
        .await
        .expect("granted");
    house.wait_for_viewers(2).await;
    for n in 1..FRAMES {
        publisher
            .send(kind::VIDEO, 40 * n, numbered(n, false, 70_000))
            .await;
    }
    let last = |m: &linkmic::rtmp::Message| number_of(&m.payload) == Some(FRAMES - 1);
    let all = first.media_until(last).await;
    assert!(all.iter().all(|m| m.stream_id == 1));
    let got = timeout(SOON, second)
        .await
        .expect("in time")
        .expect("it plays");
    assert!(got.iter().all(|(_, id)| *id == 2), "{got:?}");
    let numbers: Vec<u32> = got.iter().filter_map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..FRAMES).collect::<Vec<_>>());
}
