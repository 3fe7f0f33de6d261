//! The hall: one `Stream` per name with its two feeds, publish epochs, and subscribers.
//!
//! Owns the registry, the rings and the splices. Refuses to know who publishes or reads: anchors,
//! mixes, players and CDN targets all come through the same two handles, [`Publisher`] and
//! [`Subscriber`], which clean up when dropped. Facts go up as [`Event`]s. Called by `ingest`,
//! `playback`, `push`, `mixer`; looked at by `api`.

pub mod door;
mod epoch;
#[cfg(test)]
mod epoch_tests;
mod event;
mod feed;
mod held;
mod info;
mod item;
mod ledger;
mod news;
mod origin;
mod overlay;
mod policy;
mod publisher;
mod registry;
mod ring;
mod roots;
mod sequence;
#[cfg(test)]
mod sound_tests;
mod stream;
mod subscriber;
mod takeover;
#[cfg(test)]
mod tests;

pub use epoch::{Bell, Tenure};
pub use event::{Event, Stamp};
pub use info::{FeedInfo, Lately, PublisherInfo, StreamInfo, Survey, TrackInfo};
pub use item::{Framing, Item};
pub use ledger::{Contradiction, Ledger};
pub use origin::{Origin, Query};
pub use policy::{Behind, Budget, Cause, Mark, Pace, Verdict};
pub use publisher::{Publisher, Status};
pub use registry::{PublishError, Relay};
pub use ring::{Join, Read};
pub use subscriber::{Reception, Subscriber};
pub use takeover::{OnBusy, Refused};

use std::time::Duration;

use crate::media::PerApp;
use crate::memory::Memory;

/// Bounds of the hall. Defaults are those of config/linkmic.toml.
#[derive(Debug, Clone)]
pub struct Config {
    /// Messages older than this, in media time, leave a ring, whether or not they began the newest GOP.
    pub gop_time: Duration,
    /// Payload bytes that a ring keeps at most.
    pub gop_bytes: usize,
    /// Media time that a ring keeps behind its newest key frame for readers that are a little late.
    pub history: Duration,
    /// The account that payloads on feeds count in.
    pub memory: Memory,
    /// How long readers of a vanished publisher wait for the next one.
    pub republish_grace: PerApp<Duration>,
    /// Who keeps a name that a second publisher asks for.
    pub on_busy: PerApp<OnBusy>,
    /// A GOP longer than this, in media time, is told in the publisher's health.
    pub gop_warning: PerApp<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            gop_time: Duration::from_secs(20),
            gop_bytes: 32 << 20,
            history: Duration::from_secs(4),
            memory: Memory::default(),
            republish_grace: PerApp::all(Duration::from_secs(10)),
            on_busy: PerApp::all(OnBusy::default()),
            gop_warning: PerApp::all(Duration::from_secs(10)),
        }
    }
}
