use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
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
    released: oneshot::Receiver<()>,
    /// As its connection has it.
    ours: Arc<Socket>,
}

impl House {
    fn new() -> Self {
        let relay = Relay::new(relay::Config::default());
        let key = StreamKey::new("live", "a").unwrap();
        let origin = Origin::Anchor {
            connection: crate::logging::ConnectionId::next(),
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
        self.publish_bytes(n, 0x17, 4);
    }

    fn publish_bytes(&self, n: u8, first: u8, bytes: usize) {
        let mut payload = vec![first, 1, 0, 0, 0];
        payload.resize(payload.len() + bytes, n);
        let time = MediaTime(i64::from(n) * 40);
        let message = Message::new(Kind::Video, time, payload.into());
        self.publisher.publish(message, Instant::now());
    }

    async fn join(&self, first: Bytes) -> Player {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let peer = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(peer), listener.accept());
        let mut subscriber = self.relay.subscribe(&self.key, Feed::Source, Class::Viewer);
        let private = subscriber.join(relay::Join::Squeeze);
        let (outcome, over) = oneshot::channel();
        let (released, let_go) = oneshot::channel();
        let shared = Arc::new(Socket::plain(theirs.unwrap().0));
        let joiner = Joiner {
            id: self.fanout.next_id(),
            socket: shared.clone(),
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
            released: let_go,
            ours: shared,
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

/// Bytes of a picture, of which the kernel takes some, and not [`GOP`].
const PICTURE: usize = 20_000;
const GOP: u8 = 100;

/// A player that is given a group of pictures, and reads nothing of it.
async fn stuck(house: &House) -> Player {
    for n in 1..GOP {
        house.publish_bytes(n, 0x27, PICTURE);
    }
    let player = house.join(Bytes::new()).await;
    // Asked behind its first turn, which ended where its socket was full.
    let readers = house.fanout.readers(&house.key).await;
    assert!(readers[0].unacknowledged > 0, "it takes all");
    player
}

#[tokio::test]
async fn nobody_but_its_connection_has_the_socket_of_a_player_that_is_let_go_of() {
    let house = House::new();
    let player = stuck(&house).await;
    // The loop waits for a socket that takes nothing more.
    drop(player.line);
    let cut = tokio::time::timeout(Duration::from_secs(10), player.released).await;
    assert!(cut.expect("it is told").is_err(), "it was in a message");
    assert!(Arc::into_inner(player.ours).is_some(), "the loop has it");
}

#[tokio::test]
async fn who_stops_hears_out_what_has_begun_and_who_is_finished_with_all_that_waits() {
    let mut heard = Vec::new();
    for stops in [true, false] {
        let house = House::new();
        let mut player = stuck(&house).await;
        match stops {
            true => player.line.stop().await,
            false => player.line.finish(Bytes::new()).await,
        }
        // Answered when the loop has heard that.
        house.fanout.readers(&house.key).await;
        let mut all = Vec::new();
        let ours = player.ours;
        let closes = async {
            assert_eq!(player.released.await, Ok(()), "at a message's end");
            drop(Arc::into_inner(ours).expect("nobody else has it"));
        };
        let reads =
            tokio::time::timeout(Duration::from_secs(10), player.socket.read_to_end(&mut all));
        let ((), read) = tokio::join!(closes, reads);
        read.expect("it ends").expect("the connection holds");
        let last = *all.last().expect("pictures");
        assert!(all.ends_with(&vec![last; PICTURE / 4]), "a picture is cut");
        heard.push(last);
    }
    // How much of it the kernel had taken is its own matter.
    assert!(heard[0] < GOP - 1 && heard[1] == GOP - 1, "{heard:?}");
}
