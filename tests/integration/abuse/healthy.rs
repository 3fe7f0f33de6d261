//! A publisher and its players beside the abuse: every frame is numbered, and every number must arrive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use linkmic::probe::latency::Latencies;
use linkmic::rtmp::kind;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::edge::client::{Client, is_frame};
use crate::edge::clip::{clip, number_of, numbered};
use crate::edge::house::Urls;

/// One frame, ms.
const FRAME: u32 = 40;
/// The name that is published.
pub const NAME: &str = "healthy";

/// What a player has got: the number of a frame, and when it came.
type Got = Arc<Mutex<Vec<(u32, Instant)>>>;

/// Runs until [`Healthy::assert_nothing_missed`].
pub struct Healthy {
    stop: Arc<AtomicBool>,
    /// When each frame was sent.
    sent: Arc<Mutex<Vec<Instant>>>,
    publisher: JoinHandle<()>,
    players: Vec<(Got, JoinHandle<()>)>,
}

impl Healthy {
    /// With one player.
    pub async fn start(urls: &Urls) -> Self {
        Self::start_with(urls, 1).await
    }

    /// With so many players.
    pub async fn start_with(urls: &Urls, players: usize) -> Self {
        // Made at the first call, which takes longer on a busy machine than a publisher may be idle.
        let clip = clip().await;
        let mut publisher = Client::publish(&urls.push(NAME)).await.expect("granted");
        for header in clip.headers() {
            publisher.send_tag(header, 0).await;
        }
        let mut playing = Vec::new();
        for _ in 0..players {
            let player = Client::play(&urls.plain(NAME)).await.expect("granted");
            let got = Got::default();
            playing.push((got.clone(), tokio::spawn(play(player, got))));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let sent: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let (stopped, times) = (stop.clone(), sent.clone());
        let publisher = tokio::spawn(async move {
            let mut tick = interval(Duration::from_millis(FRAME.into()));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for n in 0.. {
                tick.tick().await;
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let frame = numbered(n, n % 25 == 0, 1_000);
                times.lock().expect("no panic").push(Instant::now());
                publisher.send(kind::VIDEO, n * FRAME, frame).await;
            }
            publisher.unpublish().await;
        });
        Self {
            stop,
            sent,
            publisher,
            players: playing,
        }
    }

    /// From a frame's way into the publisher's socket to its way out of a player's, for all frames sent since `since`.
    pub fn latencies(&self, since: Instant) -> Latencies {
        let sent = self.sent.lock().expect("no panic").clone();
        let mut all = Vec::new();
        for (got, _) in &self.players {
            for (number, at) in got.lock().expect("no panic").iter() {
                let begin = sent[*number as usize];
                if begin >= since {
                    all.push(at.duration_since(begin));
                }
            }
        }
        all.into_iter().collect()
    }

    /// Connections that this takes.
    pub fn connections(&self) -> usize {
        1 + self.players.len()
    }

    /// Ends all and compares.
    pub async fn assert_nothing_missed(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.publisher.await.expect("the publisher was let alone");
        let sent = self.sent.lock().expect("no panic").len() as u32;
        assert!(sent > 0, "nothing was published");
        for (got, player) in self.players {
            player.await.expect("the player was let alone");
            let got = got.lock().expect("no panic");
            let got: Vec<u32> = got.iter().map(|(number, _)| *number).collect();
            assert_eq!(got, (0..sent).collect::<Vec<_>>(), "frames of a player");
        }
    }
}

async fn play(mut player: Client, got: Got) {
    while let Some(linkmic::rtmp::session::client::Event::Media(message)) = player.event().await {
        if is_frame(&message, kind::VIDEO)
            && let Some(number) = number_of(&message.payload)
        {
            got.lock().expect("no panic").push((number, Instant::now()));
        }
    }
}
