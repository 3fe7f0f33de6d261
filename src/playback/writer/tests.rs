use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::super::fanout::{Fanout, Line};
use super::super::reader::Joiner;
use super::super::{Arrival, Config};
use super::*;
use crate::media::{Class, Feed, Kind, MediaTime, Message, StreamKey};
use crate::relay::{self, Origin, Publisher, Query, Relay};

const RTMP: Framing = Framing::Rtmp { stream_id: 1 };

/// Bytes that panic when they are let go of, which a queue does in the midst of a player's turn.
struct Cursed(AtomicBool);

impl Cursed {
    fn bytes() -> Bytes {
        Bytes::from_owner(Cursed(AtomicBool::new(true)))
    }
}

impl AsRef<[u8]> for Cursed {
    fn as_ref(&self) -> &[u8] {
        b"cursed"
    }
}

impl Drop for Cursed {
    fn drop(&mut self) {
        assert!(!self.0.load(Ordering::Relaxed), "let go of cursed bytes");
    }
}

/// A stream, its loops and its players.
struct House {
    relay: Relay,
    fanout: Fanout,
    publisher: Publisher,
    key: StreamKey,
}

struct Player {
    line: Line,
    socket: TcpStream,
    over: oneshot::Receiver<Reason>,
    _released: oneshot::Receiver<()>,
}

impl House {
    fn new() -> Self {
        let relay = Relay::new(relay::Config::default());
        let key = StreamKey::new("live", "a").unwrap();
        let origin = Origin::Anchor {
            address: ([127, 0, 0, 1], 1).into(),
            key_id: None,
            query: Query::new(""),
        };
        let publisher = relay.publish(&key, origin).unwrap();
        let config = Config::default();
        let fanout = Fanout::new(relay.clone(), config, Metrics::new(), TaskTracker::new());
        let house = Self {
            relay,
            fanout,
            publisher,
            key,
        };
        house.publish(0);
        house
    }

    /// A key frame whose every byte is `n`, but for its head.
    fn publish(&self, n: u8) {
        let payload = vec![0x17, 1, 0, 0, 0, n, n, n, n];
        let time = MediaTime(i64::from(n) * 40);
        let message = Message::new(Kind::Video, time, payload.into());
        self.publisher.publish(message, Instant::now());
    }

    async fn join(&self, first: Bytes) -> Player {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let peer = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(peer), listener.accept());
        let mut subscriber = self.relay.subscribe(&self.key, Feed::Source, Class::Viewer);
        let private = subscriber.join(relay::Join::Burst);
        let (outcome, over) = oneshot::channel();
        let (released, let_go) = oneshot::channel();
        let joiner = Joiner {
            id: self.fanout.next_id(),
            socket: Arc::new(Socket::plain(theirs.unwrap().0)),
            turns: None,
            arrival: Arrival {
                door: "rtmp",
                peer,
                since: SystemTime::now(),
            },
            subscriber,
            class: Class::Viewer,
            framing: RTMP,
            first,
            private,
            outcome,
            released,
        };
        Player {
            line: self.fanout.join(joiner).unwrap(),
            socket: ours.unwrap(),
            over,
            _released: let_go,
        }
    }
}

impl Player {
    /// Reads until frame `n` has come.
    async fn sees(&mut self, n: u8) {
        let mut seen = Vec::new();
        while !seen.ends_with(&[n; 4]) {
            let byte = tokio::time::timeout(Duration::from_secs(10), self.socket.read_u8());
            seen.push(byte.await.expect("it comes").expect("the connection holds"));
        }
    }
}

#[tokio::test]
async fn a_panic_while_one_player_is_served_ends_that_player_and_no_other() {
    let house = House::new();
    let mut healthy = house.join(Bytes::new()).await;
    healthy.sees(0).await;
    // When it joins; when it, a follower by then, is to be sent an answer; at its last words.
    for n in 1..=3 {
        let mut cursed = match n {
            1 => house.join(Cursed::bytes()).await,
            _ => {
                let mut player = house.join(Bytes::new()).await;
                player.sees(n - 1).await;
                player
            }
        };
        match n {
            1 => {}
            2 => assert!(cursed.line.control(Cursed::bytes()).await),
            _ => cursed.line.finish(Cursed::bytes()).await,
        }
        assert_eq!((&mut cursed.over).await, Ok(Reason::Internal), "case {n}");
        house.publish(n);
        healthy.sees(n).await;
        let players = house.fanout.readers(&house.key).await;
        assert_eq!(players.len(), 1, "case {n}");
    }
    assert!(healthy.over.try_recv().is_err(), "it goes on");
}

#[tokio::test]
async fn nobody_is_sent_to_a_loop_that_is_gone() {
    let house = House::new();
    let mut player = house.join(Bytes::new()).await;
    player.sees(0).await;
    house.fanout.clear();
    assert!(player.over.await.is_err(), "its loop is gone");
    let mut next = house.join(Bytes::new()).await;
    next.sees(0).await;
}
