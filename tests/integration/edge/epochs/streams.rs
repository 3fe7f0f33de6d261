//! Several message streams on one connection, each with an epoch of its own.

use std::time::Duration;

use bytes::BytesMut;
use linkmic::media::StreamKey;
use linkmic::reason::Reason;
use linkmic::relay::Event as Fact;
use linkmic::rtmp::amf::{self, Writer};
use linkmic::rtmp::command::Command;
use linkmic::rtmp::session::client::Event;
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Framed, Message, chunk, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, timeout};

use super::super::SOON;
use super::super::client::{Client, is_key_frame, shake_hands};
use super::super::clip::numbered;
use super::super::house::House;
use super::VIDEO_HEADER;

/// A client that says what it likes on any message stream.
pub struct Many {
    socket: TcpStream,
    reader: chunk::Reader,
}

impl Many {
    pub async fn connect(house: &House) -> Self {
        Self::connect_to(&house.urls.plain("x")).await
    }

    /// To where `url` is.
    pub async fn connect_to(url: &str) -> Self {
        let target = Target::parse(url).expect("a URL");
        let (socket, reader) = shake_hands(&target, None).await;
        let mut many = Self { socket, reader };
        let mut body = Writer::new();
        body.string("connect").number(1.0);
        body.object().key("app").string("live").end();
        let mut bytes = BytesMut::new();
        // Our commands are longer than the initial chunks.
        let size = 65_536u32.to_be_bytes().to_vec().into();
        Framed::new(kind::SET_CHUNK_SIZE, 0, 0, size).write_to(&mut bytes);
        Framed::new(kind::COMMAND, 0, 0, body.finish()).write_to(&mut bytes);
        many.write(&bytes).await;
        many.answer("_result").await;
        many
    }

    async fn write(&mut self, bytes: &[u8]) {
        let written = self.socket.write_all(bytes).await;
        written.expect("the connection holds");
    }

    pub async fn say(&mut self, stream_id: u32, name: &str, argument: impl FnOnce(&mut Writer)) {
        let mut body = Writer::new();
        body.string(name).number(0.0).null();
        argument(&mut body);
        let mut bytes = BytesMut::new();
        Framed::new(kind::COMMAND, 0, stream_id, body.finish()).write_to(&mut bytes);
        self.write(&bytes).await;
    }

    /// Commands on those message streams in one write, each with a string behind it, if there is one.
    pub async fn say_at_once(&mut self, commands: &[(u32, &str, Option<&str>)]) {
        let mut bytes = BytesMut::new();
        for (stream_id, name, argument) in commands {
            let mut body = Writer::new();
            body.string(name).number(0.0).null();
            if let Some(argument) = argument {
                body.string(argument);
            }
            Framed::new(kind::COMMAND, 0, *stream_id, body.finish()).write_to(&mut bytes);
        }
        self.write(&bytes).await;
    }

    /// The next message of which `take` makes something.
    pub async fn next<T>(&mut self, what: &str, take: impl Fn(Message) -> Option<T>) -> T {
        let next = async {
            loop {
                while let Some(message) = self.reader.next().expect("it makes sense") {
                    if let Some(taken) = take(message) {
                        return taken;
                    }
                }
                let read = self.socket.read_buf(self.reader.buffer()).await;
                assert!(read.expect("it holds") > 0, "closed before {what}");
            }
        };
        let next = timeout(SOON, next).await;
        next.unwrap_or_else(|_| panic!("{what} does not come"))
    }

    /// The next command of that name, and the message stream it came on.
    pub async fn answer(&mut self, name: &str) -> (u32, Command) {
        let named = |message: Message| {
            if message.type_id != kind::COMMAND {
                return None;
            }
            let command = Command::parse(&message).expect("a command");
            (command.name == name).then_some((message.stream_id, command))
        };
        self.next(name, named).await
    }

