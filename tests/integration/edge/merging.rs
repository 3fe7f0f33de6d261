//! `merge_window`: what came in goes out together once per window, and nothing of it is lost or held back for good.
//!
//! Judged by what each of a reader's reads brings. A reader that is late itself finds more at once, never less, so a
//! busy machine cannot make a server that merges look as if it did not.

use std::time::Duration;

use linkmic::rtmp::session::client::Session;
use linkmic::rtmp::url::Target;
use linkmic::rtmp::{Message, chunk, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::SOON;
use super::client::{Client, is_frame, shake_hands};
use super::clip::{clip, number_of, numbered};
use super::house::House;

const WINDOW: &str =
    "[classes.viewer]\nmerge_window = \"33ms\"\n[classes.low_latency]\nmerge_window = \"33ms\"\n";
/// Media time between two messages, ms: six or seven in a window, where without one each would go at once.
const TICK: u32 = 5;
const MESSAGES: u32 = 400;

/// A reader of which each read is seen.
struct Reads {
    socket: TcpStream,
    session: Session,
    chunks: chunk::Reader,
}

impl Reads {
    async fn play(url: &str) -> Self {
        let target = Target::parse(url).expect("a URL");
        let (socket, chunks) = shake_hands(&target, None).await;
        Self {
            socket,
            session: Session::play(&target),
            chunks,
        }
    }

    /// What the next read brings of the stream.
    async fn read(&mut self) -> Vec<Message> {
        let say = self.session.output();
        self.socket.write_all(&say).await.expect("it reads");
        let read = timeout(SOON, self.socket.read_buf(self.chunks.buffer())).await;
        let read = read.expect("something comes").expect("it holds");
        assert!(read > 0, "closed");
        let mut media = Vec::new();
        while let Some(message) = self.chunks.next().expect("it makes sense") {
            if [kind::AUDIO, kind::VIDEO].contains(&message.type_id) {
                media.push(message);
            } else {
                self.session.handle(message).expect("it makes sense");
            }
        }
        media
    }

    /// Frames of `kind` from the first one that comes to number `last`: that of the first, and how many each read
    /// brought.
    async fn upto(&mut self, kind: u8, last: u32) -> (u32, Vec<usize>) {
        let mut first = None;
        let mut next = 0;
        let mut reads = Vec::new();
        while next <= last {
            let media = self.read().await;
            let frames = media.iter().filter(|m| is_frame(m, kind));
            let numbers = frames.map(|m| number_of(&m.payload).expect("numbered"));
            let mut count = 0;
            for number in numbers {
                if first.is_none() {
                    (first, next) = (Some(number), number);
                }
                assert_eq!(number, next, "in order, and all of them");
                next += 1;
                count += 1;
            }
            if count > 0 {
                reads.push(count);
            }
        }
        (first.unwrap_or_default(), reads)
    }
}

/// Either kind of frame, with its number.
fn frame(kind: u8, number: u32) -> Vec<u8> {
    if kind == kind::VIDEO {
        return numbered(number, number == 0, 200);
    }
    let mut sound = vec![0xaf, 1, 0, 0, 0];
    sound.extend(number.to_be_bytes());
    sound
}

/// Publishes `MESSAGES` of one kind in real time, and tells what a viewer and a peer got: number of the first, and how
/// many each read brought.
async fn reads(more: &str, kind: u8) -> [(u32, Vec<usize>); 2] {
    let house = House::open_with("", more).await;
    let mut publisher = Client::publish(&house.urls.push("a"))
        .await
        .expect("granted");
    for header in clip().await.headers() {
        if header.kind == kind {
            publisher.send_tag(header, 0).await;
        }
    }
    publisher.send(kind, 0, frame(kind, 0)).await;
    let mut viewer = Reads::play(&house.urls.plain("a")).await;
    let mut peer = Reads::play(&house.urls.peer("a")).await;
    let publish = async {
        let mut tick = interval(Duration::from_millis(TICK.into()));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for n in 1..=MESSAGES {
            tick.tick().await;
            publisher.send(kind, n * TICK, frame(kind, n)).await;
        }
        // Stays, and says no more: the last window must end without anything that comes.
        publisher
    };
    let (_publisher, viewer, peer) = tokio::join!(
        publish,
        viewer.upto(kind, MESSAGES),
        peer.upto(kind, MESSAGES)
    );
    [viewer, peer]
}

fn told(reads: &[usize]) -> String {
    let longest = reads.iter().max().copied().unwrap_or_default();
    format!("{} reads, {longest} messages at most", reads.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_merge_window_messages_come_together_and_all_of_them() {
    for (name, kind) in [("pictures", kind::VIDEO), ("sound alone", kind::AUDIO)] {
        let [viewer, peer] = reads(WINDOW, kind).await;
        println!("{name}: viewer {}, peer {}", told(&viewer.1), told(&peer.1));
        for (first, reads) in [viewer, peer] {
            let count = reads.iter().sum::<usize>();
            assert_eq!(count as u32, MESSAGES + 1 - first, "{name}");
            assert!(first <= MESSAGES / 4, "{name}: from {first} on");
            assert!(reads.len() <= count / 3, "{name}: {}", told(&reads));
            // Not all at the end either: a window is over when it is over.
            assert!(reads.len() >= 10, "{name}: {}", told(&reads));
        }
    }
}
