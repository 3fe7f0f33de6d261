//! The hall: one `Stream` per name with its two feeds, publish epochs, and subscribers.
//!
//! Owns the registry, the rings and the splices. Refuses to know who publishes or reads: anchors,
//! mixes, players and CDN targets all come through the same two handles, [`Publisher`] and
//! [`Subscriber`], which clean up when dropped. Facts go up as [`Event`]s. Called by `ingest`,
//! `playback`, `push`, `mixer`; looked at by `api`.

pub mod door;
mod feed;
mod info;
mod item;
mod policy;
mod publisher;
mod registry;
mod ring;
mod stream;
mod subscriber;
#[cfg(test)]
mod tests;

pub use info::{FeedInfo, PublisherInfo, StreamInfo, TrackInfo};
pub use item::{Framing, Item};
pub use policy::{Budget, Pace, Verdict};
pub use publisher::{Origin, Publisher, Status};
pub use registry::{Event, PublishError, Relay};
pub use ring::{Join, Read};
pub use subscriber::{Reception, Subscriber};

use std::time::Duration;

use crate::media::PerApp;

/// Bounds of the hall. Defaults are those of config/linkmic.toml.
#[derive(Debug, Clone)]
pub struct Config {
    /// Messages older than this, in media time, leave a ring, whether or not they began the newest GOP.
    pub gop_time: Duration,
    /// Payload bytes that a ring keeps at most.
    pub gop_bytes: usize,
    /// Media time that a ring keeps behind its newest key frame for readers that are a little late.
    pub history: Duration,
    /// How long readers of a vanished publisher wait for the next one.
    pub republish_grace: PerApp<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gop_time: Duration::from_secs(20),
            gop_bytes: 32 << 20,
            history: Duration::from_secs(4),
            republish_grace: PerApp::all(Duration::from_secs(10)),
        }
    }
}