    /// The next `onStatus`: its message stream, code and description.
    pub async fn status(&mut self) -> (u32, String, String) {
        let (stream_id, command) = self.answer("onStatus").await;
        let info = &command.arguments[0];
        let text = |key| amf::property(info, key).and_then(amf::text);
        let text = |key| text(key).unwrap_or_default().to_owned();
        (stream_id, text("code"), text("description"))
    }

    /// A new message stream.
    pub async fn create(&mut self) -> u32 {
        self.say(0, "createStream", |_| {}).await;
        let (_, created) = self.answer("_result").await;
        let id = created.arguments.first().and_then(amf::number);
        id.expect("an id") as u32
    }

    /// A new message stream that asks to publish; what it was told.
    pub async fn publish(&mut self, url: &str) -> (u32, String, String) {
        let id = self.create().await;
        let name = url.rsplit('/').next().expect("a name").to_owned();
        self.say(id, "publish", |w| {
            w.string(&name).string("live");
        })
        .await;
        self.status().await
    }

    /// A header and a key frame.
    pub async fn picture(&mut self, stream_id: u32, time: u32) {
        let mut bytes = BytesMut::new();
        for body in [VIDEO_HEADER.to_vec(), numbered(stream_id, true, 100)] {
            Framed::new(kind::VIDEO, time, stream_id, body.into()).write_to(&mut bytes);
        }
        self.write(&bytes).await;
    }

    /// Says that command for as long as the server listens; `false`: it listens for ever.
    pub async fn flood(&mut self, name: &str) -> bool {
        let mut body = Writer::new();
        body.string(name).number(0.0).null();
        let mut bytes = BytesMut::new();
        Framed::new(kind::COMMAND, 0, 0, body.finish()).write_to(&mut bytes);
        let flood = bytes.repeat(1_000);
        let flood = async { while self.socket.write_all(&flood).await.is_ok() {} };
        timeout(SOON, flood).await.is_ok()
    }

    /// Reads until the server closes.
    pub async fn closed(&mut self) {
        let mut sink = [0; 4096];
        let end = async { while matches!(self.socket.read(&mut sink).await, Ok(1..)) {} };
        timeout(SOON, end).await.expect("closed");
    }
}

pub const START: &str = "NetStream.Publish.Start";

/// Three names on one connection and a viewer of each, who has seen a picture.
async fn three(house: &House) -> (Many, [Client; 3]) {
    let mut many = Many::connect(house).await;
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let (id, code, _) = many.publish(&house.urls.push(name)).await;
        assert_eq!((id, code.as_str()), (n as u32 + 1, START));
    }
    let mut viewers = Vec::new();
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let viewer = Client::play(&house.urls.plain(name)).await;
        let mut viewer = viewer.expect("granted");
        many.picture(n as u32 + 1, 7_000 * n as u32).await;
        viewer.media_until(is_key_frame).await;
        viewers.push(viewer);
    }
    let Ok(viewers) = viewers.try_into() else {
        unreachable!("three names");
    };
    (many, viewers)
}

/// Still gets pictures.
pub async fn goes_on(many: &mut Many, stream_id: u32, viewer: &mut Client) {
    many.picture(stream_id, 100_000).await;
    viewer.media_until(is_key_frame).await;
}

async fn ends(viewer: &mut Client) {
    let end = viewer.event().await;
    assert!(matches!(end, Some(Event::Closed { .. })), "{end:?}");
}

