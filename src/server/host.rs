//! Measures once a second what the process takes of its host.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::media::StreamKey;
use crate::net::host::Host;
use crate::relay::{FeedInfo, Relay};

const EVERY: Duration = Duration::from_secs(1);

/// Measures for as long as it is polled.
pub async fn measure(relay: Relay, host: Host) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut egress = Egress::default();
    loop {
        ticks.tick().await;
        let (all, usual) = egress.at(&relay, Instant::now());
        host.measure(all, usual);
    }
}

/// What goes to players: each feed's media, as often as it has readers.
#[derive(Debug, Default)]
struct Egress {
    last: Option<Instant>,
    /// Media bytes of both feeds of each stream by then.
    bytes: HashMap<StreamKey, [u64; 2]>,
}

impl Egress {
    /// Bytes a second since the last time: to all players, and what one more is reckoned to take.
    fn at(&mut self, relay: &Relay, now: Instant) -> (f64, f64) {
        let passed = self
            .last
            .replace(now)
            .map(|last| (now - last).as_secs_f64());
        let before = std::mem::take(&mut self.bytes);
        let (mut all, mut readers, mut widest) = (0.0, 0_usize, 0.0_f64);
        for stream in relay.streams() {
            let feeds = [stream.source, stream.program];
            let bytes = feeds.map(|feed| feed.bytes);
            if let (Some(seconds), Some(known)) = (passed, before.get(&stream.key)) {
                for ((feed, bytes), known) in feeds.iter().zip(bytes).zip(known) {
                    let rate = bytes.saturating_sub(*known) as f64 / seconds.max(0.001);
                    all += rate * of(feed) as f64;
                    readers += of(feed);
                    widest = widest.max(rate);
                }
            }
            self.bytes.insert(stream.key, bytes);
        }
        let usual = match readers {
            0 => widest,
            many => all / many as f64,
        };
        (all, usual)
    }
}

fn of(feed: &FeedInfo) -> usize {
    feed.low_latency + feed.viewers
}
