//! A publisher and its player beside the abuse: every frame is numbered, and every number must arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use linkmic::rtmp::kind;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::edge::client::{Client, is_frame};
use crate::edge::clip::{clip, number_of, numbered};
use crate::edge::house::Urls;

/// One frame, ms.
const FRAME: u32 = 40;

/// Runs until [`Healthy::assert_nothing_missed`].
pub struct Healthy {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    publisher: JoinHandle<()>,
    player: JoinHandle<Vec<u32>>,
}

impl Healthy {
    pub async fn start(urls: &Urls) -> Self {
        let mut publisher = Client::publish(&urls.push("healthy"))
            .await
            .expect("granted");
        for header in clip().await.headers() {
            publisher.send_tag(header, 0).await;
        }
        let mut player = Client::play(&urls.plain("healthy")).await.expect("granted");
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU32::new(0));
        let (stopped, counter) = (stop.clone(), sent.clone());
        let publisher = tokio::spawn(async move {
            let mut tick = interval(Duration::from_millis(FRAME.into()));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for n in 0.. {
                tick.tick().await;
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let frame = numbered(n, n % 25 == 0, 1_000);
                publisher.send(kind::VIDEO, n * FRAME, frame).await;
                counter.store(n + 1, Ordering::Relaxed);
            }
            publisher.unpublish().await;
        });
        let player = tokio::spawn(async move {
            let mut numbers = Vec::new();
            while let Some(linkmic::rtmp::session::client::Event::Media(message)) =
                player.event().await
            {
                if is_frame(&message, kind::VIDEO) {
                    numbers.extend(number_of(&message.payload));
                }
            }
            numbers
        });
        Self {
            stop,
            sent,
            publisher,
            player,
        }
    }

    /// Ends both and compares.
    pub async fn assert_nothing_missed(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.publisher.await.expect("the publisher was let alone");
        let got = self.player.await.expect("the player was let alone");
        let sent: Vec<u32> = (0..self.sent.load(Ordering::Relaxed)).collect();
        assert!(!sent.is_empty(), "nothing was published");
        assert_eq!(got, sent, "frames of the healthy player");
    }
}