/// The next end of an epoch: whose and why.
pub async fn next_end(events: &mut Receiver<Fact>) -> (String, Reason) {
    let end = async {
        loop {
            if let Fact::Unpublished { key, reason, .. } = events.recv().await.expect("events") {
                return (key.stream().to_owned(), reason);
            }
        }
    };
    timeout(SOON, end).await.expect("an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_stream_ends_by_itself() {
    let house = House::open().await;
    let mut events = house.events();
    let (mut many, [mut a, mut b, mut c]) = three(&house).await;
    many.say(2, "closeStream", |_| {}).await;
    ends(&mut b).await;
    assert_eq!(next_end(&mut events).await, ("b".into(), Reason::Closed));
    goes_on(&mut many, 1, &mut a).await;
    goes_on(&mut many, 3, &mut c).await;
    many.say(0, "deleteStream", |w| {
        w.number(1.0);
    })
    .await;
    ends(&mut a).await;
    assert_eq!(next_end(&mut events).await, ("a".into(), Reason::Deleted));
    goes_on(&mut many, 3, &mut c).await;
    // A closed stream may publish again.
    let url = house.urls.push("d");
    let name = url.rsplit('/').next().expect("a name");
    many.say(2, "publish", |w| {
        w.string(name);
    })
    .await;
    loop {
        // The statuses of the two ends come before.
        let (id, code, _) = many.status().await;
        if code == START {
            assert_eq!(id, 2);
            break;
        }
    }
    drop(many);
    let mut last = [next_end(&mut events).await, next_end(&mut events).await];
    last.sort_by(|x, y| x.0.cmp(&y.0));
    let vanished = [Reason::Disconnected, Reason::SocketError];
    assert_eq!(last.each_ref().map(|(name, _)| name.as_str()), ["c", "d"]);
    assert!(
        last.iter().all(|(_, reason)| vanished.contains(reason)),
        "{last:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_leaves_what_the_connection_publishes_alone() {
    let house = House::open().await;
    let (mut many, [mut a, mut b, mut c]) = three(&house).await;
    let (id, code, why) = many.publish(&house.urls.plain("unsigned")).await;
    assert_eq!(
        (id, code.as_str()),
        (4, "NetStream.Publish.Denied"),
        "{why}"
    );
    many.create().await;
    many.say(5, "play", |w| {
        w.string("no name");
    })
    .await;
    let (id, code, why) = many.status().await;
    let code = code.as_str();
    assert_eq!((id, code), (5, "NetStream.Play.StreamNotFound"), "{why}");
    for (id, viewer) in [(1, &mut a), (2, &mut b), (3, &mut c)] {
        goes_on(&mut many, id, viewer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_message_stream_ends_alone_and_the_last_takes_the_connection_along() {
    let more = "[apps.live]\npublish_idle = \"3s\"\nrepublish_grace = \"0s\"";
    let house = House::open_with("", more).await;
    let mut events = house.events();
    let mut many = Many::connect(&house).await;
    for name in ["a", "b"] {
        many.publish(&house.urls.push(name)).await;
    }
    let begin = Instant::now();
    let mut quiet = Vec::new();
    while begin.elapsed() < Duration::from_secs(5) {
        many.picture(2, begin.elapsed().as_millis() as u32).await;
        if let Ok(end) = timeout(Duration::from_millis(100), next_end(&mut events)).await {
            quiet.push(end);
        }
    }
    assert_eq!(quiet, [("a".to_owned(), Reason::Idle)]);
    let (id, _, why) = many.status().await;
    assert!(id == 1 && why.contains("no media"), "{id}: {why}");
    assert_eq!(next_end(&mut events).await, ("b".into(), Reason::Idle));
    many.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_of_one_name_leaves_the_others_of_that_connection_alone() {
    let house = House::open_with("", "[apps.live]\non_busy = \"takeover\"").await;
    let mut events = house.events();
    let (mut many, [mut a, _b, mut c]) = three(&house).await;
    let _winner = Client::publish(&house.urls.push("b"))
        .await
        .expect("granted");
    let end = next_end(&mut events).await;
    assert_eq!(end, ("b".to_owned(), Reason::TakenOver));
    let (id, _, why) = many.status().await;
    assert!(id == 2 && why.contains("(21/102)"), "{id}: {why}");
    // Late media of the lost stream is no crime.
    many.picture(2, 50_000).await;
    goes_on(&mut many, 1, &mut a).await;
    goes_on(&mut many, 3, &mut c).await;
    let key = StreamKey::new("live", "b").expect("a name");
    while let Ok(event) = events.try_recv() {
        assert!(matches!(event, Fact::Published { .. }) && *event.key() == key);
    }
}
